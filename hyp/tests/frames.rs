// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is told about page frames, against memory of a few regions.

use crate::fake::{Answer, Hypervisor, Paged, SLOT_PFN};
use proptest::prelude::*;
use s2dump_abi::hypercall::{unpack_counts, Op, Status, DEFAULT_BUDGET, MAX_BUDGET};
use s2dump_abi::slot::{encoding, frame_flags, FrameRecord, SlotHeader, SlotKind, SLOT_FRAMES};
use std::sync::atomic::AtomicU64;

const RAM: u64 = 0x8000_0000;

/// A region with these states.
fn region(start: u64, states: impl IntoIterator<Item = u64>) -> (u64, u64, Option<Vec<AtomicU64>>) {
    let states: Vec<_> = states.into_iter().map(AtomicU64::new).collect();
    (start, states.len() as u64, Some(states))
}

fn paged<const SHIFT: u32>(memory: Vec<(u64, u64, Option<Vec<AtomicU64>>)>) -> Paged<SHIFT> {
    let mut hypervisor = Paged::new([]);
    hypervisor.memory = memory;
    hypervisor
}

fn hypervisor(memory: Vec<(u64, u64, Option<Vec<AtomicU64>>)>) -> Hypervisor {
    paged(memory)
}

fn frames<const SHIFT: u32>(hypervisor: &Paged<SHIFT>, cursor: u64, end: u64, budget: u64) -> Answer {
    hypervisor.call([Op::FRAMES.0.into(), SLOT_PFN, 0, cursor, end, budget, 3])
}

fn assert_status(answer: &Answer, status: Status) {
    assert_eq!(answer.status, u64::from(status.0));
}

fn record(pa: u64, raw: u64, count: u32, flags: u16) -> FrameRecord {
    FrameRecord { pa, raw, count, flags, reserved: 0 }
}

#[test]
fn good_runs_gaps_and_memory_without_states() {
    let hypervisor = hypervisor(vec![
        region(RAM, [0, 0, 7, 7, 7, 0]),
        (RAM + 0x6000, 1 << 33, None),
        // The same as the last of the first region, but behind memory of which nothing is kept.
        region(1 << 50, [0, 1]),
    ]);
    let answer = frames(&hypervisor, 0, u64::MAX, 0);
    assert_status(&answer, Status::OK);
    // A count has room for so many; the rest is another record.
    let most = u32::MAX;
    let behind = RAM + 0x6000 + (u64::from(most) << 12);
    let expected = [
        record(RAM, 0, 2, 0),
        record(RAM + 0x2000, 7, 3, 0),
        record(RAM + 0x5000, 0, 1, 0),
        record(RAM + 0x6000, 0, most, frame_flags::NO_STATE),
        record(behind, 0, most, frame_flags::NO_STATE),
        record(behind + (u64::from(most) << 12), 0, 2, frame_flags::NO_STATE),
        record(1 << 50, 0, 1, 0),
        record((1 << 50) + 0x1000, 1, 1, 0),
    ];
    assert_eq!(answer.frames(), expected);
    let header = answer.header().unwrap();
    let expected = SlotHeader {
        record_bytes: 24,
        record_count: 8,
        // Memory without states is not read.
        visited: 8,
        sequence: 3,
        next: 1 << 52,
        end: 1 << 52,
        page_shift: 12,
        encoding: encoding::PKVM_7_2,
        budget: DEFAULT_BUDGET,
        held_ticks: 100,
        tick_hz: 62_500_000,
        ..SlotHeader::new(SlotKind::FRAMES)
    };
    assert_eq!(header, expected);
    assert_eq!((answer.x2, unpack_counts(answer.x3)), (1 << 52, (8, 8)));
}

#[test]
fn good_range_cuts_runs() {
    let hypervisor = hypervisor(vec![region(RAM, [5; 8]), (RAM + 0x8000, 4, None)]);
    for (cursor, end, expected) in [
        (RAM + 0x1000, RAM + 0x3000, vec![record(RAM + 0x1000, 5, 2, 0)]),
        (RAM + 0x7000, RAM + 0x9000, vec![record(RAM + 0x7000, 5, 1, 0), record(RAM + 0x8000, 0, 1, 1)]),
        (RAM + 0xa000, 1 << 40, vec![record(RAM + 0xa000, 0, 2, 1)]),
        (0, RAM, vec![]),
        (RAM + 0xc000, RAM + 0xd000, vec![]),
    ] {
        let answer = frames(&hypervisor, cursor, end, 0);
        assert_eq!((answer.frames(), answer.x2), (expected, end), "{cursor:#x}");
    }
}

#[test]
fn bad_range() {
    let hypervisor = hypervisor(vec![region(RAM, [0])]);
    for (cursor, end) in
        [(0, 0), (0x1000, 0x1000), (0x2000, 0x1000), (1, 0x1000), (0, 0x1001), (0x800, 0x2000), (1 << 52, u64::MAX)]
    {
        let answer = frames(&hypervisor, cursor, end, 0);
        assert_status(&answer, Status::BAD_RANGE);
        answer.assert_untouched();
    }
    assert_eq!(hypervisor.locks.get(), 0);
    let elsewhere = hypervisor.call([Op::FRAMES.0.into(), SLOT_PFN + 64, 0, 0, 0x1000, 0, 0]);
    assert_status(&elsewhere, Status::SLOT_NOT_SHARED);
    assert_eq!(hypervisor.locks.get(), 0);
}

#[test]
fn good_budget_in_force() {
    let hypervisor = hypervisor(vec![region(RAM, std::iter::repeat_n(0, 2 * MAX_BUDGET as usize))]);
    for (asked, given) in
        [(0, DEFAULT_BUDGET), (1, 5), (6, 6), (u64::from(MAX_BUDGET) + 1, MAX_BUDGET), (u64::MAX, MAX_BUDGET)]
    {
        let answer = frames(&hypervisor, RAM, u64::MAX, asked);
        let header = answer.header().unwrap();
        assert_eq!((header.budget, header.visited, header.record_count), (given, given, 1), "asked for {asked}");
        assert_eq!(answer.x2, RAM + (u64::from(given) << 12));
    }
}

/// A record costs as much as 52 states, and the look for a region belongs to it.
#[test]
fn good_records_count_in_the_budget() {
    let odd = hypervisor(vec![region(RAM, (0..400).map(|n| n % 2))]);
    let regions = hypervisor((0..100).map(|n| (RAM + n * 0x2000, 1, None)).collect());
    let answer = frames(&odd, RAM, u64::MAX, 0);
    // The first costs 1, each other 53, and the last one all that is left.
    let records = (DEFAULT_BUDGET - 1).div_ceil(53) + 1;
    assert_eq!(unpack_counts(answer.x3), (records, records));
    let answer = frames(&regions, RAM, u64::MAX, 0);
    assert_eq!(unpack_counts(answer.x3).1, 0, "nothing is read");
    assert_eq!(answer.frames().len(), 51, "the first is free, the others cost 52 each");
    assert_eq!(frames(&odd, RAM, u64::MAX, u64::MAX).frames().len(), (MAX_BUDGET - 1).div_ceil(53) as usize + 1);
}

fn memory() -> impl Strategy<Value = Vec<(u64, Vec<u64>, bool)>> {
    let states = proptest::collection::vec(prop_oneof![3 => Just(0), 1 => 0..3_u64, 1 => any::<u64>()], 1..200);
    proptest::collection::vec((0..5_u64, states, proptest::bool::weighted(0.8)), 0..6)
}

/// Each frame is told once, with what is kept about it, and nothing else is.
fn assert_each_frame_once<const SHIFT: u32>(
    memory: &[(u64, Vec<u64>, bool)],
    budget: u64,
    start: u64,
) -> Result<(), TestCaseError> {
    let mut expected = Vec::new();
    let mut regions = Vec::new();
    let mut pa = RAM;
    for (gap, states, is_kept) in memory {
        pa += gap << SHIFT;
        for (n, raw) in states.iter().enumerate() {
            let at = pa + ((n as u64) << SHIFT);
            expected.push((at, is_kept.then_some(*raw)));
        }
        let frames = states.len() as u64;
        regions.push((pa, frames, is_kept.then(|| states.iter().copied().map(AtomicU64::new).collect())));
        pa += frames << SHIFT;
    }
    let start = RAM + (start << SHIFT);
    expected.retain(|(at, _)| *at >= start);

    let hypervisor = paged::<SHIFT>(regions);
    let (mut cursor, mut seen) = (start, Vec::new());
    while cursor != 1 << 52 {
        let answer = frames(&hypervisor, cursor, u64::MAX, budget);
        prop_assert_eq!(answer.status, 0);
        prop_assert!(answer.x2 > cursor, "no progress");
        let header = answer.header().unwrap();
        prop_assert!(header.visited <= header.budget);
        prop_assert_eq!(u32::from(header.page_shift), SHIFT);
        let records = answer.frames();
        prop_assert!(records.len() <= SLOT_FRAMES);
        for record in records {
            let kept = (record.flags & frame_flags::NO_STATE == 0).then_some(record.raw);
            seen.extend((0..u64::from(record.count)).map(|n| (record.pa + (n << SHIFT), kept)));
        }
        cursor = answer.x2;
    }
    prop_assert_eq!(seen, expected);
    Ok(())
}

proptest! {
    /// However a walk through memory is cut, and whatever pages it has.
    #[test]
    fn good_each_frame_once(memory in memory(), budget in 0..600_u64, start in 0..64_u64) {
        assert_each_frame_once::<12>(&memory, budget, start)?;
        assert_each_frame_once::<14>(&memory, budget, start)?;
        assert_each_frame_once::<16>(&memory, budget, start)?;
    }
}

/// An address in the middle of a page is refused, and the same is right where pages are smaller.
#[test]
fn bad_addresses_within_a_page() {
    let large = paged::<14>(vec![region(RAM, [0; 2])]);
    let small = hypervisor(vec![region(RAM, [0; 8])]);
    for (cursor, end) in [(RAM + 0x1000, RAM + 0x4000), (RAM + 0x3000, RAM + 0x4000), (RAM, RAM + 0x5000)] {
        assert_status(&frames(&large, cursor, end, 0), Status::BAD_RANGE);
        assert_status(&frames(&small, cursor, end, 0), Status::OK);
    }
    assert_eq!(frames(&large, RAM + 0x4000, RAM + 0x8000, 0).frames(), [record(RAM + 0x4000, 0, 1, 0)]);
    let huge = paged::<16>(vec![region(RAM, [0])]);
    assert_status(&frames(&huge, RAM, RAM + 0x4000, 0), Status::BAD_RANGE);
    assert_status(&frames(&huge, RAM, RAM + 0x1_0000, 0), Status::OK);
}
