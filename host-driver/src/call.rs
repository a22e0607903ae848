// SPDX-License-Identifier: GPL-2.0-only
//! Puts the arguments of a call into the registers of `__pkvm_s2dump`, and takes the answer out of them.

use crate::host::{El2, Host};
use s2dump_abi::hypercall::{slot_pages, unpack_counts, DumpFlags, Op, Status};
use s2dump_abi::slot::slot_pages_of;
use s2dump_abi::target::{Place, Target, PLACES};
use s2dump_abi::version::{AbiVersion, ABI_VERSION};

/// EL2 has no such hypercall: the SMCCC status it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHypercall(pub u64);

/// Answer of a call that fills a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Where to go on: the next cursor, handle or fact.
    pub next: u64,
    /// Records in the slot.
    pub records: u32,
    /// Descriptors visited; in a list handles and vCPUs, frames, or facts.
    pub visited: u32,
}

/// Answer of [`hello`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloAnswer {
    /// Version EL2 speaks.
    pub version: AbiVersion,
    /// Descriptors per call if the host asks for 0.
    pub default_budget: u32,
    /// [`features`](s2dump_abi::version::features) of EL2.
    pub features: u64,
}

/// Why a call filled no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// EL2 has no such hypercall.
    NoHypercall(NoHypercall),
    /// EL2 refused; never [`Status::OK`].
    Refused(Status),
}

/// A call that fills a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// VMs from a handle on.
    List {
        /// First handle to try.
        first: u64,
    },
    /// A chunk of a table.
    Dump {
        /// How to dump.
        flags: DumpFlags,
        /// Which table.
        target: Target,
        /// Where to go on.
        cursor: u64,
        /// End, exclusive.
        end: u64,
        /// The most descriptors to read. 0 means EL2's default.
        budget: u32,
    },
    /// One address at each level.
    Walk {
        /// Which table.
        target: Target,
        /// The input address.
        address: u64,
    },
    /// Page frames from an address on.
    Frames {
        /// Where to go on.
        cursor: u64,
        /// End, exclusive.
        end: u64,
        /// The most frames to look at. 0 means EL2's default.
        budget: u32,
    },
    /// Facts from the one with a number on.
    Facts {
        /// Number of the first.
        first: u64,
    },
    /// One page frame and some places at one moment.
    Examine {
        /// Physical address of the page frame.
        frame: u64,
        /// The places.
        places: [Place; PLACES],
    },
}

impl Call {
    /// Makes the call, which fills the slot `slot` as number `sequence` of its stream.
    ///
    /// # Errors
    ///
    /// [`CallError`]. The contents of the slot mean nothing then.
    pub fn make<H: Host>(self, host: &mut H, slot: u32, sequence: u64) -> Result<Answer, CallError> {
        let pfn = host.slot_pfn(slot);
        let mut regs = match self {
            Self::List { first } => [0, x1(Op::LIST, 0), pfn, 0, first, 0, 0, sequence],
            Self::Dump { flags, target, cursor, end, budget } => {
                // Folded dumps seldom fill a page: they would pay for pinning more, and not use it.
                let pages = if flags.contains(DumpFlags::PACKED) { slot_pages_of(H::PAGE_BYTES) as u32 } else { 1 };
                [0, x1(Op::DUMP, flags.0), slot_pages(pfn, pages), target.0, cursor, end, u64::from(budget), sequence]
            }
            Self::Walk { target, address } => [0, x1(Op::WALK, 0), pfn, target.0, address, 0, 0, sequence],
            Self::Frames { cursor, end, budget } => {
                [0, x1(Op::FRAMES, 0), pfn, 0, cursor, end, u64::from(budget), sequence]
            }
            Self::Facts { first } => [0, x1(Op::FACTS, 0), pfn, 0, first, 0, 0, sequence],
            Self::Examine { frame, places: [first, second, third] } => {
                [0, x1(Op::EXAMINE, 0), pfn, frame, first.0, second.0, third.0, sequence]
            }
        };
        call(host, &mut regs)?;
        let (records, visited) = unpack_counts(regs[3]);
        Ok(Answer { next: regs[2], records, visited })
    }
}

/// Agrees on a version with EL2.
///
/// # Errors
///
/// EL2 lacks the hypercall, was not told at boot to allow it, or speaks another major version.
pub fn hello<E: El2>(el2: &mut E) -> Result<HelloAnswer, CallError> {
    let mut regs = [0, x1(Op::HELLO, 0), u64::from(ABI_VERSION.to_bits()), 0, 0, 0, 0, 0];
    call(el2, &mut regs)?;
    let version = AbiVersion::from_bits((regs[2] & 0xffff_ffff) as u32);
    if !ABI_VERSION.can_speak_to(version) {
        return Err(CallError::Refused(Status::VERSION_MISMATCH));
    }
    Ok(HelloAnswer { version, default_budget: (regs[2] >> 32) as u32, features: regs[3] })
}

fn x1(op: Op, flags: u32) -> u64 {
    u64::from(op.0) | (u64::from(flags) << 32)
}

fn call<E: El2>(el2: &mut E, regs: &mut [u64; 8]) -> Result<(), CallError> {
    el2.call(regs);
    if regs[0] != 0 {
        return Err(CallError::NoHypercall(NoHypercall(regs[0])));
    }
    match u32::try_from(regs[1]) {
        Ok(0) => Ok(()),
        Ok(status) => Err(CallError::Refused(Status(status))),
        Err(_) => Err(CallError::Refused(Status::BAD_ANSWER)),
    }
}
