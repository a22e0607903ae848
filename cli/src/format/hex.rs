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
