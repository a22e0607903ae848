// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! What pKVM says in the software bits of leaves and in invalid entries of stage-2 tables, and of EL2's own table.
//!
//! Kernels differ in that, and a table does not tell, so whoever reads one is told an [`Encoding`]. [`decode`] is the only
//! place that knows what an encoding means. Another kernel's takes a number and a line in [`KNOWN`], a file beside
//! `v7_2.rs` and an arm in `decode`. Of an encoding this version does not know, nothing is said: the descriptor stays raw.

mod android_6_12;
mod v7_2;

use crate::bits;
use crate::raw::RawDescriptor;

/// How a kernel uses software bits and invalid entries: an open enum, whose numbers are those of the ABI's slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Encoding(pub u16);

impl Encoding {
    /// No meaning known.
    pub const NONE: Self = Self(0);
    /// pKVM as of Linux 7.2.
    pub const PKVM_7_2: Self = Self(1);
    /// pKVM of Android's common kernel android16-6.12.
    pub const PKVM_ANDROID_6_12: Self = Self(2);

    /// Returns its name, or `None` if this version does not know it.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        KNOWN.iter().find(|known| known.encoding == self).map(|known| known.name)
    }

    /// Returns whether EL2's own leaves tell page states: whether [`decode_hyp`] says anything.
    #[must_use]
    pub const fn is_hyp_told(self) -> bool {
        matches!(self, Self::PKVM_ANDROID_6_12)
    }
}

/// An encoding, for a user who may name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its number.
    pub encoding: Encoding,
    /// What to call it.
    pub name: &'static str,
    /// What it says of software bits and invalid entries.
    pub about: &'static str,
}

/// The encodings that have a name: those [`decode`] knows, and none.
pub const KNOWN: [Known; 3] = [
    Known { encoding: Encoding::NONE, name: "none", about: "They have no known meaning" },
    Known { encoding: Encoding::PKVM_7_2, name: "pkvm-7.2", about: "As pKVM writes them since Linux 7.2" },
    Known {
        encoding: Encoding::PKVM_ANDROID_6_12,
        name: "pkvm-android-6.12",
        about: "As pKVM writes them in Android's common kernel android16-6.12",
    },
];

/// What a descriptor says, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// What it says.
    pub meaning: Meaning,
    /// Where in the descriptor: no two overlap. Software bits that are in none have no meaning.
    pub fields: &'static [Field],
}

impl Decoded {
    const UNKNOWN: Self = Self { meaning: Meaning::Unknown, fields: &[] };

    /// Returns the state of the pages that a leaf maps.
    #[must_use]
    pub const fn page_state(&self) -> Option<PageState> {
        match self.meaning {
            Meaning::Leaf(state) => Some(state),
            Meaning::Unknown | Meaning::Invalid(_) => None,
        }
    }

    /// Returns what an invalid entry stands for.
    #[must_use]
    pub const fn invalid(&self) -> Option<InvalidKind> {
        match self.meaning {
            Meaning::Invalid(kind) => Some(kind),
            Meaning::Unknown | Meaning::Leaf(_) => None,
        }
    }
}

/// What a descriptor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meaning {
    /// Nothing that this version knows.
    Unknown,
    /// Of a leaf: the state of its pages.
    Leaf(PageState),
    /// Of an invalid entry: what it stands for.
    Invalid(InvalidKind),
}

/// Bits of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    /// The highest.
    pub hi: u32,
    /// The lowest.
    pub lo: u32,
    /// What they hold.
    pub part: Part,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// A [`PageState`].
    PageState,
    /// Which [`InvalidKind`].
    InvalidType,
    /// An [`OwnerId`].
    Owner,
    /// The handle of the guest that owns the page.
    Handle,
    /// The guest frame number at which that guest has it: its input address, in pages.
    Gfn,
    /// What another owner left.
    Metadata,
    /// All else of an invalid entry.
    Payload,
}

/// Who owns a page and whether it is shared: `enum pkvm_page_state`. Kernels number them differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageState {
    /// Owned, exclusively.
    Owned,
    /// Owned and shared with another.
    SharedOwned,
    /// Another's, shared with this one.
    SharedBorrowed,
    /// No page. Not stored in guest tables.
    NoPage,
    /// Android: a device of the host's that may be the target of DMA, so that it changes hands no more.
    Tainted,
    /// Android, of frames: the host's, with the rights that a module at EL2 gave it.
    ModuleOwned,
    /// Android, of frames: no page of the host's, because a module at EL2 took it away.
    ModuleNoPage,
}

impl PageState {
    /// Returns whether whom it is about does not have the page.
    #[must_use]
    pub const fn is_no_page(self) -> bool {
        matches!(self, Self::NoPage | Self::ModuleNoPage)
    }
}

/// An owner of a donated page: `enum pkvm_component_id`. An open enum, whose numbers above 1 differ between kernels: those
/// here are Linux 7.2's.
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

/// Who owns a page that the host donated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The hypervisor.
    Hyp,
    /// A guest.
    Guest {
        /// Its pKVM handle.
        handle: u16,
        /// Where the guest has the page: its input address, in pages of the table's granule.
        gfn: u64,
    },
    /// A guest, and the entry does not tell which.
    SomeGuest,
    /// The secure world, by FF-A.
    Ffa,
    /// Nobody that has a table: a region that was taken from the host at boot, or by a module at EL2.
    Protected,
    /// A component this version does not know, or one that it knows with metadata it does not know.
    Unknown {
        /// Which.
        id: OwnerId,
        /// What it left there.
        metadata: u64,
    },
}

/// What an invalid entry stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InvalidKind {
    /// All zero: nothing here.
    Empty,
    /// The entry is being replaced (break-before-make). Never seen under the table's lock.
    Locked {
        /// The rest of it.
        payload: u64,
    },
    /// Host tables: donated to another component.
    HostDonation {
        /// To whom.
        owner: Owner,
    },
    /// Guest tables: the guest said that a device is there, so its accesses are passed on to the host.
    MmioGuard,
    /// Guest tables: taken back by force; a guest access ends the VM.
    GuestPoisoned {
        /// The rest of it, zero so far.
        payload: u64,
    },
    /// Of a type this encoding does not have.
    Unknown {
        /// The type.
        kind: u8,
        /// The rest of it.
        payload: u64,
    },
}

/// Returns what `raw` says in a kernel that uses `encoding`. It is a leaf or an invalid entry of a stage-2 table: of table
/// descriptors no kernel uses the bits.
#[must_use]
pub const fn decode(encoding: Encoding, raw: RawDescriptor) -> Decoded {
    match encoding {
        Encoding::PKVM_7_2 => v7_2::decode(raw.to_bits()),
        Encoding::PKVM_ANDROID_6_12 => android_6_12::decode(raw.to_bits()),
        _ => Decoded::UNKNOWN,
    }
}

/// Returns what `raw` says in EL2's own stage 1, in a kernel that uses `encoding`. It is a leaf or an invalid entry.
#[must_use]
pub const fn decode_hyp(encoding: Encoding, raw: RawDescriptor) -> Decoded {
    match encoding {
        Encoding::PKVM_ANDROID_6_12 => android_6_12::decode_hyp(raw.to_bits()),
        // Mainline keeps EL2's states with the page frames.
        _ => Decoded::UNKNOWN,
    }
}

/// What pKVM keeps about a page frame outside of all tables: `struct hyp_page`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The state in which the host has the frame; `None` for a value this version does not know.
    pub host: Option<PageState>,
    /// The state in which the hypervisor has it; `None` for a value this version does not know, or if it is not kept here.
    pub hyp: Option<PageState>,
    /// Whether the hypervisor's state is kept here. Else it is in EL2's own leaves, which [`decode_hyp`] reads.
    pub is_hyp_kept: bool,
    /// References: of pins if the frame is shared with the hypervisor, else of whatever pool it is in.
    pub refcount: u16,
    /// Its order in the hypervisor's page allocator, as a power of two.
    pub order: u8,
    /// How many ordinary guests' leaves the host has lent it to.
    pub share_count: u32,
}

/// Returns what `raw`, the 64 bits kept about a page frame, says in a kernel that uses `encoding`; `None` if this version does
/// not know that.
#[must_use]
pub const fn decode_frame(encoding: Encoding, raw: u64) -> Option<Frame> {
    match encoding {
        Encoding::PKVM_7_2 => Some(v7_2::decode_frame(raw)),
        Encoding::PKVM_ANDROID_6_12 => Some(android_6_12::decode_frame(raw)),
        _ => None,
    }
}

impl Field {
    const fn of(self, raw: u64) -> u64 {
        bits(raw, self.hi, self.lo)
    }

    /// Returns its bits, in place.
    #[must_use]
    pub const fn mask(self) -> u64 {
        u64::MAX >> (63 - self.hi) & u64::MAX << self.lo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is in it: without an encoding that is known, it says nothing.
    #[test]
    fn good_unknown_encodings_say_nothing() {
        for encoding in [0, 3, 4, u16::MAX].map(Encoding) {
            for raw in [0, 0b11, 1 << 55 | 0b11, 3 << 60, 0x400, u64::MAX, u64::MAX - 1] {
                let decoded = decode(encoding, RawDescriptor::from_bits(raw));
                assert_eq!(decoded, Decoded { meaning: Meaning::Unknown, fields: &[] }, "{encoding:?} {raw:#x}");
                assert_eq!((decoded.page_state(), decoded.invalid()), (None, None));
                assert_eq!(decode_hyp(encoding, RawDescriptor::from_bits(raw)), decoded);
                assert_eq!(decode_frame(encoding, raw), None);
            }
        }
    }

    #[test]
    fn good_names() {
        assert_eq!(Encoding::NONE.name(), Some("none"));
        assert_eq!(Encoding::PKVM_7_2.name(), Some("pkvm-7.2"));
        assert_eq!(Encoding::PKVM_ANDROID_6_12.name(), Some("pkvm-android-6.12"));
        assert_eq!(Encoding(3).name(), None);
        let told = [Encoding::NONE, Encoding::PKVM_7_2, Encoding::PKVM_ANDROID_6_12].map(Encoding::is_hyp_told);
        assert_eq!(told, [false, false, true]);
    }
}
