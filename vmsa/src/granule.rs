// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! The translation granule: size of a page, of a table, and so of everything above.

use crate::level::Level;

/// A granule. The discriminant is its size as a shift, so that no lookup is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Granule {
    /// 4 KiB: 512 entries a table.
    Size4K = 12,
    /// 16 KiB: 2048 entries a table.
    Size16K = 14,
    /// 64 KiB: 8192 entries a table.
    Size64K = 16,
}

impl Granule {
    /// Decodes VTCR_EL2.TG0 (15:14), or returns `None` for the reserved value 3.
    #[must_use]
    pub const fn from_tg0(tg0: u64) -> Option<Self> {
        match tg0 {
            0 => Some(Self::Size4K),
            1 => Some(Self::Size64K),
            2 => Some(Self::Size16K),
            _ => None,
        }
    }

    /// Returns the size of a page, and of a table, as a shift.
    #[must_use]
    pub const fn page_shift(self) -> u32 {
        self as u32
    }

    /// Returns how many bits of the input address one full table resolves.
    #[must_use]
    pub const fn index_bits(self) -> u32 {
        self.page_shift() - 3
    }

    /// Returns what one entry of `level` spans, as a shift.
    #[must_use]
    pub const fn entry_shift(self, level: Level) -> u32 {
        self.page_shift() + self.index_bits() * level.levels_below()
    }

    /// Returns how many entries of `level` one contiguous run (bit 52) has, or `None` where the bit has no meaning.
    #[must_use]
    pub const fn contiguous_entries(self, level: Level) -> Option<u32> {
        match (self, level.get()) {
            (Self::Size4K, 1..=3) => Some(16),
            (Self::Size16K, 3) => Some(128),
            (Self::Size16K, 2) | (Self::Size64K, 2..=3) => Some(32),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_entry_sizes() {
        let shifts = |granule: Granule| [Level::L0, Level::L1, Level::L2, Level::L3].map(|l| granule.entry_shift(l));
        assert_eq!(shifts(Granule::Size4K), [39, 30, 21, 12]);
        assert_eq!(shifts(Granule::Size16K), [47, 36, 25, 14]);
        assert_eq!(shifts(Granule::Size64K), [55, 42, 29, 16]);
        assert_eq!(Granule::Size4K.entry_shift(Level::MINUS_1), 48);
    }

    #[test]
    fn bad_reserved_tg0() {
        assert_eq!(Granule::from_tg0(3), None);
    }
}
