// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump map -O FILE`: whose each page of memory is, as a page for a browser or as a picture.

use super::capture::{create, interrupted, output_failed};
use super::machine::{from_capture, gather, survey, unread};
use super::{Context, Stop};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::format::map::{write_html, write_svg, Told};
use crate::machine::differ::Differences;
use crate::map::Map;
use crate::model::target_name;
use crate::plan::map::MapPlan;
use crate::plan::Output;
use crate::source::interrupts;
use crate::source::output_file::OutputFile;
use std::io::Write;

/// Makes a map of the device or a capture.
pub(super) fn run(plan: &MapPlan, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    if plan.output == Output::Stdout && context.out_is_terminal {
        let failure = Failure::new(ExitCode::UsageOrIo, "a map is not written to a terminal: a browser shows it");
        return Err(failure.hint("name a file with -O FILE").into());
    }
    // A file that cannot be read is told before the machine is.
    let before = plan.since.as_ref().map(|path| from_capture(path, context)).transpose()?;
    let (machine, issues, source) = match &plan.input {
        Some(path) => {
            let (machine, issues) = from_capture(path, context)?;
            (machine, issues, path.display().to_string())
        }
        None => {
            let mut survey = survey("map", context)?;
            gather(&mut survey, context)?;
            (survey.machine, 0, "this machine".into())
        }
    };
    if machine.trees.is_empty() && machine.frames.is_empty() {
        return Err(Failure::new(ExitCode::UsageOrIo, "no table was read").into());
    }
    let mut unread = unread(&machine);
    let mut issues = issues;
    let compared = before.as_ref().map(|(before, problems)| {
        issues += problems;
        let mut found = Differences::default();
        let missed = found.add_machines(before, &machine, None);
        unread.extend(missed.into_iter().map(|target| format!("what changed of {}", target_name(target))));
        found.changes.list
    });
    let map = Map::of(&machine);
    let since = plan.since.as_ref().zip(compared.as_deref());
    let since = since.map(|(path, changes)| (path.display().to_string(), changes));
    let told = Told { source, unread: &unread, since };

    let mut file = create(&plan.output)?;
    let out: &mut dyn Write = match &mut file {
        Some(file) => file,
        None => context.out,
    };
    let write = if plan.svg { write_svg } else { write_html };
    write(out, &map, &told).map_err(|error| output_failed(&plan.output, error))?;
    if interrupts::came() {
        return Err(interrupted(file.as_ref()).into());
    }
    file.map_or(Ok(()), OutputFile::keep).map_err(|error| output_failed(&plan.output, error))?;
    if !unread.is_empty() {
        context.note(format_args!("not read, or not all: {}", unread.join(", ")));
    }
    Ok(if unread.is_empty() && issues == 0 { ExitCode::Ok } else { ExitCode::Partial })
}
