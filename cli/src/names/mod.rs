// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of input addresses: of a guest's the memory slot and what is behind it, of the host's and EL2's what is there.
//!
//! They are told beside a table, not by it: by KVM and the VMM's process, by `/proc/iomem`, by EL2's facts. So they are as true
//! as those are, at about the time that the table is read.

pub(crate) mod text;
pub(crate) mod told;

use crate::model::Row;
use s2dump_abi::slot::{fact_flags, Fact, FactKind, MemorySlot};
use s2dump_vmsa::Geometry;
use std::collections::BTreeSet;

/// Addresses, and a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// The first.
    pub(crate) start: u64,
    /// The first after.
    pub(crate) end: u64,
    /// What they are called.
    pub(crate) text: String,
}

/// Input addresses of which the same is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    start: u64,
    end: u64,
    /// The memory slot they are in.
    pub(crate) memory: Option<MemorySlot>,
    /// Their name, if it is known.
    pub(crate) text: Option<String>,
}

/// Returns names that do not lie in each other, in ascending order: of `names` that do, the later one counts.
pub(crate) fn apart(names: &[Name]) -> Vec<Name> {
    let borders: BTreeSet<u64> = names.iter().flat_map(|name| [name.start, name.end]).collect();
    let mut apart: Vec<Name> = Vec::new();
    for (&start, &end) in borders.iter().zip(borders.iter().skip(1)) {
        let Some(name) = names.iter().rev().find(|name| name.start <= start && end <= name.end) else { continue };
        match apart.last_mut() {
            Some(last) if last.end == start && last.text == name.text => last.end = end,
            _ => apart.push(Name { start, end, text: name.text.clone() }),
        }
    }
    apart
}

/// What is known of a table's input addresses.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// In ascending order, apart from each other.
    spans: Vec<Span>,
    is_known: bool,
}

/// What is known of a row.
pub(crate) struct Named<'n> {
    /// Of its first address of which something is known.
    pub(crate) span: &'n Span,
    /// It holds for all of the row. Else the row is of entries that are larger than what has the name.
    pub(crate) is_whole: bool,
    ia: u64,
}

impl Named<'_> {
    /// Returns the host virtual address of the row's first byte, if that is in the memory slot.
    pub(crate) fn hva(&self) -> Option<u64> {
        let memory = self.span.memory?;
        Some(memory.hva.wrapping_add(self.ia.checked_sub(memory.ia)?))
    }
}

impl Names {
    /// Takes the memory slots of a guest, in ascending order and apart from each other, and what is behind them, in ascending
    /// input addresses.
    pub(crate) fn of_guest(memory: &[MemorySlot], names: &[Name]) -> Self {
        let mut spans = Vec::new();
        let mut names = names.iter().peekable();
        for slot in memory {
            let (mut at, end) = (slot.ia, slot.ia.saturating_add(slot.size));
            let mut push = |start, end, text| spans.push(Span { start, end, memory: Some(*slot), text });
            while let Some(name) = names.peek().filter(|name| name.start < end) {
                let (start, stop) = (name.start.max(at), name.end.min(end));
                if start < stop {
                    if at < start {
                        push(at, start, None);
                    }
                    push(start, stop, Some(name.text.clone()));
                    at = stop;
                }
                if name.end > end {
                    break;
                }
                names.next();
            }
            if at < end {
                push(at, end, None);
            }
        }
        Self { spans, is_known: true }
    }

    /// Takes names in ascending order that do not lie in each other.
    pub(crate) fn of_ascending(names: &[Name]) -> Self {
        let span = |name: &Name| Span { start: name.start, end: name.end, memory: None, text: Some(name.text.clone()) };
        Self { spans: names.iter().map(span).collect(), is_known: true }
    }

    /// Takes names that may lie in each other: the later one counts.
    pub(crate) fn of_nested(names: &[Name]) -> Self {
        Self::of_ascending(&apart(names))
    }

    /// Takes what EL2 says of its own input addresses; nothing is known if it does not say where its linear map is.
    pub(crate) fn of_hyp(facts: &[Fact]) -> Self {
        let Some(linear) = facts.iter().find(|fact| fact.kind == FactKind::HYP_LINEAR.0) else {
            return Self::default();
        };
        let physical = |fact: &Fact, text| (fact.start.wrapping_sub(linear.value), text);
        let name = |fact: &Fact| {
            let (start, text) = match FactKind(fact.kind) {
                FactKind::MEMORY if fact.flags & fact_flags::NOMAP == 0 => physical(fact, "linear"),
                FactKind::HYP_TEXT => physical(fact, "text"),
                FactKind::HYP_DATA => physical(fact, "data"),
                FactKind::HYP_RODATA => physical(fact, "rodata"),
                FactKind::HYP_BSS => physical(fact, "bss"),
                FactKind::RING => physical(fact, "ring"),
                FactKind::HYP_VMEMMAP => (fact.start, "vmemmap"),
                FactKind::HYP_PRIVATE => (fact.start, "private"),
                FactKind::FIXMAP => (fact.start, "fixmap"),
                FactKind::FIXBLOCK => (fact.start, "fixblock"),
                _ => return None,
            };
            Some(Name { start, end: start.checked_add(fact.size)?, text: text.into() })
        };
        // What lies in something else has a higher number, but for private mappings, in which the fixmap is.
        let mut names: Vec<(bool, u16, Name)> = facts
            .iter()
            .filter_map(|fact| Some((fact.kind != FactKind::HYP_PRIVATE.0, fact.kind, name(fact)?)))
            .collect();
        names.sort_by_key(|(is_inner, kind, _)| (*is_inner, *kind));
        Self::of_nested(&names.into_iter().map(|(.., name)| name).collect::<Vec<_>>())
    }

    /// Returns whether anything is known: that addresses have no name is only then.
    pub(crate) fn is_known(&self) -> bool {
        self.is_known
    }

    /// Returns what is known of `row`.
    pub(crate) fn of_row(&self, row: &Row) -> Option<Named<'_>> {
        self.of(row.ia, row.end())
    }

    /// Returns what is known of the addresses from `start` to before `end`.
    pub(crate) fn of(&self, start: u64, end: u64) -> Option<Named<'_>> {
        let at = self.spans.partition_point(|span| span.end <= start);
        let span = self.spans.get(at).filter(|span| span.start < end)?;
        Some(Named { span, is_whole: span.start <= start && end <= span.end, ia: start })
    }

    /// Returns whether a name begins or ends where `row` begins, or within its first entry, or within the one before, if that is
    /// as large: there [`Self::cut_row`] cuts.
    pub(crate) fn is_border(&self, row: &Row) -> bool {
        let entry = 1_u64 << row.entry_shift;
        let starts = self.spans.partition_point(|span| span.start < row.ia);
        let ends = self.spans.partition_point(|span| span.end <= row.ia.saturating_sub(entry));
        self.spans.get(starts).is_some_and(|span| span.start - row.ia < entry)
            || self.spans.get(ends).is_some_and(|span| span.end <= row.ia)
    }

    /// Cuts `row`, of a table of this geometry, where names begin and end, and gives the parts in their order to `take`. Entries are
    /// not split.
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
        if self.spans.is_empty() {
            return take(row);
        }
        let entry = 1_u64 << row.entry_shift;
        let first = self.spans.partition_point(|span| span.end <= row.ia);
        let mut at = row.ia;
        let mut cut_at = |border: u64| {
            if border <= at || border >= row.end() {
                return Ok(());
            }
            let part = row.clip(at, border, geometry);
            at = border;
            part.map_or(Ok(()), &mut take)
        };
        for span in self.spans.iter().skip(first).take_while(|span| span.start < row.end()) {
            cut_at(span.start & !(entry - 1))?;
            cut_at(span.end.checked_next_multiple_of(entry).unwrap_or(u64::MAX))?;
        }
        row.clip(at, u64::MAX, geometry).map_or(Ok(()), take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Changed, Mark};
    use s2dump_abi::slot::RecordKind;
    use s2dump_vmsa::{Features, Level, TableAttrs};
    use std::convert::Infallible;

    fn name(start: u64, end: u64, text: &str) -> Name {
        Name { start, end, text: text.into() }
    }

    fn slot(id: u16, ia: u64, size: u64, hva: u64) -> MemorySlot {
        MemorySlot { ia, size, hva, flags: 0, id, reserved: 0 }
    }

    type Told = (u64, u64, Option<u16>, Option<String>);

    fn told(names: &Names) -> Vec<Told> {
        let of = |span: &Span| (span.start, span.end, span.memory.map(|memory| memory.id), span.text.clone());
        names.spans.iter().map(of).collect()
    }

    #[test]
    fn slots_are_cut_where_what_is_behind_them_changes() {
        let memory = [slot(0, 0x1000, 0x1000, 0x7000), slot(4, 0x4000, 0x4000, 0x9000)];
        let names = [name(0x4000, 0x5000, "[anon]"), name(0x6000, 0x7000, "memfd:a")];
        let some = |text: &str| Some(text.to_owned());
        let expected = [
            (0x1000, 0x2000, Some(0), None),
            (0x4000, 0x5000, Some(4), some("[anon]")),
            (0x5000, 0x6000, Some(4), None),
            (0x6000, 0x7000, Some(4), some("memfd:a")),
            (0x7000, 0x8000, Some(4), None),
        ];
        let known = Names::of_guest(&memory, &names);
        assert_eq!(told(&known), expected);
        let named = known.of(0x6000, 0x7000).unwrap();
        assert_eq!((named.hva(), named.is_whole), (Some(0xb000), true));
        let named = known.of(0x3000, 0x7000).unwrap();
        assert_eq!((named.hva(), named.is_whole, named.span.start), (None, false, 0x4000));
        assert!(known.of(0x2000, 0x4000).is_none() && known.of(0x8000, u64::MAX).is_none());
    }

    /// Names that lie outside of all slots are of other memory slots than these.
    #[test]
    fn names_do_not_leave_their_slot() {
        let memory = [slot(0, 0x1000, 0x1000, 0), slot(1, 0x3000, 0x1000, 0)];
        for names in [&[name(0, 0x1000, "a")][..], &[name(0x2000, 0x3000, "a")], &[name(0x5000, 0x6000, "a")]] {
            let known = Names::of_guest(&memory, names);
            assert_eq!(told(&known), [(0x1000, 0x2000, Some(0), None), (0x3000, 0x4000, Some(1), None)], "{names:?}");
        }
        let across = told(&Names::of_guest(&memory, &[name(0x800, 0x3800, "a")]));
        let some = || Some("a".to_owned());
        let expected =
            [(0x1000, 0x2000, Some(0), some()), (0x3000, 0x3800, Some(1), some()), (0x3800, 0x4000, Some(1), None)];
        assert_eq!(across, expected);
        assert!(told(&Names::of_guest(&[], &[name(0, 0x1000, "a")])).is_empty());
    }

    #[test]
    fn what_lies_in_something_has_its_own_name() {
        let names = [name(0, 0x8000, "RAM"), name(0x2000, 0x6000, "code"), name(0x3000, 0x4000, "text")];
        let texts: Vec<(u64, Option<String>)> =
            told(&Names::of_nested(&names)).into_iter().map(|(start, .., text)| (start, text)).collect();
        let expected = [(0, "RAM"), (0x2000, "code"), (0x3000, "text"), (0x4000, "code"), (0x6000, "RAM")];
        assert_eq!(texts, expected.map(|(start, text)| (start, Some(text.to_owned()))));
    }

    #[test]
    fn regions_of_el2() {
        let fact =
            |kind: FactKind, start, size, value| Fact { start, size, value, kind: kind.0, flags: 0, reserved: 0 };
        let linear = fact(FactKind::HYP_LINEAR, 0, 0, 0_u64.wrapping_sub(0x8000_0000));
        let facts = [
            fact(FactKind::FIXMAP, 0xf000_1000, 0x1000, 1),
            fact(FactKind::HYP_TEXT, 0x4000_1000, 0x1000, 0),
            fact(FactKind::HYP_RODATA, 0x4000_2000, 0x1000, 0),
            fact(FactKind::MEMORY, 0x4000_0000, 0x4000, 0),
            Fact { flags: fact_flags::NOMAP, ..fact(FactKind::MEMORY, 0x5000_0000, 0x4000, 0) },
            fact(FactKind::HYP_PRIVATE, 0xf000_0000, 0x4000, 0),
            fact(FactKind::HYP_VMEMMAP, 0xe000_0000, 0x4000, 0),
            fact(FactKind(99), 0, 0x4000, 0),
            linear,
        ];
        let known = Names::of_hyp(&facts);
        for (ia, expected) in [
            (0xc000_0000, Some("linear")),
            (0xc000_1000, Some("text")),
            (0xc000_2000, Some("rodata")),
            (0xc000_3000, Some("linear")),
            (0xd000_0000, None),
            (0xe000_0000, Some("vmemmap")),
            (0xf000_0000, Some("private")),
            (0xf000_1000, Some("fixmap")),
            (0x1000, None),
        ] {
            let named = known.of(ia, ia + 1);
            assert_eq!(named.and_then(|named| named.span.text.as_deref()), expected, "{ia:#x}");
        }
        assert!(!Names::of_hyp(&facts[..8]).is_known(), "physical addresses cannot be placed");
    }

    #[test]
    fn rows_are_cut_at_names_and_entries_are_not() {
        let vtcr = 1 << 31 | 2 << 16 | 1 << 6 | 24;
        let geometry = Geometry::from_vtcr(vtcr, Features::of_kvm(vtcr, false, false)).unwrap();
        let pages = Row {
            ia: 0x4000_0000,
            oa: Some(0x8000_0000),
            raw: 0x8000_07ff,
            count: 8,
            entry_shift: 12,
            skipped: 0,
            level: Level::L3,
            kind: RecordKind::LEAF,
            linear: true,
            inherited: TableAttrs::NONE,
            changed: Changed::default(),
            mark: Mark::None,
        };
        let memory =
            [slot(0, 0x4000_1000, 0x1000, 0), slot(1, 0x4000_2000, 0x2000, 0), slot(2, 0x4000_7000, 0x9000, 0)];
        let known = Names::of_guest(&memory, &[]);
        let parts = |row: Row| {
            let mut parts = Vec::new();
            let Ok(()) = known.cut_row::<Infallible>(row, &geometry, |part| {
                let named = known.of_row(&part).map(|named| (named.span.memory.unwrap().id, named.is_whole));
                parts.push((part.ia, part.oa, part.count, named));
                Ok(())
            });
            parts
        };
        let expected = [
            (0x4000_0000, Some(0x8000_0000), 1, None),
            (0x4000_1000, Some(0x8000_1000), 1, Some((0, true))),
            (0x4000_2000, Some(0x8000_2000), 2, Some((1, true))),
            (0x4000_4000, Some(0x8000_4000), 3, None),
            (0x4000_7000, Some(0x8000_7000), 1, Some((2, true))),
        ];
        assert_eq!(parts(pages), expected);
        let hole = Row { ia: 0, oa: None, raw: 0, count: 3, entry_shift: 30, kind: RecordKind::INVALID, ..pages };
        let expected = [(0, None, 1, None), (1 << 30, None, 1, Some((0, false))), (2 << 30, None, 1, None)];
        assert_eq!(parts(hole), expected);
        let elsewhere = Row { ia: 0x8000_0000, ..pages };
        assert_eq!(parts(elsewhere).len(), 1);

        // However the same rows come, they are cut at the same places.
        for (ia, is_border) in [(0, false), (0x4000_1000, true), (0x4000_3000, false), (0x4001_0000, true)] {
            assert_eq!(known.is_border(&Row { ia, ..pages }), is_border, "{ia:#x}");
        }
        for (ia, is_border) in [(0, false), (1 << 30, true), (2 << 30, true), (3 << 30, false)] {
            assert_eq!(known.is_border(&Row { ia, ..hole }), is_border, "{ia:#x}");
        }
    }
}
