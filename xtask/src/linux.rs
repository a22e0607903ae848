// SPDX-License-Identifier: MIT OR Apache-2.0
//! Puts s2dump into a Linux source tree, or writes the patches that do.
//!
//! All of ours lives in one directory of the kernel tree; the kernel's own files get a handful of lines, each found by
//! an anchor. Everything is worked out before anything is written, so a tree that does not fit stays as it was.

pub(crate) mod insertions;
mod series;
mod tree;

use anyhow::Result;
use std::path::{Path, PathBuf};

/// What [`apply`] did.
#[derive(Debug)]
pub(crate) struct Applied {
    /// Files of the kernel tree that were written or removed.
    pub(crate) changed: Vec<PathBuf>,
    /// Number of files that were right already, and kept their times.
    pub(crate) kept: usize,
}

/// Puts s2dump of `repo` into the kernel sources at `tree`; once or again, over an older version or not.
///
/// # Errors
///
/// If `tree` is no kernel tree, or an anchor does not match: then nothing is changed. If a file cannot be written.
pub(crate) fn apply(tree: &Path, repo: &Path) -> Result<Applied> {
    let files = tree::plan(tree, repo)?;
    let changed = tree::write(tree, &files)?;
    Ok(Applied { kept: files.len() - changed.len(), changed })
}

/// Returns the files [`apply`] would write or remove, having checked all anchors.
///
/// # Errors
///
/// As [`apply`], but for writing.
pub(crate) fn check(tree: &Path, repo: &Path) -> Result<Vec<PathBuf>> {
    Ok(tree::changes(tree, &tree::plan(tree, repo)?))
}

/// Writes a `git am`-able series against the kernel sources at `tree` to `dir`; returns the patches in order.
///
/// # Errors
///
/// As [`apply`]; or if git fails or `dir` cannot be written.
pub(crate) fn patch(tree: &Path, repo: &Path, dir: &Path) -> Result<Vec<PathBuf>> {
    series::write(tree, &tree::plan(tree, repo)?, dir)
}
