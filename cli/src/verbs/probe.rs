// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump probe`: what this kernel and CPU support, and the exact next step when something is missing.

use super::{list_vms, read_facts, Context, Stop};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::format::hex::{Hex, SpanJson};
use crate::format::json::FORMAT_VERSION;
use crate::numbers::Size;
use crate::source::device::{say_hello, Device};
use crate::source::system::{self, Setting, System};
use crate::source::SourceError;
use s2dump_abi::ioctl::Hello;
use s2dump_abi::slot::{fact_flags, Fact, FactKind};
use s2dump_abi::version::{features, AbiVersion, ABI_VERSION};
use serde::Serialize;
use std::fmt;
use std::io::{self, Write};

/// What was found, in the order of the checks.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    r#type: &'static str,
    format: &'static str,
    version: &'static str,
    s2dump_abi: String,
    machine: &'static str,
    kernel: Option<String>,
    config_pkvm_s2dump: &'static str,
    cmdline_protected: Option<bool>,
    cmdline_s2dump: Option<bool>,
    device: String,
    driver: Option<Driver>,
    vms: Option<usize>,
    memory: Vec<Region>,
    hyp_text: Vec<Region>,
    ready: bool,
    next_step: Option<String>,
}

#[derive(Debug, Serialize)]
struct Driver {
    driver_abi: String,
    el2_abi: String,
    features: Vec<&'static str>,
    default_budget: u32,
    ring_slots: u32,
    slot_bytes: u32,
}

/// Physical addresses that EL2 knows.
#[derive(Debug, Serialize)]
struct Region {
    #[serde(flatten)]
    span: SpanJson,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    nomap: bool,
}

impl Region {
    /// Returns those of `kind` among `facts`, of pages of `1 << page_shift` bytes.
    fn of(kind: FactKind, facts: &[Fact], page_shift: u32) -> Vec<Self> {
        let region = |fact: &Fact| Self {
            span: SpanJson::new(fact.start, fact.start.saturating_add(fact.size), page_shift),
            nomap: kind == FactKind::MEMORY && fact.flags & fact_flags::NOMAP != 0,
        };
        facts.iter().filter(|fact| fact.kind == kind.0).map(region).collect()
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SpanJson { start: Hex(start), end: Hex(end), .. } = self.span;
        let nomap = if self.nomap { ", nomap: not mapped by the host" } else { "" };
        write!(f, "{start:#x}-{:#x} ({}{nomap})", end.wrapping_sub(1), Size(end - start))
    }
}

/// Looks at everything and prints what it found.
pub(super) fn run(json: bool, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    let system = System::read();
    let (report, code) = examine(&system, context);
    if json {
        serde_json::to_writer(&mut *context.out, &report).map_err(io::Error::from)?;
        writeln!(context.out)?;
    } else {
        write_text(context.out, &report)?;
    }
    Ok(code)
}

fn examine(system: &System, context: &Context<'_>) -> (Report, ExitCode) {
    let config = system.read_config();
    let mut report = Report {
        r#type: "probe",
        format: "s2dump.probe",
        version: FORMAT_VERSION,
        s2dump_abi: version(ABI_VERSION),
        machine: system.machine,
        kernel: system.kernel.clone(),
        config_pkvm_s2dump: match config {
            Setting::Set => "yes",
            Setting::NotSet => "no",
            Setting::Unknown => "unknown",
        },
        cmdline_protected: system.has_argument("kvm-arm.mode=protected"),
        cmdline_s2dump: system.has_s2dump_argument(),
        device: String::new(),
        driver: None,
        vms: None,
        memory: Vec::new(),
        hyp_text: Vec::new(),
        ready: false,
        next_step: None,
    };
    let opened = (context.open_session)();
    let code = match opened {
        Ok(mut session) => {
            report.device = "present".into();
            match say_hello(session.as_mut()) {
                Ok(hello) => {
                    report.driver = Some(Driver::new(&hello));
                    let device = Device::new(session).map_err(|error| error.into_failure("probe"));
                    let found = device.and_then(|mut device| Ok((list_vms(&mut device)?, read_facts(&mut device)?)));
                    match found {
                        Ok((vms, facts)) => {
                            report.vms = Some(vms.len());
                            let page_shift = hello.page_bytes.trailing_zeros();
                            report.memory = Region::of(FactKind::MEMORY, &facts, page_shift);
                            report.hyp_text = Region::of(FactKind::HYP_TEXT, &facts, page_shift);
                            report.ready = true;
                            ExitCode::Ok
                        }
                        Err(failure) => report.fails(failure),
                    }
                }
                Err(error) => report.fails(error.into_failure("probe")),
            }
        }
        Err(error @ SourceError::Open(_)) => {
            let failure = error.into_failure("probe");
            report.device = match failure.code {
                ExitCode::Unsupported => "not there".into(),
                ExitCode::NotPermitted if system.is_off(config) => "off".into(),
                ExitCode::NotPermitted => "not permitted".into(),
                _ => failure.message.clone(),
            };
            let step = if failure.code == ExitCode::Unsupported { missing_step(system, config) } else { failure.hint };
            report.next_step = step;
            failure.code
        }
        Err(error) => report.fails(error.into_failure("probe")),
    };
    (report, code)
}

/// Returns the first thing that is missing when there is no device.
fn missing_step(system: &System, config: Setting) -> Option<String> {
    let step = if system.machine != "aarch64" {
        format!(
            "this is not a pKVM machine ({}): pKVM is arm64 only. Captures can be read here: s2dump dump -i FILE",
            system.machine
        )
    } else if config == Setting::NotSet {
        "build the kernel with CONFIG_PKVM_S2DUMP=y (`cargo xtask linux apply DIR` puts s2dump into a kernel tree)"
            .into()
    } else if system.has_argument("kvm-arm.mode=protected") == Some(false) {
        "boot with kvm-arm.mode=protected kvm-arm.s2dump=on on the kernel command line".into()
    } else if system.has_s2dump_argument() == Some(false) {
        "boot with kvm-arm.s2dump=on on the kernel command line".into()
    } else if config == Setting::Set {
        "the command line asks for it, but pKVM did not start: the kernel must boot at EL2; see the kernel log for `kvm`".into()
    } else {
        "the kernel has no s2dump (CONFIG_PKVM_S2DUMP=y), or did not boot at EL2; the kernel log tells by `kvm` and `s2dump`"
            .into()
    };
    Some(step)
}

impl Report {
    fn fails(&mut self, failure: Failure) -> ExitCode {
        self.device = format!("present, but: {}", failure.message);
        self.next_step = failure.hint;
        failure.code
    }
}

impl Driver {
    fn new(hello: &Hello) -> Self {
        let known = [
            (features::EXACT, "exact"),
            (features::ATOMIC, "atomic"),
            (features::DIGEST, "digest"),
            (features::TABLES, "tables"),
            (features::PACKED, "packed"),
            (features::FRAMES, "frames"),
            (features::FACTS, "facts"),
            (features::EXAMINE, "examine"),
            (features::GUEST_STAGE2, "guest-stage2"),
            (features::HOST_STAGE2, "host-stage2"),
            (features::HYP_STAGE1, "hyp-stage1"),
            (features::MEMORY, "memory"),
        ];
        Self {
            driver_abi: version(AbiVersion::from_bits(hello.version)),
            el2_abi: version(AbiVersion::from_bits(hello.el2_version)),
            features: known.into_iter().filter_map(|(bit, name)| (hello.features & bit != 0).then_some(name)).collect(),
            default_budget: hello.default_budget,
            ring_slots: hello.slots,
            slot_bytes: hello.slot_bytes,
        }
    }
}

/// Returns `version` in digits.
pub(super) fn version(version: AbiVersion) -> String {
    format!("{}.{}", version.major, version.minor)
}

fn write_text(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let yes_no = |known: Option<bool>| match known {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    let mut line = |name: &str, value: &str| writeln!(out, "{name:<24} {value}");
    line("machine", report.machine)?;
    line("kernel", report.kernel.as_deref().unwrap_or("unknown"))?;
    line("CONFIG_PKVM_S2DUMP", report.config_pkvm_s2dump)?;
    line("kvm-arm.mode=protected", yes_no(report.cmdline_protected))?;
    line("kvm-arm.s2dump", yes_no(report.cmdline_s2dump))?;
    line(system::DEVICE_PATH, &report.device)?;
    line("abi of this s2dump", &report.s2dump_abi)?;
    if let Some(driver) = &report.driver {
        line("abi of driver, EL2", &format!("{}, {}", driver.driver_abi, driver.el2_abi))?;
        line("features", &driver.features.join(" "))?;
        line("descriptors per call", &driver.default_budget.to_string())?;
        line("ring", &format!("{} slots of {}", driver.ring_slots, Size(driver.slot_bytes.into())))?;
    }
    if let Some(vms) = report.vms {
        line("VMs", &vms.to_string())?;
    }
    for region in &report.memory {
        line("memory", &region.to_string())?;
    }
    for region in &report.hyp_text {
        line("code of EL2", &region.to_string())?;
    }
    match (&report.next_step, report.ready) {
        (Some(step), _) => writeln!(out, "\nnext: {step}"),
        (None, true) => writeln!(out, "\nready"),
        (None, false) => Ok(()),
    }
}
