// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! The digest of a table: one number, by which two dumps of a table are compared.
//!
//! It is the wrapping sum of [`mix`] over all entries a walk reports: leaves, annotations and wrong entries, but not
//! the tables that were entered. A sum does not depend on the order or on how a dump is cut into calls, so the digests
//! of all slots of a dump add up. The digest finds changes. It does not withstand somebody who builds tables to
//! collide.

/// Returns the share of one entry: 0 for an empty one.
///
/// `ia` is the first input address of the entry, page aligned, so its low bits have room for the level.
#[must_use]
#[inline]
pub const fn mix(ia: u64, level: i8, raw: u64) -> u64 {
    if raw == 0 {
        return 0;
    }
    // Any odd constants with well-spread bits would do. These are 2^64 / golden ratio, and one of splitmix64's
    // finalizer.
    let place = (ia | (level & 0b111) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (place ^ place >> 32 ^ raw).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 32
}
