/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rundir.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/time.h"

#define HEIR "heir"
#define ELSEWHERE "elsewhere"
#define HOST_PART_MAX 40  /* bytes: sockets in the folder have paths of at most 107 */
#define KILL_WAIT_MS 3000 /* for all VMMs that were sent SIGKILL to be gone */

int cluster_name_check(const char *name, struct err *err)
{
	size_t n = strlen(name);
	bool good = n >= 1 && n <= CLUSTER_NAME_MAX && islower((unsigned char)name[0]);
	for (size_t i = 0; good && i < n; i++)
		good = islower((unsigned char)name[i]) || isdigit((unsigned char)name[i]) ||
		       name[i] == '-';
	if (!good)
		return err_set(err, EINVAL, "'%.60s': not a cluster name (a-z first, then a-z 0-9 -, at most %d)",
			       name, CLUSTER_NAME_MAX);
	return 0;
}

static void host_part(char out[HOST_PART_MAX + 1])
{
	char host[256] = "";
	size_t n = 0;
	gethostname(host, sizeof(host) - 1);
	for (const char *p = host; *p && n < HOST_PART_MAX; p++)
		out[n++] = isalnum((unsigned char)*p) || *p == '-' || *p == '.' ? *p : '_';
	out[n] = '\0';
}

char *rundir_node_name(const char *cluster)
{
	char host[HOST_PART_MAX + 1];
	host_part(host);
	return xasprintf("%s@%s", cluster, host);
}

/* A cluster's name, or that with this very host. */
static int own_name_check(const char *name, struct err *err)
{
	char host[HOST_PART_MAX + 1], cluster[CLUSTER_NAME_MAX + 1] = "";
	const char *at = strchr(name, '@');
	host_part(host);
	if (!at || strcmp(at + 1, host) != 0 || (size_t)(at - name) > CLUSTER_NAME_MAX)
		return cluster_name_check(name, err);
	memcpy(cluster, name, (size_t)(at - name));
	return cluster_name_check(cluster, err);
}

static bool is_ours(const char *path)
{
	struct stat st;
	return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
	       !(st.st_mode & 0022);
}

static int not_ours(const char *base, struct err *err)
{
	return err_set(err, EPERM, "run directory %s: belongs to somebody else; set XDG_RUNTIME_DIR to a folder of your own",
		       base);
}

/* The folder that the path names now, known to be ours and closed to others: what is checked is what was opened.
 * -1 with ENOENT when there is none (and `make` is false). */
static int open_base(const char *base, bool make, struct err *err)
{
	for (;;) {
		if (make && mkdir(base, 0700) < 0 && errno != EEXIST)
			return err_errno(err, errno, "run directory %s", base);
		_cleanup_close_ int fd = open(base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT && make)
			continue; /* another command removed it, empty as it was */
		if (fd < 0 && (errno == ELOOP || errno == ENOTDIR || errno == EACCES))
			return not_ours(base, err);
		struct stat st;
		if (fd < 0 || fstat(fd, &st) < 0)
			return err_errno(err, errno, "run directory %s", base);
		if (st.st_uid != geteuid() || st.st_mode & 0022)
			return not_ours(base, err);
		return TAKE_FD(fd);
	}
}

int rundir_base(char **ret, struct err *err)
{
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	_cleanup_free_ char *base = xdg && xdg[0] == '/' && is_ours(xdg) && access(xdg, W_OK) == 0
					    ? path_join(xdg, "vse")
					    : xasprintf("/tmp/vse-%u", (unsigned)geteuid());
	struct err why = ERR_INIT;
	_cleanup_close_ int fd = open_base(base, false, &why);
	if (fd < 0 && why.code != ENOENT) {
		if (err)
			*err = why;
		return -1;
	}
	*ret = TAKE_PTR(base);
	return 0;
}

char *rundir_home(const char *base)
{
	const char *slash = strrchr(base, '/');
	struct stat st;
	if (!slash || slash == base)
		return NULL;
	_cleanup_free_ char *parent = xstrndup(base, (size_t)(slash - base)), *boot = NULL;
	/* The file system, too: containers of one host may have a folder of this name each. */
	if (stat(parent, &st) < 0 ||
	    path_read("/proc/sys/kernel/random/boot_id", 100, &boot, NULL, NULL) < 0)
		return NULL;
	boot[strcspn(boot, "\n")] = '\0';
	return xasprintf("%s/%ju:%ju%s", boot, (uintmax_t)st.st_dev, (uintmax_t)st.st_ino, slash);
}

static int lock_fd(int fd, int how)
{
	int rc;
	while ((rc = flock(fd, how)) < 0 && errno == EINTR)
		;
	return rc;
}

/* A lock on BASE, on the folder that the path names now: it may be removed and made anew while we wait. */
static int lock_base(const char *base, bool make, struct err *err)
{
	for (;;) {
		_cleanup_close_ int fd = open_base(base, make, err);
		if (fd < 0)
			return -1;
		if (lock_fd(fd, LOCK_EX) < 0)
			return err_errno(err, errno, "run directory %s: lock", base);
		struct stat a, b;
		if (fstat(fd, &a) == 0 && lstat(base, &b) == 0 && a.st_ino == b.st_ino &&
		    a.st_dev == b.st_dev)
			return TAKE_FD(fd);
	}
}

static char *dir_of(const char *base, const char *name)
{
	return path_join(base, name);
}

/* The lock is one on the cluster's folder itself: no file that a cleaner of old files takes away carries it, and
 * such cleaners (systemd-tmpfiles) leave a locked folder alone. */
static int open_dir(const char *dir)
{
	return open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* An agent holds it. Who only looks takes a shared lock for a moment, which does not disturb others who look; a
 * claim waits that moment out. Where nobody can tell, it counts as held: a living cluster must not be swept. */
static bool held(const char *dir)
{
	_cleanup_close_ int fd = open_dir(dir);
	if (fd < 0)
		return errno != ENOENT && errno != ENOTDIR && errno != ELOOP;
	if (lock_fd(fd, LOCK_SH | LOCK_NB) < 0)
		return true;
	/* An heir will take it over, or sweep it. */
	_cleanup_close_ int heir = openat(fd, HEIR, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return heir >= 0 && lock_fd(heir, LOCK_EX | LOCK_NB) < 0;
}

int rundir_heir(const char *base, const char *name)
{
	_cleanup_free_ char *path = xasprintf("%s/%s/%s", base, name, HEIR);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CREAT | O_NOFOLLOW, 0600); /* kept over exec */
	return fd >= 0 && lock_fd(fd, LOCK_SH) == 0 ? TAKE_FD(fd) : -1;
}

/* ---- sweeping; BASE is locked ---- */

struct vmm {
	int pid;
	uint64_t start;
};

/* The VMM of a VM's folder gets SIGKILL. False: it has none, or that is gone. */
static bool kill_vmm(const char *vm_dir, struct vmm *ret)
{
	_cleanup_free_ char *path = path_join(vm_dir, "pid"), *text = NULL;
	if (path_read(path, 128, &text, NULL, NULL) < 0 ||
	    sscanf(text, "%d %" SCNu64, &ret->pid, &ret->start) != 2)
		return false;
	proc_kill(ret->pid, ret->start);
	return proc_alive(ret->pid, ret->start);
}

/* All are killed before any is waited for: 1500 VMs that are slow to end take no longer than one. */
static void kill_vmms(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	_cleanup_free_ struct vmm *v = NULL;
	size_t n = 0;
	while (d && (e = readdir(d))) {
		if (strncmp(e->d_name, "vm", 2) != 0)
			continue;
		_cleanup_free_ char *vm = path_join(dir, e->d_name);
		v = xrealloc(v, (n + 1) * sizeof(*v));
		n += kill_vmm(vm, &v[n]);
	}
	if (d)
		closedir(d);
	for (uint64_t until = time_mono_ms() + KILL_WAIT_MS; n && time_mono_ms() < until;) {
		if (proc_alive(v[n - 1].pid, v[n - 1].start))
			nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
		else
			n--;
	}
}

void rundir_end_vm(const char *vm_dir)
{
	struct vmm v;
	uint64_t until = time_mono_ms() + KILL_WAIT_MS;
	if (kill_vmm(vm_dir, &v))
		while (proc_alive(v.pid, v.start) && time_mono_ms() < until)
			nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	path_remove(vm_dir, NULL);
}

void rundir_end_vms(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	kill_vmms(dir);
	while (d && (e = readdir(d))) {
		_cleanup_free_ char *vm = path_join(dir, e->d_name);
		if (strncmp(e->d_name, "vm", 2) == 0)
			path_remove(vm, NULL);
	}
	if (d)
		closedir(d);
}

/* The folder that the link of rundir_elsewhere() names, if it can be one of ours. */
static void remove_elsewhere(const char *dir)
{
	_cleanup_free_ char *link = path_join(dir, ELSEWHERE);
	char target[PATH_MAX];
	ssize_t n = readlink(link, target, sizeof(target) - 1);
	if (n <= 0)
		return;
	target[n] = '\0';
	const char *name = strrchr(target, '/');
	if (name && strncmp(name + 1, RUNDIR_ELSEWHERE, strlen(RUNDIR_ELSEWHERE)) == 0 && is_ours(target))
		path_remove(target, NULL);
}

static void sweep_locked(const char *dir)
{
	kill_vmms(dir);
	remove_elsewhere(dir);
	path_remove(dir, NULL);
}

int rundir_elsewhere(const char *dir, const char *parent, char **ret, struct err *err)
{
	uint64_t number;
	_cleanup_free_ char *link = path_join(dir, ELSEWHERE);
	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		return err_errno(err, errno, "random bytes for the name of a folder");
	_cleanup_free_ char *path = xasprintf("%s/%s%016" PRIx64, parent, RUNDIR_ELSEWHERE, number);
	unlink(link);
	/* The link first: whoever is killed between the two leaves nothing that is not known. */
	if (symlink(path, link) < 0)
		return err_errno(err, errno, "%s", link);
	if (mkdir(path, 0700) < 0)
		return err_errno(err, errno, "%s", path);
	*ret = TAKE_PTR(path);
	return 0;
}

void rundir_sweep(const char *base, const char *name)
{
	_cleanup_close_ int lock = lock_base(base, false, NULL);
	_cleanup_free_ char *dir = dir_of(base, name);
	if (lock < 0)
		return;
	if (!held(dir))
		sweep_locked(dir);
	rmdir(base);
}

bool rundir_owns(const char *dir, int lock)
{
	struct stat a, b;
	return fstat(lock, &a) == 0 && lstat(dir, &b) == 0 && a.st_ino == b.st_ino &&
	       a.st_dev == b.st_dev;
}

void rundir_leave(const char *base, const char *name, int lock)
{
	_cleanup_close_ int base_lock = lock_base(base, false, NULL);
	_cleanup_free_ char *dir = dir_of(base, name);
	if (rundir_owns(dir, lock)) /* else it was removed under us, and may be another's by now */
		path_remove(dir, NULL);
	if (base_lock >= 0)
		rmdir(base);
}

int rundir_claim(const char *base, const char *name, char **ret_dir, int *ret_lock, struct err *err)
{
	if (own_name_check(name, err) < 0)
		return -1;
	_cleanup_close_ int lock = lock_base(base, true, err);
	if (lock < 0)
		return -1;
	_cleanup_free_ char *dir = dir_of(base, name);
	if (path_exists(dir)) {
		if (held(dir))
			return err_set(err, EEXIST, "cluster '%s' runs already (see 'vse ps %s'; 'vse down %s' ends it)",
				       name, name, name);
		sweep_locked(dir);
	}
	if (mkdir(dir, 0700) < 0)
		return err_errno(err, errno, "run directory %s", dir);
	_cleanup_close_ int fd = open_dir(dir);
	if (fd < 0 || lock_fd(fd, LOCK_EX) < 0) {
		err_errno(err, errno, "run directory %s: lock", dir);
		rmdir(dir);
		return -1;
	}
	*ret_dir = TAKE_PTR(dir);
	*ret_lock = TAKE_FD(fd);
	return 0;
}

int rundir_reclaim(const char *base, const char *name, char **ret_dir, int *ret_lock, struct err *err)
{
	_cleanup_close_ int lock = lock_base(base, false, err);
	_cleanup_free_ char *dir = dir_of(base, name);
	if (lock < 0 || own_name_check(name, err) < 0)
		return -1;
	_cleanup_close_ int fd = open_dir(dir);
	if (fd < 0)
		return err_errno(err, errno, "run directory %s", dir);
	if (lock_fd(fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(err, EEXIST, "cluster '%s' runs already", name);
	*ret_dir = TAKE_PTR(dir);
	*ret_lock = TAKE_FD(fd);
	return 0;
}

bool rundir_alive(const char *base, const char *name)
{
	_cleanup_free_ char *dir = dir_of(base, name);
	return held(dir);
}

/* A command that was killed between making BASE and what belongs into it leaves it empty. */
static void remove_empty(const char *base)
{
	_cleanup_close_ int lock = lock_base(base, false, NULL);
	if (lock >= 0)
		rmdir(base);
}

/* The names in BASE that this host may sweep, sorted. */
static int read_names(const char *base, struct strvec *names, struct err *err)
{
	DIR *d = opendir(base);
	struct dirent *e;
	if (!d)
		return errno == ENOENT ? 0 : err_errno(err, errno, "run directory %s", base);
	while ((e = readdir(d)))
		if (own_name_check(e->d_name, NULL) == 0)
			strvec_add(names, e->d_name);
	closedir(d);
	strvec_sort(names);
	return 0;
}

int rundir_list(const char *base, struct strvec *names, struct err *err)
{
	bool any = false;
	_cleanup_strvec_ struct strvec all = STRVEC_INIT;
	if (read_names(base, &all, err) < 0)
		return -1;
	for (size_t i = 0; i < all.n; i++) {
		bool alive = rundir_alive(base, all.v[i]);
		any |= alive;
		if (alive && cluster_name_check(all.v[i], NULL) == 0)
			strvec_add(names, all.v[i]);
		else if (!alive)
			rundir_sweep(base, all.v[i]);
	}
	if (!any)
		remove_empty(base);
	return 0;
}

void rundir_sweep_node(const char *base)
{
	_cleanup_strvec_ struct strvec all = STRVEC_INIT;
	if (read_names(base, &all, NULL) < 0)
		return;
	for (size_t i = 0; i < all.n; i++)
		if (strchr(all.v[i], '@') && !rundir_alive(base, all.v[i]))
			rundir_sweep(base, all.v[i]);
}
