// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a row says, in words: its kind, its state, what its invalid entries mean, whether its contiguous runs are whole.
//!
//! [`crate::leaf`] decodes the leaf of a row and [`crate::words`] has the vocabulary; this module joins the two for a row,
//! so that table, walk and JSON say the same of it.

use crate::leaf;
use crate::model::{Row, TableFacts};
use crate::words::{self, Word};
use s2dump_abi::slot::RecordKind;
use s2dump_abi::target::Target;
use s2dump_vmsa::pkvm::{InvalidKind, Owner};

/// Whether the contiguous runs of a row are what the architecture wants: aligned in input and output, all alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runs {
    /// They are.
    Whole,
    /// They are not: what the MMU does is CONSTRAINED UNPREDICTABLE.
    Broken,
    /// The row does not tell: its output addresses jump, the range asked for or a change of the table cuts it, or hardware
    /// may set the access flag (and with it the dirty state) of some entries of a run only, so that a run spans rows.
    Unknown,
}

/// Returns what a row of a dump says about contiguous runs, if its entries are part of such runs.
pub(crate) fn runs(row: &Row, table: &TableFacts) -> Option<Runs> {
    let leaf = leaf::of_row(row, table).filter(|leaf| leaf.contiguous())?;
    let entries = table.geometry.granule().contiguous_entries(leaf.level())?;
    let mask = (u64::from(entries) << row.entry_shift) - 1;
    let Some(oa) = row.oa.filter(|_| row.linear) else { return Some(Runs::Unknown) };
    let is_cut = |bound: u64, at: u64| bound & mask != 0 && at == bound;
    let is_cut_by_range = is_cut(table.start, row.ia) || is_cut(table.end, row.end());
    let is_cut_by_change = row.changed.at_start || row.changed.at_end;
    Some(if (row.ia ^ oa) & mask != 0 {
        Runs::Broken
    } else if (row.ia | row.end()) & mask == 0 {
        Runs::Whole
    } else if table.geometry.sets_access_flag() || is_cut_by_range || is_cut_by_change {
        Runs::Unknown
    } else {
        Runs::Broken
    })
}

/// Returns the word for it.
pub(crate) fn runs_word(runs: Runs) -> &'static str {
    match runs {
        Runs::Whole => "whole",
        Runs::Broken => "broken!",
        Runs::Unknown => "unknown",
    }
}

/// Returns what an invalid entry says, `None` if it is zero: a word for what it is, and whether the word says it all.
pub(crate) fn annotation(row: &Row, table: &TableFacts) -> Option<(&'static str, bool)> {
    if row.kind != RecordKind::INVALID || row.raw == 0 {
        return None;
    }
    match table.decode_software(row.raw).invalid() {
        Some(kind) => words::annotation_of(kind),
        None if table.target == Target::HYP => Some(("idle", false)),
        None => Some(("invalid", false)),
    }
}

/// Returns who owns the first page of a row that the host donated.
pub(crate) fn owner(row: &Row, table: &TableFacts) -> Option<Owner> {
    match table.decode_software(row.raw).invalid() {
        Some(InvalidKind::HostDonation { owner }) if row.kind == RecordKind::INVALID => Some(owner),
        _ => None,
    }
}

/// Returns page state, annotation or fault, behind what the row is by its address, as one word.
pub(crate) fn state(row: &Row, table: &TableFacts) -> Word {
    match (words::mark(row.mark), own_state(row, table)) {
        (None, state) => state,
        (Some(mark), state) if state == "-" => mark.into(),
        (Some(mark), state) => format!("{mark},{state}").into(),
    }
}

/// Returns page state, annotation or fault as one word; what the word does not say is added raw.
fn own_state(row: &Row, table: &TableFacts) -> Word {
    if let Some(leaf) = leaf::of_row(row, table) {
        return leaf.page_state(table).unwrap_or("-").into();
    }
    if let Some(owner) = owner(row, table).and_then(|owner| words::owner(owner, &table.geometry)) {
        let jumps = if row.linear { "" } else { ",same" };
        return format!("owner={owner}{jumps}").into();
    }
    match (annotation(row, table), words::wrong_kind(row.kind)) {
        (Some((word, true)), _) => word.into(),
        (Some((word, false)), _) | (None, Some(word)) => format!("{word}={:#x}", row.raw).into(),
        (None, None) => "-".into(),
    }
}

/// Returns the kind of a row as JSON names it.
pub(crate) fn kind(row: &Row) -> &'static str {
    match row.kind {
        RecordKind::INVALID if row.raw == 0 => "hole",
        RecordKind::INVALID => "invalid",
        RecordKind::LEAF if row.level.is_last() => "page",
        RecordKind::LEAF => "block",
        RecordKind::TABLE => "table",
        RecordKind::RESERVED => "reserved",
        RecordKind::TABLE_OUTSIDE => "table-outside",
        _ => "table-loop",
    }
}
