// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Packs the entries of a walk into a slot, 8 bytes for an entry that is like no other, and unpacks them at EL0.
//!
//! Entries that are all the same, and leaves whose output addresses run on, become a run: a head and the first descriptor.
//! Other leaves become a list: a head and a descriptor for each. So what a reader makes of the slots is what the
//! [`Coalescer`] makes of the same table when it is exact, but for where runs are cut: here each ends with its table page.
//!
//! A list is copied some entries at a time. They are stored before it is known that they are leaves; what was stored too much
//! is not counted, and is written over by what comes next. All of it are descriptors that the call may show.

use crate::coalescer::{Coalescer, RecordOut};
use crate::digest;
use crate::run::{shorten, Same};
use crate::walker::{EntryKind, Sink, Stretch, StretchEnd};
use core::sync::atomic::{AtomicU64, Ordering};
use s2dump_abi::slot::{record_flags, PackedRun, Record, RecordKind};
use s2dump_vmsa::{Geometry, Level, RawDescriptor};

/// Entries of a list that are copied before they are looked at. Also the fewest whose output addresses run on that are a run
/// whatever follows.
const AT_ONCE: usize = 8;
/// The most entries of a list. Behind them the output addresses may have begun to run on, and are a run if so; the head takes a
/// quarter of a byte for each of them.
const MAX_LIST: u64 = 64;

/// What a run or a list costs beside its entries, in descriptors read without a digest: measured where lists are short
/// (`cargo xtask bench`). An entry costs one.
pub(crate) const HEAD_COST: u16 = 24;
/// How many heads it costs to look a table page up, to enter and to leave it: measured where tables are nearly empty.
const HEADS_OF_STRETCH: u32 = 4;

/// Where packed entries go.
pub trait PackedOut: RecordOut {
    /// Returns the words that are left, to be written before they are put.
    fn free_words(&self) -> &[AtomicU64];

    /// Appends `head`, and counts the `words` behind it. Only called with room for all.
    fn put_packed(&mut self, head: &PackedRun, words: usize);
}

/// Where the entries of a dump go: folded into records, or packed.
///
/// One type for both, so that there is one walk in the object of EL2. What is packed uses what the coalescer keeps but for the
/// run, which stays empty.
#[derive(Debug)]
pub struct DumpSink<O> {
    coalescer: Coalescer<O>,
    is_packed: bool,
}

impl<O: PackedOut> DumpSink<O> {
    /// Makes one that packs what is meant for `coalescer`, or leaves it to that. To be packed, it must be exact.
    #[inline(always)]
    pub fn new(coalescer: Coalescer<O>, is_packed: bool) -> Self {
        Self { coalescer, is_packed }
    }

    /// Ends it and returns the output and the digest.
    #[inline(always)]
    pub fn finish(self) -> (O, Option<u64>) {
        self.coalescer.finish()
    }
}

impl<O: PackedOut> Sink for DumpSink<O> {
    #[inline(always)]
    fn take_stretch(&mut self, stretch: &Stretch<'_>) -> (usize, StretchEnd) {
        if self.is_packed {
            pack(&mut self.coalescer, stretch)
        } else {
            self.coalescer.take_stretch(stretch)
        }
    }

    #[inline(always)]
    fn tables(&self) -> Option<u64> {
        self.coalescer.tables()
    }
}

/// Packs the entries of `stretch` up to the first table descriptor.
///
/// Not inlined, so that folding keeps its registers to itself. (The crate of the EL2 object makes its code, since it is
/// generic: this one is metadata there.)
#[inline(never)]
fn pack<O: PackedOut>(sink: &mut Coalescer<O>, stretch: &Stretch<'_>) -> (usize, StretchEnd) {
    let leaf_same = sink.fold.same_mask(RecordKind::LEAF, stretch.level);
    let mut taken = 0;
    let end = loop {
        let rest = stretch.entries.get(taken..).unwrap_or_default();
        let Some(cell) = rest.first() else { break StretchEnd::All };
        // The call has time for so many.
        let rest = shorten(rest, sink.left.into());
        let [_, _, place @ ..] = sink.out.free_words() else { break StretchEnd::Full };
        if rest.is_empty() || place.is_empty() {
            break StretchEnd::Full;
        }
        let raw = RawDescriptor::from_bits(cell.load(Ordering::Relaxed));
        let (kind, first) = (stretch.kind(raw), raw.to_bits());
        let (step, steps) = match kind {
            EntryKind::Table if !stretch.is_table => break StretchEnd::Table(raw),
            // Only as far as the address goes on in place and within the output size: a carry out of it changes other bits.
            EntryKind::Leaf => (1 << stretch.shift, !(first | leaf_same) >> stretch.shift),
            _ => (0, u64::MAX),
        };
        let same = Same { expected: first.wrapping_add(step), step, mask: u64::MAX };
        let behind = shorten(rest.get(1..).unwrap_or_default(), steps);
        let mut count = 1;
        if behind.first().is_some_and(|cell| same.is_next(cell)) {
            count += same.count(behind);
        }
        // A short run is a list, unless no leaf follows.
        let mut listed = 0;
        if step != 0
            && count < AT_ONCE
            && rest.get(count).is_some_and(|cell| is_like(first, cell.load(Ordering::Relaxed)))
        {
            // None if the first changed meanwhile, which what is a table does not: then it is a run, as it was.
            listed = copy_list(shorten(rest, MAX_LIST), first, place);
        }
        let (words, flags) = if listed != 0 {
            count = listed;
            (listed, record_flags::LIST)
        } else {
            put_word(place, first);
            (1, record_flags::LINEAR)
        };
        let inherited = u16::from(stretch.inherited(kind).to_bits()) << record_flags::INHERITED.trailing_zeros();
        let head = PackedRun {
            ia: stretch.ia.wrapping_add((taken as u64) << stretch.shift),
            count: count as u32, // At most a table page's.
            level: stretch.level.get(),
            kind: kind as u8,
            flags: flags | inherited | core::mem::take(&mut sink.flags),
        };
        sink.out.put_packed(&head, words);
        sink.spend(u32::from(sink.record_cost) + count as u32);
        taken += count;
    };
    if taken != 0 && !stretch.is_entered() {
        sink.spend(u32::from(sink.record_cost) * HEADS_OF_STRETCH);
        let entries = shorten(stretch.entries, taken as u64);
        sink.digest = sink.digest.map(|sum| sum.wrapping_add(sum_of(entries, stretch)));
    }
    (taken, end)
}

/// Writes the first word.
#[inline(always)]
fn put_word(place: &[AtomicU64], value: u64) {
    if let Some(word) = place.first() {
        word.store(value, Ordering::Relaxed);
    }
}

/// Returns whether a descriptor is a leaf of a level, of which `leaf` is one.
#[inline(always)]
fn is_like(leaf: u64, raw: u64) -> bool {
    (leaf ^ raw) & 0b11 == 0
}

/// Copies leaves from the beginning of `entries` to `place`, up to what is no leaf as `first` is. Returns how many.
///
/// The loop that meets nearly all entries where they are alike in nothing. Each is loaded once: the MMU may write it.
#[inline(always)]
fn copy_list(entries: &[AtomicU64], first: u64, place: &[AtomicU64]) -> usize {
    let copy = |cell: &AtomicU64, word: &AtomicU64| {
        let raw = cell.load(Ordering::Relaxed);
        word.store(raw, Ordering::Relaxed);
        raw
    };
    let mut count = 0;
    for (cells, words) in entries.chunks_exact(AT_ONCE).zip(place.chunks_exact(AT_ONCE)) {
        let differ = cells.iter().zip(words).fold(0, |all, (cell, word)| all | copy(cell, word) ^ first);
        if !is_like(differ, 0) {
            break;
        }
        count += AT_ONCE;
    }
    // What is left: less than is copied at once, or up to what is no leaf.
    let rest = entries.get(count..).unwrap_or_default().iter().zip(place.get(count..).unwrap_or_default());
    count + rest.take_while(|(cell, word)| is_like(copy(cell, word), first)).count()
}

/// Returns the share that the first `entries` of `stretch` have of the digest. They are loaded once more for it: of what the MMU
/// writes meanwhile, the digest and the slot may tell before and after.
#[inline(always)]
fn sum_of(entries: &[AtomicU64], stretch: &Stretch<'_>) -> u64 {
    let (mut sum, mut ia) = (0_u64, stretch.ia);
    for cell in entries {
        sum = sum.wrapping_add(digest::mix(ia, stretch.level.get(), cell.load(Ordering::Relaxed)));
        ia = ia.wrapping_add(1 << stretch.shift);
    }
    sum
}

/// The records that a packed slot stands for: of a list, one for each entry. Trusts nothing of its words.
#[derive(Clone, Debug)]
pub struct Unpacked<W> {
    words: W,
    geometry: Geometry,
    /// The next record of a list, but for its descriptor, and how far it is from one to the next.
    list: Option<(Record, u64)>,
}

impl<W: Iterator<Item = u64>> Unpacked<W> {
    /// Unpacks `words`, which are of a slot about a table of this geometry.
    pub fn new(words: W, geometry: &Geometry) -> Self {
        Self { words, geometry: *geometry, list: None }
    }

    /// Returns `record` with the next word as its descriptor, and the output address that is in it.
    fn with_descriptor(&mut self, record: Record) -> Option<Record> {
        let descriptor = self.words.next()?;
        let raw = RawDescriptor::from_bits(descriptor);
        let oa = match (RecordKind(record.kind), Level::try_new(record.level)) {
            (RecordKind::LEAF, Ok(level)) => raw.output_address(level, &self.geometry).get(),
            (RecordKind::TABLE | RecordKind::TABLE_OUTSIDE | RecordKind::TABLE_LOOP, _) => {
                raw.next_table(&self.geometry).get()
            }
            _ => 0,
        };
        Some(Record { oa, descriptor, ..record })
    }
}

impl<W: Iterator<Item = u64>> Iterator for Unpacked<W> {
    type Item = Record;

    /// Returns the next record; `None` also where words are missing.
    fn next(&mut self) -> Option<Record> {
        loop {
            if let Some((entry, step)) = self.list.take() {
                let rest = Record { ia: entry.ia.wrapping_add(step), count: entry.count - 1, ..entry };
                let rest = Record { flags: rest.flags & !record_flags::CONTINUES, ..rest };
                self.list = (rest.count != 0).then_some((rest, step));
                return self.with_descriptor(Record { count: 1, ..entry });
            }
            let head: PackedRun = zerocopy::transmute!([self.words.next()?, self.words.next()?]);
            let PackedRun { ia, count, level, kind, flags } = head;
            let run = Record { ia, oa: 0, descriptor: 0, count, level, kind, flags: flags & !record_flags::LIST };
            if flags & record_flags::LIST == 0 {
                return self.with_descriptor(run);
            }
            // Of a level that cannot be, the reader takes none: any distance will do.
            let shift = Level::try_new(level).map_or(0, |level| self.geometry.granule().entry_shift(level));
            let step = 1_u64.checked_shl(shift).unwrap_or(0);
            let entry = Record { flags: run.flags | record_flags::LINEAR, ..run };
            self.list = (count != 0).then_some((entry, step));
        }
    }
}
