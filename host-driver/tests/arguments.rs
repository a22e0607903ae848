// SPDX-License-Identifier: GPL-2.0-only
//! Every way an ioctl argument can be wrong.

mod fake;

use fake::{a_dump, a_hello, a_start, an_advance};
use s2dump_abi::hypercall::{DumpFlags, Op};
use s2dump_abi::ioctl::{self, Start};
use s2dump_abi::target::{Identity, Place, Target};
use s2dump_abi::version::{AbiVersion, ABI_VERSION};
use s2dump_host_driver::argument::{check_advance, check_hello, check_start, ArgumentError, Command, Request};
use s2dump_host_driver::errno::Errno;

fn bad_start(change: impl FnOnce(&mut Start)) -> ArgumentError {
    let mut start = a_dump();
    change(&mut start);
    check_start(&start).expect_err("the change makes it bad")
}

#[test]
fn good_commands() {
    assert_eq!(Command::parse(ioctl::HELLO), Ok(Command::Hello));
    assert_eq!(Command::parse(ioctl::START), Ok(Command::Start));
    assert_eq!(Command::parse(ioctl::ADVANCE), Ok(Command::Advance));
}

#[test]
fn bad_command_sizes_are_told_apart_from_unknown_commands() {
    for number in [ioctl::HELLO, ioctl::START, ioctl::ADVANCE] {
        let size = (number >> 16) & 0x3fff;
        let with = |size: u32| (number & 0xc000_ffff) | (size << 16);
        assert_eq!(Command::parse(with(size + 1)), Err(ArgumentError::TooLarge(size + 1)));
        assert_eq!(Command::parse(with(0x3fff)), Err(ArgumentError::TooLarge(0x3fff)));
        assert_eq!(Command::parse(with(size - 1)), Err(ArgumentError::TooSmall(size - 1)));
        assert_eq!(Command::parse(with(0)), Err(ArgumentError::TooSmall(0)));
        assert_eq!(Command::is_hello(with(8)), number == ioctl::HELLO, "whatever its size");
        assert!(!Command::is_hello(with(7)), "no room for a version");
    }
}

#[test]
fn bad_commands() {
    // Another type, number, direction; TCGETS, which every program tries.
    for number in [ioctl::HELLO ^ 0x100, ioctl::ADVANCE + 1, ioctl::START & 0x3fff_ffff, 0x5401, 0, u32::MAX] {
        assert_eq!(Command::parse(number), Err(ArgumentError::UnknownCommand(number)), "{number:#x}");
    }
}

#[test]
fn bad_sizes() {
    for (size, errno) in [(0, Errno::EINVAL), (95, Errno::EINVAL), (97, Errno::E2BIG), (u32::MAX, Errno::E2BIG)] {
        assert_eq!(bad_start(|start| start.size = size).to_errno(), errno);
    }
    for (size, errno) in [(0, Errno::EINVAL), (63, Errno::EINVAL), (65, Errno::E2BIG), (u32::MAX, Errno::E2BIG)] {
        let mut hello = a_hello();
        hello.size = size;
        assert_eq!(check_hello(&hello).expect_err("bad").to_errno(), errno);
    }
    for (size, errno) in [(0, Errno::EINVAL), (31, Errno::EINVAL), (33, Errno::E2BIG), (64, Errno::E2BIG)] {
        let mut advance = an_advance(0);
        advance.size = size;
        assert_eq!(check_advance(&advance).expect_err("bad").to_errno(), errno);
    }
}

#[test]
fn bad_versions() {
    for major in [0, ABI_VERSION.major + 1, u16::MAX] {
        let version = AbiVersion { major, minor: 0 }.to_bits();
        assert_eq!(bad_start(|start| start.version = version), ArgumentError::OtherVersion(version));
        let mut hello = a_hello();
        hello.version = version;
        assert_eq!(check_hello(&hello), Err(ArgumentError::OtherVersion(version)));
        let mut advance = an_advance(0);
        advance.version = version;
        assert_eq!(check_advance(&advance).map_err(ArgumentError::to_errno), Err(Errno::EPROTO));
    }
}

#[test]
fn good_any_minor() {
    let version = AbiVersion { major: ABI_VERSION.major, minor: u16::MAX }.to_bits();
    assert!(check_start(&Start { version, ..a_dump() }).is_ok());
}

#[test]
fn bad_reserved_fields() {
    for word in 0..6 {
        let mut hello = a_hello();
        hello.reserved[word] = 1 << 31;
        assert_eq!(check_hello(&hello), Err(ArgumentError::NotZero));
    }
    for word in 0..2 {
        let mut advance = an_advance(0);
        advance.reserved[word] = 1;
        assert_eq!(check_advance(&advance), Err(ArgumentError::NotZero));
    }
    for word in 0..2 {
        assert_eq!(bad_start(|start| start.reserved[word] = 1), ArgumentError::NotZero);
    }
    for word in 0..3 {
        assert_eq!(bad_start(|start| start.places[word] = 1), ArgumentError::NotZero, "places of a dump");
    }
}

#[test]
fn good_out_fields_hold_anything() {
    let mut advance = an_advance(3);
    (advance.first, advance.filled, advance.state) = (1, 2, 3);
    assert_eq!(check_advance(&advance), Ok(3));
    assert!(check_start(&Start { status: 9, ..a_dump() }).is_ok(), "that of an earlier refusal");
    let mut hello = a_hello();
    (hello.status, hello.features, hello.slots) = (9, 1, 1);
    assert_eq!(check_hello(&hello), Ok(()));
}

#[test]
fn bad_operations() {
    // HELLO is no start.
    for op in [Op::HELLO.0, 7, u32::MAX] {
        let error = bad_start(|start| start.op = op);
        assert_eq!((error, error.to_errno()), (ArgumentError::UnknownOp(op), Errno::EOPNOTSUPP));
    }
}

#[test]
fn bad_flags() {
    assert_eq!(bad_start(|start| start.flags = 1 << 5), ArgumentError::UnknownFlag(32));
    let packed = DumpFlags::PACKED.0;
    assert_eq!(bad_start(|start| start.flags = packed), ArgumentError::UnknownFlag(packed), "and not exact");
    assert_eq!(bad_start(|start| start.flags = u32::MAX), ArgumentError::UnknownFlag(!DumpFlags::KNOWN.0));
    for op in [Op::LIST, Op::WALK, Op::FRAMES, Op::FACTS, Op::EXAMINE, Op::MEMORY] {
        let start = Start { flags: DumpFlags::EXACT.0, ..a_start(op) };
        assert_eq!(check_start(&start), Err(ArgumentError::UnknownFlag(1)));
    }
}

#[test]
fn bad_targets() {
    assert_eq!(bad_start(|start| start.target = 3 << 56), ArgumentError::UnknownTarget(3 << 56));
    assert_eq!(bad_start(|start| start.target |= 0xff << 56), ArgumentError::UnknownTarget(0xff00_0000_0000_1000));
    for target in [Target::guest(0x1000), Target::HOST, Target::HYP] {
        assert_eq!(bad_start(|start| start.target = target.0 | 1 << 16), ArgumentError::NotZero);
        assert_eq!(bad_start(|start| start.target = target.0 | 1 << 55), ArgumentError::NotZero);
    }
    for target in [Target::HOST, Target::HYP] {
        assert_eq!(bad_start(|start| start.target = target.0 | 0x1000), ArgumentError::NotZero, "there is only one");
        let memory = Start { target: target.0, ..a_start(Op::MEMORY) };
        assert_eq!(check_start(&memory), Err(ArgumentError::UnknownTarget(target.0)), "no VM");
    }
}

#[test]
fn bad_fields_that_an_operation_does_not_take() {
    let [list, walk] = [Op::LIST, Op::WALK].map(a_start);
    let [frames, facts, examine] = [Op::FRAMES, Op::FACTS, Op::EXAMINE].map(a_start);
    let memory = Start { target: 0x1000, ..a_start(Op::MEMORY) };
    let bad = [
        Start { target: 1, ..list },
        Start { root: 1, ..list },
        Start { start: 1, ..list },
        Start { end: 1, ..list },
        Start { budget: 1, ..list },
        Start { places: [0, 0, 1], ..list },
        Start { end: 1, ..walk },
        Start { budget: 1, ..walk },
        Start { places: [1, 0, 0], ..walk },
        Start { target: 1, ..frames },
        Start { target: Target::HOST.0, ..frames },
        Start { root: 1, ..frames },
        Start { places: [0, 1, 0], ..frames },
        Start { target: 1, ..facts },
        Start { root: 1, ..facts },
        Start { start: 1, ..facts },
        Start { end: 1, ..facts },
        Start { budget: 1, ..facts },
        Start { places: [0, 0, 1], ..facts },
        Start { target: 1, ..examine },
        Start { root: 1, ..examine },
        Start { end: 1, ..examine },
        Start { budget: 1, ..examine },
        Start { target: 1 << 16, ..memory },
        Start { root: 1, ..memory },
        Start { start: 1, ..memory },
        Start { end: 1, ..memory },
        Start { budget: 1, ..memory },
        Start { places: [0, 0, 1], ..memory },
    ];
    for start in bad {
        assert_eq!(check_start(&start), Err(ArgumentError::NotZero), "{start:?}");
    }
}

#[test]
fn good_requests() {
    let table = |handle, root| Identity { target: Target::guest(handle), root };
    let walk = Start { target: 0x10fe, root: 0x4000, start: 0x8000_0123, ..a_start(Op::WALK) };
    assert_eq!(check_start(&walk), Ok(Request::Walk { table: table(0x10fe, 0x4000), address: 0x8000_0123 }));
    assert_eq!(check_start(&a_start(Op::LIST)), Ok(Request::List));
    let dump = Start { flags: 31, start: 0x1000, end: 0x2000, budget: 9, ..a_dump() };
    let flags = DumpFlags::KNOWN;
    let request = Request::Dump { flags, table: table(0x1000, 0), start: 0x1000, end: 0x2000, budget: 9 };
    assert_eq!(check_start(&dump), Ok(request));
    for target in [Target::HOST, Target::HYP] {
        let walk = Start { target: target.0, root: 0x5000, start: 0x123, ..a_start(Op::WALK) };
        assert_eq!(check_start(&walk), Ok(Request::Walk { table: Identity { target, root: 0x5000 }, address: 0x123 }));
    }
    let frames = Start { start: 0x1000, end: u64::MAX, budget: 9, ..a_start(Op::FRAMES) };
    assert_eq!(check_start(&frames), Ok(Request::Frames { start: 0x1000, end: u64::MAX, budget: 9 }));
    assert_eq!(check_start(&a_start(Op::FACTS)), Ok(Request::Facts));
    let memory = Start { target: 0x10fe, ..a_start(Op::MEMORY) };
    assert_eq!(check_start(&memory), Ok(Request::Memory { table: table(0x10fe, 0) }));
    let examine = Start { start: 0x4000, places: [1, u64::MAX, 0], ..a_start(Op::EXAMINE) };
    let places = [Place(1), Place(u64::MAX), Place::NONE];
    assert_eq!(check_start(&examine), Ok(Request::Examine { frame: 0x4000, places }));
}
