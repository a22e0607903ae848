// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest: some twenty instructions that fetch orders from a device the VMM plays, and obey.
//!
//! Runs at EL1 with the MMU off, position independent, without a stack. An order is four loads from the port (verb,
//! address, pages, stride); its end, if it has one, is a store of the number of refused hypercalls. Works for protected guests because the port
//! is at an address without memory, which always exits to the VMM.

// UNSAFETY: `extern` symbols around the guest's code.
#![expect(unsafe_code, reason = "symbols around the guest's code")]

/// Where the guest's code is loaded and starts: a page of its own.
pub const CODE_IPA: u64 = 0x4000_0000;
/// Where the port is. The interrupt controller is below, memory above.
pub const PORT_IPA: u64 = 0x0900_0000;
/// Loads from here give the verb.
pub const PORT_VERB: u64 = PORT_IPA;
/// Loads from here give the first input address.
pub const PORT_ADDRESS: u64 = PORT_IPA + 8;
/// Loads from here give the number of pages.
pub const PORT_PAGES: u64 = PORT_IPA + 16;
/// Loads from here give the bytes from one page to the next.
pub const PORT_STRIDE: u64 = PORT_IPA + 24;
/// Stores to here end an order.
pub const PORT_REFUSED: u64 = PORT_IPA + 32;

/// Verb: store to each page.
pub const VERB_STORE: u64 = 1;
/// Verb: load from each page.
pub const VERB_LOAD: u64 = 2;
/// Verb: MEM_SHARE each page.
pub const VERB_SHARE: u64 = 3;
/// Verb: MEM_UNSHARE each page.
pub const VERB_UNSHARE: u64 = 4;
/// Verb: store to, then MEM_SHARE each page.
pub const VERB_STORE_SHARE: u64 = 5;
/// Verb: store a return instruction to each page, then call it.
pub const VERB_CALL: u64 = 6;
/// Verb: stay in the guest for good.
pub const VERB_SPIN: u64 = 7;
/// Verb: MMIO_GUARD_ENROLL, then MMIO_GUARD_MAP the port and each page.
pub const VERB_GUARD: u64 = 8;

core::arch::global_asm!(
    ".pushsection .rodata.s2dump_guest, \"a\"",
    ".balign 4",
    ".global s2dump_guest_start",
    ".global s2dump_guest_end",
    "s2dump_guest_start:",
    "    movz x20, #{port} >> 16, lsl #16",
    "0:  ldr  x21, [x20]",       // verb
    "    ldr  x22, [x20, #8]",   // address
    "    ldr  x23, [x20, #16]",  // pages
    "    ldr  x25, [x20, #24]", // stride
    "    mov  x24, #0",          // hypercalls refused
    "1:  cbz  x23, 9f",
    "    cmp  x21, #{load}",
    "    b.eq 2f",
    "    cmp  x21, #{share}",
    "    b.eq 3f",
    "    cmp  x21, #{unshare}",
    "    b.eq 4f",
    "    cmp  x21, #{call}",
    "    b.eq 6f",
    "    cmp  x21, #{spin}",
    "    b.eq .",
    "    cmp  x21, #{guard}",
    "    b.eq 7f",
    "    str  x22, [x22]",
    "    cmp  x21, #{store_share}",
    "    b.eq 3f",
    "    b    8f",
    "2:  ldr  x0, [x22]",
    "    b    8f",
    "3:  movz x0, #3",           // ARM_SMCCC_VENDOR_HYP_KVM_MEM_SHARE_FUNC_ID, 0xc6000003
    "    b    5f",
    "4:  movz x0, #4",           // ..._MEM_UNSHARE_FUNC_ID, 0xc6000004
    "5:  movk x0, #0xc600, lsl #16",
    "    mov  x1, x22",
    "    mov  x2, #0",
    "    mov  x3, #0",
    "    hvc  #0",
    "    cbz  x0, 8f",
    "    add  x24, x24, #1",
    "    b    8f",
    "6:  movz w0, #0x03c0",      // ret
    "    movk w0, #0xd65f, lsl #16",
    "    str  w0, [x22]",
    "    dsb  sy",
    "    ic   iallu",
    "    dsb  sy",
    "    isb",
    "    blr  x22",
    "    b    8f",
    "7:  movz x0, #6",           // ..._MMIO_GUARD_ENROLL_FUNC_ID, 0xc6000006
    "    movk x0, #0xc600, lsl #16",
    "    mov  x1, #0",
    "    mov  x2, #0",
    "    mov  x3, #0",
    "    hvc  #0",
    "    movz x0, #7",           // ..._MMIO_GUARD_MAP_FUNC_ID, 0xc6000007
    "    movk x0, #0xc600, lsl #16",
    "    mov  x1, x20",
    "    mov  x2, #0",
    "    mov  x3, #0",
    "    hvc  #0",
    "    movz x0, #7",
    "    b    5b",
    "8:  add  x22, x22, x25",
    "    sub  x23, x23, #1",
    "    b    1b",
    "9:  str  x24, [x20, #32]",
    "    b    0b",
    "s2dump_guest_end:",
    ".popsection",
    port = const PORT_IPA,
    load = const VERB_LOAD,
    share = const VERB_SHARE,
    unshare = const VERB_UNSHARE,
    store_share = const VERB_STORE_SHARE,
    call = const VERB_CALL,
    spin = const VERB_SPIN,
    guard = const VERB_GUARD,
);

extern "C" {
    static s2dump_guest_start: u8;
    static s2dump_guest_end: u8;
}

/// Returns the guest's code.
#[must_use]
pub fn code() -> &'static [u8] {
    let (start, end) = (&raw const s2dump_guest_start, &raw const s2dump_guest_end);
    // SAFETY: both symbols are in one read-only section, the end after the start, the bytes between are initialized.
    unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) }
}
