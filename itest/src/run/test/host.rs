// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who owns every page: the host's table, EL2's own, what pKVM keeps about page frames, and all of them about one page.
//!
//! Decodes with a few lines of its own, as `decode` does: nothing here is shared with the program.

use super::support::{check_nothing_broken, handle_of, vm_of};
use super::{tests, Ignored, Outcome};
use crate::device::Device;
use crate::dump::{entry_bytes, Dump, Examined};
use crate::machine::{Flavor, Machine};
use crate::memory::{gives_52_bit_addresses, PageMap};
use crate::program;
use crate::scale::at;
use crate::script::page_bytes;
use crate::vmm_process::VmmProcess;
use anyhow::{bail, ensure, Context as _, Result};
use rustix::io::Errno;
use s2dump_abi::hypercall::{DumpFlags, Op, Status, DEFAULT_BUDGET, MAX_BUDGET, MIN_BUDGET};
use s2dump_abi::ioctl::Start;
use s2dump_abi::slot::{
    fact_flags, frame_flags, record_flags, table_features, Fact, FactKind, FrameRecord, Record, RecordKind,
};
use s2dump_abi::target::{Place, Target, PLACES};
use s2dump_abi::version::{features, ABI_VERSION};
use std::ops::Range;
use zerocopy::FromZeros as _;

tests!(On:
    words_of_the_boot,
    host_table_is_the_identity,
    host_table_is_as_the_kernel_says,
    host_table_within_budget,
    donated_pages_are_annotated,
    el2_table_has_no_writable_code,
    el2_table_is_as_wide_as_the_kernel,
    frames_are_those_of_memory,
    frames_of_known_pages,
    frames_within_budget,
    examine_one_page_everywhere,
    wrong_starts_of_the_whole_machine,
);

/// Returns a start of anything, of which the rest is to be filled in.
fn a_start(op: Op) -> Start {
    Start { size: size_of::<Start>() as u32, version: ABI_VERSION.to_bits(), op: op.0, ..Start::new_zeroed() }
}

/// Returns an exact dump of all of a table.
fn a_dump_of(target: Target) -> Start {
    Start { target: target.0, end: u64::MAX, flags: DumpFlags::EXACT.0, ..a_start(Op::DUMP) }
}

fn all_frames() -> Start {
    Start { end: u64::MAX, ..a_start(Op::FRAMES) }
}

/// Runs it; it must end well.
fn run_on(device: &Device, start: &Start) -> Result<Dump> {
    let dump = device.run(start)?;
    ensure!(dump.status()? == Status::OK, "ended with {:?}", dump.status()?);
    Ok(dump)
}

fn run(start: &Start) -> Result<Dump> {
    run_on(&Device::open()?, start)
}

fn facts_of(facts: &[Fact], kind: FactKind) -> impl Iterator<Item = &Fact> + Clone {
    facts.iter().filter(move |fact| fact.kind == kind.0)
}

fn examine(frame: u64, places: &[(Target, u64)]) -> Result<Examined> {
    let mut start = Start { start: frame, ..a_start(Op::EXAMINE) };
    for (place, (target, address)) in start.places.iter_mut().zip(places) {
        *place = Place::new(*target, *address).context("no place")?.0;
    }
    let dump = run(&start)?;
    let header = dump.headers.first().context("no slot")?;
    ensure!(header.start == frame, "{header:x?}");
    let examined = Examined::of(&dump)?;
    ensure!(examined.places.len() == places.len(), "{examined:x?}");
    for ((place, _), (target, address)) in examined.places.iter().zip(places) {
        ensure!((place.descriptor, place.ia) == (target.0, *address), "another place: {place:x?}");
    }
    Ok(examined)
}

/// An invalid entry of the host's table that is not zero: whose page it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Hyp,
    Guest {
        handle: u16,
        ipa: u64,
    },
    /// The entry does not tell which.
    SomeGuest,
}

impl Owner {
    /// The guest with `handle`, as far as this kernel tells.
    fn guest(flavor: Flavor, handle: u16, ipa: u64) -> Self {
        match flavor {
            Flavor::Mainline => Self::Guest { handle, ipa },
            Flavor::Android => Self::SomeGuest,
        }
    }
}

fn owner(flavor: Flavor, descriptor: u64) -> Result<Owner> {
    const DONATION: u64 = 2;
    if flavor == Flavor::Android {
        return match descriptor {
            0x4 => Ok(Owner::Hyp),
            0xc => Ok(Owner::SomeGuest),
            _ => bail!("an owner that is none here: {descriptor:#x}"),
        };
    }
    ensure!(descriptor >> 60 == DONATION && descriptor & 1 == 0, "no donation: {descriptor:#x}");
    let metadata = (descriptor >> 4) & ((1 << 56) - 1);
    match (descriptor >> 1) & 7 {
        1 if metadata == 0 => Ok(Owner::Hyp),
        2 => Ok(Owner::Guest { handle: metadata as u16, ipa: (metadata >> 16) * page_bytes() }),
        _ => bail!("an owner pKVM never writes: {descriptor:#x}"),
    }
}

/// pKVM's states, as mainline's numbers.
const OWNED: u64 = 0;
const SHARED_OWNED: u64 = 1;
const SHARED_BORROWED: u64 = 2;
const NOPAGE: u64 = 3;

/// `struct hyp_page`, as far as this looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    host: u64,
    /// Not every kernel keeps it here.
    hyp: Option<u64>,
    guests: u64,
}

fn frame(raw: u64) -> Result<Frame> {
    /// The number of `PKVM_NOPAGE` in Android's kernel.
    const ANDROID_NOPAGE: u64 = 8;
    let guests = raw >> 32;
    Ok(match (Flavor::look()?, (raw >> 24) & 0xff) {
        (Flavor::Mainline, states) => Frame { host: states & 0xf, hyp: Some(states >> 4 ^ 3), guests },
        (Flavor::Android, ANDROID_NOPAGE) => Frame { host: NOPAGE, hyp: None, guests },
        (Flavor::Android, NOPAGE) => bail!("a tainted page: {raw:#x}"),
        (Flavor::Android, host) => Frame { host, hyp: None, guests },
    })
}

const fn state(host: u64, hyp: u64) -> Frame {
    Frame { host, hyp: Some(hyp), guests: 0 }
}

impl Frame {
    /// Returns whether it is so, as far as this kernel tells.
    fn is(&self, expected: Self) -> bool {
        *self == Self { hyp: self.hyp.and(expected.hyp), ..expected }
    }
}

/// Returns the state of the frame at `pa`.
fn frame_at(frames: &[FrameRecord], pa: u64) -> Result<Frame> {
    let covers = |record: &&FrameRecord| (record.pa..record.pa + u64::from(record.count) * page_bytes()).contains(&pa);
    let record = frames.iter().find(covers).with_context(|| format!("no frame at {pa:#x}"))?;
    ensure!(record.flags & frame_flags::NO_STATE == 0, "no state: {record:x?}");
    frame(record.raw)
}

/// Each page that the VMM says the guest has, with its output address.
fn pages_of(vmm: &VmmProcess) -> Result<Vec<(u64, u64)>> {
    let mut pages = Vec::new();
    for run in &vmm.expected.runs {
        let oa = run.entry.oa.context("start the VMM with --physical")?;
        pages.extend((0..run.count).map(|n| (run.ia + n * page_bytes(), oa + n * page_bytes())));
    }
    Ok(pages)
}

/// A page of this process, which nobody else has.
fn page_of_the_host() -> Result<(Vec<u8>, u64)> {
    let bytes = vec![1; 3 * page_bytes() as usize];
    // Its own page, not one with what the allocator keeps.
    let address = (bytes.as_ptr().addr() as u64).next_multiple_of(page_bytes());
    let physical = PageMap::open()?.physical_address(address)?;
    Ok((bytes, physical))
}

/// Checks that a start is refused for want of a word, with that status, unless it is permitted.
fn refused_unless(is_permitted: bool, start: &mut Start, status: Status) -> Outcome {
    let expected = if is_permitted { (Ok(()), Status::OK) } else { (Err(Errno::PERM), status) };
    let answer = Device::open()?.start_telling(start);
    ensure!(answer == expected, "{start:x?}: {answer:?}");
    Ok(())
}

/// What the words of the boot permit, and nothing else, is told as a feature and is done.
fn words_of_the_boot(machine: &Machine) -> Outcome {
    let told = Device::open()?.hello()?.features;
    ensure!((told & features::HYP_STAGE1 != 0) == machine.hyp, "features {told:#x}");
    ensure!((told & features::ATOMIC != 0) == machine.atomic, "features {told:#x}");
    for feature in [features::HOST_STAGE2, features::FRAMES, features::FACTS, features::EXAMINE] {
        ensure!(told & feature != 0, "features {told:#x} without {feature:#x}");
    }
    let walk = Start { flags: 0, end: 0, op: Op::WALK.0, ..a_dump_of(Target::HYP) };
    for mut start in [a_dump_of(Target::HYP), Start { flags: 0, ..a_dump_of(Target::HYP) }, walk] {
        refused_unless(machine.hyp, &mut start, Status::HYP_NOT_PERMITTED)?;
    }
    let mut atomic = Start { end: page_bytes(), flags: DumpFlags::ATOMIC.0, ..a_dump_of(Target::HOST) };
    refused_unless(machine.atomic, &mut atomic, Status::ATOMIC_NOT_PERMITTED)?;
    let facts = run(&a_start(Op::FACTS))?.facts;
    let of_el2_alone =
        [FactKind::FIXMAP, FactKind::FIXBLOCK, FactKind::HYP_PRIVATE, FactKind::HYP_VMEMMAP, FactKind::HYP_LINEAR];
    for kind in of_el2_alone {
        let is_told = facts_of(&facts, kind).next().is_some();
        ensure!(is_told == machine.hyp, "{kind:?} is told: {is_told}; {facts:x?}");
    }
    let places = [0, Place::new(Target::HYP, 0).context("no place")?.0, 0];
    let mut start = Start { start: machine.ram.first().context("no memory")?.start, places, ..a_start(Op::EXAMINE) };
    refused_unless(machine.hyp, &mut start, Status::HYP_NOT_PERMITTED)
}

/// Checks the headers of a table of which there is one, and returns its root.
fn check_headers(dump: &Dump, target: Target) -> Result<u64> {
    let first = dump.headers.first().context("no slot")?;
    let encoding = Flavor::look()?.encoding();
    for header in &dump.headers {
        ensure!((header.target, header.root) == (target.0, first.root), "of another table: {header:x?}");
        ensure!(header.encoding == encoding && 1 << header.page_shift == page_bytes(), "{header:x?}");
        ensure!(header.vmid == 0 && header.flags & !1 == 0, "of a guest: {header:x?}");
        ensure!((header.mair != 0) == (target == Target::HYP), "MAIR: {header:x?}");
        ensure!(header.vtcr != 0 && header.root != 0 && header.root % page_bytes() == 0, "registers: {header:x?}");
    }
    let last = dump.headers.last().context("no slot")?;
    ensure!(first.start == 0 && last.next == 1 << first.ia_bits, "covers {:#x} to {:#x}", first.start, last.next);
    Ok(first.root)
}

fn host_table_is_the_identity(machine: &Machine) -> Outcome {
    let _guest = VmmProcess::start("protected touch:64")?;
    let mut root = None;
    for budget in [0, 211] {
        let dump = run(&Start { budget, ..a_dump_of(Target::HOST) })?;
        let found = check_headers(&dump, Target::HOST)?;
        ensure!(root.is_none_or(|root| root == found), "two roots: {root:x?}, {found:#x}");
        root = Some(found);
        let (mut memory, mut hyp, mut guest) = (0, 0, 0);
        for record in &dump.records {
            match RecordKind(record.kind) {
                RecordKind::LEAF => {
                    let is_linear = record.flags & record_flags::LINEAR != 0;
                    ensure!(record.oa == record.ia && is_linear, "not the identity: {record:x?}");
                    let size = entry_bytes(record.level).context("level")?;
                    memory += if machine.is_ram(record.ia) { u64::from(record.count) * size } else { 0 };
                }
                RecordKind::INVALID if record.descriptor == 0 => ensure!(record.oa == 0, "{record:x?}"),
                RecordKind::INVALID => {
                    let is_page = record.level == 3 || machine.flavor == Flavor::Android;
                    ensure!(is_page && record.oa == 0, "an annotation above level 3: {record:x?}");
                    match owner(machine.flavor, record.descriptor)? {
                        Owner::Hyp => hyp += record.count,
                        Owner::Guest { .. } | Owner::SomeGuest => guest += record.count,
                    }
                }
                kind => bail!("a record of kind {kind:?}: {record:x?}"),
            }
        }
        println!("  {} calls: {memory:#x} bytes of memory, {hyp} pages of EL2, {guest} of guests", dump.headers.len());
        ensure!(memory > 0 && hyp > 0 && guest >= 64, "{memory:#x} bytes, {hyp} and {guest} pages");
    }
    let named = Start { root: root.context("no root")?, ..a_dump_of(Target::HOST) };
    run(&named)?;
    let mut other = Start { root: named.root + page_bytes(), ..named };
    let refused = Device::open()?.start_telling(&mut other);
    ensure!(refused == (Err(Errno::STALE), Status::VM_GONE), "of another root: {refused:?}");
    Ok(())
}

/// Ranges of the kernel's text, each with its rights and state; a hole has none.
fn ranges_of(text: &str) -> Result<Vec<(Range<u64>, String)>> {
    let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).with_context(|| word.to_owned());
    let mut ranges = Vec::new();
    for line in text.lines().skip(1) {
        let (range, rest) = line.split_once(' ').context("a range")?;
        let (start, end) = range.split_once('-').with_context(|| line.to_owned())?;
        // Size and level are as tables are cut, which changes when a page is given away and comes back.
        let words = rest.split_whitespace().skip(2).filter(|word| !["AF", "BLK"].contains(word));
        ranges.push((hex(start)?..hex(end)?, words.collect::<Vec<_>>().join(" ")));
    }
    Ok(ranges)
}

/// Android's kernel has a text of the host's table, made by other code at EL2. It lacks the last range, and the pages that
/// it lent to EL2 to make it.
fn host_table_is_as_the_kernel_says(machine: &Machine) -> Outcome {
    const FILE: &str = "/sys/kernel/debug/kvm/host_stage2_page_tables";
    /// The log that the text is made from grows with the table: 87 pages were seen.
    const MOST_LENT: u64 = 1024;
    if machine.flavor != Flavor::Android {
        return Err(Ignored("this kernel has no text of the host's table".into()).into());
    }
    let _guest = VmmProcess::start("protected touch:64")?;
    let file = std::fs::read_to_string(FILE)?;
    let text = program::run(&["dump", "host", "--format", machine.flavor.ptdump_format()])?.ok()?;
    let (theirs, ours) = (ranges_of(&file)?, ranges_of(&text)?);
    let (mut lent, mut same) = (0, 0);
    for (range, rights) in &theirs {
        for (other, others) in &ours {
            let both = range.start.max(other.start)..range.end.min(other.end);
            let bytes = both.end.saturating_sub(both.start);
            if bytes == 0 || !machine.is_ram(both.start) {
                continue;
            } else if rights == others {
                same += bytes;
            } else {
                ensure!(rights.is_empty(), "{both:x?}: the kernel says {rights:?}, we say {others:?}");
                lent += bytes / page_bytes();
            }
        }
    }
    let memory: u64 = machine.ram.iter().map(|range| range.end - range.start).sum();
    println!("  {} ranges of theirs, {} of ours; {lent} pages lent", theirs.len(), ours.len());
    ensure!(lent <= MOST_LENT, "{lent} pages are holes for the kernel, and not for us");
    ensure!(same + lent * page_bytes() >= memory / 10 * 9, "only {same:#x} bytes of {memory:#x} are compared");
    Ok(())
}

/// Checks for each budget that no call visits more, and that it is the budget in force.
fn check_budgets(request: &Start) -> Outcome {
    let budgets =
        [(0, DEFAULT_BUDGET), (1, MIN_BUDGET), (1000, 1000), (MAX_BUDGET, MAX_BUDGET), (u32::MAX, MAX_BUDGET)];
    for (asked, cap) in budgets {
        // A few at a time take too long for all of it.
        let end = if asked == 1 { request.start + 64 * page_bytes() } else { request.end };
        let dump = run(&Start { budget: asked, end, ..*request })?;
        let most = dump.end.context("no END slot")?.visited;
        ensure!(most <= cap && most > 0, "asked for {asked}: a call visited {most}, more than {cap}");
        ensure!(dump.headers.iter().all(|slot| slot.budget == cap), "asked for {asked}: not {cap} in force");
        println!("  budget {asked}: {} calls, {most} at most", dump.headers.len());
    }
    Ok(())
}

fn host_table_within_budget(machine: &Machine) -> Outcome {
    // From memory on: before it there are holes, so few descriptors.
    let start = machine.ram.first().context("no memory")?.start / page_bytes() * page_bytes();
    check_budgets(&Start { start, flags: 0, ..a_dump_of(Target::HOST) })
}

fn frames_within_budget(machine: &Machine) -> Outcome {
    check_budgets(&Start { start: machine.ram.first().context("no memory")?.start, ..all_frames() })
}

/// The host's table says of each page of a protected guest whose it is, and at which input address.
fn donated_pages_are_annotated(machine: &Machine) -> Outcome {
    let mut vmm = VmmProcess::start("protected --physical touch:16 touch:0x80300000+2")?;
    let handle = handle_of(&vmm)?;
    let walk_to = |pa: u64| -> Result<Record> {
        let walk = run(&Start { start: pa, target: Target::HOST.0, ..a_start(Op::WALK) })?;
        walk.records.last().copied().context("an empty walk")
    };
    for (ipa, pa) in pages_of(&vmm)? {
        let entry = walk_to(pa)?;
        ensure!(RecordKind(entry.kind) == RecordKind::INVALID && entry.level == 3, "{ipa:#x}: {entry:x?}");
        ensure!(
            owner(machine.flavor, entry.descriptor)? == Owner::guest(machine.flavor, handle, ipa),
            "{ipa:#x}: {entry:x?}"
        );
    }
    // Shared back, it is the host's to use again, without a note.
    vmm.steps("share:0x80004000+1")?;
    let pages = pages_of(&vmm)?;
    let (_, shared) = pages.iter().find(|(ipa, _)| *ipa == at(0x8000_4000)).context("no such page")?;
    let entry = walk_to(*shared)?;
    let is_hole = RecordKind(entry.kind) == RecordKind::INVALID && entry.descriptor == 0;
    ensure!(is_hole || RecordKind(entry.kind) == RecordKind::LEAF, "a shared page: {entry:x?}");
    vmm.end()
}

/// EL2's own table: nothing is both writable and executable, and its code is neither the host's nor writable.
fn el2_table_has_no_writable_code(machine: &Machine) -> Outcome {
    if !machine.hyp {
        return Ok(());
    }
    let facts = run(&a_start(Op::FACTS))?.facts;
    let text = facts_of(&facts, FactKind::HYP_TEXT).next().context("no HYP_TEXT")?;
    let linear = facts_of(&facts, FactKind::HYP_LINEAR).next().context("no HYP_LINEAR")?;
    for budget in [0, 211] {
        let dump = run(&Start { budget, ..a_dump_of(Target::HYP) })?;
        check_headers(&dump, Target::HYP)?;
        let hvhe = dump.headers[0].table_features & table_features::HVHE != 0;
        let (mut code, mut data) = (0, 0);
        for record in &dump.records {
            match RecordKind(record.kind) {
                RecordKind::LEAF => {
                    let bit = |n: u32| (record.descriptor >> n) & 1 == 1;
                    let inherited = record.flags & record_flags::INHERITED;
                    ensure!(inherited == 0, "pKVM sets no rights in tables: {record:x?}");
                    // With E2H both ELs have a bit each, and EL2 is the privileged one.
                    // Android's kernel sets that of EL0 alone, and relies on SCTLR_EL2.WXN.
                    let xn = if hvhe && machine.flavor == Flavor::Mainline { 53 } else { 54 };
                    let (writes, executes) = (!bit(7), !bit(xn));
                    ensure!(!(writes && executes), "writable and executable: {record:x?}");
                    let size = u64::from(record.count) * entry_bytes(record.level).context("level")?;
                    *(if executes { &mut code } else { &mut data }) += size;
                }
                // What a slot of the fixmap held last stays there, invalid.
                RecordKind::INVALID => {}
                kind => bail!("a record of kind {kind:?}: {record:x?}"),
            }
        }
        println!("  {} calls, hVHE {hvhe}: {code:#x} bytes of code, {data:#x} of data", dump.headers.len());
        ensure!(code >= text.size && data > 0, "less code than EL2 has: {code:#x} of {:#x}", text.size);
    }
    // The code in the linear map, and the page about it.
    for pa in [text.start, text.start + text.size - page_bytes()] {
        let walk = run(&Start { start: pa.wrapping_sub(linear.value), target: Target::HYP.0, ..a_start(Op::WALK) })?;
        let leaf = walk.records.last().context("an empty walk")?;
        ensure!(RecordKind(leaf.kind) == RecordKind::LEAF && leaf.oa == pa, "EL2's code at {pa:#x}: {leaf:x?}");
    }
    Ok(())
}

/// EL2 has as many address bits as the kernel, which gives programs as many if they ask: with 52, it begins at level -1.
fn el2_table_is_as_wide_as_the_kernel(machine: &Machine) -> Outcome {
    if !machine.hyp {
        return Ok(());
    }
    let bits = if gives_52_bit_addresses()? { 52 } else { 48 };
    let header = run(&a_dump_of(Target::HYP))?.headers[0];
    println!("  {bits} bits in the kernel, EL2 has {} from level {}", header.ia_bits, header.start_level);
    ensure!(u32::from(header.ia_bits) == bits, "{header:x?}");
    ensure!(header.start_level == if bits > 48 { -1 } else { 0 }, "{header:x?}");
    Ok(())
}

/// Frames are told of exactly what is memory, with a state unless it is not for the host to map.
fn frames_are_those_of_memory(machine: &Machine) -> Outcome {
    let device = Device::open()?;
    let facts = run_on(&device, &a_start(Op::FACTS))?.facts;
    let frames = run_on(&device, &all_frames())?.frames;
    let ranges = |no_state: bool| {
        let told = frames.iter().filter(|record| (record.flags & frame_flags::NO_STATE != 0) == no_state);
        joined(told.map(|record| record.pa..record.pa + u64::from(record.count) * page_bytes()))
    };
    let regions = |no_map: bool| {
        let all = facts_of(&facts, FactKind::MEMORY).filter(|fact| (fact.flags & fact_flags::NOMAP != 0) == no_map);
        joined(all.map(|fact| fact.start..fact.start + fact.size))
    };
    for without in [false, true] {
        let (told, known) = (ranges(without), regions(without));
        ensure!(told == known, "frames {told:x?}, memory {known:x?}; without a state: {without}");
    }
    let known = joined(facts_of(&facts, FactKind::MEMORY).map(|fact| fact.start..fact.start + fact.size));
    for range in &machine.ram {
        let pages = range.start..range.end / page_bytes() * page_bytes();
        let is_known = known.iter().any(|region| region.start <= pages.start && pages.end <= region.end);
        ensure!(is_known, "{range:x?} is memory, and EL2 knows {known:x?}");
    }
    Ok(())
}

/// Joins ranges that touch.
fn joined(ranges: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => joined.push(range),
        }
    }
    joined
}

fn frames_of_known_pages(_: &Machine) -> Outcome {
    let protected = VmmProcess::start("protected --physical touch:16 share:0x80003000+1")?;
    let ordinary = VmmProcess::start("ordinary --physical touch:16")?;
    let device = Device::open()?;
    let (bytes, of_host) = page_of_the_host()?;
    let facts = run_on(&device, &a_start(Op::FACTS))?.facts;
    let frames = run_on(&device, &all_frames())?.frames;
    let check = |what: &str, pa: u64, expected: Frame| {
        let found = frame_at(&frames, pa).with_context(|| what.to_owned())?;
        ensure!(found.is(expected), "{what} at {pa:#x}: {found:?} instead of {expected:?}");
        Ok(())
    };
    for (ipa, pa) in pages_of(&protected)? {
        // What the guest owns is neither the host's nor EL2's.
        let host = if ipa == at(0x8000_3000) { SHARED_BORROWED } else { NOPAGE };
        check("a protected guest's page", pa, state(host, NOPAGE))?;
    }
    for (_, pa) in pages_of(&ordinary)? {
        check("an ordinary guest's page", pa, Frame { guests: 1, ..state(SHARED_OWNED, NOPAGE) })?;
    }
    check("a page of this process", of_host, state(OWNED, NOPAGE))?;
    drop(bytes);
    let slots = device.hello()?.slots as usize;
    let ring: Vec<&Fact> = facts_of(&facts, FactKind::RING).collect();
    ensure!(ring.len() == slots, "{slots} slots, but {ring:x?}");
    for fact in ring {
        ensure!(fact.size > 0 && fact.size % page_bytes() == 0, "{fact:x?}");
        check("a slot", fact.start, state(SHARED_OWNED, SHARED_BORROWED))?;
        // The other pages of a slot are shared once a call needs them.
        for pa in (fact.start..fact.start + fact.size).step_by(page_bytes() as usize) {
            let found = frame_at(&frames, pa)?;
            let may_be = [state(OWNED, NOPAGE), state(SHARED_OWNED, SHARED_BORROWED)];
            ensure!(may_be.iter().any(|may_be| found.is(*may_be)), "a slot at {pa:#x}: {found:?}");
        }
    }
    for fact in facts_of(&facts, FactKind::HYP_TEXT) {
        check("EL2's code", fact.start, state(NOPAGE, OWNED))?;
    }
    protected.end()?;
    ordinary.end()
}

/// One call tells the same of a page as its owner, the host's table, EL2's, and the guest's do each.
fn examine_one_page_everywhere(machine: &Machine) -> Outcome {
    let mut vmm = VmmProcess::start("protected --physical touch:8")?;
    let vm = vm_of(vmm.expected.pid)?;
    let guest = Target::guest(vm.handle);
    let host_root = run(&a_dump_of(Target::HOST))?.headers[0].root;
    let look = |ipa: u64, pa: u64| -> Result<(Frame, Record, Record)> {
        let mut places = vec![(Target::HOST, pa), (guest, ipa)];
        if machine.hyp {
            places.push((Target::HYP, pa));
        }
        ensure!(places.len() <= PLACES);
        let examined = examine(pa, &places)?;
        let roots: Vec<u64> = examined.places.iter().map(|(place, _)| place.oa).collect();
        ensure!(roots[..2] == [host_root, vm.root], "roots {roots:x?}: of others");
        ensure!(examined.places.iter().all(|(place, walk)| place.count == 0 && !walk.is_empty()), "{examined:x?}");
        let last = |n: usize| examined.places[n].1.last().copied().context("no entry");
        Ok((frame(examined.frame.context("no state")?)?, last(0)?, last(1)?))
    };
    for (ipa, pa) in pages_of(&vmm)? {
        let (of_frame, of_host, of_guest) = look(ipa, pa)?;
        ensure!(of_frame.is(state(NOPAGE, NOPAGE)), "{pa:#x}: {of_frame:?}");
        let wanted = Owner::guest(machine.flavor, vm.handle, ipa);
        ensure!(owner(machine.flavor, of_host.descriptor)? == wanted, "{pa:#x}: {of_host:x?}");
        ensure!((of_guest.kind, of_guest.oa) == (RecordKind::LEAF.0, pa), "{ipa:#x}: {of_guest:x?}");
    }
    vmm.steps("share:1")?;
    let (ipa, pa) = pages_of(&vmm)?.into_iter().find(|(ipa, _)| *ipa == 0x8000_0000).context("no such page")?;
    let (of_frame, of_host, of_guest) = look(ipa, pa)?;
    ensure!(of_frame.is(state(SHARED_BORROWED, NOPAGE)), "shared: {of_frame:?}");
    ensure!(of_host.kind == RecordKind::LEAF.0 || of_host.descriptor == 0, "shared: {of_host:x?}");
    ensure!((of_guest.oa, (of_guest.descriptor >> 55) & 3) == (pa, SHARED_OWNED), "shared: {of_guest:x?}");

    // No memory, and no VM: the rest is told all the same.
    let other = Target::guest(0x10fe);
    let examined = examine(page_bytes(), &[(other, ipa), (guest, ipa), (Target::HOST, page_bytes())])?;
    ensure!(examined.frame.is_none(), "the state of what is no memory: {examined:x?}");
    let statuses: Vec<u32> = examined.places.iter().map(|(place, _)| place.count).collect();
    ensure!(statuses == [Status::NO_SUCH_VM.0, 0, 0], "{statuses:?}");
    ensure!(examined.places[0].0.oa == 0 && examined.places[0].1.is_empty(), "{examined:x?}");
    vmm.end()?;

    let none = examine(pa, &[])?;
    ensure!(none.frame.is_some() && none.places.is_empty(), "{none:x?}");
    Ok(())
}

/// What is wrong is refused by the status that says so, and nothing is broken afterwards.
fn wrong_starts_of_the_whole_machine(machine: &Machine) -> Outcome {
    let host = a_dump_of(Target::HOST);
    let bits = run(&host)?.headers[0].ia_bits;
    let (space, page) = (1_u64 << bits, page_bytes());
    let examine = Start { start: 0x4000_0000, ..a_start(Op::EXAMINE) };
    let refused_by_el2 = [
        Start { start: page / 2, ..host },
        Start { end: page + page / 2, ..host },
        Start { start: 2 * page, end: 2 * page, ..host },
        Start { start: space, ..host },
        Start { start: space, target: Target::HOST.0, ..a_start(Op::WALK) },
        Start { start: page / 2, ..all_frames() },
        Start { end: page + page / 2, ..all_frames() },
        Start { start: 2 * page, end: page, ..all_frames() },
        Start { start: 1 << 52, ..all_frames() },
        Start { start: !(page - 1), ..all_frames() },
        Start { start: 0x4000_0000 + page / 2, ..examine },
        Start { start: 1 << 52, ..examine },
    ];
    for mut start in refused_by_el2 {
        let refused = Device::open()?.start_telling(&mut start);
        ensure!(refused == (Err(Errno::RANGE), Status::BAD_RANGE), "{start:x?}: {refused:?}");
    }
    let refused_by_the_driver = [
        Start { target: Target::HOST.0 | 0x1000, ..host },
        Start { target: Target::HYP.0 | 1 << 55, ..host },
        Start { target: Target::HOST.0, ..all_frames() },
        Start { root: 1, ..all_frames() },
        Start { start: 1, ..a_start(Op::FACTS) },
        Start { budget: 1, ..a_start(Op::FACTS) },
        Start { end: 1, ..examine },
        Start { flags: 1, ..examine },
        Start { places: [1, 0, 0], ..host },
    ];
    for start in refused_by_the_driver {
        let refused = Device::open()?.start_telling(&mut start.clone());
        ensure!(refused == (Err(Errno::INVAL), Status::OK), "{start:x?}: {refused:?}");
    }
    // A kind of table that nobody knows, as a target and as a place.
    let unknown = Device::open()?.start_telling(&mut Start { target: 9 << 56, ..host });
    ensure!(unknown == (Err(Errno::OPNOTSUPP), Status::OK), "{unknown:?}");
    for place in [9 << 56, Place::new(Target::HOST, 0).context("no place")?.0 | 1 << 40] {
        let refused = Device::open()?.start_telling(&mut Start { places: [0, place, 0], ..examine });
        ensure!(refused == (Err(Errno::OPNOTSUPP), Status::UNKNOWN_TARGET), "{place:#x}: {refused:?}");
    }
    check_nothing_broken(machine)
}
