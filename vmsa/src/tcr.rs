// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! TCR_EL2 -> geometry of EL2's stage-1 table, the one that TTBR0_EL2 points to.
//!
//! Not supported: the upper range of EL2&0 (TTBR1_EL2), and what TCR2_EL2 adds (indirect permissions, 128-bit
//! descriptors), except AIE, which is one of [`Features`].

use crate::bits;
use crate::features::{ps_bits, Features};
use crate::geometry::{counts, min, Common, Format, Geometry, GeometryError, Regime};
use crate::level::Level;

/// Where the two forms of TCR_EL2 differ.
struct Fields {
    regime: Regime,
    ps: u32,
    ha: u32,
    hd: u32,
    hpd: u32,
    hwu59: u32,
    ds: u32,
}

const EL2: Fields = Fields { regime: Regime::El2, ps: 16, ha: 21, hd: 22, hpd: 24, hwu59: 25, ds: 32 };
const EL2_AND_0: Fields = Fields { regime: Regime::El2And0, ps: 32, ha: 39, hd: 40, hpd: 41, hwu59: 43, ds: 59 };
const EPD0: u32 = 7;

/// Returns how many output-address bits TCR_EL2 says, in the form that `e2h` decides.
const fn el2_ps_bits(tcr: u64, e2h: bool) -> u8 {
    let ps = if e2h { EL2_AND_0.ps } else { EL2.ps };
    ps_bits(bits(tcr, ps + 2, ps))
}

impl Features {
    /// Returns the features for EL2's own table with this TCR_EL2, as KVM sets it up; `e2h` is HCR_EL2.E2H, which decides its
    /// form. KVM sets PS to what the CPU has, DS and a T0SZ only as the CPU takes them (`cpu_init_hyp_mode`).
    #[must_use]
    pub const fn of_kvm_el2(tcr: u64, e2h: bool, lpa2: bool) -> Self {
        Self { pa_max_bits: el2_ps_bits(tcr, e2h), lpa2, ..Self::of_kvm(0, false, false) }
    }
}

impl Geometry {
    /// Decodes `tcr`; `e2h` is HCR_EL2.E2H, which decides its form.
    ///
    /// # Errors
    ///
    /// The [`GeometryError`] of the first field that is not allowed.
    pub const fn from_tcr_el2(tcr: u64, e2h: bool, features: Features) -> Result<Self, GeometryError> {
        let fields = if e2h { EL2_AND_0 } else { EL2 };
        if counts(tcr, EPD0, e2h) {
            return Err(GeometryError::Epd0);
        }
        let common = match Common::try_new(tcr) {
            Ok(common) => common,
            Err(error) => return Err(error),
        };
        let granule = common.granule;
        let lpa2 = counts(tcr, fields.ds, features.lpa2) && !common.is_64k;

        // AArch64_S1MinTxSZ.
        let t0sz_min = if lpa2 || common.is_64k && features.lva { 12 } else { 16 };
        let ia_bits = match common.ia_bits(t0sz_min, features.ttst) {
            Ok(ia_bits) => ia_bits,
            Err(error) => return Err(error),
        };
        // AArch64_S1StartLevel: as few levels as resolve the input address; 0 to 4 below the first.
        let mut start_level = Level::L3;
        while granule.entry_shift(start_level) + granule.index_bits() < ia_bits as u32 {
            match start_level.parent() {
                Some(parent) => start_level = parent,
                None => break, // Not reached: five levels resolve 52 bits.
            }
        }

        let format = Format::NONE
            .with(Format::LPA2, lpa2)
            .with(Format::LPA, features.pa_max_bits == 52)
            .with(Format::HA, counts(tcr, fields.ha, features.ha))
            .with(Format::HD, counts(tcr, fields.hd, features.hd))
            .with(Format::AIE, features.aie)
            .with(Format::HPD, counts(tcr, fields.hpd, features.hpds));
        // At stage 1 the bits are free for PBHA only where HPD takes their other use away.
        let has_pbha = features.hpds2 && format.has(Format::HPD);
        let format = if has_pbha { format.with_hwu(bits(tcr, fields.hwu59 + 3, fields.hwu59)) } else { format };
        let format_bits = if lpa2 || common.is_64k { 52 } else { 48 };
        let pa_bits = min(el2_ps_bits(tcr, e2h), min(features.pa_max_bits, format_bits));
        Ok(Self { granule, start_level, ia_bits, pa_bits, sh0: common.sh0, regime: fields.regime, format })
    }
}
