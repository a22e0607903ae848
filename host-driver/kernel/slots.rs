// SPDX-License-Identifier: GPL-2.0-only
//! The pages of a ring. They are shared with EL2 from open to release, and mapped read-only into user space.

use crate::el1;
use core::mem::ManuallyDrop;
use kernel::{
    iov::IovIterDest,
    mm::virt::VmaNew,
    page::{Page, PAGE_SIZE},
    prelude::*,
};
use s2dump_abi::slot::SLOT_BYTES;

/// The number of slots in a ring. An `advance` makes at most this many calls.
///
/// In instructions, counted under QEMU: the shortest call takes 4,500 and the ioctl around it 750; to share, map, unmap
/// and unshare a page takes 2,000. With 8 slots the ioctls are 2 % of a long dump. With 16 they would be 1 %, but each
/// short session would spend twice as much on its pages.
pub(crate) const SLOTS: u32 = 8;

static_assert!(PAGE_SIZE == SLOT_BYTES, "s2dump needs 4 KiB pages");

/// A page shared with EL2.
///
/// # Invariants
///
/// The page is shared with EL2 from construction to drop.
struct SharedPage {
    page: ManuallyDrop<Page>,
    pfn: u64,
}

impl SharedPage {
    fn new() -> Result<Self> {
        // It is zeroed, because user space can map it before EL2 fills it.
        let page = Page::alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO)?;
        el1::share(&page)?;
        // INVARIANT: Just shared.
        Ok(Self { pfn: el1::pfn(&page), page: ManuallyDrop::new(page) })
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        if el1::unshare(&self.page).is_err() {
            // A lost page is better than one that nobody can use: see `s2dump_el1_unshare`.
            pr_warn!("page {:#x} stays shared with EL2: leaked\n", self.pfn);
            return;
        }
        // SAFETY:
        // - `page` is not used again: this is drop.
        // - It was not dropped before: nobody else does.
        unsafe { ManuallyDrop::drop(&mut self.page) }
    }
}

/// The slots of one open file.
///
/// EL2 writes their bytes in calls, and the driver does in [`write`](Self::write). Both happen under the mutex of the
/// session. User space may read the bytes at any time through its mapping, and may then see old and new ones mixed.
pub(crate) struct Slots(KVec<SharedPage>);

impl Slots {
    /// Allocates and shares the pages.
    pub(crate) fn new(count: u32) -> Result<Self> {
        let mut pages = KVec::with_capacity(usize::try_from(count)?, GFP_KERNEL)?;
        for _ in 0..count {
            pages.push(SharedPage::new()?, GFP_KERNEL)?;
        }
        Ok(Self(pages))
    }

    /// Returns no slots, for calls that fill none.
    pub(crate) const fn none() -> Self {
        Self(KVec::new())
    }

    fn page(&self, slot: u32) -> Result<&SharedPage> {
        self.0.get(usize::try_from(slot)?).ok_or(EINVAL)
    }

    /// Returns the frame number of a slot, or a number that no page has if there is no such slot.
    pub(crate) fn pfn(&self, slot: u32) -> u64 {
        self.page(slot).map_or(u64::MAX, |page| page.pfn)
    }

    /// Copies bytes out of a slot.
    ///
    /// # Safety
    ///
    /// No call that names the slot and no [`write`](Self::write) to it runs at the same time.
    pub(crate) unsafe fn read(&self, slot: u32, offset: usize, into: &mut [u8]) -> Result {
        // SAFETY:
        // - `into` is valid for writing its length.
        // - The kernel's only writers are EL2 and `write`: the caller keeps both away.
        unsafe { self.page(slot)?.page.read_raw(into.as_mut_ptr(), offset, into.len()) }
    }

    /// Writes bytes of a slot.
    ///
    /// # Safety
    ///
    /// No call that names the slot, and no other access by this driver to it, runs at the same time.
    pub(crate) unsafe fn write(&self, slot: u32, offset: usize, from: &[u8]) -> Result {
        // SAFETY:
        // - `from` is valid for reading its length.
        // - The kernel's only other accesses are EL2's and this driver's: the caller keeps both away. User space has
        //   its own mapping, outside of the kernel's memory model.
        unsafe { self.page(slot)?.page.write_raw(from.as_ptr(), offset, from.len()) }
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
        if first_page != 0 || vma.end() - vma.start() != self.0.len() * PAGE_SIZE {
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
            mixed.vm_insert_page(vma.start() + index * PAGE_SIZE, &slot.page)?;
        }
        Ok(())
    }
}
