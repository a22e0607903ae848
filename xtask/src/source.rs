// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds a kernel source: the user's tree, or the newest supported one that Debian carries, unpacked once.
//!
//! Debian drops old versions from its suites, so no version is named here. This module lists what the suites have and
//! picks the best. It uses a source in the cache for as long as it is there; delete it to look for a newer one.

use crate::apt::PrivateApt;
use crate::ctx::{hash, Ctx};
use crate::linux::flavors;
use crate::process::{command, output};
use crate::step::Step;
use anyhow::{bail, ensure, Context, Result};
use std::path::{Path, PathBuf};

/// Suites that have newer kernels than the machine's own suite. Code names serve today, roles ("testing") later.
const SUITES: [&str; 4] = ["trixie-backports", "stable-backports", "testing", "unstable"];

/// Series that s2dump is tested on, best first.
pub(crate) const TESTED: [Series; 2] = [Series(7, 3), Series(7, 2)];
/// Oldest series with the encodings that the records speak of.
const OLDEST: Series = Series(7, 2);

/// A kernel series: major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series(u32, u32);

impl Series {
    /// Parses "7.3".
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

impl std::fmt::Display for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// A kernel source that is not to be changed.
pub(crate) struct Source {
    /// What to call it, for people and in file names.
    pub(crate) name: String,
    /// The tree.
    pub(crate) tree: PathBuf,
    /// Whether it is a cached package, which nobody but xtask changes.
    pub(crate) is_ours: bool,
}

/// Finds the source the user asked for, or the best.
///
/// # Errors
///
/// If there is none, or it cannot be fetched.
pub(crate) fn find(ctx: &Ctx) -> Result<Source> {
    if let Some(dir) = &ctx.options.kernel_src {
        let tree = dir.canonicalize().with_context(|| format!("no kernel tree at {}", dir.display()))?;
        let kvm = tree.join("arch/arm64/kvm/hyp/nvhe");
        ensure!(kvm.is_dir(), "{} is no kernel source: it has no arch/arm64/kvm/hyp/nvhe", tree.display());
        let name = format!("user-{}", &hash([tree.as_os_str().as_encoded_bytes()])[..12]);
        return Ok(Source { name, tree, is_ours: false });
    }
    let wanted = match &ctx.options.kernel_series {
        Some(text) => Some(Series::parse(text).with_context(|| format!("--kernel-series {text}: write it as 7.3"))?),
        None => None,
    };
    packaged(ctx, wanted)
}

/// A source package of Debian.
struct Package {
    series: Series,
    /// For `apt-get download`: name and version.
    spec: String,
    /// For a directory: the version and the start of the package's hash.
    name: String,
}

/// Finds a packaged source in the cache, or fetches it.
fn packaged(ctx: &Ctx, wanted: Option<Series>) -> Result<Source> {
    let dir = ctx.cache.join("linux");
    std::fs::create_dir_all(&dir)?;
    // A file records which source answered a request, so that a later run asks no mirror.
    let answer = dir.join(format!("source-{}", wanted.map_or("best".into(), |series| series.to_string())));
    if let Ok(name) = std::fs::read_to_string(&answer) {
        let tree = dir.join(&name).join("source");
        if tree.is_dir() {
            return Ok(Source { name, tree, is_ours: true });
        }
    }
    let apt = PrivateApt::fetch(ctx, "kernel", &SUITES, None)?;
    let Some(Package { series, spec, name }) = best_package(&apt, wanted)? else {
        let wanted = wanted.map_or("supported".into(), |series| series.to_string());
        bail!("Debian carries no {wanted} kernel source (any more); name a tree with --kernel-src DIR");
    };
    let tree = dir.join(&name).join("source");
    if !tree.is_dir() {
        unpack(ctx, &apt.download(ctx, &[&spec])?, series, &tree, &[])?;
    }
    std::fs::write(answer, &name)?;
    Ok(Source { name, tree, is_ours: true })
}

/// Returns a tree of a packaged series, of which only the files that `linux apply` looks at are sure to be there. None
/// if Debian does not carry the series (any more).
///
/// # Errors
///
/// If it cannot be fetched.
pub(crate) fn anchored_files(ctx: &Ctx, series: Series) -> Result<Option<PathBuf>> {
    let dir = ctx.cache.join("linux");
    for answer in ["source-best".into(), format!("source-{series}")] {
        let name = std::fs::read_to_string(dir.join(answer)).unwrap_or_default();
        let tree = dir.join(&name).join("source");
        if name.starts_with(&format!("{series}.")) && tree.is_dir() {
            return Ok(Some(tree));
        }
    }
    let files = flavors::looked_at();
    // The name depends on the list of files, so a longer list makes a new directory.
    let list = hash(files.iter().map(|file| file.as_bytes()));
    let tree = dir.join(format!("anchors-{series}-{}", &list[..12]));
    if !tree.is_dir() {
        let apt = PrivateApt::fetch(ctx, "kernel", &SUITES, None)?;
        let Some(package) = best_package(&apt, Some(series))? else { return Ok(None) };
        let members: Vec<&str> = files.into_iter().collect();
        unpack(ctx, &apt.download(ctx, &[&package.spec])?, series, &tree, &members)?;
    }
    Ok(Some(tree))
}

/// Picks among what the suites carry. None if there is nothing we want.
fn best_package(apt: &PrivateApt, wanted: Option<Series>) -> Result<Option<Package>> {
    let names = output(apt.command("apt-cache").args(["search", "--names-only", "^linux-source-[0-9.]+$"]))?;
    let available: Vec<Series> = names.lines().filter_map(series_of_package).collect();
    ensure!(!available.is_empty(), "the package lists show no kernel source at all: is the mirror reachable?");
    let Some(series) = pick(&available, wanted) else { return Ok(None) };
    if !TESTED.contains(&series) {
        eprintln!("    note: s2dump is not tested on Linux {series}");
    }
    let package = format!("linux-source-{series}");
    let madison = output(apt.command("apt-cache").args(["madison", &package]))?;
    let version = newest_version(&madison).with_context(|| format!("apt-cache shows no version of {package}"))?;
    let spec = format!("{package}={version}");
    let show = output(apt.command("apt-cache").args(["show", &spec]))?;
    let sha256 = show.lines().find_map(|line| line.strip_prefix("SHA256: ")).context("apt-cache shows no SHA256")?;
    let version = version.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "-");
    let short_hash = sha256.get(..12).context("apt-cache shows a SHA256 that is too short")?;
    Ok(Some(Package { series, spec, name: format!("{version}-{short_hash}") }))
}

/// Unpacks the archive inside a source package, or some files of it. `tree` appears when it is whole.
fn unpack(ctx: &Ctx, package: &Path, series: Series, tree: &Path, members: &[&str]) -> Result<()> {
    let archive = package.join(format!("usr/src/linux-source-{series}.tar.xz"));
    let part = tree.with_extension("part");
    let _ = std::fs::remove_dir_all(&part); // left by an interrupted run
    std::fs::create_dir_all(&part)?;
    let step = Step::start(format!("linux: unpack the source of {series}"));
    let mut tar = command("tar");
    tar.arg("-xf").arg(&archive).arg("-C").arg(&part).args(["--strip-components=1", "--checkpoint=2000"]);
    tar.arg("--checkpoint-action=echo=%u0 KiB"); // a record is 10 KiB
    tar.args(members.iter().map(|member| format!("linux-source-{series}/{member}")));
    step.run(&mut tar, &ctx.log("linux-unpack"))?;
    std::fs::rename(&part, tree)?;
    // The archive takes 160 MB, and nobody needs it any more.
    std::fs::remove_dir_all(package)?;
    step.done();
    Ok(())
}

/// Returns the series of a line of `apt-cache search`.
fn series_of_package(line: &str) -> Option<Series> {
    Series::parse(line.split_whitespace().next()?.strip_prefix("linux-source-")?)
}

/// Picks the wanted series, or the best tested one, or else the nearest to the tested ones.
fn pick(available: &[Series], wanted: Option<Series>) -> Option<Series> {
    if let Some(wanted) = wanted {
        return available.contains(&wanted).then_some(wanted);
    }
    let tested = TESTED.into_iter().find(|series| available.contains(series));
    tested.or_else(|| available.iter().copied().filter(|series| *series >= OLDEST).min())
}

/// Returns the first version of `apt-cache madison`, which prints the newest first.
fn newest_version(madison: &str) -> Option<&str> {
    madison.lines().next()?.split('|').nth(1).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_name_their_series() {
        assert_eq!(series_of_package("linux-source-7.3 - Linux kernel source"), Some(Series(7, 3)));
        assert_eq!(series_of_package("linux-source-7.12 - x"), Some(Series(7, 12)));
        assert_eq!(series_of_package("linux-source - x"), None);
    }

    #[test]
    fn picks_tested_before_newer_before_nothing() {
        assert_eq!(pick(&[Series(7, 2), Series(7, 3), Series(7, 12)], None), Some(Series(7, 3)));
        assert_eq!(pick(&[Series(6, 12), Series(7, 2)], None), Some(Series(7, 2)));
        assert_eq!(pick(&[Series(7, 12), Series(7, 4)], None), Some(Series(7, 4)), "12 is more than 4");
        assert_eq!(pick(&[Series(6, 12), Series(7, 1)], None), None);
        assert_eq!(pick(&[Series(7, 3)], Some(Series(7, 2))), None);
    }

    #[test]
    fn newest_version_is_on_the_first_line() {
        let madison = " linux-source-7.2 |   7.2.13-1 | http://a.test/debian unstable/main amd64 Packages\n \
                        linux-source-7.2 |   7.2.12-1 | http://a.test/debian testing/main amd64 Packages\n";
        assert_eq!(newest_version(madison), Some("7.2.13-1"));
        assert_eq!(newest_version(""), None);
    }
}
