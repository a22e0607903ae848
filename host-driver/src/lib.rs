// SPDX-License-Identifier: GPL-2.0-only
//! The driver's logic: ioctl checks, ring bookkeeping, session states.
//!
//! ```text
//!   file --> argument --> session --> job --> call --> Host::call (EL2)
//!                            |         |----> vms     (EL1's facts on EL2's list)
//!                            |         |----> facts   (EL1's facts beside EL2's)
//!                            |         \----> memory  (a VM's memory slots, which only EL1 knows)
//!                            v
//!                           ring (which slots are filled, lent, free)
//! ```
//!
//! [`host::Host`] stands for the kernel, so all of this runs under `cargo test` against a fake EL2. The other half has the
//! pages, the user memory and the locks: `kernel/s2dump_driver.rs` in a kernel with Rust,
//! `linux/without-rust/s2dump_device.c` in one without.
//!
//! This crate trusts EL2 as far as a host kernel must, but it bounds every length and step that EL2 answers. It does
//! not trust user space at all. It allocates nothing and has no static. A session asks the host to hold the VMs it is
//! about ([`host::Host::look_at_vms`], [`host::Host::hold_vm`]); these are EL1's references, never EL2's.
#![no_std]
#![forbid(unsafe_code)]

pub mod argument;
pub mod call;
pub mod errno;
pub mod error;
pub mod facts;
pub mod file;
pub mod host;
pub mod job;
pub mod memory;
pub mod ring;
pub mod session;
pub mod slot_header;
pub mod vms;
