// SPDX-License-Identifier: GPL-2.0-only
//! What is about no single guest, against the fake EL2: the host's and EL2's tables, frames, facts, examinations.

mod fake;

use fake::{
    a_dump, a_start, read_mapped, read_records, read_stream, Fake, Spoil, FACTS_AT_ONCE, HOST_ROOT, HYP_IMAGE, PFN,
    SPACE,
};
use s2dump_abi::hypercall::{Op, Status};
use s2dump_abi::ioctl::Start;
use s2dump_abi::slot::{Fact, FactKind, FrameRecord, Record, RecordKind, SlotHeader, SlotKind};
use s2dump_abi::target::{Place, Target};
use s2dump_host_driver::errno::Errno;
use s2dump_host_driver::error::SessionError;
use s2dump_host_driver::session::Session;

const SLOTS: u32 = 4;

fn session() -> Session {
    Session::new(SLOTS)
}

fn fake(calls: u64) -> Fake {
    Fake::new(SLOTS as usize, calls)
}

fn a_dump_of(target: Target) -> Start {
    Start { target: target.0, ..a_dump() }
}

fn all_frames() -> Start {
    Start { end: u64::MAX, ..a_start(Op::FRAMES) }
}

fn an_examination() -> Start {
    let place = |target, address| Place::new(target, address).expect("a place").0;
    let places = [place(Target::HOST, 0x4000), 0, place(Target::guest(0x1000), 0x8000_0000)];
    Start { start: 0x4000, places, ..a_start(Op::EXAMINE) }
}

/// A start of each kind that holds no VM.
fn starts() -> [Start; 5] {
    [a_dump_of(Target::HOST), a_dump_of(Target::HYP), all_frames(), a_start(Op::FACTS), an_examination()]
}

fn kinds(headers: &[SlotHeader]) -> Vec<SlotKind> {
    headers.iter().map(|header| SlotKind(header.kind)).collect()
}

/// Checks that the slots are one stream, and returns the END slot.
fn check_stream(headers: &[SlotHeader]) -> SlotHeader {
    for (number, header) in headers.iter().enumerate() {
        assert_eq!(header.sequence, number as u64);
    }
    let (end, rest) = headers.split_last().expect("an END slot");
    assert_eq!(SlotKind(end.kind), SlotKind::END);
    assert!(rest.iter().all(|header| SlotKind(header.kind) != SlotKind::END));
    *end
}

#[test]
fn good_dumps_of_the_host_and_of_el2() {
    for (target, root) in [(Target::HOST, HOST_ROOT), (Target::HYP, HOST_ROOT + 0x1000)] {
        for (asked, calls) in [(0, 1), (0, 9), (root, 9)] {
            let (mut session, mut fake) = (session(), fake(calls));
            session.start(&mut fake, &mut Start { root: asked, ..a_dump_of(target) }).expect("start");
            let headers = read_mapped(&mut session, &mut fake, 3).expect("advance");
            let end = check_stream(&headers);
            assert_eq!((end.status, end.next, headers.len() as u64), (0, SPACE, calls + 1));
            assert!(headers.iter().all(|header| (header.target, header.root) == (target.0, root)));
        }
        let (mut session, mut fake) = (session(), fake(1));
        let mut walk = Start { target: target.0, start: 0x1234, ..a_start(Op::WALK) };
        session.start(&mut fake, &mut walk).expect("start");
        let headers = read_stream(&mut session, &mut fake).expect("read");
        assert_eq!(kinds(&headers), [SlotKind::WALK, SlotKind::END]);
        assert_eq!((headers[1].target, headers[1].root), (target.0, root));
    }
}

/// The host's VMs are not asked for, so it does not matter whether there are any, nor whether there is memory for them.
#[test]
fn good_without_any_vm() {
    for mut start in starts() {
        let (mut session, mut fake) = (session(), fake(5));
        fake.host_vms.clear();
        fake.guests.clear();
        fake.no_memory = true;
        session.start(&mut fake, &mut start).expect("start");
        let end = check_stream(&read_stream(&mut session, &mut fake).expect("read"));
        assert_eq!(end.status, 0, "{start:?}");
    }
}

/// Those that a list held would otherwise live until the file is closed.
#[test]
fn good_vms_of_a_list_are_released() {
    for mut start in starts() {
        let (mut session, mut fake) = (session(), fake(5));
        session.start(&mut fake, &mut a_start(Op::LIST)).expect("list");
        assert_eq!(fake.held.len(), 1);
        session.start(&mut fake, &mut start).expect("start");
        assert_eq!(fake.held, [], "{start:?}");
    }
}

#[test]
fn bad_root_of_the_host() {
    let (mut session, mut fake) = (session(), fake(5));
    let mut start = Start { root: HOST_ROOT + 0x1000, ..a_dump_of(Target::HOST) };
    let error = session.start(&mut fake, &mut start).expect_err("EL2's root");
    assert_eq!((error, start.status), (SessionError::Refused(Status::VM_GONE), Status::VM_GONE.0));
    assert!(fake.slots[0].iter().all(|&byte| byte == 0), "erased");
}

#[test]
fn good_frames_by_both_ways() {
    for calls in [1, 3, 4, 5, 20] {
        let (mut session, mut fake) = (session(), fake(calls));
        session.start(&mut fake, &mut Start { budget: 1000, ..all_frames() }).expect("start");
        let mapped = read_mapped(&mut session, &mut fake, 3).expect("advance");
        assert_eq!(fake.calls, calls);

        let (mut session, mut fake) = (self::session(), self::fake(calls));
        session.start(&mut fake, &mut Start { budget: 1000, ..all_frames() }).expect("start");
        let (headers, records) = read_records::<FrameRecord>(&mut session, &mut fake, SlotKind::FRAMES);
        assert_eq!(headers, mapped);
        assert_eq!(records.len() as u64, calls);
        let end = check_stream(&headers);
        assert_eq!((end.start, end.next, end.end, end.status), (0, SPACE, SPACE, 0));
        assert_eq!(u64::from(end.visited), 100 + calls, "the most of any call, the last");
        assert_eq!((end.target, end.root, end.tick_hz), (0, 0, 1000));
        let (_, frames) = headers.split_last().expect("an END slot");
        assert!(frames.windows(2).all(|pair| pair[0].next == pair[1].start));
    }
}

#[test]
fn good_frames_end_where_asked() {
    let (mut session, mut fake) = (session(), fake(4));
    let mut start = Start { start: SPACE / 4, end: SPACE / 2, ..all_frames() };
    session.start(&mut fake, &mut start).expect("start");
    let end = check_stream(&read_stream(&mut session, &mut fake).expect("read"));
    assert_eq!((end.start, end.next, end.end, end.sequence), (SPACE / 4, SPACE / 2, SPACE / 2, 1));
}

#[test]
fn bad_frames() {
    let cases = [
        Start { start: 1, ..all_frames() },
        Start { start: SPACE, ..all_frames() },
        Start { start: 0x2000, end: 0x1000, ..all_frames() },
    ];
    for mut start in cases {
        let (mut session, mut fake) = (session(), fake(4));
        let error = session.start(&mut fake, &mut start).expect_err("refused");
        assert_eq!((error.to_errno(), start.status), (Errno(34), Status::BAD_RANGE.0));
        assert_eq!(session, self::session());
    }
}

/// EL2's facts, then where each slot is, then what EL2 has in the kernel's image.
#[test]
fn good_facts_and_the_ring() {
    // None, one, and about as many as one call tells.
    for facts in [0, 1, FACTS_AT_ONCE - 1, FACTS_AT_ONCE, FACTS_AT_ONCE + 1, 20] {
        // Up to what one slot holds, and beyond.
        for slots in [1, 2, 8, 120, 121, 122, 123, 124, 125, 245, 246, 249] {
            let (mut session, mut fake) = (Session::new(slots), Fake::new(slots as usize, 1));
            fake.facts = facts;
            session.start(&mut fake, &mut a_start(Op::FACTS)).expect("start");
            let (headers, told) = read_records::<Fact>(&mut session, &mut fake, SlotKind::FACTS);
            let end = check_stream(&headers);
            assert_eq!((end.status, end.start, end.target), (0, 0, 0));
            let calls = facts.div_ceil(FACTS_AT_ONCE).max(1);
            assert_eq!(fake.calls, calls);
            assert_eq!(end.sequence, calls + u64::from((slots + 3).div_ceil(124)));

            let (of_el2, of_driver) = told.split_at(facts as usize);
            let (ring, image) = of_driver.split_at(slots as usize);
            let numbers: Vec<u64> = of_el2.iter().map(|fact| fact.value).collect();
            assert_eq!(numbers, (0..facts).collect::<Vec<_>>());
            assert_eq!(ring.len(), slots as usize);
            for (slot, fact) in ring.iter().enumerate() {
                let start = (PFN + slot as u64) * 4096;
                let (value, kind, flags, reserved) = (0, FactKind::RING.0, 0, 0);
                assert_eq!(*fact, Fact { start, size: 16384, value, kind, flags, reserved });
            }
            let image: Vec<_> = image.iter().map(|fact| (fact.kind, fact.start, fact.start + fact.size)).collect();
            let kinds = [FactKind::HYP_DATA, FactKind::HYP_RODATA, FactKind::HYP_BSS];
            let expected: Vec<_> =
                kinds.into_iter().zip(HYP_IMAGE).map(|(kind, [start, end])| (kind.0, start, end)).collect();
            assert_eq!(image, expected);
        }
    }
}

#[test]
fn good_examination_is_one_slot() {
    let (mut session, mut fake) = (session(), fake(1));
    session.start(&mut fake, &mut an_examination()).expect("start");
    let (headers, records) = read_records::<Record>(&mut session, &mut fake, SlotKind::EXAMINE);
    assert_eq!(kinds(&headers), [SlotKind::EXAMINE, SlotKind::END]);
    let end = check_stream(&headers);
    assert_eq!((end.start, end.end, end.visited, end.held_ticks, end.status), (0x4000, 0, 9, 30, 0));
    let seen: Vec<_> = records.iter().map(|r| (RecordKind(r.kind), r.ia, r.oa, r.descriptor)).collect();
    let wanted = [
        (RecordKind::FRAME, 0x4000, 0, 0),
        (RecordKind::PLACE, 0x4000, HOST_ROOT, Target::HOST.0),
        (RecordKind::PLACE, 0x8000_0000, 0x8000_0000, 0x1000),
    ];
    assert_eq!(seen, wanted);
}

/// EL2 says it of the place, so the others are told all the same.
#[test]
fn good_examination_of_a_vm_that_is_gone() {
    let (mut session, mut fake) = (session(), fake(1));
    fake.guests.clear();
    session.start(&mut fake, &mut an_examination()).expect("start");
    let (headers, records) = read_records::<Record>(&mut session, &mut fake, SlotKind::EXAMINE);
    assert_eq!(check_stream(&headers).status, 0);
    assert_eq!(records.iter().map(|r| r.count).collect::<Vec<_>>(), [0, 0, Status::NO_SUCH_VM.0]);
}

/// The same lies at the start, where they are an errno, and after a good first slot, where they are a status.
#[test]
fn bad_answers_of_el2() {
    let lies: [(&str, Spoil); 8] = [
        ("not permitted", |regs, _| regs[1] = u64::from(Status::HYP_NOT_PERMITTED.0)),
        ("no such hypercall", |regs, _| regs[0] = u64::MAX),
        ("status from the future", |regs, _| regs[1] = 99),
        ("no slot", |_, slot| slot[0] = 0),
        ("header too small", |_, slot| slot[8] = 127),
        ("records beyond the slot", |_, slot| slot[17] = 1),
        ("a slot of another kind", |_, slot| slot[12] = SlotKind::END.0 as u8),
        ("a slot of another number", |_, slot| slot[24] ^= 1),
    ];
    for (name, lie) in lies {
        for mut start in starts() {
            let (mut session, mut fake) = (session(), fake(9));
            fake.spoil = Some(lie);
            let error = session.start(&mut fake, &mut start).expect_err(name);
            let status = error.status_beside_errno();
            assert_eq!((start.status, session), (status.0, self::session()), "{name}: {start:?}");
            assert_ne!(status, Status::OK, "{name}");

            if Op(start.op) == Op::EXAMINE {
                continue;
            }
            let (mut session, mut fake) = (self::session(), self::fake(9));
            session.start(&mut fake, &mut start).expect("start");
            fake.spoil = Some(lie);
            let end = check_stream(&read_stream(&mut session, &mut fake).expect("read"));
            assert_eq!((Status(end.status), end.sequence, fake.calls), (status, 1, 2), "{name}: {start:?}");
        }
    }
}

/// Otherwise a stream would never end.
#[test]
fn bad_answers_without_progress() {
    for mut start in [a_dump_of(Target::HOST), all_frames(), a_start(Op::FACTS)] {
        let (mut session, mut fake) = (session(), fake(9));
        session.start(&mut fake, &mut start).expect("start");
        // What the second call began with: one step, or as many facts.
        fake.spoil = Some(|regs, slot| regs[2] = u64::from_le_bytes(slot[40..48].try_into().expect("8 bytes")));
        let end = check_stream(&read_stream(&mut session, &mut fake).expect("read"));
        assert_eq!((Status(end.status), fake.calls), (Status::BAD_ANSWER, 2), "{start:?}");
    }
}

#[test]
fn bad_table_that_changes_in_mid_dump() {
    let (mut session, mut fake) = (session(), fake(9));
    session.start(&mut fake, &mut a_dump_of(Target::HOST)).expect("start");
    fake.spoil = Some(|_, slot| slot[39] = 2);
    let end = check_stream(&read_stream(&mut session, &mut fake).expect("read"));
    assert_eq!((Status(end.status), end.sequence), (Status::BAD_ANSWER, 1));
}
