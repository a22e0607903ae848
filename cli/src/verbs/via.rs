// SPDX-License-Identifier: MIT OR Apache-2.0
//! A verb for another machine: `s2dump capture` there, the rest here. What only that machine can say, s2dump there says.

use super::capture::{create, output_failed};
use super::{Context, Stop};
use crate::args::via::Via;
use crate::args::Selector;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::plan::input::Input;
use crate::plan::{Output, Plan};
use crate::source::file::FileSource;
use crate::source::SourceError;
use std::cell::Cell;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

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
            let (mut child, from) = start(via, &words)?;
            let source = FileSource::copied(&mut { from }, &via.name);
            let code = end(via, &mut child)?;
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
        There::Same(output) => {
            let (mut child, mut from) = start(via, &same_words(arguments, output.is_some()))?;
            let mut file = match &output {
                Some(output) => create(output)?,
                None => None,
            };
            let copied = match &mut file {
                Some(file) => copy(&mut from, file),
                None => copy(&mut from, &mut *context.out),
            };
            let output = output.unwrap_or(Output::Stdout);
            copied.map_err(|error| output_failed(&output, error))?;
            let code = end(via, &mut child)?;
            file.map_or(Ok(()), |file| file.keep()).map_err(|error| output_failed(&output, error))?;
            Ok(code)
        }
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
        Plan::List { .. } => There::Capture(words("")),
        Plan::Dump(plan) => table(&plan.input),
        Plan::Walk(plan) => table(&plan.input),
        Plan::Capture { output, .. } | Plan::CaptureAll { output, .. } => There::Same(Some(output.clone())),
        Plan::Report(plan) => There::Same(Some(plan.output.clone())),
        Plan::Probe { .. } | Plan::Watch(_) => There::Same(None),
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

fn start(via: &Via, words: &[String]) -> Result<(Child, impl Read), Failure> {
    let fail = |error: io::Error| Failure::io(format_args!("running {}", via.name), &error);
    // What it says for people goes where ours does.
    let mut command = Command::new("sh");
    command.args(["-c", &via.line(words)]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(fail)?;
    let from = child.stdout.take().ok_or_else(|| fail(io::ErrorKind::BrokenPipe.into()))?;
    Ok((child, from))
}

/// Waits for the end; an exit code that s2dump has and that goes with output is returned.
fn end(via: &Via, child: &mut Child) -> Result<ExitCode, Failure> {
    let status = child.wait().map_err(|error| Failure::io(format_args!("waiting for {}", via.name), &error))?;
    let failed = |code, why: &str| Failure::new(code, format_args!("{}: {why}", via.name));
    match status.code() {
        Some(0) => Ok(ExitCode::Ok),
        Some(code) if code == ExitCode::Finding as i32 => Ok(ExitCode::Finding),
        Some(code) if code == ExitCode::Partial as i32 => Ok(ExitCode::Partial),
        Some(code) if NO_PROGRAM.contains(&code) => {
            let hint = format!("copy the static binary there: {}", via.copy);
            Err(failed(ExitCode::UsageOrIo, "s2dump is not there, or cannot be run").hint(hint))
        }
        Some(code) => {
            let known = [ExitCode::UsageOrIo, ExitCode::Unsupported, ExitCode::NoSuchVm, ExitCode::NotPermitted];
            let known = known.into_iter().find(|known| *known as i32 == code);
            Err(failed(known.unwrap_or(ExitCode::UsageOrIo), &format!("failed with exit code {code}")))
        }
        None => Err(failed(ExitCode::UsageOrIo, &status.to_string())),
    }
}

/// Copies as it comes.
fn copy(from: &mut impl Read, to: &mut dyn Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            bytes => {
                to.write_all(buffer.get(..bytes).unwrap_or_default())?;
                to.flush()?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::same_words;
    use std::ffi::OsString;

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
