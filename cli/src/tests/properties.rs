// SPDX-License-Identifier: MIT OR Apache-2.0
//! Properties: no bytes make the program panic or hang; splitting and rejoining runs changes nothing.

use super::support::*;
use crate::merge::Merger;
use crate::model::{Row, TableFacts};
use crate::reader::{Event, Reader};
use crate::source::file::FileSource;
use proptest::prelude::*;
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{record_flags, slot_flags, PackedRun, Record, RecordKind, SlotHeader, SlotKind};
use s2dump_hyp::coalescer::Fold;
use s2dump_vmsa::pkvm::{self, Encoding, InvalidKind, Owner};
use s2dump_vmsa::{Features, Geometry, RawDescriptor};
use std::io::Cursor;

/// Reads `bytes` as a capture to its end; returns the events, and how many issues there were.
fn read(bytes: Vec<u8>) -> (Vec<Event>, u64) {
    let mut reader = Reader::new(FileSource::new(Box::new(Cursor::new(bytes)), "test".into()));
    let (mut events, mut issues) = (Vec::new(), 0);
    loop {
        let event = reader.next_event();
        while let Some(issue) = reader.next_issue() {
            assert!(!issue.to_string().is_empty());
            issues += 1;
        }
        match event {
            Ok(Some(event)) => events.push(event),
            Ok(None) => return (events, issues),
            Err(_) => return (events, issues + 1),
        }
    }
}

/// Writes all events in all formats.
fn write_all(events: &[Event]) {
    use crate::args::{Color, Selector};
    use crate::filter::Wanted;
    use crate::format::{vms, walk::Walk, Heading, Trailer};
    use crate::plan::Plan;
    use clap::Parser;
    assert_eq!(Selector::Handle(1).to_string(), "vm:0x1");
    for format in ["table", "ptdump", "ptdump-v10", "ptdump-android", "json", "ndjson"] {
        let cli = crate::args::Cli::try_parse_from(["s2dump", "dump", "vm:0x1000", "--format", format]).unwrap();
        let Plan::Dump(plan) = Plan::new(cli).unwrap() else { unreachable!() };
        assert_eq!(plan.color, Color::Auto);
        let mut writer = plan.style.writer(None);
        let (mut out, mut rows) = (Vec::new(), 0);
        for event in events {
            match event {
                Event::Dump(table) => {
                    writer = plan.style.writer(None);
                    rows = 0;
                    let heading = Heading {
                        table: *table,
                        vm: None,
                        exact: false,
                        color: true,
                        headings: true,
                        filter: Vec::new(),
                        rows: true,
                        names: Default::default(),
                    };
                    writer.begin(&mut out, &heading).unwrap();
                }
                Event::Row(row) => {
                    rows += 1;
                    writer.row(&mut out, row).unwrap();
                }
                Event::End(_, outcome) => {
                    writer
                        .end(
                            &mut out,
                            &Trailer {
                                outcome: *outcome,
                                rows,
                                holes: None,
                                verified: None,
                                missing: Default::default(),
                                changes: Default::default(),
                                issues: 0,
                                cause: None,
                            },
                        )
                        .unwrap();
                }
                Event::Vm(vm) => {
                    let sizes = [(vm.handle, vm.root)].into();
                    vms::write_table(&mut out, &[*vm], true, (None, Some(&sizes)), None).unwrap();
                    vms::write_json(&mut out, &[*vm], true, (None, &sizes)).unwrap();
                }
                Event::Walk(table) => {
                    let walk = Walk {
                        table: *table,
                        vm: None,
                        address: 0,
                        steps: Vec::new(),
                        from_leaves: false,
                        is_dying: false,
                        names: Default::default(),
                    };
                    let all = Wanted { filter: plan.filter.clone(), rows: plan.rows };
                    walk.write_text(&mut out, &all, None).unwrap();
                }
                Event::Table(_)
                | Event::Frames(_)
                | Event::Frame(_)
                | Event::Fact(_)
                | Event::Examined(_)
                | Event::Sighted(_) => {}
            }
        }
    }
}

/// Rows ascend and stay inside the space, whatever the input was.
fn check_rows(events: &[Event]) {
    let mut current: Option<(TableFacts, u64)> = None;
    for event in events {
        match (event, &mut current) {
            (Event::Dump(table), _) => current = Some((*table, 0)),
            (Event::Walk(_), _) => current = None,
            (Event::Row(row), Some((table, end))) => {
                assert!(row.ia >= *end && row.count > 0 && row.end() > row.ia, "{row:?}");
                // The last entry of a space smaller than an entry may stick out; the start level has no such.
                assert!(row.ia < table.geometry.ia_end(), "{row:?}");
                *end = row.end();
            }
            _ => {}
        }
    }
}

#[test]
fn whole_capture_has_no_issue() {
    let (events, issues) = read(two_vms().bytes);
    assert_eq!(issues, 0);
    check_rows(&events);
}

/// A cut at any byte loses what is behind it and nothing before.
#[test]
fn cut_anywhere() {
    let whole = two_vms().bytes;
    let (all, _) = read(whole.clone());
    for length in 1..whole.len() {
        let (events, issues) = read(whole[..length].to_vec());
        check_rows(&events);
        let kept = events.iter().zip(&all).take_while(|(event, expected)| event == expected).count();
        let ends = |event: &&Event| matches!(event, Event::End(..));
        assert!(kept + events.iter().filter(ends).count() >= events.len(), "cut at {length}");
        let is_between = all.iter().zip(&events).all(|(a, b)| a == b) && !matches!(events.last(), Some(Event::Row(_)));
        assert!(issues > 0 || is_between, "cut at {length}: silent loss");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let (events, _) = read(bytes);
        check_rows(&events);
    }

    #[test]
    fn mutated_captures_do_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        words in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 0..4),
    ) {
        let mut bytes = two_vms().bytes;
        for (at, word) in words {
            let at = at.index(bytes.len() / 8) * 8;
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let (events, _) = read(bytes);
        check_rows(&events);
        write_all(&events);
    }

    /// A whole machine, damaged, by every verb that reads captures.
    #[test]
    fn mutated_machines_do_no_harm(
        words in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 1..6),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = machine::machine().bytes;
        for (at, word) in words {
            let at = at.index(bytes.len() / 8) * 8;
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for command in [
            "dump -i - all",
            "dump -i - all --format ndjson --exact",
            "dump -i - host --owner guest --state donated",
            "dump -i - hyp --rights .w. -o +ext,raw",
            "walk -i - hyp 0x808000001000",
            "walk -i - host 0x40200000 --json",
            "stat -i -",
            "stat -i - --json",
            "frames -i -",
            "frames -i - --json --range 1G+1M",
        ] {
            let arguments: Vec<&str> = std::iter::once("s2dump").chain(command.split(' ')).collect();
            let code = crate::run_on_capture(&arguments, &bytes, &mut Vec::new());
            prop_assert!(code <= 6 && code != 1, "{command}: {code}");
        }
    }

    /// Rows of pages that guests own tell each page's owner, as the entries did; and no two rows could be one.
    #[test]
    fn folded_owners_are_those_of_the_entries(steps in prop::collection::vec((0..3_u64, 0..3_u64, 0..4_u8), 1..64), exact: bool) {
        let (mut gfn, mut entries) = (0x8_0000, Vec::new());
        for (page, (handle, jump, kind)) in steps.into_iter().enumerate() {
            gfn += jump;
            let raw = match kind {
                0 => machine::GIVEN_TO_HYP,
                1 => 0,
                _ => machine::given_to(0x1000 + handle, gfn),
            };
            entries.push((0x4020_0000 + ((page as u64) << 12), raw));
        }
        let geometry = Geometry::from_vtcr(VTCR_40, Features::of_kvm(VTCR_40, false, true)).unwrap();
        let record = |&(ia, raw): &(u64, u64)| Row::of_record(&annotated(ia, 3, 1, raw), &geometry).unwrap();
        let header = SlotHeader { page_shift: 12, ..machine::host_header() };
        let table = TableFacts::try_new(&header).unwrap();
        let mut merger = Merger::of_table(&table, exact);
        let mut rows = Vec::new();
        for entry in entries.iter().map(record) {
            rows.extend(merger.push(entry));
        }
        rows.extend(merger.finish());

        let mut expanded = Vec::new();
        for row in &rows {
            let step = match pkvm::decode(Encoding::PKVM_7_2, RawDescriptor::from_bits(row.raw)).invalid() {
                Some(InvalidKind::HostDonation { owner: Owner::Guest { .. } }) if row.linear => 1_u64 << 20,
                _ => 0,
            };
            expanded.extend((0..row.count).map(|page| (row.ia + (page << 12), row.raw + page * step)));
        }
        prop_assert_eq!(expanded, entries);
        let could_join = |pair: &[Row]| {
            let mut merger = Merger::of_table(&table, exact);
            merger.push(pair[0]).is_none() && merger.push(pair[1]).is_none()
        };
        prop_assert!(!rows.windows(2).any(could_join), "{rows:?}");
    }

    #[test]
    fn splitting_runs_changes_no_row(cuts in prop::collection::vec(1..9_u32, 64), exact: bool) {
        let whole = protected_table();
        let split = split(&whole, &cuts);
        prop_assert!(split.len() > whole.len());
        prop_assert_eq!(merged(&split, exact), merged(&whole, exact));
        // Packed slots tell the same, with table pages in between or without.
        for tables in [false, true] {
            let capture = packed(&split, tables);
            prop_assert_eq!(rows_of(capture, true), merged(&whole, true));
        }
    }
}

/// A slot in the making: levels, lengths and kinds of its records, drawn at random.
type Draft = Vec<(i8, u32, u8)>;

/// Writes slots of which each goes on where the one before ended, by entries that may begin before that: a table that
/// changes all the time. Returns them and how many of their first records begin too early.
fn slots_that_reach_back(drafts: &[Draft]) -> (Capture, u64) {
    let header = dump_header(0x1000, VTCR_40);
    let (mut capture, mut cursor, mut early) = (Capture::default(), 0, 0);
    let shift = |level: i8| 12 + 9 * (3 - level as u32);
    let rest: Draft = vec![(1, u32::MAX, 0)];
    let mut sequence = 0;
    for draft in drafts.iter().chain([&rest]) {
        let (start, mut records) = (cursor, Vec::new());
        for &(level, length, kind) in draft {
            // Only the first entry of a slot may begin before it does.
            let fits = |level: &i8| records.is_empty() || cursor % (1 << shift(*level)) == 0;
            let level = (level..=3).find(fits).unwrap();
            let ia = cursor >> shift(level) << shift(level);
            let count = u64::from(length).min((header.end - ia) >> shift(level)) as u32;
            if count == 0 {
                continue;
            }
            early += u64::from(records.is_empty() && ia < cursor);
            records.push(match kind {
                0 => hole(ia, level, count),
                1 => annotated(ia, level, count, POISONED),
                2 => jumping(ia, level, count, 0x4000_0000, if level == 3 { PAGE } else { BLOCK }),
                _ => leaves(ia, level, count, ia & 0xf_c000_0000, if level == 3 { PAGE } else { BLOCK }),
            });
            cursor = ia + (u64::from(count) << shift(level));
        }
        let record_count = records.len() as u32;
        if record_count > 0 {
            capture.slot(SlotHeader { record_count, sequence, start, next: cursor, ..header }, &records);
            sequence += 1;
        }
    }
    (capture.end(header.target, sequence, Status::OK).clone(), early)
}

proptest! {
    /// Whatever a table became between two calls, rows cover all addresses once.
    #[test]
    fn rows_leave_no_gap_where_the_table_changed(
        drafts in prop::collection::vec(prop::collection::vec((1..4_i8, 1..700_u32, 0..4_u8), 1..5), 1..20),
    ) {
        let (capture, early) = slots_that_reach_back(&drafts);
        let (events, issues) = read(capture.bytes);
        prop_assert_eq!(issues, 0);
        let Some(Event::Dump(table)) = events.first().copied() else { panic!("no dump") };
        let mut merger = Merger::new(Fold { geometry: table.geometry, exact: false });
        let rows: Vec<Row> = events.iter().filter_map(|event| match event {
            Event::Row(row) => Some(*row),
            _ => None,
        }).collect();
        let mut merged: Vec<Row> = rows.iter().filter_map(|row| merger.push(*row)).collect();
        merged.extend(merger.finish());
        for rows in [rows, merged] {
            let mut end = 0;
            for row in &rows {
                prop_assert_eq!(row.ia, end, "{:?}", row);
                prop_assert!(row.skipped < 1 << row.entry_shift && (row.skipped == 0 || row.changed.at_start));
                // A leaf says of its first address what its descriptor says of its entry.
                if let (RecordKind::LEAF, Some(oa)) = (row.kind, row.oa) {
                    prop_assert_eq!(oa - row.skipped, row.raw & 0xffff_ffff_f000);
                }
                end = row.end();
            }
            prop_assert_eq!(end, 1 << 40);
            prop_assert_eq!(rows.iter().filter(|row| row.changed.at_start).count() as u64, early);
        }
        write_all(&events);
    }
}

/// Cuts runs into pieces of the given sizes.
fn split(records: &[Record], cuts: &[u32]) -> Vec<Record> {
    let mut pieces = Vec::new();
    let mut cuts = cuts.iter().copied().cycle();
    for record in records {
        let shift = 12 + 9 * (3 - record.level as u32);
        let (mut done, mut left) = (0, record.count);
        while left > 0 {
            // Long holes stay a few pieces.
            let count = left.min(cuts.next().unwrap().max(record.count / 16));
            let bytes = u64::from(done) << shift;
            let moved = if record.oa != 0 { bytes } else { 0 };
            let (oa, descriptor) = (record.oa + moved, record.descriptor + moved);
            pieces.push(Record { ia: record.ia + bytes, oa, descriptor, count, ..*record });
            (done, left) = (done + count, left - count);
        }
    }
    pieces
}

/// Packs `records`, some for each slot: single leaves become lists. With `tables` each slot also tells of a table.
fn packed(records: &[Record], tables: bool) -> Capture {
    let head = |record: &Record, count, flags| -> [u64; 2] {
        let &Record { ia, level, kind, .. } = record;
        zerocopy::transmute!(PackedRun { ia, count, level, kind, flags })
    };
    let mut capture = Capture::default();
    let header = dump_header(0x1000, VTCR_40);
    let flags = header.flags | if tables { slot_flags::TABLES } else { 0 };
    let header = SlotHeader { kind: SlotKind::PACKED.0, record_bytes: 8, flags, ..header };
    let (mut sequence, mut start) = (0, 0);
    for slot in records.chunks(5) {
        let (mut words, mut rest) = (Vec::new(), slot);
        if tables {
            let table = Record { kind: RecordKind::TABLE.0, level: 2, ..slot[0] };
            words.extend(head(&table, 1, record_flags::LINEAR));
            words.push(0x4567_8003);
        }
        while let [first, ..] = rest {
            let is_listed = |record: &&Record| record.kind == RecordKind::LEAF.0 && record.count == 1;
            let listed = rest.iter().take_while(|record| is_listed(record) && record.level == first.level).count();
            let (count, flags) =
                if listed > 0 { (listed as u32, record_flags::LIST) } else { (first.count, record_flags::LINEAR) };
            words.extend(head(first, count, flags));
            words.extend(rest[..listed.max(1)].iter().map(|record| record.descriptor));
            rest = &rest[listed.max(1)..];
        }
        let last = slot.last().unwrap();
        let next = last.ia + (u64::from(last.count) << (12 + 9 * (3 - last.level as u32)));
        capture.slot(SlotHeader { sequence, start, next, record_count: words.len() as u32, ..header }, &words);
        (sequence, start) = (sequence + 1, next);
    }
    capture.end(header.target, sequence, Status::OK).clone()
}

/// Reads `records` one per slot and merges them.
fn merged(records: &[Record], exact: bool) -> Vec<Row> {
    assert!(records.iter().all(|record| record.flags & record_flags::LINEAR != 0));
    rows_of(Capture::default().dump(dump_header(0x1000, VTCR_40), records, 1, Status::OK).clone(), exact)
}

/// Reads a capture of one dump, and merges its runs.
fn rows_of(capture: Capture, exact: bool) -> Vec<Row> {
    let (events, issues) = read(capture.bytes);
    assert_eq!(issues, 0);
    let Some(Event::Dump(table)) = events.first().copied() else { panic!("no dump") };
    let mut merger = Merger::new(Fold { geometry: table.geometry, exact });
    let mut rows = Vec::new();
    for event in &events {
        if let Event::Row(row) = event {
            rows.extend(merger.push(*row));
        }
    }
    rows.extend(merger.finish());
    rows
}
