// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! The version of the ABI. The first call on each border agrees on it.

/// A version. Additive changes raise `minor`, all others raise `major`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbiVersion {
    /// Readers refuse a `major` they do not know.
    pub major: u16,
    /// Readers accept any `minor` and skip what they do not know.
    pub minor: u16,
}

impl AbiVersion {
    /// Packs as `major << 16 | minor`, the form in registers and headers.
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        ((self.major as u32) << 16) | self.minor as u32
    }

    /// Unpacks any value.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self { major: (bits >> 16) as u16, minor: (bits & 0xffff) as u16 }
    }

    /// Returns whether a peer of version `other` understands what `self` asks.
    #[must_use]
    pub const fn can_speak_to(self, other: Self) -> bool {
        self.major == other.major
    }

    /// Returns whether slots written by version `other` can be read. Those of older versions can: they have zeros where
    /// a later one added fields.
    #[must_use]
    pub const fn can_read(self, other: Self) -> bool {
        other.major >= 1 && other.major <= self.major
    }
}

/// The version this source speaks. Changes, newest first:
///
/// - 3.0: the host's stage 2 and EL2's stage 1; frames, facts and examinations; packed records, and slots of several
///   pages; a start has room for places; a hello tells the page size; headers have MAIR_EL2; memory slots of VMs;
///   captures tell where they were made, and names of input addresses.
/// - 2.0: a start names the root of its table too, so it can mean only one table; slots tell whether the VM is dying
///   and for how long the lock was held; a refused ioctl gives its [`Status`](crate::hypercall::Status) beside the
///   errno; the ioctl type byte is another.
/// - 1.1: runs of EL2's stage 1 tell which bits they inherit from the tables above
///   ([`record_flags::INHERITED`](crate::slot::record_flags::INHERITED)).
/// - 1.0: hello, list, dump, walk; guest stage-2 tables.
pub const ABI_VERSION: AbiVersion = AbiVersion { major: 3, minor: 0 };

/// What EL2 can do, and the driver: bits of the answers to hello. Unknown bits are ignored.
pub mod features {
    /// Dumps whose runs end at each jump of the output address
    /// ([`DumpFlags::EXACT`](crate::hypercall::DumpFlags::EXACT)).
    pub const EXACT: u64 = 1 << 0;
    /// Dumps in one call ([`DumpFlags::ATOMIC`](crate::hypercall::DumpFlags::ATOMIC)). Set only if the boot allowed
    /// them.
    pub const ATOMIC: u64 = 1 << 1;
    /// Digests of the descriptors read ([`DumpFlags::DIGEST`](crate::hypercall::DumpFlags::DIGEST)).
    pub const DIGEST: u64 = 1 << 2;
    /// Table pages told by dumps ([`DumpFlags::TABLES`](crate::hypercall::DumpFlags::TABLES)).
    pub const TABLES: u64 = 1 << 3;
    /// Packed dumps ([`DumpFlags::PACKED`](crate::hypercall::DumpFlags::PACKED)).
    pub const PACKED: u64 = 1 << 4;
    /// States of page frames ([`Op::FRAMES`](crate::hypercall::Op::FRAMES)).
    pub const FRAMES: u64 = 1 << 5;
    /// Facts about memory and EL2 ([`Op::FACTS`](crate::hypercall::Op::FACTS)).
    pub const FACTS: u64 = 1 << 6;
    /// One page looked at everywhere at once ([`Op::EXAMINE`](crate::hypercall::Op::EXAMINE)).
    pub const EXAMINE: u64 = 1 << 7;
    /// Guest stage-2 tables ([`TargetKind::GUEST_STAGE2`](crate::target::TargetKind::GUEST_STAGE2)).
    pub const GUEST_STAGE2: u64 = 1 << 8;
    /// The host's stage-2 table ([`TargetKind::HOST_STAGE2`](crate::target::TargetKind::HOST_STAGE2)).
    pub const HOST_STAGE2: u64 = 1 << 9;
    /// EL2's stage-1 table ([`TargetKind::HYP_STAGE1`](crate::target::TargetKind::HYP_STAGE1)). Set only if the boot
    /// allowed it.
    pub const HYP_STAGE1: u64 = 1 << 10;
    /// Memory slots of VMs ([`Op::MEMORY`](crate::hypercall::Op::MEMORY)). The driver adds it to what EL2 says.
    pub const MEMORY: u64 = 1 << 32;
}
