// SPDX-License-Identifier: MIT OR Apache-2.0
//! Table pages: whoever can write one decides what is mapped.

use super::{Need, On, Rule, MAINLINE, PKVM};
use crate::audit::sight::{owner_of, owner_words};
use crate::model::target_name;
use s2dump_abi::slot::RecordKind;
use s2dump_abi::target::Target;
use s2dump_vmsa::pkvm::{Owner, PageState};

pub(super) static OWNED: Rule = Rule {
    id: "table-owned",
    meaning: "table pages of all trees belong to the hypervisor",
    broken: "the host, or a guest, may come to write page tables",
    on: &[On::Table],
    needs: &[Need::Host, Need::Frames, Need::Tables],
    scope: MAINLINE,
    yields_to: &["entry-outside"],
    check: |sight, machine| {
        let target = match (&sight.first, &sight.vm) {
            (Some(table), _) => table.table().map(|_| table.target)?,
            (None, Some(vm)) => Target::guest(vm.handle),
            (None, None) => return None,
        };
        let host = sight.host.as_ref()?;
        let name = target_name(target);
        if owner_of(machine, host) != Some(Owner::Hyp) {
            return Some(format!("a table page of {name}: in the host's table it is {}", owner_words(sight, machine)));
        }
        let hyp = sight.frame(machine).and_then(|frame| frame.hyp);
        (hyp != Some(PageState::Owned)).then(|| format!("a table page of {name} that the hypervisor does not own"))
    },
};

pub(super) static ONCE: Rule = Rule {
    id: "table-once",
    meaning: "a table page is in one tree, and there once",
    broken: "a change of one mapping changes another",
    on: &[On::Pair],
    needs: &[Need::Tables],
    scope: PKVM,
    yields_to: &[],
    check: |sight, _| {
        let (first, second) = (sight.first.as_ref()?, sight.second.as_ref()?);
        let (one, other) = (first.table()?, second.table()?);
        (one.pa == other.pa).then(|| {
            let (first, second) = (target_name(first.target), target_name(second.target));
            format!("a table page of {first} for {:#x}, and of {second} for {:#x}", one.ia, other.ia)
        })
    },
};

pub(super) static IN_GUEST: Rule = Rule {
    id: "table-in-guest",
    meaning: "no guest maps a table page",
    broken: "a guest can read, and with the right to write change, who may reach what",
    on: &[On::Pair],
    needs: &[Need::Tables],
    scope: PKVM,
    yields_to: &[],
    check: |sight, _| {
        let table = sight.second.as_ref()?;
        let page = table.table()?;
        let (target, row) = sight.entry()?;
        let is_guests = target.guest_handle().is_some() && row.kind == RecordKind::LEAF;
        is_guests.then(|| {
            let (name, level) = (target_name(table.target), page.level);
            format!("it is a table page of {name}, level {level} for {:#x}", page.ia)
        })
    },
};
