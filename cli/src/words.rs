// SPDX-License-Identifier: MIT OR Apache-2.0
//! The vocabulary that table, walk, decode and JSON share: one word for each value of a field. It knows no row and no table.

use crate::model::Mark;
use s2dump_abi::slot::RecordKind;
use s2dump_vmsa::attrs::{Cacheability, Device, MemAttr, Shareability, Xn};
use s2dump_vmsa::fault::Fault;
use s2dump_vmsa::pkvm::{Encoding, Frame, InvalidKind, Owner, PageState};
use s2dump_vmsa::{Geometry, Regime, TableAttrs};
use std::borrow::Cow;

/// Words or numbers for one word of output.
pub(crate) type Word = Cow<'static, str>;

/// Returns a character of text that others chose, as a terminal may have it: none that controls it, that is not seen, or that turns the
/// order of those that follow (Unicode Bidirectional Algorithm, UAX #9).
pub(crate) fn shown(c: char) -> char {
    let is_unseen = matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    if c.is_control() || is_unseen {
        '?'
    } else {
        c
    }
}

/// Returns who may execute.
pub(crate) fn execute(xn: Xn) -> &'static str {
    match (xn.el1_can_execute(), xn.el0_can_execute()) {
        (true, true) => "el1+el0",
        (true, false) => "el1",
        (false, true) => "el0",
        (false, false) => "none",
    }
}

/// Returns who may execute by EL2's stage 1.
pub(crate) fn execute_at_el2(el2: bool, el0: bool) -> &'static str {
    match (el2, el0) {
        (true, true) => "el2+el0",
        (true, false) => "el2",
        (false, true) => "el0",
        (false, false) => "none",
    }
}

/// Returns the memory type; a reserved encoding as its bits with a question mark.
pub(crate) fn memory(attr: MemAttr) -> Word {
    let name = match attr {
        MemAttr::Device(Device::NGnRnE) => "dev-nGnRnE",
        MemAttr::Device(Device::NGnRE) => "dev-nGnRE",
        MemAttr::Device(Device::NGRE) => "dev-nGRE",
        MemAttr::Device(Device::GRE) => "dev-GRE",
        MemAttr::Normal { outer, inner } if outer == inner => match inner {
            Cacheability::NonCacheable => "normal-nc",
            Cacheability::WriteThrough => "normal-wt",
            Cacheability::WriteBack => "normal-wb",
        },
        MemAttr::Normal { outer, inner } => return format!("o-{}/i-{}", cache(outer), cache(inner)).into(),
        MemAttr::ForcedWriteBack => "normal-wb",
        MemAttr::AsStage1 => "as-stage1",
        MemAttr::NoTagAccess | MemAttr::ForcedWriteBackNoTagAccess => "normal-wb-notag",
        MemAttr::AsStage1NoTagAccess => "as-stage1-notag",
        MemAttr::Unknown(bits) => return format!("{bits:#06b}?").into(),
    };
    name.into()
}

fn cache(half: Cacheability) -> &'static str {
    match half {
        Cacheability::NonCacheable => "nc",
        Cacheability::WriteThrough => "wt",
        Cacheability::WriteBack => "wb",
    }
}

/// Returns the shareability.
pub(crate) fn shareability(sh: Shareability) -> &'static str {
    match sh {
        Shareability::Non => "nsh",
        Shareability::Reserved => "01?",
        Shareability::Outer => "osh",
        Shareability::Inner => "ish",
    }
}

/// Returns the word for a page state of pKVM's.
pub(crate) fn page_state_of(state: PageState) -> &'static str {
    match state {
        PageState::Owned => "owned",
        PageState::SharedOwned => "shared-owned",
        PageState::SharedBorrowed => "shared-borrowed",
        PageState::NoPage => "no-page!",
        PageState::Tainted => "tainted",
        PageState::ModuleOwned => "module-owned",
        PageState::ModuleNoPage => "module-no-page",
    }
}

/// Returns the word for the state of a frame on one side; that it is no page there is of no alarm.
pub(crate) fn frame_state(state: Option<PageState>) -> &'static str {
    match state {
        Some(PageState::NoPage) => "no-page",
        Some(state) => page_state_of(state),
        None => "unknown!",
    }
}

/// Returns the word for the state in which the hypervisor has a frame; `-` if the kernel does not keep that with it.
pub(crate) fn hyp_state(frame: &Frame) -> &'static str {
    if frame.is_hyp_kept {
        frame_state(frame.hyp)
    } else {
        "-"
    }
}

/// Returns what pKVM keeps about a frame.
pub(crate) fn frame(frame: Option<Frame>) -> String {
    let Some(frame) = frame else { return "unknown!".into() };
    let Frame { host, refcount, share_count, is_hyp_kept, .. } = frame;
    let host = frame_state(host);
    let hyp = if is_hyp_kept { format!(" hyp={}", hyp_state(&frame)) } else { String::new() };
    let number = |count: u64, word: &str| if count == 0 { String::new() } else { format!(" {word}={count}") };
    format!("host={host}{hyp}{}{}", number(refcount.into(), "refs"), number(share_count.into(), "shares"))
}

/// Returns the word for what an invalid entry of pKVM's says, and whether that says it all; `None` if it is zero.
pub(crate) fn annotation_of(kind: InvalidKind) -> Option<(&'static str, bool)> {
    Some(match kind {
        InvalidKind::Empty => return None,
        InvalidKind::Locked { payload } => ("LOCKED!", payload == 0),
        InvalidKind::HostDonation { owner: Owner::Hyp } => ("donated-hyp", true),
        InvalidKind::HostDonation { owner: Owner::Guest { .. } } => ("donated-guest", false),
        InvalidKind::HostDonation { owner: Owner::SomeGuest } => ("donated-guest", true),
        InvalidKind::HostDonation { owner: Owner::Ffa } => ("donated-ffa", true),
        InvalidKind::HostDonation { owner: Owner::Protected } => ("donated-protected", true),
        InvalidKind::HostDonation { owner: Owner::Unknown { .. } } => ("donated", false),
        InvalidKind::MmioGuard => ("mmio-guard", true),
        InvalidKind::GuestPoisoned { payload } => ("poisoned", payload == 0),
        InvalidKind::Unknown { .. } => ("invalid", false),
    })
}

/// Returns the word for what a row is by its address.
pub(crate) fn mark(mark: Mark) -> Option<&'static str> {
    match mark {
        Mark::None => None,
        Mark::Fixmap => Some("fixmap"),
        Mark::Fixblock => Some("fixblock"),
        Mark::Ring => Some("ring"),
        Mark::PartlyRing => Some("partly-ring"),
    }
}

/// Returns the name of the owner of a donated page, `None` if it is one this version does not know: hyp, or the guest's
/// target, an `@`, and the input address at which the guest has the page; guest, if the entry does not tell which.
pub(crate) fn owner(owner: Owner, geometry: &Geometry) -> Option<Word> {
    match owner {
        Owner::Hyp => Some("hyp".into()),
        Owner::Guest { handle, gfn } => {
            Some(format!("vm:{handle:#x}@{:#x}", gfn << geometry.granule().page_shift()).into())
        }
        Owner::SomeGuest => Some("guest".into()),
        Owner::Ffa => Some("ffa".into()),
        Owner::Protected => Some("protected".into()),
        Owner::Unknown { .. } => None,
    }
}

/// Returns the word for an entry that is neither leaf, table nor invalid entry.
pub(crate) fn wrong_kind(kind: RecordKind) -> Option<&'static str> {
    match kind {
        RecordKind::RESERVED => Some("reserved!"),
        RecordKind::TABLE_OUTSIDE => Some("table-outside!"),
        RecordKind::TABLE_LOOP => Some("table-loop!"),
        _ => None,
    }
}

/// Returns the names of what tables of EL2's stage 1 say about all that is below them.
pub(crate) fn table_attrs(attrs: TableAttrs, regime: Regime) -> impl Iterator<Item = Word> {
    let xn = if regime == Regime::El2And0 { "uxntable" } else { "xntable" };
    [
        (attrs.is_non_secure(), "nstable"),
        (attrs.is_read_only(), "aptable-ro"),
        (attrs.denies_el0(), "aptable-noel0"),
        (attrs.xn(), xn),
        (attrs.pxn(), "pxntable"),
    ]
    .into_iter()
    .filter_map(|(is_set, name)| is_set.then_some(Word::from(name)))
}

/// Returns the name of a fault of the MMU.
pub(crate) fn fault_name(fault: Fault) -> &'static str {
    match fault {
        Fault::AddressSize => "address-size",
        Fault::Translation => "translation",
        Fault::AccessFlag => "access-flag",
        Fault::Permission => "permission",
    }
}

/// Returns the name of an encoding of software bits and invalid entries.
pub(crate) fn encoding_name(encoding: Encoding) -> Word {
    encoding.name().map_or_else(|| format!("unknown-{}", encoding.0).into(), Word::from)
}

/// Takes the alarm out of a word: the table shouts, JSON and options do not.
pub(crate) fn bare(word: &str) -> &str {
    match word {
        "LOCKED!" => "locked",
        word => word.strip_suffix('!').unwrap_or(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_controls_no_terminal() {
        let text: String = "a\u{1b}[31m\u{9b}b\u{202e}c\u{200b}\u{feff}\u{2066}ü€".chars().map(shown).collect();
        assert_eq!(text, "a?[31m?b?c???ü€");
    }
}
