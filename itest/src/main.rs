// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest init, test VMM and in-VM tests.
fn main() {}
