// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Compares the copies of our numbers that C needs (`linux/s2dump_abi.h`) with the originals.
//!
//! The test reads the little of C that the header uses. It fails on anything else, because it could not compare that.

use s2dump_abi::hypercall::{DumpFlags, Op, Status, ATOMIC_BUDGET, DEFAULT_BUDGET, LIST_BUDGET, MAX_BUDGET};
use s2dump_abi::slot::{
    encoding, fact_flags, slot_flags, slot_pages_of, table_features, vm_flags, FactKind, RecordKind, SlotHeader,
    SlotKind, PLAIN_SLOT_BYTES, SLOT_BYTES, SLOT_MAGIC, SLOT_RECORDS,
};
use s2dump_abi::target::{TargetKind, FIRST_HANDLE, HANDLES, KIND_SHIFT};

const HEADER: &str = include_str!("../../linux/s2dump_abi.h");
/// How many pages a slot has: the only value that depends on the kernel. Compared for pages of so many bytes.
const SLOT_PAGES: &str = "DIV_ROUND_UP(S2DUMP_SLOT_BYTES, PAGE_SIZE)";
const PAGE_BYTES: usize = 4096;
/// The guard, which keeps the header from being read twice.
const GUARD: &str = "__ARM64_KVM_S2DUMP_ABI_H";

/// Returns what Rust says a C name is, without the `S2DUMP_` of all of them.
fn ours(name: &str) -> Option<u64> {
    Some(match name {
        "OP_HELLO" => Op::HELLO.0.into(),
        "OP_LIST" => Op::LIST.0.into(),
        "OP_DUMP" => Op::DUMP.0.into(),
        "OP_WALK" => Op::WALK.0.into(),
        "FLAG_EXACT" => DumpFlags::EXACT.0.into(),
        "FLAG_ATOMIC" => DumpFlags::ATOMIC.0.into(),
        "FLAG_DIGEST" => DumpFlags::DIGEST.0.into(),
        "FLAG_TABLES" => DumpFlags::TABLES.0.into(),
        "FLAG_PACKED" => DumpFlags::PACKED.0.into(),
        "DEFAULT_BUDGET" => DEFAULT_BUDGET.into(),
        "MAX_BUDGET" => MAX_BUDGET.into(),
        "ATOMIC_BUDGET" => ATOMIC_BUDGET.into(),
        "OK" => Status::OK.0.into(),
        "NOT_PERMITTED" => Status::NOT_PERMITTED.0.into(),
        "UNKNOWN_OP" => Status::UNKNOWN_OP.0.into(),
        "UNKNOWN_FLAG" => Status::UNKNOWN_FLAG.0.into(),
        "UNKNOWN_TARGET" => Status::UNKNOWN_TARGET.0.into(),
        "NO_SUCH_VM" => Status::NO_SUCH_VM.0.into(),
        "VM_NOT_RUN" => Status::VM_NOT_RUN.0.into(),
        "BAD_RANGE" => Status::BAD_RANGE.0.into(),
        "SLOT_NOT_SHARED" => Status::SLOT_NOT_SHARED.0.into(),
        "TOO_BIG" => Status::TOO_BIG.0.into(),
        "VERSION_MISMATCH" => Status::VERSION_MISMATCH.0.into(),
        "BAD_GEOMETRY" => Status::BAD_GEOMETRY.0.into(),
        "VM_GONE" => Status::VM_GONE.0.into(),
        "BAD_ANSWER" => Status::BAD_ANSWER.0.into(),
        "SLOT_MAGIC" => SLOT_MAGIC.into(),
        "SLOT_RANGES" => SlotKind::RANGES.0.into(),
        "SLOT_WALK" => SlotKind::WALK.0.into(),
        "SLOT_VMS" => SlotKind::VMS.0.into(),
        "HEADER_BYTES" => size_of::<SlotHeader>() as u64,
        "SLOT_RECORDS" => SLOT_RECORDS as u64,
        "PLAIN_SLOT_BYTES" => PLAIN_SLOT_BYTES as u64,
        "SLOT_BYTES" => SLOT_BYTES as u64,
        "SLOT_PAGES" => slot_pages_of(PAGE_BYTES) as u64,
        "TABLE_LPA2" => table_features::LPA2.into(),
        "TABLE_FWB" => table_features::FWB.into(),
        "TABLE_XNX" => table_features::XNX.into(),
        "TABLE_HVHE" => table_features::HVHE.into(),
        "ENCODING_PKVM_7_2" => encoding::PKVM_7_2.into(),
        "ENCODING_PKVM_ANDROID_6_12" => encoding::PKVM_ANDROID_6_12.into(),
        "SLOT_PROTECTED" => slot_flags::PROTECTED.into(),
        "TARGET_KIND_SHIFT" => KIND_SHIFT.into(),
        "TARGET_GUEST_STAGE2" => TargetKind::GUEST_STAGE2.0.into(),
        "TARGET_HOST_STAGE2" => TargetKind::HOST_STAGE2.0.into(),
        "TARGET_HYP_STAGE1" => TargetKind::HYP_STAGE1.0.into(),
        "FIRST_HANDLE" => FIRST_HANDLE.into(),
        "HANDLES" => HANDLES.into(),
        "LIST_BUDGET" => LIST_BUDGET.into(),
        "ATOMIC_NOT_PERMITTED" => Status::ATOMIC_NOT_PERMITTED.0.into(),
        "HYP_NOT_PERMITTED" => Status::HYP_NOT_PERMITTED.0.into(),
        "SLOT_DYING" => slot_flags::DYING.into(),
        "VM_PROTECTED" => vm_flags::PROTECTED.into(),
        "VM_CREATED" => vm_flags::CREATED.into(),
        "VM_DYING" => vm_flags::DYING.into(),
        "FACT_MEMORY" => FactKind::MEMORY.0.into(),
        "FACT_HYP_TEXT" => FactKind::HYP_TEXT.0.into(),
        "FACT_FIXMAP" => FactKind::FIXMAP.0.into(),
        "FACT_FIXBLOCK" => FactKind::FIXBLOCK.0.into(),
        "FACT_HYP_PRIVATE" => FactKind::HYP_PRIVATE.0.into(),
        "FACT_HYP_VMEMMAP" => FactKind::HYP_VMEMMAP.0.into(),
        "FACT_HYP_LINEAR" => FactKind::HYP_LINEAR.0.into(),
        "FACT_NOMAP" => fact_flags::NOMAP.into(),
        "OP_FRAMES" => Op::FRAMES.0.into(),
        "OP_FACTS" => Op::FACTS.0.into(),
        "OP_EXAMINE" => Op::EXAMINE.0.into(),
        "RECORD_LEAF" => RecordKind::LEAF.0.into(),
        _ => return None,
    })
}

/// Evaluates `7`, `0x1000U` and `BIT(3)`, in parentheses or not.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    if text == SLOT_PAGES {
        return Some(SLOT_BYTES.div_ceil(PAGE_BYTES) as u64);
    }
    let inside = |before: &str| text.strip_prefix(before)?.strip_suffix(')');
    if let Some(value) = inside("(") {
        return number(value);
    }
    if let Some(bit) = inside("BIT(").or_else(|| inside("BIT_ULL(")) {
        return 1_u64.checked_shl(u32::try_from(number(bit)?).ok()?);
    }
    let digits = text.trim_end_matches(['U', 'L']);
    match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => digits.parse().ok(),
    }
}

/// Returns C without comments, and with continued lines in one.
fn bare(c: &str) -> Result<String, String> {
    let mut rest = c;
    let mut out = String::new();
    while let Some((code, comment)) = rest.split_once("/*") {
        let (_, after) = comment.split_once("*/").ok_or("a comment without end")?;
        out.push_str(code);
        rest = after;
    }
    out.push_str(rest);
    if out.contains("//") {
        return Err("a comment of the other kind".into());
    }
    Ok(out.replace("\\\n", " "))
}

/// Returns the names and values of the defines, the guard left out.
///
/// Understands defines of numbers, includes, the guard, structs and static assertions; every other line is an error.
fn defines(c: &str) -> Result<Vec<(String, u64)>, String> {
    let mut found = Vec::new();
    let mut in_struct = false;
    for line in bare(c)?.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let unread = || format!("cannot read {line:?}");
        let Some(directive) = line.strip_prefix('#') else {
            let begins = line.starts_with("struct ") && line.ends_with('{');
            let is_known = in_struct || begins || line.starts_with("static_assert(") && line.ends_with(");");
            // No number hides outside of a define.
            if !is_known || line.contains('=') && !line.starts_with("static_assert(") {
                return Err(unread());
            }
            in_struct = (in_struct || begins) && !line.starts_with('}');
            continue;
        };
        let mut words = directive.trim_start().splitn(3, char::is_whitespace);
        match (words.next(), words.next(), words.next()) {
            (Some("ifndef" | "define"), Some(GUARD), None)
            | (Some("include"), Some(_), None)
            | (Some("endif"), None, None) => {}
            (Some("define"), Some(name), Some(value)) => {
                let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
                let name = name.strip_prefix("S2DUMP_").filter(|name| name.chars().all(is_name)).ok_or_else(unread)?;
                found.push((name.to_owned(), number(value).ok_or_else(unread)?));
            }
            _ => return Err(unread()),
        }
    }
    Ok(found)
}

#[test]
fn each_define_is_one_of_ours() {
    let defines = defines(HEADER).unwrap();
    for (name, value) in &defines {
        assert_eq!(Some(*value), ours(name), "S2DUMP_{name}: C left, Rust right");
    }
    let there = HEADER.lines().filter(|line| line.starts_with("#define S2DUMP_")).count();
    assert_eq!(defines.len(), there, "all of the defines");
}

#[test]
fn good_c_is_read() {
    let c = "#ifndef __ARM64_KVM_S2DUMP_ABI_H\n#include <linux/bits.h>\n/* # define\n S2DUMP_NOT 1 */\n\
        #define S2DUMP_A 7\n# define\tS2DUMP_B\t( 0x10U )\n#define S2DUMP_C \\\n\tBIT(3) /* bit */\n\
        struct s2dump_a {\n\tu64 a;\n};\nstatic_assert(sizeof(struct s2dump_a) == 8);\n#endif /* guard */\n";
    let found = defines(c).unwrap();
    assert_eq!(found, [("A".to_owned(), 7), ("B".to_owned(), 16), ("C".to_owned(), 8)]);
}

#[test]
fn bad_c_is_not_skipped() {
    for c in [
        "#define S2DUMP_A\n",
        "#define S2DUMP_A seven\n",
        "#define S2DUMP_A(x) 7\n",
        "#define S2DUMP_A 7 + 1\n",
        "#define S2DUMP_A S2DUMP_B\n",
        "#define OTHER 7\n",
        "#if 1\n",
        "#undef S2DUMP_A\n",
        "enum { S2DUMP_A = 7 };\n",
        "enum s2dump {\n",
        "static const int s2dump_a = 7;\n",
        "struct s2dump_a {\n\tu8 a[S2DUMP_A = 7];\n};\n",
        "// #define S2DUMP_A 7\n",
        "/* #define S2DUMP_A 7\n",
    ] {
        assert!(defines(c).is_err(), "{c:?} was read as {:?}", defines(c));
    }
}
