// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signals that end the program, which ends by itself after it has said so.
//!
//! Who reads, waits or writes for long asks [`came`], stops, and says what is missing. Then [`end`] lets the signal take effect in
//! the way that it has by default, so that a shell sees what ended the program. Where nobody asks in time, or at a second signal, a
//! thread does what must be done and ends the program: Ctrl-C never has to wait for somebody who does not listen.
//!
//! State of the process, because signals are. They are blocked and asked for, not handled: no code of ours runs in a signal
//! handler, and none is `unsafe`.

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use nix::sys::signal::{raise, SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

/// So long nobody may ask: a buffer goes to a slow terminal.
const UNNOTICED: Duration = Duration::from_millis(500);
/// So long it may take to end for who asked.
const ENDING: Duration = Duration::from_secs(2);

/// The signal that came.
static CAME: OnceLock<Signal> = OnceLock::new();
/// Those that are asked for.
static ASKED: OnceLock<SigSet> = OnceLock::new();
/// Somebody knows, and ends.
static IS_NOTICED: AtomicBool = AtomicBool::new(false);
/// Ctrl-C is for the pager, which goes on.
static IS_PAGED: AtomicBool = AtomicBool::new(false);
/// Readable when a signal came.
static WAKE: OnceLock<OwnedFd> = OnceLock::new();
/// What would be left behind.
static LEFT: Mutex<Left> = Mutex::new(Left { temporary: None, terminal: None });

struct Left {
    /// A file that is to be removed.
    temporary: Option<PathBuf>,
    /// A terminal that may be in the middle of a colored row.
    terminal: Option<File>,
}

/// Begins to listen. What is said if nobody asks is JSON if `json`.
pub(crate) fn listen(json: bool) -> io::Result<()> {
    let ignored = ignored_signals();
    let mut asked = SigSet::empty();
    // A blocked signal comes even if it is ignored, as SIGHUP is after nohup.
    let is_heard = |signal: &Signal| ignored >> (*signal as u32 - 1) & 1 == 0;
    asked.extend([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().filter(is_heard));
    let signals = SignalFd::with_flags(&asked, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    if WAKE.set(eventfd(0, EventfdFlags::CLOEXEC)?).is_ok() {
        ASKED.get_or_init(|| asked).thread_block()?;
        std::thread::spawn(move || attend(&signals, json));
    }
    Ok(())
}

/// Attends to signals: tells the first that counts, and ends the program if nobody else does.
fn attend(signals: &SignalFd, json: bool) {
    let next = |time: Option<Duration>| {
        let time = time.and_then(|time| Timespec::try_from(time).ok());
        let _ = poll(&mut [PollFd::new(signals, PollFlags::IN)], time.as_ref());
        let signal = signals.read_signal().ok().flatten()?;
        Signal::try_from(i32::try_from(signal.ssi_signo).ok()?).ok()
    };
    let is_left = |signal: &Signal| *signal == Signal::SIGINT && IS_PAGED.load(Ordering::SeqCst);
    let first = loop {
        if let Some(signal) = next(None).filter(|signal| !is_left(signal)) {
            break signal;
        }
    };
    let signal = *CAME.get_or_init(|| first);
    // Nothing can be done if it fails, which has no reason.
    let _ = WAKE.get().map(|wake| rustix::io::write(wake, &1_u64.to_ne_bytes()));
    if next(Some(UNNOTICED)).is_none() && IS_NOTICED.load(Ordering::SeqCst) {
        next(Some(ENDING));
    }
    give_up(signal, json);
}

/// Starts a program, which is to get signals.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    // Signals that are blocked stay so in a child. One that comes now ends this program: nothing has begun.
    let asked = ASKED.get();
    asked.map_or(Ok(()), SigSet::thread_unblock)?;
    let child = command.spawn();
    asked.map_or(Ok(()), SigSet::thread_block)?;
    child
}

/// Ends the program, and leaves nothing behind.
fn give_up(signal: Signal, json: bool) {
    // Held for good: the others are to leave it as it is.
    let mut left = LEFT.lock();
    let mut said = "interrupted: what was written is not all";
    if let Ok(left) = &mut left {
        // One that is gone has its own name by now, and is whole.
        if left.temporary.take().is_some_and(|temporary| fs::remove_file(temporary).is_ok()) {
            said = "interrupted: nothing was written";
        }
        if let Some(terminal) = &mut left.terminal {
            let _ = terminal.write_all(b"\x1b[0m");
        }
    }
    let mut line = Vec::new();
    // Nothing can be done when standard error is gone.
    let _ = Failure::new(ExitCode::Partial, said).report(&mut line, json).and_then(|()| io::stderr().write_all(&line));
    take_effect(signal);
}

fn take_effect(signal: Signal) {
    let _ = SigSet::from(signal).thread_unblock();
    let _ = raise(signal);
}

/// Returns whether a signal came. Who asks is to end then.
pub(crate) fn came() -> bool {
    let came = CAME.get().is_some();
    if came {
        IS_NOTICED.store(true, Ordering::SeqCst);
    }
    came
}

/// Lets the signal that came, if one did, end the program.
pub(crate) fn end() {
    if let Some(signal) = CAME.get() {
        take_effect(*signal);
    }
}

/// Leaves Ctrl-C to a pager.
pub(crate) fn leave_to_pager() {
    IS_PAGED.store(true, Ordering::SeqCst);
}

/// Has the colors of `terminal` reset if the program ends in the middle of a row.
pub(crate) fn reset_at_end(terminal: File) {
    if let Ok(mut left) = LEFT.lock() {
        left.terminal = Some(terminal);
    }
}

/// Has a file removed if the program ends; none any more if it is kept, or was removed.
pub(crate) fn remove_at_end(temporary: Option<PathBuf>) {
    if let Ok(mut left) = LEFT.lock() {
        left.temporary = temporary;
    }
}

/// Waits for so long, or until a signal comes or nobody reads standard output any more; returns whether that is so.
pub(crate) fn wait(time: Duration) -> bool {
    let is_unread = is_unread_after(&[], Timespec::try_from(time).ok().as_ref());
    came() || is_unread
}

/// Waits until `from` has something for standard output, or a signal comes; returns whether nobody reads it any more.
pub(crate) fn wait_to_copy(from: &impl AsFd) -> bool {
    is_unread_after(&[(from.as_fd(), PollFlags::IN)], None)
}

fn is_unread_after(files: &[(BorrowedFd<'_>, PollFlags)], time: Option<&Timespec>) -> bool {
    let stdout = io::stdout();
    // Without events it tells only that the other end is gone.
    let stdout = (stdout.as_fd(), PollFlags::empty());
    wait_for(&[&[stdout], files].concat(), time).intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Waits likewise for what happens to one of `files`; returns what that was for the first.
fn wait_for(files: &[(BorrowedFd<'_>, PollFlags)], time: Option<&Timespec>) -> PollFlags {
    let mut files: Vec<_> = files.iter().map(|(file, events)| PollFd::from_borrowed_fd(*file, *events)).collect();
    files.extend(WAKE.get().map(|wake| PollFd::new(wake, PollFlags::IN)));
    // That the wait ends early does no harm.
    let _ = poll(&mut files, time);
    files.first().map_or(PollFlags::empty(), PollFd::revents)
}

/// What is read until a signal comes: then reading fails.
pub(crate) struct Interruptible<F>(pub(crate) F);

impl<F: Read + AsFd> Read for Interruptible<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let is_ready = !wait_for(&[(self.0.as_fd(), PollFlags::IN)], None).is_empty();
            if came() {
                return Err(io::Error::other("interrupted"));
            }
            if is_ready {
                return self.0.read(into);
            }
        }
    }
}

impl<F: Seek> Seek for Interruptible<F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

/// Returns the signals that this process ignores, bit 0 for signal 1; none where that cannot be found out.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
