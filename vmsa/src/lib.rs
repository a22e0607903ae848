// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! VMSAv8-64 tables: geometry and descriptors of stage 2 and of EL2's stage 1. Pure decode, used at EL2 and at EL0.
//!
//! Supports the 4, 16 and 64 KiB granules, start levels -1 to 3 with concatenated roots, 52-bit addresses (LPA, LPA2), all
//! encodings of MemAttr, XN and indirect permissions, EL2's stage 1 with and without E2H, and the software bits and invalid
//! entries of pKVM. Not supported: 128-bit descriptors (refused), TTBR1_EL2, the stage 1 of guests.
//!
//! What a table's registers do not say is an explicit input ([`Features`]), never guessed; [`Features::of_kvm`] has what
//! KVM's value of VTCR_EL2 implies. Reads no memory, knows no ring
//! and no record. Unknown encodings are kept raw, never masked away. Field positions: Arm ARM DDI 0487, chapter D8 "The
//! AArch64 Virtual Memory System Architecture".
//!
//! Modules use each other in one direction: geometry -> raw -> leaf -> stage2, el2; descriptor joins them.
#![no_std]
#![forbid(unsafe_code)]

pub mod addr;
pub mod attrs;
pub mod descriptor;
pub mod el2;
pub mod fault;
pub mod features;
pub mod geometry;
pub mod granule;
pub mod leaf;
pub mod level;
pub mod pkvm;
pub mod raw;
pub mod stage2;
pub mod table_attrs;
mod tcr;
mod vtcr;

pub use addr::{Ipa, PhysAddr};
pub use descriptor::Descriptor;
pub use features::Features;
pub use geometry::{Geometry, GeometryError, Regime};
pub use granule::Granule;
pub use leaf::Leaf;
pub use level::Level;
pub use raw::RawDescriptor;
pub use table_attrs::TableAttrs;

/// Returns bits `hi:lo` of `value`, shifted down; positions as the manual writes them.
pub(crate) const fn bits(value: u64, hi: u32, lo: u32) -> u64 {
    (value >> lo) & (u64::MAX >> (63 - (hi - lo)))
}

/// Returns whether bit `n` of `value` is set.
pub(crate) const fn bit(value: u64, n: u32) -> bool {
    (value >> n) & 1 != 0
}

/// Returns the bits of `fields`, each `(hi, lo)` as the manual writes them.
pub(crate) const fn mask(fields: &[(u32, u32)]) -> u64 {
    let (mut all, mut rest) = (0, fields);
    while let [(hi, lo), tail @ ..] = rest {
        all |= bits(u64::MAX, *hi, *lo) << *lo;
        rest = tail;
    }
    all
}
