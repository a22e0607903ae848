// SPDX-License-Identifier: MIT OR Apache-2.0
//! An ssh server as a child process, and a client that may enter: this machine as a board, by way of its loopback device.

use crate::server::{is_running, run, wait_until};
use anyhow::{ensure, Context as _, Result};
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where it listens.
const ADDRESS: &str = "127.0.0.1:22";
/// Where keys and the log are; words of shells end at such a name if nobody quotes it.
const DIRECTORY: &str = "/tmp/the board's";
/// The home of who enters, by `/etc/passwd`.
pub const HOME: &str = "/root";

/// A server. Dropping it ends it, and removes what was made for it.
#[derive(Debug)]
pub struct SshServer {
    child: Child,
}

impl SshServer {
    /// Makes keys and starts the server; returns when it listens.
    ///
    /// # Errors
    ///
    /// If a program fails, or there is no loopback device.
    pub fn start() -> Result<Self> {
        // The device has its address from when it is up.
        run("busybox", &["ip", "link", "set", "lo", "up"])?;
        fs::create_dir_all(DIRECTORY)?;
        fs::create_dir_all(allowed())?;
        make_key("host")?;
        make_key("stranger")?;
        fs::write(allowed().join("authorized_keys"), make_key("friend")?)?;
        let log = fs::File::create(format!("{DIRECTORY}/log"))?;
        let mut command = Command::new("dropbear");
        // In the foreground, without passwords, its log on standard error.
        command.args(["-F", "-s", "-E", "-p", ADDRESS, "-r", &format!("{DIRECTORY}/host")]);
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().context("starting dropbear")?;
        let server = Self { child };
        wait_until(|| Ok(TcpStream::connect(ADDRESS).is_ok())).with_context(|| format!("no server: {}", log_text()))?;
        Ok(server)
    }

    /// Ends the server, and waits for those of its processes that speak with a client. Its keys stay.
    ///
    /// # Errors
    ///
    /// If one does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        wait_until(|| Ok(!is_running("dropbear")?)).context("a connection does not end")
    }

    /// Ends the server likewise, and removes its keys.
    ///
    /// # Errors
    ///
    /// If one of its processes does not end, or nobody entered.
    pub fn end(mut self) -> Result<()> {
        self.stop()?;
        let log = log_text();
        ensure!(log.contains("Pubkey auth succeeded for 'root'"), "nobody entered: {log}");
        Ok(())
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        // Most of it has been done already, if all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(DIRECTORY);
        let _ = fs::remove_dir_all(allowed());
    }
}

/// Returns the words before a command line that shall run on the board. They take the server's key as it comes.
#[must_use]
pub fn client(key: &str) -> String {
    format!("dbclient -y -i \"{DIRECTORY}/{key}\" root@127.0.0.1")
}

/// Has `command` keep what it keeps for its user with the keys, where the server's user has nothing.
pub fn at_home(command: &mut Command) -> &mut Command {
    command.env("HOME", DIRECTORY)
}

/// Returns the directory that says which keys may enter.
fn allowed() -> PathBuf {
    Path::new(HOME).join(".ssh")
}

/// Makes a key; returns its public half as a line.
fn make_key(name: &str) -> Result<String> {
    let said = run("dropbearkey", &["-t", "ed25519", "-f", &format!("{DIRECTORY}/{name}")])?;
    let line = said.lines().find(|line| line.starts_with("ssh-ed25519 "));
    Ok(format!("{}\n", line.with_context(|| format!("no public key: {said}"))?))
}

fn log_text() -> String {
    fs::read_to_string(format!("{DIRECTORY}/log")).unwrap_or_default()
}
