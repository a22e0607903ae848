// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Divergences that no other group meets on its way.

use super::registers::{full_ps, shapes};
use crate::compare::Compare;
use crate::cpu::Stage;
use crate::divergence::Divergence;
use crate::mmu::{Mmu, Stage2};
use crate::report::Group;
use crate::tables::{map, AF, AP_SHIFT, ATTR_SHIFT};
use s2dump_vmsa::{Granule, Level};

const HA_HD: u64 = 0b11 << 21;
const DBM: u64 = 1 << 51;

/// Runs the group.
pub(super) fn run<M: Mmu>(compare: &mut Compare<'_, M>) {
    compare.group = Group::Directed;
    let cpu = compare.cpu;
    if !cpu.features(Stage::Two, Granule::Size4K, false).hd {
        return;
    }
    let root = compare.arena.root();
    shapes(&cpu, full_ps(&cpu), |vtcr, geometry| {
        compare.case = ("dirty state, VTCR_EL2", vtcr.value() | HA_HD);
        let settings = Stage2 { vtcr: vtcr.value() | HA_HD, vttbr: root, fwb: false, dc: true };
        let leaf = 0x5555_0000 | AF | DBM | 0b01 << AP_SHIFT | 0xf << ATTR_SHIFT | 0b11;
        let place = map(&mut compare.arena, &geometry, root, 0, Level::L3, leaf);
        compare.at_s12(&settings, true, 0);
        if compare.arena.read(place) == Some(leaf) {
            compare.gone(Divergence::AtWritesDirty);
        } else {
            compare.report.diverged(Divergence::AtWritesDirty);
        }
        compare.arena.reset();
    });
}
