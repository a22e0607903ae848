// SPDX-License-Identifier: MIT OR Apache-2.0
//! `probe` says what is there, and the next step.

use super::fake::Script;
use super::support::{machine, three_vms, Capture};
use super::{run_with, run_without_device};
use crate::exit_code::ExitCode;
use crate::VERSION;
use s2dump_abi::hypercall::Status;
use s2dump_abi::version::features;

#[test]
fn ready() {
    let script = Script::new(Capture::default().list(&three_vms()).clone(), Capture::default());
    let ran = run_with("probe", &|| Ok(script.open()));
    assert_eq!(ran.code, ExitCode::Ok, "{}", ran.err);
    assert!(ran.out.ends_with("\nready\n"), "{}", ran.out);
    // ATOMIC is not among the fake's features, and bits from the future are ignored.
    assert!(ran.out.contains("exact digest guest-stage2\n"), "{}", ran.out);
}

#[test]
fn gate_off() {
    let script =
        Script { hello: Err(Status::NOT_PERMITTED.into()), ..Script::new(Capture::default(), Capture::default()) };
    let ran = run_with("probe", &|| Ok(script.open()));
    assert_eq!(ran.code, ExitCode::NotPermitted);
    assert!(ran.out.contains("next: boot with kvm-arm.s2dump=on"), "{}", ran.out);
}

#[cfg(not(target_arch = "aarch64"))]
#[test]
fn other_machines_are_told_plainly() {
    let ran = run_without_device("probe");
    assert_eq!(ran.code, ExitCode::Unsupported);
    assert!(ran.out.contains("next: this is not a pKVM machine"), "{}", ran.out);
    let ran = run_without_device("probe --json");
    assert!(ran.out.contains("\"ready\":false"), "{}", ran.out);
}

#[cfg(target_arch = "aarch64")]
#[test]
fn a_kernel_without_it_is_told_the_next_step() {
    let ran = run_without_device("probe");
    assert_eq!(ran.code, ExitCode::Unsupported);
    assert!(ran.out.contains("next: "), "{}", ran.out);
}

#[test]
fn version_is_told() {
    let ran = run_without_device("version");
    assert_eq!((ran.code, &ran.out), (ExitCode::Ok, &format!("s2dump {VERSION}\n")), "{}", ran.err);
    assert_eq!(run_without_device("--version").out, ran.out);
    let json: serde_json::Value = serde_json::from_str(&run_without_device("version --json").out).unwrap();
    let text = |key: &str| json[key].as_str();
    let commit = text("commit").map_or(String::new(), |commit| format!(" ({commit})"));
    assert_eq!(text("s2dump").map(|s2dump| s2dump.to_owned() + &commit), Some(VERSION.into()), "{json}");
}

#[test]
fn memory_is_told() {
    let list = Capture::default().list(&three_vms()).clone();
    let facts = Ok(machine::machine_facts_capture());
    let script = Script { facts, features: features::FACTS, ..Script::new(list, Capture::default()) };
    let ran = run_with("probe", &|| Ok(script.open()));
    assert_eq!(ran.code, ExitCode::Ok, "{}", ran.err);
    let lines: Vec<String> =
        ran.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for expected in [
        "memory 0x40000000-0x407fffff (8MiB)",
        "memory 0x70000000-0x700fffff (1MiB, nomap: not mapped by the host)",
        "code of EL2 0x40000000-0x40003fff (16KiB)",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected}: {}", ran.out);
    }
    let ran = run_with("probe --json", &|| Ok(script.open()));
    let text = r#""hyp_text":[{"start":"0x40000000","end":"0x40004000","start_pfn":262144,"end_pfn":262148}]"#;
    assert!(ran.out.contains(text), "{}", ran.out);
}
