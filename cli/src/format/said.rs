// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two sides of a change.

use super::hex::Hex;
use crate::machine::differ::Said;
use serde::Serialize;

/// What one side says, as JSON.
#[derive(Serialize)]
pub(super) struct SaidJson<'a> {
    rights: Option<&'a str>,
    memory: Option<&'a str>,
    state: &'a str,
    address: Option<Hex>,
}

/// Returns what a side says as JSON; nothing of a hole.
pub(super) fn said_json(said: Option<&Said>) -> Option<SaidJson<'_>> {
    said.map(|said| SaidJson {
        rights: said.rights.as_deref(),
        memory: said.memory.as_deref(),
        state: &said.state,
        address: said.address.map(Hex),
    })
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
