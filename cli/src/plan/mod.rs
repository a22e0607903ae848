// SPDX-License-Identifier: MIT OR Apache-2.0
//! What will be done: arguments that fit together, with defaults filled in.

pub(crate) mod decode;
pub(crate) mod input;
pub(crate) mod machine;
pub(crate) mod map;
pub(crate) mod report;

use self::decode::DecodePlan;
use self::input::Input;
use self::machine::{AuditPlan, DiffPlan, RmapPlan, WatchPlan};
use self::map::MapPlan;
use self::report::ReportPlan;
use crate::args::{self, Color, FormatName, Selector, Verb};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::filter::{Filter, Wanted};
use crate::format::columns::{of_names, parse_columns, usual, Column};
use crate::format::frames::FramesFormat;
use crate::format::json::{Framing, Json};
use crate::format::ptdump::{Dialect, Ptdump};
use crate::format::stat::Stat;
use crate::format::table::TableFormat;
use crate::format::Format;
use crate::numbers::{parse_number, AddressRange};
use s2dump_abi::target::{END_HANDLE, FIRST_HANDLE};
use std::path::PathBuf;

/// What to do.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Tell what is supported.
    Probe {
        /// As JSON.
        json: bool,
    },
    /// List VMs.
    List {
        /// A capture, else the device.
        input: Option<PathBuf>,
        /// With what each VM has mapped.
        size: bool,
        /// As JSON.
        json: bool,
        /// With a heading line.
        headings: bool,
    },
    /// Dump a table.
    Dump(DumpPlan),
    /// Show what is kept about page frames.
    Frames(FramesPlan),
    /// Walk for one address.
    Walk(WalkPlan),
    /// Show who uses physical memory.
    Rmap(RmapPlan),
    /// Compare two readings.
    Diff(DiffPlan),
    /// Write a report.
    Report(ReportPlan),
    /// Print what changes.
    Watch(WatchPlan),
    /// Ask whether isolation is intact.
    Audit(AuditPlan),
    /// List the rules of an audit.
    Rules {
        /// As JSON.
        json: bool,
    },
    /// Draw a map.
    Map(MapPlan),
    /// Write a capture.
    Capture {
        /// Which VMs; all if empty.
        targets: Vec<Selector>,
        /// Where to.
        output: Output,
        /// Descriptors per call, 0 for the default.
        budget: u32,
    },
    /// Write a capture of the whole machine.
    CaptureAll {
        /// Where to.
        output: Output,
        /// Descriptors per call, 0 for the default.
        budget: u32,
    },
    /// Explain descriptors.
    Decode(DecodePlan),
    /// Tell the version.
    Version {
        /// As JSON.
        json: bool,
    },
}

/// Where a capture or a map is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Standard output.
    Stdout,
    /// What this path names.
    File(PathBuf),
}

impl Output {
    /// Returns what it is called in messages.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Stdout => "standard output".into(),
            Self::File(path) => path.display().to_string(),
        }
    }

    fn new(path: PathBuf) -> Self {
        // Standard output may append to a file. Opened by this name, the file would be overwritten from its beginning.
        let names = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];
        if names.iter().any(|name| path.as_os_str() == *name) {
            Self::Stdout
        } else {
            Self::File(path)
        }
    }
}

/// How to show page frames.
#[derive(Debug)]
pub(crate) struct FramesPlan {
    /// A capture, else the device.
    pub(crate) input: Option<PathBuf>,
    /// Which physical addresses.
    pub(crate) range: AddressRange,
    /// Which frames.
    pub(crate) filter: Filter,
    /// Frames per call, 0 for the default.
    pub(crate) budget: u32,
    /// How to write them.
    pub(crate) format: FramesFormat,
}

impl FramesPlan {
    fn new(frames: args::Frames) -> Result<Self, Failure> {
        if frames.input.is_some() && frames.budget.is_some() {
            return Err(Failure::new(ExitCode::UsageOrIo, "--budget asks EL2: it does not go with -i FILE"));
        }
        let Wanted { filter, rows } = frames.rows.into();
        Ok(Self {
            input: frames.input,
            range: frames.range.unwrap_or(AddressRange::ALL),
            filter,
            budget: frames.budget.unwrap_or(0),
            format: match frames.json {
                true => FramesFormat::Json { rows },
                false => FramesFormat::Table { headings: !frames.no_headings, rows },
            },
        })
    }
}

/// How to walk.
#[derive(Debug)]
pub(crate) struct WalkPlan {
    /// Which table.
    pub(crate) input: Input,
    /// Which addresses, one at least.
    pub(crate) addresses: Vec<u64>,
    /// Which steps.
    pub(crate) wanted: Wanted,
    /// As JSON.
    pub(crate) json: bool,
}

impl WalkPlan {
    fn new(walk: args::Walk) -> Result<Self, Failure> {
        let mut words = walk.words;
        let target = match words.first().filter(|word| is_target(word, words.len(), !walk.image.ram.is_empty())) {
            Some(word) => {
                let target = word.parse().map_err(|error| Failure::new(ExitCode::UsageOrIo, error))?;
                words.remove(0);
                Some(target)
            }
            None => None,
        };
        if words.is_empty() {
            return Err(Failure::new(ExitCode::UsageOrIo, "name an input address to walk to").hint("0x8000_0000 or 2G"));
        }
        let address = |word: &String| parse_number(word).map_err(|error| Failure::new(ExitCode::UsageOrIo, error));
        let addresses = words.iter().map(address).collect::<Result<_, Failure>>()?;
        let input = Input::new(target, walk.input, walk.image)?;
        Ok(Self { input, addresses, wanted: walk.rows.into(), json: walk.json })
    }
}

/// Returns whether the first of `words` of a walk is the name of a table. A number can be either, and is a name only if an
/// address follows and it looks like a handle or a pid, neither of which an image has.
fn is_target(word: &str, words: usize, is_image: bool) -> bool {
    let is_number = word.starts_with(|c: char| c.is_ascii_digit()) && !word.contains('-');
    let is_name = match word.strip_prefix("0x").map(|hex| u16::from_str_radix(hex, 16)) {
        Some(handle) => handle.is_ok_and(|handle| (FIRST_HANDLE..END_HANDLE).contains(&handle)),
        None => word.chars().all(|c| c.is_ascii_digit()),
    };
    if is_number {
        words > 1 && is_name && !is_image
    } else {
        // What begins like no number and is no name is told to be no number.
        word.parse::<Selector>().is_ok() || word.starts_with("vm:")
    }
}

/// How to dump.
#[derive(Debug)]
pub(crate) struct DumpPlan {
    /// Which table.
    pub(crate) input: Input,
    /// Which input addresses.
    pub(crate) range: AddressRange,
    /// Also break rows where the output address does not run on.
    pub(crate) exact: bool,
    /// Read twice and compare.
    pub(crate) verify: bool,
    /// All in one call.
    pub(crate) atomic: bool,
    /// With table pages, if they can be told.
    pub(crate) tables: bool,
    /// Descriptors per call, 0 for the default.
    pub(crate) budget: u32,
    /// Which rows.
    pub(crate) filter: Filter,
    /// Without rows of holes.
    pub(crate) mapped: bool,
    /// With rows.
    pub(crate) rows: bool,
    /// How to write it.
    pub(crate) style: Style,
    /// With headings and comments.
    pub(crate) headings: bool,
    /// With names: rows end where these do.
    pub(crate) names: bool,
    /// When to use color.
    pub(crate) color: Color,
}

/// A format with its options.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Rows of these columns.
    Table(Vec<&'static Column>),
    /// The kernel's text.
    Ptdump(Dialect),
    /// JSON.
    Json(Framing),
    /// Sums in place of rows.
    Stat {
        /// As JSON.
        json: bool,
    },
}

impl Style {
    /// Returns whether an empty line helps between two tables.
    pub(crate) fn is_for_people(&self) -> bool {
        match self {
            Self::Json(_) | Self::Stat { json: true } => false,
            Self::Table(_) | Self::Ptdump(_) | Self::Stat { json: false } => true,
        }
    }

    /// Makes the writer.
    pub(crate) fn writer(&self, width: Option<usize>) -> Box<dyn Format> {
        match self {
            // Who chose columns gets them.
            Self::Table(columns) => {
                let is_usual = columns.iter().filter(|column| !column.is_name()).eq(usual().iter());
                Box::new(TableFormat::new(columns.clone(), width.filter(|_| is_usual)))
            }
            Self::Ptdump(dialect) => Box::new(Ptdump::new(*dialect)),
            Self::Json(framing) => Box::new(Json::new(*framing)),
            Self::Stat { json } => Box::new(Stat::new(*json)),
        }
    }
}

impl Plan {
    /// Decides what `cli` asks for.
    pub(crate) fn new(cli: args::Cli) -> Result<Self, Failure> {
        Ok(match cli.verb {
            Verb::Probe(probe) => Self::Probe { json: probe.json },
            Verb::List(list) => {
                Self::List { input: list.input, size: list.size, json: list.json, headings: !list.no_headings }
            }
            Verb::Dump(dump) => Self::Dump(DumpPlan::new(dump, cli.color)?),
            Verb::Stat(stat) => Self::Dump(DumpPlan::of_stat(stat, cli.color)?),
            Verb::Walk(walk) => Self::Walk(WalkPlan::new(walk)?),
            Verb::Frames(frames) => Self::Frames(FramesPlan::new(frames)?),
            Verb::Rmap(rmap) => Self::Rmap(RmapPlan::new(rmap)?),
            Verb::Report(report) => Self::Report(ReportPlan::new(report)),
            Verb::Watch(watch) => Self::Watch(WatchPlan::new(watch)),
            Verb::Diff(diff) => Self::Diff(DiffPlan::new(diff)?),
            Verb::Audit(audit) if audit.list => Self::Rules { json: audit.json },
            Verb::Audit(audit) => Self::Audit(AuditPlan::new(audit)?),
            Verb::Map(map) => Self::Map(MapPlan::new(map)?),
            Verb::Capture(capture) => {
                let output = Output::new(capture.output);
                if capture.all {
                    return Ok(Self::CaptureAll { output, budget: capture.budget.unwrap_or(0) });
                }
                Self::Capture { targets: capture.targets, output, budget: capture.budget.unwrap_or(0) }
            }
            Verb::Decode(decode) => Self::Decode(DecodePlan::new(&decode, cli.color)?),
            Verb::Version(version) => Self::Version { json: version.json },
        })
    }

    /// Returns whether its output may be longer than a screen, so that a pager helps.
    pub(crate) fn is_long(&self) -> bool {
        match self {
            Self::List { .. } | Self::Dump(_) | Self::Frames(_) | Self::Walk(_) | Self::Rmap(_) => true,
            Self::Diff(_) | Self::Audit(_) | Self::Rules { .. } => true,
            Self::Probe { .. } | Self::Version { .. } | Self::Capture { .. } | Self::CaptureAll { .. } => false,
            Self::Report(_) | Self::Map(_) => false,
            // Lines appear as they come.
            Self::Watch(_) => false,
            // What is typed may be read.
            Self::Decode(decode) => decode.lines.is_some(),
        }
    }

    /// Returns whether errors are to be JSON too.
    pub(crate) fn is_json(&self) -> bool {
        match self {
            Self::Diff(DiffPlan { json, .. }) | Self::Watch(WatchPlan { json, .. }) => *json,
            Self::Rmap(RmapPlan { json, .. }) | Self::Audit(AuditPlan { json, .. }) | Self::Rules { json } => *json,
            Self::Probe { json }
            | Self::Version { json }
            | Self::List { json, .. }
            | Self::Walk(WalkPlan { json, .. }) => *json,
            Self::Frames(frames) => matches!(frames.format, FramesFormat::Json { .. }),
            Self::Decode(decode) => decode.json,
            Self::Dump(dump) => matches!(dump.style, Style::Json(_) | Style::Stat { json: true }),
            Self::Map(_) | Self::Capture { .. } | Self::CaptureAll { .. } | Self::Report(_) => false,
        }
    }
}

impl DumpPlan {
    /// Adds up what a dump reads.
    fn of_stat(stat: args::Stat, color: Color) -> Result<Self, Failure> {
        let instead = [("-i FILE", stat.input.is_some()), ("--ram", !stat.image.ram.is_empty())];
        if let (Some((instead, _)), true) = (instead.iter().find(|(_, given)| *given), stat.budget.is_some()) {
            let message = format_args!("--budget asks EL2: it does not go with {instead}");
            return Err(Failure::new(ExitCode::UsageOrIo, message));
        }
        let target = stat.target.or(stat.image.ram.is_empty().then_some(Selector::All));
        Ok(Self {
            input: Input::new(target, stat.input, stat.image)?,
            range: stat.range.unwrap_or(AddressRange::ALL),
            exact: true,
            verify: false,
            atomic: false,
            tables: true,
            budget: stat.budget.unwrap_or(0),
            filter: stat.filters.into(),
            mapped: false,
            rows: true,
            style: Style::Stat { json: stat.json },
            headings: !stat.no_headings,
            names: false,
            color,
        })
    }

    fn new(dump: args::Dump, color: Color) -> Result<Self, Failure> {
        let usage = |message: &str| Err(Failure::new(ExitCode::UsageOrIo, message));
        let instead = match (&dump.input, dump.image.ram.is_empty()) {
            (Some(_), _) => Some("-i FILE"),
            (None, false) => Some("--ram"),
            (None, true) => None,
        };
        if let Some(instead) = instead {
            let option = [("--verify", dump.verify), ("--atomic", dump.atomic), ("--budget", dump.budget.is_some())];
            if let Some((name, _)) = option.iter().find(|(_, given)| *given) {
                return usage(&format!("{name} asks EL2: it does not go with {instead}"));
            }
        }
        let input = Input::new(dump.target, dump.input, dump.image)?;
        if dump.atomic && dump.budget.is_some() {
            return usage("--atomic is one call of its own size: it does not go with --budget");
        }
        let format = if dump.json { FormatName::Json } else { dump.format };
        let style = match (format, &dump.columns) {
            (FormatName::Table, None) if dump.names => Style::Table(usual().into_iter().chain(of_names()).collect()),
            (FormatName::Table, None) => Style::Table(usual()),
            (FormatName::Table, Some(columns)) => {
                Style::Table(parse_columns(columns).map_err(|error| Failure::new(ExitCode::UsageOrIo, error))?)
            }
            (_, Some(_)) => return usage("--columns goes with --format table only"),
            (FormatName::Ptdump, None) => Style::Ptdump(Dialect::V7_3),
            (FormatName::PtdumpV10, None) => Style::Ptdump(Dialect::V10),
            (FormatName::PtdumpAndroid, None) => Style::Ptdump(Dialect::Android),
            (FormatName::Json, None) => Style::Json(Framing::Document),
            (FormatName::Ndjson, None) => Style::Json(Framing::Lines),
        };
        match &style {
            Style::Table(_) | Style::Json(_) | Style::Stat { .. } => {}
            Style::Ptdump(Dialect::V7_3) => input.check_stage2("--format ptdump")?,
            Style::Ptdump(Dialect::V10) => input.check_stage2("--format ptdump-v10")?,
            Style::Ptdump(Dialect::Android) => input.check_stage2("--format ptdump-android")?,
        }
        let names =
            dump.names || matches!(&style, Style::Table(columns) if columns.iter().any(|column| column.is_name()));
        if names && matches!(style, Style::Ptdump(_)) {
            return usage("--names has no place in --format ptdump");
        }
        if names && matches!(input, Input::Image(_)) {
            return usage(
                "an image of memory tells no names: leave out --names, and the columns slot, hva, backing and name",
            );
        }
        let Wanted { filter, rows } = dump.rows.into();
        if !rows && matches!(style, Style::Ptdump(_)) {
            return usage("--summary has nothing to leave in --format ptdump: there are only rows");
        }
        if dump.no_headings && !matches!(style, Style::Table(_)) {
            return usage("--no-headings goes with --format table only");
        }
        Ok(Self {
            input,
            range: dump.range.unwrap_or(AddressRange::ALL),
            exact: dump.exact,
            verify: dump.verify,
            atomic: dump.atomic,
            tables: false,
            budget: dump.budget.unwrap_or(0),
            filter,
            mapped: dump.mapped,
            rows,
            style,
            headings: !dump.no_headings,
            names,
            color,
        })
    }
}
