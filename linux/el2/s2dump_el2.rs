// SPDX-License-Identifier: GPL-2.0-only
//! s2dump at EL2: the border between the Rust libraries and the hypervisor's C.
//!
//! The only crate of the EL2 side that becomes an object; `abi`, `vmsa` and `hyp` are compiled to metadata and come in
//! from there. The C side is `s2dump_el2.c`; each struct and prototype here has its twin in `s2dump_el2.h`.
//!
//! EL2 runs this with interrupts masked, on a stack of one page, with a hostile host on the other CPUs.
#![no_std]
// UNSAFETY: calls C, and turns the pages C hands out into references.
#![expect(unsafe_code)]

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;

use s2dump_abi::slot::VmRecord;
use s2dump_hyp::entry;
use s2dump_hyp::platform::{LockedTable, PinnedSlot, Platform, TableRegisters};
use s2dump_hyp::slot_writer::{SlotPage, SLOT_WORDS};
use s2dump_hyp::table_memory::{OutsideMemory, TableMemory};
use s2dump_vmsa::{Granule, PhysAddr};

/// Entries of a table page; Kconfig depends on 4 KiB pages.
const TABLE_ENTRIES: usize = 512;

/// `struct s2dump_el2_table`.
#[repr(C)]
struct CTable {
    vm: *mut c_void,
    vtcr: u64,
    root: u64,
    table_features: u32,
    vmid: u16,
    encoding: u16,
    is_protected: u8,
    pad: [u8; 7],
}

const _: () = assert!(size_of::<CTable>() == 40);

extern "C" {
    fn s2dump_el2_permitted() -> bool;
    fn s2dump_el2_slot_pin(pfn: u64) -> *mut u64;
    fn s2dump_el2_slot_unpin(slot: *mut u64);
    fn s2dump_el2_table_lock(handle: u16, table: *mut CTable) -> bool;
    fn s2dump_el2_table_unlock(vm: *mut c_void);
    fn s2dump_el2_table_page(pa: u64) -> *const u64;
    fn s2dump_el2_vm_info(handle: u16, out: *mut VmRecord) -> bool;
}

/// Answers one call of `__pkvm_s2dump`: the host's x0 to x7 come in, x1 to x3 go out.
///
/// # Safety
///
/// `registers` points to eight `u64` nobody else uses, and no lock of the hypervisor is held.
#[no_mangle]
pub unsafe extern "C" fn s2dump_el2_handle(registers: *mut [u64; 8]) {
    // SAFETY:
    // - Valid, aligned and not aliased: promised by the caller, whose array is on its stack.
    let registers = unsafe { &mut *registers };
    let results = entry::handle(registers, &Hypervisor);
    let [_, x1, x2, x3, ..] = registers;
    [*x1, *x2, *x3] = results;
}

/// The hypervisor, through its C side.
struct Hypervisor;

/// A page of the host's, pinned.
///
/// # Invariants
///
/// Points to a page that `s2dump_el2_slot_pin` returned and that is unpinned only by `drop`.
struct Slot(NonNull<u64>);

/// A guest's table, locked.
///
/// # Invariants
///
/// `table` was filled by `s2dump_el2_table_lock`, and its lock is given back only by `drop`.
struct Table {
    table: CTable,
}

impl Platform for Hypervisor {
    type Slot<'p> = Slot;
    type Table<'p> = Table;

    #[inline]
    fn is_permitted(&self) -> bool {
        // SAFETY: has no obligation.
        unsafe { s2dump_el2_permitted() }
    }

    #[inline]
    fn pin_slot(&self, pfn: u64) -> Option<Slot> {
        // SAFETY:
        // - Takes any number.
        // - No lock is held: `hyp` pins before it locks, and its caller holds none.
        let page = unsafe { s2dump_el2_slot_pin(pfn) };
        // INVARIANT: as C returned it.
        NonNull::new(page).map(Slot)
    }

    #[inline]
    fn lock_table(&self, handle: u16) -> Option<Table> {
        let mut table = MaybeUninit::uninit();
        // SAFETY:
        // - Takes any handle.
        // - The pointer is to memory of the struct's size, to write.
        // - No lock is held, as above.
        let found = unsafe { s2dump_el2_table_lock(handle, table.as_mut_ptr()) };
        // SAFETY:
        // - C fills the whole struct before it returns true.
        // INVARIANT: as C filled it.
        found.then(|| Table { table: unsafe { table.assume_init() } })
    }

    #[inline]
    fn vm_info(&self, handle: u16) -> Option<VmRecord> {
        let mut vm = MaybeUninit::uninit();
        // SAFETY:
        // - Takes any handle.
        // - The pointer is to memory of the struct's size, to write.
        // - No lock is held, as above.
        let found = unsafe { s2dump_el2_vm_info(handle, vm.as_mut_ptr()) };
        // SAFETY:
        // - C fills the whole record, which has no padding, before it returns true.
        found.then(|| unsafe { vm.assume_init() })
    }
}

impl PinnedSlot for Slot {
    #[inline]
    fn page(&self) -> SlotPage<'_> {
        // SAFETY:
        // - A page, so aligned, large enough, and mapped writable at EL2 until `drop`, which outlives the reference.
        // - EL1 and EL0 may write it at any moment: atomics are made for that, and `SlotPage` only writes.
        SlotPage::new(unsafe { self.0.cast::<[AtomicU64; SLOT_WORDS]>().as_ref() })
    }
}

impl Drop for Slot {
    #[inline]
    fn drop(&mut self) {
        // SAFETY:
        // - Pinned by `pin_slot`, unpinned nowhere else.
        // - No lock is held: a `Table` is dropped before the `Slot` that was pinned before it.
        unsafe { s2dump_el2_slot_unpin(self.0.as_ptr()) }
    }
}

impl TableMemory for Table {
    #[inline]
    fn table(&self, table: PhysAddr, granule: Granule) -> Result<&[AtomicU64], OutsideMemory> {
        let outside = OutsideMemory { table };
        if !matches!(granule, Granule::Size4K) {
            return Err(outside);
        }
        // SAFETY: takes any number.
        let page = unsafe { s2dump_el2_table_page(table.get()) };
        let page = NonNull::new(page.cast_mut()).ok_or(outside)?;
        // SAFETY:
        // - A page of RAM that the hypervisor owns alone and a pool counts, so aligned and mapped readable at EL2. It may
        //   be any such page if the table is wrong: then what is read is shown raw, and only the check of a moment ago
        //   says that it is still so (see `s2dump_el2_table_page`).
        // - A page that is a table stays one while the table's lock is held, which outlives the reference.
        // - The MMU, and for other pages other CPUs at EL2, may write it: atomics are made for that.
        Ok(unsafe { page.cast::<[AtomicU64; TABLE_ENTRIES]>().as_ref() })
    }
}

impl LockedTable for Table {
    #[inline]
    fn registers(&self) -> TableRegisters {
        let CTable { vtcr, root, table_features, vmid, encoding, is_protected, .. } = self.table;
        TableRegisters { vtcr, root, table_features, vmid, encoding, is_protected: is_protected != 0 }
    }
}

impl Drop for Table {
    #[inline]
    fn drop(&mut self) {
        // SAFETY:
        // - Locked by `lock_table`, unlocked nowhere else.
        unsafe { s2dump_el2_table_unlock(self.table.vm) }
    }
}
