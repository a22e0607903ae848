// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! DUMP: one chunk of a table, folded into a slot.

use crate::call::{Answer, DumpCall};
use crate::coalescer::{Coalescer, Fold};
use crate::header;
use crate::packed::{DumpSink, HEAD_COST};
use crate::platform::{Platform, TableRegisters};
use crate::slot_writer::{SlotPage, SlotWriter};
use crate::walker::{walk_range, MIN_BUDGET};
use s2dump_abi::hypercall::{pack_counts, DumpFlags, Status, ATOMIC_BUDGET, DEFAULT_BUDGET, MAX_BUDGET};
use s2dump_abi::slot::{record_flags, slot_flags, Record, SlotHeader, SlotKind};
use s2dump_vmsa::{Geometry, Ipa};

/// Returns the budget this call has.
///
/// It is at least [`MIN_BUDGET`], so that each call makes progress. A budget bounds the time for which the lock is
/// held. A descriptor takes four times as long with a digest, so default and cap are a quarter then. An atomic dump has a
/// cap of its own, which is also its default.
#[inline(always)]
pub(crate) fn budget_in_force(asked: u64, flags: DumpFlags) -> u32 {
    let shift = digest_shift(flags);
    let (default, cap) = if flags.contains(DumpFlags::ATOMIC) {
        (ATOMIC_BUDGET, ATOMIC_BUDGET)
    } else {
        (DEFAULT_BUDGET >> shift, MAX_BUDGET >> shift)
    };
    match u32::try_from(asked) {
        Ok(0) => default,
        Ok(asked) => asked.clamp(MIN_BUDGET, cap),
        Err(_) => cap,
    }
}

/// Returns how much slower a descriptor is, as a shift.
#[inline(always)]
fn digest_shift(flags: DumpFlags) -> u32 {
    if flags.contains(DumpFlags::DIGEST) {
        2
    } else {
        0
    }
}

/// What a record costs, in descriptors read without a digest: that of ending a run and of finding the next one, measured
/// where runs are short (`cargo xtask bench`, dense and exact). A digest adds nothing to it.
pub(crate) const RECORD_COST: u16 = 52;

/// Bytes of a record, in slots of runs and in packed ones.
const RUN_BYTES: u16 = size_of::<Record>() as u16;
const PACKED_BYTES: u16 = size_of::<u64>() as u16;

#[inline(always)]
pub(crate) fn dump<P: Platform>(platform: &P, page: SlotPage<'_>, call: &DumpCall) -> Answer {
    let has = |flag| call.flags.contains(flag);
    let budget = budget_in_force(call.budget, call.flags);
    let cursor = Ipa::try_new(call.cursor).map_err(|_| Status::BAD_RANGE)?;

    let (table, registers) = platform.lock_table(call.target)?;
    let locked_at = platform.counter();
    let root = header::root_of(call.target.kind(), &registers)?;
    let geometry = root.geometry();
    let page_mask = (1 << geometry.granule().page_shift()) - 1;
    let end = Ipa::try_new(u64::min(call.end, geometry.ia_end())).map_err(|_| Status::BAD_RANGE)?;
    if cursor >= end || (cursor.get() | end.get()) & page_mask != 0 {
        return Err(Status::BAD_RANGE);
    }
    let writer = SlotWriter::begin(page);
    write_header(platform, call, budget, end.get(), &registers, geometry, &writer);

    let fold = Fold { geometry: *geometry, exact: has(DumpFlags::EXACT) };
    // EL2 keeps nothing about the slot before, so it cannot know whether this one continues a run. Only the first slot
    // of a dump surely does not.
    let first_flags = if call.sequence == 0 { 0 } else { record_flags::CONTINUES };
    let record_cost = if has(DumpFlags::PACKED) { HEAD_COST } else { RECORD_COST } >> digest_shift(call.flags);
    // An atomic call has the time for all that its walk visits.
    let (limit, record_cost) = if has(DumpFlags::ATOMIC) { (u32::MAX, 0) } else { (budget, record_cost) };
    let coalescer = Coalescer::new(fold, first_flags, has(DumpFlags::DIGEST), writer)
        .limited(limit, record_cost)
        .telling_tables(has(DumpFlags::TABLES).then_some(call.cursor));
    let mut sink = DumpSink::new(coalescer, has(DumpFlags::PACKED));
    let walked = walk_range(&table, &root, cursor, end, budget, &mut sink).map_err(|_| Status::BAD_GEOMETRY)?;
    let (writer, digest) = sink.finish();
    let held_ticks = header::ticks(platform.counter().wrapping_sub(locked_at));
    drop(table);

    if has(DumpFlags::ATOMIC) && walked.next != end {
        return Err(Status::TOO_BIG);
    }
    let next = walked.next.get();
    let counts = pack_counts(header::narrow(writer.records()), walked.visited);
    writer.finish_chunk(counts, next, digest.unwrap_or(0), held_ticks);
    Ok([next, counts])
}

/// Writes the header, but for what the walk finds out. Before it, and not inlined, so that neither what the header tells nor the
/// header itself needs stack while the table is walked.
#[inline(never)]
fn write_header<P: Platform>(
    platform: &P,
    call: &DumpCall,
    budget: u32,
    end: u64,
    registers: &TableRegisters,
    geometry: &Geometry,
    writer: &SlotWriter<'_>,
) {
    let is_packed = call.flags.contains(DumpFlags::PACKED);
    let (kind, record_bytes) = if is_packed { (SlotKind::PACKED, PACKED_BYTES) } else { (SlotKind::RANGES, RUN_BYTES) };
    let flags = [
        (DumpFlags::EXACT, slot_flags::EXACT),
        (DumpFlags::ATOMIC, slot_flags::ATOMIC),
        (DumpFlags::DIGEST, slot_flags::DIGEST),
        (DumpFlags::TABLES, slot_flags::TABLES),
    ];
    let flags =
        flags.into_iter().fold(0, |all, (asked, flag)| if call.flags.contains(asked) { all | flag } else { all });
    let header = SlotHeader {
        record_bytes,
        flags,
        target: call.target.0,
        start: call.cursor,
        end,
        budget,
        tick_hz: platform.counter_hz(),
        ..header::of_slot(kind, call.sequence, 0)
    };
    writer.write_header(&header::with_table(header, registers, geometry));
}
