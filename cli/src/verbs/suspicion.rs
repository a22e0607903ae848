// SPDX-License-Identifier: MIT OR Apache-2.0
//! What makes a table in an image of memory look wrong, and which option is then probably meant.
//!
//! Registers and options are typed by hand, and with wrong ones any memory reads as some table. A device and a capture tell
//! themselves how to decode their tables, so nothing is suspected of those.

use crate::leaf;
use crate::model::{Row, TableFacts};
use crate::registers::ImageTable;
use crate::source::ram::banks::Banks;
use s2dump_abi::slot::RecordKind;
use s2dump_vmsa::pkvm::{self, Decoded, InvalidKind, Known, Owner, PageState, KNOWN};
use s2dump_vmsa::{RawDescriptor, Regime};

/// Counts what looks wrong in the rows of an image.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Suspicion {
    /// Whether --encoding was given.
    says_encoding: bool,
    /// Entries that are mapped, or lead to a table that cannot be read.
    used: u64,
    /// Invalid entries that a known encoding explains, other than zeroes.
    explained: u64,
    /// Invalid entries with bits that no known kernel writes.
    unexplained: u64,
    /// Rows with page states or annotations of a known encoding.
    encoded: u64,
    /// The encoding of the first annotation.
    by_annotation: Option<&'static Known>,
    /// The encoding of the first page state. It is one of several: kernels have states in the same bits.
    by_state: Option<&'static Known>,
    /// Rows with bit 53, where it has no meaning without FEAT_XNX.
    bit_53: u64,
    /// From so many unexplained entries on the table is strange.
    many: u64,
}

/// From so many entries on it is no chance and no single damage. The README tells it.
const MANY: u64 = 8;

impl Suspicion {
    /// Suspects nothing yet; `says_encoding` if the user has said how invalid entries are encoded.
    pub(super) fn new(says_encoding: bool) -> Self {
        Self { says_encoding, many: MANY, ..Self::default() }
    }

    /// Suspects nothing yet of a walk, which sees one entry of what may be many.
    pub(super) fn of_walk(says_encoding: bool) -> Self {
        Self { many: 1, ..Self::new(says_encoding) }
    }

    /// Counts a row, or a step of a walk.
    pub(super) fn add(&mut self, row: &Row, table: &TableFacts) {
        if !table.is_image() || table.geometry.regime() != Regime::Stage2 {
            return;
        }
        if row.kind == RecordKind::INVALID {
            if row.raw == 0 {
                return;
            }
            match known(row.raw, |decoded| decoded.invalid().is_some_and(is_plausible)) {
                Some(encoding) => {
                    self.explained += row.count;
                    self.encoded += 1;
                    self.by_annotation.get_or_insert(encoding);
                }
                None => self.unexplained += row.count,
            }
            return;
        }
        self.used += row.count;
        let Some(leaf) = leaf::of_row(row, table) else { return };
        self.bit_53 += u64::from(leaf.other_bits() >> 53 & 1 == 1);
        if let Some(encoding) = known(row.raw, |decoded| decoded.page_state().is_some_and(|s| s != PageState::Owned)) {
            self.encoded += 1;
            self.by_state.get_or_insert(encoding);
        }
    }

    /// Returns whether most invalid entries that are not zero have bits that no known kernel writes.
    fn is_strange(&self) -> bool {
        self.unexplained >= self.many && self.unexplained > self.explained
    }

    /// Returns whether what was read is certainly no table of a guest: strange, and it maps nothing.
    pub(super) fn is_no_table(&self) -> bool {
        self.is_strange() && self.used == 0
    }

    /// Returns what to tell the user.
    pub(super) fn notes(&self) -> Vec<String> {
        let rows = |count: u64| if count == 1 { "1 row".into() } else { format!("{count} rows") };
        let strange = match self.unexplained {
            1 => "an invalid entry that no known kind explains: is this a table?".into(),
            count => format!("{count} invalid entries that no known kind explains: is this a table?"),
        };
        let bit_53 = format!("bit 53 is set in {}: FEAT_XNX? then --xnx", rows(self.bit_53));
        let encoded = format!(
            "software bits or invalid entries in {} look like pKVM's: --encoding {} tells what they say",
            rows(self.encoded),
            self.by_annotation.or(self.by_state).map_or("", |encoding| encoding.name)
        );
        // In what is no table, any bit may be set.
        let is_strange = self.is_strange();
        [
            (is_strange, strange),
            (!is_strange && self.bit_53 > 0, bit_53),
            (!is_strange && self.encoded > 0 && !self.says_encoding, encoded),
        ]
        .into_iter()
        .filter_map(|(holds, note)| holds.then_some(note))
        .collect()
    }
}

/// Returns the first known encoding by which `raw` says what `fits`.
fn known(raw: u64, fits: impl Fn(&Decoded) -> bool) -> Option<&'static Known> {
    KNOWN.iter().find(|known| fits(&pkvm::decode(known.encoding, RawDescriptor::from_bits(raw))))
}

/// Returns whether a kernel writes such an invalid entry: nearly any word reads as one of some kind.
fn is_plausible(kind: InvalidKind) -> bool {
    match kind {
        InvalidKind::Empty | InvalidKind::Unknown { .. } => false,
        InvalidKind::Locked { payload } | InvalidKind::GuestPoisoned { payload } => payload == 0,
        InvalidKind::MmioGuard => true,
        InvalidKind::HostDonation { owner } => match owner {
            Owner::Hyp | Owner::Guest { .. } | Owner::SomeGuest | Owner::Protected => true,
            Owner::Ffa | Owner::Unknown { .. } => false,
        },
    }
}

/// Says that the root of `table` maps nothing, if it has no entry but zeroes.
pub(super) fn zero_root(banks: &Banks, table: &ImageTable) -> Option<String> {
    let geometry = table.root.geometry();
    let bytes = usize::try_from(geometry.root_bytes()).ok()?;
    let mut root = vec![1; bytes];
    // What is not there or cannot be read is told by the walk.
    let is_read = banks.read(table.root.base().get(), &mut root).unwrap_or(false);
    let register = if geometry.regime() == Regime::Stage2 { "VTTBR" } else { "TTBR0" };
    (is_read && root.iter().all(|&byte| byte == 0)).then(|| format!("the root table is all zero: is {register} right?"))
}
