// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an input tells of names, table by table. What it tells again replaces what it told before.

use super::{Name, Names};
use s2dump_abi::slot::MemorySlot;
use s2dump_abi::target::Target;
use std::collections::BTreeMap;

/// So many bytes are kept, of all tables of an input.
const MOST_BYTES: usize = 4 << 20;

/// Memory slots and names, by table.
#[derive(Debug, Default)]
pub(crate) struct Told {
    tables: BTreeMap<u64, Parts>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Parts {
    memory: Option<Vec<MemorySlot>>,
    names: Vec<Name>,
}

/// About what a table takes.
const TABLE_BYTES: usize = 128;

fn bytes_of(names: &[Name]) -> usize {
    names.iter().map(|name| size_of::<Name>() + name.text.len()).sum()
}

impl Told {
    /// Memory slots of `target` follow. Returns whether there is room for more.
    pub(crate) fn begin_memory(&mut self, target: Target) -> bool {
        let Some(parts) = self.parts(target) else { return false };
        let before = parts.memory.replace(Vec::new());
        self.bytes -= before.map_or(0, |memory| memory.len() * size_of::<MemorySlot>());
        true
    }

    /// Takes a memory slot.
    ///
    /// # Errors
    ///
    /// It is none, or there is no room.
    pub(crate) fn memory(&mut self, target: Target, memory: MemorySlot) -> Result<(), &'static str> {
        let end = memory.ia.checked_add(memory.size).filter(|&end| end > memory.ia);
        if end.is_none() {
            return Err("it has no bytes, or too many");
        }
        let Some(slots) = self.parts(target).and_then(|parts| parts.memory.as_mut()) else { return Err(NO_ROOM) };
        if slots.last().is_some_and(|last| memory.ia < last.ia.saturating_add(last.size)) {
            return Err("it does not follow the one before");
        }
        slots.push(memory);
        self.bytes += size_of::<MemorySlot>();
        Ok(())
    }

    /// Takes names, which replace those before if they are the first.
    ///
    /// # Errors
    ///
    /// Some are none, or there is no room.
    pub(crate) fn names(
        &mut self,
        target: Target,
        is_first: bool,
        lines: Vec<Option<Name>>,
    ) -> Result<(), &'static str> {
        let Some(parts) = self.parts(target) else { return Err(NO_ROOM) };
        let before = if is_first { bytes_of(&std::mem::take(&mut parts.names)) } else { 0 };
        let (mut at, count) = (parts.names.last().map_or(0, |last| last.end), lines.len());
        let follows = |name: &Name| {
            let is_next = name.start >= at;
            at = if is_next { name.end } else { at };
            is_next
        };
        let good: Vec<Name> = lines.into_iter().flatten().filter(follows).collect();
        let (taken, more) = (good.len(), bytes_of(&good));
        parts.names.extend(good);
        self.bytes = self.bytes - before + more;
        if taken < count {
            return Err("not all of its lines are names that follow each other");
        }
        Ok(())
    }

    /// Returns what there is of `target`, if there is room for more.
    fn parts(&mut self, target: Target) -> Option<&mut Parts> {
        if self.bytes >= MOST_BYTES {
            return None;
        }
        let (bytes, tables) = (&mut self.bytes, &mut self.tables);
        Some(tables.entry(target.0).or_insert_with(|| {
            *bytes += TABLE_BYTES;
            Parts::default()
        }))
    }

    /// Returns the memory slots of `target`.
    pub(crate) fn memory_of(&self, target: Target) -> Option<&[MemorySlot]> {
        self.tables.get(&target.0)?.memory.as_deref()
    }

    /// Returns what is known of `target`: nothing if nothing was told.
    pub(crate) fn names_of(&self, target: Target) -> Names {
        let Some(parts) = self.tables.get(&target.0) else { return Names::default() };
        match &parts.memory {
            Some(memory) => Names::of_guest(memory, &parts.names),
            None if target.guest_handle().is_some() || parts.names.is_empty() => Names::default(),
            None => Names::of_ascending(&parts.names),
        }
    }
}

const NO_ROOM: &str = "too many to be kept";

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: Target = Target::guest(0x1000);

    fn slot(ia: u64, size: u64) -> MemorySlot {
        MemorySlot { ia, size, hva: 0, flags: 0, id: 0, reserved: 0 }
    }

    fn name(start: u64, end: u64) -> Option<Name> {
        Some(Name { start, end, text: "a".into() })
    }

    #[test]
    fn what_is_told_again_replaces() {
        let mut told = Told::default();
        assert!(!told.names_of(GUEST).is_known());
        told.names(GUEST, true, vec![name(0, 0x1000)]).unwrap();
        assert!(!told.names_of(GUEST).is_known(), "names of what memory slots?");
        assert!(told.begin_memory(GUEST));
        told.memory(GUEST, slot(0, 0x2000)).unwrap();
        assert_eq!(told.names_of(GUEST).of(0, 1).unwrap().span.text.as_deref(), Some("a"));
        assert!(told.begin_memory(GUEST) && told.memory_of(GUEST) == Some(&[]));
        assert!(told.names_of(GUEST).is_known() && told.names_of(GUEST).of(0, 1).is_none());
        told.names(Target::HOST, true, vec![name(0, 0x1000)]).unwrap();
        told.names(Target::HOST, false, vec![name(0x1000, 0x2000)]).unwrap();
        assert!(told.names_of(Target::HOST).of(0x1000, 0x1001).is_some());
        told.names(Target::HOST, true, vec![name(0, 0x1000)]).unwrap();
        assert!(told.names_of(Target::HOST).of(0x1000, 0x1001).is_none());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut told = Told::default();
        assert!(told.memory(GUEST, slot(0, 0x1000)).is_err(), "nothing began");
        told.begin_memory(GUEST);
        told.memory(GUEST, slot(0x2000, 0x1000)).unwrap();
        for (ia, size) in [(0x2000, 0x1000), (0x2800, 0x1000), (0x4000, 0), (0x4000, u64::MAX), (u64::MAX, 1)] {
            assert!(told.memory(GUEST, slot(ia, size)).is_err(), "{ia:#x} {size:#x}");
        }
        assert!(told.names(GUEST, true, vec![name(0x1000, 0x2000), None]).is_err());
        assert!(told.names(GUEST, false, vec![name(0x1800, 0x2800)]).is_err());
        told.names(GUEST, false, vec![name(0x2000, 0x2800)]).unwrap();
    }

    /// A capture made by hand may tell the same again and again, or ever more.
    #[test]
    fn memory_is_bounded() {
        let mut told = Told::default();
        for _ in 0..100 {
            assert!(told.begin_memory(GUEST));
            (0..4096).for_each(|n| told.memory(GUEST, slot(n << 12, 0x1000)).unwrap());
            told.names(GUEST, true, vec![name(0, 0x1000)]).unwrap();
        }
        let kept = told.bytes;
        assert!(kept < 4096 * 32 + 1024, "{kept}");
        assert!((0..1 << 20).any(|n| !told.begin_memory(Target(n))));
        assert!(told.bytes <= MOST_BYTES + TABLE_BYTES, "{}", told.bytes);
        assert_eq!(told.memory(GUEST, slot(1 << 40, 0x1000)), Err(NO_ROOM));
    }
}
