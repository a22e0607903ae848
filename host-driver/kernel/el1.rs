// SPDX-License-Identifier: GPL-2.0-only
//! Safe wrappers of the helpers in `s2dump_el1.c`, which do what Rust for Linux cannot. All `extern "C"` imports of the
//! driver are here.

use core::ptr::NonNull;
use kernel::{
    error::to_result,
    ffi::{c_int, c_uint, c_void},
    bindings,
    page::{BorrowedPage, Page, PAGE_SIZE},
    prelude::*,
};
use s2dump_abi::slot::MemorySlot;
use s2dump_host_driver::host::HostVm;

// `struct page` is `c_void` here, because its binding holds empty structs, and the compiler warns of those in C
// declarations.
extern "C" {
    fn s2dump_el1_open_allowed() -> c_int;
    fn s2dump_el1_call(regs: *mut u64);
    fn s2dump_el1_share(page: *mut c_void) -> c_int;
    fn s2dump_el1_unshare(page: *mut c_void) -> c_int;
    fn s2dump_el1_pfn(page: *mut c_void) -> u64;
    fn s2dump_el1_hyp_image(out: *mut [u64; 2]);
    fn s2dump_el1_alloc_pages(order: c_uint) -> *mut c_void;
    fn s2dump_el1_free_pages(page: *mut c_void, order: c_uint);
    fn s2dump_el1_count_vms() -> c_uint;
    fn s2dump_el1_hold_vms(out: *mut HostVm, max: c_uint) -> c_int;
    fn s2dump_el1_read_handles(vms: *mut HostVm, count: c_uint);
    fn s2dump_el1_hold_vm(handle: u16, out: *mut HostVm) -> bool;
    fn s2dump_el1_let_vm_go(held: *mut c_void);
    fn s2dump_el1_memory_slots(
        held: *mut c_void,
        from: u64,
        page: *mut c_void,
        offset: c_uint,
        max: c_uint,
    ) -> c_uint;
}

/// Checks that the current task may dump: CAP_SYS_ADMIN, and no kernel lockdown that forbids it.
pub(crate) fn check_allowed() -> Result {
    // SAFETY: Takes nothing and looks only at the current task, which exists in every system call.
    to_result(unsafe { s2dump_el1_open_allowed() })
}

/// Makes the hypercall with x1..x7 of `regs` and puts x0..x3 of the answer there. Calls are made one at a time: other
/// callers wait here instead of at EL2.
///
/// EL2 may write the page whose frame number is in `regs`, if [`share`] shared it.
pub(crate) fn call(regs: &mut [u64; 8]) {
    // SAFETY: The helper reads and writes exactly the 8 registers, which are valid for both during the call.
    unsafe { s2dump_el1_call(regs.as_mut_ptr()) }
}

/// Shares a page with EL2, which may write it during calls that name it.
pub(crate) fn share(page: &Page) -> Result {
    // SAFETY: A `Page` is a valid page, in the linear map as it is not highmem (arm64 has none).
    to_result(unsafe { s2dump_el1_share(page.as_ptr().cast()) })
}

/// Takes back a page that [`share`] shared. After an error EL2 may still write the page, so it must not be freed.
pub(crate) fn unshare(page: &Page) -> Result {
    // SAFETY: As for `share`.
    to_result(unsafe { s2dump_el1_unshare(page.as_ptr().cast()) })
}

/// Returns the frame number of a page.
pub(crate) fn pfn(page: &Page) -> u64 {
    // SAFETY: A `Page` owns a valid page.
    unsafe { s2dump_el1_pfn(page.as_ptr().cast()) }
}

/// Returns start and end of EL2's data, constants and variables in the image of the kernel.
pub(crate) fn hyp_image() -> [[u64; 2]; 3] {
    let mut image = [[0; 2]; 3];
    // SAFETY: Valid for writing three pairs, as many as C writes.
    unsafe { s2dump_el1_hyp_image(image.as_mut_ptr()) }
    image
}

/// Pages that follow each other. They are freed together, unless they are lost.
///
/// # Invariants
///
/// `first` is the first of `1 << order` valid pages, of one allocation that this owns.
pub(crate) struct Pages {
    first: NonNull<bindings::page>,
    order: c_uint,
    is_lost: bool,
}

// SAFETY: Pages have no logic that relies on them staying on a thread.
unsafe impl Send for Pages {}

// SAFETY: What is done to pages through a shared reference is as unsafe as it is for a `Page`, which is `Sync` too.
unsafe impl Sync for Pages {}

impl Pages {
    /// Allocates `1 << order` zeroed pages.
    pub(crate) fn new(order: c_uint) -> Result<Self> {
        // SAFETY: Takes any number; may sleep, as any open may.
        let first = unsafe { s2dump_el1_alloc_pages(order) };
        // INVARIANT: As C returned them.
        Ok(Self { first: NonNull::new(first.cast()).ok_or(ENOMEM)?, order, is_lost: false })
    }

    /// Returns how many there are.
    pub(crate) fn len(&self) -> usize {
        1 << self.order
    }

    /// Returns the page of this index.
    pub(crate) fn get(&self, index: usize) -> Result<BorrowedPage<'_>> {
        if index >= self.len() {
            return Err(EINVAL);
        }
        // SAFETY:
        // - By the invariant the page is there; those of one allocation follow each other in the array of pages.
        // - It is freed by `drop` only, or never, so not while `self` is borrowed.
        Ok(unsafe { BorrowedPage::from_raw(self.first.add(index)) })
    }

    /// Never frees them.
    pub(crate) fn lose(&mut self) {
        self.is_lost = true;
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if !self.is_lost {
            // SAFETY: By the invariant pages that this owns, and they are not used again.
            unsafe { s2dump_el1_free_pages(self.first.as_ptr().cast(), self.order) }
        }
    }
}

/// VMs of the host, each with a reference that is put when this is dropped.
///
/// # Invariants
///
/// Each `held` is a reference that C took, and nothing else puts it.
#[derive(Default)]
pub(crate) struct HeldVms(KVec<HostVm>);

impl HeldVms {
    /// Takes references to the host's VMs, by ascending handle.
    pub(crate) fn all() -> Result<Self> {
        // SAFETY: Takes nothing; may sleep, as any ioctl may.
        let count = unsafe { s2dump_el1_count_vms() };
        let mut vms = KVec::from_elem(HostVm::default(), usize::try_from(count)?, GFP_KERNEL)?;
        // SAFETY:
        // - `vms` is valid for writing `count` records, and `HostVm` has the layout of `struct s2dump_el1_vm` (asserts on
        //   both sides).
        // - Any bytes are a valid `HostVm`.
        let count = unsafe { s2dump_el1_hold_vms(vms.as_mut_ptr(), count) };
        vms.truncate(usize::try_from(count).unwrap_or(0));
        // INVARIANT: C took a reference for each record it wrote; the others are cut off.
        Ok(Self(vms))
    }

    /// Reads the handles again.
    pub(crate) fn read_handles(&mut self) {
        // The count was a `c_uint`.
        let count = c_uint::try_from(self.0.len()).unwrap_or(0);
        // SAFETY:
        // - `self.0` is valid for writing `count` records; by the invariant each has a reference.
        // - `kvm_lock` is not held, and any ioctl may sleep.
        unsafe { s2dump_el1_read_handles(self.0.as_mut_ptr(), count) }
    }

    /// Takes a reference to the VM that has `handle` now. Empty if no VM has it.
    pub(crate) fn one(handle: u16) -> Result<Self> {
        let mut vms = KVec::from_elem(HostVm::default(), 1, GFP_KERNEL)?;
        // SAFETY: as above, for one record.
        let is_held = unsafe { s2dump_el1_hold_vm(handle, vms.as_mut_ptr()) };
        vms.truncate(usize::from(is_held));
        // INVARIANT: as above.
        Ok(Self(vms))
    }

    /// Puts all references but that to the VM with `handle`.
    pub(crate) fn keep_only(&mut self, handle: u16) {
        self.0.retain(|vm| {
            if vm.handle != handle {
                // SAFETY:
                // - By the invariant a reference, put once: `retain` removes the VM.
                // - `kvm_lock` is not held: no code of this driver runs under it.
                unsafe { s2dump_el1_let_vm_go(vm.held as *mut c_void) }
            }
            vm.handle == handle
        });
    }

    /// Writes memory slots of the only VM, up to `max` of those at input addresses from `from` on, to `page`, from `offset` on.
    /// Returns how many.
    ///
    /// # Safety
    ///
    /// Nobody else of the kernel accesses these bytes of the page at the same time.
    pub(crate) unsafe fn put_memory_slots(&self, from: u64, page: &Page, offset: usize, max: usize) -> Result<usize> {
        let [vm] = self.get() else { return Err(EINVAL) };
        let room = PAGE_SIZE.checked_sub(offset).ok_or(EINVAL)? / size_of::<MemorySlot>();
        if max > room || offset % align_of::<MemorySlot>() != 0 {
            return Err(EINVAL);
        }
        let (offset, max) = (c_uint::try_from(offset)?, c_uint::try_from(max)?);
        // SAFETY:
        // - By the invariant a reference, so the VM is there.
        // - A `Page` is a valid page; `max` records, as C has them (asserts on both sides), fit behind `offset`, which is
        //   aligned for them.
        // - The kernel's only writer of these bytes is this, as the caller promises.
        let count = unsafe {
            s2dump_el1_memory_slots(vm.held as *mut c_void, from, page.as_ptr().cast(), offset, max)
        };
        Ok(usize::try_from(count)?)
    }

    /// Returns the VMs.
    pub(crate) fn get(&self) -> &[HostVm] {
        &self.0
    }
}

impl Drop for HeldVms {
    fn drop(&mut self) {
        for vm in &self.0 {
            // SAFETY:
            // - By the invariant a reference, put once: this is drop.
            // - `kvm_lock` is not held: no code of this driver runs under it.
            unsafe { s2dump_el1_let_vm_go(vm.held as *mut c_void) }
        }
    }
}
