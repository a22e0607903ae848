// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which columns the table has, and how wide they are.
//!
//! In a pipe both are fixed, so that rows can be written as they come. On a terminal they follow from the first rows: addresses have
//! the digits that the input size needs; what is alike in all of these rows is said once above them; if rows are still too wide, the
//! last address goes, then the size. A later row that is not alike says so behind its last column, because what is above it was
//! written before that row was read. Nothing else is left out: state and output address are what rows are for.

use super::columns::{by_name, Column};
use crate::leaf;
use crate::model::{Row, TableFacts};
use crate::names::Names;
use crate::words::Word;
use std::io::{self, Write};
use std::rc::Rc;

/// Columns, their widths, and what is said once.
pub(crate) struct Layout {
    columns: Vec<(&'static Column, usize)>,
    /// Columns that are left out, with what the first leaf says; `-` if there was none.
    alike: Vec<(&'static Column, Word)>,
    /// Hexadecimal digits of an input address.
    digits: usize,
    names: Rc<Names>,
}

/// Columns that seldom differ within a table.
const SELDOM_DIFFER: [&str; 3] = ["memory", "sh", "af"];

impl Layout {
    /// Returns that of `columns` in a pipe.
    pub(crate) fn fixed(columns: &[&'static Column], names: Rc<Names>) -> Self {
        let columns = columns.iter().map(|&column| (column, column.width)).collect();
        Self { columns, alike: Vec::new(), digits: 16, names }
    }

    /// Returns that of `columns` for lines of `width` characters, if `rows` of `table` are a sample.
    pub(crate) fn fitting(
        width: usize,
        columns: &[&'static Column],
        rows: &[Row],
        table: &TableFacts,
        names: Rc<Names>,
    ) -> Self {
        let digits = usize::from(table.geometry.ia_bits()).div_ceil(4);
        let mut layout = Self { columns: Vec::new(), alike: Vec::new(), digits, names };
        let leaves: Vec<&Row> = rows.iter().filter(|row| leaf::of_row(row, table).is_some()).collect();
        let mut kept = Vec::new();
        for &column in columns {
            let mut cells = leaves.iter().map(|row| column.cell(row, table, &layout.names));
            let first = cells.next().unwrap_or("-".into());
            if SELDOM_DIFFER.contains(&column.name) && cells.all(|cell| cell == first) {
                layout.alike.push((column, first));
            } else {
                kept.push(column);
            }
        }
        layout.columns = layout.measured(kept, rows, table);
        if layout.width() > width {
            let kept = layout
                .columns
                .iter()
                .map(|&(column, _)| if column.name == "range" { by_name("start") } else { column });
            layout.columns = layout.measured(kept.collect(), rows, table);
        }
        if layout.width() > width {
            layout.columns.retain(|(column, _)| column.name != "size");
        }
        layout
    }

    /// Returns `columns` as wide as the widest of their cells.
    fn measured(
        &self,
        columns: Vec<&'static Column>,
        rows: &[Row],
        table: &TableFacts,
    ) -> Vec<(&'static Column, usize)> {
        let width = |column: &'static Column| {
            let cells = rows.iter().map(|row| self.cell(column, row, table).len());
            cells.max().unwrap_or(0).max(column.heading.len())
        };
        columns.into_iter().map(|column| (column, width(column))).collect()
    }

    /// Returns the characters of the widest row.
    fn width(&self) -> usize {
        self.columns.iter().map(|(_, width)| width + 1).sum::<usize>().saturating_sub(1)
    }

    fn cell(&self, column: &'static Column, row: &Row, table: &TableFacts) -> Word {
        let address = |address: u64| format!("{address:#0width$x}", width = self.digits + 2);
        let last = || address(row.end().wrapping_sub(1));
        match column.name {
            "range" => format!("{}-{}", address(row.ia), last()).into(),
            "start" => address(row.ia).into(),
            "end" => last().into(),
            _ => column.cell(row, table, &self.names),
        }
    }

    /// Returns columns, widths and what stands above them.
    pub(crate) fn headings(&self) -> impl Iterator<Item = (&'static Column, usize, &'static str)> + '_ {
        self.columns.iter().map(|&(column, width)| (column, width, column.heading))
    }

    /// Returns columns, widths and what they say of `row`.
    pub(crate) fn cells<'a>(
        &'a self,
        row: &'a Row,
        table: &'a TableFacts,
    ) -> impl Iterator<Item = (&'static Column, usize, Word)> + 'a {
        self.columns.iter().map(|&(column, width)| (column, width, self.cell(column, row, table)))
    }

    /// Says what holds for all rows, or those that do not say otherwise.
    pub(crate) fn write_alike(&self, out: &mut dyn Write, is_all: bool) -> io::Result<()> {
        let words: Vec<&str> = self.alike.iter().map(|(_, word)| word.as_ref()).filter(|&word| word != "-").collect();
        match (words.is_empty(), is_all) {
            (true, _) => Ok(()),
            (false, true) => writeln!(out, "# all: {}", words.join(" ")),
            (false, false) => writeln!(out, "# all that do not say otherwise: {}", words.join(" ")),
        }
    }

    /// Says what `row` has otherwise.
    pub(crate) fn write_other(&self, out: &mut dyn Write, row: &Row, table: &TableFacts) -> io::Result<()> {
        if self.alike.is_empty() || leaf::of_row(row, table).is_none() {
            return Ok(());
        }
        for (column, alike) in &self.alike {
            let word = column.cell(row, table, &self.names);
            if word != *alike {
                write!(out, " {}={word}", column.name)?;
            }
        }
        Ok(())
    }
}
