// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! The EL2 component: walker, coalescer, slot producer, handler. `tables -> walker -> coalescer -> slot`.
//!
//! All of it is safe code without state. Two traits reach what is unsafe (live table pages, the host's slot page,
//! locks): [`platform::Platform`] and [`table_memory::TableMemory`]. `linux/el2/s2dump_el2.rs` implements them at EL2,
//! and the tests implement them on any host. The command-line tool uses [`coalescer::merge`] to join runs across slots.
//!
//! Others rely on these invariants. There is no panic path (no slice indexing, no unchecked arithmetic on what the host
//! or a table says), no recursion, no allocation, no indirect call and no formatting. No table page is written. Nothing
//! is loaded from the slot page.
#![no_std]
#![forbid(unsafe_code)]

mod call;
pub mod coalescer;
pub mod digest;
mod dump;
pub mod entry;
mod examine;
mod facts;
mod frames;
mod header;
mod list;
pub mod packed;
pub mod platform;
mod run;
pub mod slot_writer;
pub mod table_memory;
mod walk;
pub mod walker;
