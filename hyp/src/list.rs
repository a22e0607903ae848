// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! LIST: the VMs the hypervisor knows.

use crate::entry::Answer;
use crate::header;
use crate::platform::{PinnedSlot, Platform};
use crate::slot_writer::SlotWriter;
use s2dump_abi::hypercall::{pack_counts, Status};
use s2dump_abi::slot::{SlotHeader, SlotKind, VmRecord};
use s2dump_vmsa::{Features, Geometry};

/// The first pKVM handle (`HANDLE_OFFSET`, `nvhe/pkvm.c`).
pub const FIRST_HANDLE: u16 = 0x1000;
/// The handle after the last one: there are `KVM_MAX_PVMS`, 255.
pub const END_HANDLE: u16 = FIRST_HANDLE + 255;

/// The registers of a LIST call.
pub(crate) struct ListCall {
    pub(crate) slot_pfn: u64,
    /// First handle to try.
    pub(crate) first: u64,
    /// Handles to try at most; 0: all.
    pub(crate) tries: u64,
    pub(crate) sequence: u64,
}

#[inline(always)]
pub(crate) fn list<P: Platform>(platform: &P, call: &ListCall) -> Answer {
    let first = u16::try_from(call.first).map_err(|_| Status::BAD_RANGE)?.clamp(FIRST_HANDLE, END_HANDLE);
    let left = END_HANDLE - first;
    let tries = match u16::try_from(call.tries) {
        Ok(tries @ 1..) => u16::min(tries, left),
        _ => left,
    };

    let slot = platform.pin_slot(call.slot_pfn).ok_or(Status::SLOT_NOT_SHARED)?;
    let mut writer = SlotWriter::begin(slot.page());
    let mut visited: u16 = 0;
    for handle in first..first + tries {
        if !writer.has_room_for_vm() {
            break;
        }
        visited += 1;
        if let Some(vm) = platform.vm_info(handle) {
            writer.put_vm(&with_geometry(vm));
        }
    }
    let next = first + visited;
    let next = if next == END_HANDLE { 0 } else { u64::from(next) };

    let counts = pack_counts(header::narrow(writer.records()), u32::from(visited));
    let header = SlotHeader {
        record_bytes: size_of::<VmRecord>() as u16,
        start: u64::from(first),
        next,
        end: u64::from(END_HANDLE),
        budget: u32::from(tries),
        ..header::of_slot(SlotKind::VMS, call.sequence, counts)
    };
    writer.finish(&header);
    Ok([next, counts])
}

/// Fills what follows from VTCR_EL2; stays 0 for a value the walker would refuse.
#[inline(always)]
fn with_geometry(vm: VmRecord) -> VmRecord {
    match Geometry::from_vtcr(vm.vtcr, Features::of_kvm(vm.vtcr, false, false)) {
        Ok(geometry) => VmRecord { ia_bits: geometry.ia_bits(), start_level: geometry.start_level().get(), ..vm },
        Err(_) => VmRecord { ia_bits: 0, start_level: 0, ..vm },
    }
}
