// SPDX-License-Identifier: MIT OR Apache-2.0
//! Walker and coalescer over memory of any bytes, compared with a naive translator. What is checked is in `hyp/tests/`,
//! where a property test checks the same.
#![no_main]

#[path = "../../hyp/tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| common::hostile::check(bytes));
