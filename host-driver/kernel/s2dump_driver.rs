// SPDX-License-Identifier: GPL-2.0-only
//! `/dev/s2dump`: pages, user memory and locks around the session logic of `s2dump_host_driver`.
//!
//! `s2dump_el1.c` registers the device at `late_initcall`, if protected mode is finalized and the boot gate is open. It
//! is never unregistered. The node is 0600, because devtmpfs makes it so for a device class without a mode of its own.
//!
//! A fault while copying to user space takes `mmap_lock` with the session's mutex held. So the mmap handler, which runs
//! under `mmap_lock`, must not take that mutex. It uses only the pages, which stay the same from open to release. The
//! kernel holds the file during every handler and for every mapping, so release runs alone and last.

mod device;
mod el1;
mod slots;

use kernel::{
    ffi::c_int,
    miscdevice::{MiscDeviceOptions, MiscDeviceRegistration},
    prelude::*,
};
use s2dump_host_driver::error::SessionError;

module! {
    type: Driver,
    name: "s2dump",
    authors: ["The s2dump authors"],
    description: "Stage-2 page tables of pKVM guests, read at EL2",
    license: "GPL v2",
}

/// `module!` needs this type for the log prefix and for the owner of the file operations.
struct Driver;

impl kernel::Module for Driver {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        // It is too early to register: protected mode is finalized after the initcalls of modules. See
        // `s2dump_driver_init`.
        Ok(Self)
    }
}

/// Registers the device. `s2dump_el1.c` calls it once, after protected mode is finalized, if s2dump is on.
#[no_mangle]
pub extern "C" fn s2dump_driver_init() -> c_int {
    match register() {
        Ok(()) => 0,
        Err(error) => {
            pr_warn!("no /dev/s2dump: error {}\n", error.to_errno());
            error.to_errno()
        }
    }
}

fn register() -> Result {
    let el2 = device::hello()?;
    let options = MiscDeviceOptions { name: c"s2dump" };
    let registration = KBox::pin_init(MiscDeviceRegistration::<device::OpenFile>::register(options), GFP_KERNEL)?;
    // The driver is built in, so there is no exit that could unregister it.
    core::mem::forget(registration);
    pr_info!("/dev/s2dump: EL2 speaks {}.{}\n", el2.version.major, el2.version.minor);
    Ok(())
}

fn errno(error: SessionError) -> Error {
    Error::from_errno(-error.to_errno().0)
}
