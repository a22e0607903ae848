// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random tables: runs of pages and blocks, holes, annotations, wrong tables, in any order over each other.

use crate::common::{all_legal, Shape, Tables, SHAPES};
use proptest::prelude::*;
use std::sync::LazyLock;

/// Attributes that tell runs apart: state, execution, access flag, contiguous; and one reserved bit.
const ATTRS: &[u64] = &[0, 1 << 55, 1 << 56, 1 << 54, 1 << 52, 1 << 10, 1 << 50];

/// What a run of entries is filled with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Filling {
    /// Leaves whose output addresses run on.
    Linear { attrs: usize, frame: u64 },
    /// The same, beginning so many below a border of addresses.
    LinearAcross { attrs: usize, below: u64, border: Border },
    /// Leaves whose output addresses do not.
    Scattered { attrs: usize, frame: u64 },
    /// Invalid entries with this type.
    Annotated { kind: u64 },
    /// Tables at this frame of memory, which begins with the root at 16; or outside of it.
    WrongTable { frame: u64 },
    /// A descriptor out of a hat.
    Any { raw: u64 },
}

/// Where output addresses go on in other bits of the descriptor, or are no longer translated.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Border {
    /// Bit 48: the end of a 48-bit address, and where 64 KiB pages with 52-bit addresses use other bits.
    Bit48,
    /// Bit 50: where LPA2 uses other bits.
    Bit50,
    /// The output size.
    OutputSize,
}

/// A run of entries of one level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patch {
    /// Page number, taken modulo the space.
    page: u64,
    /// Levels above 3, as far as the shape has them.
    above: i8,
    count: u64,
    filling: Filling,
    /// Upper attributes of tables made for it: stage 2 ignores them.
    table_bits: u64,
}

fn border() -> impl Strategy<Value = Border> {
    prop_oneof![1 => Just(Border::Bit48), 1 => Just(Border::Bit50), 2 => Just(Border::OutputSize)]
}

fn filling() -> impl Strategy<Value = Filling> {
    prop_oneof![
        4 => (0..ATTRS.len(), any::<u64>()).prop_map(|(attrs, frame)| Filling::Linear { attrs, frame }),
        2 => (0..ATTRS.len(), 1..12_u64, border())
            .prop_map(|(attrs, below, border)| Filling::LinearAcross { attrs, below, border }),
        3 => (0..ATTRS.len(), any::<u64>()).prop_map(|(attrs, frame)| Filling::Scattered { attrs, frame }),
        2 => (0..16_u64).prop_map(|kind| Filling::Annotated { kind }),
        2 => prop_oneof![16..18_u64, 0..40_u64, any::<u64>()].prop_map(|frame| Filling::WrongTable { frame }),
        1 => any::<u64>().prop_map(|raw| Filling::Any { raw }),
    ]
}

fn patch() -> impl Strategy<Value = Patch> {
    // Close together, so that patches meet; some at the end of the space.
    let page = prop_oneof![0..3000_u64, (0..3000_u64).prop_map(u64::wrapping_neg), any::<u64>()];
    let table_bits = prop_oneof![Just(0), (0..1_u64 << 13).prop_map(|bits| bits << 51)];
    (page, prop_oneof![4 => Just(0_i8), 1 => 0..4_i8], 1..700_u64, filling(), table_bits)
        .prop_map(|(page, above, count, filling, table_bits)| Patch { page, above, count, filling, table_bits })
}

pub(crate) fn shape() -> impl Strategy<Value = Shape> {
    static LEGAL: LazyLock<Vec<Shape>> = LazyLock::new(all_legal);
    let legal = (0..LEGAL.len(), any::<bool>()).prop_map(|(n, hpd)| Shape { hpd, ..LEGAL[n] });
    prop_oneof![(0..SHAPES.len()).prop_map(|n| SHAPES[n]), legal]
}

pub(crate) fn tables() -> impl Strategy<Value = Tables> {
    (shape(), proptest::collection::vec(patch(), 1..6)).prop_map(|(shape, patches)| {
        let mut tables = Tables::new(shape);
        patches.iter().for_each(|patch| apply(&mut tables, patch));
        tables
    })
}

fn apply(tables: &mut Tables, patch: &Patch) {
    let shape = tables.shape;
    let level = i8::max(3 - patch.above, shape.start_level);
    let shift = shape.shift(level);
    let first = (patch.page % (1 << (shape.ia_bits - shape.page_shift))) << shape.page_shift >> shift;
    let end = u64::min(first + patch.count, 1 << (shape.ia_bits - shift));
    tables.table_bits = patch.table_bits;
    let leaf = if level == 3 { 0b11 } else { 0b01 };
    for n in first..end {
        // Address bits beyond the field are dropped by `encode`.
        let leaf_at = |frame: u64, attrs: usize| shape.encode(frame << shift) | ATTRS[attrs] | 0x4f0 | leaf;
        let raw = match patch.filling {
            Filling::Linear { attrs, frame } => leaf_at(frame.wrapping_add(n - first), attrs),
            Filling::LinearAcross { attrs, below, border } => {
                let bits = match border {
                    Border::Bit48 => 48,
                    Border::Bit50 => 50,
                    Border::OutputSize => shape.output_bits(),
                };
                // A large entry may be more than so many below.
                leaf_at(((1_u64 << bits) >> shift).wrapping_add(n - first).wrapping_sub(below), attrs)
            }
            Filling::Scattered { attrs, frame } => leaf_at(frame.wrapping_mul(n | 1), attrs),
            Filling::Annotated { kind } => kind << 60,
            Filling::WrongTable { frame } if level < 3 => {
                shape.encode((crate::common::BASE >> shape.page_shift).wrapping_add(frame) << shape.page_shift) | 0b11
            }
            Filling::WrongTable { frame } => frame << 1,
            // No chance tables into memory: they would make a walk as long as it likes.
            Filling::Any { raw } => raw & if level < 3 { !0b10 } else { !0 },
        };
        tables.set(n << shift, level, raw);
    }
}
