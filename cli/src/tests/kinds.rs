// SPDX-License-Identifier: MIT OR Apache-2.0
//! Slots that are of no guest: frames, facts, the table of EL2.

use super::support::*;
use crate::model::TableFault;
use crate::reader::{Event, Issue, Reader};
use crate::registers::Register;
use crate::source::file::FileSource;
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{encoding, table_features, FactKind, FrameRecord, SlotHeader, SlotKind};
use s2dump_abi::target::Target;
use s2dump_vmsa::Regime;
use std::io::Cursor;

fn read(capture: &Capture) -> (Vec<Event>, Vec<Issue>) {
    let source = FileSource::new(Box::new(Cursor::new(capture.bytes.clone())), "test".into());
    let mut reader = Reader::new(source);
    let (mut events, mut issues) = (Vec::new(), Vec::new());
    while let Some(event) = reader.next_event().unwrap() {
        events.push(event);
        issues.extend(std::iter::from_fn(|| reader.next_issue()));
    }
    issues.extend(std::iter::from_fn(|| reader.next_issue()));
    (events, issues)
}

/// A region of memory, a gap, and a region without states.
#[test]
fn frames_have_gaps_and_an_order() {
    let records =
        [frames(0x4000_0000, 16, 0), frames(0x4001_0000, 1, page_of(3, 0, 1, 0, 0)), stateless(0x8000_0000, 4)];
    let mut capture = Capture::default();
    capture.frames(encoding::PKVM_7_2, 0x4000_0000, 0x1_0000_0000, &records);
    let (events, issues) = read(&capture);
    assert_eq!(issues, Vec::<Issue>::new());
    assert!(matches!(events.first(), Some(Event::Frames(slot)) if slot.encoding == encoding::PKVM_7_2), "{events:?}");
    assert_eq!(events[1..4], records.map(Event::Frame));
    assert!(matches!(events[4..], [Event::End(SlotKind::FRAMES, outcome)] if outcome.is_complete()), "{events:?}");
}

#[test]
fn bad_frames_are_left_out() {
    let good = frames(0x4001_0000, 2, 0);
    let records = [
        frames(0x4000_0000, 0, 0),
        good,
        frames(0x4001_1000, 1, 0),
        frames(0x4001_2000, u32::MAX, 0),
        frames(!0xfff, 2, 0),
    ];
    let mut capture = Capture::default();
    capture.frames(encoding::PKVM_7_2, 0x4000_0000, 0x5000_0000, &records);
    let (events, issues) = read(&capture);
    let left_out = |pa| move |issue: &Issue| matches!(issue, Issue::Frame(at, _) if *at == pa);
    for pa in [0x4000_0000, 0x4001_1000, 0x4001_2000, !0xfff] {
        assert_eq!(issues.iter().filter(|issue| left_out(pa)(issue)).count(), 1, "{pa:#x} {issues:?}");
    }
    assert_eq!(issues.len(), 4);
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Frame(_))).count(), 1);
    assert!(events.contains(&Event::Frame(good)));
}

#[test]
fn frames_that_end_early_are_not_covered() {
    let mut capture = Capture::default();
    let next = 0x4001_0000;
    let header =
        SlotHeader { page_shift: 12, start: 0x4000_0000, next, end: 2 * next, ..slot_header(SlotKind::FRAMES) };
    capture.slot::<FrameRecord>(header, &[]).end(0, 1, Status::OK);
    let (events, issues) = read(&capture);
    assert_eq!(issues, [Issue::NotCovered("frames".into(), next)]);
    assert!(matches!(events.last(), Some(Event::End(SlotKind::FRAMES, outcome)) if !outcome.covered), "{events:?}");
}

#[test]
fn facts_come_as_they_are() {
    let facts = [fact(FactKind::MEMORY, 0x4000_0000, 1 << 30, 0), fact(FactKind(999), 1, 2, 3)];
    let mut capture = Capture::default();
    capture.facts(&facts);
    let (events, issues) = read(&capture);
    assert_eq!(issues, Vec::<Issue>::new());
    assert_eq!(events[..2], facts.map(Event::Fact));
    assert!(matches!(events[2..], [Event::End(SlotKind::FACTS, outcome)] if outcome.is_complete()), "{events:?}");
}

/// The geometry of EL2's table comes from TCR_EL2, whose form HVHE decides.
#[test]
fn tables_of_el2_are_of_tcr() {
    let (tcr, mair) = (5_u64 << 32 | 3 << 12 | 16, 0xff44_0400);
    let header = SlotHeader {
        target: Target::HYP.0,
        vtcr: tcr,
        mair,
        root: 0x4200_0000,
        table_features: table_features::HVHE,
        ia_bits: 48,
        pa_bits: 48,
        page_shift: 12,
        end: 1 << 48,
        encoding: encoding::PKVM_7_2,
        ..slot_header(SlotKind::RANGES)
    };
    let mut capture = Capture::default();
    capture.dump(header, &[hole(0, 0, 512)], 100, Status::OK);
    let (events, issues) = read(&capture);
    assert_eq!(issues, Vec::<Issue>::new());
    let Some(Event::Dump(table)) = events.first() else { panic!("{events:?}") };
    assert_eq!((table.name().as_str(), table.mair), ("hyp", Some(mair)));
    assert_eq!((table.geometry.regime(), table.geometry.pa_bits()), (Regime::El2And0, 48));

    // In the other form PS is elsewhere: 32 bits, which is as good a table.
    let mut capture = Capture::default();
    capture.dump(SlotHeader { table_features: 0, ..header }, &[hole(0, 0, 512)], 100, Status::OK);
    let (events, _) = read(&capture);
    let Some(Event::Dump(table)) = events.first() else { panic!("{events:?}") };
    assert_eq!((table.geometry.regime(), table.geometry.pa_bits()), (Regime::El2, 32));

    let mut capture = Capture::default();
    capture.dump(SlotHeader { ia_bits: 40, ..header }, &[hole(0, 0, 512)], 100, Status::OK);
    let (_, issues) = read(&capture);
    assert_eq!(issues[0], Issue::Table(0, TableFault::Contradiction(Register::Tcr, tcr)));
}
