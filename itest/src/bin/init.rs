// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/init` of the test machine: does what the kernel command line asks, prints one verdict, switches off.
//!
//! As PID 1 it only mounts, waits and reports; the work is done by a child of the same program, so that a panic there
//! is a failed verdict and not a kernel panic. As any other process it can be told the same by its arguments:
//! `/init endure=600` in a shell.

use s2dump_itest::command_line::{parse, Run};
use s2dump_itest::{run, system};
use std::process::{exit, Command};

/// Exit code of a child that did not end by itself.
const KILLED: i32 = 254;
/// Exit code when the command line makes no sense, as of a shell's own errors.
const USAGE: i32 = 2;

fn main() {
    if std::process::id() == 1 {
        first_process();
    }
    let text = match std::env::args().nth(1) {
        Some(word) => format!("s2dump.run={word}"),
        None => std::fs::read_to_string("/proc/cmdline").unwrap_or_default(),
    };
    exit(match parse(&text) {
        Run::Demo => run::demo::run(),
        Run::Test(filter) => run::test::run(&filter),
        Run::Shell => run::exec::shell(),
        Run::Exec(command) => run::exec::exec(&command),
        Run::Bench(what) => run::bench::run(&what),
        Run::Oracle(bits) => run::oracle::run(&bits),
        Run::Corrupt => run::corrupt::run(),
        Run::Tables => run::tables::run(),
        Run::Audits(count) => run::test::audits(count),
        Run::Endure(seconds, mix) => run::endure::run(seconds, mix),
        Run::Unknown(why) => {
            println!("init: {why}");
            USAGE
        }
    });
}

fn first_process() -> ! {
    let code = system::mount_all().and_then(|()| {
        let mut child = Command::new("/proc/self/exe");
        child.env_clear().env("PATH", "/bin:/sbin:/usr/bin").env("HOME", "/").env("TERM", "linux");
        // The console is a terminal, but nobody need be there to turn pages.
        child.env("S2DUMP_PAGER", "");
        Ok(child.status()?.code().unwrap_or(KILLED))
    });
    system::print_verdict(code.unwrap_or_else(|error| {
        println!("init: {error:#}");
        KILLED
    }));
    system::power_off()
}
