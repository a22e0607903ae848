// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arguments of `decode`.

use super::image::Cpu;
use crate::numbers::{parse_level, parse_number};
use clap::{Args, ValueEnum};
use s2dump_vmsa::Level;

/// Arguments of `decode`.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Decode {
    /// Descriptors, or lines of a log that tell some; none or `-` to read them from standard input.
    #[arg(value_name = "DESC")]
    pub(crate) descriptors: Vec<String>,
    /// DESC is hexadecimal with or without 0x, as logs and register dumps print it.
    #[arg(long)]
    pub(crate) hex: bool,
    /// Level of the table that the descriptor stands in: -1 to 3 [default: of pte= 3, pmd= 2, pud= 1, p4d= 0].
    #[arg(short, long, value_parser = parse_level, allow_negative_numbers = true, value_name = "L")]
    pub(crate) level: Option<Level>,
    /// Size of pages and tables. Or give --vtcr or --tcr.
    #[arg(short, long, value_enum, ignore_case = true, value_name = "SIZE")]
    pub(crate) granule: Option<GranuleName>,
    /// Stage: 2, or 1 for EL2's own tables [default: 2, or 1 with --tcr].
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=2), value_name = "STAGE")]
    pub(crate) stage: Option<u8>,
    /// VTCR_EL2, in place of --granule, --lpa2, --s2pie, --s2poe, --assured-only and --pbha.
    #[arg(long, value_parser = parse_number, value_name = "VALUE")]
    pub(crate) vtcr: Option<u64>,
    /// TCR_EL2, in place of --granule and --lpa2 at stage 1.
    #[arg(long, value_parser = parse_number, value_name = "VALUE")]
    pub(crate) tcr: Option<u64>,
    /// DS is set: 4k and 16k descriptors have 52-bit addresses.
    #[arg(long)]
    pub(crate) lpa2: bool,
    /// The CPU has FEAT_LPA: 64k descriptors have 52-bit addresses. The output size is then what PS or --pa-bits says.
    #[arg(long)]
    pub(crate) lpa: bool,
    /// VTCR_EL2.S2PIE is set: descriptors have an index into S2PIR_EL2 in place of rights.
    #[arg(long)]
    pub(crate) s2pie: bool,
    /// VTCR_EL2.S2POE is set: bits 62:59 are an index into S2POR_EL1.
    #[arg(long)]
    pub(crate) s2poe: bool,
    /// VTCR_EL2.AssuredOnly is set: bit 58 is AssuredOnly, not software's.
    #[arg(long)]
    pub(crate) assured_only: bool,
    /// VTCR_EL2.HWU59 to HWU62 are set: bits 62:59 are PBHA.
    #[arg(long)]
    pub(crate) pbha: bool,
    /// HCR_EL2.E2H is set: stage 1 has rights of EL2 and of EL0.
    #[arg(long)]
    pub(crate) e2h: bool,
    /// TCR2_EL2.AIE is set: AttrIndx of stage 1 is four bits.
    #[arg(long)]
    pub(crate) aie: bool,
    /// What the CPU has.
    #[command(flatten)]
    pub(crate) cpu: Cpu,
    /// Print one JSON object per descriptor and line; errors are JSON too, on standard error.
    #[arg(long)]
    pub(crate) json: bool,
}

const HELP: &str = "\
A bit that is set and belongs to no field in force is listed as unknown.

Of a line that is not of numbers only, what pte or desc is said to be is taken (pte=7ff, pte: 404f47ff; hexadecimal, as the kernel
prints them), or else what begins with 0x. Numbers: see `s2dump --help`.
p4d=, pud= and pmd= are names too, of levels 0 to 2: each is decoded at its own, or with --level those of that level, if there are any.

Examples:
  s2dump decode 0x01400000409e27ff --level 3 --granule 4k --xnx --encoding pkvm-7.2
  s2dump decode 0x40000000600007fd --level 2 --vtcr 0x80023558 --json
  s2dump decode 0x40000000040783 --level 3 --granule 4k --stage 1 --e2h
  dmesg | grep -E 'p(te|md)=' | s2dump decode --granule 4k";

/// A granule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GranuleName {
    /// 4 KiB.
    #[value(name = "4k", alias = "4kib")]
    Size4K,
    /// 16 KiB.
    #[value(name = "16k", alias = "16kib")]
    Size16K,
    /// 64 KiB.
    #[value(name = "64k", alias = "64kib")]
    Size64K,
}
