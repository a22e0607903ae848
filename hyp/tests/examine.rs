// SPDX-License-Identifier: MIT OR Apache-2.0
//! One page frame and some places at one moment: what is told, and in which order things are locked (the fake
//! hypervisor looks at that).

use crate::common::{shape, Tables, BASE, BLOCK, PAGE};
use crate::fake::{Answer, Hypervisor, SLOT_PFN};
use proptest::prelude::*;
use s2dump_abi::hypercall::{unpack_counts, Op, Status};
use s2dump_abi::slot::{encoding, record_flags, table_features, Record, RecordKind, SlotHeader, SlotKind};
use s2dump_abi::target::{Place, Target};
use std::sync::atomic::AtomicU64;

const HANDLE: u16 = 0x1003;
const GUEST: Target = Target::guest(HANDLE);
const ROOT: u64 = BASE + 0x1_0000;
/// A page that the guest has at `IPA`.
const PA: u64 = 0x9000_0000;
const IPA: u64 = 0x4020_3000;

fn hypervisor() -> Hypervisor {
    let tables = || Tables::new(shape("4k_40_two_roots"));
    let mut guest = tables();
    guest.map(IPA, 3, PA, PAGE);
    let mut host = tables();
    host.set(PA, 3, 2 << 60 | 2 << 1);
    let mut hyp = Tables::new(shape("el2_4k_52_e2h"));
    hyp.map(0x4000_0000, 2, 0x8000_0000, BLOCK);
    let mut hypervisor = Hypervisor::new([(HANDLE, guest), (0x1004, tables())]);
    (hypervisor.host, hypervisor.hyp) = (Some(host), Some(hyp));
    let states = (0..4).map(|n| AtomicU64::new(0x300 + n)).collect();
    hypervisor.memory = vec![(PA - 0x2000, 4, Some(states)), (PA + 0x4000, 1, None)];
    hypervisor
}

fn place(target: Target, address: u64) -> Place {
    Place::new(target, address).unwrap()
}

fn examine(hypervisor: &Hypervisor, frame: u64, places: [Place; 3]) -> Answer {
    let [x4, x5, x6] = places.map(|place| place.0);
    hypervisor.call([Op::EXAMINE.0.into(), SLOT_PFN, frame, x4, x5, x6, 9])
}

fn assert_status(answer: &Answer, status: Status) {
    assert_eq!(answer.status, u64::from(status.0));
}

fn told(kind: RecordKind, ia: u64, oa: u64, descriptor: u64, count: u32) -> Record {
    Record { ia, oa, descriptor, count, level: 0, kind: kind.0, flags: record_flags::LINEAR }
}

/// Kind, level and descriptor of the last record, which is what a walk comes to.
fn last(answer: &Answer) -> (RecordKind, i8, u64) {
    let record = *answer.records().last().unwrap();
    (RecordKind(record.kind), record.level, record.descriptor)
}

#[test]
fn good_a_page_its_state_and_three_places() {
    let hypervisor = hypervisor();
    let places = [place(GUEST, IPA), place(Target::HOST, PA), place(Target::HYP, 0x4000_1000)];
    let answer = examine(&hypervisor, PA, places);
    assert_status(&answer, Status::OK);
    let records = answer.records();
    let kinds: Vec<_> = records.iter().map(|r| (RecordKind(r.kind), r.level)).collect();
    let (table, leaf) = (RecordKind::TABLE, RecordKind::LEAF);
    let expected = [
        (RecordKind::FRAME, 0),
        (RecordKind::PLACE, 0),
        (table, 1),
        (table, 2),
        (leaf, 3),
        (RecordKind::PLACE, 0),
        (table, 1),
        (table, 2),
        (RecordKind::INVALID, 3),
        (RecordKind::PLACE, 0),
        (table, -1),
        (table, 0),
        (table, 1),
        (leaf, 2),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(records[0], told(RecordKind::FRAME, PA, 0, 0x302, 1));
    assert_eq!(records[1], told(RecordKind::PLACE, IPA, ROOT, GUEST.0, 0));
    assert_eq!((records[4].ia, records[4].oa), (IPA, PA));
    assert_eq!(records[5], told(RecordKind::PLACE, PA, ROOT, Target::HOST.0, 0));
    assert_eq!((records[8].ia, records[8].descriptor), (PA, 2 << 60 | 2 << 1));
    assert_eq!(records[9], told(RecordKind::PLACE, 0x4000_1000, ROOT, Target::HYP.0, 0));
    assert_eq!((answer.x2, unpack_counts(answer.x3)), (0, (14, 10)));
    let header = SlotHeader {
        record_count: 14,
        visited: 10,
        sequence: 9,
        start: PA,
        next: PA + 0x1000,
        end: PA + 0x1000,
        table_features: table_features::FWB,
        page_shift: 12,
        encoding: encoding::PKVM_7_2,
        budget: 15,
        held_ticks: 100,
        tick_hz: 62_500_000,
        record_bytes: 32,
        ..SlotHeader::new(SlotKind::EXAMINE)
    };
    assert_eq!(answer.header().unwrap(), header);
    assert_eq!(hypervisor.locks.get(), 2, "all, and the guest");
}

#[test]
fn good_no_state_no_place() {
    let hypervisor = hypervisor();
    // Before memory, behind it, in a gap, in memory without states; and the last frame with one.
    for (frame, records) in
        [(0, 0), (1 << 51, 0), (PA - 0x3000, 0), (PA + 0x2000, 0), (PA + 0x4000, 0), (PA + 0x1000, 1)]
    {
        let answer = examine(&hypervisor, frame, [Place::NONE; 3]);
        assert_status(&answer, Status::OK);
        assert_eq!(answer.records().len(), records, "{frame:#x}");
    }
}

/// The same guest twice, and another one, are locked one after the other.
#[test]
fn good_guests_in_turn() {
    let hypervisor = hypervisor();
    let places = [place(GUEST, IPA), place(Target::guest(0x1004), IPA), place(GUEST, 0)];
    let answer = examine(&hypervisor, 0, places);
    assert_status(&answer, Status::OK);
    let seen: Vec<_> = answer.records().iter().map(|r| (RecordKind(r.kind), r.level)).collect();
    let (table, hole) = (RecordKind::TABLE, RecordKind::INVALID);
    let place = (RecordKind::PLACE, 0);
    assert_eq!(seen, [place, (table, 1), (table, 2), (RecordKind::LEAF, 3), place, (hole, 1), place, (hole, 1)]);
    assert_eq!(hypervisor.locks.get(), 4);
}

/// A place that cannot be walked says why; the others are told all the same.
#[test]
fn good_places_that_cannot_be_walked() {
    let mut hypervisor = hypervisor();
    let nobody = Target::guest(0x1005);
    let places = [place(nobody, IPA), place(Target::HOST, 1 << 40), place(GUEST, IPA)];
    let answer = examine(&hypervisor, 0, places);
    let records = answer.records();
    assert_eq!(records[0], told(RecordKind::PLACE, IPA, 0, nobody.0, Status::NO_SUCH_VM.0));
    assert_eq!(records[1], told(RecordKind::PLACE, 1 << 40, 0, Target::HOST.0, Status::BAD_RANGE.0));
    assert_eq!(last(&answer), (RecordKind::LEAF, 3, PA | PAGE));

    hypervisor.dying = true;
    let answer = examine(&hypervisor, 0, [place(GUEST, IPA), place(Target::HOST, PA), Place::NONE]);
    assert_eq!(answer.records()[0], told(RecordKind::PLACE, IPA, 0, GUEST.0, Status::VM_DYING.0));
    assert_eq!(last(&answer), (RecordKind::INVALID, 3, 2 << 60 | 2 << 1));

    // D128: a geometry the walker refuses.
    hypervisor.vtcr = Some(1 << 38);
    let answer = examine(&hypervisor, 0, [Place::NONE, Place::NONE, place(Target::HOST, PA)]);
    assert_eq!(answer.records(), [told(RecordKind::PLACE, PA, 0, Target::HOST.0, Status::BAD_GEOMETRY.0)]);
}

#[test]
fn bad_arguments() {
    let mut hypervisor = hypervisor();
    let unknown = |bits: u64| [Place::NONE, Place(bits), Place::NONE];
    for (frame, places, status) in [
        (1, [Place::NONE; 3], Status::BAD_RANGE),
        (0x800, [Place::NONE; 3], Status::BAD_RANGE),
        (1 << 52, [Place::NONE; 3], Status::BAD_RANGE),
        (u64::MAX, [Place::NONE; 3], Status::BAD_RANGE),
        (PA, unknown(3 << 56), Status::UNKNOWN_TARGET),
        (PA, unknown(u64::MAX), Status::UNKNOWN_TARGET),
        // A handle, where there is none.
        (PA, unknown(1 << 56 | 1 << 40), Status::UNKNOWN_TARGET),
        (PA, unknown(2 << 56 | 1 << 55), Status::UNKNOWN_TARGET),
    ] {
        let answer = examine(&hypervisor, frame, places);
        assert_status(&answer, status);
        answer.assert_untouched();
    }
    hypervisor.permitted.hyp = false;
    for hyp in [Place(2 << 56), place(Target::HYP, 0x4000_1000), Place(2 << 56 | 1 << 40)] {
        let answer = examine(&hypervisor, PA, [place(GUEST, IPA), Place::NONE, hyp]);
        assert_status(&answer, Status::HYP_NOT_PERMITTED);
        answer.assert_untouched();
    }
    assert_eq!(hypervisor.locks.get(), 0);
    let elsewhere = hypervisor.call([Op::EXAMINE.0.into(), SLOT_PFN + 64, PA, 0, 0, 0, 0]);
    assert_status(&elsewhere, Status::SLOT_NOT_SHARED);
    assert_eq!(hypervisor.locks.get(), 0);
}

proptest! {
    /// A place is told as a walk tells it.
    #[test]
    fn good_as_a_walk(page in 0..1_u64 << 28, near in any::<bool>()) {
        let address = if near { IPA ^ (page & 0x3ff) << 12 } else { page << 12 };
        let hypervisor = hypervisor();
        let walk = hypervisor.call([Op::WALK.0.into(), SLOT_PFN, GUEST.0, address, 0, 0, 0]);
        let answer = examine(&hypervisor, address, [Place::NONE, place(GUEST, address), Place::NONE]);
        let records = answer.records();
        let at = records.iter().position(|record| record.kind == RecordKind::PLACE.0).unwrap();
        prop_assert_eq!(&records[at + 1..], walk.records());
        prop_assert!(records.len() <= 19);
    }
}
