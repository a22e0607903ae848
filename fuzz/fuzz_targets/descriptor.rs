// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decodes any descriptor at any level under any registers. The checks are in `vmsa/tests/`, because a property test
//! there makes the same.
#![no_main]

#[path = "../../vmsa/tests/invariants/mod.rs"]
mod invariants;

use invariants::{check, Input};

libfuzzer_sys::fuzz_target!(|bytes: [u8; 36]| {
    let word = |n: usize| bytes[8 * n..].iter().take(8).rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
    let [low, high, pa_max, inherited] = [bytes[32], bytes[33], bytes[34], bytes[35]];
    let features = u16::from_le_bytes([low, high]);
    check(&Input { register: word(0), base: word(1), raw: word(2), s2pir: word(3), features, pa_max, inherited });
});
