// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Structs that C and Rust share have their fields at the same places: what each side asserts when it is built is compared
//! here, so that one side cannot move a field, its own assertion with it, without the other.

use s2dump_abi::slot::{Fact, MemorySlot, Record, SlotHeader, VmRecord};
use std::collections::BTreeSet;
use std::mem::offset_of;

const ABI_H: &str = include_str!("../../linux/s2dump_abi.h");
const EL1_H: &str = include_str!("../../linux/s2dump_el1.h");
const EL2_H: &str = include_str!("../../linux/s2dump_el2.h");
const EL2_RS: &str = include_str!("../../linux/el2/s2dump_el2.rs");
const FILE_RS: &str = include_str!("../../host-driver/src/file.rs");
const SESSION_H: &str = include_str!("../../linux/without-rust/s2dump_session.h");
const SESSION_RS: &str = include_str!("../../linux/without-rust/s2dump_session.rs");
const HOST_RS: &str = include_str!("../../host-driver/src/host.rs");

/// A field and where it is; the size of the struct has no name.
type Places = BTreeSet<(String, usize)>;

/// Returns what stands between each `before` and the next `after`.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Vec<&'a str> {
    text.split(before).skip(1).filter_map(|rest| Some(rest.split_once(after)?.0)).collect()
}

/// Returns what C asserts of `struct NAME`.
fn of_c(header: &str, name: &str) -> Places {
    let number = |text: &str| match text {
        "S2DUMP_HEADER_BYTES" => size_of::<SlotHeader>(),
        digits => digits.parse().expect("a number"),
    };
    let mut places = Places::new();
    for text in between(header, &format!("static_assert(offsetof(struct {name}, "), ");") {
        let (field, place) = text.split_once(") == ").expect("a field and its place");
        places.insert((field.to_owned(), number(place)));
    }
    for size in between(header, &format!("static_assert(sizeof(struct {name}) == "), ");") {
        places.insert((String::new(), number(size)));
    }
    assert!(places.len() > 2, "struct {name}: {places:?}");
    places
}

/// Returns what Rust asserts of `name`.
fn of_rust(source: &str, name: &str) -> Places {
    let number =
        |text: &str| text.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default().parse().expect("a number");
    let mut places = Places::new();
    for rest in source.split(&format!("offset_of!({name}, ")).skip(1) {
        let (field, place) = rest.split_once(") == ").expect("a field and its place");
        places.insert((field.to_owned(), number(place)));
    }
    for rest in source.split(&format!("size_of::<{name}>() == ")).skip(1) {
        places.insert((String::new(), number(rest)));
    }
    places
}

macro_rules! places {
    ($t:ty, $($field:ident),+) => {
        [$((stringify!($field).to_owned(), offset_of!($t, $field)),)+ (String::new(), size_of::<$t>())].into()
    };
}

#[test]
fn good_records_of_c_are_those_of_rust() {
    let header: Places = places!(SlotHeader, version, header_bytes, record_bytes, kind, flags, record_count, visited);
    assert_eq!(of_c(ABI_H, "s2dump_slot_header"), header);
    let record: Places = places!(Record, ia, oa, descriptor, count, level, kind, flags);
    assert_eq!(of_c(ABI_H, "s2dump_record"), record);
    let vm: Places =
        places!(VmRecord, vtcr, root, pid, vcpus, handle, flags, ia_bits, start_level, vmid, name, reserved);
    assert_eq!(of_c(EL2_H, "s2dump_vm_record"), vm);
    let fact: Places = places!(Fact, start, size, value, kind, flags, reserved);
    assert_eq!(of_c(EL2_H, "s2dump_fact"), fact);
    let memory: Places = places!(MemorySlot, ia, size, hva, flags, id, reserved);
    assert_eq!(of_c(ABI_H, "s2dump_memory_slot"), memory);
}

#[test]
fn good_twins_assert_the_same() {
    for (header, c, source, rust) in [
        (EL2_H, "s2dump_el2_table", EL2_RS, "CTable"),
        (EL2_H, "s2dump_el2_vm", EL2_RS, "CVm"),
        (EL2_H, "s2dump_el2_region", EL2_RS, "CRegion"),
        (EL1_H, "s2dump_el1_vm", HOST_RS, "HostVm"),
    ] {
        assert_eq!(of_c(header, c), of_rust(source, rust), "struct {c} left, {rust} right");
    }
}

#[test]
fn good_words_of_the_gate() {
    for (c, rust) in [
        ("CALLS\tBIT(0)", "CALLS: u32 = 1 << 0;"),
        ("ATOMIC\tBIT(1)", "ATOMIC: u32 = 1 << 1;"),
        ("HYP\tBIT(2)", "HYP: u32 = 1 << 2;"),
    ] {
        assert!(EL2_H.contains(&format!("#define S2DUMP_PERMIT_{c}")), "{c}");
        assert!(EL2_RS.contains(&format!("const PERMIT_{rust}")), "{rust}");
    }
}

/// What a session needs of the C device: as many slots as a ring has, and room for what Rust keeps.
#[test]
fn good_numbers_of_the_device_without_rust() {
    for (c, source, rust) in [
        ("S2DUMP_SLOTS\t\t8\n", FILE_RS, "pub const SLOTS: u32 = 8;"),
        ("S2DUMP_SESSION_BYTES\t256\n", SESSION_RS, "const SESSION_WORDS: usize = 256 / 8;"),
    ] {
        assert!(SESSION_H.contains(&format!("#define {c}")), "{c}");
        assert!(source.contains(rust), "{rust}");
    }
}

/// Each function that one side calls, the other side declares.
#[test]
fn good_functions_of_the_device_without_rust() {
    let words = |text: &'static str| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let of = |text, prefix: &str| words(text).filter(|w| w.starts_with(prefix)).collect::<BTreeSet<_>>();
    let from_rust = between(SESSION_RS, "extern \"C\" {", "\n}").concat();
    let from_rust: &'static str = from_rust.leak();
    assert_eq!(of(from_rust, "s2dump_device_"), of(SESSION_H, "s2dump_device_"));
    let (defined, declared) = (of(SESSION_RS, "s2dump_session_"), of(SESSION_H, "s2dump_session_"));
    assert!(!declared.is_empty() && declared.is_superset(&defined), "{defined:?} {declared:?}");
}
