// SPDX-License-Identifier: MIT OR Apache-2.0
//! A walk: the descriptor at each level for one input address, and where it ends.

use super::grid::{write_text, Cell, Grid, Head};
use super::hex::Hex;
use super::json::{filter_json, FilterJson, TableJson, FORMAT_VERSION};
use super::json_row::{NamedJson, RowJson};
use crate::filter::{Filter, Wanted};
use crate::leaf;
use crate::meaning;
use crate::model::{Missing, Row, TableFacts};
use crate::names::{Named, Names};
use crate::words;
use s2dump_abi::slot::{memory_flags, RecordKind, VmRecord};
use s2dump_vmsa::fault::Fault;
use s2dump_vmsa::{Level, PhysAddr};
use serde::Serialize;
use std::io::{self, Write};
use std::rc::Rc;

/// A walk, ready to be written.
pub(crate) struct Walk {
    /// The table.
    pub(crate) table: TableFacts,
    /// The VM, if a list was read too.
    pub(crate) vm: Option<VmRecord>,
    /// The address.
    pub(crate) address: u64,
    /// The steps, top first: at most five.
    pub(crate) steps: Vec<Row>,
    /// The steps come from a capture of leaves: tables above the last one are not known.
    pub(crate) from_leaves: bool,
    /// The VM was being torn down.
    pub(crate) is_dying: bool,
    /// What is known of the address beside what the table says.
    pub(crate) names: Rc<Names>,
}

/// Where a walk ends.
enum End {
    Output(u64),
    /// In a leaf, but the capture does not say where it leads.
    Jumps,
    /// With a fault.
    Fault(Fault, Level),
    /// Before its end, for this reason: the MMU goes on.
    Stopped(&'static str),
}

impl Walk {
    fn end(&self) -> End {
        let Some(last) = self.steps.last() else { return End::Stopped("no descriptor was read") };
        match (leaf::fault_of_row(last, &self.table), last.kind, last.oa) {
            (Some(fault), ..) => End::Fault(fault, last.level),
            (None, RecordKind::LEAF, Some(oa)) => End::Output(oa.wrapping_add(self.address.wrapping_sub(last.ia))),
            (None, RecordKind::LEAF, None) => End::Jumps,
            (None, RecordKind::TABLE_LOOP, _) => End::Stopped("the walk stops at a loop"),
            (None, RecordKind::TABLE_OUTSIDE, _) => End::Stopped("the walk stops at a table that cannot be read"),
            _ => End::Stopped("the walk ends in a table"),
        }
    }

    /// Returns the index of `step` in its table. The root may concatenate several tables, so its index counts through all of them.
    fn index(&self, step: &Row) -> u64 {
        let index = self.address >> step.entry_shift;
        if step.level == self.table.geometry.start_level() {
            index
        } else {
            index & ((1 << self.table.geometry.granule().index_bits()) - 1)
        }
    }

    /// Writes it for people, of its steps those that are `wanted`; their terminal, if it is one, is so wide.
    pub(crate) fn write_text(&self, out: &mut dyn Write, wanted: &Wanted, width: Option<usize>) -> io::Result<()> {
        writeln!(out, "{} input address {:#x}", self.table.name(), self.address)?;
        if wanted.rows {
            self.write_steps(out, &wanted.filter, width)?;
        }
        if self.is_dying {
            writeln!(out, "INCOMPLETE: the VM is being torn down, so pages that it had may be missing")?;
        }
        match self.end() {
            End::Output(oa) => writeln!(out, "output address {oa:#x}"),
            End::Jumps => writeln!(out, "output address not known: the capture is folded and jumps here"),
            End::Fault(Fault::Translation, _) => writeln!(out, "not mapped"),
            End::Fault(fault, level) => {
                writeln!(out, "no access: {} fault, level {}", words::fault_name(fault), level.get())
            }
            End::Stopped(why) => writeln!(out, "not known: {why}"),
        }?;
        self.write_name(out, width)
    }

    fn named(&self) -> Option<Named<'_>> {
        self.names.of(self.address, self.address.checked_add(1)?)
    }

    /// Says in which memory slot the address is, and what is there.
    fn write_name(&self, out: &mut dyn Write, width: Option<usize>) -> io::Result<()> {
        let Some(named) = self.named() else {
            return match self.names.is_known() && self.table.target.guest_handle().is_some() {
                true => writeln!(out, "in no memory slot"),
                false => Ok(()),
            };
        };
        let text = named.span.text.as_deref();
        match (&named.span.memory, named.hva()) {
            (Some(memory), Some(hva)) => {
                let read_only = if memory.flags & memory_flags::READ_ONLY == 0 { "" } else { " (read-only)" };
                let text = text.unwrap_or("what is there is not known");
                let slot = format!("memory slot {}{read_only}, host virtual address {hva:#x}: {text}", memory.id);
                write_text(out, &slot, 2, width)
            }
            _ => text.map_or(Ok(()), |text| write_text(out, &format!("name: {text}"), 2, width)),
        }
    }

    fn write_steps(&self, out: &mut dyn Write, filter: &Filter, width: Option<usize>) -> io::Result<()> {
        let heads = vec![
            Head::words("LV", 2),
            Head::address("TABLE"),
            Head::numbers("INDEX", 5),
            Head::words("DESCRIPTOR", 18),
            Head::words("MEANING", 0),
        ];
        let mut rows: Vec<Vec<Cell>> = Vec::new();
        let mut next_table = (!self.from_leaves).then_some(self.table.root);
        if let (true, Some(step)) = (self.from_leaves, self.steps.first()) {
            let levels = self.table.geometry.start_level().get()..step.level.get();
            // Whether these fit is not known, but for their level.
            let may_fit = |level: &i8| filter.levels.is_empty() || filter.levels.iter().any(|one| one.get() == *level);
            for level in levels.filter(may_fit) {
                rows.push(vec![
                    format!("L{level}").into(),
                    "-".into(),
                    "-".into(),
                    "-".into(),
                    "not in the capture".into(),
                ]);
            }
        }
        for step in &self.steps {
            if filter.is_wanted(step, &self.table) {
                rows.push(vec![
                    format!("L{}", step.level.get()).into(),
                    next_table.map_or("-".into(), Cell::Address),
                    self.index(step).to_string().into(),
                    format!("{:#018x}", step.raw).into(),
                    self.meaning(step).into(),
                ]);
            }
            next_table = step.oa.filter(|_| step.kind == RecordKind::TABLE);
        }
        Grid::new(heads, width).write_all(out, true, &rows)
    }

    /// Says what a stage-1 table says about everything below it.
    fn table_attrs(&self, step: &Row) -> String {
        let geometry = &self.table.geometry;
        let words: Vec<_> = words::table_attrs(geometry.table_attrs(step.raw), geometry.regime()).collect();
        if words.is_empty() {
            String::new()
        } else {
            format!(" {}", words.join(","))
        }
    }

    /// Says why a table is not memory.
    fn outside(&self, step: &Row) -> &'static str {
        let fits = step.oa.is_some_and(|oa| PhysAddr::new(oa).fits(self.table.geometry.pa_bits().into()));
        match (fits, self.table.is_image()) {
            (false, _) => "beyond the output size",
            (true, true) => "not in the memory given",
            (true, false) => "not memory EL2 may read",
        }
    }

    /// Returns why it is not known where the address goes, if the walk stopped where the MMU goes on.
    pub(crate) fn why_not_known(&self) -> Option<String> {
        let End::Stopped(why) = self.end() else { return None };
        let mut missing = Missing::default();
        self.steps.iter().for_each(|step| missing.add(step, &self.table));
        Some(if missing.tables > 0 { missing.to_string() } else { why.into() })
    }

    fn meaning(&self, step: &Row) -> String {
        let to = step.oa.map_or("?".into(), |oa| format!("{oa:#x}"));
        let Some(leaf) = leaf::of_row(step, &self.table) else {
            return match step.kind {
                RecordKind::TABLE => format!("table{} -> {to}", self.table_attrs(step)),
                RecordKind::TABLE_OUTSIDE => format!("table-outside! -> {to}: {}, not followed", self.outside(step)),
                RecordKind::TABLE_LOOP => format!("table-loop! -> {to}: an ancestor, not followed"),
                RecordKind::RESERVED => "reserved!: the level does not allow this type".into(),
                _ if step.raw == 0 => "invalid: nothing mapped".into(),
                _ => format!("invalid: {}", meaning::state(step, &self.table)),
            };
        };
        let mut text = format!(
            "{} {} {} {} {} {}",
            meaning::kind(step),
            leaf.rwx(&self.table),
            leaf.memory(&self.table),
            words::shareability(leaf.shareability()),
            if leaf.access_flag() { "af" } else { "no-af" },
            meaning::state(step, &self.table),
        );
        if leaf.contiguous() {
            text.push_str(" contiguous");
        }
        if leaf.dirty_bit_modifier() {
            text.push_str(" dbm");
        }
        if let Some(extensions) = leaf.extensions() {
            text.push_str(&format!(" {extensions}"));
        }
        if leaf.other_bits() != 0 {
            text.push_str(&format!(" other={:#x}", leaf.other_bits()));
        }
        text + " -> " + &to
    }

    /// Writes it as one JSON object, of its steps those that are `wanted`.
    pub(crate) fn write_json(&self, out: &mut dyn Write, wanted: &Wanted) -> io::Result<()> {
        #[derive(Serialize)]
        struct WalkJson {
            r#type: &'static str,
            format: &'static str,
            version: &'static str,
            #[serde(flatten)]
            table: TableJson,
            address: Hex,
            address_pfn: u64,
            upper_levels_known: bool,
            #[serde(skip_serializing_if = "FilterJson::is_empty")]
            filter: FilterJson,
            steps: Vec<RowJson>,
            mapped: Option<bool>,
            fault: Option<&'static str>,
            output: Option<Hex>,
            output_pfn: Option<u64>,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            dying: bool,
            #[serde(flatten)]
            named: NamedJson,
        }
        let end = self.end();
        let output = match end {
            End::Output(oa) => Some(oa),
            _ => None,
        };
        let page_shift = self.table.geometry.granule().page_shift();
        let is_shown = |step: &&Row| wanted.rows && wanted.filter.is_wanted(step, &self.table);
        let walk = WalkJson {
            r#type: "walk",
            format: "s2dump.walk",
            version: FORMAT_VERSION,
            table: TableJson::new(&self.table, self.vm.as_ref()),
            address: Hex(self.address),
            address_pfn: self.address >> page_shift,
            upper_levels_known: !self.from_leaves,
            filter: filter_json(&wanted.filter.options()),
            steps: self.steps.iter().filter(is_shown).map(|step| RowJson::new("step", step, &self.table)).collect(),
            mapped: match end {
                End::Output(_) | End::Jumps => Some(true),
                End::Fault(..) => Some(false),
                End::Stopped(_) => None,
            },
            fault: match end {
                End::Fault(fault, _) => Some(words::fault_name(fault)),
                _ => None,
            },
            output: output.map(Hex),
            output_pfn: output.map(|oa| oa >> page_shift),
            dying: self.is_dying,
            named: NamedJson::new(self.named().as_ref(), page_shift),
        };
        serde_json::to_writer(&mut *out, &walk)?;
        writeln!(out)
    }
}
