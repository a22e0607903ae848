// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shows the page tables that pKVM keeps from the host.
fn main() {}
