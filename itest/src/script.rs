// SPDX-License-Identifier: MIT OR Apache-2.0
//! The words the test VMM understands: memory (`0x80000000+64M,huge`) and steps (`touch:0x80000000+16`).
//!
//! Addresses are guest input addresses; counts are 4 KiB pages. Pure: parses text, touches nothing.

use anyhow::{bail, ensure, Context as _, Error, Result};
use std::path::PathBuf;
use std::str::FromStr;

/// Bytes of a page, the only granule supported.
pub const PAGE_BYTES: u64 = 4096;
/// Bytes of a level-2 block.
pub const BLOCK_BYTES: u64 = 2 << 20;

/// What backs a guest's memory on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Private anonymous 4 KiB pages.
    Anonymous,
    /// Private 2 MiB pages of hugetlbfs: KVM maps blocks for an ordinary guest.
    Huge,
    /// A file, created or grown as needed and mapped shared: the way to give two guests the same memory.
    File(PathBuf),
}

/// A piece of guest memory: `IPA+SIZE[,huge|,file=PATH][,ro]`.
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
                None if word == "huge" => spec.backing = Backing::Huge,
                None if word == "ro" => spec.read_only = true,
                _ => bail!("memory {text:?}: unknown word {word:?}; known: huge, ro, file=PATH"),
            }
        }
        let unit = if spec.backing == Backing::Huge { BLOCK_BYTES } else { PAGE_BYTES };
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
    /// The protected guest shares the page with the host (MEM_SHARE).
    Share,
    /// The protected guest takes it back (MEM_UNSHARE).
    Unshare,
    /// The guest stores to the page, then shares it, page after page.
    TouchShare,
    /// The host *kernel* reads the page behind the guest's back, which makes pKVM poison it.
    Poison,
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
        let (stride, pages) = (self.stride.checked_mul(PAGE_BYTES)?, self.pages);
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
        let verb = match verb {
            "touch" => Verb::Touch,
            "read" => Verb::Read,
            "share" => Verb::Share,
            "unshare" => Verb::Unshare,
            "touch-share" => Verb::TouchShare,
            "poison" => Verb::Poison,
            _ => bail!("step {text:?}: unknown verb; known: touch read share unshare touch-share poison"),
        };
        let (ipa, pages) = match place.split_once('+') {
            Some((ipa, pages)) => (Some(parse_number(ipa)?), pages),
            None => (None, place),
        };
        ensure!(ipa.is_none_or(|ipa| ipa % PAGE_BYTES == 0), "step {text:?}: address is not page aligned");
        let (pages, stride) = pages.split_once('*').unwrap_or((pages, "1"));
        let (pages, stride) = (parse_number(pages)?, parse_number(stride)?);
        ensure!(stride > 0, "step {text:?}: a stride of no pages");
        Ok(Self { vcpu, verb, ipa, pages, stride })
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
    }

    #[test]
    fn bad_memory() {
        for text in ["", "0x1000", "0x1001+4K", "0+0", "0x1000+2M,huge", "0+4K,fast", "0xfffffffffffff000+4K"] {
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
