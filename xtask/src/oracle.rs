// SPDX-License-Identifier: MIT OR Apache-2.0
//! The oracle nobody here wrote: the kernel's own text of a stage-2 table against `s2dump dump --ram` of the same table.
//!
//! An ordinary kernel boots with `kvm-arm.mode=nvhe`, runs VMs whose guests spin, and prints its debugfs file
//! `stage2_page_tables` of each. Then QEMU's gdbstub stops the machine and tells VTTBR_EL2, VTCR_EL2 and the features of
//! the CPU that runs the guest, and the file behind the machine's memory is the RAM image; an ELF core that
//! QEMU makes of it is looked at too. All texts must be equal byte for byte. Output addresses are not in them: the tests in the VM
//! look after those.

use crate::ctx::Ctx;
use crate::gdb::Gdb;
use crate::kernel::Flavor;
use crate::process::{command, output};
use crate::qemu::{Bootable, Machine};
use crate::step::Step;
use anyhow::{bail, ensure, Context, Result};
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the memory of QEMU's machine begins.
const RAM_BASE: u64 = 0x4000_0000;
/// How the guest's init starts its lines.
const MARK: &str = "s2dump-oracle: ";
/// How often to look for a guest in the registers. A vCPU is nearly always in the guest, so one look is usually enough.
const LOOKS: u32 = 200;
/// Time of one machine: one with huge pages has a gigabyte to clear.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(10);
/// What each text must have in it for the comparison to mean something: pages that may be executed, pages and blocks,
/// read-only and not to be executed.
const REQUIRED: [(&str, &str); 5] = [
    ("pages", "3   R W "),
    ("blocks", " BLK"),
    ("read-only ranges", "   R   "),
    ("ranges to execute", " px ux "),
    ("ranges not to execute", " PXNUXN "),
];

/// A machine, and the numbers of input-address bits of its VMs, which decide on start level and concatenation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// The kernel.
    pub(crate) flavor: Flavor,
    cpu: &'static str,
    memory_mib: u32,
    bits: &'static [u32],
    /// More words for the kernel command line.
    words: &'static [&'static str],
}

/// Huge pages with which a block is an entry of level 1.
const GIANT: &[&str] = &["default_hugepagesz=1G", "hugepages=1"];

/// 40 bits and no FEAT_XNX; 48 bits; LPA2 (DS=1), FWB and 52 bits. Cortex-A53 has no 16 KiB pages. With 64 KiB pages a huge
/// page has 512 MiB, and Linux finds none that large in 2 GiB.
const CASES: [Case; 10] = [
    Case { flavor: Flavor::S2dump, cpu: "cortex-a53", memory_mib: 512, bits: &[32, 34, 35, 40], words: &[] },
    Case { flavor: Flavor::S2dump, cpu: "neoverse-n1", memory_mib: 512, bits: &[33, 43, 44, 48], words: &[] },
    Case { flavor: Flavor::S2dump, cpu: "max", memory_mib: 512, bits: &[36, 40, 49, 52], words: &[] },
    Case { flavor: Flavor::S2dump, cpu: "neoverse-n1", memory_mib: 3072, bits: &[36, 44], words: GIANT },
    Case { flavor: Flavor::Plain16K, cpu: "cortex-a76", memory_mib: 1024, bits: &[32, 36, 37, 40], words: &[] },
    Case { flavor: Flavor::Plain16K, cpu: "neoverse-n1", memory_mib: 1024, bits: &[41, 47, 48], words: &[] },
    Case { flavor: Flavor::Plain16K, cpu: "max", memory_mib: 1024, bits: &[36, 49, 51, 52], words: &[] },
    Case { flavor: Flavor::Plain64K, cpu: "cortex-a53", memory_mib: 4096, bits: &[32, 33, 40], words: &[] },
    Case { flavor: Flavor::Plain64K, cpu: "neoverse-n1", memory_mib: 4096, bits: &[42, 43, 46, 48], words: &[] },
    Case { flavor: Flavor::Plain64K, cpu: "max", memory_mib: 4096, bits: &[40, 47, 52], words: &[] },
];

/// Returns the cases: those of the default kernel, or all.
pub(crate) fn cases(all: bool) -> impl Iterator<Item = &'static Case> {
    CASES.iter().filter(move |case| all || case.flavor == Flavor::S2dump && case.words.is_empty())
}

/// What the kernel printed of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    bits: u32,
    cpu: usize,
    text: String,
}

/// What the hardware is told of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Registers {
    vtcr: u64,
    vttbr: u64,
    hcr: u64,
    mmfr0: u64,
    mmfr1: u64,
}

impl Case {
    /// Returns the name of the check.
    pub(crate) fn name(&self) -> String {
        let pages = match self.flavor {
            Flavor::S2dump => "4K",
            Flavor::Plain16K => "16K",
            Flavor::Plain64K => "64K",
        };
        let more: String = self.words.iter().flat_map(|word| [", ", word]).collect();
        format!("oracle: {pages}, {}{more}", self.cpu)
    }

    /// Returns whether an ELF core is looked at too: once for each layout of memory will do. Not with SVE: QEMU 10.0.2
    /// counts the notes of all CPUs to be as long as the first one's, so with different vector lengths memory is not where
    /// the headers say.
    fn has_core(&self) -> bool {
        self.flavor == Flavor::S2dump && self.words.is_empty() && self.cpu != "max"
    }

    /// Boots, and compares each VM's table.
    ///
    /// # Errors
    ///
    /// If the boot fails, the texts differ, or they have not in them what they should.
    pub(crate) fn check(&self, ctx: &Ctx, step: &Step, boot: &Bootable<'_>, program: &Path) -> Result<()> {
        let files = Files::new(ctx);
        let memory = format!("{}M", self.memory_mib);
        let backend = format!("memory-backend-file,id=ram,size={memory},mem-path={},share=on", files.ram.display());
        let socket = format!("socket,id=gdb,path={},server=on,wait=off", files.socket.display());
        let words = ["-object", &backend, "-machine", "memory-backend=ram", "-chardev", &socket, "-gdb", "chardev:gdb"];
        let machine = Machine {
            cpu: self.cpu.into(),
            cpus: u32::try_from(self.bits.len())? + 1,
            memory_mib: self.memory_mib,
            mode: "nvhe",
            kernel_words: self.words.iter().copied().map(str::to_owned).collect(),
            qemu_words: words.map(str::to_owned).to_vec(),
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
                    told.compare(registers, program, image).with_context(what)?;
                }
                tables += 1;
            }
            Ok(ControlFlow::Break(()))
        })?;
        ensure!(code == 0, "the guest failed (exit code {code})");
        ensure!(tables == self.bits.len(), "{tables} tables instead of {}", self.bits.len());
        let rows: usize = transcript.told.iter().map(|told| told.text.lines().count() - 1).sum();
        step.result(&format!("{}: {tables} tables, {rows} rows, equal byte for byte", self.name()));
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
        let file = |name: &str| ctx.target.join(format!("oracle-{name}-{}", std::process::id()));
        let files = Self { ram: file("ram"), core: file("core"), socket };
        files.remove();
        files
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

/// Collects what the guest's init prints.
#[derive(Default)]
struct Transcript {
    told: Vec<Told>,
    is_open: bool,
}

impl Transcript {
    /// Takes a line of the console; returns whether it was the last of interest.
    fn line(&mut self, line: &str) -> Result<bool> {
        match (line.strip_prefix(MARK), self.told.last_mut()) {
            (Some("ready"), _) if !self.is_open => return Ok(true),
            (Some("end"), Some(_)) if self.is_open => self.is_open = false,
            (Some(head), _) if !self.is_open => {
                let words: Vec<&str> = head.split(' ').collect();
                let ["table", bits, "cpu", cpu] = words[..] else { bail!("a line that makes no sense: {line:?}") };
                self.told.push(Told { bits: bits.parse()?, cpu: cpu.parse()?, text: String::new() });
                self.is_open = true;
            }
            (Some(_), _) => bail!("a table without an end before {line:?}"),
            (None, Some(told)) if self.is_open => {
                told.text += line;
                told.text.push('\n');
            }
            (None, _) => {}
        }
        Ok(false)
    }
}

/// Looks into the CPUs until each table has been in the registers of its own, and leaves the machine stopped.
fn find_tables<S: Read + Write>(gdb: &mut Gdb<S>, told: &[Told]) -> Result<Vec<Registers>> {
    let numbers = gdb.registers()?;
    let number = |name: &str| numbers.get(name).copied().with_context(|| format!("QEMU does not know {name}"));
    let [vtcr, vttbr, hcr] = [number("VTCR_EL2")?, number("VTTBR_EL2")?, number("HCR_EL2")?];
    let [mmfr0, mmfr1] = [number("ID_AA64MMFR0_EL1")?, number("ID_AA64MMFR1_EL1")?];
    let cpus = gdb.cpus()?;
    let mut found = vec![None; told.len()];
    for _ in 0..LOOKS {
        for (told, found) in told.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
            gdb.select(cpus.get(told.cpu).with_context(|| format!("{} CPUs only", cpus.len()))?)?;
            let registers = Registers {
                vtcr: gdb.register(vtcr)?,
                vttbr: gdb.register(vttbr)?,
                hcr: gdb.register(hcr)?,
                mmfr0: gdb.register(mmfr0)?,
                mmfr1: gdb.register(mmfr1)?,
            };
            *found = registers.is_of(told.bits).then_some(registers);
        }
        if let Some(all) = found.iter().copied().collect() {
            return Ok(all);
        }
        gdb.resume()?;
        std::thread::sleep(PAUSE);
        gdb.interrupt()?;
    }
    let missing: Vec<u32> = told.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(t, _)| t.bits).collect();
    bail!("no CPU runs the guests with {missing:?} bits: VTTBR_EL2 and HCR_EL2.VM stay 0 there")
}

impl Registers {
    /// Returns whether these are those of a running guest with so many input-address bits.
    fn is_of(&self, bits: u32) -> bool {
        const VM: u64 = 1 << 0;
        self.vttbr != 0 && self.hcr & VM != 0 && 64 - (self.vtcr & 0x3f) == u64::from(bits)
    }

    /// Returns the options that tell `s2dump` of the table: nothing of it is guessed.
    fn options(&self) -> Vec<String> {
        let mut options = vec![format!("--vtcr={:#x}", self.vtcr), format!("--vttbr={:#x}", self.vttbr)];
        let pa_bits = match self.mmfr0 & 0xf {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            5 => 48,
            _ => 52,
        };
        options.push(format!("--pa-bits={pa_bits}"));
        if self.hcr >> 46 & 1 == 1 {
            options.push("--fwb".into());
        }
        if self.mmfr1 >> 28 & 0xf != 0 {
            options.push("--xnx".into());
        }
        options
    }
}

impl Told {
    /// Has `s2dump` read the table, and compares.
    fn compare(&self, registers: &Registers, program: &Path, ram: &str) -> Result<()> {
        has_all(&self.text)?;
        let mut s2dump = command(program);
        s2dump.args(["dump", "--ram", ram, "--format", "ptdump"]).args(registers.options());
        equal(&self.text, &output(&mut s2dump)?)
    }
}

/// Checks that a kernel's text has everything in it that is to be judged.
fn has_all(text: &str) -> Result<()> {
    let missing: Vec<&str> = REQUIRED.iter().filter(|(_, sign)| !text.contains(sign)).map(|(what, _)| *what).collect();
    ensure!(missing.is_empty(), "the kernel's text has no {} in it:\n{text}", missing.join(", "));
    Ok(())
}

/// Checks that two texts are the same, byte for byte.
fn equal(kernel: &str, ours: &str) -> Result<()> {
    if kernel == ours {
        return Ok(());
    }
    let mut lines = kernel.lines().zip(ours.lines()).enumerate().filter(|(_, (theirs, ours))| theirs != ours);
    let (theirs, ours) = match lines.next() {
        Some((line, (theirs, ours))) => (format!("line {}: {theirs:?}", line + 1), format!("{ours:?}")),
        None => (format!("{} bytes", kernel.len()), format!("{} bytes, the other's beginning or end", ours.len())),
    };
    bail!("the texts differ\n  kernel: {theirs}\n  s2dump: {ours}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "[    0.1] x\ns2dump-oracle: table 40 cpu 1\n---[ Guest IPA ]---\n0x0  R W \n\
        s2dump-oracle: end\n[    0.2] y\ns2dump-oracle: table 48 cpu 2\n---[ Guest IPA ]---\ns2dump-oracle: end\n";

    #[test]
    fn good_transcript() {
        let mut transcript = Transcript::default();
        for line in CONSOLE.lines() {
            assert!(!transcript.line(line).unwrap(), "{line}");
        }
        assert!(transcript.line("s2dump-oracle: ready").unwrap());
        let text = "---[ Guest IPA ]---\n0x0  R W \n".to_owned();
        assert_eq!(transcript.told[0], Told { bits: 40, cpu: 1, text });
        assert_eq!((transcript.told[1].bits, transcript.told[1].cpu), (48, 2));
    }

    #[test]
    fn bad_transcripts() {
        for lines in [
            &["s2dump-oracle: table 40 cpu"][..],
            &["s2dump-oracle: end"],
            &["s2dump-oracle: table 40 cpu 1", "s2dump-oracle: ready"],
            &["s2dump-oracle: table 40 cpu 1", "s2dump-oracle: table 48 cpu 2"],
        ] {
            let mut transcript = Transcript::default();
            assert!(lines.iter().any(|line| transcript.line(line).is_err()), "{lines:?}");
        }
    }

    const RUNNING: Registers = Registers { vtcr: 0x8002_3558, vttbr: 0x1_0000_4100_0000, hcr: 1, mmfr0: 2, mmfr1: 0 };

    #[test]
    fn registers_of_a_running_guest() {
        assert!(RUNNING.is_of(40));
        assert!(!RUNNING.is_of(48), "another VM's");
        assert!(!Registers { vttbr: 0, ..RUNNING }.is_of(40), "the host's");
        assert!(!Registers { hcr: 0, ..RUNNING }.is_of(40), "not in use");
    }

    #[test]
    fn features_come_from_the_registers() {
        assert_eq!(RUNNING.options(), ["--vtcr=0x80023558", "--vttbr=0x1000041000000", "--pa-bits=40"]);
        let all = Registers { hcr: 1 << 46 | 1, mmfr0: 6, mmfr1: 1 << 28, ..RUNNING };
        assert_eq!(all.options()[2..], ["--pa-bits=52", "--fwb", "--xnx"]);
    }

    #[test]
    fn bad_texts() {
        let error = has_all("0x0-0x1000  4K 3   R W px ux  AF    \n").unwrap_err().to_string();
        assert!(error.contains("no blocks, read-only ranges, ranges not to execute in it"), "{error}");
        assert!(equal("a\nb\n", "a\nc\n").unwrap_err().to_string().contains("line 2: \"b\""));
        assert!(equal("a\nb\n", "a\n").is_err());
        assert!(equal("a\n", "a").is_err());
        assert!(equal("a\n", "a\n").is_ok());
    }
}
