// SPDX-License-Identifier: MIT OR Apache-2.0
//! What will be done with a whole machine.

use super::input::Input;
use crate::args::machine::{Audit, Diff, Rmap};
use crate::args::watch::Watch;
use crate::args::Selector;
use crate::audit::rules::{find, Rule, RULES};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::filter::{Filter, Wanted};
use crate::numbers::AddressRange;
use std::path::PathBuf;
use std::time::Duration;

/// How to look for who uses memory.
#[derive(Debug)]
pub(crate) struct RmapPlan {
    /// Which memory.
    pub(crate) span: AddressRange,
    /// Which tables: all of the device or a capture, or the one of an image.
    pub(crate) input: Input,
    /// Which uses.
    pub(crate) wanted: Wanted,
    /// As JSON.
    pub(crate) json: bool,
}

impl RmapPlan {
    /// Decides what `rmap` asks for.
    pub(super) fn new(rmap: Rmap) -> Result<Self, Failure> {
        let all = rmap.image.ram.is_empty().then_some(Selector::All);
        let input = Input::new(all, rmap.input, rmap.image)?;
        Ok(Self { span: rmap.span, input, wanted: rmap.rows.into(), json: rmap.json })
    }
}

/// How to audit.
#[derive(Debug)]
pub(crate) struct AuditPlan {
    /// A capture, else the device.
    pub(crate) input: Option<PathBuf>,
    /// The rules to ask.
    pub(crate) rules: Vec<&'static Rule>,
    /// As JSON.
    pub(crate) json: bool,
}

impl AuditPlan {
    /// Decides what `audit` asks for.
    pub(super) fn new(audit: Audit) -> Result<Self, Failure> {
        let rules = |ids: &[String]| ids.iter().map(|id| rule(id)).collect::<Result<Vec<_>, Failure>>();
        let (only, except) = (rules(&audit.rule)?, rules(&audit.except)?);
        let is_wanted = |rule: &&Rule| (only.is_empty() || only.contains(rule)) && !except.contains(rule);
        let rules: Vec<_> = RULES.iter().copied().filter(is_wanted).collect();
        if rules.is_empty() {
            return Err(Failure::new(ExitCode::UsageOrIo, "no rule is left to ask"));
        }
        Ok(Self { input: audit.input, rules, json: audit.json })
    }
}

/// Where a reading comes from.
#[derive(Debug)]
pub(crate) enum Reading {
    /// A capture.
    Capture(PathBuf),
    /// The machine, this table of it.
    Live(Selector),
}

/// What to compare.
#[derive(Debug)]
pub(crate) struct DiffPlan {
    /// The reading that came first.
    pub(crate) old: Reading,
    /// The later one.
    pub(crate) new: Reading,
    /// How long to wait between two readings of the machine.
    pub(crate) wait: Duration,
    /// Which changes.
    pub(crate) wanted: Wanted,
    /// As JSON.
    pub(crate) json: bool,
}

impl DiffPlan {
    /// Decides what `diff` asks for.
    pub(super) fn new(diff: Diff) -> Result<Self, Failure> {
        let (old, new) = match (diff.old, diff.new, diff.live) {
            (Some(old), Some(new), None) => (Reading::Capture(old), Reading::Capture(new)),
            (Some(old), None, Some(live)) => (Reading::Capture(old), Reading::Live(live)),
            (None, None, Some(live)) => (Reading::Live(live.clone()), Reading::Live(live)),
            _ => {
                let failure = Failure::new(ExitCode::UsageOrIo, "diff compares two readings");
                return Err(failure.hint("name two captures, or one and --live TARGET"));
            }
        };
        let wait = Duration::from_secs(diff.wait.into());
        Ok(Self { old, new, wait, wanted: diff.rows.into(), json: diff.json })
    }
}

/// What to watch.
#[derive(Debug)]
pub(crate) struct WatchPlan {
    /// Which tables.
    pub(crate) target: Selector,
    /// From one reading to the next.
    pub(crate) interval: Duration,
    /// The most that reading may take of one CPU, in percent.
    pub(crate) share: u32,
    /// Readings before it ends.
    pub(crate) count: Option<u64>,
    /// Which changes.
    pub(crate) filter: Filter,
    /// As JSON.
    pub(crate) json: bool,
}

impl WatchPlan {
    /// Decides what `watch` asks for.
    pub(super) fn new(watch: Watch) -> Self {
        Self {
            target: watch.target,
            interval: Duration::from_millis(watch.interval.into()),
            share: watch.share,
            count: watch.count,
            filter: watch.filters.into(),
            json: watch.ndjson,
        }
    }
}

fn rule(id: &str) -> Result<&'static Rule, Failure> {
    let unknown =
        || Failure::new(ExitCode::UsageOrIo, format_args!("`{id}` is no rule")).hint("see `s2dump audit --list`");
    find(id).ok_or_else(unknown)
}
