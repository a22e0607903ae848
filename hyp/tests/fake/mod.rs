// SPDX-License-Identifier: MIT OR Apache-2.0
//! A hypervisor of no substance: it counts what is held and checks the order in which it is taken.

use crate::common::{Stage, Tables};
use s2dump_abi::hypercall::{unpack_slot, Status};
use s2dump_abi::slot::{
    encoding, slot_flags, slot_pages_of, table_features, vm_flags, Fact, FrameRecord, Record, SlotHeader, VmRecord,
    SLOT_BYTES,
};
use s2dump_abi::target::Target;
use s2dump_hyp::platform::{Everything, FrameMemory, Permitted, PinnedSlot, Platform, Region, TableRegisters, VmInfo};
use s2dump_hyp::slot_writer::{words_of_page, SlotPage, SLOT_WORDS};
use s2dump_hyp::table_memory::{OutsideMemory, TableMemory};
use s2dump_vmsa::{Granule, PhysAddr};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// The first of the only pages the host shares: those of a slot.
pub(crate) const SLOT_PFN: u64 = 0x4_2042;
/// What the page holds before a call.
pub(crate) const STALE: u64 = 0xaaaa_aaaa_aaaa_aaaa;

/// The locks that are held when all is locked but guests.
const ALL: u32 = 3;
/// MAIR_EL2.
pub(crate) const MAIR: u64 = 0x44ff;

/// With pages of 4 KiB.
pub(crate) type Hypervisor = Paged<12>;

/// With pages of `1 << SHIFT` bytes.
pub(crate) struct Paged<const SHIFT: u32> {
    pub(crate) permitted: Permitted,
    /// Whether all VMs are being torn down.
    pub(crate) dying: bool,
    /// vCPUs the host claims each VM has.
    pub(crate) vcpus: u32,
    /// Counts reads of the system counter: each advances it by 100.
    ticks: Cell<u64>,
    pub(crate) vms: BTreeMap<u16, Tables>,
    /// The tables that are no guest's.
    pub(crate) host: Option<Tables>,
    pub(crate) hyp: Option<Tables>,
    /// Memory: first address, frames, and what is kept about each, if anything is.
    pub(crate) memory: Vec<(u64, u64, Option<Vec<AtomicU64>>)>,
    /// How many facts there are, without those about EL2's input addresses and with them.
    pub(crate) facts: (u64, u64),
    /// In place of the VTCR_EL2 of the tables.
    pub(crate) vtcr: Option<u64>,
    page: Vec<AtomicU64>,
    pinned: Cell<u32>,
    locked: Cell<u32>,
    /// Pins and locks there were.
    pub(crate) pins: Cell<u32>,
    pub(crate) locks: Cell<u32>,
}

impl<const SHIFT: u32> Paged<SHIFT> {
    const PAGES: Granule = match SHIFT {
        14 => Granule::Size16K,
        16 => Granule::Size64K,
        _ => Granule::Size4K,
    };

    pub(crate) fn new(vms: impl IntoIterator<Item = (u16, Tables)>) -> Self {
        Self {
            permitted: Permitted { calls: true, atomic: true, hyp: true },
            dying: false,
            vcpus: 2,
            ticks: Cell::new(u64::MAX - 250),
            vms: vms.into_iter().collect(),
            host: None,
            hyp: None,
            memory: Vec::new(),
            facts: (3, 8),
            vtcr: None,
            page: (0..SLOT_WORDS).map(|_| AtomicU64::new(STALE)).collect(),
            pinned: Cell::new(0),
            locked: Cell::new(0),
            pins: Cell::new(0),
            locks: Cell::new(0),
        }
    }

    /// Makes a call with a fresh slot page, and checks that nothing is held after it.
    pub(crate) fn call(&self, x1_to_x7: [u64; 7]) -> Answer {
        self.page.iter().for_each(|word| word.store(STALE, Ordering::Relaxed));
        self.call_again(x1_to_x7)
    }

    /// As [`Self::call`], on the page as the call before left it.
    pub(crate) fn call_again(&self, x1_to_x7: [u64; 7]) -> Answer {
        let mut registers = [0; 8];
        registers[1..].copy_from_slice(&x1_to_x7);
        let [status, x2, x3] = s2dump_hyp::entry::handle(&registers, self);
        assert_eq!((self.pinned.get(), self.locked.get()), (0, 0), "still held");
        let words: Vec<u64> = self.page.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        Answer { status, x2, x3, page: words.as_bytes().to_vec() }
    }

    fn registers(&self, target: Target, tables: &Tables) -> TableRegisters {
        let dying = if self.dying { slot_flags::DYING } else { 0 };
        let (vmid, flags) = if target.guest_handle().is_some() { (7, slot_flags::PROTECTED | dying) } else { (0, 0) };
        TableRegisters {
            vtcr: self.vtcr.unwrap_or(tables.shape.register()),
            mair: if tables.shape.stage == Stage::Two { 0 } else { MAIR },
            root: tables.root_pa(),
            table_features: table_features::FWB
                | if tables.shape.lpa2 { table_features::LPA2 } else { 0 }
                | if tables.shape.stage == Stage::El2And0 { table_features::HVHE } else { 0 },
            vmid,
            encoding: encoding::PKVM_7_2,
            flags,
        }
    }

    /// The table that `target` names, if there is one.
    fn table_of(&self, target: Target) -> Result<&Tables, Status> {
        match (target, target.guest_handle()) {
            (_, Some(handle)) => self.vms.get(&handle).ok_or(Status::NO_SUCH_VM),
            (Target::HOST, _) => self.host.as_ref().ok_or(Status::UNKNOWN_TARGET),
            (Target::HYP, _) => self.hyp.as_ref().ok_or(Status::UNKNOWN_TARGET),
            _ => Err(Status::UNKNOWN_TARGET),
        }
    }
}

/// What a call left.
pub(crate) struct Answer {
    pub(crate) status: u64,
    pub(crate) x2: u64,
    pub(crate) x3: u64,
    pub(crate) page: Vec<u8>,
}

impl Answer {
    /// The header, if the page holds a slot; and then the rest of the page as it was before.
    pub(crate) fn header(&self) -> Option<SlotHeader> {
        let header = SlotHeader::read_from_prefix(&self.page).unwrap().0;
        (header.magic == s2dump_abi::slot::SLOT_MAGIC).then_some(header)
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.items()
    }

    pub(crate) fn vms(&self) -> Vec<VmRecord> {
        self.items()
    }

    pub(crate) fn facts(&self) -> Vec<Fact> {
        self.items()
    }

    pub(crate) fn frames(&self) -> Vec<FrameRecord> {
        self.items()
    }

    fn items<T: FromBytes>(&self) -> Vec<T> {
        let header = self.header().expect("a slot");
        assert_eq!(usize::from(header.record_bytes), size_of::<T>());
        let used = header.used_bytes().unwrap();
        assert!(self.page[used..].iter().all(|&byte| byte == STALE as u8), "written beyond the used bytes");
        self.page[usize::from(header.header_bytes)..used]
            .chunks_exact(size_of::<T>())
            .map(|bytes| T::read_from_bytes(bytes).unwrap())
            .collect()
    }

    /// The page is as it was, but perhaps for records of a slot that was given up.
    pub(crate) fn assert_no_slot(&self) {
        assert!(self.header().is_none());
    }

    pub(crate) fn assert_untouched(&self) {
        assert_eq!(self.page, vec![STALE as u8; SLOT_BYTES]);
    }
}

pub(crate) struct Pinned<'p, const SHIFT: u32>(&'p Paged<SHIFT>, usize);

impl<const SHIFT: u32> PinnedSlot for Pinned<'_, SHIFT> {
    fn page(&self) -> SlotPage<'_> {
        SlotPage::new(&self.0.page[..self.1 * words_of_page(Paged::<SHIFT>::PAGES)])
    }
}

impl<const SHIFT: u32> Drop for Pinned<'_, SHIFT> {
    fn drop(&mut self) {
        assert_eq!(self.0.locked.get(), 0, "unpinned under a lock");
        self.0.pinned.set(self.0.pinned.get() - 1);
    }
}

pub(crate) struct Locked<'p, const SHIFT: u32>(&'p Paged<SHIFT>, &'p Tables);

impl<const SHIFT: u32> TableMemory for Locked<'_, SHIFT> {
    fn table(&self, table: PhysAddr, granule: Granule) -> Result<&[AtomicU64], OutsideMemory> {
        self.1.table(table, granule)
    }
}

impl<const SHIFT: u32> Drop for Locked<'_, SHIFT> {
    fn drop(&mut self) {
        self.0.locked.set(self.0.locked.get() - 1);
    }
}

pub(crate) struct Frames<'p, const SHIFT: u32>(&'p Paged<SHIFT>);

impl<const SHIFT: u32> FrameMemory for Frames<'_, SHIFT> {
    fn region(&self, pa: PhysAddr) -> Option<Region<'_>> {
        region_of(self.0, pa)
    }
}

/// The rest of the region that `pa` is in, or the next.
fn region_of<const SHIFT: u32>(hypervisor: &Paged<SHIFT>, pa: PhysAddr) -> Option<Region<'_>> {
    let end = |start: u64, frames: u64| start + (frames << SHIFT);
    let (start, frames, states) =
        hypervisor.memory.iter().find(|(start, frames, _)| end(*start, *frames) > pa.get())?;
    let skip = (pa.get().max(*start) - start) >> SHIFT;
    Some(Region {
        start: PhysAddr::new(end(*start, skip)),
        frames: frames - skip,
        states: states.as_ref().map(|states| &states[usize::try_from(skip).unwrap()..]),
    })
}

impl<const SHIFT: u32> Drop for Frames<'_, SHIFT> {
    fn drop(&mut self) {
        self.0.locked.set(self.0.locked.get() - 1);
    }
}

/// Everything locked; a guest's table counts apart.
pub(crate) struct All<'p, const SHIFT: u32>(&'p Paged<SHIFT>);

pub(crate) struct OneOfAll<'a, const SHIFT: u32>(&'a Paged<SHIFT>, &'a Tables, u32);

impl<const SHIFT: u32> FrameMemory for All<'_, SHIFT> {
    fn region(&self, pa: PhysAddr) -> Option<Region<'_>> {
        region_of(self.0, pa)
    }
}

impl<const SHIFT: u32> Everything for All<'_, SHIFT> {
    type Table<'a>
        = OneOfAll<'a, SHIFT>
    where
        Self: 'a;

    fn table(&mut self, target: Target) -> Result<(OneOfAll<'_, SHIFT>, TableRegisters), Status> {
        assert_eq!(self.0.locked.get(), ALL, "a guest, with all but guests locked");
        let tables = self.0.table_of(target)?;
        let guests = u32::from(target.guest_handle().is_some());
        self.0.locked.set(ALL + guests);
        self.0.locks.set(self.0.locks.get() + guests);
        Ok((OneOfAll(self.0, tables, guests), self.0.registers(target, tables)))
    }
}

impl<const SHIFT: u32> TableMemory for OneOfAll<'_, SHIFT> {
    fn table(&self, table: PhysAddr, granule: Granule) -> Result<&[AtomicU64], OutsideMemory> {
        self.1.table(table, granule)
    }
}

impl<const SHIFT: u32> Drop for OneOfAll<'_, SHIFT> {
    fn drop(&mut self) {
        self.0.locked.set(self.0.locked.get() - self.2);
    }
}

impl<const SHIFT: u32> Drop for All<'_, SHIFT> {
    fn drop(&mut self) {
        self.0.locked.set(self.0.locked.get() - ALL);
    }
}

impl<const SHIFT: u32> Platform for Paged<SHIFT> {
    type Slot<'p> = Pinned<'p, SHIFT>;
    type Guard<'p> = Locked<'p, SHIFT>;
    type Frames<'p> = Frames<'p, SHIFT>;
    type All<'p> = All<'p, SHIFT>;

    const PAGES: Granule = Self::PAGES;

    fn permitted(&self) -> Permitted {
        self.permitted
    }

    fn counter(&self) -> u64 {
        assert!([1, ALL].contains(&self.locked.get()), "what is timed is the hold");
        self.ticks.set(self.ticks.get().wrapping_add(100));
        self.ticks.get()
    }

    fn counter_hz(&self) -> u32 {
        62_500_000
    }

    fn pin_slot(&self, slot: u64) -> Option<Pinned<'_, SHIFT>> {
        let (pfn, pages) = unpack_slot(slot);
        assert_eq!(self.locked.get(), 0, "pinned under a lock");
        assert_eq!(self.pinned.get(), 0, "two slots");
        (pfn == SLOT_PFN && pages as usize <= slot_pages_of(1 << SHIFT)).then(|| {
            self.pinned.set(1);
            self.pins.set(self.pins.get() + 1);
            Pinned(self, pages as usize)
        })
    }

    fn lock_table(&self, target: Target) -> Result<(Locked<'_, SHIFT>, TableRegisters), Status> {
        assert_eq!(self.locked.get(), 0, "two tables");
        let tables = self.table_of(target)?;
        self.locked.set(1);
        self.locks.set(self.locks.get() + 1);
        Ok((Locked(self, tables), self.registers(target, tables)))
    }

    fn facts(&self, hyp: bool) -> u64 {
        if hyp {
            self.facts.1
        } else {
            self.facts.0
        }
    }

    fn fact(&self, number: u64) -> Option<Fact> {
        assert!(number < self.facts(self.permitted.hyp), "a fact that is not, or may not be told");
        Some(Fact { start: number << 12, size: 0x1000, value: number, ..Fact::new_zeroed() })
    }

    fn encoding(&self) -> u16 {
        encoding::PKVM_7_2
    }

    fn table_features(&self) -> u32 {
        table_features::FWB
    }

    fn lock_all(&self) -> All<'_, SHIFT> {
        assert_eq!(self.locked.get(), 0, "all locked under a table");
        self.locked.set(ALL);
        self.locks.set(self.locks.get() + 1);
        All(self)
    }

    fn lock_frames(&self) -> Frames<'_, SHIFT> {
        assert_eq!(self.locked.get(), 0, "frames locked under a table");
        self.locked.set(1);
        self.locks.set(self.locks.get() + 1);
        Frames(self)
    }

    fn vm_info(&self, handle: u16) -> Option<VmInfo> {
        assert_eq!(self.locked.get(), 0, "VM table locked under a VM");
        let registers = self.registers(Target::guest(handle), self.vms.get(&handle)?);
        let record = VmRecord {
            vtcr: registers.vtcr,
            root: registers.root,
            vcpus: 2,
            handle,
            flags: vm_flags::PROTECTED | vm_flags::CREATED,
            vmid: registers.vmid,
            ..VmRecord::new_zeroed()
        };
        Some(VmInfo { record, looked_at: self.vcpus, held_ticks: u32::from(handle) })
    }
}
