// SPDX-License-Identifier: MIT OR Apache-2.0
//! One pass over slots: finds the table that is meant, and streams its rows to a format.

use super::identity::check_listed;
use super::names::of_captured;
use super::suspicion::Suspicion;
use super::{add_named, beyond, not_captured, remember, resolve_captured, Context, Stop, MOST_FACTS};
use crate::args::Selector;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::format::{Changes, Format, Heading, Trailer};
use crate::leaf;
use crate::marks::Marks;
use crate::merge::Merger;
use crate::model::{target_name, Missing, Outcome, Row, TableFacts};
use crate::names::told::Told;
use crate::names::Names;
use crate::numbers::AddressRange;
use crate::plan::input::{of_stage1, Input};
use crate::plan::{DumpPlan, Style};
use crate::progress::Progress;
use crate::reader::{Event, Reader};
use crate::registers::Register;
use crate::source::ram::RamDump;
use crate::source::{interrupts, SlotSource, SourceError};
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{slot_flags, Fact, RecordKind, SlotKind, VmRecord};
use s2dump_abi::target::{Identity, Target};
use s2dump_vmsa::fault::Fault;
use std::rc::Rc;

/// One pass over slots, from the first row to the trailer.
pub(super) struct Pass<'a> {
    plan: &'a DumpPlan,
    /// Tables that were dumped before.
    seen: Vec<Identity>,
    /// Tables that were passed over.
    others: Vec<Target>,
    /// The name of the table in a capture.
    selector: Option<&'a Selector>,
    writer: &'a mut dyn Format,
    vms: Vec<VmRecord>,
    vm: Option<VmRecord>,
    dumping: Option<TableFacts>,
    merger: Option<Merger>,
    rows: u64,
    holes: u64,
    missing: Missing,
    hidden: Hidden,
    suspicion: Suspicion,
    changes: Changes,
    facts: Vec<Fact>,
    marks: Marks,
    names: Rc<Names>,
    issues: u64,
    cause: Option<String>,
    beyond: Vec<Failure>,
}

/// What a pass over one table of an input learned for the next.
#[derive(Default)]
pub(super) struct Known {
    vms: Vec<VmRecord>,
    facts: Vec<Fact>,
    seen: Vec<Identity>,
    /// Tables that were left out, because they have none of the addresses.
    pub(super) beyond: Vec<Failure>,
}

/// Entries that not every format can show, by what they are.
#[derive(Clone, Copy, Default)]
struct Hidden {
    reserved: u64,
    outside: u64,
    looping: u64,
    beyond: u64,
}

impl Hidden {
    fn add(&mut self, row: &Row, table: &TableFacts) {
        let count = match row.kind {
            RecordKind::RESERVED => &mut self.reserved,
            RecordKind::TABLE_OUTSIDE => &mut self.outside,
            RecordKind::TABLE_LOOP => &mut self.looping,
            RecordKind::LEAF if leaf::fault_of_row(row, table) == Some(Fault::AddressSize) => &mut self.beyond,
            _ => return,
        };
        *count += row.count;
    }

    /// Says what a format that knows holes and pages only made of them.
    fn note(self) -> Option<String> {
        let counts = [
            (self.reserved, "reserved (as holes)"),
            (self.outside, "table-outside (as holes)"),
            (self.looping, "table-loop (as holes)"),
            (self.beyond, "beyond the output size (as if in use)"),
        ];
        let said: Vec<String> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        (!said.is_empty()).then(|| format!("entries this format cannot tell: {}", said.join(", ")))
    }
}

impl<'a> Pass<'a> {
    /// Makes a pass that writes by `plan` with `writer`; `vm` if it is known.
    pub(super) fn new(plan: &'a DumpPlan, writer: &'a mut dyn Format, vm: Option<VmRecord>) -> Self {
        Self {
            plan,
            seen: Vec::new(),
            others: Vec::new(),
            selector: None,
            writer,
            vms: Vec::new(),
            vm,
            dumping: None,
            merger: None,
            rows: 0,
            holes: 0,
            missing: Missing::default(),
            hidden: Hidden::default(),
            suspicion: Suspicion::new(matches!(&plan.input, Input::Image(image) if image.says_encoding)),
            changes: Changes::default(),
            facts: Vec::new(),
            marks: Marks::default(),
            names: Rc::default(),
            issues: 0,
            cause: None,
            beyond: Vec::new(),
        }
    }

    /// Looks for the table of this name, in a capture.
    pub(super) fn named(self, selector: Option<&'a Selector>) -> Self {
        Self { selector, ..self }
    }

    /// Goes on in the input where another pass ended, to another table.
    pub(super) fn after(self, Known { vms, facts, seen, beyond }: Known) -> Self {
        Self { vms, facts, seen, beyond, ..self }
    }

    /// Returns what it learned beside rows.
    pub(super) fn into_known(self) -> Known {
        let Self { vms, facts, mut seen, dumping, beyond, .. } = self;
        seen.extend(dumping.map(|table| Identity { target: table.target, root: table.root }));
        Known { vms, facts, seen, beyond }
    }

    /// Takes facts, as a capture may have them too.
    pub(super) fn knowing(self, facts: Vec<Fact>) -> Self {
        Self { facts, ..self }
    }

    /// Takes what is known of input addresses, as a capture may tell it too.
    pub(super) fn naming(self, names: Names) -> Self {
        Self { names: Rc::new(names), ..self }
    }

    /// Writes the dump of `target`, or the one the plan names in a capture, up to its last row.
    pub(super) fn run<S: SlotSource>(
        &mut self,
        reader: &mut Reader<S>,
        target: Option<Target>,
        context: &mut Context<'_>,
    ) -> Result<Trailer, Stop> {
        match self.run_on(reader, target, context)? {
            Some(trailer) => Ok(trailer),
            None => Err(self.beyond.pop().unwrap_or_else(|| self.nothing(target)).into()),
        }
    }

    /// As [`Self::run`], but `None` if there is no such table.
    pub(super) fn run_on<S: SlotSource>(
        &mut self,
        reader: &mut Reader<S>,
        target: Option<Target>,
        context: &mut Context<'_>,
    ) -> Result<Option<Trailer>, Stop> {
        let mut progress = Progress::new(context.shows_progress);
        let mut wanted = target;
        loop {
            let event = reader.next_event();
            if reader.has_issues() {
                progress.clear(context.err);
                context.tell_issues(reader, &mut self.issues);
            }
            match event.map_err(|error| error.into_failure("capture"))? {
                Some(Event::Vm(vm)) => remember(&mut self.vms, vm),
                Some(Event::Fact(fact)) if self.facts.len() < MOST_FACTS => self.facts.push(fact),
                Some(Event::Dump(table)) => {
                    let chosen = match wanted {
                        Some(target) => Some(target),
                        None => self.choose(table.target)?,
                    };
                    let is_seen = self.seen.contains(&Identity { target: table.target, root: table.root });
                    if Some(table.target) == chosen && self.dumping.is_none() && !is_seen {
                        check_listed(&table, &self.vms)?;
                        if let Some(failure) = self.range_beyond(&table) {
                            // A capture may have a table twice.
                            if !self.beyond.contains(&failure) {
                                self.beyond.push(failure);
                            }
                            continue;
                        }
                        wanted = chosen;
                        self.take_names(reader.told(), table.target, context);
                        self.begin(table, context)?;
                    } else {
                        add_named(&mut self.others, table.target);
                    }
                }
                Some(Event::Table(row)) => {
                    if self.dumping.is_some_and(|table| (table.start..table.end).contains(&row.ia)) {
                        self.writer.table_page(&row);
                    }
                }
                Some(Event::Row(row)) => {
                    if self.dumping.is_some() {
                        progress.count(&row);
                    }
                    self.row(row, context)?;
                }
                Some(Event::End(SlotKind::RANGES, mut outcome)) if self.dumping.is_some() => {
                    progress.clear(context.err);
                    if let Some(error) = reader.take_failure() {
                        self.issues += 1;
                        match error {
                            SourceError::AnotherTable { asked, .. } if asked.target.guest_handle().is_some() => {
                                outcome.status = Some(Status::VM_GONE);
                            }
                            _ => {}
                        }
                        self.cause = Some(error.into_failure("capture").message);
                    }
                    return self.last_rows(outcome, context).map(Some);
                }
                Some(Event::End(SlotKind::END, outcome)) => {
                    if let Some(status) = outcome.status.filter(|&status| status != Status::OK) {
                        // What a name means that the list does not have, nobody knows yet.
                        let meant = wanted.or_else(|| self.choose(outcome.target).ok().flatten());
                        if meant == Some(outcome.target) {
                            return Err(Failure::from_status(status, &target_name(outcome.target)).into());
                        }
                    }
                }
                Some(_) => {}
                None => return Ok(None),
            }
            if let (Some(_), Some(slot)) = (&self.dumping, reader.position()) {
                progress.tick_slot(context.err, slot);
            }
        }
    }

    /// Writes `dump`, of a table in an image of memory, up to its last row.
    pub(super) fn run_image(&mut self, dump: &mut RamDump<'_>, context: &mut Context<'_>) -> Result<Trailer, Stop> {
        let mut progress = Progress::new(context.shows_progress);
        let table = *dump.facts();
        self.begin(table, context)?;
        let mut rows = Vec::new();
        loop {
            let read = dump.read_on(&mut rows);
            for row in rows.drain(..).take_while(|_| !interrupts::came()) {
                progress.count(&row);
                self.row(row, context)?;
            }
            match read {
                _ if interrupts::came() => {
                    self.issues += 1;
                    self.cause = Some(SourceError::Interrupted.to_string());
                    break;
                }
                Ok(true) => progress.tick(context.err, dump.outcome().visited, dump.cursor()),
                Ok(false) => break,
                // What was read is not lost.
                Err(error) => {
                    self.issues += 1;
                    self.cause = Some(error.into_failure("ram").message);
                    break;
                }
            }
        }
        progress.clear(context.err);
        self.last_rows(dump.outcome(), context)
    }

    /// Returns which table of a capture is meant, seeing the first one, or `None` if the lists so far do not tell.
    fn choose(&self, first: Target) -> Result<Option<Target>, Failure> {
        match self.selector {
            None => Ok(Some(first)),
            Some(selector) => Ok(resolve_captured(selector, &self.vms)?.map(|(target, _)| target)),
        }
    }

    /// Says that the range is beyond all of `table`, if that is so.
    fn range_beyond(&self, table: &TableFacts) -> Option<Failure> {
        let start = self.plan.range.start;
        (start >= table.geometry.ia_end()).then(|| beyond(&table.name(), start, table.geometry.ia_bits()))
    }

    /// Takes what a capture says of the table that begins, if that is wanted.
    fn take_names(&mut self, told: &Told, target: Target, context: &mut Context<'_>) {
        if !self.plan.names || self.names.is_known() {
            return;
        }
        let names = of_captured(told, target, &self.facts);
        if !names.is_known() {
            context.note(format_args!("{}: nothing tells names of its input addresses", target_name(target)));
        }
        self.names = Rc::new(names);
    }

    fn begin(&mut self, mut table: TableFacts, context: &mut Context<'_>) -> Result<(), Stop> {
        if let (Style::Ptdump(_), Register::Tcr) = (&self.plan.style, table.register_name()) {
            return Err(of_stage1("--format ptdump", &table.name()).into());
        }
        let range = self.plan.range.whole_pages(table.geometry.granule().page_shift());
        if self.seen.is_empty() {
            context.note_widened(range);
        }
        let ia_end = table.geometry.ia_end();
        if range.end != u64::MAX && range.end > ia_end {
            let (name, last, bits) = (table.name(), ia_end - 1, table.geometry.ia_bits());
            context
                .note(format_args!("{name}: its input addresses have {bits} bits: the range ends at {last:#x} there"));
        }
        if range != AddressRange::ALL && (range.start < table.start || range.end.min(ia_end) > table.end) {
            self.issues += 1;
            context.note(format_args!("only {:#x}..{:#x} was captured", table.start, table.end));
        }
        table.start = table.start.max(range.start);
        table.end = table.end.min(range.end);
        let exact = table.has(slot_flags::EXACT);
        if self.plan.exact && !exact {
            context.note("captured folded: within rows that are scattered the output addresses are not known");
        }
        let handle = table.target.guest_handle();
        self.vm = self.vm.or_else(|| self.vms.iter().find(|vm| Some(vm.handle) == handle).copied());
        let heading = Heading {
            table,
            vm: self.vm,
            exact: self.plan.exact && exact,
            color: context.color(self.plan.color),
            headings: self.plan.headings,
            filter: self.plan.filter.options(),
            rows: self.plan.rows,
            names: Rc::clone(&self.names),
        };
        self.merger = Some(Merger::of_table(&table, self.plan.exact));
        if table.has(slot_flags::TABLES) {
            self.writer.tells_tables();
        }
        if !self.seen.is_empty() && self.plan.style.is_for_people() {
            writeln!(context.out)?;
        }
        self.marks = Marks::of_table(&self.facts, table.target);
        self.dumping = Some(table);
        Ok(self.writer.begin(context.out, &heading)?)
    }

    fn row(&mut self, row: Row, context: &mut Context<'_>) -> Result<(), Stop> {
        let Some(table) = self.dumping else { return Ok(()) };
        let Some(row) = row.clip(table.start, table.end, &table.geometry) else { return Ok(()) };
        let marks = std::mem::take(&mut self.marks);
        // Before rows are joined: what a row of several entries says of its first would not be known of a later one.
        let names = Rc::clone(&self.names);
        let pushed = marks.cut_row(row, &table.geometry, |part| {
            names.cut_row(part, &table.geometry, |part| {
                // Where a change is, rows do not join, and it is told of both.
                if names.is_border(&part) && !part.changed.at_start {
                    let held = self.merger.as_mut().and_then(Merger::finish);
                    self.write(held, context)?;
                }
                self.push(part, context)
            })
        });
        self.marks = marks;
        pushed
    }

    fn push(&mut self, row: Row, context: &mut Context<'_>) -> Result<(), Stop> {
        let runs = self.merger.as_ref().map_or([None, None], |merger| merger.runs(row));
        for run in runs.into_iter().flatten() {
            let finished = self.merger.as_mut().and_then(|merger| merger.push(run));
            self.write(finished, context)?;
        }
        Ok(())
    }

    fn write(&mut self, row: Option<Row>, context: &mut Context<'_>) -> Result<(), Stop> {
        let (Some(row), Some(table)) = (row, &self.dumping) else { return Ok(()) };
        self.missing.add(&row, table);
        self.suspicion.add(&row, table);
        self.changes.add(&row);
        if !self.plan.filter.is_wanted(&row, table) {
            return Ok(());
        }
        if self.plan.mapped && row.is_hole() {
            self.holes += 1;
            return Ok(());
        }
        self.rows += 1;
        self.hidden.add(&row, table);
        Ok(self.writer.row(context.out, &row)?)
    }

    fn last_rows(&mut self, outcome: Outcome, context: &mut Context<'_>) -> Result<Trailer, Stop> {
        let last = self.merger.as_mut().and_then(Merger::finish);
        self.write(last, context)?;
        if let Some(note) = self.hidden.note().filter(|_| !self.writer.tells_faults()) {
            context.note(note);
        }
        self.suspicion.notes().iter().for_each(|note| context.note(note));
        let Self { rows, missing, changes, issues, .. } = *self;
        let holes = self.plan.mapped.then_some(self.holes);
        Ok(Trailer { outcome, rows, holes, verified: None, missing, changes, issues, cause: self.cause.take() })
    }

    /// Returns whether what was read is certainly no table.
    pub(super) fn is_no_table(&self) -> bool {
        self.suspicion.is_no_table()
    }

    /// Writes what comes after the rows.
    pub(super) fn end(&mut self, trailer: &Trailer, context: &mut Context<'_>) -> Result<(), Stop> {
        Ok(self.writer.end(context.out, trailer)?)
    }

    /// Says that there was no table to dump.
    fn nothing(&self, wanted: Option<Target>) -> Failure {
        match (self.selector, wanted) {
            (Some(selector), _) => not_captured(selector, &self.vms, &self.others),
            (None, Some(target)) => {
                Failure::new(ExitCode::UsageOrIo, format_args!("{}: the driver gave no table", target_name(target)))
            }
            (None, None) => Failure::new(ExitCode::UsageOrIo, "the capture holds no table"),
        }
    }
}
