// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel tree with s2dump consists of: planned in full first, then written.
//!
//! A file is replaced by renaming a new one over it, and only if its bytes change: trees made with hard links keep
//! their other name, and make rebuilds what is new.

use super::insertions::{insert, INSERTIONS, OWN_DIR};
use anyhow::{bail, Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Parts of the repository that go into the kernel tree, and their directories under [`OWN_DIR`].
const PARTS: &[(&str, &str)] = &[
    ("linux", ""),
    ("abi/src", "abi"),
    ("vmsa/src", "vmsa"),
    ("hyp/src", "hyp"),
    ("host-driver/src", "host-driver"),
    ("host-driver/kernel", "driver"),
];

/// Files by path from the top of the kernel tree. `None`: to be removed.
pub(crate) type Files = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// Returns what `tree` will hold, without touching it.
///
/// # Errors
///
/// If `tree` is no kernel tree, an anchor does not match, or a file cannot be read.
pub(crate) fn plan(tree: &Path, repo: &Path) -> Result<Files> {
    if !tree.join("arch/arm64/kvm").is_dir() {
        bail!("{}: not a Linux source tree (no arch/arm64/kvm)", tree.display());
    }
    let mut files = Files::new();
    for file in INSERTIONS.iter().map(|insertion| insertion.file).collect::<BTreeSet<_>>() {
        let path = tree.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        files.insert(file.into(), Some(insert(file, &text, INSERTIONS)?.into_bytes()));
    }
    for (part, dir) in PARTS {
        let from = repo.join(part);
        for source in sources(&from)? {
            let bytes = fs::read(from.join(&source)).with_context(|| format!("reading {}", source.display()))?;
            files.insert(Path::new(OWN_DIR).join(dir).join(source), Some(bytes));
        }
    }
    // Or else `make rustfmtcheck` measures our lines by the kernel's rule.
    let format = fs::read(repo.join("rustfmt.toml")).context("reading rustfmt.toml")?;
    files.insert(Path::new(OWN_DIR).join(".rustfmt.toml"), Some(format));
    // What an older version of s2dump had and this one has not.
    let own = tree.join(OWN_DIR);
    if own.is_dir() {
        for old in sources(&own)? {
            files.entry(Path::new(OWN_DIR).join(old)).or_insert(None);
        }
    }
    Ok(files)
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

/// Returns the source files under `dir`, as paths from there: what a build leaves behind is not among them.
fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(sub) = open.pop() {
        let path = dir.join(&sub);
        for entry in fs::read_dir(&path).with_context(|| format!("listing {}", path.display()))? {
            let entry = entry?;
            let name = sub.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                open.push(name);
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
