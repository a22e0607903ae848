// SPDX-License-Identifier: MIT OR Apache-2.0
//! Slots from a capture: a file, a pipe, or standard input.
//!
//! Slots are framed by the lengths in their headers. Where no slot begins, the source looks for the next one, so that one
//! bad byte does not lose the rest.
//!
//! Invariant: an input is opened once and its bytes are taken from it once, because a pipe gives them only once. Who has
//! to look ahead uses [`FileSource::preview`].

use super::interrupts::{self, Interruptible};
use super::{Fetched, SlotSource, SourceError};
use crate::frame::{self, SlotBuffer, SlotFault, HEADER_BYTES};
use s2dump_abi::slot::{MAX_SLOT_BYTES, SLOT_MAGIC};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Bytes that may be read from any place.
pub(crate) trait ReadSeek: Read + Seek {}

impl<T: Read + Seek> ReadSeek for T {}

/// A capture being read from front to back.
pub(crate) struct FileSource {
    from: Box<dyn ReadSeek>,
    name: String,
    /// Where `from` began; `None` if it gives its bytes only once.
    first: Option<u64>,
    window: Box<[u8; WINDOW_BYTES]>,
    begin: usize,
    end: usize,
    offset: u64,
    at_end: bool,
    found_slot: bool,
}

/// Enough for any slot, and not to read each by itself.
const WINDOW_BYTES: usize = 2 * MAX_SLOT_BYTES;

/// How far to look for the next slot at once.
const LOOK_BYTES: usize = 4096;

impl FileSource {
    /// Opens `path`; `-` is standard input.
    pub(crate) fn open(path: &Path) -> Result<Self, SourceError> {
        let (name, file) = if path.as_os_str() == "-" {
            ("standard input".into(), io::stdin().as_fd().try_clone_to_owned().map(File::from))
        } else {
            (path.display().to_string(), File::open(path))
        };
        let fail = |error| SourceError::File(name.clone(), error);
        let mut file = file.map_err(fail)?;
        let kind = file.metadata().map_err(fail)?.file_type();
        // Other files seek without effect, or not at all. Standard input may have been read before.
        let first = if kind.is_file() || kind.is_block_device() { file.stream_position().ok() } else { None };
        Ok(Self { first, ..Self::new(Box::new(Interruptible(file)), name) })
    }

    /// Reads from `from`, which can seek and is at its beginning.
    pub(crate) fn new(from: Box<dyn ReadSeek>, name: String) -> Self {
        let window = Box::new([0; WINDOW_BYTES]);
        Self { from, name, first: Some(0), window, begin: 0, end: 0, offset: 0, at_end: false, found_slot: false }
    }

    /// Reads what was copied from `from`, whose end it waits for.
    pub(crate) fn copied(from: &mut dyn Read, name: &str) -> Result<Self, SourceError> {
        Ok(Self::new(Box::new(spool(from, name)?), name.to_owned()))
    }

    /// Returns what it is called in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Lets `look` read, and then begins again. Bytes that come only once are first copied into a temporary file.
    pub(crate) fn preview<T>(&mut self, look: impl FnOnce(&mut Self) -> T) -> Result<T, SourceError> {
        let first = match self.first {
            Some(first) => first,
            None => {
                self.from = Box::new(spool(&mut self.from, &self.name)?);
                *self.first.insert(0)
            }
        };
        let seen = look(self);
        self.from.seek(SeekFrom::Start(first)).map_err(|error| SourceError::File(self.name.clone(), error))?;
        (self.begin, self.end, self.offset, self.at_end, self.found_slot) = (0, 0, 0, false, false);
        Ok(seen)
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
                    Err(_) if interrupts::came() => return Err(SourceError::Interrupted),
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
            let window = self.fill(LOOK_BYTES)?;
            let Some(at) = window.windows(magic.len()).position(|bytes| bytes == magic) else {
                // The last bytes may be the beginning of a magic number, unless they are the last of all.
                let rest = window.len();
                let keep = if rest < LOOK_BYTES { 0 } else { magic.len() - 1 };
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

/// The first line of a report tells how many bytes come before its slots; this one too.
pub(crate) const REPORT: &str = "s2dump report, bytes of text: ";

impl FileSource {
    /// Passes over the text of a report, if this is one.
    fn skip_text(&mut self) -> Result<(), SourceError> {
        let line: Vec<u8> = self.fill(HEADER_BYTES)?.iter().copied().take_while(|&byte| byte != b'\n').collect();
        let text = std::str::from_utf8(&line).ok().and_then(|line| line.strip_prefix(REPORT));
        let mut left: usize = text.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        while left > 0 {
            let have = self.fill(1)?.len().min(left);
            if have == 0 {
                break;
            }
            self.consume(have);
            left -= have;
        }
        Ok(())
    }
}

impl SlotSource for FileSource {
    fn fetch(&mut self, into: &mut SlotBuffer) -> Result<Fetched, SourceError> {
        if self.offset == 0 {
            self.skip_text()?;
        }
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

/// Copies all that comes `from` into a temporary file that has no name, so that nothing remains of it.
fn spool(from: &mut dyn Read, name: &str) -> Result<File, SourceError> {
    let directory = std::env::temp_dir();
    let mut copied = || {
        let mut file = nameless_file(&directory)?;
        io::copy(from, &mut file)?;
        file.rewind()?;
        Ok(file)
    };
    copied().map_err(|error: io::Error| {
        if interrupts::came() {
            return SourceError::Interrupted;
        }
        // Reading a directory fails here too, and has nothing to do with the copy.
        if error.kind() == io::ErrorKind::IsADirectory {
            return SourceError::File(name.into(), error);
        }
        SourceError::File(format!("{name}: copying it to {}", directory.display()), error)
    })
}

/// Creates a file in `directory` that is gone when it is closed.
fn nameless_file(directory: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR) {
        return Ok(file.into());
    }
    // Some file systems cannot make a file without a name: there it loses its name at once.
    let (file, path) = super::output_file::create_temporary(directory)?;
    std::fs::remove_file(path)?;
    Ok(file)
}
