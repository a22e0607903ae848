// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's own text: debugfs under pKVM, `--format ptdump`, and what the stock kernel prints without pKVM.

use super::support::needs_poison;
use super::{tests, Ignored, Outcome};
use crate::machine::{Flavor, Machine};
use crate::program;
use crate::scale::at;
use crate::script::page_bytes;
use crate::vmm_process::VmmProcess;
use anyhow::{ensure, Context as _};

tests!(On:
    ptdump_equals_debugfs_protected,
    ptdump_equals_debugfs_ordinary,
    debugfs_shows_no_false_rights,
    debugfs_range_and_levels,
    debugfs_of_a_vm_that_never_ran,
    debugfs_equals_the_stock_text_without_pkvm,
);

/// An ordinary guest with blocks, pages, read-only pages, and the last page of a 40-bit space.
pub(super) const STOCK_GUEST: &str = "ordinary --mem 0x80000000+8M,huge --mem 0xfffff00000+1M --mem 0xb0000000+64K,ro \
    --mem 0x90000000+4M touch:1 touch:0xfffff00000+4 read:0xfffff10000+2 read:0xb0000000+2 touch:0x901ff000+2 \
    touch:0x90000000+1 touch:0x90002000+1";

/// What Linux 7.3.4 without our changes printed for [`STOCK_GUEST`] in `kvm-arm.mode=nvhe`, by page size and input-address
/// bits. Of these CPUs only that with 52 has a coherent instruction cache, so that KVM maps all memory executable. With pages of
/// 16 and 64 KiB the kernel had our changes, but in that mode the file is its own.
const STOCK_TEXTS: [(u64, u32, &str); 7] = [
    (4, 40, include_str!("../../../goldens/stock-40.ptdump.txt")),
    (4, 48, include_str!("../../../goldens/stock-48.ptdump.txt")),
    (4, 52, include_str!("../../../goldens/stock-52.ptdump.txt")),
    (16, 48, include_str!("../../../goldens/stock-16k-48.ptdump.txt")),
    (16, 52, include_str!("../../../goldens/stock-16k-52.ptdump.txt")),
    (64, 48, include_str!("../../../goldens/stock-64k-48.ptdump.txt")),
    (64, 52, include_str!("../../../goldens/stock-64k-52.ptdump.txt")),
];

pub(super) fn first_difference(one: &str, two: &str) -> String {
    let differing = one.lines().zip(two.lines()).find(|(a, b)| a != b);
    format!("{} and {} lines, first difference: {differing:?}", one.lines().count(), two.lines().count())
}

fn equal(machine: &Machine, arguments: &str) -> Outcome {
    let vmm = VmmProcess::start(arguments)?;
    let file = vmm.debugfs("stage2_page_tables")?;
    ensure!(file.starts_with("---[ Guest IPA ]---\n") && file.lines().count() > 3, "the file is {file:?}");
    let target = format!("vm:{}", vmm.expected.pid);
    for budget in ["61", "4096"] {
        let text =
            program::run(&["dump", &target, "--format", machine.flavor.ptdump_format(), "--budget", budget])?.ok()?;
        ensure!(text == file, "budget {budget}: program and file differ: {}", first_difference(&text, &file));
    }
    let again = vmm.debugfs("stage2_page_tables")?;
    ensure!(again == file, "two reads differ: {}", first_difference(&again, &file));
    vmm.end()
}

fn ptdump_equals_debugfs_protected(machine: &Machine) -> Outcome {
    let steps = "touch:16 share:4 touch:0x801ff000+2 poison:0x80008000+2 touch:0x80400000+512 touch:0x83fff000+1";
    equal(machine, &format!("protected {steps}"))
}

fn ptdump_equals_debugfs_ordinary(machine: &Machine) -> Outcome {
    equal(machine, STOCK_GUEST)
}

fn debugfs_shows_no_false_rights(machine: &Machine) -> Outcome {
    needs_poison(machine)?;
    let vmm = VmmProcess::start("protected touch:8 poison:0x80002000+4")?;
    let file = vmm.debugfs("stage2_page_tables")?;
    let poisoned = format!("{:#018x}-{:#018x}", at(0x8000_2000), at(0x8000_6000));
    let line = file.lines().find(|line| line.starts_with(&poisoned));
    let line = line.with_context(|| format!("no line for the poisoned pages: {file}"))?;
    ensure!(line.split_whitespace().nth(2) == Some("3"), "level: {line}");
    ensure!(line.split_whitespace().count() == 3, "a poisoned page has rights: {line}");
    vmm.end()
}

fn debugfs_range_and_levels(_: &Machine) -> Outcome {
    for kind in ["protected", "ordinary"] {
        let vmm = VmmProcess::start(&format!("{kind} touch:1"))?;
        let bits = vmm.expected.ipa_bits;
        ensure!(vmm.debugfs("ipa_range")? == format!("{bits}\n"), "ipa_range of {kind}: {}", vmm.debugfs("ipa_range")?);
        // As few as there can be if sixteen roots are concatenated at most, but two: with 4 KiB pages three for 40 bits, and
        // four for 48 and 52.
        let page_bits = page_bytes().ilog2();
        let levels = u32::max(2, (bits - page_bits - 4).div_ceil(page_bits - 3));
        ensure!(vmm.debugfs("stage2_levels")? == format!("{levels}\n"), "{}", vmm.debugfs("stage2_levels")?);
        vmm.end()?;
    }
    Ok(())
}

/// There is no table yet, so nothing is mapped: one hole at the level where the table will start.
fn debugfs_of_a_vm_that_never_ran(_: &Machine) -> Outcome {
    let vmm = VmmProcess::start("protected")?;
    let bits = vmm.expected.ipa_bits;
    let levels: u32 = vmm.debugfs("stage2_levels")?.trim().parse()?;
    // As ptdump.c counts: T is the unit up to 2^50 bytes, then P.
    let (shift, unit) = if bits < 50 { (40, 'T') } else { (50, 'P') };
    let size = 1_u64 << (bits - shift);
    let hole = format!("0x{:016x}-0x{:016x}   {size:9}{unit} {}", 0, 1_u64 << bits, 4 - levels);
    let text = vmm.debugfs("stage2_page_tables")?;
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    ensure!(lines == ["---[ Guest IPA ]---", &hole], "{text}");
    vmm.end()
}

fn debugfs_equals_the_stock_text_without_pkvm(machine: &Machine) -> Outcome {
    needs_stock_text(machine)?;
    let vmm = VmmProcess::start(STOCK_GUEST)?;
    equals_stock_text(&vmm)?;
    vmm.end()
}

/// Ignores a test where the kernel's text has other columns.
pub(super) fn needs_stock_text(machine: &Machine) -> Outcome {
    match machine.flavor {
        Flavor::Mainline => Ok(()),
        Flavor::Android => Err(Ignored("the stock text is mainline's".into()).into()),
    }
}

/// Checks a [`STOCK_GUEST`].
pub(super) fn equals_stock_text(vmm: &VmmProcess) -> Outcome {
    let bits = vmm.expected.ipa_bits;
    let kib = page_bytes() >> 10;
    let is_coherent = vmm.expected.runs.iter().any(|run| run.entry.level == 2 && run.entry.execute);
    if is_coherent != (bits == 52) {
        return Err(Ignored(format!("no stock text of such a CPU, with {bits} bits")).into());
    }
    let Some((.., stock)) = STOCK_TEXTS.iter().find(|(pages, of, _)| (*pages, *of) == (kib, bits)) else {
        return Err(Ignored(format!("no stock text for {bits} bits with pages of {kib} KiB")).into());
    };
    let file = vmm.debugfs("stage2_page_tables")?;
    ensure!(file == *stock, "differs from the stock kernel: {}", first_difference(&file, stock));
    Ok(())
}
