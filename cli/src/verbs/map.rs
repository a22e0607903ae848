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
use crate::origin::Origin;
use crate::plan::map::MapPlan;
use crate::plan::Output;
use crate::source::interrupts;
use crate::source::output_file::OutputFile;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Makes a map of the device or a capture.
pub(super) fn run(plan: &MapPlan, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    if plan.output == Output::Stdout && context.out_is_terminal {
        let failure = Failure::new(ExitCode::UsageOrIo, "a map is not written to a terminal: a browser shows it");
        return Err(failure.hint("name a file with -O FILE").into());
    }
    for read in plan.input.iter().chain(&plan.since) {
        if matches!(&plan.output, Output::File(path) if is_same_file(read, path)) {
            let failure = format_args!("{}: the map would take the place of what it is made of", read.display());
            return Err(Failure::new(ExitCode::UsageOrIo, failure).hint("name another file with -O FILE").into());
        }
    }
    // A file that cannot be read is told before the machine is.
    let before = plan.since.as_ref().map(|path| from_capture(path, context)).transpose()?;
    let (machine, issues, source) = match &plan.input {
        Some(path) => {
            let (machine, issues) = from_capture(path, context)?;
            let source = named(path, machine.origin.as_ref());
            (machine, issues, source)
        }
        None => {
            let mut survey = survey("map", context)?;
            gather(&mut survey, context)?;
            survey.machine.origin = Some(Origin::here());
            let source = named(Path::new("this machine"), survey.machine.origin.as_ref());
            (survey.machine, 0, source)
        }
    };
    if machine.trees.is_empty() && machine.frames.is_empty() {
        return Err(Failure::new(ExitCode::UsageOrIo, "no table was read").into());
    }
    let mut unread = unread(&machine);
    let (mut issues, mut notes) = (issues, Vec::new());
    let compared = before.as_ref().map(|(before, problems)| {
        issues += problems;
        let mut found = Differences::default();
        let compared = found.add_machines(before, &machine, None);
        unread.extend(compared.unread().into_iter().map(|what| format!("what changed of {what}")));
        notes.extend(compared.others);
        notes.extend(Origin::of_two_boots([before, &machine].map(|machine| machine.origin.as_ref())));
        found.changes.list
    });
    let map = Map::of(&machine);
    let since = plan.since.as_ref().zip(compared.as_deref());
    let origin = before.as_ref().and_then(|(before, _)| before.origin.as_ref());
    let since = since.map(|(path, changes)| (named(path, origin), changes));
    notes.iter().for_each(|note| context.note(note));
    let told = Told { source, unread: &unread, notes: &notes, since };

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
    context.out.flush()?;
    context.note(format_args!("wrote {}", plan.output.name()));
    if !unread.is_empty() {
        context.note(format_args!("not read, or not all: {}", unread.join(", ")));
    }
    Ok(if unread.is_empty() && issues == 0 { ExitCode::Ok } else { ExitCode::Partial })
}

/// Returns whether two paths lead to one file.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| path.metadata().map(|file| (file.dev(), file.ino())).ok();
    id(one).is_some_and(|one| id(other) == Some(one))
}

/// Returns what a reading is called: by whom it was written, when and where, if it says so.
fn named(path: &Path, origin: Option<&Origin>) -> String {
    match origin {
        Some(origin) => format!("{}, {origin}", path.display()),
        None => path.display().to_string(),
    }
}
