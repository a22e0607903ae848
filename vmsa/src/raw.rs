// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! A descriptor as 64 bits: what walking and stepping need of it, without its fields.

use crate::addr::PhysAddr;
use crate::bit;
use crate::geometry::Geometry;
use crate::level::Level;

/// A descriptor as it stood in a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct RawDescriptor(u64);

/// The type of a descriptor, without its fields: what walking needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// Bit 0 clear.
    Invalid,
    /// Leads to a table of the next level.
    Table,
    /// A block or page.
    Leaf,
    /// Valid, but of a type the level does not allow.
    Reserved,
}

impl RawDescriptor {
    /// Takes any value.
    #[must_use]
    pub const fn from_bits(raw: u64) -> Self {
        Self(raw)
    }

    /// Returns the value.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Returns the type at `level` of a table with `geometry`. AArch64_DecodeDescriptorType.
    #[must_use]
    #[inline]
    pub const fn descriptor_type(self, level: Level, geometry: &Geometry) -> Type {
        match (bit(self.0, 0), bit(self.0, 1), level.is_last()) {
            (false, _, _) => Type::Invalid,
            (true, true, true) => Type::Leaf,
            (true, true, false) => Type::Table,
            (true, false, _) if geometry.is_block_level(level) => Type::Leaf,
            (true, false, _) => Type::Reserved,
        }
    }

    /// Returns the table address in a descriptor whose type is [`Type::Table`]. AArch64_NextTableBase.
    #[must_use]
    #[inline]
    pub const fn next_table(self, geometry: &Geometry) -> PhysAddr {
        geometry.address(self.0, geometry.low_address_mask(Level::L3))
    }

    /// Returns the output address in a descriptor whose type is [`Type::Leaf`] at `level`. AArch64_LeafBase.
    #[must_use]
    #[inline]
    pub const fn output_address(self, level: Level, geometry: &Geometry) -> PhysAddr {
        geometry.address(self.0, geometry.low_address_mask(level))
    }

    /// Returns the leaf of `level` that maps to `address` and is otherwise this one. Bits of `address` that a descriptor
    /// has no place for are dropped.
    #[must_use]
    pub const fn with_output_address(self, level: Level, geometry: &Geometry, address: PhysAddr) -> Self {
        Self(self.0 & !geometry.address_mask(level) | geometry.encode(address, geometry.low_address_mask(level)))
    }
}
