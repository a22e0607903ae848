// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump capture --all -O FILE`: the whole machine, so that it can be audited anywhere.
//!
//! After all was read once, each table is read again for its digest, so that the file says which were at rest; and what an
//! audit would suspect is looked at again, so that it can be settled from the file alone.

use super::machine::unread;
use super::survey::{Halt, Survey};
use super::{Context, Stop};
use crate::audit::rules::RULES;
use crate::audit::{select, suspects};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::plan::Output;
use crate::source::output_file::OutputFile;
use s2dump_abi::target::Target;
use std::collections::BTreeSet;
use std::io::{self, Write};

/// Captures the whole machine.
pub(super) fn run(output: &Output, budget: u32, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    super::capture::check_output(output, context)?;
    let device = context.device().map_err(|error| error.into_failure("capture"))?;
    let mut file = super::capture::create(output)?;
    let mut is_interrupted = false;
    let out = &mut *context.out;
    let mut keep = |slot: &[u8]| match &mut file {
        None => out.write_all(slot),
        Some(file) => {
            is_interrupted = file.is_interrupted();
            // Whole slots only: an interrupted capture is dropped.
            if is_interrupted {
                Err(io::ErrorKind::Other.into())
            } else {
                file.write_all(slot)
            }
        }
    };
    let (captured, notes) = {
        let mut survey = Survey::new(device, budget, Some(&mut keep));
        let captured = capture(&mut survey);
        (captured, std::mem::take(&mut survey.notes))
    };
    notes.into_iter().for_each(|note| context.note(note));
    let is_whole = match captured {
        Ok(is_whole) => is_whole,
        Err(Halt::Output(_)) if is_interrupted => {
            // The signal ends the program when the file is dropped.
            drop(file);
            return Err(Failure::new(ExitCode::Partial, "interrupted: nothing was written").into());
        }
        Err(Halt::Output(error)) => return Err(super::capture::output_failed(output, error)),
        Err(Halt::Failed(failure)) => return Err(failure.into()),
    };
    file.map_or(Ok(()), OutputFile::keep).map_err(|error| super::capture::output_failed(output, error))?;
    Ok(if is_whole { ExitCode::Ok } else { ExitCode::Partial })
}

/// Reads all, all again, and what looks wrong again. Returns whether all tables were read.
fn capture(survey: &mut Survey<'_>) -> Result<bool, Halt> {
    survey.gather(true)?;
    let suspects = suspects(&select(RULES, &survey.machine).asked, &survey.machine);
    survey.second_pass()?;
    let mut looked: BTreeSet<(u64, Vec<(u64, u64)>)> = BTreeSet::new();
    for suspect in &suspects.list {
        // Of a VM the list tells all there is.
        if suspect.sight.vm.is_some() {
            continue;
        }
        let (pa, places) = (suspect.sight.pa, suspect.sight.places());
        let key = places.iter().map(|&(Target(target), ia)| (target, ia)).collect();
        if looked.insert((pa, key)) {
            match survey.look(pa, &places) {
                Ok(_) => {}
                Err(Halt::Failed(failure)) => {
                    survey.notes.push(failure.message);
                    break;
                }
                Err(halt) => return Err(halt),
            }
        }
    }
    let unread = unread(&survey.machine);
    if !unread.is_empty() {
        survey.notes.push(format!("not read, or not all: {}", unread.join(", ")));
    }
    Ok(unread.is_empty())
}
