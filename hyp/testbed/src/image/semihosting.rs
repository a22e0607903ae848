// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Arm semihosting: the words given to the image, and the way out with an exit code.

// UNSAFETY: the semihosting trap reads and writes memory it is told of.
#![expect(unsafe_code, reason = "the semihosting trap reads and writes memory it is told of")]

use core::arch::asm;

const SYS_GET_CMDLINE: u64 = 0x15;
const SYS_EXIT: u64 = 0x18;
const ADP_STOPPED_APPLICATION_EXIT: u64 = 0x20026;

/// Makes a call.
///
/// # Safety
///
/// `block` is the parameter block of `operation`, with pointers to memory that may be written as long as it says.
unsafe fn call(operation: u64, block: &mut [u64; 2]) -> u64 {
    let mut result = operation;
    // SAFETY:
    // - QEMU runs with semihosting on, and takes the trap itself: no register but x0 changes.
    // - It touches memory as `block` says: the caller's promise.
    unsafe { asm!("hlt #0xf000", inout("x0") result, in("x1") block.as_mut_ptr(), options(nostack)) };
    result
}

/// Returns the words after the image's name, in `buffer`; none if there is no room or they are not UTF-8.
pub(crate) fn arguments(buffer: &mut [u8]) -> &str {
    let mut block = [buffer.as_mut_ptr() as u64, buffer.len() as u64];
    // SAFETY:
    // - The block holds the address and size of a buffer that we may write.
    let result = unsafe { call(SYS_GET_CMDLINE, &mut block) };
    let length = usize::try_from(block[1]).unwrap_or(0);
    match buffer.get(..length) {
        Some(text) if result == 0 => core::str::from_utf8(text).unwrap_or_default(),
        _ => "",
    }
}

/// Ends QEMU with this exit code.
pub(crate) fn exit(code: u64) -> ! {
    let mut block = [ADP_STOPPED_APPLICATION_EXIT, code];
    // SAFETY:
    // - The block holds a reason and a code, no pointers.
    unsafe { call(SYS_EXIT, &mut block) };
    loop {
        core::hint::spin_loop();
    }
}
