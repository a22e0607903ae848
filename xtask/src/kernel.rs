// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds kernels in the cache; rebuilds what changed, and nothing if nothing did.
//!
//! Per source there is one directory: `source` (unpacked or copied, then given s2dump, which writes only what differs),
//! and one for `make O=` per [`Variant`]. `make` itself decides by the files' times what is to be built again.

use crate::ctx::{hash, lock, Ctx};
use crate::linux::flavors::{self, Flavor};
use crate::linux::insertions::{own_texts, without_ours, OWN_DIR};
use crate::process::{command, output};
use crate::source::{self, Source};
use crate::step::Step;
use crate::{linux, setup};
use anyhow::{bail, Context, Result};
use std::path::{Path, PathBuf};

/// What is built.
const CONFIG: &str = "xtask/kernel.config";
/// Behind this line of it are options that not every series has.
const SOME_SERIES: &str = "\n# Known to some series only";
/// Lines that a whole build prints, measured on 7.3; for the ticker only.
const EXPECTED_LINES: usize = 1_380;

/// A kernel to build: which pages it has, and what checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Variant {
    /// 4 KiB pages, with s2dump
    #[value(name = "4k")]
    S2dump,
    /// 4 KiB pages, with s2dump, and with all that checks a kernel while it runs
    #[value(name = "debug")]
    Debug,
    /// 4 KiB pages, with s2dump, with 52-bit virtual addresses at random places
    #[value(name = "va52")]
    Wide,
    /// 4 KiB pages, with s2dump, without Rust
    #[value(name = "objects")]
    Objects,
    /// 16 KiB pages, with s2dump
    #[value(name = "16k")]
    Pages16K,
    /// 64 KiB pages, with s2dump
    #[value(name = "64k")]
    Pages64K,
}

/// Which kernel to build.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Build {
    /// Size of its pages, the debug kernel, or the one with 52-bit virtual addresses or without Rust
    #[arg(long, value_enum, default_value = "4k", value_name = "VARIANT", alias = "pages")]
    variant: Variant,
}

impl Variant {
    /// Returns the name of its build directory and its logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::S2dump => "kernel",
            Self::Debug => "kernel-debug",
            Self::Wide => "kernel-va52",
            Self::Objects => "kernel-objects",
            Self::Pages16K => "kernel-16k",
            Self::Pages64K => "kernel-64k",
        }
    }

    /// Returns the directory for `make O=`, beside the source.
    fn build_dir(self) -> &'static str {
        match self {
            Self::S2dump => "build",
            Self::Debug => "build-debug",
            Self::Wide => "build-va52",
            Self::Objects => "build-objects",
            Self::Pages16K => "build-16k",
            Self::Pages64K => "build-64k",
        }
    }

    /// Returns the file that lists how its configuration differs from [`CONFIG`].
    fn overlay(self) -> Option<&'static str> {
        match self {
            Self::S2dump => None,
            Self::Debug => Some("xtask/kernel-debug.config"),
            Self::Wide => Some("xtask/kernel-va52.config"),
            Self::Objects => Some("xtask/kernel-objects.config"),
            Self::Pages16K => Some("xtask/kernel-16k.config"),
            Self::Pages64K => Some("xtask/kernel-64k.config"),
        }
    }

    /// Returns the directory of the source with s2dump in it: what `linux apply` brings differs.
    fn source_dir(self) -> &'static str {
        match self {
            Self::Objects => "source-objects",
            _ => "source",
        }
    }

    /// Returns the options of `fragment` without which there is nothing to show. A debug kernel that lacks one of its
    /// checks would pass for the wrong reason, so there every option counts.
    fn needed(self, fragment: &str) -> Vec<&str> {
        match self {
            Self::S2dump => vec!["CONFIG_RUST=y", "CONFIG_PTDUMP_STAGE2_DEBUGFS=y", "CONFIG_PKVM_S2DUMP=y"],
            Self::Objects => vec!["CONFIG_PTDUMP_STAGE2_DEBUGFS=y", "CONFIG_PKVM_S2DUMP=y"],
            Self::Debug | Self::Wide | Self::Pages16K | Self::Pages64K => asked_options(fragment).collect(),
        }
    }
}

/// A built kernel.
pub(crate) struct Kernel {
    /// For `qemu -kernel`.
    pub(crate) image: PathBuf,
    /// The build directory.
    pub(crate) build: PathBuf,
    /// What kind of kernel it is.
    pub(crate) flavor: &'static Flavor,
}

/// Builds the kernel with s2dump, of the source the user asked for, or the best.
///
/// # Errors
///
/// As [`build_variant`].
pub(crate) fn build(ctx: &Ctx) -> Result<Kernel> {
    build_variant(ctx, Variant::S2dump)
}

/// Builds a kernel of the source the user asked for, or the best.
///
/// # Errors
///
/// If set-up, an insertion or the build fails.
pub(crate) fn build_variant(ctx: &Ctx, variant: Variant) -> Result<Kernel> {
    setup::for_kernel(ctx)?;
    let source = source::find(ctx)?;
    let home = ctx.cache.join("linux").join(&source.name);
    let (tree, build) = (home.join(variant.source_dir()), home.join(variant.build_dir()));
    std::fs::create_dir_all(&build)?;
    let _lock = lock(&home)?;
    let flavor = flavors::of(&source.tree)?;
    let added = insert(ctx, &source, flavor, variant, &tree)?;
    let config = config(ctx, variant, flavor)?;
    let key = key(&Ingredients { config: &config, added: &added, tools: &Tools::look(ctx)? });
    let kernel = Kernel { image: build.join("arch/arm64/boot/Image"), build: build.clone(), flavor };
    let key_file = build.join(".s2dump-key");
    // A user's own tree may have changed anywhere: there `make` has to look.
    if source.is_ours && kernel.image.is_file() && std::fs::read_to_string(&key_file).is_ok_and(|old| old == key) {
        return Ok(kernel);
    }
    // A run that is cut short must not leave the key of one that was not.
    let _ = std::fs::remove_file(&key_file);
    let step = Step::start(format!("{}: build {}", variant.name(), source.name));
    configure(ctx, &step, variant, &config, &tree, &build)?;
    let mut lines = 0_usize;
    let mut image = make(ctx, &tree, &build)?;
    // One job more than CPUs: something is always waiting for the disk.
    image.arg(format!("-j{}", ctx.jobs + 1)).arg("Image");
    step.run_with(&mut image, &ctx.log(variant.name()), |line| {
        let line = line.strip_prefix("  ")?;
        lines += 1;
        let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
        Some(format!("{lines} of about {} {words}", EXPECTED_LINES.max(lines)))
    })?;
    std::fs::write(key_file, key)?;
    step.done();
    Ok(kernel)
}

/// What an image is made from, besides the source, which has a directory of its own.
#[derive(Clone, Copy)]
struct Ingredients<'a> {
    config: &'a str,
    added: &'a str,
    tools: &'a Tools,
}

/// What the programs that build a kernel say of themselves.
#[derive(Clone, Debug)]
struct Tools {
    clang: String,
    rustc: String,
    bindgen: String,
}

impl Tools {
    fn look(ctx: &Ctx) -> Result<Self> {
        let version = |program: &str, option: &str| output(setup::kernel_command(ctx, program)?.arg(option));
        Ok(Self {
            clang: version("clang", "--version")?,
            rustc: version("rustc", "-vV")?,
            bindgen: version("bindgen", "--version")?,
        })
    }
}

/// Returns the key of an image: another key means that `make` has to look.
fn key(of: &Ingredients<'_>) -> String {
    let parts = [of.config, of.added, &of.tools.clang, &of.tools.rustc, &of.tools.bindgen];
    hash(parts.iter().map(|part| part.as_bytes()))
}

/// Puts s2dump into our copy of the source; returns a hash of what it put there.
fn insert(ctx: &Ctx, source: &Source, flavor: &Flavor, variant: Variant, tree: &Path) -> Result<String> {
    if !source.is_ours || tree != source.tree {
        copy_tree(ctx, &source.tree, flavor, tree)?;
    }
    let rust = linux::rust(ctx, tree, variant == Variant::Objects)?;
    linux::apply(tree, &ctx.root, &rust)?;
    let mut files = vec![tree.join(OWN_DIR)];
    files.extend(flavor.anchored().into_iter().map(|file| tree.join(file)));
    let mut parts = Vec::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            let mut below = path.read_dir()?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
            below.sort();
            files.extend(below);
        } else {
            parts.push(path.as_os_str().as_encoded_bytes().to_owned());
            parts.push(std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        }
    }
    Ok(hash(parts.iter().map(Vec::as_slice)))
}

/// Brings our copy of a tree up to date, without touching what is right.
fn copy_tree(ctx: &Ctx, from: &Path, flavor: &Flavor, to: &Path) -> Result<()> {
    if from.join(".config").exists() || from.join("include/config").exists() {
        bail!("{} is built in place: run `make mrproper` there, or give a tree that is not", from.display());
    }
    std::fs::create_dir_all(to)?;
    let step = Step::start(format!("linux: copy {}", from.display()));
    let mut rsync = command("rsync");
    rsync.args(["-a", "--delete", "--exclude=/.git"]).arg(format!("--exclude=/{OWN_DIR}"));
    rsync.args(flavor.anchored().iter().map(|file| format!("--exclude=/{file}")));
    step.run(rsync.arg(format!("{}/", from.display())).arg(to), &ctx.log("linux-copy"))?;
    for name in flavor.anchored() {
        let kernels_own = |text: &str| without_ours(name, text, &own_texts(name, flavor.insertions));
        let theirs = std::fs::read_to_string(from.join(name)).with_context(|| format!("no {name} in the tree"))?;
        // The user may have applied s2dump already, this version or another.
        let theirs = kernels_own(&theirs).with_context(|| from.display().to_string())?;
        let ours = std::fs::read_to_string(to.join(name));
        if !ours.is_ok_and(|ours| kernels_own(&ours).is_ok_and(|ours| ours == theirs)) {
            std::fs::write(to.join(name), theirs)?;
        }
    }
    step.done();
    Ok(())
}

/// Returns what a variant's configuration is made from.
fn config(ctx: &Ctx, variant: Variant, flavor: &Flavor) -> Result<String> {
    let read = |path: &str| std::fs::read_to_string(ctx.root.join(path)).with_context(|| format!("cannot read {path}"));
    let overlays = variant.overlay().into_iter().chain(flavor.config);
    overlays.fold(read(CONFIG), |base, overlay| Ok(overlaid(&base?, &read(overlay)?)))
}

/// Returns `base` with its lines about an option replaced by those of `overlay`, which come first.
fn overlaid(base: &str, overlay: &str) -> String {
    let option = |line: &str| {
        let line = line.strip_prefix("# ").filter(|line| line.ends_with(" is not set")).unwrap_or(line);
        line.starts_with("CONFIG_").then(|| line.split(['=', ' ']).next().unwrap_or(line).to_owned())
    };
    let said: Vec<String> = overlay.lines().filter_map(option).collect();
    let kept = base.lines().filter(|line| option(line).is_none_or(|option| !said.contains(&option)));
    overlay.lines().chain(kept).flat_map(|line| [line, "\n"]).collect()
}

/// Makes the configuration and checks what of it was taken.
fn configure(ctx: &Ctx, step: &Step, variant: Variant, fragment: &str, tree: &Path, build: &Path) -> Result<()> {
    let file = build.join(".s2dump-config");
    std::fs::write(&file, fragment)?;
    let mut config = make(ctx, tree, build)?;
    config.env("KCONFIG_ALLCONFIG", &file).arg("allnoconfig");
    step.run(&mut config, &ctx.log(&format!("{}-config", variant.name())))?;
    let taken = std::fs::read_to_string(build.join(".config"))?;
    let lost = lost_options(fragment, &taken);
    let needed = variant.needed(fragment);
    if lost.iter().any(|option| needed.contains(option)) {
        // Tells what RUST=y misses; says nothing of use about the others, but does no harm.
        let why = match step.run(make(ctx, tree, build)?.arg("rustavailable"), &ctx.log("rustavailable")) {
            Ok(()) => String::new(),
            Err(error) => format!("\n{error:#}"),
        };
        bail!("this kernel's configuration does not take {}{why}", lost.join(", "));
    }
    if !lost.is_empty() {
        eprintln!("    note: this kernel's configuration does not take {}", lost.join(", "));
    }
    Ok(())
}

/// Returns the options of a fragment that are not so in a configuration, but for those behind [`SOME_SERIES`].
fn lost_options<'a>(fragment: &'a str, config: &str) -> Vec<&'a str> {
    asked_options(fragment).filter(|option| !config.lines().any(|line| line == *option)).collect()
}

/// Returns the options a fragment sets, but for those behind [`SOME_SERIES`].
fn asked_options(fragment: &str) -> impl Iterator<Item = &str> {
    let (fragment, _) = fragment.split_once(SOME_SERIES).unwrap_or((fragment, ""));
    fragment.lines().filter(|line| line.starts_with("CONFIG_"))
}

/// Returns `make` for arm64 with LLVM.
fn make(ctx: &Ctx, tree: &Path, build: &Path) -> Result<std::process::Command> {
    let mut make = setup::kernel_command(ctx, "make")?;
    make.arg("-C").arg(tree).arg(format!("O={}", build.display())).args(["ARCH=arm64", "LLVM=1"]);
    // The same input gives the same image.
    make.args(["KBUILD_BUILD_USER=s2dump", "KBUILD_BUILD_HOST=s2dump", "KBUILD_BUILD_TIMESTAMP=1970-01-01"]);
    Ok(make)
}

/// Builds the kernel and says where it is.
///
/// # Errors
///
/// As [`build_variant`].
pub(crate) fn run(ctx: &Ctx, args: &Build) -> Result<()> {
    let kernel = build_variant(ctx, args.variant)?;
    println!("{}", kernel.image.display());
    Ok(())
}

impl Kernel {
    /// Returns the EL2 objects of s2dump, for `xtask lint`.
    pub(crate) fn el2_objects(&self) -> [PathBuf; 3] {
        let dir = self.build.join("arch/arm64/kvm/s2dump");
        ["s2dump_rs.nvhe.o", "s2dump_el2.nvhe.o", "s2dump_pkvm_el2.nvhe.o"].map(|name| dir.join(name))
    }
}

/// Checks that the insertions fit a packaged series, without building it. Returns whether it can be had.
///
/// # Errors
///
/// If an anchor does not match, or the source cannot be fetched.
pub(crate) fn check_anchors(ctx: &Ctx, series: source::Series) -> Result<bool> {
    let Some(tree) = source::anchored_files(ctx, series)? else { return Ok(false) };
    linux::check(&tree, &ctx.root, &linux::Rust::Sources).with_context(|| format!("Linux {series}"))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_replaces_and_removes() {
        let base = "# note\nCONFIG_A=y\nCONFIG_AB=y\nCONFIG_C=\"c d\"\n\n# CONFIG_D is not set\n";
        let overlay = "# CONFIG_A is not set\nCONFIG_C=\"e\"\nCONFIG_D=y\n";
        assert_eq!(overlaid(base, overlay), format!("{overlay}# note\nCONFIG_AB=y\n\n"));
    }

    #[test]
    fn key_changes_with_all_that_an_image_is_made_from() {
        let tools = Tools { clang: "clang 19".into(), rustc: "rustc 1.95".into(), bindgen: "bindgen 0.72".into() };
        let of = Ingredients { config: "CONFIG_A=y", added: "abc", tools: &tools };
        let clang = Tools { clang: "clang 20".into(), ..tools.clone() };
        let rustc = Tools { rustc: "rustc 1.96".into(), ..tools.clone() };
        let bindgen = Tools { bindgen: "bindgen 0.73".into(), ..tools.clone() };
        let config = Ingredients { config: "CONFIG_A=m", ..of };
        let added = Ingredients { added: "abd", ..of };
        let tools = [clang, rustc, bindgen];
        let others = tools.iter().map(|tools| Ingredients { tools, ..of });
        let before = key(&of);
        assert!([config, added].into_iter().chain(others).all(|other| key(&other) != before));
    }

    #[test]
    fn debug_kernel_takes_all_its_options_or_none() {
        let fragment = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=8\n";
        assert_eq!(Variant::Debug.needed(fragment), ["CONFIG_A=y", "CONFIG_C=8"]);
        assert!(!Variant::S2dump.needed(fragment).contains(&"CONFIG_A=y"));
    }

    #[test]
    fn options_not_taken_are_told() {
        let fragment = "# note\nCONFIG_A=y\nCONFIG_B=8\nCONFIG_C=y\n";
        assert_eq!(
            lost_options(fragment, "CONFIG_A=y\nCONFIG_B=4\n# CONFIG_C is not set\n"),
            ["CONFIG_B=8", "CONFIG_C=y"]
        );
        assert!(lost_options(fragment, "CONFIG_C=y\nCONFIG_B=8\nCONFIG_A=y\n").is_empty());
        let fragment = format!("CONFIG_A=y\n{SOME_SERIES}; why.\nCONFIG_B=y\n");
        assert!(lost_options(&fragment, "CONFIG_A=y\n").is_empty());
        assert_eq!(lost_options(&fragment, "CONFIG_B=y\n"), ["CONFIG_A=y"]);
    }
}
