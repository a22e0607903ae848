// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handler against a fake hypervisor: what it answers, what it writes, and that it lets go of everything.

use crate::common::{shape, Tables, BASE, BLOCK, PAGE, TABLE};
use crate::fake::{Answer, Hypervisor, SLOT_PFN};
use proptest::prelude::*;
use s2dump_abi::hypercall::{
    slot_pages, unpack_counts, DumpFlags, Op, Status, ATOMIC_BUDGET, DEFAULT_BUDGET, LIST_BUDGET, MAX_BUDGET,
};
use s2dump_abi::slot::{
    encoding, record_flags, slot_flags, Record, RecordKind, SlotHeader, SlotKind, SLOT_MAGIC, SLOT_VMS,
};
use s2dump_abi::target::{Target, END_HANDLE, FIRST_HANDLE};
use s2dump_abi::version::{features, AbiVersion, ABI_VERSION};
use s2dump_hyp::platform::Permitted;

const HANDLE: u16 = 0x1003;
const VM: u64 = Target::guest(HANDLE).0;

fn hypervisor(fill: impl FnOnce(&mut Tables)) -> Hypervisor {
    let mut tables = Tables::new(shape("4k_40_two_roots"));
    fill(&mut tables);
    Hypervisor::new([(HANDLE, tables)])
}

fn op(op: Op, flags: DumpFlags) -> u64 {
    u64::from(op.0) | u64::from(flags.0) << 32
}

fn dump(hypervisor: &Hypervisor, flags: DumpFlags, cursor: u64, end: u64, budget: u64, sequence: u64) -> Answer {
    hypervisor.call([op(Op::DUMP, flags), SLOT_PFN, VM, cursor, end, budget, sequence])
}

fn assert_status(answer: &Answer, status: Status) {
    assert_eq!(answer.status, u64::from(status.0));
}

/// 512 pages of which no two fold.
fn unfoldable(tables: &mut Tables) {
    for n in 0..512 {
        tables.map(n << 12, 3, n << 12, PAGE | (n & 1) << 54);
    }
}

#[test]
fn good_hello() {
    let answer = hypervisor(|_| ()).call([0, ABI_VERSION.to_bits().into(), 0, 0, 0, 0, 0]);
    assert_status(&answer, Status::OK);
    assert_eq!(answer.x2, u64::from(ABI_VERSION.to_bits()) | u64::from(DEFAULT_BUDGET) << 32);
    assert_eq!(answer.x3, 0x7ff);
    answer.assert_untouched();
}

#[test]
fn good_hello_other_minor() {
    let version = AbiVersion { major: ABI_VERSION.major, minor: 999 };
    assert_status(&hypervisor(|_| ()).call([0, version.to_bits().into(), 0, 0, 0, 0, 0]), Status::OK);
}

#[test]
fn bad_hello_other_major_tells_ours() {
    let answer = hypervisor(|_| ()).call([0, 99 << 16, 0, 0, 0, 0, 0]);
    assert_status(&answer, Status::VERSION_MISMATCH);
    assert_eq!(answer.x2 as u32, ABI_VERSION.to_bits());
}

#[test]
fn bad_gate_shut() {
    let mut hypervisor = hypervisor(|_| ());
    hypervisor.permitted = Permitted::default();
    for op in 0..8 {
        let answer = hypervisor.call([op, SLOT_PFN, VM, 0, 1 << 40, 0, 0]);
        assert_status(&answer, Status::NOT_PERMITTED);
        assert_eq!((answer.x2, answer.x3), (0, 0));
        answer.assert_untouched();
    }
    assert_eq!((hypervisor.pins.get(), hypervisor.locks.get()), (0, 0));
    // What is allowed is told by the status alone.
    assert_eq!(
        hypervisor.call([0, ABI_VERSION.to_bits().into(), 0, 0, 0, 0, 0]).status,
        Status::NOT_PERMITTED.0.into()
    );
}

#[test]
fn bad_op() {
    for op in [7, 8, 0xffff_ffff] {
        for slot in [SLOT_PFN, SLOT_PFN + 64, 0] {
            let hypervisor = hypervisor(|_| ());
            assert_status(&hypervisor.call([op, slot, VM, 0, 0, 0, 0]), Status::UNKNOWN_OP);
            assert_eq!(hypervisor.pins.get(), 0, "pinned for nothing");
        }
    }
}

/// Each reserved register and flag of each operation, one at a time.
#[test]
fn bad_reserved_arguments() {
    let hello = u64::from(ABI_VERSION.to_bits());
    let good: [(Op, [u64; 6], &[usize]); 7] = [
        (Op::HELLO, [hello, 0, 0, 0, 0, 0], &[3, 4, 5, 6, 7]),
        (Op::LIST, [SLOT_PFN, 0, 0, 0, 0, 0], &[3, 5]),
        (Op::DUMP, [SLOT_PFN, VM, 0, 1 << 40, 0, 0], &[]),
        (Op::WALK, [SLOT_PFN, VM, 0, 0, 0, 0], &[5, 6]),
        (Op::FRAMES, [SLOT_PFN, 0, 0, 0x1000, 0, 0], &[3]),
        (Op::FACTS, [SLOT_PFN, 0, 0, 0, 0, 0], &[3, 5, 6]),
        (Op::EXAMINE, [SLOT_PFN, 0, 0, 0, 0, 0], &[]),
    ];
    let hypervisor = hypervisor(|_| ());
    for (op, rest, reserved) in good {
        let call = |change: &dyn Fn(&mut [u64; 7])| {
            let mut registers = [0; 7];
            registers[0] = u64::from(op.0);
            registers[1..].copy_from_slice(&rest);
            change(&mut registers);
            hypervisor.call(registers)
        };
        assert_status(&call(&|_| ()), Status::OK);
        for &register in reserved {
            assert_status(&call(&|registers| registers[register - 1] = 1 << 63), Status::UNKNOWN_FLAG);
        }
        let unknown_flag = if op == Op::DUMP { DumpFlags::KNOWN.0 + 1 } else { 1 };
        let answer = call(&|registers| registers[0] |= u64::from(unknown_flag) << 32);
        assert_status(&answer, Status::UNKNOWN_FLAG);
        answer.assert_untouched();
    }
}

#[test]
fn bad_hello_version_of_more_than_32_bits() {
    let answer = hypervisor(|_| ()).call([0, 1 << 32 | u64::from(ABI_VERSION.to_bits()), 0, 0, 0, 0, 0]);
    assert_status(&answer, Status::UNKNOWN_FLAG);
}

#[test]
fn bad_target() {
    for target in [3 << 56, 0xff << 56, 1 << 56 | 1, 2 << 56 | 1, VM | 1 << 16, VM | 1 << 55] {
        for op in [Op::DUMP, Op::WALK] {
            let x5 = if op == Op::DUMP { 1 << 40 } else { 0 };
            let answer = hypervisor(|_| ()).call([op.0.into(), SLOT_PFN, target, 0, x5, 0, 0]);
            assert_status(&answer, Status::UNKNOWN_TARGET);
            answer.assert_untouched();
        }
    }
}

#[test]
fn bad_slot_not_shared() {
    for pfn in [0, SLOT_PFN + 1, u64::MAX >> 8, 1 << 52] {
        let hypervisor = hypervisor(|_| ());
        for (op, x3, x5) in [(Op::LIST, 0, 0), (Op::DUMP, VM, 1 << 40), (Op::WALK, VM, 0)] {
            assert_status(&hypervisor.call([op.0.into(), pfn, x3, 0, x5, 0, 0]), Status::SLOT_NOT_SHARED);
        }
        assert_eq!(hypervisor.locks.get(), 0, "no lock for nothing");
    }
}

/// Only a packed dump has a use for more than one page, and not for more than a slot has.
#[test]
fn bad_further_pages() {
    let hypervisor = hypervisor(|_| ());
    for (op, x3, x5) in [(Op::LIST, 0, 0), (Op::DUMP, VM, 1 << 40), (Op::WALK, VM, 0)] {
        let answer = hypervisor.call([op.0.into(), slot_pages(SLOT_PFN, 2), x3, 0, x5, 0, 0]);
        assert_status(&answer, Status::UNKNOWN_FLAG);
    }
    let packed = |pages| {
        let flags = DumpFlags::PACKED.union(DumpFlags::EXACT);
        hypervisor.call([op(Op::DUMP, flags), slot_pages(SLOT_PFN, pages), VM, 0, 1 << 40, 0, 0])
    };
    assert_status(&packed(5), Status::SLOT_NOT_SHARED);
    assert_status(&packed(256), Status::SLOT_NOT_SHARED);
    assert_eq!(hypervisor.locks.get(), 0, "no lock for nothing");
    assert_status(&packed(4), Status::OK);
}

/// A packed slot has no way to say that output addresses jump.
#[test]
fn bad_packed_but_not_exact() {
    assert_status(&dump(&hypervisor(|_| ()), DumpFlags::PACKED, 0, 1 << 40, 0, 0), Status::UNKNOWN_FLAG);
}

/// A guest whose every page jumps, at the default budget, packed and not: the bytes and calls that packing is for.
#[test]
fn good_packed_dump_is_dense() {
    let pages = 16 * 512_u64;
    let hypervisor = hypervisor(|tables| {
        (0..pages).for_each(|n| tables.map(n << 12, 3, (n * 7919 % (1 << 20)) << 12, PAGE));
    });
    let run = |flags: DumpFlags, slot: u64| {
        let (mut cursor, mut calls, mut bytes, mut headers) = (0, 0, 0, Vec::new());
        while cursor < pages << 12 {
            let answer = hypervisor.call([op(Op::DUMP, flags), slot, VM, cursor, pages << 12, 0, calls]);
            assert_status(&answer, Status::OK);
            let header = answer.header().unwrap();
            assert_eq!((header.start, header.next, header.sequence), (cursor, answer.x2, calls));
            assert_eq!((u64::from(header.visited) << 32) | u64::from(header.record_count), answer.x3);
            assert!(header.visited <= DEFAULT_BUDGET);
            (cursor, calls, bytes) = (answer.x2, calls + 1, bytes + header.used_bytes().unwrap() as u64);
            headers.push(header);
        }
        (calls, bytes, headers)
    };
    let flags = DumpFlags::EXACT.union(DumpFlags::PACKED);
    let (calls, bytes, headers) = run(flags, slot_pages(SLOT_PFN, 4));
    let (exact_calls, exact_bytes, _) = run(DumpFlags::EXACT, SLOT_PFN);
    assert!(bytes <= 10 * pages, "{bytes} bytes for {pages} pages");
    assert!(exact_bytes > 32 * pages && 8 * calls <= exact_calls, "{calls} calls, {exact_calls} not packed");
    let first = headers[0];
    assert_eq!((first.kind, first.record_bytes), (SlotKind::PACKED.0, 8));
    assert_eq!(first.flags & slot_flags::EXACT, slot_flags::EXACT);
}

#[test]
fn bad_no_such_vm() {
    for handle in [0, 0x1002, 0xffff] {
        let hypervisor = hypervisor(|_| ());
        for (op, x5) in [(Op::DUMP, 1 << 40), (Op::WALK, 0)] {
            let answer = hypervisor.call([op.0.into(), SLOT_PFN, handle, 0, x5, 0, 0]);
            assert_status(&answer, Status::NO_SUCH_VM);
            answer.assert_untouched();
        }
        assert_eq!(hypervisor.pins.get(), 2);
    }
}

#[test]
fn bad_dump_range() {
    let hypervisor = hypervisor(|_| ());
    for (cursor, end) in [
        (0, 0),
        (0x2000, 0x1000),
        (0x1000, 0x1000),
        (1, 0x1000),
        (0x800, 0x2000),
        (0, 0x1001),
        (1 << 40, 1 << 41),
        (u64::MAX, u64::MAX),
        (u64::MAX - 0xfff, 0x1000),
    ] {
        let answer = dump(&hypervisor, DumpFlags::default(), cursor, end, 0, 0);
        assert_status(&answer, Status::BAD_RANGE);
        answer.assert_untouched();
    }
}

#[test]
fn bad_walk_address() {
    for address in [1 << 40, 1 << 52, u64::MAX] {
        let answer = hypervisor(|_| ()).call([Op::WALK.0.into(), SLOT_PFN, VM, address, 0, 0, 0]);
        assert_status(&answer, Status::BAD_RANGE);
        answer.assert_no_slot();
    }
}

#[test]
fn bad_geometry() {
    let mut hypervisor = hypervisor(|_| ());
    // D128; TG0 reserved; start level 3 for 40 bits.
    for vtcr in [1 << 38, 3 << 14, 3 << 6] {
        hypervisor.vtcr = Some(shape("4k_40_two_roots").register() | vtcr);
        let answer = dump(&hypervisor, DumpFlags::default(), 0, 1 << 40, 0, 0);
        assert_status(&answer, Status::BAD_GEOMETRY);
        answer.assert_untouched();
    }
}

#[test]
fn good_dump_header_says_all() {
    let hypervisor = hypervisor(|tables| tables.map(0x4000_0000, 3, 0x9000_0000, PAGE | 1 << 55));
    let answer = dump(&hypervisor, DumpFlags::default(), 0, u64::MAX, 0, 0);

    assert_status(&answer, Status::OK);
    assert_eq!(answer.x2, 1 << 40);
    let header = answer.header().unwrap();
    let shape = shape("4k_40_two_roots");
    let expected = SlotHeader {
        magic: SLOT_MAGIC,
        version: ABI_VERSION.to_bits(),
        header_bytes: 128,
        record_bytes: 32,
        kind: SlotKind::RANGES.0,
        flags: slot_flags::PROTECTED,
        record_count: 5,
        visited: 1024 + 512 + 512,
        sequence: 0,
        target: VM,
        start: 0,
        next: 1 << 40,
        end: 1 << 40,
        vtcr: shape.register(),
        root: BASE + 0x1_0000,
        digest: 0,
        table_features: 2,
        ia_bits: 40,
        start_level: 1,
        page_shift: 12,
        pa_bits: 40,
        encoding: encoding::PKVM_7_2,
        vmid: 7,
        budget: DEFAULT_BUDGET,
        status: 0,
        // From one read of the counter to the next; it wraps in between.
        held_ticks: 100,
        tick_hz: 62_500_000,
        reserved: 0,
        mair: 0,
    };
    assert_eq!(header, expected);
    assert_eq!(unpack_counts(answer.x3), (header.record_count, header.visited));

    let page = Record {
        ia: 0x4000_0000,
        oa: 0x9000_0000,
        descriptor: 0x9000_0000 | PAGE | 1 << 55,
        count: 1,
        level: 3,
        kind: RecordKind::LEAF.0,
        flags: record_flags::LINEAR,
    };
    let holes = |ia, count, level| Record {
        ia,
        oa: 0,
        descriptor: 0,
        count,
        level,
        kind: RecordKind::INVALID.0,
        flags: record_flags::LINEAR,
    };
    let expected =
        [holes(0, 1, 1), page, holes(0x4000_1000, 511, 3), holes(0x4020_0000, 511, 2), holes(0x8000_0000, 1022, 1)];
    assert_eq!(answer.records(), expected);
}

#[test]
fn good_full_slot_and_resume() {
    let hypervisor = hypervisor(unfoldable);
    let mut cursor = 0;
    let mut records = Vec::new();
    for sequence in 0.. {
        let answer = dump(&hypervisor, DumpFlags::default(), cursor, 1 << 21, u64::MAX, sequence);
        assert_status(&answer, Status::OK);
        let part = answer.records();
        let continues = part[0].flags & record_flags::CONTINUES != 0;
        assert_eq!(continues, sequence != 0);
        assert!(part[1..].iter().all(|record| record.flags & record_flags::CONTINUES == 0));
        records.extend(part);
        cursor = answer.x2;
        if cursor == 1 << 21 {
            break;
        }
        assert_eq!(records.len() as u64, 98 * (sequence + 1), "each but the first of a call costs 53 of 5120");
    }
    assert_eq!(records.len(), 512);
    assert!(records.iter().zip(0..).all(|(record, n)| record.ia == n << 12 && record.count == 1));
    assert_eq!(hypervisor.pins.get(), 512_u32.div_ceil(98));

    let atomic = |pages: u64| dump(&hypervisor, DumpFlags::ATOMIC, 0, pages << 12, 0, 0);
    assert_eq!(atomic(124).header().unwrap().used_bytes(), Some(4096), "124 records fill the page to the last byte");
    assert_status(&atomic(125), Status::TOO_BIG);
}

#[test]
fn good_budget_in_force() {
    let hypervisor = hypervisor(|tables| {
        // 64 full tables: twice the cap.
        (0..64 * 512).for_each(|n| tables.map(n << 12, 3, n << 12, PAGE));
    });
    let asked_and_given = [
        (0, DEFAULT_BUDGET),
        (1, 5),
        (5, 5),
        (6, 6),
        (MAX_BUDGET.into(), MAX_BUDGET),
        (u64::from(MAX_BUDGET) + 1, MAX_BUDGET),
        (u64::MAX, MAX_BUDGET),
    ];
    for (asked, given) in asked_and_given {
        let answer = dump(&hypervisor, DumpFlags::default(), 0, 1 << 40, asked, 0);
        let header = answer.header().unwrap();
        assert_eq!((header.budget, header.visited), (given, given), "asked for {asked}");
        assert!(answer.x2 > 0);
    }
}

/// A descriptor takes four times as long with a digest, and what is bounded is the hold.
#[test]
fn good_budget_with_digest_is_a_quarter() {
    let hypervisor = hypervisor(|tables| (0..16 * 512).for_each(|n| tables.map(n << 12, 3, n << 12, PAGE)));
    for (asked, given) in [(0, DEFAULT_BUDGET / 4), (100, 100), (u64::MAX, MAX_BUDGET / 4)] {
        let answer = dump(&hypervisor, DumpFlags::DIGEST, 0, 1 << 40, asked, 0);
        assert_eq!(answer.header().unwrap().budget, given, "asked for {asked}");
    }
}

/// A record takes as long as many descriptors: where nothing folds, a call ends before its slot is full. An atomic dump
/// does not.
#[test]
fn good_records_count_in_the_budget() {
    let hypervisor = hypervisor(|tables| {
        // 120 pages that alternate, then 8 tables of pages that fold.
        (0..120).for_each(|n| tables.map(n << 12, 3, n << 12, PAGE | (n & 1) << 55));
        (512..9 * 512).for_each(|n| tables.map(n << 12, 3, n << 12, PAGE));
    });
    let records = |flags, budget, cursor| {
        let answer = dump(&hypervisor, flags, cursor, 1 << 30, budget, 0);
        assert_status(&answer, Status::OK);
        let header = answer.header().unwrap();
        (header.record_count, header.visited, answer.x2)
    };
    let (count, visited, next) = records(DumpFlags::default(), 0, 0);
    // Each page but the first costs 53, and the last one all that is left. Two tables are on the way, and one entry is
    // looked at in vain.
    assert_eq!((count, visited), (50, 53), "{next:#x}");
    let (_, visited, _) = records(DumpFlags::default(), 0, 100 << 12);
    assert!(
        visited > DEFAULT_BUDGET - 53 * 24 - 40 && visited <= DEFAULT_BUDGET,
        "{visited}: what is left is for others"
    );
    assert_eq!(records(DumpFlags::ATOMIC, 0, 0).2, 1 << 30);
    assert_eq!(records(DumpFlags::default(), 5, 0).0, 2, "the second takes all that is left");
}

#[test]
fn bad_atomic_not_permitted() {
    let mut hypervisor = hypervisor(|_| ());
    let hello = |hypervisor: &Hypervisor| hypervisor.call([0, ABI_VERSION.to_bits().into(), 0, 0, 0, 0, 0]).x3;
    assert_ne!(hello(&hypervisor) & features::ATOMIC, 0);
    hypervisor.permitted.atomic = false;
    assert_eq!(hello(&hypervisor) & features::ATOMIC, 0);
    let answer = dump(&hypervisor, DumpFlags::ATOMIC, 0, u64::MAX, 0, 0);
    assert_status(&answer, Status::ATOMIC_NOT_PERMITTED);
    answer.assert_untouched();
    assert_status(&dump(&hypervisor, DumpFlags::default(), 0, u64::MAX, 0, 0), Status::OK);
}

#[test]
fn good_dying_is_told_in_slot_and_walk() {
    let mut hypervisor = hypervisor(|tables| tables.map(0x4000_0000, 3, 0x9000_0000, PAGE));
    let walk = |hypervisor: &Hypervisor| hypervisor.call([Op::WALK.0.into(), SLOT_PFN, VM, 0x4000_0000, 0, 0, 0]);
    for dying in [false, true] {
        hypervisor.dying = dying;
        for answer in [dump(&hypervisor, DumpFlags::default(), 0, u64::MAX, 0, 0), walk(&hypervisor)] {
            let header = answer.header().unwrap();
            assert_eq!(header.flags & slot_flags::DYING != 0, dying);
            assert_eq!((header.held_ticks, header.tick_hz), (100, 62_500_000));
        }
    }
}

#[test]
fn good_exact_breaks_where_output_does() {
    let hypervisor = hypervisor(|tables| {
        tables.map(0, 2, 0x8000_0000, BLOCK);
        tables.map(0x20_0000, 2, 0x8020_0000, BLOCK);
        tables.map(0x40_0000, 2, 0x9000_0000, BLOCK);
    });
    let runs = |flags| {
        let answer = dump(&hypervisor, flags, 0, 0x60_0000, 0, 0);
        let exact = answer.header().unwrap().flags & slot_flags::EXACT != 0;
        assert_eq!(exact, flags == DumpFlags::EXACT);
        answer.records().iter().map(|r| (r.oa, r.count, r.flags & record_flags::LINEAR != 0)).collect::<Vec<_>>()
    };
    assert_eq!(runs(DumpFlags::EXACT), [(0x8000_0000, 2, true), (0x9000_0000, 1, true)]);
    assert_eq!(runs(DumpFlags::default()), [(0x8000_0000, 3, false)]);
}

/// Two descriptors whose difference is that of neighboring pages, but by a carry out of the address field: the second
/// maps page 0 and has a reserved bit set. They are not one run.
#[test]
fn good_no_run_across_the_end_of_the_address_field() {
    for (name, top) in [("4k_48", 48), ("4k_52_sixteen_roots", 50)] {
        let mut tables = Tables::new(shape(name));
        tables.set(0, 3, ((1 << top) - 0x1000) | PAGE);
        tables.set(0x1000, 3, 1 << top | PAGE);
        let hypervisor = Hypervisor::new([(HANDLE, tables)]);
        let records = dump(&hypervisor, DumpFlags::default(), 0, 0x2000, 0, 0).records();
        assert_eq!(records.iter().map(|record| record.count).collect::<Vec<_>>(), [1, 1], "{name}");
    }
}

#[test]
fn good_digest_adds_up() {
    let hypervisor = hypervisor(unfoldable);
    let digest = |cursor, end| dump(&hypervisor, DumpFlags::DIGEST, cursor, end, u64::MAX, 0).header().unwrap().digest;
    let whole = (0..8).map(|n| digest(n * 0x4_0000, (n + 1) * 0x4_0000)).fold(0, u64::wrapping_add);
    let halves = (0..16).map(|n| digest(n * 0x2_0000, (n + 1) * 0x2_0000)).fold(0, u64::wrapping_add);
    assert_eq!(whole, halves);
    assert_ne!(whole, 0);
}

#[test]
fn good_atomic() {
    let hypervisor = hypervisor(|tables| tables.map(0, 3, 0x5000, PAGE));
    let answer = dump(&hypervisor, DumpFlags::ATOMIC, 0, 1 << 40, 0, 0);
    assert_status(&answer, Status::OK);
    let header = answer.header().unwrap();
    assert_eq!((header.budget, header.flags & slot_flags::ATOMIC), (ATOMIC_BUDGET, slot_flags::ATOMIC));
    assert_eq!(header.next, 1 << 40);
}

#[test]
fn bad_atomic_too_many_records_or_descriptors() {
    let many = hypervisor(unfoldable);
    let long = hypervisor(|tables| tables.map(0, 3, 0x5000, PAGE));
    for (hypervisor, budget) in [(many, 0), (long, 600)] {
        let answer = dump(&hypervisor, DumpFlags::ATOMIC, 0, 1 << 40, budget, 0);
        assert_status(&answer, Status::TOO_BIG);
        assert_eq!((answer.x2, answer.x3), (0, 0));
        answer.assert_no_slot();
    }
}

/// A slot of an earlier call must not look like the answer.
#[test]
fn bad_atomic_leaves_no_earlier_slot() {
    let hypervisor = hypervisor(unfoldable);
    assert!(dump(&hypervisor, DumpFlags::default(), 0, 1 << 40, 0, 0).header().is_some());
    let answer = hypervisor.call_again([op(Op::DUMP, DumpFlags::ATOMIC), SLOT_PFN, VM, 0, 1 << 40, 0, 0]);
    assert_status(&answer, Status::TOO_BIG);
    answer.assert_no_slot();
}

#[test]
fn good_wrong_tables_are_reported() {
    let hypervisor = hypervisor(|tables| {
        tables.map(0, 1, tables.root_pa(), TABLE);
        tables.map(1 << 30, 1, 0x1000, TABLE);
        tables.map(2 << 30, 1, 0x1000, TABLE);
        tables.map(3 << 30, 1, 0x2000, TABLE);
        // As far from the one before as a block would be.
        tables.map(4 << 30, 1, 0x4000_2000, TABLE);
    });
    let records = dump(&hypervisor, DumpFlags::default(), 0, 5 << 30, 0, 0).records();
    let seen: Vec<_> = records.iter().map(|record| (RecordKind(record.kind), record.count, record.oa)).collect();
    let root = BASE + 0x1_0000;
    let expected = [
        (RecordKind::TABLE_LOOP, 1, root),
        (RecordKind::TABLE_OUTSIDE, 2, 0x1000),
        (RecordKind::TABLE_OUTSIDE, 1, 0x2000),
        (RecordKind::TABLE_OUTSIDE, 1, 0x4000_2000),
    ];
    assert_eq!(seen, expected, "the same wrong descriptor folds, another does not");
}

#[test]
fn good_walk() {
    let hypervisor = hypervisor(|tables| tables.map(0x4020_3000, 3, 0x9000_0000, PAGE));
    let answer = hypervisor.call([Op::WALK.0.into(), SLOT_PFN, VM, 0x4020_3456, 0, 0, 9]);
    assert_status(&answer, Status::OK);
    assert_eq!((answer.x2, unpack_counts(answer.x3)), (0, (3, 3)));
    let header = answer.header().unwrap();
    assert_eq!((header.kind, header.sequence), (SlotKind::WALK.0, 9));
    assert_eq!((header.start, header.next, header.end), (0x4020_3456, 0x4020_4000, 0x4020_4000));
    let seen: Vec<_> = answer.records().iter().map(|r| (r.level, RecordKind(r.kind), r.ia)).collect();
    let expected =
        [(1, RecordKind::TABLE, 0x4000_0000), (2, RecordKind::TABLE, 0x4020_0000), (3, RecordKind::LEAF, 0x4020_3000)];
    assert_eq!(seen, expected);
}

fn many(handles: impl Iterator<Item = u16>) -> Hypervisor {
    Hypervisor::new(handles.map(|handle| (handle, Tables::new(shape("4k_16_pages_only")))))
}

fn list(hypervisor: &Hypervisor, first: u64, looks: u64) -> Answer {
    hypervisor.call([Op::LIST.0.into(), SLOT_PFN, 0, first, 0, looks, 0])
}

#[test]
fn good_list() {
    let hypervisor = many([FIRST_HANDLE, 0x1020, 0x1030].into_iter());
    let answer = list(&hypervisor, 0, 0);
    assert_status(&answer, Status::OK);
    // Three VMs of two vCPUs each: so many handles less.
    assert_eq!((answer.x2, unpack_counts(answer.x3)), (0x1000 + 64 - 6, (3, 64)));
    let vms = answer.vms();
    assert_eq!(vms.iter().map(|vm| vm.handle).collect::<Vec<_>>(), [0x1000, 0x1020, 0x1030]);
    assert!(vms.iter().all(|vm| (vm.ia_bits, vm.start_level, vm.vcpus, vm.vmid) == (16, 3, 2, 7)));
    assert!(vms.iter().all(|vm| vm.pid == 0 && vm.name == [0; 24] && vm.reserved == [0; 2]));
    let header = answer.header().unwrap();
    assert_eq!((header.kind, header.start, header.next, header.end), (SlotKind::VMS.0, 0x1000, answer.x2, 0x10ff));
    assert_eq!((header.held_ticks, header.tick_hz), (0x1030, 62_500_000), "the longest hold");
}

#[test]
fn good_list_of_all_handles_in_full_slots() {
    let mut hypervisor = many(FIRST_HANDLE..END_HANDLE);
    hypervisor.vcpus = 0;
    let (mut first, mut seen) = (0, Vec::new());
    loop {
        let answer = list(&hypervisor, first, 0);
        seen.extend(answer.vms().iter().map(|vm| vm.handle));
        first = answer.x2;
        if first == 0 {
            break;
        }
        assert_eq!((answer.vms().len(), answer.header().unwrap().budget), (SLOT_VMS, LIST_BUDGET));
    }
    assert_eq!(seen, (FIRST_HANDLE..END_HANDLE).collect::<Vec<_>>());
}

#[test]
fn good_list_looks() {
    let hypervisor = many([0x1002].into_iter());
    for (first, looks, next, found) in [
        (0, 1, 0x1001, 0),
        (0x1001, 1, 0x1002, 0),
        (0x1002, 1, 0x1003, 1),
        (0x10fe, 1, 0, 0),
        (0x10fe, u64::MAX, 0, 0),
        (0x10ff, 0, 0, 0),
        (0xffff, 0, 0, 0),
    ] {
        let answer = list(&hypervisor, first, looks);
        assert_eq!((answer.x2, answer.vms().len()), (next, found), "{first:#x}, {looks}");
    }
}

/// The host makes VMs of as many vCPUs as it likes: a call that meets one ends there.
#[test]
fn good_list_counts_vcpus() {
    let mut hypervisor = many(FIRST_HANDLE..END_HANDLE);
    for (vcpus, next, visited) in
        [(512, 0x1001, 513), (u32::MAX, 0x1001, u32::MAX), (62, 0x1002, 126), (15, 0x1004, 64)]
    {
        hypervisor.vcpus = vcpus;
        let answer = list(&hypervisor, 0, u64::MAX);
        assert_eq!((answer.x2, unpack_counts(answer.x3).1), (next, visited), "{vcpus} vCPUs");
    }
}

#[test]
fn bad_list_handle_of_more_than_16_bits() {
    assert_status(&list(&many(std::iter::empty()), 0x1_0000, 0), Status::BAD_RANGE);
}

fn register() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => Just(0),
        2 => 0..6_u64,
        2 => Just(SLOT_PFN),
        2 => Just(VM),
        1 => Just(1 << 40),
        1 => (0..64_u32).prop_map(|n| 1 << n),
        1 => any::<u64>(),
        2 => (0..8_u64, 0..8_u64).prop_map(|(flags, op)| flags << 32 | op),
        2 => any::<u32>().prop_map(|page| u64::from(page) << 12),
    ]
}

proptest! {
    /// Whatever a host asks, everything is let go of, and the page holds a whole slot or none.
    #[test]
    fn any_registers(registers in proptest::collection::vec(proptest::array::uniform7(register()), 1..20)) {
        let hypervisor = hypervisor(|tables| {
            unfoldable(tables);
            tables.map(0x4000_0000, 1, 0x1000, TABLE);
        });
        for call in registers {
            let answer = hypervisor.call(call);
            prop_assert!(answer.status <= Status::VM_GONE.0.into());
            match answer.header() {
                Some(header) => {
                    prop_assert_eq!(answer.status, 0);
                    prop_assert_eq!(unpack_counts(answer.x3), (header.record_count, header.visited));
                    prop_assert!(header.visited <= ATOMIC_BUDGET);
                    prop_assert_eq!(header.reserved, 0);
                    match SlotKind(header.kind) {
                        SlotKind::VMS => drop(answer.vms()),
                        SlotKind::FRAMES => drop(answer.frames()),
                        SlotKind::FACTS => drop(answer.facts()),
                        _ => drop(answer.records()),
                    }
                }
                // A hello fills none.
                None => prop_assert!(answer.status != 0 || call[0] == 0),
            }
        }
    }
}
