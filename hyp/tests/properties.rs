// SPDX-License-Identifier: MIT OR Apache-2.0
//! Properties of walker and coalescer over random tables.

use crate::common::hostile::{check, merge_all};
use crate::common::{all as entries, ipa, Entries, Records, Tables, Translation};
use crate::random;
use proptest::prelude::*;
use s2dump_abi::slot::{record_flags, Record, RecordKind};
use s2dump_hyp::coalescer::{merge, Coalescer, Fold};
use s2dump_hyp::digest;
use s2dump_hyp::walker::{walk_range, EntryKind, MIN_BUDGET};

fn fold(tables: &Tables, exact: bool) -> Fold {
    Fold { geometry: tables.shape.geometry(), exact }
}

/// A dump in as many calls as it takes: records, digest, and the number of calls.
fn dump(tables: &Tables, exact: bool, mut chunk: impl FnMut() -> (u32, usize)) -> (Vec<Record>, u64, usize) {
    let end = ipa(tables.shape.ia_end());
    let (mut cursor, mut records, mut sum, mut calls) = (ipa(0), Vec::new(), 0_u64, 0);
    while cursor != end {
        let (budget, room) = chunk();
        let out = Records { records: Vec::new(), room };
        let mut coalescer = Coalescer::new(fold(tables, exact), 0, true, out);
        let walked = walk_range(tables, &tables.root(), cursor, end, budget, &mut coalescer).unwrap();
        let (out, digest) = coalescer.finish();
        assert!(walked.visited <= budget, "visited {} of {budget}", walked.visited);
        assert!(walked.next > cursor, "no progress at {cursor:?}");
        records.extend(out.records);
        sum = sum.wrapping_add(digest.unwrap());
        cursor = walked.next;
        calls += 1;
    }
    (records, sum, calls)
}

fn one_call(tables: &Tables, exact: bool) -> (Vec<Record>, u64) {
    let (records, digest, calls) = dump(tables, exact, || (u32::MAX, usize::MAX));
    assert_eq!(calls, 1);
    (records, digest)
}

/// All records, by one call that sums no digest: the scan it uses is another one.
fn without_digest(tables: &Tables, exact: bool) -> Vec<Record> {
    let out = Records { records: Vec::new(), room: usize::MAX };
    let mut coalescer = Coalescer::new(fold(tables, exact), 0, false, out);
    let end = ipa(tables.shape.ia_end());
    walk_range(tables, &tables.root(), ipa(0), end, u32::MAX, &mut coalescer).unwrap();
    coalescer.finish().0.records
}

/// One record per entry, by `merge`'s own idea of a single entry.
fn singles(tables: &Tables) -> Vec<Record> {
    let shape = tables.shape;
    entries(tables)
        .iter()
        .map(|entry| {
            let translation = tables.translate(entry.ia);
            Record {
                ia: entry.ia,
                oa: translation.oa & !((1_u64 << shape.page_shift) - 1),
                descriptor: entry.raw.to_bits(),
                count: 1,
                level: entry.level.get(),
                kind: entry.kind as u8,
                flags: record_flags::LINEAR | u16::from(translation.inherited) << 11,
            }
        })
        .collect()
}

fn record() -> impl Strategy<Value = Record> {
    let count = prop_oneof![1..1000_u32, any::<u32>()];
    (any::<[u64; 3]>(), count, -2..5_i8, 0..7_u8, 0..4_u16).prop_map(
        |([ia, oa, descriptor], count, level, kind, flags)| Record { ia, oa, descriptor, count, level, kind, flags },
    )
}

proptest! {
    /// Each page of each entry near a border says what the naive translator says; the entries tile the space.
    #[test]
    fn walker_equals_naive_translator(tables in random::tables(), pages in proptest::collection::vec(any::<u64>(), 64)) {
        let shape = tables.shape;
        let found = entries(&tables);
        let mut ia = 0;
        for entry in &found {
            prop_assert_eq!(entry.ia, ia);
            ia += 1 << shape.shift(entry.level.get());
            let expected = tables.translate(entry.ia);
            let got = (entry.level.get(), entry.kind, entry.raw.to_bits());
            prop_assert_eq!(got, (expected.level, expected.kind, expected.raw), "at {:#x}", entry.ia);
            prop_assert_eq!(entry.inherited.to_bits(), expected.inherited, "at {:#x}", entry.ia);
            // The last page of a large entry comes from the same descriptor.
            if got.0 < 3 {
                let last = tables.translate(ia - (1 << shape.page_shift));
                prop_assert_eq!((last.level, last.kind, last.raw), got);
            }
        }
        prop_assert_eq!(ia, shape.ia_end());
        for page in pages {
            let ia = (page % (shape.ia_end() >> shape.page_shift)) << shape.page_shift;
            let at = found.partition_point(|entry| entry.ia <= ia) - 1;
            prop_assert_eq!(found[at].raw.to_bits(), tables.translate(ia).raw, "at {:#x}", ia);
        }
    }

    /// What the fast path folds is what `merge` folds, entry by entry.
    #[test]
    fn coalescer_equals_merge(tables in random::tables(), exact: bool) {
        let (records, _) = one_call(&tables, exact);
        let expected = merge_all(&singles(&tables), &fold(&tables, exact));
        prop_assert_eq!(&records, &expected);
        prop_assert_eq!(without_digest(&tables, exact), expected);
    }

    /// Expanding the records gives back level, kind, attributes of each entry, and where a run is linear its output.
    #[test]
    fn expanded_records_are_the_entries(tables in random::tables(), exact: bool) {
        let shape = tables.shape;
        let (records, _) = one_call(&tables, exact);
        let mut entries = entries(&tables).into_iter();
        for record in &records {
            let shift = shape.shift(record.level);
            let is_linear = record.flags & record_flags::LINEAR != 0;
            let is_beyond = |oa: u64| oa >> shape.output_bits() != 0;
            prop_assert!(is_linear || !exact);
            prop_assert_eq!(fold(&tables, exact).one_run(record), record.count);
            for n in 0..u64::from(record.count) {
                let entry = entries.next().unwrap();
                prop_assert_eq!(entry.ia, record.ia + (n << shift));
                prop_assert_eq!((entry.level.get(), entry.kind as u8), (record.level, record.kind));
                let expected: Translation = tables.translate(entry.ia);
                if record.kind == RecordKind::LEAF.0 {
                    let attrs = |raw: u64| raw & !shape.encode(u64::MAX << shift);
                    prop_assert_eq!(attrs(expected.raw), attrs(record.descriptor));
                    prop_assert_eq!(is_beyond(expected.oa), is_beyond(record.oa), "across the output size");
                    prop_assert!(!is_linear || expected.oa == record.oa.wrapping_add(n << shift));
                } else {
                    prop_assert_eq!(expected.raw, record.descriptor);
                }
            }
        }
        prop_assert!(entries.next().is_none());
    }

    /// Pages that point at each other in any way.
    #[test]
    fn hostile_tables(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        check(&bytes);
    }

    /// Cut into calls of any size, a dump is the same after merging, and so is its digest.
    #[test]
    fn chunks_join_to_the_whole(
        tables in random::tables(),
        exact: bool,
        chunks in proptest::collection::vec((MIN_BUDGET..3000, 1..130_usize), 1..20),
    ) {
        let mut turns = chunks.iter().cycle();
        let (parts, sum, _) = dump(&tables, exact, || *turns.next().unwrap());
        let (whole, digest) = one_call(&tables, exact);
        prop_assert_eq!(merge_all(&parts, &fold(&tables, exact)), whole);
        prop_assert_eq!(sum, digest);
    }

    /// The digest is the sum over what the naive translator sees, and any flipped bit changes it.
    #[test]
    fn digest_finds_a_flipped_bit(tables in random::tables(), which: prop::sample::Index, bit in 0..64_u32) {
        let sum = |records: &[Record]| {
            records.iter().fold(0_u64, |sum, one| sum.wrapping_add(digest::mix(one.ia, one.level, one.descriptor)))
        };
        let mut singles = singles(&tables);
        let (_, digest) = one_call(&tables, false);
        prop_assert_eq!(sum(&singles), digest);
        let at = which.index(singles.len());
        singles[at].descriptor ^= 1 << bit;
        prop_assert_ne!(sum(&singles), digest);
    }

    /// Records may come from a file anybody wrote.
    #[test]
    fn merge_survives_any_records(
        (shape, exact) in (random::shape(), any::<bool>()),
        a in record(),
        b in record(),
        follows: bool,
    ) {
        let fold = Fold { geometry: shape.geometry(), exact };
        // All the same but in another place, or right behind.
        let mut b = if follows { Record { ia: b.ia, count: b.count, ..a } } else { b };
        if follows && b.descriptor & 0x10 != 0 && (-1..=3).contains(&a.level) {
            let span = u64::from(a.count).checked_shl(shape.shift(a.level)).unwrap_or(0);
            b = Record { ia: a.ia.wrapping_add(span), count: b.count, ..a };
        }
        if let Some(joined) = merge(&a, &b, &fold) {
            prop_assert_eq!(a.ia.wrapping_add(u64::from(a.count) << shape.shift(a.level)), b.ia);
            prop_assert_eq!(Some(joined.count), a.count.checked_add(b.count));
            let expected = Record { count: joined.count, flags: joined.flags, ..a };
            prop_assert_eq!(joined, expected);
        }
    }

    /// A walk that begins anywhere finds what the whole walk finds from there on.
    #[test]
    fn walk_from_anywhere(tables in random::tables(), from: u64, pages in 1..5000_u64) {
        let shape = tables.shape;
        let space = shape.ia_end() >> shape.page_shift;
        let from = from % space;
        let to = u64::min(from + pages, space);
        let (from, to) = (from << shape.page_shift, to << shape.page_shift);
        let mut sink = Entries::default();
        let walked = walk_range(&tables, &tables.root(), ipa(from), ipa(to), u32::MAX, &mut sink).unwrap();
        prop_assert_eq!(walked.next.get(), to);
        let expected: Vec<_> = entries(&tables)
            .into_iter()
            .filter(|entry| entry.ia < to && entry.ia + (1_u64 << shape.shift(entry.level.get())) > from)
            .collect();
        prop_assert_eq!(sink.entries, expected);
    }
}

#[test]
fn wrong_tables_are_never_entered() {
    // A guard for the other tests: the random tables do contain what they claim to.
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut kinds = std::collections::HashSet::new();
    for _ in 0..200 {
        let tables = random::tables().new_tree(&mut runner).unwrap().current();
        kinds.extend(entries(&tables).iter().map(|entry| entry.kind));
    }
    for kind in
        [EntryKind::Invalid, EntryKind::Leaf, EntryKind::Reserved, EntryKind::TableOutside, EntryKind::TableLoop]
    {
        assert!(kinds.contains(&kind), "{kind:?} never made");
    }
}
