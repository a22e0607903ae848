// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds, boots, tests and measures s2dump.
fn main() {}
