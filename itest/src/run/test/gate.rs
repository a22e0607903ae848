// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machines on which s2dump must not work: not asked for at boot, no pKVM, locked down.

use super::ptdump::STOCK_GUEST;
use super::{Outcome, Test};
use crate::device::{Device, PATH};
use crate::expect::{Expected, State};
use crate::machine::{Boot, Flavor, Machine};
use crate::program::{self, exit};
use crate::vmm_process::VmmProcess;
use anyhow::{ensure, Context as _, Result};
use rustix::io::Errno;
use std::fs;

/// Tests of a machine started without `kvm-arm.s2dump=on`.
pub(super) const OFF_TESTS: &[Test] = &[
    Test { name: "off_no_device", boot: Boot::Off, heavy: false, run: no_device },
    Test { name: "off_probe_tells_the_next_step", boot: Boot::Off, heavy: false, run: off_probe },
    Test { name: "off_debugfs_is_as_stock", boot: Boot::Off, heavy: false, run: off_debugfs },
];

/// Tests of a machine without pKVM.
pub(super) const NO_PKVM_TESTS: &[Test] = &[
    Test { name: "no_pkvm_no_device", boot: Boot::NoPkvm, heavy: false, run: no_device },
    Test { name: "no_pkvm_probe_tells_the_next_step", boot: Boot::NoPkvm, heavy: false, run: no_pkvm_probe },
    Test { name: "no_pkvm_debugfs_is_as_stock", boot: Boot::NoPkvm, heavy: false, run: no_pkvm_debugfs },
];

/// There is no way back from lockdown: last.
pub(super) const LOCKDOWN_TESTS: &[Test] =
    &[Test { name: "lockdown_refuses", boot: Boot::On, heavy: false, run: lockdown_refuses }];

fn no_device(machine: &Machine) -> Outcome {
    let code = if machine.boot == Boot::Off { exit::NOT_PERMITTED } else { exit::UNSUPPORTED };
    ensure!(!fs::exists(PATH)?, "{PATH} exists");
    for arguments in [&["list"][..], &["dump", "vm:0x1000"]] {
        let ran = program::run(arguments)?;
        ensure!(ran.code == code, "{arguments:?}: {ran:?}");
        ensure!(ran.stdout.is_empty() && !ran.stderr.trim().is_empty(), "{arguments:?}: {ran:?}");
    }
    Ok(())
}

fn off_probe(_: &Machine) -> Outcome {
    program::run(&["probe"])?.fails(exit::NOT_PERMITTED, &["kvm-arm.s2dump=on"])
}

/// What the stock kernel does under pKVM: mainline says ERANGE, Android's has a text. Without our gate that must not change.
fn off_debugfs(machine: &Machine) -> Outcome {
    if machine.flavor == Flavor::Android {
        return android_text_is_as_the_vmm_says();
    }
    let vmm = VmmProcess::start("protected touch:1")?;
    let result = vmm.debugfs("stage2_page_tables").map_err(|error| error.downcast::<std::io::Error>());
    let errno = result.as_ref().err().and_then(|error| error.as_ref().ok()).and_then(Errno::from_io_error);
    ensure!(errno == Some(Errno::RANGE), "{result:?}");
    vmm.end()
}

/// Android's own text of a guest's table, with which ours has nothing in common, against what the VMM knows, which all that we
/// say of guests is compared with: ranges, levels, rights, blocks and states are the same. And its faults: no access flags, no
/// guards, no last range, and for a VM that never ran the host's table.
fn android_text_is_as_the_vmm_says() -> Outcome {
    const GUESTS: [&str; 3] = [
        "protected touch:16 share:0x80004000+4 touch:0x80100000+1",
        "protected --mem 0x80000000+4M,thp large:1024 touch:513 share:0x80010000+2 guard:0x0a000000+3",
        "ordinary --mem 0x80000000+8M,thp large:2048 touch:2*512 touch:0x80600000+9 read:0x80700000+2",
    ];
    let mut rows = 0;
    for guest in GUESTS {
        let vmm = VmmProcess::start(guest)?;
        let text = vmm.debugfs("stage2_page_tables")?;
        let (theirs, end) = stock_rows(&text).with_context(|| text.clone())?;
        let known = known_rows(&vmm.expected);
        ensure!(theirs == known, "{guest}: the kernel says {theirs:x?}, the VMM knows {known:x?}");
        ensure!(!text.contains("AF") && end < 1 << vmm.expected.ipa_bits, "its faults are mended: {text}");
        rows += theirs.len();
        vmm.end()?;
    }
    let never_ran = VmmProcess::start("protected")?;
    let text = never_ran.debugfs("stage2_page_tables")?;
    ensure!(!stock_rows(&text)?.0.is_empty(), "a VM that never ran has no table: {text}");
    println!("  {rows} ranges");
    never_ran.end()
}

/// A range that is mapped: first address, end, level, and the columns that say something.
type StockRow = (u64, u64, i8, String);

/// Reads the kernel's text; also returns where it ends.
fn stock_rows(text: &str) -> Result<(Vec<StockRow>, u64)> {
    let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).with_context(|| word.to_owned());
    let (mut rows, mut at) = (Vec::new(), 0);
    for line in text.lines().skip(1) {
        let mut words = line.split_whitespace();
        let (start, end) = words.next().and_then(|range| range.split_once('-')).with_context(|| line.to_owned())?;
        let level = words.nth(1).and_then(|level| level.parse().ok()).with_context(|| line.to_owned())?;
        ensure!(hex(start)? == at, "after {at:#x} comes {line}");
        at = hex(end)?;
        let columns = words.collect::<Vec<_>>().join(" ");
        if !columns.is_empty() {
            rows.push((hex(start)?, at, level, columns));
        }
    }
    Ok((rows, at))
}

/// Returns what the VMM knows, in the kernel's words.
fn known_rows(expected: &Expected) -> Vec<StockRow> {
    let mut rows: Vec<StockRow> = Vec::new();
    for run in expected.runs.iter().filter(|run| run.entry.is_leaf()) {
        let entry = run.entry;
        let columns = [
            ("R", entry.read),
            ("W", entry.write),
            ("X", entry.execute),
            ("BLK", entry.level < 3),
            ("SW0", entry.state == State::SharedOwned),
            ("SW1", entry.state == State::SharedBorrowed),
        ];
        let columns: Vec<&str> = columns.iter().filter(|(_, is_so)| *is_so).map(|(column, _)| *column).collect();
        let (columns, end) = (columns.join(" "), run.ia + run.count * entry.size_bytes());
        match rows.last_mut() {
            Some(last) if (last.1, last.2, &last.3) == (run.ia, entry.level, &columns) => last.1 = end,
            _ => rows.push((run.ia, end, entry.level, columns)),
        }
    }
    rows
}

fn no_pkvm_probe(_: &Machine) -> Outcome {
    program::run(&["probe"])?.fails(exit::UNSUPPORTED, &["kvm-arm.mode=protected"])
}

fn no_pkvm_debugfs(machine: &Machine) -> Outcome {
    super::ptdump::needs_stock_text(machine)?;
    let vmm = VmmProcess::start(STOCK_GUEST)?;
    super::ptdump::equals_stock_text(&vmm)?;
    vmm.end()
}

fn lockdown_refuses(_: &Machine) -> Outcome {
    let vmm = VmmProcess::start("protected touch:1")?;
    fs::write("/sys/kernel/security/lockdown", "confidentiality")?;
    let result = Device::open().map(drop);
    ensure!(result == Err(Errno::PERM), "open: {result:?}");
    let target = format!("vm:{}", vmm.expected.pid);
    program::run(&["dump", &target])?.fails(exit::NOT_PERMITTED, &["lockdown"])?;
    ensure!(vmm.debugfs("stage2_page_tables").is_err(), "debugfs still shows the table");
    vmm.end()
}
