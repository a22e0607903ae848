// SPDX-License-Identifier: MIT OR Apache-2.0
//! Android's daemon and the server that leads to it, as child processes: this machine as a phone, by way of its loopback.

use crate::server::{is_running, wait_until};
use anyhow::{ensure, Context as _, Result};
use std::fs;
use std::process::{Child, Command, Stdio};

/// What the phone is called: where its daemon listens without IPv6.
pub const SERIAL: &str = "vsock:1:5555";
/// Where programs are that adb has pushed.
pub const PUSHED: &str = "/data/local/tmp";
/// Where the key and the logs are.
const DIRECTORY: &str = "/tmp/adb";

/// A phone that is connected. Dropping it ends that, and removes what was made for it.
#[derive(Debug)]
pub struct Phone {
    daemon: Child,
    server: Child,
}

impl Phone {
    /// Starts both; returns when the phone is there.
    ///
    /// # Errors
    ///
    /// If one does not start, or they do not find each other.
    pub fn start() -> Result<Self> {
        crate::server::run("busybox", &["ip", "link", "set", "lo", "up"])?;
        fs::create_dir_all(DIRECTORY)?;
        fs::create_dir_all(PUSHED)?;
        let start = |program: &str, arguments: &[&str]| {
            let log = fs::File::create(format!("{DIRECTORY}/{program}.log"))?;
            let mut command = Command::new(program);
            at_home(command.args(arguments)).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            command.spawn().with_context(|| format!("starting {program}"))
        };
        let daemon = start("adbd", &[])?;
        let server = start("adb", &["server", "nodaemon"])?;
        let phone = Self { daemon, server };
        // A client that finds no server would start one of its own.
        wait_until(|| Ok(std::net::TcpStream::connect("127.0.0.1:5037").is_ok())).with_context(|| log_text("adb"))?;
        let adb = |arguments: &[&str]| -> Result<String> {
            let output = at_home(Command::new("adb").args(arguments)).stdin(Stdio::null()).output()?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        wait_until(|| {
            adb(&["connect", SERIAL])?;
            Ok(adb(&["devices"])?.contains(&format!("{SERIAL}\tdevice")))
        })
        .with_context(|| format!("no phone: {}", log_text("adbd")))?;
        Ok(phone)
    }

    /// Ends both, and waits for it.
    ///
    /// # Errors
    ///
    /// If a connection does not end.
    pub fn end(mut self) -> Result<()> {
        self.kill();
        ensure!(!is_running("adbd")?, "the daemon goes on");
        Ok(())
    }

    fn kill(&mut self) {
        for child in [&mut self.server, &mut self.daemon] {
            // It has been done already, if all went well.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(DIRECTORY);
        let _ = fs::remove_dir_all("/data");
    }
}

/// Has `command` keep its key with the logs.
pub fn at_home(command: &mut Command) -> &mut Command {
    command.env("HOME", DIRECTORY)
}

fn log_text(program: &str) -> String {
    fs::read_to_string(format!("{DIRECTORY}/{program}.log")).unwrap_or_default()
}
