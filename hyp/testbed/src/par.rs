// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! PAR_EL1, as expected and as read. Arm ARM DDI 0487, "PAR_EL1"; AArch64_EncodePAR.

use core::fmt::{Display, Formatter, Result};
use s2dump_vmsa::fault::Fault;
use s2dump_vmsa::Level;

/// What a translation ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An address.
    Mapped {
        /// The output address.
        pa: u64,
        /// Memory type, as a byte of MAIR.
        attr: u8,
        /// Shareability, as bits 9:8 of a descriptor.
        sh: u8,
    },
    /// A fault.
    Fault {
        /// Its status code.
        status: u8,
        /// It is stage 2's.
        is_stage2: bool,
    },
    /// The walk meets no memory in the table of this level.
    Abort {
        /// Status code: external abort on the walk, and the level.
        status: u8,
    },
}

impl Outcome {
    /// Returns a fault.
    #[must_use]
    pub const fn fault(fault: Fault, level: Level, is_stage2: bool) -> Self {
        Self::Fault { status: fault.status_code(level), is_stage2 }
    }

    /// Returns an external abort on a walk, reading a table of `level`.
    #[must_use]
    pub const fn abort(level: Level) -> Self {
        Self::Abort { status: (0x14 + level.get()) as u8 }
    }

    /// Decodes PAR_EL1.
    #[must_use]
    pub const fn from_par(par: u64) -> Self {
        if par & 1 == 0 {
            let pa = par & 0x000f_ffff_ffff_f000;
            Self::Mapped { pa, attr: (par >> 56) as u8, sh: (par >> 7 & 0b11) as u8 }
        } else {
            Self::Fault { status: (par >> 1 & 0x3f) as u8, is_stage2: par >> 9 & 1 != 0 }
        }
    }

    /// Decodes ESR of an abort.
    #[must_use]
    pub const fn from_abort(esr: u64) -> Self {
        Self::Abort { status: (esr & 0x3f) as u8 }
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Mapped { pa, attr, sh } => write!(f, "address {pa:#x} ATTR {attr:#04x} SH {sh}"),
            Self::Fault { status, is_stage2: true } => write!(f, "stage-2 fault, status {status:#04x}"),
            Self::Fault { status, is_stage2: false } => write!(f, "stage-1 fault, status {status:#04x}"),
            Self::Abort { status } => write!(f, "external abort on the walk, status {status:#04x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_par_of_both_forms() {
        let mapped = Outcome::Mapped { pa: 0x8_0000_1234_5000, attr: 0xff, sh: 3 };
        assert_eq!(Outcome::from_par(0xff08_0000_1234_5b80), mapped);
        let fault = Outcome::fault(Fault::Translation, Level::L2, true);
        assert_eq!(Outcome::from_par(0xa0d), Outcome::Fault { status: 0x06, is_stage2: true });
        assert_eq!(Outcome::from_par(0xa0d), fault);
    }

    #[test]
    fn good_abort_levels() {
        assert_eq!(Outcome::abort(Level::MINUS_1), Outcome::from_abort(0x9600_0153));
        assert_eq!(Outcome::abort(Level::L3), Outcome::from_abort(0x9600_0157));
    }
}
