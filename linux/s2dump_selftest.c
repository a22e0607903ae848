// SPDX-License-Identifier: GPL-2.0-only
/*
 * A hostile host: calls EL2 with what no honest driver would say.
 *
 * EL2 passes if it answers each call, with a status that it may give, and
 * writes to no page but one that is shared with it, and there no more bytes
 * than a slot has. It fails by a line in the
 * file that runs this, or by taking the machine down.
 *
 * In debugfs:
 *   s2dump_selftest		runs when read, and tells what EL2 answered
 *   s2dump_selftest_calls	how many calls a run makes
 *   s2dump_selftest_seed	seed of the next run; the same seed, the same calls
 *   s2dump_selftest_shared	pages s2dump shares with EL2 now
 */
#include <linux/atomic.h>
#include <linux/debugfs.h>
#include <linux/hash.h>
#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <linux/prandom.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/string.h>

#include <asm/sections.h>

#include "s2dump_abi.h"
#include "s2dump_el1.h"

#define S2DUMP_PATTERN		0x5a
#define S2DUMP_LAST_OP		S2DUMP_OP_EXAMINE
#define S2DUMP_STATUS_END	64
/* pages of this test, as many as a slot has but two at least: all but the last one shared */
#define S2DUMP_TEST_ORDER	max(get_order(S2DUMP_SLOT_BYTES), 1)
#define S2DUMP_SHARED_PAGES	((1 << S2DUMP_TEST_ORDER) - 1)
#define S2DUMP_SHARED_BYTES	(S2DUMP_SHARED_PAGES * PAGE_SIZE)
/* of a table, and what one examination looks at */
#define S2DUMP_MOST_LEVELS	5
#define S2DUMP_PLACES		3
/* a place leaves out so many bits of its address, whatever the page size */
#define S2DUMP_PLACE_SHIFT	12

/* What EL2 itself answers; the other statuses are the driver's. */
#define S2DUMP_STATUSES_OF_EL2						\
	(BIT_ULL(S2DUMP_OK) | BIT_ULL(S2DUMP_NOT_PERMITTED) |		\
	 BIT_ULL(S2DUMP_UNKNOWN_OP) | BIT_ULL(S2DUMP_UNKNOWN_FLAG) |	\
	 BIT_ULL(S2DUMP_UNKNOWN_TARGET) | BIT_ULL(S2DUMP_NO_SUCH_VM) |	\
	 BIT_ULL(S2DUMP_BAD_RANGE) | BIT_ULL(S2DUMP_SLOT_NOT_SHARED) |	\
	 BIT_ULL(S2DUMP_TOO_BIG) | BIT_ULL(S2DUMP_VERSION_MISMATCH) |	\
	 BIT_ULL(S2DUMP_BAD_GEOMETRY) |					\
	 BIT_ULL(S2DUMP_ATOMIC_NOT_PERMITTED) |				\
	 BIT_ULL(S2DUMP_HYP_NOT_PERMITTED))

/* Shared and unshared at any moment, by all who run this at once. */
static struct page *s2dump_contested;

static u64 s2dump_calls = 20000;
static atomic_t s2dump_seed = ATOMIC_INIT(1);

struct s2dump_selftest {
	struct seq_file	*m;
	/* S2DUMP_SHARED_PAGES of them, and behind those one that is not. */
	struct page	*shared;
	struct page	*unshared;
	struct rnd_state random;
	u64		answers[S2DUMP_STATUS_END];
	u64		done[S2DUMP_LAST_OP + 1];	/* operations */
	unsigned int	failures;
};

static u32 s2dump_random(struct s2dump_selftest *st)
{
	return prandom_u32_state(&st->random);
}

static u64 s2dump_random_u64(struct s2dump_selftest *st)
{
	return (u64)s2dump_random(st) << 32 | s2dump_random(st);
}

static u32 s2dump_random_below(struct s2dump_selftest *st, u32 end)
{
	return s2dump_random(st) % end;
}

static bool s2dump_failed(struct s2dump_selftest *st, const char *what, const u64 *args,
			  const u64 *regs)
{
	st->failures++;
	seq_printf(st->m, "%s: %#llx %#llx %#llx %#llx %#llx %#llx %#llx", what,
		   args[1], args[2], args[3], args[4], args[5], args[6], args[7]);
	seq_printf(st->m, " gave %#llx %#llx %#llx %#llx\n", regs[0], regs[1], regs[2], regs[3]);

	return false;
}

/* Descriptors, handles and vCPUs, frames or facts that one call may look at. */
static u32 s2dump_most_visited(const u64 args[8])
{
	switch (lower_32_bits(args[1])) {
	case S2DUMP_OP_DUMP:
		return upper_32_bits(args[1]) & S2DUMP_FLAG_ATOMIC ? S2DUMP_ATOMIC_BUDGET :
								     S2DUMP_MAX_BUDGET;
	case S2DUMP_OP_FRAMES:
		return S2DUMP_MAX_BUDGET;
	case S2DUMP_OP_FACTS:
		return S2DUMP_SLOT_RECORDS;
	case S2DUMP_OP_WALK:
		return S2DUMP_MOST_LEVELS;
	case S2DUMP_OP_EXAMINE:
		return S2DUMP_PLACES * S2DUMP_MOST_LEVELS;
	default:
		/* The last VM of a list is looked at as a whole. */
		return S2DUMP_LIST_BUDGET + KVM_MAX_VCPUS - 1;
	}
}

/* Whether all pages that @slot names may be shared with EL2. */
static bool s2dump_is_slot(struct s2dump_selftest *st, u64 slot)
{
	u64 pfn = slot & GENMASK_ULL(55, 0), more = slot >> 56;

	return (pfn == page_to_pfn(st->shared) && more < S2DUMP_SHARED_PAGES) ||
	       slot == page_to_pfn(s2dump_contested);
}

/*
 * Whether no more of the pages from @shared on was written than @args allow.
 * Nobody else names them; the contested page is written by all who run this.
 */
static bool s2dump_is_within_slot(struct s2dump_selftest *st, const u64 args[8])
{
	u64 flags = upper_32_bits(args[1]), pages = (args[2] >> 56) + 1;
	void *start = page_address(st->shared);
	u64 end = S2DUMP_PLAIN_SLOT_BYTES;
	bool within;

	if ((args[2] & GENMASK_ULL(55, 0)) != page_to_pfn(st->shared))
		return true;

	if (lower_32_bits(args[1]) == S2DUMP_OP_DUMP && flags & S2DUMP_FLAG_PACKED)
		end = min3(pages * PAGE_SIZE, (u64)S2DUMP_SLOT_BYTES, (u64)S2DUMP_SHARED_BYTES);

	within = !memchr_inv(start + end, S2DUMP_PATTERN, S2DUMP_SHARED_BYTES - end);
	/* For the next call. */
	memset(start, S2DUMP_PATTERN, within ? end : S2DUMP_SHARED_BYTES);

	return within;
}

/* Makes a call and checks the answer; returns false if that is not right. */
static bool s2dump_hostile_call(struct s2dump_selftest *st, const u64 args[8])
{
	u64 regs[8], op = lower_32_bits(args[1]);

	memcpy(regs, args, sizeof(regs));
	s2dump_el1_call_at_once(regs);

	if (regs[0])
		return s2dump_failed(st, "no answer", args, regs);
	if (!s2dump_is_within_slot(st, args))
		return s2dump_failed(st, "bytes behind the slot were written", args, regs);
	if (regs[1] >= S2DUMP_STATUS_END || !(BIT_ULL(regs[1]) & S2DUMP_STATUSES_OF_EL2))
		return s2dump_failed(st, "a status EL2 does not give", args, regs);
	st->answers[regs[1]]++;
	if (regs[1] == S2DUMP_OK && op > S2DUMP_LAST_OP)
		return s2dump_failed(st, "unknown operation done", args, regs);
	if (regs[1] == S2DUMP_OK)
		st->done[op]++;
	if (regs[1] != S2DUMP_OK || op == S2DUMP_OP_HELLO)
		return true;

	if (!s2dump_is_slot(st, args[2]))
		return s2dump_failed(st, "page not shared was used", args, regs);
	if (upper_32_bits(regs[3]) > s2dump_most_visited(args))
		return s2dump_failed(st, "over the budget", args, regs);

	return true;
}

/*
 * KVM shares pages of its own with EL2, and so does the driver: EL2 rightly
 * writes one that a call names, and the machine goes down by our fault. So of
 * RAM only these are named: the pages of the test, and those that EL2 owns.
 * That EL2 refuses other pages of the host is shown by @unshared, which is
 * one of them. What is no RAM, or not the one name of a page, is named freely.
 */
static bool s2dump_may_name(struct s2dump_selftest *st, u64 slot)
{
	u64 pfn = slot & GENMASK_ULL(55, 0);
	phys_addr_t pa = PFN_PHYS(pfn);

	/*
	 * Bits 63:56 ask for further pages, which may be anybody's. Behind
	 * @shared there are pages of the test, as far as a slot may reach.
	 */
	if (pfn == page_to_pfn(st->shared) || slot == page_to_pfn(st->unshared) ||
	    slot == page_to_pfn(s2dump_contested))
		return true;

	return !pfn_valid(pfn) || (pa >= hyp_mem_base && pa - hyp_mem_base < hyp_mem_size);
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

	/* Slots of several pages, the longer ones with the page that is not shared. */
	for (i = 0; i <= 2 * S2DUMP_SLOT_PAGES; i++) {
		u64 args[8] = {
			[1] = S2DUMP_OP_DUMP | (S2DUMP_FLAG_EXACT | S2DUMP_FLAG_PACKED) << 32,
			[2] = shared | (u64)i << 56,
			[3] = (u64)S2DUMP_TARGET_HOST_STAGE2 << S2DUMP_TARGET_KIND_SHIFT,
			[5] = U64_MAX,
		};

		s2dump_hostile_call(st, args);
	}
}

/* A number that may get further than one out of 2^64 does. */
static u64 s2dump_hostile_number(struct s2dump_selftest *st)
{
	u32 die = s2dump_random(st);

	switch (die % 9) {
	case 0:
		return s2dump_random_u64(st);
	case 1:
		return s2dump_random_u64(st) >> (die >> 26);
	case 2:
		return BIT_ULL(die >> 26) - (die >> 8) % 3 + 1;
	case 3:
		return page_to_pfn(s2dump_contested);
	case 4:
		return S2DUMP_FIRST_HANDLE + (die >> 8) % 4;
	case 5:
		return (s2dump_random_u64(st) & PAGE_MASK) >> (die >> 28);
	case 6:
		return (die >> 8) % 8;
	case 7:
		/* A kind of table, known or not, and perhaps more. */
		return (u64)((die >> 8) % 4) << S2DUMP_TARGET_KIND_SHIFT | (die >> 31);
	default:
		return page_to_pfn(st->shared);
	}
}

/* A table: mostly of the guest with @handle, else the host's or EL2's. */
static u64 s2dump_some_target(struct s2dump_selftest *st, u64 handle)
{
	switch (s2dump_random_below(st, 8)) {
	case 0:
		return (u64)S2DUMP_TARGET_HOST_STAGE2 << S2DUMP_TARGET_KIND_SHIFT;
	case 1:
		return (u64)S2DUMP_TARGET_HYP_STAGE1 << S2DUMP_TARGET_KIND_SHIFT;
	default:
		return handle;
	}
}

/* A page frame: a page of the test, of EL2, of the kernel, or what is no memory. */
static u64 s2dump_some_frame(struct s2dump_selftest *st)
{
	switch (s2dump_random_below(st, 5)) {
	case 0:
		return PFN_PHYS(page_to_pfn(st->shared));
	case 1:
		return PFN_PHYS(page_to_pfn(s2dump_contested));
	case 2:
		return PAGE_ALIGN_DOWN(hyp_mem_base + s2dump_random(st) % hyp_mem_size);
	case 3:
		return __pa_symbol(_text) + PFN_PHYS(s2dump_random_below(st, 4096));
	default:
		return (s2dump_random_u64(st) >> (12 + s2dump_random_below(st, 24))) & PAGE_MASK;
	}
}

/* An input address of some table, as an examination names it; or none. */
static u64 s2dump_some_place(struct s2dump_selftest *st, u64 handle)
{
	u64 target = s2dump_some_target(st, handle), address = s2dump_some_frame(st);

	if (s2dump_random_below(st, 4) == 0)
		return 0;
	if (target == handle)
		target = handle << 40;

	return target | (address >> S2DUMP_PLACE_SHIFT & GENMASK_ULL(39, 0));
}

/* What an honest driver might say of pKVM's first four handles. */
static void s2dump_honest_call(struct s2dump_selftest *st, u64 args[8])
{
	u64 op = S2DUMP_OP_LIST + s2dump_random_below(st, S2DUMP_LAST_OP);
	u64 handle = S2DUMP_FIRST_HANDLE + s2dump_random_below(st, 4);

	args[0] = 0;
	args[1] = op;
	args[2] = page_to_pfn(s2dump_random(st) & 1 ? st->shared : s2dump_contested);
	args[3] = s2dump_some_target(st, handle);
	args[4] = (s2dump_random_u64(st) >> (24 + s2dump_random_below(st, 8))) & PAGE_MASK;
	args[5] = 0;
	args[6] = 0;
	args[7] = 0;

	if (op == S2DUMP_OP_LIST) {
		args[3] = 0;
		args[4] = handle;
		/* Each takes and drops a lock that all CPUs want, with interrupts masked. */
		args[6] = 1 + s2dump_random_below(st, 4);
	} else if (op == S2DUMP_OP_DUMP) {
		/*
		 * Mostly small: what a call costs is what it reads, and this is
		 * to be many calls. Atomic ones read all there is.
		 */
		args[1] |= (s2dump_random(st) & (S2DUMP_FLAG_EXACT | S2DUMP_FLAG_DIGEST |
						 S2DUMP_FLAG_TABLES | S2DUMP_FLAG_PACKED)) << 32;
		if (args[1] & S2DUMP_FLAG_PACKED << 32) {
			args[1] |= S2DUMP_FLAG_EXACT << 32;
			if (args[2] == page_to_pfn(st->shared))
				args[2] |= (u64)s2dump_random_below(st, S2DUMP_SHARED_PAGES + 1) << 56;
		}
		if (s2dump_random_below(st, 32) == 0)
			args[1] |= S2DUMP_FLAG_ATOMIC << 32;
		args[5] = U64_MAX;
		args[6] = s2dump_random(st) >> (16 + s2dump_random_below(st, 16));
	} else if (op == S2DUMP_OP_FRAMES) {
		args[3] = 0;
		args[4] = s2dump_some_frame(st);
		args[5] = U64_MAX;
		args[6] = s2dump_random(st) >> (16 + s2dump_random_below(st, 16));
	} else if (op == S2DUMP_OP_FACTS) {
		args[3] = 0;
		args[4] = s2dump_random_below(st, 8);
	} else if (op == S2DUMP_OP_EXAMINE) {
		args[3] = s2dump_some_frame(st);
		args[4] = s2dump_some_place(st, handle);
		args[5] = s2dump_some_place(st, handle);
		args[6] = s2dump_some_place(st, handle);
	}
}

/* Most calls are wrong in one place only, or all would end at the first check. */
static void s2dump_next_call(struct s2dump_selftest *st, u64 args[8])
{
	u32 die = s2dump_random(st);
	int arg;

	s2dump_honest_call(st, args);

	switch (die % 16) {
	case 0 ... 3:
		for (arg = 1; arg < 8; arg++)
			args[arg] = s2dump_hostile_number(st);
		break;
	case 4:
		/* A host of any version. */
		memset(args, 0, 8 * sizeof(*args));
		args[1] = S2DUMP_OP_HELLO;
		args[2] = s2dump_random(st) >> ((die >> 4) % 32);
		break;
	case 5 ... 7:
		break;
	default:
		args[1 + (die >> 4) % 7] = s2dump_hostile_number(st);
	}

	if (!s2dump_may_name(st, args[2])) {
		if (die >> 31)
			args[2] = page_to_pfn(st->unshared);
		else
			args[2] |= BIT_ULL(PHYS_MASK_SHIFT - PAGE_SHIFT + (die >> 8) % 16);
	}
}

static void s2dump_hostile_numbers(struct s2dump_selftest *st)
{
	u64 i, calls = READ_ONCE(s2dump_calls);
	u64 args[8];

	for (i = 0; i < calls && !fatal_signal_pending(current); i++) {
		s2dump_next_call(st, args);
		if (!s2dump_hostile_call(st, args) && st->failures > 8)
			break;

		/* Whether these work depends on who else does it. */
		if (i % 64 == 0)
			s2dump_el1_share(s2dump_contested);
		if (i % 64 == 32)
			s2dump_el1_unshare(s2dump_contested);
		cond_resched();
	}

	/* Not to leave it shared: the last of all who run this does it. */
	s2dump_el1_unshare(s2dump_contested);
}

static int s2dump_selftest_show(struct seq_file *m, void *unused)
{
	struct s2dump_selftest st = { .m = m };
	u32 seed = atomic_fetch_inc(&s2dump_seed);
	int i, ret;

	/* The generator begins alike for numbers that are alike: so spread them. */
	prandom_seed_state(&st.random, seed * GOLDEN_RATIO_64);
	for (i = 0; i < 8; i++)
		s2dump_random(&st);

	st.shared = alloc_pages(GFP_KERNEL | __GFP_COMP, S2DUMP_TEST_ORDER);
	if (!st.shared)
		return -ENOMEM;
	st.unshared = st.shared + S2DUMP_SHARED_PAGES;
	memset(page_address(st.shared), S2DUMP_PATTERN, S2DUMP_SHARED_BYTES + PAGE_SIZE);

	/* On an error the pages are lost: some of them are EL2's to write. */
	for (i = 0; i < S2DUMP_SHARED_PAGES; i++) {
		ret = s2dump_el1_share(st.shared + i);
		if (ret)
			return ret;
	}

	s2dump_hostile_pages(&st);
	s2dump_hostile_numbers(&st);

	for (i = 0; i < S2DUMP_SHARED_PAGES; i++) {
		ret = s2dump_el1_unshare(st.shared + i);
		if (ret)
			return ret;
	}

	if (memchr_inv(page_address(st.unshared), S2DUMP_PATTERN, PAGE_SIZE)) {
		seq_puts(m, "a page that is not shared was written\n");
		st.failures++;
	}

	seq_printf(m, "seed: %u\n", seed);
	for (i = 0; i < S2DUMP_STATUS_END; i++) {
		if (BIT_ULL(i) & S2DUMP_STATUSES_OF_EL2)
			seq_printf(m, "status %d: %llu\n", i, st.answers[i]);
	}
	for (i = 0; i <= S2DUMP_LAST_OP; i++)
		seq_printf(m, "op %d: %llu\n", i, st.done[i]);
	seq_printf(m, "failures: %u\n", st.failures);
	__free_pages(st.shared, S2DUMP_TEST_ORDER);

	return 0;
}
DEFINE_SHOW_ATTRIBUTE(s2dump_selftest);

static int s2dump_selftest_shared_show(struct seq_file *m, void *unused)
{
	seq_printf(m, "%ld\n", s2dump_el1_shared_pages());

	return 0;
}
DEFINE_SHOW_ATTRIBUTE(s2dump_selftest_shared);

static int s2dump_selftest_callers_show(struct seq_file *m, void *unused)
{
	seq_printf(m, "%d\n", s2dump_el1_most_callers());

	return 0;
}
DEFINE_SHOW_ATTRIBUTE(s2dump_selftest_callers);

static int __init s2dump_selftest_init(void)
{
	if (!is_pkvm_initialized())
		return 0;

	s2dump_contested = alloc_page(GFP_KERNEL);
	if (!s2dump_contested)
		return 0;

	debugfs_create_file("s2dump_selftest", 0400, NULL, NULL, &s2dump_selftest_fops);
	debugfs_create_file("s2dump_selftest_shared", 0400, NULL, NULL,
			    &s2dump_selftest_shared_fops);
	debugfs_create_file("s2dump_selftest_callers", 0400, NULL, NULL,
			    &s2dump_selftest_callers_fops);
	debugfs_create_u64("s2dump_selftest_calls", 0600, NULL, &s2dump_calls);
	debugfs_create_atomic_t("s2dump_selftest_seed", 0600, NULL, &s2dump_seed);

	return 0;
}
late_initcall(s2dump_selftest_init);
