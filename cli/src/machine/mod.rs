// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of a whole machine at about one time: VMs, trees, page frames and facts, in compact form.
//!
//! A capture and the device give the same events, and [`Machine::take`] makes the same of both. Nothing here judges: that is
//! what `audit` does.

pub(crate) mod differ;
pub(crate) mod frames;
pub(crate) mod known;
pub(crate) mod moment;
pub(crate) mod tree;
pub(crate) mod uses;

use crate::model::{is_same_vm, Outcome, TableFacts};
use crate::origin::Origin;
use crate::reader::Event;
use differ::Differences;
use frames::Frames;
use known::Known;
use moment::Moment;
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{vm_flags, SlotKind, VmRecord};
use s2dump_abi::target::{Target, TargetKind};
use s2dump_vmsa::pkvm::Encoding;
use std::collections::{BTreeMap, BTreeSet};
use tree::{SecondPass, Tree};

/// A machine, as far as it was read.
#[derive(Default)]
pub(crate) struct Machine {
    /// Where it was captured, if that is told.
    pub(crate) origin: Option<Origin>,
    /// The VMs of the first list.
    pub(crate) vms: Vec<VmRecord>,
    /// Whether there was a list, and it was whole.
    pub(crate) is_listed: bool,
    /// The VMs of the last list, if there was another one and it was whole.
    pub(crate) last_vms: Option<Vec<VmRecord>>,
    /// A list after the first was not whole, or has other tables.
    lists_differ: bool,
    /// Those of a list that has not ended, beside the first.
    listing: Vec<VmRecord>,
    /// The trees, each once.
    pub(crate) trees: Vec<Tree>,
    /// What pKVM keeps about page frames.
    pub(crate) frames: Frames,
    /// Facts about memory and EL2.
    pub(crate) known: Known,
    /// Frames and places that were looked at again at one moment.
    pub(crate) moments: Vec<Moment>,
    /// How the dumps of guests ended that came to no good end.
    failed: BTreeMap<u16, Status>,
    /// What is being read.
    open: Open,
}

/// Where the rows that come belong.
#[derive(Default)]
enum Open {
    #[default]
    Nothing,
    /// To the last of the trees.
    Tree,
    /// To the second pass over a tree, of which only the digest counts.
    Again,
    /// To the second pass over EL2's tree. What comes and goes there by itself is in the digest too, so the rows count.
    HypAgain(Box<Tree>),
    /// To a walk.
    Walk,
}

impl Machine {
    /// Makes one of which only the list of VMs is known.
    pub(crate) fn listing(vms: Vec<VmRecord>) -> Self {
        Self { vms, is_listed: true, ..Self::default() }
    }

    /// Makes one of which only a table is known.
    pub(crate) fn of_tree(tree: Tree) -> Self {
        let mut machine = Self::default();
        machine.known.set_page_shift(tree.table.geometry.granule().page_shift());
        machine.trees.push(tree);
        machine
    }

    /// Returns the page size of its kernel, as a shift. All tables of a kernel have pages of its size, and frames are such pages.
    pub(crate) fn page_shift(&self) -> u32 {
        self.known.page_shift()
    }

    /// Returns the page size of its kernel.
    pub(crate) fn page_bytes(&self) -> u64 {
        1 << self.page_shift()
    }

    /// Takes what a reader found. Captures may stand one behind the other: what the first says of a table counts.
    pub(crate) fn take(&mut self, event: Event) {
        match event {
            Event::Vm(vm) => {
                let vms = if self.is_listed { &mut self.listing } else { &mut self.vms };
                if !vms.iter().any(|known| is_same_vm(known, &vm)) {
                    vms.push(vm);
                }
            }
            Event::Dump(table) => {
                self.known.set_page_shift(table.geometry.granule().page_shift());
                self.open = self.begin(table);
            }
            Event::Walk(_) => self.open = Open::Walk,
            Event::Row(row) | Event::Table(row) => {
                let tree = match &mut self.open {
                    Open::Tree => self.trees.last_mut(),
                    Open::HypAgain(tree) => Some(&mut **tree),
                    _ => None,
                };
                if let Some(tree) = tree {
                    tree.push(row);
                }
            }
            Event::Frames(slot) => {
                self.known.set_page_shift(slot.page_shift.into());
                self.frames.begin(&slot);
            }
            Event::Frame(frame) => self.frames.push(&frame),
            Event::Fact(fact) => self.known.push(&fact),
            Event::Examined(header) => {
                let is_late = self.trees.iter().any(|tree| tree.second != SecondPass::NotAsked);
                self.moments.push(Moment::new(&header, is_late));
            }
            Event::Sighted(record) => {
                if let Some(moment) = self.moments.last_mut() {
                    moment.push(&record);
                }
            }
            Event::End(kind, outcome) => match kind {
                SlotKind::VMS if self.is_listed => {
                    let vms = std::mem::take(&mut self.listing);
                    self.lists_differ |= !outcome.is_complete() || tables_of(&vms) != tables_of(&self.vms);
                    self.last_vms = outcome.is_complete().then_some(vms);
                }
                SlotKind::VMS => self.is_listed = outcome.is_complete(),
                SlotKind::FRAMES => self.frames.end(&outcome),
                SlotKind::FACTS => self.known.is_whole |= outcome.is_complete(),
                SlotKind::RANGES => self.end_tree(&outcome),
                _ => {
                    if let Some(status) = outcome.status {
                        self.fail(outcome.target, status);
                    }
                    self.open = Open::Nothing;
                }
            },
        }
    }

    /// Takes what `later` has that was read after this: frames and places that were looked at, and lists of VMs.
    pub(crate) fn take_looks(&mut self, later: Self) {
        self.moments.extend(later.moments);
        if later.is_listed {
            self.lists_differ |= later.lists_differ || tables_of(&later.vms) != tables_of(&self.vms);
            self.last_vms = later.last_vms.or(Some(later.vms));
        } else {
            self.lists_differ |= !later.vms.is_empty();
        }
    }

    fn end_tree(&mut self, outcome: &Outcome) {
        match std::mem::take(&mut self.open) {
            Open::Tree => {
                if let Some(tree) = self.trees.last_mut() {
                    tree.end(outcome);
                    let target = tree.table.target;
                    let status = outcome.status.unwrap_or(Status::BAD_ANSWER);
                    self.fail(target, if outcome.is_dying { Status::VM_DYING } else { status });
                }
            }
            Open::Again => {
                if let Some(tree) = self.tree_mut(outcome.target) {
                    tree.end_again(outcome, None);
                }
            }
            Open::HypAgain(mut again) => {
                again.end(outcome);
                // Folded entries cannot be compared one by one.
                let is_same = again.is_exact.then(|| {
                    let mut found = Differences::default();
                    found.add_tables((self, self.tree(Target::HYP)), (self, Some(&again)));
                    found.changes.list.is_empty()
                });
                if let Some(tree) = self.tree_mut(Target::HYP) {
                    tree.end_again(outcome, is_same);
                }
            }
            Open::Nothing | Open::Walk => {}
        }
    }

    /// Notes that the table of `target` could not be read, or not all of it, if `status` is not OK.
    pub(crate) fn fail(&mut self, target: Target, status: Status) {
        if let Some(handle) = target.guest_handle().filter(|_| status != Status::OK) {
            self.failed.entry(handle).or_insert(status);
        }
    }

    fn begin(&mut self, table: TableFacts) -> Open {
        match self.trees.iter().find(|tree| tree.table.target == table.target) {
            Some(tree) if tree.table.root == table.root && table.target == Target::HYP => {
                Open::HypAgain(Box::new(Tree::new(table)))
            }
            Some(tree) if tree.table.root == table.root => Open::Again,
            // Another VM got the handle meanwhile.
            Some(_) => Open::Nothing,
            None => {
                self.trees.push(Tree::new(table));
                Open::Tree
            }
        }
    }

    fn tree_mut(&mut self, target: Target) -> Option<&mut Tree> {
        self.trees.iter_mut().find(|tree| tree.table.target == target)
    }

    /// Returns the tree of `target`, if it was read.
    pub(crate) fn tree(&self, target: Target) -> Option<&Tree> {
        self.trees.iter().find(|tree| tree.table.target == target)
    }

    /// Returns the trees of guests.
    pub(crate) fn guests(&self) -> impl Iterator<Item = &Tree> {
        self.trees.iter().filter(|tree| tree.table.target.kind() == TargetKind::GUEST_STAGE2)
    }

    /// Returns the VM with `handle`.
    pub(crate) fn vm(&self, handle: u16) -> Option<&VmRecord> {
        self.vms.iter().find(|vm| vm.handle == handle)
    }

    /// Returns whether the guest of `target` is protected, as its tree or the list says.
    pub(crate) fn is_protected(&self, target: Target) -> bool {
        let listed = || target.guest_handle().and_then(|handle| self.vm(handle));
        match self.tree(target) {
            Some(tree) => tree.table.is_protected(),
            None => listed().is_some_and(|vm| vm.flags & vm_flags::PROTECTED != 0),
        }
    }

    /// Returns the encodings of all that was read.
    pub(crate) fn encodings(&self) -> BTreeSet<u16> {
        let frames = (!self.frames.is_empty()).then_some(self.frames.encoding);
        self.trees.iter().map(|tree| tree.table.encoding).chain(frames).map(|Encoding(number)| number).collect()
    }

    /// Returns the VMs that have a table of which not all was read.
    pub(crate) fn unread(&self) -> impl Iterator<Item = &VmRecord> {
        let is_read = |vm: &VmRecord| self.tree(Target::guest(vm.handle)).is_some_and(|tree| tree.is_complete);
        self.vms.iter().filter(move |vm| vm.flags & vm_flags::CREATED != 0 && !is_read(vm))
    }

    /// Returns the [unread](Self::unread) VMs that did not go away meanwhile.
    pub(crate) fn missed(&self) -> impl Iterator<Item = &VmRecord> {
        const WENT_AWAY: [Status; 4] = [Status::NO_SUCH_VM, Status::VM_NOT_RUN, Status::VM_GONE, Status::VM_DYING];
        let went_away = |vm: &VmRecord| self.failed.get(&vm.handle).is_some_and(|status| WENT_AWAY.contains(status));
        self.unread().filter(move |vm| !went_away(vm) && self.last_vms.as_ref().is_none_or(|last| is_there(vm, last)))
    }

    /// Returns whether there were several lists, and all have the same tables of VMs.
    pub(crate) fn is_listed_alike(&self) -> bool {
        self.last_vms.is_some() && !self.lists_differ
    }

    /// Returns whether the trees of all guests were read twice and found unchanged, and there is no guest beside them.
    pub(crate) fn are_guests_at_rest(&self) -> bool {
        self.is_listed && self.unread().next().is_none() && self.guests().all(|tree| tree.second == SecondPass::Same)
    }
}

/// Returns the tables of `vms`.
fn tables_of(vms: &[VmRecord]) -> BTreeSet<(u16, u64)> {
    vms.iter().filter(|vm| vm.flags & vm_flags::CREATED != 0).map(|vm| (vm.handle, vm.root)).collect()
}

/// Returns whether `vm` is in `later`, a list, and is not being torn down. The host, which alone tells the process, forgets a VM
/// before it has EL2 tear it down.
fn is_there(vm: &VmRecord, later: &[VmRecord]) -> bool {
    let is_it = |now: &VmRecord| (now.handle, now.root, now.pid, now.name) == (vm.handle, vm.root, vm.pid, vm.name);
    later.iter().any(|now| is_it(now) && now.pid != 0 && now.flags & vm_flags::DYING == 0)
}

#[cfg(test)]
mod tests {
    use crate::machine::tree::Run;

    /// A machine of 2 GiB with four guests of 128 MiB, scattered page by page, is 20 MB or so: 32,768 runs for each guest, and
    /// as many for its pages in the host's tree.
    #[test]
    fn what_is_kept_for_each_page_is_small() {
        assert_eq!(size_of::<Run>(), 24);
        assert!(8 * 32_768 * size_of::<Run>() < 8 << 20);
    }
}
