// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! The cases, by group.

mod accesses;
mod directed;
mod divergences;
mod el2;
mod random;
mod ranges;
mod registers;
mod settings;

use crate::compare::Compare;
use crate::mmu::Mmu;

/// Which random cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What they come from.
    pub seed: u64,
    /// How many at stage 2; a quarter as many at EL2's stage 1.
    pub count: u32,
    /// Only this one, and nothing directed.
    pub only: Option<u32>,
    /// Print each translation before it is tried.
    pub is_traced: bool,
    /// Nothing but what QEMU aborts on.
    pub is_denied: bool,
}

/// Random cases that are enough to meet all divergences.
const ENOUGH: u32 = 4_000;

/// Runs all.
pub fn run<M: Mmu>(compare: &mut Compare<'_, M>, choice: &Choice) {
    if choice.is_denied {
        return divergences::denied(compare);
    }
    if choice.only.is_none() {
        settings::run(compare);
        directed::run(compare);
        accesses::run(compare);
        el2::run(compare);
        divergences::run(compare);
    }
    random::run(compare, choice);
    if choice.only.is_none() && choice.count >= ENOUGH {
        compare.report.require_divergences(&compare.cpu);
    }
}
