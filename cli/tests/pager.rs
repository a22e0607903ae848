// SPDX-License-Identifier: MIT OR Apache-2.0
//! Output on a real terminal, and through a pager. The terminal is that of script(1), which every Debian has.
#![cfg(target_os = "linux")]

#[expect(dead_code, unreachable_pub, reason = "shared with unit tests, each uses a part")]
mod support;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use support::two_vms;

/// A capture in a file that is removed with it.
struct Capture(PathBuf);

impl Capture {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("s2dump-{name}-{}.s2d", std::process::id()));
        std::fs::write(&path, two_vms().bytes).unwrap();
        Self(path)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const ROW: &str = "0x0080000000-0x008000ffff";
const PAGED: &str = "paged ";
/// Marks each line.
const MARKING: &str = "sed 's/^/paged /'";

/// Dumps on a terminal of 80 columns where `variables` are set; returns the exit code and what appears there.
fn dump(name: &str, variables: &[(&str, &str)], options: &str) -> (i32, String) {
    let capture = Capture::new(name);
    let (program, path) = (env!("CARGO_BIN_EXE_s2dump"), capture.0.display());
    let line =
        format!("stty cols 80 rows 24; PATH=${{ITS_PATH-$PATH}} exec {program} dump -i {path} vm:0x1000 {options}");
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env("SHELL", "/bin/sh");
    for variable in ["S2DUMP_PAGER", "PAGER", "LESS", "NO_COLOR", "CLICOLOR"] {
        command.env_remove(variable);
    }
    let output = command.envs(variables.iter().copied()).stdin(Stdio::null()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_pager_gets_the_rows() {
    for (name, pager) in [("line", MARKING), ("word", "nl")] {
        let (code, text) = dump(name, &[("PAGER", pager)], "");
        let row = text.lines().find(|line| line.contains(ROW)).unwrap_or_else(|| panic!("{text}"));
        assert!(!row.starts_with(ROW) && !row.starts_with('\x1b'), "{pager}: {text}");
        assert_eq!(code, 0, "{pager}: {text}");
    }
}

#[test]
fn its_own_variable_comes_first() {
    let (_, text) = dump("own", &[("S2DUMP_PAGER", MARKING), ("PAGER", "false")], "");
    assert!(text.contains(PAGED) && text.contains(ROW), "{text}");
    let (_, text) = dump("none", &[("S2DUMP_PAGER", ""), ("PAGER", MARKING)], "");
    assert!(!text.contains(PAGED) && text.contains(ROW), "{text}");
}

#[test]
fn no_pager_means_none() {
    let (code, text) = dump("no", &[("PAGER", MARKING)], "--no-pager");
    assert!(!text.contains(PAGED) && text.contains(ROW), "{text}");
    assert_eq!(code, 0);
}

/// What there is to see is seen, or it is said that it was not.
#[test]
fn a_missing_pager_loses_nothing_in_silence() {
    let (code, text) = dump("missing", &[("PAGER", "s2dump-has-no-such-pager")], "");
    assert!(text.contains("s2dump: no pager: s2dump-has-no-such-pager: ") && text.contains(ROW), "{text}");
    assert_eq!(code, 0);
    let (code, text) = dump("unset", &[("ITS_PATH", "/nonexistent")], "");
    assert!(!text.contains("no pager") && text.contains(ROW), "nobody asked for less: {text}");
    assert_eq!(code, 0);
    for line in ["s2dump-has-no-such-pager -R", "/dev/null -R"] {
        let (code, text) = dump("lost", &[("PAGER", line)], "");
        let told = format!("s2dump: the pager did not run, and what it was given is lost: {line}");
        assert!(text.contains(&told) && !text.contains(ROW), "{text}");
        assert_eq!(code, 2, "{text}");
    }
}

#[test]
fn a_terminal_has_color() {
    let colored = "\x1b[32mowned";
    let (_, text) = dump("color", &[("PAGER", "cat")], "");
    assert!(text.contains(colored), "{text}");
    let (_, text) = dump("mono", &[("PAGER", "cat"), ("NO_COLOR", "1")], "");
    assert!(!text.contains('\x1b') && text.contains(ROW), "{text}");
}
