// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask run`: boots the test machine for a shell, or for one command.

use crate::ctx::Ctx;
use crate::qemu::{switch, Bootable, Machine};
use crate::verdict::is_kernel_log;
use crate::{guest, kernel, setup};
use anyhow::{ensure, Context as _, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of a kernel command line on arm64 (`COMMAND_LINE_SIZE`), with room for our own words.
const MAX_COMMAND_BYTES: usize = 1700;

/// What to boot, and for what.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Run {
    /// Which kernel: the usual one, or the debug kernel
    #[arg(long, value_enum, default_value = "4k", value_name = "VARIANT")]
    kernel: kernel::Variant,
    /// CPU of the machine: neoverse-n1, cortex-a53, max or another that QEMU knows
    #[arg(long, default_value = "neoverse-n1")]
    cpu: String,
    /// Number of CPUs
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// MiB of memory
    #[arg(long, default_value_t = 1024, value_name = "MIB")]
    memory: u32,
    /// Boot without kvm-arm.s2dump=
    #[arg(long)]
    off: bool,
    /// Boot with kvm-arm.mode=nvhe: KVM without pKVM
    #[arg(long)]
    nvhe: bool,
    /// More words for the kernel command line
    #[arg(long, default_value = "", value_name = "WORDS", allow_hyphen_values = true)]
    append: String,
    /// Seconds after which a command is given up
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
    /// Show the kernel's messages too
    #[arg(short, long)]
    verbose: bool,
    /// A directory that the machine has as /host, to read and to write
    #[arg(long, value_name = "DIR")]
    share: Option<PathBuf>,
    /// A shell script to run in the machine instead of a shell, of any length
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    script: Option<PathBuf>,
    /// What to run in the machine instead of a shell; one word is a shell command line
    #[arg(last = true)]
    command: Vec<String>,
}

/// Boots; returns the exit code of the command.
///
/// # Errors
///
/// If set-up, the build or the boot fails.
pub(crate) fn run(ctx: &Ctx, args: &Run) -> Result<i32> {
    let kernel = kernel::build_variant(ctx, args.kernel)?;
    setup::qemu(ctx)?;
    let mut initramfs = guest::initramfs(ctx)?;
    if let Some(script) = &args.script {
        initramfs = guest::with_script(ctx, &initramfs, script)?;
    }
    let mut kernel_words = vec![];
    if !args.off {
        kernel_words.push(switch(&args.cpu).to_owned());
    }
    if !args.append.is_empty() {
        kernel_words.push(args.append.clone());
    }
    let machine = Machine {
        cpu: args.cpu.clone(),
        cpus: args.cpus,
        memory_mib: args.memory,
        mode: if args.nvhe { "nvhe" } else { "protected" },
        kernel_words,
        qemu_words: args.share.as_deref().map_or(Ok(Vec::new()), share_words)?,
        timeout: Duration::from_secs(args.timeout),
    };
    let boot = Bootable { kernel: &kernel, initramfs: &initramfs };
    let command = match &args.script {
        Some(_) => format!("sh /{}", guest::SCRIPT),
        None => shell_line(&args.command),
    };
    if command.is_empty() {
        return machine.boot_interactive(ctx, &boot, "shell");
    }
    ensure!(
        command.len() <= MAX_COMMAND_BYTES,
        "the command is too long for a kernel command line: put it into a file for --script"
    );
    // Quoted, it is one argument of init for the kernel, which panics on more than 32.
    machine.boot(ctx, &boot, &format!("exec -- \"{command}\""), "run", |line| {
        if args.verbose || is_output(line) {
            println!("{line}");
        }
    })
}

/// Returns QEMU's options for a directory that the machine mounts as /host ([`guest`]).
fn share_words(dir: &Path) -> Result<Vec<String>> {
    ensure!(dir.is_dir(), "--share {}: there is no such directory", dir.display());
    let path = std::path::absolute(dir)?;
    let path = path.to_str().context("the name of a shared directory is UTF-8")?.replace(',', ",,");
    let device = format!("virtio-9p-device,fsdev={tag},mount_tag={tag}", tag = guest::SHARE_TAG);
    let words = ["-fsdev".to_owned(), format!("local,id={},path={path},security_model=none", guest::SHARE_TAG)];
    Ok([&words[..], &["-device".to_owned(), device]].concat())
}

/// Returns whether a line of the console is the work of a program, not of the kernel or of our own protocol.
pub(crate) fn is_output(line: &str) -> bool {
    !is_kernel_log(line) && !line.starts_with("s2dump-verdict:")
}

/// Returns words as one line for a shell: a single word is such a line already.
fn shell_line(words: &[String]) -> String {
    let is_plain = |word: &String| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=+,@%".contains(&byte))
    };
    match words {
        [line] => line.clone(),
        _ => {
            let quote = |word: &String| {
                if is_plain(word) {
                    word.clone()
                } else {
                    format!("'{}'", word.replace('\'', "'\\''"))
                }
            };
            words.iter().map(quote).collect::<Vec<_>>().join(" ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_their_borders() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(shell_line(&words(&["s2dump", "dump", "vm:0x1000"])), "s2dump dump vm:0x1000");
        assert_eq!(shell_line(&words(&["sh", "-c", "echo it's; ls"])), r"sh -c 'echo it'\''s; ls'");
        assert_eq!(shell_line(&words(&["s2dump list | wc -l"])), "s2dump list | wc -l", "one word is a shell line");
        assert_eq!(shell_line(&words(&["echo", ""])), "echo ''");
    }

    #[test]
    fn output_is_what_programs_print() {
        assert!(is_output("$ s2dump list"));
        assert!(!is_output("[    0.123456] smp: up"));
        assert!(!is_output("s2dump-verdict: pass"));
    }
}
