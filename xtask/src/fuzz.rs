// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask fuzz TARGET`: runs a target of `fuzz/` for as long as you like. `cargo xtask test` runs each shortly.
//!
//! No sanitizer: what is fuzzed forbids unsafe code, and a target that allocates too much says so itself.

use crate::ctx::Ctx;
use crate::process::command;
use crate::setup;
use crate::step::Step;
use anyhow::{ensure, Context, Result};
use std::path::PathBuf;
use std::process::Command;

/// A target, and how much of it a check is: so many executions take some seconds.
pub(crate) struct Target {
    name: &'static str,
    runs: u32,
    max_bytes: u32,
}

/// All of `fuzz/fuzz_targets`.
pub(crate) const TARGETS: [Target; 3] = [
    Target { name: "descriptor", runs: 100_000, max_bytes: 64 },
    Target { name: "walker", runs: 12_000, max_bytes: 1024 },
    Target { name: "capture", runs: 6_000, max_bytes: 1024 },
];
/// Less than a program that reads a whole capture into memory would need.
const RSS_LIMIT_MIB: u32 = 512;
/// Time that one execution may take.
const TIMEOUT_SECONDS: u32 = 20;

/// What to run.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Fuzz {
    /// descriptor, walker or capture
    target: String,
    /// How long
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
}

impl Target {
    /// Returns the name of the check.
    pub(crate) fn check_name(&self) -> String {
        format!("fuzz: {}", self.name)
    }

    /// Runs so many executions, the same ones each time, and prints their number.
    ///
    /// # Errors
    ///
    /// If one fails; the input is kept, and the error says where.
    pub(crate) fn check(&self, ctx: &Ctx, step: &Step) -> Result<()> {
        let mut run = self.command(ctx)?;
        run.args([format!("-runs={}", self.runs), "-seed=1".into()]);
        self.run(ctx, step, &mut run)
    }

    /// Returns where inputs are kept that lead somewhere, and those that fail.
    fn directory(&self, ctx: &Ctx) -> PathBuf {
        ctx.cache.join("fuzz").join(self.name)
    }

    fn command(&self, ctx: &Ctx) -> Result<Command> {
        let directory = self.directory(ctx);
        std::fs::create_dir_all(directory.join("corpus"))
            .with_context(|| format!("cannot make {}", directory.display()))?;
        // cargo-fuzz names the machine, as rustc does.
        let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let mut command = command(target_directory(ctx).join(host).join("release").join(self.name));
        command.current_dir(&directory).args(["-print_final_stats=1", "-len_control=0"]).args([
            format!("-max_len={}", self.max_bytes),
            format!("-rss_limit_mb={RSS_LIMIT_MIB}"),
            format!("-timeout={TIMEOUT_SECONDS}"),
            format!("-artifact_prefix={}/", directory.display()),
        ]);
        Ok(command)
    }

    fn run(&self, ctx: &Ctx, step: &Step, run: &mut Command) -> Result<()> {
        let (mut executions, mut per_second, mut covered) = (None, None, None);
        step.run_with(run, &ctx.log(&format!("fuzz-{}", self.name)), |line| {
            executions = stat(line, "number_of_executed_units").or(executions);
            per_second = stat(line, "average_exec_per_sec").or(per_second);
            covered = after(line, "cov: ").or(covered);
            line.starts_with('#').then(|| line.to_owned())
        })?;
        let executions = executions.filter(|&count| count > 0).context("the target told no executions")?;
        let number = |value: Option<u64>| value.map_or("?".into(), |value| value.to_string());
        step.result(&format!(
            "{}: {executions} executions, {} a second, {} edges covered",
            self.check_name(),
            number(per_second),
            number(covered)
        ));
        Ok(())
    }
}

/// Runs a target by hand, going on from what earlier runs by hand found.
///
/// # Errors
///
/// If there is no such target, or an execution fails.
pub(crate) fn run(ctx: &Ctx, args: &Fuzz) -> Result<()> {
    let target = TARGETS.iter().find(|target| target.name == args.target);
    let target = target.with_context(|| format!("no target `{}`: {:?}", args.target, TARGETS.map(|t| t.name)))?;
    build(ctx)?;
    let step = Step::start(target.check_name());
    let mut run = target.command(ctx)?;
    run.arg(format!("-max_total_time={}", args.seconds)).arg("corpus");
    target.run(ctx, &step, &mut run)?;
    step.done();
    Ok(())
}

/// Builds all targets.
///
/// # Errors
///
/// If the nightly toolchain or cargo-fuzz cannot be installed, or a target does not compile.
pub(crate) fn build(ctx: &Ctx) -> Result<()> {
    setup::nightly(ctx)?;
    let mut metadata = setup::nightly_command("cargo");
    metadata.current_dir(ctx.root.join("fuzz")).args(["metadata", "--locked", "--format-version=1"]);
    let is_locked = metadata.output().context("cannot run cargo")?.status.success();
    ensure!(is_locked, "fuzz/Cargo.lock does not fit: run `cargo update --workspace` in fuzz/ and commit it");
    let cargo_fuzz = setup::tool(ctx, &setup::CARGO_FUZZ)?;
    let step = Step::start("fuzz targets");
    let mut build = setup::nightly_command(cargo_fuzz.join("cargo-fuzz"));
    build.current_dir(&ctx.root).args(["fuzz", "build", "--sanitizer=none", "--fuzz-dir=fuzz", "--target-dir"]);
    step.run(build.arg(target_directory(ctx)), &ctx.log("fuzz-build"))?;
    step.done();
    Ok(())
}

/// Beside the others: the same crates, but instrumented.
fn target_directory(ctx: &Ctx) -> PathBuf {
    ctx.target.join("fuzz")
}

/// Returns a figure that libFuzzer prints at the end.
fn stat(line: &str, name: &str) -> Option<u64> {
    line.strip_prefix("stat::")?.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok()
}

/// Returns the number behind `label`.
fn after(line: &str, label: &str) -> Option<u64> {
    line.split_once(label)?.1.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_libfuzzer_are_found() {
        let line = "#8150	DONE   cov: 2795 ft: 5005 corp: 238/1766b lim: 11 exec/s: 388 rss: 31Mb";
        assert_eq!(after(line, "cov: "), Some(2795));
        assert_eq!(stat("stat::number_of_executed_units: 8150", "number_of_executed_units"), Some(8150));
        assert_eq!(stat("stat::peak_rss_mb:              31", "number_of_executed_units"), None);
    }

    #[test]
    fn every_target_of_the_directory_is_known() {
        let manifest = include_str!("../../fuzz/Cargo.toml");
        let mut names: Vec<_> =
            manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")).collect();
        let mut known = TARGETS.map(|target| format!("{}.rs\"", target.name));
        names.sort_unstable();
        known.sort_unstable();
        assert_eq!(names, known);
    }
}
