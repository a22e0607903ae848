// SPDX-License-Identifier: MIT OR Apache-2.0
//! Progress on standard error: only on a terminal, and only after half a second.

use std::io::Write;
use std::time::{Duration, Instant};

const QUIET: Duration = Duration::from_millis(500);
const INTERVAL: Duration = Duration::from_millis(100);

/// Shows how much of a range is covered.
pub(crate) struct Progress {
    next_at: Option<Instant>,
    last: u64,
    is_shown: bool,
}

impl Progress {
    /// Begins; shows nothing unless `is_terminal`.
    pub(crate) fn new(is_terminal: bool) -> Self {
        Self { next_at: is_terminal.then(|| Instant::now() + QUIET), last: u64::MAX, is_shown: false }
    }

    /// Tells that `start..at` of `start..end` is covered.
    pub(crate) fn tick(&mut self, err: &mut dyn Write, start: u64, at: u64, end: u64) {
        let Some(next_at) = self.next_at else { return };
        // Addresses move once per slot: the clock is not read for each row.
        if at == self.last {
            return;
        }
        self.last = at;
        let now = Instant::now();
        if now < next_at {
            return;
        }
        self.next_at = Some(now + INTERVAL);
        self.is_shown = true;
        let percent = 100 * u128::from(at.saturating_sub(start)) / u128::from(end.saturating_sub(start).max(1));
        // Nothing can be done when standard error is gone.
        let _ = write!(err, "\r{at:#x} of {end:#x} ({percent}%)\x1b[K");
        let _ = err.flush();
    }

    /// Removes what was shown.
    pub(crate) fn clear(&mut self, err: &mut dyn Write) {
        if std::mem::take(&mut self.is_shown) {
            let _ = write!(err, "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_without_terminal_and_at_first() {
        let mut shown = Vec::new();
        Progress::new(false).tick(&mut shown, 0, 1, 2);
        Progress::new(true).tick(&mut shown, 0, 1, 2);
        assert!(shown.is_empty());
    }

    #[test]
    fn shown_later_and_cleared() {
        let mut shown = Vec::new();
        let mut progress = Progress { next_at: Some(Instant::now()), last: u64::MAX, is_shown: false };
        progress.tick(&mut shown, 0, 0x1000, 0x4000);
        progress.clear(&mut shown);
        assert_eq!(String::from_utf8(shown).unwrap(), "\r0x1000 of 0x4000 (25%)\x1b[K\r\x1b[K");
    }
}
