// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Slot headers: what all slots have, and what slots about a table have.

use crate::platform::TableRegisters;
use crate::tables::Root;
use s2dump_abi::hypercall::{unpack_counts, Status};
use s2dump_abi::slot::{slot_flags, table_features, Record, SlotHeader, SlotKind, SLOT_MAGIC};
use s2dump_abi::version::ABI_VERSION;
use s2dump_vmsa::{Features, Geometry, PhysAddr};

/// Returns a header about no table, with records of type [`Record`].
#[inline(always)]
pub(crate) fn of_slot(kind: SlotKind, sequence: u64, counts: u64) -> SlotHeader {
    let (record_count, visited) = unpack_counts(counts);
    SlotHeader {
        magic: SLOT_MAGIC,
        version: ABI_VERSION.to_bits(),
        header_bytes: size_of::<SlotHeader>() as u16,
        record_bytes: size_of::<Record>() as u16,
        kind: kind.0,
        flags: 0,
        record_count,
        visited,
        sequence,
        target: 0,
        start: 0,
        next: 0,
        end: 0,
        vtcr: 0,
        root: 0,
        digest: 0,
        table_features: 0,
        ia_bits: 0,
        start_level: 0,
        page_shift: 0,
        pa_bits: 0,
        encoding: 0,
        vmid: 0,
        budget: 0,
        status: 0,
        reserved: [0; 5],
    }
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
