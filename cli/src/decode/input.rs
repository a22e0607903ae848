// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors in text: columns of numbers, or lines of a log among which they stand.

use crate::numbers::{parse_hex, NumberError};
use crate::plan::decode::descriptor;
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

/// Names that logs give to a descriptor.
const NAMES: [&str; 4] = ["pte", "desc", "descriptor", "entry"];

/// Returns the value of `pte=VALUE` and the like.
pub(crate) fn named(word: &str) -> Option<&str> {
    let (name, value) = word.split_once(['=', ':'])?;
    let is_known = NAMES.iter().any(|known| known.eq_ignore_ascii_case(name)) && !value.is_empty();
    is_known.then_some(value)
}

/// Returns the descriptors of a line, or why words of it are none. What is no number at all is text around them: in such a line
/// descriptors have a name, or begin with 0x.
pub(crate) fn words_of(line: &str, hex: bool) -> Vec<Result<u64, NumberError>> {
    let words: Vec<&str> =
        line.split(|c: char| c.is_ascii_whitespace() || c == ',').filter(|word| !word.is_empty()).collect();
    let read: Vec<_> = words.iter().map(|word| descriptor(word, hex)).collect();
    if !read.iter().any(|read| matches!(read, Err(NumberError::NotANumber(_)))) {
        return read;
    }
    let plain = |word: &&str| word.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned();
    let plain: Vec<String> = words.iter().map(plain).collect();
    let named: Vec<_> = plain.iter().filter_map(|word| parse_hex(named(word)?).ok()).map(Ok).collect();
    if !named.is_empty() {
        return named;
    }
    let value = |word: &String| Some(word.rsplit(['=', ':']).next()?.to_owned());
    let hexadecimal = plain.iter().filter_map(value).filter(|word| word.starts_with("0x"));
    hexadecimal.filter_map(|word| parse_hex(&word).ok()).map(Ok).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    fn read(line: &str) -> Vec<u64> {
        words_of(line, false).into_iter().map(Result::unwrap).collect()
    }

    #[test]
    fn numbers_and_logs() {
        assert_eq!(read("0x1,2  0x40000000ff\t3\n"), [1, 2, 0x40_0000_00ff, 3]);
        assert_eq!(read("[   12.345678] kvm [1]: ia 0x80000000 level 3 pte=0x40a127ff"), [0x40a1_27ff]);
        assert_eq!(read("kvm: stage2 (PTE=0000000040a127ff, pte:40a137ff)."), [0x40a1_27ff, 0x40a1_37ff]);
        assert_eq!(read("entry at <0x40a127ff>, x=0x7fd: bad"), [0x40a1_27ff, 0x7fd]);
        assert!(read("12:30 nothing here 4096").is_empty());
        assert!(matches!(words_of("80001234 0x7ff", false)[..], [Err(NumberError::NoBase(..)), Ok(0x7ff)]));
        assert_eq!(words_of("80001234", true), [Ok(0x8000_1234)]);
    }

    #[test]
    fn endless_lines_end() {
        let text = "f".repeat(100_000);
        let lines = Lines(BufReader::with_capacity(3, text.as_bytes())).map(|line| line.unwrap().len());
        assert_eq!(lines.collect::<Vec<_>>().iter().max(), Some(&4096));
    }
}
