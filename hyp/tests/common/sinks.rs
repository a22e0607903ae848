// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where walks go to: every entry by itself, or records.

use s2dump_abi::slot::Record;
use s2dump_hyp::coalescer::RecordOut;
use s2dump_hyp::walker::{Entry, EntryKind, Sink, Stretch, StretchEnd};
use s2dump_vmsa::{PhysAddr, RawDescriptor};
use std::sync::atomic::Ordering;

/// Takes every entry by itself, up to a number of entries. Of addresses, it keeps those of wrong tables, as with 4 KiB pages.
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
    fn take_stretch(&mut self, stretch: &Stretch<'_>) -> (usize, StretchEnd) {
        for (n, cell) in stretch.entries.iter().enumerate() {
            let raw = RawDescriptor::from_bits(cell.load(Ordering::Relaxed));
            let kind = stretch.kind(raw);
            if kind == EntryKind::Table {
                return (n, StretchEnd::Table(raw));
            }
            if self.is_full() {
                return (n, StretchEnd::Full);
            }
            let ia = stretch.ia + ((n as u64) << stretch.shift);
            let is_table = matches!(kind, EntryKind::TableOutside | EntryKind::TableLoop);
            let oa = PhysAddr::new(if is_table { raw.to_bits() & 0xffff_ffff_f000 } else { 0 });
            let (level, inherited) = (stretch.level, stretch.inherited(kind));
            self.entries.push(Entry { ia, oa, raw, level, kind, inherited });
        }
        (stretch.entries.len(), StretchEnd::All)
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
