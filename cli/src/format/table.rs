// SPDX-License-Identifier: MIT OR Apache-2.0
//! The default format: aligned rows, one word per column, `-` for absent; what is no row begins with `#`.
//!
//! In a pipe rows are written as they come, in columns of fixed widths. On a terminal the first of them are held until the layout
//! that fits is known (`layout.rs`).

use super::columns::Column;
use super::grid::{Cell, MOST_HELD};
use super::layout::Layout;
use super::{Format, Heading, Trailer, Verified};
use crate::leaf;
use crate::meaning;
use crate::model::{vm_name, Row, TableFacts};
use crate::names::Names;
use crate::numbers::Size;
use crate::registers::Register;
use crate::words;
use anstyle::{AnsiColor, Style};
use s2dump_abi::slot::RecordKind;
use s2dump_abi::target::Target;
use s2dump_vmsa::Regime;
use std::io::{self, Write};
use std::rc::Rc;

/// Writes the table.
pub(crate) struct TableFormat {
    columns: Vec<&'static Column>,
    /// Characters of a line of the terminal that is to be fitted.
    fits: Option<usize>,
    /// Rows that come before the layout is known.
    held: Vec<Row>,
    layout: Option<Layout>,
    names: Rc<Names>,
    table: Option<TableFacts>,
    color: bool,
    headings: bool,
    rows: bool,
    totals: Totals,
}

impl TableFormat {
    /// Writes `columns`, so that they fit lines of so many characters if that is wanted.
    pub(crate) fn new(columns: Vec<&'static Column>, fits: Option<usize>) -> Self {
        Self {
            columns,
            fits,
            held: Vec::new(),
            layout: None,
            names: Rc::default(),
            table: None,
            color: false,
            headings: true,
            rows: true,
            totals: Totals::default(),
        }
    }

    /// Takes `layout`, and writes what stands above the rows.
    fn settle(&mut self, out: &mut dyn Write, layout: Layout, is_all: bool) -> io::Result<()> {
        if self.headings {
            layout.write_headings(out, is_all, if self.color { Style::new().bold() } else { Style::new() })?;
        }
        self.layout = Some(layout);
        Ok(())
    }

    /// Writes the rows that were held, in the layout that they have; `is_all` if there are no more.
    fn write_held(&mut self, out: &mut dyn Write, is_all: bool) -> io::Result<()> {
        let (Some(table), Some(width), None) = (self.table, self.fits, &self.layout) else { return Ok(()) };
        let held = std::mem::take(&mut self.held);
        let layout = Layout::fitting(width, &self.columns, &held, &table, Rc::clone(&self.names));
        self.settle(out, layout, is_all)?;
        held.iter().try_for_each(|row| self.write_row(out, row, &table))
    }

    fn write_row(&self, out: &mut dyn Write, row: &Row, table: &TableFacts) -> io::Result<()> {
        let Some(layout) = &self.layout else { return Ok(()) };
        if row.changed.at_start && self.headings {
            writeln!(out, "# the table changed here while it was read")?;
        }
        let style = if self.color && row.is_hole() { Style::new().dimmed() } else { Style::new() };
        write!(out, "{style}")?;
        layout.write_row(
            out,
            row,
            table,
            |column, cell| if self.color { cell_style(column, cell) } else { Style::new() },
        )?;
        writeln!(out, "{style:#}")
    }
}

/// Returns the style of a cell. Red is for what is wrong, which is shouted.
fn cell_style(column: &Column, cell: &Cell) -> Style {
    let plain = Style::new();
    let Cell::Word(word) = cell else { return plain };
    let color = |color: AnsiColor| plain.fg_color(Some(color.into()));
    match (column.name, word.as_ref()) {
        // A file may be called anything.
        _ if column.is_name() => plain,
        (_, word) if word.contains('!') => color(AnsiColor::Red).bold(),
        ("state", "owned") => color(AnsiColor::Green),
        ("state", "shared-owned") => color(AnsiColor::Yellow),
        ("state", "shared-borrowed") => color(AnsiColor::Cyan),
        ("state", "poisoned") => color(AnsiColor::Magenta),
        _ => plain,
    }
}

impl Format for TableFormat {
    fn begin(&mut self, out: &mut dyn Write, heading: &Heading) -> io::Result<()> {
        (self.table, self.names) = (Some(heading.table), Rc::clone(&heading.names));
        self.color = heading.color;
        self.headings = heading.headings;
        self.rows = heading.rows;
        if heading.headings {
            write_title(out, heading)?;
        }
        // Without headings nothing can be said above the rows.
        if !heading.rows || self.fits.is_some() && heading.headings {
            return Ok(());
        }
        let layout = Layout::fixed(&self.columns, Rc::clone(&self.names));
        self.settle(out, layout, true)
    }

    fn row(&mut self, out: &mut dyn Write, row: &Row) -> io::Result<()> {
        let Some(table) = self.table else { return Ok(()) };
        self.totals.add(row, &table);
        if !self.rows {
            return Ok(());
        }
        if self.layout.is_some() {
            return self.write_row(out, row, &table);
        }
        self.held.push(*row);
        if self.held.len() < MOST_HELD {
            return Ok(());
        }
        self.write_held(out, false)
    }

    fn end(&mut self, out: &mut dyn Write, trailer: &Trailer) -> io::Result<()> {
        if !self.headings {
            return Ok(());
        }
        if self.rows {
            self.write_held(out, true)?;
        }
        self.totals.write(out)?;
        if let Some(holes) = trailer.holes {
            writeln!(out, "# left out: {} where nothing is mapped (--mapped)", plural(holes, "row"))?;
        }
        write!(out, "# {}", trailer.consistency())?;
        match trailer.verified {
            Some(Verified::Same) => writeln!(out, "; a second pass found it unchanged")?,
            Some(Verified::Changed { .. }) => writeln!(out, "; a second pass found it CHANGED")?,
            Some(Verified::Failed) => writeln!(out, "; a second pass came to no end")?,
            Some(Verified::Skipped) => writeln!(out, "; no second pass was made")?,
            None => writeln!(out)?,
        }
        if let Some(hold) = trailer.outcome.hold.text() {
            writeln!(out, "# {hold}")?;
        }
        match trailer.incomplete() {
            Some(why) => writeln!(out, "# INCOMPLETE: {why}"),
            None => Ok(()),
        }
    }

    fn tells_consistency(&self) -> bool {
        self.headings
    }
}

pub(crate) fn write_title(out: &mut dyn Write, heading: &Heading) -> io::Result<()> {
    let table = &heading.table;
    let geometry = &table.geometry;
    write!(out, "# {}", table.name())?;
    if let Some(vm) = &heading.vm {
        match vm_name(vm) {
            Some(name) => write!(out, " ({name}, pid {})", vm.pid)?,
            None => write!(out, " (pid {})", vm.pid)?,
        }
    }
    writeln!(
        out,
        "{}: {}-bit input, {}-bit output, {} pages, levels {} to 3",
        match (table.geometry.regime(), table.is_image(), table.is_protected()) {
            _ if table.target == Target::HOST => ", the host's stage 2",
            (Regime::El2, ..) => ", stage 1 of EL2",
            (Regime::El2And0, ..) => ", stage 1 of EL2&0",
            (Regime::Stage2, true, _) => "",
            (Regime::Stage2, false, true) => ", protected",
            (Regime::Stage2, false, false) => ", ordinary",
        },
        geometry.ia_bits(),
        geometry.pa_bits(),
        Size(1 << geometry.granule().page_shift()),
        geometry.start_level().get(),
    )?;
    writeln!(
        out,
        "# {} {:#x}, root {:#x}, {}{}, encoding {}, {} rows",
        table.register_name(),
        table.register,
        table.root,
        match (table.register_name(), table.wxn) {
            (Register::Vtcr, _) => format!("vmid {}, ", table.vmid),
            (Register::Tcr, true) => "wxn, ".into(),
            (Register::Tcr, false) => "wxn taken as clear, ".into(),
        },
        feature_names(table),
        words::encoding_name(table.encoding),
        if heading.exact { "exact" } else { "folded" },
    )?;
    write_filter(out, &heading.filter)
}

/// Says which rows were asked for by `filter`, options and their lists, if not all.
pub(super) fn write_filter(out: &mut dyn Write, filter: &[(&'static str, String)]) -> io::Result<()> {
    let options: Vec<String> = filter.iter().map(|(option, list)| format!("{option} {list}")).collect();
    match options.is_empty() {
        true => Ok(()),
        false => writeln!(out, "# only rows of {}", options.join("; ")),
    }
}

/// Returns the names of the features decoding depends on.
fn feature_names(table: &TableFacts) -> String {
    let known = table.feature_names();
    if known.is_empty() {
        "no features".into()
    } else {
        known.join(" ")
    }
}

/// What the footer sums up. It does not grow with the dump, because there are only a handful of states.
#[derive(Default)]
struct Totals {
    entries: [u64; 5],
    mapped_bytes: u64,
    states: Vec<(&'static str, u64)>,
    other: Vec<(&'static str, u64)>,
    faults: Vec<(&'static str, u64)>,
    jumping: u64,
    broken: u64,
    unshown: u64,
    rows: u64,
}

impl Totals {
    fn add(&mut self, row: &Row, table: &TableFacts) {
        self.rows += 1;
        if let Some(leaf) = leaf::of_row(row, table) {
            self.mapped_bytes += row.size();
            if let Some(fault) = leaf::fault_of_row(row, table) {
                tally(&mut self.faults, words::fault_name(fault), 1);
            }
            self.jumping += u64::from(!row.linear);
            self.broken += u64::from(meaning::runs(row, table) == Some(meaning::Runs::Broken));
            self.unshown += u64::from(leaf.other_bits() != 0 || leaf.extensions().is_some());
            if let Some(entries) = self.entries.get_mut(usize::from(row.level.get().wrapping_add(1).unsigned_abs())) {
                *entries += row.count;
            }
            if let Some(state) = leaf.page_state(table) {
                tally(&mut self.states, state, row.size());
            }
        } else if let Some((word, _)) = meaning::annotation(row, table) {
            tally(&mut self.other, word, row.count);
        } else if row.kind != RecordKind::INVALID {
            tally(&mut self.other, meaning::kind(row), row.count);
        }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "# {}; mapped {}", plural(self.rows, "row"), Size(self.mapped_bytes))?;
        let levels = (-1..).zip(&self.entries).filter(|(_, &entries)| entries > 0);
        write_list(out, " in ", levels.map(|(level, entries)| format!("{entries} L{level}")))?;
        write_list(out, ": ", self.states.iter().map(|(state, bytes)| format!("{state} {}", Size(*bytes))))?;
        write_list(out, "; entries ", self.other.iter().map(|(what, count)| format!("{what} {count}")))?;
        writeln!(out)?;
        for (fault, rows) in &self.faults {
            writeln!(out, "# every access takes an {fault} fault in {}", plural(*rows, "row"))?;
        }
        if self.jumping > 0 {
            let rows = plural(self.jumping, "row");
            writeln!(out, "# scattered in {rows}: OUTPUT is that of the first page only, --exact splits them")?;
        }
        if self.broken > 0 {
            writeln!(out, "# contiguous runs broken in {}: -o +contig", plural(self.broken, "row"))?;
        }
        if self.unshown > 0 {
            writeln!(out, "# bits that no usual column shows in {}: -o +ext,other", plural(self.unshown, "row"))?;
        }
        Ok(())
    }
}

fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn tally(list: &mut Vec<(&'static str, u64)>, word: &'static str, more: u64) {
    match list.iter_mut().find(|(known, _)| *known == word) {
        Some((_, sum)) => *sum += more,
        None => list.push((word, more)),
    }
}

fn write_list(out: &mut dyn Write, before: &str, items: impl Iterator<Item = String>) -> io::Result<()> {
    let items: Vec<String> = items.collect();
    if items.is_empty() {
        Ok(())
    } else {
        write!(out, "{before}{}", items.join(", "))
    }
}
