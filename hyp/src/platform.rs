// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! What the handler needs from the hypervisor: locks, pages, and facts about VMs.
//!
//! Guards release what they hold when they are dropped, so that every way out of the handler does.
//!
//! What may be held together, in pKVM's lock order (`enum pkvm_component_id`, `nvhe/mem_protect.h`):
//!
//! - VM table, host's stage 2, EL2's stage 1, guest. A later one may be taken while an earlier one is held, never the
//!   other way round.
//! - [`Platform::pin_slot`] takes the host's lock and EL2's, and gives them back before it returns. So the slot is pinned
//!   before any table is locked, and unpinned after the last is unlocked.
//! - [`Platform::lock_table`] of a guest takes the VM table's lock, then the guest's, then drops the VM table's. So it may
//!   not be called while a guest's table is locked: at most one guest's table is locked at a time.
//! - A call that ever looks at two tables locks them in that order, host before EL2 before guest.
//! - [`Platform::vm_info`] takes and drops the VM table's lock: it may not be called while any table is locked.

use crate::slot_writer::SlotPage;
use crate::table_memory::TableMemory;
use s2dump_abi::slot::VmRecord;
use s2dump_abi::target::Target;

/// The hypervisor around the handler.
pub trait Platform {
    /// A slot page, pinned until dropped.
    type Slot<'p>: PinnedSlot
    where
        Self: 'p;
    /// A table, locked until dropped: while it lives, nobody but the MMU writes the table.
    type Guard<'p>: TableMemory
    where
        Self: 'p;

    /// Returns what was allowed at boot.
    fn permitted(&self) -> Permitted;

    /// Returns the count of the system counter, which only grows while a call lasts.
    fn counter(&self) -> u64;

    /// Returns the ticks of the system counter in a second.
    fn counter_hz(&self) -> u32;

    /// Pins the page with frame number `pfn`, any number, if the host shares it with EL2.
    fn pin_slot(&self, pfn: u64) -> Option<Self::Slot<'_>>;

    /// Locks the table that `target`, any number, names, and tells its registers.
    ///
    /// # Errors
    ///
    /// [`NoTable`]; no lock is held then.
    fn lock_table(&self, target: Target) -> Result<(Self::Guard<'_>, TableRegisters), NoTable>;

    /// Describes the VM with `handle`, any number, if there is one; `ia_bits` and `start_level` are left to the caller.
    fn vm_info(&self, handle: u16) -> Option<VmInfo>;
}

/// What was allowed at boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permitted {
    /// Anything at all (`kvm-arm.s2dump=on`).
    pub calls: bool,
    /// [`ATOMIC`](s2dump_abi::hypercall::DumpFlags::ATOMIC) dumps (`kvm-arm.s2dump=on,atomic`): their hold is not bounded
    /// as that of other calls is.
    pub atomic: bool,
}

/// Why no table was locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTable {
    /// Not a kind of table the hypervisor has, or reserved bits are set.
    UnknownTarget,
    /// No VM of this handle has one.
    NoSuchVm,
}

/// A VM, as it was under the lock of the VM table.
#[derive(Clone, Copy, Debug)]
pub struct VmInfo {
    /// What the list tells of it.
    pub record: VmRecord,
    /// vCPUs that were looked at to count those that run.
    pub looked_at: u32,
    /// Ticks of the system counter for which the lock was held.
    pub held_ticks: u32,
}

/// A page the host shares with EL2 and cannot take away while this lives.
pub trait PinnedSlot {
    /// Returns the page to write.
    fn page(&self) -> SlotPage<'_>;
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
    /// [`PROTECTED`](s2dump_abi::slot::slot_flags::PROTECTED) and [`DYING`](s2dump_abi::slot::slot_flags::DYING), as far
    /// as they hold. Dying is told under the lock that guards it, and no page is taken back from a VM before it is dying;
    /// so while this is locked, a table that is not dying is whole.
    pub flags: u16,
}
