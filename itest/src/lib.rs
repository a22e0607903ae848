// SPDX-License-Identifier: MIT OR Apache-2.0
//! What runs inside the test machine: the guest init, the test VMM and the tests.
//!
//! ```text
//!   s2dump-itest-init (/init, PID 1)
//!     | run::test: start VMs in known states, dump them, compare
//!     +-> s2dump-vmm ----- KVM -----> guest: stores, shares, unshares pages as it is told
//!     |     `- prints what the table must hold: expect::Expected
//!     +-> s2dump, /dev/s2dump, debugfs: what the table is said to hold
//! ```
//!
//! The VMM speaks to KVM on AArch64 only; the rest is built and tested anywhere.

pub mod adb;
#[cfg(target_arch = "aarch64")]
pub mod guest;
#[cfg(target_arch = "aarch64")]
pub mod vm;

pub mod audit;
pub mod command_line;
pub mod decode;
pub mod device;
pub mod dump;
pub mod expect;
pub mod machine;
pub mod memory;
pub mod program;
pub mod random;
pub mod run;
pub mod scale;
pub mod script;
pub mod selftest;
pub mod server;
pub mod signal;
pub mod ssh;
pub mod system;
pub mod vmm_process;
