// SPDX-License-Identifier: GPL-2.0-only
/*
 * The stage-2 files of a VM's debugfs directory, which are right under pKVM
 * too.
 *
 * ptdump.c reads kvm->arch.mmu.pgt, which under pKVM is no page table but the
 * host's book-keeping of mappings. This file asks EL2 for the table, and prints
 * it with the same note_page() and the same columns.
 *
 * An open file holds the VM, so that no other VM gets its handle. EL2 holds
 * nothing between two calls, so the file shows each chunk as it was when it was
 * read.
 */
#include <linux/debugfs.h>
#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>

#include <asm/kvm_mmu.h>
#include <asm/kvm_pgtable.h>
#include <asm/ptdump.h>
#include <asm/stage2_pgtable.h>

#include "s2dump_abi.h"
#include "s2dump_el1.h"
#include "s2dump_pkvm.h"

#define S2DUMP_LEVELS	(KVM_PGTABLE_LAST_LEVEL + 1)

struct s2dump_tables {
	struct kvm		*kvm;
	struct page		*slot;
	u64			end;
	struct ptdump_pg_state	parser;
	struct addr_marker	marker[2];
	struct ptdump_pg_level	level[S2DUMP_LEVELS];
};

/* The columns of ptdump.c, which are the same for all VMs. */
static const struct ptdump_prot_bits *s2dump_bits;
static unsigned int s2dump_nr_bits;

static int s2dump_start_level(struct kvm *kvm)
{
	return S2DUMP_LEVELS - kvm_stage2_levels(&kvm->arch.mmu);
}

static void s2dump_init_parser(struct s2dump_tables *st, struct seq_file *m)
{
	u64 mask = 0;
	int i;

	for (i = 0; i < s2dump_nr_bits; i++)
		mask |= s2dump_bits[i].mask;

	for (i = 0; i < S2DUMP_LEVELS; i++) {
		st->level[i] = (struct ptdump_pg_level) {
			.bits	= s2dump_bits,
			.num	= s2dump_nr_bits,
			.mask	= mask,
		};
		snprintf(st->level[i].name, sizeof(st->level[i].name), "%d", i);
	}

	st->marker[0] = (struct addr_marker) { .name = "Guest IPA" };
	st->marker[1] = (struct addr_marker) { .start_address = ULONG_MAX };

	st->end = BIT(kvm_phys_shift(&st->kvm->arch.mmu));
	st->parser = (struct ptdump_pg_state) {
		.marker		= st->marker,
		.level		= -1,
		.pg_level	= st->level,
		.seq		= m,
	};
}

/*
 * What EL2 left in an invalid entry (who owns the page, say) shares its bits
 * with the rights of a valid one, so only leaves show any. A table that is
 * wrong has no columns at all: -EIO.
 *
 * The first entry may begin before @cursor, if a table became a block or a hole
 * between two calls. The addresses before @cursor are noted already.
 */
static int s2dump_note_records(struct s2dump_tables *st, u64 cursor, unsigned int count)
{
	const struct s2dump_record *record = page_address(st->slot) + S2DUMP_HEADER_BYTES;

	for (; count; count--, record++) {
		u64 val = record->kind == S2DUMP_RECORD_LEAF ? record->descriptor : 0;

		if (record->kind > S2DUMP_RECORD_LEAF ||
		    record->level < 0 || record->level >= S2DUMP_LEVELS)
			return -EIO;

		note_page(&st->parser.ptdump, max(record->ia, cursor), record->level, val);
	}

	return 0;
}

/*
 * Makes one call to EL2 and notes the chunk that begins at @cursor. Moves
 * @cursor behind it and returns 0, or returns an error.
 */
static int s2dump_note_chunk(struct s2dump_tables *st, u64 *cursor)
{
	const struct s2dump_slot_header *header = page_address(st->slot);
	u64 regs[8] = {
		[1] = S2DUMP_OP_DUMP,
		[2] = s2dump_el1_pfn(st->slot),
		[3] = s2dump_pkvm_handle(st->kvm),
		[4] = *cursor,
		[5] = st->end,
	};
	/* Read before EL2 is asked, as a VM may run for the first time meanwhile. */
	bool has_run = s2dump_pkvm_vm_flags(st->kvm) & S2DUMP_VM_CREATED;
	u64 next;

	s2dump_el1_call(regs);
	if (regs[0])
		return -EOPNOTSUPP;

	next = regs[2];
	switch (regs[1]) {
	case S2DUMP_OK:
		/*
		 * The VM's memory is being taken back, so this chunk may lack
		 * pages. The chunks before it are whole: EL2 looks at this flag
		 * in each call, with the table locked.
		 */
		if (header->flags & S2DUMP_SLOT_DYING)
			return -ESTALE;
		break;
	case S2DUMP_NO_SUCH_VM:
		/*
		 * EL2 makes the table when the VM first runs. If the VM never
		 * ran, nothing is mapped; if it did, its table is gone.
		 */
		if (*cursor || has_run)
			return -ESTALE;
		note_page(&st->parser.ptdump, 0, s2dump_start_level(st->kvm), 0);
		next = st->end;
		break;
	case S2DUMP_NOT_PERMITTED:
		return -EPERM;
	default:
		return -EIO;
	}

	if (regs[1] == S2DUMP_OK) {
		int ret = s2dump_note_records(st, *cursor,
					      min(lower_32_bits(regs[3]), S2DUMP_SLOT_RECORDS));

		if (ret)
			return ret;
	}

	/* Makes sure that the loop ends, whatever EL2 answers. */
	if (next <= *cursor)
		return -EIO;
	*cursor = next;

	return 0;
}

static int s2dump_tables_show(struct seq_file *m, void *unused)
{
	struct s2dump_tables *st = m->private;
	u64 cursor = 0;
	int ret;

	/* The file may have been open since before the kernel was locked down. */
	ret = s2dump_el1_open_allowed();
	if (ret)
		return ret;

	s2dump_init_parser(st, m);

	/* If the buffer overflows, seq_file calls again with more room. */
	while (cursor < st->end && !seq_has_overflowed(m)) {
		ret = s2dump_note_chunk(st, &cursor);
		if (ret)
			return ret;

		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}

	/* What is no level ends the last range. */
	note_page(&st->parser.ptdump, st->end, -1, 0);

	return 0;
}

/* A page that EL2 may still write must not be freed: see s2dump_el1_unshare(). */
static void s2dump_free_slot(struct page *slot)
{
	if (s2dump_el1_unshare(slot))
		pr_warn("s2dump: page %#lx stays shared with EL2: leaked\n", page_to_pfn(slot));
	else
		__free_page(slot);
}

static int s2dump_tables_open(struct inode *inode, struct file *file)
{
	struct kvm *kvm = inode->i_private;
	struct s2dump_tables *st;
	int ret;

	ret = s2dump_el1_open_allowed();
	if (ret)
		return ret;

	ret = -ENOMEM;
	st = kzalloc(sizeof(*st), GFP_KERNEL_ACCOUNT);
	if (!st)
		return ret;
	st->kvm = kvm;

	st->slot = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (!st->slot)
		goto err_free;

	ret = s2dump_el1_share(st->slot);
	if (ret)
		goto err_free_slot;

	ret = single_open(file, s2dump_tables_show, st);
	if (ret)
		goto err_unshare;

	/*
	 * This comes last, so that nothing fails after it and has to put the
	 * reference. If that were the last one, it would destroy the VM, which
	 * waits until nobody is opening the VM's files: a deadlock.
	 */
	if (kvm_get_kvm_safe(kvm))
		return 0;

	ret = -ENOENT;
	single_release(inode, file);
err_unshare:
	s2dump_free_slot(st->slot);
	goto err_free;
err_free_slot:
	__free_page(st->slot);
err_free:
	kfree(st);
	return ret;
}

static int s2dump_tables_release(struct inode *inode, struct file *file)
{
	struct s2dump_tables *st = ((struct seq_file *)file->private_data)->private;

	s2dump_free_slot(st->slot);
	s2dump_el1_let_vm_go(st->kvm);
	kfree(st);

	return single_release(inode, file);
}

static const struct file_operations s2dump_tables_fops = {
	.open		= s2dump_tables_open,
	.read		= seq_read,
	.llseek		= seq_lseek,
	.release	= s2dump_tables_release,
};

/* The geometry is the same at EL1 and EL2, and fixed when the VM is made. */
static int s2dump_range_show(struct seq_file *m, void *unused)
{
	struct kvm *kvm = m->private;

	seq_printf(m, "%2u\n", (u32)kvm_phys_shift(&kvm->arch.mmu));

	return 0;
}

static int s2dump_levels_show(struct seq_file *m, void *unused)
{
	struct kvm *kvm = m->private;

	seq_printf(m, "%1d\n", (int)kvm_stage2_levels(&kvm->arch.mmu));

	return 0;
}

static int s2dump_geometry_open(struct inode *inode, struct file *file,
				int (*show)(struct seq_file *, void *))
{
	struct kvm *kvm = inode->i_private;
	int ret;

	ret = single_open(file, show, kvm);
	if (ret)
		return ret;

	/* Last, as in s2dump_tables_open(). */
	if (kvm_get_kvm_safe(kvm))
		return 0;

	single_release(inode, file);

	return -ENOENT;
}

static int s2dump_range_open(struct inode *inode, struct file *file)
{
	return s2dump_geometry_open(inode, file, s2dump_range_show);
}

static int s2dump_levels_open(struct inode *inode, struct file *file)
{
	return s2dump_geometry_open(inode, file, s2dump_levels_show);
}

static int s2dump_geometry_release(struct inode *inode, struct file *file)
{
	s2dump_el1_let_vm_go(inode->i_private);

	return single_release(inode, file);
}

static const struct file_operations s2dump_range_fops = {
	.open		= s2dump_range_open,
	.read		= seq_read,
	.llseek		= seq_lseek,
	.release	= s2dump_geometry_release,
};

static const struct file_operations s2dump_levels_fops = {
	.open		= s2dump_levels_open,
	.read		= seq_read,
	.llseek		= seq_lseek,
	.release	= s2dump_geometry_release,
};

bool s2dump_debugfs_create(struct kvm *kvm, const struct ptdump_prot_bits *bits,
			   unsigned int nr_bits)
{
	struct dentry *dir = kvm->debugfs_dentry;

	if (!s2dump_el1_available())
		return false;

	s2dump_bits = bits;
	s2dump_nr_bits = nr_bits;

	debugfs_create_file("stage2_page_tables", 0400, dir, kvm, &s2dump_tables_fops);
	debugfs_create_file("ipa_range", 0400, dir, kvm, &s2dump_range_fops);
	debugfs_create_file("stage2_levels", 0400, dir, kvm, &s2dump_levels_fops);

	return true;
}
