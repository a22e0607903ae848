// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random system calls on `/dev/s2dump`: several threads on one session and on sessions of their own, interrupted by
//! signals, while VMs come and go.
//!
//! Seeded: each thread makes the same calls each time, and more of them until enough VMs came and went; how they meet is up
//! to the scheduler. Whatever is asked, the answer is success or an errno that the ABI gives it, and all works afterwards.

use super::support::check_nothing_broken;
use super::{tests, Outcome};
use crate::device::{dump_request, Device, Mapping};
use crate::machine::Machine;
use crate::random::Random;
use crate::script::page_bytes;
use crate::signal::run_interrupted;
use crate::vmm_process::VmmProcess;
use anyhow::{ensure, Result};
use rustix::io::Errno;
use rustix::mm::ProtFlags;
use s2dump_abi::hypercall::Op;
use s2dump_abi::ioctl::{Advance, Hello, SessionState, Start, ADVANCE, HELLO, START};
use s2dump_abi::target::{Place, Target, END_HANDLE, FIRST_HANDLE};
use s2dump_abi::version::ABI_VERSION;
use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

tests!(On: random_system_calls);

/// Room behind each argument, so that a larger size in the command stays inside.
const ROOM_BYTES: usize = 256;
/// From one signal to the next.
const PAUSE: Duration = Duration::from_micros(700);
/// Where the machine has memory.
const MEMORY: u64 = 0x4000_0000;
/// The first handles of pKVM, the last, and the one after: some are VMs, some were, some never were.
const HANDLES: [u16; 6] =
    [FIRST_HANDLE, FIRST_HANDLE + 1, FIRST_HANDLE + 2, FIRST_HANDLE + 3, END_HANDLE - 1, END_HANDLE];

/// What the ABI and mmap(2) give for what is asked here. `EIO` is not among them: nobody may be at fault.
const ERRNOS: [Errno; 17] = [
    Errno::PERM,
    Errno::NOENT,
    Errno::TOOBIG,
    Errno::NOMEM,
    Errno::ACCESS,
    Errno::FAULT,
    Errno::BUSY,
    Errno::NXIO,
    Errno::NODEV,
    Errno::INVAL,
    Errno::NOTTY,
    Errno::RANGE,
    Errno::NODATA,
    Errno::OVERFLOW,
    Errno::PROTO,
    Errno::OPNOTSUPP,
    Errno::STALE,
];
/// Of these each must have come, or the calls were all refused for the same reason.
const MUST_COME: [Errno; 9] = [
    Errno::NOENT,
    Errno::TOOBIG,
    Errno::BUSY,
    Errno::INVAL,
    Errno::NOTTY,
    Errno::RANGE,
    Errno::PROTO,
    Errno::OPNOTSUPP,
    Errno::ACCESS,
];

/// What came of the calls.
#[derive(Clone, Debug, Default)]
struct Seen {
    successes: u32,
    slots: u32,
    mappings: u32,
    read_bytes: usize,
    errnos: BTreeSet<i32>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.successes += other.successes;
        self.slots += other.slots;
        self.mappings += other.mappings;
        self.read_bytes += other.read_bytes;
        self.errnos.extend(other.errnos);
    }
}

/// One thread: its numbers, a session of its own, and what it has mapped.
struct Caller<'a> {
    random: Random,
    shared: &'a Device,
    own: Option<Device>,
    mapping: Option<Mapping>,
    seen: Seen,
}

impl Caller<'_> {
    fn device(&mut self) -> &Device {
        match (&self.own, self.random.once_in(2)) {
            (Some(own), true) => own,
            _ => self.shared,
        }
    }

    fn note<T>(&mut self, what: &str, result: Result<T, Errno>) -> Result<Option<T>> {
        match result {
            Ok(value) => {
                self.seen.successes += 1;
                Ok(Some(value))
            }
            Err(errno) => {
                ensure!(ERRNOS.contains(&errno), "{what}: {errno:?}");
                self.seen.errnos.insert(errno.raw_os_error());
                Ok(None)
            }
        }
    }

    /// Returns a start that would do, of any operation.
    fn good_start(&mut self) -> Start {
        let handle = self.random.one_of(&HANDLES);
        let start = dump_request(handle);
        let target = self.random.one_of(&[start.target, start.target, Target::HOST.0, Target::HYP.0]);
        let of_no_table = Start { target: 0, ..start };
        match self.random.below(8) {
            0 => Start { op: Op::LIST.0, end: 0, ..of_no_table },
            1 => Start { op: Op::WALK.0, start: self.random.edge() & 0xff_ffff_ffff, end: 0, target, ..start },
            2 => Start { op: Op::FACTS.0, end: 0, ..of_no_table },
            3 => Start {
                op: Op::FRAMES.0,
                start: self.random.one_of(&[0, MEMORY, MEMORY + (1 << 20)]),
                budget: self.random.one_of(&[0, 17, 4096]),
                ..of_no_table
            },
            4 => Start {
                op: Op::EXAMINE.0,
                start: MEMORY + self.random.below(1 << 20) * page_bytes(),
                end: 0,
                places: core::array::from_fn(|_| self.place(handle)),
                ..of_no_table
            },
            _ => Start {
                flags: self.random.below(8) as u32,
                start: self.random.one_of(&[0, 0x8000_0000, 0x8010_0000]),
                end: self.random.one_of(&[u64::MAX, 0x8020_0000]),
                budget: self.random.one_of(&[0, 1, 17, 100, 4096, u32::MAX]),
                target,
                ..start
            },
        }
    }

    /// Returns a place of an examination, mostly one that there may be.
    fn place(&mut self, handle: u16) -> u64 {
        let target = self.random.one_of(&[Target::guest(handle), Target::HOST, Target::HYP]);
        let address = self.random.one_of(&[0, MEMORY, 0x8000_0000, 0x8010_0000]);
        let place = Place::new(target, address).map_or(0, |place| place.0);
        let edge = self.random.edge();
        self.random.one_of(&[0, place, place, place, edge])
    }

    /// Makes an ioctl whose argument is right but for one 4 or 8 bytes, or for nothing, or whose command is another.
    fn ioctl(&mut self) -> Result<()> {
        let version = ABI_VERSION.to_bits();
        let hello = Hello { size: size_of::<Hello>() as u32, version, ..Hello::new_zeroed() };
        let release = self.random.below(5) as u32;
        let advance = Advance { size: size_of::<Advance>() as u32, version, release, ..Advance::new_zeroed() };
        let start = self.good_start();
        let (mut command, mut argument) = match self.random.below(8) {
            0 => (HELLO, hello.as_bytes().to_vec()),
            1..=3 => (START, start.as_bytes().to_vec()),
            _ => (ADVANCE, advance.as_bytes().to_vec()),
        };
        let size = argument.len();
        match self.random.below(4) {
            0 => {
                let word = self.random.below(size as u64 / 4) as usize * 4;
                let value = self.random.edge() as u32;
                argument[word..][..4].copy_from_slice(&value.to_le_bytes());
            }
            1 => {
                let word = self.random.below(size as u64 / 8) as usize * 8;
                let targets = [Target::guest(FIRST_HANDLE + 1), Target::HOST, Target::HYP, Target(3 << 56), Target(!0)];
                let value = self.random.one_of(&targets).0 ^ self.random.edge();
                argument[word..][..8].copy_from_slice(&value.to_le_bytes());
            }
            _ => {}
        }
        if self.random.once_in(16) {
            // Direction, size, kind and number; the size stays within the room.
            command ^= 1 << self.random.one_of(&[0, 1, 2, 3, 8, 9, 15, 16, 18, 20, 22, 23, 30, 31]);
        }
        argument.resize(size + ROOM_BYTES, 0);
        let result = self.device().raw_ioctl(command, &mut argument);
        let done = self.note(&format!("ioctl {command:#x} of {:x?}", &argument[..size]), result)?.is_some();
        if done && command == ADVANCE {
            let (advance, _) = Advance::read_from_prefix(&argument).expect("an argument is larger than that");
            self.seen.slots += advance.filled;
            ensure!(advance.state != SessionState::RUNNING || advance.filled > 0, "running, and no slot: {advance:?}");
        }
        Ok(())
    }

    fn read(&mut self) -> Result<()> {
        let length = self.random.one_of(&[0, 1, 127, 128, 4096, 5000, 40_000]);
        let mut buffer = vec![0; length];
        // A `&File` reads too.
        let result = (&self.device().file).read(&mut buffer);
        let result = result.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
        self.seen.read_bytes += self.note(&format!("read of {length}"), result)?.unwrap_or_default();
        Ok(())
    }

    fn map(&mut self) -> Result<()> {
        let length = match self.random.below(3) {
            0 => (self.random.edge() % (1 << 30)) as usize + 1,
            _ => self.device().hello().map_or(4096, |hello| hello.slots as usize * hello.slot_bytes as usize),
        };
        let write = ProtFlags::READ | ProtFlags::WRITE;
        let rights = self.random.one_of(&[ProtFlags::READ, ProtFlags::READ, ProtFlags::READ, write]);
        let result = self.device().map_as(length, rights);
        if let Some(mapping) = self.note(&format!("mmap of {length}"), result)? {
            mapping.slot(0)?;
            self.seen.mappings += 1;
            self.mapping = Some(mapping);
        }
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        match self.random.below(32) {
            0 => {
                let opened = Device::open();
                self.own = self.note("open", opened)?;
                Ok(())
            }
            1 => {
                self.own = None;
                Ok(())
            }
            2 => {
                // As by dup(2): the session lives until the last of them is closed.
                let copy = self.device().file.try_clone()?;
                self.own = Some(Device { file: copy });
                Ok(())
            }
            3..=5 => self.map(),
            6 => {
                self.mapping = None;
                Ok(())
            }
            7..=11 => self.read(),
            12 => match &self.mapping {
                Some(mapping) => mapping.slot(0).map(drop),
                None => Ok(()),
            },
            _ => self.ioctl(),
        }
    }
}

fn random_system_calls(machine: &Machine) -> Outcome {
    const STEPS: usize = 3000;
    const SEED: u64 = 0x5_2d_0b;
    /// VMs that must come and go meanwhile.
    const LIVES: u32 = 6;
    let steps = machine.fewer(STEPS);
    let shared = Device::open()?;
    let (lives, is_over) = (AtomicU32::new(0), AtomicBool::new(false));
    let is_enough = |step: usize| step >= steps && lives.load(Ordering::Relaxed) >= LIVES;
    let call = |number: u64| {
        let random = Random::new(SEED + number);
        let mut caller = Caller { random, shared: &shared, own: None, mapping: None, seen: Seen::default() };
        (0..).take_while(|&step| !is_enough(step)).try_for_each(|_| caller.step()).map(|()| caller.seen)
    };
    let live = || -> Result<()> {
        while !is_over.load(Ordering::Relaxed) {
            let mut first = VmmProcess::start("protected touch:200 share:20*2")?;
            let second = VmmProcess::start("ordinary touch:20")?;
            first.kill();
            drop(second);
            lives.fetch_add(2, Ordering::Relaxed);
        }
        Ok(())
    };
    let ((seen, signals), ended) = std::thread::scope(|scope| {
        // Nobody is to wait for VMs that do not come.
        let vms = scope.spawn(|| live().inspect_err(|_| lives.store(LIVES, Ordering::Relaxed)));
        let seen = run_interrupted((0..4).map(|number| move || call(number)).collect(), PAUSE);
        is_over.store(true, Ordering::Relaxed);
        (seen, vms.join().expect("the thread returns its panics as errors"))
    });
    let mut all = Seen::default();
    for seen in seen {
        all.add(seen?);
    }
    ended?;
    println!("  {all:?}, {lives:?} VMs, {signals} signals");
    let missing: Vec<_> = MUST_COME.iter().filter(|errno| !all.errnos.contains(&errno.raw_os_error())).collect();
    ensure!(missing.is_empty(), "never came: {missing:?}");
    // A small part of what a machine of two emulated CPUs does.
    let floors = [
        ("successes", all.successes as usize, 1000),
        ("slots", all.slots as usize, 100),
        ("mappings", all.mappings as usize, 200),
        ("bytes read", all.read_bytes, 10_000),
        ("signals", signals as usize, 100),
    ];
    for (what, figure, floor) in floors {
        ensure!(figure >= machine.fewer(floor), "hardly a test: {figure} {what}");
    }
    drop(shared);
    check_nothing_broken(machine)
}
