// SPDX-License-Identifier: MIT OR Apache-2.0
//! A change as JSON, and its two sides.

use super::hex::{Hex, SpanJson};
use crate::machine::differ::{Change, Said};
use serde::Serialize;

/// A change.
#[derive(Serialize)]
pub(super) struct ChangeJson<'a> {
    r#type: &'static str,
    /// Of the clock that the kernel's log has.
    #[serde(skip_serializing_if = "Option::is_none")]
    uptime_us: Option<u64>,
    of: &'a str,
    #[serde(flatten)]
    span: SpanJson,
    old: Option<SaidJson<'a>>,
    new: Option<SaidJson<'a>>,
}

impl<'a> ChangeJson<'a> {
    /// Describes `change`, seen at `uptime_us` if that is known, of a machine with pages of `1 << page_shift` bytes.
    pub(super) fn new(change: &'a Change, uptime_us: Option<u64>, page_shift: u32) -> Self {
        let Change { of, start, end, old, new } = change;
        let side = |said: &'a Option<Said>| said.as_ref().map(|said| SaidJson::new(said, page_shift));
        let span = SpanJson::new(*start, *end, page_shift);
        Self { r#type: "change", uptime_us, of, span, old: side(old), new: side(new) }
    }
}

/// What one side says; of a hole there is none.
#[derive(Serialize)]
struct SaidJson<'a> {
    rights: Option<&'a str>,
    memory: Option<&'a str>,
    state: &'a str,
    address: Option<Hex>,
    address_pfn: Option<u64>,
}

impl<'a> SaidJson<'a> {
    fn new(said: &'a Said, page_shift: u32) -> Self {
        Self {
            rights: said.rights.as_deref(),
            memory: said.memory.as_deref(),
            state: &said.state,
            address: said.address.map(Hex),
            address_pfn: said.address.map(|address| address >> page_shift),
        }
    }
}

/// Returns what two sides say otherwise.
pub(super) fn differing(old: &Said, new: &Said) -> Vec<&'static str> {
    [
        ("rights", old.rights != new.rights),
        ("memory", old.memory != new.memory),
        ("state", old.state != new.state),
        ("address", old.address != new.address),
    ]
    .into_iter()
    .filter_map(|(what, differs)| differs.then_some(what))
    .collect()
}
