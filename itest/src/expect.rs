// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest's table must hold, as far as the VMM knows what it and the guest did.
//!
//! Kept per mapped page or block, told as runs. The rules are those of KVM on Linux 7.3 under pKVM
//! (`arch/arm64/kvm/mmu.c`, `hyp/nvhe/mem_protect.c`); the state names are those `s2dump` prints.

use crate::script::{block_bytes, page_bytes};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// pKVM's word on a page, as a guest's table tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Only the guest has it.
    Owned,
    /// The guest's, lent to the host.
    SharedOwned,
    /// The host's, lent to the guest.
    SharedBorrowed,
    /// Taken away by the host kernel; an invalid entry says so.
    Poisoned,
    /// No memory: the host may play a device there; an invalid entry says so.
    MmioGuard,
}

/// One entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// 2 for blocks, 3 for pages.
    pub level: i8,
    /// The guest may load.
    pub read: bool,
    /// The guest may store.
    pub write: bool,
    /// The guest may execute.
    pub execute: bool,
    /// pKVM's state.
    pub state: State,
    /// Where it leads, if the VMM was asked to find out; never for an invalid entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oa: Option<u64>,
}

impl Entry {
    /// Returns an invalid entry of the last level.
    #[must_use]
    pub const fn invalid(state: State) -> Self {
        Self { level: 3, read: false, write: false, execute: false, state, oa: None }
    }

    /// Returns whether the entry maps something.
    #[must_use]
    pub const fn is_leaf(&self) -> bool {
        !matches!(self.state, State::Poisoned | State::MmioGuard)
    }

    /// Returns the bytes one such entry maps.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        if self.level == 2 {
            block_bytes()
        } else {
            page_bytes()
        }
    }

    /// Returns the entry `bytes` further on in a run that begins with `self`.
    #[must_use]
    pub fn at(&self, bytes: u64) -> Self {
        Self { oa: self.oa.map(|oa| oa + bytes), ..*self }
    }
}

/// Entries that follow each other and differ in nothing but a running output address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Input address of the first.
    pub ia: u64,
    /// How many.
    pub count: u64,
    /// The first.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What the VMM prints after its steps, and the tests compare with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// The VMM's process.
    pub pid: u32,
    /// Name of the VM's directory in `/sys/kernel/debug/kvm`.
    pub debugfs: String,
    /// The guest is protected.
    pub protected: bool,
    /// Input-address bits of this machine's guests.
    pub ipa_bits: u32,
    /// vCPUs made.
    pub vcpus: usize,
    /// A vCPU ran, so EL2 has a table.
    pub ran: bool,
    /// Non-zero entries in ascending order.
    pub runs: Vec<Run>,
    /// Memory slots in ascending order.
    pub memory: Vec<Given>,
}

/// Memory that the guest was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Number of the memory slot.
    pub id: u16,
    /// First input address.
    pub ia: u64,
    /// Bytes.
    pub size_bytes: u64,
    /// The VMM's address of the first byte.
    pub host_address: u64,
    /// Guest stores do not reach it.
    pub read_only: bool,
    /// What the host calls it, in the list of mappings of the VMM.
    pub name: String,
}

/// Entries by input address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeafMap(pub BTreeMap<u64, Entry>);

impl LeafMap {
    /// Returns the entry that covers `ia`.
    #[must_use]
    pub fn get_mut(&mut self, ia: u64) -> Option<&mut Entry> {
        let (start, entry) = self.0.range_mut(..=ia).next_back()?;
        (ia - start < entry.size_bytes()).then_some(entry)
    }

    /// Makes pages of the block that covers `ia`, if there is one: entries of level 3 that map and permit the same.
    pub fn split(&mut self, ia: u64) {
        let Some((&start, &block)) = self.0.range(..=ia).next_back() else { return };
        if block.level != 2 || ia - start >= block.size_bytes() {
            return;
        }
        for page in (0..block.size_bytes()).step_by(page_bytes() as usize) {
            self.0.insert(start + page, Entry { level: 3, ..block.at(page) });
        }
    }

    /// Takes out the entry that covers `ia`, if there is one.
    pub fn remove(&mut self, ia: u64) {
        let covers = self.0.range(..=ia).next_back().filter(|(start, entry)| ia - **start < entry.size_bytes());
        if let Some(start) = covers.map(|(start, _)| *start) {
            self.0.remove(&start);
        }
    }

    /// Folds into runs.
    #[must_use]
    pub fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (&ia, &entry) in &self.0 {
            if let Some(last) = runs.last_mut() {
                let length = last.count * last.entry.size_bytes();
                if last.ia + length == ia && last.entry.at(length) == entry {
                    last.count += 1;
                    continue;
                }
            }
            runs.push(Run { ia, count: 1, entry });
        }
        runs
    }

    /// Unfolds runs.
    #[must_use]
    pub fn from_runs(runs: &[Run]) -> Self {
        let one = |run: &Run, n: u64| (run.ia + n * run.entry.size_bytes(), run.entry.at(n * run.entry.size_bytes()));
        Self(runs.iter().flat_map(|run| (0..run.count).map(move |n| one(run, n))).collect())
    }

    /// Says the first differences to `actual`, or nothing. Output addresses count only where both sides have one.
    #[must_use]
    pub fn differences(&self, actual: &Self) -> Vec<String> {
        const ENOUGH: usize = 5;
        let same = |a: &Entry, b: &Entry| {
            let oa = if a.oa.is_some() && b.oa.is_some() { b.oa } else { a.oa };
            *a == Entry { oa: a.oa, ..*b } && a.oa == oa
        };
        let mut out = Vec::new();
        for (ia, expected) in &self.0 {
            match actual.0.get(ia) {
                Some(entry) if same(expected, entry) => {}
                other => out.push(format!("{ia:#x}: expected {expected:x?}, dumped {other:x?}")),
            }
        }
        for (ia, entry) in &actual.0 {
            if !self.0.contains_key(ia) {
                out.push(format!("{ia:#x}: expected nothing, dumped {entry:x?}"));
            }
        }
        let rest = out.len().saturating_sub(ENOUGH);
        out.truncate(ENOUGH);
        if rest > 0 {
            out.push(format!("and {rest} more"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Entry =
        Entry { level: 3, read: true, write: true, execute: true, state: State::Owned, oa: Some(0x4000_0000) };

    fn leaf_map(pages: u64) -> LeafMap {
        LeafMap((0..pages).map(|n| (0x8000_0000 + n * page_bytes(), PAGE.at(n * page_bytes()))).collect())
    }

    #[test]
    fn runs_round_trip() {
        let mut t = leaf_map(8);
        t.get_mut(0x8000_3fff).unwrap().state = State::SharedOwned;
        t.get_mut(0x8000_6000).unwrap().oa = Some(0x5000_0000);
        assert_eq!(t.runs().len(), 5);
        assert_eq!(LeafMap::from_runs(&t.runs()), t);
    }

    #[test]
    fn blocks_cover_their_addresses() {
        let mut t = LeafMap([(0, Entry { level: 2, ..PAGE })].into());
        assert!(t.get_mut(block_bytes() - 1).is_some());
        assert!(t.get_mut(block_bytes()).is_none());
        t.remove(block_bytes());
        assert_eq!(t.0.len(), 1);
        t.remove(block_bytes() - 1);
        assert_eq!(t.0.len(), 0);
    }

    #[test]
    fn differences_are_found_both_ways() {
        let (a, mut b) = (leaf_map(3), leaf_map(4));
        assert_eq!(a.differences(&a), Vec::<String>::new());
        assert_eq!(a.differences(&b).len(), 1);
        b.get_mut(0x8000_0000).unwrap().oa = Some(1);
        assert_eq!(a.differences(&b).len(), 2);
        b.get_mut(0x8000_0000).unwrap().oa = None;
        assert_eq!(a.differences(&b).len(), 1);
    }
}
