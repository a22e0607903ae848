// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Folds entries into runs: same level, same kind, and the same bits but for the output address. Holes fold too.
//!
//! [`merge`] is the definition, for any two neighboring runs; it is also what joins runs across slots at EL0. The
//! [`Coalescer`] applies it to a walk, with a fast path that only counts how many further descriptors it would take in.
//! Invariant: the fast path never takes in what `merge` would not, so chunked, merged and unchunked dumps are equal.

use crate::digest;
use crate::walker::{Entry, EntryKind, Row, RowEnd, Sink};
use core::sync::atomic::{AtomicU64, Ordering};
use s2dump_abi::slot::{record_flags, Record, RecordKind};
use s2dump_vmsa::{Geometry, Level, PhysAddr, RawDescriptor};

/// What decides whether two runs are one.
#[derive(Clone, Copy, Debug)]
pub struct Fold {
    /// The table's geometry: sizes of entries and place of the output address.
    pub geometry: Geometry,
    /// Also break where the output address does not run on.
    pub exact: bool,
}

impl Fold {
    /// Returns the descriptor bits in which entries of one run agree.
    ///
    /// All of them unless the entries are leaves: what stands in an invalid entry or in a wrong table descriptor is
    /// shown raw, and folding must not hide a difference.
    #[inline(always)]
    fn same_mask(&self, kind: RecordKind, level: Level) -> u64 {
        match kind {
            RecordKind::LEAF => !(self.geometry.low_address_mask(level) | self.geometry.high_address_mask()),
            _ => u64::MAX,
        }
    }
}

/// Returns the run of `a` followed by `b`, or `None` if they are not one run.
///
/// [`LINEAR`](record_flags::LINEAR) stays set as long as the output addresses run on. Kinds without an output address
/// are always linear.
#[must_use]
#[inline]
pub fn merge(a: &Record, b: &Record, fold: &Fold) -> Option<Record> {
    let level = Level::try_new(a.level).ok()?;
    let kind = RecordKind(a.kind);
    let span = u64::from(a.count).checked_shl(fold.geometry.granule().entry_shift(level))?;
    if a.level != b.level
        || a.kind != b.kind
        || a.ia.wrapping_add(span) != b.ia
        || (a.descriptor ^ b.descriptor) & fold.same_mask(kind, level) != 0
    {
        return None;
    }
    let runs_on = kind != RecordKind::LEAF || a.oa.wrapping_add(span) == b.oa;
    let linear = if runs_on { a.flags & b.flags & record_flags::LINEAR } else { 0 };
    if fold.exact && linear == 0 {
        return None;
    }
    let count = a.count.checked_add(b.count)?;
    Some(Record { count, flags: a.flags & !record_flags::LINEAR | linear, ..*a })
}

/// Returns the run of `entry` alone.
#[must_use]
#[inline(always)]
pub fn single(entry: &Entry) -> Record {
    Record {
        ia: entry.ia,
        oa: entry.oa.get(),
        descriptor: entry.raw.to_bits(),
        count: 1,
        level: entry.level.get(),
        kind: entry.kind as u8,
        flags: record_flags::LINEAR,
    }
}

/// Where finished runs go.
pub trait RecordOut {
    /// Returns how many more records there is room for.
    fn room(&self) -> usize;

    /// Appends `record`. Only called with room left.
    fn put(&mut self, record: &Record);
}

/// Turns the entries of a walk into records.
#[derive(Debug)]
pub struct Coalescer<O> {
    fold: Fold,
    /// The run being built; none if its count is 0.
    run: Record,
    /// The output address with which `run` would run on.
    next_oa: u64,
    /// Flags of the next run.
    flags: u16,
    digest: Option<u64>,
    out: O,
}

/// What the entries of a run share.
#[derive(Clone, Copy)]
struct Traits {
    level: Level,
    kind: EntryKind,
    /// Bits that agree.
    same: u64,
    /// What an entry spans, as a shift.
    shift: u32,
}

impl Traits {
    /// Returns what the output address grows by from entry to entry.
    #[inline(always)]
    fn step(&self) -> u64 {
        match self.kind {
            EntryKind::Leaf => 1 << self.shift,
            _ => 0,
        }
    }
}

impl<O: RecordOut> Coalescer<O> {
    /// Makes one that writes to `out`. The first record gets `first_flags`; with `digest` the entries are summed.
    #[inline(always)]
    pub fn new(fold: Fold, first_flags: u16, digest: bool, out: O) -> Self {
        let run = Record { ia: 0, oa: 0, descriptor: 0, count: 0, level: 0, kind: 0, flags: 0 };
        Self { fold, run, next_oa: 0, flags: first_flags, digest: digest.then_some(0), out }
    }

    /// Writes the last run and returns the output and the digest.
    #[inline(always)]
    pub fn finish(mut self) -> (O, Option<u64>) {
        if self.run.count != 0 {
            self.out.put(&self.run);
        }
        (self.out, self.digest)
    }

    /// Takes one entry: goes on with the run, or begins another. Returns whether there was room.
    #[inline(always)]
    fn take_one(&mut self, entry: &Entry, traits: Traits) -> bool {
        let is_same = self.run.count != 0
            && self.run.level == traits.level.get()
            && self.run.kind == traits.kind as u8
            && (self.run.descriptor ^ entry.raw.to_bits()) & traits.same == 0
            && self.run.count != u32::MAX;
        let is_linear = self.run.flags & record_flags::LINEAR != 0 && self.next_oa == entry.oa.get();
        if is_same && (is_linear || !self.fold.exact) {
            self.run.count += 1;
            if !is_linear {
                self.run.flags &= !record_flags::LINEAR;
            }
        } else {
            // The run that now begins will need a place as well as the one that ends.
            if self.out.room() < 1 + usize::from(self.run.count != 0) {
                return false;
            }
            if self.run.count != 0 {
                self.out.put(&self.run);
            }
            self.run = single(entry);
            self.run.flags |= core::mem::take(&mut self.flags);
        }
        self.next_oa = entry.oa.get().wrapping_add(traits.step());
        if let Some(sum) = &mut self.digest {
            *sum = sum.wrapping_add(digest::mix(entry.ia, entry.level.get(), entry.raw.to_bits()));
        }
        true
    }

    /// Takes those of `rest` that go on with the run whose last entry is `last`, and returns how many.
    #[inline(always)]
    fn take_more(&mut self, last: &Entry, rest: &[AtomicU64], traits: Traits) -> usize {
        let raw = last.raw.to_bits();
        let rest = shorten(rest, u64::from(u32::MAX - self.run.count));

        // Descriptors agree with `expected + i * step`: in all bits while the run is linear, else in their attributes.
        let step = traits.step();
        let (same, rest) = if self.run.flags & record_flags::LINEAR == 0 {
            (Same { expected: raw, step: 0, mask: traits.same }, rest)
        } else if step == 0 {
            (Same { expected: raw, step, mask: u64::MAX }, rest)
        } else {
            // Only as far as the address field goes: a carry out of it would look like another attribute.
            let steps = (!raw & self.fold.geometry.low_address_mask(traits.level)) >> traits.shift;
            (Same { expected: raw.wrapping_add(step), step, mask: u64::MAX }, shorten(rest, steps))
        };
        let more = match &mut self.digest {
            None => same.count(rest),
            Some(sum) => same.count_and_sum(rest, last, traits.shift, sum),
        };
        self.next_oa = self.next_oa.wrapping_add(step.wrapping_mul(more as u64));
        self.run.count += u32::try_from(more).unwrap_or(0); // Fits by the first `shorten`.
        more
    }
}

impl<O: RecordOut> Sink for Coalescer<O> {
    #[inline(always)]
    fn take_row(&mut self, row: &Row<'_>) -> (usize, RowEnd) {
        let (level, shift) = (row.level, row.shift);
        let leaf_same = self.fold.same_mask(RecordKind::LEAF, level);
        let mut taken = 0;
        while let Some([first, rest @ ..]) = row.entries.get(taken..) {
            let raw = RawDescriptor::from_bits(first.load(Ordering::Relaxed));
            let kind = row.kind(raw);
            let (oa, same) = match kind {
                EntryKind::Table => return (taken, RowEnd::Table(raw)),
                EntryKind::Leaf => (raw.output_address(level, &self.fold.geometry), leaf_same),
                _ => (PhysAddr::default(), u64::MAX),
            };
            let traits = Traits { level, kind, same, shift };
            let entry = Entry { ia: row.ia.wrapping_add((taken as u64) << shift), oa, raw, level, kind };
            if !self.take_one(&entry, traits) {
                return (taken, RowEnd::Full);
            }
            taken += 1 + self.take_more(&entry, rest, traits);
        }
        (taken, RowEnd::All)
    }

    #[inline(always)]
    fn take_wrong(&mut self, entry: &Entry) -> bool {
        self.take_one(entry, Traits { level: entry.level, kind: entry.kind, same: u64::MAX, shift: 0 })
    }
}

/// Returns at most the first `count` entries.
#[inline(always)]
fn shorten(entries: &[AtomicU64], count: u64) -> &[AtomicU64] {
    usize::try_from(count).ok().and_then(|count| entries.get(..count)).unwrap_or(entries)
}

/// What the next descriptors of a run look like.
#[derive(Clone, Copy)]
struct Same {
    expected: u64,
    step: u64,
    mask: u64,
}

impl Same {
    /// Returns in which of the bits that count `cell` differs from the `i`th expected descriptor.
    #[inline(always)]
    fn difference(&self, cell: &AtomicU64, i: u64) -> u64 {
        (cell.load(Ordering::Relaxed) ^ self.expected.wrapping_add(self.step.wrapping_mul(i))) & self.mask
    }

    /// Returns how many of `entries` are as expected, from the first on. This is the loop that meets nearly all entries.
    #[inline(always)]
    fn count(mut self, entries: &[AtomicU64]) -> usize {
        const AT_ONCE: usize = 4;
        // Where hardly two entries are alike, nothing else is touched.
        if entries.first().is_none_or(|cell| self.difference(cell, 0) != 0) {
            return 0;
        }
        let mut count = 0;
        for chunk in entries.chunks_exact(AT_ONCE) {
            // Collects the differences of some entries before it branches.
            let different = chunk.iter().zip(0..).fold(0, |all, (cell, i)| all | self.difference(cell, i));
            if different != 0 {
                break;
            }
            count += AT_ONCE;
            self.expected = self.expected.wrapping_add(self.step.wrapping_mul(AT_ONCE as u64));
        }
        for cell in entries.get(count..).unwrap_or_default() {
            if self.difference(cell, 0) != 0 {
                break;
            }
            count += 1;
            self.expected = self.expected.wrapping_add(self.step);
        }
        count
    }

    /// As [`Self::count`], for entries behind `last`, and adds their shares to `sum`.
    #[inline(always)]
    fn count_and_sum(mut self, entries: &[AtomicU64], last: &Entry, shift: u32, sum: &mut u64) -> usize {
        let size = 1 << shift;
        let mut ia = last.ia;
        let mut count = 0;
        for cell in entries {
            let raw = cell.load(Ordering::Relaxed);
            if (raw ^ self.expected) & self.mask != 0 {
                break;
            }
            count += 1;
            ia = ia.wrapping_add(size);
            *sum = sum.wrapping_add(digest::mix(ia, last.level.get(), raw));
            self.expected = self.expected.wrapping_add(self.step);
        }
        count
    }
}
