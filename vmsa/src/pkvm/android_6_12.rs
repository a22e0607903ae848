// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! pKVM of Android's common kernel android16-6.12: page states in 56:55 of leaves, EL2's own among them; invalid entries with
//! an owner in 9:2, or one of two flags.
//!
//! `asm/kvm_pgtable.h` (`KVM_INVALID_PTE_*`), `nvhe/memory.h` (`enum pkvm_page_state`, `struct hyp_page`),
//! `nvhe/mem_protect.h` (`enum pkvm_component_id`), `nvhe/mem_protect.c`, as of 6.12.23.
//!
//! Which table has what:
//!
//! - Guests' leaves have the state that the guest has the page in: owned, shared-owned, shared-borrowed.
//! - Of the host's leaves only those of devices can have a state, and only `Tainted` is ever written. That of memory is kept
//!   with the page frame, and the bits of its leaves are zero whatever it is.
//! - EL2's leaves have EL2's state: [`decode_hyp`]. That is not kept with the page frame.
//! - Owners are in the host's table, `MmioGuard` is in those of protected guests. Both are whole entries: with any other bit
//!   set, pKVM wrote neither.

use super::{Decoded, Field, Frame, InvalidKind, Meaning, Owner, OwnerId, PageState, Part};
use crate::bits;

const STATE: Field = Field { hi: 56, lo: 55, part: Part::PageState };
/// `KVM_INVALID_PTE_LOCKED` and, above it, `KVM_INVALID_PTE_MMIO_NOTE`.
const TYPE: Field = Field { hi: 11, lo: 10, part: Part::InvalidType };
const OWNER: Field = Field { hi: 9, lo: 2, part: Part::Owner };
const ABOVE_TYPE: Field = Field { hi: 63, lo: 12, part: Part::Payload };
const BELOW_TYPE: Field = Field { hi: 9, lo: 1, part: Part::Payload };
const BELOW_OWNER: Field = Field { hi: 1, lo: 1, part: Part::Payload };

const LOCKED: u64 = 1 << 10;
const MMIO_NOTE: u64 = 1 << 11;

/// Decodes a leaf, or an invalid entry. The payload of an invalid entry is told with its bits in place.
pub(super) const fn decode(raw: u64) -> Decoded {
    if raw & 1 != 0 {
        return leaf(raw);
    }
    let kind = match raw {
        0 => InvalidKind::Empty,
        MMIO_NOTE => InvalidKind::MmioGuard,
        // Break-before-make is under way. The kernel asks for this bit alone.
        _ if raw & LOCKED != 0 => InvalidKind::Locked { payload: raw & !LOCKED },
        _ if raw & !OWNER.mask() == 0 => return donation(OwnerId(OWNER.of(raw) as u8)),
        _ => InvalidKind::Unknown { kind: TYPE.of(raw) as u8, payload: raw & !TYPE.mask() },
    };
    Decoded { meaning: Meaning::Invalid(kind), fields: &[ABOVE_TYPE, TYPE, BELOW_TYPE] }
}

/// Decodes a leaf of EL2's own stage 1. Of other entries there, nothing is known.
///
/// pKVM asks for the state in EL2's linear map only. Elsewhere (slots, stacks, devices) nobody writes the bits, and zero does
/// not say that EL2 owns what is mapped.
pub(super) const fn decode_hyp(raw: u64) -> Decoded {
    if raw & 1 == 0 {
        return Decoded::UNKNOWN;
    }
    leaf(raw)
}

const fn leaf(raw: u64) -> Decoded {
    let state = match STATE.of(raw) {
        0 => PageState::Owned,
        1 => PageState::SharedOwned,
        2 => PageState::SharedBorrowed,
        // Two bits have no other value.
        _ => PageState::Tainted,
    };
    Decoded { meaning: Meaning::Leaf(state), fields: &[STATE] }
}

/// `enum pkvm_component_id`: which guest, and where it has the page, is not told.
const fn donation(id: OwnerId) -> Decoded {
    let owner = match id.0 {
        1 => Owner::Hyp,
        2 => Owner::Ffa,
        3 => Owner::SomeGuest,
        4 => Owner::Protected,
        _ => Owner::Unknown { id, metadata: 0 },
    };
    Decoded {
        meaning: Meaning::Invalid(InvalidKind::HostDonation { owner }),
        fields: &[ABOVE_TYPE, TYPE, OWNER, BELOW_OWNER],
    }
}

/// Decodes `struct hyp_page`, loaded as one little-endian word.
pub(super) const fn decode_frame(raw: u64) -> Frame {
    Frame {
        refcount: bits(raw, 15, 0) as u16,
        order: bits(raw, 23, 16) as u8,
        host: host_state(bits(raw, 31, 24)),
        hyp: None,
        is_hyp_kept: false,
        share_count: bits(raw, 63, 32) as u32,
    }
}

/// `enum pkvm_page_state` as it stands in a frame: flags, of which few combinations are written.
const fn host_state(value: u64) -> Option<PageState> {
    Some(match value {
        0b0000 => PageState::Owned,
        0b0001 => PageState::SharedOwned,
        0b0010 => PageState::SharedBorrowed,
        0b0011 => PageState::Tainted,
        0b0100 => PageState::ModuleOwned,
        0b1000 => PageState::NoPage,
        0b1100 => PageState::ModuleNoPage,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pkvm::{self, Encoding};
    use crate::RawDescriptor;

    fn decode(raw: u64) -> Decoded {
        pkvm::decode(Encoding::PKVM_ANDROID_6_12, RawDescriptor::from_bits(raw))
    }

    fn invalid(raw: u64) -> InvalidKind {
        decode(raw).invalid().unwrap()
    }

    #[test]
    fn good_page_states() {
        use PageState::{Owned, SharedBorrowed, SharedOwned, Tainted};
        let states = [0, 1, 2, 3].map(|state: u64| decode(state << 55 | 0b11).page_state());
        assert_eq!(states, [Some(Owned), Some(SharedOwned), Some(SharedBorrowed), Some(Tainted)]);
        assert_eq!(decode(0b01).page_state(), Some(Owned), "a block");
        assert_eq!(decode(0b11 << 57 | 0b11).page_state(), Some(Owned), "the other software bits say nothing");
    }

    /// Words of EL2's table: a page of its own, one that it borrows, and what is left of one.
    #[test]
    fn good_hyp_states() {
        let decode = |raw| pkvm::decode_hyp(Encoding::PKVM_ANDROID_6_12, RawDescriptor::from_bits(raw));
        assert_eq!(decode(0x0040_0000_4100_0743).page_state(), Some(PageState::Owned));
        assert_eq!(decode(0x0140_0000_4100_0743).page_state(), Some(PageState::SharedBorrowed));
        for raw in [0, 0x0140_0000_4100_0742, MMIO_NOTE, 1 << 2] {
            assert_eq!(decode(raw), Decoded::UNKNOWN, "{raw:#x}");
        }
        let other = pkvm::decode_hyp(Encoding::PKVM_7_2, RawDescriptor::from_bits(0x0140_0000_4100_0743));
        assert_eq!(other, Decoded::UNKNOWN, "mainline keeps no state there");
    }

    #[test]
    fn good_guest_entries() {
        assert_eq!(invalid(0), InvalidKind::Empty);
        assert_eq!(invalid(0x800), InvalidKind::MmioGuard);
        assert_eq!(invalid(0x400), InvalidKind::Locked { payload: 0 });
    }

    /// A guard is the one word. With any other bit it is not what pKVM compares with.
    #[test]
    fn good_mmio_guard_is_exact() {
        for bit in (1..64).filter(|&bit| bit != 10 && bit != 11) {
            let raw = 0x800 | 1 << bit;
            assert_eq!(invalid(raw), InvalidKind::Unknown { kind: 2, payload: 1 << bit }, "{raw:#x}");
        }
    }

    #[test]
    fn good_owners() {
        let owned = |owner| InvalidKind::HostDonation { owner };
        assert_eq!(invalid(0x04), owned(Owner::Hyp));
        assert_eq!(invalid(0x08), owned(Owner::Ffa));
        assert_eq!(invalid(0x0c), owned(Owner::SomeGuest));
        assert_eq!(invalid(0x10), owned(Owner::Protected));
        for id in [5, 6, 0x80, 0xff] {
            let owner = Owner::Unknown { id: OwnerId(id), metadata: 0 };
            assert_eq!(invalid(u64::from(id) << 2), owned(owner));
        }
    }

    /// The bits of another kernel's annotations, and of what is left of a leaf.
    #[test]
    fn good_unknown_is_kept() {
        assert_eq!(invalid(1 << 1), InvalidKind::Unknown { kind: 0, payload: 2 });
        assert_eq!(invalid(0x2000_0000_0000_0004), InvalidKind::Unknown { kind: 0, payload: 0x2000_0000_0000_0004 });
        assert_eq!(invalid(1 << 12), InvalidKind::Unknown { kind: 0, payload: 1 << 12 });
        assert_eq!(invalid(0xc00), InvalidKind::Locked { payload: 0x800 });
    }

    /// Bytes as they lie in memory: `refcount`, `order`, `host_state`, `host_share_guest_count`.
    #[test]
    fn good_frames() {
        use PageState::{ModuleNoPage, ModuleOwned, NoPage, Owned, SharedBorrowed, SharedOwned, Tainted};
        let decode = |bytes| pkvm::decode_frame(Encoding::PKVM_ANDROID_6_12, u64::from_le_bytes(bytes)).unwrap();
        let owned = Frame { host: Some(Owned), hyp: None, is_hyp_kept: false, refcount: 0, order: 0, share_count: 0 };
        assert_eq!(decode([0; 8]), owned);
        let lent = Frame { host: Some(SharedOwned), share_count: 0x0403_0201, ..owned };
        assert_eq!(decode([0, 0, 0, 1, 1, 2, 3, 4]), lent);
        let pool = Frame { host: Some(NoPage), refcount: 0x102, order: 9, ..owned };
        assert_eq!(decode([2, 1, 9, 8, 0, 0, 0, 0]), pool);
        let state = |byte| decode([0, 0, 0, byte, 0, 0, 0, 0]).host;
        assert_eq!([2, 3, 4, 12].map(state), [SharedBorrowed, Tainted, ModuleOwned, ModuleNoPage].map(Some));
        // Nobody writes these: RESTRICTED_PROT and MMIO are never stored, and no page is another's and shared.
        assert_eq!([5, 7, 9, 10, 13, 16, 32, 0x33].map(state), [None; 8]);
    }

    /// The fields of an entry do not overlap, and those of an invalid one hold all of it but bit 0.
    #[test]
    fn good_fields_cover_an_invalid_entry() {
        for raw in (1..64).map(|bit| 1 << bit).chain((0..0x1000).step_by(2)) {
            let fields = decode(raw).fields;
            assert_eq!(fields.iter().fold(0, |all, field| all ^ field.mask()), !1, "{raw:#x}");
            assert_eq!(fields.iter().map(|field| field.hi - field.lo + 1).sum::<u32>(), 63, "{raw:#x}");
        }
    }
}
