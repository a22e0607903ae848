// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that is printed as JSON is what `docs/s2dump.schema.json` says, and says nothing the schema does not know.

#[expect(dead_code, unreachable_pub, reason = "shared with unit tests, each uses a part")]
mod support;

use boon::{Compiler, Schemas};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use support::{captures, images};

const NAMES: [&str; 23] = [
    "two.s2d",
    "names.s2d",
    "bad-names.s2d",
    "odd.s2d",
    "untyped.s2d",
    "lpa2.s2d",
    "folded.s2d",
    "gone.s2d",
    "changed.s2d",
    "atomic.s2d",
    "dying.s2d",
    "dying-ok.s2d",
    "between-slots.s2d",
    "v1.1.s2d",
    "lone.s2d",
    "truncated.s2d",
    "corrupt.s2d",
    "lengths.s2d",
    "major-next.s2d",
    "major-next-later.s2d",
    "minor9.s2d",
    "unknown-record.s2d",
    "text.s2d",
];

fn schema() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/s2dump.schema.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// All names of properties the schema has.
fn known_keys(schema: &Value, keys: &mut BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Object(properties)) = object.get("properties") {
                keys.extend(properties.keys().cloned());
            }
            object.values().for_each(|value| known_keys(value, keys));
        }
        Value::Array(values) => values.iter().for_each(|value| known_keys(value, keys)),
        _ => {}
    }
}

fn check_keys(value: &Value, known: &BTreeSet<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| {
            assert!(known.contains(key), "the schema does not know `{key}`");
            check_keys(value, known);
        }),
        Value::Array(values) => values.iter().for_each(|value| check_keys(value, known)),
        _ => {}
    }
}

/// Strings of digits that are no addresses.
const NO_ADDRESSES: [&str; 13] = [
    "handle",
    "vtcr_el2",
    "tcr_el2",
    "mair_el2",
    "descriptor",
    "raw",
    "frame",
    "digest",
    "second_digest",
    "other_bits",
    "value",
    "unknown_bits",
    "meaning",
];

/// Returns the page size that `value` tells, as a shift.
fn page_shift(value: &Value) -> Option<u32> {
    match value {
        Value::Object(object) => match object.get("page_size_bytes") {
            Some(bytes) => Some(bytes.as_u64().unwrap().trailing_zeros()),
            None => object.values().find_map(page_shift),
        },
        _ => None,
    }
}

/// Whatever is an address has the number of its page beside it.
fn check_pages(value: &Value, shift: u32) {
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| {
            let number = value.as_str().and_then(|text| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok());
            match (number, object.get(&format!("{key}_pfn"))) {
                (Some(number), pfn) if !NO_ADDRESSES.contains(&key.as_str()) => {
                    assert_eq!(pfn.and_then(Value::as_u64), Some(number >> shift), "{key} of {object:?}");
                }
                (_, pfn) => assert!(pfn.is_none_or(Value::is_null), "{key} of {object:?}"),
            }
            check_pages(value, shift);
        }),
        Value::Array(values) => values.iter().for_each(|value| check_pages(value, shift)),
        _ => {}
    }
}

#[test]
fn output_is_what_the_schema_says() {
    let schema = schema();
    let mut known = BTreeSet::new();
    known_keys(&schema, &mut known);
    let mut schemas = Schemas::new();
    let mut compiler = Compiler::new();
    compiler.add_resource("s2dump.json", schema).unwrap();
    let index = compiler.compile("s2dump.json", &mut schemas).unwrap();
    let mut types = BTreeSet::new();
    let mut check = |text: &str, command: &str| {
        let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{command}: {error}: {text}"));
        if let Err(error) = schemas.validate(&value, index) {
            panic!("{command}: {error:#}\n{text}");
        }
        check_keys(&value, &known);
        check_pages(&value, page_shift(&value).unwrap_or(if command.contains("16k") { 14 } else { 12 }));
        types.insert(value.get("type").and_then(Value::as_str).unwrap_or("document").to_owned());
    };

    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("schema-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    captures::save_all(&directory);
    images::save_all(&directory);
    let mut commands: Vec<String> =
        vec!["probe --json".into(), "version --json".into(), "dump vm:0x1000 --format json --range x".into()];
    for name in NAMES {
        commands.push(format!("list -i {name} --json"));
        commands.push(format!("dump -i {name} vm:0x1000 --format json"));
        commands.push(format!("dump -i {name} vm:0x1000 --format ndjson --exact"));
        commands.extend(
            [0_u64, 0x20_0000, 0x8000_0000, 0x8001_2000].map(|at| format!("walk -i {name} vm:0x1000 {at} --json")),
        );
    }
    for target in ["host", "hyp"] {
        commands.push(format!("dump -i machine.s2d {target} --format json"));
        commands.push(format!("dump -i machine.s2d {target} --format ndjson --exact"));
        for at in ["0x40200000", "0x4020b000", "0x40220000", "0x40000000", "0x800040000000", "0x808000001000"] {
            commands.push(format!("walk -i machine.s2d {target} {at} --json"));
        }
    }
    for target in ["vm:0x1000", "vm:0x1001", "host", "hyp"] {
        commands.push(format!("dump -i names.s2d {target} --format json --names"));
        commands.push(format!("dump -i names.s2d {target} --format ndjson --names --exact"));
        commands.push(format!("walk -i names.s2d {target} 0x40200000 --json"));
    }
    commands.extend(["hyp-nvhe.s2d", "hyp-52.s2d"].map(|name| format!("dump -i {name} --format json")));
    // Of these, most do not tell the page size.
    commands.extend(
        [
            "list -i pages16k.s2d --json",
            "rmap -i pages16k.s2d 0x408004000..0x408005000 --json",
            "audit -i pages16k.s2d --json",
            "diff pages16k.s2d pages16k.s2d --json",
            "diff two.s2d pages16k.s2d --json",
        ]
        .map(String::from),
    );
    commands.extend(["rmap -i pkvm.s2d 0x40800000+64K --json".into(), "rmap -i two.s2d 0x42000000 --json".into()]);
    commands
        .extend(["pkvm", "broken", "moving", "without-hyp", "two"].map(|name| format!("audit -i {name}.s2d --json")));
    commands.push("audit --list --json".into());
    commands.push("diff idle.s2d idle-again.s2d --json".into());
    for target in ["host", "hyp", "vm:0x1000", "vm:0x1001"] {
        commands.push(format!("dump -i android.s2d {target} --format json"));
        commands.push(format!("stat -i android.s2d {target} --json"));
    }
    commands.extend(["audit", "frames"].map(|verb| format!("{verb} -i android.s2d --json")));
    commands.push("diff pkvm.s2d android.s2d --json".into());
    commands.push("rmap -i android.s2d 0x41610000 --json".into());
    commands.extend(["diff pkvm.s2d later.s2d --json".into(), "diff without-hyp.s2d pkvm.s2d --json".into()]);
    commands.extend(["", "--summary", "--state owned"].map(|more| format!("frames -i machine.s2d --json {more}")));
    commands.push("dump -i machine.s2d host --format json --state donated --owner vm:0x1000,hyp --level 3".into());
    commands.push("dump -i machine.s2d host --format json --rights rwx --summary".into());
    for filter in ["--state owned,hole", "--level 3 --rights rw- --summary", "--owner hyp,vm:0x1000"] {
        commands.push(format!("rmap -i pkvm.s2d 0x40000000+64M --json {filter}"));
        commands.push(format!("diff pkvm.s2d later.s2d --json {filter}"));
        commands.push(format!("walk -i pkvm.s2d vm:0x1000 0x80008123 --json {filter}"));
    }
    commands.push("frames -i machine.s2d --json --rights rwx".into());
    commands.extend(["host", "hyp", "vm:0x1000"].map(|name| format!("stat -i machine.s2d {name} --json")));
    commands.extend(["odd.s2d", "folded.s2d", "gone.s2d", "tables.s2d"].map(|name| format!("stat -i {name} --json")));
    for format in [
        "--granule 4k --xnx --encoding pkvm-7.2",
        "--granule 4k --encoding pkvm-android-6.12",
        "--granule 64k --lpa",
        "--granule 4k --stage 1",
        "--level 7",
    ] {
        commands.push(format!("decode 600007ff 600007fd 0x40004003 0 0x3000000000000000 --level 2 {format} --json"));
    }
    for ram in ["whole.core", "holed.ram@0x40000000", "faulting.ram@0x40000000", "short.ram@0x40000000", "whole.ram"] {
        let table = format!("--ram {ram} --vtcr 0x80023558 --vttbr 0x40000000 --xnx --mte-perm");
        commands.push(format!("dump {table} --format json"));
        commands.push(format!("dump {table} --format ndjson --encoding pkvm-7.2"));
        commands.extend(
            [0x8081_0000_u64, 0xc000_0000, 0x1_8000_0000, 0x1_c000_0000, 0x8020_0000]
                .map(|at| format!("walk {table} {at} --json")),
        );
    }
    commands.push(
        "rmap --ram holed.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 --xnx 0x4000_1000+256M --json".into(),
    );
    for command in commands {
        let output = Command::new(env!("CARGO_BIN_EXE_s2dump"))
            .args(command.split_whitespace())
            .current_dir(&directory)
            .output()
            .unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        if command.contains("ndjson")
            || command.starts_with("decode")
            || command.starts_with("audit")
            || command.starts_with("diff")
        {
            out.lines().for_each(|line| check(line, &command));
        } else if !out.is_empty() {
            check(&out, &command);
        }
        String::from_utf8(output.stderr).unwrap().lines().for_each(|line| check(line, &command));
    }
    std::fs::remove_dir_all(directory).unwrap();
    let all = [
        "audit",
        "change",
        "decode",
        "diff",
        "document",
        "error",
        "finding",
        "frames",
        "header",
        "list",
        "note",
        "probe",
        "range",
        "rmap",
        "rule",
        "stat",
        "trailer",
        "unsettled",
        "version",
        "walk",
    ];
    assert_eq!(types.into_iter().collect::<Vec<_>>(), all, "a type was never seen");
}
