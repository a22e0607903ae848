// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rejoins runs that were split where a slot ended, so that output does not depend on the budget. Also folds exact captures
//! when folded output is asked for. `s2dump-hyp` defines what one run is, for EL2 and for this module.

use crate::model::{Changed, Row};
use s2dump_abi::slot::record_flags;
use s2dump_hyp::coalescer::{merge, Fold};

/// Joins neighboring rows; holds one row back at most.
pub(crate) struct Merger {
    fold: Fold,
    held: Option<Row>,
}

impl Merger {
    /// Joins by `fold`.
    pub(crate) fn new(fold: Fold) -> Self {
        Self { fold, held: None }
    }

    /// Returns the one or two runs that `row` is made of. An older writer may have folded them into one.
    pub(crate) fn runs(&self, row: Row) -> [Option<Row>; 2] {
        let entries = row.to_record().map_or(row.count, |run| self.fold.one_run(&run).into());
        let bound = row.end() - ((row.count - entries) << row.entry_shift);
        [row.clip(row.ia, bound, &self.fold.geometry), row.clip(bound, u64::MAX, &self.fold.geometry)]
    }

    /// Takes the next row and returns the one before, if the two do not join.
    pub(crate) fn push(&mut self, row: Row) -> Option<Row> {
        if row.changed.at_start {
            let held = self.held.replace(row)?;
            return Some(Row { changed: Changed { at_end: true, ..held.changed }, ..held });
        }
        if let Some(joined) = self.held.and_then(|held| self.join(&held, &row)) {
            self.held = Some(joined);
            return None;
        }
        self.held.replace(row)
    }

    /// Returns the last row.
    pub(crate) fn finish(&mut self) -> Option<Row> {
        self.held.take()
    }

    fn join(&self, held: &Row, row: &Row) -> Option<Row> {
        let joined = merge(&held.to_record()?, &row.to_record()?, &self.fold)?;
        // A row without a known output address has 0 in its record. It never runs on from a known one, whatever the numbers say.
        let known = held.oa.is_some() == row.oa.is_some();
        let linear = joined.flags & record_flags::LINEAR != 0 && known;
        (linear || !self.fold.exact).then_some(Row { count: joined.count.into(), linear, ..*held })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use s2dump_abi::slot::RecordKind;
    use s2dump_vmsa::{Features, Geometry, Level, TableAttrs};

    /// Captures of 1.x have runs that go on where the MMU does not translate; the part behind is a run of its own.
    #[test]
    fn runs_end_at_the_output_size() {
        let vtcr = 1 << 31 | 2 << 16 | 1 << 6 | 24; // 40 bits of output, 4 KiB pages.
        let geometry = Geometry::from_vtcr(vtcr, Features::of_kvm(vtcr, false, false)).unwrap();
        let oa = 0xff_ffff_e000;
        let row = Row {
            ia: 0x8000_0000,
            oa: Some(oa),
            raw: oa | 0x7ff,
            count: 5,
            entry_shift: 12,
            level: Level::L3,
            kind: RecordKind::LEAF,
            linear: true,
            inherited: TableAttrs::NONE,
            skipped: 0,
            changed: Changed::default(),
        };
        let merger = Merger::new(Fold { geometry, exact: false });
        let beyond = Row { ia: 0x8000_2000, oa: Some(0x100_0000_0000), raw: 0x100_0000_07ff, count: 3, ..row };
        assert_eq!(merger.runs(row), [Some(Row { count: 2, ..row }), Some(beyond)]);
        assert_eq!(merger.runs(beyond), [Some(beyond), None]);
        let jumping = Row { linear: false, ..row };
        assert_eq!(merger.runs(jumping), [Some(jumping), None], "only the first is known");
    }
}
