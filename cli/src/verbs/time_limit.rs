// SPDX-License-Identifier: MIT OR Apache-2.0
//! The time that a report may take, in parts: what is cheap has its own, and nothing takes that of what follows.

use std::cell::Cell;
use std::time::Duration;

/// Tells the time, since some moment. Tests put their own in its place.
pub(crate) type Now = fn() -> Duration;

/// When a part of the time is over: so many percent of all the time after the beginning of all, or after its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) until: u32,
    pub(super) most: u32,
}

/// The parts, in their order. What one leaves goes to those that follow, as far as these may have so much themselves. The audit is
/// [`ASK`](Self::ASK), [`LOOK`](Self::LOOK) and [`SETTLE`](Self::SETTLE): half of all the time at most. What is left in the end is
/// for writing.
impl Part {
    /// List, facts, frames and trees are read.
    pub(super) const READ: Self = Self { until: 60, most: 30 };
    /// What was read is told: VMs, sums of tables, sums of frames. They have their time even if a call of EL2 took all that there was
    /// for reading; only sums of large tables take long, about as long as to read them.
    pub(super) const TELL: [Self; 3] =
        [Self { until: 90, most: 15 }, Self { until: 85, most: 25 }, Self { until: 90, most: 15 }];
    /// Rules are asked.
    pub(super) const ASK: Self = Self { until: 80, most: 30 };
    /// What looks wrong is looked at again.
    pub(super) const LOOK: Self = Self { until: 84, most: 10 };
    /// All is read again.
    pub(super) const READ_AGAIN: Self = Self { until: 88, most: 30 };
    /// The last list of VMs.
    pub(super) const LIST_AGAIN: Self = Self { until: 89, most: 10 };
    /// What looks wrong is settled by that.
    pub(super) const SETTLE: Self = Self { until: 92, most: 10 };
}

/// The time that there is, which begins when this is made. A copy may be in another part of it.
#[derive(Clone, Debug)]
pub(super) struct TimeLimit {
    now: Now,
    begin: Duration,
    time: Duration,
    /// When the part is over that has begun.
    end: Cell<Duration>,
}

impl TimeLimit {
    pub(super) fn new(now: Now, time: Duration) -> Self {
        let begin = now();
        Self { now, begin, time, end: Cell::new(begin + time) }
    }

    /// Begins with `part`.
    pub(super) fn enter(&self, part: Part) {
        let all = self.begin + self.time * part.until / 100;
        let own = (self.now)() + self.time * part.most / 100;
        self.end.set(all.min(own));
    }

    /// Returns whether the part is over.
    pub(super) fn is_over(&self) -> bool {
        !self.has(Duration::ZERO)
    }

    /// Returns whether the part has more than `time` left.
    pub(super) fn has(&self, time: Duration) -> bool {
        (self.now)() + time < self.end.get()
    }

    /// Returns how long it is since it began.
    pub(super) fn elapsed(&self) -> Duration {
        (self.now)().saturating_sub(self.begin)
    }
}
