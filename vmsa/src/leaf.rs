// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Leaves: the fields of a block or page descriptor that both stages have.
//!
//! Those of its stage are in `stage2.rs` and `el2.rs`, behind [`Leaf::stage2`] and [`Leaf::el2`].

use crate::addr::PhysAddr;
use crate::attrs::Shareability;
use crate::fault::{Access, Fault, Rights};
use crate::geometry::{Format, Geometry};
use crate::level::Level;
use crate::raw::RawDescriptor;
use crate::{bit, bits, mask};

/// A block or page descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf<'g> {
    pub(crate) raw: u64,
    pub(crate) level: Level,
    pub(crate) geometry: &'g Geometry,
}

impl Leaf<'_> {
    /// Returns the descriptor.
    #[must_use]
    pub const fn raw(&self) -> RawDescriptor {
        RawDescriptor::from_bits(self.raw)
    }

    /// Returns the level of the table it stands in.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Returns the first output address.
    #[must_use]
    pub const fn output_address(&self) -> PhysAddr {
        self.raw().output_address(self.level, self.geometry)
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
    pub(crate) const fn sh(&self) -> Shareability {
        if self.geometry.is_lpa2() {
            self.geometry.sh0()
        } else {
            Shareability::from_bits(bits(self.raw, 9, 8))
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

    /// Returns the first fault in the order of the architecture, given what `rights` allow.
    pub(crate) const fn fault(&self, access: Access, rights: Rights) -> Option<Fault> {
        if !self.is_address_in_size() {
            Some(Fault::AddressSize)
        } else if !self.access_flag() && !self.geometry.sets_access_flag() {
            Some(Fault::AccessFlag)
        } else if !rights.allow(access) {
            Some(Fault::Permission)
        } else {
            None
        }
    }
}
