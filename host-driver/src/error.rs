// SPDX-License-Identifier: GPL-2.0-only
//! Why a system call on `/dev/s2dump` fails, and which errno and which status that gives.

use crate::argument::ArgumentError;
use crate::call::CallError;
use crate::errno::Errno;
use crate::ring::NotLent;
use s2dump_abi::hypercall::Status;

/// Why an ioctl or a read fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// The argument is refused. The session is as it was before.
    Argument(ArgumentError),
    /// More slots were given back than are lent.
    NotLent(NotLent),
    /// Nothing was started.
    NotStarted,
    /// The slots of this start are already read in the other way: by `read(2)`, or through the mapping.
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

    /// Returns the status that goes with the errno. It is [`Status::OK`] if this kernel refused, and neither EL2 nor
    /// its protocol.
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
            // Errors that only a caller causes do not get here.
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
