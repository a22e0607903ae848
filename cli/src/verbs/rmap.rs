// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump rmap PA|RANGE`: every tree that maps or annotates physical memory, and what pKVM keeps about it. Of an image of
//! memory that is one tree, and nothing else.

use super::machine::{from_capture, gather, survey, unread};
use super::suspicion::Suspicion;
use super::{address_in, open_image, Context, Stop};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::filter::Filter;
use crate::format::rmap;
use crate::machine::tree::Tree;
use crate::machine::uses::{uses, Kind};
use crate::machine::Machine;
use crate::model::{Missing, Row};
use crate::numbers::AddressRange;
use crate::plan::input::{ImagePlan, Input};
use crate::plan::machine::RmapPlan;
use s2dump_abi::slot::RecordKind;
use s2dump_vmsa::Ipa;

/// Looks in the device, a capture or an image of memory.
pub(super) fn run(plan: &RmapPlan, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    let (machine, unread, code) = match &plan.input {
        Input::Image(image) => from_image(image, plan.span, context)?,
        Input::Capture(path, _) => {
            let (machine, issues) = from_capture(path, context)?;
            let unread = unread(&machine);
            (machine, unread, if issues == 0 { ExitCode::Ok } else { ExitCode::Partial })
        }
        Input::Device(_) => {
            let mut survey = survey("rmap", context)?;
            gather(&mut survey, context)?;
            let unread = unread(&survey.machine);
            (survey.machine, unread, ExitCode::Ok)
        }
    };
    if machine.trees.is_empty() {
        return Err(Failure::new(ExitCode::UsageOrIo, "no table was read").into());
    }
    let span = plan.span.whole_pages(machine.page_shift());
    if !plan.span.is_address {
        // Whose an address is, is asked of its page.
        context.note_widened(span);
    }
    let mut uses = uses(&machine, span.start, span.end);
    uses.retain(|used| is_wanted(&used.kind, &plan.wanted.filter, &machine));
    match plan.json {
        true => rmap::write_json(context.out, (span, &plan.wanted), &uses, &unread, &machine)?,
        false => rmap::write_text(context.out, &plan.wanted, &uses, &machine, context.width)?,
    }
    if !unread.is_empty() {
        context.note(format_args!("not read, or not all: {}", unread.join(", ")));
    }
    Ok(if unread.is_empty() { code } else { ExitCode::Partial })
}

fn is_wanted(kind: &Kind<'_>, filter: &Filter, machine: &Machine) -> bool {
    match *kind {
        Kind::Entry(ref row, table) => filter.is_wanted(row, table),
        Kind::Table(_, level, _) => filter.is_table_wanted(level),
        Kind::Frame(raw) => filter.is_frame_wanted(raw.and_then(|raw| machine.frames.decode(raw)), raw.is_none()),
    }
}

/// Reads what the table of an image has about `span`; also returns its name if not all was read, and the exit code if it was.
fn from_image(
    image: &ImagePlan,
    span: AddressRange,
    context: &mut Context<'_>,
) -> Result<(Machine, Vec<String>, ExitCode), Stop> {
    let mut ram = open_image(image, context)?;
    let start = address_in(image, 0)?;
    let end = Ipa::try_new(image.table.root.geometry().ia_end()).unwrap_or(start);
    let mut dump = ram.dump(start, end, true).telling_tables();
    let table = *dump.facts();
    let span = span.whole_pages(table.geometry.granule().page_shift());
    let page = 1 << table.geometry.granule().page_shift();
    // All of a large table need not be kept.
    let is_about = |row: &Row| {
        let size = match row.kind {
            RecordKind::LEAF => row.size(),
            RecordKind::TABLE => page,
            _ => return false,
        };
        row.oa.is_some_and(|oa| oa < span.end && oa.saturating_add(size) > span.start)
    };
    let (mut tree, mut missing) = (Tree::new(table), Missing::default());
    let mut suspicion = Suspicion::new(image.says_encoding);
    let mut rows = Vec::new();
    let mut goes_on = true;
    while goes_on {
        goes_on = dump.read_on(&mut rows).unwrap_or_else(|error| {
            context.note(error.into_failure("ram"));
            false
        });
        for row in rows.drain(..) {
            missing.add(&row, &table);
            if row.kind != RecordKind::TABLE {
                suspicion.add(&row, &table);
            }
            if is_about(&row) {
                tree.push(row);
            }
        }
    }
    tree.end(&dump.outcome());
    let error = ram.take_error();
    if missing.tables > 0 {
        context.note(missing);
    }
    if let Some(error) = &error {
        context.note(error);
    }
    suspicion.notes().iter().for_each(|note| context.note(note));
    context.note("this is of the one table given: an image tells neither where others are nor states of page frames");
    let is_whole = tree.is_complete && missing.tables == 0 && error.is_none();
    let unread = if is_whole { Vec::new() } else { vec![table.name()] };
    let code = if suspicion.is_no_table() { ExitCode::Finding } else { ExitCode::Ok };
    Ok((Machine::of_tree(tree), unread, code))
}
