// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Stage-2 descriptors of 64 bits.
//!
//! Two layers: a [`RawDescriptor`] claims nothing and round-trips; [`RawDescriptor::view`] says what the MMU takes it
//! for at a level of a geometry. Decodes a value; reads no memory.

use crate::addr::PhysAddr;
use crate::attrs::{MemAttr, S2Ap, Shareability, Xn};
use crate::geometry::Geometry;
use crate::level::Level;
use crate::pkvm::{InvalidKind, PageState};
use crate::{bit, bits};

/// A descriptor as it stood in a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct RawDescriptor(u64);

/// What the MMU takes a descriptor for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptor<'g> {
    /// Bit 0 clear: the rest belongs to software.
    Invalid(Invalid),
    /// Leads to a table of the next level.
    Table(Table),
    /// Maps the whole span of an entry above level 3.
    Block(Leaf<'g>),
    /// Maps a page.
    Page(Leaf<'g>),
    /// Valid, but of a type the level does not allow: the MMU faults.
    Reserved(RawDescriptor),
}

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

    /// Returns what the descriptor says at `level` of a table with `geometry`.
    #[must_use]
    pub const fn view(self, level: Level, geometry: &Geometry) -> Descriptor<'_> {
        match self.descriptor_type(level, geometry) {
            Type::Invalid => Descriptor::Invalid(Invalid(self.0)),
            Type::Table => Descriptor::Table(Table(self.next_table(geometry))),
            Type::Leaf if level.is_last() => Descriptor::Page(Leaf { raw: self.0, level, geometry }),
            Type::Leaf => Descriptor::Block(Leaf { raw: self.0, level, geometry }),
            Type::Reserved => Descriptor::Reserved(self),
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
}

/// An invalid descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Invalid(u64);

impl Invalid {
    /// Returns whether the whole descriptor is zero.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns what pKVM left there. Only for tables with that encoding.
    #[must_use]
    pub const fn pkvm(self) -> InvalidKind {
        InvalidKind::from_descriptor(self.0)
    }
}

/// A table descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Table(PhysAddr);

impl Table {
    /// Returns the address of the next table. Nothing says that it is memory.
    #[must_use]
    pub const fn next_table(self) -> PhysAddr {
        self.0
    }
}

/// A block or page descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf<'g> {
    raw: u64,
    level: Level,
    geometry: &'g Geometry,
}

impl Leaf<'_> {
    /// Returns the first output address.
    #[must_use]
    pub const fn output_address(&self) -> PhysAddr {
        RawDescriptor(self.raw).output_address(self.level, self.geometry)
    }

    /// Returns whether the output address fits the output size of the table; if not, the MMU faults.
    #[must_use]
    pub const fn is_address_in_size(&self) -> bool {
        self.output_address().fits(self.geometry.pa_bits() as u32)
    }

    /// `5:2` MemAttr.
    #[must_use]
    pub const fn mem_attr(&self) -> MemAttr {
        MemAttr::from_bits(bits(self.raw, 5, 2) as u8, self.geometry.features().fwb)
    }

    /// `7:6` S2AP.
    #[must_use]
    pub const fn s2ap(&self) -> S2Ap {
        S2Ap::from_bits(bits(self.raw, 7, 6) as u8)
    }

    /// `9:8` SH, or VTCR_EL2.SH0 with LPA2.
    #[must_use]
    pub const fn shareability(&self) -> Shareability {
        if self.geometry.is_lpa2() {
            self.geometry.sh0()
        } else {
            Shareability::from_bits(bits(self.raw, 9, 8))
        }
    }

    /// `10` AF: the page was accessed; if clear, an access faults or (VTCR_EL2.HA) sets it.
    #[must_use]
    pub const fn access_flag(&self) -> bool {
        bit(self.raw, 10)
    }

    /// `51` DBM: with VTCR_EL2.HA and HD, hardware may make the page writable.
    #[must_use]
    pub const fn dirty_bit_modifier(&self) -> bool {
        bit(self.raw, 51)
    }

    /// `52` Contiguous: one of a run the TLB may hold as one entry ([`Granule::contiguous_entries`]).
    ///
    /// [`Granule::contiguous_entries`]: crate::Granule::contiguous_entries
    #[must_use]
    pub const fn contiguous(&self) -> bool {
        bit(self.raw, 52)
    }

    /// `54:53` XN.
    #[must_use]
    pub const fn xn(&self) -> Xn {
        Xn::from_descriptor(self.raw, self.geometry.features().xnx)
    }

    /// `58:55` for software.
    #[must_use]
    pub const fn software_bits(&self) -> u8 {
        bits(self.raw, 58, 55) as u8
    }

    /// `56:55` as pKVM uses them. Only for tables with that encoding.
    #[must_use]
    pub const fn page_state(&self) -> PageState {
        PageState::from_descriptor(self.raw)
    }

    /// Returns the bits no method above shows: what is reserved, or belongs to extensions that are not decoded.
    #[must_use]
    pub const fn other_bits(&self) -> u64 {
        let named = 0b11 | 0xf << 2 | 0b11 << 6 | 1 << 10 | 0b11 << 51 | 1 << 54 | 0xf << 55;
        let by_feature = if self.geometry.features().xnx { 1 << 53 } else { 0 }
            | if self.geometry.is_lpa2() { 0 } else { 0b11 << 8 };
        let address = self.geometry.low_address_mask(self.level) | self.geometry.high_address_mask();
        self.raw & !(named | by_feature | address)
    }
}
