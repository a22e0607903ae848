// SPDX-License-Identifier: GPL-2.0-only
//! The file operations: one open file is one session.

use crate::{
    el1::{self, HeldVms},
    errno,
    slots::Slots,
};
use kernel::{
    fs::{File, Kiocb},
    iov::IovIterDest,
    miscdevice::{MiscDevice, MiscDeviceRegistration},
    mm::virt::VmaNew,
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::Mutex,
    uaccess::UserSlice,
};
use s2dump_host_driver::{
    errno::Errno,
    error::SessionError,
    file::{self, SLOTS},
    host::{El2, Host, HostVm},
    session::Session,
};

/// One open file.
#[pin_data]
pub(crate) struct OpenFile {
    /// Not inside the mutex, because the mmap handler uses it and must not lock: see the crate's comment on locks.
    slots: Slots,
    #[pin]
    state: Mutex<State>,
}

struct State {
    session: Session,
    /// The VMs that this session keeps from losing their handles.
    vms: HeldVms,
}

/// The kernel, as the session logic sees it.
///
/// # Invariants
///
/// The mutex of the session is held: nobody else makes calls for the slots or touches their bytes.
struct LockedHost<'a> {
    slots: &'a Slots,
    vms: &'a mut HeldVms,
}

impl El2 for LockedHost<'_> {
    fn call(&mut self, regs: &mut [u64; 8]) {
        el1::call(regs);
    }
}

impl Host for LockedHost<'_> {
    const PAGE_BYTES: usize = PAGE_SIZE;

    fn check_allowed(&self) -> Result<(), Errno> {
        el1::check_allowed().map_err(to_errno)
    }

    fn slot_pfn(&self, slot: u32) -> u64 {
        self.slots.pfn(slot)
    }

    fn hyp_image(&self) -> [[u64; 2]; 3] {
        el1::hyp_image()
    }

    fn share_further_pages(&mut self, slot: u32) -> Result<(), Errno> {
        self.slots.share_all(slot).map_err(to_errno)
    }

    fn read_slot(&self, slot: u32, offset: usize, into: &mut [u8]) -> Result<(), Errno> {
        // SAFETY: By the type invariant nobody else makes calls or writes.
        unsafe { self.slots.read(slot, offset, into) }.map_err(to_errno)
    }

    fn write_slot(&mut self, slot: u32, offset: usize, from: &[u8]) -> Result<(), Errno> {
        // SAFETY: By the type invariant nobody else makes calls, reads or writes.
        unsafe { self.slots.write(slot, offset, from) }.map_err(to_errno)
    }

    fn look_at_vms(&mut self) -> Result<(), Errno> {
        *self.vms = HeldVms::all().map_err(to_errno)?;
        Ok(())
    }

    fn look_at_handles(&mut self) {
        self.vms.read_handles();
    }

    fn vms(&self) -> &[HostVm] {
        self.vms.get()
    }

    fn hold_vm(&mut self, handle: u16) -> Result<Option<HostVm>, Errno> {
        self.vms.keep_only(handle);
        if self.vms.get().is_empty() {
            *self.vms = HeldVms::one(handle).map_err(to_errno)?;
        }
        Ok(self.vms.get().first().copied())
    }

    fn put_memory_slots(&mut self, slot: u32, offset: usize, from: u64, most: usize) -> Result<usize, Errno> {
        // SAFETY: By the type invariant nobody else makes calls, reads or writes.
        unsafe { self.slots.write_memory_slots(slot, offset, self.vms, from, most) }.map_err(to_errno)
    }

    fn let_vms_go(&mut self) {
        *self.vms = HeldVms::default();
    }

    fn is_interrupted(&self) -> bool {
        current!().signal_pending()
    }
}

fn to_errno(error: Error) -> Errno {
    Errno(-error.to_errno())
}

impl OpenFile {
    /// Runs `work` with the session locked.
    fn locked<T>(&self, work: impl FnOnce(&mut Session, &mut LockedHost<'_>) -> Result<T, SessionError>) -> Result<T> {
        let mut state = self.state.lock();
        let State { session, vms } = &mut *state;
        // INVARIANT: The mutex is held until the end of this function.
        work(session, &mut LockedHost { slots: &self.slots, vms }).map_err(errno)
    }
}

#[vtable]
impl MiscDevice for OpenFile {
    type Ptr = Pin<KBox<Self>>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        el1::check_allowed()?;
        let slots = Slots::new(SLOTS)?;
        let count = slots.len();
        KBox::try_pin_init(
            try_pin_init!(Self {
                slots,
                state <- new_mutex!(State { session: Session::new(count), vms: HeldVms::default() }, "s2dump_session"),
            }),
            GFP_KERNEL,
        )
    }

    fn ioctl(me: Pin<&Self>, _file: &File, command: u32, argument: usize) -> Result<isize> {
        let mut user = UserArgument(UserPtr::from_addr(argument));
        me.locked(|session, host| file::ioctl(session, host, command, &mut user)).map(|()| 0)
    }

    fn read_iter(kiocb: Kiocb<'_, Self::Ptr>, iov: &mut IovIterDest<'_>) -> Result<usize> {
        kiocb.file().locked(|session, host| file::read(session, host, &mut UserBuffer(iov)))
    }

    fn mmap(me: Pin<&Self>, _file: &File, vma: &VmaNew) -> Result {
        me.slots.map(vma)
    }
}

/// The argument of an ioctl.
struct UserArgument(UserPtr);

impl file::Argument for UserArgument {
    fn read(&mut self, into: &mut [u8]) -> Result<(), Errno> {
        UserSlice::new(self.0, into.len()).reader().read_slice(into).map_err(to_errno)
    }

    fn write(&mut self, offset: usize, from: &[u8]) -> Result<(), Errno> {
        UserSlice::new(self.0.wrapping_byte_add(offset), from.len()).writer().write_slice(from).map_err(to_errno)
    }
}

/// The buffer of a read.
struct UserBuffer<'a, 'b>(&'a mut IovIterDest<'b>);

impl<'h> file::Buffer<LockedHost<'h>> for UserBuffer<'_, '_> {
    fn room(&self) -> usize {
        self.0.len()
    }

    fn put(&mut self, host: &LockedHost<'h>, slot: u32, offset: usize, len: usize) -> Result<usize, Errno> {
        // SAFETY: By the type invariant of `host` nobody else makes calls or writes.
        unsafe { host.slots.copy_to(slot, offset, len, self.0) }.map_err(to_errno)
    }
}

/// EL2, before there is any session.
struct Alone;

impl El2 for Alone {
    fn call(&mut self, regs: &mut [u64; 8]) {
        el1::call(regs);
    }
}

/// Agrees on a version with EL2.
pub(crate) fn hello() -> Result<s2dump_host_driver::call::HelloAnswer> {
    s2dump_host_driver::call::hello(&mut Alone).map_err(|error| errno(error.into()))
}
