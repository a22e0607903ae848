// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each command of `docs/tutorial.md`, run in a shell, says what stands there.
//!
//! A story (a heading with its blocks) is one shell, in a directory of its own. Words must be the same, but for physical
//! addresses, process numbers and times; of these two that are the same in the text are the same here. Space between words does
//! not count.

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
    fn start(story: usize) -> Result<Self> {
        let directory = format!("/tmp/story-{story}");
        std::fs::create_dir_all(&directory)?;
        let mut command = Command::new("sh");
        command.args(["-c", "exec sh 2>&1"]).current_dir(directory).process_group(0);
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

/// Which words of the text stand for which others here.
#[derive(Default)]
struct Words(BTreeMap<String, String>);

impl Words {
    /// Returns whether `here` is what `there`, in the text, stands for.
    fn fit(&mut self, there: &str, here: &str) -> bool {
        there == here
            || kind(there).is_some_and(|kind_there| {
                Some(kind_there) == kind(here)
                    && (kind_there == Kind::Time || self.0.entry(there.into()).or_insert(here.into()) == here)
            })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// An address of the machine's memory, or one that a process has.
    Address,
    /// Of a process.
    Number,
    /// A time, or a size in bytes of a file, which has times in it.
    Time,
}

/// Returns of which kind a word is that may differ.
fn kind(word: &str) -> Option<Kind> {
    if let Some(hex) = word.strip_prefix("0x") {
        let address = u64::from_str_radix(hex, 16).ok()?;
        // RAM of QEMU's machine; where processes have memory.
        let is_other = (0x4000_0000..0x8000_0000).contains(&address) || (1 << 36..1 << 48).contains(&address);
        return is_other.then_some(Kind::Address);
    }
    if word.parse::<f64>().is_ok() && word.contains('.') || word.ends_with("us") {
        return Some(Kind::Time);
    }
    // A process, or a line number of busybox.
    (word.len() >= 2 && word.bytes().all(|byte| byte.is_ascii_digit())).then_some(Kind::Number)
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_ascii_alphanumeric() || "._%/".contains(c))).filter(|word| !word.is_empty())
}

fn tutorial_says_what_happens(machine: &Machine) -> Outcome {
    if machine.flavor != Flavor::Mainline || page_bytes() != 4096 {
        return Err(Ignored("the tutorial is about mainline, with pages of 4 KiB".into()).into());
    }
    let mut stories = 0;
    for (number, story) in TUTORIAL.split("\n## ").enumerate().skip(1) {
        let title = story.lines().next().unwrap_or_default();
        let blocks = story.split("```console\n").skip(1).map(|block| block.split("```").next().unwrap_or_default());
        let text: String = blocks.collect();
        if text.is_empty() {
            continue;
        }
        let mut shell = Shell::start(number)?;
        let mut known = Words::default();
        for piece in text.strip_prefix("$ ").with_context(|| format!("{title}: no command"))?.split("\n$ ") {
            let (command, expected) = piece.split_once('\n').unwrap_or((piece, ""));
            let said = shell.run(command).with_context(|| format!("{title}: {command}"))?;
            let expected: Vec<&str> = expected.lines().filter(|line| !line.trim().is_empty()).collect();
            let heard: Vec<&str> = said.iter().map(String::as_str).filter(|line| !line.trim().is_empty()).collect();
            let is_same = expected.len() == heard.len()
                && expected.iter().zip(&heard).all(|(there, here)| {
                    let (there, here): (Vec<_>, Vec<_>) = (words(there).collect(), words(here).collect());
                    there.len() == here.len() && there.iter().zip(here).all(|(there, here)| known.fit(there, here))
                });
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
