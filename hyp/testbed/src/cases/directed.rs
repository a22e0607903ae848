// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Stage 2, rule by rule: each bit of each kind of descriptor at each level, of the base register, and of the address.

use super::registers::{full_ps, mixed, shapes, Vtcr};
use crate::compare::Compare;
use crate::mapping::{encode, leaf_type, map, place, AF, ATTR_SHIFT, OPEN, OPEN_FWB};
use crate::mmu::{Mmu, Stage2};
use crate::report::Group;
use s2dump_vmsa::{Geometry, Level, RawDescriptor};

/// Runs the group.
pub(super) fn run<M: Mmu>(compare: &mut Compare<'_, M>) {
    compare.group = Group::Directed;
    let cpu = compare.cpu;
    for ps in 0..=full_ps(&cpu) {
        shapes(&cpu, ps, |vtcr, geometry| {
            compare.case = ("stage 2, VTCR_EL2", vtcr.value());
            let settings = Stage2 { vtcr: vtcr.value(), vttbr: compare.arena.root(), fwb: false, dc: true };
            let mut level = Some(geometry.start_level());
            while let Some(at) = level {
                leaf_bits(compare, &settings, &geometry, at);
                table_bits(compare, &settings, &geometry, at);
                level = at.child();
            }
            base_bits(compare, &settings, &geometry);
            addresses(compare, &settings, &geometry);
        });
    }
    shapes(&cpu, full_ps(&cpu), |vtcr, geometry| memory_types(compare, &vtcr, &geometry));
}

/// A leaf, and each of its bits turned over, of types 01 and 11; at upper levels 11 is a table, to which we come below.
fn leaf_bits<M: Mmu>(compare: &mut Compare<'_, M>, settings: &Stage2, geometry: &Geometry, level: Level) {
    let ia = mixed(geometry.ia_bits(), 12);
    let oa = mixed(geometry.pa_bits(), 0);
    let leaf = encode(geometry, oa) | OPEN;
    let types: &[u64] = if level.is_last() { &[0b01, 0b11] } else { &[0b01] };
    for raw in types.iter().flat_map(|kind| (2..65).map(move |bit| (leaf | kind) ^ 1_u64.checked_shl(bit).unwrap_or(0)))
    {
        map(&mut compare.arena, geometry, settings.vttbr, ia, level, raw);
        compare.at_s12_all(settings, ia);
        compare.arena.reset();
    }
    for raw in [leaf, leaf | 0b10, leaf & !AF | 0b10 | leaf_type(level)] {
        map(&mut compare.arena, geometry, settings.vttbr, ia, level, raw & !0b11 | raw & 0b10);
        compare.at_s12_all(settings, ia);
        compare.arena.reset();
    }
}

/// A table descriptor, and each of its bits turned over, as long as it is known what the MMU finds then.
fn table_bits<M: Mmu>(compare: &mut Compare<'_, M>, settings: &Stage2, geometry: &Geometry, level: Level) {
    if level.is_last() {
        return;
    }
    let ia = mixed(geometry.ia_bits(), 12);
    for bit in 2..64 {
        let leaf = encode(geometry, 0x5555_5000) | OPEN | 0b11;
        map(&mut compare.arena, geometry, settings.vttbr, ia, Level::L3, leaf);
        let place = place(&mut compare.arena, geometry, settings.vttbr, ia, level);
        let raw = compare.arena.read(place).unwrap_or(0) ^ 1 << bit;
        let next = RawDescriptor::from_bits(raw).next_table(geometry).get();
        if compare.arena.is_known(next) {
            compare.arena.write(place, raw);
            compare.at_s12_all(settings, ia);
        }
        compare.arena.reset();
    }
}

/// Each bit of VTTBR_EL2 turned over: base, VMID, CnP.
fn base_bits<M: Mmu>(compare: &mut Compare<'_, M>, settings: &Stage2, geometry: &Geometry) {
    let ia = mixed(geometry.ia_bits(), 12);
    for bit in 0..64 {
        let settings = Stage2 { vttbr: settings.vttbr ^ 1 << bit, ..*settings };
        let base = geometry.base(settings.vttbr).map_or(u64::MAX, |base| base.address.get());
        // The end counts too: a root may be a MiB.
        if compare.arena.is_known(base) && compare.arena.is_known(base + geometry.root_bytes() - 8) {
            let root = compare.arena.root();
            map(&mut compare.arena, geometry, root, ia, Level::L3, 0x3000_0000 | OPEN | 0b11);
            compare.at_s12_all(&settings, ia);
            compare.arena.reset();
        }
    }
}

/// Addresses at the ends of the space, and far behind.
fn addresses<M: Mmu>(compare: &mut Compare<'_, M>, settings: &Stage2, geometry: &Geometry) {
    let end = geometry.ia_end();
    map(&mut compare.arena, geometry, settings.vttbr, 0, Level::L3, 0x3000_0000 | OPEN | 0b11);
    map(&mut compare.arena, geometry, settings.vttbr, end - 1, Level::L3, 0x4000_0000 | OPEN | 0b11);
    for ia in [0, 0xfff, 0x1000, end - 0x1000, end - 1, end, end + 1, end | end >> 1] {
        compare.at_s12_all(settings, ia);
    }
    for bit in geometry.ia_bits()..52 {
        compare.at_s12_all(settings, 1 << bit);
    }
    compare.arena.reset();
}

/// All memory types with all shareabilities, and with LPA2 those of SH0, under both encodings.
fn memory_types<M: Mmu>(compare: &mut Compare<'_, M>, vtcr: &Vtcr, geometry: &Geometry) {
    let ia = mixed(geometry.ia_bits(), 12);
    let root = compare.arena.root();
    let cpu = compare.cpu;
    for fwb in [false, true].into_iter().filter(|fwb| !fwb || cpu.has_fwb()) {
        for index in 0..16 * 4 {
            let (attr, sh) = (index & 0xf, index >> 4);
            let shape = vtcr.value() & !(0b11 << 12) | sh << 12;
            compare.case = ("memory type and shareability", index);
            let settings = Stage2 { vtcr: shape, vttbr: root, fwb, dc: true };
            let sh = if geometry.is_lpa2() { 0 } else { sh << 8 };
            let open = if fwb { OPEN_FWB } else { OPEN } & !(0xf << ATTR_SHIFT);
            let leaf = 0x5555_0000 | open | attr << ATTR_SHIFT | sh | 0b11;
            map(&mut compare.arena, geometry, root, ia, Level::L3, leaf);
            compare.at_s12_all(&settings, ia);
            compare.arena.reset();
        }
    }
}
