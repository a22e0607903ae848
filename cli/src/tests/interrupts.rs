// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signals in the middle of what a device is asked for. Each program is a process of its own, because a signal ends it.

use super::capture::{bytes, script, slots, Directory};
use super::run_with;
use crate::exit_code::ExitCode;
use crate::frame::SlotBuffer;
use crate::source::device::Session;
use crate::source::{interrupts, SourceError};
use s2dump_abi::hypercall::Op;
use s2dump_abi::ioctl::{Advance, Hello, Start};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A device that sends this process a signal in the middle of a dump, and then waits.
struct Interrupting {
    device: Box<dyn Session>,
    signal: String,
    then: Duration,
    advances_of_dump: Option<u32>,
}

impl Session for Interrupting {
    fn hello(&mut self, hello: &mut Hello) -> io::Result<()> {
        self.device.hello(hello)
    }

    fn hello_1(&mut self, hello: &mut Hello) -> io::Result<()> {
        self.device.hello_1(hello)
    }

    fn map(&mut self, slots: u32, slot_bytes: usize) -> io::Result<()> {
        self.device.map(slots, slot_bytes)
    }

    fn start(&mut self, start: &mut Start) -> io::Result<()> {
        self.advances_of_dump = (start.op == Op::DUMP.0).then_some(0);
        self.device.start(start)
    }

    fn advance(&mut self, advance: &mut Advance) -> io::Result<()> {
        if let Some(advances) = &mut self.advances_of_dump {
            *advances += 1;
            if *advances == 2 {
                let sent = Command::new("kill").args(["-s", &self.signal, &std::process::id().to_string()]).status();
                assert!(sent.unwrap().success());
                std::thread::sleep(self.then);
            }
        }
        self.device.advance(advance)
    }

    fn copy_slot(&self, index: u32, into: &mut SlotBuffer) -> bool {
        self.device.copy_slot(index, into)
    }
}

/// What [`Program`] runs; nothing when run as a test.
#[test]
fn program() {
    let variable = |name: &str| std::env::var(name);
    let Ok(words) = variable("S2DUMP_TEST_WORDS") else { return };
    let said = |what: &str| variable("S2DUMP_TEST_SAID").unwrap() + what;
    // Time for a thread to hear of it.
    let then = variable("S2DUMP_TEST_STUCK").map_or(Duration::from_millis(100), |_| Duration::from_secs(600));
    let open = || -> Result<Box<dyn Session>, SourceError> {
        let signal = variable("S2DUMP_TEST_SIGNAL").unwrap();
        Ok(Box::new(Interrupting { device: script().open(), signal, then, advances_of_dump: None }))
    };
    interrupts::listen(false).unwrap();
    interrupts::reset_at_end(File::create(said(".terminal")).unwrap());
    let ran = run_with(&words, &open);
    fs::write(said(".out"), &ran.out).unwrap();
    fs::write(said(".err"), &ran.err).unwrap();
    interrupts::end();
    assert_eq!(ran.code, ExitCode::Ok, "{}", ran.err);
}

/// A program that gets a signal in the middle of the first dump.
struct Program<'a> {
    words: &'a str,
    signal: &'a str,
    /// Of a shell, before it begins.
    before: &'a str,
    /// It asks nobody any more whether a signal came.
    is_stuck: bool,
}

impl Program<'_> {
    /// Runs it; what it says goes to `said` with endings.
    fn run(&self, said: &str) -> Output {
        let mut command = Command::new("env");
        // The threads of tests are more than the one that listens: all of them hold signals back. And whoever runs tests in the
        // background may have them ignore signals, which a shell cannot undo.
        command.args(["--default-signal=INT,TERM,HUP", "--block-signal=INT,TERM,HUP", "sh", "-c"]);
        command.arg(format!("{} exec \"$0\" --exact tests::interrupts::program", self.before));
        command.arg(std::env::current_exe().unwrap());
        command.env("S2DUMP_TEST_WORDS", self.words).env("S2DUMP_TEST_SIGNAL", self.signal);
        command.env("S2DUMP_TEST_SAID", said);
        if self.is_stuck {
            command.env("S2DUMP_TEST_STUCK", "1");
        }
        command.output().unwrap()
    }
}

const SIGNALS: [(&str, i32); 3] = [("INT", 2), ("TERM", 15), ("HUP", 1)];

#[test]
fn capture_leaves_the_old_file_and_nothing_else() {
    let directory = Directory::new("interrupt");
    let outside = Directory::new("interrupt-said");
    let path = directory.join("a.s2d");
    fs::write(&path, "old").unwrap();
    for what in ["capture vm:0x1000", "capture --all", "report"] {
        for (signal, number) in SIGNALS {
            let words = format!("{what} -O {}", path.display());
            let said = outside.join("said");
            let output = Program { words: &words, signal, before: "", is_stuck: false }.run(said.to_str().unwrap());
            assert_eq!(output.status.signal(), Some(number), "the shell sees what ended it: {words}: {output:?}");
            let err = fs::read_to_string(outside.join("said.err")).unwrap();
            assert_eq!(err.lines().last(), Some("s2dump: interrupted: nothing was written"), "{words}");
            assert_eq!((directory.names(), fs::read(&path).unwrap()), (vec!["a.s2d".to_owned()], b"old".to_vec()));
        }
    }
}

#[test]
fn dump_has_a_trailer_and_others_say_why_there_is_nothing() {
    let outside = Directory::new("interrupt-verbs");
    let said = |end: &str| outside.join(&format!("said.{end}"));
    for (words, is_shown) in [
        ("dump vm:0x1000", true),
        ("stat vm:0x1000", true),
        ("audit", false),
        ("rmap 0x40a12000", false),
        ("map -O -", false),
    ] {
        let output = Program { words, signal: "INT", before: "", is_stuck: false };
        let output = output.run(outside.join("said").to_str().unwrap());
        assert_eq!(output.status.signal(), Some(2), "{words}: {output:?}");
        let (out, err) = (fs::read_to_string(said("out")).unwrap(), fs::read_to_string(said("err")).unwrap());
        assert_eq!(out.contains("\n# INCOMPLETE: interrupted before all was read\n"), is_shown, "{words}: {out}");
        assert!(is_shown || out.is_empty(), "{words}: {out}");
        assert!(err.trim_end().ends_with("interrupted before all was read"), "{words}: {err}");
        assert_eq!(fs::read(said("terminal")).unwrap(), b"", "rows are whole");
    }
}

/// As after `nohup`: the terminal may go.
#[test]
fn ignored_signal_does_not_interrupt() {
    let directory = Directory::new("ignored");
    let outside = Directory::new("ignored-said");
    let path = directory.join("a.s2d");
    let words = format!("capture vm:0x1000 -O {}", path.display());
    let program = Program { words: &words, signal: "HUP", before: "trap '' HUP;", is_stuck: false };
    let output = program.run(outside.join("said").to_str().unwrap());
    assert!(output.status.success(), "{output:?}");
    assert_eq!((directory.names(), slots(fs::read(&path).unwrap())), (vec!["a.s2d".to_owned()], bytes()));
}

/// Where nobody asks, the program ends all the same: the file is removed, and a colored row does not stay on the terminal.
#[test]
fn who_does_not_listen_is_ended() {
    let directory = Directory::new("stuck");
    let outside = Directory::new("stuck-said");
    let path = directory.join("a.s2d");
    fs::write(&path, "old").unwrap();
    let words = format!("capture vm:0x1000 -O {}", path.display());
    let begin = Instant::now();
    let program = Program { words: &words, signal: "INT", before: "", is_stuck: true };
    let output = program.run(outside.join("said").to_str().unwrap());
    assert!(begin.elapsed() < Duration::from_secs(300));
    assert_eq!(output.status.signal(), Some(2), "{output:?}");
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.ends_with("s2dump: interrupted: nothing was written\n"), "{err}");
    assert_eq!((directory.names(), fs::read(&path).unwrap()), (vec!["a.s2d".to_owned()], b"old".to_vec()));
    assert_eq!(fs::read(outside.join("said.terminal")).unwrap(), b"\x1b[0m");
}
