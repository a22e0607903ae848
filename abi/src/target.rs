// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! The name of a table, and its identity.

/// The kind of table: an open enum in bits 63:56 of a [`Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetKind(pub u8);

impl TargetKind {
    /// A guest's stage-2 table, named by its pKVM handle.
    pub const GUEST_STAGE2: Self = Self(0);
    /// The host's stage-2 table.
    pub const HOST_STAGE2: Self = Self(1);
    /// EL2's own stage-1 table.
    pub const HYP_STAGE1: Self = Self(2);
}

/// Names a table: its kind in bits 63:56, of a guest's the pKVM handle in bits 15:0, the rest zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Target(pub u64);

/// The first pKVM handle (`HANDLE_OFFSET`, `nvhe/pkvm.c`).
pub const FIRST_HANDLE: u16 = 0x1000;
/// The most VMs pKVM can have at once (`KVM_MAX_PVMS`, `asm/kvm_pkvm.h`).
pub const HANDLES: u16 = 255;
/// The handle after the last one.
pub const END_HANDLE: u16 = FIRST_HANDLE + HANDLES;

/// The lowest bit of the kind in a [`Target`].
pub const KIND_SHIFT: u32 = 56;
const HANDLE_MASK: u64 = 0xffff;

impl Target {
    /// The host's stage-2 table.
    pub const HOST: Self = Self((TargetKind::HOST_STAGE2.0 as u64) << KIND_SHIFT);
    /// EL2's own stage-1 table.
    pub const HYP: Self = Self((TargetKind::HYP_STAGE1.0 as u64) << KIND_SHIFT);

    /// Names the stage-2 table of the guest with `handle`.
    #[must_use]
    pub const fn guest(handle: u16) -> Self {
        Self(((TargetKind::GUEST_STAGE2.0 as u64) << KIND_SHIFT) | handle as u64)
    }

    /// Returns the kind, known or not.
    #[must_use]
    pub const fn kind(self) -> TargetKind {
        TargetKind((self.0 >> KIND_SHIFT) as u8)
    }

    /// Returns the pKVM handle of a guest target, or `None` for other kinds and for set reserved bits.
    #[must_use]
    pub const fn guest_handle(self) -> Option<u16> {
        if self.kind().0 != TargetKind::GUEST_STAGE2.0 || self.0 & !HANDLE_MASK & !(0xff << KIND_SHIFT) != 0 {
            return None;
        }
        Some((self.0 & HANDLE_MASK) as u16)
    }
}

/// An input address of a table, as a register of an examination names it: the kind of table in bits 63:56, of a
/// guest's the handle in bits 55:40, and the input address without its lowest 12 bits in bits 39:0. Zero names none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Place(pub u64);

/// How many places one examination looks at.
pub const PLACES: usize = 3;

const PLACE_HANDLE_SHIFT: u32 = 40;
const PLACE_PAGE_SHIFT: u32 = 12;
const PLACE_PAGE_MASK: u64 = (1 << PLACE_HANDLE_SHIFT) - 1;

impl Place {
    /// No place.
    pub const NONE: Self = Self(0);

    /// Names the page of `target` that `address` is in, or returns `None` if `target` has reserved bits set or the
    /// address has more than 52 bits.
    #[must_use]
    pub const fn new(target: Target, address: u64) -> Option<Self> {
        let handle = target.0 & HANDLE_MASK;
        let page = address >> PLACE_PAGE_SHIFT;
        let kind = (target.kind().0 as u64) << KIND_SHIFT;
        if target.0 != kind | handle || page > PLACE_PAGE_MASK {
            return None;
        }
        Some(Self(kind | handle << PLACE_HANDLE_SHIFT | page))
    }

    /// Returns the table.
    #[must_use]
    pub const fn target(self) -> Target {
        Target(self.0 >> KIND_SHIFT << KIND_SHIFT | (self.0 >> PLACE_HANDLE_SHIFT) & HANDLE_MASK)
    }

    /// Returns the input address of the page.
    #[must_use]
    pub const fn address(self) -> u64 {
        (self.0 & PLACE_PAGE_MASK) << PLACE_PAGE_SHIFT
    }
}

/// Identifies one table: its name, and the address of its root.
///
/// The name is not enough, because pKVM gives the handle of a VM that is gone to another VM. Whoever meets a table
/// twice, in a list and in a start or in two slots, compares identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub target: Target,
    /// Physical address of its root.
    pub root: u64,
}
