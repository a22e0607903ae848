// SPDX-License-Identifier: MIT OR Apache-2.0
//! An intact machine audits clean, whatever its VMs do; and who maps a page is told.

use super::support::handle_of;
use super::{tests, Ignored, Outcome};
use crate::audit::Audit;
use crate::device::{dump_request, Device};
use crate::machine::{Flavor, Machine};
use crate::program::{self, exit};
use crate::scale::at;
use crate::script::page_bytes;
use crate::vmm_process::VmmProcess;
use anyhow::{ensure, Context as _, Result};
use s2dump_abi::hypercall::{DumpFlags, Op, Status};
use s2dump_abi::ioctl::Start;
use s2dump_abi::slot::{Fact, FactKind, Record, RecordKind};
use s2dump_abi::target::Target;
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

tests!(On:
    zoo_audits_clean,
    capture_audits_as_the_machine,
    rmap_tells_who_has_a_page;
    heavy:
    audits_while_vms_live,
    audits_disturb_nothing,
);

/// VMs in all states that a VM can be in at rest, but for a dying one.
const ZOO: [&str; 6] = [
    "protected touch:1",
    "protected touch:64 share:8 unshare:0x80002000+2 poison:0x80010000+2 touch-share:0x80200000+3",
    "protected --vcpus 2 --mem 0x80000000+4M,thp touch:600 1/touch:0x80300000+4 1/share:0x80300000+1",
    "ordinary touch:16 read:0x80100000+4",
    "ordinary --mem 0x80000000+8M,thp large:2048 touch:3*512 small:0x80600000+512 touch:0x80600000+9 drop:0x80602000+3",
    "ordinary --mem 0x80000000+1M,file=/tmp/shared touch:8",
];
/// Has the same memory as the last of those.
const SHARER: &str = "ordinary --mem 0x90000000+1M,file=/tmp/shared read:0x90000000+8";
fn needs_hyp(machine: &Machine) -> Outcome {
    match machine.hyp {
        true => Ok(()),
        false => Err(Ignored("booted without kvm-arm.s2dump=on,hyp".into()).into()),
    }
}

fn zoo() -> Result<Vec<VmmProcess>> {
    ZOO.into_iter().chain([SHARER]).map(VmmProcess::start).collect()
}

fn zoo_audits_clean(machine: &Machine) -> Outcome {
    if !machine.hyp {
        let audit = Audit::run(&[])?;
        ensure!(audit.findings.is_empty(), "{:?}", audit.findings);
        ensure!(audit.not_run.iter().any(|rule| rule == "hyp-write-execute"), "asked, but of what? {audit:?}");
        return Ok(());
    }
    Audit::run(&[])?.is_clean().context("without a VM")?;
    let vms = zoo()?;
    let audit = Audit::run(&[])?;
    audit.is_clean()?;
    ensure!(audit.unsettled == 0, "{} unsettled on a machine at rest", audit.unsettled);
    // One that is being torn down: its file holds it.
    let mut dying = VmmProcess::start("protected touch:200 share:20")?;
    let held = File::open(format!("/sys/kernel/debug/kvm/{}/ipa_range", dying.expected.debugfs))?;
    dying.kill();
    Audit::run(&[])?.is_clean().context("with a dying VM")?;
    drop(held);
    vms.into_iter().try_for_each(VmmProcess::end)?;
    Audit::run(&[])?.is_clean().context("after all VMs ended")
}

fn capture_audits_as_the_machine(machine: &Machine) -> Outcome {
    needs_hyp(machine)?;
    const PATH: &str = "/tmp/machine.s2d";
    let vms = zoo()?;
    program::run(&["capture", "--all", "-O", PATH])?.ok()?;
    let audit = Audit::run(&["-i", PATH])?;
    audit.is_clean()?;
    println!("  {} bytes, {} unsettled", std::fs::metadata(PATH)?.len(), audit.unsettled);
    ensure!(audit.unsettled == 0, "{} unsettled on a machine at rest", audit.unsettled);
    ensure!(audit.at_rest.iter().any(|table| table == "hyp"), "EL2's table was not at rest: {:?}", audit.at_rest);
    ensure!(audit.at_rest.len() >= vms.len(), "guests were not at rest: {:?}", audit.at_rest);
    std::fs::remove_file(PATH)?;
    vms.into_iter().try_for_each(VmmProcess::end)
}

/// Returns the records of a table, exact.
fn records(target: Target) -> Result<Vec<Record>> {
    let dump = Device::open()?.run(&Start { target: target.0, flags: DumpFlags::EXACT.0, ..dump_request(0) })?;
    ensure!(dump.status()? == Status::OK, "{target:x?}: ended with {:?}", dump.status()?);
    Ok(dump.records)
}

fn output_of(vmm: &VmmProcess, ia: u64) -> Result<u64> {
    let target = Target::guest(handle_of(vmm)?);
    let start = Start { op: Op::WALK.0, target: target.0, start: ia, end: 0, ..dump_request(0) };
    let last = Device::open()?.run(&start)?.records.last().copied().context("no step")?;
    ensure!(last.kind == RecordKind::LEAF.0 && last.level == 3, "{ia:#x}: {last:x?}");
    Ok(last.oa)
}

fn rmap_tells_who_has_a_page(machine: &Machine) -> Outcome {
    needs_hyp(machine)?;
    let vmm = VmmProcess::start("protected touch:16 share:4")?;
    let handle = handle_of(&vmm)?;
    let (shared, owned) = (output_of(&vmm, 0x8000_0000)?, output_of(&vmm, at(0x8000_8000))?);
    let facts = Device::open()?.run(&Start { op: Op::FACTS.0, target: 0, end: 0, ..dump_request(0) })?.facts;
    let text = facts.iter().find(|fact| fact.kind == FactKind::HYP_TEXT.0).context("no HYP_TEXT")?.start;
    let donated = records(Target::HOST)?;
    // Mainline: type 2, owner 1 in 3:1. Android: owner 1 in 9:2.
    let of_frame = if machine.flavor == Flavor::Mainline { "owned" } else { "no-page" };
    let owned_by_hyp = if machine.flavor == Flavor::Mainline { 2 << 60 | 2 } else { 1 << 2 };
    let hyp = donated.iter().find(|record| record.descriptor == owned_by_hyp).context("EL2 has no page")?.ia;
    for (what, pa, words) in [
        (
            "shared",
            shared,
            [format!("vm:{handle:#x}"), "0x0000000080000000".into(), "shared-owned".into(), "host".into()],
        ),
        (
            "donated",
            owned,
            [format!("vm:{handle:#x}"), format!("{:#018x}", at(0x8000_8000)), "owned".into(), "host".into()],
        ),
        ("EL2's", hyp, ["hyp".into(), "host".into(), "owner=hyp".into(), of_frame.into()]),
        ("EL2's code", text, ["hyp".into(), "host".into(), "r-x".into(), "frames".into()]),
    ] {
        let said = program::run(&["rmap", &format!("{pa:#x}")])?.ok()?;
        for word in words {
            ensure!(said.contains(&word), "{what} page {pa:#x}: nothing of {word}: {said}");
        }
    }
    vmm.end()
}

fn audits_while_vms_live(machine: &Machine) -> Outcome {
    const AUDITS: usize = 20;
    needs_hyp(machine)?;
    while_vms_live(machine.fewer(AUDITS))?;
    super::support::check_nothing_broken(machine)
}

/// Audits so many times, while VMs start, fault in, share, unshare, are poisoned, killed and end. There is no finding; what is
/// unsettled is told.
pub(super) fn while_vms_live(audits: usize) -> Outcome {
    let is_over = AtomicBool::new(false);
    let lives = AtomicU32::new(0);
    const PATH: &str = "/tmp/living.s2d";
    let (mut unsettled, mut in_captures, mut longest) = (0, 0, Duration::ZERO);
    let begin = Instant::now();
    std::thread::scope(|scope| -> Outcome {
        let live = |guests: [&'static str; 2]| {
            while !is_over.load(Ordering::Relaxed) {
                let mut first = VmmProcess::start(guests[0])?;
                let second = VmmProcess::start(guests[1])?;
                first.kill();
                second.end()?;
                lives.fetch_add(2, Ordering::Relaxed);
            }
            Ok::<_, anyhow::Error>(())
        };
        let threads = [
            ["protected touch:100 share:20*2 unshare:0x80002000+1 poison:0x80001000+1", "ordinary touch:64*2 drop:64"],
            ["ordinary --mem 0x80000000+4M,thp large:1024 touch:1 touch:0x80200000+1", "protected touch:8 share:2"],
        ]
        .map(|guests| scope.spawn(move || live(guests)));
        let churn = VmmProcess::start_churning("ordinary --mem 0x80000000+2M touch:1", "64*8");
        let audits = churn.and_then(|churn| {
            for number in 0..audits {
                let begin = Instant::now();
                let audit = Audit::run(&[])?;
                longest = longest.max(begin.elapsed());
                audit.is_clean().with_context(|| format!("audit {number}"))?;
                unsettled += audit.unsettled;
                // VMs begin and end while this is made too.
                let captured = program::run(&["capture", "--all", "-O", PATH])?;
                ensure!([0, exit::PARTIAL].contains(&captured.code), "capture {number}: {captured:?}");
                let audit = Audit::run(&["-i", PATH])?;
                audit.is_clean().with_context(|| format!("capture {number}"))?;
                in_captures += audit.unsettled;
            }
            drop(churn);
            Ok(())
        });
        is_over.store(true, Ordering::Relaxed);
        let ends = threads.map(|thread| thread.join().expect("the thread returns its panics as errors"));
        audits?;
        ends.into_iter().collect()
    })?;
    let (lives, seconds) = (lives.load(Ordering::Relaxed), begin.elapsed().as_secs());
    let longest = longest.as_secs_f32();
    println!(
        "  {audits} audits, and of captures, in {seconds} s, the longest {longest:.1} s; {lives} VMs meanwhile, {unsettled} \
         and {in_captures} unsettled"
    );
    ensure!(lives > 0, "no VM lived meanwhile");
    Ok(())
}

/// Input address of a page or block -> its descriptor.
type Entries = BTreeMap<u64, u64>;

/// Returns whether an entry of the host's table is what pKVM makes at the first access to `ia`: it leads there, for reading and
/// writing.
fn is_first_access(ia: u64, descriptor: u64) -> bool {
    const ADDRESS: u64 = 0xffff_ffff_f000;
    const VALID_READ_WRITE: u64 = 0b11 << 6 | 1;
    descriptor & VALID_READ_WRITE == VALID_READ_WRITE && descriptor & ADDRESS == ia
}

/// Returns whether `address` is in one of the facts of `kind`.
fn is_in(facts: &[Fact], kind: FactKind, address: u64) -> bool {
    let mut of_kind = facts.iter().filter(|fact| fact.kind == kind.0);
    of_kind.any(|fact| (fact.start..fact.start + fact.size).contains(&address))
}

/// Returns what `target` holds, page by page, but for what may change though nothing does: pages that s2dump shares with
/// EL2, and EL2's fixmap.
fn at_rest(target: Target) -> Result<Entries> {
    let device = Device::open()?;
    let facts = device.run(&Start { op: Op::FACTS.0, target: 0, end: 0, ..dump_request(0) })?.facts;
    let dump = device.run(&Start { target: target.0, flags: DumpFlags::EXACT.0, ..dump_request(0) })?;
    ensure!(dump.status()? == Status::OK, "{target:x?}: ended with {:?}", dump.status()?);
    let is_in = |kind, address| is_in(&facts, kind, address);
    let mut entries = Entries::new();
    for run in dump.records.iter().filter(|run| run.descriptor != 0) {
        let is_leaf = run.kind == RecordKind::LEAF.0;
        let size = crate::dump::entry_bytes(run.level).context("a level that cannot be")?;
        for n in 0..u64::from(run.count) {
            let (ia, step) = (run.ia + n * size, if is_leaf { n * size } else { 0 });
            let is_moving = target == Target::HYP && (is_in(FactKind::FIXMAP, ia) || is_in(FactKind::FIXBLOCK, ia))
                || matches!(target, Target::HYP | Target::HOST) && is_leaf && is_in(FactKind::RING, run.oa + step);
            if !is_moving {
                entries.insert(ia, run.descriptor + step);
            }
        }
    }
    Ok(entries)
}

/// Returns what is kept about frames, where that is not zero, but for pages that s2dump shares with EL2, and references and
/// orders of what is not shared with EL2: a table page counts its entries, of which the ring's are some, and EL2's pools split
/// and join what is free.
fn frames_at_rest() -> Result<Entries> {
    let device = Device::open()?;
    let facts = device.run(&Start { op: Op::FACTS.0, target: 0, end: 0, ..dump_request(0) })?.facts;
    let dump = device.run(&Start { op: Op::FRAMES.0, target: 0, ..dump_request(0) })?;
    ensure!(dump.status()? == Status::OK, "frames: ended with {:?}", dump.status()?);
    let taken = dump.frames.iter().filter(|frame| frame.raw != 0);
    // pKVM as of Linux 7.2: EL2 borrows it.
    let kept = |raw: u64| if raw >> 28 & 0xf == 1 { raw } else { raw & !0xff_ffff };
    let frames = taken
        .flat_map(|frame| (0..u64::from(frame.count)).map(move |n| (frame.pa + n * page_bytes(), kept(frame.raw))));
    Ok(frames.filter(|(pa, _)| !is_in(&facts, FactKind::RING, *pa)).collect())
}

fn audits_disturb_nothing(machine: &Machine) -> Outcome {
    const AUDITS: usize = 50;
    needs_hyp(machine)?;
    let vms = zoo()?;
    let guests = vms.iter().map(handle_of).map(|handle| Ok(Target::guest(handle?))).collect::<Result<Vec<_>>>()?;
    let targets: Vec<Target> = [Target::HOST, Target::HYP].into_iter().chain(guests).collect();
    let all = || targets.iter().map(|target| at_rest(*target)).chain([frames_at_rest()]).collect::<Result<Vec<_>>>();
    let before = all()?;
    for number in 0..machine.fewer(AUDITS) {
        Audit::run(&[])?.is_clean().with_context(|| format!("audit {number}"))?;
    }
    let names = targets.iter().map(|target| format!("{target:x?}")).chain(["frames".into()]);
    for ((name, before), after) in names.zip(before).zip(all()?) {
        let is_host = name == format!("{:x?}", Target::HOST);
        // The host's pages come with the first access, and go when EL2 needs memory; they do not become others.
        let is_expected = |(ia, raw): (&u64, &u64), other: &Entries| match other.get(ia) {
            Some(other) => other == raw,
            None => is_host && is_first_access(*ia, *raw),
        };
        let gone = before.iter().find(|entry| !is_expected(*entry, &after));
        let new = after.iter().find(|entry| !is_expected(*entry, &before));
        ensure!(gone.is_none() && new.is_none(), "{name} changed: {gone:x?} was there before, {new:x?} is now");
        ensure!(!before.is_empty(), "{name} is empty");
    }
    vms.into_iter().try_for_each(VmmProcess::end)
}
