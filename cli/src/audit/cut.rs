// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cuts what is mapped into parts that are alike throughout, so that a rule looks at each of them once.

use super::pace::Pace;
use super::sight::Sight;
use crate::machine::tree::Tree;
use crate::machine::Machine;
use crate::marks::Marks;
use crate::model::{Mark, Row};
use s2dump_abi::target::Target;
use std::convert::Infallible;

/// Gets each sight of a pass.
pub(super) type See<'a> = dyn FnMut(Sight) + 'a;

/// Cuts `start` to `end` of physical memory where frames, regions, EL2's code or the host's rows begin or end, and tells
/// the parts with what is known of each, as long as there is time.
pub(super) fn cut(machine: &Machine, pace: &Pace<'_>, start: u64, end: u64, see: &mut See<'_>) {
    let host = machine.tree(Target::HOST);
    let mut at = start;
    while at < end && pace.goes_on() {
        let mut next = end.min(machine.known.stretch(at).end);
        let mut bound = |address: u64| {
            if address > at {
                next = next.min(address);
            }
        };
        let run = machine.frames.runs(at, end).next();
        if let Some(run) = run {
            bound(run.pa);
            bound(run.end());
        }
        for span in &machine.known.text {
            bound(span.start);
            bound(span.end);
        }
        let row = host.and_then(|host| host.rows(at, at + 1).next());
        if let Some(row) = &row {
            bound(row.end());
        }
        let entry = host.zip(row).and_then(|(host, row)| row.clip(at, u64::MAX, &host.table.geometry));
        let frame = run.filter(|run| run.pa <= at).and_then(|run| run.raw);
        see(Sight { frame, host: entry, ..Sight::of(at, next - at) });
        at = next;
    }
}

/// Returns the parts of `row`, of EL2's tree, that are in no slot for any page; `marks` are those of that tree.
pub(super) fn outside_slots(marks: &Marks, tree: &Tree, row: Row) -> Vec<Row> {
    let mut parts = Vec::new();
    let Ok(()) = marks.cut_row::<Infallible>(row, &tree.table.geometry, |part| {
        if !matches!(part.mark, Mark::Fixmap | Mark::Fixblock) {
            parts.push(part);
        }
        Ok(())
    });
    parts
}

/// Returns all rows of `tree`, as long as there is time.
pub(super) fn rows<'t>(tree: &'t Tree, pace: &'t Pace<'_>) -> impl Iterator<Item = Row> + 't {
    tree.rows(0, u64::MAX).take_while(|_| pace.goes_on())
}
