// SPDX-License-Identifier: GPL-2.0-only
/*
 * A hostile host: calls EL2 with what no honest driver would say.
 *
 * EL2 passes if it answers each call, with a status it knows, and writes to no
 * page but one that is shared with it. It fails by a line in the file that runs
 * this, or by taking the machine down.
 */
#include <linux/debugfs.h>
#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <linux/random.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/string.h>

#include <asm/sections.h>

#include "s2dump_abi.h"
#include "s2dump_el1.h"

#define S2DUMP_CALLS		20000
#define S2DUMP_PATTERN		0x5a

/* EL2 knows no status and no operation behind these. */
#define S2DUMP_STATUS_END	(S2DUMP_ATOMIC_NOT_PERMITTED + 1)
#define S2DUMP_LAST_OP		S2DUMP_OP_WALK

/* Shared and unshared at any moment, by all who run this at once. */
static struct page *s2dump_contested;

struct s2dump_selftest {
	struct seq_file *m;
	struct page	*shared;
	struct page	*unshared;
	u64		answers[S2DUMP_STATUS_END];
	unsigned int	failures;
};

static bool s2dump_failed(struct s2dump_selftest *st, const char *what, const u64 *args,
			  const u64 *regs)
{
	st->failures++;
	seq_printf(st->m, "%s: %#llx %#llx %#llx %#llx %#llx %#llx %#llx", what,
		   args[1], args[2], args[3], args[4], args[5], args[6], args[7]);
	seq_printf(st->m, " gave %#llx %#llx %#llx %#llx\n", regs[0], regs[1], regs[2], regs[3]);

	return false;
}

/* Makes a call and checks the answer; returns false if that is not right. */
static bool s2dump_hostile_call(struct s2dump_selftest *st, const u64 args[8])
{
	u64 regs[8], op = lower_32_bits(args[1]);
	u32 visited;

	memcpy(regs, args, sizeof(regs));
	s2dump_el1_call_at_once(regs);
	visited = upper_32_bits(regs[3]);

	if (regs[0])
		return s2dump_failed(st, "no answer", args, regs);
	if (regs[1] >= S2DUMP_STATUS_END)
		return s2dump_failed(st, "unknown status", args, regs);
	st->answers[regs[1]]++;
	if (regs[1] != S2DUMP_OK || op == S2DUMP_OP_HELLO)
		return true;

	if (op > S2DUMP_LAST_OP)
		return s2dump_failed(st, "unknown operation done", args, regs);
	if (args[2] != page_to_pfn(st->shared) && args[2] != page_to_pfn(s2dump_contested))
		return s2dump_failed(st, "page not shared was used", args, regs);
	if (visited > S2DUMP_ATOMIC_BUDGET)
		return s2dump_failed(st, "over the budget", args, regs);

	return true;
}

/* Pages that are not the host's to name, and other names for one that is. */
static void s2dump_hostile_pages(struct s2dump_selftest *st)
{
	u64 shared = page_to_pfn(st->shared);
	const u64 pfns[] = {
		0, 1, U64_MAX, U64_MAX >> PAGE_SHIFT, BIT_ULL(63),
		shared | BIT_ULL(36), shared | BIT_ULL(40), shared | BIT_ULL(52),
		shared | BIT_ULL(63),
		shared << PAGE_SHIFT, (u64)page_address(st->shared) >> PAGE_SHIFT,
		page_to_pfn(st->unshared), PHYS_PFN(__pa_symbol(_text)),
		PHYS_PFN(hyp_mem_base), PHYS_PFN(hyp_mem_base + hyp_mem_size - 1),
		PHYS_PFN(__pa_symbol(__hyp_text_start)),
		PHYS_PFN(__pa_symbol(__hyp_bss_start)),
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(pfns); i++) {
		u64 args[8] = { [1] = S2DUMP_OP_LIST, [2] = pfns[i], [6] = 1 };

		s2dump_hostile_call(st, args);
	}
}

/* A number that may get further than one out of 2^64 does. */
static u64 s2dump_hostile_number(struct s2dump_selftest *st)
{
	u32 die = get_random_u32();

	switch (die % 8) {
	case 0:
		return get_random_u64();
	case 1:
		return get_random_u64() >> (die >> 26);
	case 2:
		return BIT_ULL(die >> 26) - (die >> 8) % 3 + 1;
	case 3:
		return page_to_pfn(s2dump_contested);
	case 4:
		return S2DUMP_FIRST_HANDLE + (die >> 8) % 4;
	case 5:
		return (get_random_u64() & PAGE_MASK) >> (die >> 28);
	case 6:
		return (die >> 8) % 8;
	default:
		return page_to_pfn(st->shared);
	}
}

/* What an honest driver might say of pKVM's first two handles. */
static void s2dump_honest_call(struct s2dump_selftest *st, u64 args[8])
{
	u64 op = S2DUMP_OP_LIST + get_random_u32_below(S2DUMP_LAST_OP);
	u64 handle = S2DUMP_FIRST_HANDLE + get_random_u32_below(2);

	args[1] = op;
	args[2] = page_to_pfn(get_random_u32() & 1 ? st->shared : s2dump_contested);
	args[3] = handle;
	args[4] = (get_random_u64() >> (24 + get_random_u32_below(8))) & PAGE_MASK;
	args[5] = 0;
	args[6] = 0;
	args[7] = 0;

	if (op == S2DUMP_OP_LIST) {
		args[3] = 0;
		args[4] = handle;
		/* Each takes and drops a lock that all CPUs want, with interrupts masked. */
		args[6] = 1 + get_random_u32_below(4);
	} else if (op == S2DUMP_OP_DUMP) {
		args[1] |= (u64)get_random_u32_below(8) << 32;
		args[5] = U64_MAX;
		args[6] = get_random_u32() >> get_random_u32_below(32);
	}
}

static void s2dump_hostile_numbers(struct s2dump_selftest *st)
{
	u64 args[8];
	int i, arg;

	for (i = 0; i < S2DUMP_CALLS && !fatal_signal_pending(current); i++) {
		/* Most are wrong in one place only, or all would end at the first check. */
		s2dump_honest_call(st, args);
		if (i % 4 == 0) {
			for (arg = 0; arg < ARRAY_SIZE(args); arg++)
				args[arg] = s2dump_hostile_number(st);
		} else if (i % 4 != 1) {
			args[get_random_u32_below(ARRAY_SIZE(args))] = s2dump_hostile_number(st);
		}

		if (!s2dump_hostile_call(st, args) && st->failures > 8)
			break;

		/* Whether these work depends on who else does it. */
		if (i % 64 == 0)
			s2dump_el1_share(s2dump_contested);
		if (i % 64 == 32)
			s2dump_el1_unshare(s2dump_contested);
		cond_resched();
	}
}

static int s2dump_selftest_show(struct seq_file *m, void *unused)
{
	struct s2dump_selftest st = { .m = m };
	int i, ret = -ENOMEM;

	st.shared = alloc_page(GFP_KERNEL);
	st.unshared = alloc_page(GFP_KERNEL);
	if (!st.shared || !st.unshared)
		goto out;
	memset(page_address(st.unshared), S2DUMP_PATTERN, PAGE_SIZE);

	ret = s2dump_el1_share(st.shared);
	if (ret)
		goto out;

	s2dump_hostile_pages(&st);
	s2dump_hostile_numbers(&st);

	ret = s2dump_el1_unshare(st.shared);
	if (ret) {
		st.shared = NULL;
		goto out;
	}

	if (memchr_inv(page_address(st.unshared), S2DUMP_PATTERN, PAGE_SIZE)) {
		seq_puts(m, "a page that is not shared was written\n");
		st.failures++;
	}

	for (i = 0; i < S2DUMP_STATUS_END; i++)
		seq_printf(m, "status %d: %llu\n", i, st.answers[i]);
	seq_printf(m, "failures: %u\n", st.failures);
out:
	if (st.shared)
		__free_page(st.shared);
	if (st.unshared)
		__free_page(st.unshared);
	return ret;
}
DEFINE_SHOW_ATTRIBUTE(s2dump_selftest);

static int __init s2dump_selftest_init(void)
{
	if (!is_pkvm_initialized())
		return 0;

	s2dump_contested = alloc_page(GFP_KERNEL);
	if (s2dump_contested)
		debugfs_create_file("s2dump_selftest", 0400, NULL, NULL, &s2dump_selftest_fops);

	return 0;
}
late_initcall(s2dump_selftest_init);
