// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump capture --all -O FILE`: the whole machine, so that it can be audited anywhere.
//!
//! After all was read once, all is read again, so that the file says what was at rest; and what an audit would suspect is
//! looked at again, so that it can be settled from the file alone.

use super::machine::{at_rest, unread};
use super::survey::{Halt, Survey};
use super::{Context, Stop};
use crate::audit::audit;
use crate::audit::rules::RULES;
use crate::audit::settle::{is_same_share, Again, Seen, ROUNDS};
use crate::audit::sight::Sight;
use crate::exit_code::ExitCode;
use crate::machine::moment::Moment;
use crate::machine::tree::SecondPass;
use crate::machine::Machine;
use crate::origin::Origin;
use crate::plan::Output;
use crate::source::output_file::OutputFile;
use s2dump_abi::slot::VmRecord;
use s2dump_abi::target::Target;
use std::collections::BTreeMap;
use std::io::Write;

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
    let (captured, notes) = {
        let mut survey = Survey::new(device, budget, Some(&mut keep));
        survey.proc = Some(proc);
        let captured = capture(&mut survey);
        (captured, std::mem::take(&mut survey.notes))
    };
    notes.into_iter().for_each(|note| context.note(note));
    let Captured { is_whole, changed } = match captured {
        Ok(captured) => captured,
        Err(Halt::Interrupted) => return Err(super::capture::interrupted(file.as_ref()).into()),
        Err(Halt::Output(error)) => return Err(super::capture::output_failed(output, error)),
        Err(Halt::Failed(failure)) => return Err(failure.into()),
    };
    file.map_or(Ok(()), OutputFile::keep).map_err(|error| super::capture::output_failed(output, error))?;
    context.out.flush()?;
    if !changed.is_empty() {
        context.note(format_args!("changed while they were read: {}", changed.join(", ")));
    }
    context.note(format_args!("wrote {}: the whole machine, {bytes} bytes", output.name()));
    Ok(if is_whole { ExitCode::Ok } else { ExitCode::Partial })
}

/// What was captured.
pub(super) struct Captured {
    /// All tables were read.
    pub(super) is_whole: bool,
    /// Tables that a second pass found changed.
    pub(super) changed: Vec<String>,
}

/// Reads all, all again, and what looks wrong again, each in its part of the time that there is.
pub(super) fn capture(survey: &mut Survey<'_>) -> Result<Captured, Halt> {
    survey.until(50);
    survey.gather(true)?;
    survey.until(75);
    let machine = std::mem::take(&mut survey.machine);
    let mut keeping = Keeping { survey, looked: BTreeMap::new(), counted: Vec::new(), halt: None };
    // Whoever reads the capture asks the same rules, and has the looks that they needed here.
    audit(RULES, &machine, &mut keeping);
    let (counted, halt) = (keeping.counted, keeping.halt);
    if let Some(halt) = halt {
        return Err(halt);
    }
    survey.machine = machine;
    survey.until(85);
    survey.second_pass()?;
    count(survey, counted)?;
    // Who is in the list now was there all the time, if the first list has it too.
    survey.until(100);
    match survey.list() {
        Ok(()) => {}
        Err(Halt::Failed(failure)) => drop(survey.note(failure)),
        Err(halt) => return Err(halt),
    }
    let machine = std::mem::take(&mut survey.machine);
    let unread = unread(&machine);
    if !unread.is_empty() {
        survey.notes.push(format!("not read, or not all: {}", unread.join(", ")));
    }
    Ok(Captured { is_whole: unread.is_empty(), changed: at_rest(&machine, SecondPass::Differs) })
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
            Err(halt) => return Err(halt),
        }
    }
    Ok(())
}

/// Looks again at the machine, so that the answers are kept.
struct Keeping<'s, 'a> {
    survey: &'s mut Survey<'a>,
    /// What was looked at, each frame with its places once.
    looked: BTreeMap<(u64, Vec<(u64, u64)>), Moment>,
    /// Frames of which it is counted who maps them.
    counted: Vec<Sight>,
    /// Slots could not be kept.
    halt: Option<Halt>,
}

impl Again for Keeping<'_, '_> {
    fn look(&mut self, pa: u64, places: &[(Target, u64)], _: &Machine) -> Result<Seen, String> {
        let key = (pa, places.iter().map(|&(Target(target), ia)| (target, ia)).collect());
        if let Some(moment) = self.looked.get(&key) {
            return Ok(Seen::At(moment.clone()));
        }
        let moment = match &self.halt {
            None => self.survey.look(pa, places),
            Some(_) => return Err("interrupted".into()),
        };
        self.survey.machine = Machine::default();
        match moment {
            Ok(moment) => {
                self.looked.insert(key, moment.clone());
                Ok(Seen::At(moment))
            }
            Err(Halt::Failed(failure)) => Err(self.survey.note(failure)),
            Err(halt) => {
                self.halt = Some(halt);
                Err("interrupted".into())
            }
        }
    }

    /// Only looks at the frames: what is counted is not known yet.
    fn recount(&mut self, sights: &[Sight], _: &Machine) -> Vec<Result<Sight, String>> {
        self.counted = sights.to_vec();
        let pages: Vec<u64> = sights.iter().map(|sight| sight.pa).collect();
        let why = match self.survey.look_at_frames(&pages) {
            Ok(_) => "not counted yet".into(),
            Err(Halt::Failed(failure)) => self.survey.note(failure),
            Err(halt) => {
                self.halt = Some(halt);
                "interrupted".into()
            }
        };
        self.survey.machine = Machine::default();
        sights.iter().map(|_| Err(why.clone())).collect()
    }

    fn list(&mut self, machine: &Machine) -> Result<Vec<VmRecord>, String> {
        // What is not there any more is settled by the list at the end of the capture.
        Ok(machine.vms.clone())
    }
}
