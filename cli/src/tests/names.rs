// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of input addresses of a live machine, and in the captures of it.

use super::fake::{Refusal, Script};
use super::support::captures::memory_slots;
use super::support::*;
use super::{run_in, world, Ran, TempFile};
use crate::exit_code::ExitCode;
use crate::source::device::Session;
use crate::source::SourceError;
use crate::verbs::{Context, ReadProc};
use s2dump_abi::hypercall::{DumpFlags, Op, Status};
use s2dump_abi::slot::{MemorySlot, SlotHeader, SlotKind};
use s2dump_abi::target::Target;
use s2dump_abi::version::features;
use std::io;
use std::rc::Rc;

/// A device that tells memory slots so, and has a table of VM 0x1000, or that of the host.
fn script(memory: Result<Capture, Refusal>) -> Script {
    let (mut list, mut dump, mut host) = (Capture::default(), Capture::default(), Capture::default());
    list.list(&three_vms());
    dump.dump(dump_header(0x1000, VTCR_40), &protected_table(), 200, Status::OK);
    host.dump(machine::host_header(), &machine::host_table(), 200, Status::OK);
    let answer = move |start: &s2dump_abi::ioctl::Start| match Op(start.op) {
        Op::MEMORY => Some(memory.clone()),
        Op::DUMP if Target(start.target) == Target::HOST => Some(Ok(host.clone())),
        _ => None,
    };
    Script { features: features::MEMORY, answer: Some(Rc::new(answer)), ..Script::new(list, dump) }
}

fn telling(memory: &[MemorySlot]) -> Script {
    let mut capture = Capture::default();
    capture.memory(0x1000, memory, 2);
    script(Ok(capture))
}

/// The VM's process is 421: see [`three_vms`].
fn proc(name: &str) -> Option<String> {
    let text = match name {
        "421/maps" => {
            "ffff80000000-ffff80006000 rw-p 00000000 00:00 0 \n\
             ffff80006000-ffff80009000 rw-s 00000000 00:01 1024 /memfd:guest (deleted)\n\
             ffff90000000-ffff90001000 r--p 00000000 08:02 7 /boot/rom of a board\n"
        }
        "421/fd" => "/dev/null\nanon_inode:kvm-vm\nanon_inode:kvm-vcpu:0\n",
        "iomem" => "40000000-7fffffff : System RAM\n  40200000-40200fff : Kernel code\n",
        _ => return None,
    };
    Some(text.into())
}

fn run(command_line: &str, script: &Script, proc: &ReadProc) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let open = || -> Result<Box<dyn Session>, SourceError> { Ok(script.open()) };
    let code = run_in(command_line, &mut Context { proc, ..world(&open, &mut out, &mut err) });
    Ran { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

fn run_without_device(command_line: &str) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let open = || Err(SourceError::Open(io::Error::from_raw_os_error(2)));
    let code = run_in(command_line, &mut world(&open, &mut out, &mut err));
    Ran { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

/// Rows as words, without blanks between columns.
fn words(out: &str) -> Vec<String> {
    out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

const DUMP: &str = "dump 0x1000 --mapped -n -o start,size,slot,hva,backing,name";

/// What a dump without headings always says.
const NOTHING_TOLD: &str = "s2dump: read in one call under the table's lock: atomic\n";

/// The second slot ends between two pages of a run, and the third has nothing behind it.
const ROWS: [&str; 6] = [
    "0x0000000080000000 24KiB 1 0x0000ffff80000000 [anon] [anon]",
    "0x0000000080006000 12KiB 1 0x0000ffff80006000 memfd:guest memfd:guest",
    "0x0000000080009000 28KiB 7 0x0000ffffa0000000 [unmapped] [unmapped]",
    "0x0000000080010000 8KiB 7 0x0000ffffa0007000 [unmapped] [unmapped]",
    "0x0000000080012000 4KiB 7 0x0000ffffa0009000 [unmapped] [unmapped]",
    "0x0000000080013000 4KiB 7 0x0000ffffa000a000 [unmapped] [unmapped]",
];

#[test]
fn a_dump_names_rows() {
    let script = telling(&memory_slots());
    let ran = run(DUMP, &script, &proc);
    assert_eq!(
        (ran.code, ran.err.as_str(), words(&ran.out)),
        (ExitCode::Ok, NOTHING_TOLD, ROWS.map(String::from).to_vec())
    );
    let ops: Vec<u32> = script.started.borrow().iter().map(|start| start.op).collect();
    assert_eq!(ops, [Op::LIST.0, Op::MEMORY.0, Op::DUMP.0], "the VM of the list is held for all of them");
    // So that rows that are cut know their output addresses.
    assert_ne!(script.started.borrow()[2].flags & DumpFlags::EXACT.0, 0);
    assert_eq!((script.started.borrow()[1].target, script.started.borrow()[1].root), (0x1000, 0));
}

/// Whoever has the number of a process that made a VM and ended is not its VMM.
#[test]
fn a_stranger_of_the_same_number_names_nothing() {
    let with_files = |files: Option<&'static str>| {
        let stranger = move |name: &str| if name == "421/fd" { files.map(String::from) } else { proc(name) };
        words(&run(DUMP, &telling(&memory_slots()), &stranger).out)
    };
    for files in [None, Some(""), Some("/dev/null\nanon_inode:[eventfd]\nanon_inode:[kvm-vm\n")] {
        let rows = with_files(files);
        assert!(rows.iter().all(|row| row.ends_with(" ? ?")) && rows[0].contains(" 1 0x0000ffff80000000 "), "{rows:?}");
    }
    assert_eq!(with_files(Some("anon_inode:kvm-vcpu:3\n")), ROWS, "it holds the VM by a vCPU");
}

#[test]
fn names_that_nobody_wants_are_not_asked_for() {
    let script = telling(&memory_slots());
    let ran = run("dump 0x1000 --mapped -n -o start,size", &script, &|_| panic!("nothing of /proc"));
    assert_eq!((ran.code, ran.out.lines().count()), (ExitCode::Ok, 4));
    assert!(script.started.borrow().iter().all(|start| start.op != Op::MEMORY.0));
}

#[test]
fn what_is_not_known_is_a_question_mark() {
    // The process is gone, or may not be looked at; or it has ended and nobody has waited for it.
    for proc in [&(|_: &str| None) as &ReadProc, &|_| Some(String::new())] {
        let ran = run(DUMP, &telling(&memory_slots()), proc);
        assert_eq!(ran.code, ExitCode::Ok);
        assert_eq!(words(&ran.out)[0], "0x0000000080000000 36KiB 1 0x0000ffff80000000 ? ?");
    }
    let ran = run(DUMP, &Script { features: 0, ..telling(&memory_slots()) }, &proc);
    assert_eq!(words(&ran.out)[0], "0x0000000080000000 64KiB ? ? ? ?");
    assert!(ran.err.contains("vm:0x1000: nothing tells names of its input addresses"), "{}", ran.err);
    let ran = run(DUMP, &script(Err(Status::NO_SUCH_VM.into())), &proc);
    assert_eq!(words(&ran.out)[0], "0x0000000080000000 64KiB ? ? ? ?");
    assert!(ran.err.contains("memory slots of vm:0x1000"), "{}", ran.err);
    // None at all is something else.
    let mut none = Capture::default();
    none.slot::<MemorySlot>(SlotHeader { target: 0x1000, ..slot_header(SlotKind::MEMORY) }, &[]);
    none.end(0x1000, 1, Status::OK);
    let ran = run(DUMP, &script(Ok(none)), &proc);
    assert_eq!((ran.err.as_str(), words(&ran.out)[0].as_str()), (NOTHING_TOLD, "0x0000000080000000 64KiB - - - -"));
}

/// What cannot be right is not taken for an answer.
#[test]
fn bad_memory_slots_of_a_device_are_not_used() {
    let mut bad = memory_slots();
    bad[1].size = 0x20_0000;
    let mut cut = Capture::default();
    cut.slot(SlotHeader { target: 0x1000, record_count: 3, ..slot_header(SlotKind::MEMORY) }, &memory_slots());
    for script in [telling(&bad), script(Ok(cut))] {
        let ran = run(DUMP, &script, &proc);
        assert_eq!(words(&ran.out)[0], "0x0000000080000000 64KiB ? ? ? ?");
        assert!(ran.err.contains("the driver's answer to memory slots makes no sense"), "{}", ran.err);
    }
}

#[test]
fn captures_carry_names() {
    let script = telling(&memory_slots());
    let capture = TempFile::new("names", b"");
    for command in ["capture 0x1000 host", "capture --all"] {
        let script = match command.contains("all") {
            true => Script { features: features::MEMORY | features::HOST_STAGE2, ..script.clone() },
            false => script.clone(),
        };
        let ran = run(&format!("{command} -O {}", capture.path()), &script, &proc);
        assert!(matches!(ran.code, ExitCode::Ok | ExitCode::Partial), "{}", ran.err);
        let ran = run_without_device(&format!("{} -i {}", DUMP, capture.path()));
        assert_eq!(words(&ran.out), ROWS.map(String::from), "{command}: {}", ran.err);
        let walk = format!("walk -i {} 0x1000 0x80006010", capture.path());
        let ran = run_without_device(&walk);
        let expected = "\nmemory slot 1, host virtual address 0xffff80006010: memfd:guest\n";
        assert!(ran.out.ends_with(expected), "{command}: {}", ran.out);
        let host = format!("dump -i {} host -n -o start,name,slot --range 0x40200000+8K", capture.path());
        let ran = run_without_device(&host);
        let expected = ["0x0000000040200000 Kernel_code -", "0x0000000040201000 System_RAM -"];
        assert_eq!(words(&ran.out), expected, "{command}: {}", ran.err);
    }
    let asked = script.started.borrow().iter().filter(|start| start.op == Op::MEMORY.0).count();
    assert_eq!(asked, 3, "once in the first capture; with --all once for each VM that ran, and not again");
}

#[test]
fn a_walk_names_its_address() {
    let mut walk = Capture::default();
    let header = SlotHeader { record_count: 1, kind: SlotKind::WALK.0, ..dump_header(0x1000, VTCR_40) };
    walk.slot(header, &[leaves(0x1000_0000, 3, 1, 0x40a1_2000, PAGE)]).end(0x1000, 1, Status::OK);
    let script = Script { starts: vec![Ok(walk)], ..telling(&memory_slots()) };
    let ran = run("walk 0x1000 0x10000010", &script, &proc);
    let expected = "\nmemory slot 0 (read-only), host virtual address 0xffff90000010: /boot/rom of a board\n";
    assert!(ran.out.ends_with(expected), "{}{}", ran.out, ran.err);
    let ran = run("walk 0x1000 0x10000010", &script, &|_| None);
    assert!(ran.out.ends_with("0xffff90000010: what is there is not known\n"), "{}", ran.out);
    let ran = run("walk 0x1000 0x20000000 --json", &script, &proc);
    assert!(!ran.out.contains("memory_slot"), "{}", ran.out);
}
