// SPDX-License-Identifier: MIT OR Apache-2.0
//! Output through a pager, as git has it: only on a terminal, by $S2DUMP_PAGER, $PAGER or `less`, which ends by itself if all fits
//! the screen. Where there is none, as on most devices, output goes to the terminal.
//!
//! The pager begins with the first byte of output. What goes to standard error is held until it ends, because the screen is its own.

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::source::interrupts;
use std::cell::Cell;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

/// The sizes of buffers for standard output.
const BUFFER_BYTES: usize = 1 << 16;
const TERMINAL_BUFFER_BYTES: usize = 4096;

/// What a shell answers if it cannot run a program, or finds none (POSIX.1-2024, Shell Command Language, 2.8.2).
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// What goes to standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Screen {
    /// What needs no care.
    Plain,
    /// Rows, maybe colored.
    Rows,
    /// Rows through a pager.
    Paged,
}

/// Standard output, or a pager that is written to in its place.
pub(crate) struct PagedOutput<'a> {
    /// What is wanted, which counts when the first byte is written.
    wanted: &'a Cell<Screen>,
    to: Option<To>,
}

enum To {
    Stdout(BufWriter<io::StdoutLock<'static>>),
    Pager(Pager),
}

struct Pager {
    child: Child,
    pipe: BufWriter<std::process::ChildStdin>,
    /// What a shell was told to run, if one was.
    line: Option<String>,
}

impl<'a> PagedOutput<'a> {
    /// Writes as is `wanted` when the first byte comes.
    pub(crate) fn new(wanted: &'a Cell<Screen>) -> Self {
        Self { wanted, to: None }
    }

    fn to(&mut self) -> &mut dyn Write {
        let to =
            self.to.get_or_insert_with(|| match (self.wanted.get() == Screen::Paged).then(Pager::start).flatten() {
                Some(pager) => To::Pager(pager),
                None => {
                    let is_rows = self.wanted.get() != Screen::Plain;
                    self.wanted.set(Screen::Plain);
                    let stdout = io::stdout();
                    let mut buffer_bytes = BUFFER_BYTES;
                    if is_rows && stdout.is_terminal() {
                        // Another handle: the usual one is locked by whoever writes rows.
                        if let Ok(terminal) = stdout.as_fd().try_clone_to_owned() {
                            interrupts::reset_at_end(terminal.into());
                        }
                        // What an interrupt waits for is short on a slow line too.
                        buffer_bytes = TERMINAL_BUFFER_BYTES;
                    }
                    To::Stdout(BufWriter::with_capacity(buffer_bytes, stdout.lock()))
                }
            });
        match to {
            To::Stdout(stdout) => stdout,
            To::Pager(pager) => &mut pager.pipe,
        }
    }

    /// Ends the output, and waits until the user has left the pager.
    ///
    /// # Errors
    ///
    /// If a shell found no such pager, so that nobody has seen what was written.
    pub(crate) fn end(self) -> Result<(), Failure> {
        let Some(To::Pager(Pager { mut child, pipe, line })) = self.to else { return Ok(()) };
        drop(pipe);
        // Otherwise its exit code says nothing about what was written.
        let code = child.wait().ok().and_then(|status| status.code());
        match (line, code) {
            (Some(line), Some(NOT_EXECUTABLE | NOT_FOUND)) => {
                let message = format_args!("the pager did not run, and what it was given is lost: {line}");
                Err(Failure::new(ExitCode::UsageOrIo, message).hint("set S2DUMP_PAGER or PAGER, or use --no-pager"))
            }
            _ => Ok(()),
        }
    }
}

impl Write for PagedOutput<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            // A pager that is not wanted any more is a closed pipe.
            Some(_) => self.to().flush(),
            None => Ok(()),
        }
    }
}

/// The command of a pager.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    /// The program that the user said, if it is there.
    Program(String),
    /// What the user said, for a shell.
    Shell(String),
    /// The usual one, if it is there.
    Less,
    None,
}

/// Chooses a pager by the environment.
fn choose(variable: impl Fn(&str) -> Option<String>) -> Choice {
    let is_dumb = variable("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    let said = ["S2DUMP_PAGER", "PAGER"].into_iter().find_map(variable).map(|said| said.trim().to_owned());
    match said {
        Some(command) if command.is_empty() || command == "cat" => Choice::None,
        // A shell makes nothing else of such a word, and whether it is there is known before anything is written.
        Some(word) if word.chars().all(|c| c.is_ascii_alphanumeric() || "/._+-".contains(c)) => Choice::Program(word),
        Some(line) => Choice::Shell(line),
        None if is_dumb => Choice::None,
        None => Choice::Less,
    }
}

impl Pager {
    fn start() -> Option<Self> {
        let choice = choose(|name| std::env::var(name).ok());
        let mut command = match &choice {
            Choice::Program(program) => Command::new(program),
            Choice::Shell(line) => {
                let mut command = Command::new("sh");
                command.args(["-c", line]);
                command
            }
            Choice::Less => Command::new("less"),
            Choice::None => return None,
        };
        if std::env::var_os("LESS").is_none() {
            // By the environment, because not every less knows these options; one that does not ignores them here.
            command.env("LESS", "FRX");
        }
        let mut child = match (interrupts::spawn(command.stdin(Stdio::piped())), &choice) {
            (Ok(child), _) => child,
            (Err(error), Choice::Program(said) | Choice::Shell(said)) => {
                // The rows follow. Nothing can be done when standard error is gone.
                let _ = writeln!(io::stderr(), "s2dump: no pager: {said}: {error}");
                return None;
            }
            // Nobody asked for it.
            (Err(_), Choice::Less | Choice::None) => return None,
        };
        let pipe = BufWriter::with_capacity(BUFFER_BYTES, child.stdin.take()?);
        // Ctrl-C is for the pager, which goes on. Who leaves it closes the pipe, which ends the program.
        interrupts::leave_to_pager();
        let line = if let Choice::Shell(line) = choice { Some(line) } else { None };
        Some(Self { child, pipe, line })
    }
}

/// Standard error, held while a pager has the screen.
pub(crate) struct HeldErrors<'a> {
    /// Whether there is a pager.
    pub(crate) held: &'a Cell<Screen>,
    /// What was written meanwhile.
    pub(crate) bytes: Vec<u8>,
}

impl Write for HeldErrors<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.held.get() {
            Screen::Paged => self.bytes.write(bytes),
            Screen::Plain | Screen::Rows => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pagers_are_chosen_as_git_does() {
        let choice = |set: &[(&str, &str)]| {
            choose(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(choice(&[("TERM", "xterm")]), Choice::Less);
        assert_eq!(choice(&[("TERM", "dumb")]), Choice::None);
        assert_eq!(choice(&[]), Choice::None);
        assert_eq!(choice(&[("TERM", "xterm"), ("PAGER", "more -s")]), Choice::Shell("more -s".into()));
        assert_eq!(choice(&[("TERM", "xterm"), ("PAGER", " /bin/more-1.0 ")]), Choice::Program("/bin/more-1.0".into()));
        assert_eq!(choice(&[("PAGER", "$MORE")]), Choice::Shell("$MORE".into()));
        assert_eq!(choice(&[("PAGER", "more"), ("S2DUMP_PAGER", "")]), Choice::None);
        assert_eq!(choice(&[("TERM", "xterm"), ("PAGER", "cat")]), Choice::None);
    }
}
