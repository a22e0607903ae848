// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Descriptors of 64 bits: what both stages have in common.
//!
//! Layers: a [`RawDescriptor`] claims nothing and round-trips; [`RawDescriptor::view`] says what the MMU takes it for at a
//! level of a geometry; a [`Leaf`] has the fields of any leaf, and those of its stage behind [`Leaf::stage2`] and
//! [`Leaf::el2`]. Decodes a value; reads no memory.

use crate::addr::PhysAddr;
use crate::el2::{El2Leaf, TableAttrs};
use crate::geometry::{Format, Geometry, Regime};
use crate::level::Level;
use crate::pkvm::InvalidKind;
use crate::stage2::Stage2Leaf;
use crate::{bit, bits, mask};

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
    Table(Table<'g>),
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
            Type::Table => Descriptor::Table(Table { raw: self.0, geometry }),
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

    /// Returns the leaf of `level` that maps to `address` and is otherwise this one. Bits of `address` that a descriptor
    /// has no place for are dropped.
    #[must_use]
    pub const fn with_output_address(self, level: Level, geometry: &Geometry, address: PhysAddr) -> Self {
        Self(self.0 & !geometry.address_mask(level) | geometry.encode(address, geometry.low_address_mask(level)))
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table<'g> {
    raw: u64,
    geometry: &'g Geometry,
}

impl Table<'_> {
    /// Returns the address of the next table. Nothing says that it is memory.
    #[must_use]
    pub const fn next_table(&self) -> PhysAddr {
        RawDescriptor(self.raw).next_table(self.geometry)
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

/// A block or page descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf<'g> {
    pub(crate) raw: u64,
    pub(crate) level: Level,
    pub(crate) geometry: &'g Geometry,
}

impl<'g> Leaf<'g> {
    /// Returns the fields of a stage-2 leaf, if it is one.
    #[must_use]
    pub const fn stage2(self) -> Option<Stage2Leaf<'g>> {
        match self.geometry.regime() {
            Regime::Stage2 => Some(Stage2Leaf(self)),
            Regime::El2 | Regime::El2And0 => None,
        }
    }

    /// Returns the fields of a leaf of EL2's stage 1, if it is one; `inherited` is what the tables above it say.
    #[must_use]
    pub const fn el2(self, inherited: TableAttrs) -> Option<El2Leaf<'g>> {
        match self.geometry.regime() {
            Regime::Stage2 => None,
            Regime::El2 | Regime::El2And0 => Some(El2Leaf { leaf: self, inherited }),
        }
    }

    /// Returns the descriptor.
    #[must_use]
    pub const fn raw(&self) -> RawDescriptor {
        RawDescriptor(self.raw)
    }

    /// Returns the level of the table it stands in.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

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

    /// `10` AF: the page was accessed; if clear, an access faults or (HA) sets it.
    #[must_use]
    pub const fn access_flag(&self) -> bool {
        bit(self.raw, 10)
    }

    /// `16` nT of a block (FEAT_BBM): an access may fault while the block replaces a table. Always false for a page.
    #[must_use]
    pub const fn no_translation(&self) -> bool {
        !self.level.is_last() && bit(self.raw, 16)
    }

    /// `51` DBM: with HA and HD, the page is writable though its permissions say read-only; a write makes them say so.
    ///
    /// With indirect permissions the bit is part of the index instead.
    #[must_use]
    pub const fn dirty_bit_modifier(&self) -> bool {
        bit(self.raw, 51) && !self.geometry.has_indirect_permissions()
    }

    /// `52` Contiguous: one of a run the TLB may hold as one entry. Without meaning, so false, where
    /// [`Granule::contiguous_entries`](crate::Granule::contiguous_entries) is `None`.
    #[must_use]
    pub const fn contiguous(&self) -> bool {
        bit(self.raw, 52) && self.geometry.granule().contiguous_entries(self.level).is_some()
    }

    /// `58:55` for software; `57:55` if 58 is AssuredOnly.
    #[must_use]
    pub const fn software_bits(&self) -> u8 {
        bits(self.raw & self.software_mask(), 58, 55) as u8
    }

    const fn software_mask(&self) -> u64 {
        if self.geometry.format.has(Format::ASSURED_ONLY) {
            mask(&[(57, 55)])
        } else {
            mask(&[(58, 55)])
        }
    }

    /// `62:59` PBHA: for the implementation. Those bits only that HWU59 to HWU62 give it and no other field has.
    #[must_use]
    pub const fn pbha(&self) -> u8 {
        bits(self.raw & self.pbha_mask(), 62, 59) as u8
    }

    const fn pbha_mask(&self) -> u64 {
        let format = self.geometry.format;
        let pbha = (format.hwu() as u64) << 59;
        if format.has(Format::S2POE) {
            0
        } else if format.has(Format::AIE) {
            pbha & !mask(&[(59, 59)])
        } else {
            pbha
        }
    }

    /// Returns the bits that mean the same at both stages: type, address, AF, nT, DBM, Contiguous, software bits, PBHA.
    pub(crate) const fn named_bits(&self) -> u64 {
        let no_translation = if self.level.is_last() { 0 } else { mask(&[(16, 16)]) };
        let contiguous =
            if self.geometry.granule().contiguous_entries(self.level).is_some() { mask(&[(52, 52)]) } else { 0 };
        let always = mask(&[(1, 0), (10, 10), (51, 51)]) | self.geometry.address_mask(self.level);
        always | no_translation | contiguous | self.software_mask() | self.pbha_mask()
    }

    /// `9:8` SH, or SH0 of the register with LPA2.
    pub(crate) const fn sh(&self) -> crate::attrs::Shareability {
        if self.geometry.is_lpa2() {
            self.geometry.sh0()
        } else {
            crate::attrs::Shareability::from_bits(bits(self.raw, 9, 8))
        }
    }

    /// The bits of [`Self::sh`].
    pub(crate) const fn sh_mask(&self) -> u64 {
        if self.geometry.is_lpa2() {
            0
        } else {
            mask(&[(9, 8)])
        }
    }
}
