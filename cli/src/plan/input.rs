// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a table comes from: arguments that fit together.

use crate::args::image::{Cpu, Image, RamFile};
use crate::args::Selector;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::registers::ImageTable;
use s2dump_vmsa::pkvm::Encoding;
use s2dump_vmsa::{Features, Regime};
use std::path::PathBuf;

/// Where a table comes from.
#[derive(Debug)]
pub(crate) enum Input {
    /// The device, the VM of this name.
    Device(Selector),
    /// A capture, the table of this name, of the only VM, or the only one.
    Capture(PathBuf, Option<Selector>),
    /// An image of memory.
    Image(ImagePlan),
}

/// A table in an image of memory.
#[derive(Debug)]
pub(crate) struct ImagePlan {
    /// Where memory is.
    pub(crate) ram: Vec<RamFile>,
    /// The table.
    pub(crate) table: ImageTable,
    /// Whether an option says how software bits and invalid entries are encoded.
    pub(crate) says_encoding: bool,
}

fn usage(message: impl std::fmt::Display) -> Failure {
    Failure::new(ExitCode::UsageOrIo, message)
}

/// Refuses `what`, which cannot describe the table that `with` names.
pub(crate) fn of_stage1(what: &str, with: &str) -> Failure {
    usage(format_args!("{what} has no words for EL2's stage 1: leave it out with {with}"))
}

impl Input {
    /// Refuses `what`, an option about stage 2, if the table is known to be of stage 1.
    pub(crate) fn check_stage2(&self, what: &str) -> Result<(), Failure> {
        match self {
            Self::Image(image) => image.check_stage2(what),
            Self::Device(Selector::Hyp) | Self::Capture(_, Some(Selector::Hyp)) => Err(of_stage1(what, "hyp")),
            Self::Device(_) | Self::Capture(..) => Ok(()),
        }
    }

    /// Decides where the table comes from.
    pub(crate) fn new(target: Option<Selector>, capture: Option<PathBuf>, image: Image) -> Result<Self, Failure> {
        if let Some(image) = ImagePlan::new(image)? {
            return match (capture, target) {
                (Some(_), _) => Err(usage("--ram FILE and -i FILE do not go together")),
                (None, Some(target)) => {
                    let failure = usage(format_args!("{target}: with --ram the table is the one of --vttbr"));
                    Err(failure.hint("leave out the VM"))
                }
                (None, None) => Ok(Self::Image(image)),
            };
        }
        match (capture, target) {
            (Some(path), target) => Ok(Self::Capture(path, target)),
            (None, target) => Ok(Self::Device(target.unwrap_or(Selector::Only))),
        }
    }
}

impl ImagePlan {
    /// Refuses `what`, which can describe stage 2 only, if the table is of stage 1.
    fn check_stage2(&self, what: &str) -> Result<(), Failure> {
        match self.table.root.geometry().regime() {
            Regime::Stage2 => Ok(()),
            _ => Err(of_stage1(what, "--tcr")),
        }
    }

    /// Decides which table of an image is meant; `None` if no image is given.
    fn new(image: Image) -> Result<Option<Self>, Failure> {
        if image.ram.is_empty() {
            return match image.first_option() {
                Some(name) => Err(usage(format_args!("{name} goes with --ram FILE@BASE only"))),
                None => Ok(None),
            };
        }
        let table = match (image.vtcr, image.vttbr, image.tcr, image.ttbr0) {
            (Some(vtcr), Some(vttbr), None, None) if !image.e2h && !image.wxn => stage2(&image, vtcr, vttbr)?,
            (None, None, Some(tcr), Some(ttbr0)) => el2(&image, tcr, ttbr0)?,
            _ => {
                let failure = usage(
                    "--ram needs --vtcr and --vttbr, or --tcr and --ttbr0 [--e2h] [--wxn]: they tell where the table is \
                     and how to read it",
                );
                let is_el2 = image.tcr.or(image.ttbr0).is_some() || image.e2h || image.wxn;
                let registers = if is_el2 { "p/x $TCR_EL2, p/x $TTBR0_EL2" } else { "p/x $VTCR_EL2, p/x $VTTBR_EL2" };
                return Err(failure.hint(format_args!("gdb on QEMU shows them: {registers}")));
            }
        };
        Ok(Some(Self { says_encoding: image.cpu.encoding.is_some(), ram: image.ram, table }))
    }
}

fn stage2(image: &Image, vtcr: u64, vttbr: u64) -> Result<ImageTable, Failure> {
    let cpu = image.cpu;
    let kvm = Features::of_kvm(vtcr, cpu.fwb, cpu.xnx);
    let features = Features { mte_perm: cpu.mte_perm, pa_max_bits: cpu.pa_bits.unwrap_or(kvm.pa_max_bits), ..kvm };
    let encoding = cpu.encoding.unwrap_or(Encoding::NONE);
    ImageTable::stage2(vtcr, vttbr, features, encoding).map_err(usage)
}

fn el2(image: &Image, tcr: u64, ttbr0: u64) -> Result<ImageTable, Failure> {
    let Cpu { fwb, xnx, mte_perm, pa_bits, encoding } = image.cpu;
    let is_hyp_told = encoding.is_none_or(Encoding::is_hyp_told);
    let options = [("--fwb", fwb), ("--xnx", xnx), ("--mte-perm", mte_perm), ("--encoding", !is_hyp_told)];
    if let Some((name, _)) = options.iter().find(|(_, given)| *given) {
        return Err(usage(format_args!("{name} is about stage 2: it does not go with --tcr")));
    }
    let features = |pa_max_bits| Features { pa_max_bits, ..Features::of_kvm(0, false, false) };
    let of_size = |bits| ImageTable::el2(tcr, ttbr0, image.e2h, image.wxn, features(bits)).map_err(usage);
    let encoding = encoding.unwrap_or(Encoding::NONE);
    let table = match pa_bits {
        Some(bits) => of_size(bits)?,
        // As many as PS says. The geometry of the largest CPU tells how many that are.
        None => of_size(of_size(52)?.root.geometry().pa_bits())?,
    };
    Ok(table.with_encoding(encoding))
}
