// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Compares one answer of ours with the MMU's.

use crate::answer::Answer;
use crate::arena::Arena;
use crate::cpu::Cpu;
use crate::divergence::Divergence;
use crate::mmu::{El2, El2Exit, Lower, LowerExit, Mmu, Run, Stage2, Walked};
use crate::par::Outcome;
use crate::prediction::{self, Prediction};
use crate::report::{Group, Report};
use crate::verdict::{is_permission_fault, lower_outcome, verdict, without_types, Verdict, RAN};
use core::fmt::Display;
use s2dump_hyp::walker::Entry;
use s2dump_vmsa::fault::{Access, Privilege};

/// All that cases need.
pub struct Compare<'a, M> {
    /// The machine.
    pub mmu: &'a mut M,
    /// Memory for tables.
    pub arena: Arena<'a>,
    /// What the CPU has.
    pub cpu: Cpu,
    /// Results.
    pub report: Report<'a>,
    /// Which group is counted.
    pub group: Group,
    /// What is tried, for failures: a name and a number.
    pub case: (&'static str, u64),
    /// Print each case before it is tried: the last one printed is what QEMU aborted on.
    pub is_traced: bool,
    /// Where code for runs below EL2 stands, and where a page full of trapped instructions.
    pub places: Places,
}

/// Pages of the image that cases map.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// The load, which is the start of a 4 KiB page.
    pub code: u64,
    /// The target of loads, stores and fetches: 64 KiB full of WFI, aligned to that.
    pub target: u64,
    /// The target of fetches at EL2: 64 KiB full of SMC, aligned to that.
    pub el2_target: u64,
    /// Vectors for those: 64 KiB full of another SMC, aligned to that.
    pub el2_vectors: u64,
}

impl<M: Mmu> Compare<'_, M> {
    /// Tries AT S12E1R and, `is_write`, AT S12E1W.
    pub fn at_s12(&mut self, settings: &Stage2, is_write: bool, ia: u64) {
        let access = if is_write { Access::Write } else { Access::Read };
        let prediction = prediction::stage2(&mut self.arena, &self.cpu, settings, access, Privilege::Privileged, ia);
        if is_permission_fault(&prediction) {
            self.report.left_to_accesses += 1;
            return;
        }
        let name = if is_write { "AT S12E1W" } else { "AT S12E1R" };
        if self.is_traced {
            self.explain(settings, &prediction, ia, name, &"(not asked yet)");
        }
        let walked = self.mmu.at_s12(settings, is_write, ia);
        self.judge(settings, &prediction, outcome(walked), ia, name);
    }

    /// Tries AT S12E1R where stage 2 denies it: QEMU does not survive that, so that what follows is of a better one.
    pub fn at_s12_denied(&mut self, settings: &Stage2, ia: u64) {
        let (access, who, name) = (Access::Read, Privilege::Privileged, "AT S12E1R");
        let prediction = prediction::stage2(&mut self.arena, &self.cpu, settings, access, who, ia);
        if !is_permission_fault(&prediction) {
            return self.fail(settings, &prediction, ia, name, &"(not asked: this is no permission fault)");
        }
        self.explain(settings, &prediction, ia, name, &"(not asked yet)");
        let got = outcome(self.mmu.at_s12(settings, false, ia));
        self.gone(Divergence::AtPermissionAborts);
        self.explain(settings, &prediction, ia, name, &got);
    }

    /// Tries both, with stage 1 giving Normal memory, and a read with stage 1 giving Device.
    pub fn at_s12_all(&mut self, settings: &Stage2, ia: u64) {
        let normal = Stage2 { dc: true, ..*settings };
        self.at_s12(&normal, false, ia);
        self.at_s12(&normal, true, ia);
        self.at_s12(&Stage2 { dc: false, ..*settings }, false, ia);
    }

    /// Tries AT S1E2R and W.
    pub fn at_s1e2(&mut self, settings: &El2, va: u64) {
        for (access, name) in [(Access::Read, "AT S1E2R"), (Access::Write, "AT S1E2W")] {
            let prediction = prediction::el2(&mut self.arena, &self.cpu, settings, access, va);
            let walked = self.mmu.at_s1e2(settings, access == Access::Write, va);
            self.judge(settings, &prediction, outcome(walked), va, name);
        }
    }

    /// Tries a load, store or fetch below EL2; `code` is where the code is mapped, which does the loads and stores.
    pub fn access(&mut self, settings: &Stage2, lower: Lower, access: Access, code: u64, address: u64) {
        let privilege = match lower {
            Lower::El1 => Privilege::Privileged,
            Lower::El0 => Privilege::Unprivileged,
        };
        let prediction = prediction::stage2(&mut self.arena, &self.cpu, settings, access, privilege, address);
        let (run, name) = match access {
            Access::Read => (Run::Load { code, address }, "load"),
            Access::Write => (Run::Store { code, address }, "store"),
            Access::Execute => (Run::Fetch { address }, "fetch"),
        };
        let exit = self.mmu.run_lower(settings, lower, run);
        let got = lower_outcome(&exit, access, address);
        let prediction = without_types(prediction);
        let Some(got) = got else {
            return self.fail(settings, &prediction, address, name, &ShowExit(exit));
        };
        self.judge(settings, &prediction, got, address, name);
    }

    /// Tries a fetch at EL2, whose vectors are at `vectors`.
    pub fn fetch_el2(&mut self, settings: &El2, va: u64, vectors: u64) {
        let prediction = prediction::el2(&mut self.arena, &self.cpu, settings, Access::Execute, va);
        let prediction = without_types(prediction);
        let got = match self.mmu.run_el2(settings, va, vectors) {
            El2Exit::Ran => RAN,
            El2Exit::Exception { esr, far } if esr >> 26 == 0x21 && far == va => {
                Outcome::Fault { status: (esr & 0x3f) as u8, is_stage2: false }
            }
            El2Exit::Exception { esr, far } => {
                let exit = ShowExit(LowerExit { esr, far, ..LowerExit::default() });
                return self.fail(settings, &prediction, va, "fetch at EL2", &exit);
            }
        };
        self.judge(settings, &prediction, got, va, "fetch at EL2");
    }

    /// Fails because a divergence that a case looked for by itself was not there.
    pub fn gone(&mut self, divergence: Divergence) {
        if self.report.fail() {
            let (name, number) = self.case;
            let gone = divergence.known().name;
            self.report.print(format_args!("FAILED: {name} {number:#x}: divergence {gone} is gone: remove it\n"));
        }
    }

    /// Fails because a range shows `entry` where the walk to `ia` does not, or leaves `ia` out.
    pub fn fail_range(&mut self, settings: &Stage2, ia: u64, entry: &Entry) {
        if self.report.fail() {
            let (name, number) = self.case;
            self.report
                .print(format_args!("FAILED: {name} {number}\n  range at {ia:#x} with {settings}: {entry:x?}\n"));
        }
    }

    /// Counts and judges.
    fn judge(&mut self, settings: &dyn Display, prediction: &Prediction, got: Outcome, ia: u64, what: &str) {
        self.report.count(self.group);
        match verdict(prediction, got) {
            Verdict::Agree => {
                if prediction.ours.path.is_some_and(|path| path.has_loop) {
                    self.report.loops += 1;
                }
                prediction.choices.into_iter().flatten().for_each(|choice| self.report.diverged(choice));
            }
            Verdict::Diverge(divergence) => self.report.diverged(divergence),
            Verdict::Gone(divergence) => {
                if self.report.fail() {
                    let name = divergence.known().name;
                    self.report.print(format_args!("FAILED: divergence {name} is gone: remove it\n"));
                    self.explain(settings, prediction, ia, what, &got);
                }
            }
            Verdict::Differ => self.fail(settings, prediction, ia, what, &got),
        }
    }

    /// Counts a failure, and prints it in full.
    pub fn fail(&mut self, settings: &dyn Display, prediction: &Prediction, ia: u64, what: &str, got: &dyn Display) {
        if self.report.fail() {
            let (name, number) = self.case;
            self.report.print(format_args!("FAILED: {name} {number} ({number:#x})\n"));
            self.explain(settings, prediction, ia, what, got);
        }
    }

    fn explain(&mut self, settings: &dyn Display, prediction: &Prediction, ia: u64, what: &str, got: &dyn Display) {
        let report = &mut self.report;
        report.print(format_args!("  {what} of {ia:#x} with {settings}\n"));
        if let Some(refused) = prediction.ours.refused {
            report.print(format_args!("  refused: {refused:?}\n"));
        }
        for (at, entry) in prediction.ours.path.iter().flat_map(crate::path::Path::entries) {
            let (level, raw, kind) = (entry.level.get(), entry.raw.to_bits(), entry.kind);
            report.print(format_args!("  L{level} at {at:#x}: {raw:#018x} {kind:?}\n"));
        }
        report.print(format_args!("  we say     {}\n", Show(prediction.ours.answer)));
        if let Some((why, answer)) = prediction.qemu {
            report.print(format_args!("  expected   {} ({})\n", Show(answer), why.known().name));
        }
        report.print(format_args!("  MMU says   {got}\n"));
    }
}

fn outcome(walked: Walked) -> Outcome {
    match walked {
        Walked::Par(par) => Outcome::from_par(par),
        Walked::Abort(esr) => Outcome::from_abort(esr),
    }
}

struct Show(Answer);

impl Display for Show {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Answer::Is(outcome) => outcome.fmt(f),
            Answer::ReservedType { pa } => write!(f, "address {pa:#x}, any type"),
            Answer::Wrong(error) => write!(f, "the walker contradicts itself: {error:?}"),
        }
    }
}

struct ShowExit(LowerExit);

impl Display for ShowExit {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let LowerExit { esr, elr, far, hpfar } = self.0;
        write!(f, "ESR_EL2 {esr:#x} ELR_EL2 {elr:#x} FAR_EL2 {far:#x} HPFAR_EL2 {hpfar:#x}")
    }
}
