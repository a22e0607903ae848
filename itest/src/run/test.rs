// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests.

/// Not yet.
pub fn run(_filter: &str) -> i32 {
    println!("test: not built in");
    1
}
