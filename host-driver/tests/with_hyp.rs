// SPDX-License-Identifier: GPL-2.0-only
//! Both sides of the hypercall together: the driver's logic calls the handler that runs at EL2, on tables made of
//! bytes.

mod fake;

use fake::{a_dump, a_hello, a_start, host_vm};
use proptest::prelude::*;
use s2dump_abi::hypercall::{unpack_slot, DumpFlags, Op, Status, DEFAULT_BUDGET, LIST_BUDGET, MAX_BUDGET};
use s2dump_abi::ioctl::Start;
use s2dump_abi::slot::{
    encoding, frame_flags, slot_flags, vm_flags, Fact, FactKind, FrameRecord, Record, RecordKind, SlotHeader, SlotKind,
    VmRecord, SLOT_BYTES,
};
use s2dump_abi::target::{Place, Target, HANDLES};
use s2dump_abi::version::features;
use s2dump_host_driver::errno::Errno;
use s2dump_host_driver::error::SessionError;
use s2dump_host_driver::host::{El2, Host, HostVm};
use s2dump_host_driver::session::Session;
use s2dump_hyp::entry;
use s2dump_hyp::packed::Unpacked;
use s2dump_hyp::platform::{Everything, FrameMemory, Permitted, PinnedSlot, Platform, Region, TableRegisters, VmInfo};
use s2dump_hyp::slot_writer::{words_of_page, SlotPage, SLOT_WORDS};
use s2dump_hyp::table_memory::{OutsideMemory, TableMemory};
use s2dump_vmsa::{Features, Geometry, Granule, PhysAddr};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use zerocopy::{FromBytes, IntoBytes};

const HANDLE: u16 = 0x1000;
const SLOTS: u32 = 4;
/// Of 4 KiB each.
const SLOT_PAGES: usize = 4;
const PFN: u64 = 0x7_0000;
/// 39 input-address bits, start level 1, 4 KiB pages, 40 output-address bits.
const VTCR: u64 = 25 | 1 << 6 | 2 << 16 | 1 << 31;
const ROOT: u64 = 0x8000_0000;
const TABLE: u64 = 0b11;
/// A page of normal memory, rwx, as pKVM maps it; bit 55 says shared.
const PAGE: u64 = 0x7ff;
const SHARED: u64 = 1 << 55;
/// Where the guest's memory begins, and what it is backed by.
const IPA: u64 = 0x8000_0000;
const PA: u64 = 0x1_0000_0000;

/// Hypervisor and host kernel in one: a guest, slot pages, the host's list.
struct Machine {
    tables: BTreeMap<u64, Vec<AtomicU64>>,
    slots: Vec<[AtomicU64; SLOT_WORDS]>,
    permitted: Permitted,
    is_shared: bool,
    host_vms: Vec<HostVm>,
    calls: u64,
}

struct Slot<'m>(&'m [AtomicU64]);

impl PinnedSlot for Slot<'_> {
    fn page(&self) -> SlotPage<'_> {
        SlotPage::new(self.0)
    }
}

struct Table<'m>(&'m Machine);

impl TableMemory for Table<'_> {
    fn table(&self, table: PhysAddr, _granule: Granule) -> Result<&[AtomicU64], OutsideMemory> {
        self.0.tables.get(&table.get()).map(Vec::as_slice).ok_or(OutsideMemory { table })
    }
}

/// Memory of which nothing is kept: the guest's, and one page far behind it.
impl FrameMemory for Table<'_> {
    fn region(&self, pa: PhysAddr) -> Option<Region<'_>> {
        let ends = [(PA, PA + 0x10_0000), (PA << 4, (PA << 4) + 0x1000)];
        let (start, end) = ends.into_iter().find(|(_, end)| *end > pa.get())?;
        let start = start.max(pa.get());
        Some(Region { start: PhysAddr::new(start), frames: (end - start) >> 12, states: None })
    }
}

impl Everything for Table<'_> {
    type Table<'a>
        = Table<'a>
    where
        Self: 'a;

    fn table(&mut self, target: Target) -> Result<(Table<'_>, TableRegisters), Status> {
        self.0.lock_table(target)
    }
}

const REGISTERS: TableRegisters = TableRegisters {
    vtcr: VTCR,
    mair: 0,
    root: ROOT,
    table_features: 0,
    vmid: 1,
    encoding: encoding::PKVM_7_2,
    flags: slot_flags::PROTECTED,
};

impl Platform for Machine {
    type Slot<'p> = Slot<'p>;
    type Guard<'p> = Table<'p>;
    type Frames<'p> = Table<'p>;
    type All<'p> = Table<'p>;

    const PAGES: Granule = Granule::Size4K;

    fn permitted(&self) -> Permitted {
        self.permitted
    }

    fn counter(&self) -> u64 {
        self.calls
    }

    fn counter_hz(&self) -> u32 {
        1000
    }

    fn pin_slot(&self, slot: u64) -> Option<Slot<'_>> {
        let (pfn, pages) = unpack_slot(slot);
        let index = usize::try_from(pfn.checked_sub(PFN)?).ok()?;
        let slot = self.slots.get(index / SLOT_PAGES).filter(|_| self.is_shared && index % SLOT_PAGES == 0)?;
        slot.get(..pages as usize * words_of_page(Granule::Size4K)).map(Slot)
    }

    fn lock_table(&self, target: Target) -> Result<(Table<'_>, TableRegisters), Status> {
        let handle = target.guest_handle().ok_or(Status::UNKNOWN_TARGET)?;
        (handle == HANDLE).then_some((Table(self), REGISTERS)).ok_or(Status::NO_SUCH_VM)
    }

    fn facts(&self, hyp: bool) -> u64 {
        if hyp {
            2
        } else {
            1
        }
    }

    fn fact(&self, number: u64) -> Option<Fact> {
        let kind = if number == 0 { FactKind::MEMORY } else { FactKind::HYP_LINEAR };
        Some(Fact { start: PA, size: 0x10_0000, kind: kind.0, ..zerocopy::FromZeros::new_zeroed() })
    }

    fn encoding(&self) -> u16 {
        encoding::PKVM_7_2
    }

    fn table_features(&self) -> u32 {
        0
    }

    fn lock_all(&self) -> Table<'_> {
        Table(self)
    }

    fn lock_frames(&self) -> Table<'_> {
        Table(self)
    }

    fn vm_info(&self, handle: u16) -> Option<VmInfo> {
        let record = (handle == HANDLE).then(|| VmRecord {
            vtcr: VTCR,
            root: ROOT,
            handle,
            flags: vm_flags::PROTECTED | vm_flags::CREATED,
            vcpus: 2,
            ..zerocopy::FromZeros::new_zeroed()
        })?;
        Some(VmInfo { record, looked_at: 2, held_ticks: 3 })
    }
}

impl El2 for Machine {
    fn call(&mut self, regs: &mut [u64; 8]) {
        self.calls += 1;
        let results = entry::handle(regs, &*self);
        regs[0] = 0;
        regs[1..4].copy_from_slice(&results);
    }
}

impl Host for Machine {
    const PAGE_BYTES: usize = 4096;

    fn check_allowed(&self) -> Result<(), Errno> {
        Ok(())
    }

    fn slot_pfn(&self, slot: u32) -> u64 {
        PFN + u64::from(slot) * SLOT_PAGES as u64
    }

    fn hyp_image(&self) -> [[u64; 2]; 3] {
        [[0; 2]; 3]
    }

    fn share_further_pages(&mut self, _slot: u32) -> Result<(), Errno> {
        Ok(())
    }

    fn read_slot(&self, slot: u32, offset: usize, into: &mut [u8]) -> Result<(), Errno> {
        let words: Vec<u64> = self.slots[slot as usize].iter().map(|word| word.load(Ordering::Relaxed)).collect();
        into.copy_from_slice(&words.as_bytes()[offset..offset + into.len()]);
        Ok(())
    }

    fn write_slot(&mut self, slot: u32, offset: usize, from: &[u8]) -> Result<(), Errno> {
        let mut bytes = [0; SLOT_BYTES];
        self.read_slot(slot, 0, &mut bytes)?;
        bytes[offset..offset + from.len()].copy_from_slice(from);
        for (word, new) in self.slots[slot as usize].iter().zip(bytes.chunks(8)) {
            word.store(u64::from_le_bytes(new.try_into().expect("8 bytes")), Ordering::Relaxed);
        }
        Ok(())
    }

    fn look_at_vms(&mut self) -> Result<(), Errno> {
        Ok(())
    }

    fn look_at_handles(&mut self) {}

    fn vms(&self) -> &[HostVm] {
        &self.host_vms
    }

    fn hold_vm(&mut self, handle: u16) -> Result<Option<HostVm>, Errno> {
        Ok(self.host_vms.iter().find(|vm| vm.handle == handle).copied())
    }

    fn put_memory_slots(&mut self, _: u32, _: usize, _: u64, _: usize) -> Result<usize, Errno> {
        Ok(0)
    }

    fn let_vms_go(&mut self) {}

    fn is_interrupted(&self) -> bool {
        false
    }
}

impl Machine {
    /// A guest with `leaves` descriptors from [`IPA`] on.
    fn new(leaves: &[u64]) -> Self {
        let words =
            |values: &[u64]| (0..512).map(|i| AtomicU64::new(values.get(i).copied().unwrap_or(0))).collect::<Vec<_>>();
        let mut tables = BTreeMap::new();
        let mut next = ROOT + 0x1000;
        let mut new_table = |values: &[u64]| {
            next += 0x1000;
            tables.insert(next, words(values));
            next | TABLE
        };
        let level3: Vec<u64> = leaves.chunks(512).map(&mut new_table).collect();
        let level2 = new_table(&level3);
        let mut root = [0; 512];
        root[(IPA >> 30) as usize] = level2;
        tables.insert(ROOT, words(&root));
        Self {
            tables,
            // No stale byte may get out: see `read_all`.
            slots: (0..SLOTS).map(|_| [const { AtomicU64::new(0xaaaa_aaaa_aaaa_aaaa) }; SLOT_WORDS]).collect(),
            permitted: Permitted { calls: true, atomic: true, hyp: true },
            is_shared: true,
            host_vms: vec![host_vm(HANDLE, 42, vm_flags::CREATED), host_vm(HANDLE + 1, 43, 0)],
            calls: 0,
        }
    }

    fn header(&self, slot: u32) -> SlotHeader {
        let mut bytes = [0; 128];
        self.read_slot(slot, 0, &mut bytes).expect("inside");
        SlotHeader::read_from_bytes(&bytes).expect("128 bytes")
    }
}

/// Reads a start to its end: headers, and the record bytes of all slots.
fn read_all(session: &mut Session, machine: &mut Machine) -> (Vec<SlotHeader>, Vec<u8>) {
    let (mut headers, mut records) = (Vec::new(), Vec::new());
    while let Some(unread) = session.next_unread(machine).expect("read") {
        headers.push(machine.header(unread.slot));
        let mut bytes = vec![0; unread.len_bytes];
        machine.read_slot(unread.slot, 0, &mut bytes).expect("inside");
        records.extend_from_slice(&bytes[128..]);
        session.consume(unread, unread.len_bytes);
    }
    (headers, records)
}

/// The pages that records of a dump with [`DumpFlags::EXACT`] stand for: address, descriptor without the output
/// address.
fn pages(records: &[u8]) -> Vec<(u64, u64)> {
    let mut pages = Vec::new();
    for bytes in records.chunks(32) {
        let record = Record::read_from_bytes(bytes).expect("32 bytes");
        if RecordKind(record.kind) == RecordKind::LEAF {
            assert_eq!(record.level, 3);
            let page =
                |i: u64| (record.ia + i * 4096, (record.descriptor & !0xffff_ffff_f000) | (record.oa + i * 4096));
            pages.extend((0..u64::from(record.count)).map(page));
        }
    }
    pages
}

#[test]
fn good_hello_agrees() {
    let mut hello = a_hello();
    Session::new(SLOTS).hello(&mut Machine::new(&[]), &mut hello).expect("hello");
    assert_eq!(hello.default_budget, DEFAULT_BUDGET);
    assert_eq!(hello.features & features::GUEST_STAGE2, features::GUEST_STAGE2);
}

#[test]
fn good_walk_shows_each_level() {
    let (mut session, mut machine) = (Session::new(SLOTS), Machine::new(&[PA | PAGE]));
    let mut walk = Start { target: u64::from(HANDLE), start: IPA + 0x123, ..a_start(Op::WALK) };
    session.start(&mut machine, &mut walk).expect("start");
    let (headers, records) = read_all(&mut session, &mut machine);
    assert_eq!(headers.iter().map(|h| SlotKind(h.kind)).collect::<Vec<_>>(), [SlotKind::WALK, SlotKind::END]);
    let levels: Vec<i8> = records.chunks(32).map(|r| Record::read_from_bytes(r).expect("32").level).collect();
    assert_eq!(levels, [1, 2, 3]);
}

#[test]
fn good_list_has_both_vms() {
    let (mut session, mut machine) = (Session::new(SLOTS), Machine::new(&[]));
    session.start(&mut machine, &mut a_start(Op::LIST)).expect("start");
    let (headers, records) = read_all(&mut session, &mut machine);
    // Each call lists a few handles. So there is a slot of EL2's for each call, then one of the host's, then END.
    let slots = usize::from(HANDLES + 2).div_ceil(LIST_BUDGET as usize) + 1;
    assert_eq!((headers.len(), headers[slots].status, headers[slots].sequence), (slots + 1, 0, slots as u64));
    let vms: Vec<_> = records.chunks(64).map(|r| VmRecord::read_from_bytes(r).expect("64")).collect();
    assert_eq!(
        vms.iter().map(|vm| (vm.handle, vm.pid, vm.ia_bits)).collect::<Vec<_>>(),
        [(0x1000, 42, 39), (0x1001, 43, 0)]
    );
}

/// A packed dump comes to its end whatever a call may read, and has each page once.
#[test]
fn good_packed_dumps() {
    let leaves: Vec<u64> = (0..3000).map(|i| (PA + (i * 7919 % 4096) * 4096) | PAGE).collect();
    for budget in [0, 5, 17, 101, 2000, u32::MAX] {
        for more in [DumpFlags::default(), DumpFlags::DIGEST, DumpFlags::TABLES] {
            let flags = DumpFlags::EXACT.union(DumpFlags::PACKED).union(more);
            let (mut session, mut machine) = (Session::new(SLOTS), Machine::new(&leaves));
            session.start(&mut machine, &mut Start { flags: flags.0, budget, ..a_dump() }).expect("start");
            let (headers, words) = read_all(&mut session, &mut machine);
            let end = headers.last().expect("END");
            assert_eq!((end.kind, end.status), (SlotKind::END.0, 0), "budget {budget}, {flags:?}");
            let geometry = Geometry::from_vtcr(VTCR, Features::of_kvm(VTCR, false, false)).expect("legal");
            let words = words.chunks(8).map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
            let is_leaf = |record: &Record| record.kind == RecordKind::LEAF.0;
            let found: Vec<_> = Unpacked::new(words, &geometry).filter(is_leaf).collect();
            assert!(found.iter().zip(0..).all(|(found, i)| found.ia == IPA + i * 4096 && found.count == 1));
            assert!(found.iter().map(|found| found.descriptor).eq(leaves.iter().copied()));
        }
    }
}

#[test]
fn bad_starts() {
    let dump = a_dump();
    let walk = Start { target: u64::from(HANDLE), ..a_start(Op::WALK) };
    let cases = [
        (Start { target: 0x1001, ..dump }, Status::VM_NOT_RUN),
        (Start { target: 0x1002, ..dump }, Status::NO_SUCH_VM),
        (Start { target: 0, ..dump }, Status::NO_SUCH_VM),
        (Start { start: 0x800, ..dump }, Status::BAD_RANGE),
        (Start { end: 0x1800, ..dump }, Status::BAD_RANGE),
        (Start { start: 0x1000, end: 0x1000, ..dump }, Status::BAD_RANGE),
        (Start { start: 1 << 39, ..dump }, Status::BAD_RANGE),
        (Start { start: !0xfff, ..dump }, Status::BAD_RANGE),
        (Start { start: 1 << 39, ..walk }, Status::BAD_RANGE),
        (Start { target: 0x1001, ..walk }, Status::VM_NOT_RUN),
    ];
    for (mut start, status) in cases {
        let (mut session, mut machine) = (Session::new(SLOTS), Machine::new(&[]));
        assert_eq!(session.start(&mut machine, &mut start), Err(SessionError::Refused(status)), "{start:?}");
    }
}

#[test]
fn bad_gate_and_slot() {
    let (mut session, mut machine) = (Session::new(SLOTS), Machine::new(&[]));
    machine.is_shared = false;
    assert_eq!(session.start(&mut machine, &mut a_dump()), Err(SessionError::Refused(Status::SLOT_NOT_SHARED)));
    machine.permitted = Permitted::default();
    assert_eq!(session.start(&mut machine, &mut a_dump()), Err(SessionError::Refused(Status::NOT_PERMITTED)));
    assert_eq!(session.hello(&mut machine, &mut a_hello()), Err(SessionError::Refused(Status::NOT_PERMITTED)));
}

#[test]
fn bad_atomic_dump_that_does_not_fit() {
    // The states alternate, so each page is a record, and a slot holds 124 of them.
    let leaves: Vec<u64> = (0..512).map(|i| (PA + i * 4096) | PAGE | if i % 2 == 0 { SHARED } else { 0 }).collect();
    let (mut session, mut machine) = (Session::new(SLOTS), Machine::new(&leaves));
    let mut atomic = Start { flags: DumpFlags::ATOMIC.0, ..a_dump() };
    let error = session.start(&mut machine, &mut atomic).expect_err("too big");
    assert_eq!(error.to_errno(), Errno::E2BIG);
    let mut part = Start { start: IPA, end: IPA + 100 * 4096, status: 0, ..atomic };
    session.start(&mut machine, &mut part).expect("fits");
    assert_eq!(pages(&read_all(&mut session, &mut machine).1).len(), 100);
}

/// Starts, and returns the headers and the records of all slots.
fn run<R: FromBytes>(machine: &mut Machine, mut start: Start) -> (Vec<SlotHeader>, Vec<R>) {
    let mut session = Session::new(SLOTS);
    session.start(machine, &mut start).expect("start");
    let (headers, records) = read_all(&mut session, machine);
    assert_eq!(headers.last().map(|end| (SlotKind(end.kind), end.status)), Some((SlotKind::END, 0)));
    let records = records.chunks(size_of::<R>()).map(|bytes| R::read_from_bytes(bytes).expect("a record"));
    (headers, records.collect())
}

#[test]
fn good_frames_to_the_end_of_all_addresses() {
    for budget in [0, 1, 100] {
        let mut machine = Machine::new(&[]);
        let (headers, frames) =
            run::<FrameRecord>(&mut machine, Start { end: u64::MAX, budget, ..a_start(Op::FRAMES) });
        let told: Vec<_> = frames.iter().map(|frame| (frame.pa, frame.count, frame.flags)).collect();
        assert_eq!(told, [(PA, 256, frame_flags::NO_STATE), (PA << 4, 1, frame_flags::NO_STATE)]);
        let end = headers.last().expect("an END slot");
        assert_eq!((end.start, end.next, end.end), (0, 1 << 52, 1 << 52));
    }
}

#[test]
fn good_facts_of_both_sides() {
    for (hyp, of_el2) in [(true, 2), (false, 1)] {
        let mut machine = Machine::new(&[]);
        machine.permitted.hyp = hyp;
        let (headers, facts) = run::<Fact>(&mut machine, a_start(Op::FACTS));
        let kinds: Vec<_> = facts.iter().map(|fact| FactKind(fact.kind)).collect();
        let (el2, driver) = kinds.split_at(of_el2);
        let (ring, image) = driver.split_at(SLOTS as usize);
        assert_eq!(el2, &[FactKind::MEMORY, FactKind::HYP_LINEAR][..of_el2]);
        assert_eq!(ring, [FactKind::RING; SLOTS as usize]);
        assert_eq!(image, [FactKind::HYP_DATA, FactKind::HYP_RODATA, FactKind::HYP_BSS]);
        assert_eq!(headers.len(), 3);
    }
}

#[test]
fn good_examination_of_a_guest_that_the_host_does_not_know() {
    let mut machine = Machine::new(&[PA | PAGE]);
    machine.host_vms.clear();
    let place = |handle, address| Place::new(Target::guest(handle), address).expect("a place").0;
    let places = [place(HANDLE, IPA), 0, place(HANDLE + 1, IPA)];
    let (headers, records) = run::<Record>(&mut machine, Start { start: PA, places, ..a_start(Op::EXAMINE) });
    assert_eq!((headers.len(), headers[0].start, headers[0].target), (2, PA, 0));
    let seen: Vec<_> = records.iter().map(|r| (RecordKind(r.kind), r.level, r.count)).collect();
    let wanted = [
        (RecordKind::PLACE, 0, Status::OK.0),
        (RecordKind::TABLE, 1, 1),
        (RecordKind::TABLE, 2, 1),
        (RecordKind::LEAF, 3, 1),
        (RecordKind::PLACE, 0, Status::NO_SUCH_VM.0),
    ];
    assert_eq!(seen, wanted);
    assert_eq!((records[0].oa, records[3].oa, records[4].oa), (ROOT, PA, 0));
}

fn leaves() -> impl Strategy<Value = Vec<u64>> {
    let leaf = prop_oneof![
        3 => Just(0),
        6 => Just(PAGE),
        2 => Just(PAGE | SHARED),
        1 => Just(0x3000_0000_0000_0000_u64),
    ];
    // Runs, as real tables have them.
    let run = (leaf, 1..90_usize);
    prop::collection::vec(run, 0..60).prop_map(|runs| {
        let flat = runs.into_iter().flat_map(|(leaf, count)| std::iter::repeat_n(leaf, count));
        let with_pa = |(i, leaf): (usize, u64)| if leaf & 1 == 1 { leaf | (PA + i as u64 * 4096) } else { leaf };
        flat.enumerate().map(with_pa).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn good_dump_gives_the_pages_of_the_table(leaves in leaves(), budget in prop_oneof![Just(0), 1..700_u32, Just(u32::MAX)]) {
        let (mut session, mut machine) = (Session::new(SLOTS), Machine::new(&leaves));
        let mut dump = Start { budget, flags: DumpFlags::EXACT.0, ..a_dump() };
        session.start(&mut machine, &mut dump).expect("start");
        let (headers, records) = read_all(&mut session, &mut machine);
        let (end, ranges) = headers.split_last().expect("an END slot");
        prop_assert_eq!((SlotKind(end.kind), end.status, end.next), (SlotKind::END, 0, 1 << 39));
        prop_assert_eq!((end.sequence, ranges.len() as u64), (machine.calls, machine.calls));
        prop_assert!(headers.iter().all(|header| (header.target, header.end) == (u64::from(HANDLE), 1 << 39)));
        prop_assert!(ranges.windows(2).all(|pair| pair[0].next == pair[1].start));
        let most = ranges.iter().map(|header| header.visited).max();
        prop_assert_eq!(Some(end.visited), most);
        prop_assert!(ranges.iter().all(|header| header.visited <= header.budget && header.budget <= MAX_BUDGET));
        let wanted: Vec<_> = leaves
            .iter()
            .enumerate()
            .filter(|(_, leaf)| **leaf & 1 == 1)
            .map(|(i, leaf)| (IPA + i as u64 * 4096, *leaf))
            .collect();
        prop_assert_eq!(pages(&records), wanted);
    }
}
