// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each command of `docs/tutorial.md`, run in a shell, says what stands there.
//!
//! A story (a heading with its blocks) is one shell. Words must be the same, but for addresses of the machine's memory and of
//! processes, and numbers of processes; of these, two are the same here exactly if they are in the text. Space between words does not
//! count.

use super::support::list;
use super::{tests, Ignored, Outcome};
use crate::machine::{Flavor, Machine};
use crate::script::page_bytes;
use anyhow::{bail, ensure, Context as _, Result};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

tests!(On: tutorial_says_what_happens);

const TUTORIAL: &str = include_str!("../../../../docs/tutorial.md");
/// How long a VM may take to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Ends what a command says.
const END: &str = "--- end of what was said";

struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Shell {
    fn start() -> Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", "exec sh 2>&1"]).process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting a shell")?;
        let input = child.stdin.take().context("no standard input")?;
        let output = BufReader::new(child.stdout.take().context("no standard output")?);
        Ok(Self { child, input, output })
    }

    /// Returns what `command` says, with that it was told so.
    fn run(&mut self, command: &str) -> Result<Vec<String>> {
        writeln!(self.input, "{command}\necho '{END}'")?;
        let mut said = Vec::new();
        loop {
            let mut line = String::new();
            ensure!(self.output.read_line(&mut line)? > 0, "the shell ended: {said:?}");
            match line.trim_end() {
                END => return Ok(said),
                line => said.push(line.to_owned()),
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // With what it left in the background.
        if let Some(group) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Which words of the text stand for which others here, and the other way round.
#[derive(Default)]
struct Words {
    here: BTreeMap<String, String>,
    there: BTreeMap<String, String>,
}

impl Words {
    /// Returns whether `here` is what `there`, in the text, stands for.
    fn fit(&mut self, there: &str, here: &str, may_differ: fn(&str) -> bool) -> bool {
        if !may_differ(there) || !may_differ(here) {
            return there == here;
        }
        let (there, here) = (there.to_owned(), here.to_owned());
        let is_here = *self.here.entry(there.clone()).or_insert(here.clone()) == here;
        *self.there.entry(here).or_insert(there.clone()) == there && is_here
    }

    /// Returns whether all words of a line do. Numbers of processes are in the list of VMs only.
    fn fit_all(&mut self, there: &str, here: &str) -> bool {
        let may_differ = if there.starts_with("vm:") { is_address_or_number } else { is_address };
        let (there, here) = (words(there), words(here));
        there.len() == here.len() && there.iter().zip(here).all(|(there, here)| self.fit(there, here, may_differ))
    }
}

/// Returns whether a word is an address of the memory of QEMU's machine, or one of a process. The first page of that memory is the
/// kernel's, and the guest has its code at that address.
fn is_address(word: &str) -> bool {
    let address = word.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok());
    address.is_some_and(|at| (0x4000_1000..0x8000_0000).contains(&at) || (1 << 36..1 << 48).contains(&at))
}

fn is_address_or_number(word: &str) -> bool {
    is_address(word) || word.len() >= 2 && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns words, and each other character but space, of a line.
fn words(line: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "._%/".contains(c);
    let mut words = Vec::new();
    for piece in line.split_whitespace() {
        let mut rest = piece;
        while let Some(first) = rest.chars().next() {
            let length =
                if is_word(first) { rest.find(|c| !is_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
            let (word, after) = rest.split_at(length);
            words.push(word);
            rest = after;
        }
    }
    words
}

fn tutorial_says_what_happens(machine: &Machine) -> Outcome {
    if machine.flavor != Flavor::Mainline || page_bytes() != 4096 {
        return Err(Ignored("the tutorial is about mainline, with pages of 4 KiB".into()).into());
    }
    let mut stories = 0;
    for story in TUTORIAL.split("\n## ").skip(1) {
        let title = story.lines().next().unwrap_or_default();
        let blocks = story.split("```console\n").skip(1).map(|block| block.split("```").next().unwrap_or_default());
        let text: String = blocks.collect();
        if text.is_empty() {
            continue;
        }
        let mut shell = Shell::start()?;
        let mut known = Words::default();
        for piece in text.strip_prefix("$ ").with_context(|| format!("{title}: no command"))?.split("\n$ ") {
            let (command, expected) = piece.split_once('\n').unwrap_or((piece, ""));
            let said = shell.run(command).with_context(|| format!("{title}: {command}"))?;
            let expected: Vec<&str> = expected.lines().filter(|line| !line.trim().is_empty()).collect();
            let heard: Vec<&str> = said.iter().map(String::as_str).filter(|line| !line.trim().is_empty()).collect();
            let is_same = expected.len() == heard.len()
                && expected.iter().zip(&heard).all(|(there, here)| known.fit_all(there, here));
            println!("  $ {command}");
            if !is_same {
                bail!("{title}: {command}: says\n{}\ninstead of\n{}", heard.join("\n"), expected.join("\n"));
            }
        }
        stories += 1;
        drop(shell);
        // The next story's VM is to have its handle.
        let begin = Instant::now();
        while !list()?.is_empty() {
            ensure!(begin.elapsed() < PATIENCE, "{title}: its VM does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    ensure!(stories == 3, "{stories} stories");
    Ok(())
}
