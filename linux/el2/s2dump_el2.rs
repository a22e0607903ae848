// SPDX-License-Identifier: GPL-2.0-only
//! s2dump at EL2: the border between the Rust libraries and the hypervisor's C.
//!
//! This is the only crate of the EL2 side that becomes an object: `abi`, `vmsa` and `hyp` are compiled to metadata, and
//! their code is inlined here. The C side is `s2dump_el2.c` and, for what differs from tree to tree, `s2dump_pkvm_el2.c`.
//! Each struct and prototype here has its twin in `s2dump_el2.h` or `s2dump_pkvm.h`.
//!
//! EL2 runs this with interrupts masked, on a stack of one page, with a hostile host on the other CPUs.
#![no_std]
// UNSAFETY: calls C, and turns the pages C hands out into references.
#![expect(unsafe_code)]

use core::ffi::c_void;
use core::mem::{offset_of, MaybeUninit};
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;

use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::VmRecord;
use s2dump_abi::target::Target;
use s2dump_hyp::entry;
use s2dump_hyp::platform::{Permitted, PinnedSlot, Platform, TableRegisters, VmInfo};
use s2dump_hyp::slot_writer::{SlotPage, SLOT_WORDS};
use s2dump_hyp::table_memory::{OutsideMemory, TableMemory};
use s2dump_vmsa::{Granule, PhysAddr};

/// Entries of a table page; Kconfig depends on 4 KiB pages.
const TABLE_ENTRIES: usize = 512;

/// `struct s2dump_el2_table`.
#[repr(C)]
struct CTable {
    owner: *mut c_void,
    vtcr: u64,
    root: u64,
    table_features: u32,
    vmid: u16,
    encoding: u16,
    flags: u16,
    pad: [u16; 3],
}

const _: () = assert!(size_of::<CTable>() == 40 && offset_of!(CTable, owner) == 0 && offset_of!(CTable, vtcr) == 8 && offset_of!(CTable, root) == 16);
const _: () = assert!(offset_of!(CTable, table_features) == 24 && offset_of!(CTable, vmid) == 28);
const _: () = assert!(offset_of!(CTable, encoding) == 30 && offset_of!(CTable, flags) == 32);

/// `struct s2dump_el2_vm`.
#[repr(C)]
struct CVm {
    record: VmRecord,
    looked_at: u32,
    held_ticks: u32,
}

const _: () = assert!(size_of::<CVm>() == 72 && offset_of!(CVm, record) == 0 && offset_of!(CVm, looked_at) == 64 && offset_of!(CVm, held_ticks) == 68);

/// `S2DUMP_PERMIT_CALLS` and `S2DUMP_PERMIT_ATOMIC`.
const PERMIT_CALLS: u32 = 1 << 0;
const PERMIT_ATOMIC: u32 = 1 << 1;

extern "C" {
    fn s2dump_el2_permitted() -> u32;
    fn s2dump_el2_counter() -> u64;
    fn s2dump_el2_counter_hz() -> u32;
    fn s2dump_el2_slot_pin(pfn: u64) -> *mut u64;
    fn s2dump_el2_slot_unpin(slot: *mut u64);
    fn s2dump_el2_table_page(pa: u64) -> *const u64;
    fn s2dump_pkvm_table_lock(target: u64, table: *mut CTable) -> u32;
    fn s2dump_pkvm_table_unlock(owner: *mut c_void);
    fn s2dump_pkvm_vm_info(handle: u16, out: *mut CVm) -> bool;
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

/// The hypervisor, reached through its C side.
struct Hypervisor;

/// A pinned page of the host.
///
/// # Invariants
///
/// Points to a page that `s2dump_el2_slot_pin` returned and that is unpinned only by `drop`.
struct Slot(NonNull<u64>);

/// A locked table.
///
/// # Invariants
///
/// The owner that `s2dump_pkvm_table_lock` returned. Only `drop` unlocks it.
struct Guard(*mut c_void);

impl Platform for Hypervisor {
    type Slot<'p> = Slot;
    type Guard<'p> = Guard;

    #[inline]
    fn permitted(&self) -> Permitted {
        // SAFETY: has no obligation.
        let words = unsafe { s2dump_el2_permitted() };
        Permitted { calls: words & PERMIT_CALLS != 0, atomic: words & PERMIT_ATOMIC != 0 }
    }

    #[inline]
    fn counter(&self) -> u64 {
        // SAFETY: has no obligation.
        unsafe { s2dump_el2_counter() }
    }

    #[inline]
    fn counter_hz(&self) -> u32 {
        // SAFETY: has no obligation.
        unsafe { s2dump_el2_counter_hz() }
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
    fn lock_table(&self, target: Target) -> Result<(Guard, TableRegisters), Status> {
        let mut table = MaybeUninit::uninit();
        // SAFETY:
        // - Takes any target.
        // - The pointer is to memory of the struct's size, to write.
        // - No lock is held, as above.
        let status = unsafe { s2dump_pkvm_table_lock(target.0, table.as_mut_ptr()) };
        if Status(status) != Status::OK {
            return Err(Status(status));
        }
        // SAFETY:
        // - C fills the whole struct before it returns OK.
        let CTable { owner, vtcr, root, table_features, vmid, encoding, flags, .. } = unsafe { table.assume_init() };
        // INVARIANT: as C told it.
        Ok((Guard(owner), TableRegisters { vtcr, root, table_features, vmid, encoding, flags }))
    }

    #[inline]
    fn vm_info(&self, handle: u16) -> Option<VmInfo> {
        let mut vm = MaybeUninit::uninit();
        // SAFETY:
        // - Takes any handle.
        // - The pointer is to memory of the struct's size, to write.
        // - No lock is held, as above.
        let found = unsafe { s2dump_pkvm_vm_info(handle, vm.as_mut_ptr()) };
        // SAFETY:
        // - C fills the whole struct, which has no padding, before it returns true.
        let CVm { record, looked_at, held_ticks } = found.then(|| unsafe { vm.assume_init() })?;
        Some(VmInfo { record, looked_at, held_ticks })
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
        // - No lock is held: a `Guard` is dropped before the `Slot` that was pinned before it.
        unsafe { s2dump_el2_slot_unpin(self.0.as_ptr()) }
    }
}

impl TableMemory for Guard {
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
        // - A page of RAM that the hypervisor owns alone, that a pool counts and that EL2 has mapped readable, so aligned. It
        //   may be any such page if the table is wrong: then what is read is shown raw, and only the check of a moment ago
        //   says that it is still so (see `s2dump_el2_table_page`).
        // - A page that is a table stays one while the table's lock is held, which outlives the reference.
        // - The MMU, and for other pages other CPUs at EL2, may write it: atomics are made for that.
        Ok(unsafe { page.cast::<[AtomicU64; TABLE_ENTRIES]>().as_ref() })
    }
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        // SAFETY:
        // - Locked by `lock_table`, unlocked nowhere else.
        unsafe { s2dump_pkvm_table_unlock(self.0) }
    }
}
