// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! The hypercall `__pkvm_s2dump`. All its arguments are in registers; EL2 reads nothing from host memory.
//!
//! | x1 | x2 | x3 | x4 | x5 | x6 | x7 | returns x1, x2, x3 |
//! |---|---|---|---|---|---|---|---|
//! | [`Op::HELLO`] | host's version | 0 | 0 | 0 | 0 | 0 | status, version \| default budget << 32, features |
//! | [`Op::LIST`] | slot | 0 | first handle | 0 | looks | sequence | status, next handle (0: done), counts |
//! | [`Op::DUMP`] \| flags << 32 | slot | target | cursor | end | budget | sequence | status, next cursor, counts |
//! | [`Op::WALK`] | slot | target | input address | 0 | 0 | sequence | status, 0, counts |
//! | [`Op::FRAMES`] | slot | 0 | cursor | end | budget | sequence | status, next cursor, counts |
//! | [`Op::FACTS`] | slot | 0 | first fact | 0 | 0 | sequence | status, next fact (0: done), counts |
//! | [`Op::EXAMINE`] | slot | physical address | place | place | place | sequence | status, 0, counts |
//!
//! `slot` is the frame number of its first page, and in bits 63:56 how many further pages it has ([`slot_pages`]).
//! `counts` holds the number of records written (31:0) and the number of descriptors visited (63:32); a list counts the
//! handles and vCPUs it visited instead, frames count frames, and facts facts. A dump is done when the next cursor equals the end that was asked for or, if
//! that is smaller, the size of the input-address space. The slot page must be shared with EL2
//! (`__pkvm_host_share_hyp`) during the call. EL2 pins it, writes it and unpins it within the call, so it keeps no page
//! of the host after a call. Unless the status is [`Status::OK`], the contents of the slot mean nothing.

/// What a call asks for: bits 31:0 of x1. An open enum: EL2 answers other values with [`Status::UNKNOWN_OP`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op(pub u32);

impl Op {
    /// Agrees on a version and tells features and limits. Writes no slot.
    pub const HELLO: Self = Self(0);
    /// Lists the VMs EL2 knows, from a handle on.
    pub const LIST: Self = Self(1);
    /// Dumps one chunk of a table.
    pub const DUMP: Self = Self(2);
    /// Shows the descriptor of each level for one input address.
    pub const WALK: Self = Self(3);
    /// Shows what pKVM keeps about page frames outside of tables, for physical addresses from a cursor on.
    pub const FRAMES: Self = Self(4);
    /// Tells facts about memory and EL2 that do not change after boot, from the one with a number on.
    pub const FACTS: Self = Self(5);
    /// Looks at one page frame and at up to three [`Place`](crate::target::Place)s at one moment: no page changes hands
    /// in between.
    pub const EXAMINE: Self = Self(6);
    /// Tells the memory slots of a VM. Only the driver knows them: it never makes this call.
    pub const MEMORY: Self = Self(32);
}

/// How to dump: bits 63:32 of x1. EL2 answers unknown bits with [`Status::UNKNOWN_FLAG`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpFlags(pub u32);

impl DumpFlags {
    /// End a run also where the output addresses stop being contiguous.
    pub const EXACT: Self = Self(1 << 0);
    /// Read the whole range in this one call, or answer [`Status::TOO_BIG`] if that takes more than [`ATOMIC_BUDGET`]
    /// descriptors or more records than one slot holds.
    pub const ATOMIC: Self = Self(1 << 1);
    /// Put a digest of the descriptors that were read into the header.
    pub const DIGEST: Self = Self(1 << 2);
    /// Tell the table pages too: each table descriptor is a record of kind
    /// [`TABLE`](crate::slot::RecordKind::TABLE), before those of the table it leads to.
    pub const TABLES: Self = Self(1 << 3);
    /// Write [`PACKED`](crate::slot::SlotKind::PACKED) slots, which take 8 bytes for an entry that is like no other.
    /// Only with [`EXACT`](Self::EXACT).
    pub const PACKED: Self = Self(1 << 4);

    /// All flags this version knows.
    pub const KNOWN: Self = Self(Self::EXACT.0 | Self::ATOMIC.0 | Self::DIGEST.0 | Self::TABLES.0 | Self::PACKED.0);

    /// Returns whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the bits set in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The number of descriptors one call reads when the host asks for 0.
///
/// While the call walks, a fault of the same guest on another CPU waits for the guest's lock. It holds the host's lock
/// meanwhile, so everybody who needs that waits too. A budget bounds this wait: ARCHITECTURE.md says how the numbers
/// were chosen.
pub const DEFAULT_BUDGET: u32 = 2560;
/// The fewest descriptors a call may be allowed, whatever the host asks for: one at each of the five levels there can be, or
/// a call might never get to a leaf.
pub const MIN_BUDGET: u32 = 5;
/// The most descriptors one call reads, whatever the host asks for.
pub const MAX_BUDGET: u32 = 5120;
/// The most descriptors one [`DumpFlags::ATOMIC`] call reads; also its default.
pub const ATOMIC_BUDGET: u32 = 65536;
/// The most looks one [`Op::LIST`] call takes; also its default. A look is a handle that is tried, or a vCPU of the VM
/// that the handle names.
pub const LIST_BUDGET: u32 = 64;

/// How a call ended. An open enum; 0 is success. [`END`](crate::slot::SlotKind::END) slots carry one too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Status(pub u32);

impl Status {
    /// The slot is filled.
    pub const OK: Self = Self(0);
    /// s2dump was not allowed at boot (`kvm-arm.s2dump=on`).
    pub const NOT_PERMITTED: Self = Self(1);
    /// EL2 does not know the operation.
    pub const UNKNOWN_OP: Self = Self(2);
    /// A flag or reserved argument is set that EL2 does not know.
    pub const UNKNOWN_FLAG: Self = Self(3);
    /// The kind of table is not one EL2 can dump.
    pub const UNKNOWN_TARGET: Self = Self(4);
    /// No VM has this handle.
    pub const NO_SUCH_VM: Self = Self(5);
    /// The VM exists but never ran, so EL2 has no table for it yet. EL1 says this; EL2 says [`Self::NO_SUCH_VM`].
    pub const VM_NOT_RUN: Self = Self(6);
    /// Cursor or end is not page aligned, the cursor is not before the end, or an address is outside the input-address
    /// space.
    pub const BAD_RANGE: Self = Self(7);
    /// The slot page is not shared with EL2.
    pub const SLOT_NOT_SHARED: Self = Self(8);
    /// An atomic dump does not fit one call.
    pub const TOO_BIG: Self = Self(9);
    /// The other side speaks another major version.
    pub const VERSION_MISMATCH: Self = Self(10);
    /// The registers of the table describe a geometry the walker refuses.
    pub const BAD_GEOMETRY: Self = Self(11);
    /// The table that was meant is gone: the VM went away, or its handle belongs to another VM by now. EL1 says this.
    pub const VM_GONE: Self = Self(12);
    /// EL2 broke this protocol: it made no progress, or filled something that is no slot. EL1 says this.
    pub const BAD_ANSWER: Self = Self(13);
    /// The VM's teardown has begun, so the slots may lack pages that were already taken back. EL1 says this when EL2's
    /// slot has the [`DYING`](crate::slot::slot_flags::DYING) flag.
    pub const VM_DYING: Self = Self(14);
    /// Atomic dumps were not allowed at boot (`kvm-arm.s2dump=on,atomic`).
    pub const ATOMIC_NOT_PERMITTED: Self = Self(15);
    /// EL2's own table was not allowed at boot (`kvm-arm.s2dump=on,hyp`).
    pub const HYP_NOT_PERMITTED: Self = Self(16);

    /// Returns the positive Linux errno that says it best, or `EIO` for a status this version does not know. Several
    /// statuses share an errno, so the ioctls give the status as well.
    #[must_use]
    pub const fn to_errno(self) -> i32 {
        match self {
            Self::OK => 0,
            // EPERM
            Self::NOT_PERMITTED | Self::ATOMIC_NOT_PERMITTED | Self::HYP_NOT_PERMITTED => 1,
            Self::UNKNOWN_OP => 95,                // EOPNOTSUPP
            Self::UNKNOWN_FLAG => 22,              // EINVAL
            Self::UNKNOWN_TARGET => 95,            // EOPNOTSUPP
            Self::NO_SUCH_VM => 2,                 // ENOENT
            Self::VM_NOT_RUN => 61,                // ENODATA
            Self::BAD_RANGE => 34,                 // ERANGE
            Self::SLOT_NOT_SHARED => 14,           // EFAULT
            Self::TOO_BIG => 7,                    // E2BIG
            Self::VERSION_MISMATCH => 71,          // EPROTO
            Self::VM_GONE | Self::VM_DYING => 116, // ESTALE
            _ => 5,                                // EIO
        }
    }
}

/// The lowest bit of the number of further pages in x2.
pub const SLOT_PAGES_SHIFT: u32 = 56;

/// Packs the frame number of a slot's first page, and how many pages it has, 1 or more, into x2. The pages follow each
/// other.
#[must_use]
pub const fn slot_pages(pfn: u64, pages: u32) -> u64 {
    pfn | ((pages as u64).wrapping_sub(1) & 0xff) << SLOT_PAGES_SHIFT
}

/// Unpacks x2 into the frame number of a slot's first page, and how many pages it has.
#[must_use]
pub const fn unpack_slot(x2: u64) -> (u64, u32) {
    (x2 & ((1 << SLOT_PAGES_SHIFT) - 1), (x2 >> SLOT_PAGES_SHIFT) as u32 + 1)
}

/// Packs the two counts returned in x3.
#[must_use]
pub const fn pack_counts(records: u32, visited: u32) -> u64 {
    records as u64 | ((visited as u64) << 32)
}

/// Unpacks x3 into records and visited.
#[must_use]
pub const fn unpack_counts(x3: u64) -> (u32, u32) {
    ((x3 & 0xffff_ffff) as u32, (x3 >> 32) as u32)
}
