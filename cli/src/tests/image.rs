// SPDX-License-Identifier: MIT OR Apache-2.0
//! `--ram` on random tables, against a naive walker that knows no slots, pages or runs.

use super::support::images::{core, Image};
use super::{run_without_device, TempFile};
use crate::exit_code::ExitCode;
use proptest::prelude::*;

const BASE: u64 = 0x4000_0000;
const VTTBR: u64 = BASE;

/// A kind of table: its VTCR_EL2 without PS, granule, level and pages of the root, input bits.
struct Shape {
    vtcr: u64,
    page_shift: u32,
    start_level: i8,
    root_pages: usize,
    ia_bits: u32,
}

/// VTCR_EL2 without PS.
const fn vtcr(tg0: u64, sl0: u64, ia_bits: u64) -> u64 {
    1 << 31 | tg0 << 14 | sl0 << 6 | (64 - ia_bits)
}

/// Small tables of each granule; the first and the last with roots of several tables.
const SHAPES: [Shape; 4] = [
    Shape { vtcr: vtcr(0, 0, 32), page_shift: 12, start_level: 2, root_pages: 4, ia_bits: 32 },
    Shape { vtcr: vtcr(0, 1, 33), page_shift: 12, start_level: 1, root_pages: 1, ia_bits: 33 },
    Shape { vtcr: vtcr(2, 1, 36), page_shift: 14, start_level: 2, root_pages: 1, ia_bits: 36 },
    Shape { vtcr: vtcr(1, 0, 31), page_shift: 16, start_level: 3, root_pages: 4, ia_bits: 31 },
];

impl Shape {
    fn shift(&self, level: i8) -> u32 {
        self.page_shift + (self.page_shift - 3) * (3 - level) as u32
    }

    fn has_blocks(&self, level: i8) -> bool {
        level == 2 || (level == 1 && self.page_shift == 12)
    }
}

/// An entry: input address, level, descriptor, kind.
type Entry = (u64, i8, u64, &'static str);

/// Walks by recursion.
fn naive(shape: &Shape, words: &[u64], first: usize, ia: u64, level: i8, above: &[u64], into: &mut Vec<Entry>) {
    let page = 1_u64 << shape.page_shift;
    let root_end = BASE + (shape.root_pages as u64) * page;
    let is_root = level == shape.start_level;
    let entries = if is_root { 1 << (shape.ia_bits - shape.shift(level)) } else { page as usize / 8 };
    for n in 0..entries {
        let (raw, ia) = (words[first + n], ia + ((n as u64) << shape.shift(level)));
        let next = raw & 0xffff_ffff_ffff & !(page - 1);
        let kind = match raw & 3 {
            0 | 2 if raw == 0 => "hole",
            0 | 2 => "invalid",
            1 if level == 3 || !shape.has_blocks(level) => "reserved",
            1 => "block",
            _ if level == 3 => "page",
            _ if (BASE..root_end).contains(&next) || above.contains(&next) => "table-loop",
            _ if next < BASE || next + page > BASE + 8 * words.len() as u64 => "table-outside",
            _ => {
                let above: Vec<u64> = above.iter().copied().chain([next]).collect();
                naive(shape, words, ((next - BASE) / 8) as usize, ia, level + 1, &above, into);
                continue;
            }
        };
        into.push((ia, level, raw, kind));
    }
}

/// Folds neighbors that are the same, as `--exact` does, to lines of `-o start,end,level,raw,kind`.
fn exact_rows(shape: &Shape, entries: &[Entry]) -> Vec<String> {
    let mut rows: Vec<(Entry, u64)> = Vec::new();
    for &(ia, level, raw, kind) in entries {
        let step = 1 << shape.shift(level);
        if let Some(((first_ia, first_level, first_raw, first_kind), end)) = rows.last_mut() {
            let moved = if matches!(kind, "page" | "block") { ia - *first_ia } else { 0 };
            let is_next = first_raw.wrapping_add(moved) == raw && (*first_raw ^ raw) >> 48 == 0;
            if *first_level == level && *first_kind == kind && is_next {
                *end = ia + step;
                continue;
            }
        }
        rows.push(((ia, level, raw, kind), ia + step));
    }
    let line = |((ia, level, raw, kind), end): &(Entry, u64)| {
        format!("{ia:#018x} {:#018x} L{level} {raw:#018x} {kind}", end - 1)
    };
    rows.iter().map(line).collect()
}

/// Says what the exit code of a dump of all `entries` has to be.
fn expected_code(entries: &[Entry]) -> ExitCode {
    let count = |is_such: &dyn Fn(&Entry) -> bool| entries.iter().filter(|entry| is_such(entry)).count();
    let is_pkvm = |raw: u64| match raw >> 60 {
        1 | 3 => raw << 4 == 0,
        2 => matches!(raw >> 1 & 7, 1 | 2),
        _ => false,
    };
    let known = count(&|(.., raw, kind)| *kind == "invalid" && is_pkvm(*raw));
    let unknown = count(&|(.., raw, kind)| *kind == "invalid" && !is_pkvm(*raw));
    if count(&|(.., kind)| *kind == "table-outside") > 0 {
        ExitCode::Partial
    } else if count(&|(.., kind)| !matches!(*kind, "hole" | "invalid")) == 0 && unknown >= 8 && unknown > known {
        ExitCode::Finding
    } else {
        ExitCode::Ok
    }
}

/// A run of entries: page number, levels above 3, count, what they are.
type Patch = (u64, i8, u64, u64);

fn build(shape: &Shape, patches: &[Patch]) -> Image {
    let mut image = Image::new(BASE, shape.page_shift, shape.start_level, shape.root_pages);
    for &(page, above, count, filling) in patches {
        let level = i8::max(3 - above, shape.start_level);
        let shift = shape.shift(level);
        let first = ((page << shape.page_shift) % (1 << shape.ia_bits)) >> shift;
        for n in first..u64::min(first + count, 1 << (shape.ia_bits - shift)) {
            let page = 1_u64 << shape.page_shift;
            let leaf = if level == 3 { 3 } else { 1 };
            let raw = match filling % 8 {
                0..=2 => (0x10_0000_0000 + (n << shift)) | (filling >> 3 & 0xf) << 53 | 0x4c0 | leaf,
                3 => (n.wrapping_mul(0x9e37_79b9) << shift & 0xffff_ffff_ffff) | 0x4c0 | leaf,
                4 => filling << 1,
                // A table somewhere near, or a page there.
                5 => (BASE + (filling >> 3) % 24 * page) | 3,
                6 => (filling << shape.page_shift & 0xffff_ffff_ffff) | 3,
                _ => 0,
            };
            image.set(n << shift, level, raw);
        }
    }
    image
}

fn patches() -> impl Strategy<Value = Vec<Patch>> {
    let page = prop_oneof![0..2000_u64, (0..2000_u64).prop_map(u64::wrapping_neg), any::<u64>()];
    let patch = (page, prop_oneof![3 => Just(0_i8), 1 => 0..3_i8], 1..300_u64, any::<u64>());
    prop::collection::vec(patch, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn equals_a_naive_walk(which in 0..SHAPES.len(), patches in patches(), cut: prop::sample::Index) {
        let shape = &SHAPES[which];
        let image = build(shape, &patches);
        let mut entries = Vec::new();
        naive(shape, &image.words, 0, 0, shape.start_level, &[], &mut entries);
        let expected = exact_rows(shape, &entries);

        let bytes = image.bytes();
        let raw = TempFile::new(&format!("random-{which}.ram"), &bytes);
        let (low, high) = bytes.split_at(cut.index(bytes.len()) & !7);
        let segments = [(BASE, low), (BASE + low.len() as u64, high)];
        let core = TempFile::new(&format!("random-{which}.core"), &core(183, &segments));
        for ram in [format!("{}@{BASE:#x}", raw.path()), core.path().to_string()] {
            let options = "--exact -n -o start,end,level,raw,kind";
            let ran = run_without_device(&format!(
                "dump --ram {ram} --vtcr {:#x} --vttbr {VTTBR:#x} --pa-bits 48 {options}", shape.vtcr | 5 << 16
            ));
            prop_assert_eq!(ran.code, expected_code(&entries), "{}", ran.err);
            let rows: Vec<String> =
                ran.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
            prop_assert_eq!(&rows, &expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Where the table maps a page of memory, pages and blocks alike, as a look at each of its entries tells.
    #[test]
    fn rmap_equals_a_naive_search(which in 0..SHAPES.len(), patches in patches(), chosen: prop::sample::Index, into: u64) {
        let shape = &SHAPES[which];
        let image = build(shape, &patches);
        let mut entries = Vec::new();
        naive(shape, &image.words, 0, 0, shape.start_level, &[], &mut entries);
        let leaves: Vec<(u64, i8, u64, u64)> = entries
            .iter()
            .filter(|(.., kind)| matches!(*kind, "page" | "block"))
            .map(|&(ia, level, raw, _)| {
                let size = 1 << shape.shift(level);
                (ia, level, raw & 0xffff_ffff_ffff & !(size - 1), size)
            })
            .collect();
        prop_assume!(!leaves.is_empty());
        let (_, _, oa, size) = leaves[chosen.index(leaves.len())];
        let last = (1 << shape.page_shift) - 1;
        let pa = (oa + into % size) & !last;
        let expected: Vec<String> = leaves
            .iter()
            .filter(|(_, _, oa, size)| (*oa..oa + size).contains(&pa))
            .map(|(ia, level, oa, _)| format!("{pa:#018x}-{:#018x} ram {:#018x} L{level}", pa + last, ia + (pa - oa)))
            .collect();
        let ram = TempFile::new(&format!("rmap-{which}.ram"), &image.bytes());
        let ran = run_without_device(&format!(
            "rmap --ram {}@{BASE:#x} --vtcr {:#x} --vttbr {VTTBR:#x} --pa-bits 48 {pa:#x}", ram.path(), shape.vtcr | 5 << 16
        ));
        prop_assert_eq!(ran.code, expected_code(&entries), "{}", ran.err);
        let words = |line: &str| line.split_whitespace().take(4).collect::<Vec<_>>().join(" ");
        let told: Vec<String> = ran.out.lines().skip(1).filter(|line| !line.ends_with(" table")).map(words).collect();
        prop_assert_eq!(told, expected, "{}", ran.out);
    }
}

/// Four tables, each of which all entries of the one above lead to: 2^36 pages.
#[test]
fn bad_shared_tables_end() {
    let mut image = Image::new(BASE, 12, 0, 4);
    for word in 0..3 * 512 {
        image.words[word] = (BASE + (word as u64 / 512 + 1) * 4096) | 3;
    }
    (3 * 512..4 * 512).for_each(|word| image.words[word] = 0x5000_04c3);
    let ram = TempFile::new("shared.ram", &image.bytes());
    let ran = run_without_device(&format!(
        "dump --ram {}@{BASE:#x} --vtcr 0x80053590 --vttbr {BASE:#x} --format json",
        ram.path()
    ));
    assert_eq!(ran.code, ExitCode::Partial, "{}", ran.err);
    assert!(ran.err.contains("share a few tables"), "{}", ran.err);
    let ran = run_without_device(&format!(
        "rmap --ram {}@{BASE:#x} --vtcr 0x80053590 --vttbr {BASE:#x} 0x5000_1000 --json",
        ram.path()
    ));
    assert_eq!(ran.code, ExitCode::Partial, "{}", ran.err);
    assert!(ran.out.contains("\"unread\":[\"ram\"]") && ran.err.contains("share a few tables"), "{}", ran.err);
}
