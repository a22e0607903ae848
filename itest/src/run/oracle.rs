// SPDX-License-Identifier: MIT OR Apache-2.0
//! VMs whose tables the kernel itself tells, for the workstation to compare with what it reads of the machine's memory.
//!
//! One VM for each number of input-address bits, each spinning on a CPU of its own, so that its table can be found in
//! that CPU's registers. Prints `s2dump-oracle: table BITS cpu CPU`, the kernel's text, `s2dump-oracle: end`, and
//! `s2dump-oracle: maps IA BYTES OA` for what memory is where; after the last one `s2dump-oracle: ready`, and then waits to
//! be switched off.

use crate::system::{huge_page_bytes, mount_huge, reserve_huge_pages};
use crate::vmm_process::VmmProcess;
use anyhow::{Context as _, Result};
use std::time::Duration;

/// Where hugetlbfs goes.
const HUGE: &str = "/huge";
/// How long the workstation may take; switched off by then, usually.
const PATIENCE: Duration = Duration::from_secs(120);

/// Largest blocks that fit into 32 bits beside [`GUEST`]: with 64 KiB pages they have 512 MiB.
const LOW_BLOCK_BYTES: u64 = 512 << 20;

/// What each guest has, whatever the size of pages. The device is the PCIe window of QEMU's machine, which answers anywhere without a card.
const GUEST: &str = "ordinary --mem 0x90000000+64M --mem 0x80000000+1M,ro --mem 0x88000000+1M,device=0x10000000 \
    touch:1 touch:0x90020000+3*2 touch:0x91000000+600 call:0x90100000+2 call:0x91100000+1 read:0x90200000+2 \
    read:0x80000000+2 read:0x88000000+2 touch:0x88040000+1";

/// Starts the VMs, prints their tables, and waits; returns only if something failed.
pub fn run(bits: &[u32]) -> i32 {
    if let Err(error) = start_and_tell(bits) {
        println!("oracle: {error:#}");
        return 1;
    }
    println!("s2dump-oracle: ready");
    std::thread::sleep(PATIENCE);
    println!("oracle: not switched off within {} s", PATIENCE.as_secs());
    1
}

fn start_and_tell(bits: &[u32]) -> Result<()> {
    reserve_huge_pages(1);
    mount_huge(HUGE)?;
    let block_bytes = huge_page_bytes()?;
    let mut vms = Vec::new();
    // CPU 0 is left to everything else.
    for (cpu, &bits) in (1..).zip(bits) {
        let vmm =
            VmmProcess::start_spinning(&arguments(bits, block_bytes), cpu).with_context(|| format!("{bits} bits"))?;
        vms.push((bits, cpu, vmm));
    }
    for (bits, cpu, vmm) in &vms {
        let text = vmm.debugfs("stage2_page_tables")?;
        print!("s2dump-oracle: table {bits} cpu {cpu}\n{text}s2dump-oracle: end\n");
        for run in &vmm.expected.runs {
            // The VMM does not know what kind of huge pages it was given.
            let size = if run.entry.level == 2 { block_bytes } else { run.entry.size_bytes() };
            let bytes = run.count * size;
            println!("s2dump-oracle: maps {:#x} {bytes:#x} {:#x}", run.ia, run.entry.oa.context("no address")?);
        }
    }
    // The VMs are to live on.
    std::mem::forget(vms);
    Ok(())
}

/// Returns the words for a VM: what is common to all, blocks with each kind of right, the last pages of the space. All
/// blocks of all VMs share one huge page, for the machine's memory.
fn arguments(bits: u32, block_bytes: u64) -> String {
    let first = if block_bytes <= LOW_BLOCK_BYTES { 0xa000_0000 } else { 0x1_0000_0000 };
    let block = |number: u64, verb: &str, rights: &str| {
        let ipa = first + number * block_bytes.max(LOW_BLOCK_BYTES);
        format!(" --mem {ipa:#x}+{block_bytes},huge={HUGE}/block{rights} {verb}:{ipa:#x}+1")
    };
    let blocks = block(0, "touch", "") + &block(1, "read", ",ro") + &block(2, "call", "");
    // With 32 bits that is where the last block may be.
    let last = match (1_u64 << bits) - 0x10_0000 {
        last if bits > 32 => format!(" --mem {last:#x}+1M touch:{last:#x}+1 read:{:#x}+1", last + 0xf_0000),
        _ => String::new(),
    };
    format!("{GUEST}{blocks}{last} --ipa-bits {bits} --physical")
}
