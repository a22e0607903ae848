// SPDX-License-Identifier: MIT OR Apache-2.0
//! Puts s2dump into a Linux source tree, or writes the patches that do.
//!
//! All of ours lives in one directory of the kernel tree; the kernel's own files get a handful of lines, each found by
//! an anchor. Which lines and which of our files, the tree's flavor decides; whether our Rust comes as sources or as objects,
//! the flavor or the user. Everything is worked out before anything is written, so a tree that does not fit stays as it was.

pub(crate) mod flavors;
pub(crate) mod insertions;
pub(crate) mod objects;
mod series;
mod tree;

pub(crate) use tree::Rust;

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
        /// Bring s2dump's Rust compiled, for a kernel without CONFIG_RUST. Some flavors need that, and get it unasked
        #[arg(long)]
        objects: bool,
    },
    /// List the kinds of kernel tree that are known, and how each is told
    Flavors,
    /// Write a `git am`-able series to DIR, against the tree of --kernel-src or else the newest one Debian has
    Patch {
        /// Where the patches go
        dir: PathBuf,
        /// As of `apply`; the patches hold the objects then
        #[arg(long)]
        objects: bool,
    },
}

/// Performs a task and prints what it did.
///
/// # Errors
///
/// As [`apply`], [`check`] and [`patch`].
pub(crate) fn run(ctx: &Ctx, task: &Task) -> Result<()> {
    match task {
        Task::Apply { dir, check: true, objects } => {
            let files = check(dir, &ctx.root, &rust(ctx, dir, *objects)?)?;
            print(&files);
            println!("flavor {}: all anchors match; {} files would change", flavors::of(dir)?.name, files.len());
        }
        Task::Apply { dir, check: false, objects } => {
            let applied = apply(dir, &ctx.root, &rust(ctx, dir, *objects)?)?;
            print(&applied.changed);
            let (name, changed) = (applied.flavor.name, applied.changed.len());
            println!("flavor {name}: {changed} files changed, {} were right already", applied.kept);
        }
        Task::Flavors => print!("{}", flavors::list()),
        Task::Patch { dir, objects } => {
            let tree = source::find(ctx)?.tree;
            print(&patch(&tree, &ctx.root, &rust(ctx, &tree, *objects)?, dir, None)?);
        }
    }
    Ok(())
}

/// Returns how our Rust gets into `tree`: compiled if it is asked for so, or if the tree's flavor needs it.
///
/// # Errors
///
/// If the tree is of no known flavor, or the objects cannot be built.
pub(crate) fn rust(ctx: &Ctx, tree: &Path, objects: bool) -> Result<Rust> {
    // A tree of no flavor is refused before anything is built.
    let flavor = flavors::of(tree)?;
    if objects || flavor.needs_objects {
        Ok(Rust::Objects(objects::build(ctx)?))
    } else {
        Ok(Rust::Sources)
    }
}

fn print(files: &[PathBuf]) {
    for file in files {
        println!("{}", file.display());
    }
}

/// What [`apply`] did.
#[derive(Debug)]
pub(crate) struct Applied {
    /// What kind of tree it is.
    pub(crate) flavor: &'static flavors::Flavor,
    /// Files of the kernel tree that were written or removed.
    pub(crate) changed: Vec<PathBuf>,
    /// Number of files that were right already, and kept their times.
    pub(crate) kept: usize,
}

/// Puts s2dump of `repo` into the kernel sources at `tree`; once or again, over an older version or not.
///
/// # Errors
///
/// If `tree` is no kernel tree, of no known flavor or of one that needs objects, an anchor does not match, or a line that is
/// not ours names s2dump: then nothing is changed. If a file cannot be written.
pub(crate) fn apply(tree: &Path, repo: &Path, rust: &Rust) -> Result<Applied> {
    let tree::Plan { flavor, files } = tree::plan(tree, repo, rust)?;
    let changed = tree::write(tree, &files)?;
    Ok(Applied { flavor, kept: files.len() - changed.len(), changed })
}

/// Returns the files [`apply`] would write or remove, having checked all anchors.
///
/// # Errors
///
/// As [`apply`], but for writing.
pub(crate) fn check(tree: &Path, repo: &Path, rust: &Rust) -> Result<Vec<PathBuf>> {
    Ok(tree::changes(tree, &tree::plan(tree, repo, rust)?.files))
}

/// Writes a `git am`-able series against the kernel sources at `tree` to `dir`; returns the patches in order. They
/// are dated now, or so many `seconds` after 1970.
///
/// # Errors
///
/// As [`apply`]; or if git fails or `dir` cannot be written.
pub(crate) fn patch(tree: &Path, repo: &Path, rust: &Rust, dir: &Path, seconds: Option<u64>) -> Result<Vec<PathBuf>> {
    series::write(tree, &tree::plan(tree, repo, rust)?, dir, seconds)
}

#[cfg(test)]
mod tests {
    use super::flavors::tests::stub;
    use super::flavors::FLAVORS;
    use super::insertions::OWN_DIR;
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::process::Command;
    use tempfile::TempDir;

    fn repo() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
    }

    fn tree() -> TempDir {
        stub(&FLAVORS[0])
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
        let would = check(tree.path(), repo(), &Rust::Sources).expect("all anchors match");
        let first = apply(tree.path(), repo(), &Rust::Sources).expect("first time");
        assert_eq!((&first.changed, first.kept), (&would, 0));
        let once = files(tree.path());

        let second = apply(tree.path(), repo(), &Rust::Sources).expect("second time");

        assert_eq!((second.changed.len(), second.kept), (0, would.len()));
        assert_eq!(files(tree.path()), once);
    }

    #[test]
    fn good_what_a_newer_version_has_not_goes_and_what_is_not_ours_stays() {
        let tree = tree();
        apply(tree.path(), repo(), &Rust::Sources).expect("applied");
        let own = tree.path().join(OWN_DIR);
        let manifest = own.join(".files");
        let listed = fs::read_to_string(&manifest).expect("manifest") + "old.c\n../../mine.c\n";
        fs::write(&manifest, listed).expect("file");
        for file in ["old.c", "mine.c", "old.o", "../../mine.c"] {
            fs::write(own.join(file), "").expect("file");
        }

        let again = apply(tree.path(), repo(), &Rust::Sources).expect("applied");

        assert_eq!(again.changed, [".files", "old.c"].map(|file| Path::new(OWN_DIR).join(file)));
        assert!(["mine.c", "old.o", "../../mine.c"].iter().all(|file| own.join(file).exists()));
    }

    /// Versions up to ABI 1.1 left no list of their files.
    #[test]
    fn good_what_a_version_without_list_had_goes() {
        let tree = tree();
        apply(tree.path(), repo(), &Rust::Sources).expect("applied");
        let own = tree.path().join(OWN_DIR);
        fs::remove_file(own.join(".files")).expect("file");
        for file in ["vmsa/pkvm.rs", "vmsa/mine.rs", "s2dump_mine.c"] {
            fs::write(own.join(file), "").expect("file");
        }

        let again = apply(tree.path(), repo(), &Rust::Sources).expect("applied");

        let changed = [".files", "vmsa/pkvm.rs"].map(|file| Path::new(OWN_DIR).join(file));
        assert_eq!(again.changed, changed);
        assert!(["vmsa/mine.rs", "s2dump_mine.c"].iter().all(|file| own.join(file).exists()));
    }

    #[test]
    fn bad_line_of_somebody_else_is_refused_and_nothing_is_changed() {
        for applied in [false, true] {
            for file in FLAVORS[0].anchored() {
                let tree = tree();
                if applied {
                    apply(tree.path(), repo(), &Rust::Sources).expect("applied");
                }
                let path = tree.path().join(file);
                let text = fs::read_to_string(&path).expect("file");
                fs::write(&path, format!("/* hook for S2dump */\n{text}")).expect("file");
                let before = files(tree.path());

                let error =
                    format!("{:#}", apply(tree.path(), repo(), &Rust::Sources).expect_err("somebody else's line"));

                assert!(error.contains(&format!("{file}:1: `/* hook for S2dump */`")), "{error}");
                assert_eq!(files(tree.path()), before);
            }
        }
    }

    #[test]
    fn bad_unknown_flavor_changes_nothing() {
        let tree = tree();
        let path = tree.path().join("arch/arm64/kvm/hyp/nvhe/pkvm.c");
        fs::write(&path, "static DEFINE_HYP_RWLOCK(vm_table_lock);\n").expect("file");
        let before = files(tree.path());

        let error = format!("{:#}", apply(tree.path(), repo(), &Rust::Sources).expect_err("another flavor"));

        assert!(error.contains("not mainline") && error.contains("no `DEFINE_HYP_RWLOCK(vm_table_lock)`"), "{error}");
        assert_eq!(files(tree.path()), before);
    }

    #[test]
    fn bad_anchor_is_named_and_nothing_is_changed() {
        for insertion in FLAVORS[0].insertions {
            for (broken, want) in [("", "no line has"), ("a {}\nb {}\n", "occurs 2 times")] {
                let tree = tree();
                let path = tree.path().join(insertion.file);
                let text = fs::read_to_string(&path).expect("file");
                let line = format!("\t{} more\n", insertion.anchor);
                fs::write(&path, text.replace(&line, &broken.replace("{}", insertion.anchor))).expect("file");
                let before = files(tree.path());

                let error = format!("{:#}", apply(tree.path(), repo(), &Rust::Sources).expect_err("broken tree"));

                assert!(error.contains(insertion.file) && error.contains(insertion.anchor), "{error}");
                assert!(error.contains(want), "{error}");
                assert_eq!(files(tree.path()), before);
            }
        }
    }

    #[test]
    fn bad_directory_is_no_kernel_tree() {
        let empty = tempfile::tempdir().expect("temporary directory");
        assert!(apply(empty.path(), repo(), &Rust::Sources)
            .expect_err("empty")
            .to_string()
            .contains("not a Linux source tree"));
    }

    /// Of no meaning, but not text: each byte there is.
    fn objects() -> Rust {
        Rust::Objects(objects::Objects([(0..=255).collect(), (0..=255).rev().collect()]))
    }

    #[test]
    fn good_objects_come_in_place_of_all_rust() {
        let tree = tree();
        apply(tree.path(), repo(), &Rust::Sources).expect("sources");
        let own = tree.path().join(OWN_DIR);
        assert!(own.join("el2/s2dump_el2.rs").exists() && !own.join(objects::DIR).exists());

        apply(tree.path(), repo(), &objects()).expect("objects");

        let names: Vec<String> = files(&own).keys().map(|path| path.display().to_string()).collect();
        assert!(!names.iter().any(|name| name.ends_with(".rs")), "{names:?}");
        let Rust::Objects(brought) = objects() else { unreachable!() };
        for (path, bytes) in brought.files() {
            assert_eq!(fs::read(own.join(path)).expect("an object"), bytes);
        }
        assert!(own.join("s2dump_device.c").exists());

        apply(tree.path(), repo(), &Rust::Sources).expect("sources again");
        assert!(!own.join(objects::DIR).exists() && !own.join("s2dump_device.c").exists());
    }

    #[test]
    fn bad_sources_for_a_flavor_that_cannot_compile_them() {
        for flavor in FLAVORS.iter().filter(|flavor| flavor.needs_objects) {
            let tree = stub(flavor);
            let before = files(tree.path());
            let error = format!("{:#}", apply(tree.path(), repo(), &Rust::Sources).expect_err("no Rust there"));
            assert!(error.contains(flavor.name) && error.contains("--objects"), "{error}");
            assert_eq!(files(tree.path()), before);
        }
    }

    #[test]
    fn good_each_flavor_takes_objects_once_and_again() {
        for flavor in FLAVORS {
            let tree = stub(flavor);
            let first = apply(tree.path(), repo(), &objects()).expect("first time");
            assert_eq!((first.flavor.name, first.kept), (flavor.name, 0));
            let second = apply(tree.path(), repo(), &objects()).expect("second time");
            assert_eq!(second.changed, Vec::<PathBuf>::new());
        }
    }

    #[test]
    fn good_series_gives_what_apply_gives() {
        let series = |flavor: &flavors::Flavor, rust: &Rust| -> usize {
            let (tree, out) = (stub(flavor), tempfile::tempdir().expect("temporary directory"));
            series_gives_what_apply_gives(tree.path(), rust, out.path())
        };
        assert_eq!(series(&FLAVORS[0], &Rust::Sources), 4);
        for flavor in FLAVORS {
            assert_eq!(series(flavor, &objects()), 3, "{}: nothing but the objects is Rust", flavor.name);
        }
    }

    /// Returns how many patches there are.
    fn series_gives_what_apply_gives(tree: &Path, rust: &Rust, out: &Path) -> usize {
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.args(["-c", "user.name=t", "-c", "user.email=t@invalid", "-C"]).arg(tree).args(arguments);
            assert!(git.status().expect("git").success(), "git {arguments:?}");
        };
        let patches = patch(tree, repo(), rust, out, None).expect("series");
        assert!(patch(tree, repo(), rust, out, None).expect_err("not empty now").to_string().contains("already"));
        git(&["init", "--quiet"]);
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message", "base"]);

        for patch in &patches {
            git(&["am", "--quiet", patch.to_str().expect("a plain path")]);
        }

        assert_eq!(check(tree, repo(), rust).expect("anchors"), Vec::<PathBuf>::new());
        patches.len()
    }
}
