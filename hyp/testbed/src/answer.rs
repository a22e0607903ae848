// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! What walker and decoder say, put as what AT should leave.

use crate::arena::Arena;
use crate::memory_type::{combine, is_outer, shareability, Stage1};
use crate::mmu::{El2, Stage2};
use crate::par::Outcome;
use crate::path::{NoPath, Path};
use s2dump_hyp::table_memory::Root;
use s2dump_hyp::walker::EntryKind;
use s2dump_vmsa::attrs::Shareability;
use s2dump_vmsa::fault::{Access, Fault, Privilege};
use s2dump_vmsa::{Descriptor, Features, Geometry, GeometryError, Leaf, Level, PhysAddr};

/// What we say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This.
    Is(Outcome),
    /// Mapped to this address; the memory type is reserved, so that the architecture says nothing about it.
    ReservedType {
        /// The output address.
        pa: u64,
    },
    /// The walker contradicts itself.
    Wrong(NoPath),
}

/// Where the root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Where the base register says.
    OfRegister,
    /// Here, whatever the register says.
    At(u64),
}

/// An answer, and how we came to it.
#[derive(Clone, Copy, Debug)]
pub struct Reasoned {
    /// The answer.
    pub answer: Answer,
    /// The entries on the way, if there was one.
    pub path: Option<Path>,
    /// Why the registers are refused, if they are.
    pub refused: Option<GeometryError>,
    /// The base register is what is beyond the output size.
    pub is_base_beyond: bool,
}

impl Reasoned {
    const fn without_path(outcome: Outcome) -> Self {
        Self { answer: Answer::Is(outcome), path: None, refused: None, is_base_beyond: false }
    }
}

/// Answers for stage 2 under stage 1 off.
#[must_use]
pub fn stage2(
    arena: &Arena<'_>,
    features: Features,
    (settings, base): (&Stage2, Base),
    access: Access,
    privilege: Privilege,
    ia: u64,
) -> Reasoned {
    // Stage 1, being off, still wants an address that exists.
    if ia >> features.pa_max_bits != 0 {
        return Reasoned::without_path(Outcome::fault(Fault::AddressSize, Level::L0, false));
    }
    let stage1 = if settings.dc { Stage1::WriteBack } else { Stage1::Device };
    walk(arena, Geometry::from_vtcr(settings.vtcr, features), (settings.vttbr, base), ia, true, |leaf, path| {
        let leaf = leaf.stage2()?;
        if let Some(fault) = leaf.fault(access, privilege, 0) {
            return Some(Answer::Is(Outcome::fault(fault, path.last().level, true)));
        }
        let pa = mapped(path, ia);
        Some(match combine(leaf.mem_attr(), stage1) {
            Some(attr) => Answer::Is(Outcome::Mapped { pa, attr, sh: shareability(attr, leaf.shareability(), stage1) }),
            None => Answer::ReservedType { pa },
        })
    })
}

/// Answers for EL2's stage 1.
#[must_use]
pub fn el2(arena: &Arena<'_>, features: Features, (settings, base): (&El2, Base), access: Access, va: u64) -> Reasoned {
    let geometry = Geometry::from_tcr_el2(settings.tcr, settings.e2h, features);
    walk(arena, geometry, (settings.ttbr0, base), va, false, |leaf, path| {
        let leaf = leaf.el2(path.last().inherited)?;
        if let Some(fault) = leaf.fault(access, Privilege::Privileged, settings.wxn) {
            return Some(Answer::Is(Outcome::fault(fault, path.last().level, false)));
        }
        let [attr, ..] = (settings.mair >> (8 * leaf.attr_index())).to_le_bytes();
        let sh = match leaf.shareability() {
            _ if is_outer(attr) => 0b10,
            Shareability::Non => 0b00,
            Shareability::Reserved => 0b01, // QEMU's choice.
            Shareability::Outer => 0b10,
            Shareability::Inner => 0b11,
        };
        Some(Answer::Is(Outcome::Mapped { pa: mapped(path, va), attr, sh }))
    })
}

/// Returns the address of the 4 KiB that `ia` is in: PAR_EL1 shows no more.
fn mapped(path: &Path, ia: u64) -> u64 {
    let leaf = path.last();
    (leaf.oa.get() + (ia - leaf.ia)) & !0xfff
}

/// Walks as far as there is no leaf; `of_leaf` has the last word.
fn walk(
    arena: &Arena<'_>,
    geometry: Result<Geometry, GeometryError>,
    (register, base): (u64, Base),
    ia: u64,
    is_stage2: bool,
    of_leaf: impl FnOnce(Leaf<'_>, &Path) -> Option<Answer>,
) -> Reasoned {
    let geometry = match geometry {
        Ok(geometry) => geometry,
        Err(error) => {
            let none = Outcome::fault(Fault::Translation, Level::L0, is_stage2);
            return Reasoned { refused: Some(error), ..Reasoned::without_path(none) };
        }
    };
    let fault = |fault, level| Answer::Is(Outcome::fault(fault, level, is_stage2));
    let nowhere = Reasoned::without_path(Outcome::fault(Fault::Translation, Level::L0, is_stage2));
    if ia >= geometry.ia_end() {
        return nowhere;
    }
    let root = match base {
        Base::OfRegister => Root::from_register(geometry, register).ok(),
        Base::At(address) => Root::try_new(geometry, PhysAddr::new(address)).ok(),
    };
    let Some(root) = root else {
        return Reasoned { answer: fault(Fault::AddressSize, Level::L0), is_base_beyond: true, ..nowhere };
    };
    let path = match Path::walk(arena, &root, ia) {
        Ok(path) => path,
        Err(NoPath::Outside) => return Reasoned::without_path(Outcome::abort(geometry.start_level())),
        Err(error) => return Reasoned { answer: Answer::Wrong(error), ..nowhere },
    };
    let last = path.last();
    let view = last.raw.view(last.level, &geometry);
    let answer = match (last.kind, view) {
        (EntryKind::TableOutside, Descriptor::Table(_)) => match (view.fault(), last.level.child()) {
            (Some(wrong), _) => fault(wrong, last.level),
            (None, Some(child)) => Answer::Is(Outcome::abort(child)),
            (None, None) => Answer::Wrong(NoPath::Disagree),
        },
        (EntryKind::Invalid | EntryKind::Reserved, Descriptor::Invalid(_) | Descriptor::Reserved(_)) => {
            view.fault().map_or(Answer::Wrong(NoPath::Disagree), |wrong| fault(wrong, last.level))
        }
        (EntryKind::Leaf, Descriptor::Block(leaf) | Descriptor::Page(leaf)) => {
            of_leaf(leaf, &path).unwrap_or(Answer::Wrong(NoPath::Disagree))
        }
        _ => Answer::Wrong(NoPath::Disagree),
    };
    Reasoned { answer, path: Some(path), refused: None, is_base_beyond: false }
}
