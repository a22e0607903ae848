// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Addresses: what goes into a stage-2 table and what comes out, as types that do not mix.

use core::ops::Sub;

/// Input-address bits of the largest 64-bit descriptor format.
pub const MAX_IA_BITS: u32 = 52;

/// A stage-2 input address.
///
/// Holding one proves that it is at most 2^52, so that adding the size of an entry to it cannot overflow; 2^52 itself is
/// included because it is the exclusive end of the largest space. It does not prove that a given table can map it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Ipa(u64);

/// The value is above 2^52.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnIpa(pub u64);

impl Ipa {
    /// Checks `raw`.
    ///
    /// # Errors
    ///
    /// [`NotAnIpa`] with the value if it is above 2^52.
    pub const fn try_new(raw: u64) -> Result<Self, NotAnIpa> {
        if raw > 1 << MAX_IA_BITS {
            return Err(NotAnIpa(raw));
        }
        Ok(Self(raw))
    }

    /// Returns the address as a number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the address rounded down to a multiple of `1 << shift`, which is below `1 << 64`.
    #[must_use]
    pub const fn align_down(self, shift: u32) -> Self {
        Self(self.0 & (u64::MAX << shift))
    }
}

impl Sub for Ipa {
    /// A distance in bytes; wraps if the second address is the greater one.
    type Output = u64;

    fn sub(self, other: Self) -> u64 {
        self.0.wrapping_sub(other.0)
    }
}

/// An output address, or the address of a table, as a descriptor or register alleges it.
///
/// Holding one proves nothing: it may be outside memory or beyond the output size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct PhysAddr(u64);

impl PhysAddr {
    /// Takes any value.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// Returns the address as a number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns whether the address has no more than `bits` bits.
    #[must_use]
    pub const fn fits(self, bits: u32) -> bool {
        self.0 >> bits == 0
    }

    /// Returns the address `bytes` further on, wrapping.
    #[must_use]
    pub const fn wrapping_add(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_largest_exclusive_end() {
        assert_eq!(Ipa::try_new(1 << 52).map(Ipa::get), Ok(1 << 52));
    }

    #[test]
    fn bad_above_52_bits() {
        assert_eq!(Ipa::try_new((1 << 52) + 1), Err(NotAnIpa((1 << 52) + 1)));
    }
}
