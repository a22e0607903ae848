// SPDX-License-Identifier: MIT OR Apache-2.0
//! What servers of this machine have in common: programs that others wrote.

use anyhow::{ensure, Context as _, Result};
use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a process may take to do what takes it no time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Returns what a program says that went well.
///
/// # Errors
///
/// If it cannot be started or fails.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("starting {program}"))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), said(&output.stderr));
    Ok(said(&output.stdout))
}

/// Returns whether a process runs a program that was started by this name. One that has ended, and nobody waited for, has none.
///
/// # Errors
///
/// If `/proc` cannot be read.
pub fn is_running(program: &str) -> Result<bool> {
    for process in fs::read_dir("/proc")? {
        // What is no process, or has ended meanwhile, has no command line.
        let words = fs::read_to_string(process?.path().join("cmdline")).unwrap_or_default();
        if words.split('\0').next() == Some(program) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Waits for a condition.
///
/// # Errors
///
/// If it cannot be told, or does not come true.
pub fn wait_until(mut is_true: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !is_true()? {
        ensure!(begin.elapsed() < PATIENCE, "waited for {} s", PATIENCE.as_secs());
        sleep(Duration::from_millis(20));
    }
    Ok(())
}
