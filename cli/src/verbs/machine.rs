// SPDX-License-Identifier: MIT OR Apache-2.0
//! A whole machine, from a capture or the device.

use super::survey::{Halt, Survey, NO_TIME};
use super::{Context, Stop};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::machine::tree::SecondPass;
use crate::machine::Machine;
use crate::model::target_name;
use crate::source::SourceError;
use s2dump_abi::target::Target;
use std::path::Path;

/// Reads a machine from a capture; also returns how many problems there were.
pub(super) fn from_capture(path: &Path, context: &mut Context<'_>) -> Result<(Machine, u64), Stop> {
    let mut reader = context.capture(path)?;
    let (mut machine, mut issues) = (Machine::default(), 0);
    loop {
        let event = reader.next_event();
        context.tell_issues(&mut reader, &mut issues);
        match event.map_err(|error| error.into_failure("capture"))? {
            Some(event) => machine.take(event),
            None => {
                machine.origin = reader.origin().cloned();
                return Ok((machine, issues));
            }
        }
    }
}

/// Begins a survey of the machine that this runs on, called `verb` in messages.
pub(super) fn survey(verb: &str, context: &Context<'_>) -> Result<Survey<'static>, Stop> {
    let device = context.device().map_err(|error| error.into_failure(verb))?;
    Ok(Survey::new(device, 0, None))
}

/// Reads all that a survey reads, and tells what was not there.
pub(super) fn gather(survey: &mut Survey<'_>, context: &mut Context<'_>) -> Result<(), Stop> {
    let gathered = survey.gather(false);
    survey.notes.drain(..).for_each(|note| context.note(note));
    gathered.map_err(stop)
}

/// Returns why a verb stops if its survey does.
pub(super) fn stop(halt: Halt) -> Stop {
    match halt {
        Halt::Failed(failure) => failure.into(),
        Halt::Output(error) => error.into(),
        Halt::Interrupted => SourceError::Interrupted.into_failure("").into(),
        Halt::NoTime => Failure::new(ExitCode::Partial, NO_TIME).into(),
    }
}

/// Says that a signal came, and what that means.
pub(super) fn interrupted(so: &str) -> Failure {
    Failure::new(ExitCode::Partial, format_args!("interrupted: {so}"))
}

/// Returns the names of tables of which a second pass found `found`.
pub(super) fn at_rest(machine: &Machine, found: SecondPass) -> Vec<String> {
    machine.trees.iter().filter(|tree| tree.second == found).map(|tree| tree.table.name()).collect()
}

/// Returns the names of tables of which not all was read.
pub(super) fn unread(machine: &Machine) -> Vec<String> {
    let is_read = |target: &Target| machine.tree(*target).is_some_and(|tree| tree.is_complete && tree.is_exact);
    let always = [Target::HOST, Target::HYP].into_iter().filter(|target| !is_read(target)).map(target_name);
    let frames = (!machine.frames.is_complete).then(|| "frames".into());
    always.chain(frames).chain(machine.unread().map(|vm| target_name(Target::guest(vm.handle)))).collect()
}
