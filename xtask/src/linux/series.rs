// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same change as a `git am`-able series.
//!
//! Made in a throw-away git repository of the touched files only, so the kernel tree need not be one.

use super::insertions::{own_texts, without_ours, OWN_DIR};
use super::tree::Plan;
use anyhow::{bail, Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One patch: what it is called, why it is, and whether it is the one that brings a file.
struct Patch {
    subject: &'static str,
    body: &'static str,
    brings: fn(&Path) -> bool,
}

/// In the order they apply; a file is brought by the first that wants it. The kernel builds after each.
const SERIES: &[Patch] = &[
    Patch {
        subject: "KVM: arm64: s2dump: Add the record format and stage-2 decoding",
        body: "Two Rust libraries without any I/O: what crosses from EL2 to EL1 and user\n\
               space, and what a stage-2 descriptor means. Nothing uses them yet.",
        brings: |file| {
            own(file).is_some_and(|own| ["abi", "vmsa", ".rustfmt.toml"].iter().any(|ours| own.starts_with(ours)))
        },
    },
    Patch {
        subject: "KVM: arm64: s2dump: Walk guest stage-2 tables at EL2",
        body: "Under pKVM the host cannot read the stage-2 tables of its guests. Add a\n\
               hypercall that walks one at EL2, for a bounded number of descriptors, and\n\
               writes what it finds to a page the host shares. It keeps nothing between\n\
               calls and answers only if the kernel was booted with kvm-arm.s2dump=on.",
        brings: |file| match own(file) {
            Some(own) => {
                let name = own.to_string_lossy();
                own.starts_with("hyp")
                    || own.starts_with("el2")
                    || name.starts_with("s2dump_el2")
                    || matches!(&*name, "Kconfig" | "Makefile.hyp" | "s2dump_abi.h")
                    || matches!(&*name, "s2dump_pkvm.h" | "s2dump_pkvm_el2.c")
                    || name.starts_with("s2dump_pkvm_mm")
                    || name.starts_with("s2dump_flavor")
                    || name == "objects/s2dump_rs.o_shipped"
            }
            None => !file.ends_with("kvm/Makefile") && !file.ends_with("ptdump.c"),
        },
    },
    Patch {
        subject: "KVM: arm64: s2dump: Add /dev/s2dump",
        body: "The host side: the boot parameter, a character device that hands the\n\
               records to user space, and files for a VM's debugfs directory.",
        brings: |file| !file.ends_with("ptdump.c"),
    },
    Patch {
        subject: "KVM: arm64: ptdump: Ask EL2 for the tables under pKVM",
        body: "kvm->arch.mmu.pgt is no page table under pKVM, so stage2_page_tables,\n\
               ipa_range and stage2_levels show nonsense. Let s2dump make these files\n\
               when it is on.",
        brings: |_| true,
    },
];

/// Returns the path under our own directory, if `file` is there.
fn own(file: &Path) -> Option<&Path> {
    file.strip_prefix(OWN_DIR).ok()
}

/// Writes the series that makes what is planned for `tree` into `dir`, and returns the patches in order. They
/// are dated now, or so many `seconds` after 1970.
///
/// # Errors
///
/// If git is missing or fails, or `dir` holds patches already or cannot be written.
pub(crate) fn write(tree: &Path, plan: &Plan, dir: &Path, seconds: Option<u64>) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    if !patches(dir)?.is_empty() {
        bail!("{}: has patches already; give another directory, or remove them", dir.display());
    }

    let repository = Repository::new(seconds)?;
    for file in plan.flavor.anchored() {
        let text = fs::read_to_string(tree.join(file)).with_context(|| format!("reading {file}"))?;
        repository
            .put(Path::new(file), without_ours(file, &text, &own_texts(file, plan.flavor.insertions))?.as_bytes())?;
    }
    repository.commit("base", "")?;

    let mut left: Vec<(&PathBuf, &Vec<u8>)> =
        plan.files.iter().filter_map(|(path, bytes)| Some((path, bytes.as_ref()?))).collect();
    let mut count = 0;
    for patch in SERIES {
        let brought: Vec<_> = left.extract_if(.., |(path, _)| (patch.brings)(path)).collect();
        // Without Rust sources the first has nothing to bring.
        if brought.is_empty() {
            continue;
        }
        for (path, bytes) in brought {
            repository.put(path, bytes)?;
        }
        repository.commit(patch.subject, patch.body)?;
        count += 1;
    }

    let dir = dir.canonicalize()?;
    let since = format!("-{count}");
    repository
        .git(["format-patch", "--quiet", "--binary", "--no-signature", &since, "--output-directory"], Some(&dir))?;
    patches(&dir)
}

fn patches(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "patch") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// A git repository that goes away with the value.
struct Repository {
    dir: PathBuf,
    seconds: Option<u64>,
}

impl Repository {
    fn new(seconds: Option<u64>) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("s2dump-series-{}", std::process::id()));
        let repository = Self { dir, seconds };
        fs::create_dir(&repository.dir).with_context(|| format!("making {}", repository.dir.display()))?;
        repository.git(["init", "--quiet"], None)?;
        Ok(repository)
    }

    fn put(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let to = self.dir.join(path);
        if let Some(dir) = to.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(&to, bytes).with_context(|| format!("writing {}", to.display()))
    }

    fn commit(&self, subject: &str, body: &str) -> Result<()> {
        // --force: what the user ignores globally (build/, *.rs.bk) is of no concern here.
        self.git(["add", "--all", "--force"], None)?;
        self.git(["commit", "--quiet", "--no-verify", "--message", &format!("{subject}\n\n{body}")], None)
    }

    /// Runs git as nobody in particular: who sends the patches signs them off.
    fn git<const N: usize>(&self, arguments: [&str; N], last: Option<&Path>) -> Result<()> {
        let mut git = Command::new("git");
        git.arg("-C").arg(&self.dir).args(["-c", "user.name=s2dump", "-c", "user.email=s2dump@invalid"]);
        git.args(["-c", "commit.gpgsign=false", "-c", "core.autocrlf=false"]).args(arguments).args(last);
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL"] {
            git.env_remove(name);
        }
        if let Some(seconds) = self.seconds {
            let date = format!("@{seconds} +0000");
            git.env("GIT_AUTHOR_DATE", &date).env("GIT_COMMITTER_DATE", &date);
        }
        let output = git.output().context("running git; is it installed?")?;
        if !output.status.success() {
            bail!("git {} failed:\n{}", arguments[0], String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        // Nothing to do about a temporary directory that cannot be removed.
        let _ = fs::remove_dir_all(&self.dir);
    }
}
