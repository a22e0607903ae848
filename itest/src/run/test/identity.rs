// SPDX-License-Identifier: MIT OR Apache-2.0
//! A dump is of the table that was meant: the one a list told of, not whichever has its handle by now.

use super::ndjson::Printed;
use super::support::{check_nothing_broken, end_without_process, handle_of, list, list_of, vm_of};
use super::{tests, Outcome};
use crate::device::{dump_request, Device};
use crate::expect::LeafMap;
use crate::machine::Machine;
use crate::program::{self, exit, Ran, Stuck};
use crate::scale::at;
use crate::script::page_bytes;
use crate::vmm_process::VmmProcess;
use anyhow::{bail, ensure, Context as _, Result};
use rustix::io::Errno;
use s2dump_abi::hypercall::{Op, Status, MAX_BUDGET};
use s2dump_abi::ioctl::Start;
use s2dump_abi::slot::VmRecord;
use std::fs;
use std::ops::Range;
use std::time::{Duration, Instant};

tests!(On:
    root_is_compared,
    listed_handle_is_not_reused,
    handle_is_reused_afterwards,
    verify_meets_a_reused_handle,
    capture_meets_a_reused_handle,
    joined_captures_of_a_reused_handle,
);

/// The kernel ends a VM some time after its process.
const PATIENCE: Duration = Duration::from_secs(5);

/// Returns a dump and a walk of the table that `vm` tells of.
fn of_the_same_table(vm: &VmRecord) -> [Start; 2] {
    let dump = Start { root: vm.root, ..dump_request(vm.handle) };
    [dump, Start { op: Op::WALK.0, start: 0x8000_0000, end: 0, ..dump }]
}

fn root_is_compared(machine: &Machine) -> Outcome {
    for kind in ["protected", "ordinary"] {
        let vmm = VmmProcess::start(&format!("{kind} touch:16"))?;
        let vm = vm_of(vmm.expected.pid)?;
        for start in of_the_same_table(&vm) {
            let dump = Device::open()?.run(&start)?;
            ensure!(dump.status()? == Status::OK, "ended with {:?}", dump.status()?);
            ensure!(dump.headers.iter().all(|slot| (slot.target, slot.root) == (start.target, vm.root)), "of another");
            for root in [vm.root + page_bytes(), vm.root ^ 1 << 40, 1, u64::MAX] {
                let refused = Device::open()?.start_telling(&mut Start { root, ..start });
                let gone = (Err(Errno::STALE), Status::VM_GONE);
                ensure!(refused == gone, "a root of {root:#x} instead of {:#x}: {refused:?}", vm.root);
            }
        }
        vmm.end()?;
    }
    check_nothing_broken(machine)
}

/// Lists, then dumps or walks what was listed, in one session: nobody else gets the handle in between.
fn listed_handle_is_not_reused(machine: &Machine) -> Outcome {
    for (kind, op) in [("protected", Op::DUMP), ("ordinary", Op::WALK)] {
        let device = Device::open()?;
        let mut first = VmmProcess::start(&format!("{kind} touch:16"))?;
        let vms = list_of(&device)?;
        let vm = *vms.iter().find(|vm| vm.pid == first.expected.pid).context("not listed")?;
        first.kill();
        let second = VmmProcess::start("ordinary touch:1")?;
        ensure!(handle_of(&second)? != vm.handle, "the handle of a listed VM was given to another");
        let start = of_the_same_table(&vm).into_iter().find(|start| start.op == op.0).context("no such start")?;
        let dump = device.run(&start)?;
        ensure!(dump.status()? == end_without_process(machine), "{op:?} ended with {:?}", dump.status()?);
        second.end()?;
        // The last call of the stream lets go of the VM, although the session is open.
        wait_until_gone(machine, vm.handle)?;
        drop(device);
    }
    check_nothing_broken(machine)
}

fn wait_until_gone(machine: &Machine, handle: u16) -> Outcome {
    let begin = Instant::now();
    while list()?.iter().any(|vm| vm.handle == handle) {
        ensure!(begin.elapsed() < machine.patience(PATIENCE), "the VM {handle:#x} does not go away");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Ends a VM; returns another one that has its handle.
fn replaced(machine: &Machine, vmm: VmmProcess) -> Result<VmmProcess> {
    let handle = handle_of(&vmm)?;
    vmm.end()?;
    // This also shows that nobody holds the VM any more.
    wait_until_gone(machine, handle)?;
    let other = VmmProcess::start("ordinary --physical touch:0x80100000+2")?;
    ensure!(handle_of(&other)? == handle, "the handle was not reused: the test is wrong");
    Ok(other)
}

/// What was listed is gone once another VM has its handle and another table.
fn handle_is_reused_afterwards(machine: &Machine) -> Outcome {
    /// The host may give the new VM the very pages of the old one's root.
    const TRIES: usize = 20;
    for _ in 0..TRIES {
        let first = VmmProcess::start("protected touch:16")?;
        let old = vm_of(first.expected.pid)?;
        let second = replaced(machine, first)?;
        let new = vm_of(second.expected.pid)?;
        for start in of_the_same_table(&old) {
            let answer = Device::open()?.start_telling(&mut start.clone());
            // With the same root it has the same identity: the ABI has nothing else to tell tables by.
            let right = if new.root == old.root { (Ok(()), Status::OK) } else { (Err(Errno::STALE), Status::VM_GONE) };
            ensure!(answer == right, "{answer:?} instead of {right:?}: {new:x?}, {old:x?}");
        }
        super::support::check_leaves(machine, &second)?;
        second.end()?;
        if new.root != old.root {
            return Ok(());
        }
    }
    bail!("the root was that of the old VM {TRIES} times: the test is wrong")
}

/// A VM of which an exact dump is more than a pipe and the program's buffer hold, and fits into the ring all the same: when
/// the program is stuck, its first pass is over for the driver, which holds the VM no longer.
const IN_THE_RING: &str = "protected touch:512 share:256*2";
/// Where its records are.
fn records() -> Range<u64> {
    at(0x8000_0000)..at(0x8020_0000)
}

/// The program verifies a dump by a second pass, and has another VM before it by then.
fn verify_meets_a_reused_handle(machine: &Machine) -> Outcome {
    let first = VmmProcess::start(IN_THE_RING)?;
    let mut expected = LeafMap::from_runs(&first.expected.runs);
    expected.0.retain(|ia, _| records().contains(ia));
    let target = format!("vm:{:#x}", handle_of(&first)?);
    let (range, budget) = (format!("{:#x}..{:#x}", records().start, records().end), MAX_BUDGET.to_string());
    let arguments =
        ["dump", &target, "--exact", "--verify", "--format", "ndjson", "--range", &range, "--budget", &budget];
    let stuck = Stuck::start(&arguments)?;
    let second = replaced(machine, first)?;
    let ran = Ran::from(stuck.finish()?);
    ran.fails(exit::PARTIAL, &[&format!("the second pass failed: {target}: the VM went away")])?;
    let dump = Printed::parse(&ran.stdout)?;
    ensure!(dump.trailer.verify == "failed", "the trailer says {:?}", dump.trailer);
    let differences = expected.differences(&dump.leaves()?);
    ensure!(differences.is_empty(), "rows of another: {}", differences.join("; "));
    second.end()
}

/// The program captures two VMs, and another one has the handle of the second when it comes to it.
fn capture_meets_a_reused_handle(machine: &Machine) -> Outcome {
    const PATH: &str = "/tmp/reused.s2d";
    // More than a pipe and the program's buffer hold.
    let large = VmmProcess::start_exactly("ordinary touch:4096*2")?;
    let first = VmmProcess::start("protected touch:16")?;
    let [kept, lost] = [&large, &first].map(|vmm| handle_of(vmm).map(|handle| format!("vm:{handle:#x}")));
    let (kept, lost) = (kept?, lost?);
    let stuck = Stuck::start(&["capture", &kept, &lost, "-O", "-"])?;
    let second = replaced(machine, first)?;
    let output = stuck.finish()?;
    fs::write(PATH, &output.stdout)?;
    Ran::from(output).fails(exit::PARTIAL, &[&format!("{lost}: the VM went away")])?;

    let text = program::run(&["dump", "-i", PATH, &kept, "--exact", "--format", "ndjson"])?.ok()?;
    let differences = LeafMap::from_runs(&large.expected.runs).differences(&Printed::parse(&text)?.leaves()?);
    ensure!(differences.is_empty(), "of the VM that stayed: {}", differences.join("; "));
    program::run(&["dump", "-i", PATH, &lost])?
        .fails(exit::NO_SUCH_VM, &[&format!("{lost}: the capture holds no table of it")])?;
    fs::remove_file(PATH)?;
    large.end()?;
    second.end()
}

/// Two captures, joined, of VMs that had the same handle one after the other: the answer is the first table.
fn joined_captures_of_a_reused_handle(machine: &Machine) -> Outcome {
    const PATH: &str = "/tmp/joined.s2d";
    let first = VmmProcess::start("protected touch:16 share:4")?;
    let target = format!("vm:{:#x}", handle_of(&first)?);
    let capture = || -> Result<Vec<u8>> {
        program::run(&["capture", &target, "-O", PATH])?.ok()?;
        Ok(fs::read(PATH)?)
    };
    let expected = LeafMap::from_runs(&first.expected.runs);
    let old = capture()?;
    let second = replaced(machine, first)?;
    let new = capture()?;
    for (order, joined, expected) in [
        ("old, new", [&*old, &*new], &expected),
        ("new, old", [&*new, &*old], &LeafMap::from_runs(&second.expected.runs)),
    ] {
        fs::write(PATH, joined.concat())?;
        let text = program::run(&["dump", "-i", PATH, &target, "--exact", "--format", "ndjson"])?.ok()?;
        let differences = expected.differences(&Printed::parse(&text)?.leaves()?);
        ensure!(differences.is_empty(), "{order}: {}", differences.join("; "));
    }
    fs::remove_file(PATH)?;
    second.end()
}
