// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ptdump text against a second implementation that knows no runs: it takes the table entry by entry, as the kernel
//! does, and spells each line its own way.

use super::support::*;
use crate::format::ptdump::{Dialect, Ptdump};
use crate::format::{Format, Heading, Trailer};
use crate::model::{Outcome, Row, TableFacts};
use proptest::prelude::*;
use s2dump_abi::slot::{Record, RecordKind};
use s2dump_vmsa::level::Level;

/// One entry of a table.
#[derive(Clone, Copy, Debug)]
struct Entry {
    ia: u64,
    level: i8,
    raw: u64,
}

impl Entry {
    fn shift(self) -> u32 {
        [39, 30, 21, 12][self.level as usize]
    }
}

/// What the kernel looks at, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Nothing,
    Leaf { read: bool, write: bool, xn: u64, af: bool, block: bool, software: u64 },
}

fn shown(raw: u64) -> Shown {
    if raw & 1 == 0 {
        return Shown::Nothing;
    }
    let bit = |n: u32| raw >> n & 1 == 1;
    Shown::Leaf { read: bit(6), write: bit(7), xn: raw >> 53 & 3, af: bit(10), block: !bit(1), software: raw >> 55 & 3 }
}

fn naive(entries: &[Entry], dialect: Dialect) -> String {
    let view = |entry: &Entry| match (shown(entry.raw), dialect) {
        // One bit is all the old text looked at.
        (Shown::Leaf { read, write, xn, af, block, .. }, Dialect::V10) => {
            Shown::Leaf { read, write, xn: xn & 2, af, block, software: 0 }
        }
        (Shown::Leaf { read, write, xn, af, block, .. }, Dialect::V7_3) => {
            Shown::Leaf { read, write, xn, af, block, software: 0 }
        }
        // Three of four values deny something, and none says which.
        (leaf @ Shown::Leaf { .. }, Dialect::Android) => leaf,
        (Shown::Nothing, _) => Shown::Nothing,
    };
    let mut text = String::from("---[ Guest IPA ]---\n");
    let mut at = 0;
    while at < entries.len() {
        let first = entries[at];
        let same = |entry: &&Entry| entry.level == first.level && view(entry) == view(&first);
        let count = entries[at..].iter().take_while(same).count();
        let last = entries[at + count - 1];
        let end = last.ia + (1 << last.shift());
        let kib = (end - first.ia) / 1024;
        let unit = kib.trailing_zeros() / 10;
        let size = format!("{}{}", kib >> (10 * unit), ["K", "M", "G", "T", "P", "E"][unit as usize]);
        text += &format!("0x{:016x}-0x{:016x}   {:>10} {}", first.ia, end, size, first.level);
        if let Shown::Leaf { read, write, xn, af, block, software } = view(&first) {
            text += "  ";
            text += if read { " R" } else { "  " };
            text += if write { " W" } else { "  " };
            text += match (dialect, xn) {
                (Dialect::V7_3, 0) => " px ux ",
                (Dialect::V7_3, 1) => " PXNux ",
                (Dialect::V7_3, 2) => " PXNUXN",
                (Dialect::V7_3, _) => " px UXN",
                (Dialect::V10, 0) => "  ",
                (Dialect::V10, _) => " X",
                (Dialect::Android, 0) => " X",
                (Dialect::Android, _) => "  ",
            };
            text += if af { " AF" } else { "   " };
            text += if block { " BLK" } else { "    " };
            if dialect == Dialect::Android {
                text += ["        ", " SW0    ", "     SW1", " SW0 SW1"][software as usize];
            }
        }
        text += "\n";
        at += count;
    }
    text
}

fn written(rows: &[Row], dialect: Dialect) -> String {
    let table = TableFacts::try_new(&dump_header(0x1000, VTCR_48)).unwrap();
    let mut out = Vec::new();
    let mut format = Ptdump::new(dialect);
    let heading = Heading {
        table,
        vm: None,
        exact: true,
        color: false,
        headings: true,
        filter: Vec::new(),
        rows: true,
        names: Default::default(),
    };
    format.begin(&mut out, &heading).unwrap();
    for row in rows {
        format.row(&mut out, row).unwrap();
    }
    let trailer = Trailer {
        outcome: Outcome::default(),
        rows: 0,
        holes: None,
        verified: None,
        missing: Default::default(),
        changes: Default::default(),
        issues: 0,
        cause: None,
    };
    format.end(&mut out, &trailer).unwrap();
    String::from_utf8(out).unwrap()
}

fn rows_of(entries: &[Entry]) -> Vec<Row> {
    let row = |entry: &Entry| Row {
        ia: entry.ia,
        oa: None,
        raw: entry.raw,
        count: 1,
        entry_shift: entry.shift(),
        level: Level::try_new(entry.level).unwrap(),
        kind: if entry.raw & 1 == 1 { RecordKind::LEAF } else { RecordKind::INVALID },
        linear: true,
        inherited: Default::default(),
        skipped: 0,
        changed: Default::default(),
        mark: Default::default(),
    };
    entries.iter().map(row).collect()
}

/// A table in miniature: entries of levels 1 to 3, neighbors often alike, in address order without gaps.
fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let attributes = (0..256_u64, 0..4_u64).prop_map(|(bits, common)| match common {
        // Most entries are one of two kinds, so that runs form.
        0 => PAGE,
        1 => 0,
        2 => POISONED | (bits << 6) | (bits << 53),
        _ => {
            (bits >> 6 & 3) << 55
                | (bits & 1) << 6
                | (bits >> 1 & 1) << 7
                | (bits >> 2 & 3) << 53
                | (bits >> 4 & 1) << 10
                | 3
        }
    });
    prop::collection::vec((1..=3_i8, attributes, 1..6_u64, any::<u32>()), 1..40).prop_map(|groups| {
        let mut ia = 0_u64;
        let mut entries = Vec::new();
        for (level, attributes, count, oa) in groups {
            let shift = [39, 30, 21, 12][level as usize];
            // A coarser level begins at its own alignment: pages fill up to there.
            while ia % (1 << shift) != 0 {
                let fill = [30, 21, 12].into_iter().find(|&fill| ia % (1 << fill) == 0).unwrap();
                let fill = if ia % (1 << 30) != 0 && fill == 30 { 21 } else { fill };
                entries.push(Entry {
                    ia,
                    level: match fill {
                        30 => 1,
                        21 => 2,
                        _ => 3,
                    },
                    raw: 0,
                });
                ia += 1 << fill;
            }
            for _ in 0..count {
                let leaf = if attributes & 1 == 1 { u64::from(oa) << 12 & !((1 << shift) - 1) } else { 0 };
                let kind = if level < 3 && attributes & 1 == 1 { 0b10 } else { 0 };
                entries.push(Entry { ia, level, raw: (attributes | leaf) & !kind });
                ia += 1 << shift;
            }
        }
        entries
    })
}

proptest! {
    #[test]
    fn equals_a_naive_writer(entries in entries()) {
        for dialect in [Dialect::V7_3, Dialect::V10, Dialect::Android] {
            prop_assert_eq!(written(&rows_of(&entries), dialect), naive(&entries, dialect));
        }
    }
}

/// The naive writer itself against lines the kernels printed.
#[test]
fn naive_writer_spells_like_the_kernel() {
    let page = Entry { ia: 0x102_0000, level: 3, raw: 1 << 54 | PAGE };
    let block = Entry { ia: 0x8000_0000, level: 2, raw: BLOCK };
    assert_eq!(
        naive(&[page], Dialect::V10),
        "---[ Guest IPA ]---\n0x0000000001020000-0x0000000001021000           4K 3   R W X AF    \n"
    );
    assert_eq!(
        naive(&[block], Dialect::V10),
        "---[ Guest IPA ]---\n0x0000000080000000-0x0000000080200000           2M 2   R W   AF BLK\n"
    );
    let shared = Entry { raw: SHARED_OWNED | BLOCK, ..block };
    assert_eq!(
        naive(&[shared], Dialect::Android),
        "---[ Guest IPA ]---\n0x0000000080000000-0x0000000080200000           2M 2   R W X AF BLK SW0    \n"
    );
}

/// What no leaf is prints like a hole, also where the kernel's bits would be set.
#[test]
fn faults_are_holes() {
    let reserved = Record { kind: RecordKind::RESERVED.0, ..leaves(0, 3, 1, 0, BLOCK) };
    let row = Row { kind: RecordKind(reserved.kind), ..rows_of(&[Entry { ia: 0, level: 3, raw: BLOCK }])[0] };
    assert_eq!(
        written(&[row], Dialect::V7_3),
        "---[ Guest IPA ]---\n0x0000000000000000-0x0000000000001000           4K 3\n"
    );
}
