// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! What the cases ask of the machine, and the registers they set. The image answers with the real MMU.

use core::fmt::{Display, Formatter, Result};

/// Registers of a stage-2 translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage2 {
    /// VTCR_EL2.
    pub vtcr: u64,
    /// VTTBR_EL2.
    pub vttbr: u64,
    /// HCR_EL2.FWB.
    pub fwb: bool,
    /// HCR_EL2.DC: stage 1 gives Normal write-back, else (it is off) Device-nGnRnE.
    pub dc: bool,
}

/// Registers of EL2's stage 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct El2 {
    /// TCR_EL2.
    pub tcr: u64,
    /// TTBR0_EL2.
    pub ttbr0: u64,
    /// MAIR_EL2.
    pub mair: u64,
    /// HCR_EL2.E2H.
    pub e2h: bool,
    /// SCTLR_EL2.WXN.
    pub wxn: bool,
}

/// What AT left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walked {
    /// PAR_EL1.
    Par(u64),
    /// The walk met no memory: ESR of the external abort.
    Abort(u64),
}

/// Who runs below EL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lower {
    /// The kernel.
    El1,
    /// A program.
    El0,
}

/// What is run there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// A load from `address`, by code at `code`.
    Load {
        /// Where the image's code page is mapped.
        code: u64,
        /// The address.
        address: u64,
    },
    /// A store to `address`, by code at `code`.
    Store {
        /// Where the image's code page is mapped.
        code: u64,
        /// The address.
        address: u64,
    },
    /// What stands at `address`: a trapped WFI.
    Fetch {
        /// The address.
        address: u64,
    },
}

/// How a run below EL2 ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LowerExit {
    /// ESR_EL2.
    pub esr: u64,
    /// ELR_EL2.
    pub elr: u64,
    /// FAR_EL2.
    pub far: u64,
    /// HPFAR_EL2.
    pub hpfar: u64,
}

/// How a run at EL2 ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum El2Exit {
    /// The instruction at the address was executed.
    Ran,
    /// An exception was taken.
    Exception {
        /// ESR_EL2.
        esr: u64,
        /// FAR_EL2.
        far: u64,
    },
}

/// The machine.
pub trait Mmu {
    /// Translates `ia` through stage 2, stage 1 being off: AT S12E1W or S12E1R.
    fn at_s12(&mut self, settings: &Stage2, is_write: bool, ia: u64) -> Walked;

    /// Translates `va` through EL2's stage 1: AT S1E2W or S1E2R.
    fn at_s1e2(&mut self, settings: &El2, is_write: bool, va: u64) -> Walked;

    /// Runs one instruction below EL2.
    fn run_lower(&mut self, settings: &Stage2, lower: Lower, run: Run) -> LowerExit;

    /// Executes at `va` at EL2, its vectors being at `vectors`: where those and `va` are mapped to is code made for it.
    fn run_el2(&mut self, settings: &El2, va: u64, vectors: u64) -> El2Exit;
}

impl Display for Stage2 {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { vtcr, vttbr, fwb, dc } = *self;
        write!(f, "VTCR_EL2 {vtcr:#x} VTTBR_EL2 {vttbr:#x} FWB {} DC {}", u8::from(fwb), u8::from(dc))
    }
}

impl Display for El2 {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { tcr, ttbr0, mair, e2h, wxn } = *self;
        write!(f, "TCR_EL2 {tcr:#x} TTBR0_EL2 {ttbr0:#x} MAIR_EL2 {mair:#x} ")?;
        write!(f, "E2H {} WXN {}", u8::from(e2h), u8::from(wxn))
    }
}
