// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests: what a protected guest owns is nobody else's, and an ordinary guest has what the host lends it.

use super::{Need, On, Rule, MAINLINE, PKVM};
use crate::audit::sight::{
    invalid_of, leaf_of, ordinary_state, owner_of, owner_words, protected_state, rights, state_of, Held, What,
};
use crate::model::target_name;
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::RecordKind;
use s2dump_abi::target::Target;
use s2dump_vmsa::pkvm::{InvalidKind, Owner, PageState};

pub(super) static EXCLUSIVE: Rule = Rule {
    id: "guest-exclusive",
    meaning: "a page that a protected guest owns is mapped nowhere else: host, EL2, other guest, other address",
    broken: "somebody else can read or change a protected guest's memory",
    on: &[On::Guest, On::Pair],
    needs: &[Need::Host, Need::List],
    scope: PKVM,
    yields_to: &["table-in-guest"],
    check: |sight, machine| {
        let (target, row) = sight.entry()?;
        let state = protected_state(machine, target, row)?;
        if let Some(second) = &sight.second {
            let (other, row) = second.entry()?;
            // Where EL2's entries tell states, a guest can share a page with EL2.
            let is_lent = state == PageState::SharedOwned
                && other == Target::HYP
                && state_of(machine, other, row) == Some(PageState::SharedBorrowed);
            return (row.kind == RecordKind::LEAF && !is_lent).then(|| match other {
                Target::HYP => format!("EL2 maps it too, at {:#x}", second.ia),
                _ => format!("{} maps it too, at {:#x}", target_name(other), second.ia),
            });
        }
        let is_mapped = sight.host.as_ref().is_some_and(|row| row.kind == RecordKind::LEAF);
        (state == PageState::Owned && is_mapped).then(|| "the host maps it too".into())
    },
};

pub(super) static OWNED_DONATED: Rule = Rule {
    id: "owned-donated",
    meaning: "a page that a protected guest owns is donated to it, at the same address",
    broken: "the host's table does not guard the page: a host access may map it",
    on: &[On::Guest],
    needs: &[Need::Host, Need::List],
    scope: MAINLINE,
    yields_to: &["guest-exclusive", "table-in-guest", "host-annotation-owner", "guest-memory"],
    check: |sight, machine| {
        let (target, row) = sight.entry()?;
        let host = sight.host.as_ref()?;
        if protected_state(machine, target, row)? != PageState::Owned {
            return None;
        }
        let gfn = row.ia >> machine.page_shift();
        let is_right = match owner_of(machine, host) {
            Some(Owner::Guest { handle, gfn: at }) => Some(handle) == target.guest_handle() && at == gfn,
            _ => false,
        };
        (!is_right).then(|| format!("in the host's table it is {}", owner_words(sight, machine)))
    },
};

pub(super) static DONATION_BACKED: Rule = Rule {
    id: "donation-backed",
    meaning: "the guest that an annotation of the host names owns the page, at the address it names",
    broken: "the page is lost: the host may not have it, and the guest does not",
    on: &[On::Donation],
    needs: &[Need::Host, Need::List],
    scope: MAINLINE,
    yields_to: &["host-annotation-memory"],
    check: |sight, machine| {
        let Owner::Guest { handle, gfn } = owner_of(machine, sight.host.as_ref()?)? else { return None };
        let held = sight.first.as_ref()?;
        // The host's entry may name another place by now.
        if (Some(handle), gfn << machine.page_shift()) != (held.target.guest_handle(), held.ia) {
            return None;
        }
        let row = match &held.what {
            What::Entry(row) => row,
            What::Gone(Status::NO_SUCH_VM) => return Some(format!("there is no vm:{handle:#x}")),
            What::Gone(status) => {
                return Some(format!("the table of vm:{handle:#x} was not read (status {})", status.0))
            }
            What::Table(_) => return None,
        };
        let name = target_name(held.target);
        if !machine.is_protected(held.target) {
            return Some(format!("{name} is no protected guest"));
        }
        match state_of(machine, held.target, row) {
            Some(PageState::Owned) if output(held) == Some(sight.pa) => None,
            Some(PageState::Owned) => Some(format!("{name} has another page at {:#x}", held.ia)),
            Some(_) => Some(format!("{name} has it at {:#x} in a state that is not owned", held.ia)),
            None => Some(format!("{name} has no page at {:#x}", held.ia)),
        }
    },
};

pub(super) static PROTECTED_LEAF: Rule = Rule {
    id: "protected-leaf",
    meaning: "leaves of protected guests are pages, rwx, owned or shared-owned",
    broken: "the entry was not made by pKVM's rule for protected guests",
    on: &[On::Guest],
    needs: &[Need::List],
    scope: MAINLINE,
    yields_to: &[],
    check: |sight, machine| {
        let (target, row) = sight.entry()?;
        let state = protected_state(machine, target, row)?;
        let leaf = leaf_of(machine, target, row)?;
        if !row.level.is_last() {
            return Some(format!("a block at level {}", row.level.get()));
        }
        if rights(&leaf)? != (true, true, true) {
            return Some(format!("its rights are {}", leaf.rwx(&machine.tree(target)?.table)));
        }
        let is_right = matches!(state, PageState::Owned | PageState::SharedOwned);
        (!is_right).then(|| format!("its state is {}", crate::words::page_state_of(state)))
    },
};

pub(super) static ORDINARY_STATE: Rule = Rule {
    id: "ordinary-borrowed",
    meaning: "leaves of ordinary guests are shared-borrowed",
    broken: "pKVM takes the page for the guest's own, though the host lends it",
    on: &[On::Guest],
    needs: &[Need::List],
    scope: PKVM,
    yields_to: &[],
    check: |sight, machine| {
        let (target, row) = sight.entry()?;
        let state = ordinary_state(machine, target, row)?;
        (state != PageState::SharedBorrowed).then(|| format!("its state is {}", crate::words::page_state_of(state)))
    },
};

pub(super) static ORDINARY_DONATED: Rule = Rule {
    id: "ordinary-donated",
    meaning: "ordinary guests map no page that the host donated",
    broken: "an ordinary guest, and with it the host, reaches a page that belongs to EL2 or to a protected guest",
    on: &[On::Guest],
    needs: &[Need::Host, Need::List],
    scope: PKVM,
    yields_to: &["guest-exclusive", "table-in-guest"],
    check: |sight, machine| {
        let (target, row) = sight.entry()?;
        ordinary_state(machine, target, row)?;
        owner_of(machine, sight.host.as_ref()?)?;
        Some(format!("in the host's table it is {}", owner_words(sight, machine)))
    },
};

pub(super) static MEMORY: Rule = Rule {
    id: "guest-memory",
    meaning: "guests map memory only, of which pKVM keeps states",
    broken: "a guest reaches a device, or memory that pKVM does not guard",
    on: &[On::Guest],
    needs: &[Need::Memory, Need::List],
    scope: MAINLINE,
    yields_to: &[],
    check: |sight, machine| {
        let (_, row) = sight.entry()?;
        match machine.known.region(sight.pa) {
            _ if row.kind != RecordKind::LEAF => None,
            None => Some(format!("{:#x} is no memory", sight.pa)),
            Some(region) if region.is_nomap => Some(format!("pKVM keeps no state for {:#x}", sight.pa)),
            Some(_) => None,
        }
    },
};

pub(super) static POISON: Rule = Rule {
    id: "guest-poison",
    meaning: "invalid entries of guests are holes, or poisoned pages or (Android) MMIO guards of protected guests",
    broken: "the entry was not made by pKVM, or a page was taken from a guest that does not own any",
    on: &[On::Odd],
    needs: &[Need::List],
    scope: PKVM,
    yields_to: &[],
    check: |sight, machine| {
        let (target, row) = sight.entry()?;
        target.guest_handle()?;
        match invalid_of(machine, target, row)? {
            InvalidKind::Empty | InvalidKind::Locked { .. } => None,
            InvalidKind::GuestPoisoned { .. } if !machine.is_protected(target) => {
                Some("a poisoned page in an ordinary guest".into())
            }
            InvalidKind::MmioGuard if !machine.is_protected(target) => {
                Some("an MMIO guard in an ordinary guest".into())
            }
            InvalidKind::GuestPoisoned { payload: 0 } | InvalidKind::MmioGuard => None,
            _ => Some(format!("an invalid entry {:#x}", row.raw)),
        }
    },
};

fn output(held: &Held) -> Option<u64> {
    let (_, row) = held.entry()?;
    row.oa.map(|oa| oa.wrapping_add(held.ia.wrapping_sub(row.ia)))
}
