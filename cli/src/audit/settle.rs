// SPDX-License-Identifier: MIT OR Apache-2.0
//! A suspect becomes a finding when the same rule breaks on what was seen at one moment.
//!
//! With `vm_table_lock`, `host_mmu.lock` and `pkvm_pgd_lock` held, no page changes hands, so what one examination tells of a
//! frame and its places is true at once. How many entries map a frame takes scans: two of them that are equal, between two
//! equal readings of the frame.

use super::pace::Pace;
use super::sight::{Sight, What};
use super::Suspect;
use crate::machine::moment::Moment;
use crate::machine::tree::SecondPass;
use crate::machine::Machine;
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{vm_flags, VmRecord};
use s2dump_abi::target::Target;
use s2dump_vmsa::pkvm::Frame;
use std::collections::BTreeMap;

/// The most pages of one suspect that are looked at again. A VM that begins or ends makes suspects of some pages that are
/// alike; one of more than these is left open.
const MOST_PAGES: usize = 64;

/// How often it is counted who maps a page before what is wrong each time is a finding.
pub(crate) const ROUNDS: usize = 6;

/// The most pages beside the first ones that are looked at again in one audit: each is a call that holds locks.
const MOST_MORE_PAGES: usize = 4096;

/// What became of a suspect.
#[derive(Clone, Debug)]
pub(crate) enum Settled {
    /// The rule does not hold, as was seen at one moment.
    Broken(String, Box<Sight>),
    /// It does.
    Holds,
    /// That could not be seen.
    Unknown(String),
}

/// A second look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// At one moment.
    At(Moment),
    /// None was needed: the trees did not change while all was read.
    AtRest,
}

/// Who looks again.
pub(crate) trait Again {
    /// Looks at a frame and places.
    ///
    /// # Errors
    ///
    /// Why that is not possible.
    fn look(&mut self, pa: u64, places: &[(Target, u64)], machine: &Machine) -> Result<Seen, String>;

    /// Counts again who maps the frames of `sights`, and returns for each what is seen, or why that is not known.
    fn recount(&mut self, sights: &[Sight], machine: &Machine) -> Vec<Result<Sight, String>>;

    /// Lists VMs again.
    ///
    /// # Errors
    ///
    /// Why that is not possible.
    fn list(&mut self, machine: &Machine) -> Result<Vec<VmRecord>, String>;
}

/// Has each suspect seen again. Those for which there is no time are not settled.
pub(super) fn settle<'s>(
    suspects: &'s [Suspect],
    machine: &Machine,
    again: &mut dyn Again,
    pace: &Pace<'_>,
) -> Vec<(&'s Suspect, Settled)> {
    let mut counted = count_again(suspects, machine, again, pace).into_iter();
    let mut more_pages = MOST_MORE_PAGES;
    let mut listed = None;
    let mut settled = Vec::with_capacity(suspects.len());
    for suspect in suspects {
        let result = if !pace.asks() {
            Settled::Unknown("no time left".into())
        } else if suspect.sight.shares.is_some() {
            let pages = counted_pages(suspect, machine).len();
            let all: Vec<_> = counted.by_ref().take(pages).collect();
            judge_counted(suspect, all, machine)
        } else if suspect.sight.vm.is_some() && suspect.sight.bytes == 0 {
            let listed = listed.get_or_insert_with(|| again.list(machine));
            judge_vm(suspect, listed)
        } else {
            look_again(suspect, machine, again, &mut more_pages)
        };
        settled.push((suspect, result));
    }
    doubt_reused_handles(&mut settled, machine, again);
    settled
}

/// Leaves open what would break a rule about a guest that is no longer the listed one: another VM may have its handle, and its
/// root at the same address, and need not be of the same kind.
fn doubt_reused_handles(settled: &mut [(&Suspect, Settled)], machine: &Machine, again: &mut dyn Again) {
    let handles = |suspect: &Suspect| -> Vec<u16> {
        let places = suspect.sight.places().into_iter().filter_map(|(target, _)| target.guest_handle());
        places.chain(suspect.sight.vm.map(|vm| vm.handle)).collect()
    };
    let is_about_a_guest = |(suspect, settled): &(&Suspect, Settled)| {
        matches!(settled, Settled::Broken(..)) && !handles(suspect).is_empty()
    };
    if !settled.iter().any(is_about_a_guest) {
        return;
    }
    let now = again.list(machine);
    let who = |vms: &[VmRecord], handle: u16| {
        let vm = vms.iter().find(|vm| vm.handle == handle)?;
        Some((vm.root, vm.pid, vm.name, vm.flags & (vm_flags::PROTECTED | vm_flags::DYING)))
    };
    for (suspect, result) in settled.iter_mut().filter(|one| is_about_a_guest(one)) {
        let is_same = |vms: &Vec<VmRecord>| {
            handles(suspect).into_iter().all(|handle| who(vms, handle) == who(&machine.vms, handle))
        };
        match &now {
            Ok(vms) if is_same(vms) => {}
            Ok(_) => *result = Settled::Unknown("the VM ended or began meanwhile".into()),
            Err(why) => *result = Settled::Unknown(why.clone()),
        }
    }
}

fn judge(suspect: &Suspect, sight: Sight, machine: &Machine) -> Settled {
    match (suspect.rule.check)(&sight, machine) {
        Some(why) => Settled::Broken(why, Box::new(sight)),
        None => Settled::Holds,
    }
}

fn judge_vm(suspect: &Suspect, listed: &Result<Vec<VmRecord>, String>) -> Settled {
    let vms = match listed {
        Ok(vms) => vms.clone(),
        Err(why) => return Settled::Unknown(why.clone()),
    };
    let is_it =
        |vm: &&VmRecord| suspect.sight.vm.is_some_and(|before| (before.handle, before.root) == (vm.handle, vm.root));
    let Some(vm) = vms.iter().find(is_it).copied() else { return Settled::Holds };
    let sight = Sight { vm: Some(vm), ..suspect.sight.clone() };
    judge(suspect, sight, &Machine::listing(vms))
}

/// Looks at the pages of a suspect, one after the other, until one of them is wrong: that one is in order by now says
/// nothing of those that were like it.
fn look_again(suspect: &Suspect, machine: &Machine, again: &mut dyn Again, more_pages: &mut usize) -> Settled {
    let mut sight = suspect.sight.clone();
    for pages in 1..=MOST_PAGES {
        match look_at(suspect, &sight, machine, again) {
            Settled::Holds => {}
            other => return other,
        }
        match (sight.without_first(machine), more_pages.checked_sub(1)) {
            (None, _) => return Settled::Holds,
            (Some(_), None) => return Settled::Unknown(first_pages(pages)),
            (Some(rest), Some(left)) => (sight, *more_pages) = (rest, left),
        }
    }
    Settled::Unknown(first_pages(MOST_PAGES))
}

fn first_pages(pages: usize) -> String {
    format!("its first {pages} pages are in order by now, the rest was not looked at again")
}

/// Counts who maps the pages of suspects, and again those that are still wrong. A guest that takes a page and gives it back, over
/// and over, can have it at both readings and at no scan; it has not so often.
fn count_again(
    suspects: &[Suspect],
    machine: &Machine,
    again: &mut dyn Again,
    pace: &Pace<'_>,
) -> Vec<Result<Sight, String>> {
    let pages = |suspect| counted_pages(suspect, machine).into_iter().map(move |page| (suspect, page));
    let pages: Vec<(&Suspect, Sight)> = suspects.iter().flat_map(pages).collect();
    let mut counted: Vec<Result<Sight, String>> = pages.iter().map(|(_, page)| Ok(page.clone())).collect();
    for _ in 0..ROUNDS {
        let is_wrong = |((suspect, _), counted): &(&(&Suspect, Sight), &mut Result<Sight, String>)| {
            counted.as_ref().is_ok_and(|sight| (suspect.rule.check)(sight, machine).is_some())
        };
        let wrong: Vec<_> = pages.iter().zip(&mut counted).filter(is_wrong).collect();
        if wrong.is_empty() || !pace.asks() {
            break;
        }
        let sights: Vec<Sight> = wrong.iter().map(|((_, page), _)| page.clone()).collect();
        let mut now = again.recount(&sights, machine).into_iter();
        for (_, counted) in wrong {
            *counted = now.next().unwrap_or_else(|| Err("it was not counted again".into()));
        }
    }
    counted
}

/// Returns the pages of a suspect that are counted again: none if it is not about a count.
fn counted_pages(suspect: &Suspect, machine: &Machine) -> Vec<Sight> {
    let first = suspect.sight.shares.map(|_| suspect.sight.clone());
    std::iter::successors(first, |sight| sight.without_first(machine)).take(MOST_PAGES).collect()
}

/// Judges the pages of a suspect, which were counted again: the first that is wrong, and the pages that follow, is a finding.
fn judge_counted(suspect: &Suspect, pages: Vec<Result<Sight, String>>, machine: &Machine) -> Settled {
    let (mut unknown, count) = (None, pages.len());
    for page in pages {
        match page.map(|sight| judge(suspect, sight, machine)) {
            Ok(Settled::Holds) => {}
            Ok(broken) => return broken,
            Err(why) => unknown = Some(why),
        }
    }
    let is_all = suspect.sight.bytes <= (count as u64) << machine.page_shift();
    match (unknown, is_all) {
        (Some(why), _) => Settled::Unknown(why),
        (None, false) => Settled::Unknown(first_pages(count)),
        (None, true) => Settled::Holds,
    }
}

fn look_at(suspect: &Suspect, before: &Sight, machine: &Machine, again: &mut dyn Again) -> Settled {
    let moment = match again.look(before.pa, &before.places(), machine) {
        Ok(Seen::AtRest) => return judge(suspect, before.clone(), machine),
        Ok(Seen::At(moment)) => moment,
        Err(why) => return Settled::Unknown(why),
    };
    let Some(sight) = before.again(&moment, machine) else {
        return Settled::Unknown("a table changed its root meanwhile, or was not looked at".into());
    };
    let is_unread = |what: &What| matches!(what, What::Gone(status) if *status != Status::NO_SUCH_VM);
    let held = [&sight.first, &sight.second];
    if held.into_iter().flatten().any(|held| is_unread(&held.what)) {
        return Settled::Unknown("a table could not be read".into());
    }
    if !sight.is_about(before) {
        return Settled::Holds;
    }
    judge(suspect, sight, machine)
}

/// What a capture says of second looks.
#[derive(Default)]
pub(crate) struct Stored {
    /// Places in the list of moments, for each frame.
    moments: Option<BTreeMap<u64, Vec<usize>>>,
}

impl Stored {
    /// Returns the looks at a frame.
    fn moments<'m>(&mut self, pa: u64, machine: &'m Machine) -> Vec<&'m Moment> {
        let index = self.moments.get_or_insert_with(|| {
            let mut index: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
            machine.moments.iter().enumerate().for_each(|(at, moment)| index.entry(moment.pa).or_default().push(at));
            index
        });
        index.get(&pa).into_iter().flatten().filter_map(|&at| machine.moments.get(at)).collect()
    }
}

impl Again for Stored {
    fn look(&mut self, pa: u64, places: &[(Target, u64)], machine: &Machine) -> Result<Seen, String> {
        let has = |moment: &&Moment| places.iter().all(|&(target, ia)| moment.look(target, ia).is_some());
        if let Some(moment) = self.moments(pa, machine).into_iter().find(has) {
            return Ok(Seen::At(moment.clone()));
        }
        let is_at_rest = |&(target, _): &(Target, u64)| match machine.tree(target) {
            Some(tree) => tree.is_complete && tree.second == SecondPass::Same,
            // A VM that no list has has no table.
            None => target.guest_handle().is_some_and(|handle| {
                let is_in = |vms: &[VmRecord]| vms.iter().any(|vm| vm.handle == handle);
                machine.is_listed && !is_in(&machine.vms) && machine.last_vms.as_ref().is_some_and(|last| !is_in(last))
            }),
        };
        // It comes and goes with each call, which a second pass does not call a change.
        if machine.known.is_ring(pa) {
            return Err("s2dump itself uses the page, and the capture has no second look at it".into());
        }
        match (places.iter().all(is_at_rest), machine.frames.is_empty() || machine.frames.is_at_rest(pa)) {
            (true, true) => Ok(Seen::AtRest),
            (false, _) => Err("the tables were not at rest, and the capture has no second look at it".into()),
            (true, false) => Err("the frame was not at rest, or the capture does not tell".into()),
        }
    }

    fn recount(&mut self, sights: &[Sight], machine: &Machine) -> Vec<Result<Sight, String>> {
        let mut recount = |sight: &Sight| {
            if !machine.are_guests_at_rest() || !machine.is_listed_alike() {
                return Err("guests changed while they were read".into());
            }
            // A look before the guests' tables were read again, and one each time after that.
            let moments = self.moments(sight.pa, machine);
            let late = moments.iter().filter(|moment| moment.is_late).count();
            let is_same = moments.iter().all(|moment| is_same_share(machine, moment.frame, sight.frame));
            match is_same && late >= ROUNDS && late < moments.len() {
                true => Ok(sight.clone()),
                false => Err("the frame changed while guests were read, or was not read again".into()),
            }
        };
        sights.iter().map(&mut recount).collect()
    }

    fn list(&mut self, machine: &Machine) -> Result<Vec<VmRecord>, String> {
        machine.last_vms.clone().ok_or_else(|| "the capture has no second list of VMs".into())
    }
}

/// Returns whether two readings of a frame say the same of who shares it.
pub(crate) fn is_same_share(machine: &Machine, one: Option<u64>, other: Option<u64>) -> bool {
    let share = |raw: Option<u64>| {
        let frame: Option<Frame> = raw.and_then(|raw| machine.frames.decode(raw));
        frame.map(|frame| (frame.host, frame.hyp, frame.share_count))
    };
    share(one) == share(other)
}
