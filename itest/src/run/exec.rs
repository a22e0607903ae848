// SPDX-License-Identifier: MIT OR Apache-2.0
//! A shell, or a command in one.

use std::process::Command;

const SHELL: &str = "/bin/busybox";
/// Exit code when the shell cannot be started, as shells say it themselves.
const NOT_FOUND: i32 = 127;

fn status(command: &mut Command) -> i32 {
    match command.status() {
        Ok(status) => status.code().unwrap_or(NOT_FOUND),
        Err(error) => {
            println!("init: {SHELL}: {error}");
            NOT_FOUND
        }
    }
}

/// Gives a shell on the console; always a pass, as a person ended it.
pub fn shell() -> i32 {
    println!("s2dump and s2dump-vmm are here; for example:");
    println!("  sleep 1000 | s2dump-vmm protected touch:16 share:2 --hold >/dev/null & sleep 1; s2dump dump --mapped");
    println!("`exit` switches the machine off.");
    // cttyhack gives the shell a controlling terminal, and with that job control.
    status(Command::new(SHELL).env_remove("S2DUMP_PAGER").args(["setsid", "-c", SHELL, "cttyhack", SHELL, "sh"]));
    0
}

/// Runs `command` and returns its exit code.
pub fn exec(command: &str) -> i32 {
    status(Command::new(SHELL).args(["sh", "-c", command]))
}
