// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask mutants`: does a test fail for each small change of the code that decodes, walks and folds?
//!
//! This is a thin wrapper of cargo-mutants. `.cargo/mutants.toml` tells it what to change and which tests to run. It
//! takes an hour on two cores. `docs/mutants.md` has the last result and says why the survivors survive.

use crate::ctx::Ctx;
use crate::process::command;
use crate::setup;
use anyhow::{ensure, Context, Result};

/// What to change.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Mutants {
    /// What cargo-mutants takes, for example `--file vmsa/src/vtcr.rs` or `--shard 0/8`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

/// Runs it. Its output goes to the terminal, its records to `mutants.out` in the cache.
///
/// # Errors
///
/// If it cannot be installed or run. A mutant that survives is no error; the output counts it.
pub(crate) fn run(ctx: &Ctx, args: &Mutants) -> Result<()> {
    let bin = setup::tool(ctx, &setup::CARGO_MUTANTS)?;
    let mut mutants = command(bin.join("cargo-mutants"));
    mutants.current_dir(&ctx.root).args(["mutants", "--no-shuffle", "--colors=never", "--output"]).arg(&ctx.cache);
    // Property tests run fewer cases here. If only one case in hundreds finds a mutant, a test should be written for
    // it.
    let status =
        mutants.args(&args.arguments).env("PROPTEST_CASES", "48").status().context("cannot run cargo-mutants")?;
    // 2 means that some mutants were missed; 3 means that some timed out, which happens if a mutant makes a test
    // endless.
    ensure!(matches!(status.code(), Some(0 | 2 | 3)), "cargo-mutants failed ({status})");
    println!("lists and logs: {}", ctx.cache.join("mutants.out").display());
    Ok(())
}
