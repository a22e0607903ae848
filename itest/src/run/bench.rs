// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measurements for a machine started with `-icount shift=0`, where a nanosecond is an instruction.
//!
//! Prints lines for programs, the least of some repetitions each:
//!
//! ```text
//! bench dump-64MiB-protected ns=129968 entries=16384
//! ```
//!
//! `dump` is a folded dump, from the start to the END slot in the mapped ring. `debugfs` is the file
//! `stage2_page_tables`, opened and read to its end. `call` is the longest single call at the default budget, with
//! the ioctl around it, and the descriptors it visited. Without pKVM there is only `debugfs`, of an ordinary guest.
//! `exact` and `packed` are exact dumps of a guest whose every page lies elsewhere than behind the one before; of these the
//! calls and the bytes are told as well (`calls=` or `bytes=` in the place of `ns=`).
//! `holds` measures how long locks are held instead, and works with real threads too.

// UNSAFETY: reads the virtual counter.
#![cfg_attr(target_arch = "aarch64", expect(unsafe_code, reason = "the virtual counter"))]

mod holds;

use super::test::handle_of;
use crate::device::{dump_request, Device};
use crate::machine::{Boot, Machine};
use crate::vmm_process::VmmProcess;
use anyhow::{ensure, Context as _, Result};
use s2dump_abi::hypercall::DumpFlags;
use s2dump_abi::ioctl::{SessionState, Start};
use s2dump_abi::slot::{RecordKind, SlotHeader};
use std::fs::File;
use std::io::Read as _;
use zerocopy::FromBytes as _;

/// Repetitions of each measurement, of which the least counts: the others met an interrupt.
const REPETITIONS: usize = 5;
/// Read size: as large as a seq_file gives at once.
const READ_BYTES: usize = 1 << 20;

/// Measures guests of 64 MiB and, if asked with `512`, one of 512 MiB, whose time goes into touching its pages. If asked
/// with `holds`, measures that instead.
pub fn run(what: &str) -> i32 {
    let result = Machine::look().and_then(|machine| {
        if what == "holds" {
            return holds::run(&machine);
        }
        let kinds: &[&str] = if machine.boot == Boot::NoPkvm { &["ordinary"] } else { &["protected", "ordinary"] };
        let large = kinds.iter().filter(|_| what == "512").take(1).map(|kind| (512, kind));
        kinds.iter().map(|kind| (64, kind)).chain(large).try_for_each(|(mib, kind)| {
            let name = format!("{mib}MiB-{kind}");
            measure(&machine, mib, kind, &name).context(name)
        })?;
        if machine.boot == Boot::On {
            measure_jumping().context("jumping")?;
        }
        Ok(())
    });
    match result {
        Ok(()) => 0,
        Err(error) => {
            println!("bench: {error:#}");
            1
        }
    }
}

fn measure(machine: &Machine, mib: u64, kind: &str, name: &str) -> Result<()> {
    let pages = mib * 256;
    let vmm = VmmProcess::start(&format!("{kind} --mem 0x80000000+{mib}M touch:{pages}"))?;
    let path = format!("/sys/kernel/debug/kvm/{}/stage2_page_tables", vmm.expected.debugfs);
    if machine.boot == Boot::On {
        let device = Device::open()?;
        let request = dump_request(handle_of(&vmm)?);
        print("dump", name, least(|| dump(&device, &request))?, pages);
        let (ns, visited) = longest_call(&device, &request)?;
        print("call", name, ns, visited);
    }
    let mut buffer = vec![0; READ_BYTES];
    print("debugfs", name, least(|| read_to_end(&path, &mut buffer))?, pages);
    vmm.end()
}

/// A guest that touches every other page first and then the rest: as the host hands out pages in the order in which they
/// are asked for, no two neighbors are neighbors in memory.
const JUMPING: &str = "protected --mem 0x80000000+64M touch:8192*2 touch:0x80001000+8192*2";

fn measure_jumping() -> Result<()> {
    const PAGES: u64 = 16384;
    let vmm = VmmProcess::start(JUMPING)?;
    let device = Device::open()?;
    for (name, flags) in [("exact", DumpFlags::EXACT), ("packed", DumpFlags::EXACT.union(DumpFlags::PACKED))] {
        let request = Start { flags: flags.0, ..dump_request(handle_of(&vmm)?) };
        let slots = device.run(&request)?;
        let runs = slots.records.iter().filter(|record| record.kind == RecordKind::LEAF.0).count();
        ensure!(runs as u64 > PAGES - PAGES / 64, "{runs} runs of {PAGES} pages: they do not jump");
        let bytes: usize = slots.headers.iter().filter_map(SlotHeader::used_bytes).sum();
        println!("bench {name}-calls calls={} entries={PAGES}", slots.headers.len());
        println!("bench {name}-bytes bytes={bytes} entries={PAGES}");
        print(name, "jumping", least(|| dump(&device, &request))?, PAGES);
    }
    vmm.end()
}

fn print(what: &str, name: &str, ns: u64, entries: u64) {
    println!("bench {what}-{name} ns={ns} entries={entries}");
}

fn least(mut one: impl FnMut() -> Result<u64>) -> Result<u64> {
    (0..REPETITIONS).try_fold(u64::MAX, |least, _| Ok(least.min(one()?)))
}

/// Does everything a reader must do, but look at the records, which are in its memory then.
fn dump(device: &Device, request: &Start) -> Result<u64> {
    let _mapping = device.map()?;
    let before = clock();
    device.start(request)?;
    let mut release = 0;
    loop {
        let advance = device.advance(release)?;
        if advance.state == SessionState::DONE {
            return Ok(clock() - before);
        }
        ensure!(advance.filled > 0, "no slot was filled");
        release = advance.filled;
    }
}

/// Returns the time of the longest call and what it visited. A start makes exactly one call, so this starts again and
/// again, each time where the last call stopped.
fn longest_call(device: &Device, request: &Start) -> Result<(u64, u64)> {
    let mapping = device.map()?;
    let mut longest = (0, 0);
    let mut cursor = 0;
    loop {
        let from_here = Start { start: cursor, ..*request };
        let mut header = None;
        let ns = least(|| {
            let before = clock();
            device.start(&from_here)?;
            let ns = clock() - before;
            let page = mapping.slot(0)?;
            header = SlotHeader::read_from_prefix(&page).ok().map(|(header, _)| header);
            Ok(ns)
        })?;
        let header = header.context("no slot header")?;
        longest = longest.max((ns, u64::from(header.visited)));
        cursor = header.next;
        if cursor >> header.ia_bits != 0 {
            return Ok(longest);
        }
    }
}

fn read_to_end(path: &str, buffer: &mut [u8]) -> Result<u64> {
    let before = clock();
    let mut file = File::open(path).with_context(|| path.to_owned())?;
    let mut bytes = 0;
    loop {
        match file.read(buffer).with_context(|| path.to_owned())? {
            0 => break,
            n => bytes += n,
        }
    }
    let ns = clock() - before;
    ensure!(bytes > 0, "{path} is empty");
    Ok(ns)
}

/// Returns the time in nanoseconds.
fn clock() -> u64 {
    let (ticks, hz) = counter();
    nanoseconds(ticks, hz)
}

/// Returns the time of `ticks`. Counters do not run at one speed: that of QEMU's newest CPUs at 1 GHz, of others at 62.5 MHz.
fn nanoseconds(ticks: u64, hz: u64) -> u64 {
    let ns = u128::from(ticks) * 1_000_000_000 / u128::from(hz.max(1));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// Returns CNTVCT_EL0 and CNTFRQ_EL0.
#[cfg(target_arch = "aarch64")]
fn counter() -> (u64, u64) {
    let (ticks, hz): (u64, u64);
    // SAFETY: Linux lets EL0 read both registers; the barrier orders the first, nothing else changes.
    unsafe {
        core::arch::asm!(
            "isb", "mrs {}, cntvct_el0", "mrs {}, cntfrq_el0", out(reg) ticks, out(reg) hz,
            options(nostack, preserves_flags)
        );
    }
    (ticks, hz)
}

/// There is nothing to measure elsewhere.
#[cfg(not(target_arch = "aarch64"))]
fn counter() -> (u64, u64) {
    (0, 1)
}
