// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arguments of `map`.

use clap::Args;
use std::path::PathBuf;

const HELP: &str = "\
The page is one file that loads nothing: open it in any browser, send it, attach it to a bug. Physical memory is on the left,
the input addresses of EL2 and of each guest beside it. Pointing at a place shows it in every tree; keys and search are told
in the page. It shows no contents of memory, but addresses: who may read the tables may read it.
The exit code is 6 if a table could not be read: without kvm-arm.s2dump=on,hyp that is EL2's own.

Examples:
  s2dump map -O machine.html
  s2dump map -i machine.s2d -O machine.html
  s2dump map -i after.s2d --since before.s2d -O changes.html
  s2dump map -i machine.s2d --svg -O machine.svg";

/// Arguments of `map`.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Map {
    /// Read a capture (a file or a pipe, made by capture --all) instead of the device; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Mark what changed since this capture.
    #[arg(long, value_name = "FILE")]
    pub(crate) since: Option<PathBuf>,
    /// Write a picture for documents instead of a page.
    #[arg(long)]
    pub(crate) svg: bool,
    /// The file to write, as of capture; `-` is standard output.
    #[arg(short = 'O', long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}
