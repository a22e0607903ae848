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
use crate::origin::Origin;
use crate::plan::machine::{DiffPlan, Reading};
use crate::source::interrupts;

/// Compares two readings.
pub(super) fn run(plan: &DiffPlan, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    let (old, old_issues) = read(&plan.old, context)?;
    if let (Reading::Live(_), Reading::Live(_)) = (&plan.old, &plan.new) {
        interrupts::wait(plan.wait);
    }
    let (new, new_issues) = read(&plan.new, context)?;
    let only = match (&plan.old, &plan.new) {
        (_, Reading::Live(selector)) if *selector != Selector::All => Some(listed_table(selector, &new.vms)?.0.target),
        _ => None,
    };
    let mut found = Differences::of(plan.wanted.filter.clone());
    let compared = found.add_machines(&old, &new, only);
    let unread = compared.unread();
    if old.trees.is_empty() && new.trees.is_empty() {
        return Err(Failure::new(ExitCode::UsageOrIo, "neither has a table").into());
    }
    let (changes, passing) = (found.changes.list, found.passing.list.len());
    match plan.json {
        true => {
            // Of one that nothing was read of it is not known.
            let page_shift = old.page_shift().max(new.page_shift());
            diff::write_json(context.out, &changes, passing, &unread, &plan.wanted, page_shift)?;
        }
        false if plan.wanted.rows => diff::write_text(context.out, &changes, context.width)?,
        false => diff::write_totals(context.out, &changes)?,
    }
    if passing > 0 {
        let ranges = if passing == 1 { "1 range".into() } else { format!("{passing} ranges") };
        context.note(format_args!("left out: {ranges} of EL2's fixmap and of pages that s2dump shares with EL2"));
    }
    if let Some(note) = Origin::of_two_boots([&old, &new].map(|machine| machine.origin.as_ref())) {
        context.note(note);
    }
    compared.others.iter().for_each(|another| context.note(another));
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
