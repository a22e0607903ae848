// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump walk [TARGET] ADDRESS...`: the descriptor of each level, and where the address goes.
//!
//! Of a capture the levels above the leaf are known if it tells table descriptors, as `capture --all` asks for.

use super::identity::{check_listed, is_as_listed, listed_table, only_table};
use super::names;
use super::suspicion::Suspicion;
use super::{add_named, address_in, beyond, list_for, not_captured, open_image, outside_space, read_facts, remember};
use super::{resolve_captured, Context, Stop, MOST_FACTS};
use crate::args::Selector;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::format::walk::Walk;
use crate::marks::Marks;
use crate::model::{target_name, Row, TableFacts};
use crate::names::Names;
use crate::plan::input::{ImagePlan, Input};
use crate::plan::WalkPlan;
use crate::reader::{Event, Reader};
use crate::source::device::{Device, Query};
use crate::source::file::FileSource;
use crate::source::{interrupts, SlotSource, SourceError};
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::{Fact, SlotKind, VmRecord};
use s2dump_abi::target::Identity;
use std::convert::Infallible;
use std::rc::Rc;

/// Walks on the device, a capture or an image, to one address after the other.
pub(super) fn run(plan: &WalkPlan, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    let mut input = match &plan.input {
        Input::Capture(path, selector) => {
            let mut source = (context.open_capture)(path).map_err(|error| error.into_failure("capture"))?;
            let only = if selector.is_none() { only_table(&mut source)? } else { None };
            let Some(selector) = selector.clone().or(only.map(Selector::of)) else {
                return Err(Failure::new(ExitCode::UsageOrIo, "the capture holds no table").into());
            };
            let (walks, issues) = from_file(&selector, &plan.addresses, source, context)?;
            Walked::Capture(walks.into_iter(), issues)
        }
        Input::Device(selector) => {
            let device = context.device().map_err(|error| error.into_failure(&selector.to_string()))?;
            Walked::Device(device, selector.clone(), None)
        }
        Input::Image(image) => Walked::Image(image),
    };
    let (last, before) = plan.addresses.split_last().map_or((0, &[][..]), |(last, before)| (*last, before));
    let mut code = ExitCode::Ok;
    for &address in before {
        code = code.max(match walk(&mut input, address, plan, context) {
            // One address that cannot be walked to does not spoil the others.
            Err(Stop::Failure(failure)) => {
                context.note(&failure);
                failure.code
            }
            walked => {
                if !plan.json {
                    writeln!(context.out)?;
                }
                walked?
            }
        });
    }
    Ok(walk(&mut input, last, plan, context)?.max(code))
}

/// What is walked in.
enum Walked<'a> {
    /// A capture, which was read once for all addresses, and how many issues it has.
    Capture(std::vec::IntoIter<Result<Walk, Failure>>, u64),
    /// The device, which of its tables, and once it was found, that with the list that has it.
    Device(Device, Selector, Option<(Identity, Vec<VmRecord>)>),
    /// An image.
    Image(&'a ImagePlan),
}

/// Walks to `address`, the next one, and writes that.
fn walk(input: &mut Walked<'_>, address: u64, plan: &WalkPlan, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    let (walk, issues) = match input {
        Walked::Capture(walks, issues) => match walks.next() {
            Some(walk) => (walk?, *issues),
            None => return Ok(ExitCode::Ok),
        },
        Walked::Device(device, selector, known) => from_device(device, selector, known, address, context)?,
        Walked::Image(image) => from_image(image, address, context)?,
    };
    match plan.json {
        true => walk.write_json(context.out, &plan.wanted)?,
        false => walk.write_text(context.out, &plan.wanted, context.width)?,
    }
    if interrupts::came() {
        return Err(SourceError::Interrupted.into_failure(&walk.table.name()).into());
    }
    if walk.is_dying {
        return Err(Failure::from_status(Status::VM_DYING, &walk.table.name()).into());
    }
    if let Some(why) = walk.why_not_known() {
        return Err(Failure::new(ExitCode::Partial, format_args!("{}: {why}", walk.table.name())).into());
    }
    Ok(if issues == 0 { ExitCode::Ok } else { ExitCode::Partial })
}

fn from_image(image: &ImagePlan, address: u64, context: &mut Context<'_>) -> Result<(Walk, u64), Stop> {
    let ia = address_in(image, address)?;
    let ram = open_image(image, context)?;
    let (table, steps) = ram.walk(ia).map_err(|error| error.into_failure("ram"))?;
    if let Some(error) = ram.take_error() {
        context.note(error);
    }
    let mut suspicion = Suspicion::of_walk(image.says_encoding);
    steps.iter().for_each(|step| suspicion.add(step, &table));
    suspicion.notes().iter().for_each(|note| context.note(note));
    Ok((Walk { table, vm: None, address, steps, from_leaves: false, is_dying: false, names: Rc::default() }, 0))
}

fn from_device(
    device: &mut Device,
    selector: &Selector,
    known: &mut Option<(Identity, Vec<VmRecord>)>,
    address: u64,
    context: &mut Context<'_>,
) -> Result<(Walk, u64), Stop> {
    let vms = list_for(selector, device)?;
    let (table, vm) = listed_table(selector, &vms)?;
    let name = target_name(table.target);
    let fail = |error: SourceError| error.into_failure(&name);
    let (first, listed) = known.get_or_insert_with(|| (table, vms.clone()));
    if *first != table || !is_as_listed(table, listed, &vms) {
        return Err(Failure::from_status(Status::VM_GONE, &target_name(first.target)).into());
    }
    let facts = if vm.is_none() { read_facts(device)? } else { Vec::new() };
    let names = names::read(device, table.target, vm.as_ref(), &facts, context);
    let slots = device.start(Query::Walk { table, address });
    let slots = slots.map_err(|error| outside_space(fail(error), address, vm.as_ref()))?;
    let (mut walk, issues) = read(&mut Reader::new(slots), vm, address, &name, context)?;
    mark(&mut walk, &facts);
    walk.names = Rc::new(names);
    Ok((walk, issues))
}

/// Marks the last step, if its entry is something by its address.
fn mark(walk: &mut Walk, facts: &[Fact]) {
    let Some(step) = walk.steps.last_mut() else { return };
    let marks = Marks::of_table(facts, walk.table.target);
    let address = walk.address;
    let Ok(()) = marks.cut_row::<Infallible>(*step, &walk.table.geometry, |part| {
        if (part.ia..part.end()).contains(&address) {
            step.mark = part.mark;
        }
        Ok(())
    });
}

/// Reads the walk of `address` in the table `name`; returns it, and how many issues there were.
fn read<S: SlotSource>(
    reader: &mut Reader<S>,
    vm: Option<VmRecord>,
    address: u64,
    name: &str,
    context: &mut Context<'_>,
) -> Result<(Walk, u64), Stop> {
    let fail = |error: SourceError| error.into_failure(name);
    let (mut table, mut steps, mut issues, mut is_dying) = (None, Vec::new(), 0, false);
    loop {
        let event = reader.next_event();
        context.tell_issues(reader, &mut issues);
        match event.map_err(fail)? {
            Some(Event::Walk(found)) => table = Some(found),
            Some(Event::Row(step)) => steps.push(step),
            Some(Event::End(_, outcome)) => match outcome.status {
                // The steps were read, so they are shown, with the remark that the table is being taken apart.
                _ if outcome.is_dying && table.is_some() => is_dying = true,
                Some(status) if status != Status::OK => return Err(Failure::from_status(status, name).into()),
                _ => {}
            },
            Some(_) => {}
            None => break,
        }
    }
    match table {
        Some(table) => {
            let names = Rc::default();
            Ok((Walk { table, vm, address, steps, from_leaves: false, is_dying, names }, issues))
        }
        None => Err(fail(SourceError::Driver("a walk", "no walk".into())).into()),
    }
}

/// What a capture has of an address.
struct Found {
    address: u64,
    /// Its entry.
    entry: Option<Row>,
    /// The last table descriptor of each level above it, if the capture tells them.
    above: Vec<Row>,
}

impl Found {
    fn table(&mut self, row: Row) {
        if self.entry.is_none() && row.ia <= self.address && self.address < row.end() {
            self.above.retain(|step| step.level.get() < row.level.get());
            self.above.push(row);
        }
    }

    fn row(&mut self, row: Row, table: &TableFacts) {
        if self.entry.is_none() {
            let entry = row.clip(self.address, self.address.saturating_add(1), &table.geometry);
            self.entry = entry.map(Row::with_whole_entries);
        }
    }

    /// Returns the steps, and whether they are of leaves only; none if the entry was not captured.
    fn steps(self, table: &TableFacts) -> Option<(Vec<Row>, bool)> {
        let entry = self.entry?;
        // A table that became one entry of the level above was there when it was told, and is not above this entry.
        let levels = table.geometry.start_level().get()..entry.level.get();
        let above = self.above.into_iter().filter(|step| levels.contains(&step.level.get()));
        let steps: Vec<Row> = above.chain([entry]).collect();
        Some(if steps.len() <= levels.len() { (vec![entry], true) } else { (steps, false) })
    }
}

/// Reads the walks to `addresses`, each by itself, and how many issues there are.
fn from_file(
    selector: &Selector,
    addresses: &[u64],
    mut source: FileSource,
    context: &mut Context<'_>,
) -> Result<(Vec<Result<Walk, Failure>>, u64), Stop> {
    let mut reader = Reader::new(&mut source);
    let mut vms: Vec<VmRecord> = Vec::new();
    let mut vm = None;
    let mut facts: Vec<Fact> = Vec::new();
    let mut others = Vec::new();
    // The table that was asked for, once it has begun.
    let mut wanted: Option<TableFacts> = None;
    let mut names = Rc::<Names>::default();
    let found = |&address: &u64| Found { address, entry: None, above: Vec::new() };
    let mut found: Vec<Found> = addresses.iter().map(found).collect();
    let (mut issues, mut is_dying) = (0, false);
    loop {
        let event = reader.next_event();
        context.tell_issues(&mut reader, &mut issues);
        match event.map_err(|error| error.into_failure("capture"))? {
            Some(Event::Vm(listed)) => remember(&mut vms, listed),
            Some(Event::Fact(fact)) if facts.len() < MOST_FACTS => facts.push(fact),
            Some(Event::Dump(table)) => match resolve_captured(selector, &vms)? {
                Some((target, listed)) if target == table.target => {
                    check_listed(&table, &vms)?;
                    (wanted, vm) = (Some(table), listed);
                    names = Rc::new(names::of_captured(reader.told(), target, &facts));
                }
                _ => add_named(&mut others, table.target),
            },
            Some(Event::Table(row)) if wanted.is_some() => found.iter_mut().for_each(|found| found.table(row)),
            Some(Event::Row(row)) => {
                if let Some(table) = &wanted {
                    found.iter_mut().for_each(|found| found.row(row, table));
                }
            }
            // The first table is the answer, as it is for `dump -i`: a later one may be of another time, or of another VM.
            Some(Event::End(SlotKind::RANGES, outcome)) if wanted.is_some() => {
                is_dying = outcome.is_dying;
                break;
            }
            Some(_) => {}
            None => break,
        }
    }
    let Some(table) = wanted else { return Err(not_captured(selector, &vms, &others).into()) };
    let walk = |found: Found| {
        let address = found.address;
        let Some((steps, from_leaves)) = found.steps(&table) else {
            return Err(match address >= table.geometry.ia_end() {
                true => beyond(&table.name(), address, table.geometry.ia_bits()),
                false => {
                    let message = format_args!("{}: nothing captured at {address:#x}", table.name());
                    Failure::new(ExitCode::Partial, message)
                }
            });
        };
        let mut walk = Walk { table, vm, address, steps, from_leaves, is_dying, names: Rc::clone(&names) };
        mark(&mut walk, &facts);
        Ok(walk)
    };
    Ok((found.into_iter().map(walk).collect(), issues))
}
