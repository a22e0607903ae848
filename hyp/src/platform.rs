// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! What the handler needs from the hypervisor: locks, pages, and facts about VMs.
//!
//! A guard releases what it holds when it is dropped, so every way out of the handler releases everything.
//!
//! The locks have an order, which is pKVM's (`enum pkvm_component_id`, `nvhe/mem_protect.h`):
//!
//! - The order is: VM table, host's stage 2, EL2's stage 1, guest. A later lock may be taken while an earlier one is
//!   held, never the other way round.
//! - [`Platform::pin_slot`] takes the host's lock and EL2's, and releases both before it returns. Dropping the slot
//!   takes them again. So the slot is pinned before any table is locked, and unpinned after the last is unlocked.
//! - [`Platform::lock_table`] of a guest takes the VM table's lock, then the guest's, then drops the VM table's. So it
//!   may not be called while any table is locked: not a guest's, and not the host's or EL2's either, since their locks
//!   come after the VM table's.
//! - A call that looks at two tables therefore needs a function of its own, which takes the VM table's lock first and
//!   then the tables in the order above: [`Platform::lock_all`]. Two calls of `lock_table` would deadlock EL2.
//! - [`Everything::table`] of a guest takes that guest's lock with the other three held. It borrows what holds them for
//!   as long as the table stays locked, so there are never two guests locked.
//! - [`Platform::vm_info`] takes and drops the VM table's lock: it may not be called while any table is locked.
//! - [`Platform::lock_frames`] takes the host's lock, which guards the states of page frames.

use crate::slot_writer::SlotPage;
use crate::table_memory::TableMemory;
use core::sync::atomic::AtomicU64;
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{Fact, VmRecord};
use s2dump_abi::target::Target;
use s2dump_vmsa::{Granule, PhysAddr};

/// The hypervisor, as the handler sees it.
pub trait Platform {
    /// The pages of a slot, pinned until dropped.
    type Slot<'p>: PinnedSlot
    where
        Self: 'p;
    /// A table, locked until dropped: while it lives, nobody but the MMU writes the table.
    type Guard<'p>: TableMemory
    where
        Self: 'p;
    /// The states of page frames, locked until dropped: while it lives, no page changes hands.
    type Frames<'p>: FrameMemory
    where
        Self: 'p;

    /// All that says who owns a page, locked until dropped: while it lives, no page changes hands. Only rights and access
    /// flags in tables of ordinary guests may change.
    type All<'p>: Everything
    where
        Self: 'p;

    /// The size of its pages, and of its table pages.
    const PAGES: Granule;

    /// Returns what was allowed at boot.
    fn permitted(&self) -> Permitted;

    /// Returns the count of the system counter, which only grows while a call lasts.
    fn counter(&self) -> u64;

    /// Returns the ticks of the system counter in a second.
    fn counter_hz(&self) -> u32;

    /// Pins the pages of `slot` if the host shares all of them with EL2, and if they are no more than a slot has
    /// ([`slot_pages_of`](s2dump_abi::slot::slot_pages_of)). `slot` names them as x2 of a call does
    /// ([`slot_pages`](s2dump_abi::hypercall::slot_pages)), and may be any number.
    fn pin_slot(&self, slot: u64) -> Option<Self::Slot<'_>>;

    /// Locks the table that `target` names, and returns its registers. `target` may be any number.
    ///
    /// # Errors
    ///
    /// The status to answer with. No lock is held then.
    fn lock_table(&self, target: Target) -> Result<(Self::Guard<'_>, TableRegisters), Status>;

    /// Returns how many facts there are. Those about EL2's input addresses come last, and count only with `hyp`.
    fn facts(&self, hyp: bool) -> u64;

    /// Returns the fact with a number, if there is one; the first is 0. Whether it may be told is not checked.
    fn fact(&self, number: u64) -> Option<Fact>;

    /// Returns the [`encoding`](s2dump_abi::slot::encoding) of this kernel: of its tables and of what it keeps about page
    /// frames.
    fn encoding(&self) -> u16;

    /// Returns the [`table_features`](s2dump_abi::slot::table_features) of this kernel, which are those of all its tables.
    fn table_features(&self) -> u32;

    /// Locks what the hypervisor keeps about page frames.
    fn lock_frames(&self) -> Self::Frames<'_>;

    /// Locks, in their order, the VM table, the host's table with the states of page frames, and EL2's own table.
    fn lock_all(&self) -> Self::All<'_>;

    /// Describes the VM with `handle`, if there is one. `handle` may be any number. The caller fills in `ia_bits` and
    /// `start_level`.
    fn vm_info(&self, handle: u16) -> Option<VmInfo>;
}

/// What was allowed at boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permitted {
    /// Calls of any kind (`kvm-arm.s2dump=on`).
    pub calls: bool,
    /// [`ATOMIC`](s2dump_abi::hypercall::DumpFlags::ATOMIC) dumps (`kvm-arm.s2dump=on,atomic`). They may hold a lock
    /// much longer than other calls.
    pub atomic: bool,
    /// EL2's own table, and facts about its input addresses (`kvm-arm.s2dump=on,hyp`). They show the layout of EL2.
    pub hyp: bool,
}

/// A VM, as it was under the lock of the VM table.
#[derive(Clone, Copy, Debug)]
pub struct VmInfo {
    /// Its record in the list.
    pub record: VmRecord,
    /// The number of vCPUs that were looked at, to count those that have run.
    pub looked_at: u32,
    /// Ticks of the system counter for which the lock was held.
    pub held_ticks: u32,
}

/// What the hypervisor keeps about page frames.
pub trait FrameMemory {
    /// Returns the rest of the region of memory that the page frame at `pa` is in, or the first region behind it, if there
    /// is one. `pa` may be any number.
    fn region(&self, pa: PhysAddr) -> Option<Region<'_>>;
}

/// The VM table, the host's table and EL2's, all locked.
pub trait Everything: FrameMemory {
    /// A table, a guest's locked until dropped.
    type Table<'a>: TableMemory
    where
        Self: 'a;

    /// Returns the table that `target` names, and its registers. `target` may be any number.
    ///
    /// # Errors
    ///
    /// As [`Platform::lock_table`].
    fn table(&mut self, target: Target) -> Result<(Self::Table<'_>, TableRegisters), Status>;
}

/// Neighboring page frames of memory.
#[derive(Clone, Copy, Debug)]
pub struct Region<'m> {
    /// The physical address of the first: that which was asked for, or behind it.
    pub start: PhysAddr,
    /// How many there are, not 0.
    pub frames: u64,
    /// What is kept about each, as many as there are frames; `None` if nothing is. Other CPUs may write them: some parts
    /// have another lock than the rest.
    pub states: Option<&'m [AtomicU64]>,
}

/// Pages that the host shares with EL2, and cannot take back while this lives.
pub trait PinnedSlot {
    /// Returns the words to write: [`words_of_page`](crate::slot_writer::words_of_page) of each page.
    fn page(&self) -> SlotPage<'_>;
}

/// What the hypervisor knows about a table. It goes into the slot header as it is.
#[derive(Clone, Copy, Debug)]
pub struct TableRegisters {
    /// VTCR_EL2; of EL2's stage 1, TCR_EL2.
    pub vtcr: u64,
    /// MAIR_EL2 of EL2's stage 1, else 0.
    pub mair: u64,
    /// Physical address of the root table.
    pub root: u64,
    /// [`table_features`](s2dump_abi::slot::table_features).
    pub table_features: u32,
    /// VMID.
    pub vmid: u16,
    /// [`encoding`](s2dump_abi::slot::encoding).
    pub encoding: u16,
    /// [`PROTECTED`](s2dump_abi::slot::slot_flags::PROTECTED) and [`DYING`](s2dump_abi::slot::slot_flags::DYING), if
    /// they are so. The mark of a dying VM is read under the lock that guards it, with the table locked too, and
    /// teardown takes no page back before it sets the mark. So teardown has taken nothing from a table without `DYING`,
    /// for as long as it stays locked.
    pub flags: u16,
}
