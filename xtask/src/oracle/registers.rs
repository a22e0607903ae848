// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the hardware is told of a table: registers of the CPU that runs the guest, by QEMU's gdbstub.

use super::transcript::Told;
use crate::gdb::Gdb;
use anyhow::{bail, Context, Result};
use std::io::{Read, Write};
use std::time::Duration;

/// How often to look for a guest in the registers. A vCPU is nearly always in the guest, so one look is usually enough.
const LOOKS: u32 = 200;
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// What the hardware is told of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Registers {
    vtcr: u64,
    vttbr: u64,
    hcr: u64,
    mmfr0: u64,
    mmfr1: u64,
}

/// Looks into the CPUs until each table has been in the registers of its own, and leaves the machine stopped.
pub(super) fn find_tables<S: Read + Write>(gdb: &mut Gdb<S>, told: &[Told]) -> Result<Vec<Registers>> {
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
    pub(super) fn options(&self) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
