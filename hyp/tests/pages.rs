// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernels with pages of 16 and 64 KiB: a slot is one page, and a call has the bounds that it has with pages of 4 KiB.

use crate::common::{shape, Tables, PAGE};
use crate::fake::{Answer, Paged, SLOT_PFN};
use s2dump_abi::hypercall::{slot_pages, unpack_counts, DumpFlags, Op, Status, DEFAULT_BUDGET, MAX_BUDGET};
use s2dump_abi::slot::{Record, PLAIN_SLOT_BYTES, SLOT_BYTES, SLOT_FACTS, SLOT_RECORDS, SLOT_VMS};
use s2dump_abi::target::{Place, Target};
use std::sync::atomic::AtomicU64;

const HANDLE: u16 = 0x1000;
const VM: u64 = HANDLE as u64;
const PACKED: DumpFlags = DumpFlags::EXACT.union(DumpFlags::PACKED);

/// A hypervisor whose guest has `pages` pages, no two of which fold: each is elsewhere, and each second has other attributes.
fn scattered<const SHIFT: u32>(shape_name: &str, pages: u64) -> Paged<SHIFT> {
    let mut tables = Tables::new(shape(shape_name));
    assert_eq!(tables.shape.page_shift, SHIFT);
    (0..pages).for_each(|n| {
        let pa = (n * 7919 % (1 << 16)) << SHIFT;
        tables.map(n << SHIFT, 3, pa, PAGE | (n & 1) << 55);
    });
    Paged::new([(HANDLE, tables)])
}

fn call<const SHIFT: u32>(
    hypervisor: &Paged<SHIFT>,
    op: Op,
    flags: DumpFlags,
    slot: u64,
    arguments: [u64; 5],
) -> Answer {
    let [x3, x4, x5, x6, x7] = arguments;
    hypervisor.call([u64::from(op.0) | u64::from(flags.0) << 32, slot, x3, x4, x5, x6, x7])
}

/// A dump of the first `pages` pages of the guest.
fn dump<const SHIFT: u32>(hypervisor: &Paged<SHIFT>, flags: DumpFlags, slot: u64, pages: u64, budget: u64) -> Answer {
    call(hypervisor, Op::DUMP, flags, slot, [VM, 0, pages << SHIFT, budget, 0])
}

fn assert_status(answer: &Answer, status: Status) {
    assert_eq!(answer.status, u64::from(status.0));
}

/// How many records, and descriptors, a call at a budget comes to: for packed dumps, words.
fn counts<const SHIFT: u32>(shape_name: &str, slot: u64, flags: DumpFlags, budget: u64) -> (u32, u32) {
    let answer = dump(&scattered::<SHIFT>(shape_name, 8192), flags, slot, 8192, budget);
    assert_status(&answer, Status::OK);
    let used = answer.header().unwrap().used_bytes().unwrap();
    assert!(used <= if flags.contains(DumpFlags::PACKED) { SLOT_BYTES } else { PLAIN_SLOT_BYTES }, "{used} bytes");
    unpack_counts(answer.x3)
}

/// With larger pages the same call reads as much, and writes as much: but for the tables on the way, which are fewer.
#[test]
fn good_calls_do_the_same_with_all_pages() {
    for flags in [DumpFlags::default(), DumpFlags::EXACT, DumpFlags::EXACT.union(DumpFlags::DIGEST)] {
        for budget in [0, 100, u64::MAX] {
            let small = counts::<12>("4k_39_one_root", SLOT_PFN, flags, budget);
            let medium = counts::<14>("16k_48_two_roots", SLOT_PFN, flags, budget);
            let large = counts::<16>("64k_43_two_roots", SLOT_PFN, flags, budget);
            assert_eq!((small.0, small.0), (medium.0, large.0), "{flags:?}, {budget}");
            assert!(large.1 <= small.1 && medium.1 <= small.1 && small.1 <= MAX_BUDGET);
        }
    }
    // Lists end with their table page: those of small pages are more. The slot is full before the cap is reached.
    let (words, _) = counts::<14>("16k_48_two_roots", SLOT_PFN, PACKED, u64::MAX);
    assert_eq!(words, counts::<16>("64k_43_two_roots", SLOT_PFN, PACKED, u64::MAX).0);
    assert!((2000..=2032).contains(&words), "{words}");
    assert!(counts::<12>("4k_39_one_root", slot_pages(SLOT_PFN, 4), PACKED, u64::MAX).0 <= 2032);
}

fn assert_slot_is_one_page<const SHIFT: u32>(shape_name: &str) {
    let hypervisor = scattered::<SHIFT>(shape_name, 64);
    for pages in [2, 4, 5, 256] {
        let answer = dump(&hypervisor, PACKED, slot_pages(SLOT_PFN, pages), 64, 0);
        assert_status(&answer, Status::SLOT_NOT_SHARED);
    }
    assert_eq!(hypervisor.locks.get(), 0, "no lock for nothing");
    assert_status(&dump(&hypervisor, PACKED, slot_pages(SLOT_PFN, 1), 64, 0), Status::OK);
}

#[test]
fn bad_further_pages_where_one_is_a_slot() {
    assert_slot_is_one_page::<14>("16k_48_two_roots");
    assert_slot_is_one_page::<16>("64k_43_two_roots");
}

fn assert_plain_slots_are_small<const SHIFT: u32>(shape_name: &str) {
    // An atomic dump has no budget for its records: only the slot bounds them.
    let hypervisor = scattered::<SHIFT>(shape_name, 200);
    let atomic = |pages| dump(&hypervisor, DumpFlags::ATOMIC, SLOT_PFN, pages, 0);
    let full = atomic(SLOT_RECORDS as u64);
    assert_eq!(full.header().unwrap().used_bytes(), Some(PLAIN_SLOT_BYTES));
    assert_status(&atomic(SLOT_RECORDS as u64 + 1), Status::TOO_BIG);

    let mut hypervisor = scattered::<SHIFT>(shape_name, 1);
    hypervisor.facts = (300, 300);
    let facts = call(&hypervisor, Op::FACTS, DumpFlags::default(), SLOT_PFN, [0; 5]);
    assert_eq!((facts.facts().len(), facts.x2), (SLOT_FACTS, SLOT_FACTS as u64));

    let small_table = || Tables::new(shape("4k_16_pages_only"));
    let hypervisor = Paged::<SHIFT>::new((0..100).map(|n| (HANDLE + n, small_table())));
    let list = call(&hypervisor, Op::LIST, DumpFlags::default(), SLOT_PFN, [0; 5]);
    assert!(list.vms().len() <= SLOT_VMS, "{}", list.vms().len());
}

#[test]
fn good_other_slots_are_as_small_as_with_small_pages() {
    assert_plain_slots_are_small::<12>("4k_39_one_root");
    assert_plain_slots_are_small::<14>("16k_48_two_roots");
    assert_plain_slots_are_small::<16>("64k_43_two_roots");
}

fn assert_examines_whole_pages<const SHIFT: u32>(shape_name: &str) {
    let mut hypervisor = scattered::<SHIFT>(shape_name, 8);
    let pa = 0x9000_0000;
    hypervisor.memory = vec![(pa, 2, Some((0..2).map(|n| AtomicU64::new(0x300 + n)).collect()))];
    let page = 1 << SHIFT;
    let examine = |frame, address| {
        let place = Place::new(Target::guest(HANDLE), address).unwrap();
        call(&hypervisor, Op::EXAMINE, DumpFlags::default(), SLOT_PFN, [frame, place.0, 0, 0, 0])
    };
    for within in [0x800, page / 2, page - 1] {
        assert_status(&examine(pa + within, 0), Status::BAD_RANGE);
    }
    // An address within a page is that of the page.
    let leaf = |record: &Record| (record.ia, record.oa);
    let expected = (3 << SHIFT, (3 * 7919) << SHIFT);
    for within in [0, page - 0x1000] {
        let answer = examine(pa + page, (3 << SHIFT) + within);
        assert_status(&answer, Status::OK);
        let (header, records) = (answer.header().unwrap(), answer.records());
        assert_eq!((u32::from(header.page_shift), header.start, header.next), (SHIFT, pa + page, pa + 2 * page));
        assert_eq!(records[0].descriptor, 0x301, "the state of the second frame");
        assert_eq!(records.last().map(leaf), Some(expected));
    }
    assert_eq!(examine(pa + 2 * page, 0).records()[0].kind, 7, "no memory, no state: the place comes first");
}

#[test]
fn good_examined_pages() {
    assert_examines_whole_pages::<12>("4k_39_one_root");
    assert_examines_whole_pages::<14>("16k_48_two_roots");
    assert_examines_whole_pages::<16>("64k_43_two_roots");
}

#[test]
fn good_default_budget_is_the_same() {
    let answer = dump(&scattered::<14>("16k_48_two_roots", 64), DumpFlags::default(), SLOT_PFN, 64, 0);
    assert_eq!(answer.header().unwrap().budget, DEFAULT_BUDGET);
}
