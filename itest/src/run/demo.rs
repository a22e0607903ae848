// SPDX-License-Identifier: MIT OR Apache-2.0
//! One protected and one ordinary VM, and what s2dump shows of them.

use super::test::handle_of;
use crate::system::reserve_huge_pages;
use crate::vmm_process::VmmProcess;
use anyhow::{Context as _, Result};
use std::process::{Command, Stdio};

/// Touched, then some shared, some taken back, one poisoned: a little of everything a table can show.
const PROTECTED: &str = "protected touch:64 share:8 unshare:0x80004000+2 poison:0x80020000+1 touch-share:0x80200000+4";
/// A 2 MiB block, and pages the guest only reads.
const ORDINARY: &str =
    "ordinary --mem 0x80000000+8M,huge --mem 0x90000000+1M touch:1 touch:0x90000000+16 read:0x90080000+4";

/// Shows each command with its output; fails if one of them does.
pub fn run() -> i32 {
    match show() {
        Ok(()) => 0,
        Err(error) => {
            println!("demo: {error:#}");
            1
        }
    }
}

fn show() -> Result<()> {
    reserve_huge_pages(8);
    println!("$ s2dump-vmm {PROTECTED} --hold &");
    let protected = VmmProcess::start(PROTECTED)?;
    println!("$ s2dump-vmm {ORDINARY} --hold &");
    let ordinary = VmmProcess::start(ORDINARY)?;
    command("s2dump", &["probe"])?;
    command("s2dump", &["list"])?;
    for vmm in [&protected, &ordinary] {
        command("s2dump", &["dump", &format!("vm:{:#x}", handle_of(vmm)?)])?;
    }
    for file in ["ipa_range", "stage2_page_tables"] {
        show_file(&format!("/sys/kernel/debug/kvm/{}/{file}", protected.expected.debugfs))?;
    }
    protected.end()?;
    ordinary.end()
}

fn command(program: &str, arguments: &[&str]) -> Result<()> {
    println!("\n$ {program} {}", arguments.join(" "));
    let mut child = Command::new(program);
    // What is shown is kept in files and documents: as in a pipe.
    child.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let ended = child.output().context(program.to_owned())?;
    print!("{}", String::from_utf8_lossy(&ended.stdout));
    anyhow::ensure!(ended.status.success(), "{program} {}: {}", arguments.join(" "), ended.status);
    Ok(())
}

fn show_file(path: &str) -> Result<()> {
    println!("\n$ cat {path}");
    print!("{}", std::fs::read_to_string(path).with_context(|| path.to_owned())?);
    Ok(())
}
