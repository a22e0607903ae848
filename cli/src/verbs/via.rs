// SPDX-License-Identifier: MIT OR Apache-2.0
//! A verb for another machine: `s2dump capture` there, the rest here. What only that machine can say, s2dump there says.

use super::capture::{check_output, create, interrupted, output_failed};
use super::{machine, Context, Stop};
use crate::args::via::Via;
use crate::args::Selector;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::plan::input::Input;
use crate::plan::{Output, Plan};
use crate::source::file::{FileSource, REPORT};
use crate::source::interrupts::{self, Interruptible};
use crate::source::output_file::OutputFile;
use crate::source::SourceError;
use s2dump_abi::slot::SLOT_MAGIC;
use std::cell::Cell;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// What shells answer when there is no such program, or it cannot be run.
const NO_PROGRAM: [i32; 2] = [126, 127];
/// What comes at once.
const BUFFER_BYTES: usize = 1 << 16;

/// What the other machine is asked.
enum There {
    /// A capture, with these words, which is read here.
    Capture(Vec<String>),
    /// What was typed; its output is what is wanted, or goes to a file.
    Same(Option<Output>),
}

/// Does what `plan`, made of `arguments`, says, of the machine that `via` leads to.
pub(crate) fn run(via: &Via, plan: Plan, arguments: &[OsString], context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    match there(&plan) {
        There::Capture(words) => {
            let mut far = Far::start(via, &words)?;
            let first = far.read().map_err(Stop::Output)?.unwrap_or_default().to_vec();
            // Whatever else comes may never end.
            if !first.is_empty() && !begins_capture(&first) {
                return Err(far.failed(ExitCode::UsageOrIo, "what comes is no capture").into());
            }
            let source = FileSource::copied(&mut first.chain(&mut far.from), &via.name);
            let code = far.end()?;
            let source = Cell::new(Some(source.map_err(|error| error.into_failure("capture"))?));
            let open_here = context.open_capture;
            let open = |path: &Path| match path.as_os_str() == via.name.as_str() {
                true => {
                    source.take().ok_or_else(|| SourceError::File(via.name.clone(), io::ErrorKind::NotFound.into()))
                }
                false => open_here(path),
            };
            let mut context =
                Context { out: &mut *context.out, err: &mut *context.err, open_capture: &open, ..*context };
            Ok(super::run(&plan, &mut context)?.max(code))
        }
        There::Same(None) => {
            let mut far = Far::start(via, &same_words(arguments, false))?;
            loop {
                // Nobody reads. A watch there that has nothing to say would never learn that: dropping `far` ends it.
                if interrupts::wait_to_copy(&far.from.0) {
                    return Ok(ExitCode::Ok);
                }
                let read = far.read();
                if interrupts::came() {
                    return Err(machine::interrupted("what was shown is what came until then").into());
                }
                let Some(bytes) = read.map_err(Stop::Output)? else { break };
                // The program there sees no terminal, and has nothing to control.
                if context.out_is_terminal {
                    bytes.iter_mut().for_each(|byte| *byte = harmless(*byte));
                }
                context.out.write_all(bytes).and_then(|()| context.out.flush()).map_err(Stop::Output)?;
            }
            Ok(far.end()?)
        }
        There::Same(Some(output)) => {
            check_output(&output, context)?;
            let mut far = Far::start(via, &same_words(arguments, true))?;
            let mut file = create(&output)?;
            let mut is_begun = false;
            loop {
                let read = far.read();
                if interrupts::came() {
                    return Err(interrupted(file.as_ref()).into());
                }
                let Some(bytes) = read.map_err(|error| output_failed(&output, error))? else { break };
                // Whatever shells say of themselves is not to take the place of a file.
                if !is_begun && !begins_capture(bytes) {
                    return Err(far.failed(ExitCode::UsageOrIo, "what comes is no capture").into());
                }
                is_begun = true;
                let written = match &mut file {
                    Some(file) => file.write_all(bytes),
                    None => context.out.write_all(bytes),
                };
                written.map_err(|error| output_failed(&output, error))?;
            }
            let code = far.end()?;
            if !is_begun {
                return Err(far.failed(ExitCode::UsageOrIo, "nothing comes").into());
            }
            file.map_or(Ok(()), OutputFile::keep).map_err(|error| output_failed(&output, error))?;
            Ok(code)
        }
    }
}

/// Returns whether a capture or a report begins so; there may be few bytes.
fn begins_capture(bytes: &[u8]) -> bool {
    let begins = |with: &[u8]| bytes.starts_with(with) || with.starts_with(bytes);
    begins(&SLOT_MAGIC.to_le_bytes()) || begins(REPORT.as_bytes())
}

/// Returns a byte of text as a terminal may have it. What this program says is ASCII; names of processes and files may be not.
fn harmless(byte: u8) -> u8 {
    match byte {
        b'\n' | b'\t' | b' '..=b'~' => byte,
        _ => b'?',
    }
}

/// Decides what to ask.
fn there(plan: &Plan) -> There {
    let table = |input: &Input| match input {
        Input::Capture(_, Some(Selector::All)) => There::Capture(words("--all")),
        Input::Capture(_, Some(selector)) => There::Capture(words(&selector.to_string())),
        // The VMs: which of them is meant, if one is, is decided here.
        _ => There::Capture(words("")),
    };
    match plan {
        Plan::Dump(plan) => table(&plan.input),
        Plan::Walk(plan) => table(&plan.input),
        Plan::Capture { output, .. } | Plan::CaptureAll { output, .. } => There::Same(Some(output.clone())),
        Plan::Report(plan) => There::Same(Some(plan.output.clone())),
        // A list names processes, which no capture does.
        Plan::List { .. } | Plan::Probe { .. } | Plan::Version { .. } | Plan::Watch(_) => There::Same(None),
        _ => There::Capture(words("--all")),
    }
}

fn words(what: &str) -> Vec<String> {
    ["capture", what, "-O", "-"].into_iter().filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Returns the words of `arguments` for s2dump there: not where it is, and with its output to us.
fn same_words(arguments: &[OsString], has_output: bool) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut skip = false;
    for word in arguments.iter().skip(1).map(|word| word.to_string_lossy()) {
        let is_option = |long: &str, short: &str| {
            word == long
                || word == short
                || word.starts_with(&format!("{long}="))
                || !short.is_empty() && word.starts_with(short)
        };
        if skip {
            skip = false;
        } else if is_option("--via", "\0") || has_output && is_option("--output", "-O") {
            skip = ["--via", "--output", "-O"].contains(&&*word);
        } else {
            words.push(word.into_owned());
        }
    }
    if has_output {
        words.extend(["-O".to_owned(), "-".to_owned()]);
    }
    words
}

/// s2dump on the other machine, and what it writes. It is ended with this.
struct Far<'a> {
    via: &'a Via,
    child: Child,
    from: Interruptible<ChildStdout>,
    buffer: Vec<u8>,
}

impl<'a> Far<'a> {
    /// Starts it. What it says for people goes where ours does.
    fn start(via: &'a Via, words: &[String]) -> Result<Self, Failure> {
        let fail = |error: io::Error| Failure::io(format_args!("running {}", via.name), &error);
        let mut command = Command::new("sh");
        command.args(["-c", &via.line(words)]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = interrupts::spawn(&mut command).map_err(fail)?;
        let from = child.stdout.take().ok_or_else(|| fail(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { via, child, from: Interruptible(from), buffer: vec![0; BUFFER_BYTES] })
    }

    /// Returns what came, or `None` at the end.
    fn read(&mut self) -> io::Result<Option<&mut [u8]>> {
        let bytes = self.from.read(&mut self.buffer)?;
        Ok(self.buffer.get_mut(..bytes).filter(|bytes| !bytes.is_empty()))
    }

    fn failed(&self, code: ExitCode, why: &str) -> Failure {
        Failure::new(code, format_args!("{}: {why}", self.via.name))
    }

    /// Waits for the end. Of the exit codes those are no failures that go with output.
    fn end(&mut self) -> Result<ExitCode, Failure> {
        let waited = self.child.wait();
        let status = waited.map_err(|error| Failure::io(format_args!("waiting for {}", self.via.name), &error))?;
        match status.code() {
            // The other end of a connection ends with ours.
            _ if interrupts::came() => Err(machine::interrupted("what came is not all")),
            Some(0) => Ok(ExitCode::Ok),
            Some(code) if code == ExitCode::Partial as i32 => Ok(ExitCode::Partial),
            Some(code) if NO_PROGRAM.contains(&code) => {
                let hint = format!("copy the static binary there, {}", self.via.copy);
                let why = "s2dump is not there or cannot be run, or this machine has no such command";
                Err(self.failed(ExitCode::UsageOrIo, why).hint(hint))
            }
            Some(code) => {
                let known = [ExitCode::UsageOrIo, ExitCode::Unsupported, ExitCode::NoSuchVm, ExitCode::NotPermitted];
                let known = known.into_iter().find(|known| *known as i32 == code);
                Err(self.failed(known.unwrap_or(ExitCode::UsageOrIo), &format!("failed with exit code {code}")))
            }
            None => Err(self.failed(ExitCode::UsageOrIo, &status.to_string())),
        }
    }
}

impl Drop for Far<'_> {
    fn drop(&mut self) {
        // It has ended already, if all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::{begins_capture, harmless, same_words};
    use std::ffi::OsString;

    #[test]
    fn what_comes_is_looked_at() {
        assert!([&b"s2dump rep"[..], b"s2dump report, bytes of text: 12"].into_iter().all(begins_capture));
        assert!(![&b"y\ny\n"[..], b"\0\0\0\0", b"s2dump: off"].into_iter().any(begins_capture));
        let line: Vec<u8> = b"vm 42\t\x1b[2J\xc2\x9b\r\n".iter().copied().map(harmless).collect();
        assert_eq!(line, b"vm 42\t?[2J???\n");
    }

    #[test]
    fn what_was_typed_is_said_there() {
        let said = |line: &str, has_output| {
            let arguments: Vec<OsString> = line.split(' ').map(Into::into).collect();
            same_words(&arguments, has_output).join(" ")
        };
        assert_eq!(said("s2dump --via adb watch --count 3", false), "watch --count 3");
        assert_eq!(said("s2dump watch --via=adb host", false), "watch host");
        for output in ["-O x", "-Ox", "--output x", "--output=x"] {
            let line = format!("s2dump capture {output} --all --via adb");
            assert_eq!(said(&line, true), "capture --all -O -");
        }
    }
}
