// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Every setting of TG0, SL2:SL0, T0SZ and DS; at EL2 of TG0, T0SZ, DS and E2H.
//!
//! A legal one must find pages at both ends and in the middle of its space and nothing behind it. An illegal one must find
//! nothing in tables that map everything to whoever reads them.

use super::registers::{full_ps, mixed, Tcr, Vtcr};
use crate::compare::Compare;
use crate::cpu::{Cpu, Stage};
use crate::mapping::{leaf_type, map, OPEN};
use crate::mmu::{El2, Mmu, Stage2};
use crate::report::Group;
use s2dump_vmsa::{Features, Geometry, Granule, Level};

/// Runs the group.
pub(super) fn run<M: Mmu>(compare: &mut Compare<'_, M>) {
    compare.group = Group::Settings;
    let cpu = compare.cpu;
    for index in 0..4 * 8 * 64 * 2 {
        let vtcr = Vtcr {
            tg0: index & 3,
            sl: index >> 2 & 7,
            t0sz: index >> 5 & 63,
            ds: index >> 11 & 1 != 0,
            ps: full_ps(&cpu),
        };
        compare.case = ("VTCR_EL2 setting", index);
        stage2(compare, vtcr.value(), features(&cpu, Stage::Two, vtcr.tg0));
    }
    for index in 0..4 * 64 * 2 * 2 {
        let e2h = index >> 9 & 1 != 0;
        if e2h && !cpu.has_vhe() {
            continue;
        }
        let (tg0, t0sz, ds) = (index & 3, index >> 2 & 63, index >> 8 & 1 != 0);
        let tcr = Tcr { tg0, t0sz, ds, ps: full_ps(&cpu), hpd: false, e2h };
        compare.case = ("TCR_EL2 setting", index);
        el2(compare, &tcr, features(&cpu, Stage::One, tg0));
    }
}

/// Returns the features, or `None` if we know no granule by this number, or the CPU has not got it.
fn features(cpu: &Cpu, stage: Stage, tg0: u64) -> Option<Features> {
    let granule = Granule::from_tg0(tg0).filter(|granule| cpu.has_granule(stage, *granule))?;
    Some(cpu.features(stage, granule, false))
}

fn stage2<M: Mmu>(compare: &mut Compare<'_, M>, vtcr: u64, features: Option<Features>) {
    let root = compare.arena.root();
    let settings = |vttbr| Stage2 { vtcr, vttbr, fwb: false, dc: true };
    if let Some(geometry) = features.and_then(|features| Geometry::from_vtcr(vtcr, features).ok()) {
        let bits = geometry.ia_bits();
        let page = geometry.granule().page_shift();
        let last = geometry.ia_end() - (1 << page);
        for (ia, oa) in [(0, 1), (last, 2), (mixed(bits, page), 3)] {
            let leaf = oa << 28 | OPEN | leaf_type(Level::L3);
            map(&mut compare.arena, &geometry, root, ia, Level::L3, leaf);
        }
        for ia in [0, last, mixed(bits, page), geometry.ia_end()] {
            compare.at_s12(&settings(root), false, ia);
        }
        compare.arena.reset();
    }
    // Legal or not: an illegal one must not reach the first descriptor.
    let mirror = compare.arena.mirror();
    compare.at_s12(&settings(mirror), false, 0);
}

fn el2<M: Mmu>(compare: &mut Compare<'_, M>, tcr: &Tcr, features: Option<Features>) {
    let root = compare.arena.root();
    let settings = |ttbr0| El2 { tcr: tcr.value(), ttbr0, mair: 0xff << 56 | 0xff, e2h: tcr.e2h, wxn: false };
    let geometry = features.and_then(|features| Geometry::from_tcr_el2(tcr.value(), tcr.e2h, features).ok());
    if let Some(geometry) = geometry {
        let bits = geometry.ia_bits();
        let page = geometry.granule().page_shift();
        let last = geometry.ia_end() - (1 << page);
        for (va, oa) in [(0, 1), (last, 2), (mixed(bits, page), 3)] {
            let leaf = oa << 28 | 1 << 10 | 1 << 6 | leaf_type(Level::L3);
            map(&mut compare.arena, &geometry, root, va, Level::L3, leaf);
        }
        for va in [0, last, mixed(bits, page), geometry.ia_end()] {
            compare.at_s1e2(&settings(root), va);
        }
        compare.arena.reset();
    }
    let mirror = compare.arena.mirror();
    compare.at_s1e2(&settings(mirror), 0);
}
