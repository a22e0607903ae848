// SPDX-License-Identifier: MIT OR Apache-2.0
//! What most tests do: find the VM, dump it, compare with what the VMM said.

use super::Ignored;
use crate::decode;
use crate::device::{dump_request, Device};
use crate::dump::Dump;
use crate::expect::{Expected, LeafMap};
use crate::machine::Machine;
use crate::script::page_bytes;
use crate::vmm_process::VmmProcess;
use anyhow::{bail, ensure, Context as _, Result};
use s2dump_abi::hypercall::{DumpFlags, Op, Status};
use s2dump_abi::ioctl::Start;
use s2dump_abi::slot::{slot_flags, VmRecord};
use std::collections::BTreeSet;

/// A small budget that divides nothing: chunks end anywhere.
const ODD_BUDGET: u32 = 211;

/// Lists the VMs.
pub(crate) fn list() -> Result<Vec<VmRecord>> {
    list_of(&Device::open()?)
}

/// Lists the VMs in a session.
pub(super) fn list_of(device: &Device) -> Result<Vec<VmRecord>> {
    let start = Start { op: Op::LIST.0, target: 0, end: 0, ..dump_request(0) };
    let dump = device.run(&start)?;
    ensure!(dump.status()? == Status::OK, "list ended with {:?}", dump.status()?);
    Ok(dump.vms)
}

/// Finds the one VM of a process.
pub(super) fn vm_of(pid: u32) -> Result<VmRecord> {
    let vms = list()?;
    let mut mine = vms.iter().filter(|vm| vm.pid == pid);
    match (mine.next(), mine.next()) {
        (Some(vm), None) => Ok(*vm),
        (None, _) => bail!("pid {pid} is not listed: {vms:?}"),
        (Some(_), Some(_)) => bail!("pid {pid} is listed twice: {vms:?}"),
    }
}

/// Returns the handle of the VM of `vmm`.
pub(crate) fn handle_of(vmm: &VmmProcess) -> Result<u16> {
    Ok(vm_of(vmm.expected.pid)?.handle)
}

/// Dumps and decodes; it must end well.
pub(super) fn dump_leaves(start: &Start) -> Result<(Dump, LeafMap)> {
    let dump = Device::open()?.run(start)?;
    ensure!(dump.status()? == Status::OK, "dump ended with {:?}", dump.status()?);
    let leaves = decode::leaf_map(&dump.records)?;
    Ok((dump, leaves))
}

/// Checks every way to dump the whole table against what the VMM says it holds.
pub(super) fn check_leaves(machine: &Machine, vmm: &VmmProcess) -> Result<()> {
    let expected = &vmm.expected;
    let folded = dump_request(handle_of(vmm)?);
    let exact = Start { flags: DumpFlags::EXACT.0, ..folded };
    let chopped = Start { flags: DumpFlags::EXACT.0, budget: ODD_BUDGET, ..folded };
    let with = |flags: DumpFlags, start: Start| Start { flags: DumpFlags(start.flags).union(flags).0, ..start };
    let packed = with(DumpFlags::PACKED, exact);
    let ways = [
        ("folded", folded),
        ("exact", exact),
        ("in small chunks", chopped),
        ("packed", packed),
        ("packed, in small chunks", with(DumpFlags::PACKED, chopped)),
        ("packed, with digests", with(DumpFlags::DIGEST, packed)),
        ("with tables", with(DumpFlags::TABLES, folded)),
        ("packed, with tables, in small chunks", with(DumpFlags::PACKED.union(DumpFlags::TABLES), chopped)),
    ];
    let mut tables = Vec::new();
    for (way, start) in ways {
        let (dump, leaves) = dump_leaves(&start)?;
        compare(expected, &leaves).with_context(|| way)?;
        check_headers(expected, &dump).with_context(|| way)?;
        if start.flags & DumpFlags::TABLES.0 != 0 {
            let told: BTreeSet<_> = dump.tables.iter().map(|table| (table.level, table.ia, table.oa)).collect();
            ensure!(!told.is_empty(), "{way}: no table was told");
            tables.push(told);
        }
    }
    ensure!(tables.windows(2).all(|two| two[0] == two[1]), "tables told differ: {tables:x?}");
    let by_read = decode::leaf_map(&Device::open()?.run_by_read(&exact)?.records)?;
    compare(expected, &decode::leaf_map(&Device::open()?.run_by_read(&packed)?.records)?)
        .context("packed, by read(2)")?;
    compare(expected, &by_read).context("by read(2)")?;
    check_output_addresses(machine, expected, &by_read)
}

fn compare(expected: &Expected, actual: &LeafMap) -> Result<()> {
    let differences = LeafMap::from_runs(&expected.runs).differences(actual);
    ensure!(differences.is_empty(), "{}", differences.join("; "));
    Ok(())
}

fn check_headers(expected: &Expected, dump: &Dump) -> Result<()> {
    for header in &dump.headers {
        let protected = header.flags & slot_flags::PROTECTED != 0;
        ensure!(protected == expected.protected, "protected: {protected}");
        ensure!(u32::from(header.ia_bits) == expected.ipa_bits, "ia_bits {} of {}", header.ia_bits, expected.ipa_bits);
        ensure!(1 << header.page_shift == page_bytes(), "page_shift {}", header.page_shift);
    }
    let first = dump.headers.first().context("no slot")?;
    let last = dump.headers.last().context("no slot")?;
    ensure!(first.start == 0 && last.next == 1 << expected.ipa_bits, "covers {:#x} to {:#x}", first.start, last.next);
    Ok(())
}

/// Output addresses are memory; a protected guest has each page for itself.
fn check_output_addresses(machine: &Machine, expected: &Expected, leaves: &LeafMap) -> Result<()> {
    let mut seen = BTreeSet::new();
    for (ia, entry) in leaves.0.iter().filter(|(_, entry)| entry.is_leaf()) {
        let oa = entry.oa.with_context(|| format!("{ia:#x}: an exact dump without output address"))?;
        let last = oa + entry.size_bytes() - 1;
        ensure!(machine.is_ram(oa) && machine.is_ram(last), "{ia:#x} leads to {oa:#x}, which is not memory");
        ensure!(seen.insert(oa) || !expected.protected, "{oa:#x} is mapped twice");
    }
    Ok(())
}

/// Ignores a test where there are no poisoned pages.
pub(super) fn needs_poison(machine: &Machine) -> Result<()> {
    match machine.flavor.poisons() {
        true => Ok(()),
        false => Err(Ignored("this kernel poisons no pages".into()).into()),
    }
}

/// Ignores a test of a VM that dies while somebody holds it, where none does.
pub(super) fn needs_dying(machine: &Machine) -> Result<()> {
    match machine.flavor.lives_while_held() {
        false => Ok(()),
        true => Err(Ignored("in this kernel a VM that is held does not die".into()).into()),
    }
}

/// Returns how a dump ends whose VM's process has ended: the dump holds the VM.
pub(super) fn end_without_process(machine: &Machine) -> Status {
    match machine.flavor.lives_while_held() {
        false => Status::VM_DYING,
        true => Status::OK,
    }
}

/// Checks that all still works: a fresh VM, its dump, its end.
pub(super) fn check_nothing_broken(machine: &Machine) -> Result<()> {
    let vmm = VmmProcess::start("protected --physical touch:3 share:1")?;
    check_leaves(machine, &vmm).context("a normal dump afterwards")?;
    vmm.end()
}
