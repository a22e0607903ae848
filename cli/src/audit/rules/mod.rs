// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rules. Each has an id that does not change, and is one small function of what it looks at.

mod entries;
mod frames;
mod guests;
mod host;
mod hyp;
mod tables;
mod vms;

use super::sight::Sight;
use crate::machine::Machine;
use s2dump_abi::target::Target;
use s2dump_vmsa::pkvm::Encoding;

/// A rule.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Its name, which does not change.
    pub(crate) id: &'static str,
    /// What holds on a machine that is right, in a line.
    pub(crate) meaning: &'static str,
    /// What it means if it does not hold.
    pub(crate) broken: &'static str,
    /// What it looks at.
    pub(crate) on: &'static [On],
    /// What must have been read.
    pub(crate) needs: &'static [Need],
    /// For which kernels it holds.
    pub(crate) scope: Scope,
    /// Rules whose findings about the same page say more.
    pub(crate) yields_to: &'static [&'static str],
    /// Returns what is wrong, if anything is.
    pub(crate) check: fn(&Sight, &Machine) -> Option<String>,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Rule {}

/// What a rule looks at, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// Entries of the host, with their frames: leaves, annotations, and holes where the frame is not the host's.
    Host,
    /// The first place is an annotation's: the owner's own entry.
    Donation,
    /// The first place is a leaf of a guest.
    Guest,
    /// The first place is a leaf of EL2, no slot for any page.
    Hyp,
    /// The first place is where EL2 would have a page that the host shares with it.
    Shared,
    /// The first place is an entry of any tree that is no leaf and no hole.
    Odd,
    /// The first place is a table page; or there is none, and it is the root of a VM whose table was not read.
    Table,
    /// Two places that have the same frame, of which one is a protected guest's or a table page.
    Pair,
    /// A frame and how many guests map it. That is not seen at one moment.
    Count,
    /// A VM of the list.
    Vm,
}

/// What a rule needs to have been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The list of VMs.
    List,
    /// The host's tree.
    Host,
    /// EL2's tree, and which of its entries are slots for any page.
    Hyp,
    /// States of page frames.
    Frames,
    /// Which addresses are memory.
    Memory,
    /// Where EL2's code is.
    Text,
    /// Where EL2's linear map is.
    Linear,
    /// Table pages.
    Tables,
}

impl Need {
    /// Returns whether `machine` has it.
    pub(crate) fn is_met(self, machine: &Machine) -> bool {
        let has = |target| machine.tree(target).is_some_and(|tree| tree.is_complete && tree.is_exact);
        match self {
            Self::List => machine.is_listed,
            Self::Host => has(Target::HOST),
            Self::Hyp => has(Target::HYP) && machine.known.has_slots(),
            Self::Frames => machine.frames.is_complete,
            Self::Memory => !machine.known.memory.is_empty(),
            Self::Text => !machine.known.text.is_empty(),
            Self::Linear => machine.known.linear.is_some(),
            Self::Tables => !machine.trees.is_empty() && machine.trees.iter().all(|tree| tree.has_tables()),
        }
    }

    /// Says it for people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::List => "the list of VMs",
            Self::Host => "the host's table",
            Self::Hyp => "EL2's table (boot with kvm-arm.s2dump=on,hyp)",
            Self::Frames => "the states of page frames",
            Self::Memory => "the regions of memory",
            Self::Text => "where EL2's code is",
            Self::Linear => "where EL2's linear map is (boot with kvm-arm.s2dump=on,hyp)",
            Self::Tables => "table pages",
        }
    }
}

/// For which kernels a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Whatever software bits say.
    Any,
    /// For those that use them so.
    Encodings(&'static [Encoding]),
}

/// Mainline's pKVM: both states of frames beside the tables, annotations with handle and guest address.
const MAINLINE: Scope = Scope::Encodings(&[Encoding::PKVM_7_2]);

/// Every pKVM that is known.
const PKVM: Scope = Scope::Encodings(&[Encoding::PKVM_7_2, Encoding::PKVM_ANDROID_6_12]);

/// All rules, in the order in which findings are told.
pub(crate) static RULES: &[&Rule] = &[
    &host::IDENTITY,
    &host::RIGHTS,
    &host::BORDER,
    &host::ANNOTATION_MEMORY,
    &host::ANNOTATION_OWNER,
    &host::TEXT_READ_ONLY,
    &guests::EXCLUSIVE,
    &guests::OWNED_DONATED,
    &guests::DONATION_BACKED,
    &guests::PROTECTED_LEAF,
    &guests::ORDINARY_STATE,
    &guests::ORDINARY_DONATED,
    &guests::MEMORY,
    &guests::POISON,
    &tables::OWNED,
    &tables::ONCE,
    &tables::IN_GUEST,
    &hyp::WRITE_EXECUTE,
    &hyp::MAPPING,
    &frames::DONATED,
    &frames::HYP_OWNED,
    &frames::SHARES,
    &frames::PINNED,
    &frames::BORROWED,
    &frames::LENT,
    &frames::SHARE_COUNT,
    &frames::LENDER,
    &entries::LOCKED,
    &entries::RESERVED,
    &entries::OUTSIDE,
    &vms::VMID,
    &vms::UNIQUE,
];

/// Returns the place of `rule` among all.
pub(super) fn place(rule: &Rule) -> Option<usize> {
    RULES.iter().position(|known| *known == rule)
}

/// Returns the rule with `id`.
pub(crate) fn find(id: &str) -> Option<&'static Rule> {
    RULES.iter().copied().find(|rule| rule.id == id)
}
