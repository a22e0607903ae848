// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Divergences that no other group meets on its way.

use super::registers::{full_ps, shapes};
use crate::compare::Compare;
use crate::cpu::Stage;
use crate::divergence::Divergence;
use crate::mapping::{map, AF, AP_SHIFT, ATTR_SHIFT};
use crate::mmu::{Mmu, Stage2};
use crate::report::Group;
use s2dump_vmsa::{Granule, Level};

const HA: u64 = 1 << 21;
const HD: u64 = 1 << 22;
const DBM: u64 = 1 << 51;

/// Runs the group.
pub(super) fn run<M: Mmu>(compare: &mut Compare<'_, M>) {
    compare.group = Group::Directed;
    let cpu = compare.cpu;
    let features = cpu.features(Stage::Two, Granule::Size4K, false);
    if features.ha {
        written(compare, HA, 0b11 << AP_SHIFT, Divergence::AtSetsAf);
    }
    if features.hd {
        written(compare, HA | HD, AF | DBM | 0b01 << AP_SHIFT, Divergence::AtWritesDirty);
    }
}

/// Sees that AT, of a store, writes to a leaf with `bits` when VTCR_EL2 has `updates`.
fn written<M: Mmu>(compare: &mut Compare<'_, M>, updates: u64, bits: u64, divergence: Divergence) {
    let (cpu, root) = (compare.cpu, compare.arena.root());
    shapes(&cpu, full_ps(&cpu), |vtcr, geometry| {
        compare.case = ("AT that writes, VTCR_EL2", vtcr.value() | updates);
        let settings = Stage2 { vtcr: vtcr.value() | updates, vttbr: root, fwb: false, dc: true };
        let leaf = 0x5555_0000 | bits | 0xf << ATTR_SHIFT | 0b11;
        let place = map(&mut compare.arena, &geometry, root, 0, Level::L3, leaf);
        compare.at_s12(&settings, true, 0);
        if compare.arena.read(place) == Some(leaf) {
            compare.gone(divergence);
        } else {
            compare.report.diverged(divergence);
        }
        compare.arena.reset();
    });
}

/// What QEMU does not survive: see [`Divergence::AtPermissionAborts`].
pub(super) fn denied<M: Mmu>(compare: &mut Compare<'_, M>) {
    let (cpu, root) = (compare.cpu, compare.arena.root());
    shapes(&cpu, full_ps(&cpu), |vtcr, geometry| {
        compare.case = ("AT without S2AP, VTCR_EL2", vtcr.value());
        let settings = Stage2 { vtcr: vtcr.value(), vttbr: root, fwb: false, dc: true };
        map(&mut compare.arena, &geometry, root, 0, Level::L3, 0x5555_0000 | AF | 0xf << ATTR_SHIFT | 0b11);
        compare.at_s12_denied(&settings, 0);
        compare.arena.reset();
    });
}
