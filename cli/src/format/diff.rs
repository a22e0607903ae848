// SPDX-License-Identifier: MIT OR Apache-2.0
//! What changed, for people as diff(1) writes it, and as JSON.

use super::grid::{Cell, Grid, Head};
use super::json::{filter_json, FilterJson, FORMAT_VERSION};
use super::said::{differing, ChangeJson};
use crate::filter::Wanted;
use crate::machine::differ::{Change, Said};
use crate::numbers::Size;
use crate::words::Word;
use serde::Serialize;
use std::io::{self, Write};

/// Writes `changes` for people, whose terminal, if it is one, is so wide.
pub(crate) fn write_text(out: &mut dyn Write, changes: &[Change], width: Option<usize>) -> io::Result<()> {
    let mut heads = vec![
        Head::words("", 1),
        Head::words("", 10),
        Head::range("").goes(1),
        Head::numbers("", 9).goes(2),
        Head::words("", 3),
        Head::words("", 9),
    ];
    match width {
        // What pKVM keeps about frames is long, and has no address behind it.
        Some(_) => heads.push(Head::words("", 0)),
        None => heads.extend([Head::words("", 15), Head::words("", 0)]),
    }
    let mut rows = Vec::new();
    for Change { of, start, end, old, new } in changes {
        for (sign, said) in [("-", old), ("+", new)] {
            let Some(Said { rights, memory, state, address }) = said else { continue };
            let word = |word: &Option<Word>| word.clone().map_or("-".into(), Cell::from);
            let mut cells: Vec<Cell> = vec![
                sign.into(),
                of.clone().into(),
                Cell::Range(*start, end.wrapping_sub(1)),
                Size(end - start).to_string().into(),
                word(rights),
                word(memory),
            ];
            match (width, address) {
                (Some(_), Some(address)) => cells.push(format!("{state} {address:#x}").into()),
                (Some(_), None) => cells.push(state.clone().into()),
                (None, Some(address)) => cells.extend([state.clone().into(), format!("{address:#x}").into()]),
                (None, None) => cells.extend([state.clone().into(), "-".into()]),
            }
            rows.push(cells);
        }
    }
    Grid::new(heads, width).write_all(out, false, &rows)
}

/// Changes of one kind in one table, or of page frames.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Total<'a> {
    of: &'a str,
    /// added, removed or changed.
    change: &'static str,
    /// What is said otherwise, of what is changed.
    r#in: Vec<&'static str>,
    ranges: u64,
    size_bytes: u64,
}

/// Adds up `changes` by table and kind, in the order in which they come.
fn totals(changes: &[Change]) -> Vec<Total<'_>> {
    let mut totals: Vec<Total<'_>> = Vec::new();
    for Change { of, start, end, old, new } in changes {
        let (change, r#in) = match (old, new) {
            (None, _) => ("added", Vec::new()),
            (_, None) => ("removed", Vec::new()),
            (Some(old), Some(new)) => ("changed", differing(old, new)),
        };
        let known = totals.iter().position(|total| (total.of, total.change, &total.r#in) == (of, change, &r#in));
        let at = known.unwrap_or_else(|| {
            totals.push(Total { of, change, r#in, ranges: 0, size_bytes: 0 });
            totals.len() - 1
        });
        totals[at].ranges += 1;
        totals[at].size_bytes = totals[at].size_bytes.saturating_add(end - start);
    }
    totals
}

/// Writes what `changes` add up to for people.
pub(crate) fn write_totals(out: &mut dyn Write, changes: &[Change]) -> io::Result<()> {
    writeln!(out, "{:<10} {:<7} {:<27} {:>8} {:>9}", "OF", "CHANGE", "IN", "RANGES", "BYTES")?;
    for Total { of, change, r#in, ranges, size_bytes } in totals(changes) {
        let what = if r#in.is_empty() { "-".into() } else { r#in.join(",") };
        writeln!(out, "{of:<10} {change:<7} {what:<27} {ranges:>8} {:>9}", Size(size_bytes).to_string())?;
    }
    Ok(())
}

/// Writes `changes` as JSON, one in each line, and a line in the end that also tells how many ranges were `left_out`.
/// Pages have `1 << page_shift` bytes.
pub(crate) fn write_json(
    out: &mut dyn Write,
    changes: &[Change],
    left_out: usize,
    unread: &[String],
    wanted: &Wanted,
    page_shift: u32,
) -> io::Result<()> {
    #[derive(Serialize)]
    struct End<'a> {
        r#type: &'static str,
        format: &'static str,
        version: &'static str,
        #[serde(skip_serializing_if = "FilterJson::is_empty")]
        filter: FilterJson,
        changes: usize,
        totals: Vec<Total<'a>>,
        /// Ranges that changed though nothing happened.
        left_out: usize,
        unread: &'a [String],
    }
    for change in changes.iter().filter(|_| wanted.rows) {
        serde_json::to_writer(&mut *out, &ChangeJson::new(change, None, page_shift))?;
        writeln!(out)?;
    }
    let (format, version) = ("s2dump.diff", FORMAT_VERSION);
    let (filter, totals) = (filter_json(&wanted.filter.options()), totals(changes));
    let end = End { r#type: "diff", format, version, filter, changes: changes.len(), totals, left_out, unread };
    serde_json::to_writer(&mut *out, &end)?;
    writeln!(out)
}
