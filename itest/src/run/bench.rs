// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measurements for a machine started with `-icount`, where the virtual counter advances with instructions.
//!
//! Prints lines for programs, the least of some repetitions each:
//!
//! ```text
//! bench dump-64MiB-protected ticks=8123 entries=16384
//! ```
//!
//! `dump` is a folded dump, from the start to the END slot in the mapped ring. `debugfs` is the file
//! `stage2_page_tables`, opened and read to its end. `call` is the longest single call at the default budget, with
//! the ioctl around it, and the descriptors it visited. Without pKVM there is only `debugfs`, of an ordinary guest.

// UNSAFETY: reads the virtual counter.
#![cfg_attr(target_arch = "aarch64", expect(unsafe_code, reason = "the virtual counter"))]

use super::test::handle_of;
use crate::device::{dump_request, Device};
use crate::machine::{Boot, Machine};
use crate::vmm_process::VmmProcess;
use anyhow::{ensure, Context as _, Result};
use s2dump_abi::ioctl::{SessionState, Start};
use s2dump_abi::slot::SlotHeader;
use std::fs::File;
use std::io::Read as _;
use zerocopy::FromBytes as _;

/// Repetitions of each measurement, of which the least counts: the others met an interrupt.
const REPETITIONS: usize = 5;
/// Read size: as large as a seq_file gives at once.
const READ_BYTES: usize = 1 << 20;

/// Measures guests of 64 MiB and, if asked with `512`, one of 512 MiB: the time is in touching its pages.
pub fn run(what: &str) -> i32 {
    let result = Machine::look().and_then(|machine| {
        let kinds: &[&str] = if machine.boot == Boot::NoPkvm { &["ordinary"] } else { &["protected", "ordinary"] };
        let large = kinds.iter().filter(|_| what == "512").take(1).map(|kind| (512, kind));
        kinds.iter().map(|kind| (64, kind)).chain(large).try_for_each(|(mib, kind)| {
            let name = format!("{mib}MiB-{kind}");
            measure(&machine, mib, kind, &name).context(name)
        })
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
        let (ticks, visited) = longest_call(&device, &request)?;
        print("call", name, ticks, visited);
    }
    let mut buffer = vec![0; READ_BYTES];
    print("debugfs", name, least(|| read_to_end(&path, &mut buffer))?, pages);
    vmm.end()
}

fn print(what: &str, name: &str, ticks: u64, entries: u64) {
    println!("bench {what}-{name} ticks={ticks} entries={entries}");
}

fn least(mut one: impl FnMut() -> Result<u64>) -> Result<u64> {
    (0..REPETITIONS).try_fold(u64::MAX, |least, _| Ok(least.min(one()?)))
}

/// Everything a reader must do, but look at the records: they are in its memory then.
fn dump(device: &Device, request: &Start) -> Result<u64> {
    let _mapping = device.map()?;
    let before = counter();
    device.start(request)?;
    let mut release = 0;
    loop {
        let advance = device.advance(release)?;
        if advance.state == SessionState::DONE {
            return Ok(counter() - before);
        }
        ensure!(advance.filled > 0, "no slot was filled");
        release = advance.filled;
    }
}

/// A start makes exactly one call: so start again and again, each time where the last call stopped.
fn longest_call(device: &Device, request: &Start) -> Result<(u64, u64)> {
    let mapping = device.map()?;
    let mut longest = (0, 0);
    let mut cursor = 0;
    loop {
        let from_here = Start { start: cursor, ..*request };
        let mut header = None;
        let ticks = least(|| {
            let before = counter();
            device.start(&from_here)?;
            let ticks = counter() - before;
            let page = mapping.slot(0)?;
            header = SlotHeader::read_from_prefix(&page).ok().map(|(header, _)| header);
            Ok(ticks)
        })?;
        let header = header.context("no slot header")?;
        longest = longest.max((ticks, u64::from(header.visited)));
        cursor = header.next;
        if cursor >> header.ia_bits != 0 {
            return Ok(longest);
        }
    }
}

fn read_to_end(path: &str, buffer: &mut [u8]) -> Result<u64> {
    let before = counter();
    let mut file = File::open(path).with_context(|| path.to_owned())?;
    let mut bytes = 0;
    loop {
        match file.read(buffer).with_context(|| path.to_owned())? {
            0 => break,
            n => bytes += n,
        }
    }
    let ticks = counter() - before;
    ensure!(bytes > 0, "{path} is empty");
    Ok(ticks)
}

/// Returns CNTVCT_EL0.
#[cfg(target_arch = "aarch64")]
fn counter() -> u64 {
    let ticks: u64;
    // SAFETY: Linux lets EL0 read the virtual counter; the barrier orders it, nothing else changes.
    unsafe { core::arch::asm!("isb", "mrs {}, cntvct_el0", out(reg) ticks, options(nostack, preserves_flags)) };
    ticks
}

/// There is nothing to measure elsewhere.
#[cfg(not(target_arch = "aarch64"))]
fn counter() -> u64 {
    0
}
