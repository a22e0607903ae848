// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests' numbers on kernels with other pages. Tests are written as for pages of 4 KiB, whose tables have 512 entries;
//! what they mean by a number is a place in a table, and that is what this keeps: the block of level 2, and the page in it,
//! counted from whichever end of the block is nearer. Counts keep their whole tables. With 4 KiB pages all is as written.
//!
//! Knows the words of the VMM as far as they have such numbers in them, and leaves all others alone.

use crate::script::{page_bytes, parse_number, Verb};
use anyhow::{Context as _, Result};

/// As the tests are written.
const PAGE: u64 = 4096;
const ENTRIES: u64 = 512;
const BLOCK: u64 = PAGE * ENTRIES;
/// Blocks are counted from here to there, where the tests have most of their memory. Elsewhere they stay where they are.
const MEMORY: core::ops::Range<u64> = 0x8000_0000..0x1_0000_0000;

/// Returns the place of this kernel's that `address` means.
#[must_use]
pub fn at(address: u64) -> u64 {
    Pages(page_bytes()).address(address)
}

/// Returns the number of this kernel's pages that `count` means.
#[must_use]
pub fn pages(count: u64) -> u64 {
    Pages(page_bytes()).count(count)
}

/// Returns the words of a VMM, for this kernel.
///
/// # Errors
///
/// If a word with numbers in it cannot be read.
pub fn words(text: &str) -> Result<String> {
    Pages(page_bytes()).words(text)
}

/// The bytes of a page.
#[derive(Clone, Copy)]
struct Pages(u64);

impl Pages {
    fn entries(self) -> u64 {
        self.0 / 8
    }

    fn block(self) -> u64 {
        self.0 * self.entries()
    }

    fn count(self, pages: u64) -> u64 {
        pages / ENTRIES * self.entries() + pages % ENTRIES
    }

    fn bytes(self, bytes: u64) -> u64 {
        self.count(bytes / PAGE) * self.0
    }

    fn address(self, address: u64) -> u64 {
        let page = address / PAGE % ENTRIES;
        let is_at_end = page >= ENTRIES / 2;
        let block = address / BLOCK * BLOCK + if is_at_end { BLOCK } else { 0 };
        let block = match block.checked_sub(MEMORY.start) {
            Some(offset) if MEMORY.contains(&address) => MEMORY.start + offset / BLOCK * self.block(),
            _ => block,
        };
        if is_at_end {
            block - (ENTRIES - page) * self.0
        } else {
            block + page * self.0
        }
    }

    fn words(self, text: &str) -> Result<String> {
        let mut scaled = Vec::new();
        let mut is_memory = false;
        for word in text.split_whitespace() {
            let new = if is_memory { self.memory(word) } else { self.step(word) };
            scaled.push(new.with_context(|| format!("{word:?} of {text:?}"))?);
            is_memory = word == "--mem";
        }
        Ok(scaled.join(" "))
    }

    /// `IPA+SIZE[,...]`.
    fn memory(self, word: &str) -> Result<String> {
        let (range, rest) = word.split_once(',').map_or((word, None), |(range, rest)| (range, Some(rest)));
        let (ipa, size) = range.split_once('+').context("not IPA+SIZE")?;
        let range = format!("{:#x}+{}", self.address(parse_number(ipa)?), self.bytes(parse_number(size)?));
        Ok(rest.map_or(range.clone(), |rest| format!("{range},{rest}")))
    }

    /// `[VCPU/]VERB:PLACE`, or anything else.
    fn step(self, word: &str) -> Result<String> {
        let is_verb = |verb: &str| verb.rsplit('/').next().is_some_and(|verb| verb.parse::<Verb>().is_ok());
        match word.split_once(':').filter(|(verb, _)| is_verb(verb)) {
            Some((verb, place)) => Ok(format!("{verb}:{}", self.place(place)?)),
            None => Ok(word.to_owned()),
        }
    }

    /// `[IPA+]PAGES[*STRIDE]`.
    fn place(self, place: &str) -> Result<String> {
        let (ipa, pages) = place.split_once('+').map_or((None, place), |(ipa, pages)| (Some(ipa), pages));
        let numbers = pages.split('*').map(|number| Ok(self.count(parse_number(number)?).to_string()));
        let pages = numbers.collect::<Result<Vec<_>>>()?.join("*");
        Ok(match ipa {
            Some(ipa) => format!("{:#x}+{pages}", self.address(parse_number(ipa)?)),
            None => pages,
        })
    }
}

/// Returns the pages of `place`, for this kernel.
///
/// # Errors
///
/// If it is no place.
pub fn place(place: &str) -> Result<String> {
    Pages(page_bytes()).place(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Pages = Pages(4 << 10);
    const MEDIUM: Pages = Pages(16 << 10);
    const LARGE: Pages = Pages(64 << 10);

    #[test]
    fn good_small_pages_as_written() {
        for address in [0, 0x1000, 0x8000_0000, 0x801f_f000, 0x8030_2000, 0xff_fff0_0000, 0xffff_ffff_f000] {
            assert_eq!(SMALL.address(address), address);
        }
        let text = "protected --vcpus 2 --mem 0x80000000+8388608,thp 1/touch:0x801fe000+4 touch:600*2 --hold";
        assert_eq!(SMALL.words(text).unwrap(), text);
    }

    #[test]
    fn good_places_in_a_table() {
        let cases = [
            ("first page", 0x8000_0000, 0x8000_0000, 0x8000_0000),
            ("fifth page", 0x8000_4000, 0x8001_0000, 0x8004_0000),
            ("last page of a block", 0x801f_f000, 0x81ff_c000, 0x9fff_0000),
            ("first page of the next", 0x8020_0000, 0x8200_0000, 0xa000_0000),
            ("in the middle", 0x8010_0000, 0x8200_0000 - 256 * 0x4000, 0xa000_0000 - 256 * 0x1_0000),
            ("other memory", 0x9000_0000, 0x8000_0000 + 128 * (32 << 20), 0x8000_0000 + 128 * (512 << 20)),
            ("end of a space", 0xffff_ffff_f000, 0xffff_ffff_c000, 0xffff_ffff_0000),
            ("half a space", 1 << 47, 1 << 47, 1 << 47),
        ];
        for (case, written, medium, large) in cases {
            assert_eq!((MEDIUM.address(written), LARGE.address(written)), (medium, large), "{case}");
        }
    }

    #[test]
    fn good_words() {
        let text = "ordinary --mem 0x80000000+6M,thp --mem 0x90000000+4K touch:3*512 2/drop:0x80200000+513 --physical";
        let medium =
            "ordinary --mem 0x80000000+100663296,thp --mem 0x180000000+16384 touch:3*2048 2/drop:0x82000000+2049 \
                      --physical";
        assert_eq!(MEDIUM.words(text).unwrap(), medium);
        assert_eq!(LARGE.place("64*8").unwrap(), "64*8");
    }

    #[test]
    fn bad_words() {
        for text in ["--mem 0x80000000", "--mem x+4K", "touch:", "touch:1*", "touch:x+1"] {
            assert!(MEDIUM.words(text).is_err(), "{text}");
        }
    }
}
