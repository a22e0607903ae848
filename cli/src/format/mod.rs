// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rows to bytes. Formats are pure and streaming: each writes a row as it comes and keeps nothing that grows with the dump.

pub(crate) mod audit;
pub(crate) mod columns;
pub(crate) mod diff;
pub(crate) mod frames;
pub(crate) mod grid;
pub(crate) mod hex;
pub(crate) mod json;
pub(crate) mod json_row;
mod layout;
pub(crate) mod map;
pub(crate) mod ptdump;
pub(crate) mod rmap;
mod said;
pub(crate) mod stat;
pub(crate) mod table;
pub(crate) mod vms;
pub(crate) mod walk;
pub(crate) mod watch;

use crate::model::{Missing, Outcome, Row, TableFacts, IMAGE};
use crate::names::Names;
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::VmRecord;
use std::fmt;
use std::io::{self, Write};
use std::rc::Rc;

/// What is known when a dump begins.
pub(crate) struct Heading {
    /// The table.
    pub(crate) table: TableFacts,
    /// The VM, if a list was read too.
    pub(crate) vm: Option<VmRecord>,
    /// Rows also break where the output address does not run on.
    pub(crate) exact: bool,
    /// Color may be used.
    pub(crate) color: bool,
    /// Headings and comment lines are wanted.
    pub(crate) headings: bool,
    /// Which rows were asked for: options and their lists.
    pub(crate) filter: Vec<(&'static str, String)>,
    /// The rows themselves are wanted.
    pub(crate) rows: bool,
    /// What is known of the input addresses, if that is wanted.
    pub(crate) names: Rc<Names>,
}

/// What is known when a dump has ended.
#[derive(Clone, Debug)]
pub(crate) struct Trailer {
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// Rows written.
    pub(crate) rows: u64,
    /// Rows of holes that were left out, if that was asked for.
    pub(crate) holes: Option<u64>,
    /// What came of the second pass, if one was asked for.
    pub(crate) verified: Option<Verified>,
    /// Tables an image does not have.
    pub(crate) missing: Missing,
    /// Where the table was seen to change while it was read.
    pub(crate) changes: Changes,
    /// Issues the reader had.
    pub(crate) issues: u64,
    /// What stopped the source, or kept it from reading what is there.
    pub(crate) cause: Option<String>,
}

/// What came of a second pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verified {
    /// Both digests are equal.
    Same,
    /// The second pass came to no end.
    Failed,
    /// There was none, because the first did not read all.
    Skipped,
    /// They differ.
    Changed {
        /// Of the pass whose rows were written.
        first: u64,
        /// Of the pass after.
        second: u64,
    },
}

/// How much of the dump was one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consistency {
    /// One call: all that was asked for was read under the table's lock.
    Atomic,
    /// So many calls, each under the lock. Between two of them the table may change; the second tells where it was seen to.
    PerCall(u64, Changes),
    /// One call under the lock, which is not all that was asked for.
    OneOfSeveral,
    /// So many calls while the VM was being torn down.
    Dying(u64),
    /// No call gave an answer.
    Nothing,
    /// From an image of memory, which may be of no one moment itself.
    Image,
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Atomic => write!(f, "read in one call under the table's lock: atomic"),
            Self::PerCall(calls, changes) => {
                write!(f, "read in {calls} calls, each atomic under the table's lock; the whole is not atomic")?;
                match changes.first {
                    Some(first) if changes.places == 1 => {
                        write!(f, ": the table changed at {first:#x} between two of them")
                    }
                    Some(first) => {
                        write!(f, ": the table changed at {} places between calls, first at {first:#x}", changes.places)
                    }
                    None => Ok(()),
                }
            }
            Self::OneOfSeveral => write!(f, "read in one call under the table's lock, which is not all: not atomic"),
            Self::Dying(1) => write!(f, "read in one call while the VM was being torn down"),
            Self::Dying(calls) => write!(f, "read in {calls} calls while the VM was being torn down"),
            Self::Nothing => write!(f, "nothing was read"),
            Self::Image => write!(f, "read from an image of memory: as consistent as that is"),
        }
    }
}

/// Where a table was seen to change between two calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// At how many places.
    pub(crate) places: u64,
    /// The first of them.
    pub(crate) first: Option<u64>,
}

impl Changes {
    /// Counts the change at the start of `row`, if there is one.
    pub(crate) fn add(&mut self, row: &Row) {
        if row.changed.at_start {
            self.places += 1;
            self.first = self.first.or(Some(row.ia));
        }
    }
}

impl Trailer {
    /// Returns the consistency the rows have.
    pub(crate) fn consistency(&self) -> Consistency {
        match self.outcome.calls {
            _ if self.outcome.target == IMAGE => Consistency::Image,
            0 => Consistency::Nothing,
            calls if self.outcome.is_dying => Consistency::Dying(calls),
            1 if self.incomplete().is_none() => Consistency::Atomic,
            1 => Consistency::OneOfSeveral,
            calls => Consistency::PerCall(calls, self.changes),
        }
    }

    /// Returns why the dump is not complete, or `None` if it is.
    pub(crate) fn incomplete(&self) -> Option<String> {
        if self.cause.is_some() {
            return self.cause.clone();
        }
        match self.outcome.status {
            _ if self.outcome.is_dying => Some("the VM is being torn down, so pages that it had may be missing".into()),
            None => Some("the end is missing".into()),
            Some(Status::VM_GONE) => Some("the VM went away".into()),
            Some(Status::OK) if !self.outcome.covered => Some("not all that was asked for is there".into()),
            Some(Status::OK) if self.missing.tables > 0 => Some(self.missing.to_string()),
            Some(Status::OK) if self.issues > 0 => Some(format!("problems in the input: {}", self.issues)),
            Some(Status::OK) => None,
            Some(Status(other)) => Some(format!("ended with status {other}")),
        }
    }
}

/// A way to write a dump.
pub(crate) trait Format {
    /// Writes what comes before the rows.
    fn begin(&mut self, out: &mut dyn Write, heading: &Heading) -> io::Result<()>;
    /// Writes a row.
    fn row(&mut self, out: &mut dyn Write, row: &Row) -> io::Result<()>;
    /// Takes a table page, by the entry that leads to it. It comes before the rows of that page, and may come twice in a row.
    fn table_page(&mut self, _: &Row) {}
    /// Is told that table pages are told, all but the root.
    fn tells_tables(&mut self) {}
    /// Writes what comes after the rows.
    fn end(&mut self, out: &mut dyn Write, trailer: &Trailer) -> io::Result<()>;
    /// Returns whether [`Self::end`] tells the consistency. If not, a note on standard error does.
    fn tells_consistency(&self) -> bool;
    /// Returns whether its rows can show entries that no translation uses. If not, a note tells how many there are.
    fn tells_faults(&self) -> bool {
        true
    }
}
