// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Links the image with its own script; on a host there is nothing to do.

fn main() {
    println!("cargo:rerun-if-changed=image.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo:rustc-link-arg-bins=--script={}/image.ld", env!("CARGO_MANIFEST_DIR"));
    }
}
