// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Random descriptors along a path: most lead on, some end, some are spoiled.

use crate::arena::{Arena, PART_BYTES};
use crate::mapping::{encode, entry_at, leaf_type};
use crate::rng::Rng;
use s2dump_vmsa::{Geometry, RawDescriptor};

/// Of a hundred entries above level 3, how many are tables.
const TABLE_PERCENT: u64 = 82;
/// Of a hundred table descriptors, how many lead back to a table on the way.
const LOOP_PERCENT: u64 = 2;
/// Of a hundred table descriptors, how many have a wrong address bit.
const SPOILED_PERCENT: u64 = 4;

/// Returns an address: mostly inside the space.
pub(crate) fn address(geometry: Option<&Geometry>, rng: &mut Rng) -> u64 {
    let inside = geometry.map_or(1 << 30, Geometry::ia_end) - 1;
    let address = rng.bits();
    match rng.below(100) {
        0..=1 => address & ((1 << 52) - 1),
        2 => inside + 1,
        3..=5 => inside & !(address & 0xffff_ffff),
        6..=8 => inside & address & 0xff_ffff,
        _ => inside & address,
    }
}

/// Writes a random path to `ia` below the root at `root`; leaves what earlier ones wrote, mostly.
pub(crate) fn path(arena: &mut Arena<'_>, geometry: &Geometry, root: u64, ia: u64, rng: &mut Rng) {
    let (mut table, mut level, mut is_root) = (root, geometry.start_level(), true);
    if ia >= geometry.ia_end() {
        return;
    }
    loop {
        let place = entry_at(geometry, table, level, ia, is_root);
        if !arena.is_written(place) || rng.percent(10) {
            let is_table = !level.is_last() && rng.percent(TABLE_PERCENT);
            let raw = if is_table {
                any_table(arena, geometry, root, table, rng)
            } else {
                any_end(geometry, leaf_type(level), rng)
            };
            arena.write(place, raw);
        }
        let raw = arena.read(place).unwrap_or(0);
        let next = RawDescriptor::from_bits(raw).next_table(geometry).get();
        match level.child() {
            Some(child) if raw & 0b11 == 0b11 && arena.read(next).is_some() => level = child,
            _ => return,
        }
        table = next;
        is_root = false;
    }
}

/// Returns a table descriptor, so that it is known what the MMU finds there.
fn any_table(arena: &mut Arena<'_>, geometry: &Geometry, root: u64, table: u64, rng: &mut Rng) -> u64 {
    let page = 1 << geometry.granule().page_shift();
    let next = match rng.below(100) {
        0..LOOP_PERCENT => rng.pick(&[root, table]) & !(page - 1),
        10..30 => {
            let root = arena.high_root(geometry.pa_bits()).filter(|_| rng.percent(50)).unwrap_or(arena.root());
            root + PART_BYTES + rng.below(PART_BYTES / page) * page
        }
        _ => arena.allocate(geometry),
    };
    let address = geometry.low_address_mask(s2dump_vmsa::Level::L3) | geometry.high_address_mask();
    let ignored = if rng.percent(30) { rng.bits() & !(address | 0b11) } else { 0 };
    let raw = encode(geometry, next) | ignored | 0b11;
    let high = geometry.high_address_mask().trailing_zeros().min(50);
    let spoiled = raw ^ 1 << if rng.percent(50) { 32 + rng.below(20) } else { u64::from(high) };
    let there = RawDescriptor::from_bits(spoiled).next_table(geometry).get();
    if rng.percent(SPOILED_PERCENT) && arena.is_known(there) {
        spoiled
    } else {
        raw
    }
}

/// Returns a descriptor that ends a walk: of `kind`, with any fields, or none.
fn any_end(geometry: &Geometry, kind: u64, rng: &mut Rng) -> u64 {
    let bits = if rng.percent(85) { geometry.pa_bits() } else { 52 };
    let address = encode(geometry, rng.bits() & ((1 << bits) - 1));
    let fields = rng.bits() & !(geometry.low_address_mask(s2dump_vmsa::Level::L3) | geometry.high_address_mask());
    let raw = address | fields & !0b11;
    let raw = if rng.percent(85) { raw | 1 << 10 } else { raw };
    let raw = if rng.percent(70) { raw | 0b11 << 6 } else { raw };
    // With FWB, MemAttr[3] makes most types reserved.
    let raw = if rng.percent(50) { raw & !(1 << 5) } else { raw };
    match rng.below(100) {
        0..=5 => raw & !1,
        6..=9 => raw | (kind ^ 0b10) & 0b01,
        _ => raw | kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::{HIGH_WORDS, WORDS};
    use crate::cpu::Cpu;
    use crate::mmu::Stage2;
    use crate::prediction;
    use core::sync::atomic::AtomicU64;
    use s2dump_vmsa::fault::{Access, Privilege};
    use s2dump_vmsa::Features;
    use std::vec::Vec;

    /// 4 KiB pages with LPA2, from level 0: 48 bits in, 52 out, or (PS) fewer.
    const VTCR: u64 = 16 | 2 << 6 | 6 << 16 | 1 << 32;
    const VTCR_PS_48: u64 = 16 | 2 << 6 | 5 << 16 | 1 << 32;
    const CPU: Cpu = Cpu { mmfr0: 6 | 3 << 40, mmfr1: 0, mmfr2: 0 };

    fn words(count: usize) -> Vec<AtomicU64> {
        (0..count).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn good_most_walks_are_deep_and_some_fail() {
        let (low, high) = (words(WORDS), words(HIGH_WORDS));
        let mut arena = Arena::new(0x4010_0000, (0x4000_0000, 0x4400_0000), &low, Some((0xd << 48, &high)));
        let features = Features { lpa2: true, pa_max_bits: 52, ..Features::NONE };
        let geometry = Geometry::from_vtcr(VTCR, features).expect("a legal setting");
        let settings = Stage2 { vtcr: VTCR, vttbr: arena.root(), fwb: false, dc: true };
        let (mut deep, mut mapped) = (0, 0);
        for case in 0..1_000 {
            let mut rng = Rng::of_case(1, case);
            let ia = rng.bits() & (geometry.ia_end() - 1);
            let root = arena.root();
            path(&mut arena, &geometry, root, ia, &mut rng);
            let (access, who) = (Access::Read, Privilege::Privileged);
            let prediction = prediction::stage2(&mut arena, &CPU, &settings, access, who, ia);
            let levels = prediction.ours.path.map_or(0, |path| path.entries().count());
            deep += usize::from(levels == 4);
            let answer = prediction.ours.answer;
            mapped += usize::from(matches!(answer, crate::answer::Answer::Is(crate::par::Outcome::Mapped { .. })));
            arena.reset();
        }
        assert!((300..800).contains(&deep) && (300..800).contains(&mapped), "{deep} {mapped}");
    }

    #[test]
    fn good_predicting_changes_no_table() {
        let low = words(WORDS);
        let mut arena = Arena::new(0x4010_0000, (0x4000_0000, 0x4400_0000), &low, None);
        let features = Features { lpa2: true, pa_max_bits: 52, ..Features::NONE };
        let geometry = Geometry::from_vtcr(VTCR_PS_48, features).expect("a legal setting");
        let settings = Stage2 { vtcr: VTCR_PS_48, vttbr: arena.root(), fwb: false, dc: true };
        // Bits 9:8 of both, which QEMU drops.
        let root = arena.root();
        let table = crate::mapping::place(&mut arena, &geometry, root, 0, s2dump_vmsa::Level::L2);
        let leaf = crate::mapping::map(&mut arena, &geometry, root, 0, s2dump_vmsa::Level::L3, 0x5000_0703);
        arena.write(table, arena.read(table).unwrap_or(0) | 1 << 8);
        let before = [table, leaf].map(|place| arena.read(place));
        let prediction = prediction::stage2(&mut arena, &CPU, &settings, Access::Read, Privilege::Privileged, 0);
        assert!(matches!(prediction.qemu, Some((crate::divergence::Divergence::HighBits, _))), "{prediction:?}");
        assert_eq!([table, leaf].map(|place| arena.read(place)), before);
    }
}
