// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who maps the same frame: one pass over all that is mapped, in the order of physical addresses.

use super::cut::{outside_slots, rows, See};
use super::pace::Pace;
use super::sight::{state_of, Held, Shares, Sight, What};
use crate::machine::tree::{TablePage, Tree};
use crate::machine::Machine;
use crate::marks::Marks;
use crate::model::Row;
use s2dump_abi::slot::RecordKind;
use s2dump_abi::target::Target;
use s2dump_vmsa::pkvm::PageState;
use std::collections::BTreeMap;

/// Something that has frames from `pa` to before `end`.
#[derive(Clone, Copy)]
struct Use {
    pa: u64,
    end: u64,
    kind: Kind,
    tree: u32,
    /// Input address, of a table page its number.
    ia: u64,
}

/// Who has it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A protected guest.
    Protected,
    /// A protected guest, which shares it with the host.
    Lender,
    /// An ordinary guest.
    Ordinary,
    /// EL2.
    Hyp,
    /// A table page.
    Table,
}

impl Kind {
    /// Returns whether two of them may not have the same frame.
    fn collides(self, other: Self) -> bool {
        let is_protected = |kind| matches!(kind, Self::Protected | Self::Lender);
        let is_guest = |kind| is_protected(kind) || kind == Self::Ordinary;
        match (self, other) {
            (Self::Table, Self::Table) => true,
            (Self::Table, other) | (other, Self::Table) => is_guest(other),
            _ => is_protected(self) || is_protected(other),
        }
    }
}

/// Returns all uses of frames, in ascending addresses; none if there is no time. Sorting goes on to its end: it takes a small part of
/// the time that it took to read what is sorted.
fn uses(machine: &Machine, pace: &Pace<'_>, wants: impl Fn(Kind) -> bool) -> Vec<Use> {
    let mut uses = Vec::new();
    let marks = Marks::of_table(&machine.known.facts, Target::HYP);
    for (number, tree) in machine.trees.iter().enumerate() {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let target = tree.table.target;
        let mut add = |row: &Row, kind: Kind| {
            if let (Some(pa), true) = (row.oa, wants(kind)) {
                uses.push(Use { pa, end: pa.saturating_add(row.size()), kind, tree: number, ia: row.ia });
            }
        };
        for row in rows(tree, pace).filter(|row| row.kind == RecordKind::LEAF) {
            match target {
                Target::HOST => break,
                // A slot looks like any other entry.
                Target::HYP if !machine.known.has_slots() => break,
                Target::HYP => outside_slots(&marks, tree, row).iter().for_each(|part| add(part, Kind::Hyp)),
                _ if !machine.is_protected(target) => add(&row, Kind::Ordinary),
                _ if state_of(machine, target, &row) == Some(PageState::SharedOwned) => add(&row, Kind::Lender),
                _ => add(&row, Kind::Protected),
            }
        }
        if wants(Kind::Table) && tree.has_tables() {
            let bytes = machine.page_bytes();
            let page = |(ia, page): (usize, &TablePage)| {
                let (pa, end) = (page.pa, page.pa.saturating_add(bytes));
                Use { pa, end, kind: Kind::Table, tree: number, ia: ia as u64 }
            };
            uses.extend(tree.tables.iter().enumerate().map(page));
        }
    }
    if !pace.asks() {
        return Vec::new();
    }
    uses.sort_unstable_by_key(|used| (used.pa, used.end));
    uses
}

/// Returns what `used` has at `pa`.
fn held(machine: &Machine, used: &Use, pa: u64) -> Option<Held> {
    let tree: &Tree = machine.trees.get(used.tree as usize)?;
    let target = tree.table.target;
    if used.kind == Kind::Table {
        let page = *tree.tables.get(usize::try_from(used.ia).ok()?)?;
        return Some(Held { target, ia: page.ia, what: What::Table(page) });
    }
    let ia = used.ia + (pa - used.pa);
    let row = tree.rows(ia, ia + 1).next()?.split_off(ia, &tree.table.geometry)?;
    Some(Held { target, ia, what: What::Entry(row) })
}

/// Shows each two uses of one frame that may not be.
pub(super) fn pairs(machine: &Machine, pace: &Pace<'_>, see: &mut See<'_>) {
    let (mut guarded, mut others): (Vec<Use>, Vec<Use>) = (Vec::new(), Vec::new());
    for used in uses(machine, pace, |_| true).into_iter().take_while(|_| pace.goes_on()) {
        let is_over = |active: &Use| active.end > used.pa;
        guarded.retain(is_over);
        let mut show = |active: &Use| {
            // The guest's page first, of two pages the protected guest's, and a table page last.
            let rank = |used: &Use| match used.kind {
                Kind::Protected => 0,
                Kind::Lender => 1,
                Kind::Ordinary => 2,
                Kind::Hyp => 3,
                Kind::Table => 4,
            };
            let (first, second) = if rank(&used) < rank(active) { (&used, active) } else { (active, &used) };
            let end = active.end.min(used.end);
            let frame = machine.frames.at(used.pa).and_then(|run| run.raw);
            let pair = held(machine, first, used.pa).zip(held(machine, second, used.pa));
            if let Some((first, second)) = pair {
                let sight = Sight { frame, second: Some(second), ..Sight::of(used.pa, end - used.pa) };
                see(sight.with(first));
            }
        };
        guarded.iter().filter(|active| active.kind.collides(used.kind)).for_each(&mut show);
        // What many ordinary guests share would be compared with each of them.
        if matches!(used.kind, Kind::Ordinary | Kind::Hyp) {
            others.push(used);
            if others.len() % 1024 == 0 {
                others.retain(is_over);
            }
        } else {
            others.retain(is_over);
            others.iter().filter(|active| active.kind.collides(used.kind)).for_each(&mut show);
            guarded.push(used);
        }
    }
}

/// Shows each frame with how many guests map it.
pub(super) fn counts(machine: &Machine, pace: &Pace<'_>, see: &mut See<'_>) {
    let is_guest = |kind| matches!(kind, Kind::Ordinary | Kind::Lender);
    // Where the numbers change, and by how much.
    let mut steps: Vec<(u64, i64, i64)> = Vec::new();
    for used in uses(machine, pace, is_guest) {
        let (ordinary, lender) = if used.kind == Kind::Ordinary { (1, 0) } else { (0, 1) };
        steps.extend([(used.pa, ordinary, lender), (used.end, -ordinary, -lender)]);
    }
    steps.sort_unstable();
    let (mut ordinary, mut lenders, mut next) = (0_i64, 0_i64, 0);
    for run in machine.frames.all() {
        let Some(raw) = run.raw else { continue };
        let mut at = run.pa;
        while at < run.end() && pace.goes_on() {
            while let Some(&(pa, more, more_lenders)) = steps.get(next).filter(|step| step.0 <= at) {
                debug_assert!(pa <= at);
                (ordinary, lenders, next) = (ordinary + more, lenders + more_lenders, next + 1);
            }
            let end = steps.get(next).map_or(u64::MAX, |step| step.0).min(run.end());
            let number = |count: i64| u64::try_from(count).unwrap_or(0);
            let shares = Shares { ordinary: number(ordinary), lenders: number(lenders) };
            let frame = machine.frames.decode(raw);
            let is_of_interest = frame.is_some_and(|frame| {
                u64::from(frame.share_count) != shares.ordinary || frame.host == Some(PageState::SharedBorrowed)
            });
            if is_of_interest {
                see(Sight { frame: Some(raw), shares: Some(shares), ..Sight::of(at, end - at) });
            }
            at = end;
        }
    }
}

/// Returns for each of `pages`, physical addresses, how many guests map it.
pub(crate) fn shares_at(machine: &Machine, pages: &[u64]) -> Vec<Shares> {
    let mut shares: BTreeMap<u64, Shares> = pages.iter().map(|&pa| (pa, Shares::default())).collect();
    for used in uses(machine, &Pace::new(&|| false), |kind| matches!(kind, Kind::Ordinary | Kind::Lender)) {
        for (_, shares) in shares.range_mut(used.pa..used.end) {
            match used.kind {
                Kind::Ordinary => shares.ordinary += 1,
                _ => shares.lenders += 1,
            }
        }
    }
    pages.iter().map(|pa| shares.get(pa).copied().unwrap_or_default()).collect()
}
