// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hello, the list of VMs, and what the program says of both.

use super::support::{list, vm_of};
use super::{tests, Outcome};
use crate::device::{slot_bytes, Device};
use crate::machine::Machine;
use crate::program;
use crate::script::page_bytes;
use crate::vmm_process::VmmProcess;
use anyhow::{ensure, Context as _, Result};
use rustix::thread::{sched_setaffinity, CpuSet};
use s2dump_abi::hypercall::{DEFAULT_BUDGET, MAX_BUDGET};
use s2dump_abi::slot::{vm_flags, VmRecord, SLOT_VMS};
use s2dump_abi::version::{features, ABI_VERSION};
use std::collections::BTreeSet;

tests!(On: hello, list_is_empty_without_vms, list_tells_each_vm, list_while_vms_first_run, program_probes_and_lists;
    heavy: list_of_many);

fn hello(machine: &Machine) -> Outcome {
    let hello = Device::open()?.hello()?;
    let atomic = if machine.atomic { features::ATOMIC } else { 0 };
    let all = features::EXACT | atomic | features::DIGEST | features::GUEST_STAGE2;
    ensure!(hello.version == ABI_VERSION.to_bits() && hello.el2_version == ABI_VERSION.to_bits(), "{hello:x?}");
    ensure!(hello.features & all == all, "features {:#x}", hello.features);
    ensure!(hello.default_budget == DEFAULT_BUDGET && DEFAULT_BUDGET <= MAX_BUDGET, "{hello:x?}");
    ensure!(hello.slots >= 2 && hello.slot_bytes as usize == slot_bytes() && hello.reserved == [0; 6], "{hello:x?}");
    ensure!(u64::from(hello.page_bytes) == page_bytes(), "{hello:x?}");
    Ok(())
}

fn list_is_empty_without_vms(_: &Machine) -> Outcome {
    let vms = list()?;
    ensure!(vms.is_empty(), "{vms:x?}");
    Ok(())
}

fn list_tells_each_vm(_: &Machine) -> Outcome {
    let reserved = VmmProcess::start("ordinary")?;
    let protected = VmmProcess::start("protected touch:1 --vcpus 2")?;
    let ordinary = VmmProcess::start("ordinary touch:1")?;
    ensure!(list()?.len() == 3, "{:x?}", list()?);
    for vmm in [&reserved, &protected, &ordinary] {
        let (vm, expected) = (vm_of(vmm.expected.pid)?, &vmm.expected);
        let name = String::from_utf8_lossy(&vm.name);
        ensure!(name.trim_end_matches('\0') == expected.debugfs, "named {name}: {expected:x?}");
        let flags =
            [(vm_flags::PROTECTED, expected.protected), (vm_flags::CREATED, expected.ran), (vm_flags::DYING, false)];
        for (flag, set) in flags {
            ensure!((vm.flags & flag != 0) == set, "{vm:x?} is not {expected:x?}");
        }
        if expected.ran {
            ensure!(u32::from(vm.ia_bits) == expected.ipa_bits && vm.root != 0 && vm.vmid != 0, "{vm:x?}");
        }
    }
    let told: serde_json::Value = serde_json::from_str(&program::run(&["list", "--size", "--json"])?.ok()?)?;
    for vmm in [&reserved, &protected, &ordinary] {
        let is_it = |vm: &&serde_json::Value| vm["id"] == vmm.expected.debugfs.as_str();
        let vm = told["vms"].as_array().and_then(|vms| vms.iter().find(is_it)).context("not listed")?;
        let leaves = vmm.expected.runs.iter().filter(|run| run.entry.is_leaf());
        let bytes: u64 = leaves.map(|run| run.count * run.entry.size_bytes()).sum();
        ensure!(vm["mapped_bytes"].as_u64() == vmm.expected.ran.then_some(bytes), "{bytes} mapped: {vm}");
    }
    for vmm in [reserved, protected, ordinary] {
        vmm.end()?;
    }
    Ok(())
}

/// VMs are made and run for the first time while they are listed: each list has the VM once, with its process.
fn list_while_vms_first_run(machine: &Machine) -> Outcome {
    let mut lists = 0;
    for number in 0..machine.fewer(24) {
        let mut vmm = VmmProcess::start(if number % 2 == 0 { "protected" } else { "ordinary" })?;
        vmm.tell("touch:1")?;
        let mut has_run = false;
        while !has_run {
            let vms = list()?;
            ensure!(vms.len() == 1 && vms[0].pid == vmm.expected.pid, "list {lists} of VM {number}: {vms:x?}");
            has_run = vms[0].flags & vm_flags::CREATED != 0;
            lists += 1;
        }
        vmm.wait_done()?;
        vmm.end()?;
    }
    println!("  {lists} lists");
    Ok(())
}

/// Two CPUs list many VMs, most of which never ran, again and again: each list has each VM once, in order.
fn list_of_many(machine: &Machine) -> Outcome {
    const NEVER_RUN: usize = SLOT_VMS;
    const LISTS: usize = 300;
    // One process for those that never ran; the list goes on in a second slot.
    let many = VmmProcess::start(&format!("ordinary --beside {}", NEVER_RUN - 1))?;
    let run = ["protected", "ordinary", "ordinary --vcpus 2", "protected"];
    let run = run.map(|kind| VmmProcess::start(&format!("{kind} --mem 0x80000000+4K touch:1")));
    let run = run.into_iter().collect::<Result<Vec<_>>>()?;
    let check = |cpu: usize| -> Result<()> {
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set).context("two CPUs are needed")?;
        for number in 0..machine.fewer(LISTS) {
            let vms = list()?;
            let created = |vm: &&VmRecord| vm.flags & vm_flags::CREATED != 0;
            let (of_many, ran) = (vms.iter().filter(|vm| vm.pid == many.expected.pid), vms.iter().filter(created));
            let counts = (vms.len(), of_many.clone().count(), ran.clone().count());
            ensure!(counts == (NEVER_RUN + run.len(), NEVER_RUN, run.len()), "list {number}: {counts:?}");
            ensure!(of_many.clone().all(|vm| !created(&vm)), "list {number}: one that never ran did");
            ensure!(run.iter().all(|vmm| ran.clone().any(|vm| vm.pid == vmm.expected.pid)), "list {number}: a pid");
            let names = vms.iter().map(|vm| vm.name).collect::<BTreeSet<_>>();
            let handles = vms.iter().map(|vm| vm.handle).filter(|handle| *handle != 0).collect::<BTreeSet<_>>();
            let with_handle = if machine.flavor.has_early_handles() { vms.len() } else { run.len() };
            ensure!((names.len(), handles.len()) == (vms.len(), with_handle), "list {number}: listed twice");
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let both = [0, 1].map(|cpu| scope.spawn(move || check(cpu)));
        both.into_iter().try_for_each(|thread| thread.join().expect("the thread returns its panics as errors"))
    })?;
    let text = program::run(&["list", "--no-headings"])?.ok()?;
    ensure!(text.lines().count() == NEVER_RUN + run.len(), "the program lists {} VMs", text.lines().count());
    run.into_iter().try_for_each(VmmProcess::end)?;
    many.end()
}

fn program_probes_and_lists(_: &Machine) -> Outcome {
    let probe = program::run(&["probe"])?.ok()?;
    ensure!(!probe.trim().is_empty(), "probe says nothing");
    let vmm = VmmProcess::start("protected touch:1")?;
    let (pid, name) = (vmm.expected.pid.to_string(), &vmm.expected.debugfs);
    let text = program::run(&["list"])?.ok()?;
    ensure!(text.contains(&pid) && text.contains(name.as_str()), "list does not name {name}: {text}");
    let json = program::run(&["list", "--json"])?.ok()?;
    let value: serde_json::Value = serde_json::from_str(&json)?;
    ensure!(value.to_string().contains(name.as_str()), "{json}");
    let handle = format!("vm:{:#x}", vm_of(vmm.expected.pid)?.handle);
    let texts = [handle.as_str(), &format!("vm:{pid}"), &format!("vm:{name}")]
        .map(|target| program::run(&["dump", target, "--format", "ptdump"]).and_then(program::Ran::ok));
    let [one, two, three] = texts;
    let (one, two, three) = (one?, two?, three?);
    ensure!(one == two && two == three && !one.is_empty(), "the three names of a VM give different dumps");
    vmm.end()
}
