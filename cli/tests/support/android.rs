// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine of [`pkvm`](super::pkvm) under the pKVM of android16-6.12: the same memory, as that kernel would keep it, and
//! what only that kernel has.

use super::pkvm::*;
use super::*;

/// The hypervisor owns it, as the host's table says.
pub const HYP: u64 = 1 << 2;
/// A guest owns it, as the host's table says.
pub const GUEST: u64 = 3 << 2;
/// Nobody owns it, as the host's table says.
pub const PROTECTED: u64 = 4 << 2;
/// A guest said that a device is there.
pub const MMIO_GUARD: u64 = 1 << 11;
/// Page state bits: a device that may be a target of DMA.
pub const TAINTED: u64 = 3 << 55;
/// Frame: not the host's.
pub const FRAME_NO_PAGE: u64 = 8 << 24;
/// Frame: the host's, with rights of a module.
pub const FRAME_MODULE: u64 = 4 << 24;
/// Frame: not the host's, because of a module.
pub const FRAME_MODULE_NO_PAGE: u64 = 12 << 24;
/// A page that the first protected guest shares with EL2.
pub const HYP_BORROWS: u64 = PROTECTED_PA + 0x3000;
/// A block of the second protected guest.
pub const PROTECTED_BLOCK: u64 = 0x4180_0000;
/// A page that a module protects, and one that it took.
pub const MODULE: u64 = PLAIN + 0x4000;

/// Returns the machine, all in order.
pub fn machine() -> Machine {
    let mut machine = pkvm::machine();
    machine.encoding = encoding::PKVM_ANDROID_6_12;
    for raw in machine.frames.values_mut() {
        // Counts stay, EL2's state goes, and `NoPage` is a bit of its own.
        let host = *raw >> 24 & 3;
        *raw = *raw & !0xff00_0000 | if host == 3 { FRAME_NO_PAGE } else { host << 24 };
    }
    for tree in &mut machine.trees {
        tree.header.encoding = encoding::PKVM_ANDROID_6_12;
        for entry in tree.entries.values_mut().filter(|entry| entry.kind == RecordKind::INVALID) {
            entry.raw = match entry.raw {
                HYP_OWNED => HYP,
                POISONED => MMIO_GUARD,
                _ => GUEST,
            };
        }
    }
    // EL2's code is EL2's, and what is shared with EL2 is mapped there from the start.
    machine.host().annotate(TEXT, 4, HYP);
    machine.hyp().map(HYP_BASE + SHARED, 3, 2, SHARED, HYP_RW | SHARED_BORROWED);
    protected(&mut machine);
    devices_and_modules(&mut machine);
    let mut next = POOL;
    for tree in &mut machine.trees {
        tree.tables.clear();
        tree.add_tables(&mut next);
    }
    machine
}

/// A page that is shared with EL2 and not with the host, and a block.
fn protected(machine: &mut Machine) {
    machine.guest(0x1000).map(PROTECTED_IA + 0xa000, 3, 1, HYP_BORROWS, PAGE | SHARED_OWNED);
    machine.host().annotate(HYP_BORROWS, 1, GUEST);
    machine.hyp().map(HYP_BASE + HYP_BORROWS, 3, 1, HYP_BORROWS, HYP_RW | SHARED_BORROWED);
    machine.frame(HYP_BORROWS, 1, FRAME_NO_PAGE);
    machine.guest(0x1001).map(PROTECTED_IA + 0x20_0000, 2, 1, PROTECTED_BLOCK, BLOCK);
    machine.host().put(PROTECTED_BLOCK, 2, RecordKind::INVALID, GUEST);
    machine.frame(PROTECTED_BLOCK, 512, FRAME_NO_PAGE);
}

/// Devices: of EL2, of a guest, and one that may be a target of DMA. Memory: that a module protects, and that one took.
fn devices_and_modules(machine: &mut Machine) {
    machine.guest(0x1000).map(PROTECTED_IA + 0xb000, 3, 1, 0x0900_1000, PAGE & !(0xf << 2) | 5 << 2 | XN);
    machine.host().annotate(0x0900_1000, 2, HYP);
    machine.hyp().map(HYP_BASE + 0x0900_2000, 3, 1, 0x0900_2000, HYP_RW | 1 << 2);
    machine.host().map(0x0900_3000, 3, 1, 0x0900_3000, PAGE | XN | TAINTED);
    machine.host().annotate(0x0900_4000, 1, PROTECTED);
    machine.host().map(MODULE, 3, 1, MODULE, PAGE & !(1 << 7));
    machine.frame(MODULE, 1, FRAME_MODULE);
    machine.host().annotate(MODULE + 0x1000, 1, PROTECTED);
    machine.frame(MODULE + 0x1000, 1, FRAME_MODULE_NO_PAGE);
}
