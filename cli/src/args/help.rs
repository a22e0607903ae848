// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shape of help: examples first, `-h` short, `--help` with all, both as wide as the terminal.
//!
//! Each verb has its text in one piece beside its arguments; what is in it for whom is decided here.

use super::Cli;
use clap::error::{ContextKind, ErrorKind};
use clap::{Command, CommandFactory, FromArgMatches};
use std::ffi::OsString;

/// Begins what only a few need to know of a verb: `-h` ends there.
pub(super) const MORE: &str = "More:\n";

const EXAMPLES: &str = "Examples:\n";

const TEMPLATE: &str = "{about-with-newline}\n{usage-heading} {usage}\n\n{before-help}{all-args}{after-help}";

/// Options that `--help` tells and `-h` does not: for special needs, or about a table in an image.
const SELDOM_USED: [&str; 34] = [
    "via",
    "fold",
    "verify",
    "atomic",
    "budget",
    "columns",
    "color",
    "no_pager",
    "ram",
    "vtcr",
    "vttbr",
    "tcr",
    "ttbr0",
    "e2h",
    "wxn",
    "fwb",
    "xnx",
    "mte_perm",
    "pa_bits",
    "encoding",
    "stage",
    "lpa2",
    "lpa",
    "s2pie",
    "s2poe",
    "assured_only",
    "pbha",
    "aie",
    "rights",
    "owners",
    "except",
    "no_headings",
    "wait",
    "levels",
];

/// Reads a command line.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches_from(arguments).and_then(|matches| Cli::from_arg_matches(&matches));
    matches.map_err(|mut error| {
        if error.kind() == ErrorKind::UnknownArgument {
            // That a mistyped option should be a value, behind `--`: no value of ours begins with a dash.
            error.remove(ContextKind::Suggested);
        }
        error
    })
}

/// Returns the definition of the command line, with help in shape.
pub(crate) fn command() -> Command {
    shape(Cli::command()).mut_subcommands(|verb| {
        let name = verb.get_name().to_owned();
        let verb = shape(verb);
        verb.mut_args(|arg| {
            // Without two of these nothing can be decoded, and the last is what a report is about.
            let is_needed =
                matches!((&*name, arg.get_id().as_str()), ("decode", "vtcr" | "tcr") | ("report", "budget"));
            let is_seldom = SELDOM_USED.contains(&arg.get_id().as_str()) && !is_needed;
            arg.hide_short_help(is_seldom)
        })
    })
}

/// Puts the examples of a text before the options, and what most need behind them.
fn shape(command: Command) -> Command {
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (text, examples) = text.split_once(EXAMPLES).unwrap_or((&text, ""));
    let (short, more) = text.split_once(MORE).unwrap_or(("", text));
    let examples = if examples.is_empty() { String::new() } else { format!("{EXAMPLES}{}", examples.trim_end()) };
    let long = [short, more].map(|part| flow(part.trim_end())).join("\n\n").trim().to_owned();
    let command = command.help_template(TEMPLATE).after_help(flow(short.trim_end())).after_long_help(long);
    if examples.is_empty() {
        command
    } else {
        command.before_help(examples)
    }
}

/// Joins the lines of paragraphs and of list items, so that they are wrapped where the terminal ends and not where the source did.
fn flow(text: &str) -> String {
    let mut flowed = String::new();
    let (mut may_join, mut is_list) = (false, false);
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        // A line of a list begins with two spaces, and goes on with more than nine.
        let goes_on = if is_list { indent > 9 } else { indent == 0 };
        is_list = if goes_on { is_list } else { indent > 0 };
        if may_join && goes_on && !line.is_empty() {
            flowed.push(' ');
            flowed.push_str(line.trim_start());
        } else {
            if !flowed.is_empty() {
                flowed.push('\n');
            }
            flowed.push_str(line);
        }
        may_join = !line.is_empty() && !line.ends_with(':');
    }
    flowed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> String {
        let arguments: Vec<OsString> = line.split(' ').map(Into::into).collect();
        parse(&arguments).unwrap_err().to_string()
    }

    #[test]
    fn clap_accepts_the_shape() {
        command().debug_assert();
    }

    #[test]
    fn usual_spellings_of_help_work() {
        assert_eq!(told("s2dump help dump"), told("s2dump dump --help"));
        assert_eq!(told("s2dump help version"), told("s2dump version --help"));
        assert!(told("s2dump help").contains(EXAMPLES));
    }

    #[test]
    fn a_mistyped_option_is_no_value() {
        let told = told("s2dump dump --diff");
        assert!(told.contains("unexpected argument '--diff' found") && !told.contains("-- --diff"), "{told}");
    }

    #[test]
    fn short_help_is_short_and_examples_are_first() {
        for verb in command().get_subcommands() {
            let (name, mut verb) = (verb.get_name().to_owned(), verb.clone());
            let short = verb.render_help().to_string();
            assert!(short.lines().count() <= 48, "{name}: {}", short.lines().count());
            match short.find(EXAMPLES) {
                Some(examples) => assert!(examples < short.find("Options:").unwrap(), "{name}"),
                None => assert_eq!(name, "version", "has no example"),
            }
        }
    }

    /// What a shell does not make something else of.
    #[test]
    fn examples_are_command_lines() {
        let mut count = 0;
        for verb in command().get_subcommands() {
            for example in
                verb.clone().render_help().to_string().lines().filter_map(|line| line.strip_prefix("  s2dump "))
            {
                let example = example.split(['#', '|', '>', '&']).next().unwrap();
                if example.contains(['\'', '"', '<', '$']) {
                    continue;
                }
                let words = ["s2dump"].into_iter().chain(example.split_whitespace());
                let read = parse(&words.map(Into::into).collect::<Vec<_>>());
                assert!(read.is_ok(), "{example}: {}", read.unwrap_err());
                count += 1;
            }
        }
        assert!(count > 40, "{count}");
    }

    #[test]
    fn options_that_are_hidden_exist() {
        let ids: Vec<String> = command()
            .get_subcommands()
            .flat_map(|verb| verb.get_arguments().map(|arg| arg.get_id().to_string()).collect::<Vec<_>>())
            .chain(["color".into(), "no_pager".into(), "via".into()])
            .collect();
        for id in SELDOM_USED {
            assert!(ids.iter().any(|known| known == id), "{id}");
        }
    }

    #[test]
    fn paragraphs_flow() {
        assert_eq!(flow("One\ntwo.\n\nThree:\n  a  b\n            c\n  d"), "One two.\n\nThree:\n  a  b c\n  d");
    }
}
