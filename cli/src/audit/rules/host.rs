// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's stage 2: a lazy identity map with default rights, and annotations where a page is not the host's.

use super::{Need, On, Rule, Scope, MAINLINE, PKVM};
use crate::audit::sight::{invalid_of, leaf_of, rights, Sight};
use crate::leaf::AnyLeaf;
use crate::model::Row;
use s2dump_abi::slot::RecordKind;
use s2dump_abi::target::Target;
use s2dump_vmsa::attrs::{Cacheability, MemAttr};
use s2dump_vmsa::pkvm::{InvalidKind, Owner};

pub(super) static IDENTITY: Rule = Rule {
    id: "host-identity",
    meaning: "the host's table maps each address to itself",
    broken: "the host reaches another page than the one whose state pKVM checks",
    on: &[On::Host],
    needs: &[Need::Host],
    scope: Scope::Any,
    yields_to: &[],
    check: |sight, _| {
        let (row, oa) = leaf(sight)?;
        let expected = sight.pa;
        let found = oa.wrapping_add(expected.wrapping_sub(row.ia));
        (found != expected).then(|| format!("the host's {expected:#x} is mapped to {found:#x}"))
    },
};

pub(super) static RIGHTS: Rule = Rule {
    id: "host-rights",
    meaning: "the host has memory rwx and devices rw, and stage 1 chooses the memory type",
    broken:
        "the entry was not made by pKVM's rule for the host: rights are lost when it is mapped anew, or were never due",
    on: &[On::Host],
    needs: &[Need::Host, Need::Memory],
    scope: MAINLINE,
    yields_to: &["host-border", "host-identity"],
    check: |sight, machine| {
        let (row, _) = leaf(sight)?;
        if machine.known.is_text(sight.pa) {
            return None;
        }
        let any = leaf_of(machine, Target::HOST, row)?;
        let is_memory = machine.known.region(sight.pa).is_some();
        let rights = rights(&any)?;
        let (expected, kind) =
            if is_memory { ((true, true, true), "memory") } else { ((true, true, false), "a device") };
        let table = &machine.tree(Target::HOST)?.table;
        if rights != expected {
            return Some(format!("{kind} is mapped {}", any.rwx(table)));
        }
        (!is_as_stage1(&any)).then(|| format!("{kind} is mapped with memory type {}", any.memory(table)))
    },
};

pub(super) static BORDER: Rule = Rule {
    id: "host-border",
    meaning: "a block of the host's table lies within one region of memory, or in none",
    broken: "memory and devices share one entry, so one of them has rights that it must not have",
    on: &[On::Host],
    needs: &[Need::Host, Need::Memory],
    scope: MAINLINE,
    yields_to: &[],
    check: |sight, machine| {
        let (row, _) = leaf(sight)?;
        let begins = sight.pa & !((1 << row.entry_shift) - 1);
        let border = machine.known.stretch(sight.pa).start;
        (begins < border)
            .then(|| format!("the entry from {begins:#x} on goes across the border of memory at {border:#x}"))
    },
};

pub(super) static ANNOTATION_MEMORY: Rule = Rule {
    id: "host-annotation-memory",
    meaning: "annotations of the host's table are on pages of memory",
    broken: "pKVM gives away memory only: the entry was not made by it, and the host cannot reach what is there",
    on: &[On::Host],
    needs: &[Need::Host, Need::Memory],
    scope: MAINLINE,
    yields_to: &[],
    check: |sight, machine| {
        let row = annotation(sight)?;
        match machine.known.region(sight.pa) {
            _ if matches!(invalid_of(machine, Target::HOST, row), Some(InvalidKind::Locked { .. })) => None,
            None => Some("an annotation where no memory is".into()),
            Some(region) if region.is_nomap => Some("an annotation on memory for which pKVM keeps no state".into()),
            Some(_) if !row.level.is_last() => Some(format!("an annotation at level {}", row.level.get())),
            Some(_) => None,
        }
    },
};

pub(super) static ANNOTATION_OWNER: Rule = Rule {
    id: "host-annotation-owner",
    meaning: "annotations of the host's table name the hypervisor, a guest, or (Android) a protected region",
    broken: "nobody that pKVM knows owns the page, so nobody can give it back",
    on: &[On::Host],
    needs: &[Need::Host],
    scope: PKVM,
    yields_to: &["host-annotation-memory"],
    check: |sight, machine| {
        let row = annotation(sight)?;
        match invalid_of(machine, Target::HOST, row)? {
            InvalidKind::Empty | InvalidKind::Locked { .. } => None,
            InvalidKind::HostDonation { owner } => match owner {
                Owner::Hyp | Owner::Guest { .. } | Owner::SomeGuest | Owner::Protected => None,
                Owner::Ffa => Some("donated to the secure world, which never has a page by this table".into()),
                Owner::Unknown { id, metadata } => {
                    Some(format!("donated to component {} with metadata {metadata:#x}", id.0))
                }
            },
            InvalidKind::MmioGuard => Some("an MMIO guard, which only a guest's table can have".into()),
            InvalidKind::GuestPoisoned { .. } => Some("poisoned, which only a guest's page can be".into()),
            InvalidKind::Unknown { kind, payload } => {
                Some(format!("an annotation of type {kind}, payload {payload:#x}"))
            }
        }
    },
};

pub(super) static TEXT_READ_ONLY: Rule = Rule {
    id: "hyp-text-read-only",
    meaning: "the host may at most read EL2's code",
    broken: "the host can change, or can come to change, what runs at EL2",
    on: &[On::Host],
    needs: &[Need::Host, Need::Text],
    scope: PKVM,
    yields_to: &[],
    check: |sight, machine| {
        if !machine.known.is_text(sight.pa) {
            return None;
        }
        let row = sight.host.as_ref()?;
        if row.is_hole() {
            return Some("the host has a hole there: its first access makes it a page with all rights".into());
        }
        let any = leaf_of(machine, Target::HOST, row)?;
        let (_, write, execute) = rights(&any)?;
        let table = &machine.tree(Target::HOST)?.table;
        (write || execute).then(|| format!("the host has it {}", any.rwx(table)))
    },
};

/// Returns the host's entry and its output address, if it is a leaf.
fn leaf(sight: &Sight) -> Option<(&Row, u64)> {
    let row = sight.host.as_ref().filter(|row| row.kind == RecordKind::LEAF)?;
    Some((row, row.oa?))
}

/// Returns the host's entry, if it is invalid and not zero.
fn annotation(sight: &Sight) -> Option<&Row> {
    sight.host.as_ref().filter(|row| row.kind == RecordKind::INVALID && row.raw != 0)
}

fn is_as_stage1(leaf: &AnyLeaf<'_>) -> bool {
    use Cacheability::WriteBack;
    let AnyLeaf::Stage2(leaf) = leaf else { return false };
    matches!(leaf.mem_attr(), MemAttr::AsStage1 | MemAttr::Normal { outer: WriteBack, inner: WriteBack })
}
