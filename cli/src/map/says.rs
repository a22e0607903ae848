// SPDX-License-Identifier: MIT OR Apache-2.0
//! What entries say, each saying once. A table of half a million entries has a dozen of them.

use super::{Class, Said};
use crate::leaf;
use crate::meaning;
use crate::model::{Mark, Row, TableFacts};
use s2dump_abi::slot::RecordKind;
use s2dump_vmsa::pkvm::Owner;
use std::collections::HashMap;

/// So many are kept apart; what comes later says less. A table that was overwritten could have one for each entry.
const MOST: usize = 4096;

/// What makes entries of one table say the same, found without making words.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Look {
    target: u64,
    raw: u64,
    level: i8,
    kind: u8,
    inherited: u8,
    mark: u8,
    class: Class,
}

/// All that is said.
#[derive(Default)]
pub(super) struct Sayings {
    list: Vec<Said>,
    by_look: HashMap<Look, u32>,
}

impl Sayings {
    /// Returns the number of what the entries of `row` say, whose pages are of `class`.
    pub(super) fn of_row(&mut self, row: &Row, table: &TableFacts, class: Class) -> u32 {
        /// Where an output address is in a leaf of any granule, but for two bits of LPA2.
        const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
        let owner = meaning::owner(row, table);
        let raw = match (row.kind, owner) {
            (RecordKind::LEAF, _) => row.raw & !ADDRESS,
            (_, Some(Owner::Guest { handle, .. })) => handle.into(),
            _ => row.raw,
        };
        let look = Look {
            target: table.target.0,
            raw,
            level: row.level.get(),
            kind: row.kind.0,
            inherited: row.inherited.to_bits(),
            mark: row.mark as u8,
            class,
        };
        if let Some(&known) = self.by_look.get(&look) {
            return known;
        }
        let said = match self.list.len() < MOST {
            true => Said { class, text: text(row, table) },
            false => Said { class, text: format!("L{}, one of many", row.level.get()) },
        };
        let same = self.list.iter().position(|known| *known == said);
        let number = same.unwrap_or_else(|| {
            self.list.push(said);
            self.list.len() - 1
        });
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        if self.by_look.len() < 4 * MOST {
            self.by_look.insert(look, number);
        }
        number
    }

    /// Returns the words of `number`.
    pub(super) fn text(&self, number: u32) -> &str {
        self.list.get(number as usize).map_or("", |said| &said.text)
    }

    /// Returns whose the pages are of which `number` is said.
    pub(super) fn class(&self, number: u32) -> Class {
        self.list.get(number as usize).map_or(Class::Nothing, |said| said.class)
    }

    /// Returns all.
    pub(super) fn into_list(self) -> Vec<Said> {
        self.list
    }
}

/// Returns what the entries of a row say, but for addresses.
fn text(row: &Row, table: &TableFacts) -> String {
    let state = match meaning::owner(row, table) {
        Some(Owner::Guest { handle, .. }) => format!("owner=vm:{handle:#x}").into(),
        _ => meaning::state(row, table),
    };
    let leaf = leaf::of_row(row, table);
    let words = [leaf.map(|leaf| leaf.rwx(table)), leaf.map(|leaf| leaf.memory(table))];
    let mut text = format!("L{}", row.level.get());
    for word in words.into_iter().flatten().chain(Some(state)).filter(|word| word != "-") {
        text.push(' ');
        text.push_str(&word);
    }
    if row.is_hole() && row.mark == Mark::None {
        text.push_str(" hole");
    }
    text
}
