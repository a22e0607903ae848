// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes the binary small enough to be sent to a device, and tells it which commit it is of.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// What a map consists of: so much text that it is kept packed.
const PAGE: [&str; 3] = ["page.html", "page.css", "page.js"];
const PAGE_DIR: &str = "src/format/map";
/// Of `miniz_oxide`: the smallest output, however long it takes.
const SMALLEST: u8 = 10;

/// What the binary consists of, beside other people's crates, from here.
const SOURCES: [&str; 14] = [
    "src",
    "Cargo.toml",
    "build.rs",
    "no-unwind.ld",
    "../abi/src",
    "../abi/Cargo.toml",
    "../hyp/src",
    "../hyp/Cargo.toml",
    "../vmsa/src",
    "../vmsa/Cargo.toml",
    "../Cargo.lock",
    "../Cargo.toml",
    "../rust-toolchain.toml",
    "../.cargo",
];

/// What the standard library calls of the library that unwinds.
const UNWINDER: [&str; 10] = [
    "Backtrace",
    "GetDataRelBase",
    "GetIP",
    "GetIPInfo",
    "GetLanguageSpecificData",
    "GetRegionStart",
    "GetTextRelBase",
    "Resume",
    "SetGR",
    "SetIP",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs"); // and nothing else, unless the following says so
    tell_version();
    pack_page();
    leave_out_what_is_not_used();
}

/// Sets `S2DUMP_VERSION`: the version of the package, and the commit if git knows it.
fn tell_version() {
    let package = env::var("CARGO_PKG_VERSION").expect("cargo tells the version");
    let version = commit().map_or(package.clone(), |commit| format!("{package} ({commit})"));
    println!("cargo::rustc-env=S2DUMP_VERSION={version}");
}

/// Returns the commit, with `-dirty` behind it if [`SOURCES`] differ from it. None without git, and in sources that somebody keeps
/// in a repository of his own.
fn commit() -> Option<String> {
    if git(&["rev-parse", "--show-prefix"])? != "cli/" {
        return None;
    }
    // Only what exists: cargo takes what is missing for changed, always.
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let status = git(&[&["status", "--porcelain", "--"], SOURCES.as_slice()].concat())?;
    Some(if status.is_empty() { commit } else { format!("{commit}-dirty") })
}

/// Returns what git prints, if it succeeds.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("--no-optional-locks").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Writes the parts of the page as DEFLATE streams for `include_bytes!`.
fn pack_page() {
    let out = env::var("OUT_DIR").expect("cargo names a directory");
    for name in PAGE {
        let path = Path::new(PAGE_DIR).join(name);
        println!("cargo::rerun-if-changed={}", path.display());
        let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let packed = miniz_oxide::deflate::compress_to_vec(&text, SMALLEST);
        fs::write(Path::new(&out).join(format!("{name}.deflate")), packed).expect("that directory can be written");
    }
}

/// Tells the linker of the static binaries what they can do without.
///
/// Unwind tables are an eighth of such a binary. A panic aborts it, so only a backtrace would read them, and that has no names in
/// a binary without symbols. `RUST_BACKTRACE=1` then prints the message and its place as always, and no addresses.
fn leave_out_what_is_not_used() {
    let is_static = env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|libc| libc == "musl");
    // Whose profile says that a panic aborts; cargo does not tell that itself.
    let aborts = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    // Other linkers, which a user may name, have other options.
    let is_lld = env::var("RUSTC_LINKER").is_ok_and(|linker| linker.ends_with("rust-lld"));
    if is_static && aborts && is_lld {
        println!("cargo::rerun-if-changed=no-unwind.ld");
        let dir = env::var("CARGO_MANIFEST_DIR").expect("cargo names the directory of the crate");
        println!("cargo::rustc-link-arg-bins=--script={dir}/no-unwind.ld");
        println!("cargo::rustc-link-arg-bins=--no-eh-frame-hdr");
        // What reads those tables: it would find nothing, and whoever calls it aborts anyway.
        for name in UNWINDER {
            println!("cargo::rustc-link-arg-bins=--defsym=_Unwind_{name}=abort");
        }
        // Functions of equal code become one.
        println!("cargo::rustc-link-arg-bins=--icf=all");
    }
}
