// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask test`: every check of the project. A check that fails does not keep the others from running.

use crate::ctx::Ctx;
use crate::process::command;
use crate::qemu::{Bootable, Machine, console_path};
use crate::run::is_output;
use crate::source::TESTED;
use crate::step::{Step, clock};
use crate::{guest, kernel, lint, setup};
use anyhow::{Result, bail};
use std::process::Command;
use std::time::{Duration, Instant};

/// CPUs the in-VM tests run on: hVHE; nVHE with 40-bit addresses and a concatenated root; LPA2 and FWB.
const CPUS: [&str; 3] = ["neoverse-n1", "cortex-a53", "max"];
/// Time one CPU's tests may take.
const VM_TIMEOUT: Duration = Duration::from_secs(900);
/// Crates that must also build and be clean where they run: without an operating system.
const BARE: [&str; 3] = ["s2dump-abi", "s2dump-vmsa", "s2dump-hyp"];
/// The same, as programs of the guest.
const GUEST: [&str; 2] = ["s2dump", "s2dump-itest"];

/// Which checks.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Check {
    /// Run only checks whose name contains this, for example "vm: max"
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Run only in-VM tests whose name contains this
    #[arg(long, default_value = "", value_name = "TEXT")]
    filter: String,
}

/// Results so far.
struct Results<'a> {
    ctx: &'a Ctx,
    only: Option<&'a str>,
    passed: usize,
    failed: Vec<(String, String)>,
}

impl Results<'_> {
    /// Runs one check and keeps its result.
    fn check(&mut self, name: &str, check: impl FnOnce(&Ctx, &Step) -> Result<()>) {
        if self.only.is_some_and(|only| !name.contains(only)) {
            return;
        }
        let step = Step::start(name);
        match check(self.ctx, &step) {
            Ok(()) => {
                step.done();
                self.passed += 1;
            }
            Err(error) => {
                drop(step);
                let error = format!("{error:#}");
                println!("{name}: FAILED\n{error}");
                self.failed.push((name.to_owned(), error));
            }
        }
    }

    /// Runs a command as a check.
    fn command(&mut self, name: &str, make: impl FnOnce(&mut Command)) {
        self.check(name, |ctx, step| {
            let mut cargo = command("cargo");
            cargo.current_dir(&ctx.root);
            make(&mut cargo);
            step.run(&mut cargo, &ctx.log(&name.replace(|c: char| !c.is_ascii_alphanumeric(), "-")))
        });
    }
}

/// Runs the checks; returns the exit code.
///
/// # Errors
///
/// If set-up fails; failed checks are no error but counted.
pub(crate) fn run(ctx: &Ctx, args: &Check) -> Result<i32> {
    let started = Instant::now();
    setup::rust(ctx)?;
    let mut results = Results { ctx, only: args.only.as_deref(), passed: 0, failed: Vec::new() };
    source_checks(&mut results);
    for series in TESTED {
        results.check(&format!("linux: insertions fit {series}"), |ctx, _| kernel::check_anchors(ctx, series));
    }
    let mut built = None;
    results.check("kernel", |ctx, _| {
        built = Some(kernel::build(ctx)?);
        Ok(())
    });
    if built.is_none() && args.only.is_some() {
        built = Some(kernel::build(ctx)?);
    }
    match &built {
        Some(kernel) => kernel_checks(&mut results, kernel, &args.filter)?,
        None => results.failed.push(("lint, vm".into(), "not run: there is no kernel".into())),
    }

    println!();
    for (name, error) in &results.failed {
        println!("failed: {name}: {}", error.lines().next().unwrap_or_default());
    }
    println!("{} passed, {} failed  ({})", results.passed, results.failed.len(), clock(started.elapsed()));
    Ok(i32::from(!results.failed.is_empty()))
}

/// What needs no kernel.
fn source_checks(results: &mut Results<'_>) {
    results.command("format", |cargo| {
        cargo.args(["fmt", "--all", "--check"]);
    });
    results.command("clippy: host", |cargo| {
        cargo.args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    });
    results.command("clippy: guest", |cargo| {
        cargo.args(["clippy", "--locked", "--target", "aarch64-unknown-linux-musl", "--bins"]);
        cargo.args(GUEST.map(|name| format!("--package={name}"))).args(["--", "-D", "warnings"]);
    });
    results.command("clippy: EL2", |cargo| {
        cargo.args(["clippy", "--locked", "--target", "aarch64-unknown-none-softfloat", "--lib"]);
        cargo.args(BARE.map(|name| format!("--package={name}"))).args(["--", "-D", "warnings"]);
    });
    results.command("unit and property tests", |cargo| {
        cargo.args(["test", "--locked", "--workspace"]);
    });
    results.command("documentation", |cargo| {
        cargo.args(["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"]);
        cargo.env("RUSTDOCFLAGS", "-D warnings");
    });
}

/// What needs one.
fn kernel_checks(results: &mut Results<'_>, kernel: &kernel::Kernel, filter: &str) -> Result<()> {
    results.check("lint: EL2 object", |_, _| lint::el2_objects(&kernel.el2_objects()));
    setup::qemu(results.ctx)?;
    let mut initramfs = None;
    results.check("guest programs", |ctx, _| {
        initramfs = Some(guest::initramfs(ctx)?);
        Ok(())
    });
    if initramfs.is_none() && results.only.is_some() {
        initramfs = Some(guest::initramfs(results.ctx)?);
    }
    let Some(initramfs) = initramfs else {
        results.failed.push(("vm".into(), "not run: there are no guest programs".into()));
        return Ok(());
    };
    let run = if filter.is_empty() { "test".to_owned() } else { format!("test={filter}") };
    for cpu in CPUS {
        results.check(&format!("vm: {cpu}"), |ctx, step| {
            let machine = Machine { cpu: cpu.into(), timeout: VM_TIMEOUT, ..Machine::default() };
            let boot = Bootable { kernel, initramfs: &initramfs };
            let name = format!("test-{cpu}");
            let code = machine.boot(ctx, &boot, &run, &name, |line| {
                if is_output(line) {
                    step.detail(line);
                    if line.contains(" passed") || line.contains("FAILED") {
                        println!("vm: {cpu}: {line}");
                    }
                }
            })?;
            if code != 0 {
                bail!("tests failed in the guest (exit code {code}); console: {}", console_path(ctx, &name)?.display());
            }
            Ok(())
        });
    }
    Ok(())
}
