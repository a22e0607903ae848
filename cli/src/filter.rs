// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which rows are wanted: by state, level, rights, owner. Each is a list, of which one must fit; all that are given must fit.
//!
//! Not only rows of a table: also its pages, page frames, and what is not there. What has no level, rights or owner does not fit
//! a list of them.

use crate::leaf;
use crate::meaning;
use crate::model::{Row, TableFacts};
use crate::words;
use s2dump_abi::slot::RecordKind;
use s2dump_vmsa::pkvm::{Frame, Owner};
use s2dump_vmsa::Level;
use std::fmt;

/// The word that `--state` takes of table pages and of entries that lead to one.
pub(crate) const TABLE: &str = "table";

/// The words that `--state` takes: states of leaves, what other entries say, and what addresses are by themselves.
pub(crate) const STATES: [&str; 24] = [
    "owned",
    "shared-owned",
    "shared-borrowed",
    "no-page",
    "tainted",
    "hole",
    "donated",
    "donated-hyp",
    "donated-guest",
    "donated-ffa",
    "donated-protected",
    "mmio-guard",
    "poisoned",
    "locked",
    "idle",
    "invalid",
    "reserved",
    "table-outside",
    "table-loop",
    "none",
    "fixmap",
    "fixblock",
    "ring",
    "partly-ring",
];

/// The words that `--state` takes of page frames.
pub(crate) const FRAME_STATES: [&str; 9] = [
    "owned",
    "shared-owned",
    "shared-borrowed",
    "no-page",
    "tainted",
    "module-owned",
    "module-no-page",
    "unknown",
    "nomap",
];

/// Rights as the column shows them; a dot stands for any letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rights(String);

/// Why text is no rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rights are three letters as the RWX column has them, a dot for any: rwx, r--, .w., r.p; or rw-/---, or pi5")]
pub(crate) struct NotRights;

impl Rights {
    /// Reads rights.
    ///
    /// # Errors
    ///
    /// [`NotRights`] if no row could have them.
    pub(crate) fn parse(text: &str) -> Result<Self, NotRights> {
        let is_letters = |part: &str| {
            let allowed = ["r-.", "w-.", "xpu-."];
            part.chars().count() == 3 && part.chars().zip(allowed).all(|(letter, allowed)| allowed.contains(letter))
        };
        let is_index = text.strip_prefix("pi").is_some_and(|index| index.parse::<u8>().is_ok_and(|index| index < 16));
        let is_rights = match text.split_once('/') {
            Some((el2, el0)) => is_letters(el2) && is_letters(el0),
            None => is_letters(text) || is_index,
        };
        is_rights.then(|| Self(text.to_owned())).ok_or(NotRights)
    }

    /// Returns whether `cell`, rights as the column shows them, are these. Without a slash only those before it count.
    fn fits(&self, cell: &str) -> bool {
        let cell = if self.0.contains('/') { cell } else { cell.split('/').next().unwrap_or(cell) };
        if cell.starts_with("pi") {
            return cell == self.0;
        }
        cell.len() == self.0.len() && cell.chars().zip(self.0.chars()).all(|(has, wants)| wants == '.' || has == wants)
    }
}

/// Whose pages are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnedBy {
    /// The hypervisor's.
    Hyp,
    /// Any guest's.
    Guest,
    /// The guest's with this handle.
    Handle(u16),
    /// The secure world's.
    Ffa,
    /// Those of protected regions, which nobody has.
    Protected,
    /// Those of an owner that is not known.
    Unknown,
}

/// Why text is no owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an owner is hyp, guest (any of them), vm:0x1000 (the one with this handle), ffa, protected or unknown")]
pub(crate) struct NotAnOwner;

impl OwnedBy {
    /// Reads an owner.
    ///
    /// # Errors
    ///
    /// [`NotAnOwner`].
    pub(crate) fn parse(text: &str) -> Result<Self, NotAnOwner> {
        Ok(match text {
            "hyp" => Self::Hyp,
            "guest" => Self::Guest,
            "ffa" => Self::Ffa,
            "protected" => Self::Protected,
            "unknown" => Self::Unknown,
            _ => {
                let digits = text.strip_prefix("vm:0x").filter(|digits| !digits.starts_with('+')).ok_or(NotAnOwner)?;
                Self::Handle(u16::from_str_radix(digits, 16).map_err(|_| NotAnOwner)?)
            }
        })
    }

    fn fits(self, owner: Owner) -> bool {
        match (self, owner) {
            (Self::Hyp, Owner::Hyp)
            | (Self::Guest, Owner::Guest { .. } | Owner::SomeGuest)
            | (Self::Ffa, Owner::Ffa)
            | (Self::Protected, Owner::Protected)
            | (Self::Unknown, Owner::Unknown { .. }) => true,
            (Self::Handle(wanted), Owner::Guest { handle, .. }) => wanted == handle,
            _ => false,
        }
    }
}

impl fmt::Display for OwnedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hyp => f.write_str("hyp"),
            Self::Guest => f.write_str("guest"),
            Self::Handle(handle) => write!(f, "vm:{handle:#x}"),
            Self::Ffa => f.write_str("ffa"),
            Self::Protected => f.write_str("protected"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// Returns the word of [`STATES`] or [`TABLE`] that says most of `row`: what it is by its address, else by itself.
pub(crate) fn state(row: &Row, table: &TableFacts) -> &'static str {
    words::mark(row.mark).or_else(|| own_state(row, table)).unwrap_or("-")
}

fn own_state(row: &Row, table: &TableFacts) -> Option<&'static str> {
    if let Some(leaf) = leaf::of_row(row, table) {
        return leaf.page_state(table).map(words::bare).or(Some("none"));
    }
    match row.kind {
        _ if row.is_hole() => Some("hole"),
        RecordKind::TABLE => Some(TABLE),
        kind => {
            meaning::annotation(row, table).map(|(word, _)| word).or_else(|| words::wrong_kind(kind)).map(words::bare)
        }
    }
}

/// What a verb prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Which rows.
    pub(crate) filter: Filter,
    /// The rows themselves, not only what they add up to.
    pub(crate) rows: bool,
}

/// Which rows are wanted. What is empty lets every row pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// [`STATES`].
    pub(crate) states: Vec<String>,
    /// Levels.
    pub(crate) levels: Vec<Level>,
    /// Rights; only leaves have them.
    pub(crate) rights: Vec<Rights>,
    /// Owners; only pages that the host gave away have one.
    pub(crate) owners: Vec<OwnedBy>,
}

impl Filter {
    /// Returns whether `row` is wanted.
    pub(crate) fn is_wanted(&self, row: &Row, table: &TableFacts) -> bool {
        (self.states.is_empty() || self.has_state(row, table))
            && (self.levels.is_empty() || self.levels.contains(&row.level))
            && (self.rights.is_empty() || self.has_rights(row, table))
            && (self.owners.is_empty() || self.has_owner(row, table))
    }

    /// Returns whether a page of entries of `level` is wanted.
    pub(crate) fn is_table_wanted(&self, level: i8) -> bool {
        (self.states.is_empty() || self.has_word([TABLE]))
            && (self.levels.is_empty() || self.levels.iter().any(|wanted| wanted.get() == level))
            && self.rights.is_empty()
            && self.owners.is_empty()
    }

    /// Returns whether a page frame is wanted: in which state the host or the hypervisor has it, if that is kept and known.
    pub(crate) fn is_frame_wanted(&self, frame: Option<Frame>, is_nomap: bool) -> bool {
        let states = match frame {
            _ if is_nomap => ["nomap"; 2],
            Some(frame) => [words::frame_state(frame.host), words::hyp_state(&frame)].map(words::bare),
            None => ["unknown"; 2],
        };
        self.asks_no_more_than(states)
    }

    /// Returns whether a place without an entry is wanted: it is as good as a hole.
    pub(crate) fn is_absence_wanted(&self) -> bool {
        self.asks_no_more_than(["hole"])
    }

    /// Returns whether what has only a state, one of `words`, is wanted.
    fn asks_no_more_than<'w>(&self, words: impl IntoIterator<Item = &'w str>) -> bool {
        (self.states.is_empty() || self.has_word(words))
            && self.levels.is_empty()
            && self.rights.is_empty()
            && self.owners.is_empty()
    }

    fn has_word<'w>(&self, words: impl IntoIterator<Item = &'w str>) -> bool {
        words.into_iter().any(|word| self.states.iter().any(|wanted| wanted == word))
    }

    fn has_state(&self, row: &Row, table: &TableFacts) -> bool {
        let own = own_state(row, table);
        let any_donation = own.filter(|word| word.starts_with("donated")).map(|_| "donated");
        self.has_word([own, any_donation, words::mark(row.mark)].into_iter().flatten())
    }

    fn has_rights(&self, row: &Row, table: &TableFacts) -> bool {
        let cell = leaf::of_row(row, table).map(|leaf| leaf.rwx(table));
        cell.is_some_and(|cell| self.rights.iter().any(|rights| rights.fits(&cell)))
    }

    fn has_owner(&self, row: &Row, table: &TableFacts) -> bool {
        meaning::owner(row, table).is_some_and(|owner| self.owners.iter().any(|wanted| wanted.fits(owner)))
    }

    /// Returns the options that were given, with their lists.
    pub(crate) fn options(&self) -> Vec<(&'static str, String)> {
        let list = |words: Vec<String>| words.join(",");
        [
            ("state", list(self.states.clone())),
            ("level", list(self.levels.iter().map(|level| level.get().to_string()).collect())),
            ("rights", list(self.rights.iter().map(|rights| rights.0.clone()).collect())),
            ("owner", list(self.owners.iter().map(OwnedBy::to_string).collect())),
        ]
        .into_iter()
        .filter(|(_, words)| !words.is_empty())
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use s2dump_vmsa::pkvm::PageState;

    #[test]
    fn rights_are_those_of_the_column() {
        for text in ["rwx", "r--", "-w-", "..p", "r.u", "rw-/---", "...", "pi15"] {
            assert_eq!(Rights::parse(text), Ok(Rights(text.into())));
        }
        for text in ["", "rw", "rwxx", "xwr", "RWX", "rw-/", "rw-/--", "pi16", "pi", "wxr"] {
            assert_eq!(Rights::parse(text), Err(NotRights), "{text}");
        }
        let fits = |rights: &str, cell: &str| Rights::parse(rights).unwrap().fits(cell);
        assert!(fits("rw-", "rw-") && fits(".w.", "rwx") && fits("rw-", "rw-/r--") && fits("rw-/r--", "rw-/r--"));
        assert!(!fits("rw-", "rwx") && !fits("r--", "rw-/r--") && !fits("rw-/...", "rw-") && !fits("...", "pi5"));
        assert!(fits("pi5", "pi5") && !fits("pi5", "pi15"));
    }

    #[test]
    fn owners() {
        let guest = |handle| Owner::Guest { handle, gfn: 0 };
        assert_eq!(OwnedBy::parse("vm:0x1000"), Ok(OwnedBy::Handle(0x1000)));
        for text in ["", "host", "vm:4242", "vm:0x", "vm:0x10000", "vm:0x+1", "vm:"] {
            assert_eq!(OwnedBy::parse(text), Err(NotAnOwner), "{text}");
        }
        assert!(OwnedBy::Handle(0x1000).fits(guest(0x1000)) && !OwnedBy::Handle(0x1000).fits(guest(0x1001)));
        assert!(OwnedBy::Guest.fits(guest(1)) && !OwnedBy::Guest.fits(Owner::Hyp) && OwnedBy::Hyp.fits(Owner::Hyp));
        assert!(OwnedBy::Guest.fits(Owner::SomeGuest) && !OwnedBy::Handle(0).fits(Owner::SomeGuest));
        for (text, owner) in [("ffa", Owner::Ffa), ("protected", Owner::Protected)] {
            let wanted = OwnedBy::parse(text).unwrap();
            assert!(wanted.fits(owner) && !wanted.fits(Owner::Hyp) && !OwnedBy::Guest.fits(owner), "{text}");
            assert_eq!(wanted.to_string(), text);
        }
    }

    fn filter(options: &str) -> Filter {
        use crate::args::rows::{states, Filters};
        use clap::Parser;
        #[derive(Parser)]
        #[command(mut_arg("states", |arg| states(arg, &[&[TABLE], &STATES, &FRAME_STATES], "")))]
        struct Options {
            #[command(flatten)]
            filters: Filters,
        }
        Options::parse_from(std::iter::once("test").chain(options.split_whitespace())).filters.into()
    }

    fn frame(host: PageState, hyp: PageState) -> Frame {
        Frame { host: Some(host), hyp: Some(hyp), is_hyp_kept: true, refcount: 0, order: 0, share_count: 0 }
    }

    /// Either side may have the state; nothing else of a frame can be asked for.
    #[test]
    fn frames_fit_by_the_state_of_either_side() {
        let shared = Some(frame(PageState::SharedOwned, PageState::SharedBorrowed));
        let is_wanted = |states: &[&str], frame, is_nomap| {
            let states = states.iter().map(|state| (*state).to_owned()).collect();
            Filter { states, ..Filter::default() }.is_frame_wanted(frame, is_nomap)
        };
        assert!(is_wanted(&[], shared, false) && is_wanted(&[], None, false) && is_wanted(&[], None, true));
        assert!(is_wanted(&["shared-owned"], shared, false) && is_wanted(&["owned", "shared-borrowed"], shared, false));
        assert!(!is_wanted(&["owned"], shared, false) && !is_wanted(&["nomap", "unknown"], shared, false));
        assert!(is_wanted(&["nomap"], None, true) && !is_wanted(&["unknown"], None, true));
        assert!(is_wanted(&["unknown"], None, false) && !is_wanted(&["nomap"], None, false), "of no known encoding");
        let android = Frame { is_hyp_kept: false, ..frame(PageState::Owned, PageState::NoPage) };
        assert!(!is_wanted(&["no-page"], Some(android), false), "what is not kept");
        for options in ["--level 3", "--rights ...", "--owner hyp", "--state shared-owned --level 3"] {
            assert!(!filter(options).is_frame_wanted(shared, false), "{options}");
        }
    }

    #[test]
    fn table_pages_fit_by_level_and_one_word() {
        for options in ["", "--state table", "--level 2", "--level 1,2 --state table,hole"] {
            assert!(filter(options).is_table_wanted(2), "{options}");
        }
        for options in ["--state hole", "--level 1,3", "--state table --level 3", "--rights ...", "--owner hyp"] {
            assert!(!filter(options).is_table_wanted(2), "{options}");
        }
    }

    #[test]
    fn where_nothing_is_only_hole_fits() {
        for options in ["", "--state hole", "--state owned,hole"] {
            assert!(filter(options).is_absence_wanted(), "{options}");
        }
        for options in ["--state none", "--state hole --level 3", "--rights ...", "--owner hyp"] {
            assert!(!filter(options).is_absence_wanted(), "{options}");
        }
    }
}
