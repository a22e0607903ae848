// SPDX-License-Identifier: MIT OR Apache-2.0
//! `watch` of a guest at work.

use super::support::handle_of;
use super::{tests, Outcome};
use crate::machine::Machine;
use crate::program;
use crate::vmm_process::VmmProcess;
use anyhow::{bail, ensure, Context as _, Result};
use serde::Deserialize;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

tests!(On: changes_are_watched, interrupted_watch_tells_its_end, watch_that_nobody_reads_ends);

/// How long a program may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Line {
    r#type: String,
    of: Option<String>,
    changes: Option<u64>,
    readings: Option<u64>,
    average_ms: Option<f64>,
    cpu_percent: Option<f64>,
    calls_per_second: Option<f64>,
}

fn lines(text: &str) -> Result<Vec<Line>> {
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

fn changes_are_watched(_: &Machine) -> Outcome {
    const SHARE: &str = "20";
    let idle = VmmProcess::start("protected touch:16")?;
    let busy = VmmProcess::start_churning("ordinary --mem 0x80000000+2M touch:1", "64*8")?;
    for (vmm, changes) in [(&idle, false), (&busy, true)] {
        let target = format!("vm:{:#x}", handle_of(vmm)?);
        let words = ["watch", &target, "--ndjson", "--interval", "20", "--share", SHARE, "--count", "40"];
        let said = program::run(&words)?.ok()?;
        let lines = lines(&said)?;
        let [begin, told @ .., end] = lines.as_slice() else { bail!("too few lines: {said}") };
        ensure!(begin.r#type == "watching" && begin.of.as_deref() == Some(&*target), "{said}");
        ensure!(end.r#type == "watch" && end.readings == Some(40), "{said}");
        ensure!(end.changes == Some(told.len() as u64) && told.is_empty() != changes, "{target}: {said}");
        ensure!(told.iter().all(|line| line.r#type == "change" && line.of.as_deref() == Some(&*target)), "{said}");
        println!(
            "  {} changes; a reading takes {:?} ms, {:?}% of a CPU where {SHARE}% are allowed, {:?} calls/s",
            told.len(),
            end.average_ms.unwrap_or_default(),
            end.cpu_percent.unwrap_or_default(),
            end.calls_per_second.unwrap_or_default()
        );
    }
    drop(busy);
    idle.end()
}

/// Ctrl-C: the last line is there, and who waits sees the signal.
fn interrupted_watch_tells_its_end(_: &Machine) -> Outcome {
    let vmm = VmmProcess::start("protected touch:16")?;
    let target = format!("vm:{:#x}", handle_of(&vmm)?);
    let mut watch = Command::new(program::PROGRAM);
    watch.args(["watch", &target, "--interval", "20", "--share", "50"]).stdout(Stdio::piped());
    let watch = watch.spawn()?;
    std::thread::sleep(Duration::from_millis(500));
    Command::new("kill").args(["-INT", &watch.id().to_string()]).status()?;
    let ended = watch.wait_with_output()?;
    let said = String::from_utf8(ended.stdout)?;
    let last = said.lines().last().unwrap_or_default();
    ensure!(ended.status.signal() == Some(2) && last.starts_with("# 0 changes in "), "{:?}: {said}", ended.status);
    vmm.end()
}

/// Nothing changes, so nothing is written: it is the pipe that tells.
fn watch_that_nobody_reads_ends(_: &Machine) -> Outcome {
    let vmm = VmmProcess::start("protected touch:16")?;
    let target = format!("vm:{:#x}", handle_of(&vmm)?);
    let mut watch = program::command(&["watch", &target, "--interval", "600000"]).stdout(Stdio::piped()).spawn()?;
    let mut first = [0; 1];
    watch.stdout.take().context("no standard output")?.read_exact(&mut first)?;
    let begin = Instant::now();
    while watch.try_wait()?.is_none() {
        if begin.elapsed() > PATIENCE {
            watch.kill()?;
            bail!("it goes on");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    vmm.end()
}
