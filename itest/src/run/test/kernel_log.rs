// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's log: whatever it complains about while a test runs is a failure of that test.

use super::{Ignored, Outcome, Test};
use crate::machine::{Boot, Machine};
use anyhow::{bail, ensure, Context as _, Result};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

/// What a healthy kernel never says. The checkers of a debug kernel are among them: lockdep, RCU, atomic sleep, KASAN,
/// UBSAN, kmemleak, the list and object debuggers, CFI, and the detectors of hung tasks and CPUs.
const COMPLAINTS: [&str; 32] = [
    "WARNING:",
    "BUG:",
    "Oops",
    "Internal error",
    "Kernel panic",
    "HYP panic",
    "Call trace:",
    "INFO: possible",
    "INFO: task",
    "INFO: rcu",
    "INFO: trying to register",
    "possible circular locking",
    "possible recursive locking",
    "inconsistent lock state",
    "DEBUG_LOCKS_WARN_ON",
    "suspicious RCU usage",
    "sleeping function called",
    "scheduling while atomic",
    "KASAN:",
    "UBSAN:",
    "kmemleak: ",
    "list_add corruption",
    "list_del corruption",
    "ODEBUG:",
    "CFI failure",
    "refcount_t:",
    "leaked",
    "stays shared with EL2",
    "soft lockup",
    "rcu_preempt detected",
    "detected stall",
    "blocked for more than",
];
/// Said by nobody but this reader.
const LOST: &str = "records of the kernel's log were lost";
/// Lines that look like one: kmemleak telling that it is there.
const NO_COMPLAINTS: [&str; 2] =
    ["kmemleak: Kernel memory leak detector initialized", "kmemleak: Automatic memory scanning"];

/// Where kmemleak is asked.
const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";
/// Younger objects are not reported, as a pointer to them may be in a register.
const KMEMLEAK_AGE: Duration = Duration::from_secs(6);

/// The kernel's log, read for complaints after each test.
pub(crate) struct KernelLog(File);

impl KernelLog {
    /// Opens the log at its beginning: what was said at boot counts too.
    pub(crate) fn open() -> Result<Self> {
        const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        const PATH: &str = "/dev/kmsg";
        Ok(Self(OpenOptions::new().read(true).custom_flags(NONBLOCK).open(PATH).context(PATH)?))
    }

    /// Returns the first complaint since the last look.
    pub(crate) fn complaint(&mut self) -> Option<String> {
        let mut first = None;
        for line in self.new_lines() {
            if first.is_none() && is_complaint(&line) {
                first = Some(line.trim().to_owned());
            }
        }
        first
    }

    /// One read gives one record, until there is none. That records were overwritten unread, or cannot be read, is a line
    /// of its own: a complaint may have been among them.
    fn new_lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut buffer = [0; 8192];
        loop {
            match self.0.read(&mut buffer).map_err(|error| Errno::from_io_error(&error)) {
                Ok(0) | Err(Some(Errno::AGAIN)) => return lines,
                Ok(n) => lines.push(String::from_utf8_lossy(&buffer[..n]).into_owned()),
                // The next read goes on after them.
                Err(Some(Errno::PIPE)) => lines.push(LOST.to_owned()),
                Err(errno) => {
                    lines.push(format!("{LOST}: {errno:?}"));
                    return lines;
                }
            }
        }
    }

    /// Turns a success into a failure if the kernel complained meanwhile.
    pub(crate) fn check(&mut self, outcome: Outcome) -> Outcome {
        let Some(line) = self.complaint() else { return outcome };
        outcome?;
        bail!("the kernel said: {line}")
    }
}

fn is_complaint(line: &str) -> bool {
    line.starts_with(LOST)
        || COMPLAINTS.iter().any(|one| line.contains(one)) && !NO_COMPLAINTS.iter().any(|one| line.contains(one))
}

/// Asks about all tests before it. A kernel that is locked down does not answer.
pub(super) const LEAK_TESTS: &[Test] =
    &[Test { name: "kmemleak_finds_nothing", boot: Boot::On, heavy: false, run: kmemleak_finds_nothing }];

fn kmemleak_finds_nothing(_: &Machine) -> Outcome {
    if let Some(leaks) = leaks()? {
        bail!("kmemleak found:\n{leaks}");
    }
    ensure!(fs::exists(KMEMLEAK)?, Ignored("a kernel without kmemleak".into()));
    Ok(())
}

/// Returns what kmemleak holds for leaked of what s2dump allocated; none in a kernel without kmemleak.
///
/// # Errors
///
/// If kmemleak is there, but does not scan; or if it is not there, but lockdep is: the debug kernel has both.
pub(crate) fn leaks() -> Result<Option<String>> {
    if !fs::exists(KMEMLEAK)? {
        ensure!(!fs::exists("/proc/lockdep_chains")?, "a debug kernel without {KMEMLEAK}");
        return Ok(None);
    }
    // A first scan finds what is not referenced, a second one whether that is still so.
    for _ in 0..2 {
        fs::write(KMEMLEAK, "scan").context(KMEMLEAK)?;
        std::thread::sleep(KMEMLEAK_AGE);
    }
    fs::write(KMEMLEAK, "scan").context(KMEMLEAK)?;
    let ours = ours(&fs::read_to_string(KMEMLEAK)?);
    Ok((!ours.is_empty()).then_some(ours))
}

/// Returns the reports whose backtrace goes through s2dump.
fn ours(reports: &str) -> String {
    let mut found = String::new();
    let mut report = String::new();
    for line in reports.lines().chain(["unreferenced object"]) {
        if line.starts_with("unreferenced object") {
            if report.contains("s2dump") {
                found.push_str(&report);
            }
            report.clear();
        }
        report.push_str(line);
        report.push('\n');
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_of_every_checker() {
        for line in [
            "4,1,1,-;WARNING: CPU: 0 PID: 1 at arch/arm64/kvm/pkvm.c:1 x",
            "WARNING: possible circular locking dependency detected",
            "WARNING: suspicious RCU usage",
            "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:1",
            "BUG: KASAN: slab-use-after-free in s2dump_x+0x1/0x2",
            "UBSAN: array-index-out-of-bounds in x.c:1:2",
            "INFO: task s2dump:1 blocked for more than 120 seconds.",
            "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [s2dump:1]",
            "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
            "list_del corruption. prev->next should be 0",
            "s2dump: page 0x1 stays shared with EL2: leaked",
        ] {
            assert!(is_complaint(line), "{line}");
        }
    }

    #[test]
    fn good_lines() {
        for line in [
            "kmemleak: Kernel memory leak detector initialized (mem pool available: 15000)",
            "s2dump: /dev/s2dump: EL2 speaks 2.0",
            "rcu: Preemptible hierarchical RCU implementation.",
            "kvm [1]: Protected nVHE mode initialized successfully",
        ] {
            assert!(!is_complaint(line), "{line}");
        }
    }

    #[test]
    fn leaks_of_s2dump_are_told_from_others() {
        let reports =
            "unreferenced object 0x1 (size 64):\n  backtrace:\n    kvm_vm\nunreferenced object 0x2 (size 40):\n  \
            backtrace:\n    s2dump_el1_vms\n";
        assert_eq!(ours(reports), "unreferenced object 0x2 (size 40):\n  backtrace:\n    s2dump_el1_vms\n");
        assert!(ours("").is_empty());
    }
}
