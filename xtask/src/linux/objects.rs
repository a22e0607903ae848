// SPDX-License-Identifier: MIT OR Apache-2.0
//! s2dump's Rust as two objects, for kernel trees whose own Rust cannot build it, or that have none.
//!
//! rustc makes them as Kbuild would: the libraries become metadata, and one crate per level becomes an object, so only what
//! its entry points reach is in it. `core` is compiled here too, because all code of a kernel leaves x18 alone, and code that
//! does must not be mixed with code that does not.
//!
//! The same sources and the same rustc give the same bytes, wherever they lie: rustc is called without cargo, which would
//! put directories into the names of symbols, and only the proc macro comes from cargo.

use crate::ctx::{hash, Ctx};
use crate::process::{command, output};
use crate::setup;
use crate::step::Step;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Directory under the tree's own one.
pub(crate) const DIR: &str = "objects";
/// Of EL2 and of EL1: what Kbuild makes of `NAME.o_shipped`.
pub(crate) const NAMES: [&str; 2] = ["s2dump_rs", "s2dump_session"];
const TARGET: &str = "aarch64-unknown-none-softfloat";

/// The libraries, in an order in which each follows what it uses, and their sources.
const LIBRARIES: [(&str, &str); 4] = [
    ("s2dump_abi", "abi/src/lib.rs"),
    ("s2dump_vmsa", "vmsa/src/lib.rs"),
    ("s2dump_hyp", "hyp/src/lib.rs"),
    ("s2dump_host_driver", "host-driver/src/lib.rs"),
];
/// The crates that become [`NAMES`].
const OBJECTS: [(&str, &str); 2] =
    [("s2dump_el2", "linux/el2/s2dump_el2.rs"), ("s2dump_session", "linux/without-rust/s2dump_session.rs")];

/// How code of a kernel is compiled, at EL2 and EL1: as Kbuild compiles Rust, with what differs between configurations set
/// to what works with each. x18 is the shadow call stack's. A function that is called by its name needs no landing pad, and
/// instructions of pointer authentication do nothing where it is off. Sections of functions would be placed outside of the
/// kernel's text.
const FLAGS: &[&str] = &[
    "--crate-type=rlib",
    "-Cpanic=abort",
    "-Cembed-bitcode=n",
    "-Ccodegen-units=1",
    "-Copt-level=2",
    "-Cdebug-assertions=n",
    "-Coverflow-checks=n",
    "-Cforce-unwind-tables=n",
    "-Cforce-frame-pointers=y",
    "-Crelocation-model=static",
    "-Csymbol-mangling-version=v0",
    "-Zfunction-sections=n",
    "-Zfixed-x18",
    "-Zbranch-protection=pac-ret",
    "-Zcross-crate-inline-threshold=always",
    "-Zalways-encode-mir=yes",
    "-Zlocation-detail=none",
    "-Zunstable-options",
    "--sysroot=/dev/null",
];

/// What rustc wants to find beside `core`. Nothing of it is needed.
const COMPILER_BUILTINS: &str =
    "#![feature(compiler_builtins)]\n#![compiler_builtins]\n#![no_builtins]\n#![no_std]\n#![allow(internal_features)]\n";

/// The objects, in the order of [`NAMES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Objects(pub(crate) [Vec<u8>; 2]);

impl Objects {
    /// Returns each with its path under the tree's own directory.
    pub(crate) fn files(&self) -> impl Iterator<Item = (PathBuf, &[u8])> {
        let path = |name| Path::new(DIR).join(format!("{name}.o_shipped"));
        NAMES.into_iter().map(path).zip(self.0.iter().map(Vec::as_slice))
    }
}

/// Builds the objects, or takes those that were built from the same sources.
///
/// # Errors
///
/// If set-up or the build fails.
pub(crate) fn build(ctx: &Ctx) -> Result<Objects> {
    setup::rust(ctx)?;
    let dir = ctx.target.join("s2dump-objects");
    let key_file = dir.join("key");
    let key = key(&ctx.root)?;
    if fs::read_to_string(&key_file).is_ok_and(|old| old == key) {
        if let Ok(objects) = read(&dir) {
            return Ok(objects);
        }
    }
    // A run that is cut short must not leave the key of one that was not.
    let _ = fs::remove_file(&key_file);
    let step = Step::start("objects: compile for kernels without Rust");
    let objects = build_in(ctx, &step, &ctx.root, &dir)?;
    fs::write(key_file, key)?;
    step.done();
    Ok(objects)
}

/// Builds the objects of the sources at `root`, with all that comes of it in `dir`.
///
/// # Errors
///
/// If something does not compile.
pub(crate) fn build_in(ctx: &Ctx, step: &Step, root: &Path, dir: &Path) -> Result<Objects> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let zerocopy = Zerocopy::find(root, &ctx.target)?;
    let derive = zerocopy.derive.file_name().context("a library has a name")?;
    fs::copy(&zerocopy.derive, dir.join(derive)).context("copying the proc macro")?;
    let builtins = dir.join("compiler_builtins.rs");
    fs::write(&builtins, COMPILER_BUILTINS)?;
    let library = setup::sysroot()?.join("lib/rustlib/src/rust/library");
    let rustc = Rustc { ctx, step, root, dir, library: &library, zerocopy: &zerocopy };

    rustc.metadata("core", &library.join("core/src/lib.rs"), "2024", &[])?;
    rustc.metadata("compiler_builtins", &builtins, "2021", &[])?;
    rustc.metadata("zerocopy", &zerocopy.source, "2021", &[])?;
    let mut externs = vec!["zerocopy", "zerocopy_derive"];
    for (name, source) in LIBRARIES {
        rustc.metadata(name, Path::new(source), "2021", &externs)?;
        externs.push(name);
    }
    for ((crate_name, source), name) in OBJECTS.into_iter().zip(NAMES) {
        let emit = format!("--emit=obj={}", dir.join(name).with_extension("o").display());
        rustc.run(crate_name, Path::new(source), "2021", &externs, &emit)?;
    }
    read(dir)
}

fn read(dir: &Path) -> Result<Objects> {
    let read = |name: &str| fs::read(dir.join(name).with_extension("o")).with_context(|| format!("reading {name}.o"));
    let [el2, el1] = NAMES;
    Ok(Objects([read(el2)?, read(el1)?]))
}

/// Returns what the objects are made from, as one word.
fn key(root: &Path) -> Result<String> {
    let mut parts = vec![include_str!("objects.rs").to_owned(), output(command("rustc").current_dir(root).arg("-vV"))?];
    let mut open: Vec<PathBuf> = LIBRARIES
        .iter()
        .chain(&OBJECTS)
        .filter_map(|(_, file)| Path::new(file).parent())
        .map(|dir| root.join(dir))
        .collect();
    open.push(root.join("Cargo.lock"));
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let mut below = path.read_dir()?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
            below.sort();
            open.extend(below);
        } else {
            parts.push(fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?);
        }
    }
    Ok(hash(parts.iter().map(String::as_bytes)))
}

/// The one library that is not ours.
struct Zerocopy {
    source: PathBuf,
    version: String,
    /// The proc macro, compiled for this machine.
    derive: PathBuf,
}

impl Zerocopy {
    /// Has cargo fetch and compile it, and tell where it is.
    fn find(root: &Path, target: &Path) -> Result<Self> {
        let mut cargo = command("cargo");
        cargo
            .current_dir(root)
            .args(["build", "--locked", "--quiet", "--message-format=json", "--target-dir"])
            .arg(target);
        let messages = output(cargo.args(["--package=zerocopy", "--package=zerocopy-derive"]))?;
        let of = |name: &str| messages.lines().find(|line| line.contains(&format!("\"name\":\"{name}\",\"src_path\"")));
        let library = of("zerocopy").context("cargo does not tell where zerocopy is")?;
        let derive = of("zerocopy_derive").context("cargo does not tell where zerocopy's macro is")?;
        Ok(Self {
            source: after(library, "\"src_path\":\"")?.into(),
            version: after(library, "zerocopy@")?.to_owned(),
            derive: after(derive, "\"filenames\":[\"")?.into(),
        })
    }
}

/// Returns what stands between `start` and the next quote: cargo's messages are JSON, and no path here has an escape.
fn after<'a>(message: &'a str, start: &str) -> Result<&'a str> {
    let rest = message.split_once(start).with_context(|| format!("cargo's message has no {start}"))?.1;
    Ok(rest.split('"').next().unwrap_or(rest))
}

/// How crates are compiled.
struct Rustc<'a> {
    ctx: &'a Ctx,
    step: &'a Step,
    root: &'a Path,
    dir: &'a Path,
    library: &'a Path,
    zerocopy: &'a Zerocopy,
}

impl Rustc<'_> {
    fn metadata(&self, name: &str, source: &Path, edition: &str, externs: &[&str]) -> Result<()> {
        let emit = format!("--emit=metadata={}", self.dir.join(format!("lib{name}.rmeta")).display());
        self.run(name, source, edition, externs, &emit)
    }

    fn run(&self, name: &str, source: &Path, edition: &str, externs: &[&str], emit: &str) -> Result<()> {
        let mut rustc = command("rustc");
        // -Z with a stable compiler: as the kernel does.
        rustc.current_dir(self.root).env("RUSTC_BOOTSTRAP", "1").env_remove("RUSTFLAGS");
        rustc.env("CARGO_PKG_VERSION", &self.zerocopy.version);
        rustc.arg(format!("--target={TARGET}")).arg(format!("--edition={edition}")).args(FLAGS);
        let zerocopy = self.zerocopy.source.parent().unwrap_or(self.root);
        for (from, to) in [(self.root, ""), (self.dir, ""), (self.library, "core"), (zerocopy, "zerocopy")] {
            rustc.arg(format!("--remap-path-prefix={}={to}", from.display()));
        }
        rustc.args(externs.iter().flat_map(|name| ["--extern", *name])).arg("-L").arg(self.dir);
        rustc.arg(if name.starts_with("s2dump") { "-Dwarnings" } else { "--cap-lints=allow" });
        rustc.args(["--crate-name", name, emit]).arg(source);
        self.step.detail(name);
        self.step.run(&mut rustc, &self.ctx.log(&format!("objects-{name}")))
    }
}

/// Builds the objects twice more, from sources at two places, and compares them with each other and with those that a tree
/// gets.
///
/// # Errors
///
/// If they differ, or one does not compile.
pub(crate) fn check_reproducible(ctx: &Ctx, step: &Step) -> Result<()> {
    let here = build_in(ctx, step, &ctx.root, &ctx.target.join("s2dump-objects-here"))?;
    let elsewhere = tempfile::tempdir()?;
    let root = elsewhere.path().join("a-longer-name");
    for part in ["abi", "vmsa", "hyp", "host-driver", "linux", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml"] {
        copy(&ctx.root.join(part), &root.join(part))?;
    }
    // Cargo wants the workspace whole, to look zerocopy up.
    for part in ["cli", "xtask", "itest"] {
        copy(&ctx.root.join(part), &root.join(part))?;
    }
    let there = build_in(ctx, step, &root, &elsewhere.path().join("out"))?;
    anyhow::ensure!(build(ctx)? == here, "the objects that a tree gets are not those that the sources give now");
    for ((name, here), there) in NAMES.iter().zip(&here.0).zip(&there.0) {
        anyhow::ensure!(here == there, "{name}.o: the same sources at two places give different objects");
        step.result(&format!("{name}.o: {} bytes, the same from two places, {}", here.len(), &hash([&here[..]])[..16]));
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name() != "target" {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
