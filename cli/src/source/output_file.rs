// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file that `capture` writes.
//!
//! A regular file gets its name only when it is whole: until then the bytes are in a temporary file beside it, which is
//! removed if writing fails or the user interrupts it. What is no regular file (a device, a FIFO, `/dev/fd/3`) is opened
//! and written to, because a rename would put a regular file in its place.

use super::interrupts;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{fchown, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file that is being written.
pub(crate) enum OutputFile {
    /// No regular file: written to as it is.
    Through(BufWriter<File>),
    /// A regular file, new or to be replaced.
    New(Box<NewFile>),
}

impl OutputFile {
    /// Opens what `path` names, or a temporary file that will replace it.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        match place_of(path)? {
            Place::Open => {
                let file = File::options().write(true).truncate(true).open(path)?;
                Ok(Self::Through(BufWriter::new(file)))
            }
            Place::Regular(target, replaced) => Ok(Self::New(Box::new(NewFile::create(target, replaced)?))),
        }
    }

    /// Writes everything out, and gives a regular file its name.
    pub(crate) fn keep(self) -> io::Result<()> {
        match self {
            Self::Through(mut file) => file.flush(),
            Self::New(file) => file.keep(),
        }
    }
}

impl OutputFile {
    fn file(&mut self) -> &mut BufWriter<File> {
        match self {
            Self::Through(file) => file,
            Self::New(new) => &mut new.file,
        }
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

/// Where a capture goes.
enum Place {
    /// To what the path leads to, which is opened.
    Open,
    /// To a regular file of this path, no link any more; and what is there now.
    Regular(PathBuf, Option<Metadata>),
}

/// Finds what `path` leads to. Links are followed here, because a rename replaces the link that it is given.
fn place_of(path: &Path) -> io::Result<Place> {
    /// As many as the kernel follows.
    const MOST_LINKS: u32 = 40;
    let mut target = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::symlink_metadata(&target) {
            Ok(found) if found.is_symlink() => {
                let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty());
                let directory = directory.unwrap_or(Path::new(".")).to_owned();
                // Links like /proc/self/fd/3 stand for an open file, which may have lost its name or never had one.
                if rustix::fs::statfs(&directory)?.f_type == rustix::fs::PROC_SUPER_MAGIC {
                    return Ok(Place::Open);
                }
                target = directory.join(fs::read_link(&target)?);
            }
            Ok(found) if found.is_file() => return Ok(Place::Regular(target, Some(found))),
            Ok(_) => return Ok(Place::Open),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Place::Regular(target, None)),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many levels of symbolic links"))
}

/// A file that gets its name only when it is whole.
pub(crate) struct NewFile {
    file: BufWriter<File>,
    temporary: PathBuf,
    target: PathBuf,
    replaced: Option<Metadata>,
    is_kept: bool,
}

impl NewFile {
    fn create(target: PathBuf, replaced: Option<Metadata>) -> io::Result<Self> {
        let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (file, temporary) = create_temporary(directory)?;
        interrupts::remove_at_end(Some(temporary.clone()));
        Ok(Self { file: BufWriter::new(file), temporary, target, replaced, is_kept: false })
    }

    fn keep(mut self) -> io::Result<()> {
        self.file.flush()?;
        let file = self.file.get_ref();
        if let Some(replaced) = &self.replaced {
            // Who may read the file that is replaced may read the new one, provided that they are the same people. Else
            // it stays readable by its owner only, as the device is.
            if fchown(file, Some(replaced.uid()), Some(replaced.gid())).is_ok() {
                file.set_permissions(Permissions::from_mode(replaced.mode() & 0o777))?;
            }
        }
        file.sync_all()?;
        fs::rename(&self.temporary, &self.target)?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Once it is kept, another may have the temporary name: another thread, or another machine on a shared directory.
        if !self.is_kept {
            let _ = fs::remove_file(&self.temporary);
        }
        interrupts::remove_at_end(None);
    }
}

/// Creates a file in `directory` that only its owner may read, under a name that no other has.
pub(super) fn create_temporary(directory: &Path) -> io::Result<(File, PathBuf)> {
    /// More than a program that was killed can have left with one process id.
    const MOST_TRIED: u32 = 100;
    let mut number = 0;
    loop {
        let path = directory.join(format!(".s2dump-{}-{number}.tmp", std::process::id()));
        match File::options().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < MOST_TRIED => number += 1,
            Err(error) => return Err(error),
        }
    }
}
