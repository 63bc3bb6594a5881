/* SPDX-License-Identifier: Apache-2.0 */
/* What a program in a container gets of the node's kernel. It is root in a user namespace, so nothing of the node is
 * its own; this takes away what it would have a use for only in order to attack the kernel. A list of what is refused,
 * not of what is allowed: what the kernel learns next must not break programs in silence, and the worst of these calls
 * have been there for years. (seccomp(2), capabilities(7)) */
#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include "guest/contain.h"

#define FILES_MAX 524288u
#define CLONE_ANY                                                                                  \
	(CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | \
	 0x02000000)
#define X32_BIT 0x40000000u

static const unsigned kept_caps[] = {
	CAP_CHOWN,      CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER,   CAP_FSETID,
	CAP_KILL,       CAP_SETGID,       CAP_SETUID,          CAP_SETPCAP,  CAP_NET_BIND_SERVICE,
	CAP_NET_RAW,    CAP_IPC_LOCK,     CAP_IPC_OWNER,       CAP_SYS_BOOT, CAP_SYS_CHROOT,
	CAP_SYS_PTRACE, CAP_SYS_NICE,     CAP_SYS_RESOURCE,    CAP_MKNOD,    CAP_AUDIT_WRITE,
	CAP_SETFCAP,
};

static const int refused[] = {
	/* file systems and namespaces */
	SYS_mount,
	SYS_umount2,
	SYS_pivot_root,
	SYS_swapon,
	SYS_swapoff,
	SYS_quotactl,
	SYS_unshare,
	SYS_setns,
	SYS_open_by_handle_at,
	428 /* open_tree */,
	429 /* move_mount */,
	430 /* fsopen */,
	431 /* fsconfig */,
	432 /* fsmount */,
	433 /* fspick */,
	442 /* mount_setattr */,
	/* the kernel itself */
	SYS_init_module,
	SYS_finit_module,
	SYS_delete_module,
	SYS_kexec_load,
	SYS_syslog,
	SYS_acct,
	SYS_bpf,
	SYS_perf_event_open,
	SYS_userfaultfd,
	SYS_lookup_dcookie,
	/* keys: the kernel's rings are not per container */
	SYS_add_key,
	SYS_request_key,
	SYS_keyctl,
	/* the node's clock */
	SYS_settimeofday,
	SYS_clock_settime,
	SYS_adjtimex,
	SYS_clock_adjtime,
#ifdef __x86_64__
	SYS_kexec_file_load,
	SYS_iopl,
	SYS_ioperm,
	SYS_uselib,
	SYS_nfsservctl,
#endif
};

/* As if the kernel did not have them: programs know what to do then. */
static const int unknown[] = {
	435, /* clone3: its flags are out of a filter's sight, clone(2)'s are not */
	425, /* io_uring_setup */
};

static void put(struct sock_filter *f, unsigned *n, struct sock_filter one)
{
	f[(*n)++] = one;
}

#define LOAD(off) (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(off))
#define RETURN(v) (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, (v))
/* Goes on with the next line when equal (set), else leaves `skip` lines out. */
#define WHEN(op, v, skip)                                                                          \
	(struct sock_filter) BPF_JUMP(BPF_JMP | (op) | BPF_K, (uint32_t)(v), 0, (skip))
#define ARG_LOW(i) (offsetof(struct seccomp_data, args) + 8 * (i)) /* little endian */

static unsigned fill_filter(struct sock_filter *f)
{
	unsigned n = 0;
	const uint32_t no = SECCOMP_RET_ERRNO | EPERM, none = SECCOMP_RET_ERRNO | ENOSYS;
#ifdef __x86_64__
	put(f, &n, LOAD(offsetof(struct seccomp_data, arch)));
	put(f, &n, WHEN(BPF_JEQ, AUDIT_ARCH_X86_64, 1));
	put(f, &n, (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, 1));
	put(f, &n, RETURN(none)); /* calls of 32-bit programs have other numbers */
#endif
	put(f, &n, LOAD(offsetof(struct seccomp_data, nr)));
#ifdef __x86_64__
	put(f, &n, WHEN(BPF_JGE, X32_BIT, 1));
	put(f, &n, RETURN(none));
#endif
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		put(f, &n, WHEN(BPF_JEQ, refused[i], 1));
		put(f, &n, RETURN(no));
	}
	for (size_t i = 0; i < ARRAY_SIZE(unknown); i++) {
		put(f, &n, WHEN(BPF_JEQ, unknown[i], 1));
		put(f, &n, RETURN(none));
	}
	put(f, &n, WHEN(BPF_JEQ, SYS_clone, 4));
	put(f, &n, LOAD(ARG_LOW(0)));
	put(f, &n, WHEN(BPF_JSET, CLONE_ANY, 1));
	put(f, &n, RETURN(no));
	put(f, &n, LOAD(offsetof(struct seccomp_data, nr)));
	put(f, &n, WHEN(BPF_JEQ, SYS_ioctl, 3)); /* typing into somebody's terminal */
	put(f, &n, LOAD(ARG_LOW(1)));
	put(f, &n, WHEN(BPF_JEQ, TIOCSTI, 1));
	put(f, &n, RETURN(no));
	put(f, &n, RETURN(SECCOMP_RET_ALLOW));
	return n;
}

static int filter_calls(struct err *err)
{
	struct sock_filter f[2 * (ARRAY_SIZE(refused) + ARRAY_SIZE(unknown)) + 24];
	struct sock_fprog prog = {.len = (unsigned short)fill_filter(f), .filter = f};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0)
		return err_errno(err, errno, "filter of system calls");
	return 0;
}

static bool is_kept(unsigned cap)
{
	for (size_t i = 0; i < ARRAY_SIZE(kept_caps); i++)
		if (kept_caps[i] == cap)
			return true;
	return false;
}

/* What is executed gets what is in the bounding set, since it is root's; nothing may come in by inheritance. */
static int drop_caps(struct err *err)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2];
	for (unsigned cap = 0; cap < 64; cap++) {
		int is = is_kept(cap) ? 0 : prctl(PR_CAPBSET_READ, cap, 0, 0, 0);
		if (is < 0)
			break; /* past the kernel's last */
		if (is && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return err_errno(err, errno, "give up capability %u", cap);
	}
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (syscall(SYS_capget, &h, d) < 0)
		return err_errno(err, errno, "capabilities");
	d[0].inheritable = d[1].inheritable = 0;
	if (syscall(SYS_capset, &h, d) < 0)
		return err_errno(err, errno, "capabilities");
	return 0;
}

static void raise_limit(int which, rlim_t soft)
{
	struct rlimit r;
	if (getrlimit(which, &r) == 0) {
		r.rlim_cur = MIN(soft, r.rlim_max);
		setrlimit(which, &r);
	}
}

static void limits(uint64_t memory)
{
	raise_limit(RLIMIT_NOFILE, FILES_MAX);
	raise_limit(RLIMIT_MEMLOCK, RLIM_INFINITY);
	raise_limit(RLIMIT_CORE, 0);
	if (memory)
		setrlimit(RLIMIT_DATA, &(struct rlimit){memory, memory});
}

/* As many CPUs as were asked for, of those that we may use; who has none of his own begins where he is told. */
static void use_cpus(unsigned cpus, unsigned first)
{
	cpu_set_t may, take;
	CPU_ZERO(&take);
	if (sched_getaffinity(0, sizeof(may), &may) < 0 || cpus >= (unsigned)CPU_COUNT(&may))
		return;
	unsigned all = (unsigned)CPU_COUNT(&may), nth = 0;
	for (unsigned c = 0; c < CPU_SETSIZE; c++) {
		if (!CPU_ISSET(c, &may))
			continue;
		if ((nth + all - first % all) % all < cpus)
			CPU_SET(c, &take);
		nth++;
	}
	sched_setaffinity(0, sizeof(take), &take);
}

int confine(uint64_t memory, unsigned cpus, unsigned first, struct err *err)
{
	limits(memory);
	use_cpus(cpus, first);
	if (drop_caps(err) < 0)
		return -1;
	return filter_calls(err);
}
