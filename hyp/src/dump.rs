// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! DUMP: one chunk of a table, folded into a slot.

use crate::coalescer::{Coalescer, Fold};
use crate::entry::Answer;
use crate::header;
use crate::platform::{LockedTable, PinnedSlot, Platform};
use crate::slot_writer::SlotWriter;
use crate::walker::{walk_range, MIN_BUDGET};
use s2dump_abi::hypercall::{pack_counts, DumpFlags, Status, ATOMIC_BUDGET, DEFAULT_BUDGET, MAX_BUDGET};
use s2dump_abi::slot::{record_flags, slot_flags, SlotHeader, SlotKind};
use s2dump_abi::target::Target;
use s2dump_vmsa::Ipa;

/// The registers of a DUMP call.
pub(crate) struct DumpCall {
    pub(crate) slot_pfn: u64,
    pub(crate) target: Target,
    pub(crate) handle: u16,
    pub(crate) flags: DumpFlags,
    pub(crate) cursor: u64,
    pub(crate) end: u64,
    pub(crate) budget: u64,
    pub(crate) sequence: u64,
}

/// Returns the budget in force.
///
/// At least [`MIN_BUDGET`], so that each call makes progress; an atomic dump has a cap of its own, and by default uses
/// all of it.
#[inline(always)]
fn budget_in_force(asked: u64, is_atomic: bool) -> u32 {
    let (default, cap) = if is_atomic { (ATOMIC_BUDGET, ATOMIC_BUDGET) } else { (DEFAULT_BUDGET, MAX_BUDGET) };
    match u32::try_from(asked) {
        Ok(0) => default,
        Ok(asked) => asked.clamp(MIN_BUDGET, cap),
        Err(_) => cap,
    }
}

#[inline(always)]
pub(crate) fn dump<P: Platform>(platform: &P, call: &DumpCall) -> Answer {
    let is_atomic = call.flags.contains(DumpFlags::ATOMIC);
    let is_exact = call.flags.contains(DumpFlags::EXACT);
    let wants_digest = call.flags.contains(DumpFlags::DIGEST);
    let budget = budget_in_force(call.budget, is_atomic);
    let cursor = Ipa::try_new(call.cursor).map_err(|_| Status::BAD_RANGE)?;

    let slot = platform.pin_slot(call.slot_pfn).ok_or(Status::SLOT_NOT_SHARED)?;
    let table = platform.lock_table(call.handle).ok_or(Status::NO_SUCH_VM)?;
    let registers = table.registers();
    let root = header::root_of(&registers)?;
    let geometry = root.geometry();
    let page_mask = (1 << geometry.granule().page_shift()) - 1;
    let end = Ipa::try_new(u64::min(call.end, geometry.ia_end())).map_err(|_| Status::BAD_RANGE)?;
    if cursor >= end || (cursor.get() | end.get()) & page_mask != 0 {
        return Err(Status::BAD_RANGE);
    }

    let fold = Fold { geometry: *geometry, exact: is_exact };
    // Nothing is kept about the slot before, so only the first of a dump is known not to go on.
    let first_flags = if call.sequence == 0 { 0 } else { record_flags::CONTINUES };
    let mut coalescer = Coalescer::new(fold, first_flags, wants_digest, SlotWriter::begin(slot.page()));
    let progress = walk_range(&table, &root, cursor, end, budget, &mut coalescer).map_err(|_| Status::BAD_GEOMETRY)?;
    let (writer, digest) = coalescer.finish();
    drop(table);

    if is_atomic && progress.next != end {
        return Err(Status::TOO_BIG);
    }
    let counts = pack_counts(header::narrow(writer.records()), progress.visited);
    let flags = if is_exact { slot_flags::EXACT } else { 0 }
        | if is_atomic { slot_flags::ATOMIC } else { 0 }
        | if wants_digest { slot_flags::DIGEST } else { 0 };
    let header = SlotHeader {
        flags,
        target: call.target.0,
        start: cursor.get(),
        next: progress.next.get(),
        end: end.get(),
        digest: digest.unwrap_or(0),
        budget,
        ..header::of_slot(SlotKind::RANGES, call.sequence, counts)
    };
    writer.finish(&header::with_table(header, &registers, geometry));
    Ok([progress.next.get(), counts])
}
