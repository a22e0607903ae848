// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packed slots: they tell what exact records tell, of any table, however it is cut into calls; and what they take.

use crate::common::hostile::merge_all;
use crate::common::{all as entries, ipa, shape, Records, Tables, PAGE, TABLE};
use crate::random;
use proptest::prelude::*;
use s2dump_abi::slot::{record_flags, PackedRun, Record, RecordKind};
use s2dump_hyp::coalescer::{Coalescer, Fold, RecordOut};
use s2dump_hyp::packed::{DumpSink, PackedOut, Unpacked};
use s2dump_hyp::walker::{walk_address, walk_range, EntryKind, MIN_BUDGET};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use zerocopy::IntoBytes;

/// The words of a slot, and how many were put.
#[derive(Debug)]
struct Words(Vec<AtomicU64>, usize);

impl Words {
    fn new(room: usize) -> Self {
        Self((0..room).map(|_| AtomicU64::new(0xaaaa_aaaa_aaaa_aaaa)).collect(), 0)
    }

    fn put(&self) -> Vec<u64> {
        self.0[..self.1].iter().map(|word| word.load(Ordering::Relaxed)).collect()
    }
}

impl RecordOut for Words {
    fn room(&self) -> usize {
        0
    }

    fn put(&mut self, record: &Record) {
        unreachable!("packed, not {record:?}")
    }
}

impl PackedOut for Words {
    fn free_words(&self) -> &[AtomicU64] {
        &self.0[self.1..]
    }

    fn put_packed(&mut self, head: &PackedRun, words: usize) {
        for (word, bytes) in self.0[self.1..].iter().zip(head.as_bytes().chunks(8)) {
            word.store(u64::from_le_bytes(bytes.try_into().unwrap()), Ordering::Relaxed);
        }
        self.1 += 2 + words;
        assert!(self.1 <= self.0.len(), "put without room");
    }
}

/// What came of a dump.
struct Dumped {
    /// Without those of tables.
    records: Vec<Record>,
    /// Level, first input address, and address of each table that was told.
    tables: BTreeSet<(i8, u64, u64)>,
    digest: Option<u64>,
    words: usize,
    calls: usize,
}

/// Splits off the records of tables.
fn split(records: impl IntoIterator<Item = Record>) -> (Vec<Record>, BTreeSet<(i8, u64, u64)>) {
    let (tables, records): (Vec<_>, Vec<_>) =
        records.into_iter().partition(|record| record.kind == RecordKind::TABLE.0);
    assert!(tables.iter().all(|table| table.count == 1));
    (records, tables.iter().map(|table| (table.level, table.ia, table.oa)).collect())
}

/// A packed dump in as many calls as it takes.
fn pack(tables: &Tables, digest: bool, telling: bool, mut chunk: impl FnMut() -> (u32, usize)) -> Dumped {
    let geometry = tables.shape.geometry();
    let end = ipa(tables.shape.ia_end());
    let mut dumped = Dumped { records: Vec::new(), tables: BTreeSet::new(), digest: None, words: 0, calls: 0 };
    let mut cursor = ipa(0);
    while cursor != end {
        let (budget, room) = chunk();
        let told = telling.then_some(cursor.get());
        let fold = Fold { geometry, exact: true };
        let coalescer = Coalescer::new(fold, 0, digest, Words::new(room)).limited(budget, 16).telling_tables(told);
        let mut sink = DumpSink::new(coalescer, true);
        let progress = walk_range(tables, &tables.root(), cursor, end, budget, &mut sink).unwrap();
        let (out, sum) = sink.finish();
        assert!(progress.visited <= budget, "visited {} of {budget}", progress.visited);
        assert!(progress.next > cursor, "no progress at {cursor:?}");
        let words = out.put();
        let (records, found) = split(Unpacked::new(words.iter().copied(), &geometry));
        // What is told begins where the call did, or with the entry that spans that.
        assert!(found.iter().all(|&(_, ia, _)| ia >= cursor.get()));
        dumped.records.extend(records);
        dumped.tables.extend(found);
        dumped.digest = sum.map(|sum| dumped.digest.unwrap_or(0).wrapping_add(sum));
        dumped.words += words.len();
        dumped.calls += 1;
        cursor = progress.next;
    }
    dumped
}

/// Exact records by one call, and their digest.
fn exact(tables: &Tables, telling: bool) -> (Vec<Record>, BTreeSet<(i8, u64, u64)>, u64) {
    let fold = Fold { geometry: tables.shape.geometry(), exact: true };
    let out = Records { records: Vec::new(), room: usize::MAX };
    let mut coalescer = Coalescer::new(fold, 0, true, out).telling_tables(telling.then_some(0));
    let end = ipa(tables.shape.ia_end());
    walk_range(tables, &tables.root(), ipa(0), end, u32::MAX, &mut coalescer).unwrap();
    let (out, digest) = coalescer.finish();
    let (records, found) = split(out.records);
    (merge_all(&records, &fold), found, digest.unwrap())
}

/// The tables on the way to any entry.
fn tables_on_the_way(tables: &Tables) -> BTreeSet<(i8, u64, u64)> {
    let mut found = BTreeSet::new();
    for entry in entries(tables) {
        walk_address(tables, &tables.root(), ipa(entry.ia), |above| {
            if above.kind == EntryKind::Table {
                found.insert((above.level.get(), above.ia, above.oa.get()));
            }
        })
        .unwrap();
    }
    found
}

fn merged(tables: &Tables, records: &[Record]) -> Vec<Record> {
    merge_all(records, &Fold { geometry: tables.shape.geometry(), exact: true })
}

/// Pages whose output addresses jump, each to another place.
fn scattered(pages: u64) -> Tables {
    let mut tables = Tables::new(shape("4k_40_two_roots"));
    (0..pages).for_each(|n| tables.map(n << 12, 3, ((n * 0x9e37) % (1 << 20)) << 12, PAGE));
    tables
}

proptest! {
    /// In one call or in many, with a digest or without, with tables told or without.
    #[test]
    fn packed_equals_exact(
        tables in random::tables(),
        digest: bool,
        telling: bool,
        chunks in proptest::collection::vec((MIN_BUDGET..3000, 15..2000_usize), 1..8),
    ) {
        let (expected, found, sum) = exact(&tables, telling);
        let mut chunks = chunks.into_iter().cycle();
        let one = pack(&tables, digest, telling, || (u32::MAX, 1 << 22));
        let many = pack(&tables, digest, telling, || chunks.next().unwrap());
        prop_assert_eq!(one.calls, 1);
        for dumped in [&one, &many] {
            prop_assert_eq!(&merged(&tables, &dumped.records), &expected);
            prop_assert_eq!(&dumped.tables, &found);
            prop_assert_eq!(dumped.digest, digest.then_some(sum));
        }
        prop_assert_eq!(found, if telling { tables_on_the_way(&tables) } else { BTreeSet::new() });
        // However little a call has: it makes progress.
        let least = pack(&tables, digest, telling, || (MIN_BUDGET, 15));
        prop_assert_eq!(merged(&tables, &least.records), expected);
    }

    /// A capture may hold any words.
    #[test]
    fn unpacking_survives_any_words(shape in random::shape(), words in proptest::collection::vec(any::<u64>(), 0..64)) {
        let records = Unpacked::new(words.iter().copied(), &shape.geometry()).count();
        prop_assert!(records <= words.len());
    }
}

/// Hand-made heads: what a list is, and where words are missing.
#[test]
fn unpacks_runs_and_lists() {
    let geometry = shape("4k_39_one_root").geometry();
    let head = |ia, count, flags| -> [u64; 2] {
        let head = PackedRun { ia, count, level: 3, kind: RecordKind::LEAF.0, flags };
        zerocopy::transmute!(head)
    };
    let flags = record_flags::CONTINUES | record_flags::LIST;
    let mut words = head(0x5000, 3, flags).to_vec();
    words.extend([0x9000 | PAGE, 0x4000 | PAGE | 1 << 54, 0x7000 | PAGE]);
    words.extend(head(0x8000, 4, record_flags::LINEAR));
    words.push(0x1000 | PAGE);
    let records: Vec<_> = Unpacked::new(words.iter().copied(), &geometry).collect();
    let told: Vec<_> = records.iter().map(|record| (record.ia, record.oa, record.count, record.flags)).collect();
    let linear = record_flags::LINEAR;
    let first = (0x5000, 0x9000, 1, linear | record_flags::CONTINUES);
    assert_eq!(told, [first, (0x6000, 0x4000, 1, linear), (0x7000, 0x7000, 1, linear), (0x8000, 0x1000, 4, linear)]);
    assert_eq!(records[1].descriptor, 0x4000 | PAGE | 1 << 54);
    for (have, records) in [(0, 0), (1, 0), (2, 0), (3, 1), (4, 2), (5, 3), (7, 3), (8, 4)] {
        assert_eq!(Unpacked::new(words.iter().copied().take(have), &geometry).count(), records, "{have} words");
    }
    // A list of none, and one that says more than there is.
    let none = [head(0, 0, record_flags::LIST), head(0, u32::MAX, record_flags::LIST)].concat();
    assert_eq!(Unpacked::new(none.into_iter().chain([PAGE]), &geometry).count(), 1);
    // A level whose entries would span more than there are addresses.
    let head = PackedRun { ia: 0, count: 2, level: -1, kind: RecordKind::LEAF.0, flags: record_flags::LIST };
    let [ia, tail]: [u64; 2] = zerocopy::transmute!(head);
    assert_eq!(Unpacked::new([ia, tail, PAGE, PAGE].into_iter(), &shape("64k_52").geometry()).count(), 2);
}

/// What an exact dump is packed for: 8 bytes for a page that is like no other.
#[test]
fn good_scattered_pages_take_8_bytes() {
    let tables = scattered(16 * 512);
    let dumped = pack(&tables, false, false, || (u32::MAX, 1 << 20));
    assert_eq!(dumped.records.len(), 16 * 512 + 3, "the pages, and holes of three levels");
    // Lists of 64, and the holes.
    assert_eq!(dumped.words, 16 * (512 + 8 * 2) + 3 * 3);
}

/// Where output addresses run on for a while, they are a run, also behind others that do not.
#[test]
fn good_runs_among_scattered_pages() {
    let mut tables = scattered(512);
    (100..300).for_each(|n| tables.map(n << 12, 3, n << 12, PAGE));
    let dumped = pack(&tables, false, false, || (u32::MAX, 1 << 20));
    // It is found behind a list, which has 64.
    let run = dumped.records.iter().find(|record| record.count > 1 && record.kind == RecordKind::LEAF.0).unwrap();
    assert_eq!((run.ia, run.count), (128 << 12, 172));
    assert_eq!(dumped.words, 128 + 2 * 2 + 3 + 212 + 4 * 2 + 3 * 3);
}

/// A short run with nothing behind it that could go on with a list: no more than a record has.
#[test]
fn good_short_runs_between_holes() {
    let mut tables = Tables::new(shape("4k_25_pages_only"));
    (0..64).for_each(|n| tables.map((n / 2 * 4 + n % 2) << 12, 3, n << 12, PAGE));
    let dumped = pack(&tables, false, false, || (u32::MAX, 1 << 20));
    // And the holes of fifteen other tables.
    assert_eq!((dumped.records.len(), dumped.words), (79, 79 * 3));
}

/// What is no leaf ends a list wherever it stands among those that are copied at once, and none of it is lost.
#[test]
fn good_lists_end_at_any_entry() {
    for at in 0..24 {
        for other in [0, 3 << 60, 0b01] {
            let mut tables = Tables::new(shape("4k_16_pages_only"));
            (0..16).for_each(|n| tables.map(n << 12, 3, (n * 7 % 16) << 12, PAGE));
            tables.set((at % 16) << 12, 3, other);
            let (expected, ..) = exact(&tables, false);
            for room in 15..40 {
                for digest in [false, true] {
                    let dumped = pack(&tables, digest, false, || (u32::MAX, room));
                    assert_eq!(merged(&tables, &dumped.records), expected, "{other:#x} at {at}, room for {room}");
                }
            }
        }
    }
}

/// The same table page, entered at many places, is told each time, and a wrong one never.
#[test]
fn good_tables_told_are_those_entered() {
    let mut tables = scattered(600);
    let level_3 = tables.entry_pa(0, 3) & !0xfff;
    (5..9).for_each(|n| tables.map(n << 21, 2, level_3, TABLE));
    tables.map(9 << 21, 2, 1 << 39, TABLE);
    let dumped = pack(&tables, false, true, || (u32::MAX, 1 << 20));
    assert_eq!(dumped.tables, tables_on_the_way(&tables));
    assert_eq!(dumped.tables.iter().filter(|&&(level, _, pa)| level == 2 && pa == level_3).count(), 5);
}
