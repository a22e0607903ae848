// SPDX-License-Identifier: MIT OR Apache-2.0
//! The captures goldens and schema tests read: good, odd, damaged, and from the future.

use super::*;
use std::path::Path;

/// What a table should not have, and what is rare.
pub fn odd_table() -> Vec<Record> {
    let at = |page: u64| 0x8000_0000 + page * 0x1000;
    let reserved = |ia, raw| run(ia, 3, 1, RecordKind::RESERVED, 0, raw, 1);
    vec![
        hole(0, 0, 0),
        run(0, 1, 1, RecordKind::TABLE_OUTSIDE, 0xff_0000_0000, 0xff_0000_0003, 1),
        run(0x4000_0000, 1, 1, RecordKind::TABLE_LOOP, 0x4100_0000, 0x4100_0003, 1),
        reserved(at(0), 0x4000_07fd),
        leaves(at(1), 3, 1, 0x5000_0000, PAGE & !(0xf << 2) | 4 << 2),
        leaves(at(2), 3, 1, 0x5000_1000, PAGE & !(0xf << 2) | 7 << 2),
        leaves(at(3), 3, 1, 0x5000_2000, PAGE & !(3 << 8) | 1 << 8),
        leaves(at(4), 3, 1, 0x5000_3000, PAGE & !(1 << 10)),
        leaves(at(5), 3, 1, 0x5000_4000, PAGE & !(1 << 6) | 1 << 53),
        leaves(at(6), 3, 1, 0x5000_5000, PAGE | 3 << 53),
        leaves(at(7), 3, 1, 0x5000_6000, PAGE | 1 << 51 | 1 << 52 | 1 << 59),
        leaves(at(8), 3, 1, 0x5000_7000, PAGE | 3 << 55),
        leaves(at(9), 3, 1, 0xf0_5000_8000_u64 << 4, PAGE),
        annotated(at(10), 3, 1, 1 << 60),
        annotated(at(11), 3, 1, 2 << 60 | 2),
        annotated(at(12), 3, 1, 2 << 60 | 0x1000 << 4 | 2 << 1),
        annotated(at(13), 3, 1, POISONED | 0x100),
        annotated(at(14), 3, 1, 0x400),
        hole(at(15), 3, 512 - 15),
        hole(0x8020_0000, 2, 511),
        hole(0xc000_0000, 1, 1021),
    ]
}

/// A 52-bit table with FWB: an address above 48 bits in descriptor bits 9:8, and types that differ from those without.
pub fn lpa2_table() -> Vec<Record> {
    let normal = 1 << 10 | 3 << 6 | 6 << 2 | 0b01;
    let device = normal & !(0xf << 2) | 1 << 2;
    vec![
        hole(0, 2, 1),
        run(0x20_0000, 2, 1, RecordKind::LEAF, 0xc_0000_0020_0000, 0x20_0000 | 3 << 8 | normal, 1),
        run(0x40_0000, 2, 1, RecordKind::LEAF, 0x4040_0000, 0x4040_0000 | device | XN, 1),
        hole(0x60_0000, 2, 509),
        hole(0x4000_0000, 1, 511),
        hole(1 << 39, 0, 8191),
    ]
}

/// A dump during which tables became a block, a hole and a poisoned entry of a higher level.
pub fn changed() -> Capture {
    let header = dump_header(0x1000, VTCR_40);
    // The first two are of runs of contiguous entries, of which the change cuts off what was not read.
    let slots = [
        (0, vec![hole(0, 1, 2), leaves(0x8000_0000, 3, 8, 0x4200_0000, PAGE | 1 << 52)]),
        (
            0x8000_8000,
            vec![leaves(0x8000_0000, 2, 2, 0x6000_0000, BLOCK | 1 << 52), leaves(0x8040_0000, 3, 8, 0x4300_0000, PAGE)],
        ),
        (0x8040_8000, vec![annotated(0x8040_0000, 2, 1, POISONED), leaves(0x8060_0000, 3, 8, 0x4400_0000, PAGE)]),
        (0x8060_8000, vec![hole(0x8000_0000, 1, 1), hole(0xc000_0000, 1, 1021)]),
        (1 << 40, vec![]),
    ];
    let mut capture = Capture::default();
    for (sequence, pair) in slots.windows(2).enumerate() {
        let [(start, records), (next, _)] = pair else { unreachable!() };
        let (record_count, sequence) = (records.len() as u32, sequence as u64);
        capture.slot(SlotHeader { record_count, sequence, start: *start, next: *next, ..header }, records);
    }
    capture.end(header.target, 4, Status::OK);
    capture
}

/// The memory slots of [`protected_table`]: the second ends in the middle of a run, the third has nothing mapped.
pub fn memory_slots() -> [MemorySlot; 3] {
    let slot = |id, ia, size, hva, flags| MemorySlot { ia, size, hva, flags, id, reserved: 0 };
    [
        slot(0, 0x1000_0000, 0x1000, 0xffff_9000_0000, memory_flags::READ_ONLY),
        slot(1, 0x8000_0000, 0x9000, 0xffff_8000_0000, 0),
        slot(7, 0x8000_9000, 0x20_0000, 0xffff_a000_0000, memory_flags::LOG_DIRTY),
    ]
}

/// A VM of which names are told, the host, and EL2.
pub fn named() -> Capture {
    let mut capture = Capture::default();
    let backing = "10000000-10000fff /boot/rom of a board\n80000000-80005fff [anon]\n80006000-80008fff memfd:guest\n";
    let iomem = "9000000-9000fff pl011@9000000\n40000000-401fffff System RAM\n40200000-40200fff Kernel code\n\
                 40201000-7fffffff System RAM\n";
    capture.list(&three_vms()).facts(&machine::machine_facts()).names(Target::guest(0x1000), backing);
    capture.memory(0x1000, &memory_slots(), 2).dump(dump_header(0x1000, VTCR_40), &protected_table(), 3, Status::OK);
    capture.names(Target::HOST, iomem).dump(machine::host_header(), &machine::host_table(), 200, Status::OK);
    capture.dump(machine::hyp_header(false), &machine::hyp_table(false), 200, Status::OK);
    // And a VM of which none are told.
    let ordinary = SlotHeader { flags: slot_flags::EXACT, ..dump_header(0x1001, VTCR_40) };
    capture.dump(ordinary, &ordinary_table(), 200, Status::OK);
    capture
}

/// Writes all captures into `directory`.
pub fn save_all(directory: &Path) {
    let save = |name: &str, capture: &Capture| {
        std::fs::write(directory.join(name), &capture.bytes).unwrap();
    };
    let empty = || Capture::default();
    let whole = two_vms();
    let protected = || dump_header(0x1000, VTCR_40);
    save("two.s2d", &whole);
    save("machine.s2d", &machine::machine());
    save("names.s2d", &named());
    let mut bad = memory_slots();
    bad[1].size = 0;
    bad[2].ia = 0x1000_0800;
    let target = Target::guest(0x1000);
    let lines = "80000000-80000fff a\n80000800-80001fff b\nrubbish\n";
    let dump = (dump_header(0x1000, VTCR_40), protected_table());
    save("bad-names.s2d", empty().names(target, lines).memory(0x1000, &bad, 9).dump(dump.0, &dump.1, 3, Status::OK));
    save("hyp-nvhe.s2d", empty().dump(machine::hyp_header(false), &machine::hyp_table(false), 200, Status::OK));
    let pages = leaves(0xf_ffff_ffff_e000, 3, 1, 0x4000_0000, 1 << 10 | 3 << 53 | 0b11);
    let hyp_52 = [
        hole(0, -1, 15),
        hole(0xf_0000_0000_0000, 0, 511),
        hole(0xf_ff80_0000_0000, 1, 511),
        hole(0xf_ffff_c000_0000, 2, 511),
        hole(0xf_ffff_ffe0_0000, 3, 510),
        pages,
        hole(0xf_ffff_ffff_f000, 3, 1),
    ];
    save("hyp-52.s2d", empty().dump(machine::hyp_52_header(), &hyp_52, 200, Status::OK));
    let mut twice = whole.clone();
    twice.bytes.extend(&whole.bytes);
    save("twice.s2d", &twice);
    // As EL2 tells table pages: before their entries, and the second again where the next slot begins.
    let table = |ia, level: i8, next: u64| run(ia, level, 1, RecordKind::TABLE, next, next | 0b11, 1);
    let mut with_tables = machine::host_table();
    with_tables.splice(1..1, [table(0x4000_0000, 1, 0x4a00_0000)]);
    with_tables.splice(3..3, [table(0x4020_0000, 2, 0x4a00_1000)]);
    let tables = SlotHeader { flags: slot_flags::EXACT | slot_flags::TABLES, ..machine::host_header() };
    let mut in_two = empty();
    let mut second = with_tables.split_off(4);
    second.insert(0, table(0x4020_0000, 2, 0x4a00_1000));
    let (first, rest) = (with_tables.as_slice(), second.as_slice());
    let slot = |sequence, start, next, records: &[Record]| SlotHeader {
        sequence,
        start,
        next,
        record_count: records.len() as u32,
        ..tables
    };
    in_two.slot(slot(0, 0, 0x4020_0000, &first[..3]), &first[..3]);
    in_two.slot(slot(1, 0x4020_0000, 1 << 40, rest), rest).end(tables.target, 2, Status::OK);
    save("tables.s2d", &in_two);
    save("list.s2d", empty().list(&three_vms()));
    save("odd.s2d", empty().dump(protected(), &odd_table()[1..], 200, Status::OK));
    save(
        "untyped.s2d",
        empty().dump(SlotHeader { encoding: encoding::NONE, ..protected() }, &odd_table()[1..], 200, Status::OK),
    );
    let lpa2 = dump_header(0x1000, VTCR_52);
    let lpa2 = SlotHeader { table_features: lpa2.table_features | table_features::FWB, ..lpa2 };
    save("lpa2.s2d", empty().dump(lpa2, &lpa2_table(), 200, Status::OK));
    let folded = [
        hole(0, 1, 2),
        jumping(0x8000_0000, 3, 512, 0x40a1_2000, PAGE),
        hole(0x8020_0000, 2, 511),
        hole(0xc000_0000, 1, 1021),
    ];
    save(
        "folded.s2d",
        empty().dump(SlotHeader { flags: slot_flags::PROTECTED, ..protected() }, &folded, 200, Status::OK),
    );
    let stranger = SlotHeader { root: 0x4200_0000, ..protected() };
    save("stranger.s2d", empty().list(&three_vms()).dump(stranger, &protected_table(), 3, Status::OK));
    // Of the first VM nothing was had but that it is gone.
    let refused = empty().list(&three_vms()).end(protected().target, 0, Status::VM_GONE).clone();
    save("refused-first.s2d", refused.clone().dump(dump_header(0x1001, VTCR_40), &ordinary_table(), 200, Status::OK));
    // Two captures in one file, of two VMs that had the same handle one after the other.
    let mut later = three_vms();
    later[0].root = 0x4200_0000;
    let two = empty().list(&three_vms()).dump(protected(), &protected_table(), 3, Status::OK).clone();
    save("reused.s2d", two.clone().list(&later).dump(stranger, &protected_table(), 3, Status::OK));
    save("gone.s2d", empty().list(&three_vms()).dump(protected(), &protected_table()[..4], 2, Status::VM_GONE));
    save("truncated.s2d", &Capture { bytes: whole.bytes[..whole.bytes.len() - 500].to_vec() });

    save("changed.s2d", &changed());
    let held = SlotHeader { held_ticks: 500, tick_hz: 62_500_000, ..protected() };
    save("atomic.s2d", empty().dump(held, &protected_table(), 200, Status::OK));
    // Teardown began before the second slot was read.
    let dying = SlotHeader { flags: held.flags | slot_flags::DYING, held_ticks: 1_312, ..held };
    let mut torn_down = empty();
    torn_down.list(&three_vms()).ranges(held, &protected_table()[..3], 3);
    let rest = SlotHeader { record_count: 6, sequence: 1, start: 0x8001_0000, next: 1 << 40, ..dying };
    torn_down.slot(rest, &protected_table()[3..]).end(held.target, 2, Status::VM_DYING);
    save("dying.s2d", &torn_down);
    // As a driver would that does not know what the flag means.
    save("dying-ok.s2d", empty().dump(dying, &protected_table(), 200, Status::OK));
    // The handle was given to another VM between two slots.
    let mut between = empty();
    between.ranges(protected(), &protected_table()[..3], 3);
    let stranger = SlotHeader { record_count: 6, sequence: 1, start: 0x8001_0000, next: 1 << 40, ..protected() };
    between.slot(SlotHeader { root: 0x4200_0000, ..stranger }, &protected_table()[3..]).end(held.target, 2, Status::OK);
    save("between-slots.s2d", &between);
    save("v1.1.s2d", &Capture { bytes: include_bytes!("../captures/v1.1.s2d").to_vec() });
    let mut set = include_bytes!("../captures/v1.1.s2d").to_vec();
    // In the header of the list, where version 2 has a time: reserved in version 1.
    set[108] = 1;
    save("v1.1-reserved.s2d", &Capture { bytes: set });
    // The first of the slots of a dump: with an END that says all is well, and without.
    let first = &protected_table()[..3];
    save("lone.s2d", empty().dump(protected(), first, 3, Status::OK));
    save("lone-cut.s2d", empty().ranges(protected(), first, 3));

    let mut corrupt = whole.clone();
    // The magic of the third slot: list, its end, the first of the protected table.
    let third = 128 + 3 * 64 + 128;
    corrupt.bytes[third] = b'X';
    save("corrupt.s2d", &corrupt);
    let mut lengths = whole.clone();
    lengths.bytes[third + 10..third + 12].copy_from_slice(&0xffff_u16.to_le_bytes());
    save("lengths.s2d", &lengths);

    let newer = SlotHeader { version: 4 << 16, ..protected() };
    save("major-next.s2d", empty().dump(newer, &protected_table(), 3, Status::OK));
    save(
        "major-next-later.s2d",
        empty().list(&three_vms()).ranges(protected(), &protected_table(), 3).ranges(newer, &protected_table(), 3),
    );
    let mut minor = empty();
    let strange = [run(0, 1, 1024, RecordKind(77), 0, 0, 0)];
    let minor_header = SlotHeader { version: 3 << 16 | 9, ..protected() };
    minor
        .slot(SlotHeader { kind: 99, version: 3 << 16 | 9, record_count: 1, ..slot_header(SlotKind(99)) }, &strange)
        .dump(SlotHeader { reserved: 7, ..minor_header }, &protected_table(), 200, Status::OK);
    save("minor9.s2d", &minor);
    let mut unknown = protected_table();
    unknown[3].kind = 77;
    save("unknown-record.s2d", empty().dump(protected(), &unknown, 200, Status::OK));
    let in_order = pkvm::machine();
    save("pkvm.s2d", &in_order.capture());
    let mut broken = in_order.clone();
    broken.host().map(pkvm::PROTECTED_PA, 3, 1, pkvm::PROTECTED_PA, PAGE);
    broken.frame(pkvm::MULTI_PA, 1, pkvm::lent(3));
    broken.counted.push(pkvm::MULTI_PA);
    save("broken.s2d", &broken.capture());
    let mut moving = broken.clone();
    moving.trees.iter_mut().for_each(|tree| tree.at_rest = false);
    save("moving.s2d", &moving.capture());
    save("later.s2d", &pkvm::later().capture());
    save("idle.s2d", &pkvm::read_by(pkvm::PLAIN, Some(pkvm::SHARED)).capture());
    save("idle-again.s2d", &pkvm::read_by(pkvm::PLAIN + 0x1_0000, None).capture());
    save("android.s2d", &android::machine().capture());
    save("pages16k.s2d", &pages::larger(&pkvm::machine()).capture());
    save("pages16k-broken.s2d", &pages::larger(&broken).capture());
    let mut without_hyp = in_order;
    without_hyp.trees.remove(1);
    save("without-hyp.s2d", &without_hyp.capture());
    save("empty.s2d", &empty());
    save("text.s2d", &Capture { bytes: b"---[ Guest IPA ]---\n".to_vec() });
}
