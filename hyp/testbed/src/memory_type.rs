// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! What PAR_EL1 shows of a memory type: the combination of the two stages. Arm ARM DDI 0487, "Combining memory attributes";
//! S2CombineS1MemAttrs, S2ApplyFWBMemAttrs, EffectiveShareability.

use s2dump_vmsa::attrs::{Cacheability, Device, MemAttr, Shareability};

/// What stage 1 says, being off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage1 {
    /// HCR_EL2.DC: Normal write-back read-write-allocate, non-shareable.
    WriteBack,
    /// Device-nGnRnE.
    Device,
}

/// Returns the byte as in MAIR: `None` if `attr` is reserved, so that the architecture says nothing.
#[must_use]
pub const fn combine(attr: MemAttr, stage1: Stage1) -> Option<u8> {
    let combined = match (attr, stage1) {
        (MemAttr::Device(_), Stage1::Device) => 0,
        (MemAttr::Device(device), Stage1::WriteBack) => match device {
            Device::NGnRnE => 0x00,
            Device::NGnRE => 0x04,
            Device::NGRE => 0x08,
            Device::GRE => 0x0c,
        },
        (MemAttr::Normal { outer, inner }, Stage1::WriteBack) => nibble(outer) << 4 | nibble(inner),
        (MemAttr::ForcedWriteBack, _) | (MemAttr::AsStage1, Stage1::WriteBack) => 0xff,
        (MemAttr::Normal { .. } | MemAttr::AsStage1, Stage1::Device) => 0,
        _ => return None,
    };
    Some(combined)
}

/// Stage 1 write-back never is the weaker one, so stage 2's half stands.
const fn nibble(half: Cacheability) -> u8 {
    match half {
        Cacheability::NonCacheable => 0x4,
        Cacheability::WriteThrough => 0xb,
        Cacheability::WriteBack => 0xf,
    }
}

/// Returns SH as PAR_EL1 shows it, for a combined memory type `attr`, where stage 1 says `stage1`.
#[must_use]
pub const fn shareability(attr: u8, stage2: Shareability, stage1: Stage1) -> u8 {
    if is_outer(attr) || matches!(stage1, Stage1::Device) {
        return 0b10; // Device of stage 1 is outer shareable, and the wider one wins.
    }
    match stage2 {
        // Reserved: QEMU's choice.
        Shareability::Non | Shareability::Reserved => 0b00,
        Shareability::Outer => 0b10,
        Shareability::Inner => 0b11,
    }
}

/// Returns whether a memory type is always outer shareable: Device, and Normal non-cacheable.
#[must_use]
pub const fn is_outer(attr: u8) -> bool {
    attr & 0xf0 == 0 || attr == 0x44 || attr == 0x40
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The column of facts that was measured by hand: without FWB, stage 1 write-back.
    #[test]
    fn good_all_without_fwb() {
        let attr = |raw| combine(MemAttr::from_bits(raw, false, false), Stage1::WriteBack);
        let expected = [0x00, 0x04, 0x08, 0x0c, 0, 0x44, 0x4b, 0x4f, 0, 0xb4, 0xbb, 0xbf, 0, 0xf4, 0xfb, 0xff];
        for (raw, expected) in (0..16).zip(expected) {
            let is_reserved = [4, 8, 12].contains(&raw);
            assert_eq!(attr(raw), (!is_reserved).then_some(expected), "{raw:#x}");
        }
    }

    #[test]
    fn good_fwb_over_device() {
        let attr = |raw| combine(MemAttr::from_bits(raw, true, false), Stage1::Device);
        assert_eq!([1, 5, 6, 7].map(attr), [Some(0), Some(0), Some(0xff), Some(0)]);
    }
}
