// SPDX-License-Identifier: MIT OR Apache-2.0
//! The verbs: plan -> source -> reader -> format.

pub(crate) mod audit;
pub(crate) mod capture;
mod capture_all;
pub(crate) mod decode;
pub(crate) mod diff;
pub(crate) mod dump;
pub(crate) mod frames;
mod identity;
pub(crate) mod list;
mod machine;
pub(crate) mod map;
mod names;
mod pass;
pub(crate) mod probe;
mod report;
pub(crate) mod rmap;
mod survey;
mod suspicion;
pub(crate) mod time_limit;
mod version;
pub(crate) mod via;
pub(crate) mod walk;
mod watch;

use crate::args::{Color, Selector};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::format::vms::{self, Comm};
use crate::model::{is_same_vm, target_name, vm_name, vm_target};
use crate::numbers::AddressRange;
use crate::pager::Screen;
use crate::plan::input::ImagePlan;
use crate::plan::Plan;
use crate::reader::{Event, Reader};
use crate::source::device::{Device, Query, Session};
use crate::source::file::FileSource;
use crate::source::ram::banks::Banks;
use crate::source::ram::RamTable;
use crate::source::ring::Ring;
use crate::source::{clock, system, SlotSource, SourceError};
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{vm_flags, Fact, VmRecord};
use s2dump_abi::target::Target;
use s2dump_abi::version::features;
use s2dump_vmsa::Ipa;
use std::cell::Cell;
use std::cmp::Ordering;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use time_limit::Now;

/// Opens the device. Tests put a fake in its place.
pub(crate) type OpenSession<'a> = dyn Fn() -> Result<Box<dyn Session>, SourceError> + 'a;

/// Opens a capture by its path. Tests put bytes in its place.
pub(crate) type OpenCapture<'a> = dyn Fn(&Path) -> Result<FileSource, SourceError> + 'a;

/// Reads a file of `/proc`; none if that cannot be done.
pub(crate) type ReadProc = dyn Fn(&str) -> Option<String>;

/// What a verb works with.
pub(crate) struct Context<'a> {
    /// For data only.
    pub(crate) out: &'a mut dyn Write,
    /// For notes, progress and errors.
    pub(crate) err: &'a mut dyn Write,
    /// Opens the device.
    pub(crate) open_session: &'a OpenSession<'a>,
    /// Opens a capture.
    pub(crate) open_capture: &'a OpenCapture<'a>,
    /// Whether `out` is a terminal.
    pub(crate) out_is_terminal: bool,
    /// Characters of its lines, if `out` is a terminal.
    pub(crate) width: Option<usize>,
    /// What output is, for whoever writes it.
    pub(crate) screen: &'a Cell<Screen>,
    /// Whether `out` is a terminal that wants color, unless the user says otherwise.
    pub(crate) out_has_color: bool,
    /// Reads a file of `/proc` by its name there. Tests put text in its place.
    pub(crate) proc: &'a ReadProc,
    /// Tells the time to whoever has not more than some.
    pub(crate) now: Now,
    /// Whether notes and errors are to be JSON.
    pub(crate) json: bool,
    /// Whether progress may be shown on `err`.
    pub(crate) shows_progress: bool,
}

impl<'a> Context<'a> {
    /// Makes one that writes to no terminal.
    pub(crate) fn without_terminal(
        out: &'a mut dyn Write,
        err: &'a mut dyn Write,
        open_session: &'a OpenSession<'a>,
        open_capture: &'a OpenCapture<'a>,
        screen: &'a Cell<Screen>,
    ) -> Self {
        Self {
            out,
            err,
            open_session,
            open_capture,
            out_is_terminal: false,
            width: None,
            screen,
            out_has_color: false,
            proc: &system::read_proc,
            now: clock::uptime,
            json: false,
            shows_progress: false,
        }
    }
}

/// Opens the real device.
pub(crate) fn open_real_session() -> Result<Box<dyn Session>, SourceError> {
    Ok(Box::new(Ring::open()?))
}

/// Why a verb stopped.
#[derive(Debug)]
pub(crate) enum Stop {
    /// To be reported.
    Failure(Failure),
    /// Writing failed; a closed pipe is no failure.
    Output(io::Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Does what `plan` says.
pub(crate) fn run(plan: &Plan, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    match plan {
        Plan::Probe { json } => probe::run(*json, context),
        Plan::List { input, size, json, headings } => list::run(input.as_deref(), *size, (*json, *headings), context),
        Plan::Dump(dump) => dump::run(dump, context),
        Plan::Frames(frames) => frames::run(frames, context),
        Plan::Walk(walk) => walk::run(walk, context),
        Plan::Diff(plan) => diff::run(plan, context),
        Plan::Report(plan) => report::run(plan, context),
        Plan::Watch(plan) => watch::run(plan, context),
        Plan::Rmap(plan) => rmap::run(plan, context),
        Plan::Audit(plan) => audit::run(plan, context),
        Plan::Rules { json } => audit::list(*json, context),
        Plan::Map(plan) => map::run(plan, context),
        Plan::Decode(plan) => decode::run(plan, context),
        Plan::Version { json } => version::run(*json, context),
        Plan::CaptureAll { output, budget } => capture_all::run(output, *budget, context),
        Plan::Capture { targets, output, budget } => capture::run(targets, output, *budget, context),
    }
}

/// A note, where notes are to be JSON.
#[derive(serde::Serialize)]
struct NoteJson {
    message: String,
    r#type: &'static str,
}

impl Context<'_> {
    /// Opens the device and says hello.
    fn device(&self) -> Result<Device, SourceError> {
        Device::new((self.open_session)()?)
    }

    /// Opens a capture.
    fn capture(&self, path: &Path) -> Result<Reader<FileSource>, Failure> {
        (self.open_capture)(path).map(Reader::new).map_err(|error| error.into_failure("capture"))
    }

    /// Returns whether output is to be colored.
    fn color(&self, color: Color) -> bool {
        match color {
            Color::Auto => self.out_has_color,
            Color::Always => true,
            Color::Never => false,
        }
    }

    /// Writes a note on standard error.
    fn note(&mut self, text: impl Display) {
        let line = match self.json {
            true => {
                let note = NoteJson { message: text.to_string(), r#type: "note" };
                serde_json::to_string(&note).unwrap_or_default()
            }
            false => format!("s2dump: {text}"),
        };
        // Nothing can be done when standard error is gone.
        let _ = writeln!(self.err, "{line}");
    }

    /// Says which addresses are shown, if they are more than were typed.
    fn note_widened(&mut self, range: AddressRange) {
        if range.is_widened {
            self.note(format_args!("the range is widened to whole pages: {range}"));
        }
    }

    /// Writes the issues a reader has found and adds their number to `count`.
    fn tell_issues<S: SlotSource>(&mut self, reader: &mut Reader<S>, count: &mut u64) {
        if let Some(origin) = reader.take_origin() {
            self.note(origin);
        }
        while let Some(issue) = reader.next_issue() {
            *count += 1;
            match (*count).cmp(&MOST_ISSUES) {
                Ordering::Less => self.note(issue),
                Ordering::Equal => self.note("there are more problems; they are counted, not told"),
                Ordering::Greater => {}
            }
        }
    }
}

/// Opens an image of memory; what is odd about it is noted.
fn open_image(image: &ImagePlan, context: &mut Context<'_>) -> Result<RamTable, Failure> {
    let fail = |error: SourceError| error.into_failure("ram");
    if let Some(warning) = image.table.warning() {
        context.note(warning);
    }
    let banks = Banks::open(&image.ram, &mut |note| context.note(note)).map_err(|error| fail(error.into()))?;
    if let Some(note) = suspicion::zero_root(&banks, &image.table) {
        context.note(note);
    }
    RamTable::new(banks, image.table).map_err(fail)
}

/// Takes an address into the table of `image`.
fn address_in(image: &ImagePlan, address: u64) -> Result<Ipa, Failure> {
    let geometry = image.table.root.geometry();
    match Ipa::try_new(address) {
        Ok(ia) if address < geometry.ia_end() => Ok(ia),
        _ => Err(beyond("ram", address, geometry.ia_bits())),
    }
}

/// Says that a table has no such input address.
fn beyond(name: &str, address: u64, ia_bits: u8) -> Failure {
    let message = format_args!("{name}: {address:#x} is beyond its input addresses of {ia_bits} bits");
    Failure::new(ExitCode::UsageOrIo, message)
}

/// How many issues of one input are told. Later ones are only counted, because they tell a person nothing new.
const MOST_ISSUES: u64 = 20;

/// So many VMs are kept. EL2 has 255 at most, but some kernels do not bound those that never ran.
const MOST_VMS: usize = 1024;

/// Keeps a VM of a list. Captures may stand one behind the other in a file: what a later list says of a VM replaces what an
/// earlier one said.
fn remember(vms: &mut Vec<VmRecord>, vm: VmRecord) {
    if let Some(known) = vms.iter_mut().find(|known| is_same_vm(known, &vm)) {
        *known = vm;
    } else if vms.len() < MOST_VMS {
        vms.push(vm);
    }
}

/// So many facts are kept. EL2 has 128 regions of memory and a slot of the fixmap for each CPU; the ring has its pages.
const MOST_FACTS: usize = 4096;

/// Reads facts about memory and EL2 from the device; none if EL2 does not tell them.
///
/// # Errors
///
/// Also if they are not whole.
fn read_facts(device: &mut Device) -> Result<Vec<Fact>, Failure> {
    if !device.has(features::FACTS) {
        return Ok(Vec::new());
    }
    let fail = |error: SourceError| error.into_failure("facts");
    let mut reader = Reader::new(device.start(Query::Facts).map_err(fail)?);
    let (mut facts, mut status) = (Vec::new(), None);
    while let Some(event) = reader.next_event().map_err(fail)? {
        match event {
            Event::Fact(fact) if facts.len() < MOST_FACTS => facts.push(fact),
            Event::End(_, outcome) => status = outcome.status,
            _ => {}
        }
    }
    match (status, reader.next_issue()) {
        (Some(Status::OK), None) => Ok(facts),
        (Some(Status::OK) | None, issue) => {
            let why = issue.map_or("their end is missing".into(), |issue| issue.to_string());
            Err(Failure::new(ExitCode::UsageOrIo, format_args!("the facts are not whole: {why}")))
        }
        (Some(status), _) => Err(Failure::from_status(status, "facts")),
    }
}

/// Reads the list of VMs from the device.
///
/// # Errors
///
/// Also if the list is not whole, because then it does not show that a VM is not there.
fn list_vms(device: &mut Device) -> Result<Vec<VmRecord>, Failure> {
    let fail = |error: SourceError| error.into_failure("list");
    let not_whole = |why: &dyn Display| {
        let failure = Failure::new(ExitCode::UsageOrIo, format_args!("the list of VMs is not whole: {why}"));
        failure.hint("a bug of the driver: please report it")
    };
    let mut reader = Reader::new(device.start(Query::List).map_err(fail)?);
    let (mut vms, mut end) = (Vec::new(), None);
    while let Some(event) = reader.next_event().map_err(fail)? {
        match event {
            Event::Vm(vm) => remember(&mut vms, vm),
            Event::End(_, outcome) => end = outcome.status,
            _ => {}
        }
    }
    match (end, reader.next_issue()) {
        (Some(Status::OK), None) => Ok(vms),
        (Some(Status::OK) | None, Some(issue)) => Err(not_whole(&issue)),
        (None, None) => Err(not_whole(&"its end is missing")),
        (Some(status), _) => Err(Failure::from_status(status, "list")),
    }
}

/// Reads the list of VMs that says which table `selector` means: none for a table of no VM.
fn list_for(selector: &Selector, device: &mut Device) -> Result<Vec<VmRecord>, Failure> {
    match selector {
        Selector::Host | Selector::Hyp | Selector::All => Ok(Vec::new()),
        Selector::Handle(_) | Selector::Pid(_) | Selector::Id(_) | Selector::Only => list_vms(device),
    }
}

/// Returns the table `selector` names among `vms`.
fn resolve(selector: &Selector, vms: &[VmRecord]) -> Result<(Target, Option<VmRecord>), Failure> {
    let matches = |vm: &&VmRecord| match selector {
        Selector::Host | Selector::Hyp | Selector::All => false,
        Selector::Handle(handle) => vm.handle == *handle,
        Selector::Pid(pid) => vm.pid == *pid,
        Selector::Id(id) => vm_name(vm) == Some(id),
        Selector::Only => true,
    };
    let mut found: Vec<&VmRecord> = vms.iter().filter(matches).collect();
    if *selector == Selector::Only && vms.iter().any(has_table) {
        found.retain(|vm| has_table(vm));
    }
    match (selector, found.as_slice()) {
        (Selector::Host, _) => Ok((Target::HOST, None)),
        (Selector::Hyp, _) => Ok((Target::HYP, None)),
        (Selector::All, _) => Err(Failure::new(ExitCode::UsageOrIo, "all: one table is wanted here").hint("name it")),
        (Selector::Handle(handle), found) => Ok((Target::guest(*handle), found.first().map(|vm| **vm))),
        (_, [vm]) if vm.handle == 0 => Err(Failure::from_status(Status::VM_NOT_RUN, &selector.to_string())),
        (_, [vm]) => Ok((Target::guest(vm.handle), Some(**vm))),
        (Selector::Only, []) => {
            let failure = Failure::new(ExitCode::NoSuchVm, "there is no VM now");
            Err(failure.hint("name another table: host, or hyp"))
        }
        (Selector::Only, several) => Err(which("there are", several, Some(system::comm))),
        (_, []) => {
            let failure = Failure::new(ExitCode::NoSuchVm, format_args!("{selector}: no such VM"));
            Err(failure.hint("a number is the pid of the process that made the VM; see `s2dump list`"))
        }
        (_, several) => Err(ambiguous(&selector.to_string(), several)),
    }
}

/// Says what is wrong with an address EL2 refused, where the list tells how many bits it may have.
fn outside_space(failure: Failure, address: u64, vm: Option<&VmRecord>) -> Failure {
    let Some(vm) = vm else { return failure };
    if address.checked_shr(vm.ia_bits.into()).is_none_or(|above| above == 0) {
        return failure;
    }
    Failure { code: failure.code, ..beyond(&format!("vm:{:#x}", vm.handle), address, vm.ia_bits) }
}

/// Returns the table `selector` names by the lists that a capture had so far, `None` if they do not tell: a later one may.
///
/// # Errors
///
/// If the name fits several VMs, or is none of one table.
fn resolve_captured(selector: &Selector, vms: &[VmRecord]) -> Result<Option<(Target, Option<VmRecord>)>, Failure> {
    match resolve(selector, vms) {
        Err(failure) if failure.code == ExitCode::NoSuchVm => Ok(None),
        resolved => resolved.map(Some),
    }
}

/// So many tables or VMs of a capture are named in a message.
const MOST_NAMED: usize = 8;

/// Keeps that a capture holds a table of `target`, if there is room.
fn add_named(targets: &mut Vec<Target>, target: Target) {
    if targets.len() < MOST_NAMED && !targets.contains(&target) {
        targets.push(target);
    }
}

/// Says that a capture does not hold the table that `selector` names, and what it has: `vms` are in its lists, `tables` are its
/// first tables.
fn not_captured(selector: &Selector, vms: &[VmRecord], tables: &[Target]) -> Failure {
    let holds = match tables {
        [] => "it holds no table".into(),
        tables => format!("it holds tables of {}", target_names(tables)),
    };
    match resolve_captured(selector, vms) {
        Ok(None) if vms.is_empty() => {
            Failure::new(ExitCode::UsageOrIo, format_args!("{selector}: the capture has no list of VMs"))
                .hint(format_args!("name the VM by its handle: {holds}"))
        }
        Ok(None) => {
            let more = if vms.len() > MOST_NAMED { ", ..." } else { "" };
            let listed = vm_names(vms.iter().take(MOST_NAMED));
            Failure::new(ExitCode::NoSuchVm, format_args!("{selector}: the capture lists no such VM"))
                .hint(format_args!("it lists {listed}{more}; a number is the pid of the process that made the VM"))
        }
        Ok(Some(_)) | Err(_) => {
            Failure::new(ExitCode::NoSuchVm, format_args!("{selector}: the capture holds no table of it")).hint(holds)
        }
    }
}

fn target_names(targets: &[Target]) -> String {
    targets.iter().copied().map(target_name).collect::<Vec<_>>().join(", ")
}

fn vm_names<'v>(vms: impl Iterator<Item = &'v VmRecord>) -> String {
    let name = |vm: &VmRecord| format!("{} ({})", vm_target(vm), vm_name(vm).unwrap_or("no id"));
    vms.map(name).collect::<Vec<_>>().join(", ")
}

/// Returns whether `vm` ran, so that it has a table.
fn has_table(vm: &VmRecord) -> bool {
    vm.flags & vm_flags::CREATED != 0
}

/// Says that a VM must be named, and lists those that there are, with their processes if these are of this machine.
fn which(there: &str, vms: &[&VmRecord], comm: Option<Comm>) -> Failure {
    let vms: Vec<VmRecord> = vms.iter().copied().copied().collect();
    let mut list = Vec::new();
    // Writing to memory does not fail.
    let _ = vms::write_table(&mut list, &vms, true, (comm, None), None);
    let list = String::from_utf8_lossy(&list).trim_end().replace('\n', "\n  ");
    Failure::new(ExitCode::UsageOrIo, format_args!("name a VM: {there} {}", vms.len()))
        .hint(format_args!("the first three columns name one:\n  {list}"))
}

/// Says that a name fits several VMs, and which.
fn ambiguous(name: &str, vms: &[&VmRecord]) -> Failure {
    let names = vm_names(vms.iter().copied());
    Failure::new(ExitCode::UsageOrIo, format_args!("{name} fits {} VMs: {names}", vms.len()))
        .hint("name one by its handle")
}

#[cfg(test)]
mod tests {
    use super::*;
    use s2dump_abi::target::FIRST_HANDLE;
    use zerocopy::FromZeros;

    #[test]
    fn a_later_list_replaces_what_it_knows_and_many_vms_are_kept() {
        let vm = |handle, pid| VmRecord { handle, pid, ..VmRecord::new_zeroed() };
        let mut vms = Vec::new();
        for vm in [vm(FIRST_HANDLE, 1), vm(FIRST_HANDLE + 1, 1), vm(FIRST_HANDLE + 1, 2)] {
            remember(&mut vms, vm);
        }
        assert_eq!((vms.len(), vms[1].pid), (2, 2));
        (0..2000).for_each(|number| remember(&mut vms, vm(FIRST_HANDLE + number, 1)));
        assert_eq!(vms.len(), MOST_VMS);
    }

    /// They have no handle that tells them apart.
    #[test]
    fn vms_without_handle_are_told_apart_by_process_and_name() {
        let vm = |pid, name: &[u8; 24]| VmRecord { pid, name: *name, ..VmRecord::new_zeroed() };
        let mut vms = Vec::new();
        for (pid, name) in [(1, &[b'a'; 24]), (1, &[b'b'; 24]), (2, &[b'a'; 24]), (1, &[b'a'; 24])] {
            remember(&mut vms, vm(pid, name));
        }
        assert_eq!(vms.len(), 3);
    }

    #[test]
    fn vm_without_handle_never_ran() {
        let mut vm = VmRecord { pid: 7, ..VmRecord::new_zeroed() };
        vm.name[..3].copy_from_slice(b"7-4");
        for selector in [Selector::Pid(7), Selector::Id("7-4".into())] {
            let failure = resolve(&selector, &[vm]).expect_err("no table");
            assert_eq!(failure.code, ExitCode::NoSuchVm);
            assert!(failure.to_string().contains("never ran"), "{failure}");
        }
        assert_eq!(vm_target(&vm), "vm:7-4");
    }
}
