// SPDX-License-Identifier: MIT OR Apache-2.0
//! A row as JSON: what `docs/s2dump.schema.json` calls a run.

use super::hex::Hex;
use crate::leaf::{self, AnyLeaf};
use crate::meaning;
use crate::model::{Row, TableFacts};
use crate::words::{self, Word};
use s2dump_vmsa::stage2::{Permissions, Stage2Leaf};
use serde::Serialize;

/// A row: a run of entries, or one step of a walk.
#[derive(Serialize)]
pub(crate) struct RowJson {
    r#type: &'static str,
    start: Hex,
    end: Hex,
    size_bytes: u64,
    count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    skipped_bytes: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    changed_before: bool,
    level: i8,
    kind: &'static str,
    output: Option<Hex>,
    output_linear: Option<bool>,
    descriptor: Hex,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<Attributes>,
    state: Option<&'static str>,
    annotation: Option<&'static str>,
}

#[derive(Serialize)]
struct Attributes {
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execute: Option<&'static str>,
    memory: Word,
    shareability: &'static str,
    access_flag: bool,
    contiguous: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    contiguous_runs: Option<&'static str>,
    dirty_bit_modifier: bool,
    software_bits: u8,
    #[serde(flatten)]
    extensions: Extensions,
    other_bits: Hex,
}

/// Fields of extensions: each only where it says something.
#[derive(Serialize)]
struct Extensions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pi_index: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dirty: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    po_index: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pbha: Option<u8>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    fnxs: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_translation: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    assured_only: bool,
}

impl Extensions {
    fn new(leaf: &Stage2Leaf<'_>) -> Self {
        let (pi_index, dirty) = match leaf.permissions() {
            Permissions::Direct { .. } => (None, None),
            Permissions::Indirect { pi_index, dirty } => (Some(pi_index), Some(dirty)),
        };
        Self {
            pi_index,
            dirty,
            po_index: leaf.po_index(),
            pbha: Some(leaf.pbha()).filter(|&pbha| pbha != 0 && leaf.po_index().is_none()),
            fnxs: leaf.fnxs(),
            no_translation: leaf.no_translation(),
            assured_only: leaf.assured_only(),
        }
    }
}

impl RowJson {
    /// Describes `row` as an object of `type`.
    pub(crate) fn new(r#type: &'static str, row: &Row, table: &TableFacts) -> Self {
        // EL2's stage 1 has no JSON yet: plan refuses it.
        let any_leaf = leaf::of_row(row, table);
        let leaf = any_leaf.as_ref().and_then(AnyLeaf::as_stage2).copied();
        let runs = meaning::runs(row, table).map(meaning::runs_word).map(bare);
        let direct = leaf.and_then(|leaf| match leaf.permissions() {
            Permissions::Direct { ap, xn } => Some((ap, xn)),
            Permissions::Indirect { .. } => None,
        });
        Self {
            r#type,
            start: Hex(row.ia),
            end: Hex(row.end()),
            size_bytes: row.size(),
            count: row.count,
            skipped_bytes: row.skipped,
            changed_before: row.changed.at_start,
            level: row.level.get(),
            kind: meaning::kind(row),
            output: row.oa.map(Hex),
            output_linear: leaf.as_ref().map(|_| row.linear),
            descriptor: Hex(row.raw),
            // Of what is invalid, the kind says it.
            fault: leaf::fault_of_row(row, table).filter(|_| row.oa.is_some() || leaf.is_some()).map(words::fault_name),
            state: any_leaf.as_ref().and_then(|leaf| leaf.page_state(table)).map(bare),
            annotation: meaning::annotation(row, table).map(|(word, _)| bare(word)),
            attributes: leaf.map(|leaf| Attributes {
                read: direct.map(|(ap, _)| ap.is_readable()),
                write: direct.map(|(ap, _)| ap.is_writable()),
                execute: direct.map(|(_, xn)| words::execute(xn)),
                memory: words::memory(leaf.mem_attr()),
                shareability: words::shareability(leaf.shareability()),
                access_flag: leaf.access_flag(),
                contiguous: leaf.contiguous(),
                // A step is one entry, and does not show the other entries of its contiguous run.
                contiguous_runs: runs.filter(|_| r#type != "step"),
                dirty_bit_modifier: leaf.dirty_bit_modifier(),
                software_bits: leaf.software_bits(),
                extensions: Extensions::new(&leaf),
                other_bits: Hex(leaf.other_bits()),
            }),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Takes the alarm out of a word: the table shouts, JSON does not.
fn bare(word: &'static str) -> &'static str {
    match word {
        "LOCKED!" => "locked",
        word => word.strip_suffix('!').unwrap_or(word),
    }
}
