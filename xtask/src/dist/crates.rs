// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which crates are in the binary, and under which licenses.

use crate::ctx::Ctx;
use crate::process::{command, output};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How names of files with licenses begin, in capitals.
const LICENSE_FILES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// A crate that is linked into `s2dump`.
#[derive(Debug)]
pub(super) struct Crate {
    name: String,
    version: String,
    license: String,
    /// Names and texts of its license files.
    texts: BTreeMap<String, String>,
}

/// Returns the crates of the binary for `target`, by name. Those that only run while it is built are not in it.
///
/// # Errors
///
/// If cargo fails.
pub(super) fn linked(ctx: &Ctx, target: &str) -> Result<Vec<Crate>> {
    let cargo = |words: &[&str]| output(command("cargo").current_dir(&ctx.root).args(words).args(["--locked"]));
    // Only `tree` knows features as they are when this package alone is built; only `metadata` knows where a crate is.
    let edges = ["tree", "--package", "s2dump", "--edges", "normal,no-proc-macro", "--prefix", "none", "--no-dedupe"];
    let tree = cargo(&[edges.as_slice(), &["--target", target, "--format", "{p}|{l}"]].concat())?;
    let metadata = cargo(&["metadata", "--format-version=1", "--filter-platform", target])?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata")?;
    let packages: Vec<&Value> = metadata["packages"].as_array().into_iter().flatten().collect();
    let lines: BTreeSet<&str> = tree.lines().collect();
    lines.into_iter().map(|line| described(line, &packages)).collect()
}

/// Returns what `line` of cargo's tree names: `NAME vVERSION (PATH)|LICENSE`.
fn described(line: &str, packages: &[&Value]) -> Result<Crate> {
    let (package, license) = line.split_once('|').with_context(|| format!("cargo tree: `{line}`"))?;
    let mut words = package.split(' ');
    let name = words.next().unwrap_or_default();
    let version = words.next().unwrap_or_default().trim_start_matches('v');
    let found = packages.iter().find(|package| package["name"] == name && package["version"] == version);
    let manifest = found.and_then(|package| package["manifest_path"].as_str());
    let manifest = manifest.with_context(|| format!("cargo metadata does not know {name} {version}"))?;
    let dir = Path::new(manifest).parent().context("a manifest is in a directory")?;
    let mut texts = BTreeMap::new();
    for entry in dir.read_dir().with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() && LICENSE_FILES.iter().any(|start| file.to_uppercase().starts_with(start)) {
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            texts.insert(file, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    Ok(Crate { name: name.into(), version: version.into(), license: license.into(), texts })
}

/// Returns a line for each crate: name, version, license.
pub(super) fn list(crates: &[Crate]) -> String {
    crates.iter().map(|one| format!("{} {} {}\n", one.name, one.version, one.license)).collect()
}

/// Returns the license texts of other people's crates, each once, under the names of those that it is of.
pub(super) fn texts(crates: &[Crate]) -> String {
    let mut of = BTreeMap::<&str, Vec<String>>::new();
    for one in crates {
        for (name, text) in &one.texts {
            of.entry(text.trim()).or_default().push(format!("{} {}: {name}", one.name, one.version));
        }
    }
    // By those names, so that the order is one that people can search.
    let mut parts: Vec<(Vec<String>, &str)> = of.into_iter().map(|(text, names)| (names, text)).collect();
    parts.sort();
    parts.iter().map(|(names, text)| format!("==== {}\n\n{text}\n\n", names.join("\n==== "))).collect()
}
