// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where slots and tables in memory come from: the only modules that touch devices and files.

pub(crate) mod clock;
pub(crate) mod device;
pub(crate) mod file;
pub(crate) mod interrupts;
pub(crate) mod output_file;
pub(crate) mod ram;
pub(crate) mod ring;
pub(crate) mod system;

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::frame::{SlotBuffer, SlotFault};
use crate::model::target_name;
use ram::banks::BankError;
use s2dump_abi::hypercall::Status;
use s2dump_abi::target::Identity;
use s2dump_abi::version::{AbiVersion, ABI_VERSION};
use std::io;

/// What a source gives.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// A slot of so many bytes is in the buffer; only its frame was checked.
    Slot(usize),
    /// Bytes that are no slot.
    Damage {
        /// Where they begin.
        offset: u64,
        /// How many.
        bytes: u64,
        /// Why they are no slot.
        fault: SlotFault,
    },
    /// Nothing more.
    End,
}

/// A source of slots.
pub(crate) trait SlotSource {
    /// Puts the next slot into `into`.
    fn fetch(&mut self, into: &mut SlotBuffer) -> Result<Fetched, SourceError>;
}

impl<S: SlotSource> SlotSource for &mut S {
    fn fetch(&mut self, into: &mut SlotBuffer) -> Result<Fetched, SourceError> {
        (**self).fetch(into)
    }
}

/// Why a source failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// A file cannot be opened or read.
    #[error("{0}: {1}")]
    File(String, io::Error),
    /// The file is written in a format of another major version.
    #[error("{0}: {1}")]
    Format(String, SlotFault),
    /// The file has no slot.
    #[error("{0}: not an s2dump capture")]
    NotACapture(String),
    /// The device cannot be opened.
    #[error("/dev/s2dump: {0}")]
    Open(io::Error),
    /// The kernel refused a request.
    #[error("/dev/s2dump: {request}: {error}")]
    Request {
        /// Which.
        request: &'static str,
        /// How.
        error: io::Error,
    },
    /// EL2, or the driver for it, refused a request.
    #[error("/dev/s2dump: refused with status {}", .0.0)]
    Refused(Status),
    /// The driver speaks another major version.
    #[error(
        "/dev/s2dump: the driver of this kernel speaks version {}.{} of the ABI, this s2dump {}.{}",
        .0.major, .0.minor, ABI_VERSION.major, ABI_VERSION.minor
    )]
    DriverVersion(AbiVersion),
    /// What answers there knows none of our requests.
    #[error("/dev/s2dump: what answers there is no driver of s2dump that this version knows")]
    NotTheDriver,
    /// A slot is of a table that was not asked for.
    #[error(
        "{}: the VM went away: its handle now names a VM with its root at {:#x}, where {:#x} was asked for",
        target_name(.asked.target), .found.root, .asked.root
    )]
    AnotherTable {
        /// The table that was asked for.
        asked: Identity,
        /// The table that the slot is of.
        found: Identity,
    },
    /// A signal came.
    #[error("interrupted before all was read")]
    Interrupted,
    /// The driver gave an answer that makes no sense.
    #[error("/dev/s2dump: the driver's answer to {0} makes no sense: {1}")]
    Driver(&'static str, String),
    /// An image of memory cannot be opened.
    #[error(transparent)]
    Bank(#[from] BankError),
    /// Memory that is in an image cannot be read.
    #[error("{0}")]
    Ram(io::Error),
    /// Tables of an image lead to more descriptors than it can hold.
    #[error(
        "stopped at input address {0:#x}: the tables lead to several times the descriptors that the memory given can \
             hold, so many entries share a few tables"
    )]
    Shared(u64),
    /// The root, or a part of it, is not in the images.
    #[error("{register}: the root table at {root:#x} is not in the memory given ({memory}){}", at_part(*.root, *.part))]
    RootOutside {
        /// The register that tells where the root is, with its value.
        register: String,
        /// Where it begins.
        root: u64,
        /// The page that is missing.
        part: u64,
        /// What memory there is.
        memory: String,
    },
}

/// Says which page of a root that begins in memory is missing.
fn at_part(root: u64, part: u64) -> String {
    if part <= root {
        String::new()
    } else {
        format!(" from {part:#x} on")
    }
}

/// Linux errno values by which the kernel's refusals are told apart.
mod errno {
    pub(super) const EPERM: i32 = 1;
    pub(super) const ENOENT: i32 = 2;
    pub(super) const ENXIO: i32 = 6;
    pub(super) const EACCES: i32 = 13;
    pub(super) const ENODEV: i32 = 19;
    pub(super) const E2BIG: i32 = 7;
    pub(super) const EINVAL: i32 = 22;
    pub(super) const ENOTTY: i32 = 25;
}

/// Returns whether the driver is there, and was not turned on at boot.
fn is_off() -> bool {
    let system = system::System::read();
    system.is_off(system.read_config())
}

impl SourceError {
    /// Returns the status that says the same of a table.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Refused(status) => *status,
            Self::AnotherTable { .. } => Status::VM_GONE,
            _ => Status::BAD_ANSWER,
        }
    }

    /// Says it for people; `target` is the table that was asked for.
    pub(crate) fn into_failure(self, target: &str) -> Failure {
        match &self {
            Self::File(..) | Self::Driver(..) | Self::Bank(_) | Self::Ram(_) | Self::Shared(_) => {
                Failure::new(ExitCode::UsageOrIo, self)
            }
            // The rest of the table is there.
            Self::RootOutside { root, part, .. } if part > root => Failure::new(ExitCode::Partial, self),
            Self::RootOutside { .. } => Failure::new(ExitCode::UsageOrIo, self)
                .hint("name the file that has it with --ram FILE@BASE; is the value of the register right?"),
            Self::NotACapture(_) => {
                Failure::new(ExitCode::UsageOrIo, self).hint("captures are made by `s2dump capture -O FILE`")
            }
            Self::Format(..) => Failure::new(ExitCode::UsageOrIo, self).hint("read it with the s2dump that wrote it"),
            Self::Open(error) => match error.raw_os_error() {
                Some(errno::ENOENT | errno::ENODEV | errno::ENXIO) if is_off() => {
                    Failure::new(ExitCode::NotPermitted, "s2dump is off: it was not asked for at boot")
                        .hint("boot with kvm-arm.s2dump=on on the kernel command line")
                }
                Some(errno::ENOENT | errno::ENODEV | errno::ENXIO) => Failure::new(
                    ExitCode::Unsupported,
                    "/dev/s2dump is not there: this kernel has no s2dump, or pKVM is not running",
                )
                .hint("`s2dump probe` tells what is missing; a capture is read by -i FILE anywhere"),
                Some(errno::EACCES | errno::EPERM) => Failure::new(ExitCode::NotPermitted, &self)
                    .hint("run as root; kernel lockdown in confidentiality mode also refuses"),
                _ => Failure::new(ExitCode::UsageOrIo, self),
            },
            Self::Refused(status) => Failure::from_status(*status, target),
            Self::DriverVersion(_) => {
                Failure::new(ExitCode::Unsupported, self).hint("use the s2dump that was built with this kernel")
            }
            Self::NotTheDriver => Failure::new(ExitCode::Unsupported, self).hint("see `s2dump probe`"),
            Self::Interrupted => Failure::new(ExitCode::Partial, self),
            Self::AnotherTable { .. } => Failure::new(ExitCode::Partial, self)
                .hint("see `s2dump list`; what was printed before, if anything was, is of the VM that was asked for"),
            Self::Request { error, .. } => match error.raw_os_error() {
                Some(errno::EPERM | errno::EACCES) => Failure::new(ExitCode::NotPermitted, &self)
                    .hint("run as root; kernel lockdown in confidentiality mode also refuses"),
                Some(errno::E2BIG | errno::EINVAL) => Failure::new(ExitCode::Unsupported, &self)
                    .hint("the driver expects another request: use the s2dump that was built with this kernel"),
                _ => Failure::new(ExitCode::UsageOrIo, self),
            },
        }
    }
}
