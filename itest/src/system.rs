// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the first process owes the machine: file systems, a verdict, and switching it off.

use crate::script::page_bytes;
use anyhow::{Context as _, Result};
use rustix::mount::{mount, MountFlags};
use std::fs;

/// What the kernel's own file systems are, and where they go.
const MOUNTS: [(&str, &str); 6] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("debugfs", "/sys/kernel/debug"),
    ("securityfs", "/sys/kernel/security"),
    ("tmpfs", "/tmp"),
];

/// Mounts the kernel's file systems. One that is there already, or not in this kernel, is no error but told.
///
/// # Errors
///
/// If `/proc` or `/dev` cannot be had: nothing works without.
pub fn mount_all() -> Result<()> {
    for (kind, at) in MOUNTS {
        let _ = fs::create_dir_all(at);
        match mount(kind, at, kind, MountFlags::empty(), None) {
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) if matches!(at, "/proc" | "/dev") => return Err(error).context(format!("mounting {at}")),
            Err(error) => println!("init: mounting {kind} on {at}: {error}"),
        }
    }
    mount_share();
    Ok(())
}

/// Mounts the directory of the workstation that `cargo xtask run --share` names, if it does.
fn mount_share() {
    match mount("host", "/host", "9p", MountFlags::empty(), Some(c"trans=virtio,version=9p2000.L")) {
        // There is none, or this kernel has no such file system.
        Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::NODEV) => {}
        Err(error) => println!("init: mounting /host: {error}"),
    }
}

/// Returns the default size of huge pages: that of a level-2 block, if the kernel command line does not say otherwise.
///
/// # Errors
///
/// If the kernel does not tell.
pub fn huge_page_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Hugepagesize:")).context("no huge pages")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("Hugepagesize")?;
    Ok(kib << 10)
}

/// Mounts huge pages of the default size.
///
/// # Errors
///
/// If the kernel refuses.
pub fn mount_huge(at: &str) -> Result<()> {
    fs::create_dir_all(at)?;
    mount("hugetlbfs", at, "hugetlbfs", MountFlags::empty(), None).with_context(|| format!("mounting {at}"))
}

/// Sets up what VMs with blocks need: huge pages of the default size.
pub fn reserve_huge_pages(count: u32) {
    if let Err(error) = fs::write(HUGE_PAGES, count.to_string()) {
        println!("init: {HUGE_PAGES}: {error}");
    }
}

/// Where the number of huge pages is told and set.
const HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";

/// Returns how many blocks of level 2, or more, the kernel has free of which a transparent huge page can be made.
///
/// # Errors
///
/// If the kernel does not tell.
pub fn free_blocks() -> Result<u64> {
    // Of a block in pages: as many as a table has entries.
    let order = (page_bytes() / 8).ilog2() as usize;
    let text = fs::read_to_string("/proc/buddyinfo").context("/proc/buddyinfo")?;
    // `Node 0, zone DMA 1 2 3 ...`: a count for each order.
    let counts = text.lines().flat_map(|line| line.split_whitespace().skip(4 + order));
    counts.map(|count| count.parse::<u64>().with_context(|| text.clone())).sum()
}

/// Prints the one verdict line the other side of the console waits for.
pub fn print_verdict(code: i32) {
    match code {
        0 => println!("s2dump-verdict: pass"),
        code => println!("s2dump-verdict: fail {code}"),
    }
}

/// Switches the machine off.
pub fn power_off() -> ! {
    rustix::fs::sync();
    let error = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    println!("init: power off: {error:?}");
    loop {
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}
