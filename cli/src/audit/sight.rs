// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a rule looks at: a page frame, and what the host's entry and up to two further places say of it.

use crate::leaf::{self, AnyLeaf};
use crate::machine::moment::Moment;
use crate::machine::tree::TablePage;
use crate::machine::Machine;
use crate::model::{Row, TableFacts};
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{RecordKind, VmRecord};
use s2dump_abi::target::Target;
use s2dump_vmsa::pkvm::{Frame, InvalidKind, Owner, PageState};
use s2dump_vmsa::stage2::Permissions;

/// A page frame, or neighbors of which all is alike, and what tables say of it.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    /// Physical address of the frame.
    pub(crate) pa: u64,
    /// How many bytes from there on are alike.
    pub(crate) bytes: u64,
    /// What pKVM keeps about it, as it stands in memory; `None` if it is no memory with a state, or was not read.
    pub(crate) frame: Option<u64>,
    /// The host's entry for the frame.
    pub(crate) host: Option<Row>,
    /// The place it is about.
    pub(crate) first: Option<Held>,
    /// Another place.
    pub(crate) second: Option<Held>,
    /// How many entries of guests map it.
    pub(crate) shares: Option<Shares>,
    /// The VM it is about.
    pub(crate) vm: Option<VmRecord>,
}

/// How many entries of guests map a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Of ordinary guests.
    pub(crate) ordinary: u64,
    /// Of protected guests, shared with the host.
    pub(crate) lenders: u64,
}

/// What is at a place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// The table.
    pub(crate) target: Target,
    /// The input address.
    pub(crate) ia: u64,
    /// What is there.
    pub(crate) what: What,
}

/// What is at a place.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    /// An entry.
    Entry(Row),
    /// A table page.
    Table(TablePage),
    /// No table, and why.
    Gone(Status),
}

impl Sight {
    /// Begins with a frame of which nothing is known.
    pub(crate) fn of(pa: u64, bytes: u64) -> Self {
        Self { pa, bytes, frame: None, host: None, first: None, second: None, shares: None, vm: None }
    }

    /// Adds the place it is about.
    pub(crate) fn with(self, held: Held) -> Self {
        Self { first: Some(held), ..self }
    }

    /// Returns what pKVM keeps about the frame.
    pub(crate) fn frame(&self, machine: &Machine) -> Option<Frame> {
        machine.frames.decode(self.frame?)
    }

    /// Returns the entry at the first place.
    pub(crate) fn entry(&self) -> Option<(Target, &Row)> {
        self.first.as_ref().and_then(Held::entry)
    }

    /// Returns what to look at again: the host's entry, and the places.
    pub(crate) fn places(&self) -> Vec<(Target, u64)> {
        let host = self.host.map(|_| (Target::HOST, self.pa));
        let held = [&self.first, &self.second].into_iter().flatten().map(|held| (held.target, held.ia));
        let mut places: Vec<_> = host.into_iter().collect();
        held.for_each(|place| {
            if !places.contains(&place) {
                places.push(place);
            }
        });
        places
    }

    /// Returns the same as `moment` saw it, or `None` if it did not look at all of it.
    pub(crate) fn again(&self, moment: &Moment, machine: &Machine) -> Option<Self> {
        let host = match self.host {
            Some(_) => Some(*moment.look(Target::HOST, self.pa)?.rows(machine)?.last()?),
            None => None,
        };
        let see = |held: &Option<Held>| match held {
            Some(held) => held.again(moment, machine).map(Some),
            None => Some(None),
        };
        let (first, second) = (see(&self.first)?, see(&self.second)?);
        Some(Self { frame: moment.frame, host, first, second, ..self.clone() })
    }

    /// Returns the same without the first page, or, of entries that are of no page, without the first entry.
    pub(crate) fn without_first(&self, machine: &Machine) -> Option<Self> {
        let entry = |row: &Row| (1 << row.entry_shift) - row.skipped;
        let page = machine.page_bytes();
        let step = match (self.bytes, self.entry()) {
            (0, Some((_, row))) => entry(row),
            _ => page - (self.pa & (page - 1)),
        };
        let bytes = match self.bytes {
            0 => 0,
            bytes => bytes.checked_sub(step).filter(|left| *left > 0)?,
        };
        let on = |held: &Option<Held>| match held {
            Some(held) => held.on(step, machine).map(Some),
            None => Some(None),
        };
        let pa = if bytes > 0 { self.pa + step } else { self.pa };
        let (first, second) = (on(&self.first)?, on(&self.second)?);
        let host = match &self.host {
            Some(row) => Some(row.clip(pa, u64::MAX, &table(machine, Target::HOST)?.geometry)?),
            None => None,
        };
        Some(Self { pa, bytes, host, first, second, ..self.clone() })
    }

    /// Returns whether the entries that map or are the frame still do, so that it is about the same.
    pub(crate) fn is_about(&self, before: &Self) -> bool {
        let same = |before: &Option<Held>, now: &Option<Held>| match (before, now) {
            (Some(before), Some(now)) => before.output() == now.output(),
            _ => true,
        };
        same(&before.first, &self.first) && same(&before.second, &self.second)
    }
}

impl Held {
    /// What is at `ia` of `target`: `row`.
    pub(crate) fn at(target: Target, row: Row) -> Self {
        Self { target, ia: row.ia, what: What::Entry(row) }
    }

    /// Returns the entry, if it is one.
    pub(crate) fn entry(&self) -> Option<(Target, &Row)> {
        match &self.what {
            What::Entry(row) => Some((self.target, row)),
            What::Table(_) | What::Gone(_) => None,
        }
    }

    /// Returns the table page, if it is one.
    pub(crate) fn table(&self) -> Option<&TablePage> {
        match &self.what {
            What::Table(page) => Some(page),
            What::Entry(_) | What::Gone(_) => None,
        }
    }

    /// Returns the frame that is mapped, or that the table page is.
    fn output(&self) -> Option<u64> {
        match &self.what {
            What::Entry(row) if row.kind == RecordKind::LEAF => {
                row.oa.map(|oa| oa.wrapping_add(self.ia.wrapping_sub(row.ia)))
            }
            What::Table(page) => Some(page.pa),
            What::Entry(_) | What::Gone(_) => None,
        }
    }

    /// Returns what is so many bytes on, if the same entries have that.
    fn on(&self, bytes: u64, machine: &Machine) -> Option<Self> {
        let ia = self.ia.checked_add(bytes)?;
        let What::Entry(row) = &self.what else { return None };
        let row = row.split_off(ia, &table(machine, self.target)?.geometry)?;
        Some(Self { ia, what: What::Entry(row), ..*self })
    }

    fn again(&self, moment: &Moment, machine: &Machine) -> Option<Self> {
        let look = moment.look(self.target, self.ia)?;
        if look.status != Status::OK {
            return Some(Self { what: What::Gone(look.status), ..*self });
        }
        let rows = look.rows(machine)?;
        let last = *rows.last()?;
        let what = match self.what {
            What::Table(page) => {
                let root = (page.raw == 0).then_some(page);
                let is_it = |row: &&Row| row.kind == RecordKind::TABLE && row.level.get() + 1 == page.level;
                let found =
                    rows.iter().find(is_it).map(|row| TablePage { pa: row.oa.unwrap_or(0), raw: row.raw, ..page });
                root.or(found).map_or(What::Entry(last), What::Table)
            }
            What::Entry(_) | What::Gone(_) => {
                // An entry may be larger than what is looked at.
                let table = &machine.tree(self.target)?.table;
                What::Entry(last.split_off(self.ia, &table.geometry)?)
            }
        };
        Some(Self { what, ..*self })
    }
}

/// Returns the table of `target`.
pub(crate) fn table(machine: &Machine, target: Target) -> Option<&TableFacts> {
    machine.tree(target).map(|tree| &tree.table)
}

/// Returns the leaf that `row` of `target` is.
pub(crate) fn leaf_of<'m>(machine: &'m Machine, target: Target, row: &Row) -> Option<AnyLeaf<'m>> {
    leaf::of_row(row, table(machine, target)?)
}

/// Returns the state in which `target` has the pages of `row`, a leaf.
pub(crate) fn state_of(machine: &Machine, target: Target, row: &Row) -> Option<PageState> {
    if row.kind != RecordKind::LEAF {
        return None;
    }
    table(machine, target)?.decode_software(row.raw).page_state()
}

/// Returns what `row` of `target`, an invalid entry, stands for.
pub(crate) fn invalid_of(machine: &Machine, target: Target, row: &Row) -> Option<InvalidKind> {
    if row.kind != RecordKind::INVALID {
        return None;
    }
    table(machine, target)?.decode_software(row.raw).invalid()
}

/// Returns to whom the host's entry says that the page was donated.
pub(crate) fn owner_of(machine: &Machine, row: &Row) -> Option<Owner> {
    match invalid_of(machine, Target::HOST, row)? {
        InvalidKind::HostDonation { owner } => Some(owner),
        _ => None,
    }
}

/// Returns the state of a protected guest's leaf.
pub(crate) fn protected_state(machine: &Machine, target: Target, row: &Row) -> Option<PageState> {
    target.guest_handle()?;
    state_of(machine, target, row).filter(|_| machine.is_protected(target))
}

/// Returns the state of an ordinary guest's leaf.
pub(crate) fn ordinary_state(machine: &Machine, target: Target, row: &Row) -> Option<PageState> {
    target.guest_handle()?;
    state_of(machine, target, row).filter(|_| !machine.is_protected(target))
}

/// Returns read, write and execute, the last at EL1 and EL0 alike; `None` where an index tells them.
pub(crate) fn rights(leaf: &AnyLeaf<'_>) -> Option<(bool, bool, bool)> {
    let AnyLeaf::Stage2(leaf) = leaf else { return None };
    let Permissions::Direct { ap, xn } = leaf.permissions() else { return None };
    let (el1, el0) = (xn.el1_can_execute(), xn.el0_can_execute());
    Some((ap.is_readable(), ap.is_writable(), el1 || el0))
}

/// Returns the words for the owner whom the host's entry names.
pub(crate) fn owner_words(sight: &Sight, machine: &Machine) -> String {
    match sight.host.as_ref().and_then(|row| owner_of(machine, row)) {
        Some(Owner::Hyp) => "donated to the hypervisor".into(),
        Some(Owner::Guest { handle, gfn }) => {
            format!("donated to vm:{handle:#x} at {:#x}", gfn << machine.page_shift())
        }
        Some(Owner::SomeGuest) => "donated to a guest".into(),
        Some(Owner::Ffa) => "donated to the secure world".into(),
        Some(Owner::Protected) => "in a protected region".into(),
        Some(Owner::Unknown { .. }) => "donated to an unknown owner".into(),
        None => match &sight.host {
            Some(row) if row.is_hole() => "a hole".into(),
            Some(row) if row.kind == RecordKind::LEAF => "mapped".into(),
            Some(row) => format!("{:#x}", row.raw),
            None => "not known".into(),
        },
    }
}
