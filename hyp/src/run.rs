// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! A run of entries while it is being built, and the scan that looks how far it goes on.

use crate::digest;
use crate::walker::{Entry, EntryKind};
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};
use s2dump_abi::slot::{record_flags, Record};
use s2dump_vmsa::{Level, TableAttrs};

/// A run as the words of its record.
///
/// Not as fields: many CPUs stall when fields that were written one by one are read as one word, as would happen at the end
/// of every run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    ia: u64,
    oa: u64,
    /// The first descriptor.
    pub(crate) descriptor: u64,
    /// Count, level, kind and flags.
    tail: u64,
}

const LEVEL_SHIFT: u32 = 8 * (offset_of!(Record, level) - offset_of!(Record, count)) as u32;
const KIND_SHIFT: u32 = 8 * (offset_of!(Record, kind) - offset_of!(Record, count)) as u32;
const FLAGS_SHIFT: u32 = 8 * (offset_of!(Record, flags) - offset_of!(Record, count)) as u32;
const INHERITED_SHIFT: u32 = FLAGS_SHIFT + record_flags::INHERITED.trailing_zeros();
/// What entries of one run have in common: level, kind, and what they inherit.
const SORT: u64 = 0xff << LEVEL_SHIFT | 0xff << KIND_SHIFT | (record_flags::INHERITED as u64) << FLAGS_SHIFT;
const LINEAR: u64 = (record_flags::LINEAR as u64) << FLAGS_SHIFT;
const _: () = assert!(offset_of!(Record, count) == 24 && LEVEL_SHIFT >= u32::BITS);

impl Run {
    /// No run: it has no entry, and its kind is that of no entry.
    pub(crate) const NONE: Self = Self { ia: 0, oa: 0, descriptor: 0, tail: 0xff << KIND_SHIFT };

    #[inline(always)]
    pub(crate) fn single(entry: &Entry) -> Self {
        let tail = LINEAR | sort(entry.level, entry.kind, entry.inherited) | 1;
        Self { ia: entry.ia, oa: entry.oa.get(), descriptor: entry.raw.to_bits(), tail }
    }

    #[inline(always)]
    pub(crate) fn count(&self) -> u64 {
        self.tail & u64::from(u32::MAX)
    }

    #[inline(always)]
    pub(crate) fn is_linear(&self) -> bool {
        self.tail & LINEAR != 0
    }

    /// Returns whether entries of `level` and `kind` that inherit `inherited` are those of this run.
    #[inline(always)]
    pub(crate) fn is_of(&self, level: Level, kind: EntryKind, inherited: TableAttrs) -> bool {
        self.tail & SORT == sort(level, kind, inherited)
    }

    /// Adds entries: no more than a count has room for.
    #[inline(always)]
    pub(crate) fn add(&mut self, count: u64) {
        self.tail = self.tail.wrapping_add(count);
    }

    /// Sets flags of the record.
    #[inline(always)]
    pub(crate) fn set_flags(&mut self, flags: u16) {
        self.tail |= u64::from(flags) << FLAGS_SHIFT;
    }

    /// Says that the output addresses do not run on.
    #[inline(always)]
    pub(crate) fn set_not_linear(&mut self) {
        self.tail &= !LINEAR;
    }

    /// Returns the record, its fields being those words.
    #[inline(always)]
    pub(crate) fn record(&self) -> Record {
        zerocopy::transmute!([self.ia, self.oa, self.descriptor, self.tail])
    }
}

/// Returns the bits of [`SORT`].
#[inline(always)]
fn sort(level: Level, kind: EntryKind, inherited: TableAttrs) -> u64 {
    let [level] = level.get().to_le_bytes();
    u64::from(level) << LEVEL_SHIFT | (kind as u64) << KIND_SHIFT | u64::from(inherited.to_bits()) << INHERITED_SHIFT
}

/// Returns at most the first `count` entries.
#[inline(always)]
pub(crate) fn shorten(entries: &[AtomicU64], count: u64) -> &[AtomicU64] {
    usize::try_from(count).ok().and_then(|count| entries.get(..count)).unwrap_or(entries)
}

/// What the next descriptors of a run look like: the `i`th agrees with `expected + i * step` in the bits of `mask`, which
/// are all while the run is linear, else its attributes.
#[derive(Clone, Copy)]
pub(crate) struct Same {
    pub(crate) expected: u64,
    pub(crate) step: u64,
    pub(crate) mask: u64,
}

impl Same {
    /// Returns whether `cell` is the next.
    #[inline(always)]
    pub(crate) fn is_next(&self, cell: &AtomicU64) -> bool {
        (cell.load(Ordering::Relaxed) ^ self.expected) & self.mask == 0
    }

    /// Returns how many of `entries` are as expected, from the first on.
    #[inline(always)]
    pub(crate) fn count(&self, entries: &[AtomicU64]) -> usize {
        match self.step {
            0 => count_staying::<64>(self.expected, self.mask, entries),
            step => count_moving::<64>(self.expected, step, entries),
        }
    }

    /// As [`Self::count`], for entries from `ia` on, and also returns the sum of their shares of the digest.
    #[inline(always)]
    pub(crate) fn count_and_sum(
        mut self,
        entries: &[AtomicU64],
        mut ia: u64,
        shift: u32,
        level: Level,
    ) -> (usize, u64) {
        let (mut count, mut sum) = (0, 0_u64);
        for cell in entries {
            let raw = cell.load(Ordering::Relaxed);
            if (raw ^ self.expected) & self.mask != 0 {
                break;
            }
            count += 1;
            sum = sum.wrapping_add(digest::mix(ia, level.get(), raw));
            ia = ia.wrapping_add(1 << shift);
            self.expected = self.expected.wrapping_add(self.step);
        }
        (count, sum)
    }
}

/// Entries that are looked at before it is decided whether all of them are as expected.
const AT_ONCE: usize = 8;

/// The loop that meets nearly all entries: how many agree with `expected + i * step`. Not inlined, so that it has all
/// registers to itself.
///
/// `BITS` are those of a word. It is a parameter so that the function is generic: this crate is metadata to the one that
/// becomes the EL2 object, which makes the code of generic functions only.
///
/// Two are compared as one number: then the compiler makes one branch for both, and needs the fewest instructions for each.
#[inline(never)]
fn count_moving<const BITS: u32>(mut expected: u64, step: u64, entries: &[AtomicU64]) -> usize {
    let pair = |low: u64, high: u64| u128::from(low) | u128::from(high) << BITS;
    let mut count = 0;
    for chunk in entries.chunks_exact(AT_ONCE) {
        let (mut next, mut are_same) = (expected, true);
        for two in chunk.chunks_exact(2) {
            let (low, high) = (next, next.wrapping_add(step));
            are_same &=
                matches!(two, [a, b] if pair(a.load(Ordering::Relaxed), b.load(Ordering::Relaxed)) == pair(low, high));
            next = high.wrapping_add(step);
        }
        if !are_same {
            break;
        }
        count += AT_ONCE;
        expected = next;
    }
    for cell in entries.get(count..).unwrap_or_default() {
        if cell.load(Ordering::Relaxed) != expected {
            break;
        }
        count += 1;
        expected = expected.wrapping_add(step);
    }
    count
}

/// As [`count_moving`], of entries that agree with `expected` in the bits of `mask`. `BITS` has the same reason.
#[inline(never)]
fn count_staying<const BITS: u32>(expected: u64, mask: u64, entries: &[AtomicU64]) -> usize {
    let differ = |all: u64, cell: &AtomicU64| all | cell.load(Ordering::Relaxed) ^ expected;
    let is_same = |chunk: &&[AtomicU64]| chunk.iter().fold(0, differ) & mask == 0;
    let count = AT_ONCE * entries.chunks_exact(AT_ONCE).take_while(is_same).count();
    let rest = entries.get(count..).unwrap_or_default().iter();
    count + rest.take_while(|cell| differ(0, cell) & mask == 0).count()
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    const MASK: u64 = !0xffff_f000;

    /// As many cells as expected, then one that differs in a bit of the mask, then more as expected.
    fn cells(same: &Same, count: usize) -> Vec<AtomicU64> {
        let nth = |n: usize| same.expected.wrapping_add(same.step.wrapping_mul(n as u64));
        let raw = |n| nth(n) ^ if n == count { 1 << 54 } else { 0 };
        (0..count + 20).map(|n| AtomicU64::new(raw(n))).collect()
    }

    /// Every count around the number that is looked at at once, of entries that stay and that move.
    #[test]
    fn good_counts_up_to_the_first_that_differs() {
        let page = 0x4000_04ff;
        // Holes too: with their zeros, not every comparison is one.
        for (expected, step, mask) in [(page, 0, u64::MAX), (page, 0, MASK), (page, 0x1000, u64::MAX), (0, 0, u64::MAX)]
        {
            let same = Same { expected, step, mask };
            for count in 0..40 {
                let cells = cells(&same, count);
                assert_eq!(same.count(&cells), count, "{expected:#x} step {step:#x}");
                let (counted, sum) = same.count_and_sum(&cells, 0x8000_0000, 12, Level::L3);
                let share =
                    |n: usize| digest::mix(0x8000_0000 + n as u64 * 0x1000, 3, cells[n].load(Ordering::Relaxed));
                assert_eq!((counted, sum), (count, (0..count).map(share).fold(0, u64::wrapping_add)));
                assert_eq!(same.is_next(&cells[0]), count > 0);
                assert_eq!(same.count(&cells[..count]), count, "to the end");
            }
        }
    }

    /// What is outside the mask does not count, in whichever of the entries that are looked at at once.
    #[test]
    fn good_differences_outside_the_mask() {
        let same = Same { expected: 0x4000_04ff, step: 0, mask: MASK };
        for other in [0x5000, 0x7fff_f000] {
            let cells: Vec<_> =
                (0..19).map(|n| AtomicU64::new(same.expected ^ if n % 3 == 0 { other } else { 0 })).collect();
            assert_eq!(same.count(&cells), 19);
            assert_eq!(same.count_and_sum(&cells, 0, 12, Level::L3).0, 19);
            assert!(same.is_next(&cells[0]));
        }
    }

    /// Two differences must not hide each other.
    #[test]
    fn bad_two_that_differ_alike() {
        let same = Same { expected: 0x4000_04ff, step: 0, mask: u64::MAX };
        let cells: Vec<_> =
            (0..16).map(|n| AtomicU64::new(same.expected ^ u64::from(n == 3 || n == 5) << 54)).collect();
        assert_eq!(same.count(&cells), 3);
    }
    /// One that differs in all there is to compare.
    #[test]
    fn bad_differs_in_every_bit() {
        for mask in [u64::MAX, MASK] {
            let same = Same { expected: 0x4000_04ff, step: 0, mask };
            let cells: Vec<_> =
                (0..16).map(|n| AtomicU64::new(same.expected ^ if n == 1 { mask } else { 0 })).collect();
            assert_eq!(same.count(&cells), 1);
        }
    }
}
