// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the running system says of itself, for `probe`. All of it may be missing.

use crate::words;
use std::fs;
use std::io::Read;

pub(crate) use super::ring::DEVICE_PATH;

/// Whether a kernel option is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    /// `=y`.
    Set,
    /// The configuration is there and does not set it.
    NotSet,
    /// There is no configuration to read.
    Unknown,
}

/// The running system.
#[derive(Debug)]
pub(crate) struct System {
    /// The architecture of the machine, which is the one that this program was built for.
    pub(crate) machine: &'static str,
    /// Kernel release.
    pub(crate) kernel: Option<String>,
    /// Name of the host.
    pub(crate) host: Option<String>,
    /// What tells this boot from all others.
    pub(crate) boot_id: Option<String>,
    /// Kernel command line.
    pub(crate) cmdline: Option<String>,
}

/// More than any kernel configuration has. It bounds what is unpacked.
const MAX_CONFIG_BYTES: usize = 4 << 20;

impl System {
    /// Reads it.
    pub(crate) fn read() -> Self {
        let line = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned());
        Self {
            machine: std::env::consts::ARCH,
            kernel: line("/proc/sys/kernel/osrelease"),
            host: line("/proc/sys/kernel/hostname"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            cmdline: line("/proc/cmdline"),
        }
    }

    /// Returns whether `argument` is on the kernel command line.
    pub(crate) fn has_argument(&self, argument: &str) -> Option<bool> {
        Some(self.cmdline.as_ref()?.split_whitespace().any(|word| word == argument))
    }

    /// Reads CONFIG_PKVM_S2DUMP.
    pub(crate) fn read_config(&self) -> Setting {
        read_config(self.kernel.as_deref()).map_or(Setting::Unknown, |text| setting(&text))
    }

    /// Returns whether nothing is missing but the permission at boot, for a kernel with `config`.
    pub(crate) fn is_off(&self, config: Setting) -> bool {
        config == Setting::Set
            && self.has_argument("kvm-arm.mode=protected") == Some(true)
            && self.has_s2dump_argument() == Some(false)
    }

    /// Returns whether the command line lets s2dump be used, by the rule of `s2dump_el1.c`: the last list of words counts,
    /// one of them says on, and all are known.
    pub(crate) fn has_s2dump_argument(&self) -> Option<bool> {
        let arguments = self.cmdline.as_ref()?.split_whitespace();
        let last = arguments.filter_map(|argument| argument.strip_prefix("kvm-arm.s2dump=")).next_back();
        let mut words = last.unwrap_or("off").split(',');
        let is_known = |word: &str| matches!(word, "on" | "1" | "y" | "off" | "0" | "n" | "atomic" | "hyp");
        Some(words.clone().all(is_known) && words.any(|word| matches!(word, "on" | "1" | "y")))
    }
}

/// Returns the name of the process `pid` as one word; whoever runs in it may have chosen any bytes.
pub(crate) fn comm(pid: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    let word = |c: char| if c.is_whitespace() { '?' } else { words::shown(c) };
    let name: String = String::from_utf8_lossy(&name).trim_end_matches('\n').chars().map(word).collect();
    (!name.is_empty()).then_some(name)
}

/// Reads a file of `/proc`, of which whoever runs may have chosen the size: no more is taken. Of a directory, such as `PID/fd`, where
/// its links lead, a line for each.
pub(crate) fn read_proc(name: &str) -> Option<String> {
    const MOST_BYTES: u64 = 16 << 20;
    const MOST_LINKS: usize = 1 << 16;
    let path = format!("/proc/{name}");
    if let Ok(links) = fs::read_dir(&path) {
        let targets = links.take(MOST_LINKS).filter_map(|link| fs::read_link(link.ok()?.path()).ok());
        return Some(targets.map(|target| target.to_string_lossy().into_owned() + "\n").collect());
    }
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads the configuration of the running kernel, from where distributions keep it.
fn read_config(kernel: Option<&str>) -> Option<String> {
    if let Some(text) = fs::read("/proc/config.gz").ok().and_then(|bytes| gunzip(&bytes)) {
        return Some(text);
    }
    fs::read_to_string(format!("/boot/config-{}", kernel?)).ok()
}

fn setting(config: &str) -> Setting {
    if config.lines().any(|line| line == "CONFIG_PKVM_S2DUMP=y") {
        Setting::Set
    } else {
        Setting::NotSet
    }
}

/// Unpacks a gzip file that has no optional header fields, like the kernel's.
fn gunzip(bytes: &[u8]) -> Option<String> {
    let mut header = [0; 10];
    let mut rest = bytes;
    rest.read_exact(&mut header).ok()?;
    // RFC 1952: magic, method deflate, no flags.
    if header[..4] != [0x1f, 0x8b, 8, 0] {
        return None;
    }
    let text = miniz_oxide::inflate::decompress_to_vec_with_limit(rest, MAX_CONFIG_BYTES).ok()?;
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(cmdline: &str) -> System {
        System { machine: "aarch64", kernel: None, host: None, boot_id: None, cmdline: Some(cmdline.into()) }
    }

    #[test]
    fn command_line() {
        let booted = system("console=ttyAMA0 kvm-arm.mode=protected kvm-arm.s2dump=on");
        assert_eq!(booted.has_argument("kvm-arm.mode=protected"), Some(true));
        assert_eq!(booted.has_s2dump_argument(), Some(true));
        for open in ["on,atomic", "on,hyp", "on,atomic,hyp", "hyp,on"] {
            assert_eq!(system(&format!("kvm-arm.s2dump={open}")).has_s2dump_argument(), Some(true), "{open}");
        }
        for closed in ["off,atomic", "on,typo", "one", "On", "on,", "", "atomic", "hyp"] {
            assert_eq!(system(&format!("kvm-arm.s2dump={closed}")).has_s2dump_argument(), Some(false), "{closed}");
        }
        assert_eq!(system("kvm-arm.s2dump kvm-arm.s2dumpX=on").has_s2dump_argument(), Some(false));
        assert_eq!(system("kvm-arm.s2dump=on kvm-arm.s2dump=off").has_s2dump_argument(), Some(false));
        assert_eq!(system("quiet").has_s2dump_argument(), Some(false));
        let off = |cmdline| system(cmdline).is_off(Setting::Set);
        assert!(off("kvm-arm.mode=protected"));
        assert!(!off("kvm-arm.mode=protected kvm-arm.s2dump=on"));
        assert!(!off("quiet"), "without pKVM it is not the gate that is missing");
    }

    #[test]
    fn processes_have_names() {
        let own = comm(std::process::id()).unwrap();
        assert!(!own.is_empty() && !own.contains(['\n', ' ']), "{own:?}");
        assert_eq!(comm(0), None);
    }

    #[test]
    fn configuration() {
        assert_eq!(setting("CONFIG_KVM=y\nCONFIG_PKVM_S2DUMP=y\n"), Setting::Set);
        assert_eq!(setting("# CONFIG_PKVM_S2DUMP is not set\n"), Setting::NotSet);
    }

    #[test]
    fn gzip() {
        let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        bytes.extend(miniz_oxide::deflate::compress_to_vec(b"CONFIG_PKVM_S2DUMP=y\n", 6));
        assert_eq!(gunzip(&bytes).as_deref(), Some("CONFIG_PKVM_S2DUMP=y\n"));
        assert_eq!(gunzip(&bytes[..9]), None);
        assert_eq!(gunzip(b"not gzip at all"), None);
    }
}
