// SPDX-License-Identifier: MIT OR Apache-2.0
//! `--via`: how to run commands on another machine.

use super::Verb;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use std::path::PathBuf;
use std::str::FromStr;

/// How a shell of the other machine gets a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Via {
    /// What was typed, which names the machine in messages.
    pub(crate) name: String,
    /// For a shell of this machine: the words before the command line, which is one word more.
    pub(crate) command: String,
    /// How to copy this program there, in words.
    pub(crate) copy: String,
}

impl FromStr for Via {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.trim().to_owned();
        let (adb, is_adb) = match name.strip_prefix("adb") {
            Some("") => ("adb".to_owned(), true),
            Some(serial) if serial.starts_with(':') && serial.len() > 1 => {
                (format!("adb -s {}", quote(&serial[1..])), true)
            }
            _ => (String::new(), false),
        };
        if name.is_empty() || name == "adb:" {
            return Err("'ssh root@board', or adb, or adb:SERIAL");
        }
        let (command, copy) = match is_adb {
            // No terminal there, so that bytes arrive as they are; nothing is typed.
            true => (format!("{adb} shell -n -T"), format!("with {adb} push s2dump /data/local/tmp/")),
            false => (name.clone(), "into a directory of its PATH, or root's home".to_owned()),
        };
        Ok(Self { name, command, copy })
    }
}

impl Via {
    /// Returns what a shell of this machine runs so that the other one runs s2dump with `words`.
    pub(crate) fn line(&self, words: &[String]) -> String {
        // A board has it where root's shell begins, a phone where adb may write.
        let mut there = String::from("PATH=\"$PATH:$HOME:/data/local/tmp\" s2dump");
        for word in words {
            there.push(' ');
            there.push_str(&quote(word));
        }
        format!("{} {}", self.command, quote(&there))
    }

    /// Has `verb` read what comes from the other machine, as a capture, if it reads captures.
    ///
    /// # Errors
    ///
    /// If it has another input, or makes no sense of another machine's.
    pub(crate) fn be_input(&self, verb: &mut Verb) -> Result<(), Failure> {
        let refuse = |message: &str, hint: &str| {
            Err(Failure::new(ExitCode::UsageOrIo, format_args!("--via {}: {message}", self.name)).hint(hint))
        };
        let input = match verb {
            Verb::List(list) => &mut list.input,
            Verb::Dump(dump) => &mut dump.input,
            Verb::Frames(frames) => &mut frames.input,
            Verb::Stat(stat) => &mut stat.input,
            Verb::Walk(walk) => &mut walk.input,
            Verb::Rmap(rmap) => &mut rmap.input,
            Verb::Audit(audit) if !audit.list => &mut audit.input,
            Verb::Map(map) => &mut map.input,
            Verb::Probe(_) | Verb::Version(_) | Verb::Watch(_) | Verb::Capture(_) | Verb::Report(_) => return Ok(()),
            Verb::Diff(_) => {
                return refuse("two readings are compared here", "capture there first: capture --all -O after.s2d");
            }
            Verb::Audit(_) | Verb::Decode(_) => return refuse("this is answered here", "leave --via out"),
        };
        match input.replace(PathBuf::from(&self.name)) {
            None => Ok(()),
            Some(_) => refuse("does not go with -i FILE", "leave one of the two out"),
        }
    }
}

/// Returns `word` as a POSIX shell takes it for one word.
fn quote(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=+:,./@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_as_they_are() {
        let run = |via: &str, words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            let line = Via { command: via.into(), ..Via::from_str("x").unwrap() }
                .line(&words)
                .replace("s2dump", "printf '[%s]'");
            let output = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        // As ssh and adb do: the rest is joined, and goes to a shell.
        for via in ["sh -c", "sh -c 'eval \"$1\"' sh"] {
            assert_eq!(
                run(via, &["a", "", "b c", "it's", "$HOME", "`x`", "\"", "*"]),
                "[a][][b c][it's][$HOME][`x`][\"][*]"
            );
        }
    }

    #[test]
    fn phones_have_names() {
        let command = |text| Via::from_str(text).map(|via| via.command);
        assert_eq!(command("adb").as_deref(), Ok("adb shell -n -T"));
        assert_eq!(command("adb:emulator-5554").as_deref(), Ok("adb -s emulator-5554 shell -n -T"));
        assert_eq!(command("adb:a b").as_deref(), Ok("adb -s 'a b' shell -n -T"));
        assert_eq!(command("ssh -p 22 root@board").as_deref(), Ok("ssh -p 22 root@board"));
        assert_eq!(command("adbx").as_deref(), Ok("adbx"));
        for text in ["", " ", "adb:"] {
            assert!(command(text).is_err(), "{text:?}");
        }
    }
}
