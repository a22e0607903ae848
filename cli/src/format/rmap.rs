// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who uses physical memory, for people and as JSON.

use super::hex::Hex;
use super::json::FORMAT_VERSION;
use crate::leaf;
use crate::machine::uses::{Kind, Use};
use crate::machine::Machine;
use crate::meaning;
use crate::numbers::AddressRange;
use crate::words;
use serde::Serialize;
use std::io::{self, Write};

/// A use in words.
#[derive(Serialize)]
struct Line {
    start: Hex,
    end: Hex,
    /// The table, or `frames`.
    by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ia: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<i8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rights: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<Hex>,
    state: String,
}

fn line(used: &Use<'_>, machine: &Machine) -> Line {
    let (start, end) = (Hex(used.pa), Hex(used.end));
    match &used.kind {
        Kind::Entry(row, table) => Line {
            start,
            end,
            by: table.name(),
            ia: Some(Hex(row.ia)),
            level: Some(row.level.get()),
            rights: leaf::of_row(row, table).map(|leaf| leaf.rwx(table).into_owned()),
            raw: Some(Hex(row.raw)),
            state: if row.is_hole() { "hole".into() } else { meaning::state(row, table).into_owned() },
        },
        Kind::Table(table, level, ia) => Line {
            start,
            end,
            by: table.name(),
            ia: Some(Hex(*ia)),
            level: Some(*level),
            rights: None,
            raw: None,
            state: "table".into(),
        },
        Kind::Frame(raw) => Line {
            start,
            end,
            by: "frames".into(),
            ia: None,
            level: None,
            rights: None,
            raw: raw.map(Hex),
            state: raw.map_or("nomap".into(), |raw| words::frame(machine.frames.decode(raw))),
        },
    }
}

/// Writes `uses` of `machine` for people.
pub(crate) fn write_text(out: &mut dyn Write, uses: &[Use<'_>], machine: &Machine) -> io::Result<()> {
    writeln!(out, "{:<37} {:<10} {:<18} {:<2} {:<3} STATE", "PHYSICAL ADDRESSES", "BY", "AT", "LV", "RWX")?;
    for used in uses {
        let line = line(used, machine);
        let range = format!("{:#018x}-{:#018x}", line.start.0, line.end.0.wrapping_sub(1));
        let at = line.ia.map_or("-".into(), |ia| format!("{:#018x}", ia.0));
        let level = line.level.map_or("-".into(), |level| format!("L{level}"));
        let rights = line.rights.as_deref().unwrap_or("-");
        writeln!(out, "{range} {:<10} {at:<18} {level:<2} {rights:<3} {}", line.by, line.state)?;
    }
    Ok(())
}

/// Writes `uses` of `span` as one JSON object.
pub(crate) fn write_json(
    out: &mut dyn Write,
    span: AddressRange,
    uses: &[Use<'_>],
    unread: &[String],
    machine: &Machine,
) -> io::Result<()> {
    #[derive(Serialize)]
    struct Rmap<'a> {
        r#type: &'static str,
        format: &'static str,
        version: &'static str,
        start: Hex,
        end: Hex,
        uses: Vec<Line>,
        /// Tables that were not read.
        unread: &'a [String],
    }
    let uses = uses.iter().map(|used| line(used, machine)).collect();
    let (start, end) = (Hex(span.start), Hex(span.end));
    let (format, version) = ("s2dump.rmap", FORMAT_VERSION);
    serde_json::to_writer(&mut *out, &Rmap { r#type: "rmap", format, version, start, end, uses, unread })?;
    writeln!(out)
}
