// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! EL2's stage 1, rule by rule, with E2H clear and set: each bit of each kind of descriptor, rights with those of tables
//! above, memory types; and fetches, which AT does not tell about.
//!
//! Not put to the MMU: what EL0 may do under EL2&0 (`AP[1]`, UXN, `APTable[0]`, WXN of EL0), which no instruction of EL2
//! asks without the host's E2H and TGE. That part of the decoder is only reasoned.

use super::registers::{full_ps, mixed, tg0, Tcr, GRANULES};
use crate::compare::Compare;
use crate::cpu::{Cpu, Stage};
use crate::mapping::{encode, leaf_type, map, place, AF, AP_SHIFT, XN_SHIFT};
use crate::mmu::{El2, Mmu};
use crate::report::Group;
use s2dump_vmsa::{Geometry, Granule, Level, RawDescriptor};

/// One of each kind: as Device, non-cacheable, write-through and write-back.
const MAIR: u64 = 0xff_bb_44_0c_08_04_00_ff;

/// TCR_EL2 with E2H: TTBR0_EL2 is not walked.
const EPD0: u64 = 1 << 7;

/// Runs the group.
pub(super) fn run<M: Mmu>(compare: &mut Compare<'_, M>) {
    compare.group = Group::El2;
    let cpu = compare.cpu;
    for ps in [full_ps(&cpu), 5, 2, 0] {
        shapes(&cpu, ps, false, |tcr, geometry| {
            compare.case = ("EL2, TCR_EL2", tcr.value());
            let settings = El2 { tcr: tcr.value(), ttbr0: compare.arena.root(), mair: MAIR, e2h: tcr.e2h, wxn: false };
            let mut level = Some(geometry.start_level());
            while let Some(at) = level {
                leaf_bits(compare, &settings, &geometry, at);
                table_bits(compare, &settings, &geometry, at);
                level = at.child();
            }
            base_bits(compare, &settings, &geometry);
            if tcr.e2h {
                let mirror = compare.arena.mirror();
                compare.at_s1e2(&El2 { tcr: tcr.value() | EPD0, ttbr0: mirror, ..settings }, 0);
            }
        });
    }
    for hpd in [false, true] {
        shapes(&cpu, full_ps(&cpu), hpd, |tcr, geometry| {
            compare.case = ("EL2 rights, TCR_EL2", tcr.value());
            let settings = El2 { tcr: tcr.value(), ttbr0: compare.arena.root(), mair: MAIR, e2h: tcr.e2h, wxn: false };
            rights(compare, &settings, &geometry);
        });
    }
}

/// Calls `each` with the largest space of each implemented granule, format and regime.
fn shapes(cpu: &Cpu, ps: u64, hpd: bool, mut each: impl FnMut(Tcr, Geometry)) {
    for granule in GRANULES.into_iter().filter(|granule| cpu.has_granule(Stage::One, *granule)) {
        let features = cpu.features(Stage::One, granule, false);
        for ds in [false, true].into_iter().filter(|ds| !ds || features.lpa2 && granule != Granule::Size64K) {
            for e2h in [false, true].into_iter().filter(|e2h| !e2h || cpu.has_vhe()) {
                let tcr = |t0sz| Tcr { tg0: tg0(granule), t0sz, ds, ps, hpd, e2h };
                let shape = |t0sz| Some((tcr(t0sz), Geometry::from_tcr_el2(tcr(t0sz).value(), e2h, features).ok()?));
                if let Some((tcr, geometry)) = (12..=39).find_map(shape) {
                    each(tcr, geometry);
                }
            }
        }
    }
}

fn leaf_bits<M: Mmu>(compare: &mut Compare<'_, M>, settings: &El2, geometry: &Geometry, level: Level) {
    let va = mixed(geometry.ia_bits(), 12);
    let leaf = encode(geometry, mixed(geometry.pa_bits(), 0)) | AF | 0b01 << AP_SHIFT | leaf_type(level);
    for bit in 1..65 {
        let raw = leaf ^ 1_u64.checked_shl(bit).unwrap_or(0);
        if raw & 0b11 == 0b11 && !level.is_last() {
            continue; // A table: see below.
        }
        map(&mut compare.arena, geometry, settings.ttbr0, va, level, raw);
        compare.at_s1e2(settings, va);
        compare.arena.reset();
    }
}

fn table_bits<M: Mmu>(compare: &mut Compare<'_, M>, settings: &El2, geometry: &Geometry, level: Level) {
    if level.is_last() {
        return;
    }
    let va = mixed(geometry.ia_bits(), 12);
    for bit in 2..64 {
        let leaf = encode(geometry, 0x5555_5000) | AF | 0b01 << AP_SHIFT | 0b11;
        map(&mut compare.arena, geometry, settings.ttbr0, va, Level::L3, leaf);
        let place = place(&mut compare.arena, geometry, settings.ttbr0, va, level);
        let raw = compare.arena.read(place).unwrap_or(0) ^ 1 << bit;
        if compare.arena.is_known(RawDescriptor::from_bits(raw).next_table(geometry).get()) {
            compare.arena.write(place, raw);
            compare.at_s1e2(settings, va);
        }
        compare.arena.reset();
    }
}

fn base_bits<M: Mmu>(compare: &mut Compare<'_, M>, settings: &El2, geometry: &Geometry) {
    let va = mixed(geometry.ia_bits(), 12);
    for bit in 0..64 {
        let settings = El2 { ttbr0: settings.ttbr0 ^ 1 << bit, ..*settings };
        let base = geometry.base(settings.ttbr0).map_or(u64::MAX, |base| base.address.get());
        if compare.arena.is_known(base) && compare.arena.is_known(base + geometry.root_bytes() - 8) {
            let root = compare.arena.root();
            map(&mut compare.arena, geometry, root, va, Level::L3, 0x3000_0000 | AF | 0b01 << AP_SHIFT | 0b11);
            compare.at_s1e2(&settings, va);
            compare.arena.reset();
        }
    }
}

/// All rights of a page, under a table that says each of the five things or nothing: by AT, and fetched at EL2.
fn rights<M: Mmu>(compare: &mut Compare<'_, M>, settings: &El2, geometry: &Geometry) {
    for index in 0..4 * 4 * 6 * 2 {
        let (ap, xn, said, wxn) = (index & 3, index >> 2 & 3, index >> 4 & 7, index >> 7 != 0);
        if said > 5 {
            continue;
        }
        let settings = El2 { wxn, ..*settings };
        let root = settings.ttbr0;
        // Two entries of the root, so that nothing above the page is above the vectors.
        let vectors = 1 << geometry.granule().entry_shift(geometry.start_level());
        let va = mixed(geometry.ia_bits(), 16) & (vectors - 1);
        let page = |oa| encode(geometry, oa) | AF | 0b11;
        let raw = page(compare.places.el2_target) | ap << AP_SHIFT | xn << XN_SHIFT;
        map(&mut compare.arena, geometry, root, va, Level::L3, raw);
        let above = place(&mut compare.arena, geometry, root, va, geometry.start_level());
        let table = compare.arena.read(above).unwrap_or(0) | if said < 5 { 1 << (59 + said) } else { 0 };
        compare.arena.write(above, table);
        // Read-only, so that WXN lets them run; without E2H AP[1] should be set.
        let read_only = if settings.e2h { 0b10 } else { 0b11 } << AP_SHIFT;
        map(&mut compare.arena, geometry, root, vectors, Level::L3, page(compare.places.el2_vectors) | read_only);
        compare.group = Group::El2;
        compare.at_s1e2(&settings, va);
        compare.group = Group::El2Fetches;
        compare.fetch_el2(&settings, va, vectors);
        compare.group = Group::El2;
        compare.arena.reset();
    }
}
