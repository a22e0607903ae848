// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tests of the walker share, the fuzz target of `fuzz/` included: shapes, tables as bytes, a second translator.
#![allow(dead_code, unused_imports, reason = "the fuzz target uses a part")]

pub(crate) mod hostile;
mod shape;
mod sinks;
mod table_builder;
mod translate;
mod walks;

pub(crate) use shape::{all_legal, each_shape, Shape, Stage, SHAPES};
pub(crate) use sinks::{Entries, Records};
pub(crate) use table_builder::Tables;
pub(crate) use translate::{translate, Translation};
pub(crate) use walks::{all, assert_tiles, ipa, shape, walk};

/// Where the tables pretend to be.
pub(crate) const BASE: u64 = 0x8000_0000;
/// What memory holds where nothing was written: as a descriptor, an annotation no test writes.
pub(crate) const FILL: u64 = 0xaaaa_aaaa_aaaa_aaaa;

/// Page, and block where the level allows one: normal memory, readable, writable, accessed; SH is 0, as with LPA2 it is
/// address.
pub(crate) const PAGE: u64 = 0x4ff;
pub(crate) const BLOCK: u64 = 0x4fd;
pub(crate) const TABLE: u64 = 0b11;
