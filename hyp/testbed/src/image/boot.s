// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
// Entry, vectors, and the few sequences whose instructions must be exactly these.
//
// The machine starts at EL3. EL3 keeps a monitor of a few lines, because only from there the EL2 regime can be asked
// (AT S1E2*, with SCTLR_EL2.M set) without mapping our own code in each table that is tested: MMU off at EL3, EL2's
// registers as the case wants them. Everything else runs at EL2 with the MMU off.

    .section .text.boot, "ax"
    .global _start
_start:
    mrs     x0, CurrentEL
    lsr     x0, x0, #2
    cmp     x0, #3
    b.ne    el2_entry                   // main gets the level, and says what is wrong
    adr     x9, vectors_el3
    msr     vbar_el3, x9
    mov     x9, #0x531                  // RW, HCE, NS; 5:4 are RES1
    msr     scr_el3, x9
    msr     cptr_el3, xzr
    mov     x9, #(1 << 31)              // RW
    msr     hcr_el2, x9
    ldr     x9, =0x30c50830             // RES1 bits, MMU off
    msr     sctlr_el2, x9
    adr     x9, el2_entry
    msr     elr_el3, x9
    mov     x9, #0x3c9                  // EL2h, all masked
    msr     spsr_el3, x9
    eret

el2_entry:
    ldr     x9, =__stack_top
    mov     sp, x9
    cmp     x0, #3
    b.ne    1f
    adr     x9, vectors_el2
    msr     vbar_el2, x9
1:  bl      image_main                  // with the level we came from
    b       .

// ---- EL2 --------------------------------------------------------------------------------------------------------

// at_s12(is_write, ipa) -> (PAR_EL1, ESR_EL2 of an external abort during the walk, or 0)
    .global at_s12
at_s12:
    mov     x2, #0
    cbnz    x0, at_s12_write
at_s12_read:
    at      s12e1r, x1
    b       1f
at_s12_write:
    at      s12e1w, x1
1:  isb
    mrs     x0, par_el1
    mov     x1, x2
    ret

// run_lower(spsr, elr, x0 there, *mut LowerExit): returns when an exception is taken from there to EL2.
    .global run_lower
run_lower:
    stp     x29, x30, [sp, #-112]!
    stp     x27, x28, [sp, #16]
    stp     x25, x26, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x21, x22, [sp, #64]
    stp     x19, x20, [sp, #80]
    str     x3, [sp, #96]
    msr     spsr_el2, x0
    msr     elr_el2, x1
    mov     x0, x2
    mov     x1, #0
    eret

lower_sync:
    ldr     x3, [sp, #96]
    mrs     x4, esr_el2
    mrs     x5, elr_el2
    mrs     x6, far_el2
    mrs     x7, hpfar_el2
    stp     x4, x5, [x3]
    stp     x6, x7, [x3, #16]
    ldp     x19, x20, [sp, #80]
    ldp     x21, x22, [sp, #64]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #32]
    ldp     x27, x28, [sp, #16]
    ldp     x29, x30, [sp], #112
    ret

// An external abort of at_s12: told in x2, and passed over. Anything else ends the run.
current_sync:
    mrs     x9, elr_el2
    adr     x10, at_s12_read
    cmp     x9, x10
    adr     x10, at_s12_write
    ccmp    x9, x10, #4, ne
    b.ne    unexpected_el2
    mrs     x2, esr_el2
    add     x9, x9, #4
    msr     elr_el2, x9
    eret

unexpected_el2:
    mrs     x0, esr_el2
    mrs     x1, elr_el2
    mrs     x2, far_el2
    mov     x3, #2
    b       unexpected_exception

// What runs at EL1 and EL0: one access, then a trapped WFI, so that the exception says which was last.
    .balign 4096
    .global lower_code
lower_code:
    ldr     x1, [x0]
    wfi
    b       .
    .global lower_store
lower_store:
    str     x1, [x0]
    wfi
    b       .
    .global lower_vectors
    .org    lower_code + 0x800
lower_vectors:                          // VBAR_EL1: whatever comes here, EL2 hears of it
    .rept   512
    hvc     #1
    .endr

    .balign 2048
vectors_el2:
    .irp    offset, 0x000, 0x080, 0x100, 0x180
    .balign 128
    b       unexpected_el2
    .endr
    .balign 128
    b       current_sync
    .irp    offset, 0x280, 0x300, 0x380
    .balign 128
    b       unexpected_el2
    .endr
    .balign 128
    b       lower_sync
    .irp    offset, 0x480, 0x500, 0x580, 0x600, 0x680, 0x700, 0x780
    .balign 128
    b       unexpected_el2
    .endr

// ---- EL3 --------------------------------------------------------------------------------------------------------

// The immediate of SMC says what to do.
//  0, 1: AT S1E2R or W of x1, with SCTLR_EL2 = x2 and HCR_EL2 = x3; returns PAR_EL1, and ESR_EL3 of an abort or 0.
//  2: run x1 at EL2 with those and VBAR_EL2 = x4, until
//  3, 4 (in the page run, in the page of its vectors) end that; returns which, ESR_EL2, FAR_EL2.
monitor:
    mrs     x9, esr_el3
    lsr     x10, x9, #26
    cmp     x10, #0x17
    b.ne    unexpected_el3
    and     x9, x9, #0xffff
    cmp     x9, #3
    b.hs    monitor_ran
    mrs     x11, sctlr_el2
    mrs     x12, hcr_el2
    mrs     x13, vbar_el2
    mrs     x14, elr_el3
    mrs     x15, spsr_el3
    msr     hcr_el2, x3
    msr     sctlr_el2, x2
    isb
    tlbi    alle2
    dsb     sy
    isb
    cmp     x9, #1
    b.eq    monitor_write
    b.hi    monitor_run
    at      s1e2r, x1
    b       1f
monitor_write:
    at      s1e2w, x1
1:  isb
    mrs     x0, par_el1
    mov     x1, #0
monitor_end:
    msr     sctlr_el2, x11
    msr     hcr_el2, x12
    msr     vbar_el2, x13
    msr     elr_el3, x14
    msr     spsr_el3, x15
    isb
    tlbi    alle2
    dsb     sy
    eret
monitor_run:
    msr     vbar_el2, x4
    msr     elr_el3, x1
    eret                                // SPSR_EL3 is the caller's: EL2h, all masked
monitor_ran:
    mov     x0, x9
    mrs     x1, esr_el2
    mrs     x2, far_el2
    b       monitor_end
monitor_abort:
    mov     x0, #0
    mrs     x1, esr_el3
    b       monitor_end

unexpected_el3:
    mrs     x0, esr_el3
    mrs     x1, elr_el3
    mrs     x2, far_el3
    mov     x3, #3
    ldr     x9, =__stack_top
    mov     sp, x9
    b       unexpected_exception

    .balign 2048
vectors_el3:
    .irp    offset, 0x000, 0x080, 0x100, 0x180
    .balign 128
    b       unexpected_el3
    .endr
    .balign 128
    b       monitor_abort
    .irp    offset, 0x280, 0x300, 0x380
    .balign 128
    b       unexpected_el3
    .endr
    .balign 128
    b       monitor
    .irp    offset, 0x480, 0x500, 0x580, 0x600, 0x680, 0x700, 0x780
    .balign 128
    b       unexpected_el3
    .endr
    .balign 128
