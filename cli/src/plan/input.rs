// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a table comes from: arguments that fit together.

use crate::args::image::Image;
use crate::args::Selector;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::registers::ImageTable;
use crate::source::ram::banks::RamFile;
use s2dump_abi::slot::encoding;
use s2dump_vmsa::Features;
use std::path::PathBuf;

/// Where a table comes from.
#[derive(Debug)]
pub(crate) enum Input {
    /// The device, the VM of this name.
    Device(Selector),
    /// A capture, the VM of this name or the only one.
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
}

fn usage(message: impl std::fmt::Display) -> Failure {
    Failure::new(ExitCode::UsageOrIo, message)
}

impl Input {
    /// Decides where the table comes from that `verb` is about.
    pub(crate) fn new(
        target: Option<Selector>,
        capture: Option<PathBuf>,
        image: Image,
        verb: &str,
    ) -> Result<Self, Failure> {
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
            (None, Some(target)) => Ok(Self::Device(target)),
            (None, None) => Err(usage(format_args!("name a VM to {verb}")).hint("see `s2dump list`")),
        }
    }
}

impl ImagePlan {
    /// Decides which table is meant, or that none in an image is.
    fn new(image: Image) -> Result<Option<Self>, Failure> {
        if image.ram.is_empty() {
            return match image.first_option() {
                Some(name) => Err(usage(format_args!("{name} goes with --ram FILE@BASE only"))),
                None => Ok(None),
            };
        }
        let (Some(vtcr), Some(vttbr)) = (image.vtcr, image.vttbr) else {
            let failure = usage("--ram needs --vtcr and --vttbr: they tell where the table is and how to read it");
            return Err(failure.hint("gdb on QEMU shows them: p/x $VTCR_EL2, p/x $VTTBR_EL2"));
        };
        let cpu = image.cpu;
        let kvm = Features::of_kvm(vtcr, cpu.fwb, cpu.xnx);
        let features = Features { mte_perm: cpu.mte_perm, pa_max_bits: cpu.pa_bits.unwrap_or(kvm.pa_max_bits), ..kvm };
        let encoding = cpu.encoding.map_or(encoding::NONE, |encoding| encoding.id());
        let table = ImageTable::stage2(vtcr, vttbr, features, encoding).map_err(usage)?;
        Ok(Some(Self { ram: image.ram, table }))
    }
}
