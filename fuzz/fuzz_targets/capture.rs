// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads any bytes as a capture, through reader, merge and every format. Checks that nothing panics, memory is bounded,
//! and rows are inside their space.
#![no_main]

mod allocated;
#[path = "../../cli/tests/support/mod.rs"]
#[expect(dead_code, unreachable_pub, reason = "shared with the tests of the command line, which use all of it")]
mod support;
mod written;

use allocated::most_during;
use s2dump::run_on_capture;
use serde_json::Value;
use std::io;

/// What the program may use at once besides a copy of the capture: its own, clap's and serde's buffers, never rows.
const MOST_BYTES: usize = 512 << 10;
/// How often a capture is repeated, to see that memory does not grow with it.
const REPEATED: usize = 32;

const COMMANDS: [&[&str]; 21] = [
    &["s2dump", "dump", "-i", "-", "--format", "table"],
    &["s2dump", "dump", "-i", "-", "--format", "ptdump"],
    &["s2dump", "dump", "-i", "-", "--format", "ptdump-v10"],
    &["s2dump", "dump", "-i", "-", "--format", "ptdump-android"],
    &["s2dump", "dump", "-i", "-", "--format", "json", "--exact"],
    &["s2dump", "dump", "-i", "-", "--format", "table", "--range", "2G..3G"],
    &["s2dump", "list", "-i", "-", "--json"],
    &["s2dump", "walk", "-i", "-", "vm:0x1000", "0x80000000"],
    &["s2dump", "walk", "-i", "-", "vm:0x1000", "0x80000000", "--json"],
    &["s2dump", "dump", "-i", "-", "all", "--format", "ndjson"],
    &["s2dump", "dump", "-i", "-", "host", "--state", "donated,ring", "--owner", "guest"],
    &["s2dump", "dump", "-i", "-", "all", "--state", "mmio-guard,tainted,donated-protected,shared-borrowed"],
    &["s2dump", "dump", "-i", "-", "hyp", "--rights", ".w.", "-o", "+ext,raw"],
    &["s2dump", "walk", "-i", "-", "hyp", "0x808000001000"],
    &["s2dump", "dump", "-i", "-", "all", "--names"],
    &["s2dump", "dump", "-i", "-", "all", "--names", "--format", "ndjson"],
    &["s2dump", "walk", "-i", "-", "host", "0x40200123", "--json"],
    &["s2dump", "stat", "-i", "-"],
    &["s2dump", "stat", "-i", "-", "--json"],
    &["s2dump", "frames", "-i", "-"],
    &["s2dump", "frames", "-i", "-", "--json", "--range", "1G.."],
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let capture = match choice & 3 {
        0 => bytes.to_vec(),
        1 => written::capture(bytes).repeat(REPEATED),
        2 => written::edited(bytes),
        _ => written::capture(bytes),
    };
    let command = COMMANDS[usize::from(choice >> 2) % COMMANDS.len()];
    let (code, most) = most_during(|| run_on_capture(command, &capture, &mut io::sink()));
    assert!(code <= 6, "exit code {code}");
    assert!(most <= capture.len() + MOST_BYTES, "{most} bytes for a capture of {}", capture.len());

    let mut out = Vec::new();
    run_on_capture(&["s2dump", "dump", "-i", "-", "--format", "ndjson"], &capture, &mut out);
    check_rows(&out);
});

/// Checks that rows ascend and lie inside the space that the header tells.
fn check_rows(ndjson: &[u8]) {
    let (mut space, mut end) = (0, 0);
    for line in ndjson.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let line: Value = serde_json::from_slice(line).expect("a line of JSON");
        let address = |name: &str| {
            let text = line[name].as_str().and_then(|text| text.strip_prefix("0x")).expect("an address");
            u64::from_str_radix(text, 16).expect("a hexadecimal number")
        };
        match line["type"].as_str() {
            Some("header") => (space, end) = (1 << line["ia_bits"].as_u64().expect("a number"), 0),
            Some("range") => {
                let start = address("start");
                assert!(start >= end && start < space, "{line}");
                end = address("end");
                assert!(end > start && Some(end - start) == line["size_bytes"].as_u64(), "{line}");
            }
            _ => {}
        }
    }
}
