// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! WALK: the descriptor of each level for one input address.

use crate::call::{Answer, WalkCall};
use crate::coalescer::{single, RecordOut};
use crate::header;
use crate::platform::{Platform, TableRegisters};
use crate::slot_writer::{SlotPage, SlotWriter};
use crate::table_memory::TableMemory;
use crate::walker::{walk_address, MIN_BUDGET};
use s2dump_abi::hypercall::{pack_counts, Status};
use s2dump_abi::slot::{SlotHeader, SlotKind};
use s2dump_abi::target::Target;
use s2dump_vmsa::{Geometry, Ipa};

#[inline(always)]
pub(crate) fn walk<P: Platform>(platform: &P, page: SlotPage<'_>, call: &WalkCall) -> Answer {
    let address = Ipa::try_new(call.address).map_err(|_| Status::BAD_RANGE)?;

    let (table, registers) = platform.lock_table(call.target)?;
    let locked_at = platform.counter();
    let mut writer = SlotWriter::begin(page);
    let (geometry, end) = tell(&table, call.target, &registers, address, &mut writer)?;
    let held_ticks = header::ticks(platform.counter().wrapping_sub(locked_at));
    drop(table);

    let records = header::narrow(writer.records());
    let counts = pack_counts(records, records);
    let header = SlotHeader {
        target: call.target.0,
        start: address.get(),
        next: end,
        end,
        budget: MIN_BUDGET,
        held_ticks,
        tick_hz: platform.counter_hz(),
        ..header::of_slot(SlotKind::WALK, call.sequence, counts)
    };
    writer.finish(&header::with_table(header, &registers, &geometry));
    Ok([0, counts])
}

/// Writes a record for the entry of each level that translates `address`. Returns the table's geometry, and the end of what
/// the last entry covers: the answer holds for all addresses up to there.
///
/// # Errors
///
/// The status of a table or an address that cannot be walked. Nothing is written then.
// Not inlined: two operations have it.
#[inline(never)]
pub(crate) fn tell<M: TableMemory>(
    table: &M,
    target: Target,
    registers: &TableRegisters,
    address: Ipa,
    writer: &mut SlotWriter<'_>,
) -> Result<(Geometry, u64), Status> {
    let root = header::root_of(target.kind(), registers)?;
    let geometry = root.geometry();
    if address.get() >= geometry.ia_end() {
        return Err(Status::BAD_RANGE);
    }
    let mut end = 0;
    walk_address(table, &root, address, |entry| {
        end = entry.ia + (1 << geometry.granule().entry_shift(entry.level));
        writer.put(&single(entry));
    })
    .map_err(|_| Status::BAD_GEOMETRY)?;
    Ok((*geometry, end))
}
