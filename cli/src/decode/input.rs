// SPDX-License-Identifier: MIT OR Apache-2.0
//! Words from standard input: separated by white space or commas, so that columns of a log can be piped in.

use std::io::{self, BufRead};

/// Splits input into words. However long the input is, only one word is kept.
pub(crate) struct Words<R>(pub(crate) R);

/// More than any number has; the rest of a longer word is dropped.
const MOST_CHARACTERS: usize = 64;

impl<R: BufRead> Iterator for Words<R> {
    type Item = io::Result<String>;

    fn next(&mut self) -> Option<io::Result<String>> {
        let mut word = Vec::new();
        loop {
            let buffer = match self.0.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Some(Err(error)),
            };
            let is_end = buffer.is_empty();
            let mut used = 0;
            let mut is_whole = is_end;
            for &byte in buffer {
                used += 1;
                if byte.is_ascii_whitespace() || byte == b',' {
                    is_whole = !word.is_empty();
                    if is_whole {
                        break;
                    }
                } else if word.len() < MOST_CHARACTERS {
                    word.push(byte);
                }
            }
            self.0.consume(used);
            if is_whole && !word.is_empty() {
                return Some(Ok(String::from_utf8_lossy(&word).into_owned()));
            }
            if is_end {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    /// With buffers so small that words span them.
    fn split(text: &str) -> Vec<String> {
        Words(BufReader::with_capacity(3, text.as_bytes())).map(Result::unwrap).collect()
    }

    #[test]
    fn words() {
        assert_eq!(split(""), Vec::<String>::new());
        assert_eq!(split(" \n"), Vec::<String>::new());
        assert_eq!(split("0x1,2\n\n 0x40000000ff\t3"), ["0x1", "2", "0x40000000ff", "3"]);
    }

    #[test]
    fn endless_words_end() {
        assert_eq!(split(&"f".repeat(100_000)), ["f".repeat(MOST_CHARACTERS)]);
    }
}
