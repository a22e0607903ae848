// SPDX-License-Identifier: MIT OR Apache-2.0
//! JSON: `docs/s2dump.schema.json` is its description, tested against what this writes.
//!
//! Addresses and registers are strings ("0x..."), because a JSON number loses bits above 2^53; sizes and counts are
//! numbers, and so are page frame numbers, which stand beside addresses. Keys are only added within a major version.

use super::hex::{Hex, SpanJson};
use super::json_row::RowJson;
use super::{Consistency, Format, Heading, Trailer, Verified};
use crate::model::{vm_name, Row, TableFacts};
use crate::names::Names;
use crate::registers::Register;
use crate::words::{self, Word};
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{slot_flags, VmRecord};
use s2dump_vmsa::pkvm::Encoding;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::rc::Rc;

/// Version of the JSON, written in each header.
pub(crate) const FORMAT_VERSION: &str = "1.0";

/// What table a dump or walk is of.
#[derive(Serialize)]
pub(crate) struct TableJson {
    target: String,
    handle: Option<Hex>,
    pid: Option<u32>,
    id: Option<String>,
    protected: Option<bool>,
    vmid: u16,
    registers: Registers,
    page_size_bytes: u64,
    ia_bits: u8,
    pa_bits: u8,
    start_level: i8,
    features: Vec<&'static str>,
    encoding: EncodingJson,
}

#[derive(Serialize)]
struct Registers {
    #[serde(skip_serializing_if = "Option::is_none")]
    vtcr_el2: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcr_el2: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mair_el2: Option<Hex>,
    root: Hex,
    root_pfn: u64,
}

/// How software bits, invalid entries and frames are read.
#[derive(Serialize)]
pub(crate) struct EncodingJson {
    id: u16,
    name: Word,
}

impl EncodingJson {
    /// Describes `encoding`.
    pub(crate) fn new(encoding: Encoding) -> Self {
        Self { id: encoding.0, name: words::encoding_name(encoding) }
    }
}

impl TableJson {
    /// Describes `table`, of `vm` if that is known.
    pub(crate) fn new(table: &TableFacts, vm: Option<&VmRecord>) -> Self {
        let geometry = &table.geometry;
        let page_shift = geometry.granule().page_shift();
        Self {
            target: table.name(),
            handle: table.target.guest_handle().map(|handle| Hex(handle.into())),
            pid: vm.map(|vm| vm.pid).filter(|&pid| pid != 0),
            id: vm.and_then(vm_name).map(str::to_owned),
            protected: table.target.guest_handle().map(|_| table.is_protected()),
            vmid: table.vmid,
            registers: Registers {
                vtcr_el2: (table.register_name() == Register::Vtcr).then_some(Hex(table.register)),
                tcr_el2: (table.register_name() == Register::Tcr).then_some(Hex(table.register)),
                mair_el2: table.mair.map(Hex),
                root: Hex(table.root),
                root_pfn: table.root >> page_shift,
            },
            page_size_bytes: 1 << page_shift,
            ia_bits: geometry.ia_bits(),
            pa_bits: geometry.pa_bits(),
            start_level: geometry.start_level().get(),
            features: table.feature_names(),
            encoding: EncodingJson::new(table.encoding),
        }
    }
}

#[derive(Serialize)]
struct HeaderJson {
    r#type: &'static str,
    format: &'static str,
    version: &'static str,
    #[serde(flatten)]
    table: TableJson,
    #[serde(flatten)]
    span: SpanJson,
    mode: &'static str,
    consistency: &'static str,
    budget: u32,
    #[serde(skip_serializing_if = "FilterJson::is_empty")]
    filter: FilterJson,
}

/// Which rows were asked for; nothing if all.
pub(super) type FilterJson = BTreeMap<&'static str, String>;

/// Makes it of options and their lists.
pub(super) fn filter_json(filter: &[(&'static str, String)]) -> FilterJson {
    filter.iter().cloned().collect()
}

/// How a table ended.
#[derive(Serialize)]
pub(super) struct TrailerJson {
    r#type: &'static str,
    ranges: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    holes_left_out: Option<u64>,
    records: u64,
    calls: u64,
    descriptors_visited: u64,
    max_descriptors_per_call: u32,
    complete: bool,
    incomplete_reason: Option<String>,
    consistency: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<ChangesJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    longest_hold_ns: Option<u64>,
    status: Option<u32>,
    problems: u64,
    digest: Option<Hex>,
    verify: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    second_digest: Option<Hex>,
}

/// Where the table was seen to change.
#[derive(Serialize)]
struct ChangesJson {
    places: u64,
    first: Hex,
    first_pfn: u64,
}

impl TrailerJson {
    /// Describes `trailer` of a table with pages of `1 << page_shift` bytes.
    pub(super) fn new(trailer: &Trailer, page_shift: u32) -> Self {
        let outcome = &trailer.outcome;
        let (verify, second_digest) = match trailer.verified {
            None => ("not-asked", None),
            Some(Verified::Same) => ("same", None),
            Some(Verified::Failed) => ("failed", None),
            Some(Verified::Skipped) => ("skipped", None),
            Some(Verified::Changed { second, .. }) => ("changed", Some(Hex(second))),
        };
        Self {
            r#type: "trailer",
            ranges: trailer.rows,
            holes_left_out: trailer.holes,
            records: outcome.records,
            calls: outcome.calls,
            descriptors_visited: outcome.visited,
            max_descriptors_per_call: outcome.max_visited,
            complete: trailer.incomplete().is_none(),
            incomplete_reason: trailer.incomplete(),
            consistency: match trailer.consistency() {
                Consistency::Atomic => "atomic",
                Consistency::PerCall(..) | Consistency::OneOfSeveral | Consistency::Nothing => "per-call",
                Consistency::Dying(_) => "dying",
                Consistency::Image => "image",
            },
            changes: trailer.changes.first.map(|first| ChangesJson {
                places: trailer.changes.places,
                first: Hex(first),
                first_pfn: first >> page_shift,
            }),
            longest_hold_ns: outcome.hold.nanoseconds(),
            status: outcome.status.map(|Status(status)| status),
            problems: trailer.issues,
            digest: outcome.digest.map(Hex),
            verify,
            second_digest,
        }
    }
}

/// How objects are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// One object with `header`, `ranges` and `trailer`.
    Document,
    /// One object per line.
    Lines,
}

/// Writes JSON.
pub(crate) struct Json {
    framing: Framing,
    table: Option<TableFacts>,
    rows: bool,
    is_first: bool,
    names: Rc<Names>,
}

impl Json {
    /// Writes with `framing`.
    pub(crate) fn new(framing: Framing) -> Self {
        Self { framing, table: None, rows: true, is_first: true, names: Rc::default() }
    }
}

impl Format for Json {
    fn begin(&mut self, out: &mut dyn Write, heading: &Heading) -> io::Result<()> {
        let table = &heading.table;
        self.table = Some(*table);
        self.rows = heading.rows;
        self.names = Rc::clone(&heading.names);
        let header = HeaderJson {
            r#type: "header",
            format: "s2dump.dump",
            version: FORMAT_VERSION,
            table: TableJson::new(table, heading.vm.as_ref()),
            span: SpanJson::new(table.start, table.end, table.geometry.granule().page_shift()),
            mode: if heading.exact { "exact" } else { "folded" },
            // What was asked of EL2; the trailer says what came of it.
            consistency: match (table.is_image(), table.has(slot_flags::ATOMIC)) {
                (true, _) => "image",
                (false, true) => "atomic",
                (false, false) => "per-call",
            },
            budget: table.budget,
            filter: filter_json(&heading.filter),
        };
        if self.framing == Framing::Document {
            write!(out, "{{\"header\":")?;
        }
        serde_json::to_writer(&mut *out, &header)?;
        match self.framing {
            Framing::Document => write!(out, ",\n\"ranges\":["),
            Framing::Lines => writeln!(out),
        }
    }

    fn row(&mut self, out: &mut dyn Write, row: &Row) -> io::Result<()> {
        let (Some(table), true) = (&self.table, self.rows) else { return Ok(()) };
        let range = RowJson::new("range", row, table)
            .named(self.names.of_row(row).as_ref(), table.geometry.granule().page_shift());
        if self.framing == Framing::Lines {
            serde_json::to_writer(&mut *out, &range)?;
            return writeln!(out);
        }
        write!(out, "{}", if self.is_first { "\n" } else { ",\n" })?;
        self.is_first = false;
        Ok(serde_json::to_writer(out, &range)?)
    }

    fn end(&mut self, out: &mut dyn Write, trailer: &Trailer) -> io::Result<()> {
        let Some(table) = &self.table else { return Ok(()) };
        if self.framing == Framing::Document {
            write!(out, "\n],\n\"trailer\":")?;
        }
        serde_json::to_writer(&mut *out, &TrailerJson::new(trailer, table.geometry.granule().page_shift()))?;
        writeln!(out, "{}", if self.framing == Framing::Document { "}" } else { "" })
    }

    fn tells_consistency(&self) -> bool {
        true
    }
}
