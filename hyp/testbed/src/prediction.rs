// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! What is expected of the MMU: what walker and decoder say, and where QEMU is known to say something else, that.
//!
//! A divergence is predicted by the architecture's rules on registers, features or tables changed so that they give QEMU's
//! answer, wherever that is possible.

use crate::answer::{self, Answer, Base, Reasoned};
use crate::arena::Arena;
use crate::choices::{choices, Choices};
use crate::cpu::{Cpu, Stage};
use crate::divergence::Divergence;
use crate::memory_type::{shareability, Stage1};
use crate::mmu::{El2, Stage2};
use crate::par::Outcome;
use s2dump_hyp::walker::EntryKind;
use s2dump_vmsa::attrs::{MemAttr, Shareability};
use s2dump_vmsa::fault::{Access, Fault, Privilege};
use s2dump_vmsa::{Features, Geometry, GeometryError, Granule, Level, RawDescriptor, Regime};

/// What is expected of the MMU.
#[derive(Clone, Copy, Debug)]
pub struct Prediction {
    /// What we say.
    pub ours: Reasoned,
    /// What QEMU is known to say instead, and why.
    pub qemu: Option<(Divergence, Answer)>,
    /// Where the architecture would also allow another answer than ours.
    pub choices: Choices,
}

/// Predicts AT S12E1*, or (`Unprivileged`, `Execute`) an access below EL2.
pub fn stage2(
    arena: &mut Arena<'_>,
    cpu: &Cpu,
    settings: &Stage2,
    access: Access,
    privilege: Privilege,
    ia: u64,
) -> Prediction {
    let features = cpu.features(Stage::Two, granule(settings.vtcr), settings.fwb);
    let ours = answer::stage2(arena, features, (settings, Base::OfRegister), access, privilege, ia);
    let mut as_qemu = Adapted { registers: *settings, features, why: None };
    if !has_granule(cpu, Stage::Two, settings.vtcr) {
        as_qemu.registers.vtcr &= !(0b11 << 14);
        as_qemu.features = cpu.features(Stage::Two, Granule::Size4K, settings.fwb);
        as_qemu.why = Some(Divergence::Granule);
    }
    let refused = Geometry::from_vtcr(as_qemu.registers.vtcr, as_qemu.features).err();
    if let Some(GeometryError::T0sz { t0sz, min, .. }) = refused {
        if t0sz < min && t0sz >= 16 && !lacks_level(as_qemu.registers.vtcr, features.pa_max_bits) {
            // The size is taken as written, while output addresses stay as they were.
            let ps = (as_qemu.registers.vtcr >> 16 & 7).min(cpu.mmfr0 & 0xf);
            as_qemu.registers.vtcr = as_qemu.registers.vtcr & !(7 << 16) | ps << 16;
            as_qemu.features.pa_max_bits = 64 - t0sz;
            as_qemu.why = Some(Divergence::T0szBelowPaMax);
        }
    }
    let mut theirs = ours;
    let mut patches = Patches::default();
    if ia >> features.pa_max_bits == 0 {
        loop {
            let Adapted { registers, features, .. } = as_qemu;
            let geometry = Geometry::from_vtcr(registers.vtcr, features);
            let base = small_root(geometry, registers.vttbr);
            if base != Base::OfRegister {
                as_qemu.why = Some(Divergence::SmallRoot);
            }
            theirs = answer::stage2(arena, features, (&registers, base), access, privilege, ia);
            if theirs.is_base_beyond && registers.vttbr & BASE_HIGH != 0 && !is_52(registers.vtcr >> 16, &features) {
                as_qemu.registers.vttbr &= !BASE_HIGH;
            } else if !patches.drop_high_bits(arena, &theirs) {
                break;
            }
            as_qemu.why = Some(Divergence::HighBits);
        }
    }
    block_res0(&mut theirs, &mut as_qemu.why);
    let answer = fix_type(&theirs, settings, &mut as_qemu.why);
    patches.take_back(arena);
    Prediction { ours, qemu: as_qemu.why.map(|why| (why, answer)), choices: choices(&ours, settings.vttbr) }
}

/// Predicts AT S1E2*.
pub fn el2(arena: &mut Arena<'_>, cpu: &Cpu, settings: &El2, access: Access, va: u64) -> Prediction {
    let mut features = cpu.features(Stage::One, granule(settings.tcr), false);
    let ours = answer::el2(arena, features, (settings, Base::OfRegister), access, va);
    let mut registers = *settings;
    let mut why = None;
    if !has_granule(cpu, Stage::One, settings.tcr) {
        registers.tcr &= !(0b11 << 14);
        features = cpu.features(Stage::One, Granule::Size4K, false);
        why = Some(Divergence::Granule);
    }
    if !features.hpds {
        features.hpds = true;
        why = why.or(Some(Divergence::HpdAlways));
    }
    let mut patches = Patches::default();
    let ps = registers.tcr >> if settings.e2h { 32 } else { 16 };
    let mut theirs = loop {
        let geometry = Geometry::from_tcr_el2(registers.tcr, registers.e2h, features);
        let base = small_root(geometry, registers.ttbr0);
        if base != Base::OfRegister {
            why = Some(Divergence::SmallRoot);
        }
        let theirs = answer::el2(arena, features, (&registers, base), access, va);
        if theirs.is_base_beyond && registers.ttbr0 & BASE_HIGH != 0 && !is_52(ps, &features) {
            registers.ttbr0 &= !BASE_HIGH;
        } else if !patches.drop_high_bits(arena, &theirs) {
            break theirs;
        }
        why = Some(Divergence::HighBits);
    };
    patches.take_back(arena);
    block_res0(&mut theirs, &mut why);
    Prediction { ours, qemu: why.map(|why| (why, theirs.answer)), choices: choices(&ours, settings.ttbr0) }
}

/// Where VTTBR_EL2 and TTBR0_EL2 have bits 51:48 of a base.
const BASE_HIGH: u64 = 0b1111 << 2;

/// Registers and features that make the architecture's rules give QEMU's answer.
#[derive(Clone, Copy)]
struct Adapted {
    registers: Stage2,
    features: Features,
    why: Option<Divergence>,
}

/// Returns the granule of VTCR_EL2 or TCR_EL2, the reserved one being as good as any.
fn granule(register: u64) -> Granule {
    Granule::from_tg0(register >> 14 & 0b11).unwrap_or(Granule::Size4K)
}

fn has_granule(cpu: &Cpu, stage: Stage, register: u64) -> bool {
    Granule::from_tg0(register >> 14 & 0b11).is_some_and(|granule| cpu.has_granule(stage, granule))
}

/// Returns whether addresses of 52 bits are in force; `ps` has PS in its low bits.
fn is_52(ps: u64, features: &Features) -> bool {
    ps & 0b111 >= 6 && features.pa_max_bits == 52
}

/// Returns whether the start level is one that PAMax denies: QEMU holds this rule, though not that for T0SZ.
fn lacks_level(vtcr: u64, pa_max_bits: u8) -> bool {
    match (vtcr >> 6 & 0b11, granule(vtcr)) {
        (2, Granule::Size4K | Granule::Size64K) => pa_max_bits < 44,
        (2, Granule::Size16K) => pa_max_bits < 42,
        _ => false,
    }
}

/// Returns where QEMU takes a root of less than 64 bytes to be, when that is not where the register says.
fn small_root(geometry: Result<Geometry, GeometryError>, register: u64) -> Base {
    match geometry {
        Ok(geometry) if geometry.pa_bits() == 52 && geometry.root_bytes() < 64 => {
            let low = register & 0xffff_ffff_ffff & !(geometry.root_bytes() - 1);
            let base = (register & BASE_HIGH) << 46 | low;
            match geometry.base(register) {
                Ok(right) if right.address.get() != base => Base::At(base),
                _ => Base::OfRegister,
            }
        }
        _ => Base::OfRegister,
    }
}

/// Changes the answer into the fault that QEMU sees in the lower bits of a block.
fn block_res0(theirs: &mut Reasoned, why: &mut Option<Divergence>) {
    let Some(path) = &theirs.path else { return };
    let entry = path.last();
    let address = entry.raw.to_bits() & path.geometry.low_address_mask(Level::L3);
    if entry.kind == EntryKind::Leaf && address >> path.geometry.pa_bits() != 0 {
        let is_stage2 = path.geometry.regime() == Regime::Stage2;
        let fault = Answer::Is(Outcome::fault(Fault::AddressSize, entry.level, is_stage2));
        if theirs.answer != fault {
            theirs.answer = fault;
            *why = Some(Divergence::BlockRes0);
        }
    }
}

/// Returns the answer with the memory type that QEMU gives.
fn fix_type(theirs: &Reasoned, settings: &Stage2, why: &mut Option<Divergence>) -> Answer {
    let stage1 = if settings.dc { Stage1::WriteBack } else { Stage1::Device };
    let Some(leaf) = theirs.path.as_ref().and_then(|path| leaf_type(path.last().raw, path)) else {
        return theirs.answer;
    };
    let (raw, attr, sh) = leaf;
    let (pa, attr, divergence) = match (theirs.answer, attr, stage1) {
        (Answer::ReservedType { pa }, _, _) if settings.fwb => (pa, 0, Divergence::ReservedMemAttr),
        (Answer::ReservedType { pa }, _, Stage1::Device) => (pa, 0, Divergence::ReservedMemAttr),
        (Answer::ReservedType { pa }, _, Stage1::WriteBack) => {
            let half = |bits: u64| [0xf, 0x4, 0xb, 0xf][(bits & 0b11) as usize];
            (pa, half(raw >> 4) << 4 | half(raw >> 2), Divergence::ReservedMemAttr)
        }
        (Answer::Is(Outcome::Mapped { pa, .. }), MemAttr::Device(device), Stage1::Device) if settings.fwb => {
            (pa, (device as u8) << 2, Divergence::FwbDevice)
        }
        _ => return theirs.answer,
    };
    *why = why.or(Some(divergence));
    Answer::Is(Outcome::Mapped { pa, attr, sh: shareability(attr, sh, stage1) })
}

/// Returns the descriptor, its memory type and its shareability, if it is a leaf.
fn leaf_type(raw: RawDescriptor, path: &crate::path::Path) -> Option<(u64, MemAttr, Shareability)> {
    use s2dump_vmsa::Descriptor::{Block, Page};
    let (Block(leaf) | Page(leaf)) = raw.view(path.last().level, &path.geometry) else { return None };
    let leaf = leaf.stage2()?;
    Some((raw.to_bits(), leaf.mem_attr(), leaf.shareability()))
}

/// Descriptors changed while predicting, and what stood there.
#[derive(Default)]
struct Patches {
    before: [Option<(u64, u64)>; Level::MAX_DEPTH],
}

impl Patches {
    /// If high bits that QEMU drops make this an address size fault, drops them.
    fn drop_high_bits(&mut self, arena: &mut Arena<'_>, reasoned: &Reasoned) -> bool {
        let (Answer::Is(Outcome::Fault { status, .. }), Some(path)) = (reasoned.answer, reasoned.path) else {
            return false;
        };
        let Some((at, entry)) = path.entries().last() else { return false };
        let high = path.geometry.high_address_mask();
        let raw = entry.raw.to_bits();
        if status != Fault::AddressSize.status_code(entry.level) || raw & high == 0 || path.geometry.pa_bits() == 52 {
            return false;
        }
        let Some(place) = self.before.iter_mut().find(|place| place.is_none()) else { return false };
        *place = Some((*at, raw));
        arena.poke(*at, raw & !high);
        true
    }

    /// Puts back what stood there.
    fn take_back(self, arena: &mut Arena<'_>) {
        for (at, raw) in self.before.into_iter().rev().flatten() {
            arena.poke(at, raw);
        }
    }
}
