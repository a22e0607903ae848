// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes captures by hand, from the structs of the ABI: what tests read must not come from what they test.

pub mod android;
pub mod captures;
pub mod images;
pub mod machine;
pub mod pages;
pub mod pkvm;

use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{
    encoding, fact_flags, frame_flags, memory_flags, record_flags, slot_flags, table_features, vm_flags, Fact,
    FactKind, FrameRecord, MemorySlot, Record, RecordKind, SlotHeader, SlotKind, VmRecord, SLOT_MAGIC, SLOT_RECORDS,
};
use s2dump_abi::target::Target;
use s2dump_abi::version::ABI_VERSION;
use zerocopy::{FromZeros, IntoBytes};

/// VTCR_EL2 of a 40-bit table from level 1 with a root of two pages, as KVM makes it for `cortex-a53`.
pub const VTCR_40: u64 = 1 << 31 | 2 << 16 | 3 << 12 | 1 << 10 | 1 << 8 | 1 << 6 | 24;
/// VTCR_EL2 of a 48-bit table from level 0, as KVM makes it for `neoverse-v1`.
pub const VTCR_48: u64 = 1 << 31 | 5 << 16 | 3 << 12 | 1 << 10 | 1 << 8 | 2 << 6 | 16;
/// VTCR_EL2 of a 52-bit LPA2 table from level 0 with a root of sixteen pages, as KVM makes it for `max`.
pub const VTCR_52: u64 = 1 << 32 | 1 << 31 | 6 << 16 | 3 << 12 | 1 << 10 | 1 << 8 | 2 << 6 | 12;

/// A page: valid, AF, inner shareable, normal write-back without FWB, read and write.
pub const PAGE: u64 = 1 << 10 | 3 << 8 | 3 << 6 | 0xf << 2 | 0b11;
/// A block with the same attributes.
pub const BLOCK: u64 = PAGE & !0b10;
/// pKVM page state bits: shared by the owner.
pub const SHARED_OWNED: u64 = 1 << 55;
/// pKVM page state bits: borrowed.
pub const SHARED_BORROWED: u64 = 1 << 56;
/// Nobody executes.
pub const XN: u64 = 0b10 << 53;
/// What force reclaim leaves.
pub const POISONED: u64 = 3 << 60;

/// Returns a run.
pub fn run(ia: u64, level: i8, count: u32, kind: RecordKind, oa: u64, descriptor: u64, flags: u16) -> Record {
    Record { ia, oa, descriptor, count, level, kind: kind.0, flags }
}

/// Returns a run of holes.
pub fn hole(ia: u64, level: i8, count: u32) -> Record {
    annotated(ia, level, count, 0)
}

/// Returns a run of invalid entries.
pub fn annotated(ia: u64, level: i8, count: u32, raw: u64) -> Record {
    run(ia, level, count, RecordKind::INVALID, 0, raw, record_flags::LINEAR)
}

/// Returns a run of leaves whose output runs on; their address bits are those below bit 48.
pub fn leaves(ia: u64, level: i8, count: u32, oa: u64, attributes: u64) -> Record {
    run(ia, level, count, RecordKind::LEAF, oa, oa | attributes, record_flags::LINEAR)
}

/// Returns a run of leaves whose output jumps.
pub fn jumping(ia: u64, level: i8, count: u32, oa: u64, attributes: u64) -> Record {
    run(ia, level, count, RecordKind::LEAF, oa, oa | attributes, 0)
}

/// Returns frames about which the same is kept.
pub fn frames(pa: u64, count: u32, raw: u64) -> FrameRecord {
    FrameRecord { pa, raw, count, flags: 0, reserved: 0 }
}

/// Returns frames about which nothing is kept.
pub fn stateless(pa: u64, count: u32) -> FrameRecord {
    FrameRecord { flags: frame_flags::NO_STATE, ..frames(pa, count, 0) }
}

/// Returns a fact.
pub fn fact(kind: FactKind, start: u64, size: u64, value: u64) -> Fact {
    Fact { start, size, value, kind: kind.0, flags: 0, reserved: 0 }
}

/// What pKVM keeps about a frame: states as `enum pkvm_page_state`, the hypervisor's as its complement.
pub fn page_of(host: u64, hyp: u64, refcount: u16, order: u8, shares: u32) -> u64 {
    u64::from(refcount) | u64::from(order) << 16 | host << 24 | (hyp ^ 3) << 28 | u64::from(shares) << 32
}

/// Returns what all slots of a version have.
pub fn slot_header(kind: SlotKind) -> SlotHeader {
    SlotHeader {
        magic: SLOT_MAGIC,
        version: ABI_VERSION.to_bits(),
        header_bytes: size_of::<SlotHeader>() as u16,
        record_bytes: size_of::<Record>() as u16,
        kind: kind.0,
        ..SlotHeader::new_zeroed()
    }
}

/// Returns the header of a slot of a dump of `handle`.
pub fn dump_header(handle: u16, vtcr: u64) -> SlotHeader {
    let ia_bits = 64 - (vtcr & 0x3f) as u8;
    SlotHeader {
        flags: slot_flags::PROTECTED | slot_flags::EXACT,
        target: Target::guest(handle).0,
        end: 1 << ia_bits,
        vtcr,
        root: 0x4100_0000,
        table_features: table_features::XNX | if vtcr >> 32 == 1 { table_features::LPA2 } else { 0 },
        ia_bits,
        start_level: 2 - (vtcr >> 6 & 3) as i8,
        page_shift: 12,
        pa_bits: [32, 36, 40, 42, 44, 48, 52][(vtcr >> 16 & 7) as usize],
        encoding: encoding::PKVM_7_2,
        vmid: handle - 0x0fff,
        budget: 4096,
        visited: 3000,
        ..slot_header(SlotKind::RANGES)
    }
}

/// A capture in the making.
#[derive(Default, Clone)]
pub struct Capture {
    /// Its bytes so far.
    pub bytes: Vec<u8>,
}

impl Capture {
    /// Appends a slot of `header` and `records` as they are.
    pub fn slot<T: IntoBytes + zerocopy::Immutable>(&mut self, header: SlotHeader, records: &[T]) -> &mut Self {
        self.bytes.extend(header.as_bytes());
        self.bytes.extend(records.as_bytes());
        self
    }

    /// Appends a list.
    pub fn list(&mut self, vms: &[VmRecord]) -> &mut Self {
        let header = SlotHeader {
            record_bytes: size_of::<VmRecord>() as u16,
            record_count: vms.len() as u32,
            ..slot_header(SlotKind::VMS)
        };
        self.slot(header, vms).end(0, 1, Status::OK)
    }

    /// Appends a dump in slots of at most `per_slot` records, each beginning where the one before ended.
    pub fn dump(&mut self, header: SlotHeader, records: &[Record], per_slot: usize, status: Status) -> &mut Self {
        self.ranges(header, records, per_slot);
        let slots = records.chunks(per_slot.min(SLOT_RECORDS)).len();
        self.end(header.target, slots as u64, status)
    }

    /// Appends what is kept about frames, in one slot; `encoding` says how.
    pub fn frames(&mut self, encoding: u16, start: u64, end: u64, frames: &[FrameRecord]) -> &mut Self {
        let header = SlotHeader {
            record_bytes: size_of::<FrameRecord>() as u16,
            record_count: frames.len() as u32,
            start,
            next: end,
            end,
            page_shift: 12,
            encoding,
            visited: 1000,
            ..slot_header(SlotKind::FRAMES)
        };
        self.slot(header, frames).end(0, 1, Status::OK)
    }

    /// Appends facts.
    pub fn facts(&mut self, facts: &[Fact]) -> &mut Self {
        let record_count = facts.len() as u32;
        self.slot(SlotHeader { record_count, ..slot_header(SlotKind::FACTS) }, facts).end(0, 1, Status::OK)
    }

    /// Appends the memory slots of a VM, so many in a slot.
    pub fn memory(&mut self, handle: u16, memory: &[MemorySlot], per_slot: usize) -> &mut Self {
        let target = Target::guest(handle).0;
        let header = SlotHeader { target, ..slot_header(SlotKind::MEMORY) };
        for (sequence, chunk) in memory.chunks(per_slot).enumerate() {
            let (record_count, sequence) = (chunk.len() as u32, sequence as u64);
            self.slot(SlotHeader { record_count, sequence, ..header }, chunk);
        }
        self.end(target, memory.chunks(per_slot).len() as u64, Status::OK)
    }

    /// Appends a slot of names, the first of its table.
    pub fn names(&mut self, target: Target, lines: &str) -> &mut Self {
        let text = format!("{lines}{}", "\n".repeat(lines.len().next_multiple_of(8) - lines.len()));
        let (record_bytes, record_count) = (1, text.len() as u32);
        let header = SlotHeader { target: target.0, record_bytes, record_count, ..slot_header(SlotKind::NAMES) };
        self.slot(header, text.as_bytes())
    }

    /// Appends a dump without its END slot.
    pub fn ranges(&mut self, header: SlotHeader, records: &[Record], per_slot: usize) -> &mut Self {
        let mut start = header.start;
        for (sequence, chunk) in records.chunks(per_slot.min(SLOT_RECORDS)).enumerate() {
            let last = chunk[chunk.len() - 1];
            let next = last.ia + (u64::from(last.count) << (12 + 9 * (3 - i32::from(last.level))));
            let record_count = chunk.len() as u32;
            self.slot(SlotHeader { record_count, sequence: sequence as u64, start, next, ..header }, chunk);
            start = next;
        }
        self
    }

    /// Appends an END slot.
    pub fn end(&mut self, target: u64, sequence: u64, status: Status) -> &mut Self {
        let header = SlotHeader { record_bytes: 0, target, sequence, status: status.0, ..slot_header(SlotKind::END) };
        self.slot::<Record>(header, &[])
    }
}

/// Returns a VM.
pub fn vm(handle: u16, name: &str, flags: u16) -> VmRecord {
    let created = flags & vm_flags::CREATED != 0;
    let mut vm = VmRecord {
        handle,
        pid: name.split('-').next().and_then(|pid| pid.parse().ok()).unwrap_or(0),
        flags,
        ..VmRecord::new_zeroed()
    };
    vm.name[..name.len()].copy_from_slice(name.as_bytes());
    if created {
        (vm.vtcr, vm.root, vm.vcpus, vm.ia_bits, vm.start_level) = (VTCR_40, 0x4100_0000, 1, 40, 1);
        vm.vmid = handle - 0x0fff;
    }
    vm
}

/// The table of a protected guest: pages owned, shared and poisoned at 2 GiB, scattered in memory.
pub fn protected_table() -> Vec<Record> {
    vec![
        hole(0, 1, 2),
        leaves(0x8000_0000, 3, 8, 0x40a1_2000, PAGE),
        leaves(0x8000_8000, 3, 8, 0x4200_0000, PAGE),
        leaves(0x8001_0000, 3, 2, 0x4200_8000, PAGE | SHARED_OWNED),
        annotated(0x8001_2000, 3, 1, POISONED),
        leaves(0x8001_3000, 3, 1, 0x4200_b000, PAGE),
        hole(0x8001_4000, 3, 512 - 0x14),
        hole(0x8020_0000, 2, 511),
        hole(0xc000_0000, 1, 1021),
    ]
}

/// The table of an ordinary guest: blocks and pages borrowed from the host, and a device.
pub fn ordinary_table() -> Vec<Record> {
    let device = PAGE & !(0xf << 2) | 1 << 2;
    vec![
        hole(0, 2, 0x48),
        leaves(0x0900_0000, 3, 1, 0x0900_0000, device | XN | SHARED_BORROWED),
        hole(0x0900_1000, 3, 511),
        hole(0x0920_0000, 2, 512 - 0x49),
        leaves(0x4000_0000, 2, 4, 0x6000_0000, BLOCK | SHARED_BORROWED),
        leaves(0x4080_0000, 2, 4, 0x6080_0000, BLOCK | XN | SHARED_BORROWED),
        leaves(0x4100_0000, 3, 256, 0x7000_0000, PAGE & !(1 << 7) | XN | SHARED_BORROWED),
        hole(0x4110_0000, 3, 256),
        hole(0x4120_0000, 2, 512 - 9),
        hole(0x8000_0000, 1, 1022),
    ]
}

/// Returns three VMs: protected, ordinary, never run.
pub fn three_vms() -> [VmRecord; 3] {
    [
        vm(0x1000, "421-11", vm_flags::PROTECTED | vm_flags::CREATED),
        vm(0x1001, "421-14", vm_flags::CREATED),
        vm(0x1002, "430-9", vm_flags::PROTECTED),
    ]
}

/// Returns a capture of two VMs, in slots of three records.
pub fn two_vms() -> Capture {
    let mut capture = Capture::default();
    let ordinary = SlotHeader { flags: slot_flags::EXACT, ..dump_header(0x1001, VTCR_40) };
    capture.list(&three_vms()).dump(dump_header(0x1000, VTCR_40), &protected_table(), 3, Status::OK).dump(
        ordinary,
        &ordinary_table(),
        3,
        Status::OK,
    );
    capture
}
