// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ctrl-C while a capture comes through a pipe: each verb ends, says that not all is there, and lets the signal end it.
#![cfg(target_os = "linux")]

#[expect(dead_code, unreachable_pub, reason = "shared with unit tests, each uses a part")]
mod support;

use s2dump_abi::slot::{encoding, SlotHeader};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::machine::machine_frames;
use support::{dump_header, protected_table, three_vms, Capture, VTCR_40};

const SIGINT: i32 = 2;
/// Longer than any machine takes to end a program that listens, and less than one takes that does not.
const PATIENCE: Duration = Duration::from_secs(60);

/// A list, and a table that goes on.
fn table_that_goes_on() -> Vec<u8> {
    let mut capture = Capture::default();
    capture.list(&three_vms()).ranges(dump_header(0x1000, VTCR_40), &protected_table(), 2);
    capture.bytes
}

/// Frames that go on.
fn frames_that_go_on() -> Vec<u8> {
    let mut capture = Capture::default();
    capture.frames(encoding::PKVM_7_2, 0x4000_0000, 0x8000_0000, &machine_frames());
    capture.bytes.truncate(capture.bytes.len() - size_of::<SlotHeader>());
    capture.bytes
}

/// Runs `words`, which read `bytes` from a pipe that stays open, interrupts them, and waits.
fn interrupted(words: &str, bytes: &[u8]) -> Output {
    // Whoever runs the tests in the background may have them ignore signals.
    let mut command = Command::new("env");
    command.args(["--default-signal=INT", env!("CARGO_BIN_EXE_s2dump")]).args(words.split(' '));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(bytes).unwrap();
    await_asleep(&child);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(begin.elapsed() < PATIENCE, "{words}: goes on");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(pipe);
    child.wait_with_output().unwrap()
}

/// Waits until the main thread of `child` waits for what does not come: it has listened and read by then.
fn await_asleep(child: &Child) {
    let begin = Instant::now();
    let is_asleep = || {
        let mut stat = String::new();
        std::fs::File::open(format!("/proc/{}/stat", child.id())).unwrap().read_to_string(&mut stat).unwrap();
        stat.contains("(s2dump) S ")
    };
    let mut seen = 0;
    while seen < 20 {
        assert!(begin.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
        seen = if is_asleep() { seen + 1 } else { 0 };
    }
}

#[test]
fn streams_end_with_a_trailer() {
    let cases = [
        (
            "dump -i - vm:0x1000",
            table_that_goes_on(),
            "0x0000000080000000",
            "# INCOMPLETE: interrupted before all was read\n",
        ),
        (
            "dump -i - vm:0x1000 --json",
            table_that_goes_on(),
            "\"0x80000000\"",
            "\"incomplete_reason\":\"interrupted before all was read\"",
        ),
        ("stat -i - vm:0x1000", table_that_goes_on(), "L3", "# INCOMPLETE: interrupted before all was read\n"),
        ("walk -i - vm:0x1000 0x80000000", table_that_goes_on(), "0x40a12000", "output address 0x40a12000\n"),
        ("frames -i -", frames_that_go_on(), "0x0000000040000000", "# INCOMPLETE: interrupted before all was read\n"),
    ];
    for (words, bytes, row, trailer) in cases {
        let output = interrupted(words, &bytes);
        let out = String::from_utf8(output.stdout).unwrap();
        assert!(out.contains(row) && out.contains(trailer), "{words}: {out}");
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(err.contains("interrupted before all was read"), "{words}: {err}");
        assert_eq!(output.status.signal(), Some(SIGINT), "{words}: whoever waits sees it");
    }
}

#[test]
fn others_show_nothing_and_say_why() {
    let verbs = ["dump", "list --size", "walk 0x80000000", "rmap 0x40a12000", "audit", "map -O -", "diff -"];
    for verb in verbs {
        let words = if verb.starts_with("diff") { "diff - /dev/null".into() } else { format!("{verb} -i -") };
        let output = interrupted(&words, &table_that_goes_on());
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{words}");
        assert_eq!(err.lines().last(), Some("s2dump: interrupted before all was read"), "{words}");
        assert_eq!(output.status.signal(), Some(SIGINT), "{words}");
    }
}
