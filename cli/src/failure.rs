// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a person is told when something fails: what, on what, what to do; and the exit code.

use crate::exit_code::ExitCode;
use s2dump_abi::hypercall::Status;
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, Write};

/// A failure ready to be reported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// The exit code that says it.
    pub(crate) code: ExitCode,
    /// What failed, on what.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// Makes a failure without a hint.
    pub(crate) fn new(code: ExitCode, message: impl Display) -> Self {
        Self { code, message: message.to_string(), hint: None }
    }

    /// Adds what to do.
    pub(crate) fn hint(self, hint: impl Display) -> Self {
        Self { hint: Some(hint.to_string()), ..self }
    }

    /// Makes a failure of reading or writing `what`.
    pub(crate) fn io(what: impl Display, error: &io::Error) -> Self {
        Self::new(ExitCode::UsageOrIo, format_args!("{what}: {error}"))
    }

    /// Says what a status other than OK means for the table named `target`.
    pub(crate) fn from_status(status: Status, target: &str) -> Self {
        use ExitCode::{NoSuchVm, NotPermitted, Partial, Unsupported, UsageOrIo};
        let (code, message, hint) = match status {
            Status::NOT_PERMITTED => {
                (NotPermitted, "EL2 refuses: s2dump was not enabled at boot".into(), "boot with kvm-arm.s2dump=on")
            }
            Status::UNKNOWN_OP | Status::UNKNOWN_FLAG => (
                Unsupported,
                "EL2 does not know this operation or option".into(),
                "see `s2dump probe` for what this kernel has",
            ),
            Status::UNKNOWN_TARGET => (
                Unsupported,
                format!("{target}: EL2 of this kernel cannot dump this kind of table"),
                "see the features that `s2dump probe` tells; a kernel with a later s2dump has it",
            ),
            Status::HYP_NOT_PERMITTED => (
                NotPermitted,
                "EL2 refuses: its own table was not enabled at boot, because it shows how EL2 lays out its memory"
                    .into(),
                "boot with kvm-arm.s2dump=on,hyp",
            ),
            Status::NO_SUCH_VM => (NoSuchVm, format!("{target}: no such VM"), "see `s2dump list`"),
            Status::VM_NOT_RUN => (
                NoSuchVm,
                format!("{target}: this VM never ran, so EL2 has no table for it yet"),
                "run a vCPU of it first",
            ),
            Status::BAD_RANGE => (
                UsageOrIo,
                format!("{target}: the range is not page aligned, empty, or outside the input addresses of the table"),
                "see the IPA column of `s2dump list` for the size of the address space",
            ),
            Status::TOO_BIG => (
                Unsupported,
                format!("{target}: too big for one atomic call (65536 descriptors, 124 runs)"),
                "narrow it with --range, drop --exact, or use --verify in place of --atomic",
            ),
            Status::VERSION_MISMATCH => (
                Unsupported,
                "EL2 and the driver of this kernel speak different versions".into(),
                "build the kernel again: both are parts of it",
            ),
            Status::BAD_GEOMETRY => (
                Unsupported,
                format!("{target}: the walker does not handle this table's geometry (VTCR_EL2, or TCR_EL2 of hyp)"),
                "see docs/abi.md",
            ),
            Status::BAD_ANSWER => {
                (UsageOrIo, format!("{target}: EL2 gave an answer the driver does not take: a bug"), "please report it")
            }
            Status::VM_GONE => {
                (Partial, format!("{target}: the VM went away during the dump"), "what was printed is what it had")
            }
            Status::VM_DYING => (
                Partial,
                format!("{target}: INCOMPLETE: the VM is being torn down, so pages that it had may be missing"),
                "what was printed is what was left",
            ),
            Status::ATOMIC_NOT_PERMITTED => (
                NotPermitted,
                "EL2 refuses: atomic dumps were not enabled at boot, because they hold a lock for long".into(),
                "boot with kvm-arm.s2dump=on,atomic, or use --verify in place of --atomic",
            ),
            Status::SLOT_NOT_SHARED => (
                UsageOrIo,
                "EL2 could not use the driver's memory (SLOT_NOT_SHARED): a driver bug".into(),
                "please report it",
            ),
            Status(other) => {
                (UsageOrIo, format!("{target}: EL2 or the driver answered status {other}, unknown to this s2dump"), "")
            }
        };
        let failure = Self::new(code, message);
        if hint.is_empty() {
            failure
        } else {
            failure.hint(hint)
        }
    }

    /// Writes it, as JSON if the user asked for JSON output.
    pub(crate) fn report(&self, to: &mut dyn Write, json: bool) -> io::Result<()> {
        if json {
            #[derive(Serialize)]
            struct Error<'a> {
                r#type: &'static str,
                code: u8,
                name: &'static str,
                message: &'a str,
                #[serde(skip_serializing_if = "Option::is_none")]
                hint: Option<&'a str>,
            }
            let error = Error {
                r#type: "error",
                code: self.code as u8,
                name: self.code.name(),
                message: &self.message,
                hint: self.hint.as_deref(),
            };
            serde_json::to_writer(&mut *to, &error)?;
            return writeln!(to);
        }
        writeln!(to, "s2dump: {}", self.message)?;
        match &self.hint {
            Some(hint) => writeln!(to, "  hint: {hint}"),
            None => Ok(()),
        }
    }
}
