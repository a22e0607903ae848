// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump frames`: what pKVM keeps about each page frame outside of all tables.

use super::{read_facts, Context, Stop};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::format::frames::{FrameRow, FramesWriter};
use crate::format::{Changes, Trailer};
use crate::marks::Marks;
use crate::model::{Missing, Outcome};
use crate::numbers::AddressRange;
use crate::plan::FramesPlan;
use crate::reader::{Event, Reader};
use crate::source::device::Query;
use crate::source::{SlotSource, SourceError};
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{Fact, SlotHeader, SlotKind};
use s2dump_abi::version::features;
use s2dump_vmsa::pkvm::Encoding;

/// Shows frames of the device or of a capture.
pub(super) fn run(plan: &FramesPlan, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    match &plan.input {
        Some(path) => show(&mut context.capture(path)?, Vec::new(), plan, context),
        None => {
            let fail = |error: SourceError| error.into_failure("frames");
            let mut device = context.device().map_err(fail)?;
            if !device.has(features::FRAMES) {
                return Err(Failure::from_status(Status::UNKNOWN_OP, "frames").into());
            }
            let facts = read_facts(&mut device)?;
            let AddressRange { start, end, .. } = plan.range;
            let slots = device.start(Query::Frames { start, end, budget: plan.budget }).map_err(fail)?;
            show(&mut Reader::new(slots), facts, plan, context)
        }
    }
}

/// What is shown, once it has begun.
struct Shown<'a> {
    plan: &'a FramesPlan,
    range: AddressRange,
    writer: FramesWriter,
    slot: SlotHeader,
    marks: Marks,
    held: Option<FrameRow>,
    rows: u64,
}

impl Shown<'_> {
    /// Takes frames, cut to the range that was asked for.
    fn take(&mut self, row: FrameRow, context: &mut Context<'_>) -> Result<(), Stop> {
        let AddressRange { start, end, .. } = self.range;
        let (start, end) = (row.start.max(start), row.end.min(end));
        if start >= end {
            return Ok(());
        }
        let mut parts = Vec::new();
        self.marks.cut_frames(start, end, self.slot.page_shift.into(), |start, end, mark| {
            parts.push(FrameRow { start, end, mark, ..row });
        });
        for part in parts {
            match self.held.as_ref().and_then(|held| held.join(&part)) {
                Some(joined) => self.held = Some(joined),
                None => {
                    let finished = self.held.replace(part);
                    self.write(finished, context)?;
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, row: Option<FrameRow>, context: &mut Context<'_>) -> Result<(), Stop> {
        let is_wanted =
            |row: &FrameRow| self.plan.filter.is_frame_wanted(row.decode(Encoding(self.slot.encoding)), row.is_nomap);
        let Some(row) = row.filter(is_wanted) else { return Ok(()) };
        self.rows += 1;
        Ok(self.writer.row(context.out, &row)?)
    }
}

fn show<S: SlotSource>(
    reader: &mut Reader<S>,
    mut facts: Vec<Fact>,
    plan: &FramesPlan,
    context: &mut Context<'_>,
) -> Result<ExitCode, Stop> {
    let (mut shown, mut issues): (Option<Shown<'_>>, u64) = (None, 0);
    let (mut outcome, mut cause) = (Outcome::default(), None);
    loop {
        let event = reader.next_event();
        context.tell_issues(reader, &mut issues);
        match event.map_err(|error| error.into_failure("frames"))? {
            Some(Event::Fact(fact)) if facts.len() < super::MOST_FACTS => facts.push(fact),
            Some(Event::Frames(slot)) => {
                let asked = plan.range.whole_pages(slot.page_shift.into());
                context.note_widened(asked);
                let range = (asked.start.max(slot.start), asked.end.min(slot.end));
                if asked != AddressRange::ALL && asked.start < slot.start {
                    issues += 1;
                    context.note(format_args!("only frames from {:#x} on were captured", slot.start));
                }
                let writer =
                    FramesWriter::begin(plan.format, &slot, range, &plan.filter.options(), context.out, context.width)?;
                let marks = Marks::of_memory(&facts);
                shown = Some(Shown { plan, range: asked, writer, slot, marks, held: None, rows: 0 });
            }
            Some(Event::Frame(record)) => {
                if let Some(shown) = &mut shown {
                    shown.take(FrameRow::new(&record, shown.slot.page_shift), context)?;
                }
            }
            Some(Event::End(SlotKind::FRAMES, ended)) if shown.is_some() => {
                outcome = ended;
                if let Some(error) = reader.take_failure() {
                    issues += 1;
                    cause = Some(error.into_failure("frames").message);
                }
                break;
            }
            Some(Event::End(SlotKind::END, ended)) => match ended.status {
                Some(status) if status != Status::OK => return Err(Failure::from_status(status, "frames").into()),
                _ => {}
            },
            Some(_) => {}
            None => break,
        }
    }
    let Some(mut shown) = shown else {
        return Err(Failure::new(ExitCode::UsageOrIo, "the capture holds no frames").into());
    };
    let held = shown.held.take();
    shown.write(held, context)?;
    let (missing, changes) = (Missing::default(), Changes::default());
    let trailer = Trailer { outcome, rows: shown.rows, holes: None, verified: None, missing, changes, issues, cause };
    shown.writer.end(context.out, &trailer)?;
    match trailer.incomplete() {
        Some(why) => Err(Failure::new(ExitCode::Partial, format_args!("frames: incomplete: {why}")).into()),
        None => Ok(ExitCode::Ok),
    }
}
