// SPDX-License-Identifier: MIT OR Apache-2.0
//! What pKVM keeps about page frames, for people and as JSON.

use super::grid::{Cell, Grid, Head, MOST_HELD};
use super::hex::{Hex, SpanJson};
use super::json::{filter_json, EncodingJson, FilterJson, FORMAT_VERSION};
use super::table::write_filter;
use super::{Consistency, Trailer};
use crate::model::Mark;
use crate::numbers::Size;
use crate::words;
use anstyle::Style;
use s2dump_abi::slot::{frame_flags, FrameRecord, SlotHeader};
use s2dump_vmsa::pkvm::{self, Encoding, Frame, PageState};
use serde::Serialize;
use std::io::{self, Write};

/// Frames about which the same is kept, as they are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameRow {
    /// Physical address of the first.
    pub(crate) start: u64,
    /// First physical address after the last.
    pub(crate) end: u64,
    /// What is kept about each.
    pub(crate) raw: u64,
    /// Nothing is kept about them: the host does not map this memory.
    pub(crate) is_nomap: bool,
    /// What they are by their address.
    pub(crate) mark: Mark,
}

impl FrameRow {
    /// Makes a row of frames of `1 << page_shift` bytes.
    pub(crate) fn new(record: &FrameRecord, page_shift: u8) -> Self {
        Self {
            start: record.pa,
            end: record.pa + (u64::from(record.count) << page_shift),
            raw: record.raw,
            is_nomap: record.flags & frame_flags::NO_STATE != 0,
            mark: Mark::None,
        }
    }

    /// Returns the row of this one followed by `next`, if that is one.
    pub(crate) fn join(&self, next: &Self) -> Option<Self> {
        let joined = Self { end: next.end, ..*self };
        (self.end == next.start && joined == Self { start: self.start, ..*next }).then_some(joined)
    }

    /// Returns what is kept, if it is known how.
    pub(crate) fn decode(&self, encoding: Encoding) -> Option<Frame> {
        if self.is_nomap {
            return None;
        }
        pkvm::decode_frame(encoding, self.raw)
    }
}

/// Returns the note of a row: what else there is to say, or that there is nothing.
fn note(row: &FrameRow, frame: Option<Frame>) -> Cell {
    let unknown = frame.is_none_or(|frame| frame.host.is_none() || (frame.is_hyp_kept && frame.hyp.is_none()));
    match words::mark(row.mark) {
        _ if row.is_nomap => "nomap".into(),
        _ if unknown => format!("raw={:#x}", row.raw).into(),
        Some(mark) => mark.into(),
        None => "-".into(),
    }
}

/// A way to write frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FramesFormat {
    /// For people: with headings, and with rows.
    Table {
        /// With headings and the lines around.
        headings: bool,
        /// With rows.
        rows: bool,
    },
    /// One JSON object; with rows.
    Json {
        /// With rows.
        rows: bool,
    },
}

/// Writes frames.
pub(crate) struct FramesWriter {
    format: FramesFormat,
    encoding: Encoding,
    page_bytes: u64,
    grid: Grid,
    /// Rows that come before it is known how they fit a terminal; none any more if that is known.
    held: Option<Vec<Vec<Cell>>>,
    rows: u64,
    /// Bytes by state of the host and of the hypervisor.
    totals: Vec<((&'static str, &'static str), u64)>,
    nomap_bytes: u64,
}

impl FramesWriter {
    /// Begins with the first slot, asked for `start..end`; a terminal, if it is one, is so wide.
    pub(crate) fn begin(
        format: FramesFormat,
        slot: &SlotHeader,
        (start, end): (u64, u64),
        filter: &[(&'static str, String)],
        out: &mut dyn Write,
        width: Option<usize>,
    ) -> io::Result<Self> {
        #[derive(Serialize)]
        struct Header {
            r#type: &'static str,
            format: &'static str,
            version: &'static str,
            #[serde(flatten)]
            span: SpanJson,
            page_size_bytes: u64,
            encoding: EncodingJson,
            #[serde(skip_serializing_if = "FilterJson::is_empty")]
            filter: FilterJson,
        }
        let (encoding, page_shift) = (Encoding(slot.encoding), u32::from(slot.page_shift));
        let page_bytes = 1 << page_shift;
        match format {
            FramesFormat::Json { .. } => {
                let header = Header {
                    r#type: "frames",
                    format: "s2dump.frames",
                    version: FORMAT_VERSION,
                    span: SpanJson::new(start, end, page_shift),
                    page_size_bytes: page_bytes,
                    encoding: EncodingJson::new(encoding),
                    filter: filter_json(filter),
                };
                let text = serde_json::to_string(&header)?;
                // The object stays open: it ends after the rows.
                write!(out, "{},\n\"frames\":[", text.strip_suffix('}').unwrap_or(&text))?;
            }
            FramesFormat::Table { headings, .. } => {
                if headings {
                    let name = words::encoding_name(encoding);
                    writeln!(out, "# page frames of {}, encoding {name}", Size(page_bytes))?;
                    write_filter(out, filter)?;
                }
            }
        }
        let heads = vec![
            Head::address("START"),
            Head::address("END").goes(1),
            Head::numbers("SIZE", 9).goes(3),
            Head::words("HOST", 15),
            Head::words("HYP", 15),
            Head::numbers("REFCOUNT", 8).goes(4),
            Head::numbers("ORDER", 5).goes(2),
            Head::numbers("SHARES", 6),
            Head::words("NOTE", 0),
        ];
        let is_fitted = format == FramesFormat::Table { headings: true, rows: true } && width.is_some();
        let grid = Grid::new(heads, width.filter(|_| is_fitted));
        let (held, totals) = (Some(Vec::new()), Vec::new());
        let mut writer = Self { format, encoding, page_bytes, grid, held, rows: 0, totals, nomap_bytes: 0 };
        if !is_fitted {
            writer.settle(out)?;
        }
        Ok(writer)
    }

    /// Writes a row.
    pub(crate) fn row(&mut self, out: &mut dyn Write, row: &FrameRow) -> io::Result<()> {
        self.rows += 1;
        let frame = row.decode(self.encoding);
        let bytes = row.end - row.start;
        match frame {
            _ if row.is_nomap => self.nomap_bytes += bytes,
            Some(frame) => {
                let states = (words::frame_state(frame.host), words::hyp_state(&frame));
                match self.totals.iter_mut().find(|(known, _)| *known == states) {
                    Some((_, sum)) => *sum += bytes,
                    None => self.totals.push((states, bytes)),
                }
            }
            None => {}
        }
        match self.format {
            FramesFormat::Table { rows: true, .. } => self.write_cells(out, row, frame),
            FramesFormat::Json { rows: true } => self.write_object(out, row, frame),
            FramesFormat::Table { rows: false, .. } | FramesFormat::Json { rows: false } => Ok(()),
        }
    }

    /// Makes columns fit the rows that were held, and writes them and what stands above.
    fn settle(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let Some(held) = self.held.take() else { return Ok(()) };
        self.grid.fit(&held);
        if self.format == (FramesFormat::Table { headings: true, rows: true }) {
            self.grid.write_headings(out, Style::new())?;
        }
        held.iter().try_for_each(|row| self.grid.write_row(out, row))
    }

    fn write_cells(&mut self, out: &mut dyn Write, row: &FrameRow, frame: Option<Frame>) -> io::Result<()> {
        let cell = |tell: fn(&Frame) -> Cell| frame.as_ref().map_or("-".into(), tell);
        let cells = vec![
            Cell::Address(row.start),
            Cell::Address(row.end.wrapping_sub(1)),
            Size(row.end - row.start).to_string().into(),
            cell(|frame| words::frame_state(frame.host).into()),
            cell(|frame| words::hyp_state(frame).into()),
            cell(|frame| frame.refcount.to_string().into()),
            cell(|frame| frame.order.to_string().into()),
            cell(|frame| frame.share_count.to_string().into()),
            note(row, frame),
        ];
        let Some(held) = &mut self.held else { return self.grid.write_row(out, &cells) };
        held.push(cells);
        if held.len() < MOST_HELD {
            return Ok(());
        }
        self.settle(out)
    }

    fn write_object(&self, out: &mut dyn Write, row: &FrameRow, frame: Option<Frame>) -> io::Result<()> {
        #[derive(Serialize)]
        struct RowJson {
            #[serde(flatten)]
            span: SpanJson,
            size_bytes: u64,
            count: u64,
            host: Option<&'static str>,
            hyp: Option<&'static str>,
            refcount: Option<u16>,
            order: Option<u8>,
            share_count: Option<u32>,
            raw: Option<Hex>,
            nomap: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            mark: Option<&'static str>,
        }
        let bytes = row.end - row.start;
        let known = |of: Option<PageState>| of.map(|of| words::frame_state(Some(of)));
        let object = RowJson {
            span: SpanJson::new(row.start, row.end, self.page_bytes.trailing_zeros()),
            size_bytes: bytes,
            count: bytes / self.page_bytes,
            host: frame.and_then(|frame| known(frame.host)),
            hyp: frame.and_then(|frame| known(frame.hyp)),
            refcount: frame.map(|frame| frame.refcount),
            order: frame.map(|frame| frame.order),
            share_count: frame.map(|frame| frame.share_count),
            raw: (!row.is_nomap).then_some(Hex(row.raw)),
            nomap: row.is_nomap,
            mark: words::mark(row.mark),
        };
        write!(out, "{}", if self.rows == 1 { "\n" } else { ",\n" })?;
        Ok(serde_json::to_writer(out, &object)?)
    }

    /// Writes what comes after the rows.
    pub(crate) fn end(&mut self, out: &mut dyn Write, trailer: &Trailer) -> io::Result<()> {
        self.settle(out)?;
        match self.format {
            FramesFormat::Json { .. } => self.end_json(out, trailer),
            FramesFormat::Table { headings: true, .. } => self.end_table(out, trailer),
            FramesFormat::Table { headings: false, .. } => Ok(()),
        }
    }

    fn end_table(&self, out: &mut dyn Write, trailer: &Trailer) -> io::Result<()> {
        let rows = self.rows;
        write!(out, "# {rows} row{}", if rows == 1 { "" } else { "s" })?;
        for (at, ((host, hyp), bytes)) in self.totals.iter().enumerate() {
            let before = if at == 0 { "; host/hyp" } else { "," };
            write!(out, "{before} {host}/{hyp} {}", Size(*bytes))?;
        }
        match self.nomap_bytes {
            0 => writeln!(out)?,
            bytes => writeln!(out, "; without states {}", Size(bytes))?,
        }
        match trailer.consistency() {
            Consistency::Atomic => writeln!(out, "# read in one call under the host's lock: atomic")?,
            Consistency::PerCall(calls, _) => {
                writeln!(out, "# read in {calls} calls, each atomic under the host's lock; the whole is not atomic")?;
            }
            other => writeln!(out, "# {other}")?,
        }
        if let Some(hold) = trailer.outcome.hold.text() {
            writeln!(out, "# {hold}")?;
        }
        match trailer.incomplete() {
            Some(why) => writeln!(out, "# INCOMPLETE: {why}"),
            None => Ok(()),
        }
    }

    fn end_json(&self, out: &mut dyn Write, trailer: &Trailer) -> io::Result<()> {
        #[derive(Serialize)]
        struct TotalJson {
            host: &'static str,
            hyp: Option<&'static str>,
            size_bytes: u64,
        }
        #[derive(Serialize)]
        struct EndJson {
            calls: u64,
            complete: bool,
            incomplete_reason: Option<String>,
            longest_hold_ns: Option<u64>,
            nomap_bytes: u64,
            problems: u64,
            totals: Vec<TotalJson>,
        }
        let totals = self.totals.iter().map(|&((host, hyp), size_bytes)| {
            let hyp = Some(hyp).filter(|&hyp| hyp != "-");
            TotalJson { host, hyp, size_bytes }
        });
        let end = EndJson {
            calls: trailer.outcome.calls,
            complete: trailer.incomplete().is_none(),
            incomplete_reason: trailer.incomplete(),
            longest_hold_ns: trailer.outcome.hold.nanoseconds(),
            nomap_bytes: self.nomap_bytes,
            problems: trailer.issues,
            totals: totals.collect(),
        };
        let end = serde_json::to_string(&end)?;
        writeln!(out, "\n],\n{}", end.strip_prefix('{').unwrap_or_default())
    }
}
