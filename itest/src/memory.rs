// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host memory behind a guest: mapped once, never touched by the VMM's own loads and stores afterwards.
//!
//! A donated page answers a user-space access with SIGSEGV, so everything later goes through `/proc/self/mem` (the
//! kernel's access, which poisons) or `/proc/self/pagemap` (no access at all).

// UNSAFETY: maps memory that is given to KVM.
#![expect(unsafe_code, reason = "mappings for KVM")]

use crate::script::{block_bytes, page_bytes, Backing, MemorySpec};
use anyhow::{ensure, Context as _, Result};
use rustix::mm::{mmap, mmap_anonymous, munmap, MapFlags, ProtFlags};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;

/// `MAP_HUGE_SHIFT`.
const HUGE_SHIFT: u32 = 26;

/// A mapping, unmapped on drop.
#[derive(Debug)]
pub struct HostMemory {
    /// What it was made from.
    pub spec: MemorySpec,
    host: *mut core::ffi::c_void,
}

impl HostMemory {
    /// Maps what `spec` asks for, aligned as its pages are.
    ///
    /// # Errors
    ///
    /// Names the memory the kernel refused.
    pub fn map(spec: &MemorySpec) -> Result<Self> {
        let length = usize::try_from(spec.size_bytes)?;
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        let private = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: no address is asked for, so no existing mapping is replaced.
        let host = unsafe {
            match &spec.backing {
                Backing::Anonymous => mmap_anonymous(core::ptr::null_mut(), length, rights, private),
                Backing::Huge => {
                    // The logarithm of the size goes above the flags.
                    let huge = MapFlags::HUGETLB | MapFlags::from_bits_retain(block_bytes().ilog2() << HUGE_SHIFT);
                    mmap_anonymous(core::ptr::null_mut(), length, rights, private | huge)
                }
                Backing::Device(address) => {
                    let memory = OpenOptions::new().read(true).write(true).open("/dev/mem").context("/dev/mem")?;
                    mmap(core::ptr::null_mut(), length, rights, MapFlags::SHARED, &memory, *address)
                }
                Backing::File(path) | Backing::HugeFile(path) => {
                    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
                    file.set_len(spec.size_bytes)?;
                    mmap(core::ptr::null_mut(), length, rights, MapFlags::SHARED, &file, 0)
                }
            }
        };
        let host = host.with_context(|| format!("mapping {} KiB for {:#x}", spec.size_bytes >> 10, spec.ipa))?;
        Ok(Self { spec: spec.clone(), host })
    }

    /// Returns the host address of the first byte.
    #[must_use]
    pub fn host_address(&self) -> u64 {
        self.host.addr() as u64
    }

    /// Returns the host address of `ipa`, if it is in here.
    #[must_use]
    pub fn host_address_of(&self, ipa: u64) -> Option<u64> {
        let offset = ipa.checked_sub(self.spec.ipa)?;
        (offset < self.spec.size_bytes).then_some(self.host_address() + offset)
    }

    /// Copies `bytes` to the start. Only before a guest ran.
    ///
    /// # Panics
    ///
    /// If `bytes` does not fit.
    pub fn write_at_start(&mut self, bytes: &[u8]) {
        assert!(bytes.len() as u64 <= self.spec.size_bytes);
        // SAFETY:
        // - `host` is the start of a live, writable mapping of at least `bytes.len()` bytes (asserted above).
        // - Nothing else refers to the mapping, so the ranges do not overlap.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.host.cast::<u8>(), bytes.len()) }
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `map`, to which no reference exists.
        let _ = unsafe { munmap(self.host, self.spec.size_bytes as usize) };
    }
}

/// Has the host kernel read one byte at `host_address` through its own mapping.
///
/// # Errors
///
/// If the kernel could not read it.
pub fn kernel_read(host_address: u64) -> Result<u8> {
    let mut byte = [0];
    let memory = File::open("/proc/self/mem")?;
    memory.read_exact_at(&mut byte, host_address).with_context(|| format!("/proc/self/mem at {host_address:#x}"))?;
    Ok(byte[0])
}

/// Tells where host pages are in physical memory. Needs CAP_SYS_ADMIN.
#[derive(Debug)]
pub struct PageMap(File);

impl PageMap {
    /// Opens this process's page map.
    ///
    /// # Errors
    ///
    /// If the kernel has none.
    pub fn open() -> Result<Self> {
        Ok(Self(File::open("/proc/self/pagemap").context("/proc/self/pagemap")?))
    }

    /// Returns the physical address of the page at `host_address`.
    ///
    /// # Errors
    ///
    /// If the page is not present.
    pub fn physical_address(&self, host_address: u64) -> Result<u64> {
        const PRESENT: u64 = 1 << 63;
        const FRAME_MASK: u64 = (1 << 55) - 1;
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, host_address / page_bytes() * 8)?;
        let entry = u64::from_le_bytes(bytes);
        ensure!(entry & PRESENT != 0, "the host page at {host_address:#x} is not present");
        Ok((entry & FRAME_MASK) * page_bytes())
    }
}
