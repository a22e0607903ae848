// SPDX-License-Identifier: MIT OR Apache-2.0
//! `report` of a machine at work: it keeps to its time, and the file is for people and for every verb.

use super::support::handle_of;
use super::{tests, Outcome};
use crate::machine::Machine;
use crate::program::{self, exit, Ran};
use crate::script::page_bytes;
use crate::vmm_process::VmmProcess;
use anyhow::{ensure, Context as _, Result};
use std::fs;
use std::time::{Duration, Instant};

tests!(On: ; heavy: reports_keep_to_their_time);

/// Guests with 32 MiB of memory whose pages are scattered: every other address has one, and no two of them join.
const SCATTERED: [(&str, &str); 3] = [("protected", ""), ("protected", "share:16*2"), ("ordinary", "")];
const CHURNING: &str = "ordinary --mem 0x80000000+2M touch:1";
const PATH: &str = "/tmp/report.s2d";
/// Milliseconds in which an emulated CPU that does other things too may come no further than to what the machine supports.
const TINY: u64 = 300;
/// So often it may be tried to keep to a time: the emulated CPU may stand still for longer than a small budget leaves.
const TRIES: u32 = 3;
/// What a process may take to start and to end beside what it measures itself, on an emulated CPU that does other things too.
const START: Duration = Duration::from_millis(700);

fn reports_keep_to_their_time(machine: &Machine) -> Outcome {
    let pages = (16 << 20) / page_bytes();
    let start =
        |(kind, then)| VmmProcess::start_exactly(&format!("{kind} --mem 0x80000000+32M touch:{pages}*2 {then}"));
    let idle = SCATTERED.into_iter().map(start).collect::<Result<Vec<_>>>()?;
    let busy = VmmProcess::start_churning(CHURNING, "64*8")?;
    let handles = idle.iter().chain([&busy]).map(handle_of).collect::<Result<Vec<_>>>()?;
    for millis in [30_000, 5_000, 1_000, TINY] {
        let budget = machine.patience(Duration::from_millis(millis));
        let in_time = (0..TRIES).try_fold(false, |in_time, _| match in_time {
            true => Ok(true),
            false => report(budget, millis == TINY, machine.patience(START), &handles),
        });
        ensure!(in_time.with_context(|| format!("in {budget:?}"))?, "{TRIES} times it took more than {budget:?}");
    }
    drop(busy);
    idle.into_iter().try_for_each(VmmProcess::end)
}

/// Reports in `budget`, beside which a process takes `start`, prints what took how long, and checks the file. Returns whether it came
/// in time, which of a tiny budget only the whole process has to.
fn report(budget: Duration, is_tiny: bool, start: Duration, handles: &[u16]) -> Result<bool> {
    let allowed = format!("{}ms", budget.as_millis());
    let begin = Instant::now();
    let ran = program::run(&["report", "-O", PATH, "--budget", &allowed])?;
    let took = begin.elapsed();
    let bytes = fs::read(PATH)?;
    let text_bytes = bytes
        .split(|&byte| byte == b'\n')
        .next()
        .and_then(|line| std::str::from_utf8(line).ok()?.rsplit(' ').next()?.parse::<usize>().ok());
    let text = bytes.get(..text_bytes.context("no length")?).context("less than it says")?;
    let text = std::str::from_utf8(text)?;
    println!("  --budget {allowed}: {} ms, {} bytes, {}", took.as_millis(), bytes.len(), ran.stderr.trim());
    let times = text.split_once("\n== time ==\n").context("no times")?.1;
    times.lines().for_each(|line| println!("    {line}"));
    let own = times.split_whitespace().next().and_then(|number| number.parse().ok()).map(Duration::from_millis);
    let most = if is_tiny { budget + start } else { budget };
    let in_time = own.context("no time")? <= most && took <= budget + start;

    let left_out =
        text.split_once("\n== left out ==\n").and_then(|(_, rest)| rest.split_once("\n\n")).context("no end")?.0;
    let code = if left_out == "nothing" { 0 } else { exit::PARTIAL };
    ensure!(ran.code == code, "exit code {}, left out: {left_out}", ran.code);
    if is_tiny && left_out.contains("nothing was read") {
        ensure!(text.contains("\nready\n") && left_out.contains("no time left: list"), "{text}");
        return Ok(in_time);
    }
    for title in ["VMs", "tables", "page frames", "whether isolation is intact"] {
        ensure!(text.contains(&format!("\n== {title} == ")), "nothing about {title}: {text}");
    }
    ensure!(!text.contains("\nFINDING "), "{text}");

    let read = |verb: &[&str]| -> Result<Ran> { program::run(&[verb, &["-i", PATH]].concat()) };
    let list = read(&["list"])?.ok()?;
    for handle in handles {
        let name = format!("vm:{handle:#x}");
        ensure!(list.contains(&name), "no {name} in {list}");
        let dump = read(&["dump", &name])?;
        ensure!(dump.code == 0 || left_out.contains(&name), "{name} is not whole, and not named: {left_out}: {dump:?}");
        let stat = read(&["stat", &name])?;
        ensure!(stat.code == dump.code, "{stat:?}");
        // What the file has of it, the text has too, unless it says that this is cut.
        let first = stat.stdout.lines().next().unwrap_or_default();
        ensure!(text.contains(first) || left_out.contains("stat"), "{first} is not in {text}");
    }
    let audit = read(&["audit"])?;
    ensure!([0, exit::PARTIAL].contains(&audit.code) && audit.stdout.contains("findings: 0,"), "{audit:?}");
    fs::remove_file(PATH)?;
    Ok(in_time)
}
