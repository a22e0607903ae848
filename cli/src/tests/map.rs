// SPDX-License-Identifier: MIT OR Apache-2.0
//! Maps: whose each page is, and that a page of a browser has all of it. The decoder here knows only what `pack.rs` says of the
//! format.

use super::audit::read;
use super::support::pkvm::{self, *};
use super::support::*;
use super::{run_in, run_without_device, world, TempFile};
use crate::exit_code::ExitCode;
use crate::map::{Class, Map};
use crate::source::SourceError;
use std::collections::BTreeMap;

/// A guest's pages that are its own.
fn own(number: usize) -> Class {
    Class::Guest { number, is_shared: false }
}

/// A guest's pages that the host has too.
fn shared(number: usize) -> Class {
    Class::Guest { number, is_shared: true }
}

fn class_at(map: &Map, pa: u64) -> Class {
    let segment = map.segments.iter().find(|segment| (segment.start..segment.end).contains(&pa));
    segment.map_or(Class::Nothing, |segment| map.kinds[segment.kind as usize].class)
}

#[test]
fn each_page_has_its_owner() {
    let larger = Map::of(&read(&pages::larger(&machine())));
    let map = Map::of(&read(&machine()));
    let cases = [
        (RAM - 0x1000, Class::Nothing),
        (RAM, Class::Host),
        (TEXT, Class::Hyp),
        (TEXT + 0x3000, Class::Hyp),
        (TEXT + 0x4000, Class::Host),
        (POOL, Class::Table),
        (POOL + 0x8_0000, Class::Hyp),
        (SHARED, Class::HostShared),
        (SHARED + 0x2000, Class::HostShared),
        (PROTECTED_PA, own(0)),
        (PROTECTED_PA + 0x1000, shared(0)),
        (PROTECTED_PA + 0x2000, own(0)),
        (PROTECTED_PA + 0x3000, Class::Host),
        (SECOND_PA + 0x3000, own(1)),
        (SECOND_PA + 0x4000, Class::Host),
        (BLOCK_PA, shared(2)),
        (BLOCK_PA + 0x1f_f000, shared(2)),
        (MULTI_PA, Class::Guests),
        (MULTI_PA + 0x2000, shared(2)),
        (PLAIN, Class::Host),
        (RAM_END, Class::Stateless),
        (NOMAP_END, Class::Nothing),
        (0x0900_0000, Class::Device),
    ];
    for (pa, class) in cases {
        assert_eq!(class_at(&map, pa), class, "{pa:#x}");
        assert_eq!(class_at(&larger, pages::at(pa)), class, "{pa:#x} with larger pages");
        let last = pages::at(pa) + pages::PAGE_BYTES - 1;
        assert_eq!(class_at(&larger, last), class, "the end of {pa:#x} with larger pages");
    }
    assert_eq!(map.totals()[&Class::Poisoned], [0, 0x1000]);
    assert_eq!(larger.totals()[&Class::Poisoned], [0, pages::PAGE_BYTES]);
}

/// What is done to a machine, and where its map says what.
type Case = (fn(&mut pkvm::Machine), u64, Class, &'static str);

/// Each state of frames is some classes, to the byte.
#[test]
fn totals_are_those_of_frames() {
    let file = TempFile::new("totals.s2d", &machine().capture().bytes);
    let told = run_without_device(&format!("frames -i {} --json", file.path())).out;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let totals = Map::of(&read(&machine())).totals();
    let memory = |classes: &[Class]| classes.iter().map(|class| totals[class][0]).sum::<u64>();
    let cases: [(&str, &str, &[Class]); 4] = [
        ("owned", "no-page", &[Class::Host]),
        ("no-page", "owned", &[Class::Hyp, Class::Table]),
        ("no-page", "no-page", &[own(0), own(1)]),
        ("shared-borrowed", "no-page", &[shared(0)]),
    ];
    for (host, hyp, classes) in cases {
        let of_state = |total: &&serde_json::Value| total["host"] == host && total["hyp"] == hyp;
        let total = told["totals"].as_array().unwrap().iter().find(of_state).unwrap();
        assert_eq!(total["size_bytes"], memory(classes), "{host} {hyp}");
    }
    let lent = told["totals"].as_array().unwrap().iter().filter(|total| total["host"] == "shared-owned");
    let lent = lent.map(|total| total["size_bytes"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(lent, memory(&[Class::HostShared, shared(2), Class::Guests]));
    assert_eq!(told["nomap_bytes"], memory(&[Class::Stateless]));
}

#[test]
fn what_does_not_agree_is_shown() {
    let cases: [Case; 5] = [
        (|m| m.host().map(PROTECTED_PA, 3, 1, PROTECTED_PA, PAGE), PROTECTED_PA, Class::Clash, "L3 rwx normal-wb"),
        (|m| m.host().map(PLAIN, 3, 1, PLAIN + 0x8000, PAGE), PLAIN, Class::Clash, "L3 rwx normal-wb"),
        (
            |m| m.host().annotate(PROTECTED_PA, 1, donated(0x1000, PROTECTED_IA + 0x1000)),
            PROTECTED_PA,
            own(0),
            "L3 owner=vm:0x1000, which has it at another address",
        ),
        (
            |m| m.host().annotate(PROTECTED_PA, 1, donated(0x1001, PROTECTED_IA)),
            PROTECTED_PA,
            own(0),
            "L3 owner=vm:0x1001, which does not map it",
        ),
        (
            |m| m.host().annotate(PLAIN, 1, donated(0x1001, 0)),
            PLAIN,
            own(1),
            "L3 owner=vm:0x1001, which does not map it",
        ),
    ];
    for (change, pa, class, host) in cases {
        let mut machine = machine();
        change(&mut machine);
        let map = Map::of(&read(&machine));
        let segment = map.segments.iter().find(|segment| (segment.start..segment.end).contains(&pa)).unwrap();
        let kind = &map.kinds[segment.kind as usize];
        assert_eq!((kind.class, kind.host.as_str()), (class, host));
    }
}

/// Reads a packed map.
struct Bytes<'b>(std::slice::Iter<'b, u8>);

impl Bytes<'_> {
    fn number(&mut self) -> u64 {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let byte = *self.0.next().unwrap();
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        number
    }

    fn signed(&mut self) -> i64 {
        let number = self.number() as i64;
        if number & 1 == 0 {
            number >> 1
        } else {
            !(number >> 1)
        }
    }
}

/// What is said of an input page, and where it leads.
type Entries = BTreeMap<u64, (u32, Option<u64>)>;

fn unpack(bytes: &[u8], guests: &[bool]) -> (Vec<Entries>, BTreeMap<u64, u64>, usize) {
    let mut bytes = Bytes(bytes.iter());
    let (mut spaces, mut contexts) = (Vec::new(), Vec::new());
    let mut mapped = Vec::new();
    for (number, is_guest) in guests.iter().enumerate() {
        let (heads, base, width) = (bytes.number(), bytes.number(), bytes.number());
        let (mut entries, mut lists) = (Entries::new(), Vec::new());
        let (mut at, mut expected) = (0, base as i64);
        let mut order = Vec::new();
        for _ in 0..heads {
            let head = bytes.number();
            let (count, form) = (head >> 3, head & 3);
            at += if head & 4 == 0 { 0 } else { bytes.number() };
            let said = bytes.number() as u32;
            let first = if form == 1 { expected + bytes.signed() } else { 0 };
            for page in at..at + count {
                match form {
                    0 => drop(entries.insert(page, (said, None))),
                    1 => drop(entries.insert(page, (said, Some((first as u64) + page - at)))),
                    _ => lists.push((page, said)),
                }
            }
            if form == 1 {
                expected = first + count as i64;
                order.push((said, Some((first as u64, count))));
            }
            order.extend((form == 2).then_some((said, None)));
            at += count;
        }
        let mut bit = 0;
        let data = bytes.0.as_slice();
        for (page, said) in &lists {
            let value =
                (0..width).map(|at| u64::from(data[(bit + at as usize) / 8] >> ((bit + at as usize) % 8) & 1) << at);
            entries.insert(*page, (*said, Some(base + value.sum::<u64>())));
            bit += width as usize;
        }
        bytes.0 = data[bit.div_ceil(8)..].iter();
        if *is_guest {
            for (said, run) in order {
                let known = contexts.iter().position(|context| *context == (number, said));
                let context = known.unwrap_or_else(|| {
                    contexts.push((number, said));
                    contexts.len() - 1
                });
                mapped.extend(run.map(|(first, count)| (first, context + 1, first + count)));
            }
            let listed = lists.iter().map(|(page, said)| {
                let context = contexts.iter().position(|context| *context == (number, *said)).unwrap();
                let out = entries[page].1.unwrap();
                (out, context + 1, out + 1)
            });
            mapped.extend(listed.collect::<Vec<_>>());
        }
        spaces.push(entries);
    }
    mapped.sort_unstable();
    let mut streams: Vec<Vec<(u64, u64)>> = Vec::new();
    for _ in 0..bytes.number() {
        let runs = bytes.number();
        streams.push((0..runs).map(|_| (bytes.number(), bytes.number())).collect());
        streams.last_mut().unwrap().reverse();
    }
    let mut kinds = BTreeMap::new();
    let mut at = 0;
    let mut take = |context: usize, at: u64| {
        let stream: &mut Vec<(u64, u64)> = &mut streams[context];
        let Some((kind, left)) = stream.last_mut() else { return false };
        if *kind > 0 {
            kinds.insert(at, *kind - 1);
        }
        *left -= 1;
        if *left == 0 {
            stream.pop();
        }
        true
    };
    for (start, context, end) in mapped {
        while at < start {
            assert!(take(0, at));
            at += 1;
        }
        while at < end {
            assert!(take(context, at));
            at += 1;
        }
    }
    while take(0, at) {
        at += 1;
    }
    assert!(streams.iter().all(Vec::is_empty));
    (spaces, kinds, bytes.0.len())
}

/// Lists and runs, gaps, several entries for a page, a page that is before what came last: all come back.
#[test]
fn what_is_packed_comes_back() {
    let scattered = || {
        let mut machine = machine();
        for page in 0..40 {
            let (ia, pa) = (PROTECTED_IA + 0x10_0000 + page * 0x1000, 0x4180_0000 + page * 37 % 64 * 0x1000);
            let bits = if page % 7 == 0 { PAGE | SHARED_OWNED } else { PAGE };
            machine.guest(0x1000).map(ia, 3, 1, pa, bits);
            // The other guest has some of them, and in another order.
            machine.guest(0x1001).map(ia, 3, 1, 0x4180_0000 + page * 11 % 97 * 0x1000, PAGE);
        }
        machine.guest(0x1003).map(0x9000_0000, 3, 100, 0x4180_3000, PAGE | SHARED_BORROWED);
        machine
    };
    for machine in [machine(), later(), scattered(), pages::larger(&scattered())] {
        let map = Map::of(&read(&machine));
        let page_bytes = map.page_bytes;
        assert_eq!(page_bytes, 1 << machine.page_shift);
        let guests: Vec<bool> = map.spaces.iter().map(|space| space.guest.is_some()).collect();
        let (spaces, kinds, left) = unpack(&crate::format::map::packed(&map), &guests);
        assert_eq!(left, 0);
        for (space, entries) in map.spaces.iter().zip(&spaces) {
            let expected = space.pieces.iter().flat_map(|piece| {
                (0..(piece.end - piece.ia) / page_bytes)
                    .map(|page| (piece.ia / page_bytes + page, (piece.said, piece.oa.map(|oa| oa / page_bytes + page))))
            });
            assert_eq!(expected.collect::<Entries>(), *entries, "{}", space.name);
        }
        let expected = map.segments.iter().flat_map(|segment| {
            (segment.start / page_bytes..segment.end / page_bytes).map(|page| (page, u64::from(segment.kind)))
        });
        assert_eq!(expected.collect::<BTreeMap<u64, u64>>(), kinds);
    }
}

/// Names of files and VMs become text of a page, whatever they are.
#[test]
fn bad_names_stay_text() {
    let path = std::env::temp_dir().join(format!("s2dump-{}-<script>.s2d", std::process::id()));
    std::fs::write(&path, machine().capture().bytes).unwrap();
    for options in ["", " --svg"] {
        let ran = run_without_device(&format!("map -i {} -O -{options}", path.display()));
        assert_eq!((ran.code, ran.err.as_str()), (ExitCode::Ok, "s2dump: wrote standard output\n"));
        assert!(!ran.out.contains("-<script>.s2d"));
        assert!(ran.out.contains("-\\u003cscript>.s2d") || ran.out.contains("-&lt;script>.s2d"));
    }
    std::fs::remove_file(path).unwrap();
}

/// Tools for documents know no variables of CSS, and take rules for the dark as rules for all: one of them made all of it black.
#[test]
fn a_picture_has_nothing_that_tools_for_documents_do_not_know() {
    let now = TempFile::new("picture.s2d", &machine().capture().bytes);
    let picture = run_without_device(&format!("map -i {} --svg -O -", now.path())).out;
    assert!(picture.contains("<style>"));
    for unknown in ["var(", "--", "@", "<script", "url(h"] {
        assert!(!picture.contains(unknown), "{unknown}");
    }
    assert!(!picture.contains("changed since"));
}

/// Returns the text of a picture, lines joined.
fn words(picture: &str) -> String {
    let texts = picture.lines().filter_map(|line| line.strip_prefix("<text")?.strip_suffix("</text>")?.split_once('>'));
    texts.map(|(_, text)| text).collect::<Vec<_>>().join(" ")
}

/// Corners of changed cells, from top to bottom: of physical memory four, of EL2 one, of vm:0x1000 two, of vm:0x1003 one, and that of
/// the legend.
const CORNERS: &str = "M111 156v5l-5-5zM153 156v5l-5-5zM111 172v5l-5-5z\
    M118 220v5l-5-5zM682 128v5l-5-5zM675 163v5l-5-5zM689 163v5l-5-5zM675 269v5l-5-5zM32 466v5l-5-5z";

/// Each place that changed has a corner, a hole too, and a line says how much that is: as much as `diff` says.
#[test]
fn a_picture_shows_what_changed() {
    let then = TempFile::new("picture-then.s2d", &machine().capture().bytes);
    let now = TempFile::new("picture-now.s2d", &later().capture().bytes);
    let picture = |then: &TempFile, now: &TempFile| {
        run_without_device(&format!("map -i {} --since {} --svg -O -", now.path(), then.path())).out
    };
    let changed = picture(&then, &now);
    let corners = changed.split_once("<path class=\"corner\" d=\"").and_then(|(_, path)| path.split_once('"')).unwrap();
    assert_eq!(corners.0, CORNERS);
    let sizes = "vm:0x1000 12KiB, vm:0x1001 16KiB, vm:0x1003 4KiB, host 32KiB, hyp 4KiB, frames 32KiB";
    let changed = words(&changed);
    let line = format!("changed since {}, in 13 ranges: {sizes} Gone since then: vm:0x1001. Not shown", then.path());
    assert!(changed.contains(&line), "{changed}");
    let same = picture(&then, &then);
    assert!(!same.contains("class=\"corner\""));
    let same = words(&same);
    assert!(same.contains(&format!("nothing changed since {} Not shown", then.path())), "{same}");
}

#[test]
fn bad_output_is_told() {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let none = || Err(SourceError::Open(std::io::Error::from_raw_os_error(2)));
    let mut context = world(&none, &mut out, &mut err);
    context.out_is_terminal = true;
    assert_eq!(run_in("map -O -", &mut context), ExitCode::UsageOrIo);
    assert!(out.is_empty());
    let err = String::from_utf8(err).unwrap();
    assert!(err.contains("a map is not written to a terminal") && err.contains("name a file with -O FILE"), "{err}");
}
