// SPDX-License-Identifier: MIT OR Apache-2.0
//! A whole machine by hand: what pKVM keeps about 32 MiB of memory with two protected guests and two ordinary ones, so that
//! a test can change one word of it.

use super::*;
use s2dump_abi::slot::{fact_flags, frame_flags, Fact, FactKind, FrameRecord};
use s2dump_abi::target::Place;
use std::collections::BTreeMap;

/// Memory, with states.
pub const RAM: u64 = 0x4000_0000;
/// Its end, where memory without states begins.
pub const RAM_END: u64 = 0x4200_0000;
/// The end of that.
pub const NOMAP_END: u64 = 0x4210_0000;
/// EL2's code: four pages.
pub const TEXT: u64 = 0x4020_0000;
/// EL2's pool: 256 pages. Table pages are its first.
pub const POOL: u64 = 0x4040_0000;
/// Three pages that the host shares: with EL2 and pinned, with EL2, and with neither.
pub const SHARED: u64 = 0x4060_0000;
/// Pages of the first protected guest, every other one; at [`PROTECTED_IA`] it has them in a row.
pub const PROTECTED_PA: u64 = 0x4080_0000;
/// Where the protected guests have their first page.
pub const PROTECTED_IA: u64 = 0x8000_0000;
/// Pages of the second protected guest.
pub const SECOND_PA: u64 = 0x40a0_0000;
/// A block of the first ordinary guest.
pub const BLOCK_PA: u64 = 0x40c0_0000;
/// Where it has it.
pub const BLOCK_IA: u64 = 0x4000_0000;
/// Four pages that it has too, of which the second ordinary guest has two.
pub const MULTI_PA: u64 = 0x40e0_0000;
/// Where both have them.
pub const MULTI_IA: u64 = 0x5000_0000;
/// Pages of the host's, mapped one by one, that nobody else has.
pub const PLAIN: u64 = 0x4160_0000;
/// What is to be added to an address of EL2's linear map, wrapping.
pub const LINEAR: u64 = 0_u64.wrapping_sub(HYP_BASE);
/// Where EL2 has physical address 0.
pub const HYP_BASE: u64 = 0x4000_0000_0000;
/// A slot through which EL2 looks at any page.
pub const FIXMAP: u64 = 0x2000_0000_0000;

/// The hypervisor owns it, as the host's table says.
pub const HYP_OWNED: u64 = 2 << 60 | 1 << 1;
/// Frame: not the host's, EL2's.
pub const FRAME_HYP: u64 = 0x3300_0000;
/// Frame: not the host's, a guest's.
pub const FRAME_GUEST: u64 = 0x0300_0000;
/// Frame: the host borrows it.
pub const FRAME_BORROWED: u64 = 0x0200_0000;
/// Frame: the host shares it, with nobody that is told here.
pub const FRAME_SHARED: u64 = 0x0100_0000;
/// Frame: the host shares it with EL2.
pub const FRAME_HYP_SHARED: u64 = 0x1100_0000;

/// A page of EL2's: read and write.
pub const HYP_RW: u64 = 1 << 54 | 1 << 10 | 3 << 8 | 1 << 6 | 0b11;
/// A page of EL2's: read and execute.
pub const HYP_RX: u64 = 1 << 10 | 3 << 8 | 3 << 6 | 0b11;
/// TCR_EL2 of a 48-bit table from level 0, 40 bits of output.
pub const TCR_48: u64 = 1 << 31 | 1 << 23 | 2 << 16 | 3 << 12 | 1 << 10 | 1 << 8 | 16;

/// Frame: the host shares it with so many entries of ordinary guests.
pub const fn lent(entries: u64) -> u64 {
    FRAME_SHARED | entries << 32
}

/// Returns what the host's table says of a page that it donated to a guest.
pub fn donated(handle: u16, ia: u64) -> u64 {
    donated_at(handle, ia >> 12)
}

/// The same, with the number of the page that the guest has there.
pub fn donated_at(handle: u16, gfn: u64) -> u64 {
    2 << 60 | 2 << 1 | u64::from(handle) << 4 | gfn << 20
}

/// An entry that is no hole.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Its level.
    pub level: i8,
    /// What it is.
    pub kind: RecordKind,
    /// As it stands in the table.
    pub raw: u64,
}

/// A table page.
#[derive(Clone, Copy)]
pub struct Table {
    /// Its first input address.
    pub ia: u64,
    /// The level of its entries.
    pub level: i8,
    /// Where it is.
    pub pa: u64,
}

/// A table.
#[derive(Clone)]
pub struct Tree {
    /// What each of its slots says.
    pub header: SlotHeader,
    /// Its entries.
    pub entries: BTreeMap<u64, Entry>,
    /// Its table pages below the root, ascending, parents first.
    pub tables: Vec<Table>,
    /// A second pass finds it unchanged.
    pub at_rest: bool,
}

/// A machine.
#[derive(Clone)]
pub struct Machine {
    /// Its VMs.
    pub vms: Vec<VmRecord>,
    /// Facts.
    pub facts: Vec<Fact>,
    /// What is kept about frames, where it is not zero.
    pub frames: BTreeMap<u64, u64>,
    /// Host, EL2, and the guests.
    pub trees: Vec<Tree>,
    /// The page size of its kernel, as a shift.
    pub page_shift: u8,
    /// How its kernel uses software bits, invalid entries and frames; its trees say so too.
    pub encoding: u16,
    /// Frames that were looked at again, with what was seen.
    pub moments: Vec<(u64, Vec<Record>)>,
    /// Frames that are looked at before the second pass over the tables, and after it.
    pub counted: Vec<u64>,
    /// Handles of VMs whose tables an examination does not look at, because they are torn down.
    pub dying: Vec<u16>,
}

/// Returns the bytes of an entry of `level`, with pages of `1 << page_shift` bytes.
pub fn bytes_of(page_shift: u8, level: i8) -> u64 {
    let shift = i32::from(page_shift);
    1 << (shift + (shift - 3) * (3 - i32::from(level)))
}

impl Tree {
    fn new(header: SlotHeader) -> Self {
        Self { header, entries: BTreeMap::new(), tables: Vec::new(), at_rest: true }
    }

    fn bytes_of(&self, level: i8) -> u64 {
        bytes_of(self.header.page_shift, level)
    }

    /// Puts an entry there.
    pub fn put(&mut self, ia: u64, level: i8, kind: RecordKind, raw: u64) {
        self.entries.insert(ia, Entry { level, kind, raw });
    }

    /// Maps `count` entries from `ia` on to addresses from `oa` on.
    pub fn map(&mut self, ia: u64, level: i8, count: u64, oa: u64, attributes: u64) {
        let bytes = self.bytes_of(level);
        for at in (0..count).map(|entry| entry * bytes) {
            self.put(ia + at, level, RecordKind::LEAF, (oa + at) | attributes);
        }
    }

    /// Puts invalid entries there.
    pub fn annotate(&mut self, ia: u64, count: u64, raw: u64) {
        (0..count).for_each(|page| self.put(ia + page * self.bytes_of(3), 3, RecordKind::INVALID, raw));
    }

    /// Makes the table pages that its entries need, from `next` on.
    pub fn add_tables(&mut self, next: &mut u64) {
        let mut needed = std::collections::BTreeSet::new();
        for (&ia, entry) in &self.entries {
            for level in self.header.start_level + 1..=entry.level {
                needed.insert((ia & !(self.bytes_of(level - 1) - 1), level));
            }
        }
        for (ia, level) in needed {
            self.tables.push(Table { ia, level, pa: *next });
            *next += self.bytes_of(3);
        }
    }

    /// Returns its records.
    pub fn records(&self, with_tables: bool) -> Vec<Record> {
        let bytes_of = |level| self.bytes_of(level);
        let end = 1 << self.header.ia_bits;
        let mut records = Vec::new();
        let mut tables = self.tables.iter().peekable();
        let mut entries = self.entries.iter().peekable();
        let mut at = 0;
        while at < end {
            while let Some(table) = tables.next_if(|table| table.ia == at) {
                if with_tables {
                    records.push(run(at, table.level - 1, 1, RecordKind::TABLE, table.pa, table.pa | 0b11, 1));
                }
            }
            if let Some((&ia, entry)) = entries.next_if(|(&ia, _)| ia == at) {
                let oa = match entry.kind {
                    RecordKind::LEAF => entry.raw & 0xffff_ffff_f000 & !(bytes_of(entry.level) - 1),
                    RecordKind::TABLE_OUTSIDE | RecordKind::TABLE_LOOP => entry.raw & 0xffff_ffff_f000,
                    _ => 0,
                };
                records.push(run(ia, entry.level, 1, entry.kind, oa, entry.raw, 1));
                at += bytes_of(entry.level);
                continue;
            }
            let next = tables.peek().map_or(end, |table| table.ia).min(entries.peek().map_or(end, |(&ia, _)| ia));
            let fits = |&level: &i8| at % bytes_of(level) == 0 && at + bytes_of(level) <= next;
            let level = (self.header.start_level..=3).find(fits).unwrap();
            let parent = if level == self.header.start_level { end } else { bytes_of(level - 1) };
            let bound = next.min((at / parent + 1) * parent);
            let count = (bound - at) / bytes_of(level);
            records.push(hole(at, level, count as u32));
            at += count * bytes_of(level);
        }
        records
    }
}

impl Machine {
    /// Returns the tree of `target`.
    pub fn tree(&mut self, target: Target) -> &mut Tree {
        self.trees.iter_mut().find(|tree| tree.header.target == target.0).unwrap()
    }

    /// Returns the host's tree.
    pub fn host(&mut self) -> &mut Tree {
        self.tree(Target::HOST)
    }

    /// Returns EL2's tree.
    pub fn hyp(&mut self) -> &mut Tree {
        self.tree(Target::HYP)
    }

    /// Returns the tree of a guest.
    pub fn guest(&mut self, handle: u16) -> &mut Tree {
        self.tree(Target::guest(handle))
    }

    /// Sets what is kept about `count` frames.
    pub fn frame(&mut self, pa: u64, count: u64, raw: u64) {
        (0..count).for_each(|page| {
            self.frames.insert(pa + (page << self.page_shift), raw);
        });
    }

    /// Says what was seen of a frame at one moment, and how each place was then: its table, address and descriptors.
    pub fn look(&mut self, pa: u64, raw: u64, places: &[(Target, u64, &[Record])]) {
        let mut records = vec![run(pa, 0, 1, RecordKind::FRAME, 0, raw, 1)];
        for &(target, ia, steps) in places {
            let root = self.tree(target).header.root;
            records.push(run(ia, 0, 0, RecordKind::PLACE, root, target.0, 1));
            records.extend(steps);
        }
        self.moments.push((pa, records));
    }

    /// Returns a capture of it, as `capture --all` writes one.
    pub fn capture(&self) -> Capture {
        let mut capture = Capture::default();
        let mut add = |stream: Capture| capture.bytes.extend(stream.bytes);
        add(self.list());
        add(self.facts());
        add(self.frames());
        for tree in &self.trees {
            add(self.dump(tree, slot_flags::EXACT | slot_flags::TABLES | slot_flags::DIGEST));
        }
        self.counted.iter().for_each(|&pa| add(self.examine(pa, &[])));
        for tree in &self.trees {
            let flags = if tree.header.target == Target::HYP.0 { slot_flags::EXACT } else { slot_flags::DIGEST };
            add(self.dump(tree, flags));
        }
        add(self.frames());
        for _ in 0..6 {
            self.counted.iter().for_each(|&pa| add(self.examine(pa, &[])));
        }
        for (pa, records) in &self.moments {
            add(self.examination(*pa, records));
        }
        add(self.list());
        capture
    }

    /// Returns the list of VMs.
    pub fn list(&self) -> Capture {
        Capture::default().list(&self.vms).clone()
    }

    /// Returns the facts.
    pub fn facts(&self) -> Capture {
        let facts = SlotHeader {
            record_bytes: size_of::<Fact>() as u16,
            record_count: self.facts.len() as u32,
            ..slot_header(SlotKind::FACTS)
        };
        Capture::default().slot(facts, &self.facts).end(0, 1, Status::OK).clone()
    }

    /// Returns what is kept about frames.
    pub fn frames(&self) -> Capture {
        let mut capture = Capture::default();
        self.add_frames(&mut capture);
        capture
    }

    /// Returns a dump of `tree`. Without `EXACT` it is a second pass, which differs unless the tree is at rest.
    pub fn dump(&self, tree: &Tree, flags: u16) -> Capture {
        let is_first = flags & slot_flags::EXACT != 0;
        let digest = if is_first || tree.at_rest { 7 } else { 8 };
        let digest = if flags & slot_flags::DIGEST != 0 { digest } else { 0 };
        let kept = tree.header.flags & !slot_flags::EXACT;
        let mut capture = Capture::default();
        let records = tree.records(flags & slot_flags::TABLES != 0);
        dump(&mut capture, SlotHeader { flags: kept | flags, digest, ..tree.header }, &records);
        capture
    }

    /// Returns what an examination of the frame at `pa` and of `places` finds.
    pub fn examine(&self, pa: u64, places: &[Place]) -> Capture {
        let mut records = Vec::new();
        if self.ram().contains(&pa) {
            let raw = self.frames.get(&pa).copied().unwrap_or(0);
            records.push(run(pa, 0, 1, RecordKind::FRAME, 0, raw, 1));
        }
        for place in places.iter().filter(|place| **place != Place::NONE) {
            let (target, ia) = (place.target(), place.address());
            let is_dying = target.guest_handle().is_some_and(|handle| self.dying.contains(&handle));
            let bytes_of = |level| bytes_of(self.page_shift, level);
            let tree = self.trees.iter().find(|tree| tree.header.target == target.0 && !is_dying);
            let Some(tree) = tree else {
                let status = if is_dying { Status::VM_DYING } else { Status::NO_SUCH_VM };
                records.push(run(ia, 0, status.0, RecordKind::PLACE, 0, target.0, 1));
                continue;
            };
            records.push(run(ia, 0, Status::OK.0, RecordKind::PLACE, tree.header.root, target.0, 1));
            for table in tree.tables.iter().filter(|table| ia & !(bytes_of(table.level - 1) - 1) == table.ia) {
                let (at, level) = (table.ia, table.level - 1);
                records.push(run(at, level, 1, RecordKind::TABLE, table.pa, table.pa | 0b11, 1));
            }
            let end = |entry: &Record| entry.ia + u64::from(entry.count) * bytes_of(entry.level);
            let found = tree.records(false).into_iter().find(|entry| (entry.ia..end(entry)).contains(&ia)).unwrap();
            records.push(Record { ia: ia & !(bytes_of(found.level) - 1), count: 1, ..found });
        }
        self.examination(pa, &records)
    }

    /// Returns memory with states.
    fn ram(&self) -> std::ops::Range<u64> {
        // Of whole pages, though memory may begin or end within one.
        let last_of_page = (1 << self.page_shift) - 1;
        self.facts.first().map_or(RAM..RAM_END, |memory| memory.start..(memory.start + memory.size) & !last_of_page)
    }

    fn add_frames(&self, capture: &mut Capture) {
        let mut records: Vec<FrameRecord> = Vec::new();
        let ram = self.ram();
        let (ram_end, page_bytes) = (ram.end, 1 << self.page_shift);
        for pa in ram.step_by(page_bytes as usize) {
            let raw = self.frames.get(&pa).copied().unwrap_or(0);
            match records.last_mut() {
                Some(last) if last.raw == raw => last.count += 1,
                _ => records.push(FrameRecord { pa, raw, count: 1, flags: 0, reserved: 0 }),
            }
        }
        let nomap = self.facts.iter().find(|fact| fact.flags & fact_flags::NOMAP != 0);
        let end = nomap.map_or(ram_end, |nomap| (nomap.start + nomap.size) / page_bytes * page_bytes);
        records.extend(nomap.map(|nomap| {
            let pa = nomap.start.next_multiple_of(page_bytes);
            let count = ((end - pa) >> self.page_shift) as u32;
            FrameRecord { pa, raw: 0, count, flags: frame_flags::NO_STATE, reserved: 0 }
        }));
        let header = SlotHeader {
            record_bytes: size_of::<FrameRecord>() as u16,
            page_shift: self.page_shift,
            encoding: self.encoding,
            end,
            ..slot_header(SlotKind::FRAMES)
        };
        let mut start = 0;
        for (sequence, chunk) in records.chunks(100).enumerate() {
            let last = chunk[chunk.len() - 1];
            let next = last.pa + (u64::from(last.count) << self.page_shift);
            let record_count = chunk.len() as u32;
            capture.slot(SlotHeader { record_count, sequence: sequence as u64, start, next, ..header }, chunk);
            start = next;
        }
        capture.end(0, records.chunks(100).len() as u64, Status::OK);
    }

    fn examination(&self, pa: u64, records: &[Record]) -> Capture {
        let header = SlotHeader {
            start: pa,
            record_count: records.len() as u32,
            encoding: self.encoding,
            page_shift: self.page_shift,
            ..slot_header(SlotKind::EXAMINE)
        };
        Capture::default().slot(header, records).end(0, 1, Status::OK).clone()
    }
}

/// Appends a dump; only its first slot has the digest, as they add up.
fn dump(capture: &mut Capture, header: SlotHeader, records: &[Record]) {
    let mut start = 0;
    let covered = |record: &Record| match record.kind == RecordKind::TABLE.0 {
        true => record.ia,
        false => record.ia + u64::from(record.count) * bytes_of(header.page_shift, record.level),
    };
    let chunks = records.chunks(100);
    for (sequence, chunk) in chunks.clone().enumerate() {
        let next = covered(&chunk[chunk.len() - 1]);
        let digest = if sequence == 0 { header.digest } else { 0 };
        let (record_count, sequence) = (chunk.len() as u32, sequence as u64);
        capture.slot(SlotHeader { record_count, sequence, start, next, digest, ..header }, chunk);
        start = next;
    }
    capture.end(header.target, chunks.len() as u64, Status::OK);
}

fn stage2(target: Target, root: u64, flags: u16) -> SlotHeader {
    SlotHeader { target: target.0, root, flags: slot_flags::EXACT | flags, ..dump_header(0x1000, VTCR_40) }
}

/// Returns the machine, all in order.
pub fn machine() -> Machine {
    let fact = |kind: FactKind, start, size, value| Fact { start, size, value, kind: kind.0, flags: 0, reserved: 0 };
    let nomap = Fact { flags: fact_flags::NOMAP, ..fact(FactKind::MEMORY, RAM_END, NOMAP_END - RAM_END, 0) };
    // Roots are two pages, EL2's one.
    let root = |number: u64| POOL + 0xf_0000 + number * 0x2000;
    let mut vms = vec![
        vm(0x1000, "421-11", vm_flags::PROTECTED | vm_flags::CREATED),
        vm(0x1001, "421-14", vm_flags::PROTECTED | vm_flags::CREATED),
        vm(0x1002, "430-9", vm_flags::CREATED),
        vm(0x1003, "430-10", vm_flags::CREATED),
        vm(0x1004, "430-12", 0),
    ];
    vms.iter_mut().take(4).zip(2..).for_each(|(vm, number)| vm.root = root(number));
    let hyp = SlotHeader {
        target: Target::HYP.0,
        root: root(1),
        flags: slot_flags::EXACT,
        vtcr: TCR_48,
        mair: 0xff | 4 << 32,
        ia_bits: 48,
        start_level: 0,
        end: 1 << 48,
        table_features: 0,
        vmid: 0,
        ..dump_header(0x1000, VTCR_40)
    };
    let host = SlotHeader { vmid: 0, ..stage2(Target::HOST, root(0), 0) };
    let mut trees = vec![Tree::new(host), Tree::new(hyp)];
    for vm in &vms[..4] {
        let flags = if vm.flags & vm_flags::PROTECTED != 0 { slot_flags::PROTECTED } else { 0 };
        trees.push(Tree::new(SlotHeader { vmid: vm.vmid, ..stage2(Target::guest(vm.handle), vm.root, flags) }));
    }
    let mut machine = Machine {
        vms,
        facts: vec![
            fact(FactKind::MEMORY, RAM, RAM_END - RAM, 0),
            nomap,
            fact(FactKind::HYP_TEXT, TEXT, 0x4000, 0),
            fact(FactKind::FIXMAP, FIXMAP, 0x1000, 0),
            fact(FactKind::HYP_LINEAR, 0, 0, LINEAR),
        ],
        frames: BTreeMap::new(),
        trees,
        page_shift: 12,
        encoding: encoding::PKVM_7_2,
        moments: Vec::new(),
        counted: Vec::new(),
        dying: Vec::new(),
    };
    hypervisor(&mut machine);
    protected(&mut machine);
    ordinary(&mut machine);
    // The host: devices, blocks, pages, and holes where it did not look yet.
    let host = machine.host();
    host.map(0x0800_0000, 2, 1, 0x0800_0000, BLOCK | XN);
    host.map(0x0900_0000, 3, 1, 0x0900_0000, PAGE | XN);
    host.map(0x4100_0000, 2, 2, 0x4100_0000, BLOCK);
    host.map(PLAIN, 3, 4, PLAIN, PAGE);
    host.map(RAM_END, 3, 1, RAM_END, PAGE);
    let mut next = POOL;
    machine.trees.iter_mut().for_each(|tree| tree.add_tables(&mut next));
    machine
}

/// Returns the machine some time later: a guest shares a page and has one more, another is gone, rights changed, a block
/// became pages that say the same, and one of them is the hypervisor's.
pub fn later() -> Machine {
    let mut later = machine();
    let (ia, pa) = (PROTECTED_IA, PROTECTED_PA);
    later.guest(0x1000).map(ia, 3, 1, pa, PAGE | SHARED_OWNED);
    later.host().map(pa, 3, 1, pa, PAGE);
    later.frame(pa, 1, FRAME_BORROWED);
    for page in [10, 11] {
        let (ia, pa) = (PROTECTED_IA + page * 0x1000, PROTECTED_PA + page * 0x1000 + 0x1_0000);
        later.guest(0x1000).map(ia, 3, 1, pa, PAGE);
        later.host().annotate(pa, 1, donated(0x1000, ia));
        later.frame(pa, 1, FRAME_GUEST);
    }
    later.guest(0x1003).map(MULTI_IA, 3, 1, MULTI_PA, PAGE & !(1 << 7) | XN | SHARED_BORROWED);
    later.trees.retain(|tree| tree.header.target != Target::guest(0x1001).0);
    later.vms.remove(1);
    for page in 0..4 {
        later.host().entries.remove(&(SECOND_PA + page * 0x1000));
        later.frames.remove(&(SECOND_PA + page * 0x1000));
    }
    later.host().map(0x4100_0000, 3, 512, 0x4100_0000, PAGE);
    later.host().tables.push(Table { ia: 0x4100_0000, level: 3, pa: POOL + 0xe_0000 });
    later.host().tables.sort_by_key(|table| (table.ia, table.level));
    later.host().annotate(0x4100_5000, 1, HYP_OWNED);
    later.hyp().map(HYP_BASE + 0x4100_5000, 3, 1, 0x4100_5000, HYP_RW);
    later.hyp().tables.push(Table { ia: HYP_BASE + 0x4100_0000, level: 3, pa: POOL + 0xe_1000 });
    later.hyp().tables.sort_by_key(|table| (table.ia, table.level));
    later.frame(0x4100_5000, 1, FRAME_HYP);
    later
}

/// Returns the machine as a session of s2dump reads it that shares two of its four slot pages from `ring` on with EL2, when the
/// slot of the fixmap looks at `seen`, or at nothing any more.
pub fn read_by(ring: u64, seen: Option<u64>) -> Machine {
    let mut machine = machine();
    let ring_fact = Fact { start: ring, size: 0x4000, value: 0, kind: FactKind::RING.0, flags: 0, reserved: 0 };
    machine.facts.push(ring_fact);
    machine.frame(ring, 2, FRAME_HYP_SHARED | 1);
    machine.hyp().map(HYP_BASE + ring, 3, 2, ring, HYP_RW);
    match seen {
        Some(pa) => machine.hyp().map(FIXMAP, 3, 1, pa, HYP_RW),
        None => machine.hyp().annotate(FIXMAP, 1, (PROTECTED_PA | HYP_RW) & !1),
    }
    machine
}

/// EL2's code, its pool, what the host shares with it, and a slot that looks at a guest's page.
fn hypervisor(machine: &mut Machine) {
    machine.frame(TEXT, 4, FRAME_HYP);
    machine.frame(POOL, 256, FRAME_HYP | 1);
    machine.frame(SHARED, 1, FRAME_HYP_SHARED | 1);
    machine.frame(SHARED + 0x1000, 1, FRAME_HYP_SHARED);
    machine.frame(SHARED + 0x2000, 1, FRAME_SHARED);
    let host = machine.host();
    host.map(TEXT, 3, 4, TEXT, PAGE & !(1 << 7) | XN);
    host.annotate(POOL, 256, HYP_OWNED);
    host.map(SHARED, 3, 3, SHARED, PAGE);
    let hyp = machine.hyp();
    hyp.map(HYP_BASE + TEXT, 3, 4, TEXT, HYP_RX);
    hyp.map(HYP_BASE + POOL, 3, 256, POOL, HYP_RW);
    hyp.map(HYP_BASE + SHARED, 3, 1, SHARED, HYP_RW);
    hyp.map(FIXMAP, 3, 1, PROTECTED_PA, HYP_RW);
    // The code that turns translation on, which is the kernel's.
    hyp.map(RAM, 3, 1, RAM, HYP_RX);
}

/// Pages that two guests own, one that the first shares, and one that was taken from it.
fn protected(machine: &mut Machine) {
    for page in 0..8 {
        let (ia, pa) = (PROTECTED_IA + page * 0x1000, PROTECTED_PA + page * 0x2000);
        machine.guest(0x1000).map(ia, 3, 1, pa, PAGE);
        machine.host().annotate(pa, 1, donated(0x1000, ia));
        machine.frame(pa, 1, FRAME_GUEST);
    }
    let (ia, pa) = (PROTECTED_IA + 0x8000, PROTECTED_PA + 0x1000);
    machine.guest(0x1000).map(ia, 3, 1, pa, PAGE | SHARED_OWNED);
    machine.host().map(pa, 3, 1, pa, PAGE);
    machine.frame(pa, 1, FRAME_BORROWED);
    machine.guest(0x1000).annotate(PROTECTED_IA + 0x9000, 1, POISONED);
    for page in 0..4 {
        let (ia, pa) = (PROTECTED_IA + page * 0x1000, SECOND_PA + page * 0x1000);
        machine.guest(0x1001).map(ia, 3, 1, pa, PAGE);
        machine.host().annotate(pa, 1, donated(0x1001, ia));
        machine.frame(pa, 1, FRAME_GUEST);
    }
}

/// A block of one guest, and pages of which two guests have some.
fn ordinary(machine: &mut Machine) {
    machine.guest(0x1002).map(BLOCK_IA, 2, 1, BLOCK_PA, BLOCK | SHARED_BORROWED);
    machine.frame(BLOCK_PA, 512, lent(1));
    machine.guest(0x1002).map(MULTI_IA, 3, 4, MULTI_PA, PAGE & !(1 << 7) | SHARED_BORROWED);
    machine.guest(0x1003).map(MULTI_IA, 3, 2, MULTI_PA, PAGE | XN | SHARED_BORROWED);
    machine.frame(MULTI_PA, 2, lent(2));
    machine.frame(MULTI_PA + 0x2000, 2, lent(1));
    machine.host().map(MULTI_PA, 3, 4, MULTI_PA, PAGE);
}
