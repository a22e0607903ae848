// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! EXAMINE: one page frame and some places in tables, at one moment: no page changes hands in between.
//!
//! Few descriptors are read, because everything is locked: at most one for each level of each place.

use crate::call::{Answer, ExamineCall};
use crate::coalescer::RecordOut;
use crate::header;
use crate::platform::{Everything, FrameMemory, Platform};
use crate::slot_writer::{SlotPage, SlotWriter};
use crate::walk;
use crate::walker::MIN_BUDGET;
use core::sync::atomic::Ordering;
use s2dump_abi::hypercall::{pack_counts, Status};
use s2dump_abi::slot::{record_flags, slot_flags, Record, RecordKind, SlotHeader, SlotKind};
use s2dump_abi::target::{Place, PLACES};
use s2dump_vmsa::{Ipa, PhysAddr};

/// Physical addresses have no more bits.
const PA_BITS: u32 = 52;

#[inline(always)]
pub(crate) fn examine<P: Platform>(platform: &P, page: SlotPage<'_>, call: &ExamineCall) -> Answer {
    let frame = PhysAddr::new(call.frame);
    let frame_bytes = 1 << P::PAGES.page_shift();
    if !frame.fits(PA_BITS) || call.frame & (frame_bytes - 1) != 0 {
        return Err(Status::BAD_RANGE);
    }

    let mut all = platform.lock_all();
    let locked_at = platform.counter();
    let mut writer = SlotWriter::begin(page);
    let region = all.region(frame).filter(|region| region.start == frame);
    if let Some(state) = region.and_then(|region| region.states?.first()) {
        writer.put(&about(RecordKind::FRAME, call.frame, state.load(Ordering::Relaxed)));
    }
    let mut visited = 0;
    for place in call.places.into_iter().filter(|place| *place != Place::NONE) {
        let at = writer.leave_room(); // Before its walk, from which follows what is told of it.
        let (status, root) = match walk_place(&mut all, place, &mut writer) {
            Ok(root) => (Status::OK, root),
            Err(status) => (status, 0),
        };
        visited += writer.records() - at - 1;
        let told = about(RecordKind::PLACE, place.address(), place.target().0);
        writer.put_at(at, &Record { oa: root, count: status.0, ..told });
    }
    let held_ticks = header::ticks(platform.counter().wrapping_sub(locked_at));
    drop(all);

    let counts = pack_counts(header::narrow(writer.records()), header::narrow(visited));
    let behind = call.frame + frame_bytes;
    let header = SlotHeader {
        start: call.frame,
        next: behind,
        end: behind,
        table_features: platform.table_features(),
        page_shift: P::PAGES as u8,
        encoding: platform.encoding(),
        budget: MIN_BUDGET * PLACES as u32,
        held_ticks,
        tick_hz: platform.counter_hz(),
        ..header::of_slot(SlotKind::EXAMINE, call.sequence, counts)
    };
    writer.finish(&header);
    Ok([0, counts])
}

/// Tells the walk to `place`, and returns the root of its table.
///
/// # Errors
///
/// The status to tell of it. Nothing of its walk was told then.
#[inline(always)]
fn walk_place<A: Everything>(all: &mut A, place: Place, writer: &mut SlotWriter<'_>) -> Result<u64, Status> {
    let target = place.target();
    let (table, registers) = all.table(target)?;
    if registers.flags & slot_flags::DYING != 0 {
        return Err(Status::VM_DYING);
    }
    let address = Ipa::try_new(place.address()).map_err(|_| Status::BAD_RANGE)?;
    walk::tell(&table, target, &registers, address, writer)?;
    Ok(registers.root)
}

/// Returns a record that is no entry of a table.
#[inline(always)]
fn about(kind: RecordKind, ia: u64, descriptor: u64) -> Record {
    Record { ia, oa: 0, descriptor, count: 1, level: 0, kind: kind.0, flags: record_flags::LINEAR }
}
