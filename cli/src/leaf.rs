// SPDX-License-Identifier: MIT OR Apache-2.0
//! The leaf of a row, of either stage: what all formats ask of it, in words. `s2dump-vmsa` does the decoding.

use crate::model::{Row, TableFacts};
use crate::words::{self, Word};
use s2dump_abi::slot::RecordKind;
use s2dump_abi::target::Target;
use s2dump_vmsa::attrs::{MemAttr, Shareability};
use s2dump_vmsa::el2::El2Leaf;
use s2dump_vmsa::fault::{Access, Fault, Privilege, Rights};
use s2dump_vmsa::pkvm::PageState;
use s2dump_vmsa::stage2::{Permissions, Stage2Leaf};
use s2dump_vmsa::{Descriptor, Leaf, PhysAddr, RawDescriptor, Regime, TableAttrs};
use std::ops::Deref;

/// A leaf; it derefs to what both stages have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AnyLeaf<'t> {
    /// Of a stage-2 table.
    Stage2(Stage2Leaf<'t>),
    /// Of EL2's stage 1.
    El2(El2Leaf<'t>, Regime),
}

impl<'t> Deref for AnyLeaf<'t> {
    type Target = Leaf<'t>;

    fn deref(&self) -> &Leaf<'t> {
        match self {
            Self::Stage2(leaf) => leaf,
            Self::El2(leaf, _) => leaf,
        }
    }
}

/// Returns the leaf a row is made of, if it is.
pub(crate) fn of_row<'t>(row: &Row, table: &'t TableFacts) -> Option<AnyLeaf<'t>> {
    match RawDescriptor::from_bits(row.raw).view(row.level, &table.geometry) {
        Descriptor::Block(leaf) | Descriptor::Page(leaf) if row.kind == RecordKind::LEAF => {
            of_leaf(leaf, row.inherited, table.geometry.regime())
        }
        _ => None,
    }
}

/// Returns the leaf of `regime`, which is that of its table, below tables that say `inherited`.
pub(crate) fn of_leaf(leaf: Leaf<'_>, inherited: TableAttrs, regime: Regime) -> Option<AnyLeaf<'_>> {
    leaf.stage2().map(AnyLeaf::Stage2).or_else(|| Some(AnyLeaf::El2(leaf.el2(inherited)?, regime)))
}

/// Returns the fault that the entries of a row end every access with, as far as the row tells: of one whose output
/// addresses jump, that of its first entry.
pub(crate) fn fault_of_row(row: &Row, table: &TableFacts) -> Option<Fault> {
    let is_beyond = |oa: u64| !PhysAddr::new(oa).fits(table.geometry.pa_bits().into());
    match row.kind {
        RecordKind::INVALID | RecordKind::RESERVED => Some(Fault::Translation),
        RecordKind::LEAF | RecordKind::TABLE_OUTSIDE if row.oa.is_some_and(is_beyond) => Some(Fault::AddressSize),
        _ => of_row(row, table)?.fault().filter(|&fault| fault != Fault::AddressSize),
    }
}

impl AnyLeaf<'_> {
    /// Returns the fault every access ends with, whatever the rights.
    pub(crate) fn fault(&self) -> Option<Fault> {
        // The kind of access only matters for rights, which are judged last and left out here.
        let fault = match self {
            Self::Stage2(leaf) => leaf.fault(Access::Read, Privilege::Privileged, 0),
            Self::El2(leaf, _) => leaf.fault(Access::Read, Privilege::Privileged, false),
        };
        fault.filter(|&fault| fault != Fault::Permission)
    }

    /// Returns the rights in three letters; execution is `x` for EL1 and EL0, `p` for EL1 only, `u` for EL0 only. Where
    /// they are an index into S2PIR_EL2, `pi` and the index. At EL2's stage 1 those of EL2 and, with E2H, of EL0.
    /// Unlike those of stage 2, these are what is in force: tables above, dirty state and WXN are counted in.
    pub(crate) fn rwx(&self, table: &TableFacts) -> Word {
        let (ap, xn) = match self {
            Self::Stage2(leaf) => match leaf.permissions() {
                Permissions::Direct { ap, xn } => (ap, xn),
                Permissions::Indirect { pi_index, .. } => return format!("pi{pi_index}").into(),
            },
            Self::El2(leaf, regime) => {
                let el2 = letters(leaf.rights(Privilege::Privileged, table.wxn));
                return match regime {
                    Regime::El2And0 => {
                        format!("{el2}/{}", letters(leaf.rights(Privilege::Unprivileged, table.wxn))).into()
                    }
                    _ => el2.into(),
                };
            }
        };
        let execute = match (xn.el1_can_execute(), xn.el0_can_execute()) {
            (true, true) => 'x',
            (true, false) => 'p',
            (false, true) => 'u',
            (false, false) => '-',
        };
        let letters = [if ap.is_readable() { 'r' } else { '-' }, if ap.is_writable() { 'w' } else { '-' }, execute];
        letters.iter().collect::<String>().into()
    }

    /// Returns the memory type. At stage 1 a byte of MAIR_EL2 tells it; without that register, or if it is reserved, which.
    pub(crate) fn memory(&self, table: &TableFacts) -> Word {
        match self {
            Self::Stage2(leaf) => words::memory(leaf.mem_attr()),
            Self::El2(leaf, _) => {
                let index = leaf.attr_index();
                let byte = table.mair.and_then(|mair| mair.to_le_bytes().get(usize::from(index)).copied());
                match byte.map(|byte| (byte, MemAttr::from_mair(byte))) {
                    Some((_, Some(attr))) => words::memory(attr),
                    Some((byte, None)) => format!("attr{index}={byte:#04x}?").into(),
                    None => format!("attr{index}").into(),
                }
            }
        }
    }

    /// Returns the shareability.
    pub(crate) fn shareability(&self) -> Shareability {
        match self {
            Self::Stage2(leaf) => leaf.shareability(),
            Self::El2(leaf, _) => leaf.shareability(),
        }
    }

    /// Returns pKVM's page state, if software bits of the table have such a meaning.
    pub(crate) fn page_state(&self, table: &TableFacts) -> Option<&'static str> {
        let state = table.decode_software(self.raw().to_bits()).page_state();
        match self {
            // What the host has of memory is kept with the page frame: the software bits of its leaves are unused. Only that
            // a device is tainted is told there.
            Self::Stage2(_) if table.target == Target::HOST => state.filter(|&state| state == PageState::Tainted),
            Self::Stage2(_) => state,
            // Zero says that EL2 owns the page only in its linear map, and is everywhere else too.
            Self::El2(..) => state.filter(|&state| state != PageState::Owned),
        }
        .map(words::page_state_of)
    }

    /// Returns the bits that nothing shows.
    pub(crate) fn other_bits(&self) -> u64 {
        match self {
            Self::Stage2(leaf) => leaf.other_bits(),
            Self::El2(leaf, _) => leaf.other_bits(),
        }
    }

    /// Returns what fields of extensions say, if one of them is set; at stage 1 also what the tables above say.
    pub(crate) fn extensions(&self) -> Option<String> {
        let mut words: Vec<Word> = Vec::new();
        let mut flag = |is_set: bool, name: &'static str| words.extend(is_set.then_some(Word::from(name)));
        flag(self.no_translation(), "nt");
        let po_index = match self {
            Self::Stage2(leaf) => {
                flag(leaf.fnxs(), "fnxs");
                flag(leaf.assured_only(), "assured");
                flag(matches!(leaf.permissions(), Permissions::Indirect { dirty: true, .. }), "dirty");
                leaf.po_index()
            }
            Self::El2(leaf, regime) => {
                flag(leaf.is_non_secure(), "ns");
                flag(leaf.is_not_global(), "ng");
                flag(leaf.is_guarded(), "gp");
                words.extend(words::table_attrs(leaf.inherited(), *regime));
                None
            }
        };
        match (po_index, self.pbha()) {
            (Some(0), _) | (None, 0) => {}
            (Some(index), _) => words.push(format!("po{index}").into()),
            (None, pbha) => words.push(format!("pbha={pbha:#06b}").into()),
        }
        (!words.is_empty()).then(|| words.join(","))
    }
}

fn letters(rights: Rights) -> String {
    let letter = |is_allowed, letter| if is_allowed { letter } else { '-' };
    [letter(rights.read, 'r'), letter(rights.write, 'w'), letter(rights.execute, 'x')].iter().collect()
}
