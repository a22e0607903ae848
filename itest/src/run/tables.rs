// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every table EL2 has, as EL2 tells it: for the workstation to compare with the machine's memory.
//!
//! Starts some VMs, dumps each table until two dumps in a row agree, and prints `s2dump-tables: table TARGET ROOT BITS
//! LEVEL VTCR FEATURES`, a line `s2dump-tables: run IA OA DESCRIPTOR COUNT LEVEL KIND` for each record, `s2dump-tables: ring START BYTES`
//! for pages that s2dump itself shared with EL2 meanwhile; after the last `s2dump-tables: ready`. Then it waits to be switched
//! off.

use super::test::list;
use crate::device::{dump_request, Device};
use crate::dump::Dump;
use crate::machine::Flavor;
use crate::vmm_process::VmmProcess;
use anyhow::{ensure, Context as _, Result};
use s2dump_abi::hypercall::{DumpFlags, Op, Status};
use s2dump_abi::ioctl::Start;
use s2dump_abi::slot::FactKind;
use s2dump_abi::target::Target;
use std::time::Duration;

/// How long the workstation may take; switched off by then, usually.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often a table may change while it is read.
const DUMPS: usize = 50;
/// Tables with pages, blocks, shared, poisoned and dropped pages. Where nothing is poisoned, the first gets MMIO guards.
const GUESTS: [&str; 3] = [
    "protected touch:300 share:20*3 poison:0x80030000+2",
    "protected --mem 0x80000000+4M,thp touch:700 share:3",
    "ordinary --mem 0x80000000+8M,thp large:2048 touch:3*512 touch:0x80600000+9 drop:0x80604000+2",
];

/// Dumps everything; returns only if something failed.
pub fn run() -> i32 {
    match tell() {
        Ok(vms) => {
            println!("s2dump-tables: ready");
            std::thread::sleep(PATIENCE);
            drop(vms);
            println!("tables: not switched off within {} s", PATIENCE.as_secs());
        }
        Err(error) => println!("tables: {error:#}"),
    }
    1
}

fn tell() -> Result<Vec<VmmProcess>> {
    let mut vms = GUESTS.into_iter().map(VmmProcess::start).collect::<Result<Vec<_>>>()?;
    if Flavor::look()? == Flavor::Android {
        vms[0].steps("guard:0x0a000000+3")?;
    }
    let guests = list()?.into_iter().map(|vm| Target::guest(vm.handle));
    for target in [Target::HOST, Target::HYP].into_iter().chain(guests) {
        let device = Device::open()?;
        let (dump, rings) = at_rest(&device, target).with_context(|| format!("{target:x?}"))?;
        let table = dump.headers.first().context("no slot")?;
        println!(
            "s2dump-tables: table {:#x} {:#x} {} {} {:#x} {:#x}",
            target.0, table.root, table.ia_bits, table.start_level, table.vtcr, table.table_features
        );
        for (start, bytes) in rings {
            println!("s2dump-tables: ring {start:#x} {bytes:#x}");
        }
        for run in &dump.records {
            println!(
                "s2dump-tables: run {:#x} {:#x} {:#x} {} {} {}",
                run.ia, run.oa, run.descriptor, run.count, run.level, run.kind
            );
        }
    }
    Ok(vms)
}

/// Dumps until two dumps agree; returns the last, and the pages of the session's ring.
fn at_rest(device: &Device, target: Target) -> Result<(Dump, Vec<(u64, u64)>)> {
    let request = Start { target: target.0, flags: DumpFlags::EXACT.0, ..dump_request(0) };
    let dump = || -> Result<Dump> {
        let dump = device.run(&request)?;
        ensure!(dump.status()? == Status::OK, "ended with {:?}", dump.status()?);
        Ok(dump)
    };
    let mut last = dump()?;
    for _ in 0..DUMPS {
        let next = dump()?;
        if next.records == last.records {
            let facts = device.run(&Start { op: Op::FACTS.0, target: 0, end: 0, ..dump_request(0) })?.facts;
            let rings = facts.iter().filter(|fact| fact.kind == FactKind::RING.0).map(|fact| (fact.start, fact.size));
            return Ok((next, rings.collect()));
        }
        last = next;
    }
    anyhow::bail!("it changes each time it is read")
}
