// SPDX-License-Identifier: MIT OR Apache-2.0
//! What addresses are by themselves, as facts tell it: slots through which EL2 looks at any page for a moment, and pages that
//! s2dump itself shares with EL2. Rows are cut there and marked, so that nobody takes them for findings.

use crate::model::{Mark, Row};
use s2dump_abi::slot::{Fact, FactKind};
use s2dump_abi::target::Target;
use s2dump_vmsa::Geometry;

/// Addresses that are marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    start: u64,
    end: u64,
    kind: u16,
}

impl Span {
    /// Returns the mark of addresses that are all in it, or some of which are.
    fn mark(self, is_whole: bool) -> Mark {
        match (FactKind(self.kind), is_whole) {
            (FactKind::FIXMAP, true) => Mark::Fixmap,
            (FactKind::FIXBLOCK, true) => Mark::Fixblock,
            (FactKind::RING, true) => Mark::Ring,
            (FactKind::RING, false) => Mark::PartlyRing,
            _ => Mark::None,
        }
    }
}

/// The marked addresses of one table, or of memory.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// In ascending order.
    spans: Vec<Span>,
}

impl Marks {
    /// Takes from `facts` what is marked in memory.
    pub(crate) fn of_memory(facts: &[Fact]) -> Self {
        Self::new(facts.iter().filter(|fact| fact.kind == FactKind::RING.0).copied())
    }

    /// Takes from `facts` what is marked among the input addresses of the table `target`. The host's are physical; EL2's
    /// linear map moves memory.
    pub(crate) fn of_table(facts: &[Fact], target: Target) -> Self {
        let linear = facts.iter().find(|fact| fact.kind == FactKind::HYP_LINEAR.0).map(|fact| fact.value);
        let of_hyp = |fact: &Fact| match FactKind(fact.kind) {
            FactKind::FIXMAP | FactKind::FIXBLOCK => Some(*fact),
            FactKind::RING => Some(Fact { start: fact.start.wrapping_sub(linear?), ..*fact }),
            _ => None,
        };
        match target {
            Target::HOST => Self::of_memory(facts),
            Target::HYP => Self::new(facts.iter().filter_map(of_hyp)),
            _ => Self::default(),
        }
    }

    fn new(facts: impl Iterator<Item = Fact>) -> Self {
        let span = |fact: Fact| Span { start: fact.start, end: fact.start.saturating_add(fact.size), kind: fact.kind };
        let mut spans: Vec<Span> = facts.map(span).filter(|span| span.start < span.end).collect();
        spans.sort_unstable();
        Self { spans }
    }

    /// Cuts the entries from `start` to before `end`, each of `1 << shift` bytes, where marks begin and end, and gives each part
    /// with its mark to `take`. Entries are not split. Only spans that are `wanted` count.
    fn cut(&self, bounds: (u64, u64), shift: u32, wanted: fn(&Span) -> bool, mut take: impl FnMut(u64, u64, Mark)) {
        let entry = 1_u64 << shift;
        let (start, end) = bounds;
        let mut at = start;
        let first = self.spans.partition_point(|span| span.end <= start);
        for span in self.spans.iter().skip(first).filter(|&span| wanted(span)) {
            if span.start >= end {
                break;
            }
            let from = (span.start & !(entry - 1)).max(at);
            let to = span.end.checked_next_multiple_of(entry).unwrap_or(u64::MAX).min(end);
            if to <= from {
                continue;
            }
            if at < from {
                take(at, from, Mark::None);
            }
            take(from, to, span.mark(span.start <= from && to <= span.end));
            at = to;
        }
        if at < end {
            take(at, end, Mark::None);
        }
    }

    /// Cuts `row`, of a table of this geometry, where marks begin and end, and gives the parts in their order to `take`.
    ///
    /// # Errors
    ///
    /// The first of `take`.
    pub(crate) fn cut_row<E>(
        &self,
        row: Row,
        geometry: &Geometry,
        mut take: impl FnMut(Row) -> Result<(), E>,
    ) -> Result<(), E> {
        // A guest's tables, which may be large, have no marks.
        if self.spans.is_empty() {
            return take(row);
        }
        let mut result = Ok(());
        // Where nothing is mapped, no page is shared either.
        let wanted = if row.is_hole() { |span: &Span| span.kind != FactKind::RING.0 } else { |_: &Span| true };
        self.cut((row.ia, row.end()), row.entry_shift, wanted, |start, end, mark| {
            if let (Some(part), true) = (row.clip(start, end, geometry), result.is_ok()) {
                result = take(Row { mark, ..part });
            }
        });
        result
    }

    /// Cuts page frames of `1 << shift` bytes from `start` to before `end` and gives the parts in their order to `take`.
    pub(crate) fn cut_frames(&self, start: u64, end: u64, shift: u32, take: impl FnMut(u64, u64, Mark)) {
        self.cut((start, end), shift, |_| true, take);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use s2dump_abi::slot::RecordKind;
    use s2dump_vmsa::{Features, Level, TableAttrs};
    use std::convert::Infallible;

    fn fact(kind: FactKind, start: u64, size: u64, value: u64) -> Fact {
        Fact { start, size, value, kind: kind.0, flags: 0, reserved: 0 }
    }

    fn parts(marks: &Marks, start: u64, end: u64, shift: u32) -> Vec<(u64, u64, Mark)> {
        let mut parts = Vec::new();
        marks.cut_frames(start, end, shift, |start, end, mark| parts.push((start, end, mark)));
        parts
    }

    #[test]
    fn pages_are_cut_where_the_ring_is() {
        let marks =
            Marks::of_memory(&[fact(FactKind::RING, 0x6000, 0x1000, 0), fact(FactKind::RING, 0x3000, 0x2000, 0)]);
        let expected = [
            (0, 0x3000, Mark::None),
            (0x3000, 0x5000, Mark::Ring),
            (0x5000, 0x6000, Mark::None),
            (0x6000, 0x7000, Mark::Ring),
            (0x7000, 0x8000, Mark::None),
        ];
        assert_eq!(parts(&marks, 0, 0x8000, 12), expected);
        assert_eq!(parts(&marks, 0x4000, 0x5000, 12), [(0x4000, 0x5000, Mark::Ring)]);
        assert_eq!(parts(&marks, 0x7000, 0x8000, 12), [(0x7000, 0x8000, Mark::None)]);
        assert_eq!(parts(&marks, 0x8000, 0x8000, 12), []);
        assert_eq!(parts(&Marks::default(), 0, 0x1000, 12), [(0, 0x1000, Mark::None)]);
    }

    /// A block is not split: it has ring pages, and others. Two of them in one block are one mark.
    #[test]
    fn blocks_are_not_cut() {
        let ring = |page: u64| fact(FactKind::RING, 0x20_0000 + (page << 12), 0x1000, 0);
        let marks = Marks::of_memory(&[ring(1), ring(5), ring(511)]);
        let expected =
            [(0, 0x20_0000, Mark::None), (0x20_0000, 0x40_0000, Mark::PartlyRing), (0x40_0000, 0x80_0000, Mark::None)];
        assert_eq!(parts(&marks, 0, 0x80_0000, 21), expected);
    }

    /// A row that sticks out of a slot of the fixmap is no slot.
    #[test]
    fn slots_of_el2_are_its_input_addresses() {
        let linear = fact(FactKind::HYP_LINEAR, 0, 0, 0_u64.wrapping_sub(0x8000_0000));
        let slot = fact(FactKind::FIXMAP, 0xc000_1000, 0x1000, 3);
        let facts = [slot, linear, fact(FactKind::RING, 0x3000, 0x1000, 0)];
        let marks = Marks::of_table(&facts, Target::HYP);
        assert_eq!(parts(&marks, 0x8000_3000, 0x8000_4000, 12), [(0x8000_3000, 0x8000_4000, Mark::Ring)]);
        assert_eq!(parts(&marks, 0xc000_1000, 0xc000_2000, 12), [(0xc000_1000, 0xc000_2000, Mark::Fixmap)]);
        assert_eq!(parts(&marks, 0xc000_0000, 0xc020_0000, 21), [(0xc000_0000, 0xc020_0000, Mark::None)]);
        assert_eq!(parts(&Marks::of_table(&facts, Target::HOST), 0, 0x1000, 12), [(0, 0x1000, Mark::None)]);
        assert_eq!(
            parts(&Marks::of_table(&facts[..1], Target::HYP), 0x3000, 0x4000, 12),
            [(0x3000, 0x4000, Mark::None)]
        );
        let guest = Marks::of_table(&facts, Target::guest(0x1000));
        assert_eq!(
            parts(&guest, 0x3000, 0x4000, 12),
            [(0x3000, 0x4000, Mark::None)],
            "a guest's addresses are its own"
        );
    }

    #[test]
    fn rows_are_cut_with_their_output_addresses() {
        let vtcr = 1 << 31 | 2 << 16 | 1 << 6 | 24;
        let geometry = Geometry::from_vtcr(vtcr, Features::of_kvm(vtcr, false, false)).unwrap();
        let row = Row {
            ia: 0x4000_0000,
            oa: Some(0x4000_0000),
            raw: 0x4000_07ff,
            count: 4,
            entry_shift: 12,
            skipped: 0,
            level: Level::L3,
            kind: RecordKind::LEAF,
            linear: true,
            inherited: TableAttrs::NONE,
            changed: Default::default(),
            mark: Mark::None,
        };
        let marks = Marks::of_table(&[fact(FactKind::RING, 0x4000_1000, 0x1000, 0)], Target::HOST);
        let mut parts = Vec::new();
        let Ok(()) = marks.cut_row::<Infallible>(row, &geometry, |part| {
            parts.push((part.ia, part.oa, part.count, part.mark));
            Ok(())
        });
        let expected = [
            (0x4000_0000, Some(0x4000_0000), 1, Mark::None),
            (0x4000_1000, Some(0x4000_1000), 1, Mark::Ring),
            (0x4000_2000, Some(0x4000_2000), 2, Mark::None),
        ];
        assert_eq!(parts, expected);

        let hole = Row { raw: 0, oa: None, kind: RecordKind::INVALID, ..row };
        let mut parts = Vec::new();
        let Ok(()) = marks.cut_row::<Infallible>(hole, &geometry, |part| {
            parts.push(part);
            Ok(())
        });
        assert_eq!(parts, [hole], "where nothing is mapped, nothing is shared");
    }
}
