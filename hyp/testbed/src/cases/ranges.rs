// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Ranges over the edge of tables, as a dump walks them: each entry they show must be the one the MMU finds there.

use crate::compare::Compare;
use crate::mmu::{Mmu, Stage2};
use crate::path::Path;
use crate::report::Group;
use crate::rng::Rng;
use s2dump_hyp::table_memory::Root;
use s2dump_hyp::walker::{walk_range, Entry, Sink, Stretch, StretchEnd, MIN_BUDGET};
use s2dump_vmsa::{Geometry, Ipa, Level};

/// Entries of a range that are looked at.
const ENTRIES: usize = 10;

/// Walks over the end of a table on the way to `ia`, up and down again.
pub(super) fn over_an_edge<M: Mmu>(
    compare: &mut Compare<'_, M>,
    settings: &Stage2,
    geometry: &Geometry,
    ia: u64,
    rng: &mut Rng,
) {
    compare.group = Group::Ranges;
    let granule = geometry.granule();
    let tables = rng.below(3) as u32 + 1;
    let span = granule.entry_shift(Level::L3) + granule.index_bits() * tables;
    let edge = (ia | ((1 << span.min(u32::from(geometry.ia_bits()))) - 1)) + 1;
    let cursor = edge - ((rng.below(3) + 1) << granule.page_shift());
    let (Ok(root), Ok(start), Ok(end)) =
        (Root::from_register(*geometry, settings.vttbr), Ipa::try_new(cursor), Ipa::try_new(geometry.ia_end()))
    else {
        return;
    };
    let mut found = Found { geometry: *geometry, entries: [None; ENTRIES], count: 0 };
    let walked = walk_range(&compare.arena, &root, start, end, MIN_BUDGET + ENTRIES as u32, &mut found);
    if walked.is_err() {
        return; // No memory at the root: no other group leaves that out.
    }
    let mut next = cursor;
    for entry in found.entries.into_iter().flatten() {
        let path = Path::walk(&compare.arena, &root, next);
        let is_the_same = path.is_ok_and(|path| path.entries().any(|(_, one)| *one == entry));
        if !is_the_same || entry.ia > next {
            compare.fail_range(settings, next, &entry);
        }
        compare.at_s12(settings, false, next);
        next = entry.ia + (1 << granule.entry_shift(entry.level));
    }
}

/// The first entries of a range.
struct Found {
    geometry: Geometry,
    entries: [Option<Entry>; ENTRIES],
    count: usize,
}

impl Found {
    /// Keeps an entry, if there is room.
    fn keep(&mut self, entry: Entry) -> bool {
        let place = self.entries.get_mut(self.count);
        self.count += 1;
        place.map(|place| *place = Some(entry)).is_some()
    }
}

impl Sink for Found {
    fn take_stretch(&mut self, stretch: &Stretch<'_>) -> (usize, StretchEnd) {
        let mut taken = 0;
        loop {
            match stretch.entry(taken, &self.geometry) {
                Ok(entry) if self.keep(entry) => taken += 1,
                Ok(_) => return (taken, StretchEnd::Full),
                Err(end) => return (taken, end),
            }
        }
    }
}
