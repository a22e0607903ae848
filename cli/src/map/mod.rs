// SPDX-License-Identifier: MIT OR Apache-2.0
//! A map of a machine: whose each page of physical memory is, and what the trees of EL2 and of guests have at which input
//! address. It joins what `rmap` tells of each page, judges nothing, and knows no format.
//!
//! Addresses are cut into pages of the machine's kernel.

mod physical;
mod pieces;
mod says;
mod track;

use crate::machine::Machine;
use crate::model::vm_name;
use s2dump_abi::target::{Target, FIRST_HANDLE};
use says::Sayings;
use std::collections::BTreeMap;

/// Whose a page is, in the order of a legend. Numbers are those of guests, in the order of the machine's trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Class {
    /// No memory, and nothing maps it.
    Nothing,
    /// The host's alone.
    Host,
    /// The host's, shared with EL2 or with somebody that is not told.
    HostShared,
    /// EL2's.
    Hyp,
    /// Of the table of somebody: whoever else has it, this counts.
    Table,
    /// A guest's.
    Guest {
        /// Which.
        number: usize,
        /// Whether the host has it too.
        is_shared: bool,
    },
    /// Mapped by several entries of guests.
    Guests,
    /// A guest's, and it is not told which.
    SomeGuest,
    /// A guest's entry that says the host took the page back.
    Poisoned,
    /// No memory: what the host maps there are devices.
    Device,
    /// Memory without states.
    Stateless,
    /// The secure world's, a region that was taken from the host, or somebody's that this version does not know.
    Other,
    /// Memory of which nothing is told.
    Untold,
    /// Tables and frames do not agree, or an entry is none that should be there.
    Clash,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Said {
    /// Whose its pages are.
    pub(crate) class: Class,
    /// Level, rights, memory type and state, in words; no address.
    pub(crate) text: String,
}

/// Entries of a table that say the same, of which the output addresses run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// First input address.
    pub(crate) ia: u64,
    /// First address after it.
    pub(crate) end: u64,
    /// Output address of the first; `None` for invalid entries.
    pub(crate) oa: Option<u64>,
    /// What they say, of [`Map::sayings`].
    pub(crate) said: u32,
}

/// What is known of a page of physical memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    /// Whose it is.
    pub(crate) class: Class,
    /// What the host's entry for it says; empty if its table was not read.
    pub(crate) host: String,
    /// What pKVM keeps about the frame; empty if nothing, or if that was not read.
    pub(crate) frame: String,
    /// What else: whose table page it is, what does not agree.
    pub(crate) more: String,
}

/// Neighboring pages of physical memory of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// First address.
    pub(crate) start: u64,
    /// First address after it.
    pub(crate) end: u64,
    /// Of [`Map::kinds`].
    pub(crate) kind: u32,
}

/// The input addresses of a table.
#[derive(Debug)]
pub(crate) struct Space {
    /// The name of the table.
    pub(crate) name: String,
    /// What it is, for people.
    pub(crate) about: String,
    /// The number of the guest, if it is one's.
    pub(crate) guest: Option<usize>,
    /// What its color and its letter are chosen by: the same in each map of the machine.
    pub(crate) hue: usize,
    /// What it has there, in ascending addresses. Holes are left out.
    pub(crate) pieces: Vec<Piece>,
}

/// A map.
#[derive(Debug)]
pub(crate) struct Map {
    /// The page size, of which all addresses are multiples.
    pub(crate) page_bytes: u64,
    /// Physical memory in ascending addresses; what is nothing is left out.
    pub(crate) segments: Vec<Segment>,
    /// What segments are of.
    pub(crate) kinds: Vec<Kind>,
    /// EL2's input addresses if its table was read, then those of the guests.
    pub(crate) spaces: Vec<Space>,
    /// What pieces say.
    pub(crate) sayings: Vec<Said>,
}

impl Map {
    /// Makes the map of `machine`.
    pub(crate) fn of(machine: &Machine) -> Self {
        let mut sayings = Sayings::default();
        let mut spaces: Vec<Space> = Vec::new();
        for (number, tree) in machine.guests().enumerate() {
            let target = tree.table.target;
            let vm = target.guest_handle().and_then(|handle| machine.vm(handle));
            let kind = if machine.is_protected(target) { "protected" } else { "ordinary" };
            let mut about = format!("{kind} guest");
            if let Some(vm) = vm {
                let id = vm_name(vm).map(|name| format!(", {name}")).unwrap_or_default();
                let pid = if vm.pid == 0 { String::new() } else { format!(", pid {}", vm.pid) };
                about.push_str(&format!("{id}{pid}"));
            }
            let pieces = pieces::of_guest(tree, number, machine, &mut sayings);
            let hue = target.guest_handle().map_or(number, |handle| usize::from(handle.saturating_sub(FIRST_HANDLE)));
            spaces.push(Space { name: tree.table.name(), about, guest: Some(number), hue, pieces });
        }
        let (segments, kinds) = physical::segments(machine, &spaces, &mut sayings);
        if let Some(tree) = machine.tree(Target::HYP) {
            let pieces = pieces::of_hyp(tree, machine, &segments, &kinds, &mut sayings);
            let about = "what EL2 maps for itself".into();
            spaces.insert(0, Space { name: tree.table.name(), about, guest: None, hue: 0, pieces });
        }
        Self { page_bytes: machine.page_bytes(), segments, kinds, spaces, sayings: sayings.into_list() }
    }

    /// Returns the classes that there are, in the order of a legend, with how many bytes of physical memory are of each, and how
    /// many of input addresses.
    pub(crate) fn totals(&self) -> BTreeMap<Class, [u64; 2]> {
        let of_memory = self.segments.iter().map(|segment| {
            let class = self.kinds.get(segment.kind as usize).map_or(Class::Nothing, |kind| kind.class);
            (class, segment.end - segment.start)
        });
        let pieces = self.spaces.iter().flat_map(|space| &space.pieces);
        let of_entries = pieces.map(|piece| {
            (self.sayings.get(piece.said as usize).map_or(Class::Nothing, |said| said.class), piece.end - piece.ia)
        });
        let mut totals = BTreeMap::<Class, [u64; 2]>::new();
        of_memory.for_each(|(class, bytes)| totals.entry(class).or_default()[0] += bytes);
        of_entries.for_each(|(class, bytes)| totals.entry(class).or_default()[1] += bytes);
        totals
    }
}
