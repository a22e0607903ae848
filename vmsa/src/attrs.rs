// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Fields of descriptors that are more than one bit.

use crate::bit;

/// Cacheability of one half of a Normal memory type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cacheability {
    /// Non-cacheable.
    NonCacheable,
    /// Write-through.
    WriteThrough,
    /// Write-back.
    WriteBack,
}

/// Kinds of Device memory, strictest first. G, R and E say what is allowed: gathering, reordering, early acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// nGnRnE.
    NGnRnE,
    /// nGnRE.
    NGnRE,
    /// nGRE.
    NGRE,
    /// GRE.
    GRE,
}

/// A memory type: what stage 2 contributes (MemAttr, bits 5:2), or what a byte of MAIR_EL2 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemAttr {
    /// Device memory, whatever stage 1 says.
    Device(Device),
    /// Normal memory. Without FWB it combines with stage 1, the weaker one wins; with FWB only non-cacheable is told so.
    Normal {
        /// Outer cacheability.
        outer: Cacheability,
        /// Inner cacheability.
        inner: Cacheability,
    },
    /// FWB only: Normal write-back, whatever stage 1 says.
    ForcedWriteBack,
    /// FWB only: what stage 1 says.
    AsStage1,
    /// FEAT_MTE_PERM, without FWB: Normal write-back, and allocation tags cannot be accessed.
    NoTagAccess,
    /// FEAT_MTE_PERM: [`Self::ForcedWriteBack`], and allocation tags cannot be accessed.
    ForcedWriteBackNoTagAccess,
    /// FEAT_MTE_PERM: [`Self::AsStage1`], and allocation tags cannot be accessed.
    AsStage1NoTagAccess,
    /// Reserved: the four bits.
    Unknown(u8),
}

impl MemAttr {
    /// Decodes the low four bits of `raw`; `fwb` is HCR_EL2.FWB, `mte_perm` FEAT_MTE_PERM. AArch64_S2DecodeMemAttrs,
    /// AArch64_S2ApplyFWBMemAttrs.
    #[must_use]
    pub const fn from_bits(raw: u8, fwb: bool, mte_perm: bool) -> Self {
        let raw = raw & 0xf;
        match (raw, fwb) {
            (0b0100, false) if mte_perm => return Self::NoTagAccess,
            (0b1110, true) if mte_perm => return Self::ForcedWriteBackNoTagAccess,
            (0b1111, true) if mte_perm => return Self::AsStage1NoTagAccess,
            _ => {}
        }
        match (raw, fwb) {
            (0b0000, _) => Self::Device(Device::NGnRnE),
            (0b0001, _) => Self::Device(Device::NGnRE),
            (0b0010, _) => Self::Device(Device::NGRE),
            (0b0011, _) => Self::Device(Device::GRE),
            (0b0101, true) => Self::Normal { outer: Cacheability::NonCacheable, inner: Cacheability::NonCacheable },
            (0b0110, true) => Self::ForcedWriteBack,
            (0b0111, true) => Self::AsStage1,
            (_, true) => Self::Unknown(raw),
            (_, false) => match (Self::half(raw >> 2), Self::half(raw & 0b11)) {
                (Some(outer), Some(inner)) => Self::Normal { outer, inner },
                _ => Self::Unknown(raw),
            },
        }
    }

    /// Decodes a byte of MAIR_EL2, of which allocation hints, transience, XS and tagging are not told; `None` if it is
    /// reserved. MAIRDecode.
    #[must_use]
    pub const fn from_mair(byte: u8) -> Option<Self> {
        let (outer, inner) = (byte >> 4, byte & 0xf);
        Some(match (outer, inner) {
            // Bit 0 is FEAT_XS: without the XS attribute.
            (0, 0b0000 | 0b0001) => Self::Device(Device::NGnRnE),
            (0, 0b0100 | 0b0101) => Self::Device(Device::NGnRE),
            (0, 0b1000 | 0b1001) => Self::Device(Device::NGRE),
            (0, 0b1100 | 0b1101) => Self::Device(Device::GRE),
            // FEAT_XS: without the XS attribute.
            (0b0100, 0) => Self::Normal { outer: Cacheability::NonCacheable, inner: Cacheability::NonCacheable },
            (0b1010, 0) => Self::Normal { outer: Cacheability::WriteThrough, inner: Cacheability::WriteThrough },
            // FEAT_MTE2: tagged.
            (0b1111, 0) => Self::Normal { outer: Cacheability::WriteBack, inner: Cacheability::WriteBack },
            (0, _) | (_, 0) => return None,
            _ => Self::Normal { outer: Self::mair_half(outer), inner: Self::mair_half(inner) },
        })
    }

    /// Half of a byte for Normal memory: bit 2 write-back, the other bits hints, but 0b0100 is non-cacheable.
    const fn mair_half(raw: u8) -> Cacheability {
        match raw {
            0b0100 => Cacheability::NonCacheable,
            _ if raw & 0b0100 == 0 => Cacheability::WriteThrough,
            _ => Cacheability::WriteBack,
        }
    }

    const fn half(raw: u8) -> Option<Cacheability> {
        match raw {
            0b01 => Some(Cacheability::NonCacheable),
            0b10 => Some(Cacheability::WriteThrough),
            0b11 => Some(Cacheability::WriteBack),
            _ => None,
        }
    }
}

/// Stage-2 access permissions: S2AP, bits 7:6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct S2Ap(u8);

impl S2Ap {
    /// Takes the low two bits of `raw`.
    #[must_use]
    pub const fn from_bits(raw: u8) -> Self {
        Self(raw & 0b11)
    }

    /// Returns whether reads are allowed.
    #[must_use]
    pub const fn is_readable(self) -> bool {
        self.0 & 0b01 != 0
    }

    /// Returns whether writes are allowed. With DBM set hardware may allow them too: [`Leaf::dirty_bit_modifier`].
    ///
    /// [`Leaf::dirty_bit_modifier`]: crate::Leaf::dirty_bit_modifier
    #[must_use]
    pub const fn is_writable(self) -> bool {
        self.0 & 0b10 != 0
    }
}

/// Who may never execute: XN, bits 54:53. Does not depend on S2AP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Xn {
    /// 00: nobody is barred.
    Neither,
    /// 01: EL1 is barred (FEAT_XNX).
    El1,
    /// 10: EL1 and EL0 are barred.
    Both,
    /// 11: EL0 is barred (FEAT_XNX).
    El0,
}

impl Xn {
    /// Decodes bits 54:53 of a descriptor. Without FEAT_XNX (`xnx` false) only bit 54 counts.
    #[must_use]
    pub const fn from_descriptor(raw: u64, xnx: bool) -> Self {
        match (bit(raw, 54), bit(raw, 53) && xnx) {
            (false, false) => Self::Neither,
            (false, true) => Self::El1,
            (true, false) => Self::Both,
            (true, true) => Self::El0,
        }
    }

    /// Returns whether EL1 may execute.
    #[must_use]
    pub const fn el1_can_execute(self) -> bool {
        matches!(self, Self::Neither | Self::El0)
    }

    /// Returns whether EL0 may execute.
    #[must_use]
    pub const fn el0_can_execute(self) -> bool {
        matches!(self, Self::Neither | Self::El1)
    }
}

/// Shareability: SH, bits 9:8 (SH0 of VTCR_EL2 or TCR_EL2 for all leaves with LPA2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shareability {
    /// 00: non-shareable.
    Non,
    /// 01: reserved.
    Reserved,
    /// 10: outer shareable.
    Outer,
    /// 11: inner shareable.
    Inner,
}

impl Shareability {
    /// Decodes the low two bits of `raw`.
    #[must_use]
    pub const fn from_bits(raw: u64) -> Self {
        match raw & 0b11 {
            0b00 => Self::Non,
            0b01 => Self::Reserved,
            0b10 => Self::Outer,
            _ => Self::Inner,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Cacheability::{NonCacheable, WriteBack, WriteThrough};

    /// All sixteen values, in order, as the manual's tables give them.
    /// Bytes of MAIR_EL2 that Linux writes, those of each kind of cacheability, and reserved ones.
    #[test]
    fn good_mair() {
        use Cacheability::{NonCacheable, WriteBack, WriteThrough};
        let normal = |outer, inner| Some(MemAttr::Normal { outer, inner });
        for (byte, expected) in [
            (0x00, Some(MemAttr::Device(Device::NGnRnE))),
            (0x04, Some(MemAttr::Device(Device::NGnRE))),
            (0x08, Some(MemAttr::Device(Device::NGRE))),
            (0x0d, Some(MemAttr::Device(Device::GRE))),
            (0x44, normal(NonCacheable, NonCacheable)),
            (0xff, normal(WriteBack, WriteBack)),
            (0xbb, normal(WriteThrough, WriteThrough)),
            (0x17, normal(WriteThrough, WriteBack)),
            (0x4f, normal(NonCacheable, WriteBack)),
            (0x40, normal(NonCacheable, NonCacheable)),
            (0xa0, normal(WriteThrough, WriteThrough)),
            (0xf0, normal(WriteBack, WriteBack)),
            (0x02, None),
            (0x10, None),
            (0xe0, None),
        ] {
            assert_eq!(MemAttr::from_mair(byte), expected, "{byte:#x}");
        }
    }

    #[test]
    fn good_memattr_without_fwb() {
        let normal = |outer, inner| MemAttr::Normal { outer, inner };
        let expected = [
            MemAttr::Device(Device::NGnRnE),
            MemAttr::Device(Device::NGnRE),
            MemAttr::Device(Device::NGRE),
            MemAttr::Device(Device::GRE),
            MemAttr::Unknown(4),
            normal(NonCacheable, NonCacheable),
            normal(NonCacheable, WriteThrough),
            normal(NonCacheable, WriteBack),
            MemAttr::Unknown(8),
            normal(WriteThrough, NonCacheable),
            normal(WriteThrough, WriteThrough),
            normal(WriteThrough, WriteBack),
            MemAttr::Unknown(12),
            normal(WriteBack, NonCacheable),
            normal(WriteBack, WriteThrough),
            normal(WriteBack, WriteBack),
        ];
        for (raw, attr) in (0..16).zip(expected) {
            assert_eq!(MemAttr::from_bits(raw, false, false), attr, "{raw:#06b}");
        }
    }

    #[test]
    fn good_memattr_with_fwb() {
        let normal_nc = MemAttr::Normal { outer: NonCacheable, inner: NonCacheable };
        let decode = |raw| MemAttr::from_bits(raw, true, false);
        assert_eq!(decode(1), MemAttr::Device(Device::NGnRE));
        assert_eq!(decode(5), normal_nc);
        assert_eq!(decode(6), MemAttr::ForcedWriteBack);
        assert_eq!(decode(7), MemAttr::AsStage1);
        for raw in [4, 8, 9, 10, 11, 12, 13, 14, 15] {
            assert_eq!(decode(raw), MemAttr::Unknown(raw));
        }
    }

    #[test]
    fn good_memattr_with_mte_perm() {
        let changed = |fwb| {
            let differs = move |raw: &u8| MemAttr::from_bits(*raw, fwb, true) != MemAttr::from_bits(*raw, fwb, false);
            let mut found = (0..16).filter(differs).map(|raw| (raw, MemAttr::from_bits(raw, fwb, true)));
            [found.next(), found.next(), found.next()]
        };
        assert_eq!(changed(false), [Some((4, MemAttr::NoTagAccess)), None, None]);
        let forced = (14, MemAttr::ForcedWriteBackNoTagAccess);
        assert_eq!(changed(true), [Some(forced), Some((15, MemAttr::AsStage1NoTagAccess)), None]);
    }

    #[test]
    fn good_xn_of_two_bits() {
        let execute = |raw: u64| {
            let xn = Xn::from_descriptor(raw << 53, true);
            (xn.el1_can_execute(), xn.el0_can_execute())
        };
        assert_eq!([0, 1, 2, 3].map(execute), [(true, true), (false, true), (false, false), (true, false)]);
    }

    #[test]
    fn good_xn_of_one_bit_ignores_bit_53() {
        assert_eq!(Xn::from_descriptor(1 << 53, false), Xn::Neither);
        assert_eq!(Xn::from_descriptor(3 << 53, false), Xn::Both);
    }
}
