// SPDX-License-Identifier: GPL-2.0-only
//! What ioctl(2) and read(2) of an open file do. The kernel gives the session, with its mutex held, and the caller's
//! memory.
//!
//! Two devices do that: `kernel/device.rs` in kernels with Rust, `linux/without-rust/s2dump_device.c` in those without.
//! What is the same for both is here, where cargo tests it.

use crate::argument::Command;
use crate::errno::Errno;
use crate::error::SessionError;
use crate::host::Host;
use crate::session::Session;
use core::mem::offset_of;
use s2dump_abi::ioctl::{Advance, Hello, Start};
use s2dump_abi::version::ABI_VERSION;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The number of slots in a ring. An `advance` makes at most this many calls.
///
/// In instructions, counted under QEMU: the shortest call takes 4,500 and the ioctl around it 750; to share, map, unmap
/// and unshare a page takes 2,000. With 8 slots the ioctls are 2 % of a long dump. With 16 they would be 1 %, but each
/// short session would spend twice as much on its pages. For the same reason pages behind the first of a slot are shared
/// only when a call is to fill them.
pub const SLOTS: u32 = 8;

/// The argument of an ioctl, in the caller's memory.
pub trait Argument {
    /// Copies bytes from its start.
    ///
    /// # Errors
    ///
    /// `EFAULT` if they are not all there.
    fn read(&mut self, into: &mut [u8]) -> Result<(), Errno>;

    /// Copies bytes to it, from `offset` on.
    ///
    /// # Errors
    ///
    /// `EFAULT` if they cannot all be written.
    fn write(&mut self, offset: usize, from: &[u8]) -> Result<(), Errno>;
}

/// The buffer of a read, in the caller's memory.
pub trait Buffer<H: Host> {
    /// Returns how many more bytes it takes.
    fn room(&self) -> usize;

    /// Copies `len` bytes of a slot, from `offset` on, behind what it has. Returns how many it took: fewer only if the
    /// caller's memory ends.
    ///
    /// # Errors
    ///
    /// `EINVAL` if they are not all inside the slot.
    fn put(&mut self, host: &H, slot: u32, offset: usize, len: usize) -> Result<usize, Errno>;
}

/// Performs an ioctl.
///
/// # Errors
///
/// The command or its argument is wrong, EL2 or the kernel refused, or the caller's memory is not there.
pub fn ioctl<H: Host>(
    session: &mut Session,
    host: &mut H,
    command: u32,
    user: &mut impl Argument,
) -> Result<(), SessionError> {
    let command = match Command::parse(command) {
        Ok(command) => command,
        Err(error) => {
            // The version has the same place in an argument of any size.
            if Command::is_hello(command) {
                user.write(offset_of!(Hello, version), &ABI_VERSION.to_bits().to_ne_bytes())?;
            }
            return Err(error.into());
        }
    };
    match command {
        Command::Hello => {
            let mut hello: Hello = read_argument(user)?;
            let result = session.hello(host, &mut hello);
            // Written with an error too, because version and status say what the errno cannot.
            write_argument(user, &hello)?;
            result
        }
        Command::Start => {
            // Checked at the open and again here, because the kernel may have been locked down since.
            host.check_allowed()?;
            let mut start: Start = read_argument(user)?;
            let result = session.start(host, &mut start);
            if result.is_err() {
                // The status says what the errno cannot. Only then, so that a start that began is never EFAULT.
                write_argument(user, &start)?;
            }
            result
        }
        Command::Advance => {
            let mut advance: Advance = read_argument(user)?;
            session.advance(host, &mut advance)?;
            write_argument(user, &advance)
        }
    }
}

fn read_argument<T: FromBytes + IntoBytes>(user: &mut impl Argument) -> Result<T, SessionError> {
    let mut value = T::new_zeroed();
    user.read(value.as_mut_bytes())?;
    Ok(value)
}

fn write_argument<T: IntoBytes + Immutable>(user: &mut impl Argument, value: &T) -> Result<(), SessionError> {
    user.write(0, value.as_bytes()).map_err(SessionError::from)
}

/// Performs a read. Returns how many bytes it gave.
///
/// # Errors
///
/// Nothing was started, the start is read through the mapping, the slot cannot be filled, or the caller's memory is not
/// there: only if the read gave no byte. The next read meets the error again.
pub fn read<H: Host>(session: &mut Session, host: &mut H, buffer: &mut impl Buffer<H>) -> Result<usize, SessionError> {
    let mut total = 0_usize;
    // One read takes at most as many slots as the ring has, however large the buffer is. So it makes no more calls than
    // an advance.
    for _ in 0..SLOTS {
        if buffer.room() == 0 {
            break;
        }
        let unread = match session.next_unread(host) {
            Ok(Some(unread)) => unread,
            Ok(None) => break,
            Err(_) if total > 0 => break,
            Err(error) => return Err(error),
        };
        if total > 0 && unread.len_bytes > buffer.room() {
            // A buffer with room for a slot gets whole slots only. A smaller one gets a slot piece by piece.
            break;
        }
        let wanted = unread.len_bytes.min(buffer.room());
        let copied = buffer.put(host, unread.slot, unread.offset, wanted)?;
        session.consume(unread, copied);
        total = total.saturating_add(copied);
        if copied < wanted {
            return if total > 0 { Ok(total) } else { Err(Errno::EFAULT.into()) };
        }
        if host.is_interrupted() {
            break;
        }
    }
    Ok(total)
}
