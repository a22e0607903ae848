// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rejoins runs that were split where one slot ended, so that output does not depend on the budget; and folds exact
//! captures when folded output is asked for. What is one run, `s2dump-hyp` decides: for EL2 and here.

use crate::model::{Changed, Row};
use s2dump_abi::slot::record_flags;
use s2dump_hyp::coalescer::{merge, Fold};
use s2dump_vmsa::PhysAddr;

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
        // What the MMU takes a fault for is not folded into what it translates.
        let fits = |row: &Row| row.oa.is_none_or(|oa| PhysAddr::new(oa).fits(self.fold.geometry.pa_bits().into()));
        if fits(held) != fits(row) {
            return None;
        }
        let joined = merge(&held.to_record()?, &row.to_record()?, &self.fold)?;
        // An output address that is not known does not run on from one that is, whatever the numbers say.
        let known = held.oa.is_some() == row.oa.is_some();
        let linear = joined.flags & record_flags::LINEAR != 0 && known;
        (linear || !self.fold.exact).then_some(Row { count: joined.count.into(), linear, ..*held })
    }
}
