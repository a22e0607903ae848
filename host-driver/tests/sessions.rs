// SPDX-License-Identifier: GPL-2.0-only
//! Whole sessions against the fake EL2: what each start gives, and how each ends.

mod fake;

use fake::{a_dump, a_hello, a_start, an_advance, host_vm, read_mapped, read_stream, Fake, Guest, Spoil, SPACE};
use s2dump_abi::hypercall::{DumpFlags, Op, Status, DEFAULT_BUDGET};
use s2dump_abi::ioctl::{Hello, SessionState, Start};
use s2dump_abi::slot::{slot_flags, vm_flags, SlotHeader, SlotKind, VmRecord, SLOT_BYTES, SLOT_MAGIC};
use s2dump_abi::target::Target;
use s2dump_abi::version::ABI_VERSION;
use s2dump_host_driver::argument::ArgumentError;
use s2dump_host_driver::errno::Errno;
use s2dump_host_driver::error::SessionError;
use s2dump_host_driver::ring::NotLent;
use s2dump_host_driver::session::Session;

const SLOTS: u32 = 4;

fn a_walk(handle: u16) -> Start {
    Start { target: Target::guest(handle).0, start: 0x1234, ..a_start(Op::WALK) }
}

fn session() -> Session {
    Session::new(SLOTS)
}

fn fake(calls: u64) -> Fake {
    Fake::new(SLOTS as usize, calls)
}

/// Checks that the slots are one dump, in order and without a gap, and returns the END slot.
fn check_dump(headers: &[SlotHeader], end: u64) -> SlotHeader {
    let (last, ranges) = headers.split_last().expect("an END slot");
    assert_eq!(SlotKind(last.kind), SlotKind::END);
    assert_eq!(last.sequence, ranges.len() as u64);
    let mut cursor = 0;
    for (number, header) in ranges.iter().enumerate() {
        assert_eq!((SlotKind(header.kind), header.sequence), (SlotKind::RANGES, number as u64));
        assert_eq!(header.start, cursor);
        cursor = header.next;
    }
    assert_eq!(cursor, end);
    *last
}

#[test]
fn good_hello() {
    let mut hello = a_hello();
    session().hello(&mut fake(1), &mut hello).expect("hello");
    assert_eq!((hello.version, hello.el2_version), (ABI_VERSION.to_bits(), ABI_VERSION.to_bits()));
    assert_eq!((hello.slots, hello.slot_bytes, hello.default_budget), (SLOTS, SLOT_BYTES as u32, DEFAULT_BUDGET));
    assert_ne!(hello.features, 0);
}

#[test]
fn good_dump_by_both_ways() {
    // One call, then fewer and more calls than the ring has slots, and so many that it wraps often.
    for calls in [1, 2, 3, 4, 5, 8, 9, 63] {
        for at_once in 1..=SLOTS {
            let (mut session, mut fake) = (session(), fake(calls));
            session.start(&mut fake, &mut a_dump()).expect("start");
            let headers = read_mapped(&mut session, &mut fake, at_once).expect("advance");
            let end = check_dump(&headers, SPACE);
            assert_eq!((end.status, end.visited), (0, 0), "a budget of 0 visits 0 in the fake");
            assert_eq!((headers.len() as u64, fake.calls), (calls + 1, calls));
        }
        let (mut session, mut fake) = (session(), fake(calls));
        session.start(&mut fake, &mut a_dump()).expect("start");
        let headers = read_stream(&mut session, &mut fake).expect("read");
        check_dump(&headers, SPACE);
        assert_eq!(headers.len() as u64, calls + 1);
    }
}

#[test]
fn good_range_ends_where_asked() {
    let (mut session, mut fake) = (session(), fake(4));
    session.start(&mut fake, &mut Start { end: SPACE / 2, ..a_dump() }).expect("start");
    let headers = read_stream(&mut session, &mut fake).expect("read");
    let end = check_dump(&headers, SPACE / 2);
    assert_eq!((end.start, end.next, end.end), (0, SPACE / 2, SPACE / 2));
    assert_eq!(headers.len(), 3);
}

#[test]
fn good_end_slot_says_what_was_asked() {
    let (mut session, mut fake) = (session(), fake(3));
    session.start(&mut fake, &mut Start { budget: 1000, ..a_dump() }).expect("start");
    let end = check_dump(&read_stream(&mut session, &mut fake).expect("read"), SPACE);
    assert_eq!((end.magic, end.version, end.header_bytes), (SLOT_MAGIC, ABI_VERSION.to_bits(), 128));
    assert_eq!((end.target, end.end, end.record_count), (Target::guest(0x1000).0, SPACE, 0));
    assert_eq!((end.used_bytes(), end.reserved), (Some(128), 0));
    assert_eq!(end.visited, 103, "the most of three calls, the last");
}

#[test]
fn good_walk() {
    let (mut session, mut fake) = (session(), fake(1));
    session.start(&mut fake, &mut Start { target: 0x1000, start: 0x1234, ..a_start(Op::WALK) }).expect("start");
    let headers = read_stream(&mut session, &mut fake).expect("read");
    assert_eq!(headers.iter().map(|h| SlotKind(h.kind)).collect::<Vec<_>>(), [SlotKind::WALK, SlotKind::END]);
    assert_eq!((headers[1].status, headers[1].visited), (0, 3));
}

#[test]
fn good_state_is_done_only_when_the_end_slot_is_there() {
    // Four chunks fill the ring: the END slot has to wait.
    let (mut session, mut fake) = (session(), fake(4));
    session.start(&mut fake, &mut a_dump()).expect("start");
    let mut advance = an_advance(0);
    session.advance(&mut fake, &mut advance).expect("advance");
    assert_eq!((advance.first, advance.filled, advance.state), (0, 4, SessionState::RUNNING));
    let mut advance = an_advance(1);
    session.advance(&mut fake, &mut advance).expect("advance");
    assert_eq!((advance.first, advance.filled, advance.state), (1, 4, SessionState::DONE));
    let mut advance = an_advance(4);
    session.advance(&mut fake, &mut advance).expect("advance");
    assert_eq!((advance.filled, advance.state), (0, SessionState::DONE));
}

#[test]
fn good_idle_session_can_be_asked() {
    let (mut session, mut fake) = (session(), fake(1));
    let mut advance = an_advance(0);
    session.advance(&mut fake, &mut advance).expect("advance");
    assert_eq!((advance.filled, advance.state, fake.calls), (0, SessionState::IDLE, 0));
    // The refused call has not chosen a way of reading.
    session.start(&mut fake, &mut a_dump()).expect("start");
    read_stream(&mut session, &mut fake).expect("read");
}

#[test]
fn bad_release_of_more_than_lent_changes_nothing() {
    let (mut session, mut fake) = (session(), fake(9));
    session.start(&mut fake, &mut a_dump()).expect("start");
    // The start filled it, but user space has not been told of it.
    let error = session.advance(&mut fake, &mut an_advance(1)).expect_err("not lent");
    assert_eq!(error, SessionError::NotLent(NotLent { released: 1, lent: 0 }));
    session.advance(&mut fake, &mut an_advance(0)).expect("advance");
    for release in [5, u32::MAX] {
        let before = session;
        let error = session.advance(&mut fake, &mut an_advance(release)).expect_err("not lent");
        assert_eq!((error.to_errno(), session), (Errno::EINVAL, before));
    }
    session.advance(&mut fake, &mut an_advance(4)).expect("advance");
}

#[test]
fn bad_mixing_of_read_and_mapping() {
    let (mut session, mut fake) = (session(), fake(9));
    session.start(&mut fake, &mut a_dump()).expect("start");
    session.advance(&mut fake, &mut an_advance(0)).expect("advance");
    assert_eq!(session.next_unread(&mut fake), Err(SessionError::OtherReader));

    // A new start may be read the other way.
    session.start(&mut fake, &mut a_dump()).expect("start");
    session.next_unread(&mut fake).expect("read");
    let error = session.advance(&mut fake, &mut an_advance(0)).expect_err("mixed");
    assert_eq!((error, error.to_errno()), (SessionError::OtherReader, Errno::EBUSY));
}

#[test]
fn bad_read_before_a_start() {
    assert_eq!(session().next_unread(&mut fake(1)), Err(SessionError::NotStarted));
}

#[test]
fn good_read_with_any_buffer_gives_the_same_bytes() {
    let read = |room: usize| {
        let (mut session, mut fake) = (session(), fake(9));
        session.start(&mut fake, &mut a_dump()).expect("start");
        let mut bytes = Vec::new();
        while let Some(unread) = session.next_unread(&mut fake).expect("read") {
            assert_ne!(unread.len_bytes, 0);
            let copied = unread.len_bytes.min(room);
            bytes.extend_from_slice(&fake.slots[unread.slot as usize][unread.offset..][..copied]);
            session.consume(unread, copied);
        }
        bytes
    };
    let whole = read(4096);
    assert_eq!(whole.len(), 9 * 160 + 128);
    for room in [1, 31, 127, 128, 129, 159, 160, 161] {
        assert_eq!(read(room), whole, "{room} bytes at a time");
    }
}

#[test]
fn good_fault_while_copying_loses_nothing() {
    let (mut session, mut fake) = (session(), fake(2));
    session.start(&mut fake, &mut a_dump()).expect("start");
    let unread = session.next_unread(&mut fake).expect("read").expect("a slot");
    session.consume(unread, 0);
    assert_eq!(session.next_unread(&mut fake), Ok(Some(unread)));
}

#[test]
fn good_start_ends_the_one_before() {
    let (mut session, mut fake) = (session(), fake(9));
    session.start(&mut fake, &mut a_dump()).expect("start");
    session.advance(&mut fake, &mut an_advance(0)).expect("advance");
    session.advance(&mut fake, &mut an_advance(3)).expect("advance");
    session.start(&mut fake, &mut a_dump()).expect("start");
    let headers = read_mapped(&mut session, &mut fake, 2).expect("advance");
    check_dump(&headers, SPACE);
}

#[test]
fn bad_argument_leaves_the_dump_running() {
    let (mut session, mut fake) = (session(), fake(3));
    session.start(&mut fake, &mut a_dump()).expect("start");
    let before = session;
    let error = session.start(&mut fake, &mut a_start(Op(9))).expect_err("unknown");
    assert_eq!((error, session), (SessionError::Argument(ArgumentError::UnknownOp(9)), before));
}

#[test]
fn bad_starts_are_errnos_and_leave_the_session_idle() {
    let cases = [
        (Start { target: 0x1001, ..a_dump() }, Status::NO_SUCH_VM, 2),
        (Start { target: 0, ..a_dump() }, Status::NO_SUCH_VM, 2),
        (Start { target: 0, ..a_start(Op::WALK) }, Status::NO_SUCH_VM, 2),
        (Start { target: 0x1002, ..a_dump() }, Status::VM_NOT_RUN, 61),
        (Start { target: 0x1002, ..a_start(Op::WALK) }, Status::VM_NOT_RUN, 61),
        (Start { target: 0x1003, ..a_dump() }, Status::NO_SUCH_VM, 2),
        // One that a list told, and that is gone.
        (Start { target: 0x1001, root: 0x9000, ..a_dump() }, Status::VM_GONE, 116),
        (Start { target: 0x1003, root: 0x9000, ..a_dump() }, Status::VM_GONE, 116),
        (Start { root: 0x9000, ..a_dump() }, Status::VM_GONE, 116),
        (Start { root: 0x9000, ..a_walk(0x1000) }, Status::VM_GONE, 116),
        (Start { start: 1, ..a_dump() }, Status::BAD_RANGE, 34),
        (Start { start: SPACE, ..a_dump() }, Status::BAD_RANGE, 34),
        (Start { start: 0x2000, end: 0x1000, ..a_dump() }, Status::BAD_RANGE, 34),
    ];
    for (mut start, status, errno) in cases {
        let (mut session, mut fake) = (session(), fake(9));
        // 0x1002 is reserved; 0x1003 is one the host still sees while EL2 has let it go.
        fake.host_vms.extend([host_vm(0x1002, 7, 0), host_vm(0x1003, 8, vm_flags::CREATED), host_vm(0, 9, 0)]);
        session.start(&mut fake, &mut a_dump()).expect("a dump before");
        let error = session.start(&mut fake, &mut start).expect_err("refused");
        assert_eq!((error, error.to_errno()), (SessionError::Refused(status), Errno(errno)), "{start:?}");
        assert_eq!(start.status, status.0, "told beside the errno");
        assert_eq!((session, fake.held), (self::session(), Vec::new()));
    }
}

#[test]
fn bad_no_memory_for_the_list() {
    let (mut session, mut fake) = (session(), fake(1));
    fake.no_memory = true;
    let error = session.start(&mut fake, &mut a_start(Op::LIST)).expect_err("no memory");
    assert_eq!(error.to_errno(), Errno(12));
    // The status is 0, because EL2 refused nothing.
    for mut start in [a_start(Op::LIST), a_dump()] {
        let error = session.start(&mut fake, &mut start).expect_err("no memory");
        assert_eq!((error.to_errno(), start.status), (Errno(12), 0));
    }
}

#[test]
fn bad_vm_gone_at_every_moment() {
    for kill_at in 0..9 {
        let (mut session, mut fake) = (session(), fake(9));
        fake.change_at = Some((kill_at, |fake| fake.guests.clear()));
        let started = session.start(&mut fake, &mut a_dump());
        if kill_at == 0 {
            assert_eq!(started, Err(SessionError::Refused(Status::NO_SUCH_VM)));
            continue;
        }
        let headers = read_mapped(&mut session, &mut fake, 3).expect("advance");
        let (end, ranges) = headers.split_last().expect("an END slot");
        assert_eq!((SlotKind(end.kind), Status(end.status)), (SlotKind::END, Status::VM_GONE));
        assert_eq!((end.sequence, ranges.len() as u64), (kill_at, kill_at));
        assert_eq!(end.next, ranges.last().expect("a chunk").next);
        assert!(fake.held.is_empty());
    }
}

#[test]
fn bad_handle_reused_in_mid_dump() {
    for reuse_at in 1..9 {
        let (mut session, mut fake) = (session(), fake(9));
        fake.change_at = Some((reuse_at, |fake| fake.guests[0].root += 0x1000));
        session.start(&mut fake, &mut a_dump()).expect("start");
        let headers = read_stream(&mut session, &mut fake).expect("read");
        let (end, ranges) = headers.split_last().expect("an END slot");
        assert_eq!((Status(end.status), ranges.len() as u64), (Status::VM_GONE, reuse_at));
        assert!(ranges.iter().all(|header| header.root == 0x8000_0000), "no chunk of the other VM");
    }
}

/// The host's reference, held from the list or the start until the last call, keeps the handle from being given to another
/// VM, whose table may have the same address.
#[test]
fn good_vm_is_held_for_all_calls() {
    for calls in [1, 5] {
        let (mut session, mut fake) = (session(), fake(calls));
        session.start(&mut fake, &mut a_dump()).expect("start");
        while let Some(unread) = session.next_unread(&mut fake).expect("read") {
            assert_eq!(fake.held.len(), usize::from(fake.calls < calls));
            session.consume(unread, unread.len_bytes);
        }
    }
}

/// A start means the VM of the list, not the one that has its handle by now. It releases all others.
#[test]
fn good_vm_of_the_list_is_held() {
    let (mut session, mut fake) = (session(), fake(9));
    fake.host_vms.push(host_vm(0x1001, 7, 0));
    session.start(&mut fake, &mut a_start(Op::LIST)).expect("start");
    read_stream(&mut session, &mut fake).expect("read");
    assert_eq!(fake.held.len(), 2, "a start of one of them may follow");
    fake.host_vms[0].pid = 101;
    session.start(&mut fake, &mut a_dump()).expect("start");
    assert_eq!(fake.held.iter().map(|vm| vm.pid).collect::<Vec<_>>(), [100]);
}

/// The rows of another table are no slot, and not to be seen in the mapping either.
#[test]
fn bad_slot_of_another_table_is_erased() {
    let (mut session, mut fake) = (session(), fake(9));
    session.start(&mut fake, &mut Start { root: 0x9000, ..a_dump() }).expect_err("another table");
    assert_eq!(fake.slots[0], [0; SLOT_BYTES]);
}

#[test]
fn bad_status_of_an_earlier_refusal_is_not_told_again() {
    let (mut session, mut fake) = (session(), fake(9));
    let mut start = Start { status: 9, ..a_start(Op(8)) };
    session.start(&mut fake, &mut start).expect_err("unknown operation");
    assert_eq!(start.status, 0);
}

#[test]
fn bad_vm_the_host_does_not_list() {
    let (mut session, mut fake) = (session(), fake(9));
    fake.host_vms.clear();
    let error = session.start(&mut fake, &mut a_dump()).expect_err("no VM");
    assert_eq!((error, fake.calls), (SessionError::Refused(Status::NO_SUCH_VM), 0), "EL2 is not asked");
}

#[test]
fn bad_answer_about_another_target() {
    let (mut session, mut fake) = (session(), fake(9));
    fake.spoil = Some(|_, slot| slot[32] ^= 1);
    let error = session.start(&mut fake, &mut a_dump()).expect_err("another table");
    assert_eq!(error, SessionError::Refused(Status::BAD_ANSWER));
}

/// The slot with the flag is given out, it is the last, and END does not say OK.
#[test]
fn bad_vm_dying_at_every_moment() {
    for dying_at in 0..9 {
        let (mut session, mut fake) = (session(), fake(9));
        fake.change_at = Some((dying_at, |fake| fake.flags = slot_flags::DYING));
        session.start(&mut fake, &mut a_dump()).expect("start");
        let headers = read_mapped(&mut session, &mut fake, 3).expect("advance");
        let (end, ranges) = headers.split_last().expect("an END slot");
        assert_eq!((SlotKind(end.kind), Status(end.status)), (SlotKind::END, Status::VM_DYING));
        assert_eq!(ranges.len() as u64, dying_at + 1);
        assert_eq!(end.next, ranges.last().expect("a chunk").next);
    }
    let (mut session, mut fake) = (session(), fake(1));
    fake.flags = slot_flags::DYING;
    session.start(&mut fake, &mut a_walk(0x1000)).expect("start");
    let headers = read_stream(&mut session, &mut fake).expect("read");
    assert_eq!(headers.last().map(|end| Status(end.status)), Some(Status::VM_DYING), "a walk too");
}

#[test]
fn good_end_slot_tells_the_longest_hold() {
    let (mut session, mut fake) = (session(), fake(3));
    session.start(&mut fake, &mut a_dump()).expect("start");
    let headers = read_stream(&mut session, &mut fake).expect("read");
    let holds: Vec<_> = headers.iter().map(|header| (header.held_ticks, header.tick_hz)).collect();
    assert_eq!(holds, [(11, 1000), (12, 1000), (10, 1000), (12, 1000)]);
}

/// Otherwise a reader that does not handle the signal would ask again and again, and get nothing.
#[test]
fn good_something_is_filled_whatever_waits() {
    let (mut session, mut fake) = (session(), fake(9));
    session.start(&mut fake, &mut a_dump()).expect("start");
    fake.interrupt_at = Some(0);
    fake.guests.clear();
    let mut release = 0;
    for _ in 0..2 {
        let mut advance = an_advance(release);
        session.advance(&mut fake, &mut advance).expect("advance");
        assert_ne!((advance.filled, advance.state), (0, SessionState::RUNNING));
        release = advance.filled;
    }
}

#[test]
fn good_signal_stops_after_one_call_and_loses_nothing() {
    let (mut session, mut fake) = (session(), fake(9));
    fake.interrupt_at = Some(0);
    session.start(&mut fake, &mut a_dump()).expect("start");
    let mut advance = an_advance(0);
    session.advance(&mut fake, &mut advance).expect("partial");
    assert_eq!((advance.filled, fake.calls), (2, 2), "one by the start, one by the advance");
    fake.lent = vec![0, 1];
    let mut advance = an_advance(0);
    session.advance(&mut fake, &mut advance).expect("partial");
    assert_eq!((advance.filled, fake.calls), (3, 3));
    fake.interrupt_at = None;
    check_dump(&read_mapped(&mut session, &mut fake, 4).expect("advance"), SPACE);
}

#[test]
fn good_atomic_is_one_call() {
    let (mut session, mut fake) = (session(), fake(1));
    session.start(&mut fake, &mut Start { flags: DumpFlags::ATOMIC.0, ..a_dump() }).expect("start");
    assert_eq!(read_stream(&mut session, &mut fake).expect("read").len(), 2);
}

#[test]
fn bad_answers_of_el2() {
    let cases: [(&str, Spoil, i32); 8] = [
        ("no such hypercall", |regs, _| regs[0] = u64::MAX, 95),
        ("gate off", |regs, _| regs[1] = 1, 1),
        ("status from the future", |regs, _| regs[1] = 99, 5),
        ("status of 64 bits", |regs, _| regs[1] = 1 << 32, 5),
        ("no progress", |regs, _| regs[2] = 0, 5),
        ("no slot", |_, slot| slot[0] = 0, 5),
        ("header too small", |_, slot| slot[8] = 127, 5),
        ("records beyond the slot", |_, slot| slot[17] = 1, 5),
    ];
    for (name, spoil, errno) in cases {
        let (mut first, mut fake) = (session(), fake(9));
        fake.spoil = Some(spoil);
        let error = first.start(&mut fake, &mut a_dump()).expect_err(name);
        assert_eq!((error.to_errno(), first), (Errno(errno), session()), "{name}");

        // After a good first chunk the same failure is not an errno, but the status of the END slot.
        let (mut late, mut fake) = (session(), self::fake(9));
        late.start(&mut fake, &mut a_dump()).expect("start");
        fake.spoil = Some(spoil);
        let headers = read_stream(&mut late, &mut fake);
        let headers = headers.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let end = headers.last().expect("an END slot");
        assert_eq!((headers.len(), SlotKind(end.kind)), (2, SlotKind::END), "{name}");
        assert_ne!(end.status, 0, "{name}");
    }
}

#[test]
fn bad_hello_of_another_version() {
    let mut fake = fake(1);
    fake.spoil = Some(|regs, _| regs[2] = 9 << 16);
    let mut hello = a_hello();
    let error = session().hello(&mut fake, &mut hello).expect_err("version");
    assert_eq!((error.to_errno(), hello.status), (Errno::EPROTO, Status::VERSION_MISMATCH.0));
}

/// A caller of another version learns the driver's version, and sees that EL2 refused nothing.
#[test]
fn bad_hello_of_another_caller() {
    for (size, version, errno) in [(64, 1 << 16, Errno::EPROTO), (63, ABI_VERSION.to_bits(), Errno::EINVAL)] {
        let mut hello = Hello { size, version, ..a_hello() };
        let error = session().hello(&mut fake(1), &mut hello).expect_err("refused");
        assert_eq!((error.to_errno(), hello.version, hello.status), (errno, ABI_VERSION.to_bits(), 0));
    }
}

#[test]
fn bad_hello_with_the_gate_shut() {
    let mut fake = fake(1);
    fake.spoil = Some(|regs, _| regs[1] = 1);
    let mut hello = a_hello();
    let error = session().hello(&mut fake, &mut hello).expect_err("gate");
    assert_eq!((error.to_errno(), hello.status), (Errno(1), Status::NOT_PERMITTED.0), "not for lack of root");
}

/// Reads a list that was started to its end.
fn read_list(session: &mut Session, fake: &mut Fake) -> Vec<VmRecord> {
    let mut records = Vec::new();
    while let Some(unread) = session.next_unread(fake).expect("read") {
        if SlotKind(fake.header(unread.slot).kind) == SlotKind::VMS {
            records.extend(fake.vm_records(unread.slot));
        }
        session.consume(unread, unread.len_bytes);
    }
    records
}

#[test]
fn good_list_merges_both_sides() {
    let (mut session, mut fake) = (session(), fake(1));
    // EL2: two that ran, one of them unknown to the host. Host: also a reserved one, two without a handle, one gone.
    fake.guests.push(Guest { handle: 0x1004, root: 0x9000_0000 });
    fake.host_vms.extend([
        host_vm(0x1002, 7, vm_flags::PROTECTED),
        host_vm(0, 8, 0),
        host_vm(0, 8, vm_flags::PROTECTED),
        host_vm(0x1003, 9, vm_flags::CREATED | vm_flags::DYING),
    ]);
    session.start(&mut fake, &mut a_start(Op::LIST)).expect("start");
    let records = read_list(&mut session, &mut fake);
    let seen: Vec<_> = records.iter().map(|vm| (vm.handle, vm.pid, vm.flags, vm.vcpus)).collect();
    let created = vm_flags::CREATED;
    let never_ran = [(0x1002, 7, vm_flags::PROTECTED, 0), (0, 8, 0, 0), (0, 8, vm_flags::PROTECTED, 0)];
    assert_eq!(seen, [&[(0x1000, 100, created, 1), (0x1004, 0, created, 1)], &never_ran[..]].concat());
    assert_eq!(&records[0].name[..6], b"100-5\0");
    assert_eq!(records[1].name, [0; 24]);
}

#[test]
fn good_list_of_all_handles_and_of_none() {
    for (ran, reserved) in
        [(0, 0), (0, 1), (0, 62), (0, 63), (61, 1), (62, 0), (63, 63), (128, 127), (255, 0), (0, 255)]
    {
        let (mut session, mut fake) = (session(), fake(1));
        fake.guests = (0..ran).map(|i| Guest { handle: 0x1000 + i, root: 0 }).collect();
        fake.host_vms = (0..ran + reserved)
            .map(|i| host_vm(0x1000 + i, u32::from(i), if i < ran { vm_flags::CREATED } else { 0 }))
            .collect();
        session.start(&mut fake, &mut a_start(Op::LIST)).expect("start");
        let mut handles = Vec::new();
        let mut kinds = Vec::new();
        while let Some(unread) = session.next_unread(&mut fake).expect("read") {
            kinds.push(SlotKind(fake.header(unread.slot).kind));
            handles.extend(fake.vm_records(unread.slot).iter().map(|vm| (vm.handle, vm.pid)));
            session.consume(unread, unread.len_bytes);
        }
        let wanted: Vec<_> = (0..ran + reserved).map(|i| (0x1000 + i, u32::from(i))).collect();
        assert_eq!(handles, wanted, "{ran} ran, {reserved} reserved");
        assert_eq!(kinds.pop(), Some(SlotKind::END));
        assert!(kinds.iter().all(|kind| *kind == SlotKind::VMS));
    }
}

/// The host gives the handle at the first run, which is after it looked, and before EL2 is asked.
#[test]
fn good_list_has_a_vm_once_that_gets_its_handle_meanwhile() {
    let (mut session, mut fake) = (session(), fake(1));
    fake.host_vms = vec![host_vm(0, 100, vm_flags::PROTECTED), host_vm(0, 101, 0)];
    fake.change_at = Some((0, |fake| fake.host_vms[0].handle = 0x1000));
    session.start(&mut fake, &mut a_start(Op::LIST)).expect("start");
    let records = read_list(&mut session, &mut fake);
    let seen: Vec<_> = records.iter().map(|vm| (vm.handle, vm.pid)).collect();
    assert_eq!(seen, [(0x1000, 100), (0, 101)]);
}

#[test]
fn good_list_does_not_lose_a_vm_that_starts_to_run() {
    let (mut session, mut fake) = (session(), fake(1));
    // The VM has not run when the host looks, but has when EL2 is asked. It is in the list once, as EL2 describes it.
    fake.host_vms = vec![host_vm(0x1000, 100, 0)];
    session.start(&mut fake, &mut a_start(Op::LIST)).expect("start");
    let unread = session.next_unread(&mut fake).expect("read").expect("a slot");
    assert_eq!(fake.vm_records(unread.slot).len(), 1);
    session.consume(unread, unread.len_bytes);
    let unread = session.next_unread(&mut fake).expect("read").expect("END");
    assert_eq!(SlotKind(fake.header(unread.slot).kind), SlotKind::END);
}
