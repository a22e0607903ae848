// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where walks go to: every entry by itself, or records.

use s2dump_abi::slot::Record;
use s2dump_hyp::coalescer::RecordOut;
use s2dump_hyp::walker::{Entry, EntryKind, Row, RowEnd, Sink};
use s2dump_vmsa::{PhysAddr, RawDescriptor};
use std::sync::atomic::Ordering;

/// Takes every entry by itself, up to a number of entries.
#[derive(Default)]
pub(crate) struct Entries {
    pub(crate) entries: Vec<Entry>,
    pub(crate) room: Option<usize>,
}

impl Entries {
    fn is_full(&self) -> bool {
        self.room.is_some_and(|room| self.entries.len() >= room)
    }
}

impl Sink for Entries {
    fn take_row(&mut self, row: &Row<'_>) -> (usize, RowEnd) {
        for (n, cell) in row.entries.iter().enumerate() {
            let raw = RawDescriptor::from_bits(cell.load(Ordering::Relaxed));
            let kind = row.kind(raw);
            if kind == EntryKind::Table {
                return (n, RowEnd::Table(raw));
            }
            if self.is_full() {
                return (n, RowEnd::Full);
            }
            let ia = row.ia + ((n as u64) << row.shift);
            let (oa, level, inherited) = (PhysAddr::default(), row.level, row.inherited(kind));
            self.entries.push(Entry { ia, oa, raw, level, kind, inherited });
        }
        (row.entries.len(), RowEnd::All)
    }

    fn take_wrong(&mut self, entry: &Entry) -> bool {
        let room = !self.is_full();
        if room {
            self.entries.push(*entry);
        }
        room
    }
}

/// Records of one call, and then of the next.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) records: Vec<Record>,
    pub(crate) room: usize,
}

impl RecordOut for Records {
    fn room(&self) -> usize {
        self.room - self.records.len()
    }

    fn put(&mut self, record: &Record) {
        assert!(self.records.len() < self.room, "put without room");
        self.records.push(*record);
    }
}
