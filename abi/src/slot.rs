// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Slots and records: the bytes of the ring, of `read(2)` and of capture files.
//!
//! The header of a slot has all that decoding its records needs, so no reader guesses from a kernel version. In the
//! ring each slot has whole pages; in `read(2)` and in files each is cut to [`SlotHeader::used_bytes`].

use crate::version::ABI_VERSION;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The most bytes of a slot that are filled. In the ring it has whole pages of the kernel: [`slot_pages_of`].
pub const SLOT_BYTES: usize = 16384;
/// The most bytes that are filled of a slot of any kind but [`SlotKind::PACKED`]. The same whatever pages the kernel has, so
/// that a call has the same bounds on all kernels; it is within the first page.
pub const PLAIN_SLOT_BYTES: usize = 4096;
/// The most bytes of any slot: a reader takes rings and captures with slots up to that size.
pub const MAX_SLOT_BYTES: usize = 65536;
/// The most [`Record`]s of a slot.
pub const SLOT_RECORDS: usize = fit(size_of::<Record>());
/// The most [`VmRecord`]s of a slot.
pub const SLOT_VMS: usize = fit(size_of::<VmRecord>());
/// The most [`Fact`]s of a slot.
pub const SLOT_FACTS: usize = fit(size_of::<Fact>());
/// The most [`FrameRecord`]s of a slot.
pub const SLOT_FRAMES: usize = fit(size_of::<FrameRecord>());
/// The most [`MemorySlot`]s of a slot.
pub const SLOT_MEMORY: usize = fit(size_of::<MemorySlot>());

/// Returns how many records of a size fit a slot that is not packed.
const fn fit(record_bytes: usize) -> usize {
    (PLAIN_SLOT_BYTES - size_of::<SlotHeader>()) / record_bytes
}

/// Returns how many pages a slot has in the ring of a kernel with pages of `page_bytes`. They follow each other.
#[must_use]
pub const fn slot_pages_of(page_bytes: usize) -> usize {
    SLOT_BYTES.div_ceil(page_bytes)
}

/// First four bytes of every slot: `S2D` and 0x1a.
pub const SLOT_MAGIC: u32 = u32::from_le_bytes(*b"S2D\x1a");

/// What a slot holds. An open enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotKind(pub u16);

impl SlotKind {
    /// Runs of a table, in ascending input addresses: [`Record`].
    pub const RANGES: Self = Self(1);
    /// The descriptor of each level for one input address, top first: [`Record`], count 1.
    pub const WALK: Self = Self(2);
    /// VMs: [`VmRecord`].
    pub const VMS: Self = Self(3);
    /// The end of a dump, walk or list; it has no records. `status` says how it ended, `visited` is the most that any
    /// one call visited, and `sequence` is the number of slots before it.
    pub const END: Self = Self(4);
    /// Runs of a table, in ascending input addresses: [`PackedRun`]s, each followed by one or more descriptors. A
    /// record of this slot is a word of 8 bytes.
    pub const PACKED: Self = Self(5);
    /// What pKVM keeps about page frames, in ascending addresses: [`FrameRecord`]. Addresses in no record are no memory.
    pub const FRAMES: Self = Self(6);
    /// Facts: [`Fact`].
    pub const FACTS: Self = Self(7);
    /// One page frame and some places, at one moment: [`Record`]. First the one of kind [`FRAME`](RecordKind::FRAME), if
    /// the address is memory with a state; then for each place one of kind [`PLACE`](RecordKind::PLACE), followed by its
    /// walk as in a [`WALK`](Self::WALK) slot. `target` is 0 and `start` the physical address.
    pub const EXAMINE: Self = Self(8);
    /// Where and when a capture was made: text, of which a record is a byte. Neither EL2 nor the driver writes it, and it belongs to
    /// no stream.
    pub const ORIGIN: Self = Self(9);
    /// Memory slots of a VM, in ascending input addresses: [`MemorySlot`]. The driver writes it. `target` is the VM, and no root
    /// says which of those that had its handle one after the other.
    pub const MEMORY: Self = Self(10);
    /// Names of input addresses of `target`: text, of which a record is a byte. A line is the first and the last address that
    /// have the name, in hexadecimal with `-` between them, a space, and the name. Written as [`ORIGIN`](Self::ORIGIN) is.
    pub const NAMES: Self = Self(11);
}

/// Bits of [`SlotHeader::flags`]. Unknown bits are ignored.
pub mod slot_flags {
    /// Runs end also where the output addresses stop being contiguous.
    pub const EXACT: u16 = 1 << 0;
    /// This slot holds the whole dump, which was read in one call under the table's lock.
    pub const ATOMIC: u16 = 1 << 1;
    /// `digest` is filled.
    pub const DIGEST: u16 = 1 << 2;
    /// The guest is protected.
    pub const PROTECTED: u16 = 1 << 3;
    /// Teardown of the VM had begun when its table was locked: pages may be missing.
    pub const DYING: u16 = 1 << 4;
    /// Table pages are told too.
    pub const TABLES: u16 = 1 << 5;
}

/// Bits of [`SlotHeader::table_features`]: the features in force that the meaning of descriptors depends on.
pub mod table_features {
    /// FEAT_LPA2 descriptors (VTCR_EL2.DS): output address bits 51:50 in 9:8, shareability from VTCR_EL2.
    pub const LPA2: u32 = 1 << 0;
    /// HCR_EL2.FWB: MemAttr has the FWB encoding.
    pub const FWB: u32 = 1 << 1;
    /// FEAT_XNX: XN is two bits.
    pub const XNX: u32 = 1 << 2;
    /// EL2 runs with HCR_EL2.E2H (hVHE). It decides the format of EL2's stage-1 descriptors.
    pub const HVHE: u32 = 1 << 3;
}

/// How a kernel uses software bits and invalid entries: [`SlotHeader::encoding`]. An open enum.
pub mod encoding {
    /// The meaning of software bits and invalid entries is not known.
    pub const NONE: u16 = 0;
    /// pKVM as of Linux 7.2: bits 56:55 hold the page state; bits 63:60 of an invalid entry hold its type
    /// (`asm/kvm_pgtable.h`).
    pub const PKVM_7_2: u16 = 1;
    /// pKVM of Android's common kernel android16-6.12: bits 56:55 hold the page state, of EL2's own leaves too; an invalid entry
    /// holds an owner in 9:2, or is bit 10 (locked) or bit 11 (MMIO guard).
    pub const PKVM_ANDROID_6_12: u16 = 2;
}

/// Header of a slot. Reserved bytes are zero and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SlotHeader {
    /// Offset 0, length 4: [`SLOT_MAGIC`].
    pub magic: u32,
    /// Offset 4, length 4: version of the writer, as [`AbiVersion::to_bits`](crate::version::AbiVersion::to_bits).
    pub version: u32,
    /// Offset 8, length 2: bytes of this header; records start there.
    pub header_bytes: u16,
    /// Offset 10, length 2: bytes of one record.
    pub record_bytes: u16,
    /// Offset 12, length 2: [`SlotKind`].
    pub kind: u16,
    /// Offset 14, length 2: [`slot_flags`].
    pub flags: u16,
    /// Offset 16, length 4: number of records.
    pub record_count: u32,
    /// Offset 20, length 4: descriptors this call visited (handles and vCPUs in a list); in an END slot the most that
    /// any call visited.
    pub visited: u32,
    /// Offset 24, length 8: number of the slot in its dump, from 0.
    pub sequence: u64,
    /// Offset 32, length 8: [`Target`](crate::target::Target).
    pub target: u64,
    /// Offset 40, length 8: first input address this slot covers (first handle in a list).
    pub start: u64,
    /// Offset 48, length 8: the input address after the last one this slot covers (in a list the next handle, 0 if
    /// none).
    pub next: u64,
    /// Offset 56, length 8: end of the dump this slot belongs to, exclusive.
    pub end: u64,
    /// Offset 64, length 8: VTCR_EL2 of the table; of EL2's stage 1, TCR_EL2.
    pub vtcr: u64,
    /// Offset 72, length 8: physical address of the root table.
    pub root: u64,
    /// Offset 80, length 8: if it was asked for, the wrapping sum of the digests of all descriptors read.
    pub digest: u64,
    /// Offset 88, length 4: [`table_features`].
    pub table_features: u32,
    /// Offset 92, length 1: input-address bits.
    pub ia_bits: u8,
    /// Offset 93, length 1: start level, -1 to 3.
    pub start_level: i8,
    /// Offset 94, length 1: granule as a shift: 12, 14 or 16.
    pub page_shift: u8,
    /// Offset 95, length 1: effective output-address bits.
    pub pa_bits: u8,
    /// Offset 96, length 2: [`encoding`].
    pub encoding: u16,
    /// Offset 98, length 2: VMID.
    pub vmid: u16,
    /// Offset 100, length 4: the budget this call had.
    pub budget: u32,
    /// Offset 104, length 4: in an END slot the [`Status`](crate::hypercall::Status) it ends with; else 0.
    pub status: u32,
    /// Offset 108, length 4: for how many ticks of the system counter this call held the table's lock; in a list the
    /// longest hold of the VM table's lock; in an END slot the most of any call. All ones means that many or more.
    pub held_ticks: u32,
    /// Offset 112, length 4: ticks of the system counter per second; 0 in a VMS slot that the driver wrote.
    pub tick_hz: u32,
    /// Offset 116, length 4: zero.
    pub reserved: u32,
    /// Offset 120, length 8: MAIR_EL2 if the table is EL2's stage 1; else 0.
    pub mair: u64,
}

impl SlotHeader {
    /// Returns the header of a slot of this version that is about no table and has no records.
    #[must_use]
    #[inline(always)]
    pub const fn new(kind: SlotKind) -> Self {
        Self {
            magic: SLOT_MAGIC,
            version: ABI_VERSION.to_bits(),
            header_bytes: size_of::<Self>() as u16,
            record_bytes: 0,
            kind: kind.0,
            flags: 0,
            record_count: 0,
            visited: 0,
            sequence: 0,
            target: 0,
            start: 0,
            next: 0,
            end: 0,
            vtcr: 0,
            root: 0,
            digest: 0,
            table_features: 0,
            ia_bits: 0,
            start_level: 0,
            page_shift: 0,
            pa_bits: 0,
            encoding: 0,
            vmid: 0,
            budget: 0,
            status: 0,
            held_ticks: 0,
            tick_hz: 0,
            reserved: 0,
            mair: 0,
        }
    }

    /// Returns the bytes of header and records, or `None` if that is more than [`MAX_SLOT_BYTES`] or less than a header.
    #[must_use]
    pub fn used_bytes(&self) -> Option<usize> {
        let header = usize::from(self.header_bytes);
        let records = usize::from(self.record_bytes).checked_mul(usize::try_from(self.record_count).ok()?)?;
        let used = header.checked_add(records)?;
        (header >= size_of::<Self>() && used <= MAX_SLOT_BYTES).then_some(used)
    }
}

/// What a [`Record`] describes. An open enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordKind(pub u8);

impl RecordKind {
    /// Entries with bit 0 clear. All zero is a hole; anything else is what software left there. `oa` is 0.
    pub const INVALID: Self = Self(0);
    /// Pages or blocks.
    pub const LEAF: Self = Self(1);
    /// A table descriptor; `oa` is the next table. Runs have them only if [`slot_flags::TABLES`] is set: such a record
    /// covers no addresses, those after it do.
    pub const TABLE: Self = Self(2);
    /// A valid descriptor whose type the level does not allow.
    pub const RESERVED: Self = Self(3);
    /// A table descriptor that was not followed, because it points outside the memory EL2 may read.
    pub const TABLE_OUTSIDE: Self = Self(4);
    /// A table descriptor that was not followed, because it points to its own table page or to one above.
    pub const TABLE_LOOP: Self = Self(5);
    /// In an [`EXAMINE`](SlotKind::EXAMINE) slot: `ia` is the physical address, and `descriptor` what pKVM keeps about
    /// the frame, as in [`FrameRecord::raw`].
    pub const FRAME: Self = Self(6);
    /// In an [`EXAMINE`](SlotKind::EXAMINE) slot: `descriptor` is a [`Target`](crate::target::Target), `ia` the input
    /// address, `oa` the root of its table, and `count` the [`Status`](crate::hypercall::Status) with which the table
    /// was locked, `VM_DYING` of a dying VM, and `BAD_RANGE` if the table does not reach that address. Unless that is OK,
    /// `oa` is 0 and no walk follows.
    pub const PLACE: Self = Self(7);
}

/// Bits of [`Record::flags`]. Unknown bits are ignored.
pub mod record_flags {
    /// The output addresses of the run are contiguous: each entry follows the one before. It is also set for a run of
    /// one entry, and for every kind but leaves, because all entries of such a run are the same descriptor.
    pub const LINEAR: u16 = 1 << 0;
    /// The run may continue the last record of the slot before. Set in the first record of every slot but the first.
    pub const CONTINUES: u16 = 1 << 1;
    /// In a [`PackedRun`](super::PackedRun): a descriptor for each entry follows. Without it one follows, which is that of the first entry
    /// of a run that is linear.
    pub const LIST: u16 = 1 << 2;
    /// For leaves of EL2's stage 1: bits 63:59 of the table descriptors above the run, ORed, as far as they are in
    /// force. All entries of a run have the same. Else 0.
    pub const INHERITED: u16 = 0x1f << 11;
}

/// A run: entries of one level that differ in nothing but the output address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Record {
    /// Offset 0, length 8: input address of the first entry.
    pub ia: u64,
    /// Offset 8, length 8: output address of the first entry; 0 unless a leaf or table.
    pub oa: u64,
    /// Offset 16, length 8: the first descriptor as it stood in the table.
    pub descriptor: u64,
    /// Offset 24, length 4: number of entries.
    pub count: u32,
    /// Offset 28, length 1: level, -1 to 3.
    pub level: i8,
    /// Offset 29, length 1: [`RecordKind`].
    pub kind: u8,
    /// Offset 30, length 2: [`record_flags`].
    pub flags: u16,
}

/// The head of a run in a [`PACKED`](SlotKind::PACKED) slot. One descriptor follows, or, with
/// [`record_flags::LIST`], one for each entry: entries of one table, of which only level and kind are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PackedRun {
    /// Offset 0, length 8: input address of the first entry.
    pub ia: u64,
    /// Offset 8, length 4: number of entries.
    pub count: u32,
    /// Offset 12, length 1: level, -1 to 3.
    pub level: i8,
    /// Offset 13, length 1: [`RecordKind`].
    pub kind: u8,
    /// Offset 14, length 2: [`record_flags`].
    pub flags: u16,
}

/// Bits of [`FrameRecord::flags`]. Unknown bits are ignored.
pub mod frame_flags {
    /// Memory about which pKVM keeps nothing (`MEMBLOCK_NOMAP`): `raw` is 0 and means nothing.
    pub const NO_STATE: u16 = 1 << 0;
}

/// Neighboring page frames about which pKVM keeps the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FrameRecord {
    /// Offset 0, length 8: physical address of the first frame.
    pub pa: u64,
    /// Offset 8, length 8: what pKVM keeps about each of them, as it stands in memory (`struct hyp_page`). The
    /// [`encoding`] of the slot tells its meaning.
    pub raw: u64,
    /// Offset 16, length 4: number of frames.
    pub count: u32,
    /// Offset 20, length 2: [`frame_flags`].
    pub flags: u16,
    /// Offset 22, length 2: zero.
    pub reserved: u16,
}

/// What a [`Fact`] is about. An open enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FactKind(pub u16);

impl FactKind {
    /// A region of memory that EL2 knows. Physical.
    pub const MEMORY: Self = Self(1);
    /// EL2's code. Physical.
    pub const HYP_TEXT: Self = Self(2);
    /// The slot through which the CPU `value` looks at any page for a moment. An input address of EL2's stage 1.
    pub const FIXMAP: Self = Self(3);
    /// The same for a block, shared by all CPUs. An input address of EL2's stage 1.
    pub const FIXBLOCK: Self = Self(4);
    /// EL2's private mappings: devices, stacks, fixmap. Input addresses of EL2's stage 1.
    pub const HYP_PRIVATE: Self = Self(5);
    /// The states of page frames. Input addresses of EL2's stage 1.
    pub const HYP_VMEMMAP: Self = Self(6);
    /// The linear map of EL2: a physical address is an input address plus `value`, wrapping. `start` and `size` are 0.
    pub const HYP_LINEAR: Self = Self(7);
    /// Pages that s2dump itself shares with EL2 for this session: slots. Physical. The driver tells it.
    pub const RING: Self = Self(32);
    /// EL2's variables that have a value from the start. Physical. The driver tells it.
    pub const HYP_DATA: Self = Self(33);
    /// EL2's constants. Physical. The driver tells it.
    pub const HYP_RODATA: Self = Self(34);
    /// EL2's other variables. Physical. The driver tells it.
    pub const HYP_BSS: Self = Self(35);
}

/// Bits of [`Fact::flags`]. Unknown bits are ignored.
pub mod fact_flags {
    /// Of memory: the host does not map it (`MEMBLOCK_NOMAP`), and pKVM keeps no state for it.
    pub const NOMAP: u16 = 1 << 0;
}

/// A fact that does not change after boot, except for [`FactKind::RING`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Fact {
    /// Offset 0, length 8: first address.
    pub start: u64,
    /// Offset 8, length 8: bytes.
    pub size: u64,
    /// Offset 16, length 8: what [`FactKind`] says; else 0.
    pub value: u64,
    /// Offset 24, length 2: [`FactKind`].
    pub kind: u16,
    /// Offset 26, length 2: [`fact_flags`].
    pub flags: u16,
    /// Offset 28, length 4: zero.
    pub reserved: u32,
}

/// Bits of [`MemorySlot::flags`], those of `struct kvm_userspace_memory_region`. Unknown bits are ignored.
pub mod memory_flags {
    /// KVM notes to which pages the guest writes.
    pub const LOG_DIRTY: u32 = 1 << 0;
    /// The guest cannot write.
    pub const READ_ONLY: u32 = 1 << 1;
    /// A file backs it, of which nothing need be mapped at `hva`.
    pub const GUEST_MEMFD: u32 = 1 << 2;
}

/// A memory slot of a VM: which input addresses its VMM gave it, and what is behind them. Of KVM's slots, not of the ring's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemorySlot {
    /// Offset 0, length 8: first input address.
    pub ia: u64,
    /// Offset 8, length 8: bytes.
    pub size: u64,
    /// Offset 16, length 8: host virtual address of the first byte, in the process that made the VM.
    pub hva: u64,
    /// Offset 24, length 4: [`memory_flags`].
    pub flags: u32,
    /// Offset 28, length 2: number of the slot.
    pub id: u16,
    /// Offset 30, length 2: zero.
    pub reserved: u16,
}

/// Bits of [`VmRecord::flags`]. Unknown bits are ignored.
pub mod vm_flags {
    /// The VM is protected.
    pub const PROTECTED: u16 = 1 << 0;
    /// EL2 has the VM and its table. Clear for a VM that never ran.
    pub const CREATED: u16 = 1 << 1;
    /// Teardown has begun.
    pub const DYING: u16 = 1 << 2;
}

/// A VM. EL2 writes every field, except where EL1 is named. Reserved bytes are zero and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VmRecord {
    /// Offset 0, length 8: VTCR_EL2.
    pub vtcr: u64,
    /// Offset 8, length 8: physical address of the root table.
    pub root: u64,
    /// Offset 16, length 4: process that made the VM. Filled by EL1; 0 if unknown.
    pub pid: u32,
    /// Offset 20, length 4: number of vCPUs EL2 has.
    pub vcpus: u32,
    /// Offset 24, length 2: pKVM handle.
    pub handle: u16,
    /// Offset 26, length 2: [`vm_flags`].
    pub flags: u16,
    /// Offset 28, length 1: input-address bits.
    pub ia_bits: u8,
    /// Offset 29, length 1: start level.
    pub start_level: i8,
    /// Offset 30, length 2: VMID.
    pub vmid: u16,
    /// Offset 32, length 24: name of the VM's debugfs directory, zero padded. Filled by EL1.
    pub name: [u8; 24],
    /// Offset 56, length 8: zero.
    pub reserved: [u32; 2],
}

macro_rules! assert_offsets {
    ($t:ty, $size:literal, $align:literal, $($field:ident @ $offset:literal),+ $(,)?) => {
        const _: () = assert!(size_of::<$t>() == $size && align_of::<$t>() == $align);
        $(const _: () = assert!(core::mem::offset_of!($t, $field) == $offset);)+
    };
}
pub(crate) use assert_offsets;

assert_offsets!(SlotHeader, 128, 8, magic @ 0, version @ 4, header_bytes @ 8, record_bytes @ 10, kind @ 12, flags @ 14,
    record_count @ 16, visited @ 20, sequence @ 24, target @ 32, start @ 40, next @ 48, end @ 56, vtcr @ 64, root @ 72,
    digest @ 80, table_features @ 88, ia_bits @ 92, start_level @ 93, page_shift @ 94, pa_bits @ 95, encoding @ 96,
    vmid @ 98, budget @ 100, status @ 104, held_ticks @ 108, tick_hz @ 112, reserved @ 116, mair @ 120);
assert_offsets!(Record, 32, 8, ia @ 0, oa @ 8, descriptor @ 16, count @ 24, level @ 28, kind @ 29, flags @ 30);
assert_offsets!(PackedRun, 16, 8, ia @ 0, count @ 8, level @ 12, kind @ 13, flags @ 14);
assert_offsets!(FrameRecord, 24, 8, pa @ 0, raw @ 8, count @ 16, flags @ 20, reserved @ 22);
assert_offsets!(Fact, 32, 8, start @ 0, size @ 8, value @ 16, kind @ 24, flags @ 26, reserved @ 28);
assert_offsets!(MemorySlot, 32, 8, ia @ 0, size @ 8, hva @ 16, flags @ 24, id @ 28, reserved @ 30);
assert_offsets!(VmRecord, 64, 8, vtcr @ 0, root @ 8, pid @ 16, vcpus @ 20, handle @ 24, flags @ 26, ia_bits @ 28,
    start_level @ 29, vmid @ 30, name @ 32, reserved @ 56);
