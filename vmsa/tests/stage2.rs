// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rights, faults and the fields of extensions of stage-2 leaves, against tables of the manual written out here.

use s2dump_vmsa::attrs::{MemAttr, Shareability};
use s2dump_vmsa::fault::{Access, Fault, Privilege};
use s2dump_vmsa::stage2::{Permissions, Stage2Leaf};
use s2dump_vmsa::{Descriptor, Features, Geometry, Granule, Level, RawDescriptor};

/// 40-bit input and output, 4 KiB, start level 1.
const VTCR: u64 = 2 << 16 | 1 << 6 | 24;
const HA: u64 = 1 << 21;
const HD: u64 = 1 << 22;
const ASSURED_ONLY: u64 = 1 << 34;
const S2PIE: u64 = 1 << 36;
const S2POE: u64 = 1 << 37;
const AF: u64 = 1 << 10;
const READ_WRITE: u64 = 3 << 6;

const ALL: Features =
    Features { xnx: true, ha: true, hd: true, mte_perm: true, s2pie: true, s2poe: true, the: true, ..Features::NONE };

fn geometry(vtcr: u64) -> Geometry {
    Geometry::from_vtcr(vtcr, ALL).unwrap()
}

fn leaf(raw: u64, level: Level, geometry: &Geometry) -> Stage2Leaf<'_> {
    let kind = if level.is_last() { 0b11 } else { 0b01 };
    match RawDescriptor::from_bits(raw | kind).view(level, geometry) {
        Descriptor::Block(leaf) | Descriptor::Page(leaf) => leaf.stage2().unwrap(),
        other => panic!("{raw:#x} is {other:?}"),
    }
}

fn page(raw: u64, geometry: &Geometry) -> Stage2Leaf<'_> {
    leaf(raw, Level::L3, geometry)
}

/// Rights as letters, EL1 then EL0.
fn letters(leaf: &Stage2Leaf<'_>, s2pir: u64) -> String {
    let of = |privilege| {
        let rights = leaf.rights(privilege, s2pir);
        let letter = |allowed, letter| if allowed { letter } else { '-' };
        [letter(rights.read, 'r'), letter(rights.write, 'w'), letter(rights.execute, 'x')]
    };
    of(Privilege::Privileged).into_iter().chain([' ']).chain(of(Privilege::Unprivileged)).collect()
}

#[test]
fn good_direct_rights() {
    let geometry = geometry(VTCR);
    let rights = |ap: u64, xn: u64| letters(&page(xn << 53 | ap << 6, &geometry), 0);
    assert_eq!([0, 1, 2, 3].map(|ap| rights(ap, 2)), ["--- ---", "r-- r--", "-w- -w-", "rw- rw-"]);
    assert_eq!([0, 1, 2, 3].map(|xn| rights(0, xn)), ["--x --x", "--- --x", "--- ---", "--x ---"]);
}

/// Hardware lets a write through where DBM is set, but only if it may manage dirty state.
#[test]
fn good_dirty_bit_modifier() {
    let rights = |vtcr, raw| letters(&page(raw, &geometry(vtcr)), 0);
    let clean = 1 << 51 | 1 << 6 | 2 << 53;
    assert_eq!(rights(VTCR | HA | HD, clean), "rw- rw-");
    assert_eq!(rights(VTCR | HA, clean), "r-- r--");
    assert_eq!(rights(VTCR | HD, clean), "r-- r--");
    assert_eq!(rights(VTCR | HA | HD, clean & !(1 << 51)), "r-- r--");
}

/// All values of a field of S2PIR_EL2: EL1 and EL0 only differ in execution.
#[test]
#[cfg_attr(miri, ignore = "arithmetic of many values: minutes under Miri")]
fn good_indirect_rights() {
    const BY_VALUE: [&str; 16] = [
        "--- ---", "--- ---", "r-- r--", "r-- r--", "-w- -w-", "--- ---", "r-- r--", "r-- r--", "r-- r--", "r-- r-x",
        "r-x r--", "r-x r-x", "rw- rw-", "rw- rwx", "rwx rw-", "rwx rwx",
    ];
    let geometry = geometry(VTCR | S2PIE);
    for (value, expected) in (0_u64..).zip(BY_VALUE) {
        for pi_index in 0..16_u64 {
            let raw = pi_index >> 2 << 53 | (pi_index >> 1 & 1) << 51 | (pi_index & 1) << 6;
            let dirty = page(raw | 1 << 7, &geometry);
            let as_told = Permissions::Indirect { pi_index: pi_index as u8, dirty: true };
            assert_eq!(dirty.permissions(), as_told);
            assert!(!dirty.dirty_bit_modifier(), "bit 51 is part of the index");
            // All other fields allow all.
            let s2pir = !(0xf << (4 * pi_index)) | value << (4 * pi_index);
            assert_eq!(letters(&dirty, s2pir), expected, "value {value} at index {pi_index}");
            assert_eq!(letters(&page(raw, &geometry), s2pir), expected.replace('w', "-"), "clean");
        }
    }
}

#[test]
fn good_clean_page_is_writable_if_hardware_marks_it() {
    assert_eq!(letters(&page(0, &geometry(VTCR | S2PIE | HA | HD)), 0xc), "rw- rw-");
    assert_eq!(letters(&page(0, &geometry(VTCR | S2PIE | HA)), 0xc), "r-- r--");
}

/// Each fault hides the ones after it: address size, access flag, permission.
#[test]
fn good_priority_of_faults() {
    let write = |vtcr, raw| page(raw, &geometry(vtcr)).fault(Access::Write, Privilege::Privileged, 0);
    assert_eq!(write(VTCR, 1 << 40), Some(Fault::AddressSize));
    assert_eq!(write(VTCR, 0), Some(Fault::AccessFlag));
    assert_eq!(write(VTCR | HA, 0), Some(Fault::Permission), "hardware sets the flag");
    assert_eq!(write(VTCR, AF), Some(Fault::Permission));
    assert_eq!(write(VTCR, AF | READ_WRITE), None);
}

#[test]
fn good_fault_depends_on_access() {
    let geometry = geometry(VTCR);
    let faults = |raw| {
        let leaf = page(raw, &geometry);
        let of = |access, privilege| leaf.fault(access, privilege, 0).is_some();
        [
            of(Access::Read, Privilege::Privileged),
            of(Access::Write, Privilege::Privileged),
            of(Access::Execute, Privilege::Privileged),
            of(Access::Execute, Privilege::Unprivileged),
        ]
    };
    assert_eq!(faults(AF | 1 << 6), [false, true, false, false]);
    assert_eq!(faults(AF | 2 << 6 | 1 << 53), [true, false, true, false]);
    assert_eq!(faults(AF | 3 << 53), [true, true, false, true]);
}

#[test]
fn good_walk_faults() {
    let geometry = geometry(VTCR);
    let fault = |raw, level| RawDescriptor::from_bits(raw).view(level, &geometry).fault();
    assert_eq!(fault(0, Level::L1), Some(Fault::Translation));
    assert_eq!(fault(0b01, Level::L3), Some(Fault::Translation));
    assert_eq!(fault(0b11, Level::L2), None);
    assert_eq!(fault(1 << 40 | 0b11, Level::L2), Some(Fault::AddressSize));
    assert_eq!(fault(1 << 40 | 0b01, Level::L2), Some(Fault::AddressSize));
    assert_eq!(fault(1 << 39 | 0b11, Level::L3), None);
}

#[test]
fn good_status_codes() {
    let codes = |fault: Fault| [-1, 0, 1, 2, 3].map(|level| fault.status_code(Level::try_new(level).unwrap()));
    assert_eq!(codes(Fault::AddressSize), [0x29, 0, 1, 2, 3]);
    assert_eq!(codes(Fault::Translation), [0x2b, 4, 5, 6, 7]);
    assert_eq!(codes(Fault::AccessFlag)[1..], [8, 9, 10, 11]);
    assert_eq!(codes(Fault::Permission)[1..], [12, 13, 14, 15]);
}

#[test]
fn good_fields_of_extensions() {
    let plain = geometry(VTCR);
    let extended = geometry(VTCR | ASSURED_ONLY | S2POE);
    assert!(page(1 << 11, &plain).fnxs() && !page(1 << 10, &plain).fnxs());
    assert_eq!(page(0b1010 << 59, &plain).po_index(), None);
    assert_eq!(page(0b1010 << 59, &extended).po_index(), Some(0b1010));
    assert_eq!((page(1 << 58, &plain).assured_only(), page(1 << 58, &plain).software_bits()), (false, 0b1000));
    assert!(page(1 << 58, &extended).assured_only());
    assert_eq!(page(0b1111 << 55, &extended).software_bits(), 0b0111, "58 is no software bit then");
    assert_eq!(page(4 << 2, &plain).mem_attr(), MemAttr::NoTagAccess);
    assert!(leaf(1 << 16, Level::L2, &plain).no_translation() && leaf(1 << 16, Level::L1, &plain).no_translation());
}

/// HWU59 to HWU62 make PBHA of bits 59 to 62, one by one; where nothing has them, nobody knows them.
#[test]
fn good_pbha() {
    let features = Features { hpds2: true, ..ALL };
    let shown = |vtcr, features| {
        let geometry = Geometry::from_vtcr(vtcr, features).unwrap();
        let leaf = page(0xf << 59, &geometry);
        (leaf.pbha(), leaf.other_bits() >> 59)
    };
    for n in 0..4_u32 {
        assert_eq!(shown(VTCR | 1 << (25 + n), features), (1 << n, 0xf & !(1 << n)), "HWU{}", 59 + n);
    }
    assert_eq!(shown(VTCR | 0xf << 25, features), (0xf, 0));
    assert_eq!(shown(VTCR | 0xf << 25, ALL), (0, 0xf), "no FEAT_HPDS2");
    assert_eq!(shown(VTCR | 0xf << 25 | S2POE, features), (0, 0), "an overlay index");
}

/// Without its feature a control is zero, whatever the register says.
#[test]
fn good_controls_need_their_features() {
    let geometry = Geometry::from_vtcr(VTCR | HA | HD | ASSURED_ONLY | S2PIE | S2POE, Features::NONE).unwrap();
    assert!(!geometry.has_indirect_permissions() && !geometry.sets_access_flag() && !geometry.manages_dirty_state());
    let leaf = page(1 << 58, &geometry);
    assert!(!leaf.assured_only() && leaf.po_index().is_none());
    assert_eq!(page(4 << 2, &geometry).mem_attr(), MemAttr::Unknown(4));
}

/// The bits no field shows, by level: reserved ones, those below a block's address, and 63.
#[test]
fn good_bits_nobody_knows() {
    let geometry = geometry(VTCR);
    let other = |level| leaf(!0b11, level, &geometry).other_bits();
    let always = 0b1_1111 << 59 | 0b111 << 48;
    assert_eq!(other(Level::L3), always);
    assert_eq!(other(Level::L2), always | 0b1_1110_1111 << 12);
    assert_eq!(other(Level::L1), always | 0x3fff_f000 & !(1 << 16));
    let without_xnx = Geometry::from_vtcr(VTCR, Features { xnx: false, ..ALL }).unwrap();
    assert_eq!(page(u64::MAX, &without_xnx).other_bits(), always | 1 << 53);
    let indirect = Geometry::from_vtcr(VTCR | S2PIE, Features { xnx: false, ..ALL }).unwrap();
    assert_eq!(page(u64::MAX, &indirect).other_bits(), always, "53 is part of the index");
}

/// A bit of a level that has no runs is no Contiguous bit.
#[test]
fn good_contiguous_where_there_are_runs() {
    let lpa2 = Features { lpa2: true, pa_max_bits: 52, ..ALL };
    let geometry = Geometry::from_vtcr(1 << 32 | 6 << 16 | 2 << 6 | 12, lpa2).unwrap();
    assert_eq!(Granule::Size4K.contiguous_entries(Level::L0), None);
    let block = leaf(1 << 52, Level::L0, &geometry);
    assert_eq!((block.contiguous(), block.other_bits()), (false, 1 << 52));
    assert!(leaf(1 << 52, Level::L1, &geometry).contiguous());
}

#[test]
fn good_tables_say_nothing() {
    let geometry = geometry(VTCR);
    let Descriptor::Table(table) = RawDescriptor::from_bits(u64::MAX).view(Level::L1, &geometry) else { panic!() };
    assert_eq!(table.attrs().to_bits(), 0);
    assert_eq!(table.next_table().get(), 0xffff_ffff_f000);
    assert_eq!(table.other_bits(), 0xffff << 48 | 0xffc, "all that is ignored");
}

#[test]
fn good_shareability() {
    let geometry = geometry(VTCR);
    let found = [0, 1, 2, 3].map(|sh: u64| page(sh << 8, &geometry).shareability());
    assert_eq!(found, [Shareability::Non, Shareability::Reserved, Shareability::Outer, Shareability::Inner]);
}

#[test]
fn good_fwb_is_told() {
    let is_fwb = |fwb| Geometry::from_vtcr(VTCR, Features { fwb, ..ALL }).unwrap().is_fwb();
    assert!(is_fwb(true) && !is_fwb(false));
}
