// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes words of a live machine's memory, as its guest asks (`itest/src/run/corrupt.rs`): the audit has to find them.

use crate::ctx::Ctx;
use crate::gdb::{self, Gdb};
use crate::qemu::{console_path, Bootable, Machine};
use crate::run::is_output;
use crate::step::Step;
use anyhow::{ensure, Context, Result};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Name of the check.
pub(crate) const NAME: &str = "audit: corrupted tables";
const CONSOLE: &str = "audit-corrupted-tables";

/// Removed on drop.
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        // There is none of a machine that did not start.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Returns what a line of the console asks to write: an address and a value.
fn poke(line: &str) -> Option<(u64, u64)> {
    let hex = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let mut words = line.strip_prefix("s2dump-poke: ")?.split_whitespace().map(hex);
    Some((words.next()??, words.next()??))
}

/// Boots, and writes what the guest asks for, until it has seen all it wants.
///
/// # Errors
///
/// If the boot fails, or the guest did not see what it should.
pub(crate) fn check(ctx: &Ctx, step: &Step, boot: &Bootable<'_>) -> Result<()> {
    let socket = Socket(std::env::temp_dir().join(format!("s2dump-poke-{}", std::process::id())));
    drop(Socket(socket.0.clone()));
    let machine = Machine { qemu_words: gdb::qemu_words(&socket.0).to_vec(), ..Machine::default() };
    let (mut gdb, mut pokes) = (None, 0);
    let code = machine.boot_until(ctx, boot, "corrupt", CONSOLE, |line| {
        if is_output(line) {
            step.detail(line);
        }
        let Some((address, value)) = poke(line) else { return Ok(ControlFlow::Continue(())) };
        // The connection stops the machine.
        let gdb = match &mut gdb {
            Some(gdb) => {
                Gdb::interrupt(gdb)?;
                gdb
            }
            none => none.insert(Gdb::connect(&socket.0)?),
        };
        gdb.write_physical(address, value).with_context(|| line.to_owned())?;
        gdb.resume()?;
        pokes += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    ensure!(
        code == 0,
        "the audit does not see it (exit code {code}); console: {}",
        console_path(ctx, CONSOLE)?.display()
    );
    ensure!(pokes > 0, "nothing was written");
    step.result(&format!("{NAME}: {pokes} words written, each seen by its rule or seen to be right again"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::poke;

    #[test]
    fn pokes() {
        assert_eq!(poke("s2dump-poke: 0x40001008 0x2000000000000002"), Some((0x4000_1008, 2 << 60 | 2)));
        for line in ["s2dump-poke: 0x40001008", "s2dump-poke: 4 5", "  s2dump-poke: 0x4 0x5", "s2dump-verdict: pass"] {
            assert_eq!(poke(line), None, "{line}");
        }
    }
}
