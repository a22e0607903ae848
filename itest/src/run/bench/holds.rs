// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long calls hold locks, and what pKVM's own work under the same locks takes: the yardstick.
//!
//! ```text
//! bench share-block ns=8114 entries=1
//! bench hold-dense-plain-default ns=11733 entries=2048
//! ```
//!
//! A hold is what EL2 says of itself (`SlotHeader::held_ticks`): of each call the least of some repetitions, of these the
//! longest; and the descriptors that this call visited. The least, because on a machine with real threads the rest is
//! the time in which the thread did not run.

use super::{clock, least, nanoseconds, print};
use crate::device::{dump_request, Device, StartRefused};
use crate::machine::{Boot, Machine};
use crate::run::test::handle_of;
use crate::vmm_process::VmmProcess;
use anyhow::{ensure, Context as _, Result};
use s2dump_abi::hypercall::{DumpFlags, Op, Status};
use s2dump_abi::ioctl::Start;
use s2dump_abi::slot::SlotHeader;
use s2dump_abi::target::{Place, Target};

/// Tables to dump: one that folds into few rows; one in which no two neighbors are alike, as every other page is mapped;
/// one in which they are alike but for addresses that jump; one of nearly empty tables, a page each.
const TABLES: [(&str, &str); 4] = [
    ("dense", "protected --mem 0x80000000+64M touch:16384"),
    ("scattered", "protected --mem 0x80000000+64M touch:8192*2"),
    ("jumping", super::JUMPING),
    ("sparse", "protected --mem 0x80000000+512M touch:256*512"),
];
/// What is asked for, but for an atomic dump.
const PACKED: DumpFlags = DumpFlags::EXACT.union(DumpFlags::PACKED);
const FLAGS: [(&str, DumpFlags); 6] = [
    ("plain", DumpFlags(0)),
    ("digest", DumpFlags::DIGEST),
    ("exact", DumpFlags::EXACT),
    ("packed", PACKED),
    ("packed-digest", PACKED.union(DumpFlags::DIGEST)),
    ("packed-tables", PACKED.union(DumpFlags::TABLES)),
];
/// The budget in force without a word, and all that EL2 allows.
const BUDGETS: [(&str, u32); 2] = [("default", 0), ("cap", u32::MAX)];
/// Repetitions of a dump.
const REPETITIONS: usize = 16;

/// Measures everything and prints it.
///
/// # Errors
///
/// If the machine was not started for it, or a measurement fails.
pub(super) fn run(machine: &Machine) -> Result<()> {
    ensure!(machine.boot == Boot::On, "holds are measured with pKVM and kvm-arm.s2dump=on,atomic");
    share_of_a_block().context("an ordinary guest's 2 MiB block")?;
    let device = Device::open()?;
    list(&device).context("list")?;
    for (table, arguments) in TABLES {
        let vmm = VmmProcess::start(arguments)?;
        let request = dump_request(handle_of(&vmm)?);
        for (flags_name, flags) in FLAGS {
            for (budget_name, budget) in BUDGETS {
                let name = format!("{table}-{flags_name}-{budget_name}");
                let request = Start { flags: flags.0, budget, ..request };
                longest_hold(&device, &request, &name).with_context(|| name.clone())?;
            }
        }
        let walk = Start { op: Op::WALK.0, start: 0x8000_0000, end: 0, ..request };
        longest_hold(&device, &walk, &format!("{table}-walk"))?;
        // One slot has to hold all of it: only what folds fits.
        let atomic = Start { flags: DumpFlags::ATOMIC.0, ..request };
        match longest_hold(&device, &atomic, &format!("{table}-atomic")) {
            Err(error) if too_big(&error) && table != "dense" => {}
            other => other.with_context(|| format!("{table}, atomic"))?,
        }
        vmm.end()?;
    }
    whole_machine(machine, &device)
}

/// The host's table, EL2's own and page frames, with a guest whose pages are all records of their own in the host's table:
/// each has another input address. Then a page of that guest, looked at everywhere at once.
fn whole_machine(machine: &Machine, device: &Device) -> Result<()> {
    let vmm = VmmProcess::start("protected --physical --mem 0x80000000+64M touch:8192*2")?;
    let handle = handle_of(&vmm)?;
    let tables = [("host", Target::HOST), ("hyp", Target::HYP)];
    for (table, target) in tables.into_iter().filter(|(_, target)| *target != Target::HYP || machine.hyp) {
        let request = Start { target: target.0, ..dump_request(handle) };
        for (flags_name, flags) in FLAGS {
            for (budget_name, budget) in BUDGETS {
                let name = format!("{table}-{flags_name}-{budget_name}");
                longest_hold_of_chunks(device, &Start { flags: flags.0, budget, ..request }, &name)?;
            }
        }
    }
    for (budget_name, budget) in BUDGETS {
        let request = Start { op: Op::FRAMES.0, target: 0, budget, ..dump_request(handle) };
        longest_hold_of_chunks(device, &request, &format!("frames-{budget_name}"))?;
    }
    let run = vmm.expected.runs.iter().find(|run| run.ia == 0x8000_0000).context("no page")?;
    let pa = run.entry.oa.context("no physical address")?;
    let third = if machine.hyp { Target::HYP } else { Target::HOST };
    let places = [(Target::HOST, pa), (Target::guest(handle), run.ia), (third, pa)];
    let places = places.map(|(target, address)| Place::new(target, address).map_or(0, |place| place.0));
    let examine = Start { op: Op::EXAMINE.0, target: 0, start: pa, end: 0, places, ..dump_request(handle) };
    longest_hold(device, &examine, "examine")?;
    vmm.end()
}

/// As [`longest_hold`], of what changes under the measurement: the host's own faults map its memory. So the calls of one dump
/// need not be those of the next; but what one call covered is measured again and again by itself, until it cannot be the
/// longest any more.
fn longest_hold_of_chunks(device: &Device, request: &Start, name: &str) -> Result<()> {
    let longest_of = |start: &Start| -> Result<(Vec<SlotHeader>, SlotHeader)> {
        let dump = device.run(start).with_context(|| name.to_owned())?;
        ensure!(dump.status()? == Status::OK, "{name} ended with {:?}", dump.status()?);
        let longest = dump.headers.iter().max_by_key(|call| call.held_ticks).copied().context("no call")?;
        Ok((dump.headers, longest))
    };
    let mut longest: Option<SlotHeader> = None;
    for chunk in longest_of(request)?.0 {
        let mut least = chunk;
        for _ in 1..REPETITIONS {
            if longest.is_some_and(|longest: SlotHeader| longest.held_ticks >= least.held_ticks) {
                break;
            }
            let (_, again) = longest_of(&Start { start: chunk.start, end: chunk.next, ..*request })?;
            least = if again.held_ticks < least.held_ticks { again } else { least };
        }
        longest = longest.filter(|longest| longest.held_ticks >= least.held_ticks).or(Some(least));
    }
    print_hold(&longest.context("no call")?, name)
}

fn too_big(error: &anyhow::Error) -> bool {
    let wanted = rustix::io::Errno::from_raw_os_error(Status::TOO_BIG.to_errno());
    error.downcast_ref::<StartRefused>().is_some_and(|refused| refused.0 == wanted)
}

fn longest_hold(device: &Device, request: &Start, name: &str) -> Result<()> {
    let mut calls: Vec<SlotHeader> = Vec::new();
    for repetition in 0..REPETITIONS {
        let dump = device.run(request)?;
        ensure!(dump.status()? == Status::OK, "ended with {:?}", dump.status()?);
        if repetition == 0 {
            calls = dump.headers;
            continue;
        }
        ensure!(dump.headers.len() == calls.len(), "{} calls, then {}", calls.len(), dump.headers.len());
        for (call, again) in calls.iter_mut().zip(dump.headers) {
            ensure!(call.visited == again.visited, "the table is not to change: {call:?}, then {again:?}");
            call.held_ticks = call.held_ticks.min(again.held_ticks);
        }
    }
    print_hold(calls.iter().max_by_key(|call| call.held_ticks).context("no call")?, name)
}

fn print_hold(call: &SlotHeader, name: &str) -> Result<()> {
    ensure!(call.held_ticks > 0, "EL2 says that it held the lock for no time");
    let hold = nanoseconds(call.held_ticks.into(), call.tick_hz.into());
    print("hold", name, hold, u64::from(call.visited.max(1)));
    Ok(())
}

/// A list, of a VM that ran on several vCPUs and of some that never ran.
fn list(device: &Device) -> Result<()> {
    let vmm = VmmProcess::start("protected --vcpus 4 --beside 8 touch:1 1/touch:1 2/touch:1 3/touch:1")?;
    let request = Start { op: Op::LIST.0, target: 0, end: 0, ..dump_request(0) };
    longest_hold(device, &request, "list")?;
    vmm.end()
}

/// What EL2 does to share the 512 pages of a block with an ordinary guest, and to map it: the first touch of a block by
/// the guest, less the first touch of a page. The host has the memory ready, so both are an exit, KVM's fault handler
/// and one hypercall, and differ in what that does for the other 511 pages under the host's and the VM's lock. What
/// it does for a page too is left out, so the yardstick is a little too short: goals are judged the harder way.
#[cfg(target_arch = "aarch64")]
fn share_of_a_block() -> Result<()> {
    use crate::script::{block_bytes, page_bytes};
    use crate::vm::{Config, Vm};

    const BLOCKS: u32 = 8;
    const PAGES: u64 = 64;
    const BLOCKS_IPA: u64 = 0x8000_0000;
    const PAGES_IPA: u64 = 0xc000_0000;
    /// VMs one after the other, of which the least counts: with real threads, few of the touches are undisturbed.
    const ROUNDS: usize = 8;
    crate::system::reserve_huge_pages(BLOCKS);
    let memory = [
        format!("{BLOCKS_IPA}+{},huge", u64::from(BLOCKS) * block_bytes()),
        format!("{PAGES_IPA}+{}", PAGES * page_bytes()),
    ];
    let memory = memory.iter().map(|spec| spec.parse()).collect::<Result<Vec<_>>>()?;
    let config = Config { protected: false, vcpus: 1, ipa_bits: None, memory, beside: 0 };
    let all_pages = u64::from(BLOCKS) * block_bytes() / page_bytes();
    // First touches of a page and of a block, and touches of each when they are mapped, which have in them all that is in
    // the first touches too, our own bookkeeping included.
    let (mut first, mut again) = ([u64::MAX; 2], [u64::MAX; 2]);
    for _ in 0..ROUNDS {
        let mut vm = Vm::new(&config)?;
        for step in [format!("populate:{BLOCKS_IPA}+{all_pages}"), format!("populate:{PAGES_IPA}+{PAGES}")] {
            vm.step(&step.parse()?)?;
        }
        let mut touch = |ipa: u64| {
            let step = format!("touch:{ipa}+1").parse()?;
            let before = clock();
            vm.step(&step)?;
            Ok(clock() - before)
        };
        let kinds = [(PAGES_IPA, PAGES, page_bytes()), (BLOCKS_IPA, BLOCKS.into(), block_bytes())];
        for (kind, (start, count, size)) in kinds.into_iter().enumerate() {
            for ipa in (0..count).map(|n| start + n * size) {
                first[kind] = first[kind].min(touch(ipa)?);
                again[kind] = again[kind].min(least(|| touch(ipa))?);
            }
        }
    }
    let [page, block] = [0, 1].map(|kind| first[kind].saturating_sub(again[kind]));
    print("fault", "page", page, 1);
    print("fault", "block", block, 1);
    ensure!(block > page, "a block costs {block} ns, a page {page}: is it a block?");
    print("share", "block", block - page, 1);
    Ok(())
}

/// The VMM speaks to KVM on AArch64 only.
#[cfg(not(target_arch = "aarch64"))]
fn share_of_a_block() -> Result<()> {
    let _ = (clock(), least as fn(fn() -> Result<u64>) -> Result<u64>);
    anyhow::bail!("runs on AArch64 only")
}
