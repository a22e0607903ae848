// SPDX-License-Identifier: MIT OR Apache-2.0
//! One page frame and some places, looked at by one call: no page changed hands in between.

use super::Machine;
use crate::model::Row;
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{Record, RecordKind, SlotHeader};
use s2dump_abi::target::Target;

/// What one call found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The physical address of the frame.
    pub(crate) pa: u64,
    /// What pKVM keeps about it, as it stands in memory; `None` if it is no memory with a state.
    pub(crate) frame: Option<u64>,
    /// A second pass over tables had begun before it.
    pub(crate) is_late: bool,
    /// The places, in the order that was asked for.
    pub(crate) looks: Vec<Look>,
}

/// What was found at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// The table.
    pub(crate) target: Target,
    /// The input address.
    pub(crate) ia: u64,
    /// Where the root was; 0 if the table could not be locked.
    pub(crate) root: u64,
    /// How the table was locked.
    pub(crate) status: Status,
    /// The descriptor of each level, top first.
    pub(crate) steps: Vec<Record>,
}

/// How many descriptors a walk has at most.
const MOST_STEPS: usize = 5;

impl Moment {
    /// Begins with the header of its slot.
    pub(crate) fn new(header: &SlotHeader, is_late: bool) -> Self {
        Self { pa: header.start, frame: None, is_late, looks: Vec::new() }
    }

    /// Takes the next record. What follows no place is passed over.
    pub(crate) fn push(&mut self, record: &Record) {
        match RecordKind(record.kind) {
            RecordKind::FRAME if record.ia == self.pa => self.frame = Some(record.descriptor),
            RecordKind::FRAME => {}
            RecordKind::PLACE => self.looks.push(Look {
                target: Target(record.descriptor),
                ia: record.ia,
                root: record.oa,
                status: Status(record.count),
                steps: Vec::new(),
            }),
            _ => {
                if let Some(look) = self.looks.last_mut().filter(|look| look.steps.len() < MOST_STEPS) {
                    look.steps.push(*record);
                }
            }
        }
    }

    /// Returns what it found at `ia` of `target`.
    pub(crate) fn look(&self, target: Target, ia: u64) -> Option<&Look> {
        self.looks.iter().find(|look| look.target == target && look.ia == ia)
    }
}

impl Look {
    /// Returns the steps as rows, if the table is the one that `machine` has read.
    pub(crate) fn rows(&self, machine: &Machine) -> Option<Vec<Row>> {
        let tree = machine.tree(self.target)?;
        if self.status != Status::OK || self.root != tree.table.root {
            return None;
        }
        self.steps.iter().map(|step| Row::of_record(step, &tree.table.geometry)).collect()
    }
}
