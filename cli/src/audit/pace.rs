// SPDX-License-Identifier: MIT OR Apache-2.0
//! When an audit stops before its end: time is over, or a signal came.

use std::cell::Cell;

/// Tells those who look at many things whether to go on. Once it said no, it says no for good.
pub(crate) struct Pace<'a> {
    is_over: &'a dyn Fn() -> bool,
    left: Cell<u32>,
    has_stopped: Cell<bool>,
}

/// So many things are looked at between two questions: asking takes as long as some of them.
const THINGS: u32 = 64;

impl<'a> Pace<'a> {
    /// Goes on until `is_over` says so.
    pub(crate) fn new(is_over: &'a dyn Fn() -> bool) -> Self {
        Self { is_over, left: Cell::new(0), has_stopped: Cell::new(false) }
    }

    /// Returns whether to look at one more thing; asks now and then.
    pub(super) fn goes_on(&self) -> bool {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                !self.has_stopped.get()
            }
            None => self.asks(),
        }
    }

    /// Returns whether to go on; asks.
    pub(super) fn asks(&self) -> bool {
        self.left.set(THINGS);
        if !self.has_stopped.get() {
            self.has_stopped.set((self.is_over)());
        }
        !self.has_stopped.get()
    }

    /// Returns whether it said no.
    pub(crate) fn has_stopped(&self) -> bool {
        self.has_stopped.get()
    }
}
