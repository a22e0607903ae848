// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump audit`: whether isolation is intact.

use super::machine::{at_rest, from_capture, gather, stop, survey, unread};
use super::survey::{Halt, Live};
use super::{Context, Stop};
use crate::audit::pace::Pace;
use crate::audit::settle::Stored;
use crate::audit::{audit, NotRun};
use crate::exit_code::ExitCode;
use crate::format::audit as format;
use crate::machine::tree::SecondPass;
use crate::machine::Machine;
use crate::plan::machine::AuditPlan;
use crate::source::interrupts;

/// Audits the device or a capture.
pub(super) fn run(plan: &AuditPlan, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    let pace = Pace::new(&interrupts::came);
    let (report, machine, issues) = match &plan.input {
        Some(path) => {
            let (machine, issues) = from_capture(path, context)?;
            (audit(&plan.rules, &machine, &mut Stored::default(), &pace), machine, issues)
        }
        None => {
            let mut survey = survey("audit", context)?;
            gather(&mut survey, context)?;
            let machine = std::mem::take(&mut survey.machine);
            let report = audit(&plan.rules, &machine, &mut Live(&mut survey), &pace);
            (report, machine, 0)
        }
    };
    if interrupts::came() {
        return Err(stop(Halt::Interrupted));
    }
    let tables = tables(&machine);
    match plan.json {
        true => format::write_json(context.out, &report, &tables, machine.page_shift())?,
        false => format::write_text(context.out, &report, &tables, context.width)?,
    }
    let lacks = report.not_run.iter().any(|(_, why)| matches!(why, NotRun::Lacks(_)));
    // Of a VM that went away nothing is missing.
    let misses = machine.missed().next().is_some();
    Ok(match report.findings.is_empty() {
        false => ExitCode::Finding,
        true if lacks || misses || issues > 0 => ExitCode::Partial,
        true => ExitCode::Ok,
    })
}

/// Returns how the tables of `machine` were read.
pub(super) fn tables(machine: &Machine) -> format::Tables {
    format::Tables {
        unread: unread(machine),
        at_rest: at_rest(machine, SecondPass::Same),
        changed: at_rest(machine, SecondPass::Differs),
    }
}

/// Lists the rules.
pub(super) fn list(json: bool, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    match json {
        true => format::write_rules_json(context.out)?,
        false => format::write_rules(context.out, context.width)?,
    }
    Ok(ExitCode::Ok)
}
