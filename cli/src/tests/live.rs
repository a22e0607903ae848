// SPDX-License-Identifier: MIT OR Apache-2.0
//! Audits of a device: what a dump tells and a second look does not is no finding.

use super::fake::{Refusal, Script};
use super::support::pkvm::{self, *};
use super::support::*;
use super::{run_with, run_without_device, Ran, TempFile};
use crate::exit_code::ExitCode;
use s2dump_abi::hypercall::{DumpFlags, Op, Status};
use s2dump_abi::ioctl::Start;
use s2dump_abi::slot::{slot_flags, SlotHeader, VmRecord};
use s2dump_abi::target::{Place, Target};
use s2dump_abi::version::features;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// Answers as `machine` would, and examinations, of which it is told the number, as `looked_at`.
pub(super) fn script(machine: pkvm::Machine, looked_at: impl Fn(u32) -> pkvm::Machine + 'static) -> Script {
    let looks = Cell::new(0);
    let page_shift = machine.page_shift;
    let answer = move |start: &Start| -> Option<Result<Capture, Refusal>> {
        // The walk of a page looks at any address in it.
        let is_whole = |address: u64| address == u64::MAX || address % (1 << page_shift) == 0;
        if start.op != Op::WALK.0 && !(is_whole(start.start) && is_whole(start.end)) {
            return Some(Err(Status::BAD_RANGE.into()));
        }
        Some(Ok(match Op(start.op) {
            Op::LIST => machine.list(),
            Op::FACTS => machine.facts(),
            Op::FRAMES => machine.frames(),
            Op::DUMP => {
                let Some(tree) = machine.trees.iter().find(|tree| tree.header.target == start.target) else {
                    let is_hyp = start.target == Target::HYP.0;
                    return Some(Err(if is_hyp { Status::HYP_NOT_PERMITTED } else { Status::BAD_GEOMETRY }.into()));
                };
                assert!(start.root == 0 || start.root == tree.header.root);
                let wants = DumpFlags(start.flags);
                let flag = |wanted, flag| if wants.contains(wanted) { flag } else { 0 };
                let flags = flag(DumpFlags::EXACT, slot_flags::EXACT) | flag(DumpFlags::DIGEST, slot_flags::DIGEST);
                let flags = flags | flag(DumpFlags::TABLES, slot_flags::TABLES);
                machine.dump(tree, flags)
            }
            Op::EXAMINE => {
                looks.set(looks.get() + 1);
                looked_at(looks.get()).examine(start.start, &start.places.map(Place))
            }
            _ => return None,
        }))
    };
    let features = features::FACTS
        | features::FRAMES
        | features::EXAMINE
        | features::TABLES
        | features::HOST_STAGE2
        | features::HYP_STAGE1;
    Script {
        features,
        page_shift,
        answer: Some(Rc::new(answer)),
        ..Script::new(Capture::default(), Capture::default())
    }
}

fn run(script: &Script, command: &str) -> Ran {
    run_with(command, &|| Ok(script.open()))
}

#[test]
fn good_machine_audits_clean() {
    let ran = run(&script(machine(), |_| panic!("nothing is suspect")), "audit");
    assert_eq!((ran.code, ran.err.as_str()), (ExitCode::Ok, ""), "{}", ran.out);
    assert!(ran.out.starts_with("rules asked: 32, not: 0; findings: 0, unsettled: 0, settled by a second look: 0\n"));
    assert!(ran.out.ends_with("not examined: DMA (tables of SMMUs), the secure world (FF-A), caches and TLBs\n"));
}

/// EL2 takes whole pages only, and what is typed may be less: with larger pages still a device tells what a capture tells.
#[test]
fn good_larger_pages_are_asked_for_whole() {
    let broken = || {
        let mut broken = machine();
        broken.host().map(PROTECTED_PA, 3, 1, PROTECTED_PA, PAGE);
        pages::larger(&broken)
    };
    let capture = TempFile::new("larger", &broken().capture().bytes);
    let script = script(broken(), move |_| broken());
    let pa = pages::at(PROTECTED_PA) + 0x1234;
    let ia = pages::at(PROTECTED_IA) + 0x1_5678;
    let commands = [
        format!("rmap {pa:#x}"),
        format!("rmap {pa:#x}+4K"),
        format!("frames --range {pa:#x} -n"),
        format!("frames --range {pa:#x}+16K -n"),
        format!("dump 0x1000 -n --range {ia:#x}"),
        format!("dump 0x1000 -n --range {ia:#x}..{:#x}", ia + 0x1000),
        "audit".into(),
    ];
    for command in commands {
        let live = run(&script, &command);
        let (verb, rest) = command.split_once(' ').unwrap_or((&command, ""));
        let stored = run_without_device(format!("{verb} -i {} {rest}", capture.path()).trim_end());
        // Only the order of tables may be another, and a capture says which it found at rest.
        let told = |line: &&str| !line.starts_with("at rest while");
        let lines = |text: &str| text.lines().filter(told).map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!((live.code, lines(&live.out)), (stored.code, lines(&stored.out)), "{command}: {}", live.err);
        let is_asked = verb != "audit" && (verb != "rmap" || rest.contains('+'));
        assert_eq!(live.err.contains("widened to whole pages"), is_asked, "{command}: {}", live.err);
    }
}

/// The host's page of a protected guest: seen again, it is a finding, and otherwise not.
#[test]
fn suspects_are_looked_at_again() {
    let broken = || {
        let mut broken = machine();
        broken.host().map(PROTECTED_PA, 3, 1, PROTECTED_PA, PAGE);
        broken
    };
    let ran = run(&script(broken(), move |_| broken()), "audit");
    assert_eq!(ran.code, ExitCode::Finding, "{}", ran.out);
    assert!(ran.out.starts_with("FINDING guest-exclusive: the host maps it too\n"), "{}", ran.out);
    let ran = run(&script(broken(), |_| machine()), "audit");
    assert_eq!(ran.code, ExitCode::Ok, "{}", ran.out);
    assert!(ran.out.contains("findings: 0, unsettled: 0, settled by a second look: 3\n"), "{}", ran.out);
}

/// Of pages that look alike, that the first is in order by now says nothing of the others.
#[test]
fn all_pages_of_a_suspect_are_looked_at_again() {
    let taken = |pages: std::ops::Range<u64>| {
        let mut taken = machine();
        taken.host().map(PLAIN, 3, 100, PLAIN, PAGE);
        taken.frame(PLAIN + (pages.start << 12), pages.end - pages.start, FRAME_GUEST);
        taken
    };
    let audit = |before: std::ops::Range<u64>, now: std::ops::Range<u64>| {
        run(&script(taken(before), move |_| taken(now.clone())), "audit")
    };
    let ran = audit(0..8, 5..8);
    assert_eq!(ran.code, ExitCode::Finding, "{}", ran.out);
    assert!(ran.out.contains("FINDING frame-donated") && ran.out.contains("page   0x41605000, 12K"), "{}", ran.out);
    let ran = audit(0..64, 0..0);
    assert!(ran.out.contains("findings: 0, unsettled: 0, settled by a second look: 1\n"), "{}", ran.out);
    let ran = audit(0..65, 0..0);
    assert!(ran.out.contains("unsettled frame-donated at 0x41600000: its first 64 pages are in order"), "{}", ran.out);
    assert!(ran.out.contains("findings: 0, unsettled: 1,"), "{}", ran.out);
}

/// The same of entries that are of no page.
#[test]
fn all_entries_of_a_suspect_are_looked_at_again() {
    let poisoned = |entries: std::ops::Range<u64>| {
        let mut poisoned = machine();
        let ia = MULTI_IA + 0x8000 + (entries.start << 12);
        poisoned.guest(0x1003).annotate(ia, entries.end - entries.start, POISONED);
        poisoned
    };
    let ran = run(&script(poisoned(0..4), move |_| poisoned(3..4)), "audit");
    assert_eq!(ran.code, ExitCode::Finding, "{}", ran.out);
    assert!(ran.out.contains("entry  vm:0x1003 0x5000b000 L3"), "{}", ran.out);
    let ran = run(&script(poisoned(0..4), move |_| poisoned(0..0)), "audit");
    assert!(ran.out.contains("findings: 0, unsettled: 0, settled by a second look: 1\n"), "{}", ran.out);
}

/// A guest whose table cannot be read is missed, and its root, which the list tells, is judged.
#[test]
fn guests_that_cannot_be_read_are_missed() {
    let without = |host_maps_root: bool| {
        let mut without = machine();
        let root = without.guest(0x1003).header.root;
        if host_maps_root {
            // Its second page.
            without.host().map(root + 0x1000, 3, 1, root + 0x1000, PAGE);
        }
        without.trees.retain(|tree| tree.header.target != Target::guest(0x1003).0);
        // What it borrows.
        without.frame(MULTI_PA, 2, lent(1));
        without
    };
    let ran = run(&script(without(false), move |_| without(false)), "audit");
    assert_eq!(ran.code, ExitCode::Partial, "{}", ran.out);
    assert!(ran.out.contains("not read, or not all: vm:0x1003\n"), "{}", ran.out);
    assert!(ran.err.contains("vm:0x1003: the walker does not handle this table's geometry"), "{}", ran.err);
    let ran = run(&script(without(true), move |_| without(true)), "audit --rule table-owned");
    assert_eq!(ran.code, ExitCode::Finding, "{}", ran.out);
    assert!(ran.out.starts_with("FINDING table-owned: a table page of vm:0x1003: in the host's table"), "{}", ran.out);
    // A VM that is not there any more is not missed.
    let mut gone = machine();
    gone.trees.retain(|tree| tree.header.target != Target::guest(0x1003).0);
    gone.frame(MULTI_PA, 2, lent(1));
    let script = script(gone, |_| machine());
    let answer = script.answer.clone().unwrap();
    let is_gone = move |start: &Start| match start.target == Target::guest(0x1003).0 {
        true => Some(Err(Status::NO_SUCH_VM.into())),
        false => answer(start),
    };
    let ran = run(&Script { answer: Some(Rc::new(is_gone)), ..script }, "audit");
    assert_eq!(ran.code, ExitCode::Ok, "{}", ran.out);
}

/// A VM that is gone, or whose handle another has, is not judged by what its table said.
#[test]
fn gone_guests_are_no_finding() {
    let broken = || {
        let mut broken = machine();
        broken.guest(0x1000).map(PROTECTED_IA, 3, 1, PROTECTED_PA, PAGE & !(1 << 7));
        broken
    };
    let gone = |_| {
        let mut gone = machine();
        gone.trees.retain(|tree| tree.header.target != Target::guest(0x1000).0);
        gone
    };
    let ran = run(&script(broken(), gone), "audit");
    assert_eq!(ran.code, ExitCode::Ok, "{}", ran.out);
    assert!(ran.out.contains("unsettled: 0, settled by a second look: 1\n"), "{}", ran.out);
    let another = |_| {
        let mut another = machine();
        let root = another.guest(0x1000).header.root;
        another.guest(0x1000).header = SlotHeader { root: root + 0x8000, ..another.guest(0x1000).header };
        another
    };
    let ran = run(&script(broken(), another), "audit");
    assert_eq!(ran.code, ExitCode::Ok, "unsettled alone: {}", ran.out);
    assert!(ran.out.contains("findings: 0, unsettled: 1,"), "{}", ran.out);
}

/// A VM that is being torn down cannot be looked at: what the host's table says of its pages is not held against it.
#[test]
fn dying_guests_are_unsettled() {
    let mut lost = machine();
    lost.guest(0x1000).entries.remove(&PROTECTED_IA);
    let dying = |_| {
        let mut dying = machine();
        dying.dying = vec![0x1000];
        dying
    };
    let ran = run(&script(lost, dying), "audit");
    assert_eq!(ran.code, ExitCode::Ok, "{}", ran.out);
    assert!(ran.out.starts_with("unsettled donation-backed at 0x40800000: a table could not be read\n"), "{}", ran.out);
    assert!(ran.out.contains("findings: 0, unsettled: 1, settled by a second look: 0\n"), "{}", ran.out);
}

/// Where EL2 cannot look again, there is no finding.
#[test]
fn what_cannot_be_looked_at_is_unsettled() {
    let mut broken = machine();
    broken.host().map(PROTECTED_PA, 3, 1, PROTECTED_PA, PAGE);
    let mut script = script(broken, |_| machine());
    script.features &= !features::EXAMINE;
    let ran = run(&script, "audit");
    assert_eq!(ran.code, ExitCode::Ok, "{}", ran.out);
    assert!(ran.out.contains("unsettled guest-exclusive at 0x40800000: EL2 cannot look"), "{}", ran.out);
    assert!(ran.out.contains("findings: 0, unsettled: 3,"), "{}", ran.out);
}

/// A count is read, then the guests twice, then the count again.
#[test]
fn counts_are_settled_by_scans_between_readings() {
    let counted = |count: u64| {
        let mut counted = machine();
        counted.frame(MULTI_PA, 1, FRAME_SHARED | count << 32);
        counted
    };
    let script_of = script(counted(3), move |_| counted(3));
    let ran = run(&script_of, "audit");
    assert!(
        ran.out.starts_with("FINDING share-count: the count is 3, and 2 entries of guests map it\n"),
        "{}",
        ran.out
    );
    let ops: Vec<u32> = script_of.started.borrow().iter().map(|start| start.op).collect();
    let looks: Vec<usize> = (0..ops.len()).filter(|&at| ops[at] == Op::EXAMINE.0).collect();
    let dumps = ops[looks[0]..looks[1]].iter().filter(|&&op| op == Op::DUMP.0).count();
    assert_eq!((looks.len(), dumps), (12, 8), "six times four guests, twice, in between");
    let ran = run(&script(counted(3), move |_| counted(2)), "audit");
    assert!(ran.out.contains("findings: 0, unsettled: 0, settled by a second look: 1\n"), "{}", ran.out);
    let ran = run(&script(counted(3), move |look| counted(if look == 1 { 3 } else { 2 })), "audit");
    assert!(ran.out.contains("unsettled share-count at 0x40e00000: the frame changed while"), "{}", ran.out);
    let mut moving = counted(3);
    moving.guest(0x1003).at_rest = false;
    let ran = run(&script(moving, move |_| counted(3)), "audit");
    assert!(ran.out.contains("unsettled share-count at 0x40e00000: guests changed while"), "{}", ran.out);
}

/// Without the boot word, rules about EL2's table are named.
#[test]
fn rules_without_their_table_are_named() {
    let mut without = machine();
    without.trees.remove(1);
    let ran = run(&script(without, |_| machine()), "audit");
    assert_eq!(ran.code, ExitCode::Partial, "{}", ran.out);
    assert!(ran
        .out
        .contains("for want of EL2's table (boot with kvm-arm.s2dump=on,hyp): hyp-write-execute, hyp-mapping"));
    assert!(ran.err.contains("its own table was not enabled at boot"), "{}", ran.err);
}

/// A capture of a whole machine audits as the machine does, also where that needs second looks.
#[test]
fn captures_audit_as_the_machine() {
    let broken = || {
        let mut broken = machine();
        broken.host().map(PROTECTED_PA, 3, 1, PROTECTED_PA, PAGE);
        broken.frame(MULTI_PA, 1, lent(3));
        // The host's table moves all the time: only the second look tells.
        broken.host().at_rest = false;
        broken
    };
    for (looked_at, code, found) in [(true, ExitCode::Finding, "findings: 2, unsettled: 0"), (false, ExitCode::Ok, "")]
    {
        let file = TempFile::new("all", &[]);
        let truth = move |_| if looked_at { broken() } else { machine() };
        let ran = run(&script(broken(), truth), &format!("capture --all -O {}", file.path()));
        let told: Vec<&str> = ran.err.lines().collect();
        assert_eq!((ran.code, told.len()), (ExitCode::Ok, 2), "{}", ran.err);
        assert_eq!(told[0], "s2dump: changed while they were read: host");
        assert!(told[1].starts_with("s2dump: wrote ") && told[1].contains(": the whole machine, "), "{}", told[1]);
        let ran = run_without_device(&format!("audit -i {}", file.path()));
        assert_eq!(ran.code, code, "{}", ran.out);
        assert!(ran.out.contains(found), "{}", ran.out);
        let ran = run_without_device(&format!("dump -i {} vm:0x1000 --no-headings --range 2G+4K", file.path()));
        assert_eq!((ran.code, ran.out.lines().count()), (ExitCode::Ok, 1), "{}", ran.out);
    }
}

/// One look that fails leaves the others, and what has none stays open.
#[test]
fn captures_go_on_after_a_look_that_failed() {
    let mut broken = machine();
    broken.host().map(PROTECTED_PA, 3, 1, PROTECTED_PA, PAGE);
    broken.host().map(PROTECTED_PA + 0x2000, 3, 1, PROTECTED_PA + 0x2000, PAGE);
    broken.host().at_rest = false;
    let truth = broken.clone();
    let script = script(broken, move |_| truth.clone());
    let answer = script.answer.clone().unwrap();
    let fails = move |start: &Start| match (Op(start.op), start.start) {
        (Op::EXAMINE, PROTECTED_PA) => Some(Err(Status::BAD_ANSWER.into())),
        _ => answer(start),
    };
    let file = TempFile::new("fails", &[]);
    let script = Script { answer: Some(Rc::new(fails)), ..script };
    let ran = run(&script, &format!("capture --all -O {}", file.path()));
    assert_eq!(ran.code, ExitCode::Ok, "{}", ran.err);
    assert_eq!(ran.err.matches("EL2 gave an answer").count(), 1, "told once: {}", ran.err);
    let ran = run_without_device(&format!("audit -i {} --rule guest-exclusive", file.path()));
    assert_eq!(ran.code, ExitCode::Finding, "{}", ran.out);
    assert!(ran.out.contains("page   0x40802000, 4K") && ran.out.contains("unsettled: 1,"), "{}", ran.out);
}

/// A map of a device is that of a capture of it, but for where it comes from.
#[test]
fn map_of_a_device() {
    let file = TempFile::new("map.s2d", &machine().capture().bytes);
    let of_device = run(&script(machine(), |_| machine()), "map -O -");
    let of_capture = run_without_device(&format!("map -i {} -O -", file.path()));
    assert_eq!((of_device.code, of_device.err.as_str()), (ExitCode::Ok, "s2dump: wrote standard output\n"));
    let source = |text: &str| text.split_once(r#"{"source":""#).unwrap().1.split_once('"').unwrap().0.to_owned();
    let (here, there) = (source(&of_device.out), source(&of_capture.out));
    assert!(here.starts_with("this machine, captured 2") && here.contains(", boot "), "{here}");
    assert_eq!(there, file.path().to_string(), "it does not say when it was made");
    assert_eq!(of_device.out, of_capture.out.replace(&there, &here));

    let mut without_hyp = machine();
    without_hyp.trees.remove(1);
    let ran = run(&script(without_hyp, |_| machine()), "map -O -");
    assert_eq!(ran.code, ExitCode::Partial, "{}", ran.err);
    assert!(ran.out.contains("Not read, or not all: hyp. What they have is not shown."));
}

#[test]
fn rmap_of_a_device() {
    let ran = run(&script(machine(), |_| machine()), "rmap 0x40800000");
    assert_eq!(ran.code, ExitCode::Ok, "{}", ran.err);
    assert!(ran.out.contains(" host       0x0000000040800000 L3 -   owner=vm:0x1000@0x80000000\n"), "{}", ran.out);
}

/// What a map is made of is not replaced by it.
#[test]
fn map_does_not_replace_a_capture() {
    let bytes = machine().capture().bytes;
    let file = TempFile::new("map-same.s2d", &bytes);
    let other = TempFile::new("map-other.s2d", &bytes);
    for words in ["map -i FILE -O FILE", "map -i OTHER --since FILE -O FILE"] {
        let words = words.replace("FILE", &file.path().to_string()).replace("OTHER", &other.path().to_string());
        let ran = run_without_device(&words);
        assert_eq!(ran.code, ExitCode::UsageOrIo, "{words}");
        assert!(ran.err.contains("would take the place of what it is made of"), "{}", ran.err);
    }
    assert_eq!(std::fs::read(file.path().to_string()).unwrap(), bytes);
}

/// A machine on which another VM has the first one's handle, and its root page too, as happens at once.
fn with_another_vm() -> pkvm::Machine {
    let mut other = machine();
    other.vms[0] = VmRecord { root: other.vms[0].root, pid: 721, ..vm(0x1000, "721-11", other.vms[0].flags) };
    other
}

#[test]
fn diff_tells_another_vm_of_the_same_handle() {
    let [first, other] = [("reused-1", machine()), ("reused-2", with_another_vm())]
        .map(|(name, machine)| TempFile::new(name, &machine.capture().bytes));
    let ran = run_without_device(&format!("diff {} {}", first.path(), other.path()));
    assert_eq!(ran.code, ExitCode::Finding, "{}", ran.err);
    assert!(ran.err.contains("vm:0x1000 is another VM: 421-11, root 0x4"), "{}", ran.err);
    assert!(ran.err.contains(", then 721-11, root 0x4"), "{}", ran.err);
    let signs: Vec<&str> = ran.out.lines().map(|line| &line[..11]).collect();
    let gone = signs.iter().filter(|sign| **sign == "- vm:0x1000").count();
    assert!(gone > 0 && signs.len() == 2 * gone, "all of one is gone, all of the other new: {}", ran.out);
    let html = run_without_device(&format!("map -i {} --since {} -O -", other.path(), first.path()));
    assert!(html.out.contains("Mind: vm:0x1000 is another VM: 421-11"));
}

/// Frames of which not all were read did not change.
#[test]
fn diff_compares_no_frames_that_were_not_read() {
    let whole = machine();
    let mut part = Capture::default();
    let frames = whole.frames().bytes;
    part.bytes.extend([whole.list().bytes, whole.facts().bytes].concat());
    part.bytes.extend(&frames[..frames.len() - size_of::<SlotHeader>()]);
    whole.trees.iter().for_each(|tree| part.bytes.extend(whole.dump(tree, slot_flags::EXACT).bytes));
    part.bytes.extend(whole.list().bytes);
    let (part, whole) = (TempFile::new("part", &part.bytes), TempFile::new("whole", &whole.capture().bytes));
    for (old, new) in [(&part, &whole), (&whole, &part)] {
        let ran = run_without_device(&format!("diff {} {}", old.path(), new.path()));
        assert_eq!((ran.code, ran.out.as_str()), (ExitCode::Partial, ""), "{}", ran.err);
        assert!(ran.err.ends_with("s2dump: not compared, or not all: frames\n"), "{}", ran.err);
    }
    let map = run_without_device(&format!("map -i {} -O -", part.path()));
    assert_eq!(map.code, ExitCode::Partial);
    assert!(map.out.contains("Not read, or not all: frames."), "{}", map.err);
}

/// A capture and the machine later; and the machine twice.
#[test]
fn diff_with_a_device() {
    let file = TempFile::new("diff", &machine().capture().bytes);
    let later = script(pkvm::later(), |_| machine());
    let ran = run(&later, &format!("diff {} --live vm:0x1003", file.path()));
    assert_eq!(ran.code, ExitCode::Finding, "{}", ran.err);
    let starts: Vec<&str> = ran.out.lines().map(|line| &line[..33]).collect();
    assert_eq!(
        starts,
        ["- vm:0x1003  0x0000000050000000-0x", "+ vm:0x1003  0x0000000050000000-0x"].map(|line| &line[..33])
    );
    let ran = run(&later, &format!("diff {} --live vm:0x1000", file.path()));
    assert_eq!((ran.code, ran.out.lines().count()), (ExitCode::Finding, 3), "{}", ran.out);
    let ran = run(&later, "diff --live all --wait 0");
    assert_eq!((ran.code, ran.out.as_str()), (ExitCode::Ok, ""), "{}", ran.err);
    let ran = run(&later, &format!("diff {} --live vm:0x1001", file.path()));
    assert_eq!(ran.code, ExitCode::NoSuchVm, "{}", ran.err);
}

/// Returns what `diff` says of two captures, in this order and in the other: exit code, lines.
fn diff_both_ways(name: &str, old: &pkvm::Machine, new: &pkvm::Machine) -> [(ExitCode, Vec<String>); 2] {
    let files = [old, new].map(|machine| machine.capture().bytes);
    let files = [0, 1].map(|nth| TempFile::new(&format!("{name}-{nth}"), &files[nth]));
    [[0, 1], [1, 0]].map(|[first, second]| {
        let ran = run_without_device(&format!("diff {} {}", files[first].path(), files[second].path()));
        let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        (ran.code, ran.out.lines().map(line).chain(ran.err.lines().map(String::from)).collect())
    })
}

/// Each session of s2dump has its own pages, and slots of the fixmap keep what they showed last. Both are no difference, in
/// whichever order, if ring pages are the host's and idle otherwise.
#[test]
fn readings_of_an_idle_machine_are_the_same() {
    let other_ring = pkvm::PLAIN + 0x1_0000;
    let first = read_by(pkvm::PLAIN, Some(pkvm::SHARED));
    // Of each session two pages in EL2's table, and the same in frames; and the slot.
    let cases = [
        (read_by(other_ring, None), "5 ranges"),
        (read_by(pkvm::PLAIN, Some(pkvm::MULTI_PA)), "1 range"),
        (read_by(pkvm::PLAIN + 0x1000, Some(pkvm::SHARED)), "4 ranges"),
        (machine(), "3 ranges"),
    ];
    for (second, ranges) in cases {
        let note = format!("s2dump: left out: {ranges} of EL2's fixmap and of pages that s2dump shares with EL2");
        for (code, lines) in diff_both_ways("idle", &first, &second) {
            assert_eq!((code, lines), (ExitCode::Ok, vec![note.clone()]));
        }
    }
}

/// What else became of a page that s2dump used once is told.
#[test]
fn pages_of_a_ring_may_change_as_others() {
    let (first, ring) = (read_by(pkvm::PLAIN, None), pkvm::PLAIN);
    let mut mapped = read_by(pkvm::PLAIN + 0x1_0000, None);
    mapped.hyp().map(HYP_BASE + ring, 3, 1, ring, HYP_RX);
    for (code, lines) in diff_both_ways("ring", &first, &mapped) {
        assert_eq!(code, ExitCode::Finding, "{lines:?}");
        assert!(lines[..2].iter().all(|line| line[2..].starts_with("hyp 0x0000400041600000-")), "{lines:?}");
        assert!(lines[2].contains("left out: 4 ranges of"), "{lines:?}");
    }

    // What EL2 leaves where it unmapped a page of the ring is nothing, not this.
    let mut left = read_by(pkvm::PLAIN, None);
    left.hyp().annotate(HYP_BASE + ring, 1, ring);
    for (code, lines) in diff_both_ways("ring", &first, &left) {
        assert_eq!((code, lines.len()), (ExitCode::Finding, 2), "{lines:?}");
    }

    let mut given = read_by(pkvm::PLAIN + 0x1_0000, None);
    let ia = PROTECTED_IA + 0xf000;
    given.guest(0x1000).map(ia, 3, 1, ring, PAGE);
    given.host().annotate(ring, 1, donated(0x1000, ia));
    given.frame(ring, 1, FRAME_GUEST);
    let [(code, lines), (back_code, back)] = diff_both_ways("ring", &first, &given);
    assert_eq!((code, back_code), (ExitCode::Finding, ExitCode::Finding), "{lines:?}");
    for lines in [lines, back] {
        for of in ["vm:0x1000", "host", "frames"] {
            assert!(lines.iter().any(|line| line[2..].starts_with(of)), "{of}: {lines:?}");
        }
        assert!(!lines.iter().any(|line| line[2..].starts_with("hyp")), "{lines:?}");
    }

    let mut owned = read_by(pkvm::PLAIN + 0x1_0000, None);
    owned.frame(ring, 1, FRAME_SHARED);
    for (code, lines) in diff_both_ways("ring", &first, &owned) {
        assert_eq!(code, ExitCode::Finding, "{lines:?}");
        assert!(lines[..2].iter().all(|line| line[2..].starts_with("frames")), "{lines:?}");
    }
}
