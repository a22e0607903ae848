// SPDX-License-Identifier: MIT OR Apache-2.0
//! The check of the tarballs: as somebody would install them, with the programs of the system.

use super::{make, write, Tarball, CHECKSUMS, TARGETS};
use crate::ctx::Ctx;
use crate::process::{command, is_on_path, output};
use crate::step::Step;
use anyhow::{ensure, Context, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Name of the check.
pub(crate) const NAME: &str = "dist: tarballs";
/// Where the README says what is in a tarball.
const HEADING: &str = "## Install";

/// Packs the tarballs twice, unpacks them, and looks at what people would use.
///
/// # Errors
///
/// With the first thing that is wrong.
pub(crate) fn check(ctx: &Ctx, step: &Step) -> Result<()> {
    let tarballs = make(ctx, true)?;
    for (Tarball { top, bytes }, again) in tarballs.iter().zip(make(ctx, true)?) {
        ensure!(*bytes == again.bytes, "{top}: packed twice, and not the same");
    }
    let dir = tempfile::tempdir()?;
    write(dir.path(), &tarballs)?;
    output(command("sha256sum").current_dir(dir.path()).args(["--check", "--strict", CHECKSUMS]))?;
    for Tarball { top, bytes } in &tarballs {
        step.result(&format!("{top}.tar.gz: {} bytes", bytes.len()));
        output(command("tar").current_dir(dir.path()).arg("-xzf").arg(format!("{top}.tar.gz")))?;
    }
    let readme = std::fs::read_to_string(ctx.root.join("README.md"))?;
    for Tarball { top, .. } in &tarballs[..TARGETS.len()] {
        let prefix = dir.path().join(top);
        contents(&prefix, &readme).with_context(|| top.clone())?;
        if top.contains(std::env::consts::ARCH) {
            native(ctx, &prefix).with_context(|| top.clone())?;
        }
    }
    let patches = files(&dir.path().join(&tarballs[TARGETS.len()].top))?;
    ensure!(patches.iter().any(|path| path.ends_with(".patch")), "no patches: {patches:?}");
    Ok(())
}

/// Checks that all files are where the README says, and that there are some wherever it says.
fn contents(prefix: &Path, readme: &str) -> Result<()> {
    let said = places(readme);
    ensure!(!said.is_empty(), "README.md has no table of what is in a tarball, below `{HEADING}`");
    let found = files(prefix)?;
    for file in &found {
        ensure!(said.iter().any(|place| is_at(file, place)), "{file} is not in the table of README.md");
    }
    for place in &said {
        ensure!(found.iter().any(|file| is_at(file, place)), "README.md names {place}, which is not there");
    }
    Ok(())
}

/// Returns whether a file is a place, or in it if it is a directory.
fn is_at(file: &str, place: &str) -> bool {
    file.strip_prefix(place).is_some_and(|rest| rest.is_empty() || place.ends_with('/'))
}

/// Returns the first column of the table below the heading: what is between backquotes.
fn places(readme: &str) -> Vec<&str> {
    let (_, section) = readme.split_once(HEADING).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
}

/// Checks what runs on this machine.
fn native(ctx: &Ctx, prefix: &Path) -> Result<()> {
    let program = prefix.join("bin/s2dump");
    let version = output(command(&program).arg("--version"))?;
    let commit = output(command("git").current_dir(&ctx.root).args(["rev-parse", "--short=12", "HEAD"]))?;
    let want = format!("s2dump {} ({}", env!("CARGO_PKG_VERSION"), commit.trim());
    ensure!(version.starts_with(&want), "`{}` is not `{want}...)`", version.trim());

    let help = output(command(&program).arg("--help"))?;
    let verbs = verbs(&help);
    ensure!(verbs.contains("dump"), "--help lists no verbs:\n{help}");
    for script in
        ["bash-completion/completions/s2dump", "zsh/site-functions/_s2dump", "fish/vendor_completions.d/s2dump.fish"]
    {
        let text = std::fs::read_to_string(prefix.join("share").join(script))?;
        for verb in &verbs {
            ensure!(words(&text).any(|word| word == *verb), "{script} does not know {verb}");
        }
    }
    completes(&prefix.join("share/bash-completion/completions/s2dump"))?;
    let pages = prefix.join("share/man/man1");
    for verb in verbs.iter().filter(|verb| **verb != "help") {
        renders(&pages.join(format!("s2dump-{verb}.1")))?;
    }
    renders(&pages.join("s2dump.1"))
}

/// Returns the verbs that `--help` lists.
fn verbs(help: &str) -> BTreeSet<&str> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // What a verb does may go on in lines that are further in.
    list.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?.split(' ').next()).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
}

/// Has bash complete the beginning of a verb.
fn completes(script: &Path) -> Result<()> {
    let ask =
        "source \"$1\"; COMP_WORDS=(s2dump cap); COMP_CWORD=1; _s2dump s2dump cap s2dump; echo \"${COMPREPLY[*]}\"";
    let told = output(command("bash").args(["-c", ask, "bash"]).arg(script))?;
    ensure!(told.trim() == "capture", "bash completes `s2dump cap` to `{}`", told.trim());
    Ok(())
}

/// Checks that a manual page has the usual sections, and that groff, if it is there, has nothing to say about it.
fn renders(page: &PathBuf) -> Result<()> {
    let text = std::fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    for section in [".TH ", ".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH OPTIONS"] {
        ensure!(text.lines().any(|line| line.starts_with(section)), "{} has no {section}", page.display());
    }
    if is_on_path("groff") {
        let ran = command("groff").args(["-man", "-ww", "-Tutf8", "-z"]).arg(page).output()?;
        let said = String::from_utf8_lossy(&ran.stderr);
        ensure!(ran.status.success() && said.is_empty(), "groff says of {}:\n{said}", page.display());
    }
    Ok(())
}

/// Returns the paths of all files below `dir`.
fn files(dir: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in dir.read_dir().with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path)?.into_iter().map(|file| format!("{name}/{file}")));
        } else {
            found.push(name);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_readme_says() {
        let readme = "# a\n| `no` | x |\n## Install\n\n| place | what |\n|---|---|\n| `bin/a` | b |\n| `c/` | d |\n## More\n| `e` |\n";
        assert_eq!(places(readme), ["bin/a", "c/"]);
        assert!(is_at("bin/a", "bin/a") && is_at("c/d/e", "c/"));
        assert!(!is_at("bin/ab", "bin/a") && !is_at("bin", "bin/a") && !is_at("cd", "c/"));
    }

    #[test]
    fn verbs_of_a_help_text() {
        let help = "About\n\nCommands:\n  one  Does\n         more\n  two  It\n\nOptions:\n  -h\n";
        assert_eq!(verbs(help), BTreeSet::from(["one", "two"]));
    }
}
