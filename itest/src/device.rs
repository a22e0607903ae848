// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/dev/s2dump` without the s2dump program: the ABI as it is, asked as the ABI says, or otherwise.

// UNSAFETY: ioctls and a mapping of the ring.
#![expect(unsafe_code, reason = "ioctls and a mapping")]

use crate::dump::Dump;
use anyhow::{ensure, Context as _, Result};
use rustix::io::Errno;
use rustix::ioctl::{ioctl, Ioctl, IoctlOutput, Opcode};
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};
use s2dump_abi::hypercall::{Op, Status};
use s2dump_abi::ioctl::{Advance, Hello, SessionState, Start, ADVANCE, HELLO, START};
use s2dump_abi::slot::{SlotHeader, SLOT_BYTES};
use s2dump_abi::target::Target;
use s2dump_abi::version::ABI_VERSION;
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout};

/// The device node.
pub const PATH: &str = "/dev/s2dump";

/// An ioctl whose number and argument need not belong together: the driver must survive that.
struct Raw<'a> {
    command: u32,
    argument: &'a mut [u8],
}

// SAFETY:
// - The driver writes at most the size in the command number, which callers keep within `argument` (`call` checks).
// - Nothing is returned but success.
unsafe impl Ioctl for Raw<'_> {
    type Output = ();
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.command
    }

    fn as_ptr(&mut self) -> *mut core::ffi::c_void {
        self.argument.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut core::ffi::c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

/// Returns the bytes of a slot in the ring of this kernel.
#[must_use]
pub fn slot_bytes() -> usize {
    rustix::param::page_size().max(SLOT_BYTES)
}

/// An open device.
#[derive(Debug)]
pub struct Device {
    /// The file, for what the tests do to it.
    pub file: File,
}

/// What a [`Start`] asks for, ready to be changed by a test.
#[must_use]
pub fn dump_request(handle: u16) -> Start {
    Start {
        size: size_of::<Start>() as u32,
        version: ABI_VERSION.to_bits(),
        op: Op::DUMP.0,
        target: Target::guest(handle).0,
        end: u64::MAX,
        ..Start::new_zeroed()
    }
}

impl Device {
    /// Opens the device for reading.
    ///
    /// # Errors
    ///
    /// The errno of open(2).
    pub fn open() -> Result<Self, Errno> {
        Self::open_with(OpenOptions::new().read(true))
    }

    /// Opens the device as `options` say.
    ///
    /// # Errors
    ///
    /// The errno of open(2).
    pub fn open_with(options: &OpenOptions) -> Result<Self, Errno> {
        let file = options.open(PATH).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        Ok(Self { file })
    }

    /// Makes an ioctl with any number on any bytes.
    ///
    /// # Errors
    ///
    /// The errno of ioctl(2).
    ///
    /// # Panics
    ///
    /// If the number says that the argument is larger than it is.
    pub fn raw_ioctl(&self, command: u32, argument: &mut [u8]) -> Result<(), Errno> {
        const SIZE_MASK: u32 = 0x3fff;
        assert!(((command >> 16) & SIZE_MASK) as usize <= argument.len(), "the kernel would write past the argument");
        // SAFETY: the contract of `Raw`, checked above.
        unsafe { ioctl(&self.file, Raw { command, argument }) }
    }

    fn ioctl<T: IntoBytes + FromBytes + Immutable + KnownLayout>(
        &self,
        command: u32,
        argument: &mut T,
    ) -> Result<(), Errno> {
        self.raw_ioctl(command, argument.as_mut_bytes())
    }

    /// Says hello.
    ///
    /// # Errors
    ///
    /// The errno of the ioctl.
    pub fn hello(&self) -> Result<Hello, Errno> {
        let mut hello =
            Hello { size: size_of::<Hello>() as u32, version: ABI_VERSION.to_bits(), ..Hello::new_zeroed() };
        self.ioctl(HELLO, &mut hello)?;
        Ok(hello)
    }

    /// Starts.
    ///
    /// # Errors
    ///
    /// The errno of the ioctl.
    pub fn start(&self, start: &Start) -> Result<(), Errno> {
        self.ioctl(START, &mut start.clone())
    }

    /// Starts, and tells the status beside the errno too.
    ///
    /// The status is [`Status::OK`] if the start went well, or the kernel refused for a reason of its own.
    pub fn start_telling(&self, start: &mut Start) -> (Result<(), Errno>, Status) {
        let result = self.ioctl(START, start);
        (result, Status(start.status))
    }

    /// Gives back `release` slots and has others filled.
    ///
    /// # Errors
    ///
    /// The errno of the ioctl.
    pub fn advance(&self, release: u32) -> Result<Advance, Errno> {
        let mut advance = Advance {
            size: size_of::<Advance>() as u32,
            version: ABI_VERSION.to_bits(),
            release,
            ..Advance::new_zeroed()
        };
        self.ioctl(ADVANCE, &mut advance)?;
        Ok(advance)
    }

    /// Maps the ring read-only.
    ///
    /// # Errors
    ///
    /// The errno of mmap(2) or of hello.
    pub fn map(&self) -> Result<Mapping, Errno> {
        let hello = self.hello()?;
        let length = hello.slots as usize * hello.slot_bytes as usize;
        self.map_as(length, ProtFlags::READ)
    }

    /// Maps `length` bytes with any rights.
    ///
    /// # Errors
    ///
    /// The errno of mmap(2).
    pub fn map_as(&self, length: usize, rights: ProtFlags) -> Result<Mapping, Errno> {
        // SAFETY: no address is asked for, so no existing mapping is replaced.
        let start = unsafe { mmap(core::ptr::null_mut(), length, rights, MapFlags::SHARED, &self.file, 0) }?;
        Ok(Mapping { start, length })
    }

    /// Dumps (or walks, or lists) through the mapping, to the END slot.
    ///
    /// # Errors
    ///
    /// The errno of the start, as [`StartRefused`], or anything that is not as the ABI says.
    pub fn run(&self, start: &Start) -> Result<Dump> {
        self.run_with(start, || Ok(()))
    }

    /// Does likewise, with `meanwhile` between the first call, which the start makes, and the others.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), and what `meanwhile` returns.
    pub fn run_with(&self, start: &Start, meanwhile: impl FnOnce() -> Result<()>) -> Result<Dump> {
        let mapping = self.map().context("mapping the ring")?;
        self.start(start).map_err(StartRefused)?;
        meanwhile()?;
        let slots = mapping.length / slot_bytes();
        let mut dump = Dump::default();
        let mut release = 0;
        loop {
            let advance = self.advance(release).context("ADVANCE")?;
            ensure!(advance.filled > 0, "ADVANCE filled no slot, and no END slot came");
            for n in 0..advance.filled as usize {
                dump.push(&mapping.slot((advance.first as usize + n) % slots)?)?;
            }
            release = advance.filled;
            if dump.end.is_some() {
                ensure!(advance.state == SessionState::DONE, "an END slot, but the state is {}", advance.state);
                self.advance(release).context("giving back the last slots")?;
                return Ok(dump);
            }
        }
    }

    /// Does the same through read(2).
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_by_read(&mut self, start: &Start) -> Result<Dump> {
        self.start(start).map_err(StartRefused)?;
        let mut dump = Dump::default();
        // Room for a few slots: a read gives whole ones only.
        let mut buffer = vec![0; 3 * slot_bytes()];
        loop {
            let length = self.file.read(&mut buffer).context("read(2)")?;
            let mut rest = &buffer[..length];
            if rest.is_empty() {
                return Ok(dump);
            }
            while !rest.is_empty() {
                let (header, _) = SlotHeader::ref_from_prefix(rest).ok().context("a cut header")?;
                let used = header.used_bytes().context("a wrong header")?;
                let (slot, after) = rest.split_at_checked(used).context("a cut slot")?;
                dump.push(slot)?;
                rest = after;
            }
        }
    }
}

/// The driver refused a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartRefused(pub Errno);

impl std::fmt::Display for StartRefused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "START: {}", self.0)
    }
}

impl std::error::Error for StartRefused {}

/// A mapping of the ring.
#[derive(Debug)]
pub struct Mapping {
    start: *mut core::ffi::c_void,
    length: usize,
}

impl Mapping {
    /// Tries to change the rights of the whole mapping.
    ///
    /// # Errors
    ///
    /// The errno of mprotect(2).
    pub fn protect(&self, rights: rustix::mm::MprotectFlags) -> Result<(), Errno> {
        // SAFETY: exactly this mapping; only `slot` reads it, by copies.
        unsafe { rustix::mm::mprotect(self.start, self.length, rights) }
    }

    /// Copies a slot.
    ///
    /// # Errors
    ///
    /// If it is outside the mapping.
    pub fn slot(&self, index: usize) -> Result<Vec<u8>> {
        ensure!((index + 1) * slot_bytes() <= self.length, "slot {index} is outside the ring");
        let mut page = vec![0; slot_bytes()];
        // SAFETY:
        // - The slot is inside the live mapping (checked above), `page` is a slot long; they do not overlap.
        // - The driver does not write lent slots before they are given back.
        unsafe {
            let slot = self.start.cast::<u8>().add(index * slot_bytes());
            core::ptr::copy_nonoverlapping(slot, page.as_mut_ptr(), slot_bytes());
        }
        Ok(page)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `map_as`, to which no reference exists.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}
