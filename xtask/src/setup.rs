// SPDX-License-Identifier: MIT OR Apache-2.0
//! Set-up: what a fresh Debian with rustup's toolchain lacks. Says what it installs; does nothing when all is there.

use crate::apt;
use crate::ctx::Ctx;
use crate::process::{command, is_on_path, output};
use crate::step::Step;
use anyhow::{ensure, Result};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Packages of the machine's own release.
const PACKAGES: [&str; 15] = [
    "bc",
    "bison",
    "clang-19",
    "flex",
    "gcc",
    "libc6-dev",
    "libclang-19-dev",
    "libelf-dev",
    "libssl-dev",
    "lld-19",
    "llvm-19",
    "make",
    "perl",
    "rsync",
    "xz-utils",
];
/// Where package `llvm-19` puts the tools under the names that the kernel's `LLVM=1` wants.
const LLVM_BIN: &str = "/usr/lib/llvm-19/bin";
const LLVM_LIB: &str = "/usr/lib/llvm-19/lib";
/// The kernel's Rust support wants 0.71.1 or later.
const BINDGEN: Tool = Tool { package: "bindgen-cli", program: "bindgen", version: "0.72.1" };
/// Builds and runs the targets of `fuzz/`.
pub(crate) const CARGO_FUZZ: Tool = Tool { package: "cargo-fuzz", program: "cargo-fuzz", version: "0.13.2" };
/// Changes the code to see whether a test notices.
pub(crate) const CARGO_MUTANTS: Tool = Tool { package: "cargo-mutants", program: "cargo-mutants", version: "27.1.0" };
/// For fuzzing and Miri only, which no stable compiler can. Dated: two machines with it do the same.
const NIGHTLY: &str = "nightly-2026-05-20";
/// Oldest QEMU known to boot pKVM here.
const QEMU_MAJOR: u32 = 10;
/// Targets: clippy of what runs at EL2, then the guest's programs, then the tool for workstations.
const TARGETS: [&str; 3] =
    ["aarch64-unknown-none-softfloat", "aarch64-unknown-linux-musl", "x86_64-unknown-linux-musl"];
/// The machine emulator.
pub(crate) const QEMU: &str = "qemu-system-aarch64";

/// A program that cargo installs.
pub(crate) struct Tool {
    package: &'static str,
    program: &'static str,
    version: &'static str,
}

impl Tool {
    fn root(&self, ctx: &Ctx) -> PathBuf {
        ctx.cache.join("tools").join(format!("{}-{}", self.program, self.version))
    }
}

/// Makes sure of everything a kernel build needs: packages, Rust parts, bindgen.
///
/// # Errors
///
/// If something cannot be installed.
pub(crate) fn for_kernel(ctx: &Ctx) -> Result<()> {
    apt::install(ctx, &PACKAGES)?;
    rust(ctx)?;
    tool(ctx, &BINDGEN).map(|_| ())
}

/// Makes sure of QEMU.
///
/// # Errors
///
/// If it cannot be installed.
pub(crate) fn qemu(ctx: &Ctx) -> Result<()> {
    if is_on_path(QEMU) && qemu_major(&output(command(QEMU).arg("--version"))?).is_some_and(|major| major >= QEMU_MAJOR)
    {
        return Ok(());
    }
    // Bookworm's own QEMU is 7.2; later releases carry 10.
    if apt::machine_codename()? == "bookworm" {
        apt::install_from_backports(ctx, "qemu-system-arm")
    } else {
        apt::install(ctx, &["qemu-system-arm"])
    }
}

/// Makes sure of the Rust targets and sources of the pinned toolchain.
///
/// # Errors
///
/// If rustup is missing or fails.
pub(crate) fn rust(ctx: &Ctx) -> Result<()> {
    let rustlib = sysroot()?.join("lib/rustlib");
    let has_target = |target: &&str| rustlib.join(target).join("lib").is_dir();
    let targets: Vec<&str> = TARGETS.into_iter().filter(|target| !has_target(target)).collect();
    let has_source = rustlib.join("src/rust/library/core").is_dir();
    if targets.is_empty() && has_source {
        return Ok(());
    }
    ensure!(is_on_path("rustup"), "the toolchain lacks rust-src or {TARGETS:?}, and there is no rustup to add them");
    let step = Step::start(format!("rustup: add {} rust-src", targets.join(" ")));
    // The working directory's rust-toolchain.toml says which toolchain.
    let mut add = command("rustup");
    add.current_dir(&ctx.root).args(["target", "add"]).args(TARGETS);
    step.run(&mut add, &ctx.log("rustup-target"))?;
    let mut add = command("rustup");
    step.run(add.current_dir(&ctx.root).args(["component", "add", "rust-src"]), &ctx.log("rustup-component"))?;
    step.done();
    Ok(())
}

/// Makes sure of the nightly toolchain, with Miri.
///
/// # Errors
///
/// If rustup is missing or fails.
pub(crate) fn nightly(ctx: &Ctx) -> Result<()> {
    let has_all = || -> Result<bool> {
        let root = PathBuf::from(output(nightly_command("rustc").args(["--print", "sysroot"]))?.trim());
        Ok(root.join("bin/cargo-miri").is_file() && root.join("lib/rustlib/src/rust/library/core").is_dir())
    };
    if has_all().unwrap_or(false) {
        return Ok(());
    }
    ensure!(is_on_path("rustup"), "fuzzing and Miri need Rust's {NIGHTLY}, and there is no rustup to install it");
    let step = Step::start(format!("rustup: install {NIGHTLY}"));
    let mut install = command("rustup");
    install.args(["toolchain", "install", NIGHTLY, "--no-self-update", "--profile=minimal"]);
    install.args(["--component=miri", "--component=rust-src"]);
    step.run(&mut install, &ctx.log("rustup-nightly"))?;
    step.done();
    Ok(())
}

/// Returns a command of the nightly toolchain.
pub(crate) fn nightly_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = command(program);
    command.env("RUSTUP_TOOLCHAIN", NIGHTLY);
    command
}

/// Makes sure of a program, in the cache; returns the directory it is in.
///
/// # Errors
///
/// If it cannot be installed.
pub(crate) fn tool(ctx: &Ctx, tool: &Tool) -> Result<PathBuf> {
    let root = tool.root(ctx);
    let bin = root.join("bin");
    if bin.join(tool.program).is_file() {
        return Ok(bin);
    }
    let step = Step::start(format!("cargo: install {} {}", tool.program, tool.version));
    let mut install = command("cargo");
    install.args(["install", tool.package, "--locked", "--version", tool.version, "--root"]).arg(&root);
    // Not in the repository: its .cargo and its target directory are none of the tool's.
    step.run(install.current_dir(&ctx.cache).env_remove("CARGO_TARGET_DIR"), &ctx.log(tool.program))?;
    step.done();
    Ok(bin)
}

/// Returns a command that finds the kernel's tools: LLVM, bindgen, and the pinned rustc without rustup in between.
///
/// # Errors
///
/// If rustc does not run.
pub(crate) fn kernel_command(ctx: &Ctx, program: &str) -> Result<Command> {
    let mut dirs = vec![BINDGEN.root(ctx).join("bin"), sysroot()?.join("bin"), PathBuf::from(LLVM_BIN)];
    dirs.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let mut command = command(program);
    command.env("PATH", std::env::join_paths(dirs)?).env("LIBCLANG_PATH", LLVM_LIB);
    // A user's own flags are not the kernel's.
    for name in ["RUSTFLAGS", "CFLAGS", "LDFLAGS", "ARCH", "CROSS_COMPILE", "CC", "LLVM", "KBUILD_OUTPUT", "O", "V"] {
        command.env_remove(name);
    }
    Ok(command)
}

/// Returns the root of the toolchain in use.
///
/// # Errors
///
/// If rustc does not run.
pub(crate) fn sysroot() -> Result<PathBuf> {
    Ok(Path::new(output(command("rustc").args(["--print", "sysroot"]))?.trim()).to_owned())
}

/// Returns the major version that `qemu --version` tells.
fn qemu_major(version: &str) -> Option<u32> {
    version.strip_prefix("QEMU emulator version ")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_tells_its_major_version() {
        assert_eq!(qemu_major("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2~bpo12+1)\nCopyright"), Some(10));
        assert_eq!(qemu_major("QEMU emulator version 7.2.13 (Debian)"), Some(7));
        assert_eq!(qemu_major("something else"), None);
    }
}
