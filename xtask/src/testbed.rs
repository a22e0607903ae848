// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask testbed`: builds `hyp/testbed`, and starts it on emulated CPUs. It compares the walker and the decoder that
//! run at EL2 with the MMU.

mod boot;
mod mutations;

use crate::ctx::Ctx;
use crate::process::command;
use crate::setup;
use crate::step::{clock, Step};
use anyhow::{bail, Result};
use boot::{boot, End};
use std::path::{Path, PathBuf};
use std::time::Instant;

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
const PACKAGE: &str = "s2dump-testbed";
const TARGET: &str = "aarch64-unknown-none-softfloat";
/// How the image starts its counts, and a failure.
const SUMMARY: &str = "summary: ";
const FAILED: &str = "FAILED: ";
/// Name of the check that QEMU still aborts, and the CPU it is made on: the smallest.
pub(crate) const ABORTS: &str = "testbed: at-permission-aborts";
const ABORTS_CPU: &str = "cortex-a72";
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
