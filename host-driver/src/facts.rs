// SPDX-License-Identifier: GPL-2.0-only
//! The facts that EL1 tells: which pages the slots of this session are, which nobody else knows; and where in the kernel's image
//! EL2's data is, which EL2 need not be asked.
//!
//! While a session lasts, its slots are shared with EL2. Whoever looks at the states of page frames sees that, and wants
//! to know that it comes from looking.

use crate::errno::Errno;
use crate::host::Host;
use s2dump_abi::slot::{slot_pages_of, Fact, FactKind, SlotHeader, SLOT_FACTS};
use zerocopy::IntoBytes;

/// What [`Host::hyp_image`] tells of.
const IMAGE: [FactKind; 3] = [FactKind::HYP_DATA, FactKind::HYP_RODATA, FactKind::HYP_BSS];

/// Returns how many facts EL1 tells in a session with `slots`.
#[must_use]
pub const fn count(slots: u32) -> u32 {
    slots.saturating_add(IMAGE.len() as u32)
}

/// Returns the fact of a number, in a session with `slots`.
fn fact<H: Host>(host: &H, number: u32, slots: u32) -> Option<Fact> {
    let (kind, start, end) = match number.checked_sub(slots) {
        None => {
            let start = host.slot_pfn(number).wrapping_mul(H::PAGE_BYTES as u64);
            // All of its pages, whether calls have used more than the first yet or not.
            (FactKind::RING, start, start.wrapping_add((slot_pages_of(H::PAGE_BYTES) * H::PAGE_BYTES) as u64))
        }
        Some(index) => {
            let index = usize::try_from(index).ok()?;
            let [start, end] = *host.hyp_image().get(index)?;
            (*IMAGE.get(index)?, start, end)
        }
    };
    Some(Fact { start, size: end.wrapping_sub(start), value: 0, kind: kind.0, flags: 0, reserved: 0 })
}

/// Writes the facts from number `from` on to `slot`, as many as it has room for, and returns how many.
///
/// # Errors
///
/// The slot cannot be written.
pub fn put<H: Host>(host: &mut H, slot: u32, from: u32, slots: u32) -> Result<u32, Errno> {
    let mut written = 0;
    let mut offset = size_of::<SlotHeader>();
    for number in (from..count(slots)).take(SLOT_FACTS) {
        let Some(fact) = fact(host, number, slots) else { break };
        host.write_slot(slot, offset, fact.as_bytes())?;
        offset += size_of::<Fact>();
        written += 1;
    }
    Ok(written)
}
