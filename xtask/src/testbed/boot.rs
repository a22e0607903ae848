// SPDX-License-Identifier: MIT OR Apache-2.0
//! One boot of the image, and how it ended.

use super::{Testbed, CPUS, FAILED};
use crate::ctx::Ctx;
use crate::process::{command, shown};
use crate::qemu::console_path;
use crate::setup;
use crate::verdict::Watcher;
use anyhow::{bail, Context, Result};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// Some memory is at this sixteenth of the physical address space, so that tables are where only the format's highest
/// address bits lead: those of a CPU with 52 bits are two bits above the two in the middle of a descriptor.
const HIGH_SIXTEENTH: u64 = 0b1101;
/// Time one CPU may take: some seconds, unless the machine is busy.
const TIMEOUT: Duration = Duration::from_secs(600);
/// What stands in QEMU's last words when AT ends in a stage-2 permission fault.
const ASSERTION: &str = "is_s2_format";
/// Random cases per CPU when nothing else is asked for.
const CASES: u32 = 20_000;

/// How a boot ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All comparisons agreed.
    Passed,
    /// Some did not.
    Failed,
    /// QEMU did not survive a stage-2 permission fault in AT, which is asked only if our rules are wrong about one.
    Aborted,
    /// Anything else, which says nothing about the rules: no QEMU, no time, no verdict.
    Broken(String),
}

impl End {
    /// Judges the console of a QEMU that ended with `status`, or had to be stopped.
    fn new(console: &str, status: Option<ExitStatus>) -> Self {
        let mut watcher = Watcher::default();
        console.lines().for_each(|line| watcher.line(line));
        if console.lines().any(|line| line.starts_with(FAILED)) {
            return Self::Failed;
        }
        match (watcher.end(), status) {
            (_, None) => Self::Broken(format!("no end within {} s", TIMEOUT.as_secs())),
            (Ok(0), Some(status)) if status.success() => Self::Passed,
            (Err(_), Some(status)) if !status.success() && console.contains(ASSERTION) => Self::Aborted,
            (Ok(_), Some(status)) => Self::Broken(format!("verdict, failures and exit code disagree ({status})")),
            (Err(what), Some(status)) => Self::Broken(format!("{what} ({status}; --trace shows the last case)")),
        }
    }
}

/// A boot that is over.
pub(super) struct Boot {
    pub(super) console: String,
    /// Where that is kept.
    pub(super) path: PathBuf,
    pub(super) end: End,
}

impl Boot {
    /// Returns whether it passed.
    ///
    /// # Errors
    ///
    /// Says why not, with what there is on the console about it.
    pub(super) fn passed(&self) -> Result<()> {
        let why = match &self.end {
            End::Passed => return Ok(()),
            End::Failed => "the MMU says otherwise",
            End::Aborted => "QEMU aborted: AT met a stage-2 permission fault (--trace shows which)",
            End::Broken(why) => why,
        };
        let from = self.console.find(FAILED).unwrap_or_else(|| tail(&self.console));
        bail!("{why}; console: {}\n{}", self.path.display(), self.console.get(from..).unwrap_or_default())
    }
}

/// Boots the image, and waits until it ends.
pub(super) fn boot(ctx: &Ctx, image: &Path, cpu: &str, args: &Testbed) -> Result<Boot> {
    let what = if args.is_denied { "aborts" } else { cpu };
    let path = console_path(ctx, &format!("testbed-{}", what.replace(|c: char| !c.is_ascii_alphanumeric(), "-")))?;
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut qemu = qemu_command(image, cpu, args);
    qemu.stdout(file.try_clone()?).stderr(file);
    let mut child = qemu.spawn().with_context(|| format!("cannot run `{}`", shown(&qemu)))?;
    let deadline = Instant::now() + TIMEOUT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let console = String::from_utf8_lossy(&bytes).into_owned();
    let end = End::new(&console, status);
    Ok(Boot { console, path, end })
}

/// Returns the command.
///
/// `secure=on` because the image keeps a monitor at EL3. No device is above 1 GiB, so that there is nothing where there is
/// no memory. QEMU wants a firmware before it lets memory be at other places than the first; nothing of it runs.
fn qemu_command(image: &Path, cpu: &str, args: &Testbed) -> Command {
    let mut qemu = command(setup::QEMU);
    let no_devices = "highmem-mmio=off,highmem-ecam=off,highmem-redists=off";
    qemu.args(["-machine", &format!("virt,virtualization=on,secure=on,{no_devices}"), "-cpu", cpu]);
    qemu.args(["-display", "none", "-nodefaults", "-serial", "stdio", "-bios"]).arg(image);
    qemu.arg("-device").arg(format!("loader,file={},cpu-num=0", image.display()));

    let mut words = format!("arg=image,arg=seed={},arg=cases={}", args.seed, args.cases.unwrap_or(CASES));
    let pa_bits = CPUS.iter().find(|(known, _)| *known == cpu).map(|(_, bits)| bits);
    if let Some(sixteenth) = pa_bits.map(|bits| 1_u64 << (bits - 4)) {
        let address = HIGH_SIXTEENTH * sixteenth;
        let end_mib = (address + sixteenth) >> 20;
        qemu.args(["-m", &format!("64M,slots=1,maxmem={end_mib}M"), "-object", "memory-backend-ram,id=high,size=2M"]);
        qemu.args(["-device", &format!("pc-dimm,memdev=high,addr={address}")]);
        words += &format!(",arg=high={address}");
    } else {
        qemu.args(["-m", "64M"]);
    }
    if let Some(case) = args.case {
        words += &format!(",arg=case={case}");
    }
    if args.trace {
        words += ",arg=trace";
    }
    if args.is_denied {
        words += ",arg=denied";
    }
    qemu.args(["-semihosting-config", &format!("enable=on,target=native,{words}")]);
    qemu
}

/// Returns where the last lines of a text start.
fn tail(text: &str) -> usize {
    text.trim_end().rmatch_indices('\n').nth(15).map_or(0, |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    const PASS: &str = "summary: x\ns2dump-verdict: pass\n";
    const FAIL: &str = "FAILED: settings 3\nsummary: x\ns2dump-verdict: fail 1\n";
    const ABORT: &str = "ID_AA64\nERROR: do_ats_write: Assertion `!res.cacheattrs.is_s2_format' failed.\n";

    fn ended(console: &str, code: Option<i32>) -> &'static str {
        // A wait status has the exit code in its second byte.
        match End::new(console, code.map(|code| ExitStatus::from_raw(code << 8))) {
            End::Passed => "passed",
            End::Failed => "failed",
            End::Aborted => "aborted",
            End::Broken(_) => "broken",
        }
    }

    #[test]
    fn good_ends() {
        assert_eq!(ended(PASS, Some(0)), "passed");
        assert_eq!(ended(FAIL, Some(1)), "failed");
        assert_eq!(ended("FAILED: settings 3\npanicked\n", Some(2)), "failed");
        assert_eq!(ended(ABORT, Some(134)), "aborted");
    }

    #[test]
    fn bad_what_says_nothing_about_the_rules() {
        for (console, code) in [
            ("", Some(1)),
            ("qemu-system-aarch64: unable to find CPU model\n", Some(1)),
            ("panicked at cases\n", Some(2)),
            (PASS, Some(1)),
            (PASS, None),
            (ABORT, None),
            (ABORT, Some(0)),
            ("s2dump-verdict: fail 1\n", Some(1)),
        ] {
            assert_eq!(ended(console, code), "broken", "{console} {code:?}");
        }
    }
}
