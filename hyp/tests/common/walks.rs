// SPDX-License-Identifier: MIT OR Apache-2.0
//! Walks in few words.

use super::{Entries, Shape, Tables, SHAPES};
use s2dump_hyp::walker::{walk_range, Entry, Walked};
use s2dump_vmsa::Ipa;

pub(crate) fn ipa(raw: u64) -> Ipa {
    Ipa::try_new(raw).unwrap()
}

/// The shape of this name.
pub(crate) fn shape(name: &str) -> Shape {
    *SHAPES.iter().find(|shape| shape.name == name).unwrap()
}

/// Walks a range in one call.
pub(crate) fn walk(tables: &Tables, from: u64, to: u64, budget: u32, sink: &mut Entries) -> Walked {
    walk_range(tables, &tables.root(), ipa(from), ipa(to), budget, sink).unwrap()
}

/// All entries, by one unbounded walk.
pub(crate) fn all(tables: &Tables) -> Vec<Entry> {
    let mut sink = Entries::default();
    let end = tables.shape.ia_end();
    let walked = walk(tables, 0, end, u32::MAX, &mut sink);
    assert_eq!(walked.next.get(), end);
    sink.entries
}

/// Checks the spans of the entries, which must follow each other without gap or overlap.
pub(crate) fn assert_tiles(tables: &Tables, entries: &[Entry]) {
    let mut ia = 0;
    for entry in entries {
        assert_eq!(entry.ia, ia, "{}", tables.shape.name);
        ia += 1 << tables.shape.shift(entry.level.get());
    }
    assert_eq!(ia, tables.shape.ia_end(), "{}", tables.shape.name);
}
