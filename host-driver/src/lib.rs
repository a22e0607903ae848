// SPDX-License-Identifier: GPL-2.0-only
//! The driver's logic: ioctl checks, ring bookkeeping, session states.
//!
//! ```text
//!   ioctl, read --> argument --> session --> job --> call --> Host::call (EL2)
//!                                  |         \----> vms     (EL1's facts on EL2's list)
//!                                  v
//!                                 ring (which slots are filled, lent, free)
//! ```
//!
//! Everything a session needs of the kernel is behind [`host::Host`], so all of this runs under `cargo test` against a
//! fake EL2. `kernel/s2dump_driver.rs` is the other half: pages, user memory, locks.
//!
//! Trusts EL2 as far as the host kernel must, yet bounds every length and step it tells; trusts user space in nothing.
//! Allocates nothing and has no static. The VMs that a session is about are held by the host, on its word
//! ([`host::Host::look_at_vms`], [`host::Host::hold_vm`]): EL1's references, never EL2's.
#![no_std]
#![forbid(unsafe_code)]

pub mod argument;
pub mod call;
pub mod errno;
pub mod error;
pub mod host;
pub mod job;
pub mod ring;
pub mod session;
pub mod slot_header;
pub mod vms;
