// SPDX-License-Identifier: MIT OR Apache-2.0
//! The columns of the table format: names, widths, and what each says of a row.

use crate::leaf::{self, AnyLeaf};
use crate::meaning;
use crate::model::{Row, TableFacts};
use crate::numbers::Size;
use crate::words::{self, Word};
use s2dump_vmsa::fault::Fault;

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// First and last input address.
    Range,
    /// First input address.
    Start,
    /// Last input address.
    End,
    /// Size for people.
    Size,
    /// Size in bytes.
    Bytes,
    /// Number of entries.
    Count,
    /// Level.
    Level,
    /// Rights.
    Rwx,
    /// Memory type.
    Memory,
    /// Shareability.
    Sh,
    /// Access flag.
    Af,
    /// Page state, annotation or fault.
    State,
    /// First output address.
    Out,
    /// First descriptor.
    Raw,
    /// What kind of entry.
    Kind,
    /// Contiguous bit, and whether its runs are whole.
    Contig,
    /// Dirty bit modifier.
    Dbm,
    /// Software bits 58:55.
    Sw,
    /// Fields of extensions.
    Ext,
    /// Bits no other column shows.
    Other,
}

/// The columns shown unless others are asked for.
pub(crate) const USUAL: [Column; 9] = {
    use Column::*;
    [Range, Size, Level, Rwx, Memory, Sh, Af, State, Out]
};

const ALL: [Column; 20] = {
    use Column::*;
    [
        Range, Size, Level, Rwx, Memory, Sh, Af, State, Out, Start, End, Bytes, Count, Raw, Kind, Contig, Dbm, Sw, Ext,
        Other,
    ]
};

/// No column has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no column `{0}` (there are {names})", names = ALL.map(Column::name).join(", "))]
pub(crate) struct NoSuchColumn(String);

/// Reads a list of columns; one that begins with `+` is appended to the usual ones.
pub(crate) fn parse_columns(text: &str) -> Result<Vec<Column>, NoSuchColumn> {
    let (mut columns, names) = match text.strip_prefix('+') {
        Some(names) => (USUAL.to_vec(), names),
        None => (Vec::new(), text),
    };
    for name in names.split(',') {
        let name = name.trim().trim_start_matches('+');
        let column = ALL.into_iter().find(|column| column.name().eq_ignore_ascii_case(name));
        columns.push(column.ok_or_else(|| NoSuchColumn(name.to_owned()))?);
    }
    Ok(columns)
}

impl Column {
    /// Returns the name used in `--columns`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::Start => "start",
            Self::End => "end",
            Self::Size => "size",
            Self::Bytes => "bytes",
            Self::Count => "count",
            Self::Level => "level",
            Self::Rwx => "rwx",
            Self::Memory => "memory",
            Self::Sh => "sh",
            Self::Af => "af",
            Self::State => "state",
            Self::Out => "out",
            Self::Raw => "raw",
            Self::Kind => "kind",
            Self::Contig => "contig",
            Self::Dbm => "dbm",
            Self::Sw => "sw",
            Self::Ext => "ext",
            Self::Other => "other",
        }
    }

    /// Returns the heading.
    pub(crate) const fn heading(self) -> &'static str {
        match self {
            Self::Range => "INPUT ADDRESSES",
            Self::Start => "START",
            Self::End => "END",
            Self::Size => "SIZE",
            Self::Bytes => "BYTES",
            Self::Count => "COUNT",
            Self::Level => "LV",
            Self::Rwx => "RWX",
            Self::Memory => "MEMORY",
            Self::Sh => "SH",
            Self::Af => "AF",
            Self::State => "STATE",
            Self::Out => "OUTPUT",
            Self::Raw => "RAW",
            Self::Kind => "KIND",
            Self::Contig => "CONTIG",
            Self::Dbm => "DBM",
            Self::Sw => "SW",
            Self::Ext => "EXT",
            Self::Other => "OTHER",
        }
    }

    /// Returns the width; what is wider moves the rest of its row.
    pub(crate) const fn width(self) -> usize {
        match self {
            Self::Range => 37,
            Self::Start | Self::End | Self::Raw | Self::Other => 18,
            Self::Size => 9,
            Self::Bytes => 15,
            Self::Count => 10,
            Self::Level | Self::Af => 2,
            Self::Rwx | Self::Sh | Self::Dbm => 3,
            Self::Memory => 9,
            Self::State => 15,
            Self::Out => 11,
            Self::Kind => 13,
            Self::Sw => 6,
            Self::Contig => 7,
            Self::Ext => 11,
        }
    }

    /// Returns whether it is set flush right.
    pub(crate) const fn is_number(self) -> bool {
        matches!(self, Self::Size | Self::Bytes | Self::Count)
    }

    /// Returns what it says of `row`: one word, `-` for nothing.
    pub(crate) fn cell(self, row: &Row, table: &TableFacts) -> Word {
        // Leaves out what only leaves have.
        let of_leaf = |tell: &dyn Fn(&AnyLeaf<'_>) -> Word| match leaf::of_row(row, table) {
            Some(leaf) => tell(&leaf),
            None => "-".into(),
        };
        let last = row.end().wrapping_sub(1);
        match self {
            Self::Range => format!("{:#018x}-{last:#018x}", row.ia).into(),
            Self::Start => format!("{:#018x}", row.ia).into(),
            Self::End => format!("{last:#018x}").into(),
            Self::Size => Size(row.size()).to_string().into(),
            Self::Bytes => row.size().to_string().into(),
            Self::Count => row.count.to_string().into(),
            Self::Level => format!("L{}", row.level.get()).into(),
            Self::Rwx => of_leaf(&|leaf| leaf.rwx(table)),
            Self::Memory => of_leaf(&|leaf| leaf.memory()),
            Self::Sh => of_leaf(&|leaf| words::shareability(leaf.shareability()).into()),
            Self::Af => of_leaf(&|leaf| if leaf.access_flag() { "af" } else { "-" }.into()),
            Self::Contig => meaning::runs(row, table).map_or("-", meaning::runs_word).into(),
            Self::Ext => of_leaf(&|leaf| leaf.extensions().map_or("-".into(), Word::from)),
            Self::Dbm => of_leaf(&|leaf| if leaf.dirty_bit_modifier() { "dbm" } else { "-" }.into()),
            Self::Sw => of_leaf(&|leaf| format!("{:#06b}", leaf.software_bits()).into()),
            Self::Other => of_leaf(&|leaf| format!("{:#x}", leaf.other_bits()).into()),
            Self::State => meaning::state(row, table),
            Self::Out => output(row, table),
            Self::Raw => format!("{:#018x}", row.raw).into(),
            Self::Kind => meaning::kind(row).into(),
        }
    }
}

/// Returns the first output address; `~` says that it does not run on, `!` that it is larger than the table allows.
fn output(row: &Row, table: &TableFacts) -> Word {
    let Some(oa) = row.oa else {
        return if leaf::of_row(row, table).is_some() { "?" } else { "-" }.into();
    };
    let too_large = leaf::fault_of_row(row, table) == Some(Fault::AddressSize);
    format!("{oa:#x}{}{}", if row.linear { "" } else { "~" }, if too_large { "!" } else { "" }).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plus_appends_and_a_list_replaces() {
        assert_eq!(parse_columns("start,OUT"), Ok(vec![Column::Start, Column::Out]));
        let appended = parse_columns("+raw,count").unwrap();
        assert_eq!(appended[..9], USUAL);
        assert_eq!(appended[9..], [Column::Raw, Column::Count]);
    }

    #[test]
    fn unknown_names_are_told() {
        assert_eq!(parse_columns("start,pa"), Err(NoSuchColumn("pa".into())));
        assert_eq!(parse_columns(""), Err(NoSuchColumn(String::new())));
    }

    #[test]
    fn usual_columns_fit_100_characters() {
        let width: usize = USUAL.iter().map(|column| column.width() + 1).sum();
        assert!(width - 1 <= 100, "{width}");
    }
}
