// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Compares the walker and decoder that run at EL2 with the MMU itself: the cases, and how answers are judged.
//!
//! Everything that needs no register is here and knows no machine but [`mmu::Mmu`], so that hosts compile and test it; the
//! image (`main.rs`) adds entry, console and registers. What QEMU does differently from the architecture is
//! listed in [`divergence`] and made in [`prediction`]; where the architecture leaves an answer open, the rules of ours that
//! give QEMU's are named by [`choices`].
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod answer;
pub mod arena;
pub mod cases;
pub mod choices;
pub mod compare;
pub mod cpu;
pub mod divergence;
pub mod mapping;
pub mod memory_type;
pub mod mmu;
pub mod par;
pub mod path;
pub mod prediction;
mod random_tables;
pub mod report;
pub mod rng;
mod verdict;
