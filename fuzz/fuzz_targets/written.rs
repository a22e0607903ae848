// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes captures with a few things wrong, by editing a good one or by writing one slot by slot. So fuzzing does not
//! have to find the magic number first.

use crate::support::{android, captures, dump_header, machine, slot_header, two_vms, vm, Capture, BLOCK, PAGE, VTCR_40, VTCR_48, VTCR_52};
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{slot_flags, table_features, Record, SlotHeader, SlotKind};
use zerocopy::{FromBytes, IntoBytes};

/// Takes numbers from bytes. Gives zeros when the bytes have run out.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn number(&mut self, bytes: usize) -> u64 {
        let (taken, rest) = self.0.split_at(usize::min(bytes, self.0.len()));
        self.0 = rest;
        taken.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }
}

/// Returns a good capture with bytes and words overwritten as `bytes` tell.
pub(crate) fn edited(bytes: &[u8]) -> Vec<u8> {
    let mut source = Source(bytes);
    let mut capture = match source.number(1) % 5 {
        0 | 1 => two_vms(),
        2 => machine::machine(),
        3 => captures::named(),
        _ => android::machine().capture(),
    }
    .bytes;
    while !source.0.is_empty() {
        let (at, length) = (source.number(2) as usize % capture.len(), source.number(1) as usize);
        let value = source.number(8).to_le_bytes();
        let end = usize::min(at + 1 + length % 8, capture.len());
        capture[at..end].copy_from_slice(&value[..end - at]);
        if length & 0xf0 == 0xf0 {
            capture.truncate(at + 1);
        }
    }
    capture
}

/// Returns the capture that `bytes` tell how to write.
pub(crate) fn capture(bytes: &[u8]) -> Vec<u8> {
    let mut source = Source(bytes);
    let mut capture = Capture::default();
    let mut next = 0;
    while !source.0.is_empty() {
        let handle = 0x1000 + source.number(1) as u16 % 2;
        let mut header = dump_header(handle, [VTCR_40, VTCR_48, VTCR_52][source.number(1) as usize % 3]);
        header.table_features ^= source.number(1) as u32 & !table_features::LPA2;
        header.encoding = source.number(1) as u16 % 4;
        let version = source.number(1);
        if version == 0xff {
            header.version = 1 << 16 | 1;
        } else if version > 0xf0 {
            (header.held_ticks, header.tick_hz) = (source.number(4) as u32, source.number(4) as u32);
            header.flags |= slot_flags::DYING;
        }
        let choice = source.number(1);
        (header.sequence, header.start) = (choice >> 4, next);
        match choice & 7 {
            0 => {
                capture.end(header.target, header.sequence, Status(source.number(1) as u32 & 15));
                next = 0;
            }
            1 => {
                let vms: Vec<_> = (0..source.number(1) % 8).map(|n| vm(0x1000 + n as u16, "1-2", n as u16)).collect();
                capture.list(&vms);
            }
            kind => {
                let kind = if kind == 2 { SlotKind::WALK } else { SlotKind::RANGES };
                let records = records(&mut source, header.start, kind);
                next = records.last().map_or(next, |last| last.ia.wrapping_add(span(last)));
                header = SlotHeader { kind: kind.0, record_count: records.len() as u32, next, ..header };
                spoil(&mut source, &mut header);
                capture.slot(header, &records);
            }
        }
        if source.number(1) == 0xff {
            capture.slot::<Record>(slot_header(SlotKind(source.number(2) as u16)), &[]);
        }
    }
    capture.bytes
}

fn span(record: &Record) -> u64 {
    u64::from(record.count).checked_shl(12 + 9 * (3 - i32::from(record.level)).clamp(0, 5) as u32).unwrap_or(0)
}

/// Returns runs that follow each other, mostly.
fn records(source: &mut Source<'_>, start: u64, kind: SlotKind) -> Vec<Record> {
    let mut ia = start;
    let mut records = Vec::new();
    for _ in 0..source.number(1) % 16 {
        let choice = source.number(2);
        let level = (choice & 7) as i8 - 1;
        let kind_and_flags = source.number(1);
        let count = if kind == SlotKind::WALK { 1 } else { source.number(2) as u32 };
        let descriptor = match choice >> 3 & 3 {
            0 => 0,
            1 => source.number(3) << 12 | PAGE,
            2 => source.number(3) << 21 | BLOCK,
            _ => source.number(8),
        };
        let oa = if choice >> 5 & 3 == 3 { source.number(8) } else { descriptor & 0xffff_ffff_f000 };
        let flags = (kind_and_flags >> 4) as u16;
        let mut record = Record { ia, oa, descriptor, count, level, kind: kind_and_flags as u8 & 7, flags };
        if choice >> 7 & 31 == 31 {
            record.ia = source.number(8);
        }
        ia = record.ia.wrapping_add(span(&record));
        records.push(record);
    }
    records
}

/// Overwrites some bytes of a header.
fn spoil(source: &mut Source<'_>, header: &mut SlotHeader) {
    for _ in 0..source.number(1).saturating_sub(0xf8) {
        let (at, value) = (source.number(1) as usize % size_of::<SlotHeader>(), source.number(1) as u8);
        let mut bytes = [0; size_of::<SlotHeader>()];
        bytes.copy_from_slice(header.as_bytes());
        bytes[at] = value;
        *header = SlotHeader::read_from_bytes(&bytes).unwrap();
    }
}
