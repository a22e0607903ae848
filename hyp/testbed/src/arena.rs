// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Memory for tables under test: a root, table pages, and tables that lead to themselves.
//!
//! Every word that no case wrote holds a decoy: a block with an address of its own, so that an entry read from the wrong
//! place gives a wrong answer and not by chance the right one. What a case writes is taken back before the next.

use core::sync::atomic::{AtomicU64, Ordering};
use s2dump_hyp::table_memory::{OutsideMemory, TableMemory};
use s2dump_vmsa::{Geometry, Granule, PhysAddr};

/// Size of each of the three parts, and alignment of the whole: the largest root, 16 tables of 64 KiB.
pub const PART_BYTES: u64 = 1 << 20;
/// Words of all parts.
pub const WORDS: usize = 3 * (PART_BYTES as usize) / 8;
/// Words of a root and table pages at high addresses.
pub const HIGH_WORDS: usize = 2 * (PART_BYTES as usize) / 8;
/// Descriptors a case can write.
const MAX_WRITTEN: usize = 96;

/// The memory.
#[derive(Debug)]
pub struct Arena<'m> {
    base: u64,
    ram: (u64, u64),
    words: &'m [AtomicU64],
    high: Option<(u64, &'m [AtomicU64])>,
    written: [u32; MAX_WRITTEN],
    count: usize,
    allocated: u64,
}

impl<'m> Arena<'m> {
    /// Takes `words` at physical address `base`, in RAM that reaches from `ram.0` to `ram.1`, and fills them; and `high`, an
    /// address and words there, whose address has bits that only the largest formats hold.
    ///
    /// # Panics
    ///
    /// If the size or alignment is wrong.
    #[must_use]
    pub fn new(base: u64, ram: (u64, u64), words: &'m [AtomicU64], high: Option<(u64, &'m [AtomicU64])>) -> Self {
        assert!(words.len() == WORDS && base % PART_BYTES == 0 && base >= ram.0 && base + 3 * PART_BYTES <= ram.1);
        let is_high = |(base, words): (u64, &[_])| words.len() == HIGH_WORDS && base % PART_BYTES == 0 && base >= ram.1;
        assert!(high.is_none_or(is_high));
        let arena = Self { base, ram, words, high, written: [0; MAX_WRITTEN], count: 0, allocated: 0 };
        for index in 0..WORDS + high.map_or(0, |_| HIGH_WORDS) {
            arena.word(index).store(arena.initial(index), Ordering::Relaxed);
        }
        arena
    }

    /// Returns where roots are made: [`PART_BYTES`], aligned to that.
    #[must_use]
    pub const fn root(&self) -> u64 {
        self.base
    }

    /// Returns where roots are made at high addresses, if there is memory that a table of `pa_bits` output bits can name.
    #[must_use]
    pub fn high_root(&self, pa_bits: u8) -> Option<u64> {
        self.high.map(|(base, _)| base).filter(|base| base >> pa_bits == 0)
    }

    /// Returns the tables that lead to themselves: under whatever legal settings, any address is mapped by them.
    #[must_use]
    pub const fn mirror(&self) -> u64 {
        self.base + 2 * PART_BYTES
    }

    /// Returns whether we know what the MMU finds in a table at `pa`: our words, or nothing at all. Below RAM are devices.
    #[must_use]
    pub const fn is_known(&self, pa: u64) -> bool {
        pa >= self.base && pa < self.base + 3 * PART_BYTES || pa >= self.ram.1
    }

    /// What a word holds that no case wrote.
    fn initial(&self, index: usize) -> u64 {
        if (HIGH_WORDS..WORDS).contains(&index) {
            // AF, rights and a memory type that both stages take. Not SH: with LPA2 those are address bits.
            return self.mirror() | 1 << 10 | 0b11 << 6 | 0b0111 << 2 | 0b11;
        }
        // Even at a level whose blocks are large, the address differs in its upper bits: they come from a hash.
        let address = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) & 0x0000_00ff_ffff_f000;
        address | 1 << 10 | 0b11 << 6 | 0b1111 << 2 | 0b01
    }

    /// Returns the number of the word at `pa`: those at high addresses come after the others.
    fn index(&self, pa: u64) -> Option<usize> {
        let at = |base, count| usize::try_from(pa.checked_sub(base)? / 8).ok().filter(|&index| index < count);
        let high = || self.high.and_then(|(base, _)| at(base, HIGH_WORDS)).map(|index| WORDS + index);
        at(self.base, WORDS).or_else(high).filter(|_| pa % 8 == 0)
    }

    fn word(&self, index: usize) -> &'m AtomicU64 {
        match self.high {
            Some((_, words)) if index >= WORDS => &words[index - WORDS],
            _ => &self.words[index],
        }
    }

    /// Returns the descriptor at `pa`, if it is ours.
    #[must_use]
    pub fn read(&self, pa: u64) -> Option<u64> {
        self.index(pa).map(|index| self.word(index).load(Ordering::Relaxed))
    }

    /// Returns whether this case has written the descriptor at `pa`.
    #[must_use]
    pub fn is_written(&self, pa: u64) -> bool {
        self.index(pa).is_some_and(|index| self.written[..self.count].contains(&(index as u32)))
    }

    /// Writes the descriptor at `pa`.
    ///
    /// # Panics
    ///
    /// If it is not ours, or the case writes too many.
    pub fn write(&mut self, pa: u64, raw: u64) {
        let index = self.index(pa).expect("cases write to the arena");
        if !self.is_written(pa) {
            self.written[self.count] = index as u32;
            self.count += 1;
        }
        self.word(index).store(raw, Ordering::Relaxed);
    }

    /// Writes a descriptor for a while: whoever does puts back what stood there.
    pub fn poke(&mut self, pa: u64, raw: u64) {
        if let Some(index) = self.index(pa) {
            self.word(index).store(raw, Ordering::Relaxed);
        }
    }

    /// Returns a table page that this case has not got yet, as long as there is one; every other one at high addresses.
    pub fn allocate(&mut self, geometry: &Geometry) -> u64 {
        self.allocated += 1;
        let root = self.high_root(geometry.pa_bits()).filter(|_| self.allocated % 2 == 0).unwrap_or(self.base);
        let page = 1 << geometry.granule().page_shift();
        root + PART_BYTES + self.allocated * page % PART_BYTES
    }

    /// Takes back what was written.
    pub fn reset(&mut self) {
        for &index in &self.written[..self.count] {
            let index = index as usize;
            self.word(index).store(self.initial(index), Ordering::Relaxed);
        }
        self.count = 0;
        self.allocated = 0;
    }
}

impl TableMemory for Arena<'_> {
    fn table(&self, table: PhysAddr, granule: Granule) -> Result<&[AtomicU64], OutsideMemory> {
        let words = 1 << granule.index_bits();
        let first = self.index(table.get()).filter(|first| first % words == 0).ok_or(OutsideMemory { table })?;
        let (all, first) = match self.high {
            Some((_, high)) if first >= WORDS => (high, first - WORDS),
            _ => (self.words, first),
        };
        all.get(first..first + words).ok_or(OutsideMemory { table })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const RAM: (u64, u64) = (0x4000_0000, 0x4400_0000);
    const HIGH: u64 = 0xd << 48;

    fn words(count: usize) -> Vec<AtomicU64> {
        (0..count).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn good_what_a_case_wrote_is_taken_back() {
        let (low, high) = (words(WORDS), words(HIGH_WORDS));
        let mut arena = Arena::new(0x4010_0000, RAM, &low, Some((HIGH, &high)));
        for place in [arena.root(), HIGH + 8] {
            let before = arena.read(place);
            arena.write(place, 3);
            arena.write(place, 5);
            assert_eq!((arena.read(place), arena.is_written(place)), (Some(5), true));
            arena.reset();
            assert_eq!((arena.read(place), arena.is_written(place)), (before, false));
        }
    }

    #[test]
    fn good_high_tables_are_their_own() {
        let (low, high) = (words(WORDS), words(HIGH_WORDS));
        let arena = Arena::new(0x4010_0000, RAM, &low, Some((HIGH, &high)));
        let found = arena.table(PhysAddr::new(HIGH + 0x1000), Granule::Size4K).expect("a table");
        assert!(core::ptr::eq(&found[0], &high[0x200]));
        assert_eq!((arena.high_root(52), arena.high_root(48)), (Some(HIGH), None));
    }

    #[test]
    fn bad_addresses() {
        let low = words(WORDS);
        let arena = Arena::new(0x4010_0000, RAM, &low, None);
        for pa in [0, 0x400f_f000, 0x4010_0008, 0x4040_0000, HIGH, !0xfff] {
            assert!(arena.table(PhysAddr::new(pa), Granule::Size4K).is_err(), "{pa:#x}");
        }
        assert!(!arena.is_known(0x900_0000) && !arena.is_known(0x4000_0000) && arena.is_known(1 << 51));
    }
}
