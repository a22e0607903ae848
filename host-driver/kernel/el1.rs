// SPDX-License-Identifier: GPL-2.0-only
//! What Rust for Linux cannot reach: safe wrappers of the helpers in `s2dump_el1.c`. The only `extern "C"` of the driver.

use kernel::{
    error::to_result,
    ffi::{c_int, c_uint, c_void},
    page::Page,
    prelude::*,
};
use s2dump_host_driver::host::HostVm;

// `struct page` is `c_void` here: its binding holds empty structs, which the compiler warns of in C declarations.
extern "C" {
    fn s2dump_el1_open_allowed() -> c_int;
    fn s2dump_el1_call(regs: *mut u64);
    fn s2dump_el1_share(page: *mut c_void) -> c_int;
    fn s2dump_el1_unshare(page: *mut c_void) -> c_int;
    fn s2dump_el1_pfn(page: *mut c_void) -> u64;
    fn s2dump_el1_vms(out: *mut HostVm, max: c_uint) -> c_int;
}

/// Checks that the current task may dump: CAP_SYS_ADMIN, and no kernel lockdown that forbids it.
pub(crate) fn check_allowed() -> Result {
    // SAFETY: Takes nothing and looks only at the current task, which exists in every system call.
    to_result(unsafe { s2dump_el1_open_allowed() })
}

/// Makes the hypercall with x1..x7 of `regs` and leaves x0..x3 there.
///
/// May write any page shared with EL2 by [`share`] whose frame number is in `regs`.
pub(crate) fn call(regs: &mut [u64; 8]) {
    // SAFETY: The helper reads and writes exactly the 8 registers, which are valid for both during the call.
    unsafe { s2dump_el1_call(regs.as_mut_ptr()) }
}

/// Shares a page with EL2, which may write it during calls that name it.
pub(crate) fn share(page: &Page) -> Result {
    // SAFETY: A `Page` owns a valid page of order 0, which is in the linear map as it is not highmem (arm64 has none).
    to_result(unsafe { s2dump_el1_share(page.as_ptr().cast()) })
}

/// Ends what [`share`] began. After an error EL2 still may write the page: it must not be freed then.
pub(crate) fn unshare(page: &Page) -> Result {
    // SAFETY: As for `share`.
    to_result(unsafe { s2dump_el1_unshare(page.as_ptr().cast()) })
}

/// Returns the frame number of a page.
pub(crate) fn pfn(page: &Page) -> u64 {
    // SAFETY: A `Page` owns a valid page.
    unsafe { s2dump_el1_pfn(page.as_ptr().cast()) }
}

/// Fills `out` with the host's VMs and returns how many there are in it; VMs beyond its length are left out.
pub(crate) fn vms(out: &mut [HostVm]) -> Result<usize> {
    let max = c_uint::try_from(out.len())?;
    // SAFETY:
    // - `out` is valid for writing `max` records, and `HostVm` has the layout of `struct s2dump_el1_vm` (const asserts).
    // - Any bytes are a valid `HostVm`.
    let count = unsafe { s2dump_el1_vms(out.as_mut_ptr(), max) };
    to_result(count.min(0))?;
    Ok(usize::try_from(count)?.min(out.len()))
}
