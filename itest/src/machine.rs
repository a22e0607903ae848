// SPDX-License-Identifier: MIT OR Apache-2.0
//! Facts about the machine the tests run in, from files the kernel under test did not have to be changed for.

use anyhow::{Context as _, Result};
use s2dump_abi::slot::encoding;
use std::fs;
use std::ops::Range;
use std::time::Duration;

/// The switch of s2dump on the kernel command line.
const SWITCH: &str = "kvm-arm.s2dump=";
/// Files that only kernels have that check what they do: by kmemleak and by lockdep.
const CHECKING_ITSELF: [&str; 2] = ["/sys/kernel/debug/kmemleak", "/proc/lockdep_chains"];
/// How many times slower those are, about.
const SLOW_IF_CHECKING: u32 = 4;

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

/// What kind of kernel it is, as `xtask` said on the command line: what its pKVM can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// Linux 7.2 and later.
    Mainline,
    /// Android's common kernel android16-6.12.
    Android,
}

impl Flavor {
    /// Looks at the kernel command line.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn look() -> Result<Self> {
        Ok(Self::of(&fs::read_to_string("/proc/cmdline").context("/proc/cmdline")?))
    }

    fn of(command_line: &str) -> Self {
        match last_word(command_line, "s2dump.flavor=") {
            Some(name) if name.starts_with("android") => Self::Android,
            _ => Self::Mainline,
        }
    }

    /// Returns whether the host may read a protected guest's page behind its back, and pKVM poisons it. Elsewhere that is
    /// an oops.
    #[must_use]
    pub fn poisons(self) -> bool {
        self == Self::Mainline
    }

    /// Returns whether a VM has a handle before it runs.
    #[must_use]
    pub fn has_early_handles(self) -> bool {
        self == Self::Mainline
    }

    /// Returns whether pKVM maps blocks for a protected guest, where its memory is in large pages.
    #[must_use]
    pub fn has_protected_blocks(self) -> bool {
        self == Self::Android
    }

    /// Returns whether memory that a process gave back page by page can come again as a large page: Linux frees the table of
    /// the pages then since 6.14 (PT_RECLAIM).
    #[must_use]
    pub fn reclaims_page_tables(self) -> bool {
        self == Self::Mainline
    }

    /// Returns whether a VM that somebody holds lives on when its process ends. Elsewhere it dies, and is only not forgotten.
    #[must_use]
    pub fn lives_while_held(self) -> bool {
        self == Self::Android
    }

    /// Returns the format of the program that is the kernel's own text.
    #[must_use]
    pub fn ptdump_format(self) -> &'static str {
        match self {
            Self::Mainline => "ptdump",
            Self::Android => "ptdump-android",
        }
    }

    /// Returns the encoding of its tables.
    #[must_use]
    pub fn encoding(self) -> u16 {
        match self {
            Self::Mainline => encoding::PKVM_7_2,
            Self::Android => encoding::PKVM_ANDROID_6_12,
        }
    }
}

/// What the tests need to know.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What kind of kernel it has.
    pub flavor: Flavor,
    /// How it was started.
    pub boot: Boot,
    /// Atomic dumps allowed too (`kvm-arm.s2dump=on,atomic`).
    pub atomic: bool,
    /// EL2's own table allowed too (`kvm-arm.s2dump=on,hyp`).
    pub hyp: bool,
    /// The processor on which the long tests run too: the others run what depends on the processor.
    pub heavy: bool,
    /// How many times slower than usual the kernel is: 1, but for one that checks itself, or as `s2dump.slow=` says.
    pub slow: u32,
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
        Ok(Self {
            flavor: Flavor::of(&command_line),
            boot: boot(&command_line),
            atomic: permits(&command_line, "atomic"),
            hyp: permits(&command_line, "hyp"),
            heavy: is_neoverse_n1(&cpus),
            slow: slow(&command_line, CHECKING_ITSELF.iter().any(|path| fs::exists(path).unwrap_or(false)))?,
            ram: system_ram(&iomem),
        })
    }

    /// Returns how often to do what a usual kernel does `count` times: less often on a slow one, but at least once.
    #[must_use]
    pub fn fewer(&self, count: usize) -> usize {
        (count / self.slow as usize).max(1)
    }

    /// Returns how long to wait for what a usual kernel does within `time`.
    #[must_use]
    pub fn patience(&self, time: Duration) -> Duration {
        time * self.slow
    }

    /// Returns whether the page at `address` is memory.
    #[must_use]
    pub fn is_ram(&self, address: u64) -> bool {
        self.ram.iter().any(|range| range.contains(&address))
    }
}

fn last_word<'a>(command_line: &'a str, key: &str) -> Option<&'a str> {
    command_line.split_whitespace().filter_map(|word| word.strip_prefix(key)).next_back()
}

fn slow(command_line: &str, is_checking_itself: bool) -> Result<u32> {
    match last_word(command_line, "s2dump.slow=") {
        Some(times) => times.parse().ok().filter(|times| *times > 0).context("s2dump.slow= is not a positive number"),
        None if is_checking_itself => Ok(SLOW_IF_CHECKING),
        None => Ok(1),
    }
}

/// Returns whether the words of the switch have `word` too. The tests give only words that the kernel knows.
fn permits(command_line: &str, word: &str) -> bool {
    last_word(command_line, SWITCH).is_some_and(|words| words.split(',').any(|one| one == word))
}

fn boot(command_line: &str) -> Boot {
    let is_on = ["on", "1", "y"].iter().any(|word| permits(command_line, word));
    match last_word(command_line, "kvm-arm.mode=") {
        Some("protected") if is_on => Boot::On,
        Some("protected") => Boot::Off,
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

/// What `/proc/meminfo` counts of the memory that is in use, each page once.
const IN_USE: [&str; 9] =
    ["MemFree", "Buffers", "Cached", "AnonPages", "Slab", "KernelStack", "PageTables", "VmallocUsed", "Percpu"];

/// Returns the memory, in KiB, of which the kernel does not know what it is used for: what somebody took page by page.
///
/// Unlike free memory this does not change with slabs (so not with what KASAN keeps of freed objects), stacks and files.
/// It still changes with the allocator's lists of each CPU, some hundred pages.
///
/// # Errors
///
/// If `/proc/meminfo` lacks what every kernel has.
pub fn unaccounted_kib() -> Result<u64> {
    unaccounted(&fs::read_to_string("/proc/meminfo")?)
}

fn unaccounted(meminfo: &str) -> Result<u64> {
    let value = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
            .with_context(|| key.to_owned())
    };
    let huge = value("HugePages_Total").unwrap_or(0) * value("Hugepagesize").unwrap_or(0);
    let known = IN_USE.iter().map(|key| value(key)).sum::<Result<u64>>()?;
    Ok(value("MemTotal")?.saturating_sub(known + huge))
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
        assert_eq!(boot("kvm-arm.mode=protected kvm-arm.s2dump=on,atomic,hyp"), Boot::On);
    }

    #[test]
    fn flavors() {
        assert_eq!(Flavor::of("quiet"), Flavor::Mainline);
        assert_eq!(Flavor::of("s2dump.flavor=mainline quiet"), Flavor::Mainline);
        assert_eq!(Flavor::of("s2dump.flavor=android16-6.12 quiet"), Flavor::Android);
    }

    #[test]
    fn words_of_the_switch() {
        let words = |line| (permits(line, "atomic"), permits(line, "hyp"));
        assert_eq!(words("kvm-arm.s2dump=on"), (false, false));
        assert_eq!(words("kvm-arm.s2dump=on,atomic"), (true, false));
        assert_eq!(words("kvm-arm.s2dump=on,hyp"), (false, true));
        assert_eq!(words("kvm-arm.s2dump=on,atomic,hyp kvm-arm.mode=protected"), (true, true));
        assert_eq!(words("atomic hyp"), (false, false));
    }

    #[test]
    fn slow_kernels() {
        assert_eq!(slow("quiet", false).unwrap(), 1);
        assert!(slow("quiet", true).unwrap() > 1);
        assert_eq!(slow("s2dump.slow=1", true).unwrap(), 1);
        assert!(slow("s2dump.slow=0", true).is_err() && slow("s2dump.slow=much", true).is_err());
    }

    #[test]
    fn unaccounted_memory() {
        let text = "MemTotal: 1000 kB\nMemFree: 500 kB\nBuffers: 1 kB\nCached: 2 kB\nAnonPages: 3 kB\nSlab: 4 kB\n\
            KernelStack: 5 kB\nPageTables: 6 kB\nVmallocUsed: 7 kB\nPercpu: 8 kB\n";
        assert_eq!(unaccounted(text).unwrap(), 464);
        assert!(unaccounted("MemTotal: 1000 kB\n").is_err());
    }

    #[test]
    fn memory_is_what_iomem_says() {
        let text = "09000000-09000fff : pl011\n40000000-7fffffff : System RAM\n  40210000-40ffffff : Kernel code\n";
        assert_eq!(system_ram(text), vec![Range { start: 0x4000_0000, end: 0x8000_0000 }]);
    }
}
