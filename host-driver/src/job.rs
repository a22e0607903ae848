// SPDX-License-Identifier: GPL-2.0-only
//! What runs between a start and its END slot, one slot at a time.

use crate::argument::Request;
use crate::call::{Call, CallError};
use crate::error::SessionError;
use crate::host::Host;
use crate::slot;
use crate::vms::{self, Listed};
use s2dump_abi::hypercall::{DumpFlags, Status};
use s2dump_abi::slot::{SlotHeader, SlotKind, VmRecord};
use s2dump_abi::target::Target;
use zerocopy::IntoBytes;

/// What tells one VM's table from that of another VM which got the same handle between two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableId {
    root: u64,
    vtcr: u64,
    flags: u16,
    vmid: u16,
}

impl TableId {
    const fn of(header: &SlotHeader) -> Self {
        Self { root: header.root, vtcr: header.vtcr, flags: header.flags, vmid: header.vmid }
    }
}

/// The work that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// List EL2's VMs.
    List {
        /// VMs listed so far.
        listed: Listed,
    },
    /// List the VMs that only the host knows.
    ListReserved {
        /// VMs EL2 listed.
        listed: Listed,
        /// Position in the host's last look.
        from: usize,
    },
    /// Dump a guest's table.
    Dump {
        /// How to dump.
        flags: DumpFlags,
        /// pKVM handle of the guest.
        handle: u16,
        /// Descriptors per call.
        budget: u32,
        /// The table of the chunks so far.
        table: Option<TableId>,
    },
    /// Walk to an address.
    Walk {
        /// pKVM handle of the guest.
        handle: u16,
    },
}

/// What follows a filled slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// More slots.
    More(Job),
    /// The END slot.
    End,
}

/// How far a start has come: what its slots and its END slot tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    target: u64,
    start: u64,
    cursor: u64,
    /// As asked for; after the first call as EL2 says, which knows where the space ends.
    end: u64,
    /// Slots filled so far.
    sequence: u64,
    most_visited: u32,
    /// Who made the VM that is dumped, and its name.
    owner: Option<(u32, [u8; 24])>,
}

impl Progress {
    /// Returns the job for `request`, and progress at its beginning.
    #[must_use]
    pub fn begin(request: Request) -> (Self, Job) {
        let aim =
            |handle, start, end| Self { target: Target::guest(handle).0, start, cursor: start, end, ..Self::default() };
        match request {
            Request::List => (Self::default(), Job::List { listed: Listed::default() }),
            Request::Dump { flags, handle, start, end, budget } => {
                (aim(handle, start, end), Job::Dump { flags, handle, budget, table: None })
            }
            Request::Walk { handle, address } => (aim(handle, address, 0), Job::Walk { handle }),
        }
    }

    /// Fills `slot` with the next of `job`.
    ///
    /// # Errors
    ///
    /// The slot is not to be used then, and the job is over.
    pub fn run<H: Host>(&mut self, host: &mut H, job: Job, slot: u32) -> Result<Next, SessionError> {
        let next = match job {
            Job::List { listed } => self.list(host, slot, listed)?,
            Job::ListReserved { listed, from } => self.list_reserved(host, slot, listed, from)?,
            Job::Dump { flags, handle, budget, table } => self.dump(host, slot, (flags, handle, budget), table)?,
            Job::Walk { handle } => {
                let call = Call::Walk { handle, address: self.cursor };
                let answer = call.make(host, slot, self.sequence).map_err(|error| self.explain(host, handle, error))?;
                let header = slot::read_header(host, slot)?;
                self.end = header.end;
                self.move_on(header.next, answer.visited, true)?;
                Next::End
            }
        };
        self.sequence += 1;
        Ok(next)
    }

    fn list<H: Host>(&mut self, host: &mut H, slot: u32, mut listed: Listed) -> Result<Next, SessionError> {
        if self.sequence == 0 {
            // Before EL2 is asked: a VM that starts to run in between is then listed by EL2, not lost.
            host.look_at_vms()?;
        }
        let answer = Call::List { first: self.cursor }.make(host, slot, self.sequence)?;
        let header = slot::read_header(host, slot)?;
        vms::fill_in(host, slot, &header, &mut listed)?;
        self.end = header.end;
        let is_done = answer.next == 0;
        self.move_on(answer.next, answer.visited, is_done)?;
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

    fn dump<H: Host>(
        &mut self,
        host: &mut H,
        slot: u32,
        (flags, handle, budget): (DumpFlags, u16, u32),
        table: Option<TableId>,
    ) -> Result<Next, SessionError> {
        if self.sequence == 0 {
            self.owner = vms::look_for(host, handle)?;
        }
        let call = Call::Dump { flags, handle, cursor: self.cursor, end: self.end, budget };
        let answer = call.make(host, slot, self.sequence).map_err(|error| self.explain(host, handle, error))?;
        let header = slot::read_header(host, slot)?;
        let id = TableId::of(&header);
        self.end = header.end;
        let is_done = answer.next == self.end;
        // A handle may be given to another VM between two calls, and the pages of its table may be the same ones.
        let is_other_table = table.is_some_and(|table| table != id);
        if is_other_table || is_done && table.is_some() && vms::look_for(host, handle)? != self.owner {
            return Err(SessionError::Refused(Status::VM_GONE));
        }
        self.move_on(answer.next, answer.visited, is_done)?;
        match (is_done, flags.contains(DumpFlags::ATOMIC)) {
            (true, _) => Ok(Next::End),
            (false, false) => Ok(Next::More(Job::Dump { flags, handle, budget, table: Some(id) })),
            // All in one call, or no answer at all.
            (false, true) => Err(SessionError::Refused(Status::BAD_ANSWER)),
        }
    }

    /// Goes on to `next`. EL2 must move or be done: else this would never end.
    fn move_on(&mut self, next: u64, visited: u32, is_done: bool) -> Result<(), SessionError> {
        if !is_done && next <= self.cursor {
            return Err(SessionError::Refused(Status::BAD_ANSWER));
        }
        self.cursor = next;
        self.most_visited = self.most_visited.max(visited);
        Ok(())
    }

    /// Makes "no such VM" say more: gone since the first chunk, or not run yet.
    fn explain<H: Host>(&self, host: &mut H, handle: u16, error: CallError) -> SessionError {
        if error != CallError::Refused(Status::NO_SUCH_VM) {
            return error.into();
        }
        let status = match self.sequence {
            0 if host.look_at_vms().is_ok() && vms::is_reserved(host, handle) => Status::VM_NOT_RUN,
            0 => Status::NO_SUCH_VM,
            _ => Status::VM_GONE,
        };
        SessionError::Refused(status)
    }

    /// Writes the END slot.
    ///
    /// # Errors
    ///
    /// The slot cannot be written.
    pub fn write_end<H: Host>(&self, host: &mut H, slot: u32, status: Status) -> Result<(), SessionError> {
        let end = SlotHeader { status: status.0, visited: self.most_visited, ..self.header(SlotKind::END) };
        Ok(host.write_slot(slot, 0, end.as_bytes())?)
    }

    fn header(&self, kind: SlotKind) -> SlotHeader {
        SlotHeader {
            sequence: self.sequence,
            target: self.target,
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
        None => Next::End,
    }
}
