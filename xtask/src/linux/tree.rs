// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel tree with s2dump consists of: planned in full first, then written.
//!
//! A file is replaced by renaming a new one over it, and only if its bytes change: trees made with hard links keep
//! their other name, and make rebuilds what is new.

use super::flavors::{self, Flavor};
use super::insertions::{insert, OWN_DIR};
use super::objects::Objects;
use anyhow::{bail, Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Part of the repository that goes into every kernel tree.
const COMMON: (&str, &str) = ("linux", "");
/// What goes there too if the kernel compiles our Rust, with directories under [`OWN_DIR`].
const SOURCES: &[(&str, &str)] = &[
    ("abi/src", "abi"),
    ("vmsa/src", "vmsa"),
    ("hyp/src", "hyp"),
    ("host-driver/src", "host-driver"),
    ("host-driver/kernel", "driver"),
];
/// What goes there too if it does not.
const WITHOUT_RUST: (&str, &str) = ("linux/without-rust", "");

/// Directories in `linux/` that are not for every tree: of one flavor, and [`WITHOUT_RUST`].
const SPECIAL_DIRS: [&str; 2] = ["flavor-", "without-rust"];
/// File under [`OWN_DIR`] that lists the files there that are ours: what else is there belongs to somebody else.
const MANIFEST: &str = ".files";

/// How our Rust gets into a kernel tree.
#[derive(Clone, Debug)]
pub(crate) enum Rust {
    /// The kernel compiles it.
    Sources,
    /// It is compiled already.
    Objects(Objects),
}

/// Files by path from the top of the kernel tree. `None`: to be removed.
pub(crate) type Files = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// What a kernel tree will hold.
pub(crate) struct Plan {
    /// Its flavor.
    pub(crate) flavor: &'static Flavor,
    /// Its files, as far as they are our concern.
    pub(crate) files: Files,
}

/// Returns what `tree` will hold, without touching it.
///
/// # Errors
///
/// If `tree` is no kernel tree, of no known flavor or of one that cannot compile our Rust sources, an anchor does not match, a line that is not ours names s2dump, or a
/// file cannot be read.
pub(crate) fn plan(tree: &Path, repo: &Path, rust: &Rust) -> Result<Plan> {
    if !tree.join("arch/arm64/kvm").is_dir() {
        bail!("{}: not a Linux source tree (no arch/arm64/kvm)", tree.display());
    }
    let flavor = flavors::of(tree)?;
    if flavor.needs_objects && matches!(rust, Rust::Sources) {
        bail!("{}: of flavor {}, which cannot compile our Rust: it needs --objects", tree.display(), flavor.name);
    }
    let mut files = Files::new();
    for file in flavor.anchored() {
        let path = tree.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        files.insert(file.into(), Some(insert(file, &text, flavor.insertions)?.into_bytes()));
    }
    let own = own_files(repo, flavor, rust)?;
    // What an older version of s2dump had and this one has not.
    for old in manifest(tree)?.into_iter().filter(|old| !own.contains_key(old)) {
        files.insert(Path::new(OWN_DIR).join(old), None);
    }
    files.extend(own.into_iter().map(|(path, bytes)| (Path::new(OWN_DIR).join(path), Some(bytes))));
    Ok(Plan { flavor, files })
}

/// Returns our own files for a flavor, by their paths under [`OWN_DIR`].
fn own_files(repo: &Path, flavor: &Flavor, rust: &Rust) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let more = match rust {
        Rust::Sources => SOURCES,
        Rust::Objects(_) => &[WITHOUT_RUST],
    };
    for (part, dir) in [COMMON, (flavor.files, "")].iter().chain(more) {
        let from = repo.join(part);
        for source in sources(&from)? {
            let is_rust = source.extension().is_some_and(|extension| extension == "rs");
            if is_rust && matches!(rust, Rust::Objects(_)) {
                continue;
            }
            let bytes = fs::read(from.join(&source)).with_context(|| format!("reading {}", source.display()))?;
            let to = Path::new(dir).join(source);
            if files.contains_key(&to) {
                bail!("{part}: {} is among the common files too", to.display());
            }
            files.insert(to, bytes);
        }
    }
    match rust {
        // Or else `make rustfmtcheck` measures our lines by the kernel's rule.
        Rust::Sources => {
            files.insert(".rustfmt.toml".into(), fs::read(repo.join("rustfmt.toml")).context("reading rustfmt.toml")?);
        }
        Rust::Objects(objects) => files.extend(objects.files().map(|(path, bytes)| (path, bytes.to_owned()))),
    }
    let names: Vec<&str> = files.keys().filter_map(|path| path.to_str()).chain([MANIFEST]).collect();
    let manifest = names.iter().map(|name| format!("{name}\n")).collect::<String>();
    files.insert(MANIFEST.into(), manifest.into_bytes());
    Ok(files)
}

/// Returns which files under [`OWN_DIR`] an earlier version put there. Versions up to ABI 1.1 wrote no manifest: of those,
/// the files that are ours no more. They must go, because a module that has become a directory must not be a file too.
fn manifest(tree: &Path) -> Result<Vec<PathBuf>> {
    let path = tree.join(OWN_DIR).join(MANIFEST);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(former_files(&tree.join(OWN_DIR))),
        read => read.with_context(|| format!("reading {}", path.display()))?,
    };
    let is_below = |name: &&str| Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    Ok(text.lines().filter(is_below).map(PathBuf::from).collect())
}

/// Files of versions up to ABI 1.1 that this one does not have.
const FORMER_FILES: [&str; 4] = ["host-driver/slot.rs", "hyp/slot.rs", "hyp/tables.rs", "vmsa/pkvm.rs"];

/// Returns which of [`FORMER_FILES`] are in `own`.
fn former_files(own: &Path) -> Vec<PathBuf> {
    FORMER_FILES.into_iter().map(PathBuf::from).filter(|file| own.join(file).is_file()).collect()
}

/// Makes `tree` hold `files`, and returns those that were not so already.
///
/// # Errors
///
/// If a file cannot be written or removed.
pub(crate) fn write(tree: &Path, files: &Files) -> Result<Vec<PathBuf>> {
    let mut changed = Vec::new();
    for (path, bytes) in files {
        let to = tree.join(path);
        if differs(&to, bytes.as_deref()) {
            match bytes {
                Some(bytes) => replace(&to, bytes),
                None => fs::remove_file(&to),
            }
            .with_context(|| format!("writing {}", to.display()))?;
            if bytes.is_none() {
                // Kbuild asks which directories there are. One with other files in it stays.
                let _ = to.parent().map(fs::remove_dir);
            }
            changed.push(path.clone());
        }
    }
    Ok(changed)
}

/// Returns those of `files` that `tree` does not hold so already.
pub(crate) fn changes(tree: &Path, files: &Files) -> Vec<PathBuf> {
    files
        .iter()
        .filter(|(path, bytes)| differs(&tree.join(path), bytes.as_deref()))
        .map(|(path, _)| path.clone())
        .collect()
}

fn differs(path: &Path, want: Option<&[u8]>) -> bool {
    fs::read(path).ok().as_deref() != want
}

fn replace(to: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut temporary = to.as_os_str().to_owned();
    temporary.push(".s2dump-new");
    fs::write(&temporary, bytes)?;
    if let Ok(old) = fs::metadata(to) {
        fs::set_permissions(&temporary, old.permissions())?;
    }
    fs::rename(&temporary, to)
}

/// Returns the source files under `dir`, as paths from there: what a build leaves behind is not among them, nor what is not
/// for every tree.
fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(sub) = open.pop() {
        let path = dir.join(&sub);
        for entry in fs::read_dir(&path).with_context(|| format!("listing {}", path.display()))? {
            let entry = entry?;
            let name = sub.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                // Those are asked for by their own names.
                let dir = entry.file_name();
                if !SPECIAL_DIRS.iter().any(|special| dir.to_string_lossy().starts_with(special)) {
                    open.push(name);
                }
            } else if is_source(&name) {
                found.push(name);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_source(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("c" | "h" | "rs")) || matches!(name, "Kconfig" | "Makefile" | "Makefile.hyp")
}
