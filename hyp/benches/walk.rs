// SPDX-License-Identifier: MIT OR Apache-2.0
//! Time per descriptor of a whole folded dump, in the calls and slots EL2 would use, beside a plain sum over the same
//! table pages and beside `walk_range` of the `aarch64-paging` crate on the same tables.
//!
//! `cargo bench -p s2dump-hyp` prints a line per table. The contenders take turns, and each figure is the fastest of
//! its turns: what else runs on the machine only ever slows one down.

// UNSAFETY: lends table pages to a crate that wants pointers to its own type.
#![expect(unsafe_code, reason = "as above")]

use aarch64_paging::descriptor::{PhysicalAddress, Stage2Attributes};
use aarch64_paging::paging::{MemoryRegion, PageTable, RootTable, Stage2, Translation};
use s2dump_hyp::coalescer::{Coalescer, Fold};
use s2dump_hyp::slot::{SlotPage, SlotWriter, SLOT_WORDS};
use s2dump_hyp::tables::{OutsideMemory, Root, TableMemory};
use s2dump_hyp::walker::walk_range;
use s2dump_vmsa::{Features, Geometry, Granule, Ipa, PhysAddr};
use std::hint::black_box;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const ENTRIES: usize = 512;
/// 1 GiB of pages, so 2 MiB of tables: more than the caches next to a core hold.
const LAST_LEVEL_TABLES: usize = 512;
/// Root, one table of level 2, and the last level.
const PAGES: usize = 2 + LAST_LEVEL_TABLES;
/// A stage-2 table of 39 bits that starts at level 1: the only root the peer supports that suits us.
const IA_BITS: u32 = 39;
const VTCR: u64 = 1 << 31 | 2 << 16 | 1 << 6 | (64 - IA_BITS) as u64;
const PAGE_ATTRS: u64 = 0x7ff;
const TURNS: usize = 101;

#[repr(C, align(4096))]
struct Page([AtomicU64; ENTRIES]);

/// The memory both walkers read. Page `n` is at physical address `n * 4096`.
struct Memory(Vec<Page>);

impl Memory {
    /// Makes tables for 1 GiB at input address 0, whose page `n` is mapped by `entry(n)`.
    fn new(entry: impl Fn(u64) -> u64) -> Self {
        let memory = Self((0..PAGES).map(|_| Page([const { AtomicU64::new(0) }; ENTRIES])).collect());
        let set = |page: usize, index: usize, raw| memory.0[page].0[index].store(raw, Ordering::Relaxed);
        set(0, 0, 1 << 12 | 0b11);
        for table in 0..LAST_LEVEL_TABLES {
            set(1, table, (2 + table as u64) << 12 | 0b11);
            (0..ENTRIES).for_each(|index| set(2 + table, index, entry((table * ENTRIES + index) as u64)));
        }
        memory
    }
}

impl TableMemory for Memory {
    fn table(&self, table: PhysAddr, _granule: Granule) -> Result<&[AtomicU64], OutsideMemory> {
        let page = usize::try_from(table.get() >> 12).ok().and_then(|page| self.0.get(page));
        page.map(|page| page.0.as_slice()).ok_or(OutsideMemory { table })
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
        NonNull::from(&self.0 .0[pa.0 >> 12]).cast()
    }
}

/// A whole dump as EL2 does it, call by call; returns the number of records.
fn dump(memory: &Memory, slot: &[AtomicU64; SLOT_WORDS]) -> usize {
    let geometry = Geometry::from_vtcr(VTCR, Features::of_kvm(VTCR, false, false)).expect("a legal VTCR_EL2");
    let root = Root::try_new(geometry, PhysAddr::new(0)).expect("aligned");
    let end = Ipa::try_new(1 << 30).expect("small");
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
    let words = memory.0.iter().flat_map(|page| &page.0);
    words.fold(0, |sum, word| sum.wrapping_add(word.load(Ordering::Relaxed)))
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

fn per_descriptor(times: Vec<Duration>) -> f64 {
    times.iter().min().expect("some turns").as_secs_f64() * 1e9 / (PAGES * ENTRIES) as f64
}

fn compare(name: &str, memory: &Memory) {
    let slot = Box::new([const { AtomicU64::new(0) }; SLOT_WORDS]);
    let table = RootTable::new(Lent(memory), 1, Stage2);
    let copy: Vec<u64> = memory.0.iter().flat_map(|page| &page.0).map(|word| word.load(Ordering::Relaxed)).collect();
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..TURNS {
        times[0].push(time(|| dump(black_box(memory), &slot)));
        times[1].push(time(|| peer(black_box(&table))));
        times[2].push(time(|| sum(black_box(memory))));
        times[3].push(time(|| vector_sum(black_box(&copy))));
    }
    let [ours, peer, sum, vector_sum] = times.map(per_descriptor);
    println!(
        "{name:12} {ours:6.3} {sum:6.3} {vector_sum:6.3} {peer:6.3}   {:5.2}x {:5.2}x {:5.2}x   {}",
        ours / sum,
        ours / vector_sum,
        ours / peer,
        dump(memory, &slot)
    );
}

/// A pseudo-random number for `n` (splitmix64).
fn scatter(n: u64) -> u64 {
    let mixed = (n.wrapping_add(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ mixed >> 29).wrapping_mul(0x94d0_49bb_1331_11eb) >> 20
}

fn main() {
    let page = |frame: u64| (frame & 0xf_ffff) << 12 | PAGE_ATTRS;
    println!(
        "ns per descriptor: whole folded dump, plain sum, sum of a vectorizable copy, aarch64-paging; ratios of the"
    );
    println!("dump to each; records. Goals: at most twice the sum, faster than aarch64-paging.");
    compare("dense", &Memory::new(page));
    compare("random", &Memory::new(|n| page(scatter(n))));
    compare("sparse", &Memory::new(|n| if scatter(n) % 64 == 0 { page(n) } else { 0 }));
    compare("empty", &Memory::new(|_| 0));
    // Nothing folds: each entry differs from the one before. No guest is like that; it is the walker at its worst.
    compare("alternating", &Memory::new(|n| page(n) | (n & 1) << 54));
}
