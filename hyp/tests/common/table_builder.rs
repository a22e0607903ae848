// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tables as bytes at a made-up base, in memory pre-filled with what no test writes.

use super::{translate, Shape, Translation, BASE, FILL, TABLE};
use s2dump_hyp::table_memory::{OutsideMemory, Root, TableMemory};
use s2dump_vmsa::{Granule, PhysAddr};
use std::sync::atomic::{AtomicU64, Ordering};

/// A table in memory of its own.
pub(crate) struct Tables {
    pub(crate) shape: Shape,
    words: Vec<AtomicU64>,
    used: usize,
    /// Set in table descriptors made from now on.
    pub(crate) table_bits: u64,
}

impl Tables {
    /// Makes an empty table, its root behind a page of filling and followed by another.
    pub(crate) fn new(shape: Shape) -> Self {
        let page_words = 1 << (shape.page_shift - 3);
        let root_words = shape.root_words();
        // As far as the largest root needs to be aligned: sixteen pages.
        let used = 16 * page_words;
        let mut tables = Self { shape, words: Vec::new(), used, table_bits: 0 };
        tables.grow(used + usize::max(root_words, page_words) + page_words);
        for n in 0..root_words {
            tables.words[used + n].store(0, Ordering::Relaxed);
        }
        tables.used += usize::max(root_words, page_words) + page_words;
        tables
    }

    fn grow(&mut self, words: usize) {
        self.words.resize_with(words, || AtomicU64::new(FILL));
    }

    pub(crate) fn root_pa(&self) -> u64 {
        BASE + 16 * (1 << self.shape.page_shift)
    }

    pub(crate) fn root(&self) -> Root {
        Root::try_new(self.shape.geometry(), PhysAddr::new(self.root_pa())).unwrap()
    }

    /// Adds a zeroed page, and returns its address.
    pub(crate) fn new_page(&mut self) -> u64 {
        let page_words = 1 << (self.shape.page_shift - 3);
        let pa = BASE + self.used as u64 * 8;
        self.grow(self.used + page_words);
        for n in 0..page_words {
            self.words[self.used + n].store(0, Ordering::Relaxed);
        }
        self.used += page_words;
        pa
    }

    /// Zeroes the page at `pa`.
    pub(crate) fn clear_page(&self, pa: u64) {
        (0..1 << (self.shape.page_shift - 3)).for_each(|n| self.word(pa + n * 8).unwrap().store(0, Ordering::Relaxed));
    }

    fn word(&self, pa: u64) -> Option<&AtomicU64> {
        self.words.get(usize::try_from(pa.checked_sub(BASE)? / 8).unwrap())
    }

    pub(crate) fn load(&self, pa: u64) -> Option<u64> {
        self.word(pa).map(|word| word.load(Ordering::Relaxed))
    }

    /// Address of the entry of `level` that spans `ia`; makes tables above it, in place of anything else there.
    pub(crate) fn entry_pa(&mut self, ia: u64, level: i8) -> u64 {
        let shape = self.shape;
        let mut table = self.root_pa();
        let mut at = shape.start_level;
        loop {
            let mut index = ia >> shape.shift(at);
            if at != shape.start_level {
                index &= (1 << shape.index_bits()) - 1;
            }
            let pa = table + index * 8;
            if at == level {
                return pa;
            }
            let mut raw = self.load(pa).unwrap();
            let next = shape.decode(raw, shape.page_shift);
            if raw & TABLE != TABLE || self.load(next).is_none() {
                raw = shape.encode(self.new_page()) | self.table_bits | TABLE;
                self.word(pa).unwrap().store(raw, Ordering::Relaxed);
            }
            table = shape.decode(raw, shape.page_shift);
            at += 1;
        }
    }

    /// Writes the entry of `level` that spans `ia`.
    pub(crate) fn set(&mut self, ia: u64, level: i8, raw: u64) {
        let pa = self.entry_pa(ia, level);
        self.word(pa).unwrap().store(raw, Ordering::Relaxed);
    }

    /// Maps `ia` to `pa` at `level` with the attribute bits `attrs`, which include the low two.
    pub(crate) fn map(&mut self, ia: u64, level: i8, pa: u64, attrs: u64) {
        let raw = self.shape.encode(pa) | attrs;
        self.set(ia, level, raw);
    }

    /// Number of words of all pages: an upper bound of what a walk may read.
    pub(crate) fn size_words(&self) -> usize {
        self.used
    }

    /// Number of entries of the root.
    pub(crate) fn root_words(&self) -> usize {
        self.shape.root_words()
    }

    /// What the naive translator says of `ia`.
    pub(crate) fn translate(&self, ia: u64) -> Translation {
        translate(&self.shape, self.root_pa(), |pa| self.load(pa), ia)
    }
}

impl TableMemory for Tables {
    fn table(&self, table: PhysAddr, granule: Granule) -> Result<&[AtomicU64], OutsideMemory> {
        let outside = OutsideMemory { table };
        let page_words = 1_usize << (granule.page_shift() - 3);
        if table.get() & ((1 << granule.page_shift()) - 1) != 0 {
            return Err(outside);
        }
        let first = usize::try_from(table.get().checked_sub(BASE).ok_or(outside)? / 8).map_err(|_| outside)?;
        self.words.get(first..).and_then(|rest| rest.get(..page_words)).ok_or(outside)
    }
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} at {:#x}", self.shape.name, self.root_pa())?;
        for (n, word) in self.words.iter().enumerate() {
            let raw = word.load(Ordering::Relaxed);
            if raw != 0 && raw != FILL {
                writeln!(f, "{:#x}: {raw:#018x}", BASE + n as u64 * 8)?;
            }
        }
        Ok(())
    }
}
