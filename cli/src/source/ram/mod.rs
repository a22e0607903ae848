// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tables in images of physical memory: walked here, by the code that walks at EL2, into rows.
//!
//! Nothing of the device takes part: the walker's sink makes rows of what it is given, without slots in between.

pub(crate) mod banks;
mod elf_core;
mod table_pages;

use self::banks::Banks;
use self::table_pages::TablePages;
use super::SourceError;
use crate::model::{Outcome, Row, TableFacts, IMAGE};
use crate::registers::ImageTable;
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{slot_flags, Record};
use s2dump_hyp::coalescer::{single, Coalescer, Fold, RecordOut};
use s2dump_hyp::table_memory::TableMemory;
use s2dump_hyp::walker::{walk_address, walk_range};
use s2dump_vmsa::{Geometry, Ipa, PhysAddr};
use std::io;

/// A table in an image of memory.
pub(crate) struct RamTable {
    pages: TablePages,
    table: ImageTable,
}

/// A dump reads at most so many times the descriptors that the memory can hold.
///
/// A dump reads a table once for each entry that leads to it. Hostile tables in four pages, each shared by all entries of the one
/// above, lead to 2^36 descriptors and more. Honest tables share a few at most.
const SHARED_TIMES: u64 = 4;
/// So many descriptors are always read: that takes an instant, and small images may share many tables.
const LEAST_LIMIT: u64 = 1 << 22;
/// How many rows are kept at once.
const ROWS_AT_ONCE: usize = 1024;

impl RamTable {
    /// Takes `table` in `banks`.
    ///
    /// # Errors
    ///
    /// [`SourceError::RootOutside`] if the root does not begin in them.
    pub(crate) fn new(banks: Banks, table: ImageTable) -> Result<Self, SourceError> {
        let granule = table.root.geometry().granule();
        let found = Self { pages: TablePages::new(banks, granule), table };
        let page_mask = (1 << granule.page_shift()) - 1;
        let first = PhysAddr::new(table.root.base().get() & !page_mask);
        found.pages.table(first, granule).map_err(|outside| found.root_outside(outside.table))?;
        Ok(found)
    }

    /// Returns why memory that is there could not be read, if that happened: its tables count as missing.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.pages.take_error()
    }

    /// Says that the part of the root at `part` cannot be read.
    fn root_outside(&self, part: PhysAddr) -> SourceError {
        match self.pages.take_error() {
            Some(error) => SourceError::Ram(error),
            None => SourceError::RootOutside {
                register: self.table.base_register(),
                root: self.table.root.base().get(),
                part: part.get(),
                memory: self.pages.banks().extent(),
            },
        }
    }

    /// Returns the facts of the table, asked for `start..end`.
    fn facts(&self, start: Ipa, end: Ipa) -> TableFacts {
        let ImageTable { root, value, vmid, features, encoding, wxn, .. } = self.table;
        TableFacts {
            target: IMAGE,
            root: root.base().get(),
            register: value,
            vmid,
            encoding,
            is_hvhe: false,
            flags: 0,
            budget: self.pages.budget(),
            start: start.get(),
            end: end.get(),
            geometry: *root.geometry(),
            features,
            wxn,
            mair: None,
        }
    }

    /// Begins to read all entries that span an address of `start..end`, which are page aligned. With `exact` runs also
    /// break where the output address does not run on.
    pub(crate) fn dump(&mut self, start: Ipa, end: Ipa, exact: bool) -> RamDump<'_> {
        let left = (SHARED_TIMES * self.pages.banks().descriptors()).max(LEAST_LIMIT);
        let flags = if exact { slot_flags::EXACT } else { 0 };
        let facts = TableFacts { flags, ..self.facts(start, end) };
        let outcome = Outcome { target: IMAGE, ..Outcome::default() };
        RamDump { table: self, facts, exact, tells_tables: false, cursor: start, end, left, outcome }
    }

    /// Reads the entry of each level that translates `address`, the root's first.
    pub(crate) fn walk(&self, address: Ipa) -> Result<(TableFacts, Vec<Row>), SourceError> {
        let facts = self.facts(address, address);
        let mut steps = Vec::new();
        walk_address(&self.pages, &self.table.root, address, |entry| {
            steps.extend(Row::of_record(&single(entry), &facts.geometry));
        })
        .map_err(|outside| self.root_outside(outside.table))?;
        Ok((facts, steps))
    }
}

/// A dump of a table in an image, as far as it was read.
pub(crate) struct RamDump<'t> {
    table: &'t mut RamTable,
    facts: TableFacts,
    exact: bool,
    tells_tables: bool,
    cursor: Ipa,
    end: Ipa,
    /// How many descriptors may still be read.
    left: u64,
    outcome: Outcome,
}

impl RamDump<'_> {
    /// Also gives a row for the entry that leads to a table page, before the rows of that page; it may come again.
    pub(crate) fn telling_tables(self) -> Self {
        Self { tells_tables: true, ..self }
    }

    /// Returns the facts of the table.
    pub(crate) fn facts(&self) -> &TableFacts {
        &self.facts
    }

    /// Returns the first input address that was not read yet.
    pub(crate) fn cursor(&self) -> u64 {
        self.cursor.get()
    }

    /// Returns how the dump ended, or how far it came.
    pub(crate) fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Walks on from the cursor and appends rows to `into`; returns false at the end.
    pub(crate) fn read_on(&mut self, into: &mut Vec<Row>) -> Result<bool, SourceError> {
        if self.cursor >= self.end {
            return Ok(false);
        }
        if self.left == 0 {
            return Err(SourceError::Shared(self.cursor.get()));
        }
        self.table.pages.make_room();
        let table = &*self.table;
        let geometry = self.facts.geometry;
        let granule = geometry.granule();
        // A part of the root that is not there loses nothing of the parts before it.
        let part_shift = granule.entry_shift(geometry.start_level()) + granule.index_bits();
        let part_end = ((self.cursor.get() >> part_shift) + 1).checked_shl(part_shift).unwrap_or(u64::MAX);
        let until = Ipa::try_new(part_end.min(self.end.get())).unwrap_or(self.end);

        let rows = RowOut { rows: std::mem::take(into), geometry, records: 0 };
        let cursor = self.tells_tables.then_some(self.cursor.get());
        let fold = Fold { geometry, exact: self.exact };
        let mut coalescer = Coalescer::new(fold, 0, false, rows).telling_tables(cursor);
        let walked = walk_range(&table.pages, &table.table.root, self.cursor, until, self.facts.budget, &mut coalescer);
        let (rows, _) = coalescer.finish();
        *into = rows.rows;
        let walked = walked.map_err(|outside| table.root_outside(outside.table))?;
        self.cursor = walked.next;
        self.left = self.left.saturating_sub(walked.visited.into());
        let outcome = &mut self.outcome;
        outcome.calls += 1;
        outcome.records += rows.records;
        outcome.visited += u64::from(walked.visited);
        outcome.max_visited = outcome.max_visited.max(walked.visited);
        if self.cursor >= self.end {
            (outcome.status, outcome.covered) = (Some(Status::OK), true);
        }
        Ok(true)
    }
}

/// Makes rows of the records of a walk.
struct RowOut {
    rows: Vec<Row>,
    geometry: Geometry,
    records: u64,
}

impl RecordOut for RowOut {
    fn room(&self) -> usize {
        ROWS_AT_ONCE.saturating_sub(self.rows.len())
    }

    fn put(&mut self, record: &Record) {
        self.records += 1;
        self.rows.extend(Row::of_record(record, &self.geometry));
    }
}
