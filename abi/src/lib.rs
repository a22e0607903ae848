// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! What crosses EL2, EL1 and EL0.
//!
//! One [`slot`](slot::SlotHeader) is one page: a header, then fixed-size records. EL2 fills a slot per hypercall, the
//! driver lends slots to user space read-only, `read(2)` and capture files carry the same bytes:
//!
//! ```text
//!   hypercall (registers only)                ioctl                      file
//!   EL1 ------------------------> EL2         EL0 <---------> EL1        capture
//!        op, pfn, target, cursor   |           start, advance  |
//!                                  v                           v
//!        slot: | SlotHeader 128 B | Record 32 B | Record 32 B | ... |  = SLOT_BYTES at most
//! ```
//!
//! Who writes what: EL2 writes slots of kind [`RANGES`](slot::SlotKind::RANGES), [`WALK`](slot::SlotKind::WALK) and
//! [`VMS`](slot::SlotKind::VMS), each byte of header and records; the driver fills pid and name of a VM record and writes
//! the closing [`END`](slot::SlotKind::END) slot; user space writes nothing but ioctl arguments.
//!
//! Every struct is little-endian, has no padding, and keeps unknown values: a reader skips slots and records of a kind
//! it does not know, by their stated length. `docs/abi.md` is the same in one table.
//!
//! Does no IO, decodes no descriptor, allocates nothing. Compiled unchanged by Cargo and by Kbuild (zerocopy 0.8.54,
//! edition 2021, Rust 1.85).
#![no_std]
#![forbid(unsafe_code)]

pub mod hypercall;
pub mod ioctl;
pub mod slot;
pub mod target;
pub mod version;

const _: () = assert!(cfg!(target_endian = "little"), "slots are shared as native integers: little-endian only");
