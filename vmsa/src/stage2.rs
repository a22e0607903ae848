// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Stage-2 leaves: memory type, rights, and the fields of extensions. Arm ARM DDI 0487, "Stage 2 attribute fields".
//!
//! Not decoded, so part of [`Stage2Leaf::other_bits`]: AMEC (63) and NS (55, shown as a software bit) of Realm state.

use crate::attrs::{MemAttr, S2Ap, Shareability, Xn};
use crate::fault::{Access, Fault, Privilege, Rights};
use crate::geometry::{Format, Regime};
use crate::leaf::Leaf;
use crate::{bit, bits, mask};
use core::ops::Deref;

/// A block or page descriptor of a stage-2 table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage2Leaf<'g>(Leaf<'g>);

impl<'g> Deref for Stage2Leaf<'g> {
    type Target = Leaf<'g>;

    fn deref(&self) -> &Leaf<'g> {
        &self.0
    }
}

/// How a leaf tells the rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permissions {
    /// By itself.
    Direct {
        /// `7:6`.
        ap: S2Ap,
        /// `54:53`.
        xn: Xn,
    },
    /// By an index into S2PIR_EL2 (VTCR_EL2.S2PIE).
    Indirect {
        /// PIIndex: `54:53` are its bits 3:2, `51` is bit 1 and `6` bit 0.
        pi_index: u8,
        /// `7`: if clear, a write faults or (HA and HD) sets it.
        dirty: bool,
    },
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
}

impl Stage2Leaf<'_> {
    const fn has(&self, format: Format) -> bool {
        self.0.geometry.format.has(format)
    }

    /// `5:2` MemAttr.
    #[must_use]
    pub const fn mem_attr(&self) -> MemAttr {
        MemAttr::from_bits(bits(self.0.raw, 5, 2) as u8, self.has(Format::FWB), self.has(Format::MTE_PERM))
    }

    /// `9:8` SH, or VTCR_EL2.SH0 with LPA2.
    #[must_use]
    pub const fn shareability(&self) -> Shareability {
        self.0.sh()
    }

    /// Returns how it tells the rights.
    #[must_use]
    pub const fn permissions(&self) -> Permissions {
        let raw = self.0.raw;
        if self.has(Format::S2PIE) {
            let pi_index = (bits(raw, 54, 53) << 2 | bits(raw, 51, 51) << 1 | bits(raw, 6, 6)) as u8;
            Permissions::Indirect { pi_index, dirty: bit(raw, 7) }
        } else {
            let xn = Xn::from_descriptor(raw, self.has(Format::XNX));
            Permissions::Direct { ap: S2Ap::from_bits(bits(raw, 7, 6) as u8), xn }
        }
    }

    /// Returns what is allowed at EL1 or (`Unprivileged`) EL0, before the overlay of S2POE; `s2pir` is S2PIR_EL2, of no
    /// meaning without S2PIE. AArch64_S2DirectBasePermissions, AArch64_S2IndirectBasePermissions.
    ///
    /// A write that only hardware's dirty state management lets through is allowed.
    #[must_use]
    pub const fn rights(&self, privilege: Privilege, s2pir: u64) -> Rights {
        let is_el1 = matches!(privilege, Privilege::Privileged);
        let manages_dirty = self.0.geometry.manages_dirty_state();
        match self.permissions() {
            Permissions::Direct { ap, xn } => Rights {
                read: ap.is_readable(),
                write: ap.is_writable() || self.0.dirty_bit_modifier() && manages_dirty,
                execute: if is_el1 { xn.el1_can_execute() } else { xn.el0_can_execute() },
            },
            Permissions::Indirect { pi_index, dirty } => {
                let rights = Self::indirect_rights(s2pir >> (4 * pi_index as u32) & 0xf, is_el1);
                Rights { write: rights.write && (dirty || manages_dirty), ..rights }
            }
        }
    }

    /// Decodes a field of S2PIR_EL2. That 2, 3, 6 and 7 let the MMU itself or special instructions write is not shown.
    const fn indirect_rights(field: u64, is_el1: bool) -> Rights {
        let (read, write) = match field {
            0b0010 | 0b0011 | 0b0110 | 0b0111 | 0b1000..=0b1011 => (true, false),
            0b0100 => (false, true),
            0b1100..=0b1111 => (true, true),
            _ => (false, false),
        };
        let execute = field & 0b1000 != 0 && field & (if is_el1 { 0b10 } else { 0b01 }) != 0;
        Rights { read, write, execute }
    }

    /// Returns how the MMU answers `access` at EL1 or (`Unprivileged`) EL0, if it is not allowed; `s2pir` as for
    /// [`Self::rights`]. In the order of AArch64_S2Translate: address size, access flag, permission.
    #[must_use]
    pub const fn fault(&self, access: Access, privilege: Privilege, s2pir: u64) -> Option<Fault> {
        self.0.fault(access, self.rights(privilege, s2pir))
    }

    /// `11` FnXS (FEAT_XS): accesses do not get the XS attribute.
    #[must_use]
    pub const fn fnxs(&self) -> bool {
        bit(self.0.raw, 11)
    }

    /// `58` AssuredOnly (VTCR_EL2.AssuredOnly); false, and a software bit, without.
    #[must_use]
    pub const fn assured_only(&self) -> bool {
        self.has(Format::ASSURED_ONLY) && bit(self.0.raw, 58)
    }

    /// `62:59` as POIndex, an index into S2POR_EL1 (VTCR_EL2.S2POE); `None` without.
    #[must_use]
    pub const fn po_index(&self) -> Option<u8> {
        if self.has(Format::S2POE) {
            Some(bits(self.0.raw, 62, 59) as u8)
        } else {
            None
        }
    }

    /// Returns the bits no method above shows: what is reserved, or belongs to extensions that are not decoded.
    #[must_use]
    pub const fn other_bits(&self) -> u64 {
        let bit_53 = if self.has(Format::XNX) || self.has(Format::S2PIE) { mask(&[(53, 53)]) } else { 0 };
        let po_index = if self.has(Format::S2POE) { mask(&[(62, 59)]) } else { 0 };
        let assured_only = if self.has(Format::ASSURED_ONLY) { mask(&[(58, 58)]) } else { 0 };
        let own = mask(&[(5, 2), (7, 6), (11, 11), (54, 54)]) | self.0.sh_mask() | bit_53 | po_index | assured_only;
        self.0.raw & !(self.0.named_bits() | own)
    }
}
