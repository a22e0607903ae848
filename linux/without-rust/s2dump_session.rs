// SPDX-License-Identifier: GPL-2.0-only
//! s2dump at EL1 in a kernel without Rust: the border between the sessions of `s2dump_host_driver` and the C device.
//!
//! rustc makes one object of this, before there is any kernel tree, and `s2dump_device.c` calls it. `s2dump_session.h` is
//! the other side of each prototype here. The object needs the C side, `memcpy`, `memset` and `memcmp`, nothing else: a
//! panic path would be a symbol that the kernel does not have.
#![no_std]
// UNSAFETY: calls C, and turns the memory C hands out into references.
#![expect(unsafe_code)]

use core::ffi::{c_int, c_void};
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use s2dump_abi::slot::{MemorySlot, SLOT_BYTES};
use s2dump_host_driver::call;
use s2dump_host_driver::errno::Errno;
use s2dump_host_driver::error::SessionError;
use s2dump_host_driver::file::{self, Argument, Buffer};
use s2dump_host_driver::host::{El2, Host, HostVm};
use s2dump_host_driver::session::Session;

/// `S2DUMP_SESSION_BYTES`, in words.
const SESSION_WORDS: usize = 256 / 8;

const _: () = assert!(size_of::<Session>() <= SESSION_WORDS * 8 && align_of::<Session>() <= align_of::<u64>());

extern "C" {
    fn s2dump_el1_open_allowed() -> c_int;
    fn s2dump_el1_call(regs: *mut u64);
    fn s2dump_el1_hyp_image(out: *mut [u64; 2]);
    fn s2dump_device_slot_pfn(file: *mut c_void, slot: u32) -> u64;
    fn s2dump_device_slot(file: *mut c_void, slot: u32) -> *mut u8;
    fn s2dump_device_share_all(file: *mut c_void, slot: u32) -> c_int;
    fn s2dump_device_look_at_vms(file: *mut c_void) -> c_int;
    fn s2dump_device_look_at_handles(file: *mut c_void);
    fn s2dump_device_hold_vm(file: *mut c_void, handle: u16) -> c_int;
    fn s2dump_device_let_vms_go(file: *mut c_void);
    fn s2dump_device_vms(file: *mut c_void, count: *mut u32) -> *const HostVm;
    fn s2dump_device_memory_slots(file: *mut c_void, slot: u32, offset: u32, from: u64, max: u32) -> c_int;
    fn s2dump_device_is_interrupted() -> bool;
    fn s2dump_device_from_user(to: *mut c_void, from: u64, len: usize) -> c_int;
    fn s2dump_device_to_user(to: u64, from: *const c_void, len: usize) -> c_int;
    fn s2dump_device_room(to: *const c_void) -> usize;
    fn s2dump_device_put(to: *mut c_void, from: *const c_void, len: usize) -> usize;
}

/// EL2, before there is any session.
struct Alone;

/// An open file, locked.
///
/// # Invariants
///
/// A `struct s2dump_file` whose lock is held for `'a`: nobody else makes calls for its slots, touches their bytes, or
/// changes what VMs it holds.
struct LockedFile<'a>(*mut c_void, PhantomData<&'a mut ()>);

/// Address of the argument of an ioctl. It may be any number: C checks that it is the caller's.
struct UserArgument(u64);

/// The buffer of a read.
///
/// # Invariants
///
/// A `struct iov_iter` that nobody else uses for `'a`.
struct UserBuffer<'a>(*mut c_void, PhantomData<&'a mut ()>);

/// Takes what C returns: 0, or a negative errno.
fn checked(result: c_int) -> Result<(), Errno> {
    match result {
        0 => Ok(()),
        negative => Err(Errno(negative.wrapping_neg())),
    }
}

fn call_el2(regs: &mut [u64; 8]) {
    // SAFETY:
    // - The helper reads and writes exactly the 8 registers, which are valid for both.
    // - EL2 writes only pages that are shared with it; those of a slot are memory that no reference is to.
    unsafe { s2dump_el1_call(regs.as_mut_ptr()) }
}

impl El2 for Alone {
    fn call(&mut self, regs: &mut [u64; 8]) {
        call_el2(regs);
    }
}

impl El2 for LockedFile<'_> {
    fn call(&mut self, regs: &mut [u64; 8]) {
        call_el2(regs);
    }
}

impl LockedFile<'_> {
    /// Returns where `len` bytes of a slot are, from `offset` on.
    fn bytes_of(&self, slot: u32, offset: usize, len: usize) -> Result<*mut u8, Errno> {
        if offset.checked_add(len).is_none_or(|end| end > SLOT_BYTES) {
            return Err(Errno::EINVAL);
        }
        // SAFETY: By the invariant a file; any slot may be asked for.
        let start = unsafe { s2dump_device_slot(self.0, slot) };
        if start.is_null() {
            return Err(Errno::EINVAL);
        }
        // SAFETY: C returned the first of SLOT_BYTES bytes, and the offset is not behind the last.
        Ok(unsafe { start.add(offset) })
    }
}

impl Host for LockedFile<'_> {
    // The only size that objects are made for: `s2dump_device.c` checks it.
    const PAGE_BYTES: usize = 4096;

    fn check_allowed(&self) -> Result<(), Errno> {
        // SAFETY: Looks only at the current task, which exists in every system call.
        checked(unsafe { s2dump_el1_open_allowed() })
    }

    fn slot_pfn(&self, slot: u32) -> u64 {
        // SAFETY: By the invariant a file; any slot may be asked for.
        unsafe { s2dump_device_slot_pfn(self.0, slot) }
    }

    fn hyp_image(&self) -> [[u64; 2]; 3] {
        let mut image = [[0; 2]; 3];
        // SAFETY: Valid for writing three pairs, as many as C writes.
        unsafe { s2dump_el1_hyp_image(image.as_mut_ptr()) }
        image
    }

    fn share_further_pages(&mut self, slot: u32) -> Result<(), Errno> {
        // SAFETY: By the invariant a locked file; any slot may be asked for.
        checked(unsafe { s2dump_device_share_all(self.0, slot) })
    }

    fn read_slot(&self, slot: u32, offset: usize, into: &mut [u8]) -> Result<(), Errno> {
        let from = self.bytes_of(slot, offset, into.len())?;
        // SAFETY:
        // - `from` is valid for reading as many bytes, and `into` for writing them; one is in a slot, the other is not.
        // - The kernel's only writers of a slot are EL2 and `write_slot`: by the invariant neither runs now.
        unsafe { core::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) }
        Ok(())
    }

    fn write_slot(&mut self, slot: u32, offset: usize, from: &[u8]) -> Result<(), Errno> {
        let to = self.bytes_of(slot, offset, from.len())?;
        // SAFETY:
        // - `to` is valid for writing as many bytes, and `from` for reading them; one is in a slot, the other is not.
        // - By the invariant the kernel makes no other access now. User space has a mapping of its own, outside of this
        //   program's memory.
        unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) }
        Ok(())
    }

    fn look_at_vms(&mut self) -> Result<(), Errno> {
        // SAFETY: By the invariant a locked file. `vms` is not borrowed, since this borrows `self` to change it.
        checked(unsafe { s2dump_device_look_at_vms(self.0) })
    }

    fn look_at_handles(&mut self) {
        // SAFETY: As in `look_at_vms`.
        unsafe { s2dump_device_look_at_handles(self.0) }
    }

    fn vms(&self) -> &[HostVm] {
        let mut count = 0;
        // SAFETY: By the invariant a locked file; `count` is valid for writing.
        let vms = unsafe { s2dump_device_vms(self.0, &mut count) };
        if vms.is_null() {
            return &[];
        }
        // SAFETY:
        // - C returned `count` records, which have the layout of `HostVm` (asserts on both sides); any bytes are one.
        // - They change only in functions that borrow `self` to change it, and by the invariant nobody else's.
        unsafe { core::slice::from_raw_parts(vms, count as usize) }
    }

    fn hold_vm(&mut self, handle: u16) -> Result<Option<HostVm>, Errno> {
        // SAFETY: As in `look_at_vms`.
        checked(unsafe { s2dump_device_hold_vm(self.0, handle) })?;
        Ok(self.vms().first().copied())
    }

    fn put_memory_slots(&mut self, slot: u32, offset: usize, from: u64, most: usize) -> Result<usize, Errno> {
        let room = Self::PAGE_BYTES.checked_sub(offset).ok_or(Errno::EINVAL)? / size_of::<MemorySlot>();
        if most > room || offset % align_of::<MemorySlot>() != 0 {
            return Err(Errno::EINVAL);
        }
        // SAFETY:
        // - By the invariant a locked file; any slot may be asked for.
        // - `most` records, which C has as Rust has them (asserts on both sides), fit behind `offset` in its first page.
        let count = unsafe { s2dump_device_memory_slots(self.0, slot, offset as u32, from, most as u32) };
        usize::try_from(count).map_err(|_| Errno(count.wrapping_neg()))
    }

    fn let_vms_go(&mut self) {
        // SAFETY: As in `look_at_vms`.
        unsafe { s2dump_device_let_vms_go(self.0) }
    }

    fn is_interrupted(&self) -> bool {
        // SAFETY: As in `check_allowed`.
        unsafe { s2dump_device_is_interrupted() }
    }
}

impl Argument for UserArgument {
    fn read(&mut self, into: &mut [u8]) -> Result<(), Errno> {
        // SAFETY: `into` is valid for writing; the address may be any.
        checked(unsafe { s2dump_device_from_user(into.as_mut_ptr().cast(), self.0, into.len()) })
    }

    fn write(&mut self, offset: usize, from: &[u8]) -> Result<(), Errno> {
        let to = self.0.wrapping_add(offset as u64);
        // SAFETY: `from` is valid for reading; the address may be any.
        checked(unsafe { s2dump_device_to_user(to, from.as_ptr().cast(), from.len()) })
    }
}

impl<'f> Buffer<LockedFile<'f>> for UserBuffer<'_> {
    fn room(&self) -> usize {
        // SAFETY: By the invariant an iterator that this may use.
        unsafe { s2dump_device_room(self.0) }
    }

    fn put(&mut self, file: &LockedFile<'f>, slot: u32, offset: usize, len: usize) -> Result<usize, Errno> {
        let from = file.bytes_of(slot, offset, len)?;
        // SAFETY:
        // - By the invariant an iterator that this may use.
        // - `from` is valid for reading `len` bytes, which nobody changes meanwhile, as in `read_slot`.
        Ok(unsafe { s2dump_device_put(self.0, from.cast(), len) })
    }
}

/// Agrees on a version with EL2. Returns 0 or a negative errno.
///
/// # Safety
///
/// `version` is valid for writing.
#[no_mangle]
pub unsafe extern "C" fn s2dump_session_hello(version: *mut u32) -> c_int {
    match call::hello(&mut Alone) {
        Ok(answer) => {
            // SAFETY: Promised by the caller.
            unsafe { version.write(answer.version.to_bits()) };
            0
        }
        Err(error) => failure(error.into()),
    }
}

/// Makes an idle session with a ring of `slots`.
///
/// # Safety
///
/// `session` is valid for writing `S2DUMP_SESSION_BYTES` bytes.
#[no_mangle]
pub unsafe extern "C" fn s2dump_session_init(session: *mut MaybeUninit<[u64; SESSION_WORDS]>, slots: u32) {
    // SAFETY: Promised by the caller; a session fits there, and is aligned there, as asserted above.
    unsafe { session.cast::<Session>().write(Session::new(slots)) }
}

/// Performs an ioctl. Returns 0 or a negative errno.
///
/// # Safety
///
/// `session` is what [`s2dump_session_init`] made, that of `file`, a `struct s2dump_file` whose lock is held until this
/// returns.
#[no_mangle]
pub unsafe extern "C" fn s2dump_session_ioctl(
    session: *mut Session,
    file: *mut c_void,
    command: u32,
    argument: u64,
) -> c_int {
    // SAFETY: Promised by the caller: a session, and the lock keeps everybody else from it.
    let session = unsafe { &mut *session };
    // INVARIANT: Promised by the caller.
    let mut file = LockedFile(file, PhantomData);
    match file::ioctl(session, &mut file, command, &mut UserArgument(argument)) {
        Ok(()) => 0,
        Err(error) => failure(error),
    }
}

/// Performs a read. Returns how many bytes it gave, or a negative errno.
///
/// # Safety
///
/// As for [`s2dump_session_ioctl`]; and `to` is a `struct iov_iter` that nobody else uses until this returns.
#[no_mangle]
pub unsafe extern "C" fn s2dump_session_read(session: *mut Session, file: *mut c_void, to: *mut c_void) -> isize {
    // SAFETY: Promised by the caller, as above.
    let session = unsafe { &mut *session };
    // INVARIANT: Promised by the caller, both.
    let (mut file, mut to) = (LockedFile(file, PhantomData), UserBuffer(to, PhantomData));
    match file::read(session, &mut file, &mut to) {
        // It is at most what the slots of the ring hold.
        Ok(count) => count as isize,
        Err(error) => failure(error) as isize,
    }
}

fn failure(error: SessionError) -> c_int {
    error.to_errno().0.wrapping_neg()
}
