// SPDX-License-Identifier: MIT OR Apache-2.0
//! A second, naive translator to compare the walker with: one address at a time, from the root, knowing nothing of stretches,
//! budgets or geometry types.

use super::Shape;
use s2dump_hyp::walker::EntryKind;

/// What the naive translator says of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Translation {
    pub(crate) level: i8,
    pub(crate) kind: EntryKind,
    pub(crate) raw: u64,
    /// Output address of this page; 0 if there is none.
    pub(crate) oa: u64,
    /// What the tables above a leaf say.
    pub(crate) inherited: u8,
}

/// Translates `ia` by the table at `root`; `load` reads a word of memory, if it is one.
pub(crate) fn translate(shape: &Shape, root: u64, load: impl Fn(u64) -> Option<u64>, ia: u64) -> Translation {
    let mut seen = Vec::new();
    let mut table = root;
    let mut level = shape.start_level;
    let mut inherited = 0;
    let page_bytes = 1_u64 << shape.page_shift;
    let root_bytes = shape.root_words() as u64 * 8;
    // A root smaller than a page fills its page as far as tables are concerned.
    let root_pages = root / page_bytes..(root + root_bytes).div_ceil(page_bytes);
    loop {
        seen.push(table);
        let shift = shape.shift(level);
        let bits = if level == shape.start_level { shape.ia_bits - shift } else { shape.index_bits() };
        let raw = load(table + (ia >> shift) % (1 << bits) * 8).unwrap();
        let of = |kind, oa| {
            let inherited = if kind == EntryKind::Leaf { inherited } else { 0 };
            Translation { level, kind, raw, oa, inherited }
        };
        match (raw & 0b11, level) {
            (0b00 | 0b10, _) => return of(EntryKind::Invalid, 0),
            (0b01, 3) => return of(EntryKind::Reserved, 0),
            (0b01, _) if !shape.has_blocks(level) => return of(EntryKind::Reserved, 0),
            (0b11, 3) | (0b01, _) => return of(EntryKind::Leaf, shape.decode(raw, shift) + ia % (1 << shift)),
            _ => {}
        }
        let next = shape.decode(raw, shape.page_shift);
        if seen.contains(&next) || root_pages.contains(&(next / page_bytes)) {
            return of(EntryKind::TableLoop, next);
        }
        let is_memory = load(next).is_some() && load(next + page_bytes - 8).is_some();
        if next >> shape.output_bits() != 0 || !is_memory {
            return of(EntryKind::TableOutside, next);
        }
        table = next;
        inherited |= shape.table_attrs(raw);
        level += 1;
    }
}
