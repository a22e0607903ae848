// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tables nobody would write, made of any bytes, and what must hold of a walk through them.
//!
//! Pages point at each other in any way: loops, shared tables, tables at two levels at once, tables outside memory or
//! beyond the output size. Fuzzing (`fuzz/`) and property tests feed the same [`check`].

use super::{all_legal, translate, Records, Shape, Translation, FILL, TABLE};
use s2dump_abi::slot::{record_flags, Record, RecordKind};
use s2dump_hyp::coalescer::{merge, Coalescer, Fold};
use s2dump_hyp::digest;
use s2dump_hyp::table_memory::{OutsideMemory, Root, TableMemory};
use s2dump_hyp::walker::{walk_address, walk_range, EntryKind, MIN_BUDGET};
use s2dump_vmsa::{Granule, Ipa, Level, PhysAddr};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::LazyLock;

/// A walk is given up after so many descriptors: tables that point at each other have no end worth waiting for.
const MAX_VISITED: u32 = 2500;
const MAX_CALLS: u32 = 40;
const MAX_OPERATIONS: usize = 40;
/// Pages besides those of the root.
const MAX_TABLES: u64 = 5;

static SHAPES: LazyLock<Vec<Shape>> = LazyLock::new(all_legal);

/// Numbers out of bytes; zero when they have run out.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn number(&mut self, bytes: usize) -> u64 {
        let (taken, rest) = self.0.split_at(usize::min(bytes, self.0.len()));
        self.0 = rest;
        taken.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    fn below(&mut self, end: u64) -> u64 {
        self.number(if end > 256 { 8 } else { 1 }) % end
    }
}

/// Memory with a table in it.
struct Hostile {
    shape: Shape,
    words: Vec<AtomicU64>,
    base: u64,
    root: u64,
    lookups: Cell<u32>,
}

impl TableMemory for Hostile {
    fn table(&self, table: PhysAddr, granule: Granule) -> Result<&[AtomicU64], OutsideMemory> {
        self.lookups.set(self.lookups.get() + 1);
        let outside = OutsideMemory { table };
        assert_eq!(table.get() % (1 << granule.page_shift()), 0, "asked for a table at no page");
        let first = usize::try_from(table.get().checked_sub(self.base).ok_or(outside)? / 8).map_err(|_| outside)?;
        self.words.get(first..).and_then(|rest| rest.get(..1 << granule.index_bits())).ok_or(outside)
    }
}

impl Hostile {
    fn new(source: &mut Source<'_>) -> Self {
        let mut shape = SHAPES[source.below(SHAPES.len() as u64) as usize];
        shape.pa_bits = [32, 36, 40, 42, 44, 48, 52][source.below(7) as usize];
        shape.hpd = source.below(2) == 1;
        let page_bytes = 1 << shape.page_shift;
        let page_words = page_bytes / 8;

        let root_bytes = shape.root_words() as u64 * 8;
        let root_pages = root_bytes.div_ceil(page_bytes);
        let pages = root_pages + 1 + source.below(MAX_TABLES);
        // At the bottom, in the middle, up to the last page or over it; always aligned for the largest root.
        let aligned = 16 * page_bytes;
        let base = match source.below(4) {
            0 => 0,
            1 => 0x8000_0000,
            2 => (1 << shape.output_bits()) - aligned,
            _ => source.number(8) % (1 << shape.output_bits()) / aligned * aligned,
        };
        // A small root may lie anywhere in its page.
        let root = base + source.below(u64::max(page_bytes / root_bytes, 1)) * root_bytes;

        let tile: Vec<u64> = match source.below(8) {
            0 => vec![FILL],
            1 => {
                let words = source.below(256);
                (0..=words).map(|_| source.number(8)).collect()
            }
            _ => vec![0],
        };
        let words = tile.iter().cycle().take((pages * page_words) as usize).map(|&word| AtomicU64::new(word)).collect();
        let hostile = Self { shape, words, base, root, lookups: Cell::new(0) };
        for _ in 0..MAX_OPERATIONS {
            if source.0.is_empty() {
                break;
            }
            hostile.write(source, pages);
        }
        hostile
    }

    /// Fills neighboring entries of a page.
    fn write(&self, source: &mut Source<'_>, pages: u64) {
        let shape = &self.shape;
        let page_words = 1 << shape.index_bits();
        let (page, first) = (source.below(pages), source.number(2) % page_words);
        let count = match source.below(4) {
            0 => 1,
            1 => source.below(16),
            _ => source.number(2) % page_words,
        };
        let (kind, attrs, number) = (source.below(8), source.number(2) << 48 | source.number(2), source.number(8));
        let level = shape.start_level.max(source.below(5) as i8 - 1);
        let step = 1_u64.checked_shl(shape.shift(level)).unwrap_or(0);
        for n in 0..count.min(page_words - first) {
            let entry = &self.words[(page * page_words + first + n) as usize];
            let page_at = |page: u64| self.base.wrapping_add((page % (pages + 1)) << shape.page_shift);
            let leaf = (attrs | 1) & !(u64::from(level < 3) << 1);
            let raw = match kind {
                0 => number,
                1 => shape.encode(page_at(number)) | attrs & 0xfff0_0000_0000_00fc | TABLE,
                2 => shape.encode(page_at(number.wrapping_add(n))) | attrs & 0xfff0_0000_0000_00fc | TABLE,
                3 => shape.encode(number) | TABLE,
                4 => number << 60,
                // Runs on, also where the address goes on in other bits, or ends.
                5 => shape.encode((1_u64 << 50).wrapping_sub(number % 256 * step).wrapping_add(n * step)) | leaf,
                6 => shape.encode(number.wrapping_add(n * step)) | leaf,
                _ => shape.encode(number.wrapping_mul(n | 1)) | leaf,
            };
            entry.store(raw, Ordering::Relaxed);
        }
    }

    fn load(&self, pa: u64) -> Option<u64> {
        let word = self.words.get(usize::try_from(pa.checked_sub(self.base)? / 8).ok()?)?;
        Some(word.load(Ordering::Relaxed))
    }

    fn translate(&self, ia: u64) -> Translation {
        translate(&self.shape, self.root, |pa| self.load(pa), ia)
    }

    /// The root, by address and, where a register can hold it, by register.
    fn root(&self) -> Root {
        let geometry = self.shape.geometry();
        let root = Root::try_new(geometry, PhysAddr::new(self.root)).unwrap();
        let is_wide = self.shape.lpa2 || self.shape.page_shift == 16 && self.shape.output_bits() == 52;
        if self.root >> self.shape.output_bits() != 0 || (is_wide && self.root % 64 != 0) {
            return root;
        }
        let high = if is_wide { (self.root >> 48) << 2 } else { 0 };
        let asid = 0xabcd << 48;
        let by_register = Root::from_register(geometry, asid | self.root & 0xffff_ffff_fffe | high | 1).unwrap();
        assert_eq!(by_register.base(), root.base());
        by_register
    }
}

/// Walks tables made of `bytes` in calls of any size, and compares all of it with the naive translator.
pub(crate) fn check(bytes: &[u8]) {
    let mut source = Source(bytes);
    let exact = source.below(2) == 1;
    let budget = MIN_BUDGET + source.number(2) as u32 % MAX_VISITED;
    let room = 1 + source.below(130) as usize;
    let from = source.number(8);
    let hostile = Hostile::new(&mut source);
    let shape = &hostile.shape;
    let root = hostile.root();
    let fold = Fold { geometry: shape.geometry(), exact };
    // Mostly at the beginning or the end, where tables are likely.
    let from = match from % 4 {
        0 => 0,
        1 => shape.ia_end() - 1 - (from >> 2) % (64 << shape.page_shift).min(shape.ia_end()),
        _ => (from >> 2) % shape.ia_end(),
    };
    let end = Ipa::try_new(shape.ia_end()).unwrap();

    let (mut cursor, mut visited, mut calls) = (Ipa::try_new(from).unwrap(), 0, 0);
    let (mut parts, mut singles, mut sum) = (Vec::new(), Vec::new(), 0_u64);
    check_address(&hostile, &root, cursor);
    while cursor != end && visited < MAX_VISITED && calls < MAX_CALLS {
        hostile.lookups.set(0);
        let mut coalescer = Coalescer::new(fold, 0, true, Records { records: Vec::new(), room });
        let walked = walk_range(&hostile, &root, cursor, end, budget, &mut coalescer).unwrap();
        let (out, digest) = coalescer.finish();
        assert!(walked.visited <= budget, "visited {} of {budget}", walked.visited);
        assert!(hostile.lookups.get() <= 2 * walked.visited + 1, "{} lookups", hostile.lookups.get());
        assert!(walked.next > cursor, "no progress at {cursor:?}");
        let reached = expand(&hostile, &out.records, cursor, exact, &mut singles);
        assert_eq!(u64::min(reached, end.get()), walked.next.get(), "entries end where the walk goes on");
        parts.extend(out.records);
        sum = sum.wrapping_add(digest.unwrap());
        (cursor, visited, calls) = (walked.next, visited + walked.visited, calls + 1);
    }

    // In one call to where the many came: the same runs, which are what `merge` makes of single entries.
    let out = Records { records: Vec::new(), room: usize::MAX };
    let mut coalescer = Coalescer::new(fold, 0, true, out);
    let whole = walk_range(&hostile, &root, Ipa::try_new(from).unwrap(), cursor, u32::MAX, &mut coalescer).unwrap();
    assert_eq!(whole.next, cursor);
    let (out, digest) = coalescer.finish();
    assert_eq!(merge_all(&parts, &fold), out.records);
    assert_eq!(merge_all(&singles, &fold), out.records);
    let shares = singles.iter().map(|one| digest::mix(one.ia, one.level, one.descriptor));
    assert_eq!((digest, shares.fold(0, u64::wrapping_add)), (Some(sum), sum));
}

/// Compares each entry of `records` with what the naive translator says, and adds it to `singles`; returns their end.
fn expand(hostile: &Hostile, records: &[Record], cursor: Ipa, exact: bool, singles: &mut Vec<Record>) -> u64 {
    let shape = &hostile.shape;
    let mut ia = records[0].ia;
    assert!(ia <= cursor.get() && ia + (1 << shape.shift(records[0].level)) > cursor.get());
    for record in records {
        assert_eq!(record.ia, ia, "a gap");
        let shift = shape.shift(record.level);
        let is_linear = record.flags & record_flags::LINEAR != 0;
        assert!(is_linear || !exact && record.kind == RecordKind::LEAF.0);
        for n in 0..u64::from(record.count) {
            let found = hostile.translate(ia);
            let flags = record_flags::LINEAR | u16::from(found.inherited) << 11;
            assert_eq!((record.level, record.kind), (found.level, found.kind as u8), "at {ia:#x}");
            assert_eq!(record.flags | record_flags::LINEAR, flags, "at {ia:#x}");
            let address = if found.kind == EntryKind::Leaf { shape.encode(u64::MAX << shift) } else { 0 };
            assert_eq!((record.descriptor ^ found.raw) & !address, 0, "at {ia:#x}");
            let moved = if found.kind == EntryKind::Leaf { n << shift } else { 0 };
            assert!(!is_linear || found.oa == record.oa.wrapping_add(moved), "at {ia:#x}");
            singles.push(Record { ia, oa: found.oa, descriptor: found.raw, count: 1, flags, ..*record });
            ia += 1 << shift;
        }
    }
    ia
}

/// The steps to one address end with what the naive translator finds there.
fn check_address(hostile: &Hostile, root: &Root, ia: Ipa) {
    let mut steps = Vec::new();
    walk_address(hostile, root, ia, |entry| steps.push(*entry)).unwrap();
    let (last, above) = steps.split_last().unwrap();
    assert!(above.iter().all(|entry| entry.kind == EntryKind::Table));
    assert!(steps.len() <= Level::MAX_DEPTH);
    for (entry, level) in steps.iter().zip(hostile.shape.start_level..) {
        assert_eq!(entry.level.get(), level);
        assert!(entry.ia <= ia.get() && ia.get() - entry.ia < 1 << hostile.shape.shift(level));
    }
    let found = hostile.translate(last.ia);
    let got = (last.level.get(), last.kind, last.raw.to_bits(), last.oa.get(), last.inherited.to_bits());
    assert_eq!(got, (found.level, found.kind, found.raw, found.oa, found.inherited));
}

/// Joins what `merge` joins.
pub(crate) fn merge_all(records: &[Record], fold: &Fold) -> Vec<Record> {
    let mut merged: Vec<Record> = Vec::new();
    for record in records {
        match merged.last_mut().and_then(|last| Some((merge(last, record, fold)?, last))) {
            Some((joined, last)) => *last = joined,
            None => merged.push(*record),
        }
    }
    merged
}
