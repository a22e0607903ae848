// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Compares every struct with bytes written by hand, in both directions.
//!
//! The value of each byte is its offset, plus a base that differs by struct. So a field that moved, grew or changed its
//! byte order cannot pass by luck.

use s2dump_abi::ioctl::{Advance, Hello, Start};
use s2dump_abi::slot::{Fact, FrameRecord, MemorySlot, PackedRun, Record, SlotHeader, VmRecord, SLOT_MAGIC};
use s2dump_abi::target::{Place, Target};
use static_assertions::{assert_eq_align, assert_impl_all, const_assert_eq};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

// Everything is Copy and free of padding (IntoBytes), and any bytes are a value (FromBytes).
assert_impl_all!(SlotHeader: Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Send, Sync);
assert_impl_all!(Record: Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Send, Sync);
assert_impl_all!(PackedRun: Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Send, Sync);
assert_impl_all!(FrameRecord: Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Send, Sync);
assert_impl_all!(Fact: Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Send, Sync);
assert_impl_all!(VmRecord: Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Send, Sync);
assert_impl_all!(Hello: Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Send, Sync);
assert_impl_all!(Start: Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Send, Sync);
assert_impl_all!(Advance: Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Send, Sync);
// Records follow a header at any count, in place.
assert_eq_align!(SlotHeader, Record, PackedRun, FrameRecord, Fact, VmRecord);
const_assert_eq!(size_of::<SlotHeader>() % size_of::<Record>(), 0);
const_assert_eq!(size_of::<SlotHeader>() % size_of::<VmRecord>(), 0);

/// Returns `N` ascending bytes from `first` on.
fn ascending<const N: usize>(first: u8) -> [u8; N] {
    core::array::from_fn(|i| first.wrapping_add(u8::try_from(i).unwrap()))
}

#[track_caller]
fn assert_same<T, const N: usize>(value: &T, bytes: [u8; N])
where
    T: FromBytes + IntoBytes + Immutable + PartialEq + core::fmt::Debug,
{
    assert_eq!(value.as_bytes(), bytes, "struct -> bytes");
    assert_eq!(&T::read_from_bytes(&bytes).unwrap(), value, "bytes -> struct");
}

#[test]
fn slot_header() {
    let header = SlotHeader {
        magic: 0x0302_0100,
        version: 0x0706_0504,
        header_bytes: 0x0908,
        record_bytes: 0x0b0a,
        kind: 0x0d0c,
        flags: 0x0f0e,
        record_count: 0x1312_1110,
        visited: 0x1716_1514,
        sequence: 0x1f1e_1d1c_1b1a_1918,
        target: 0x2726_2524_2322_2120,
        start: 0x2f2e_2d2c_2b2a_2928,
        next: 0x3736_3534_3332_3130,
        end: 0x3f3e_3d3c_3b3a_3938,
        vtcr: 0x4746_4544_4342_4140,
        root: 0x4f4e_4d4c_4b4a_4948,
        digest: 0x5756_5554_5352_5150,
        table_features: 0x5b5a_5958,
        ia_bits: 0x5c,
        start_level: 0x5d,
        page_shift: 0x5e,
        pa_bits: 0x5f,
        encoding: 0x6160,
        vmid: 0x6362,
        budget: 0x6766_6564,
        status: 0x6b6a_6968,
        held_ticks: 0x6f6e_6d6c,
        tick_hz: 0x7372_7170,
        reserved: 0x7776_7574,
        mair: 0x7f7e_7d7c_7b7a_7978,
    };
    assert_same(&header, ascending::<128>(0));
}

#[test]
fn record() {
    let record = Record {
        ia: 0x8786_8584_8382_8180,
        oa: 0x8f8e_8d8c_8b8a_8988,
        descriptor: 0x9796_9594_9392_9190,
        count: 0x9b9a_9998,
        level: -0x64, // 0x9c
        kind: 0x9d,
        flags: 0x9f9e,
    };
    assert_same(&record, ascending::<32>(0x80));
}

#[test]
fn packed_run() {
    let run = PackedRun { ia: 0x1716_1514_1312_1110, count: 0x1b1a_1918, level: 0x1c, kind: 0x1d, flags: 0x1f1e };
    assert_same(&run, ascending::<16>(0x10));
}

#[test]
fn frame_record() {
    let frames = FrameRecord {
        pa: 0x2726_2524_2322_2120,
        raw: 0x2f2e_2d2c_2b2a_2928,
        count: 0x3332_3130,
        flags: 0x3534,
        reserved: 0x3736,
    };
    assert_same(&frames, ascending::<24>(0x20));
}

#[test]
fn fact() {
    let fact = Fact {
        start: 0x3736_3534_3332_3130,
        size: 0x3f3e_3d3c_3b3a_3938,
        value: 0x4746_4544_4342_4140,
        kind: 0x4948,
        flags: 0x4b4a,
        reserved: 0x4f4e_4d4c,
    };
    assert_same(&fact, ascending::<32>(0x30));
}

#[test]
fn memory_slot() {
    let memory = MemorySlot {
        ia: 0x1716_1514_1312_1110,
        size: 0x1f1e_1d1c_1b1a_1918,
        hva: 0x2726_2524_2322_2120,
        flags: 0x2b2a_2928,
        id: 0x2d2c,
        reserved: 0x2f2e,
    };
    assert_same(&memory, ascending::<32>(0x10));
}

/// Each field of a place in turn, and what cannot be a place.
#[test]
fn place() {
    for (target, address, bits) in [
        (Target::guest(0x10fe), 0xf_ffff_ffff_f000, 0x0010_feff_ffff_ffff),
        (Target::guest(0x1000), 0x8000_1abc, 0x0010_0000_0008_0001),
        (Target::HOST, 0x4000_0000, 0x0100_0000_0004_0000),
        (Target::HYP, 0, 0x0200_0000_0000_0000),
    ] {
        let place = Place::new(target, address).unwrap();
        assert_eq!(place.0, bits);
        assert_eq!((place.target(), place.address()), (target, address & !0xfff));
    }
    assert_eq!(Place::new(Target(1 << 16), 0), None, "a reserved bit");
    assert_eq!(Place::new(Target::HOST, 1 << 52), None, "too high");
}

#[test]
fn vm_record() {
    let vm = VmRecord {
        vtcr: 0x4746_4544_4342_4140,
        root: 0x4f4e_4d4c_4b4a_4948,
        pid: 0x5352_5150,
        vcpus: 0x5756_5554,
        handle: 0x5958,
        flags: 0x5b5a,
        ia_bits: 0x5c,
        start_level: 0x5d,
        vmid: 0x5f5e,
        name: *b"`abcdefghijklmnopqrstuvw", // 0x60..0x78
        reserved: [0x7b7a_7978, 0x7f7e_7d7c],
    };
    assert_same(&vm, ascending::<64>(0x40));
}

#[test]
fn hello() {
    let hello = Hello {
        size: 0x1312_1110,
        version: 0x1716_1514,
        features: 0x1f1e_1d1c_1b1a_1918,
        el2_version: 0x2322_2120,
        default_budget: 0x2726_2524,
        slots: 0x2b2a_2928,
        slot_bytes: 0x2f2e_2d2c,
        status: 0x3332_3130,
        page_bytes: 0x3736_3534,
        reserved: [0x3b3a_3938, 0x3f3e_3d3c, 0x4342_4140, 0x4746_4544, 0x4b4a_4948, 0x4f4e_4d4c],
    };
    assert_same(&hello, ascending::<64>(0x10));
}

#[test]
fn start() {
    let start = Start {
        size: 0x2322_2120,
        version: 0x2726_2524,
        op: 0x2b2a_2928,
        flags: 0x2f2e_2d2c,
        target: 0x3736_3534_3332_3130,
        start: 0x3f3e_3d3c_3b3a_3938,
        end: 0x4746_4544_4342_4140,
        budget: 0x4b4a_4948,
        status: 0x4f4e_4d4c,
        root: 0x5756_5554_5352_5150,
        places: [0x5f5e_5d5c_5b5a_5958, 0x6766_6564_6362_6160, 0x6f6e_6d6c_6b6a_6968],
        reserved: [0x7776_7574_7372_7170, 0x7f7e_7d7c_7b7a_7978],
    };
    assert_same(&start, ascending::<96>(0x20));
}

#[test]
fn advance() {
    let advance = Advance {
        size: 0x3332_3130,
        version: 0x3736_3534,
        release: 0x3b3a_3938,
        first: 0x3f3e_3d3c,
        filled: 0x4342_4140,
        state: 0x4746_4544,
        reserved: [0x4b4a_4948, 0x4f4e_4d4c],
    };
    assert_same(&advance, ascending::<32>(0x30));
}

#[test]
fn magic_reads_as_text_in_a_hex_dump() {
    assert_eq!(SLOT_MAGIC.as_bytes(), b"S2D\x1a");
}
