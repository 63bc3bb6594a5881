/* SPDX-License-Identifier: Apache-2.0 */
/* A container needs the root image as a folder. It is unpacked once by unsquashfs(1), into a folder of this user on
 * this node, and serves all containers read-only: one copy in the page cache, no process that could die, nothing mounted
 * on the node. KEY.lock is held for as long as a tree is in use; one that nobody used for a week makes room. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/path.h"
#include "hypervisor/container.h"

#define PROGRAM_MAX (64u << 20)
#define HEAD 110 /* bytes of a record's head */
#define TRIES 3

/* ---- vse-guest ---- */

/* Field i of a "newc" head: 8 hexadecimal digits (the kernel's Documentation/driver-api/early-userspace/
 * buffer-format.rst). */
static uint32_t field(const char *head, int i)
{
	char digits[9];
	memcpy(digits, head + 6 + 8 * i, 8);
	digits[8] = '\0';
	return (uint32_t)strtoul(digits, NULL, 16);
}

static off_t padded(off_t n)
{
	return (n + 3) & ~(off_t)3;
}

/* Where the file /init lies in the archive. */
static int find_init(int fd, off_t *ret_at, uint32_t *ret_len)
{
	off_t at = 0;
	char head[HEAD + 1], name[8];
	while (pread(fd, head, HEAD, at) == HEAD && memcmp(head, "070701", 6) == 0) {
		uint32_t len = field(head, 6), name_len = field(head, 11);
		off_t data = padded(at + HEAD + name_len);
		memset(name, 0, sizeof(name));
		if (name_len <= sizeof(name) &&
		    pread(fd, name, name_len, at + HEAD) == (ssize_t)name_len &&
		    (memcmp(name, "init", 5) == 0 || memcmp(name, "./init", 7) == 0)) {
			*ret_at = data;
			*ret_len = len;
			return 0;
		}
		at = padded(data + len);
	}
	return -1;
}

static int copy_out(int from, off_t at, size_t len, int to)
{
	char block[65536];
	while (len) {
		ssize_t n = pread(from, block, MIN(len, sizeof(block)), at);
		if (n == 0)
			errno = ENODATA;
		if (n <= 0 || fd_write_all(to, block, (size_t)n) < 0)
			return -1;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

int container_program(const char *initrd, int *ret_fd, struct err *err)
{
	off_t at;
	uint32_t len;
	_cleanup_close_ int from = open(initrd, O_RDONLY | O_CLOEXEC);
	if (from < 0)
		return err_errno(err, errno, "initramfs %s", initrd);
	if (find_init(from, &at, &len) < 0 || len > PROGRAM_MAX)
		return err_set(err, EINVAL, "initramfs %s: no /init in it", initrd);
	_cleanup_close_ int fd = memfd_create("vse-guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	/* Sealed: it is also what runs inside, and nobody in there may change it for the others. */
	if (fd < 0 || copy_out(from, at, len, fd) < 0 || fchmod(fd, 0555) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
		return err_errno(err, errno, "initramfs %s: take /init out", initrd);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* ---- the tree ---- */

struct rootdir {
	struct loop *loop;
	const struct container_ids *ids; /* borrowed */
	char *dir, *key, *root, *lock_name;
	int image, lock, program;
	unsigned tries;
	struct unpacking *unpacking; /* it waits for that */
	struct rootdir *next;        /* that waits for the same */
	struct evtimer *timer;       /* to look again, or to tell */
	struct err failure;
	void (*done)(void *arg, const char *root, const struct err *err);
	void *arg;
};

/* One is under way for each tree: as root each may begin with a copy of the image (guest/guard.c). It is nobody's in
 * particular: who has begun it may go. */
struct unpacking {
	struct loop *loop;
	char *root;
	struct cage *cage;
	struct rootdir *waiting;
	struct unpacking *next;
};
static struct unpacking *under_way;

static char *roots_dir(void)
{
	const char *asked = getenv("VSE_ROOTS");
	if (asked && asked[0] == '/')
		return xstrdup(asked);
	return xasprintf("/var/tmp/vse-roots-%u", (unsigned)geteuid());
}

/* A folder of that name which somebody else made first is refused. */
static int make_dir(const char *dir, const struct container_ids *ids, struct err *err)
{
	struct stat st;
	if (mkdir(dir, 0700) == 0) {
		if (ids->privileged && chown(dir, ids->uid, ids->gid) < 0)
			return err_errno(err, errno, "%s", dir);
	} else if (errno != EEXIST) {
		return err_errno(err, errno, "%s: set VSE_ROOTS to a folder on a local disk", dir);
	}
	if (lstat(dir, &st) < 0)
		return err_errno(err, errno, "%s", dir);
	if (!S_ISDIR(st.st_mode) || st.st_uid != ids->uid || (st.st_mode & 0077))
		return err_set(err, EPERM,
			       "%s: not a folder of mode 0700 of uid %u: set VSE_ROOTS to another",
			       dir, (unsigned)ids->uid);
	return 0;
}

/* Letters and digits alone. */
static void plain(char *text, char other)
{
	char *to = text;
	for (const char *c = text; *c; c++)
		if (isalnum((unsigned char)*c) || other)
			*to++ = isalnum((unsigned char)*c) ? *c : other;
	*to = '\0';
}

/* Which file it is, without reading it: a file in a store never changes, it is replaced. And of which boot the tree is: a
 * power cut leaves files empty that were not on the disk yet, and to wait for a busy disk may take minutes. */
static int make_key(int image, char **ret, struct err *err)
{
	struct stat st;
	char host[256] = "";
	_cleanup_free_ char *boot = NULL;
	if (fstat(image, &st) < 0)
		return err_errno(err, errno, "root image");
	if (path_read("/proc/sys/kernel/random/boot_id", 256, &boot, NULL, err) < 0)
		return -1;
	gethostname(host, sizeof(host) - 1);
	plain(host, '_');
	plain(boot, '\0');
	*ret = xasprintf("%.64s-%.32s-%" PRIx64 "-%" PRIx64 "-%" PRIx64 "-%" PRIx64 "-%" PRIx64
			 "-%" PRIx64 "-%" PRIx64,
			 host, boot, (uint64_t)st.st_dev, (uint64_t)st.st_ino, (uint64_t)st.st_size,
			 (uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec,
			 (uint64_t)st.st_ctim.tv_sec, (uint64_t)st.st_ctim.tv_nsec);
	return 0;
}

/* A shared lock on what is there: 0 held, 1 nothing to hold yet. */
static int try_hold(struct rootdir *r)
{
	struct stat a, b;
	_cleanup_close_ int fd = open(r->lock_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || flock(fd, LOCK_SH | LOCK_NB) < 0)
		return 1; /* somebody unpacks: to be waited for elsewhere */
	if (fstat(fd, &a) < 0 || stat(r->lock_name, &b) < 0 || a.st_ino != b.st_ino ||
	    !path_exists(r->root))
		return 1;
	futimens(fd, NULL); /* used now */
	r->lock = TAKE_FD(fd);
	return 0;
}

static void drop_unpacking(struct unpacking *u)
{
	struct unpacking **at = &under_way;
	while (*at && *at != u)
		at = &(*at)->next;
	if (*at)
		*at = u->next;
	cage_destroy(u->cage);
	free(u->root);
	free(u);
}

static void on_unpacked(void *arg, int status)
{
	struct unpacking *u = arg;
	struct err err = ERR_INIT;
	char words[300], how[40];
	if (status != 0)
		err_set(&err, EIO, "unpack the root image: %s (%s)",
			cage_words(u->cage, words, sizeof(words)), child_status_text(status, how));
	for (struct rootdir *r = u->waiting, *next; r; r = next) {
		next = r->next;
		r->unpacking = NULL;
		r->failure = err;
		evtimer_start(r->timer, 0, 0);
	}
	drop_unpacking(u);
}

static int start_cage(struct unpacking *u, struct rootdir *r, struct err *err)
{
	static const struct cage_ops ops = {.on_end = on_unpacked};
	_cleanup_strvec_ struct strvec args = STRVEC_INIT;
	struct cage_spec spec = {.ids = r->ids,
				 .args = &args,
				 .copy_dir = r->dir,
				 .fds = {-1, -1, -1, -1, -1, -1, -1, -1}};
	strvec_addv(&args, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--bind",
		    r->dir, r->dir, "--setenv", "PATH",
		    "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "--", NULL);
	strvec_addf(&args, "/proc/self/fd/%d", CONTAINER_FD_PROGRAM);
	strvec_addv(&args, "--unpack", r->dir, r->key, NULL);
	spec.fds[UNPACK_FD_IMAGE] = r->image;
	spec.fds[CONTAINER_FD_PROGRAM] = r->program;
	u->cage = cage_start(r->loop, &spec, &ops, u, err);
	return u->cage ? 0 : -1;
}

/* Waits for the one that is under way, or begins it. */
static int await_unpacking(struct rootdir *r, struct err *err)
{
	struct unpacking *u = under_way;
	while (u && (u->loop != r->loop || strcmp(u->root, r->root) != 0))
		u = u->next;
	if (!u) {
		u = xcalloc(1, sizeof(*u));
		*u = (struct unpacking){.loop = r->loop, .root = xstrdup(r->root), .next = under_way};
		under_way = u;
		if (start_cage(u, r, err) < 0) {
			drop_unpacking(u);
			return -1;
		}
	}
	r->unpacking = u;
	r->next = u->waiting;
	u->waiting = r;
	return 0;
}

/* The last one that goes ends it. */
static void stop_waiting(struct rootdir *r)
{
	struct unpacking *u = r->unpacking;
	struct rootdir **at = &u->waiting;
	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	if (!u->waiting)
		drop_unpacking(u);
}

static void on_look(void *arg)
{
	struct rootdir *r = arg;
	struct err err = r->failure;
	if (!err.code && r->lock < 0 && try_hold(r) != 0) {
		if (++r->tries >= TRIES)
			err_set(&err, EAGAIN, "%s: made, and gone again", r->root);
		else if (await_unpacking(r, &err) == 0)
			return;
	}
	r->done(r->arg, err.code ? NULL : r->root, &err);
}

struct rootdir *rootdir_open(struct loop *l, const struct container_ids *ids, const char *image,
			     int program,
			     void (*done)(void *arg, const char *root, const struct err *err),
			     void *arg, struct err *err)
{
	struct rootdir *r = xcalloc(1, sizeof(*r));
	*r = (struct rootdir){
		.loop = l, .ids = ids, .lock = -1, .program = program, .done = done, .arg = arg};
	r->timer = evtimer_create(l, on_look, r);
	r->dir = roots_dir();
	r->image = open(image, O_RDONLY | O_CLOEXEC);
	if (r->image < 0) {
		err_errno(err, errno, "root image %s", image);
		goto fail;
	}
	if (make_dir(r->dir, ids, err) < 0 || make_key(r->image, &r->key, err) < 0)
		goto fail;
	r->root = xasprintf("%s/%s/root", r->dir, r->key);
	r->lock_name = xasprintf("%s/%s.lock", r->dir, r->key);
	if (try_hold(r) == 0) {
		evtimer_start(r->timer, 0, 0);
		return r;
	}
	if (await_unpacking(r, err) == 0)
		return r;
fail:
	rootdir_destroy(r);
	return NULL;
}

void rootdir_destroy(struct rootdir *r)
{
	if (!r)
		return;
	if (r->unpacking)
		stop_waiting(r);
	evtimer_destroy(r->timer);
	if (r->image >= 0)
		close(r->image);
	if (r->lock >= 0)
		close(r->lock);
	free(r->dir);
	free(r->key);
	free(r->root);
	free(r->lock_name);
	free(r);
}
