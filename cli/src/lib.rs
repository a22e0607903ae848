// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shows the page tables that pKVM keeps from the host.
//!
//! `args` (what was typed) -> `plan` (what will be done) -> `source` (slots from device or file) -> `reader` (checked
//! rows, and issues) -> `format` (bytes). A table in an image of memory is walked in `source`, which gives its rows.
//! Only `source` touches devices and files; no arrow points back.
//!
//! A program, not a library to build on: [`main`] is all of it, [`run_on_capture`] is for fuzz targets, and [`command`] for
//! what is written from the command line's definition.

mod args;
mod audit;
mod decode;
mod exit_code;
mod failure;
mod filter;
mod format;
mod frame;
mod leaf;
mod machine;
mod map;
mod marks;
mod meaning;
mod merge;
mod model;
mod names;
mod numbers;
mod origin;
mod pager;
mod plan;
mod progress;
mod reader;
mod registers;
mod source;
#[cfg(test)]
mod tests;
mod verbs;
mod words;

use anstream::AutoStream;
use exit_code::ExitCode;
use failure::Failure;
use pager::{HeldErrors, PagedOutput, Screen};
use plan::Plan;
use source::file::FileSource;
use source::{clock, interrupts, system, SourceError};
use std::cell::Cell;
use std::ffi::OsString;
use std::io::{self, Cursor, IsTerminal, Write};
use std::path::Path;
use terminal_size::terminal_size_of;
use verbs::{Context, Stop};

/// The version, and which commit it is of if git told (`build.rs`).
const VERSION: &str = env!("S2DUMP_VERSION");
/// Characters of a line of a terminal that does not tell, as serial consoles do not.
const USUAL_WIDTH: usize = 80;

/// Runs the program with the arguments, streams and devices of this process.
#[must_use]
pub fn main() -> std::process::ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let stdout = io::stdout();
    let out_has_color = AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
    let out_is_terminal = stdout.is_terminal();
    // Where rows appear on the terminal, they show by themselves how far it is.
    let shows_progress = io::stderr().is_terminal() && !out_is_terminal;
    let screen = Cell::new(Screen::Plain);
    let mut out = PagedOutput::new(&screen);
    let mut err = HeldErrors { held: &screen, bytes: Vec::new() };
    let mut context = Context {
        out: &mut out,
        err: &mut err,
        open_session: &verbs::open_real_session,
        open_capture: &FileSource::open,
        out_is_terminal,
        width: out_is_terminal.then(|| terminal_size_of(&stdout).map_or(USUAL_WIDTH, |(width, _)| width.0.into())),
        screen: &screen,
        out_has_color,
        proc: &system::read_proc,
        now: clock::uptime,
        json: false,
        shows_progress,
    };
    // Where that cannot be, signals end the program at once.
    let _ = interrupts::listen(seems_json(&arguments));
    let mut code = run(&arguments, &mut context);
    let json = context.json;
    if let Err(failure) = out.end() {
        // Behind a pager that is gone; held like all that is told meanwhile.
        let _ = failure.report(&mut err.bytes, json);
        code = code.max(failure.code);
    }
    // Nothing can be done when standard error is gone.
    let _ = io::stderr().write_all(&err.bytes);
    interrupts::end();
    code.into()
}

/// Returns the definition of the command line, for what is made of it: manual pages, completions.
#[must_use]
pub fn command() -> clap::Command {
    args::help::command()
}

/// Runs a command line, whose first word is the name of the program, in a world without devices, where every file is
/// `capture`. Standard output goes to `out`. Returns the exit code.
pub fn run_on_capture(arguments: &[&str], capture: &[u8], out: &mut dyn Write) -> u8 {
    let arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
    let open_session = || Err(SourceError::Open(io::ErrorKind::NotFound.into()));
    let open_capture =
        |path: &Path| Ok(FileSource::new(Box::new(Cursor::new(capture.to_vec())), path.display().to_string()));
    let (screen, mut err) = (Cell::new(Screen::Plain), io::sink());
    let mut context = Context::without_terminal(out, &mut err, &open_session, &open_capture, &screen);
    run(&arguments, &mut context) as u8
}

/// Runs the command line `arguments` and returns the exit code.
fn run(arguments: &[OsString], context: &mut Context<'_>) -> ExitCode {
    context.json = seems_json(arguments);
    let mut may_page = context.out_is_terminal;
    let (plan, via) = match args::help::parse(arguments) {
        Ok(mut cli) => {
            may_page &= !cli.no_pager;
            let via = cli.via.take();
            let plan = match &via {
                None => Plan::new(cli),
                Some(via) => via.be_input(&mut cli.verb).and_then(|()| {
                    // What the plan takes for a capture's file is not what was typed.
                    let said = |text: String| text.replace("-i FILE", "--via");
                    Plan::new(cli).map_err(|failure| Failure { message: said(failure.message), ..failure })
                }),
            };
            match plan {
                Ok(plan) => (plan, via),
                Err(failure) => return report(&failure, context),
            }
        }
        Err(error) if !error.use_stderr() => {
            // --help and --version.
            return written(write!(context.out, "{error}").and_then(|()| context.out.flush()), context);
        }
        Err(error) if context.json => {
            let text = error.to_string();
            let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            return report(&Failure::new(ExitCode::UsageOrIo, message), context);
        }
        Err(error) => {
            let _ = write!(context.err, "{error}");
            return ExitCode::UsageOrIo;
        }
    };
    context.json = plan.is_json();
    context.screen.set(match (plan.is_long(), may_page) {
        (false, _) => Screen::Plain,
        (true, false) => Screen::Rows,
        (true, true) => Screen::Paged,
    });
    let result = match via {
        None => verbs::run(&plan, context),
        Some(via) => verbs::via::run(&via, plan, arguments, context),
    };
    let flushed = context.out.flush();
    match result {
        Ok(code) => written(flushed, context).max(code),
        Err(Stop::Failure(failure)) => report(&failure, context),
        Err(Stop::Output(error)) => written(Err(error), context),
    }
}

/// Returns the exit code for the result of writing to standard output. It is no error if the reader stops early.
fn written(result: io::Result<()>, context: &mut Context<'_>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::Ok,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::Ok,
        Err(error) => report(&Failure::io("standard output", &error), context),
    }
}

fn report(failure: &Failure, context: &mut Context<'_>) -> ExitCode {
    // Nothing can be done when standard error is gone.
    let _ = failure.report(context.err, context.json);
    failure.code
}

/// Returns whether arguments ask for JSON, even if they are not right otherwise.
fn seems_json(arguments: &[OsString]) -> bool {
    arguments.iter().filter_map(|argument| argument.to_str()).any(|argument| {
        matches!(
            argument,
            "--json" | "--ndjson" | "json" | "ndjson" | "-fjson" | "-fndjson" | "--format=json" | "--format=ndjson"
        )
    })
}
