// SPDX-License-Identifier: MIT OR Apache-2.0
//! The text of the kernel's debugfs file `stage2_page_tables`, byte for byte.
//!
//! As there (srctree/arch/arm64/kvm/ptdump.c over srctree/arch/arm64/mm/ptdump.c), neighbors merge when level and shown
//! bits are equal, output addresses and page states are not shown, and a run of unmapped entries has no columns. An entry that
//! is no leaf counts as zero, as in the kernel's file that s2dump repairs, because bits that software keeps there are no rights.
//! So a page that the host gave away is a hole. By the kernel's rule it would be a run of its own, with an `F` and whatever
//! rights the bits of its owner look like: bit 1 is set where the hypervisor owns it.
//!
//! [`Dialect::V10`] is the text of Linux 6.13 to 6.17, from the series' tenth version: one XN bit, and `X` where
//! execution is *denied* (the kernel had it inverted). Those kernels lost the last run; here it is printed.
//!
//! [`Dialect::Android`] is the text of android16-6.12: `X` where EL1 and EL0 may execute, and the two software bits that hold
//! the page state. The kernel's own text under pKVM has a blank AF column and no last run; here both are printed.

use super::{Format, Heading, Trailer};
use crate::model::Row;
use s2dump_abi::slot::RecordKind;
use s2dump_vmsa::level::Level;
use std::io::{self, Write};

/// Which kernel's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Linux 7.3.
    V7_3,
    /// Linux 6.13 to 6.17.
    V10,
    /// Android's common kernel android16-6.12.
    Android,
}

/// A column: `set` if the bits of `mask` equal `value`, else `clear`; nothing, not even a space, if that is `None`.
struct Column {
    mask: u64,
    value: u64,
    set: &'static str,
    clear: Option<&'static str>,
}

const fn column(mask: u64, value: u64, set: &'static str, clear: Option<&'static str>) -> Column {
    Column { mask, value, set, clear }
}

const VALID: u64 = 1 << 0;
const TYPE: u64 = 0b11;
const TYPE_BLOCK: u64 = 0b01;
const S2AP_R: u64 = 1 << 6;
const S2AP_W: u64 = 1 << 7;
const AF: u64 = 1 << 10;
const XN: u64 = 0b11 << 53;
const XN_OLD: u64 = 1 << 54;

const COLUMNS_7_3: [Column; 9] = [
    column(VALID, VALID, " ", Some("F")),
    column(S2AP_R, S2AP_R, "R", Some(" ")),
    column(S2AP_W, S2AP_W, "W", Some(" ")),
    column(XN, 0b00 << 53, "px ux ", None),
    column(XN, 0b01 << 53, "PXNux ", None),
    column(XN, 0b10 << 53, "PXNUXN", None),
    column(XN, 0b11 << 53, "px UXN", None),
    column(AF, AF, "AF", Some("  ")),
    column(TYPE, TYPE_BLOCK, "BLK", Some("   ")),
];

const COLUMNS_V10: [Column; 6] = [
    column(VALID, VALID, " ", Some("F")),
    column(S2AP_R | VALID, S2AP_R | VALID, "R", Some(" ")),
    column(S2AP_W | VALID, S2AP_W | VALID, "W", Some(" ")),
    column(XN_OLD | VALID, VALID, " ", Some("X")),
    column(AF | VALID, AF | VALID, "AF", Some("  ")),
    column(TYPE, TYPE_BLOCK, "BLK", Some("   ")),
];

const SW0: u64 = 1 << 55;
const SW1: u64 = 1 << 56;

const COLUMNS_ANDROID: [Column; 8] = [
    column(VALID, VALID, " ", Some("F")),
    column(S2AP_R | VALID, S2AP_R | VALID, "R", Some(" ")),
    column(S2AP_W | VALID, S2AP_W | VALID, "W", Some(" ")),
    column(XN | VALID, VALID, "X", Some(" ")),
    column(AF | VALID, AF | VALID, "AF", Some("  ")),
    column(TYPE, TYPE_BLOCK, "BLK", Some("   ")),
    column(SW0 | VALID, SW0 | VALID, "SW0", Some("   ")),
    column(SW1 | VALID, SW1 | VALID, "SW1", Some("   ")),
];

/// The run being built.
#[derive(Clone, Copy)]
struct Run {
    start: u64,
    end: u64,
    level: Level,
    shown: u64,
}

/// Writes one of the dialects.
pub(crate) struct Ptdump {
    columns: &'static [Column],
    mask: u64,
    run: Option<Run>,
}

impl Ptdump {
    /// Writes `dialect`.
    pub(crate) fn new(dialect: Dialect) -> Self {
        let columns: &'static [Column] = match dialect {
            Dialect::V7_3 => &COLUMNS_7_3,
            Dialect::V10 => &COLUMNS_V10,
            Dialect::Android => &COLUMNS_ANDROID,
        };
        Self { columns, mask: columns.iter().fold(0, |mask, column| mask | column.mask), run: None }
    }

    fn flush(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let Some(run) = self.run.take() else { return Ok(()) };
        let mut size = (run.end - run.start) >> 10;
        let mut units = "KMGTPE".chars();
        let mut unit = units.next();
        while size & 1023 == 0 {
            let Some(next) = units.next() else { break };
            (size, unit) = (size >> 10, Some(next));
        }
        let (start, end, level, unit) = (run.start, run.end, run.level.get(), unit.unwrap_or('E'));
        write!(out, "{start:#018x}-{end:#018x}   {size:>9}{unit} {level}")?;
        if run.shown != 0 {
            for column in self.columns {
                let is_set = run.shown & column.mask == column.value;
                if let Some(text) = if is_set { Some(column.set) } else { column.clear } {
                    write!(out, " {text}")?;
                }
            }
        }
        writeln!(out)
    }
}

impl Format for Ptdump {
    fn begin(&mut self, out: &mut dyn Write, _: &Heading) -> io::Result<()> {
        writeln!(out, "---[ Guest IPA ]---")
    }

    fn row(&mut self, out: &mut dyn Write, row: &Row) -> io::Result<()> {
        let shown = if row.kind == RecordKind::LEAF { row.raw & self.mask } else { 0 };
        match &mut self.run {
            // Damaged input may have a gap: no run spans it.
            Some(run) if run.level == row.level && run.shown == shown && run.end == row.ia => run.end = row.end(),
            _ => {
                self.flush(out)?;
                self.run = Some(Run { start: row.ia, end: row.end(), level: row.level, shown });
            }
        }
        Ok(())
    }

    fn end(&mut self, out: &mut dyn Write, _: &Trailer) -> io::Result<()> {
        self.flush(out)
    }

    fn tells_consistency(&self) -> bool {
        false
    }

    fn tells_faults(&self) -> bool {
        false
    }
}
