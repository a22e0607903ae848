// SPDX-License-Identifier: MIT OR Apache-2.0
//! Leaves and tables of EL2's stage 1, against the manual's rules written out here.

use s2dump_vmsa::attrs::Shareability;
use s2dump_vmsa::el2::El2Leaf;
use s2dump_vmsa::fault::{Access, Fault, Privilege};
use s2dump_vmsa::{Descriptor, Features, Geometry, Level, RawDescriptor, TableAttrs};

const FEATURES: Features = Features { hpds: true, ha: true, hd: true, ..Features::NONE };
/// 48 bits in and out, 4 KiB.
const TCR: [u64; 2] = [5 << 16 | 16, 5 << 32 | 16];

fn geometry(e2h: bool, extra: u64) -> Geometry {
    Geometry::from_tcr_el2(TCR[usize::from(e2h)] | extra, e2h, FEATURES).unwrap()
}

fn page(raw: u64, inherited: TableAttrs, geometry: &Geometry) -> El2Leaf<'_> {
    match RawDescriptor::from_bits(raw | 0b11).view(Level::L3, geometry) {
        Descriptor::Page(leaf) => leaf.el2(inherited).unwrap(),
        other => panic!("{raw:#x} is {other:?}"),
    }
}

fn letters(leaf: &El2Leaf<'_>, wxn: bool) -> String {
    let of = |privilege| {
        let rights = leaf.rights(privilege, wxn);
        let letter = |allowed, letter| if allowed { letter } else { '-' };
        [letter(rights.read, 'r'), letter(rights.write, 'w'), letter(rights.execute, 'x')]
    };
    of(Privilege::Privileged).into_iter().chain([' ']).chain(of(Privilege::Unprivileged)).collect()
}

fn ap(ap: u64) -> u64 {
    ap << 6
}

#[test]
fn good_rights_without_e2h() {
    let geometry = geometry(false, 0);
    let rights = |raw| letters(&page(raw, TableAttrs::NONE, &geometry), false);
    assert_eq!(
        [0, 1, 2, 3].map(|n| rights(ap(n))),
        ["rwx ---", "rwx ---", "r-x ---", "r-x ---"],
        "AP[1] does not count"
    );
    assert_eq!(rights(ap(1) | 1 << 54), "rw- ---");
    assert_eq!(rights(ap(1) | 1 << 53), "rwx ---", "there is no PXN");
    assert_eq!(letters(&page(ap(1), TableAttrs::NONE, &geometry), true), "rw- ---", "WXN");
    assert_eq!(letters(&page(ap(3), TableAttrs::NONE, &geometry), true), "r-x ---");
}

#[test]
fn good_rights_with_e2h() {
    let geometry = geometry(true, 0);
    let rights = |raw| letters(&page(raw, TableAttrs::NONE, &geometry), false);
    let by_ap = [0, 1, 2, 3].map(|n| rights(ap(n)));
    assert_eq!(by_ap, ["rwx --x", "rw- rwx", "r-x --x", "r-x r-x"], "EL2 does not execute what EL0 can write");
    assert_eq!(rights(ap(2) | 1 << 54), "r-x ---", "UXN is EL0's");
    assert_eq!(rights(ap(2) | 1 << 53), "r-- --x", "PXN is EL2's");
    let wxn = |raw| letters(&page(raw, TableAttrs::NONE, &geometry), true);
    assert_eq!([0, 1, 2, 3].map(|n| wxn(ap(n))), ["rw- --x", "rw- rw-", "r-x --x", "r-x r-x"]);
}

/// One bit each: NSTable, APTable[1], APTable[0], UXNTable or XNTable, PXNTable.
#[test]
fn good_inherited_rights() {
    let rights = |e2h: bool, raw, bit: u8| letters(&page(raw, TableAttrs::from_bits(bit), &geometry(e2h, 0)), false);
    let bits = [0x10, 0x08, 0x04, 0x02, 0x01];
    assert_eq!(bits.map(|bit| rights(true, ap(1), bit)), ["rw- rwx", "r-x r-x", "rwx --x", "rw- rw-", "rw- rwx"]);
    assert_eq!(rights(true, ap(0), 0x01), "rw- --x");
    assert_eq!(
        bits[..4].iter().map(|bit| rights(false, ap(1), *bit)).collect::<Vec<_>>(),
        ["rwx ---", "r-x ---", "rwx ---", "rw- ---"]
    );
}

/// What two tables both say, holds once.
#[test]
fn good_table_attributes_add_up() {
    let and = |above, below| TableAttrs::from_bits(above).and(TableAttrs::from_bits(below)).to_bits();
    assert_eq!([and(0, 0b1_0101), and(0b1_0101, 0), and(0b1_0010, 0b0_1010)], [0b1_0101, 0b1_0101, 0b1_1010]);
}

#[test]
fn good_table_attributes_by_regime() {
    let attrs = |geometry: Geometry| {
        let Descriptor::Table(table) = RawDescriptor::from_bits(u64::MAX).view(Level::L0, &geometry) else { panic!() };
        assert_eq!(table.other_bits() & 0x1f << 59, u64::from(!table.attrs().to_bits() & 0x1f) << 59);
        table.attrs().to_bits()
    };
    assert_eq!(attrs(geometry(true, 0)), 0b1_1111);
    assert_eq!(attrs(geometry(false, 0)), 0b1_1010, "no EL0, no PXN");
    assert_eq!(attrs(geometry(true, 1 << 41)), 0b1_0000, "HPD0");
    assert_eq!(attrs(geometry(false, 1 << 24)), 0b1_0000, "HPD");
    let without = Features { hpds: false, ..FEATURES };
    assert_eq!(attrs(Geometry::from_tcr_el2(TCR[1] | 1 << 41, true, without).unwrap()), 0b1_1111);
}

#[test]
fn good_names_of_table_attributes() {
    let names = |bit| {
        let attrs = TableAttrs::from_bits(bit);
        [attrs.is_non_secure(), attrs.is_read_only(), attrs.denies_el0(), attrs.xn(), attrs.pxn()]
    };
    for n in 0..5_usize {
        let mut expected = [false; 5];
        expected[4 - n] = true;
        assert_eq!(names(1 << n), expected);
    }
    assert_eq!(TableAttrs::from_bits(0xe0), TableAttrs::NONE, "five bits");
    assert_eq!(TableAttrs::from_bits(0b10).and(TableAttrs::from_bits(0b1001)).to_bits(), 0b1011);
}

#[test]
fn good_fields() {
    let (without, with) = (geometry(false, 0), geometry(true, 0));
    let plain = |raw| page(raw, TableAttrs::NONE, &without);
    assert_eq!(plain(0b101 << 2).attr_index(), 5);
    assert_eq!(plain(0b101 << 2 | 1 << 59).attr_index(), 5, "no AIE");
    let aie = Geometry::from_tcr_el2(TCR[0], false, Features { aie: true, ..FEATURES }).unwrap();
    assert_eq!(page(0b101 << 2 | 1 << 59, TableAttrs::NONE, &aie).attr_index(), 13);
    assert!(plain(1 << 5).is_non_secure() && !plain(!(1 << 5)).is_non_secure());
    assert_eq!(plain(2 << 8).shareability(), Shareability::Outer);
    assert_eq!(plain(2 << 6).ap(), 2);
    assert!(plain(1 << 50).is_guarded() && !plain(!(1 << 50)).is_guarded());
    assert!(plain(1 << 54).xn() && !plain(!(1 << 54)).xn());
    assert!(!plain(1 << 53).pxn() && page(1 << 53, TableAttrs::NONE, &with).pxn());
    assert!(!plain(1 << 11).is_not_global() && page(1 << 11, TableAttrs::NONE, &with).is_not_global());
    assert!(!page(!(1 << 53 | 1 << 11), TableAttrs::NONE, &with).pxn());
}

#[test]
fn good_shareability_of_lpa2() {
    let features = Features { lpa2: true, pa_max_bits: 52, ..FEATURES };
    let geometry = Geometry::from_tcr_el2(1 << 32 | 6 << 16 | 3 << 12 | 12, false, features).unwrap();
    assert_eq!(geometry.start_level(), Level::MINUS_1);
    let leaf = page(2 << 8 | 1 << 49, TableAttrs::NONE, &geometry);
    assert_eq!(leaf.shareability(), Shareability::Inner);
    assert_eq!(leaf.output_address().get(), 0xa_0000_0000_0000);
}

#[test]
fn good_faults() {
    let geometry = geometry(false, 0);
    let write = |raw| page(raw, TableAttrs::NONE, &geometry).fault(Access::Write, Privilege::Privileged, false);
    assert_eq!(write(ap(3)), Some(Fault::AccessFlag));
    assert_eq!(write(1 << 10 | ap(3)), Some(Fault::Permission));
    assert_eq!(write(1 << 10 | ap(1)), None);
    let read = page(1 << 10 | ap(3), TableAttrs::NONE, &geometry).fault(Access::Read, Privilege::Privileged, false);
    assert_eq!(read, None);
}

/// Hardware lets a write through where DBM is set, but not where a table forbids it.
#[test]
fn good_dirty_bit_modifier() {
    let managed = geometry(false, 1 << 21 | 1 << 22);
    let rights =
        |inherited, geometry| letters(&page(1 << 51 | ap(3), TableAttrs::from_bits(inherited), geometry), false);
    assert_eq!(rights(0, &managed), "rwx ---");
    assert_eq!(rights(0b1000, &managed), "r-x ---");
    assert_eq!(rights(0, &geometry(false, 0)), "r-x ---");
}

#[test]
fn good_bits_nobody_knows() {
    let other = |e2h| page(u64::MAX, TableAttrs::NONE, &geometry(e2h, 0)).other_bits();
    assert_eq!(other(false), 0b1_1111 << 59 | 1 << 53 | 0b11 << 48 | 1 << 11);
    assert_eq!(other(true), 0b1_1111 << 59 | 0b11 << 48);
}

/// A leaf of one stage has no fields of the other.
#[test]
fn bad_stage() {
    let el2 = geometry(false, 0);
    let stage2 = Geometry::from_vtcr(5 << 16 | 2 << 6 | 16, FEATURES).unwrap();
    let leaf = |geometry| match RawDescriptor::from_bits(0x7ff).view(Level::L3, geometry) {
        Descriptor::Page(leaf) => (leaf.stage2().is_some(), leaf.el2(TableAttrs::NONE).is_some()),
        other => panic!("{other:?}"),
    };
    assert_eq!((leaf(&el2), leaf(&stage2)), ((false, true), (true, false)));
}

/// At stage 1, PBHA takes HPD besides HWU; bit 59 is AttrIndx with AIE.
#[test]
fn good_pbha() {
    let features = Features { hpds2: true, ..FEATURES };
    for (e2h, hpd, hwu) in [(false, 24, 25), (true, 41, 43)] {
        let shown = |bits: u64, features| {
            let geometry = Geometry::from_tcr_el2(TCR[usize::from(e2h)] | bits, e2h, features).unwrap();
            let leaf = page(0xf << 59, TableAttrs::NONE, &geometry);
            (leaf.pbha(), leaf.other_bits() >> 59)
        };
        assert_eq!(shown(0xf << hwu | 1 << hpd, features), (0xf, 0));
        assert_eq!(shown(0b0101 << hwu | 1 << hpd, features), (0b0101, 0b1010));
        assert_eq!(shown(0xf << hwu, features), (0, 0xf), "no HPD");
        assert_eq!(shown(0xf << hwu | 1 << hpd, FEATURES), (0, 0xf), "no FEAT_HPDS2");
        assert_eq!(shown(0xf << hwu | 1 << hpd, Features { aie: true, ..features }), (0b1110, 0));
    }
}
