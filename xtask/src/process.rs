// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs commands. One that fails is printed in full.

use anyhow::{bail, Context, Result};
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

/// Makes a command without what `cargo run` left in the environment, which would change how `make` or `cargo` work.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name_str = name.to_string_lossy();
        let of_cargo_run = name_str.starts_with("CARGO_PKG_")
            || name_str.starts_with("CARGO_MANIFEST_")
            || ["CARGO", "LD_LIBRARY_PATH", "MAKEFLAGS", "MFLAGS", "RUST_RECURSION_COUNT"].contains(&&*name_str);
        if of_cargo_run {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Returns the command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Returns what a command prints to its standard output.
///
/// # Errors
///
/// If it cannot be started, or exits non-zero: with the command and its standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run `{}`", shown(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({})\n{}", shown(command), output.status, stderr.trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` printed no UTF-8", shown(command)))
}

/// Returns whether a program of this name is on the search path.
pub(crate) fn is_on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| is_file(&dir.join(program))))
}

/// Returns whether a path names a regular file.
fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}
