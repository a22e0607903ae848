// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors in text: columns of numbers, or lines of a log among which they stand.

use crate::numbers::{parse_hex, NumberError};
use crate::plan::decode::descriptor;
use s2dump_vmsa::Level;
use std::io::{self, BufRead, Read};

/// Splits input into lines. However long a line is, only so much of it is kept at once.
pub(crate) struct Lines<R>(pub(crate) R);

/// Longer lines are read as several.
const MOST_BYTES: u64 = 4096;

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<String>;

    fn next(&mut self) -> Option<io::Result<String>> {
        let mut line = Vec::new();
        match (&mut self.0).take(MOST_BYTES).read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(Ok(String::from_utf8_lossy(&line).into_owned())),
            Err(error) => Some(Err(error)),
        }
    }
}

/// A descriptor as a line tells it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// Its value, or why it is none.
    pub(crate) raw: Result<u64, NumberError>,
    /// The level that its name says.
    pub(crate) level: Option<Level>,
}

/// Names that logs give to a descriptor, and at which level it stands: for Linux those of the last levels are the same whatever
/// the number of levels is, and where there are fewer, those of the first repeat.
const NAMES: [(&str, Option<Level>); 7] = [
    ("pte", Some(Level::L3)),
    ("pmd", Some(Level::L2)),
    ("pud", Some(Level::L1)),
    ("p4d", Some(Level::L0)),
    ("desc", None),
    ("descriptor", None),
    ("entry", None),
];

/// Digits that a value has at least if its name is the word before it: `entry 12` tells none.
const LONG: usize = 5;

/// Returns the descriptor of `word`, as in `pte=VALUE`, or as what follows the name `before`.
fn named(before: &str, word: &str) -> Option<Told> {
    let (name, value) = match word.split_once(['=', ':']) {
        Some(named) => named,
        // Without a digit it is rather a word, as in `entry added`.
        None if word.len() >= LONG && word.bytes().any(|byte| byte.is_ascii_digit()) => (before, word),
        None => return None,
    };
    let (_, level) = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    Some(Told { raw: Ok(parse_hex(value).ok()?), level: *level })
}

/// Returns the descriptors of a line, or why words of it are none. What is no number at all is text around them: in such a line
/// descriptors have a name, or begin with 0x. Where names are of several levels and some may be of `level`, those are meant.
pub(crate) fn words_of(line: &str, hex: bool, level: Option<Level>) -> Vec<Told> {
    let without_name = |raw| Told { raw, level: None };
    let words: Vec<&str> =
        line.split(|c: char| c.is_ascii_whitespace() || c == ',').filter(|word| !word.is_empty()).collect();
    let read: Vec<_> = words.iter().map(|word| descriptor(word, hex)).collect();
    if !read.iter().any(|read| matches!(read, Err(NumberError::NotANumber(_)))) {
        return read.into_iter().map(without_name).collect();
    }
    let (mut with_name, mut others, mut before) = (Vec::new(), Vec::new(), "");
    for word in words {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        if word.is_empty() {
            continue;
        }
        with_name.extend(named(before, word));
        let value = word.rsplit(['=', ':']).next().unwrap_or(word);
        // More than one word is no mistyped number: 0x0-0x1000.
        if value.starts_with("0x") && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            others.push(without_name(parse_hex(value)));
        }
        before = word;
    }
    let may_be = |told: &Told| level.is_none() || told.level.is_none() || told.level == level;
    match (with_name.is_empty(), with_name.iter().any(may_be)) {
        (true, _) => others,
        (false, true) => with_name.into_iter().filter(may_be).collect(),
        (false, false) => with_name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    fn read(line: &str) -> Vec<u64> {
        words_of(line, false, None).into_iter().map(|told| told.raw.unwrap()).collect()
    }

    #[test]
    fn numbers_and_logs() {
        assert_eq!(read("0x1,2  0x40000000ff\t3\n"), [1, 2, 0x40_0000_00ff, 3]);
        assert_eq!(read("[   12.345678] kvm [1]: ia 0x80000000 level 3 pte=0x40a127ff"), [0x40a1_27ff]);
        assert_eq!(read("kvm: stage2 (PTE=0000000040a127ff, pte:40a137ff)."), [0x40a1_27ff, 0x40a1_37ff]);
        assert_eq!(read("entry at <0x40a127ff>, x=0x7fd: bad"), [0x40a1_27ff, 0x7fd]);
        assert!(read("12:30 nothing here 4096").is_empty());
        assert_eq!(read("pte 404f47ff"), [0x404f_47ff]);
        assert_eq!(read("at 80000000: level 3 pte = 0000000040412700, entry 12, entry added"), [0x4041_2700]);
        assert_eq!(read("0x0-0x1000: 0x7ff"), [0x7ff]);
        let raw = |line, hex| words_of(line, hex, None).into_iter().map(|told| told.raw).collect::<Vec<_>>();
        assert_eq!(raw("at 0x7fg", false), [Err(NumberError::NotANumber("0x7fg".into()))]);
        assert!(matches!(raw("80001234 0x7ff", false)[..], [Err(NumberError::NoBase(..)), Ok(0x7ff)]));
        assert_eq!(raw("80001234", true), [Ok(0x8000_1234)]);
    }

    #[test]
    fn names_tell_levels() {
        let told = |line: &str, level: Option<Level>| {
            let words = words_of(line, false, level).into_iter();
            words.map(|told| (told.raw.unwrap(), told.level.map(Level::get))).collect::<Vec<_>>()
        };
        let all = "[8000] pgd=1003, p4d=2003, pud=3003, pmd=40a127fd, pte=40a127ff";
        let levels = [(0x2003, Some(0)), (0x3003, Some(1)), (0x40a1_27fd, Some(2)), (0x40a1_27ff, Some(3))];
        assert_eq!(told(all, None), levels);
        assert_eq!(told(all, Some(Level::L2)), levels[2..3]);
        assert_eq!(told("pud=3003 pmd=40a127fd", Some(Level::L3)), levels[1..3], "what is there");
        assert_eq!(told("desc=7ff pmd=40a127fd", Some(Level::L3)), [(0x7ff, None)]);
    }

    #[test]
    fn endless_lines_end() {
        let text = "f".repeat(100_000);
        let lines = Lines(BufReader::with_capacity(3, text.as_bytes())).map(|line| line.unwrap().len());
        assert_eq!(lines.collect::<Vec<_>>().iter().max(), Some(&4096));
    }
}
