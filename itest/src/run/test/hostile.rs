// SPDX-License-Identifier: MIT OR Apache-2.0
//! A hostile host: the kernel's own `s2dump_selftest` file calls EL2 with wrong, random and nearly right arguments.

use super::support::check_nothing_broken;
use super::{Outcome, Test};
use crate::machine::{Boot, Machine};
use crate::selftest::{run, set_calls, Answers};
use crate::vmm_process::VmmProcess;
use anyhow::{ensure, Result};
use s2dump_abi::hypercall::{Op, Status};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

pub(super) const TESTS: &[Test] = &[
    Test { name: "hostile_host", boot: Boot::On, heavy: false, run: hostile_host },
    Test { name: "hostile_host_while_vms_come_and_go", boot: Boot::On, heavy: true, run: while_vms_come_and_go },
];
pub(super) const OFF_TESTS: &[Test] =
    &[Test { name: "off_hostile_host_gets_nothing", boot: Boot::Off, heavy: false, run: hostile_host_gets_nothing }];

/// Calls of a run, when nobody says otherwise.
const CALLS: u64 = 20_000;
/// What more than 124 records need: then an atomic dump does not fit.
const TOO_BIG: &str = "protected touch:500 share:200*2";

/// Returns each status that EL2 can give on this machine: all but `NOT_PERMITTED`, and the one for a table whose registers
/// make no sense, which no VM has.
fn statuses(machine: &Machine) -> Vec<Status> {
    let of_atomic = if machine.atomic { Status::TOO_BIG } else { Status::ATOMIC_NOT_PERMITTED };
    let always = [
        Status::OK,
        Status::UNKNOWN_OP,
        Status::UNKNOWN_FLAG,
        Status::UNKNOWN_TARGET,
        Status::NO_SUCH_VM,
        Status::BAD_RANGE,
        Status::SLOT_NOT_SHARED,
        Status::VERSION_MISMATCH,
    ];
    let of_hyp = (!machine.hyp).then_some(Status::HYP_NOT_PERMITTED);
    always.into_iter().chain([of_atomic]).chain(of_hyp).collect()
}

/// Checks that each status came, and nothing else.
fn check_coverage(machine: &Machine, answers: &Answers) -> Outcome {
    let expected = statuses(machine);
    for status in &expected {
        ensure!(answers.of(status.0) > 0, "{status:?} never came: {answers:?}");
    }
    let known: u64 = expected.iter().map(|status| answers.of(status.0)).sum();
    ensure!(known == answers.all(), "a status that cannot be: {answers:?}");
    for op in [Op::HELLO, Op::LIST, Op::DUMP, Op::WALK, Op::FRAMES, Op::FACTS, Op::EXAMINE] {
        ensure!(answers.done.get(&op.0).is_some_and(|done| *done > 0), "{op:?} was never done: {answers:?}");
    }
    ensure!(answers.of(Status::OK.0) * 40 > answers.all(), "hardly a call got anywhere: {answers:?}");
    Ok(())
}

/// Runs twice at once: they share and unshare a page under each other's calls.
fn run_twice() -> Result<Answers> {
    let other = thread::spawn(run);
    let mut answers = run()?;
    answers.add(&other.join().expect("the thread returns its panics as errors")?);
    Ok(answers)
}

fn hostile_host(machine: &Machine) -> Outcome {
    set_calls(CALLS / u64::from(machine.slow))?;
    // Among the first handles: there is something to walk, and teardown comes after it.
    let guests = [VmmProcess::start(TOO_BIG)?, VmmProcess::start("ordinary touch:40")?];
    let answers = run_twice()?;
    println!("  {answers:?}");
    check_coverage(machine, &answers)?;
    for guest in guests {
        guest.end()?;
    }
    check_nothing_broken(machine)
}

/// Makes many more calls, under which VMs with the same handles are made, run, killed and ended.
fn while_vms_come_and_go(machine: &Machine) -> Outcome {
    const FACTOR: u64 = 8;
    const LIVES: u32 = 6;
    set_calls(CALLS * FACTOR / u64::from(machine.slow))?;
    let is_over = AtomicBool::new(false);
    let (answers, lives) = thread::scope(|scope| {
        let vms = scope.spawn(|| -> Result<u32> {
            let mut lives = 0;
            while !is_over.load(Ordering::Relaxed) {
                let mut killed = VmmProcess::start(TOO_BIG)?;
                let ended = VmmProcess::start("ordinary touch:40")?;
                killed.kill();
                ended.end()?;
                lives += 2;
            }
            Ok(lives)
        });
        let answers = run_twice();
        is_over.store(true, Ordering::Relaxed);
        (answers, vms.join().expect("the thread returns its panics as errors"))
    });
    set_calls(CALLS)?;
    let (answers, lives) = (answers?, lives?);
    println!("  {} calls, {lives} VMs: {answers:?}", answers.all());
    ensure!(lives >= LIVES / machine.slow, "only {lives} VMs came and went");
    check_coverage(machine, &answers)?;
    check_nothing_broken(machine)
}

fn hostile_host_gets_nothing(_: &Machine) -> Outcome {
    let _guest = VmmProcess::start("protected touch:1")?;
    let answers = run()?;
    ensure!(answers.all() > 0 && answers.of(Status::NOT_PERMITTED.0) == answers.all(), "{answers:?}");
    Ok(())
}
