// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arguments about a table in an image of memory.

use crate::numbers::{parse_number, parse_pa_bits, NumberError};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::Args;
use s2dump_vmsa::pkvm::{Encoding, KNOWN};
use std::path::PathBuf;
use std::str::FromStr;

/// A table in an image of memory.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "A table in an image of memory")]
pub(crate) struct Image {
    /// A file with physical memory: a raw image that begins at BASE, or an ELF core. It may be given several times.
    ///
    /// ELF cores are those of QEMU's `dump-guest-memory`, which tell where their memory is. Tables must be little-endian.
    #[arg(long, value_name = "FILE[@BASE]")]
    pub(crate) ram: Vec<RamFile>,
    /// VTCR_EL2, which gives the shape of the table.
    ///
    /// KVM sets some fields only if the CPU has the feature; what they say is taken as it is: PS, DS, T0SZ, HA, HD, HWU59 to
    /// HWU62, S2PIE, S2POE, AssuredOnly. Other features are not guessed: give the options below.
    #[arg(long, value_parser = parse_number, value_name = "VALUE")]
    pub(crate) vtcr: Option<u64>,
    /// VTTBR_EL2, which tells where the table is, and its VMID.
    #[arg(long, value_parser = parse_number, value_name = "VALUE")]
    pub(crate) vttbr: Option<u64>,
    /// TCR_EL2, in place of --vtcr, for EL2's own table (stage 1). It does not go with --format ptdump.
    ///
    /// What these fields say is taken as it is: PS, DS, T0SZ, HA, HD, HPD, HWU59 to HWU62. TCR2_EL2.AIE is taken as clear.
    #[arg(long, value_parser = parse_number, value_name = "VALUE")]
    pub(crate) tcr: Option<u64>,
    /// TTBR0_EL2, in place of --vttbr.
    #[arg(long, value_parser = parse_number, value_name = "VALUE")]
    pub(crate) ttbr0: Option<u64>,
    /// HCR_EL2.E2H is set: EL2 and EL0 use the table.
    #[arg(long)]
    pub(crate) e2h: bool,
    /// SCTLR_EL2.WXN is set, as Linux does: EL2 cannot execute what it can write.
    #[arg(long)]
    pub(crate) wxn: bool,
    /// What the CPU has.
    #[command(flatten)]
    pub(crate) cpu: Cpu,
}

impl Image {
    /// Returns the first option that was given, other than --ram.
    pub(crate) fn first_option(&self) -> Option<&'static str> {
        let Cpu { fwb, xnx, mte_perm, pa_bits, encoding } = self.cpu;
        let given = [
            ("--vtcr", self.vtcr.is_some()),
            ("--vttbr", self.vttbr.is_some()),
            ("--tcr", self.tcr.is_some()),
            ("--ttbr0", self.ttbr0.is_some()),
            ("--e2h", self.e2h),
            ("--wxn", self.wxn),
            ("--fwb", fwb),
            ("--xnx", xnx),
            ("--mte-perm", mte_perm),
            ("--pa-bits", pa_bits.is_some()),
            ("--encoding", encoding.is_some()),
        ];
        given.into_iter().find_map(|(name, is_given)| is_given.then_some(name))
    }
}

/// `FILE@BASE` of a raw image, or `FILE` of an ELF core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RamFile {
    /// The file.
    pub(crate) path: PathBuf,
    /// Where in physical memory it begins, if it was told.
    pub(crate) base: Option<u64>,
}

impl FromStr for RamFile {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Self, NumberError> {
        // A file name may have an `@` of its own.
        match text.rsplit_once('@') {
            Some((path, base)) if base.starts_with(|c: char| c.is_ascii_digit()) => {
                Ok(Self { path: path.into(), base: Some(parse_number(base)?) })
            }
            _ => Ok(Self { path: text.into(), base: None }),
        }
    }
}

/// Features of the CPU that no register of the table tells.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// HCR_EL2.FWB is set: MemAttr uses the FWB encoding.
    #[arg(long)]
    pub(crate) fwb: bool,
    /// The CPU has FEAT_XNX: XN is two bits.
    #[arg(long)]
    pub(crate) xnx: bool,
    /// The CPU has FEAT_MTE_PERM: MemAttr can deny access to allocation tags.
    #[arg(long)]
    pub(crate) mte_perm: bool,
    /// Physical address bits of the CPU: 32, 36, 40, 42, 44, 48 or 52 [default: what PS of the register says].
    ///
    /// They also limit the input addresses of stage 2. 52 means FEAT_LPA, which changes the descriptors of 64k pages.
    #[arg(long, value_parser = parse_pa_bits, value_name = "N")]
    pub(crate) pa_bits: Option<u8>,
    /// How to read software bits and invalid entries [default: none].
    #[arg(long, value_parser = encoding_parser(), value_name = "NAME")]
    pub(crate) encoding: Option<Encoding>,
}

/// Reads the name of an encoding, one of those the decoder has.
fn encoding_parser() -> impl TypedValueParser<Value = Encoding> {
    let names = KNOWN.iter().map(|known| PossibleValue::new(known.name).help(known.about));
    PossibleValuesParser::new(names)
        .map(|name| KNOWN.iter().find(|known| known.name == name).map_or(Encoding::NONE, |known| known.encoding))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (String, Option<u64>) {
        let file: RamFile = text.parse().unwrap();
        (file.path.display().to_string(), file.base)
    }

    #[test]
    fn good_files() {
        assert_eq!(file("ram@0x4000_0000"), ("ram".into(), Some(0x4000_0000)));
        assert_eq!(file("a@b@1G"), ("a@b".into(), Some(1 << 30)));
        assert_eq!(file("guest.core"), ("guest.core".into(), None));
        assert_eq!(file("me@home.core"), ("me@home.core".into(), None));
    }

    #[test]
    fn bad_bases() {
        assert_eq!("ram@0x4000zz".parse::<RamFile>(), Err(NumberError::NotANumber("0x4000zz".into())));
        assert!(matches!("ram@99999999999T".parse::<RamFile>(), Err(NumberError::TooLarge(_))));
        assert!(matches!("ram@40000000".parse::<RamFile>(), Err(NumberError::NoBase(..))));
    }
}
