// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shapes of tables: what the MMU would be told, in numbers of our own, and each that is legal.

use s2dump_vmsa::{Features, Geometry};

/// Whose table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A guest's.
    Two,
    /// The hypervisor's, HCR_EL2.E2H clear.
    El2,
    /// The hypervisor's, HCR_EL2.E2H set: the lower range.
    El2And0,
}

/// A shape of table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) stage: Stage,
    pub(crate) page_shift: u32,
    pub(crate) ia_bits: u32,
    pub(crate) start_level: i8,
    /// What PS says.
    pub(crate) pa_bits: u32,
    /// What the CPU has. With 52, descriptors of 64 KiB pages have the LPA format.
    pub(crate) pa_max_bits: u32,
    pub(crate) lpa2: bool,
    /// Stage 1: the tables above a leaf say nothing about rights.
    pub(crate) hpd: bool,
}

const fn shape(name: &'static str, page_shift: u32, ia_bits: u32, start_level: i8, pa_bits: u32, lpa2: bool) -> Shape {
    let stage = Stage::Two;
    Shape { name, stage, page_shift, ia_bits, start_level, pa_bits, pa_max_bits: pa_bits, lpa2, hpd: false }
}

const fn el2(name: &'static str, page_shift: u32, ia_bits: u32, start_level: i8, stage: Stage) -> Shape {
    Shape { stage, ..shape(name, page_shift, ia_bits, start_level, 48, false) }
}

/// Shapes with a root of less than one table, exactly one, two and sixteen; each granule; each start level; each stage.
pub(crate) const SHAPES: &[Shape] = &[
    shape("4k_40_two_roots", 12, 40, 1, 40, false),
    shape("4k_39_one_root", 12, 39, 1, 40, false),
    shape("4k_33_small_root", 12, 33, 1, 40, false),
    shape("4k_48", 12, 48, 0, 48, false),
    shape("4k_52_sixteen_roots", 12, 52, 0, 52, true),
    shape("4k_52_level_minus_1", 12, 52, -1, 52, true),
    shape("4k_34_sixteen_roots", 12, 34, 2, 40, false),
    shape("4k_25_pages_only", 12, 25, 3, 40, false),
    shape("4k_16_pages_only", 12, 16, 3, 40, false),
    shape("16k_48_two_roots", 14, 48, 1, 48, false),
    shape("16k_48_lpa2_level_0", 14, 48, 0, 52, true),
    shape("16k_30_small_root", 14, 30, 2, 40, false),
    shape("64k_52", 16, 52, 1, 52, false),
    Shape { pa_max_bits: 52, ..shape("64k_48_lpa_of_40", 16, 48, 1, 40, false) },
    shape("64k_43_two_roots", 16, 43, 2, 48, false),
    el2("el2_4k_48", 12, 48, 0, Stage::El2),
    el2("el2_4k_39_e2h", 12, 39, 1, Stage::El2And0),
    el2("el2_16k_47_e2h", 14, 47, 1, Stage::El2And0),
    el2("el2_64k_42", 16, 42, 2, Stage::El2),
    Shape { lpa2: true, pa_bits: 52, pa_max_bits: 52, ..el2("el2_4k_52_e2h", 12, 52, -1, Stage::El2And0) },
    Shape { hpd: true, ..el2("el2_4k_48_hpd", 12, 48, 0, Stage::El2) },
];

/// Each of [`SHAPES`]; under Miri two, because it needs a minute for the tables of the others.
pub(crate) fn each_shape() -> impl Iterator<Item = Shape> {
    SHAPES.iter().copied().take(if cfg!(miri) { 2 } else { SHAPES.len() })
}

const PS: [u32; 7] = [32, 36, 40, 42, 44, 48, 52];

/// Returns every legal shape of a CPU with all features and 52 address bits, and those with 64 KiB pages of one without LPA.
pub(crate) fn all_legal() -> Vec<Shape> {
    let mut found = Vec::new();
    for (page_shift, lpa2, pa_bits) in
        [(12, false, 48), (12, true, 52), (14, false, 48), (14, true, 52), (16, false, 48), (16, false, 52)]
    {
        for ia_bits in 16..=pa_bits {
            for start_level in -1..=3 {
                let is_64k = page_shift == 16;
                let pa_max_bits = if is_64k { pa_bits } else { 52 };
                let shape = Shape { pa_max_bits, ..shape("legal", page_shift, ia_bits, start_level, pa_bits, lpa2) };
                let first_level = if is_64k { 1 } else { i8::from(page_shift == 14) - i8::from(lpa2) };
                if start_level < first_level || (is_64k && ia_bits == 16) {
                    continue;
                }
                let Some(root_bits) = ia_bits.checked_sub(shape.shift(start_level)) else { continue };
                if (1..=shape.index_bits() + 4).contains(&root_bits) {
                    found.push(shape);
                }
                // Stage 1 concatenates nothing and has no level more than it needs.
                if (1..=shape.index_bits()).contains(&root_bits) {
                    for stage in [Stage::El2, Stage::El2And0] {
                        found.push(Shape { stage, ..shape });
                    }
                }
            }
        }
    }
    found
}

impl Shape {
    fn is_64k(&self) -> bool {
        self.page_shift == 16
    }

    /// VTCR_EL2 or TCR_EL2, assembled field by field.
    pub(crate) fn register(&self) -> u64 {
        let (tg0, below_3) = match self.page_shift {
            12 => (0, 2),
            14 => (2, 3),
            _ => (1, 3),
        };
        let ps = PS.iter().position(|&bits| bits == self.pa_bits).unwrap() as u64;
        let t0sz = 64 - u64::from(self.ia_bits);
        let sh0_inner = 3 << 12;
        let common = tg0 << 14 | sh0_inner | t0sz;
        let (lpa2, hpd) = (u64::from(self.lpa2), u64::from(self.hpd));
        match self.stage {
            Stage::Two => {
                // SL0 counts levels upwards: from 2 with 4 KiB pages (3 is out of line), from 3 with others.
                let (sl2, sl0) = match (self.page_shift, self.start_level) {
                    (12, -1) => (1, 0),
                    (12, 3) => (0, 3),
                    (_, level) => (0, (below_3 - level) as u64),
                };
                common | sl2 << 33 | lpa2 << 32 | 1 << 31 | ps << 16 | sl0 << 6
            }
            Stage::El2 => common | lpa2 << 32 | 1 << 31 | hpd << 24 | 1 << 23 | ps << 16,
            Stage::El2And0 => common | lpa2 << 59 | hpd << 41 | ps << 32,
        }
    }

    /// A CPU that has everything the shape needs.
    pub(crate) fn features(&self) -> Features {
        Features { pa_max_bits: self.pa_max_bits as u8, ..Features::of_kvm(self.register(), true, true) }
    }

    pub(crate) fn geometry(&self) -> Geometry {
        let geometry = match self.stage {
            Stage::Two => Geometry::from_vtcr(self.register(), self.features()),
            stage => Geometry::from_tcr_el2(self.register(), stage == Stage::El2And0, self.features()),
        };
        geometry.unwrap_or_else(|error| panic!("{self:?}: {error:?}"))
    }

    /// Output-address bits in force.
    pub(crate) fn output_bits(&self) -> u32 {
        let of_format = if self.lpa2 || self.is_64k() { 52 } else { 48 };
        self.pa_bits.min(self.pa_max_bits).min(of_format)
    }

    pub(crate) fn index_bits(&self) -> u32 {
        self.page_shift - 3
    }

    /// What an entry of `level` spans, as a shift.
    pub(crate) fn shift(&self, level: i8) -> u32 {
        self.page_shift + self.index_bits() * (3 - level) as u32
    }

    /// Entries of the root.
    pub(crate) fn root_words(&self) -> usize {
        1 << (self.ia_bits - self.shift(self.start_level))
    }

    pub(crate) fn has_blocks(&self, level: i8) -> bool {
        match self.page_shift {
            12 => level == 1 || level == 2 || (level == 0 && self.lpa2),
            14 => level == 2 || (level == 1 && self.lpa2),
            _ => level == 2 || (level == 1 && self.pa_max_bits == 52),
        }
    }

    /// Descriptor bits of an output address, or of a table, that fills `pa_shift` and up.
    fn high_bits(&self) -> Option<(u32, u64, u32)> {
        // Where they stand, how many as a mask, and where they belong.
        match (self.lpa2, self.is_64k() && self.pa_max_bits == 52) {
            (true, _) => Some((8, 0b11, 50)),
            (_, true) => Some((12, 0b1111, 48)),
            _ => None,
        }
    }

    /// Puts an output address into a descriptor.
    pub(crate) fn encode(&self, pa: u64) -> u64 {
        let low = pa & ((1 << if self.lpa2 { 50 } else { 48 }) - 1);
        self.high_bits().map_or(low, |(at, mask, belongs)| low | (pa >> belongs & mask) << at)
    }

    /// Takes an output address out of a leaf or table, bit by bit.
    pub(crate) fn decode(&self, raw: u64, shift: u32) -> u64 {
        let mut pa = 0;
        for n in shift..if self.lpa2 { 50 } else { 48 } {
            pa |= raw & 1 << n;
        }
        self.high_bits().map_or(pa, |(at, mask, belongs)| pa | (raw >> at & mask) << belongs)
    }

    /// What table descriptor `raw` says about everything below: bits 63:59 as far as the stage has them.
    pub(crate) fn table_attrs(&self, raw: u64) -> u8 {
        let counts = match (self.stage, self.hpd) {
            (Stage::Two, _) => 0,
            (_, true) => 0b10000,
            (Stage::El2, _) => 0b11010,
            (Stage::El2And0, _) => 0b11111,
        };
        (raw >> 59) as u8 & counts
    }

    pub(crate) fn ia_end(&self) -> u64 {
        1 << self.ia_bits
    }
}
