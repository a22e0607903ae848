// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our own rules for the text of the tree, which no other tool holds.
//!
//! - A license line in the first two lines of each file.
//! - No path of one machine, and no host of a package registry or mirror: those come from the machine's own settings.
//! - No modules of a crate that import each other in a circle ([`circles`]).
//! - `unsafe` only in its homes (CONTRIBUTING: a module opts in with its reason), said by `UNSAFETY: reason` there.
//! - A file over 400 lines gets a warning: is it two files?

use super::circles;
use anyhow::{bail, ensure, Context, Result};
use std::path::Path;
use std::process::Command;

/// Files without comments, or that are licenses.
const NO_LICENSE_LINE: &[&str] =
    &["LICENSE", ".gitignore", ".lock", ".json", ".ndjson", ".txt", ".s2d", ".proptest-regressions"];
/// In two parts each, so that this file passes.
const MACHINE: &[(&str, &str)] = &[
    ("/ro", "ot/"),
    ("/ho", "me/"),
    ("/wo", "rk/"),
    ("/Us", "ers/"),
    ("crates", ".io"),
    ("artif", "actory"),
    ("deb.deb", "ian.org"),
    ("rust-", "lang.org/"),
];
/// The one registry line a lock file has: the name of the default registry, not of the host it is fetched from.
const LOCK_SOURCE: (&str, &str) = ("source = \"registry+https://github.com/rust-lang/crates", ".io-index\"");
const UNSAFE_HOMES: &[&str] = &[
    "cli/src/source/",
    "fuzz/",
    "host-driver/kernel/",
    "hyp/benches/",
    "hyp/testbed/",
    "itest/src/",
    "linux/el2/",
    "linux/without-rust/",
];
/// Compiled by Kbuild only, where the kernel's own lints rule.
const KBUILD_HOMES: &[&str] = &["host-driver/kernel/", "linux/el2/"];
const MAX_LINES: usize = 400;

/// Checks all files that git tracks or would add below `root`.
///
/// # Errors
///
/// If a rule is broken; all places are printed.
pub(crate) fn check(root: &Path) -> Result<()> {
    let list = Command::new("git").arg("-C").arg(root).args(["ls-files", "-co", "--exclude-standard", "-z"]).output();
    let list = list.context("cannot run git: the source rules apply to the files it knows")?;
    ensure!(list.status.success(), "git ls-files: {}", String::from_utf8_lossy(&list.stderr));
    let names = String::from_utf8(list.stdout).context("a file name is not UTF-8")?;
    // Deleted but not yet committed files are listed too; binary files are not ours to judge.
    let read = |name| Some((name, std::fs::read_to_string(root.join(name)).ok()?));
    let files: Vec<(&str, String)> = names.split_terminator('\0').filter_map(read).collect();
    let mut broken = 0;
    for (name, text) in &files {
        let lines = text.lines().count();
        if lines > MAX_LINES && !name.ends_with(".lock") && !name.starts_with("LICENSE") {
            println!("lint: source     warning: {name} has {lines} lines: is it two files?");
        }
        for violation in violations(name, text) {
            println!("lint: source     BROKEN {name}{violation}");
            broken += 1;
        }
    }
    for circle in circles::find(files.iter().map(|(name, text)| (*name, text.as_str()))) {
        println!("lint: source     BROKEN {circle}");
        broken += 1;
    }
    println!("lint: source     {broken} violations in {} files", files.len());
    if broken > 0 {
        bail!("the sources break our rules in {broken} places, listed above");
    }
    Ok(())
}

/// Returns each broken rule of one file, to be printed after its name.
fn violations(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let file = name.rsplit('/').next().unwrap_or(name);
    let needs_license = !NO_LICENSE_LINE.iter().any(|part| file.starts_with(part) || file.ends_with(part));
    if needs_license && !text.lines().take(2).any(|line| line.contains(concat!("SPDX-License", "-Identifier: "))) {
        found.push(": no SPDX line at the top".to_owned());
    }
    let (is_home, is_kbuild) = (starts(name, UNSAFE_HOMES), starts(name, KBUILD_HOMES));
    let mut has_unsafe = false;
    for (line, number) in text.lines().zip(1..) {
        if line != [LOCK_SOURCE.0, LOCK_SOURCE.1].concat() {
            let part = MACHINE.iter().map(|(a, b)| [*a, *b].concat()).find(|part| line.contains(part.as_str()));
            found.extend(part.map(|part| format!(":{number}: `{part}` is of one machine or registry")));
        }
        if name.ends_with(".rs") && is_unsafe(line) {
            has_unsafe = true;
            if !is_home {
                found.push(format!(":{number}: unsafe outside its homes ({})", UNSAFE_HOMES.join(", ")));
            }
        }
    }
    if has_unsafe && !is_kbuild && !text.contains("UNSAFETY: ") {
        found.push(": unsafe without `UNSAFETY: reason` where it opts in".to_owned());
    }
    found
}

fn starts(name: &str, directories: &[&str]) -> bool {
    directories.iter().any(|directory| name.starts_with(directory))
}

fn is_unsafe(line: &str) -> bool {
    let code = line.trim_start();
    !code.starts_with("//")
        && ["{", "fn ", "impl ", "extern "].iter().any(|next| code.contains(&format!("{} {next}", "unsafe")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP: &str = concat!("// SPDX-License", "-Identifier: MIT\n");

    #[test]
    fn good_files() {
        assert!(violations("vmsa/src/a.rs", TOP).is_empty());
        assert!(violations("linux/el2/a.rs", &format!("{TOP}{} {{ x() }}", "unsafe")).is_empty());
        assert!(violations("itest/src/a.rs", &format!("{TOP}// UNSAFETY: maps\n{} fn a() {{}}", "unsafe")).is_empty());
        assert!(violations("Cargo.lock", &[LOCK_SOURCE.0, LOCK_SOURCE.1].concat()).is_empty());
        assert!(violations("a.rs", &format!("{TOP}// {} {{ in words\n#![forbid(unsafe_code)]", "unsafe")).is_empty());
    }

    #[test]
    fn bad_files() {
        for (name, text, place) in [
            ("a.rs", "fn a() {}".to_owned(), ": no SPDX"),
            ("a.md", format!("{TOP}see {}{}x", "/ro", "ot/"), ":2: `"),
            ("Cargo.lock", format!("source = \"sparse+https://index.crates{}/\"", ".io"), ":1: `"),
            ("hyp/src/a.rs", format!("{TOP}// UNSAFETY: no\nlet a = {} {{ x() }};", "unsafe"), ":3: unsafe outside"),
            ("itest/src/a.rs", format!("{TOP}{} impl A for B {{}}", "unsafe"), ": unsafe without"),
        ] {
            let found = violations(name, &text);
            assert!(found.len() == 1 && found[0].starts_with(place), "{name}: {found:?}");
        }
    }
}
