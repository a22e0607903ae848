// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump diff A B`, `s2dump diff A --live TARGET`: what changed between two readings of a machine.

use super::identity::listed_table;
use super::machine::{from_capture, stop, survey};
use super::{Context, Stop};
use crate::args::Selector;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::format::diff;
use crate::machine::differ::Differences;
use crate::machine::Machine;
use crate::model::target_name;
use crate::plan::machine::{DiffPlan, Reading};
use s2dump_abi::target::Target;
use std::collections::BTreeSet;

/// Compares two readings.
pub(super) fn run(plan: &DiffPlan, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    let (old, old_issues) = read(&plan.old, context)?;
    if let (Reading::Live(_), Reading::Live(_)) = (&plan.old, &plan.new) {
        std::thread::sleep(plan.wait);
    }
    let (new, new_issues) = read(&plan.new, context)?;
    let only = match (&plan.old, &plan.new) {
        (_, Reading::Live(selector)) if *selector != Selector::All => Some(listed_table(selector, &new.vms)?.0.target),
        _ => None,
    };
    let names = |machine: &Machine| machine.trees.iter().map(|tree| tree.table.target.0).collect::<BTreeSet<u64>>();
    let (mut found, mut unread) = (Differences::of(plan.wanted.filter.clone()), Vec::new());
    for target in names(&old).union(&names(&new)).map(|&target| Target(target)) {
        if only.is_some_and(|only| only != target) {
            continue;
        }
        match (old.tree(target), new.tree(target)) {
            // A VM that is gone, and another that has its handle.
            (Some(a), Some(b)) if a.table.root != b.table.root => {
                found.add_tables((&old, Some(a)), (&new, None));
                found.add_tables((&old, None), (&new, Some(b)));
            }
            (a, b) => {
                let is_gone = |machine: &Machine| {
                    target.guest_handle().is_some_and(|handle| machine.is_listed && machine.vm(handle).is_none())
                };
                let is_known = (a.is_some() || is_gone(&old)) && (b.is_some() || is_gone(&new));
                let is_whole = [a, b].into_iter().flatten().all(|tree| tree.is_complete && tree.is_exact);
                if !is_known || !is_whole {
                    unread.push(target_name(target));
                }
                if is_known {
                    found.add_tables((&old, a), (&new, b));
                }
            }
        }
    }
    if only.is_none() && !old.frames.is_empty() && !new.frames.is_empty() {
        found.add_frames(&old, &new);
    }
    if old.trees.is_empty() && new.trees.is_empty() {
        return Err(Failure::new(ExitCode::UsageOrIo, "neither has a table").into());
    }
    let (changes, passing) = (found.changes.list, found.passing.list.len());
    match plan.json {
        true => diff::write_json(context.out, &changes, passing, &unread, &plan.wanted)?,
        false if plan.wanted.rows => diff::write_text(context.out, &changes)?,
        false => diff::write_totals(context.out, &changes)?,
    }
    if passing > 0 {
        let ranges = if passing == 1 { "1 range".into() } else { format!("{passing} ranges") };
        context.note(format_args!("left out: {ranges} of EL2's fixmap and of pages that s2dump shares with EL2"));
    }
    if !unread.is_empty() {
        context.note(format_args!("not compared, or not all: {}", unread.join(", ")));
    }
    Ok(match (changes.is_empty(), unread.is_empty() && old_issues + new_issues == 0) {
        (_, false) => ExitCode::Partial,
        (false, true) => ExitCode::Finding,
        (true, true) => ExitCode::Ok,
    })
}

fn read(reading: &Reading, context: &mut Context<'_>) -> Result<(Machine, u64), Stop> {
    match reading {
        Reading::Capture(path) => from_capture(path, context),
        Reading::Live(selector) => {
            let mut survey = survey("diff", context)?;
            let read = match selector {
                Selector::All => survey.gather(false),
                selector => survey.gather_one(selector),
            };
            let notes = std::mem::take(&mut survey.notes);
            let issues = notes.len() as u64;
            notes.into_iter().for_each(|note| context.note(note));
            read.map_err(stop)?;
            Ok((survey.machine, issues))
        }
    }
}
