// SPDX-License-Identifier: MIT OR Apache-2.0
//! The little of A64 that the object rules need: where control goes, what moves the stack pointer, what touches
//! FP/SIMD or x18.
//!
//! It uses masks instead of a disassembler crate. The top-level encoding groups answer these questions, and they are
//! complete: a new FP instruction still falls into the FP group. A disassembler would return mnemonics, which would
//! have to be listed here, and one that is not listed would pass. An unknown instruction that could move control or SP
//! is refused.
//!
//! Groups and fields: Arm ARM DDI 0487, C4.1 "A64 instruction set encoding".

/// Where control goes after an instruction. Displacements are in bytes from the instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// To the next instruction.
    Next,
    /// To the target only: `b`.
    Jump(i64),
    /// To the target or on: `b.cond`, `cbz`, `tbz` and the like.
    Branch(i64),
    /// To the target and back: `bl`.
    Call(i64),
    /// To the caller: `ret` through x30, `retaa`, `retab`.
    Return,
    /// Nowhere: `brk`, `hlt`, `udf`.
    Trap,
    /// Anywhere, and maybe back: `br`, `blr`, their authenticated forms, `ret` through another register, `eret`, and
    /// branches not known here.
    Indirect { is_call: bool },
}

/// What an instruction does to SP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stack {
    /// Leaves it.
    Same,
    /// Adds a constant number of bytes; negative grows the stack.
    Add(i64),
    /// Sets it from another register or by a computed amount.
    Dynamic,
}

const SP: u32 = 31;

/// Sign-extends bits `high:low` of `word`.
const fn signed(word: u32, high: u32, low: u32) -> i64 {
    (((word as i32) << (31 - high)) >> (31 - high + low)) as i64
}

const fn bits(word: u32, high: u32, low: u32) -> u32 {
    (word << (31 - high)) >> (31 - high + low)
}

/// Returns where control goes after `word`.
pub(crate) fn flow(word: u32) -> Flow {
    match word {
        0xd65f_03c0 | 0xd65f_0bff | 0xd65f_0fff => return Flow::Return,
        _ if bits(word, 31, 16) == 0 => return Flow::Trap, // udf
        _ => {}
    }
    if bits(word, 28, 26) != 0b101 {
        return Flow::Next; // not in the group "branches, exceptions and system"
    }
    match bits(word, 31, 24) {
        0x14..=0x17 => Flow::Jump(signed(word, 25, 0) * 4),
        0x94..=0x97 => Flow::Call(signed(word, 25, 0) * 4),
        0x54 | 0x34 | 0x35 | 0xb4 | 0xb5 => Flow::Branch(signed(word, 23, 5) * 4), // b.cond, bc.cond, cbz, cbnz
        0x36 | 0x37 | 0xb6 | 0xb7 => Flow::Branch(signed(word, 18, 5) * 4),        // tbz, tbnz
        0x74 | 0x75 | 0xf4 | 0xf5 => Flow::Branch(signed(word, 13, 5) * 4),        // FEAT_CMPBR
        0xd4 if matches!(bits(word, 23, 21), 0b001 | 0b010) => Flow::Trap,         // brk, hlt
        0xd4 | 0xd5 => Flow::Next,                                                 // svc, hvc, smc; system
        _ => Flow::Indirect { is_call: bits(word, 31, 25) == 0b110_1011 && bits(word, 23, 21) == 0b001 },
    }
}

/// Returns what `word` does to SP.
pub(crate) fn stack(word: u32) -> Stack {
    let (rd, rn) = (bits(word, 4, 0), bits(word, 9, 5));
    let logical_immediate = bits(word, 28, 23) == 0b10_0100 && bits(word, 30, 29) != 0b11;
    let add_sub_immediate = bits(word, 28, 23) == 0b10_0010 && bits(word, 29, 29) == 0;
    let add_sub_extended = bits(word, 28, 21) == 0b0101_1001 && bits(word, 29, 29) == 0;
    let tagged_immediate = bits(word, 28, 23) == 0b10_0011; // addg, subg; addpt is 3-source
    let pair = bits(word, 29, 27) == 0b101 && bits(word, 25, 25) == 0 && bits(word, 23, 23) == 1;
    let single = bits(word, 29, 27) == 0b111 && bits(word, 25, 24) == 0 && bits(word, 10, 10) == 1;
    let memory_tag = bits(word, 31, 24) == 0xd9 && bits(word, 21, 21) == 1 && bits(word, 10, 10) == 1;
    if pair && rn == SP {
        return match (is_fp(word), bits(word, 31, 30)) {
            (false, 0b00) => Stack::Add(signed(word, 21, 15) * 4),
            (false, 0b10) => Stack::Add(signed(word, 21, 15) * 8),
            _ => Stack::Dynamic, // ldpsw, stgp: no prologue has them
        };
    }
    if memory_tag && rn == SP {
        return Stack::Dynamic;
    }
    if single && rn == SP {
        // With bit 21 set this is ldraa or ldrab; no compiler uses them to write back to SP.
        return if bits(word, 21, 21) == 1 { Stack::Dynamic } else { Stack::Add(signed(word, 20, 12)) };
    }
    if add_sub_immediate && rd == SP {
        let amount = i64::from(bits(word, 21, 10)) << (12 * bits(word, 22, 22));
        let sign = if bits(word, 30, 30) == 1 { -1 } else { 1 };
        return if rn == SP && bits(word, 31, 31) == 1 { Stack::Add(sign * amount) } else { Stack::Dynamic };
    }
    if rd == SP && (logical_immediate || add_sub_extended || tagged_immediate) {
        return Stack::Dynamic;
    }
    Stack::Same
}

/// Returns whether `word` uses an FP, SIMD, SVE or SME register, or FPCR or FPSR.
pub(crate) fn is_fp(word: u32) -> bool {
    let group = bits(word, 28, 25);
    group & 0b0111 == 0b0111 // data processing: scalar FP and advanced SIMD
        || (group & 0b0101 == 0b0100 && bits(word, 26, 26) == 1) // loads and stores with V set
        || group == 0b0010 // SVE
        || (group == 0 && bits(word, 31, 31) == 1) // SME
        || word & 0xffdf_ff00 == 0xd51b_4400 && bits(word, 7, 5) <= 1 // msr, mrs: FPCR, FPSR
}

/// Returns whether `word` signs a return address or checks its signature, and does nothing else: `paciasp`, `autiasp`.
pub(crate) fn signs(word: u32) -> bool {
    matches!(word, 0xd503_233f | 0xd503_23bf)
}

/// The register that the kernel keeps for its shadow call stack.
const X18: u32 = 18;

/// Returns whether `word` names x18 or w18. What is not known here is taken to have a register wherever one can be.
pub(crate) fn names_x18(word: u32) -> bool {
    let [rd, rn, ra, rm] = [(4, 0), (9, 5), (14, 10), (20, 16)].map(|(high, low)| bits(word, high, low) == X18);
    match bits(word, 28, 25) {
        0b0000 if bits(word, 31, 31) == 0 => false, // udf
        0b1000 | 0b1001 => match bits(word, 25, 23) {
            0b000 | 0b001 | 0b101 => rd, // adr, adrp; movn, movz, movk
            0b111 => rd || rn || rm,     // extr
            _ => rd || rn,
        },
        0b1010 | 0b1011 => match bits(word, 31, 24) {
            0x14..=0x17 | 0x94..=0x97 | 0x54 | 0xd4 => false, // b, bl, b.cond; svc, brk and the like
            0x34..=0x37 | 0xb4..=0xb7 | 0xd5 => rd,           // cbz, tbz; msr, mrs, sys
            0xd6 | 0xd7 => rd || rn,                          // br, blr, ret, and authenticated
            _ => rd || rn || rm,
        },
        group if group & 0b0101 == 0b0100 => match (bits(word, 29, 27), bits(word, 24, 24)) {
            _ if bits(word, 26, 26) == 1 => rn || rm, // FP registers are loaded or stored
            (0b011, 0) => rd && bits(word, 31, 30) != 0b11, // ldr literal; prfm has no rd
            (0b011, 1) => rd || rn || rm && (bits(word, 21, 21) == 1 || bits(word, 11, 10) != 0), // not ldapur
            (0b101, _) => rd || rn || ra,             // pairs
            (0b111, offset) => {
                let (is_other, kind) = (offset == 0 && bits(word, 21, 21) == 1, bits(word, 11, 10));
                // It has no rd. Of the others, only those with an offset in a register look like it.
                let is_prfm = bits(word, 31, 30) == 0b11 && bits(word, 23, 22) == 0b10 && !(is_other && kind != 0b10);
                // Atomics, or an offset in a register. The rest has immediates there.
                let has_rm = is_other && kind & 1 == 0;
                rd && !is_prfm || rn || rm && has_rm
            }
            _ => rd || rn || ra || rm, // exclusive, compare and swap
        },
        group if group & 0b0111 == 0b0101 => match (bits(word, 28, 28), bits(word, 24, 21)) {
            (0, _) | (1, 0b0000 | 0b0100) => rd || rn || rm, // logical, add and sub; with carry; select
            (1, 0b0010) => rn || rm && bits(word, 11, 11) == 0, // conditional compare has flags for rd
            (1, 0b0110) => rd || rn || rm && bits(word, 30, 30) == 0, // two sources, one source
            _ => rd || rn || ra || rm,
        },
        _ => rd || rn || ra || rm,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Words as assembled by LLVM 19.
    #[test]
    fn control_flow() {
        let cases = [
            (0x1400_0002, Flow::Jump(8)),                     // b .+8
            (0x17ff_ffff, Flow::Jump(-4)),                    // b .-4
            (0x97ff_fffe, Flow::Call(-8)),                    // bl .-8
            (0x5400_0040, Flow::Branch(8)),                   // b.eq .+8
            (0xb4ff_ffe0, Flow::Branch(-4)),                  // cbz x0, .-4
            (0x3500_0041, Flow::Branch(8)),                   // cbnz w1, .+8
            (0x3600_0040, Flow::Branch(8)),                   // tbz w0, #0, .+8
            (0xb707_ffe3, Flow::Branch(-4)),                  // tbnz x3, #32, .-4
            (0xd65f_03c0, Flow::Return),                      // ret
            (0xd65f_0bff, Flow::Return),                      // retaa
            (0xd65f_0020, Flow::Indirect { is_call: false }), // ret x1
            (0xd61f_0100, Flow::Indirect { is_call: false }), // br x8
            (0xd63f_0100, Flow::Indirect { is_call: true }),  // blr x8
            (0xd73f_0901, Flow::Indirect { is_call: true }),  // blraa x8, x1
            (0xd61f_0d1f, Flow::Indirect { is_call: false }), // brabz x8
            (0xd69f_03e0, Flow::Indirect { is_call: false }), // eret
            (0xd420_0020, Flow::Trap),                        // brk #1
            (0x0000_0000, Flow::Trap),                        // udf #0
            (0xd400_0002, Flow::Next),                        // hvc #0
            (0xd503_233f, Flow::Next),                        // paciasp
            (0xd503_245f, Flow::Next),                        // bti c
            (0x9100_03fd, Flow::Next),                        // mov x29, sp
        ];
        for (word, expected) in cases {
            assert_eq!(flow(word), expected, "{word:#010x}");
        }
    }

    #[test]
    fn stack_pointer() {
        let cases = [
            (0xd101_03ff, Stack::Add(-64)),   // sub sp, sp, #64
            (0x9101_03ff, Stack::Add(64)),    // add sp, sp, #64
            (0xd140_07ff, Stack::Add(-4096)), // sub sp, sp, #1, lsl #12
            (0xa9bc_7bfd, Stack::Add(-64)),   // stp x29, x30, [sp, #-64]!
            (0xa8c4_7bfd, Stack::Add(64)),    // ldp x29, x30, [sp], #64
            (0xf81f_0ffe, Stack::Add(-16)),   // str x30, [sp, #-16]!
            (0xf841_07fe, Stack::Add(16)),    // ldr x30, [sp], #16
            (0xa901_7bfd, Stack::Same),       // stp x29, x30, [sp, #16]
            (0x9100_43fd, Stack::Same),       // add x29, sp, #16
            (0xf100_43ff, Stack::Same),       // cmp sp, #16 (subs xzr)
            (0xa8c1_7c01, Stack::Same),       // ldp x1, xzr, [x0], #16
            (0x28c1_0be1, Stack::Add(8)),     // ldp w1, w2, [sp], #8
            (0xb880_4fe0, Stack::Add(4)),     // ldrsw x0, [sp, #4]!
            (0xf820_03e1, Stack::Same),       // ldadd x0, x1, [sp]
            (0xf840_8be0, Stack::Same),       // ldtr x0, [sp, #8]
            (0xd940_83e0, Stack::Same),       // ldapur x0, [sp, #8]
            (0xf861_6be0, Stack::Same),       // ldr x0, [sp, x1]
            (0xf820_1fe0, Stack::Dynamic),    // ldraa x0, [sp, #8]!
            (0x6880_87e0, Stack::Dynamic),    // stgp x0, x1, [sp], #16
            (0xd9a0_27e0, Stack::Dynamic),    // st2g x0, [sp], #32
            (0x9181_07ff, Stack::Dynamic),    // addg sp, sp, #16, #1
            (0x9100_03bf, Stack::Dynamic),    // mov sp, x29
            (0xcb20_63ff, Stack::Dynamic),    // sub sp, sp, x0
            (0x927c_ec1f, Stack::Dynamic),    // and sp, x0, #~15
            (0xaa00_03ff, Stack::Same),       // mov xzr, x0 (orr register)
        ];
        for (word, expected) in cases {
            assert_eq!(stack(word), expected, "{word:#010x}");
        }
    }

    #[test]
    fn fp_and_simd_registers() {
        let fp = [
            0x1e60_4020, // fmov d0, d1
            0x4ea1_1c20, // mov v0.16b, v1.16b
            0x3dc0_0000, // ldr q0, [x0]
            0xad00_0400, // stp q0, q1, [x0]
            0x0c40_7000, // ld1 {v0.8b}, [x0]
            0x9e66_0000, // fmov x0, d0
            0xc090_0000, // addha za0.s, p0/m, p0/m, z0.s
            0x0420_0000, // add z0.b, z0.b, z0.b
            0xd53b_4400, // mrs x0, fpcr
            0xd51b_4420, // msr fpsr, x0
        ];
        let general = [
            0xf940_0000, // ldr x0, [x0]
            0xa9bc_7bfd, // stp x29, x30, [sp, #-64]!
            0x9b01_7c00, // mul x0, x0, x1
            0xd53b_e040, // mrs x0, cntvct_el0
            0xd503_201f, // nop
            0xc85f_7c00, // ldxr x0, [x0]
            0xb8e0_0020, // ldaddal w0, w0, [x1]
            0xf980_0010, // prfm pstl1keep, [x0]
            0x1400_0002, // b .+8
            0xd420_0020, // brk #1
        ];
        assert!(fp.iter().all(|w| is_fp(*w)), "{fp:x?}");
        for word in general {
            assert!(!is_fp(word), "{word:#010x}");
        }
    }

    #[test]
    fn x18() {
        let with = [
            0x9100_0012, // add x18, x0, #0
            0x9100_0240, // add x0, x18, #0
            0x8b12_0000, // add x0, x0, x18
            0x9b12_7c00, // mul x0, x0, x18
            0x9b01_4800, // madd x0, x0, x1, x18
            0xf940_0012, // ldr x18, [x0]
            0xf940_0240, // ldr x0, [x18]
            0xf872_6800, // ldr x0, [x0, x18]
            0xa900_4800, // stp x0, x18, [x0]
            0xf800_8652, // str x18, [x18], #8
            0xc812_7c00, // stxr w18, x0, [x0]
            0xf832_0001, // ldadd x18, x1, [x0]
            0xf8b8_31f2, // ldseta x24, x18, [x15]
            0xf8b0_3412, // ldrab x18, [x0, #24]
            0xd53b_e052, // mrs x18, cntvct_el0
            0xd63f_0240, // blr x18
            0xb400_0012, // cbz x18, .
            0x3600_0012, // tbz w18, #0, .
            0x9000_0012, // adrp x18, .
            0xd280_0012, // mov x18, #0
            0xaa12_03e0, // mov x0, x18
            0x9a92_0000, // csel x0, x0, x18, eq
            0xfa52_0000, // ccmp x0, x18, #0, eq
            0x93d2_0400, // extr x0, x0, x18, #1
            0xdac0_0252, // rbit x18, x18
        ];
        let without = [
            0xd280_0240, // mov x0, #18
            0xd282_4000, // mov x0, #0x1200
            0x9104_8000, // add x0, x0, #0x120
            0x5400_0240, // b.eq .+72
            0x9400_0012, // bl .+72
            0x9400_0240, // bl .+0x900
            0xf812_0000, // stur x0, [x0, #-224]
            0xf852_0c00, // ldr x0, [x0, #-224]!
            0xa909_0000, // stp x0, x0, [x0, #144]
            0xf980_0012, // prfm pstl2keep, [x0]
            0xfa52_0800, // ccmp x0, #18, #0, eq
            0xfa40_0002, // ccmp x0, x0, #2, eq
            0xd420_0240, // brk #18
            0x5800_0240, // ldr x0, .+72
            0x1000_0240, // adr x0, .+72
            0xd503_201f, // nop
            0xdac0_0000, // rbit x0, x0
            0x0000_0012, // udf #18
        ];
        for word in with {
            assert!(names_x18(word), "{word:#010x}");
        }
        for word in without {
            assert!(!names_x18(word), "{word:#010x}");
        }
    }
}
