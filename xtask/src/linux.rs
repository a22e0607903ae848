// SPDX-License-Identifier: MIT OR Apache-2.0
//! Puts s2dump into a Linux source tree, or writes the patches that do.
//!
//! All of ours lives in one directory of the kernel tree; the kernel's own files get a handful of lines, each found by
//! an anchor. Everything is worked out before anything is written, so a tree that does not fit stays as it was.

pub(crate) mod insertions;
mod series;
mod tree;

use crate::ctx::Ctx;
use crate::source;
use anyhow::Result;
use clap::Subcommand;
use std::path::{Path, PathBuf};

/// `cargo xtask linux ...`
#[derive(Subcommand)]
pub(crate) enum Task {
    /// Add s2dump to the kernel tree DIR; changes nothing if something does not fit
    Apply {
        /// Top of a kernel source tree
        dir: PathBuf,
        /// Only tell which files would change
        #[arg(long)]
        check: bool,
    },
    /// Write a `git am`-able series to DIR, against the tree of --kernel-src or else the newest one Debian has
    Patch {
        /// Where the patches go
        dir: PathBuf,
    },
}

/// Performs a task and prints what it did.
///
/// # Errors
///
/// As [`apply`], [`check`] and [`patch`].
pub(crate) fn run(ctx: &Ctx, task: &Task) -> Result<()> {
    match task {
        Task::Apply { dir, check: true } => {
            let files = check(dir, &ctx.root)?;
            print(&files);
            println!("all anchors match; {} files would change", files.len());
        }
        Task::Apply { dir, check: false } => {
            let applied = apply(dir, &ctx.root)?;
            print(&applied.changed);
            println!("{} files changed, {} were right already", applied.changed.len(), applied.kept);
        }
        Task::Patch { dir } => print(&patch(&source::find(ctx)?.tree, &ctx.root, dir)?),
    }
    Ok(())
}

fn print(files: &[PathBuf]) {
    for file in files {
        println!("{}", file.display());
    }
}

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

#[cfg(test)]
mod tests {
    use super::insertions::{INSERTIONS, OWN_DIR};
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::process::Command;
    use tempfile::TempDir;

    fn repo() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
    }

    /// Makes a tree that has nothing of a kernel but the lines with our anchors.
    fn tree() -> TempDir {
        let tree = tempfile::tempdir().expect("temporary directory");
        let mut texts = BTreeMap::<&str, String>::new();
        for insertion in INSERTIONS {
            let text = texts.entry(insertion.file).or_insert_with(|| "first\n".to_owned());
            *text += &format!("\t{} more\nlast\n", insertion.anchor);
        }
        for (file, text) in texts {
            let path = tree.path().join(file);
            fs::create_dir_all(path.parent().expect("in a directory")).expect("directory");
            fs::write(path, text).expect("file");
        }
        tree
    }

    /// Returns all files below `dir`, but for git's own, with contents and times.
    fn files(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(dir).expect("directory").map(|entry| entry.expect("entry")) {
            let path = entry.path();
            if entry.file_name() == ".git" {
                continue;
            } else if path.is_dir() {
                found.extend(files(&path));
            } else {
                let time = entry.metadata().and_then(|metadata| metadata.modified()).expect("time");
                found.insert(path.clone(), (fs::read(path).expect("file"), time));
            }
        }
        found
    }

    #[test]
    fn good_applied_twice_touches_nothing_the_second_time() {
        let tree = tree();
        let would = check(tree.path(), repo()).expect("all anchors match");
        let first = apply(tree.path(), repo()).expect("first time");
        assert_eq!((&first.changed, first.kept), (&would, 0));
        let once = files(tree.path());

        let second = apply(tree.path(), repo()).expect("second time");

        assert_eq!((second.changed.len(), second.kept), (0, would.len()));
        assert_eq!(files(tree.path()), once);
    }

    #[test]
    fn good_what_a_newer_version_has_not_goes_and_what_a_build_left_stays() {
        let tree = tree();
        apply(tree.path(), repo()).expect("applied");
        let own = tree.path().join(OWN_DIR);
        fs::write(own.join("old.c"), "").expect("file");
        fs::write(own.join("old.o"), "").expect("file");

        let again = apply(tree.path(), repo()).expect("applied");

        assert_eq!(again.changed, [Path::new(OWN_DIR).join("old.c")]);
        assert!(!own.join("old.c").exists() && own.join("old.o").exists());
    }

    #[test]
    fn bad_anchor_is_named_and_nothing_is_changed() {
        for insertion in INSERTIONS {
            for (broken, want) in [("", "no line has"), ("a {}\nb {}\n", "occurs 2 times")] {
                let tree = tree();
                let path = tree.path().join(insertion.file);
                let text = fs::read_to_string(&path).expect("file");
                let line = format!("\t{} more\n", insertion.anchor);
                fs::write(&path, text.replace(&line, &broken.replace("{}", insertion.anchor))).expect("file");
                let before = files(tree.path());

                let error = format!("{:#}", apply(tree.path(), repo()).expect_err("broken tree"));

                assert!(error.contains(insertion.file) && error.contains(insertion.anchor), "{error}");
                assert!(error.contains(want), "{error}");
                assert_eq!(files(tree.path()), before);
            }
        }
    }

    #[test]
    fn bad_directory_is_no_kernel_tree() {
        let empty = tempfile::tempdir().expect("temporary directory");
        assert!(apply(empty.path(), repo()).expect_err("empty").to_string().contains("not a Linux source tree"));
    }

    #[test]
    fn good_series_gives_what_apply_gives() {
        let (tree, out) = (tree(), tempfile::tempdir().expect("temporary directory"));
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.args(["-c", "user.name=t", "-c", "user.email=t@invalid", "-C"]).arg(tree.path()).args(arguments);
            assert!(git.status().expect("git").success(), "git {arguments:?}");
        };
        let patches = patch(tree.path(), repo(), out.path()).expect("series");
        assert!(patch(tree.path(), repo(), out.path()).expect_err("not empty now").to_string().contains("already"));
        git(&["init", "--quiet"]);
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message", "base"]);

        for patch in &patches {
            git(&["am", "--quiet", patch.to_str().expect("a plain path")]);
        }

        assert_eq!(patches.len(), 4);
        assert_eq!(check(tree.path(), repo()).expect("anchors"), Vec::<PathBuf>::new());
    }
}
