// SPDX-License-Identifier: MIT OR Apache-2.0
//! A map as a picture for documents: all of it at one scale, the same in all parts, so that areas compare.
//!
//! A cell that has several classes is divided among them, and each gets a part that can be seen, however little it has. Rows of
//! nothing are left out. What changed since another reading has a corner, as in the page.

use super::legend::{shown, Shown};
use super::{lines, notes, place, Line, Told};
use crate::machine::differ::Change;
use crate::map::{Class, Map};
use crate::numbers::Size;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

/// Cells of a row of physical memory, and of a table.
const COLUMNS: [u64; 2] = [64, 32];
/// Rows of physical memory, and of all tables, that fit.
const MOST_ROWS: [usize; 2] = [64, 80];
/// Pixels of a cell.
const CELL: (u64, u64) = (7, 8);
/// Room for addresses.
const LABEL: u64 = 92;
/// Letters of a line of text that fit.
const MOST_LETTERS: usize = 140;
/// Between lines of text.
const LINE: u64 = 14;
/// Around all.
const MARGIN: u64 = 12;

/// Addresses of a class; of none, those that changed.
type Span = (u64, u64, Option<Class>);
/// What is in a cell.
#[derive(Default)]
struct Cell {
    /// Bytes of each class, in the order of the legend.
    bytes: BTreeMap<Class, u64>,
    is_changed: bool,
}
/// Rows that have something, by number, with their cells.
type Rows = BTreeMap<u64, BTreeMap<u64, Cell>>;

/// Returns the rows of `spans`, if they are no more than `most`.
fn rows(spans: &[Span], cell_bytes: u64, columns: u64, most: usize) -> Option<Rows> {
    let mut rows = Rows::new();
    for &(start, end, class) in spans {
        let mut at = start;
        while at < end {
            let cell = at / cell_bytes;
            let to = (cell + 1).saturating_mul(cell_bytes).min(end);
            let cells = rows.entry(cell / columns).or_default();
            let cell = cells.entry(cell % columns).or_default();
            match class {
                Some(class) => *cell.bytes.entry(class).or_default() += to - at,
                None => cell.is_changed = true,
            }
            if rows.len() > most {
                return None;
            }
            at = to;
        }
    }
    Some(rows)
}

/// A picture in the making.
#[derive(Default)]
struct Picture {
    /// The outlines of what is of a class.
    paths: BTreeMap<Class, String>,
    /// The outlines of the corners of what changed.
    corners: String,
    texts: String,
}

impl Picture {
    fn text(&mut self, x: u64, y: u64, class: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(self.texts, "<text x=\"{x}\" y=\"{y}\" class=\"{class}\">{text}</text>");
    }

    /// Draws a rectangle; `y` and `height` are in tenths.
    fn area(&mut self, class: Class, x: u64, y: u64, width: u64, height: u64) {
        let tenths = |number: u64| match number % 10 {
            0 => (number / 10).to_string(),
            tenth => format!("{}.{tenth}", number / 10),
        };
        let (y, height) = (tenths(y), tenths(height));
        let _ = write!(self.paths.entry(class).or_default(), "M{x} {y}h{width}v{height}h-{width}z");
    }

    /// Draws the corner of a cell whose left and top are `x` and `y`.
    fn corner(&mut self, x: u64, y: u64) {
        let _ = write!(self.corners, "M{} {y}v5l-5-5z", x + CELL.0);
    }

    /// Draws `rows` from `y` on, and returns where they end.
    fn rows(&mut self, rows: &Rows, x: u64, mut y: u64, cell_bytes: u64, columns: u64) -> u64 {
        let (width, height) = CELL;
        let mut labeled = None;
        let mut next = None;
        for (&row, cells) in rows {
            if next.is_some_and(|next| next != row) {
                y += height / 2;
                labeled = None;
            }
            if labeled.is_none_or(|labeled| row >= labeled + 4) {
                self.text(x + LABEL - 6, y + height, "address", &format!("{:#x}", row * columns * cell_bytes));
                labeled = Some(row);
            }
            next = Some(row + 1);
            for column in cells.iter().filter(|(_, cell)| cell.is_changed).map(|(column, _)| column) {
                self.corner(x + LABEL + column * width, y);
            }
            let mut cells = cells.iter().peekable();
            while let Some((&column, cell)) = cells.next() {
                let left = x + LABEL + column * width;
                let whole = |cell: &Cell| match cell.bytes.first_key_value() {
                    Some((&class, &bytes)) if bytes == cell_bytes => Some(class),
                    _ => None,
                };
                if let Some(class) = whole(cell) {
                    let mut count = 1;
                    while cells
                        .next_if(|(&other, cell)| other == column + count && whole(cell) == Some(class))
                        .is_some()
                    {
                        count += 1;
                    }
                    self.area(class, left, y * 10, count * width, height * 10);
                } else {
                    let mut top = y * 10;
                    for (class, part) in parts(cell, cell_bytes, height * 10) {
                        self.area(class, left, top, width, part);
                        top += part;
                    }
                }
            }
            y += height;
        }
        y
    }
}

/// Returns how many of `height` tenths of a pixel each class has of a cell: at least so many that it can be seen.
fn parts(cell: &Cell, cell_bytes: u64, height: u64) -> Vec<(Class, u64)> {
    const LEAST: u64 = 5;
    let share =
        |bytes: u64| (u128::from(bytes) * u128::from(height) + u128::from(cell_bytes) / 2) / u128::from(cell_bytes);
    let part = |(&class, &bytes)| (class, u64::try_from(share(bytes)).unwrap_or(height).max(LEAST));
    let mut parts: Vec<(Class, u64)> = cell.bytes.iter().map(part).collect();
    while parts.iter().map(|part| part.1).sum::<u64>() > height {
        match parts.iter_mut().max_by_key(|part| part.1) {
            Some(largest) if largest.1 > LEAST => largest.1 -= 1,
            // More classes than there is room for.
            _ => return parts,
        }
    }
    parts
}

/// Writes `map` as a picture.
pub(crate) fn write_svg(out: &mut dyn Write, map: &Map, told: &Told<'_>) -> io::Result<()> {
    let class = |kind: u32| map.kinds.get(kind as usize).map(|kind| kind.class);
    let said = |said: u32| map.sayings.get(said as usize).map(|said| said.class);
    let changes = told.since.as_ref().map_or(&[][..], |since| since.1);
    let changed = |at: usize| {
        let here = changes.iter().filter(move |change| place(map, change) == Some(at));
        here.map(|change| (change.start, change.end, None))
    };
    let physical = map.segments.iter().map(|segment| (segment.start, segment.end, class(segment.kind)));
    let physical: Vec<Span> = physical.chain(changed(0)).collect();
    let trees = map.spaces.iter().enumerate().map(|(at, space)| {
        let pieces = space.pieces.iter().map(|piece| (piece.ia, piece.end, said(piece.said)));
        pieces.chain(changed(at + 1)).collect()
    });
    let trees: Vec<Vec<Span>> = trees.collect();
    let fitting = |shift: &u32| {
        let cell_bytes = map.page_bytes << shift;
        let memory = rows(&physical, cell_bytes, COLUMNS[0], MOST_ROWS[0])?;
        let mut left = MOST_ROWS[1];
        let mut tables = Vec::new();
        for tree in &trees {
            let rows = rows(tree, cell_bytes, COLUMNS[1], left)?;
            left -= rows.len();
            tables.push(rows);
        }
        Some((cell_bytes, memory, tables))
    };
    // The last has one row for all there can be, so something fits unless there are very many tables.
    let shift = (0..40).find(|shift| fitting(shift).is_some()).unwrap_or(40);
    let (cell_bytes, memory, tables) = fitting(&shift).unwrap_or_else(|| {
        let all =
            |spans: &Vec<Span>, columns| rows(spans, map.page_bytes << shift, columns, usize::MAX).unwrap_or_default();
        (map.page_bytes << shift, all(&physical, COLUMNS[0]), trees.iter().map(|tree| all(tree, COLUMNS[1])).collect())
    });

    let mut picture = Picture::default();
    let second = MARGIN + LABEL + COLUMNS[0] * CELL.0 + 2 * MARGIN;
    // Names of guests are wider than their cells.
    let width = second + LABEL + COLUMNS[1] * CELL.0 + 80;
    let top = MARGIN + 2 * LINE;
    picture.text(MARGIN, MARGIN + LINE, "title", &format!("Who owns what: {}", told.source));
    let scale = format!("a cell is {}", Size(cell_bytes));
    picture.text(MARGIN + LABEL, top + LINE, "head", &format!("physical memory, {scale}"));
    let left_end = picture.rows(&memory, MARGIN, top + LINE + 6, cell_bytes, COLUMNS[0]);
    let mut y = top;
    for (space, rows) in map.spaces.iter().zip(&tables) {
        picture.text(second + LABEL, y + LINE, "head", &format!("{}: {}", space.name, space.about));
        y = picture.rows(rows, second, y + LINE + 6, cell_bytes, COLUMNS[1]) + LINE / 2;
    }
    let (classes, lines) = lines(map);
    let mut y = left_end.max(y) + LINE;
    for (at, (class, line)) in classes.iter().zip(&lines).enumerate() {
        let Line { shown: Shown { name, .. }, memory, input } = line;
        let size = match (memory.as_str(), input.as_str()) {
            ("-", input) => format!("{input} of input addresses"),
            (memory, _) => memory.to_owned(),
        };
        let (x, line_y) = if at % 2 == 0 { (MARGIN, y) } else { (width / 2, y) };
        picture.area(*class, x, line_y * 10, 20, 110);
        picture.text(x + 28, line_y + 10, "line", &format!("{name}: {size}"));
        if at % 2 == 1 || at + 1 == classes.len() {
            y += LINE + 2;
        }
    }
    if let Some((since, changes)) = &told.since {
        if !changes.is_empty() {
            picture.corner(MARGIN + 20 - CELL.0, y);
        }
        for line in wrapped(&changed_line(since, changes), MOST_LETTERS) {
            picture.text(MARGIN + 28, y + 10, "line", &line);
            y += LINE + 2;
        }
    }
    for note in notes(map, told) {
        for line in wrapped(&note, MOST_LETTERS) {
            y += LINE;
            picture.text(MARGIN, y, "note", &line);
        }
    }
    let height = y + MARGIN;
    write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\">\n<title>Who owns which page: {}</title>\n{STYLE}",
        told.source.replace('&', "&amp;").replace('<', "&lt;")
    )?;
    writeln!(out, "<rect width=\"{width}\" height=\"{height}\" class=\"paper\"/>")?;
    let guests = super::legend::guests(map);
    for (number, (&class, path)) in picture.paths.iter().enumerate() {
        let Shown { paint, pattern, .. } = shown(class, &guests);
        writeln!(
            out,
            "<defs><path id=\"c{number}\" d=\"{path}\"/></defs><use href=\"#c{number}\" class=\"{paint}\"/>"
        )?;
        if pattern != "plain" {
            let dim = if paint == "host" { "dim-" } else { "" };
            writeln!(out, "<use href=\"#c{number}\" fill=\"url(#{dim}{pattern})\"/>")?;
        }
    }
    if !picture.corners.is_empty() {
        writeln!(out, "<path class=\"corner\" d=\"{}\"/>", picture.corners)?;
    }
    out.write_all(picture.texts.as_bytes())?;
    out.write_all(b"</svg>\n")
}

/// Returns how much changed since the reading `since`, of each table and of page frames.
fn changed_line(since: &str, changes: &[Change]) -> String {
    let mut sizes: Vec<(&str, u64)> = Vec::new();
    for change in changes {
        let bytes = change.end - change.start;
        match sizes.last_mut() {
            Some((of, sum)) if *of == change.of => *sum = sum.saturating_add(bytes),
            _ => sizes.push((&change.of, bytes)),
        }
    }
    let sizes: Vec<String> = sizes.into_iter().map(|(of, bytes)| format!("{of} {}", Size(bytes))).collect();
    match sizes.as_slice() {
        [] => format!("nothing changed since {since}"),
        sizes => format!("changed since {since}, in {} ranges: {}", changes.len(), sizes.join(", ")),
    }
}

/// Returns the lines of `text`, of at most `width` characters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

/// Colors of Okabe and Ito, and the patterns of `page.js`.
///
/// Nothing but colors by class: tools for documents (librsvg, Inkscape, LibreOffice) know no variables of CSS, and some take rules
/// that are for the dark as rules for all. So there is no dark picture. It brings its own paper, and is readable anywhere.
const STYLE: &str = r##"<style>
.paper { fill: #fff; } .ink { fill: #1b1f23; } .host { fill: #c9ced3; } .purple { fill: #cc79a7; }
.blue { fill: #0072b2; } .orange { fill: #e69f00; } .green { fill: #009e73; } .sky { fill: #56b4e9; }
.yellow { fill: #f0e442; } .red { fill: #d55e00; }
text { fill: #1b1f23; font-size: 11px; font-family: system-ui, sans-serif; }
.title { font-size: 14px; font-weight: 600; } .head { font-weight: 600; } .note { font-size: 10px; }
.address { font-size: 9px; font-family: ui-monospace, monospace; text-anchor: end; }
.corner { fill: #1b1f23; stroke: #fff; stroke-width: .7; }
.lines { stroke: #fff; fill: none; stroke-width: 1.4; } .dim-lines { stroke: #7d868f; fill: none; } .dim { fill: #7d868f; }
</style>
<defs>
<pattern id="stripes" width="5" height="5" patternUnits="userSpaceOnUse"><path class="lines" d="M-1 1 1 -1M0 5 5 0M4 6 6 4"/></pattern>
<pattern id="back" width="5" height="5" patternUnits="userSpaceOnUse"><path class="lines" d="M-1 4 1 6M0 0 5 5M4 -1 6 1"/></pattern>
<pattern id="cross" width="5" height="5" patternUnits="userSpaceOnUse"><path class="lines" d="M0 0 5 5M0 5 5 0"/></pattern>
<pattern id="grid" width="4" height="4" patternUnits="userSpaceOnUse"><path class="lines" d="M0 2H4M2 0V4"/></pattern>
<pattern id="dots" width="4" height="4" patternUnits="userSpaceOnUse"><circle class="ink" cx="2" cy="2" r=".9"/></pattern>
<pattern id="dim-stripes" width="5" height="5" patternUnits="userSpaceOnUse"><path class="dim-lines" d="M-1 1 1 -1M0 5 5 0M4 6 6 4"/></pattern>
<pattern id="dim-back" width="5" height="5" patternUnits="userSpaceOnUse"><path class="dim-lines" d="M-1 4 1 6M0 0 5 5M4 -1 6 1"/></pattern>
<pattern id="dim-dots" width="4" height="4" patternUnits="userSpaceOnUse"><circle class="dim" cx="2" cy="2" r=".9"/></pattern>
</defs>
"##;
