// SPDX-License-Identifier: MIT OR Apache-2.0
//! JSON: `docs/s2dump.schema.json` is its description, tested against what this writes.
//!
//! Addresses and registers are strings ("0x..."), because a JSON number loses bits above 2^53; sizes and counts are
//! numbers. Keys are only added within a major version.

use super::table::{encoding_name, feature_list};
use super::{Consistency, Format, Heading, Trailer, Verified};
use crate::model::{vm_name, Row, Table};
use crate::words::{self, Word};
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{slot_flags, VmRecord};
use s2dump_vmsa::stage2::{Permissions, Stage2Leaf};
use serde::{Serialize, Serializer};
use std::io::{self, Write};

/// Version of the JSON, written in each header.
pub(crate) const FORMAT_VERSION: &str = "1.0";

/// A number written as a hexadecimal string.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hex(pub(crate) u64);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

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
    vtcr_el2: Hex,
    root: Hex,
}

#[derive(Serialize)]
struct EncodingJson {
    id: u16,
    name: String,
}

impl TableJson {
    /// Describes `table`, of `vm` if that is known.
    pub(crate) fn new(table: &Table, vm: Option<&VmRecord>) -> Self {
        let header = &table.header;
        Self {
            target: table.name(),
            handle: table.target().guest_handle().map(|handle| Hex(handle.into())),
            pid: vm.map(|vm| vm.pid).filter(|&pid| pid != 0),
            id: vm.and_then(vm_name).map(str::to_owned),
            protected: (!table.is_image()).then_some(table.is_protected()),
            vmid: header.vmid,
            registers: Registers { vtcr_el2: Hex(header.vtcr), root: Hex(header.root) },
            page_size_bytes: 1 << table.geometry.granule().page_shift(),
            ia_bits: header.ia_bits,
            pa_bits: header.pa_bits,
            start_level: header.start_level,
            features: feature_list(table),
            encoding: EncodingJson { id: header.encoding, name: encoding_name(header.encoding) },
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
    start: Hex,
    end: Hex,
    mode: &'static str,
    consistency: &'static str,
    budget: u32,
}

/// A row: a run of entries, or one step of a walk.
#[derive(Serialize)]
pub(crate) struct RowJson {
    r#type: &'static str,
    start: Hex,
    end: Hex,
    size_bytes: u64,
    count: u64,
    level: i8,
    kind: &'static str,
    output: Option<Hex>,
    output_linear: Option<bool>,
    descriptor: Hex,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<Attributes>,
    state: Option<&'static str>,
    annotation: Option<&'static str>,
}

#[derive(Serialize)]
struct Attributes {
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execute: Option<&'static str>,
    memory: Word,
    shareability: &'static str,
    access_flag: bool,
    contiguous: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    contiguous_runs: Option<&'static str>,
    dirty_bit_modifier: bool,
    software_bits: u8,
    #[serde(flatten)]
    extensions: Extensions,
    other_bits: Hex,
}

/// Fields of extensions: each only where it says something.
#[derive(Serialize)]
struct Extensions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pi_index: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dirty: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    po_index: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pbha: Option<u8>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    fnxs: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_translation: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    assured_only: bool,
}

impl Extensions {
    fn new(leaf: &Stage2Leaf<'_>) -> Self {
        let (pi_index, dirty) = match leaf.permissions() {
            Permissions::Direct { .. } => (None, None),
            Permissions::Indirect { pi_index, dirty } => (Some(pi_index), Some(dirty)),
        };
        Self {
            pi_index,
            dirty,
            po_index: leaf.po_index(),
            pbha: Some(leaf.pbha()).filter(|&pbha| pbha != 0 && leaf.po_index().is_none()),
            fnxs: leaf.fnxs(),
            no_translation: leaf.no_translation(),
            assured_only: leaf.assured_only(),
        }
    }
}

impl RowJson {
    /// Describes `row` as an object of `type`.
    pub(crate) fn new(r#type: &'static str, row: &Row, table: &Table) -> Self {
        let leaf = words::leaf(row, table);
        let runs = words::runs(row, table).map(words::runs_word).map(bare);
        let direct = leaf.and_then(|leaf| match leaf.permissions() {
            Permissions::Direct { ap, xn } => Some((ap, xn)),
            Permissions::Indirect { .. } => None,
        });
        Self {
            r#type,
            start: Hex(row.ia),
            end: Hex(row.end()),
            size_bytes: row.size(),
            count: row.count,
            level: row.level.get(),
            kind: words::kind(row),
            output: row.oa.map(Hex),
            output_linear: leaf.as_ref().map(|_| row.linear),
            descriptor: Hex(row.raw),
            state: leaf.as_ref().and_then(|leaf| words::page_state(leaf, table)).map(bare),
            annotation: words::annotation(row, table).map(|(word, _)| bare(word)),
            attributes: leaf.map(|leaf| Attributes {
                read: direct.map(|(ap, _)| ap.is_readable()),
                write: direct.map(|(ap, _)| ap.is_writable()),
                execute: direct.map(|(_, xn)| words::execute(xn)),
                memory: words::memory(leaf.mem_attr()),
                shareability: words::shareability(leaf.shareability()),
                access_flag: leaf.access_flag(),
                contiguous: leaf.contiguous(),
                // A step is one entry: what the others of its run are is not known.
                contiguous_runs: runs.filter(|_| r#type != "step"),
                dirty_bit_modifier: leaf.dirty_bit_modifier(),
                software_bits: leaf.software_bits(),
                extensions: Extensions::new(&leaf),
                other_bits: Hex(leaf.other_bits()),
            }),
        }
    }
}

/// Takes the alarm out of a word: the table shouts, JSON does not.
fn bare(word: &'static str) -> &'static str {
    match word {
        "LOCKED!" => "locked",
        word => word.strip_suffix('!').unwrap_or(word),
    }
}

#[derive(Serialize)]
struct TrailerJson {
    r#type: &'static str,
    ranges: u64,
    records: u64,
    calls: u64,
    descriptors_visited: u64,
    max_descriptors_per_call: u32,
    complete: bool,
    incomplete_reason: Option<String>,
    consistency: &'static str,
    status: Option<u32>,
    problems: u64,
    digest: Option<Hex>,
    verify: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    second_digest: Option<Hex>,
}

impl TrailerJson {
    fn new(trailer: &Trailer) -> Self {
        let outcome = &trailer.outcome;
        let (verify, second_digest) = match trailer.verified {
            None => ("not-asked", None),
            Some(Verified::Same) => ("same", None),
            Some(Verified::Failed) => ("failed", None),
            Some(Verified::Changed { second, .. }) => ("changed", Some(Hex(second))),
        };
        Self {
            r#type: "trailer",
            ranges: trailer.rows,
            records: outcome.records,
            calls: outcome.calls,
            descriptors_visited: outcome.visited,
            max_descriptors_per_call: outcome.max_visited,
            complete: trailer.incomplete().is_none(),
            incomplete_reason: trailer.incomplete(),
            consistency: match trailer.consistency() {
                Consistency::Atomic => "atomic",
                Consistency::PerCall(_) => "per-call",
                Consistency::Image => "image",
            },
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
    table: Option<Table>,
    is_first: bool,
}

impl Json {
    /// Writes with `framing`.
    pub(crate) fn new(framing: Framing) -> Self {
        Self { framing, table: None, is_first: true }
    }
}

impl Format for Json {
    fn begin(&mut self, out: &mut dyn Write, heading: &Heading) -> io::Result<()> {
        let table = &heading.table;
        self.table = Some(*table);
        let header = HeaderJson {
            r#type: "header",
            format: "s2dump.dump",
            version: FORMAT_VERSION,
            table: TableJson::new(table, heading.vm.as_ref()),
            start: Hex(table.header.start),
            end: Hex(table.end()),
            mode: if heading.exact { "exact" } else { "folded" },
            // What was asked of EL2; the trailer says what came of it.
            consistency: match (table.is_image(), table.has(slot_flags::ATOMIC)) {
                (true, _) => "image",
                (false, true) => "atomic",
                (false, false) => "per-call",
            },
            budget: table.header.budget,
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
        let Some(table) = &self.table else { return Ok(()) };
        let range = RowJson::new("range", row, table);
        if self.framing == Framing::Lines {
            serde_json::to_writer(&mut *out, &range)?;
            return writeln!(out);
        }
        write!(out, "{}", if self.is_first { "\n" } else { ",\n" })?;
        self.is_first = false;
        Ok(serde_json::to_writer(out, &range)?)
    }

    fn end(&mut self, out: &mut dyn Write, trailer: &Trailer) -> io::Result<()> {
        if self.framing == Framing::Document {
            write!(out, "\n],\n\"trailer\":")?;
        }
        serde_json::to_writer(&mut *out, &TrailerJson::new(trailer))?;
        writeln!(out, "{}", if self.framing == Framing::Document { "}" } else { "" })
    }

    fn tells_consistency(&self) -> bool {
        true
    }
}
