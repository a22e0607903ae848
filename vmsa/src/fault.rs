// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! How the MMU answers when it does not translate, as Arm names it and as ESR_ELx and PAR_EL1 number it.

use crate::level::Level;

/// A kind of MMU fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// An address of more bits than the output size has.
    AddressSize,
    /// No valid descriptor.
    Translation,
    /// A leaf without access flag.
    AccessFlag,
    /// A leaf that does not allow the access.
    Permission,
}

impl Fault {
    /// Returns the fault status code (DFSC, IFSC, FST) of this fault at `level`.
    ///
    /// A leaf never stands in level -1, so only the first two have a code there.
    #[must_use]
    pub const fn status_code(self, level: Level) -> u8 {
        let (first, minus_1) = match self {
            Self::AddressSize => (0x00, 0x29),
            Self::Translation => (0x04, 0x2b),
            Self::AccessFlag => (0x08, 0x08),
            Self::Permission => (0x0c, 0x0c),
        };
        match level.get() {
            level @ 0..=3 => first + level as u8,
            _ => minus_1,
        }
    }
}

/// What somebody wants to do with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Load.
    Read,
    /// Store.
    Write,
    /// Fetch an instruction.
    Execute,
}

/// Who wants to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Privilege {
    /// EL1 at stage 2, EL2 at EL2's stage 1.
    Privileged,
    /// EL0.
    Unprivileged,
}

/// What is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rights {
    /// Loads.
    pub read: bool,
    /// Stores.
    pub write: bool,
    /// Instruction fetches.
    pub execute: bool,
}

impl Rights {
    /// Returns whether `access` is allowed.
    #[must_use]
    pub const fn allow(self, access: Access) -> bool {
        match access {
            Access::Read => self.read,
            Access::Write => self.write,
            Access::Execute => self.execute,
        }
    }
}
