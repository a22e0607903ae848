// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump audit`: whether isolation is intact.

use super::machine::{from_capture, unread};
use super::{Context, Stop};
use crate::audit::settle::Stored;
use crate::audit::{audit, NotRun};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::format::audit as format;
use crate::plan::machine::AuditPlan;

/// Audits the device or a capture.
pub(super) fn run(plan: &AuditPlan, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    let (machine, issues) = match &plan.input {
        Some(path) => from_capture(path, context)?,
        None => return Err(Failure::new(ExitCode::UsageOrIo, "audit reads captures only: -i FILE").into()),
    };
    let report = audit(&plan.rules, &machine, &mut Stored);
    let unread = unread(&machine);
    match plan.json {
        true => format::write_json(context.out, &report, &unread)?,
        false => format::write_text(context.out, &report, &unread)?,
    }
    let lacks = report.not_run.iter().any(|(_, why)| matches!(why, NotRun::Lacks(_)));
    Ok(match report.findings.is_empty() {
        false => ExitCode::Finding,
        true if lacks || issues > 0 => ExitCode::Partial,
        true => ExitCode::Ok,
    })
}

/// Lists the rules.
pub(super) fn list(json: bool, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    match json {
        true => format::write_rules_json(context.out)?,
        false => format::write_rules(context.out)?,
    }
    Ok(ExitCode::Ok)
}
