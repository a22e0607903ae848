// SPDX-License-Identifier: GPL-2.0-only
//! Checks ioctl numbers and arguments before anything is done.
//!
//! It checks size, version and reserved fields first, then what is asked. It leaves ranges to EL2, which knows the
//! table.

use crate::errno::Errno;
use s2dump_abi::hypercall::{DumpFlags, Op};
use s2dump_abi::ioctl::{self, Advance, Hello, Start};
use s2dump_abi::target::{Identity, Place, Target, TargetKind, PLACES};
use s2dump_abi::version::{AbiVersion, ABI_VERSION};

/// Why an ioctl is refused before EL2 is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgumentError {
    /// Not a command of this device.
    UnknownCommand(u32),
    /// The argument is larger than the driver's.
    TooLarge(u32),
    /// The argument is smaller than the driver's.
    TooSmall(u32),
    /// The size in the command and the size in the argument differ.
    SizesDiffer {
        /// Size in the command number.
        command: u32,
        /// Size in the argument.
        argument: u32,
    },
    /// The caller speaks another major version.
    OtherVersion(u32),
    /// A field that must be zero for this operation is not.
    NotZero,
    /// The operation is not one that can be started.
    UnknownOp(u32),
    /// A flag this driver does not know, or any flag for an operation that takes none.
    UnknownFlag(u32),
    /// A kind of table this driver does not know.
    UnknownTarget(u64),
}

impl ArgumentError {
    /// Returns the errno of the ioctl.
    #[must_use]
    pub const fn to_errno(self) -> Errno {
        match self {
            Self::UnknownCommand(_) => Errno::ENOTTY,
            Self::TooLarge(_) => Errno::E2BIG,
            Self::TooSmall(_) | Self::SizesDiffer { .. } | Self::NotZero | Self::UnknownFlag(_) => Errno::EINVAL,
            Self::OtherVersion(_) => Errno::EPROTO,
            Self::UnknownOp(_) | Self::UnknownTarget(_) => Errno::EOPNOTSUPP,
        }
    }
}

/// A known ioctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// [`Hello`].
    Hello,
    /// [`Start`].
    Start,
    /// [`Advance`].
    Advance,
}

// An ioctl number: direction 31:30, size 29:16, type 15:8, number 7:0 (`asm-generic/ioctl.h`).
const SIZE_SHIFT: u32 = 16;
const SIZE_MASK: u32 = 0x3fff;

const fn without_size(command: u32) -> u32 {
    command & !(SIZE_MASK << SIZE_SHIFT)
}

impl Command {
    /// Recognizes an ioctl number, whatever argument size it carries, and checks that size.
    ///
    /// # Errors
    ///
    /// [`ArgumentError::UnknownCommand`], or [`TooLarge`](ArgumentError::TooLarge) and
    /// [`TooSmall`](ArgumentError::TooSmall) for a known command with another size.
    pub fn parse(command: u32) -> Result<Self, ArgumentError> {
        let (known, number) = match without_size(command) {
            n if n == without_size(ioctl::HELLO) => (Self::Hello, ioctl::HELLO),
            n if n == without_size(ioctl::START) => (Self::Start, ioctl::START),
            n if n == without_size(ioctl::ADVANCE) => (Self::Advance, ioctl::ADVANCE),
            _ => return Err(ArgumentError::UnknownCommand(command)),
        };
        let size = |n: u32| (n >> SIZE_SHIFT) & SIZE_MASK;
        check_size(size(command), size(number))?;
        Ok(known)
    }

    /// Returns whether `command` is [`Hello`] of any version, that is with an argument of at least 8 bytes. The driver
    /// writes its version into those even if it refuses the size.
    #[must_use]
    pub const fn is_hello(command: u32) -> bool {
        without_size(command) == without_size(ioctl::HELLO) && (command >> SIZE_SHIFT) & SIZE_MASK >= 8
    }
}

fn check_size(size: u32, known: u32) -> Result<(), ArgumentError> {
    match size {
        s if s > known => Err(ArgumentError::TooLarge(s)),
        s if s < known => Err(ArgumentError::TooSmall(s)),
        _ => Ok(()),
    }
}

fn check_prefix(size: u32, known: usize, version: u32) -> Result<(), ArgumentError> {
    check_size(size, u32::try_from(known).unwrap_or(u32::MAX))?;
    if ABI_VERSION.can_speak_to(AbiVersion::from_bits(version)) {
        Ok(())
    } else {
        Err(ArgumentError::OtherVersion(version))
    }
}

fn check_zero(all_zero: bool) -> Result<(), ArgumentError> {
    if all_zero {
        Ok(())
    } else {
        Err(ArgumentError::NotZero)
    }
}

/// Checks a [`Hello`]. Its out fields may hold anything.
///
/// # Errors
///
/// The size, the version, or a field that must be zero is wrong.
pub fn check_hello(hello: &Hello) -> Result<(), ArgumentError> {
    check_prefix(hello.size, size_of::<Hello>(), hello.version)?;
    check_zero(hello.reserved == [0; 6])
}

/// Checks an [`Advance`] and returns how many slots it gives back. Its out fields may hold anything.
///
/// # Errors
///
/// The size, the version, or a reserved field is wrong.
pub fn check_advance(advance: &Advance) -> Result<u32, ArgumentError> {
    check_prefix(advance.size, size_of::<Advance>(), advance.version)?;
    check_zero(advance.reserved == [0; 2])?;
    Ok(advance.release)
}

/// What a valid [`Start`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// All VMs.
    List,
    /// A range of a table.
    Dump {
        /// How to dump.
        flags: DumpFlags,
        /// Which table. A root of 0 means whichever the target names now.
        table: Identity,
        /// First input address.
        start: u64,
        /// End, exclusive. All ones means the whole space.
        end: u64,
        /// Descriptors per call. 0 means EL2's default.
        budget: u32,
    },
    /// One input address of a table, at each level.
    Walk {
        /// Which table. A root of 0 means whichever the target names now.
        table: Identity,
        /// The input address.
        address: u64,
    },
    /// What pKVM keeps about page frames.
    Frames {
        /// First physical address.
        start: u64,
        /// End, exclusive. All ones means the whole space.
        end: u64,
        /// Frames per call. 0 means EL2's default.
        budget: u32,
    },
    /// All facts.
    Facts,
    /// One page frame and some places at one moment.
    Examine {
        /// Physical address of the page frame.
        frame: u64,
        /// The places, as they came: EL2 checks them.
        places: [Place; PLACES],
    },
    /// The memory slots of a VM.
    Memory {
        /// Which, by its table. The root is 0: EL2 is not asked, so nobody could compare it.
        table: Identity,
    },
}

/// Checks a [`Start`].
///
/// # Errors
///
/// Any [`ArgumentError`] but an unknown command.
pub fn check_start(start: &Start) -> Result<Request, ArgumentError> {
    check_prefix(start.size, size_of::<Start>(), start.version)?;
    check_zero(start.reserved == [0; 2])?;
    let flags = DumpFlags(start.flags);
    let (has_table, has_range, has_places) =
        (start.target != 0 || start.root != 0, start.end != 0 || start.budget != 0, start.places != [0; PLACES]);
    match Op(start.op) {
        Op::LIST => {
            check_flags(flags, DumpFlags::default())?;
            check_zero(!has_table && start.start == 0 && !has_range && !has_places)?;
            Ok(Request::List)
        }
        Op::DUMP => {
            check_flags(flags, DumpFlags::KNOWN)?;
            if !flags.contains(DumpFlags::EXACT) {
                // Packed slots have no way to say that output addresses jump.
                check_flags(flags, DumpFlags(DumpFlags::KNOWN.0 & !DumpFlags::PACKED.0))?;
            }
            check_zero(!has_places)?;
            let table = table_of(start)?;
            Ok(Request::Dump { flags, table, start: start.start, end: start.end, budget: start.budget })
        }
        Op::WALK => {
            check_flags(flags, DumpFlags::default())?;
            check_zero(!has_range && !has_places)?;
            Ok(Request::Walk { table: table_of(start)?, address: start.start })
        }
        Op::FRAMES => {
            check_flags(flags, DumpFlags::default())?;
            check_zero(!has_table && !has_places)?;
            Ok(Request::Frames { start: start.start, end: start.end, budget: start.budget })
        }
        Op::FACTS => {
            check_flags(flags, DumpFlags::default())?;
            check_zero(!has_table && start.start == 0 && !has_range && !has_places)?;
            Ok(Request::Facts)
        }
        Op::EXAMINE => {
            check_flags(flags, DumpFlags::default())?;
            check_zero(!has_table && !has_range)?;
            Ok(Request::Examine { frame: start.start, places: start.places.map(Place) })
        }
        Op::MEMORY => {
            check_flags(flags, DumpFlags::default())?;
            check_zero(start.root == 0 && start.start == 0 && !has_range && !has_places)?;
            let table = table_of(start)?;
            // No other table has memory slots.
            match table.target.guest_handle() {
                Some(_) => Ok(Request::Memory { table }),
                None => Err(ArgumentError::UnknownTarget(start.target)),
            }
        }
        Op(unknown) => Err(ArgumentError::UnknownOp(unknown)),
    }
}

fn check_flags(flags: DumpFlags, allowed: DumpFlags) -> Result<(), ArgumentError> {
    if allowed.contains(flags) {
        Ok(())
    } else {
        Err(ArgumentError::UnknownFlag(flags.0 & !allowed.0))
    }
}

fn table_of(start: &Start) -> Result<Identity, ArgumentError> {
    let target = Target(start.target);
    check_zero(match target.kind() {
        TargetKind::GUEST_STAGE2 => target.guest_handle().is_some(),
        TargetKind::HOST_STAGE2 => target == Target::HOST,
        TargetKind::HYP_STAGE1 => target == Target::HYP,
        _ => return Err(ArgumentError::UnknownTarget(target.0)),
    })?;
    Ok(Identity { target, root: start.root })
}
