// SPDX-License-Identifier: MIT OR Apache-2.0
//! A hostile host: the kernel's own `s2dump_selftest` file calls EL2 with wrong, random and nearly right arguments.

use super::support::check_nothing_broken;
use super::{Outcome, Test};
use crate::machine::{Boot, Machine};
use crate::vmm_process::VmmProcess;
use anyhow::{anyhow, ensure, Context as _, Result};
use std::fs;
use std::thread;

/// Calls EL2 when read, and tells what it answered.
const FILE: &str = "/sys/kernel/debug/s2dump_selftest";
/// Status numbers of the ABI.
const OK: u64 = 0;
const NOT_PERMITTED: u64 = 1;

pub(super) const TESTS: &[Test] = &[Test { name: "hostile_host", boot: Boot::On, heavy: false, run: hostile_host }];
pub(super) const OFF_TESTS: &[Test] =
    &[Test { name: "off_hostile_host_gets_nothing", boot: Boot::Off, heavy: false, run: hostile_host_gets_nothing }];

/// Returns how often EL2 answered with each status, if it never did what it must not.
fn answers() -> Result<Vec<(u64, u64)>> {
    let text = fs::read_to_string(FILE).with_context(|| format!("{FILE} (CONFIG_PKVM_S2DUMP_SELFTEST)"))?;
    ensure!(text.ends_with("failures: 0\n"), "{text}");
    let lines = text.lines().filter_map(|line| line.strip_prefix("status ")?.split_once(": "));
    lines.map(|(status, count)| Ok((status.parse()?, count.parse()?))).collect()
}

fn count(answers: &[(u64, u64)], wanted: u64) -> u64 {
    answers.iter().filter(|(status, _)| *status == wanted).map(|(_, count)| count).sum()
}

fn hostile_host(machine: &Machine) -> Outcome {
    // The first two handles: there is something to walk, and teardown comes after it.
    let guests = [VmmProcess::start("protected touch:600 share:2")?, VmmProcess::start("ordinary touch:40")?];
    // Twice at once: they share and unshare a page under each other's calls.
    let other = thread::spawn(answers);
    let here = answers()?;
    let there = other.join().map_err(|_| anyhow!("panicked"))??;
    for answers in [here, there] {
        let kinds = answers.iter().filter(|(_, count)| *count > 0).count();
        ensure!(count(&answers, OK) > 500 && kinds >= 7, "hardly a test: {answers:?}");
    }
    for guest in guests {
        guest.end()?;
    }
    check_nothing_broken(machine)
}

fn hostile_host_gets_nothing(_: &Machine) -> Outcome {
    let _guest = VmmProcess::start("protected touch:1")?;
    let answers = answers()?;
    let all: u64 = answers.iter().map(|(_, count)| count).sum();
    ensure!(all > 0 && count(&answers, NOT_PERMITTED) == all, "{answers:?}");
    Ok(())
}
