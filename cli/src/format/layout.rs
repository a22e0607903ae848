// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which columns the table of a dump has.
//!
//! On a terminal, what is alike in all of the first rows is said once above them. A later row that is not alike says so behind its
//! last column, because what is above it was written before that row was read. Where columns stand, and which go: `grid.rs`. State and
//! output address never do: they are what rows are for.

use super::columns::Column;
use super::grid::{Cell, Grid};
use crate::leaf;
use crate::model::{Row, TableFacts};
use crate::names::Names;
use anstyle::Style;
use std::io::{self, Write};
use std::rc::Rc;

/// Columns, where they stand, and what is said once.
pub(crate) struct Layout {
    columns: Vec<&'static Column>,
    grid: Grid,
    /// Columns that are left out, with what the first leaf says; `-` if there was none.
    alike: Vec<(&'static Column, Cell)>,
    names: Rc<Names>,
}

/// Columns that seldom differ within a table.
const SELDOM_DIFFER: [&str; 3] = ["memory", "sh", "af"];

impl Layout {
    /// Returns that of `columns` in a pipe.
    pub(crate) fn fixed(columns: &[&'static Column], names: Rc<Names>) -> Self {
        let grid = Grid::new(columns.iter().map(|column| column.head).collect(), None);
        Self { columns: columns.to_vec(), grid, alike: Vec::new(), names }
    }

    /// Returns that of `columns` for lines of `width` characters, if `rows` of `table` are a sample.
    pub(crate) fn fitting(
        width: usize,
        columns: &[&'static Column],
        rows: &[Row],
        table: &TableFacts,
        names: Rc<Names>,
    ) -> Self {
        let leaves: Vec<&Row> = rows.iter().filter(|row| leaf::of_row(row, table).is_some()).collect();
        let (mut kept, mut alike) = (Vec::new(), Vec::new());
        for &column in columns {
            let mut cells = leaves.iter().map(|row| column.cell(row, table, &names));
            let first = cells.next().unwrap_or("-".into());
            if SELDOM_DIFFER.contains(&column.name) && cells.all(|cell| cell == first) {
                alike.push((column, first));
            } else {
                kept.push(column);
            }
        }
        let grid = Grid::new(kept.iter().map(|column| column.head).collect(), Some(width));
        let grid = grid.with_digits(usize::from(table.geometry.ia_bits()).div_ceil(4));
        let mut layout = Self { columns: kept, grid, alike, names };
        let cells: Vec<Vec<Cell>> = rows.iter().map(|row| layout.cells(row, table)).collect();
        layout.grid.fit(&cells);
        layout
    }

    fn cells(&self, row: &Row, table: &TableFacts) -> Vec<Cell> {
        self.columns.iter().map(|column| column.cell(row, table, &self.names)).collect()
    }

    /// Says what holds for all rows, or those that do not say otherwise, and what columns are.
    pub(crate) fn write_headings(&self, out: &mut dyn Write, is_all: bool, style: Style) -> io::Result<()> {
        let known = |(_, cell): &(_, Cell)| match cell {
            Cell::Word(word) if word != "-" => Some(word.clone()),
            _ => None,
        };
        let words: Vec<_> = self.alike.iter().filter_map(known).collect();
        match (words.is_empty(), is_all) {
            (true, _) => {}
            (false, true) => writeln!(out, "# all: {}", words.join(" "))?,
            (false, false) => writeln!(out, "# all that do not say otherwise: {}", words.join(" "))?,
        }
        self.grid.write_headings(out, style)
    }

    /// Writes what columns say of `row`, each in its style, and what is otherwise than all.
    pub(crate) fn write_row(
        &self,
        out: &mut dyn Write,
        row: &Row,
        table: &TableFacts,
        style: impl Fn(&Column, &Cell) -> Style,
    ) -> io::Result<()> {
        let cells = self.cells(row, table);
        let of = |at: usize| self.columns.get(at).zip(cells.get(at));
        self.grid.write_cells(out, &cells, |at| of(at).map_or(Style::new(), |(column, cell)| style(column, cell)))?;
        if self.alike.is_empty() || leaf::of_row(row, table).is_none() {
            return Ok(());
        }
        for (column, alike) in &self.alike {
            match column.cell(row, table, &self.names) {
                Cell::Word(word) if Cell::Word(word.clone()) != *alike => write!(out, " {}={word}", column.name)?,
                _ => {}
            }
        }
        Ok(())
    }
}
