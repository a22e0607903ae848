// SPDX-License-Identifier: MIT OR Apache-2.0
//! What pKVM keeps about page frames, as runs in ascending addresses. Addresses in no run are no memory that it knows.

use super::known::Span;
use crate::model::Outcome;
use s2dump_abi::slot::{frame_flags, FrameRecord, SlotHeader};
use s2dump_vmsa::pkvm::{self, Encoding, Frame};

/// Neighboring frames about which pKVM keeps the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameRun {
    /// Physical address of the first.
    pub(crate) pa: u64,
    /// What is kept, as it stands in memory; `None` for memory without states.
    pub(crate) raw: Option<u64>,
    count: u32,
    page_shift: u8,
}

impl FrameRun {
    /// Returns the first address after it.
    pub(crate) fn end(&self) -> u64 {
        self.pa.saturating_add(u64::from(self.count) << self.page_shift)
    }
}

/// The frames of a machine.
#[derive(Default)]
pub(crate) struct Frames {
    runs: Vec<FrameRun>,
    /// How `raw` is read.
    pub(crate) encoding: Encoding,
    page_shift: u8,
    /// All were read.
    pub(crate) is_complete: bool,
    /// A reading has ended, and another is compared with it.
    is_closed: bool,
    /// Frames of which a later reading said something else.
    changed: Vec<Span>,
    /// A later reading was whole.
    is_read_again: bool,
}

impl Frames {
    /// Begins a reading.
    pub(crate) fn begin(&mut self, slot: &SlotHeader) {
        if !self.is_closed {
            self.encoding = Encoding(slot.encoding);
            self.page_shift = if slot.page_shift == 0 { 12 } else { slot.page_shift };
        }
    }

    /// Takes the next record.
    pub(crate) fn push(&mut self, frame: &FrameRecord) {
        let raw = (frame.flags & frame_flags::NO_STATE == 0).then_some(frame.raw);
        let run = FrameRun { pa: frame.pa, raw, count: frame.count, page_shift: self.page_shift };
        if self.is_closed {
            self.compare(&run);
            return;
        }
        match self.runs.last_mut() {
            Some(last) if run.pa < last.end() => {}
            Some(last) if last.end() == run.pa && last.raw == raw && last.count.checked_add(run.count).is_some() => {
                last.count += run.count;
            }
            _ => self.runs.push(run),
        }
    }

    /// Ends the reading.
    pub(crate) fn end(&mut self, outcome: &Outcome) {
        if self.is_closed {
            self.is_read_again |= outcome.is_complete();
        } else {
            (self.is_complete, self.is_closed) = (outcome.is_complete(), true);
        }
    }

    fn compare(&mut self, again: &FrameRun) {
        let other = |run: &FrameRun| {
            let (start, end) = (run.pa.max(again.pa), run.end().min(again.end()));
            (run.raw != again.raw && start < end).then_some(Span { start, end })
        };
        let changed: Vec<Span> = self.runs(again.pa, again.end()).filter_map(other).collect();
        self.changed.extend(changed);
    }

    /// Returns whether another reading, after the tables were read, said the same of the frame at `pa`.
    pub(crate) fn is_at_rest(&self, pa: u64) -> bool {
        self.is_read_again && !self.changed.iter().any(|span| span.has(pa))
    }

    /// Returns whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Returns the runs from the one that has `start` to the one before `end`, whole.
    pub(crate) fn runs(&self, start: u64, end: u64) -> impl Iterator<Item = &FrameRun> {
        let first = self.runs.partition_point(|run| run.end() <= start);
        self.runs.iter().skip(first).take_while(move |run| run.pa < end)
    }

    /// Returns all runs.
    pub(crate) fn all(&self) -> &[FrameRun] {
        &self.runs
    }

    /// Returns the run that has the frame at `pa`.
    pub(crate) fn at(&self, pa: u64) -> Option<&FrameRun> {
        self.runs(pa, pa.saturating_add(1)).next()
    }

    /// Returns what `raw` says.
    pub(crate) fn decode(&self, raw: u64) -> Option<Frame> {
        pkvm::decode_frame(self.encoding, raw)
    }
}
