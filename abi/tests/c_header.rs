// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! The copies of our numbers that C needs (`linux/s2dump_abi.h`) are ours.

use s2dump_abi::hypercall::{Op, Status, ATOMIC_BUDGET, LIST_BUDGET};
use s2dump_abi::slot::{encoding, slot_flags, table_features, vm_flags, RecordKind, SlotHeader, SLOT_RECORDS};
use s2dump_abi::target::{TargetKind, FIRST_HANDLE, HANDLES, KIND_SHIFT};

const HEADER: &str = include_str!("../../linux/s2dump_abi.h");

/// Returns what Rust says a C name is.
fn ours(name: &str) -> Option<u64> {
    Some(match name {
        "OP_HELLO" => Op::HELLO.0.into(),
        "OP_LIST" => Op::LIST.0.into(),
        "OP_DUMP" => Op::DUMP.0.into(),
        "OP_WALK" => Op::WALK.0.into(),
        "ATOMIC_BUDGET" => ATOMIC_BUDGET.into(),
        "LIST_BUDGET" => LIST_BUDGET.into(),
        "UNKNOWN_TARGET" => Status::UNKNOWN_TARGET.0.into(),
        "ATOMIC_NOT_PERMITTED" => Status::ATOMIC_NOT_PERMITTED.0.into(),
        "TARGET_KIND_SHIFT" => KIND_SHIFT.into(),
        "TARGET_GUEST_STAGE2" => TargetKind::GUEST_STAGE2.0.into(),
        "FIRST_HANDLE" => FIRST_HANDLE.into(),
        "HANDLES" => HANDLES.into(),
        "SLOT_PROTECTED" => slot_flags::PROTECTED.into(),
        "SLOT_DYING" => slot_flags::DYING.into(),
        "BAD_GEOMETRY" => Status::BAD_GEOMETRY.0.into(),
        "OK" => Status::OK.0.into(),
        "NOT_PERMITTED" => Status::NOT_PERMITTED.0.into(),
        "NO_SUCH_VM" => Status::NO_SUCH_VM.0.into(),
        "HEADER_BYTES" => size_of::<SlotHeader>() as u64,
        "SLOT_RECORDS" => SLOT_RECORDS as u64,
        "TABLE_LPA2" => table_features::LPA2.into(),
        "TABLE_FWB" => table_features::FWB.into(),
        "TABLE_XNX" => table_features::XNX.into(),
        "TABLE_HVHE" => table_features::HVHE.into(),
        "ENCODING_PKVM_7_2" => encoding::PKVM_7_2.into(),
        "VM_PROTECTED" => vm_flags::PROTECTED.into(),
        "VM_CREATED" => vm_flags::CREATED.into(),
        "VM_DYING" => vm_flags::DYING.into(),
        "RECORD_LEAF" => RecordKind::LEAF.0.into(),
        _ => return None,
    })
}

/// Evaluates `7`, `124U` and `BIT(3)`.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("BIT(").and_then(|rest| rest.strip_suffix(')')) {
        Some(bit) => Some(1 << bit.parse::<u32>().ok()?),
        None => text.trim_end_matches('U').parse().ok(),
    }
}

#[test]
fn each_define_is_one_of_ours() {
    let mut count = 0;
    for line in HEADER.lines().filter_map(|line| line.strip_prefix("#define S2DUMP_")) {
        let (name, value) = line.split_once(char::is_whitespace).expect("a name and a value");
        assert_eq!(number(value.trim()), ours(name), "S2DUMP_{name}: C left, Rust right");
        count += 1;
    }
    assert!(count >= 10, "found {count} of the defines: has the header another form now?");
}
