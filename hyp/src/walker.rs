// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Walks a table, of stage 2 or of EL2's stage 1, without recursion, from an input address on, within a budget of descriptors.
//!
//! Invariants others rely on:
//! - At most `budget` descriptors are read, those on the way down to the cursor and invalid ones included, and for each
//!   at most two table pages are looked up: one to enter, one to climb back to.
//! - With a budget of [`MIN_BUDGET`] or more and a sink that takes one entry, the returned cursor is beyond the given one.
//! - Resuming at the returned cursor continues as if there had been no stop: no entry is lost or seen twice, as long as
//!   the table did not change in between.
//! - Nothing behind the last entry of the root is read, and a wrong table ends as an entry, never as a hang: a table
//!   outside memory or equal to an ancestor is reported and not entered.

use crate::table_memory::{OutsideMemory, Root, TableMemory};
use core::sync::atomic::{AtomicU64, Ordering};
use s2dump_vmsa::raw::Type;
use s2dump_vmsa::{Geometry, Ipa, Level, PhysAddr, RawDescriptor, TableAttrs};

/// The least useful budget: one descriptor at each level. A smaller one might end on the way down, forever.
pub const MIN_BUDGET: u32 = Level::MAX_DEPTH as u32;

/// What an entry is. The numbers are those of `abi::slot::RecordKind`, so that the conversion costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// Bit 0 clear.
    Invalid = 0,
    /// A page or block.
    Leaf = 1,
    /// A table that was entered. Only seen by [`walk_address`], and by a sink that wants it ([`Sink::tables`]).
    Table = 2,
    /// Valid, but of a type the level does not allow.
    Reserved = 3,
    /// A table descriptor whose table is not memory, or beyond the output size: not entered.
    TableOutside = 4,
    /// A table descriptor that leads to itself or an ancestor: not entered.
    TableLoop = 5,
}

/// An entry of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// First input address the entry spans, even if the walk began in its middle.
    pub ia: u64,
    /// Output or table address; 0 for kinds without one.
    pub oa: PhysAddr,
    /// The descriptor as it was read.
    pub raw: RawDescriptor,
    /// Level of the table it stands in.
    pub level: Level,
    /// What it is.
    pub kind: EntryKind,
    /// For a leaf of EL2's stage 1: what the tables above it say. Else nothing.
    pub inherited: TableAttrs,
}

/// Neighboring entries of one table, as far as table, range and budget go. Not empty.
#[derive(Clone, Copy, Debug)]
pub struct Stretch<'m> {
    /// First input address the first entry spans, even if the walk began in its middle.
    pub ia: u64,
    /// Level of the table.
    pub level: Level,
    /// What one entry spans, as a shift.
    pub shift: u32,
    /// The entries. Whoever decides about one loads it once and decides by that value: the MMU may write it.
    pub entries: &'m [AtomicU64],
    /// What the tables above say.
    inherited: TableAttrs,
    /// What descriptors ending in 01 are.
    block: EntryKind,
    /// What descriptors ending in 11 are.
    table_or_page: EntryKind,
    /// Whether it is one table descriptor, to be taken as an entry like others.
    pub(crate) is_table: bool,
}

impl Stretch<'_> {
    /// Returns the entry with this number, the first being 0, or why a sink that takes all before it takes no more.
    ///
    /// # Errors
    ///
    /// [`StretchEnd::All`] behind the last one; [`StretchEnd::Table`] for a table descriptor that does not come alone.
    #[inline(always)]
    pub fn entry(&self, number: usize, geometry: &Geometry) -> Result<Entry, StretchEnd> {
        let Some(cell) = self.entries.get(number) else { return Err(StretchEnd::All) };
        let raw = RawDescriptor::from_bits(cell.load(Ordering::Relaxed));
        let (level, kind) = (self.level, self.kind(raw));
        let oa = match kind {
            EntryKind::Leaf => raw.output_address(level, geometry),
            EntryKind::Invalid | EntryKind::Reserved => PhysAddr::default(),
            _ if !self.is_table => return Err(StretchEnd::Table(raw)),
            _ => raw.next_table(geometry),
        };
        let ia = self.ia.wrapping_add((number as u64) << self.shift);
        Ok(Entry { ia, oa, raw, level, kind, inherited: self.inherited(kind) })
    }

    /// Returns the table descriptor that it begins with, if it does.
    #[inline(always)]
    fn first_table(&self) -> Option<RawDescriptor> {
        let raw = RawDescriptor::from_bits(self.entries.first()?.load(Ordering::Relaxed));
        (!self.is_table && self.kind(raw) == EntryKind::Table).then_some(raw)
    }

    /// Returns whether it is a table descriptor that is entered.
    #[inline(always)]
    pub(crate) fn is_entered(&self) -> bool {
        self.is_table && self.table_or_page == EntryKind::Table
    }

    /// Returns what an entry of this stretch is. Whether a table can be entered is not checked.
    #[inline(always)]
    #[must_use]
    pub fn kind(&self, raw: RawDescriptor) -> EntryKind {
        match raw.to_bits() & 0b11 {
            0b01 => self.block,
            0b11 => self.table_or_page,
            _ => EntryKind::Invalid,
        }
    }

    /// Returns what the tables above say, if it matters: for a leaf.
    #[inline(always)]
    #[must_use]
    pub fn inherited(&self, kind: EntryKind) -> TableAttrs {
        match kind {
            EntryKind::Leaf => self.inherited,
            _ => TableAttrs::NONE,
        }
    }
}

/// Why a sink took no more of a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StretchEnd {
    /// It took all.
    All,
    /// It has no room, or no time, for the next entry.
    Full,
    /// The next entry is this table descriptor.
    Table(RawDescriptor),
}

/// Takes what a walk finds, in ascending input addresses and without gaps.
pub trait Sink {
    /// Takes the entries of `stretch` up to the first table descriptor, and returns how many.
    ///
    /// One that is not entered comes alone, then, and so does one that is entered and told ([`Self::tables`]): before what
    /// it leads to, and again when a walk goes on at the first address that it spans.
    fn take_stretch(&mut self, stretch: &Stretch<'_>) -> (usize, StretchEnd);

    /// Returns the address from which on it is told of table descriptors that are entered, if it is at all.
    #[inline(always)]
    fn tables(&self) -> Option<u64> {
        None
    }
}

/// How far a walk came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// Where to go on; the end of the range when all is done.
    pub next: Ipa,
    /// Descriptors read. An entry the sink had no room for counts, and counts again when the walk goes on.
    pub visited: u32,
}

/// The tables on the way from the root to the cursor, by depth, without the root and without one of the deepest level: nothing
/// is below that.
///
/// Addresses only, to save stack: when the walk climbs over more than one level, the table is looked up again.
type Path = [PhysAddr; Level::MAX_DEPTH - 2];

/// What each table on the way says with those above it, in one word to save stack: the lowest bits are of the deepest.
#[derive(Clone, Copy, Default)]
struct Inherited(u32);

impl Inherited {
    #[inline(always)]
    fn current(self) -> TableAttrs {
        let [low, ..] = self.0.to_le_bytes();
        TableAttrs::from_bits(low)
    }

    #[inline(always)]
    fn enter(&mut self, below: TableAttrs) {
        self.0 = self.0 << TableAttrs::BITS | u32::from(self.current().and(below).to_bits());
    }

    #[inline(always)]
    fn climb(&mut self) {
        self.0 >>= TableAttrs::BITS;
    }
}

// The root says nothing.
const _: () = assert!((Level::MAX_DEPTH as u32 - 1) * TableAttrs::BITS <= u32::BITS);

/// Walks the entries that span any address of `cursor..end`, reading at most `budget` descriptors.
///
/// An `end` beyond the input-address space is taken as the end of the space.
///
/// # Errors
///
/// [`OutsideMemory`] if the root itself cannot be read.
#[inline(always)]
pub fn walk_range<M: TableMemory, S: Sink>(
    memory: &M,
    root: &Root,
    cursor: Ipa,
    end: Ipa,
    budget: u32,
    sink: &mut S,
) -> Result<Walked, OutsideMemory> {
    let geometry = root.geometry();
    let end_ia = u64::min(end.get(), geometry.ia_end());
    if cursor.get() >= end_ia {
        return Ok(Walked { next: cursor, visited: 0 });
    }
    let level = geometry.start_level();
    let mut walk = Walk {
        memory,
        root,
        end_ia,
        left: budget,
        ia: cursor.get(),
        level,
        shift: geometry.granule().entry_shift(level),
        depth: 0,
        table: root.entries(memory, cursor.get())?,
        above: None,
        path: Path::default(),
        inherited: Inherited::default(),
        tables: sink.tables().unwrap_or(u64::MAX),
        told: None,
        descriptor: AtomicU64::new(0),
    };
    // The two never need stack at one time.
    while let Some(stretch) = walk.stretch() {
        // Tables follow each other, mostly, so the sink need not be asked to find one.
        let (taken, stretch_end) = match stretch.first_table() {
            Some(raw) => (0, StretchEnd::Table(raw)),
            None => sink.take_stretch(&stretch),
        };
        if !walk.go_on(taken, stretch_end)? {
            break;
        }
    }
    let next = Ipa::try_new(u64::min(walk.ia, end_ia)).unwrap_or(end);
    Ok(Walked { next, visited: budget - walk.left })
}

/// Where a walk is.
struct Walk<'m, M> {
    memory: &'m M,
    root: &'m Root,
    /// Where it ends.
    end_ia: u64,
    /// Descriptors that it may still read.
    left: u32,
    /// The next address to look at.
    ia: u64,
    /// Level of the table that has its entry.
    level: Level,
    /// What an entry of that spans, as a shift.
    shift: u32,
    /// Tables above that one.
    depth: usize,
    /// Its entries.
    table: &'m [AtomicU64],
    /// The entries of the table one level up, from when it was left downwards to when it is climbed back to.
    above: Option<&'m [AtomicU64]>,
    path: Path,
    inherited: Inherited,
    /// Where table descriptors begin to be told.
    tables: u64,
    /// What the table descriptor is that is told next. If it is entered, the walk is in its table already.
    told: Option<EntryKind>,
    /// That descriptor.
    descriptor: AtomicU64,
}

impl<M: TableMemory> Walk<'_, M> {
    /// Returns the next entries, or `None` if the budget is used up.
    #[inline(always)]
    fn stretch(&self) -> Option<Stretch<'_>> {
        let &Self { ia, end_ia, level, shift, told, .. } = self;
        let geometry = self.root.geometry();
        let inherited = self.inherited.current();
        if let Some(kind) = told {
            let (level, shift) = match kind {
                EntryKind::Table => (level.parent()?, shift + geometry.granule().index_bits()),
                _ => (level, shift),
            };
            let (ia, entries) = (ia & (u64::MAX << shift), core::slice::from_ref(&self.descriptor));
            return Some(Stretch {
                ia,
                level,
                shift,
                entries,
                inherited,
                block: kind,
                table_or_page: kind,
                is_table: true,
            });
        }
        let index = (ia >> shift) & ((1 << geometry.granule().index_bits()) - 1);
        let wanted = ((end_ia - 1) >> shift) - (ia >> shift) + 1;
        let entries = part(self.table, index, u64::min(wanted, self.left.into())).filter(|part| !part.is_empty())?;
        Some(Stretch {
            ia: ia & (u64::MAX << shift),
            level,
            shift,
            entries,
            inherited,
            block: if geometry.is_block_level(level) { EntryKind::Leaf } else { EntryKind::Reserved },
            table_or_page: if level.is_last() { EntryKind::Leaf } else { EntryKind::Table },
            is_table: false,
        })
    }

    /// Goes on behind the entries that the sink took: into a table, over a wrong one, out of those that end. Returns whether
    /// there is more to walk.
    ///
    /// Not inlined, and generic for that: see the loops of runs.
    #[inline(never)]
    fn go_on(&mut self, taken: usize, end: StretchEnd) -> Result<bool, OutsideMemory> {
        let geometry = self.root.geometry();
        let index_bits = geometry.granule().index_bits();
        let ia_first = (self.ia & (u64::MAX << self.shift)).wrapping_add((taken as u64) << self.shift);
        if let Some(kind) = self.told.take() {
            // Without room, it comes again when the walk goes on: nothing of what it leads to was taken.
            if kind == EntryKind::Table || taken == 0 {
                return Ok(taken != 0);
            }
            self.ia = ia_first;
        } else {
            self.left -= taken as u32; // At most as many.
            if taken != 0 {
                self.ia = ia_first;
            }
            match end {
                StretchEnd::All => {}
                StretchEnd::Full => {
                    self.left -= 1;
                    return Ok(false);
                }
                StretchEnd::Table(raw) => {
                    self.left -= 1;
                    self.descriptor = AtomicU64::new(raw.to_bits());
                    let oa = raw.next_table(geometry);
                    let entered = enter(self.memory, self.root, &self.path, self.depth, oa);
                    self.told = entered.err();
                    // (A stretch of level 3 has no tables.)
                    if let (Ok(entered), Some(child)) = (entered, self.level.child()) {
                        if let Some(place) = self.path.get_mut(self.depth) {
                            *place = oa;
                        }
                        self.depth += 1;
                        self.level = child;
                        self.shift -= index_bits;
                        self.above = Some(core::mem::replace(&mut self.table, entered));
                        self.inherited.enter(geometry.table_attrs(raw.to_bits()));
                        self.told = (ia_first >= self.tables).then_some(EntryKind::Table);
                    }
                    return Ok(true);
                }
            }
        }

        // Climb out of the tables that end here, at least to the next of those a root concatenates.
        let mut climbed = None;
        while self.ia & ((1 << (self.shift + index_bits)) - 1) == 0 && self.ia < self.end_ia {
            let (Some(parent), Some(above)) = (self.level.parent(), self.depth.checked_sub(1)) else {
                climbed = Some(None);
                break;
            };
            climbed = Some(if climbed.is_none() { self.above } else { None });
            self.depth = above;
            self.level = parent;
            self.shift += index_bits;
            self.inherited.climb();
        }
        if let Some(known) = climbed {
            self.above = None;
            self.table = match (known, self.depth.checked_sub(1).and_then(|above| self.path.get(above))) {
                (Some(entries), _) => entries,
                (None, Some(&table)) => match self.memory.table(table, geometry.granule()) {
                    Ok(entries) => entries,
                    // A table stays one while it is locked, so this one never was. The next call starts here and
                    // reports it.
                    Err(OutsideMemory { .. }) => return Ok(false),
                },
                (None, None) => self.root.entries(self.memory, self.ia)?,
            };
        }
        Ok(self.ia < self.end_ia)
    }
}

/// Shows the entry of each level that translates `ia`, root first, to `visit`: at most five.
///
/// # Errors
///
/// [`OutsideMemory`] if the root itself cannot be read.
#[inline]
pub fn walk_address<M: TableMemory>(
    memory: &M,
    root: &Root,
    ia: Ipa,
    mut visit: impl FnMut(&Entry),
) -> Result<(), OutsideMemory> {
    let geometry = root.geometry();
    let granule = geometry.granule();
    let ia = ia.get();
    let mut level = geometry.start_level();
    let mut table = root.entries(memory, ia)?;
    let mut path = Path::default();
    let mut above = TableAttrs::NONE;
    for depth in 0..Level::MAX_DEPTH {
        let shift = granule.entry_shift(level);
        let index = (ia >> shift) & ((1 << granule.index_bits()) - 1);
        let Some(cell) = part(table, index, 1).and_then(<[_]>::first) else { break };
        let raw = RawDescriptor::from_bits(cell.load(Ordering::Relaxed));
        let (mut kind, oa) = classify(raw, level, geometry);
        let mut below = None;
        if let (EntryKind::Table, Some(child)) = (kind, level.child()) {
            match enter(memory, root, &path, depth, oa) {
                Ok(entered) => {
                    table = entered;
                    below = Some(child);
                    if let Some(place) = path.get_mut(depth) {
                        *place = oa;
                    }
                }
                Err(wrong) => kind = wrong,
            }
        }
        let inherited = if kind == EntryKind::Leaf { above } else { TableAttrs::NONE };
        visit(&Entry { ia: ia & (u64::MAX << shift), oa, raw, level, kind, inherited });
        let Some(child) = below else { break };
        above = above.and(geometry.table_attrs(raw.to_bits()));
        level = child;
    }
    Ok(())
}

/// Returns at most `count` entries from `index` on.
#[inline(always)]
fn part(entries: &[AtomicU64], index: u64, count: u64) -> Option<&[AtomicU64]> {
    let rest = entries.get(usize::try_from(index).ok()?..)?;
    rest.get(..usize::min(usize::try_from(count).ok()?, rest.len()))
}

/// Returns what `raw` is at `level` and the address in it. Whether a table can be entered is not checked.
#[inline(always)]
fn classify(raw: RawDescriptor, level: Level, geometry: &Geometry) -> (EntryKind, PhysAddr) {
    match raw.descriptor_type(level, geometry) {
        Type::Invalid => (EntryKind::Invalid, PhysAddr::default()),
        Type::Reserved => (EntryKind::Reserved, PhysAddr::default()),
        Type::Leaf => (EntryKind::Leaf, raw.output_address(level, geometry)),
        Type::Table => (EntryKind::Table, raw.next_table(geometry)),
    }
}

/// Returns the table at `table`, or what to report if it may not be entered from `path[..depth]`.
///
/// Not inlined: both kinds of walk have it.
#[inline(never)]
fn enter<'m, M: TableMemory>(
    memory: &'m M,
    root: &Root,
    path: &Path,
    depth: usize,
    table: PhysAddr,
) -> Result<&'m [AtomicU64], EntryKind> {
    // The root is compared as a whole: it may be several pages, or less than one.
    if root.contains(table) || path.iter().take(depth).any(|&above| above == table) {
        return Err(EntryKind::TableLoop);
    }
    let geometry = root.geometry();
    if !table.fits(u32::from(geometry.pa_bits())) {
        return Err(EntryKind::TableOutside);
    }
    memory.table(table, geometry.granule()).map_err(|OutsideMemory { .. }| EntryKind::TableOutside)
}
