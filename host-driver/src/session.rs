// SPDX-License-Identifier: GPL-2.0-only
//! One open file: what is running, what is filled, how it ends.
//!
//! ```text
//!   Idle --start--> Running --last chunk, or a failure--> Ending --a slot is free--> Done
//! ```
//!
//! [`Session::start`] makes the first call itself, so that what cannot work (no such VM, bad range, gate off) is the
//! errno of that ioctl and the status beside it; from then on a failure is the status of the END slot. Every other entry makes at least one call
//! if there is a free slot and work left, and stops after a call if a signal waits: so all of them end within one
//! chunk of a signal, none is restarted, and none has to answer `EINTR`.

use crate::argument::{check_advance, check_hello, check_start};
use crate::call;
use crate::errno::Errno;
use crate::error::SessionError;
use crate::host::Host;
use crate::job::{Job, Next, Progress};
use crate::ring::Ring;
use crate::slot_header::used_bytes;
use s2dump_abi::hypercall::Status;
use s2dump_abi::ioctl::{Advance, Hello, SessionState, Start};
use s2dump_abi::slot::SLOT_BYTES;
use s2dump_abi::version::ABI_VERSION;

/// What of a filled slot a reader has not got yet; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Index in the ring.
    pub slot: u32,
    /// First byte the reader has not got.
    pub offset: usize,
    /// Bytes from there to the last of the records.
    pub len_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Running(Job),
    Ending(Status),
    Done,
}

impl From<Next> for Phase {
    fn from(next: Next) -> Self {
        match next {
            Next::More(job) => Self::Running(job),
            Next::End(status) => Self::Ending(status),
        }
    }
}

/// How the slots of this start leave: the first use decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    Undecided,
    Mapping,
    Stream,
}

/// The state of one open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    ring: Ring,
    phase: Phase,
    reader: Reader,
    progress: Progress,
    /// Bytes of the oldest filled slot that `read(2)` has given out.
    taken_bytes: usize,
}

impl Session {
    /// Makes an idle session with a ring of `slots`.
    #[must_use]
    pub fn new(slots: u32) -> Self {
        Self {
            ring: Ring::new(slots),
            phase: Phase::Idle,
            reader: Reader::Undecided,
            progress: Progress::default(),
            taken_bytes: 0,
        }
    }

    /// Answers a [`Hello`]. Our version and, where EL2 refused, its status are told even with an error.
    ///
    /// # Errors
    ///
    /// The argument, or what EL2 says.
    pub fn hello<H: Host>(&self, host: &mut H, hello: &mut Hello) -> Result<(), SessionError> {
        let checked = check_hello(hello);
        hello.version = ABI_VERSION.to_bits();
        hello.status = 0;
        checked?;
        let answer = call::hello(host).map_err(|error| {
            let error = SessionError::from(error);
            hello.status = error.status_beside_errno().0;
            error
        })?;
        *hello = Hello {
            size: hello.size,
            version: ABI_VERSION.to_bits(),
            features: answer.features,
            el2_version: answer.version.to_bits(),
            default_budget: answer.default_budget,
            slots: self.ring.slots(),
            slot_bytes: SLOT_BYTES as u32,
            status: 0,
            reserved: [0; 7],
        };
        Ok(())
    }

    /// Starts what is asked, and fills the first slot. A refusal is told in `start.status` too.
    ///
    /// # Errors
    ///
    /// A refused argument leaves the session as it was; after any other error it is idle.
    pub fn start<H: Host>(&mut self, host: &mut H, start: &mut Start) -> Result<(), SessionError> {
        let (progress, job) = Progress::begin(check_start(start)?);
        *self = Self::new(self.ring.slots());
        host.let_vm_go();
        self.begin(host, progress, job).inspect_err(|error| {
            start.status = error.status_beside_errno().0;
            host.let_vm_go();
        })
    }

    fn begin<H: Host>(&mut self, host: &mut H, mut progress: Progress, job: Job) -> Result<(), SessionError> {
        let slot = self.ring.next_free().ok_or(Errno::EINVAL)?;
        progress.hold(host)?;
        self.phase = progress.run(host, job, slot)?.into();
        self.progress = progress;
        self.ring.fill();
        Ok(())
    }

    /// Takes back slots, fills free ones, and lends all filled ones.
    ///
    /// # Errors
    ///
    /// The argument, more slots than lent, or a start that is read by `read(2)`: nothing is done then. Or the END slot
    /// cannot be written.
    pub fn advance<H: Host>(&mut self, host: &mut H, advance: &mut Advance) -> Result<(), SessionError> {
        let release = check_advance(advance)?;
        if self.reader == Reader::Stream {
            return Err(SessionError::OtherReader);
        }
        self.ring.release(release)?;
        if self.phase != Phase::Idle {
            self.reader = Reader::Mapping;
        }
        // At least one slot, or a reader that heeds no signal would ask again and again.
        while self.step(host)? && !(self.ring.filled() > 0 && host.is_interrupted()) {}
        self.ring.lend();
        advance.first = self.ring.first();
        advance.filled = self.ring.filled();
        advance.state = self.state();
        Ok(())
    }

    /// Returns what is next for `read(2)`, filling a slot if none is, or `None` after the END slot.
    ///
    /// # Errors
    ///
    /// Nothing started, or a start that is read through the mapping.
    pub fn next_unread<H: Host>(&mut self, host: &mut H) -> Result<Option<Unread>, SessionError> {
        if self.phase == Phase::Idle {
            return Err(SessionError::NotStarted);
        }
        if self.reader == Reader::Mapping {
            return Err(SessionError::OtherReader);
        }
        self.reader = Reader::Stream;
        while self.ring.oldest().is_none() && self.step(host)? {}
        let Some(slot) = self.ring.oldest() else { return Ok(None) };
        let offset = self.taken_bytes;
        // The header is in a page that only EL2 and the driver write: it says the same each time.
        let len_bytes = used_bytes(host, slot)?.saturating_sub(offset);
        Ok(Some(Unread { slot, offset, len_bytes }))
    }

    /// Counts `copied` bytes of `unread`, which [`next_unread`](Self::next_unread) returned last, as read.
    pub fn consume(&mut self, unread: Unread, copied: usize) {
        if copied < unread.len_bytes {
            self.taken_bytes = unread.offset.saturating_add(copied);
            return;
        }
        self.taken_bytes = 0;
        self.ring.lend();
        // Nothing filled is nothing to free.
        let _ = self.ring.release(1);
    }

    fn state(&self) -> u32 {
        match self.phase {
            Phase::Idle => SessionState::IDLE,
            Phase::Running(_) | Phase::Ending(_) => SessionState::RUNNING,
            Phase::Done => SessionState::DONE,
        }
    }

    /// Does one piece of work into a free slot; returns whether there was one to do.
    fn step<H: Host>(&mut self, host: &mut H) -> Result<bool, SessionError> {
        let Some(slot) = self.ring.next_free() else { return Ok(false) };
        match self.phase {
            Phase::Idle | Phase::Done => return Ok(false),
            Phase::Running(job) => match self.progress.run(host, job, slot) {
                Ok(next) => {
                    self.ring.fill();
                    self.phase = next.into();
                }
                // The slot stays free: the END slot takes it at the next step.
                Err(error) => self.phase = Phase::Ending(error.to_status()),
            },
            Phase::Ending(status) => {
                self.progress.write_end(host, slot, status)?;
                host.let_vm_go();
                self.ring.fill();
                self.phase = Phase::Done;
            }
        }
        Ok(true)
    }
}
