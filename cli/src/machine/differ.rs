// SPDX-License-Identifier: MIT OR Apache-2.0
//! What changed between two readings of a machine: rights, state, owner or address. That a block became pages of the same is
//! no change.

use super::tree::Tree;
use super::Machine;
use crate::leaf;
use crate::meaning;
use crate::model::{Row, TableFacts};
use crate::words::{self, Word};
use s2dump_vmsa::pkvm::Owner;

/// What the entries of a range say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// Rights of leaves.
    pub(crate) rights: Option<Word>,
    /// Memory type of leaves.
    pub(crate) memory: Option<Word>,
    /// Page state, or what an invalid entry stands for; `-` for nothing to say.
    pub(crate) state: Word,
    /// Where the first address leads to, or where its guest has it.
    pub(crate) address: Option<u64>,
}

impl Said {
    /// Returns what `row` says, nothing of a hole.
    fn of(row: &Row, table: &TableFacts) -> Option<Self> {
        if row.is_hole() {
            return None;
        }
        let leaf = leaf::of_row(row, table);
        let (state, address) = match meaning::owner(row, table) {
            Some(Owner::Guest { handle, gfn }) => {
                let at = (gfn << table.geometry.granule().page_shift()) + row.skipped;
                (format!("owner=vm:{handle:#x}").into(), Some(at))
            }
            _ => (meaning::state(row, table), row.oa),
        };
        let rights = leaf.map(|leaf| leaf.rwx(table));
        Some(Self { rights, memory: leaf.map(|leaf| leaf.memory(table)), state, address })
    }

    /// Returns the same of the entries that begin `bytes` on.
    fn moved(&self, bytes: u64) -> Self {
        Self { address: self.address.map(|address| address.wrapping_add(bytes)), ..self.clone() }
    }

    fn of_frame(machine: &Machine, raw: Option<u64>) -> Self {
        let frame = raw.and_then(|raw| machine.frames.decode(raw));
        // References come and go with each pin.
        let state = match (raw, frame) {
            (None, _) => "nomap".into(),
            (Some(raw), None) => format!("raw={raw:#x}"),
            (_, Some(frame)) => words::frame(Some(s2dump_vmsa::pkvm::Frame { refcount: 0, ..frame })),
        };
        Self { rights: None, memory: None, state: state.into(), address: None }
    }
}

/// A range of which the two readings say something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The table, or `frames`.
    pub(crate) of: String,
    /// First address.
    pub(crate) start: u64,
    /// First address after.
    pub(crate) end: u64,
    /// What was said first; nothing of a hole.
    pub(crate) old: Option<Said>,
    /// What was said later.
    pub(crate) new: Option<Said>,
}

/// Gets changes in ascending addresses and joins neighbors.
#[derive(Default)]
struct Changes {
    list: Vec<Change>,
}

impl Changes {
    fn add(&mut self, next: Change) {
        if let Some(last) = self.list.last_mut().filter(|last| last.of == next.of && last.end == next.start) {
            let bytes = last.end - last.start;
            let runs_on =
                |last: &Option<Said>, next: &Option<Said>| last.as_ref().map(|said| said.moved(bytes)) == *next;
            if runs_on(&last.old, &next.old) && runs_on(&last.new, &next.new) {
                last.end = next.end;
                return;
            }
        }
        self.list.push(next);
    }
}

/// Returns what changed from `old` to `new`, two readings of one table; without one, all of the other is new or gone.
pub(crate) fn tables(old: Option<&Tree>, new: Option<&Tree>) -> Vec<Change> {
    let Some(of) = old.or(new).map(|tree| tree.table.name()) else { return Vec::new() };
    let mut changes = Changes::default();
    let (mut olds, mut news) = (Rows::new(old), Rows::new(new));
    let mut at = 0;
    while at < u64::MAX {
        let (old, old_end) = olds.at(at);
        let (new, new_end) = news.at(at);
        let end = old_end.min(new_end);
        // Most of two readings is the same: no words are made of that.
        let is_same = match (&old, &new) {
            (Some((old, _)), Some((new, _))) => {
                (old.raw, old.kind, old.level, old.ia) == (new.raw, new.kind, new.level, new.ia)
            }
            _ => false,
        };
        if !is_same {
            let said = |row: Option<(Row, &TableFacts)>| row.and_then(|(row, table)| Said::of(&row, table));
            let (old, new) = (said(old), said(new));
            if old != new {
                changes.add(Change { of: of.clone(), start: at, end, old, new });
            }
        }
        at = end;
    }
    changes.list
}

/// The rows of a tree from front to back.
struct Rows<'t> {
    table: Option<&'t TableFacts>,
    rows: Box<dyn Iterator<Item = Row> + 't>,
    current: Option<Row>,
}

impl<'t> Rows<'t> {
    fn new(tree: Option<&'t Tree>) -> Self {
        let rows: Box<dyn Iterator<Item = Row> + 't> = match tree {
            Some(tree) => Box::new(tree.rows(0, u64::MAX)),
            None => Box::new(std::iter::empty()),
        };
        let mut rows = Self { table: tree.map(|tree| &tree.table), rows, current: None };
        rows.current = rows.rows.next();
        rows
    }

    /// Returns what covers `at`, from there on, and up to where.
    fn at(&mut self, at: u64) -> (Option<(Row, &'t TableFacts)>, u64) {
        while self.current.is_some_and(|row| row.end() <= at) {
            self.current = self.rows.next();
        }
        match (self.current, self.table) {
            (Some(row), Some(table)) if row.ia <= at => {
                (row.split_off(at, &table.geometry).map(|row| (row, table)), row.end())
            }
            (Some(row), _) => (None, row.ia),
            (None, _) => (None, u64::MAX),
        }
    }
}

/// Returns what changed of page frames, references left out.
pub(crate) fn frames(old: &Machine, new: &Machine) -> Vec<Change> {
    let mut changes = Changes::default();
    let mut bounds: Vec<u64> =
        [old, new].iter().flat_map(|machine| machine.frames.all().iter().flat_map(|run| [run.pa, run.end()])).collect();
    bounds.sort_unstable();
    bounds.dedup();
    for pair in bounds.windows(2) {
        let (start, end) = (pair[0], pair[1]);
        let said = |machine: &Machine| machine.frames.at(start).map(|run| Said::of_frame(machine, run.raw));
        let (old, new) = (said(old), said(new));
        if old != new {
            changes.add(Change { of: "frames".into(), start, end, old, new });
        }
    }
    changes.list
}
