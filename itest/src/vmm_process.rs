// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump-vmm` as a child process: a VM that can be told to go on, asked what its table holds, and killed.

use crate::expect::Expected;
use crate::scale;
use anyhow::{bail, Context as _, Result};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The program, found in `PATH`.
pub const PROGRAM: &str = "s2dump-vmm";

/// A held VM. Dropping it ends the process, and with it the VM.
#[derive(Debug)]
pub struct VmmProcess {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// What the table must hold, as last told.
    pub expected: Expected,
}

impl VmmProcess {
    /// Starts a VM with the words of `arguments`, for this kernel's pages ([`scale`]), and waits until its steps are done.
    ///
    /// # Errors
    ///
    /// If it does not start or a step fails; what it said went to the console.
    pub fn start(arguments: &str) -> Result<Self> {
        Self::launch(&scale::words(arguments)?, "--hold".into())
    }

    /// Starts a VM likewise, whose words mean what they say: for what is counted in bytes and not in pages.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_exactly(arguments: &str) -> Result<Self> {
        Self::launch(arguments, "--hold".into())
    }

    /// Starts a VM likewise, whose guest then stores to the pages of `place` for good, while they are taken away from it.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_churning(arguments: &str, place: &str) -> Result<Self> {
        Self::launch(&scale::words(arguments)?, format!("--churn={}", scale::place(place)?))
    }

    /// Starts a VM likewise, that then stays in the guest on a CPU for good and takes no more steps.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_spinning(arguments: &str, cpu: usize) -> Result<Self> {
        Self::launch(&scale::words(arguments)?, format!("--spin={cpu}"))
    }

    fn launch(arguments: &str, then: String) -> Result<Self> {
        let mut child = Command::new(PROGRAM)
            .args(arguments.split_whitespace())
            .arg(then)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {PROGRAM}"))?;
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().context("no standard output")?);
        match read_expected(&mut output) {
            Ok(expected) => Ok(Self { child, input, output, expected }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error.context(format!("{PROGRAM} {arguments}")))
            }
        }
    }

    /// Tells the VM to do more steps, without waiting.
    ///
    /// # Errors
    ///
    /// If the process is gone.
    pub fn tell(&mut self, steps: &str) -> Result<()> {
        let steps = scale::words(steps)?;
        writeln!(self.input.as_mut().context("already ended")?, "{steps}").context("the VMM is gone")
    }

    /// Waits until the steps told are done.
    ///
    /// # Errors
    ///
    /// If one failed.
    pub fn wait_done(&mut self) -> Result<()> {
        self.expected = read_expected(&mut self.output)?;
        Ok(())
    }

    /// Does more steps.
    ///
    /// # Errors
    ///
    /// If one failed.
    pub fn steps(&mut self, steps: &str) -> Result<()> {
        self.tell(steps)?;
        self.wait_done().with_context(|| format!("steps {steps}"))
    }

    /// Returns what a file says that KVM keeps for the VM in debugfs.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn debugfs(&self, file: &str) -> Result<String> {
        let path = format!("/sys/kernel/debug/kvm/{}/{file}", self.expected.debugfs);
        std::fs::read_to_string(&path).with_context(|| path)
    }

    /// Kills the process in the middle of whatever it does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends the VM and the process, orderly.
    ///
    /// # Errors
    ///
    /// If the process fails.
    pub fn end(mut self) -> Result<()> {
        self.input = None;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("{PROGRAM} ended with {status}");
        }
        Ok(())
    }
}

impl Drop for VmmProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read_expected(output: &mut BufReader<ChildStdout>) -> Result<Expected> {
    let mut line = String::new();
    output.read_line(&mut line)?;
    if line.is_empty() {
        bail!("the VMM ended");
    }
    serde_json::from_str(&line).with_context(|| format!("not what the VMM prints: {line:?}"))
}
