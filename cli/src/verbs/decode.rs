// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump decode DESC...`: what each bit of a descriptor says.

use super::{Context, Stop};
use crate::decode::{better_level, decode, words_of, Lines};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::numbers::NumberError;
use crate::plan::decode::{DecodePlan, HEX_HINT};
use s2dump_vmsa::Level;
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
    let Found { words, bad, without, without_base, elsewhere } = found;
    if without > 0 {
        context.note(format_args!("lines without a descriptor: {without}"));
    }
    if words == 0 {
        return Err(Failure::new(ExitCode::UsageOrIo, "no descriptor on the command line or standard input").into());
    }
    if let Some(level) = elsewhere {
        let level = level.get();
        context.note(format_args!("level {level}? Names in the input say so of some: without --level they count"));
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
    /// The level that a name says, which is not the one that was asked for.
    elsewhere: Option<Level>,
}

impl Found {
    /// Decodes the descriptors of a line.
    fn line(&mut self, line: &str, plan: &DecodePlan, context: &mut Context<'_>) -> Result<(), Stop> {
        let words = words_of(line, plan.hex, plan.level);
        self.without += u64::from(words.is_empty() && !line.trim().is_empty());
        for told in words {
            self.words += 1;
            let level = plan.level_of(&told);
            match told.raw {
                Ok(raw) => {
                    let level = level.ok_or_else(|| which_level(raw))?;
                    self.elsewhere = self.elsewhere.or(told.level.filter(|&named| named != level));
                    write(level, raw, plan, context)?;
                }
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

/// Asks for the level of `raw`.
fn which_level(raw: u64) -> Failure {
    let guess = match raw & 0b11 {
        0b01 => "level 2? A block stands there or at level 1: add --level",
        _ => "level 3? Pages stand there, and tables at all others: add --level",
    };
    Failure::new(ExitCode::UsageOrIo, format_args!("{raw:#x}: at which level does it stand?")).hint(guess)
}

fn write(level: Level, raw: u64, plan: &DecodePlan, context: &mut Context<'_>) -> io::Result<()> {
    let decoded = decode(level, raw, plan);
    let color = context.color(plan.color);
    match plan.json {
        true => decoded.write_json(context.out, &plan.geometry),
        false => decoded.write_text(context.out, color, better_level(&decoded, plan)),
    }
}
