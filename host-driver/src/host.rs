// SPDX-License-Identifier: GPL-2.0-only
//! What a session needs from the kernel around it.

use crate::errno::Errno;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A VM of the host, and a reference to it: `struct s2dump_el1_vm` of `s2dump_el1.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HostVm {
    /// Offset 0, length 8: the host's reference to the VM, opaque here. While it is held, no other VM gets the handle.
    pub held: u64,
    /// Offset 8, length 4: process that made the VM.
    pub pid: u32,
    /// Offset 12, length 2: pKVM handle, 0 if it has none.
    pub handle: u16,
    /// Offset 14, length 2: [`vm_flags`](s2dump_abi::slot::vm_flags) as the host sees them.
    pub flags: u16,
    /// Offset 16, length 24: name of the debugfs directory, zero padded.
    pub name: [u8; 24],
}

const _: () = assert!(size_of::<HostVm>() == 40 && align_of::<HostVm>() == 8);
const _: () = assert!(core::mem::offset_of!(HostVm, held) == 0 && core::mem::offset_of!(HostVm, pid) == 8);
const _: () = assert!(core::mem::offset_of!(HostVm, handle) == 12 && core::mem::offset_of!(HostVm, flags) == 14);
const _: () = assert!(core::mem::offset_of!(HostVm, name) == 16);

/// EL2, as far as a call needs it.
pub trait El2 {
    /// Makes the hypercall with x1..x7 of `regs`, and puts x0..x3 of the answer there.
    fn call(&mut self, regs: &mut [u64; 8]);
}

/// The kernel, as far as a session needs it. Every slot index is below the number of slots given to the session.
pub trait Host: El2 {
    /// Bytes of a page of this kernel.
    const PAGE_BYTES: usize;

    /// Checks that the caller may dump now.
    ///
    /// # Errors
    ///
    /// `EPERM` if not.
    fn check_allowed(&self) -> Result<(), Errno>;

    /// Returns the page frame number of the first page of a slot. The others follow it.
    fn slot_pfn(&self, slot: u32) -> u64;

    /// Returns start and end of what EL2 has in the image of the kernel beside code, physical: of
    /// [`HYP_DATA`](s2dump_abi::slot::FactKind::HYP_DATA), `HYP_RODATA` and `HYP_BSS`.
    fn hyp_image(&self) -> [[u64; 2]; 3];

    /// Shares all pages of a slot with EL2, if they are not yet: until the session ends. The first page always is.
    ///
    /// # Errors
    ///
    /// EL2 or the kernel refuses.
    fn share_further_pages(&mut self, slot: u32) -> Result<(), Errno>;

    /// Copies bytes out of a slot.
    ///
    /// # Errors
    ///
    /// `EINVAL` if they are not all inside the slot.
    fn read_slot(&self, slot: u32, offset: usize, into: &mut [u8]) -> Result<(), Errno>;

    /// Copies bytes into a slot.
    ///
    /// # Errors
    ///
    /// `EINVAL` if they are not all inside the slot.
    fn write_slot(&mut self, slot: u32, offset: usize, from: &[u8]) -> Result<(), Errno>;

    /// Looks at the host's VMs, and holds them instead of those that were held. [`vms`](Self::vms) returns them.
    ///
    /// # Errors
    ///
    /// There is no memory for the list.
    fn look_at_vms(&mut self) -> Result<(), Errno>;

    /// Reads the handles of the VMs that are held again: some kernels give one at the first run. A VM that EL2 knows has
    /// one then. The flags stay those of the look.
    fn look_at_handles(&mut self);

    /// Returns the VMs that are held: those of the last look, until [`hold_vm`](Self::hold_vm).
    fn vms(&self) -> &[HostVm];

    /// Holds the VM with `handle` alone, and returns it: the one that is held already, else the one that has the handle
    /// now. All others are released. None if no VM has the handle.
    ///
    /// # Errors
    ///
    /// There is no memory.
    fn hold_vm(&mut self, handle: u16) -> Result<Option<HostVm>, Errno>;

    /// Writes memory slots of the VM that is held alone to `slot`, from `offset` on, and returns how many: of those that begin at
    /// the input address `from` or above the first `most`, in ascending addresses. They are
    /// [`MemorySlot`](s2dump_abi::slot::MemorySlot)s, of one moment.
    ///
    /// # Errors
    ///
    /// `EINVAL` if no VM is held alone, or the first page of the slot has no room for `most`.
    fn put_memory_slots(&mut self, slot: u32, offset: usize, from: u64, most: usize) -> Result<usize, Errno>;

    /// Releases all VMs that are held.
    fn let_vms_go(&mut self);

    /// Returns whether a signal waits for the caller.
    fn is_interrupted(&self) -> bool;
}
