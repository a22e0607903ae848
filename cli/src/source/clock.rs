// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clocks of this process.

use rustix::time::{clock_gettime, ClockId};
use std::time::Duration;

/// A moment, or the time between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time {
    /// Since boot, as the kernel's log has it.
    pub(crate) uptime: Duration,
    /// What the process took of a CPU, in the kernel and at EL2 too.
    pub(crate) cpu: Duration,
}

/// Returns the time since boot.
pub(crate) fn uptime() -> Duration {
    read(ClockId::Monotonic)
}

fn read(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

impl Time {
    /// Returns the time now.
    pub(crate) fn now() -> Self {
        Self { uptime: uptime(), cpu: read(ClockId::ProcessCPUTime) }
    }

    /// Returns the time since then.
    pub(crate) fn elapsed(self) -> Self {
        let now = Self::now();
        Self { uptime: now.uptime.saturating_sub(self.uptime), cpu: now.cpu.saturating_sub(self.cpu) }
    }
}
