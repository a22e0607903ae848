// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Makes tables, one path at a time.

use crate::arena::Arena;
use s2dump_vmsa::{Geometry, Level, RawDescriptor};

/// AF: accessed.
pub const AF: u64 = 1 << 10;
/// S2AP, or at EL2 AP, whose upper bit is read-only.
pub const AP_SHIFT: u32 = 6;
/// MemAttr, or at EL2 AttrIndx with NS above it.
pub const ATTR_SHIFT: u32 = 2;
/// XN of stage 2.
pub const XN_SHIFT: u32 = 53;
/// A stage-2 leaf anybody may use: AF, S2AP, Normal write-back with and without FWB's AsStage1 bits.
pub const OPEN: u64 = AF | 0b11 << AP_SHIFT | 0b1111 << ATTR_SHIFT;
/// The same with FWB, where 1111 is reserved: AsStage1.
pub const OPEN_FWB: u64 = AF | 0b11 << AP_SHIFT | 0b0111 << ATTR_SHIFT;

/// Returns `address` as a descriptor holds it.
#[must_use]
pub fn encode(geometry: &Geometry, address: u64) -> u64 {
    let high = match geometry.high_address_mask() {
        0 => 0,
        mask if geometry.is_lpa2() => address >> 50 << mask.trailing_zeros(),
        mask => address >> 48 << mask.trailing_zeros(),
    };
    address & geometry.low_address_mask(Level::L3) | high
}

/// Returns `address`, which is that of a root, as VTTBR_EL2 and TTBR0_EL2 hold it.
#[must_use]
pub const fn encode_base(address: u64) -> u64 {
    // Of no more than 48 bits unless the format has place for more.
    address & 0xffff_ffff_ffff | address >> 48 << 2
}

/// Returns bits 1:0 of a leaf at `level`.
#[must_use]
pub const fn leaf_type(level: Level) -> u64 {
    if level.is_last() {
        0b11
    } else {
        0b01
    }
}

/// Returns where the entry for `ia` stands in the table at `table`; the root may be several pages.
#[must_use]
pub const fn entry_at(geometry: &Geometry, table: u64, level: Level, ia: u64, is_root: bool) -> u64 {
    let index = ia >> geometry.granule().entry_shift(level);
    let mask = if is_root { u64::MAX } else { (1 << geometry.granule().index_bits()) - 1 };
    table + 8 * (index & mask)
}

/// Writes `raw` as the entry for `ia` at `level` below the root at `base`, with the tables above it; returns where.
pub fn map(arena: &mut Arena<'_>, geometry: &Geometry, base: u64, ia: u64, level: Level, raw: u64) -> u64 {
    let place = place(arena, geometry, base, ia, level);
    arena.write(place, raw);
    place
}

/// Returns where the entry for `ia` at `level` stands, and makes the tables on the way there.
///
/// # Panics
///
/// If `level` is above the root.
pub fn place(arena: &mut Arena<'_>, geometry: &Geometry, base: u64, ia: u64, level: Level) -> u64 {
    let (mut table, mut at, mut is_root) = (base, geometry.start_level(), true);
    loop {
        let place = entry_at(geometry, table, at, ia, is_root);
        if at == level {
            return place;
        }
        let found = arena.read(place).filter(|found| arena.is_written(place) && found & 0b11 == 0b11);
        table = match found {
            Some(found) => RawDescriptor::from_bits(found).next_table(geometry).get(),
            None => {
                let table = arena.allocate(geometry);
                arena.write(place, encode(geometry, table) | 0b11);
                table
            }
        };
        at = at.child().expect("a level above the root has no tables above it");
        is_root = false;
    }
}
