// SPDX-License-Identifier: MIT OR Apache-2.0
//! All tests of the crate's interface, as one program: seven would take seven times as long to link.

mod addr;
mod descriptor;
mod el2;
mod geometry;
mod invariants;
mod properties;
mod stage2;
mod tcr;
