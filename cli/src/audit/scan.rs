// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sights of a whole machine: each kind in one pass over the runs, so that what is alike is looked at once.

use super::cut::{cut, outside_slots, rows, See};
use super::pace::Pace;
use super::pairs::{self, counts};
use super::rules::{On, Rule};
use super::sight::{owner_of, Held, Sight, What};
use crate::machine::frames::FrameRun;
use crate::machine::tree::Tree;
use crate::machine::Machine;
use crate::marks::Marks;
use crate::model::Row;
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::RecordKind;
use s2dump_abi::target::Target;
use s2dump_vmsa::features::Features;
use s2dump_vmsa::pkvm::{Owner, PageState};
use s2dump_vmsa::Geometry;

/// Who is told of a sight that breaks a rule.
pub(super) type Tell<'a> = dyn FnMut(&'static Rule, &Sight) + 'a;

/// Tells `tell` of each sight that breaks one of `rules`; returns the rules that were not asked to their end.
pub(super) fn scan(
    rules: &[&'static Rule],
    machine: &Machine,
    pace: &Pace<'_>,
    tell: &mut Tell<'_>,
) -> Vec<&'static Rule> {
    let mut unfinished = Vec::new();
    for (on, pass) in PASSES {
        let mine: Vec<_> = rules.iter().copied().filter(|rule| rule.on.contains(on)).collect();
        if !mine.is_empty() && pace.asks() {
            pass(machine, pace, &mut |sight| {
                for rule in &mine {
                    if (rule.check)(&sight, machine).is_some() {
                        tell(rule, &sight);
                    }
                }
            });
        }
        if pace.has_stopped() {
            unfinished.extend(mine);
        }
    }
    unfinished
}

type Pass = fn(&Machine, &Pace<'_>, &mut See<'_>);

/// In this order, in case that time is over: what takes next to nothing, guests, EL2, the host.
const PASSES: &[(On, Pass)] = &[
    (On::Vm, vms),
    (On::Odd, odd),
    (On::Table, tables),
    (On::Pair, pairs::pairs),
    (On::Guest, guests),
    (On::Donation, donations),
    (On::Hyp, hyp),
    (On::Shared, shared),
    (On::Count, counts),
    (On::Host, host),
];

/// Returns whether a frame run says that the frames are not the host's, or are EL2's.
fn is_taken(machine: &Machine, run: &FrameRun) -> bool {
    let frame = run.raw.and_then(|raw| machine.frames.decode(raw));
    frame.is_some_and(|frame| {
        frame.host != Some(PageState::Owned) || (frame.is_hyp_kept && frame.hyp != Some(PageState::NoPage))
    })
}

fn host(machine: &Machine, pace: &Pace<'_>, see: &mut See<'_>) {
    let Some(tree) = machine.tree(Target::HOST) else { return };
    for row in rows(tree, pace) {
        if !row.is_hole() {
            cut(machine, pace, row.ia, row.end(), see);
            continue;
        }
        // A hole is where the host may map: of interest only where the frame is not simply the host's.
        for run in machine.frames.runs(row.ia, row.end()).filter(|run| is_taken(machine, run)) {
            cut(machine, pace, run.pa.max(row.ia), run.end().min(row.end()), see);
        }
    }
}

fn donations(machine: &Machine, pace: &Pace<'_>, see: &mut See<'_>) {
    let Some(tree) = machine.tree(Target::HOST) else { return };
    let shift = machine.page_shift();
    for row in rows(tree, pace).filter(|row| row.kind == RecordKind::INVALID && row.raw != 0) {
        let Some(Owner::Guest { handle, gfn }) = owner_of(machine, &row) else { continue };
        let (target, ia) = (Target::guest(handle), gfn << shift);
        let entry = machine.tree(target).and_then(|tree| {
            let row = tree.rows(ia, ia.saturating_add(1)).next()?;
            row.split_off(ia, &tree.table.geometry)
        });
        let what = match (entry, machine.vm(handle)) {
            (Some(entry), _) => What::Entry(entry),
            (None, None) => What::Gone(Status::NO_SUCH_VM),
            (None, Some(_)) => What::Gone(Status::VM_GONE),
        };
        // Entries that say the same name one guest page for several pages.
        for page in (0..row.count).take_while(|_| pace.goes_on()) {
            let pa = row.ia + (page << row.entry_shift);
            let sight = Sight { host: row.clip(pa, pa + 1, &tree.table.geometry), ..Sight::of(pa, 1 << shift) };
            see(Sight {
                frame: machine.frames.at(pa).and_then(|run| run.raw),
                ..sight.with(Held { target, ia, what })
            });
        }
    }
}

/// Cuts what `row`, a leaf of `tree`, maps.
fn cut_leaf(machine: &Machine, pace: &Pace<'_>, tree: &Tree, row: &Row, see: &mut See<'_>) {
    let Some(oa) = row.oa.filter(|_| row.kind == RecordKind::LEAF) else { return };
    cut(machine, pace, oa, oa.saturating_add(row.size()), &mut |sight| {
        let ia = row.ia + (sight.pa - oa);
        if let Some(part) = row.split_off(ia, &tree.table.geometry) {
            see(sight.with(Held::at(tree.table.target, part)));
        }
    });
}

fn guests(machine: &Machine, pace: &Pace<'_>, see: &mut See<'_>) {
    for tree in machine.guests() {
        rows(tree, pace).for_each(|row| cut_leaf(machine, pace, tree, &row, see));
    }
}

fn hyp(machine: &Machine, pace: &Pace<'_>, see: &mut See<'_>) {
    let Some(tree) = machine.tree(Target::HYP) else { return };
    let marks = Marks::of_table(&machine.known.facts, Target::HYP);
    for row in rows(tree, pace).filter(|row| row.kind == RecordKind::LEAF) {
        for part in outside_slots(&marks, tree, row) {
            // Rights are of all of it, states of frames are not.
            cut_leaf(machine, pace, tree, &part, &mut |sight| see(Sight { host: None, ..sight }));
        }
    }
}

fn shared(machine: &Machine, pace: &Pace<'_>, see: &mut See<'_>) {
    let Some(tree) = machine.tree(Target::HYP) else { return };
    let page = machine.page_bytes();
    for run in machine.frames.all() {
        let frame = run.raw.and_then(|raw| machine.frames.decode(raw));
        if frame.is_none_or(|frame| frame.hyp != Some(PageState::SharedBorrowed)) {
            continue;
        }
        let mut pa = run.pa;
        while pa < run.end() && pace.goes_on() {
            if let Some(va) = machine.known.linear_of(pa) {
                let row = tree.rows(va, va.saturating_add(1)).next();
                if let Some(entry) = row.and_then(|row| row.split_off(va, &tree.table.geometry)) {
                    let sight = Sight { frame: run.raw, ..Sight::of(pa, page) };
                    see(sight.with(Held::at(Target::HYP, entry)));
                }
            }
            pa += page;
        }
    }
}

fn odd(machine: &Machine, pace: &Pace<'_>, see: &mut See<'_>) {
    let marks = Marks::of_table(&machine.known.facts, Target::HYP);
    for tree in &machine.trees {
        let target = tree.table.target;
        let is_odd = |row: &Row| match row.kind {
            RecordKind::LEAF => false,
            // An idle slot of EL2's fixmap keeps what it had.
            RecordKind::INVALID => row.raw != 0 && target != Target::HYP,
            _ => true,
        };
        for row in rows(tree, pace).filter(is_odd) {
            let parts = if target == Target::HYP { outside_slots(&marks, tree, row) } else { vec![row] };
            for part in parts {
                // Only the host's entries say of which page they are.
                let (pa, bytes) = if target == Target::HOST { (part.ia, part.size()) } else { (0, 0) };
                see(Sight::of(pa, bytes).with(Held::at(target, part)));
            }
        }
    }
}

fn tables(machine: &Machine, pace: &Pace<'_>, see: &mut See<'_>) {
    for tree in machine.trees.iter().filter(|tree| tree.has_tables()) {
        let bytes = machine.page_bytes();
        for page in &tree.tables {
            let held = Held { target: tree.table.target, ia: page.ia, what: What::Table(*page) };
            cut(machine, pace, page.pa, page.pa.saturating_add(bytes), &mut |sight| see(sight.with(held)));
        }
    }
    // Of a tree that was not read the list tells the root.
    for vm in machine.missed() {
        // Its other features are not told, and say nothing of the root's size.
        let geometry = Geometry::from_vtcr(vm.vtcr, Features::of_kvm(vm.vtcr, false, false));
        let bytes = geometry.map_or(machine.page_bytes(), |geometry| geometry.root_bytes());
        cut(machine, pace, vm.root, vm.root.saturating_add(bytes), &mut |sight| see(Sight { vm: Some(*vm), ..sight }));
    }
}

fn vms(machine: &Machine, _: &Pace<'_>, see: &mut See<'_>) {
    machine.vms.iter().for_each(|vm| see(Sight { vm: Some(*vm), ..Sight::of(vm.root, 0) }));
}
