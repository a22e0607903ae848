// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes manual pages and completions to a directory: `cargo run -p s2dump --example pages -- DIR`, as `cargo xtask dist` does.
//!
//! An example, so that the libraries for it never get into the binary. All comes from the one definition of the command line.

use clap::Command;
use clap_complete::{generate_to, Shell};
use clap_mangen::Man;
use roff::{roman, Roff};
use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    let Some(dir) = std::env::args_os().nth(1) else {
        return Err(io::Error::other("name a directory: pages DIR"));
    };
    let dir = Path::new(&dir);
    std::fs::create_dir_all(dir)?;
    let mut command = s2dump::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, "s2dump", dir)?;
    }
    // The help of a verb is its page. A page has all options, but the library passes over the text of those that `-h` leaves out.
    let all = |command: Command| command.mut_args(|arg| arg.hide_short_help(false));
    let mut command = all(s2dump::command()).mut_subcommands(all).disable_help_subcommand(true);
    command.build();
    for command in command.get_subcommands().chain([&command]) {
        let page = Man::new(command.clone()).manual("s2dump").source(format!("s2dump {}", env!("CARGO_PKG_VERSION")));
        let mut text = Vec::new();
        write_page(&page, command, &mut text)?;
        std::fs::write(dir.join(page.get_filename()), text)?;
    }
    Ok(())
}

/// Writes a page: as the library does, but with a section of examples, which it leaves out, and the rest of help under a heading
/// that people know.
fn write_page(page: &Man, command: &Command, out: &mut Vec<u8>) -> io::Result<()> {
    page.render_title(out)?;
    page.render_name_section(out)?;
    page.render_synopsis_section(out)?;
    page.render_description_section(out)?;
    page.render_options_section(out)?;
    if command.has_subcommands() {
        page.render_subcommands_section(out)?;
    }
    if let Some(notes) = command.get_after_long_help() {
        let mut roff = Roff::new();
        // Not stretched: legends have their columns by spaces.
        roff.control("SH", ["NOTES"]).control("ad", ["l"]);
        for line in notes.to_string().lines() {
            match line {
                "" => roff.control("PP", []),
                // The text was made to be wrapped, so a line is an item of a list or a paragraph.
                line => roff.control("br", []).text([roman(line)]),
            };
        }
        roff.control("ad", []);
        roff.to_writer(out)?;
    }
    if let Some(examples) = command.get_before_help() {
        let mut roff = Roff::new();
        roff.control("SH", ["EXAMPLES"]).control("nf", []);
        for line in examples.to_string().lines().skip(1) {
            roff.text([roman(line)]);
        }
        roff.control("fi", []).to_writer(out)?;
    }
    Ok(())
}
