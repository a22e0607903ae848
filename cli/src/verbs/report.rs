// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump report -O FILE`: all that a bug report needs, in the time that there is.
//!
//! The machine is captured as `capture --all` does it, in parts that end in time ([`Part`]). Between the first reading and the
//! rest the verbs tell what was read: what they do is cheap, and so the audit, which is not, takes no time from them. All is kept in
//! memory and written in the end, text first.

use super::audit::tables;
use super::capture::{check_output, create, interrupted, output_failed};
use super::capture_all::{read_again, suspect, Suspected};
use super::survey::{Halt, Survey, NO_TIME};
use super::time_limit::{Now, Part, TimeLimit};
use super::{Context, Stop};
use crate::args::Cli;
use crate::audit::pace::Pace;
use crate::audit::settle::Stored;
use crate::audit::NotRun;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::format::audit as format;
use crate::origin::Origin;
use crate::pager::Screen;
use crate::plan::report::ReportPlan;
use crate::plan::Plan;
use crate::source::file::{FileSource, REPORT};
use crate::source::interrupts;
use crate::source::output_file::OutputFile;
use crate::source::system::System;
use clap::Parser;
use std::cell::{Cell, RefCell};
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::rc::Rc;
use std::time::Duration;

/// What is told of the first reading, in this order, each by a verb of its own.
const SECTIONS: [(&str, &str, &[&str]); 3] = [
    ("list", "VMs", &["list", "-i", "-"]),
    ("stat", "tables", &["stat", "-i", "-", "all"]),
    ("frames", "page frames", &["frames", "-i", "-", "--summary"]),
];

/// What is missing where nothing was read.
const ALL_READ: &str = "VMs, tables, page frames and whether isolation is intact: nothing was read";

/// Writes the report.
pub(super) fn run(plan: &ReportPlan, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    check_output(&plan.output, context)?;
    let mut draft = Draft::new(context.now, plan.budget);
    let file = create(&plan.output)?;
    let origin = Origin::here();
    draft.section(("probe", "what this machine supports", &["probe"]), &Rc::default(), Part::READ, context)?;
    let slots = RefCell::new(Vec::new());
    draft.read_machine(&slots, context)?;
    if interrupts::came() {
        return Err(interrupted(file.as_ref()).into());
    }

    let slots = slots.into_inner();
    let text = draft.finish(&origin, plan.budget)?;
    let is_whole = draft.left_out.is_empty();
    draft.left_out.iter().for_each(|what| context.note(format_args!("left out: {what}")));
    let (text_bytes, slot_bytes) = (text.len(), slots.len());
    write(file, [&text, &origin.to_slot(), &slots], context).map_err(|error| output_failed(&plan.output, error))?;
    let (name, took) = (plan.output.name(), draft.limit.elapsed().as_millis());
    context.note(format_args!("wrote {name}: {text_bytes} bytes of text, {slot_bytes} of capture, in {took} ms"));
    Ok(if is_whole { ExitCode::Ok } else { ExitCode::Partial })
}

fn write(file: Option<OutputFile>, parts: [&[u8]; 3], context: &mut Context<'_>) -> io::Result<()> {
    match file {
        None => {
            parts.iter().try_for_each(|part| context.out.write_all(part))?;
            context.out.flush()
        }
        Some(mut file) => {
            parts.iter().try_for_each(|part| file.write_all(part))?;
            file.keep()
        }
    }
}

/// A report that is being made.
struct Draft {
    limit: TimeLimit,
    text: Vec<u8>,
    /// What the audit came to, in a line.
    verdict: String,
    /// What took how long.
    took: Vec<(&'static str, Duration)>,
    /// What there was no time for, or what failed.
    left_out: Vec<String>,
}

impl Draft {
    fn new(now: Now, budget: Duration) -> Self {
        let (limit, verdict) = (TimeLimit::new(now, budget), "not audited".into());
        Self { limit, text: Vec::new(), verdict, took: Vec::new(), left_out: Vec::new() }
    }

    /// Notes that what is called `what` took the time since all that was noted before; returns that time in milliseconds.
    fn lap(&mut self, what: &'static str) -> u128 {
        let before: Duration = self.took.iter().map(|(_, time)| *time).sum();
        let time = self.limit.elapsed().saturating_sub(before);
        self.took.push((what, time));
        time.as_millis()
    }

    /// Captures the machine into `slots`, and tells what is found.
    fn read_machine(&mut self, slots: &RefCell<Vec<u8>>, context: &mut Context<'_>) -> Result<(), Stop> {
        let device = match context.device() {
            Ok(device) => device,
            Err(error) => {
                self.left_out.extend([error.into_failure("report").message, ALL_READ.into()]);
                return Ok(());
            }
        };
        let limit = self.limit.clone();
        let mut keep = |slot: &[u8]| {
            slots.borrow_mut().extend(slot);
            Ok(())
        };
        let mut survey = Survey::new(device, 0, Some(&mut keep));
        survey.limit = Some(&limit);
        survey.proc = Some(context.proc);
        survey.enter(Part::READ);
        let read = survey.gather(true);
        self.lap("reading");

        let read_first = Rc::new(slots.take());
        if read_first.is_empty() {
            self.left_out.push(ALL_READ.into());
        }
        for (section, part) in SECTIONS.into_iter().zip(Part::TELL).filter(|_| !read_first.is_empty()) {
            self.section(section, &read_first, part, context)?;
        }
        slots.replace(Rc::unwrap_or_clone(read_first));

        let audited = read.and_then(|()| self.audit(&mut survey));
        self.left_out.append(&mut survey.notes);
        if !survey.late.is_empty() {
            self.left_out.push(format!("{NO_TIME}: {}", survey.late.join(", ")));
        }
        match audited {
            Ok(()) => {}
            Err(Halt::Failed(Failure { message, .. })) => self.left_out.push(message),
            Err(Halt::Output(error)) => return Err(error.into()),
            // What for is told above; and who called finds out about a signal.
            Err(Halt::NoTime | Halt::Interrupted) => {}
        }
        Ok(())
    }

    /// Audits what was read, and reads it again for that.
    fn audit(&mut self, survey: &mut Survey<'_>) -> Result<(), Halt> {
        let Suspected { asked, counted } = suspect(survey)?;
        self.lap("rules and second looks");
        // What was read until it failed counts.
        let read = read_again(survey, counted);
        self.lap("reading again");
        self.limit.enter(Part::SETTLE);
        let is_over = || interrupts::came() || self.limit.is_over();
        let report = asked.settle(&survey.machine, &mut Stored::default(), &Pace::new(&is_over));
        let late = report.not_run.iter().filter(|(_, why)| *why == NotRun::NoTime).count();
        if late > 0 {
            survey.late.push(format!("{late} of {} rules of the audit", late + report.asked.len()));
        }
        let unsettled = report.unsettled.len() as u64 + report.more_unsettled;
        self.verdict = format!("findings: {}, unsettled: {unsettled}", report.findings.len());
        let mut text = Vec::new();
        format::write_text(&mut text, &report, &tables(&survey.machine), None).map_err(Halt::Output)?;
        let took = self.lap("telling what is found");
        self.write_section("whether isolation is intact", "audit", took, &text).map_err(Halt::Output)?;
        read
    }

    /// Appends what a verb says, of the captured `slots` if it reads a capture, for which it has a part of the time.
    fn section(
        &mut self,
        (name, title, words): (&'static str, &str, &[&str]),
        slots: &Rc<Vec<u8>>,
        part: Part,
        context: &mut Context<'_>,
    ) -> io::Result<()> {
        self.limit.enter(part);
        if self.limit.is_over() {
            self.left_out.push(format!("{NO_TIME}: {name}"));
            let took = self.lap(name);
            return self.write_section(title, &words.join(" "), took, format!("{NO_TIME}\n").as_bytes());
        }
        let plan = Cli::try_parse_from(["s2dump"].iter().chain(words)).ok().and_then(|cli| Plan::new(cli).ok());
        let Some(plan) = plan else { return Err(io::Error::other(format!("{words:?} is no command"))) };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let is_late = Rc::new(Cell::new(false));
        let open_capture = |_: &std::path::Path| {
            let (bytes, limit) = (Cursor::new(Bytes(Rc::clone(slots))), self.limit.clone());
            let from = InTime { bytes, limit, is_late: Rc::clone(&is_late) };
            Ok(FileSource::new(Box::new(from), "this report".into()))
        };
        let screen = Cell::new(Screen::Plain);
        let inner = Context::without_terminal(&mut out, &mut err, context.open_session, &open_capture, &screen);
        let result = super::run(&plan, &mut Context { now: context.now, ..inner });
        out.extend(err);
        match result {
            Ok(_) => {}
            Err(Stop::Failure(failure)) => failure.report(&mut out, false)?,
            Err(Stop::Output(error)) => writeln!(out, "{error}")?,
        }
        if is_late.get() {
            self.left_out.push(format!("{NO_TIME}: all that {name} tells"));
        }
        let took = self.lap(name);
        self.write_section(title, &words.join(" "), took, &out)
    }

    fn write_section(&mut self, title: &str, words: &str, took: u128, text: &[u8]) -> io::Result<()> {
        writeln!(self.text, "== {title} == (s2dump {words}; {took} ms)")?;
        self.text.extend(text);
        writeln!(self.text)
    }

    /// Returns all of the text; its first line tells where slots begin.
    fn finish(&mut self, origin: &Origin, budget: Duration) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        let left_out = match self.left_out.len() {
            0 => "nothing".into(),
            count => format!("{count}, named at the end of this text"),
        };
        writeln!(head, "{origin}")?;
        writeln!(head, "booted with: {}", System::read().cmdline.unwrap_or("unknown".into()))?;
        writeln!(head, "audit: {}; left out: {left_out}\n", self.verdict)?;
        let mut end = Vec::new();
        writeln!(end, "== left out ==")?;
        match self.left_out.is_empty() {
            true => writeln!(end, "nothing")?,
            false => self.left_out.iter().try_for_each(|what| writeln!(end, "{what}"))?,
        }
        let all = self.limit.elapsed().as_millis();
        writeln!(end, "\n== time ==\n{all:>7} ms of the {} ms allowed, before this was written", budget.as_millis())?;
        for (what, time) in &self.took {
            writeln!(end, "{:>7} ms {what}", time.as_millis())?;
        }
        let line = |bytes: usize| format!("{REPORT}{bytes:>12}\n").into_bytes();
        let bytes = [line(0).len(), head.len(), self.text.len(), end.len()].iter().sum();
        Ok([line(bytes), head, std::mem::take(&mut self.text), end].concat())
    }
}

/// Slots that several read.
struct Bytes(Rc<Vec<u8>>);

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Bytes of a portion: half a slot.
const PORTION: usize = 8 << 10;

/// What is read until time is over: then reading fails.
struct InTime {
    bytes: Cursor<Bytes>,
    limit: TimeLimit,
    is_late: Rc<Cell<bool>>,
}

impl Read for InTime {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.limit.is_over() {
            self.is_late.set(true);
            return Err(io::Error::other(NO_TIME));
        }
        // Little at once, so that it is asked often.
        let most = into.len().min(PORTION);
        self.bytes.read(into.get_mut(..most).unwrap_or_default())
    }
}

impl Seek for InTime {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(to)
    }
}
