// SPDX-License-Identifier: MIT OR Apache-2.0
//! The columns of the table format. A column is one entry of [`COLUMNS`], which has all that is known of it.

use super::grid::{Cell, Head};
use crate::leaf::{self, AnyLeaf};
use crate::meaning;
use crate::model::{Row, TableFacts};
use crate::names::{Named, Names};
use crate::numbers::Size;
use crate::words::{self, Word};
use s2dump_vmsa::fault::Fault;
use std::fmt;

/// A column.
pub(crate) struct Column {
    /// The name used in `--columns`.
    pub(crate) name: &'static str,
    /// How it stands in a table.
    pub(crate) head: Head,
    tell: Tell,
}

/// What a column says of a row.
enum Tell {
    /// What the row itself does.
    Row(fn(&Row, &TableFacts) -> Word),
    /// Where it is.
    Place(fn(&Row) -> Cell),
    /// What is told beside the table, if anything is.
    Name(fn(&Named<'_>) -> Word),
}

impl Column {
    /// Returns what it says of a row: one word, `-` for nothing, `?` for what is not known; or where it is.
    pub(crate) fn cell(&self, row: &Row, table: &TableFacts, names: &Names) -> Cell {
        match self.tell {
            Tell::Row(tell) => tell(row, table).into(),
            Tell::Place(tell) => tell(row),
            Tell::Name(_) if !names.is_known() => "?".into(),
            Tell::Name(tell) => names.of_row(row).map_or("-".into(), |named| tell(&named).into()),
        }
    }

    /// Returns whether what it says is told beside the table.
    pub(crate) fn is_name(&self) -> bool {
        matches!(self.tell, Tell::Name(_))
    }
}

const fn words(name: &'static str, heading: &'static str, width: usize, tell: fn(&Row, &TableFacts) -> Word) -> Column {
    Column { name, head: Head::words(heading, width), tell: Tell::Row(tell) }
}

const fn numbers(
    name: &'static str,
    heading: &'static str,
    width: usize,
    tell: fn(&Row, &TableFacts) -> Word,
) -> Column {
    Column { name, head: Head::numbers(heading, width), tell: Tell::Row(tell) }
}

const fn place(name: &'static str, head: Head, tell: fn(&Row) -> Cell) -> Column {
    Column { name, head, tell: Tell::Place(tell) }
}

const fn of_name(name: &'static str, heading: &'static str, width: usize, tell: fn(&Named<'_>) -> Word) -> Column {
    Column { name, head: Head::words(heading, width), tell: Tell::Name(tell) }
}

/// All columns; the [`USUAL_COUNT`] first are shown unless others are asked for.
static COLUMNS: [Column; 24] = [
    place("range", Head::range("INPUT ADDRESSES").goes(1), |row| Cell::Range(row.ia, last(row))),
    Column {
        name: "size",
        head: Head::numbers("SIZE", 9).goes(2),
        tell: Tell::Row(|row, _| Size(row.size()).to_string().into()),
    },
    words("level", "LV", 2, |row, _| format!("L{}", row.level.get()).into()),
    words("rwx", "RWX", 3, |row, table| of_leaf(row, table, |leaf| leaf.rwx(table))),
    words("memory", "MEMORY", 9, |row, table| of_leaf(row, table, |leaf| leaf.memory(table))),
    words("sh", "SH", 3, |row, table| of_leaf(row, table, |leaf| words::shareability(leaf.shareability()).into())),
    words("af", "AF", 2, |row, table| of_leaf(row, table, |leaf| flag(leaf.access_flag(), "af"))),
    words("state", "STATE", 15, meaning::state),
    words("out", "OUTPUT", 11, output),
    place("start", Head::address("START"), |row| Cell::Address(row.ia)),
    place("end", Head::address("END"), |row| Cell::Address(last(row))),
    numbers("bytes", "BYTES", 15, |row, _| row.size().to_string().into()),
    numbers("count", "COUNT", 10, |row, _| row.count.to_string().into()),
    words("raw", "RAW", 18, |row, _| format!("{:#018x}", row.raw).into()),
    words("kind", "KIND", 13, |row, _| meaning::kind(row).into()),
    words("contig", "CONTIG", 7, |row, table| meaning::runs(row, table).map_or("-", meaning::runs_word).into()),
    words("dbm", "DBM", 3, |row, table| of_leaf(row, table, |leaf| flag(leaf.dirty_bit_modifier(), "dbm"))),
    words("sw", "SW", 6, |row, table| of_leaf(row, table, |leaf| format!("{:#06b}", leaf.software_bits()).into())),
    words("ext", "EXT", 11, |row, table| of_leaf(row, table, |leaf| leaf.extensions().map_or("-".into(), Word::from))),
    words("other", "OTHER", 18, |row, table| of_leaf(row, table, |leaf| format!("{:#x}", leaf.other_bits()).into())),
    of_name("slot", "SLOT", 4, |named| match named.span.memory {
        Some(memory) => maybe_partly(memory.id.to_string(), named),
        None => "-".into(),
    }),
    of_name("hva", "HVA", 18, |named| named.hva().map_or("-".into(), |hva| format!("{hva:#018x}").into())),
    of_name("backing", "BACKING", 16, |named| if named.span.memory.is_some() { name(named) } else { "-".into() }),
    of_name("name", "NAME", 16, name),
];

/// Returns the name as one word.
fn name(named: &Named<'_>) -> Word {
    let Some(text) = &named.span.text else { return "?".into() };
    maybe_partly(text.replace(char::is_whitespace, "_"), named)
}

/// Says it if a part of the row is not in what is named.
fn maybe_partly(text: String, named: &Named<'_>) -> Word {
    if named.is_whole { text } else { text + ",partly" }.into()
}

/// Those that a person wants who asks for names.
pub(crate) fn of_names() -> impl Iterator<Item = &'static Column> {
    ["slot", "hva", "name"].into_iter().map(by_name)
}

const USUAL_COUNT: usize = 9;

/// Returns the column called `name`, or the first if there is none.
fn by_name(name: &str) -> &'static Column {
    COLUMNS.iter().find(|column| column.name == name).unwrap_or(&COLUMNS[0])
}

/// Returns the columns shown unless others are asked for.
pub(crate) fn usual() -> Vec<&'static Column> {
    COLUMNS.iter().take(USUAL_COUNT).collect()
}

/// No column has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no column `{0}` (there are {names})", names = COLUMNS.each_ref().map(|column| column.name).join(", "))]
pub(crate) struct NoSuchColumn(String);

/// Reads a list of columns; one that begins with `+` is appended to the usual ones.
pub(crate) fn parse_columns(text: &str) -> Result<Vec<&'static Column>, NoSuchColumn> {
    let (mut columns, names) = match text.strip_prefix('+') {
        Some(names) => (usual(), names),
        None => (Vec::new(), text),
    };
    for name in names.split(',') {
        let name = name.trim().trim_start_matches('+');
        let column = COLUMNS.iter().find(|column| column.name.eq_ignore_ascii_case(name));
        columns.push(column.ok_or_else(|| NoSuchColumn(name.to_owned()))?);
    }
    Ok(columns)
}

// Names tell columns apart.
impl PartialEq for Column {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Column {}

impl fmt::Debug for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Returns the last input address of `row`.
fn last(row: &Row) -> u64 {
    row.end().wrapping_sub(1)
}

/// Returns what only leaves have.
fn of_leaf(row: &Row, table: &TableFacts, tell: impl Fn(&AnyLeaf<'_>) -> Word) -> Word {
    match leaf::of_row(row, table) {
        Some(leaf) => tell(&leaf),
        None => "-".into(),
    }
}

fn flag(is_set: bool, name: &'static str) -> Word {
    if is_set { name } else { "-" }.into()
}

/// Returns the first output address; `,scattered` says that it does not run on, `!` that it is larger than the table allows.
fn output(row: &Row, table: &TableFacts) -> Word {
    let Some(oa) = row.oa else {
        return if leaf::of_row(row, table).is_some() { "?" } else { "-" }.into();
    };
    let too_large = leaf::fault_of_row(row, table) == Some(Fault::AddressSize);
    format!("{oa:#x}{}{}", if too_large { "!" } else { "" }, if row.linear { "" } else { ",scattered" }).into()
}

#[cfg(test)]
mod tests {
    use super::super::grid::Grid;
    use super::*;
    use clap::CommandFactory;

    fn names(columns: &[&Column]) -> Vec<&'static str> {
        columns.iter().map(|column| column.name).collect()
    }

    #[test]
    fn plus_appends_and_a_list_replaces() {
        assert_eq!(names(&parse_columns("start,OUT").unwrap()), ["start", "out"]);
        let appended = parse_columns("+raw,count").unwrap();
        assert_eq!(appended[..USUAL_COUNT], usual());
        assert_eq!(names(&appended[USUAL_COUNT..]), ["raw", "count"]);
    }

    #[test]
    fn unknown_names_are_told() {
        assert_eq!(parse_columns("start,pa"), Err(NoSuchColumn("pa".into())));
        assert_eq!(parse_columns(""), Err(NoSuchColumn(String::new())));
    }

    #[test]
    fn usual_columns_fit_100_characters() {
        let width = Grid::new(usual().iter().map(|column| column.head).collect(), None).row_width();
        assert!(width <= 100, "{width}");
    }

    #[test]
    fn names_are_different_and_in_the_help() {
        let help = crate::args::Cli::command().find_subcommand("dump").unwrap().get_after_help().unwrap().to_string();
        let known: Vec<&str> =
            help.lines().filter(|line| line.starts_with("Columns:") || line.starts_with("         ")).collect();
        for (at, column) in COLUMNS.iter().enumerate() {
            assert!(!COLUMNS[..at].contains(column), "{column:?}");
            assert!(known.iter().any(|line| line.split(' ').any(|word| word == column.name)), "{column:?}");
        }
    }
}
