// SPDX-License-Identifier: MIT OR Apache-2.0
//! `merge` case by case, and the digest as numbers.

use crate::common::hostile::merge_all;
use crate::common::{ipa, shape, Records, Shape, Tables};
use s2dump_abi::slot::{record_flags, Record, RecordKind};
use s2dump_hyp::coalescer::{merge, Coalescer, Fold};
use s2dump_hyp::digest;
use s2dump_hyp::walker::walk_range;

const LINEAR: u16 = record_flags::LINEAR;
const PAGE: u64 = 0x4ff;

/// Pages from `ia` on, to `oa` on.
fn pages(ia: u64, oa: u64, count: u32, flags: u16) -> Record {
    Record { ia, oa, descriptor: oa | PAGE, count, level: 3, kind: RecordKind::LEAF.0, flags }
}

fn joined(a: &Record, b: &Record, exact: bool) -> Option<Record> {
    merge(a, b, &Fold { geometry: shape("4k_48").geometry(), exact })
}

/// Count and flags of two runs joined.
fn count_and_flags(a: &Record, b: &Record) -> Option<(u32, u16)> {
    joined(a, b, false).map(|run| (run.count, run.flags))
}

#[test]
fn good_linear_only_if_both_are_and_the_seam_is() {
    let first = |flags| pages(0x1000, 0x5000, 2, flags);
    let runs_on = |flags| pages(0x3000, 0x7000, 3, flags);
    let jumps = pages(0x3000, 0x9000, 3, LINEAR);
    assert_eq!(count_and_flags(&first(LINEAR), &runs_on(LINEAR)), Some((5, LINEAR)));
    assert_eq!(count_and_flags(&first(LINEAR), &runs_on(0)), Some((5, 0)));
    assert_eq!(count_and_flags(&first(0), &runs_on(LINEAR)), Some((5, 0)));
    assert_eq!(count_and_flags(&first(LINEAR), &jumps), Some((5, 0)));
    for (a, b) in [(first(LINEAR), runs_on(0)), (first(0), runs_on(LINEAR)), (first(LINEAR), jumps)] {
        assert_eq!(joined(&a, &b, true), None, "exact: {a:?} {b:?}");
    }
    assert!(joined(&first(LINEAR), &runs_on(LINEAR), true).is_some());
}

/// The flags of the first run stay: it is the one that may continue the slot before.
#[test]
fn good_flags_of_the_first_stay() {
    let continues = record_flags::CONTINUES;
    let (first, second) = (pages(0x1000, 0x5000, 1, LINEAR | continues), pages(0x2000, 0x6000, 1, LINEAR));
    assert_eq!(count_and_flags(&first, &second), Some((2, LINEAR | continues)));
    let (first, second) = (pages(0x1000, 0x5000, 1, LINEAR), pages(0x2000, 0x6000, 1, LINEAR | continues));
    assert_eq!(count_and_flags(&first, &second), Some((2, LINEAR)));
    let jumps = pages(0x2000, 0x9000, 1, LINEAR);
    assert_eq!(count_and_flags(&pages(0x1000, 0x5000, 1, LINEAR | continues), &jumps), Some((2, continues)));
}

#[test]
fn bad_neighbors() {
    let first = pages(0x1000, 0x5000, 1, LINEAR);
    let second = pages(0x2000, 0x6000, 1, LINEAR);
    let inherited = 1 << record_flags::INHERITED.trailing_zeros();
    assert!(joined(&first, &second, false).is_some());
    for other in [
        Record { ia: 0x3000, ..second },
        Record { level: 2, ..second },
        Record { kind: RecordKind::RESERVED.0, ..second },
        Record { descriptor: second.descriptor | 1 << 54, ..second },
        Record { flags: LINEAR | inherited, ..second },
        Record { count: u32::MAX, ..second },
    ] {
        assert_eq!(joined(&first, &other, false), None, "{other:?}");
    }
    assert_eq!(joined(&Record { level: 4, ..first }, &Record { level: 4, ..second }, false), None, "no such level");
    let both = |flags| joined(&Record { flags, ..first }, &Record { flags, ..second }, false);
    assert_eq!(both(LINEAR | inherited).map(|run| run.flags), Some(LINEAR | inherited));
}

/// What is no leaf has no output address to run on, and agrees in every bit.
#[test]
fn good_others_than_leaves() {
    for kind in [RecordKind::INVALID, RecordKind::RESERVED, RecordKind::TABLE_OUTSIDE, RecordKind::TABLE_LOOP] {
        let one = |ia, descriptor| Record { kind: kind.0, oa: 0, descriptor, ..pages(ia, 0, 1, LINEAR) };
        assert_eq!(count_and_flags(&one(0x1000, 0x9002), &one(0x2000, 0x9002)), Some((2, LINEAR)), "{kind:?}");
        assert_eq!(joined(&one(0x1000, 0x9002), &one(0x2000, 0xa002), false), None, "{kind:?}: an address bit");
    }
}

/// As numbers, so that two versions of s2dump agree on what changed.
#[test]
fn good_digest() {
    assert_eq!(digest::mix(0x4000_0000, 3, 0), 0);
    assert_eq!(digest::mix(0x4000_0000, 3, 0x4060_07ff), 0xbe6a_4b13_83e3_413a);
    assert_eq!(digest::mix(0x4000_0000, 2, 0x4060_07ff), 0xdf01_6b65_654d_6860);
    assert_eq!(digest::mix(0x4000_1000, 3, 0x4060_07ff), 0x720c_a12c_184b_721a);
    assert_eq!(digest::mix(0, -1, 1), 0x2f01_b4f2_e36b_3872);
}

/// Descriptors that go on as numbers where the address field ends: the next has a bit set that is no address.
#[test]
fn bad_carry_out_of_the_address() {
    for (name, top) in [("4k_48", 48), ("4k_52_sixteen_roots", 50), ("16k_48_two_roots", 48), ("64k_43_two_roots", 48)]
    {
        let mut tables = Tables::new(shape(name));
        let page = 1_u64 << tables.shape.page_shift;
        for n in 0..6 {
            tables.set(n * page, 3, ((1 << top) - 3 * page + n * page) | PAGE);
        }
        let fold = Fold { geometry: tables.shape.geometry(), exact: false };
        let out = Records { records: Vec::new(), room: 10 };
        let mut coalescer = Coalescer::new(fold, 0, false, out);
        walk_range(&tables, &tables.root(), ipa(0), ipa(6 * page), 100, &mut coalescer).unwrap();
        let runs: Vec<_> =
            coalescer.finish().0.records.iter().map(|run| (run.count, run.flags, run.oa % page)).collect();
        assert_eq!(runs, [(3, LINEAR, 0), (3, LINEAR, 0)], "{name}");
    }
}

/// What the records of a walk over `count` pages say, the `n`th of which maps to `oa(n)`.
fn folded(shape: Shape, count: u64, oa: impl Fn(u64) -> u64) -> Vec<(u32, u16, u64)> {
    let mut tables = Tables::new(shape);
    let page = 1_u64 << shape.page_shift;
    (0..count).for_each(|n| tables.set(n * page, 3, shape.encode(oa(n)) | PAGE));
    let fold = Fold { geometry: shape.geometry(), exact: false };
    let mut coalescer = Coalescer::new(fold, 0, false, Records { records: Vec::new(), room: 10 });
    walk_range(&tables, &tables.root(), ipa(0), ipa(count * page), 100, &mut coalescer).unwrap();
    let records = coalescer.finish().0.records;
    assert_eq!(merge_all(&records, &fold), records, "{}: merged again", shape.name);
    records.iter().map(|run| (run.count, run.flags, run.oa)).collect()
}

/// Shapes whose output size ends in each part of the address field: in place, in LPA2's 9:8, in 15:12 of 64 KiB pages.
fn of_output_sizes() -> impl Iterator<Item = Shape> {
    let sized = |name, pa_bits| Shape { pa_bits, ..shape(name) };
    [
        shape("4k_40_two_roots"),
        sized("4k_48", 36),
        shape("16k_30_small_root"),
        sized("4k_52_level_minus_1", 48),
        sized("16k_48_lpa2_level_0", 44),
        shape("64k_48_lpa_of_40"),
        sized("64k_52", 48),
        Shape { hpd: true, ..sized("el2_4k_48", 40) },
    ]
    .into_iter()
}

/// The MMU translates up to the output size and faults from there on: one run each, linear or not, in any order.
#[test]
fn bad_run_across_the_output_size() {
    for shape in of_output_sizes() {
        let (name, page, end) = (shape.name, 1_u64 << shape.page_shift, 1_u64 << shape.output_bits());
        let across = folded(shape, 12, |n| end - 3 * page + n * page);
        assert_eq!(across, [(3, LINEAR, end - 3 * page), (9, LINEAR, end)], "{name}");
        // Scattered on each side; the scan meets the border as well as the start of a run.
        let scattered = folded(shape, 40, |n| if n < 20 { (n * 7 + 1) * page } else { end + n * 7 % 20 * page });
        assert_eq!(scattered, [(20, 0, page), (20, 0, end)], "{name}");
        let back = folded(shape, 40, |n| if n < 20 { end + n * 7 * page } else { (n * 7 + 1) * page });
        assert_eq!(back, [(20, 0, end), (20, 0, 141 * page)], "{name}");
    }
}

/// Where the address goes on in bits 9:8 or 15:12, within the output size: one linear run.
#[test]
fn good_run_across_the_bits_in_place() {
    for (name, bits) in [("4k_52_level_minus_1", 50), ("16k_48_lpa2_level_0", 50), ("64k_52", 48)] {
        let shape = shape(name);
        let (page, first) = (1_u64 << shape.page_shift, (1_u64 << bits) - (3 << shape.page_shift));
        assert_eq!(folded(shape, 20, |n| first + n * page), [(20, LINEAR, first)], "{name}");
    }
}

/// Runs of a capture, which somebody else folded.
#[test]
fn good_split_where_the_output_size_ends() {
    let fold = Fold { geometry: shape("4k_40_two_roots").geometry(), exact: false };
    let end = 1 << 40;
    let one_run = |oa, count, flags| fold.one_run(&pages(0, oa, count, flags));
    assert_eq!(one_run(end - 0x3000, 8, LINEAR), 3);
    assert_eq!(one_run(end - 0x1000, 8, LINEAR), 1);
    assert_eq!(one_run(end - 0x8000, 8, LINEAR), 8);
    assert_eq!(one_run(end - 0x8000, 9, LINEAR), 8);
    assert_eq!(one_run(0, u32::MAX, LINEAR), 1 << 28);
    assert_eq!(one_run(end, 8, LINEAR), 8, "all beyond");
    assert_eq!(one_run(!0xfff, 8, LINEAR), 8, "all beyond");
    assert_eq!(one_run(end - 0x3000, 8, 0), 8, "only the first is known");
    let others = Record { kind: RecordKind::TABLE_OUTSIDE.0, ..pages(0, end - 0x3000, 8, LINEAR) };
    assert_eq!(fold.one_run(&others), 8);
    let small = Fold { geometry: Shape { pa_bits: 32, ..shape("4k_52_level_minus_1") }.geometry(), exact: false };
    assert_eq!(small.one_run(&Record { level: 0, ..pages(0, 0, 8, LINEAR) }), 1, "blocks beyond the output size each");
    assert_eq!(small.one_run(&Record { level: 9, ..pages(0, 0, 8, LINEAR) }), 8, "no such level");
}
