// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump decode DESC...`: what each bit of a descriptor says.

use super::{Context, Stop};
use crate::decode::{better_level, decode, words_of, Lines};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::numbers::NumberError;
use crate::plan::decode::{DecodePlan, HEX_HINT};
use std::io::{self, IsTerminal};

/// Decodes the descriptors of the command line, or those on standard input.
pub(super) fn run(plan: &DecodePlan, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    let mut found = Found::default();
    match &plan.lines {
        Some(lines) => lines.lines().try_for_each(|line| found.line(line, plan, context))?,
        None => {
            if io::stdin().is_terminal() {
                context.note("descriptors are read from the terminal; Ctrl-D ends them");
            }
            for line in Lines(io::stdin().lock()) {
                found.line(&line.map_err(|error| Failure::io("standard input", &error))?, plan, context)?;
            }
        }
    }
    let Found { words, bad, without, without_base } = found;
    if without > 0 {
        context.note(format_args!("lines without a descriptor: {without}"));
    }
    if words == 0 {
        return Err(Failure::new(ExitCode::UsageOrIo, "no descriptor on the command line or standard input").into());
    }
    if bad > MOST_BAD_WORDS {
        context.note(format_args!("{bad} words are no descriptors; only the first {MOST_BAD_WORDS} were told"));
    }
    if without_base {
        context.note(HEX_HINT);
    }
    Ok(if bad == 0 { ExitCode::Ok } else { ExitCode::UsageOrIo })
}

/// What lines had so far.
#[derive(Default)]
struct Found {
    /// Descriptors, and what looked like one.
    words: u64,
    /// Words that are none.
    bad: u64,
    /// Lines that had neither.
    without: u64,
    /// A word did not say its base.
    without_base: bool,
}

impl Found {
    /// Decodes the descriptors of a line.
    fn line(&mut self, line: &str, plan: &DecodePlan, context: &mut Context<'_>) -> io::Result<()> {
        let words = words_of(line, plan.hex);
        self.without += u64::from(words.is_empty() && !line.trim().is_empty());
        for word in words {
            self.words += 1;
            match word {
                Ok(raw) => write(raw, plan, context)?,
                Err(error) => {
                    self.without_base |= matches!(error, NumberError::NoBase(..));
                    self.bad += 1;
                    if self.bad <= MOST_BAD_WORDS {
                        context.note(error);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Words of one input that are told to be no descriptors: the wrong column of a long log has only such.
const MOST_BAD_WORDS: u64 = 20;

fn write(raw: u64, plan: &DecodePlan, context: &mut Context<'_>) -> io::Result<()> {
    let decoded = decode(raw, plan);
    let color = context.color(plan.color);
    match plan.json {
        true => decoded.write_json(context.out, &plan.geometry),
        false => decoded.write_text(context.out, color, better_level(&decoded, plan)),
    }
}
