// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! What only the image has: entry, console, registers, and the memory that cases use.

mod boot;
mod console;
mod machine;
mod semihosting;

use console::{print, Console};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use machine::Machine;
use s2dump_testbed::arena::{Arena, PART_BYTES, WORDS};
use s2dump_testbed::cases::{self, Choice};
use s2dump_testbed::compare::{Compare, Places};
use s2dump_testbed::report::{Group, Report};

/// Where QEMU's memory is; `cargo xtask testbed` gives it 64 MiB.
const RAM: (u64, u64) = (0x4000_0000, 0x4400_0000);
const WFI: u32 = 0xd503_207f;
/// SMC #3 and #4: see the monitor in boot.s.
const SMC_RAN: u32 = 0xd400_0063;
const SMC_VECTORS: u32 = 0xd400_0083;

/// Memory for tables: [`Arena`] wants this alignment.
#[repr(align(0x10_0000))]
struct Tables([AtomicU64; WORDS]);

/// A page of the largest size.
#[repr(align(0x1_0000))]
struct Page([AtomicU32; 0x4000]);

static TABLES: Tables = Tables([const { AtomicU64::new(0) }; WORDS]);
static TARGET: Page = Page([const { AtomicU32::new(0) }; 0x4000]);
static EL2_TARGET: Page = Page([const { AtomicU32::new(0) }; 0x4000]);
static EL2_VECTORS: Page = Page([const { AtomicU32::new(0) }; 0x4000]);

/// Runs all at EL2, started at `el`; returns whether something failed.
pub(crate) fn main(el: u64) -> bool {
    assert!(el == 3, "started at EL{el}, not at EL3: QEMU wants -M virt,virtualization=on,secure=on");
    let mut buffer = [0; 256];
    let (choice, high) = choice(semihosting::arguments(&mut buffer));
    assert!(high.is_none_or(|base| base % PART_BYTES == 0), "high memory is not aligned");
    let high = high.map(|base| (base, machine::high_memory(base)));
    let cpu = Machine::cpu();
    print(format_args!("ID_AA64MMFR0..2_EL1 {:#x} {:#x} {:#x}, {choice:?}\n", cpu.mmfr0, cpu.mmfr1, cpu.mmfr2));
    let places = Places {
        code: Machine::code(),
        target: fill(&TARGET, WFI),
        el2_target: fill(&EL2_TARGET, SMC_RAN),
        el2_vectors: fill(&EL2_VECTORS, SMC_VECTORS),
    };
    let mut console = Console;
    let mut compare = Compare {
        mmu: &mut Machine::new(),
        arena: Arena::new(TABLES.0.as_ptr() as u64, RAM, &TABLES.0, high),
        cpu,
        report: Report::new(&mut console),
        group: Group::Settings,
        case: ("", 0),
        is_traced: choice.is_traced,
        places,
    };
    cases::run(&mut compare, &choice);
    compare.report.summary();
    let failures = compare.report.failures;
    match failures {
        0 => print(format_args!("s2dump-verdict: pass\n")),
        _ => print(format_args!("s2dump-verdict: fail {failures}\n")),
    }
    failures != 0
}

/// Fills a page with an instruction; returns where it is.
fn fill(page: &Page, instruction: u32) -> u64 {
    for word in &page.0 {
        word.store(instruction, Ordering::Relaxed);
    }
    page.0.as_ptr() as u64
}

/// Reads the words the image was started with: its name; what to do, and the address of 2 MiB of high memory if there is.
fn choice(words: &str) -> (Choice, Option<u64>) {
    let mut high = None;
    let mut choice = Choice { seed: 0, count: 0, only: None, is_traced: false, is_denied: false };
    for word in words.split_whitespace().skip(1) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let number = value.parse::<u64>().unwrap_or(0);
        let small = u32::try_from(number).unwrap_or(u32::MAX);
        match name {
            "seed" => choice.seed = number,
            "cases" => choice.count = small,
            "high" => high = Some(number),
            "case" => choice.only = Some(small),
            "trace" => choice.is_traced = true,
            "denied" => choice.is_denied = true,
            _ => panic!("no such word: {word}"),
        }
    }
    (choice, high)
}
