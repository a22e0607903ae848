// SPDX-License-Identifier: GPL-2.0-only
//! The pages of a ring. They are shared with EL2 until release, and mapped read-only into user space.

use crate::el1::{self, HeldVms, Pages};
use core::sync::atomic::{AtomicU32, Ordering};
use kernel::{iov::IovIterDest, mm::virt::VmaNew, page::{Page, PAGE_SIZE}, prelude::*};
use s2dump_abi::slot::{slot_pages_of, SLOT_BYTES};

/// The pages of a slot.
const SLOT_PAGES: usize = slot_pages_of(PAGE_SIZE);

static_assert!(SLOT_PAGES.is_power_of_two());
static_assert!(SLOT_PAGES * PAGE_SIZE >= SLOT_BYTES);

/// The pages of a slot. The first is shared with EL2 from construction to drop, the others from the first call that uses
/// them.
///
/// # Invariants
///
/// The first `shared` pages are shared with EL2, or one of them is being shared.
struct Slot {
    pages: Pages,
    pfn: u64,
    shared: AtomicU32,
}

impl Slot {
    fn new() -> Result<Self> {
        let pages = Pages::new(SLOT_PAGES.ilog2())?;
        let pfn = el1::pfn(&*pages.get(0)?);
        let slot = Self { pages, pfn, shared: AtomicU32::new(0) };
        slot.share(1)?;
        Ok(slot)
    }

    /// Shares the first `count` pages.
    ///
    /// Runs under the mutex of the session, or in the open: nobody else shares pages of this slot.
    fn share(&self, count: u32) -> Result {
        for index in self.shared.load(Ordering::Relaxed)..count {
            el1::share(&*self.pages.get(usize::try_from(index)?)?)?;
            // INVARIANT: Just shared.
            self.shared.store(index + 1, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        for index in 0..*self.shared.get_mut() as usize {
            let unshared = self.pages.get(index).and_then(|page| el1::unshare(&*page));
            if unshared.is_err() {
                // A lost page is better than one that nobody can use: see `s2dump_el1_unshare`.
                pr_warn!("page {:#x} stays shared with EL2: leaked\n", self.pfn + index as u64);
                self.pages.lose();
            }
        }
    }
}

/// The slots of one open file.
///
/// EL2 writes their bytes in calls, and the driver does in [`write`](Self::write). Both happen under the mutex of the
/// session. User space may read the bytes at any time through its mapping, and may then see old and new ones mixed.
pub(crate) struct Slots(KVec<Slot>);

impl Slots {
    /// Allocates `count` slots, or fewer if memory is short: at least one.
    pub(crate) fn new(count: u32) -> Result<Self> {
        let mut slots = KVec::with_capacity(usize::try_from(count)?, GFP_KERNEL)?;
        for _ in 0..count {
            match Slot::new() {
                Ok(slot) => slots.push(slot, GFP_KERNEL)?,
                Err(error) if error == ENOMEM && !slots.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Self(slots))
    }

    /// Returns how many there are.
    pub(crate) fn len(&self) -> u32 {
        self.0.len() as u32 // No more than `new` was asked for.
    }

    fn slot(&self, slot: u32) -> Result<&Slot> {
        self.0.get(usize::try_from(slot)?).ok_or(EINVAL)
    }

    /// Returns the frame number of the first page of a slot, or a number that no page has if there is no such slot.
    pub(crate) fn pfn(&self, slot: u32) -> u64 {
        self.slot(slot).map_or(u64::MAX >> 8, |slot| slot.pfn)
    }

    /// Shares all pages of a slot with EL2. Only under the mutex of the session.
    pub(crate) fn share_all(&self, slot: u32) -> Result {
        self.slot(slot)?.share(SLOT_PAGES as u32)
    }

    /// Calls `each` with the page, the offset in it, and the range of the `len` bytes from `offset` on, for each page that
    /// has some of them.
    fn for_each_page(
        &self,
        slot: u32,
        offset: usize,
        len: usize,
        mut each: impl FnMut(&Page, usize, core::ops::Range<usize>) -> Result,
    ) -> Result {
        let slot = self.slot(slot)?;
        let mut done = 0;
        while done < len {
            let at = offset.checked_add(done).ok_or(EINVAL)?;
            let part = usize::min(len - done, PAGE_SIZE - at % PAGE_SIZE);
            each(&*slot.pages.get(at / PAGE_SIZE)?, at % PAGE_SIZE, done..done + part)?;
            done += part;
        }
        Ok(())
    }

    /// Copies bytes out of a slot.
    ///
    /// # Safety
    ///
    /// No call that names the slot and no [`write`](Self::write) to it runs at the same time.
    pub(crate) unsafe fn read(&self, slot: u32, offset: usize, into: &mut [u8]) -> Result {
        self.for_each_page(slot, offset, into.len(), |page, at, part| {
            let into = into.get_mut(part).ok_or(EINVAL)?;
            // SAFETY:
            // - `into` is valid for writing its length.
            // - The kernel's only writers are EL2 and `write`: the caller keeps both away.
            unsafe { page.read_raw(into.as_mut_ptr(), at, into.len()) }
        })
    }

    /// Writes bytes of a slot.
    ///
    /// # Safety
    ///
    /// No call that names the slot, and no other access by this driver to it, runs at the same time.
    pub(crate) unsafe fn write(&self, slot: u32, offset: usize, from: &[u8]) -> Result {
        self.for_each_page(slot, offset, from.len(), |page, at, part| {
            let from = from.get(part).ok_or(EINVAL)?;
            // SAFETY:
            // - `from` is valid for reading its length.
            // - The kernel's only other accesses are EL2's and this driver's: the caller keeps both away. User space has
            //   its own mapping, outside of the kernel's memory model.
            unsafe { page.write_raw(from.as_ptr(), at, from.len()) }
        })
    }

    /// Writes memory slots of the only one of `vms`, up to `most` of those at input addresses from `from` on, to a slot, from
    /// `offset` on. Returns how many.
    ///
    /// # Safety
    ///
    /// As for [`write`](Self::write).
    pub(crate) unsafe fn write_memory_slots(
        &self,
        slot: u32,
        offset: usize,
        vms: &HeldVms,
        from: u64,
        most: usize,
    ) -> Result<usize> {
        let page = self.slot(slot)?.pages.get(0)?;
        // SAFETY: As the caller promises.
        unsafe { vms.put_memory_slots(from, &*page, offset, most) }
    }

    /// Copies `len` bytes of a slot, from `offset` on, to a reader. Returns how many it copied.
    ///
    /// # Safety
    ///
    /// As for [`read`](Self::read).
    pub(crate) unsafe fn copy_to(
        &self,
        slot: u32,
        offset: usize,
        len: usize,
        iov: &mut IovIterDest<'_>,
    ) -> Result<usize> {
        let mut copied = 0;
        let mut chunk = [0; 512];
        while copied < len {
            let part = chunk.len().min(len - copied);
            let Some(part) = chunk.get_mut(..part) else { break };
            // SAFETY: As the caller promises.
            unsafe { self.read(slot, offset + copied, part)? };
            let done = iov.copy_to_iter(part);
            copied += done;
            if done < part.len() {
                break;
            }
        }
        Ok(copied)
    }

    /// Maps all slots into a new mapping, for reading only.
    ///
    /// `VM_DONTCOPY` keeps them out of children and `VM_DONTDUMP` out of core dumps; with `VM_IO` user space cannot
    /// undo that. User space can still take references to the pages (vmsplice) that outlive the session. The pages are
    /// ordinary pages of the host by then, no longer shared with EL2, and are freed with the last reference.
    pub(crate) fn map(&self, vma: &VmaNew) -> Result {
        if vma.writable() || vma.executable() {
            return Err(EPERM);
        }
        // SAFETY: The vma is being set up, so nobody changes it; `VmaNew` proves that it is valid.
        let first_page = unsafe { (*vma.as_ptr()).vm_pgoff };
        if first_page != 0 || vma.end() - vma.start() != self.0.len() * SLOT_PAGES * PAGE_SIZE {
            return Err(EINVAL);
        }
        vma.try_clear_maywrite()?;
        vma.try_clear_mayexec()?;
        vma.set_io();
        vma.set_dontexpand();
        vma.set_dontcopy();
        vma.set_dontdump();
        let mixed = vma.set_mixedmap();
        for (index, slot) in self.0.iter().enumerate() {
            let start = vma.start() + index * SLOT_PAGES * PAGE_SIZE;
            for page in 0..slot.pages.len() {
                mixed.vm_insert_page(start + page * PAGE_SIZE, &*slot.pages.get(page)?)?;
            }
        }
        Ok(())
    }
}
