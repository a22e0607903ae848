// SPDX-License-Identifier: MIT OR Apache-2.0
//! EL2's own stage 1. Slots through which it looks at any page for a moment are judged by no rule.

use super::{Need, On, Rule, MAINLINE};
use crate::audit::sight::{leaf_of, Sight};
use crate::leaf::AnyLeaf;
use crate::machine::Machine;
use crate::model::Row;
use s2dump_abi::slot::RecordKind;
use s2dump_abi::target::Target;
use s2dump_vmsa::fault::{Privilege, Rights};
use s2dump_vmsa::pkvm::PageState;

pub(super) static WRITE_EXECUTE: Rule = Rule {
    id: "hyp-write-execute",
    meaning: "EL2 has no page that it may write and execute",
    broken: "a stray write at EL2 can become code that runs there",
    on: &[On::Hyp],
    needs: &[Need::Hyp],
    // Other kernels may leave it to SCTLR_EL2.WXN, which nobody tells: Android's 6.12 does where it is hVHE.
    scope: MAINLINE,
    yields_to: &[],
    check: |sight, machine| {
        let (row, rights) = el2_leaf(sight, machine)?;
        (rights.write && rights.execute).then(|| format!("EL2 may write and execute {:#x}", row.ia))
    },
};

pub(super) static MAPPING: Rule = Rule {
    id: "hyp-mapping",
    meaning: "EL2 maps memory only that it owns, or that is shared with it and pinned",
    broken: "EL2 works on memory that somebody else may change or give away",
    on: &[On::Hyp],
    needs: &[Need::Hyp, Need::Frames],
    scope: MAINLINE,
    yields_to: &["guest-exclusive", "frame-hyp-owned", "frame-shares"],
    check: |sight, machine| {
        let (row, rights) = el2_leaf(sight, machine)?;
        // The code that turns translation on and off is the kernel's, and has the same address on both sides.
        if rights.execute && !rights.write && row.oa == Some(row.ia) {
            return None;
        }
        let frame = sight.frame(machine)?;
        match frame.hyp {
            Some(PageState::Owned | PageState::SharedOwned) => None,
            Some(PageState::SharedBorrowed) if frame.refcount > 0 => None,
            Some(PageState::SharedBorrowed) => Some("EL2 maps it, and it is shared with EL2, but not pinned".into()),
            _ => Some("EL2 maps it, and it is not EL2's".into()),
        }
    },
};

/// Returns EL2's entry and its rights at EL2, if it is a leaf.
pub(super) fn el2_leaf<'s>(sight: &'s Sight, machine: &Machine) -> Option<(&'s Row, Rights)> {
    let (target, row) = sight.entry()?;
    if target != Target::HYP || row.kind != RecordKind::LEAF {
        return None;
    }
    match leaf_of(machine, target, row)? {
        AnyLeaf::El2(leaf, _) => Some((row, leaf.rights(Privilege::Privileged, machine.tree(target)?.table.wxn))),
        AnyLeaf::Stage2(_) => None,
    }
}
