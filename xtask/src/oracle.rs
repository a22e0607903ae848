// SPDX-License-Identifier: MIT OR Apache-2.0
//! The oracle nobody here wrote: the kernel's own text of a stage-2 table against `s2dump dump --ram` of the same table.
//!
//! An ordinary kernel boots with `kvm-arm.mode=nvhe`, runs VMs whose guests spin, and prints its debugfs file
//! `stage2_page_tables` of each. Then QEMU's gdbstub stops the machine and tells VTTBR_EL2, VTCR_EL2 and the features of
//! the CPU that runs the guest, and the file behind the machine's memory is the RAM image; an ELF core that QEMU makes of
//! it is looked at too. All texts must be equal byte for byte. Output addresses are not in them: those of the table are
//! compared with what the process that runs the VM has from `/proc/self/pagemap`.
//!
//! Of pKVM's tables no kernel tells a text. There the entries that EL2 tells are compared with a naive walk of the memory, and
//! with what `s2dump dump --ram` finds there ([`protected`]).

mod addresses;
mod naive;
pub(crate) mod protected;
mod registers;
mod transcript;

use crate::ctx::Ctx;
use crate::gdb::{self, Gdb};
use crate::kernel::Variant;
use crate::process::{command, output};
use crate::qemu::{Bootable, Machine};
use crate::step::Step;
use addresses::equal_addresses;
use anyhow::{ensure, Context, Result};
use registers::{find_tables, Registers};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;
use transcript::{equal, has_all, Told, Transcript};

/// Where the memory of QEMU's machine begins.
const RAM_BASE: u64 = 0x4000_0000;
/// Time of one machine: one with huge pages has a gigabyte to clear.
const TIMEOUT: Duration = Duration::from_secs(600);

/// A machine, and the numbers of input-address bits of its VMs, which decide on start level and concatenation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// The kernel.
    pub(crate) variant: Variant,
    cpu: &'static str,
    memory_mib: u32,
    bits: &'static [u32],
    /// Blocks are entries of level 1: a gigabyte, which takes time to clear.
    is_giant: bool,
}

/// The CPUs: 40 bits and no FEAT_XNX; 48 bits; LPA2 (DS=1), FWB and 52 bits. Cortex-A53 has no 16 KiB pages. With 64 KiB
/// pages a huge page has 512 MiB, and Linux finds none that large in 2 GiB.
const CASES: [Case; 10] = [
    Case::new(Variant::S2dump, "cortex-a53", 512, &[32, 34, 35, 40]),
    Case::new(Variant::S2dump, "neoverse-n1", 512, &[33, 43, 44, 48]),
    Case::new(Variant::S2dump, "max", 512, &[36, 40, 49, 52]),
    Case { is_giant: true, ..Case::new(Variant::S2dump, "neoverse-n1", 3072, &[36, 44]) },
    Case::new(Variant::Pages16K, "cortex-a76", 1024, &[32, 36, 37, 40]),
    Case::new(Variant::Pages16K, "neoverse-n1", 1024, &[41, 47, 48]),
    Case::new(Variant::Pages16K, "max", 1024, &[36, 49, 51, 52]),
    Case::new(Variant::Pages64K, "cortex-a53", 4096, &[32, 33, 40]),
    Case::new(Variant::Pages64K, "neoverse-n1", 4096, &[42, 43, 46, 48]),
    Case::new(Variant::Pages64K, "max", 4096, &[40, 47, 52]),
];

/// Returns the cases: the quick ones of the default kernel, or all. Those of one kernel follow each other.
pub(crate) fn cases(all: bool) -> impl Iterator<Item = &'static Case> {
    CASES.iter().filter(move |case| all || case.variant == Variant::S2dump && !case.is_giant)
}

impl Case {
    const fn new(variant: Variant, cpu: &'static str, memory_mib: u32, bits: &'static [u32]) -> Self {
        Self { variant, cpu, memory_mib, bits, is_giant: false }
    }

    /// Returns the name of the check.
    pub(crate) fn name(&self) -> String {
        let pages = match self.variant {
            Variant::S2dump | Variant::Debug | Variant::Wide | Variant::Objects => "4K",
            Variant::Pages16K => "16K",
            Variant::Pages64K => "64K",
        };
        let more = if self.is_giant { ", 1 GiB blocks" } else { "" };
        format!("oracle: {pages}, {}{more}", self.cpu)
    }

    /// Returns whether an ELF core is looked at too: of small machines, and not of those with SVE. QEMU 10.0.2 takes the
    /// notes of all CPUs to be as long as the first one's, so memory is not where the headers say if vectors differ.
    fn has_core(&self) -> bool {
        self.memory_mib <= 512 && self.cpu != "max"
    }

    /// Boots, and compares each VM's table.
    ///
    /// # Errors
    ///
    /// If the boot fails, the texts differ, or they have not in them what they should.
    pub(crate) fn check(&self, ctx: &Ctx, step: &Step, boot: &Bootable<'_>, program: &Path) -> Result<()> {
        let files = Files::new(ctx);
        let giant = ["default_hugepagesz=1G", "hugepages=1"];
        let machine = Machine {
            cpu: self.cpu.into(),
            cpus: u32::try_from(self.bits.len())? + 1,
            memory_mib: self.memory_mib,
            mode: "nvhe",
            kernel_words: giant.iter().filter(|_| self.is_giant).map(|word| (*word).to_owned()).collect(),
            qemu_words: files.qemu_words(self.memory_mib),
            timeout: TIMEOUT,
        };
        let run = format!("oracle={}", self.bits.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
        let console = self.name().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let mut transcript = Transcript::default();
        let mut tables = 0;
        let code = machine.boot_until(ctx, boot, &run, &console, |line| {
            if !transcript.line(line)? {
                return Ok(ControlFlow::Continue(()));
            }
            let mut gdb = Gdb::connect(&files.socket)?;
            let registers = find_tables(&mut gdb, &transcript.told)?;
            let mut images = vec![format!("{}@{RAM_BASE:#x}", files.ram.display())];
            if self.has_core() {
                let core = files.core.display().to_string();
                let said = gdb.monitor(&format!("dump-guest-memory {core}"))?;
                ensure!(said.is_empty(), "QEMU makes no ELF core: {said}");
                images.push(core);
            }
            for (told, registers) in transcript.told.iter().zip(&registers) {
                for image in &images {
                    let what = || format!("{} bits, {registers:x?}, --ram {image}", told.bits);
                    step.detail(what());
                    compare(told, registers, program, image).with_context(what)?;
                }
                tables += 1;
            }
            Ok(ControlFlow::Break(()))
        })?;
        ensure!(code == 0, "the guest failed (exit code {code})");
        ensure!(tables == self.bits.len(), "{tables} tables instead of {}", self.bits.len());
        let rows: usize = transcript.told.iter().map(|told| told.text.lines().count() - 1).sum();
        let maps: usize = transcript.told.iter().map(|told| told.maps.len()).sum();
        let name = self.name();
        step.result(&format!(
            "{name}: {tables} tables, {rows} rows equal byte for byte; {maps} ranges where they should be"
        ));
        Ok(())
    }
}

/// Files of a machine, removed on drop.
struct Files {
    ram: PathBuf,
    core: PathBuf,
    socket: PathBuf,
}

impl Files {
    fn new(ctx: &Ctx) -> Self {
        // The path of a socket has to be short: the target directory's may not be.
        let socket = std::env::temp_dir().join(format!("s2dump-gdb-{}", std::process::id()));
        let files = Self { ram: ctx.target.join("oracle-ram"), core: ctx.target.join("oracle-core"), socket };
        files.remove();
        files
    }

    /// Returns the words that put the machine's memory into the file, and have QEMU listen at the socket.
    fn qemu_words(&self, memory_mib: u32) -> Vec<String> {
        // QEMU wants a comma in a value twice.
        let ram = self.ram.display().to_string().replace(',', ",,");
        let backend = format!("memory-backend-file,id=ram,size={memory_mib}M,mem-path={ram},share=on");
        let words = ["-object", &backend, "-machine", "memory-backend=ram"].map(str::to_owned);
        [words, gdb::qemu_words(&self.socket)].concat()
    }

    fn remove(&self) {
        for path in [&self.ram, &self.core, &self.socket] {
            // There is nothing of a machine that did not start.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Builds the program that is judged.
///
/// # Errors
///
/// If it does not build.
pub(crate) fn program(ctx: &Ctx) -> Result<PathBuf> {
    let step = Step::start("oracle: build s2dump");
    let mut cargo = command("cargo");
    cargo.current_dir(&ctx.root).args(["build", "--locked", "--package", "s2dump"]);
    step.run(&mut cargo, &ctx.log("oracle-program"))?;
    step.done();
    Ok(ctx.target.join("debug/s2dump"))
}

/// Has `s2dump` read a table, and compares.
fn compare(told: &Told, registers: &Registers, program: &Path, ram: &str) -> Result<()> {
    has_all(&told.text)?;
    let dump = |words: &[&str]| {
        let mut s2dump = command(program);
        output(s2dump.args(["dump", "--ram", ram]).args(registers.options()).args(words))
    };
    equal(&told.text, &dump(&["--format", "ptdump"])?)?;
    equal_addresses(&told.maps, &dump(&["--format", "table", "--exact"])?)
}
