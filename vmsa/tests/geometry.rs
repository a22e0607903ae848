// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every combination of granule, start level and input size, against the architecture's table of legal ones.

use s2dump_vmsa::{Features, Geometry, GeometryError, Granule, Level};
use std::ops::RangeInclusive;

const ALL: Features = Features { lpa2: true, fwb: true, xnx: true, ttst: true, pa_max_bits: 52, ..Features::NONE };

/// TG0, SL2:SL0, start level, legal input sizes without and with LPA2 descriptors.
type LegalRow = (u64, u64, i8, RangeInclusive<u8>, RangeInclusive<u8>);

/// No input size is legal: there is none of so many bits.
const NEVER: RangeInclusive<u8> = 255..=255;

/// DDI 0487, "Stage 2 translation": start level and concatenation, for a CPU with all features and 52 address bits.
const LEGAL: &[LegalRow] = &[
    (0, 0b000, 2, 22..=34, 22..=34),
    (0, 0b001, 1, 31..=43, 31..=43),
    (0, 0b010, 0, 40..=48, 40..=52),
    (0, 0b011, 3, 16..=25, 16..=25),
    (0, 0b100, -1, NEVER, 49..=52),
    (2, 0b000, 3, 16..=29, 16..=29),
    (2, 0b001, 2, 26..=40, 26..=40),
    (2, 0b010, 1, 37..=48, 37..=51),
    (2, 0b011, 0, NEVER, 48..=52),
    (1, 0b000, 3, 17..=33, 17..=33),
    (1, 0b001, 2, 30..=46, 30..=46),
    (1, 0b010, 1, 43..=52, 43..=52),
];

fn vtcr(tg0: u64, sl: u64, t0sz: u64, ds: bool) -> u64 {
    let ps_52 = 6 << 16;
    (sl >> 2) << 33 | u64::from(ds) << 32 | 1 << 31 | ps_52 | tg0 << 14 | (sl & 3) << 6 | t0sz
}

#[test]
#[cfg_attr(miri, ignore = "arithmetic of many values: minutes under Miri")]
fn good_legal_combinations_and_no_others() {
    let mut legal = 0;
    for tg0 in 0..4 {
        for ds in [false, true] {
            for sl in 0..8 {
                for t0sz in 0..64 {
                    let found = Geometry::from_vtcr(vtcr(tg0, sl, t0sz, ds), ALL);
                    // SL2 only counts with 4 KiB pages and DS.
                    let sl_in_force = if ds && tg0 == 0 { sl } else { sl & 3 };
                    let row = LEGAL.iter().find(|(row_tg0, row_sl, ..)| (*row_tg0, *row_sl) == (tg0, sl_in_force));
                    let ia_bits = (64 - t0sz) as u8;
                    let expected = row.filter(|row| if ds { &row.4 } else { &row.3 }.contains(&ia_bits));
                    let what = format!("TG0 {tg0} SL {sl} T0SZ {t0sz} DS {ds}: {found:?}");
                    let Some((.., start_level, _, _)) = expected else {
                        assert!(found.is_err(), "{what}");
                        continue;
                    };
                    let geometry = found.unwrap_or_else(|_| panic!("{what}"));
                    assert_eq!((geometry.ia_bits(), geometry.start_level().get()), (ia_bits, *start_level), "{what}");
                    let root_bits = geometry.root_index_bits();
                    let shift = geometry.granule().entry_shift(geometry.start_level());
                    assert_eq!(1_u64 << root_bits << shift, 1 << ia_bits, "the root spans the space: {what}");
                    assert!((1..=16).contains(&geometry.root_tables()), "{what}");
                    // Counted once for what is the same with another SL2 or DS.
                    legal += usize::from(sl == sl_in_force && (tg0 != 1 || !ds));
                }
            }
        }
    }
    assert_eq!(legal, 232, "as many as an emulated CPU accepts");
}

#[test]
fn good_concatenation() {
    let tables =
        |tg0, sl, ia_bits: u64| Geometry::from_vtcr(vtcr(tg0, sl, 64 - ia_bits, true), ALL).unwrap().root_tables();
    assert_eq!([39, 40, 41, 42, 43].map(|ia| tables(0, 1, ia)), [1, 2, 4, 8, 16]);
    assert_eq!([48, 49, 50, 51, 52].map(|ia| tables(0, 2, ia)), [1, 2, 4, 8, 16]);
    assert_eq!([47, 48, 49, 50, 51].map(|ia| tables(2, 2, ia)), [1, 2, 4, 8, 16]);
    assert_eq!([42, 43, 44, 45, 46].map(|ia| tables(1, 1, ia)), [1, 2, 4, 8, 16]);
}

#[test]
fn bad_fields_are_named() {
    let error = |vtcr, features| Geometry::from_vtcr(vtcr, features).unwrap_err();
    let good = vtcr(0, 1, 24, false);
    assert_eq!(error(good | 1 << 38, ALL), GeometryError::D128);
    assert_eq!(error(vtcr(3, 1, 24, false), ALL), GeometryError::Tg0(3));
    assert_eq!(error(vtcr(0, 1, 15, false), ALL), GeometryError::T0sz { t0sz: 15, min: 16, max: 48 });
    assert_eq!(error(vtcr(0, 3, 49, false), ALL), GeometryError::T0sz { t0sz: 49, min: 16, max: 48 });
    assert_eq!(error(vtcr(1, 0, 48, false), ALL), GeometryError::T0sz { t0sz: 48, min: 12, max: 47 });
    assert_eq!(error(vtcr(0, 7, 24, true), ALL), GeometryError::StartLevel(7));
    let unsuited = |start_level, index_bits| GeometryError::StartLevelForT0sz { start_level, index_bits };
    assert_eq!(error(vtcr(0, 1, 20, false), ALL), unsuited(1, 14));
    assert_eq!(error(vtcr(0, 2, 25, false), ALL), unsuited(2, 0));
}

#[test]
fn bad_without_the_feature() {
    let start_3 = vtcr(0, 3, 39, false);
    let refused = Geometry::from_vtcr(start_3, Features { ttst: false, ..ALL });
    assert_eq!(refused, Err(GeometryError::StartLevel(3)));
    let small = vtcr(0, 0, 40, false);
    let refused = Geometry::from_vtcr(small, Features { ttst: false, ..ALL });
    assert_eq!(refused, Err(GeometryError::T0sz { t0sz: 40, min: 16, max: 39 }));
    let large = vtcr(0, 1, 24, false);
    let refused = Geometry::from_vtcr(large, Features { pa_max_bits: 36, ..ALL });
    assert_eq!(refused, Err(GeometryError::T0sz { t0sz: 24, min: 28, max: 48 }));
    let level_0 = vtcr(0, 2, 24, false);
    let refused = Geometry::from_vtcr(level_0, Features { pa_max_bits: 42, ..ALL });
    assert_eq!(refused, Err(GeometryError::StartLevel(2)));
    let level_1_of_16k = vtcr(2, 2, 24, false);
    let refused = Geometry::from_vtcr(level_1_of_16k, Features { pa_max_bits: 40, ..ALL });
    assert_eq!(refused, Err(GeometryError::StartLevel(2)));
    assert!(Geometry::from_vtcr(level_1_of_16k, Features { pa_max_bits: 42, ..ALL }).is_ok());
    let level_1_of_64k = vtcr(1, 2, 22, false);
    let refused = Geometry::from_vtcr(level_1_of_64k, Features { pa_max_bits: 42, ..ALL });
    assert_eq!(refused, Err(GeometryError::StartLevel(2)));
    for (tg0, sizes) in [(2, [40, 42]), (1, [42, 44])] {
        let level_1 = |pa_max_bits| Geometry::from_vtcr(vtcr(tg0, 2, 24, false), Features { pa_max_bits, ..ALL });
        let [too_small, enough] = sizes.map(level_1);
        assert_eq!(too_small, Err(GeometryError::StartLevel(2)), "TG0 {tg0}");
        assert_ne!(enough, Err(GeometryError::StartLevel(2)), "TG0 {tg0}");
    }
}

/// DS without FEAT_LPA2 is reserved: as if it were 0.
#[test]
fn good_ds_needs_lpa2() {
    let geometry = Geometry::from_vtcr(vtcr(0, 2, 16, true), Features { lpa2: false, ..ALL }).unwrap();
    assert!(!geometry.is_lpa2());
    assert_eq!(geometry.pa_bits(), 48);
    assert_eq!(geometry.high_address_mask(), 0);
}

#[test]
fn good_output_size() {
    let pa_bits = |ps: u64, ds, pa_max_bits| {
        let vtcr = vtcr(0, 1, 32, ds) & !(7 << 16) | ps << 16;
        Geometry::from_vtcr(vtcr, Features { pa_max_bits, ..ALL }).unwrap().pa_bits()
    };
    assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(|ps| pa_bits(ps, true, 52)), [32, 36, 40, 42, 44, 48, 52, 52]);
    assert_eq!(pa_bits(6, false, 52), 48, "52 bits do not fit the descriptor");
    assert_eq!(pa_bits(6, true, 40), 40, "the CPU has fewer");
}

#[test]
fn good_block_levels() {
    let levels = |tg0, sl, ia: u64, ds, pa_max_bits| {
        let geometry = Geometry::from_vtcr(vtcr(tg0, sl, 64 - ia, ds), Features { pa_max_bits, ..ALL }).unwrap();
        [Level::MINUS_1, Level::L0, Level::L1, Level::L2, Level::L3].map(|level| geometry.is_block_level(level))
    };
    assert_eq!(levels(0, 1, 40, false, 52), [false, false, true, true, false]);
    assert_eq!(levels(0, 1, 40, true, 52), [false, true, true, true, false]);
    assert_eq!(levels(2, 1, 40, false, 52), [false, false, false, true, false]);
    assert_eq!(levels(2, 1, 40, true, 52), [false, false, true, true, false]);
    assert_eq!(levels(1, 1, 40, false, 48), [false, false, false, true, false]);
    assert_eq!(levels(1, 1, 40, false, 52), [false, false, true, true, false]);
}

#[test]
fn good_contiguous_runs() {
    let runs = |granule: Granule| [Level::L0, Level::L1, Level::L2, Level::L3].map(|l| granule.contiguous_entries(l));
    assert_eq!(runs(Granule::Size4K), [None, Some(16), Some(16), Some(16)]);
    assert_eq!(runs(Granule::Size16K), [None, None, Some(32), Some(128)]);
    assert_eq!(runs(Granule::Size64K), [None, None, Some(32), Some(32)]);
}

/// Any register value is decoded or refused, and what is decoded can be computed with.
#[test]
#[cfg_attr(miri, ignore = "arithmetic of many values: minutes under Miri")]
fn good_no_register_value_panics() {
    let mut raw = 1_u64;
    for n in 0..200_000_u32 {
        raw = raw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let value = raw ^ raw >> 29;
        let bit = |k: u32| n >> k & 1 != 0;
        let pa_max_bits = [32, 36, 40, 42, 44, 48, 52][n as usize % 7];
        let features = Features { lpa2: bit(0), fwb: bit(1), xnx: bit(2), ttst: bit(3), pa_max_bits, ..Features::NONE };
        // D128 would refuse half of them.
        if let Ok(geometry) = Geometry::from_vtcr(value & !(1 << 38), features) {
            assert!(geometry.root_bytes() <= 16 << geometry.granule().page_shift());
            assert!(geometry.ia_end() <= 1 << 52);
            for level in -1..=3 {
                let level = Level::try_new(level).unwrap();
                assert_eq!(geometry.low_address_mask(level) & geometry.high_address_mask(), 0);
            }
        }
    }
}
