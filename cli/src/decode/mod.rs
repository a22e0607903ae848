// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors by themselves, as they stand in a log or a register dump: what each bit says, as text or JSON.

mod fields;
mod input;

pub(crate) use self::fields::{better_level, decode, Decoded};
pub(crate) use self::input::{words_of, Lines, Told};

use crate::format::hex::Hex;
use crate::format::json::FORMAT_VERSION;
use crate::numbers::Size;
use crate::words::fault_name;
use anstyle::{AnsiColor, Style};
use s2dump_vmsa::geometry::Regime;
use s2dump_vmsa::{Geometry, Level};
use serde::Serialize;
use std::io::{self, Write};

impl Decoded {
    /// Writes it for people, with color if that is wanted. `better` is a level at which it would make more sense.
    pub(crate) fn write_text(&self, out: &mut dyn Write, color: bool, better: Option<Level>) -> io::Result<()> {
        let styled = |style: Style| if color { style } else { Style::new() };
        let (bold, red) = (styled(Style::new().bold()), styled(Style::new().fg_color(Some(AnsiColor::Red.into()))));
        write!(out, "{bold}{:#018x}  L{} {}", self.raw, self.level.get(), self.kind)?;
        match self.output {
            Some(output) => write!(out, ", {} -> {output:#x}", Size(1 << self.entry_shift))?,
            None => write!(out, ", {}", Size(1 << self.entry_shift))?,
        }
        match self.fault {
            Some(fault) => writeln!(out, ": {} fault, level {}{bold:#}", fault_name(fault), self.level.get())?,
            None => writeln!(out, "{bold:#}")?,
        }
        for field in &self.fields {
            let bits = if field.hi == field.lo { field.lo.to_string() } else { format!("{}:{}", field.hi, field.lo) };
            let width = field.hi - field.lo + 1;
            let value = match usize::try_from(width) {
                Ok(width @ ..=4) => format!("{:0width$b}", field.value),
                _ => format!("{:#x}", field.value),
            };
            writeln!(out, "  {bits:<6} {:<15} {value:<14} {}", field.name, field.meaning)?;
        }
        if self.unknown == 0 {
            return writeln!(out, "  bits unknown: none");
        }
        let bits: Vec<String> =
            (0..64).rev().filter(|bit| self.unknown >> bit & 1 == 1).map(|bit| bit.to_string()).collect();
        writeln!(out, "  {red}bits unknown: {} ({:#x}){red:#}", bits.join(" "), self.unknown)?;
        match better {
            Some(level) => writeln!(out, "  level {}? There it is a page or block with fewer such bits", level.get()),
            None => Ok(()),
        }
    }

    /// Writes it as one line of JSON.
    pub(crate) fn write_json(&self, out: &mut dyn Write, geometry: &Geometry) -> io::Result<()> {
        #[derive(Serialize)]
        struct DecodeJson<'a> {
            r#type: &'static str,
            format: &'static str,
            version: &'static str,
            descriptor: Hex,
            regime: &'static str,
            page_size_bytes: u64,
            level: i8,
            kind: &'static str,
            fault: Option<&'static str>,
            output: Option<Hex>,
            output_pfn: Option<u64>,
            size_bytes: u64,
            fields: Vec<FieldJson<'a>>,
            unknown_bits: Hex,
        }
        #[derive(Serialize)]
        struct FieldJson<'a> {
            name: &'static str,
            hi: u32,
            lo: u32,
            value: Hex,
            meaning: Option<&'a str>,
        }
        let page_shift = geometry.granule().page_shift();
        let fields = self.fields.iter().map(|field| FieldJson {
            name: field.name,
            hi: field.hi,
            lo: field.lo,
            value: Hex(field.value),
            meaning: Some(field.meaning.as_ref()).filter(|&meaning| meaning != "-"),
        });
        let decoded = DecodeJson {
            r#type: "decode",
            format: "s2dump.decode",
            version: FORMAT_VERSION,
            descriptor: Hex(self.raw),
            regime: match geometry.regime() {
                Regime::Stage2 => "stage2",
                Regime::El2 => "el2",
                Regime::El2And0 => "el2&0",
            },
            page_size_bytes: 1 << page_shift,
            level: self.level.get(),
            kind: self.kind,
            fault: self.fault.map(fault_name),
            output: self.output.map(Hex),
            output_pfn: self.output.map(|output| output >> page_shift),
            size_bytes: 1 << self.entry_shift,
            fields: fields.collect(),
            unknown_bits: Hex(self.unknown),
        };
        serde_json::to_writer(&mut *out, &decoded)?;
        writeln!(out)
    }
}
