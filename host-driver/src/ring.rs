// SPDX-License-Identifier: GPL-2.0-only
//! Which slots of the ring are free, filled, and lent to user space.
//!
//! This module knows indices only, no bytes. The filled slots are `first .. first + filled`, wrapping. User space has
//! been told of the oldest `lent` of them, and it can give back only those.

/// More slots were given back than are lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLent {
    /// Slots the caller gave back.
    pub released: u32,
    /// Slots that are lent.
    pub lent: u32,
}

/// The state of a ring of slots.
///
/// # Invariants
///
/// `lent <= filled <= slots`, and `first < slots` unless `slots` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    slots: u32,
    first: u32,
    filled: u32,
    lent: u32,
}

impl Ring {
    /// Makes an empty ring.
    #[must_use]
    pub const fn new(slots: u32) -> Self {
        Self { slots, first: 0, filled: 0, lent: 0 }
    }

    /// Returns the number of slots, whatever their state.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.slots
    }

    /// Returns the index of the oldest filled slot. It means nothing while no slot is filled.
    #[must_use]
    pub const fn first(&self) -> u32 {
        self.first
    }

    /// Returns the number of filled slots.
    #[must_use]
    pub const fn filled(&self) -> u32 {
        self.filled
    }

    /// Returns the oldest filled slot.
    #[must_use]
    pub fn oldest(&self) -> Option<u32> {
        (self.filled != 0).then_some(self.first)
    }

    /// Returns the slot to fill next, or `None` if all are filled.
    #[must_use]
    pub fn next_free(&self) -> Option<u32> {
        (self.filled < self.slots).then(|| self.wrap(self.filled))
    }

    /// Marks the slot that [`next_free`](Self::next_free) returned as filled. Does nothing if no slot is free.
    pub fn fill(&mut self) {
        if self.filled < self.slots {
            self.filled += 1;
        }
    }

    /// Lends all filled slots.
    pub fn lend(&mut self) {
        self.lent = self.filled;
    }

    /// Takes back the `count` oldest lent slots.
    ///
    /// # Errors
    ///
    /// [`NotLent`] if fewer are lent. No slot is taken back then.
    pub fn release(&mut self, count: u32) -> Result<(), NotLent> {
        if count > self.lent {
            return Err(NotLent { released: count, lent: self.lent });
        }
        self.first = self.wrap(count);
        self.filled -= count;
        self.lent -= count;
        Ok(())
    }

    /// Frees all slots, and starts at index 0 again.
    pub fn clear(&mut self) {
        *self = Self::new(self.slots);
    }

    /// Returns the index that is `distance` after the first, wrapping. `distance` is at most `slots`.
    fn wrap(&self, distance: u32) -> u32 {
        let to_end = self.slots - self.first;
        if distance < to_end {
            self.first + distance
        } else {
            distance - to_end
        }
    }
}
