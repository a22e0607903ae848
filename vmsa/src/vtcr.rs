// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! VTCR_EL2 -> geometry of a stage-2 table. Arm ARM DDI 0487, "Stage 2 translation" (start level, concatenation).
//!
//! Not supported: the Secure form (VSTCR_EL2), and what VTCR_EL2 says about walks only (IRGN0, ORGN0, VS, NSW, NSA, TL0,
//! TL1, GCSH, HAFT, HDBSS), which changes no result of a walk that is shown here.

use crate::bits;
use crate::features::{ps_bits, Features};
use crate::geometry::{counts, min, Common, Format, Geometry, GeometryError, Regime};
use crate::granule::Granule;
use crate::level::Level;

const D128: u32 = 38;
const DS: u32 = 32;
const SL2: u32 = 33;
const ASSURED_ONLY: u32 = 34;
const S2PIE: u32 = 36;
const S2POE: u32 = 37;
const HWU59: u32 = 25;
const HWU62: u32 = 28;
const HA: u32 = 21;
const HD: u32 = 22;

impl Geometry {
    /// Decodes `vtcr`.
    ///
    /// # Errors
    ///
    /// The [`GeometryError`] of the first field that is not allowed.
    #[inline]
    pub const fn from_vtcr(vtcr: u64, features: Features) -> Result<Self, GeometryError> {
        if counts(vtcr, D128, true) {
            return Err(GeometryError::D128);
        }
        let common = match Common::try_new(vtcr) {
            Ok(common) => common,
            Err(error) => return Err(error),
        };
        let granule = common.granule;
        let lpa2 = counts(vtcr, DS, features.lpa2) && !common.is_64k;
        let format_bits = if lpa2 || common.is_64k { 52 } else { 48 };

        // AArch64_S2MinTxSZ: no larger than the physical address size.
        let largest = min(features.pa_max_bits, format_bits);
        let ia_bits = match common.ia_bits(64 - largest, features.ttst) {
            Ok(ia_bits) => ia_bits,
            Err(error) => return Err(error),
        };

        // SL2 is of 4 KiB pages only: with 16 KiB two bits name all levels (AArch64_S2StartLevel).
        let sl2 = lpa2 && matches!(granule, Granule::Size4K);
        let sl = (bits(vtcr, 7, 6) | if sl2 { bits(vtcr, SL2, SL2) << 2 } else { 0 }) as u8;
        let Some(start_level) = start_level(granule, sl, lpa2, &features) else {
            return Err(GeometryError::StartLevel(sl));
        };
        // AArch64_S2InconsistentSL. Both terms are below 64.
        let index_bits = ia_bits as i8 - granule.entry_shift(start_level) as i8;
        if index_bits < 1 || index_bits > granule.index_bits() as i8 + 4 {
            return Err(GeometryError::StartLevelForT0sz { start_level: sl, index_bits });
        }

        let format = Format::NONE
            .with(Format::LPA2, lpa2)
            .with(Format::LPA, features.pa_max_bits == 52)
            .with(Format::FWB, features.fwb)
            .with(Format::XNX, features.xnx)
            .with(Format::MTE_PERM, features.mte_perm)
            .with(Format::HA, counts(vtcr, HA, features.ha))
            .with(Format::HD, counts(vtcr, HD, features.hd))
            .with(Format::S2PIE, counts(vtcr, S2PIE, features.s2pie))
            .with(Format::S2POE, counts(vtcr, S2POE, features.s2poe))
            .with(Format::ASSURED_ONLY, counts(vtcr, ASSURED_ONLY, features.the));
        let format = if features.hpds2 { format.with_hwu(bits(vtcr, HWU62, HWU59)) } else { format };
        let pa_bits = min(ps_bits(bits(vtcr, 18, 16)), largest);
        Ok(Self { granule, start_level, ia_bits, pa_bits, sh0: common.sh0, regime: Regime::Stage2, format })
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
