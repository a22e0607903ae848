// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a guest's memory is: by `/proc/self/pagemap` of the process that lent it, and by the table.

use anyhow::{ensure, Result};

/// Input addresses, and the output addresses they have one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mapping {
    ia: u64,
    bytes: u64,
    oa: u64,
}

impl Mapping {
    /// Reads `IA BYTES OA`, hexadecimal, as the guest's init writes it.
    pub(super) fn parse(words: [&str; 3]) -> Option<Self> {
        let [ia, bytes, oa] = words.map(number);
        Some(Self { ia: ia?, bytes: bytes?, oa: oa? })
    }

    /// Reads a row of `s2dump dump --exact --format table`; none of one that maps nothing, or that is no row.
    fn of_row(row: &str) -> Option<Self> {
        let mut words = row.split_whitespace();
        let (first, last) = words.next()?.split_once('-')?;
        let (first, last) = (number(first)?, number(last)?);
        Some(Self { ia: first, bytes: last - first + 1, oa: number(words.next_back()?)? })
    }
}

/// Checks that a table leads to where the kernel says the memory is, and nowhere else.
pub(super) fn equal_addresses(kernel: &[Mapping], table: &str) -> Result<()> {
    let theirs = merged(kernel.to_vec());
    let ours = merged(table.lines().filter_map(Mapping::of_row).collect());
    ensure!(!theirs.is_empty(), "the kernel told no addresses");
    let mut pairs = theirs.iter().zip(&ours).filter(|(theirs, ours)| theirs != ours);
    let (many, few) = (theirs.len(), ours.len());
    let first = pairs.next().map_or(String::new(), |(theirs, ours)| format!(": {theirs:x?} and {ours:x?}"));
    ensure!(theirs == ours, "pagemap has {many} ranges, the table {few}, and they differ{first}");
    Ok(())
}

/// Joins what goes on in both spaces.
fn merged(mut mappings: Vec<Mapping>) -> Vec<Mapping> {
    mappings.sort_unstable();
    mappings.dedup_by(|next, last| {
        let goes_on = last.ia + last.bytes == next.ia && last.oa + last.bytes == next.oa;
        if goes_on {
            last.bytes += next.bytes;
        }
        goes_on
    });
    mappings
}

fn number(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# vtcr_el2 0x802db597\nINPUT ADDRESSES   SIZE LV RWX MEMORY    SH  AF STATE OUTPUT\n\
        0x0000000000000000-0x000000003fffffff      1GiB L2 -   -         -   -  -               -\n\
        0x0000000040000000-0x0000000040000fff      4KiB L3 rwx normal-wb ish af -               0x50000000\n\
        0x0000000040001000-0x0000000040001fff      4KiB L3 rw- normal-wb ish af -               0x50001000\n\
        0x0000000040002000-0x0000000040003fff      8KiB L3 rw- normal-wb ish af -               0x60000000\n";

    fn maps(lines: &[[&str; 3]]) -> Vec<Mapping> {
        lines.iter().map(|words| Mapping::parse(*words).unwrap()).collect()
    }

    #[test]
    fn good_however_it_is_cut() {
        let kernel = maps(&[["0x40003000", "0x1000", "0x60001000"], ["0x40002000", "0x1000", "0x60000000"]]);
        let kernel = [kernel, maps(&[["0x40000000", "0x2000", "0x50000000"]])].concat();
        equal_addresses(&kernel, TABLE).unwrap();
    }

    #[test]
    fn bad_elsewhere_missing_or_too_much() {
        let good = [["0x40000000", "0x2000", "0x50000000"], ["0x40002000", "0x2000", "0x60000000"]];
        equal_addresses(&maps(&good), TABLE).unwrap();
        let elsewhere = [good[0], ["0x40002000", "0x2000", "0x60001000"]];
        let more = [good[0], good[1], ["0x50000000", "0x1000", "0x70000000"]];
        assert!(equal_addresses(&maps(&elsewhere), TABLE).unwrap_err().to_string().contains("oa: 60001000"));
        assert!(equal_addresses(&maps(&good[..1]), TABLE).is_err());
        assert!(equal_addresses(&maps(&more), TABLE).is_err());
        assert!(equal_addresses(&[], "").is_err(), "nothing at all");
    }
}
