// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Slot headers: the fields that all slots have, and the fields of slots about a table.

use crate::platform::TableRegisters;
use crate::table_memory::Root;
use s2dump_abi::hypercall::{unpack_counts, Status};
use s2dump_abi::slot::{encoding, table_features, Record, SlotHeader, SlotKind};
use s2dump_abi::target::TargetKind;
use s2dump_vmsa::pkvm::Encoding;
use s2dump_vmsa::{Features, Geometry, PhysAddr};

// `vmsa` decodes what a header names, and knows nothing of `abi`: the numbers are the same.
const _: () = assert!(encoding::NONE == Encoding::NONE.0 && encoding::PKVM_7_2 == Encoding::PKVM_7_2.0);
const _: () = assert!(encoding::PKVM_ANDROID_6_12 == Encoding::PKVM_ANDROID_6_12.0);

/// Returns a header about no table, with records of type [`Record`].
#[inline(always)]
pub(crate) fn of_slot(kind: SlotKind, sequence: u64, counts: u64) -> SlotHeader {
    let (record_count, visited) = unpack_counts(counts);
    SlotHeader { record_bytes: size_of::<Record>() as u16, record_count, visited, sequence, ..SlotHeader::new(kind) }
}

/// Returns `header` with the fields that describe the table filled in.
#[inline(always)]
pub(crate) fn with_table(header: SlotHeader, registers: &TableRegisters, geometry: &Geometry) -> SlotHeader {
    SlotHeader {
        flags: header.flags | registers.flags,
        vtcr: registers.vtcr,
        root: registers.root,
        table_features: registers.table_features,
        ia_bits: geometry.ia_bits(),
        start_level: geometry.start_level().get(),
        page_shift: geometry.granule() as u8,
        pa_bits: geometry.pa_bits(),
        encoding: registers.encoding,
        vmid: registers.vmid,
        mair: registers.mair,
        ..header
    }
}

/// Returns the root of the table of this kind with these registers.
///
/// # Errors
///
/// As [`geometry_of`], and [`Status::BAD_GEOMETRY`] for a misaligned root.
#[inline(always)]
pub(crate) fn root_of(kind: TargetKind, registers: &TableRegisters) -> Result<Root, Status> {
    let geometry = geometry_of(kind, registers.vtcr, registers.table_features)?;
    Root::try_new(geometry, PhysAddr::new(registers.root)).map_err(|_| Status::BAD_GEOMETRY)
}

/// Returns the geometry of a table of this kind: `register` is VTCR_EL2 or TCR_EL2. Only this function knows what a kind of
/// table looks like.
///
/// # Errors
///
/// [`Status::UNKNOWN_TARGET`] for a kind that it does not know, and [`Status::BAD_GEOMETRY`] if the walker refuses the
/// register.
#[cold] // Not inlined: several operations have it.
#[inline]
pub(crate) fn geometry_of(kind: TargetKind, register: u64, table_features: u32) -> Result<Geometry, Status> {
    let has = |bit| table_features & bit != 0;
    let lpa2 = has(table_features::LPA2);
    match kind {
        TargetKind::GUEST_STAGE2 | TargetKind::HOST_STAGE2 => {
            let of_kvm = Features::of_kvm(register, has(table_features::FWB), has(table_features::XNX));
            Geometry::from_vtcr(register, Features { lpa2, ..of_kvm })
        }
        TargetKind::HYP_STAGE1 => {
            let e2h = has(table_features::HVHE);
            Geometry::from_tcr_el2(register, e2h, Features::of_kvm_el2(register, e2h, lpa2))
        }
        _ => return Err(Status::UNKNOWN_TARGET),
    }
    .map_err(|_| Status::BAD_GEOMETRY)
}

/// Narrows a number of records, which is never more than fits a slot: so nothing is cut off.
#[inline(always)]
pub(crate) fn narrow(records: usize) -> u32 {
    records as u32
}

/// Narrows a time in ticks. All ones means that many or more.
#[inline(always)]
pub(crate) fn ticks(ticks: u64) -> u32 {
    u32::try_from(ticks).unwrap_or(u32::MAX)
}
