// SPDX-License-Identifier: MIT OR Apache-2.0
//! Facts: in slots as full as they can be, and those about EL2's input addresses only if they may be told.

use crate::fake::{Answer, Hypervisor, SLOT_PFN};
use s2dump_abi::hypercall::{unpack_counts, Op, Status};
use s2dump_abi::slot::{SlotHeader, SlotKind, SLOT_RECORDS};

fn facts(hypervisor: &Hypervisor, first: u64) -> Answer {
    hypervisor.call([Op::FACTS.0.into(), SLOT_PFN, 0, first, 0, 0, 5])
}

fn assert_status(answer: &Answer, status: Status) {
    assert_eq!(answer.status, u64::from(status.0));
}

#[test]
fn good_facts_as_permitted() {
    let mut hypervisor = Hypervisor::new([]);
    for (hyp, end) in [(true, 8), (false, 3)] {
        hypervisor.permitted.hyp = hyp;
        let answer = facts(&hypervisor, 1);
        assert_status(&answer, Status::OK);
        let told: Vec<_> = answer.facts().iter().map(|fact| fact.value).collect();
        assert_eq!(told, (1..end).collect::<Vec<_>>());
        let count = told.len() as u32;
        assert_eq!((answer.x2, unpack_counts(answer.x3)), (0, (count, count)));
        let header = SlotHeader {
            record_bytes: 32,
            record_count: count,
            visited: count,
            sequence: 5,
            start: 1,
            end,
            tick_hz: 62_500_000,
            ..SlotHeader::new(SlotKind::FACTS)
        };
        assert_eq!(answer.header().unwrap(), header);
    }
    assert_eq!(hypervisor.locks.get(), 0);
}

#[test]
fn good_full_slots_and_resume() {
    for count in [0, SLOT_RECORDS as u64 - 1, SLOT_RECORDS as u64, SLOT_RECORDS as u64 + 1, 300] {
        let mut hypervisor = Hypervisor::new([]);
        hypervisor.facts = (count, count);
        let (mut first, mut told) = (0, Vec::new());
        loop {
            let answer = facts(&hypervisor, first);
            let part = answer.facts();
            assert!(part.len() <= SLOT_RECORDS);
            told.extend(part.iter().map(|fact| fact.value));
            assert!(answer.x2 == 0 || part.len() == SLOT_RECORDS, "a slot that is not full, and not the last");
            first = answer.x2;
            if first == 0 {
                break;
            }
        }
        assert_eq!(told, (0..count).collect::<Vec<_>>());
    }
}

#[test]
fn good_none_behind_the_last() {
    let hypervisor = Hypervisor::new([]);
    for first in [8, 9, u64::MAX] {
        let answer = facts(&hypervisor, first);
        assert_eq!((answer.status, answer.x2, answer.facts().len()), (0, 0, 0));
    }
}

#[test]
fn bad_slot_not_shared() {
    let answer = Hypervisor::new([]).call([Op::FACTS.0.into(), SLOT_PFN + 64, 0, 0, 0, 0, 0]);
    assert_status(&answer, Status::SLOT_NOT_SHARED);
}
