// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Judges: how an answer of ours, one expected of QEMU and the MMU's compare.

use crate::answer::{Answer, Reasoned};
use crate::choices::Choices;
use crate::divergence::Divergence;
use crate::mmu::LowerExit;
use crate::par::Outcome;
use crate::prediction::Prediction;
use s2dump_vmsa::fault::Access;

/// How an answer and the MMU's compare.
pub(crate) enum Verdict {
    Agree,
    Diverge(Divergence),
    Gone(Divergence),
    Differ,
}

/// Stands for all mapped answers where neither address nor type is seen.
pub(crate) const RAN: Outcome = Outcome::Mapped { pa: 0, attr: 0, sh: 0 };

/// Returns what is seen of a prediction when something runs: neither address nor type, which are AT's to compare.
pub(crate) fn without_types(prediction: Prediction) -> Prediction {
    let seen = |answer| match answer {
        Answer::Is(Outcome::Mapped { .. }) | Answer::ReservedType { .. } => Answer::Is(RAN),
        other => other,
    };
    let Prediction { ours, qemu, .. } = prediction;
    Prediction {
        ours: Reasoned { answer: seen(ours.answer), ..ours },
        qemu: qemu.map(|(why, answer)| (why, seen(answer))),
        choices: Choices::default(),
    }
}

/// Returns whether QEMU would abort on it in AT.
pub(crate) fn is_permission_fault(prediction: &Prediction) -> bool {
    let is = |answer: Answer| matches!(answer, Answer::Is(Outcome::Fault { status: 0x0c..=0x0f, .. }));
    is(prediction.ours.answer) || prediction.qemu.is_some_and(|(_, answer)| is(answer))
}

/// Returns what an exit says about `address`: `None` if it is about something else.
pub(crate) fn lower_outcome(exit: &LowerExit, access: Access, address: u64) -> Option<Outcome> {
    const WFI: u64 = 0x01;
    const FETCH: u64 = 0x20;
    const DATA: u64 = 0x24;
    let is_there = exit.far == address && exit.hpfar >> 4 & 0xff_ffff_ffff == address >> 12;
    match (exit.esr >> 26, access) {
        (WFI, Access::Execute) if exit.elr == address => Some(RAN),
        (WFI, Access::Read | Access::Write) => Some(RAN),
        (FETCH, Access::Execute) | (DATA, Access::Read | Access::Write) if exit.far == address => {
            let status = (exit.esr & 0x3f) as u8;
            // HPFAR_EL2 is not valid for permission faults of the access itself, though QEMU writes it.
            (is_there || status & 0x3c == 0x0c).then_some(Outcome::Fault { status, is_stage2: true })
        }
        _ => None,
    }
}

/// Returns how a prediction and the MMU's answer compare.
pub(crate) fn verdict(prediction: &Prediction, got: Outcome) -> Verdict {
    let ours = agrees(prediction.ours.answer, got);
    match prediction.qemu {
        Some((why, answer)) if answer != prediction.ours.answer => match (agrees(answer, got), ours) {
            (true, _) => Verdict::Diverge(why),
            (false, true) if !why.known().is_choice => Verdict::Gone(why),
            (false, _) => Verdict::Differ,
        },
        _ if ours => Verdict::Agree,
        _ => Verdict::Differ,
    }
}

fn agrees(answer: Answer, got: Outcome) -> bool {
    match (answer, got) {
        (Answer::Is(expected), got) => expected == got,
        (Answer::ReservedType { pa: expected }, Outcome::Mapped { pa, .. }) => pa == expected,
        (Answer::ReservedType { .. } | Answer::Wrong(_), _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAULT: Outcome = Outcome::Fault { status: 0x04, is_stage2: true };

    /// Names the verdict when we say `ours`, QEMU is known to say `qemu`, and `got` is what came.
    fn judged(ours: Answer, qemu: Option<(Divergence, Answer)>, got: Outcome) -> &'static str {
        let ours = Reasoned { answer: ours, path: None, refused: None, is_base_beyond: false };
        match verdict(&Prediction { ours, qemu, choices: Choices::default() }, got) {
            Verdict::Agree => "agree",
            Verdict::Diverge(_) => "diverge",
            Verdict::Gone(_) => "gone",
            Verdict::Differ => "differ",
        }
    }

    #[test]
    fn good_agreement() {
        assert_eq!(judged(Answer::Is(FAULT), None, FAULT), "agree");
        assert_eq!(judged(Answer::Is(FAULT), Some((Divergence::HighBits, Answer::Is(FAULT))), FAULT), "agree");
    }

    #[test]
    fn bad_other_answers() {
        assert_eq!(judged(Answer::Is(FAULT), None, RAN), "differ");
        assert_eq!(judged(Answer::ReservedType { pa: 0x1000 }, None, RAN), "differ");
        let third = Outcome::Abort { status: 0x14 };
        assert_eq!(judged(Answer::Is(FAULT), Some((Divergence::HighBits, Answer::Is(RAN))), third), "differ");
    }

    #[test]
    fn bad_a_divergence_that_is_gone() {
        let qemu = |why| Some((why, Answer::Is(RAN)));
        assert_eq!(judged(Answer::Is(FAULT), qemu(Divergence::HighBits), RAN), "diverge");
        assert_eq!(judged(Answer::Is(FAULT), qemu(Divergence::HighBits), FAULT), "gone");
        // What the architecture leaves open has one expected answer all the same.
        assert_eq!(judged(Answer::Is(FAULT), qemu(Divergence::Granule), FAULT), "differ");
    }

    #[test]
    fn good_exits_about_the_access_only() {
        let exit = LowerExit { esr: 0x24 << 26 | 0x0f, elr: 0, far: 0x2800, hpfar: 0x20 };
        let denied = Outcome::Fault { status: 0x0f, is_stage2: true };
        assert_eq!(lower_outcome(&exit, Access::Write, 0x2800), Some(denied));
        assert_eq!(lower_outcome(&exit, Access::Write, 0x3800), None);
        assert_eq!(lower_outcome(&exit, Access::Execute, 0x2800), None);
    }
}
