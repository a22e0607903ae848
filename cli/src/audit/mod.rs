// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether isolation is intact: rules over a machine, and what they find.
//!
//! A rule looks at a [`Sight`]: a page frame with what tables say of it. [`scan`] makes the sights of a whole
//! machine, in which different parts were read at different times. So what breaks a rule there is a suspect only. [`settle`]
//! has the same sight seen again, at one moment, and asks the same rule again.

mod cut;
pub(crate) mod finding;
pub(crate) mod pace;
mod pairs;
pub(crate) mod rules;
mod scan;
pub(crate) mod settle;
pub(crate) mod sight;

use crate::machine::Machine;
use finding::{Finding, Unsettled};
use pace::Pace;
pub(crate) use pairs::shares_at;
use rules::{Need, Rule, Scope};
use settle::{Again, Settled};
use sight::Sight;
use std::collections::BTreeMap;

/// Why a rule was not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotRun {
    /// The kernel's encoding is none it holds for.
    NotApplicable,
    /// Something it needs was not read.
    Lacks(Need),
    /// It was asked, but not to its end, or not at all.
    NoTime,
}

/// What an audit came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// The rules that were asked.
    pub(crate) asked: Vec<&'static Rule>,
    /// Those that were not, and why.
    pub(crate) not_run: Vec<(&'static Rule, NotRun)>,
    /// What is wrong.
    pub(crate) findings: Vec<Finding>,
    /// What looked wrong, and could not be seen at one moment.
    pub(crate) unsettled: Vec<Unsettled>,
    /// How many more there were.
    pub(crate) more_unsettled: u64,
    /// Suspects that a second look did not confirm.
    pub(crate) dismissed: u64,
}

/// What breaks a rule, as far as parts that were read at different times tell.
#[derive(Clone, Debug)]
pub(crate) struct Suspect {
    /// The rule.
    pub(crate) rule: &'static Rule,
    /// What was seen.
    pub(crate) sight: Sight,
}

/// The suspects of a machine.
#[derive(Debug, Default)]
struct Suspects {
    /// The first of them.
    list: Vec<Suspect>,
    /// How many there are beside them.
    more: u64,
    /// How many of the list are of each rule.
    of_rules: BTreeMap<&'static str, usize>,
}

/// The most suspects of one rule that are looked at again: a machine that moves has a few, a broken one needs no more to be
/// seen. Of each rule, so that what moves hides nothing of what other rules see.
const MOST_SUSPECTS: usize = 1024;

impl Suspects {
    fn add(&mut self, suspect: Suspect) {
        let count = self.of_rules.entry(suspect.rule.id).or_default();
        if *count < MOST_SUSPECTS {
            *count += 1;
            self.list.push(suspect);
        } else {
            self.more += 1;
        }
    }
}

/// Decides which of `rules` can be asked about `machine`.
fn select(rules: &[&'static Rule], machine: &Machine) -> Report {
    let mut report = Report::default();
    let encodings = machine.encodings();
    for &rule in rules {
        let holds = |number: &u16| match rule.scope {
            Scope::Any => true,
            Scope::Encodings(known) => known.iter().any(|encoding| encoding.0 == *number),
        };
        let lacks = rule.needs.iter().copied().find(|need| !need.is_met(machine));
        match lacks {
            _ if !encodings.iter().all(holds) => report.not_run.push((rule, NotRun::NotApplicable)),
            Some(need) => report.not_run.push((rule, NotRun::Lacks(need))),
            None => report.asked.push(rule),
        }
    }
    report
}

/// Rules that were asked about a machine, and what looked wrong.
pub(crate) struct Asked {
    report: Report,
    suspects: Vec<Suspect>,
}

/// Asks `rules` about `machine`.
pub(crate) fn ask(rules: &[&'static Rule], machine: &Machine, pace: &Pace<'_>) -> Asked {
    let mut report = select(rules, machine);
    let mut suspects = Suspects::default();
    let mut tell = |rule, sight: &Sight| suspects.add(Suspect { rule, sight: sight.clone() });
    let unfinished = scan::scan(&report.asked, machine, pace, &mut tell);
    let (not_run, asked) = report.asked.into_iter().partition(|rule| unfinished.contains(rule));
    report.asked = asked;
    report.not_run.extend(Vec::into_iter(not_run).map(|rule| (rule, NotRun::NoTime)));
    report.more_unsettled = suspects.more;
    Asked { report, suspects: suspects.list }
}

impl Asked {
    /// Has what looked wrong seen again by `again`; may be called again.
    pub(crate) fn settle(&self, machine: &Machine, again: &mut dyn Again, pace: &Pace<'_>) -> Report {
        let mut report = self.report.clone();
        for (suspect, settled) in settle::settle(&self.suspects, machine, again, pace) {
            match settled {
                Settled::Broken(why, sight) => report.findings.push(Finding::new(suspect.rule, why, &sight, machine)),
                Settled::Holds => report.dismissed += 1,
                Settled::Unknown(why) => {
                    report.unsettled.push(Unsettled::new(suspect.rule, why, &suspect.sight, machine));
                }
            }
        }
        finding::tidy(&mut report.findings);
        report.unsettled.sort_by_key(|one| (rules::place(one.rule), one.site.pa));
        report
    }
}

/// Asks `rules` about `machine`, and has suspects seen again by `again`.
pub(crate) fn audit(rules: &[&'static Rule], machine: &Machine, again: &mut dyn Again, pace: &Pace<'_>) -> Report {
    ask(rules, machine, pace).settle(machine, again, pace)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However much moves that one rule looks at, what others see is looked at again.
    #[test]
    fn good_suspects_of_a_rule_leave_room_for_others() {
        let mut suspects = Suspects::default();
        let [often, once, ..] = rules::RULES else { panic!("two rules") };
        let mut add = |rule, times| (0..times).for_each(|_| suspects.add(Suspect { rule, sight: Sight::of(0, 0) }));
        add(*often, MOST_SUSPECTS + 3);
        add(*once, 1);
        assert_eq!((suspects.list.len(), suspects.more), (MOST_SUSPECTS + 1, 3));
        assert_eq!(suspects.list.last().map(|suspect| suspect.rule.id), Some(once.id));
    }
}
