// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! The hypercall handler: checks every register, then calls the operation.
//!
//! The host may put anything into any register, and may call from several CPUs at once. The handler keeps nothing
//! between calls. `s2dump_abi::hypercall` says what each operation takes and returns.

use crate::call::{Answer, DumpCall, ExamineCall, FactsCall, FramesCall, ListCall, WalkCall};
use crate::platform::{Permitted, PinnedSlot, Platform};
use crate::slot_writer::SlotPage;
use crate::{dump, examine, facts, frames, list, walk};
use s2dump_abi::hypercall::{DumpFlags, Op, Status, DEFAULT_BUDGET, SLOT_PAGES_SHIFT};
use s2dump_abi::target::{Place, Target, TargetKind};
use s2dump_abi::version::{features, AbiVersion, ABI_VERSION};

/// The features of this handler that need no permission of their own at boot.
const FEATURES: u64 = features::EXACT
    | features::DIGEST
    | features::TABLES
    | features::PACKED
    | features::FRAMES
    | features::FACTS
    | features::EXAMINE
    | features::GUEST_STAGE2
    | features::HOST_STAGE2;

/// Handles one call: `registers` are the host's x0 to x7; returns what goes into its x1 to x3.
#[inline]
pub fn handle<P: Platform>(registers: &[u64; 8], platform: &P) -> [u64; 3] {
    let permitted = platform.permitted();
    let features = FEATURES
        | if permitted.atomic { features::ATOMIC } else { 0 }
        | if permitted.hyp { features::HYP_STAGE1 } else { 0 };
    // VERSION_MISMATCH returns this too, so that a host of another version learns which version this is.
    let hello = [u64::from(ABI_VERSION.to_bits()) | u64::from(DEFAULT_BUDGET) << 32, features];
    let (status, [x2, x3]) = match dispatch(registers, platform, permitted, hello) {
        Ok(answer) => (Status::OK, answer),
        Err(Status::VERSION_MISMATCH) => (Status::VERSION_MISMATCH, hello),
        Err(status) => (status, [0, 0]),
    };
    [u64::from(status.0), x2, x3]
}

#[inline(always)]
fn dispatch<P: Platform>(registers: &[u64; 8], platform: &P, permitted: Permitted, hello: [u64; 2]) -> Answer {
    if !permitted.calls {
        return Err(Status::NOT_PERMITTED);
    }
    let [_, x1, slot, ..] = *registers;
    let op = Op((x1 & 0xffff_ffff) as u32);
    if op != Op::DUMP || !flags_of(x1).contains(DumpFlags::PACKED) {
        expect_zero(slot >> SLOT_PAGES_SHIFT)?; // Further pages, which no other call has a use for.
    }
    if op == Op::HELLO {
        return dispatch_hello(registers, hello);
    }
    if op.0 > Op::EXAMINE.0 {
        return Err(Status::UNKNOWN_OP);
    }
    // All others fill a slot.
    let slot = platform.pin_slot(slot).ok_or(Status::SLOT_NOT_SHARED)?;
    let page = slot.page();
    match op {
        Op::LIST => dispatch_list(registers, platform, page),
        Op::DUMP => dispatch_dump(registers, platform, page, permitted),
        Op::WALK => dispatch_walk(registers, platform, page, permitted),
        Op::FRAMES => dispatch_frames(registers, platform, page),
        Op::FACTS => dispatch_facts(registers, platform, page, permitted),
        Op::EXAMINE => dispatch_examine(registers, platform, page, permitted),
        _ => Err(Status::UNKNOWN_OP),
    }
}

#[inline(always)]
fn dispatch_hello(registers: &[u64; 8], hello: [u64; 2]) -> Answer {
    let [_, op, version, x3, x4, x5, x6, x7] = *registers;
    expect_zero(u64::from(flags_of(op).0) | x3 | x4 | x5 | x6 | x7)?;
    let version = u32::try_from(version).map_err(|_| Status::UNKNOWN_FLAG)?;
    if !ABI_VERSION.can_speak_to(AbiVersion::from_bits(version)) {
        return Err(Status::VERSION_MISMATCH);
    }
    Ok(hello)
}

// Those below are not inlined: so each has the stack to itself.

#[inline(never)]
fn dispatch_list<P: Platform>(registers: &[u64; 8], platform: &P, page: SlotPage<'_>) -> Answer {
    let [_, op, _, x3, x4, x5, x6, x7] = *registers;
    expect_zero(u64::from(flags_of(op).0) | x3 | x5)?;
    list::list(platform, page, &ListCall { first: x4, looks: x6, sequence: x7 })
}

#[inline(never)]
fn dispatch_dump<P: Platform>(registers: &[u64; 8], platform: &P, page: SlotPage<'_>, permitted: Permitted) -> Answer {
    let [_, op, _, x3, x4, x5, x6, x7] = *registers;
    let flags = flags_of(op);
    expect_zero(u64::from(flags.0 & !DumpFlags::KNOWN.0))?;
    if flags.contains(DumpFlags::PACKED) && !flags.contains(DumpFlags::EXACT) {
        return Err(Status::UNKNOWN_FLAG);
    }
    if flags.contains(DumpFlags::ATOMIC) && !permitted.atomic {
        return Err(Status::ATOMIC_NOT_PERMITTED);
    }
    let target = permitted_target(x3, permitted)?;
    let call = DumpCall { target, flags, cursor: x4, end: x5, budget: x6, sequence: x7 };
    dump::dump(platform, page, &call)
}

#[inline(never)]
fn dispatch_walk<P: Platform>(registers: &[u64; 8], platform: &P, page: SlotPage<'_>, permitted: Permitted) -> Answer {
    let [_, op, _, x3, x4, x5, x6, x7] = *registers;
    expect_zero(u64::from(flags_of(op).0) | x5 | x6)?;
    let target = permitted_target(x3, permitted)?;
    walk::walk(platform, page, &WalkCall { target, address: x4, sequence: x7 })
}

#[inline(never)]
fn dispatch_frames<P: Platform>(registers: &[u64; 8], platform: &P, page: SlotPage<'_>) -> Answer {
    let [_, op, _, x3, x4, x5, x6, x7] = *registers;
    expect_zero(u64::from(flags_of(op).0) | x3)?;
    frames::frames(platform, page, &FramesCall { cursor: x4, end: x5, budget: x6, sequence: x7 })
}

#[inline(never)]
fn dispatch_facts<P: Platform>(registers: &[u64; 8], platform: &P, page: SlotPage<'_>, permitted: Permitted) -> Answer {
    let [_, op, _, x3, x4, x5, x6, x7] = *registers;
    expect_zero(u64::from(flags_of(op).0) | x3 | x5 | x6)?;
    facts::facts(platform, page, &FactsCall { first: x4, sequence: x7 }, permitted.hyp)
}

#[inline(never)]
fn dispatch_examine<P: Platform>(
    registers: &[u64; 8],
    platform: &P,
    page: SlotPage<'_>,
    permitted: Permitted,
) -> Answer {
    let [_, op, _, x3, x4, x5, x6, x7] = *registers;
    expect_zero(flags_of(op).0.into())?;
    let places = [Place(x4), Place(x5), Place(x6)];
    for place in places {
        let target = permitted_target(place.target().0, permitted)?;
        if target.guest_handle().is_none() && target != Target::HOST && target != Target::HYP {
            return Err(Status::UNKNOWN_TARGET);
        }
    }
    examine::examine(platform, page, &ExamineCall { frame: x3, places, sequence: x7 })
}

/// Returns the flags in x1.
#[inline(always)]
fn flags_of(op: u64) -> DumpFlags {
    DumpFlags((op >> 32) as u32)
}

/// Refuses reserved bits that are set: a later version may give them a meaning.
#[inline(always)]
fn expect_zero(reserved: u64) -> Result<(), Status> {
    if reserved == 0 {
        Ok(())
    } else {
        Err(Status::UNKNOWN_FLAG)
    }
}

/// Refuses the table of EL2 unless the boot allowed it. The target may still be none.
#[inline(always)]
fn permitted_target(target: u64, permitted: Permitted) -> Result<Target, Status> {
    let target = Target(target);
    if target.kind() == TargetKind::HYP_STAGE1 && !permitted.hyp {
        return Err(Status::HYP_NOT_PERMITTED);
    }
    Ok(target)
}
