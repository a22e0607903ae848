// SPDX-License-Identifier: GPL-2.0-only
//! The state of one open file: what runs, which slots are filled, and how it ends.
//!
//! ```text
//!   Idle --start--> Running --last chunk, or a failure--> Ending --a slot is free--> Done
//! ```
//!
//! [`Session::start`] makes the first call itself, so a start that cannot work (no such VM, bad range, gate off) fails
//! with an errno and a status. A later failure is the status of the END slot.
//!
//! An advance or a read makes at least one call if no slot is filled and work is left; after that it stops as soon as a
//! signal waits. So each of them ends within one chunk of a signal. None is restarted, and none has to answer `EINTR`.

use crate::argument::{check_advance, check_hello, check_start};
use crate::call;
use crate::errno::Errno;
use crate::error::SessionError;
use crate::host::Host;
use crate::job::{Job, Next, Stream};
use crate::ring::Ring;
use crate::slot_header::used_bytes;
use s2dump_abi::hypercall::Status;
use s2dump_abi::ioctl::{Advance, Hello, SessionState, Start};
use s2dump_abi::slot::slot_pages_of;
use s2dump_abi::version::{features, ABI_VERSION};

/// The part of a filled slot that a reader has not got yet. It is never empty.
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

/// How user space reads the slots of this start. The first use decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadBy {
    Undecided,
    Mapping,
    Read,
}

/// The state of one open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    ring: Ring,
    phase: Phase,
    read_by: ReadBy,
    stream: Stream,
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
            read_by: ReadBy::Undecided,
            stream: Stream::default(),
            taken_bytes: 0,
        }
    }

    /// Answers a [`Hello`]. It writes the driver's version there even with an error, and EL2's status if EL2 refused.
    ///
    /// # Errors
    ///
    /// The argument is wrong, or EL2 refused.
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
            features: answer.features | features::MEMORY,
            el2_version: answer.version.to_bits(),
            default_budget: answer.default_budget,
            slots: self.ring.slots(),
            slot_bytes: (slot_pages_of(H::PAGE_BYTES) * H::PAGE_BYTES) as u32,
            status: 0,
            page_bytes: H::PAGE_BYTES as u32,
            reserved: [0; 6],
        };
        Ok(())
    }

    /// Starts what is asked, and fills the first slot. If EL2 or its protocol refuses, it also sets `start.status`.
    ///
    /// # Errors
    ///
    /// A refused argument leaves the session as it was. After any other error the session is idle.
    pub fn start<H: Host>(&mut self, host: &mut H, start: &mut Start) -> Result<(), SessionError> {
        // Of an earlier refusal, perhaps.
        start.status = Status::OK.0;
        let (stream, job) = Stream::begin(check_start(start)?, self.ring.slots());
        *self = Self::new(self.ring.slots());
        self.begin(host, stream, job).inspect_err(|error| {
            start.status = error.status_beside_errno().0;
            host.let_vms_go();
        })
    }

    fn begin<H: Host>(&mut self, host: &mut H, mut stream: Stream, job: Job) -> Result<(), SessionError> {
        let slot = self.ring.next_free().ok_or(Errno::EINVAL)?;
        stream.hold(host)?;
        let next = stream.run(host, job, slot)?;
        self.stream = stream;
        self.ring.fill();
        self.go_on(host, next);
        Ok(())
    }

    /// Goes on to what follows a filled slot. The VM of a table is held no longer than calls are made for it; those of a
    /// list, or of memory slots, stay held, since a start of one of them may follow.
    fn go_on<H: Host>(&mut self, host: &mut H, next: Next) {
        if matches!(next, Next::End(_)) && self.stream.lets_vm_go() {
            host.let_vms_go();
        }
        self.phase = next.into();
    }

    /// Takes back slots, fills free ones, and lends all filled ones.
    ///
    /// # Errors
    ///
    /// The argument is wrong, gives back more slots than are lent, or this start is read by `read(2)`. Nothing is done
    /// then. Or the END slot cannot be written.
    pub fn advance<H: Host>(&mut self, host: &mut H, advance: &mut Advance) -> Result<(), SessionError> {
        let release = check_advance(advance)?;
        if self.read_by == ReadBy::Read {
            return Err(SessionError::OtherReader);
        }
        self.ring.release(release)?;
        if self.phase != Phase::Idle {
            self.read_by = ReadBy::Mapping;
        }
        // A signal ends this only once a slot is filled. Otherwise a caller that does not handle the signal would ask
        // again and again, and get nothing.
        while self.step(host)? && !(self.ring.filled() > 0 && host.is_interrupted()) {}
        self.ring.lend();
        advance.first = self.ring.first();
        advance.filled = self.ring.filled();
        advance.state = self.state();
        Ok(())
    }

    /// Returns the next bytes for `read(2)`, or `None` after the END slot. It fills a slot first if none is filled.
    ///
    /// # Errors
    ///
    /// Nothing was started, or this start is read through the mapping.
    pub fn next_unread<H: Host>(&mut self, host: &mut H) -> Result<Option<Unread>, SessionError> {
        if self.phase == Phase::Idle {
            return Err(SessionError::NotStarted);
        }
        if self.read_by == ReadBy::Mapping {
            return Err(SessionError::OtherReader);
        }
        self.read_by = ReadBy::Read;
        while self.ring.oldest().is_none() && self.step(host)? {}
        let Some(slot) = self.ring.oldest() else { return Ok(None) };
        let offset = self.taken_bytes;
        // Only EL2 and the driver write the page of the header, so it says the same each time it is read.
        let len_bytes = used_bytes(host, slot)?.saturating_sub(offset);
        Ok(Some(Unread { slot, offset, len_bytes }))
    }

    /// Counts `copied` bytes of `unread` as read. `unread` is what [`next_unread`](Self::next_unread) returned last.
    pub fn consume(&mut self, unread: Unread, copied: usize) {
        if copied < unread.len_bytes {
            self.taken_bytes = unread.offset.saturating_add(copied);
            return;
        }
        self.taken_bytes = 0;
        self.ring.lend();
        // This fails only if no slot is filled; then there is none to free.
        let _ = self.ring.release(1);
    }

    fn state(&self) -> u32 {
        match self.phase {
            Phase::Idle => SessionState::IDLE,
            Phase::Running(_) | Phase::Ending(_) => SessionState::RUNNING,
            Phase::Done => SessionState::DONE,
        }
    }

    /// Does the next piece of work, which fills a free slot. Returns whether it did one.
    fn step<H: Host>(&mut self, host: &mut H) -> Result<bool, SessionError> {
        let Some(slot) = self.ring.next_free() else { return Ok(false) };
        match self.phase {
            Phase::Idle | Phase::Done => return Ok(false),
            Phase::Running(job) => match self.stream.run(host, job, slot) {
                Ok(next) => {
                    self.ring.fill();
                    self.go_on(host, next);
                }
                // The slot stays free. The next step writes the END slot there.
                Err(error) => self.go_on(host, Next::End(error.to_status())),
            },
            Phase::Ending(status) => {
                self.stream.write_end(host, slot, status)?;
                self.ring.fill();
                self.phase = Phase::Done;
            }
        }
        Ok(true)
    }
}
