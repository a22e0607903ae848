// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! The ioctls of `/dev/s2dump`: one open file is one session.
//!
//! A caller says [`Hello`] first. Then it may start any number of dumps, walks and lists: each is a [`Start`], followed
//! by [`Advance`] until the state is [`SessionState::DONE`]. The last slot of each start is an END slot.
//!
//! There are two ways to read the slots. `mmap` of offset 0 gives all of them, read-only. `read(2)` advances by itself
//! and gives the slots as one stream of bytes, each slot cut to its used bytes; it returns 0 after the END slot. A read
//! with room for a slot ([`Hello::slot_bytes`]) gives whole slots only. One start is read in one way; the other is then `EBUSY`.
//!
//! Each argument begins with `size` (the caller's `size_of`) and `version`. A size larger than the driver's is `E2BIG`,
//! a smaller one `EINVAL`; another major version is `EPROTO`; a reserved field that is not zero is `EINVAL`.
//!
//! An errno alone is ambiguous, so [`Hello`] and [`Start`] also give the [`Status`](crate::hypercall::Status) with
//! which EL2 or this protocol refused. If the status is 0, the kernel itself refused: `EPERM` then means that the
//! caller is not root, or that lockdown forbids it.
//!
//! The command number of [`Hello`] and its first 8 bytes stay the same in all later versions. The driver writes its
//! version there even if it refuses the caller's, so that two sides that do not understand each other can say so.
//! Drivers of 1.x use another type byte, [`IOCTL_TYPE_1`] instead of [`IOCTL_TYPE`], so they answer `ENOTTY`.

use crate::slot::assert_offsets;
use crate::target::PLACES;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The ioctl type ("magic") byte. `Documentation/userspace-api/ioctl/ioctl-number.rst` of Linux 7.3 gives it to nobody.
pub const IOCTL_TYPE: u8 = 0xb9;
/// The type byte of version 1, which nsfs and remoteproc use too.
pub const IOCTL_TYPE_1: u8 = 0xb7;

const IOC_READ_WRITE: u32 = 3;

const fn iowr(kind: u8, number: u8, size_bytes: usize) -> u32 {
    (IOC_READ_WRITE << 30) | ((size_bytes as u32) << 16) | ((kind as u32) << 8) | number as u32
}

/// Command number of [`Hello`].
pub const HELLO: u32 = iowr(IOCTL_TYPE, 0, size_of::<Hello>());
/// Command number of version 1's hello, which began with the same 16 bytes as [`Hello`].
pub const HELLO_1: u32 = iowr(IOCTL_TYPE_1, 0, size_of::<Hello>());
/// Command number of [`Start`].
pub const START: u32 = iowr(IOCTL_TYPE, 1, size_of::<Start>());
/// Command number of [`Advance`].
pub const ADVANCE: u32 = iowr(IOCTL_TYPE, 2, size_of::<Advance>());

/// Agrees on a version and tells what EL2 and the driver can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Hello {
    /// Offset 0, length 4: in: size of this struct.
    pub size: u32,
    /// Offset 4, length 4: in: version of the caller; out: version of the driver.
    pub version: u32,
    /// Offset 8, length 8: out: [`features`](crate::version::features) of EL2 and the driver.
    pub features: u64,
    /// Offset 16, length 4: out: version of EL2.
    pub el2_version: u32,
    /// Offset 20, length 4: out: the budget a call has when a start asks for 0.
    pub default_budget: u32,
    /// Offset 24, length 4: out: slots in the ring.
    pub slots: u32,
    /// Offset 28, length 4: out: bytes of a slot in the ring, a multiple of the page size.
    pub slot_bytes: u32,
    /// Offset 32, length 4: in: anything; out: [`Status`](crate::hypercall::Status) if EL2 refused, else 0.
    pub status: u32,
    /// Offset 36, length 4: out: bytes of a page of the kernel, of which all ranges are multiples.
    pub page_bytes: u32,
    /// Offset 40, length 24: zero.
    pub reserved: [u32; 6],
}

/// Starts a dump, walk, list, or what other [`Op`](crate::hypercall::Op) there is, and ends the one that was running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Start {
    /// Offset 0, length 4: in: size of this struct.
    pub size: u32,
    /// Offset 4, length 4: in: version of the caller.
    pub version: u32,
    /// Offset 8, length 4: in: [`Op`](crate::hypercall::Op) except HELLO.
    pub op: u32,
    /// Offset 12, length 4: in: [`DumpFlags`](crate::hypercall::DumpFlags), zero unless a dump.
    pub flags: u32,
    /// Offset 16, length 8: in: [`Target`](crate::target::Target) of a dump, walk or memory slots, else zero.
    pub target: u64,
    /// Offset 24, length 8: in: first input address of a dump, address of a walk; first physical address of frames,
    /// physical address of an examination; else zero.
    pub start: u64,
    /// Offset 32, length 8: in: end of a dump or of frames, exclusive; all ones means the whole space. Else zero.
    pub end: u64,
    /// Offset 40, length 4: in: descriptors or frames per call, 0 for the default. EL2 caps it.
    pub budget: u32,
    /// Offset 44, length 4: in: anything; out, only with an errno: [`Status`](crate::hypercall::Status) of a refusal, else 0.
    pub status: u32,
    /// Offset 48, length 8: in: physical address of the root of the table that is meant, as a list gave it. If the
    /// table has another root, the answer is [`VM_GONE`](crate::hypercall::Status::VM_GONE). 0 means whichever table
    /// `target` names now. Zero unless a dump or walk.
    pub root: u64,
    /// Offset 56, length 24: in: the [`Place`](crate::target::Place)s of an examination; else zero.
    pub places: [u64; PLACES],
    /// Offset 80, length 16: zero.
    pub reserved: [u64; 2],
}

/// State of a session: [`Advance::state`]. An open enum.
pub struct SessionState;

impl SessionState {
    /// Nothing started.
    pub const IDLE: u32 = 0;
    /// More slots will come; at least one is filled.
    pub const RUNNING: u32 = 1;
    /// The END slot is among the filled ones (or was).
    pub const DONE: u32 = 2;
}

/// Gives back slots that were read, and has the driver fill the free ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Advance {
    /// Offset 0, length 4: in: size of this struct.
    pub size: u32,
    /// Offset 4, length 4: in: version of the caller.
    pub version: u32,
    /// Offset 8, length 4: in: number of slots given back, oldest first. More than the driver lent is `EINVAL`.
    pub release: u32,
    /// Offset 12, length 4: out: index in the ring of the oldest filled slot.
    pub first: u32,
    /// Offset 16, length 4: out: number of filled slots from `first` on, wrapping at the ring's end. It is 0 only if
    /// nothing was started, or if the END slot was given back.
    pub filled: u32,
    /// Offset 20, length 4: out: [`SessionState`].
    pub state: u32,
    /// Offset 24, length 8: zero.
    pub reserved: [u32; 2],
}

assert_offsets!(Hello, 64, 8, size @ 0, version @ 4, features @ 8, el2_version @ 16, default_budget @ 20, slots @ 24,
    slot_bytes @ 28, status @ 32, page_bytes @ 36, reserved @ 40);
assert_offsets!(Start, 96, 8, size @ 0, version @ 4, op @ 8, flags @ 12, target @ 16, start @ 24, end @ 32, budget @ 40,
    status @ 44, root @ 48, places @ 56, reserved @ 80);
assert_offsets!(Advance, 32, 4, size @ 0, version @ 4, release @ 8, first @ 12, filled @ 16, state @ 20, reserved @ 24);
