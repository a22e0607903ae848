// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask demo`: a protected and an ordinary VM on a real pKVM, and what s2dump reads of them at EL2.

use crate::ctx::Ctx;
use crate::qemu::{console_path, Bootable, Machine};
use crate::run::is_output;
use crate::step::clock;
use crate::{guest, kernel, setup};
use anyhow::{bail, Result};
use std::time::Instant;

/// Sets up, builds, boots, and shows the output of the guest's commands.
///
/// # Errors
///
/// If any of it fails.
pub(crate) fn run(ctx: &Ctx) -> Result<()> {
    let started = Instant::now();
    let kernel = kernel::build(ctx)?;
    setup::qemu(ctx)?;
    let initramfs = guest::initramfs(ctx)?;
    let machine = Machine::default();
    eprintln!("==> qemu: boot with kvm-arm.mode=protected, -cpu {}", machine.cpu);
    let boot_started = Instant::now();
    let code = machine.boot(ctx, &Bootable { kernel: &kernel, initramfs: &initramfs }, "demo", "demo", |line| {
        if is_output(line) {
            println!("{line}");
        }
    })?;
    eprintln!("    qemu: done  {}", clock(boot_started.elapsed()));
    let console = console_path(ctx, "demo")?;
    if code != 0 {
        bail!("the demo failed in the guest (exit code {code}); console: {}", console.display());
    }
    eprintln!("    demo: done  {}; console: {}", clock(started.elapsed()), console.display());
    Ok(())
}
