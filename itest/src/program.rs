// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `s2dump` program, run as its users do.

use anyhow::{ensure, Context as _, Result};
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};

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
    Ok(command.output().with_context(|| format!("starting {PROGRAM}"))?.into())
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A run whose output nobody reads: it comes no further than a pipe and its own buffer hold.
#[derive(Debug)]
pub struct Stuck {
    child: Child,
    first: Vec<u8>,
}

/// What the pipe holds: what one does with pages of 4 KiB, and would be more with larger ones.
const PIPE_BYTES: usize = 1 << 16;

impl Stuck {
    /// Starts the program and waits for its first bytes.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or ends without output.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let mut command = command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context(PROGRAM)?;
        let mut first = vec![0; 64];
        let stdout = child.stdout.as_mut().context("no standard output")?;
        // Before the program has written anything: it has not opened the device yet.
        rustix::pipe::fcntl_setpipe_size(&*stdout, PIPE_BYTES).context("the size of a pipe")?;
        stdout.read_exact(&mut first).context("the program wrote nothing")?;
        Ok(Self { child, first })
    }

    /// Kills it, and waits for its end.
    ///
    /// # Errors
    ///
    /// If it has ended already.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Reads its output to the end.
    ///
    /// # Errors
    ///
    /// If that fails, or if all its output fits into a pipe: then it was never stuck.
    pub fn finish(self) -> Result<Output> {
        let output = self.child.wait_with_output()?;
        ensure!(output.stdout.len() > PIPE_BYTES, "{} bytes of output: it was not stuck", output.stdout.len());
        let stdout = [self.first, output.stdout].concat();
        Ok(Output { stdout, ..output })
    }
}
