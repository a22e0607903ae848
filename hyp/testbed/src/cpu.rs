// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! What the CPU has, from its ID registers: the explicit input of the decoder.

use s2dump_vmsa::{Features, Granule};

/// The ID registers that matter.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    /// ID_AA64MMFR0_EL1.
    pub mmfr0: u64,
    /// ID_AA64MMFR1_EL1.
    pub mmfr1: u64,
    /// ID_AA64MMFR2_EL1.
    pub mmfr2: u64,
}

/// Which stage's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// EL2's own.
    One,
    /// The guest's.
    Two,
}

const fn field(register: u64, low: u32) -> u64 {
    (register >> low) & 0xf
}

impl Cpu {
    /// Returns the physical address bits: PARange.
    #[must_use]
    pub const fn pa_bits(&self) -> u8 {
        match field(self.mmfr0, 0) {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            5 => 48,
            _ => 52,
        }
    }

    /// Returns what TGRANx_2 (or TGRANx where that says "the same") means: has the granule, has it with 52-bit addresses.
    const fn granule(&self, stage: Stage, granule: Granule) -> (bool, bool) {
        let (first, second) = match granule {
            Granule::Size4K => (field(self.mmfr0, 28), field(self.mmfr0, 40)),
            Granule::Size16K => (field(self.mmfr0, 20), field(self.mmfr0, 32)),
            Granule::Size64K => (field(self.mmfr0, 24), field(self.mmfr0, 36)),
        };
        match (stage, second, granule) {
            (Stage::Two, 1.., _) => (second >= 2, second >= 3),
            (_, _, Granule::Size16K) => (first >= 1, first >= 2),
            (_, _, Granule::Size4K) => (first != 0xf, first == 1),
            (_, _, Granule::Size64K) => (first != 0xf, false),
        }
    }

    /// Returns whether the granule is implemented.
    #[must_use]
    pub const fn has_granule(&self, stage: Stage, granule: Granule) -> bool {
        self.granule(stage, granule).0
    }

    /// Returns whether FEAT_VHE is implemented: HCR_EL2.E2H can be set.
    #[must_use]
    pub const fn has_vhe(&self) -> bool {
        field(self.mmfr1, 8) != 0
    }

    /// Returns whether FEAT_S2FWB is implemented.
    #[must_use]
    pub const fn has_fwb(&self) -> bool {
        field(self.mmfr2, 40) != 0
    }

    /// Returns the features for a table of `granule`, with FWB as HCR_EL2 has it.
    ///
    /// Not read, as no QEMU 10 CPU has them: MTE_PERM, S2PIE, S2POE, THE, AIE.
    #[must_use]
    pub const fn features(&self, stage: Stage, granule: Granule, fwb: bool) -> Features {
        Features {
            pa_max_bits: self.pa_bits(),
            lpa2: self.granule(stage, granule).1,
            lva: field(self.mmfr2, 16) != 0,
            ttst: field(self.mmfr2, 28) != 0,
            fwb: fwb && self.has_fwb(),
            xnx: field(self.mmfr1, 28) != 0,
            ha: field(self.mmfr1, 0) >= 1,
            hd: field(self.mmfr1, 0) >= 2,
            hpds: field(self.mmfr1, 12) != 0,
            ..Features::NONE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_stage_2_field_overrides_stage_1() {
        // TGRAN4 = 1 (LPA2), TGRAN4_2 = 0 (the same); TGRAN16 = 1, TGRAN16_2 = 1 (none at stage 2).
        let cpu = Cpu { mmfr0: 1 << 28 | 1 << 20 | 1 << 32, mmfr1: 0, mmfr2: 0 };
        assert!(cpu.features(Stage::Two, Granule::Size4K, false).lpa2);
        assert!(cpu.has_granule(Stage::One, Granule::Size16K) && !cpu.has_granule(Stage::Two, Granule::Size16K));
    }

    #[test]
    fn good_absent_granules() {
        let cpu = Cpu { mmfr0: 0xf << 28 | 0xf << 24, mmfr1: 0, mmfr2: 0 };
        let has = |granule| cpu.has_granule(Stage::One, granule);
        assert_eq!([has(Granule::Size4K), has(Granule::Size16K), has(Granule::Size64K)], [false; 3]);
    }
}
