// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors field by field, and as Linux 7.3 was seen to write them.

use s2dump_vmsa::attrs::{Cacheability, MemAttr, Shareability, Xn};
use s2dump_vmsa::pkvm::{self, Encoding, InvalidKind, PageState};
use s2dump_vmsa::raw::Type;
use s2dump_vmsa::stage2::{Permissions, Stage2Leaf};
use s2dump_vmsa::{Descriptor, Features, Geometry, Level, RawDescriptor};

const SH0_INNER: u64 = 3 << 12;

fn geometry(vtcr: u64, features: Features) -> Geometry {
    Geometry::from_vtcr(vtcr, features).unwrap()
}

/// 40 bits, start level 1, no FWB: a small CPU.
fn small() -> Geometry {
    let vtcr = 2 << 16 | SH0_INNER | 1 << 6 | 24;
    geometry(vtcr, Features { lpa2: false, fwb: false, xnx: true, ttst: true, pa_max_bits: 40, ..Features::NONE })
}

/// 52 bits, start level 0, LPA2, FWB.
fn large() -> Geometry {
    let vtcr = 1 << 32 | 6 << 16 | SH0_INNER | 2 << 6 | 12;
    geometry(vtcr, Features { lpa2: true, fwb: true, xnx: true, ttst: true, pa_max_bits: 52, ..Features::NONE })
}

/// 64 KiB pages, 52 bits.
fn coarse() -> Geometry {
    let vtcr = 6 << 16 | 1 << 14 | 2 << 6 | 12;
    geometry(vtcr, Features { lpa2: false, fwb: false, xnx: false, ttst: true, pa_max_bits: 52, ..Features::NONE })
}

fn page(raw: u64, geometry: &Geometry) -> Stage2Leaf<'_> {
    match RawDescriptor::from_bits(raw).view(Level::L3, geometry) {
        Descriptor::Page(leaf) => leaf.stage2().unwrap(),
        other => panic!("{raw:#x} is {other:?}"),
    }
}

fn block(raw: u64, geometry: &Geometry) -> Stage2Leaf<'_> {
    match RawDescriptor::from_bits(raw).view(Level::L2, geometry) {
        Descriptor::Block(leaf) => leaf.stage2().unwrap(),
        other => panic!("{raw:#x} is {other:?}"),
    }
}

fn ap_and_xn(leaf: &Stage2Leaf<'_>) -> (bool, bool, Xn) {
    match leaf.permissions() {
        Permissions::Direct { ap, xn } => (ap.is_readable(), ap.is_writable(), xn),
        Permissions::Indirect { .. } => panic!("indirect"),
    }
}

/// A page of a protected guest, on a CPU without FWB.
#[test]
fn good_protected_page() {
    let geometry = small();
    let leaf = page(0x0000_0000_409d_b7ff, &geometry);
    assert_eq!(leaf.output_address().get(), 0x409d_b000);
    let write_back = MemAttr::Normal { outer: Cacheability::WriteBack, inner: Cacheability::WriteBack };
    assert_eq!(leaf.mem_attr(), write_back);
    assert_eq!((ap_and_xn(&leaf), leaf.shareability()), ((true, true, Xn::Neither), Shareability::Inner));
    assert!(leaf.access_flag() && !leaf.contiguous() && !leaf.dirty_bit_modifier());
    assert_eq!((leaf.software_bits(), leaf.other_bits()), (0, 0));
    assert_eq!(pkvm::decode(Encoding::PKVM_7_2, leaf.raw()).page_state(), Some(PageState::Owned));
}

/// A page of an ordinary guest: borrowed from the host, not executable.
#[test]
fn good_borrowed_page() {
    let geometry = small();
    let leaf = page(0x0140_0000_409e_27ff, &geometry);
    assert_eq!(pkvm::decode(Encoding::PKVM_7_2, leaf.raw()).page_state(), Some(PageState::SharedBorrowed));
    assert_eq!(ap_and_xn(&leaf), (true, true, Xn::Both));
    assert_eq!((leaf.output_address().get(), leaf.other_bits()), (0x409e_2000, 0));
}

/// With LPA2 the bits of SH are address bits, and SH comes from VTCR_EL2.
#[test]
fn good_lpa2_page() {
    let geometry = large();
    let leaf = page(0x0000_0000_409d_b4db, &geometry);
    assert_eq!(leaf.output_address().get(), 0x409d_b000);
    assert_eq!((leaf.mem_attr(), leaf.shareability()), (MemAttr::ForcedWriteBack, Shareability::Inner));
    let high = page(0x0003_c000_0000_07db, &geometry);
    assert_eq!(high.output_address().get(), 0xf_c000_0000_0000);
    assert!(high.is_address_in_size());
}

#[test]
fn good_64k_high_bits() {
    let geometry = coarse();
    let leaf = page(0x1_2345_0000 | 0xf << 12 | 0x4ff, &geometry);
    assert_eq!(leaf.output_address().get(), 0xf_0001_2345_0000);
}

#[test]
fn good_types_by_level() {
    let (small, large) = (small(), large());
    let kind = |raw, level, geometry: &Geometry| RawDescriptor::from_bits(raw).descriptor_type(level, geometry);
    for level in [Level::L0, Level::L1, Level::L2, Level::L3] {
        assert_eq!(kind(0b00, level, &small), Type::Invalid);
        assert_eq!(kind(0b10, level, &small), Type::Invalid, "bit 0 decides");
    }
    assert_eq!([Level::L0, Level::L1, Level::L2].map(|l| kind(0b11, l, &small)), [Type::Table; 3]);
    assert_eq!(kind(0b11, Level::L3, &small), Type::Leaf);
    assert_eq!([Level::L1, Level::L2].map(|l| kind(0b01, l, &small)), [Type::Leaf; 2]);
    assert_eq!([Level::L0, Level::L3].map(|l| kind(0b01, l, &small)), [Type::Reserved; 2]);
    assert_eq!(kind(0b01, Level::L0, &large), Type::Leaf, "512 GiB blocks come with LPA2");
    assert_eq!(kind(0b01, Level::MINUS_1, &large), Type::Reserved);
}

#[test]
fn good_block_address_ignores_bits_below_its_size() {
    let geometry = small();
    // nT and a reserved bit below the address of a 2 MiB block.
    let leaf = block(0x8020_0000 | 1 << 16 | 1 << 12 | 0x7fd, &geometry);
    assert_eq!(leaf.output_address().get(), 0x8020_0000);
    assert!(leaf.no_translation());
    assert_eq!(leaf.other_bits(), 1 << 12, "but shows them");
    assert!(!page(0x8021_07ff, &geometry).no_translation(), "address of a page");
}

#[test]
#[cfg_attr(miri, ignore = "arithmetic of many values: minutes under Miri")]
fn good_each_bit_belongs_somewhere() {
    for geometry in [small(), large(), coarse()] {
        for n in 2..64 {
            let base = page(0b11, &geometry);
            let with_bit = page(0b11 | 1 << n, &geometry);
            let seen = |leaf: &Stage2Leaf<'_>| {
                (
                    (
                        leaf.output_address(),
                        leaf.mem_attr(),
                        leaf.permissions(),
                        leaf.shareability(),
                        leaf.access_flag(),
                    ),
                    (leaf.fnxs(), leaf.pbha(), leaf.contiguous(), leaf.dirty_bit_modifier()),
                    (leaf.software_bits(), leaf.other_bits()),
                )
            };
            assert_ne!(seen(&base), seen(&with_bit), "bit {n} is masked silently");
        }
    }
}

#[test]
fn bad_address_above_output_size() {
    let geometry = small();
    assert!(!page(1 << 40 | 0x7ff, &geometry).is_address_in_size());
    assert!(page(1 << 39 | 0x7ff, &geometry).is_address_in_size());
}

#[test]
fn good_next_table() {
    let view = |raw, geometry: &Geometry| match RawDescriptor::from_bits(raw).view(Level::L2, geometry) {
        Descriptor::Table(table) => table.next_table().get(),
        other => panic!("{other:?}"),
    };
    assert_eq!(view(0xfff8_0000_4123_4fff, &small()), 0x4123_4000, "attributes of a table are ignored");
    assert_eq!(view(0x4123_4303, &large()), 0xc_0000_4123_4000);
}

#[test]
fn good_poison() {
    let geometry = small();
    let raw = RawDescriptor::from_bits(3 << 60);
    let Descriptor::Invalid(invalid) = raw.view(Level::L3, &geometry) else { panic!("valid") };
    assert!(!invalid.is_empty());
    let poisoned = InvalidKind::GuestPoisoned { payload: 0 };
    assert_eq!(pkvm::decode(Encoding::PKVM_7_2, raw).invalid(), Some(poisoned));
}

#[test]
fn good_nothing() {
    let geometry = small();
    let Descriptor::Invalid(invalid) = RawDescriptor::from_bits(0).view(Level::L3, &geometry) else { panic!("valid") };
    assert!(invalid.is_empty());
}
