// SPDX-License-Identifier: GPL-2.0-only
//! Safe wrappers of the helpers in `s2dump_el1.c`, which do what Rust for Linux cannot. All `extern "C"` imports of the
//! driver are here.

use kernel::{
    error::to_result,
    ffi::{c_int, c_uint, c_void},
    page::Page,
    prelude::*,
};
use s2dump_host_driver::host::HostVm;

// `struct page` is `c_void` here, because its binding holds empty structs, and the compiler warns of those in C
// declarations.
extern "C" {
    fn s2dump_el1_open_allowed() -> c_int;
    fn s2dump_el1_call(regs: *mut u64);
    fn s2dump_el1_share(page: *mut c_void) -> c_int;
    fn s2dump_el1_unshare(page: *mut c_void) -> c_int;
    fn s2dump_el1_pfn(page: *mut c_void) -> u64;
    fn s2dump_el1_hold_vms(out: *mut HostVm, max: c_uint) -> c_int;
    fn s2dump_el1_hold_vm(handle: u16, out: *mut HostVm) -> bool;
    fn s2dump_el1_let_vm_go(held: *mut c_void);
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
    // SAFETY: A `Page` owns a valid page of order 0, which is in the linear map as it is not highmem (arm64 has none).
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

/// VMs of the host, each with a reference that is put when this is dropped.
///
/// # Invariants
///
/// Each `held` is a reference that C took, and nothing else puts it.
#[derive(Default)]
pub(crate) struct HeldVms(KVec<HostVm>);

impl HeldVms {
    /// Takes references to the host's VMs, to `max` at most, by ascending handle.
    pub(crate) fn all(max: usize) -> Result<Self> {
        let mut vms = KVec::from_elem(HostVm::default(), max, GFP_KERNEL)?;
        // SAFETY:
        // - `vms` is valid for writing `max` records, and `HostVm` has the layout of `struct s2dump_el1_vm` (asserts on
        //   both sides).
        // - Any bytes are a valid `HostVm`.
        let count = unsafe { s2dump_el1_hold_vms(vms.as_mut_ptr(), c_uint::try_from(max)?) };
        vms.truncate(usize::try_from(count).unwrap_or(0));
        // INVARIANT: C took a reference for each record it wrote; the others are cut off.
        Ok(Self(vms))
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
