// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! What pKVM keeps in software bits and in invalid entries of stage-2 tables, as of Linux 7.2.
//!
//! Only for tables whose header says this encoding. Names follow `enum pkvm_page_state` (`nvhe/memory.h`) and the
//! "pKVM invalid pte encodings" of `asm/kvm_pgtable.h`.

use crate::bits;

/// Who owns a page and whether it is shared: software bits 56:55 of a valid leaf (`PKVM_PAGE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageState {
    /// 00: owned, exclusively.
    Owned,
    /// 01: owned and shared with another.
    SharedOwned,
    /// 10: another's, shared with this one.
    SharedBorrowed,
    /// 11: no page. Not stored in guest tables.
    NoPage,
}

impl PageState {
    /// Decodes the software bits of a valid leaf.
    #[must_use]
    pub const fn from_descriptor(raw: u64) -> Self {
        match bits(raw, 56, 55) {
            0b00 => Self::Owned,
            0b01 => Self::SharedOwned,
            0b10 => Self::SharedBorrowed,
            _ => Self::NoPage,
        }
    }
}

/// An owner in a donation annotation: bits 3:1 (`enum pkvm_component_id`). An open enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnerId(pub u8);

impl OwnerId {
    /// The host. Never stored.
    pub const HOST: Self = Self(0);
    /// The hypervisor.
    pub const HYP: Self = Self(1);
    /// A guest.
    pub const GUEST: Self = Self(2);
}

/// What an invalid entry says: its type is in bits 63:60.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InvalidKind {
    /// All zero: nothing here.
    Empty,
    /// Type 1: break-before-make is under way. Never seen under the table's lock.
    Locked {
        /// Bits 59:1.
        payload: u64,
    },
    /// Type 2, host tables: donated to another component.
    HostDonation {
        /// Bits 3:1.
        owner: OwnerId,
        /// Bits 59:4. For a guest: handle in 15:0, guest frame number above.
        metadata: u64,
    },
    /// Type 3, guest tables: taken back by force; a guest access ends the VM.
    GuestPoisoned {
        /// Bits 59:1, zero so far.
        payload: u64,
    },
    /// Any other type.
    Unknown {
        /// Bits 63:60.
        kind: u8,
        /// Bits 59:1.
        payload: u64,
    },
}

impl InvalidKind {
    /// Decodes an entry with bit 0 clear.
    #[must_use]
    pub const fn from_descriptor(raw: u64) -> Self {
        let payload = bits(raw, 59, 1);
        match bits(raw, 63, 60) {
            0 if payload == 0 => Self::Empty,
            1 => Self::Locked { payload },
            2 => Self::HostDonation { owner: OwnerId(bits(raw, 3, 1) as u8), metadata: bits(raw, 59, 4) },
            3 => Self::GuestPoisoned { payload },
            kind => Self::Unknown { kind: kind as u8, payload },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_page_states() {
        use PageState::{NoPage, Owned, SharedBorrowed, SharedOwned};
        let states = [0, 1, 2, 3].map(|raw: u64| PageState::from_descriptor(raw << 55));
        assert_eq!(states, [Owned, SharedOwned, SharedBorrowed, NoPage]);
    }

    #[test]
    fn good_empty() {
        assert_eq!(InvalidKind::from_descriptor(0), InvalidKind::Empty);
    }

    #[test]
    fn good_guest_poison() {
        assert_eq!(InvalidKind::from_descriptor(0x3000_0000_0000_0000), InvalidKind::GuestPoisoned { payload: 0 });
    }

    #[test]
    fn good_hyp_owned() {
        let donated = InvalidKind::HostDonation { owner: OwnerId::HYP, metadata: 0 };
        assert_eq!(InvalidKind::from_descriptor(0x2000_0000_0000_0002), donated);
    }

    #[test]
    fn good_locked() {
        assert_eq!(InvalidKind::from_descriptor(0x1000_0000_0000_0000), InvalidKind::Locked { payload: 0 });
    }

    /// Type 0 with a payload is the annotation of older kernels: it must not look empty.
    #[test]
    fn good_unknown_is_kept() {
        assert_eq!(InvalidKind::from_descriptor(0x400), InvalidKind::Unknown { kind: 0, payload: 0x200 });
        assert_eq!(InvalidKind::from_descriptor(0xf << 60), InvalidKind::Unknown { kind: 15, payload: 0 });
    }
}
