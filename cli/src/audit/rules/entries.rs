// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries that no table has while its lock is free.

use super::{On, Rule, Scope, PKVM};
use crate::audit::sight::invalid_of;
use s2dump_abi::slot::RecordKind;
use s2dump_vmsa::pkvm::InvalidKind;

pub(super) static LOCKED: Rule = Rule {
    id: "entry-locked",
    meaning: "no entry is locked: replacing one ends before the table's lock is free",
    broken: "a change of the table was left half done, so whoever waits for the entry waits for ever",
    on: &[On::Odd],
    needs: &[],
    scope: PKVM,
    yields_to: &[],
    check: |sight, machine| {
        let (target, row) = sight.entry()?;
        match invalid_of(machine, target, row)? {
            InvalidKind::Locked { .. } => Some(format!("a locked entry {:#x}", row.raw)),
            _ => None,
        }
    },
};

pub(super) static RESERVED: Rule = Rule {
    id: "entry-reserved",
    meaning: "no entry has a type that its level does not allow",
    broken: "pKVM writes no such entry: the table was damaged",
    on: &[On::Odd],
    needs: &[],
    scope: Scope::Any,
    yields_to: &[],
    check: |sight, _| {
        let (_, row) = sight.entry()?;
        (row.kind == RecordKind::RESERVED).then(|| format!("a reserved entry {:#x}", row.raw))
    },
};

pub(super) static OUTSIDE: Rule = Rule {
    id: "entry-outside",
    meaning: "table descriptors lead to memory that EL2 may read, and not back up",
    broken: "the MMU takes what is there for page tables, whoever writes it",
    on: &[On::Odd],
    needs: &[],
    scope: Scope::Any,
    yields_to: &[],
    check: |sight, _| {
        let (_, row) = sight.entry()?;
        match row.kind {
            RecordKind::TABLE_OUTSIDE => Some(format!("a table at {:#x}, outside of memory", row.oa.unwrap_or(0))),
            RecordKind::TABLE_LOOP => Some(format!("a table at {:#x}, which leads to itself", row.oa.unwrap_or(0))),
            _ => None,
        }
    },
};
