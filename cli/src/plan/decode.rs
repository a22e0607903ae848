// SPDX-License-Identifier: MIT OR Apache-2.0
//! How descriptors are to be decoded: by a register, or by one made up from options.

use crate::args::decode::{Decode, GranuleName};
use crate::args::Color;
use crate::decode::{words_of, Told};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::numbers::{parse_hex, parse_number, NumberError};
use crate::registers::{BadRegister, Register};
use s2dump_vmsa::pkvm::Encoding;
use s2dump_vmsa::{Features, Geometry, Granule, Level};

/// What to decode, and how.
#[derive(Debug)]
pub(crate) struct DecodePlan {
    /// The lines that have the descriptors; `None` for those of standard input.
    pub(crate) lines: Option<String>,
    /// Whether digits without 0x are hexadecimal.
    pub(crate) hex: bool,
    /// The level of all of them, if no name tells that of each.
    pub(crate) level: Option<Level>,
    /// Their format.
    pub(crate) geometry: Geometry,
    /// How software bits and invalid entries are read.
    pub(crate) encoding: Encoding,
    /// Whether a register told HA and HD: which bits hardware sets.
    pub(crate) knows_hardware: bool,
    /// When to use color.
    pub(crate) color: Color,
    /// As JSON.
    pub(crate) json: bool,
}

fn usage(message: impl std::fmt::Display) -> Failure {
    Failure::new(ExitCode::UsageOrIo, message)
}

impl DecodePlan {
    /// Decides what `decode` asks for.
    pub(crate) fn new(decode: &Decode, color: Color) -> Result<Self, Failure> {
        let stage = decode.stage.unwrap_or(if decode.tcr.is_some() { 1 } else { 2 });
        check_stage(decode, stage)?;
        let geometry = if stage == 2 { stage2(decode)? } else { stage1(decode)? };
        decode.level.map_or(Ok(()), |level| check_level(level, &geometry))?;
        let from_stdin = decode.descriptors.is_empty() || decode.descriptors == ["-"];
        Ok(Self {
            lines: if from_stdin { None } else { Some(typed(&decode.descriptors, decode).map_err(bad_descriptor)?) },
            hex: decode.hex,
            level: decode.level,
            geometry,
            encoding: decode.cpu.encoding.unwrap_or(Encoding::NONE),
            knows_hardware: decode.vtcr.or(decode.tcr).is_some(),
            color,
            json: decode.json,
        })
    }
}

impl DecodePlan {
    /// Returns the level of what is told: that of all, or else that of its name, if there is such a level.
    pub(crate) fn level_of(&self, told: &Told) -> Option<Level> {
        self.level.or(told.level.filter(|&level| check_level(level, &self.geometry).is_ok()))
    }
}

/// Reads a descriptor.
pub(crate) fn descriptor(word: &str, hex: bool) -> Result<u64, NumberError> {
    if hex {
        parse_hex(word)
    } else {
        parse_number(word)
    }
}

/// Returns the lines that `words` of the command line are: one each, if some were in quotes, else one that a shell split.
///
/// # Errors
///
/// If a word is no descriptor where one is wanted, or none is one.
fn typed(words: &[String], &Decode { hex, level, .. }: &Decode) -> Result<String, NumberError> {
    let is_in_quotes = words.iter().any(|word| word.contains(char::is_whitespace));
    let text = words.join(if is_in_quotes { "\n" } else { " " });
    let mut has_any = false;
    for line in text.lines() {
        for Told { raw, .. } in words_of(line, hex, level) {
            raw?;
            has_any = true;
        }
    }
    if !has_any {
        // Not all can be numbers, or there would be some.
        for word in words {
            descriptor(word, hex)?;
        }
        return Err(NumberError::NotANumber(text));
    }
    Ok(text)
}

/// Refuses a word that is no descriptor, or one that does not say its base.
fn bad_descriptor(error: NumberError) -> Failure {
    let failure = usage(&error);
    match error {
        NumberError::NoBase(..) => failure.hint(HEX_HINT),
        _ => failure,
    }
}

/// The hint for descriptors that do not say their base.
pub(crate) const HEX_HINT: &str = "--hex takes descriptors without 0x as hexadecimal";

/// Refuses options of the other stage, which would be without effect.
fn check_stage(decode: &Decode, stage: u8) -> Result<(), Failure> {
    let cpu = &decode.cpu;
    let options = [
        ("--vtcr", decode.vtcr.is_some(), 2),
        ("--s2pie", decode.s2pie, 2),
        ("--s2poe", decode.s2poe, 2),
        ("--assured-only", decode.assured_only, 2),
        ("--pbha", decode.pbha, 2),
        ("--fwb", cpu.fwb, 2),
        ("--xnx", cpu.xnx, 2),
        ("--mte-perm", cpu.mte_perm, 2),
        ("--encoding", cpu.encoding.is_some_and(|encoding| !encoding.is_hyp_told()), 2),
        ("--tcr", decode.tcr.is_some(), 1),
        ("--e2h", decode.e2h, 1),
        ("--aie", decode.aie, 1),
    ];
    match options.into_iter().find(|(_, given, of)| *given && *of != stage) {
        Some((name, _, of)) => {
            Err(usage(format_args!("{name} is about stage {of}: add --stage {of}, or leave it out")))
        }
        None => Ok(()),
    }
}

/// Refuses options that repeat what `register` says, or contradict it or each other.
fn check_register(decode: &Decode, register: &str, value: u64) -> Result<(), Failure> {
    let options = [
        ("--granule", decode.granule.is_some()),
        ("--lpa2", decode.lpa2),
        ("--s2pie", decode.s2pie),
        ("--s2poe", decode.s2poe),
        ("--assured-only", decode.assured_only),
        ("--pbha", decode.pbha),
    ];
    if let Some((name, _)) = options.into_iter().find(|(_, given)| *given) {
        return Err(usage(format_args!("{register} tells what {name} says: leave out one of them")));
    }
    // TG0 is at the same place in both.
    match (decode.lpa, Granule::from_tg0(value >> 14 & 3), decode.cpu.pa_bits) {
        (true, Some(Granule::Size4K | Granule::Size16K), _) => {
            Err(usage(format_args!("--lpa is about 64k pages, and {register} is not: leave out one of them")))
        }
        (true, _, Some(bits @ ..=51)) => Err(usage(format_args!(
            "--lpa says that the CPU has 52 address bits, --pa-bits {bits} that it has not; {register} tells the output size"
        ))),
        _ => Ok(()),
    }
}

/// Returns the features that options give. A feature with a register field counts only if the field is set.
fn features(decode: &Decode, pa_max_bits: u8) -> Features {
    let cpu = &decode.cpu;
    Features { pa_max_bits, mte_perm: cpu.mte_perm, aie: decode.aie, ..Features::of_kvm(0, cpu.fwb, cpu.xnx) }
}

/// Returns the CPU's address bits, if options tell them. With FEAT_LPA they are 52, and PS gives the output size.
fn pa_max_bits(decode: &Decode) -> Option<u8> {
    if decode.lpa {
        Some(52)
    } else {
        decode.cpu.pa_bits
    }
}

/// Makes the geometry of a register. If no option tells the CPU's address bits, they are as many as PS says.
fn of_register(
    decode: &Decode,
    register: Register,
    value: u64,
    make: impl Fn(Features) -> Result<Geometry, s2dump_vmsa::GeometryError>,
) -> Result<Geometry, Failure> {
    let make = |pa_max_bits| {
        make(features(decode, pa_max_bits))
            .map_err(|error| usage(BadRegister { register, value, error, pa_max_bits: Some(pa_max_bits) }))
    };
    match pa_max_bits(decode) {
        Some(bits) => make(bits),
        None => make(make(52)?.pa_bits()),
    }
}

fn stage2(decode: &Decode) -> Result<Geometry, Failure> {
    let vtcr = match decode.vtcr {
        Some(vtcr) => {
            check_register(decode, "--vtcr", vtcr)?;
            vtcr
        }
        None => {
            let bit = |is_set: bool, bit: u32| u64::from(is_set) << bit;
            let shape = Shape::new(decode, "--vtcr")?;
            let more = if decode.pbha { 0b1111 << 25 } else { 0 };
            let more = more | bit(decode.assured_only, 34) | bit(decode.s2pie, 36) | bit(decode.s2poe, 37);
            // SL0 1 suits 32 input bits with every granule.
            shape.tg0_and_t0sz | 1 << 6 | shape.ps << 16 | bit(decode.lpa2, 32) | more
        }
    };
    of_register(decode, Register::Vtcr, vtcr, |features| Geometry::from_vtcr(vtcr, features))
}

fn stage1(decode: &Decode) -> Result<Geometry, Failure> {
    let tcr = match decode.tcr {
        Some(tcr) => {
            check_register(decode, "--tcr", tcr)?;
            tcr
        }
        None => {
            let shape = Shape::new(decode, "--tcr")?;
            let (ps, ds) = if decode.e2h { (32, 59) } else { (16, 32) };
            shape.tg0_and_t0sz | shape.ps << ps | u64::from(decode.lpa2) << ds
        }
    };
    of_register(decode, Register::Tcr, tcr, |features| Geometry::from_tcr_el2(tcr, decode.e2h, features))
}

/// Fields of a register that is made up from options. Its input size is 32 bits, which is always legal: decoding does not
/// depend on it.
struct Shape {
    tg0_and_t0sz: u64,
    ps: u64,
}

impl Shape {
    fn new(decode: &Decode, register: &str) -> Result<Self, Failure> {
        let Some(granule) = decode.granule else {
            return Err(usage(format_args!("say how large pages are: --granule 4k, 16k or 64k; or {register} VALUE")));
        };
        let tg0 = match granule {
            GranuleName::Size4K => 0,
            GranuleName::Size16K => 2,
            GranuleName::Size64K => 1,
        };
        if decode.lpa2 && granule == GranuleName::Size64K {
            return Err(usage("--lpa2 is about 4k and 16k pages; 52-bit addresses with 64k pages are --lpa"));
        }
        if decode.lpa && granule != GranuleName::Size64K {
            return Err(usage("--lpa is about 64k pages; 52-bit addresses with 4k and 16k pages are --lpa2"));
        }
        let bits = decode.cpu.pa_bits.unwrap_or(if decode.lpa || decode.lpa2 { 52 } else { 48 });
        let ps = [32, 36, 40, 42, 44, 48, 52].iter().position(|&size| size == bits).unwrap_or(5) as u64;
        Ok(Self { tg0_and_t0sz: tg0 << 14 | 32, ps })
    }
}

/// Refuses a level that no table with this granule has.
fn check_level(level: Level, geometry: &Geometry) -> Result<(), Failure> {
    let (size, first) = match geometry.granule() {
        Granule::Size4K if geometry.is_lpa2() => ("4KiB pages and LPA2", -1),
        Granule::Size4K => ("4KiB pages without LPA2", 0),
        Granule::Size16K => ("16KiB pages", 0),
        Granule::Size64K => ("64KiB pages", 1),
    };
    if level.get() < first {
        return Err(usage(format_args!("--level {}: tables with {size} have levels {first} to 3", level.get())));
    }
    Ok(())
}
