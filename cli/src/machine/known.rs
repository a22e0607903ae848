// SPDX-License-Identifier: MIT OR Apache-2.0
//! Facts about memory and EL2.

use s2dump_abi::slot::{fact_flags, Fact, FactKind};

/// Addresses from `start` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    /// First address.
    pub(crate) start: u64,
    /// First address after.
    pub(crate) end: u64,
}

impl Span {
    /// Returns whether `address` is in it.
    pub(crate) fn has(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }
}

/// A region of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    /// Where it is.
    pub(crate) span: Span,
    /// pKVM keeps no states for it (`MEMBLOCK_NOMAP`).
    pub(crate) is_nomap: bool,
}

/// What is known.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Memory, in ascending order.
    pub(crate) memory: Vec<Region>,
    /// EL2's code.
    pub(crate) text: Vec<Span>,
    /// All facts, as they were told.
    pub(crate) facts: Vec<Fact>,
    /// What is to be added to an address of EL2's linear map, wrapping, for the physical address.
    pub(crate) linear: Option<u64>,
    /// Pages that s2dump itself shares with EL2.
    pub(crate) ring: Vec<Span>,
    /// All facts were read.
    pub(crate) is_whole: bool,
    /// The page size of the kernel, as a shift, once something told it: facts do not, and come first.
    page_shift: Option<u32>,
}

impl Known {
    /// Returns the page size of the kernel, as a shift: the smallest there is, as long as nothing told it.
    pub(crate) fn page_shift(&self) -> u32 {
        self.page_shift.unwrap_or(12)
    }

    /// Takes the page size. What was told first counts.
    pub(crate) fn set_page_shift(&mut self, shift: u32) {
        if self.page_shift.is_some() {
            return;
        }
        let told = std::mem::take(self);
        (self.page_shift, self.is_whole) = (Some(shift), told.is_whole);
        told.facts.iter().for_each(|fact| self.push(fact));
    }

    /// Takes a fact. One that was told before is passed over.
    pub(crate) fn push(&mut self, fact: &Fact) {
        if self.facts.contains(fact) {
            return;
        }
        self.facts.push(*fact);
        let span = Span { start: fact.start, end: fact.start.saturating_add(fact.size) };
        let list = match FactKind(fact.kind) {
            FactKind::MEMORY => {
                // A region may begin or end within a page. What a page is, its first byte is (`find_mem_range`).
                let page = 1 << self.page_shift();
                let up = |address: u64| address.checked_next_multiple_of(page).unwrap_or(u64::MAX);
                let span = Span { start: up(span.start), end: up(span.end) };
                if span.start >= span.end {
                    return;
                }
                let region = Region { span, is_nomap: fact.flags & fact_flags::NOMAP != 0 };
                let at = self.memory.partition_point(|known| known.span.start < span.start);
                if self.memory.get(at).is_none_or(|known| known.span != span) {
                    self.memory.insert(at, region);
                }
                return;
            }
            FactKind::HYP_LINEAR => {
                self.linear = Some(fact.value);
                return;
            }
            FactKind::HYP_TEXT => &mut self.text,
            FactKind::RING => &mut self.ring,
            _ => return,
        };
        list.push(span);
    }

    /// Returns the region that has `pa`.
    pub(crate) fn region(&self, pa: u64) -> Option<&Region> {
        let after = self.memory.partition_point(|region| region.span.start <= pa);
        self.memory.get(after.checked_sub(1)?).filter(|region| region.span.has(pa))
    }

    /// Returns the region or the hole between regions that has `pa`.
    pub(crate) fn stretch(&self, pa: u64) -> Span {
        if let Some(region) = self.region(pa) {
            return region.span;
        }
        let after = self.memory.partition_point(|region| region.span.start <= pa);
        let start = after.checked_sub(1).and_then(|before| self.memory.get(before)).map_or(0, |region| region.span.end);
        Span { start, end: self.memory.get(after).map_or(u64::MAX, |region| region.span.start) }
    }

    /// Returns whether `pa` is of EL2's code.
    pub(crate) fn is_text(&self, pa: u64) -> bool {
        self.text.iter().any(|span| span.has(pa))
    }

    /// Returns whether it is known through which input addresses EL2 looks at any page for a moment.
    pub(crate) fn has_slots(&self) -> bool {
        self.facts.iter().any(|fact| fact.kind == FactKind::FIXMAP.0)
    }

    /// Returns whether the page at `pa` is one that s2dump shares with EL2.
    pub(crate) fn is_ring(&self, pa: u64) -> bool {
        self.ring.iter().any(|span| span.has(pa))
    }

    /// Returns where EL2's linear map has `pa`.
    pub(crate) fn linear_of(&self, pa: u64) -> Option<u64> {
        self.linear.map(|offset| pa.wrapping_sub(offset))
    }
}
