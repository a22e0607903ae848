// SPDX-License-Identifier: MIT OR Apache-2.0
//! No call reads more descriptors than it may, however large the guest.

use super::support::{dump_leaves, handle_of};
use super::{tests, Outcome};
use crate::device::{dump_request, Device};
use crate::machine::Machine;
use crate::vmm_process::VmmProcess;
use anyhow::{ensure, Context as _};
use s2dump_abi::hypercall::{DumpFlags, Status, ATOMIC_BUDGET, DEFAULT_BUDGET, MAX_BUDGET};
use s2dump_abi::ioctl::Start;
use s2dump_abi::slot::slot_flags;

/// One descriptor at each of the five levels there can be: with less, a call might never get to a leaf.
const LEAST_BUDGET: u32 = 5;

tests!(On: atomic_dump, digest_sees_changes; heavy: budget_is_kept_for_256_mib);

fn atomic_dump(_: &Machine) -> Outcome {
    let vmm = VmmProcess::start("protected touch:600 share:8")?;
    let request = Start { flags: DumpFlags::ATOMIC.0, ..dump_request(handle_of(&vmm)?) };
    let (dump, leaves) = dump_leaves(&request)?;
    ensure!(dump.headers.len() == 1, "{} slots", dump.headers.len());
    ensure!(dump.headers[0].flags & slot_flags::ATOMIC != 0, "not marked atomic");
    ensure!(leaves.0.len() == 601, "{} entries", leaves.0.len());
    vmm.end()?;

    // One record more than a slot holds.
    let vmm = VmmProcess::start("protected touch:256 share:128*2")?;
    let device = Device::open()?;
    let request = Start { flags: DumpFlags::ATOMIC.0, ..dump_request(handle_of(&vmm)?) };
    let result = device.run(&request).and_then(|dump| dump.status());
    let text = format!("{result:?}");
    ensure!(result.is_ok_and(|status| status == Status::TOO_BIG) || text.contains("Argument list too long"), "{text}");
    vmm.end()
}

fn digest_sees_changes(_: &Machine) -> Outcome {
    let mut vmm = VmmProcess::start("protected touch:64")?;
    let request = Start { flags: DumpFlags::DIGEST.0, budget: 100, ..dump_request(handle_of(&vmm)?) };
    let digest = || -> anyhow::Result<u64> {
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

fn budget_is_kept_for_256_mib(_: &Machine) -> Outcome {
    const PAGES: usize = 65536;
    let vmm = VmmProcess::start(&format!("protected --mem 0x80000000+256M touch:{PAGES}"))?;
    let handle = handle_of(&vmm)?;
    let budgets =
        [(0, DEFAULT_BUDGET), (1, LEAST_BUDGET), (1000, 1000), (MAX_BUDGET, MAX_BUDGET), (u32::MAX, MAX_BUDGET)];
    for (asked, cap) in budgets {
        // A few descriptors at a time take too long for all of it.
        let end = if asked == 1 { 0x8040_0000 } else { u64::MAX };
        let (dump, leaves) = dump_leaves(&Start { budget: asked, end, ..dump_request(handle) })?;
        let most = dump.end.context("no END slot")?.visited;
        ensure!(most <= cap && most > 0, "asked for {asked}: a call visited {most}, more than {cap}");
        ensure!(
            dump.headers.iter().all(|slot| slot.budget == cap),
            "asked for {asked}: the budget in force is not {cap}"
        );
        ensure!(end != u64::MAX || leaves.0.len() == PAGES + 1, "{} entries", leaves.0.len());
        println!("  budget {asked}: {} calls, {most} descriptors at most", dump.headers.len());
    }
    let atomic = Start { flags: DumpFlags::ATOMIC.0, ..dump_request(handle) };
    let result = Device::open()?.run(&atomic).and_then(|dump| dump.status());
    let text = format!("{result:?}");
    ensure!(
        result.is_ok_and(|status| status == Status::TOO_BIG) || text.contains("Argument list too long"),
        "an atomic dump of more than {ATOMIC_BUDGET} descriptors: {text}"
    );
    vmm.end()
}
