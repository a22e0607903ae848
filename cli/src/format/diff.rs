// SPDX-License-Identifier: MIT OR Apache-2.0
//! What changed, for people as diff(1) writes it, and as JSON.

use super::hex::Hex;
use super::json::FORMAT_VERSION;
use crate::machine::differ::{Change, Said};
use crate::numbers::Size;
use serde::Serialize;
use std::io::{self, Write};

/// Writes `changes` for people.
pub(crate) fn write_text(out: &mut dyn Write, changes: &[Change]) -> io::Result<()> {
    for change in changes {
        for (sign, said) in [('-', &change.old), ('+', &change.new)] {
            let Some(Said { rights, memory, state, address }) = said else { continue };
            let (start, last) = (change.start, change.end.wrapping_sub(1));
            let size = Size(change.end - change.start).to_string();
            let (rights, memory) = (rights.as_deref().unwrap_or("-"), memory.as_deref().unwrap_or("-"));
            let address = address.map_or("-".into(), |address| format!("{address:#x}"));
            let of = &change.of;
            writeln!(
                out,
                "{sign} {of:<10} {start:#018x}-{last:#018x} {size:>9} {rights:<3} {memory:<9} {state:<15} {address}"
            )?;
        }
    }
    Ok(())
}

/// Writes `changes` as JSON, one in each line, and a line in the end that also tells how many ranges were `left_out`.
pub(crate) fn write_json(
    out: &mut dyn Write,
    changes: &[Change],
    left_out: usize,
    unread: &[String],
) -> io::Result<()> {
    #[derive(Serialize)]
    struct SaidJson<'a> {
        rights: Option<&'a str>,
        memory: Option<&'a str>,
        state: &'a str,
        address: Option<Hex>,
    }
    #[derive(Serialize)]
    struct Line<'a> {
        r#type: &'static str,
        of: &'a str,
        start: Hex,
        end: Hex,
        old: Option<SaidJson<'a>>,
        new: Option<SaidJson<'a>>,
    }
    #[derive(Serialize)]
    struct End<'a> {
        r#type: &'static str,
        format: &'static str,
        version: &'static str,
        changes: usize,
        /// Ranges that changed though nothing happened.
        left_out: usize,
        unread: &'a [String],
    }
    fn said(said: Option<&Said>) -> Option<SaidJson<'_>> {
        said.map(|said| SaidJson {
            rights: said.rights.as_deref(),
            memory: said.memory.as_deref(),
            state: &said.state,
            address: said.address.map(Hex),
        })
    }
    for change in changes {
        let (start, end) = (Hex(change.start), Hex(change.end));
        let (old, new) = (said(change.old.as_ref()), said(change.new.as_ref()));
        serde_json::to_writer(&mut *out, &Line { r#type: "change", of: &change.of, start, end, old, new })?;
        writeln!(out)?;
    }
    let (format, version) = ("s2dump.diff", FORMAT_VERSION);
    let changes = changes.len();
    serde_json::to_writer(&mut *out, &End { r#type: "diff", format, version, changes, left_out, unread })?;
    writeln!(out)
}
