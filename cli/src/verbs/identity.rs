// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the table in a capture is the one that the list in it names. A handle alone does not say: EL2 gives it to
//! another VM once its VM is gone.

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::model::TableFacts;
use s2dump_abi::slot::{vm_flags, VmRecord};

/// Refuses `table` if `vms`, the lists read so far, name another root for its handle.
///
/// # Errors
///
/// `Partial`: the VM that was listed was gone when its table was to be read, so the table is a stranger's.
pub(super) fn check_listed(table: &TableFacts, vms: &[VmRecord]) -> Result<(), Failure> {
    let handle = table.target.guest_handle();
    // Captures may stand one behind the other in a file: the last list is the one of this table. A VM that never ran has
    // no root yet, and may have run since.
    let listed = vms.iter().rev().find(|vm| Some(vm.handle) == handle && vm.flags & vm_flags::CREATED != 0);
    match listed {
        Some(vm) if vm.root != table.root => {
            let failure = Failure::new(
                ExitCode::Partial,
                format_args!(
                    "{}: the VM went away while it was captured: the list names root {:#x}, the table that follows has root \
                     {:#x}, so it is another VM's",
                    table.name(),
                    vm.root,
                    table.root
                ),
            );
            Err(failure.hint("capture again"))
        }
        _ => Ok(()),
    }
}
