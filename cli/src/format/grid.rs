// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tables of words and addresses: where columns stand, and how they fit a terminal.
//!
//! In a pipe columns have fixed widths and addresses 16 digits, so that rows can be written as they come. On a terminal columns are
//! as wide as what they hold, and addresses have the digits that are needed. If rows are still too wide, columns go in the order that
//! their heads say; where the end of a range goes, its start stays. What is too wide even then is wrapped in the last column. Later
//! rows may be wider than those that were measured: what is behind a wide cell moves.

use crate::words::Word;
use anstyle::Style;
use std::borrow::Cow;
use std::io::{self, Write};
use textwrap::{Options, WordSplitter};

/// So many rows tell how a terminal is best filled: more than it shows at once, and little memory.
pub(crate) const MOST_HELD: usize = 512;
/// Digits of an address in a pipe.
const FIXED_DIGITS: usize = 16;
/// A last column of fewer characters is wrapped to the beginning of the next line.
const LEAST_WRAPPED: usize = 24;

/// To which side the cells of a column are set flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words and addresses.
    Left,
    /// Numbers.
    Right,
}

/// What a column holds.
#[derive(Clone, Copy, Debug)]
enum Holds {
    /// Words or numbers, in a pipe in so many characters.
    Words(usize, Align),
    /// An address, or a word in its place.
    Address,
    /// First and last address.
    Range,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// What stands above it.
    heading: &'static str,
    holds: Holds,
    /// As which it goes where there is no room, from 1 on; 0 if it stays.
    gone_as: usize,
}

impl Head {
    /// Makes a column of words, in a pipe of `width` characters; a wider cell moves the rest of its row.
    pub(crate) const fn words(heading: &'static str, width: usize) -> Self {
        Self { heading, holds: Holds::Words(width, Align::Left), gone_as: 0 }
    }

    /// Makes a column of numbers, which are set flush to the right.
    pub(crate) const fn numbers(heading: &'static str, width: usize) -> Self {
        Self { heading, holds: Holds::Words(width, Align::Right), gone_as: 0 }
    }

    /// Makes a column of addresses.
    pub(crate) const fn address(heading: &'static str) -> Self {
        Self { heading, holds: Holds::Address, gone_as: 0 }
    }

    /// Makes a column of ranges.
    pub(crate) const fn range(heading: &'static str) -> Self {
        Self { heading, holds: Holds::Range, gone_as: 0 }
    }

    /// Says as which it goes; of a range only its end does.
    pub(crate) const fn goes(self, gone_as: usize) -> Self {
        Self { gone_as, ..self }
    }
}

/// What stands in a column of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// A word; in a last column it may be several.
    Word(Word),
    /// An address.
    Address(u64),
    /// First and last address.
    Range(u64, u64),
}

impl<T: Into<Word>> From<T> for Cell {
    fn from(word: T) -> Self {
        Self::Word(word.into())
    }
}

impl Cell {
    /// Returns characters of words, digits of addresses.
    fn size(&self) -> usize {
        match self {
            Self::Word(word) => word.chars().count(),
            Self::Address(last) | Self::Range(_, last) => (64 - last.leading_zeros()).div_ceil(4) as usize,
        }
    }
}

/// Columns, and how wide they are.
pub(crate) struct Grid {
    heads: Vec<Head>,
    /// Of each column characters of words, digits of addresses.
    sizes: Vec<usize>,
    /// Characters of a line of the terminal, if it is one.
    width: Option<usize>,
    /// Columns that go as this one, or earlier, are gone.
    gone: usize,
}

impl Grid {
    /// Makes the columns of a table for a terminal that is so wide, or for a pipe.
    pub(crate) fn new(heads: Vec<Head>, width: Option<usize>) -> Self {
        let size = |head: &Head| match (width, head.holds) {
            (None, Holds::Words(width, _)) => width,
            (None, Holds::Address | Holds::Range) => FIXED_DIGITS,
            (Some(_), Holds::Words(..)) => head.heading.len(),
            (Some(_), Holds::Address | Holds::Range) => 1,
        };
        Self { sizes: heads.iter().map(size).collect(), heads, width, gone: 0 }
    }

    /// Gives addresses so many digits at least.
    pub(crate) fn with_digits(mut self, digits: usize) -> Self {
        for (head, size) in self.heads.iter().zip(&mut self.sizes) {
            if let Holds::Address | Holds::Range = head.holds {
                *size = digits.max(*size);
            }
        }
        self
    }

    /// Makes columns wide enough for `rows`, and has some go if these fit no line then; in a pipe neither.
    pub(crate) fn fit<'a>(&mut self, rows: impl IntoIterator<Item = &'a Vec<Cell>>) {
        let Some(width) = self.width else { return };
        for row in rows {
            for (size, (cell, head)) in self.sizes.iter_mut().zip(row.iter().zip(&self.heads)) {
                // A word in place of an address has no digits.
                if matches!(cell, Cell::Word(_)) == matches!(head.holds, Holds::Words(..)) {
                    *size = cell.size().max(*size);
                }
            }
        }
        let last = self.heads.iter().map(|head| head.gone_as).max().unwrap_or(0);
        while self.row_width() > width && self.gone < last {
            self.gone += 1;
        }
    }

    /// Returns the characters of the widest row.
    pub(crate) fn row_width(&self) -> usize {
        let widths = (0..self.heads.len()).filter_map(|at| self.column_width(at));
        widths.map(|width| width + 1).sum::<usize>().saturating_sub(1)
    }

    fn is_gone(&self, head: &Head) -> bool {
        (1..=self.gone).contains(&head.gone_as)
    }

    /// Returns the characters of a column, none if it is gone.
    fn column_width(&self, at: usize) -> Option<usize> {
        let (head, &size) = (self.heads.get(at)?, self.sizes.get(at)?);
        let width = match (head.holds, self.is_gone(head)) {
            (Holds::Words(..), false) => return Some(size),
            (Holds::Range, false) => 2 * (size + 2) + 1,
            (Holds::Address, false) | (Holds::Range, true) => size + 2,
            (Holds::Words(..) | Holds::Address, true) => return None,
        };
        Some(width.max(self.heading(head).len()))
    }

    fn heading(&self, head: &Head) -> &'static str {
        match (head.holds, self.is_gone(head)) {
            (Holds::Range, true) => "START",
            _ => head.heading,
        }
    }

    fn text<'c>(&self, at: usize, cell: &'c Cell) -> Cow<'c, str> {
        let width = self.sizes.get(at).map_or(0, |digits| digits + 2);
        let is_short = self.heads.get(at).is_some_and(|head| self.is_gone(head));
        match cell {
            Cell::Word(word) => Cow::Borrowed(word),
            Cell::Range(start, last) if !is_short => format!("{start:#0width$x}-{last:#0width$x}").into(),
            Cell::Address(start) | Cell::Range(start, _) => format!("{start:#0width$x}").into(),
        }
    }

    /// Writes the line above the rows.
    pub(crate) fn write_headings(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        write!(out, "{style}")?;
        let headings: Vec<Cell> = self.heads.iter().map(|head| self.heading(head).into()).collect();
        self.write_cells(out, &headings, |_| Style::new())?;
        writeln!(out, "{style:#}")
    }

    /// Writes the cells of a row, one space apart, none after the last, which does not end its line.
    pub(crate) fn write_cells(
        &self,
        out: &mut dyn Write,
        cells: &[Cell],
        style: impl Fn(usize) -> Style,
    ) -> io::Result<()> {
        let shown = cells.iter().enumerate().filter_map(|(at, cell)| Some((at, cell, self.column_width(at)?)));
        let mut shown = shown.peekable();
        let (mut written, mut pending) = (0, 0);
        while let Some((at, cell, width)) = shown.next() {
            let text = self.text(at, cell);
            let size = text.chars().count();
            let space = width.saturating_sub(size);
            let is_right = matches!(self.heads.get(at), Some(Head { holds: Holds::Words(_, Align::Right), .. }));
            let before = pending + if is_right { space } else { 0 };
            let style = style(at);
            let is_last = shown.peek().is_none();
            match self.width {
                Some(line) if is_last && written + before + size > line => {
                    write!(out, "{style}{}{style:#}", wrapped(&text, written, before, line))?;
                }
                _ => write!(out, "{:before$}{style}{text}{style:#}", "")?,
            }
            written += before + size;
            pending = 1 + if is_right { 0 } else { space };
        }
        Ok(())
    }

    /// Writes a row.
    pub(crate) fn write_row(&self, out: &mut dyn Write, cells: &[Cell]) -> io::Result<()> {
        self.write_cells(out, cells, |_| Style::new())?;
        writeln!(out)
    }

    /// Writes a table whose rows are all there, with the line above them if that is wanted.
    pub(crate) fn write_all(&mut self, out: &mut dyn Write, headings: bool, rows: &[Vec<Cell>]) -> io::Result<()> {
        self.fit(rows);
        if headings {
            self.write_headings(out, Style::new())?;
        }
        rows.iter().try_for_each(|row| self.write_row(out, row))
    }
}

/// Returns `space` and `text` behind so many characters that were `written`, in lines of `width` characters. Later lines begin below
/// the first if there is room. If not even a word has it behind what was written, all of it goes there.
fn wrapped(text: &str, written: usize, space: usize, width: usize) -> String {
    let behind = written + space;
    let indent = if width.saturating_sub(behind) < LEAST_WRAPPED { 4 } else { behind };
    let word = text.split(' ').next().unwrap_or(text).chars().count();
    match behind + word > width && indent < behind {
        true => format!("\n{:indent$}{}", "", lines(text, [indent, indent], width)),
        false => format!("{:space$}{}", "", lines(text, [behind, indent], width)),
    }
}

/// Returns `text` in lines of so many characters; the first begins behind so many, which are left out, the others with so many
/// spaces.
fn lines(text: &str, indents: [usize; 2], width: usize) -> String {
    let [first, later] = indents.map(|indent| " ".repeat(indent));
    let options = Options::new(width).initial_indent(&first).subsequent_indent(&later);
    let options = options.break_words(false).word_splitter(WordSplitter::NoHyphenation);
    let text = textwrap::fill(text, options);
    text.strip_prefix(&first).unwrap_or(&text).to_owned()
}

/// Writes a line of text; on a terminal of `width` several, the later of which begin with `indent` spaces.
pub(crate) fn write_text(out: &mut dyn Write, text: &str, indent: usize, width: Option<usize>) -> io::Result<()> {
    match width {
        Some(width) => writeln!(out, "{}", lines(text, [0, indent], width)),
        None => writeln!(out, "{text}"),
    }
}
