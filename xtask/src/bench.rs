// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`: what a dump costs, and how long it keeps others waiting. Figures for people, never a test.
//!
//! QEMU with `-icount shift=0` executes one instruction per virtual nanosecond, on any host and at any load. It says nothing of caches and memory; the native
//! benchmarks of `hyp`, which this runs too, do. Holds of locks are measured a second time with real threads.

mod holds;

use crate::ctx::Ctx;
use crate::process::command;
use crate::qemu::{Bootable, Machine};
use crate::step::Step;
use crate::{guest, kernel, setup};
use anyhow::{bail, ensure, Context, Result};
use std::time::Duration;

/// Goals for a packed dump where every page jumps: instructions and bytes per page, and its calls to those of one that is
/// exact and not packed.
const PACKED_GOALS: [f64; 3] = [16.0, 10.0, 0.125];
/// Goal for a folded dump.
const DUMP_GOAL: f64 = 8.5;
/// What the stock kernel's file was measured at when this project began, per entry.
const STOCK_REFERENCE: f64 = 88.0;
/// How far the longest call of the larger guest may be from that of the smaller one to be called the same.
const SAME: f64 = 1.02;
/// Time of one machine; the larger guest touches 131072 pages first.
const TIMEOUT: Duration = Duration::from_secs(1800);

/// One line of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Figure {
    /// For example `dump-64MiB-ordinary`.
    name: String,
    /// Nanoseconds: instructions, where these are counted. Or what else the line tells, calls or bytes.
    ns: u64,
    entries: u64,
}

impl Figure {
    fn per_entry(&self) -> f64 {
        self.ns as f64 / self.entries as f64
    }
}

/// Returns the figure of that name.
fn find<'a>(figures: &'a [Figure], name: &str) -> Result<&'a Figure> {
    let found = figures.iter().find(|figure| figure.name == name);
    found.with_context(|| format!("the guest printed no `bench {name}`"))
}

/// Returns the verdict on a goal.
fn met(is_met: bool) -> &'static str {
    if is_met {
        "met"
    } else {
        "MISSED"
    }
}

/// How a machine runs: one CPU whose instructions are counted, or more, each a thread of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    Instructions,
    Threads(u32),
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
    let ours = measure(ctx, &boot, "neoverse-n1", "protected", Clock::Instructions, "bench=512")?;
    let stock = measure(ctx, &boot, "neoverse-n1", "nvhe", Clock::Instructions, "bench")?;
    print!("{}", table(&ours, &stock)?);
    let counted = measure(ctx, &boot, holds::CPU, "protected", Clock::Instructions, "bench=holds")?;
    let threads = measure(ctx, &boot, holds::CPU, "protected", Clock::Threads(2), "bench=holds")?;
    print!("\n{}", holds::table(&counted, &threads)?);

    println!("\nnative (cargo bench -p s2dump-hyp):");
    let mut cargo = command("cargo");
    cargo.current_dir(&ctx.root).args(["bench", "--quiet", "--locked", "--package", "s2dump-hyp", "--bench", "walk"]);
    let status = cargo.status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo bench failed ({status})");
    Ok(())
}

/// Boots a machine and collects what it prints.
fn measure(
    ctx: &Ctx,
    boot: &Bootable<'_>,
    cpu: &str,
    mode: &'static str,
    clock: Clock,
    what: &str,
) -> Result<Vec<Figure>> {
    let (cpus, qemu_words, shown) = match clock {
        Clock::Instructions => (1, ["-icount", "shift=0,sleep=off"], "-icount".to_owned()),
        Clock::Threads(cpus) => (cpus, ["-accel", "tcg,thread=multi"], format!("{cpus} threads")),
    };
    let machine = Machine {
        cpu: cpu.into(),
        cpus,
        memory_mib: 1536,
        mode,
        qemu_words: qemu_words.map(String::from).to_vec(),
        timeout: TIMEOUT,
        ..Machine::default()
    };
    let step = Step::start(format!("bench: -cpu {cpu}, kvm-arm.mode={mode}, {shown}, {what}"));
    let mut figures = Vec::new();
    let name = format!("{what}-{mode}-{shown}").replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let code = machine.boot(ctx, boot, what, &name, |line| {
        if line.starts_with("bench") {
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

/// Reads `bench NAME ns=N entries=N`.
fn parse(line: &str) -> Option<Figure> {
    let mut words = line.strip_prefix("bench ")?.split_whitespace();
    let name = words.next()?.to_owned();
    let value = words.next()?.split_once('=').filter(|(key, _)| ["ns", "calls", "bytes"].contains(key))?.1;
    let (ns, entries) = (value.parse().ok()?, words.next()?.strip_prefix("entries=")?.parse().ok()?);
    Some(Figure { name, ns, entries })
}

/// Returns the table of what a dump costs: a line for each figure, its goal beside it.
fn table(ours: &[Figure], stock: &[Figure]) -> Result<String> {
    let stock = find(stock, "debugfs-64MiB-ordinary")?.per_entry();
    let mut text = format!("{:<48} {:>9} {:>9}\n", "instructions per level-3 entry", "protected", "ordinary");
    let mut row = |what: &str, values: [String; 2], note: String| {
        text += format!("{what:<48} {:>9} {:>9}  {note}", values[0], values[1]).trim_end();
        text.push('\n');
    };
    // The larger guest is measured as one kind only; the last kind found is returned, the stock kernel's if possible.
    let mut both = |what: &str, name: &str, note: &dyn Fn(f64) -> String| -> Result<f64> {
        let kinds = ["protected", "ordinary"].map(|kind| find(ours, &format!("{name}-{kind}")));
        let values = kinds.each_ref().map(|figure| figure.as_ref().ok().map(|figure| figure.per_entry()));
        let worst = values.iter().flatten().copied().fold(0.0, f64::max);
        row(what, values.map(|value| value.map_or("-".into(), |value| format!("{value:.1}"))), note(worst));
        let [protected, ordinary] = kinds;
        Ok(ordinary.or(protected)?.per_entry())
    };
    let goal = |worst: f64| format!("goal <= {DUMP_GOAL}: {}", met(worst <= DUMP_GOAL));
    let dump = both("folded dump, EL2 + EL1, 64 MiB guest", "dump-64MiB", &goal)?;
    both("folded dump, EL2 + EL1, 512 MiB guest", "dump-512MiB", &goal)?;
    let file = both("debugfs file under pKVM, 64 MiB guest", "debugfs-64MiB", &|_| String::new())?;
    both("debugfs file under pKVM, 512 MiB guest", "debugfs-512MiB", &|_| String::new())?;
    let reference = format!("{STOCK_REFERENCE} when the project began");
    row("stock debugfs file, no pKVM, 64 MiB guest", ["-".into(), format!("{stock:.1}")], reference);

    text += &packed(ours)?;
    let calls = [find(ours, "call-64MiB-protected")?, find(ours, "call-512MiB-protected")?];
    let [small, large] = calls.map(|call| call.ns);
    let growth = large as f64 / small as f64;
    let verdict = met(growth <= SAME && growth * SAME >= 1.0);
    text += "\nlongest call at the default budget, with its ioctl, protected guest\n";
    text += &format!("64 MiB: {small} instructions, 512 MiB: {large}; ratio {growth:.3}, goal the same: {verdict}\n");
    let (dump, file) = (stock / dump, stock / file);
    text += &format!("\nratios to the stock file: folded dump 1:{dump:.1}, debugfs file under pKVM 1:{file:.1}\n");
    Ok(text)
}

/// Returns what an exact dump costs where every page jumps, packed and not.
fn packed(figures: &[Figure]) -> Result<String> {
    let per_page = |name: &str| Ok::<_, anyhow::Error>(find(figures, name)?.per_entry());
    let mut text = format!("\n{:<48} {:>9} {:>9}\n", "exact dump where every page jumps", "packed", "not");
    let [instructions, bytes, calls] = PACKED_GOALS;
    for (what, name, goal) in [("instructions per page", "jumping", instructions), ("bytes per page", "bytes", bytes)] {
        let [packed, exact] = [per_page(&format!("packed-{name}"))?, per_page(&format!("exact-{name}"))?];
        text += &format!("{what:<48} {packed:>9.1} {exact:>9.1}  goal <= {goal}: {}\n", met(packed <= goal));
    }
    let [packed, exact] = [find(figures, "packed-calls")?.ns, find(figures, "exact-calls")?.ns];
    let verdict = met(packed as f64 <= exact as f64 * calls);
    text += &format!("{:<48} {packed:>9} {exact:>9}  goal <= 1/{}: {verdict}\n", "calls", 1.0 / calls);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_lines() {
        let expected = Figure { name: "debugfs-64MiB-ordinary".into(), ns: 1_442_128, entries: 16384 };
        assert_eq!(parse("bench debugfs-64MiB-ordinary ns=1442128 entries=16384"), Some(expected));
    }

    #[test]
    fn bad_lines() {
        for line in ["", "bench", "bench file ns=1", "bench file ns=x entries=1", "bench: No such file"] {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }

    fn figures(dump: u64, large_call: u64) -> Vec<Figure> {
        let of = |name: &str, ns: u64, entries: u64| Figure { name: name.into(), ns, entries };
        vec![
            of("dump-64MiB-protected", 16 * dump, 16384),
            of("dump-64MiB-ordinary", 16 * dump, 16384),
            of("dump-512MiB-protected", 16 * dump * 8, 131_072),
            of("debugfs-64MiB-protected", 16 * 9000, 16384),
            of("debugfs-64MiB-ordinary", 16 * 9000, 16384),
            of("debugfs-512MiB-protected", 16 * 72000, 131_072),
            of("packed-jumping", 16384 * 9, 16384),
            of("exact-jumping", 16384 * 150, 16384),
            of("packed-bytes", 16384 * 8, 16384),
            of("exact-bytes", 16384 * 35, 16384),
            of("packed-calls", 9, 16384),
            of("exact-calls", 340, 16384),
            of("call-64MiB-protected", 16 * 1000, 4096),
            of("call-512MiB-protected", 16 * large_call, 4096),
        ]
    }

    #[test]
    fn table_tells_goals_met_and_missed() {
        let stock = [parse("bench debugfs-64MiB-ordinary ns=1442128 entries=16384").unwrap()];
        let good = table(&figures(4096, 1001), &stock).unwrap();
        assert!(
            good.contains("4.0       4.0  goal <= 8.5: met")
                && good.contains("4.0         -  goal <= 8.5: met")
                && good.contains("ratio 1.001, goal the same: met"),
            "{good}"
        );
        assert!(good.contains("88.0") && good.contains("folded dump 1:22.0"), "{good}");
        let bad = table(&figures(16384, 8000), &stock).unwrap();
        assert!(bad.contains("goal <= 8.5: MISSED") && bad.contains("ratio 8.000, goal the same: MISSED"), "{bad}");
    }

    #[test]
    fn packed_goals_met_and_missed() {
        let good = figures(4096, 1001);
        let text = packed(&good).unwrap();
        assert!(text.contains("goal <= 16: met") && text.contains("goal <= 10: met"), "{text}");
        assert!(text.contains("9       340  goal <= 1/8: met"), "{text}");
        let bad: Vec<_> = good.into_iter().map(|figure| Figure { ns: figure.ns * 5, ..figure }).collect();
        let bad: Vec<_> = bad.into_iter().filter(|figure| figure.name != "exact-calls").collect();
        let exact_calls = Figure { name: "exact-calls".into(), ns: 340, entries: 1 };
        let text = packed(&[bad, vec![exact_calls]].concat()).unwrap();
        assert_eq!(text.matches("MISSED").count(), 3, "{text}");
    }

    #[test]
    fn missing_figure_is_named() {
        assert!(table(&[], &[]).unwrap_err().to_string().contains("`bench debugfs-64MiB-ordinary`"));
    }
}
