// SPDX-License-Identifier: MIT OR Apache-2.0
//! What trees have at which input address.

use super::says::Sayings;
use super::track::{Span, Track};
use super::{Class, Kind, Piece, Segment};
use crate::machine::tree::Tree;
use crate::machine::Machine;
use crate::marks::Marks;
use crate::model::{Mark, Row, TableFacts};
use s2dump_abi::slot::RecordKind;
use s2dump_vmsa::pkvm::{InvalidKind, PageState};
use std::convert::Infallible;

/// Returns the pieces of the tree of guest `number`.
pub(super) fn of_guest(tree: &Tree, number: usize, machine: &Machine, sayings: &mut Sayings) -> Vec<Piece> {
    let table = &tree.table;
    let is_protected = machine.is_protected(table.target);
    let rows = tree.rows(0, u64::MAX).filter(|row| !row.is_hole());
    let pieces = rows.map(|row| {
        let class = guest_class(&row, table, number, is_protected);
        let oa = row.oa.filter(|_| row.kind == RecordKind::LEAF);
        Piece { ia: row.ia, end: row.end(), oa, said: sayings.of_row(&row, table, class) }
    });
    pieces.collect()
}

/// Returns whose pages the entries of a guest's table say they are.
fn guest_class(row: &Row, table: &TableFacts, number: usize, is_protected: bool) -> Class {
    let software = table.decode_software(row.raw);
    match (row.kind, software.page_state(), software.invalid()) {
        (RecordKind::LEAF, Some(PageState::Owned) | None, _) if is_protected => {
            Class::Guest { number, is_shared: false }
        }
        (RecordKind::LEAF, Some(PageState::Owned | PageState::SharedOwned | PageState::SharedBorrowed) | None, _) => {
            Class::Guest { number, is_shared: true }
        }
        (RecordKind::LEAF, Some(PageState::NoPage), _) => Class::Clash,
        (RecordKind::LEAF, Some(_), _) => Class::Other,
        (RecordKind::INVALID, _, Some(InvalidKind::GuestPoisoned { .. })) => Class::Poisoned,
        (RecordKind::INVALID, ..) => Class::Other,
        _ => Class::Clash,
    }
}

/// Returns the pieces of EL2's tree, cut where the pages that it maps are another's.
pub(super) fn of_hyp(
    tree: &Tree,
    machine: &Machine,
    segments: &[Segment],
    kinds: &[Kind],
    sayings: &mut Sayings,
) -> Vec<Piece> {
    let (table, geometry) = (&tree.table, &tree.table.geometry);
    let marks = Marks::of_table(&machine.known.facts, table.target);
    let mut pieces = Vec::new();
    for row in tree.rows(0, u64::MAX) {
        let Ok(()) = marks.cut_row::<Infallible>(row, geometry, |part| {
            let passes = matches!(part.mark, Mark::Fixmap | Mark::Fixblock);
            match (part.kind, part.oa) {
                // What is left of a leaf maps nothing.
                (RecordKind::INVALID, _) => {}
                (RecordKind::LEAF, Some(oa)) if !passes => {
                    let first = segments.partition_point(|segment| segment.end <= oa);
                    let spans = segments.iter().skip(first).map(|segment| {
                        let class = kinds.get(segment.kind as usize).map_or(Class::Nothing, |kind| kind.class);
                        Span { start: segment.start, end: segment.end, said: class }
                    });
                    let mut track = Track::new(spans);
                    let end = oa.saturating_add(part.size());
                    let mut at = oa;
                    while at < end {
                        let (span, bound) = track.at(at);
                        // Where no memory is, EL2 maps a device.
                        let class = span.map_or(Class::Hyp, |span| span.said);
                        let to = bound.min(end);
                        let said = sayings.of_row(&part, table, class);
                        let ia = part.ia + (at - oa);
                        pieces.push(Piece { ia, end: ia + (to - at), oa: Some(at), said });
                        at = to;
                    }
                }
                (RecordKind::LEAF, oa) => {
                    let said = sayings.of_row(&part, table, Class::Hyp);
                    pieces.push(Piece { ia: part.ia, end: part.end(), oa, said });
                }
                _ => {
                    let said = sayings.of_row(&part, table, Class::Clash);
                    pieces.push(Piece { ia: part.ia, end: part.end(), oa: None, said });
                }
            }
            Ok(())
        });
    }
    pieces.dedup_by(|next, last| {
        let runs_on = last.end == next.ia
            && last.said == next.said
            && last.oa.map(|oa| oa.wrapping_add(last.end - last.ia)) == next.oa;
        if runs_on {
            last.end = next.end;
        }
        runs_on
    });
    pieces
}
