// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debian's programs for the test machine, with the libraries that they name: fetched once, and kept in the cache.

use crate::apt::{self, PrivateApt};
use crate::ctx::{hash, Ctx};
use anyhow::{Context, Result};
use object::read::elf::ElfFile64;
use object::{Endianness, Object};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A shell and its commands; an ssh server and its client; those of Android.
const PACKAGES: [&str; 4] = ["busybox-static:arm64", "dropbear-bin:arm64", "adb:arm64", "adbd:arm64"];
/// What is taken out of them.
const PROGRAMS: [&str; 6] = ["busybox", "dbclient", "dropbear", "dropbearkey", "adb", "adbd"];
/// Where packages have programs; where depends on the release.
const PROGRAM_DIRS: [&str; 5] = ["bin", "usr/bin", "sbin", "usr/sbin", "usr/lib/android-sdk/platform-tools"];
/// Likewise, libraries and what loads them.
const LIBRARY_DIRS: [&str; 5] =
    ["lib", "usr/lib", "lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu/android"];

/// Returns the files, each by its place in the machine.
///
/// # Errors
///
/// If a package cannot be fetched, or one that a program depends on does not hold a library that the program names.
pub(super) fn files(ctx: &Ctx) -> Result<BTreeMap<String, PathBuf>> {
    // Another list is another directory.
    let list = hash(PACKAGES.iter().chain(&PROGRAMS).map(|name| name.as_bytes()));
    let cached = ctx.cache.join("tools").join(format!("guest-{}", &list[..12]));
    if !cached.is_dir() {
        let codename = apt::machine_codename()?;
        // Debian 12 has the Android daemon in its backports only.
        let apt = PrivateApt::fetch(ctx, "arm64", &[&codename, &format!("{codename}-backports")], Some("arm64"))?;
        let packages = apt.with_dependencies(&PACKAGES)?;
        let root = apt.download(ctx, &packages.iter().map(String::as_str).collect::<Vec<_>>())?;
        // Copied, then renamed: a directory that is there is whole.
        let part = cached.with_extension("part");
        let _ = std::fs::remove_dir_all(&part); // left by an interrupted run
        for (path, file) in chosen(&root)? {
            let to = part.join(path);
            std::fs::create_dir_all(to.parent().context("a file is in a directory")?)?;
            std::fs::copy(file, to)?;
        }
        std::fs::rename(part, &cached)?;
    }
    let mut files = BTreeMap::new();
    for dir in ["bin", "lib"] {
        for file in std::fs::read_dir(cached.join(dir))? {
            let file = file?;
            files.insert(format!("{dir}/{}", file.file_name().to_string_lossy()), file.path());
        }
    }
    Ok(files)
}

/// Returns the programs and all libraries that they need, of what is unpacked at `root`.
fn chosen(root: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut open = Vec::new();
    for name in PROGRAMS {
        let file = find(root, &PROGRAM_DIRS, name).with_context(|| format!("{name} is not in {PACKAGES:?}"))?;
        open.push((format!("bin/{name}"), file));
    }
    let mut chosen = BTreeMap::new();
    while let Some((path, file)) = open.pop() {
        if chosen.contains_key(&path) {
            continue;
        }
        for name in needed(&file)? {
            let lacks = || format!("{path} needs {name}, which is in none of the packages that it depends on");
            open.push((format!("lib/{name}"), find(root, &LIBRARY_DIRS, &name).with_context(lacks)?));
        }
        chosen.insert(path, file);
    }
    Ok(chosen)
}

fn find(root: &Path, dirs: &[&str], name: &str) -> Option<PathBuf> {
    dirs.iter().map(|dir| root.join(dir).join(name)).find(|file| file.is_file())
}

/// Returns the libraries that a program or library names. The one that loads the others is among them: the C library names it.
fn needed(file: &Path) -> Result<Vec<String>> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let not_elf = || format!("{} is no program", file.display());
    let elf = ElfFile64::<Endianness>::parse(&*bytes).with_context(not_elf)?;
    let name = |library: object::Result<object::ImportLibrary<'_>>| Ok(String::from_utf8(library?.name().to_vec())?);
    elf.import_libraries()?.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::needed;

    #[test]
    fn a_program_names_its_libraries() {
        let names = needed(&std::env::current_exe().unwrap()).unwrap();
        assert!(names.iter().any(|name| name == "libc.so.6"), "{names:?}");
        assert!(needed("/dev/null".as_ref()).is_err());
    }
}
