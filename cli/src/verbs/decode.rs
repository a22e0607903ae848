// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump decode DESC...`: what each bit of a descriptor says.

use super::{Context, Stop};
use crate::decode::{decode, Words};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::numbers::parse_hex;
use crate::plan::decode::DecodePlan;
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
    let (mut code, mut is_empty) = (ExitCode::Ok, true);
    for word in Words(io::stdin().lock()) {
        let word = word.map_err(|error| Failure::io("standard input", &error))?;
        is_empty = false;
        match parse_hex(&word) {
            Ok(raw) => write(raw, plan, context)?,
            Err(error) => {
                context.note(error);
                code = ExitCode::UsageOrIo;
            }
        }
    }
    if is_empty {
        return Err(Failure::new(ExitCode::UsageOrIo, "no descriptor on the command line or standard input").into());
    }
    Ok(code)
}

fn write(raw: u64, plan: &DecodePlan, context: &mut Context<'_>) -> io::Result<()> {
    let decoded = decode(raw, plan);
    match plan.json {
        true => decoded.write_json(context.out, &plan.geometry),
        false => decoded.write_text(context.out),
    }
}
