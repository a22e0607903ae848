// SPDX-License-Identifier: MIT OR Apache-2.0
//! The verbs on a device: what is asked, how failures end, that output does not depend on how slots come.

use super::fake::{Refusal, Script};
use super::support::*;
use super::{run_with, run_without_device, Ran, TempFile};
use crate::exit_code::ExitCode;
use s2dump_abi::hypercall::{DumpFlags, Op, Status};
use s2dump_abi::slot::{encoding, slot_flags, vm_flags, RecordKind, SlotHeader, SlotKind, VmRecord};
use s2dump_abi::target::Target;
use s2dump_abi::version::{features, AbiVersion};

fn list() -> Capture {
    let mut list = Capture::default();
    list.list(&three_vms()).clone()
}

/// The protected table in slots of `per_slot` records, as EL2 answers with `flags`.
fn dump(per_slot: usize, flags: u16, status: Status) -> Capture {
    let header = SlotHeader { flags: slot_flags::PROTECTED | flags, digest: 5, ..dump_header(0x1000, VTCR_40) };
    Capture::default().dump(header, &protected_table(), per_slot, status).clone()
}

fn exact(per_slot: usize) -> Capture {
    dump(per_slot, slot_flags::EXACT, Status::OK)
}

fn run(script: &Script, command_line: &str) -> Ran {
    run_with(command_line, &|| Ok(script.open()))
}

#[test]
fn list_names_all_vms() {
    let ran = run(&Script::new(list(), Capture::default()), "list -n");
    assert_eq!(ran.code, ExitCode::Ok, "{}", ran.err);
    let names: Vec<&str> = ran.out.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["vm:0x1000", "vm:0x1001", "vm:0x1002"]);
}

/// Lists that do not show which VMs there are, and what is said of each.
fn bad_lists() -> Vec<(Capture, &'static str)> {
    let header = SlotHeader { record_count: 3, record_bytes: 64, ..slot_header(SlotKind::VMS) };
    let records = three_vms();
    let of = |header: SlotHeader, status| Capture::default().slot(header, &records).end(0, 1, status).clone();
    vec![
        (
            Capture { bytes: list().bytes[..128 + 3 * 64].to_vec() },
            "the list of VMs is not whole: list: the end is missing",
        ),
        (Capture::default().slot(slot_header(SlotKind(99)), &records[..0]).clone(), "is not whole: its end is missing"),
        (of(header, Status::BAD_ANSWER), "list: EL2 gave an answer the driver does not take"),
        (
            of(SlotHeader { sequence: 1, ..header }, Status::OK),
            "is not whole: list: slot 1 follows, where slot 0 was due",
        ),
    ]
}

#[test]
fn half_a_list_names_no_vm() {
    for (half, text) in bad_lists() {
        for command in ["dump vm:430-9", "dump vm:421-11", "walk vm:0x1000 0", "capture -O -"] {
            let script = Script::new(half.clone(), exact(3));
            let ran = run(&script, command);
            assert_eq!((ran.code, ran.out.as_str()), (ExitCode::UsageOrIo, ""), "{command}: {}", ran.err);
            assert!(ran.err.contains(text), "{command}: {}", ran.err);
            assert_eq!(script.started.borrow().len(), 1, "{command}: the list only");
        }
    }
}

#[test]
fn dump_asks_for_what_was_typed() {
    let script = Script::new(list(), dump(3, slot_flags::DIGEST, Status::OK));
    let ran = run(&script, "dump vm:421-11 --range 2G+2M --exact --verify --budget 77");
    assert_eq!(ran.code, ExitCode::Ok, "{}", ran.err);
    let started = script.started.borrow();
    let ops: Vec<u32> = started.iter().map(|start| start.op).collect();
    assert_eq!(ops, [Op::LIST.0, Op::DUMP.0, Op::LIST.0, Op::DUMP.0]);
    let start = started[1];
    assert_eq!(start.target, Target::guest(0x1000).0);
    assert_eq!((start.start, start.end, start.budget), (0x8000_0000, 0x8020_0000, 77));
    assert_eq!(start.flags, DumpFlags::EXACT.union(DumpFlags::DIGEST).0);
    assert_eq!(started[3], start, "the second pass asks for the same");
}

#[test]
fn dump_of_all_is_folded_and_leaves_the_budget_to_el2() {
    let script = Script::new(list(), exact(3));
    assert_eq!(run(&script, "dump vm:0x1000").code, ExitCode::Ok);
    let start = script.started.borrow()[1];
    assert_eq!((start.start, start.end, start.budget, start.flags), (0, u64::MAX, 0, 0));
}

/// Where slots end depends on the budget; the rows must not.
#[test]
fn rows_do_not_depend_on_the_slots() {
    for format in ["table -n", "ptdump", "ptdump-v10", "ptdump-android", "ndjson", "table -n --exact"] {
        let rows = |ran: Ran| {
            assert_eq!(ran.code, ExitCode::Ok, "{}", ran.err);
            ran.out.lines().filter(|line| !line.contains("\"trailer\"")).map(str::to_owned).collect::<Vec<_>>()
        };
        let command = format!("dump vm:0x1000 --format {format}");
        let whole = rows(run(&Script::new(list(), exact(200)), &command));
        assert!(whole.len() > 6, "{whole:?}");
        for (per_slot, ring, at_once) in [(1, 1, 1), (1, 2, 2), (2, 3, 2), (3, 64, 64), (4, 3, 1)] {
            let script = Script { ring, at_once, ..Script::new(list(), exact(per_slot)) };
            assert_eq!(rows(run(&script, &command)), whole, "{format}, {per_slot} rows a slot, ring of {ring}");
        }
    }
}

#[test]
fn dump_equals_dump_of_its_capture() {
    let mut bytes = list();
    bytes.bytes.extend(exact(2).bytes);
    let file = TempFile::new("same", &bytes.bytes);
    for options in ["", " --exact", " --format ptdump", " --format json"] {
        let live = run(&Script::new(list(), exact(2)), &format!("dump vm:0x1000{options}"));
        let saved = run_without_device(&format!("dump -i {} vm:0x1000{options}", file.path()));
        assert_eq!((live.code, live.out), (saved.code, saved.out));
    }
}

#[test]
fn walk_shows_each_level() {
    let table = |ia, level, oa| run_of(ia, level, RecordKind::TABLE, oa, oa | 3);
    let steps = [
        table(0x8000_0000, 1, 0x4200_1000),
        table(0x8000_0000, 2, 0x4200_2000),
        leaves(0x8000_8000, 3, 1, 0x5000_0000, PAGE),
    ];
    let header =
        SlotHeader { kind: SlotKind::WALK.0, record_count: 3, start: 0x8000_8123, ..dump_header(0x1000, VTCR_40) };
    let walk = Capture::default().slot(header, &steps).end(header.target, 1, Status::OK).clone();
    let script = Script::new(list(), walk);
    let ran = run(&script, "walk vm:421-11 0x8000_8123");
    assert_eq!(ran.code, ExitCode::Ok, "{}", ran.err);
    let start = script.started.borrow()[1];
    assert_eq!((start.op, start.start, start.end), (Op::WALK.0, 0x8000_8123, 0));
    let expected = "\
vm:0x1000 input address 0x80008123
LV TABLE              INDEX DESCRIPTOR         MEANING
L1 0x0000000041000000     2 0x0000000042001003 table -> 0x42001000
L2 0x0000000042001000     0 0x0000000042002003 table -> 0x42002000
L3 0x0000000042002000     8 0x00000000500007ff page rwx normal-wb ish af owned -> 0x50000000
output address 0x50000123
";
    assert_eq!(ran.out, expected);
}

fn run_of(ia: u64, level: i8, kind: RecordKind, oa: u64, raw: u64) -> s2dump_abi::slot::Record {
    super::support::run(ia, level, 1, kind, oa, raw, 1)
}

#[test]
fn verify_finds_a_change() {
    let first = dump(3, slot_flags::DIGEST, Status::OK);
    let mut second = first.clone();
    second.bytes[80] ^= 1; // The digest of the first slot.
    let same = Script { starts: vec![Ok(first.clone()), Ok(first.clone())], ..Script::new(list(), first.clone()) };
    let ran = run(&same, "dump vm:0x1000 --verify");
    assert_eq!(ran.code, ExitCode::Ok, "{}", ran.err);
    assert!(ran.out.contains("a second pass found it unchanged"), "{}", ran.out);

    let changed = Script { starts: vec![Ok(first.clone()), Ok(second)], ..Script::new(list(), first) };
    let ran = run(&changed, "dump vm:0x1000 --verify --format ptdump");
    assert_eq!(ran.code, ExitCode::Finding);
    assert!(ran.err.contains("the table changed between two passes"), "{}", ran.err);
    let ran = run(&changed, "dump vm:0x1000 --verify --format json");
    assert_eq!(ran.code, ExitCode::Finding);
    assert!(ran.out.contains("\"verify\":\"changed\""), "{}", ran.out);
}

/// A driver that ignores DIGEST, or a VM that goes away, must not pass as "unchanged"; the rows are whole all the same.
#[test]
fn verify_that_fails_is_partial() {
    let first = dump(3, slot_flags::DIGEST, Status::OK);
    let gone = Script { starts: vec![Ok(first.clone()), Err(Status::NO_SUCH_VM.into())], ..Script::new(list(), first) };
    let first = dump(3, slot_flags::DIGEST, Status::OK);
    let dying = dump(3, slot_flags::DIGEST | slot_flags::DYING, Status::VM_DYING);
    let dying = Script { starts: vec![Ok(first.clone()), Ok(dying)], ..Script::new(list(), first) };
    for (script, text) in [
        (Script::new(list(), exact(3)), "no digest, or no end"),
        (gone, "no such VM"),
        (dying, "INCOMPLETE: the VM is being torn down"),
    ] {
        let ran = run(&script, "dump vm:0x1000 --verify --format json");
        assert_eq!(ran.code, ExitCode::Partial, "{}", ran.out);
        assert!(ran.out.contains("\"verify\":\"failed\"") && ran.out.ends_with("}\n"), "{}", ran.out);
        assert!(ran.err.contains("the second pass failed") && ran.err.contains(text), "{}", ran.err);
    }
}

/// The driver lets the VM go after the first pass: a stranger with its handle, and even its root, is not "changed".
#[test]
fn verify_is_of_the_vm_that_was_listed() {
    let first = dump(3, slot_flags::DIGEST, Status::OK);
    let mut second = first.clone();
    second.bytes[80] ^= 1; // The digest of the first slot.
    let script = Script { starts: vec![Ok(first.clone()), Ok(second)], ..Script::new(list(), first) };
    let listed = |change: fn(&mut VmRecord)| {
        let mut vms = three_vms();
        change(&mut vms[0]);
        Ok(Capture::default().list(&vms).clone())
    };
    let more_vcpus = Script { lists_again: vec![listed(|vm| vm.vcpus += 1)], ..script.clone() };
    assert_eq!(run(&more_vcpus, "dump vm:0x1000 --verify").code, ExitCode::Finding);
    let others: [fn(&mut VmRecord); 4] =
        [|vm| vm.pid = 77, |vm| vm.name[0] = b'9', |vm| vm.root += 0x1000, |vm| vm.handle = 0x1005];
    let lists = others.into_iter().map(|change| (listed(change), "the VM went away"));
    let bad = bad_lists().into_iter().map(|(list, text)| (Ok(list), text));
    let refused = [(Err(Refusal::by_kernel(12)), "start: Cannot allocate memory")];
    for (again, text) in lists.chain(bad).chain(refused) {
        let script = Script { lists_again: vec![again], started: std::rc::Rc::default(), ..script.clone() };
        let ran = run(&script, "dump vm:0x1000 --verify --format json");
        assert_eq!(ran.code, ExitCode::Partial, "{}", ran.err);
        assert!(ran.out.contains("\"verify\":\"failed\"") && ran.out.contains("\"complete\":true"), "{}", ran.out);
        assert!(ran.err.contains("the second pass failed") && ran.err.contains(text), "{}", ran.err);
        assert_eq!(script.started.borrow().len(), 3, "list, dump, list: {text}");
    }
}

/// A second pass that misses slots is not "changed", nor "same".
#[test]
fn verify_counts_what_is_wrong_with_the_second_pass() {
    let first = dump(3, slot_flags::DIGEST, Status::OK);
    for other_digest in [0, 1] {
        let mut second = first.clone();
        second.bytes[80] ^= other_digest;
        second.bytes[116] = 1; // A reserved field of the first slot.
        let script = Script { starts: vec![Ok(first.clone()), Ok(second)], ..Script::new(list(), first.clone()) };
        let ran = run(&script, "dump vm:0x1000 --verify --format json");
        assert_eq!(ran.code, ExitCode::Partial, "{}", ran.err);
        assert!(ran.out.contains("\"verify\":\"failed\""), "{}", ran.out);
        assert!(ran.err.contains("reserved fields") && ran.err.contains("problems in the input: 1"), "{}", ran.err);
    }
}

#[test]
fn refusals_have_their_codes() {
    let cases = [
        (Status::NOT_PERMITTED, ExitCode::NotPermitted, "kvm-arm.s2dump=on"),
        (Status::UNKNOWN_OP, ExitCode::Unsupported, "does not know"),
        (Status::NO_SUCH_VM, ExitCode::NoSuchVm, "no such VM"),
        (Status::VM_NOT_RUN, ExitCode::NoSuchVm, "never ran"),
        (Status::BAD_RANGE, ExitCode::UsageOrIo, "range"),
        (Status::TOO_BIG, ExitCode::Unsupported, "narrow it with --range"),
        (Status::VERSION_MISMATCH, ExitCode::Unsupported, "versions"),
        (Status::VM_GONE, ExitCode::Partial, "went away"),
    ];
    for (status, code, text) in cases {
        let script = Script::refusing(list(), status);
        for command in ["dump vm:0x1000", "dump vm:0x1000 --format json", "walk vm:0x1000 0"] {
            let ran = run(&script, command);
            assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{status:?} {command}: {}", ran.err);
            assert!(ran.err.contains(text), "{status:?} {command}: {}", ran.err);
            assert_eq!(ran.err.starts_with('{'), command.contains("json"), "{}", ran.err);
        }
        // The same as the status of an END slot, before any other.
        let end = Capture::default().end(Target::guest(0x1000).0, 0, status).clone();
        let ran = run(&Script::new(list(), end), "dump vm:0x1000");
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{status:?}: {}", ran.err);
    }
}

#[test]
fn an_address_beyond_the_space_is_told() {
    let script = Script::refusing(list(), Status::BAD_RANGE);
    for command in ["dump vm:0x1000 --range 1T+4K", "walk vm:0x1000 1T"] {
        let ran = run(&script, command);
        assert_eq!(ran.code, ExitCode::UsageOrIo);
        assert!(ran.err.contains("0x10000000000 is beyond its input addresses of 40 bits"), "{}", ran.err);
    }
}

#[test]
fn vm_gone_in_mid_dump_is_partial() {
    let mut slots = Capture::default();
    let header = dump_header(0x1000, VTCR_40);
    slots.ranges(header, &protected_table()[..4], 2).end(header.target, 2, Status::VM_GONE);
    for format in ["table", "ptdump", "json"] {
        let ran = run(&Script::new(list(), slots.clone()), &format!("dump vm:0x1000 --format {format}"));
        assert_eq!(ran.code, ExitCode::Partial, "{}", ran.err);
        assert!(ran.out.contains("80000000"), "the rows before are there: {}", ran.out);
        assert!(ran.err.contains("went away"), "{}", ran.err);
    }
}

#[test]
fn hello_decides() {
    let cases = [
        (Ok(()), ExitCode::Ok, ""),
        (Err(Status::NOT_PERMITTED.into()), ExitCode::NotPermitted, "boot with kvm-arm.s2dump=on"),
        (Err(Refusal::by_kernel(1)), ExitCode::NotPermitted, "run as root"),
        (Err(Refusal::by_kernel(12)), ExitCode::UsageOrIo, "hello: Cannot allocate memory"),
        (Err(Status::UNKNOWN_OP.into()), ExitCode::Unsupported, "does not know"),
        (
            Err(Status::VERSION_MISMATCH.into()),
            ExitCode::Unsupported,
            "EL2 and the driver of this kernel speak different",
        ),
    ];
    for (hello, code, text) in cases {
        let script = Script { hello, ..Script::new(list(), exact(3)) };
        let ran = run(&script, "list");
        assert_eq!(ran.code, code, "{hello:?}");
        assert!(ran.err.contains(text), "{hello:?}: {}", ran.err);
    }
    let script = Script { version: AbiVersion { major: 3, minor: 7 }, ..Script::new(list(), exact(3)) };
    assert_eq!(run(&script, "list").code, ExitCode::Ok, "any minor");
}

/// A driver of another major version is told from one that refuses, by the versions of both sides, whatever it says.
#[test]
fn other_majors_are_said_in_words() {
    let said = |script: Script| {
        let ran = run(&script, "dump vm:0x1000");
        assert_eq!((ran.code, ran.out.as_str()), (ExitCode::Unsupported, ""));
        ran.err
    };
    let newer = Script { version: AbiVersion { major: 4, minor: 1 }, ..Script::new(list(), exact(3)) };
    let is_4_1 = "the driver of this kernel speaks version 4.1 of the ABI, this s2dump 3.0";
    assert!(said(newer.clone()).contains(is_4_1));
    // EPROTO, E2BIG, EINVAL.
    for errno in [71, 7, 22] {
        let refusing = Script { hello: Err(Refusal::by_kernel(errno)), ..newer.clone() };
        assert!(said(refusing).contains(is_4_1), "errno {errno}");
    }
    // ENOTTY: a driver that has other ioctls, as that of version 1 had.
    let unknown = Script { hello: Err(Refusal::by_kernel(25)), ..Script::new(list(), exact(3)) };
    assert!(said(unknown.clone()).contains("no driver of s2dump that this version knows"));
    let old = Script { hello_1: Ok(AbiVersion { major: 1, minor: 1 }), ..unknown };
    let text = said(old);
    assert!(text.contains("speaks version 1.1 of the ABI, this s2dump 3.0"), "{text}");
    assert!(text.contains("use the s2dump that was built with this kernel"), "{text}");
}

/// An errno that several sides use means what the one that gave it means.
#[test]
fn errno_is_the_kernels_only_without_status() {
    let cases = [
        (Refusal::by_kernel(1), ExitCode::NotPermitted, "run as root"),
        (Refusal::from(Status::ATOMIC_NOT_PERMITTED), ExitCode::NotPermitted, "boot with kvm-arm.s2dump=on,atomic"),
        (Refusal::from(Status::NOT_PERMITTED), ExitCode::NotPermitted, "boot with kvm-arm.s2dump=on\n"),
        (Refusal::by_kernel(7), ExitCode::Unsupported, "the driver expects another request"),
        (Refusal::from(Status::TOO_BIG), ExitCode::Unsupported, "too big for one atomic call"),
        (Refusal::by_kernel(22), ExitCode::Unsupported, "the driver expects another request"),
        (Refusal::from(Status::UNKNOWN_FLAG), ExitCode::Unsupported, "does not know this operation or option"),
        (Refusal::by_kernel(2), ExitCode::UsageOrIo, "start: No such file"),
        (Refusal::from(Status::NO_SUCH_VM), ExitCode::NoSuchVm, "vm:0x1000: no such VM"),
        (Refusal::from(Status::VM_GONE), ExitCode::Partial, "went away"),
        (Refusal::from(Status::VM_DYING), ExitCode::Partial, "INCOMPLETE: the VM is being torn down"),
        (Refusal::from(Status::BAD_ANSWER), ExitCode::UsageOrIo, "a bug"),
        (Refusal { errno: 5, status: Status(99) }, ExitCode::UsageOrIo, "status 99, unknown to this s2dump"),
    ];
    for (refusal, code, text) in cases {
        let script = Script { starts: vec![Err(refusal)], ..Script::new(list(), exact(3)) };
        for command in ["dump vm:0x1000 --atomic", "walk vm:0x1000 0"] {
            let ran = run(&script, command);
            assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{refusal:?}: {}", ran.err);
            assert!(ran.err.contains(text), "{refusal:?}: {}", ran.err);
        }
    }
}

/// The root that the list told goes into each start, and what has no root in the list is not started.
#[test]
fn identity_goes_from_the_list_to_the_start() {
    let script = Script::new(list(), exact(3));
    for command in ["dump vm:0x1000", "dump vm:421-11", "walk vm:0x1000 0", "walk vm:421-11 0"] {
        run(&script, command);
        let start = *script.started.borrow().last().unwrap();
        assert_eq!((start.target, start.root), (0x1000, 0x4100_0000), "{command}");
    }
    for (command, text) in
        [("dump vm:0x1002", "never ran"), ("walk vm:430 0", "never ran"), ("dump vm:0x1003", "no such VM")]
    {
        let script = Script::new(list(), exact(3));
        let ran = run(&script, command);
        assert_eq!((ran.code, ran.out.as_str()), (ExitCode::NoSuchVm, ""), "{command}");
        assert!(ran.err.contains(text), "{command}: {}", ran.err);
        assert_eq!(script.started.borrow().len(), 1, "{command}: the list only");
    }
}

/// The dump of [`dump`], of a VM with another root from the slot at `from` on.
fn handle_reused(from: usize) -> Capture {
    let mut slots = exact(2);
    let mut at = 0;
    for slot in 0.. {
        let Ok((header, used)) = crate::frame::measure(&slots.bytes[at..]) else { break };
        if slot >= from && header.kind != SlotKind::END.0 {
            slots.bytes[at + 72..at + 80].copy_from_slice(&0x4200_0000_u64.to_le_bytes());
        }
        at += used;
    }
    slots
}

/// The VM that was listed is gone, and its handle is another's, when the dump begins: nothing of the stranger is shown, by
/// whichever name it was asked for, and nothing is stored.
#[test]
fn handle_reused_between_list_and_start() {
    let script = Script::new(list(), handle_reused(0));
    for name in ["vm:0x1000", "vm:421-11"] {
        for format in ["table", "ptdump", "json", "ndjson"] {
            let ran = run(&script, &format!("dump {name} --format {format}"));
            assert_eq!((ran.code, ran.out.as_str()), (ExitCode::Partial, ""), "{name} {format}");
            assert!(ran.err.contains("its handle now names a VM with its root at 0x42000000"), "{}", ran.err);
        }
    }
    let header =
        SlotHeader { kind: SlotKind::WALK.0, record_count: 1, root: 0x4200_0000, ..dump_header(0x1000, VTCR_40) };
    let walk = Capture::default().slot(header, &[hole(0, 1, 1)]).end(header.target, 1, Status::OK).clone();
    let ran = run(&Script::new(list(), walk), "walk vm:0x1000 0");
    assert_eq!((ran.code, ran.out.as_str()), (ExitCode::Partial, ""), "{}", ran.err);
    let file = TempFile::new("reused", b"an older file");
    let ran = run(&script, &format!("capture vm:0x1000 -O {}", file.path()));
    assert_eq!(ran.code, ExitCode::Partial, "{}", ran.err);
    assert_eq!(std::fs::read(&file.0).unwrap(), b"an older file");
}

/// The handle is given to another VM in mid-dump: the rows before stay, those of the stranger are not shown.
#[test]
fn handle_reused_between_two_slots() {
    let script = Script::new(list(), handle_reused(2));
    for format in ["table", "ptdump", "json", "ndjson"] {
        let ran = run(&script, &format!("dump vm:0x1000 --format {format}"));
        assert_eq!(ran.code, ExitCode::Partial, "{format}: {}", ran.err);
        assert!(ran.out.contains("80000000") && !ran.out.contains("80013000"), "{format}: {}", ran.out);
        assert!(ran.err.contains("vm:0x1000: the VM went away"), "{format}: {}", ran.err);
        if format == "json" {
            assert!(ran.out.contains("\"complete\":false") && ran.out.contains("\"status\":12"), "{}", ran.out);
        }
    }
    let ran = run(&script, "dump vm:0x1000 --verify");
    assert_eq!(ran.code, ExitCode::Partial, "{}", ran.err);
}

/// Teardown begins in mid-dump, or had begun: no format calls the dump complete or atomic, however it ends.
#[test]
fn dying_vm_is_never_complete() {
    let dying = |per_slot, status| dump(per_slot, slot_flags::DYING, status);
    // The last: teardown began after the last slot was read and before the driver ended the dump.
    for slots in [
        dying(2, Status::VM_DYING),
        dying(200, Status::VM_DYING),
        dying(2, Status::OK),
        dying(200, Status::OK),
        dump(200, 0, Status::VM_DYING),
    ] {
        let script = Script::new(list(), slots);
        for format in ["table", "table -n", "ptdump", "json", "ndjson"] {
            let ran = run(&script, &format!("dump vm:0x1000 --format {format}"));
            assert_eq!(ran.code, ExitCode::Partial, "{format}: {}", ran.err);
            assert!(ran.out.contains("80012000"), "{format}: what there is is shown: {}", ran.out);
            assert!(ran.err.contains("INCOMPLETE: the VM is being torn down"), "{format}: {}", ran.err);
            let all = ran.out + &ran.err;
            assert!(!all.contains("atomic") && !all.contains("\"complete\":true"), "{format}: {all}");
            if format == "table" {
                assert!(all.contains("# INCOMPLETE: the VM is being torn down"), "{all}");
            }
        }
        let ran = run(&script, "dump vm:0x1000 --verify --format json");
        assert!(ran.out.contains("\"verify\":\"skipped\""), "{}", ran.out);
        let ran = run(&script, "dump vm:0x1000 --verify");
        assert_eq!(ran.code, ExitCode::Partial, "{}", ran.err);
        assert!(ran.out.contains(" torn down; no second pass was made\n"), "{}", ran.out);
    }
}

#[test]
fn walk_of_a_dying_vm_says_so() {
    let header = dump_header(0x1000, VTCR_40);
    let flags = header.flags | slot_flags::DYING;
    let header = SlotHeader { kind: SlotKind::WALK.0, record_count: 1, flags, ..header };
    for status in [Status::VM_DYING, Status::OK] {
        let walk = Capture::default().slot(header, &[hole(0, 1, 1)]).end(header.target, 1, status).clone();
        let script = Script::new(list(), walk);
        let ran = run(&script, "walk vm:0x1000 0");
        assert_eq!(ran.code, ExitCode::Partial, "{}", ran.out);
        assert!(ran.out.contains("invalid: nothing mapped\nINCOMPLETE: the VM is being torn down"), "{}", ran.out);
        assert!(ran.err.contains("INCOMPLETE"), "{}", ran.err);
        assert!(run(&script, "walk vm:0x1000 0 --json").out.contains("\"dying\":true"));
    }
}

/// Without a name the only VM is meant; of several, all are told, because they are what could be typed.
#[test]
fn without_a_name_the_only_vm_is_meant() {
    let ran = |vms: &[VmRecord], command: &str| {
        let mut list = Capture::default();
        list.list(vms);
        run(&Script::new(list, exact(1)), command)
    };
    let created = vm_flags::CREATED;
    let (first, second, idle) = (vm(0x1000, "7-1", created), vm(0x1001, "8-1", created), vm(0x1002, "9-1", 0));
    for command in ["dump", "dump 0x1000", "dump 7", "dump 7-1", "dump vm:7"] {
        let ran = ran(&[first, idle], command);
        assert!(ran.code == ExitCode::Ok && ran.out.starts_with("# vm:0x1000 "), "{command}: {} {}", ran.out, ran.err);
    }
    let several = ran(&[first, second, idle], "dump");
    assert_eq!((several.code, several.out.as_str()), (ExitCode::UsageOrIo, ""));
    let told: Vec<&str> = several.err.lines().map(str::trim_start).collect();
    assert_eq!(told.len(), 5, "{}", several.err);
    assert_eq!(told[0], "s2dump: name a VM: there are 2");
    assert!(told[2].contains(" IPA    LEVELS ") && told[2].ends_with(" COMM"), "{}", several.err);
    assert!(told[3].contains(" 40-bit 1-3 "), "{}", several.err);
    assert!(told[2].starts_with("VM ") && told[4].starts_with("vm:0x1001 "), "{}", several.err);
    assert_eq!(ran(&[], "dump").code, ExitCode::NoSuchVm);
    let never_ran = ran(&[idle], "walk 0x1000");
    assert!(never_ran.code == ExitCode::NoSuchVm && never_ran.err.contains("never ran"), "{}", never_ran.err);
}

/// The list of a capture is in the error as that of a machine is, but for processes; without a list tables are named.
#[test]
fn several_vms_of_a_capture_are_listed() {
    let tables = |vms: &[VmRecord], targets: std::ops::Range<u16>| {
        let mut capture = Capture::default();
        if !vms.is_empty() {
            capture.list(vms);
        }
        for handle in targets {
            capture.dump(dump_header(handle, VTCR_40), &protected_table()[..1], 1, Status::OK);
        }
        let file = TempFile::new(&format!("several-{}", vms.len()), &capture.bytes);
        let ran = run_without_device(&format!("walk -i {} 2G", file.path()));
        assert_eq!((ran.code, ran.out.as_str()), (ExitCode::UsageOrIo, ""), "{}", ran.err);
        let said = ran.err.replace(&file.path().to_string(), "FILE");
        said.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    let vms = three_vms();
    let told = tables(&vms, 0x1000..0x1002);
    assert_eq!((told.len(), told[0].as_str()), (5, "s2dump: name a VM: FILE has 2"), "{told:?}");
    assert!(told[2].ends_with(" ROOT") && told[3].starts_with("vm:0x1000  421-11 "), "{told:?}");
    let many: Vec<VmRecord> = (0x1000..0x100a).map(|handle| vm(handle, "7-1", vm_flags::CREATED)).collect();
    assert_eq!(tables(&many, 0x1000..0x100a).len(), 13);
    let names: Vec<String> = (0x1000..0x1008).map(|handle| format!("vm:{handle:#x}")).collect();
    let names = names.join(", ");
    let by_name =
        |more: &str| [format!("s2dump: FILE is of several tables: {names}{more}"), "hint: name one of them".into()];
    assert_eq!(tables(&[], 0x1000..0x100a), by_name(", ..."));
    assert_eq!(tables(&[], 0x1000..0x1008), by_name(""));
    // The third of its tables is of no VM that it lists.
    assert_eq!(tables(&vms[..2], 0x1000..0x1008), by_name(""));
}

#[test]
fn no_device_is_unsupported_and_no_rights_not_permitted() {
    let ran = run_without_device("list");
    assert_eq!(ran.code, ExitCode::Unsupported);
    assert!(ran.err.contains("s2dump probe"), "{}", ran.err);
    let denied = || Err(crate::source::SourceError::Open(std::io::Error::from_raw_os_error(13)));
    let ran = run_with("dump vm:0x1000", &denied);
    assert_eq!(ran.code, ExitCode::NotPermitted);
    assert!(ran.err.contains("run as root"), "{}", ran.err);
}

/// What a driver says is input: no answer may hang, panic or read outside the ring.
#[test]
fn a_mad_driver_is_an_error() {
    let spoils: [fn(&mut s2dump_abi::ioctl::Advance); 4] =
        [|a| a.first = 3, |a| a.filled = 4, |a| a.filled = 0, |a| (a.first, a.filled) = (u32::MAX, u32::MAX)];
    for spoil in spoils {
        let script = Script { spoil, ..Script::new(list(), exact(1)) };
        let ran = run(&script, "dump vm:0x1000");
        assert_eq!(ran.code, ExitCode::UsageOrIo, "{}", ran.out);
        assert!(ran.err.contains("makes no sense"), "{}", ran.err);
    }
    for ring in [0, 1 << 20] {
        let script = Script { ring, ..Script::new(list(), exact(1)) };
        assert_eq!(run(&script, "list").code, ExitCode::UsageOrIo);
    }
    // Filled slots that are no slots: a state of DONE without END.
    let script =
        Script::new(list(), Capture::default().ranges(dump_header(0x1000, VTCR_40), &protected_table(), 2).clone());
    assert_eq!(run(&script, "dump vm:0x1000").code, ExitCode::Partial);
}

#[test]
fn capture_can_be_read_back() {
    let file = TempFile::new("capture", b"an older file");
    let script = Script::new(list(), exact(2));
    let ran = run(&script, &format!("capture vm:421-11 -O {}", file.path()));
    assert_eq!((ran.code, ran.out.as_str()), (ExitCode::Ok, ""), "{}", ran.err);
    let start = *script.started.borrow().last().unwrap();
    assert_eq!((start.flags, start.start, start.end), (DumpFlags::EXACT.0, 0, u64::MAX));

    let live = run(&script, "dump vm:0x1000");
    let saved = run_without_device(&format!("dump -i {}", file.path()));
    assert_eq!((saved.code, saved.out), (live.code, live.out));
    assert!(saved.err.starts_with("s2dump: captured 2") && saved.err.lines().count() == 1, "{}", saved.err);
    let (saved, live) = (run_without_device(&format!("list -i {}", file.path())).out, run(&script, "list").out);
    // The names of processes are not captured.
    assert_eq!(saved.lines().count(), live.lines().count());
    assert!(saved.lines().zip(live.lines()).all(|(saved, live)| live.starts_with(saved)), "{saved}{live}");
}

/// A handle and a root say that a VM is the same only within one boot.
#[test]
fn captures_of_two_boots_are_told_apart() {
    let file = |name, boot: &str| {
        let origin = crate::origin::Origin::from_records(format!("boot {boot}\n").as_bytes());
        TempFile::new(name, &[origin.to_slot(), list().bytes, exact(2).bytes].concat())
    };
    let (first, same, other) = (file("boot-1", "a"), file("boot-2", "a"), file("boot-3", "b"));
    for (file, is_told) in [(&same, false), (&other, true)] {
        let ran = run_without_device(&format!("diff {} {}", first.path(), file.path()));
        assert_eq!(ran.code, ExitCode::Ok, "{}", ran.err);
        assert_eq!(ran.err.contains("these are of two boots"), is_told, "{}", ran.err);
        assert_eq!(ran.err.matches("captured unknown on unknown").count(), 2, "{}", ran.err);
    }
}

/// Captures joined by `cat`: a name of the list means one VM, though each list has it, and the first table is the answer.
#[test]
fn joined_captures_name_each_vm_once() {
    let one = [list().bytes, exact(2).bytes].concat();
    // The second: another process has the handle by then, with another table.
    let mut vms = three_vms();
    (vms[0].pid, vms[0].name[0], vms[0].root) = (721, b'7', 0x4200_0000);
    let stranger = SlotHeader { root: 0x4200_0000, ..dump_header(0x1000, VTCR_40) };
    let mut other = Capture::default();
    other.list(&vms).dump(stranger, &[hole(0, 1, 1024)], 2, Status::OK);
    for (name, later) in [("joined-same", &one), ("joined-other", &other.bytes)] {
        let (alone, joined) =
            (TempFile::new("joined-one", &one), TempFile::new(name, &[one.as_slice(), later].concat()));
        for command in ["walk -i FILE vm:421-11 0x80008123", "dump -i FILE vm:421-11", "walk -i FILE vm:0x1000 1T"] {
            let [alone, joined] =
                [&alone, &joined].map(|file| run_without_device(&command.replace("FILE", &file.path().to_string())));
            assert_eq!((joined.code, joined.out, joined.err), (alone.code, alone.out, alone.err), "{name}: {command}");
        }
    }
    // The first has only its list: what the second says of the handle counts.
    let lists = TempFile::new("joined-lists", &[list().bytes, one].concat());
    for command in ["walk -i FILE vm:421-11 0x80008123", "dump -i FILE vm:421-11"] {
        let ran = run_without_device(&command.replace("FILE", &lists.path().to_string()));
        assert_eq!(ran.code, ExitCode::Ok, "{command}: {}", ran.err);
    }
}

/// A VM that only a later of the joined captures lists is found there, whether the first has its handle, or a list at all.
#[test]
fn joined_captures_name_vms_of_later_lists() {
    let mut vms = three_vms();
    (vms[0].pid, vms[0].name[0], vms[0].root) = (721, b'7', 0x4200_0000);
    let header = SlotHeader { root: 0x4200_0000, ..dump_header(0x1000, VTCR_40) };
    let mut later = Capture::default();
    later.list(&vms).dump(header, &protected_table(), 2, Status::OK);
    let alone = TempFile::new("later-alone", &later.bytes);
    for (name, first) in [("later-listed", [list().bytes, exact(2).bytes].concat()), ("later-unlisted", exact(2).bytes)]
    {
        let joined = TempFile::new(name, &[first, later.bytes.clone()].concat());
        let run =
            |command: &str, file: &TempFile| run_without_device(&command.replace("FILE", &file.path().to_string()));
        for command in ["dump -i FILE vm:721", "dump -i FILE vm:721-11", "walk -i FILE vm:721 0x80008123"] {
            let [alone, joined] = [&alone, &joined].map(|file| run(command, file));
            assert_eq!(alone.code, ExitCode::Ok, "{command}: {}", alone.err);
            assert_eq!((joined.code, joined.out, joined.err), (alone.code, alone.out, alone.err), "{name}: {command}");
        }
        for command in ["dump -i FILE vm:722", "walk -i FILE vm:722 0"] {
            let ran = run(command, &joined);
            assert_eq!((ran.code, ran.out.as_str()), (ExitCode::NoSuchVm, ""), "{name}: {command}: {}", ran.err);
            assert!(ran.err.contains("vm:722: the capture lists no such VM"), "{}", ran.err);
            assert!(ran.err.contains("it lists vm:0x1000 (721-11), vm:0x1001 (421-14), vm:0x1002"), "{}", ran.err);
        }
    }
}

/// The dump of [`exact`], of the other VM that ran.
fn exact_of_other() -> Capture {
    Capture::default().dump(dump_header(0x1001, VTCR_40), &protected_table(), 2, Status::OK).clone()
}

#[test]
fn capture_of_all_takes_those_that_ran() {
    let file = TempFile::new("all", b"");
    let script = Script { starts: vec![Ok(exact(2)), Ok(exact_of_other())], ..Script::new(list(), exact(2)) };
    assert_eq!(run(&script, &format!("capture -O {}", file.path())).code, ExitCode::Ok);
    let targets: Vec<u64> = script.started.borrow()[2..].iter().map(|start| start.target).collect();
    // A list (0) before each: the driver holds the VMs of a list only until a start of one of them.
    assert_eq!(targets, [0, 0x1000, 0, 0x1001]);
}

#[test]
fn capture_goes_on_when_a_vm_goes_away() {
    let file = TempFile::new("gone", b"");
    let gone = Err(Status::NO_SUCH_VM.into());
    let script = Script { starts: vec![gone, Ok(exact_of_other())], ..Script::new(list(), exact(2)) };
    let ran = run(&script, &format!("capture -O {}", file.path()));
    assert_eq!(ran.code, ExitCode::Partial);
    assert!(ran.err.contains("vm:0x1000: no such VM"), "{}", ran.err);
    assert_eq!(run_without_device(&format!("dump -i {}", file.path())).code, ExitCode::Ok);
}

/// A list that fails between two tables is an error of the one that comes next: the others are kept.
#[test]
fn capture_goes_on_when_a_list_fails() {
    let failures = bad_lists().into_iter().map(|(list, text)| (Ok(list), text));
    for (again, text) in failures.chain([(Err(Refusal::by_kernel(12)), "start: Cannot allocate memory")]) {
        let file = TempFile::new("relist", b"");
        // The list that is stored, that before the first table, and that before the second.
        let lists_again = vec![Ok(list()), Ok(list()), again];
        let script = Script { lists_again, ..Script::new(list(), exact(2)) };
        let ran = run(&script, &format!("capture -O {}", file.path()));
        assert_eq!(ran.code, ExitCode::Partial, "{}", ran.err);
        assert!(ran.err.contains("s2dump: vm:0x1001: ") && ran.err.contains(text), "{}", ran.err);
        assert_eq!(run_without_device(&format!("dump -i {} vm:0x1000", file.path())).code, ExitCode::Ok, "{text}");
    }
}

/// What EL2 with all features answers about the host.
fn host_script() -> Script {
    let host = Capture::default().dump(machine::host_header(), &machine::host_table(), 5, Status::OK).clone();
    Script { features: features::FACTS, facts: Ok(machine::machine_facts_capture()), ..Script::new(list(), host) }
}

/// The host's table is in no list, so none is asked for, and its root is not known before the first slot.
#[test]
fn dump_of_the_host_names_no_root() {
    let script = host_script();
    let ran = run(&script, "dump host -n -o range,state");
    assert_eq!(ran.code, ExitCode::Ok, "{}", ran.err);
    let started: Vec<(u32, u64, u64)> =
        script.started.borrow().iter().map(|start| (start.op, start.target, start.root)).collect();
    assert_eq!(started, [(Op::FACTS.0, 0, 0), (Op::DUMP.0, Target::HOST.0, 0)]);
    assert!(ran.out.contains("0x0000000040200000-0x0000000040207fff owner=vm:0x1000@0x80000000\n"), "{}", ran.out);
    assert!(ran.out.contains("0x0000000040210000-0x0000000040211fff ring\n"), "{}", ran.out);
}

/// The first slot tells the root; one of another root ends the dump.
#[test]
fn dump_of_the_host_keeps_to_one_root() {
    let mut script = host_script();
    let table = machine::host_table();
    let mut two = Capture::default();
    two.ranges(machine::host_header(), &table[..2], 2);
    let stranger = SlotHeader { root: 0x7000_0000, sequence: 1, start: 0x4020_0000, ..machine::host_header() };
    two.slot(SlotHeader { record_count: 1, next: 0x4020_1000, ..stranger }, &table[2..3]);
    script.starts = vec![Ok(two)];
    let ran = run(&script, "dump host -n");
    assert_eq!(ran.code, ExitCode::Partial, "{}", ran.err);
    assert!(ran.err.contains("root at 0x70000000, where 0x41000000"), "{}", ran.err);
    assert_eq!(ran.out.lines().count(), 2, "{}", ran.out);
}

#[test]
fn tables_that_are_not_allowed_or_not_known() {
    let refused = |status, command| {
        let ran = run(&Script::refusing(list(), status), command);
        assert_eq!(ran.out, "", "{command}");
        (ran.code, ran.err)
    };
    for command in ["dump hyp", "walk hyp 0x8000_0000", "capture hyp -O /dev/null"] {
        let (code, text) = refused(Status::HYP_NOT_PERMITTED, command);
        assert_eq!(code, ExitCode::NotPermitted, "{command}: {text}");
        assert!(text.contains("boot with kvm-arm.s2dump=on,hyp"), "{command}: {text}");
    }
    for command in ["dump host", "walk host 0", "dump host --format json"] {
        let (code, text) = refused(Status::UNKNOWN_TARGET, command);
        assert_eq!(code, ExitCode::Unsupported, "{command}: {text}");
        assert!(text.contains("host: EL2 of this kernel cannot dump this kind of table"), "{command}: {text}");
    }
    let (code, text) = refused(Status::OK, "frames");
    assert_eq!(code, ExitCode::Unsupported, "no feature, so it is not asked for: {text}");
}

#[test]
fn frames_ask_for_what_was_typed() {
    let frames = Capture::default()
        .frames(encoding::PKVM_7_2, 0x4000_0000, 0x4080_0000, &machine::machine_frames()[..11])
        .clone();
    let script = Script { features: features::FACTS | features::FRAMES, starts: vec![Ok(frames)], ..host_script() };
    let ran = run(&script, "frames --range 1G+8M --budget 9 -n");
    assert_eq!(ran.code, ExitCode::Ok, "{}", ran.err);
    let start = script.started.borrow()[1];
    let asked = (start.op, start.target, start.start, start.end, start.budget);
    assert_eq!(asked, (Op::FRAMES.0, 0, 0x4000_0000, 0x4080_0000, 9));
    let ring =
        "0x0000000040210000 0x0000000040210fff      4KiB shared-owned    shared-borrowed        1     0      0 ring\n";
    assert!(ran.out.contains(ring), "{}", ran.out);
    let mut half = machine::machine_facts_capture();
    half.bytes.truncate(half.bytes.len() - 128);
    let ran = run(&Script { facts: Ok(half), ..script }, "frames");
    assert_eq!(ran.code, ExitCode::UsageOrIo, "half of the facts are none: {}", ran.err);
}

/// The host's table, EL2's and each VM's that ran, each as if it had been asked for alone.
#[test]
fn dump_of_all_is_one_after_the_other() {
    let of = |header, records: &[_]| Ok(Capture::default().dump(header, records, 100, Status::OK).clone());
    let ordinary = SlotHeader { flags: slot_flags::EXACT, ..dump_header(0x1001, VTCR_40) };
    let starts = vec![
        of(machine::host_header(), &machine::host_table()),
        of(machine::hyp_header(true), &machine::hyp_table(true)),
        of(dump_header(0x1000, VTCR_40), &protected_table()),
        of(ordinary, &ordinary_table()),
    ];
    let script =
        Script { features: features::FACTS | features::HOST_STAGE2 | features::HYP_STAGE1, starts, ..host_script() };
    let ran = run(&script, "dump all --summary");
    assert_eq!((ran.code, ran.err.as_str()), (ExitCode::Ok, ""));
    let names: Vec<&str> = ran.out.split("\n\n").map(|table| table.split([',', ' ']).nth(1).unwrap()).collect();
    assert_eq!(names, ["host", "hyp", "vm:0x1000", "vm:0x1001"], "{}", ran.out);

    // Without the word for EL2's table it is left out, and one that cannot be read does not spoil the others.
    let mut script = Script { features: features::HOST_STAGE2, ..script };
    drop(script.starts.remove(1));
    script.starts[1] = Err(Status::VM_DYING.into());
    let ran = run(&script, "dump all --summary --format ndjson");
    assert_eq!(ran.code, ExitCode::Partial, "{}", ran.err);
    assert!(ran.err.contains("hyp is left out") && ran.err.contains("kvm-arm.s2dump=on,hyp"), "{}", ran.err);
    assert!(ran.err.contains("vm:0x1000: INCOMPLETE"), "{}", ran.err);
    let targets = ["host", "vm:0x1001"].map(|name| format!("\"target\":\"{name}\""));
    assert_eq!(ran.out.lines().count(), 4, "{}", ran.out);
    assert!(targets.iter().all(|target| ran.out.contains(target)), "{}", ran.out);

    let old = Script { features: 0, starts: script.starts.split_off(2), ..script };
    let ran = run(&old, "stat");
    assert_eq!(ran.code, ExitCode::Partial, "{}", ran.err);
    assert!(ran.err.matches("EL2 of this kernel cannot dump this kind of table").count() == 2, "{}", ran.err);
}

/// Table pages are asked for where EL2 tells them.
#[test]
fn stat_asks_for_table_pages() {
    for (feature, expected) in [(0, DumpFlags::EXACT), (features::TABLES, DumpFlags::EXACT.union(DumpFlags::TABLES))] {
        let script = Script { features: feature, ..Script::new(list(), exact(100)) };
        let ran = run(&script, "stat vm:0x1000 --range 2G+2M --budget 7");
        assert_eq!(ran.code, ExitCode::Ok, "{}", ran.err);
        let start = script.started.borrow()[1];
        assert_eq!((start.flags, start.budget, start.start), (expected.0, 7, 2 << 30));
    }
}

/// A capture of the host tells what addresses are by themselves, so that it is read as the device was.
#[test]
fn capture_of_the_host_has_facts() {
    let file = TempFile::new("host", b"");
    let script = host_script();
    let ran = run(&script, &format!("capture host -O {}", file.path()));
    assert!(ran.code == ExitCode::Ok && ran.err.contains(": the list of VMs and 1 table, "), "{}", ran.err);
    let ops: Vec<u32> = script.started.borrow().iter().map(|start| start.op).collect();
    assert_eq!(ops[..3], [Op::LIST.0, Op::LIST.0, Op::FACTS.0]);
    let (live, saved) = (run(&script, "dump host"), run_without_device(&format!("dump -i {} host", file.path())));
    assert_eq!((saved.code, saved.out), (live.code, live.out));
}

/// The page of EL2's that a walk ends in may be a slot of the fixmap.
#[test]
fn walk_marks_what_an_address_is() {
    let steps = [
        run_of(0x8080_0000_0000, 0, RecordKind::TABLE, 0x4201_0000, 0x4201_0003),
        run_of(0x8080_0000_0000, 1, RecordKind::TABLE, 0x4202_0000, 0x4202_0003),
        run_of(0x8080_0000_0000, 2, RecordKind::TABLE, 0x4203_0000, 0x4203_0003),
        annotated(0x8080_0000_1000, 3, 1, 0x60_0000_4021_5702),
    ];
    let header = SlotHeader { kind: SlotKind::WALK.0, record_count: 4, ..machine::hyp_header(true) };
    let walk = Capture::default().slot(header, &steps).end(header.target, 1, Status::OK).clone();
    let script = Script { starts: vec![Ok(walk)], ..host_script() };
    let ran = run(&script, "walk hyp 0x808000001234");
    assert_eq!(ran.code, ExitCode::Ok, "{}", ran.err);
    assert!(ran.out.contains("invalid: fixmap,idle=0x60000040215702\n"), "{}", ran.out);
}

/// Kernels with pages of 4 or 16 KiB have slots of 16 KiB, those with pages of 64 KiB slots of that.
#[test]
fn good_slots_of_each_page_size() {
    let expected = run(&Script::new(list(), dump(4, 0, Status::OK)), "dump vm:0x1000");
    for (slot_bytes, told) in [(4096, "4KiB"), (16384, "16KiB"), (65536, "64KiB")] {
        let script = Script { slot_bytes, ..Script::new(list(), dump(4, 0, Status::OK)) };
        let ran = run(&script, "dump vm:0x1000");
        assert_eq!((ran.code, &ran.out), (ExitCode::Ok, &expected.out), "{slot_bytes}: {}", ran.err);
        let probe = run(&script, "probe").out;
        assert!(probe.lines().any(|line| line.ends_with(&format!(" 3 slots of {told}"))), "{probe}");
    }
}

#[test]
fn bad_slot_sizes() {
    for slot_bytes in [0, 2048, 12288, 16385, 131_072] {
        let script = Script { slot_bytes, ..Script::new(list(), dump(4, 0, Status::OK)) };
        let ran = run(&script, "dump vm:0x1000");
        assert_eq!(ran.code, ExitCode::UsageOrIo, "{slot_bytes}: {}", ran.err);
        assert!(ran.err.contains(&format!("3 slots of {slot_bytes} bytes")), "{}", ran.err);
    }
    for page_shift in [0, 11, 13, 17, 31] {
        let script = Script { page_shift, ..Script::new(list(), dump(4, 0, Status::OK)) };
        let ran = run(&script, "dump vm:0x1000");
        assert_eq!(ran.code, ExitCode::UsageOrIo, "{page_shift}: {}", ran.err);
        assert!(ran.err.contains(&format!("pages of {}", 1_u32 << page_shift)), "{}", ran.err);
    }
}
