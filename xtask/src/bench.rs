// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`: what a dump costs, in instructions and as ratios. Figures for people, never a test.
//!
//! QEMU with `-icount shift=0` executes one instruction per virtual nanosecond, and the counter the guest reads runs at
//! 62.5 MHz: one tick is 16 instructions, on any host and at any load. It says nothing of caches and memory; the native
//! benchmarks of `hyp`, which this runs too, do.

use crate::ctx::Ctx;
use crate::process::command;
use crate::qemu::{Bootable, Machine};
use crate::step::Step;
use crate::{guest, kernel, setup};
use anyhow::{Context, Result, bail, ensure};
use std::time::Duration;

/// 1 GHz of instructions by 62.5 MHz of counter.
const INSTRUCTIONS_PER_TICK: u64 = 16;
/// Goal for a folded dump.
const DUMP_GOAL: f64 = 12.0;
/// What the stock kernel's file was measured at when this project began, per entry.
const STOCK_REFERENCE: f64 = 88.0;
/// How far the longest call of the larger guest may be from that of the smaller one to be called the same.
const SAME: f64 = 1.02;
/// Time of one machine; the larger guest touches 131072 pages first.
const TIMEOUT: Duration = Duration::from_secs(1200);

/// One line of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Figure {
    name: String,
    mib: u64,
    instructions: u64,
    entries: u64,
}

/// Measures and prints.
///
/// # Errors
///
/// If a build, a boot or a measurement fails; not if a goal is missed.
pub(crate) fn run(ctx: &Ctx) -> Result<()> {
    let kernel = kernel::build(ctx)?;
    setup::qemu(ctx)?;
    let initramfs = guest::initramfs(ctx)?;
    let boot = Bootable { kernel: &kernel, initramfs: &initramfs };
    let ours = measure(ctx, &boot, "protected", "bench")?;
    let stock = measure(ctx, &boot, "nvhe", "bench=stock")?;
    print!("{}", table(&ours, &stock)?);

    println!("\nnative (cargo bench -p s2dump-hyp):");
    let mut cargo = command("cargo");
    cargo.current_dir(&ctx.root).args(["bench", "--locked", "--package", "s2dump-hyp"]);
    let status = cargo.status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo bench failed ({status})");
    Ok(())
}

/// Boots a machine that counts instructions, and collects what it prints.
fn measure(ctx: &Ctx, boot: &Bootable<'_>, mode: &'static str, what: &str) -> Result<Vec<Figure>> {
    let machine = Machine {
        cpus: 1,
        memory_mib: 1536,
        mode,
        qemu_words: ["-icount", "shift=0,sleep=off"].map(String::from).to_vec(),
        timeout: TIMEOUT,
        ..Machine::default()
    };
    let step = Step::start(format!("bench: kvm-arm.mode={mode}, -icount"));
    let mut figures = Vec::new();
    let name = format!("bench-{mode}");
    let code = machine.boot(ctx, boot, what, &name, |line| {
        if line.starts_with("bench: ") {
            step.detail(line);
            figures.extend(parse(line));
        }
    })?;
    if code != 0 {
        bail!("the measurement failed in the guest; console: {}", crate::qemu::console_path(ctx, &name)?.display());
    }
    step.done();
    Ok(figures)
}

/// Reads `bench: NAME MIB TICKS ENTRIES`.
fn parse(line: &str) -> Option<Figure> {
    let words: Vec<&str> = line.strip_prefix("bench: ")?.split_whitespace().collect();
    let [name, mib, ticks, entries] = words[..] else { return None };
    let instructions = ticks.parse::<u64>().ok()? * INSTRUCTIONS_PER_TICK;
    Some(Figure { name: name.to_owned(), mib: mib.parse().ok()?, instructions, entries: entries.parse().ok()? })
}

/// Returns the table: a line for each figure, its goal beside it.
fn table(ours: &[Figure], stock: &[Figure]) -> Result<String> {
    let find = |figures: &[Figure], name: &str, mib: u64| {
        let found = figures.iter().find(|f| f.name == name && f.mib == mib).cloned();
        found.with_context(|| format!("the guest printed no `bench: {name} {mib}`"))
    };
    let per_entry = |f: &Figure| f.instructions as f64 / f.entries as f64;
    let dump = find(ours, "dump", 64)?;
    let file = find(ours, "file", 64)?;
    let stock = find(stock, "file", 64)?;
    let calls = [find(ours, "call", 64)?, find(ours, "call", 512)?];
    let growth = calls[1].instructions as f64 / calls[0].instructions as f64;
    let verdict = |is_met: bool| if is_met { "met" } else { "MISSED" };
    let rows = [
        (
            "folded dump, up to records in user space",
            &dump,
            format!("{:.1} per entry", per_entry(&dump)),
            format!("<= {DUMP_GOAL}: {}", verdict(per_entry(&dump) <= DUMP_GOAL)),
        ),
        ("  the same", &find(ours, "dump", 512)?, format!("{:.1} per entry", per_entry(&find(ours, "dump", 512)?)), "".into()),
        (
            "debugfs file under pKVM",
            &file,
            format!("{:.1} per entry", per_entry(&file)),
            format!("{:.1} times as fast as the stock file", per_entry(&stock) / per_entry(&file)),
        ),
        (
            "stock kernel's file, without pKVM",
            &stock,
            format!("{:.1} per entry", per_entry(&stock)),
            format!("{STOCK_REFERENCE} when the project began"),
        ),
        ("longest call at the default budget", &calls[0], format!("{}", calls[0].instructions), "".into()),
        (
            "  the same",
            &calls[1],
            format!("{}", calls[1].instructions),
            format!("the same: {growth:.3}, {}", verdict(growth <= SAME && growth * SAME >= 1.0)),
        ),
    ];
    let mut text = format!("{:<42} {:>9}  {:>16}  goal\n", "instructions (-icount)", "guest", "");
    for (what, figure, value, goal) in rows {
        text += format!("{what:<42} {:>5} MiB  {value:>16}  {goal}", figure.mib).trim_end();
        text.push('\n');
    }
    text += &format!("ratio: folded dump to stock file 1:{:.1}\n", per_entry(&stock) / per_entry(&dump));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_lines() {
        let expected = Figure { name: "file".into(), mib: 64, instructions: 1_442_128, entries: 16384 };
        assert_eq!(parse("bench: file 64 90133 16384"), Some(expected));
    }

    #[test]
    fn bad_lines() {
        for line in ["", "bench: ", "bench: file 64 90133", "bench: file 64 many 16384", "file 64 90133 16384"] {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn table_tells_goals_met_and_missed() {
        let of = |ticks: [u64; 5]| {
            let lines = [("call", 64), ("dump", 64), ("file", 64), ("call", 512), ("dump", 512)];
            let lines = lines.iter().zip(ticks);
            lines.map(|((n, mib), ticks)| parse(&format!("bench: {n} {mib} {ticks} {}", mib * 256)).unwrap()).collect()
        };
        let (good, bad): (Vec<_>, Vec<_>) = (of([900, 4096, 9000, 901, 30000]), of([900, 16384, 9000, 7200, 99000]));
        let stock = [parse("bench: file 64 90133 16384").unwrap()];
        let (good, bad) = (table(&good, &stock).unwrap(), table(&bad, &stock).unwrap());
        assert!(good.contains("4.0 per entry  <= 12: met") && good.contains("the same: 1.001, met"), "{good}");
        assert!(bad.contains("16.0 per entry  <= 12: MISSED") && bad.contains("the same: 8.000, MISSED"), "{bad}");
        assert!(good.contains("88.0 per entry"), "{good}");
    }

    #[test]
    fn missing_figure_is_named() {
        assert!(table(&[], &[]).unwrap_err().to_string().contains("`bench: dump 64`"));
    }
}
