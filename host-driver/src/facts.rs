// SPDX-License-Identifier: GPL-2.0-only
//! The facts that only EL1 knows: which pages the slots of this session are.
//!
//! While a session lasts, its slots are shared with EL2. Whoever looks at the states of page frames sees that, and wants
//! to know that it comes from looking.

use crate::errno::Errno;
use crate::host::Host;
use core::ops::Range;
use s2dump_abi::slot::{slot_pages_of, Fact, FactKind, SlotHeader, SLOT_FACTS};
use zerocopy::IntoBytes;

/// Writes a fact for each of `slots` to `slot`, as many as it has room for, and returns how many.
///
/// # Errors
///
/// The slot cannot be written.
pub fn put_ring<H: Host>(host: &mut H, slot: u32, slots: Range<u32>) -> Result<u32, Errno> {
    let mut count = 0;
    let mut offset = size_of::<SlotHeader>();
    for told in slots.take(SLOT_FACTS) {
        let fact = Fact {
            // All of its pages, whether calls have used more than the first yet or not.
            start: host.slot_pfn(told).wrapping_mul(H::PAGE_BYTES as u64),
            size: (slot_pages_of(H::PAGE_BYTES) * H::PAGE_BYTES) as u64,
            value: 0,
            kind: FactKind::RING.0,
            flags: 0,
            reserved: 0,
        };
        host.write_slot(slot, offset, fact.as_bytes())?;
        offset += size_of::<Fact>();
        count += 1;
    }
    Ok(count)
}
