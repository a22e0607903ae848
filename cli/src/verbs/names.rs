// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of the input addresses of this machine's tables: from KVM's memory slots, the VMM's process, `/proc/iomem` and
//! EL2's facts. That something is not known stops nothing.

use super::{Context, ReadProc};
use crate::failure::Failure;
use crate::frame::SlotBuffer;
use crate::model::target_name;
use crate::names::text::{behind, parse_iomem, parse_maps, to_slots};
use crate::names::told::Told;
use crate::names::{apart, Name, Names};
use crate::reader::{Event, Reader};
use crate::source::device::{Device, DeviceSlots, Query};
use crate::source::{Fetched, SlotSource, SourceError};
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{Fact, MemorySlot, VmRecord};
use s2dump_abi::target::Target;
use s2dump_abi::version::features;

/// Reads what is known of `target`, the table of `vm` if it is one's. The list that has the VM was read right before, so that the
/// driver holds it: also for a start of its table that follows right after.
pub(super) fn read(
    device: &mut Device,
    target: Target,
    vm: Option<&VmRecord>,
    facts: &[Fact],
    context: &mut Context<'_>,
) -> Names {
    if target == Target::HYP {
        return Names::of_hyp(facts);
    }
    if target == Target::HOST {
        let names = of_host(context.proc);
        return if names.is_empty() { Names::default() } else { Names::of_ascending(&names) };
    }
    if !device.has(features::MEMORY) {
        return Names::default();
    }
    match read_memory(device, target) {
        Ok((memory, _)) => Names::of_guest(&memory, &of_guest(&memory, vm, context.proc)),
        Err(failure) => {
            context.note(failure);
            Names::default()
        }
    }
}

/// Returns what a capture says of `target`.
pub(super) fn of_captured(told: &Told, target: Target, facts: &[Fact]) -> Names {
    match target {
        Target::HYP => Names::of_hyp(facts),
        target => told.names_of(target),
    }
}

/// Returns the slots that say in a capture what is known of `target`, as [`read`] does.
///
/// # Errors
///
/// The device does not tell all that it should.
pub(super) fn to_capture(
    device: &mut Device,
    target: Target,
    vm: Option<&VmRecord>,
    proc: &ReadProc,
) -> Result<Vec<u8>, Failure> {
    match target {
        // Facts tell of EL2.
        Target::HYP => Ok(Vec::new()),
        Target::HOST => Ok(to_slots(target, &of_host(proc))),
        _ if !device.has(features::MEMORY) => Ok(Vec::new()),
        _ => {
            let (memory, mut slots) = read_memory(device, target)?;
            slots.extend(to_slots(target, &of_guest(&memory, vm, proc)));
            Ok(slots)
        }
    }
}

fn of_host(proc: &ReadProc) -> Vec<Name> {
    apart(&parse_iomem(&proc("iomem").unwrap_or_default()))
}

/// Returns what the process of `vm` has behind `memory`; nothing if that is not known.
fn of_guest(memory: &[MemorySlot], vm: Option<&VmRecord>, proc: &ReadProc) -> Vec<Name> {
    let read = |vm: &VmRecord| {
        let maps = proc(&format!("{}/maps", vm.pid))?;
        // Whoever made the VM may have ended while others hold it, and another process may have its number since. That one is a
        // stranger if it has nothing of KVM's; it is asked last, so that what was read is not of a later one.
        let files = proc(&format!("{}/fd", vm.pid))?;
        files.lines().any(|file| file.starts_with("anon_inode:kvm-v")).then_some(maps)
    };
    let maps = vm.filter(|vm| vm.pid != 0).and_then(read);
    // That of a process that has ended, until its parent has waited for it, is empty.
    match maps.as_deref().map(parse_maps) {
        Some(mappings) if !mappings.is_empty() => behind(memory, &mappings),
        _ => Vec::new(),
    }
}

/// Slots that are kept as they pass.
struct Kept<'d> {
    slots: DeviceSlots<'d>,
    bytes: Vec<u8>,
}

impl SlotSource for Kept<'_> {
    fn fetch(&mut self, into: &mut SlotBuffer) -> Result<Fetched, SourceError> {
        let fetched = self.slots.fetch(into)?;
        if let Fetched::Slot(used) = fetched {
            self.bytes.extend(into.get(..used).unwrap_or(&into[..]));
        }
        Ok(fetched)
    }
}

/// Reads the memory slots of a VM; also returns the slots of the stream.
fn read_memory(device: &mut Device, target: Target) -> Result<(Vec<MemorySlot>, Vec<u8>), Failure> {
    let name = format!("memory slots of {}", target_name(target));
    let fail = |error: SourceError| error.into_failure(&name);
    let mut kept = Kept { slots: device.start(Query::Memory(target)).map_err(fail)?, bytes: Vec::new() };
    let mut reader = Reader::new(&mut kept);
    let mut status = None;
    while let Some(event) = reader.next_event().map_err(fail)? {
        if let Event::End(_, outcome) = event {
            status = outcome.status;
        }
    }
    let memory = reader.told().memory_of(target).map(<[MemorySlot]>::to_vec).unwrap_or_default();
    let issue = reader.next_issue();
    drop(reader);
    match (status, issue) {
        (Some(Status::OK), None) => Ok((memory, kept.bytes)),
        (Some(Status::OK) | None, issue) => {
            let why = issue.map_or("their end is missing".into(), |issue| issue.to_string());
            Err(fail(SourceError::Driver("memory slots", why)))
        }
        (Some(status), _) => Err(Failure::from_status(status, &name)),
    }
}
