// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the reader makes of slots: facts about a table, rows, VMs, and how it ended.

use crate::registers::{BadRegister, Register};
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{record_flags, slot_flags, table_features, Record, RecordKind, SlotHeader, VmRecord};
use s2dump_abi::target::{Identity, Target};
use s2dump_abi::version::AbiVersion;
use s2dump_vmsa::pkvm::{self, Encoding};
use s2dump_vmsa::{Features, Geometry, Level, PhysAddr, RawDescriptor, Regime, TableAttrs};
use std::fmt;

/// What all rows of one dump or walk share: which table it is, what was asked for, and how its descriptors read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableFacts {
    /// Which table.
    pub(crate) target: Target,
    /// Physical address of its root.
    pub(crate) root: u64,
    /// Value of the register that gives its shape, [`Self::register_name`].
    pub(crate) register: u64,
    /// VMID.
    pub(crate) vmid: u16,
    /// How software bits and invalid entries are read.
    pub(crate) encoding: Encoding,
    /// EL2 ran with HCR_EL2.E2H.
    pub(crate) is_hvhe: bool,
    /// [`slot_flags`] of the first slot.
    pub(crate) flags: u16,
    /// The most descriptors one call reads.
    pub(crate) budget: u32,
    /// First input address asked for.
    pub(crate) start: u64,
    /// First input address after what was asked for.
    pub(crate) end: u64,
    /// The shape that the register gives.
    pub(crate) geometry: Geometry,
    /// The features it is decoded with.
    pub(crate) features: Features,
    /// SCTLR_EL2.WXN, which counts in tables of EL2.
    pub(crate) wxn: bool,
    /// MAIR_EL2, which counts in tables of EL2; `None` where it is not known.
    pub(crate) mair: Option<u64>,
}

/// The one table of an image of memory. EL2 has no table of this kind, so the two are never mixed up.
pub(crate) const IMAGE: Target = Target(0xff << 56);

/// Why a header does not describe a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TableFault {
    /// VTCR_EL2 or TCR_EL2 is not one of a table this version decodes.
    #[error("{}", .0)]
    Register(BadRegister),
    /// No granule has this page size.
    #[error("pages of 2^{0} bytes are of no granule")]
    PageShift(u8),
    /// The header contradicts the register.
    #[error("header and {0} {1:#x} differ about the shape of the table")]
    Contradiction(Register, u64),
}

impl TableFacts {
    /// Returns which table it is.
    pub(crate) const fn identity(&self) -> Identity {
        Identity { target: self.target, root: self.root }
    }

    /// Checks the header of the first RANGES or WALK slot.
    pub(crate) fn try_new(header: &SlotHeader) -> Result<Self, TableFault> {
        let has = |feature| header.table_features & feature != 0;
        let (target, value, lpa2) = (Target(header.target), header.vtcr, has(table_features::LPA2));
        let is_hyp = target == Target::HYP;
        let (register, features, geometry) = if is_hyp {
            let e2h = has(table_features::HVHE);
            let features = Features::of_kvm_el2(value, e2h, lpa2);
            (Register::Tcr, features, Geometry::from_tcr_el2(value, e2h, features))
        } else {
            let kvm = Features::of_kvm(value, has(table_features::FWB), has(table_features::XNX));
            let features = Features { lpa2, ..kvm };
            (Register::Vtcr, features, Geometry::from_vtcr(value, features))
        };
        let geometry = geometry
            .map_err(|error| TableFault::Register(BadRegister { register, value, error, pa_max_bits: None }))?;
        let same = geometry.ia_bits() == header.ia_bits
            && geometry.start_level().get() == header.start_level
            && geometry.granule().page_shift() == u32::from(header.page_shift);
        if !same {
            return Err(TableFault::Contradiction(register, value));
        }
        Ok(Self {
            target,
            root: header.root,
            register: value,
            vmid: header.vmid,
            encoding: Encoding(header.encoding),
            is_hvhe: has(table_features::HVHE),
            flags: header.flags,
            budget: header.budget,
            start: header.start,
            end: header.end.min(geometry.ia_end()),
            geometry,
            features,
            wxn: false,
            mair: is_hyp.then_some(header.mair),
        })
    }

    /// Returns the name a user can type for it.
    pub(crate) fn name(&self) -> String {
        target_name(self.target)
    }

    /// Returns whether `flag` of [`slot_flags`] is set.
    pub(crate) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Returns whether the guest is protected.
    pub(crate) fn is_protected(&self) -> bool {
        self.has(slot_flags::PROTECTED)
    }

    /// Returns what software keeps in `raw`, a leaf or an invalid entry of the table. In EL2's own table an invalid entry that
    /// is not zero is what is left of a leaf.
    pub(crate) fn decode_software(&self, raw: u64) -> pkvm::Decoded {
        let raw = RawDescriptor::from_bits(raw);
        match self.geometry.regime() {
            Regime::Stage2 => pkvm::decode(self.encoding, raw),
            Regime::El2 | Regime::El2And0 => pkvm::decode_hyp(self.encoding, raw),
        }
    }

    /// Returns how invalid entries of this table are read.
    pub(crate) fn annotation_encoding(&self) -> Encoding {
        match self.geometry.regime() {
            Regime::Stage2 => self.encoding,
            Regime::El2 | Regime::El2And0 => Encoding::NONE,
        }
    }

    /// Returns which register gives its shape.
    pub(crate) fn register_name(&self) -> Register {
        match self.geometry.regime() {
            Regime::Stage2 => Register::Vtcr,
            Regime::El2 | Regime::El2And0 => Register::Tcr,
        }
    }

    /// Returns the names of the features that decoding depends on.
    pub(crate) fn feature_names(&self) -> Vec<&'static str> {
        let geometry = &self.geometry;
        [
            (geometry.is_lpa2(), "lpa2"),
            (geometry.is_fwb(), "fwb"),
            (self.features.xnx, "xnx"),
            (self.features.mte_perm, "mte-perm"),
            (geometry.has_indirect_permissions(), "s2pie"),
            (self.is_hvhe, "hvhe"),
        ]
        .into_iter()
        .filter_map(|(has, name)| has.then_some(name))
        .collect()
    }

    /// Returns whether it was read from an image of memory.
    pub(crate) fn is_image(&self) -> bool {
        self.target == IMAGE
    }
}

/// Returns the name a user can type for `target`.
pub(crate) fn target_name(target: Target) -> String {
    match target.guest_handle() {
        Some(handle) => format!("vm:{handle:#x}"),
        None if target == IMAGE => "ram".into(),
        None if target == Target::HOST => "host".into(),
        None if target == Target::HYP => "hyp".into(),
        None => format!("target {:#x}", target.0),
    }
}

/// A printed run of entries, of one slot or of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// First input address it covers: that of its first entry, plus `skipped`.
    pub(crate) ia: u64,
    /// Output address of `ia`. `None` if the entry has none, or if it is not known: a run whose output addresses jump tells only
    /// its first, and was clipped.
    pub(crate) oa: Option<u64>,
    /// The first descriptor.
    pub(crate) raw: u64,
    /// Number of entries, at least 1. The first counts even if only a part of it is covered.
    pub(crate) count: u64,
    /// What an entry spans, as a shift.
    pub(crate) entry_shift: u32,
    /// Bytes of the first entry that the row does not cover, because rows before it do.
    pub(crate) skipped: u64,
    /// Level.
    pub(crate) level: Level,
    /// What it is; only kinds this version knows.
    pub(crate) kind: RecordKind,
    /// The output addresses run on; of pages that were donated to a guest, the guest's. For all else it is set.
    pub(crate) linear: bool,
    /// What the tables above a leaf of EL2's stage 1 say.
    pub(crate) inherited: TableAttrs,
    /// The table changed at one of its ends while it was read.
    pub(crate) changed: Changed,
    /// Whether it is something that is told by its address.
    pub(crate) mark: Mark,
}

/// What a row is because of its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Nothing.
    #[default]
    None,
    /// The page through which a CPU's EL2 looks at any page for a moment.
    Fixmap,
    /// The same for a block.
    Fixblock,
    /// Pages that s2dump itself shares with EL2.
    Ring,
    /// Some of its pages are such.
    PartlyRing,
}

/// Which ends of a row meet a row that was read before or after a change of the table.
///
/// Only a change that moves the bounds of entries is seen: an entry that is a hole or a block now, and begins before the
/// address up to which a table in its place was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// The row was read after the one before it, with a change in between.
    pub(crate) at_start: bool,
    /// The row was read before the one after it, with a change in between.
    pub(crate) at_end: bool,
}

impl Row {
    /// Makes a row of a record of a table of this geometry, or `None` if it has no such level.
    pub(crate) fn of_record(record: &Record, geometry: &Geometry) -> Option<Self> {
        let level = Level::try_new(record.level).ok().filter(|level| level.get() >= geometry.start_level().get())?;
        let kind = RecordKind(record.kind);
        let [inherited, _] = (record.flags >> record_flags::INHERITED.trailing_zeros()).to_le_bytes();
        Some(Self {
            ia: record.ia,
            oa: (!matches!(kind, RecordKind::INVALID | RecordKind::RESERVED)).then_some(record.oa),
            raw: record.descriptor,
            count: record.count.into(),
            entry_shift: geometry.granule().entry_shift(level),
            skipped: 0,
            level,
            kind,
            linear: record.flags & record_flags::LINEAR != 0,
            inherited: match geometry.regime() {
                Regime::Stage2 => TableAttrs::NONE,
                Regime::El2 | Regime::El2And0 => TableAttrs::from_bits(inherited),
            },
            changed: Changed::default(),
            mark: Mark::None,
        })
    }

    /// Returns the bytes of input addresses it covers.
    pub(crate) fn size(&self) -> u64 {
        (self.count << self.entry_shift) - self.skipped
    }

    /// Returns the first input address after it.
    pub(crate) fn end(&self) -> u64 {
        self.ia.wrapping_add(self.size())
    }

    /// Returns the input address its first entry begins at, whether the row covers it or not.
    fn first_entry(&self) -> u64 {
        self.ia - self.skipped
    }

    /// Returns whether it is an entry of zeroes: nothing there.
    pub(crate) fn is_hole(&self) -> bool {
        self.kind == RecordKind::INVALID && self.raw == 0
    }

    /// Returns its entries as a record, or `None` if they are more than a record can tell.
    pub(crate) fn to_record(self) -> Option<Record> {
        let Self { ia, oa, .. } = self.with_whole_entries();
        Some(Record {
            ia,
            oa: oa.unwrap_or(0),
            descriptor: self.raw,
            count: u32::try_from(self.count).ok()?,
            level: self.level.get(),
            kind: self.kind.0,
            flags: if self.linear { record_flags::LINEAR } else { 0 }
                | u16::from(self.inherited.to_bits()) << record_flags::INHERITED.trailing_zeros(),
        })
    }

    /// Returns the part of it from the entry that has `start` to the one before `end`, or `None` if it has neither.
    /// Entries are not split. `geometry` is that of the table: it knows where in a descriptor the output address is.
    pub(crate) fn clip(mut self, start: u64, end: u64, geometry: &Geometry) -> Option<Self> {
        if self.end() <= start || self.ia >= end || start >= end {
            return None;
        }
        let passed = start.saturating_sub(self.first_entry()) >> self.entry_shift;
        if passed > 0 {
            let bytes = passed << self.entry_shift;
            // What is no leaf has one descriptor throughout.
            match (self.kind == RecordKind::LEAF, self.linear) {
                (true, true) => {
                    self.oa = self.oa.map(|oa| oa.wrapping_add(bytes - self.skipped));
                    if let Some(oa) = self.oa {
                        let first = RawDescriptor::from_bits(self.raw);
                        self.raw = first.with_output_address(self.level, geometry, PhysAddr::new(oa)).to_bits();
                    }
                }
                (true, false) => self.oa = None,
                _ => {}
            }
            self.ia = self.first_entry() + bytes;
            self.count -= passed;
            self.skipped = 0;
            self.changed.at_start = false;
        }
        let entries = (end - self.first_entry()).div_ceil(1 << self.entry_shift);
        if entries < self.count {
            self.count = entries;
            self.changed.at_end = false;
        }
        Some(self)
    }

    /// Returns the row of its entries, all of them whole.
    pub(crate) fn with_whole_entries(self) -> Self {
        let oa = if self.kind == RecordKind::LEAF { self.oa.map(|oa| oa.wrapping_sub(self.skipped)) } else { self.oa };
        Self { ia: self.first_entry(), oa, skipped: 0, changed: Changed::default(), ..self }
    }

    /// Returns the part of it from `start` on, even if that is in the middle of an entry, or `None` if there is none.
    pub(crate) fn split_off(self, start: u64, geometry: &Geometry) -> Option<Self> {
        let mut row = self.clip(start, u64::MAX, geometry)?;
        let more = start.saturating_sub(row.ia);
        row.ia += more;
        row.skipped += more;
        if row.kind == RecordKind::LEAF {
            row.oa = row.oa.map(|oa| oa.wrapping_add(more));
        }
        Some(row)
    }
}

/// How a dump, walk or list ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Which table; zero for a list.
    pub(crate) target: Target,
    /// What the END slot says; `None` if there was no END slot.
    pub(crate) status: Option<Status>,
    /// Slots before the END slot: one per call to EL2.
    pub(crate) calls: u64,
    /// Records in them.
    pub(crate) records: u64,
    /// The most descriptors one call visited.
    pub(crate) max_visited: u32,
    /// Descriptors all calls visited.
    pub(crate) visited: u64,
    /// Sum of the digests, if they were asked for.
    pub(crate) digest: Option<u64>,
    /// Whether the slots cover all that was asked for.
    pub(crate) covered: bool,
    /// Teardown of the VM had begun when one of the slots was read.
    pub(crate) is_dying: bool,
    /// For how long one call held the table's lock at most.
    pub(crate) hold: Hold,
}

/// A time for which a lock was held, in ticks of the system counter. Writers of version 1 do not tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hold {
    ticks: u32,
    /// Ticks in a second; 0 if unknown.
    hz: u32,
}

impl Hold {
    /// Counts what a slot tells, if it is more than what others told.
    pub(crate) fn add(&mut self, slot: &SlotHeader) {
        if AbiVersion::from_bits(slot.version).major < 2 {
            return;
        }
        self.ticks = self.ticks.max(slot.held_ticks);
        // Slots that the driver writes alone do not tell.
        if slot.tick_hz != 0 {
            self.hz = slot.tick_hz;
        }
    }

    /// Returns it in nanoseconds, if it is known.
    pub(crate) fn nanoseconds(self) -> Option<u64> {
        if self.ticks == 0 {
            return None;
        }
        (u64::from(self.ticks) * 1_000_000_000).checked_div(self.hz.into())
    }

    /// Says it for people, if it is known.
    pub(crate) fn text(self) -> Option<String> {
        let nanoseconds = self.nanoseconds()?;
        let or_more = if self.ticks == u32::MAX { " or more" } else { "" };
        Some(if nanoseconds < 10_000 {
            let tenths = nanoseconds.div_ceil(100);
            format!("the longest call held the table's lock for {}.{} us{or_more}", tenths / 10, tenths % 10)
        } else {
            format!("the longest call held the table's lock for {} us{or_more}", nanoseconds.div_ceil(1000))
        })
    }
}

impl Default for Outcome {
    fn default() -> Self {
        Self {
            target: Target(0),
            status: None,
            calls: 0,
            records: 0,
            max_visited: 0,
            visited: 0,
            digest: None,
            covered: false,
            is_dying: false,
            hold: Hold::default(),
        }
    }
}

impl Outcome {
    /// Returns whether the slots are all there, EL2 said OK, and the VM was not being torn down.
    pub(crate) fn is_complete(&self) -> bool {
        self.status == Some(Status::OK) && self.covered && !self.is_dying
    }
}

/// Tables that an image of memory does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    /// How many.
    pub(crate) tables: u64,
    /// Input and physical address of the first.
    first: Option<(u64, u64)>,
}

impl Missing {
    /// Counts the tables of `row`, if it is of missing tables. A table beyond the output size is not missing: the MMU faults there.
    pub(crate) fn add(&mut self, row: &Row, table: &TableFacts) {
        let Some(oa) = row.oa.filter(|_| row.kind == RecordKind::TABLE_OUTSIDE && table.is_image()) else { return };
        if PhysAddr::new(oa).fits(table.geometry.pa_bits().into()) {
            self.tables += row.count;
            self.first = self.first.or(Some((row.ia, oa)));
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} not in the memory given",
            if self.tables == 1 { "1 table is".into() } else { format!("{} tables are", self.tables) }
        )?;
        match self.first {
            Some((ia, oa)) => write!(f, ", the first at {oa:#x} for input address {ia:#x}"),
            None => Ok(()),
        }
    }
}

/// Returns whether two records of a list are of one VM. Some kernels give no handle to a VM that never ran.
pub(crate) fn is_same_vm(one: &VmRecord, other: &VmRecord) -> bool {
    one.handle == other.handle && (one.handle != 0 || (one.pid, one.name) == (other.pid, other.name))
}

/// Returns how to name a VM as a target: by its handle, or else by the name of its debugfs directory.
pub(crate) fn vm_target(vm: &VmRecord) -> String {
    match vm_name(vm) {
        Some(name) if vm.handle == 0 => format!("vm:{name}"),
        _ => format!("vm:{:#x}", vm.handle),
    }
}

/// Returns the debugfs name of a VM, or `None` if it has none or it is not text.
pub(crate) fn vm_name(vm: &VmRecord) -> Option<&str> {
    let end = vm.name.iter().position(|&byte| byte == 0).unwrap_or(vm.name.len());
    let name = std::str::from_utf8(&vm.name[..end]).ok()?;
    (!name.is_empty() && name.chars().all(|c| c.is_ascii_graphic())).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: Row = Row {
        ia: 0x8000_0000,
        oa: Some(0x4000_0000),
        raw: 0x4000_07ff,
        count: 8,
        entry_shift: 12,
        level: Level::L3,
        kind: RecordKind::LEAF,
        linear: true,
        inherited: TableAttrs::NONE,
        skipped: 0,
        changed: Changed { at_start: false, at_end: false },
        mark: Mark::None,
    };

    /// Of 4 KiB pages and 40-bit addresses, both in and out.
    fn geometry() -> Geometry {
        of_vtcr(1 << 31 | 2 << 16 | 1 << 6 | 24)
    }

    /// Of a CPU that has all that `vtcr` needs.
    fn of_vtcr(vtcr: u64) -> Geometry {
        Geometry::from_vtcr(vtcr, Features::of_kvm(vtcr, false, false)).unwrap()
    }

    #[test]
    fn clip_outside_is_nothing() {
        assert_eq!(PAGES.clip(0, 0x8000_0000, &geometry()), None);
        assert_eq!(PAGES.clip(0x8000_8000, u64::MAX, &geometry()), None);
    }

    #[test]
    fn clip_moves_a_linear_run_on() {
        let clipped = PAGES.clip(0x8000_2000, 0x8000_4000, &geometry());
        assert_eq!(clipped, Some(Row { ia: 0x8000_2000, oa: Some(0x4000_2000), raw: 0x4000_27ff, count: 2, ..PAGES }));
    }

    /// Bits 51:48 of the address of a 64 KiB page stand in 15:12, and with LPA2 51:50 in 9:8: a carry goes there.
    #[test]
    fn clip_carries_into_the_high_address_bits() {
        let lpa = of_vtcr(1 << 31 | 6 << 16 | 1 << 14 | 2 << 6 | 16);
        let lpa2 = of_vtcr(1 << 32 | 1 << 31 | 6 << 16 | 2 << 6 | 16);
        for (geometry, entry_shift, oa, raw, next) in [
            (&lpa, 16, 0x0000_ffff_ffff_0000, 0x0000_ffff_ffff_04ff, 0x0000_0000_0000_14ff),
            (&lpa, 16, 0x0003_ffff_ffff_0000, 0x0060_ffff_ffff_34ff, 0x0060_0000_0000_44ff),
            (&lpa2, 12, 0x0003_ffff_ffff_f000, 0x0003_ffff_ffff_f4ff, 0x0000_0000_0000_05ff),
            (&lpa2, 12, 0x0007_ffff_ffff_f000, 0x0063_ffff_ffff_f5ff, 0x0060_0000_0000_06ff),
        ] {
            let row = Row { ia: 0, oa: Some(oa), raw, entry_shift, ..PAGES };
            let clipped = row.clip(1 << entry_shift, u64::MAX, geometry).unwrap();
            assert_eq!((clipped.oa, clipped.raw), (Some(oa + (1 << entry_shift)), next), "{raw:#x}");
            let in_raw = RawDescriptor::from_bits(clipped.raw).output_address(clipped.level, geometry);
            assert_eq!(Some(in_raw.get()), clipped.oa);
        }
    }

    #[test]
    fn clip_does_not_invent_output_addresses() {
        let jumping = Row { linear: false, ..PAGES };
        assert_eq!(jumping.clip(0x8000_1000, u64::MAX, &geometry()).unwrap().oa, None);
        assert_eq!(jumping.clip(0x8000_0000, u64::MAX, &geometry()).unwrap().oa, PAGES.oa);
    }

    #[test]
    fn clip_leaves_the_one_descriptor_of_other_kinds() {
        let outside = Row { kind: RecordKind::TABLE_OUTSIDE, ..PAGES };
        let clipped = outside.clip(0x8000_2000, u64::MAX, &geometry()).unwrap();
        assert_eq!((clipped.count, clipped.oa, clipped.raw), (6, outside.oa, outside.raw));
    }

    /// An entry is not split: a 2 MiB block asked for by one of its pages is shown whole.
    #[test]
    fn clip_keeps_entries_whole() {
        let block = Row { count: 1, entry_shift: 21, level: Level::L2, ..PAGES };
        assert_eq!(block.clip(0x8000_1000, 0x8000_2000, &geometry()), Some(block));
    }

    const BLOCK: Row = Row { count: 2, entry_shift: 21, level: Level::L2, raw: 0x4000_07fd, ..PAGES };

    /// A block read behind pages that were read from the table in its place: the descriptor stays, the addresses move.
    #[test]
    fn split_off_begins_in_the_middle_of_an_entry() {
        let row = BLOCK.split_off(0x8000_3000, &geometry()).unwrap();
        let expected = Row { ia: 0x8000_3000, oa: Some(0x4000_3000), skipped: 0x3000, ..BLOCK };
        assert_eq!(row, expected);
        assert_eq!((row.size(), row.end()), ((4 << 20) - 0x3000, 0x8040_0000));
        assert_eq!(BLOCK.split_off(0x8020_0000, &geometry()), BLOCK.clip(0x8020_0000, u64::MAX, &geometry()));
        assert_eq!(BLOCK.split_off(0x8040_0000, &geometry()), None);
        assert_eq!(BLOCK.split_off(0, &geometry()), Some(BLOCK));
    }

    /// Whatever is cut off, the record of what is left is that of the entries it has.
    #[test]
    fn split_off_keeps_the_record_of_its_entries() {
        let in_first = BLOCK.split_off(0x8010_0000, &geometry()).unwrap();
        assert_eq!(in_first.to_record(), BLOCK.to_record());
        assert_eq!(in_first.with_whole_entries(), BLOCK);
        assert_eq!(
            in_first.split_off(0x8010_1000, &geometry()),
            BLOCK.split_off(0x8010_1000, &geometry()),
            "split twice"
        );
        assert_eq!(in_first.clip(0x8018_0000, u64::MAX, &geometry()), Some(in_first), "entries are not split");
        let in_second = in_first.split_off(0x8030_0000, &geometry()).unwrap();
        assert_eq!((in_second.oa, in_second.count, in_second.skipped), (Some(0x4030_0000), 1, 0x10_0000));
        assert_eq!(in_second.to_record(), BLOCK.clip(0x8030_0000, u64::MAX, &geometry()).unwrap().to_record());
        assert_eq!(in_first.clip(0, 0x8020_0000, &geometry()).unwrap().size(), 0x10_0000);
    }

    #[test]
    fn split_off_leaves_where_a_table_is() {
        let outside = Row { kind: RecordKind::TABLE_OUTSIDE, count: 1, ..BLOCK };
        let row = outside.split_off(0x8000_1000, &geometry()).unwrap();
        assert_eq!((row.oa, row.raw), (outside.oa, outside.raw));
        assert_eq!(row.to_record(), outside.to_record());
    }
}
