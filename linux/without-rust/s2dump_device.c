// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/s2dump in a kernel without Rust: pages, user memory and locks around the
 * logic of a session, which is Rust (s2dump_session.h). In a kernel with Rust
 * driver/ does the same.
 *
 * A fault while copying to user space takes mmap_lock with the lock of the file
 * held. So mmap, which runs under mmap_lock, must not take that lock. It uses
 * only the pages, which stay the same from open to release.
 */
#include <linux/cleanup.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/uio.h>

#include "s2dump_abi.h"
#include "s2dump_el1.h"
#include "s2dump_session.h"

#define S2DUMP_SLOT_ORDER	ilog2(S2DUMP_SLOT_PAGES)

/* As the objects, whose compiler knows no configuration, have it. */
static_assert(PAGE_SIZE == 4096);

/* The first page is shared with EL2 from open to release, the others once needed. */
struct s2dump_slot {
	struct page	*pages;
	u32		shared;
};

/* One open file is one session. */
struct s2dump_file {
	struct mutex		lock;
	u32			slots;
	struct s2dump_slot	slot[S2DUMP_SLOTS];
	struct s2dump_el1_vm	*vms;	/* each with a reference */
	u32			nr_vms;
	u64			session[S2DUMP_SESSION_BYTES / sizeof(u64)];
};

static int s2dump_share(struct s2dump_slot *slot, u32 count)
{
	int ret;

	for (; slot->shared < count; slot->shared++) {
		ret = s2dump_el1_share(slot->pages + slot->shared);
		if (ret)
			return ret;
	}

	return 0;
}

/* A lost page is better than one that nobody can use: see s2dump_el1_unshare(). */
static void s2dump_free_slot(struct s2dump_slot *slot)
{
	bool lost = false;
	u32 i;

	for (i = 0; i < slot->shared; i++)
		lost |= s2dump_el1_unshare(slot->pages + i) != 0;

	if (lost)
		pr_warn("s2dump: page %#llx stays shared with EL2: leaked\n",
			s2dump_el1_pfn(slot->pages));
	else if (slot->pages)
		s2dump_el1_free_pages(slot->pages, S2DUMP_SLOT_ORDER);
}

static int s2dump_alloc_slot(struct s2dump_slot *slot)
{
	int ret;

	slot->pages = s2dump_el1_alloc_pages(S2DUMP_SLOT_ORDER);
	if (!slot->pages)
		return -ENOMEM;

	ret = s2dump_share(slot, 1);
	if (ret) {
		s2dump_free_slot(slot);
		slot->pages = NULL;
	}

	return ret;
}

static struct s2dump_slot *s2dump_slot(struct s2dump_file *file, u32 slot)
{
	return slot < file->slots ? &file->slot[slot] : NULL;
}

/* A number that no page has if there is no such slot: EL2 refuses it. */
u64 s2dump_device_slot_pfn(struct s2dump_file *file, u32 number)
{
	struct s2dump_slot *slot = s2dump_slot(file, number);

	return slot ? s2dump_el1_pfn(slot->pages) : U64_MAX >> 8;
}

/* Returns the S2DUMP_SLOT_BYTES bytes of a slot, or NULL if there is no such slot. */
u8 *s2dump_device_slot(struct s2dump_file *file, u32 number)
{
	struct s2dump_slot *slot = s2dump_slot(file, number);

	return slot ? page_address(slot->pages) : NULL;
}

int s2dump_device_share_all(struct s2dump_file *file, u32 number)
{
	struct s2dump_slot *slot = s2dump_slot(file, number);

	return slot ? s2dump_share(slot, S2DUMP_SLOT_PAGES) : -EINVAL;
}

/* Puts the references to all but the first @count VMs. */
static void s2dump_keep_vms(struct s2dump_file *file, u32 count)
{
	while (file->nr_vms > count)
		s2dump_el1_let_vm_go(file->vms[--file->nr_vms].held);

	if (!file->nr_vms) {
		kvfree(file->vms);
		file->vms = NULL;
	}
}

void s2dump_device_let_vms_go(struct s2dump_file *file)
{
	s2dump_keep_vms(file, 0);
}

int s2dump_device_look_at_vms(struct s2dump_file *file)
{
	unsigned int count = s2dump_el1_count_vms();

	s2dump_keep_vms(file, 0);
	file->vms = kvcalloc(count, sizeof(*file->vms), GFP_KERNEL_ACCOUNT);
	if (!file->vms)
		return -ENOMEM;

	file->nr_vms = s2dump_el1_hold_vms(file->vms, count);

	return 0;
}

void s2dump_device_look_at_handles(struct s2dump_file *file)
{
	s2dump_el1_read_handles(file->vms, file->nr_vms);
}

/*
 * Of the VMs that are held, keeps the one with @handle; else takes the one that
 * has it now, if any.
 */
int s2dump_device_hold_vm(struct s2dump_file *file, u16 handle)
{
	u32 i;

	for (i = 0; i < file->nr_vms; i++) {
		if (file->vms[i].handle == handle) {
			swap(file->vms[0], file->vms[i]);
			s2dump_keep_vms(file, 1);
			return 0;
		}
	}

	s2dump_keep_vms(file, 0);
	file->vms = kvcalloc(1, sizeof(*file->vms), GFP_KERNEL_ACCOUNT);
	if (!file->vms)
		return -ENOMEM;

	file->nr_vms = s2dump_el1_hold_vm(handle, file->vms);

	return 0;
}

const struct s2dump_el1_vm *s2dump_device_vms(struct s2dump_file *file, u32 *count)
{
	*count = file->nr_vms;

	return file->vms;
}

/* Returns how many memory slots of the only VM it wrote behind @offset, where Rust has room for @max. */
int s2dump_device_memory_slots(struct s2dump_file *file, u32 number, u32 offset, u64 from, u32 max)
{
	struct s2dump_slot *slot = s2dump_slot(file, number);

	if (!slot || file->nr_vms != 1)
		return -EINVAL;

	return s2dump_el1_memory_slots(file->vms[0].held, from, slot->pages, offset, max);
}

bool s2dump_device_is_interrupted(void)
{
	return signal_pending(current);
}

int s2dump_device_from_user(void *to, u64 from, size_t len)
{
	return copy_from_user(to, u64_to_user_ptr(from), len) ? -EFAULT : 0;
}

int s2dump_device_to_user(u64 to, const void *from, size_t len)
{
	return copy_to_user(u64_to_user_ptr(to), from, len) ? -EFAULT : 0;
}

size_t s2dump_device_room(const struct iov_iter *to)
{
	return iov_iter_count(to);
}

size_t s2dump_device_put(struct iov_iter *to, const void *from, size_t len)
{
	return copy_to_iter(from, len, to);
}

static void s2dump_free_file(struct s2dump_file *file)
{
	u32 i;

	s2dump_device_let_vms_go(file);
	for (i = 0; i < file->slots; i++)
		s2dump_free_slot(&file->slot[i]);
	mutex_destroy(&file->lock);
	kfree(file);
}

static int s2dump_open(struct inode *inode, struct file *filp)
{
	struct s2dump_file *file;
	int ret;

	ret = s2dump_el1_open_allowed();
	if (ret)
		return ret;

	file = kzalloc(sizeof(*file), GFP_KERNEL_ACCOUNT);
	if (!file)
		return -ENOMEM;
	mutex_init(&file->lock);

	for (; file->slots < S2DUMP_SLOTS; file->slots++) {
		ret = s2dump_alloc_slot(&file->slot[file->slots]);
		if (ret)
			break;
	}
	/* Fewer slots will do if memory is short. */
	if (ret && (ret != -ENOMEM || !file->slots)) {
		s2dump_free_file(file);
		return ret;
	}

	s2dump_session_init(file->session, file->slots);
	filp->private_data = file;

	return 0;
}

static int s2dump_release(struct inode *inode, struct file *filp)
{
	s2dump_free_file(filp->private_data);

	return 0;
}

static long s2dump_ioctl(struct file *filp, unsigned int command, unsigned long argument)
{
	struct s2dump_file *file = filp->private_data;

	guard(mutex)(&file->lock);

	return s2dump_session_ioctl(file->session, file, command, argument);
}

static ssize_t s2dump_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct s2dump_file *file = iocb->ki_filp->private_data;

	guard(mutex)(&file->lock);

	return s2dump_session_read(file->session, file, to);
}

/*
 * VM_DONTCOPY keeps the slots out of children and VM_DONTDUMP out of core dumps;
 * with VM_IO user space cannot undo that.
 */
static int s2dump_mmap(struct file *filp, struct vm_area_struct *vma)
{
	struct s2dump_file *file = filp->private_data;
	unsigned long address = vma->vm_start;
	u32 slot, page;
	int ret;

	if (vma->vm_flags & (VM_WRITE | VM_EXEC))
		return -EPERM;
	if (vma->vm_pgoff || vma->vm_end - vma->vm_start != file->slots * S2DUMP_SLOT_BYTES)
		return -EINVAL;

	vm_flags_mod(vma, VM_IO | VM_DONTEXPAND | VM_DONTCOPY | VM_DONTDUMP | VM_MIXEDMAP,
		     VM_MAYWRITE | VM_MAYEXEC);
	for (slot = 0; slot < file->slots; slot++) {
		for (page = 0; page < S2DUMP_SLOT_PAGES; page++, address += PAGE_SIZE) {
			ret = vm_insert_page(vma, address, file->slot[slot].pages + page);
			if (ret)
				return ret;
		}
	}

	return 0;
}

static const struct file_operations s2dump_fops = {
	.owner		= THIS_MODULE,
	.open		= s2dump_open,
	.release	= s2dump_release,
	.unlocked_ioctl	= s2dump_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.read_iter	= s2dump_read_iter,
	.mmap		= s2dump_mmap,
};

static struct miscdevice s2dump_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "s2dump",
	.fops	= &s2dump_fops,
	.mode	= 0600,
};

/* Called once, after protected mode is finalized, if s2dump is on. */
int s2dump_driver_init(void)
{
	u32 version = 0;
	int ret;

	ret = s2dump_session_hello(&version);
	if (!ret)
		ret = misc_register(&s2dump_misc);
	if (ret)
		pr_warn("s2dump: no /dev/s2dump: error %d\n", ret);
	else
		pr_info("s2dump: /dev/s2dump: EL2 speaks %u.%u\n", version >> 16, version & 0xffff);

	return ret;
}
