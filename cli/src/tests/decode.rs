// SPDX-License-Identifier: MIT OR Apache-2.0
//! `decode` accounts for each bit of every descriptor once: in one field, or as unknown.

use super::run_without_device;
use crate::args::{Cli, Color, Verb};
use crate::decode::decode;
use crate::exit_code::ExitCode;
use crate::plan::decode::DecodePlan;
use clap::Parser;
use proptest::prelude::*;
use std::sync::OnceLock;

/// Every format there is, by the options that ask for it.
const FORMATS: &[&str] = &[
    "--granule 4k",
    "--granule 4k --xnx --encoding pkvm-7.2",
    "--granule 4k --lpa2 --fwb --mte-perm",
    "--granule 4k --s2pie --s2poe --assured-only --encoding pkvm-7.2",
    "--granule 4k --xnx --encoding pkvm-android-6.12",
    "--granule 4k --stage 1 --encoding pkvm-android-6.12",
    "--granule 16k --pa-bits 40 --pbha",
    "--granule 16k --lpa2 --xnx --assured-only",
    "--granule 64k --xnx",
    "--granule 64k --lpa --s2pie",
    "--granule 4k --stage 1",
    "--granule 4k --stage 1 --e2h --aie --lpa2",
    "--granule 16k --stage 1 --lpa2",
    "--granule 64k --stage 1 --e2h --lpa",
    "--vtcr 0x1802d3590",
    "--vtcr 0x8a023558",
    "--tcr 0x180023518",
    "--tcr 0x9f823519",
    "--tcr 0x1000510 --e2h",
];

fn plan(format: &str, level: i8) -> Option<DecodePlan> {
    let arguments = format!("s2dump decode 0 --level {level} {format}");
    let Verb::Decode(decode) = Cli::try_parse_from(arguments.split(' ')).unwrap().verb else { unreachable!() };
    DecodePlan::new(&decode, Color::Never).ok()
}

/// All formats at all levels they have.
fn plans() -> &'static [DecodePlan] {
    static PLANS: OnceLock<Vec<DecodePlan>> = OnceLock::new();
    let levels_of = |format: &&'static str| (-1..=3).filter_map(|level| plan(format, level)).collect::<Vec<_>>();
    PLANS.get_or_init(|| FORMATS.iter().flat_map(levels_of).collect())
}

#[test]
fn all_formats_have_levels() {
    for format in FORMATS {
        assert!((1..=3).all(|level| plan(format, level).is_some()), "{format}");
    }
    let with_level_minus_1 = FORMATS.iter().filter(|format| plan(format, -1).is_some()).count();
    assert_eq!(with_level_minus_1, 4, "those of 4k with DS");
}

fn check(raw: u64, plan: &DecodePlan) -> Result<(), TestCaseError> {
    let decoded = decode(plan.level.unwrap(), raw, plan);
    let mut known = 0;
    for field in &decoded.fields {
        prop_assert_eq!(known & field.mask(), 0, "{} overlaps", field.name);
        known |= field.mask();
        prop_assert_eq!((raw & field.mask()) >> field.lo, field.value);
        prop_assert!(!field.meaning.is_empty());
    }
    prop_assert!(decoded.fields.is_sorted_by_key(|field| field.lo));
    prop_assert_eq!(decoded.unknown, raw & !known, "{:?}", decoded.fields);
    let leads_somewhere = matches!(decoded.kind, "page" | "block" | "table");
    prop_assert_eq!(decoded.output.is_some(), leads_somewhere);
    prop_assert!(decoded.fault.is_some() || leads_somewhere);
    Ok(())
}

proptest! {
    #[test]
    fn all_64_bits_are_told(raw: u64, valid: bool) {
        // Half of all words would be invalid.
        let raw = raw | u64::from(valid);
        for plan in plans() {
            check(raw, plan)?;
        }
    }
}

/// Each bit by itself, on each type of descriptor.
#[test]
fn each_bit_is_told() {
    for plan in plans() {
        for (bit, kind) in (2..64).flat_map(|bit| (0..4).map(move |kind| (bit, kind))) {
            check(1 << bit | kind, plan).unwrap();
        }
    }
}

/// Lines in quotes are lines, as they are on standard input.
#[test]
fn quoted_lines_of_a_log() {
    let said = |words: &[&str]| {
        // A tab is no end of a word here.
        let words = words.join(" ").replace('_', "\t");
        let ran = run_without_device(&format!("decode --level 3 --granule 4k --json {words}"));
        let said = ran.out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        (
            ran.code,
            said.map(|line| line["descriptor"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" "),
            ran.err,
        )
    };
    let ok = |text: &str| (ExitCode::Ok, text.to_owned(), String::new());
    assert_eq!(said(&["ia_0x80000000_pte=0x40a127ff"]), ok("0x40a127ff"));
    // Names of one line say nothing of another.
    assert_eq!(said(&["x_pte=7ff", "at_0x7fd", "40a127ff"]), ok("0x7ff 0x7fd 0x40a127ff"));
    let note = "{\"message\":\"lines without a descriptor: 1\",\"type\":\"note\"}\n";
    assert_eq!(said(&["kvm:_pte=7ff\nnothing\n\nkvm:_0x7fd"]), (ExitCode::Ok, "0x7ff 0x7fd".into(), note.into()));
    let (code, out, err) = said(&["kvm:_pte=7ff\n", "80001234"]);
    assert_eq!((code, out.as_str()), (ExitCode::UsageOrIo, ""));
    assert!(err.contains("`80001234` does not say its base"), "{err}");
}

/// A descriptor is told the same by a dump's columns and by `decode`.
#[test]
fn says_what_a_row_says() {
    let ran = run_without_device("decode 0x00900000510107ff --level 3 --vtcr 0x80023558 --xnx --encoding pkvm-7.2");
    assert_eq!(ran.code, ExitCode::Ok, "{}", ran.err);
    for line in ["L3 page, 4KiB -> 0x51010000", "normal-wb", "S2AP            11             rw", "shared-owned"] {
        assert!(ran.out.contains(line), "{line}: {}", ran.out);
    }
    assert!(ran.out.ends_with("bits unknown: none\n"), "{}", ran.out);
}
