// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any registers, any descriptor: decoded or refused, and nothing masked away.

use crate::invariants::{check, Input};

/// Pseudo-random numbers (splitmix64): the same in each run, so that a failure can be looked at.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

#[test]
fn good_any_descriptor_of_any_table() {
    let cases = if cfg!(miri) { 3 } else { 3000 };
    let (mut numbers, mut accepted) = (Numbers(1), 0);
    for _ in 0..cases {
        let (other, few_bits) = (numbers.next(), numbers.next() & numbers.next() & numbers.next());
        let input = Input {
            // D128 and EPD0 would refuse most of them.
            register: numbers.next() & !(1 << 38 | u64::from(other & 7 != 0) << 7),
            base: numbers.next() & (u64::MAX >> (other >> 50 & 15)),
            raw: if other & 1 == 0 { numbers.next() } else { few_bits } | u64::from(other & 2 != 0),
            s2pir: numbers.next(),
            features: (other >> 8) as u16,
            pa_max: (other >> 24) as u8,
            inherited: (other >> 32) as u8,
        };
        accepted += u64::from(check(&input));
    }
    assert!(cfg!(miri) || accepted > cases / 10, "only {accepted} of {cases} registers were accepted");
}

#[test]
fn good_empty_descriptor() {
    let vtcr = 2 << 16 | 1 << 6 | 24;
    assert!(check(&Input { register: vtcr, base: 0, raw: 0, s2pir: 0, features: 2 << 14, pa_max: 2, inherited: 0 }));
}
