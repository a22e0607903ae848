// SPDX-License-Identifier: MIT OR Apache-2.0
//! A small machine: the host's table, EL2's in each form, frames and facts, as pKVM makes them.

use super::*;

/// An entry of the host's: given to a guest, which has the page at `gfn`.
pub fn given_to(handle: u64, gfn: u64) -> u64 {
    2 << 60 | gfn << 20 | handle << 4 | 2 << 1
}

/// An entry of the host's: given to the hypervisor.
pub const GIVEN_TO_HYP: u64 = 2 << 60 | 1 << 1;

/// The first pages that s2dump shares with EL2: two that the host maps as pages, and one in a block.
pub const RING: [(u64, u64); 2] = [(0x4021_0000, 0x2000), (0x4060_3000, 0x1000)];

/// What EL2 adds to addresses of its linear map.
pub const LINEAR: u64 = 0_u64.wrapping_sub(0x8000_0000_0000);

/// A 40-bit identity map with pages that were given away, an owner and an entry that should not be there.
pub fn host_table() -> Vec<Record> {
    let at = |page: u64| 0x4020_0000 + page * 0x1000;
    let given = |page, handle, gfn| annotated(at(page), 3, 1, given_to(handle, gfn));
    let mut table = vec![hole(0, 1, 1), leaves(0x4000_0000, 2, 1, 0x4000_0000, BLOCK)];
    table.extend((0..8).map(|page| given(page, 0x1000, 0x8_0000 + page)));
    table.extend([
        given(8, 0x1000, 0x8_0100),
        given(9, 0x1000, 0x8_0101),
        given(10, 0x1001, 0x8_0102),
        annotated(at(11), 3, 3, GIVEN_TO_HYP),
        leaves(at(14), 3, 18, at(14), PAGE),
        annotated(at(32), 3, 1, 2 << 60 | 7 << 4 | 5 << 1),
        annotated(at(33), 3, 1, 1 << 60),
        leaves(at(34), 3, 2, at(34), PAGE & !(1 << 7) | XN),
        annotated(at(36), 3, 2, given_to(0x1000, 0x9_0000)),
        hole(at(38), 3, 512 - 38),
        leaves(0x4040_0000, 2, 2, 0x4040_0000, BLOCK),
        hole(0x4080_0000, 2, 508),
        hole(0x8000_0000, 1, 1022),
    ]);
    table
}

/// The header of a dump of the host.
pub fn host_header() -> SlotHeader {
    SlotHeader { flags: slot_flags::EXACT, target: Target::HOST.0, vmid: 0, ..dump_header(0x1000, VTCR_40) }
}

/// MAIR_EL2 as Linux has it: normal, tagged, non-cacheable, two kinds of devices.
pub const MAIR: u64 = 0x04_0044_f0ff;

/// What all leaves of EL2's have: AF, inner shareable.
const HYP_LEAF: u64 = 1 << 10 | 3 << 8 | 0b11;

/// The header of a dump of EL2's table with 48 bits, with HCR_EL2.E2H or without.
pub fn hyp_header(e2h: bool) -> SlotHeader {
    SlotHeader {
        flags: slot_flags::EXACT,
        target: Target::HYP.0,
        end: 1 << 48,
        vtcr: if e2h { 5 << 32 } else { 5 << 16 } | 3 << 12 | 1 << 10 | 1 << 8 | 16,
        mair: MAIR,
        root: 0x4200_0000,
        table_features: if e2h { table_features::HVHE } else { 0 },
        ia_bits: 48,
        pa_bits: 48,
        page_shift: 12,
        encoding: encoding::PKVM_7_2,
        budget: 4096,
        visited: 3000,
        ..slot_header(SlotKind::RANGES)
    }
}

/// EL2's table in the form of [`hyp_header`]: a linear map with code, constants, data and a page of the ring; a device, two
/// slots of the fixmap (one idle), stacks, an idle slot for blocks.
pub fn hyp_table(e2h: bool) -> Vec<Record> {
    let (rw, ro, no_execute) = if e2h { (0, 2 << 6, 3 << 53) } else { (1 << 6, 3 << 6, 1 << 54) };
    let text = HYP_LEAF | ro | if e2h { 1 << 54 } else { 0 } | 1 << 50;
    let (data, constants) = (HYP_LEAF | rw | no_execute, HYP_LEAF | ro | no_execute);
    let idle = |raw: u64| raw & !1;
    let (linear, private) = (0x8000_4000_0000, 0x8080_0000_0000);
    vec![
        hole(0, 0, 256),
        hole(0x8000_0000_0000, 1, 1),
        leaves(linear, 3, 4, 0x4000_0000, text),
        leaves(linear + 0x4000, 3, 4, 0x4000_4000, constants),
        leaves(linear + 0x8000, 3, 8, 0x4000_8000, data),
        hole(linear + 0x1_0000, 3, 512 - 16),
        hole(linear + 0x20_0000, 3, 16),
        leaves(linear + 0x21_0000, 3, 1, 0x4021_0000, data),
        hole(linear + 0x21_1000, 3, 512 - 17),
        hole(linear + 0x40_0000, 2, 510),
        hole(0x8000_8000_0000, 1, 510),
        leaves(private, 3, 1, 0x0900_0000, data | 4 << 2),
        annotated(private + 0x1000, 3, 1, idle(0x4021_5000 | data)),
        leaves(private + 0x2000, 3, 1, 0x4030_0000, data),
        leaves(private + 0x3000, 3, 4, 0x4031_0000, data),
        hole(private + 0x7000, 3, 512 - 7),
        annotated(private + 0x20_0000, 2, 1, idle(0x4040_0000 | data & !0b10)),
        hole(private + 0x40_0000, 2, 510),
        hole(private + 0x4000_0000, 1, 511),
        hole(0x8100_0000_0000, 0, 254),
    ]
}

/// The header of a dump of EL2's table with 52 bits, from level -1 with LPA2.
pub fn hyp_52_header() -> SlotHeader {
    SlotHeader {
        end: 1 << 52,
        vtcr: 1 << 59 | 6 << 32 | 3 << 12 | 1 << 10 | 1 << 8 | 12,
        table_features: table_features::HVHE | table_features::LPA2,
        ia_bits: 52,
        start_level: -1,
        pa_bits: 52,
        ..hyp_header(true)
    }
}

/// Facts about it.
pub fn machine_facts() -> Vec<Fact> {
    let private = 0x8080_0000_0000;
    let nomap = Fact { flags: fact_flags::NOMAP, ..fact(FactKind::MEMORY, 0x7000_0000, 0x10_0000, 0) };
    let ring = RING.map(|(start, size)| fact(FactKind::RING, start, size, 0));
    let mut facts = vec![
        fact(FactKind::MEMORY, 0x4000_0000, 0x80_0000, 0),
        nomap,
        fact(FactKind::HYP_TEXT, 0x4000_0000, 0x4000, 0),
        fact(FactKind::FIXMAP, private + 0x1000, 0x1000, 0),
        fact(FactKind::FIXMAP, private + 0x2000, 0x1000, 1),
        fact(FactKind::FIXBLOCK, private + 0x20_0000, 0x20_0000, 0),
        fact(FactKind::HYP_LINEAR, 0, 0, LINEAR),
    ];
    facts.extend(ring);
    facts
}

/// A capture of those facts.
pub fn machine_facts_capture() -> Capture {
    let mut capture = Capture::default();
    capture.facts(&machine_facts());
    capture
}

/// What is kept about its frames.
pub fn machine_frames() -> Vec<FrameRecord> {
    const OWNED: u64 = 0;
    const SHARED_OWNED: u64 = 1;
    const SHARED_BORROWED: u64 = 2;
    const NO_PAGE: u64 = 3;
    vec![
        frames(0x4000_0000, 16, page_of(NO_PAGE, OWNED, 1, 0, 0)),
        frames(0x4001_0000, 496, page_of(OWNED, NO_PAGE, 0, 0, 0)),
        frames(0x4020_0000, 11, page_of(NO_PAGE, NO_PAGE, 0, 0, 0)),
        frames(0x4020_b000, 3, page_of(NO_PAGE, OWNED, 1, 0, 0)),
        frames(0x4020_e000, 2, page_of(OWNED, NO_PAGE, 0, 0, 0)),
        frames(0x4021_0000, 1, page_of(SHARED_OWNED, SHARED_BORROWED, 1, 0, 0)),
        frames(0x4021_1000, 1, page_of(SHARED_OWNED, SHARED_BORROWED, 0, 0, 0)),
        frames(0x4021_2000, 2, page_of(SHARED_OWNED, NO_PAGE, 0, 0, 2)),
        frames(0x4021_4000, 1, page_of(SHARED_BORROWED, NO_PAGE, 0, 0, 0)),
        frames(0x4021_5000, 1, page_of(4, 7, 0, 9, 0)),
        frames(0x4021_6000, 1514, page_of(OWNED, NO_PAGE, 0, 0, 0)),
        stateless(0x7000_0000, 256),
    ]
}

/// All of it, and a protected guest.
pub fn machine() -> Capture {
    let mut capture = Capture::default();
    capture
        .list(&three_vms())
        .facts(&machine_facts())
        .dump(host_header(), &host_table(), 5, Status::OK)
        .dump(hyp_header(true), &hyp_table(true), 200, Status::OK)
        .frames(encoding::PKVM_7_2, 0x4000_0000, 1 << 40, &machine_frames())
        .dump(dump_header(0x1000, VTCR_40), &protected_table(), 200, Status::OK);
    capture
}
