// SPDX-License-Identifier: MIT OR Apache-2.0
//! A table becomes a hole or a block while a dump is in the middle of it: the entry that the dump goes on with begins
//! before the cursor. What is told stays without gap and overlap, and says that the table changed there.
//!
//! Provoked step by step, where it happens each time; and by a guest and a VMM at work, where it is counted.

use super::ndjson::Printed;
use super::support::handle_of;
use super::{tests, Ignored, Outcome};
use crate::device::{dump_request, Device};
use crate::dump::{entry_bytes, Dump};
use crate::machine::Machine;
use crate::program;
use crate::scale::at;
use crate::script::{block_bytes, page_bytes};
use crate::system::free_blocks;
use crate::vmm_process::VmmProcess;
use anyhow::{ensure, Context as _, Result};
use s2dump_abi::hypercall::Status;
use s2dump_abi::ioctl::Start;
use s2dump_abi::slot::RecordKind;
use std::ops::Range;
use std::time::{Duration, Instant};

tests!(On:
    table_becomes_a_hole,
    table_becomes_a_block;
    heavy:
    dumps_while_tables_come_and_go,
    rows_while_tables_come_and_go,
    debugfs_while_tables_come_and_go,
);

/// The block whose table changes, one of `thp` memory, and the steps that make a table of it that does not fold.
const BLOCK: u64 = 0x8020_0000;
const GUEST: &str = "ordinary --mem 0x80000000+6M,thp";
const FILL: &str = "small:0x80200000+512 touch:0x80200000+64*2";
/// So few descriptors that a call ends within the table: one for each level above, and some of its own; a record counts
/// as several.
const BUDGET: u32 = 64;

/// Guests at work, each with what its VMM takes away again and again. Tables of level 3 become holes; or blocks, and come
/// again; the only block of a table of level 2 goes, and that table with it.
///
/// Also the addresses of what is at work, and of the table of level 2 that leads there. The third has one of its own, the
/// third of them; the code of the guest is in the second with pages of 4 KiB, in the first with larger ones.
fn guests_at_work() -> [(String, &'static str, Range<u64>); 3] {
    let table_bytes = block_bytes() * (page_bytes() / 8);
    let third = 2 * table_bytes..3 * table_bytes;
    let blocks = at(0x8000_0000)..at(0x8000_0000) + 512 * block_bytes();
    [
        ("ordinary --mem 0x80000000+2M".into(), "64*8", blocks.clone()),
        ("ordinary --mem 0x80000000+2M,thp".into(), "64*8", blocks),
        (format!("ordinary --mem {:#x}+2M,huge", third.start), "1", third),
    ]
}

/// Dumps one block, with `steps` done when the first call is behind.
fn dump_around(vmm: &mut VmmProcess, handle: u16, steps: &str) -> Result<Dump> {
    let device = Device::open()?;
    let (start, end) = (at(BLOCK), at(BLOCK) + block_bytes());
    let request = Start { start, end, budget: BUDGET, ..dump_request(handle) };
    // The start makes the first call by itself, and only that.
    device.run_with(&request, || vmm.steps(steps))
}

/// How often a change is provoked.
const TIMES: usize = 200;

fn provoke(machine: &Machine, times: usize, steps: &str, kind: RecordKind) -> Outcome {
    let mut vmm = VmmProcess::start(GUEST)?;
    vmm.steps("touch:0x80400000+1")?;
    let handle = handle_of(&vmm)?;
    for number in 0..machine.fewer(times) {
        vmm.steps(FILL)?;
        let dump = dump_around(&mut vmm, handle, steps).with_context(|| format!("time {number}"))?;
        ensure!(dump.status()? == Status::OK, "time {number}: ended with {:?}", dump.status()?);
        let [first, second] = dump.headers.as_slice() else { anyhow::bail!("{} calls, not 2", dump.headers.len()) };
        ensure!(
            first.next > at(BLOCK) && first.next < at(BLOCK) + block_bytes(),
            "the first call ended at {:#x}",
            first.next
        );
        ensure!(dump.reaching_back == 1, "time {number}: the table did not change: {dump:x?}");
        let entry = dump.records.last().context("no record")?;
        ensure!(
            entry.ia == at(BLOCK) && entry.level == 2 && entry.kind == kind.0 && entry.count == 1,
            "time {number}: goes on at {:#x} with {entry:x?}",
            second.start
        );
        vmm.steps("drop:0x80200000+512")?;
    }
    vmm.end()
}

fn table_becomes_a_hole(machine: &Machine) -> Outcome {
    provoke(machine, TIMES, "drop:0x80200000+512", RecordKind::INVALID)
}

fn table_becomes_a_block(machine: &Machine) -> Outcome {
    if !machine.flavor.reclaims_page_tables() {
        return Err(Ignored("in this kernel pages do not become a large page again".into()).into());
    }
    let free = free_blocks()?;
    ensure!(free >= 4, "{free} free blocks of level 2: too few for a test");
    // The kernel clears each block: one of 64 KiB pages has 512 MiB.
    let times = TIMES.min((TIMES as u64 * (32 << 20) / block_bytes()) as usize);
    provoke(machine, times, "drop:0x80200000+512 large:0x80200000+512 touch:0x80200000+1", RecordKind::LEAF)
}

/// Looks at each of the `guests` at work until it has met a change `floor` times; each look returns how often it did.
fn at_work(
    machine: &Machine,
    guests: &[(String, &str, Range<u64>)],
    floor: usize,
    mut look: impl FnMut(&VmmProcess, &Range<u64>) -> Result<usize>,
) -> Outcome {
    const PATIENCE: Duration = Duration::from_secs(90);
    let floor = machine.fewer(floor);
    for (guest, place, range) in guests {
        let vmm = VmmProcess::start_churning(&format!("{guest} touch:1"), place)?;
        let (begin, mut met, mut looks) = (Instant::now(), 0, 0);
        while met < floor {
            met += look(&vmm, range).with_context(|| format!("{guest}, time {looks}"))?;
            looks += 1;
            ensure!(begin.elapsed() < machine.patience(PATIENCE), "{guest}: met {met} changes in {looks} looks");
        }
        println!("  {guest}: met {met} changes in {looks} looks");
    }
    Ok(())
}

fn dumps_while_tables_come_and_go(machine: &Machine) -> Outcome {
    at_work(machine, &guests_at_work(), 20, |vmm, range| {
        let request = Start { start: range.start, end: range.end, budget: BUDGET, ..dump_request(handle_of(vmm)?) };
        // Checks that the records of each slot follow each other and those of the slot before.
        let dump = Device::open()?.run(&request)?;
        ensure!(dump.status()? == Status::OK, "ended with {:?}", dump.status()?);
        let last = dump.headers.last().context("no slot")?;
        ensure!(last.next == range.end, "ends at {:#x}", last.next);
        Ok(dump.reaching_back)
    })
}

fn rows_while_tables_come_and_go(machine: &Machine) -> Outcome {
    at_work(machine, &guests_at_work(), 10, |vmm, _| {
        let target = format!("vm:{}", vmm.expected.pid);
        let text = program::run(&["dump", &target, "--format", "ndjson", "--budget", "64"])?.ok()?;
        let dump = Printed::parse(&text)?;
        let (mut at, mut changes) = (0, 0);
        for row in &dump.rows {
            ensure!(row.start == at, "after {at:#x} comes {:#x}", row.start);
            ensure!(row.skipped_bytes == 0 || row.changed_before, "{:#x} begins within an entry", row.start);
            changes += usize::from(row.changed_before);
            at = row.end;
        }
        ensure!(at == 1 << vmm.expected.ipa_bits, "the rows end at {at:#x}");
        ensure!(dump.trailer.complete, "not complete: {text}");
        let told = dump.changes();
        ensure!(told == changes, "{changes} rows after a change, but the last line tells of {told}");
        Ok(changes)
    })
}

fn debugfs_while_tables_come_and_go(machine: &Machine) -> Outcome {
    // Of the third a file has so few records that one call tells of a whole table.
    at_work(machine, &guests_at_work()[..2], 10, |vmm, _| {
        let text = vmm.debugfs("stage2_page_tables")?;
        let rows = text_rows(&text, vmm.expected.ipa_bits)?;
        // A row that begins within an entry of its level was cut there, as the rows before it tell of a table.
        Ok(rows.iter().filter(|(start, level)| entry_bytes(*level).is_some_and(|size| start % size != 0)).count())
    })
}

/// Reads the kernel's own text; returns start and level of each row, which must follow the row before it and have bytes,
/// and of which the last must end where the space does.
pub(crate) fn text_rows(text: &str, ipa_bits: u32) -> Result<Vec<(u64, i8)>> {
    let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).with_context(|| word.to_owned());
    let (mut rows, mut at) = (Vec::new(), 0);
    let mut lines = text.lines();
    ensure!(lines.next() == Some("---[ Guest IPA ]---"), "begins otherwise: {text}");
    for line in lines {
        let mut words = line.split_whitespace();
        let (start, end) = words.next().and_then(|range| range.split_once('-')).with_context(|| line.to_owned())?;
        let (start, end) = (hex(start)?, hex(end)?);
        let level = words.nth(1).and_then(|level| level.parse().ok()).with_context(|| format!("no level: {line}"))?;
        ensure!(start == at && end > start, "after {at:#x} comes {line}");
        rows.push((start, level));
        at = end;
    }
    ensure!(at == 1 << ipa_bits, "ends at {at:#x}");
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::text_rows;

    const TOP: &str = "---[ Guest IPA ]---\n";

    #[test]
    fn good_text() {
        let text = format!("{TOP}0x0000000000000000-0x0000000000200000          2M 2\n0x0000000000200000-0x0000000100000000   4094M 3   R W\n");
        assert_eq!(text_rows(&text, 32).unwrap(), [(0, 2), (0x20_0000, 3)]);
    }

    #[test]
    fn bad_text() {
        for rows in [
            "",
            "0x0000000000000000-0x0000000000200000          2M 2\n",
            "0x0000000000200000-0x0000000100000000          2M 2\n",
            "0x0000000000000000-0x0000000000200000          2M 2\n0x0000000000300000-0x0000000100000000          2M 2\n",
            "0x0000000000000000-0x0000000040370000          2M 3\n0x0000000040370000-0x0000000040200000 18014398509480512K 2\n",
            "0x0000000000000000-0x0000000100000000          4G\n",
        ] {
            assert!(text_rows(&format!("{TOP}{rows}"), 32).is_err(), "{rows:?}");
        }
    }
}
