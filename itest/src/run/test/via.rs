// SPDX-License-Identifier: MIT OR Apache-2.0
//! `--via`: this machine takes the place of the board. A real ssh server leads to it, a real Android daemon, or a shell
//! that gets the words as one there does.

use super::support::handle_of;
use super::{tests, Outcome};
use crate::adb::{self, Phone};
use crate::machine::Machine;
use crate::program::{self, exit, Ran};
use crate::server::{is_running, wait_until};
use crate::ssh::{self, SshServer};
use crate::vmm_process::{self, VmmProcess};
use anyhow::{ensure, Context as _, Result};
use rustix::process::{kill_process, Pid, Signal};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

tests!(
    On: via_a_shell_says_the_same, via_a_shell_that_fails, via_adb_says_the_same, via_adb_that_fails, via_ssh_says_the_same, via_ssh_brings_each_byte,
    via_ssh_without_s2dump_there, via_ssh_that_fails, via_ssh_that_is_ended,
);

const SHELL: &str = "sh -c";

fn via(words: &[&str]) -> Result<Ran> {
    program::run(&[&["--via", SHELL], words].concat())
}

fn via_a_shell_says_the_same(machine: &Machine) -> Outcome {
    says_the_same(machine, via)
}

/// Checks that each verb says what it says here.
fn says_the_same(machine: &Machine, via: impl Fn(&[&str]) -> Result<Ran>) -> Outcome {
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

/// Where this program is, for those here and there.
const INSTALLED: &str = "/bin/s2dump";

/// Makes a command that works on the board with a key.
fn ssh_command(key: &str, words: &[&str]) -> Command {
    let mut command = program::command(&[&["--via", &ssh::client(key)], words].concat());
    ssh::at_home(&mut command);
    command
}

fn via_ssh(words: &[&str]) -> Result<Ran> {
    Ok(ssh_command("friend", words).output()?.into())
}

fn via_ssh_says_the_same(machine: &Machine) -> Outcome {
    let server = SshServer::start()?;
    says_the_same(machine, via_ssh)?;
    server.end()
}

/// What comes is much more than what ssh has on its way at once, and no text.
fn via_ssh_brings_each_byte(_: &Machine) -> Outcome {
    const WINDOW_BYTES: usize = 24 << 10; // of dropbear
    const SENT: &str = "/tmp/sent.s2d";
    const CAME: &str = "/tmp/came.s2d";
    let server = SshServer::start()?;
    let vmm = VmmProcess::start("protected touch:2000 share:1000*2")?;
    // The shell there keeps what s2dump writes, on its way.
    let tee = format!("{} 'keep() {{ env \"$@\" | tee {SENT}; }}; keep'", ssh::client("friend"));
    let mut command = program::command(&["--via", &tee, "capture", "--all", "-O", CAME]);
    Ran::from(ssh::at_home(&mut command).output()?).ok()?;
    let (sent, came) = (fs::read(SENT)?, fs::read(CAME)?);
    ensure!(sent == came, "{} bytes were sent, {} came, or others", sent.len(), came.len());
    ensure!(came.len() > 8 * WINDOW_BYTES, "{} bytes are too few to show anything", came.len());
    let bytes: BTreeSet<u8> = came.iter().copied().collect();
    ensure!(bytes.len() > 200, "{} values of a byte are too few", bytes.len());
    let target = format!("{:#x}", handle_of(&vmm)?);
    let dump: &[&str] = &["dump", &target, "--format", "ptdump"];
    let (here, there) = (program::run(dump)?.ok()?, program::run(&[dump, &["-i", CAME]].concat())?.ok()?);
    ensure!(here == there, "{there}");
    fs::remove_file(SENT)?;
    fs::remove_file(CAME)?;
    vmm.end()?;
    server.end()
}

/// The program at another place, for as long as this lives.
struct Moved(PathBuf);

impl Moved {
    fn to(directory: &str) -> Result<Self> {
        let path = Path::new(directory).join(program::PROGRAM);
        fs::rename(INSTALLED, &path)?;
        Ok(Self(path))
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        let _ = fs::rename(&self.0, INSTALLED);
    }
}

fn via_ssh_without_s2dump_there(_: &Machine) -> Outcome {
    let server = SshServer::start()?;
    // Of its user's home, which is another one here.
    for (directory, is_there) in [(ssh::HOME, true), ("/", false)] {
        let moved = Moved::to(directory)?;
        let words = ["--via", &ssh::client("friend"), "list"];
        let mut command = Command::new(&moved.0);
        let ran = Ran::from(ssh::at_home(command.args(words)).stdin(Stdio::null()).output()?);
        drop(moved);
        match is_there {
            true => drop(ran.ok()?),
            false => ran.fails(
                exit::USAGE_OR_IO,
                &["s2dump: not found", "root@127.0.0.1: s2dump is not there", "copy the static binary there"],
            )?,
        }
    }
    server.end()
}

fn via_ssh_that_fails(_: &Machine) -> Outcome {
    const PATH: &str = "/tmp/via-none.s2d";
    let mut server = SshServer::start()?;
    via_ssh(&["dump", "0x10ff"])?
        .fails(exit::NO_SUCH_VM, &["no such VM", "root@127.0.0.1: failed with exit code 4"])?;
    let fails = |key: &str, why: &str| -> Outcome {
        fs::write(PATH, "precious")?;
        for words in [&["list"][..], &["probe"], &["capture", "--all", "-O", PATH]] {
            let ran = Ran::from(ssh_command(key, words).output()?);
            ran.fails(exit::USAGE_OR_IO, &[why, "root@127.0.0.1: failed with exit code 1"])?;
            ensure!(ran.stdout.is_empty(), "{words:?}: {}", ran.stdout);
        }
        ensure!(fs::read(PATH)? == b"precious", "{why}: the file was replaced");
        Ok(fs::remove_file(PATH)?)
    };
    fails("stranger", "No auth methods could be used")?;
    server.stop()?;
    fails("friend", "Connection refused")?;
    server.end()
}

/// What has nothing to say ends there too, when it is ended here or nobody reads it.
fn via_ssh_that_is_ended(_: &Machine) -> Outcome {
    let server = SshServer::start()?;
    let vmm = VmmProcess::start("protected touch:4")?;
    let target = format!("{:#x}", handle_of(&vmm)?);
    for is_killed in [true, false] {
        let mut here = ssh_command("friend", &["watch", &target]).stdout(Stdio::piped()).spawn()?;
        let mut stdout = here.stdout.take().context("no standard output")?;
        // Of the line that it begins with.
        stdout.read_exact(&mut [0])?;
        ensure!(is_running("dbclient")?, "a client that is not seen");
        match is_killed {
            true => kill_process(Pid::from_child(&here), Signal::TERM)?,
            false => drop(stdout),
        }
        let ended = wait_until(|| Ok(here.try_wait()?.is_some()));
        let _ = here.kill();
        let signal = here.wait()?.signal();
        ended.context("it goes on here")?;
        ensure!(signal == is_killed.then_some(Signal::TERM.as_raw()), "ended by signal {signal:?}");
        for program in ["dbclient", program::PROGRAM] {
            wait_until(|| Ok(!is_running(program)?)).with_context(|| format!("{program} goes on"))?;
        }
    }
    vmm.end()?;
    server.end()
}

/// Runs s2dump for a phone.
fn via_adb(phone: &str, words: &[&str]) -> Result<Ran> {
    let mut command = program::command(&[&["--via", phone], words].concat());
    Ok(adb::at_home(&mut command).output()?.into())
}

fn via_adb_says_the_same(machine: &Machine) -> Outcome {
    let phone = Phone::start()?;
    says_the_same(machine, |words| via_adb("adb", words))?;
    let named = format!("adb:{}", adb::SERIAL);
    ensure!(via_adb(&named, &["list"])?.ok()? == program::run(&["list"])?.ok()?);
    phone.end()
}

fn via_adb_that_fails(_: &Machine) -> Outcome {
    const PATH: &str = "/tmp/via-none.s2d";
    let phone = Phone::start()?;
    via_adb("adb", &["dump", "0x10ff"])?.fails(exit::NO_SUCH_VM, &["no such VM", "adb: failed with exit code 4"])?;
    for words in [&["list"][..], &["probe"], &["capture", "-O", PATH]] {
        via_adb("adb:gone", words)?
            .fails(exit::USAGE_OR_IO, &["device 'gone' not found", "failed with exit code 1"])?;
    }
    ensure!(!fs::exists(PATH)?, "a capture of no phone was kept");
    for (directory, is_there) in [(adb::PUSHED, true), ("/", false)] {
        let moved = Moved::to(directory)?;
        let mut command = Command::new(&moved.0);
        let ran = Ran::from(adb::at_home(command.args(["--via", "adb", "list"])).stdin(Stdio::null()).output()?);
        drop(moved);
        match is_there {
            true => drop(ran.ok()?),
            false => {
                ran.fails(exit::USAGE_OR_IO, &["adb: s2dump is not there", "with adb push s2dump /data/local/tmp/"])?
            }
        }
    }
    phone.end()
}
