// SPDX-License-Identifier: GPL-2.0-only
//! s2dump at EL2: the border between the Rust libraries and the hypervisor's C.
//!
//! This is the only crate of the EL2 side that becomes an object: `abi`, `vmsa` and `hyp` are compiled to metadata, and
//! their code is inlined here. The C side is `s2dump_el2.c` and, for pKVM's own structures and locks, `s2dump_pkvm_el2.c`.
//! Each struct and prototype here has its twin in `s2dump_el2.h` or `s2dump_pkvm.h`.
//!
//! EL2 runs this with interrupts masked, on a stack of one page, with a hostile host on the other CPUs.
#![no_std]
// UNSAFETY: calls C, and turns the pages C hands out into references.
#![expect(unsafe_code)]

use core::ffi::c_void;
use core::marker::PhantomData;
use core::mem::{offset_of, MaybeUninit};
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;

use s2dump_abi::hypercall::{unpack_slot, Status};
use s2dump_abi::slot::{Fact, VmRecord};
use s2dump_abi::target::Target;
use s2dump_hyp::entry;
use s2dump_hyp::platform::{Everything, FrameMemory, Permitted, PinnedSlot, Platform, Region, TableRegisters, VmInfo};
use s2dump_hyp::slot_writer::{words_of_page, SlotPage};
use s2dump_hyp::table_memory::{OutsideMemory, TableMemory};
use s2dump_vmsa::{Granule, PhysAddr};

/// Says which pages the kernel has, and the name by which C calls [`handle`], which tells it too: C has it from its own page
/// size, so an object for other pages does not link.
macro_rules! for_pages {
    ($pages:ident, $entry:ident) => {
        const PAGES: Granule = Granule::$pages;

        /// [`handle`].
        ///
        /// # Safety
        ///
        /// As [`handle`] says.
        #[no_mangle]
        pub unsafe extern "C" fn $entry(registers: *mut [u64; 8]) {
            // SAFETY: as the caller promises.
            unsafe { handle(registers) }
        }
    };
}

#[cfg(CONFIG_ARM64_64K_PAGES)]
for_pages!(Size64K, s2dump_el2_handle_16);
#[cfg(CONFIG_ARM64_16K_PAGES)]
for_pages!(Size16K, s2dump_el2_handle_14);
#[cfg(not(any(CONFIG_ARM64_16K_PAGES, CONFIG_ARM64_64K_PAGES)))]
for_pages!(Size4K, s2dump_el2_handle_12);

/// Entries of a table page.
const TABLE_ENTRIES: usize = 1 << PAGES.index_bits();

/// `struct s2dump_el2_table`.
#[repr(C)]
struct CTable {
    owner: *mut c_void,
    vtcr: u64,
    mair: u64,
    root: u64,
    table_features: u32,
    vmid: u16,
    encoding: u16,
    flags: u16,
    pad: [u16; 3],
}

const _: () = assert!(size_of::<CTable>() == 48 && offset_of!(CTable, owner) == 0 && offset_of!(CTable, vtcr) == 8 && offset_of!(CTable, mair) == 16);
const _: () = assert!(offset_of!(CTable, root) == 24 && offset_of!(CTable, table_features) == 32 && offset_of!(CTable, vmid) == 36);
const _: () = assert!(offset_of!(CTable, encoding) == 38 && offset_of!(CTable, flags) == 40);

/// `struct s2dump_el2_vm`.
#[repr(C)]
struct CVm {
    record: VmRecord,
    looked_at: u32,
    held_ticks: u32,
}

const _: () = assert!(size_of::<CVm>() == 72 && offset_of!(CVm, record) == 0 && offset_of!(CVm, looked_at) == 64 && offset_of!(CVm, held_ticks) == 68);

/// `struct s2dump_el2_region`.
#[repr(C)]
struct CRegion {
    start: u64,
    frames: u64,
    states: *const u64,
}

const _: () = assert!(size_of::<CRegion>() == 24 && offset_of!(CRegion, start) == 0 && offset_of!(CRegion, frames) == 8 && offset_of!(CRegion, states) == 16);

/// `S2DUMP_PERMIT_CALLS`, `S2DUMP_PERMIT_ATOMIC` and `S2DUMP_PERMIT_HYP`.
const PERMIT_CALLS: u32 = 1 << 0;
const PERMIT_ATOMIC: u32 = 1 << 1;
const PERMIT_HYP: u32 = 1 << 2;

extern "C" {
    fn s2dump_el2_permitted() -> u32;
    fn s2dump_el2_counter() -> u64;
    fn s2dump_el2_counter_hz() -> u32;
    fn s2dump_el2_slot_pin(pfn: u64, pages: u32) -> *mut u64;
    fn s2dump_el2_slot_unpin(slot: *mut u64, pages: u32);
    fn s2dump_el2_table_page(pa: u64) -> *const u64;
    fn s2dump_pkvm_table_lock(target: u64, table: *mut CTable) -> u32;
    fn s2dump_pkvm_table_unlock(owner: *mut c_void);
    fn s2dump_pkvm_facts(hyp: bool) -> u64;
    fn s2dump_pkvm_fact(number: u64, out: *mut Fact);
    fn s2dump_pkvm_encoding() -> u16;
    fn s2dump_pkvm_table_features() -> u32;
    fn s2dump_pkvm_all_lock();
    fn s2dump_pkvm_all_unlock();
    fn s2dump_pkvm_all_table(target: u64, table: *mut CTable) -> u32;
    fn s2dump_pkvm_frames_lock();
    fn s2dump_pkvm_frames_unlock();
    fn s2dump_pkvm_region(pa: u64, out: *mut CRegion) -> bool;
    fn s2dump_pkvm_vm_info(handle: u16, out: *mut CVm) -> bool;
}

/// Answers one call of `__pkvm_s2dump`: of the host's x0 to x7, x1 to x3 become the answer.
///
/// # Safety
///
/// `registers` points to eight `u64` nobody else uses, and no lock of the hypervisor is held.
#[inline(always)]
unsafe fn handle(registers: *mut [u64; 8]) {
    // SAFETY:
    // - Valid, aligned and not aliased: promised by the caller. They are what this CPU saved when it left the host.
    let registers = unsafe { &mut *registers };
    let results = entry::handle(registers, &Hypervisor);
    let [_, x1, x2, x3, ..] = registers;
    [*x1, *x2, *x3] = results;
}

/// The hypervisor, reached through its C side.
struct Hypervisor;

/// Pinned pages of the host.
///
/// # Invariants
///
/// Points to `pages` pages that `s2dump_el2_slot_pin` pinned and that are unpinned only by `drop`.
struct Slot {
    first: NonNull<u64>,
    pages: u32,
}

/// A locked table.
///
/// # Invariants
///
/// The owner that `s2dump_pkvm_table_lock` or `s2dump_pkvm_all_table` returned: only `drop` unlocks it. Null if the [`All`]
/// that is borrowed holds the lock.
struct Guard<'a>(*mut c_void, PhantomData<&'a mut All>);

/// All locked but guests.
///
/// # Invariants
///
/// Exists only while `s2dump_pkvm_all_lock` holds. Only `drop` unlocks.
struct All(());

/// What is kept about page frames, locked.
///
/// # Invariants
///
/// Exists only while `s2dump_pkvm_frames_lock` holds. Only `drop` unlocks.
struct Frames(());

impl Platform for Hypervisor {
    type Slot<'p> = Slot;
    type Guard<'p> = Guard<'p>;
    type Frames<'p> = Frames;
    type All<'p> = All;

    const PAGES: Granule = PAGES;

    #[inline]
    fn permitted(&self) -> Permitted {
        // SAFETY: has no obligation.
        let words = unsafe { s2dump_el2_permitted() };
        let has = |word| words & word != 0;
        Permitted { calls: has(PERMIT_CALLS), atomic: has(PERMIT_ATOMIC), hyp: has(PERMIT_HYP) }
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
    fn pin_slot(&self, slot: u64) -> Option<Slot> {
        let (pfn, pages) = unpack_slot(slot);
        // SAFETY:
        // - Takes any numbers.
        // - No lock is held: `hyp` pins before it locks, and its caller holds none.
        let first = unsafe { s2dump_el2_slot_pin(pfn, pages) };
        // INVARIANT: as C returned it.
        NonNull::new(first).map(|first| Slot { first, pages })
    }

    #[inline]
    fn lock_table(&self, target: Target) -> Result<(Guard<'_>, TableRegisters), Status> {
        let mut table = MaybeUninit::uninit();
        // SAFETY:
        // - Takes any target.
        // - The pointer is to memory of the struct's size, to write.
        // - No lock is held, as above.
        let status = unsafe { s2dump_pkvm_table_lock(target.0, table.as_mut_ptr()) };
        // SAFETY: as C returned and filled it.
        unsafe { locked(status, table) }
    }

    #[inline]
    fn facts(&self, hyp: bool) -> u64 {
        // SAFETY: has no obligation.
        unsafe { s2dump_pkvm_facts(hyp) }
    }

    #[inline]
    fn fact(&self, number: u64) -> Option<Fact> {
        // Facts with larger numbers may not be told, but there are none behind the last.
        if number >= self.facts(true) {
            return None;
        }
        let mut fact = MaybeUninit::uninit();
        // SAFETY:
        // - The number is less than that of facts, which never changes.
        // - The pointer is to memory of the struct's size, to write. `abi/tests/twins.rs` compares the fields.
        unsafe { s2dump_pkvm_fact(number, fact.as_mut_ptr()) };
        // SAFETY:
        // - C fills the whole struct, which has no padding.
        Some(unsafe { fact.assume_init() })
    }

    #[inline]
    fn encoding(&self) -> u16 {
        // SAFETY: has no obligation.
        unsafe { s2dump_pkvm_encoding() }
    }

    #[inline]
    fn table_features(&self) -> u32 {
        // SAFETY: has no obligation.
        unsafe { s2dump_pkvm_table_features() }
    }

    #[inline]
    fn lock_all(&self) -> All {
        // SAFETY:
        // - No lock is held, as above.
        unsafe { s2dump_pkvm_all_lock() };
        // INVARIANT: just locked.
        All(())
    }

    #[inline]
    fn lock_frames(&self) -> Frames {
        // SAFETY:
        // - No lock is held, as above.
        unsafe { s2dump_pkvm_frames_lock() };
        // INVARIANT: just locked.
        Frames(())
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
        let words = self.pages as usize * words_of_page(PAGES);
        // SAFETY:
        // - Pages that follow each other in the linear map, so aligned and large enough, and mapped writable at EL2 until
        //   `drop`, which outlives the reference.
        // - EL1 and EL0 may write them at any moment: atomics are made for that, and `SlotPage` only writes.
        SlotPage::new(unsafe { core::slice::from_raw_parts(self.first.as_ptr().cast::<AtomicU64>(), words) })
    }
}

impl Drop for Slot {
    #[inline]
    fn drop(&mut self) {
        // SAFETY:
        // - Pinned by `pin_slot`, unpinned nowhere else.
        // - No lock is held: a `Guard` is dropped before the `Slot` that was pinned before it.
        unsafe { s2dump_el2_slot_unpin(self.first.as_ptr(), self.pages) }
    }
}

impl TableMemory for Guard<'_> {
    #[inline]
    fn table(&self, table: PhysAddr, granule: Granule) -> Result<&[AtomicU64], OutsideMemory> {
        let outside = OutsideMemory { table };
        if granule.page_shift() != PAGES.page_shift() {
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

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY:
            // - Locked by who made this, unlocked nowhere else.
            unsafe { s2dump_pkvm_table_unlock(self.0) }
        }
    }
}

/// Returns the table that C locked and described, if it did.
///
/// # Errors
///
/// `status`, unless that is OK.
///
/// # Safety
///
/// C returned `status`. If that is OK, it filled `table`, and its owner is unlocked nowhere else. If the owner is null, an
/// [`All`] is borrowed for `'a`.
#[inline]
unsafe fn locked<'a>(status: u32, table: MaybeUninit<CTable>) -> Result<(Guard<'a>, TableRegisters), Status> {
    if Status(status) != Status::OK {
        return Err(Status(status));
    }
    // SAFETY:
    // - Filled, as the caller promises.
    let CTable { owner, vtcr, mair, root, table_features, vmid, encoding, flags, .. } = unsafe { table.assume_init() };
    // INVARIANT: as C told it.
    Ok((Guard(owner, PhantomData), TableRegisters { vtcr, mair, root, table_features, vmid, encoding, flags }))
}

impl Everything for All {
    type Table<'a> = Guard<'a>;

    #[inline]
    fn table(&mut self, target: Target) -> Result<(Guard<'_>, TableRegisters), Status> {
        let mut table = MaybeUninit::uninit();
        // SAFETY:
        // - Takes any target.
        // - The pointer is to memory of the struct's size, to write.
        // - All is locked but guests: what locks one borrows `self` until it is unlocked.
        let status = unsafe { s2dump_pkvm_all_table(target.0, table.as_mut_ptr()) };
        // SAFETY: as C returned and filled it.
        unsafe { locked(status, table) }
    }
}

impl FrameMemory for All {
    #[inline]
    fn region(&self, pa: PhysAddr) -> Option<Region<'_>> {
        // SAFETY:
        // - All is locked while `self` lives, the host's lock too.
        unsafe { region(pa) }
    }
}

impl Drop for All {
    #[inline]
    fn drop(&mut self) {
        // SAFETY:
        // - Locked by `lock_all`, unlocked nowhere else.
        unsafe { s2dump_pkvm_all_unlock() }
    }
}

impl FrameMemory for Frames {
    #[inline]
    fn region(&self, pa: PhysAddr) -> Option<Region<'_>> {
        // SAFETY:
        // - The lock is held while `self` lives.
        unsafe { region(pa) }
    }
}

impl Drop for Frames {
    #[inline]
    fn drop(&mut self) {
        // SAFETY:
        // - Locked by `lock_frames`, unlocked nowhere else.
        unsafe { s2dump_pkvm_frames_unlock() }
    }
}

/// Returns the rest of the region of memory that `pa` is in, or the first one behind it.
///
/// # Safety
///
/// The host's lock is held for `'m`.
#[inline]
unsafe fn region<'m>(pa: PhysAddr) -> Option<Region<'m>> {
    let mut region = MaybeUninit::uninit();
    // SAFETY:
    // - Takes any number.
    // - The pointer is to memory of the struct's size, to write.
    // - The lock is held, as the caller promises.
    let found = unsafe { s2dump_pkvm_region(pa.get(), region.as_mut_ptr()) };
    // SAFETY:
    // - C fills the whole struct, which has no padding, before it returns true.
    let CRegion { start, frames, states } = found.then(|| unsafe { region.assume_init() })?;
    let states = (!states.is_null()).then(|| {
        // SAFETY:
        // - 8 bytes for each frame, in an array that EL2 has mapped for all of the region, and never unmaps.
        // - Other CPUs at EL2 may write what another lock guards (counts of references): atomics are made for that.
        unsafe { core::slice::from_raw_parts(states.cast::<AtomicU64>(), frames as usize) }
    });
    Some(Region { start: PhysAddr::new(start), frames, states })
}
