// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device that answers from prepared slots, and can misbehave.

use super::support::Capture;
use crate::frame::{measure, SlotBuffer};
use crate::source::device::Session;
use s2dump_abi::hypercall::{Op, Status};
use s2dump_abi::ioctl::{Advance, Hello, SessionState, Start};
use s2dump_abi::slot::SLOT_BYTES;
use s2dump_abi::version::{features, AbiVersion, ABI_VERSION};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

/// What a fake device does.
#[derive(Clone)]
pub(super) struct Script {
    /// Slots of the ring.
    pub(super) ring: u32,
    /// Bytes of each: a multiple of the page size of the kernel.
    pub(super) slot_bytes: usize,
    /// Page size of the kernel, as a shift.
    pub(super) page_shift: u8,
    /// Most slots one advance fills.
    pub(super) at_once: u32,
    /// Version of the driver, which it tells even if it refuses.
    pub(super) version: AbiVersion,
    /// Refusal of hello.
    pub(super) hello: Result<(), Refusal>,
    /// Answer to the hello of version 1.
    pub(super) hello_1: Result<AbiVersion, Refusal>,
    /// Slots, or refusal, of a list.
    pub(super) list: Result<Capture, Refusal>,
    /// Slots, or refusal, of each list after the first in turn, and then `list` again.
    pub(super) lists_again: Vec<Result<Capture, Refusal>>,
    /// Slots, or refusal, of each walk or dump in turn; the last one repeats.
    pub(super) starts: Vec<Result<Capture, Refusal>>,
    /// Changes the answer of each advance.
    pub(super) spoil: fn(&mut Advance),
    /// Features beside those that all have.
    pub(super) features: u64,
    /// Slots, or refusal, of facts.
    pub(super) facts: Result<Capture, Refusal>,
    /// Answers a start before all else does, if it answers it.
    pub(super) answer: Option<Answer>,
    /// What was started.
    pub(super) started: Rc<RefCell<Vec<Start>>>,
}

/// Answers a start by slots or a refusal.
pub(super) type Answer = Rc<dyn Fn(&Start) -> Option<Result<Capture, Refusal>>>;

/// How an ioctl is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) errno: i32,
    /// What is written back beside it.
    pub(super) status: Status,
}

impl Refusal {
    /// By the kernel, which writes no status back.
    pub(super) fn by_kernel(errno: i32) -> Self {
        Self { errno, status: Status::OK }
    }

    fn error(self) -> io::Error {
        io::Error::from_raw_os_error(self.errno)
    }
}

/// By EL2, or the driver for it.
impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { errno: status.to_errno(), status }
    }
}

impl Script {
    /// Answers `list` and `start`.
    pub(super) fn new(list: Capture, start: Capture) -> Self {
        Self {
            ring: 3,
            slot_bytes: SLOT_BYTES,
            page_shift: 12,
            at_once: 2,
            version: ABI_VERSION,
            hello: Ok(()),
            hello_1: Err(Refusal::by_kernel(25)),
            list: Ok(list),
            lists_again: Vec::new(),
            starts: vec![Ok(start)],
            spoil: |_| (),
            features: 0,
            facts: Err(Status::UNKNOWN_OP.into()),
            answer: None,
            started: Rc::default(),
        }
    }

    /// Refuses every dump and walk with `status`, as the driver does.
    pub(super) fn refusing(list: Capture, status: Status) -> Self {
        Self { starts: vec![Err(status.into())], ..Self::new(list, Capture::default()) }
    }

    /// Opens a session.
    pub(super) fn open(&self) -> Box<dyn Session> {
        Box::new(Fake {
            script: self.clone(),
            ring: Vec::new(),
            waiting: VecDeque::new(),
            first: 0,
            filled: 0,
            lists_started: 0,
            tables_started: 0,
        })
    }
}

struct Fake {
    script: Script,
    ring: Vec<Vec<u8>>,
    waiting: VecDeque<Vec<u8>>,
    first: u32,
    filled: u32,
    lists_started: usize,
    tables_started: usize,
}

fn slots_of(capture: &Capture) -> VecDeque<Vec<u8>> {
    let mut rest = capture.bytes.as_slice();
    let mut slots = VecDeque::new();
    while !rest.is_empty() {
        let (_, used) = measure(rest).unwrap();
        let (slot, after) = rest.split_at(used);
        slots.push_back(slot.to_vec());
        rest = after;
    }
    slots
}

impl Session for Fake {
    fn hello(&mut self, hello: &mut Hello) -> io::Result<()> {
        assert_eq!(hello.size as usize, size_of::<Hello>());
        hello.version = self.script.version.to_bits();
        if let Err(refusal) = self.script.hello {
            hello.status = refusal.status.0;
            return Err(refusal.error());
        }
        hello.el2_version = hello.version;
        hello.features = features::EXACT | features::DIGEST | features::GUEST_STAGE2 | self.script.features | 1 << 60;
        (hello.default_budget, hello.slots, hello.slot_bytes) = (4096, self.script.ring, self.script.slot_bytes as u32);
        hello.page_bytes = 1 << self.script.page_shift;
        Ok(())
    }

    fn hello_1(&mut self, hello: &mut Hello) -> io::Result<()> {
        assert_eq!((hello.size, hello.version), (64, 1 << 16));
        hello.version = self.script.hello_1.map_err(Refusal::error)?.to_bits();
        Ok(())
    }

    fn map(&mut self, slots: u32, slot_bytes: usize) -> io::Result<()> {
        assert_eq!(slot_bytes, self.script.slot_bytes);
        self.ring = vec![vec![0xaa; slot_bytes]; slots as usize];
        Ok(())
    }

    fn start(&mut self, start: &mut Start) -> io::Result<()> {
        assert_eq!((start.size as usize, start.version), (size_of::<Start>(), ABI_VERSION.to_bits()));
        assert_eq!((start.status, start.reserved), (0, [0; 2]));
        self.script.started.borrow_mut().push(*start);
        let scripted = self.script.answer.as_ref().and_then(|answer| answer(start));
        let answer = if let Some(answer) = &scripted {
            answer
        } else if start.op == Op::LIST.0 {
            self.lists_started += 1;
            let again = self.lists_started.checked_sub(2).and_then(|nth| self.script.lists_again.get(nth));
            again.unwrap_or(&self.script.list)
        } else if start.op == Op::FACTS.0 {
            &self.script.facts
        } else {
            self.tables_started += 1;
            &self.script.starts[(self.tables_started - 1).min(self.script.starts.len() - 1)]
        };
        let capture = match answer {
            Ok(capture) => capture,
            Err(refusal) => {
                start.status = refusal.status.0;
                return Err(refusal.error());
            }
        };
        self.waiting = slots_of(capture);
        (self.first, self.filled) = (0, 0);
        Ok(())
    }

    fn advance(&mut self, advance: &mut Advance) -> io::Result<()> {
        assert_eq!(advance.size as usize, size_of::<Advance>());
        assert!(advance.release <= self.filled, "more given back than lent");
        self.first = (self.first + advance.release) % self.script.ring;
        self.filled -= advance.release;
        for _ in 0..self.script.at_once {
            if self.filled == self.script.ring {
                break;
            }
            let Some(slot) = self.waiting.pop_front() else { break };
            let at = (self.first + self.filled) % self.script.ring;
            // The rest of the page is whatever was there: only used bytes count.
            self.ring[at as usize][..slot.len()].copy_from_slice(&slot);
            self.filled += 1;
        }
        let state = if self.waiting.is_empty() { SessionState::DONE } else { SessionState::RUNNING };
        (advance.first, advance.filled, advance.state) = (self.first, self.filled, state);
        (self.script.spoil)(advance);
        Ok(())
    }

    fn copy_slot(&self, index: u32, into: &mut SlotBuffer) -> bool {
        let Some(slot) = self.ring.get(index as usize) else { return false };
        into[..slot.len()].copy_from_slice(slot);
        true
    }
}
