// SPDX-License-Identifier: MIT OR Apache-2.0
//! Registers as they are typed or captured: which table they describe, or which of their fields is wrong.

use s2dump_hyp::table_memory::Root;
use s2dump_vmsa::geometry::BaseBeyondOutput;
use s2dump_vmsa::pkvm::Encoding;
use s2dump_vmsa::{Features, Geometry, GeometryError, Granule, Regime};
use std::fmt;

/// A register that gives a table its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Register {
    /// VTCR_EL2.
    Vtcr,
    /// TCR_EL2.
    Tcr,
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vtcr => "vtcr_el2",
            Self::Tcr => "tcr_el2",
        })
    }
}

/// A register value that no table can have, or whose table is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{register} {value:#x}: {}", self.why())]
pub(crate) struct BadRegister {
    /// Which register.
    pub(crate) register: Register,
    /// Its value.
    pub(crate) value: u64,
    /// Which field is wrong.
    pub(crate) error: GeometryError,
    /// How many address bits the CPU is taken to have; `None` where no option can change that.
    pub(crate) pa_max_bits: Option<u8>,
}

impl BadRegister {
    /// Returns the field, its value, and the values that are legal.
    fn why(&self) -> String {
        // TG0 is at the same place in both.
        let granule = Granule::from_tg0(self.value >> 14 & 3);
        let size = match granule {
            Some(Granule::Size4K) => "4KiB",
            Some(Granule::Size16K) => "16KiB",
            Some(Granule::Size64K) => "64KiB",
            None => "unknown",
        };
        match self.error {
            GeometryError::D128 => "D128 (bit 38) is set: tables of 128-bit descriptors are not decoded".into(),
            GeometryError::Epd0 => "EPD0 (bit 7) is set: the table of ttbr0_el2 is not in use".into(),
            GeometryError::Tg0(tg0) => {
                format!("TG0 (15:14) is {tg0}, which is reserved: 0 is for 4KiB pages, 1 for 64KiB, 2 for 16KiB")
            }
            GeometryError::T0sz { t0sz, min, max } => format!(
                "T0SZ (5:0) is {t0sz}, {} input bits: legal here are {min} to {max}, {} to {} bits{}",
                64 - t0sz,
                64 - min,
                64 - max,
                if t0sz < min { self.limit() } else { String::new() }
            ),
            GeometryError::StartLevel(value) => format!(
                "SL2:SL0 (33, 7:6) is {value}: legal with {size} pages are {}{}",
                match granule {
                    Some(Granule::Size16K) => {
                        "0 (from level 3), 1 (level 2), 2 (level 1; needs 42 address bits), 3 (level 0; needs LPA2)"
                    }
                    Some(Granule::Size64K) => "0 (from level 3), 1 (level 2), 2 (level 1; needs 44 address bits)",
                    _ => {
                        "0 (from level 2), 1 (level 1), 2 (level 0; needs 44 address bits), 3 (level 3; needs TTST), \
                         4 (level -1; needs LPA2)"
                    }
                },
                self.limit()
            ),
            GeometryError::StartLevelForT0sz { start_level, index_bits } => format!(
                "SL2:SL0 (33, 7:6) is {start_level}, which does not suit T0SZ (5:0) {}: the root would resolve \
                 {index_bits} bits, legal are 1 to {}",
                self.value & 0x3f,
                granule.map_or(0, Granule::index_bits) + 4
            ),
        }
    }
}

impl BadRegister {
    /// Says where the limit of a stage-2 table's size comes from.
    fn limit(&self) -> String {
        let Some(bits) = self.pa_max_bits.filter(|_| self.register == Register::Vtcr) else { return String::new() };
        // If --pa-bits says the same as PS, this is true too.
        if bits == Features::of_kvm(self.value, false, false).pa_max_bits {
            format!("; with {bits} physical address bits, as PS (18:16) says: --pa-bits N if the CPU has more")
        } else {
            format!("; with {bits} physical address bits, as --pa-bits says")
        }
    }
}

/// A table in an image of memory: its registers, which were checked, and what they do not say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ImageTable {
    /// The table.
    pub(crate) root: Root,
    /// Value of the register that gives its shape: VTCR_EL2 or TCR_EL2.
    pub(crate) value: u64,
    /// Value of the register that tells where it is: VTTBR_EL2 or TTBR0_EL2.
    base: u64,
    /// The VMID in VTTBR_EL2.
    pub(crate) vmid: u16,
    /// What it is decoded with.
    pub(crate) features: Features,
    /// How software bits and invalid entries are read.
    pub(crate) encoding: Encoding,
    /// SCTLR_EL2.WXN, which counts in tables of EL2.
    pub(crate) wxn: bool,
}

/// Why registers describe no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImageTableError {
    /// The shape.
    #[error(transparent)]
    Shape(#[from] BadRegister),
    /// The base.
    #[error("{register} {value:#x}: BADDR gives a root at {root:#x}, beyond the output size of {pa_bits} bits")]
    Base {
        /// The register.
        register: &'static str,
        /// Its value.
        value: u64,
        /// Where the root would be.
        root: u64,
        /// The output size.
        pa_bits: u8,
    },
}

impl ImageTable {
    /// Decodes the registers of a stage-2 table.
    pub(crate) fn stage2(
        vtcr: u64,
        vttbr: u64,
        features: Features,
        encoding: Encoding,
    ) -> Result<Self, ImageTableError> {
        let geometry = Geometry::from_vtcr(vtcr, features).map_err(|error| BadRegister {
            register: Register::Vtcr,
            value: vtcr,
            error,
            pa_max_bits: Some(features.pa_max_bits),
        })?;
        // VTCR_EL2.VS: a VMID of 16 bits, else of 8.
        let [.., low, high] = vttbr.to_le_bytes();
        let vmid = u16::from_le_bytes([low, if vtcr >> 19 & 1 == 1 { high } else { 0 }]);
        let root = root(geometry, vttbr)?;
        Ok(Self { root, value: vtcr, base: vttbr, vmid, features, encoding, wxn: false })
    }

    /// Decodes the registers of the table of EL2's stage 1; `e2h` is HCR_EL2.E2H, `wxn` SCTLR_EL2.WXN.
    pub(crate) fn el2(tcr: u64, ttbr0: u64, e2h: bool, wxn: bool, features: Features) -> Result<Self, ImageTableError> {
        let geometry = Geometry::from_tcr_el2(tcr, e2h, features).map_err(|error| BadRegister {
            register: Register::Tcr,
            value: tcr,
            error,
            pa_max_bits: None,
        })?;
        let root = root(geometry, ttbr0)?;
        Ok(Self { root, value: tcr, base: ttbr0, vmid: 0, features, encoding: Encoding::NONE, wxn })
    }

    /// Returns it with software bits and invalid entries that are read by `encoding`.
    pub(crate) fn with_encoding(self, encoding: Encoding) -> Self {
        Self { encoding, ..self }
    }

    /// Returns the register that tells where the root is, with its value.
    pub(crate) fn base_register(&self) -> String {
        format!("{} {:#x}", base_register(self.root.geometry()), self.base)
    }

    /// Returns a warning, if the registers are odd without being wrong.
    pub(crate) fn warning(&self) -> Option<String> {
        let geometry = self.root.geometry();
        let dropped = geometry.base(self.base).ok().map(|base| base.dropped).filter(|&dropped| dropped != 0)?;
        Some(format!(
            "{}: bits {dropped:#x} of BADDR are below the alignment of a root of {} and taken as zero; the architecture \
             leaves open what the MMU does",
            self.base_register(),
            crate::numbers::Size(geometry.root_bytes())
        ))
    }
}

fn base_register(geometry: &Geometry) -> &'static str {
    match geometry.regime() {
        Regime::Stage2 => "vttbr_el2",
        Regime::El2 | Regime::El2And0 => "ttbr0_el2",
    }
}

fn root(geometry: Geometry, value: u64) -> Result<Root, ImageTableError> {
    Root::from_register(geometry, value).map_err(|BaseBeyondOutput(root)| ImageTableError::Base {
        register: base_register(&geometry),
        value,
        root: root.get(),
        pa_bits: geometry.pa_bits(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VTCR_40: u64 = 1 << 31 | 2 << 16 | 3 << 12 | 1 << 6 | 24;

    fn refused(vtcr: u64) -> String {
        ImageTable::stage2(vtcr, 0, Features::of_kvm(vtcr, false, true), Encoding::NONE).unwrap_err().to_string()
    }

    /// Every field that can be wrong is named, with its value and the legal ones.
    #[test]
    fn bad_fields_are_named() {
        let with = |bits: u64, mask: u64| VTCR_40 & !mask | bits;
        let cases = [
            (with(1 << 38, 0), "D128 (bit 38) is set"),
            (with(3 << 14, 0), "TG0 (15:14) is 3"),
            (with(12, 0x3f), "T0SZ (5:0) is 12, 52 input bits: legal here are 24 to 48, 40 to 16 bits"),
            (with(63, 0x3f), "T0SZ (5:0) is 63, 1 input bits"),
            (with(2 << 6, 3 << 6), "SL2:SL0 (33, 7:6) is 2: legal with 4KiB pages are 0 (from level 2)"),
            (with(1 << 14 | 3 << 6, 0), "SL2:SL0 (33, 7:6) is 3: legal with 64KiB pages are"),
            (with(3 << 6, 3 << 6), "does not suit T0SZ (5:0) 24: the root would resolve 28 bits, legal are 1 to 13"),
        ];
        for (vtcr, text) in cases {
            let message = refused(vtcr);
            assert!(message.starts_with(&format!("vtcr_el2 {vtcr:#x}: ")) && message.contains(text), "{message}");
        }
    }

    #[test]
    fn bad_base_is_named() {
        let error =
            ImageTable::stage2(VTCR_40, 1 << 41, Features::of_kvm(VTCR_40, false, true), Encoding::NONE).unwrap_err();
        let text = "vttbr_el2 0x20000000000: BADDR gives a root at 0x20000000000, beyond the output size of 40 bits";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn vmid_has_8_or_16_bits() {
        let vmid = |vtcr| {
            ImageTable::stage2(vtcr, 0x1234 << 48, Features::of_kvm(vtcr, false, true), Encoding::NONE).unwrap().vmid
        };
        assert_eq!((vmid(VTCR_40), vmid(VTCR_40 | 1 << 19)), (0x34, 0x1234));
    }

    #[test]
    fn dropped_base_bits_are_told() {
        let table =
            |vttbr| ImageTable::stage2(VTCR_40, vttbr, Features::of_kvm(VTCR_40, false, true), Encoding::NONE).unwrap();
        assert_eq!(table(0x4000_2001).warning(), None, "bit 0 is CnP");
        assert!(table(0x4000_3000).warning().unwrap().contains("bits 0x1000 of BADDR"));
    }
}
