// SPDX-License-Identifier: MIT OR Apache-2.0
//! TCR_EL2 in both forms, and the base registers, against the architecture's tables.

use s2dump_vmsa::attrs::Shareability;
use s2dump_vmsa::geometry::{Base, BaseBeyondOutput};
use s2dump_vmsa::{Features, Geometry, GeometryError, PhysAddr, Regime};
use std::ops::RangeInclusive;

const ALL: Features = Features {
    pa_max_bits: 52,
    lpa2: true,
    lva: true,
    ttst: true,
    fwb: true,
    xnx: true,
    mte_perm: true,
    ha: true,
    hd: true,
    hpds: true,
    hpds2: true,
    s2pie: true,
    s2poe: true,
    the: true,
    aie: true,
};

/// TG0, start level, input sizes it resolves; the first level of each granule begins where the one below ends.
const START_LEVELS: &[(u64, i8, RangeInclusive<u64>)] = &[
    (0, -1, 49..=52),
    (0, 0, 40..=48),
    (0, 1, 31..=39),
    (0, 2, 22..=30),
    (0, 3, 16..=21),
    (2, 0, 48..=52),
    (2, 1, 37..=47),
    (2, 2, 26..=36),
    (2, 3, 16..=25),
    (1, 1, 43..=52),
    (1, 2, 30..=42),
    (1, 3, 17..=29),
];

/// TCR_EL2 of either form: `ps`, `ds` and `hpd` in their places.
fn tcr(e2h: bool, tg0: u64, t0sz: u64, ps: u64, ds: bool) -> u64 {
    let (ps_shift, ds_shift) = if e2h { (32, 59) } else { (16, 32) };
    u64::from(ds) << ds_shift | ps << ps_shift | tg0 << 14 | 0b10 << 12 | t0sz
}

#[test]
#[cfg_attr(miri, ignore = "arithmetic of many values: minutes under Miri")]
fn good_start_levels_and_no_others() {
    for e2h in [false, true] {
        for (tg0, ds, t0sz) in
            (0..4).flat_map(|tg0| (0..64).flat_map(move |t0sz| [(tg0, false, t0sz), (tg0, true, t0sz)]))
        {
            let found = Geometry::from_tcr_el2(tcr(e2h, tg0, t0sz, 6, ds), e2h, ALL);
            let what = format!("E2H {e2h} TG0 {tg0} T0SZ {t0sz} DS {ds}: {found:?}");
            let ia_bits = 64 - t0sz;
            let is_large = ia_bits > 48 && !ds && tg0 != 1;
            let row = START_LEVELS.iter().find(|(row_tg0, _, sizes)| *row_tg0 == tg0 && sizes.contains(&ia_bits));
            match row.filter(|_| !is_large) {
                Some((_, start_level, _)) => {
                    let geometry = found.unwrap_or_else(|_| panic!("{what}"));
                    assert_eq!((u64::from(geometry.ia_bits()), geometry.start_level().get()), (ia_bits, *start_level));
                    assert_eq!(geometry.root_tables(), 1, "stage 1 concatenates nothing: {what}");
                    assert_eq!(geometry.is_lpa2(), ds && tg0 != 1, "{what}");
                    assert_eq!(geometry.regime(), if e2h { Regime::El2And0 } else { Regime::El2 });
                    assert_eq!(geometry.sh0(), Shareability::Outer);
                }
                None => assert!(found.is_err(), "{what}"),
            }
        }
    }
}

#[test]
fn bad_fields_are_named() {
    let error = |tcr, e2h, features| Geometry::from_tcr_el2(tcr, e2h, features).unwrap_err();
    assert_eq!(error(tcr(false, 3, 16, 5, false), false, ALL), GeometryError::Tg0(3));
    assert_eq!(error(1 << 7 | tcr(true, 0, 16, 5, false), true, ALL), GeometryError::Epd0);
    assert!(Geometry::from_tcr_el2(1 << 7 | tcr(false, 0, 16, 5, false), false, ALL).is_ok(), "no EPD0 without E2H");
    let t0sz = |t0sz, min, max| GeometryError::T0sz { t0sz, min, max };
    assert_eq!(error(tcr(false, 0, 15, 5, false), false, ALL), t0sz(15, 16, 48));
    assert_eq!(error(tcr(false, 0, 15, 5, true), false, Features { lpa2: false, ..ALL }), t0sz(15, 16, 48));
    assert_eq!(error(tcr(false, 0, 11, 5, true), false, ALL), t0sz(11, 12, 48));
    assert_eq!(error(tcr(true, 1, 15, 5, false), true, Features { lva: false, ..ALL }), t0sz(15, 16, 47));
    assert_eq!(error(tcr(true, 0, 40, 5, false), true, Features { ttst: false, ..ALL }), t0sz(40, 16, 39));
}

#[test]
fn good_output_size_of_each_form() {
    for e2h in [false, true] {
        let pa_bits = |ps, ds, pa_max_bits| {
            Geometry::from_tcr_el2(tcr(e2h, 0, 16, ps, ds), e2h, Features { pa_max_bits, ..ALL }).unwrap().pa_bits()
        };
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(|ps| pa_bits(ps, true, 52)), [32, 36, 40, 42, 44, 48, 52, 52]);
        assert_eq!(pa_bits(6, false, 52), 48, "52 bits do not fit the descriptor");
        assert_eq!(pa_bits(6, true, 40), 40, "the CPU has fewer");
    }
}

/// HA and HD, each in its form's place.
#[test]
fn good_hardware_updates() {
    for (e2h, ha, hd) in [(false, 21, 22), (true, 39, 40)] {
        let updates = |bits: u64, features| {
            let geometry = Geometry::from_tcr_el2(bits | tcr(e2h, 0, 16, 5, false), e2h, features).unwrap();
            (geometry.sets_access_flag(), geometry.manages_dirty_state())
        };
        assert_eq!(updates(0, ALL), (false, false));
        assert_eq!(updates(1 << ha, ALL), (true, false));
        assert_eq!(updates(1 << hd, ALL), (false, false), "HD counts only with HA");
        assert_eq!(updates(1 << ha | 1 << hd, ALL), (true, true));
        assert_eq!(updates(1 << ha | 1 << hd, Features { hd: false, ..ALL }), (true, false));
        assert_eq!(updates(1 << ha | 1 << hd, Features { ha: false, ..ALL }), (false, false));
        let other = if e2h { 1 << 21 | 1 << 22 } else { 1 << 39 | 1 << 40 };
        assert_eq!(updates(other, ALL), (false, false), "the other form's places");
    }
}

fn stage2(vtcr: u64) -> Geometry {
    Geometry::from_vtcr(vtcr, ALL).unwrap()
}

fn base(geometry: Geometry, register: u64) -> (u64, u64) {
    let Base { address, dropped } = geometry.base(register).unwrap();
    (address.get(), dropped)
}

/// VMID and CnP are no address bits; what is below the alignment of the root is dropped and told.
#[test]
fn good_base_in_48_bits() {
    let two_tables = stage2(5 << 16 | 1 << 6 | 24);
    assert_eq!(base(two_tables, 0xffff_8123_4567_2001), (0x8123_4567_2000, 0));
    assert_eq!(base(two_tables, 0x8123_4567_3002), (0x8123_4567_2000, 0x1002));
    let two_entries = stage2(5 << 16 | 1 << 6 | 33);
    assert_eq!(base(two_entries, 0x1230), (0x1230, 0));
    assert_eq!(base(two_entries, 0x123e), (0x1230, 0xe));
}

/// With 52-bit addresses 5:2 are bits 51:48, and no root is aligned to less than 64 bytes.
#[test]
fn good_base_in_52_bits() {
    let lpa2 = stage2(1 << 32 | 6 << 16 | 2 << 6 | 12);
    assert_eq!(base(lpa2, 0xa_0000_0000_0000 | 0x8123_4560_0000 | 0b1010 << 2), (0xa_8123_4560_0000, 0));
    assert_eq!(base(lpa2, 0x1_0040), (0x1_0000, 0x40), "sixteen tables");
    let lpa2_two_entries = stage2(1 << 32 | 6 << 16 | 1 << 6 | 33);
    assert_eq!(base(lpa2_two_entries, 0x1240), (0x1240, 0));
    assert_eq!(base(lpa2_two_entries, 0x1260 | 0b1111 << 2), (0xf_0000_0000_1240, 0), "bit 5 is bit 51 of the base");
    let lpa = stage2(6 << 16 | 1 << 14 | 2 << 6 | 12);
    assert_eq!(base(lpa, 0b0001 << 2 | 0x4000), (0x1_0000_0000_4000, 0));
    let lpa_48 = stage2(5 << 16 | 1 << 14 | 1 << 6 | 22);
    assert_eq!(base(lpa_48, 0b0001 << 2), (0, 0b0001 << 2), "only with PS 52");
}

#[test]
fn good_base_of_el2() {
    let geometry = Geometry::from_tcr_el2(tcr(true, 0, 16, 5, false), true, ALL).unwrap();
    assert_eq!(base(geometry, 0x0042_0000_4123_4001), (0x4123_4000, 0), "an ASID is no address");
}

#[test]
fn bad_base_beyond_output() {
    let geometry = stage2(2 << 16 | 1 << 6 | 24);
    assert_eq!(base(geometry, 1 << 39), (1 << 39, 0));
    assert_eq!(geometry.base(1 << 40), Err(BaseBeyondOutput(PhysAddr::new(1 << 40))));
    let lpa2 = stage2(1 << 32 | 5 << 16 | 2 << 6 | 16);
    assert_eq!(lpa2.base(0b0001 << 2), Err(BaseBeyondOutput(PhysAddr::new(1 << 48))));
}

/// KVM's values: 48 bits without E2H, and 52 with E2H and LPA2. What PS says is what the CPU has.
#[test]
fn good_tables_of_kvm() {
    let of_kvm = |tcr, e2h, lpa2| Geometry::from_tcr_el2(tcr, e2h, Features::of_kvm_el2(tcr, e2h, lpa2)).unwrap();
    let geometry = of_kvm(tcr(false, 0, 16, 4, false), false, false);
    let shape = |geometry: Geometry| {
        (geometry.ia_bits(), geometry.start_level().get(), geometry.pa_bits(), geometry.is_lpa2(), geometry.regime())
    };
    assert_eq!(shape(geometry), (48, 0, 44, false, Regime::El2));
    let geometry = of_kvm(tcr(true, 0, 12, 6, true), true, true);
    assert_eq!(shape(geometry), (52, -1, 52, true, Regime::El2And0));
    let without = Geometry::from_tcr_el2(tcr(true, 0, 12, 6, true), true, Features::of_kvm_el2(0, true, false));
    assert!(matches!(without, Err(GeometryError::T0sz { t0sz: 12, .. })), "{without:?}");
}
