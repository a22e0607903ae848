// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump capture --all -O FILE`: the whole machine, so that it can be audited anywhere.
//!
//! After all was read once, all is read again, so that the file says what was at rest; and what an audit would suspect is
//! looked at again, so that it can be settled from the file alone.

use super::machine::{at_rest, stop, unread};
use super::survey::{Halt, Survey, NO_TIME, SECOND_LOOKS};
use super::time_limit::{Part, TimeLimit};
use super::{Context, Stop};
use crate::audit::pace::Pace;
use crate::audit::rules::RULES;
use crate::audit::settle::{is_same_share, Again, Seen, ROUNDS};
use crate::audit::sight::Sight;
use crate::audit::{ask, Asked};
use crate::exit_code::ExitCode;
use crate::machine::tree::SecondPass;
use crate::machine::Machine;
use crate::origin::Origin;
use crate::plan::Output;
use crate::source::interrupts;
use crate::source::output_file::OutputFile;
use s2dump_abi::slot::VmRecord;
use s2dump_abi::target::Target;
use std::collections::BTreeMap;
use std::io::Write;

/// What nobody reads: the verb ends.
const INTERRUPTED: &str = "interrupted";

/// Captures the whole machine.
pub(super) fn run(output: &Output, budget: u32, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    super::capture::check_output(output, context)?;
    let device = context.device().map_err(|error| error.into_failure("capture"))?;
    let mut file = super::capture::create(output)?;
    let mut bytes = 0;
    let (out, proc) = (&mut *context.out, context.proc);
    let mut keep = |slot: &[u8]| {
        bytes += slot.len() as u64;
        match &mut file {
            None => out.write_all(slot),
            Some(file) => file.write_all(slot),
        }
    };
    keep(&Origin::here().to_slot()).map_err(|error| super::capture::output_failed(output, error))?;
    let (captured, machine, notes) = {
        let mut survey = Survey::new(device, budget, Some(&mut keep));
        survey.proc = Some(proc);
        let captured = capture(&mut survey);
        (captured, std::mem::take(&mut survey.machine), std::mem::take(&mut survey.notes))
    };
    notes.into_iter().for_each(|note| context.note(note));
    match captured {
        Ok(()) => {}
        Err(Halt::Interrupted) => return Err(super::capture::interrupted(file.as_ref()).into()),
        Err(Halt::Output(error)) => return Err(super::capture::output_failed(output, error)),
        Err(halt) => return Err(stop(halt)),
    }
    file.map_or(Ok(()), OutputFile::keep).map_err(|error| super::capture::output_failed(output, error))?;
    context.out.flush()?;
    let (unread, changed) = (unread(&machine), at_rest(&machine, SecondPass::Differs));
    for (words, tables) in [("not read, or not all", &unread), ("changed while they were read", &changed)] {
        if !tables.is_empty() {
            context.note(format_args!("{words}: {}", tables.join(", ")));
        }
    }
    context.note(format_args!("wrote {}: the whole machine, {bytes} bytes", output.name()));
    Ok(if unread.is_empty() { ExitCode::Ok } else { ExitCode::Partial })
}

/// Reads all, looks again at what looks wrong, and reads all again.
fn capture(survey: &mut Survey<'_>) -> Result<(), Halt> {
    survey.gather(true)?;
    let suspected = suspect(survey)?;
    read_again(survey, suspected.counted)
}

/// What an audit suspects of a machine that was read once.
pub(super) struct Suspected {
    /// The rules, and what looks wrong.
    pub(super) asked: Asked,
    /// Frames of which it is counted who maps them.
    pub(super) counted: Vec<Sight>,
}

/// Asks all rules, and looks again at what looks wrong. Whoever reads the capture asks the same rules, and has the looks that they
/// needed here.
pub(super) fn suspect(survey: &mut Survey<'_>) -> Result<Suspected, Halt> {
    let limit = survey.limit;
    let is_over = || interrupts::came() || limit.is_some_and(TimeLimit::is_over);
    let machine = std::mem::take(&mut survey.machine);
    survey.enter(Part::ASK);
    let asked = ask(RULES, &machine, &Pace::new(&is_over));
    survey.enter(Part::LOOK);
    let pace = Pace::new(&is_over);
    let mut keeping = Keeping { survey, looked: BTreeMap::new(), counted: Vec::new(), halt: None };
    asked.settle(&machine, &mut keeping, &pace);
    let Keeping { counted, halt, .. } = keeping;
    let looks = std::mem::replace(&mut survey.machine, machine);
    survey.machine.take_looks(looks);
    if pace.has_stopped() {
        survey.miss(SECOND_LOOKS);
    }
    match halt {
        Some(halt) => Err(halt),
        None if interrupts::came() => Err(Halt::Interrupted),
        None => Ok(Suspected { asked, counted }),
    }
}

/// Reads all again, and looks at the frames that are `counted`.
pub(super) fn read_again(survey: &mut Survey<'_>, counted: Vec<Sight>) -> Result<(), Halt> {
    survey.enter(Part::READ_AGAIN);
    survey.second_pass()?;
    count(survey, counted)?;
    // Who is in the list now was there all the time, if the first list has it too.
    survey.enter(Part::LIST_AGAIN);
    match survey.list() {
        Ok(()) | Err(Halt::NoTime) => {}
        Err(Halt::Failed(failure)) => drop(survey.note(failure)),
        Err(halt) => return Err(halt),
    }
    Ok(())
}

/// Looks at the frames that are counted, after the second pass and after each of some more over the guests' tables, as long as
/// nothing changes: the scans that count are between looks at the frames.
fn count(survey: &mut Survey<'_>, mut counted: Vec<Sight>) -> Result<(), Halt> {
    for round in 0..ROUNDS {
        if counted.is_empty() || !survey.machine.are_guests_at_rest() {
            break;
        }
        if round > 0 {
            survey.guests_again()?;
        }
        let pages: Vec<u64> = counted.iter().map(|sight| sight.pa).collect();
        match survey.look_at_frames(&pages) {
            Ok(moments) => {
                let mut moments = moments.into_iter();
                counted.retain(|sight| {
                    moments.next().is_some_and(|now| is_same_share(&survey.machine, now.frame, sight.frame))
                });
            }
            Err(Halt::Failed(failure)) => {
                survey.note(failure);
                break;
            }
            Err(Halt::NoTime) => break,
            Err(halt) => return Err(halt),
        }
    }
    Ok(())
}

/// Looks again at the machine, so that the answers are kept.
struct Keeping<'s, 'a> {
    survey: &'s mut Survey<'a>,
    /// What was looked at, each frame with its places once: which of the moments that is.
    looked: BTreeMap<(u64, Vec<(u64, u64)>), usize>,
    /// Frames of which it is counted who maps them.
    counted: Vec<Sight>,
    /// Slots could not be kept.
    halt: Option<Halt>,
}

impl<'a> Keeping<'_, 'a> {
    /// Does what a survey can, unless slots could not be kept before; returns why not.
    fn try_to<T>(&mut self, look: impl FnOnce(&mut Survey<'a>) -> Result<T, Halt>) -> Result<T, String> {
        if self.halt.is_some() {
            return Err(INTERRUPTED.into());
        }
        look(self.survey).map_err(|halt| match halt {
            Halt::Failed(failure) => self.survey.note(failure),
            Halt::NoTime => NO_TIME.into(),
            halt => {
                self.halt = Some(halt);
                INTERRUPTED.into()
            }
        })
    }
}

impl Again for Keeping<'_, '_> {
    fn look(&mut self, pa: u64, places: &[(Target, u64)], _: &Machine) -> Result<Seen, String> {
        let key = (pa, places.iter().map(|&(Target(target), ia)| (target, ia)).collect());
        let moments = &self.survey.machine.moments;
        if let Some(moment) = self.looked.get(&key).and_then(|&at| moments.get(at)) {
            return Ok(Seen::At(moment.clone()));
        }
        let at = moments.len();
        match self.try_to(|survey| survey.look(pa, places)) {
            Ok(moment) => {
                self.looked.insert(key, at);
                Ok(Seen::At(moment))
            }
            Err(why) => Err(why),
        }
    }

    /// Only looks at the frames: what is counted is not known yet.
    fn recount(&mut self, sights: &[Sight], _: &Machine) -> Vec<Result<Sight, String>> {
        self.counted = sights.to_vec();
        let pages: Vec<u64> = sights.iter().map(|sight| sight.pa).collect();
        let why = self.try_to(|survey| survey.look_at_frames(&pages)).err().unwrap_or("not counted yet".into());
        sights.iter().map(|_| Err(why.clone())).collect()
    }

    fn list(&mut self, machine: &Machine) -> Result<Vec<VmRecord>, String> {
        // What is not there any more is settled by the list at the end of the capture.
        Ok(machine.vms.clone())
    }
}
