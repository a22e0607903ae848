// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reports: what is in them, and that they keep to their time, by a clock that the tests have.

use super::fake::Script;
use super::live::script;
use super::support::pkvm::*;
use super::support::*;
use super::{run_in, run_without_device, world, Ran, TempFile};
use crate::exit_code::ExitCode;
use crate::source::clock;
use crate::verbs::time_limit::Now;
use crate::verbs::Context;
use s2dump_abi::hypercall::Op;
use s2dump_abi::ioctl::Start;
use s2dump_abi::target::Target;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// Runs a report into `file`; returns how it ended, and the text of the file.
fn report(script: &Script, file: &TempFile, options: &str) -> (Ran, String) {
    report_by(script, file, options, clock::uptime)
}

/// The same by another clock.
fn report_by(script: &Script, file: &TempFile, options: &str, now: Now) -> (Ran, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let open = || Ok(script.open());
    let mut world = Context { now, ..world(&open, &mut out, &mut err) };
    let code = run_in(&format!("report -O {}{options}", file.path()), &mut world);
    let [out, err] = [out, err].map(|bytes| String::from_utf8(bytes).unwrap());
    let text = String::from_utf8_lossy(&std::fs::read(file.path().to_string()).unwrap()).into_owned();
    (Ran { code, out, err }, text)
}

/// Text that a person reads, and behind it a capture that every verb reads.
#[test]
fn reports_are_text_and_a_capture() {
    let mut broken = machine();
    broken.host().map(PROTECTED_PA, 3, 1, PROTECTED_PA, PAGE);
    let truth = broken.clone();
    let script = script(broken, move |_| truth.clone());
    let file = TempFile::new("report", &[]);
    let (ran, text) = report(&script, &file, "");
    assert_eq!((ran.code, ran.err.lines().count(), ran.out.as_str()), (ExitCode::Ok, 1, ""));
    assert!(ran.err.starts_with(&format!("s2dump: wrote {}: ", file.path())), "{}", ran.err);
    let head: Vec<&str> = text.lines().take(4).collect();
    assert!(head[1].starts_with("captured 2") && head[1].contains(", boot "), "{text}");
    assert!(head[2].starts_with("booted with: "), "{text}");
    assert_eq!(head[3], "audit: findings: 1, unsettled: 0; left out: nothing");
    let titles: Vec<&str> = text.lines().filter(|line| line.starts_with("== ")).collect();
    let verbs: Vec<&str> =
        titles.iter().filter_map(|title| title.split_once("(s2dump ")?.1.split([' ', ';']).next()).collect();
    assert_eq!(verbs, ["probe", "list", "stat", "frames", "audit"], "{text}");
    assert!(text.contains("\n== left out ==\nnothing\n"), "{text}");
    for (verb, code, found) in [
        ("audit -i", ExitCode::Finding, "FINDING guest-exclusive"),
        ("list -i", ExitCode::Ok, "vm:0x1003"),
        ("dump vm:0x1000 -i", ExitCode::Ok, "shared-owned"),
        ("frames -i", ExitCode::Ok, "no-page         owned "),
    ] {
        let ran = run_without_device(&format!("{verb} {}", file.path()));
        assert_eq!((ran.code, is_origin(&ran.err)), (code, true), "{verb}: {}{}", ran.out, ran.err);
        assert!(ran.out.contains(found), "{verb}: {}", ran.out);
        // The text says the same of the audit, which it did not read from the file.
        assert!(!verb.starts_with("audit") || text.contains(&ran.out), "{}, but {text}", ran.out);
    }
}

/// Returns whether a note says where a capture was made, and nothing else was said.
fn is_origin(notes: &str) -> bool {
    notes.starts_with("s2dump: captured ") && notes.lines().count() == 1
}

/// That a table changes while it is read leaves nothing out: the audit's section says which did. What it was looked at again for
/// counts in the text as it does in the file.
#[test]
fn reports_of_what_moves_are_whole() {
    let broken = |count: u64| {
        let mut broken = machine();
        broken.host().map(PROTECTED_PA, 3, 1, PROTECTED_PA, PAGE);
        broken.host().at_rest = false;
        broken.frame(MULTI_PA, 1, lent(count));
        broken
    };
    let file = TempFile::new("moving", &[]);
    for (looked_at, found) in [(broken(3), "findings: 2, unsettled: 0"), (machine(), "findings: 0, unsettled: 1")] {
        let (ran, text) = report(&script(broken(3), move |_| looked_at.clone()), &file, "");
        assert_eq!((ran.code, ran.err.lines().count()), (ExitCode::Ok, 1), "{}", ran.err);
        assert!(text.contains("\nchanged while they were read: host\n") && text.contains(found), "{text}");
        assert!(text.contains("\n== left out ==\nnothing\n"), "{text}");
        let ran = run_without_device(&format!("audit -i {}", file.path()));
        assert!(text.contains(&ran.out), "{}, but {text}", ran.out);
    }
}

thread_local! {
    /// The time of a clock that goes on when it is asked, and when a device is.
    static TIME: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// How far when it is asked.
    static STEP: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

fn pass(time: Duration) {
    TIME.set(TIME.get() + time);
}

fn asked() -> Duration {
    pass(STEP.get());
    TIME.get()
}

/// A machine with a guest whose pages are scattered, on which each request takes so long.
fn slow(request: impl Fn(&Start) -> Duration + 'static) -> Script {
    let mut scattered = machine();
    for page in 0..2000 {
        let (ia, pa) = (PROTECTED_IA + 0x10_0000 + page * 0x1000, 0x4180_0000 + (page * 1001 % 2000) * 0x1000);
        scattered.guest(0x1000).map(ia, 3, 1, pa, PAGE);
        scattered.host().annotate(pa, 1, donated(0x1000, ia));
        scattered.frame(pa, 1, FRAME_GUEST);
    }
    let truth = scattered.clone();
    let script = script(scattered, move |_| truth.clone());
    let answer = script.answer.clone().unwrap();
    let slow = move |start: &Start| {
        pass(request(start));
        answer(start)
    };
    Script { answer: Some(Rc::new(slow)), ..script }
}

/// Returns the milliseconds before `what` in the lines about time.
fn millis(text: &str, what: &str) -> u64 {
    let line = text.lines().find(|line| line.split_once(" ms ").is_some_and(|(_, found)| found.starts_with(what)));
    line.unwrap_or_else(|| panic!("{what}: {text}")).trim_start().split(' ').next().unwrap().parse().unwrap()
}

/// Whatever takes long, the report is written in time, the audit has half of it at most, and the cheap sections are there.
#[test]
fn reports_keep_to_their_time() {
    const BUDGET: u64 = 1000;
    let file = TempFile::new("slow", &[]);
    let (mut whole, mut cut) = (0, 0);
    for step in [0, 10, 100, 500, 1000, 2000, 4000, 8000] {
        for request in [0, 1, 5, 20] {
            TIME.set(Duration::from_secs(7));
            STEP.set(Duration::from_micros(step));
            let script = slow(move |_| Duration::from_millis(request));
            let (ran, text) = report_by(&script, &file, &format!(" --budget {BUDGET}ms"), asked);
            let case = format!("{step} us, {request} ms: {text}");
            assert!(millis(&text, "of the 1000 ms allowed") <= BUDGET, "{case}");
            let audited = millis(&text, "rules and second looks") + millis(&text, "telling what is found");
            assert!(audited <= BUDGET / 2, "{audited}: {case}");
            for title in ["VMs", "tables", "page frames", "whether isolation is intact"] {
                assert!(text.contains(&format!("\n== {title} ==")), "{title}: {case}");
            }
            let is_whole = text.contains("\n== left out ==\nnothing\n");
            assert_eq!(ran.code, if is_whole { ExitCode::Ok } else { ExitCode::Partial }, "{case}");
            *if is_whole { &mut whole } else { &mut cut } += 1;
        }
    }
    assert!(whole >= 4 && cut >= 4, "{whole} were whole, {cut} were not");
}

/// Rules that nobody had time for take nothing away from what is cheap, and are named.
#[test]
fn reports_name_what_they_left_out() {
    let file = TempFile::new("late", &[]);
    let of = |step, request: fn(&Start) -> u64| {
        TIME.set(Duration::ZERO);
        STEP.set(Duration::from_micros(step));
        report_by(&slow(move |start| Duration::from_millis(request(start))), &file, " --budget 1s", asked)
    };
    // Much to ask, little to read.
    let (ran, text) = of(2500, |_| 0);
    assert_eq!(ran.code, ExitCode::Partial, "{text}");
    let late = text.lines().find(|line| line.starts_with("no time left: ")).unwrap_or_default();
    assert!(late.ends_with(" of 32 rules of the audit"), "{text}");
    assert!(text.contains("\nnot asked to their end, for want of time: host-identity, "), "{text}");
    assert!(ran.err.contains(&format!("s2dump: left out: {late}\n")), "{}", ran.err);
    // The host's table takes all the time that there is for reading.
    let (ran, text) = of(1, |start| if start.target == Target::HOST.0 && start.op == Op::DUMP.0 { 400 } else { 0 });
    assert_eq!(ran.code, ExitCode::Partial, "{text}");
    let late = "\n== left out ==\nno time left: host, vm:0x1000, vm:0x1001, vm:0x1002, vm:0x1003\n";
    assert!(text.contains(late), "{text}");
    assert!(
        text.contains("\nvm:0x1003 ") && text.contains("\n# hyp, ") && text.contains("for want of the host's table")
    );
    let ran = run_without_device(&format!("list -i {}", file.path()));
    assert_eq!((ran.code, is_origin(&ran.err)), (ExitCode::Ok, true), "{}{}", ran.out, ran.err);
    // Of the list only what comes first, and nothing at all.
    let (_, text) = of(1, |start| if start.op == Op::LIST.0 { 400 } else { 0 });
    assert!(text.contains("\nvm:0x1003 ") && millis(&text, "of the 1000 ms allowed") < 850, "{text}");
    let (ran, text) = of(1, |start| if start.op == Op::LIST.0 { 600 } else { 0 });
    assert_eq!(ran.code, ExitCode::Partial, "{text}");
    assert!(text.contains("\nno time left: list\n") && text.contains(": nothing was read\n"), "{text}");
}

#[test]
fn reports_of_no_device_say_so() {
    let file = TempFile::new("none", &[]);
    let ran = run_without_device(&format!("report -O {}", file.path()));
    assert_eq!(ran.code, ExitCode::Partial, "no device: {}", ran.err);
    assert!(ran.err.contains("left out: /dev/s2dump is not there"), "{}", ran.err);
    let text = String::from_utf8_lossy(&std::fs::read(file.path().to_string()).unwrap()).into_owned();
    assert!(text.contains("\naudit: not audited; left out: 2, named at the end"), "{text}");
}
