// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask testbed`: builds `hyp/testbed`, and starts it on emulated CPUs. It compares the walker and the decoder that
//! run at EL2 with the MMU.

mod mutations;

use crate::ctx::Ctx;
use crate::process::{command, shown};
use crate::qemu::console_path;
use crate::setup;
use crate::step::{clock, Step};
use crate::verdict::Watcher;
use anyhow::{bail, Context, Result};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// CPUs with their physical address bits, and what each has that those before it have not, or has not.
const CPUS: [(&str, u32); 8] = [
    ("max", 52),          // everything: LPA2, LPA, FWB, XNX, TTST
    ("max,lpa2=off", 52), // 52-bit addresses with 64K pages only
    ("neoverse-n2", 48),
    ("cortex-a710", 40),
    ("neoverse-n1", 48), // no FWB, no TTST
    ("cortex-a76", 40),
    ("a64fx", 40),      // no 16K pages
    ("cortex-a72", 44), // no XNX, VHE, HPDS, HAFDBS
];
/// Some memory is at this sixteenth of the physical address space, so that tables are where only the format's highest
/// address bits lead: those of a CPU with 52 bits are two bits above the two in the middle of a descriptor.
const HIGH_SIXTEENTH: u64 = 0b1101;
const PACKAGE: &str = "s2dump-testbed";
const TARGET: &str = "aarch64-unknown-none-softfloat";
/// Time one CPU may take: some seconds, unless the machine is busy.
const TIMEOUT: Duration = Duration::from_secs(600);
/// How the image starts its counts, and a failure.
const SUMMARY: &str = "summary: ";
const FAILED: &str = "FAILED: ";
/// What stands in QEMU's last words when AT ends in a stage-2 permission fault.
const ASSERTION: &str = "is_s2_format";
/// Name of the check that QEMU still aborts, and the CPU it is made on: the smallest.
pub(crate) const ABORTS: &str = "testbed: at-permission-aborts";
const ABORTS_CPU: &str = "cortex-a72";
/// Random cases per CPU when nothing else is asked for.
const CASES: u32 = 20_000;

/// What to run.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Testbed {
    /// Only this CPU, as QEMU's -cpu takes it; may be given several times
    #[arg(long, value_name = "CPU")]
    cpu: Vec<String>,
    /// Where random cases come from
    #[arg(long, default_value_t, value_name = "N")]
    seed: u64,
    /// Random cases per CPU: 20000, or with --mutate 4000, if not given
    #[arg(long, value_name = "N")]
    cases: Option<u32>,
    /// Only the random case of this number
    #[arg(long, value_name = "N", conflicts_with = "mutate")]
    case: Option<u32>,
    /// Print each translation before it is tried: with --case, shows what QEMU aborts on
    #[arg(long, conflicts_with = "mutate")]
    trace: bool,
    /// Make one rule wrong at a time, in a copy of the sources, and see that the comparison notices
    #[arg(long)]
    mutate: bool,
    /// Nothing but what QEMU aborts on
    #[arg(skip)]
    is_denied: bool,
}

/// Builds and runs.
///
/// # Errors
///
/// If something cannot be built or started, or a comparison fails.
pub(crate) fn run(ctx: &Ctx, args: &Testbed) -> Result<()> {
    setup::rust(ctx)?;
    if args.mutate {
        setup::qemu(ctx)?;
        return mutations::run(ctx, args);
    }
    let image = image(ctx)?;
    let chosen = args.cpu.iter().map(String::as_str);
    let cpus: Vec<&str> = if args.cpu.is_empty() { cpus().collect() } else { chosen.collect() };
    let mut failed = 0;
    for cpu in cpus {
        let step = Step::start(check_name(cpu));
        match compare(ctx, &step, &image, cpu, args) {
            Ok(()) => step.done(),
            Err(error) => {
                step.result(&format!("testbed: {cpu}: {error:#}"));
                failed += 1;
            }
        }
    }
    if failed != 0 {
        bail!("testbed failed on {failed} CPUs");
    }
    if args.case.is_none() {
        let step = Step::start(ABORTS);
        aborts(ctx, &step, &image)?;
        step.done();
    }
    Ok(())
}

/// Returns the CPUs it runs on when none is asked for.
pub(crate) fn cpus() -> impl Iterator<Item = &'static str> {
    CPUS.iter().map(|(cpu, _)| *cpu)
}

/// Returns the name of the check on `cpu`.
pub(crate) fn check_name(cpu: &str) -> String {
    format!("testbed: {cpu}")
}

/// Makes sure of QEMU, and builds the image; returns where it is.
///
/// # Errors
///
/// If either fails.
pub(crate) fn image(ctx: &Ctx) -> Result<PathBuf> {
    setup::qemu(ctx)?;
    let step = Step::start("testbed: image");
    let image = build_in(&step, ctx, &ctx.root, &ctx.target)?;
    step.done();
    Ok(image)
}

fn build_in(step: &Step, ctx: &Ctx, tree: &Path, target: &Path) -> Result<PathBuf> {
    let mut cargo = command("cargo");
    cargo.current_dir(tree).args(["build", "--locked", "--release", "--package", PACKAGE, "--target", TARGET]);
    step.run(cargo.arg("--target-dir").arg(target), &ctx.log("testbed-build"))?;
    Ok(target.join(TARGET).join("release").join(PACKAGE))
}

/// Runs the image on `cpu` and prints its counts.
///
/// # Errors
///
/// If QEMU does not start or end, or a comparison fails: with the failures.
pub(crate) fn compare(ctx: &Ctx, step: &Step, image: &Path, cpu: &str, args: &Testbed) -> Result<()> {
    let started = Instant::now();
    let boot = boot(ctx, image, cpu, args)?;
    let summary = boot.console.lines().find_map(|line| line.strip_prefix(SUMMARY)).unwrap_or("no counts");
    let time = clock(started.elapsed());
    step.result(&format!("testbed: {cpu}: seed {}, {summary}; {time}", args.seed));
    boot.passed()
}

/// Looks whether QEMU still aborts on a stage-2 permission fault in AT, as `hyp/testbed/src/divergence.rs` says.
///
/// # Errors
///
/// If it does not, or something else goes wrong.
pub(crate) fn aborts(ctx: &Ctx, step: &Step, image: &Path) -> Result<()> {
    let boot = boot(ctx, image, ABORTS_CPU, &Testbed { is_denied: true, ..Testbed::default() })?;
    match boot.end {
        End::Aborted => step.result(&format!("{ABORTS}: it still does, on {ABORTS_CPU}")),
        End::Passed => bail!("nothing was asked; console: {}", boot.path.display()),
        End::Failed | End::Broken(_) => boot.passed()?,
    }
    Ok(())
}

/// Returns where the last lines of a text start.
fn tail(text: &str) -> usize {
    text.trim_end().rmatch_indices('\n').nth(15).map_or(0, |(at, _)| at)
}

/// How a boot ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
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
struct Boot {
    console: String,
    /// Where that is kept.
    path: PathBuf,
    end: End,
}

impl Boot {
    /// Returns whether it passed.
    ///
    /// # Errors
    ///
    /// Says why not, with what there is on the console about it.
    fn passed(&self) -> Result<()> {
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
fn boot(ctx: &Ctx, image: &Path, cpu: &str, args: &Testbed) -> Result<Boot> {
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
