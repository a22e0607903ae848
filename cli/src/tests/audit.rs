// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each rule can fail: one change of a machine in order, and exactly that rule says so.

use super::support::pkvm::{self, *};
use super::support::*;
use crate::audit::pace::Pace;
use crate::audit::rules::RULES;
use crate::audit::settle::{Again, Seen, Stored};
use crate::audit::sight::Sight;
use crate::audit::{self, Report};
use crate::machine::tree::SecondPass;
use crate::machine::Machine;
use crate::reader::Reader;
use crate::source::file::FileSource;
use s2dump_abi::slot::{slot_flags, vm_flags, Fact, Record, RecordKind, VmRecord};
use s2dump_abi::target::Target;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::Cursor;

/// Reads a machine as a verb does.
pub(super) fn read(machine: &pkvm::Machine) -> Machine {
    read_bytes(machine.capture().bytes)
}

fn read_bytes(bytes: Vec<u8>) -> Machine {
    let source = FileSource::new(Box::new(Cursor::new(bytes)), "test".into());
    let mut reader = Reader::new(source);
    let mut read = Machine::default();
    while let Some(event) = reader.next_event().unwrap() {
        assert_eq!(reader.next_issue(), None);
        read.take(event);
    }
    read
}

fn audit(machine: &pkvm::Machine) -> Report {
    audit::audit(RULES, &read(machine), &mut Stored::default(), &no_hurry())
}

fn no_hurry() -> Pace<'static> {
    Pace::new(&|| false)
}

/// The rules that findings name, each once.
fn found(report: &Report) -> Vec<&'static str> {
    let mut ids: Vec<&'static str> = report.findings.iter().map(|finding| finding.rule.id).collect();
    ids.dedup();
    ids
}

#[test]
fn good_machine_has_no_findings() {
    for machine in [machine(), pages::larger(&machine())] {
        let report = audit(&machine);
        let told: Vec<_> =
            report.findings.iter().map(|finding| (finding.rule.id, &finding.why, &finding.site)).collect();
        assert!(told.is_empty(), "{told:#x?}");
        assert!(report.not_run.is_empty(), "{:?}", report.not_run);
        assert_eq!((report.unsettled.len(), report.dismissed, report.asked.len()), (0, 0, RULES.len()));
    }
}

/// What was removed was there.
fn remove(entry: Option<Entry>) {
    assert!(entry.is_some());
}

/// A frame says something that a count can settle.
fn counted(machine: &mut pkvm::Machine, pa: u64, frame: u64) {
    machine.frame(pa, 1, frame);
    machine.counted.push(pa);
}

/// What is done to a machine, and which rule says so.
type Case = (&'static str, &'static str, fn(&mut pkvm::Machine));

const BAD: &[Case] = &[
    ("host-identity", "a page leads to its neighbor", |m| m.host().map(PLAIN, 3, 1, PLAIN + 0x8000, PAGE)),
    ("host-rights", "memory that is read-only", |m| m.host().map(PLAIN, 3, 1, PLAIN, PAGE & !(1 << 7))),
    ("host-rights", "a device that is executable", |m| m.host().map(0x0900_0000, 3, 1, 0x0900_0000, PAGE)),
    ("host-rights", "memory that is device", |m| m.host().map(PLAIN, 3, 1, PLAIN, PAGE & !(0xf << 2) | 1 << 2)),
    ("host-border", "a block of memory and devices", |m| {
        m.host().entries.remove(&RAM_END);
        m.host().map(RAM_END, 2, 1, RAM_END, BLOCK);
        m.host().tables.retain(|table| table.ia != RAM_END);
    }),
    ("host-annotation-memory", "a device is donated", |m| m.host().annotate(0x0900_0000, 1, HYP_OWNED)),
    ("host-annotation-memory", "memory without states is donated", |m| m.host().annotate(RAM_END, 1, HYP_OWNED)),
    ("host-annotation-owner", "an owner that is none", |m| m.host().annotate(POOL + 0x8_0000, 1, 2 << 60 | 5 << 1)),
    ("host-annotation-owner", "the hypervisor with metadata", |m| {
        m.host().annotate(POOL + 0x8_0000, 1, HYP_OWNED | 16)
    }),
    ("hyp-text-read-only", "EL2's code is writable", |m| m.host().map(TEXT, 3, 1, TEXT, PAGE)),
    ("hyp-text-read-only", "EL2's code is a hole", |m| remove(m.host().entries.remove(&TEXT))),
    ("guest-exclusive", "the host maps a guest's page", |m| m.host().map(PROTECTED_PA, 3, 1, PROTECTED_PA, PAGE)),
    ("guest-exclusive", "EL2 maps a guest's page", |m| {
        m.hyp().map(HYP_BASE + PROTECTED_PA, 3, 1, PROTECTED_PA, HYP_RW);
    }),
    ("guest-exclusive", "an ordinary guest maps it", |m| {
        m.guest(0x1003).map(MULTI_IA + 0x8000, 3, 1, PROTECTED_PA, PAGE | SHARED_BORROWED);
    }),
    ("guest-exclusive", "another protected guest maps what one shares", |m| {
        m.guest(0x1001).map(PROTECTED_IA + 0x8000, 3, 1, PROTECTED_PA + 0x1000, PAGE | SHARED_OWNED);
    }),
    ("owned-donated", "the host has a hole there", |m| remove(m.host().entries.remove(&PROTECTED_PA))),
    ("owned-donated", "it is donated to the hypervisor", |m| m.host().annotate(PROTECTED_PA, 1, HYP_OWNED)),
    ("donation-backed", "the guest has a hole there", |m| {
        m.guest(0x1000).entries.remove(&PROTECTED_IA);
    }),
    ("donation-backed", "there is no such guest", |m| {
        m.host().annotate(PLAIN, 1, donated(0x1042, 0));
        m.frame(PLAIN, 1, FRAME_GUEST);
    }),
    ("donation-backed", "the guest is ordinary", |m| {
        m.host().annotate(PLAIN, 1, donated(0x1002, 0x9000_0000));
        m.frame(PLAIN, 1, FRAME_GUEST);
    }),
    ("protected-leaf", "it is read-only", |m| {
        m.guest(0x1000).map(PROTECTED_IA, 3, 1, PROTECTED_PA, PAGE & !(1 << 7));
    }),
    ("protected-leaf", "it is borrowed", |m| {
        m.guest(0x1000).map(PROTECTED_IA + 0x8000, 3, 1, PROTECTED_PA + 0x1000, PAGE | SHARED_BORROWED);
        m.frame(PROTECTED_PA + 0x1000, 1, 0);
    }),
    ("ordinary-borrowed", "it is owned", |m| m.guest(0x1003).map(MULTI_IA, 3, 1, MULTI_PA, PAGE)),
    ("ordinary-donated", "a page of EL2's pool", |m| {
        m.guest(0x1003).map(MULTI_IA + 0x8000, 3, 1, POOL + 0x8_0000, PAGE | SHARED_BORROWED);
    }),
    ("guest-memory", "a device", |m| {
        m.guest(0x1003).map(MULTI_IA + 0x8000, 3, 1, 0x0900_0000, PAGE | SHARED_BORROWED);
    }),
    ("guest-memory", "memory without states", |m| {
        m.guest(0x1003).map(MULTI_IA + 0x8000, 3, 1, RAM_END, PAGE | SHARED_BORROWED);
    }),
    ("guest-poison", "in an ordinary guest", |m| m.guest(0x1003).annotate(MULTI_IA + 0x8000, 1, POISONED)),
    ("guest-poison", "an annotation of the host's", |m| m.guest(0x1000).annotate(PROTECTED_IA + 0xa000, 1, HYP_OWNED)),
    ("table-owned", "the host may map it", |m| {
        let table = m.guest(0x1000).tables[0].pa;
        m.host().entries.remove(&table);
    }),
    ("table-owned", "EL2 does not own it", |m| {
        let table = m.guest(0x1000).tables[0].pa;
        m.frame(table, 1, FRAME_GUEST);
        m.hyp().entries.remove(&(HYP_BASE + table));
    }),
    ("table-once", "two guests have it", |m| m.guest(0x1003).tables[0].pa = m.guest(0x1002).tables[0].pa),
    ("table-once", "a guest has it twice", |m| m.guest(0x1002).tables[0].pa = m.guest(0x1002).tables[1].pa),
    ("table-in-guest", "an ordinary guest maps one of the host's", |m| {
        let table = m.host().tables[0].pa;
        m.guest(0x1003).map(MULTI_IA + 0x8000, 3, 1, table, PAGE | SHARED_BORROWED);
    }),
    ("table-in-guest", "a protected guest maps its own root", |m| {
        let root = m.guest(0x1000).header.root;
        m.guest(0x1000).map(PROTECTED_IA + 0xa000, 3, 1, root, PAGE);
    }),
    ("hyp-write-execute", "of the pool", |m| {
        m.hyp().map(HYP_BASE + POOL + 0x8_0000, 3, 1, POOL + 0x8_0000, HYP_RW & !(1 << 54));
    }),
    ("hyp-mapping", "a page of the host's", |m| m.hyp().map(HYP_BASE + PLAIN, 3, 1, PLAIN, HYP_RW)),
    ("frame-donated", "the host maps what is not its", |m| m.frame(PLAIN, 1, FRAME_GUEST)),
    ("frame-donated", "a hole where the frame is not its", |m| m.frame(PLAIN + 0x8000, 1, FRAME_GUEST)),
    ("frame-donated", "an annotation where the frame is its", |m| m.frame(POOL + 0x8_0000, 1, 0x3000_0001)),
    ("frame-hyp-owned", "it is a guest's", |m| m.frame(PROTECTED_PA, 1, FRAME_HYP)),
    ("frame-hyp-owned", "EL2 does not own it", |m| m.frame(POOL + 0x8_0000, 1, FRAME_GUEST)),
    ("frame-shares", "EL2 borrows what the host does not share", |m| m.frame(SHARED + 0x1000, 1, 0x1000_0000)),
    ("frame-shares", "shared with EL2 and a guest", |m| {
        m.frame(MULTI_PA + 0x3000, 1, FRAME_HYP_SHARED | lent(1));
    }),
    ("frame-shares", "a state that there is not", |m| m.frame(PLAIN, 1, 0x0400_0000)),
    ("frame-pinned", "references, and EL2 does not map it", |m| m.frame(SHARED + 0x1000, 1, FRAME_HYP_SHARED | 1)),
    ("frame-pinned", "a hole in EL2's table", |m| remove(m.hyp().entries.remove(&(HYP_BASE + SHARED)))),
    ("frame-borrowed", "the host owns what a guest shares", |m| m.frame(PROTECTED_PA + 0x1000, 1, 0)),
    ("frame-lent", "the host owns what a guest borrows", |m| m.frame(MULTI_PA + 0x2000, 1, 0)),
    ("share-count", "one too many", |m| counted(m, MULTI_PA, lent(3))),
    ("share-count", "of a block's page", |m| counted(m, BLOCK_PA + 0x5000, lent(2))),
    ("share-count", "nobody maps it", |m| counted(m, PLAIN, lent(1))),
    ("borrowed-lender", "nobody shares it", |m| counted(m, PLAIN, FRAME_BORROWED)),
    ("entry-locked", "of the host", |m| m.host().annotate(PLAIN, 1, 1 << 60)),
    ("entry-locked", "of a guest", |m| m.guest(0x1000).annotate(PROTECTED_IA + 0xa000, 1, 1 << 60)),
    ("entry-reserved", "of the host", |m| m.host().put(PLAIN, 3, RecordKind::RESERVED, PLAIN | 0b01)),
    ("entry-reserved", "of EL2", |m| m.hyp().put(HYP_BASE + PLAIN, 3, RecordKind::RESERVED, PLAIN | 0b01)),
    ("entry-outside", "of a guest", |m| {
        m.guest(0x1003).put(0x6000_0000, 2, RecordKind::TABLE_OUTSIDE, 0x0900_0003);
    }),
    ("entry-outside", "a loop", |m| m.guest(0x1003).put(0x6000_0000, 2, RecordKind::TABLE_LOOP, 0x4040_0003)),
    ("vm-vmid", "another", |m| m.vms[3].vmid = 9),
    ("vm-vmid", "that of the host", |m| m.vms[3].vmid = 0),
    ("vm-unique", "one root of two VMs", |m| {
        m.vms.push(vm(0x1005, "430-13", vm_flags::CREATED));
        m.vms[5].root = m.vms[3].root;
    }),
];

#[test]
fn bad_machines_break_the_rule_and_no_other() {
    for (rule, name, change) in BAD {
        let mut changed = machine();
        change(&mut changed);
        for (pages, changed) in [("4 KiB", changed.clone()), ("16 KiB", pages::larger(&changed))] {
            let report = audit(&changed);
            let told: Vec<_> = report.findings.iter().map(|finding| (finding.rule.id, &finding.why)).collect();
            assert_eq!(found(&report), [*rule], "{pages}, {name}: {told:?}, unsettled {:?}", report.unsettled);
        }
    }
}

#[test]
fn each_rule_has_a_machine_that_breaks_it() {
    let broken: BTreeSet<&str> = BAD.iter().map(|(rule, ..)| *rule).collect();
    let all: BTreeSet<&str> = RULES.iter().map(|rule| rule.id).collect();
    assert_eq!(broken, all);
    assert_eq!(all.len(), RULES.len(), "ids are different");
    for rule in RULES {
        assert!(rule.id.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", rule.id);
        for other in rule.yields_to {
            assert!(all.contains(other) && *other != rule.id, "{} yields to {other}", rule.id);
        }
    }
}

/// Trees at rest say nothing of a frame that was read before them and changed since.
#[test]
fn good_frames_that_move_are_unsettled() {
    let mut broken = machine();
    broken.frame(PLAIN, 1, FRAME_GUEST);
    assert_eq!(found(&audit(&broken)), ["frame-donated"]);
    let settled = |later: &pkvm::Machine| {
        let mut bytes = broken.capture().bytes;
        bytes.extend(later.frames().bytes);
        let report = audit::audit(RULES, &read_bytes(bytes), &mut Stored::default(), &no_hurry());
        (found(&report), report.unsettled.iter().map(|one| one.rule.id).collect::<Vec<_>>())
    };
    assert_eq!(settled(&broken), (vec!["frame-donated"], vec![]));
    assert_eq!(settled(&machine()), (vec![], vec!["frame-donated"]), "another reading says something else");
    let mut other = broken.clone();
    other.frame(PLAIN + 0x1000, 1, FRAME_GUEST);
    assert_eq!(settled(&other), (vec!["frame-donated"], vec![]), "of another frame");
}

/// EL2's table is at rest though the pages of the ring that it has mapped are others, and what a slot looks at.
#[test]
fn good_ring_and_fixmap_are_at_rest() {
    let second = |again: &pkvm::Machine| {
        let first = read_by(PLAIN, None);
        let mut bytes = [first.facts(), first.dump(&first.trees[1], slot_flags::EXACT)].map(|part| part.bytes).concat();
        bytes.extend(again.dump(&again.trees[1], slot_flags::EXACT).bytes);
        read_bytes(bytes).tree(Target::HYP).unwrap().second
    };
    let mut again = read_by(PLAIN, Some(SECOND_PA));
    remove(again.hyp().entries.remove(&(HYP_BASE + PLAIN)));
    again.hyp().map(HYP_BASE + PLAIN + 0x3000, 3, 1, PLAIN + 0x3000, HYP_RW);
    assert_eq!(second(&again), SecondPass::Same);
    again.hyp().map(HYP_BASE + PLAIN + 0x4000, 3, 1, PLAIN + 0x4000, HYP_RW);
    assert_eq!(second(&again), SecondPass::Differs, "a page that is none of the ring");
}

/// Where memory begins or ends within a page, that page is what its first byte is.
#[test]
fn good_memory_may_begin_within_a_page() {
    for (mut odd, page) in [(machine(), 0x1000), (pages::larger(&machine()), pages::PAGE_BYTES)] {
        odd.facts[0].size -= page / 2;
        let second = &mut odd.facts[1];
        let ram_end = second.start;
        (second.start, second.size) = (second.start + page / 4, second.size - page / 2);
        // Less than a page, and none of it where one begins.
        let tiny = Fact { start: second.start + page, size: page / 4, ..*second };
        odd.facts.push(tiny);
        odd.host().map(ram_end, 3, 1, ram_end, PAGE | XN);
        let report = audit(&odd);
        assert_eq!(found(&report), Vec::<&str>::new(), "{:?}", report.findings);
        odd.host().map(ram_end, 3, 1, ram_end, PAGE);
        assert_eq!(found(&audit(&odd)), ["host-rights"], "the page that is memory only further on");
    }
}

/// A VM that began while the machine was captured may be who maps what is counted.
#[test]
fn good_vms_that_begin_meanwhile_are_no_finding() {
    let late = |last: &dyn Fn(&mut Vec<VmRecord>)| {
        let mut late = machine();
        counted(&mut late, PLAIN, lent(1));
        late.guest(0x1000).map(PROTECTED_IA, 3, 1, PROTECTED_PA, PAGE & !(1 << 7));
        let mut bytes = late.capture().bytes;
        last(&mut late.vms);
        bytes.extend(late.list().bytes);
        let report = audit::audit(RULES, &read_bytes(bytes), &mut Stored::default(), &no_hurry());
        (found(&report), report.unsettled.iter().map(|one| one.rule.id).collect::<Vec<_>>())
    };
    assert_eq!(late(&|_| {}), (vec!["protected-leaf", "share-count"], vec![]));
    let begins =
        |vms: &mut Vec<VmRecord>| vms.push(VmRecord { root: 0x4050_0000, ..vm(0x1005, "9-9", vm_flags::CREATED) });
    assert_eq!(late(&begins), (vec!["protected-leaf"], vec!["share-count"]));
    let is_another = |vms: &mut Vec<VmRecord>| vms[0].pid += 1;
    assert_eq!(late(&is_another), (vec!["share-count"], vec!["protected-leaf"]), "has the handle and the root");
}

/// A guest of the first list that went away before it was read is not missed.
#[test]
fn good_vms_that_end_meanwhile_are_not_missed() {
    let mut gone = machine();
    gone.trees.retain(|tree| tree.header.target != Target::guest(0x1002).0);
    let lists = |first: &pkvm::Machine, last: &dyn Fn(&mut Vec<VmRecord>)| {
        let mut later = first.clone();
        last(&mut later.vms);
        read_bytes([first.capture().bytes, later.list().bytes].concat()).missed().count()
    };
    let read_with = |last: &dyn Fn(&mut Vec<VmRecord>)| lists(&gone, last);
    assert_eq!(read_with(&|_| {}), 1);
    assert_eq!(read_with(&|vms| vms.retain(|vm| vm.handle != 0x1002)), 0);
    assert_eq!(read_with(&|vms| vms[2].flags |= vm_flags::DYING), 0);
    let mut forgotten = gone.clone();
    (forgotten.vms[2].pid, forgotten.vms[2].name) = (0, [0; 24]);
    assert_eq!(lists(&forgotten, &|_| {}), 0, "the host has no such VM any more");
}

/// Of frames with one count, each is counted again.
#[test]
fn bad_counts_of_neighbors_are_all_seen() {
    let mut counted = machine();
    counted.frame(PLAIN, 3, lent(1));
    let mut recount = Recount { wrong: PLAIN + 0x2000, rounds: 0, right_in: 0 };
    let report = audit::audit(RULES, &read(&counted), &mut recount, &no_hurry());
    let told: Vec<_> = report.findings.iter().map(|one| (one.rule.id, one.site.pa)).collect();
    assert_eq!(told, [("share-count", PLAIN + 0x2000)]);
    counted.frame(PLAIN, 65, lent(1));
    recount.wrong = 0;
    let report = audit::audit(RULES, &read(&counted), &mut recount, &no_hurry());
    assert_eq!((found(&report), report.unsettled.len()), (vec![], 1), "the last was not counted again");
}

/// A guest that takes a page and gives it back can have it at both readings and at no scan, but not each time.
#[test]
fn good_counts_that_are_right_once_are_no_finding() {
    let mut lent_to_nobody = machine();
    lent_to_nobody.frame(PLAIN, 1, lent(1));
    for (right_in, expected) in [(0, vec!["share-count"]), (6, vec![]), (7, vec!["share-count"])] {
        let mut recount = Recount { wrong: PLAIN, rounds: 0, right_in };
        let report = audit::audit(RULES, &read(&lent_to_nobody), &mut recount, &no_hurry());
        assert_eq!((found(&report), recount.rounds), (expected, 6), "right in round {right_in}");
    }
}

/// Counts right again what is not at one address, and in one round that too.
struct Recount {
    wrong: u64,
    rounds: u32,
    right_in: u32,
}

impl Again for Recount {
    fn look(&mut self, pa: u64, places: &[(Target, u64)], machine: &Machine) -> Result<Seen, String> {
        Stored::default().look(pa, places, machine)
    }

    fn recount(&mut self, sights: &[Sight], _: &Machine) -> Vec<Result<Sight, String>> {
        self.rounds += 1;
        let is_wrong = |sight: &Sight| sight.pa == self.wrong && self.rounds != self.right_in;
        let frame = |sight: &Sight| if is_wrong(sight) { sight.frame } else { Some(0) };
        sights.iter().map(|sight| Ok(Sight { frame: frame(sight), ..sight.clone() })).collect()
    }

    fn list(&mut self, machine: &Machine) -> Result<Vec<VmRecord>, String> {
        Stored::default().list(machine)
    }
}

/// A change that is not there any more at a second look is no finding, and one of which there is none is unsettled.
#[test]
fn good_what_moves_is_no_finding() {
    let mut moved = machine();
    moved.host().entries.remove(&PROTECTED_PA);
    moved.host().at_rest = false;
    let report = audit(&moved);
    let unsettled: Vec<_> = report.unsettled.iter().map(|unsettled| unsettled.rule.id).collect();
    assert_eq!((found(&report), unsettled), (vec![], vec!["owned-donated", "frame-donated"]));

    let step = |ia, raw| {
        run(ia, 3, 1, if raw & 1 == 1 { RecordKind::LEAF } else { RecordKind::INVALID }, raw & 0xffff_f000, raw, 1)
    };
    let see = |host: u64, frame: u64| {
        let mut seen = moved.clone();
        let guest = step(PROTECTED_IA, PROTECTED_PA | PAGE);
        let places: [(Target, u64, &[Record]); 2] = [
            (Target::HOST, PROTECTED_PA, &[step(PROTECTED_PA, host)]),
            (Target::guest(0x1000), PROTECTED_IA, &[guest]),
        ];
        seen.look(PROTECTED_PA, frame, &places);
        audit(&seen)
    };
    let report = see(donated(0x1000, PROTECTED_IA), FRAME_GUEST);
    assert_eq!((found(&report), report.unsettled.len(), report.dismissed), (vec![], 0, 2));
    let report = see(0, FRAME_GUEST);
    assert_eq!((found(&report), report.unsettled.len()), (vec!["owned-donated"], 0));
}

/// Says that another VM has the handle now, and its root at the same address.
struct Reused;

impl Again for Reused {
    fn look(&mut self, pa: u64, places: &[(Target, u64)], machine: &Machine) -> Result<Seen, String> {
        Stored::default().look(pa, places, machine)
    }

    fn recount(&mut self, sights: &[Sight], machine: &Machine) -> Vec<Result<Sight, String>> {
        Stored::default().recount(sights, machine)
    }

    fn list(&mut self, machine: &Machine) -> Result<Vec<VmRecord>, String> {
        let ordinary = |vm: &VmRecord| VmRecord { flags: vm.flags & !vm_flags::PROTECTED, ..*vm };
        Ok(machine.vms.iter().map(|vm| if vm.handle == 0x1000 { ordinary(vm) } else { *vm }).collect())
    }
}

#[test]
fn good_another_vm_with_the_handle_is_no_finding() {
    let mut changed = machine();
    changed.guest(0x1000).map(PROTECTED_IA, 3, 1, PROTECTED_PA, PAGE & !(1 << 7));
    changed.guest(0x1003).map(MULTI_IA, 3, 1, MULTI_PA, PAGE);
    let report = audit::audit(RULES, &read(&changed), &mut Reused, &no_hurry());
    assert_eq!(found(&report), ["ordinary-borrowed"], "of the guest that is the listed one");
    assert_eq!(report.unsettled.iter().map(|one| one.rule.id).collect::<Vec<_>>(), ["protected-leaf"]);
}

/// An entry that leads nowhere says nothing of a page, so it hides nothing of the pages at 0.
#[test]
fn bad_odd_entries_are_of_no_page() {
    let mut changed = machine();
    changed.guest(0x1003).put(0x6000_0000, 2, RecordKind::TABLE_OUTSIDE, 0x0900_0003);
    let report = audit(&changed);
    let told: Vec<_> =
        report.findings.iter().map(|one| (one.rule.id, one.site.bytes, one.site.frame.is_some())).collect();
    assert_eq!(told, [("entry-outside", 0, false)]);
}

/// A count is settled by guests at rest between two equal readings.
#[test]
fn good_counts_that_move_are_unsettled() {
    let mut lent_to_three = machine();
    counted(&mut lent_to_three, MULTI_PA, lent(3));
    assert_eq!(found(&audit(&lent_to_three)), ["share-count"]);
    let is_open = |machine: &pkvm::Machine, why: &str| {
        let report = audit(machine);
        assert_eq!((found(&report), report.unsettled.len()), (vec![], 1), "{why}");
    };
    let mut other = lent_to_three.clone();
    other.look(MULTI_PA, lent(2), &[]);
    is_open(&other, "the second reading differs");
    let mut other = lent_to_three.clone();
    other.guest(0x1003).at_rest = false;
    is_open(&other, "a guest moved");
    let mut other = lent_to_three.clone();
    other.counted.clear();
    (0..6).for_each(|_| other.look(MULTI_PA, lent(3), &[]));
    is_open(&other, "no reading before the tables were read again");
}

/// Android's machine has guests with blocks and devices, pages of modules, and a page that a guest shares with EL2.
#[test]
fn good_android_machine_has_no_findings() {
    let report = audit(&android::machine());
    let told: Vec<_> = report.findings.iter().map(|finding| (finding.rule.id, &finding.why, &finding.site)).collect();
    assert!(told.is_empty(), "{told:#x?}");
    assert_eq!((report.unsettled.len(), report.dismissed), (0, 0));
    let not_run: Vec<_> = report.not_run.iter().map(|(rule, why)| (rule.id, why.clone())).collect();
    let not_there = [
        "host-rights",
        "host-border",
        "host-annotation-memory",
        "owned-donated",
        "donation-backed",
        "protected-leaf",
        "guest-memory",
        "table-owned",
        "hyp-write-execute",
        "hyp-mapping",
        "frame-hyp-owned",
        "frame-shares",
        "frame-pinned",
        "frame-borrowed",
        "share-count",
        "borrowed-lender",
    ];
    assert_eq!(not_run, not_there.map(|id| (id, audit::NotRun::NotApplicable)));
}

/// What is asked of Android's machine can fail there.
const BAD_ANDROID: &[Case] = &[
    ("host-identity", "a page leads to its neighbor", |m| m.host().map(PLAIN, 3, 1, PLAIN + 0x8000, PAGE)),
    ("host-annotation-owner", "an owner that is none", |m| m.host().annotate(POOL + 0x8_0000, 1, 5 << 2)),
    ("host-annotation-owner", "mainline's annotation", |m| m.host().annotate(0x0900_4000, 1, HYP_OWNED)),
    ("host-annotation-owner", "an MMIO guard", |m| m.host().annotate(0x0900_4000, 1, android::MMIO_GUARD)),
    ("host-annotation-owner", "the secure world", |m| m.host().annotate(0x0900_4000, 1, 2 << 2)),
    ("hyp-text-read-only", "EL2's code is writable", |m| m.host().map(TEXT, 3, 1, TEXT, PAGE)),
    ("guest-exclusive", "the host maps a guest's page", |m| m.host().map(PROTECTED_PA, 3, 1, PROTECTED_PA, PAGE)),
    ("guest-exclusive", "the host maps a page of a guest's block", |m| {
        m.host().map(android::PROTECTED_BLOCK, 2, 1, android::PROTECTED_BLOCK, BLOCK);
    }),
    ("guest-exclusive", "EL2 maps a page that a guest owns", |m| {
        m.hyp().map(HYP_BASE + PROTECTED_PA, 3, 1, PROTECTED_PA, HYP_RW | SHARED_BORROWED);
    }),
    ("guest-exclusive", "EL2 owns what a guest shares", |m| {
        m.hyp().map(HYP_BASE + android::HYP_BORROWS, 3, 1, android::HYP_BORROWS, HYP_RW);
    }),
    ("ordinary-borrowed", "it is tainted", |m| {
        m.guest(0x1003).map(MULTI_IA, 3, 1, MULTI_PA, PAGE | android::TAINTED);
    }),
    ("ordinary-donated", "a page of EL2's pool", |m| {
        m.guest(0x1003).map(MULTI_IA + 0x8000, 3, 1, POOL + 0x8_0000, PAGE | SHARED_BORROWED);
    }),
    ("guest-poison", "a guard in an ordinary guest", |m| {
        m.guest(0x1003).annotate(MULTI_IA + 0x8000, 1, android::MMIO_GUARD);
    }),
    ("guest-poison", "mainline's poison", |m| m.guest(0x1000).annotate(PROTECTED_IA + 0xc000, 1, POISONED)),
    ("guest-poison", "an owner", |m| m.guest(0x1000).annotate(PROTECTED_IA + 0xc000, 1, android::GUEST)),
    ("table-once", "two guests have it", |m| m.guest(0x1003).tables[0].pa = m.guest(0x1002).tables[0].pa),
    ("table-in-guest", "a protected guest maps its own root", |m| {
        let root = m.guest(0x1000).header.root;
        m.guest(0x1000).map(PROTECTED_IA + 0xc000, 3, 1, root, PAGE);
    }),
    ("frame-donated", "the host maps what is not its", |m| m.frame(PLAIN, 1, android::FRAME_NO_PAGE)),
    ("frame-donated", "a module has taken what the host maps", |m| {
        m.frame(android::MODULE, 1, android::FRAME_MODULE_NO_PAGE);
    }),
    ("frame-donated", "an annotation where the frame is a module's", |m| {
        m.frame(android::MODULE + 0x1000, 1, android::FRAME_MODULE);
    }),
    ("frame-lent", "the host owns what a guest borrows", |m| m.frame(MULTI_PA + 0x2000, 1, 0)),
    ("entry-locked", "of the host", |m| m.host().annotate(PLAIN, 1, 1 << 10)),
    ("entry-locked", "of a guest", |m| m.guest(0x1000).annotate(PROTECTED_IA + 0xc000, 1, 1 << 10)),
    ("entry-reserved", "of EL2", |m| m.hyp().put(HYP_BASE + SHARED, 3, RecordKind::RESERVED, SHARED | 0b01)),
    ("entry-outside", "a loop", |m| m.guest(0x1003).put(0x6000_0000, 2, RecordKind::TABLE_LOOP, 0x4040_0003)),
    ("vm-vmid", "another", |m| m.vms[3].vmid = 9),
    ("vm-unique", "one root of two VMs", |m| {
        m.vms.push(vm(0x1005, "430-13", vm_flags::CREATED));
        m.vms[5].root = m.vms[3].root;
    }),
];

#[test]
fn bad_android_machines_break_the_rule_and_no_other() {
    for (rule, name, change) in BAD_ANDROID {
        let mut changed = android::machine();
        change(&mut changed);
        let report = audit(&changed);
        let told: Vec<_> = report.findings.iter().map(|finding| (finding.rule.id, &finding.why)).collect();
        assert_eq!(found(&report), [*rule], "{name}: {told:?}, unsettled {:?}", report.unsettled);
    }
    let broken: BTreeSet<&str> = BAD_ANDROID.iter().map(|(rule, ..)| *rule).collect();
    let asked: BTreeSet<&str> = audit(&android::machine()).asked.iter().map(|rule| rule.id).collect();
    assert_eq!(broken, asked);
}

/// Of another kernel nothing is claimed but what holds for any.
#[test]
fn good_other_encodings_are_not_judged() {
    let mut other = machine();
    other.trees.iter_mut().for_each(|tree| tree.header.encoding = 77);
    let report = audit(&other);
    let asked: Vec<_> = report.asked.iter().map(|rule| rule.id).collect();
    assert_eq!(asked, ["host-identity", "entry-reserved", "entry-outside"]);
    assert!(report.not_run.iter().all(|(_, why)| *why == audit::NotRun::NotApplicable));
    assert_eq!(found(&report), Vec::<&str>::new());
}

/// Without EL2's table, the rules that need it are named.
#[test]
fn good_rules_that_cannot_run_are_named() {
    let mut without = machine();
    without.trees.remove(1);
    let report = audit(&without);
    let not_run: Vec<_> = report.not_run.iter().map(|(rule, _)| rule.id).collect();
    assert_eq!((found(&report), not_run), (vec![], vec!["hyp-write-execute", "hyp-mapping", "frame-pinned"]));
}

/// Without facts, a slot through which EL2 looks at a guest's page is like any entry, and EL2's code like any page.
#[test]
fn good_nothing_is_claimed_without_facts() {
    let mut without = machine();
    without.facts.clear();
    let report = audit(&without);
    let not_run: Vec<_> = report.not_run.iter().map(|(rule, _)| rule.id).collect();
    assert_eq!(found(&report), Vec::<&str>::new());
    let needed =
        ["host-rights", "hyp-text-read-only", "hyp-mapping", "frame-donated", "frame-hyp-owned", "frame-pinned"];
    assert!(needed.iter().all(|rule| not_run.contains(rule)), "{not_run:?}");
}

/// Pages of s2dump's ring come and go with each call. Only what was seen of them at one moment counts.
#[test]
fn pages_of_the_ring_are_never_at_rest() {
    let mut moving = pkvm::read_by(PLAIN, None);
    moving.hyp().entries.remove(&(HYP_BASE + PLAIN));
    let report = audit(&moving);
    let unsettled: Vec<_> = report.unsettled.iter().map(|one| one.rule.id).collect();
    assert_eq!((found(&report), unsettled), (vec![], vec!["frame-pinned"]));
    moving.look(PLAIN, FRAME_HYP_SHARED | 1, &[(Target::HYP, HYP_BASE + PLAIN, &[hole(HYP_BASE + PLAIN, 3, 1)])]);
    assert_eq!(found(&audit(&moving)), ["frame-pinned"]);
}

/// Whenever an audit is stopped, what it found is true, and the rules that it did not ask to their end are named.
#[test]
fn good_what_is_stopped_claims_nothing() {
    let mut broken = machine();
    broken.host().map(PROTECTED_PA, 3, 1, PROTECTED_PA, PAGE);
    broken.guest(0x1003).annotate(MULTI_IA + 0x8000, 4, POISONED);
    let machine = read(&broken);
    let all = found(&audit(&broken));
    let stopped_after = |questions: u32| {
        let left = Cell::new(questions);
        let is_over = || {
            left.set(left.get().saturating_sub(1));
            left.get() == 0
        };
        audit::audit(RULES, &machine, &mut Stored::default(), &Pace::new(&is_over))
    };
    let mut stopped = 0;
    for questions in 1..1000 {
        let report = stopped_after(questions);
        assert!(found(&report).iter().all(|id| all.contains(id)), "{questions}: {:?}", report.findings);
        assert!(report.not_run.iter().all(|(_, why)| *why == audit::NotRun::NoTime), "{:?}", report.not_run);
        assert_eq!(report.asked.len() + report.not_run.len(), RULES.len());
        let is_asked = |id: &str| report.asked.iter().any(|rule| rule.id == id);
        let is_seen = |id: &str| found(&report).contains(&id) || report.unsettled.iter().any(|one| one.rule.id == id);
        assert!(all.iter().all(|id| !is_asked(id) || is_seen(id)), "{questions}: neither found nor open");
        if report.not_run.is_empty() && report.unsettled.is_empty() {
            assert_eq!(found(&report), all);
            break;
        }
        stopped += 1;
    }
    assert_eq!((stopped_after(1).asked.len(), all.len()), (0, 2));
    assert!((10..900).contains(&stopped), "{stopped}");
}
