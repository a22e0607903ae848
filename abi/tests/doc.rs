// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! `docs/abi.md` says what the source says: each struct, constant, errno and command number, in both directions.
//!
//! The tests read the text of the source, so a new constant without a row fails too. They believe the "Offset, length"
//! comments, which are checked elsewhere: offsets and sizes at compile time, lengths by the tiling test below.

use s2dump_abi::version::{AbiVersion, ABI_VERSION};
use s2dump_abi::{hypercall, ioctl, slot, target};

const PAGE: &str = include_str!("../../docs/abi.md");
const HYPERCALL: &str = include_str!("../src/hypercall.rs");
const IOCTL: &str = include_str!("../src/ioctl.rs");
const SLOT: &str = include_str!("../src/slot.rs");
const TARGET: &str = include_str!("../src/target.rs");
const VERSION: &str = include_str!("../src/version.rs");

/// Structs: heading in the page and in the source, source, size of the compiled type.
const STRUCTS: [(&str, &str, usize); 10] = [
    ("SlotHeader", SLOT, size_of::<slot::SlotHeader>()),
    ("Record", SLOT, size_of::<slot::Record>()),
    ("PackedRun", SLOT, size_of::<slot::PackedRun>()),
    ("FrameRecord", SLOT, size_of::<slot::FrameRecord>()),
    ("Fact", SLOT, size_of::<slot::Fact>()),
    ("MemorySlot", SLOT, size_of::<slot::MemorySlot>()),
    ("VmRecord", SLOT, size_of::<slot::VmRecord>()),
    ("Hello", IOCTL, size_of::<ioctl::Hello>()),
    ("Start", IOCTL, size_of::<ioctl::Start>()),
    ("Advance", IOCTL, size_of::<ioctl::Advance>()),
];

/// Sets of constants: heading in the page, line that opens the block in the source, source.
const SETS: [(&str, &str, &str); 16] = [
    ("Op", "impl Op {", HYPERCALL),
    ("DumpFlags", "impl DumpFlags {", HYPERCALL),
    ("Status", "impl Status {", HYPERCALL),
    ("Target", "impl TargetKind {", TARGET),
    ("features", "pub mod features {", VERSION),
    ("SlotKind", "impl SlotKind {", SLOT),
    ("slot_flags", "pub mod slot_flags {", SLOT),
    ("table_features", "pub mod table_features {", SLOT),
    ("encoding", "pub mod encoding {", SLOT),
    ("RecordKind", "impl RecordKind {", SLOT),
    ("record_flags", "pub mod record_flags {", SLOT),
    ("frame_flags", "pub mod frame_flags {", SLOT),
    ("FactKind", "impl FactKind {", SLOT),
    ("fact_flags", "pub mod fact_flags {", SLOT),
    ("memory_flags", "pub mod memory_flags {", SLOT),
    ("vm_flags", "pub mod vm_flags {", SLOT),
];

/// Returns the table under `### heading`, without its two head rows, as trimmed cells.
fn table(heading: &str) -> Vec<Vec<String>> {
    let title = format!("### {heading}");
    let rows: Vec<Vec<String>> = PAGE
        .lines()
        .skip_while(|line| *line != title)
        .skip(1)
        .take_while(|line| !line.starts_with('#'))
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect())
        .collect();
    assert!(!rows.is_empty(), "docs/abi.md has no table under `{title}`");
    rows
}

/// Returns the lines of the block that `opening` opens at the start of a line.
fn block<'a>(source: &'a str, opening: &'a str) -> impl Iterator<Item = &'a str> {
    let mut lines = source.lines().skip_while(move |line| *line != opening);
    assert!(lines.next().is_some(), "no `{opening}` in the source");
    lines.take_while(|line| *line != "}").map(str::trim)
}

/// Evaluates `7`, `0x1f` and `1 << 3`.
fn number(text: &str) -> Option<u64> {
    if let Some((left, right)) = text.split_once("<<") {
        return Some(number(left.trim())? << number(right.trim())?);
    }
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(&hex.replace('_', ""), 16).ok(),
        None => text.parse().ok(),
    }
}

/// Returns name and value of `pub const NAME: Type = VALUE;`, or of `= Self(VALUE);`.
fn constant(line: &str) -> Option<(String, u64)> {
    let (name, rest) = line.strip_prefix("pub const ")?.split_once(':')?;
    let value = rest.split_once('=')?.1.split(';').next()?.trim();
    let value = value.strip_prefix("Self(").and_then(|v| v.strip_suffix(')')).unwrap_or(value);
    Some((name.to_owned(), number(value)?))
}

/// Returns offset, length and name of each field of the struct, as its comments say.
fn fields(source: &str, name: &str) -> Vec<(usize, usize, String)> {
    let opening = format!("pub struct {name} {{");
    let mut found = Vec::new();
    let mut place = None;
    for line in block(source, &opening) {
        if let Some(comment) = line.strip_prefix("/// Offset ") {
            let (offset, rest) = comment.split_once(", length ").expect("`Offset N, length N:`");
            let length = rest.split(':').next().unwrap();
            place = Some((offset.parse().unwrap(), length.parse().unwrap()));
        } else if let Some(field) = line.strip_prefix("pub ") {
            let (offset, length) = place.take().unwrap_or_else(|| panic!("{name}: no offset comment at `{field}`"));
            found.push((offset, length, field.split(':').next().unwrap().to_owned()));
        }
    }
    found
}

#[test]
fn structs_are_documented_field_by_field() {
    for (name, source, _) in STRUCTS {
        let page: Vec<_> =
            table(name).iter().map(|r| (r[0].parse().unwrap(), r[1].parse().unwrap(), r[2].clone())).collect();
        assert_eq!(page, fields(source, name), "{name}: page left, source right");
    }
}

#[test]
fn fields_tile_their_struct() {
    for (name, source, size) in STRUCTS {
        let end = fields(source, name).iter().fold(0, |at, (offset, length, field)| {
            assert_eq!(*offset, at, "{name}.{field} does not start where the field before it ends");
            at + length
        });
        assert_eq!(end, size, "{name}: fields end before the struct does");
    }
}

#[test]
fn constants_are_documented_one_by_one() {
    for (name, opening, source) in SETS {
        let page: Vec<_> = table(name).iter().map(|r| (r[0].clone(), number(&r[1]).unwrap())).collect();
        let code: Vec<_> = block(source, opening).filter_map(constant).collect();
        assert_eq!(page, code, "{name}: page left, source right");
    }
    let page: Vec<_> = table("SessionState").iter().map(|r| (r[0].clone(), number(&r[1]).unwrap())).collect();
    let code: Vec<_> = block(IOCTL, "impl SessionState {").filter_map(constant).collect();
    assert_eq!(page, code);
}

#[test]
fn each_status_has_its_errno() {
    for row in table("Status") {
        let status = hypercall::Status(row[1].parse().unwrap());
        let errno: i32 = row[2].split(' ').next().unwrap().parse().unwrap();
        assert_eq!(status.to_errno(), errno, "{}", row[0]);
    }
    assert_eq!(hypercall::Status(u32::MAX).to_errno(), 5, "a status from the future reads as EIO");
}

#[test]
fn limits_and_commands_are_documented() {
    let AbiVersion { major, minor } = ABI_VERSION;
    assert!(PAGE.contains(&format!("\n# The ABI of s2dump, version {major}.{minor}\n")));
    let computed = [
        ("Budgets", "DEFAULT_BUDGET", u64::from(hypercall::DEFAULT_BUDGET)),
        ("Budgets", "MIN_BUDGET", u64::from(hypercall::MIN_BUDGET)),
        ("Budgets", "MAX_BUDGET", u64::from(hypercall::MAX_BUDGET)),
        ("Budgets", "ATOMIC_BUDGET", u64::from(hypercall::ATOMIC_BUDGET)),
        ("Budgets", "LIST_BUDGET", u64::from(hypercall::LIST_BUDGET)),
        ("Handles", "KIND_SHIFT", u64::from(target::KIND_SHIFT)),
        ("Handles", "FIRST_HANDLE", u64::from(target::FIRST_HANDLE)),
        ("Handles", "HANDLES", u64::from(target::HANDLES)),
        ("Handles", "END_HANDLE", u64::from(target::END_HANDLE)),
        ("Sizes", "SLOT_BYTES", slot::SLOT_BYTES as u64),
        ("Sizes", "PLAIN_SLOT_BYTES", slot::PLAIN_SLOT_BYTES as u64),
        ("Sizes", "MAX_SLOT_BYTES", slot::MAX_SLOT_BYTES as u64),
        ("Sizes", "SLOT_RECORDS", slot::SLOT_RECORDS as u64),
        ("Sizes", "SLOT_VMS", slot::SLOT_VMS as u64),
        ("Sizes", "SLOT_FACTS", slot::SLOT_FACTS as u64),
        ("Sizes", "SLOT_FRAMES", slot::SLOT_FRAMES as u64),
        ("Sizes", "SLOT_MEMORY", slot::SLOT_MEMORY as u64),
        ("Sizes", "SLOT_MAGIC", u64::from(slot::SLOT_MAGIC)),
        ("Commands", "HELLO", u64::from(ioctl::HELLO)),
        ("Commands", "START", u64::from(ioctl::START)),
        ("Commands", "ADVANCE", u64::from(ioctl::ADVANCE)),
    ];
    for (heading, name, value) in computed {
        let row = table(heading).into_iter().find(|r| r[0] == name).unwrap_or_else(|| panic!("{heading}: no {name}"));
        assert_eq!(number(&row[1]), Some(value), "{heading}: {name}");
    }
}
