// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! PL011 of QEMU's virt machine: bytes out, no set-up needed.

// UNSAFETY: writes a device register.
#![expect(unsafe_code, reason = "writes a device register")]

use core::fmt::{Arguments, Result, Write};

/// UARTDR.
const DATA: *mut u32 = 0x0900_0000 as *mut u32;

/// The console, for `write!`.
pub(crate) struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> Result {
        for byte in text.bytes() {
            // SAFETY:
            // - QEMU's virt machine has a PL011 at this address, and the MMU is off while Rust runs.
            // - QEMU's takes a byte at any time, so that the flag register needs no look.
            unsafe { DATA.write_volatile(u32::from(byte)) };
        }
        Ok(())
    }
}

/// Prints.
pub(crate) fn print(arguments: Arguments<'_>) {
    // A `Console` never fails.
    let _ = Console.write_fmt(arguments);
}
