// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `s2dump` program, run as its users do.

use anyhow::{ensure, Context as _, Result};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// The program, found in `PATH`.
pub const PROGRAM: &str = "s2dump";
/// Nobody's user and group.
const NOBODY: u32 = 65534;

/// Exit codes of the program, from its documentation.
pub mod exit {
    /// The table changed while it was read twice.
    pub const FINDING: i32 = 1;
    /// Not supported here.
    pub const UNSUPPORTED: i32 = 3;
    /// No such VM.
    pub const NO_SUCH_VM: i32 = 4;
    /// Not permitted.
    pub const NOT_PERMITTED: i32 = 5;
    /// What was printed is not all.
    pub const PARTIAL: i32 = 6;
    /// Usage or input/output.
    pub const USAGE_OR_IO: i32 = 2;
}

/// What a run gave.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Exit code; -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Returns standard output of a run that went well.
    ///
    /// # Errors
    ///
    /// Tells the exit code and standard error.
    pub fn ok(self) -> Result<String> {
        ensure!(self.code == 0, "exit code {}: {}", self.code, self.stderr.trim());
        Ok(self.stdout)
    }

    /// Checks that the run failed with `code`, and told a person something with each of `words` in it.
    ///
    /// # Errors
    ///
    /// Tells what it did instead.
    pub fn fails(&self, code: i32, words: &[&str]) -> Result<()> {
        ensure!(self.code == code, "exit code {} instead of {code}: {}", self.code, self.stderr.trim());
        let said = format!("{}{}", self.stdout, self.stderr);
        for word in words {
            ensure!(said.contains(word), "said nothing of {word:?}: {}", said.trim());
        }
        ensure!(!self.stderr.contains("panicked"), "panicked: {}", self.stderr);
        Ok(())
    }
}

/// Makes the command, quiet and without input.
#[must_use]
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs the program to its end.
///
/// # Errors
///
/// If it cannot be started.
pub fn run(arguments: &[&str]) -> Result<Ran> {
    finish(&mut command(arguments))
}

/// Runs it as nobody.
///
/// # Errors
///
/// If it cannot be started.
pub fn run_as_nobody(arguments: &[&str]) -> Result<Ran> {
    finish(command(arguments).uid(NOBODY).gid(NOBODY))
}

fn finish(command: &mut Command) -> Result<Ran> {
    let output = command.output().with_context(|| format!("starting {PROGRAM}"))?;
    Ok(Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
