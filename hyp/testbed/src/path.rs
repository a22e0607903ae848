// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! What the walker says of one address: the product's code, run on the tables under test.

use crate::arena::Arena;
use crate::mapping::entry_at;
use s2dump_hyp::table_memory::{OutsideMemory, Root, TableMemory};
use s2dump_hyp::walker::{walk_address, walk_range, Entry, EntryKind, Sink, Stretch, StretchEnd, MIN_BUDGET};
use s2dump_vmsa::raw::Type;
use s2dump_vmsa::{Geometry, Ipa, Level, PhysAddr, RawDescriptor, TableAttrs};

/// The entries on the way to an address, root first.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// The table's shape.
    pub geometry: Geometry,
    /// The walker stopped at a table that leads back to one on the way, as it must; what follows is read here, as the MMU
    /// reads on.
    pub has_loop: bool,
    entries: [Option<(u64, Entry)>; Level::MAX_DEPTH],
}

/// Why there is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPath {
    /// The root is not memory.
    Outside,
    /// The two ways of the walker do not agree.
    Disagree,
}

impl Path {
    /// Walks to `ia`, which is inside the input space, in both ways the walker has.
    ///
    /// # Errors
    ///
    /// See [`NoPath`].
    pub fn walk(arena: &Arena<'_>, root: &Root, ia: u64) -> Result<Self, NoPath> {
        let geometry = *root.geometry();
        let mut entries = [None; Level::MAX_DEPTH];
        let mut count = 0;
        let mut table = root.base().get();
        let start = Ipa::try_new(ia).map_err(|_| NoPath::Disagree)?;
        let walked = walk_address(arena, root, start, |entry| {
            let shift = geometry.granule().entry_shift(entry.level);
            let mask = if count == 0 { u64::MAX } else { (1 << geometry.granule().index_bits()) - 1 };
            entries[count] = Some((table + 8 * (ia >> shift & mask), *entry));
            count += 1;
            table = entry.oa.get();
        });
        walked.map_err(|OutsideMemory { .. }| NoPath::Outside)?;
        let mut path = Self { geometry, has_loop: false, entries };

        let end = Ipa::try_new(ia + 1).map_err(|_| NoPath::Disagree)?;
        let mut last = Last { geometry, entry: None };
        let ranged = walk_range(arena, root, start, end, MIN_BUDGET, &mut last);
        let agrees = ranged.is_ok_and(|walked| walked.next == end && walked.visited == count as u32);
        if !agrees || last.entry != Some(*path.last()) {
            return Err(NoPath::Disagree);
        }
        path.has_loop = path.last().kind == EntryKind::TableLoop;
        while let (EntryKind::TableLoop, Some(level)) = (path.last().kind, path.last().level.child()) {
            path.read_on(arena, level, ia);
        }
        Ok(path)
    }

    /// Adds the entry for `ia` at `level` in the table that the last one leads to. A level further down each time, so it ends.
    fn read_on(&mut self, arena: &Arena<'_>, level: Level, ia: u64) {
        let geometry = &self.geometry;
        let shift = geometry.granule().entry_shift(level);
        let place = entry_at(geometry, self.last().oa.get(), level, ia, false);
        let raw = RawDescriptor::from_bits(arena.read(place).unwrap_or(0));
        let (kind, oa) = match raw.descriptor_type(level, geometry) {
            Type::Invalid => (EntryKind::Invalid, PhysAddr::default()),
            Type::Reserved => (EntryKind::Reserved, PhysAddr::default()),
            Type::Leaf => (EntryKind::Leaf, raw.output_address(level, geometry)),
            Type::Table => {
                let table = raw.next_table(geometry);
                let is_there = table.fits(geometry.pa_bits().into()) && arena.table(table, geometry.granule()).is_ok();
                (if is_there { EntryKind::TableLoop } else { EntryKind::TableOutside }, table)
            }
        };
        let above = |above: TableAttrs, (_, entry): &(u64, Entry)| above.and(geometry.table_attrs(entry.raw.to_bits()));
        let inherited = match kind {
            EntryKind::Leaf => self.entries().fold(TableAttrs::NONE, above),
            _ => TableAttrs::NONE,
        };
        let entry = Entry { ia: ia & (u64::MAX << shift), oa, raw, level, kind, inherited };
        if let Some(last) = self.entries.iter_mut().find(|entry| entry.is_none()) {
            *last = Some((place, entry));
        }
    }

    /// Returns the last entry.
    ///
    /// # Panics
    ///
    /// If there is none, which no walk leaves.
    #[must_use]
    pub fn last(&self) -> &Entry {
        self.entries().last().map(|(_, entry)| entry).expect("a walk that found its root shows an entry")
    }

    /// Returns the entries, each with where it stands.
    pub fn entries(&self) -> impl Iterator<Item = &(u64, Entry)> {
        self.entries.iter().flatten()
    }
}

/// Keeps the last entry of a walk through a range.
struct Last {
    geometry: Geometry,
    entry: Option<Entry>,
}

impl Sink for Last {
    fn take_stretch(&mut self, stretch: &Stretch<'_>) -> (usize, StretchEnd) {
        match stretch.entry(0, &self.geometry) {
            Ok(entry) => {
                self.entry = Some(entry);
                (1, StretchEnd::All)
            }
            Err(end) => (0, end),
        }
    }
}
