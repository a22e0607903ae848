// SPDX-License-Identifier: MIT OR Apache-2.0
//! The walker: what it finds, what it refuses, where it stops, and that it goes on from there.

use crate::common::{all, assert_tiles, each_shape, ipa, shape, walk, Entries, Tables, BASE, BLOCK, FILL, PAGE, TABLE};
use s2dump_hyp::table_memory::{OutsideMemory, TableMemory};
use s2dump_hyp::walker::{walk_address, walk_range, EntryKind, MIN_BUDGET};
use s2dump_vmsa::{Granule, PhysAddr};
use std::sync::atomic::AtomicU64;

#[test]
fn good_empty_root_of_each_shape() {
    for shape in each_shape() {
        let tables = Tables::new(shape);
        let entries = all(&tables);
        assert_eq!(entries.len(), tables.root_words(), "{}: exactly the entries of the root", shape.name);
        assert!(entries.iter().all(|entry| entry.raw.to_bits() == 0), "{}", shape.name);
        assert_tiles(&tables, &entries);
    }
}

#[test]
fn good_last_page_of_each_shape() {
    for shape in each_shape() {
        let mut tables = Tables::new(shape);
        let last = shape.ia_end() - (1 << shape.page_shift);
        tables.map(last, 3, 0x1_2345_0000, PAGE);
        let entries = all(&tables);
        assert_tiles(&tables, &entries);
        let entry = entries.last().unwrap();
        assert_eq!((entry.ia, entry.kind, entry.level.get()), (last, EntryKind::Leaf, 3), "{}", shape.name);
    }
}

#[test]
fn good_range_starts_inside_a_block() {
    let mut tables = Tables::new(shape("4k_40_two_roots"));
    tables.map(0x4020_0000, 2, 0x8000_0000, BLOCK);
    let mut sink = Entries::default();
    let walked = walk(&tables, 0x4020_3000, 0x4020_5000, 100, &mut sink);
    assert_eq!(walked.next.get(), 0x4020_5000, "clipped to the end asked for");
    assert_eq!(walked.visited, 2);
    assert_eq!(sink.entries.len(), 1);
    assert_eq!(sink.entries[0].ia, 0x4020_0000, "the whole entry");
}

#[test]
fn good_end_beyond_the_space() {
    let tables = Tables::new(shape("4k_39_one_root"));
    let mut sink = Entries::default();
    let walked = walk(&tables, 0, 1 << 52, u32::MAX, &mut sink);
    assert_eq!((walked.next.get(), walked.visited), (1 << 39, 512));
}

#[test]
fn good_empty_range() {
    let tables = Tables::new(shape("4k_39_one_root"));
    let walked = walk(&tables, 0x1000, 0x1000, 100, &mut Entries::default());
    assert_eq!((walked.next.get(), walked.visited), (0x1000, 0));
}

#[test]
fn bad_table_loop_to_root() {
    let mut tables = Tables::new(shape("4k_40_two_roots"));
    for (ia, page) in [(0, 0), (1 << 30, 1)] {
        let root = tables.root_pa() + page * 0x1000;
        tables.map(ia, 1, root, TABLE);
    }
    let entries = all(&tables);
    assert_tiles(&tables, &entries);
    assert!(entries[..2].iter().all(|entry| entry.kind == EntryKind::TableLoop));
    assert_eq!(entries[1].oa, PhysAddr::new(tables.root_pa() + 0x1000), "the second table of the root is one too");
}

#[test]
fn bad_table_loop_to_itself_and_parent() {
    let mut tables = Tables::new(shape("4k_48"));
    tables.map(0x20_0000, 3, 0, PAGE);
    let level_2 = tables.entry_pa(0, 2) & !0xfff;
    let level_1 = tables.entry_pa(0, 1) & !0xfff;
    tables.map(3 << 21, 2, level_2, TABLE);
    tables.map(4 << 21, 2, level_1, TABLE);
    let entries = all(&tables);
    assert_tiles(&tables, &entries);
    let loops: Vec<_> = entries.iter().filter(|entry| entry.kind == EntryKind::TableLoop).collect();
    assert_eq!(loops.iter().map(|entry| entry.ia).collect::<Vec<_>>(), [3 << 21, 4 << 21]);
}

#[test]
fn good_table_right_behind_the_root() {
    for shape in each_shape().filter(|shape| shape.start_level < 3) {
        let mut tables = Tables::new(shape);
        let behind = tables.root_pa() + u64::max(tables.root_words() as u64 * 8, 1 << shape.page_shift);
        tables.clear_page(behind);
        tables.map(0, shape.start_level, behind, TABLE);
        assert_eq!(all(&tables)[0].level.get(), shape.start_level + 1, "{}: entered", shape.name);
    }
}

/// Two parents of one table are legal.
#[test]
fn good_shared_table() {
    let mut tables = Tables::new(shape("4k_48"));
    tables.map(0x20_0000, 3, 0x5000, PAGE);
    let level_3 = tables.entry_pa(0x20_0000, 3) & !0xfff;
    tables.map(0x40_0000, 2, level_3, TABLE);
    let pages: Vec<_> = all(&tables).into_iter().filter(|entry| entry.kind == EntryKind::Leaf).collect();
    assert_eq!(pages.iter().map(|entry| entry.ia).collect::<Vec<_>>(), [0x20_0000, 0x40_0000]);
}

#[test]
fn bad_child_outside_memory() {
    for pa in [0, BASE - 0x1000, 0xff_ffff_f000] {
        let mut tables = Tables::new(shape("4k_40_two_roots"));
        tables.map(0x4000_0000, 1, pa, TABLE);
        let entries = all(&tables);
        assert_tiles(&tables, &entries);
        assert_eq!((entries[1].kind, entries[1].oa), (EntryKind::TableOutside, PhysAddr::new(pa)));
    }
}

/// Memory that is there twice: again behind the output size of the table.
struct Mirrored(Tables);

impl TableMemory for Mirrored {
    fn table(&self, table: PhysAddr, granule: Granule) -> Result<&[AtomicU64], OutsideMemory> {
        self.0.table(PhysAddr::new(table.get() & ((1 << 40) - 1)), granule)
    }
}

/// The address is in memory, but it has a bit above the output size: the MMU faults, so it is not followed.
#[test]
fn bad_child_above_output_size() {
    let mut tables = Tables::new(shape("4k_40_two_roots"));
    let child = tables.new_page();
    tables.map(0, 1, child | 1 << 40, TABLE);
    let memory = Mirrored(tables);
    let mut sink = Entries::default();
    walk_range(&memory, &memory.0.root(), ipa(0), ipa(1 << 30), 1000, &mut sink).unwrap();
    let kinds: Vec<_> = sink.entries.iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [EntryKind::TableOutside]);
}

#[test]
fn bad_block_at_levels_without() {
    let mut tables = Tables::new(shape("4k_48"));
    tables.map(0, 0, 0x8000_0000, BLOCK);
    tables.map(1 << 39, 3, 0x8000_0000, BLOCK);
    let kinds: Vec<_> = all(&tables).iter().filter(|e| e.raw.to_bits() != 0).map(|e| (e.level.get(), e.kind)).collect();
    assert_eq!(kinds, [(0, EntryKind::Reserved), (3, EntryKind::Reserved)]);
}

#[test]
fn good_annotation_is_kept_raw() {
    let mut tables = Tables::new(shape("4k_40_two_roots"));
    tables.set(0x1000, 3, 0x3000_0000_0000_0000);
    let entries = all(&tables);
    assert_eq!((entries[1].kind, entries[1].raw.to_bits()), (EntryKind::Invalid, 0x3000_0000_0000_0000));
}

/// Nothing but descriptors of the root is in a root smaller than a page: the rest of its page is filling.
#[test]
fn good_small_root_ends_at_its_last_entry() {
    for name in ["4k_33_small_root", "4k_16_pages_only", "16k_30_small_root"] {
        let tables = Tables::new(shape(name));
        assert!(all(&tables).iter().all(|entry| entry.raw.to_bits() != FILL), "{name}");
    }
}

#[test]
fn good_budget_boundaries() {
    // Descent of 3, then 512 pages, then the rest of the level above.
    let mut tables = Tables::new(shape("4k_40_two_roots"));
    tables.map(0, 3, 0x5000, PAGE);
    for (budget, next) in
        [(0, 0), (1, 0), (2, 0), (3, 0x1000), (4, 0x2000), (513, 0x1f_f000), (514, 0x20_0000), (515, 0x40_0000)]
    {
        let walked = walk(&tables, 0, 1 << 40, budget, &mut Entries::default());
        assert_eq!((walked.next.get(), walked.visited), (next, budget), "budget {budget}");
    }
}

#[test]
fn good_full_sink_stops_before_the_entry_it_refuses() {
    let mut tables = Tables::new(shape("4k_40_two_roots"));
    tables.map(0, 3, 0x5000, PAGE);
    let mut sink = Entries { room: Some(2), ..Entries::default() };
    let walked = walk(&tables, 0, 1 << 40, 1000, &mut sink);
    assert_eq!((walked.next.get(), walked.visited, sink.entries.len()), (0x2000, 5, 2));
}

#[test]
fn good_least_budget_always_makes_progress() {
    for shape in each_shape() {
        let mut tables = Tables::new(shape);
        let last = shape.ia_end() - (1 << shape.page_shift);
        tables.map(last, 3, 0x1_2345_0000, PAGE);
        let walked = walk(&tables, last, shape.ia_end(), MIN_BUDGET, &mut Entries::default());
        assert_eq!(walked.next.get(), shape.ia_end(), "{}", shape.name);
    }
}

#[test]
fn good_address_shows_each_level() {
    for shape in each_shape() {
        let mut tables = Tables::new(shape);
        let ia = shape.ia_end() / 2 + (3 << shape.page_shift);
        tables.map(ia, 3, 0x1_2345_0000, PAGE);
        let mut seen = Vec::new();
        walk_address(&tables, &tables.root(), ipa(ia + 0x123), |entry| seen.push(*entry)).unwrap();

        let levels: Vec<_> = seen.iter().map(|entry| entry.level.get()).collect();
        assert_eq!(levels, (shape.start_level..=3).collect::<Vec<_>>(), "{}", shape.name);
        let (leaf, above) = seen.split_last().unwrap();
        assert!(above.iter().all(|entry| entry.kind == EntryKind::Table));
        assert_eq!((leaf.ia, leaf.oa.get(), leaf.kind), (ia, 0x1_2345_0000, EntryKind::Leaf), "{}", shape.name);
        assert_eq!(leaf.raw.to_bits(), tables.translate(ia).raw);
    }
}

#[test]
fn bad_address_ends_at_a_wrong_table() {
    let mut tables = Tables::new(shape("4k_48"));
    let root = tables.root_pa();
    tables.map(0, 1, root, TABLE);
    let mut kinds = Vec::new();
    walk_address(&tables, &tables.root(), ipa(0x1000), |entry| kinds.push(entry.kind)).unwrap();
    assert_eq!(kinds, [EntryKind::Table, EntryKind::TableLoop]);
}
