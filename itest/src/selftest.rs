// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's own hostile host: `s2dump_selftest` in debugfs calls EL2 with wrong, random and nearly right arguments.

use anyhow::{ensure, Context as _, Result};
use std::collections::BTreeMap;
use std::fs;

/// Calls EL2 when read, and tells what it answered.
const FILE: &str = "/sys/kernel/debug/s2dump_selftest";
/// How many calls a run makes.
const CALLS: &str = "/sys/kernel/debug/s2dump_selftest_calls";
/// The most calls at once.
const CALLERS: &str = "/sys/kernel/debug/s2dump_selftest_callers";
/// Pages s2dump shares with EL2 now.
const SHARED: &str = "/sys/kernel/debug/s2dump_selftest_shared";

/// How often EL2 answered with each status, and did each operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// By status.
    pub statuses: BTreeMap<u32, u64>,
    /// By operation.
    pub done: BTreeMap<u32, u64>,
}

impl Answers {
    /// Returns how often the answer was `status`.
    #[must_use]
    pub fn of(&self, status: u32) -> u64 {
        self.statuses.get(&status).copied().unwrap_or(0)
    }

    /// Returns how many answers there were.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (op, count) in &other.done {
            *self.done.entry(*op).or_default() += count;
        }
    }
}

/// Says how many calls the next runs make.
///
/// # Errors
///
/// If the kernel has no `CONFIG_PKVM_S2DUMP_SELFTEST`.
pub fn set_calls(calls: u64) -> Result<()> {
    fs::write(CALLS, calls.to_string()).with_context(|| format!("{CALLS} (CONFIG_PKVM_S2DUMP_SELFTEST)"))
}

/// Makes a run; returns how often EL2 answered with each status.
///
/// # Errors
///
/// If EL2 did what it must not, or the kernel has no `CONFIG_PKVM_S2DUMP_SELFTEST`.
pub fn run() -> Result<Answers> {
    parse(&fs::read_to_string(FILE).with_context(|| format!("{FILE} (CONFIG_PKVM_S2DUMP_SELFTEST)"))?)
}

/// Returns how many pages s2dump shares with EL2 now: those of open sessions and files, and no others.
///
/// # Errors
///
/// If the kernel has no `CONFIG_PKVM_S2DUMP_SELFTEST`.
pub fn shared_pages() -> Result<u64> {
    let text = fs::read_to_string(SHARED).with_context(|| format!("{SHARED} (CONFIG_PKVM_S2DUMP_SELFTEST)"))?;
    text.trim().parse().with_context(|| format!("{SHARED}: {text:?}"))
}

/// Returns the most calls to EL2 that the driver and debugfs ever made at once, since boot.
///
/// # Errors
///
/// If the kernel has no `CONFIG_PKVM_S2DUMP_SELFTEST`.
pub fn most_callers() -> Result<u64> {
    let text = fs::read_to_string(CALLERS).with_context(|| format!("{CALLERS} (CONFIG_PKVM_S2DUMP_SELFTEST)"))?;
    text.trim().parse().with_context(|| format!("{CALLERS}: {text:?}"))
}

fn parse(text: &str) -> Result<Answers> {
    ensure!(text.ends_with("failures: 0\n"), "{text}");
    let counts = |what: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix(what)?.split_once(": "));
        lines.map(|(number, count)| Ok((number.parse()?, count.parse()?))).collect::<Result<_>>()
    };
    Ok(Answers { statuses: counts("status ")?, done: counts("op ")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted() {
        let mut answers = parse("seed: 3\nstatus 0: 7\nstatus 5: 2\nop 1: 4\nfailures: 0\n").unwrap();
        assert_eq!((answers.of(0), answers.of(1), answers.all()), (7, 0, 9));
        answers.add(&answers.clone());
        assert_eq!((answers.of(5), answers.all(), answers.done), (4, 18, [(1, 8)].into()));
    }

    #[test]
    fn failures_are_errors() {
        assert!(parse("status 0: 7\nfailures: 1\n").is_err());
        assert!(parse("").is_err());
    }
}
