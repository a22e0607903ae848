// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an audit found: the rule that does not hold, and the entries that show it.

use super::rules::{self, Rule};
use super::sight::{Held, Sight, What};
use crate::leaf;
use crate::machine::Machine;
use crate::meaning;
use crate::model::{target_name, Row};
use crate::words;
use s2dump_abi::target::Target;
use std::collections::BTreeMap;

/// A rule that does not hold, and where.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    /// The rule.
    pub(crate) rule: &'static Rule,
    /// What is wrong here.
    pub(crate) why: String,
    /// Where.
    pub(crate) site: Site,
}

/// What could not be seen at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Unsettled {
    /// The rule.
    pub(crate) rule: &'static Rule,
    /// Why not.
    pub(crate) why: String,
    /// Where.
    pub(crate) site: Site,
}

/// A page frame with the evidence.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// Physical address.
    pub(crate) pa: u64,
    /// How many bytes look alike. Of them, the first page is as it was seen at one moment, or by a second count.
    pub(crate) bytes: u64,
    /// The entries, table pages and VMs.
    pub(crate) evidence: Vec<Evidence>,
    /// What pKVM keeps about the frame, as it stands in memory and in words.
    pub(crate) frame: Option<(u64, String)>,
    /// It is a page that s2dump itself shares with EL2.
    pub(crate) is_ring: bool,
}

/// An entry of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// Of which table.
    pub(crate) target: Target,
    /// Its input address.
    pub(crate) ia: u64,
    /// Its level; `None` of a root, or if there is no entry.
    pub(crate) level: Option<i8>,
    /// As it stands in the table.
    pub(crate) raw: u64,
    /// What it says.
    pub(crate) text: String,
}

impl Evidence {
    /// Returns the name of the table.
    pub(crate) fn table(&self) -> String {
        target_name(self.target)
    }
}

impl Finding {
    /// Makes one of what was seen.
    pub(crate) fn new(rule: &'static Rule, why: String, sight: &Sight, machine: &Machine) -> Self {
        Self { rule, why, site: Site::of(sight, machine) }
    }
}

impl Unsettled {
    /// Makes one of what was suspected.
    pub(crate) fn new(rule: &'static Rule, why: String, sight: &Sight, machine: &Machine) -> Self {
        Self { rule, why, site: Site::of(sight, machine) }
    }
}

impl Site {
    fn of(sight: &Sight, machine: &Machine) -> Self {
        let host = sight.host.map(|row| Held { target: Target::HOST, ia: sight.pa, what: What::Entry(row) });
        let held = [&sight.first, &sight.second, &host].into_iter().flatten();
        let frame = sight.frame.filter(|_| sight.bytes > 0).map(|raw| (raw, words::frame(machine.frames.decode(raw))));
        Self {
            pa: sight.pa,
            bytes: sight.bytes,
            evidence: held.map(|held| evidence(held, machine)).collect(),
            frame,
            is_ring: machine.known.is_ring(sight.pa),
        }
    }

    /// Returns whether `next` is the same of the pages that follow.
    fn goes_on(&self, next: &Self) -> bool {
        let end = self.pa.wrapping_add(self.bytes);
        let follows = |(a, b): (&Evidence, &Evidence)| {
            (a.target, a.level) == (b.target, b.level) && a.ia.wrapping_add(self.bytes) == b.ia
        };
        let evidence = self.evidence.len() == next.evidence.len()
            && self.evidence.iter().zip(&next.evidence).all(follows)
            && !self.evidence.is_empty();
        end == next.pa && evidence && self.is_ring == next.is_ring
    }

    /// Returns its first address, and the first after it.
    fn range(&self) -> (u64, u64) {
        (self.pa, self.pa.saturating_add(self.bytes))
    }
}

fn evidence(held: &Held, machine: &Machine) -> Evidence {
    let (target, ia) = (held.target, held.ia);
    match &held.what {
        What::Entry(row) => {
            Evidence { target, ia, level: Some(row.level.get()), raw: row.raw, text: entry_words(target, row, machine) }
        }
        What::Table(page) if page.raw == 0 => {
            Evidence { target, ia, level: None, raw: page.raw, text: format!("root table page {:#x}", page.pa) }
        }
        What::Table(page) => {
            let text = format!("table page {:#x} of level {}", page.pa, page.level);
            Evidence { target, ia, level: Some(page.level - 1), raw: page.raw, text }
        }
        What::Gone(status) => {
            Evidence { target, ia, level: None, raw: 0, text: format!("no table (status {})", status.0) }
        }
    }
}

/// Returns what an entry says: rights, state or annotation, and where it leads.
pub(crate) fn entry_words(target: Target, row: &Row, machine: &Machine) -> String {
    let Some(tree) = machine.tree(target) else { return String::new() };
    let mut words = Vec::new();
    if row.is_hole() {
        return "hole".into();
    }
    if let Some(leaf) = leaf::of_row(row, &tree.table) {
        words.push(leaf.rwx(&tree.table).to_string());
    }
    let state = meaning::state(row, &tree.table);
    if state != "-" {
        words.push(state.to_string());
    }
    if let Some(oa) = row.oa {
        words.push(format!("-> {oa:#x}"));
    }
    words.join(" ")
}

/// Drops findings that others say better, and joins those of neighboring pages.
pub(super) fn tidy(findings: &mut Vec<Finding>) {
    // Of each rule where it does not hold: few count for a finding, and there may be many.
    let mut said: BTreeMap<&'static str, Vec<(u64, u64)>> = BTreeMap::new();
    findings.iter().for_each(|finding| said.entry(finding.rule.id).or_default().push(finding.site.range()));
    findings.retain(|finding| {
        let (pa, end) = finding.site.range();
        let better = finding.rule.yields_to.iter().filter_map(|id| said.get(id)).flatten();
        !better.into_iter().any(|&(other, other_end)| pa < other_end && other < end)
    });
    findings.sort_by_key(|finding| (rules::place(finding.rule), finding.site.pa));
    findings.dedup_by(|next, last| {
        let joins = next.rule == last.rule && last.site.goes_on(&next.site);
        if joins {
            last.site.bytes += next.site.bytes;
        }
        joins
    });
}
