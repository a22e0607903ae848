// SPDX-License-Identifier: MIT OR Apache-2.0
//! The real device: `/dev/s2dump`, its ioctls and its ring mapped read-only.
//!
//! Invariant: the mapping is only ever copied from, never handed out as a reference, because the kernel may write to it.
// UNSAFETY: issues ioctls, maps and reads memory the driver shares.
#![expect(unsafe_code, reason = "ioctl, mmap and reading the mapping have no safe form")]

use super::device::Session;
use super::SourceError;
use crate::frame::SlotBuffer;
use rustix::ioctl::{ioctl, Opcode, Updater};
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};
use s2dump_abi::ioctl::{Advance, Hello, Start, ADVANCE, HELLO, HELLO_1, START};
use std::fs::File;
use std::io;
use std::ptr::NonNull;

/// The path of the device.
pub(crate) const DEVICE_PATH: &str = "/dev/s2dump";

/// An open `/dev/s2dump`.
pub(crate) struct Ring {
    file: File,
    mapping: Option<Mapping>,
}

/// A mapping of the ring.
///
/// # Invariants
///
/// `base` points to `slots * slot_bytes` bytes that stay mapped and readable until drop. `slot_bytes` is no more than a
/// buffer has.
struct Mapping {
    base: NonNull<u8>,
    slots: u32,
    slot_bytes: usize,
}

impl Ring {
    /// Opens the device.
    pub(crate) fn open() -> Result<Self, SourceError> {
        let file = File::open(DEVICE_PATH).map_err(SourceError::Open)?;
        Ok(Self { file, mapping: None })
    }

    fn request<const OPCODE: Opcode, T>(&self, argument: &mut T) -> io::Result<()> {
        // SAFETY:
        // - The opcodes are those of `s2dump_abi::ioctl`, each called below with the struct whose size it encodes, so the
        //   driver reads and writes within `argument`.
        // - Those structs are plain integers: every value the driver writes is valid.
        unsafe { ioctl(&self.file, Updater::<OPCODE, T>::new(argument)) }?;
        Ok(())
    }
}

impl Session for Ring {
    fn hello(&mut self, hello: &mut Hello) -> io::Result<()> {
        self.request::<{ HELLO as Opcode }, Hello>(hello)
    }

    fn hello_1(&mut self, hello: &mut Hello) -> io::Result<()> {
        self.request::<{ HELLO_1 as Opcode }, Hello>(hello)
    }

    fn map(&mut self, slots: u32, slot_bytes: usize) -> io::Result<()> {
        if slot_bytes > size_of::<SlotBuffer>() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let length = slots as usize * slot_bytes;
        // SAFETY:
        // - A null hint without MAP_FIXED: the kernel picks unused addresses, no mapping of ours is replaced.
        let base = unsafe { mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, &self.file, 0) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        // INVARIANT: mmap succeeded for this length, and the size was checked.
        self.mapping = Some(Mapping { base, slots, slot_bytes });
        Ok(())
    }

    fn start(&mut self, start: &mut Start) -> io::Result<()> {
        self.request::<{ START as Opcode }, Start>(start)
    }

    fn advance(&mut self, advance: &mut Advance) -> io::Result<()> {
        self.request::<{ ADVANCE as Opcode }, Advance>(advance)
    }

    fn copy_slot(&self, index: u32, into: &mut SlotBuffer) -> bool {
        let Some(mapping) = self.mapping.as_ref().filter(|mapping| index < mapping.slots) else { return false };
        // SAFETY:
        // - By the invariant of `Mapping` and `index < slots`, `slot_bytes` bytes from here are mapped and readable, and
        //   `into` has room for them.
        // - `into` is ours, so the two do not overlap. No reference into the mapping is made; the driver has lent the
        //   slot, and if it wrote meanwhile the copy is only wrong, which the reader checks for.
        unsafe {
            let slot = mapping.base.as_ptr().add(index as usize * mapping.slot_bytes);
            std::ptr::copy_nonoverlapping(slot.cast_const(), into.as_mut_ptr(), mapping.slot_bytes);
        }
        true
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY:
        // - By the invariant, exactly this range is mapped, and no reference into it was ever made.
        let result = unsafe { munmap(self.base.as_ptr().cast(), self.slots as usize * self.slot_bytes) };
        debug_assert!(result.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file maps like the device: what is copied is the slot asked for, and nothing outside the mapping.
    #[test]
    fn copies_slots_of_the_mapping_only() {
        let path = std::env::temp_dir().join(format!("s2dump-ring-{}", std::process::id()));
        const BYTES: usize = 8192;
        let bytes: Vec<u8> = (0..3 * BYTES).map(|at| (at / BYTES) as u8).collect();
        std::fs::write(&path, bytes).unwrap();
        let mut ring = Ring { file: File::open(&path).unwrap(), mapping: None };
        std::fs::remove_file(path).unwrap();
        let mut slot = [0xaa; size_of::<SlotBuffer>()];
        assert!(!ring.copy_slot(0, &mut slot), "nothing is mapped yet");
        assert!(ring.map(1, 2 * size_of::<SlotBuffer>()).is_err(), "more than a buffer has");
        ring.map(2, BYTES).unwrap();
        assert!(ring.copy_slot(1, &mut slot));
        assert_eq!(slot[..BYTES], [1; BYTES]);
        assert!(slot[BYTES..].iter().all(|&byte| byte == 0xaa));
        assert!(!ring.copy_slot(2, &mut slot), "the file has a third slot, the mapping has not");
        // A file knows no ioctl of ours.
        assert!(ring.advance(&mut zerocopy::FromZeros::new_zeroed()).is_err());
    }
}
