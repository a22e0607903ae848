// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machines on which s2dump must not work: not asked for at boot, no pKVM, locked down.

use super::ptdump::STOCK_GUEST;
use super::{Outcome, Test};
use crate::device::{Device, PATH};
use crate::machine::{Boot, Flavor, Machine};
use crate::program::{self, exit};
use crate::vmm_process::VmmProcess;
use anyhow::ensure;
use rustix::io::Errno;
use std::fs;

/// Tests of a machine started without `kvm-arm.s2dump=on`.
pub(super) const OFF_TESTS: &[Test] = &[
    Test { name: "off_no_device", boot: Boot::Off, heavy: false, run: no_device },
    Test { name: "off_probe_tells_the_next_step", boot: Boot::Off, heavy: false, run: off_probe },
    Test { name: "off_debugfs_is_as_stock", boot: Boot::Off, heavy: false, run: off_debugfs },
];

/// Tests of a machine without pKVM.
pub(super) const NO_PKVM_TESTS: &[Test] = &[
    Test { name: "no_pkvm_no_device", boot: Boot::NoPkvm, heavy: false, run: no_device },
    Test { name: "no_pkvm_probe_tells_the_next_step", boot: Boot::NoPkvm, heavy: false, run: no_pkvm_probe },
    Test { name: "no_pkvm_debugfs_is_as_stock", boot: Boot::NoPkvm, heavy: false, run: no_pkvm_debugfs },
];

/// There is no way back from lockdown: last.
pub(super) const LOCKDOWN_TESTS: &[Test] =
    &[Test { name: "lockdown_refuses", boot: Boot::On, heavy: false, run: lockdown_refuses }];

fn no_device(machine: &Machine) -> Outcome {
    let code = if machine.boot == Boot::Off { exit::NOT_PERMITTED } else { exit::UNSUPPORTED };
    ensure!(!fs::exists(PATH)?, "{PATH} exists");
    for arguments in [&["list"][..], &["dump", "vm:0x1000"]] {
        let ran = program::run(arguments)?;
        ensure!(ran.code == code, "{arguments:?}: {ran:?}");
        ensure!(ran.stdout.is_empty() && !ran.stderr.trim().is_empty(), "{arguments:?}: {ran:?}");
    }
    Ok(())
}

fn off_probe(_: &Machine) -> Outcome {
    program::run(&["probe"])?.fails(exit::NOT_PERMITTED, &["kvm-arm.s2dump=on"])
}

/// What the stock kernel does under pKVM: mainline says ERANGE. Android's has a text, which lacks access flags and the last
/// range. Without our gate that must not change.
fn off_debugfs(machine: &Machine) -> Outcome {
    let vmm = VmmProcess::start("protected touch:1")?;
    if machine.flavor == Flavor::Android {
        let text = vmm.debugfs("stage2_page_tables")?;
        ensure!(text.contains("R W X") && !text.contains("AF"), "access flags: {text}");
        let end = format!("-0x{:016x} ", 1_u64 << vmm.expected.ipa_bits);
        ensure!(!text.contains(&end), "the last range: {text}");
        return vmm.end();
    }
    let result = vmm.debugfs("stage2_page_tables").map_err(|error| error.downcast::<std::io::Error>());
    let errno = result.as_ref().err().and_then(|error| error.as_ref().ok()).and_then(Errno::from_io_error);
    ensure!(errno == Some(Errno::RANGE), "{result:?}");
    vmm.end()
}

fn no_pkvm_probe(_: &Machine) -> Outcome {
    program::run(&["probe"])?.fails(exit::UNSUPPORTED, &["kvm-arm.mode=protected"])
}

fn no_pkvm_debugfs(machine: &Machine) -> Outcome {
    super::ptdump::needs_stock_text(machine)?;
    let vmm = VmmProcess::start(STOCK_GUEST)?;
    super::ptdump::equals_stock_text(&vmm)?;
    vmm.end()
}

fn lockdown_refuses(_: &Machine) -> Outcome {
    let vmm = VmmProcess::start("protected touch:1")?;
    fs::write("/sys/kernel/security/lockdown", "confidentiality")?;
    let result = Device::open().map(drop);
    ensure!(result == Err(Errno::PERM), "open: {result:?}");
    let target = format!("vm:{}", vmm.expected.pid);
    program::run(&["dump", &target])?.fails(exit::NOT_PERMITTED, &["lockdown"])?;
    ensure!(vmm.debugfs("stage2_page_tables").is_err(), "debugfs still shows the table");
    vmm.end()
}
