// SPDX-License-Identifier: GPL-2.0-only
//! A fake EL2 and a fake host: guests with an input-address space of 32 bits that is dumped in equal steps.
//!
//! The fake itself fails the test if the driver makes a call for a slot that user space holds, or writes such a slot.
#![allow(dead_code, reason = "each test binary uses another part")]

use s2dump_abi::hypercall::{pack_counts, Op, Status, DEFAULT_BUDGET};
use s2dump_abi::ioctl::{Advance, Hello, SessionState, Start};
use s2dump_abi::slot::{
    vm_flags, Fact, FactKind, FrameRecord, MemorySlot, Record, RecordKind, SlotHeader, SlotKind, VmRecord, SLOT_BYTES,
    SLOT_MAGIC, SLOT_VMS,
};
use s2dump_abi::target::{Place, Target};
use s2dump_abi::version::{features, ABI_VERSION};
use s2dump_host_driver::errno::Errno;
use s2dump_host_driver::error::SessionError;
use s2dump_host_driver::host::{El2, Host, HostVm};
use s2dump_host_driver::session::Session;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Input-address bits of every fake guest.
pub(crate) const IA_BITS: u8 = 32;
/// Size of a fake guest's input-address space.
pub(crate) const SPACE: u64 = 1 << IA_BITS;
/// First frame number of the slots: any value that is no index.
pub(crate) const PFN: u64 = 0x4_2000;
/// Root of the host's table. EL2's follows it.
pub(crate) const HOST_ROOT: u64 = 0x7000_0000;
/// Where EL2's data, constants and variables are.
pub(crate) const HYP_IMAGE: [[u64; 2]; 3] = [[0x1000, 0x3000], [0x4000, 0x5000], [0x6000, 0x6000]];
/// How many facts one call tells.
pub(crate) const FACTS_AT_ONCE: u64 = 3;

/// A guest EL2 knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest {
    pub(crate) handle: u16,
    pub(crate) root: u64,
}

/// Changes registers and slot of an answer.
pub(crate) type Spoil = fn(&mut [u64; 8], &mut [u8; SLOT_BYTES]);

/// Changes the fake between two calls.
pub(crate) type Change = fn(&mut Fake);

pub(crate) struct Fake {
    pub(crate) slots: Vec<[u8; SLOT_BYTES]>,
    pub(crate) guests: Vec<Guest>,
    pub(crate) host_vms: Vec<HostVm>,
    /// The VMs that are held.
    pub(crate) held: Vec<HostVm>,
    /// How many facts EL2 has.
    pub(crate) facts: u64,
    /// Bytes of address space per call.
    pub(crate) step: u64,
    /// Calls made.
    pub(crate) calls: u64,
    /// Flags of the slots EL2 fills.
    pub(crate) flags: u16,
    /// Changes something before the call of this number.
    pub(crate) change_at: Option<(u64, Change)>,
    /// A signal waits from this number of calls on.
    pub(crate) interrupt_at: Option<u64>,
    /// Spoils each answer.
    pub(crate) spoil: Option<Spoil>,
    pub(crate) no_memory: bool,
    /// The kernel forbids a start.
    pub(crate) is_locked_down: bool,
    /// The memory slots of the VM that is held.
    pub(crate) memory: Vec<MemorySlot>,
    /// So many more than there is room for are told.
    pub(crate) too_many: usize,
    /// The slots of which all pages were shared.
    pub(crate) shared_whole: Vec<u32>,
    /// The slots that user space holds. They must not change.
    pub(crate) lent: Vec<u32>,
}

pub(crate) fn host_vm(handle: u16, pid: u32, flags: u16) -> HostVm {
    let mut name = [0; 24];
    let text = format!("{pid}-5");
    name[..text.len()].copy_from_slice(text.as_bytes());
    HostVm { held: 0, pid, handle, flags, name }
}

impl Fake {
    /// One protected guest, 0x1000, dumped in `calls` steps, and `slots` slots.
    pub(crate) fn new(slots: usize, calls: u64) -> Self {
        Self {
            slots: vec![[0xaa; SLOT_BYTES]; slots],
            guests: vec![Guest { handle: 0x1000, root: 0x8000_0000 }],
            host_vms: vec![host_vm(0x1000, 100, vm_flags::CREATED | vm_flags::PROTECTED)],
            held: Vec::new(),
            facts: 7,
            step: SPACE.div_ceil(calls).next_multiple_of(4096),
            calls: 0,
            flags: 0,
            change_at: None,
            interrupt_at: None,
            spoil: None,
            no_memory: false,
            is_locked_down: false,
            memory: Vec::new(),
            too_many: 0,
            shared_whole: Vec::new(),
            lent: Vec::new(),
        }
    }

    /// Returns the root of a table.
    fn root(&self, target: u64) -> Result<u64, Status> {
        match Target(target) {
            Target::HOST => Ok(HOST_ROOT),
            Target::HYP => Ok(HOST_ROOT + 0x1000),
            guest => {
                let handle = guest.guest_handle().ok_or(Status::UNKNOWN_TARGET)?;
                let found = self.guests.iter().find(|guest| guest.handle == handle);
                found.map(|guest| guest.root).ok_or(Status::NO_SUCH_VM)
            }
        }
    }

    fn put(&mut self, slot: u32, header: &SlotHeader, records: &[u8]) {
        let bytes = &mut self.slots[slot as usize];
        bytes.fill(0);
        bytes[..128].copy_from_slice(header.as_bytes());
        bytes[128..128 + records.len()].copy_from_slice(records);
    }

    fn answer(&mut self, regs: &[u64; 8]) -> Result<(u64, u32, u32), Status> {
        let [_, x1, pfn, x3, x4, x5, x6, sequence] = *regs;
        let slot = u32::try_from(pfn.wrapping_sub(PFN)).expect("a call names a slot");
        assert!((slot as usize) < self.slots.len(), "a call names a slot of the ring");
        assert!(!self.lent.contains(&slot), "a call names slot {slot}, which user space holds");
        let base = SlotHeader {
            magic: SLOT_MAGIC,
            version: ABI_VERSION.to_bits(),
            header_bytes: 128,
            sequence,
            target: x3,
            start: x4,
            end: x5,
            ..SlotHeader::new_zeroed()
        };
        match Op((x1 & 0xffff_ffff) as u32) {
            Op::LIST => {
                let mut rest = self.guests.iter().filter(|guest| u64::from(guest.handle) >= x4);
                let records: Vec<VmRecord> = rest.by_ref().take(SLOT_VMS).map(vm_record).collect();
                let next = rest.next().map_or(0, |guest| u64::from(guest.handle));
                let count = records.len() as u32;
                let header = SlotHeader {
                    kind: SlotKind::VMS.0,
                    record_bytes: 64,
                    record_count: count,
                    visited: count,
                    next,
                    ..base
                };
                self.put(slot, &header, records.as_bytes());
                Ok((next, count, count))
            }
            Op::DUMP => {
                let root = self.root(x3)?;
                if x4 % 4096 != 0 || x4 >= SPACE || x5 < x4 {
                    return Err(Status::BAD_RANGE);
                }
                let next = (x4 + self.step).min(x5).min(SPACE);
                let visited = (x6 as u32).min(100 + self.calls as u32);
                let header = SlotHeader {
                    kind: SlotKind::RANGES.0,
                    record_bytes: 32,
                    record_count: 1,
                    visited,
                    next,
                    end: x5.min(SPACE),
                    root,
                    flags: self.flags,
                    held_ticks: 10 + self.calls as u32 % 3,
                    tick_hz: 1000,
                    ia_bits: IA_BITS,
                    ..base
                };
                let record = Record { ia: x4, count: 1, ..Record::new_zeroed() };
                self.put(slot, &header, record.as_bytes());
                Ok((next, 1, visited))
            }
            Op::WALK => {
                let root = self.root(x3)?;
                let header = SlotHeader {
                    kind: SlotKind::WALK.0,
                    record_bytes: 32,
                    record_count: 3,
                    visited: 3,
                    root,
                    flags: self.flags,
                    ia_bits: IA_BITS,
                    ..base
                };
                self.put(slot, &header, [Record::new_zeroed(); 3].as_bytes());
                Ok((0, 3, 3))
            }
            Op::FRAMES => {
                assert_eq!((x1 >> 32, x3), (0, 0), "reserved registers are zero");
                if x4 % 4096 != 0 || x4 >= SPACE || x5 < x4 {
                    return Err(Status::BAD_RANGE);
                }
                let next = (x4 + self.step).min(x5).min(SPACE);
                let visited = (x6 as u32).min(100 + self.calls as u32);
                let header = SlotHeader {
                    kind: SlotKind::FRAMES.0,
                    record_bytes: 24,
                    record_count: 1,
                    visited,
                    next,
                    end: x5.min(SPACE),
                    held_ticks: 20 + self.calls as u32 % 3,
                    tick_hz: 1000,
                    ..base
                };
                let record = FrameRecord { pa: x4, count: 1, ..FrameRecord::new_zeroed() };
                self.put(slot, &header, record.as_bytes());
                Ok((next, 1, visited))
            }
            Op::FACTS => {
                assert_eq!((x1 >> 32, x3, x5, x6), (0, 0, 0, 0), "reserved registers are zero");
                let told: Vec<Fact> = (x4..self.facts.min(x4 + FACTS_AT_ONCE))
                    .map(|number| Fact { kind: FactKind::MEMORY.0, value: number, ..Fact::new_zeroed() })
                    .collect();
                let count = told.len() as u32;
                let next = x4 + u64::from(count);
                let next = if next < self.facts { next } else { 0 };
                let header = SlotHeader {
                    kind: SlotKind::FACTS.0,
                    record_bytes: 32,
                    record_count: count,
                    visited: count,
                    next,
                    end: self.facts,
                    tick_hz: 1000,
                    ..base
                };
                self.put(slot, &header, told.as_bytes());
                Ok((next, count, count))
            }
            Op::EXAMINE => {
                assert_eq!(x1 >> 32, 0, "reserved registers are zero");
                let mut records = vec![Record { ia: x3, kind: RecordKind::FRAME.0, ..Record::new_zeroed() }];
                for place in [x4, x5, x6].map(Place).into_iter().filter(|place| *place != Place::NONE) {
                    let (count, oa) = match self.root(place.target().0) {
                        Ok(root) => (0, root),
                        Err(status) => (status.0, 0),
                    };
                    let (ia, descriptor) = (place.address(), place.target().0);
                    records.push(Record { ia, oa, descriptor, count, level: 0, kind: RecordKind::PLACE.0, flags: 0 });
                }
                let count = records.len() as u32;
                let header = SlotHeader {
                    kind: SlotKind::EXAMINE.0,
                    record_bytes: 32,
                    record_count: count,
                    visited: 9,
                    target: 0,
                    start: x3,
                    end: 0,
                    held_ticks: 30,
                    tick_hz: 1000,
                    ..base
                };
                self.put(slot, &header, records.as_bytes());
                Ok((0, count, 9))
            }
            _ => Err(Status::UNKNOWN_OP),
        }
    }

    /// Returns the header of a slot.
    pub(crate) fn header(&self, slot: u32) -> SlotHeader {
        SlotHeader::read_from_bytes(&self.slots[slot as usize][..128]).expect("128 bytes")
    }

    /// Returns the records of a slot.
    pub(crate) fn records<R: FromBytes>(&self, slot: u32) -> Vec<R> {
        let header = self.header(slot);
        assert!(header.record_count == 0 || usize::from(header.record_bytes) == size_of::<R>());
        let bytes = &self.slots[slot as usize][128..header.used_bytes().expect("inside the slot")];
        bytes.chunks(size_of::<R>()).map(|record| R::read_from_bytes(record).expect("a record")).collect()
    }

    /// Returns the VM records of a slot.
    pub(crate) fn vm_records(&self, slot: u32) -> Vec<VmRecord> {
        self.records(slot)
    }
}

fn vm_record(guest: &Guest) -> VmRecord {
    VmRecord {
        handle: guest.handle,
        root: guest.root,
        flags: vm_flags::CREATED,
        ia_bits: IA_BITS,
        vcpus: 1,
        ..VmRecord::new_zeroed()
    }
}

impl El2 for Fake {
    fn call(&mut self, regs: &mut [u64; 8]) {
        if let Some((_, change)) = self.change_at.filter(|(at, _)| *at == self.calls) {
            change(self);
        }
        self.calls += 1;
        assert!(self.calls < 10_000, "a stream without an end");
        if regs[1] == u64::from(Op::HELLO.0) {
            assert_eq!(&regs[3..], &[0; 5], "reserved registers are zero");
            regs[0] = 0;
            regs[1] = 0;
            regs[2] = u64::from(ABI_VERSION.to_bits()) | u64::from(DEFAULT_BUDGET) << 32;
            regs[3] = features::GUEST_STAGE2;
        } else {
            let slot = (regs[2] - PFN) as usize;
            let (status, next, counts) = match self.answer(regs) {
                Ok((next, records, visited)) => (Status::OK, next, pack_counts(records, visited)),
                Err(status) => (status, 0, 0),
            };
            [regs[0], regs[1], regs[2], regs[3]] = [0, u64::from(status.0), next, counts];
            if let Some(spoil) = self.spoil {
                spoil(regs, &mut self.slots[slot]);
            }
            return;
        }
        if let Some(spoil) = self.spoil {
            spoil(regs, &mut [0; SLOT_BYTES]);
        }
    }
}

impl Host for Fake {
    const PAGE_BYTES: usize = 4096;

    fn check_allowed(&self) -> Result<(), Errno> {
        if self.is_locked_down {
            Err(Errno(1))
        } else {
            Ok(())
        }
    }

    fn slot_pfn(&self, slot: u32) -> u64 {
        PFN + u64::from(slot)
    }

    fn hyp_image(&self) -> [[u64; 2]; 3] {
        HYP_IMAGE
    }

    fn share_further_pages(&mut self, slot: u32) -> Result<(), Errno> {
        self.shared_whole.push(slot);
        Ok(())
    }

    fn read_slot(&self, slot: u32, offset: usize, into: &mut [u8]) -> Result<(), Errno> {
        let bytes = self.slots[slot as usize].get(offset..).and_then(|rest| rest.get(..into.len()));
        into.copy_from_slice(bytes.ok_or(Errno::EINVAL)?);
        Ok(())
    }

    fn write_slot(&mut self, slot: u32, offset: usize, from: &[u8]) -> Result<(), Errno> {
        assert!(!self.lent.contains(&slot), "the driver writes slot {slot}, which user space holds");
        let bytes = self.slots[slot as usize].get_mut(offset..).and_then(|rest| rest.get_mut(..from.len()));
        bytes.ok_or(Errno::EINVAL)?.copy_from_slice(from);
        Ok(())
    }

    fn look_at_vms(&mut self) -> Result<(), Errno> {
        if self.no_memory {
            return Err(Errno(12));
        }
        self.held = self.host_vms.clone();
        Ok(())
    }

    fn look_at_handles(&mut self) {
        for vm in &mut self.held {
            let now = self.host_vms.iter().find(|now| now.pid == vm.pid);
            vm.handle = now.map_or(vm.handle, |now| now.handle);
        }
    }

    fn vms(&self) -> &[HostVm] {
        &self.held
    }

    fn hold_vm(&mut self, handle: u16) -> Result<Option<HostVm>, Errno> {
        self.held.retain(|vm| vm.handle == handle);
        if self.held.is_empty() {
            if self.no_memory {
                return Err(Errno(12));
            }
            self.held.extend(self.host_vms.iter().find(|vm| vm.handle == handle));
        }
        Ok(self.held.first().copied())
    }

    fn put_memory_slots(&mut self, slot: u32, offset: usize, from: u64, most: usize) -> Result<usize, Errno> {
        assert_eq!(self.held.len(), 1, "the VM is held alone");
        if let Some((_, change)) = self.change_at.filter(|(at, _)| *at == self.calls) {
            change(self);
        }
        self.calls += 1;
        assert!(self.calls < 10_000, "a stream without an end");
        let told: Vec<MemorySlot> =
            self.memory.iter().filter(|memory| memory.ia >= from).take(most + self.too_many).copied().collect();
        let bytes = told.as_bytes();
        self.write_slot(slot, offset, &bytes[..bytes.len().min(SLOT_BYTES - offset)])?;
        Ok(told.len())
    }

    fn let_vms_go(&mut self) {
        self.held.clear();
    }

    fn is_interrupted(&self) -> bool {
        self.interrupt_at.is_some_and(|at| self.calls >= at)
    }
}

pub(crate) fn a_hello() -> Hello {
    Hello { size: 64, version: ABI_VERSION.to_bits(), ..Hello::new_zeroed() }
}

pub(crate) fn an_advance(release: u32) -> Advance {
    Advance { size: 32, version: ABI_VERSION.to_bits(), release, ..Advance::new_zeroed() }
}

pub(crate) fn a_start(op: Op) -> Start {
    Start { size: size_of::<Start>() as u32, version: ABI_VERSION.to_bits(), op: op.0, ..Start::new_zeroed() }
}

/// The whole space of guest 0x1000.
pub(crate) fn a_dump() -> Start {
    Start { target: Target::guest(0x1000).0, end: u64::MAX, ..a_start(Op::DUMP) }
}

/// Reads all through the mapping, giving back `at_once` slots each time; returns the headers in order.
pub(crate) fn read_mapped(
    session: &mut Session,
    fake: &mut Fake,
    at_once: u32,
) -> Result<Vec<SlotHeader>, SessionError> {
    let mut headers = Vec::new();
    let mut release = 0;
    loop {
        let mut advance = an_advance(release);
        fake.lent.drain(..release as usize);
        session.advance(fake, &mut advance)?;
        let slots = fake.slots.len() as u32;
        let held: Vec<u32> = (0..advance.filled).map(|i| (advance.first + i) % slots).collect();
        if advance.state == SessionState::DONE && held.is_empty() {
            return Ok(headers);
        }
        assert!(!held.is_empty(), "each advance gives something until the end");
        release = at_once.min(advance.filled);
        headers.extend(held.iter().take(release as usize).map(|slot| fake.header(*slot)));
        fake.lent = held;
    }
}

/// Reads all records of slots of `kind`, and the headers of all slots.
pub(crate) fn read_records<R: FromBytes>(
    session: &mut Session,
    fake: &mut Fake,
    kind: SlotKind,
) -> (Vec<SlotHeader>, Vec<R>) {
    let (mut headers, mut records) = (Vec::new(), Vec::new());
    while let Some(unread) = session.next_unread(fake).expect("read") {
        let header = fake.header(unread.slot);
        headers.push(header);
        if SlotKind(header.kind) == kind {
            records.extend(fake.records::<R>(unread.slot));
        }
        session.consume(unread, unread.len_bytes);
    }
    (headers, records)
}

/// Reads all by `read(2)` with a buffer of one slot.
pub(crate) fn read_stream(session: &mut Session, fake: &mut Fake) -> Result<Vec<SlotHeader>, SessionError> {
    let mut headers = Vec::new();
    while let Some(unread) = session.next_unread(fake)? {
        headers.push(fake.header(unread.slot));
        session.consume(unread, unread.len_bytes);
    }
    Ok(headers)
}
