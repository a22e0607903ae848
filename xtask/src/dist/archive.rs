// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tarballs whose bytes depend on nothing but names and contents of their files, and one time for all.

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use std::collections::BTreeMap;
use tar::{Builder, EntryType, Header, HeaderMode};

/// A file to be packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    pub(super) is_program: bool,
}

/// Files by path below the top directory, in the order in which they are packed.
pub(super) type Files = BTreeMap<String, File>;

/// Packs `files` below the directory `top`; returns the bytes. Owner is root, and all times are `seconds` since 1970.
///
/// # Errors
///
/// If a path is too long for a tarball.
pub(super) fn pack(top: &str, files: &Files, seconds: u64) -> Result<Vec<u8>> {
    // The time in gzip's own header is left out, and so is the name.
    let mut tar = Builder::new(GzBuilder::new().write(Vec::new(), Compression::best()));
    tar.mode(HeaderMode::Deterministic);
    for (path, file) in files {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(if file.is_program { 0o755 } else { 0o644 });
        header.set_mtime(seconds);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(u64::try_from(file.bytes.len())?);
        tar.append_data(&mut header, format!("{top}/{path}"), &file.bytes[..]).with_context(|| path.clone())?;
    }
    Ok(tar.into_inner()?.finish()?)
}

/// Unpacks what [`pack`] packed: the files, and all times that occur.
#[cfg(test)]
fn unpack(bytes: &[u8]) -> (Vec<String>, Vec<u64>) {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes));
    let entries = archive.entries().expect("a tarball").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| {
            let path = entry.path().expect("a path").display().to_string();
            (
                format!("{path} {:o} {:?}", entry.header().mode().expect("a mode"), entry.header().uid().ok()),
                entry.header().mtime().expect("a time"),
            )
        })
        .unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_bytes_depend_on_contents_and_time_only() {
        let file = |text: &str, is_program| File { bytes: text.into(), is_program };
        let files = Files::from([("b/run".to_owned(), file("x", true)), ("a".to_owned(), file("y", false))]);
        let packed = pack("top", &files, 1_700_000_000).expect("packed");
        assert_eq!(pack("top", &files, 1_700_000_000).expect("packed"), packed);
        assert_ne!(pack("top", &files, 1_700_000_001).expect("packed"), packed);
        let (names, times) = unpack(&packed);
        assert_eq!(names, ["top/a 644 Some(0)", "top/b/run 755 Some(0)"]);
        assert_eq!(times, [1_700_000_000; 2]);
    }
}
