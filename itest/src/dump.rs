// SPDX-License-Identifier: MIT OR Apache-2.0
//! All that came of one start, with what the ABI promises of every slot checked as it comes: magic, version, zeros,
//! order, budget, and that records follow each other without a gap or overlap.

use crate::script::page_bytes;
use anyhow::{bail, ensure, Context as _, Result};
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{
    frame_flags, record_flags, slot_flags, Fact, FactKind, FrameRecord, MemorySlot, PackedRun, Record, RecordKind,
    SlotHeader, SlotKind, VmRecord, SLOT_MAGIC,
};
use s2dump_abi::version::ABI_VERSION;
use zerocopy::{FromBytes as _, IntoBytes as _};

/// `KVM_MAX_VCPUS`: a VM has no more.
const MOST_VCPUS: u32 = 512;

/// All slots of one start, each checked as it came.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// Headers of all slots but END.
    pub headers: Vec<SlotHeader>,
    /// Records, in order.
    pub records: Vec<Record>,
    /// Records of tables, in order.
    pub tables: Vec<Record>,
    /// VMs, in order.
    pub vms: Vec<VmRecord>,
    /// What pKVM keeps about page frames, in order.
    pub frames: Vec<FrameRecord>,
    /// Facts, in order.
    pub facts: Vec<Fact>,
    /// Memory slots, in order.
    pub memory: Vec<MemorySlot>,
    /// The END slot.
    pub end: Option<SlotHeader>,
    /// Slots whose first record begins before them, although slots before them had told of it: the table had changed.
    pub reaching_back: usize,
}

impl Dump {
    /// Returns how it ended.
    ///
    /// # Errors
    ///
    /// If it did not.
    pub fn status(&self) -> Result<Status> {
        Ok(Status(self.end.context("no END slot")?.status))
    }

    /// Adds a slot. Checks what the ABI promises of each: magic, version, zeros, order, cover, budget.
    ///
    /// # Errors
    ///
    /// Names the promise broken.
    pub fn push(&mut self, page: &[u8]) -> Result<()> {
        let (header, _) = SlotHeader::read_from_prefix(page).ok().context("a slot shorter than its header")?;
        ensure!(header.magic == SLOT_MAGIC, "magic is {:#x}", header.magic);
        ensure!(header.version == ABI_VERSION.to_bits(), "version is {:#x}", header.version);
        ensure!(header.reserved == 0, "reserved fields are not zero: {header:x?}");
        ensure!(
            header.sequence == self.headers.len() as u64,
            "slot {} came as number {}",
            header.sequence,
            self.headers.len()
        );
        ensure!(self.end.is_none(), "a slot after END");
        let used = header.used_bytes().with_context(|| format!("wrong sizes: {header:x?}"))?;
        let bytes = &page[usize::from(header.header_bytes)..used];
        if header.kind == SlotKind::END.0 {
            let most = self.headers.iter().map(|slot| slot.visited).max().unwrap_or(0);
            ensure!(header.visited == most, "END says {} visited, the most was {most}", header.visited);
            let longest = self.headers.iter().map(|slot| slot.held_ticks).max().unwrap_or(0);
            ensure!(header.held_ticks == longest, "END says {} ticks, the longest was {longest}", header.held_ticks);
            self.end = Some(header);
            return Ok(());
        }
        let kind = SlotKind(header.kind);
        // The driver writes slots of its own, of VMs that never ran, its slots and memory slots: for those no lock of EL2 is held.
        let is_of_el2 = header.tick_hz != 0;
        let may_be_of_driver =
            matches!(kind, SlotKind::VMS | SlotKind::FACTS | SlotKind::MEMORY) && header.held_ticks == 0;
        ensure!(is_of_el2 || may_be_of_driver, "no tick rate: {header:x?}");
        // Of a list only looks at VMs that are there are timed; facts do not change, and need no lock.
        let holds =
            matches!(kind, SlotKind::RANGES | SlotKind::PACKED | SlotKind::WALK | SlotKind::FRAMES | SlotKind::EXAMINE);
        ensure!(!holds || header.held_ticks > 0, "no time of the hold: {header:x?}");
        // The last VM of a list is looked at as a whole.
        let beyond = if kind == SlotKind::VMS { MOST_VCPUS - 1 } else { 0 };
        ensure!(header.budget == 0 || header.visited <= header.budget + beyond, "over budget: {header:x?}");
        match kind {
            SlotKind::VMS => self.vms.extend_from_slice(<[VmRecord]>::ref_from_bytes(bytes).ok().context("VMs")?),
            SlotKind::WALK => {
                self.records.extend_from_slice(<[Record]>::ref_from_bytes(bytes).ok().context("records")?)
            }
            SlotKind::RANGES | SlotKind::PACKED => {
                let unpacked;
                let records = if header.kind == SlotKind::PACKED.0 {
                    unpacked = unpack(<[u64]>::ref_from_bytes(bytes).ok().context("words")?)?;
                    unpacked.as_slice()
                } else {
                    <[Record]>::ref_from_bytes(bytes).ok().context("records")?
                };
                let (tables, records): (Vec<Record>, Vec<Record>) =
                    records.iter().partition(|record| record.kind == RecordKind::TABLE.0);
                ensure!(tables.is_empty() || header.flags & slot_flags::TABLES != 0, "a table: {:x?}", tables[0]);
                self.tables.extend(tables);
                let records = records.as_slice();
                check_cover(&header, records, self.headers.last())?;
                let reaches_back = records.first().is_some_and(|record| record.ia < header.start);
                self.reaching_back += usize::from(reaches_back && !self.headers.is_empty());
                self.records.extend_from_slice(records);
            }
            SlotKind::FRAMES => {
                let frames = <[FrameRecord]>::ref_from_bytes(bytes).ok().context("frames")?;
                check_frames(&header, frames, self.headers.last())?;
                self.frames.extend_from_slice(frames);
            }
            SlotKind::FACTS => {
                let facts = <[Fact]>::ref_from_bytes(bytes).ok().context("facts")?;
                let of_driver = facts.iter().filter(|fact| fact.kind >= FactKind::RING.0).count();
                ensure!(of_driver == if is_of_el2 { 0 } else { facts.len() }, "facts of both sides: {facts:x?}");
                ensure!(facts.iter().all(|fact| fact.reserved == 0), "reserved fields are not zero: {facts:x?}");
                self.facts.extend_from_slice(facts);
            }
            SlotKind::MEMORY => {
                let memory = <[MemorySlot]>::ref_from_bytes(bytes).ok().context("memory slots")?;
                let all_before = self.headers.last().map_or(0, |last| last.next);
                ensure!(!is_of_el2 && header.root == 0 && header.start == all_before, "not as due: {header:x?}");
                let ends = memory.iter().map(|slot| slot.ia + slot.size);
                let follow =
                    memory.iter().zip(std::iter::once(header.start).chain(ends)).all(|(slot, at)| slot.ia >= at);
                ensure!(follow, "memory slots that do not follow each other: {memory:x?}");
                ensure!(memory.iter().all(|slot| slot.size > 0 && slot.reserved == 0), "no memory slots: {memory:x?}");
                self.memory.extend_from_slice(memory);
            }
            SlotKind::EXAMINE => {
                ensure!(header.target == 0 && self.headers.is_empty(), "not one slot about a page frame: {header:x?}");
                self.records.extend_from_slice(<[Record]>::ref_from_bytes(bytes).ok().context("records")?);
            }
            kind => bail!("a slot of kind {kind:?}"),
        }
        self.headers.push(header);
        Ok(())
    }
}

/// Makes records of the words of a packed slot: of a list, one for each entry.
fn unpack(mut words: &[u64]) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    while let Ok((head, rest)) = PackedRun::read_from_prefix(words.as_bytes()) {
        let rest = <[u64]>::ref_from_bytes(rest).ok().context("words")?;
        let PackedRun { ia, count, level, kind, flags } = head;
        let size = entry_bytes(level).with_context(|| format!("level of {head:x?}"))?;
        let is_list = flags & record_flags::LIST != 0;
        let listed = if is_list { count as usize } else { 1 };
        ensure!(listed > 0, "a list of none: {head:x?}");
        let (descriptors, after) = rest.split_at_checked(listed).with_context(|| format!("torn: {head:x?}"))?;
        for (n, &descriptor) in (0..).zip(descriptors) {
            let has_address = kind == RecordKind::LEAF.0 || kind == RecordKind::TABLE.0;
            let below = if kind == RecordKind::LEAF.0 { size } else { page_bytes() };
            let oa = if has_address { descriptor & 0xffff_ffff_ffff & !(below - 1) } else { 0 };
            let (count, flags) = if is_list { (1, record_flags::LINEAR) } else { (count, flags) };
            records.push(Record { ia: ia + n * size, oa, descriptor, count, level, kind, flags });
        }
        words = after;
    }
    ensure!(words.is_empty(), "a torn head");
    Ok(records)
}

/// Returns the bytes an entry of `level` maps, or `None` for a level that cannot be.
#[must_use]
pub fn entry_bytes(level: i8) -> Option<u64> {
    let above_pages = u32::try_from(3 - i32::from(level)).ok()?;
    let index_bits = page_bytes().ilog2() - 3;
    page_bytes().checked_mul(1_u64.checked_shl(index_bits * above_pages)?)
}

/// Checks that the records cover exactly what the header says, without a gap or overlap.
fn check_cover(header: &SlotHeader, records: &[Record], before: Option<&SlotHeader>) -> Result<()> {
    if let Some(before) = before {
        ensure!(
            header.start == before.next,
            "slot {} starts at {:#x}, not {:#x}",
            header.sequence,
            header.start,
            before.next
        );
        ensure!(header.root == before.root && header.vtcr == before.vtcr, "another table: {header:x?}");
    }
    let mut at = header.start;
    for (n, record) in records.iter().enumerate() {
        let size = entry_bytes(record.level).with_context(|| format!("level of {record:x?}"))?;
        // The first entry may be a hole or a block that begins before: before the range asked for, or where a table was.
        let begins_well = record.ia == at || (n == 0 && record.ia < at && at - record.ia < size);
        ensure!(
            begins_well && record.count > 0,
            "record {n} of slot {} is torn: {record:x?} at {at:#x}",
            header.sequence
        );
        at = record.ia + u64::from(record.count) * size;
    }
    ensure!(
        at == header.next || (at > header.next && header.next == header.end),
        "records end at {at:#x}: {header:x?}"
    );
    Ok(())
}

/// Checks that the records are in order, and within what the header says. There may be gaps: what is no memory.
fn check_frames(header: &SlotHeader, records: &[FrameRecord], before: Option<&SlotHeader>) -> Result<()> {
    let start = before.map_or(header.start, |before| before.next);
    ensure!(header.start == start, "slot {} starts at {:#x}, not {start:#x}", header.sequence, header.start);
    let mut at = header.start;
    for record in records {
        let end = record.pa + u64::from(record.count) * page_bytes();
        let is_in_order = record.pa % page_bytes() == 0 && record.pa >= at && record.count > 0 && end <= header.next;
        ensure!(is_in_order, "{record:x?} at {at:#x} of {header:x?}");
        ensure!(record.reserved == 0 && record.flags & !frame_flags::NO_STATE == 0, "unknown bits: {record:x?}");
        ensure!(record.flags & frame_flags::NO_STATE == 0 || record.raw == 0, "no state, and yet one: {record:x?}");
        at = end;
    }
    let frames = records.iter().filter(|record| record.flags & frame_flags::NO_STATE == 0);
    let visited: u64 = frames.map(|record| u64::from(record.count)).sum();
    ensure!(u64::from(header.visited) == visited, "{visited} frames are told, not {}", header.visited);
    Ok(())
}

/// What an examination found: the records of one slot, taken apart.
#[derive(Clone, Debug, Default)]
pub struct Examined {
    /// What pKVM keeps about the page frame, if it is memory with a state.
    pub frame: Option<u64>,
    /// For each place its record, and the records of its walk, top first.
    pub places: Vec<(Record, Vec<Record>)>,
}

impl Examined {
    /// Takes the records of an examination apart.
    ///
    /// # Errors
    ///
    /// If they are not in the order that the ABI says.
    pub fn of(dump: &Dump) -> Result<Self> {
        let mut examined = Self::default();
        for (number, record) in dump.records.iter().enumerate() {
            match (RecordKind(record.kind), examined.places.last_mut()) {
                (RecordKind::FRAME, _) => {
                    ensure!(number == 0, "the frame is not first: {:x?}", dump.records);
                    examined.frame = Some(record.descriptor);
                }
                (RecordKind::PLACE, _) => examined.places.push((*record, Vec::new())),
                (_, Some((place, walk))) if place.count == 0 && record.count == 1 => walk.push(*record),
                _ => bail!("record {number} is out of order: {:x?}", dump.records),
            }
        }
        Ok(examined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Record =
        Record { ia: 0, oa: 0, descriptor: 0, count: 4, level: 3, kind: RecordKind::INVALID.0, flags: 0 };

    fn header(sequence: u64, start: u64, next: u64, records: u32) -> SlotHeader {
        SlotHeader {
            record_bytes: size_of::<Record>() as u16,
            record_count: records,
            sequence,
            start,
            next,
            visited: 4,
            budget: 4,
            held_ticks: 9,
            tick_hz: 1000,
            ..SlotHeader::new(SlotKind::RANGES)
        }
    }

    fn slot(header: SlotHeader, records: &[Record]) -> Vec<u8> {
        [header.as_bytes(), records.as_bytes()].concat()
    }

    fn end(visited: u32, sequence: u64) -> Vec<u8> {
        slot(SlotHeader { kind: SlotKind::END.0, visited, record_bytes: 0, ..header(sequence, 0, 0, 0) }, &[])
    }

    fn dump(slots: &[Vec<u8>]) -> Result<Dump> {
        let mut dump = Dump::default();
        slots.iter().try_for_each(|slot| dump.push(slot))?;
        Ok(dump)
    }

    #[test]
    fn good_dump() {
        let second = Record { ia: 0x4000, ..PAGE };
        let slots = [slot(header(0, 0, 0x4000, 1), &[PAGE]), slot(header(1, 0x4000, 0x8000, 1), &[second]), end(4, 2)];
        let dump = dump(&slots).unwrap();
        assert_eq!((dump.records.len(), dump.status().unwrap()), (2, Status::OK));
    }

    #[test]
    fn good_first_entry_begins_before_the_range() {
        let block = Record { level: 2, count: 1, ..PAGE };
        let whole = dump(&[slot(header(0, 0x1000, 0x20_0000, 1), &[block])]).unwrap();
        assert_eq!(whole.reaching_back, 0, "nothing was told before");
    }

    #[test]
    fn good_table_that_became_a_block() {
        let block = Record { level: 2, count: 1, ..PAGE };
        let slots =
            [slot(header(0, 0, 0x4000, 1), &[PAGE]), slot(header(1, 0x4000, 0x20_0000, 1), &[block]), end(4, 2)];
        assert_eq!(dump(&slots).unwrap().reaching_back, 1);
    }

    #[test]
    fn bad_torn_runs() {
        let gap = Record { ia: 0x5000, ..PAGE };
        let overlap = Record { ia: 0x3000, ..PAGE };
        for second in [gap, overlap] {
            assert!(dump(&[slot(header(0, 0, 0x9000, 2), &[PAGE, second])]).is_err(), "{second:x?}");
        }
        assert!(dump(&[slot(header(0, 0, 0x5000, 1), &[PAGE])]).is_err(), "short of what the header says");
        assert!(dump(&[slot(header(0, 0, 0x3000, 1), &[PAGE])]).is_err(), "past what the header says");
        assert!(dump(&[slot(header(0, 0, 0, 1), &[Record { count: 0, ..PAGE }])]).is_err(), "an empty run");
        assert!(
            dump(&[slot(header(0, 0, 0x4000, 1), &[Record { level: 4, ..PAGE }])]).is_err(),
            "a level that cannot be"
        );
    }

    #[test]
    fn bad_order_and_budget() {
        let first = slot(header(0, 0, 0x4000, 1), &[PAGE]);
        assert!(dump(&[slot(header(1, 0, 0x4000, 1), &[PAGE])]).is_err(), "begins with number 1");
        assert!(dump(&[first.clone(), slot(header(1, 0x5000, 0x5000, 0), &[])]).is_err(), "a slot is missing");
        assert!(dump(&[slot(SlotHeader { visited: 5, ..header(0, 0, 0x4000, 1) }, &[PAGE])]).is_err(), "over budget");
        assert!(dump(&[first.clone(), end(3, 1)]).is_err(), "END says less than the most");
        let hold = |held_ticks, tick_hz| slot(SlotHeader { held_ticks, tick_hz, ..header(0, 0, 0x4000, 1) }, &[PAGE]);
        assert!(dump(&[hold(0, 1000)]).is_err() && dump(&[hold(9, 0)]).is_err(), "no hold is told");
        assert!(dump(&[hold(10, 1000), end(4, 1)]).is_err(), "END says a shorter hold than the longest");
        assert!(dump(&[first.clone(), end(4, 1), first]).is_err(), "a slot after END");
    }

    const FRAMES: FrameRecord = FrameRecord { pa: 0x4000, raw: 0, count: 2, flags: 0, reserved: 0 };

    fn frames(visited: u32, start: u64, next: u64, records: &[FrameRecord]) -> Vec<u8> {
        let (kind, record_bytes) = (SlotKind::FRAMES.0, size_of::<FrameRecord>() as u16);
        let header = SlotHeader { kind, record_bytes, visited, ..header(0, start, next, records.len() as u32) };
        [header.as_bytes(), records.as_bytes()].concat()
    }

    #[test]
    fn good_frames_have_gaps() {
        let no_state = FrameRecord { pa: 0x8000, flags: frame_flags::NO_STATE, ..FRAMES };
        let dump = dump(&[frames(2, 0, 0x1_0000, &[FRAMES, no_state])]).unwrap();
        assert_eq!(dump.frames.len(), 2);
    }

    #[test]
    fn bad_frames() {
        let bad = [
            ("before the slot", frames(2, 0x5000, 0x1_0000, &[FRAMES])),
            ("beyond the slot", frames(2, 0, 0x5000, &[FRAMES])),
            ("twice", frames(4, 0, 0x1_0000, &[FRAMES, FRAMES])),
            ("none", frames(0, 0, 0x1_0000, &[FrameRecord { count: 0, ..FRAMES }])),
            ("not counted", frames(1, 0, 0x1_0000, &[FRAMES])),
            ("both", frames(0, 0, 0x1_0000, &[FrameRecord { raw: 1, flags: frame_flags::NO_STATE, ..FRAMES }])),
            ("reserved", frames(2, 0, 0x1_0000, &[FrameRecord { reserved: 1, ..FRAMES }])),
        ];
        for (why, slot) in bad {
            assert!(dump(&[slot]).is_err(), "{why}");
        }
    }

    #[test]
    fn examinations_are_taken_apart() {
        let of = |kind: RecordKind, count| Record { kind: kind.0, count, ..PAGE };
        let examined = |records: &[Record]| Examined::of(&Dump { records: records.to_vec(), ..Dump::default() });
        let (frame, found, gone, entry) = (
            of(RecordKind::FRAME, 1),
            of(RecordKind::PLACE, 0),
            of(RecordKind::PLACE, Status::NO_SUCH_VM.0),
            of(RecordKind::LEAF, 1),
        );
        let good = examined(&[frame, gone, found, entry, entry]).unwrap();
        assert_eq!(good.places.iter().map(|(_, walk)| walk.len()).collect::<Vec<_>>(), [0, 2]);
        assert!(good.frame.is_some() && examined(&[]).unwrap().frame.is_none());
        for bad in [&[entry][..], &[found, frame], &[gone, entry], &[frame, frame]] {
            assert!(examined(bad).is_err(), "{bad:?}");
        }
    }
}
