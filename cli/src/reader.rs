// SPDX-License-Identifier: MIT OR Apache-2.0
//! Slots to events: sections of tables and lists, their rows, their end; and what is wrong with them.
//!
//! A damaged input still yields its good rows: what cannot be used is skipped and becomes an [`Issue`]. Memory does not grow
//! with the input: at most the events of one slot are held.

use crate::frame::{self, Records, Slot, SlotBuffer, SlotFault};
use crate::model::{target_name, Changed, Outcome, Row, TableFacts, TableFault};
use crate::names::text::parse_records;
use crate::names::told::Told;
use crate::origin::Origin;
use crate::source::interrupts;
use crate::source::{Fetched, SlotSource, SourceError};
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{slot_flags, Fact, FrameRecord, Record, RecordKind, SlotHeader, SlotKind, VmRecord};
use s2dump_abi::target::Target;
use s2dump_abi::version::{AbiVersion, ABI_VERSION};
use s2dump_hyp::packed::Unpacked;
use s2dump_vmsa::Level;
use std::collections::VecDeque;

/// What the reader finds, in the order of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A dump begins.
    Dump(TableFacts),
    /// A walk begins.
    Walk(TableFacts),
    /// A run of the dump, or a step of the walk, that began last.
    Row(Row),
    /// A table descriptor of the dump that began last, where the slots tell them. It covers no addresses; the rows of the table
    /// page it leads to follow. It may come twice in a row.
    Table(Row),
    /// A VM of a list.
    Vm(VmRecord),
    /// What is kept about page frames begins; the header says for which, and in which encoding.
    Frames(SlotHeader),
    /// Frames, those of which it began to tell last, in ascending addresses.
    Frame(FrameRecord),
    /// A fact.
    Fact(Fact),
    /// One page frame and some places were looked at: the header of the slot, whose start is the physical address.
    Examined(SlotHeader),
    /// What was seen of them: the frame, places, and the descriptors of each place, none of them checked.
    Sighted(Record),
    /// A dump, walk, list, examination, or what there is of frames or facts ends.
    End(SlotKind, Outcome),
}

/// Something wrong with the input that did not stop the reader.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Issue {
    /// Bytes that are no slot were skipped.
    #[error("skipped {bytes} bytes at offset {offset}: {fault}")]
    Skipped {
        /// Where they begin.
        offset: u64,
        /// How many.
        bytes: u64,
        /// Why they are no slot.
        fault: SlotFault,
    },
    /// A slot cannot be used.
    #[error("slot {0}: {1}")]
    Slot(u64, SlotFault),
    /// A slot describes no table.
    #[error("slot {0}: {1}")]
    Table(u64, TableFault),
    /// Reserved fields are set though the writer is no newer.
    #[error("slot {0}: reserved fields are not zero")]
    Reserved(u64),
    /// Slots are missing.
    #[error("{0}: slot {1} follows, where slot {2} was due")]
    Gap(String, u64, u64),
    /// A slot does not begin where the one before ended.
    #[error("{0}: a slot begins at {1:#x}, the one before ended at {2:#x}")]
    Seam(String, u64, u64),
    /// A slot is of another table with the same name.
    #[error(
        "{0}: left out a slot of another VM: its root is at {1:#x}, that of the VM before, which had this handle, at {2:#x}"
    )]
    AnotherTable(String, u64, u64),
    /// A slot does not belong to the same dump by its registers.
    #[error("{0}: the table's registers changed within the dump")]
    Registers(String),
    /// A record makes no sense.
    #[error("{0}: skipped the record at {1:#x}: {2}")]
    Record(String, u64, &'static str),
    /// A record reaches back further than one entry can.
    #[error("{0}: the record at {1:#x} reaches back over more than one entry; what is before {2:#x} was left out")]
    FarBack(String, u64, u64),
    /// Frames make no sense.
    #[error("frames: skipped the record at {0:#x}: {1}")]
    Frame(u64, &'static str),
    /// A memory slot makes no sense.
    #[error("{0}: skipped the one at {1:#x}: {2}")]
    Memory(String, u64, &'static str),
    /// Names make no sense.
    #[error("slot {0}, names of {1}: {2}")]
    Names(u64, String, &'static str),
    /// Records do not cover what their slot says it covers.
    #[error("{0}: no record covers {1:#x} to {2:#x}")]
    Uncovered(String, u64, u64),
    /// A list, dump or walk has no END slot.
    #[error("{0}: the end is missing")]
    NoEnd(String),
    /// An END slot is there, but not all that was asked for.
    #[error("{0}: nothing from {1:#x} on")]
    NotCovered(String, u64),
}

/// A section that has begun and not ended.
struct Section {
    kind: SlotKind,
    name: String,
    first: SlotHeader,
    table: Option<TableFacts>,
    next_sequence: u64,
    next_ia: u64,
    /// The first address that the next record is to cover.
    due: u64,
    /// An issue of the slot that is being read says that rows may be missing.
    is_told: bool,
    /// There was a row.
    has_rows: bool,
    outcome: Outcome,
}

/// Reads events from a source of slots.
pub(crate) struct Reader<S> {
    source: S,
    buffer: Box<SlotBuffer>,
    sections: Sections,
    failed: Option<SourceError>,
    is_interrupted: bool,
}

impl<S: SlotSource> Reader<S> {
    /// Reads from `source`.
    pub(crate) fn new(source: S) -> Self {
        Self { source, buffer: frame::new_buffer(), sections: Sections::default(), failed: None, is_interrupted: false }
    }

    /// Returns the next event, or `None` at the end of the input.
    pub(crate) fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        if !self.is_interrupted && interrupts::came() {
            self.is_interrupted = true;
            self.sections.interrupt();
            self.failed = Some(SourceError::Interrupted);
        }
        loop {
            if let Some(event) = self.sections.events.pop_front() {
                return Ok(Some(event));
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if self.is_interrupted {
                return Err(SourceError::Interrupted);
            }
            match self.source.fetch(&mut self.buffer) {
                Ok(Fetched::Slot(used)) => {
                    self.sections.take_slot(self.buffer.get(..used).unwrap_or(&self.buffer[..]));
                }
                Ok(Fetched::Damage { offset, bytes, fault }) => {
                    self.sections.issues.push_back(Issue::Skipped { offset, bytes, fault });
                }
                Ok(Fetched::End) => {
                    self.sections.close(None);
                    return Ok(self.sections.events.pop_front());
                }
                // The open section is ended first, so that its rows are not lost.
                Err(error) => {
                    self.sections.cut();
                    self.failed = Some(error);
                }
            }
        }
    }

    /// Returns whether there is something to be told.
    pub(crate) fn has_issues(&self) -> bool {
        !self.sections.issues.is_empty() || self.sections.untold.is_some()
    }

    /// Returns where what follows was captured, once.
    pub(crate) fn take_origin(&mut self) -> Option<Origin> {
        self.sections.untold.take()
    }

    /// Returns where the input was captured that was read first.
    pub(crate) fn origin(&self) -> Option<&Origin> {
        self.sections.origin.as_ref()
    }

    /// Returns what the input told of names so far.
    pub(crate) fn told(&self) -> &Told {
        &self.sections.told
    }

    /// Returns an issue found since the last call, oldest first.
    pub(crate) fn next_issue(&mut self) -> Option<Issue> {
        self.sections.issues.pop_front()
    }

    /// Returns the failure of the source that ended what was open, if one did.
    pub(crate) fn take_failure(&mut self) -> Option<SourceError> {
        self.failed.take()
    }

    /// Returns the header of the last slot of the dump that is being read.
    pub(crate) fn position(&self) -> Option<&SlotHeader> {
        self.sections.last.as_ref()
    }
}

/// The last minors of versions 1 and 2. What later versions use of the header was reserved there.
const LAST_MINOR_OF_1: u16 = 1;
const LAST_MINOR_OF_2: u16 = 0;

/// The state between slots.
#[derive(Default)]
struct Sections {
    slots: u64,
    section: Option<Section>,
    last: Option<SlotHeader>,
    events: VecDeque<Event>,
    issues: VecDeque<Issue>,
    /// The first there was, and the last that was not told.
    origin: Option<Origin>,
    untold: Option<Origin>,
    told: Told,
}

impl Sections {
    /// Turns one slot into events and issues.
    fn take_slot(&mut self, bytes: &[u8]) {
        let index = self.slots;
        self.slots += 1;
        let Slot { header, records, cut_off } = match frame::parse(bytes) {
            Ok(slot) => slot,
            Err(fault) => return self.issues.push_back(Issue::Slot(index, fault)),
        };
        if let Some(fault) = cut_off {
            self.issues.push_back(Issue::Slot(index, fault));
        }
        let version = AbiVersion::from_bits(header.version);
        let (last_minor, later) = match version.major {
            1 => (LAST_MINOR_OF_1, header.mair != 0 || header.held_ticks | header.tick_hz != 0),
            2 => (LAST_MINOR_OF_2, header.mair != 0),
            _ => (ABI_VERSION.minor, false),
        };
        let is_reserved_set = header.reserved != 0 || later;
        if version.minor <= last_minor && is_reserved_set {
            self.issues.push_back(Issue::Reserved(index));
        }
        match records {
            Records::Names(bytes) => {
                let (target, is_first) = (Target(header.target), header.sequence == 0);
                if let Err(fault) = self.told.names(target, is_first, parse_records(bytes)) {
                    self.issues.push_back(Issue::Names(index, target_name(target), fault));
                }
            }
            Records::Origin(bytes) => {
                let origin = Origin::from_records(bytes);
                self.origin.get_or_insert_with(|| origin.clone());
                self.untold = Some(origin);
            }
            Records::None => self.close(Some(&header)),
            // A slot of an unknown kind is counted if it continues the open section, and ignored otherwise.
            Records::Unknown => {
                let is_next = |section: &Section| {
                    section.first.target == header.target && section.next_sequence == header.sequence
                };
                if self.section.as_ref().is_some_and(is_next) {
                    self.step(&header);
                }
            }
            Records::Runs(records) if header.kind == SlotKind::EXAMINE.0 => {
                if self.enter(index, &header) {
                    self.events.push_back(Event::Examined(header));
                    self.events.extend(records.map(Event::Sighted));
                }
            }
            Records::Runs(runs) => {
                if self.enter(index, &header) {
                    self.take_runs(&header, runs, cut_off.is_some());
                }
            }
            Records::Packed(words) => {
                if self.enter(index, &header) {
                    let table = self.section.as_ref().and_then(|section| section.table);
                    let records = table.map(|table| Unpacked::new(words, &table.geometry));
                    self.take_runs(&header, records.into_iter().flatten(), cut_off.is_some());
                }
            }
            Records::Vms(vms) => {
                if self.enter(index, &header) {
                    self.events.extend(vms.map(Event::Vm));
                }
            }
            Records::Facts(facts) => {
                if self.enter(index, &header) {
                    self.events.extend(facts.map(Event::Fact));
                }
            }
            Records::Memory(memory) => {
                if self.enter(index, &header) {
                    let target = Target(header.target);
                    if header.sequence == 0 {
                        self.told.begin_memory(target);
                    }
                    for slot in memory {
                        if let Err(fault) = self.told.memory(target, slot) {
                            self.issues.push_back(Issue::Memory(memory_name(target), slot.ia, fault));
                        }
                    }
                }
            }
            Records::Frames(frames) => {
                if self.enter(index, &header) {
                    self.take_frames(&header, frames);
                }
            }
        }
    }

    /// Begins a section with the first of its slots, or checks that the slot goes on with the open one. Returns whether
    /// its records can be used.
    fn enter(&mut self, index: u64, header: &SlotHeader) -> bool {
        let kind = section_kind(header);
        let goes_on = self.section.as_ref().is_some_and(|section| {
            section.kind == kind && section.first.target == header.target && header.sequence > section.first.sequence
        });
        if !goes_on && !self.begin(index, header) {
            return false;
        }
        if let Some(section) = &mut self.section {
            if section.table.is_some() && section.first.root != header.root {
                let name = section.name.clone();
                self.issues.push_back(Issue::AnotherTable(name, header.root, section.first.root));
                (section.next_sequence, section.next_ia) = (header.sequence.wrapping_add(1), header.next);
                return false;
            }
        }
        self.step(header);
        true
    }

    /// Begins a section. If another is open, it has no END slot, and ends here.
    fn begin(&mut self, index: u64, header: &SlotHeader) -> bool {
        self.close(None);
        let kind = section_kind(header);
        let table = match kind {
            SlotKind::VMS | SlotKind::FACTS | SlotKind::EXAMINE | SlotKind::MEMORY => None,
            SlotKind::FRAMES if !matches!(header.page_shift, 12 | 14 | 16) => {
                self.issues.push_back(Issue::Table(index, TableFault::PageShift(header.page_shift)));
                return false;
            }
            SlotKind::FRAMES => {
                self.events.push_back(Event::Frames(*header));
                None
            }
            _ => match TableFacts::try_new(header) {
                Ok(table) => Some(table),
                Err(fault) => {
                    self.issues.push_back(Issue::Table(index, fault));
                    return false;
                }
            },
        };
        match table {
            Some(table) if kind == SlotKind::WALK => self.events.push_back(Event::Walk(table)),
            Some(table) => self.events.push_back(Event::Dump(table)),
            None => {}
        }
        let target = Target(header.target);
        self.section = Some(Section {
            kind,
            name: match kind {
                SlotKind::VMS => "list".into(),
                SlotKind::FRAMES => "frames".into(),
                SlotKind::FACTS => "facts".into(),
                SlotKind::EXAMINE => "examination".into(),
                SlotKind::MEMORY => memory_name(target),
                _ => target_name(target),
            },
            first: *header,
            table,
            next_sequence: 0,
            next_ia: header.start,
            due: header.start,
            is_told: false,
            has_rows: false,
            outcome: Outcome { target, ..Outcome::default() },
        });
        true
    }

    /// Checks the slot against the ones before it in its section, and counts it.
    fn step(&mut self, header: &SlotHeader) {
        let Some(section) = &mut self.section else { return };
        let issues = &mut self.issues;
        let is_gap = header.sequence != section.next_sequence;
        let is_range = matches!(section.kind, SlotKind::RANGES | SlotKind::FRAMES);
        let is_seam = !is_gap && is_range && header.start != section.next_ia;
        if is_gap {
            issues.push_back(Issue::Gap(section.name.clone(), header.sequence, section.next_sequence));
        }
        if is_seam {
            issues.push_back(Issue::Seam(section.name.clone(), header.start, section.next_ia));
        } else {
            section.due = section.due.max(header.start);
        }
        section.is_told = is_seam;
        let shape = |h: &SlotHeader| (h.vtcr, h.table_features, h.encoding);
        if section.table.is_some() && shape(header) != shape(&section.first) {
            issues.push_back(Issue::Registers(section.name.clone()));
        }
        section.next_sequence = header.sequence.wrapping_add(1);
        section.next_ia = header.next;
        let outcome = &mut section.outcome;
        outcome.calls += 1;
        if header.kind != SlotKind::PACKED.0 {
            outcome.records += u64::from(header.record_count);
        }
        outcome.visited += u64::from(header.visited);
        outcome.max_visited = outcome.max_visited.max(header.visited);
        outcome.is_dying |= header.flags & slot_flags::DYING != 0;
        outcome.hold.add(header);
        if header.flags & slot_flags::DIGEST != 0 {
            outcome.digest = Some(outcome.digest.unwrap_or(0).wrapping_add(header.digest));
        }
        self.last = Some(*header);
    }

    /// Makes rows of the records of a slot, as far as they are right.
    ///
    /// The rows of a dump cover its addresses without gap or overlap. Where records do not, an issue says so, once for
    /// each slot. One overlap is none of theirs: between two calls a table may have become a hole or a block, which begins
    /// before the address that the second call went on from. Then the rows before stay as they were read, and the new entry
    /// covers the rest.
    fn take_runs(&mut self, header: &SlotHeader, records: impl Iterator<Item = Record>, is_cut_off: bool) {
        let Some(section) = &mut self.section else { return };
        let Some(table) = &section.table else { return };
        let is_dump = section.kind == SlotKind::RANGES;
        section.is_told |= is_cut_off;
        let tells_tables = is_dump && header.flags & slot_flags::TABLES != 0;
        let mut place = 0;
        for record in records {
            // The records of a packed slot are words.
            section.outcome.records += u64::from(header.kind == SlotKind::PACKED.0);
            let name = || section.name.clone();
            let mut row = match check_run(table, &record, section.kind) {
                Ok(row) => row,
                Err(fault) => {
                    self.issues.push_back(Issue::Record(name(), record.ia, fault));
                    section.is_told = true;
                    continue;
                }
            };
            if is_dump && row.kind == RecordKind::TABLE {
                if !tells_tables || row.ia != section.due || row.count != 1 {
                    let fault = "a table that is followed is no run";
                    self.issues.push_back(Issue::Record(name(), record.ia, fault));
                    continue;
                }
                self.events.push_back(Event::Table(row));
                continue;
            }
            place += 1;
            if is_dump {
                let is_first = place == 1;
                if row.ia > section.due && !section.is_told {
                    self.issues.push_back(Issue::Uncovered(name(), section.due, row.ia));
                    section.is_told = true;
                }
                if row.ia < section.due && (!is_first || row.end() <= section.due) {
                    self.issues.push_back(Issue::Record(name(), record.ia, "it does not follow the one before"));
                    section.is_told = true;
                    continue;
                }
                if row.ia < section.due && section.due - row.ia >= 1 << row.entry_shift {
                    self.issues.push_back(Issue::FarBack(name(), row.ia, section.due));
                }
                // The first entry of all may begin before the address asked for, and is shown whole.
                if row.ia < section.due && section.has_rows {
                    let Some(rest) = row.split_off(section.due, &table.geometry) else { continue };
                    row = Row { changed: Changed { at_start: true, ..rest.changed }, ..rest };
                }
                section.due = row.end();
            }
            section.has_rows = true;
            self.events.push_back(Event::Row(row));
        }
        if is_dump && section.due < header.next && !section.is_told {
            self.issues.push_back(Issue::Uncovered(section.name.clone(), section.due, header.next));
        }
    }

    /// Takes frames that are in ascending order and within what their slot covers. There may be gaps between them.
    fn take_frames(&mut self, header: &SlotHeader, frames: impl Iterator<Item = FrameRecord>) {
        let Some(section) = &mut self.section else { return };
        for frame in frames {
            // A section has one page size.
            let bytes = u64::from(frame.count) << section.first.page_shift;
            let end = frame.pa.checked_add(bytes).filter(|&end| end > frame.pa);
            let fault = match end {
                None => "it has no frames, or too many",
                Some(end) if end > header.next => "it is beyond what its slot covers",
                Some(_) if frame.pa < section.due => "it does not follow the one before",
                Some(end) => {
                    section.due = end;
                    self.events.push_back(Event::Frame(frame));
                    continue;
                }
            };
            self.issues.push_back(Issue::Frame(frame.pa, fault));
        }
    }

    /// Ends the open section after the source failed. The failure is reported, so the missing END slot is no issue as well.
    fn cut(&mut self) {
        let issues = self.issues.len();
        self.close(None);
        self.issues.truncate(issues);
    }

    /// Ends the open section, or the one whose end is waiting, without what nobody has taken of it.
    fn interrupt(&mut self) {
        self.cut();
        let last = std::mem::take(&mut self.events).into_iter().rev().find_map(|event| match event {
            Event::End(kind, outcome) if kind != SlotKind::END => Some((kind, Outcome { status: None, ..outcome })),
            _ => None,
        });
        self.events.extend(last.map(|(kind, outcome)| Event::End(kind, outcome)));
    }

    /// Ends the open section. An END slot without a section, as of a dump that failed at once, is a section by itself.
    fn close(&mut self, end: Option<&SlotHeader>) {
        self.last = None;
        let Some(mut section) = self.section.take() else {
            if let Some(end) = end {
                let status = Status(end.status);
                let is_dying = status == Status::VM_DYING;
                let outcome =
                    Outcome { target: Target(end.target), status: Some(status), is_dying, ..Outcome::default() };
                self.events.push_back(Event::End(SlotKind::END, outcome));
            }
            return;
        };
        let outcome = &mut section.outcome;
        match end {
            None => self.issues.push_back(Issue::NoEnd(section.name)),
            Some(end) => {
                outcome.status = Some(Status(end.status));
                outcome.is_dying |= outcome.status == Some(Status::VM_DYING);
                outcome.hold.add(end);
                outcome.max_visited = outcome.max_visited.max(end.visited);
                if end.sequence != section.next_sequence {
                    self.issues.push_back(Issue::Gap(section.name.clone(), end.sequence, section.next_sequence));
                }
                outcome.covered = match (section.kind, section.table) {
                    (SlotKind::RANGES, Some(table)) => section.next_ia >= table.end,
                    (SlotKind::FRAMES, _) => section.next_ia >= section.first.end,
                    _ => true,
                };
                if outcome.status == Some(Status::OK) && !outcome.covered {
                    self.issues.push_back(Issue::NotCovered(section.name, section.next_ia));
                }
            }
        }
        self.events.push_back(Event::End(section.kind, section.outcome));
    }
}

fn memory_name(target: Target) -> String {
    format!("memory slots of {}", target_name(target))
}

/// Returns what a slot is a part of: a dump is a dump, packed or not.
fn section_kind(header: &SlotHeader) -> SlotKind {
    match SlotKind(header.kind) {
        SlotKind::PACKED => SlotKind::RANGES,
        kind => kind,
    }
}

/// Checks that a record of a slot of `kind` describes entries that `table` can have.
fn check_run(table: &TableFacts, record: &Record, kind: SlotKind) -> Result<Row, &'static str> {
    if record.kind > RecordKind::TABLE_LOOP.0 {
        return Err("of a kind this s2dump does not know");
    }
    Level::try_new(record.level).map_err(|_| "no such level")?;
    let row = Row::of_record(record, &table.geometry).ok_or("its level is above the root")?;
    if record.count == 0 {
        return Err("it has no entries");
    }
    let space = table.geometry.ia_end();
    if record.ia >= space || row.count > (space - record.ia).div_ceil(1 << row.entry_shift) {
        return Err("it is outside the input addresses of the table");
    }
    // A table that is followed is told again where a slot begins in its middle.
    let is_whole = kind == SlotKind::WALK || row.kind == RecordKind::TABLE;
    if !is_whole && record.ia & ((1 << row.entry_shift) - 1) != 0 {
        return Err("it begins within an entry");
    }
    if kind == SlotKind::WALK {
        return if record.count == 1 { Ok(row) } else { Err("a step of a walk is one entry") };
    }
    Ok(row)
}
