// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Random settings, tables and addresses. Each case comes from the seed and its number alone.

use super::registers::{full_ps, tg0, Tcr, Vtcr, GRANULES};
use super::Choice;
use crate::compare::Compare;
use crate::cpu::{Cpu, Stage};
use crate::mapping::{encode, encode_base, leaf_type, map, AF, AP_SHIFT, ATTR_SHIFT, XN_SHIFT};
use crate::mmu::{El2, Mmu, Stage2};
use crate::random_tables::{address, path};
use crate::report::Group;
use crate::rng::Rng;
use s2dump_vmsa::{Geometry, Granule, Level};

/// Paths a table has at most.
const MAX_PATHS: u64 = 3;
/// Of a hundred cases, how many have settings that may be illegal.
const WILD_PERCENT: u64 = 5;

/// Runs the group.
pub(super) fn run<M: Mmu>(compare: &mut Compare<'_, M>, choice: &Choice) {
    let numbers = choice.only.map_or(0..choice.count, |only| only..only + 1);
    for number in numbers {
        let mut rng = Rng::of_case(choice.seed, number);
        compare.case = ("random case, to be had again with --case", u64::from(number));
        compare.group = Group::Random;
        stage2(compare, &mut rng);
        compare.arena.reset();
        if number % 4 == 0 {
            compare.group = Group::El2Random;
            el2(compare, &mut rng);
            compare.arena.reset();
        }
        if number % 8 == 0 {
            compare.group = Group::Accesses;
            accesses(compare, &mut rng);
            compare.arena.reset();
        }
    }
}

/// Returns TG0: mostly of a granule that is there.
fn any_tg0(cpu: &Cpu, stage: Stage, rng: &mut Rng) -> u64 {
    if rng.percent(WILD_PERCENT) {
        return rng.below(4);
    }
    loop {
        let granule = rng.pick(&GRANULES);
        if cpu.has_granule(stage, granule) {
            return tg0(granule);
        }
    }
}

/// Returns a value of VTCR_EL2, and what it means if it is legal.
fn any_vtcr(cpu: &Cpu, rng: &mut Rng) -> (u64, Option<Geometry>) {
    let tg0 = any_tg0(cpu, Stage::Two, rng);
    // All that changes no result: IRGN0, ORGN0, VS, HA, HD, HWU, NSW, NSA, and fields of features that are absent.
    let ignored = 0b1111 << 8 | 1 << 19 | 0b11 << 21 | 0b111_1111 << 25 | 0b1111 << 34 | 0b11 << 39 | 0b11 << 44;
    let other = 1 << 31 | rng.bits() & (ignored | 0b11 << 12);
    let ps = if rng.percent(60) { full_ps(cpu) } else { rng.below(8) };
    let features = cpu.features(Stage::Two, Granule::from_tg0(tg0).unwrap_or(Granule::Size4K), false);
    for _ in 0..if rng.percent(WILD_PERCENT) { 1 } else { 200 } {
        let fields = Vtcr { tg0, t0sz: rng.below(64), sl: rng.below(8), ds: rng.percent(50), ps };
        let vtcr = fields.value() & !(0b11 << 12 | 0b1111 << 8) | other;
        if let Ok(geometry) = Geometry::from_vtcr(vtcr, features) {
            let is_there = Granule::from_tg0(tg0).is_some_and(|granule| cpu.has_granule(Stage::Two, granule));
            return (vtcr, is_there.then_some(geometry));
        }
    }
    (Vtcr { tg0, t0sz: rng.below(64), sl: rng.below(8), ds: rng.percent(50), ps }.value() | other, None)
}

/// Returns a root that suits `geometry`, in one of the arena's parts for roots.
fn any_root<M: Mmu>(compare: &Compare<'_, M>, geometry: &Geometry, rng: &mut Rng) -> u64 {
    let align = geometry.root_bytes().max(64);
    let high = compare.arena.high_root(geometry.pa_bits()).filter(|_| rng.percent(50));
    high.unwrap_or(compare.arena.root()) + rng.below(crate::arena::PART_BYTES / align) * align
}

/// Returns what else VTTBR_EL2 may hold: VMID and CnP, and seldom bits that are too low for an address.
fn vttbr_extra(geometry: &Geometry, rng: &mut Rng) -> u64 {
    let extra = rng.bits() & (0xffff << 48 | 1);
    let is_wide = geometry.is_lpa2() || geometry.granule() == Granule::Size64K;
    if is_wide || rng.percent(90) {
        extra
    } else {
        extra | rng.bits() & (geometry.root_bytes() - 1)
    }
}

fn stage2<M: Mmu>(compare: &mut Compare<'_, M>, rng: &mut Rng) {
    let (vtcr, geometry) = any_vtcr(&compare.cpu, rng);
    let fwb = compare.cpu.has_fwb() && rng.percent(50);
    let Some(geometry) = geometry else {
        let settings = Stage2 { vtcr, vttbr: compare.arena.mirror(), fwb, dc: true };
        return compare.at_s12_all(&settings, address(None, rng));
    };
    let root = any_root(compare, &geometry, rng);
    let settings = Stage2 { vtcr, vttbr: encode_base(root) | vttbr_extra(&geometry, rng), fwb, dc: true };
    let mut ia = address(Some(&geometry), rng);
    for _ in 0..=rng.below(MAX_PATHS) {
        path(&mut compare.arena, &geometry, root, ia, rng);
        compare.at_s12_all(&settings, ia);
        // A neighbor: most of its path is the same.
        ia ^= 1 << rng.below(u64::from(geometry.ia_bits()));
        if rng.percent(30) {
            compare.at_s12_all(&settings, ia);
        }
    }
    if rng.percent(25) && ia < geometry.ia_end() {
        super::ranges::over_an_edge(compare, &settings, &geometry, ia, rng);
    }
}

fn el2<M: Mmu>(compare: &mut Compare<'_, M>, rng: &mut Rng) {
    let cpu = compare.cpu;
    let e2h = cpu.has_vhe() && rng.percent(50);
    let tg0 = any_tg0(&cpu, Stage::One, rng);
    let granule = Granule::from_tg0(tg0).filter(|granule| cpu.has_granule(Stage::One, *granule));
    let ps = if rng.percent(60) { full_ps(&cpu) } else { rng.below(8) };
    let t0sz = if rng.percent(WILD_PERCENT) { rng.below(64) } else { 12 + rng.below(28) };
    let tcr = Tcr { tg0, t0sz, ds: rng.percent(50), ps, hpd: rng.percent(20), e2h }.value();
    // MAIR of any types that QEMU shows as they are.
    let types = [0x00, 0x04, 0x08, 0x0c, 0x44, 0xbb, 0xff, 0xf4];
    let mair = (0..8).fold(0, |mair, _| mair << 8 | rng.pick(&types));
    let settings = |ttbr0| El2 { tcr, ttbr0, mair, e2h, wxn: false };
    let features = granule.map(|granule| cpu.features(Stage::One, granule, false));
    let geometry = features.and_then(|features| Geometry::from_tcr_el2(tcr, e2h, features).ok());
    let Some(geometry) = geometry else {
        return compare.at_s1e2(&settings(compare.arena.mirror()), address(None, rng) & ((1 << 52) - 1));
    };
    let root = any_root(compare, &geometry, rng);
    let settings = settings(encode_base(root) | rng.bits() & 1);
    let mut va = address(Some(&geometry), rng);
    for _ in 0..=rng.below(MAX_PATHS) {
        path(&mut compare.arena, &geometry, root, va, rng);
        compare.at_s1e2(&settings, va);
        va ^= 1 << rng.below(u64::from(geometry.ia_bits()));
    }
}

/// Random rights at a random place, tried by what they are for.
fn accesses<M: Mmu>(compare: &mut Compare<'_, M>, rng: &mut Rng) {
    let (vtcr, Some(geometry)) = any_vtcr(&compare.cpu, rng) else { return };
    let fwb = compare.cpu.has_fwb() && rng.percent(50);
    // Not where QEMU takes small roots to be elsewhere: the code must be mapped.
    let root = if geometry.root_bytes() < 64 { compare.arena.root() } else { any_root(compare, &geometry, rng) };
    let settings = Stage2 { vtcr, vttbr: encode_base(root), fwb, dc: true };
    let page = geometry.granule().page_shift();
    let (target, code) = (address(Some(&geometry), rng), address(Some(&geometry), rng));
    let (target, code) = (target & !((1 << page) - 1), code & !((1 << page) - 1));
    // Both must be there for stage 1, which is off, and neither in place of the other.
    if target == code || target.max(code) >= geometry.ia_end() {
        return;
    }
    let attr = if fwb { 0b0111 } else { 0b1111 };
    let rights = rng.below(4) << AP_SHIFT | rng.below(4) << XN_SHIFT | if rng.percent(90) { AF } else { 0 };
    let other = rng.bits() & (0xff << 55 | 1 << 51 | 1 << 11);
    let raw = encode(&geometry, compare.places.target) | rights | other | attr << ATTR_SHIFT | leaf_type(Level::L3);
    map(&mut compare.arena, &geometry, root, target, Level::L3, raw);
    let code = super::accesses::map_code(compare, &settings, &geometry, root, code);
    super::accesses::all(compare, &settings, code, target);
}
