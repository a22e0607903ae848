// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! LIST: the VMs the hypervisor knows.

use crate::call::{Answer, ListCall};
use crate::header;
use crate::platform::Platform;
use crate::slot_writer::{SlotPage, SlotWriter};
use s2dump_abi::hypercall::{pack_counts, Status, LIST_BUDGET};
use s2dump_abi::slot::{table_features, SlotHeader, SlotKind, VmRecord};
use s2dump_abi::target::{TargetKind, END_HANDLE, FIRST_HANDLE};

#[inline(always)]
pub(crate) fn list<P: Platform>(platform: &P, page: SlotPage<'_>, call: &ListCall) -> Answer {
    let first = u16::try_from(call.first).map_err(|_| Status::BAD_RANGE)?.clamp(FIRST_HANDLE, END_HANDLE);
    let budget = match u32::try_from(call.looks) {
        Ok(looks @ 1..) => u32::min(looks, LIST_BUDGET),
        _ => LIST_BUDGET,
    };

    let mut writer = SlotWriter::begin(page);
    let mut visited: u32 = 0;
    let mut held_ticks = 0;
    let mut next = first;
    while next < END_HANDLE && visited < budget && writer.has_room_for_vm() {
        visited += 1;
        if let Some(vm) = platform.vm_info(next) {
            writer.put_vm(&with_geometry(vm.record));
            // The host decides how many vCPUs a VM has, so they count too. The VM that exceeds the budget is the last
            // one of this call.
            visited = visited.saturating_add(vm.looked_at);
            held_ticks = u32::max(held_ticks, vm.held_ticks);
        }
        next += 1;
    }
    let next = if next == END_HANDLE { 0 } else { u64::from(next) };

    let counts = pack_counts(header::narrow(writer.records()), visited);
    let header = SlotHeader {
        record_bytes: size_of::<VmRecord>() as u16,
        start: u64::from(first),
        next,
        end: u64::from(END_HANDLE),
        budget,
        held_ticks,
        tick_hz: platform.counter_hz(),
        ..header::of_slot(SlotKind::VMS, call.sequence, counts)
    };
    writer.finish(&header);
    Ok([next, counts])
}

/// Fills in the fields that follow from VTCR_EL2. They are 0 if the walker would refuse the value.
#[inline(always)]
fn with_geometry(vm: VmRecord) -> VmRecord {
    match header::geometry_of(TargetKind::GUEST_STAGE2, vm.vtcr, table_features::LPA2) {
        Ok(geometry) => VmRecord { ia_bits: geometry.ia_bits(), start_level: geometry.start_level().get(), ..vm },
        Err(_) => VmRecord { ia_bits: 0, start_level: 0, ..vm },
    }
}
