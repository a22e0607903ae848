// SPDX-License-Identifier: MIT OR Apache-2.0
//! No call reads more descriptors than it may, however large the guest.

use super::support::{dump_leaves, handle_of};
use super::{tests, Outcome};
use crate::device::{dump_request, Device};
use crate::machine::Machine;
use crate::program::{self, exit};
use crate::scale::{at, pages};
use crate::script::page_bytes;
use crate::vmm_process::VmmProcess;
use anyhow::{ensure, Context as _, Result};
use rustix::io::Errno;
use s2dump_abi::hypercall::{DumpFlags, Status, DEFAULT_BUDGET, MAX_BUDGET, MIN_BUDGET};
use s2dump_abi::ioctl::Start;
use s2dump_abi::slot::{slot_flags, SLOT_RECORDS};
use s2dump_abi::version::features;

tests!(On: atomic_dump, digest_sees_changes; heavy: budget_is_kept_for_65536_entries);

/// An atomic dump is one call, if it was allowed at boot and fits; else it is refused, in a way of its own each.
fn atomic_dump(machine: &Machine) -> Outcome {
    let fits = VmmProcess::start("protected touch:600 share:8")?;
    // One record more than a slot holds.
    let too_big = VmmProcess::start("protected touch:256 share:128*2")?;
    let request = |vmm| -> Result<Start> { Ok(Start { flags: DumpFlags::ATOMIC.0, ..dump_request(handle_of(vmm)?) }) };
    let refusal = |vmm| -> Result<_> { Ok(Device::open()?.start_telling(&mut request(vmm)?)) };
    let hello = Device::open()?.hello()?;
    ensure!((hello.features & features::ATOMIC != 0) == machine.atomic, "features {:#x}", hello.features);
    let target = format!("vm:{}", fits.expected.pid);
    let program = program::run(&["dump", &target, "--atomic"])?;
    if machine.atomic {
        let (dump, leaves) = dump_leaves(&request(&fits)?)?;
        ensure!(dump.headers.len() == 1, "{} slots", dump.headers.len());
        ensure!(dump.headers[0].flags & slot_flags::ATOMIC != 0, "not marked atomic");
        ensure!(leaves.0.len() as u64 == pages(600) + 1, "{} entries", leaves.0.len());
        ensure!(program.ok()?.contains("one call"), "the program does not say that it was one call");
        refused_as(refusal(&too_big)?, Errno::TOOBIG, Status::TOO_BIG)?;
    } else {
        for vmm in [&fits, &too_big] {
            refused_as(refusal(vmm)?, Errno::PERM, Status::ATOMIC_NOT_PERMITTED)?;
        }
        program.fails(exit::NOT_PERMITTED, &["kvm-arm.s2dump=on,atomic"])?;
    }
    fits.end()?;
    too_big.end()
}

fn refused_as(refusal: (Result<(), Errno>, Status), errno: Errno, status: Status) -> Outcome {
    ensure!(refusal == (Err(errno), status), "{refusal:?} instead of {errno:?} and {status:?}");
    Ok(())
}

fn digest_sees_changes(_: &Machine) -> Outcome {
    let mut vmm = VmmProcess::start("protected touch:64")?;
    let request = Start { flags: DumpFlags::DIGEST.0, budget: 100, ..dump_request(handle_of(&vmm)?) };
    let digest = || -> Result<u64> {
        let (dump, _) = dump_leaves(&request)?;
        ensure!(dump.headers.iter().all(|slot| slot.flags & slot_flags::DIGEST != 0), "not marked");
        Ok(dump.headers.iter().fold(0, |sum: u64, slot| sum.wrapping_add(slot.digest)))
    };
    let (one, two) = (digest()?, digest()?);
    ensure!(one == two && one != 0, "digests of an idle guest: {one:#x}, {two:#x}");
    vmm.steps("share:0x80001000+1")?;
    let shared = digest()?;
    ensure!(shared != one, "sharing a page did not change the digest");
    vmm.steps("unshare:0x80001000+1")?;
    ensure!(digest()? == one, "taking it back did not restore the digest");
    vmm.end()
}

/// Tables of pages with so many entries that one call may not read them all, even if it is atomic, and that fold into few records.
fn budget_is_kept_for_65536_entries(machine: &Machine) -> Outcome {
    const ENTRIES: usize = 65536;
    // So many pages of 64 KiB are more memory than machines have, so there all but some are holes.
    let stride = if page_bytes() > 16 << 10 { 2048 } else { 1 };
    let touched = ENTRIES / stride;
    let vmm = VmmProcess::start_exactly(&format!(
        "protected --mem 0x80000000+{} touch:{touched}*{stride}",
        ENTRIES as u64 * page_bytes()
    ))?;
    let handle = handle_of(&vmm)?;
    let budgets =
        [(0, DEFAULT_BUDGET), (1, MIN_BUDGET), (1000, 1000), (MAX_BUDGET, MAX_BUDGET), (u32::MAX, MAX_BUDGET)];
    for (asked, cap) in budgets {
        // A few descriptors at a time take too long for all of it.
        let end = if asked == 1 { at(0x8040_0000) } else { u64::MAX };
        let (dump, leaves) = dump_leaves(&Start { budget: asked, end, ..dump_request(handle) })?;
        let most = dump.end.context("no END slot")?.visited;
        ensure!(most <= cap && most > 0, "asked for {asked}: a call visited {most}, more than {cap}");
        ensure!(
            dump.headers.iter().all(|slot| slot.budget == cap),
            "asked for {asked}: the budget in force is not {cap}"
        );
        ensure!(end != u64::MAX || leaves.0.len() == touched + 1, "{} entries", leaves.0.len());
        let (read, records) = (dump.headers.iter().map(|slot| slot.visited).sum::<u32>(), dump.records.len());
        println!(
            "  budget {asked}: {} calls, {most} of {read} descriptors at most, {records} records",
            dump.headers.len()
        );
        ensure!(end != u64::MAX || read > ENTRIES as u32, "no more than {read} descriptors");
        // Else it would be the records that are too many for one call. Each call begins one.
        ensure!(asked != u32::MAX || records < SLOT_RECORDS, "{records} records");
    }
    if machine.atomic {
        // More descriptors than one call may read even then, although they fold into few records.
        let mut atomic = Start { flags: DumpFlags::ATOMIC.0, ..dump_request(handle) };
        refused_as(Device::open()?.start_telling(&mut atomic), Errno::TOOBIG, Status::TOO_BIG)?;
    }
    vmm.end()
}
