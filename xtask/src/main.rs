// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds, boots, tests and measures s2dump: `cargo xtask TASK`.
//!
//! Every task does its own set-up and keeps everything big in the user's cache directory; see [`ctx::Ctx`].

mod apt;
mod bench;
mod check;
mod corrupt;
mod cpio;
mod ctx;
mod demo;
mod dist;
mod fuzz;
mod gdb;
mod guest;
mod kernel;
mod lint;
mod linux;
mod map;
mod miri;
mod mutants;
mod oracle;
mod process;
mod qemu;
mod run;
mod setup;
mod source;
mod step;
mod testbed;
mod verdict;

use anyhow::Result;
use clap::{Parser, Subcommand};
use ctx::{Ctx, Options};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, boots, tests and measures s2dump")]
struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Show a protected guest's stage-2 table, read at EL2 of a real pKVM in QEMU
    Demo,
    /// Run every check of the project
    Test(check::Check),
    /// Build the kernel with s2dump in it, and print where it is
    Kernel(kernel::Build),
    /// Boot for a shell, or for one command: run -- COMMAND
    Run(run::Run),
    /// Check the rules for the sources, and for what s2dump adds to EL2
    Lint(lint::Lint),
    /// Feed a target of fuzz/ for some time: descriptor, walker or capture
    Fuzz(fuzz::Fuzz),
    /// Change the code, and see whether a test notices
    Mutants(mutants::Mutants),
    /// Compare the walker and the decoder with the MMU of emulated CPUs
    Testbed(testbed::Testbed),
    /// Look at pages of `s2dump map` in a browser, if there is one
    Map,
    /// Make what people install: tarballs of the tool for aarch64 and x86-64, and of the patches for the newest kernel
    Dist(dist::Dist),
    /// Print what a dump costs, in instructions and as ratios, beside the goals
    Bench,
    /// Put s2dump into a kernel tree of yours
    #[command(subcommand)]
    Linux(linux::Task),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let code = Ctx::new(arguments.options).and_then(|ctx| perform(&ctx, arguments.task)).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        1
    });
    // The exit code of a command in the guest is handed on; what does not fit is a failure all the same.
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Performs a task; returns the exit code.
fn perform(ctx: &Ctx, task: Task) -> Result<i32> {
    match task {
        Task::Demo => demo::run(ctx).map(|()| 0),
        Task::Test(check) => check::run(ctx, &check),
        Task::Kernel(build) => kernel::run(ctx, &build).map(|()| 0),
        Task::Run(run) => run::run(ctx, &run),
        Task::Lint(lint) => lint::run(ctx, &lint).map(|()| 0),
        Task::Fuzz(fuzz) => fuzz::run(ctx, &fuzz).map(|()| 0),
        Task::Mutants(mutants) => mutants::run(ctx, &mutants).map(|()| 0),
        Task::Testbed(testbed) => testbed::run(ctx, &testbed).map(|()| 0),
        Task::Map => map::run(ctx).map(|()| 0),
        Task::Dist(dist) => dist::run(ctx, &dist).map(|()| 0),
        Task::Bench => bench::run(ctx).map(|()| 0),
        Task::Linux(task) => linux::run(ctx, &task).map(|()| 0),
    }
}
