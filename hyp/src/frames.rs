// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! FRAMES: what the hypervisor keeps about page frames outside of tables, neighbors that are alike folded.
//!
//! Only memory that the hypervisor knows is looked at, region by region. Where it keeps nothing, nothing is read.

use crate::call::{Answer, FramesCall};
use crate::dump::{budget_in_force, RECORD_COST};
use crate::header;
use crate::platform::{FrameMemory, Platform};
use crate::run::{shorten, Same};
use crate::slot_writer::{SlotPage, SlotWriter};
use core::sync::atomic::Ordering;
use s2dump_abi::hypercall::{pack_counts, DumpFlags, Status, MAX_BUDGET};
use s2dump_abi::slot::{frame_flags, FrameRecord, SlotHeader, SlotKind, SLOT_FRAMES};
use s2dump_vmsa::PhysAddr;

// Each record costs as much, whatever it tells, so all that a budget allows fit: there is no need to look for room.
const _: () = assert!((MAX_BUDGET as usize).div_ceil(RECORD_COST as usize) < SLOT_FRAMES);

/// The end of all physical addresses.
const SPACE_END: u64 = 1 << 52;

#[inline(always)]
pub(crate) fn frames<P: Platform>(platform: &P, page: SlotPage<'_>, call: &FramesCall) -> Answer {
    let frame_shift = P::PAGES.page_shift();
    // A state takes as long to read as a descriptor, and a record as long to write, so the same bound holds the lock no
    // longer.
    let budget = budget_in_force(call.budget, DumpFlags::default());
    let (cursor, end) = (call.cursor, u64::min(call.end, SPACE_END));
    if cursor >= end || (cursor | end) & ((1 << frame_shift) - 1) != 0 {
        return Err(Status::BAD_RANGE);
    }

    let frames = platform.lock_frames();
    let locked_at = platform.counter();
    let mut writer = SlotWriter::begin(page);
    // Each turn makes a record. All but the first, which gets its cost here, cost as much as those of a dump; that includes
    // the look for a region. The last one takes all that is left.
    let (mut next, mut left, mut visited) = (cursor, budget + u32::from(RECORD_COST), 0);
    while next < end && left != 0 {
        let region = frames.region(PhysAddr::new(next)).filter(|region| region.start.get() < end);
        let Some(region) = region else {
            next = end;
            break;
        };
        left = left.saturating_sub(RECORD_COST.into());
        let pa = region.start.get();
        let frames = u64::min(region.frames, (end - pa) >> frame_shift);
        let first = region.states.and_then(<[_]>::split_first);
        let (raw, count, flags) = match first {
            Some((first, rest)) => {
                let raw = first.load(Ordering::Relaxed);
                let more = u64::min(frames, left.into()).saturating_sub(1); // One is always taken.
                let count = 1 + Same { expected: raw, step: 0, mask: u64::MAX }.count(shorten(rest, more)) as u32;
                left = left.saturating_sub(count);
                visited += count;
                (raw, count, 0)
            }
            None => (0, u32::try_from(frames).unwrap_or(u32::MAX), frame_flags::NO_STATE),
        };
        writer.put_frames(&FrameRecord { pa, raw, count, flags, reserved: 0 });
        next = pa + (u64::from(count) << frame_shift);
    }
    let held_ticks = header::ticks(platform.counter().wrapping_sub(locked_at));
    drop(frames);

    let counts = pack_counts(header::narrow(writer.records()), visited);
    let header = SlotHeader {
        record_bytes: size_of::<FrameRecord>() as u16,
        start: cursor,
        next,
        end,
        page_shift: P::PAGES as u8,
        encoding: platform.encoding(),
        budget,
        held_ticks,
        tick_hz: platform.counter_hz(),
        ..header::of_slot(SlotKind::FRAMES, call.sequence, counts)
    };
    writer.finish(&header);
    Ok([next, counts])
}
