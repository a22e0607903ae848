// SPDX-License-Identifier: GPL-2.0-only
//! The list of VMs. This module adds what EL1 knows to EL2's records, and adds the VMs that EL2 does not know yet.
//!
//! EL2 knows only VMs that ran. The others are listed with [`vm_flags::CREATED`] clear and without registers, and in kernels
//! that give a handle only at the first run, with the handle 0.

use crate::errno::Errno;
use crate::host::{Host, HostVm};
use s2dump_abi::slot::{vm_flags, SlotHeader, VmRecord, SLOT_VMS};
use s2dump_abi::target::{FIRST_HANDLE, HANDLES};
use zerocopy::{FromBytes, IntoBytes};

/// Handles already listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listed([u64; WORDS]);

const WORDS: usize = HANDLES.div_ceil(u64::BITS as u16) as usize;

impl Listed {
    fn position(handle: u16) -> Option<(usize, u64)> {
        let index = handle.checked_sub(FIRST_HANDLE).filter(|index| *index < HANDLES)?;
        Some((usize::from(index / 64), 1 << (index % 64)))
    }

    /// Remembers a handle. Ignores one that is outside pKVM's range.
    pub fn insert(&mut self, handle: u16) {
        if let Some((word, bit)) = Self::position(handle) {
            if let Some(word) = self.0.get_mut(word) {
                *word |= bit;
            }
        }
    }

    /// Returns whether the handle was inserted.
    #[must_use]
    pub fn contains(&self, handle: u16) -> bool {
        Self::position(handle).is_some_and(|(word, bit)| self.0.get(word).is_some_and(|word| word & bit != 0))
    }
}

/// Returns whether the VM never ran. (If the host has it as created or dying, but EL2 does not know it, the VM is gone.)
#[must_use]
pub const fn is_not_run(vm: &HostVm) -> bool {
    vm.flags & (vm_flags::CREATED | vm_flags::DYING) == 0
}

/// Reads the host's handles again, since a VM may have got one while EL2 listed it; fills pid and name into the records that EL2 wrote to `slot`, and adds their handles to `listed`.
///
/// # Errors
///
/// The records are too small, or one does not lie inside the slot.
pub fn fill_in<H: Host>(host: &mut H, slot: u32, header: &SlotHeader, listed: &mut Listed) -> Result<(), Errno> {
    let stride = usize::from(header.record_bytes);
    if stride < size_of::<VmRecord>() {
        return Err(Errno::EINVAL);
    }
    host.look_at_handles();
    let mut offset = usize::from(header.header_bytes);
    for _ in 0..header.record_count {
        let mut bytes = [0; size_of::<VmRecord>()];
        host.read_slot(slot, offset, &mut bytes)?;
        let mut record = VmRecord::read_from_bytes(&bytes).map_err(|_| Errno::EINVAL)?;
        listed.insert(record.handle);
        if let Some(vm) = host.vms().iter().find(|vm| vm.handle == record.handle) {
            record.pid = vm.pid;
            record.name = vm.name;
            host.write_slot(slot, offset, record.as_bytes())?;
        }
        offset = offset.saturating_add(stride);
    }
    Ok(())
}

/// Returns the position, at or after `from`, of the next VM of the last look that never ran and is not listed.
pub fn next_reserved<H: Host>(host: &H, listed: &Listed, from: usize) -> Option<usize> {
    let unlisted = |vm: &HostVm| is_not_run(vm) && !listed.contains(vm.handle);
    host.vms().iter().skip(from).position(unlisted).map(|distance| from + distance)
}

/// Writes records of the VMs that never ran to `slot`, from position `from` on. Returns how many, and where to go on.
///
/// # Errors
///
/// The slot cannot be written.
pub fn append_reserved<H: Host>(
    host: &mut H,
    slot: u32,
    listed: &Listed,
    mut from: usize,
) -> Result<(u32, usize), Errno> {
    let mut count = 0;
    let mut offset = size_of::<SlotHeader>();
    for _ in 0..SLOT_VMS {
        let Some(position) = next_reserved(host, listed, from) else { break };
        let Some(vm) = host.vms().get(position).copied() else { break };
        host.write_slot(slot, offset, record_of(&vm).as_bytes())?;
        offset += size_of::<VmRecord>();
        from = position + 1;
        count += 1;
    }
    Ok((count, from))
}

fn record_of(vm: &HostVm) -> VmRecord {
    VmRecord {
        vtcr: 0,
        root: 0,
        pid: vm.pid,
        vcpus: 0,
        handle: vm.handle,
        flags: vm.flags & vm_flags::PROTECTED,
        ia_bits: 0,
        start_level: 0,
        vmid: 0,
        name: vm.name,
        reserved: [0; 2],
    }
}
