// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the program prints with `--format ndjson`, as the tests read it.

use crate::expect::{Entry, LeafMap, Run, State};
use anyhow::{bail, ensure, Context as _, Result};
use serde::{Deserialize, Deserializer};

/// A row, or a step of `walk --json`: what the tests look at.
#[derive(Debug, Deserialize)]
pub(super) struct Row {
    #[serde(deserialize_with = "hex")]
    pub(super) start: u64,
    #[serde(deserialize_with = "hex")]
    pub(super) end: u64,
    count: u64,
    level: i8,
    #[serde(default, deserialize_with = "maybe_hex")]
    output: Option<u64>,
    #[serde(default)]
    pub(super) skipped_bytes: u64,
    #[serde(default)]
    pub(super) changed_before: bool,
    attributes: Option<Attributes>,
    state: Option<State>,
    annotation: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Attributes {
    read: bool,
    write: bool,
    execute: Option<String>,
}

/// What is said of a dump after its rows.
#[derive(Debug, Deserialize)]
pub(super) struct Trailer {
    pub(super) complete: bool,
    pub(super) incomplete_reason: Option<String>,
    pub(super) consistency: String,
    pub(super) calls: u64,
    pub(super) verify: String,
    changes: Option<Changes>,
}

#[derive(Debug, Deserialize)]
struct Changes {
    places: usize,
}

/// A dump.
#[derive(Debug)]
pub(super) struct Printed {
    pub(super) rows: Vec<Row>,
    pub(super) trailer: Trailer,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line {
    Header {},
    Range(Row),
    Trailer(Trailer),
}

impl Row {
    /// The run a row stands for; none for a hole.
    pub(super) fn run(&self) -> Result<Option<Run>> {
        let (level, ia, count) = (self.level, self.start, self.count);
        let entry = match (&self.attributes, self.annotation.as_deref()) {
            (None, None) => return Ok(None),
            (None, Some("poisoned")) => Entry { level, ..Entry::invalid(State::Poisoned) },
            (None, Some("mmio-guard")) => Entry { level, ..Entry::invalid(State::MmioGuard) },
            (Some(attributes), None) => Entry {
                level,
                read: attributes.read,
                write: attributes.write,
                execute: attributes.execute.as_deref() == Some("el1+el0"),
                state: self.state.context("a leaf without state")?,
                oa: self.output,
            },
            other => bail!("a row that makes no sense: {other:?}"),
        };
        ensure!(self.end - ia == count * entry.size_bytes(), "{self:?} has another size");
        Ok(Some(Run { ia, count, entry }))
    }
}

impl Printed {
    /// Reads a dump, whole or cut: a header, rows, a trailer.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned()));
        let mut lines = lines.collect::<Result<Vec<Line>>>()?.into_iter();
        ensure!(matches!(lines.next(), Some(Line::Header {})), "begins with no header: {text}");
        let Some(Line::Trailer(trailer)) = lines.next_back() else { bail!("ends with no trailer: {text}") };
        let rows = lines.map(|line| match line {
            Line::Range(row) => Ok(row),
            other => bail!("among the rows: {other:?}"),
        });
        Ok(Self { rows: rows.collect::<Result<_>>()?, trailer })
    }

    /// Unfolds the rows, which must be all.
    pub(super) fn leaves(&self) -> Result<LeafMap> {
        ensure!(self.trailer.complete, "not complete: {:?}", self.trailer);
        let runs = self.rows.iter().filter_map(|row| row.run().transpose());
        Ok(LeafMap::from_runs(&runs.collect::<Result<Vec<_>>>()?))
    }

    /// Returns how many bytes the rows map.
    pub(super) fn mapped_bytes(&self) -> u64 {
        self.rows.iter().filter(|row| row.attributes.is_some()).map(|row| row.end - row.start).sum()
    }

    /// Returns at how many places the table is said to have changed while it was read.
    pub(super) fn changes(&self) -> usize {
        self.trailer.changes.as_ref().map_or(0, |changes| changes.places)
    }
}

fn hex<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    parse_hex(&text).ok_or_else(|| serde::de::Error::custom(format!("no address: {text:?}")))
}

/// Reads an address that may be null.
pub(super) fn maybe_hex<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| parse_hex(&text).ok_or_else(|| serde::de::Error::custom(format!("no address: {text:?}"))))
        .transpose()
}

fn parse_hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::Printed;

    const HEADER: &str = "{\"type\":\"header\"}\n";
    const HOLE: &str =
        "{\"type\":\"range\",\"start\":\"0x0\",\"end\":\"0x1000\",\"count\":1,\"level\":3,\"output\":null}\n";
    const LEAF: &str = "{\"type\":\"range\",\"start\":\"0x1000\",\"end\":\"0x3000\",\"count\":2,\"level\":3,\"output\":\"0x40000000\",\
         \"attributes\":{\"read\":true,\"write\":true,\"execute\":\"none\"},\"state\":\"owned\"}\n";
    const TRAILER: &str =
        "{\"type\":\"trailer\",\"complete\":true,\"incomplete_reason\":null,\"consistency\":\"per-call\",\"calls\":3,\
         \"verify\":\"not-asked\"}\n";

    #[test]
    fn good_dump() {
        let dump = Printed::parse(&[HEADER, HOLE, LEAF, TRAILER].concat()).unwrap();
        assert_eq!((dump.rows.len(), dump.mapped_bytes(), dump.changes()), (2, 0x2000, 0));
        assert_eq!(dump.leaves().unwrap().0.into_keys().collect::<Vec<_>>(), [0x1000, 0x2000]);
        let cut = Printed::parse(&[HEADER, &TRAILER.replace("true", "false")].concat()).unwrap();
        assert!(!cut.trailer.complete && cut.leaves().is_err());
    }

    #[test]
    fn bad_dumps() {
        let wrong = LEAF.replace("0x1000", "1000");
        for lines in [&[][..], &[TRAILER], &[HEADER], &[HEADER, LEAF], &[LEAF, TRAILER], &[HEADER, &wrong, TRAILER]] {
            assert!(Printed::parse(&lines.concat()).is_err(), "{lines:?}");
        }
        let long = Printed::parse(&[HEADER, &LEAF.replace("0x3000", "0x4000"), TRAILER].concat()).unwrap();
        assert!(long.leaves().is_err(), "two pages are no three");
    }
}
