// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Descriptors of 64 bits: what the MMU takes one for at a level of a geometry.
//!
//! Layers: a [`RawDescriptor`] claims nothing and round-trips; [`RawDescriptor::view`] tells its type and gives access to
//! the fields of that type; a [`Leaf`] has the fields of any leaf, and those of its stage behind [`Leaf::stage2`] and
//! [`Leaf::el2`]. Decodes a value; reads no memory.

use crate::addr::PhysAddr;
use crate::fault::Fault;
use crate::geometry::Geometry;
use crate::leaf::Leaf;
use crate::level::Level;
use crate::mask;
use crate::raw::{RawDescriptor, Type};
use crate::table_attrs::TableAttrs;

/// What the MMU takes a descriptor for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptor<'g> {
    /// Bit 0 clear: the rest belongs to software.
    Invalid(Invalid),
    /// Leads to a table of the next level.
    Table(Table<'g>),
    /// Maps the whole span of an entry above level 3.
    Block(Leaf<'g>),
    /// Maps a page.
    Page(Leaf<'g>),
    /// Valid, but of a type the level does not allow: the MMU faults.
    Reserved(RawDescriptor),
}

impl RawDescriptor {
    /// Returns what the descriptor says at `level` of a table with `geometry`.
    #[must_use]
    pub const fn view(self, level: Level, geometry: &Geometry) -> Descriptor<'_> {
        match self.descriptor_type(level, geometry) {
            Type::Invalid => Descriptor::Invalid(Invalid(self.to_bits())),
            Type::Table => Descriptor::Table(Table { raw: self.to_bits(), geometry }),
            Type::Leaf if level.is_last() => Descriptor::Page(Leaf { raw: self.to_bits(), level, geometry }),
            Type::Leaf => Descriptor::Block(Leaf { raw: self.to_bits(), level, geometry }),
            Type::Reserved => Descriptor::Reserved(self),
        }
    }
}

impl Descriptor<'_> {
    /// Returns the fault a walk ends with here, whatever the access: `None` for a table that can be followed and for a leaf
    /// whose own rights decide.
    #[must_use]
    pub const fn fault(&self) -> Option<Fault> {
        match self {
            Self::Invalid(_) | Self::Reserved(_) => Some(Fault::Translation),
            Self::Table(table) if !table.is_address_in_size() => Some(Fault::AddressSize),
            Self::Block(leaf) | Self::Page(leaf) if !leaf.is_address_in_size() => Some(Fault::AddressSize),
            Self::Table(_) | Self::Block(_) | Self::Page(_) => None,
        }
    }
}

/// An invalid descriptor. What software keeps there, `pkvm` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Invalid(u64);

impl Invalid {
    /// Returns whether the whole descriptor is zero.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A table descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table<'g> {
    raw: u64,
    geometry: &'g Geometry,
}

impl Table<'_> {
    /// Returns the address of the next table. Nothing says that it is memory.
    #[must_use]
    pub const fn next_table(&self) -> PhysAddr {
        RawDescriptor::from_bits(self.raw).next_table(self.geometry)
    }

    /// Returns whether the address fits the output size of the table; if not, the MMU faults.
    #[must_use]
    pub const fn is_address_in_size(&self) -> bool {
        self.next_table().fits(self.geometry.pa_bits() as u32)
    }

    /// `63:59` of a stage-1 table, as far as they are in force: what holds for everything below.
    #[must_use]
    pub const fn attrs(&self) -> TableAttrs {
        self.geometry.table_attrs(self.raw)
    }

    /// Returns the bits no method above shows: the MMU ignores them.
    #[must_use]
    pub const fn other_bits(&self) -> u64 {
        let known = mask(&[(1, 0)]) | self.geometry.address_mask(Level::L3);
        self.raw & !known & !((self.attrs().to_bits() as u64) << 59)
    }
}
