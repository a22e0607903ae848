// SPDX-License-Identifier: GPL-2.0-only
//! Memory slots, which the host tells and EL2 is not asked about.

mod fake;

use fake::{a_dump, a_hello, a_start, host_vm, read_mapped, read_records, Fake};
use s2dump_abi::hypercall::{Op, Status};
use s2dump_abi::ioctl::Start;
use s2dump_abi::slot::{MemorySlot, SlotHeader, SlotKind, SLOT_MEMORY};
use s2dump_abi::target::Target;
use s2dump_abi::version::features;
use s2dump_host_driver::errno::Errno;
use s2dump_host_driver::error::SessionError;
use s2dump_host_driver::session::Session;

const SLOTS: u32 = 4;

/// A VM with `count` memory slots of a page, with a page between two of them.
fn fake(count: u16) -> Fake {
    let memory = (0..count).map(|id| MemorySlot {
        ia: u64::from(id) << 13,
        size: 0x1000,
        hva: 0x7000_0000 + (u64::from(id) << 12),
        flags: 0,
        id,
        reserved: 0,
    });
    Fake { memory: memory.collect(), ..Fake::new(SLOTS as usize, 9) }
}

fn a_memory_start() -> Start {
    Start { target: 0x1000, ..a_start(Op::MEMORY) }
}

fn run(fake: &mut Fake) -> (Vec<SlotHeader>, Vec<MemorySlot>) {
    let mut session = Session::new(SLOTS);
    session.start(fake, &mut a_memory_start()).expect("start");
    read_records(&mut session, fake, SlotKind::MEMORY)
}

#[test]
fn good_none_one_and_as_many_as_fit_or_more() {
    let full = SLOT_MEMORY as u16;
    for (count, slots) in [(0, 1), (1, 1), (full - 1, 1), (full, 2), (full + 1, 2), (3 * full, 4)] {
        let mut fake = fake(count);
        let (headers, records) = run(&mut fake);
        assert_eq!(records, fake.memory, "{count}");
        let (end, rest) = headers.split_last().expect("an END slot");
        assert_eq!((rest.len(), SlotKind(end.kind), Status(end.status)), (slots, SlotKind::END, Status::OK), "{count}");
        let mut at = 0;
        for (number, header) in headers.iter().enumerate() {
            assert_eq!((header.sequence, header.target, header.root), (number as u64, 0x1000, 0));
        }
        for header in rest {
            assert_eq!((SlotKind(header.kind), header.start), (SlotKind::MEMORY, at));
            at = header.next;
        }
        assert_eq!((at, end.start, end.next), (0, 0, 0), "{count}");
        // The fake counts these too, and no hypercall was made.
        assert_eq!(fake.calls, slots as u64, "{count}");
    }
}

#[test]
fn good_through_the_mapping() {
    let (mut session, mut fake) = (Session::new(SLOTS), fake(300));
    session.start(&mut fake, &mut a_memory_start()).expect("start");
    let headers = read_mapped(&mut session, &mut fake, 1).expect("read");
    assert_eq!(headers.iter().map(|header| header.record_count).collect::<Vec<_>>(), [124, 124, 52, 0]);
}

/// What comes after the first slot is what there is then.
#[test]
fn good_changes_between_two_slots() {
    let mut changed = fake(300);
    changed.change_at = Some((1, |fake| {
        fake.memory.retain(|memory| memory.id != 0 && memory.id != 200);
        fake.memory.truncate(250);
    }));
    let (_, records) = run(&mut changed);
    let ids: Vec<u16> = records.iter().map(|memory| memory.id).collect();
    let expected: Vec<u16> = (0..200).chain(201..252).collect();
    assert_eq!(ids, expected);
    let mut gone = fake(300);
    gone.change_at = Some((1, |fake| fake.memory.clear()));
    let (headers, records) = run(&mut gone);
    assert_eq!((records.len(), headers.len()), (124, 3));
}

/// So that what follows is about the same VM, even if another one could get the handle.
#[test]
fn good_the_vm_stays_held_for_what_follows() {
    let (mut session, mut fake) = (Session::new(SLOTS), fake(1));
    fake.host_vms.push(host_vm(0x1001, 7, 0));
    session.start(&mut fake, &mut a_start(Op::LIST)).expect("list");
    read_records::<MemorySlot>(&mut session, &mut fake, SlotKind::MEMORY);
    fake.host_vms.clear();
    session.start(&mut fake, &mut a_memory_start()).expect("a VM that is held");
    read_records::<MemorySlot>(&mut session, &mut fake, SlotKind::MEMORY);
    assert_eq!(fake.held.iter().map(|vm| vm.handle).collect::<Vec<_>>(), [0x1000]);
    session.start(&mut fake, &mut a_dump()).expect("the same VM");
    read_records::<MemorySlot>(&mut session, &mut fake, SlotKind::MEMORY);
    assert!(fake.held.is_empty());
}

#[test]
fn good_a_vm_that_never_ran() {
    let mut fake = fake(3);
    fake.host_vms = vec![host_vm(0x1000, 7, 0)];
    fake.guests.clear();
    assert_eq!(run(&mut fake).1.len(), 3);
}

#[test]
fn bad_vms() {
    for handle in [0x1001, 0x10fe, 1] {
        let (mut session, mut fake) = (Session::new(SLOTS), fake(3));
        let mut start = Start { target: Target::guest(handle).0, ..a_memory_start() };
        let error = session.start(&mut fake, &mut start).expect_err("no such VM");
        assert_eq!(error, SessionError::Refused(Status::NO_SUCH_VM));
        assert_eq!((error.to_errno(), start.status), (Errno(2), Status::NO_SUCH_VM.0));
    }
}

/// Such a host would make a stream without an end, or records where there is no slot.
#[test]
fn bad_records() {
    let spoils: [fn(&mut Fake); 4] = [
        |fake| fake.too_many = 1,
        |fake| fake.memory.iter_mut().for_each(|memory| (memory.ia, memory.size) = (0, 0)),
        |fake| fake.memory[SLOT_MEMORY - 1].size = u64::MAX,
        |fake| fake.memory[SLOT_MEMORY - 1].size = 0_u64.wrapping_sub(fake.memory[SLOT_MEMORY - 1].ia),
    ];
    for (number, spoil) in spoils.into_iter().enumerate() {
        let (mut session, mut fake) = (Session::new(SLOTS), fake(300));
        spoil(&mut fake);
        let error = session.start(&mut fake, &mut a_memory_start()).expect_err("bad");
        assert_eq!(error, SessionError::Refused(Status::BAD_ANSWER), "{number}");
    }
}

#[test]
fn good_hello_tells_that_there_are_memory_slots() {
    let mut hello = a_hello();
    Session::new(SLOTS).hello(&mut fake(0), &mut hello).expect("hello");
    assert_eq!(hello.features, features::GUEST_STAGE2 | features::MEMORY);
}
