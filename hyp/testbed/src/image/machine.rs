// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! The MMU, asked by registers and instructions: AT, and runs at lower levels or under EL2's own tables.

// UNSAFETY: calls assembly, and makes memory from linker symbols.
#![expect(unsafe_code, reason = "calls assembly")]

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{
    Readable, Writeable, HCR_EL2, ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1, ID_AA64MMFR2_EL1, MAIR_EL2, SCTLR_EL1, TCR_EL1,
    TCR_EL2, TTBR0_EL2, VBAR_EL1, VTCR_EL2, VTTBR_EL2,
};
use core::arch::asm;
use core::sync::atomic::AtomicU64;
use s2dump_testbed::arena::HIGH_WORDS;
use s2dump_testbed::cpu::Cpu;
use s2dump_testbed::mmu::{El2, El2Exit, Lower, LowerExit, Mmu, Run, Stage2, Walked};

/// HCR_EL2: EL1 is AArch64, VM, and the three that settings choose.
const RW: u64 = 1 << 31;
const E2H: u64 = 1 << 34;
const FWB: u64 = 1 << 46;
const TWI: u64 = 1 << 13;
const DC: u64 = 1 << 12;
const VM: u64 = 1;
/// SCTLR_EL1: RES1 bits, nTWE, nTWI; MMU off.
const SCTLR_EL1_OFF: u64 = 0x30d5_0800;
/// SCTLR_EL2: RES1 bits, MMU on; and WXN.
const SCTLR_EL2_ON: u64 = 0x30c5_0831;
const WXN: u64 = 1 << 19;
/// SPSR: everything masked.
const SPSR_EL1H: u64 = 0x3c5;
const SPSR_EL0T: u64 = 0x3c0;
/// Offset from the load to the store in the code that runs below EL2, and to its vectors.
const STORE_OFFSET: u64 = 12;
const VECTORS_OFFSET: u64 = 0x800;

/// What the monitor returns when the page that was to be run did run: the immediate of its SMC.
const RAN: u64 = 3;

/// Two registers that assembly returns.
#[repr(C)]
struct AtResult {
    par: u64,
    esr: u64,
}

// In boot.s.
unsafe extern "C" {
    fn at_s12(is_write: u64, ia: u64) -> AtResult;
    fn run_lower(spsr: u64, elr: u64, x0: u64, exit: *mut LowerExit);
    static lower_code: u32;
    static lower_store: u32;
    static lower_vectors: u32;
}

/// Returns the memory at `base`, for tables; `base` is aligned.
pub(crate) fn high_memory(base: u64) -> &'static [AtomicU64] {
    // SAFETY:
    // - Whoever starts the image says that there is memory of this size at `base`; the caller looked at its alignment.
    // - No object of ours is there, and an atomic may be any bits; the MMU is off, so addresses are physical.
    unsafe { core::slice::from_raw_parts(base as *const AtomicU64, HIGH_WORDS) }
}

/// The machine: there is one.
pub(crate) struct Machine {
    stage2: Option<(Stage2, u64)>,
}

impl Machine {
    /// Takes the machine, at EL2.
    pub(crate) fn new() -> Self {
        let code = Self::code();
        let [store, vectors] = [&raw const lower_store as u64, &raw const lower_vectors as u64];
        assert!(store == code + STORE_OFFSET && vectors == code + VECTORS_OFFSET, "boot.s has moved");
        SCTLR_EL1.set(SCTLR_EL1_OFF);
        TCR_EL1.set(0);
        Self { stage2: None }
    }

    /// Returns where the code that runs below EL2 stands.
    pub(crate) fn code() -> u64 {
        &raw const lower_code as u64
    }

    /// Returns what the CPU has.
    pub(crate) fn cpu() -> Cpu {
        Cpu { mmfr0: ID_AA64MMFR0_EL1.get(), mmfr1: ID_AA64MMFR1_EL1.get(), mmfr2: ID_AA64MMFR2_EL1.get() }
    }

    /// Sets the registers, and forgets what the TLB knows.
    fn load(&mut self, settings: &Stage2, hcr: u64) {
        if self.stage2 != Some((*settings, hcr)) {
            let fwb = if settings.fwb { FWB } else { 0 };
            let dc = if settings.dc { DC } else { 0 };
            HCR_EL2.set(RW | VM | fwb | dc | hcr);
            VTCR_EL2.set(settings.vtcr);
            VTTBR_EL2.set(settings.vttbr);
            self.stage2 = Some((*settings, hcr));
        }
        barrier::dsb(barrier::ISH);
        barrier::isb(barrier::SY);
        // SAFETY:
        // - Nothing of EL1's translations is in use while EL2 runs.
        unsafe { asm!("tlbi vmalls12e1is", options(nostack)) };
        barrier::dsb(barrier::ISH);
        barrier::isb(barrier::SY);
    }

    /// Sets EL2's registers, which are not in use: its MMU is off. Returns SCTLR_EL2 and HCR_EL2 for the monitor.
    fn load_el2(settings: &El2) -> (u64, u64) {
        TTBR0_EL2.set(settings.ttbr0);
        TCR_EL2.set(settings.tcr);
        MAIR_EL2.set(settings.mair);
        barrier::dsb(barrier::ISH);
        let (wxn, e2h) = (if settings.wxn { WXN } else { 0 }, if settings.e2h { E2H } else { 0 });
        (SCTLR_EL2_ON | wxn, RW | e2h)
    }
}

impl Mmu for Machine {
    fn at_s12(&mut self, settings: &Stage2, is_write: bool, ia: u64) -> Walked {
        self.load(settings, 0);
        // SAFETY:
        // - AT changes PAR_EL1 and nothing else; an abort of its walk is passed over by our vectors.
        let AtResult { par, esr } = unsafe { at_s12(u64::from(is_write), ia) };
        if esr == 0 {
            Walked::Par(par)
        } else {
            Walked::Abort(esr)
        }
    }

    fn at_s1e2(&mut self, settings: &El2, is_write: bool, va: u64) -> Walked {
        let (sctlr, hcr) = Self::load_el2(settings);
        let (par, esr): (u64, u64);
        // SAFETY:
        // - The monitor of boot.s restores SCTLR_EL2 and HCR_EL2 and clobbers what is listed.
        // - EL2's MMU is on only while EL3 runs, so no access of ours is translated.
        unsafe {
            asm!(
                "cbnz {is_write:w}, 2f", "smc #0", "b 3f", "2: smc #1", "3:",
                is_write = in(reg) u32::from(is_write),
                out("x0") par, inout("x1") va => esr, inout("x2") sctlr => _, inout("x3") hcr => _,
                out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _,
            );
        }
        if esr == 0 {
            Walked::Par(par)
        } else {
            Walked::Abort(esr)
        }
    }

    fn run_lower(&mut self, settings: &Stage2, lower: Lower, run: Run) -> LowerExit {
        self.load(settings, TWI);
        let spsr = match lower {
            Lower::El1 => SPSR_EL1H,
            Lower::El0 => SPSR_EL0T,
        };
        let (elr, x0) = match run {
            Run::Load { code, address } => (code, address),
            Run::Store { code, address } => (code + STORE_OFFSET, address),
            Run::Fetch { address } => (address, 0),
        };
        if let Run::Load { code, .. } | Run::Store { code, .. } = run {
            VBAR_EL1.set(code + VECTORS_OFFSET);
        }
        let mut exit = LowerExit::default();
        // SAFETY:
        // - What is run is our page of code, or a page full of WFI: it changes the target's data word and x1 at most.
        // - Every exception there comes to EL2, whose vectors store into `exit` and return here.
        unsafe { run_lower(spsr, elr, x0, &raw mut exit) };
        exit
    }

    fn run_el2(&mut self, settings: &El2, va: u64, vectors: u64) -> El2Exit {
        let (sctlr, hcr) = Self::load_el2(settings);
        let (which, esr, far): (u64, u64, u64);
        // SAFETY:
        // - What is run is a page full of SMC, or vectors full of SMC: the monitor comes back with the first.
        // - The monitor restores SCTLR_EL2, HCR_EL2 and VBAR_EL2 and clobbers what is listed.
        unsafe {
            asm!(
                "smc #2",
                out("x0") which, inout("x1") va => esr, inout("x2") sctlr => far, inout("x3") hcr => _,
                inout("x4") vectors => _,
                out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _,
            );
        }
        if which == RAN {
            return El2Exit::Ran;
        }
        El2Exit::Exception { esr, far }
    }
}
