// SPDX-License-Identifier: MIT OR Apache-2.0
//! Dumps at the same time as other dumps, and as the guest changes its table.

use super::changes::text_rows;
use super::support::{check_leaves, dump_leaves, handle_of};
use super::{tests, Outcome};
use crate::device::{dump_request, Device};
use crate::expect::State;
use crate::machine::Machine;
use crate::scale::pages;
use crate::script::page_bytes;
use crate::selftest::most_callers;
use crate::vmm_process::VmmProcess;
use anyhow::{ensure, Context as _, Result};
use rustix::io::Errno;
use rustix::thread::{sched_setaffinity, CpuSet};
use s2dump_abi::hypercall::{DumpFlags, Status};
use s2dump_abi::ioctl::Start;

tests!(On:
    two_dumps_at_once,
    two_threads_of_one_session,
    debugfs_while_the_guest_runs;
    heavy: dumps_while_the_guest_runs
);

fn two_dumps_at_once(machine: &Machine) -> Outcome {
    const TIMES: usize = 20;
    let vmm = VmmProcess::start("protected touch:512 share:64 poison:0x80100000+8")?;
    let request = Start { budget: 256, flags: DumpFlags::EXACT.0, ..dump_request(handle_of(&vmm)?) };
    let (_, idle) = dump_leaves(&request)?;
    let dump_on = |cpu: usize| -> Result<()> {
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set).context("two CPUs are needed")?;
        for _ in 0..TIMES {
            let (_, leaves) = dump_leaves(&request)?;
            ensure!(leaves == idle, "a dump on CPU {cpu} differs: {}", idle.differences(&leaves).join("; "));
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let both = [0, 1].map(|cpu| scope.spawn(move || dump_on(cpu)));
        both.into_iter().try_for_each(|thread| thread.join().expect("the thread returns its panics as errors"))
    })?;
    check_leaves(machine, &vmm)?;
    let most = most_callers()?;
    ensure!(most == 1, "{most} calls to EL2 at once: a second one waits with the VM table's lock held");
    vmm.end()
}

fn dumps_while_the_guest_runs(machine: &Machine) -> Outcome {
    const DUMPS: usize = 200;
    let dumps = machine.fewer(DUMPS);
    // With 4 KiB pages 64 MiB, page by page; fewer of larger ones, as each takes longer.
    let told = (64 << 20) / page_bytes() - 1;
    let pages = pages(told) as usize + 1;
    let mut vmm = VmmProcess::start("protected touch:1")?;
    let request = Start { budget: 509, ..dump_request(handle_of(&vmm)?) };
    vmm.tell(&format!("touch-share:{:#x}+{}", 0x8000_1000_u64, told))?;
    let (mut last, mut changing) = (0, 0);
    for number in 0..dumps {
        // `dump_leaves` refuses LOCKED entries, gaps and overlaps.
        let (_, leaves) = dump_leaves(&request).with_context(|| format!("dump {number}"))?;
        let odd = leaves.0.iter().find(|(_, entry)| !matches!(entry.state, State::Owned | State::SharedOwned));
        ensure!(odd.is_none(), "dump {number}: {odd:x?}");
        ensure!(leaves.0.values().all(|entry| entry.read && entry.write && entry.execute), "dump {number}: rights");
        // The guest only ever adds.
        ensure!(leaves.0.len() >= last, "dump {number}: {} entries after {last}", leaves.0.len());
        changing += usize::from(leaves.0.len() > last && leaves.0.len() < pages);
        last = leaves.0.len();
    }
    ensure!(changing >= dumps / 10, "only {changing} of {dumps} dumps saw the guest at work: the test is wrong");
    vmm.wait_done().context("the guest did not finish")?;
    println!("  {changing} of {dumps} dumps saw the table change");
    check_leaves(machine, &vmm)?;
    vmm.end()
}

/// Whatever two threads do to one session, each call ends in a known way, and the session works afterwards.
fn two_threads_of_one_session(machine: &Machine) -> Outcome {
    const TIMES: u32 = 300;
    let vmm = VmmProcess::start("protected touch:64 share:8")?;
    let device = Device::open()?;
    let request = Start { budget: 16, ..dump_request(handle_of(&vmm)?) };
    let mess = |seed: u32| -> Result<()> {
        let mut random = seed;
        for _ in 0..TIMES {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let result = match random >> 30 {
                0 => device.start(&request),
                1 => device.hello().map(drop),
                // Mostly more than is lent: refused.
                more => device.advance((random >> 20) % (more * 2)).map(drop),
            };
            ensure!(matches!(result, Ok(()) | Err(Errno::INVAL)), "{result:?}");
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let both = [1, 2].map(|seed| scope.spawn(move || mess(seed)));
        both.into_iter().try_for_each(|thread| thread.join().expect("the thread returns its panics as errors"))
    })?;
    ensure!(device.run(&request)?.status()? == Status::OK, "the session does not work afterwards");
    check_leaves(machine, &vmm)?;
    vmm.end()
}

/// The file of a VM at work is always whole: rows that follow each other over the whole space.
fn debugfs_while_the_guest_runs(_: &Machine) -> Outcome {
    const READS: usize = 40;
    let mut vmm = VmmProcess::start("protected touch:1")?;
    vmm.tell("touch-share:0x80001000+2047")?;
    for number in 0..READS {
        let text = vmm.debugfs("stage2_page_tables")?;
        text_rows(&text, vmm.expected.ipa_bits).with_context(|| format!("read {number}"))?;
    }
    vmm.wait_done()?;
    vmm.end()
}
