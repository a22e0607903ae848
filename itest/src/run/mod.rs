// SPDX-License-Identifier: MIT OR Apache-2.0
//! The modes of the guest init. Each `run` returns the exit code of the verdict.

pub mod bench;
pub mod corrupt;
pub mod demo;
pub mod endure;
pub mod exec;
pub mod oracle;
pub mod tables;
pub mod test;
