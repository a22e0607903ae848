// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arguments of the verbs that look at a whole machine.

use super::image::Image;
use super::rows::{self, Rows};
use super::Selector;
use crate::filter::{FRAME_STATES, STATES, TABLE};
use crate::numbers::{parse_range, AddressRange};
use clap::Args;
use std::path::PathBuf;

const RMAP_HELP: &str = "\
The exit code is 6 if a table could not be read, because then what maps the page is not all known: without
kvm-arm.s2dump=on,hyp that is EL2's own.
With --ram one table is looked in, the one of the registers: where it maps the memory, and which of its table pages are there.
An image does not tell where the other tables are, nor the states of page frames. For several tables, ask once for each.
--level chooses entries and table pages, --rights pages and blocks, --owner the host's entries: frames pass none of the three.

Examples:
  s2dump rmap 0x48a1_2000
  s2dump rmap 0x4000_0000+2M --json
  s2dump rmap 1G+2G --rights .wx
  s2dump rmap 1G+2G --state table --summary
  s2dump rmap -i machine.s2d 0x48a1_2000
  s2dump rmap --ram ram.bin@0x4000_0000 --vtcr 0x80023558 --vttbr 0x1000041000000 0x48a1_2000";

const OF_USES: &str = "\
Only uses with one of these states or annotations: table (a table page), the words of dump, or those of frames, of the host \
or of the hypervisor";

const USES_SUMMARY: &str = "Leave out the uses: only how many there are of each table and state, and of how many bytes";

/// Arguments of `rmap`.
#[derive(Args, Debug)]
#[command(after_help = RMAP_HELP)]
#[command(mut_arg("states", |arg| rows::states(arg, &[&[TABLE], &STATES, &FRAME_STATES], OF_USES)))]
#[command(mut_arg("summary", |arg| arg.help(USES_SUMMARY)))]
pub(crate) struct Rmap {
    /// The physical address, or a range of them, as for --range of dump.
    #[arg(value_parser = parse_range, value_name = "PA|RANGE")]
    pub(crate) span: AddressRange,
    /// Read a capture (a file or a pipe, made by capture --all) instead of the device; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Which uses.
    #[command(flatten)]
    pub(crate) rows: Rows,
    /// Print one JSON object; errors are JSON too, on standard error.
    #[arg(long)]
    pub(crate) json: bool,
    /// In place of the device.
    #[command(flatten)]
    pub(crate) image: Image,
}

const AUDIT_HELP: &str = "\
What looks wrong is looked at again, at one moment at EL2, before it is a finding. What cannot be is unsettled: counted, and
no finding. A capture of capture --all holds the second looks.
The exit code is 1 if there is a finding, 6 if there is none but a rule could not be asked or a guest not be read, else 0.

Examples:
  s2dump audit
  s2dump audit --list
  s2dump audit --except hyp-mapping --except frame-pinned
  s2dump audit -i machine.s2d --rule owned-donated --json";

/// Arguments of `audit`.
#[derive(Args, Debug)]
#[command(after_help = AUDIT_HELP)]
pub(crate) struct Audit {
    /// Read a capture (a file or a pipe, made by capture --all) instead of the device; `-` is standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "list")]
    pub(crate) input: Option<PathBuf>,
    /// Ask only this rule; may be given several times.
    #[arg(long, value_name = "RULE", value_delimiter = ',', conflicts_with = "except")]
    pub(crate) rule: Vec<String>,
    /// Do not ask this rule; may be given several times.
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    pub(crate) except: Vec<String>,
    /// List the rules, each with a line of what holds.
    #[arg(long)]
    pub(crate) list: bool,
    /// Print JSON, one object in each line; errors are JSON too, on standard error.
    #[arg(long)]
    pub(crate) json: bool,
}

const DIFF_HELP: &str = "\
A line that begins with - is what was said first, one with + what is said now. That a block became pages that say the same is no
difference, and neither are references of page frames. Slots of EL2's fixmap, which name any page for a moment, and pages that
s2dump shares with EL2 while it reads are left out, and a note tells how many ranges that were. Of the host's table, identity
leaves come and go with its accesses; they are told, because the table did change.
Filters choose changes of which the old or the new side fits; of page frames only --state can. --state hole is what was added
or removed.
The exit code is 0 if the two say the same, 1 if not, as of diff(1), and 6 if a table could not be compared. With filters, what
does not pass them is no difference.

Examples:
  s2dump diff before.s2d after.s2d
  s2dump diff before.s2d after.s2d --state shared-owned,shared-borrowed
  s2dump diff before.s2d after.s2d --summary
  s2dump diff before.s2d --live host
  s2dump diff --live vm:0x1000 --wait 10";

const OF_CHANGES: &str = "\
Only changes from or to one of these states or annotations: the words of dump (hole: of nothing), or those of frames, of the \
host or of the hypervisor";

const CHANGES_SUMMARY: &str = "\
Leave out the changes: only how many ranges were added, removed or changed, and in what, in each table, and of how many bytes";

/// Arguments of `diff`.
#[derive(Args, Debug)]
#[command(after_help = DIFF_HELP)]
#[command(mut_arg("states", |arg| rows::states(arg, &[&STATES, &FRAME_STATES], OF_CHANGES)))]
#[command(mut_arg("summary", |arg| arg.help(CHANGES_SUMMARY)))]
pub(crate) struct Diff {
    /// The capture that was made first.
    pub(crate) old: Option<PathBuf>,
    /// The capture that was made later.
    #[arg(conflicts_with = "live")]
    pub(crate) new: Option<PathBuf>,
    /// Compare with this table of the machine now (host, hyp, vm:0x1000, ..., or all); without a capture, now and then.
    #[arg(long, value_name = "TARGET")]
    pub(crate) live: Option<Selector>,
    /// Seconds between two readings of the machine.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, requires = "live")]
    pub(crate) wait: u32,
    /// Which changes.
    #[command(flatten)]
    pub(crate) rows: Rows,
    /// Print JSON, one object in each line; errors are JSON too, on standard error.
    #[arg(long)]
    pub(crate) json: bool,
}
