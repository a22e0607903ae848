// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump rmap PA|RANGE`: every tree that maps or annotates physical memory, and what pKVM keeps about it.

use super::machine::{from_capture, gather, survey, unread};
use super::{Context, Stop};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::format::rmap;
use crate::machine::uses::uses;
use crate::plan::machine::RmapPlan;

/// Looks in the device or in a capture.
pub(super) fn run(plan: &RmapPlan, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    let (machine, issues) = match &plan.input {
        Some(path) => from_capture(path, context)?,
        None => {
            let mut survey = survey("rmap", context)?;
            gather(&mut survey, context)?;
            (survey.machine, 0)
        }
    };
    if machine.trees.is_empty() {
        return Err(Failure::new(ExitCode::UsageOrIo, "no table was read").into());
    }
    let (uses, unread) = (uses(&machine, plan.span.start, plan.span.end), unread(&machine));
    match plan.json {
        true => rmap::write_json(context.out, plan.span, &uses, &unread, &machine)?,
        false => rmap::write_text(context.out, &uses, &machine)?,
    }
    if !unread.is_empty() {
        context.note(format_args!("not read, or not all: {}", unread.join(", ")));
    }
    Ok(if unread.is_empty() && issues == 0 { ExitCode::Ok } else { ExitCode::Partial })
}
