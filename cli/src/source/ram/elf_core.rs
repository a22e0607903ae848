// SPDX-License-Identifier: MIT OR Apache-2.0
//! ELF cores of whole machines, as QEMU's `dump-guest-memory` writes them: which memory is where in the file.
//!
//! Not supported: compressed formats (kdump), and cores of processes, whose segments have no physical addresses.

use object::elf::{FileHeader64, ELFMAG, EM_AARCH64, ET_CORE, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, ReadCache};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Why an ELF file is not a core whose memory can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CoreError {
    /// The headers cannot be read.
    #[error("damaged ELF file: {0}")]
    Damaged(object::read::Error),
    /// Of another machine, or no core.
    #[error("not an ELF core of a 64-bit little-endian Arm machine")]
    OtherKind,
    /// It has no memory.
    #[error("an ELF core without memory")]
    NoMemory,
}

/// Memory in a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// First physical address.
    pub(crate) start: u64,
    /// How much of it is in the file, as the header says.
    pub(crate) bytes: u64,
    /// Where in the file.
    pub(crate) offset: u64,
}

/// Returns whether `file` begins like an ELF file.
pub(crate) fn is_elf(file: &File) -> io::Result<bool> {
    let mut magic = [0; 4];
    match file.read_exact_at(&mut magic, 0) {
        Ok(()) => Ok(magic == ELFMAG),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the memory of the core in `file`.
pub(crate) fn segments(file: &File) -> Result<Vec<Segment>, CoreError> {
    let data = ReadCache::new(file);
    let header = FileHeader64::<LittleEndian>::parse(&data).map_err(CoreError::Damaged)?;
    let is_little = header.e_ident.data == object::elf::ELFDATA2LSB && header.is_class_64();
    if !is_little || header.e_machine(LittleEndian) != EM_AARCH64 || header.e_type(LittleEndian) != ET_CORE {
        return Err(CoreError::OtherKind);
    }
    let headers = header.program_headers(LittleEndian, &data).map_err(CoreError::Damaged)?;
    let segments: Vec<Segment> = headers
        .iter()
        .filter(|header| header.p_type(LittleEndian) == PT_LOAD && header.p_filesz(LittleEndian) > 0)
        .map(|header| Segment {
            start: header.p_paddr(LittleEndian),
            bytes: header.p_filesz(LittleEndian),
            offset: header.p_offset(LittleEndian),
        })
        .collect();
    if segments.is_empty() {
        return Err(CoreError::NoMemory);
    }
    Ok(segments)
}
