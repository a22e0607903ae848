// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs walker and coalescer over memory of any bytes, and compares them with a naive translator. The checks are in
//! `hyp/tests/`, because a property test there makes the same.
#![no_main]

#[path = "../../hyp/tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| common::hostile::check(bytes));
