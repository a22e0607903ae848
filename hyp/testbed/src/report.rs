// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Counts, and failures in full.

use crate::cpu::Cpu;
use crate::divergence::{Divergence, LIST};
use core::fmt::{Arguments, Write};

/// Groups of cases, as the summary names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Every setting of granule, size and start level.
    Settings,
    /// One case for each rule of the descriptors.
    Directed,
    /// Random settings, tables and addresses.
    Random,
    /// Random ranges over the edge of tables.
    Ranges,
    /// Loads, stores and fetches at EL1 and EL0.
    Accesses,
    /// EL2's stage 1, directed.
    El2,
    /// EL2's stage 1, random.
    El2Random,
    /// Fetches at EL2.
    El2Fetches,
}

const NAMES: [&str; 8] = ["settings", "directed", "random", "ranges", "accesses", "el2", "el2 random", "el2 fetches"];
/// Failures that are printed; one rule gone wrong breaks thousands.
const MAX_PRINTED: u32 = 5;

/// The results so far.
pub struct Report<'w> {
    out: &'w mut dyn Write,
    counts: [u32; NAMES.len()],
    diverged: [u32; LIST.len()],
    /// Comparisons not made by AT: see [`Divergence::AtPermissionAborts`].
    pub left_to_accesses: u32,
    /// Tables that lead back to one on the way, which the walker stopped at, rightly.
    pub loops: u32,
    /// Failures.
    pub failures: u32,
}

impl<'w> Report<'w> {
    /// Starts.
    pub fn new(out: &'w mut dyn Write) -> Self {
        let (counts, diverged) = ([0; NAMES.len()], [0; LIST.len()]);
        Self { out, counts, diverged, left_to_accesses: 0, loops: 0, failures: 0 }
    }

    /// Counts a comparison.
    pub fn count(&mut self, group: Group) {
        self.counts[group as usize] += 1;
    }

    /// Counts an answer that only QEMU gives.
    pub fn diverged(&mut self, divergence: Divergence) {
        self.diverged[divergence as usize] += 1;
    }

    /// Fails for each divergence that was not met though `cpu` has it: the cases no longer reach it, or it is gone.
    pub fn require_divergences(&mut self, cpu: &Cpu) {
        for (known, count) in LIST.iter().zip(self.diverged) {
            if count == 0 && (known.is_met_on)(cpu) && self.fail() {
                self.print(format_args!("FAILED: divergence {}: met 0 times, but this CPU has it\n", known.name));
            }
        }
    }

    /// Prints.
    pub fn print(&mut self, text: Arguments<'_>) {
        // The console does not fail, and a report that cannot be printed has no one to tell.
        let _ = self.out.write_fmt(text);
    }

    /// Counts a failure; returns whether its details are wanted.
    pub fn fail(&mut self) -> bool {
        self.failures += 1;
        self.failures <= MAX_PRINTED
    }

    /// Prints the counts in one line.
    pub fn summary(&mut self) {
        self.print(format_args!("summary: "));
        for (name, count) in NAMES.into_iter().zip(self.counts) {
            self.print(format_args!("{name} {count}, "));
        }
        let (left, loops) = (self.left_to_accesses, self.loops);
        self.print(format_args!("left to accesses {left}, loops {loops}; QEMU's own:"));
        for (known, count) in LIST.iter().zip(self.diverged).filter(|(_, count)| *count != 0) {
            self.print(format_args!(" {} {count}", known.name));
        }
        self.print(format_args!("\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    /// 48 address bits, FEAT_HPDS, and nothing else.
    const CPU: Cpu = Cpu { mmfr0: 5, mmfr1: 1 << 12, mmfr2: 0 };
    const MET: [Divergence; 5] = [
        Divergence::Granule,
        Divergence::ReservedMemAttr,
        Divergence::ReservedShareability,
        Divergence::LowBaseBits,
        Divergence::ContiguousNt,
    ];

    fn failures(met: &[Divergence], cpu: &Cpu) -> u32 {
        let mut out = String::new();
        let mut report = Report::new(&mut out);
        met.iter().for_each(|divergence| report.diverged(*divergence));
        report.require_divergences(cpu);
        report.failures
    }

    #[test]
    fn good_all_met() {
        assert_eq!(failures(&MET, &CPU), 0);
    }

    #[test]
    fn bad_one_not_met() {
        assert_eq!(failures(&MET[1..], &CPU), 1);
        assert_eq!(failures(&MET, &Cpu { mmfr1: 0, ..CPU }), 1, "hpd-always");
        assert_eq!(failures(&MET, &Cpu { mmfr2: 1 << 40, ..CPU }), 1, "fwb-device");
        assert_eq!(failures(&MET, &Cpu { mmfr0: 2, ..CPU }), 1, "t0sz-below-pamax");
    }
}
