// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the guest prints of its tables, and the comparison with it.

use super::addresses::Mapping;
use anyhow::{bail, ensure, Result};

/// How the guest's init starts its lines.
const MARK: &str = "s2dump-oracle: ";
/// What each text must have in it for the comparison to mean something: pages that may be executed, pages and blocks,
/// read-only and not to be executed.
const REQUIRED: [(&str, &str); 5] = [
    ("pages", "3   R W "),
    ("blocks", " BLK"),
    ("read-only ranges", "   R   "),
    ("ranges to execute", " px ux "),
    ("ranges not to execute", " PXNUXN "),
];

/// What the kernel printed of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) bits: u32,
    pub(super) cpu: usize,
    pub(super) text: String,
    /// Where its memory is, by the kernel's word too.
    pub(super) maps: Vec<Mapping>,
}

/// Collects what the guest's init prints.
#[derive(Default)]
pub(super) struct Transcript {
    pub(super) told: Vec<Told>,
    is_open: bool,
}

impl Transcript {
    /// Takes a line of the console; returns whether it was the last of interest.
    pub(super) fn line(&mut self, line: &str) -> Result<bool> {
        match (line.strip_prefix(MARK), self.told.last_mut()) {
            (Some("ready"), _) if !self.is_open => return Ok(true),
            (Some("end"), Some(_)) if self.is_open => self.is_open = false,
            (Some(head), told) if !self.is_open => match (&head.split(' ').collect::<Vec<_>>()[..], told) {
                (["table", bits, "cpu", cpu], _) => {
                    self.told.push(Told { bits: bits.parse()?, cpu: cpu.parse()?, text: String::new(), maps: vec![] });
                    self.is_open = true;
                }
                (["maps", ia, bytes, oa], Some(told)) => match Mapping::parse([ia, bytes, oa]) {
                    Some(mapping) => told.maps.push(mapping),
                    None => bail!("no numbers: {line:?}"),
                },
                _ => bail!("a line that makes no sense: {line:?}"),
            },
            (Some(_), _) => bail!("a table without an end before {line:?}"),
            (None, Some(told)) if self.is_open => {
                told.text += line;
                told.text.push('\n');
            }
            (None, _) => {}
        }
        Ok(false)
    }
}

/// Checks that a kernel's text has everything in it that is to be judged.
pub(super) fn has_all(text: &str) -> Result<()> {
    let missing: Vec<&str> = REQUIRED.iter().filter(|(_, sign)| !text.contains(sign)).map(|(what, _)| *what).collect();
    ensure!(missing.is_empty(), "the kernel's text has no {} in it:\n{text}", missing.join(", "));
    Ok(())
}

/// Checks that two texts are the same, byte for byte.
pub(super) fn equal(kernel: &str, ours: &str) -> Result<()> {
    if kernel == ours {
        return Ok(());
    }
    let mut lines = kernel.lines().zip(ours.lines()).enumerate().filter(|(_, (theirs, ours))| theirs != ours);
    let (theirs, ours) = match lines.next() {
        Some((line, (theirs, ours))) => (format!("line {}: {theirs:?}", line + 1), format!("{ours:?}")),
        None => (format!("{} bytes", kernel.len()), format!("{} bytes, the other's beginning or end", ours.len())),
    };
    bail!("the texts differ\n  kernel: {theirs}\n  s2dump: {ours}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "[    0.1] x\ns2dump-oracle: table 40 cpu 1\n---[ Guest IPA ]---\n0x0  R W \n\
        s2dump-oracle: end\ns2dump-oracle: maps 0x0 0x1000 0x40000000\n[    0.2] y\ns2dump-oracle: table 48 cpu 2\n---[ Guest IPA ]---\ns2dump-oracle: end\n";

    #[test]
    fn good_transcript() {
        let mut transcript = Transcript::default();
        for line in CONSOLE.lines() {
            assert!(!transcript.line(line).unwrap(), "{line}");
        }
        assert!(transcript.line("s2dump-oracle: ready").unwrap());
        let text = "---[ Guest IPA ]---\n0x0  R W \n".to_owned();
        let maps = vec![Mapping::parse(["0x0", "0x1000", "0x40000000"]).unwrap()];
        assert_eq!(transcript.told[0], Told { bits: 40, cpu: 1, text, maps });
        assert_eq!((transcript.told[1].bits, transcript.told[1].cpu), (48, 2));
    }

    #[test]
    fn bad_transcripts() {
        for lines in [
            &["s2dump-oracle: table 40 cpu"][..],
            &["s2dump-oracle: end"],
            &["s2dump-oracle: maps 0x0 0x1000 0x40000000"],
            &["s2dump-oracle: table 40 cpu 1", "s2dump-oracle: end", "s2dump-oracle: maps 0x0 1000 0x0"],
            &["s2dump-oracle: table 40 cpu 1", "s2dump-oracle: ready"],
            &["s2dump-oracle: table 40 cpu 1", "s2dump-oracle: table 48 cpu 2"],
        ] {
            let mut transcript = Transcript::default();
            assert!(lines.iter().any(|line| transcript.line(line).is_err()), "{lines:?}");
        }
    }

    #[test]
    fn bad_texts() {
        let error = has_all("0x0-0x1000  4K 3   R W px ux  AF    \n").unwrap_err().to_string();
        assert!(error.contains("no blocks, read-only ranges, ranges not to execute in it"), "{error}");
        assert!(equal("a\nb\n", "a\nc\n").unwrap_err().to_string().contains("line 2: \"b\""));
        assert!(equal("a\nb\n", "a\n").is_err());
        assert!(equal("a\n", "a").is_err());
        assert!(equal("a\n", "a\n").is_ok());
    }
}
