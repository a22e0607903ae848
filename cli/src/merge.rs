// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rejoins runs that were split where a slot ended, so that output does not depend on the budget. Also folds exact captures
//! when folded output is asked for. `s2dump-hyp` defines what one run is, for EL2 and for this module.
//!
//! One thing more is joined here, because EL2 does not decode annotations: the host's pages that were donated to one guest,
//! whose descriptors differ in the guest's frame number. They are one row where that number goes on with the address, also in
//! exact rows, because such a row tells the owner of each of its pages.

use crate::model::{Changed, Row, TableFacts};
use s2dump_abi::slot::{record_flags, RecordKind};
use s2dump_hyp::coalescer::{merge, Fold};
use s2dump_vmsa::pkvm::{self, Encoding, InvalidKind, Owner};
use s2dump_vmsa::RawDescriptor;

/// Joins neighboring rows; holds one row back at most.
pub(crate) struct Merger {
    fold: Fold,
    /// How annotations are read; those of an unknown encoding join only if they are equal.
    encoding: Encoding,
    held: Option<Row>,
}

impl Merger {
    /// Joins by `fold`, without regard to what annotations mean.
    pub(crate) fn new(fold: Fold) -> Self {
        Self { fold, encoding: Encoding::NONE, held: None }
    }

    /// Joins runs of `table`; with `exact` not where the output address does not run on.
    pub(crate) fn of_table(table: &TableFacts, exact: bool) -> Self {
        let fold = Fold { geometry: table.geometry, exact };
        Self { encoding: table.annotation_encoding(), ..Self::new(fold) }
    }

    /// Returns the one or two runs that `row` is made of. An older writer may have folded them into one.
    pub(crate) fn runs(&self, row: Row) -> [Option<Row>; 2] {
        // What EL2 folds is the same in all entries, so a guest would have each page at one address.
        let is_one_address = row.count > 1 && self.guest_page(&row).is_some();
        let row = Row { linear: row.linear && !is_one_address, ..row };
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
        if held.mark != row.mark {
            return None;
        }
        if let (Some(a), Some(b)) = (self.guest_page(held), self.guest_page(row)) {
            return self.join_owned((held, a), (row, b));
        }
        let joined = merge(&held.to_record()?, &row.to_record()?, &self.fold)?;
        // A row without a known output address has 0 in its record. It never runs on from a known one, whatever the numbers say.
        let known = held.oa.is_some() == row.oa.is_some();
        let linear = joined.flags & record_flags::LINEAR != 0 && known;
        (linear || !self.fold.exact).then_some(Row { count: joined.count.into(), linear, ..*held })
    }

    /// Joins two rows of pages that were donated to a guest: to one, whose addresses run on, or each page to the same address.
    fn join_owned(&self, (held, a): (&Row, GuestPage), (row, b): (&Row, GuestPage)) -> Option<Row> {
        let pages = held.count << (held.entry_shift - self.fold.geometry.granule().page_shift());
        let runs_on = held.linear && row.linear && b == GuestPage { gfn: a.gfn.wrapping_add(pages), ..a };
        let is_same = held.raw == row.raw && [held, row].iter().all(|row| row.count == 1 || !row.linear);
        let is_next = held.level == row.level && held.end() == row.ia && held.skipped | row.skipped == 0;
        (is_next && (runs_on || is_same)).then_some(Row {
            count: held.count.checked_add(row.count)?,
            linear: runs_on,
            ..*held
        })
    }

    /// Returns to which guest page the first entry of `row` was donated, if it was to a guest.
    fn guest_page(&self, row: &Row) -> Option<GuestPage> {
        if row.kind != RecordKind::INVALID {
            return None;
        }
        match pkvm::decode(self.encoding, RawDescriptor::from_bits(row.raw)).invalid() {
            Some(InvalidKind::HostDonation { owner: Owner::Guest { handle, gfn } }) => Some(GuestPage { handle, gfn }),
            _ => None,
        }
    }
}

/// A page of a guest.
#[derive(Clone, Copy, PartialEq, Eq)]
struct GuestPage {
    handle: u16,
    gfn: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mark;
    use s2dump_vmsa::{Features, Geometry, Level, TableAttrs};

    const VTCR: u64 = 1 << 31 | 2 << 16 | 1 << 6 | 24; // 40 bits of output, 4 KiB pages.

    fn geometry() -> Geometry {
        Geometry::from_vtcr(VTCR, Features::of_kvm(VTCR, false, false)).unwrap()
    }

    /// Pages from `ia` on, donated to the guest that has the first at frame `gfn`.
    fn donated(ia: u64, count: u64, handle: u64, gfn: u64) -> Row {
        let raw = 2 << 60 | gfn << 20 | handle << 4 | 2 << 1;
        let mark = Mark::None;
        let (level, kind, inherited) = (Level::L3, RecordKind::INVALID, TableAttrs::NONE);
        let (skipped, changed) = (0, Changed::default());
        Row { ia, oa: None, raw, count, entry_shift: 12, level, kind, linear: true, inherited, skipped, changed, mark }
    }

    /// Pushes `rows`, each as the runs it is made of.
    fn joined(encoding: Encoding, exact: bool, rows: &[Row]) -> Vec<Row> {
        let mut merger = Merger { encoding, ..Merger::new(Fold { geometry: geometry(), exact }) };
        let mut out = Vec::new();
        for &row in rows {
            for run in merger.runs(row).into_iter().flatten() {
                out.extend(merger.push(run));
            }
        }
        out.extend(merger.finish());
        out
    }

    /// 2 MiB that a guest has in one piece are one row in both modes; the next page is another guest's.
    #[test]
    fn good_donated_run_is_one_row() {
        let pages: Vec<Row> = (0..512).map(|page| donated(page << 12, 1, 0x1000, 0x8_0000 + page)).collect();
        let other = donated(512 << 12, 1, 0x1001, 0x8_0200);
        let rows = [pages.as_slice(), &[other]].concat();
        for exact in [false, true] {
            let whole = Row { count: 512, ..donated(0, 1, 0x1000, 0x8_0000) };
            assert_eq!(joined(Encoding::PKVM_7_2, exact, &rows), [whole, other]);
        }
        assert_eq!(joined(Encoding::NONE, false, &rows), rows, "of an unknown encoding nothing is known");
    }

    /// Annotations without an address say the same of all pages, so they are one row, and it is not said to run on.
    #[test]
    fn good_pages_of_some_guest_are_one_row() {
        let page = |ia, owner: u64| Row { raw: owner << 2, ..donated(ia, 1, 0, 0) };
        let rows = [page(0, 3), page(0x1000, 3), page(0x2000, 3), page(0x3000, 1)];
        for exact in [false, true] {
            let joined = joined(Encoding::PKVM_ANDROID_6_12, exact, &rows);
            assert_eq!(joined, [Row { count: 3, ..rows[0] }, rows[3]]);
        }
    }

    #[test]
    fn good_jumps_of_the_guest_address_break_rows() {
        let rows = [donated(0, 1, 0x1000, 7), donated(0x1000, 1, 0x1000, 9), donated(0x2000, 1, 0x1000, 10)];
        let expected = [rows[0], Row { count: 2, ..rows[1] }];
        assert_eq!(joined(Encoding::PKVM_7_2, false, &rows), expected);
        let gap = [donated(0, 1, 0x1000, 7), donated(0x2000, 1, 0x1000, 8)];
        assert_eq!(joined(Encoding::PKVM_7_2, false, &gap), gap);
    }

    /// What pKVM never does, and EL2 folds: several pages at one guest address. It must not look like a run that goes on.
    #[test]
    fn bad_pages_at_one_guest_address_are_not_linear() {
        let same = donated(0, 3, 0x1000, 7);
        let rows = [same, donated(0x3000, 1, 0x1000, 7), donated(0x4000, 1, 0x1000, 8)];
        let expected = [Row { count: 4, linear: false, ..same }, rows[2]];
        assert_eq!(joined(Encoding::PKVM_7_2, false, &rows), expected);
        let split = [donated(0, 1, 0x1000, 7), donated(0x1000, 1, 0x1000, 7)];
        assert_eq!(joined(Encoding::PKVM_7_2, true, &split), [Row { count: 2, linear: false, ..split[0] }]);
        let on = [donated(0, 1, 0x1000, 7), donated(0x1000, 1, 0x1000, 8), donated(0x2000, 1, 0x1000, 7)];
        assert_eq!(joined(Encoding::PKVM_7_2, true, &on), [Row { count: 2, ..on[0] }, on[2]]);
    }

    #[test]
    fn good_marks_break_rows() {
        let hole = Row { raw: 0, ..donated(0, 1, 0, 0) };
        let marked = Row { ia: 0x1000, mark: Mark::Ring, ..hole };
        let rows = [hole, marked, Row { ia: 0x2000, ..marked }];
        assert_eq!(joined(Encoding::PKVM_7_2, false, &rows), [hole, Row { count: 2, ..marked }]);
    }

    /// Captures of 1.x have runs that go on where the MMU does not translate; the part behind is a run of its own.
    #[test]
    fn runs_end_at_the_output_size() {
        let geometry = geometry();
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
            mark: Mark::None,
        };
        let merger = Merger::new(Fold { geometry, exact: false });
        let beyond = Row { ia: 0x8000_2000, oa: Some(0x100_0000_0000), raw: 0x100_0000_07ff, count: 3, ..row };
        assert_eq!(merger.runs(row), [Some(Row { count: 2, ..row }), Some(beyond)]);
        assert_eq!(merger.runs(beyond), [Some(beyond), None]);
        let jumping = Row { linear: false, ..row };
        assert_eq!(merger.runs(jumping), [Some(jumping), None], "only the first is known");
    }
}
