// SPDX-License-Identifier: MIT OR Apache-2.0
//! The columns of the table format. A column is one entry of [`COLUMNS`], which has all that is known of it.

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
    /// What stands above it.
    pub(crate) heading: &'static str,
    /// Its width; a wider cell moves the rest of its row.
    pub(crate) width: usize,
    /// To which side cells are set flush.
    pub(crate) align: Align,
    cell: Cell,
}

/// What a column says of a row.
enum Cell {
    /// What the row itself does.
    Row(fn(&Row, &TableFacts) -> Word),
    /// What is told beside the table, if anything is.
    Name(fn(&Named<'_>) -> Word),
}

impl Column {
    /// Returns what it says of a row: one word, `-` for nothing, `?` for what is not known.
    pub(crate) fn cell(&self, row: &Row, table: &TableFacts, names: &Names) -> Word {
        match self.cell {
            Cell::Row(cell) => cell(row, table),
            Cell::Name(_) if !names.is_known() => "?".into(),
            Cell::Name(cell) => names.of_row(row).map_or("-".into(), |named| cell(&named)),
        }
    }

    /// Returns whether what it says is told beside the table.
    pub(crate) fn is_name(&self) -> bool {
        matches!(self.cell, Cell::Name(_))
    }
}

/// To which side the cells of a column are set flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words and addresses.
    Left,
    /// Numbers.
    Right,
}

const fn column(
    name: &'static str,
    heading: &'static str,
    width: usize,
    align: Align,
    cell: fn(&Row, &TableFacts) -> Word,
) -> Column {
    Column { name, heading, width, align, cell: Cell::Row(cell) }
}

const fn of_name(name: &'static str, heading: &'static str, width: usize, cell: fn(&Named<'_>) -> Word) -> Column {
    Column { name, heading, width, align: Align::Left, cell: Cell::Name(cell) }
}

/// All columns; the [`USUAL_COUNT`] first are shown unless others are asked for.
static COLUMNS: [Column; 24] = [
    column("range", "INPUT ADDRESSES", 37, Align::Left, |row, _| {
        format!("{:#018x}-{:#018x}", row.ia, last(row)).into()
    }),
    column("size", "SIZE", 9, Align::Right, |row, _| Size(row.size()).to_string().into()),
    column("level", "LV", 2, Align::Left, |row, _| format!("L{}", row.level.get()).into()),
    column("rwx", "RWX", 3, Align::Left, |row, table| of_leaf(row, table, |leaf| leaf.rwx(table))),
    column("memory", "MEMORY", 9, Align::Left, |row, table| of_leaf(row, table, |leaf| leaf.memory(table))),
    column("sh", "SH", 3, Align::Left, |row, table| {
        of_leaf(row, table, |leaf| words::shareability(leaf.shareability()).into())
    }),
    column("af", "AF", 2, Align::Left, |row, table| of_leaf(row, table, |leaf| flag(leaf.access_flag(), "af"))),
    column("state", "STATE", 15, Align::Left, meaning::state),
    column("out", "OUTPUT", 11, Align::Left, output),
    column("start", "START", 18, Align::Left, |row, _| format!("{:#018x}", row.ia).into()),
    column("end", "END", 18, Align::Left, |row, _| format!("{:#018x}", last(row)).into()),
    column("bytes", "BYTES", 15, Align::Right, |row, _| row.size().to_string().into()),
    column("count", "COUNT", 10, Align::Right, |row, _| row.count.to_string().into()),
    column("raw", "RAW", 18, Align::Left, |row, _| format!("{:#018x}", row.raw).into()),
    column("kind", "KIND", 13, Align::Left, |row, _| meaning::kind(row).into()),
    column("contig", "CONTIG", 7, Align::Left, |row, table| {
        meaning::runs(row, table).map_or("-", meaning::runs_word).into()
    }),
    column("dbm", "DBM", 3, Align::Left, |row, table| {
        of_leaf(row, table, |leaf| flag(leaf.dirty_bit_modifier(), "dbm"))
    }),
    column("sw", "SW", 6, Align::Left, |row, table| {
        of_leaf(row, table, |leaf| format!("{:#06b}", leaf.software_bits()).into())
    }),
    column("ext", "EXT", 11, Align::Left, |row, table| {
        of_leaf(row, table, |leaf| leaf.extensions().map_or("-".into(), Word::from))
    }),
    column("other", "OTHER", 18, Align::Left, |row, table| {
        of_leaf(row, table, |leaf| format!("{:#x}", leaf.other_bits()).into())
    }),
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
pub(crate) fn by_name(name: &str) -> &'static Column {
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
        let width: usize = usual().iter().map(|column| column.width + 1).sum();
        assert!(width - 1 <= 100, "{width}");
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
