// SPDX-License-Identifier: MIT OR Apache-2.0
//! A map as few bytes. `page.js` unpacks them.
//!
//! Numbers are LEB128 (seven bits in a byte, the lowest first; the top bit says that more follow), addresses are in pages. For
//! each space there is
//!
//! - how many heads, the lowest output page that a list has, and how many bits an output page of a list takes, less that;
//! - the heads: `count << 3 | gap << 2 | form`; if there is a gap, its pages since the last head's end; what is said; of form
//!   `RUN`, the first output page less the end of the last run's, as `n << 1`, or `!n << 1 | 1` of a negative one;
//! - the output pages of the lists, one bit behind the other, lowest first, filled up to a byte. What guests have scattered is
//!   a list, so a page takes little more than the bits that its place takes.
//!
//! Physical memory follows. What a page is can hardly be told from its neighbors, but by the guest that maps it and what its
//! entry says. So pages are sorted by that, their *context*: 0 if no guest maps it, else the number of the pair of space and
//! saying in the order in which they first come. Where several entries map a page, the one counts that begins first, of those
//! the lowest context. For each context there is the number of runs, and for each run of its pages the kind plus one, 0 for
//! nothing, and the length.

use crate::map::{Map, Piece, Space};
use std::collections::HashMap;

/// Invalid entries.
const NONE: u64 = 0;
/// Output pages run on.
const RUN: u64 = 1;
/// Each entry is a page, and its output page is told.
const LIST: u64 = 2;
/// A run of so many bits in a list takes no more than a head of its own.
const LIST_BITS: u64 = 48;

/// Bytes in the making.
#[derive(Default)]
pub(super) struct Packer {
    bytes: Vec<u8>,
}

impl Packer {
    /// Adds a number.
    pub(super) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    /// Adds a number that may be negative.
    pub(super) fn signed(&mut self, number: i64) {
        self.number((number << 1 ^ number >> 63) as u64);
    }

    /// Adds numbers of `width` bits.
    fn bits(&mut self, numbers: &[u64], width: u32) {
        let (mut pending, mut held) = (0_u128, 0);
        for &number in numbers {
            pending |= u128::from(number) << held;
            held += width;
            while held >= 8 {
                self.bytes.push(pending as u8);
                pending >>= 8;
                held -= 8;
            }
        }
        if held > 0 {
            self.bytes.push(pending as u8);
        }
    }

    /// Returns them.
    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Output pages that a guest maps, and their context.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Mapped {
    start: u64,
    context: usize,
    end: u64,
}

/// Adds `map` to `packer`.
pub(super) fn add(map: &Map, packer: &mut Packer) {
    let mut mapped = Vec::new();
    let mut contexts = HashMap::new();
    for (number, space) in map.spaces.iter().enumerate() {
        let mut list = Vec::new();
        add_space(space, map.page_bytes, packer, &mut |said, start, count| {
            if space.guest.is_some() {
                let next = contexts.len() + 1;
                let context = *contexts.entry((number, said)).or_insert(next);
                list.push(Mapped { start, context, end: start + count });
            }
        });
        mapped.append(&mut list);
    }
    mapped.sort_unstable();
    let mut streams: Vec<Vec<(u64, u64)>> = vec![Vec::new(); contexts.len() + 1];
    let mut tell = |context: usize, kind: u64, pages: u64| {
        let Some(stream) = streams.get_mut(context).filter(|_| pages > 0) else { return };
        match stream.last_mut() {
            Some(last) if last.0 == kind => last.1 += pages,
            _ => stream.push((kind, pages)),
        }
    };
    let mut mapped = mapped.into_iter().peekable();
    let mut at = 0;
    for segment in &map.segments {
        let (start, end) = (segment.start / map.page_bytes, segment.end / map.page_bytes);
        // What guests map is never nothing.
        tell(0, 0, start - at);
        at = start;
        while at < end {
            while mapped.next_if(|mapped| mapped.end <= at).is_some() {}
            let kind = u64::from(segment.kind) + 1;
            let (context, to) = match mapped.peek() {
                Some(mapped) if mapped.start <= at => (mapped.context, mapped.end),
                Some(mapped) => (0, mapped.start),
                None => (0, end),
            };
            tell(context, kind, to.min(end) - at);
            at = to.min(end);
        }
    }
    packer.number(streams.len() as u64);
    for stream in streams {
        packer.number(stream.len() as u64);
        for (kind, pages) in stream {
            packer.number(kind);
            packer.number(pages);
        }
    }
}

/// Entries that have one head.
struct Head {
    form: u64,
    gap: u64,
    count: u64,
    said: u32,
    /// Of a run.
    first: u64,
}

/// Adds the pieces of `space`, and tells of each run and page of a list what is said, its first output page, and how many.
fn add_space(space: &Space, page_bytes: u64, packer: &mut Packer, tell: &mut dyn FnMut(u32, u64, u64)) {
    let pages = |piece: &Piece| (piece.end - piece.ia) / page_bytes;
    let outputs = || space.pieces.iter().filter_map(|piece| Some((piece.oa? / page_bytes, pages(piece))));
    let base = outputs().map(|(first, _)| first).min().unwrap_or(0);
    let most = outputs().map(|(first, count)| first - base + count).max().unwrap_or(0);
    let width = u64::BITS - most.leading_zeros();
    let mut list = Vec::new();
    let mut heads: Vec<Head> = Vec::new();
    let mut at = 0;
    for piece in &space.pieces {
        let (start, count, said) = (piece.ia / page_bytes, pages(piece), piece.said);
        let gap = start - at;
        at = start + count;
        let form = match piece.oa {
            None => NONE,
            Some(_) if count * u64::from(width) <= LIST_BITS => LIST,
            Some(_) => RUN,
        };
        let first = piece.oa.unwrap_or(0) / page_bytes;
        match form {
            LIST => (first..first + count).for_each(|page| {
                list.push(page - base);
                tell(said, page, 1);
            }),
            RUN => tell(said, first, count),
            _ => {}
        }
        match heads.last_mut() {
            Some(last) if form == LIST && gap == 0 && (last.form, last.said) == (LIST, said) => last.count += count,
            _ => heads.push(Head { form, gap, count, said, first }),
        }
    }
    packer.number(heads.len() as u64);
    packer.number(base);
    packer.number(width.into());
    let mut expected = base;
    for head in heads {
        packer.number(head.count << 3 | u64::from(head.gap > 0) << 2 | head.form);
        if head.gap > 0 {
            packer.number(head.gap);
        }
        packer.number(head.said.into());
        if head.form == RUN {
            packer.signed((head.first as i64).wrapping_sub(expected as i64));
            expected = head.first + head.count;
        }
    }
    packer.bits(&list, width);
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Returns `bytes` in base64.
pub(super) fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let index = (bits >> (18 - 6 * at)) as usize & 63;
            text.push(if at <= chunk.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    text
}
