// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arguments of `watch`.

use super::rows::{self, Filters};
use super::Selector;
use crate::filter::{FRAME_STATES, STATES};
use clap::builder::RangedU64ValueParser;
use clap::Args;

const WATCH_HELP: &str = "\
Tables are read one after the other, each in bounded calls, and compared with the reading before. A line is one range that changed:
seconds since boot as the kernel's log has them, table, input addresses, what was there and what is. What changes and changes back
between two readings is not seen, nor in which order the changes of one reading happened.

Ctrl-C ends it with a line that tells how often was read, how long that took and what share of a CPU it was.

Examples:
  s2dump watch
  s2dump watch vm:0x1000 --interval 200
  s2dump watch --state shared-owned,shared-borrowed --ndjson
  s2dump watch host --count 60";

const OF_CHANGES: &str = "\
Only changes from or to one of these states or annotations: the words of dump (hole: of nothing), or those of frames, of the \
host or of the hypervisor";

/// Arguments of `watch`.
#[derive(Args, Debug)]
#[command(after_help = WATCH_HELP)]
#[command(mut_arg("states", |arg| rows::states(arg, &[&STATES, &FRAME_STATES], OF_CHANGES)))]
pub(crate) struct Watch {
    /// The table: host, hyp, vm:0x1000, ...; all, with the states of page frames.
    #[arg(default_value = "all")]
    pub(crate) target: Selector,
    /// Milliseconds from one reading to the next, if the share allows it.
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    pub(crate) interval: u32,
    /// The most that a reading may take of one CPU, in percent of the time up to the next one, which waits for that.
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = RangedU64ValueParser::<u32>::new().range(1..=100))]
    pub(crate) share: u32,
    /// End after so many readings.
    #[arg(short, long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(2..))]
    pub(crate) count: Option<u64>,
    /// Which changes.
    #[command(flatten)]
    pub(crate) filters: Filters,
    /// Print JSON, one object in each line; errors are JSON too, on standard error.
    #[arg(long, visible_alias = "json")]
    pub(crate) ndjson: bool,
}
