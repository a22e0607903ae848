// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ends in the middle: of the VM, of the dumper, of sessions by the thousand. Nothing leaks, nothing warns.

use super::ndjson::Printed;
use super::support::{check_nothing_broken, end_without_process, handle_of, needs_dying};
use super::{tests, Outcome};
use crate::device::{dump_request, slot_bytes, Device};
use crate::machine::{unaccounted_kib, Machine};
use crate::program::{exit, Ran, Stuck};
use crate::selftest::shared_pages;
use crate::vmm_process::VmmProcess;
use anyhow::{ensure, Context as _, Result};
use s2dump_abi::hypercall::Status;
use s2dump_abi::ioctl::Start;
use s2dump_abi::slot::{SlotHeader, SlotKind};
use zerocopy::FromBytes as _;

tests!(On:
    vm_destroyed_mid_dump,
    vm_replaced_mid_dump,
    program_tells_of_a_vm_destroyed_mid_dump,
    dumper_killed_mid_dump,
    closed_mid_dump;
    heavy: thousand_sessions
);

/// A guest with a record for each page of 4 MiB: far more than the ring, a pipe and some buffers hold together.
const CHECKERED_PAGES: u64 = 1024;

fn checkered() -> Result<VmmProcess> {
    VmmProcess::start(&format!("protected touch:{CHECKERED_PAGES} share:{}*2", CHECKERED_PAGES / 2))
}

/// Goes on with a dump whose VM has ended, and returns how the dump ended.
fn rest_of_dump(device: &Device, lent: u32) -> Result<Status> {
    let mapping = device.map()?;
    let slots = device.hello()?.slots;
    let mut release = lent;
    loop {
        let advance = device.advance(release)?;
        ensure!(advance.filled > 0, "no END slot");
        for n in 0..advance.filled {
            let page = mapping.slot(((advance.first + n) % slots) as usize)?;
            let (header, _) = SlotHeader::read_from_prefix(&page).ok().context("a slot without header")?;
            if header.kind == SlotKind::END.0 {
                return Ok(Status(header.status));
            }
        }
        release = advance.filled;
    }
}

fn vm_destroyed_mid_dump(machine: &Machine) -> Outcome {
    let vmm = checkered()?;
    let device = Device::open()?;
    // So few descriptors per call that the ring cannot hold the dump.
    device.start(&Start { budget: 4, ..dump_request(handle_of(&vmm)?) })?;
    let filled = device.advance(0)?.filled;
    vmm.end()?;
    let status = rest_of_dump(&device, filled)?;
    ensure!(status == end_without_process(machine), "ended with {status:?}");
    check_nothing_broken(machine)
}

fn vm_replaced_mid_dump(machine: &Machine) -> Outcome {
    let vmm = checkered()?;
    let handle = handle_of(&vmm)?;
    let device = Device::open()?;
    device.start(&Start { budget: 4, ..dump_request(handle) })?;
    let filled = device.advance(0)?.filled;
    vmm.end()?;
    let other = VmmProcess::start("ordinary touch:4")?;
    ensure!(handle_of(&other)? != handle, "the handle of a VM that is being dumped was given to another");
    let status = rest_of_dump(&device, filled)?;
    ensure!(status == end_without_process(machine), "one dump of two VMs: ended with {status:?}");
    other.end()?;
    check_nothing_broken(machine)
}

/// Starts a dump of the program that comes no further than its first slots.
fn stuck_dump(vmm: &VmmProcess) -> Result<Stuck> {
    let target = format!("vm:{}", vmm.expected.pid);
    Stuck::start(&["dump", &target, "--format", "ndjson", "--exact", "--budget", "4"])
}

fn program_tells_of_a_vm_destroyed_mid_dump(machine: &Machine) -> Outcome {
    needs_dying(machine)?;
    let vmm = checkered()?;
    let stuck = stuck_dump(&vmm)?;
    vmm.end()?;
    let ran = Ran::from(stuck.finish()?);
    ran.fails(exit::PARTIAL, &[])?;
    ensure!(ran.stderr.contains("INCOMPLETE"), "said to a person: {}", ran.stderr);
    let dump = Printed::parse(&ran.stdout)?;
    ensure!(dump.rows.len() > 10, "no partial results: {dump:?}");
    ensure!(!dump.trailer.complete && dump.trailer.consistency == "dying", "the trailer says {:?}", dump.trailer);
    check_nothing_broken(machine)
}

fn dumper_killed_mid_dump(machine: &Machine) -> Outcome {
    const TIMES: usize = 100;
    let vmm = checkered()?;
    for number in 0..machine.fewer(TIMES) {
        let stuck = stuck_dump(&vmm)?;
        ensure!(shared_pages()? > 0, "time {number}: the dumper shares no page: the test is wrong");
        stuck.kill()?;
        // The kernel closes the files of a process before its end can be waited for.
        let left = shared_pages()?;
        ensure!(left == 0, "time {number}: {left} pages are shared after the end of the dumper");
    }
    vmm.end()?;
    check_nothing_broken(machine)
}

fn closed_mid_dump(machine: &Machine) -> Outcome {
    let vmm = checkered()?;
    let request = Start { budget: 4, ..dump_request(handle_of(&vmm)?) };
    for lent in [false, true] {
        let device = Device::open()?;
        let mapping = device.map()?;
        device.start(&request)?;
        if lent {
            device.advance(0)?;
        }
        // The file first: the mapping keeps pages that EL2 must not have any more.
        drop(device);
        ensure!(mapping.slot(0)?.len() == slot_bytes(), "the mapping is gone");
    }
    vmm.end()?;
    check_nothing_broken(machine)
}

/// Sessions neither keep a page shared with EL2, which is counted exactly, nor lose a page of the host, which is counted
/// as memory of unknown use: that grows by no more than half a page for each session, where a lost page makes it one.
///
/// Lists of free pages fill and empty meanwhile, in bursts, where a leak is in each batch of sessions: so the median batch
/// decides. A debug kernel keeps memory of whatever happened, so there only what is counted decides, and kmemleak.
fn thousand_sessions(machine: &Machine) -> Outcome {
    const BATCHES: usize = 9;
    const TIMES: u64 = 112;
    let vmm = VmmProcess::start("protected touch:64 share:8")?;
    let request = dump_request(handle_of(&vmm)?);
    let session = || -> Result<()> {
        let device = Device::open()?;
        let (shared, slots) = (shared_pages()?, u64::from(device.hello()?.slots));
        ensure!(shared == slots, "{shared} pages are shared by one session of {slots} slots");
        ensure!(device.run(&request)?.status()? == Status::OK, "a dump failed");
        drop(device);
        let left = shared_pages()?;
        ensure!(left == 0, "{left} pages are shared after the end of a session");
        Ok(())
    };
    (0..10).try_for_each(|_| session())?;
    let mut lost = Vec::new();
    for _ in 0..BATCHES {
        let before = unaccounted_kib()?;
        (0..TIMES).try_for_each(|_| session())?;
        lost.push(unaccounted_kib()?.saturating_sub(before));
    }
    lost.sort_unstable();
    let (median, limit) = (lost[BATCHES / 2], TIMES * 4 / 2);
    println!("  KiB of unknown use after {TIMES} sessions each: {lost:?}; a median of {limit} would be a leak");
    ensure!(median < limit || machine.slow > 1, "{median} KiB are gone after {TIMES} sessions");
    vmm.end()?;
    check_nothing_broken(machine)
}
