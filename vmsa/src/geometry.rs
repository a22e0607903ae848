// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! VTCR_EL2 -> the shape of a stage-2 table: granule, levels, size of the root, where output addresses sit.
//!
//! Invariant others rely on: a `Geometry` is one the architecture allows, so `1 <= root_index_bits <= index_bits + 4`,
//! `ia_bits <= 52`, and every shift computed from it is below 64. Rules: Arm ARM DDI 0487, "Stage 2 translation"
//! (start level, concatenation), and the shared pseudocode functions named at each check.

use crate::addr::PhysAddr;
use crate::attrs::Shareability;
use crate::granule::Granule;
use crate::level::Level;
use crate::{bit, bits};

/// What the registers of a table do not say, but decoding it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// FEAT_LPA2 at stage 2: VTCR_EL2.DS counts.
    pub lpa2: bool,
    /// HCR_EL2.FWB: MemAttr has the FWB encoding.
    pub fwb: bool,
    /// FEAT_XNX: XN is two bits.
    pub xnx: bool,
    /// FEAT_TTST: T0SZ may be as large as 48.
    pub ttst: bool,
    /// Physical address bits the CPU has (ID_AA64MMFR0_EL1.PARange): 32 to 52.
    pub pa_max_bits: u8,
}

impl Features {
    /// Returns the features for a table of KVM's with this VTCR_EL2, given those VTCR_EL2 does not imply: KVM sets PS to
    /// what the CPU has, DS only with FEAT_LPA2, and no T0SZ that the CPU does not take (`kvm_get_vtcr`).
    #[must_use]
    pub const fn of_kvm(vtcr: u64, fwb: bool, xnx: bool) -> Self {
        Self { lpa2: true, fwb, xnx, ttst: true, pa_max_bits: ps_bits(bits(vtcr, 18, 16)) }
    }
}

/// Why a VTCR_EL2 value is refused: the field, with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeometryError {
    /// D128 is set: 128-bit descriptors are not decoded.
    D128,
    /// TG0 is the reserved value.
    Tg0(u8),
    /// T0SZ gives an input size the CPU or granule does not allow.
    T0sz(u8),
    /// SL2:SL0 is reserved, or needs a feature that is absent: bit 2 is SL2.
    StartLevel(u8),
    /// The start level does not suit the input size: the root would have `2^index_bits` entries.
    StartLevelForT0sz {
        /// SL2:SL0.
        start_level: u8,
        /// Bits the root would have to resolve: less than 1, or more than 16 tables.
        index_bits: i8,
    },
}

/// The shape of one stage-2 table, and what decoding its descriptors depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    granule: Granule,
    start_level: Level,
    ia_bits: u8,
    pa_bits: u8,
    lpa2: bool,
    sh0: Shareability,
    features: Features,
}

impl Geometry {
    /// Decodes `vtcr`.
    ///
    /// # Errors
    ///
    /// The [`GeometryError`] of the first field that is not allowed.
    #[inline]
    pub const fn from_vtcr(vtcr: u64, features: Features) -> Result<Self, GeometryError> {
        if bit(vtcr, 38) {
            return Err(GeometryError::D128);
        }
        let tg0 = bits(vtcr, 15, 14);
        let Some(granule) = Granule::from_tg0(tg0) else {
            return Err(GeometryError::Tg0(tg0 as u8));
        };
        let is_64k = matches!(granule, Granule::Size64K);
        let lpa2 = bit(vtcr, 32) && features.lpa2 && !is_64k;
        let can_52 = lpa2 || is_64k;

        // AArch64_MaxTxSZ and AArch64_S2MinTxSZ: no smaller than TTST allows, no larger than the physical address size.
        let t0sz = bits(vtcr, 5, 0) as u8;
        let t0sz_max = match (features.ttst, is_64k) {
            (false, _) => 39,
            (true, false) => 48,
            (true, true) => 47,
        };
        let ia_bits = 64 - t0sz;
        if t0sz > t0sz_max || ia_bits > min(features.pa_max_bits, if can_52 { 52 } else { 48 }) {
            return Err(GeometryError::T0sz(t0sz));
        }

        let sl = (bits(vtcr, 7, 6) | if lpa2 { bits(vtcr, 33, 33) << 2 } else { 0 }) as u8;
        let Some(start_level) = start_level(granule, sl, lpa2, &features) else {
            return Err(GeometryError::StartLevel(sl));
        };
        // AArch64_S2InconsistentSL. Both terms are below 64.
        let index_bits = ia_bits as i8 - granule.entry_shift(start_level) as i8;
        if index_bits < 1 || index_bits > granule.index_bits() as i8 + 4 {
            return Err(GeometryError::StartLevelForT0sz { start_level: sl, index_bits });
        }

        let pa_bits = min(min(ps_bits(bits(vtcr, 18, 16)), features.pa_max_bits), if can_52 { 52 } else { 48 });
        let sh0 = Shareability::from_bits(bits(vtcr, 13, 12));
        Ok(Self { granule, start_level, ia_bits, pa_bits, lpa2, sh0, features })
    }

    /// Returns the granule.
    #[must_use]
    pub const fn granule(&self) -> Granule {
        self.granule
    }

    /// Returns the level of the root.
    #[must_use]
    pub const fn start_level(&self) -> Level {
        self.start_level
    }

    /// Returns the input-address bits; the space ends at `1 << ia_bits`.
    #[must_use]
    pub const fn ia_bits(&self) -> u8 {
        self.ia_bits
    }

    /// Returns the effective output-address bits: what VTCR_EL2.PS, the CPU and the format allow.
    #[must_use]
    pub const fn pa_bits(&self) -> u8 {
        self.pa_bits
    }

    /// Returns whether descriptors have the LPA2 format (VTCR_EL2.DS in force).
    #[must_use]
    pub const fn is_lpa2(&self) -> bool {
        self.lpa2
    }

    /// Returns the features it was made with.
    #[must_use]
    pub const fn features(&self) -> &Features {
        &self.features
    }

    /// Returns the shareability of table walks, and with LPA2 of every leaf: VTCR_EL2.SH0.
    #[must_use]
    pub const fn sh0(&self) -> Shareability {
        self.sh0
    }

    /// Returns the first input address behind the space.
    #[must_use]
    pub const fn ia_end(&self) -> u64 {
        1 << self.ia_bits
    }

    /// Returns how many bits the root resolves: it has exactly `1 << root_index_bits` entries.
    #[must_use]
    pub const fn root_index_bits(&self) -> u32 {
        // At least 1 by the check in `from_vtcr`.
        (self.ia_bits as u32).wrapping_sub(self.granule.entry_shift(self.start_level))
    }

    /// Returns the size of the root in bytes, which is also its alignment (but never less than 64 bytes).
    #[must_use]
    pub const fn root_bytes(&self) -> u64 {
        8 << self.root_index_bits()
    }

    /// Returns how many granule-sized tables the root concatenates: 1 to 16.
    #[must_use]
    pub const fn root_tables(&self) -> u32 {
        1 << self.root_index_bits().saturating_sub(self.granule.index_bits())
    }

    /// Returns whether entries of `level` may be blocks. AArch64_BlockDescSupported.
    #[must_use]
    pub const fn is_block_level(&self, level: Level) -> bool {
        match (self.granule, level.get()) {
            (Granule::Size4K, 1) | (_, 2) => true,
            (Granule::Size4K, 0) | (Granule::Size16K, 1) => self.lpa2,
            (Granule::Size64K, 1) => self.features.pa_max_bits == 52,
            _ => false,
        }
    }

    /// Returns the descriptor bits, in place and contiguous, that hold the output address of a leaf of `level`: from the
    /// size of the entry up to bit 47, or 49 with LPA2. [`Self::high_address_mask`] has the rest.
    #[must_use]
    pub const fn low_address_mask(&self, level: Level) -> u64 {
        let top = if self.lpa2 { 50 } else { 48 };
        // 64 KiB at level 0 would span more than 48 bits; the geometry has no such level.
        let shift = self.granule.entry_shift(level);
        (1 << top) - (1 << if shift < top { shift } else { top })
    }

    /// Returns the descriptor bits that hold output-address bits above those in place: 9:8 with LPA2 (bits 51:50), 15:12
    /// with 64 KiB pages and 52-bit addresses (bits 51:48), else none.
    #[must_use]
    pub const fn high_address_mask(&self) -> u64 {
        if self.lpa2 {
            0b11 << 8
        } else if matches!(self.granule, Granule::Size64K) && self.features.pa_max_bits == 52 {
            0b1111 << 12
        } else {
            0
        }
    }

    /// Returns the address in descriptor `raw`, taking the bits of `low_mask` in place.
    #[must_use]
    pub(crate) const fn address(&self, raw: u64, low_mask: u64) -> PhysAddr {
        let high = if self.lpa2 {
            bits(raw, 9, 8) << 50
        } else if self.high_address_mask() != 0 {
            bits(raw, 15, 12) << 48
        } else {
            0
        };
        PhysAddr::new(raw & low_mask | high)
    }
}

/// AArch64_S2StartLevel and AArch64_S2InvalidSL.
const fn start_level(granule: Granule, sl: u8, lpa2: bool, features: &Features) -> Option<Level> {
    let pa_max = features.pa_max_bits;
    match (granule, sl) {
        (Granule::Size4K, 0) => Some(Level::L2),
        (Granule::Size4K, 1) => Some(Level::L1),
        (Granule::Size4K, 2) if pa_max >= 44 => Some(Level::L0),
        (Granule::Size4K, 3) if features.ttst => Some(Level::L3),
        (Granule::Size4K, 4) => Some(Level::MINUS_1), // SL2 only counts with LPA2: see the caller.
        (Granule::Size16K | Granule::Size64K, 0) => Some(Level::L3),
        (Granule::Size16K | Granule::Size64K, 1) => Some(Level::L2),
        (Granule::Size16K, 2) if pa_max >= 42 => Some(Level::L1),
        (Granule::Size16K, 3) if lpa2 => Some(Level::L0),
        (Granule::Size64K, 2) if pa_max >= 44 => Some(Level::L1),
        _ => None,
    }
}

/// VTCR_EL2.PS. 7 (56 bits) needs 128-bit descriptors; with 64-bit ones it is the most they can hold.
const fn ps_bits(ps: u64) -> u8 {
    match ps {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        5 => 48,
        _ => 52,
    }
}

const fn min(a: u8, b: u8) -> u8 {
    if a < b {
        a
    } else {
        b
    }
}
