// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Folds entries into runs: same level, same kind, and the same bits but for the output address. Holes fold too.
//!
//! [`merge`] is the definition, for any two neighboring runs; it is also what joins runs across slots at EL0. The
//! [`Coalescer`] applies it to a walk, with a fast path that only counts how many further descriptors it would take in.
//! Invariant: the fast path never takes in what `merge` would not, so chunked, merged and unchunked dumps are equal.

use crate::digest;
use crate::walker::{Entry, EntryKind, Sink};
use core::sync::atomic::{AtomicU64, Ordering};
use s2dump_abi::slot::{record_flags, Record, RecordKind};
use s2dump_vmsa::{Geometry, Level};

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
    /// Flags of the next run.
    flags: u16,
    digest: Option<u64>,
    out: O,
}

impl<O: RecordOut> Coalescer<O> {
    /// Makes one that writes to `out`. The first record gets `first_flags`; with `digest` the entries are summed.
    #[inline(always)]
    pub fn new(fold: Fold, first_flags: u16, digest: bool, out: O) -> Self {
        let run = Record { ia: 0, oa: 0, descriptor: 0, count: 0, level: 0, kind: 0, flags: 0 };
        Self { fold, run, flags: first_flags, digest: digest.then_some(0), out }
    }

    /// Writes the last run and returns the output and the digest.
    #[inline(always)]
    pub fn finish(mut self) -> (O, Option<u64>) {
        if self.run.count != 0 {
            self.out.put(&self.run);
        }
        (self.out, self.digest)
    }

    /// Returns how many of `rest` go on the run whose last entry is `last`, and sums them.
    #[inline(always)]
    fn extend(&mut self, last: &Entry, rest: &[AtomicU64]) -> usize {
        let geometry = &self.fold.geometry;
        let shift = geometry.granule().entry_shift(last.level);
        let raw = last.raw.to_bits();
        let rest = shorten(rest, u64::from(u32::MAX - self.run.count));

        // Descriptors agree with `first + i * step` in `mask`: exactly while the run is linear, else in their attributes.
        let run = if self.run.flags & record_flags::LINEAR == 0 {
            Same { expected: raw, step: 0, mask: self.fold.same_mask(RecordKind(self.run.kind), last.level) }
        } else if last.kind == EntryKind::Leaf {
            Same { expected: raw.wrapping_add(1 << shift), step: 1 << shift, mask: u64::MAX }
        } else {
            Same { expected: raw, step: 0, mask: u64::MAX }
        };
        // Only as far as the address field goes: a carry out of it would look like another attribute.
        let rest = match run.step {
            0 => rest,
            _ => shorten(rest, (!raw & geometry.low_address_mask(last.level)) >> shift),
        };
        match &mut self.digest {
            None => run.count(rest),
            Some(sum) => run.count_and_sum(rest, last.ia, shift, last.level, sum),
        }
    }
}

impl<O: RecordOut> Sink for Coalescer<O> {
    #[inline(always)]
    fn take(&mut self, entry: &Entry, rest: &[AtomicU64]) -> Option<usize> {
        let single = single(entry);
        let joined = if self.run.count == 0 { None } else { merge(&self.run, &single, &self.fold) };
        self.run = match joined {
            Some(joined) => joined,
            None => {
                // The run that now begins will need a place as well as the one that ends.
                if self.out.room() < 1 + usize::from(self.run.count != 0) {
                    return None;
                }
                if self.run.count != 0 {
                    self.out.put(&self.run);
                }
                let flags = record_flags::LINEAR | core::mem::take(&mut self.flags);
                Record { flags, ..single }
            }
        };
        if let Some(sum) = &mut self.digest {
            *sum = sum.wrapping_add(digest::mix(entry.ia, entry.level.get(), entry.raw.to_bits()));
        }
        let more = self.extend(entry, rest);
        self.run.count += u32::try_from(more).unwrap_or(0); // Fits by the first `shorten` in `extend`.
        Some(more)
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

    /// As [`Self::count`], for entries behind the one at `ia`, and adds their shares to `sum`.
    #[inline(always)]
    fn count_and_sum(mut self, entries: &[AtomicU64], mut ia: u64, shift: u32, level: Level, sum: &mut u64) -> usize {
        let mut count = 0;
        for cell in entries {
            let raw = cell.load(Ordering::Relaxed);
            if (raw ^ self.expected) & self.mask != 0 {
                break;
            }
            count += 1;
            ia = ia.wrapping_add(1 << shift);
            *sum = sum.wrapping_add(digest::mix(ia, level.get(), raw));
            self.expected = self.expected.wrapping_add(self.step);
        }
        count
    }
}
