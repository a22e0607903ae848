// SPDX-License-Identifier: MIT OR Apache-2.0
//! `--via`: a shell takes the place of ssh, which gives one the same words, and this machine that of the board.

use super::support::handle_of;
use super::{tests, Outcome};
use crate::machine::Machine;
use crate::program::{self, exit, Ran};
use crate::vmm_process::{self, VmmProcess};
use anyhow::{ensure, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

tests!(On: via_a_shell_says_the_same, via_a_shell_that_fails, via_adb);

const SHELL: &str = "sh -c";

fn via(words: &[&str]) -> Result<Ran> {
    program::run(&[&["--via", SHELL], words].concat())
}

fn via_a_shell_says_the_same(machine: &Machine) -> Outcome {
    let protected = VmmProcess::start("protected touch:40 share:4")?;
    let ordinary = VmmProcess::start("ordinary touch:20*2")?;
    let (one, two) = (format!("{:#x}", handle_of(&protected)?), format!("vm:{}", ordinary.expected.debugfs));
    let commands: [&[&str]; 9] = [
        &["dump", &one, "-n", "-o", "start,end,level,rwx,state,out"],
        &["dump", &two, "--format", "ptdump"],
        &["dump", &one, "--format", "ndjson", "--range", "2G+64K", "--state", "shared-owned"],
        &["walk", &one, "0x8000_0000", "0x4000_0000"],
        &["stat", &two, "-n"],
        &["probe"],
        &["list"],
        &["list", "--size", "--json"],
        &["audit", "--list"],
    ];
    for command in commands {
        let here = program::run(command)?.ok()?;
        let there = via(command)?;
        if command[0] == "audit" {
            there.fails(exit::USAGE_OR_IO, &["answered here", "leave --via out"])?;
            continue;
        }
        // A range is cut out there at EL2, here from a capture: that is told, and no row differs.
        let rows = |text: &str| -> Vec<String> {
            let is_row = |line: &&str| !["header", "trailer"].iter().any(|word| line.contains(word));
            text.lines().filter(is_row).map(str::to_owned).collect()
        };
        let there = there.ok()?;
        ensure!(!here.is_empty() && rows(&here) == rows(&there), "{command:?}: {here}\n{there}");
    }
    let list = via(&["list"])?.ok()?;
    ensure!(list.contains(&one) && list.contains(vmm_process::PROGRAM), "{list}");
    via(&["dump"])?.fails(exit::USAGE_OR_IO, &["name a VM: ", " has 2", &ordinary.expected.debugfs])?;
    let watched = via(&["watch", &one, "--count", "2", "--interval", "10"])?.ok()?;
    ensure!(watched.contains("2 readings"), "{watched}");
    if machine.hyp {
        const PATH: &str = "/tmp/via.s2d";
        let captured = via(&["capture", "--all", "-O", PATH])?;
        ensure!(captured.stdout.is_empty(), "{captured:?}");
        captured.ok()?;
        program::run(&["audit", "-i", PATH])?.ok()?;
        via(&["audit"])?.ok()?;
        fs::remove_file(PATH)?;
    }
    protected.end()?;
    ordinary.end()
}

fn via_a_shell_that_fails(_: &Machine) -> Outcome {
    let no_program = program::run(&["--via", "PATH=/nowhere /bin/sh -c 'exit 127' sh", "list"])?;
    no_program.fails(exit::USAGE_OR_IO, &["s2dump is not there", "copy the static binary there"])?;
    // As of ssh, which says on standard error why.
    program::run(&["--via", "sh -c 'exit 255' sh", "list"])?
        .fails(exit::USAGE_OR_IO, &["failed with exit code 255"])?;
    via(&["dump", "0x10ff"])?.fails(exit::NO_SUCH_VM, &["no such VM", "failed with exit code 4"])?;
    via(&["list", "-i", "/tmp/none"])?.fails(exit::USAGE_OR_IO, &["does not go with -i FILE"])?;
    let path = "/tmp/via-none.s2d";
    fs::write(path, "precious")?;
    // As adb without a phone, and as su that does not take what it is given.
    for shell in ["false", "true", "echo welcome #"] {
        let ran = program::run(&["--via", shell, "capture", "--all", "-O", path])?;
        ran.fails(exit::USAGE_OR_IO, &[shell])?;
        ensure!(fs::read(path)? == b"precious", "{shell}: the file was replaced");
    }
    program::run(&["--via", "false", "probe"])?.fails(exit::USAGE_OR_IO, &["failed with exit code 1"])?;
    fs::remove_file(path)?;
    via(&["capture", "0x10ff", "-O", path])?.fails(exit::NO_SUCH_VM, &["no such VM"])?;
    ensure!(!fs::exists(path)?, "a capture that failed was kept");
    Ok(())
}

/// A phone, or none: adb's own words, as of `adb help`, with a shell in the phone's place.
const ADB: &str = r#"#!/bin/sh
serial=only
if [ "$1" = -s ]; then serial=$2; shift 2; fi
if [ "$serial" != only ] && [ "$serial" != emulator-5554 ]; then echo "adb: device '$serial' not found" >&2; exit 1; fi
[ "$1" = shell ] || exit 2
shift
while [ "$1" = -n ] || [ "$1" = -T ]; do shift; done
exec sh -c "$*"
"#;

fn via_adb(_: &Machine) -> Outcome {
    const DIRECTORY: &str = "/tmp/adb";
    fs::create_dir_all(DIRECTORY)?;
    let program = format!("{DIRECTORY}/adb");
    fs::write(&program, ADB)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let path = format!("{DIRECTORY}:{}", std::env::var("PATH").unwrap_or_default());
    let adb = |phone: &str, words: &[&str]| -> Result<Ran> {
        let mut command = program::command(&[&["--via", phone], words].concat());
        Ok(command.env("PATH", &path).output()?.into())
    };
    let vmm = VmmProcess::start("protected touch:9")?;
    let target = format!("{:#x}", handle_of(&vmm)?);
    let dump: &[&str] = &["dump", &target, "--format", "ptdump"];
    let here = program::run(dump)?.ok()?;
    for phone in ["adb", "adb:emulator-5554"] {
        let there = adb(phone, dump)?.ok()?;
        ensure!(there == here, "{phone}: {there}");
    }
    for words in [&["list"][..], &["probe"], &["capture", "-O", "/tmp/none.s2d"]] {
        adb("adb:gone", words)?.fails(exit::USAGE_OR_IO, &["device 'gone' not found", "failed with exit code 1"])?;
    }
    ensure!(!fs::exists("/tmp/none.s2d")?, "a capture of no phone was kept");
    fs::remove_dir_all(DIRECTORY)?;
    vmm.end()
}
