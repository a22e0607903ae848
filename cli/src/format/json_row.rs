// SPDX-License-Identifier: MIT OR Apache-2.0
//! A row as JSON: what `docs/s2dump.schema.json` calls a run.

use super::hex::{Hex, SpanJson};
use crate::leaf::{self, AnyLeaf};
use crate::meaning;
use crate::model::{target_name, Row, TableFacts};
use crate::names::Named;
use crate::words::{self, Word};
use s2dump_abi::slot::memory_flags;
use s2dump_abi::target::Target;
use s2dump_vmsa::el2::El2Leaf;
use s2dump_vmsa::fault::Privilege;
use s2dump_vmsa::pkvm::Owner;
use s2dump_vmsa::stage2::{Permissions, Stage2Leaf};
use s2dump_vmsa::Regime;
use serde::Serialize;

/// A row: a run of entries, or one step of a walk.
#[derive(Serialize)]
pub(crate) struct RowJson {
    r#type: &'static str,
    #[serde(flatten)]
    span: SpanJson,
    size_bytes: u64,
    count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    skipped_bytes: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    changed_before: bool,
    level: i8,
    kind: &'static str,
    output: Option<Hex>,
    output_pfn: Option<u64>,
    output_linear: Option<bool>,
    descriptor: Hex,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<Attributes>,
    state: Option<&'static str>,
    annotation: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<OwnerJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mark: Option<&'static str>,
    #[serde(flatten)]
    named: NamedJson,
}

/// What is told of input addresses beside their table, as far as anything is.
#[derive(Default, Serialize)]
pub(crate) struct NamedJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_slot: Option<MemorySlotJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    named_partly: bool,
}

#[derive(Serialize)]
struct MemorySlotJson {
    id: u16,
    hva: Option<Hex>,
    hva_pfn: Option<u64>,
    read_only: bool,
    flags: u32,
}

impl NamedJson {
    /// Describes what is known, if anything is, of addresses of pages of `1 << page_shift` bytes.
    pub(crate) fn new(named: Option<&Named<'_>>, page_shift: u32) -> Self {
        let Some(named) = named else { return Self::default() };
        let memory_slot = named.span.memory.map(|memory| MemorySlotJson {
            id: memory.id,
            hva: named.hva().map(Hex),
            hva_pfn: named.hva().map(|hva| hva >> page_shift),
            read_only: memory.flags & memory_flags::READ_ONLY != 0,
            flags: memory.flags,
        });
        Self { memory_slot, name: named.span.text.clone(), named_partly: !named.is_whole }
    }
}

/// Who owns pages that the host donated.
#[derive(Serialize)]
struct OwnerJson {
    target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address_pfn: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address_linear: Option<bool>,
}

impl OwnerJson {
    fn new(owner: Owner, row: &Row, table: &TableFacts) -> Option<Self> {
        let alone =
            |target: &str| Some(Self { target: target.into(), address: None, address_pfn: None, address_linear: None });
        match owner {
            Owner::Hyp => alone(&target_name(Target::HYP)),
            Owner::SomeGuest => alone("guest"),
            Owner::Ffa => alone("ffa"),
            Owner::Protected => alone("protected"),
            Owner::Guest { handle, gfn } => Some(Self {
                target: target_name(Target::guest(handle)),
                address: Some(Hex(gfn << table.geometry.granule().page_shift())),
                address_pfn: Some(gfn),
                address_linear: Some(row.linear),
            }),
            Owner::Unknown { .. } => None,
        }
    }
}

#[derive(Serialize)]
struct Attributes {
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execute: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    el0_read: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    el0_write: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attr_index: Option<u8>,
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

/// Fields of extensions, and of stage 1: each only where it says something.
#[derive(Default, Serialize)]
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
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    non_secure: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    not_global: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    guarded: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inherited: Vec<Word>,
}

impl Extensions {
    fn of_el2(leaf: &El2Leaf<'_>, regime: Regime) -> Self {
        Self {
            pbha: Some(leaf.pbha()).filter(|&pbha| pbha != 0),
            no_translation: leaf.no_translation(),
            non_secure: leaf.is_non_secure(),
            not_global: leaf.is_not_global(),
            guarded: leaf.is_guarded(),
            inherited: words::table_attrs(leaf.inherited(), regime).collect(),
            ..Self::default()
        }
    }

    fn of_stage2(leaf: &Stage2Leaf<'_>) -> Self {
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
            ..Self::default()
        }
    }
}

impl Attributes {
    fn new(leaf: &AnyLeaf<'_>, row: &Row, table: &TableFacts) -> Self {
        let (rights, el0, attr_index, extensions) = match leaf {
            AnyLeaf::Stage2(leaf) => {
                let rights = match leaf.permissions() {
                    Permissions::Direct { ap, xn } => Some((ap.is_readable(), ap.is_writable(), words::execute(xn))),
                    Permissions::Indirect { .. } => None,
                };
                (rights, None, None, Extensions::of_stage2(leaf))
            }
            AnyLeaf::El2(leaf, regime) => {
                let el2 = leaf.rights(Privilege::Privileged, table.wxn);
                let el0 = leaf.rights(Privilege::Unprivileged, table.wxn);
                let execute = words::execute_at_el2(el2.execute, el0.execute);
                let el0 = (*regime == Regime::El2And0).then_some((el0.read, el0.write));
                let extensions = Extensions::of_el2(leaf, *regime);
                (Some((el2.read, el2.write, execute)), el0, Some(leaf.attr_index()), extensions)
            }
        };
        Self {
            read: rights.map(|(read, ..)| read),
            write: rights.map(|(_, write, _)| write),
            execute: rights.map(|(.., execute)| execute),
            el0_read: el0.map(|(read, _)| read),
            el0_write: el0.map(|(_, write)| write),
            attr_index,
            memory: leaf.memory(table),
            shareability: words::shareability(leaf.shareability()),
            access_flag: leaf.access_flag(),
            contiguous: leaf.contiguous(),
            contiguous_runs: meaning::runs(row, table).map(meaning::runs_word).map(words::bare),
            dirty_bit_modifier: leaf.dirty_bit_modifier(),
            software_bits: leaf.software_bits(),
            extensions,
            other_bits: Hex(leaf.other_bits()),
        }
    }
}

impl RowJson {
    /// Describes `row` as an object of `type`.
    pub(crate) fn new(r#type: &'static str, row: &Row, table: &TableFacts) -> Self {
        let leaf = leaf::of_row(row, table);
        let page_shift = table.geometry.granule().page_shift();
        let attributes = leaf.as_ref().map(|leaf| Attributes::new(leaf, row, table));
        Self {
            r#type,
            span: SpanJson::new(row.ia, row.end(), page_shift),
            size_bytes: row.size(),
            count: row.count,
            skipped_bytes: row.skipped,
            changed_before: row.changed.at_start,
            level: row.level.get(),
            kind: meaning::kind(row),
            output: row.oa.map(Hex),
            output_pfn: row.oa.map(|oa| oa >> page_shift),
            output_linear: leaf.as_ref().map(|_| row.linear),
            descriptor: Hex(row.raw),
            // Of what is invalid, the kind says it.
            fault: leaf::fault_of_row(row, table).filter(|_| row.oa.is_some() || leaf.is_some()).map(words::fault_name),
            state: leaf.as_ref().and_then(|leaf| leaf.page_state(table)).map(words::bare),
            annotation: meaning::annotation(row, table).map(|(word, _)| words::bare(word)),
            owner: meaning::owner(row, table).and_then(|owner| OwnerJson::new(owner, row, table)),
            mark: words::mark(row.mark),
            named: NamedJson::default(),
            // A step is one entry, and does not show the other entries of its contiguous run.
            attributes: attributes.map(|all| match r#type {
                "step" => Attributes { contiguous_runs: None, ..all },
                _ => all,
            }),
        }
    }
}

impl RowJson {
    /// Adds what is known of its input addresses, if anything is.
    pub(crate) fn named(self, named: Option<&Named<'_>>, page_shift: u32) -> Self {
        Self { named: NamedJson::new(named, page_shift), ..self }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
