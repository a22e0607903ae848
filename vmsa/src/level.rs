// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Levels of a table walk: -1 (top of the largest tables) to 3 (pages).

/// A level, -1 to 3. Has no order, because "higher" means two things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Level(i8);

/// The value is not in -1..=3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotALevel(pub i8);

impl Level {
    /// The first of five levels.
    pub const MINUS_1: Self = Self(-1);
    /// The first of four levels.
    pub const L0: Self = Self(0);
    /// Blocks of 1 GiB with 4 KiB pages.
    pub const L1: Self = Self(1);
    /// Blocks of 2 MiB with 4 KiB pages.
    pub const L2: Self = Self(2);
    /// Pages.
    pub const L3: Self = Self(3);

    /// Most levels a walk can have.
    pub const MAX_DEPTH: usize = 5;

    /// Checks `raw`.
    ///
    /// # Errors
    ///
    /// [`NotALevel`] with the value if it is not in -1..=3.
    pub const fn try_new(raw: i8) -> Result<Self, NotALevel> {
        if raw < -1 || raw > 3 {
            return Err(NotALevel(raw));
        }
        Ok(Self(raw))
    }

    /// Returns the level as a number.
    #[must_use]
    pub const fn get(self) -> i8 {
        self.0
    }

    /// Returns the level a table descriptor of this level leads to, or `None` at level 3.
    #[must_use]
    pub const fn child(self) -> Option<Self> {
        if self.is_last() {
            None
        } else {
            Some(Self(self.0 + 1))
        }
    }

    /// Returns the level whose table descriptors lead to this one, or `None` at level -1.
    #[must_use]
    pub const fn parent(self) -> Option<Self> {
        if self.0 == -1 {
            None
        } else {
            Some(Self(self.0 - 1))
        }
    }

    /// Returns whether entries of this level are pages.
    #[must_use]
    pub const fn is_last(self) -> bool {
        self.0 == 3
    }

    /// Returns how many levels follow this one: 0 for level 3.
    #[must_use]
    pub const fn levels_below(self) -> u32 {
        // Within 0..=4 by construction.
        (3 - self.0) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_range() {
        assert!((-1..=3).all(|raw| Level::try_new(raw).map(Level::get) == Ok(raw)));
    }

    #[test]
    fn bad_outside_range() {
        assert_eq!(Level::try_new(-2), Err(NotALevel(-2)));
        assert_eq!(Level::try_new(4), Err(NotALevel(4)));
    }

    #[test]
    fn good_descent_ends_at_3() {
        let mut level = Level::MINUS_1;
        let mut depth = 1;
        while let Some(child) = level.child() {
            level = child;
            depth += 1;
        }
        assert_eq!((level, depth), (Level::L3, Level::MAX_DEPTH));
    }
}
