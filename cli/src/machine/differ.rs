// SPDX-License-Identifier: MIT OR Apache-2.0
//! What changed between two readings of a machine: rights, state, owner or address. That a block became pages of the same is
//! no change. What changes though nothing happens is counted apart: slots through which EL2 looks at any page for a moment, and
//! pages that s2dump shares with EL2 while it reads.

use super::tree::Tree;
use super::Machine;
use crate::filter::Filter;
use crate::leaf;
use crate::marks::Marks;
use crate::meaning;
use crate::model::{target_name, vm_name, Mark, Row, TableFacts};
use crate::words::{self, Word};
use s2dump_abi::slot::RecordKind;
use s2dump_abi::target::Target;
use s2dump_vmsa::pkvm::{Frame, Owner, PageState};
use std::collections::BTreeSet;
use std::convert::Infallible;

/// What the entries of a range say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// Rights of leaves.
    pub(crate) rights: Option<Word>,
    /// Memory type of leaves.
    pub(crate) memory: Option<Word>,
    /// Page state, or what an invalid entry stands for; `-` for nothing to say.
    pub(crate) state: Word,
    /// Where the first address leads to, or where its guest has it.
    pub(crate) address: Option<u64>,
}

impl Said {
    /// Returns what `row` says, nothing of a hole.
    fn of(row: &Row, table: &TableFacts) -> Option<Self> {
        if row.is_hole() {
            return None;
        }
        // A page that is the ring's now and another's then is the same entry.
        let row = &Row { mark: Mark::None, ..*row };
        let leaf = leaf::of_row(row, table);
        let (state, address) = match meaning::owner(row, table) {
            Some(Owner::Guest { handle, gfn }) => {
                let at = (gfn << table.geometry.granule().page_shift()) + row.skipped;
                (format!("owner=vm:{handle:#x}").into(), Some(at))
            }
            _ => (meaning::state(row, table), row.oa),
        };
        let rights = leaf.map(|leaf| leaf.rwx(table));
        Some(Self { rights, memory: leaf.map(|leaf| leaf.memory(table)), state, address })
    }

    /// Returns the same of the entries that begin `bytes` on.
    fn moved(&self, bytes: u64) -> Self {
        Self { address: self.address.map(|address| address.wrapping_add(bytes)), ..self.clone() }
    }

    fn of_frame(machine: &Machine, raw: Option<u64>, is_ring: bool) -> Self {
        let frame = raw.and_then(|raw| machine.frames.decode(raw));
        let state = match (raw, frame) {
            (None, _) => "nomap".into(),
            (Some(raw), None) => format!("raw={raw:#x}"),
            // References come and go with each pin.
            (_, Some(frame)) => {
                words::frame(Some(Frame { refcount: 0, ..if is_ring { unshared(frame) } else { frame } }))
            }
        };
        Self { rights: None, memory: None, state: state.into(), address: None }
    }
}

/// Returns what a frame of the ring is when s2dump does not read: the host's alone. Other states are not of its making.
fn unshared(frame: Frame) -> Frame {
    match (frame.host, frame.hyp) {
        (Some(PageState::SharedOwned), Some(PageState::SharedBorrowed)) => {
            Frame { host: Some(PageState::Owned), hyp: Some(PageState::NoPage), ..frame }
        }
        _ => frame,
    }
}

/// Returns whether an entry comes and goes though nothing happens.
fn is_passing(row: &Row) -> bool {
    match row.mark {
        Mark::Fixmap | Mark::Fixblock => true,
        Mark::Ring => row.kind == RecordKind::LEAF,
        Mark::None | Mark::PartlyRing => false,
    }
}

/// A range of which the two readings say something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The table, or `frames`.
    pub(crate) of: String,
    /// First address.
    pub(crate) start: u64,
    /// First address after.
    pub(crate) end: u64,
    /// What was said first; nothing of a hole.
    pub(crate) old: Option<Said>,
    /// What was said later.
    pub(crate) new: Option<Said>,
}

/// Ranges of changes in ascending addresses, neighbors joined.
#[derive(Default)]
pub(crate) struct Changes {
    /// The changes.
    pub(crate) list: Vec<Change>,
}

impl Changes {
    fn add(&mut self, next: Change) {
        if let Some(last) = self.list.last_mut().filter(|last| last.of == next.of && last.end == next.start) {
            let bytes = last.end - last.start;
            let runs_on =
                |last: &Option<Said>, next: &Option<Said>| last.as_ref().map(|said| said.moved(bytes)) == *next;
            if runs_on(&last.old, &next.old) && runs_on(&last.new, &next.new) {
                last.end = next.end;
                return;
            }
        }
        self.list.push(next);
    }
}

/// What two readings do not say alike.
#[derive(Default)]
pub(crate) struct Differences {
    /// What changed.
    pub(crate) changes: Changes,
    /// What comes and goes though nothing happens.
    pub(crate) passing: Changes,
    /// Which changes are wanted: those of which one side fits.
    filter: Filter,
}

impl Differences {
    /// Begins with none, and will take those of which the old or the new side fits `filter`.
    pub(crate) fn of(filter: Filter) -> Self {
        Self { filter, ..Self::default() }
    }

    /// Adds what changed from `old` to `new`, in all tables and frames, or in the table of `only`.
    pub(crate) fn add_machines(&mut self, old: &Machine, new: &Machine, only: Option<Target>) -> Compared {
        let targets = [old, new].into_iter().flat_map(|machine| &machine.trees).map(|tree| tree.table.target.0);
        let targets: BTreeSet<u64> = targets.filter(|&target| only.is_none_or(|only| only.0 == target)).collect();
        let mut compared = Compared::default();
        for target in targets.into_iter().map(Target) {
            match (old.tree(target), new.tree(target)) {
                // A VM that is gone, and another that has its handle.
                (Some(a), Some(b)) if a.table.root != b.table.root || is_another(target, old, new) => {
                    compared.others.push(another(a, b, old, new));
                    self.add_tables((old, Some(a)), (new, None));
                    self.add_tables((old, None), (new, Some(b)));
                }
                (a, b) => {
                    let is_gone = |machine: &Machine| {
                        target.guest_handle().is_some_and(|handle| machine.is_listed && machine.vm(handle).is_none())
                    };
                    let is_known = (a.is_some() || is_gone(old)) && (b.is_some() || is_gone(new));
                    let is_whole = [a, b].into_iter().flatten().all(|tree| tree.is_complete && tree.is_exact);
                    if !is_known || !is_whole {
                        compared.unread.push(target);
                    }
                    if is_known {
                        self.add_tables((old, a), (new, b));
                    }
                }
            }
        }
        match [&old.frames, &new.frames].map(|frames| frames.is_complete) {
            [true, true] if only.is_none() => self.add_frames(old, new),
            // What was not read is no change.
            _ => compared.lacks_frames = only.is_none() && !(old.frames.is_empty() && new.frames.is_empty()),
        }
        compared
    }

    /// Adds what changed from `old` to `new`, two readings of one table; without one, all of the other is new or gone.
    pub(crate) fn add_tables(&mut self, old: (&Machine, Option<&Tree>), new: (&Machine, Option<&Tree>)) {
        let Some(of) = old.1.or(new.1).map(|tree| tree.table.name()) else { return };
        let (mut olds, mut news) = (Rows::new(old), Rows::new(new));
        let mut at = 0;
        while at < u64::MAX {
            let (old, old_end) = olds.at(at);
            let (new, new_end) = news.at(at);
            let end = old_end.min(new_end);
            // Most of two readings is the same: no words are made of that.
            let is_same = match (&old, &new) {
                (Some((old, _)), Some((new, _))) => {
                    (old.raw, old.kind, old.level, old.ia) == (new.raw, new.kind, new.level, new.ia)
                }
                _ => false,
            };
            if !is_same {
                let said = |row: Option<(Row, &TableFacts)>| row.and_then(|(row, table)| Said::of(&row, table));
                let lasting = |row: Option<(Row, _)>| row.filter(|(row, _)| !is_passing(row));
                let is_lasting = said(lasting(old)) != said(lasting(new));
                let is_side_wanted = |side: Option<(Row, &TableFacts)>| match side {
                    Some((row, table)) => self.filter.is_wanted(&row, table),
                    None => self.filter.is_absence_wanted(),
                };
                let is_wanted = || is_side_wanted(old) || is_side_wanted(new);
                let (old_said, new_said) = (said(old), said(new));
                if old_said != new_said && is_wanted() {
                    let (old, new) = (old_said, new_said);
                    self.add(is_lasting, Change { of: of.clone(), start: at, end, old, new });
                }
            }
            at = end;
        }
    }

    /// Adds what changed of page frames, references left out.
    pub(crate) fn add_frames(&mut self, old: &Machine, new: &Machine) {
        let runs =
            [old, new].into_iter().flat_map(|machine| machine.frames.all().iter().flat_map(|run| [run.pa, run.end()]));
        let ring = [old, new]
            .into_iter()
            .flat_map(|machine| machine.known.ring.iter().flat_map(|span| [span.start, span.end]));
        let mut bounds: Vec<u64> = runs.chain(ring).collect();
        bounds.sort_unstable();
        bounds.dedup();
        for pair in bounds.windows(2) {
            let (start, end) = (pair[0], pair[1]);
            let said = |machine: &Machine, is_ring: bool| {
                machine.frames.at(start).map(|run| Said::of_frame(machine, run.raw, is_ring))
            };
            let lasting = |machine: &Machine| said(machine, machine.known.is_ring(start));
            let is_lasting = lasting(old) != lasting(new);
            let is_side_wanted = |machine: &Machine| {
                machine.frames.at(start).is_some_and(|run| {
                    let frame = run.raw.and_then(|raw| machine.frames.decode(raw));
                    self.filter.is_frame_wanted(frame, run.raw.is_none())
                })
            };
            let is_wanted = is_side_wanted(old) || is_side_wanted(new);
            let (old, new) = (said(old, false), said(new, false));
            if old != new && is_wanted {
                self.add(is_lasting, Change { of: "frames".into(), start, end, old, new });
            }
        }
    }

    fn add(&mut self, is_lasting: bool, change: Change) {
        if is_lasting { &mut self.changes } else { &mut self.passing }.add(change);
    }
}

/// What could be compared of two machines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Compared {
    /// Tables that could not, or not all of them.
    pub(crate) unread: Vec<Target>,
    /// Not both have all page frames, so these were not.
    pub(crate) lacks_frames: bool,
    /// VMs that have the handle of others, in words.
    pub(crate) others: Vec<String>,
}

impl Compared {
    /// Returns the names of what was not compared, or not all of it.
    pub(crate) fn unread(&self) -> Vec<String> {
        let frames = self.lacks_frames.then(|| "frames".into());
        self.unread.iter().copied().map(target_name).chain(frames).collect()
    }
}

/// Returns whether the lists say that the handle of `target` went to another VM. The host forgets a VM before EL2 does, and then
/// tells neither process nor name.
fn is_another(target: Target, old: &Machine, new: &Machine) -> bool {
    let listed = [old, new].map(|machine| target.guest_handle().and_then(|handle| machine.vm(handle)));
    match listed {
        [Some(old), Some(new)] if old.pid != 0 && new.pid != 0 => (old.pid, old.name) != (new.pid, new.name),
        _ => false,
    }
}

/// Says which VM has the handle of which.
fn another(a: &Tree, b: &Tree, old: &Machine, new: &Machine) -> String {
    let who = |tree: &Tree, machine: &Machine| {
        let vm = tree.table.target.guest_handle().and_then(|handle| machine.vm(handle));
        let name = vm.and_then(vm_name).map(|name| format!("{name}, ")).unwrap_or_default();
        format!("{name}root {:#x}", tree.table.root)
    };
    format!("{} is another VM: {}, then {}", a.table.name(), who(a, old), who(b, new))
}

/// The rows of a tree from front to back.
struct Rows<'t> {
    table: Option<&'t TableFacts>,
    rows: Box<dyn Iterator<Item = Row> + 't>,
    current: Option<Row>,
}

impl<'t> Rows<'t> {
    fn new((machine, tree): (&Machine, Option<&'t Tree>)) -> Self {
        let rows: Box<dyn Iterator<Item = Row> + 't> = match tree {
            // Only in EL2's table something comes and goes by itself.
            Some(tree) if tree.table.target == Target::HYP => {
                let marks = Marks::of_table(&machine.known.facts, tree.table.target);
                Box::new(tree.rows(0, u64::MAX).flat_map(move |row| {
                    let mut parts = Vec::new();
                    let Ok(()) = marks.cut_row::<Infallible>(row, &tree.table.geometry, |part| {
                        parts.push(part);
                        Ok(())
                    });
                    parts
                }))
            }
            Some(tree) => Box::new(tree.rows(0, u64::MAX)),
            None => Box::new(std::iter::empty()),
        };
        let mut rows = Self { table: tree.map(|tree| &tree.table), rows, current: None };
        rows.current = rows.rows.next();
        rows
    }

    /// Returns what covers `at`, from there on, and up to where.
    fn at(&mut self, at: u64) -> (Option<(Row, &'t TableFacts)>, u64) {
        while self.current.is_some_and(|row| row.end() <= at) {
            self.current = self.rows.next();
        }
        match (self.current, self.table) {
            (Some(row), Some(table)) if row.ia <= at => {
                (row.split_off(at, &table.geometry).map(|row| (row, table)), row.end())
            }
            (Some(row), _) => (None, row.ia),
            (None, _) => (None, u64::MAX),
        }
    }
}
