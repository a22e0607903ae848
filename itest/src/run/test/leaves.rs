// SPDX-License-Identifier: MIT OR Apache-2.0
//! For each state a VM can be in: the table holds what the VMM did, nothing less, nothing more.

use super::support::{check_leaves, handle_of, needs_poison, vm_of};
use super::{tests, Ignored, Outcome};
use crate::device::{dump_request, Device, StartRefused};
use crate::expect::State;
use crate::machine::{Flavor, Machine};
use crate::vmm_process::VmmProcess;
use anyhow::{ensure, Context as _};
use rustix::io::Errno;
use s2dump_abi::slot::vm_flags;

tests!(On:
    protected_touched,
    protected_shared,
    protected_unshared,
    protected_poisoned,
    protected_mmio_guard,
    protected_high_addresses,
    protected_large_pages,
    protected_two_vcpus,
    ordinary_pages,
    ordinary_blocks,
    ordinary_read_only,
    ordinary_two_with_the_same_memory,
    never_run,
    handle_reused,
);

fn starts_as(machine: &Machine, arguments: &str) -> Outcome {
    let vmm = VmmProcess::start(arguments)?;
    check_leaves(machine, &vmm)?;
    vmm.end()
}

fn protected_touched(machine: &Machine) -> Outcome {
    // Across a level-3 table (0x80200000), with a gap, and pages one by one.
    starts_as(machine, "protected --physical touch:16 touch:0x801fe000+4 touch:0x80300000+1 touch:0x80302000+1")
}

fn protected_shared(machine: &Machine) -> Outcome {
    // The last step shares pages that were never touched.
    starts_as(machine, "protected --physical touch:16 share:0x80004000+2 touch-share:0x80100000+3 share:0x80200000+1")
}

fn protected_unshared(machine: &Machine) -> Outcome {
    let mut vmm = VmmProcess::start("protected --physical touch:8 share:8")?;
    check_leaves(machine, &vmm)?;
    vmm.steps("unshare:0x80002000+3")?;
    check_leaves(machine, &vmm)?;
    vmm.steps("unshare:2 unshare:0x80005000+3 share:0x80003000+1")?;
    check_leaves(machine, &vmm)?;
    vmm.end()
}

fn protected_mmio_guard(machine: &Machine) -> Outcome {
    if machine.flavor != Flavor::Android {
        return Err(Ignored("this kernel has no MMIO guard".into()).into());
    }
    let mut vmm = VmmProcess::start("protected --physical touch:4 guard:0x0a000000+3 guard:0xc0000000+1")?;
    check_leaves(machine, &vmm)?;
    // The port works on; and again for a page that is guarded already.
    vmm.steps("share:2 guard:0x0a001000+4*2 touch:0x80200000+1")?;
    check_leaves(machine, &vmm)?;
    let guarded = vmm.expected.runs.iter().filter(|run| run.entry.state == State::MmioGuard).map(|run| run.count);
    ensure!(guarded.sum::<u64>() == 8, "{:x?}", vmm.expected.runs);
    vmm.end()
}

fn protected_poisoned(machine: &Machine) -> Outcome {
    needs_poison(machine)?;
    // Of the last two pages one is shared: the host may read that, and nothing is poisoned.
    let steps = "touch:16 poison:0x80004000+2 share:0x80008000+1 poison:0x80007000+2";
    let vmm = VmmProcess::start(&format!("protected --physical {steps}"))?;
    let poisoned = vmm.expected.runs.iter().filter(|run| run.entry.level == 3 && !run.entry.read).map(|run| run.count);
    ensure!(poisoned.sum::<u64>() == 3, "the VMM poisoned other pages than meant: {:x?}", vmm.expected.runs);
    check_leaves(machine, &vmm)?;
    vmm.end()
}

fn protected_high_addresses(machine: &Machine) -> Outcome {
    let probe = VmmProcess::start("protected")?;
    let bits = probe.expected.ipa_bits;
    probe.end()?;
    let top = (1_u64 << bits) - (64 << 10);
    let half = 1_u64 << (bits - 1);
    let steps = format!("touch:4 touch:{:#x}+1 share:{:#x}+1 touch:{half:#x}+2", top + 0xf000, top + 0xf000);
    starts_as(machine, &format!("protected --physical --mem {top:#x}+64K --mem {half:#x}+64K {steps}"))
}

/// Blocks, or pages, as the kernel has it; and a block of which the guest shares a page, so that it becomes pages.
fn protected_large_pages(machine: &Machine) -> Outcome {
    let memory = "--mem 0x80000000+8M,thp --mem 0x90000000+1M";
    let steps = "large:2048 touch:3*512 touch:0x80600000+4 touch:0x90000000+3";
    let mut vmm = VmmProcess::start(&format!("protected --physical {memory} {steps}"))?;
    check_leaves(machine, &vmm)?;
    vmm.steps("share:0x80200000+1 share:0x80405000+3")?;
    check_leaves(machine, &vmm)?;
    vmm.steps("unshare:0x80405000+2")?;
    check_leaves(machine, &vmm)?;
    vmm.end()
}

fn protected_two_vcpus(machine: &Machine) -> Outcome {
    let steps = "touch:4 1/touch:0x80002000+4 1/share:2 0/share:0x80004000+1 1/unshare:1";
    let vmm = VmmProcess::start(&format!("protected --physical --vcpus 2 {steps}"))?;
    check_leaves(machine, &vmm)?;
    let vm = vm_of(vmm.expected.pid)?;
    ensure!(vm.vcpus == 2, "EL2 knows {} vCPUs of 2", vm.vcpus);
    vmm.end()
}

fn ordinary_pages(machine: &Machine) -> Outcome {
    starts_as(machine, "ordinary --physical touch:16 touch:0x801ff000+3")
}

fn ordinary_blocks(machine: &Machine) -> Outcome {
    let memory = "--mem 0x80000000+8M,huge --mem 0x90000000+1M";
    starts_as(machine, &format!("ordinary --physical {memory} touch:1 touch:0x80400000+1 touch:0x90000000+3"))
}

fn ordinary_read_only(machine: &Machine) -> Outcome {
    // Loads of untouched memory get the host's zero page, without the right to store; so does a read-only slot.
    let memory = "--mem 0x80000000+1M --mem 0x90000000+64K,ro";
    let mut vmm = VmmProcess::start(&format!("ordinary --physical {memory} read:8 read:0x90000000+2"))?;
    check_leaves(machine, &vmm)?;
    vmm.steps("touch:2 touch:0x90000000+1")?;
    check_leaves(machine, &vmm)?;
    vmm.end()
}

fn ordinary_two_with_the_same_memory(machine: &Machine) -> Outcome {
    let arguments = "ordinary --physical --mem 0x80000000+1M,file=/tmp/shared-memory touch:8";
    let (one, mut two) = (VmmProcess::start(arguments)?, VmmProcess::start(arguments)?);
    two.steps("touch:0x80040000+8")?;
    check_leaves(machine, &one)?;
    check_leaves(machine, &two)?;
    let oa = |vmm: &VmmProcess| vmm.expected.runs.iter().find(|run| run.ia == 0x8000_0000).map(|run| run.entry.oa);
    ensure!(oa(&one).is_some() && oa(&one) == oa(&two), "the VMs do not share memory: the test is wrong");
    one.end()?;
    check_leaves(machine, &two).context("after the other VM ended")?;
    std::fs::remove_file("/tmp/shared-memory")?;
    two.end()
}

fn never_run(machine: &Machine) -> Outcome {
    let mut vmm = VmmProcess::start("protected --physical")?;
    let vm = vm_of(vmm.expected.pid)?;
    let early = machine.flavor.has_early_handles();
    ensure!((vm.handle != 0) == early && vm.flags & vm_flags::CREATED == 0, "listed as {vm:x?}");
    let refused = Device::open()?.start(&dump_request(vm.handle));
    // Without a handle nothing says which VM is meant.
    let wanted = if early { Errno::NODATA } else { Errno::NOENT };
    ensure!(refused == Err(wanted), "dump of a VM that never ran: {refused:?}");
    vmm.steps("touch:1")?;
    let ran = vm_of(vmm.expected.pid)?;
    ensure!(ran.handle != 0 && (ran.handle == vm.handle || !early), "after running listed as {ran:x?}");
    ensure!(ran.flags & vm_flags::CREATED != 0, "after running listed as {ran:x?}");
    check_leaves(machine, &vmm)?;
    vmm.end()
}

fn handle_reused(machine: &Machine) -> Outcome {
    let first = VmmProcess::start("protected touch:16")?;
    let handle = handle_of(&first)?;
    let device = Device::open()?;
    first.end()?;
    let gone = device.run(&dump_request(handle));
    let refused = gone.as_ref().err().and_then(|error| error.downcast_ref::<StartRefused>());
    ensure!(refused == Some(&StartRefused(Errno::NOENT)), "dump of a VM that ended: {gone:?}");
    let second = VmmProcess::start("ordinary --physical touch:0x80100000+2")?;
    ensure!(handle_of(&second)? == handle, "the handle was not reused: the test is wrong");
    check_leaves(machine, &second)?;
    second.end()
}
