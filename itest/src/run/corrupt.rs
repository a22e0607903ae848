// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each rule of the audit can fail on a live machine: one word of a table, or of what pKVM keeps about a frame, is changed
//! behind pKVM's back, and the audit says so, of the machine and of a capture, by the rule that is about it and by no other. Then the word is put back, and
//! the audit is clean again.
//!
//! The guest cannot write that memory, the workstation can, by QEMU's gdbstub. A line `s2dump-poke: ADDRESS VALUE` asks
//! for it; the guest looks at EL2's answer until it has changed.

use super::test::{handle_of, list};
use crate::audit::Audit;
use crate::device::{dump_request, Device};
use crate::dump::{entry_bytes, Dump};
use crate::machine::Flavor;
use crate::program;
use crate::script::page_bytes;
use crate::vmm_process::VmmProcess;
use anyhow::{bail, ensure, Context as _, Result};
use s2dump_abi::hypercall::{Op, Status};
use s2dump_abi::ioctl::Start;
use s2dump_abi::slot::{FactKind, Record, RecordKind};
use s2dump_abi::target::Target;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A protected guest with pages of its own, shared and poisoned ones; and an ordinary one.
const PROTECTED: &str = "protected --physical touch:16 share:4 poison:0x80008000+1";
const ORDINARY: &str = "ordinary --physical touch:16";
/// A page that the protected guest owns, and the first that none of the two has.
const OWNED: u64 = 0x8000_5000;
const HOLE: u64 = 0x8001_8000;
/// Devices of QEMU's machine: the console, which the host maps, and a place where there is none.
const CONSOLE: u64 = 0x0900_0000;
const NOWHERE: u64 = 0x1_0000_0000;
/// How long the workstation may take to write a word.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bits of descriptors: Arm ARM D8.3, and pKVM's as of Linux 7.2.
const BLOCK: u64 = 0b01;
const TYPE: u64 = 0b11;
const S2AP_WRITE: u64 = 1 << 7;
const XN: u64 = 0b11 << 53;
const S1_AP_READ_ONLY: u64 = 1 << 7;
const SOFTWARE_STATE: u64 = 0b11 << 55;
const ATTRIBUTES: u64 = !0xffff_ffff_f000;
const LOCKED: u64 = 1 << 60;
const DONATED_TO_HYP: u64 = 2 << 60 | 1 << 1;
const POISONED: u64 = 3 << 60;
/// The same of android16-6.12. Owners are 8 bits, of which it uses a few.
const ANDROID_LOCKED: u64 = 1 << 10;
const ANDROID_OWNER: u64 = 0xff << 2;
const ANDROID_MMIO_GUARD: u64 = 1 << 11;
/// Fields of what mainline keeps about a frame.
const HOST_STATE: u64 = 0xf << 24;
const SHARE_COUNT_ONE: u64 = 1 << 32;

/// A 64-bit word to change: where it is, and what is in it.
#[derive(Clone, Copy, Debug)]
struct Word {
    place: Place,
    at: u64,
    value: u64,
}

/// How EL2 tells what is in a word.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// As the last descriptor on the way to this input address.
    Entry(Target, u64),
    /// As the state of the frame at this address.
    Frame(u64),
}

impl Place {
    fn look(self) -> Result<u64> {
        match self {
            Self::Entry(target, ia) => Ok(last_step(target, ia)?.1.descriptor),
            Self::Frame(pa) => frame(pa),
        }
    }
}

fn walk(target: Target, ia: u64) -> Result<Dump> {
    let start = Start { op: Op::WALK.0, target: target.0, start: ia, end: 0, ..dump_request(0) };
    let dump = Device::open()?.run(&start)?;
    ensure!(dump.status()? == Status::OK, "walk of {target:x?} at {ia:#x}: {:?}", dump.status()?);
    Ok(dump)
}

/// Returns the physical address of the last entry on the way to `ia`, and the entry.
fn last_step(target: Target, ia: u64) -> Result<(u64, Record)> {
    let dump = walk(target, ia)?;
    let (last, above) = dump.records.split_last().context("a walk without steps")?;
    let (table, index_mask) = match above.last() {
        Some(table) => (table.oa, page_bytes() / 8 - 1),
        // Concatenated tables are one.
        None => (dump.headers.first().context("no slot")?.root, u64::MAX),
    };
    let size = entry_bytes(last.level).context("a level that cannot be")?;
    Ok((table + ((ia / size) & index_mask) * 8, *last))
}

fn entry(target: Target, ia: u64) -> Result<Word> {
    let (at, record) = last_step(target, ia)?;
    Ok(Word { place: Place::Entry(target, ia), at, value: record.descriptor })
}

fn frame(pa: u64) -> Result<u64> {
    let start = Start { op: Op::FRAMES.0, target: 0, start: pa, end: pa + page_bytes(), ..dump_request(0) };
    let dump = Device::open()?.run(&start)?;
    let [frame] = dump.frames.as_slice() else { bail!("frame {pa:#x}: {:x?}", dump.frames) };
    Ok(frame.raw)
}

/// Returns the word that pKVM keeps about the frame at `pa`.
fn frame_word(pa: u64) -> Result<Word> {
    let facts = Device::open()?.run(&Start { op: Op::FACTS.0, target: 0, end: 0, ..dump_request(0) })?.facts;
    let states = facts.iter().find(|fact| fact.kind == FactKind::HYP_VMEMMAP.0).context("no HYP_VMEMMAP")?;
    let va = states.start + pa / page_bytes() * 8;
    let (_, record) = last_step(Target::HYP, va)?;
    ensure!(record.kind == RecordKind::LEAF.0, "EL2 does not map {va:#x}: {record:x?}");
    let size = entry_bytes(record.level).context("a level that cannot be")?;
    Ok(Word { place: Place::Frame(pa), at: record.oa + va % size, value: frame(pa)? })
}

/// Has the workstation write `value`, and waits until EL2 sees it.
fn poke(word: &Word, value: u64) -> Result<()> {
    println!("s2dump-poke: {:#x} {value:#x}", word.at);
    let begin = Instant::now();
    while word.place.look()? != value {
        ensure!(begin.elapsed() < PATIENCE, "{:#x} was not written: is this machine run by `xtask test`?", word.at);
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Runs the audit, of the machine and of a capture of it, in which the tables of guests and of EL2 are at rest; returns the ids of
/// the rules that do not hold.
fn audit() -> Result<BTreeSet<String>> {
    const PATH: &str = "/tmp/corrupt.s2d";
    let found = |audit: &Audit| audit.findings.iter().map(|(rule, _)| rule.clone()).collect::<BTreeSet<_>>();
    let live = found(&Audit::run(&[])?);
    program::run(&["capture", "--all", "-O", PATH])?.ok()?;
    let captured = Audit::run(&["-i", PATH])?;
    ensure!(found(&captured) == live, "the machine: {live:?}; a capture of it: {:?}", found(&captured));
    let at_rest = captured.at_rest.iter().filter(|table| *table != "host").count();
    ensure!(at_rest == 3, "not at rest while nothing happens: {:?}", captured.at_rest);
    Ok(live)
}

/// Changes the word of `place`, audits, and puts it back.
fn breaks(rule: &str, word: Word, value: u64) -> Result<()> {
    ensure!(word.value != value, "{rule}: no change: {word:x?}");
    poke(&word, value)?;
    let found = audit();
    poke(&word, word.value)?;
    let found = found.with_context(|| rule.to_owned())?;
    ensure!(found.iter().eq([rule]), "{rule}: the audit says {found:?} of {word:x?} with {value:#x}");
    println!("  {rule}: found, and nothing else");
    Ok(())
}

/// Returns an entry of EL2's linear map that EL2 may write.
fn writable_entry() -> Result<Word> {
    let dump = Device::open()?.run(&Start { target: Target::HYP.0, ..dump_request(0) })?;
    let is_it = |record: &&Record| {
        record.kind == RecordKind::LEAF.0 && record.level == 3 && record.descriptor & S1_AP_READ_ONLY == 0
    };
    let record = dump.records.iter().filter(is_it).max_by_key(|record| record.count).context("nothing is writable")?;
    entry(Target::HYP, record.ia)
}

/// Returns the first page of EL2's code.
fn text_page() -> Result<u64> {
    let facts = Device::open()?.run(&Start { op: Op::FACTS.0, target: 0, end: 0, ..dump_request(0) })?.facts;
    Ok(facts.iter().find(|fact| fact.kind == FactKind::HYP_TEXT.0).context("no HYP_TEXT")?.start)
}

fn corrupt() -> Result<()> {
    let (protected, ordinary) = (VmmProcess::start(PROTECTED)?, VmmProcess::start(ORDINARY)?);
    let guest = Target::guest(handle_of(&protected)?);
    let other = Target::guest(handle_of(&ordinary)?);
    ensure!(list()?.len() == 2, "not two VMs");
    ensure!(audit()?.is_empty(), "not clean before anything was changed");

    let leaf = entry(guest, OWNED)?;
    let owned = last_step(guest, OWNED)?.1.oa;
    let lent = last_step(other, 0x8000_0000)?.1.oa;
    let device = last_step(Target::HOST, CONSOLE)?.1.descriptor & ATTRIBUTES & !TYPE;
    let memory = last_step(Target::HOST, lent)?.1.descriptor & ATTRIBUTES & !TYPE;
    let nowhere = entry(Target::HOST, NOWHERE)?;
    ensure!(nowhere.value == 0, "the host has {:#x} at {NOWHERE:#x}", nowhere.value);
    let donated = entry(Target::HOST, owned)?;

    let hole = entry(guest, HOLE)?;
    breaks("host-identity", nowhere, device | BLOCK | (NOWHERE + (1 << 30)))?;
    breaks("guest-exclusive", donated, memory | TYPE | owned)?;
    breaks("entry-reserved", hole, BLOCK)?;
    let borrowed = entry(other, 0x8000_0000)?;
    breaks("ordinary-borrowed", borrowed, borrowed.value & !SOFTWARE_STATE)?;
    let text = last_step(Target::HOST, text_page()?)?.1;
    ensure!(text.level == 3, "EL2's code is not in pages: {text:x?}");
    breaks("hyp-text-read-only", entry(Target::HOST, text.ia)?, memory | TYPE | text.ia)?;
    let is_mainline = Flavor::look()? == Flavor::Mainline;
    let locked = if is_mainline { LOCKED } else { ANDROID_LOCKED };
    breaks("entry-locked", hole, locked)?;
    let other_owner =
        if is_mainline { donated.value & !(0b111 << 1) | 5 << 1 } else { donated.value & !ANDROID_OWNER | 0x55 << 2 };
    breaks("host-annotation-owner", donated, other_owner)?;
    breaks("guest-poison", entry(other, HOLE)?, if is_mainline { POISONED } else { ANDROID_MMIO_GUARD })?;
    if is_mainline {
        breaks("host-rights", nowhere, device & !XN | BLOCK | NOWHERE)?;
        breaks("host-annotation-memory", nowhere, DONATED_TO_HYP)?;
        breaks("donation-backed", donated, donated.value ^ 1 << 20)?;
        breaks("owned-donated", donated, 0)?;
        breaks("protected-leaf", leaf, leaf.value & !S2AP_WRITE)?;
        breaks("guest-memory", hole, leaf.value & ATTRIBUTES | NOWHERE)?;
        let writable = writable_entry()?;
        breaks("hyp-write-execute", writable, writable.value & !XN)?;
        let state = frame_word(owned)?;
        breaks("frame-donated", state, state.value & !HOST_STATE)?;
        let count = frame_word(lent)?;
        breaks("share-count", count, count.value + SHARE_COUNT_ONE)?;
    }

    ensure!(audit()?.is_empty(), "not clean after everything was put back");
    protected.end()?;
    ordinary.end()
}

/// Runs; returns 0 if each change was found.
pub fn run() -> i32 {
    match corrupt() {
        Ok(()) => 0,
        Err(error) => {
            println!("corrupt: FAILED: {error:#}");
            1
        }
    }
}
