// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes cpio archives in the "newc" format, which the kernel unpacks as its first root file system.
//!
//! Supports directories, regular files, symbolic links and character devices. Times are zero, so that equal contents
//! give equal archives. Format: `srctree/Documentation/driver-api/early-userspace/buffer-format.rst`.

/// File type bits of a mode, as in `stat(2)`.
mod kind {
    pub(super) const DIRECTORY: u32 = 0o040_000;
    pub(super) const FILE: u32 = 0o100_000;
    pub(super) const LINK: u32 = 0o120_000;
    pub(super) const CHARACTER: u32 = 0o020_000;
}

/// An archive being written.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a directory. Parents are to be added before children: the kernel makes none.
    pub(crate) fn directory(&mut self, path: &str) {
        self.entry(path, kind::DIRECTORY | 0o755, (0, 0), &[]);
    }

    /// Adds a regular file.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, contents: &[u8]) {
        self.entry(path, kind::FILE | permissions, (0, 0), contents);
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.entry(path, kind::LINK | 0o777, (0, 0), target.as_bytes());
    }

    /// Adds a character device.
    pub(crate) fn character_device(&mut self, path: &str, permissions: u32, major: u32, minor: u32) {
        self.entry(path, kind::CHARACTER | permissions, (major, minor), &[]);
    }

    /// Ends the archive and returns its bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.entries += 1;
        let length = u32::try_from(contents.len()).expect("files of an initramfs are smaller than 4 GiB");
        let name_length = u32::try_from(path.len() + 1).expect("paths are short");
        // magic; ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [self.entries, mode, 0, 0, 1, 0, length, 0, 0, device.0, device.1, name_length, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    /// Pads to four bytes, counted from the start of the archive.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_small_archive() {
        let mut archive = Archive::default();
        archive.file("init", 0o755, b"hello");
        let bytes = archive.finish();

        let header = concat!(
            "070701", "00000001", "000081ed", "00000000", "00000000", "00000001", "00000000", "00000005", "00000000",
            "00000000", "00000000", "00000000", "00000005", "00000000"
        );
        assert_eq!(&bytes[..110], header.as_bytes());
        assert_eq!(&bytes[110..116], b"init\0\0", "110 + 5 bytes of name are padded to 116");
        assert_eq!(&bytes[116..124], b"hello\0\0\0");
        assert_eq!(&bytes[124 + 110..124 + 121], b"TRAILER!!!\0");
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn kinds_are_in_the_mode_and_devices_in_their_fields() {
        let mut archive = Archive::default();
        archive.directory("dev");
        archive.character_device("dev/console", 0o600, 5, 1);
        archive.link("sh", "busybox");
        let text = String::from_utf8(archive.finish()).expect("all of it is ASCII");
        assert!(text.contains("000041ed"), "a directory, 0755");
        assert!(text.contains("00002180"), "a character device, 0600");
        assert!(text.contains("0000000500000001"), "major 5, minor 1");
        assert!(text.contains("0000a1ff"), "a link, 0777");
        assert!(text.contains("sh\0"));
    }
}
