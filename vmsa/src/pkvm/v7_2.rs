// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! pKVM as of Linux 7.2: the state of a page in 56:55 of a leaf; invalid entries of the type in 63:60.
//!
//! "pKVM invalid pte encodings" of `asm/kvm_pgtable.h`, `enum pkvm_page_state` of `nvhe/memory.h`, `nvhe/mem_protect.c`.

use super::{Decoded, Field, InvalidKind, Meaning, OwnerId, PageState, Part};
use crate::bits;

const STATE: Field = Field { hi: 56, lo: 55, part: Part::PageState };
const TYPE: Field = Field { hi: 63, lo: 60, part: Part::InvalidType };
const OWNER: Field = Field { hi: 3, lo: 1, part: Part::Owner };
const METADATA: Field = Field { hi: 59, lo: 4, part: Part::Metadata };
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
        // Host tables. For a guest, the metadata are its handle (15:0) and the guest frame number above.
        2 => {
            let kind = InvalidKind::HostDonation { owner: OwnerId(OWNER.of(raw) as u8), metadata: METADATA.of(raw) };
            return Decoded { meaning: Meaning::Invalid(kind), fields: &[TYPE, METADATA, OWNER] };
        }
        // Guest tables.
        3 => InvalidKind::GuestPoisoned { payload },
        kind => InvalidKind::Unknown { kind: kind as u8, payload },
    };
    Decoded { meaning: Meaning::Invalid(kind), fields: &[TYPE, PAYLOAD] }
}

const fn state(raw: u64) -> PageState {
    match STATE.of(raw) {
        0b00 => PageState::Owned,
        0b01 => PageState::SharedOwned,
        0b10 => PageState::SharedBorrowed,
        _ => PageState::NoPage,
    }
}

impl Field {
    const fn of(self, raw: u64) -> u64 {
        bits(raw, self.hi, self.lo)
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
        let donated = InvalidKind::HostDonation { owner: OwnerId::HYP, metadata: 0 };
        assert_eq!(invalid(0x2000_0000_0000_0002), donated);
    }

    #[test]
    fn good_guest_owned() {
        let donated = InvalidKind::HostDonation { owner: OwnerId::GUEST, metadata: 0x80_1003 };
        assert_eq!(invalid(0x2000_0000_0801_0034), donated);
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
        for kind in 0..16 {
            let mask = |field: &Field| u64::MAX >> (63 - field.hi) & u64::MAX << field.lo;
            let fields = decode(kind << 60).fields;
            assert_eq!(fields.iter().fold(0, |all, field| all ^ mask(field)), !1, "type {kind}");
            assert_eq!(fields.iter().map(|field| field.hi - field.lo + 1).sum::<u32>(), 63, "type {kind}");
        }
    }
}
