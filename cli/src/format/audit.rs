// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an audit found, for people and as JSON.

use super::grid;
use super::hex::Hex;
use super::json::FORMAT_VERSION;
use crate::audit::finding::{Finding, Site, Unsettled};
use crate::audit::rules::{Rule, RULES};
use crate::audit::{NotRun, Report};
use crate::numbers::Size;
use serde::Serialize;
use std::fmt::Arguments;
use std::io::{self, Write};

/// What no audit looks at.
const NOT_EXAMINED: &str = "DMA (tables of SMMUs), the secure world (FF-A), caches and TLBs";

/// Unsettled suspects that are told to people; all are counted, and JSON has them.
const MOST_TOLD: usize = 20;

/// Lists all rules for people, whose terminal, if it is one, is so wide.
pub(crate) fn write_rules(out: &mut dyn Write, width: Option<usize>) -> io::Result<()> {
    let longest = RULES.iter().map(|rule| rule.id.len()).max().unwrap_or(0);
    RULES.iter().try_for_each(|rule| {
        grid::write_text(out, &format!("{:<longest$}  {}", rule.id, rule.meaning), longest + 2, width)
    })
}

/// Lists all rules as JSON, one in each line.
pub(crate) fn write_rules_json(out: &mut dyn Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line {
        r#type: &'static str,
        rule: &'static str,
        meaning: &'static str,
        broken: &'static str,
    }
    for rule in RULES {
        let line = Line { r#type: "rule", rule: rule.id, meaning: rule.meaning, broken: rule.broken };
        serde_json::to_writer(&mut *out, &line)?;
        writeln!(out)?;
    }
    Ok(())
}

/// How tables were read.
pub(crate) struct Tables {
    /// Not, or not all of them.
    pub(crate) unread: Vec<String>,
    /// Twice, and they were the same.
    pub(crate) at_rest: Vec<String>,
    /// Twice, and they were not.
    pub(crate) changed: Vec<String>,
}

/// What a line of a finding begins with, and those that it goes on in.
const INDENT: usize = "  entry  ".len();

/// Writes `report` for people, whose terminal, if it is one, is so wide.
pub(crate) fn write_text(
    out: &mut dyn Write,
    report: &Report,
    tables: &Tables,
    width: Option<usize>,
) -> io::Result<()> {
    let mut line = |indent, text: Arguments<'_>| grid::write_text(out, &text.to_string(), indent, width);
    for Finding { rule, why, site } in &report.findings {
        line(2, format_args!("FINDING {}: {why}", rule.id))?;
        write_site(site, |text| line(INDENT, text))?;
        line(INDENT, format_args!("  rule   {}", rule.meaning))?;
        line(INDENT, format_args!("  means  {}", rule.broken))?;
    }
    for Unsettled { rule, why, site } in report.unsettled.iter().take(MOST_TOLD) {
        line(2, format_args!("unsettled {} at {:#x}: {why}", rule.id, site.pa))?;
    }
    let unsettled = report.unsettled.len() as u64 + report.more_unsettled;
    if unsettled > MOST_TOLD as u64 {
        line(2, format_args!("unsettled: {} more", unsettled - MOST_TOLD as u64))?;
    }
    let mut reasons: Vec<&NotRun> = Vec::new();
    for (_, why) in &report.not_run {
        if !reasons.contains(&why) {
            reasons.push(why);
        }
    }
    for why in reasons {
        let rules = report.not_run.iter().filter(|(_, other)| other == why).map(|(rule, _)| rule.id);
        let rules = rules.collect::<Vec<_>>().join(", ");
        match why {
            NotRun::NotApplicable => line(2, format_args!("not applicable to this kernel: {rules}"))?,
            NotRun::Lacks(need) => line(2, format_args!("not asked, for want of {}: {rules}", need.words()))?,
            NotRun::NoTime => line(2, format_args!("not asked to their end, for want of time: {rules}"))?,
        }
    }
    let Tables { unread, at_rest, changed } = tables;
    for (words, tables) in [
        ("at rest while they were read", at_rest),
        ("changed while they were read", changed),
        ("not read, or not all", unread),
    ] {
        if !tables.is_empty() {
            line(2, format_args!("{words}: {}", tables.join(", ")))?;
        }
    }
    line(
        2,
        format_args!(
            "rules asked: {}, not: {}; findings: {}, unsettled: {unsettled}, settled by a second look: {}",
            report.asked.len(),
            report.not_run.len(),
            report.findings.len(),
            report.dismissed
        ),
    )?;
    line(2, format_args!("not examined: {NOT_EXAMINED}"))
}

fn write_site(site: &Site, mut line: impl FnMut(Arguments<'_>) -> io::Result<()>) -> io::Result<()> {
    if site.bytes > 0 {
        let ring = if site.is_ring { ", shared by s2dump itself" } else { "" };
        line(format_args!("  page   {:#x}, {}{ring}", site.pa, Size(site.bytes)))?;
    }
    if let Some((raw, words)) = &site.frame {
        line(format_args!("  frame  {raw:#018x} {words}"))?;
    }
    for entry in &site.evidence {
        let level = entry.level.map_or("-".into(), |level| format!("L{level}"));
        let (table, ia, raw, text) = (entry.table(), entry.ia, entry.raw, &entry.text);
        line(format_args!("  entry  {table} {ia:#x} {level} {raw:#018x} {text}"))?;
    }
    Ok(())
}

#[derive(Serialize)]
struct EntryJson<'a> {
    target: String,
    ia: Hex,
    ia_pfn: u64,
    level: Option<i8>,
    raw: Hex,
    text: &'a str,
}

#[derive(Serialize)]
struct SiteJson<'a> {
    r#type: &'static str,
    rule: &'static str,
    meaning: &'static str,
    broken: &'static str,
    why: &'a str,
    pa: Hex,
    pa_pfn: u64,
    size_bytes: u64,
    frame: Option<Hex>,
    frame_state: Option<&'a str>,
    is_ring: bool,
    entries: Vec<EntryJson<'a>>,
}

impl<'a> SiteJson<'a> {
    fn new(r#type: &'static str, rule: &'static Rule, why: &'a str, site: &'a Site, page_shift: u32) -> Self {
        let entries = site.evidence.iter().map(|entry| EntryJson {
            target: entry.table(),
            ia: Hex(entry.ia),
            ia_pfn: entry.ia >> page_shift,
            level: entry.level,
            raw: Hex(entry.raw),
            text: &entry.text,
        });
        Self {
            r#type,
            rule: rule.id,
            meaning: rule.meaning,
            broken: rule.broken,
            why,
            pa: Hex(site.pa),
            pa_pfn: site.pa >> page_shift,
            size_bytes: site.bytes,
            frame: site.frame.as_ref().map(|(raw, _)| Hex(*raw)),
            frame_state: site.frame.as_ref().map(|(_, words)| words.as_str()),
            is_ring: site.is_ring,
            entries: entries.collect(),
        }
    }
}

/// Writes `report` as JSON: a line for each finding and each unsettled suspect, and one in the end. Pages have `1 << page_shift`
/// bytes.
pub(crate) fn write_json(out: &mut dyn Write, report: &Report, tables: &Tables, page_shift: u32) -> io::Result<()> {
    #[derive(Serialize)]
    struct NotRunJson {
        rule: &'static str,
        why: &'static str,
    }
    #[derive(Serialize)]
    struct Summary<'a> {
        r#type: &'static str,
        format: &'static str,
        version: &'static str,
        asked: Vec<&'static str>,
        not_run: Vec<NotRunJson>,
        findings: usize,
        unsettled: u64,
        settled: u64,
        unread: &'a [String],
        at_rest: &'a [String],
        changed: &'a [String],
        not_examined: &'static str,
    }
    let findings = report.findings.iter().map(|f| SiteJson::new("finding", f.rule, &f.why, &f.site, page_shift));
    let unsettled = report.unsettled.iter().map(|u| SiteJson::new("unsettled", u.rule, &u.why, &u.site, page_shift));
    for line in findings.chain(unsettled) {
        serde_json::to_writer(&mut *out, &line)?;
        writeln!(out)?;
    }
    let not_run = report.not_run.iter().map(|(rule, why)| NotRunJson {
        rule: rule.id,
        why: match why {
            NotRun::NotApplicable => "not applicable to this kernel",
            NotRun::Lacks(need) => need.words(),
            NotRun::NoTime => "no time left",
        },
    });
    let summary = Summary {
        r#type: "audit",
        format: "s2dump.audit",
        version: FORMAT_VERSION,
        asked: report.asked.iter().map(|rule| rule.id).collect(),
        not_run: not_run.collect(),
        findings: report.findings.len(),
        unsettled: report.unsettled.len() as u64 + report.more_unsettled,
        settled: report.dismissed,
        unread: &tables.unread,
        at_rest: &tables.at_rest,
        changed: &tables.changed,
        not_examined: NOT_EXAMINED,
    };
    serde_json::to_writer(&mut *out, &summary)?;
    writeln!(out)
}
