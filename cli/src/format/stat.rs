// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a table is made of: bytes and entries by level, rights, memory type and state; its table pages and what they cost; how
//! scattered the memory is that it maps.

use super::hex::SpanJson;
use super::json::{TableJson, TrailerJson, FORMAT_VERSION};
use super::table::write_title;
use super::{Format, Heading, Trailer};
use crate::leaf;
use crate::meaning;
use crate::model::{Row, TableFacts};
use crate::numbers::Size;
use crate::words::{self, Word};
use s2dump_abi::slot::VmRecord;
use serde::Serialize;
use std::cmp::Reverse;
use std::io::{self, Write};

/// Entries and the bytes of input addresses that they cover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    entries: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, row: &Row) {
        self.entries = self.entries.saturating_add(row.count);
        self.bytes = self.bytes.saturating_add(row.size());
    }
}

/// Sums by a word. There are only so many words of each kind, however large a table is.
#[derive(Debug, Default)]
struct By(Vec<(Word, Sum)>);

impl By {
    fn add(&mut self, word: Word, row: &Row) {
        match self.0.iter_mut().find(|(known, _)| *known == word) {
            Some((_, sum)) => sum.add(row),
            None => {
                let mut sum = Sum::default();
                sum.add(row);
                self.0.push((word, sum));
            }
        }
    }

    /// Puts the most bytes first.
    fn sort_by_bytes(&mut self) {
        self.0.sort_by_key(|(_, sum)| Reverse(sum.bytes));
    }
}

/// How the output addresses of neighbors are to each other.
#[derive(Debug, Default)]
struct Scatter {
    /// Pieces in which both input and output addresses go on.
    runs: u64,
    /// Bytes of entries that go on from the one before.
    linear_bytes: u64,
    /// Where the next entry would go on: input and output address.
    next: Option<(u64, u64)>,
    /// Rows of a folded capture, whose output addresses are not known but for the first.
    folded_rows: u64,
}

impl Scatter {
    fn add(&mut self, row: &Row) {
        let goes_on = row.oa.is_some_and(|oa| self.next == Some((row.ia, oa)));
        let first = (1 << row.entry_shift) - row.skipped;
        if row.linear {
            self.runs += u64::from(!goes_on);
            self.linear_bytes += if goes_on { row.size() } else { row.size() - first };
            self.next = row.oa.map(|oa| (row.end(), oa.wrapping_add(row.size())));
        } else {
            self.runs += row.count - u64::from(goes_on);
            self.folded_rows += 1;
            self.next = None;
        }
    }
}

/// Adds up a table.
pub(crate) struct Stat {
    json: bool,
    table: Option<TableFacts>,
    vm: Option<VmRecord>,
    headings: bool,
    mapped: Sum,
    block_bytes: u64,
    levels: By,
    rights: By,
    memory: By,
    states: By,
    /// What invalid entries that are not zero say, and entries that no table should have.
    entries: By,
    /// Pages by level, the start level's first; `None` as long as no page was told.
    pages: Option<[u64; 5]>,
    /// The pages that were told last, by level: a slot may tell them again.
    last_pages: [Option<u64>; 5],
    scatter: Scatter,
}

impl Stat {
    /// Writes for people, or one JSON object.
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            table: None,
            vm: None,
            headings: true,
            mapped: Sum::default(),
            block_bytes: 0,
            levels: By::default(),
            rights: By::default(),
            memory: By::default(),
            states: By::default(),
            entries: By::default(),
            pages: None,
            last_pages: [None; 5],
            scatter: Scatter::default(),
        }
    }

    /// Returns pages by level, with those of the root.
    fn pages(&self, table: &TableFacts) -> Option<Vec<(i8, u64)>> {
        let geometry = &table.geometry;
        let mut pages = self.pages?;
        let start = geometry.start_level().get();
        let root = geometry.root_bytes().div_ceil(1 << geometry.granule().page_shift());
        if let Some(first) = pages.get_mut(usize::try_from(start + 1).ok()?) {
            *first += root;
        }
        Some((-1..).zip(pages).filter(|&(_, count)| count > 0).collect())
    }

    fn write_table(&self, out: &mut dyn Write, table: &TableFacts, trailer: &Trailer) -> io::Result<()> {
        if self.headings {
            writeln!(out, "{:<7} {:<15} {:>10} {:>9} {:>6}", "OF", "VALUE", "ENTRIES", "BYTES", "SHARE")?;
        }
        let mut line = |of: &str, value: &str, sum: Sum, share: &str| {
            let bytes = Size(sum.bytes).to_string();
            writeln!(out, "{of:<7} {value:<15} {:>10} {bytes:>9} {share:>6}", sum.entries)
        };
        for (of, by) in
            [("level", &self.levels), ("rights", &self.rights), ("memory", &self.memory), ("state", &self.states)]
        {
            for (value, sum) in &by.0 {
                line(of, value, *sum, &percent(sum.bytes, self.mapped.bytes))?;
            }
        }
        for (value, sum) in &self.entries.0 {
            line("entry", value, *sum, "-")?;
        }
        let page_bytes = 1 << table.geometry.granule().page_shift();
        let pages = self.pages(table);
        for &(level, count) in pages.iter().flatten() {
            line("tables", &format!("L{level}"), Sum { entries: count, bytes: count * page_bytes }, "-")?;
        }
        if !self.headings {
            return Ok(());
        }
        let Sum { entries, bytes } = self.mapped;
        write!(out, "# mapped {} in {entries} entries", Size(bytes))?;
        match bytes {
            0 => writeln!(out)?,
            _ => {
                let pages = bytes - self.block_bytes;
                writeln!(out, ": blocks {}, pages {}", percent(self.block_bytes, bytes), percent(pages, bytes))?;
            }
        }
        match pages.map(|pages| pages.iter().map(|&(_, count)| count).sum::<u64>()) {
            Some(count) => {
                let cost = count * page_bytes;
                write!(out, "# {count} table pages, {}", Size(cost))?;
                match bytes {
                    0 => writeln!(out)?,
                    _ => writeln!(out, ": {} of what they map", percent(cost, bytes))?,
                }
            }
            None => writeln!(out, "# table pages are not told here")?,
        }
        if let Some(average) = bytes.checked_div(self.scatter.runs) {
            write!(
                out,
                "# output addresses: {} runs, {} per GiB, {} on average; {} goes on from the entry before",
                self.scatter.runs,
                self.runs_per_gib(),
                Size(average >> 10 << 10),
                percent(self.scatter.linear_bytes, bytes)
            )?;
            match self.scatter.folded_rows {
                0 => writeln!(out)?,
                rows => writeln!(out, "; folded rows, taken as jumps only: {rows}")?,
            }
        }
        writeln!(out, "# {}", trailer.consistency())?;
        if let Some(hold) = trailer.outcome.hold.text() {
            writeln!(out, "# {hold}")?;
        }
        match trailer.incomplete() {
            Some(why) => writeln!(out, "# INCOMPLETE: {why}"),
            None => Ok(()),
        }
    }

    fn runs_per_gib(&self) -> u64 {
        let per = u128::from(self.scatter.runs) << 30;
        let rounded = per.checked_div(u128::from(self.mapped.bytes)).unwrap_or(0);
        u64::try_from(rounded).unwrap_or(u64::MAX)
    }

    fn write_json(&self, out: &mut dyn Write, table: &TableFacts, trailer: &Trailer) -> io::Result<()> {
        #[derive(Serialize)]
        struct SumJson {
            value: String,
            entries: u64,
            size_bytes: u64,
        }
        #[derive(Serialize)]
        struct PagesJson {
            level: i8,
            pages: u64,
            size_bytes: u64,
        }
        #[derive(Serialize)]
        struct OutputJson {
            runs: u64,
            runs_per_gib: u64,
            average_run_bytes: Option<u64>,
            linear_bytes: u64,
            folded_rows: u64,
        }
        #[derive(Serialize)]
        struct StatJson {
            r#type: &'static str,
            format: &'static str,
            version: &'static str,
            #[serde(flatten)]
            table: TableJson,
            #[serde(flatten)]
            span: SpanJson,
            mapped_bytes: u64,
            mapped_entries: u64,
            block_bytes: u64,
            levels: Vec<SumJson>,
            rights: Vec<SumJson>,
            memory: Vec<SumJson>,
            states: Vec<SumJson>,
            entries: Vec<SumJson>,
            table_pages: Option<Vec<PagesJson>>,
            scatter: OutputJson,
            trailer: TrailerJson,
        }
        let sums = |by: &'_ By| -> Vec<SumJson> {
            let sum = |(word, sum): &(Word, Sum)| {
                let value = words::bare(word).to_owned();
                SumJson { value, entries: sum.entries, size_bytes: sum.bytes }
            };
            by.0.iter().map(sum).collect()
        };
        let page_shift = table.geometry.granule().page_shift();
        let page_bytes = 1 << page_shift;
        let pages = self.pages(table).map(|pages| {
            let page = |(level, pages)| PagesJson { level, pages, size_bytes: pages * page_bytes };
            pages.into_iter().map(page).collect()
        });
        let stat = StatJson {
            r#type: "stat",
            format: "s2dump.stat",
            version: FORMAT_VERSION,
            table: TableJson::new(table, self.vm.as_ref()),
            span: SpanJson::new(table.start, table.end, page_shift),
            mapped_bytes: self.mapped.bytes,
            mapped_entries: self.mapped.entries,
            block_bytes: self.block_bytes,
            levels: sums(&self.levels),
            rights: sums(&self.rights),
            memory: sums(&self.memory),
            states: sums(&self.states),
            entries: sums(&self.entries),
            table_pages: pages,
            scatter: OutputJson {
                runs: self.scatter.runs,
                runs_per_gib: self.runs_per_gib(),
                average_run_bytes: self.mapped.bytes.checked_div(self.scatter.runs),
                linear_bytes: self.scatter.linear_bytes,
                folded_rows: self.scatter.folded_rows,
            },
            trailer: TrailerJson::new(trailer, page_shift),
        };
        serde_json::to_writer(&mut *out, &stat)?;
        writeln!(out)
    }
}

impl Format for Stat {
    fn begin(&mut self, out: &mut dyn Write, heading: &Heading) -> io::Result<()> {
        (self.table, self.vm, self.headings) = (Some(heading.table), heading.vm, heading.headings);
        match self.headings && !self.json {
            true => write_title(out, heading),
            false => Ok(()),
        }
    }

    fn row(&mut self, _: &mut dyn Write, row: &Row) -> io::Result<()> {
        let Some(table) = &self.table else { return Ok(()) };
        if let Some(leaf) = leaf::of_row(row, table) {
            self.mapped.add(row);
            self.block_bytes += if row.level.is_last() { 0 } else { row.size() };
            self.levels.add(format!("L{}", row.level.get()).into(), row);
            self.rights.add(leaf.rwx(table), row);
            self.memory.add(leaf.memory(table), row);
            if let Some(state) = leaf.page_state(table) {
                self.states.add(state.into(), row);
            }
            self.scatter.add(row);
        } else if let Some((word, _)) = meaning::annotation(row, table) {
            self.entries.add(word.into(), row);
        } else if let Some(word) = words::wrong_kind(row.kind) {
            self.entries.add(word.into(), row);
        }
        Ok(())
    }

    fn table_page(&mut self, row: &Row) {
        let pages = self.pages.get_or_insert_with(Default::default);
        // The page that a table descriptor of one level leads to is of the next.
        let Ok(level) = usize::try_from(row.level.get() + 2) else { return };
        if let Some((count, last)) = pages.get_mut(level).zip(self.last_pages.get_mut(level)) {
            // A slot that goes on where tables begin tells them again.
            *count += u64::from(*last != Some(row.ia));
            *last = Some(row.ia);
        }
    }

    fn tells_tables(&mut self) {
        self.pages.get_or_insert_with(Default::default);
    }

    fn end(&mut self, out: &mut dyn Write, trailer: &Trailer) -> io::Result<()> {
        let Some(table) = self.table else { return Ok(()) };
        self.levels.0.sort_by(|(a, _), (b, _)| a.cmp(b));
        for by in [&mut self.rights, &mut self.memory, &mut self.states, &mut self.entries] {
            by.sort_by_bytes();
        }
        match self.json {
            true => self.write_json(out, &table, trailer),
            false => self.write_table(out, &table, trailer),
        }
    }

    fn tells_consistency(&self) -> bool {
        self.json || self.headings
    }
}

/// Returns how many tenths of a percent `part` is of `whole`, as text.
fn percent(part: u64, whole: u64) -> String {
    match (u128::from(part) * 1000 + u128::from(whole) / 2).checked_div(u128::from(whole)) {
        Some(tenths) => format!("{}.{}%", tenths / 10, tenths % 10),
        None => "-".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Changed, Mark};
    use s2dump_abi::slot::RecordKind;
    use s2dump_vmsa::{Level, TableAttrs};

    fn pages(ia: u64, oa: u64, count: u64, linear: bool) -> Row {
        let (level, kind, inherited) = (Level::L3, RecordKind::LEAF, TableAttrs::NONE);
        let (changed, mark) = (Changed::default(), Mark::None);
        Row {
            ia,
            oa: Some(oa),
            raw: 3,
            count,
            entry_shift: 12,
            skipped: 0,
            level,
            kind,
            linear,
            inherited,
            changed,
            mark,
        }
    }

    fn scatter(rows: &[Row]) -> (u64, u64) {
        let mut scatter = Scatter::default();
        rows.iter().for_each(|row| scatter.add(row));
        (scatter.runs, scatter.linear_bytes >> 12)
    }

    /// A run is what goes on in both addresses, whatever else differs: rows with other rights go on too.
    #[test]
    fn runs_go_on_in_both_addresses() {
        assert_eq!(scatter(&[]), (0, 0));
        assert_eq!(scatter(&[pages(0, 0x8000, 4, true)]), (1, 3));
        assert_eq!(scatter(&[pages(0, 0x8000, 4, true), pages(0x4000, 0xc000, 2, true)]), (1, 5));
        assert_eq!(scatter(&[pages(0, 0x8000, 4, true), pages(0x4000, 0xd000, 2, true)]), (2, 4), "another output");
        assert_eq!(scatter(&[pages(0, 0x8000, 4, true), pages(0x5000, 0xc000, 2, true)]), (2, 4), "a hole between");
        assert_eq!(scatter(&[pages(0, 0x8000, 4, false), pages(0x4000, 0xc000, 1, true)]), (5, 0), "folded");
    }

    /// A slot that goes on where a table of level 2 and one of level 3 begin tells both again.
    #[test]
    fn pages_that_are_told_again_count_once() {
        let table = |ia: u64, level: Level| Row { kind: RecordKind::TABLE, level, ..pages(ia, 0x8000, 1, true) };
        let mut stat = Stat::new(false);
        let begins = [table(1 << 30, Level::L1), table(1 << 30, Level::L2)];
        let more = [table((1 << 30) + (2 << 20), Level::L2)];
        begins.iter().chain(&begins).chain(&more).chain(&more).for_each(|row| stat.table_page(row));
        assert_eq!(stat.pages, Some([0, 0, 0, 1, 2]));
    }

    #[test]
    fn percents_are_rounded() {
        assert_eq!(
            (percent(1, 3), percent(2, 3), percent(0, 5), percent(5, 5)),
            ("33.3%".into(), "66.7%".into(), "0.0%".into(), "100.0%".into())
        );
        assert_eq!((percent(0, 0), percent(u64::MAX, u64::MAX)), ("-".into(), "100.0%".into()));
    }
}
