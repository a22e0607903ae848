// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Where an answer of ours is one of several that the architecture allows: it is the one expected of QEMU, by no change of
//! rules. Only a name for the list in [`divergence`](crate::divergence).

use crate::answer::{Answer, Reasoned};
use crate::divergence::Divergence;
use crate::par::Outcome;
use s2dump_vmsa::attrs::Shareability;
use s2dump_vmsa::Descriptor;

/// The choices in one answer.
pub type Choices = [Option<Divergence>; 3];

/// Returns the choices in an answer that is seen with memory type and shareability; `register` is that of the base.
#[must_use]
pub fn choices(reasoned: &Reasoned, register: u64) -> Choices {
    let Some(path) = &reasoned.path else { return Choices::default() };
    let base = path.geometry.base(register);
    let low_base = base.is_ok_and(|base| base.dropped != 0).then_some(Divergence::LowBaseBits);
    let last = path.last();
    let (Answer::Is(Outcome::Mapped { sh, .. }), Descriptor::Block(leaf) | Descriptor::Page(leaf)) =
        (reasoned.answer, last.raw.view(last.level, &path.geometry))
    else {
        return [low_base, None, None];
    };
    let found = leaf.stage2().map(|leaf| leaf.shareability());
    let found = found.or(leaf.el2(last.inherited).map(|leaf| leaf.shareability()));
    // Outer shareable: because of the memory type.
    let is_reserved = found == Some(Shareability::Reserved) && sh != 0b10;
    [
        low_base,
        is_reserved.then_some(Divergence::ReservedShareability),
        (leaf.contiguous() || leaf.no_translation()).then_some(Divergence::ContiguousNt),
    ]
}
