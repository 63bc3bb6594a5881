/* SPDX-License-Identifier: Apache-2.0 */
/* A filter of system calls (seccomp(2)) for a process that makes files as somebody tells it who is not to be trusted: a file
 * with a set-id bit would give the rights of its owner to whoever on the node executes it. Only the modes of files
 * are looked at; a call whose mode lies in memory, where a filter does not see it, is not there. */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include "base/macros.h"
#include "io/child_filter.h"

#define SET_ID (S_ISUID | S_ISGID)
#define X32_BIT 0x40000000u
#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#endif

#define LOAD(off) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(off))
#define RETURN(v) BPF_STMT(BPF_RET | BPF_K, (v))
#define ARG_LOW(i) (offsetof(struct seccomp_data, args) + 8 * (i)) /* little endian */
#define NO (SECCOMP_RET_ERRNO | EPERM)
#define NONE (SECCOMP_RET_ERRNO | ENOSYS)
/* A call that changes modes, by argument i. Set-group-id is done as asked where only owner and group may execute; where others
 * may, nothing is done, in silence as POSIX allows it: a file server makes a directory below one that has the bit by
 * mkdir(2), by which the kernel hands it on, and then by this. */
#define CHMOD(nr, i)                                                                               \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (nr), 0, 7), LOAD(ARG_LOW(i)),                         \
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, S_ISUID, 3, 0),                               \
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, S_ISGID, 0, 3),                               \
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, S_IXOTH, 0, 2), RETURN(SECCOMP_RET_ERRNO),    \
		RETURN(NO), RETURN(SECCOMP_RET_ALLOW)
/* A call that may make a file, with flags in argument i and the mode in the next. */
#define OPEN(nr, i)                                                                                \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (nr), 0, 6), LOAD(ARG_LOW(i)),                         \
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_CREAT | (O_TMPFILE & ~O_DIRECTORY), 0, 3),  \
		LOAD(ARG_LOW((i) + 1)), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, SET_ID, 0, 1),        \
		RETURN(NO), RETURN(SECCOMP_RET_ALLOW)
/* The call nr, which makes a node of the type in argument i: no device. */
#define NO_DEVICE(nr, i)                                                                           \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (nr), 0, 7), LOAD(ARG_LOW(i)),                         \
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, SET_ID, 3, 0),                                \
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, S_IFMT),                                       \
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, S_IFBLK, 1, 0),                                \
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, S_IFCHR, 0, 1), RETURN(NO),                    \
		RETURN(SECCOMP_RET_ALLOW)
#define UNKNOWN(nr) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (nr), 0, 1), RETURN(NONE)

int child_filter_set_id(void)
{
#ifdef ARCH
	static struct sock_filter f[] = {
		LOAD(offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0),
		RETURN(NONE), /* calls of 32-bit programs have other numbers */
		LOAD(offsetof(struct seccomp_data, nr)),
#ifdef __x86_64__
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1),
		RETURN(NONE),
		CHMOD(SYS_chmod, 1),
		OPEN(SYS_open, 1),
		UNKNOWN(SYS_creat),
		NO_DEVICE(SYS_mknod, 1),
#endif
		CHMOD(SYS_fchmod, 1),
		CHMOD(SYS_fchmodat, 2),
		OPEN(SYS_openat, 2),
		NO_DEVICE(SYS_mknodat, 2),
		UNKNOWN(437), /* openat2 */
		UNKNOWN(452), /* fchmodat2 */
		UNKNOWN(425), /* io_uring_setup */
		RETURN(SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = ARRAY_SIZE(f), .filter = f};
	umask(0); /* modes are told, with who tells them having thought of his own */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog);
#else
	errno = ENOTSUP;
	return -1;
#endif
}
