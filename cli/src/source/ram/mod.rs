// SPDX-License-Identifier: MIT OR Apache-2.0
//! Slots from an image of physical memory: walked here, by the code that walks at EL2, into the slots EL2 would fill.

pub(crate) mod banks;
mod elf_core;
mod tables;

use self::banks::Banks;
use self::tables::Tables;
use super::{Decoding, Fetched, SlotSource, SourceError};
use crate::frame::{self, SlotBuffer};
use crate::model::IMAGE;
use crate::registers::ImageTable;
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{record_flags, slot_flags, Record, SlotHeader, SlotKind};
use s2dump_hyp::coalescer::{single, Coalescer, Fold, RecordOut};
use s2dump_hyp::slot_writer::{SlotPage, SlotWriter, SLOT_WORDS};
use s2dump_hyp::table_memory::TableMemory;
use s2dump_hyp::walker::{walk_address, walk_range, Progress, MIN_BUDGET};
use s2dump_vmsa::{Ipa, PhysAddr};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// What to read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    /// All entries that span an address of `start..end`.
    Dump {
        /// First input address, page aligned.
        start: Ipa,
        /// First input address after, page aligned.
        end: Ipa,
        /// Also break runs where the output address does not run on.
        exact: bool,
    },
    /// The entry of each level.
    Walk(Ipa),
}

/// A table in an image of memory, being read once.
pub(crate) struct RamSource {
    tables: Tables,
    table: ImageTable,
    request: Request,
    cursor: Ipa,
    sequence: u64,
    max_visited: u32,
    /// How many descriptors may still be read.
    left: u64,
    state: State,
    page: Box<[AtomicU64; SLOT_WORDS]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    AtEnd,
    Ended,
}

/// How many times the descriptors that memory can hold a dump reads at most.
///
/// A table that one entry leads to is read once. Hostile tables that share tables at each level lead to 2^36 and more
/// descriptors from four pages; honest ones that share a few stay below this.
const SHARED_TIMES: u64 = 4;
/// What is always read: no more than an instant, and small images may well share much.
const LEAST_LIMIT: u64 = 1 << 22;

impl RamSource {
    /// Reads `table` from `banks`.
    ///
    /// # Errors
    ///
    /// [`SourceError::RootOutside`] if the root does not begin in them.
    pub(crate) fn new(banks: Banks, table: ImageTable, request: Request) -> Result<Self, SourceError> {
        let granule = table.root.geometry().granule();
        let cursor = match request {
            Request::Dump { start, .. } => start,
            Request::Walk(address) => address,
        };
        let left = (SHARED_TIMES * banks.descriptors()).max(LEAST_LIMIT);
        let source = Self {
            left,
            tables: Tables::new(banks, granule),
            table,
            request,
            cursor,
            sequence: 0,
            max_visited: 0,
            state: State::Running,
            page: Box::new([const { AtomicU64::new(0) }; SLOT_WORDS]),
        };
        let page_mask = (1 << granule.page_shift()) - 1;
        let first = PhysAddr::new(source.table.root.base().get() & !page_mask);
        source.tables.table(first, granule).map_err(|outside| source.root_outside(outside.table))?;
        Ok(source)
    }

    /// Returns why memory that is there could not be read, if that happened: its tables count as missing.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.tables.take_error()
    }

    /// Says that the part of the root at `part` cannot be read.
    fn root_outside(&self, part: PhysAddr) -> SourceError {
        match self.tables.take_error() {
            Some(error) => SourceError::Ram(error),
            None => SourceError::RootOutside {
                register: self.table.base_register(),
                root: self.table.root.base().get(),
                part: part.get(),
                memory: self.tables.banks().extent(),
            },
        }
    }

    /// Returns a header with all that describes the table.
    fn header(&self, kind: SlotKind) -> SlotHeader {
        let geometry = self.table.root.geometry();
        SlotHeader {
            record_bytes: size_of::<Record>() as u16,
            sequence: self.sequence,
            target: IMAGE.0,
            vtcr: self.table.value,
            root: self.table.root.base().get(),
            table_features: self.table.table_features(),
            ia_bits: geometry.ia_bits(),
            start_level: geometry.start_level().get(),
            page_shift: geometry.granule() as u8,
            pa_bits: geometry.pa_bits(),
            encoding: self.table.encoding,
            vmid: self.table.vmid,
            ..SlotHeader::new(kind)
        }
    }

    /// Walks on from the cursor and fills the page.
    fn fill_ranges(&mut self, end: Ipa, exact: bool) -> Result<(), SourceError> {
        if self.left == 0 {
            return Err(SourceError::Shared(self.cursor.get()));
        }
        self.tables.make_room();
        let geometry = *self.table.root.geometry();
        let granule = geometry.granule();
        // A part of the root that is not there loses nothing of the parts before it.
        let part_shift = granule.entry_shift(geometry.start_level()) + granule.index_bits();
        let part_end = ((self.cursor.get() >> part_shift) + 1).checked_shl(part_shift).unwrap_or(u64::MAX);
        let until = Ipa::try_new(part_end.min(end.get())).unwrap_or(end);

        let first_flags = if self.sequence == 0 { 0 } else { record_flags::CONTINUES };
        let writer = SlotWriter::begin(SlotPage::new(&self.page));
        let mut coalescer = Coalescer::new(Fold { geometry, exact }, first_flags, false, writer);
        let budget = self.tables.budget();
        let walked = walk_range(&self.tables, &self.table.root, self.cursor, until, budget, &mut coalescer);
        let (writer, _) = coalescer.finish();
        let (writer, progress) = match walked {
            Ok(progress) => (writer, progress),
            Err(outside) if self.sequence > 0 => return Err(self.root_outside(outside.table)),
            // A slot without rows says what table it is; the next call fails again.
            Err(_) => (SlotWriter::begin(SlotPage::new(&self.page)), Progress { next: self.cursor, visited: 0 }),
        };

        let header = SlotHeader {
            flags: if exact { slot_flags::EXACT } else { 0 },
            record_count: u32::try_from(writer.records()).unwrap_or(u32::MAX),
            visited: progress.visited,
            start: self.cursor.get(),
            next: progress.next.get(),
            end: end.get(),
            budget,
            ..self.header(SlotKind::RANGES)
        };
        writer.finish(&header);
        self.max_visited = self.max_visited.max(progress.visited);
        self.left = self.left.saturating_sub(progress.visited.into());
        self.cursor = progress.next;
        if self.cursor >= end {
            self.state = State::AtEnd;
        }
        Ok(())
    }

    fn fill_walk(&mut self, address: Ipa) -> Result<(), SourceError> {
        let mut writer = SlotWriter::begin(SlotPage::new(&self.page));
        walk_address(&self.tables, &self.table.root, address, |entry| writer.put(&single(entry)))
            .map_err(|outside| self.root_outside(outside.table))?;
        let records = u32::try_from(writer.records()).unwrap_or(u32::MAX);
        let header = SlotHeader {
            record_count: records,
            visited: records,
            start: address.get(),
            next: address.get(),
            end: address.get(),
            budget: MIN_BUDGET,
            ..self.header(SlotKind::WALK)
        };
        writer.finish(&header);
        self.max_visited = records;
        self.state = State::AtEnd;
        Ok(())
    }

    fn fill_end(&mut self) {
        let header = SlotHeader {
            sequence: self.sequence,
            target: IMAGE.0,
            visited: self.max_visited,
            status: Status::OK.0,
            ..SlotHeader::new(SlotKind::END)
        };
        SlotWriter::begin(SlotPage::new(&self.page)).finish(&header);
        self.state = State::Ended;
    }
}

impl SlotSource for RamSource {
    fn fetch(&mut self, into: &mut SlotBuffer) -> Result<Fetched, SourceError> {
        match (self.state, self.request) {
            (State::Running, Request::Dump { end, exact, .. }) => self.fill_ranges(end, exact)?,
            (State::Running, Request::Walk(address)) => self.fill_walk(address)?,
            (State::AtEnd, _) => self.fill_end(),
            (State::Ended, _) => return Ok(Fetched::End),
        }
        self.sequence += 1;
        for (bytes, word) in into.chunks_exact_mut(8).zip(self.page.iter()) {
            // The words are those of the header and records in memory.
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        let (_, used) = frame::measure(&into[..]).map_err(|fault| SourceError::Format("--ram".into(), fault))?;
        Ok(Fetched::Slot(used))
    }

    fn format(&self) -> Option<Decoding> {
        let ImageTable { root, features, wxn, .. } = self.table;
        Some(Decoding { geometry: *root.geometry(), features, wxn })
    }
}
