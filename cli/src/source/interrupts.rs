// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signals that end the program, held back while it has something to do first.

use nix::sys::signal::{raise, SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use std::fs;
use std::io;
use std::time::Duration;

/// Holds back the signals of an interrupt, so that they cannot end the program while there is something to remove or to say.
///
/// Signals are blocked and asked for, not handled: no code of ours runs in a signal handler, and none is `unsafe`.
/// A signal that came takes effect on drop, in the way it has by default, so that a shell sees what ended the program.
pub(crate) struct Interrupts {
    before: SigSet,
    signals: SignalFd,
    came: Option<Signal>,
}

impl Interrupts {
    /// Holds them back from now on.
    pub(crate) fn hold() -> io::Result<Self> {
        let ignored = ignored_signals();
        let mut held = SigSet::empty();
        // A blocked signal comes even if it is ignored, as SIGHUP is after nohup.
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            if ignored >> (signal as u32 - 1) & 1 == 0 {
                held.add(signal);
            }
        }
        let signals = SignalFd::with_flags(&held, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let before = held.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Self { before, signals, came: None })
    }

    /// Returns whether one came.
    pub(crate) fn came(&mut self) -> bool {
        if let (None, Ok(Some(signal))) = (self.came, self.signals.read_signal()) {
            self.came = i32::try_from(signal.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
        }
        self.came.is_some()
    }

    /// Waits for so long, or until one comes or nobody reads standard output any more; returns whether that is so.
    pub(crate) fn wait(&mut self, time: Duration) -> bool {
        let (time, stdout) = (Timespec::try_from(time).ok(), io::stdout());
        let mut events = [PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&stdout, PollFlags::empty())];
        // That the wait ends early does no harm.
        let _ = poll(&mut events, time.as_ref());
        let is_unread = events[1].revents().intersects(PollFlags::ERR | PollFlags::HUP);
        self.came() || is_unread
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        // The one that was read is no longer pending.
        if let Some(signal) = self.came {
            let _ = raise(signal);
        }
        // Nothing can be done if the mask of before is refused, which has no reason.
        let _ = self.before.thread_set_mask();
    }
}

/// Returns the signals that this process ignores, bit 0 for signal 1; none where that cannot be found out.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
