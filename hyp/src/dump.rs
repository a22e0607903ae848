// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! DUMP: one chunk of a table, folded into a slot.

use crate::call::{Answer, DumpCall};
use crate::coalescer::{Coalescer, Fold};
use crate::header;
use crate::platform::{PinnedSlot, Platform};
use crate::slot_writer::SlotWriter;
use crate::walker::{self, walk_range};
use s2dump_abi::hypercall::{pack_counts, DumpFlags, Status, ATOMIC_BUDGET, DEFAULT_BUDGET, MAX_BUDGET, MIN_BUDGET};
use s2dump_abi::slot::{record_flags, slot_flags, SlotHeader, SlotKind};
use s2dump_vmsa::Ipa;

// What the walker needs is what the ABI promises.
const _: () = assert!(MIN_BUDGET == walker::MIN_BUDGET);

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

#[inline(always)]
pub(crate) fn dump<P: Platform>(platform: &P, call: &DumpCall) -> Answer {
    let is_atomic = call.flags.contains(DumpFlags::ATOMIC);
    let is_exact = call.flags.contains(DumpFlags::EXACT);
    let wants_digest = call.flags.contains(DumpFlags::DIGEST);
    let budget = budget_in_force(call.budget, call.flags);
    let cursor = Ipa::try_new(call.cursor).map_err(|_| Status::BAD_RANGE)?;

    let slot = platform.pin_slot(call.slot_pfn).ok_or(Status::SLOT_NOT_SHARED)?;
    let (table, registers) = platform.lock_table(call.target)?;
    let locked_at = platform.counter();
    let root = header::root_of(call.target.kind(), &registers)?;
    let geometry = root.geometry();
    let page_mask = (1 << geometry.granule().page_shift()) - 1;
    let end = Ipa::try_new(u64::min(call.end, geometry.ia_end())).map_err(|_| Status::BAD_RANGE)?;
    if cursor >= end || (cursor.get() | end.get()) & page_mask != 0 {
        return Err(Status::BAD_RANGE);
    }

    let fold = Fold { geometry: *geometry, exact: is_exact };
    // EL2 keeps nothing about the slot before, so it cannot know whether this one continues a run. Only the first slot
    // of a dump surely does not.
    let first_flags = if call.sequence == 0 { 0 } else { record_flags::CONTINUES };
    let mut coalescer = Coalescer::new(fold, first_flags, wants_digest, SlotWriter::begin(slot.page()));
    if !is_atomic {
        coalescer = coalescer.limited(budget, RECORD_COST >> digest_shift(call.flags));
    }
    let walked = walk_range(&table, &root, cursor, end, budget, &mut coalescer).map_err(|_| Status::BAD_GEOMETRY)?;
    let (writer, digest) = coalescer.finish();
    let held_ticks = header::ticks(platform.counter().wrapping_sub(locked_at));
    drop(table);

    if is_atomic && walked.next != end {
        return Err(Status::TOO_BIG);
    }
    let counts = pack_counts(header::narrow(writer.records()), walked.visited);
    let flags = if is_exact { slot_flags::EXACT } else { 0 }
        | if is_atomic { slot_flags::ATOMIC } else { 0 }
        | if wants_digest { slot_flags::DIGEST } else { 0 };
    let header = SlotHeader {
        flags,
        target: call.target.0,
        start: cursor.get(),
        next: walked.next.get(),
        end: end.get(),
        digest: digest.unwrap_or(0),
        budget,
        held_ticks,
        tick_hz: platform.counter_hz(),
        ..header::of_slot(SlotKind::RANGES, call.sequence, counts)
    };
    writer.finish(&header::with_table(header, &registers, geometry));
    Ok([walked.next.get(), counts])
}
