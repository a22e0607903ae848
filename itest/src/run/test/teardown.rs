// SPDX-License-Identifier: MIT OR Apache-2.0
//! A VM ends while it is looked at. The host takes its pages back one by one while EL2 still has its table: what is told
//! meanwhile says that it may lack pages, and what does not say so lacks none.

use super::ndjson::Printed;
use super::support::{check_nothing_broken, handle_of, list, needs_dying};
use super::{tests, Outcome};
use crate::device::{dump_request, Device, StartRefused};
use crate::dump::{entry_bytes, Dump};
use crate::machine::Machine;
use crate::program::{self, exit, Ran};
use crate::script::{block_bytes, page_bytes};
use crate::vmm_process::VmmProcess;
use anyhow::{bail, ensure, Context as _, Result};
use rustix::io::Errno;
use s2dump_abi::hypercall::{Op, Status, DEFAULT_BUDGET};
use s2dump_abi::ioctl::Start;
use s2dump_abi::slot::{slot_flags, vm_flags, RecordKind};
use std::fs::File;
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

tests!(On: dying_is_told, debugfs_open_before_teardown; heavy: killed_mid_dump);

/// Returns what is mapped beside the guest's code page: 256 MiB, or two blocks where that is more.
fn mapped_bytes() -> u64 {
    u64::max(256 << 20, 2 * block_bytes())
}

/// How dumps and runs of the program ended.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    /// Whether the host may take pages from the table of a VM that is not dying, because its process has ended.
    may_lack: bool,
    /// All the VMM mapped was told.
    whole: usize,
    /// Begun before the teardown, and said to have been cut by it.
    cut: usize,
    /// Begun after the teardown, and said to be no more than what is left.
    dying: usize,
    /// There was no VM any more.
    gone: usize,
}

impl Ends {
    fn add(&mut self, other: &Self) {
        self.whole += other.whole;
        self.cut += other.cut;
        self.dying += other.dying;
        self.gone += other.gone;
    }

    /// Counts one dump of a VM that has so many `bytes` mapped, if what it says of itself is so.
    fn count(&mut self, dump: &Dump, bytes: u64) -> Result<()> {
        let dying = |flags: u16| flags & slot_flags::DYING != 0;
        let (last, before) = dump.headers.split_last().context("no slot")?;
        ensure!(!before.iter().any(|slot| dying(slot.flags)), "a dying VM was dumped on: {:x?}", dump.headers);
        match dump.status()? {
            Status::OK => {
                ensure!(!dying(last.flags), "whole, and yet of a dying VM: {last:x?}");
                let runs = dump.records.iter().filter(|record| record.kind == RecordKind::LEAF.0);
                let found: u64 =
                    runs.map(|run| u64::from(run.count) * entry_bytes(run.level).unwrap_or_default()).sum();
                let is_right = found == bytes || self.may_lack && found < bytes;
                ensure!(is_right, "said to be whole, with {found:#x} of {bytes:#x} bytes");
                self.whole += 1;
            }
            Status::VM_DYING => {
                ensure!(dying(last.flags), "said to be of a dying VM, by no slot: {last:x?}");
                if before.is_empty() {
                    self.dying += 1;
                } else {
                    self.cut += 1;
                }
            }
            Status::VM_GONE => self.gone += 1,
            status => bail!("ended with {status:?}"),
        }
        Ok(())
    }
}

/// Dumps as fast as it can until the VM is dying or gone. Not on and on: whoever dumps holds the VM, so that two who do so
/// by turns would never let it go.
fn dump_until_gone(request: &Start, bytes: u64, may_lack: bool) -> Result<Ends> {
    let mut ends = Ends { may_lack, ..Ends::default() };
    loop {
        match Device::open()?.run(request) {
            Ok(dump) => {
                ends.count(&dump, bytes)?;
                if ends.dying + ends.gone > 0 {
                    return Ok(ends);
                }
            }
            Err(error) if error.downcast_ref() == Some(&StartRefused(Errno::NOENT)) => {
                ends.gone += 1;
                return Ok(ends);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Runs the program likewise.
fn program_until_gone(target: &str, budget: u32, bytes: u64, may_lack: bool) -> Result<Ends> {
    let mut ends = Ends { may_lack, ..Ends::default() };
    let budget = budget.to_string();
    loop {
        let ran = program::run(&["dump", target, "--format", "ndjson", "--budget", &budget])?;
        match ran.code {
            0 => {
                let dump = Printed::parse(&ran.stdout)?;
                let (trailer, found) = (&dump.trailer, dump.mapped_bytes());
                ensure!(trailer.complete && trailer.consistency != "dying", "exit code 0, but {trailer:?}");
                ensure!(found == bytes || may_lack && found < bytes, "exit code 0 with {found:#x} of {bytes:#x} bytes");
                ends.whole += 1;
            }
            // Before the first slot: said on standard error only.
            exit::PARTIAL if ran.stdout.is_empty() => {
                match (ran.stderr.contains(TORN_DOWN), ran.stderr.contains("went away")) {
                    (true, false) => ends.dying += 1,
                    (false, true) => ends.gone += 1,
                    _ => bail!("exit code {}, and it says: {}", exit::PARTIAL, ran.stderr.trim()),
                }
                return Ok(ends);
            }
            exit::PARTIAL => {
                if is_told_as_dying(&ran)? == 1 {
                    ends.dying += 1;
                } else {
                    ends.cut += 1;
                }
                return Ok(ends);
            }
            exit::NO_SUCH_VM => {
                ran.fails(exit::NO_SUCH_VM, &["no such VM"])?;
                ends.gone += 1;
                return Ok(ends);
            }
            code => bail!("exit code {code}: {}", ran.stderr.trim()),
        }
    }
}

/// What the program says of a VM that is dying.
const TORN_DOWN: &str = "the VM is being torn down, so pages that it had may be missing";

/// Checks that an ndjson dump says so where a program looks, and where a person does; returns in how many calls it was read.
fn is_told_as_dying(ran: &Ran) -> Result<u64> {
    ran.fails(exit::PARTIAL, &[])?;
    let trailer = Printed::parse(&ran.stdout)?.trailer;
    let said = (trailer.complete, trailer.incomplete_reason.as_deref(), trailer.consistency.as_str());
    ensure!(said == (false, Some(TORN_DOWN), "dying"), "the trailer says {trailer:?}");
    ensure!(ran.stderr.contains(TORN_DOWN), "said to a person: {}", ran.stderr.trim());
    Ok(trailer.calls)
}

/// A VMM with 256 MiB or more mapped is killed in the middle of a dump, many times, at other moments each.
fn killed_mid_dump(machine: &Machine) -> Outcome {
    const KILLS: usize = 12;
    // To touch it page by page takes many seconds: done for some of them only.
    let (mapped, blocks) = (mapped_bytes(), mapped_bytes() / block_bytes());
    let (pages, entries) = (mapped / page_bytes(), page_bytes() / 8);
    let by_page = format!("protected --mem 0x80000000+{mapped} touch:{pages}");
    let by_block = format!("ordinary --mem 0x80000000+{mapped},thp large:{pages} touch:{blocks}*{entries}");
    let (mut dumps, mut runs) = (Ends::default(), Ends::default());
    for number in 0..KILLS {
        // A dump takes some milliseconds: the kills are spread over it.
        let delay = Duration::from_micros(50_000 + 1300 * number as u64) * machine.slow;
        let is_slow = number % 6 == 0;
        // A protected guest's pages are pinned.
        let may_lack = machine.flavor.lives_while_held() && !is_slow;
        let mut vmm = VmmProcess::start_exactly(if is_slow { &by_page } else { &by_block })?;
        let bytes = mapped + page_bytes();
        // Few descriptors at a time where there are few, so that a dump has many calls.
        let request = Start { budget: if is_slow { DEFAULT_BUDGET } else { 64 }, ..dump_request(handle_of(&vmm)?) };
        let (target, budget) = (format!("vm:{:#x}", handle_of(&vmm)?), request.budget);
        let dumper = std::thread::spawn(move || dump_until_gone(&request, bytes, may_lack));
        // The program too, every other time: it makes the dumps of both slower.
        let runner =
            (number % 2 == 0).then(|| std::thread::spawn(move || program_until_gone(&target, budget, bytes, may_lack)));
        std::thread::sleep(if runner.is_some() { delay * 5 } else { delay });
        vmm.kill();
        dumps.add(&dumper.join().expect("the thread returns its panics as errors")?);
        if let Some(runner) = runner {
            runs.add(&runner.join().expect("the thread returns its panics as errors")?);
        }
    }
    println!("  dumps: {dumps:?}");
    println!("  the program: {runs:?}");
    // A kill meets a dump or falls between two; the program spends less of its time in one, and on
    // a busy machine all of its 6 runs met a VM that was dying already. With calls so large that a dump is one of them, no
    // dump is cut.
    if machine.flavor.lives_while_held() {
        // The dump that a kill meets is whole.
        ensure!(dumps.whole >= KILLS && dumps.cut + dumps.dying == 0, "dumps: {dumps:?}");
        ensure!(runs.whole >= 2 && runs.cut + runs.dying == 0, "the program: {runs:?}");
    } else {
        ensure!(dumps.whole >= KILLS && dumps.cut >= KILLS / 4, "hardly a test: {dumps:?}");
        ensure!(runs.whole >= 2 && runs.cut + runs.dying >= KILLS / 4, "hardly a test of the program: {runs:?}");
    }
    check_nothing_broken(machine)
}

/// An open file of debugfs keeps a VM whose process has ended from going away: it is dying, for as long as we like.
fn dying_is_told(machine: &Machine) -> Outcome {
    needs_dying(machine)?;
    for kind in ["protected", "ordinary"] {
        let mut vmm = VmmProcess::start(&format!("{kind} touch:16"))?;
        let handle = handle_of(&vmm)?;
        let held = File::open(format!("/sys/kernel/debug/kvm/{}/ipa_range", vmm.expected.debugfs))?;
        vmm.kill();

        let vms = list()?;
        let vm = vms.iter().find(|vm| vm.handle == handle).with_context(|| format!("not listed: {vms:x?}"))?;
        ensure!(vm.flags & vm_flags::DYING != 0, "listed as {vm:x?}");
        for op in [Op::DUMP, Op::WALK] {
            let walk = Start { op: op.0, start: 0x8000_0000, end: 0, ..dump_request(handle) };
            let request = if op == Op::WALK { walk } else { dump_request(handle) };
            let dump = Device::open()?.run(&request)?;
            ensure!(dump.status()? == Status::VM_DYING, "{op:?} ended with {:?}", dump.status()?);
            let flags = dump.headers.iter().map(|slot| slot.flags & slot_flags::DYING != 0).collect::<Vec<_>>();
            ensure!(flags == [true], "{op:?}: slots say dying {flags:?}");
        }
        let target = format!("vm:{handle:#x}");
        let incomplete = format!("INCOMPLETE: {TORN_DOWN}");
        for command in [&["dump", &target][..], &["dump", &target, "--verify"], &["walk", &target, "0x80000000"]] {
            let ran = program::run(command)?;
            ran.fails(exit::PARTIAL, &[])?;
            // Whoever keeps one of the two keeps the warning.
            let said = [&ran.stdout, &ran.stderr].map(|text| text.contains(&incomplete));
            ensure!(said == [true, true], "{command:?}: said on standard output and error: {said:?}: {ran:?}");
        }
        let calls = is_told_as_dying(&program::run(&["dump", &target, "--format", "ndjson"])?)?;
        ensure!(calls == 1, "{calls} calls for a dying VM");
        let walk = program::run(&["walk", &target, "0x80000000", "--json"])?;
        walk.fails(exit::PARTIAL, &[TORN_DOWN])?;
        let walk: serde_json::Value = serde_json::from_str(&walk.stdout).with_context(|| walk.stdout.clone())?;
        ensure!(walk["dying"] == true, "the walk says {walk}");
        let listed = program::run(&["list"])?.ok()?;
        let line = listed.lines().find(|line| line.contains(&target)).context("not listed by the program")?;
        ensure!(line.contains("dying"), "the list says nothing of it: {line}");
        drop(held);
    }
    check_nothing_broken(machine)
}

/// A file opened while the VM lived says what is the matter, instead of what is left.
fn debugfs_open_before_teardown(machine: &Machine) -> Outcome {
    needs_dying(machine)?;
    // Set by the thread that reads, so that the kill comes in the middle of it.
    static READING: AtomicBool = AtomicBool::new(false);
    for kind in ["protected", "ordinary"] {
        let mut vmm = VmmProcess::start(&format!("{kind} touch:256"))?;
        let path = format!("/sys/kernel/debug/kvm/{}/stage2_page_tables", vmm.expected.debugfs);
        let mut unread = File::open(&path)?;
        let mut again = File::open(&path)?;
        let mut whole = String::new();
        again.read_to_string(&mut whole)?;
        super::changes::text_rows(&whole, vmm.expected.ipa_bits)?;

        READING.store(false, Ordering::Release);
        let bits = vmm.expected.ipa_bits;
        let reader = std::thread::spawn(move || -> Result<usize> {
            for number in 0.. {
                READING.store(number > 3, Ordering::Release);
                let text = File::open(&path).and_then(|mut file| {
                    let mut text = String::new();
                    file.read_to_string(&mut text).map(|_| text)
                });
                match text {
                    Ok(text) => drop(super::changes::text_rows(&text, bits).context("before the end")?),
                    Err(error) if error.raw_os_error() == Some(Errno::STALE.raw_os_error()) => return Ok(number),
                    Err(error) => return Err(error).with_context(|| format!("read {number}")),
                }
            }
            Ok(0)
        });
        while !READING.load(Ordering::Acquire) && !reader.is_finished() {
            std::thread::yield_now();
        }
        vmm.kill();
        let reads = reader.join().expect("the thread returns its panics as errors")?;
        ensure!(reads > 3, "{reads} reads before the VM was stale");

        // The VM is held by the files that are open.
        for (what, file) in [("unread", &mut unread), ("read before", &mut again)] {
            let error = rustix::fs::seek(&*file, rustix::fs::SeekFrom::Start(0))
                .map_err(anyhow::Error::from)
                .and_then(|_| Ok(file.read(&mut [0; 4096])?));
            let errno = error.as_ref().err().and_then(|error| error.downcast_ref::<std::io::Error>());
            ensure!(errno.and_then(Errno::from_io_error) == Some(Errno::STALE), "{what}: {error:?}");
        }
    }
    check_nothing_broken(machine)
}
