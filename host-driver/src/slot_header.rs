// SPDX-License-Identifier: GPL-2.0-only
//! Reads the headers of filled slots.

use crate::errno::Errno;
use crate::error::SessionError;
use crate::host::Host;
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{SlotHeader, SlotKind, PLAIN_SLOT_BYTES, SLOT_BYTES, SLOT_MAGIC};
use zerocopy::FromBytes;

/// Reads the header of a filled slot, and checks that its records lie within the slot.
///
/// # Errors
///
/// [`Status::BAD_ANSWER`] if it is not a slot.
pub fn read_header<H: Host>(host: &H, slot: u32) -> Result<SlotHeader, SessionError> {
    let mut bytes = [0; size_of::<SlotHeader>()];
    host.read_slot(slot, 0, &mut bytes)?;
    let header = SlotHeader::read_from_bytes(&bytes).map_err(|_| Errno::EINVAL)?;
    let capacity = if header.kind == SlotKind::PACKED.0 { SLOT_BYTES } else { PLAIN_SLOT_BYTES };
    match header.used_bytes() {
        Some(used) if used <= capacity && header.magic == SLOT_MAGIC => Ok(header),
        _ => Err(SessionError::Refused(Status::BAD_ANSWER)),
    }
}

/// Returns the number of used bytes of a filled slot.
///
/// # Errors
///
/// [`Status::BAD_ANSWER`] if it is not a slot.
pub fn used_bytes<H: Host>(host: &H, slot: u32) -> Result<usize, SessionError> {
    read_header(host, slot)?.used_bytes().ok_or(SessionError::Refused(Status::BAD_ANSWER))
}

/// Overwrites all of a slot that may be filled with zeroes.
///
/// # Errors
///
/// The slot cannot be written.
pub fn erase<H: Host>(host: &mut H, slot: u32) -> Result<(), Errno> {
    // Piece by piece: a whole slot is too much for a kernel's stack.
    const PIECE: usize = size_of::<SlotHeader>();
    for offset in (0..SLOT_BYTES).step_by(PIECE) {
        host.write_slot(slot, offset, &[0; PIECE])?;
    }
    Ok(())
}
