// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every table of a pKVM machine as EL2 tells it, entry by entry, against two walks of the machine's memory: a naive one, which
//! shares nothing with s2dump, and that of `s2dump dump --ram`, which shares the walker with EL2 and nothing else.

use super::naive::{shift, Entries, Memory, Table};
use super::{Files, RAM_BASE};
use crate::ctx::Ctx;
use crate::gdb::Gdb;
use crate::process::{command, output};
use crate::qemu::{switch, Bootable, Machine};
use crate::step::Step;
use anyhow::{ensure, Context, Result};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

/// The CPUs: nVHE, hVHE, and LPA2 with FWB.
const CPUS: [&str; 3] = ["cortex-a53", "neoverse-n1", "max"];
const MEMORY_MIB: u32 = 512;
/// All records go over the console.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Kinds of table, in bits 63:56 of a target.
const HOST: u64 = 1;
const HYP: u64 = 2;
/// Features of a table, as `abi::slot::table_features` has them, and the options that say so.
const FEATURES: [(u64, &str); 3] = [(1 << 1, "--fwb"), (1 << 2, "--xnx"), (1 << 3, "--e2h")];
/// Kinds of record.
const INVALID: u8 = 0;
const LEAF: u8 = 1;

/// A table as EL2 told it.
struct Told {
    target: u64,
    table: Table,
    /// VTCR_EL2, or TCR_EL2 of EL2's own table, and its features.
    control: (u64, u64),
    entries: Entries,
    /// Pages that s2dump shared with EL2 while it was read: first address and bytes.
    rings: Vec<(u64, u64)>,
}

/// Returns the names of the checks.
pub(crate) fn names() -> impl Iterator<Item = (String, &'static str)> {
    CPUS.into_iter().map(|cpu| (format!("oracle: pKVM, {cpu}"), cpu))
}

fn numbers(words: &str) -> Result<Vec<u64>> {
    let number = |word: &str| match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => word.parse::<i64>().map(|number| number as u64),
    };
    words.split_whitespace().map(|word| number(word).with_context(|| format!("{word:?} is no number"))).collect()
}

/// Returns the entries of an exact run that are not zero. They are the same, but that the output addresses of leaves run on.
fn unfold(ia: u64, level: i8, raw: u64, count: u64) -> impl Iterator<Item = ((u64, i8), u64)> {
    let size = 1_u64 << shift(level);
    let step = if raw & 1 == 1 { size } else { 0 };
    (0..count).filter(move |_| raw != 0).map(move |n| ((ia + n * size, level), raw + n * step))
}

impl Told {
    /// Has `s2dump` read the table of the image `ram`; returns its entries that are not zero.
    fn read(&self, program: &Path, ram: &str) -> Result<Entries> {
        let (control, features) = self.control;
        let (root, is_hyp) = (self.table.root, self.target >> 56 == HYP);
        let registers = match is_hyp {
            true => [format!("--tcr={control:#x}"), format!("--ttbr0={root:#x}")],
            false => [format!("--vtcr={control:#x}"), format!("--vttbr={root:#x}")],
        };
        let options = FEATURES.iter().filter(|(bit, word)| features & bit != 0 && is_hyp == (*word == "--e2h"));
        let mut s2dump = command(program);
        s2dump.args(["dump", "--exact", "--no-headings", "--columns", "start,level,count,raw", "--ram", ram]);
        let text = output(s2dump.args(registers).args(options.map(|(_, word)| word)))?;
        let mut entries = Entries::new();
        for line in text.lines() {
            let words = numbers(&line.replace('L', ""))?;
            let &[ia, level, count, raw] = words.as_slice() else { anyhow::bail!("{line}: not four columns") };
            entries.extend(unfold(ia, level as i8, raw, count));
        }
        Ok(entries)
    }

    /// Takes what a line says, if it is about tables.
    fn line(all: &mut Vec<Self>, line: &str) -> Result<()> {
        let Some(words) = line.strip_prefix("s2dump-tables: ") else { return Ok(()) };
        let (what, rest) = words.split_once(' ').unwrap_or((words, ""));
        let words = numbers(rest).with_context(|| line.to_owned())?;
        match (what, words.as_slice(), all.last_mut()) {
            ("table", &[target, root, ia_bits, level, control, features], _) => {
                let table = Table { root, ia_bits: u32::try_from(ia_bits)?, start_level: level as i8 };
                all.push(Self {
                    target,
                    table,
                    control: (control, features),
                    entries: Entries::new(),
                    rings: Vec::new(),
                });
            }
            ("ring", &[start, bytes], Some(told)) => told.rings.push((start, bytes)),
            ("run", &[ia, _, raw, count, level, kind], Some(told)) => {
                ensure!(kind as u8 == LEAF || kind as u8 == INVALID, "a record of kind {kind}: {line}");
                told.entries.extend(unfold(ia, level as i8, raw, count));
            }
            _ => anyhow::bail!("a line that makes no sense: {line}"),
        }
        Ok(())
    }

    /// Returns the entries in which what was told differs from what the memory holds.
    ///
    /// Not those that may change between the two looks: pages of s2dump's own ring in EL2's table, idle or busy; and what
    /// the host's first access to an address maps.
    fn differences(&self, held: &Entries) -> Vec<String> {
        const ADDRESS: u64 = 0xffff_ffff_f000;
        const VALID_READ_WRITE: u64 = 0b11 << 6 | 1;
        let is_ring =
            |raw: u64| self.rings.iter().any(|(start, bytes)| (*start..start + bytes).contains(&(raw & ADDRESS)));
        let kind = self.target >> 56;
        let is_expected = |ia: u64, told: Option<u64>, held: Option<u64>| match (kind, told, held) {
            (HYP, Some(raw), None) | (HYP, None, Some(raw)) => is_ring(raw),
            (HOST, Some(raw), None) | (HOST, None, Some(raw)) => {
                raw & VALID_READ_WRITE == VALID_READ_WRITE && raw & ADDRESS == ia
            }
            _ => false,
        };
        let keys = self.entries.keys().chain(held.keys()).collect::<std::collections::BTreeSet<_>>();
        let mut differences = Vec::new();
        for key in keys {
            let (told, held) = (self.entries.get(key).copied(), held.get(key).copied());
            if told != held && !is_expected(key.0, told, held) {
                differences.push(format!("{:#x} level {}: told {told:x?}, in memory {held:x?}", key.0, key.1));
            }
        }
        differences
    }
}

/// Boots, and compares.
///
/// # Errors
///
/// If the boot fails or a table differs.
pub(crate) fn check(ctx: &Ctx, step: &Step, boot: &Bootable<'_>, name: &str, cpu: &str, program: &Path) -> Result<()> {
    let files = Files::new(ctx);
    let machine = Machine {
        cpu: cpu.into(),
        memory_mib: MEMORY_MIB,
        kernel_words: vec![switch(cpu).into()],
        qemu_words: files.qemu_words(MEMORY_MIB),
        timeout: TIMEOUT,
        ..Machine::default()
    };
    let console = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let (mut all, mut compared) = (Vec::new(), 0);
    let code = machine.boot_until(ctx, boot, "tables", &console, |line| {
        if line != "s2dump-tables: ready" {
            Told::line(&mut all, line)?;
            return Ok(ControlFlow::Continue(()));
        }
        // The connection stops the machine.
        let _gdb = Gdb::connect(&files.socket)?;
        let bytes = std::fs::read(&files.ram)?;
        let memory = Memory { base: RAM_BASE, bytes: &bytes };
        for told in &all {
            let held = memory.entries(told.table).with_context(|| format!("{:#x}", told.target))?;
            let differences = told.differences(&held);
            let few = differences.iter().take(8).cloned().collect::<Vec<_>>().join("; ");
            ensure!(differences.is_empty(), "table {:#x}: {} differences: {few}", told.target, differences.len());
            ensure!(!held.is_empty(), "table {:#x} is empty", told.target);
            // The machine stands still: what both read is the same to the last entry.
            let read = told.read(program, &format!("{}@{RAM_BASE:#x}", files.ram.display()))?;
            let differs = |(key, raw): &(&(u64, i8), &u64)| held.get(key) != Some(raw);
            let other = read.iter().find(differs).or_else(|| held.iter().find(|(key, _)| !read.contains_key(key)));
            ensure!(other.is_none(), "table {:#x}: dump --ram and memory differ at {other:x?}", told.target);
            step.detail(format!("table {:#x}: {} entries", told.target, held.len()));
            compared += held.len();
        }
        Ok(ControlFlow::Break(()))
    })?;
    ensure!(code == 0, "the guest failed (exit code {code})");
    ensure!(all.len() == 5, "{} tables instead of 5", all.len());
    step.result(&format!("{name}: {} tables, {compared} entries equal, three times", all.len()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[&str]) -> Told {
        let mut all = Vec::new();
        lines.iter().for_each(|line| Told::line(&mut all, &format!("s2dump-tables: {line}")).unwrap());
        all.pop().unwrap()
    }

    #[test]
    fn runs_unfold() {
        let told = told(&[
            "table 0x1000 0x41000000 40 1 0x80023558 4",
            "run 0x80000000 0x42000000 0x42000003 2 3 1",
            "run 0x80002000 0 0x3000000000000000 2 3 0",
            "run 0x80004000 0 0 9 3 0",
        ]);
        assert_eq!((told.table.root, told.table.ia_bits, told.table.start_level), (0x4100_0000, 40, 1));
        let entries =
            [(0x8000_0000, 0x4200_0003), (0x8000_1000, 0x4200_1003), (0x8000_2000, 3 << 60), (0x8000_3000, 3 << 60)];
        assert_eq!(told.entries, entries.map(|(ia, raw)| ((ia, 3), raw)).into());
    }

    /// Only what may change between two looks is no difference.
    #[test]
    fn differences_are_told() {
        let hyp = told(&[
            "table 0x200000000000000 0x41000000 48 0 0x80823510 8",
            "ring 0x45000000 0x2000",
            "run 0x1000 0x45001000 0x45001003 1 3 1",
            "run 0x2000 0x46000000 0x46000003 1 3 1",
        ]);
        let of = |pairs: &[(u64, u64)]| pairs.iter().map(|(ia, raw)| ((*ia, 3), *raw)).collect::<Entries>();
        assert!(hyp.differences(&of(&[(0x2000, 0x4600_0003)])).is_empty(), "a ring page was unmapped");
        assert_eq!(hyp.differences(&of(&[])).len(), 1, "another page was");
        assert_eq!(hyp.differences(&of(&[(0x2000, 0x4600_1003)])).len(), 1, "or leads elsewhere");
        let host =
            told(&["table 0x100000000000000 0x41000000 40 1 0x80023558 4", "run 0x1000 0 0x2000000000000002 1 3 0"]);
        assert!(
            host.differences(&of(&[(0x1000, 2 << 60 | 2), (0x5000, 0x50c3)])).is_empty(),
            "the host touched a page"
        );
        for raw in [0x6_00c3, 0x5003] {
            let held = of(&[(0x1000, 2 << 60 | 2), (0x5000, raw)]);
            assert_eq!(host.differences(&held).len(), 1, "{raw:#x} is no page that a first access makes");
        }
        assert_eq!(host.differences(&of(&[])).len(), 1, "an annotation does not go");
        assert_eq!(host.differences(&of(&[(0x1000, 0x1003)])).len(), 1, "nor turn into a leaf");
        let guest = told(&["table 0x1000 0x41000000 40 1 0x80023558 4", "run 0x1000 0x45001000 0x45001003 1 3 1"]);
        assert_eq!(guest.differences(&of(&[])).len(), 1);
        assert!(Told::line(&mut Vec::new(), "s2dump-tables: run 1 2 3 4 5 6").is_err(), "of no table");
        assert!(Told::line(&mut Vec::new(), "another line").is_ok());
    }
}
