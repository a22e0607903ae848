// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program's rows, walks and captures say what the VMM says.

use super::ndjson::{maybe_hex, Printed, Row};
use super::support::handle_of;
use super::{tests, Outcome};
use crate::expect::{LeafMap, Run, State};
use crate::machine::Machine;
use crate::program::{self, exit};
use crate::scale::at;
use crate::vmm_process::VmmProcess;
use anyhow::{ensure, Context as _, Result};
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{PackedRun, SlotHeader, SlotKind};
use serde::Deserialize;
use std::fs;
use zerocopy::FromBytes;

tests!(On: rows_are_the_leaves, rows_of_a_range, rows_of_a_capture, damaged_capture, walk_finds_each_leaf, verify_and_atomic,
    verify_of_a_guest_at_work);

/// A guest with all a table can hold.
const GUEST: &str =
    "protected --physical touch:16 share:4 unshare:0x80001000+1 poison:0x80008000+2 touch-share:0x80200000+3";

/// Unfolds the rows of a dump that must be complete.
fn leaves(text: &str) -> Result<LeafMap> {
    Printed::parse(text)?.leaves()
}

fn same(expected: &LeafMap, actual: &LeafMap) -> Outcome {
    let differences = expected.differences(actual);
    ensure!(differences.is_empty(), "{}", differences.join("; "));
    Ok(())
}

fn target(vmm: &VmmProcess) -> String {
    format!("vm:{}", vmm.expected.pid)
}

fn rows_are_the_leaves(_: &Machine) -> Outcome {
    let blocks =
        "ordinary --physical --mem 0x80000000+8M,huge --mem 0x90000000+1M touch:1 touch:0x90000000+3 read:0x90008000+1";
    for guest in [GUEST, blocks] {
        let vmm = VmmProcess::start(guest)?;
        for budget in ["101", "4096"] {
            let text =
                program::run(&["dump", &target(&vmm), "--exact", "--format", "ndjson", "--budget", budget])?.ok()?;
            same(&LeafMap::from_runs(&vmm.expected.runs), &leaves(&text)?)
                .with_context(|| format!("budget {budget}"))?;
        }
        vmm.end()?;
    }
    Ok(())
}

fn rows_of_a_range(_: &Machine) -> Outcome {
    let vmm = VmmProcess::start(GUEST)?;
    let (from, to) = (at(0x8000_2000), at(0x8000_9000));
    let range = format!("{from:#x}..{to:#x}");
    let arguments = ["dump", &target(&vmm), "--exact", "--format", "ndjson", "--range", &range];
    let mut expected = LeafMap::from_runs(&vmm.expected.runs);
    expected.0.retain(|ia, _| (from..to).contains(ia));
    same(&expected, &leaves(&program::run(&arguments)?.ok()?)?)?;
    vmm.end()
}

fn rows_of_a_capture(_: &Machine) -> Outcome {
    const PATH: &str = "/tmp/capture.s2d";
    let vmm = VmmProcess::start(GUEST)?;
    let handle = format!("vm:{:#x}", handle_of(&vmm)?);
    program::run(&["capture", "-O", PATH])?.ok()?;
    for format in ["ptdump", "ndjson", "table"] {
        let live = program::run(&["dump", &handle, "--exact", "--format", format])?.ok()?;
        let saved = program::run(&["dump", "-i", PATH, &handle, "--exact", "--format", format])?.ok()?;
        let row = |line: &&str| line.starts_with("{\"type\":\"range\"") || line.starts_with("0x");
        let (live, saved): (Vec<_>, Vec<_>) = (live.lines().filter(row).collect(), saved.lines().filter(row).collect());
        ensure!(!live.is_empty() && live == saved, "{format}: {} rows live, {} captured", live.len(), saved.len());
    }
    vmm.end()?;
    let list = program::run(&["list", "-i", PATH])?.ok()?;
    ensure!(list.contains(&handle), "the captured list lacks {handle}: {list}");
    fs::remove_file(PATH)?;
    Ok(())
}

/// Each kind of damage ends in the one exit code that says what it means for the rows.
fn damaged_capture(_: &Machine) -> Outcome {
    const PATH: &str = "/tmp/damaged.s2d";
    let vmm = VmmProcess::start(GUEST)?;
    // So small a budget that the table takes several slots.
    program::run(&["capture", &target(&vmm), "-O", PATH, "--budget", "64"])?.ok()?;
    vmm.end()?;
    let whole = fs::read(PATH)?;
    let slots = slots(&whole)?;
    let of_kind = |kind: SlotKind| slots.iter().filter(move |(_, header)| header.kind == kind.0).map(|&(at, _)| at);
    let tables: Vec<usize> = of_kind(SlotKind::PACKED).collect();
    ensure!(tables.len() >= 3, "{} slots of rows", tables.len());
    let (first, middle) = (tables[0], tables[1]);
    let end = of_kind(SlotKind::END).next_back().context("no end")?;
    let cut = |to: usize| whole[..to].to_vec();
    let header = |at: usize, edit: fn(&mut SlotHeader)| {
        let mut bytes = whole.clone();
        let (header, _) = SlotHeader::mut_from_prefix(&mut bytes[at..]).map_err(|_| ()).expect("slots() has read it");
        edit(header);
        bytes
    };
    let record = |edit: fn(&mut PackedRun)| {
        let mut bytes = whole.clone();
        let at = middle + size_of::<SlotHeader>();
        let (record, _) = PackedRun::mut_from_prefix(&mut bytes[at..]).map_err(|_| ()).expect("a slot has a record");
        edit(record);
        bytes
    };
    let half_a_record = middle + size_of::<SlotHeader>() + size_of::<PackedRun>() / 2;
    let cases = [
        ("nothing", cut(0), exit::USAGE_OR_IO),
        ("one byte", cut(1), exit::USAGE_OR_IO),
        ("half a header", cut(size_of::<SlotHeader>() / 2), exit::USAGE_OR_IO),
        ("the list only", cut(first), exit::USAGE_OR_IO),
        ("half a header of rows", cut(middle + 64), exit::PARTIAL),
        ("half a record", cut(half_a_record), exit::PARTIAL),
        ("no end", cut(end), exit::PARTIAL),
        ("all but a byte", cut(whole.len() - 1), exit::PARTIAL),
        ("no magic at the beginning", header(0, |h| h.magic ^= 1), exit::USAGE_OR_IO),
        ("another major version", header(0, |h| h.version ^= 0xff << 16), exit::USAGE_OR_IO),
        ("no magic", header(middle, |h| h.magic ^= 1), exit::PARTIAL),
        ("another major version later", header(middle, |h| h.version ^= 0xff << 16), exit::PARTIAL),
        ("long records", header(middle, |h| h.record_bytes = u16::MAX), exit::PARTIAL),
        ("many records", header(middle, |h| h.record_count = u32::MAX), exit::PARTIAL),
        ("a slot is missing", header(middle, |h| h.sequence += 1), exit::PARTIAL),
        ("a gap", header(middle, |h| h.start += 0x1000), exit::PARTIAL),
        ("another register", header(middle, |h| h.vtcr ^= 1 << 10), exit::PARTIAL),
        ("another root", header(middle, |h| h.root ^= 0x1000), exit::PARTIAL),
        ("a root that was not listed", header(first, |h| h.root ^= 0x1000), exit::PARTIAL),
        ("an unknown record", record(|r| r.kind = 77), exit::PARTIAL),
        ("a record at another level", record(|r| r.level = 4), exit::PARTIAL),
        ("a record beyond the space", record(|r| r.ia |= 1 << 60), exit::PARTIAL),
        ("a record of nothing", record(|r| r.count = 0), exit::PARTIAL),
        ("the VM was gone", header(end, |h| h.status = Status::VM_GONE.0), exit::PARTIAL),
        ("nothing wrong", whole.clone(), 0),
    ];
    for (damage, bytes, code) in cases {
        fs::write(PATH, &bytes)?;
        let ran = program::run(&["dump", "-i", PATH, "--format", "ndjson"])?;
        ensure!(ran.code == code, "{damage}: exit code {} instead of {code}: {}", ran.code, ran.stderr);
        ensure!(!ran.stderr.contains("panicked"), "{damage}: {ran:?}");
    }
    fs::remove_file(PATH)?;
    Ok(())
}

/// Returns the offset and the header of each slot of a capture.
fn slots(capture: &[u8]) -> Result<Vec<(usize, SlotHeader)>> {
    let (mut slots, mut at) = (Vec::new(), 0);
    while at < capture.len() {
        let (header, _) = SlotHeader::read_from_prefix(&capture[at..]).ok().context("a header is cut off")?;
        slots.push((at, header));
        at += header.used_bytes().context("no slot has such a length")?;
    }
    Ok(slots)
}

fn walk_finds_each_leaf(_: &Machine) -> Outcome {
    #[derive(Deserialize)]
    struct Walk {
        mapped: bool,
        #[serde(deserialize_with = "maybe_hex")]
        output: Option<u64>,
        steps: Vec<Row>,
    }
    let vmm = VmmProcess::start(GUEST)?;
    for run in &vmm.expected.runs {
        // Inside the page, so that the offset must be kept.
        let walk = program::run(&["walk", &target(&vmm), &format!("{:#x}", run.ia + 0x123), "--json"])?;
        let poisoned = run.entry.state == State::Poisoned;
        let walk: Walk = serde_json::from_str(&walk.stdout).with_context(|| format!("{walk:?}"))?;
        ensure!(walk.mapped != poisoned, "{run:x?}: mapped {}", walk.mapped);
        let leaf = walk.steps.last().context("no steps")?;
        let found = leaf.run()?.with_context(|| format!("{run:x?} is a hole: {leaf:?}"))?;
        ensure!(found == Run { ia: run.ia, count: 1, entry: run.entry }, "{run:x?}: walk found {found:x?}");
        let exact = run.entry.oa.map(|oa| oa + 0x123);
        ensure!(walk.output == exact, "{run:x?}: leads to {:x?}", walk.output);
    }
    vmm.end()
}

fn verify_and_atomic(machine: &Machine) -> Outcome {
    let vmm = VmmProcess::start(GUEST)?;
    let options: &[&str] = if machine.atomic { &["--verify", "--atomic"] } else { &["--verify"] };
    for option in options {
        let text = program::run(&["dump", &target(&vmm), "--exact", "--format", "ndjson", option])?.ok()?;
        let dump = Printed::parse(&text)?;
        same(&LeafMap::from_runs(&vmm.expected.runs), &dump.leaves()?).context(*option)?;
        let is_said = match *option {
            "--verify" => dump.trailer.verify == "same",
            _ => dump.trailer.consistency == "atomic",
        };
        ensure!(is_said, "{option}: the trailer says {:?}", dump.trailer);
    }
    vmm.end()
}

/// A table that changes between the two passes is a finding.
fn verify_of_a_guest_at_work(machine: &Machine) -> Outcome {
    const TIMES: usize = 20;
    let vmm = VmmProcess::start_churning("ordinary --mem 0x80000000+2M touch:1", "64*8")?;
    let mut changed = 0;
    for number in 0..machine.fewer(TIMES) {
        let ran = program::run(&["dump", &target(&vmm), "--format", "ndjson", "--verify"])?;
        ensure!(matches!(ran.code, 0 | exit::FINDING), "time {number}: {ran:?}");
        let said = Printed::parse(&ran.stdout)?.trailer.verify;
        let wanted = if ran.code == exit::FINDING { "changed" } else { "same" };
        ensure!(said == wanted, "time {number}: exit code {}, but {said}", ran.code);
        changed += usize::from(ran.code == exit::FINDING);
    }
    ensure!(changed > 0, "no change was found");
    Ok(())
}
