// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where and when a capture was made: a slot of text at its beginning, which only this program writes and reads.
//!
//! Readers that do not know the kind pass over it, as over any other. It is told, never relied on: who makes a capture by hand can
//! write anything, and captures of before have none.

use crate::frame::{text_slot, MOST_TEXT};
use crate::source::system::System;
use crate::words;
use s2dump_abi::slot::SlotKind;
use s2dump_abi::target::Target;
use std::fmt;
use std::time::SystemTime;

/// Lines of a word, a space and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin(String);

impl Origin {
    /// Tells of this machine, now.
    pub(crate) fn here() -> Self {
        let system = System::read();
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let lines = [
            ("time", Some(utc(seconds))),
            ("host", system.host),
            ("kernel", system.kernel),
            ("boot", system.boot_id),
            ("s2dump", Some(crate::VERSION.to_owned())),
        ];
        let known = lines.into_iter().filter_map(|(word, text)| Some(format!("{word} {}\n", text?)));
        Self(known.collect())
    }

    /// Returns the slot that tells it.
    pub(crate) fn to_slot(&self) -> Vec<u8> {
        text_slot(SlotKind::ORIGIN, Target(0), 0, self.0.as_bytes())
    }

    /// Reads the records of such a slot. What is no text for a terminal is replaced.
    pub(crate) fn from_records(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let plain = |c: char| if c == '\n' { c } else { words::shown(c) };
        let mut text: String = text.chars().map(plain).take(MOST_TEXT).collect();
        while text.ends_with("\n\n") {
            text.pop();
        }
        Self(text)
    }

    fn line(&self, word: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '))
    }

    /// Says that two readings are of two boots, if they tell and it is so.
    pub(crate) fn of_two_boots(origins: [Option<&Self>; 2]) -> Option<String> {
        let [old, new] = origins.map(|origin| origin.and_then(|origin| origin.line("boot")));
        let is_so = old.is_some() && new.is_some() && old != new;
        is_so.then(|| "these are of two boots: a VM of one is none of the other, whatever its name".into())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_unknown = |word| self.line(word).unwrap_or("unknown");
        write!(
            f,
            "captured {} on {}, kernel {}, boot {}, by s2dump {}",
            or_unknown("time"),
            or_unknown("host"),
            or_unknown("kernel"),
            or_unknown("boot"),
            or_unknown("s2dump")
        )
    }
}

/// Returns `seconds` since 1970 as RFC 3339 writes a time in UTC.
fn utc(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years from March on, in eras of 400: leap days are then at their ends.
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ];
        for (seconds, text) in cases {
            assert_eq!(utc(seconds), text);
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let origin = Origin("time now\nhost board 7\nboot abc\n".into());
        let slot = origin.to_slot();
        assert_eq!(slot.len() % 8, 0);
        let read = Origin::from_records(&slot[crate::frame::HEADER_BYTES..]);
        assert_eq!(read, origin);
        assert_eq!(read.to_string(), "captured now on board 7, kernel unknown, boot abc, by s2dump unknown");
        assert_eq!(Origin::from_records(b"host \x1b[31mred\nboot").to_string().find('\x1b'), None);
    }
}
