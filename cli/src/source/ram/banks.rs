// SPDX-License-Identifier: MIT OR Apache-2.0
//! Banks of physical memory that lie in files: raw images, and the segments of ELF cores.
//!
//! Files are read at the places that are asked for, and never mapped. A mapping needs segments that are aligned to pages,
//! which those of a core are not; and where a mapped file is cut off, a signal kills the program instead of an error.

use super::elf_core::{self, short_read, CoreError};
use crate::args::image::RamFile;
use crate::numbers::Size;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

/// Why a file cannot be used as memory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BankError {
    /// It cannot be opened.
    #[error("{0}: {1}")]
    Open(String, io::Error),
    /// It cannot be read at any place: a pipe, a directory.
    #[error("{0}: not a file that can be read at any place: {1}")]
    NotSeekable(String, io::Error),
    /// It has no byte.
    #[error("{0}: the file is empty")]
    Empty(String),
    /// A raw image without base.
    #[error("{0}: not an ELF core, so say where in physical memory it begins: --ram {0}@0x40000000")]
    NoBase(String),
    /// The base is inside a page.
    #[error("{0}: its base {1:#x} is not a multiple of 4KiB")]
    UnalignedBase(String, u64),
    /// It would reach beyond the largest address.
    #[error("{0}: memory at {1:#x} of {size} reaches beyond 52-bit addresses", size = Size(*.2))]
    TooHigh(String, u64, u64),
    /// It is an ELF file, but damaged or no core of a 64-bit Arm machine.
    #[error("{0}: {1}")]
    Core(String, CoreError),
    /// It is a device, a pipe or a socket.
    #[error("{0}: a device or pipe: copy the memory into a file first")]
    NotAFile(String),
    /// Two banks have the same address.
    #[error("{0} and {1} both have memory at {2:#x}")]
    Overlap(String, String, u64),
}

/// Memory from `start` on, which is in a file from `offset` on.
struct Bank {
    name: String,
    file: Rc<File>,
    start: u64,
    bytes: u64,
    offset: u64,
}

impl Bank {
    /// Returns the first address after it, which is at most 2^52.
    fn end(&self) -> u64 {
        self.start + self.bytes
    }
}

/// Memory, in ascending addresses, with holes.
pub(crate) struct Banks(Vec<Bank>);

/// First address after all that a 64-bit descriptor can point to.
const END_OF_MEMORY: u64 = 1 << 52;

impl Banks {
    /// Opens `files`; calls `note` for what is odd but no error.
    pub(crate) fn open(files: &[RamFile], note: &mut dyn FnMut(String)) -> Result<Self, BankError> {
        let mut banks = Vec::new();
        for RamFile { path, base } in files {
            let name = path.display().to_string();
            // Opening a pipe waits for a writer, and a device may claim to have no bytes.
            if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
                return Err(BankError::NotAFile(name));
            }
            let mut file = File::open(path).map_err(|error| BankError::Open(name.clone(), error))?;
            let length = file.seek(SeekFrom::End(0)).map_err(|error| BankError::NotSeekable(name.clone(), error))?;
            if length == 0 {
                return Err(BankError::Empty(name));
            }
            let is_elf = elf_core::is_elf(&file).map_err(|error| BankError::NotSeekable(name.clone(), error))?;
            let file = Rc::new(file);
            let bank = |start, bytes, offset| Bank { name: name.clone(), file: Rc::clone(&file), start, bytes, offset };
            match (base, is_elf) {
                (Some(base), _) => {
                    if base % 4096 != 0 {
                        return Err(BankError::UnalignedBase(name, *base));
                    }
                    if is_elf {
                        note(format!(
                            "{name}: begins like an ELF file, and is taken as raw memory because of @{base:#x}"
                        ));
                    }
                    banks.push(bank(*base, length, 0));
                }
                (None, false) => return Err(BankError::NoBase(name)),
                (None, true) => {
                    let segments = elf_core::segments(&file).map_err(|error| BankError::Core(name.clone(), error))?;
                    let end = segments.iter().map(|segment| segment.offset.saturating_add(segment.bytes)).max();
                    if let Some(more @ 1..) = end.and_then(|end| length.checked_sub(end)) {
                        note(format!(
                            "{name}: has {more} bytes behind the memory its headers tell of: QEMU writes wrong headers \
                             for machines with SVE (try a raw image, or -cpu ...,sve=off)"
                        ));
                    }
                    for segment in segments {
                        let there = length.saturating_sub(segment.offset).min(segment.bytes);
                        if there < segment.bytes {
                            let (missing, at) = (Size(segment.bytes - there), segment.start.saturating_add(there));
                            note(format!("{name}: cut off: {missing} of memory at {at:#x} are not there"));
                        }
                        if there > 0 {
                            banks.push(bank(segment.start, there, segment.offset));
                        }
                    }
                }
            }
        }
        Self::of(banks)
    }

    fn of(mut banks: Vec<Bank>) -> Result<Self, BankError> {
        if let Some(bank) = banks.iter().find(|bank| bank.start.saturating_add(bank.bytes) > END_OF_MEMORY) {
            return Err(BankError::TooHigh(bank.name.clone(), bank.start, bank.bytes));
        }
        banks.sort_by_key(|bank| bank.start);
        if let Some([low, high]) = banks.windows(2).find_map(|pair| match pair {
            [low, high] if low.end() > high.start => Some([low, high]),
            _ => None,
        }) {
            return Err(BankError::Overlap(low.name.clone(), high.name.clone(), high.start));
        }
        Ok(Self(banks))
    }

    /// Fills `into` with the memory at `address`, which may lie in several banks; false if not all of it is there.
    pub(crate) fn read(&self, mut address: u64, mut into: &mut [u8]) -> io::Result<bool> {
        while !into.is_empty() {
            // The last bank that begins at or before the address.
            let after = self.0.partition_point(|bank| bank.start <= address);
            let Some(bank) = after.checked_sub(1).and_then(|at| self.0.get(at)) else { return Ok(false) };
            let Some(left @ 1..) = bank.end().checked_sub(address) else { return Ok(false) };
            let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
            let (now, later) = into.split_at_mut(bytes);
            bank.file
                .read_exact_at(now, bank.offset + (address - bank.start))
                .map_err(|error| io::Error::other(format!("{}: {}", bank.name, short_read(&error))))?;
            address += bytes as u64;
            into = later;
        }
        Ok(true)
    }

    /// Returns how many descriptors fit into all of it.
    pub(crate) fn descriptors(&self) -> u64 {
        self.0.iter().map(|bank| bank.bytes / 8).sum()
    }

    /// Returns the memory there is, for people.
    pub(crate) fn extent(&self) -> String {
        // Neighbors count as one range. More than a few ranges would not help the reader.
        const MOST: usize = 4;
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for bank in &self.0 {
            match ranges.last_mut() {
                Some((_, end)) if *end == bank.start => *end = bank.end(),
                _ => ranges.push((bank.start, bank.end())),
            }
        }
        let shown: Vec<String> = ranges.iter().take(MOST).map(|(start, end)| format!("{start:#x}..{end:#x}")).collect();
        shown.join(", ") + if ranges.len() > MOST { ", ..." } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file may become shorter after it was opened. That is an error, not a signal as with a mapping.
    #[test]
    fn bad_file_cut_off_meanwhile() {
        let path = std::env::temp_dir().join(format!("s2dump-banks-{}", std::process::id()));
        std::fs::write(&path, [7; 8192]).unwrap();
        let files = [format!("{}@4K", path.display()).parse().unwrap()];
        let banks = Banks::open(&files, &mut |note| panic!("{note}")).unwrap();
        let mut word = [0; 8];
        assert!(banks.read(4096 + 8184, &mut word).unwrap());
        assert_eq!(word, [7; 8]);
        assert!(!banks.read(4096 + 8185, &mut word).unwrap(), "a word that is not all there");
        File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
        assert!(banks.read(4096 + 8184, &mut word).unwrap_err().to_string().ends_with("the file is too short"));
        std::fs::remove_file(path).unwrap();
    }
}
