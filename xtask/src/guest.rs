// SPDX-License-Identifier: MIT OR Apache-2.0
//! The programs of the test machine: ours, which are static, and Debian's, packed as the kernel's first root file system.

mod debian;

use crate::cpio::Archive;
use crate::ctx::Ctx;
use crate::process::command;
use crate::step::Step;
use crate::{dist, setup};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Target of all programs in the test machine.
const TARGET: &str = "aarch64-unknown-linux-musl";
/// Where each program of the tests goes.
const PROGRAMS: [(&str, &str); 2] = [("s2dump-itest-init", "init"), ("s2dump-vmm", "bin/s2dump-vmm")];
/// Name of a script in the root directory.
pub(crate) const SCRIPT: &str = "script";
/// By which the machine knows the directory that it mounts as /host.
pub(crate) const SHARE_TAG: &str = "host";
/// Parents first.
const DIRECTORIES: [&str; 11] = ["bin", "dev", "etc", "host", "lib", "proc", "root", "sbin", "sys", "tmp", "usr"];
/// The commands that make a shell useful. `busybox` alone lists the others.
const APPLETS: [&str; 42] = [
    "awk", "basename", "cat", "chmod", "cmp", "cp", "cut", "date", "dd", "df", "diff", "dmesg", "echo", "env", "false",
    "find", "free", "grep", "head", "id", "kill", "less", "ln", "ls", "mkdir", "mount", "mv", "od", "ps", "rm", "sed",
    "sh", "sleep", "sort", "stty", "su", "tail", "tee", "time", "true", "wc", "xxd",
];

/// Builds the programs and packs them; returns the archive.
///
/// # Errors
///
/// If set-up or a build fails.
pub(crate) fn initramfs(ctx: &Ctx) -> Result<PathBuf> {
    setup::rust(ctx)?;
    let debian = debian::files(ctx)?;
    // The very binary that people get.
    let tool = dist::program(ctx, TARGET)?;
    let step = Step::start("guest: build programs");
    let mut cargo = command("cargo");
    cargo.current_dir(&ctx.root).args(["build", "--release", "--locked", "--target", TARGET]);
    cargo.args(["--package", "s2dump-itest", "--bins"]);
    step.run(&mut cargo, &ctx.log("guest"))?;

    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.directory(directory);
    }
    // The kernel opens it for /init before anything is mounted.
    archive.character_device("dev/console", 0o600, 5, 1);
    archive.character_device("dev/null", 0o666, 1, 3);
    for (program, path) in PROGRAMS {
        let built = ctx.target.join(TARGET).join("release").join(program);
        let contents = std::fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
        archive.file(path, 0o755, &contents);
    }
    archive.file("bin/s2dump", 0o755, &std::fs::read(tool)?);
    for (path, file) in debian {
        archive.file(&path, 0o755, &std::fs::read(file)?);
    }
    for applet in APPLETS {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    // For tests that are not to be root.
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n");
    archive.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n");

    let path = ctx.target.join("s2dump-initramfs.cpio");
    std::fs::write(&path, archive.finish()).with_context(|| format!("cannot write {}", path.display()))?;
    step.done();
    Ok(path)
}

/// Adds `script` as [`SCRIPT`] to an archive; returns the new one. The kernel unpacks archives that follow each other.
///
/// # Errors
///
/// If a file cannot be read or written.
pub(crate) fn with_script(ctx: &Ctx, initramfs: &Path, script: &Path) -> Result<PathBuf> {
    let contents = std::fs::read(script).with_context(|| format!("cannot read {}", script.display()))?;
    let mut bytes = std::fs::read(initramfs).with_context(|| format!("cannot read {}", initramfs.display()))?;
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let mut archive = Archive::default();
    archive.file(SCRIPT, 0o755, &contents);
    bytes.extend(archive.finish());
    let path = ctx.target.join("s2dump-initramfs-script.cpio");
    std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
