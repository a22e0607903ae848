// SPDX-License-Identifier: MIT OR Apache-2.0
//! The arithmetic of addresses.

use s2dump_vmsa::{Ipa, PhysAddr};

fn ipa(raw: u64) -> Ipa {
    Ipa::try_new(raw).unwrap()
}

#[test]
fn good_align_down() {
    let aligned = |raw, shift| ipa(raw).align_down(shift).get();
    assert_eq!([0, 12, 16, 52].map(|shift| aligned(0x1234_5678, shift)), [0x1234_5678, 0x1234_5000, 0x1234_0000, 0]);
    assert_eq!(aligned(0x1234_5000, 12), 0x1234_5000);
}

#[test]
fn good_distance() {
    assert_eq!(ipa(0x5000) - ipa(0x2000), 0x3000);
    assert_eq!(ipa(0x2000) - ipa(0x5000), 0x3000_u64.wrapping_neg(), "wraps");
}

#[test]
fn good_physical_address_of_so_many_bits() {
    assert!(PhysAddr::new((1 << 40) - 1).fits(40) && !PhysAddr::new(1 << 40).fits(40));
    assert_eq!(PhysAddr::new(u64::MAX).wrapping_add(2).get(), 1);
}
