// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! The arguments of each call, and its answer. `s2dump_abi::hypercall` says what each register means.

use s2dump_abi::hypercall::{DumpFlags, Status};
use s2dump_abi::target::{Place, Target, PLACES};

/// What a successful call returns in x2 and x3.
pub(crate) type Answer = Result<[u64; 2], Status>;

/// The registers of a DUMP call.
pub(crate) struct DumpCall {
    pub(crate) target: Target,
    pub(crate) flags: DumpFlags,
    pub(crate) cursor: u64,
    pub(crate) end: u64,
    pub(crate) budget: u64,
    pub(crate) sequence: u64,
}

/// The registers of a WALK call.
pub(crate) struct WalkCall {
    pub(crate) target: Target,
    /// The input address. It need not be aligned.
    pub(crate) address: u64,
    pub(crate) sequence: u64,
}

/// The registers of a LIST call.
pub(crate) struct ListCall {
    /// First handle to try.
    pub(crate) first: u64,
    /// The most handles and vCPUs to look at; 0 means as many as one call may.
    pub(crate) looks: u64,
    pub(crate) sequence: u64,
}

/// The registers of a FRAMES call.
pub(crate) struct FramesCall {
    /// First physical address.
    pub(crate) cursor: u64,
    /// End, exclusive.
    pub(crate) end: u64,
    /// The most page frames to look at; 0 means the default.
    pub(crate) budget: u64,
    pub(crate) sequence: u64,
}

/// The registers of an EXAMINE call.
pub(crate) struct ExamineCall {
    /// Physical address of the page frame.
    pub(crate) frame: u64,
    /// Places to look at, too.
    pub(crate) places: [Place; PLACES],
    pub(crate) sequence: u64,
}

/// The registers of a FACTS call.
pub(crate) struct FactsCall {
    /// Number of the first fact.
    pub(crate) first: u64,
    pub(crate) sequence: u64,
}
