// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hostile tables by hand: loops of every kind, tables that are not memory, tables of two levels at once; and what tables
//! hand down.

use crate::common::{all, assert_tiles, each_shape, ipa, shape, walk, Entries, Tables, BLOCK, PAGE, TABLE};
use s2dump_hyp::table_memory::{MisalignedRoot, OutsideMemory, Root, TableMemory};
use s2dump_hyp::walker::{walk_address, walk_range, Entry, EntryKind, MIN_BUDGET};
use s2dump_vmsa::{Granule, PhysAddr};
use std::sync::atomic::AtomicU64;

/// Two tables of two levels that lead to each other: the second is entered once, and leads back to an ancestor.
#[test]
fn bad_two_tables_lead_to_each_other() {
    let mut tables = Tables::new(shape("4k_48"));
    tables.map(0, 3, 0x5000, PAGE);
    let level_1 = tables.entry_pa(0, 1) & !0xfff;
    let level_2 = tables.entry_pa(0, 2) & !0xfff;
    tables.map(2 << 21, 2, level_1, TABLE);
    // And the other way round, from an entry that nothing else uses.
    tables.map(5 << 30, 1, level_2, TABLE);
    let entries = all(&tables);
    assert_tiles(&tables, &entries);
    let loops: Vec<_> = entries.iter().filter(|entry| entry.kind == EntryKind::TableLoop).collect();
    assert_eq!(loops.iter().map(|entry| entry.ia).collect::<Vec<_>>(), [2 << 21, (5 << 30) + (2 << 21)]);
    assert!(loops.iter().all(|entry| entry.oa.get() == level_1));
}

/// Every entry of a table leads to it: as many loops as entries, and not 512 times that at each level below.
#[test]
#[cfg_attr(miri, ignore = "hundreds of tables: minutes under Miri")]
fn bad_table_of_nothing_but_itself() {
    for shape in each_shape().filter(|shape| shape.start_level < 2) {
        let mut tables = Tables::new(shape);
        let level = shape.start_level + 1;
        let table = tables.entry_pa(0, level) & !((1 << shape.page_shift) - 1);
        let words = 1_u64 << shape.index_bits();
        (0..words).for_each(|n| tables.map(n << shape.shift(level), level, table, TABLE));
        let mut sink = Entries::default();
        let end = shape.ia_end().min(1 << shape.shift(shape.start_level));
        let walked = walk(&tables, 0, end, u32::MAX, &mut sink);
        assert_eq!(u64::from(walked.visited), 1 + words, "{}", shape.name);
        assert!(sink.entries.iter().all(|entry| entry.kind == EntryKind::TableLoop), "{}", shape.name);
    }
}

/// Loops cost budget like anything else, and a walk goes on behind the last it has paid for.
#[test]
#[cfg_attr(miri, ignore = "hundreds of tables: minutes under Miri")]
fn good_budget_counts_loops() {
    let mut tables = Tables::new(shape("4k_48"));
    let level_1 = tables.entry_pa(0, 1) & !0xfff;
    (0..512).for_each(|n| tables.map(n << 30, 1, level_1, TABLE));
    let (mut cursor, mut visited, mut calls) = (0, 0, 0);
    while cursor < 1 << 39 {
        let walked = walk(&tables, cursor, 1 << 39, MIN_BUDGET, &mut Entries::default());
        assert!(walked.visited <= MIN_BUDGET);
        // One to come down, the others for an entry each.
        assert_eq!(walked.next.get(), cursor + (u64::from(walked.visited - 1) << 30));
        (cursor, visited, calls) = (walked.next.get(), visited + walked.visited, calls + 1);
    }
    assert_eq!((calls, visited), (128, 512 + 128));
}

/// One table, entered as one of level 2 and as one of level 3: legal, and read as each.
#[test]
fn good_table_of_two_levels() {
    let mut tables = Tables::new(shape("4k_48"));
    tables.map(0, 2, 0x4000_0000, BLOCK);
    tables.map(1 << 21, 2, 0x7000, PAGE);
    let level_2 = tables.entry_pa(0, 2) & !0xfff;
    // An entry of a level 2 beside it, so that the table is no ancestor.
    tables.map(1 << 30, 2, level_2, TABLE);
    let found = |entries: &[Entry], ia| *entries.iter().find(|entry| entry.ia == ia).unwrap();
    let entries = all(&tables);
    assert_tiles(&tables, &entries);
    let kinds = [0, 1 << 21, 1 << 30, (1 << 30) + 0x1000].map(|ia| {
        let entry = found(&entries, ia);
        (entry.level.get(), entry.kind)
    });
    let (leaf, reserved) = (EntryKind::Leaf, EntryKind::Reserved);
    assert_eq!(kinds, [(2, leaf), (2, EntryKind::TableOutside), (3, reserved), (3, leaf)]);
}

/// The last page of memory is cut off in the middle.
#[test]
fn bad_child_partly_outside_memory() {
    let mut tables = Tables::new(shape("4k_40_two_roots"));
    let child = tables.new_page();
    tables.map(0, 1, child, TABLE);
    let memory = Cut { tables, end: child + 0x800 };
    let mut sink = Entries::default();
    walk_range(&memory, &memory.tables.root(), ipa(0), ipa(1 << 30), 1000, &mut sink).unwrap();
    assert_eq!(sink.entries.iter().map(|entry| entry.kind).collect::<Vec<_>>(), [EntryKind::TableOutside]);
}

/// Memory that ends before it does.
struct Cut {
    tables: Tables,
    end: u64,
}

impl TableMemory for Cut {
    fn table(&self, table: PhysAddr, granule: Granule) -> Result<&[AtomicU64], OutsideMemory> {
        if table.get() + (1 << granule.page_shift()) > self.end {
            return Err(OutsideMemory { table });
        }
        self.tables.table(table, granule)
    }
}

/// No root, no walk: said at once, for the part of it that is asked for.
#[test]
fn bad_root_outside_memory() {
    let tables = Tables::new(shape("4k_40_two_roots"));
    let second = tables.root_pa() + 0x1000;
    let memory = Cut { tables, end: second };
    let root = memory.tables.root();
    let end = ipa(1 << 40);
    let error = OutsideMemory { table: PhysAddr::new(second) };
    let first = walk_range(&memory, &root, ipa(0), ipa(1 << 39), 5, &mut Entries::default());
    assert!(first.is_ok(), "the first table of the root is there");
    assert_eq!(walk_range(&memory, &root, ipa(1 << 39), end, 5, &mut Entries::default()), Err(error));
    assert_eq!(walk_range(&memory, &root, ipa(0), end, 1000, &mut Entries::default()), Err(error));
    assert_eq!(walk_address(&memory, &root, ipa(1 << 39), |_| ()), Err(error));
}

#[test]
fn bad_misaligned_root() {
    for shape in each_shape() {
        let bytes = shape.root_words() as u64 * 8;
        let root = |at| Root::try_new(shape.geometry(), PhysAddr::new(at));
        for wrong in [bytes / 2, bytes + 8, 8] {
            let is_aligned = wrong % bytes == 0;
            assert_eq!(root(wrong).is_ok(), is_aligned, "{}", shape.name);
        }
        assert_eq!(root(bytes * 3).unwrap().base().get(), bytes * 3);
        assert_eq!(root(bytes / 2).err(), Some(MisalignedRoot(PhysAddr::new(bytes / 2))));
    }
}

/// What tables say of rights comes down to the leaves, ORed, and stays on its own branch.
#[test]
#[cfg_attr(miri, ignore = "hundreds of tables: minutes under Miri")]
fn good_table_attributes_are_inherited() {
    let mut tables = Tables::new(shape("el2_4k_48"));
    let inherited = |tables: &Tables, ia| {
        let mut last = None;
        walk_address(tables, &tables.root(), ipa(ia), |entry| last = Some(entry.inherited.to_bits())).unwrap();
        let walked = all(tables).iter().find(|entry| entry.ia == ia).map(|entry| entry.inherited.to_bits());
        assert_eq!(walked, last);
        last.unwrap()
    };
    // XNTable at level 0, APTable[1] at level 1; PXNTable and APTable[0], which do not count without EL0, at level 2.
    for (level, bits) in [(0, 1 << 60), (1, 1 << 62), (2, 1 << 59 | 1 << 61)] {
        tables.table_bits = bits;
        tables.entry_pa(0, level + 1);
    }
    tables.table_bits = 0;
    tables.map(0, 3, 0x5000, PAGE);
    tables.map(1 << 30, 3, 0x6000, PAGE);
    tables.map(1 << 39, 3, 0x7000, PAGE);
    assert_eq!([0, 1 << 30, 1 << 39].map(|ia| inherited(&tables, ia)), [0b1010, 0b0010, 0]);
    assert_eq!(inherited(&tables, 0x1000), 0, "a hole inherits nothing that is told");
}
