// SPDX-License-Identifier: MIT OR Apache-2.0
//! `watch` of a device whose machine changes from one reading to the next.

use super::fake::Script;
use super::live::script;
use super::support::pkvm::{self, *};
use super::support::*;
use super::{run_with, Ran};
use crate::exit_code::ExitCode;
use s2dump_abi::hypercall::Op;
use s2dump_abi::target::Target;
use std::cell::Cell;
use std::rc::Rc;

/// Returns what `command` says when its readings find `machines`, one after the other, and then the last.
fn watch(machines: Vec<pkvm::Machine>, command: &str) -> Ran {
    let answers: Vec<_> =
        machines.into_iter().map(|machine| script(machine.clone(), move |_| machine.clone())).collect();
    let (at, begun) = (Rc::new(Cell::new(0)), Cell::new(false));
    let first = &answers[0];
    let (features, last) = (first.features, answers.len() - 1);
    let answers: Vec<_> = answers.iter().map(|script| script.answer.clone().unwrap()).collect();
    let answer = move |start: &s2dump_abi::ioctl::Start| {
        // A reading begins with the facts, and a list before them.
        if start.op == Op::FACTS.0 {
            at.set(if begun.replace(true) { (at.get() + 1).min(last) } else { 0 });
        }
        answers[if start.op == Op::LIST.0 && begun.get() { (at.get() + 1).min(last) } else { at.get() }](start)
    };
    let script =
        Script { features, answer: Some(Rc::new(answer)), ..Script::new(Capture::default(), Capture::default()) };
    run_with(command, &|| Ok(script.open()))
}

/// What the lines say behind their time.
fn lines(ran: &Ran) -> Vec<String> {
    let of = |line: &str| line.split_once("] ").map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>().join(" "));
    ran.out.lines().filter_map(of).collect()
}

fn shares() -> pkvm::Machine {
    let mut shares = machine();
    shares.guest(0x1000).map(PROTECTED_IA, 3, 1, PROTECTED_PA, PAGE | SHARED_OWNED);
    shares
}

#[test]
fn changes_are_told_as_they_come() {
    let mut more = shares();
    more.guest(0x1000).map(PROTECTED_IA + 0xb000, 3, 1, PROTECTED_PA + 0x3000, PAGE);
    let ran = watch(vec![machine(), shares(), more], "watch vm:0x1000 --interval 1 --share 100 --count 4");
    assert_eq!((ran.code, ran.err.as_str()), (ExitCode::Ok, ""), "{}", ran.out);
    assert_eq!(
        lines(&ran),
        [
            "vm:0x1000 0x0000000080000000-0x0000000080000fff 4KiB owned -> shared-owned",
            "vm:0x1000 0x000000008000b000-0x000000008000bfff 4KiB hole -> rwx normal-wb owned 0x40803000",
        ]
    );
    assert!(ran.out.starts_with("# vm:0x1000: read every 1 ms, with at most 100% of a CPU;"), "{}", ran.out);
    assert!(ran.out.contains("\n# 2 changes in 4 readings, "), "{}", ran.out);
}

#[test]
fn filters_and_json() {
    let ran =
        watch(vec![machine(), pkvm::later()], "watch --ndjson --interval 0 --count 2 --state shared-owned --share 100");
    assert_eq!(ran.code, ExitCode::Ok, "{}", ran.err);
    let lines: Vec<serde_json::Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of: Vec<_> = lines.iter().map(|line| (line["type"].as_str().unwrap(), line["of"].as_str())).collect();
    assert_eq!(of, [("watching", Some("all")), ("change", Some("vm:0x1000")), ("watch", None)]);
    assert_eq!((&lines[0]["interval_ms"], &lines[0]["cpu_percent_allowed"]), (&0.into(), &100.into()));
    assert_eq!((&lines[1]["old"]["state"], &lines[1]["new"]["state"]), (&"owned".into(), &"shared-owned".into()));
    assert!(lines[1]["uptime_us"].is_u64());
    let pages = |of: &serde_json::Value| ["start_pfn", "end_pfn"].map(|key| of[key].as_u64());
    assert_eq!(pages(&lines[1]), [Some(0x8_0000), Some(0x8_0001)], "{}", lines[1]);
    assert_eq!(lines[1]["old"]["address_pfn"], 0x4_0800, "{}", lines[1]);
    assert_eq!((&lines[2]["changes"], &lines[2]["readings"]), (&1.into(), &2.into()));
    assert!(lines[2]["calls_per_second"].as_f64().unwrap() > 1.0, "{}", ran.out);
}

/// What cannot be read once is compared when it can be again.
#[test]
fn what_is_not_read_once_is_not_lost() {
    let mut unread = shares();
    unread.trees.retain(|tree| tree.header.target != Target::guest(0x1000).0);
    let ran = watch(vec![machine(), unread, shares()], "watch --interval 0 --share 100 --count 3 --state shared-owned");
    assert_eq!(lines(&ran).len(), 1, "{}", ran.out);
    assert!(ran.out.ends_with("# not read each time, or not all: vm:0x1000\n"), "{}", ran.out);
}

#[test]
fn a_vm_that_goes_away_ends_it() {
    let mut gone = machine();
    gone.vms.remove(0);
    gone.trees.retain(|tree| tree.header.target != Target::guest(0x1000).0);
    // In the second reading it goes away between the list and the dump.
    let ran = watch(vec![machine(), machine(), gone], "watch vm:0x1000 --interval 0 --share 100");
    assert_eq!((ran.code, ran.err.as_str()), (ExitCode::Ok, "s2dump: vm:0x1000: the VM went away\n"), "{}", ran.out);
    assert!(lines(&ran).iter().all(|line| line.ends_with("-> hole")) && lines(&ran).len() > 2, "{}", ran.out);
    // Another that has its handle is another.
    let mut other = machine();
    (other.vms[0].pid, other.vms[0].name[0]) = (721, b'7');
    let ran = watch(vec![machine(), machine(), other], "watch vm:0x1000 --interval 0 --share 100");
    assert_eq!(ran.code, ExitCode::Ok, "{}", ran.err);
    assert!(ran.err.contains("vm:0x1000 is another VM: 421-11"), "{}", ran.err);
    assert!(ran.err.ends_with("s2dump: vm:0x1000: the VM went away\n"), "{}", ran.err);
    let ran = watch(vec![machine()], "watch vm:0x1077");
    assert_eq!((ran.code, ran.out.as_str()), (ExitCode::NoSuchVm, ""), "{}", ran.err);
}
