// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host memory behind a guest: mapped once, never touched by the VMM's own loads and stores afterwards.
//!
//! A donated page answers a user-space access with SIGSEGV, so everything later goes through `/proc/self/mem` (the
//! kernel's access, which poisons) or `/proc/self/pagemap` (no access at all).

// UNSAFETY: maps memory that is given to KVM.
#![expect(unsafe_code, reason = "mappings for KVM")]

use crate::script::{block_bytes, page_bytes, Backing, MemorySpec};
use anyhow::{ensure, Context as _, Result};
use rustix::fs::{memfd_create, MemfdFlags};
use rustix::mm::{madvise, mmap, mmap_anonymous, munmap, Advice, MapFlags, ProtFlags};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;

/// `MAP_HUGE_SHIFT`.
const HUGE_SHIFT: u32 = 26;

/// Returns whether the kernel gives a program addresses of more than 48 bits, when it asks for one.
///
/// # Errors
///
/// If it gives none at all.
pub fn gives_52_bit_addresses() -> Result<bool> {
    let (wanted, length) = (core::ptr::without_provenance_mut(1 << 51), 4096);
    // SAFETY: the address is a hint, so no existing mapping is replaced; nobody uses the mapping.
    let start = unsafe { mmap_anonymous(wanted, length, ProtFlags::READ, MapFlags::PRIVATE) }?;
    // SAFETY: as above.
    unsafe { munmap(start, length) }?;
    Ok(start.addr() >> 48 != 0)
}

/// A mapping, unmapped on drop.
#[derive(Debug)]
pub struct HostMemory {
    /// What it was made from.
    pub spec: MemorySpec,
    /// What the guest gets.
    host: *mut core::ffi::c_void,
    /// What is mapped: all of the above, and what it took to align it.
    mapped: (*mut core::ffi::c_void, usize),
}

impl HostMemory {
    /// Maps what `spec` asks for, aligned as its pages are.
    ///
    /// # Errors
    ///
    /// Names the memory the kernel refused.
    pub fn map(spec: &MemorySpec) -> Result<Self> {
        let alignment = if spec.backing == Backing::Transparent { usize::try_from(block_bytes())? } else { 1 };
        // Room to move to the next multiple of the alignment.
        let length = usize::try_from(spec.size_bytes)? + alignment - 1;
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        let private = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: no address is asked for, so no existing mapping is replaced.
        let host = unsafe {
            match &spec.backing {
                Backing::Anonymous | Backing::Transparent => {
                    mmap_anonymous(core::ptr::null_mut(), length, rights, private)
                }
                Backing::Huge => {
                    // The logarithm of the size goes above the flags.
                    let huge = MapFlags::HUGETLB | MapFlags::from_bits_retain(block_bytes().ilog2() << HUGE_SHIFT);
                    mmap_anonymous(core::ptr::null_mut(), length, rights, private | huge)
                }
                Backing::Device(address) => {
                    let memory = OpenOptions::new().read(true).write(true).open("/dev/mem").context("/dev/mem")?;
                    mmap(core::ptr::null_mut(), length, rights, MapFlags::SHARED, &memory, *address)
                }
                Backing::Memfd(name) => {
                    let file = File::from(memfd_create(name.as_str(), MemfdFlags::CLOEXEC).context("memfd_create")?);
                    file.set_len(spec.size_bytes)?;
                    mmap(core::ptr::null_mut(), length, rights, MapFlags::SHARED, &file, 0)
                }
                Backing::File(path) | Backing::HugeFile(path) => {
                    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
                    file.set_len(spec.size_bytes)?;
                    mmap(core::ptr::null_mut(), length, rights, MapFlags::SHARED, &file, 0)
                }
            }
        };
        let start = host.with_context(|| format!("mapping {} KiB for {:#x}", spec.size_bytes >> 10, spec.ipa))?;
        let host = start.map_addr(|address| address.next_multiple_of(alignment));
        let memory = Self { spec: spec.clone(), host, mapped: (start, length) };
        if spec.backing == Backing::Transparent {
            memory.advise(spec.ipa, spec.size_bytes, Advice::LinuxNoHugepage)?;
        }
        Ok(memory)
    }

    /// Gives the host's kernel advice about the pages of `length_bytes` at `ipa`. [`Advice::LinuxDontNeed`] takes them
    /// from the guest, who may be running.
    ///
    /// # Errors
    ///
    /// If they are not all in here, or the kernel does not take the advice.
    pub fn advise(&self, ipa: u64, length_bytes: u64, advice: Advice) -> Result<()> {
        let last = length_bytes.checked_sub(1).and_then(|length| ipa.checked_add(length)).context("no bytes")?;
        let host = self.host_address_of(ipa).filter(|_| self.host_address_of(last).is_some());
        let offset =
            host.with_context(|| format!("{ipa:#x}+{length_bytes:#x} is not in one --mem"))? - self.host_address();
        let start = self.host.cast::<u8>().wrapping_add(usize::try_from(offset)?).cast();
        // SAFETY:
        // - The range is inside the live mapping (checked above), to whose bytes no reference exists.
        // - No advice used here unmaps it: at worst its bytes become zero.
        unsafe { madvise(start, usize::try_from(length_bytes)?, advice) }
            .with_context(|| format!("madvise {advice:?} at {ipa:#x}"))
    }

    /// Returns what the host calls it, where it lists the mappings of a process.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.spec.backing {
            Backing::Anonymous | Backing::Transparent => "[anon]".into(),
            Backing::Huge => "/anon_hugepage".into(),
            Backing::Device(_) => "/dev/mem".into(),
            Backing::Memfd(name) => format!("memfd:{name}"),
            Backing::File(path) | Backing::HugeFile(path) => path.display().to_string(),
        }
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

    /// Loads the byte at `ipa`. If a protected guest owns its page, the process gets a SIGSEGV.
    ///
    /// # Errors
    ///
    /// If it is not in here.
    pub fn load(&self, ipa: u64) -> Result<u8> {
        let host = self.host_address_of(ipa).with_context(|| format!("{ipa:#x} is not in this --mem"))?;
        let address = self.host.cast::<u8>().wrapping_add(usize::try_from(host - self.host_address())?);
        // SAFETY: inside the live mapping (checked above), and any byte is a `u8`. A guest may write it meanwhile: volatile.
        Ok(unsafe { address.read_volatile() })
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
        let (start, length) = self.mapped;
        // SAFETY: exactly the mapping made in `map`, to which no reference exists.
        let _ = unsafe { munmap(start, length) };
    }
}

// SAFETY:
// - The pointers are addresses of a mapping that lives as long as the value, wherever that is moved or lent to.
// - Through a shared reference only `advise` uses them, which any thread may call at any time.
unsafe impl Sync for HostMemory {}

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
