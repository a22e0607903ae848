// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Folds entries into runs: same level, same kind, the same bits but for the output address, and the same inherited from
//! the tables above. Holes fold too.
//!
//! A run does not cross the output size. Address bits above it count as attributes: with one of them set, the MMU does not
//! translate, so such an entry is not one of a run that it does translate.
//!
//! [`merge`] is the definition, for any two neighboring runs; it is also what joins runs across slots at EL0. The
//! [`Coalescer`] applies it to a walk, with a fast path that only counts how many further descriptors it would take in.
//! Invariant: the fast path never takes in what `merge` would not, so chunked, merged and unchunked dumps are equal.

use crate::digest;
use crate::run::{shorten, Run, Same};
use crate::walker::{Entry, EntryKind, Sink, Stretch, StretchEnd};
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
    pub(crate) fn same_mask(&self, kind: RecordKind, level: Level) -> u64 {
        match kind {
            RecordKind::LEAF => !self.geometry.output_mask(level),
            _ => u64::MAX,
        }
    }

    /// Returns how many of the first entries of `run`, which somebody else folded, are one run: at least 1.
    ///
    /// All of them, unless `run` crosses the output size. Captures of ABI 1 may have such runs. Where the output addresses
    /// do not run on, only the first is known, and stands for all.
    #[must_use]
    pub fn one_run(&self, run: &Record) -> u32 {
        let is_known = run.kind == RecordKind::LEAF.0 && run.flags & record_flags::LINEAR != 0;
        let inside = (1_u64 << self.geometry.pa_bits()).checked_sub(run.oa);
        match (Level::try_new(run.level), inside) {
            (Ok(level), Some(inside @ 1..)) if is_known => {
                let entries = (inside >> self.geometry.granule().entry_shift(level)).max(1);
                u32::try_from(entries).map_or(run.count, |entries| entries.min(run.count))
            }
            _ => run.count,
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
        || (a.flags ^ b.flags) & record_flags::INHERITED != 0
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
    Run::single(entry).record()
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
    pub(crate) fold: Fold,
    /// The run being built.
    run: Run,
    /// The last descriptor of `run`, as long as that is linear.
    last: u64,
    /// The output address with which `run` would run on.
    next_oa: u64,
    /// Flags of the next run.
    pub(crate) flags: u16,
    /// What a record costs, in descriptors; 0: nothing is counted.
    pub(crate) record_cost: u16,
    /// Descriptors' worth of work that is left to do.
    pub(crate) left: u32,
    pub(crate) digest: Option<u64>,
    /// Where table pages are told, where the walk begins: those that span what is before are not.
    tables: Option<u64>,
    pub(crate) out: O,
}

impl<O: RecordOut> Coalescer<O> {
    /// Makes one that writes to `out`. The first record gets `first_flags`; with `digest` the entries are summed.
    #[inline(always)]
    pub fn new(fold: Fold, first_flags: u16, digest: bool, out: O) -> Self {
        let digest = digest.then_some(0);
        let (record_cost, left) = (0, u32::MAX);
        Self {
            fold,
            run: Run::NONE,
            last: 0,
            next_oa: 0,
            flags: first_flags,
            record_cost,
            left,
            digest,
            tables: None,
            out,
        }
    }

    /// Limits the work: it takes entries until they and the records they made cost as much as `budget` descriptors. A
    /// record but the first costs as much as `record_cost` of them, not 0.
    #[inline(always)]
    #[must_use]
    pub fn limited(self, budget: u32, record_cost: u16) -> Self {
        Self { left: budget, record_cost, ..self }
    }

    /// Tells table pages too, if `cursor` says where the walk begins.
    #[inline(always)]
    #[must_use]
    pub fn telling_tables(self, cursor: Option<u64>) -> Self {
        // Those that begin where the walk does cost nothing, since each call must make progress.
        let free = if cursor.is_some() { u32::from(self.record_cost) * Level::MAX_DEPTH as u32 } else { 0 };
        Self { tables: cursor, left: self.left.saturating_add(free), ..self }
    }

    /// Counts work.
    #[inline(always)]
    pub(crate) fn spend(&mut self, descriptors: u32) {
        if self.record_cost != 0 {
            self.left = self.left.saturating_sub(descriptors);
        }
    }

    /// Writes the last run and returns the output and the digest.
    #[inline(always)]
    pub fn finish(mut self) -> (O, Option<u64>) {
        if self.run.count() != 0 {
            self.out.put(&self.run.record());
        }
        (self.out, self.digest)
    }

    /// Takes one entry: goes on with the run, or begins another. Returns whether there was room.
    ///
    /// Entries of a run agree in the bits of `same`; each is `step` further in output addresses.
    #[inline(always)]
    fn take_one(&mut self, entry: &Entry, same: u64, step: u64) -> bool {
        let raw = entry.raw.to_bits();
        let is_same = self.run.is_of(entry.level, entry.kind, entry.inherited)
            && (self.run.descriptor ^ raw) & same == 0
            && self.run.count() != u64::from(u32::MAX);
        let is_linear = self.run.is_linear() && self.next_oa == entry.oa.get();
        if is_same && (is_linear || !self.fold.exact) {
            self.run.add(1);
            if !is_linear {
                self.run.set_not_linear();
            }
        } else {
            // The run that now begins will need a place as well as the one that ends.
            let has_ended = self.run.count() != 0;
            if self.out.room() < 1 + usize::from(has_ended) {
                return false;
            }
            if has_ended {
                self.out.put(&self.run.record());
                self.spend(self.record_cost.into());
            }
            self.run = Run::single(entry);
            self.run.set_flags(core::mem::take(&mut self.flags));
        }
        self.spend(1);
        self.last = raw;
        self.next_oa = entry.oa.get().wrapping_add(step);
        if let (Some(sum), false) = (&mut self.digest, entry.kind == EntryKind::Table) {
            *sum = sum.wrapping_add(digest::mix(entry.ia, entry.level.get(), raw));
        }
        true
    }

    /// Returns how many entries of `stretch` from `first` on go on with the run, and takes them.
    #[inline(always)]
    fn take_more(&mut self, stretch: &Stretch<'_>, first: usize, leaf_same: u64) -> usize {
        // What a wrong table descriptor leads to depends on the tables above it, so those come one by one.
        let is_run_of = |kind| self.run.is_of(stretch.level, kind, stretch.inherited(kind));
        let is_leaf = is_run_of(EntryKind::Leaf);
        let is_whole = is_run_of(EntryKind::Invalid) || is_run_of(EntryKind::Reserved);
        if !is_leaf && !is_whole {
            return 0;
        }
        let rest = stretch.entries.get(first..).unwrap_or_default();
        // A count has room for so many more, and the call has time for so many.
        let rest = shorten(rest, u64::min(u64::from(u32::MAX) - self.run.count(), self.left.into()));
        let (same, rest) = if is_whole {
            (Same { expected: self.run.descriptor, step: 0, mask: u64::MAX }, rest)
        } else if !self.run.is_linear() {
            (Same { expected: self.run.descriptor, step: 0, mask: leaf_same }, rest)
        } else {
            // Only as far as the address goes on in place and within the output size: a carry out of it changes other bits.
            let steps = !(self.last | leaf_same) >> stretch.shift;
            let step = 1 << stretch.shift;
            (Same { expected: self.last.wrapping_add(step), step, mask: u64::MAX }, shorten(rest, steps))
        };
        // A cheap test first: in tables that do not fold, the scan below is never entered.
        if !rest.first().is_some_and(|cell| same.is_next(cell)) {
            return 0;
        }
        let more = match &mut self.digest {
            None => same.count(rest),
            Some(sum) => {
                let ia = stretch.ia.wrapping_add((first as u64) << stretch.shift);
                let (more, share) = same.count_and_sum(rest, ia, stretch.shift, stretch.level);
                *sum = sum.wrapping_add(share);
                more
            }
        };
        let distance = same.step.wrapping_mul(more as u64);
        self.last = self.last.wrapping_add(distance);
        self.next_oa = self.next_oa.wrapping_add(distance);
        self.run.add(more as u64); // Fits by the first `shorten`.
        self.spend(more as u32); // So does this.
        more
    }
}

impl<O: RecordOut> Sink for Coalescer<O> {
    #[inline(never)]
    fn take_stretch(&mut self, stretch: &Stretch<'_>) -> (usize, StretchEnd) {
        let (level, shift) = (stretch.level, stretch.shift);
        let leaf_same = self.fold.same_mask(RecordKind::LEAF, level);
        let mut taken = 0;
        loop {
            taken += self.take_more(stretch, taken, leaf_same);
            let entry = match stretch.entry(taken, &self.fold.geometry) {
                Err(StretchEnd::All) => return (taken, StretchEnd::All),
                _ if self.left == 0 => return (taken, StretchEnd::Full),
                Err(end) => return (taken, end),
                Ok(entry) => entry,
            };
            let (same, step) = if entry.kind == EntryKind::Leaf { (leaf_same, 1 << shift) } else { (u64::MAX, 0) };
            if !self.take_one(&entry, same, step) {
                return (taken, StretchEnd::Full);
            }
            taken += 1;
        }
    }

    #[inline(always)]
    fn tables(&self) -> Option<u64> {
        self.tables
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::table_memory::{OutsideMemory, Root, TableMemory};
    use crate::walker::walk_range;
    use core::sync::atomic::{AtomicU64, Ordering};
    use s2dump_vmsa::{Features, Granule, Ipa, PhysAddr, RawDescriptor};
    use std::vec::Vec;

    /// One table of pages: 21 bits, start level 3.
    struct Table(Vec<AtomicU64>);

    impl TableMemory for Table {
        fn table(&self, _table: PhysAddr, _granule: Granule) -> Result<&[AtomicU64], OutsideMemory> {
            Ok(&self.0)
        }
    }

    struct One(Option<Record>);

    impl RecordOut for One {
        fn room(&self) -> usize {
            1
        }

        fn put(&mut self, record: &Record) {
            self.0 = Some(*record);
        }
    }

    /// Takes the first entries one by one and the others by the scan; keeps how many the scan took.
    struct Scan {
        coalescer: Coalescer<One>,
        first: usize,
        scanned: usize,
    }

    impl Sink for Scan {
        fn take_stretch(&mut self, stretch: &Stretch<'_>) -> (usize, StretchEnd) {
            let same = self.coalescer.fold.same_mask(RecordKind::LEAF, stretch.level);
            let kind = stretch.kind(RawDescriptor::from_bits(stretch.entries[0].load(Ordering::Relaxed)));
            let (agree, step) = if kind == EntryKind::Leaf { (same, 0x1000) } else { (u64::MAX, 0) };
            for (n, cell) in stretch.entries.iter().take(self.first).enumerate() {
                let raw = RawDescriptor::from_bits(cell.load(Ordering::Relaxed));
                let address = raw.output_address(stretch.level, &self.coalescer.fold.geometry);
                let oa = if kind == EntryKind::Leaf { address } else { PhysAddr::default() };
                let (ia, level, inherited) =
                    (stretch.ia + ((n as u64) << stretch.shift), stretch.level, stretch.inherited(kind));
                assert!(self.coalescer.take_one(&Entry { ia, oa, raw, level, kind, inherited }, agree, step));
            }
            self.scanned = self.coalescer.take_more(stretch, self.first, same);
            (stretch.entries.len(), StretchEnd::All)
        }
    }

    /// Returns how many entries the scan takes behind the first ones, and how many the run then has.
    fn scanned(first: usize, entry: impl Fn(u64) -> u64) -> (usize, u64) {
        let vtcr = 1 << 31 | 2 << 16 | 3 << 6 | 43;
        let geometry = Geometry::from_vtcr(vtcr, Features::of_kvm(vtcr, false, false)).unwrap();
        let memory = Table((0..512).map(|n| AtomicU64::new(entry(n))).collect());
        let coalescer = Coalescer::new(Fold { geometry, exact: false }, 0, false, One(None));
        let mut sink = Scan { coalescer, first, scanned: 0 };
        let root = Root::try_new(geometry, PhysAddr::new(0)).unwrap();
        let (begin, end) = (Ipa::default(), Ipa::try_new(1 << 21).unwrap());
        walk_range(&memory, &root, begin, end, 512, &mut sink).unwrap();
        (sink.scanned, sink.coalescer.run.count())
    }

    /// Else a dump would be right, but slow: the scan is left out of many tests' sight.
    #[test]
    fn good_scan_takes_all_that_are_alike() {
        let page = |n: u64| n << 12 | 0x4ff;
        assert_eq!(scanned(1, page), (511, 512), "linear");
        assert_eq!(scanned(2, |n| page(n * 7)), (510, 512), "not linear");
        assert_eq!(scanned(1, |_| 0), (511, 512), "holes");
        assert_eq!(scanned(1, |_| 3 << 60), (511, 512), "annotations");
        assert_eq!(scanned(1, |_| 0b01), (511, 512), "reserved");
        assert_eq!(scanned(1, |n| page(n) | u64::from(n == 300) << 54), (299, 300), "up to another attribute");
        assert_eq!(scanned(1, |n| page(n * 7)), (0, 1), "linear so far, then not");
    }
}
