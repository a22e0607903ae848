// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must not be left after a test, counted by those who know it.
//!
//! - No VM: the driver and the files of debugfs hold the VMs they look at, and a reference that is not given back keeps
//!   the VM and its handle for good.
//! - No page that s2dump shares with EL2: each session and each open file shares pages, and must take them back.
//!
//! Both counts are exact, so one leak of one session shows, whatever the kernel keeps in its caches.

use super::support::list;
use super::Outcome;
use crate::machine::{Boot, Machine};
use crate::selftest::shared_pages;
use anyhow::ensure;
use std::fs;
use std::time::{Duration, Instant};

/// The kernel ends a VM some time after its process: by then all must be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Checks that nothing is left.
///
/// # Errors
///
/// Says what is.
pub(crate) fn check(machine: &Machine) -> Outcome {
    // Locked down, s2dump tells nothing any more; without it nothing can be left.
    let locked = fs::read_to_string("/sys/kernel/security/lockdown").is_ok_and(|text| !text.contains("[none]"));
    if machine.boot != Boot::On || locked {
        return Ok(());
    }
    let begin = Instant::now();
    loop {
        let (vms, pages) = (list()?, shared_pages()?);
        if vms.is_empty() && pages == 0 {
            return Ok(());
        }
        ensure!(
            begin.elapsed() < machine.patience(PATIENCE),
            "left behind: {pages} pages shared with EL2, and the VMs {vms:x?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
