// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump decode DESC...`: what each bit of a descriptor says.

use super::{Context, Stop};
use crate::decode::{decode, Words};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::numbers::NumberError;
use crate::plan::decode::{descriptor, DecodePlan, HEX_HINT};
use std::io::{self, IsTerminal};

/// Decodes the descriptors of the command line, or those on standard input.
pub(super) fn run(plan: &DecodePlan, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    if let Some(descriptors) = &plan.descriptors {
        descriptors.iter().try_for_each(|&raw| write(raw, plan, context))?;
        return Ok(ExitCode::Ok);
    }
    if io::stdin().is_terminal() {
        context.note("descriptors are read from the terminal; Ctrl-D ends them");
    }
    let (mut is_empty, mut bad, mut without_base) = (true, 0, false);
    for word in Words(io::stdin().lock()) {
        let word = word.map_err(|error| Failure::io("standard input", &error))?;
        is_empty = false;
        match descriptor(&word, plan.hex) {
            Ok(raw) => write(raw, plan, context)?,
            Err(error) => {
                without_base |= matches!(error, NumberError::NoBase(..));
                bad += 1;
                if bad <= MOST_BAD_WORDS {
                    context.note(error);
                }
            }
        }
    }
    if is_empty {
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

/// Words of one input that are told to be no descriptors: the wrong column of a long log has only such.
const MOST_BAD_WORDS: u64 = 20;

fn write(raw: u64, plan: &DecodePlan, context: &mut Context<'_>) -> io::Result<()> {
    let decoded = decode(raw, plan);
    match plan.json {
        true => decoded.write_json(context.out, &plan.geometry),
        false => decoded.write_text(context.out),
    }
}
