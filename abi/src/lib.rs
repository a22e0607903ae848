// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! The data that crosses between EL2, EL1 and EL0.
//!
//! One [`slot`](slot::SlotHeader) is one page or a few: a header, then fixed-size records. EL2 fills one slot per hypercall. The
//! driver lends the slots to user space, read-only. `read(2)` and capture files carry the same bytes:
//!
//! ```text
//!   hypercall (registers only)                ioctl                      file
//!   EL1 ------------------------> EL2         EL0 <---------> EL1        capture
//!        op, pfn, target, cursor   |           start, advance  |
//!                                  v                           v
//!        slot: | SlotHeader 128 B | Record 32 B | Record 32 B | ... |  = PLAIN_SLOT_BYTES at most
//! ```
//!
//! Who writes what: EL2 writes slots of kind [`RANGES`](slot::SlotKind::RANGES), [`WALK`](slot::SlotKind::WALK) and
//! [`VMS`](slot::SlotKind::VMS), each byte of header and records. The driver fills pid and name of a VM record, appends
//! [`VMS`](slot::SlotKind::VMS) slots for VMs that never ran, writes slots of kind [`MEMORY`](slot::SlotKind::MEMORY), and the
//! closing [`END`](slot::SlotKind::END) slot.
//! User space writes nothing but ioctl arguments.
//!
//! Every struct is little-endian, has no padding, and keeps unknown values. A slot tells its used bytes and the size of
//! its records, so a reader can step over a kind it does not know. `docs/abi.md` has the same as tables.
//!
//! This crate does no IO, decodes no descriptor and allocates nothing. Cargo and Kbuild compile it unchanged (zerocopy
//! 0.8.54, edition 2021, Rust 1.85).
#![no_std]
#![forbid(unsafe_code)]

pub mod hypercall;
pub mod ioctl;
pub mod slot;
pub mod target;
pub mod version;

const _: () = assert!(cfg!(target_endian = "little"), "slots are shared as native integers: little-endian only");
