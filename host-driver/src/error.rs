// SPDX-License-Identifier: GPL-2.0-only
//! Why a system call on `/dev/s2dump` fails, and with which errno; or how a dump ended, and with which status.

use crate::argument::ArgumentError;
use crate::call::CallError;
use crate::errno::Errno;
use crate::ring::NotLent;
use s2dump_abi::hypercall::Status;

/// Why an ioctl or a read fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// The argument is refused; the session is as before.
    Argument(ArgumentError),
    /// More slots were given back than are lent.
    NotLent(NotLent),
    /// Nothing was started.
    NotStarted,
    /// This start is read the other way: by `read(2)`, or through the mapping.
    OtherReader,
    /// EL2 does not know the hypercall.
    NoHypercall,
    /// EL2 refused.
    Refused(Status),
    /// The kernel could not do its part.
    Host(Errno),
}

impl SessionError {
    /// Returns the errno of the system call.
    #[must_use]
    pub const fn to_errno(self) -> Errno {
        match self {
            Self::Argument(error) => error.to_errno(),
            Self::NotLent(_) | Self::NotStarted => Errno::EINVAL,
            Self::OtherReader => Errno::EBUSY,
            Self::NoHypercall => Errno::EOPNOTSUPP,
            Self::Refused(status) => Errno(status.to_errno()),
            Self::Host(errno) => errno,
        }
    }

    /// Returns the status beside the errno: [`Status::OK`] where not EL2 nor its protocol refused, but this kernel.
    #[must_use]
    pub const fn status_beside_errno(self) -> Status {
        match self {
            Self::Refused(status) => status,
            Self::NoHypercall => Status::UNKNOWN_OP,
            _ => Status::OK,
        }
    }

    /// Returns the status of the END slot, for a failure after the first call.
    #[must_use]
    pub const fn to_status(self) -> Status {
        match self {
            Self::Refused(status) => status,
            Self::NoHypercall => Status::UNKNOWN_OP,
            // What only callers cause does not get here.
            _ => Status::BAD_ANSWER,
        }
    }
}

impl From<ArgumentError> for SessionError {
    fn from(error: ArgumentError) -> Self {
        Self::Argument(error)
    }
}

impl From<NotLent> for SessionError {
    fn from(error: NotLent) -> Self {
        Self::NotLent(error)
    }
}

impl From<Errno> for SessionError {
    fn from(errno: Errno) -> Self {
        Self::Host(errno)
    }
}

impl From<CallError> for SessionError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NoHypercall(_) => Self::NoHypercall,
            CallError::Refused(status) => Self::Refused(status),
        }
    }
}
