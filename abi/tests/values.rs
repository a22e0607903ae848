// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Values from the other side: unknown ones survive, and wrong lengths are noticed.

use s2dump_abi::hypercall::{pack_counts, unpack_counts, DumpFlags, Op, Status};
use s2dump_abi::slot::{
    slot_pages_of, Record, RecordKind, SlotHeader, SlotKind, VmRecord, MAX_SLOT_BYTES, PLAIN_SLOT_BYTES, SLOT_BYTES,
    SLOT_RECORDS, SLOT_VMS,
};
use s2dump_abi::target::{Target, TargetKind};
use s2dump_abi::version::{AbiVersion, ABI_VERSION};
use zerocopy::{FromZeros, IntoBytes};

fn header(header_bytes: u16, record_bytes: u16, record_count: u32) -> SlotHeader {
    SlotHeader { header_bytes, record_bytes, record_count, ..SlotHeader::new_zeroed() }
}

#[test]
fn used_bytes_within_a_slot() {
    let cases = [
        ("empty", header(128, 0, 0), 128),
        ("one record", header(128, 32, 1), 160),
        ("full of records", header(128, 32, u32::try_from(SLOT_RECORDS).unwrap()), PLAIN_SLOT_BYTES),
        ("full of VMs", header(128, 64, u32::try_from(SLOT_VMS).unwrap()), PLAIN_SLOT_BYTES),
        ("full of words", header(128, 8, 2032), SLOT_BYTES),
        ("the longest of other drivers", header(128, 8, 8176), MAX_SLOT_BYTES),
        ("a longer header of a newer writer", header(192, 48, 3), 336),
        ("records of no bytes", header(128, 0, u32::MAX), 128),
        ("nothing but header", header(4096, 32, 0), PLAIN_SLOT_BYTES),
    ];
    for (case, header, expected) in cases {
        assert_eq!(header.used_bytes(), Some(expected), "{case}");
    }
}

#[test]
fn used_bytes_refuses_what_cannot_be() {
    let cases = [
        ("no header", header(0, 32, 1)),
        ("a header one byte short", header(127, 32, 1)),
        ("one record too many", header(128, 8, 8177)),
        ("one byte too many", header(129, 8, 8176)),
        ("the largest numbers", header(u16::MAX, u16::MAX, u32::MAX)),
    ];
    for (case, header) in cases {
        assert_eq!(header.used_bytes(), None, "{case}");
    }
}

#[test]
fn slots_are_filled_to_the_last_byte() {
    assert_eq!(size_of::<SlotHeader>() + SLOT_RECORDS * size_of::<Record>(), PLAIN_SLOT_BYTES);
    assert_eq!(size_of::<SlotHeader>() + SLOT_VMS * size_of::<VmRecord>(), PLAIN_SLOT_BYTES);
}

/// A slot has 16 KiB at least, in whole pages of any size.
#[test]
fn slots_are_whole_pages() {
    for (page_bytes, pages) in [(4096, 4), (16384, 1), (65536, 1)] {
        assert_eq!(slot_pages_of(page_bytes), pages);
        assert!((SLOT_BYTES..=MAX_SLOT_BYTES).contains(&(pages * page_bytes)));
    }
}

#[test]
fn unknown_values_survive() {
    // A reader of version 1.0 gets these from a later 1.x, keeps them, and gives them on unchanged.
    let record = Record { kind: 200, flags: 0x8000, level: -1, ..Record::new_zeroed() };
    assert_eq!(RecordKind(record.kind).0, 200);
    assert_eq!(record.as_bytes()[28..], [0xff, 200, 0x00, 0x80]);
    assert_eq!((SlotKind(77).0, Op(9).0, TargetKind(255).0), (77, 9, 255));
    assert_ne!(SlotKind(77), SlotKind::END);
    let flags = DumpFlags(1 << 31).union(DumpFlags::EXACT);
    assert_eq!(flags.0, 1 << 31 | 1);
    assert!(!DumpFlags::KNOWN.contains(flags) && flags.contains(DumpFlags::EXACT));
}

#[test]
fn only_success_is_errno_zero() {
    assert_eq!(Status::OK.to_errno(), 0);
    for status in (1..64).chain([u32::MAX]).map(Status) {
        // Linux errnos are 1..=4095; what these lists hold is small.
        assert!((1..=133).contains(&status.to_errno()), "{status:?}");
    }
}

#[test]
fn counts_round_trip() {
    for (records, visited) in [(0, 0), (124, 4096), (u32::MAX, 0), (0, u32::MAX), (u32::MAX, u32::MAX)] {
        assert_eq!(unpack_counts(pack_counts(records, visited)), (records, visited));
    }
    assert_eq!(pack_counts(2, 3), 0x3_0000_0002);
}

#[test]
fn versions() {
    let (one_two, two_zero) = (AbiVersion { major: 1, minor: 2 }, AbiVersion { major: 2, minor: 0 });
    assert_eq!(one_two.to_bits(), 0x0001_0002);
    for bits in [0, 0x0001_0002, u32::MAX, 0xffff_0000] {
        assert_eq!(AbiVersion::from_bits(bits).to_bits(), bits);
    }
    let two_seven = AbiVersion { major: 2, minor: 7 };
    assert!(two_zero.can_speak_to(two_seven) && two_seven.can_speak_to(two_zero), "any minor");
    assert!(!two_zero.can_speak_to(one_two) && !one_two.can_speak_to(two_zero), "no other major");
    let (zero, three) = (AbiVersion { major: 0, minor: 9 }, AbiVersion { major: 3, minor: 0 });
    assert!([one_two, two_zero, two_seven].iter().all(|&written| two_zero.can_read(written)), "and older majors");
    assert_eq!(ABI_VERSION, three);
    assert!(!two_zero.can_read(three) && !two_zero.can_read(zero) && !one_two.can_read(two_zero), "not newer ones");
}

#[test]
fn targets() {
    for handle in [0, 1, 0x1000, 0x10fe, u16::MAX] {
        assert_eq!(Target::guest(handle).guest_handle(), Some(handle));
        assert_eq!(Target::guest(handle).kind(), TargetKind::GUEST_STAGE2);
    }
    // Reserved bits at both ends of their field, and kinds this version does not have.
    for bits in [1 << 16, 1 << 55, Target::HOST.0, Target::HYP.0, 3 << 56, u64::MAX] {
        assert_eq!(Target(bits | 0x1000).guest_handle(), None, "{bits:#x}");
    }
    assert_eq!(Target::HOST.kind(), TargetKind::HOST_STAGE2);
    assert_eq!(Target(0x0200_0000_0000_0000).kind(), TargetKind::HYP_STAGE1);
}
