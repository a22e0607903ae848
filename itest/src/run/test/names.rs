// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of input addresses: memory slots and what is behind them, as the VMM knows them; of the host and EL2.

use super::support::{handle_of, list_of};
use super::{tests, Ignored, Outcome};
use crate::device::{dump_request, Device};
use crate::dump::Dump;
use crate::expect::{Expected, Given};
use crate::machine::{Flavor, Machine};
use crate::program;
use crate::vmm_process::VmmProcess;
use anyhow::{bail, ensure, Context as _, Result};
use rustix::io::Errno;
use s2dump_abi::hypercall::{Op, Status};
use s2dump_abi::ioctl::Start;
use s2dump_abi::slot::{memory_flags, MemorySlot};
use s2dump_abi::target::Target;
use s2dump_abi::version::features;
use std::collections::BTreeSet;
use std::fs;

tests!(On:
    memory_slots_are_those_of_the_vmm,
    memory_slots_of_a_vm_that_never_ran,
    many_memory_slots,
    memory_slots_of_a_vm_that_is_held,
    wrong_starts_of_memory_slots,
    rows_name_memory_slots,
    host_and_el2_are_named,
);

const ORDINARY: &str = "ordinary --mem 0x80000000+4M,huge --mem 0x90000000+1M,file=/tmp/ram --mem 0x91000000+1M,ro \
     --mem 0x92000000+2M,memfd=guest --mem 0x92200000+2M --mem 0x88000000+1M,device=0x10000000 \
     touch:1 touch:0x90000000+3 read:0x91000000+2 touch:0x921f0000+32";
const PROTECTED: &str = "protected --mem 0x80000000+2M,memfd=guest --mem 0x80200000+2M --mem 0x90000000+1M \
     touch:0x801f0000+32 share:0x801fe000+4";

fn a_memory_start(handle: u16) -> Start {
    Start { op: Op::MEMORY.0, end: 0, ..dump_request(handle) }
}

fn memory_of(device: &Device, handle: u16) -> Result<Dump> {
    let dump = device.run(&a_memory_start(handle))?;
    ensure!(dump.status()? == Status::OK, "ended with {:?}", dump.status()?);
    Ok(dump)
}

fn as_told(given: &Given) -> MemorySlot {
    let flags = if given.read_only { memory_flags::READ_ONLY } else { 0 };
    MemorySlot { ia: given.ia, size: given.size_bytes, hva: given.host_address, flags, id: given.id, reserved: 0 }
}

fn check_memory(expected: &Expected, memory: &[MemorySlot]) -> Result<()> {
    let given: Vec<MemorySlot> = expected.memory.iter().map(as_told).collect();
    ensure!(!given.is_empty() && memory == given, "{memory:x?} instead of {given:x?}");
    Ok(())
}

fn memory_slots_are_those_of_the_vmm(_: &Machine) -> Outcome {
    ensure!(Device::open()?.hello()?.features & features::MEMORY != 0, "the driver does not tell that it can");
    for guest in [ORDINARY, PROTECTED] {
        let vmm = VmmProcess::start(guest)?;
        let handle = handle_of(&vmm)?;
        check_memory(&vmm.expected, &memory_of(&Device::open()?, handle)?.memory).with_context(|| guest)?;
        let by_read = Device::open()?.run_by_read(&a_memory_start(handle))?;
        check_memory(&vmm.expected, &by_read.memory).with_context(|| format!("by read(2): {guest}"))?;
        vmm.end()?;
    }
    let mut vmm = VmmProcess::start(ORDINARY)?;
    let before = vmm.expected.memory.len();
    vmm.steps("forget:0x90000000+1")?;
    ensure!(vmm.expected.memory.len() == before - 1, "the VMM still knows it");
    check_memory(&vmm.expected, &memory_of(&Device::open()?, handle_of(&vmm)?)?.memory).context("one taken away")?;
    vmm.end()
}

fn memory_slots_of_a_vm_that_never_ran(_: &Machine) -> Outcome {
    let vmm = VmmProcess::start("protected")?;
    match handle_of(&vmm)? {
        0 => return Err(Ignored("this kernel gives such a VM no handle".into()).into()),
        handle => check_memory(&vmm.expected, &memory_of(&Device::open()?, handle)?.memory)?,
    }
    vmm.end()
}

/// More than fit a slot of the ring, given in no order.
fn many_memory_slots(_: &Machine) -> Outcome {
    const COUNT: u64 = 300;
    let page = crate::script::page_bytes();
    let pieces = (0..COUNT).map(|n| format!("--mem {:#x}+{page}", 0x8000_0000 + (n * 7 % COUNT) * 2 * page));
    let words: Vec<String> = std::iter::once("ordinary touch:1".into()).chain(pieces).collect();
    let vmm = VmmProcess::start_exactly(&words.join(" "))?;
    let dump = memory_of(&Device::open()?, handle_of(&vmm)?)?;
    check_memory(&vmm.expected, &dump.memory)?;
    let counts: Vec<u32> = dump.headers.iter().map(|header| header.record_count).collect();
    ensure!(counts == [124, 124, 53], "slots of {counts:?}");
    vmm.end()
}

/// The list holds the VM, and memory slots go on holding it for the dump.
fn memory_slots_of_a_vm_that_is_held(machine: &Machine) -> Outcome {
    let mut vmm = VmmProcess::start(ORDINARY)?;
    let device = Device::open()?;
    let (pid, expected) = (vmm.expected.pid, vmm.expected.clone());
    let vms = list_of(&device)?;
    let vm = *vms.iter().find(|vm| vm.pid == pid).context("not listed")?;
    vmm.kill();
    if machine.flavor.lives_while_held() {
        check_memory(&expected, &memory_of(&device, vm.handle)?.memory)?;
    } else {
        // What is left of it is told, or that it is gone.
        match device.run(&a_memory_start(vm.handle)) {
            Ok(dump) => ensure!(dump.status()? == Status::OK, "ended with {:?}", dump.status()?),
            Err(error) => ensure!(error.to_string().contains(&Errno::NOENT.to_string()), "{error:#}"),
        }
    }
    let dump = device.run(&Start { root: vm.root, ..dump_request(vm.handle) });
    match (dump, machine.flavor.lives_while_held()) {
        (Ok(dump), true) => ensure!(dump.status()? == Status::OK, "the dump ended with {:?}", dump.status()?),
        (Err(error), true) => bail!("the VM was not held for the dump: {error:#}"),
        (_, false) => {}
    }
    // Nobody holds it any more: another session does not find it.
    drop(device);
    let device = Device::open()?;
    for _ in 0..100 {
        if !list_of(&device)?.iter().any(|vm| vm.pid == pid) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let (gone, status) = device.start_telling(&mut a_memory_start(vm.handle));
    ensure!(gone == Err(Errno::NOENT) && status == Status::NO_SUCH_VM, "{gone:?} {status:?}");
    Ok(())
}

fn wrong_starts_of_memory_slots(_: &Machine) -> Outcome {
    let device = Device::open()?;
    let good = a_memory_start(0x10f0);
    for (start, errno, status) in [
        (good, Errno::NOENT, Status::NO_SUCH_VM),
        (Start { target: 0, ..good }, Errno::NOENT, Status::NO_SUCH_VM),
        (Start { target: Target::HOST.0, ..good }, Errno::OPNOTSUPP, Status::OK),
        (Start { target: Target::HYP.0, ..good }, Errno::OPNOTSUPP, Status::OK),
        (Start { root: 0x1000, ..good }, Errno::INVAL, Status::OK),
        (Start { end: 1, ..good }, Errno::INVAL, Status::OK),
        (Start { flags: 1, ..good }, Errno::INVAL, Status::OK),
    ] {
        let (result, told) = device.start_telling(&mut start.clone());
        ensure!(result == Err(errno) && told == status, "{start:x?}: {result:?} {told:?}");
    }
    Ok(())
}

/// A row of the program: first address, bytes, memory slot, host virtual address and name, as they are printed.
fn check_row(row: &str, memory: &[Given]) -> Result<u16> {
    let words: Vec<&str> = row.split_whitespace().collect();
    let [start, bytes, slot, hva, backing, name] = words.as_slice() else { bail!("{row}") };
    let start = u64::from_str_radix(start.trim_start_matches("0x"), 16)?;
    let end = start + bytes.parse::<u64>()?;
    let has = |given: &&Given| given.ia <= start && end <= given.ia + given.size_bytes;
    let given = memory.iter().find(has).with_context(|| format!("not within one piece of memory: {row}"))?;
    let address = format!("{:#018x}", given.host_address + (start - given.ia));
    let expected = [&given.id.to_string(), &address, &given.name, &given.name];
    ensure!(
        [slot, hva, backing, name].map(|word| (*word).to_owned()) == expected.map(String::clone),
        "{row}: {given:x?}"
    );
    Ok(given.id)
}

fn rows_name_memory_slots(_: &Machine) -> Outcome {
    const PATH: &str = "/tmp/names.s2d";
    for guest in [ORDINARY, PROTECTED] {
        let mut vmm = VmmProcess::start(guest)?;
        let target = format!("vm:{}", vmm.expected.pid);
        let columns = ["-n", "--mapped", "-o", "start,bytes,slot,hva,backing,name"];
        let live = program::run(&[&["dump", &target], &columns[..]].concat())?.ok()?;
        let slots: Result<BTreeSet<u16>> = live.lines().map(|row| check_row(row, &vmm.expected.memory)).collect();
        let slots = slots.with_context(|| guest)?;
        // All but one piece have something mapped: pKVM gives no guest a device, and one is not touched.
        ensure!(slots.len() == vmm.expected.memory.len() - 1, "{guest}: rows of memory slots {slots:?}");

        let walk_of = |given: &Given| {
            let (address, hva) = (given.ia + 0x10, given.host_address + 0x10);
            (format!("{address:#x}"), format!("host virtual address {hva:#x}: {}\n", given.name))
        };
        for (address, said) in vmm.expected.memory.iter().map(walk_of) {
            let walk = program::run(&["walk", &target, &address])?.ok()?;
            ensure!(walk.ends_with(&said), "{walk}");
        }

        for capture in [&["capture", &target, "-O", PATH][..], &["capture", "--all", "-O", PATH]] {
            program::run(capture)?.ok()?;
            let saved = program::run(&[&["dump", "-i", PATH, &target], &columns[..]].concat())?.ok()?;
            ensure!(saved == live, "{capture:?}: {saved}instead of {live}");
        }
        let (address, said) = vmm.expected.memory.first().map(walk_of).context("no memory")?;
        let walk = program::run(&["walk", "-i", PATH, &target, &address])?.ok()?;
        ensure!(walk.ends_with(&said), "{walk}");
        fs::remove_file(PATH)?;

        if !vmm.expected.protected {
            vmm.steps("forget:0x92000000+1")?;
            let rows = program::run(&[&["dump", &target], &columns[..]].concat())?.ok()?;
            ensure!(!rows.contains("memfd:guest") && rows.contains("/tmp/ram"), "after it was taken away: {rows}");
            let walk = program::run(&["walk", &target, &format!("{:#x}", crate::scale::at(0x9200_0000))])?.ok()?;
            ensure!(walk.ends_with("in no memory slot\n"), "{walk}");
        }
        vmm.end()?;
    }
    fs::remove_file("/tmp/ram")?;
    Ok(())
}

/// What the program says of some address must be the innermost line of `/proc/iomem`; of EL2 only what must be there.
fn host_and_el2_are_named(machine: &Machine) -> Outcome {
    let iomem = fs::read_to_string("/proc/iomem")?;
    let code = iomem.lines().find_map(|line| line.trim().strip_suffix(" : Kernel code")).context("no kernel code")?;
    let (first, last) = code.split_once('-').context("no range")?;
    let range = format!("0x{first}-0x{last}");
    let rows = program::run(&["dump", "host", "-n", "-o", "start,end,name", "--range", &range])?.ok()?;
    let names: BTreeSet<&str> = rows.lines().filter_map(|row| row.split_whitespace().last()).collect();
    // Where blocks are mapped, the first and the last have something else too.
    ensure!(names.contains("Kernel_code"), "{range}: {names:?}");
    let all = program::run(&["dump", "host", "-n", "-o", "start,name,slot"])?.ok()?;
    ensure!(all.contains(" System_RAM "), "{all}");
    ensure!(all.lines().all(|row| row.ends_with('-')), "the host has no memory slots: {all}");
    if machine.hyp {
        let rows = program::run(&["dump", "hyp", "-n", "--mapped", "-o", "start,rwx,name"])?.ok()?;
        for (name, rights) in
            [("linear", ""), ("text", "r-x"), ("rodata", "r-"), ("bss", "rw"), ("vmemmap", "rw"), ("private", "")]
        {
            let mut named = rows.lines().filter(|row| row.ends_with(&format!(" {name}"))).peekable();
            ensure!(named.peek().is_some(), "no {name}: {rows}");
            let has = |row: &str| row.split_whitespace().nth(1).is_some_and(|word| word.starts_with(rights));
            ensure!(named.all(has), "rights of {name}: {rows}");
        }
        ensure!(machine.flavor != Flavor::Mainline || rows.lines().all(|row| !row.ends_with('?')), "{rows}");
    }
    Ok(())
}
