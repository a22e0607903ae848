// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! pKVM as of Linux 7.2: the state of a page in 56:55 of a leaf; invalid entries of the type in 63:60; `struct hyp_page` of
//! eight bytes.
//!
//! "pKVM invalid pte encodings" of `asm/kvm_pgtable.h`, `enum pkvm_page_state` and `struct hyp_page` of `nvhe/memory.h`,
//! `nvhe/mem_protect.c`.

use super::{Decoded, Field, Frame, InvalidKind, Meaning, Owner, OwnerId, PageState, Part};
use crate::bits;

const STATE: Field = Field { hi: 56, lo: 55, part: Part::PageState };
const TYPE: Field = Field { hi: 63, lo: 60, part: Part::InvalidType };
const OWNER: Field = Field { hi: 3, lo: 1, part: Part::Owner };
const METADATA: Field = Field { hi: 59, lo: 4, part: Part::Metadata };
const GFN: Field = Field { hi: 59, lo: 20, part: Part::Gfn };
const HANDLE: Field = Field { hi: 19, lo: 4, part: Part::Handle };
const PAYLOAD: Field = Field { hi: 59, lo: 1, part: Part::Payload };

/// Decodes a leaf, or an invalid entry.
pub(super) const fn decode(raw: u64) -> Decoded {
    if raw & 1 != 0 {
        return Decoded { meaning: Meaning::Leaf(state(raw)), fields: &[STATE] };
    }
    let payload = PAYLOAD.of(raw);
    let kind = match TYPE.of(raw) {
        0 if payload == 0 => InvalidKind::Empty,
        // Break-before-make is under way.
        1 => InvalidKind::Locked { payload },
        // Host tables.
        2 => return donation(raw),
        // Guest tables.
        3 => InvalidKind::GuestPoisoned { payload },
        kind => InvalidKind::Unknown { kind: kind as u8, payload },
    };
    Decoded { meaning: Meaning::Invalid(kind), fields: &[TYPE, PAYLOAD] }
}

/// The metadata of a guest are its handle (15:0) and the guest frame number above; those of the hypervisor are zero.
const fn donation(raw: u64) -> Decoded {
    let (id, metadata) = (OwnerId(OWNER.of(raw) as u8), METADATA.of(raw));
    let (owner, fields): (_, &'static [Field]) = match (id, metadata) {
        (OwnerId::HYP, 0) => (Owner::Hyp, &[TYPE, METADATA, OWNER]),
        (OwnerId::GUEST, _) => {
            (Owner::Guest { handle: HANDLE.of(raw) as u16, gfn: GFN.of(raw) }, &[TYPE, GFN, HANDLE, OWNER])
        }
        _ => (Owner::Unknown { id, metadata }, &[TYPE, METADATA, OWNER]),
    };
    Decoded { meaning: Meaning::Invalid(InvalidKind::HostDonation { owner }), fields }
}

const fn state(raw: u64) -> PageState {
    match state_of(STATE.of(raw)) {
        Some(state) => state,
        // Two bits have no other value.
        None => PageState::NoPage,
    }
}

/// `enum pkvm_page_state`.
const fn state_of(value: u64) -> Option<PageState> {
    Some(match value {
        0 => PageState::Owned,
        1 => PageState::SharedOwned,
        2 => PageState::SharedBorrowed,
        3 => PageState::NoPage,
        _ => return None,
    })
}

/// Decodes `struct hyp_page`, loaded as one little-endian word. The hypervisor's state is stored as its complement, so that
/// a word of zeroes says that the host owns the frame.
pub(super) const fn decode_frame(raw: u64) -> Frame {
    Frame {
        refcount: bits(raw, 15, 0) as u16,
        order: bits(raw, 23, 16) as u8,
        host: state_of(bits(raw, 27, 24)),
        hyp: state_of(bits(raw, 31, 28) ^ 0b11),
        is_hyp_kept: true,
        share_count: bits(raw, 63, 32) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pkvm::{self, Encoding};
    use crate::RawDescriptor;

    fn decode(raw: u64) -> Decoded {
        pkvm::decode(Encoding::PKVM_7_2, RawDescriptor::from_bits(raw))
    }

    fn invalid(raw: u64) -> InvalidKind {
        decode(raw).invalid().unwrap()
    }

    #[test]
    fn good_page_states() {
        use PageState::{NoPage, Owned, SharedBorrowed, SharedOwned};
        let states = [0, 1, 2, 3].map(|state: u64| decode(state << 55 | 0b11).page_state());
        assert_eq!(states, [Some(Owned), Some(SharedOwned), Some(SharedBorrowed), Some(NoPage)]);
        assert_eq!(decode(0b01).page_state(), Some(Owned), "a block");
    }

    #[test]
    fn good_empty() {
        assert_eq!(invalid(0), InvalidKind::Empty);
    }

    #[test]
    fn good_guest_poison() {
        assert_eq!(invalid(0x3000_0000_0000_0000), InvalidKind::GuestPoisoned { payload: 0 });
        assert_eq!(invalid(0x3000_0000_0000_0002), InvalidKind::GuestPoisoned { payload: 1 });
    }

    #[test]
    fn good_hyp_owned() {
        assert_eq!(invalid(0x2000_0000_0000_0002), InvalidKind::HostDonation { owner: Owner::Hyp });
    }

    #[test]
    fn good_guest_owned() {
        let owned = |handle, gfn| InvalidKind::HostDonation { owner: Owner::Guest { handle, gfn } };
        assert_eq!(invalid(0x2000_0080_0001_0034), owned(0x1003, 0x8_0000));
        assert_eq!(invalid(0x2fff_ffff_ffff_fff4), owned(0xffff, 0xff_ffff_ffff), "all bits of both");
        assert_eq!(invalid(0x2000_0000_0010_0004), owned(0, 1), "the lowest bit of the frame number");
    }

    /// The host is never stored, and the hypervisor leaves no metadata.
    #[test]
    fn good_unknown_owners_are_kept() {
        let unknown = |id, metadata| InvalidKind::HostDonation { owner: Owner::Unknown { id: OwnerId(id), metadata } };
        assert_eq!(invalid(0x2000_0000_0000_0000), unknown(0, 0));
        assert_eq!(invalid(0x2000_0000_0000_0012), unknown(1, 1));
        assert_eq!(invalid(0x2800_0000_0001_003e), unknown(7, 0x80_0000_0000_1003));
    }

    /// Bytes as they lie in memory: `refcount`, `order`, the two states, `host_share_guest_count`.
    #[test]
    fn good_frames() {
        use PageState::{NoPage, Owned, SharedBorrowed, SharedOwned};
        let decode = |bytes| pkvm::decode_frame(Encoding::PKVM_7_2, u64::from_le_bytes(bytes)).unwrap();
        let host_owned =
            Frame { host: Some(Owned), hyp: Some(NoPage), is_hyp_kept: true, refcount: 0, order: 0, share_count: 0 };
        assert_eq!(decode([0; 8]), host_owned);
        let hyp_owned = Frame { host: Some(NoPage), hyp: Some(Owned), refcount: 0x102, order: 9, ..host_owned };
        assert_eq!(decode([2, 1, 9, 0x33, 0, 0, 0, 0]), hyp_owned);
        let pinned = Frame { host: Some(SharedOwned), hyp: Some(SharedBorrowed), refcount: 1, ..host_owned };
        assert_eq!(decode([1, 0, 0, 0x11, 0, 0, 0, 0]), pinned);
        let lent = Frame { host: Some(SharedOwned), share_count: 0x0403_0201, ..host_owned };
        assert_eq!(decode([0, 0, 0, 0x01, 1, 2, 3, 4]), lent);
        let shared = Frame { host: Some(SharedBorrowed), hyp: Some(SharedOwned), ..host_owned };
        assert_eq!(decode([0, 0, 0, 0x22, 0, 0, 0, 0]), shared);
        let unknown = Frame { host: None, hyp: None, ..host_owned };
        assert_eq!(decode([0, 0, 0, 0x44, 0, 0, 0, 0]), unknown);
    }

    #[test]
    fn good_locked() {
        assert_eq!(invalid(0x1000_0000_0000_0000), InvalidKind::Locked { payload: 0 });
    }

    /// Type 0 with a payload is the annotation of older kernels: it must not look empty.
    #[test]
    fn good_unknown_is_kept() {
        assert_eq!(invalid(0x400), InvalidKind::Unknown { kind: 0, payload: 0x200 });
        assert_eq!(invalid(0xf << 60), InvalidKind::Unknown { kind: 15, payload: 0 });
    }

    /// The fields of an entry do not overlap, and those of an invalid one hold all of it but bit 0.
    #[test]
    fn good_fields_cover_an_invalid_entry() {
        for (kind, owner) in (0..16).flat_map(|kind| (0..8).map(move |owner| (kind, owner))) {
            let fields = decode(kind << 60 | owner << 1).fields;
            assert_eq!(fields.iter().fold(0, |all, field| all ^ field.mask()), !1, "type {kind}, owner {owner}");
            assert_eq!(fields.iter().map(|field| field.hi - field.lo + 1).sum::<u32>(), 63, "type {kind}");
        }
    }
}
