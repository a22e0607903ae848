// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask dist`: what people install, as tarballs.
//!
//! One for each machine with the static binary, its manual pages and completions, and one with the patches for a kernel.
//! The same commit gives the same bytes: files are sorted, owned by root, and as old as the commit.

mod archive;
mod check;
mod crates;

pub(crate) use check::{check, NAME};

use crate::ctx::{hex, Ctx};
use crate::process::{command, output};
use crate::step::Step;
use crate::{linux, setup, source};
use anyhow::{bail, ensure, Context, Result};
use archive::{File, Files};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Targets of the binary: a device's and a workstation's. All static.
const TARGETS: [&str; 2] = ["aarch64-unknown-linux-musl", "x86_64-unknown-linux-musl"];
/// The promise for the first: it is sent to devices.
const MOST_DEVICE_BYTES: usize = 1_200_000;
const CHECKSUMS: &str = "SHA256SUMS";
/// What comes with a binary as it is in the repository; all of `docs/` too.
const DOCUMENTS: [&str; 5] = ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-GPL-2.0", "LICENSE-MIT"];
/// What comes with the patches.
const KERNEL_DOCUMENTS: [&str; 2] = ["linux/README.md", "LICENSE-GPL-2.0"];
/// The C library of the static binaries.
const MUSL: &str =
    "==== musl: LICENSE-MIT\n\nCopyright (c) 2005-2020 Rich Felker and others; the text is in LICENSE-MIT.\n";
/// Where documents are, below the prefix.
const DOC_DIR: &str = "share/doc/s2dump";

/// Arguments of the task.
#[derive(clap::Args)]
pub(crate) struct Dist {
    /// Where the tarballs go; what is there of an earlier run is replaced
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Only the tarballs of the tool: no patches, for which a kernel source is needed
    #[arg(long)]
    no_kernel: bool,
    /// Go on although files differ from the commit; the version says so then
    #[arg(long)]
    dirty: bool,
}

/// Makes the tarballs and prints their sizes.
///
/// # Errors
///
/// If the tree is not as committed, a build fails, or the device's binary is larger than promised.
pub(crate) fn run(ctx: &Ctx, dist: &Dist) -> Result<()> {
    ensure!(
        dist.dirty || output(command("git").current_dir(&ctx.root).args(["status", "--porcelain"]))?.is_empty(),
        "files differ from the commit, so nobody could make this again: commit them, or use --dirty"
    );
    let out = dist.out.clone().unwrap_or_else(|| ctx.target.join("dist"));
    let tarballs = make(ctx, !dist.no_kernel)?;
    for path in write(&out, &tarballs)? {
        println!("{}", path.display());
    }
    Ok(())
}

/// A tarball.
struct Tarball {
    /// Without `.tar.gz`: also the directory in it.
    top: String,
    bytes: Vec<u8>,
}

/// Makes all tarballs.
fn make(ctx: &Ctx, with_kernel: bool) -> Result<Vec<Tarball>> {
    setup::rust(ctx)?;
    let (seconds, version) = (commit_time(ctx)?, version(ctx));
    let pages = pages(ctx)?;
    let mut tarballs = Vec::new();
    for target in TARGETS {
        let top = format!("s2dump-{version}-{}-linux", machine(target));
        let files = tool(ctx, target, &pages)?;
        tarballs.push(Tarball { bytes: archive::pack(&top, &files, seconds)?, top });
    }
    if with_kernel {
        let source = source::find(ctx)?;
        // Of a packaged source its version; what follows is of the package.
        let kernel = source.name.split('-').next().unwrap_or(&source.name);
        let top = format!("s2dump-{version}-patches-{kernel}");
        tarballs.push(Tarball { bytes: archive::pack(&top, &patches(ctx, &source.tree, seconds)?, seconds)?, top });
    }
    Ok(tarballs)
}

/// Writes tarballs and their checksums into a directory; returns the paths.
fn write(out: &Path, tarballs: &[Tarball]) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut sums = String::new();
    let mut paths = Vec::new();
    let mut put = |name: &str, bytes: &[u8]| -> Result<()> {
        let path = out.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        paths.push(path);
        Ok(())
    };
    for Tarball { top, bytes } in tarballs {
        let name = format!("{top}.tar.gz");
        sums += &format!("{}  {name}\n", hex(&Sha256::digest(bytes)));
        put(&name, bytes)?;
    }
    put(CHECKSUMS, sums.as_bytes())?;
    Ok(paths)
}

/// Returns the machine of a target, as `uname -m` says it.
fn machine(target: &str) -> &str {
    target.split('-').next().unwrap_or(target)
}

/// Returns the version: that of the package where the commit has its tag, else with the commit behind it, if git knows one.
fn version(ctx: &Ctx) -> String {
    let package = env!("CARGO_PKG_VERSION");
    let git = |words: &[&str]| output(command("git").current_dir(&ctx.root).args(words));
    let is_release =
        git(&["tag", "--points-at", "HEAD"]).is_ok_and(|tags| tags.lines().any(|tag| tag == format!("v{package}")));
    match git(&["rev-parse", "--short=12", "HEAD"]) {
        Ok(commit) if !is_release => format!("{package}-g{}", commit.trim()),
        _ => package.to_owned(),
    }
}

/// Returns the time of the commit, in seconds since 1970; of sources without git what `SOURCE_DATE_EPOCH` says.
fn commit_time(ctx: &Ctx) -> Result<u64> {
    let time = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(time) => time,
        Err(_) => output(command("git").current_dir(&ctx.root).args(["log", "-1", "--format=%ct"]))
            .context("how old are these sources? Use a clone, or set SOURCE_DATE_EPOCH")?,
    };
    time.trim().parse().with_context(|| format!("`{}` is no time in seconds since 1970", time.trim()))
}

/// Builds the static binary for `target`; returns where it is.
///
/// # Errors
///
/// If the build fails.
pub(crate) fn program(ctx: &Ctx, target: &str) -> Result<PathBuf> {
    let step = Step::start(format!("dist: build s2dump for {target}"));
    let mut cargo = command("cargo");
    cargo.current_dir(&ctx.root).args(["build", "--release", "--locked", "--package", "s2dump", "--bins"]);
    cargo.args(["--target", target]);
    // Messages of a panic name source files: not where they are on this machine. A directory of its own, because flags differ.
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let home = home.context("set HOME or CARGO_HOME: crates are there")?;
    let library = setup::sysroot()?.join("lib/rustlib/src/rust");
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    // What the first round of outlining leaves alike is 4 KB.
    let smaller = "-Cllvm-args=--machine-outliner-reruns=3".to_owned();
    cargo.env("CARGO_ENCODED_RUSTFLAGS", [remap(&home, "cargo"), remap(&library, "rust"), smaller].join("\u{1f}"));
    let dir = ctx.target.join("s2dump-dist");
    cargo.env("CARGO_TARGET_DIR", &dir);
    step.run(&mut cargo, &ctx.log("dist"))?;
    step.done();
    Ok(dir.join(target).join("release/s2dump"))
}

/// Returns manual pages and completions, by their places below the prefix.
fn pages(ctx: &Ctx) -> Result<Files> {
    let dir = ctx.target.join("s2dump-pages");
    if dir.is_dir() {
        std::fs::remove_dir_all(&dir)?;
    }
    let step = Step::start("dist: manual pages and completions");
    let mut cargo = command("cargo");
    cargo.current_dir(&ctx.root).args(["run", "--locked", "--package", "s2dump", "--example", "pages", "--"]).arg(&dir);
    step.run(&mut cargo, &ctx.log("dist-pages"))?;
    step.done();
    let mut files = Files::new();
    for entry in dir.read_dir()? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let place = match name.as_str() {
            "s2dump.bash" => "share/bash-completion/completions/s2dump".to_owned(),
            "_s2dump" => "share/zsh/site-functions/_s2dump".to_owned(),
            "s2dump.fish" => "share/fish/vendor_completions.d/s2dump.fish".to_owned(),
            page if page.ends_with(".1") => format!("share/man/man1/{page}"),
            other => bail!("{other}: where does this belong?"),
        };
        files.insert(place, document(std::fs::read(entry.path())?));
    }
    Ok(files)
}

fn document(bytes: impl Into<Vec<u8>>) -> File {
    File { bytes: bytes.into(), is_program: false }
}

/// Returns what belongs below a prefix such as `/usr/local`.
fn tool(ctx: &Ctx, target: &str, pages: &Files) -> Result<Files> {
    let mut files = pages.clone();
    let bytes = std::fs::read(program(ctx, target)?)?;
    println!("s2dump for {}: {} bytes", machine(target), bytes.len());
    ensure!(
        target != TARGETS[0] || bytes.len() <= MOST_DEVICE_BYTES,
        "that is more than the {MOST_DEVICE_BYTES} that are promised for a device: what became large?"
    );
    files.insert("bin/s2dump".into(), File { bytes, is_program: true });
    let mut names: Vec<String> = DOCUMENTS.map(String::from).into();
    for entry in ctx.root.join("docs").read_dir()? {
        let entry = entry?;
        if entry.path().is_file() {
            names.push(format!("docs/{}", entry.file_name().to_string_lossy()));
        }
    }
    for name in names {
        files.insert(format!("{DOC_DIR}/{name}"), document(read(ctx, &name)?));
    }
    let crates = crates::linked(ctx, target)?;
    files.insert(format!("{DOC_DIR}/crates.txt"), document(crates::list(&crates)));
    files.insert(format!("{DOC_DIR}/LICENSES-of-crates"), document(crates::texts(&crates) + MUSL));
    // Of Rust's standard library and all that is in it.
    let notices = setup::sysroot()?.join("share/doc/rust/COPYRIGHT-library.html");
    let notices = std::fs::read(&notices).with_context(|| format!("cannot read {}", notices.display()))?;
    files.insert(format!("{DOC_DIR}/LICENSES-of-std.html"), document(notices));
    Ok(files)
}

/// Returns the series for `git am`.
fn patches(ctx: &Ctx, tree: &Path, seconds: u64) -> Result<Files> {
    let step = Step::start("dist: patches");
    let dir = tempfile::tempdir()?;
    let rust = linux::rust(ctx, tree, false)?;
    let mut files = Files::new();
    for path in linux::patch(tree, &ctx.root, &rust, dir.path(), Some(seconds))? {
        let name = path.file_name().context("a patch has a name")?.to_string_lossy().into_owned();
        files.insert(name, document(std::fs::read(path)?));
    }
    for name in KERNEL_DOCUMENTS {
        let (_, file) = name.rsplit_once('/').unwrap_or(("", name));
        files.insert(file.into(), document(read(ctx, name)?));
    }
    step.done();
    Ok(files)
}

fn read(ctx: &Ctx, name: &str) -> Result<Vec<u8>> {
    std::fs::read(ctx.root.join(name)).with_context(|| format!("cannot read {name}"))
}
