// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! What the handler needs from the hypervisor: locks, pages, and facts about VMs.
//!
//! Guards release what they hold when they are dropped, so that every way out of the handler does. The handler pins the
//! slot before it locks a table and unpins it after, as pKVM's lock order wants; it never holds two of either.

use crate::slot_writer::SlotPage;
use crate::table_memory::TableMemory;
use s2dump_abi::slot::VmRecord;

/// The hypervisor around the handler.
pub trait Platform {
    /// A slot page, pinned until dropped.
    type Slot<'p>: PinnedSlot
    where
        Self: 'p;
    /// A stage-2 table, locked until dropped.
    type Table<'p>: LockedTable
    where
        Self: 'p;

    /// Returns whether s2dump was allowed at boot.
    fn is_permitted(&self) -> bool;

    /// Pins the page with frame number `pfn`, any number, if the host shares it with EL2.
    fn pin_slot(&self, pfn: u64) -> Option<Self::Slot<'_>>;

    /// Locks the stage-2 table of the VM with `handle`, any number, if there is one.
    fn lock_table(&self, handle: u16) -> Option<Self::Table<'_>>;

    /// Describes the VM with `handle`, any number, if there is one; `ia_bits` and `start_level` are left to the caller.
    fn vm_info(&self, handle: u16) -> Option<VmRecord>;
}

/// A page the host shares with EL2 and cannot take away while this lives.
pub trait PinnedSlot {
    /// Returns the page to write.
    fn page(&self) -> SlotPage<'_>;
}

/// A table nobody but the MMU writes while this lives.
pub trait LockedTable: TableMemory {
    /// Returns the table's registers.
    fn registers(&self) -> TableRegisters;
}

/// What the hypervisor keeps about a table: the part of a slot header that does not come from the walk.
#[derive(Clone, Copy, Debug)]
pub struct TableRegisters {
    /// VTCR_EL2.
    pub vtcr: u64,
    /// Physical address of the root table.
    pub root: u64,
    /// [`table_features`](s2dump_abi::slot::table_features).
    pub table_features: u32,
    /// VMID.
    pub vmid: u16,
    /// [`encoding`](s2dump_abi::slot::encoding).
    pub encoding: u16,
    /// The guest is protected.
    pub is_protected: bool,
}
