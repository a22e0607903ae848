// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! What table descriptors of EL2's stage 1 say about everything below them.

/// What the tables above a leaf say: bits 63:59 of their descriptors, as far as they are in force, ORed downwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct TableAttrs(u8);

impl TableAttrs {
    /// Nothing: always so at stage 2.
    pub const NONE: Self = Self(0);
    /// How many bits it is.
    pub const BITS: u32 = 5;

    /// Takes the low five bits of `raw`, which are 63:59 of a descriptor.
    #[must_use]
    pub const fn from_bits(raw: u8) -> Self {
        Self(raw & 0b1_1111)
    }

    /// Returns the five bits.
    #[must_use]
    pub const fn to_bits(self) -> u8 {
        self.0
    }

    /// Returns what holds below a table that says `below` under tables that say `self`.
    #[must_use]
    #[inline(always)]
    pub const fn and(self, below: Self) -> Self {
        Self(self.0 | below.0)
    }

    /// `63` NSTable: output addresses are Non-secure. Of no meaning unless EL2 is Secure.
    #[must_use]
    pub const fn is_non_secure(self) -> bool {
        self.0 & 0b1_0000 != 0
    }

    /// `62` `APTable[1]`: nothing is writable.
    #[must_use]
    pub const fn is_read_only(self) -> bool {
        self.0 & 0b1000 != 0
    }

    /// `61` `APTable[0]`: EL0 has no access.
    #[must_use]
    pub const fn denies_el0(self) -> bool {
        self.0 & 0b100 != 0
    }

    /// `60` XNTable, with E2H UXNTable: EL2, with E2H EL0, may not execute.
    #[must_use]
    pub const fn xn(self) -> bool {
        self.0 & 0b10 != 0
    }

    /// `59` PXNTable: with E2H, EL2 may not execute.
    #[must_use]
    pub const fn pxn(self) -> bool {
        self.0 & 0b1 != 0
    }
}
