// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! The image that compares walker and decoder with the MMU. `cargo xtask testbed` builds and starts it.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod image;

/// Says how the image is started: on a host there is no EL2.
#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("s2dump-testbed is an image for QEMU: cargo xtask testbed builds and starts it");
    std::process::exit(2);
}
