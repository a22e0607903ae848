// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be wrong with slots, one thing at a time: each is told, and the good rows stay.

use super::support::*;
use super::{run_without_device, TempFile};
use crate::exit_code::ExitCode;
use crate::model::Row;
use crate::origin::Origin;
use crate::reader::{Event, Reader};
use crate::source::file::FileSource;
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{encoding, slot_flags, Fact, FactKind, FrameRecord, Record, RecordKind, SlotHeader, SlotKind};
use s2dump_abi::target::Target;
use std::io::Cursor;

/// Reads `capture`; returns how many rows there were, whether it is complete, and the issues.
fn read(capture: &Capture) -> (usize, bool, Vec<String>) {
    let source = FileSource::new(Box::new(Cursor::new(capture.bytes.clone())), "test".into());
    let mut reader = Reader::new(source);
    let (mut rows, mut is_complete, mut issues) = (0, false, Vec::new());
    while let Some(event) = reader.next_event().unwrap() {
        match event {
            Event::Row(_) => rows += 1,
            Event::End(_, outcome) => is_complete = outcome.is_complete(),
            _ => {}
        }
        issues.extend(std::iter::from_fn(|| reader.next_issue()).map(|issue| issue.to_string()));
    }
    issues.extend(std::iter::from_fn(|| reader.next_issue()).map(|issue| issue.to_string()));
    (rows, is_complete, issues)
}

/// The protected table of nine rows in slots of three, with `change` done to each header and each record.
fn changed(change: impl Fn(usize, &mut SlotHeader, &mut [Record])) -> Capture {
    let mut capture = Capture::default();
    let (table, header) = (protected_table(), dump_header(0x1000, VTCR_40));
    let bounds = [(0, 0x8001_0000), (0x8001_0000, 0x8001_4000), (0x8001_4000, 1 << 40)];
    for (at, (chunk, (start, next))) in table.chunks(3).zip(bounds).enumerate() {
        let mut records = chunk.to_vec();
        let mut header = SlotHeader { record_count: 3, sequence: at as u64, start, next, ..header };
        change(at, &mut header, &mut records);
        capture.slot(header, &records);
    }
    capture.end(header.target, 3, Status::OK);
    capture
}

#[test]
fn good_unchanged() {
    assert_eq!(read(&changed(|_, _, _| ())), (9, true, vec![]));
}

/// Name, change, rows that stay, a text among the issues.
type Case = (&'static str, Change, usize, &'static str);

/// Changes the header and the records of the slot of this number.
type Change = fn(usize, &mut SlotHeader, &mut [Record]);

const BAD: &[Case] = &[
    ("gap", |at, h, _| h.sequence += u64::from(at > 0), 9, "slot 2 follows, where slot 1 was due"),
    ("seam", |at, h, _| h.start -= if at == 1 { 0x1000 } else { 0 }, 9, "begins at 0x8000f000"),
    ("not_covered", |at, h, _| h.next -= if at == 2 { 1 << 30 } else { 0 }, 9, "nothing from 0xffc0000000 on"),
    ("registers", |at, h, _| h.table_features ^= u32::from(at == 1) << 1, 9, "registers changed"),
    ("another_table", |at, h, _| h.root += if at == 1 { 0x1000 } else { 0 }, 6, "left out a slot of another VM"),
    ("encoding", |at, h, _| h.encoding = if at == 1 { encoding::NONE } else { h.encoding }, 9, "registers changed"),
    ("reserved", |at, h, _| h.reserved = u32::from(at == 1), 9, "reserved fields are not zero"),
    ("record_size", |at, h, _| h.record_bytes -= if at == 1 { 8 } else { 0 }, 6, "too small"),
    ("header_size", |at, h, _| h.header_bytes -= if at == 1 { 8 } else { 0 }, 6, "are not a slot"),
    ("level_above_root", |at, _, r| r[0].level = if at == 1 { 0 } else { r[0].level }, 8, "above the root"),
    ("no_such_level", |at, _, r| r[0].level = if at == 1 { 4 } else { r[0].level }, 8, "no such level"),
    ("no_entries", |at, _, r| r[0].count = if at == 1 { 0 } else { r[0].count }, 8, "no entries"),
    ("too_many", |at, _, r| r[2].count = if at == 2 { u32::MAX } else { r[2].count }, 8, "outside the input"),
    ("outside", |at, _, r| r[2].ia = if at == 2 { 1 << 40 } else { r[2].ia }, 8, "outside the input"),
    ("overlap", |at, _, r| r[1].ia -= if at == 1 { 0x1000 } else { 0 }, 8, "does not follow"),
    ("within_an_entry", |at, _, r| r[0].ia += if at == 1 { 0x3e } else { 0 }, 8, "it begins within an entry"),
    ("backwards", |at, _, r| r.swap(0, usize::from(at == 1)), 8, "does not follow"),
    ("unknown_kind", |at, _, r| r[0].kind = if at == 1 { 6 } else { r[0].kind }, 8, "does not know"),
    ("table", |at, _, r| r[0].kind = if at == 1 { RecordKind::TABLE.0 } else { r[0].kind }, 8, "is no run"),
];

/// A table page is an event of its own, between the rows; without the flag, or in another place, it is an issue.
#[test]
fn tables_are_told_apart_from_rows() {
    let table = |ia| Record { ia, oa: 0x4567_8000, descriptor: 0x4567_8003, ..leaves(ia, 2, 1, 0, 3) };
    let table = |ia| Record { kind: RecordKind::TABLE.0, ..table(ia) };
    let told = |flags: u16, at: usize, ia: u64| {
        let mut records = protected_table();
        records.insert(at, table(ia));
        let header = dump_header(0x1000, VTCR_40);
        let header = SlotHeader { flags: header.flags | flags, ..header };
        let capture = Capture::default().dump(header, &records, 200, Status::OK).clone();
        let source = FileSource::new(Box::new(Cursor::new(capture.bytes.clone())), "test".into());
        let mut reader = Reader::new(source);
        let mut tables = Vec::new();
        while let Some(event) = reader.next_event().unwrap() {
            if let Event::Table(row) = event {
                tables.push((row.ia, row.oa));
            }
        }
        (tables, read(&capture).0, reader.next_issue().is_some())
    };
    let ia = protected_table()[3].ia;
    assert_eq!(told(slot_flags::TABLES, 3, ia), (vec![(ia, Some(0x4567_8000))], 9, false));
    assert_eq!(told(0, 3, ia), (vec![], 9, true));
    assert_eq!(told(slot_flags::TABLES, 3, ia + 0x1000), (vec![], 9, true));
}

#[test]
fn bad_slots_are_told_and_good_rows_stay() {
    for (name, change, rows, text) in BAD {
        let (found, _, issues) = read(&changed(change));
        assert_eq!(found, *rows, "{name}: {issues:?}");
        assert!(issues.iter().any(|issue| issue.contains(text)), "{name}: {issues:?}");
    }
}

#[test]
fn bad_first_header_loses_only_its_slot() {
    let cases: [fn(&mut SlotHeader); 5] = [
        |h| h.vtcr |= 1 << 38,
        |h| h.vtcr |= 3 << 14,
        |h| h.ia_bits = 41,
        |h| h.start_level = 0,
        |h| h.page_shift = 14,
    ];
    for change in cases {
        let (rows, is_complete, issues) = read(&changed(|at, header, _| {
            if at == 0 {
                change(header);
            }
        }));
        assert_eq!((rows, is_complete), (6, true));
        assert_eq!(issues.len(), 2, "the table, and the gap: {issues:?}");
    }
}

/// A dump that is not ended ends where another begins.
#[test]
fn bad_no_end_between() {
    let mut capture = Capture::default();
    let header = dump_header(0x1000, VTCR_40);
    capture.ranges(header, &protected_table(), 200).dump(header, &protected_table(), 200, Status::OK);
    assert_eq!(read(&capture), (18, true, vec!["vm:0x1000: the end is missing".into()]));
}

#[test]
fn bad_rubbish_between_slots_is_skipped() {
    let mut capture = two_vms();
    let (rows, ..) = read(&capture);
    capture.bytes.extend(b"S2D rubbish S2D\x1a more");
    capture.bytes.extend(&two_vms().bytes);
    let (found, is_complete, issues) = read(&capture);
    assert_eq!((found, is_complete), (2 * rows, true));
    assert!(!issues.is_empty() && issues.iter().all(|issue| issue.starts_with("skipped")), "{issues:?}");
}

/// Later minor versions may append fields: to headers and to records.
#[test]
fn good_longer_headers_and_records() {
    let mut capture = Capture::default();
    let header = dump_header(0x1000, VTCR_40);
    let table = protected_table();
    let longer = SlotHeader {
        version: 3 << 16 | 3,
        header_bytes: 144,
        record_bytes: 40,
        record_count: table.len() as u32,
        next: 1 << 40,
        ..header
    };
    capture.slot::<u64>(longer, &[u64::MAX; 2]);
    for record in &table {
        capture.bytes.extend(zerocopy::IntoBytes::as_bytes(record));
        capture.bytes.extend([0xff; 8]);
    }
    capture.end(header.target, 1, Status::OK);
    assert_eq!(read(&capture), (9, true, vec![]));
}

/// The first entry may begin before the address asked for, as a block does.
#[test]
fn good_first_entry_begins_earlier() {
    let mut capture = Capture::default();
    let header = SlotHeader { start: 0x8001_0000, end: 0x8002_0000, ..dump_header(0x1000, VTCR_40) };
    let block = leaves(0x8000_0000, 2, 1, 0x4000_0000, BLOCK);
    capture.slot(SlotHeader { record_count: 1, next: 0x8002_0000, ..header }, &[block]);
    capture.end(header.target, 1, Status::OK);
    assert_eq!(read(&capture), (1, true, vec![]));
}

/// Many lists and END slots in a row: sections do not leak into each other.
#[test]
fn good_lists_and_ends() {
    let mut capture = Capture::default();
    capture.list(&three_vms()).end(0, 0, Status::OK).list(&three_vms());
    let (rows, _, issues) = read(&capture);
    assert_eq!((rows, issues), (0, vec![]));
    assert_eq!(SlotKind::END.0, 4);
}

/// Pages up to 0x8000_7fff in a first slot, then `record`, which begins before, and holes to the end in a second one.
fn changed_to(record: Record) -> Capture {
    let header = dump_header(0x1000, VTCR_40);
    let pages = [hole(0, 1, 2), leaves(0x8000_0000, 3, 8, 0x4200_0000, PAGE)];
    let after = record.ia + (u64::from(record.count) << (12 + 9 * (3 - i32::from(record.level))));
    let mut rest = vec![record];
    if after < 0xc000_0000 {
        rest.push(hole(after, 2, ((0xc000_0000 - after) >> 21) as u32));
    }
    rest.push(hole(u64::max(after, 0xc000_0000), 1, 1024 - (u64::max(after, 0xc000_0000) >> 30) as u32));
    let count = rest.len() as u32;
    Capture::default()
        .slot(SlotHeader { record_count: 2, next: 0x8000_8000, ..header }, &pages)
        .slot(SlotHeader { record_count: count, sequence: 1, start: 0x8000_8000, next: 1 << 40, ..header }, &rest)
        .end(header.target, 2, Status::OK)
        .clone()
}

fn rows_of(capture: &Capture) -> Vec<Row> {
    let mut reader = Reader::new(FileSource::new(Box::new(Cursor::new(capture.bytes.clone())), "test".into()));
    let mut rows = Vec::new();
    while let Some(event) = reader.next_event().unwrap() {
        if let Event::Row(row) = event {
            rows.push(row);
        }
    }
    assert!(!reader.has_issues());
    rows
}

/// Between two calls the table of 0x8000_0000 became a hole, a block, an annotation, a part of a hole of a gibibyte. What
/// was read before stays; the new entry covers the rest; that the table changed there is no fault of the input.
#[test]
fn good_table_became_an_entry_that_begins_earlier() {
    let cases = [
        (hole(0x8000_0000, 2, 1), 0x8020_0000, None),
        (hole(0x8000_0000, 2, 512), 0xc000_0000, None),
        (leaves(0x8000_0000, 2, 2, 0x6000_0000, BLOCK), 0x8040_0000, Some(0x6000_8000)),
        (leaves(0x8000_0000, 1, 1, 0x4000_0000, BLOCK), 0xc000_0000, Some(0x4000_8000)),
        (jumping(0x8000_0000, 2, 2, 0x6000_0000, BLOCK), 0x8040_0000, Some(0x6000_8000)),
        (annotated(0x8000_0000, 2, 1, POISONED), 0x8020_0000, None),
        (
            run(0x8000_0000, 2, 1, RecordKind::TABLE_OUTSIDE, 0xff_0000_0000, 0xff_0000_0003, 1),
            0x8020_0000,
            Some(0xff_0000_0000),
        ),
    ];
    for (record, end, oa) in cases {
        let capture = changed_to(record);
        assert_eq!(read(&capture).2, Vec::<String>::new(), "{record:?}");
        let rows = rows_of(&capture);
        assert_eq!((rows[1].ia, rows[1].end(), rows[1].oa), (0x8000_0000, 0x8000_8000, Some(0x4200_0000)));
        let row = rows[2];
        assert_eq!((row.ia, row.end(), row.oa), (0x8000_8000, end, oa), "{record:?}");
        assert_eq!((row.raw, row.count, row.skipped), (record.descriptor, record.count.into(), 0x8000));
        let seen = rows.iter().map(|row| row.changed.at_start);
        assert_eq!(seen.collect::<Vec<_>>(), [vec![false, false, true], vec![false; rows.len() - 3]].concat());
        assert!(rows.windows(2).all(|pair| pair[0].end() == pair[1].ia), "{rows:?}");
    }
}

/// EL2 begins with the entry that has the cursor: a record that has more before it is damage, but no reason for a gap.
#[test]
fn bad_reaches_back_over_several_entries() {
    let capture = changed_to(hole(0x7fe0_0000, 2, 2));
    let (_, _, issues) = read(&capture);
    assert_eq!(issues.len(), 1);
    assert!(issues[0].contains("reaches back over more than one entry"), "{issues:?}");
}

/// Rows that are missing within a slot, at its beginning, between its records and at its end.
#[test]
fn bad_addresses_that_no_record_covers() {
    let cases: [(Change, &str); 2] = [
        (|at, _, r| r[0].ia += if at == 1 { 0x1000 } else { 0 }, "no record covers 0x80010000 to 0x80011000"),
        (|at, _, r| r[0].count -= u32::from(at == 1), "no record covers 0x80011000 to 0x80012000"),
    ];
    for (change, text) in cases {
        let (_, _, issues) = read(&changed(change));
        assert!(issues[0].contains(text), "{issues:?}");
    }
    // A slot of fewer records than cover it.
    let mut capture = Capture::default();
    let header = dump_header(0x1000, VTCR_40);
    capture.slot(SlotHeader { record_count: 1, next: 1 << 40, ..header }, &[hole(0, 1, 1023)]);
    let (rows, _, issues) = read(capture.end(header.target, 1, Status::OK));
    assert_eq!((rows, issues), (1, vec!["vm:0x1000: no record covers 0xffc0000000 to 0x10000000000".into()]));
}

/// Frames with a gap in two slots, facts, and an examination of a frame and one place.
fn machine_streams() -> Capture {
    let mut capture = Capture::default();
    let frames = SlotHeader {
        record_bytes: size_of::<FrameRecord>() as u16,
        record_count: 1,
        page_shift: 12,
        encoding: encoding::PKVM_7_2,
        ..slot_header(SlotKind::FRAMES)
    };
    let frame = |pa, count| FrameRecord { pa, raw: 0x3300_0000, count, flags: 0, reserved: 0 };
    let end = 0x8000_0000;
    let first = SlotHeader { next: 0x4000_2000, end, ..frames };
    capture.slot(first, &[frame(0x4000_0000, 2)]);
    let second = SlotHeader { start: 0x4000_2000, next: end, sequence: 1, ..first };
    capture.slot(second, &[frame(0x6000_0000, 16)]).end(0, 2, Status::OK);
    let facts = SlotHeader { record_bytes: size_of::<Fact>() as u16, record_count: 1, ..slot_header(SlotKind::FACTS) };
    let memory = Fact { start: 0x4000_0000, size: 0x2000, value: 0, kind: FactKind::MEMORY.0, flags: 0, reserved: 0 };
    capture.slot(facts, &[memory]).end(0, 1, Status::OK);
    let examined = SlotHeader { start: 0x4000_0000, record_count: 3, ..slot_header(SlotKind::EXAMINE) };
    let looked = [
        run(0x4000_0000, 0, 1, RecordKind::FRAME, 0, 0x3300_0000, 1),
        run(0x4000_0000, 0, 0, RecordKind::PLACE, 0x4100_0000, Target::HOST.0, 1),
        hole(0x4000_0000, 1, 1),
    ];
    capture.slot(examined, &looked).end(0, 1, Status::OK);
    capture
}

#[test]
fn good_frames_facts_and_examinations() {
    let capture = machine_streams();
    let source = FileSource::new(Box::new(Cursor::new(capture.bytes.clone())), "test".into());
    let mut reader = Reader::new(source);
    let mut found = Vec::new();
    while let Some(event) = reader.next_event().unwrap() {
        assert_eq!(reader.next_issue(), None);
        found.push(match event {
            Event::Frames(header) => format!("frames of {}", header.encoding),
            Event::Frame(frame) => format!("{} at {:#x}", frame.count, frame.pa),
            Event::Fact(fact) => format!("fact {}", fact.kind),
            Event::Examined(header) => format!("look at {:#x}", header.start),
            Event::Sighted(record) => format!("kind {}", record.kind),
            Event::End(kind, outcome) => format!("end of {}: {}", kind.0, outcome.is_complete()),
            other => panic!("{other:?}"),
        });
    }
    let expected = [
        "frames of 1",
        "2 at 0x40000000",
        "16 at 0x60000000",
        "end of 6: true",
        "fact 1",
        "end of 7: true",
        "look at 0x40000000",
        "kind 6",
        "kind 7",
        "kind 0",
        "end of 8: true",
    ];
    assert_eq!(found, expected);
}

/// What is wrong with an input, and where it comes from, is no matter of an address.
#[test]
fn walks_tell_of_their_input_once() {
    let mut bytes = Origin::here().to_slot();
    bytes.extend(b"rubbish ");
    bytes.extend(two_vms().bytes);
    let capture = TempFile::new("once", &bytes);
    let ran = run_without_device(&format!("walk -i {} vm:0x1000 0x80000000 1T 0x80008000", capture.path()));
    assert_eq!(ran.code, ExitCode::Partial, "{}", ran.err);
    assert_eq!(ran.out.matches("output address ").count(), 2, "{}", ran.out);
    let told: Vec<&str> = ran.err.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(told, ["captured", "skipped", "vm:0x1000:"], "{}", ran.err);
}
