// SPDX-License-Identifier: MIT OR Apache-2.0
//! The words the test VMM understands: memory (`0x80000000+64M,huge`) and steps (`touch:0x80000000+16`).
//!
//! Addresses are guest input addresses; counts are pages of the machine. Parses text, touches nothing.

use anyhow::{bail, ensure, Context as _, Error, Result};
use std::path::PathBuf;
use std::str::FromStr;

/// Returns the bytes of a page: the kernel's page size is the granule of stage 2 too.
#[must_use]
pub fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// Returns the bytes of a level-2 block: what a whole table of pages maps.
#[must_use]
pub fn block_bytes() -> u64 {
    page_bytes() * (page_bytes() / 8)
}

/// What backs a guest's memory on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Private anonymous pages.
    Anonymous,
    /// Private pages of hugetlbfs, as large as a level-2 block: KVM maps blocks for an ordinary guest.
    Huge,
    /// Private anonymous pages, aligned as level-2 blocks are, that the steps `large` and `small` turn from one size of
    /// page to the other.
    Transparent,
    /// A file, created or grown as needed and mapped shared: the way to give two guests the same memory.
    File(PathBuf),
    /// The same, in a mounted hugetlbfs.
    HugeFile(PathBuf),
    /// A file without a name in any directory, mapped shared: what most VMMs give their guests.
    Memfd(String),
    /// Physical addresses that are no memory, from here on: KVM lets no guest execute there.
    Device(u64),
}

impl Backing {
    /// Returns whether KVM maps blocks always.
    #[must_use]
    pub fn is_huge(&self) -> bool {
        matches!(self, Self::Huge | Self::HugeFile(_))
    }
}

/// A piece of guest memory: `IPA+SIZE[,huge[=PATH]|,thp|,file=PATH|,memfd=NAME|,device=ADDRESS][,ro]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemorySpec {
    /// First input address.
    pub ipa: u64,
    /// Bytes.
    pub size_bytes: u64,
    /// What is behind it.
    pub backing: Backing,
    /// Guest stores leave to the VMM instead of reaching memory.
    pub read_only: bool,
}

impl FromStr for MemorySpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split(',');
        let range = words.next().unwrap_or_default();
        let (ipa, size) = range.split_once('+').with_context(|| format!("memory {range:?} is not IPA+SIZE"))?;
        let mut spec = Self {
            ipa: parse_number(ipa)?,
            size_bytes: parse_number(size)?,
            backing: Backing::Anonymous,
            read_only: false,
        };
        for word in words {
            match word.split_once('=') {
                Some(("file", path)) => spec.backing = Backing::File(path.into()),
                Some(("memfd", name)) => spec.backing = Backing::Memfd(name.into()),
                Some(("huge", path)) => spec.backing = Backing::HugeFile(path.into()),
                Some(("device", address)) => spec.backing = Backing::Device(parse_number(address)?),
                None if word == "huge" => spec.backing = Backing::Huge,
                None if word == "thp" => spec.backing = Backing::Transparent,
                None if word == "ro" => spec.read_only = true,
                _ => bail!(
                    "memory {text:?}: unknown word {word:?}; known: huge, thp, ro, file=PATH, memfd=NAME, huge=PATH, \
                     device=ADDRESS"
                ),
            }
        }
        let is_of_blocks = spec.backing.is_huge() || spec.backing == Backing::Transparent;
        let unit = if is_of_blocks { block_bytes() } else { page_bytes() };
        ensure!(
            spec.ipa % unit == 0 && spec.size_bytes % unit == 0 && spec.size_bytes > 0,
            "memory {text:?} is not a positive multiple of {unit:#x} bytes"
        );
        ensure!(spec.ipa.checked_add(spec.size_bytes).is_some(), "memory {text:?} ends past the last address");
        Ok(spec)
    }
}

/// What a step does with each of its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// The guest stores to the page.
    Touch,
    /// The guest loads from the page.
    Read,
    /// The guest stores a return instruction to the page, and calls it.
    Call,
    /// The protected guest shares the page with the host (MEM_SHARE).
    Share,
    /// The protected guest takes it back (MEM_UNSHARE).
    Unshare,
    /// The guest stores to the page, then shares it, page after page.
    TouchShare,
    /// The protected guest permits the host to play devices at the page, where no memory is, at the port, and where else it
    /// said so, but nowhere else (MMIO_GUARD_MAP). Only Android's pKVM has that.
    Guard,
    /// The host *kernel* reads the page behind the guest's back, which makes pKVM poison it. Nothing is done where pKVM
    /// does not: there the host would stumble.
    Poison,
    /// The VMM gives the page back to the host (MADV_DONTNEED): KVM unmaps it.
    Drop,
    /// The VMM has the host make the pages ready, as one does that loads an image: what the guest's first touch costs then
    /// is KVM's work alone (MADV_POPULATE_WRITE).
    Populate,
    /// From its next touch on, `thp` memory is in blocks (MADV_HUGEPAGE). Whole blocks, please. Memory of a protected guest
    /// that was touched stays as it is.
    Large,
    /// From its next touch on, `thp` memory is in pages (MADV_NOHUGEPAGE).
    Small,
    /// The VMM takes the whole memory slot that has the page away from the guest: KVM unmaps it. It stays mapped in the VMM.
    Forget,
}

impl Verb {
    /// Every verb by its word.
    const WORDS: [(&'static str, Self); 13] = [
        ("touch", Self::Touch),
        ("read", Self::Read),
        ("call", Self::Call),
        ("share", Self::Share),
        ("unshare", Self::Unshare),
        ("touch-share", Self::TouchShare),
        ("guard", Self::Guard),
        ("poison", Self::Poison),
        ("drop", Self::Drop),
        ("populate", Self::Populate),
        ("large", Self::Large),
        ("small", Self::Small),
        ("forget", Self::Forget),
    ];

    /// Returns whether only a protected guest, or its host, can do this.
    #[must_use]
    pub fn is_for_protected(self) -> bool {
        matches!(self, Self::Share | Self::Unshare | Self::TouchShare | Self::Guard | Self::Poison)
    }

    /// Returns whether only an ordinary guest's VMM can do this: the memory of a protected guest is pinned.
    #[must_use]
    pub fn is_for_ordinary(self) -> bool {
        matches!(self, Self::Drop | Self::Small | Self::Forget)
    }
}

impl FromStr for Verb {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let known = Self::WORDS.iter().find(|(known, _)| *known == word);
        let all = || Self::WORDS.map(|(word, _)| word).join(" ");
        known.map(|(_, verb)| *verb).with_context(|| format!("unknown verb {word:?}; known: {}", all()))
    }
}

/// A step: `[VCPU/]VERB:[IPA+]PAGES[*STRIDE]`; without an address it starts at the first memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which vCPU does it.
    pub vcpu: usize,
    /// What.
    pub verb: Verb,
    /// Where, if said.
    pub ipa: Option<u64>,
    /// On how many pages.
    pub pages: u64,
    /// Pages from one to the next: 2 is every other page.
    pub stride: u64,
}

impl Step {
    /// Returns the input address of each page, or nothing if there are more than addresses.
    #[must_use]
    pub fn addresses(&self, first: u64) -> Option<impl Iterator<Item = u64> + use<>> {
        let (stride, pages) = (self.stride.checked_mul(page_bytes())?, self.pages);
        stride.checked_mul(pages)?.checked_add(first)?;
        Some((0..pages).map(move |n| first + n * stride))
    }
}

impl FromStr for Step {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (vcpu, rest) = match text.split_once('/') {
            Some((vcpu, rest)) => (vcpu.parse().with_context(|| format!("step {text:?}: vCPU"))?, rest),
            None => (0, text),
        };
        let (verb, place) =
            rest.split_once(':').with_context(|| format!("step {text:?} is not VERB:[IPA+]PAGES[*STRIDE]"))?;
        let verb = verb.parse().with_context(|| format!("step {text:?}"))?;
        let Place { ipa, pages, stride } = place.parse().with_context(|| format!("step {text:?}"))?;
        Ok(Self { vcpu, verb, ipa, pages, stride })
    }
}

/// Some pages: `[IPA+]PAGES[*STRIDE]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where, if said.
    pub ipa: Option<u64>,
    /// How many pages.
    pub pages: u64,
    /// Pages from one to the next.
    pub stride: u64,
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (ipa, pages) = match text.split_once('+') {
            Some((ipa, pages)) => (Some(parse_number(ipa)?), pages),
            None => (None, text),
        };
        ensure!(ipa.is_none_or(|ipa| ipa % page_bytes() == 0), "the address is not page aligned");
        let (pages, stride) = pages.split_once('*').unwrap_or((pages, "1"));
        let (pages, stride) = (parse_number(pages)?, parse_number(stride)?);
        ensure!(stride > 0, "a stride of no pages");
        Ok(Self { ipa, pages, stride })
    }
}

/// Parses decimal or 0x hexadecimal, with an optional K, M, G or T.
///
/// # Errors
///
/// Names the text if it is no number or too large.
pub fn parse_number(text: &str) -> Result<u64> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        Some(b'T') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let value = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(&hex.replace('_', ""), 16),
        None => digits.parse(),
    };
    let value = value.with_context(|| format!("{text:?} is not a number"))?;
    value.checked_mul(1 << shift).with_context(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_memory() {
        let spec: MemorySpec = "0x80000000+64M".parse().unwrap();
        assert_eq!((spec.ipa, spec.size_bytes, spec.backing), (0x8000_0000, 64 << 20, Backing::Anonymous));
        let spec: MemorySpec = "1G+4M,huge,ro".parse().unwrap();
        assert_eq!((spec.ipa, spec.backing, spec.read_only), (1 << 30, Backing::Huge, true));
        let spec: MemorySpec = "2G+4M,huge=/huge/a".parse().unwrap();
        assert_eq!((spec.backing.is_huge(), spec.backing), (true, Backing::HugeFile("/huge/a".into())));
        let spec: MemorySpec = "2G+4M,thp".parse().unwrap();
        assert_eq!((spec.backing.is_huge(), spec.backing), (false, Backing::Transparent));
        let spec: MemorySpec = "2G+4M,memfd=ram".parse().unwrap();
        assert_eq!(spec.backing, Backing::Memfd("ram".into()));
        let spec: MemorySpec = "0x9000000+64K,device=0x9010000".parse().unwrap();
        assert_eq!((spec.backing.is_huge(), spec.backing), (false, Backing::Device(0x901_0000)));
    }

    #[test]
    fn bad_memory() {
        for text in [
            "",
            "0x1000",
            "0x1001+4K",
            "0+0",
            "0x1000+2M,huge",
            "0+4K,thp",
            "0+4K,fast",
            "0+4K,device=",
            "0xfffffffffffff000+4K",
        ] {
            assert!(text.parse::<MemorySpec>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn good_steps() {
        let step: Step = "touch:16".parse().unwrap();
        assert_eq!(step, Step { vcpu: 0, verb: Verb::Touch, ipa: None, pages: 16, stride: 1 });
        let step: Step = "1/unshare:0x2000+3*2".parse().unwrap();
        assert_eq!(step, Step { vcpu: 1, verb: Verb::Unshare, ipa: Some(0x2000), pages: 3, stride: 2 });
        assert_eq!(step.addresses(0x2000).unwrap().collect::<Vec<_>>(), [0x2000, 0x4000, 0x6000]);
        assert!(step.addresses(u64::MAX - 0x4000).is_none());
        for (word, verb) in Verb::WORDS {
            assert_eq!(format!("{word}:1").parse::<Step>().unwrap().verb, verb);
        }
    }

    #[test]
    fn bad_steps() {
        for text in
            ["touch", "jump:1", "touch:0x10+1", "x/touch:1", "touch:16777216T", "touch:-1", "touch:1*0", "touch:1*"]
        {
            assert!(text.parse::<Step>().is_err(), "{text:?}");
        }
    }
}
