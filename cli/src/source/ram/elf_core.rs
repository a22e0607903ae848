// SPDX-License-Identifier: MIT OR Apache-2.0
//! ELF cores of whole machines, as QEMU's `dump-guest-memory` writes them: which memory is where in the file.
//!
//! Not supported: compressed formats (kdump), cores of processes, whose segments have no physical addresses, and more
//! than 65534 segments. The few fields that are needed are read by hand, which
//! saves a crate.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Why an ELF file is not a core whose memory can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CoreError {
    /// The headers cannot be read.
    #[error("damaged ELF core: {}", short_read(.0))]
    Damaged(io::Error),
    /// Program headers are of another size, or too many to be counted in the header.
    #[error("an ELF core with {0} program headers of {1} bytes, which is not understood")]
    Headers(u16, u16),
    /// Of another machine, or no core.
    #[error("not an ELF core of a 64-bit little-endian Arm machine")]
    OtherKind,
    /// It has no memory.
    #[error("an ELF core without memory")]
    NoMemory,
}

/// Says that a file is shorter than it was, or than its headers say.
pub(super) fn short_read(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the file is too short".into(),
        _ => error.to_string(),
    }
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
        Ok(()) => Ok(magic == *b"\x7fELF"),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the memory of the core in `file`.
pub(crate) fn segments(file: &File) -> Result<Vec<Segment>, CoreError> {
    const HEADER_BYTES: usize = 64;
    const PROGRAM_HEADER_BYTES: u16 = 56;
    /// 64-bit, little-endian.
    const CLASS_AND_DATA: [u8; 2] = [2, 1];
    const ET_CORE: u16 = 4;
    const EM_AARCH64: u16 = 183;
    const PN_XNUM: u16 = 0xffff;
    const PT_LOAD: u32 = 1;

    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0).map_err(CoreError::Damaged)?;
    let half = |at| u16::from_le_bytes(field(&header, at));
    if field(&header, 4) != CLASS_AND_DATA || half(16) != ET_CORE || half(18) != EM_AARCH64 {
        return Err(CoreError::OtherKind);
    }
    let (first, size, count) = (u64::from_le_bytes(field(&header, 32)), half(54), half(56));
    if count == PN_XNUM || (count > 0 && size != PROGRAM_HEADER_BYTES) {
        return Err(CoreError::Headers(count, size));
    }
    let mut segments = Vec::new();
    for n in 0..u64::from(count) {
        let mut header = [0; PROGRAM_HEADER_BYTES as usize];
        let at = first.saturating_add(n * u64::from(PROGRAM_HEADER_BYTES));
        file.read_exact_at(&mut header, at).map_err(CoreError::Damaged)?;
        let word = |at| u64::from_le_bytes(field(&header, at));
        let (offset, start, bytes) = (word(8), word(24), word(32));
        if u32::from_le_bytes(field(&header, 0)) == PT_LOAD && bytes > 0 {
            segments.push(Segment { start, bytes, offset });
        }
    }
    if segments.is_empty() {
        return Err(CoreError::NoMemory);
    }
    Ok(segments)
}

/// Returns the bytes of the field at `at`, which must be inside `header`.
fn field<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    header.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}
