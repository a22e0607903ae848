// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! What only the image has: entry, console, registers.

mod boot;
mod console;
mod semihosting;

use console::print;

/// Runs all; returns whether something failed.
pub(crate) fn main(el: u64) -> bool {
    print(format_args!("EL{el}\n"));
    let mut buffer = [0; 256];
    let words = semihosting::arguments(&mut buffer);
    print(format_args!("args {words}\n"));
    false
}
