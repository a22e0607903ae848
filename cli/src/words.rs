// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a row says, in words: the vocabulary shared by table, walk and JSON. Decoding itself is `s2dump-vmsa`'s.

use crate::leaf;
use crate::model::{Row, Table};
use s2dump_abi::slot::{encoding, RecordKind};
use s2dump_vmsa::attrs::{Cacheability, Device, MemAttr, Shareability, Xn};
use s2dump_vmsa::fault::Fault;
use s2dump_vmsa::pkvm::{InvalidKind, OwnerId, PageState};
use s2dump_vmsa::stage2::Stage2Leaf;
use s2dump_vmsa::{Regime, TableAttrs};
use std::borrow::Cow;

/// Words or numbers for one word of output.
pub(crate) type Word = Cow<'static, str>;

/// Returns who may execute.
pub(crate) fn execute(xn: Xn) -> &'static str {
    match (xn.el1_can_execute(), xn.el0_can_execute()) {
        (true, true) => "el1+el0",
        (true, false) => "el1",
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

/// Whether the contiguous runs of a row are what the architecture wants: aligned in input and output, all alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runs {
    /// They are.
    Whole,
    /// They are not: what the MMU does is CONSTRAINED UNPREDICTABLE.
    Broken,
    /// The row does not tell: its output addresses jump, the range asked for cuts it, or hardware may set the access flag
    /// (and with it the dirty state) of some entries of a run only, so that a run spans rows.
    Unknown,
}

/// Returns what a row of a dump says about contiguous runs, if its entries are of such.
pub(crate) fn runs(row: &Row, table: &Table) -> Option<Runs> {
    let leaf = leaf::of_row(row, table).filter(|leaf| leaf.contiguous())?;
    let entries = table.geometry.granule().contiguous_entries(leaf.level())?;
    let mask = (u64::from(entries) << row.entry_shift) - 1;
    let Some(oa) = row.oa.filter(|_| row.linear) else { return Some(Runs::Unknown) };
    let is_cut = |bound: u64, at: u64| bound & mask != 0 && at == bound;
    Some(if (row.ia ^ oa) & mask != 0 {
        Runs::Broken
    } else if (row.ia | row.end()) & mask == 0 {
        Runs::Whole
    } else if table.geometry.sets_access_flag() || is_cut(table.header.start, row.ia) || is_cut(table.end(), row.end())
    {
        Runs::Unknown
    } else {
        Runs::Broken
    })
}

/// Returns the word for it.
pub(crate) fn runs_word(runs: Runs) -> &'static str {
    match runs {
        Runs::Whole => "whole",
        Runs::Broken => "broken!",
        Runs::Unknown => "unknown",
    }
}

/// Returns whether software bits and invalid entries have pKVM's meaning.
fn is_pkvm(table: &Table) -> bool {
    table.header.encoding == encoding::PKVM_7_2
}

/// Returns pKVM's page state, if the table has one.
pub(crate) fn page_state(leaf: &Stage2Leaf<'_>, table: &Table) -> Option<&'static str> {
    is_pkvm(table).then(|| page_state_of(leaf.page_state()))
}

/// Returns the word for a page state of pKVM's.
pub(crate) fn page_state_of(state: PageState) -> &'static str {
    match state {
        PageState::Owned => "owned",
        PageState::SharedOwned => "shared-owned",
        PageState::SharedBorrowed => "shared-borrowed",
        PageState::NoPage => "no-page!",
    }
}

/// Returns what an invalid entry says, `None` if it is zero: a word for what it is, and whether that says it all.
pub(crate) fn annotation(row: &Row, table: &Table) -> Option<(&'static str, bool)> {
    if row.kind != RecordKind::INVALID || row.raw == 0 {
        return None;
    }
    if !is_pkvm(table) {
        return Some(("invalid", false));
    }
    annotation_of(InvalidKind::from_descriptor(row.raw))
}

/// Returns the word for what an invalid entry of pKVM's says, and whether that says it all; `None` if it is zero.
pub(crate) fn annotation_of(kind: InvalidKind) -> Option<(&'static str, bool)> {
    Some(match kind {
        InvalidKind::Empty => return None,
        InvalidKind::Locked { payload } => ("LOCKED!", payload == 0),
        InvalidKind::HostDonation { owner: OwnerId::HYP, metadata } => ("donated-hyp", metadata == 0),
        InvalidKind::HostDonation { owner: OwnerId::GUEST, .. } => ("donated-guest", false),
        InvalidKind::HostDonation { .. } => ("donated", false),
        InvalidKind::GuestPoisoned { payload } => ("poisoned", payload == 0),
        InvalidKind::Unknown { .. } => ("invalid", false),
    })
}

/// Returns what a row is when it is neither leaf nor invalid entry.
pub(crate) fn fault(kind: RecordKind) -> Option<&'static str> {
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

/// Returns page state, annotation or fault as one word; what the word does not say is added raw.
pub(crate) fn state(row: &Row, table: &Table) -> Word {
    if let Some(leaf) = leaf::of_row(row, table) {
        return leaf.page_state(table).unwrap_or("-").into();
    }
    match (annotation(row, table), fault(row.kind)) {
        (Some((word, true)), _) => word.into(),
        (Some((word, false)), _) | (None, Some(word)) => format!("{word}={:#x}", row.raw).into(),
        (None, None) => "-".into(),
    }
}

/// Returns the kind of a row as JSON names it.
pub(crate) fn kind(row: &Row) -> &'static str {
    match row.kind {
        RecordKind::INVALID if row.raw == 0 => "hole",
        RecordKind::INVALID => "invalid",
        RecordKind::LEAF if row.level.is_last() => "page",
        RecordKind::LEAF => "block",
        RecordKind::TABLE => "table",
        RecordKind::RESERVED => "reserved",
        RecordKind::TABLE_OUTSIDE => "table-outside",
        _ => "table-loop",
    }
}
