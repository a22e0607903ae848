// SPDX-License-Identifier: MIT OR Apache-2.0
//! A dump is of the table that was meant: the one a list told of, not whichever has its handle by now.

use super::support::{check_nothing_broken, handle_of, list, list_of, vm_of};
use super::{tests, Outcome};
use crate::device::{dump_request, Device};
use crate::machine::Machine;
use crate::vmm_process::VmmProcess;
use anyhow::{ensure, Context as _, Result};
use rustix::io::Errno;
use s2dump_abi::hypercall::{Op, Status};
use s2dump_abi::ioctl::Start;
use s2dump_abi::slot::VmRecord;
use std::time::{Duration, Instant};

tests!(On: root_is_compared, listed_handle_is_not_reused, handle_is_reused_afterwards);

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
            for root in [vm.root + 0x1000, vm.root ^ 1 << 40, 1, u64::MAX] {
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
        ensure!(dump.status()? == Status::VM_DYING, "{op:?} ended with {:?}", dump.status()?);
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

fn handle_is_reused_afterwards(machine: &Machine) -> Outcome {
    let first = VmmProcess::start("protected touch:16")?;
    let old = vm_of(first.expected.pid)?;
    first.end()?;
    wait_until_gone(machine, old.handle)?;
    let second = VmmProcess::start("ordinary --physical touch:0x80100000+2")?;
    ensure!(handle_of(&second)? == old.handle, "the handle was not reused: the test is wrong");
    let new = vm_of(second.expected.pid)?;
    let gone = |start: Start| -> Result<bool> {
        let refused = Device::open()?.start_telling(&mut start.clone());
        Ok(refused == (Err(Errno::STALE), Status::VM_GONE))
    };
    for start in of_the_same_table(&old) {
        // The host may have given the new VM the very pages of the old one: then nothing tells them apart.
        ensure!(gone(start)? == (new.root != old.root), "the new VM is taken for the old one: {new:x?}, {old:x?}");
    }
    super::support::check_leaves(machine, &second)?;
    second.end()
}
