// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers that JSON writes as strings, because a JSON number loses bits above 2^53.

use serde::{Serialize, Serializer};

/// A number written as a hexadecimal string.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hex(pub(crate) u64);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

/// Addresses, as strings and as numbers of pages. A double holds those exactly, so that programs can compare and add them.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct SpanJson {
    /// The first.
    pub(crate) start: Hex,
    /// The first after.
    pub(crate) end: Hex,
    start_pfn: u64,
    end_pfn: u64,
}

impl SpanJson {
    /// Describes `start..end`, of pages of `1 << page_shift` bytes.
    pub(crate) fn new(start: u64, end: u64, page_shift: u32) -> Self {
        Self { start: Hex(start), end: Hex(end), start_pfn: start >> page_shift, end_pfn: end >> page_shift }
    }
}
