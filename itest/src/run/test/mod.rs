// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests, and what runs them: one line each, one summary line.
//!
//! A test fails also if the kernel complained while it ran, or if it left something behind: a VM, or a page that is
//! shared with EL2. Tests that do not apply to how the machine was started are not listed; those that could not run say
//! why.

pub(super) mod aftermath;
mod audit;
mod budget;
mod changes;
mod concurrency;
mod errors;
mod fuzz;
mod gate;
mod host;
mod hostile;
mod identity;
pub(super) mod kernel_log;
mod leaves;
mod lifetime;
mod listing;
mod names;
mod ndjson;
mod ptdump;
mod report;
mod rows;
mod support;
mod teardown;
mod tutorial;
mod via;
mod watch;

pub(super) use changes::text_rows;
pub(super) use support::{handle_of, list};

use crate::machine::{Boot, Machine};
use crate::script::block_bytes;
use crate::system::reserve_huge_pages;
use kernel_log::KernelLog;
use std::time::Instant;

/// The error of a test that could not run here, and why.
#[derive(Clone, Debug)]
pub struct Ignored(pub String);

impl std::fmt::Display for Ignored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Ignored {}

/// What a test returns: [`Ignored`], or what it found.
pub type Outcome = anyhow::Result<()>;

/// A test.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// What the filter looks at.
    pub name: &'static str,
    /// How the machine must have been started.
    pub boot: Boot,
    /// Takes long, and depends little on the processor.
    pub heavy: bool,
    /// The test.
    pub run: fn(&Machine) -> Outcome,
}

/// Makes the list of a module's tests, each named as its function.
macro_rules! tests {
    ($boot:ident: $($light:ident),* $(,)? $(; heavy: $($heavy:ident),+ $(,)?)?) => {
        /// The tests of this module.
        pub(super) const TESTS: &[$crate::run::test::Test] = &[
            $($crate::run::test::test!($boot, false, $light),)*
            $($($crate::run::test::test!($boot, true, $heavy),)+)?
        ];
    };
}
/// Makes one.
macro_rules! test {
    ($boot:ident, $heavy:literal, $name:ident) => {
        $crate::run::test::Test {
            name: stringify!($name),
            boot: $crate::machine::Boot::$boot,
            heavy: $heavy,
            run: $name,
        }
    };
}
pub(crate) use {test, tests};

/// All tests, in order: those that leave something behind are last.
const ALL: &[&[Test]] = &[
    listing::TESTS,
    leaves::TESTS,
    ptdump::TESTS,
    rows::TESTS,
    errors::TESTS,
    lifetime::TESTS,
    identity::TESTS,
    teardown::TESTS,
    concurrency::TESTS,
    audit::TESTS,
    changes::TESTS,
    tutorial::TESTS,
    via::TESTS,
    watch::TESTS,
    report::TESTS,
    budget::TESTS,
    host::TESTS,
    names::TESTS,
    fuzz::TESTS,
    hostile::TESTS,
    hostile::OFF_TESTS,
    gate::OFF_TESTS,
    gate::NO_PKVM_TESTS,
    kernel_log::LEAK_TESTS,
    gate::LOCKDOWN_TESTS,
];

/// Returns how many huge pages the tests with blocks need, which are blocks of level 2: of those of 512 MiB no more than are
/// touched at once.
fn huge_pages() -> u32 {
    if block_bytes() > 32 << 20 {
        4
    } else {
        8
    }
}

/// Audits so many times while VMs live; returns 0 if there was no finding.
pub fn audits(count: usize) -> i32 {
    let audits = || -> Outcome {
        let (machine, mut log) = (Machine::look()?, KernelLog::open()?);
        let outcome = audit::while_vms_live(count);
        log.check(outcome.and_then(|()| aftermath::check(&machine)))
    };
    match audits() {
        Ok(()) => 0,
        Err(error) => {
            println!("audits: {error:#}");
            1
        }
    }
}

/// Runs the tests whose name contains `filter`; returns 0 if none failed and some passed.
pub fn run(filter: &str) -> i32 {
    let machine = match Machine::look() {
        Ok(machine) => machine,
        Err(error) => {
            println!("tests: {error:#}");
            return 1;
        }
    };
    println!("tests: {machine:x?}");
    reserve_huge_pages(huge_pages());
    let mut log = match KernelLog::open() {
        Ok(log) => log,
        Err(error) => {
            println!("tests: {error:#}");
            return 1;
        }
    };
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    if let Some(line) = log.complaint() {
        failed += 1;
        println!("the kernel said at boot: {line}");
    }
    let all = ALL.iter().copied().flatten().filter(|test| test.boot == machine.boot && test.name.contains(filter));
    for test in all {
        let start = Instant::now();
        let outcome = match test.heavy && !machine.heavy && filter.is_empty() {
            true => Err(Ignored("long; runs on neoverse-n1".into()).into()),
            false => (test.run)(&machine),
        };
        let outcome = log.check(outcome.and_then(|()| aftermath::check(&machine)));
        let seconds = start.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("test {} ... ok ({seconds:.1} s)", test.name);
            }
            Err(error) => match error.downcast::<Ignored>() {
                Ok(why) => {
                    ignored += 1;
                    println!("test {} ... ignored: {why}", test.name);
                }
                Err(error) => {
                    failed += 1;
                    println!("test {} ... FAILED ({seconds:.1} s): {error:#}", test.name);
                }
            },
        }
    }
    println!("tests: {passed} passed, {failed} failed, {ignored} ignored");
    i32::from(failed > 0 || passed == 0)
}
