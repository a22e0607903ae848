// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs tests of the code that also runs at EL2 under Miri, an interpreter that finds undefined behavior.
//!
//! Miri is some thousand times slower than the machine. So the property tests of walks are left out, and tests that ask
//! `cfg(miri)` do less or nothing.

use crate::ctx::Ctx;
use crate::setup;
use crate::step::Step;
use anyhow::{ensure, Result};

/// Tests of the walker that take seconds; the other two take minutes.
const SHORT: [&str; 1] = ["hostile::"];
const LONG: [&str; 3] = ["hostile::", "walker::", "entry::"];

/// Runs them, and prints how many; with `all` also those of `hyp` that take minutes.
///
/// # Errors
///
/// If the nightly toolchain cannot be installed, or a test fails.
pub(crate) fn check(ctx: &Ctx, step: &Step, all: bool) -> Result<()> {
    setup::nightly(ctx)?;
    let mut passed = 0;
    // The other tests of `abi` read documents.
    passed += tests(ctx, step, "abi", &["--test=bytes", "--test=values"], "")?;
    passed += tests(ctx, step, "vmsa", &["--lib", "--test=all"], "")?;
    // The borrow model is off: with it, passing on a slice of atomics takes a step for each of them, and `hyp` has no
    // unsafe code that it could check.
    let filters: &[&str] = if all { &LONG } else { &SHORT };
    let arguments: Vec<&str> = ["--test=all", "--"].iter().chain(filters).copied().collect();
    passed += tests(ctx, step, "hyp", &arguments, "-Zmiri-disable-stacked-borrows")?;
    ensure!(passed > 0, "no test was run");
    step.result(&format!("miri: {passed} tests passed"));
    Ok(())
}

/// Runs tests of a crate; returns how many passed.
fn tests(ctx: &Ctx, step: &Step, name: &str, arguments: &[&str], flags: &str) -> Result<u32> {
    let mut cargo = setup::nightly_command("cargo");
    cargo.current_dir(&ctx.root).args(["miri", "test", "--locked", "--package", &format!("s2dump-{name}")]);
    let mut passed = 0;
    step.run_with(cargo.args(arguments).env("MIRIFLAGS", flags), &ctx.log(&format!("miri-{name}")), |line| {
        passed += count(line).unwrap_or(0);
        Some(line.trim().to_owned())
    })?;
    Ok(passed)
}

/// Returns how many tests a summary of libtest says passed.
fn count(line: &str) -> Option<u32> {
    line.strip_prefix("test result: ok. ")?.split_once(" passed")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn passed_tests_are_counted() {
        assert_eq!(count("test result: ok. 52 passed; 0 failed; 0 ignored; finished in 0.18s"), Some(52));
        assert_eq!(count("test result: FAILED. 51 passed; 1 failed"), None);
    }
}
