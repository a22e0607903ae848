// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Entry, vectors and exact instruction sequences: the assembly, and what it calls.

// UNSAFETY: symbols that assembly calls.
#![expect(unsafe_code, reason = "symbols that assembly calls")]

use crate::image::{console, main, semihosting};
use core::arch::global_asm;
use core::panic::PanicInfo;

global_asm!(include_str!("boot.s"));

/// Goes on from the assembly, at EL2; the machine started at `el`.
// SAFETY:
// - No other symbol of this name is linked: the assembly is its only user.
#[unsafe(no_mangle)]
extern "C" fn image_main(el: u64) -> ! {
    let failed = main(el);
    semihosting::exit(u64::from(failed))
}

/// Ends the run: an exception that no case provokes.
// SAFETY:
// - No other symbol of this name is linked: the assembly is its only user.
#[unsafe(no_mangle)]
extern "C" fn unexpected_exception(esr: u64, elr: u64, far: u64, el: u64) -> ! {
    panic!("unexpected exception at EL{el}: ESR {esr:#x} ELR {elr:#x} FAR {far:#x}");
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    console::print(format_args!("{info}\n"));
    semihosting::exit(2)
}
