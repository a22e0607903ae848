// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a whole machine from the device, one stream after the other; what is read may be kept, slot for slot.

mod live;

pub(super) use live::Live;

use super::identity::{is_as_listed, listed_table, listed_tables};
use super::time_limit::{Part, TimeLimit};
use super::{list_vms, names, ReadProc};
use crate::args::Selector;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::frame::SlotBuffer;
use crate::machine::moment::Moment;
use crate::machine::Machine;
use crate::model::target_name;
use crate::reader::{Event, Reader};
use crate::source::device::{Device, DeviceSlots, Query};
use crate::source::{interrupts, Fetched, SlotSource, SourceError};
use s2dump_abi::hypercall::{DumpFlags, Status};
use s2dump_abi::target::{Identity, Place, Target, PLACES};
use s2dump_abi::version::features;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// Where slots are kept.
pub(super) type Keep<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

/// Why a survey stopped.
#[derive(Debug)]
pub(super) enum Halt {
    /// The device.
    Failed(Failure),
    /// Keeping slots.
    Output(io::Error),
    /// A signal came.
    Interrupted,
    /// There is no time left; what for is kept in [`Survey::late`].
    NoTime,
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// So many rows or so are taken between two looks at the clock: less than a slot has.
const EVENTS: u64 = 64;

/// What looks at one moment are called.
pub(super) const SECOND_LOOKS: &str = "second looks";

/// Why something was not seen.
pub(super) const NO_TIME: &str = "no time left";

/// A survey of the machine that this runs on.
pub(super) struct Survey<'a> {
    device: Device,
    budget: u32,
    keep: Option<&'a mut Keep<'a>>,
    /// What was read so far.
    pub(super) machine: Machine,
    /// What went wrong and stopped nothing.
    pub(super) notes: Vec<String>,
    /// When nothing more is read.
    pub(super) limit: Option<&'a TimeLimit>,
    /// What was not read, or not all of it, because there was no time left.
    pub(super) late: Vec<String>,
    /// What is read was read before.
    is_second: bool,
    /// How long the first reading of each stream took, if time is limited.
    took: BTreeMap<String, Duration>,
    /// Reads files of `/proc`, if names of input addresses are to be kept, with the first reading of each tree.
    pub(super) proc: Option<&'a ReadProc>,
}

/// Slots that are kept as they pass.
struct Kept<'d, 'k, 'a> {
    slots: DeviceSlots<'d>,
    keep: Option<&'k mut &'a mut Keep<'a>>,
    failed: Option<io::Error>,
}

impl SlotSource for Kept<'_, '_, '_> {
    fn fetch(&mut self, into: &mut SlotBuffer) -> Result<Fetched, SourceError> {
        let fetched = self.slots.fetch(into)?;
        if let (Fetched::Slot(used), Some(keep)) = (&fetched, &mut self.keep) {
            if let Err(error) = keep(into.get(..*used).unwrap_or(&into[..])) {
                self.failed = Some(error);
                return Ok(Fetched::End);
            }
        }
        Ok(fetched)
    }
}

impl<'a> Survey<'a> {
    /// Begins; slots go to `keep`.
    pub(super) fn new(device: Device, budget: u32, keep: Option<&'a mut Keep<'a>>) -> Self {
        let (machine, notes, late) = (Machine::default(), Vec::new(), Vec::new());
        Self {
            device,
            budget,
            keep,
            machine,
            notes,
            limit: None,
            late,
            is_second: false,
            took: BTreeMap::new(),
            proc: None,
        }
    }

    /// Returns how many calls were made so far.
    pub(super) fn calls(&self) -> u64 {
        self.device.calls()
    }

    /// What follows has `part` of the time.
    pub(super) fn enter(&self, part: Part) {
        if let Some(limit) = self.limit {
            limit.enter(part);
        }
    }

    /// Notes that there is no time left for what is called `name`.
    pub(super) fn miss(&mut self, name: &str) -> Halt {
        let is_again = self.is_second && name != SECOND_LOOKS;
        let name = if is_again { format!("a second reading of {name}") } else { name.to_owned() };
        if !self.late.contains(&name) {
            self.late.push(name);
        }
        Halt::NoTime
    }

    /// Returns whether there is time for the stream called `name`. Half a reading tells nothing, so none is begun that cannot end if it
    /// takes as long as the first.
    fn has_time(&self, name: &str) -> bool {
        let took = self.took.get(name).copied().unwrap_or_default();
        self.limit.is_none_or(|limit| limit.has(took))
    }

    /// Reads the stream called `name`.
    fn read(&mut self, query: Query, name: &str) -> Result<Status, Halt> {
        let fail = |error: SourceError| Halt::Failed(error.into_failure(name));
        let limit = self.limit;
        let is_over = || limit.is_some_and(TimeLimit::is_over);
        if !self.has_time(name) {
            return Err(self.miss(name));
        }
        let begin = limit.map(TimeLimit::elapsed);
        let target = query.table().map_or(Target(0), |table| table.target);
        let slots = match self.device.start(query) {
            Ok(slots) => slots,
            Err(error) => {
                self.machine.fail(target, error.status());
                return Err(fail(error));
            }
        };
        let mut source = Kept { slots, keep: self.keep.as_mut(), failed: None };
        let mut reader = Reader::new(&mut source);
        let (mut status, mut failed, mut is_late, mut events) = (Status::OK, None, false, 0_u64);
        loop {
            match reader.next_event() {
                Ok(Some(event)) => {
                    if let Event::End(_, outcome) = &event {
                        status = outcome.status.unwrap_or(Status::BAD_ANSWER);
                    }
                    events += 1;
                    is_late = events % EVENTS == 0 && !matches!(event, Event::End(..)) && is_over();
                    self.machine.take(event);
                    if is_late {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    self.machine.fail(target, error.status());
                    failed = Some(fail(error));
                    break;
                }
            }
        }
        let issues = std::iter::from_fn(|| reader.next_issue());
        self.notes.extend(issues.take(super::MOST_ISSUES as usize).map(|issue| issue.to_string()));
        drop(reader);
        let failed_to_keep = source.failed;
        if let Some((begin, end)) = begin.zip(limit.map(TimeLimit::elapsed)) {
            self.took.entry(name.to_owned()).or_insert(end.saturating_sub(begin));
        }
        match (failed_to_keep, failed) {
            _ if interrupts::came() => Err(Halt::Interrupted),
            (Some(error), _) => Err(Halt::Output(error)),
            (None, Some(failure)) => Err(failure),
            (None, None) if is_late => Err(self.miss(name)),
            (None, None) => Ok(status),
        }
    }

    /// Reads the stream called `name`; that it is not there, or not whole, is noted.
    fn try_read(&mut self, query: Query, name: &str) -> Result<(), Halt> {
        let failure = match self.read(query, name) {
            Ok(Status::OK) => return Ok(()),
            Ok(status) => Failure::from_status(status, name),
            Err(Halt::Failed(failure)) => failure,
            Err(Halt::NoTime) => return Ok(()),
            Err(halt) => return Err(halt),
        };
        self.notes.push(failure.message);
        Ok(())
    }

    /// Reads the list of VMs.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub(super) fn list(&mut self) -> Result<(), Halt> {
        match self.read(Query::List, "list")? {
            Status::OK => Ok(()),
            status => Err(Failure::from_status(status, "list").into()),
        }
    }

    /// Notes a failure, once; returns its message.
    pub(super) fn note(&mut self, failure: Failure) -> String {
        if !self.notes.contains(&failure.message) {
            self.notes.push(failure.message.clone());
        }
        failure.message
    }

    /// Reads all there is: list, facts, frames, and each tree, with table pages, and with digests if `digest`.
    ///
    /// # Errors
    ///
    /// If there is no list. What else cannot be read is noted.
    pub(super) fn gather(&mut self, digest: bool) -> Result<(), Halt> {
        self.list()?;
        if self.device.has(features::FACTS) {
            self.try_read(Query::Facts, "facts")?;
        }
        self.frames()?;
        let flag = |wanted: bool, flag: DumpFlags| if wanted { flag } else { DumpFlags::default() };
        let flags = DumpFlags::EXACT
            .union(flag(digest && self.device.has(features::DIGEST), DumpFlags::DIGEST))
            .union(flag(self.device.has(features::TABLES), DumpFlags::TABLES));
        let always = [(Target::HYP, features::HYP_STAGE1), (Target::HOST, features::HOST_STAGE2)];
        for (target, feature) in always {
            if self.device.has(feature) {
                self.dump(Identity { target, root: 0 }, flags)?;
            }
        }
        self.dump_guests(flags)?;
        self.proc = None;
        Ok(())
    }

    fn frames(&mut self) -> Result<(), Halt> {
        if self.device.has(features::FRAMES) {
            self.try_read(Query::Frames { start: 0, end: u64::MAX, budget: self.budget }, "frames")?;
        }
        Ok(())
    }

    /// Reads the list of VMs, facts, and the table of `selector`.
    ///
    /// # Errors
    ///
    /// If there is no list, or no such table in it.
    pub(super) fn gather_one(&mut self, selector: &Selector) -> Result<(), Halt> {
        self.list()?;
        if self.device.has(features::FACTS) {
            self.try_read(Query::Facts, "facts")?;
        }
        let (table, _) = listed_table(selector, &self.machine.vms)?;
        self.dump(table, DumpFlags::EXACT)
    }

    fn dump_guests(&mut self, flags: DumpFlags) -> Result<(), Halt> {
        listed_tables(&self.machine.vms.clone()).into_iter().try_for_each(|table| self.dump(table, flags))
    }

    fn dump(&mut self, table: Identity, flags: DumpFlags) -> Result<(), Halt> {
        let name = target_name(table.target);
        if !self.has_time(&name) {
            self.miss(&name);
            return Ok(());
        }
        if table.target.guest_handle().is_some() {
            let again = list_vms(&mut self.device)?;
            if !is_as_listed(table, &self.machine.vms, &again) {
                self.notes.push(Failure::from_status(Status::VM_GONE, &name).message);
                self.machine.fail(table.target, Status::VM_GONE);
                return Ok(());
            }
        }
        self.name(table.target)?;
        self.try_read(Query::Dump { table, flags, start: 0, end: u64::MAX, budget: self.budget }, &name)
    }

    /// Keeps names of the input addresses of `target`, if there is time.
    fn name(&mut self, target: Target) -> Result<(), Halt> {
        let (Some(proc), Some(keep)) = (self.proc, &mut self.keep) else { return Ok(()) };
        if self.limit.is_some_and(TimeLimit::is_over) {
            return Ok(());
        }
        let vm = self.machine.vms.iter().find(|vm| target.guest_handle() == Some(vm.handle));
        match names::to_capture(&mut self.device, target, vm, proc) {
            Ok(slots) => keep(&slots).map_err(Halt::Output),
            Err(failure) => {
                self.notes.push(failure.message);
                Ok(())
            }
        }
    }

    /// Reads again what was read to its end: trees, for their digests, and then the frames.
    pub(super) fn second_pass(&mut self) -> Result<(), Halt> {
        self.is_second = true;
        self.again(|_| true)?;
        if self.machine.frames.is_complete {
            self.frames()?;
        }
        Ok(())
    }

    /// Reads the trees of guests again.
    pub(super) fn guests_again(&mut self) -> Result<(), Halt> {
        self.again(|target| target.guest_handle().is_some())
    }

    fn again(&mut self, wants: impl Fn(Target) -> bool) -> Result<(), Halt> {
        // What was not read to its end the first time has nothing to be compared with.
        let whole = self.machine.trees.iter().filter(|tree| tree.is_complete);
        let tables: Vec<Identity> = whole.map(|tree| tree.table.identity()).collect();
        tables.into_iter().filter(|table| wants(table.target)).try_for_each(|table| {
            // In EL2's digest are the pages of the ring that it has mapped at the moment.
            let flags = if table.target == Target::HYP { DumpFlags::EXACT } else { DumpFlags::DIGEST };
            self.dump(table, flags)
        })
    }

    /// Looks at frames. The lists in between have whoever maps one of them: no VM begins and ends within so few looks.
    pub(super) fn look_at_frames(&mut self, pages: &[u64]) -> Result<Vec<Moment>, Halt> {
        const LOOKS: usize = 16;
        let mut moments = Vec::with_capacity(pages.len());
        self.list()?;
        for pages in pages.chunks(LOOKS) {
            for &pa in pages {
                moments.push(self.look(pa, &[])?);
            }
            self.list()?;
        }
        Ok(moments)
    }

    /// Looks at a frame and places at one moment.
    pub(super) fn look(&mut self, pa: u64, places: &[(Target, u64)]) -> Result<Moment, Halt> {
        let not_possible = |why: &str| Halt::Failed(Failure::new(ExitCode::Unsupported, why));
        if !self.device.has(features::EXAMINE) {
            return Err(not_possible("EL2 cannot look at several tables at one moment"));
        }
        let mut named = [Place::NONE; PLACES];
        for (at, &(target, ia)) in places.iter().enumerate() {
            let place = named.get_mut(at).zip(Place::new(target, ia));
            let (slot, place) = place.ok_or_else(|| not_possible("EL2 cannot look at these places"))?;
            *slot = place;
        }
        let before = self.machine.moments.len();
        match self.read(Query::Examine { pa, places: named }, SECOND_LOOKS)? {
            Status::OK => {}
            status => return Err(Failure::from_status(status, SECOND_LOOKS).into()),
        }
        match self.machine.moments.get(before) {
            Some(moment) => Ok(moment.clone()),
            None => Err(not_possible("the examination has no answer")),
        }
    }
}
