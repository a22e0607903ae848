// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump watch [TARGET]`: what changes, as it changes.

use super::identity::listed_table;
use super::machine::{stop, survey};
use super::survey::Survey;
use super::{Context, Stop};
use crate::args::Selector;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::format::watch::{Readings, WatchWriter};
use crate::machine::differ::Differences;
use crate::machine::Machine;
use crate::model::target_name;
use crate::plan::machine::WatchPlan;
use crate::source::clock::Time;
use crate::source::interrupts;
use s2dump_abi::target::Target;

/// Watches until it is interrupted, has read as often as it should, or the VM is gone.
pub(super) fn run(plan: &WatchPlan, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    let mut survey = survey("watch", context)?;
    let (mut readings, start) = (Readings::default(), Time::now());
    let (mut last, only) = first(plan, &mut survey, context)?;
    let mut used = start.elapsed();
    let mut writer = WatchWriter::new(plan.json, last.page_shift(), context.width);
    let mut failed = None;
    let name = only.map_or_else(|| plan.target.to_string(), target_name);
    writer.begin(context.out, &name, plan.interval, plan.share)?;
    loop {
        context.out.flush()?;
        readings.add(used.uptime);
        let at_share = used.cpu.saturating_mul(100) / plan.share;
        let pause = plan.interval.max(at_share).saturating_sub(used.uptime);
        if plan.count.is_some_and(|count| readings.count >= count) || interrupts::wait(pause) {
            break;
        }
        let begin = Time::now();
        let mut now = match read(plan, &mut survey) {
            Ok(Some(now)) => now,
            Ok(None) => break,
            Err(stop) => {
                failed = Some(stop);
                break;
            }
        };
        let mut found = Differences::of(plan.filter.clone());
        let compared = found.add_machines(&last, &now, only);
        // What cannot be compared now is compared at the next reading.
        readings.unread.extend(compared.unread());
        if compared.lacks_frames {
            now.frames = std::mem::take(&mut last.frames);
        }
        for target in compared.unread {
            if let Some(known) = last.trees.iter().position(|tree| tree.table.target == target) {
                now.trees.retain(|tree| tree.table.target != target);
                now.trees.push(last.trees.swap_remove(known));
            }
        }
        readings.changes += found.changes.list.len() as u64;
        writer.changes(context.out, begin.uptime, &found.changes.list)?;
        last = now;
        used = begin.elapsed();
        let is_gone = only.is_some_and(|only| last.tree(only).is_none() || !compared.others.is_empty());
        compared.others.into_iter().for_each(|another| context.note(another));
        if is_gone {
            context.note(format_args!("{name}: the VM went away"));
            break;
        }
    }
    readings.calls = survey.calls();
    writer.end(context.out, &readings, start.elapsed())?;
    context.out.flush()?;
    failed.map_or(Ok(ExitCode::Ok), Err)
}

/// Reads for the first time, and tells what cannot be watched.
fn first(
    plan: &WatchPlan,
    survey: &mut Survey<'_>,
    context: &mut Context<'_>,
) -> Result<(Machine, Option<Target>), Stop> {
    let read = gather(plan, survey);
    survey.notes.drain(..).for_each(|note| context.note(note));
    read?;
    let machine = std::mem::take(&mut survey.machine);
    let only = match &plan.target {
        Selector::All => None,
        selector => Some(listed_table(selector, &machine.vms)?.0.target),
    };
    if machine.trees.is_empty() {
        return Err(Failure::new(ExitCode::Partial, "there is no table to watch").into());
    }
    Ok((machine, only))
}

/// Reads again; none if that was interrupted. What is not there now may be there later.
fn read(plan: &WatchPlan, survey: &mut Survey<'_>) -> Result<Option<Machine>, Stop> {
    match gather(plan, survey) {
        _ if interrupts::came() => return Ok(None),
        Ok(()) => {}
        // Its VM ended: the list says so.
        Err(Stop::Failure(failure)) if failure.code == ExitCode::NoSuchVm => {}
        Err(stop) => return Err(stop),
    }
    survey.notes.clear();
    Ok(Some(std::mem::take(&mut survey.machine)))
}

fn gather(plan: &WatchPlan, survey: &mut Survey<'_>) -> Result<(), Stop> {
    match &plan.target {
        Selector::All => survey.gather(false),
        selector => survey.gather_one(selector),
    }
    .map_err(stop)
}
