// SPDX-License-Identifier: MIT OR Apache-2.0
//! What uses physical memory: entries that map it or say whose it is, table pages, and what pKVM keeps about the frames.

use super::Machine;
use crate::marks::Marks;
use crate::model::{Row, TableFacts};
use s2dump_abi::slot::RecordKind;
use s2dump_abi::target::Target;

/// One use.
pub(crate) struct Use<'m> {
    /// Physical address of what is used.
    pub(crate) pa: u64,
    /// First address after.
    pub(crate) end: u64,
    /// How.
    pub(crate) kind: Kind<'m>,
}

/// How memory is used.
pub(crate) enum Kind<'m> {
    /// An entry maps it, or the host's entry for it says something else than nothing.
    Entry(Row, &'m TableFacts),
    /// It is a table page of entries of this level, for input addresses from here on.
    Table(&'m TableFacts, i8, u64),
    /// What pKVM keeps about each frame; `None` for memory without states.
    Frame(Option<u64>),
}

/// Returns the uses of `start` to before `end`, cut to it: first what pKVM keeps, then the trees in their order.
pub(crate) fn uses(machine: &Machine, start: u64, end: u64) -> Vec<Use<'_>> {
    let mut uses = Vec::new();
    for run in machine.frames.runs(start, end) {
        let (pa, end) = (run.pa.max(start), run.end().min(end));
        uses.push(Use { pa, end, kind: Kind::Frame(run.raw) });
    }
    for tree in &machine.trees {
        let (table, geometry) = (&tree.table, &tree.table.geometry);
        let marks = Marks::of_table(&machine.known.facts, table.target);
        let is_host = table.target == Target::HOST;
        for row in tree.rows(0, u64::MAX) {
            // Whom an entry is about: the host's table has one for each page of memory, also for those that are not its.
            let first = match row.kind {
                RecordKind::LEAF => row.oa,
                _ if is_host => Some(row.ia),
                _ => None,
            };
            let Some(first) = first.filter(|&first| first < end && first.saturating_add(row.size()) > start) else {
                continue;
            };
            let from = start.max(first);
            let Some(part) = row.split_off(row.ia + (from - first), geometry) else { continue };
            let Some(part) = part.clip(part.ia, part.ia + (end - from), geometry) else { continue };
            let size = |part: &Row| part.size().min(end - from);
            let mut put = |part: Row| {
                let pa = first + (part.ia - row.ia);
                uses.push(Use { pa, end: pa + size(&part), kind: Kind::Entry(part, table) });
                Ok::<(), std::convert::Infallible>(())
            };
            // Marks are put on whole entries.
            let Ok(()) = if part.skipped == 0 { marks.cut_row(part, geometry, put) } else { put(part) };
        }
        let page = machine.page_bytes();
        for told in tree.tables.iter().filter(|told| told.pa < end && told.pa.saturating_add(page) > start) {
            let (pa, end) = (told.pa.max(start), told.pa.saturating_add(page).min(end));
            uses.push(Use { pa, end, kind: Kind::Table(table, told.level, told.ia) });
        }
    }
    uses
}
