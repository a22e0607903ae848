// SPDX-License-Identifier: MIT OR Apache-2.0
//! A walk that shares nothing with s2dump's: entry by entry, of tables with 4 KiB pages, in an image of memory.

use anyhow::{ensure, Context, Result};
use std::collections::BTreeMap;

/// Input address and level of an entry -> its descriptor. Table descriptors and zeros are not in it.
pub(super) type Entries = BTreeMap<(u64, i8), u64>;

/// Bits 47:12.
const ADDRESS: u64 = 0xffff_ffff_f000;

/// A table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) root: u64,
    pub(super) ia_bits: u32,
    pub(super) start_level: i8,
}

/// An image of memory.
pub(super) struct Memory<'a> {
    /// Physical address of its first byte.
    pub(super) base: u64,
    pub(super) bytes: &'a [u8],
}

impl Memory<'_> {
    fn word(&self, address: u64) -> Result<u64> {
        let at = usize::try_from(address.checked_sub(self.base).context("a table below the memory")?)?;
        let bytes = self.bytes.get(at..at + 8).with_context(|| format!("a table beyond the memory: {address:#x}"))?;
        Ok(u64::from_le_bytes(bytes.try_into()?))
    }

    /// Returns every entry of `table` that is not zero.
    ///
    /// # Errors
    ///
    /// If a table page is outside of the memory.
    pub(super) fn entries(&self, table: Table) -> Result<Entries> {
        let mut found = Entries::new();
        let shift = shift(table.start_level);
        let count = 1_u64 << (table.ia_bits.checked_sub(shift).context("a start level above the input size")?);
        self.collect(table.root, 0, table.start_level, count, &mut found)?;
        Ok(found)
    }

    fn collect(&self, page: u64, first: u64, level: i8, count: u64, found: &mut Entries) -> Result<()> {
        ensure!(level <= 3, "a table below the last level");
        for index in 0..count {
            let raw = self.word(page + index * 8)?;
            let ia = first + (index << shift(level));
            match (raw & 0b11, level) {
                _ if raw == 0 => {}
                (0b11, ..=2) => self.collect(raw & ADDRESS, ia, level + 1, 512, found)?,
                _ => drop(found.insert((ia, level), raw)),
            }
        }
        Ok(())
    }
}

/// Returns what an entry of `level` spans, as a shift.
pub(super) fn shift(level: i8) -> u32 {
    (12 + 9 * (3 - i32::from(level))) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two levels with concatenated roots: a block, a page, an annotation, in hand-made memory.
    #[test]
    fn entries_of_both_levels() {
        let mut bytes = vec![0; 0x4000];
        let mut put = |address: usize, raw: u64| bytes[address..address + 8].copy_from_slice(&raw.to_le_bytes());
        put(0x8, 0x4020_0001);
        put(0x1000, 0x8000_3003); // The first entry of the second root leads to a table.
        put(0x3000, 0x5000_0003);
        put(0x3ff8, 2 << 60 | 2);
        let memory = Memory { base: 0x8000_0000, bytes: &bytes };
        let table = Table { root: 0x8000_0000, ia_bits: 31, start_level: 2 };
        let second = 512 << 21;
        let expected =
            [((1 << 21, 2), 0x4020_0001), ((second, 3), 0x5000_0003), ((second + 511 * 0x1000, 3), 2 << 60 | 2)];
        assert_eq!(memory.entries(table).unwrap(), Entries::from(expected));
        assert!(memory.entries(Table { root: 0x7000_0000, ..table }).is_err());
    }
}
