// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the whole program in one process: command lines in, bytes and exit codes out, with a fake device.

mod audit;
mod capture;
mod decode;
mod device;
mod fake;
mod image;
mod interrupts;
mod kinds;
mod live;
mod map;
mod names;
mod probe;
mod properties;
mod ptdump;
mod reader;
mod report;
#[path = "../../tests/support/mod.rs"]
#[expect(dead_code, unreachable_pub, reason = "shared with the golden tests, each uses a part")]
mod support;
mod terminal;
mod via;
mod watch;

use crate::exit_code::ExitCode;
use crate::pager::Screen;
use crate::source::device::Session;
use crate::source::SourceError;
use crate::verbs::Context;
use std::cell::Cell;
use std::ffi::OsString;
use std::io::{self, Write};

/// What a run left behind.
struct Ran {
    code: ExitCode,
    out: String,
    err: String,
}

/// Runs `s2dump` with `command_line`, opening the device with `open`.
fn run_with(command_line: &str, open: &dyn Fn() -> Result<Box<dyn Session>, SourceError>) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run_into(command_line, open, &mut out, &mut err);
    Ran { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

fn run_into(
    command_line: &str,
    open: &dyn Fn() -> Result<Box<dyn Session>, SourceError>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> ExitCode {
    run_in(command_line, &mut world(open, out, err))
}

thread_local! {
    static SCREEN: &'static Cell<Screen> = Box::leak(Box::new(Cell::new(Screen::Plain)));
}

/// What a program sees that runs with `open` as its device, and no terminal.
fn world<'a>(
    open: &'a dyn Fn() -> Result<Box<dyn Session>, SourceError>,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
) -> Context<'a> {
    let open_capture = &crate::source::file::FileSource::open;
    let context = Context::without_terminal(out, err, open, open_capture, SCREEN.with(|screen| *screen));
    // What the machine of the tests says would be another thing each time.
    Context { proc: &|_| None, ..context }
}

fn run_in(command_line: &str, context: &mut Context<'_>) -> ExitCode {
    let arguments: Vec<OsString> = std::iter::once("s2dump").chain(command_line.split(' ')).map(Into::into).collect();
    crate::run(&arguments, context)
}

/// Runs `s2dump` where there is no device.
fn run_without_device(command_line: &str) -> Ran {
    run_with(command_line, &|| Err(SourceError::Open(io::Error::from_raw_os_error(2))))
}

/// A file that is removed when the test ends.
struct TempFile(std::path::PathBuf);

impl TempFile {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("s2dump-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn path(&self) -> std::path::Display<'_> {
        self.0.display()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

struct Failing(io::ErrorKind);

impl Write for Failing {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A hopeless input does not flood the terminal.
#[test]
fn many_issues_are_counted_not_told() {
    let mut capture = support::Capture::default();
    for _ in 0..100 {
        capture.bytes.extend(b"rubbish ");
        capture.list(&support::three_vms());
    }
    let capture = TempFile::new("issues", &capture.bytes[8..]);
    let ran = run_without_device(&format!("dump -i {} vm:0x1000", capture.path()));
    assert_eq!(ran.code, ExitCode::NoSuchVm);
    assert_eq!(ran.err.lines().filter(|line| line.contains("skipped")).count(), 19, "{}", ran.err);
    assert!(ran.err.contains("more problems"), "{}", ran.err);
}

/// Each format and verb writes at other places: a closed pipe is quiet success at all of them.
#[test]
fn closed_pipe_is_quiet_success() {
    let capture = TempFile::new("pipe", &support::two_vms().bytes);
    let path = capture.path();
    let commands = [
        format!("dump -i {path} vm:0x1000"),
        format!("dump -i {path} vm:0x1000 --format json"),
        format!("dump -i {path} vm:0x1000 --format ndjson"),
        format!("dump -i {path} vm:0x1000 --format ptdump"),
        format!("list -i {path}"),
        format!("list -i {path} --json"),
        format!("walk -i {path} vm:0x1000 2G"),
        format!("walk -i {path} vm:0x1000 2G --json"),
        "--help".into(),
    ];
    for command in commands {
        let mut err = Vec::new();
        let open = || Err(SourceError::Open(io::Error::from_raw_os_error(2)));
        let code = run_into(&command, &open, &mut Failing(io::ErrorKind::BrokenPipe), &mut err);
        assert_eq!((code, err.len()), (ExitCode::Ok, 0), "{command}");
        let code = run_into(&command, &open, &mut Failing(io::ErrorKind::StorageFull), &mut err);
        assert_eq!(code, ExitCode::UsageOrIo, "{command}");
        assert!(String::from_utf8(err).unwrap().contains("standard output"), "{command}");
    }
}
