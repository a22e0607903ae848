// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who uses physical memory, for people and as JSON.

use super::grid::{Cell, Grid, Head};
use super::hex::{Hex, SpanJson};
use super::json::{filter_json, FilterJson, FORMAT_VERSION};
use super::table::write_filter;
use crate::filter::{self, Wanted};
use crate::leaf;
use crate::machine::uses::{Kind, Use};
use crate::machine::Machine;
use crate::meaning;
use crate::numbers::{AddressRange, Size};
use crate::words;
use s2dump_vmsa::pkvm::Frame;
use serde::Serialize;
use std::io::{self, Write};

/// What is said to use a frame of which pKVM keeps something.
const FRAMES: &str = "frames";

/// A use in words.
#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    span: SpanJson,
    /// The table, or `frames`.
    by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ia: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ia_pfn: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<i8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rights: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<Hex>,
    state: String,
}

fn line(used: &Use<'_>, machine: &Machine) -> Line {
    let (by, ia, level, rights, raw, state) = match &used.kind {
        Kind::Entry(row, table) => (
            table.name(),
            Some(row.ia),
            Some(row.level.get()),
            leaf::of_row(row, table).map(|leaf| leaf.rwx(table).into_owned()),
            Some(row.raw),
            if row.is_hole() { "hole".into() } else { meaning::state(row, table).into_owned() },
        ),
        Kind::Table(table, level, ia) => (table.name(), Some(*ia), Some(*level), None, None, "table".into()),
        Kind::Frame(raw) => {
            let state = raw.map_or("nomap".into(), |raw| words::frame(machine.frames.decode(raw)));
            (FRAMES.into(), None, None, None, *raw, state)
        }
    };
    Line {
        span: SpanJson::new(used.pa, used.end, machine.page_shift()),
        by,
        ia: ia.map(Hex),
        ia_pfn: ia.map(|ia| ia >> machine.page_shift()),
        level,
        rights,
        raw: raw.map(Hex),
        state,
    }
}

/// Uses of one state in one table, or of page frames.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Total {
    by: String,
    /// The word of `--state`; of page frames, what pKVM keeps but for counts.
    state: String,
    uses: u64,
    size_bytes: u64,
}

/// Adds up `uses` by table and state, in the order in which they come.
fn totals(uses: &[Use<'_>], machine: &Machine) -> Vec<Total> {
    let mut totals: Vec<Total> = Vec::new();
    for used in uses {
        let (by, state) = match &used.kind {
            Kind::Entry(row, table) => (table.name(), filter::state(row, table).to_owned()),
            Kind::Table(table, ..) => (table.name(), filter::TABLE.to_owned()),
            Kind::Frame(None) => (FRAMES.to_owned(), "nomap".to_owned()),
            Kind::Frame(Some(raw)) => {
                let frame = machine.frames.decode(*raw).map(|frame| Frame { refcount: 0, share_count: 0, ..frame });
                (FRAMES.to_owned(), words::frame(frame))
            }
        };
        let known = totals.iter().position(|total| (&total.by, &total.state) == (&by, &state));
        let at = known.unwrap_or_else(|| {
            totals.push(Total { by, state, uses: 0, size_bytes: 0 });
            totals.len() - 1
        });
        totals[at].uses += 1;
        totals[at].size_bytes = totals[at].size_bytes.saturating_add(used.end - used.pa);
    }
    totals
}

/// Writes `uses` of `machine`, which are those that are `wanted`, or what they add up to, for people, whose terminal, if it is one,
/// is so wide.
pub(crate) fn write_text(
    out: &mut dyn Write,
    wanted: &Wanted,
    uses: &[Use<'_>],
    machine: &Machine,
    width: Option<usize>,
) -> io::Result<()> {
    write_filter(out, &wanted.filter.options())?;
    match wanted.rows {
        true => write_uses(out, uses, machine, width),
        false => write_totals(out, uses, machine),
    }
}

fn write_totals(out: &mut dyn Write, uses: &[Use<'_>], machine: &Machine) -> io::Result<()> {
    writeln!(out, "{:<10} {:<40} {:>8} {:>9}", "BY", "STATE", "USES", "BYTES")?;
    for Total { by, state, uses, size_bytes } in totals(uses, machine) {
        writeln!(out, "{by:<10} {state:<40} {uses:>8} {:>9}", Size(size_bytes).to_string())?;
    }
    Ok(())
}

fn write_uses(out: &mut dyn Write, uses: &[Use<'_>], machine: &Machine, width: Option<usize>) -> io::Result<()> {
    let mut heads = vec![
        Head::range("PHYSICAL ADDRESSES").goes(1),
        Head::words("BY", 10),
        Head::address("AT"),
        Head::words("LV", 2),
        Head::words("RWX", 3),
        Head::words("STATE", 0),
    ];
    if width.is_some() {
        // Says how far it goes where the end is gone.
        heads.insert(1, Head::numbers("SIZE", 9));
    }
    let cells = |used: &Use<'_>| {
        let line = line(used, machine);
        let mut cells = vec![
            Cell::Range(line.span.start.0, line.span.end.0.wrapping_sub(1)),
            line.by.into(),
            line.ia.map_or("-".into(), |ia| Cell::Address(ia.0)),
            line.level.map_or("-".into(), |level| format!("L{level}").into()),
            line.rights.map_or("-".into(), Cell::from),
            line.state.into(),
        ];
        if width.is_some() {
            cells.insert(1, Size(used.end.saturating_sub(used.pa)).to_string().into());
        }
        cells
    };
    let rows: Vec<Vec<Cell>> = uses.iter().map(cells).collect();
    Grid::new(heads, width).write_all(out, true, &rows)
}

/// Writes `uses` of `span`, which are those that are `wanted`, as one JSON object.
pub(crate) fn write_json(
    out: &mut dyn Write,
    (span, wanted): (AddressRange, &Wanted),
    uses: &[Use<'_>],
    unread: &[String],
    machine: &Machine,
) -> io::Result<()> {
    #[derive(Serialize)]
    struct Rmap<'a> {
        r#type: &'static str,
        format: &'static str,
        version: &'static str,
        #[serde(flatten)]
        span: SpanJson,
        #[serde(skip_serializing_if = "FilterJson::is_empty")]
        filter: FilterJson,
        uses: Vec<Line>,
        totals: Vec<Total>,
        /// Tables that were not read.
        unread: &'a [String],
    }
    let (filter, totals) = (filter_json(&wanted.filter.options()), totals(uses, machine));
    let uses = uses.iter().filter(|_| wanted.rows).map(|used| line(used, machine)).collect();
    let span = SpanJson::new(span.start, span.end, machine.page_shift());
    let (format, version) = ("s2dump.rmap", FORMAT_VERSION);
    let rmap = Rmap { r#type: "rmap", format, version, span, filter, uses, totals, unread };
    serde_json::to_writer(&mut *out, &rmap)?;
    writeln!(out)
}
