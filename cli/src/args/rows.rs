// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which rows are wanted: the same options for each verb that prints rows. A verb says which words its states have, and refuses
//! what none of its rows has, because an option that never matches would look like an empty answer.

use crate::filter::{Filter, OwnedBy, Rights, Wanted, STATES};
use crate::numbers;
use clap::builder::PossibleValuesParser;
use clap::{Arg, Args};
use s2dump_vmsa::Level;

/// Which rows are wanted. Each list is of what may fit; with several options all of them must.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Filters {
    /// Only rows with one of these states or annotations: the words of JSON, donated for any of its kind, hole, none (a leaf
    /// without a state), fixmap, fixblock, ring, partly-ring.
    #[arg(long = "state", value_delimiter = ',', value_name = "LIST", value_parser = PossibleValuesParser::new(STATES), hide_possible_values = true)]
    states: Vec<String>,
    /// Only rows of these levels: 3, or L2,L3.
    #[arg(long = "level", value_delimiter = ',', value_name = "LIST", value_parser = numbers::parse_level, allow_hyphen_values = true)]
    levels: Vec<Level>,
    /// Only pages and blocks with these rights, as the RWX column has them, with a dot for any letter: r-x, .w.
    #[arg(long = "rights", value_delimiter = ',', value_name = "LIST", value_parser = Rights::parse, allow_hyphen_values = true)]
    rights: Vec<Rights>,
    /// Only pages that the host gave to these: hyp, guest (any), vm:0x1000, ffa, protected (nobody), unknown.
    #[arg(long = "owner", value_delimiter = ',', value_name = "LIST", value_parser = OwnedBy::parse)]
    owners: Vec<OwnedBy>,
}

impl From<Filters> for Filter {
    fn from(Filters { states, levels, rights, owners }: Filters) -> Self {
        Self { states, levels, rights, owners }
    }
}

/// Which rows are wanted, and whether only what they add up to.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Rows {
    /// Which rows.
    #[command(flatten)]
    filters: Filters,
    /// Leave out the rows: only what they add up to, and what is said before and after them.
    #[arg(long)]
    summary: bool,
}

impl From<Rows> for Wanted {
    fn from(Rows { filters, summary }: Rows) -> Self {
        Self { filter: filters.into(), rows: !summary }
    }
}

/// Makes `--state` take the words of these `lists`.
pub(crate) fn states(arg: Arg, lists: &[&[&'static str]], help: &'static str) -> Arg {
    let mut words: Vec<&str> = lists.concat();
    // A word may be in several lists: the first counts.
    let mut known = std::collections::BTreeSet::new();
    words.retain(|word| known.insert(*word));
    arg.value_parser(PossibleValuesParser::new(words)).help(help).long_help(help)
}

/// Refuses `--level`: page frames are of none.
pub(super) fn no_level(arg: Arg) -> Arg {
    let refuse = |_: &str| Err::<Level, _>("page frames are of no level; entries are: `s2dump dump host --level`");
    arg.hide(true).value_parser(refuse)
}

/// Refuses `--rights`: page frames have none.
pub(super) fn no_rights(arg: Arg) -> Arg {
    let refuse = |_: &str| Err::<Rights, _>("page frames have no rights; entries have: `s2dump dump host --rights`");
    arg.hide(true).value_parser(refuse)
}

/// Refuses `--owner`: a state tells who has a frame, but not to whom the host gave it.
pub(super) fn no_owner(arg: Arg) -> Arg {
    let refuse =
        |_: &str| Err::<OwnedBy, _>("page frames tell no owner; the host's entries do: `s2dump dump host --owner`");
    arg.hide(true).value_parser(refuse)
}
