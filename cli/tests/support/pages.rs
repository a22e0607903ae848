// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine of [`pkvm`](super::pkvm) with pages of 16 KiB: the same pages, blocks and tables, four times as large or more, so
//! that a page that somebody takes for 4 KiB is a quarter of one.

use super::pkvm::*;
use super::*;

/// The page size, as a shift.
pub const PAGE_SHIFT: u8 = 14;
/// A page.
pub const PAGE_BYTES: u64 = 1 << PAGE_SHIFT;

/// The addresses below it are scaled; what is above says of which of EL2's maps they are.
const SCALED: u64 = 1 << 40;
const ADDRESS: u64 = 0xffff_ffff_f000;

/// Returns where what is at `address` with pages of 4 KiB is here: as many blocks of level 2 from 0 on, and as many pages in it.
pub const fn at(address: u64) -> u64 {
    let (base, below) = (address / SCALED * SCALED, address % SCALED);
    base + (below >> 21 << 25) + ((below >> 12) % 512 * PAGE_BYTES) + below % 4096
}

/// Returns `machine`, made with pages of 4 KiB, with pages of 16 KiB. Its moments are not kept.
pub fn larger(machine: &Machine) -> Machine {
    let mut larger = Machine { page_shift: PAGE_SHIFT, moments: Vec::new(), ..machine.clone() };
    larger.vms.iter_mut().for_each(|vm| (vm.root, vm.vtcr) = (at(vm.root), vtcr(vm.vtcr)));
    for fact in larger.facts.iter_mut().filter(|fact| fact.kind != FactKind::HYP_LINEAR.0) {
        (fact.start, fact.size) = (at(fact.start), at(fact.start + fact.size) - at(fact.start));
    }
    larger.counted.iter_mut().for_each(|pa| *pa = at(*pa));
    larger.frames = machine.frames.iter().map(|(&pa, &raw)| (at(pa), raw)).collect();
    for tree in &mut larger.trees {
        *tree = larger_tree(tree);
        // A block has more pages, which are like its last one.
        for (_, block) in tree.entries.iter().filter(|(_, entry)| entry.kind == RecordKind::LEAF && entry.level == 2) {
            let pa = block.raw & ADDRESS;
            let Some(&last) = larger.frames.get(&(pa + 511 * PAGE_BYTES)) else { continue };
            larger.frames.extend((512..2048).map(|page| (pa + page * PAGE_BYTES, last)));
        }
    }
    larger
}

fn larger_tree(tree: &Tree) -> Tree {
    let raw = |entry: &Entry| match entry.kind {
        RecordKind::INVALID => annotation(entry.raw),
        _ => entry.raw & !ADDRESS | at(entry.raw & ADDRESS),
    };
    let mut tables: Vec<Table> = Vec::new();
    for table in &tree.tables {
        let ia = at(table.ia) & !(bytes_of(PAGE_SHIFT, table.level - 1) - 1);
        // One has the entries of several.
        if !tables.iter().any(|known| (known.ia, known.level) == (ia, table.level)) {
            tables.push(Table { ia, pa: at(table.pa), ..*table });
        }
    }
    let header = SlotHeader { page_shift: PAGE_SHIFT, root: at(tree.header.root), ..tree.header };
    let header = match Target(header.target) {
        Target::HYP => SlotHeader { vtcr: tcr(header.vtcr), ..header },
        _ => SlotHeader { vtcr: vtcr(header.vtcr), pa_bits: 48, ..header },
    };
    Tree {
        header,
        entries: tree.entries.iter().map(|(&ia, entry)| (at(ia), Entry { raw: raw(entry), ..*entry })).collect(),
        tables,
        at_rest: tree.at_rest,
    }
}

/// VTCR_EL2: TG0 says 16 KiB, and SL0 level 1, as before, which only a CPU with more than 40 output bits has.
fn vtcr(vtcr: u64) -> u64 {
    vtcr & !(7 << 16 | 3 << 6) | 5 << 16 | 2 << 14 | 2 << 6
}

/// TCR_EL2, where TG0 says so too.
fn tcr(tcr: u64) -> u64 {
    tcr | 2 << 14
}

/// What the host's table says of a page that a guest has, with the number of the guest's page, in pages.
fn annotation(raw: u64) -> u64 {
    let is_guests = raw >> 60 == 2 && raw >> 1 & 7 == 2;
    if is_guests {
        donated_at((raw >> 4) as u16, at(raw >> 20 << 12 & 0xff_ffff_ffff) >> PAGE_SHIFT)
    } else {
        raw
    }
}
