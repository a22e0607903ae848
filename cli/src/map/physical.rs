// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whose each page of physical memory is: what the host's table, the tables of guests, table pages, and what pKVM keeps about
//! frames say of it, joined.

use super::says::Sayings;
use super::track::{flatten, Span, Track};
use super::{Class, Kind, Segment, Space};
use crate::machine::Machine;
use crate::meaning;
use crate::words;
use s2dump_abi::slot::RecordKind;
use s2dump_abi::target::Target;
use s2dump_vmsa::pkvm::{Frame, Owner, PageState};
use std::collections::HashMap;

/// What the host's entry for a page says.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Host {
    /// Nothing: it was not accessed yet.
    Hole,
    /// The host maps it, there or elsewhere.
    Leaf { is_identity: bool },
    /// The host gave it away, and the guest is to have it at this input address.
    Given { handle: u16, at: u64 },
    /// The host gave it to EL2.
    Hyp,
    /// The host gave it to a guest.
    SomeGuest,
    /// Something else.
    Other,
}

/// A page of a guest.
#[derive(Clone, Copy)]
struct Mapped {
    guest: usize,
    handle: Option<u16>,
    ia: u64,
    is_shared: bool,
}

/// Whether a guest has a page that was given to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Had {
    /// It was given to no guest.
    NotGiven,
    /// Where it is to have it.
    There,
    /// Elsewhere.
    Elsewhere,
    /// It does not.
    Nowhere,
}

/// All that decides of what kind a page is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Look {
    /// Whether it is memory, and memory without states.
    region: Option<bool>,
    host: Option<(Host, u32)>,
    had: Had,
    frame: Option<Option<u64>>,
    guest: Option<(usize, bool)>,
    is_several: bool,
    table_of: Option<u64>,
    is_lent_to_hyp: bool,
}

/// Returns physical memory in ascending addresses, and the kinds of it. `spaces` are those of the guests.
pub(super) fn segments(machine: &Machine, spaces: &[Space], sayings: &mut Sayings) -> (Vec<Segment>, Vec<Kind>) {
    let guests = mapped(machine, spaces, sayings);
    let regions = machine.known.memory.iter().map(|region| Span {
        start: region.span.start,
        end: region.span.end,
        said: region.is_nomap,
    });
    // Regions may overlap by what the kernel told wrongly.
    let regions: Vec<_> = regions.collect();
    let host = host_spans(machine, sayings);
    let frames = machine.frames.all().iter().map(|run| Span { start: run.pa, end: run.end(), said: run.raw });
    let (tables, hyp) = (table_pages(machine), lent_to_hyp(machine));

    let mut regions = Track::new(flatten(&regions));
    let mut host = Track::new(host.into_iter());
    let mut frames = Track::new(frames);
    let mut guests = Track::new(flatten(&guests));
    let mut tables = Track::new(flatten(&tables));
    let mut hyp = Track::new(flatten(&hyp));
    let (mut segments, mut kinds): (Vec<Segment>, Vec<Kind>) = (Vec::new(), Vec::new());
    let mut known = HashMap::<Look, u32>::new();
    let mut at = 0;
    while at < u64::MAX {
        let (region, region_end) = regions.at(at);
        let (host, host_end) = host.at(at);
        let (frame, frame_end) = frames.at(at);
        let (guest, guest_end) = guests.at(at);
        let (table, table_end) = tables.at(at);
        let (lent, lent_end) = hyp.at(at);
        let end =
            [region_end, host_end, frame_end, guest_end, table_end, lent_end].into_iter().min().unwrap_or(u64::MAX);
        let mapped = guest.map(|span| span.said);
        let had = match (host.map(|span| (span.start, span.said.0)), mapped) {
            (Some((start, Host::Given { handle, at: ia })), Some((mapped, _)))
                if mapped.said.handle == Some(handle) =>
            {
                let is_there = mapped.said.ia.wrapping_add(at - mapped.start) == ia.wrapping_add(at - start);
                if is_there {
                    Had::There
                } else {
                    Had::Elsewhere
                }
            }
            (Some((_, Host::Given { .. })), _) => Had::Nowhere,
            _ => Had::NotGiven,
        };
        let look = Look {
            region: region.map(|span| span.said.0.said),
            host: host.map(|span| {
                let (host, said) = span.said;
                // Where the guest has it was looked at.
                (if let Host::Given { handle, .. } = host { Host::Given { handle, at: 0 } } else { host }, said)
            }),
            had,
            frame: frame.map(|span| span.said),
            guest: mapped.map(|(mapped, _)| (mapped.said.guest, mapped.said.is_shared)),
            is_several: mapped.is_some_and(|(_, is_several)| is_several),
            table_of: table.map(|span| span.said.0.said),
            is_lent_to_hyp: lent.is_some(),
        };
        let is_page = region.is_some() || frame.is_some() || guest.is_some() || table.is_some();
        let is_said = host.is_some_and(|span| span.said.0 != Host::Hole);
        if is_page || is_said {
            let kind = *known.entry(look).or_insert_with(|| {
                let kind = kind(&look, machine, sayings);
                let same = kinds.iter().position(|known| *known == kind);
                let number = same.unwrap_or_else(|| {
                    kinds.push(kind);
                    kinds.len() - 1
                });
                u32::try_from(number).unwrap_or(u32::MAX)
            });
            match segments.last_mut() {
                Some(last) if last.end == at && last.kind == kind => last.end = end,
                _ => segments.push(Segment { start: at, end, kind }),
            }
        }
        at = end;
    }
    (segments, kinds)
}

/// Returns what guests map.
fn mapped(machine: &Machine, spaces: &[Space], sayings: &Sayings) -> Vec<Span<Mapped>> {
    let handles: Vec<_> = machine.guests().map(|tree| tree.table.target.guest_handle()).collect();
    let mut spans = Vec::new();
    for space in spaces {
        let guest = space.guest.unwrap_or_default();
        let handle = handles.get(guest).copied().flatten();
        for piece in &space.pieces {
            let Some(start) = piece.oa else { continue };
            let is_shared = sayings.class(piece.said) != Class::Guest { number: guest, is_shared: false };
            let end = start.saturating_add(piece.end - piece.ia);
            spans.push(Span { start, end, said: Mapped { guest, handle, ia: piece.ia, is_shared } });
        }
    }
    spans
}

/// Returns what the host's table says, of which input addresses are physical.
fn host_spans(machine: &Machine, sayings: &mut Sayings) -> Vec<Span<(Host, u32)>> {
    let Some(tree) = machine.tree(Target::HOST) else { return Vec::new() };
    let table = &tree.table;
    let page_shift = machine.page_shift();
    let rows = tree.rows(0, u64::MAX).map(|row| {
        let host = match (row.kind, meaning::owner(&row, table)) {
            (RecordKind::LEAF, _) => Host::Leaf { is_identity: row.oa == Some(row.ia) },
            (_, Some(Owner::Guest { handle, gfn })) => Host::Given { handle, at: (gfn << page_shift) + row.skipped },
            (_, Some(Owner::Hyp)) => Host::Hyp,
            (_, Some(Owner::SomeGuest)) => Host::SomeGuest,
            _ if row.is_hole() => Host::Hole,
            _ => Host::Other,
        };
        let said = sayings.of_row(&row, table, Class::Host);
        Span { start: row.ia, end: row.end(), said: (host, said) }
    });
    rows.collect()
}

/// Returns the table pages, with their targets.
fn table_pages(machine: &Machine) -> Vec<Span<u64>> {
    let (mut spans, page) = (Vec::new(), machine.page_bytes());
    for tree in &machine.trees {
        let target = tree.table.target.0;
        spans.extend(tree.tables.iter().map(|told| Span {
            start: told.pa,
            end: told.pa.saturating_add(page),
            said: target,
        }));
    }
    spans
}

/// Returns what EL2's own table says it borrows.
fn lent_to_hyp(machine: &Machine) -> Vec<Span<()>> {
    let Some(tree) = machine.tree(Target::HYP) else { return Vec::new() };
    let rows = tree.rows(0, u64::MAX).filter(|row| {
        let state = tree.table.decode_software(row.raw).page_state();
        row.kind == RecordKind::LEAF && state == Some(PageState::SharedBorrowed)
    });
    rows.filter_map(|row| {
        let start = row.oa?;
        Some(Span { start, end: start.saturating_add(row.size()), said: () })
    })
    .collect()
}

fn kind(look: &Look, machine: &Machine, sayings: &Sayings) -> Kind {
    let frame = look.frame.flatten().and_then(|raw| machine.frames.decode(raw));
    let class = class(look, frame, machine);
    let said = look.host.map(|(_, said)| sayings.text(said).to_owned());
    let host = match look.had {
        Had::NotGiven => said,
        Had::There => said.map(|said| said + ", where it has it"),
        Had::Elsewhere => said.map(|said| said + ", which has it at another address"),
        Had::Nowhere => said.map(|said| said + ", which does not map it"),
    };
    let more = match (look.table_of.map(Target), class) {
        (Some(target), _) => format!("a table page of {}", crate::model::target_name(target)),
        (_, Class::Clash) => "tables and frame do not agree: ask s2dump audit".into(),
        _ => String::new(),
    };
    let frame = match look.frame {
        Some(Some(_)) => words::frame(frame),
        Some(None) => "no state".into(),
        None => String::new(),
    };
    Kind { class, host: host.unwrap_or_default(), frame, more }
}

/// Says whose a page is.
fn class(look: &Look, frame: Option<Frame>, machine: &Machine) -> Class {
    let host = look.host.map(|(host, _)| host);
    if look.table_of.is_some() {
        return Class::Table;
    }
    if host == Some(Host::Leaf { is_identity: false }) {
        return Class::Clash;
    }
    let is_hosts =
        matches!(host, Some(Host::Leaf { .. })) || frame.is_some_and(|frame| frame.host == Some(PageState::Owned));
    match look.guest {
        Some(_) if look.is_several => return Class::Guests,
        Some((_, false)) if is_hosts => return Class::Clash,
        Some((number, is_shared)) => return Class::Guest { number, is_shared },
        None => {}
    }
    match host {
        Some(Host::Hyp) => return Class::Hyp,
        Some(Host::SomeGuest) => return Class::SomeGuest,
        Some(Host::Given { handle, .. }) => {
            let guest = machine.guests().position(|tree| tree.table.target == Target::guest(handle));
            return guest.map_or(Class::SomeGuest, |number| Class::Guest { number, is_shared: false });
        }
        Some(Host::Other) => return Class::Other,
        Some(Host::Hole | Host::Leaf { .. }) | None => {}
    }
    if let Some(frame) = frame {
        return match (frame.host, frame.hyp) {
            (Some(PageState::Owned), _) if look.is_lent_to_hyp => Class::HostShared,
            (Some(PageState::Owned), _) => Class::Host,
            (Some(PageState::SharedOwned | PageState::SharedBorrowed), _) => Class::HostShared,
            (Some(PageState::NoPage), Some(PageState::Owned)) => Class::Hyp,
            _ => Class::Other,
        };
    }
    match (look.frame, look.region, host) {
        (Some(None), ..) | (_, Some(true), _) => Class::Stateless,
        (_, Some(false), _) if look.is_lent_to_hyp => Class::HostShared,
        (_, Some(false), Some(Host::Hole | Host::Leaf { .. })) => Class::Host,
        (_, None, Some(Host::Leaf { .. })) => Class::Device,
        (_, None, _) => Class::Nothing,
        _ => Class::Untold,
    }
}
