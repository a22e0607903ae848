// SPDX-License-Identifier: GPL-2.0-only
//! The errnos with which the driver answers.

/// A positive Linux errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// Argument list too long: an argument is larger than the driver's.
    pub const E2BIG: Self = Self(7);
    /// Bad address: memory of the caller is not there.
    pub const EFAULT: Self = Self(14);
    /// Device or resource busy: the other way of reading is in use.
    pub const EBUSY: Self = Self(16);
    /// Invalid argument.
    pub const EINVAL: Self = Self(22);
    /// Inappropriate ioctl for device.
    pub const ENOTTY: Self = Self(25);
    /// Protocol error: another major version.
    pub const EPROTO: Self = Self(71);
    /// Operation not supported: EL2 lacks the hypercall, or the operation or target is unknown.
    pub const EOPNOTSUPP: Self = Self(95);
}
