// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests, and what runs them: one line each, one summary line.
//!
//! A test fails also when the kernel warned while it ran. Tests that do not apply to how the machine was started are
//! not listed; those that could not run say why.

mod budget;
mod concurrency;
mod errors;
mod gate;
mod hostile;
mod leaves;
mod lifetime;
mod listing;
mod ptdump;
mod rows;
mod support;

pub(super) use support::handle_of;

use crate::machine::{Boot, Machine};
use crate::system::reserve_huge_pages;
use anyhow::bail;
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
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
    concurrency::TESTS,
    budget::TESTS,
    hostile::TESTS,
    hostile::OFF_TESTS,
    gate::OFF_TESTS,
    gate::NO_PKVM_TESTS,
    gate::LOCKDOWN_TESTS,
];

/// 2 MiB pages for the tests with blocks.
const HUGE_PAGES: u32 = 8;

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
    reserve_huge_pages(HUGE_PAGES);
    let mut log = KernelLog::open();
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    let all = ALL.iter().copied().flatten().filter(|test| test.boot == machine.boot && test.name.contains(filter));
    for test in all {
        let start = Instant::now();
        let outcome = match test.heavy && !machine.heavy && filter.is_empty() {
            true => Err(Ignored("long; runs on neoverse-n1".into()).into()),
            false => (test.run)(&machine),
        };
        let outcome = log.check(outcome);
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

/// The kernel's log, read for warnings after each test.
struct KernelLog(Option<File>);

impl KernelLog {
    fn open() -> Self {
        const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open("/dev/kmsg").ok();
        let mut log = Self(file);
        log.new_lines();
        log
    }

    /// One read gives one record, until there is none.
    fn new_lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut buffer = [0; 8192];
        let Some(file) = &mut self.0 else { return lines };
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return lines,
                Ok(n) => lines.push(String::from_utf8_lossy(&buffer[..n]).into_owned()),
                // EPIPE: records were overwritten before they were read; the next read goes on after them.
                Err(error) if error.raw_os_error() == Some(32) => {}
                Err(_) => return lines,
            }
        }
    }

    fn check(&mut self, outcome: Outcome) -> Outcome {
        const BAD: [&str; 5] = ["WARNING:", "BUG:", "Oops", "refcount_t:", "leaked"];
        let lines = self.new_lines();
        let Some(line) = lines.iter().find(|line| BAD.iter().any(|bad| line.contains(bad))) else { return outcome };
        outcome?;
        bail!("the kernel said: {}", line.trim())
    }
}
