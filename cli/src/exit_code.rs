// SPDX-License-Identifier: MIT OR Apache-2.0
//! The exit codes: part of the interface, listed in `--help` and tested.

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum ExitCode {
    /// Done, nothing found.
    Ok = 0,
    /// A check did not hold: the table changed (`--verify`), or what was read from an image is no table.
    Finding = 1,
    /// Wrong arguments, or reading or writing failed.
    UsageOrIo = 2,
    /// This kernel, hypervisor or machine cannot do it.
    Unsupported = 3,
    /// No VM is meant, or it has no table yet.
    NoSuchVm = 4,
    /// Not root, locked down, or a kernel that has s2dump was booted without `kvm-arm.s2dump=on`.
    NotPermitted = 5,
    /// Something was printed, but not everything there was.
    Partial = 6,
}

impl ExitCode {
    /// Returns the name used in JSON errors.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Finding => "finding",
            Self::UsageOrIo => "usage-or-io",
            Self::Unsupported => "unsupported",
            Self::NoSuchVm => "no-such-vm",
            Self::NotPermitted => "not-permitted",
            Self::Partial => "partial",
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::ExitCode::{self, *};

    #[test]
    fn codes_are_those_of_the_documentation() {
        let all: [(ExitCode, u8); 7] =
            [(Ok, 0), (Finding, 1), (UsageOrIo, 2), (Unsupported, 3), (NoSuchVm, 4), (NotPermitted, 5), (Partial, 6)];
        for (code, number) in all {
            assert_eq!(code as u8, number, "{}", code.name());
        }
    }
}
