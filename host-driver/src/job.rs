// SPDX-License-Identifier: GPL-2.0-only
//! The work between a start and its END slot, one slot at a time.

use crate::argument::Request;
use crate::call::{Call, CallError};
use crate::error::SessionError;
use crate::facts;
use crate::host::Host;
use crate::memory;
use crate::slot_header;
use crate::vms::{self, Listed};
use s2dump_abi::hypercall::{DumpFlags, Status};
use s2dump_abi::slot::{slot_flags, Fact, MemorySlot, SlotHeader, SlotKind, VmRecord};
use s2dump_abi::target::{Identity, Place, Target, PLACES};
use zerocopy::IntoBytes;

/// The work that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// List EL2's VMs.
    List {
        /// VMs listed so far.
        listed: Listed,
    },
    /// List the VMs that never ran, which only the host knows.
    ListReserved {
        /// VMs that EL2 listed.
        listed: Listed,
        /// Position in the host's last look.
        from: usize,
    },
    /// Dump a table.
    Dump {
        /// How to dump.
        flags: DumpFlags,
        /// Descriptors per call.
        budget: u32,
    },
    /// Walk to an address.
    Walk,
    /// Tell about page frames.
    Frames {
        /// Frames per call.
        budget: u32,
    },
    /// Tell EL2's facts.
    Facts,
    /// Tell the driver's facts.
    FactsOfDriver {
        /// The number of the one to go on with.
        from: u32,
    },
    /// Examine a page frame.
    Examine {
        /// Places to look at, too.
        places: [Place; PLACES],
    },
    /// Tell memory slots, which only the host knows.
    Memory,
}

/// What comes after a filled slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// More slots.
    More(Job),
    /// The END slot, with this status.
    End(Status),
}

/// The stream of a start, as far as it has come. The END slot, and slots that the driver writes, are made of this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// The table. Its root is 0 until it is known.
    table: Option<Identity>,
    start: u64,
    cursor: u64,
    /// The end that was asked for. After the first call it is what EL2 says, because EL2 knows where the space ends.
    end: u64,
    /// Slots filled so far.
    sequence: u64,
    most_visited: u32,
    most_held_ticks: u32,
    tick_hz: u32,
    /// The VM stays held behind the END slot: what is started next may be about the same.
    keeps_vm: bool,
    /// The host says that the guest has a handle, but never ran.
    is_not_run: bool,
    /// Slots of the ring.
    slots: u32,
}

impl Stream {
    /// Returns the stream of `request` in a session with `slots`, of which nothing is filled yet, and its first job.
    #[must_use]
    pub fn begin(request: Request, slots: u32) -> (Self, Job) {
        let from = |start, end| Self { start, cursor: start, end, slots, ..Self::default() };
        let aim = |table, start, end| Self { table: Some(table), ..from(start, end) };
        match request {
            Request::List => (from(0, 0), Job::List { listed: Listed::default() }),
            Request::Dump { flags, table, start, end, budget } => (aim(table, start, end), Job::Dump { flags, budget }),
            Request::Walk { table, address } => (aim(table, address, 0), Job::Walk),
            Request::Frames { start, end, budget } => (from(start, end), Job::Frames { budget }),
            Request::Facts => (from(0, 0), Job::Facts),
            Request::Examine { frame, places } => (from(frame, 0), Job::Examine { places }),
            Request::Memory { table } => (Self { keeps_vm: true, ..aim(table, 0, 0) }, Job::Memory),
        }
    }

    /// Returns whether a VM is held for the calls of this stream alone.
    #[must_use]
    pub const fn lets_vm_go(&self) -> bool {
        self.table.is_some() && !self.keeps_vm
    }

    /// Holds the VM whose table is meant, so that no other VM gets its handle until [`Host::let_vms_go`]. Releases all
    /// others.
    ///
    /// # Errors
    ///
    /// The host has no such VM.
    pub fn hold<H: Host>(&mut self, host: &mut H) -> Result<(), SessionError> {
        let Some(handle) = self.table.and_then(|table| table.target.guest_handle()) else {
            host.let_vms_go();
            return Ok(());
        };
        // VMs that have no handle yet have this one.
        if handle == 0 {
            host.let_vms_go();
            return Err(SessionError::Refused(self.no_vm()));
        }
        let vm = host.hold_vm(handle)?.ok_or(SessionError::Refused(self.no_vm()))?;
        self.is_not_run = vms::is_not_run(&vm);
        Ok(())
    }

    /// Fills `slot` with the next part of `job`.
    ///
    /// # Errors
    ///
    /// The call failed, or its answer is wrong. Then the slot must not be used, and the job is over.
    pub fn run<H: Host>(&mut self, host: &mut H, job: Job, slot: u32) -> Result<Next, SessionError> {
        let next = match job {
            Job::List { listed } => self.list(host, slot, listed)?,
            Job::ListReserved { listed, from } => self.list_reserved(host, slot, listed, from)?,
            Job::Dump { flags, budget } => self.dump(host, slot, flags, budget)?,
            Job::Walk => self.walk(host, slot)?,
            Job::Frames { budget } => self.frames(host, slot, budget)?,
            Job::Facts => self.facts(host, slot)?,
            Job::FactsOfDriver { from } => self.facts_of_driver(host, slot, from)?,
            Job::Examine { places } => self.examine(host, slot, places)?,
            Job::Memory => self.memory(host, slot)?,
        };
        self.sequence += 1;
        Ok(next)
    }

    fn list<H: Host>(&mut self, host: &mut H, slot: u32, mut listed: Listed) -> Result<Next, SessionError> {
        if self.sequence == 0 {
            // The host's VMs are taken before EL2 is asked. So EL2 lists a VM that runs for the first time in between;
            // the other way round, such a VM would be lost.
            host.look_at_vms()?;
        }
        let answer = Call::List { first: self.cursor }.make(host, slot, self.sequence)?;
        let header = self.read_header(host, slot, SlotKind::VMS)?;
        vms::fill_in(host, slot, &header, &mut listed)?;
        let is_done = answer.next == 0;
        let next = if is_done { header.end } else { answer.next };
        self.move_on(&header, next, answer.visited, is_done)?;
        Ok(if is_done { after_list(host, listed, 0) } else { Next::More(Job::List { listed }) })
    }

    fn list_reserved<H: Host>(
        &mut self,
        host: &mut H,
        slot: u32,
        listed: Listed,
        from: usize,
    ) -> Result<Next, SessionError> {
        let (count, from) = vms::append_reserved(host, slot, &listed, from)?;
        let header = SlotHeader {
            record_bytes: size_of::<VmRecord>() as u16,
            record_count: count,
            ..self.header(SlotKind::VMS)
        };
        host.write_slot(slot, 0, header.as_bytes())?;
        Ok(after_list(host, listed, from))
    }

    fn dump<H: Host>(&mut self, host: &mut H, slot: u32, flags: DumpFlags, budget: u32) -> Result<Next, SessionError> {
        if flags.contains(DumpFlags::PACKED) {
            host.share_further_pages(slot)?;
        }
        let call = Call::Dump { flags, target: self.target(), cursor: self.cursor, end: self.end, budget };
        let answer = call.make(host, slot, self.sequence).map_err(|error| self.explain(error))?;
        let is_packed = flags.contains(DumpFlags::PACKED);
        let kind = if is_packed { SlotKind::PACKED } else { SlotKind::RANGES };
        let header = self.read_header_of_table(host, slot, kind)?;
        let is_done = answer.next == header.end;
        self.move_on(&header, answer.next, answer.visited, is_done)?;
        match status_of(&header) {
            Status::OK if !is_done && flags.contains(DumpFlags::ATOMIC) => {
                // An atomic dump is done in one call, or EL2 broke the protocol.
                Err(SessionError::Refused(Status::BAD_ANSWER))
            }
            Status::OK if !is_done => Ok(Next::More(Job::Dump { flags, budget })),
            status => Ok(Next::End(status)),
        }
    }

    fn walk<H: Host>(&mut self, host: &mut H, slot: u32) -> Result<Next, SessionError> {
        let call = Call::Walk { target: self.target(), address: self.cursor };
        let answer = call.make(host, slot, self.sequence).map_err(|error| self.explain(error))?;
        let header = self.read_header_of_table(host, slot, SlotKind::WALK)?;
        self.move_on(&header, header.next, answer.visited, true)?;
        Ok(Next::End(status_of(&header)))
    }

    fn frames<H: Host>(&mut self, host: &mut H, slot: u32, budget: u32) -> Result<Next, SessionError> {
        let call = Call::Frames { cursor: self.cursor, end: self.end, budget };
        let answer = call.make(host, slot, self.sequence)?;
        let header = self.read_header(host, slot, SlotKind::FRAMES)?;
        let is_done = answer.next == header.end;
        self.move_on(&header, answer.next, answer.visited, is_done)?;
        Ok(if is_done { Next::End(Status::OK) } else { Next::More(Job::Frames { budget }) })
    }

    fn facts<H: Host>(&mut self, host: &mut H, slot: u32) -> Result<Next, SessionError> {
        let answer = Call::Facts { first: self.cursor }.make(host, slot, self.sequence)?;
        let header = self.read_header(host, slot, SlotKind::FACTS)?;
        let is_done = answer.next == 0;
        let next = if is_done { header.end } else { answer.next };
        self.move_on(&header, next, answer.visited, is_done)?;
        Ok(Next::More(if is_done { Job::FactsOfDriver { from: 0 } } else { Job::Facts }))
    }

    fn facts_of_driver<H: Host>(&mut self, host: &mut H, slot: u32, from: u32) -> Result<Next, SessionError> {
        let count = facts::put(host, slot, from, self.slots)?;
        let header =
            SlotHeader { record_bytes: size_of::<Fact>() as u16, record_count: count, ..self.header(SlotKind::FACTS) };
        host.write_slot(slot, 0, header.as_bytes())?;
        let from = from.saturating_add(count);
        // Without a fact there would be no end.
        let is_done = count == 0 || from >= facts::count(self.slots);
        Ok(if is_done { Next::End(Status::OK) } else { Next::More(Job::FactsOfDriver { from }) })
    }

    fn examine<H: Host>(&mut self, host: &mut H, slot: u32, places: [Place; PLACES]) -> Result<Next, SessionError> {
        let answer = Call::Examine { frame: self.cursor, places }.make(host, slot, self.sequence)?;
        let header = self.read_header(host, slot, SlotKind::EXAMINE)?;
        self.move_on(&header, header.next, answer.visited, true)?;
        Ok(Next::End(Status::OK))
    }

    fn memory<H: Host>(&mut self, host: &mut H, slot: u32) -> Result<Next, SessionError> {
        let (count, next) = memory::put(host, slot, self.cursor)?;
        let header = SlotHeader {
            record_bytes: size_of::<MemorySlot>() as u16,
            record_count: count,
            start: self.cursor,
            next: next.unwrap_or(0),
            ..self.header(SlotKind::MEMORY)
        };
        host.write_slot(slot, 0, header.as_bytes())?;
        self.cursor = header.next;
        Ok(next.map_or(Next::End(Status::OK), |_| Next::More(Job::Memory)))
    }

    /// Reads the header of a slot that EL2 filled, and checks that the slot is the next one of the stream, and of `kind`.
    fn read_header<H: Host>(&self, host: &H, slot: u32, kind: SlotKind) -> Result<SlotHeader, SessionError> {
        let header = slot_header::read_header(host, slot)?;
        if SlotKind(header.kind) == kind && header.sequence == self.sequence {
            Ok(header)
        } else {
            Err(SessionError::Refused(Status::BAD_ANSWER))
        }
    }

    /// The same, and checks that the slot is about the table that is meant.
    fn read_header_of_table<H: Host>(
        &mut self,
        host: &mut H,
        slot: u32,
        kind: SlotKind,
    ) -> Result<SlotHeader, SessionError> {
        let header = self.read_header(host, slot, kind)?;
        let found = Identity { target: Target(header.target), root: header.root };
        match self.table {
            Some(Identity { target, .. }) if target != found.target => {
                return Err(SessionError::Refused(Status::BAD_ANSWER));
            }
            Some(Identity { root, .. }) if root != 0 && root != found.root => {
                // The rows of another table, in a page that user space has mapped: they are no slot any more.
                slot_header::erase(host, slot)?;
                return Err(SessionError::Refused(Status::VM_GONE));
            }
            _ => self.table = Some(found),
        }
        Ok(header)
    }

    fn target(&self) -> Target {
        self.table.map_or(Target(0), |table| table.target)
    }

    /// Counts a slot that EL2 filled, and moves the cursor to `next`. EL2 must make progress or be done, or the stream
    /// would never end.
    fn move_on(&mut self, header: &SlotHeader, next: u64, visited: u32, is_done: bool) -> Result<(), SessionError> {
        self.most_held_ticks = self.most_held_ticks.max(header.held_ticks);
        self.tick_hz = header.tick_hz;
        self.end = header.end;
        if !is_done && next <= self.cursor {
            return Err(SessionError::Refused(Status::BAD_ANSWER));
        }
        self.cursor = next;
        self.most_visited = self.most_visited.max(visited);
        Ok(())
    }

    /// Says more than "no such VM" where more is known: the VM is gone, or never ran.
    fn explain(&self, error: CallError) -> SessionError {
        match error {
            CallError::Refused(Status::NO_SUCH_VM) if self.sequence == 0 && self.is_not_run => {
                SessionError::Refused(Status::VM_NOT_RUN)
            }
            CallError::Refused(Status::NO_SUCH_VM) => SessionError::Refused(self.no_vm()),
            other => other.into(),
        }
    }

    /// Returns what "no such VM" means here. If the caller named the root of its table, or a chunk found one, the VM
    /// existed and is gone.
    fn no_vm(&self) -> Status {
        match self.table {
            Some(Identity { root: 1.., .. }) => Status::VM_GONE,
            _ => Status::NO_SUCH_VM,
        }
    }

    /// Writes the END slot.
    ///
    /// # Errors
    ///
    /// The slot cannot be written.
    pub fn write_end<H: Host>(&self, host: &mut H, slot: u32, status: Status) -> Result<(), SessionError> {
        let end = SlotHeader {
            status: status.0,
            visited: self.most_visited,
            held_ticks: self.most_held_ticks,
            tick_hz: self.tick_hz,
            ..self.header(SlotKind::END)
        };
        Ok(host.write_slot(slot, 0, end.as_bytes())?)
    }

    fn header(&self, kind: SlotKind) -> SlotHeader {
        SlotHeader {
            sequence: self.sequence,
            target: self.target().0,
            root: self.table.map_or(0, |table| table.root),
            start: self.start,
            next: self.cursor,
            end: self.end,
            ..SlotHeader::new(kind)
        }
    }
}

fn after_list<H: Host>(host: &H, listed: Listed, from: usize) -> Next {
    match vms::next_reserved(host, &listed, from) {
        Some(from) => Next::More(Job::ListReserved { listed, from }),
        None => Next::End(Status::OK),
    }
}

/// Returns the status that this slot gives its stream: [`Status::VM_DYING`] if teardown had begun.
fn status_of(header: &SlotHeader) -> Status {
    if header.flags & slot_flags::DYING == 0 {
        Status::OK
    } else {
        Status::VM_DYING
    }
}
