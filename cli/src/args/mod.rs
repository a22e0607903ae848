// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was typed: syntax only. Which arguments go together is decided in `plan`.

pub(crate) mod decode;
pub(crate) mod help;
pub(crate) mod image;
pub(crate) mod machine;
pub(crate) mod map;
pub(crate) mod report;
pub(crate) mod rows;
pub(crate) mod via;
pub(crate) mod watch;

use crate::filter::{FRAME_STATES, STATES, TABLE};
use crate::numbers::{self, parse_range, AddressRange};
use clap::{Args, Parser, Subcommand, ValueEnum};
use rows::{Filters, Rows};
use s2dump_abi::target::{Target, END_HANDLE, FIRST_HANDLE};
use std::path::PathBuf;
use std::str::FromStr;

/// Shows the page tables that pKVM keeps from the host.
///
/// Reads tables of guests, of the host and of EL2 itself at EL2 and prints addresses, level, rights, memory type, page state and owner.
#[derive(Parser, Debug)]
#[command(name = "s2dump", version = crate::VERSION, after_help = help())]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
    /// When to use color; auto also honors NO_COLOR, CLICOLOR and TERM.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN", display_order = 900)]
    pub(crate) color: Color,
    /// Ask another machine: 'ssh root@board', adb or adb:SERIAL, or any command that has a shell run its last argument.
    ///
    /// s2dump there captures, and this one decodes. probe, list, watch, capture, report and version run there as a
    /// whole; a file that they write is written here.
    #[arg(long, global = true, value_name = "COMMAND", display_order = 899)]
    pub(crate) via: Option<via::Via>,
    /// Write to the terminal itself, not through $S2DUMP_PAGER, $PAGER or less.
    #[arg(long, global = true, display_order = 901)]
    pub(crate) no_pager: bool,
}

/// What holds for all verbs.
fn help() -> String {
    format!("{}\n\n{EXIT_CODES}\n\n{TOP_EXAMPLES}", numbers::RULE)
}

const TOP_EXAMPLES: &str = "\
Examples:
  s2dump probe                           # is all there? If not, what next?
  s2dump list
  s2dump dump                            # the table of the only VM
  s2dump dump host --state donated       # what the host gave away, and to whom
  s2dump walk 0x1000 0x8000_0000         # a VM's handle, and an input address
  s2dump capture --all -O machine.s2d    # to read anywhere, with -i machine.s2d";

const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 finding (--verify: the table changed; --ram: what was read is no table), 2 usage or I/O,
3 not supported here (kernel, CPU, or too big), 4 no such VM, 5 not permitted, 6 partial (what was printed is not all).";

/// When to use color.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// When standard output is a terminal that supports it.
    Auto,
    /// Also into pipes and files.
    Always,
    /// Never.
    Never,
}

/// A verb and its arguments.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Tell what this kernel and CPU support, and what to do about what is missing.
    #[command(after_help = PROBE_HELP)]
    Probe(Json),
    /// List the VMs that EL2 knows, with handle, debugfs name and pid.
    List(List),
    /// Print the table of a VM, of the host or of EL2, or one in an image of memory.
    Dump(Dump),
    /// Show what pKVM keeps about each page frame: whose it is, and with whom it is shared.
    Frames(Frames),
    /// Add up tables: bytes by level, rights, memory type and state, table pages and their cost, scattered output.
    Stat(Stat),
    /// Show the descriptor of each level for input addresses, and where they go.
    Walk(Walk),
    /// Show every table that maps physical memory, or says whose it is.
    Rmap(machine::Rmap),
    /// Compare two captures, or one with the machine: what was added, removed or changed.
    Diff(machine::Diff),
    /// Print what changes, as it changes.
    Watch(watch::Watch),
    /// Ask whether isolation is intact: what the tables and states of all pages say about each other.
    Audit(machine::Audit),
    /// Draw whose each page of memory is, as a page for a browser or a picture for documents.
    Map(map::Map),
    /// Write the list of VMs and their tables to a file, which -i reads on any machine.
    Capture(Capture),
    /// Write all that a bug report needs to a file, in the time that there is: text first, and a capture that -i reads.
    Report(report::Report),
    /// Explain descriptors from a log or a register dump, bit by bit.
    Decode(decode::Decode),
    /// Tell the version of this program, and of which commit it is.
    Version(Json),
}

const PROBE_HELP: &str = "\
Examples:
  s2dump probe
  s2dump probe --json | jq .next_step";

/// Arguments of `probe` and `version`.
#[derive(Args, Debug)]
pub(crate) struct Json {
    /// Print one JSON object; errors are JSON too, on standard error.
    #[arg(long)]
    pub(crate) json: bool,
}

const LIST_HELP: &str = "\
Examples:
  s2dump list
  s2dump list --size
  s2dump list -i machine.s2d";

/// Arguments of `list`.
#[derive(Args, Debug)]
#[command(after_help = LIST_HELP)]
pub(crate) struct List {
    /// Read a capture (a file or a pipe) instead of the device; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Tell how much each VM has mapped: all tables are read for that.
    #[arg(long)]
    pub(crate) size: bool,
    /// Print one JSON object; errors are JSON too, on standard error.
    #[arg(long)]
    pub(crate) json: bool,
    /// Leave out the heading line.
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) no_headings: bool,
}

/// Arguments of `dump`.
#[derive(Args, Debug)]
#[command(after_help = DUMP_HELP)]
pub(crate) struct Dump {
    /// The table: host, hyp (EL2's own), or of a VM 0x1000 (pKVM handle), 4242 (pid) or 4242-11 (debugfs name), each with or
    /// without vm: before it; all for one after the other. Without one, that of the only VM.
    ///
    /// hyp shows how EL2 lays out its memory, so the kernel must have been booted with kvm-arm.s2dump=on,hyp.
    ///
    /// With -i, also the only table of a capture may be left out. A table does not go with --ram.
    pub(crate) target: Option<Selector>,
    /// Read a capture (a file or a pipe) instead of the device; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Only these input addresses: A..B (without B), A-B (with it, as rows have it), A+LENGTH, A.., ..B, or one.
    ///
    /// See `s2dump --help` for numbers. A range is widened to whole pages. An entry that lies partly in it is shown whole.
    #[arg(long, value_parser = parse_range, value_name = "RANGE")]
    pub(crate) range: Option<AddressRange>,
    /// Join entries that differ only in their output address into one row (the default).
    ///
    /// Rows whose output addresses do not run on say `scattered`, behind the address of the first page.
    #[arg(long, overrides_with = "exact")]
    pub(crate) fold: bool,
    /// Begin a new row also where the output addresses do not run on.
    #[arg(long)]
    pub(crate) exact: bool,
    /// Read the table twice and compare digests of its descriptors; the exit code is 1 if they differ.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Read everything in one call under the table's lock, or fail: at most 65536 descriptors and 124 rows.
    ///
    /// The lock is held all that time, so the kernel must have been booted with kvm-arm.s2dump=on,atomic.
    #[arg(long)]
    pub(crate) atomic: bool,
    /// The most descriptors that EL2 reads in one call [default: as EL2 chooses].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) budget: Option<u32>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = FormatName::Table, value_name = "FORMAT")]
    pub(crate) format: FormatName,
    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// Which rows.
    #[command(flatten)]
    pub(crate) rows: Rows,
    /// Leave out rows where nothing is mapped and nothing is said of why.
    #[arg(long)]
    pub(crate) mapped: bool,
    /// Say what input addresses are: of a guest the memory slot, host virtual address and what is mapped there; else a name.
    ///
    /// Rows end where these do. In the table they are the columns slot, hva and name; --format ptdump has no room for them.
    #[arg(long)]
    pub(crate) names: bool,
    /// Columns of the table format: a list, or +COLUMN,... to add to the usual ones.
    #[arg(short = 'o', long, value_name = "LIST")]
    pub(crate) columns: Option<String>,
    /// Leave out headings and the comment lines around the table.
    #[arg(short, long)]
    pub(crate) no_headings: bool,
    /// In place of the device.
    #[command(flatten)]
    pub(crate) image: image::Image,
}

const DUMP_HELP: &str = "\
States, and who may access such a page:
  owned            only whose table it is; of a protected guest not the host
  shared-owned     whose table it is, which owns it, and who it is shared with
  shared-borrowed  whose table it is, and who owns it and shares it
  poisoned         not the guest any more: the host took the page back
  owner=NAME       only NAME, whom the host gave it (behind @: at what address)
  -                nobody if RWX is - too; else the table's, no state is kept

More:
Columns: range size level rwx memory sh af state out  (usual)
         start end bytes count raw kind contig dbm sw ext other
         slot hva backing name  (of what is there: --names)
  rwx     read, write, execute: x EL1 and EL0, p EL1 only, u EL0 only; pi5 is index 5 into S2PIR_EL2
  out     output address; with ,scattered that of the first page only, because it does not run on through the row; ! says that
          it is beyond the output size
  state   pKVM page state, or what an invalid entry says
  contig  whether contiguous runs are complete: whole; broken! (misaligned, or the entries differ); or unknown (output
          addresses jump, see --exact; the range cuts a run; or hardware sets access flags, HA, which splits a run into rows)
  ext     fields of extensions that are set: fnxs, nt, assured, dirty, pbha=0b0001, po1 (overlay index)
  other   set bits that nothing else shows
  slot    memory slot of KVM that the guest has there; with ,partly there are addresses that are not in it, because no entry is split
  hva     address of the first byte in the process that made the VM
  backing what that process has mapped there: [anon], a file, memfd:NAME, [unmapped]; ? if it is gone or may not be looked at
  name    the same, and for tables of no guest: of the host's what /proc/iomem says; of EL2's linear (its map of memory), in it
          text, data, rodata, bss and ring; vmemmap, private, in it fixmap and fixblock. A blank is shown as _
At stage 2, rwx shows S2AP and XN as they stand; DBM is not counted in. At EL2's stage 1 (--tcr), rwx shows the rights in
force, of EL2 and, after a slash, of EL0: the tables above, WXN, and DBM with HA and HD are counted in. The memory column
then names a byte of MAIR_EL2, and ext also has ns, ng, gp and what the tables above say (nstable, aptable-ro,
aptable-noel0, xntable or uxntable, pxntable).

  state   of the host's pages is kept with their frames (`s2dump frames`), so only what was given away shows here: owner=hyp,
          owner=vm:0x1000@0x80000000 (the guest and its input address, which runs on through the row, unless ,same says
          that all pages name one); of EL2's own table idle, what is left of a leaf. fixmap and fixblock are slots through which
          EL2 looks at any page for a moment, ring is what s2dump shares with EL2 itself (partly-ring: a block that has such)
Android's common kernel (encoding pkvm-android-6.12) says less of the host's pages and more of others: owner=guest (not which,
nor where), owner=protected (a region that was taken from the host at boot or by a module at EL2), tainted (a device that may
be a target of DMA), mmio-guard (a device, says the guest). EL2's leaves tell shared-borrowed and the like; that EL2 owns a page
is not shown, because zero in the same bits says so in EL2's linear map only.

In --format ptdump a page that the host gave away is a hole. The kernel's own text for it would have columns of rights, with an
F for not valid, because bits of the owner stand where rights do: they are no rights, so none are shown. EL2's own table has no
such text.

Examples:
  s2dump dump
  s2dump dump 0x1000 --mapped
  s2dump dump host --range 0x4000_0000+1G
  s2dump dump 0x1000 -o +slot,hva,backing
  s2dump dump 4242 --range 2G+64M --exact -o +raw
  s2dump dump 4242-11 --format ndjson | jq 'select(.state == \"shared-owned\")'
  s2dump dump -i guest.s2d --format ptdump
  s2dump dump --ram ram.bin@0x4000_0000 --vtcr 0x80023558 --vttbr 0x1000041000000 --xnx
  s2dump dump --ram machine.core --vtcr 0x80023558 --vttbr 0x1000041000000 --format ptdump
  s2dump dump vm:0x1000 --verify >/dev/null && echo unchanged";

/// Output formats of `dump`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatName {
    /// For people.
    Table,
    /// As Linux 7.3 prints debugfs stage2_page_tables.
    Ptdump,
    /// As Linux 6.13 to 6.17 printed it; there, X marks what is *not* executable.
    #[value(name = "ptdump-v10")]
    PtdumpV10,
    /// As Android's common kernel android16-6.12 prints it: with the software bits SW0 and SW1, which hold the page state.
    PtdumpAndroid,
    /// One JSON document.
    Json,
    /// One JSON object per line: header, ranges, trailer.
    Ndjson,
}

const STAT_HELP: &str = "\
OF says by what is added up: the level, rights (RWX), memory type and pKVM state of pages and blocks, with their share of what is
mapped; entry: what entries say that map nothing (owners, poison, ...); tables: table pages by their level, the root included.
A run of output addresses is a piece in which both input and output addresses go on, whatever the size of the entries. The more
runs, the more a guest is scattered over memory.

Examples:
  s2dump stat
  s2dump stat vm:0x1000 --range 2G+1G
  s2dump stat host --owner guest
  s2dump stat -i machine.s2d vm:0x1000 --json | jq .scatter";

/// Arguments of `stat`.
#[derive(Args, Debug)]
#[command(after_help = STAT_HELP)]
pub(crate) struct Stat {
    /// The table, as for dump; without one, all of the device or the capture.
    pub(crate) target: Option<Selector>,
    /// Read a capture (a file or a pipe) instead of the device; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Only these input addresses, as for dump.
    #[arg(long, value_parser = parse_range, value_name = "RANGE")]
    pub(crate) range: Option<AddressRange>,
    /// Which rows.
    #[command(flatten)]
    pub(crate) filters: Filters,
    /// The most descriptors that EL2 reads in one call [default: as EL2 chooses].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) budget: Option<u32>,
    /// Print one JSON object for each table; errors are JSON too, on standard error.
    #[arg(long)]
    pub(crate) json: bool,
    /// Leave out headings and the comment lines around the table.
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) no_headings: bool,
    /// In place of the device.
    #[command(flatten)]
    pub(crate) image: image::Image,
}

const FRAMES_HELP: &str = "\
HOST and HYP are the states in which the host and the hypervisor have the frame: owned, shared-owned (shared with another),
shared-borrowed (another's), no-page. A frame that is no page of either is a protected guest's; `s2dump dump host` names it.
On Android (encoding pkvm-android-6.12) HYP is `-`, because EL2's own table tells it, and modules at EL2 may own frames:
module-owned (the host maps it, with rights that a module chose), module-no-page (the host does not).
REFCOUNT counts pins if the frame is shared with the hypervisor; of frames in a pool it is the pool's. ORDER is that of a free
block of a pool, at its first frame; 255 within one. SHARES counts the leaves of ordinary guests. What is nomap is memory of
which pKVM keeps no state. Addresses in no row are no memory.
A frame has no level, no rights and, of itself, no owner: the other filters of dump (--level, --rights, --owner) are refused.

Examples:
  s2dump frames --summary
  s2dump frames --range 0x4000_0000+64M
  s2dump frames -i machine.s2d --state shared-owned";

const OF_FRAMES: &str =
    "Only frames that the host or the hypervisor has in one of these states: words of those columns, unknown, or nomap";

/// Arguments of `frames`.
#[derive(Args, Debug)]
#[command(after_help = FRAMES_HELP)]
#[command(mut_arg("states", |arg| rows::states(arg, &[&FRAME_STATES], OF_FRAMES)))]
#[command(mut_arg("levels", rows::no_level), mut_arg("rights", rows::no_rights), mut_arg("owners", rows::no_owner))]
pub(crate) struct Frames {
    /// Read a capture (a file or a pipe) instead of the device; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Only these physical addresses, as for --range of dump.
    #[arg(long, value_parser = parse_range, value_name = "RANGE")]
    pub(crate) range: Option<AddressRange>,
    /// Which rows.
    #[command(flatten)]
    pub(crate) rows: Rows,
    /// The most frames that EL2 reads in one call [default: as EL2 chooses].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) budget: Option<u32>,
    /// Print one JSON object; errors are JSON too, on standard error.
    #[arg(long)]
    pub(crate) json: bool,
    /// Leave out headings and the comment lines around the table.
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) no_headings: bool,
}

const WALK_HELP: &str = "\
The exit code is 0 also if the address is not mapped or every access to it faults, because that is an answer. It is 6 if
the walk stops where the MMU would go on (at a loop, or at a table that cannot be read), because then none is known.
Filters choose which steps are shown; where the address goes is told in any case.

Examples:
  s2dump walk 0x8000_0000                     # of the only VM
  s2dump walk vm:0x1000 2G 0x8020_1234
  s2dump walk host 0x4000_0000 --summary
  s2dump walk -i machine.s2d hyp 0x4000_0000 --json";

const OF_STEPS: &str = "Only steps with one of these states or annotations: table, or the words of dump";

const STEPS_SUMMARY: &str = "Leave out the steps: only where the address goes";

/// Arguments of `walk`.
#[derive(Args, Debug)]
#[command(after_help = WALK_HELP)]
#[command(mut_arg("states", |arg| rows::states(arg, &[&[TABLE], &STATES], OF_STEPS)))]
#[command(mut_arg("summary", |arg| arg.help(STEPS_SUMMARY)))]
pub(crate) struct Walk {
    /// The table, as for dump, and input addresses: 0x8000_0000 or 2G; see `s2dump --help`.
    ///
    /// The table may be left out as for dump, and does not go with --ram. A first word that is a number names a table if another
    /// word follows, and it is a handle or has no more than decimal digits.
    #[arg(required = true, value_name = "[TARGET] ADDRESS")]
    pub(crate) words: Vec<String>,
    /// Read a capture (a file or a pipe) instead of the device; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Which steps.
    #[command(flatten)]
    pub(crate) rows: Rows,
    /// Print one JSON object; errors are JSON too, on standard error.
    #[arg(long)]
    pub(crate) json: bool,
    /// In place of the device.
    #[command(flatten)]
    pub(crate) image: image::Image,
}

const CAPTURE_HELP: &str = "\
Examples:
  s2dump capture --all -O machine.s2d
  s2dump capture -O guest.s2d vm:0x1000
  s2dump capture -O - host | zstd > host.s2d.zst";

/// Arguments of `capture`.
#[derive(Args, Debug)]
#[command(after_help = CAPTURE_HELP)]
pub(crate) struct Capture {
    /// The tables to capture, as for dump; without any, those of all VMs that ever ran.
    pub(crate) targets: Vec<Selector>,
    /// Capture the whole machine: host, EL2, all VMs, page frames and facts, so that -i FILE audits it anywhere.
    ///
    /// Each table is read twice, to tell whether it was at rest, and what looks wrong is looked at again.
    #[arg(long, conflicts_with = "targets")]
    pub(crate) all: bool,
    /// The file to write; `-` is standard output.
    ///
    /// A regular file appears, or is replaced, only when it is complete. If FILE is a symbolic link, its target is replaced.
    /// A FIFO or a device is written to.
    #[arg(short = 'O', long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// The most descriptors that EL2 reads in one call [default: as EL2 chooses].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) budget: Option<u32>,
}

/// How a table was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selector {
    /// The host's stage 2.
    Host,
    /// EL2's own stage 1.
    Hyp,
    /// All tables there are.
    All,
    /// The table of the only VM, when no name is typed.
    Only,
    /// pKVM handle: 0x...
    Handle(u16),
    /// Process that made the VM: decimal.
    Pid(u32),
    /// Name of the debugfs directory: has a dash.
    Id(String),
}

impl Selector {
    /// Returns the name of `target`.
    pub(crate) fn of(target: Target) -> Self {
        match target.guest_handle() {
            Some(handle) => Self::Handle(handle),
            None if target == Target::HYP => Self::Hyp,
            None => Self::Host,
        }
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Hyp => f.write_str("hyp"),
            Self::All => f.write_str("all"),
            Self::Only => f.write_str("the only VM"),
            Self::Handle(handle) => write!(f, "vm:{handle:#x}"),
            Self::Pid(pid) => write!(f, "vm:{pid}"),
            Self::Id(id) => write!(f, "vm:{id}"),
        }
    }
}

/// Why a target could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SelectorError {
    /// No table has such a name.
    #[error("a target is host, hyp, all, or of a VM 0x1000 (handle), 4242 (pid) or 4242-11 (debugfs name)")]
    NotATarget,
    /// Not a number of 16 bits.
    #[error("`{0}` is not a pKVM handle ({first:#x} to {last:#x})", first = FIRST_HANDLE, last = END_HANDLE - 1)]
    NotAHandle(String),
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        match text {
            "host" => return Ok(Self::Host),
            "hyp" => return Ok(Self::Hyp),
            "all" => return Ok(Self::All),
            _ => {}
        }
        let name = text.strip_prefix("vm:").unwrap_or(text);
        if let Some(hex) = name.strip_prefix("0x") {
            return match u16::from_str_radix(hex, 16) {
                Ok(handle) if !hex.starts_with('+') => Ok(Self::Handle(handle)),
                _ => Err(SelectorError::NotAHandle(name.to_owned())),
            };
        }
        if name.contains('-') && name.chars().all(|c| c.is_ascii_digit() || c == '-') {
            return Ok(Self::Id(name.to_owned()));
        }
        match name.parse() {
            Ok(pid) if name.chars().all(|c| c.is_ascii_digit()) => Ok(Self::Pid(pid)),
            _ => Err(SelectorError::NotATarget),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn clap_accepts_the_definition() {
        Cli::command().debug_assert();
    }

    #[test]
    fn selectors_round_trip() {
        let cases = [
            ("host", Selector::Host),
            ("hyp", Selector::Hyp),
            ("all", Selector::All),
            ("vm:0x1000", Selector::Handle(0x1000)),
            ("vm:4242", Selector::Pid(4242)),
            ("vm:4242-11", Selector::Id("4242-11".into())),
        ];
        for (text, selector) in cases {
            assert_eq!(text.parse(), Ok(selector.clone()));
            assert_eq!(selector.to_string(), text);
            assert_eq!(text.trim_start_matches("vm:").parse(), Ok(selector), "the prefix may be left out: {text}");
        }
    }

    #[test]
    fn bad_selectors() {
        for text in ["", "x1000", "vm:vm:1", "vm:", "vm:x", "vm:+5", "vm:guest-a", "Host", "host:", "el2"] {
            assert_eq!(text.parse::<Selector>(), Err(SelectorError::NotATarget), "{text}");
        }
        for text in ["vm:0x", "vm:0x10000", "vm:0x+1", "vm:0xzz"] {
            assert!(matches!(text.parse::<Selector>(), Err(SelectorError::NotAHandle(_))), "{text}");
        }
    }
}
