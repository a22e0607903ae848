// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold of any registers and any descriptor, whatever they mean. Property tests and fuzzing (`fuzz/`) feed it.

use s2dump_vmsa::el2::El2Leaf;
use s2dump_vmsa::fault::{Access, Fault, Privilege, Rights};
use s2dump_vmsa::geometry::BaseBeyondOutput;
use s2dump_vmsa::pkvm::{self, Decoded, Meaning, KNOWN};
use s2dump_vmsa::stage2::Stage2Leaf;
use s2dump_vmsa::{
    Descriptor, Features, Geometry, GeometryError, Granule, Leaf, Level, RawDescriptor, Regime, TableAttrs,
};

/// What is decoded, in numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input {
    /// VTCR_EL2 or TCR_EL2.
    pub(crate) register: u64,
    /// VTTBR_EL2 or TTBR0_EL2.
    pub(crate) base: u64,
    pub(crate) raw: u64,
    /// S2PIR_EL2.
    pub(crate) s2pir: u64,
    /// A bit for each of [`Features`], in order, and the regime in the highest two.
    pub(crate) features: u16,
    pub(crate) pa_max: u8,
    pub(crate) inherited: u8,
}

const LEVELS: [Level; 5] = [Level::MINUS_1, Level::L0, Level::L1, Level::L2, Level::L3];
const ACCESSES: [Access; 3] = [Access::Read, Access::Write, Access::Execute];
const PRIVILEGES: [Privilege; 2] = [Privilege::Privileged, Privilege::Unprivileged];

impl Input {
    fn features(&self) -> Features {
        let bit = |n: u32| self.features >> n & 1 != 0;
        Features {
            pa_max_bits: [32, 36, 40, 42, 44, 48, 52][usize::from(self.pa_max) % 7],
            lpa2: bit(0),
            lva: bit(1),
            ttst: bit(2),
            fwb: bit(3),
            xnx: bit(4),
            mte_perm: bit(5),
            ha: bit(6),
            hd: bit(7),
            hpds: bit(8),
            hpds2: bit(13),
            s2pie: bit(9),
            s2poe: bit(10),
            the: bit(11),
            aie: bit(12),
        }
    }

    fn geometry(&self) -> Result<Geometry, GeometryError> {
        match self.features >> 14 {
            0 => Geometry::from_tcr_el2(self.register, false, self.features()),
            1 => Geometry::from_tcr_el2(self.register, true, self.features()),
            _ => Geometry::from_vtcr(self.register, self.features()),
        }
    }
}

/// Decodes all there is to decode, and checks it; returns whether the registers were accepted.
pub(crate) fn check(input: &Input) -> bool {
    check_software(input.raw);
    let geometry = match input.geometry() {
        Ok(geometry) => geometry,
        Err(error) => {
            check_refusal(input, error);
            return false;
        }
    };
    check_geometry(input, &geometry);
    for level in LEVELS {
        check_descriptor(input, level, &geometry);
    }
    true
}

/// Whatever the encoding: fields do not overlap, only their bits count, and what an invalid entry says tells all of it.
fn check_software(raw: u64) {
    for encoding in KNOWN.map(|known| known.encoding) {
        check_meaning(raw, |raw| pkvm::decode(encoding, RawDescriptor::from_bits(raw)));
        check_meaning(raw, |raw| pkvm::decode_hyp(encoding, RawDescriptor::from_bits(raw)));
        let is_hyp_told = pkvm::decode_hyp(encoding, RawDescriptor::from_bits(raw)).meaning != Meaning::Unknown;
        assert_eq!(is_hyp_told, encoding.is_hyp_told() && raw & 1 == 1);
        if let Some(frame) = pkvm::decode_frame(encoding, raw) {
            assert_eq!((u64::from(frame.refcount), u64::from(frame.order)), (raw & 0xffff, raw >> 16 & 0xff));
            assert_eq!(u64::from(frame.share_count), raw >> 32);
            assert!(frame.is_hyp_kept || frame.hyp.is_none());
        }
    }
}

fn check_meaning(raw: u64, decode: impl Fn(u64) -> Decoded) {
    let decoded = decode(raw);
    let fields = decoded.fields.iter().fold(0, |before, field| {
        assert_eq!(before & field.mask(), 0, "{raw:#x}: {decoded:?}");
        before | field.mask()
    });
    match decoded.meaning {
        Meaning::Unknown => assert_eq!(fields, 0),
        Meaning::Leaf(_) => assert!(raw & 1 == 1 && fields & 1 == 0),
        Meaning::Invalid(_) => assert!(raw & 1 == 0 && fields == !1, "{raw:#x}: {decoded:?}"),
    }
    for n in 1..64 {
        let other = decode(raw ^ 1 << n);
        let counts = fields >> n & 1 == 1;
        assert_eq!(other.meaning != decoded.meaning, counts, "bit {n} of {raw:#x}: {decoded:?}, {other:?}");
    }
}

/// The field that is named does have a value to refuse.
fn check_refusal(input: &Input, error: GeometryError) {
    let register = input.register;
    let is_stage2 = input.features >> 14 >= 2;
    match error {
        GeometryError::D128 => assert!(is_stage2 && register >> 38 & 1 == 1),
        GeometryError::Epd0 => assert!(!is_stage2 && register >> 7 & 1 == 1),
        GeometryError::Tg0(tg0) => assert!(tg0 == 3 && register >> 14 & 3 == 3),
        GeometryError::T0sz { t0sz, min, max } => {
            assert!(u64::from(t0sz) == register & 0x3f && (t0sz < min || t0sz > max));
        }
        GeometryError::StartLevel(sl) => assert!(is_stage2 && u64::from(sl & 3) == register >> 6 & 3),
        GeometryError::StartLevelForT0sz { start_level, index_bits } => {
            assert!(is_stage2 && u64::from(start_level & 3) == register >> 6 & 3);
            // At most 16 tables.
            let most = [9, 13, 11][(register >> 14 & 3) as usize] + 4;
            assert!(!(1..=most).contains(&index_bits));
        }
    }
}

fn check_geometry(input: &Input, geometry: &Geometry) {
    let granule = geometry.granule();
    assert!((16..=52).contains(&geometry.ia_bits()) && (32..=52).contains(&geometry.pa_bits()));
    assert!(geometry.pa_bits() <= input.features().pa_max_bits);
    assert_eq!(geometry.ia_end(), 1 << geometry.ia_bits());
    let root_bits = geometry.root_index_bits();
    let most = granule.index_bits() + if geometry.regime() == Regime::Stage2 { 4 } else { 0 };
    assert!((1..=most).contains(&root_bits), "{geometry:?}");
    assert_eq!(granule.entry_shift(geometry.start_level()) + root_bits, u32::from(geometry.ia_bits()));
    assert_eq!(geometry.root_bytes(), 8 << root_bits);
    assert_eq!(u64::from(geometry.root_tables()), (geometry.root_bytes() >> granule.page_shift()).max(1));
    // A format of fewer address bits does not take more.
    let has_52 = geometry.is_lpa2() || granule == Granule::Size64K;
    assert!(has_52 || geometry.pa_bits() <= 48);
    for level in LEVELS {
        let (low, high) = (geometry.low_address_mask(level), geometry.high_address_mask());
        assert_eq!((low & high, (low | high) & 0b11), (0, 0));
        // As many bits as the format's addresses have above those of the entry.
        let has_all = geometry.is_lpa2() || granule == Granule::Size64K && input.features().pa_max_bits == 52;
        let (top, in_place) = if has_all { (52, if geometry.is_lpa2() { 50 } else { 48 }) } else { (48, 48) };
        assert_eq!(low.count_ones(), in_place - granule.entry_shift(level).min(in_place));
        assert_eq!(high.count_ones(), top - in_place);
        assert!(!geometry.is_block_level(level) || (level != Level::L3 && level != Level::MINUS_1));
    }
    assert!(!geometry.manages_dirty_state() || geometry.sets_access_flag());

    match geometry.base(input.base) {
        Ok(base) => {
            assert_eq!(base.address.get() % geometry.root_bytes(), 0);
            assert!(base.address.fits(u32::from(geometry.pa_bits())));
            // All of the register is address, dropped, or told by somebody else (ASID or VMID, CnP).
            let told = base.address.get() & 0xffff_ffff_ffff | base.dropped;
            let wide = if has_52 { 0x3e } else { 0 };
            assert_eq!((told ^ input.base) & 0xffff_ffff_fffe & !wide, 0);
        }
        Err(BaseBeyondOutput(address)) => assert!(!address.fits(u32::from(geometry.pa_bits()))),
    }
}

fn check_descriptor(input: &Input, level: Level, geometry: &Geometry) {
    let raw = RawDescriptor::from_bits(input.raw);
    assert_eq!(raw.to_bits(), input.raw);
    let descriptor = raw.view(level, geometry);
    match descriptor {
        Descriptor::Invalid(invalid) => {
            assert_eq!((input.raw & 1, invalid.is_empty()), (0, input.raw == 0));
            assert_eq!(descriptor.fault(), Some(Fault::Translation));
        }
        Descriptor::Reserved(same) => {
            assert_eq!((same, input.raw & 0b11), (raw, 0b01));
            assert!(!geometry.is_block_level(level));
            assert_eq!(descriptor.fault(), Some(Fault::Translation));
        }
        Descriptor::Table(table) => {
            assert!(input.raw & 0b11 == 0b11 && !level.is_last());
            assert_eq!(table.next_table().get() % (1 << geometry.granule().page_shift()), 0);
            let in_size = table.next_table().fits(u32::from(geometry.pa_bits()));
            assert_eq!((table.is_address_in_size(), descriptor.fault().is_none()), (in_size, in_size));
            let seen = |raw| match RawDescriptor::from_bits(raw).view(level, geometry) {
                Descriptor::Table(table) => ((table.next_table(), table.attrs()), table.other_bits()),
                other => panic!("{other:?}"),
            };
            let (fields, others) = seen(input.raw);
            for n in 2..64 {
                let (fields_then, others_then) = seen(input.raw ^ 1 << n);
                assert_ne!(fields != fields_then, others != others_then, "bit {n} shows in both or nowhere");
                assert!(others == others_then || others ^ others_then == 1 << n);
            }
            assert!(geometry.regime() != Regime::Stage2 || table.attrs() == TableAttrs::NONE);
        }
        Descriptor::Block(leaf) | Descriptor::Page(leaf) => {
            assert_eq!(matches!(descriptor, Descriptor::Page(_)), level.is_last());
            check_leaf(input, leaf, geometry);
            let fault = (!leaf.is_address_in_size()).then_some(Fault::AddressSize);
            assert_eq!(descriptor.fault(), fault);
        }
    }
    for fault in [Fault::AddressSize, Fault::Translation, Fault::AccessFlag, Fault::Permission] {
        assert!(fault.status_code(level) <= 0x2b);
    }
}

fn check_leaf(input: &Input, leaf: Leaf<'_>, geometry: &Geometry) {
    let level = leaf.level();
    assert_eq!(leaf.raw().to_bits(), input.raw);
    let shift = geometry.granule().entry_shift(level);
    assert_eq!(leaf.output_address().get() % (1 << shift), 0);
    assert_eq!(leaf.is_address_in_size(), leaf.output_address().fits(u32::from(geometry.pa_bits())));
    let inherited = TableAttrs::from_bits(input.inherited);
    assert_eq!(TableAttrs::from_bits(inherited.to_bits()), inherited);
    assert_eq!(leaf.stage2().is_some(), geometry.regime() == Regime::Stage2);
    assert_eq!(leaf.el2(inherited).is_some(), geometry.regime() != Regime::Stage2);

    // Every bit shows: as a field, or as one that nobody knows.
    let seen = |raw| match RawDescriptor::from_bits(raw).view(level, geometry) {
        Descriptor::Block(leaf) | Descriptor::Page(leaf) => all_of(leaf),
        other => panic!("{other:?}"),
    };
    let (fields, others) = seen(input.raw);
    for n in 2..64 {
        let (fields_then, others_then) = seen(input.raw ^ 1 << n);
        assert_ne!(fields != fields_then, others != others_then, "bit {n} shows in both or nowhere");
        assert!(others == others_then || others ^ others_then == 1 << n);
    }

    for privilege in PRIVILEGES {
        if let Some(leaf) = leaf.stage2() {
            let rights = leaf.rights(privilege, input.s2pir);
            check_faults(&leaf, geometry, rights, |access| leaf.fault(access, privilege, input.s2pir));
        }
        for wxn in [false, true] {
            if let (Some(leaf), Some(alone)) = (leaf.el2(inherited), leaf.el2(TableAttrs::NONE)) {
                let rights = leaf.rights(privilege, wxn);
                check_faults(&leaf, geometry, rights, |access| leaf.fault(access, privilege, wxn));
                // Without EL0 there is nobody unprivileged; tables above take away and never give, except that what
                // nobody can write any more WXN and the rule for EL0-writable pages leave executable.
                let more = alone.rights(privilege, wxn);
                assert!(!rights.read || more.read);
                assert!(!rights.write || more.write);
                assert!(!rights.execute || more.execute || (more.write && !rights.write) || inherited.denies_el0());
                let is_nobody = privilege == Privilege::Unprivileged && geometry.regime() == Regime::El2;
                assert!(!is_nobody || rights == Rights { read: false, write: false, execute: false });
                assert!(!(wxn && rights.write && rights.execute));
            }
        }
    }
}

/// Faults come in the order of the architecture, and only for a reason.
fn check_faults(leaf: &Leaf<'_>, geometry: &Geometry, rights: Rights, fault: impl Fn(Access) -> Option<Fault>) {
    for access in ACCESSES {
        let expected = match (leaf.is_address_in_size(), leaf.access_flag() || geometry.sets_access_flag()) {
            (false, _) => Some(Fault::AddressSize),
            (true, false) => Some(Fault::AccessFlag),
            (true, true) => (!rights.allow(access)).then_some(Fault::Permission),
        };
        assert_eq!(fault(access), expected);
    }
}

/// Every field of a leaf, and the bits nobody knows.
fn all_of(leaf: Leaf<'_>) -> (String, u64) {
    let flags = (leaf.access_flag(), leaf.no_translation(), leaf.dirty_bit_modifier(), leaf.contiguous());
    let shared = (leaf.output_address(), flags, leaf.software_bits(), leaf.pbha());
    let (own, others) = match (leaf.stage2(), leaf.el2(TableAttrs::NONE)) {
        (Some(leaf), _) => (of_stage2(&leaf), leaf.other_bits()),
        (_, Some(leaf)) => (of_el2(&leaf), leaf.other_bits()),
        _ => unreachable!(),
    };
    (format!("{shared:?} {own}"), others)
}

fn of_stage2(leaf: &Stage2Leaf<'_>) -> String {
    let extension = (leaf.fnxs(), leaf.assured_only(), leaf.po_index());
    format!("{:?}", (leaf.mem_attr(), leaf.shareability(), leaf.permissions(), extension))
}

fn of_el2(leaf: &El2Leaf<'_>) -> String {
    let flags = (leaf.is_non_secure(), leaf.is_not_global(), leaf.is_guarded(), leaf.xn(), leaf.pxn());
    format!("{:?}", (leaf.attr_index(), leaf.ap(), leaf.shareability(), flags, leaf.inherited()))
}
