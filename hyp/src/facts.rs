// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! FACTS: what the hypervisor knows of memory and of itself, and never changes after boot. No lock is needed.

use crate::call::{Answer, FactsCall};
use crate::header;
use crate::platform::Platform;
use crate::slot_writer::{SlotPage, SlotWriter};
use s2dump_abi::hypercall::pack_counts;
use s2dump_abi::slot::{Fact, SlotHeader, SlotKind};

/// Tells facts; with `hyp` also those about EL2's input addresses.
#[inline(always)]
pub(crate) fn facts<P: Platform>(platform: &P, page: SlotPage<'_>, call: &FactsCall, hyp: bool) -> Answer {
    let mut writer = SlotWriter::begin(page);
    let end = platform.facts(hyp);
    let mut next = call.first;
    while next < end && writer.has_room_for_fact() {
        let Some(fact) = platform.fact(next) else { break };
        writer.put_fact(&fact);
        next += 1;
    }
    let next = if next < end { next } else { 0 };

    let records = header::narrow(writer.records());
    let counts = pack_counts(records, records);
    let header = SlotHeader {
        record_bytes: size_of::<Fact>() as u16,
        start: call.first,
        next,
        end,
        tick_hz: platform.counter_hz(),
        ..header::of_slot(SlotKind::FACTS, call.sequence, counts)
    };
    writer.finish(&header);
    Ok([next, counts])
}
