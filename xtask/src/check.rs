// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask test`: every check of the project. A check that fails does not keep the others from running.

use crate::ctx::Ctx;
use crate::kernel::Variant;
use crate::linux::{flavors, objects};
use crate::process::command;
use crate::qemu::{console_path, switch, Bootable, Machine, WITHOUT_HYP};
use crate::run::is_output;
use crate::source::TESTED;
use crate::step::{clock, Step};
use crate::{corrupt, dist, fuzz, guest, kernel, lint, map, miri, oracle, setup, testbed};
use anyhow::{bail, Result};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// CPUs the in-VM tests run on: hVHE; nVHE with 40-bit addresses and a concatenated root; LPA2 and FWB.
const CPUS: [&str; 3] = ["neoverse-n1", "cortex-a53", "max"];
/// The same on more kernels. The debug kernel: the CPU that runs the long tests too, and the one with pointer authentication
/// and BTI. That with 52-bit addresses: the one that has them. That without Rust: one that can do little, and one that can do
/// all. Those with other pages: Cortex-A53 has no 16 KiB pages; with them there is one more CPU, as most tests do not run on
/// the last ([`OF_WIDE`]).
const MORE: [(Variant, &[&str]); 5] = [
    (Variant::Debug, &["neoverse-n1", "max"]),
    (Variant::Wide, &["max"]),
    (Variant::Objects, &["cortex-a53", "max"]),
    (Variant::Pages16K, &["neoverse-n1", WITHOUT_LPA2, "max"]),
    (Variant::Pages64K, &["neoverse-n1", "max"]),
];
/// How the in-VM tests boot: the guest knows by the kernel command line which tests apply.
const BOOTS: [(Boot, &[&str]); 4] =
    [(Boot::On, &CPUS), (Boot::WithoutHyp, &["neoverse-n1"]), (Boot::Off, &["neoverse-n1"]), (Boot::NoPkvm, &CPUS)];
/// More CPUs for a kernel tree that is given: nVHE with 44-bit addresses, and the one below.
const GIVEN: [&str; 2] = ["cortex-a72", WITHOUT_LPA2];
/// The CPU with FWB, but 48-bit addresses.
const WITHOUT_LPA2: &str = "max,lpa2=off";
/// The tests of protected guests' tables: all that runs with pages of 64 KiB, where a block has 512 MiB, and guests of several
/// want more memory and time than most machines have; and with 52-bit addresses and pages of 16 KiB. There KVM takes a VM's table
/// down by 134 million steps of 32 MiB (`stage2_destroy_range`, Linux 7.3), which takes QEMU's CPU some seconds for each VM.
const OF_WIDE: &str = "test=protected_";
/// The tests of what the words of the switch permit: all that differs on [`Boot::WithoutHyp`].
const OF_WORDS: &str = "test=words";
/// Time one CPU's tests may take.
const VM_TIMEOUT: Duration = Duration::from_secs(900);
/// The same on the debug kernel, where a call costs some five times as much, and the boot alone takes up to 80 s.
const DEBUG_VM_TIMEOUT: Duration = Duration::from_secs(3600);
/// Memory of a machine with the debug kernel: KASAN takes an eighth of it, and keeps freed memory for a while.
const DEBUG_MEMORY_MIB: u32 = 2048;
/// Memory of machines with larger pages: a block of level 2 has 32 and 512 MiB there, and the tests have guests of several.
const MEMORY_16K_MIB: u32 = 2048;
const MEMORY_64K_MIB: u32 = 12288;
/// Time of their tests: what is touched has to be cleared.
const LARGE_PAGES_TIMEOUT: Duration = Duration::from_secs(1800);
/// Names of the checks of the objects for kernels without Rust.
const LINT_SHIPPED: &str = "lint: objects for kernels without Rust";
const REPRODUCIBLE: &str = "objects: the same from two places";
/// Name of the check of what the kernel links at EL2.
const LINT_OBJECTS: &str = "lint: EL2 objects";
/// Name of the check that a kernel which differs does not build.
const LINT_DIFFERS: &str = "lint: kernels that differ";
/// Name of the check that the device in C compiles, which only kernels without Rust have.
const LINT_DEVICE: &str = "lint: device of kernels without Rust";
/// Crates that must also build and be clean where they run: without an operating system.
const BARE: [&str; 4] = ["s2dump-abi", "s2dump-vmsa", "s2dump-hyp", "s2dump-testbed"];
/// The same, as programs of the guest.
const GUEST: [&str; 2] = ["s2dump", "s2dump-itest"];

/// How a machine is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Boot {
    /// pKVM, and s2dump asked for.
    On,
    /// The same, but for EL2's own table.
    WithoutHyp,
    /// pKVM, and s2dump not asked for.
    Off,
    /// s2dump asked for, but KVM without protection.
    NoPkvm,
}

/// The in-VM tests on one machine.
#[derive(Clone, Debug)]
struct Vm {
    name: String,
    variant: Variant,
    cpu: &'static str,
    boot: Boot,
}

/// Returns what is said of a kernel in the names of checks.
fn words_of(variant: Variant) -> &'static str {
    match variant {
        Variant::Debug => ", debug kernel",
        Variant::Wide => ", 52-bit addresses",
        Variant::Pages16K => ", 16 KiB pages",
        Variant::Pages64K => ", 64 KiB pages",
        Variant::Objects => ", without Rust",
        Variant::S2dump => "",
    }
}

/// Returns the in-VM checks; those of one kernel follow each other. `all` adds those of more kernels, and a tree that is given
/// those of more CPUs.
fn vms(all: bool, is_given: bool) -> Vec<Vm> {
    let usual = BOOTS.iter().flat_map(|(boot, cpus)| cpus.iter().map(move |cpu| (Variant::S2dump, *cpu, *boot)));
    let more =
        MORE.iter().filter(|_| all).flat_map(|(variant, cpus)| cpus.iter().map(|cpu| (*variant, *cpu, Boot::On)));
    let vm = |(variant, cpu, boot)| {
        let kernel = words_of(variant);
        let how = match boot {
            Boot::On => "",
            Boot::WithoutHyp => ", without EL2's table",
            Boot::Off => ", s2dump off",
            Boot::NoPkvm => ", no pKVM",
        };
        Vm { name: format!("vm: {cpu}{kernel}{how}"), variant, cpu, boot }
    };
    let given = GIVEN.iter().filter(|_| is_given).map(|cpu| (Variant::S2dump, *cpu, Boot::On));
    usual.chain(given).chain(more).map(vm).collect()
}

impl Vm {
    fn machine(&self) -> Machine {
        let mut machine = Machine { cpu: self.cpu.into(), timeout: VM_TIMEOUT, ..Machine::default() };
        match self.variant {
            Variant::Debug => (machine.timeout, machine.memory_mib) = (DEBUG_VM_TIMEOUT, DEBUG_MEMORY_MIB),
            Variant::Pages16K => (machine.timeout, machine.memory_mib) = (LARGE_PAGES_TIMEOUT, MEMORY_16K_MIB),
            Variant::Pages64K => (machine.timeout, machine.memory_mib) = (LARGE_PAGES_TIMEOUT, MEMORY_64K_MIB),
            Variant::S2dump | Variant::Wide | Variant::Objects => {}
        }
        match self.boot {
            Boot::On => machine.kernel_words = vec![switch(self.cpu).into()],
            Boot::WithoutHyp => machine.kernel_words = vec![WITHOUT_HYP.into()],
            Boot::Off => machine.kernel_words.clear(),
            Boot::NoPkvm => machine.mode = "nvhe",
        }
        machine
    }

    /// Boots, and has the guest run its tests, or those that `run` names.
    fn check(&self, ctx: &Ctx, step: &Step, boot: &Bootable<'_>, run: &str) -> Result<()> {
        let name = &self.name;
        let console = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let run = match (self.boot, self.variant, self.cpu) {
            (Boot::WithoutHyp, ..) => OF_WORDS,
            // Unless other tests are asked for.
            (_, Variant::Pages16K, "max") | (_, Variant::Pages64K, _) if run == "test" => OF_WIDE,
            _ => run,
        };
        let code = self.machine().boot(ctx, boot, run, &console, |line| {
            if is_output(line) {
                step.detail(line);
                if line.contains(" passed") || line.contains("FAILED") {
                    step.result(&format!("{name}: {line}"));
                }
            }
        })?;
        if code != 0 {
            bail!("tests failed (exit code {code}); console: {}", console_path(ctx, &console)?.display());
        }
        Ok(())
    }
}

/// Which checks.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Check {
    /// Run only checks whose name contains this, for example "vm: max"
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Run also what takes long: Miri on more tests, and what needs more kernels, which are built first: one that checks
    /// itself while it runs, one with wider addresses, and two with other page sizes
    #[arg(long)]
    all: bool,
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
    /// Returns whether a check of this name was asked for.
    fn wants(&self, name: &str) -> bool {
        self.only.is_none_or(|only| name.contains(only))
    }

    /// Does what has steps of its own, and counts it as a check: asked for or not, others need it.
    fn needed<T>(&mut self, name: &str, make: impl FnOnce(&Ctx) -> Result<T>) -> Option<T> {
        let step = Step::around(name);
        match make(self.ctx) {
            Ok(made) => {
                step.done();
                self.passed += 1;
                Some(made)
            }
            Err(error) => {
                drop(step);
                self.fail(name, &error);
                None
            }
        }
    }

    /// Prints and keeps a failure.
    fn fail(&mut self, name: &str, error: &anyhow::Error) {
        let error = format!("{error:#}");
        println!("{name}: FAILED\n{error}");
        self.failed.push((name.to_owned(), error));
    }

    /// Runs one check and keeps its result.
    fn check(&mut self, name: &str, check: impl FnOnce(&Ctx, &Step) -> Result<()>) {
        if !self.wants(name) {
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
                self.fail(name, &error);
            }
        }
    }

    /// Prints the summary; returns the exit code.
    fn summary(&self, started: Instant) -> i32 {
        println!();
        for (name, error) in &self.failed {
            println!("failed: {name}: {}", error.lines().next().unwrap_or_default());
        }
        println!("{} passed, {} failed  ({})", self.passed, self.failed.len(), clock(started.elapsed()));
        i32::from(!self.failed.is_empty())
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
    source_checks(&mut results, args.all);
    let vms = vms(args.all, ctx.options.kernel_src.is_some());
    let oracles: Vec<String> = oracle::cases(args.all).map(oracle::Case::name).collect();
    let protected: Vec<String> = oracle::protected::names().map(|(name, _)| name).collect();
    let anchors = TESTED.map(|series| format!("linux: insertions fit {series}"));
    let later = ["kernel", LINT_OBJECTS, LINT_DIFFERS, LINT_DEVICE, corrupt::NAME]
        .into_iter()
        .chain(vms.iter().map(|vm| &vm.name).chain(&oracles).chain(&anchors).chain(&protected).map(String::as_str));
    if !later.into_iter().any(|name| results.wants(name)) {
        return Ok(results.summary(started));
    }
    let kernel = results.needed("kernel", kernel::build);
    for (series, name) in TESTED.into_iter().zip(&anchors) {
        if !results.wants(name) {
            continue;
        }
        if results.needed(name, |ctx| kernel::check_anchors(ctx, series)) == Some(false) {
            println!("note: Debian carries no Linux {series} any more: its insertions are not checked");
        }
    }
    match &kernel {
        Some(kernel) => kernel_checks(&mut results, kernel, args)?,
        None => results.failed.push((format!("{LINT_OBJECTS}, vm, oracle"), "not run: there is no kernel".into())),
    }

    Ok(results.summary(started))
}

/// What needs no kernel that is built.
fn source_checks(results: &mut Results<'_>, all: bool) {
    results.command("format", |cargo| {
        cargo.args(["fmt", "--all", "--check"]);
    });
    results.check("lint: sources", |ctx, _| lint::sources(&ctx.root));
    results.command("clippy: host", |cargo| {
        cargo.args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    });
    results.command("clippy: guest", |cargo| {
        cargo.args(["clippy", "--locked", "--target", "aarch64-unknown-linux-musl", "--bins"]);
        cargo.args(GUEST.map(|name| format!("--package={name}"))).args(["--", "-D", "warnings"]);
    });
    results.command("clippy: EL2", |cargo| {
        cargo.args(["clippy", "--locked", "--target", "aarch64-unknown-none-softfloat", "--lib", "--bins"]);
        cargo.args(BARE.map(|name| format!("--package={name}"))).args(["--", "-D", "warnings"]);
    });
    results.command("unit and property tests", |cargo| {
        cargo.args(["test", "--locked", "--workspace"]);
    });
    results.check(map::NAME, map::check);
    results.check("miri", |ctx, step| miri::check(ctx, step, all));
    let fuzzed: Vec<&fuzz::Target> = fuzz::TARGETS.iter().filter(|one| results.wants(&one.check_name())).collect();
    if !fuzzed.is_empty() && results.needed("fuzz", fuzz::build).is_some() {
        for target in fuzzed {
            results.check(&target.check_name(), |ctx, step| target.check(ctx, step));
        }
    }
    let wanted = |cpu: &&str| results.wants(&testbed::check_name(cpu));
    let cpus: Vec<&str> = testbed::cpus().filter(wanted).collect();
    if !cpus.is_empty() || results.wants(testbed::ABORTS) {
        if let Some(image) = results.needed("testbed", testbed::image) {
            for cpu in cpus {
                let name = testbed::check_name(cpu);
                results
                    .check(&name, |ctx, step| testbed::compare(ctx, step, &image, cpu, &testbed::Testbed::default()));
            }
            results.check(testbed::ABORTS, |ctx, step| testbed::aborts(ctx, step, &image));
        }
    }
    results.check(LINT_SHIPPED, |ctx, _| lint::shipped(&objects::build(ctx)?));
    results.check(REPRODUCIBLE, objects::check_reproducible);
    results.command("documentation", |cargo| {
        cargo.args(["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"]);
        cargo.env("RUSTDOCFLAGS", "-D warnings");
    });
    results.check(dist::NAME, dist::check);
}

/// What needs one.
fn kernel_checks(results: &mut Results<'_>, kernel: &kernel::Kernel, args: &Check) -> Result<()> {
    results.check(LINT_OBJECTS, |_, _| lint::el2_objects(&kernel.el2_objects()));
    // What changes mainline's headers, and compares with mainline's own text.
    let is_mainline = kernel.flavor.name == flavors::MAINLINE_NAME;
    if is_mainline {
        results.check(LINT_DIFFERS, |ctx, _| lint::differs::check(ctx, kernel));
        results.check(LINT_DEVICE, |ctx, _| lint::differs::check_device(ctx, kernel));
    } else {
        println!(
            "note: of flavor {}: not checked against changed headers and its own text of tables",
            kernel.flavor.name
        );
    }
    let vms = vms(args.all && is_mainline, results.ctx.options.kernel_src.is_some());
    let vms: Vec<Vm> = vms.into_iter().filter(|vm| results.wants(&vm.name)).collect();
    let oracles = oracle::cases(args.all).filter(|case| is_mainline && results.wants(&case.name()));
    let oracles: Vec<&oracle::Case> = oracles.collect();
    let protected: Vec<_> = oracle::protected::names().filter(|(name, _)| results.wants(name)).collect();
    if oracles.is_empty() && protected.is_empty() && vms.is_empty() && !results.wants(corrupt::NAME) {
        return Ok(());
    }
    setup::qemu(results.ctx)?;
    let Some(initramfs) = results.needed("guest", guest::initramfs) else {
        results.failed.push(("vm, oracle".into(), "not run: there are no guest programs".into()));
        return Ok(());
    };
    let run = if args.filter.is_empty() { "test".to_owned() } else { format!("test={}", args.filter) };
    for vms in vms.chunk_by(|one, next| one.variant == next.variant) {
        let variant = vms[0].variant;
        with_kernel(results, variant, kernel, |results, kernel| {
            // All that the debug kernel adds to code would break the rules; the usual one was looked at.
            if !matches!(variant, Variant::S2dump | Variant::Debug) {
                let name = format!("{LINT_OBJECTS}{}", words_of(variant));
                results.check(&name, |_, _| lint::el2_objects(&kernel.el2_objects()));
            }
            let boot = Bootable { kernel, initramfs: &initramfs };
            for vm in vms {
                results.check(&vm.name, |ctx, step| vm.check(ctx, step, &boot, &run));
            }
        });
    }
    let boot = Bootable { kernel, initramfs: &initramfs };
    results.check(corrupt::NAME, |ctx, step| corrupt::check(ctx, step, &boot));
    if oracles.is_empty() && protected.is_empty() {
        return Ok(());
    }
    let Some(program) = results.needed("s2dump", oracle::program) else { return Ok(()) };
    for (name, cpu) in protected {
        results.check(&name, |ctx, step| oracle::protected::check(ctx, step, &boot, &name, cpu, &program));
    }
    oracle_checks(results, kernel, &initramfs, &oracles, &program);
    Ok(())
}

/// Builds the kernel of a variant, if it is not `usual`, and makes the checks with it. If the build fails, that is the
/// result, and they are not made.
fn with_kernel(
    results: &mut Results<'_>,
    variant: Variant,
    usual: &kernel::Kernel,
    checks: impl FnOnce(&mut Results<'_>, &kernel::Kernel),
) {
    if variant == Variant::S2dump {
        checks(results, usual);
    } else if let Some(built) = results.needed(variant.name(), |ctx| kernel::build_variant(ctx, variant)) {
        checks(results, &built);
    }
}

/// What the kernels say of their own tables, against what is read of the machine's memory.
fn oracle_checks(
    results: &mut Results<'_>,
    kernel: &kernel::Kernel,
    initramfs: &Path,
    cases: &[&oracle::Case],
    program: &Path,
) {
    for cases in cases.chunk_by(|one, next| one.variant == next.variant) {
        with_kernel(results, cases[0].variant, kernel, |results, kernel| {
            let boot = Bootable { kernel, initramfs };
            for case in cases {
                results.check(&case.name(), |ctx, step| case.check(ctx, step, &boot, program));
            }
        });
    }
}
