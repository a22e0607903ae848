// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a report is to be.

use super::Output;
use crate::args::report::Report;
use std::time::Duration;

/// Where a report goes, and how long it may take.
#[derive(Debug)]
pub(crate) struct ReportPlan {
    /// Where it goes.
    pub(crate) output: Output,
    /// The time that it may take.
    pub(crate) budget: Duration,
}

impl ReportPlan {
    /// Decides what `report` asks for.
    pub(super) fn new(report: Report) -> Self {
        Self { output: Output::new(report.output), budget: report.budget }
    }
}
