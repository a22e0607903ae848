// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names as text: `/proc/PID/maps`, `/proc/iomem`, and the slots of captures that keep names.

use super::Name;
use crate::frame::{text_slot, MOST_TEXT};
use crate::words;
use s2dump_abi::slot::{MemorySlot, SlotKind};
use s2dump_abi::target::Target;

/// What is said of addresses of a memory slot at which the process has mapped nothing.
const UNMAPPED: &str = "[unmapped]";

/// More of a name is cut off. Longer ones would not fit a slot.
const MOST_CHARACTERS: usize = 512;

/// Reads `START-END`, where the end is the last address, or the first after it.
fn parse_range(text: &str, is_last: bool) -> Option<(u64, u64)> {
    let (start, end) = text.split_once('-')?;
    let [start, end] = [start, end].map(|digits| u64::from_str_radix(digits, 16).ok());
    let (start, end) = (start?, end?.checked_add(u64::from(is_last))?);
    (start < end).then_some((start, end))
}

/// Returns a name that can be shown: whoever runs may have chosen any bytes.
fn plain(text: &str) -> String {
    text.trim().chars().map(words::shown).take(MOST_CHARACTERS).collect()
}

/// Reads `/proc/PID/maps`: host virtual addresses, in ascending order.
pub(crate) fn parse_maps(maps: &str) -> Vec<Name> {
    maps.lines().filter_map(parse_mapping).collect()
}

/// Reads `START-END RIGHTS OFFSET DEVICE INODE PATH`.
fn parse_mapping(line: &str) -> Option<Name> {
    let (range, mut path) = line.split_once(' ')?;
    let (start, end) = parse_range(range, false)?;
    for _ in 0..4 {
        path = path.trim_start().split_once(' ').map_or("", |(_, rest)| rest);
    }
    // These never had a name in a directory that could have been deleted.
    const DELETED: &str = " (deleted)";
    let path = path.trim();
    let text = match path.strip_suffix(DELETED).unwrap_or(path) {
        "" => "[anon]".into(),
        shared if shared.starts_with("/memfd:") => plain(&shared[1..]),
        shared @ ("/dev/zero" | "/anon_hugepage") => plain(shared),
        _ => plain(path),
    };
    Some(Name { start, end, text })
}

/// Reads `/proc/iomem`: physical addresses; what lies in something else comes after it. Without privilege all addresses are 0.
pub(crate) fn parse_iomem(iomem: &str) -> Vec<Name> {
    let parse = |line: &str| {
        let (range, text) = line.split_once(" : ")?;
        let (start, end) = parse_range(range.trim(), true)?;
        (end > 1).then(|| Name { start, end, text: plain(text) })
    };
    iomem.lines().filter_map(parse).collect()
}

/// Returns what is behind the input addresses of `memory`, which is in ascending order, in a process with these `mappings`.
pub(crate) fn behind(memory: &[MemorySlot], mappings: &[Name]) -> Vec<Name> {
    let mut names: Vec<Name> = Vec::new();
    for slot in memory {
        let ia = |hva: u64| slot.ia.wrapping_add(hva.wrapping_sub(slot.hva));
        let (mut at, end) = (slot.hva, slot.hva.saturating_add(slot.size));
        let first = names.len();
        let mut push = |start, end, text: &str| match names.get_mut(first..).and_then(<[Name]>::last_mut) {
            Some(last) if last.end == ia(start) && last.text == text => last.end = ia(end),
            _ => names.push(Name { start: ia(start), end: ia(end), text: text.into() }),
        };
        let skipped = mappings.partition_point(|mapping| mapping.end <= at);
        for mapping in mappings.iter().skip(skipped).take_while(|mapping| mapping.start < end) {
            let (start, stop) = (mapping.start.max(at), mapping.end.min(end));
            if at < start {
                push(at, start, UNMAPPED);
            }
            if start < stop {
                push(start, stop, &mapping.text);
                at = stop;
            }
        }
        if at < end {
            push(at, end, UNMAPPED);
        }
    }
    names
}

/// Returns the slots that keep `names` of `target`.
pub(crate) fn to_slots(target: Target, names: &[Name]) -> Vec<u8> {
    let (mut slots, mut text, mut sequence) = (Vec::new(), String::new(), 0);
    let mut put = |text: &mut String| {
        if !text.is_empty() {
            slots.extend(text_slot(SlotKind::NAMES, target, sequence, text.as_bytes()));
            sequence += 1;
            text.clear();
        }
    };
    for Name { start, end, text: name } in names {
        let line = format!("{start:x}-{:x} {name}\n", end - 1);
        if text.len() + line.len() > MOST_TEXT {
            put(&mut text);
        }
        text.push_str(&line);
    }
    put(&mut text);
    slots
}

/// Reads the records of such a slot; `None` in place of a line that is no name.
pub(crate) fn parse_records(bytes: &[u8]) -> Vec<Option<Name>> {
    let parse = |line: &str| {
        let (range, text) = line.split_once(' ')?;
        let (start, end) = parse_range(range, true)?;
        Some(Name { start, end, text: plain(text) })
    };
    let text = String::from_utf8_lossy(bytes);
    text.lines().filter(|line| !line.is_empty()).map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{parse, Records};

    fn name(start: u64, end: u64, text: &str) -> Name {
        Name { start, end, text: text.into() }
    }

    #[test]
    fn mappings_of_a_process() {
        let maps = "\
00400000-00401000 r-xp 00000000 08:02 173521                             /usr/bin/a b
00e24000-00e25000 rw-p 00000000 00:00 0                                  [heap]
7f00000000-7f00200000 rw-p 00000000 00:00 0 
7f00200000-7f00201000 rw-s 00000000 00:01 1024                           /memfd:guest 1 (deleted)
7f00201000-7f00202000 rw-s 00000000 00:01 7                              /dev/zero (deleted)
7f00400000-7f00800000 rw-p 00000000 00:0f 9                              /anon_hugepage (deleted)
7f00900000-7f00901000 rw-s 09010000 00:06 4                              /dev/mem
7f00a00000-7f00a01000 rw-s 00000000 08:02 5                              /tmp/x (deleted)
7f00b00000-7f00b01000 rw-p 00000000 00:00 0                              [anon:guest\x1bram]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0
";
        let texts: Vec<String> = parse_maps(maps).into_iter().map(|name| name.text).collect();
        let expected = [
            "/usr/bin/a b",
            "[heap]",
            "[anon]",
            "memfd:guest 1",
            "/dev/zero",
            "/anon_hugepage",
            "/dev/mem",
            "/tmp/x (deleted)",
            "[anon:guest?ram]",
            "[anon]",
        ];
        assert_eq!(texts, expected);
        assert_eq!((parse_maps(maps)[2].start, parse_maps(maps)[2].end), (0x7f_0000_0000, 0x7f_0020_0000));
        assert_eq!(parse_maps("\n1-\n-2 x\nzz-yy rw-p\n2-1 rw-p 0 0 0\n1-1ffffffffffffffff r\n"), []);
        let long = format!("1000-2000 rw-p 0 0 0 /{}", "x".repeat(5000));
        assert_eq!(parse_maps(&long)[0].text.len(), MOST_CHARACTERS);
    }

    #[test]
    fn resources_of_a_machine() {
        let iomem = "\
09000000-09000fff : pl011@9000000
  09000000-09000fff : 9000000.pl011 pl011@9000000
40000000-7fffffff : System RAM
  40210000-4192ffff : Kernel code
";
        let expected = [
            name(0x900_0000, 0x900_1000, "pl011@9000000"),
            name(0x900_0000, 0x900_1000, "9000000.pl011 pl011@9000000"),
            name(0x4000_0000, 0x8000_0000, "System RAM"),
            name(0x4021_0000, 0x4193_0000, "Kernel code"),
        ];
        assert_eq!(parse_iomem(iomem), expected);
        assert_eq!(parse_iomem("00000000-00000000 : System RAM\n  00000000-00000000 : Kernel code\n"), []);
        assert_eq!(parse_iomem("ffffffffffffffff-ffffffffffffffff : x\nrubbish\n"), []);
    }

    #[test]
    fn what_is_behind_memory_slots() {
        let slot = |ia, size, hva| MemorySlot { ia, size, hva, flags: 0, id: 0, reserved: 0 };
        let mappings = [
            name(0x7000, 0x8000, "a"),
            name(0x8000, 0x9000, "a"),
            name(0x9000, 0xa000, "b"),
            name(0xc000, 0x10000, "c"),
        ];
        let behind = |slot| super::behind(&[slot], &mappings);
        assert_eq!(behind(slot(0x1000, 0x3000, 0x7000)), [name(0x1000, 0x3000, "a"), name(0x3000, 0x4000, "b")]);
        let expected = [name(0, 0x1000, "b"), name(0x1000, 0x3000, UNMAPPED), name(0x3000, 0x4000, "c")];
        assert_eq!(behind(slot(0, 0x4000, 0x9000)), expected);
        assert_eq!(behind(slot(0x4000, 0x1000, 0x1000)), [name(0x4000, 0x5000, UNMAPPED)]);
        assert_eq!(behind(slot(0x4000, 0x1000, 0x20000)), [name(0x4000, 0x5000, UNMAPPED)]);
        assert_eq!(behind(slot(0x4000, 0x1000, 0xd000)), [name(0x4000, 0x5000, "c")]);
        let two = [slot(0x1000, 0x1000, 0x7000), slot(0x2000, 0x1000, 0x8000)];
        let expected = [name(0x1000, 0x2000, "a"), name(0x2000, 0x3000, "a")];
        assert_eq!(super::behind(&two, &mappings), expected, "each slot has its own");
    }

    #[test]
    fn what_is_kept_is_read() {
        let target = Target::guest(0x1000);
        let names: Vec<Name> = (0..300).map(|n| name(n << 12, (n + 1) << 12, &format!("memfd:{n} of many"))).collect();
        let slots = to_slots(target, &names);
        let (mut rest, mut read, mut sequence) = (slots.as_slice(), Vec::new(), 0);
        while !rest.is_empty() {
            let (header, used) = crate::frame::measure(rest).unwrap();
            assert_eq!((used % 8, header.sequence, Target(header.target)), (0, sequence, target));
            assert!(used <= s2dump_abi::slot::PLAIN_SLOT_BYTES);
            let slot = parse(&rest[..used]).unwrap();
            let Records::Names(bytes) = slot.records else { panic!("{header:?}") };
            read.extend(parse_records(bytes).into_iter().map(Option::unwrap));
            (rest, sequence) = (&rest[used..], sequence + 1);
        }
        assert_eq!((read, sequence), (names, 3));
        assert!(to_slots(target, &[]).is_empty());
        assert_eq!(parse_records(b"0-fff a\n\nfff-0 b\n0-fff\n\xff\n"), [Some(name(0, 0x1000, "a")), None, None, None]);
    }
}
