// SPDX-License-Identifier: GPL-2.0-only
//! The memory slots of a VM, which only EL1 knows: which input addresses the VMM gave to the guest, and what is behind them.

use crate::error::SessionError;
use crate::host::Host;
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{MemorySlot, SlotHeader, SLOT_MEMORY};
use zerocopy::FromBytes;

/// Writes the memory slots of the VM that is held, from the input address `from` on, to `slot`, as many as it has room for.
/// Returns how many, and where to go on, if there may be more.
///
/// # Errors
///
/// The host writes too many, or none that are behind those before: the stream would never end.
pub fn put<H: Host>(host: &mut H, slot: u32, from: u64) -> Result<(u32, Option<u64>), SessionError> {
    const FIRST: usize = size_of::<SlotHeader>();
    let count = host.put_memory_slots(slot, FIRST, from, SLOT_MEMORY)?;
    if count < SLOT_MEMORY {
        return Ok((count as u32, None));
    }
    let mut bytes = [0; size_of::<MemorySlot>()];
    host.read_slot(slot, FIRST + (SLOT_MEMORY - 1) * size_of::<MemorySlot>(), &mut bytes)?;
    let end = MemorySlot::read_from_bytes(&bytes).ok().and_then(|last| last.ia.checked_add(last.size));
    match end.filter(|end| count == SLOT_MEMORY && *end > from) {
        Some(end) => Ok((count as u32, Some(end))),
        None => Err(SessionError::Refused(Status::BAD_ANSWER)),
    }
}
