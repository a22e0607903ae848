// SPDX-License-Identifier: MIT OR Apache-2.0
//! Time per descriptor of a whole folded dump, in the calls and slots EL2 would use, beside a plain sum over the same
//! table pages and beside `walk_range` of the `aarch64-paging` crate on the same tables.
//!
//! `cargo bench -p s2dump-hyp` prints a line per granule and table. The contenders take turns, and each figure is the fastest of
//! its turns: what else runs on the machine only ever slows one down.

// UNSAFETY: lends table pages to a crate that wants pointers to its own type.
#![expect(unsafe_code, reason = "as above")]

use aarch64_paging::descriptor::{PhysicalAddress, Stage2Attributes};
use aarch64_paging::paging::{MemoryRegion, PageTable, RootTable, Stage2, Translation};
use s2dump_hyp::coalescer::{Coalescer, Fold};
use s2dump_hyp::slot_writer::{SlotPage, SlotWriter, SLOT_WORDS};
use s2dump_hyp::table_memory::{OutsideMemory, Root, TableMemory};
use s2dump_hyp::walker::walk_range;
use s2dump_vmsa::{Features, Geometry, Granule, Ipa, PhysAddr};
use std::hint::black_box;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes of last-level tables: what 1 GiB of 4 KiB pages needs. Many machines have that in a cache, which favors the sum.
const TABLE_BYTES: usize = 2 << 20;
/// What the peer's type is aligned to.
const ALIGNMENT: usize = 4096;
/// The page of the root, and the table of level 2.
const TABLES_ABOVE: usize = 2;
const PAGE_ATTRS: u64 = 0x7ff;
const TURNS: usize = 101;

/// A stage-2 table that starts at level 1.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    granule: Granule,
    vtcr: u64,
}

/// 39 bits are the only root the peer supports that suits us, and the peer has 4 KiB pages only.
const SHAPES: [Shape; 3] = [
    Shape { name: "4K", granule: Granule::Size4K, vtcr: 1 << 31 | 2 << 16 | 1 << 6 | (64 - 39) },
    Shape { name: "16K", granule: Granule::Size16K, vtcr: 1 << 31 | 3 << 16 | 2 << 14 | 2 << 6 | (64 - 42) },
    Shape { name: "64K", granule: Granule::Size64K, vtcr: 1 << 31 | 4 << 16 | 1 << 14 | 2 << 6 | (64 - 44) },
];

impl Shape {
    fn table_words(&self) -> usize {
        1 << self.granule.index_bits()
    }

    fn last_level_tables(&self) -> usize {
        TABLE_BYTES / 8 / self.table_words()
    }

    /// End of what is mapped.
    fn end(&self) -> u64 {
        ((TABLE_BYTES / 8) as u64) << self.granule.page_shift()
    }
}

/// The memory both walkers read, from physical address 0 on.
struct Memory {
    shape: Shape,
    words: Vec<AtomicU64>,
    /// Words before the first that is aligned.
    skip: usize,
}

impl Memory {
    /// Makes tables at input address 0, whose page `n` is mapped by `entry(n)`.
    fn new(shape: Shape, entry: impl Fn(u64) -> u64) -> Self {
        let table_words = shape.table_words();
        let tables = shape.last_level_tables();
        let count = (TABLES_ABOVE + tables) * table_words + ALIGNMENT / 8;
        let words: Vec<AtomicU64> = (0..count).map(|_| AtomicU64::new(0)).collect();
        let skip = words.as_ptr().align_offset(ALIGNMENT);
        let memory = Self { shape, words, skip };
        let set = |word: usize, raw| memory.words()[word].store(raw, Ordering::Relaxed);
        let table_at = |table: usize| (table as u64) << shape.granule.page_shift() | 0b11;
        set(0, table_at(1));
        (0..tables).for_each(|table| set(table_words + table, table_at(TABLES_ABOVE + table)));
        (0..TABLE_BYTES / 8).for_each(|n| set(TABLES_ABOVE * table_words + n, entry(n as u64)));
        memory
    }

    fn words(&self) -> &[AtomicU64] {
        &self.words[self.skip..]
    }

    /// The last-level tables: all but a handful of the descriptors that a dump reads.
    fn last_level(&self) -> &[AtomicU64] {
        &self.words()[TABLES_ABOVE * self.shape.table_words()..][..TABLE_BYTES / 8]
    }
}

impl TableMemory for Memory {
    fn table(&self, table: PhysAddr, granule: Granule) -> Result<&[AtomicU64], OutsideMemory> {
        let first = usize::try_from(table.get() / 8).ok();
        let entries = first.and_then(|first| self.words().get(first..)?.get(..1 << granule.index_bits()));
        entries.ok_or(OutsideMemory { table })
    }
}

/// The peer's way to the same pages. It makes only the root by itself, and that is page 0.
struct Lent<'m>(&'m Memory);

impl Translation<Stage2Attributes> for Lent<'_> {
    fn allocate_table(&mut self) -> (NonNull<PageTable<Stage2Attributes>>, PhysicalAddress) {
        (self.physical_to_virtual(PhysicalAddress(0)), PhysicalAddress(0))
    }

    unsafe fn deallocate_table(&mut self, _table: NonNull<PageTable<Stage2Attributes>>) {}

    fn physical_to_virtual(&self, pa: PhysicalAddress) -> NonNull<PageTable<Stage2Attributes>> {
        NonNull::from(&self.0.words()[pa.0 / 8]).cast()
    }
}

/// A whole dump as EL2 does it, call by call; returns the number of records.
fn dump(memory: &Memory, slot: &[AtomicU64; SLOT_WORDS]) -> usize {
    let vtcr = memory.shape.vtcr;
    let geometry = Geometry::from_vtcr(vtcr, Features::of_kvm(vtcr, false, false)).expect("a legal VTCR_EL2");
    let root = Root::try_new(geometry, PhysAddr::new(0)).expect("aligned");
    let end = Ipa::try_new(memory.shape.end()).expect("small");
    let (mut cursor, mut records) = (Ipa::default(), 0);
    while cursor != end {
        let out = SlotWriter::begin(SlotPage::new(slot));
        let mut coalescer = Coalescer::new(Fold { geometry, exact: false }, 0, false, out);
        let budget = s2dump_abi::hypercall::DEFAULT_BUDGET;
        cursor = walk_range(memory, &root, cursor, end, budget, &mut coalescer).expect("a root").next;
        records += coalescer.finish().0.records();
    }
    records
}

fn peer(table: &RootTable<Stage2, Lent<'_>>) -> usize {
    let mut leaves = 0;
    let all = MemoryRegion::new(0, 1 << 30);
    let counted = table.walk_range(&all, &mut |_, descriptor, _| {
        leaves += usize::from(descriptor.is_valid());
        Ok(())
    });
    counted.expect("a range of the table");
    leaves
}

fn sum(memory: &Memory) -> u64 {
    memory.last_level().iter().fold(0, |sum, word| sum.wrapping_add(word.load(Ordering::Relaxed)))
}

/// The same, in memory the compiler may read eight words of at once.
fn vector_sum(copy: &[u64]) -> u64 {
    copy.iter().fold(0, |sum, word| sum.wrapping_add(*word))
}

fn time<T>(run: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    black_box(run());
    start.elapsed()
}

fn per_descriptor(times: &[Duration]) -> Option<f64> {
    Some(times.iter().min()?.as_secs_f64() * 1e9 / (TABLE_BYTES / 8) as f64)
}

fn compare(name: &str, memory: &Memory) {
    let slot = Box::new([const { AtomicU64::new(0) }; SLOT_WORDS]);
    let has_peer = memory.shape.granule == Granule::Size4K;
    let table = has_peer.then(|| RootTable::new(Lent(memory), 1, Stage2));
    let copy: Vec<u64> = memory.last_level().iter().map(|word| word.load(Ordering::Relaxed)).collect();
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..TURNS {
        times[0].push(time(|| dump(black_box(memory), &slot)));
        times[1].push(time(|| sum(black_box(memory))));
        times[2].push(time(|| vector_sum(black_box(&copy))));
        times[3].extend(table.as_ref().map(|table| time(|| peer(black_box(table)))));
    }
    let figures = times.each_ref().map(|times| per_descriptor(times));
    let shown = |figure: Option<f64>, unit| figure.map_or("-".into(), |figure| format!("{figure:.2}{unit}"));
    let ratio = |other: usize| shown(figures[0].zip(figures[other]).map(|(ours, other)| ours / other), "x");
    let [ours, sum, vector_sum, peer] = figures.map(|figure| shown(figure, ""));
    println!(
        "{:4} {name:12} {ours:>6} {sum:>6} {vector_sum:>6} {peer:>6}   {:>6} {:>6} {:>6}   {}",
        memory.shape.name,
        ratio(1),
        ratio(2),
        ratio(3),
        dump(memory, &slot)
    );
}

/// A pseudo-random number for `n` (splitmix64).
fn scatter(n: u64) -> u64 {
    let mixed = (n.wrapping_add(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ mixed >> 29).wrapping_mul(0x94d0_49bb_1331_11eb) >> 20
}

fn main() {
    println!(
        "ns per descriptor: whole folded dump, plain sum, sum of a vectorizable copy, aarch64-paging; ratios of the"
    );
    println!(
        "dump to each; records. Goals: at most twice the sum, faster than aarch64-paging (which has 4K pages only)."
    );
    for shape in SHAPES {
        let page = |frame: u64| (frame & 0xf_ffff) << shape.granule.page_shift() | PAGE_ATTRS;
        let compare = |name, entry: &dyn Fn(u64) -> u64| compare(name, &Memory::new(shape, entry));
        compare("dense", &page);
        compare("random", &|n| page(scatter(n)));
        compare("sparse", &|n| if scatter(n) % 64 == 0 { page(n) } else { 0 });
        compare("empty", &|_| 0);
        // Nothing folds: each entry differs from the one before. No guest is like that; it is the walker at its worst.
        compare("alternating", &|n| page(n) | (n & 1) << 54);
    }
}
