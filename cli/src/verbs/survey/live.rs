// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an audit of this machine sees when it looks again.

use super::{Halt, Survey, NO_TIME};
use crate::audit::settle::{is_same_share, Again, Seen};
use crate::audit::shares_at;
use crate::audit::sight::Sight;
use crate::machine::Machine;
use crate::source::SourceError;
use crate::verbs::list_vms;
use s2dump_abi::hypercall::DumpFlags;
use s2dump_abi::slot::VmRecord;
use s2dump_abi::target::Target;

/// Looks again at the machine that this runs on.
pub(in crate::verbs) struct Live<'s, 'a>(pub(in crate::verbs) &'s mut Survey<'a>);

fn why(halt: Halt) -> String {
    match halt {
        Halt::Failed(failure) => failure.message,
        Halt::Output(error) => error.to_string(),
        Halt::Interrupted => SourceError::Interrupted.to_string(),
        Halt::NoTime => NO_TIME.into(),
    }
}

impl Live<'_, '_> {
    /// Counts who maps the frames at `pages`: two scans between two readings, with the same VMs all the time.
    fn count(&mut self, pages: &[u64], machine: &Machine) -> Result<Vec<Result<Sight, String>>, Halt> {
        let survey = &mut *self.0;
        survey.machine = Machine::default();
        let before = survey.look_at_frames(pages)?;
        survey.dump_guests(DumpFlags::EXACT.union(DumpFlags::DIGEST))?;
        survey.guests_again()?;
        let after = survey.look_at_frames(pages)?;
        let scanned = std::mem::take(&mut survey.machine);
        let is_same = scanned.is_listed_alike() && scanned.are_guests_at_rest();
        let shares = shares_at(&scanned, pages);
        let sights = before.iter().zip(&after).zip(shares);
        Ok(sights
            .map(|((before, after), shares)| match is_same {
                false => Err("guests changed while they were read".into()),
                true if !is_same_share(machine, before.frame, after.frame) => {
                    Err("the frame changed while guests were read".into())
                }
                true => Ok(Sight { frame: after.frame, shares: Some(shares), ..Sight::of(after.pa, 0) }),
            })
            .collect())
    }
}

impl Again for Live<'_, '_> {
    fn look(&mut self, pa: u64, places: &[(Target, u64)], _: &Machine) -> Result<Seen, String> {
        let moment = self.0.look(pa, places).map_err(why);
        self.0.machine.moments.clear();
        moment.map(Seen::At)
    }

    fn recount(&mut self, sights: &[Sight], machine: &Machine) -> Vec<Result<Sight, String>> {
        let pages: Vec<u64> = sights.iter().map(|sight| sight.pa).collect();
        match self.count(&pages, machine) {
            Ok(counted) => {
                let with_bytes = |(counted, sight): (Result<Sight, String>, &Sight)| {
                    counted.map(|counted| Sight { bytes: sight.bytes, ..counted })
                };
                counted.into_iter().zip(sights).map(with_bytes).collect()
            }
            Err(halt) => {
                let why = why(halt);
                sights.iter().map(|_| Err(why.clone())).collect()
            }
        }
    }

    fn list(&mut self, _: &Machine) -> Result<Vec<VmRecord>, String> {
        list_vms(&mut self.0.device).map_err(|failure| failure.message)
    }
}
