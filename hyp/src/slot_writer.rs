// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Writes a slot into pages the host shares.
//!
//! Invariants others rely on: the pages are only ever written; each byte of the header and of each record counted in it
//! is written; the first word, which holds the magic number, is cleared first and written last, so a slot that was
//! begun but not finished is none.

use crate::coalescer::RecordOut;
use crate::packed::PackedOut;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};
use s2dump_abi::slot::{
    Fact, FrameRecord, PackedRun, Record, SlotHeader, VmRecord, SLOT_BYTES, SLOT_FACTS, SLOT_MAGIC, SLOT_RECORDS,
    SLOT_VMS,
};
use s2dump_abi::version::ABI_VERSION;
use s2dump_vmsa::Granule;

/// The most 64-bit words of a slot.
pub const SLOT_WORDS: usize = SLOT_BYTES / 8;

/// Returns how many 64-bit words of a page of this size may be written: all of it, but no more than a slot has.
#[must_use]
pub const fn words_of_page(pages: Granule) -> usize {
    let words = 1 << pages.index_bits();
    if words < SLOT_WORDS {
        words
    } else {
        SLOT_WORDS
    }
}

/// The first word of every slot.
const MAGIC_AND_VERSION: u64 = SLOT_MAGIC as u64 | (ABI_VERSION.to_bits() as u64) << 32;

const HEADER_WORDS: usize = size_of::<SlotHeader>() / 8;
const RECORD_WORDS: usize = size_of::<Record>() / 8;
const FACT_WORDS: usize = size_of::<Fact>() / 8;
const FRAME_WORDS: usize = size_of::<FrameRecord>() / 8;
const PACKED_WORDS: usize = size_of::<PackedRun>() / 8;
const VM_WORDS: usize = size_of::<VmRecord>() / 8;

/// One or more pages to write a slot into. The host may read and write them at any moment.
#[derive(Clone, Copy, Debug)]
pub struct SlotPage<'p>(&'p [AtomicU64]);

impl<'p> SlotPage<'p> {
    /// Takes the words of the pages: of at least one.
    #[must_use]
    pub const fn new(words: &'p [AtomicU64]) -> Self {
        Self(words)
    }

    /// Writes `values` from word `first` on, unless they would end beyond the pages.
    #[inline(always)]
    fn write<const COUNT: usize>(self, first: usize, values: &[u64; COUNT]) {
        if let Some(words) = self.0.get(first..).and_then(<[_]>::first_chunk::<COUNT>) {
            for (word, value) in words.iter().zip(values) {
                word.store(*value, Ordering::Relaxed);
            }
        }
    }
}

/// Fills a slot.
#[derive(Debug)]
pub struct SlotWriter<'p> {
    page: SlotPage<'p>,
    records: usize,
}

impl<'p> SlotWriter<'p> {
    /// Begins a slot: from now on the pages hold none, until [`Self::finish`].
    #[inline(always)]
    #[must_use]
    pub fn begin(page: SlotPage<'p>) -> Self {
        page.write(0, &[0]);
        Self { page, records: 0 }
    }

    /// Returns how many records were put. Those of a packed slot are words.
    #[inline(always)]
    #[must_use]
    pub fn records(&self) -> usize {
        self.records
    }

    /// Returns whether another [`VmRecord`] fits, if all records of this slot are of that type.
    #[inline(always)]
    #[must_use]
    pub fn has_room_for_vm(&self) -> bool {
        self.records < SLOT_VMS
    }

    /// Appends `vm`. A slot holds records of one type only.
    #[inline(always)]
    pub fn put_vm(&mut self, vm: &VmRecord) {
        let words: &[u64; VM_WORDS] = zerocopy::transmute_ref!(vm);
        self.page.write(HEADER_WORDS + self.records * VM_WORDS, words);
        self.records += 1;
    }

    /// Returns whether another [`Fact`] fits, if all records of this slot are of that type.
    #[inline(always)]
    #[must_use]
    pub fn has_room_for_fact(&self) -> bool {
        self.records < SLOT_FACTS
    }

    /// Appends `fact`. A slot holds records of one type only.
    #[inline(always)]
    pub fn put_fact(&mut self, fact: &Fact) {
        let words: &[u64; FACT_WORDS] = zerocopy::transmute_ref!(fact);
        self.page.write(HEADER_WORDS + self.records * FACT_WORDS, words);
        self.records += 1;
    }

    /// Appends `frames`. A slot holds records of one type only. Only called with room: a call has a budget of fewer.
    #[inline(always)]
    pub fn put_frames(&mut self, frames: &FrameRecord) {
        let words: &[u64; FRAME_WORDS] = zerocopy::transmute_ref!(frames);
        self.page.write(HEADER_WORDS + self.records * FRAME_WORDS, words);
        self.records += 1;
    }

    /// Leaves room for a record that [`Self::put_at`] will write, and returns its number.
    #[inline(always)]
    pub fn leave_room(&mut self) -> usize {
        let at = self.records;
        self.records += 1;
        at
    }

    /// Writes `record` as number `at`, if all records of this slot are of that type.
    #[inline(always)]
    pub fn put_at(&mut self, at: usize, record: &Record) {
        let words: &[u64; RECORD_WORDS] = zerocopy::transmute_ref!(record);
        self.page.write(HEADER_WORDS + at * RECORD_WORDS, words);
    }

    /// Writes the header, the word with the magic number last.
    #[inline(always)]
    pub fn finish(self, header: &SlotHeader) {
        self.write_header(header);
        self.write_magic();
    }

    /// Writes the header but for the word with the magic number.
    #[cold] // Not inlined: each operation has it.
    #[inline]
    pub fn write_header(&self, header: &SlotHeader) {
        let words: &[u64; HEADER_WORDS] = zerocopy::transmute_ref!(header);
        let [_, rest @ ..] = words;
        self.page.write(1, rest);
    }

    /// Ends a slot whose header was written before, but for what a chunk's walk found out: `counts` as in x3, `next`,
    /// `digest` and `held_ticks`.
    #[inline(always)]
    pub fn finish_chunk(self, counts: u64, next: u64, digest: u64, held_ticks: u32) {
        const {
            // `counts` are two fields; the word of `held_ticks` has `status` in its lower half, which is 0.
            assert!(offset_of!(SlotHeader, record_count) == 16 && offset_of!(SlotHeader, visited) == 20);
            assert!(offset_of!(SlotHeader, status) % 8 == 0 && offset_of!(SlotHeader, held_ticks) % 8 == 4);
        }
        self.page.write(offset_of!(SlotHeader, record_count) / 8, &[counts]);
        self.page.write(offset_of!(SlotHeader, next) / 8, &[next]);
        self.page.write(offset_of!(SlotHeader, digest) / 8, &[digest]);
        self.page.write(offset_of!(SlotHeader, status) / 8, &[u64::from(held_ticks) << 32]);
        self.write_magic();
    }

    /// Writes the word with the magic number, which makes it a slot.
    #[inline(always)]
    fn write_magic(&self) {
        if let Some(word) = self.page.0.first() {
            // Pairs with whoever sees the magic number in the shared page while this runs; the driver itself is ordered by
            // the return from the hypercall.
            word.store(MAGIC_AND_VERSION, Ordering::Release);
        }
    }
}

impl RecordOut for SlotWriter<'_> {
    #[inline(always)]
    fn room(&self) -> usize {
        SLOT_RECORDS.saturating_sub(self.records)
    }

    #[inline(always)]
    fn put(&mut self, record: &Record) {
        let words: [u64; RECORD_WORDS] = zerocopy::transmute!(*record);
        self.page.write(HEADER_WORDS + self.records * RECORD_WORDS, &words);
        self.records += 1;
    }
}

impl PackedOut for SlotWriter<'_> {
    #[inline(always)]
    fn free_words(&self) -> &[AtomicU64] {
        self.page.0.get(HEADER_WORDS + self.records..).unwrap_or_default()
    }

    #[inline(always)]
    fn put_packed(&mut self, head: &PackedRun, words: usize) {
        let head: &[u64; PACKED_WORDS] = zerocopy::transmute_ref!(head);
        self.page.write(HEADER_WORDS + self.records, head);
        self.records += PACKED_WORDS + words;
    }
}
