// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tables as bytes at a made-up base, and a second, naive translator to compare the walker with.
#![allow(dead_code, reason = "each test file uses a part")]

use s2dump_hyp::tables::{OutsideMemory, Root, TableMemory};
use s2dump_hyp::walker::{Entry, EntryKind, Row, RowEnd, Sink};
use s2dump_vmsa::{Features, Geometry, Granule, PhysAddr, RawDescriptor};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where the tables pretend to be.
pub(crate) const BASE: u64 = 0x8000_0000;
/// What memory holds where nothing was written: as a descriptor, an annotation no test writes.
pub(crate) const FILL: u64 = 0xaaaa_aaaa_aaaa_aaaa;

/// Page, and block where the level allows one: normal memory, readable, writable, accessed; SH is 0, as with LPA2 it is
/// address.
pub(crate) const PAGE: u64 = 0x4ff;
pub(crate) const BLOCK: u64 = 0x4fd;
pub(crate) const TABLE: u64 = 0b11;

/// A shape of table: what the MMU would be told, in numbers of our own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) page_shift: u32,
    pub(crate) ia_bits: u32,
    pub(crate) start_level: i8,
    pub(crate) pa_bits: u32,
    pub lpa2: bool,
}

/// Shapes with a root of less than one table, exactly one, two and sixteen; each granule; each start level.
pub(crate) const SHAPES: &[Shape] = &[
    Shape { name: "4k_40_two_roots", page_shift: 12, ia_bits: 40, start_level: 1, pa_bits: 40, lpa2: false },
    Shape { name: "4k_39_one_root", page_shift: 12, ia_bits: 39, start_level: 1, pa_bits: 40, lpa2: false },
    Shape { name: "4k_33_small_root", page_shift: 12, ia_bits: 33, start_level: 1, pa_bits: 40, lpa2: false },
    Shape { name: "4k_48", page_shift: 12, ia_bits: 48, start_level: 0, pa_bits: 48, lpa2: false },
    Shape { name: "4k_52_sixteen_roots", page_shift: 12, ia_bits: 52, start_level: 0, pa_bits: 52, lpa2: true },
    Shape { name: "4k_52_level_minus_1", page_shift: 12, ia_bits: 52, start_level: -1, pa_bits: 52, lpa2: true },
    Shape { name: "4k_34_sixteen_roots", page_shift: 12, ia_bits: 34, start_level: 2, pa_bits: 40, lpa2: false },
    Shape { name: "4k_25_pages_only", page_shift: 12, ia_bits: 25, start_level: 3, pa_bits: 40, lpa2: false },
    Shape { name: "4k_16_pages_only", page_shift: 12, ia_bits: 16, start_level: 3, pa_bits: 40, lpa2: false },
    Shape { name: "16k_48_two_roots", page_shift: 14, ia_bits: 48, start_level: 1, pa_bits: 48, lpa2: false },
    Shape { name: "16k_30_small_root", page_shift: 14, ia_bits: 30, start_level: 2, pa_bits: 40, lpa2: false },
    Shape { name: "64k_52", page_shift: 16, ia_bits: 52, start_level: 1, pa_bits: 52, lpa2: false },
    Shape { name: "64k_43_two_roots", page_shift: 16, ia_bits: 43, start_level: 2, pa_bits: 48, lpa2: false },
];

impl Shape {
    /// VTCR_EL2, assembled field by field.
    pub(crate) fn vtcr(&self) -> u64 {
        let (tg0, below_3) = match self.page_shift {
            12 => (0, 2),
            14 => (2, 3),
            _ => (1, 3),
        };
        let ps = [32, 36, 40, 42, 44, 48, 52].iter().position(|&bits| bits == self.pa_bits).unwrap() as u64;
        // SL0 counts levels upwards: from 2 with 4 KiB pages (3 is out of line), from 3 with others.
        let (sl2, sl0) = match (self.page_shift, self.start_level) {
            (12, -1) => (1, 0),
            (12, 3) => (0, 3),
            (_, level) => (0, (below_3 - level) as u64),
        };
        let t0sz = 64 - u64::from(self.ia_bits);
        let sh0_inner = 3 << 12;
        sl2 << 33 | u64::from(self.lpa2) << 32 | 1 << 31 | ps << 16 | tg0 << 14 | sh0_inner | sl0 << 6 | t0sz
    }

    pub(crate) fn geometry(&self) -> Geometry {
        Geometry::from_vtcr(self.vtcr(), Features::of_kvm(self.vtcr(), true, true)).unwrap()
    }

    pub(crate) fn index_bits(&self) -> u32 {
        self.page_shift - 3
    }

    /// What an entry of `level` spans, as a shift.
    pub(crate) fn shift(&self, level: i8) -> u32 {
        self.page_shift + self.index_bits() * (3 - level) as u32
    }

    pub(crate) fn has_blocks(&self, level: i8) -> bool {
        match self.page_shift {
            12 => level == 1 || level == 2 || (level == 0 && self.lpa2),
            14 => level == 2 || (level == 1 && self.lpa2),
            _ => level == 2 || (level == 1 && self.pa_bits == 52),
        }
    }

    /// Puts an output address into a descriptor.
    pub(crate) fn encode(&self, pa: u64) -> u64 {
        let low = pa & ((1 << if self.lpa2 { 50 } else { 48 }) - 1);
        if self.lpa2 {
            low | (pa >> 50 & 3) << 8
        } else if self.page_shift == 16 && self.pa_bits == 52 {
            low | (pa >> 48 & 0xf) << 12
        } else {
            low
        }
    }

    /// Takes an output address out of a leaf or table.
    pub(crate) fn decode(&self, raw: u64, shift: u32) -> u64 {
        let mut pa = 0;
        for n in shift..if self.lpa2 { 50 } else { 48 } {
            pa |= raw & 1 << n;
        }
        if self.lpa2 {
            pa |= (raw >> 8 & 3) << 50;
        } else if self.page_shift == 16 && self.pa_bits == 52 {
            pa |= (raw >> 12 & 0xf) << 48;
        }
        pa
    }

    pub(crate) fn ia_end(&self) -> u64 {
        1 << self.ia_bits
    }
}

/// A table in memory of its own.
pub(crate) struct Tables {
    pub(crate) shape: Shape,
    words: Vec<AtomicU64>,
    used: usize,
    root_words: usize,
}

impl Tables {
    /// Makes an empty table, its root behind a page of filling and followed by another.
    pub(crate) fn new(shape: Shape) -> Self {
        let page_words = 1 << (shape.page_shift - 3);
        let root_words = 1 << (shape.ia_bits - shape.shift(shape.start_level));
        // As far as the largest root needs to be aligned: sixteen pages.
        let used = 16 * page_words;
        let mut tables = Self { shape, words: Vec::new(), used, root_words };
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
                raw = shape.encode(self.new_page()) | TABLE;
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
        self.root_words
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

/// What the naive translator says of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Translation {
    pub(crate) level: i8,
    pub(crate) kind: EntryKind,
    pub(crate) raw: u64,
    /// Output address of this page; 0 if there is none.
    pub(crate) oa: u64,
}

/// Translates one address from the root, knowing nothing of rows, budgets or geometry types.
pub(crate) fn translate(tables: &Tables, ia: u64) -> Translation {
    let shape = tables.shape;
    let mut seen = Vec::new();
    let mut table = tables.root_pa();
    let mut level = shape.start_level;
    let root_end = table + u64::max(tables.root_words() as u64 * 8, 1 << shape.page_shift);
    loop {
        seen.push(table);
        let shift = shape.shift(level);
        let bits = if level == shape.start_level { shape.ia_bits - shift } else { shape.index_bits() };
        let raw = tables.load(table + (ia >> shift) % (1 << bits) * 8).unwrap();
        let of = |kind, oa| Translation { level, kind, raw, oa };
        match (raw & 0b11, level) {
            (0b00 | 0b10, _) => return of(EntryKind::Invalid, 0),
            (0b01, 3) => return of(EntryKind::Reserved, 0),
            (0b01, _) if !shape.has_blocks(level) => return of(EntryKind::Reserved, 0),
            (0b11, 3) | (0b01, _) => return of(EntryKind::Leaf, shape.decode(raw, shift) + ia % (1 << shift)),
            _ => {}
        }
        let next = shape.decode(raw, shape.page_shift);
        if seen.contains(&next) || (tables.root_pa()..root_end).contains(&next) {
            return of(EntryKind::TableLoop, next);
        }
        if next >> shape.pa_bits != 0 || tables.load(next).is_none() {
            return of(EntryKind::TableOutside, next);
        }
        table = next;
        level += 1;
    }
}

/// Takes every entry by itself, up to a number of entries.
#[derive(Default)]
pub(crate) struct Entries {
    pub(crate) entries: Vec<Entry>,
    pub(crate) room: Option<usize>,
}

impl Entries {
    fn is_full(&self) -> bool {
        self.room.is_some_and(|room| self.entries.len() >= room)
    }
}

impl Sink for Entries {
    fn take_row(&mut self, row: &Row<'_>) -> (usize, RowEnd) {
        for (n, cell) in row.entries.iter().enumerate() {
            let raw = RawDescriptor::from_bits(cell.load(Ordering::Relaxed));
            let kind = row.kind(raw);
            if kind == EntryKind::Table {
                return (n, RowEnd::Table(raw));
            }
            if self.is_full() {
                return (n, RowEnd::Full);
            }
            let ia = row.ia + ((n as u64) << row.shift);
            self.entries.push(Entry {
                ia,
                oa: PhysAddr::default(),
                raw,
                level: row.level,
                kind,
                inherited: row.inherited(kind),
            });
        }
        (row.entries.len(), RowEnd::All)
    }

    fn take_wrong(&mut self, entry: &Entry) -> bool {
        let room = !self.is_full();
        if room {
            self.entries.push(*entry);
        }
        room
    }
}

/// Records of one call, and then of the next.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) records: Vec<s2dump_abi::slot::Record>,
    pub(crate) room: usize,
}

impl s2dump_hyp::coalescer::RecordOut for Records {
    fn room(&self) -> usize {
        self.room - self.records.len()
    }

    fn put(&mut self, record: &s2dump_abi::slot::Record) {
        assert!(self.records.len() < self.room, "put without room");
        self.records.push(*record);
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
