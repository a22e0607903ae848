// SPDX-License-Identifier: MIT OR Apache-2.0
//! The list of VMs, for people and as JSON.

use super::grid::{Cell, Grid, Head};
use super::hex::Hex;
use super::json::FORMAT_VERSION;
use crate::model::{vm_name, vm_target};
use crate::numbers::Size;
use s2dump_abi::slot::{vm_flags, VmRecord};
use s2dump_vmsa::Granule;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Returns the state of a VM in words: what EL2 knows. Nobody tells whether a vCPU runs at the moment.
pub(crate) fn state(vm: &VmRecord) -> &'static str {
    match (vm.flags & vm_flags::CREATED != 0, vm.flags & vm_flags::DYING != 0) {
        (_, true) => "dying",
        (true, false) => "created",
        (false, false) => "never-run",
    }
}

/// Returns whether EL2 has the VM, so that there is a table to describe.
fn is_created(vm: &VmRecord) -> bool {
    vm.flags & vm_flags::CREATED != 0
}

/// Tells the name of a process.
pub(crate) type Comm = fn(u32) -> Option<String>;

/// Handle -> bytes mapped, of VMs whose table was read.
pub(crate) type Sizes = BTreeMap<u16, u64>;

/// Writes the list as a table: one word per column, `-` for absent. Names of processes are the last column, if they can be told. A
/// terminal, if it is one, is so wide.
pub(crate) fn write_table(
    out: &mut dyn Write,
    vms: &[VmRecord],
    headings: bool,
    (comm, sizes): (Option<Comm>, Option<&Sizes>),
    width: Option<usize>,
) -> io::Result<()> {
    let mut heads = vec![
        Head::words("VM", 10),
        Head::words("ID", 12),
        Head::numbers("PID", 7),
        Head::words("KIND", 9),
        Head::words("STATE", 9),
        Head::numbers("VCPUS", 5).goes(4),
        Head::words("IPA", 6).goes(3),
        Head::words("LEVELS", 6).goes(1),
        Head::numbers("VMID", 4).goes(2),
    ];
    heads.extend(sizes.map(|_| Head::numbers("MAPPED", 8)));
    heads.push(Head::words("ROOT", 11));
    heads.extend(comm.map(|_| Head::words("COMM", 0)));
    let cells = |vm: &VmRecord| {
        let created = is_created(vm);
        let or_dash = |text: String| if created { Cell::from(text) } else { "-".into() };
        let mut cells: Vec<Cell> = vec![
            if vm.handle == 0 { "-".into() } else { format!("vm:{:#x}", vm.handle).into() },
            vm_name(vm).unwrap_or("-").to_owned().into(),
            if vm.pid == 0 { "-".into() } else { vm.pid.to_string().into() },
            if vm.flags & vm_flags::PROTECTED != 0 { "protected" } else { "ordinary" }.into(),
            state(vm).into(),
            or_dash(vm.vcpus.to_string()),
            or_dash(format!("{}-bit", vm.ia_bits)),
            or_dash(format!("{}-3", vm.start_level)),
            or_dash(vm.vmid.to_string()),
        ];
        let mapped = |sizes: &Sizes| sizes.get(&vm.handle).map_or("-".into(), |&bytes| Size(bytes).to_string().into());
        cells.extend(sizes.map(mapped));
        cells.push(or_dash(format!("{:#x}", vm.root)));
        cells.extend(comm.map(|comm| comm(vm.pid).unwrap_or("-".into()).into()));
        cells
    };
    let rows: Vec<Vec<Cell>> = vms.iter().map(cells).collect();
    // Without headings it is for a program.
    Grid::new(heads, width.filter(|_| headings)).write_all(out, headings, &rows)
}

#[derive(Serialize)]
struct ListJson<'a> {
    r#type: &'static str,
    format: &'static str,
    version: &'static str,
    complete: bool,
    vms: Vec<VmJson<'a>>,
}

#[derive(Serialize)]
struct VmJson<'a> {
    target: String,
    handle: Option<Hex>,
    id: Option<&'a str>,
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm: Option<String>,
    protected: bool,
    state: &'static str,
    vcpus: Option<u32>,
    ia_bits: Option<u8>,
    start_level: Option<i8>,
    vmid: Option<u16>,
    vtcr_el2: Option<Hex>,
    root: Option<Hex>,
    root_pfn: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mapped_bytes: Option<u64>,
}

/// Writes the list as one JSON object.
pub(crate) fn write_json(
    out: &mut dyn Write,
    vms: &[VmRecord],
    complete: bool,
    (comm, sizes): (Option<Comm>, &Sizes),
) -> io::Result<()> {
    let vms = vms.iter().map(|vm| {
        let created = is_created(vm);
        let granule = Granule::from_tg0(vm.vtcr >> 14 & 3).filter(|_| created);
        VmJson {
            target: vm_target(vm),
            handle: (vm.handle != 0).then_some(Hex(vm.handle.into())),
            id: vm_name(vm),
            pid: (vm.pid != 0).then_some(vm.pid),
            comm: comm.and_then(|comm| comm(vm.pid)),
            protected: vm.flags & vm_flags::PROTECTED != 0,
            state: state(vm),
            vcpus: created.then_some(vm.vcpus),
            ia_bits: created.then_some(vm.ia_bits),
            start_level: created.then_some(vm.start_level),
            vmid: created.then_some(vm.vmid),
            vtcr_el2: created.then_some(Hex(vm.vtcr)),
            root: created.then_some(Hex(vm.root)),
            root_pfn: granule.map(|granule| vm.root >> granule.page_shift()),
            mapped_bytes: sizes.get(&vm.handle).copied(),
        }
    });
    let list =
        ListJson { r#type: "list", format: "s2dump.list", version: FORMAT_VERSION, complete, vms: vms.collect() };
    serde_json::to_writer(&mut *out, &list)?;
    writeln!(out)
}
