// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boots the test machine in QEMU and judges its console.

use crate::ctx::Ctx;
use crate::kernel::Kernel;
use crate::process::{command, shown};
use crate::setup;
use crate::verdict::Watcher;
use anyhow::{anyhow, bail, Context, Result};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long a machine that gave its verdict may take to switch off.
const POWER_OFF: Duration = Duration::from_secs(30);

/// A machine to boot.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// For `-cpu`.
    pub(crate) cpu: String,
    /// CPUs.
    pub(crate) cpus: u32,
    /// MiB of memory.
    pub(crate) memory_mib: u32,
    /// `kvm-arm.mode=`: `protected`, or `nvhe` for the stock behavior.
    pub(crate) mode: &'static str,
    /// More words for the kernel command line.
    pub(crate) kernel_words: Vec<String>,
    /// More arguments for QEMU, such as `-icount`.
    pub(crate) qemu_words: Vec<String>,
    /// When to give up.
    pub(crate) timeout: Duration,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            cpu: "neoverse-n1".into(),
            cpus: 2,
            memory_mib: 1024,
            mode: "protected",
            kernel_words: vec![switch("neoverse-n1").into()],
            qemu_words: Vec::new(),
            timeout: Duration::from_secs(300),
        }
    }
}

/// The CPU on which the tests boot without `atomic`, and check that atomic dumps are refused.
const WITHOUT_ATOMIC: &str = "cortex-a53";

/// Returns the word of the kernel command line that switches s2dump on.
pub(crate) fn switch(cpu: &str) -> &'static str {
    if cpu == WITHOUT_ATOMIC {
        "kvm-arm.s2dump=on,hyp"
    } else {
        "kvm-arm.s2dump=on,atomic,hyp"
    }
}

/// The word that permits what [`switch`] does, but not EL2's own table.
pub(crate) const WITHOUT_HYP: &str = "kvm-arm.s2dump=on,atomic";

/// A kernel and a root file system, ready to boot.
pub(crate) struct Bootable<'a> {
    /// The kernel.
    pub(crate) kernel: &'a Kernel,
    /// The root file system.
    pub(crate) initramfs: &'a Path,
}

impl Machine {
    /// Returns the command without the options for the console. `run` is what the guest's init shall do, and its
    /// arguments.
    fn command(&self, boot: &Bootable<'_>, run: &str) -> Command {
        let mut qemu = command(setup::QEMU);
        qemu.args(["-machine", "virt,virtualization=on,gic-version=3", "-cpu", &self.cpu]);
        qemu.args(["-smp", &self.cpus.to_string(), "-m", &format!("{}M", self.memory_mib)]);
        qemu.args(["-display", "none", "-no-reboot", "-nodefaults"]).args(&self.qemu_words);
        qemu.arg("-kernel").arg(&boot.kernel.image).arg("-initrd").arg(boot.initramfs);
        // The tests ask for what this kind of kernel can do.
        let flavor = format!("s2dump.flavor={}", boot.kernel.flavor.name);
        let words = [&self.kernel_words[..], &[flavor]].concat().join(" ");
        // Everything after ` -- ` goes to the guest's init, so `run` comes last.
        let line = format!("console=ttyAMA0 panic=-1 kvm-arm.mode={} {words} s2dump.run={run}", self.mode);
        qemu.arg("-append").arg(line);
        qemu
    }

    /// Boots, hands each line of the console to `on_line`, and returns the exit code the guest gave.
    ///
    /// The console is kept; its path is part of every error, and [`console_path`] gives it.
    ///
    /// # Errors
    ///
    /// If QEMU does not start, the machine hangs, the kernel complains, or there is not exactly one verdict.
    pub(crate) fn boot(
        &self,
        ctx: &Ctx,
        boot: &Bootable<'_>,
        run: &str,
        console_name: &str,
        mut on_line: impl FnMut(&str),
    ) -> Result<i32> {
        self.boot_until(ctx, boot, run, console_name, |line| {
            on_line(line);
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Boots as [`boot`](Self::boot) does, but ends the machine as soon as `on_line` breaks, without a verdict.
    ///
    /// # Errors
    ///
    /// As [`boot`](Self::boot); and if `on_line` fails.
    pub(crate) fn boot_until(
        &self,
        ctx: &Ctx,
        boot: &Bootable<'_>,
        run: &str,
        console_name: &str,
        mut on_line: impl FnMut(&str) -> Result<ControlFlow<()>>,
    ) -> Result<i32> {
        let path = console_path(ctx, console_name)?;
        let mut console = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let (reader, writer) = std::io::pipe()?;
        let mut qemu = self.command(boot, run);
        qemu.args(["-serial", "stdio"]).stdout(writer.try_clone()?).stderr(writer);
        let mut child = ChildGuard(qemu.spawn().with_context(|| format!("cannot run `{}`", shown(&qemu)))?);
        qemu.stdout(Stdio::null()).stderr(Stdio::null()); // or the pipe would not end with the child

        let (lines, received) = channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
                if lines.send(text).is_err() {
                    return;
                }
                line.clear();
            }
        });

        let mut watcher = Watcher::default();
        let mut deadline = Instant::now() + self.timeout;
        let mut is_over = false;
        let is_hung = loop {
            match received.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    writeln!(console, "{line}")?;
                    let had_verdict = watcher.has_verdict();
                    watcher.line(&line);
                    if watcher.has_verdict() && !had_verdict {
                        deadline = Instant::now() + POWER_OFF;
                    }
                    let flow = on_line(&line).with_context(|| format!("console: {}", path.display()))?;
                    is_over = flow.is_break();
                    if is_over {
                        break false;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break false,
                Err(RecvTimeoutError::Timeout) => break true,
            }
        };
        if is_hung || is_over {
            child.0.kill()?;
        }
        let status = child.0.wait()?;
        let failed = |what: String| anyhow!("{what}; console: {}\n`{}`", path.display(), shown(&qemu));
        if is_over {
            return watcher.trouble().map(|()| 0).map_err(failed);
        }
        // Trouble is reported first, because what the kernel complained of tells more than that it hung.
        match watcher.end() {
            Err(what) if !is_hung || what.contains("complains") => Err(failed(what)),
            _ if is_hung && watcher.has_verdict() => Err(failed("no power-off after the verdict".into())),
            _ if is_hung => Err(failed(format!("no verdict within {} s", self.timeout.as_secs()))),
            Ok(_) if !status.success() => Err(failed(format!("QEMU failed ({status})"))),
            Ok(code) => Ok(code),
            Err(what) => Err(failed(what)),
        }
    }

    /// Boots with the console on this terminal, until the guest switches off. Ctrl-A x ends QEMU.
    ///
    /// # Errors
    ///
    /// As [`boot`](Self::boot), but that there is no time limit.
    pub(crate) fn boot_interactive(&self, ctx: &Ctx, boot: &Bootable<'_>, run: &str) -> Result<i32> {
        let path = console_path(ctx, "shell")?;
        let mut qemu = self.command(boot, run);
        let chardev = format!("stdio,id=console,mux=on,signal=off,logfile={}", path.display());
        qemu.args(["-chardev", &chardev, "-serial", "chardev:console", "-mon", "console"]);
        qemu.stdin(Stdio::inherit());
        let status = qemu.status().with_context(|| format!("cannot run `{}`", shown(&qemu)))?;
        if !status.success() {
            bail!("QEMU failed ({status})\n`{}`", shown(&qemu));
        }
        let mut watcher = Watcher::default();
        String::from_utf8_lossy(&std::fs::read(&path)?).lines().for_each(|line| watcher.line(line));
        watcher.end().map_err(|what| anyhow!("{what}; console: {}", path.display()))
    }
}

/// Ends QEMU when it is dropped, however that comes about.
struct ChildGuard(Child);

impl Drop for ChildGuard {
    fn drop(&mut self) {
        // This fails only if QEMU has ended already, which is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns where a console is kept.
///
/// # Errors
///
/// If the directory cannot be made.
pub(crate) fn console_path(ctx: &Ctx, name: &str) -> Result<PathBuf> {
    let dir = ctx.target.join("consoles");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir.join(format!("{name}.log")))
}
