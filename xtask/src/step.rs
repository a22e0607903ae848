// SPDX-License-Identifier: MIT OR Apache-2.0
//! Steps: long work that says what it is doing and for how long.
//!
//! On a terminal it rewrites one line; elsewhere it prints a line every [`QUIET_PERIOD`]. All of that goes to standard
//! error, because standard output is for results.

use crate::process::shown;
use anyhow::{bail, Context, Result};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two lines where there is no terminal.
const QUIET_PERIOD: Duration = Duration::from_secs(20);
/// Time between two redraws on a terminal.
const REDRAW_PERIOD: Duration = Duration::from_millis(250);
/// Lines of a failed command that are shown.
const TAIL_LINES: usize = 40;

/// A named piece of work. Its last line tells the time it took, and says "failed" if it is dropped before
/// [`done`](Self::done).
pub(crate) struct Step {
    name: String,
    started: Instant,
    detail: Arc<Mutex<String>>,
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
    is_done: bool,
}

impl Step {
    /// Prints the first line and starts the clock.
    pub(crate) fn start(name: impl Into<String>) -> Self {
        let name = name.into();
        let started = Instant::now();
        eprintln!("==> {name}");
        let detail = Arc::new(Mutex::new(String::new()));
        let (stop, stopped) = channel();
        let thread = {
            let (name, detail) = (name.clone(), Arc::clone(&detail));
            std::thread::spawn(move || {
                let is_terminal = std::io::stderr().is_terminal();
                let period = if is_terminal { REDRAW_PERIOD } else { QUIET_PERIOD };
                while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                    let detail = detail.lock().map(|detail| detail.clone()).unwrap_or_default();
                    let line = format!("    {name}: {detail}  {}", clock(started.elapsed()));
                    if is_terminal {
                        eprint!("\r\x1b[K{}", cut(&line, 100));
                    } else {
                        eprintln!("{line}");
                    }
                }
                if is_terminal {
                    eprint!("\r\x1b[K");
                }
            })
        };
        Self { name, started, detail, ticker: Some((stop, thread)), is_done: false }
    }

    /// Prints the first line only and starts the clock: for work that consists of steps, which have their own tickers.
    pub(crate) fn around(name: impl Into<String>) -> Self {
        let name = name.into();
        eprintln!("==> {name}");
        Self { name, started: Instant::now(), detail: Arc::default(), ticker: None, is_done: false }
    }

    /// Prints a result to standard output without mixing it with the ticker's line.
    pub(crate) fn result(&self, line: &str) {
        if self.ticker.is_some() && std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
        println!("{line}");
    }

    /// Sets what the ticker shows.
    pub(crate) fn detail(&self, text: impl Into<String>) {
        if let Ok(mut detail) = self.detail.lock() {
            *detail = text.into();
        }
    }

    /// Prints the last line.
    pub(crate) fn done(mut self) {
        self.is_done = true;
    }

    /// Runs a command, its output kept in `log`; `describe` turns an output line into what the ticker shows.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or exits non-zero: with the command, the end of its output and the log's path.
    pub(crate) fn run_with(
        &self,
        command: &mut Command,
        log: &Path,
        mut describe: impl FnMut(&str) -> Option<String>,
    ) -> Result<()> {
        let mut log_file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let (reader, writer) = std::io::pipe()?;
        command.stdout(writer.try_clone()?).stderr(writer);
        let mut child = command.spawn().with_context(|| format!("cannot run `{}`", shown(command)))?;
        // The command value holds our copies of the writing end. They must be closed, or the pipe would never end.
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut tail = VecDeque::with_capacity(TAIL_LINES);
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            log_file.write_all(&line)?;
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if let Some(detail) = describe(&text) {
                self.detail(detail);
            }
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(text);
            line.clear();
        }
        let status = child.wait()?;
        if !status.success() {
            let tail = tail.make_contiguous().join("\n");
            bail!("`{}` failed ({status}); all of its output is in {}\n{tail}", shown(command), log.display());
        }
        Ok(())
    }

    /// Runs a command as [`run_with`](Self::run_with) does, showing its latest line.
    ///
    /// # Errors
    ///
    /// As [`run_with`](Self::run_with).
    pub(crate) fn run(&self, command: &mut Command, log: &Path) -> Result<()> {
        self.run_with(command, log, |line| Some(line.trim().to_owned()))
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.ticker.take() {
            drop(stop);
            // A ticker that panicked has nothing left to clean up.
            let _ = thread.join();
        }
        let end = if self.is_done { "done" } else { "FAILED" };
        eprintln!("    {}: {end}  {}", self.name, clock(self.started.elapsed()));
    }
}

/// Returns a duration as `2m10s`, or `3.4s` under a minute.
pub(crate) fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 {
        format!("{:.1}s", duration.as_secs_f64())
    } else {
        format!("{}m{:02}s", seconds / 60, seconds % 60)
    }
}

/// Returns at most the first `columns` characters.
fn cut(line: &str, columns: usize) -> String {
    if line.chars().count() <= columns {
        return line.to_owned();
    }
    // The line is cut in the middle, because the reader looks for the time at its end.
    let (head, tail): (String, String) = (
        line.chars().take(columns - 13).collect(),
        line.chars().rev().take(10).collect::<Vec<_>>().into_iter().rev().collect(),
    );
    format!("{head}...{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn clock_changes_form_at_a_minute() {
        assert_eq!(clock(Duration::from_millis(3_400)), "3.4s");
        assert_eq!(clock(Duration::from_secs(60)), "1m00s");
        assert_eq!(clock(Duration::from_secs(754)), "12m34s");
    }

    #[test]
    fn cut_keeps_the_time_at_the_end() {
        let line = format!("    kernel: {}  2m10s", "x".repeat(200));
        let short = cut(&line, 100);
        assert_eq!(short.chars().count(), 100);
        assert!(short.ends_with("  2m10s"), "{short}");
        assert_eq!(cut("short", 100), "short");
    }

    #[test]
    fn failed_command_shows_its_end_and_its_log() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let log = dir.path().join("log");
        let step = Step::start("test step");
        let error = step.run(Command::new("sh").args(["-c", "echo one; echo two >&2; exit 3"]), &log).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("one\ntwo") && error.contains("exit 3") && error.contains("log"), "{error}");
        assert_eq!(std::fs::read_to_string(&log).expect("log"), "one\ntwo\n");
    }
}
