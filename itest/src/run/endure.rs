// SPDX-License-Identifier: MIT OR Apache-2.0
//! Endurance: for so many seconds VMs are made, run, killed and ended on all CPUs, while they are dumped, walked and listed,
//! by the device, by debugfs and by the program, and while a hostile host calls EL2.
//!
//! By hand: `cargo xtask run --cpus 4 --timeout 4000 -- /init endure=3600`. Prints figures every minute and at the end, and
//! fails on an answer that cannot be, on a complaint of the kernel, and on what is left behind.
//!
//! The hostile host waits for locks at EL2 with interrupts masked, as nobody else does: with it less of all the rest
//! happens, and hardly anything where the emulated CPUs are more than the real ones. `endure=3600,calm` leaves it out, and
//! `endure=3600,hostile` leaves out the program, debugfs, and all but one who makes VMs and one who looks at them.

use super::test::kernel_log::{self, KernelLog};
use super::test::{aftermath, list, text_rows};
use crate::device::{dump_request, Device, StartRefused};
use crate::machine::{unaccounted_kib, Machine};
use crate::program::{self, exit};
use crate::random::Random;
use crate::script::page_bytes;
use crate::selftest::{self, Answers};
use crate::vmm_process::{VmmProcess, PROGRAM};
use anyhow::{bail, ensure, Context as _, Result};
use rustix::io::Errno;
use rustix::thread::{sched_setaffinity, CpuSet};
use s2dump_abi::hypercall::{Op, Status};
use s2dump_abi::ioctl::Start;
use s2dump_abi::slot::VmRecord;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Calls of one run of the hostile host: a second or some, so that figures come often and the end is not far.
const CALLS: u64 = 50_000;
/// From one line of figures to the next.
const MINUTE: Duration = Duration::from_secs(60);

/// VMs to make, with what they do. Small, because there are to be many; some with tables that do not fold, some that die
/// with much mapped.
const GUESTS: [&str; 6] = [
    "protected touch:8 share:2",
    "ordinary touch:8 read:0x80100000+4",
    "protected touch:300 share:100*2 poison:0x80001000+1",
    "ordinary --mem 0x80000000+4M,thp large:1024 touch:1 touch:0x80200000+1 drop:0x80200000+512",
    "protected --vcpus 2 touch:4 1/touch:0x80100000+4 1/share:1",
    "ordinary touch:256*2 drop:512 touch:3",
];

/// What happened so far.
#[derive(Default)]
struct Figures {
    lives: AtomicU64,
    killed: AtomicU64,
    lists: AtomicU64,
    texts: AtomicU64,
    programs: AtomicU64,
    /// How dumps and walks ended.
    ends: Mutex<BTreeMap<String, u64>>,
    answers: Mutex<Answers>,
}

impl Figures {
    fn end(&self, how: String) {
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner).entry(how).or_default() += 1;
    }

    /// Checks that all of it happened.
    fn enough(&self, mix: Mix) -> Result<()> {
        let calls = self.answers.lock().unwrap_or_else(PoisonError::into_inner).all();
        let get = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let figures = [
            ("VMs", get(&self.lives), true),
            ("killed VMs", get(&self.killed), true),
            ("lists", get(&self.lists), true),
            ("texts", get(&self.texts), mix != Mix::Hostile),
            ("runs of the program", get(&self.programs), mix != Mix::Hostile),
            ("hostile calls", calls, mix != Mix::Calm),
        ];
        for (what, figure, wanted) in figures {
            ensure!(figure > 0 || !wanted, "no {what}");
        }
        Ok(())
    }

    fn print(&self, since: Instant) {
        let get = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        println!(
            "endure: {} s: {} VMs of which {} killed, {} lists, {} texts, {} runs of the program, {} hostile calls",
            since.elapsed().as_secs(),
            get(&self.lives),
            get(&self.killed),
            get(&self.lists),
            get(&self.texts),
            get(&self.programs),
            answers.all(),
        );
        println!("endure: dumps and walks: {:?}", self.ends.lock().unwrap_or_else(PoisonError::into_inner));
        println!("endure: answers to hostile calls: {:?}", answers.statuses);
    }
}

/// What is left out, so that there is more of the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Nothing.
    All,
    /// The hostile host.
    Calm,
    /// Most of what is not the hostile host.
    Hostile,
}

/// Runs for `seconds`; returns 0 if nothing was found.
pub fn run(seconds: u64, mix: Mix) -> i32 {
    match Machine::look().and_then(|machine| endure(&machine, Duration::from_secs(seconds), mix)) {
        Ok(()) => 0,
        Err(error) => {
            println!("endure: FAILED: {error:#}");
            1
        }
    }
}

/// What the threads share.
struct Shared {
    figures: Figures,
    is_over: AtomicBool,
    failure: Mutex<Option<anyhow::Error>>,
}

impl Shared {
    /// Does `work` again and again until all is over, or it fails: then all is over.
    fn again(&self, what: &str, mut work: impl FnMut() -> Result<()>) {
        while !self.is_over.load(Ordering::Relaxed) {
            if let Err(error) = work() {
                let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                failure.get_or_insert(error.context(what.to_owned()));
                self.is_over.store(true, Ordering::Relaxed);
            }
        }
    }
}

fn endure(machine: &Machine, time: Duration, mix: Mix) -> Result<()> {
    let cpus = std::thread::available_parallelism()?.get();
    let ipa_bits = VmmProcess::start("ordinary touch:1")?.expected.ipa_bits;
    let mut log = KernelLog::open()?;
    if let Some(line) = log.complaint() {
        bail!("the kernel said at boot: {line}");
    }
    selftest::set_calls(CALLS)?;
    let shared = Shared { figures: Figures::default(), is_over: AtomicBool::new(false), failure: Mutex::new(None) };
    let (begin, before) = (Instant::now(), unaccounted_kib()?);
    std::thread::scope(|scope| {
        let (shared, figures) = (&shared, &shared.figures);
        for cpu in 0..cpus {
            let mut random = Random::new(cpu as u64);
            if mix != Mix::Hostile || cpu == 0 {
                scope.spawn(move || shared.again("VMs", || live(figures, &mut random, cpu)));
                let mut random = Random::new(100 + cpu as u64);
                scope.spawn(move || shared.again("dumps", || look(figures, &mut random)));
            }
            if mix != Mix::Calm {
                scope.spawn(move || shared.again("hostile calls", || call(figures)));
            }
        }
        if mix != Mix::Hostile {
            let mut random = Random::new(200);
            scope.spawn(move || shared.again("texts", || read_text(figures, &mut random, ipa_bits)));
            scope.spawn(move || shared.again("the program", || run_program(figures)));
        }

        let mut told = begin;
        shared.again("figures", || {
            std::thread::sleep(Duration::from_secs(1).min(time));
            if let Some(line) = log.complaint() {
                bail!("the kernel said: {line}");
            }
            if told.elapsed() >= MINUTE {
                told = Instant::now();
                figures.print(begin);
            }
            if begin.elapsed() >= time {
                shared.is_over.store(true, Ordering::Relaxed);
            }
            Ok(())
        });
    });
    shared.figures.print(begin);
    if let Some(error) = shared.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    aftermath::check(machine)?;
    log.check(Ok(()))?;
    if let Some(leaks) = kernel_log::leaks()? {
        bail!("kmemleak found:\n{leaks}");
    }
    shared.figures.enough(mix)?;
    let grown = unaccounted_kib()?.saturating_sub(before);
    println!("endure: nothing is left: no VM, no shared page, {grown} KiB more of unknown use");
    Ok(())
}

/// One process that makes a VM some times, one after the other, and is killed in the middle of that or not.
fn live(figures: &Figures, random: &mut Random, cpu: usize) -> Result<()> {
    const LIVES: u64 = 10;
    let guest = random.one_of(&GUESTS);
    if random.once_in(2) {
        // Where a VM runs, and with it where it is torn down, is not where it is looked at.
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set)?;
    }
    let mut child = Command::new(PROGRAM)
        .args(guest.split_whitespace())
        .arg(format!("--lives={LIVES}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context(PROGRAM)?;
    let lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
    let last = if random.once_in(2) { random.below(LIVES) + 1 } else { LIVES };
    let mut lives = 0;
    for line in lines {
        line?;
        lives += 1;
        figures.lives.fetch_add(1, Ordering::Relaxed);
        if lives == last && last < LIVES {
            child.kill()?;
            figures.killed.fetch_add(1, Ordering::Relaxed);
            break;
        }
    }
    let status = child.wait()?;
    ensure!(last < LIVES || status.success(), "{guest}: {status}");
    ensure!(lives == last, "{guest}: {lives} VMs instead of {last}");
    Ok(())
}

/// Lists, then dumps or walks one of what was listed.
fn look(figures: &Figures, random: &mut Random) -> Result<()> {
    let vms = list()?;
    figures.lists.fetch_add(1, Ordering::Relaxed);
    // Each VM has its name, when both sides know of it.
    let mut names: Vec<_> = vms.iter().map(|vm| vm.name).filter(|name| name[0] != 0).collect();
    names.sort_unstable();
    ensure!(names.windows(2).all(|pair| pair[0] != pair[1]), "listed twice: {vms:x?}");
    let handles = |pair: &[VmRecord]| pair[0].handle != pair[1].handle || pair[0].handle == 0;
    ensure!(vms.windows(2).all(handles), "listed twice: {vms:x?}");
    if vms.is_empty() {
        std::thread::sleep(Duration::from_millis(1));
        return Ok(());
    }
    let vm: VmRecord = random.one_of(&vms);
    let root = if random.once_in(2) { vm.root } else { 0 };
    let dump = Start { flags: random.below(8) as u32, root, ..dump_request(vm.handle) };
    let budget = random.one_of(&[0, 1, 20, 100, 1000, u32::MAX]);
    let start = match random.below(4) {
        0 => Start { op: Op::WALK.0, flags: 0, start: 0x8000_0000 + random.below(512) * page_bytes(), end: 0, ..dump },
        // A few descriptors at a time, of a part of the space only.
        1 => Start { budget, start: 0x8000_0000, end: 0x8040_0000, ..dump },
        _ => Start { budget: if budget < 100 { 0 } else { budget }, ..dump },
    };
    let how = match Device::open()?.run(&start) {
        Ok(dump) => format!("{:?}", dump.status()?),
        Err(error) => match error.downcast_ref() {
            Some(StartRefused(Errno::NOENT | Errno::NODATA | Errno::STALE | Errno::TOOBIG | Errno::PERM)) => {
                format!("{error}")
            }
            _ => return Err(error.context(format!("{start:x?}"))),
        },
    };
    let good = [Status::OK, Status::VM_DYING, Status::VM_GONE].map(|status| format!("{status:?}"));
    ensure!(good.contains(&how) || how.starts_with("START"), "ended with {how}: {start:x?}");
    figures.end(how);
    Ok(())
}

fn call(figures: &Figures) -> Result<()> {
    let answers = selftest::run()?;
    figures.answers.lock().unwrap_or_else(PoisonError::into_inner).add(&answers);
    Ok(())
}

/// Reads the kernel's own text of one VM.
fn read_text(figures: &Figures, random: &mut Random, ipa_bits: u32) -> Result<()> {
    const DIRECTORY: &str = "/sys/kernel/debug/kvm";
    let names = fs::read_dir(DIRECTORY)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    // Directories of VMs are named after process and descriptor; the others are files.
    let vms: Vec<String> = names.filter(|name| name.contains('-')).collect();
    if vms.is_empty() {
        std::thread::sleep(Duration::from_millis(1));
        return Ok(());
    }
    let name = &vms[random.below(vms.len() as u64) as usize];
    match fs::read_to_string(format!("{DIRECTORY}/{name}/stage2_page_tables")) {
        Ok(text) => {
            figures.texts.fetch_add(1, Ordering::Relaxed);
            text_rows(&text, ipa_bits)?;
        }
        Err(error) => {
            let errno = Errno::from_io_error(&error);
            // EIO is what debugfs says of a file that went while it was read.
            let went = errno == Some(Errno::IO) && !fs::exists(format!("{DIRECTORY}/{name}"))?;
            ensure!(went || matches!(errno, Some(Errno::NOENT | Errno::STALE)), "{name}: {error}");
        }
    }
    Ok(())
}

fn run_program(figures: &Figures) -> Result<()> {
    let text = program::run(&["list", "--no-headings"])?.ok()?;
    for target in text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with("vm:"))) {
        let ran = program::run(&["dump", target])?;
        ensure!(matches!(ran.code, 0 | exit::NO_SUCH_VM | exit::PARTIAL), "{target}: {ran:?}");
        figures.programs.fetch_add(1, Ordering::Relaxed);
    }
    std::thread::sleep(Duration::from_millis(100));
    Ok(())
}
