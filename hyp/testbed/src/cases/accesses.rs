// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Loads, stores and fetches at EL1 and EL0: S2AP and XN, which AT cannot be asked for here, and the faults before them.

use super::registers::{full_ps, shapes};
use crate::compare::Compare;
use crate::mapping::{encode, leaf_type, map, AF, AP_SHIFT, ATTR_SHIFT, OPEN, OPEN_FWB, XN_SHIFT};
use crate::mmu::{Lower, Mmu, Stage2};
use crate::report::Group;
use s2dump_vmsa::fault::Access;
use s2dump_vmsa::{Geometry, Level};

/// Where in the target fetches go, and loads and stores, which must leave the instructions there.
pub(super) const FETCH_OFFSET: u64 = 0x40;
pub(super) const DATA_OFFSET: u64 = 0x800;

/// Runs the group.
pub(super) fn run<M: Mmu>(compare: &mut Compare<'_, M>) {
    compare.group = Group::Accesses;
    let cpu = compare.cpu;
    shapes(&cpu, full_ps(&cpu), |vtcr, geometry| {
        for fwb in [false, true].into_iter().filter(|fwb| !fwb || cpu.has_fwb()) {
            let settings = Stage2 { vtcr: vtcr.value(), vttbr: compare.arena.root(), fwb, dc: true };
            let mut level = Some(geometry.start_level());
            while let Some(at) = level {
                if geometry.is_block_level(at) || at.is_last() {
                    compare.case = ("access, VTCR_EL2", vtcr.value());
                    leaf(compare, &settings, &geometry, at);
                }
                level = at.child();
            }
        }
    });
}

/// All rights at one level.
fn leaf<M: Mmu>(compare: &mut Compare<'_, M>, settings: &Stage2, geometry: &Geometry, level: Level) {
    for index in 0..4 * 4 * 2 {
        let (ap, xn, af) = (index & 3, index >> 2 & 3, index >> 4);
        let rights = ap << AP_SHIFT | xn << XN_SHIFT | if af == 0 { AF } else { 0 };
        let span = 1 << geometry.granule().entry_shift(level);
        // The second entry of its table, so that the code has the first.
        let ia = span | compare.places.target & (span - 1);
        let oa = compare.places.target & !(span - 1);
        let attr = if settings.fwb { 0b0111 } else { 0b1111 };
        let raw = encode(geometry, oa) | rights | attr << ATTR_SHIFT | leaf_type(level);
        map(&mut compare.arena, geometry, settings.vttbr, ia, level, raw);
        let code = map_code(compare, settings, geometry, settings.vttbr, 0);
        all(compare, settings, code, ia);
        compare.arena.reset();
    }
}

/// Maps the code that does loads and stores into the page at `ia`; returns where it is then.
pub(super) fn map_code<M: Mmu>(
    compare: &mut Compare<'_, M>,
    settings: &Stage2,
    geometry: &Geometry,
    root: u64,
    ia: u64,
) -> u64 {
    let page_mask = (1 << geometry.granule().page_shift()) - 1;
    let code = compare.places.code;
    let open = if settings.fwb { OPEN_FWB } else { OPEN };
    let raw = encode(geometry, code & !page_mask) | open | 0b11;
    map(&mut compare.arena, geometry, root, ia, Level::L3, raw);
    ia | code & page_mask
}

/// Tries all accesses to the target mapped at `ia`.
pub(super) fn all<M: Mmu>(compare: &mut Compare<'_, M>, settings: &Stage2, code: u64, ia: u64) {
    for lower in [Lower::El1, Lower::El0] {
        compare.access(settings, lower, Access::Read, code, ia + DATA_OFFSET);
        compare.access(settings, lower, Access::Write, code, ia + DATA_OFFSET);
        compare.access(settings, lower, Access::Execute, code, ia + FETCH_OFFSET);
    }
}
