// SPDX-License-Identifier: MIT OR Apache-2.0
//! Wrong rules, one at a time: proof that the comparison can fail. Made in a copy, so that the product has no hooks.

use super::boot::{boot, End};
use super::{build_in, Testbed, FAILED};
use crate::ctx::Ctx;
use crate::process::{command, output};
use crate::step::{clock, Step};
use anyhow::{bail, ensure, Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Instant;

/// A wrong rule.
struct Mutation {
    /// What is wrong.
    what: &'static str,
    file: &'static str,
    /// Stands there once.
    from: &'static str,
    to: &'static str,
    /// A CPU that has what it is about.
    cpu: &'static str,
}

const MUTATIONS: [Mutation; 11] = [
    Mutation {
        what: "XN 01 bars EL0, not EL1",
        file: "vmsa/src/attrs.rs",
        from: "(false, true) => Self::El1,",
        to: "(false, true) => Self::El0,",
        cpu: "cortex-a76",
    },
    Mutation {
        what: "LPA2 drops address bit 51",
        file: "vmsa/src/geometry.rs",
        from: "bits(raw, 9, 8) << 50",
        to: "bits(raw, 8, 8) << 50",
        cpu: "max",
    },
    Mutation {
        what: "at most 8 tables are concatenated",
        file: "vmsa/src/vtcr.rs",
        from: "granule.index_bits() as i8 + 4",
        to: "granule.index_bits() as i8 + 3",
        cpu: "cortex-a72",
    },
    Mutation {
        what: "SL2 counts with 16K pages",
        file: "vmsa/src/vtcr.rs",
        from: "lpa2 && matches!(granule, Granule::Size4K)",
        to: "lpa2",
        cpu: "max",
    },
    Mutation {
        what: "64K has 4 TiB blocks without FEAT_LPA",
        file: "vmsa/src/geometry.rs",
        from: "(Granule::Size64K, 1) => self.format.has(Format::LPA)",
        to: "(Granule::Size64K, 1) => true",
        cpu: "neoverse-n1",
    },
    Mutation {
        what: "FWB's MemAttr 7 is write-back whatever stage 1 says",
        file: "vmsa/src/attrs.rs",
        from: "(0b0111, true) => Self::AsStage1,",
        to: "(0b0111, true) => Self::ForcedWriteBack,",
        cpu: "neoverse-n2",
    },
    Mutation {
        what: "with LPA2, SH is still in the descriptor",
        file: "vmsa/src/leaf.rs",
        from: "pub(crate) const fn sh(&self) -> Shareability {\n        if self.geometry.is_lpa2() {",
        to: "pub(crate) const fn sh(&self) -> Shareability {\n        if false {",
        cpu: "max",
    },
    Mutation {
        what: "a permission fault comes before an access flag fault",
        file: "vmsa/src/leaf.rs",
        from: "} else if !self.access_flag() && !self.geometry.sets_access_flag() {",
        to: "} else if rights.allow(access) && !self.access_flag() && !self.geometry.sets_access_flag() {",
        cpu: "cortex-a76",
    },
    Mutation {
        what: "EL2's APTable does not count",
        file: "vmsa/src/el2.rs",
        from: " && !self.inherited.is_read_only();",
        to: ";",
        cpu: "cortex-a72",
    },
    Mutation {
        what: "the walker reads the first of concatenated tables only",
        file: "hyp/src/table_memory.rs",
        from: "self.base.wrapping_add(part << granule.page_shift())",
        to: "self.base.wrapping_add((part << granule.page_shift()) & 0)",
        cpu: "cortex-a76",
    },
    Mutation {
        what: "a walk that climbs out of a table goes on in it",
        file: "hyp/src/walker.rs",
        from: "(Some(entries), _) => entries,",
        to: "(Some(_), _) => self.table,",
        cpu: "cortex-a76",
    },
];
/// Random cases for each: directed ones find most.
const CASES: u32 = 4_000;

/// Tries each, on its CPU, once the unchanged sources have passed there.
///
/// # Errors
///
/// If one is not noticed, does not compile or no longer fits the sources; if the unchanged sources do not pass; if QEMU does
/// not come to an end that says anything.
pub(super) fn run(ctx: &Ctx, args: &Testbed) -> Result<()> {
    let is_asked = |cpu| args.cpu.is_empty() || args.cpu.iter().any(|asked| asked == cpu);
    let mutations: Vec<&Mutation> = MUTATIONS.iter().filter(|mutation| is_asked(mutation.cpu)).collect();
    let cpus: BTreeSet<&str> = mutations.iter().map(|mutation| mutation.cpu).collect();
    let all: BTreeSet<&str> = MUTATIONS.iter().map(|mutation| mutation.cpu).collect();
    ensure!(!cpus.is_empty(), "no mutation is tried on these CPUs: take some of {all:?}");
    let dir = ctx.target.join("testbed-mutations");
    let tree = dir.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree).with_context(|| format!("cannot empty {}", tree.display()))?;
    }
    copy(&ctx.root, &tree)?;
    let args = Testbed { cases: args.cases.or(Some(CASES)), ..args.clone() };
    let step = Step::start("mutation: none");
    let image = build_in(&step, ctx, &tree, &dir.join("target"))?;
    for cpu in cpus {
        boot(ctx, &image, cpu, &args)?.passed().with_context(|| format!("{cpu}, before anything is made wrong"))?;
        step.result(&format!("mutation: none: passed on {cpu}"));
    }
    step.done();
    let mut missed = Vec::new();
    for Mutation { what, file, from, to, cpu } in mutations.iter().copied() {
        let step = Step::start(format!("mutation: {what}"));
        let started = Instant::now();
        let path = tree.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let places = text.matches(from).count();
        ensure!(places == 1, "{file}: `{from}` stands there {places} times, not once");
        fs::write(&path, text.replace(from, to))?;
        let image = build_in(&step, ctx, &tree, &dir.join("target"))?;
        fs::write(&path, text)?;
        let boot = boot(ctx, &image, cpu, &args)?;
        let time = clock(started.elapsed());
        match boot.end {
            End::Passed => {
                step.result(&format!("mutation: {what}: NOT NOTICED on {cpu}; {time}"));
                missed.push(*what);
            }
            End::Failed | End::Aborted => {
                let how = boot.console.lines().find_map(|line| line.strip_prefix(FAILED));
                // It was asked what the right rule does not ask.
                let how = how.unwrap_or("QEMU's assertion");
                step.result(&format!("mutation: {what}: noticed on {cpu}, first by {how}; {time}"));
            }
            End::Broken(_) => boot.passed().with_context(|| format!("mutation: {what}: neither noticed nor missed"))?,
        }
        step.done();
    }
    if !missed.is_empty() {
        bail!("not noticed: {}", missed.join("; "));
    }
    println!("{} of {} mutations noticed", mutations.len(), mutations.len());
    Ok(())
}

/// Copies what git tracks or would add.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let list = output(command("git").arg("-C").arg(from).args(["ls-files", "-co", "--exclude-standard", "-z"]))?;
    for name in list.split_terminator('\0') {
        let (source, target) = (from.join(name), to.join(name));
        // Deleted but not yet committed files are listed too.
        if source.is_file() {
            fs::create_dir_all(target.parent().context("a file has a directory")?)?;
            fs::copy(&source, &target).with_context(|| format!("cannot copy {}", source.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mutation_fits_one_place() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for Mutation { what, file, from, .. } in &MUTATIONS {
            let text = fs::read_to_string(root.join(file)).expect(file);
            assert_eq!(text.matches(from).count(), 1, "{what}: `{from}` in {file}");
        }
    }
}
