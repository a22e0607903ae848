// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump report -O FILE`: all that a bug report needs, in the time that there is.
//!
//! The machine is captured first, as `capture --all` does it, each step in its part of the time. What the text says is then read
//! from that capture, by the verbs that would read it anywhere, and put in front of it.

use super::capture::{check_output, create, interrupted, output_failed};
use super::capture_all::capture;
use super::survey::{Halt, Survey};
use super::{Context, Stop};
use crate::args::Cli;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::origin::Origin;
use crate::pager::Screen;
use crate::plan::report::ReportPlan;
use crate::plan::Plan;
use crate::source::file::{FileSource, REPORT};
use crate::source::interrupts;
use crate::source::output_file::OutputFile;
use crate::source::system::System;
use clap::Parser;
use std::cell::Cell;
use std::io::{self, Cursor, Write};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// What is told, in this order, each by a verb of its own.
const SECTIONS: [(&str, &[&str]); 4] = [
    ("VMs", &["list", "-i", "-"]),
    ("whether isolation is intact", &["audit", "-i", "-"]),
    ("page frames", &["frames", "-i", "-", "--summary"]),
    ("tables", &["stat", "-i", "-", "all"]),
];

/// Writes the report.
pub(super) fn run(plan: &ReportPlan, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    let begin = Instant::now();
    check_output(&plan.output, context)?;
    let file = create(&plan.output)?;
    let mut text = Vec::new();
    write_head(plan, &mut text)?;
    section("what this machine supports", &["probe"], &Arc::from([]), &mut text, context)?;

    let (slots, mut left_out) = capture_slots(plan, begin, context);
    if interrupts::came() {
        return Err(interrupted(file.as_ref()).into());
    }
    let captured = begin.elapsed();
    let slots: Arc<[u8]> = slots.into();
    let mut longest = Duration::ZERO;
    for (title, words) in SECTIONS {
        // None is begun that cannot end in time if it takes as long as those before.
        if slots.is_empty() || begin.elapsed() + longest >= plan.budget {
            left_out.push(format!("{title}: {}", if slots.is_empty() { "nothing was read" } else { "no time left" }));
            continue;
        }
        longest = longest.max(section(title, words, &slots, &mut text, context)?);
        if interrupts::came() {
            return Err(interrupted(file.as_ref()).into());
        }
    }
    writeln!(text, "== left out ==")?;
    match left_out.is_empty() {
        true => writeln!(text, "nothing")?,
        false => left_out.iter().try_for_each(|what| writeln!(text, "{what}"))?,
    }
    let (all, read) = (begin.elapsed().as_millis(), captured.as_millis());
    let origin = Origin::here().to_slot();
    let bytes = origin.len() + slots.len();
    writeln!(text, "\n{all} ms, of which {read} ms to read the machine; {bytes} bytes of capture follow")?;

    let is_whole = left_out.is_empty();
    left_out.into_iter().for_each(|what| context.note(format_args!("left out: {what}")));
    write(file, [&with_length(&text), &origin, &slots], context).map_err(|error| output_failed(&plan.output, error))?;
    Ok(if is_whole { ExitCode::Ok } else { ExitCode::Partial })
}

fn write(file: Option<OutputFile>, parts: [&[u8]; 3], context: &mut Context<'_>) -> io::Result<()> {
    match file {
        None => parts.iter().try_for_each(|part| context.out.write_all(part)),
        Some(mut file) => {
            parts.iter().try_for_each(|part| file.write_all(part))?;
            file.keep()
        }
    }
}

/// Puts the line in front that tells where slots begin.
fn with_length(text: &[u8]) -> Vec<u8> {
    let line = |bytes: usize| format!("{REPORT}{bytes:>12}\n");
    let mut all = line(line(0).len() + text.len()).into_bytes();
    all.extend(text);
    all
}

fn write_head(plan: &ReportPlan, text: &mut Vec<u8>) -> io::Result<()> {
    let system = System::read();
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let unknown = || "unknown".to_owned();
    writeln!(text, "s2dump {}; seconds since 1970: {seconds}", crate::VERSION)?;
    writeln!(text, "kernel {}", system.kernel.unwrap_or_else(unknown))?;
    writeln!(text, "booted with: {}", system.cmdline.unwrap_or_else(unknown))?;
    writeln!(text, "time allowed: {} ms\n", plan.budget.as_millis())
}

/// Captures the machine; also returns what there was no time for, or what failed.
fn capture_slots(plan: &ReportPlan, begin: Instant, context: &Context<'_>) -> (Vec<u8>, Vec<String>) {
    let mut slots = Vec::new();
    let device = match context.device() {
        Ok(device) => device,
        Err(error) => return (slots, vec![error.into_failure("report").message]),
    };
    let mut keep = |slot: &[u8]| {
        slots.extend(slot);
        Ok(())
    };
    let mut survey = Survey::new(device, 0, Some(&mut keep));
    // The rest is for the text.
    survey.time = Some((begin, plan.budget * 6 / 10));
    survey.proc = Some(context.proc);
    let captured = capture(&mut survey);
    let mut left_out = std::mem::take(&mut survey.notes);
    match captured {
        Ok(_) => {}
        Err(Halt::Failed(Failure { message, .. })) => left_out.push(message),
        Err(Halt::Output(error)) => left_out.push(error.to_string()),
        // The caller finds out.
        Err(Halt::Interrupted) => {}
    }
    (slots, left_out)
}

/// Appends what a verb says, of the captured `slots` if it reads a capture; returns the time that took.
fn section(
    title: &str,
    words: &[&str],
    slots: &Arc<[u8]>,
    text: &mut Vec<u8>,
    context: &mut Context<'_>,
) -> io::Result<Duration> {
    let begin = Instant::now();
    let plan = Cli::try_parse_from(["s2dump"].iter().chain(words)).ok().and_then(|cli| Plan::new(cli).ok());
    let Some(plan) = plan else { return Err(io::Error::other(format!("{words:?} is no command"))) };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let open_capture =
        |_: &std::path::Path| Ok(FileSource::new(Box::new(Cursor::new(Arc::clone(slots))), "this report".into()));
    let screen = Cell::new(Screen::Plain);
    let mut inner = Context::without_terminal(&mut out, &mut err, context.open_session, &open_capture, &screen);
    let result = super::run(&plan, &mut inner);
    writeln!(text, "== {title} == (s2dump {}; {} ms)", words.join(" "), begin.elapsed().as_millis())?;
    text.extend(out);
    text.extend(err);
    match result {
        Ok(_) => {}
        Err(Stop::Failure(failure)) => failure.report(text, false)?,
        Err(Stop::Output(error)) => writeln!(text, "{error}")?,
    }
    writeln!(text)?;
    Ok(begin.elapsed())
}
