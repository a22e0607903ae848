// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `capture -O` does to files: it replaces regular files, writes to all others, and leaves nothing else behind.

use super::fake::Script;
use super::support::*;
use super::{run_in, run_with, world, Ran};
use crate::exit_code::ExitCode;
use crate::source::device::Session;
use crate::source::SourceError;
use crate::verbs::Context;
use rustix::fs::{makedev, mknodat, FileType, Mode, CWD};
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{SlotHeader, SlotKind};
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{symlink, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A directory that is removed with all that is in it.
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("s2dump-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The names in it, in order.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A device with three VMs, one of them with a table of several slots.
pub(super) fn script() -> Script {
    let mut list = Capture::default();
    list.list(&three_vms());
    let mut dump = Capture::default();
    dump.dump(dump_header(0x1000, VTCR_40), &protected_table(), 2, Status::OK);
    Script::new(list, dump)
}

/// What a capture of its VM consists of.
pub(super) fn bytes() -> Vec<u8> {
    let Script { list, starts, .. } = script();
    [list.unwrap().bytes, starts[0].as_ref().unwrap().bytes.clone()].concat()
}

/// Returns the slots behind the one that tells where a capture was made.
pub(super) fn slots(written: Vec<u8>) -> Vec<u8> {
    let (header, used) = crate::frame::measure(&written).unwrap();
    assert_eq!(header.kind, SlotKind::ORIGIN.0);
    let text = String::from_utf8_lossy(&written[size_of::<SlotHeader>()..used]);
    assert!(text.starts_with("time 2") && text.trim_end().ends_with(&format!("\ns2dump {}", crate::VERSION)), "{text}");
    written[used..].to_vec()
}

fn capture(script: &Script, output: &Path) -> Ran {
    run_with(&format!("capture vm:0x1000 -O {}", output.display()), &|| Ok(script.open()))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn new_file_is_private() {
    let directory = Directory::new("new");
    let path = directory.join("a.s2d");
    assert_eq!(capture(&script(), &path).code, ExitCode::Ok);
    assert_eq!((slots(fs::read(&path).unwrap()), mode(&path)), (bytes(), 0o600));
    assert_eq!(directory.names(), ["a.s2d"]);
}

#[test]
fn replaced_file_keeps_its_permissions() {
    let directory = Directory::new("replaced");
    let path = directory.join("a.s2d");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    assert_eq!(capture(&script(), &path).code, ExitCode::Ok);
    assert_eq!((slots(fs::read(&path).unwrap()), mode(&path)), (bytes(), 0o640));
    assert_eq!(directory.names(), ["a.s2d"]);
}

/// The target is replaced, or made, and the links to it stay.
#[test]
fn link_stays() {
    let directory = Directory::new("link");
    fs::create_dir(directory.join("there")).unwrap();
    for is_old in [true, false] {
        let target = directory.join("there/real.s2d");
        if is_old {
            fs::write(&target, "old").unwrap();
        } else {
            fs::remove_file(&target).unwrap();
        }
        let (first, second) = (directory.join("first"), directory.join("there/second"));
        let _ = fs::remove_file(&first);
        let _ = fs::remove_file(&second);
        symlink("there/second", &first).unwrap();
        symlink("real.s2d", &second).unwrap();
        assert_eq!(capture(&script(), &first).code, ExitCode::Ok);
        assert!(first.is_symlink() && second.is_symlink());
        assert_eq!(slots(fs::read(&target).unwrap()), bytes());
        assert_eq!(directory.names(), ["first", "there"]);
        assert_eq!(fs::read_dir(directory.join("there")).unwrap().count(), 2);
    }
}

#[test]
fn bad_link_to_itself() {
    let directory = Directory::new("loop");
    symlink("loop", directory.join("loop")).unwrap();
    let ran = capture(&script(), &directory.join("loop"));
    assert_eq!(ran.code, ExitCode::UsageOrIo);
    assert!(ran.err.contains("symbolic links"), "{}", ran.err);
}

#[test]
fn fifo_is_written_to() {
    let directory = Directory::new("fifo");
    let fifo = directory.join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    symlink("fifo", directory.join("link")).unwrap();
    for name in ["fifo", "link"] {
        let from = fifo.clone();
        let reader = std::thread::spawn(move || fs::read(from).unwrap());
        let ran = capture(&script(), &directory.join(name));
        assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo(), "{name}");
        assert_eq!((ran.code, slots(reader.join().unwrap())), (ExitCode::Ok, bytes()), "{}", ran.err);
        assert_eq!(directory.names(), ["fifo", "link"]);
    }
}

/// A node of the test's own, in its own directory: a program that renames over it must not spoil the machine.
#[test]
fn device_is_written_to() {
    let directory = Directory::new("device");
    let path = directory.join("null");
    let made = mknodat(CWD, &path, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, makedev(1, 3));
    if made.is_err() || File::options().write(true).open(&path).is_err() {
        // Only root makes devices, and not on every file system. FIFOs take the same way.
        return;
    }
    assert_eq!(capture(&script(), &path).code, ExitCode::Ok);
    assert!(fs::metadata(&path).unwrap().file_type().is_char_device());
    assert_eq!(directory.names(), ["null"]);
}

/// An open file is meant by its number, whatever its name is now.
#[test]
fn open_file_is_written_to() {
    use std::os::fd::AsRawFd;
    let directory = Directory::new("open");
    fs::write(directory.join("a"), vec![b'x'; 100_000]).unwrap();
    let mut file = File::options().read(true).write(true).open(directory.join("a")).unwrap();
    let by_number = format!("/dev/fd/{}", file.as_raw_fd());
    fs::remove_file(directory.join("a")).unwrap();
    let ran = capture(&script(), Path::new(&by_number));
    let mut written = Vec::new();
    file.read_to_end(&mut written).unwrap();
    assert_eq!((ran.code, slots(written)), (ExitCode::Ok, bytes()), "{}", ran.err);
    assert!(directory.names().is_empty());
}

#[test]
fn standard_output() {
    for name in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let command_line = format!("capture vm:0x1000 -O {name}");
        let code = super::run_into(&command_line, &|| Ok(script().open()), &mut out, &mut err);
        assert_eq!(code, ExitCode::Ok, "{name}");
        let told = format!("s2dump: wrote standard output: the list of VMs and 1 table, {} bytes\n", out.len());
        assert_eq!(String::from_utf8(err).unwrap(), told, "{name}");
        assert!(slots(out) == bytes(), "{name}");
    }
}

#[test]
fn bad_terminal() {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let script = script();
    let open = || -> Result<Box<dyn Session>, SourceError> { Ok(script.open()) };
    let mut context = Context { out_is_terminal: true, ..world(&open, &mut out, &mut err) };
    assert_eq!(run_in("capture vm:0x1000 -O -", &mut context), ExitCode::UsageOrIo);
    assert!(out.is_empty() && String::from_utf8(err).unwrap().contains("binary"));
    assert!(script.started.borrow().is_empty());
}

#[test]
fn bad_places() {
    let directory = Directory::new("bad");
    for (path, why) in [("", "directory"), ("missing/a", "No such file"), ("..", "directory")] {
        let ran = capture(&script(), &directory.join(path));
        assert_eq!(ran.code, ExitCode::UsageOrIo, "{path}");
        assert!(ran.err.contains(why), "{path}: {}", ran.err);
    }
    assert!(directory.names().is_empty());
}

#[test]
fn failed_capture_leaves_the_old_file_and_nothing_else() {
    let directory = Directory::new("failed");
    let path = directory.join("a.s2d");
    fs::write(&path, "old").unwrap();
    let mut list = Capture::default();
    list.list(&three_vms());
    let ran = capture(&Script::refusing(list, Status::NOT_PERMITTED), &path);
    assert_eq!(ran.code, ExitCode::NotPermitted);
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(directory.names(), ["a.s2d"]);
}

/// A file of a program that was killed with the same process id is neither used nor removed.
#[test]
fn stale_temporary_file_is_left_alone() {
    let directory = Directory::new("stale");
    let stale = format!(".s2dump-{}-0.tmp", std::process::id());
    fs::write(directory.join(&stale), "stale").unwrap();
    assert_eq!(capture(&script(), &directory.join("a.s2d")).code, ExitCode::Ok);
    assert_eq!(directory.names(), [stale.as_str(), "a.s2d"]);
    assert_eq!(fs::read(directory.join(&stale)).unwrap(), b"stale");
}
