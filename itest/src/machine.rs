// SPDX-License-Identifier: MIT OR Apache-2.0
//! Facts about the machine the tests run in, from files the kernel under test did not have to be changed for.

use anyhow::{Context as _, Result};
use std::fs;
use std::ops::Range;

/// How the kernel was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot {
    /// pKVM, and s2dump allowed.
    On,
    /// pKVM, s2dump not allowed (no `kvm-arm.s2dump=on`).
    Off,
    /// No pKVM.
    NoPkvm,
}

/// What the tests need to know.
#[derive(Clone, Debug)]
pub struct Machine {
    /// How it was started.
    pub boot: Boot,
    /// The processor on which the long tests run too: the others run what depends on the processor.
    pub heavy: bool,
    /// Physical memory.
    pub ram: Vec<Range<u64>>,
}

impl Machine {
    /// Looks around.
    ///
    /// # Errors
    ///
    /// If `/proc` lacks what every kernel has.
    pub fn look() -> Result<Self> {
        let command_line = fs::read_to_string("/proc/cmdline").context("/proc/cmdline")?;
        let cpus = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
        let iomem = fs::read_to_string("/proc/iomem").context("/proc/iomem")?;
        Ok(Self { boot: boot(&command_line), heavy: is_neoverse_n1(&cpus), ram: system_ram(&iomem) })
    }

    /// Returns whether the page at `address` is memory.
    #[must_use]
    pub fn is_ram(&self, address: u64) -> bool {
        self.ram.iter().any(|range| range.contains(&address))
    }
}

fn boot(command_line: &str) -> Boot {
    let last = |key: &str| command_line.split_whitespace().filter_map(|word| word.strip_prefix(key)).next_back();
    match (last("kvm-arm.mode="), last("kvm-arm.s2dump=")) {
        (Some("protected"), Some("on" | "1" | "y" | "on,atomic")) => Boot::On,
        (Some("protected"), _) => Boot::Off,
        _ => Boot::NoPkvm,
    }
}

fn is_neoverse_n1(cpus: &str) -> bool {
    cpus.lines().any(|line| line.starts_with("CPU part") && line.ends_with("0xd0c"))
}

fn system_ram(iomem: &str) -> Vec<Range<u64>> {
    let range = |line: &str| {
        let (range, name) = line.split_once(" : ")?;
        let (first, last) = range.split_once('-').filter(|_| name == "System RAM")?;
        Some(u64::from_str_radix(first, 16).ok()?..u64::from_str_radix(last, 16).ok()? + 1)
    };
    // Nested lines are indented: `from_str_radix` refuses the spaces.
    iomem.lines().filter_map(range).collect()
}

/// Returns free memory in KiB, after giving back what is merely kept in lists.
///
/// # Errors
///
/// If `/proc/meminfo` cannot be read.
pub fn free_kib() -> Result<u64> {
    // Page cache and slab keep what they like; drop both (3) so that a difference is a leak, without a line in the log (4).
    let _ = fs::write("/proc/sys/vm/drop_caches", "7");
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemFree:")).context("MemFree")?;
    line.trim().trim_end_matches(" kB").trim().parse().context("MemFree")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boots() {
        assert_eq!(boot("kvm-arm.mode=protected kvm-arm.s2dump=on"), Boot::On);
        assert_eq!(boot("kvm-arm.mode=protected kvm-arm.s2dump=on,atomic"), Boot::On);
        assert_eq!(boot("kvm-arm.mode=protected kvm-arm.s2dump=off"), Boot::Off);
        assert_eq!(boot("kvm-arm.mode=protected"), Boot::Off);
        assert_eq!(boot("kvm-arm.mode=nvhe kvm-arm.s2dump=on"), Boot::NoPkvm);
    }

    #[test]
    fn memory_is_what_iomem_says() {
        let text = "09000000-09000fff : pl011\n40000000-7fffffff : System RAM\n  40210000-40ffffff : Kernel code\n";
        assert_eq!(system_ram(text), vec![Range { start: 0x4000_0000, end: 0x8000_0000 }]);
    }
}
