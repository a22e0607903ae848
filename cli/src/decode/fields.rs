// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fields of one descriptor: where they are, as Arm names them, and what they say. Decoding is `s2dump-vmsa`'s.

use crate::leaf::{self, AnyLeaf};
use crate::plan::decode::DecodePlan;
use crate::words::{self, Word};
use s2dump_vmsa::attrs::{MemAttr, Shareability};
use s2dump_vmsa::el2::El2Leaf;
use s2dump_vmsa::fault::{Fault, Privilege};
use s2dump_vmsa::geometry::Regime;
use s2dump_vmsa::pkvm::{self, Encoding, InvalidKind, Owner, OwnerId, PageState, Part};
use s2dump_vmsa::stage2::{Permissions, Stage2Leaf};
use s2dump_vmsa::{Descriptor, Geometry, Leaf, Level, RawDescriptor, TableAttrs};

/// A field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// Highest bit.
    pub(crate) hi: u32,
    /// Lowest bit.
    pub(crate) lo: u32,
    /// Name that Arm gives it.
    pub(crate) name: &'static str,
    /// Its bits, shifted down.
    pub(crate) value: u64,
    /// What it says.
    pub(crate) meaning: Word,
}

impl Field {
    /// Returns its bits in place.
    pub(crate) fn mask(&self) -> u64 {
        u64::MAX >> (63 - self.hi) & u64::MAX << self.lo
    }
}

/// What a descriptor says at a level.
#[derive(Clone, Debug)]
pub(crate) struct Decoded {
    /// The descriptor.
    pub(crate) raw: u64,
    /// The level.
    pub(crate) level: Level,
    /// page, block, table, invalid, hole or reserved.
    pub(crate) kind: &'static str,
    /// The fault every access ends with.
    pub(crate) fault: Option<Fault>,
    /// Output address, or that of the next table.
    pub(crate) output: Option<u64>,
    /// What the entry spans, as a shift.
    pub(crate) entry_shift: u32,
    /// Fields from bit 0 up.
    pub(crate) fields: Vec<Field>,
    /// Set bits that are in no field.
    pub(crate) unknown: u64,
}

/// Returns the level at which `decoded` makes more sense: as a page or block with fewer unknown bits.
pub(crate) fn better_level(decoded: &Decoded, plan: &DecodePlan) -> Option<Level> {
    let others = [Level::L3, Level::L2, Level::L1].into_iter().filter(|&level| level != decoded.level);
    let decoded_at = others.map(|level| decode(level, decoded.raw, plan));
    let leaves = decoded_at.filter(|other| matches!(other.kind, "page" | "block"));
    let best = leaves.min_by_key(|other| other.unknown.count_ones())?;
    (best.unknown.count_ones() < decoded.unknown.count_ones()).then_some(best.level)
}

/// Decodes `raw`, which stands at `level`, as `plan` says.
pub(crate) fn decode(level: Level, raw: u64, plan: &DecodePlan) -> Decoded {
    let DecodePlan { ref geometry, encoding, knows_hardware, .. } = *plan;
    let descriptor = RawDescriptor::from_bits(raw).view(level, geometry);
    // The same descriptor with all other bits set: what it has tells which fields the format has, so that only the
    // decoder needs to know.
    let probe = RawDescriptor::from_bits(raw | !0b11).view(level, geometry);
    let page_shift = geometry.granule().page_shift();
    let mut fields = Fields { raw, page_shift, knows_hardware, list: Vec::new() };
    let mut fault = descriptor.fault();
    let (kind, output, unknown) = match (&descriptor, &probe) {
        (Descriptor::Table(table), Descriptor::Table(probe)) => {
            fields.put(1, 0, "type", "table");
            fields.address(Level::L3, geometry);
            fields.table_attrs(table.attrs(), probe.attrs(), geometry.regime());
            ("table", Some(table.next_table()), table.other_bits())
        }
        (Descriptor::Block(leaf) | Descriptor::Page(leaf), Descriptor::Block(probe) | Descriptor::Page(probe)) => {
            let kind = if level.is_last() { "page" } else { "block" };
            fields.put(1, 0, "type", kind);
            fields.leaf(leaf, probe, geometry);
            let of_regime = |leaf| leaf::of_leaf(leaf, TableAttrs::NONE, geometry.regime());
            let unknown = match (of_regime(*leaf), of_regime(*probe)) {
                (Some(AnyLeaf::Stage2(leaf)), Some(AnyLeaf::Stage2(probe))) => fields.stage2(&leaf, &probe, encoding),
                (Some(AnyLeaf::El2(leaf, regime)), Some(AnyLeaf::El2(probe, _))) => {
                    fields.el2(&leaf, &probe, regime, encoding)
                }
                _ => raw,
            };
            if knows_hardware {
                fault = of_regime(*leaf).and_then(|leaf| leaf.fault());
            }
            (kind, Some(leaf.output_address()), unknown)
        }
        (Descriptor::Invalid(invalid), _) => {
            fields.invalid(geometry.regime(), encoding);
            (if invalid.is_empty() { "hole" } else { "invalid" }, None, 0)
        }
        _ => {
            fields.put(1, 0, "type", "reserved at this level");
            ("reserved", None, raw & !0b11)
        }
    };
    fields.list.sort_by_key(|field| field.lo);
    Decoded {
        raw,
        level,
        kind,
        fault,
        output: output.map(|address| address.get()),
        entry_shift: geometry.granule().entry_shift(level),
        fields: fields.list,
        unknown,
    }
}

struct Fields {
    raw: u64,
    page_shift: u32,
    /// Whether a register told HA and HD. If not, the geometry has them clear.
    knows_hardware: bool,
    list: Vec<Field>,
}

impl Fields {
    fn put(&mut self, hi: u32, lo: u32, name: &'static str, meaning: impl Into<Word>) {
        let value = self.raw >> lo & u64::MAX >> (63 - (hi - lo));
        self.list.push(Field { hi, lo, name, value, meaning: meaning.into() });
    }

    /// Adds a field of one bit, with what it means when it is set and when it is clear.
    fn flag(&mut self, bit: u32, name: &'static str, set: &'static str, clear: &'static str) {
        self.put(bit, bit, name, if self.raw >> bit & 1 == 1 { set } else { clear });
    }

    fn invalid(&mut self, regime: Regime, encoding: Encoding) {
        self.put(0, 0, "type", "invalid");
        self.software(63, 1, regime, encoding);
    }

    /// Bits `hi:lo`, which the MMU leaves to software: fields of `encoding`, and those that have no meaning.
    fn software(&mut self, hi: u32, lo: u32, regime: Regime, encoding: Encoding) {
        let raw = RawDescriptor::from_bits(self.raw);
        let decoded = match regime {
            Regime::Stage2 => pkvm::decode(encoding, raw),
            Regime::El2 | Regime::El2And0 => pkvm::decode_hyp(encoding, raw),
        };
        let mut rest = u64::MAX >> (63 - hi) & u64::MAX << lo;
        for field in decoded.fields {
            let (name, meaning) = match (field.part, regime, decoded.page_state()) {
                (Part::PageState, Regime::El2 | Regime::El2And0, Some(PageState::Owned)) => {
                    ("page state", "owned, if the address is in EL2's linear map".into())
                }
                _ => software_part(field.part, &decoded, self.page_shift),
            };
            self.put(field.hi, field.lo, name, meaning);
            rest &= !(u64::MAX >> (63 - field.hi) & u64::MAX << field.lo);
        }
        self.put_each(rest, "software");
    }

    /// The bits of `mask`, neighbors as one field, without a meaning.
    fn put_each(&mut self, mut mask: u64, name: &'static str) {
        while mask != 0 {
            let lo = mask.trailing_zeros();
            let hi = lo + (mask >> lo).trailing_ones() - 1;
            self.put(hi, lo, name, "-");
            mask &= u64::MAX.checked_shl(hi + 1).unwrap_or(0);
        }
    }

    /// Adds the address: the bits that stand in their place, and the field that has the bits above those.
    fn address(&mut self, level: Level, geometry: &Geometry) {
        let (low, high) = (geometry.low_address_mask(level), geometry.high_address_mask());
        if low != 0 {
            self.put(63 - low.leading_zeros(), low.trailing_zeros(), "address", format!("{:#x}", self.raw & low));
        }
        if high != 0 {
            let name = if geometry.is_lpa2() { "address[51:50]" } else { "address[51:48]" };
            let (hi, lo) = (63 - high.leading_zeros(), high.trailing_zeros());
            // The topmost bit of an address is 51.
            self.put(hi, lo, name, format!("{:#x}", ((self.raw & high) >> lo) << (51 - (hi - lo))));
        }
    }

    /// Adds what a stage-1 table says about everything below it: the bits that count, which are those that `probe` has.
    fn table_attrs(&mut self, attrs: TableAttrs, probe: TableAttrs, regime: Regime) {
        let two = regime == Regime::El2And0;
        let mut put = |bit, counts, is_set, name, meaning| {
            if counts {
                self.put(bit, bit, name, if is_set { meaning } else { "-" });
            }
        };
        put(63, probe.is_non_secure(), attrs.is_non_secure(), "NSTable", "output is Non-secure");
        put(62, probe.is_read_only(), attrs.is_read_only(), "APTable[1]", "nothing below is writable");
        put(61, probe.denies_el0(), attrs.denies_el0(), "APTable[0]", "EL0 has no access below");
        let (name, meaning) =
            if two { ("UXNTable", "EL0 executes nothing below") } else { ("XNTable", "EL2 executes nothing below") };
        put(60, probe.xn(), attrs.xn(), name, meaning);
        put(59, probe.pxn(), attrs.pxn(), "PXNTable", "EL2 executes nothing below");
    }

    /// Adds the fields that leaves of both stages have.
    fn leaf(&mut self, leaf: &Leaf<'_>, probe: &Leaf<'_>, geometry: &Geometry) {
        self.address(leaf.level(), geometry);
        let clear = match (self.knows_hardware, geometry.sets_access_flag()) {
            (false, _) => "clear: an access faults, unless hardware sets it (HA)",
            (true, true) => "clear: hardware sets it",
            (true, false) => "clear: an access faults",
        };
        self.flag(10, "AF", "accessed", clear);
        if probe.no_translation() {
            self.flag(16, "nT", "an access may fault while it replaces a table", "-");
        }
        if let (true, Some(entries)) = (probe.contiguous(), geometry.granule().contiguous_entries(leaf.level())) {
            let meaning = if leaf.contiguous() { format!("one of a run of {entries}").into() } else { Word::from("-") };
            self.put(52, 52, "Contiguous", meaning);
        }
        if probe.dirty_bit_modifier() {
            let set = match (self.knows_hardware, geometry.manages_dirty_state()) {
                (false, _) => "with HA and HD, hardware lets writes through and sets dirty",
                (true, true) => "hardware lets writes through and sets dirty",
                (true, false) => "without effect: hardware does not manage dirty state",
            };
            self.flag(51, "DBM", set, "-");
        }
    }

    /// Adds those bits of `62:59` that HWU59 to HWU62 make PBHA; neighbors are one field.
    fn pbha(&mut self, probe: &Leaf<'_>) {
        self.put_each(u64::from(probe.pbha()) << 59, "PBHA");
    }

    /// Adds the shareability, `9:8`, unless these bits are part of the address.
    fn shareability(&mut self, shareability: Shareability) {
        if !self.list.iter().any(|field| field.mask() & 0b11 << 8 != 0) {
            self.put(9, 8, "SH", words::shareability(shareability));
        }
    }

    /// Returns the set bits that are in no field.
    fn stage2(&mut self, leaf: &Stage2Leaf<'_>, probe: &Stage2Leaf<'_>, encoding: Encoding) -> u64 {
        let memory = words::memory(leaf.mem_attr());
        let is_forced = matches!(leaf.mem_attr(), MemAttr::ForcedWriteBack | MemAttr::ForcedWriteBackNoTagAccess);
        self.put(5, 2, "MemAttr", if is_forced { format!("{memory}, whatever stage 1 says").into() } else { memory });
        self.shareability(leaf.shareability());
        self.flag(11, "FnXS", "accesses do not get XS", "-");
        match leaf.permissions() {
            Permissions::Direct { ap, xn } => {
                self.put(7, 6, "S2AP", access(ap.is_readable(), ap.is_writable()));
                let lo = if probe.other_bits() >> 53 & 1 == 1 { 54 } else { 53 };
                self.put(
                    54,
                    lo,
                    "XN",
                    match (xn.el1_can_execute(), xn.el0_can_execute()) {
                        (true, true) => "EL1 and EL0 execute",
                        (true, false) => "EL1 executes, EL0 does not",
                        (false, true) => "EL0 executes, EL1 does not",
                        (false, false) => "nobody executes",
                    },
                );
            }
            Permissions::Indirect { pi_index, dirty } => {
                let meaning = format!("of index {pi_index} into S2PIR_EL2");
                self.put(6, 6, "PIIndex[0]", meaning.clone());
                self.put(51, 51, "PIIndex[1]", meaning.clone());
                self.put(54, 53, "PIIndex[3:2]", meaning);
                self.put(7, 7, "Dirty", if dirty { "dirty" } else { "clean: a write faults or sets it" });
            }
        }
        let top = if probe.assured_only() { 57 } else { 58 };
        if probe.assured_only() {
            self.flag(58, "AssuredOnly", "assured only", "-");
        }
        self.software(top, 55, Regime::Stage2, encoding);
        match leaf.po_index() {
            Some(index) => self.put(62, 59, "POIndex", format!("index {index} into S2POR_EL1")),
            None => self.pbha(probe),
        }
        leaf.other_bits()
    }

    /// Returns the set bits that are in no field.
    fn el2(&mut self, leaf: &El2Leaf<'_>, probe: &El2Leaf<'_>, regime: Regime, encoding: Encoding) -> u64 {
        let attribute = format!("attribute {} of MAIR_EL2", leaf.attr_index());
        self.put(4, 2, "AttrIndx", attribute.clone());
        self.shareability(leaf.shareability());
        self.flag(5, "NS", "output is Non-secure, if EL2 is Secure", "-");
        let rights = |privilege| {
            let rights = leaf.rights(privilege, false);
            access(rights.read, rights.write)
        };
        let privileged = rights(Privilege::Privileged);
        if regime == Regime::El2And0 {
            self.put(7, 6, "AP", format!("EL2 {privileged}, EL0 {}", rights(Privilege::Unprivileged)));
            self.flag(11, "nG", "of one ASID", "global");
            self.flag(53, "PXN", "EL2 does not execute", "-");
            self.flag(54, "UXN", "EL0 does not execute", "-");
        } else {
            self.put(7, 6, "AP", format!("EL2 {privileged}"));
            self.flag(54, "XN", "EL2 does not execute", "EL2 executes, unless a table above or WXN denies it");
        }
        self.flag(50, "GP", "guarded: BTI", "-");
        self.software(58, 55, regime, encoding);
        if probe.attr_index() > 0b111 {
            self.put(59, 59, "AttrIndx[3]", attribute);
        }
        self.pbha(probe);
        leaf.other_bits()
    }
}

/// Returns the name of a part that software has in a descriptor, and what it says.
fn software_part(part: Part, decoded: &pkvm::Decoded, page_shift: u32) -> (&'static str, Word) {
    let owner = match decoded.invalid() {
        Some(InvalidKind::HostDonation { owner }) => Some(owner),
        _ => None,
    };
    let meaning = match (part, decoded.invalid()) {
        (Part::PageState, _) => decoded.page_state().map_or("-", words::page_state_of).into(),
        (Part::InvalidType, Some(kind)) => words::annotation_of(kind).map_or("-", |(word, _)| word).into(),
        _ => match (part, owner) {
            (Part::Owner, Some(Owner::Hyp | Owner::Unknown { id: OwnerId::HYP, .. })) => "the hypervisor".into(),
            (Part::Owner, Some(Owner::Guest { .. } | Owner::SomeGuest)) => "a guest".into(),
            (Part::Owner, Some(Owner::Ffa)) => "the secure world, by FF-A".into(),
            (Part::Owner, Some(Owner::Protected)) => "nobody: a protected region".into(),
            (Part::Owner, Some(Owner::Unknown { id: OwnerId(other), .. })) => format!("component {other}").into(),
            (Part::Handle, Some(Owner::Guest { handle, .. })) => format!("vm:{handle:#x}").into(),
            (Part::Gfn, Some(Owner::Guest { gfn, .. })) => format!("input address {:#x}", gfn << page_shift).into(),
            (Part::Metadata, Some(Owner::Unknown { metadata: 1.., .. })) => "of the owner".into(),
            _ => "-".into(),
        },
    };
    let name = match part {
        Part::PageState => "page state",
        Part::InvalidType => "pKVM type",
        Part::Owner => "owner",
        Part::Handle => "handle",
        Part::Gfn => "gfn",
        Part::Metadata => "metadata",
        Part::Payload => "payload",
    };
    (name, meaning)
}

fn access(read: bool, write: bool) -> &'static str {
    match (read, write) {
        (true, true) => "rw",
        (true, false) => "r",
        (false, true) => "w",
        (false, false) => "no access",
    }
}
