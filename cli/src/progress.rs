// SPDX-License-Identifier: MIT OR Apache-2.0
//! Progress of a dump on standard error: only on a terminal, and only after half a second.
//!
//! What is shown grows with the work. A share of the input addresses would not: nearly all of them are a few large holes,
//! so it would stay at 0 % from the first page of a guest to its last.

use crate::model::Row;
use crate::numbers::Size;
use s2dump_abi::slot::{RecordKind, SlotHeader};
use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

const QUIET: Duration = Duration::from_millis(500);
const INTERVAL: Duration = Duration::from_millis(100);

/// Shows how much was read.
pub(crate) struct Progress {
    since: Instant,
    next_at: Option<Instant>,
    /// Slots of the dump so far.
    slots: u64,
    /// Entries visited so far.
    entries: u64,
    mapped_bytes: u64,
    is_shown: bool,
}

impl Progress {
    /// Begins; shows nothing unless `is_terminal`.
    pub(crate) fn new(is_terminal: bool) -> Self {
        let since = Instant::now();
        let next_at = is_terminal.then(|| since + QUIET);
        Self { since, next_at, slots: 0, entries: 0, mapped_bytes: 0, is_shown: false }
    }

    /// Counts what a row maps.
    pub(crate) fn count(&mut self, row: &Row) {
        if row.kind == RecordKind::LEAF {
            self.mapped_bytes = self.mapped_bytes.saturating_add(row.size());
        }
    }

    /// Tells that `slot` is the last slot that was read; it may be told for each of its rows.
    pub(crate) fn tick_slot(&mut self, err: &mut dyn Write, slot: &SlotHeader) {
        if slot.sequence >= self.slots {
            self.slots = slot.sequence.saturating_add(1);
            self.tick(err, self.entries.saturating_add(slot.visited.into()), slot.next);
        }
    }

    /// Tells that so many entries were visited in all, up to the input address `at`.
    pub(crate) fn tick(&mut self, err: &mut dyn Write, entries: u64, at: u64) {
        self.entries = entries;
        let Some(next_at) = self.next_at else { return };
        let now = Instant::now();
        if now < next_at {
            return;
        }
        self.next_at = Some(now + INTERVAL);
        self.is_shown = true;
        // Nothing can be done when standard error is gone.
        let _ = write!(err, "\r{}\x1b[K", self.line(at, now.duration_since(self.since)));
        let _ = err.flush();
    }

    fn line(&self, at: u64, time: Duration) -> String {
        let rate = u128::from(self.entries) * 1000 / time.as_millis().max(1);
        format!(
            "{} entries, {} mapped, at {at:#x}; {}.{} s, {} entries/s",
            Count(self.entries),
            Size(self.mapped_bytes),
            time.as_secs(),
            time.subsec_millis() / 100,
            Count(u64::try_from(rate).unwrap_or(u64::MAX))
        )
    }

    /// Removes what was shown.
    pub(crate) fn clear(&mut self, err: &mut dyn Write) {
        if std::mem::take(&mut self.is_shown) {
            let _ = write!(err, "\r\x1b[K");
        }
    }
}

/// A count in at most five digits.
struct Count(u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            count @ ..=99_999 => write!(f, "{count}"),
            count @ ..=9_999_999 => write!(f, "{}.{}k", count / 1000, count % 1000 / 100),
            count @ ..=9_999_999_999 => write!(f, "{}.{}M", count / 1_000_000, count % 1_000_000 / 100_000),
            count => write!(f, "{}.{}G", count / 1_000_000_000, count % 1_000_000_000 / 100_000_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Changed, Mark};
    use s2dump_abi::slot::SlotKind;
    use s2dump_vmsa::{Level, TableAttrs};

    fn slot(sequence: u64, visited: u32, next: u64) -> SlotHeader {
        SlotHeader { sequence, visited, next, ..SlotHeader::new(SlotKind::RANGES) }
    }

    fn pages(count: u64, kind: RecordKind) -> Row {
        Row {
            ia: 0x8000_0000,
            oa: Some(0x4000_0000),
            raw: 0x4000_07ff,
            count,
            entry_shift: 12,
            skipped: 0,
            level: Level::L3,
            kind,
            linear: true,
            inherited: TableAttrs::NONE,
            changed: Changed::default(),
            mark: Mark::None,
        }
    }

    #[test]
    fn silent_without_terminal_and_at_first() {
        let mut shown = Vec::new();
        Progress::new(false).tick_slot(&mut shown, &slot(0, 1, 2));
        Progress::new(true).tick_slot(&mut shown, &slot(0, 1, 2));
        assert!(shown.is_empty());
    }

    /// Two calls in the same stretch of a large input-address space: what is shown moves.
    #[test]
    fn moves_while_addresses_hardly_do() {
        let mut progress = Progress { next_at: Some(Instant::now()), ..Progress::new(true) };
        let mut show = |sequence: u64, count: u64| {
            let mut shown = Vec::new();
            progress.next_at = Some(Instant::now());
            let slot = slot(sequence, 2048, 0x8000_0000 + (count << 12));
            // For each row of the slot, as a pass does.
            for _ in 0..2 {
                progress.tick_slot(&mut shown, &slot);
            }
            progress.count(&pages(count, RecordKind::LEAF));
            progress.count(&pages(512, RecordKind::INVALID));
            String::from_utf8(shown).unwrap()
        };
        let (first, second) = (show(0, 300), show(1, 700));
        assert!(first.starts_with("\r2048 entries, 0B mapped, at 0x8012c000; 0.0 s, "), "{first:?}");
        assert!(second.starts_with("\r4096 entries, 1200KiB mapped, at 0x802bc000; 0.0 s, "), "{second:?}");
        assert!(second.ends_with(" entries/s\x1b[K") && second.matches('\r').count() == 1, "{second:?}");
        let mut cleared = Vec::new();
        progress.clear(&mut cleared);
        progress.clear(&mut cleared);
        assert_eq!(cleared, b"\r\x1b[K");
    }

    #[test]
    fn line_tells_rate_and_time() {
        let progress = Progress { entries: 12_345_678, mapped_bytes: 96 << 30, ..Progress::new(false) };
        let line = progress.line(0x8000_0000, Duration::from_millis(3210));
        assert_eq!(line, "12.3M entries, 96GiB mapped, at 0x80000000; 3.2 s, 3846.0k entries/s");
    }

    #[test]
    fn counts() {
        let cases = [
            (0, "0"),
            (99_999, "99999"),
            (100_000, "100.0k"),
            (9_999_999, "9999.9k"),
            (10_000_000, "10.0M"),
            (10_000_000_000, "10.0G"),
        ];
        for (count, text) in cases {
            assert_eq!(Count(count).to_string(), text);
        }
    }
}
