// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Values for VTCR_EL2 and TCR_EL2.

use crate::cpu::{Cpu, Stage};
use s2dump_vmsa::{Geometry, Granule};

/// The granules.
pub(super) const GRANULES: [Granule; 3] = [Granule::Size4K, Granule::Size16K, Granule::Size64K];

/// The fields of VTCR_EL2 that decide about a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vtcr {
    /// TG0.
    pub(super) tg0: u64,
    /// T0SZ.
    pub(super) t0sz: u64,
    /// SL2:SL0.
    pub(super) sl: u64,
    /// DS.
    pub(super) ds: bool,
    /// PS.
    pub(super) ps: u64,
}

impl Vtcr {
    /// Returns the value: inner shareable, write-back, RES1 set.
    pub(super) const fn value(&self) -> u64 {
        let walks = 1 << 31 | 0b11 << 12 | 0b0101 << 8;
        let size = self.t0sz | (self.sl & 0b11) << 6 | self.tg0 << 14 | self.ps << 16;
        walks | size | (self.ds as u64) << 32 | (self.sl >> 2) << 33
    }
}

/// The fields of TCR_EL2 that decide about a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tcr {
    /// TG0.
    pub(super) tg0: u64,
    /// T0SZ.
    pub(super) t0sz: u64,
    /// DS.
    pub(super) ds: bool,
    /// PS or IPS.
    pub(super) ps: u64,
    /// HPD or HPD0.
    pub(super) hpd: bool,
    /// HCR_EL2.E2H, which decides where they are.
    pub(super) e2h: bool,
}

impl Tcr {
    /// Returns the value: inner shareable, write-back, RES1 set; with E2H the upper range is not walked (EPD1).
    pub(super) const fn value(&self) -> u64 {
        let common = self.t0sz | 0b0101 << 8 | 0b11 << 12 | self.tg0 << 14;
        let (ds, hpd) = (self.ds as u64, self.hpd as u64);
        if self.e2h {
            common | 1 << 23 | self.ps << 32 | hpd << 41 | ds << 59
        } else {
            common | 1 << 23 | 1 << 31 | self.ps << 16 | hpd << 24 | ds << 32
        }
    }
}

/// Returns TG0 for a granule.
pub(super) const fn tg0(granule: Granule) -> u64 {
    match granule {
        Granule::Size4K => 0,
        Granule::Size64K => 1,
        Granule::Size16K => 2,
    }
}

/// Returns PS for all the CPU has.
pub(super) const fn full_ps(cpu: &Cpu) -> u64 {
    cpu.mmfr0 & 0xf
}

/// Calls `each` with the largest stage-2 space of each implemented granule, format and start level.
pub(super) fn shapes(cpu: &Cpu, ps: u64, mut each: impl FnMut(Vtcr, Geometry)) {
    for granule in GRANULES.into_iter().filter(|granule| cpu.has_granule(Stage::Two, *granule)) {
        let features = cpu.features(Stage::Two, granule, false);
        for ds in [false, true].into_iter().filter(|ds| !ds || features.lpa2 && granule != Granule::Size64K) {
            // Without DS, SL2 is not looked at.
            for sl in 0..if ds { 8 } else { 4 } {
                let shape = |t0sz| {
                    let vtcr = Vtcr { tg0: tg0(granule), t0sz, sl, ds, ps };
                    Geometry::from_vtcr(vtcr.value(), features).ok().map(|geometry| (vtcr, geometry))
                };
                if let Some((vtcr, geometry)) = (12..=48).find_map(shape) {
                    each(vtcr, geometry);
                }
            }
        }
    }
}

/// Returns an address below `1 << bits` whose bits are mixed, so that each index of its path is another one.
pub(super) const fn mixed(bits: u8, shift: u32) -> u64 {
    0x000b_6d2c_95a3_7000 & ((1 << bits) - 1) & (u64::MAX << shift)
}
