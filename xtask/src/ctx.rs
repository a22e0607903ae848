// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every task knows: where things are, and what the user asked for.

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Options that every task takes.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Options {
    /// Use this kernel tree, of any origin; it is copied, never changed
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) kernel_src: Option<PathBuf>,
    /// Use the newest packaged kernel source of this series, for example 7.2
    #[arg(long, global = true, value_name = "SERIES", conflicts_with = "kernel_src")]
    pub(crate) kernel_series: Option<String>,
}

/// Where things are.
pub(crate) struct Ctx {
    /// The repository.
    pub(crate) root: PathBuf,
    /// Everything big, outside the repository: `$XDG_CACHE_HOME/s2dump` or `~/.cache/s2dump`.
    pub(crate) cache: PathBuf,
    /// Cargo's target directory.
    pub(crate) target: PathBuf,
    /// Parallel jobs: one per CPU.
    pub(crate) jobs: usize,
    /// What the user asked for.
    pub(crate) options: Options,
}

impl Ctx {
    /// Finds the directories and makes the cache.
    ///
    /// # Errors
    ///
    /// If there is no home directory, or the cache cannot be made.
    pub(crate) fn new(options: Options) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is a directory of the repository")?;
        let cache = match std::env::var_os("XDG_CACHE_HOME") {
            Some(dir) if Path::new(&dir).is_absolute() => PathBuf::from(dir),
            _ => PathBuf::from(std::env::var_os("HOME").context("set HOME or XDG_CACHE_HOME: the cache goes there")?)
                .join(".cache"),
        }
        .join("s2dump");
        if !cache.is_dir() {
            eprintln!("cache: {}", cache.display());
        }
        std::fs::create_dir_all(cache.join("logs")).with_context(|| format!("cannot make {}", cache.display()))?;
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
        let jobs = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(Self { root: root.to_owned(), cache, target, jobs, options })
    }

    /// Returns where a step keeps its output.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.cache.join("logs").join(format!("{name}.log"))
    }
}

/// Takes the lock of a directory in the cache, until the file is dropped: two runs at once would break each other's work.
///
/// # Errors
///
/// If the directory cannot be written.
pub(crate) fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(".lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("    waiting for another run that works in {}", dir.display());
        file.lock()?;
    }
    Ok(file)
}

/// Returns the SHA-256 of some parts as hexadecimal digits; the parts' borders count.
pub(crate) fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(part);
    }
    hex(&hasher.finalize())
}

/// Returns `bytes` as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_tells_where_parts_end() {
        let (a, b): ([&[u8]; 2], [&[u8]; 2]) = ([b"ab", b"c"], [b"a", b"bc"]);
        assert_ne!(hash(a), hash(b));
        assert_eq!(hash(a).len(), 64);
    }
}
