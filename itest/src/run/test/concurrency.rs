// SPDX-License-Identifier: MIT OR Apache-2.0
//! Dumps at the same time as other dumps, and as the guest changes its table.

use super::support::{check_leaves, dump_table, handle_of};
use super::{tests, Outcome};
use crate::device::dump_request;
use crate::expect::State;
use crate::machine::Machine;
use crate::vmm_process::VmmProcess;
use anyhow::{ensure, Context as _, Result};
use rustix::thread::{sched_setaffinity, CpuSet};
use s2dump_abi::hypercall::DumpFlags;
use s2dump_abi::ioctl::Start;

tests!(On: two_dumps_at_once; heavy: dumps_while_the_guest_runs);

fn two_dumps_at_once(machine: &Machine) -> Outcome {
    const TIMES: usize = 50;
    let vmm = VmmProcess::start("protected touch:512 share:64 poison:0x80100000+8")?;
    let request = Start { budget: 64, flags: DumpFlags::EXACT.0, ..dump_request(handle_of(&vmm)?) };
    let (_, idle) = dump_table(&request)?;
    let dump_on = |cpu: usize| -> Result<()> {
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set).context("two CPUs are needed")?;
        for _ in 0..TIMES {
            let (_, table) = dump_table(&request)?;
            ensure!(table == idle, "a dump on CPU {cpu} differs: {}", idle.differences(&table).join("; "));
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let both = [0, 1].map(|cpu| scope.spawn(move || dump_on(cpu)));
        both.into_iter().try_for_each(|thread| thread.join().expect("the thread returns its panics as errors"))
    })?;
    check_leaves(machine, &vmm)?;
    vmm.end()
}

fn dumps_while_the_guest_runs(machine: &Machine) -> Outcome {
    const DUMPS: usize = 200;
    // 64 MiB, page by page.
    const PAGES: usize = 16384;
    let mut vmm = VmmProcess::start("protected touch:1")?;
    let request = Start { budget: 509, ..dump_request(handle_of(&vmm)?) };
    vmm.tell(&format!("touch-share:{:#x}+{}", 0x8000_1000_u64, PAGES - 1))?;
    let (mut last, mut changing) = (0, 0);
    for number in 0..DUMPS {
        // `dump_table` refuses LOCKED entries, gaps and overlaps.
        let (_, table) = dump_table(&request).with_context(|| format!("dump {number}"))?;
        let odd = table.0.iter().find(|(_, entry)| !matches!(entry.state, State::Owned | State::SharedOwned));
        ensure!(odd.is_none(), "dump {number}: {odd:x?}");
        ensure!(table.0.values().all(|entry| entry.read && entry.write && entry.execute), "dump {number}: rights");
        // The guest only ever adds.
        ensure!(table.0.len() >= last, "dump {number}: {} entries after {last}", table.0.len());
        changing += usize::from(table.0.len() > last && table.0.len() < PAGES);
        last = table.0.len();
    }
    ensure!(changing > 0, "no dump saw the guest at work: the test is wrong");
    vmm.wait_done().context("the guest did not finish")?;
    println!("  {changing} of {DUMPS} dumps saw the table change");
    check_leaves(machine, &vmm)?;
    vmm.end()
}
