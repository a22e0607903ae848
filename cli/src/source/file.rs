// SPDX-License-Identifier: MIT OR Apache-2.0
//! Slots from a capture, or from standard input.
//!
//! Frames slots by the lengths in their headers. Where no slot begins, it looks for the next one, so that one bad byte
//! does not lose the rest.

use super::{Fetched, SlotSource, SourceError};
use crate::frame::{self, SlotBuffer, SlotFault, HEADER_BYTES};
use s2dump_abi::slot::{SLOT_BYTES, SLOT_MAGIC};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A capture being read once, from front to back.
pub(crate) struct FileSource {
    from: Box<dyn Read>,
    name: String,
    window: Box<[u8; WINDOW_BYTES]>,
    begin: usize,
    end: usize,
    offset: u64,
    at_end: bool,
    found_slot: bool,
}

/// Enough for any slot behind any header.
const WINDOW_BYTES: usize = 4 * SLOT_BYTES;

impl FileSource {
    /// Opens `path`; `-` is standard input.
    pub(crate) fn open(path: &Path) -> Result<Self, SourceError> {
        let name = path.display().to_string();
        if path.as_os_str() == "-" {
            return Ok(Self::new(Box::new(io::stdin().lock()), "standard input".into()));
        }
        let file = File::open(path).map_err(|error| SourceError::File(name.clone(), error))?;
        Ok(Self::new(Box::new(file), name))
    }

    /// Reads from `from`.
    pub(crate) fn new(from: Box<dyn Read>, name: String) -> Self {
        let window = Box::new([0; WINDOW_BYTES]);
        Self { from, name, window, begin: 0, end: 0, offset: 0, at_end: false, found_slot: false }
    }

    /// Returns the bytes in the window, at least `wanted` of them unless the input ends before.
    fn fill(&mut self, wanted: usize) -> Result<&[u8], SourceError> {
        if self.end - self.begin < wanted && !self.at_end {
            self.window.copy_within(self.begin..self.end, 0);
            self.end -= self.begin;
            self.begin = 0;
            while self.end < wanted {
                match self.from.read(&mut self.window[self.end..]) {
                    Ok(0) => {
                        self.at_end = true;
                        break;
                    }
                    Ok(read) => self.end += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(SourceError::File(self.name.clone(), error)),
                }
            }
        }
        Ok(&self.window[self.begin..self.end])
    }

    fn consume(&mut self, bytes: usize) {
        self.begin += bytes;
        self.offset += bytes as u64;
    }

    /// Skips to the next place where a slot can begin, or to the end.
    fn resync(&mut self, fault: SlotFault) -> Result<Fetched, SourceError> {
        let offset = self.offset;
        let magic = SLOT_MAGIC.to_le_bytes();
        self.consume(1);
        loop {
            let window = self.fill(SLOT_BYTES)?;
            let Some(at) = window.windows(magic.len()).position(|bytes| bytes == magic) else {
                // The last bytes may be the beginning of a magic number, unless they are the last of all.
                let rest = window.len();
                let keep = if rest < SLOT_BYTES { 0 } else { magic.len() - 1 };
                self.consume(rest - keep);
                if keep == 0 {
                    break;
                }
                continue;
            };
            self.consume(at);
            if frame::measure(self.fill(HEADER_BYTES)?).is_ok() {
                break;
            }
            self.consume(1);
        }
        Ok(Fetched::Damage { offset, bytes: self.offset - offset, fault })
    }
}

impl SlotSource for FileSource {
    fn fetch(&mut self, into: &mut SlotBuffer) -> Result<Fetched, SourceError> {
        let window = self.fill(HEADER_BYTES)?;
        if window.is_empty() {
            return if self.found_slot { Ok(Fetched::End) } else { Err(SourceError::NotACapture(self.name.clone())) };
        }
        let fault = match frame::measure(window) {
            Ok((_, used)) => {
                let window = self.fill(used)?;
                // Less at the end of the input: the reader takes what is there.
                let have = window.len().min(used);
                match (into.get_mut(..have), window.get(..have)) {
                    (Some(into), Some(slot)) => {
                        into.copy_from_slice(slot);
                        self.consume(have);
                        self.found_slot = true;
                        return Ok(Fetched::Slot(have));
                    }
                    _ => SlotFault::Truncated { have, used },
                }
            }
            Err(fault) => fault,
        };
        match fault {
            _ if self.found_slot => self.resync(fault),
            SlotFault::Version(_) => Err(SourceError::Format(self.name.clone(), fault)),
            SlotFault::NoMagic(_) | SlotFault::Short(_) => Err(SourceError::NotACapture(self.name.clone())),
            _ => self.resync(fault),
        }
    }
}
