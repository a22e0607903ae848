// SPDX-License-Identifier: MIT OR Apache-2.0
//! Captures from whatever can be read: files, FIFOs, pipes, standard input. A pipe gives its bytes only once.
#![cfg(target_os = "linux")]

#[expect(dead_code, unreachable_pub, reason = "shared with unit tests, each uses a part")]
mod support;

use rustix::fs::{mknodat, FileType, Mode, CWD};
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use support::{captures, protected_table, two_vms, Capture};

/// Makes an empty directory for one test.
fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("inputs-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// A capture of one table, much larger than a pipe: what is read twice by opening twice is then not there.
fn one_table() -> Vec<u8> {
    use s2dump_abi::hypercall::Status;
    let mut capture = Capture::default();
    let header = support::dump_header(0x1000, support::VTCR_40);
    for _ in 0..200 {
        capture.dump(header, &protected_table(), 3, Status::OK);
    }
    assert!(capture.bytes.len() > 128 << 10);
    capture.bytes
}

fn s2dump(arguments: &str, temporary: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_s2dump"));
    command.args(arguments.split(' ')).env("TMPDIR", temporary).stderr(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Runs `command` while `bytes` are written to its standard input.
fn piped(mut command: Command, bytes: Vec<u8>) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may end before all is read.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&bytes)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn same(found: &Output, expected: &Output, what: &str) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&found.stderr), text(&expected.stderr), "{what}");
    assert_eq!(found.status.code(), expected.status.code(), "{what}");
    assert!(found.stdout == expected.stdout, "{what}");
}

#[test]
fn every_readable_file_is_the_same() {
    let directory = directory("same");
    let bytes = one_table();
    let path = directory.join("one.s2d");
    fs::write(&path, &bytes).unwrap();
    let fifo = directory.join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let mut before = File::options().read(true).write(true).create_new(true).open(directory.join("before")).unwrap();
    before.write_all(b"what another program has read\n").unwrap();
    let begin = before.stream_position().unwrap();
    before.write_all(&bytes).unwrap();

    let temporary = directory.join("tmp");
    fs::create_dir(&temporary).unwrap();
    for verb in ["dump", "dump --format ndjson", "dump vm:0x1000"] {
        let run = |from: &str| s2dump(&format!("{verb} -i {from}"), &temporary);
        let expected = run(path.to_str().unwrap()).output().unwrap();
        assert_eq!(expected.status.code(), Some(0), "{}", String::from_utf8_lossy(&expected.stderr));
        assert!(expected.stdout.len() > 500);

        same(&piped(run("-"), bytes.clone()), &expected, "a pipe as standard input");
        same(&piped(run("/dev/stdin"), bytes.clone()), &expected, "/dev/stdin");
        same(&piped(run("/proc/self/fd/0"), bytes.clone()), &expected, "/proc/self/fd/0");
        let file = File::open(&path).unwrap();
        same(&run("-").stdin(file).output().unwrap(), &expected, "a file as standard input");
        before.seek(SeekFrom::Start(begin)).unwrap();
        same(&run("-").stdin(before.try_clone().unwrap()).output().unwrap(), &expected, "the rest of a file");
        let (to, all) = (fifo.clone(), bytes.clone());
        let writer = std::thread::spawn(move || drop(File::create(to).unwrap().write_all(&all)));
        let child = run(fifo.to_str().unwrap()).spawn().unwrap();
        same(&child.wait_with_output().unwrap(), &expected, "a FIFO");
        writer.join().unwrap();
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "what was copied is gone");
    }
    fs::remove_dir_all(directory).unwrap();
}

/// Standard input with several tables is no other input than a file with them.
#[test]
fn several_tables_in_a_pipe_are_refused() {
    let directory = directory("several");
    let ran = piped(s2dump("dump -i -", &directory), two_vms().bytes);
    let err = String::from_utf8(ran.stderr).unwrap();
    assert_eq!((ran.status.code(), ran.stdout.len()), (Some(2), 0), "{err}");
    assert!(
        err.starts_with("s2dump: name a VM: standard input has 2\n") && err.contains("\n  vm:0x1001  421-14 "),
        "{err}"
    );
    fs::remove_dir_all(directory).unwrap();
}

/// A copy that cannot be made is told; with a name there is no need for one.
#[test]
fn copy_needs_a_place() {
    let directory = directory("place");
    let nowhere = directory.join("missing");
    let ran = piped(s2dump("dump -i -", &nowhere), one_table());
    let err = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(2), "{err}");
    assert!(err.contains("standard input: copying it to ") && err.contains("No such file"), "{err}");
    for command in ["dump -i - vm:0x1000", "walk -i - vm:0x1000 2G 0x80001000 0x80002000"] {
        assert_eq!(piped(s2dump(command, &nowhere), one_table()).status.code(), Some(0), "{command}");
    }
    fs::remove_dir_all(directory).unwrap();
}

/// Damaged input is told the same however it comes.
#[test]
fn damage_in_a_pipe_is_told_as_in_a_file() {
    let directory = directory("damage");
    captures::save_all(&directory);
    for name in ["corrupt.s2d", "truncated.s2d", "text.s2d", "empty.s2d", "major-next-later.s2d"] {
        let path = directory.join(name);
        let bytes = fs::read(&path).unwrap();
        let expected = s2dump(&format!("dump -i {} vm:0x1000", path.display()), &directory).output().unwrap();
        let found = piped(s2dump("dump -i - vm:0x1000", &directory), bytes);
        assert_eq!((found.status.code(), found.stdout), (expected.status.code(), expected.stdout), "{name}");
    }
    fs::remove_dir_all(directory).unwrap();
}
