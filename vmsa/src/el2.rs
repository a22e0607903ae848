// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Leaves of EL2's stage 1: the hypervisor's own tables, with HCR_EL2.E2H clear or set.
//!
//! Arm ARM DDI 0487, "VMSAv8-64 descriptors" and "Stage 1 data accesses". Not supported: indirect permissions and overlays
//! of TCR2_EL2, PAN.

use crate::attrs::Shareability;
use crate::fault::{Access, Fault, Privilege, Rights};
use crate::geometry::{Format, Regime};
use crate::leaf::Leaf;
use crate::table_attrs::TableAttrs;
use crate::{bit, bits, mask};
use core::ops::Deref;

/// A block or page descriptor of EL2's stage 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct El2Leaf<'g> {
    leaf: Leaf<'g>,
    inherited: TableAttrs,
}

impl<'g> Deref for El2Leaf<'g> {
    type Target = Leaf<'g>;

    fn deref(&self) -> &Leaf<'g> {
        &self.leaf
    }
}

impl<'g> Leaf<'g> {
    /// Returns the fields of a leaf of EL2's stage 1, if it is one; `inherited` is what the tables above it say.
    #[must_use]
    pub const fn el2(self, inherited: TableAttrs) -> Option<El2Leaf<'g>> {
        match self.geometry.regime() {
            Regime::Stage2 => None,
            Regime::El2 | Regime::El2And0 => Some(El2Leaf { leaf: self, inherited }),
        }
    }
}

impl El2Leaf<'_> {
    /// Returns whether the regime has EL0.
    const fn has_el0(&self) -> bool {
        matches!(self.leaf.geometry.regime(), Regime::El2And0)
    }

    /// Returns what the tables above it say.
    #[must_use]
    pub const fn inherited(&self) -> TableAttrs {
        self.inherited
    }

    /// `4:2` AttrIndx, with AIE also `59` as bit 3: which byte of MAIR_EL2 (MAIR2_EL2 from 8 on) is the memory type.
    #[must_use]
    pub const fn attr_index(&self) -> u8 {
        let high = if self.leaf.geometry.format.has(Format::AIE) { bits(self.leaf.raw, 59, 59) << 3 } else { 0 };
        (high | bits(self.leaf.raw, 4, 2)) as u8
    }

    /// `5` NS: the output address is Non-secure. Of no meaning unless EL2 is Secure.
    #[must_use]
    pub const fn is_non_secure(&self) -> bool {
        bit(self.leaf.raw, 5)
    }

    /// `7:6` `AP[2:1]`. Without E2H, `AP[1]` should be set and does not count.
    #[must_use]
    pub const fn ap(&self) -> u8 {
        bits(self.leaf.raw, 7, 6) as u8
    }

    /// `9:8` SH, or TCR_EL2.SH0 with LPA2.
    #[must_use]
    pub const fn shareability(&self) -> Shareability {
        self.leaf.sh()
    }

    /// `11` nG: belongs to an ASID. Always false without E2H.
    #[must_use]
    pub const fn is_not_global(&self) -> bool {
        self.has_el0() && bit(self.leaf.raw, 11)
    }

    /// `50` GP (FEAT_BTI): indirect branches must land on a BTI instruction.
    #[must_use]
    pub const fn is_guarded(&self) -> bool {
        bit(self.leaf.raw, 50)
    }

    /// `54` XN, with E2H UXN: the page itself bars EL2, with E2H EL0, from executing.
    #[must_use]
    pub const fn xn(&self) -> bool {
        bit(self.leaf.raw, 54)
    }

    /// `53` PXN: with E2H, the page itself bars EL2 from executing. Always false without.
    #[must_use]
    pub const fn pxn(&self) -> bool {
        self.has_el0() && bit(self.leaf.raw, 53)
    }

    /// Returns what is allowed at EL2 or (`Unprivileged`) EL0; `wxn` is SCTLR_EL2.WXN. AArch64_S1DirectBasePermissions.
    ///
    /// A write that only hardware's dirty state management lets through is allowed.
    #[must_use]
    pub const fn rights(&self, privilege: Privilege, wxn: bool) -> Rights {
        let is_dirty_managed = self.leaf.dirty_bit_modifier() && self.leaf.geometry.manages_dirty_state();
        let write = (!bit(self.leaf.raw, 7) || is_dirty_managed) && !self.inherited.is_read_only();
        let el0_access = self.has_el0() && bit(self.leaf.raw, 6) && !self.inherited.denies_el0();
        let xn = self.xn() || self.inherited.xn();
        match privilege {
            Privilege::Privileged if self.has_el0() => {
                let is_el0_writable = el0_access && write;
                let pxn = self.pxn() || self.inherited.pxn();
                Rights { read: true, write, execute: !(pxn || is_el0_writable || wxn && write) }
            }
            Privilege::Privileged => Rights { read: true, write, execute: !(xn || wxn && write) },
            Privilege::Unprivileged => {
                let write = el0_access && write;
                Rights { read: el0_access, write, execute: self.has_el0() && !(xn || wxn && write) }
            }
        }
    }

    /// Returns how the MMU answers `access` at EL2 or (`Unprivileged`) EL0, if it is not allowed; `wxn` as for
    /// [`Self::rights`].
    #[must_use]
    pub const fn fault(&self, access: Access, privilege: Privilege, wxn: bool) -> Option<Fault> {
        self.leaf.fault(access, self.rights(privilege, wxn))
    }

    /// Returns the bits no method above shows: what is reserved, or belongs to extensions that are not decoded.
    #[must_use]
    pub const fn other_bits(&self) -> u64 {
        let by_regime = if self.has_el0() { mask(&[(11, 11), (53, 53)]) } else { 0 };
        let attr_index_3 = if self.leaf.geometry.format.has(Format::AIE) { mask(&[(59, 59)]) } else { 0 };
        let own = mask(&[(7, 2), (50, 50), (54, 54)]) | self.leaf.sh_mask() | by_regime | attr_index_3;
        self.leaf.raw & !(self.leaf.named_bits() | own)
    }
}
