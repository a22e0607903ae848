// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arguments of `report`.

use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

const REPORT_HELP: &str = "\
The file begins with text for people: what this machine supports, VMs, sums of tables and of page frames, whether isolation is intact,
what took how long. Behind it is a capture as of capture --all, as far as the time went: every verb reads the file with -i. The
audit has half of the time at most. What there was no time for is named in the text, and the exit code is then 6.

Examples:
  s2dump report -O report.s2d
  s2dump report -O - --budget 5s > /data/report.s2d
  less report.s2d
  s2dump audit -i report.s2d";

/// Arguments of `report`.
#[derive(Args, Debug)]
#[command(after_help = REPORT_HELP)]
pub(crate) struct Report {
    /// The file to write; `-` is standard output. As of capture: a regular file appears only when it is complete.
    #[arg(short = 'O', long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// The time that it may take: 5s, 500ms.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    pub(crate) budget: Duration,
}

fn parse_time(text: &str) -> Result<Duration, &'static str> {
    let of = |number: &str, unit: fn(u64) -> Duration| number.parse().ok().filter(|&number| number > 0).map(unit);
    let time = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => of(number, Duration::from_millis),
        (None, Some(number)) => of(number, Duration::from_secs),
        (None, None) => None,
    };
    // More than a year is a slip, and sums of it would overflow somewhere.
    time.filter(|time| time.as_secs() < 366 * 86_400).ok_or("a time is 5s or 500ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(parse_time("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_time("500ms"), Ok(Duration::from_millis(500)));
        for text in ["", "s", "5", "0s", "-1s", "5 s", "5m", "99999999999999999999s", "99999999999s"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
