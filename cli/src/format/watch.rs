// SPDX-License-Identifier: MIT OR Apache-2.0
//! What changed and when, a line for each range.

use super::grid::{Cell, Grid, Head};
use super::json::FORMAT_VERSION;
use super::said::{differing, ChangeJson};
use crate::machine::differ::{Change, Said};
use crate::numbers::Size;
use crate::source::clock::Time;
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::Duration;

/// How often was read, and what came of it.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    /// Readings.
    pub(crate) count: u64,
    /// Ranges that changed.
    pub(crate) changes: u64,
    /// Calls of EL2, or of the driver alone.
    pub(crate) calls: u64,
    /// Tables that could not be read each time.
    pub(crate) unread: BTreeSet<String>,
    total: Duration,
    longest: Duration,
}

impl Readings {
    /// Counts one that took so long.
    pub(crate) fn add(&mut self, time: Duration) {
        self.count += 1;
        self.total += time;
        self.longest = self.longest.max(time);
    }
}

/// Writes lines.
pub(crate) struct WatchWriter {
    /// As JSON, not for people.
    json: bool,
    /// How large pages are, as a shift.
    page_shift: u32,
    grid: Grid,
}

impl WatchWriter {
    /// Writes JSON, or for people, whose terminal, if it is one, is so wide. Pages have `1 << page_shift` bytes.
    pub(crate) fn new(json: bool, page_shift: u32, width: Option<usize>) -> Self {
        let heads = vec![
            Head::words("", 14),
            Head::words("", 10),
            Head::range("").goes(1),
            Head::numbers("", 9).goes(2),
            Head::words("", 0),
        ];
        Self { json, page_shift, grid: Grid::new(heads, width) }
    }

    /// Says what is watched.
    pub(crate) fn begin(&self, out: &mut dyn Write, target: &str, interval: Duration, share: u32) -> io::Result<()> {
        #[derive(Serialize)]
        struct Begin<'a> {
            r#type: &'static str,
            of: &'a str,
            interval_ms: u64,
            cpu_percent_allowed: u32,
        }
        let every = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        if self.json {
            let begin = Begin { r#type: "watching", of: target, interval_ms: every, cpu_percent_allowed: share };
            serde_json::to_writer(&mut *out, &begin)?;
            return writeln!(out);
        }
        writeln!(
            out,
            "# {target}: read every {every} ms, with at most {share}% of a CPU; what changes back in between is not seen"
        )
    }

    /// Writes what one reading found at `time` since boot.
    pub(crate) fn changes(&mut self, out: &mut dyn Write, time: Duration, changes: &[Change]) -> io::Result<()> {
        if self.json {
            let uptime_us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            return changes.iter().try_for_each(|change| {
                serde_json::to_writer(&mut *out, &ChangeJson::new(change, Some(uptime_us), self.page_shift))?;
                writeln!(out)
            });
        }
        let (seconds, micros) = (time.as_secs(), time.subsec_micros());
        let cells = |Change { of, start, end, old, new }: &Change| {
            let (old, new) = words(old.as_ref(), new.as_ref());
            vec![
                format!("[{seconds:>5}.{micros:06}]").into(),
                of.clone().into(),
                Cell::Range(*start, end.wrapping_sub(1)),
                Size(end - start).to_string().into(),
                format!("{old} -> {new}").into(),
            ]
        };
        let rows: Vec<Vec<Cell>> = changes.iter().map(cells).collect();
        self.grid.write_all(out, false, &rows)
    }

    /// Says how often was read in the time of `all`.
    pub(crate) fn end(&self, out: &mut dyn Write, readings: &Readings, all: Time) -> io::Result<()> {
        #[derive(Serialize)]
        struct End<'a> {
            r#type: &'static str,
            format: &'static str,
            version: &'static str,
            changes: u64,
            readings: u64,
            seconds: f64,
            average_ms: f64,
            longest_ms: f64,
            cpu_percent: f64,
            calls_per_second: f64,
            unread: &'a BTreeSet<String>,
        }
        let Readings { count, changes, calls, unread, total, longest } = readings;
        let millis = |time: Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
        let average = total.checked_div(u32::try_from(*count).unwrap_or(u32::MAX)).unwrap_or_default();
        let rate = |amount: f64| (amount / all.uptime.as_secs_f64().max(1e-9) * 10.0).round() / 10.0;
        let (cpu, calls) = (rate(all.cpu.as_secs_f64() * 100.0), rate(*calls as f64));
        let (average, longest, seconds) = (millis(average), millis(*longest), millis(all.uptime) / 1000.0);
        if self.json {
            let end = End {
                r#type: "watch",
                format: "s2dump.watch",
                version: FORMAT_VERSION,
                changes: *changes,
                readings: *count,
                seconds,
                average_ms: average,
                longest_ms: longest,
                cpu_percent: cpu,
                calls_per_second: calls,
                unread,
            };
            serde_json::to_writer(&mut *out, &end)?;
            return writeln!(out);
        }
        writeln!(
            out,
            "# {changes} changes in {count} readings, {seconds:.1} s; a reading took {average:.1} ms, at most {longest:.1} ms; \
             {cpu:.1}% of a CPU, {calls:.1} calls/s"
        )?;
        if !unread.is_empty() {
            let unread = unread.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            writeln!(out, "# not read each time, or not all: {unread}")?;
        }
        Ok(())
    }
}

/// Returns what was said and what is: only the state, if only that is said otherwise.
fn words(old: Option<&Said>, new: Option<&Said>) -> (String, String) {
    let is_state_only = old.zip(new).is_some_and(|(old, new)| differing(old, new) == ["state"]);
    let side = |said: Option<&Said>| {
        let Some(Said { rights, memory, state, address }) = said else { return "hole".to_owned() };
        if is_state_only {
            return state.to_string();
        }
        let words = [rights.as_deref(), memory.as_deref(), Some(&**state).filter(|state| *state != "-")];
        let address = address.map(|address| format!("{address:#x}"));
        words.into_iter().flatten().map(str::to_owned).chain(address).collect::<Vec<_>>().join(" ")
    };
    (side(old), side(new))
}
