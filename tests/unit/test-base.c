/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/rankset.h"
#include "base/size.h"
#include "base/strvec.h"
#include "base/time.h"
#include "tap.h"

static void test_err(void)
{
	struct err e = ERR_INIT;
	is_int(err_set(&e, ENOENT, "disk %s", "root"), -1, "err_set gives -1");
	err_prefix(&e, "node%d: ", 7);
	is_str(e.text, "node7: disk root", "prefix goes before");
	is_int(e.code, ENOENT, "prefix keeps the code");
	err_errno(&e, EACCES, "%s", e.text);
	is_str(e.text, "node7: disk root: Permission denied", "own text may be an argument");
	is_int(err_set(NULL, 1, "x"), -1, "no error object is fine");
	struct err shorter = ERR_INIT;
	size_t dirt = 0;
	err_set(&e, EIO, "%0500d", 1); /* leaves its text on the stack */
	err_set(&shorter, EIO, "x");
	for (size_t i = 1; i < sizeof(shorter.text); i++)
		dirt += shorter.text[i] != '\0';
	is_int(dirt, 0, "no bytes of the stack behind a text");
}

static void test_buf(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	for (int i = 0; i < 1000; i++)
		buf_addf(&b, "%03d", i);
	is_int(buf_len(&b), 3000, "length");
	buf_consume(&b, 2997);
	is_str(buf_cstr(&b), "999", "the tail is left");
	buf_adds(&b, "-more");
	_cleanup_free_ char *s = buf_take(&b);
	is_str(s, "999-more", "taken");
	is_int(buf_len(&b), 0, "empty after take");
}

static void test_rankset(void)
{
	_cleanup_rankset_ struct rankset s = RANKSET_INIT;
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct err e = ERR_INIT;
	is_int(rankset_parse(&s, "0-3,7,64-66", 100, &e), 0, "parse");
	rankset_del(&s, 65);
	rankset_format(&s, &b);
	is_str(buf_cstr(&b), "0-3,7,64,66", "format");
	is_int(rankset_count(&s), 7, "count");
	_cleanup_rankset_ struct rankset named = RANKSET_INIT;
	ok(rankset_parse(&named, "vm1,vm3-4", 10, &e) == 0 &&
		   rankset_parse(&named, "vm[6,8-9]", 10, &e) == 0 && rankset_count(&named) == 6,
	   "ranks as they are printed");
	is_int(rankset_next(&s, 8), 64, "next");
	is_int(rankset_next(&s, 67), UINT32_MAX, "no next");
	static const char *const bad[] = {"",     "a",    "1,",          ",1",  "3-1",    "1--2",
					  "-1",   "1 2",  "99999999999", "vm",  "vm[",    "vm[]",
					  "vm[1", "vm1]", "vm[1]x",      "[1]", "vm[vm1]"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ok(rankset_parse(&s, bad[i], 100, &e) < 0, "refused: '%s' (%s)", bad[i], e.text);
	ok(rankset_parse(&s, "100", 100, &e) < 0 && e.code == ERANGE,
	   "rank = size is out of range");
}

static void test_size(void)
{
	struct err e = ERR_INIT;
	uint64_t v;
	static const struct {
		const char *s;
		uint64_t want;
	} good[] = {
		{"0", 0},        {"512M", 512u << 20}, {"2GiB", 2ull << 30}, {"1.5g", 3ull << 29},
		{"4096B", 4096}, {"1 k", 1024}};
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		ok(size_parse(good[i].s, &v, &e) == 0 && v == good[i].want, "size %s", good[i].s);
	static const char *const bad[] = {"", "M", "-1", "1X", "1Mx", "1e9", "9999999999T", " 1"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ok(size_parse(bad[i], &v, &e) < 0, "size refused: '%s'", bad[i]);
	ok(duration_parse("1.5s", &v, &e) == 0 && v == 1500, "1.5s");
	ok(duration_parse("90", &v, &e) == 0 && v == 90000, "90 is seconds");
	ok(duration_parse("2h", &v, &e) == 0 && v == 7200000, "2h");
	ok(duration_parse("5 m", &v, &e) < 0, "blank refused");
	char t[24];
	size_format(3ull << 29, t);
	is_str(t, "1.5 GiB", "format size");
	duration_format(7870000, t);
	is_str(t, "2h11m", "format duration");
	int64_t n;
	ok(int_parse("12", 0, 20, &n, &e) == 0 && n == 12, "int");
	ok(int_parse("21", 0, 20, &n, &e) < 0 && int_parse("1x", 0, 20, &n, &e) < 0 &&
		   int_parse("+1", 0, 20, &n, &e) < 0,
	   "int refused");
}

/* What is not a file is refused at once; /proc and /sys, whose files have no size, are read. */
static void test_path_read(const char *dir)
{
	struct err e = ERR_INIT;
	_cleanup_free_ char *pipe = path_join(dir, "pipe"), *proc = NULL, *sys = NULL, *none = NULL;
	size_t len;
	ok(mkfifo(pipe, 0600) == 0 && path_read(pipe, 9, &none, NULL, &e) < 0 && e.code == EINVAL,
	   "a pipe that nobody writes: %s", e.text);
	ok(path_read("/dev/zero", 9, &none, NULL, &e) < 0 && path_read(dir, 9, &none, NULL, &e) < 0,
	   "a device, a folder");
	ok(path_read("/proc/self/status", 65536, &proc, &len, &e) == 0 && len > 100, "/proc %s", e.text);
	ok(path_read("/sys/kernel/mm/transparent_hugepage/enabled", 4096, &sys, &len, &e) == 0 ||
		   e.code == ENOENT,
	   "/sys %s", e.text);
	ok(path_read_any("/dev/null", 9, &none, &len, &e) == 0 && len == 0,
	   "a device, when asked for");
}

static void test_path(void)
{
	struct err e = ERR_INIT;
	char dir[] = "/tmp/vse-unit-XXXXXX";
	if (!ok(mkdtemp(dir) != NULL, "a folder"))
		return;
	_cleanup_free_ char *deep = path_join(dir, "/a/b/c");
	is_int(path_mkdirs(deep, 0755, &e), 0, "mkdirs");
	_cleanup_free_ char *file = path_join(deep, "f");
	is_int(path_write(file, "text", 4, 0600, &e), 0, "write");
	_cleanup_free_ char *data = NULL;
	size_t len;
	ok(path_read(file, 4, &data, &len, &e) == 0 && len == 4, "read, exactly the bound");
	ok(path_read(file, 3, &data, &len, &e) < 0 && e.code == EFBIG, "one over the bound");
	test_path_read(dir);
	ok(path_mkdirs(file, 0755, &e) < 0, "a file in the way: %s", e.text);
	_cleanup_free_ char *link = path_join(dir, "link");
	ok(symlink("/etc", link) == 0, "a link out of the tree");
	_cleanup_free_ char *locked = path_join(dir, "locked");
	ok(mkdir(locked, 0700) == 0, "locked folder");
	_cleanup_free_ char *inner = path_join(locked, "x");
	ok(path_write(inner, "", 0, 0600, &e) == 0 && chmod(locked, 0) == 0, "with a file in it");
	is_int(path_remove(dir, &e), 0, "remove %s", e.text);
	ok(!path_exists(dir) && path_exists("/etc"), "the tree is gone, /etc is not");
	_cleanup_free_ char *sh = path_find_program("sh");
	ok(sh && sh[0] == '/', "sh is found");
	_cleanup_free_ char *none = path_find_program("no-such-program-here");
	ok(!none, "what is not there is not found");
}

static void test_proc(void)
{
	uint64_t start = 0, rss = 0;
	struct err e = ERR_INIT;
	is_int(proc_start_time(getpid(), &start, &e), 0, "own start time");
	ok(proc_alive(getpid(), start), "alive");
	ok(!proc_alive(getpid(), start + 1), "another start time is another process");
	ok(proc_usage(getpid(), &rss, NULL, &e) == 0 && rss > 100000, "rss");
	ok(proc_start_time(0, &start, &e) < 0 && e.code == ESRCH, "pid 0");
}

static void test_strvec(void)
{
	_cleanup_strvec_ struct strvec v = STRVEC_INIT;
	ok(strvec_argv(&v)[0] == NULL, "empty argv ends at once");
	strvec_split(&v, " b  a ", " ");
	strvec_addf(&v, "%d", 1);
	strvec_sort(&v);
	is_int(v.n, 3, "three");
	is_str(v.v[0], "1", "sorted");
	ok(v.v[3] == NULL, "closed");
}

/* A terminal or pipe may be non-blocking by another program's doing. */
static void test_write_nonblocking(void)
{
	enum { TOTAL = 1 << 20 };
	_cleanup_free_ char *data = xcalloc(1, TOTAL);
	int p[2], status = -1;
	if (pipe2(p, O_CLOEXEC) < 0)
		return;
	fcntl(p[1], F_SETFL, O_NONBLOCK);
	pid_t child = fork();
	if (child == 0) {
		close(p[1]);
		_exit(fd_read_full(p[0], data, TOTAL) != TOTAL);
	}
	close(p[0]);
	signal(SIGPIPE, SIG_IGN);
	ok(fd_write_all(p[1], data, TOTAL) == 0, "a full pipe that does not block is waited for");
	close(p[1]);
	ok(waitpid(child, &status, 0) == child && status == 0, "and all of it comes out");
}

int main(void)
{
	test_err();
	test_buf();
	test_rankset();
	test_size();
	test_path();
	test_write_nonblocking();
	test_proc();
	test_strvec();
	return done();
}
