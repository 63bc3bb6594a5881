/* SPDX-License-Identifier: Apache-2.0 */
/* Archives: trees come back the same; nothing hostile gets out of the target folder. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/path.h"
#include "tap.h"
#include "wire/archive.h"

static char top[] = "/tmp/vse-test-archive.XXXXXX";

static char *at(const char *rel)
{
	static char ring[8][512];
	static unsigned turn;
	char *p = ring[turn++ % 8];
	snprintf(p, sizeof(ring[0]), "%s/%s", top, rel);
	return p;
}

static void put(const char *rel, const void *data, size_t n, mode_t mode)
{
	int fd = open(at(rel), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || fd_write_all(fd, data, n) < 0 || fchmod(fd, mode) < 0)
		perror(rel);
	close(fd);
}

static char *get(const char *rel, size_t *ret_len)
{
	char *data = NULL;
	size_t n = 0;
	if (path_read(at(rel), 1 << 26, &data, &n, NULL) < 0)
		return NULL;
	if (ret_len)
		*ret_len = n;
	return data;
}

/* The archive of one path, read `step` bytes at a time. */
static int pack(const char *rel, struct buf *out, size_t step, struct err *err)
{
	struct archive_writer *w;
	char *paths[] = {at(rel)}, *block = xmalloc(step);
	ssize_t n = -1;
	if (archive_writer_create(paths, 1, &w, err) == 0) {
		while ((n = archive_writer_read(w, block, step, err)) > 0)
			buf_add(out, block, (size_t)n);
		archive_writer_destroy(w);
	}
	free(block);
	return (int)n;
}

static int unpack(const char *rel, const char *name, const void *data, size_t n, size_t step,
		  struct err *err)
{
	_cleanup_close_ int fd = open(at(rel), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct archive_reader *r;
	if (archive_reader_create(fd, name, &r, err) < 0)
		return -1;
	int code = 0;
	for (size_t i = 0; i < n && code == 0; i += step)
		code = archive_reader_feed(r, (const char *)data + i, MIN(step, n - i), err);
	if (code == 0)
		code = archive_reader_finish(r, err);
	archive_reader_destroy(r);
	return code;
}

static size_t entries(const char *rel)
{
	size_t n = 0;
	char cmd[600];
	snprintf(cmd, sizeof(cmd), "find %s -mindepth 1 | wc -l", at(rel));
	FILE *f = popen(cmd, "r");
	if (!f || fscanf(f, "%zu", &n) != 1)
		n = 9999;
	if (f)
		pclose(f);
	return n;
}

static char *big; /* 300,000 bytes without a pattern that repeats in a chunk */
#define BIG 300000

static void make_tree(void)
{
	big = xmalloc(BIG);
	unsigned x = 1;
	for (size_t i = 0; i < BIG; i++) {
		x = x * 1103515245 + 12345;
		big[i] = (char)(x >> 16);
	}
	mkdir(at("src"), 0755);
	mkdir(at("src/sub"), 0750);
	mkdir(at("src/sub/empty"), 0700);
	put("src/big", big, BIG, 0644);
	put("src/none", "", 0, 0600);
	put("src/sub/tool", "#!/bin/sh\n", 10, 0755);
	put("src/sub/name with \n newline", "x", 1, 0444);
	if (symlink("../../etc/passwd", at("src/link")) < 0 ||
	    symlink("nowhere", at("src/sub/dangling")) < 0)
		perror("symlink");
	struct timespec t[2] = {{.tv_sec = 1}, {.tv_sec = 1000000001, .tv_nsec = 123456789}};
	utimensat(AT_FDCWD, at("src/big"), t, 0);
	utimensat(AT_FDCWD, at("src/sub"), t, 0);
}

static void same_tree(const char *rel, size_t step_out, size_t step_in)
{
	_cleanup_buf_ struct buf a = BUF_INIT;
	struct err err = ERR_INIT;
	char cmd[1200], link[64] = "";
	mkdir(at(rel), 0755);
	is_int(pack("src", &a, step_out, &err), 0, "a tree is packed %zu bytes at a time", step_out);
	is_int(unpack(rel, NULL, buf_head(&a), buf_len(&a), step_in, &err), 0,
	       "and unpacked %zu bytes at a time: %s", step_in, err.text);
	snprintf(cmd, sizeof(cmd), "diff -r --no-dereference %s %s/src", at("src"), at(rel));
	is_int(system(cmd), 0, "names and contents are the same");
	char sub[64];
	struct stat st;
	snprintf(sub, sizeof(sub), "%s/src/big", rel);
	ok(stat(at(sub), &st) == 0 && st.st_mtim.tv_sec == 1000000001 &&
		   st.st_mtim.tv_nsec == 123456789 && (st.st_mode & 07777) == 0644,
	   "a file keeps mode and time");
	snprintf(sub, sizeof(sub), "%s/src/sub", rel);
	ok(stat(at(sub), &st) == 0 && st.st_mtim.tv_sec == 1000000001 && (st.st_mode & 07777) == 0750,
	   "a folder keeps mode and time");
	snprintf(sub, sizeof(sub), "%s/src/link", rel);
	ok(readlink(at(sub), link, sizeof(link) - 1) == 16 && strcmp(link, "../../etc/passwd") == 0,
	   "a link stays a link");
}

static void names_and_targets(void)
{
	_cleanup_buf_ struct buf a = BUF_INIT;
	struct err err = ERR_INIT;
	mkdir(at("n"), 0755);
	pack("src/none", &a, 4096, &err);
	is_int(unpack("n", "other", buf_head(&a), buf_len(&a), 4096, &err), 0,
	       "one file under another name");
	ok(path_exists(at("n/other")) && entries("n") == 1, "it is there, and nothing else");
	ok(unpack("n", "../x", buf_head(&a), buf_len(&a), 4096, &err) < 0 && err.code == EINVAL,
	   "a new name with a slash is refused");
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *name = NULL;
	ok(archive_target(at("n"), false, &fd, &name, &err) == 0 && !name,
	   "an existing folder is gone into");
	close(TAKE_FD(fd));
	ok(archive_target(at("n/new"), false, &fd, &name, &err) == 0 && name && strcmp(name, "new") == 0,
	   "another path is a new name");
	char *none;
	int nofd;
	ok(archive_target(at("n/new"), true, &nofd, &none, &err) < 0 && err.code == ENOENT,
	   "unless it must be a folder");
	ok(archive_target(at("no/such"), false, &nofd, &none, &err) < 0 && err.code == ENOENT,
	   "its folder must exist");
	char *paths[] = {at("src/missing")};
	struct archive_writer *w;
	ok(archive_writer_create(paths, 1, &w, &err) < 0 && err.code == ENOENT &&
		   strstr(err.text, "missing"),
	   "a source that is not there is named");
	char *two[] = {at("src/none"), at("src/sub")};
	ok(archive_writer_create(two, 2, &w, &err) == 0, "two sources in one archive");
	buf_clear(&a);
	char block[4096];
	for (ssize_t k; (k = archive_writer_read(w, block, sizeof(block), &err)) > 0;)
		buf_add(&a, block, (size_t)k);
	is_int(archive_writer_count(w).files, 3, "the files are counted");
	archive_writer_destroy(w);
	ok(unpack("n", "one", buf_head(&a), buf_len(&a), 4096, &err) < 0 && err.code == EINVAL,
	   "two entries cannot get one name");
	is_int(unpack("n", NULL, buf_head(&a), buf_len(&a), 4096, &err), 0, "but go into a folder");
}

static void files_are_replaced_whole(void)
{
	_cleanup_buf_ struct buf a = BUF_INIT;
	struct err err = ERR_INIT;
	mkdir(at("r"), 0755);
	put("r/big", "old", 3, 0644);
	pack("src/big", &a, 65536, &err);
	ok(unpack("r", NULL, buf_head(&a), buf_len(&a) / 2, 1000, &err) < 0 && err.code == EBADMSG,
	   "half an archive fails");
	size_t n;
	_cleanup_free_ char *old = get("r/big", &n);
	ok(old && n == 3 && entries("r") == 1, "the old file is still there, and no temporary one");
	put("outside", "safe", 4, 0644);
	unlink(at("r/big"));
	if (symlink("../outside", at("r/big")) < 0)
		perror("symlink");
	is_int(unpack("r", NULL, buf_head(&a), buf_len(&a), 1000, &err), 0,
	       "a link in the way of a file");
	struct stat st;
	_cleanup_free_ char *safe = get("outside", NULL);
	ok(lstat(at("r/big"), &st) == 0 && S_ISREG(st.st_mode) && safe && strcmp(safe, "safe") == 0,
	   "is replaced, not written through");
	mkdir(at("r2"), 0755);
	mkdir(at("r2/big"), 0755);
	ok(unpack("r2", NULL, buf_head(&a), buf_len(&a), 1000, &err) < 0 && strstr(err.text, "big"),
	   "a folder in the way of a file is an error: %s", err.text);
	is_int(entries("r2"), 1, "and leaves nothing behind");
}

/* A hand-made archive. */
static void head(struct buf *b, int kind, const char *name, const char *target)
{
	unsigned char h[20] = {(unsigned char)kind,
			       (unsigned char)strlen(name),
			       0,
			       (unsigned char)strlen(target),
			       0,
			       0,
			       1,
			       0xed};
	buf_add(b, h, sizeof(h));
	buf_adds(b, name);
	buf_adds(b, target);
}

static void hostile(void)
{
	static const struct {
		const char *what;
		struct {
			int kind;
			const char *name, *target;
		} e[4];
	} bad[] = {
		{"a name of ..", {{1, "..", ""}}},
		{"a name of .", {{2, ".", ""}}},
		{"a path that goes up", {{1, "../x", ""}}},
		{"an absolute path", {{1, "/tmp/x", ""}}},
		{"a path with a slash", {{2, "a/b", ""}}},
		{"a link, then a folder through it", {{3, "l", ".."}, {2, "l", ""}, {1, "evil", ""}}},
		{"an absolute link, then a folder", {{3, "l", "/tmp"}, {2, "l", ""}, {1, "evil", ""}}},
		{"leaving the target", {{4, "", ""}, {1, "evil", ""}}},
		{"leaving twice", {{2, "d", ""}, {4, "", ""}, {4, "", ""}, {1, "evil", ""}}},
		{"a file without a name", {{1, "", ""}}},
		{"a file with a link target", {{1, "f", "x"}}},
		{"a link without a target", {{3, "f", ""}}},
		{"an unknown kind", {{9, "f", ""}}},
		{"kind 0", {{0, "f", ""}}},
		{"an end inside a folder", {{2, "d", ""}, {5, "", ""}}},
	};
	mkdir(at("jail"), 0755);
	mkdir(at("jail/in"), 0755);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		struct err err = ERR_INIT;
		buf_add(&b, ARCHIVE_MAGIC, 8);
		for (size_t k = 0; k < 4 && bad[i].e[k].name; k++)
			head(&b, bad[i].e[k].kind, bad[i].e[k].name, bad[i].e[k].target);
		ok(unpack("jail/in", NULL, buf_head(&b), buf_len(&b), 7, &err) < 0 && err.code,
		   "%s is refused: %s", bad[i].what, err.text);
	}
	path_remove(at("jail/in"), NULL);
	is_int(entries("jail"), 0, "nothing came out of the folder");
}

/* As unpack(), by who asked for `expected` alone. */
static int unpack_only(const char *rel, const char *name, const char *expected, const struct buf *a,
		       struct err *err)
{
	_cleanup_close_ int fd = open(at(rel), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct archive_reader *r;
	if (archive_reader_create(fd, name, &r, err) < 0)
		return -1;
	archive_reader_expect(r, expected);
	int code = archive_reader_feed(r, buf_head(a), buf_len(a), err);
	if (code == 0)
		code = archive_reader_finish(r, err);
	archive_reader_destroy(r);
	return code;
}

/* Who is asked for one file must not get to write another. */
static void expected_entry(void)
{
	_cleanup_buf_ struct buf a = BUF_INIT, two = BUF_INIT;
	struct err err = ERR_INIT;
	mkdir(at("e"), 0755);
	pack("src/sub", &a, 4096, &err);
	ok(unpack_only("e", NULL, "other", &a, &err) < 0 && strstr(err.text, "'other'"),
	   "another name is refused: %s", err.text);
	ok(unpack_only("e", "as", "other", &a, &err) < 0, "even under a name of our own");
	is_int(entries("e"), 0, "and nothing is written");
	char *paths[] = {at("src/sub/tool"), at("src/none")}, block[4096];
	struct archive_writer *w;
	archive_writer_create(paths, 2, &w, &err);
	for (ssize_t k; (k = archive_writer_read(w, block, sizeof(block), &err)) > 0;)
		buf_add(&two, block, (size_t)k);
	archive_writer_destroy(w);
	ok(unpack_only("e", NULL, "tool", &two, &err) < 0, "a second entry is refused: %s", err.text);
	is_int(entries("e"), 1, "and is not written");
	_cleanup_buf_ struct buf link = BUF_INIT, none = BUF_INIT;
	buf_add(&link, ARCHIVE_MAGIC, 8);
	buf_add(&none, ARCHIVE_MAGIC, 8);
	head(&link, 3, "l", "/etc/passwd");
	head(&none, 5, "", "");
	ok(unpack_only("e", NULL, "l", &link, &err) < 0, "a link is refused: %s", err.text);
	ok(unpack_only("e", NULL, "l", &none, &err) < 0, "so is nothing: %s", err.text);
	is_int(entries("e"), 1, "neither is written");
	is_int(unpack_only("e", NULL, "sub", &a, &err), 0, "what was asked for is taken");
	is_int(unpack_only("e", "as", "sub", &a, &err), 0, "under another name, too");
	ok(path_exists(at("e/sub/tool")) && path_exists(at("e/as/tool")), "and is there");
}

static void deep(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct err err = ERR_INIT;
	buf_add(&b, ARCHIVE_MAGIC, 8);
	for (int i = 0; i < ARCHIVE_DEPTH + 1; i++)
		head(&b, 2, "d", "");
	mkdir(at("deep"), 0755);
	ok(unpack("deep", NULL, buf_head(&b), buf_len(&b), 4096, &err) < 0 && err.code == ENAMETOOLONG,
	   "folders too deep are refused");
}

/* Every bit of a small archive matters, and so does its length. */
static void damage(void)
{
	_cleanup_buf_ struct buf a = BUF_INIT;
	struct err err = ERR_INIT;
	pack("src/sub", &a, 4096, &err);
	size_t n = buf_len(&a), accepted = 0, cut = 0;
	mkdir(at("flip"), 0755);
	for (size_t i = 0; i < n; i++) {
		buf_head(&a)[i] ^= (char)(1 << i % 8);
		if (unpack("flip", NULL, buf_head(&a), n, n, &err) == 0) {
			accepted++;
			printf("# bit %zu of byte %zu was not missed\n", i % 8, i);
		}
		buf_head(&a)[i] ^= (char)(1 << i % 8);
		cut += unpack("flip", NULL, buf_head(&a), i, n, &err) == 0;
		path_remove(at("flip"), NULL);
		mkdir(at("flip"), 0755);
	}
	is_int(accepted, 0, "no flipped bit of %zu bytes goes unseen", n);
	is_int(cut, 0, "no cut end goes unseen");
	buf_addc(&a, 0);
	ok(unpack("flip", NULL, buf_head(&a), n + 1, n, &err) < 0, "nor does a byte too many");
}

static void changing_sources(void)
{
	struct archive_writer *w;
	struct err err = ERR_INIT;
	char block[1000], *paths[] = {at("moving")};
	put("moving", big, BIG, 0644);
	ssize_t n = archive_writer_create(paths, 1, &w, &err);
	n = n < 0 ? n : archive_writer_read(w, block, sizeof(block), &err);
	if (truncate(at("moving"), 100) < 0)
		perror("truncate");
	while (n > 0)
		n = archive_writer_read(w, block, sizeof(block), &err);
	ok(n < 0 && err.code == ESTALE, "a file that shrinks is an error: %s", err.text);
	archive_writer_destroy(w);

	_cleanup_buf_ struct buf a = BUF_INIT;
	mkdir(at("special"), 0755);
	if (mkfifo(at("special/fifo"), 0600) < 0)
		perror("mkfifo");
	put("special/f", "x", 1, 0644);
	is_int(pack("special", &a, 4096, &err), 0, "a pipe in a tree does not stop the copy");
	char *fifo[] = {at("special/fifo")};
	ok(archive_writer_create(fifo, 1, &w, &err) < 0 && err.code == ENOTSUP,
	   "a pipe itself cannot be copied");
	buf_clear(&a);
	char *version[] = {(char *)"/proc/self/status"};
	n = archive_writer_create(version, 1, &w, &err);
	while (n >= 0 && (n = archive_writer_read(w, block, sizeof(block), &err)) > 0)
		buf_add(&a, block, (size_t)n);
	ok(n == 0 && archive_writer_count(w).bytes > 100,
	   "a file of /proc has its content though its size is 0");
	archive_writer_destroy(w);
}

/* A limit on the size of files stands for a full disk: write(2) fails in the middle. */
static void full_disk(void)
{
	_cleanup_buf_ struct buf a = BUF_INIT;
	struct err err = ERR_INIT;
	struct rlimit was, little;
	pack("src/big", &a, 65536, &err);
	mkdir(at("full"), 0755);
	getrlimit(RLIMIT_FSIZE, &was);
	little = (struct rlimit){.rlim_cur = 100000, .rlim_max = was.rlim_max};
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &little);
	int code = unpack("full", NULL, buf_head(&a), buf_len(&a), 65536, &err);
	setrlimit(RLIMIT_FSIZE, &was);
	ok(code < 0 && err.code == EFBIG && strstr(err.text, "big"),
	   "no room: the error names the file: %s", err.text);
	is_int(entries("full"), 0, "and no part of it stays");
}

int main(void)
{
	umask(022);
	if (!mkdtemp(top))
		return 1;
	make_tree();
	same_tree("a", 1 << 20, 1 << 20);
	same_tree("b", 1, 4096);
	same_tree("c", 4096, 1);
	names_and_targets();
	files_are_replaced_whole();
	hostile();
	expected_entry();
	deep();
	damage();
	changing_sources();
	full_disk();
	free(big);
	path_remove(top, NULL);
	return done();
}
