// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tree: the runs of one table in ascending input addresses, and its table pages.

use crate::merge::Merger;
use crate::model::{Changed, Mark, Outcome, Row, TableFacts};
use s2dump_abi::slot::{slot_flags, RecordKind};
use s2dump_hyp::coalescer::Fold;
use s2dump_vmsa::{Level, RawDescriptor, TableAttrs};

/// A run, in a quarter of the memory of a row. All of its entries are known: the output addresses run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// First input address covered. Below it, the first entry may go on: entries are aligned.
    ia: u64,
    /// The first descriptor.
    raw: u64,
    count: u32,
    level: i8,
    kind: u8,
    inherited: u8,
}

/// A table page, with the first input address it translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TablePage {
    /// The first input address it translates.
    pub(crate) ia: u64,
    /// Where it is.
    pub(crate) pa: u64,
    /// The level of its entries.
    pub(crate) level: i8,
    /// The descriptor that leads to it; 0 for a root.
    pub(crate) raw: u64,
}

/// What a second pass over a table found: whether it was at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SecondPass {
    /// There was none.
    NotAsked,
    /// The same.
    Same,
    /// Something else, or it came to no end.
    Differs,
}

/// A tree.
pub(crate) struct Tree {
    /// The table.
    pub(crate) table: TableFacts,
    runs: Vec<Run>,
    /// Its table pages, roots first; only roots if the others were not told.
    pub(crate) tables: Vec<TablePage>,
    /// All of it was read, while the VM lived.
    pub(crate) is_complete: bool,
    /// Each entry is known, not only the first of a run that jumps.
    pub(crate) is_exact: bool,
    /// What a second pass found.
    pub(crate) second: SecondPass,
    digest: Option<u64>,
    merger: Option<Merger>,
}

impl Tree {
    /// Begins with the table's root.
    pub(crate) fn new(table: TableFacts) -> Self {
        let geometry = table.geometry;
        let page_bytes = 1 << geometry.granule().page_shift();
        // Each page of a root translates what a table of this level can.
        let spans = geometry.granule().entry_shift(geometry.start_level()) + geometry.granule().index_bits();
        let level = geometry.start_level().get();
        let root = |page: u64| TablePage {
            ia: page.checked_shl(spans).unwrap_or(0),
            pa: table.root + page * page_bytes,
            level,
            raw: 0,
        };
        Self {
            tables: (0..u64::from(geometry.root_tables())).map(root).collect(),
            runs: Vec::new(),
            is_complete: false,
            is_exact: true,
            second: SecondPass::NotAsked,
            digest: None,
            merger: Some(Merger::new(Fold { geometry, exact: true })),
            table,
        }
    }

    /// Returns whether the table pages below the root are known.
    pub(crate) fn has_tables(&self) -> bool {
        self.table.has(slot_flags::TABLES)
    }

    /// Takes the next row of the dump.
    pub(crate) fn push(&mut self, row: Row) {
        if row.kind == RecordKind::TABLE {
            let page = TablePage { ia: row.ia, pa: row.oa.unwrap_or(0), level: row.level.get() + 1, raw: row.raw };
            // A slot that goes on within a table tells it again.
            let is_told = |told: &&TablePage| (told.ia, told.level) == (page.ia, page.level);
            if self.tables.iter().rev().take(8).find(is_told).is_none() {
                self.tables.push(page);
            }
            return;
        }
        self.is_exact &= row.linear || row.count == 1;
        let joined = match &mut self.merger {
            Some(merger) => merger.push(row),
            None => Some(row),
        };
        self.runs.extend(joined.and_then(Run::of));
    }

    fn finish(&mut self) {
        let last = self.merger.take().and_then(|mut merger| merger.finish());
        self.runs.extend(last.and_then(Run::of));
        self.runs.shrink_to_fit();
    }

    /// Ends the first pass.
    pub(crate) fn end(&mut self, outcome: &Outcome) {
        self.finish();
        let is_all = self.table.start == 0 && self.table.end >= self.table.geometry.ia_end();
        (self.is_complete, self.digest) = (outcome.is_complete() && is_all, outcome.digest);
    }

    /// Ends another pass, which found the same if `is_same`, or, if that is not known, if its digest is the same.
    pub(crate) fn end_again(&mut self, outcome: &Outcome, is_same: Option<bool>) {
        let has_digest = || self.digest.is_some() && outcome.digest == self.digest;
        let is_same = outcome.is_complete() && is_same.unwrap_or_else(has_digest);
        self.second =
            if is_same && self.second != SecondPass::Differs { SecondPass::Same } else { SecondPass::Differs };
    }

    /// Returns the rows from the one that has `start` to the one before `end`, whole.
    pub(crate) fn rows(&self, start: u64, end: u64) -> impl Iterator<Item = Row> + '_ {
        let after = self.runs.partition_point(|run| run.ia <= start);
        let rows = self.runs.iter().skip(after.saturating_sub(1)).map(|run| run.row(&self.table));
        rows.skip_while(move |row| row.end() <= start).take_while(move |row| row.ia < end)
    }
}

impl Run {
    fn of(row: Row) -> Option<Self> {
        let count = u32::try_from(row.count).ok()?;
        let (level, kind) = (row.level.get(), row.kind.0);
        Some(Self { ia: row.ia, raw: row.raw, count, level, kind, inherited: row.inherited.to_bits() })
    }

    fn row(&self, table: &TableFacts) -> Row {
        let kind = RecordKind(self.kind);
        let level = Level::try_new(self.level).unwrap_or(Level::L3);
        let entry_shift = table.geometry.granule().entry_shift(level);
        let skipped = self.ia & ((1 << entry_shift) - 1);
        let raw = RawDescriptor::from_bits(self.raw);
        let oa = match kind {
            RecordKind::LEAF => Some(raw.output_address(level, &table.geometry).get().wrapping_add(skipped)),
            RecordKind::TABLE | RecordKind::TABLE_OUTSIDE | RecordKind::TABLE_LOOP => {
                Some(raw.next_table(&table.geometry).get())
            }
            _ => None,
        };
        Row {
            ia: self.ia,
            oa,
            raw: self.raw,
            count: self.count.into(),
            entry_shift,
            skipped,
            level,
            kind,
            linear: true,
            inherited: TableAttrs::from_bits(self.inherited),
            changed: Changed::default(),
            mark: Mark::None,
        }
    }
}
