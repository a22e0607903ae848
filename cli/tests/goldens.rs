// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each capture x each command = one golden transcript. `SNAPSHOTS=overwrite cargo test -p s2dump` blesses them anew.

#[expect(dead_code, unreachable_pub, reason = "shared with unit tests, each uses a part")]
mod support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{captures, images};

/// Runs `s2dump` in `directory` and returns a transcript.
fn transcript(directory: &Path, command: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_s2dump"))
        .args(command.split_whitespace())
        .current_dir(directory)
        .env_remove("CLICOLOR_FORCE")
        .output()
        .unwrap();
    let mut text = format!("$ s2dump {command}\n");
    text.push_str(&String::from_utf8(output.stdout).unwrap());
    for line in String::from_utf8(output.stderr).unwrap().lines() {
        writeln!(text, "! {line}").unwrap();
    }
    writeln!(text, "= {}", output.status.code().unwrap()).unwrap();
    text
}

fn directory() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("goldens-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

const CASES: &[(&str, &[&str])] = &[
    (
        "list",
        &[
            "list -i two.s2d",
            "list -i two.s2d --no-headings",
            "list -i two.s2d --json",
            "list -i odd.s2d",
            "list -i missing.s2d",
            "list -i missing.s2d --json",
        ],
    ),
    (
        "dump-table",
        &[
            "dump -i two.s2d vm:0x1000",
            "dump -i two.s2d vm:0x1000 --exact",
            "dump -i two.s2d vm:421-14",
            "dump -i two.s2d vm:421-14 --no-headings",
            "dump -i two.s2d vm:0x1000 --range 0x8000_1000..0x8001_1000 --exact",
            "dump -i two.s2d vm:0x1000 -o start,bytes,out --no-headings",
            "dump -i two.s2d vm:0x1000 -o +raw,count,kind,contig,dbm,sw --range 2G+2M",
            "dump -i two.s2d vm:0x1000 --color always --range 2G+2M",
            "dump -i folded.s2d",
            "dump -i folded.s2d --range 0x80001000+4K --exact",
        ],
    ),
    ("dump-odd", &["dump -i odd.s2d -o +raw", "dump -i untyped.s2d -o +raw", "dump -i lpa2.s2d -o +raw"]),
    (
        "changed",
        &[
            "dump -i changed.s2d -o +raw,count,contig",
            "dump -i changed.s2d -n --exact",
            "dump -i changed.s2d --format ptdump",
            "dump -i changed.s2d --format ndjson",
            "dump -i changed.s2d --range 0x80400000+64K",
            "walk -i changed.s2d vm:0x1000 0x80009123",
            "walk -i changed.s2d vm:0x1000 0x80201234 --json",
            "walk -i changed.s2d vm:0x1000 0x80007123",
            "dump -i atomic.s2d",
            "dump -i atomic.s2d -n --range 2G+2M",
            "dump -i atomic.s2d --format json",
            "dump -i lone.s2d",
            "dump -i lone.s2d --format ndjson",
            "dump -i lone-cut.s2d --format ptdump",
        ],
    ),
    (
        "teardown",
        &[
            "dump -i dying.s2d",
            "dump -i dying.s2d --format ptdump",
            "dump -i dying.s2d --format ndjson",
            "dump -i dying-ok.s2d",
            "dump -i dying-ok.s2d --format ptdump",
            "walk -i dying.s2d vm:0x1000 0x80010123",
            "walk -i dying.s2d vm:0x1000 0x80010123 --json",
            "dump -i between-slots.s2d",
            "dump -i between-slots.s2d --format ptdump",
        ],
    ),
    (
        "version1",
        &[
            "list -i v1.1.s2d",
            "dump -i v1.1.s2d vm:0x1000",
            "dump -i v1.1.s2d vm:0x1001 --format ndjson",
            "walk -i v1.1.s2d vm:0x1001 0x40812345",
            "list -i v1.1-reserved.s2d",
        ],
    ),
    (
        "dump-ptdump",
        &[
            "dump -i two.s2d vm:0x1000 --format ptdump",
            "dump -i two.s2d vm:0x1001 --format ptdump",
            "dump -i two.s2d vm:0x1001 --format ptdump --range 1G..1026M",
            "dump -i odd.s2d --format ptdump",
            "dump -i lpa2.s2d --format ptdump",
            "dump -i two.s2d vm:0x1000 --format ptdump-v10",
            "dump -i two.s2d vm:0x1001 --format ptdump-v10",
        ],
    ),
    (
        "dump-json",
        &[
            "dump -i two.s2d vm:0x1000 --format json",
            "dump -i two.s2d vm:0x1001 --format ndjson",
            "dump -i odd.s2d --format ndjson --exact",
            "dump -i gone.s2d --format json",
            "dump -i major-next.s2d --format json",
        ],
    ),
    (
        "walk",
        &[
            "walk -i two.s2d vm:0x1000 0x8000_8123",
            "walk -i two.s2d vm:0x1001 0x40812345",
            "walk -i two.s2d vm:0x1000 0x80012000",
            "walk -i two.s2d vm:0x1000 0",
            "walk -i two.s2d vm:0x1000 0x80008123 --json",
            "walk -i folded.s2d vm:0x1000 0x80001000",
            "walk -i two.s2d vm:0x1000 1T",
            "walk -i two.s2d vm:0x1002 0",
            "walk -i gone.s2d vm:0x1000 3G",
        ],
    ),
    (
        "damage",
        &[
            "dump -i gone.s2d",
            "dump -i truncated.s2d vm:0x1001",
            "dump -i corrupt.s2d vm:0x1000",
            "dump -i lengths.s2d vm:0x1000",
            "dump -i major-next.s2d",
            "dump -i major-next-later.s2d vm:0x1000 --format ptdump",
            "dump -i minor9.s2d --format ptdump",
            "dump -i unknown-record.s2d --format ptdump",
            "dump -i empty.s2d",
            "dump -i text.s2d",
            "dump -i .",
            "list -i text.s2d --json",
        ],
    ),
    (
        "ram",
        &[
            "dump --ram whole.ram@0x4000_0000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx --encoding pkvm-7.2",
            "dump --ram whole.ram@1G --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx -o +raw,sw --exact --range 2G+16M",
            "dump --ram low.ram@0x40000000 --ram high.ram@0x40004000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx --format ptdump",
            "dump --ram whole.core --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx --format ptdump",
            "dump --ram whole.core --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx --encoding pkvm-7.2 --format json --pa-bits 52 --fwb --mte-perm",
            "dump --ram holed.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx --pa-bits 40 -o +raw",
            "dump --ram holed.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx --format ndjson --range 3G+2G",
            "walk --ram whole.core --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx 0x8081_1234 --encoding pkvm-7.2",
            "walk --ram whole.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx 0x8081_1234 --json",
            "walk --ram holed.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx 3G",
            "walk --ram holed.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx 6G",
            "walk --ram holed.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx 7G",
            "walk --ram whole.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx 1T",
        ],
    ),
    (
        "contiguous",
        &[
            "dump --ram contiguous.ram@0x40000000 --vtcr 0x9e023558 --vttbr 0x40000000 -o range,level,rwx,contig,ext,other,out --range 2G+64M",
            "dump --ram contiguous.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 -o range,contig,out -n --range 2G+4M --exact",
            "dump --ram contiguous.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 -o range,contig,out -n --range 0x80004000+64K",
            "dump --ram contiguous.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 --range 0x80040000+4M --format ndjson",
            "dump --ram contiguous.ram@0x40000000 --vtcr 0xb080023558 --vttbr 0x40000000 --range 0x81200000+2M --format ndjson",
            "dump --ram contiguous.ram@0x40000000 --vtcr 0xb480023558 --vttbr 0x40000000 --range 0x81200000+2M -o +ext,other",
            "dump --ram touched.ram@0x40000000 --vtcr 0x80623558 --vttbr 0x40000000 -o range,rwx,af,dbm,contig,out --range 2G+448K",
            "dump --ram touched.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 -o range,rwx,af,dbm,contig,out --range 2G+448K",
            "walk --ram contiguous.ram@0x40000000 --vtcr 0x9e023558 --vttbr 0x40000000 0x81200000",
            "walk --ram contiguous.ram@0x40000000 --vtcr 0x9e023558 --vttbr 0x40000000 0x81200000 --json",
        ],
    ),
    (
        "wide",
        &[
            "dump --ram lpa2.ram@0x40000000 --ram lpa2.ram@0x4000040000000 --vtcr 0x180063590 --vttbr 0x40000000 -o +raw",
            "walk --ram lpa2.ram@0x40000000 --ram lpa2.ram@0x4000040000000 --vtcr 0x180063590 --vttbr 0x40000000 0x80001234",
            "dump --ram lpa2.ram@0x40000000 --vtcr 0x180063590 --vttbr 0x40000000 --format ptdump",
            "dump --ram lpa.ram@0x40000000 --ram lpa.ram@0x1000040000000 --vtcr 0x80067558 --vttbr 0x40000000 -o +raw",
            "walk --ram lpa.ram@0x40000000 --ram lpa.ram@0x1000040000000 --vtcr 0x80067558 --vttbr 0x40000000 0x80011234",
            "walk --ram lpa.ram@0x40000000 --ram lpa.ram@0x1000040000000 --vtcr 0x80057558 --vttbr 0x40000000 0x80011234 --pa-bits 52",
        ],
    ),
    (
        "faults",
        &[
            "dump --ram faulting.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 -o +raw",
            "dump --ram faulting.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 --range 2G+6M --format ndjson",
            "dump --ram faulting.ram@0x40000000 --vtcr 0x80223558 --vttbr 0x40000000 --range 0x80400000+8K",
            "dump --ram faulting.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 --range 2G+4M --format ptdump",
            "dump --ram holed.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 --format ptdump",
            "walk --ram faulting.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 0x80001000",
            "walk --ram faulting.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 0x80002000",
            "walk --ram faulting.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 0x80201000 --json",
            "walk --ram faulting.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 0x80400000",
            "walk --ram faulting.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 0x80400000 --json",
            "walk --ram faulting.ram@0x40000000 --vtcr 0x80223558 --vttbr 0x40000000 0x80400000",
            "walk --ram holed.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 7G --json",
            "walk --ram holed.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 6G --json",
        ],
    ),
    (
        "suspicious",
        &[
            "dump --ram zero.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000",
            "dump --ram zero.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 --range 2G+2M --format json",
            "dump --ram zero.ram@0x40000000 --tcr 0x80823519 --ttbr0 0x40000000 -n",
            "walk --ram zero.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 2G",
            "dump --ram no-table.ram@0x40000000 --vtcr 0x80023559 --vttbr 0x40000000 --format ptdump",
            "dump --ram no-table.ram@0x40000000 --vtcr 0x80023559 --vttbr 0x40000000 --format ndjson --range 8G+1G --encoding pkvm-7.2",
            "dump --ram no-table.ram@0x40000000 --vtcr 0x80023559 --vttbr 0x40000000 --encoding none --range 0..20G -o +raw",
            "walk --ram no-table.ram@0x40000000 --vtcr 0x80023559 --vttbr 0x40000000 0",
            "walk --ram no-table.ram@0x40000000 --vtcr 0x80023559 --vttbr 0x40000000 0 --json",
            "walk --ram no-table.ram@0x40000000 --vtcr 0x80023559 --vttbr 0x40000000 1G",
            "dump --ram damaged.ram@0x40000000 --vtcr 0x80023559 --vttbr 0x40000000 --format ptdump",
            "dump --ram two-bit-xn.ram@0x40000000 --vtcr 0x80023559 --vttbr 0x40000000 --range 2G+64K -o +raw",
            "dump --ram two-bit-xn.ram@0x40000000 --vtcr 0x80023559 --vttbr 0x40000000 --range 2G+64K --xnx",
            "walk --ram two-bit-xn.ram@0x40000000 --vtcr 0x80023559 --vttbr 0x40000000 2G",
            "dump --ram whole.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 --xnx --format json",
            "dump --ram whole.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 --xnx --encoding none --format ptdump",
            "dump --ram whole.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 --xnx --encoding pkvm-7.2 --format ptdump",
        ],
    ),
    (
        "el2",
        &[
            "dump --ram el2.ram@0x40000000 --tcr 0x80823519 --ttbr0 0x40000000 -o +dbm,sw,ext,other",
            "dump --ram el2.ram@0x40000000 --tcr 0x200803519 --ttbr0 0x1000040000000 --e2h -o +ext",
            "dump --ram el2.ram@0x40000000 --tcr 0x81823519 --ttbr0 0x40000000 --range 1G+16M -n",
            "dump --ram el2.ram@0x40000000 --tcr 0x81823519 --ttbr0 0x40000000 --range 1G+16M --wxn -o +ext",
            "dump --ram el2.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 --wxn",
            "walk --ram el2.ram@0x40000000 --tcr 0x81823519 --ttbr0 0x40000000 0x40201234 --wxn",
            "walk --ram el2.ram@0x40000000 --tcr 0x80823519 --ttbr0 0x40000000 0x40201234",
            "walk --ram el2.ram@0x40000000 --tcr 0x80823519 --ttbr0 0x40000000 0x8010",
            "walk --ram el2.ram@0x40000000 --tcr 0x80823519 --ttbr0 0x40000000 512G",
            "walk --ram el2.ram@0x40000000 --tcr 0x80823519 --ttbr0 0x40000000 0 --json",
            "dump --ram el2.ram@0x40000000 --tcr 0x80823519 --ttbr0 0x40000000 --format ptdump",
            "dump --ram el2.ram@0x40000000 --tcr 0x80823519 --ttbr0 0x40000000 --format ndjson",
            "dump --ram el2.ram@0x40000000 --tcr 0x80823519 --ttbr0 0x40000000 --xnx",
            "dump --ram el2.ram@0x40000000 --tcr 0x80823519 --vttbr 0x40000000",
            "dump --ram el2.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 --e2h",
            "dump --ram el2.ram@0x40000000 --tcr 0x8082350b --ttbr0 0x40000000",
            "dump --ram el2.ram@0x40000000 --tcr 0x80823519 --ttbr0 0x20040000000",
            "dump --ram el2.ram@0x40000000 --tcr 0x80823519 --ttbr0 0x50000000",
        ],
    ),
    (
        "ram-damage",
        &[
            "dump --ram short.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx --format ptdump",
            "dump --ram short.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --range 512G..",
            "dump --ram short.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --range 511G.. --format json",
            "walk --ram short.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 512G",
            "walk --ram short.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 512G --json",
            "dump --ram longer.core --vtcr 0x80023558 --vttbr 0x7000040000000 --format ptdump --range 0..1G",
            "dump --ram cut.core --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx --format ptdump",
            "dump --ram cut-headers.core --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx",
            "dump --ram x86.core --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx",
            "dump --ram empty.core --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx",
            "dump --ram empty.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx",
            "dump --ram /dev/null@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx",
            "dump --ram missing.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx",
            "dump --ram .@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx",
            "dump --ram whole.ram --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx",
            "dump --ram whole.ram@0x40000100 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx",
            "dump --ram whole.ram@0x40zz --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx",
            "dump --ram whole.ram@0xfffffffff0000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx",
            "dump --ram whole.ram@0x40000000 --ram low.ram@0x40001000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx",
            "dump --ram whole.ram@0x50000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx",
            "walk --ram whole.ram@0x50000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx 0 --json",
            "dump --ram whole.core@0x40000000 --vtcr 0x80023558 --vttbr 0x40000000 --format ptdump",
            "dump --ram whole.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x40001000 --range 4G+4K -n",
        ],
    ),
    (
        "ram-registers",
        &[
            "dump --ram whole.ram@0x40000000 --vtcr 0x4080023558 --vttbr 0x40000000",
            "dump --ram whole.ram@0x40000000 --vtcr 0x8002f558 --vttbr 0x40000000",
            "dump --ram whole.ram@0x40000000 --vtcr 0x8002354c --vttbr 0x40000000",
            "dump --ram whole.ram@0x40000000 --vtcr 0x80023090 --vttbr 0x40000000",
            "dump --ram whole.ram@0x40000000 --vtcr 0x80053090 --vttbr 0x40000000 --pa-bits 44",
            "dump --ram whole.ram@0x40000000 --vtcr 0x800235d8 --vttbr 0x40000000",
            "dump --ram whole.ram@0x40000000 --vtcr 0x80023598 --vttbr 0x40000000 --format json",
            "dump --ram whole.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x10040000000",
            "dump --ram whole.ram@0x40000000 --vtcr 2G --vttbr 0x10040000000",
            "dump --ram whole.ram@0x40000000 --vtcr 0x80023558",
            "dump --ram whole.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx vm:0x1000",
            "dump --ram whole.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx -i two.s2d",
            "dump --ram whole.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx --verify",
            "dump --ram whole.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx --budget 7",
            "dump --ram whole.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx --pa-bits 41",
            "dump --ram whole.ram@0x40000000 --vtcr 0x80026558 --vttbr 0x40000000 --range 1G+4K",
            "dump --ram whole.ram@0x40000000 --vtcr 0x80023558 --vttbr 0x7000040000000 --xnx --range 1T+4K",
            "dump vm:0x1000 --fwb",
            "walk -i two.s2d vm:0x1000 0 --vtcr 0x80023558",
            "walk -i two.s2d 0",
            "walk vm:0x1000",
        ],
    ),
    (
        "decode",
        &[
            "decode 0x01400000409e27ff --level 3 --granule 4k --xnx --encoding pkvm-7.2",
            "decode 0x01400000_409e27ff 600007fd 0x40004003 0 0x3000000000000000 0x2000000010000014 --level 2 --vtcr 0x80023558",
            "decode 0x3000000000000000 0x2000000010000014 0x2000000000000002 0x9000000000000000 --level 3 --granule 4k --encoding pkvm-7.2",
            "decode 0x8040000409e27ff --level L3 --granule 4k --s2pie --s2poe --assured-only",
            "decode 8000000040010ffd 1 --level 1 --granule 4k --fwb --mte-perm --pa-bits 36",
            "decode 50000000f3ff --level 3 --granule 64k --lpa --pbha",
            "decode 4000f3ff --level 3 --granule 64k --lpa --pa-bits 48",
            "decode 500000007ff 500003ff --level 3 --vtcr 0x80023558",
            "decode 500007db --level 3 --granule 4k --fwb",
            "decode 0x8000050000383 --level 3 --granule 4k",
            "decode 4000000027f7 --level 3 --granule 64k --pa-bits 40",
            "decode 40000000073d 0x40000000103 --level 0 --granule 4k --lpa2",
            "decode 40000000073d --level 1 --granule 16k --json",
            "decode 0x60000040001783 0x7000000040002003 --level 2 --granule 4k --stage 1",
            "decode 0x60000040001fc3 0x7800000040002003 --level 3 --granule 4k --stage 1 --e2h",
            "decode 0x7800000040002003 --level 2 --tcr 0x80023518 --json",
            "decode --level 3 --granule 4k",
            "decode x --level 3 --granule 4k",
            "decode 0 --level 4 --granule 4k",
            "decode 0 --level -1 --granule 4k",
            "decode 0 --level 0 --granule 64k",
            "decode 0 --level 3",
            "decode 0 --level 3 --granule 4k --lpa",
            "decode 0 --level 3 --granule 64k --lpa2",
            "decode 0 --level 3 --granule 4k --vtcr 0x80023558",
            "decode 0 --level 3 --vtcr 0x8002f558 --json",
            "decode 0 --level 3 --vtcr 0x80023558 --lpa",
            "decode 0 --level 3 --vtcr 0x80027558 --lpa --pa-bits 48",
            "decode 4000f3ff --level 3 --vtcr 0x80057558 --lpa",
            "decode 0 --level 3 --tcr 0x80823519 --lpa",
            "decode 0 --level 3 --granule 4k --e2h",
            "decode 0 --level 3 --granule 4k --stage 1 --fwb",
            "decode 0 --level 3 --tcr 0x80 --e2h",
            "decode 600007fd 40004003 0 --level 2 --granule 4k --hex --json",
            "decode 40004003 --level 2 --granule 4k",
            "decode 7ff --level 2 --granule 4k --json",
            "decode --help",
        ],
    ),
    (
        "targets",
        &[
            "dump -i two.s2d",
            "dump -i two.s2d vm:421",
            "dump -i two.s2d vm:430",
            "dump -i two.s2d vm:999",
            "dump -i two.s2d vm:421-15 --format json",
            "dump -i two.s2d vm:0x1007",
            "dump -i odd.s2d vm:421",
            "dump -i two.s2d guest",
            "dump -i stranger.s2d",
            "dump -i stranger.s2d vm:0x1000 --format json",
            "dump -i stranger.s2d vm:421-11 --format ptdump",
            "walk -i stranger.s2d vm:0x1000 0x80008123",
            "dump -i refused-first.s2d vm:0x1001 -n -o range --range 1G+4K",
            "dump -i refused-first.s2d vm:0x1000",
            "dump -i refused-first.s2d",
            "dump -i reused.s2d vm:0x1000 -n -o range,out --range 2G+4K",
            "walk -i reused.s2d vm:0x1000 2G",
        ],
    ),
    (
        "machine",
        &[
            "dump -i machine.s2d host",
            "dump -i machine.s2d host --exact --range 0x40200000+64K -o +raw",
            "dump -i machine.s2d host --format ptdump",
            "dump -i machine.s2d host --format ndjson",
            "walk -i machine.s2d host 0x40203123",
            "walk -i machine.s2d host 0x4020b000 --json",
            "dump -i machine.s2d hyp",
            "dump -i machine.s2d hyp --format json",
            "dump -i machine.s2d hyp --format ptdump",
            "walk -i machine.s2d hyp 0x800040000123",
            "walk -i machine.s2d hyp 0x808000001000",
            "dump -i hyp-nvhe.s2d -o +ext,raw",
            "dump -i hyp-nvhe.s2d --format ptdump",
            "dump -i hyp-nvhe.s2d --range 0x808000000000+64K --format ndjson",
            "dump -i hyp-52.s2d",
            "dump -i machine.s2d vm:421-11 -n --range 2G+128K",
            "dump -i machine.s2d",
            "dump -i two.s2d host",
        ],
    ),
    (
        "frames",
        &[
            "frames -i machine.s2d",
            "frames -i machine.s2d --range 0x40210000+16K -n",
            "frames -i machine.s2d --state shared-borrowed,nomap",
            "frames -i machine.s2d --summary",
            "frames -i machine.s2d --json",
            "frames -i machine.s2d --json --summary --range ..1G",
            "frames -i two.s2d",
            "frames -i machine.s2d --budget 5",
            "frames --help",
        ],
    ),
    (
        "usage",
        &[
            "dump",
            "dump -i two.s2d vm:0x1000 --verify",
            "dump -i two.s2d vm:0x1000 --atomic",
            "dump -i two.s2d vm:0x1000 --format json -o raw",
            "dump -i two.s2d vm:0x1000 --format ptdump --no-headings",
            "dump -i two.s2d vm:0x1000 -o nosuch",
            "dump -i two.s2d vm:0x1000 --range 8K..4K",
            "dump -i two.s2d vm:0x1000 --range 1..2",
            "dump -i two.s2d vm:0x1000 --format json --range x",
            "dump vm:0x1000 --atomic --budget 5",
            "dump vm:0x1000 --budget 0",
            "walk vm:0x1000 zz",
            "walk vm:0x1000 80001234",
            "walk -i two.s2d vm:0x1000 8000_8123",
            "walk -i two.s2d vm:0x1000 8000812f",
            "walk -i two.s2d vm:0x1000 4096",
            "dump -i two.s2d vm:0x1000 --range 80000000+4K --format json",
            "dump -i two.s2d vm:0x1000 --range 0x80000000+65536",
            "dump --ram whole.ram@40000000 --vtcr 0x80023558 --vttbr 0x40000000",
            "dump --ram whole.ram@0x40000000 --vtcr 80023558 --vttbr 0x40000000",
            "dump --ram whole.ram@0x40000000 --vtcr 0x80023558 --vttbr 40000000",
            "dump --ram whole.ram@0x40000000 --tcr 80823519 --ttbr0 0x40000000",
            "dump --ram whole.ram@0x40000000 --tcr 0x80823519 --ttbr0 40000000",
            "--help",
            "dump --help",
            "walk --help",
        ],
    ),
];

#[test]
fn transcripts() {
    let directory = directory();
    captures::save_all(&directory);
    images::save_all(&directory);
    for (name, commands) in CASES {
        let text: Vec<String> = commands.iter().map(|command| transcript(&directory, command)).collect();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/goldens/{name}.txt"));
        snapbox::assert_data_eq!(text.join("\n"), snapbox::Data::read_from(&golden, None).raw());
    }
    std::fs::remove_dir_all(directory).unwrap();
}
