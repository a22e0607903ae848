// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! The shape of a table: granule, levels, size of the root, where addresses sit in a descriptor.
//!
//! Made from VTCR_EL2 (`vtcr.rs`) or TCR_EL2 (`tcr.rs`) and [`Features`](crate::Features). Invariant others rely on: a
//! `Geometry` is one the architecture allows, so `1 <= root_index_bits <= index_bits + 4`, `ia_bits <= 52`, and every
//! shift computed from it is below 64. Rules: Arm ARM DDI 0487, D8 "The AArch64 Virtual Memory System Architecture", and
//! the shared pseudocode functions named at each rule.

use crate::addr::PhysAddr;
use crate::attrs::Shareability;
use crate::granule::Granule;
use crate::level::Level;
use crate::table_attrs::TableAttrs;
use crate::{bit, bits};

/// Which tables: they differ in registers and in the attributes of descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Regime {
    /// Stage 2, EL1&0: a guest's or the host's. VTCR_EL2, VTTBR_EL2.
    Stage2,
    /// Stage 1 of EL2, with HCR_EL2.E2H clear. TCR_EL2, TTBR0_EL2.
    El2,
    /// Stage 1 of EL2&0, with HCR_EL2.E2H set: the lower range only, which TTBR0_EL2 translates.
    El2And0,
}

/// Why registers are refused: the field, with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeometryError {
    /// D128 is set: 128-bit descriptors are not decoded.
    D128,
    /// EPD0 is set: TTBR0_EL2 is not walked.
    Epd0,
    /// TG0 is the reserved value.
    Tg0(u8),
    /// T0SZ gives an input size the CPU or granule does not allow.
    T0sz {
        /// T0SZ.
        t0sz: u8,
        /// The least that is allowed: `64 - t0sz` is the input size.
        min: u8,
        /// The most that is allowed.
        max: u8,
    },
    /// SL2:SL0 is reserved, or needs a feature that is absent: bit 2 is SL2.
    StartLevel(u8),
    /// The start level does not suit the input size: the root would have `2^index_bits` entries.
    StartLevelForT0sz {
        /// SL2:SL0.
        start_level: u8,
        /// Bits the root would have to resolve: less than 1, or more than 16 tables.
        index_bits: i8,
    },
}

/// A base register's value, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Where the root is: aligned to its size.
    pub address: PhysAddr,
    /// Address bits that were set but are below the alignment of the root: the MMU is expected to drop them, though the
    /// architecture leaves that open (CONSTRAINED UNPREDICTABLE).
    pub dropped: u64,
}

/// The base is beyond the output size: an address size fault, reported for level 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseBeyondOutput(pub PhysAddr);

/// The shape of one table, and what decoding its descriptors depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub(crate) granule: Granule,
    pub(crate) start_level: Level,
    pub(crate) ia_bits: u8,
    pub(crate) pa_bits: u8,
    pub(crate) sh0: Shareability,
    pub(crate) regime: Regime,
    pub(crate) format: Format,
}

/// Variations of the descriptor format that are in force: a set of the bits below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Format(u16);

impl Format {
    pub(crate) const NONE: Self = Self(0);
    /// DS: 52-bit addresses in 4 and 16 KiB descriptors.
    pub(crate) const LPA2: Self = Self(1);
    /// FEAT_LPA: 52-bit addresses in 64 KiB descriptors.
    pub(crate) const LPA: Self = Self(1 << 1);
    pub(crate) const FWB: Self = Self(1 << 2);
    pub(crate) const XNX: Self = Self(1 << 3);
    pub(crate) const MTE_PERM: Self = Self(1 << 4);
    pub(crate) const HA: Self = Self(1 << 5);
    pub(crate) const HD: Self = Self(1 << 6);
    pub(crate) const S2PIE: Self = Self(1 << 7);
    pub(crate) const S2POE: Self = Self(1 << 8);
    pub(crate) const ASSURED_ONLY: Self = Self(1 << 9);
    pub(crate) const AIE: Self = Self(1 << 10);
    /// HPD: what table descriptors say about access does not count.
    pub(crate) const HPD: Self = Self(1 << 11);
    const HWU59_SHIFT: u32 = 12;

    /// Returns the set with HWU59 to HWU62 as in `hwu`.
    #[must_use]
    pub(crate) const fn with_hwu(self, hwu: u64) -> Self {
        Self(self.0 | (hwu as u16) << Self::HWU59_SHIFT)
    }

    /// Returns which of bits 62:59 are PBHA, as four bits.
    pub(crate) const fn hwu(self) -> u8 {
        (self.0 >> Self::HWU59_SHIFT) as u8
    }

    /// Returns the set with `other` added, if `wanted`.
    #[must_use]
    pub(crate) const fn with(self, other: Self, wanted: bool) -> Self {
        Self(if wanted { self.0 | other.0 } else { self.0 })
    }

    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl Geometry {
    /// Returns which tables have it.
    #[must_use]
    pub const fn regime(&self) -> Regime {
        self.regime
    }

    /// Returns the granule.
    #[must_use]
    pub const fn granule(&self) -> Granule {
        self.granule
    }

    /// Returns the level of the root.
    #[must_use]
    pub const fn start_level(&self) -> Level {
        self.start_level
    }

    /// Returns the input-address bits; the space ends at `1 << ia_bits`.
    #[must_use]
    pub const fn ia_bits(&self) -> u8 {
        self.ia_bits
    }

    /// Returns the effective output-address bits: what PS, the CPU and the format allow.
    #[must_use]
    pub const fn pa_bits(&self) -> u8 {
        self.pa_bits
    }

    /// Returns whether descriptors have the LPA2 format (DS in force).
    #[must_use]
    pub const fn is_lpa2(&self) -> bool {
        self.format.has(Format::LPA2)
    }

    /// Returns whether MemAttr has the FWB encoding.
    #[must_use]
    pub const fn is_fwb(&self) -> bool {
        self.format.has(Format::FWB)
    }

    /// Returns whether hardware sets the access flag: HA in force.
    #[must_use]
    pub const fn sets_access_flag(&self) -> bool {
        self.format.has(Format::HA)
    }

    /// Returns whether hardware manages dirty state: HD in force, which it is only with HA.
    #[must_use]
    pub const fn manages_dirty_state(&self) -> bool {
        self.format.has(Format::HA) && self.format.has(Format::HD)
    }

    /// Returns whether rights are indices into S2PIR_EL2: VTCR_EL2.S2PIE in force.
    #[must_use]
    pub const fn has_indirect_permissions(&self) -> bool {
        self.format.has(Format::S2PIE)
    }

    /// Returns the shareability of table walks, and with LPA2 of every leaf: SH0.
    #[must_use]
    pub const fn sh0(&self) -> Shareability {
        self.sh0
    }

    /// Returns the first input address behind the space.
    #[must_use]
    pub const fn ia_end(&self) -> u64 {
        1 << self.ia_bits
    }

    /// Returns how many bits the root resolves: it has exactly `1 << root_index_bits` entries.
    #[must_use]
    pub const fn root_index_bits(&self) -> u32 {
        // At least 1, as whoever made it checked.
        (self.ia_bits as u32).wrapping_sub(self.granule.entry_shift(self.start_level))
    }

    /// Returns the size of the root in bytes, which is also its alignment (but never less than 64 bytes).
    #[must_use]
    pub const fn root_bytes(&self) -> u64 {
        8 << self.root_index_bits()
    }

    /// Returns how many granule-sized tables the root concatenates: 1 to 16, at stage 1 always 1.
    #[must_use]
    pub const fn root_tables(&self) -> u32 {
        1 << self.root_index_bits().saturating_sub(self.granule.index_bits())
    }

    /// Returns the base in `register`, which is VTTBR_EL2 or TTBR0_EL2. AArch64_S2TTBaseAddress, AArch64_S1TTBaseAddress.
    ///
    /// # Errors
    ///
    /// [`BaseBeyondOutput`] if the output size of the table does not reach that far.
    pub const fn base(&self, register: u64) -> Result<Base, BaseBeyondOutput> {
        // With 52-bit addresses bits 5:2 are bits 51:48 of the base, so the root is aligned to 64 bytes at least.
        let is_wide = self.is_lpa2() || matches!(self.granule, Granule::Size64K) && self.pa_bits == 52;
        let below = self.root_bytes() - 1;
        let low = register & 0xffff_ffff_fffe & if is_wide { !0x3f } else { u64::MAX };
        let high = if is_wide { bits(register, 5, 2) << 48 } else { 0 };
        let address = PhysAddr::new(low & !below | high);
        if !address.fits(self.pa_bits as u32) {
            return Err(BaseBeyondOutput(address));
        }
        Ok(Base { address, dropped: low & below })
    }

    /// Returns whether entries of `level` may be blocks. AArch64_BlockDescSupported.
    #[must_use]
    pub const fn is_block_level(&self, level: Level) -> bool {
        match (self.granule, level.get()) {
            (Granule::Size4K, 1) | (_, 2) => true,
            (Granule::Size4K, 0) | (Granule::Size16K, 1) => self.is_lpa2(),
            (Granule::Size64K, 1) => self.format.has(Format::LPA),
            _ => false,
        }
    }

    /// Returns the descriptor bits, in place and contiguous, that hold the output address of a leaf of `level`: from the
    /// size of the entry up to bit 47, or 49 with LPA2. [`Self::high_address_mask`] has the rest.
    #[must_use]
    pub const fn low_address_mask(&self, level: Level) -> u64 {
        let top = if self.is_lpa2() { 50 } else { 48 };
        // 64 KiB at level 0 would span more than 48 bits; the geometry has no such level.
        let shift = self.granule.entry_shift(level);
        (1 << top) - (1 << if shift > top { top } else { shift })
    }

    /// Returns the descriptor bits that hold output-address bits above those in place: 9:8 with LPA2 (bits 51:50), 15:12
    /// with 64 KiB pages and 52-bit addresses (bits 51:48), else none.
    #[must_use]
    pub const fn high_address_mask(&self) -> u64 {
        if self.is_lpa2() {
            0b11 << 8
        } else if self.is_lpa() {
            0b1111 << 12
        } else {
            0
        }
    }

    /// Returns all descriptor bits that hold the output address of a leaf of `level`; for level 3 also those that hold a
    /// table's address.
    pub(crate) const fn address_mask(&self, level: Level) -> u64 {
        self.low_address_mask(level) | self.high_address_mask()
    }

    /// Returns whether descriptors have the 64 KiB format with 52-bit addresses.
    const fn is_lpa(&self) -> bool {
        matches!(self.granule, Granule::Size64K) && self.format.has(Format::LPA)
    }

    /// Returns those descriptor bits of a leaf of `level` that hold its output address, as far as the output size goes.
    ///
    /// If a bit of the address that is not among them is set, the MMU does not translate: address size fault.
    #[must_use]
    pub const fn output_mask(&self, level: Level) -> u64 {
        self.encode(PhysAddr::new((1 << self.pa_bits) - 1), self.low_address_mask(level))
    }

    /// Returns the address in descriptor `raw`, taking the bits of `low_mask` in place.
    #[must_use]
    pub(crate) const fn address(&self, raw: u64, low_mask: u64) -> PhysAddr {
        let high = if self.is_lpa2() {
            bits(raw, 9, 8) << 50
        } else if self.is_lpa() {
            bits(raw, 15, 12) << 48
        } else {
            0
        };
        PhysAddr::new(raw & low_mask | high)
    }

    /// Returns the descriptor bits that hold `address`, those of `low_mask` in place: what [`Self::address`] reads.
    #[must_use]
    pub(crate) const fn encode(&self, address: PhysAddr, low_mask: u64) -> u64 {
        let high = if self.is_lpa2() {
            bits(address.get(), 51, 50) << 8
        } else if self.is_lpa() {
            bits(address.get(), 51, 48) << 12
        } else {
            0
        };
        address.get() & low_mask | high
    }

    /// Returns what table descriptor `raw` says about everything below it: nothing at stage 2.
    ///
    /// `APTable[0]` and PXNTable are about EL0, which `El2` has none of; HPD takes all but NSTable out of force.
    #[must_use]
    #[inline(always)]
    pub const fn table_attrs(&self, raw: u64) -> TableAttrs {
        let in_force = match (self.regime, self.format.has(Format::HPD)) {
            (Regime::Stage2, _) => 0,
            (_, true) => 0b1_0000,
            (Regime::El2, false) => 0b1_1010,
            (Regime::El2And0, false) => 0b1_1111,
        };
        TableAttrs::from_bits(bits(raw, 63, 59) as u8 & in_force)
    }
}

/// Field positions that VTCR_EL2 and both forms of TCR_EL2 share, and what follows from them.
pub(crate) struct Common {
    pub(crate) granule: Granule,
    pub(crate) is_64k: bool,
    pub(crate) t0sz: u8,
    pub(crate) sh0: Shareability,
}

impl Common {
    /// Decodes TG0 (15:14), SH0 (13:12) and T0SZ (5:0).
    #[inline(always)]
    pub(crate) const fn try_new(register: u64) -> Result<Self, GeometryError> {
        let tg0 = bits(register, 15, 14);
        let Some(granule) = Granule::from_tg0(tg0) else {
            return Err(GeometryError::Tg0(tg0 as u8));
        };
        Ok(Self {
            granule,
            is_64k: matches!(granule, Granule::Size64K),
            t0sz: bits(register, 5, 0) as u8,
            sh0: Shareability::from_bits(bits(register, 13, 12)),
        })
    }

    /// Returns the input size, which is `64 - T0SZ`; `min` is the least T0SZ. AArch64_MaxTxSZ has the most.
    #[inline(always)]
    pub(crate) const fn ia_bits(&self, min: u8, ttst: bool) -> Result<u8, GeometryError> {
        let max = match (ttst, self.is_64k) {
            (false, _) => 39,
            (true, false) => 48,
            (true, true) => 47,
        };
        let t0sz = self.t0sz;
        if t0sz < min || t0sz > max {
            return Err(GeometryError::T0sz { t0sz, min, max });
        }
        Ok(64 - t0sz)
    }
}

/// Returns whether `bit` of `register` counts: only if the feature that gives it a meaning is there.
pub(crate) const fn counts(register: u64, n: u32, feature: bool) -> bool {
    bit(register, n) && feature
}

pub(crate) const fn min(a: u8, b: u8) -> u8 {
    if a < b {
        a
    } else {
        b
    }
}
