// SPDX-License-Identifier: GPL-2.0-only
//! The file operations: one open file is one session.

use crate::{
    el1::{self, HeldVms},
    errno,
    slots::{Slots, SLOTS},
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
use core::mem::offset_of;
use s2dump_abi::ioctl::{Advance, Hello, Start};
use s2dump_abi::target::HANDLES;
use s2dump_abi::version::ABI_VERSION;
use s2dump_host_driver::{
    argument::Command,
    errno::Errno,
    error::SessionError,
    host::{Host, HostVm},
    session::Session,
};
use zerocopy::{FromBytes, IntoBytes};

/// The most VMs of the host that one look takes. pKVM cannot have more at once.
const MAX_VMS: usize = HANDLES as usize + 1;

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
/// The mutex of the session is held, or `slots` is empty: nobody else makes calls for the slots or touches their bytes.
struct LockedHost<'a> {
    slots: &'a Slots,
    vms: &'a mut HeldVms,
}

impl Host for LockedHost<'_> {
    const PAGE_BYTES: usize = PAGE_SIZE;

    fn call(&mut self, regs: &mut [u64; 8]) {
        el1::call(regs);
    }

    fn slot_pfn(&self, slot: u32) -> u64 {
        self.slots.pfn(slot)
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
        *self.vms = HeldVms::all(MAX_VMS).map_err(to_errno)?;
        Ok(())
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
        let user = UserPtr::from_addr(argument);
        let command = match Command::parse(command) {
            Ok(command) => command,
            Err(error) => {
                // The version has the same place in an argument of any size.
                if Command::is_hello(command) {
                    let version = user.wrapping_byte_add(offset_of!(Hello, version));
                    write_argument(version, &ABI_VERSION.to_bits())?;
                }
                return Err(errno(error.into()));
            }
        };
        match command {
            Command::Hello => {
                let mut hello: Hello = read_argument(user)?;
                let result = me.locked(|session, host| session.hello(host, &mut hello));
                // Written with an error too, because version and status say what the errno cannot.
                write_argument(user, &hello)?;
                result.map(|()| 0)
            }
            Command::Start => {
                // Checked at the open and again here, because the kernel may have been locked down since.
                el1::check_allowed()?;
                let mut start: Start = read_argument(user)?;
                let result = me.locked(|session, host| session.start(host, &mut start));
                if result.is_err() {
                    // The status says what the errno cannot. Only then, so that a start that began is never EFAULT.
                    write_argument(user, &start)?;
                }
                result.map(|()| 0)
            }
            Command::Advance => {
                let mut advance: Advance = read_argument(user)?;
                me.locked(|session, host| session.advance(host, &mut advance))?;
                write_argument(user, &advance)
            }
        }
    }

    fn read_iter(kiocb: Kiocb<'_, Self::Ptr>, iov: &mut IovIterDest<'_>) -> Result<usize> {
        let me = kiocb.file();
        let mut state = me.state.lock();
        let State { session, vms } = &mut *state;
        // INVARIANT: The mutex is held until the end of this function.
        let mut host = LockedHost { slots: &me.slots, vms };
        let mut total = 0;
        // One read takes at most as many slots as the ring has, however large the buffer is. So it makes no more calls
        // than an advance.
        for _ in 0..SLOTS {
            if iov.is_empty() {
                break;
            }
            let unread = match session.next_unread(&mut host) {
                Ok(Some(unread)) => unread,
                Ok(None) => break,
                // This read returns what it copied. The next read meets the error again.
                Err(_) if total > 0 => break,
                Err(error) => return Err(errno(error)),
            };
            if total > 0 && unread.len_bytes > iov.len() {
                // A buffer with room for a slot gets whole slots only. A smaller one gets a slot piece by piece.
                break;
            }
            let wanted = unread.len_bytes.min(iov.len());
            // SAFETY: The mutex is held: nobody else makes calls or writes.
            let copied = unsafe { me.slots.copy_to(unread.slot, unread.offset, wanted, iov)? };
            session.consume(unread, copied);
            total += copied;
            if copied < wanted {
                return if total > 0 { Ok(total) } else { Err(EFAULT) };
            }
            if host.is_interrupted() {
                break;
            }
        }
        Ok(total)
    }

    fn mmap(me: Pin<&Self>, _file: &File, vma: &VmaNew) -> Result {
        me.slots.map(vma)
    }
}

fn read_argument<T: FromBytes + IntoBytes>(user: UserPtr) -> Result<T> {
    let mut value = T::new_zeroed();
    UserSlice::new(user, size_of::<T>()).reader().read_slice(value.as_mut_bytes())?;
    Ok(value)
}

fn write_argument<T: IntoBytes + zerocopy::Immutable>(user: UserPtr, value: &T) -> Result<isize> {
    UserSlice::new(user, size_of::<T>()).writer().write_slice(value.as_bytes())?;
    Ok(0)
}

/// Agrees on a version with EL2, before there is any session.
pub(crate) fn hello() -> Result<s2dump_host_driver::call::HelloAnswer> {
    // INVARIANT: There are no slots.
    let mut host = LockedHost { slots: &Slots::none(), vms: &mut HeldVms::default() };
    s2dump_host_driver::call::hello(&mut host).map_err(|error| errno(error.into()))
}
