// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Slot headers: what all slots have, and what slots about a table have.

use crate::platform::TableRegisters;
use crate::table_memory::Root;
use s2dump_abi::hypercall::{unpack_counts, Status};
use s2dump_abi::slot::{slot_flags, table_features, Record, SlotHeader, SlotKind};
use s2dump_vmsa::{Features, Geometry, PhysAddr};

/// Returns a header about no table, with records of type [`Record`].
#[inline(always)]
pub(crate) fn of_slot(kind: SlotKind, sequence: u64, counts: u64) -> SlotHeader {
    let (record_count, visited) = unpack_counts(counts);
    SlotHeader { record_bytes: size_of::<Record>() as u16, record_count, visited, sequence, ..SlotHeader::new(kind) }
}

/// Returns `header` with all that describes the table.
#[inline(always)]
pub(crate) fn with_table(header: SlotHeader, registers: &TableRegisters, geometry: &Geometry) -> SlotHeader {
    SlotHeader {
        flags: header.flags | if registers.is_protected { slot_flags::PROTECTED } else { 0 },
        vtcr: registers.vtcr,
        root: registers.root,
        table_features: registers.table_features,
        ia_bits: geometry.ia_bits(),
        start_level: geometry.start_level().get(),
        page_shift: geometry.granule() as u8,
        pa_bits: geometry.pa_bits(),
        encoding: registers.encoding,
        vmid: registers.vmid,
        ..header
    }
}

/// Returns the root of the table with these registers.
///
/// # Errors
///
/// [`Status::BAD_GEOMETRY`] if the walker refuses them.
#[inline(always)]
pub(crate) fn root_of(registers: &TableRegisters) -> Result<Root, Status> {
    let has = |bit| registers.table_features & bit != 0;
    let features = Features {
        lpa2: has(table_features::LPA2),
        ..Features::of_kvm(registers.vtcr, has(table_features::FWB), has(table_features::XNX))
    };
    let geometry = Geometry::from_vtcr(registers.vtcr, features).map_err(|_| Status::BAD_GEOMETRY)?;
    Root::try_new(geometry, PhysAddr::new(registers.root)).map_err(|_| Status::BAD_GEOMETRY)
}

/// Narrows a number of records, which is never more than fits a slot.
#[inline(always)]
pub(crate) fn narrow(records: usize) -> u32 {
    u32::try_from(records).unwrap_or(u32::MAX)
}
