/* SPDX-License-Identifier: Apache-2.0 */
/* The files of saved VMs: what goes in comes out, and nothing else ever does. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "tap.h"
#include "vm/pack.h"
#include "vm/saved.h"

static char dir[64];

/* A file without a name. */
static int temp(void)
{
	char path[96];
	snprintf(path, sizeof(path), "%s/XXXXXX", dir);
	int fd = mkostemp(path, O_CLOEXEC);
	unlink(path);
	return fd;
}

static void fill(int fd, off_t at, size_t n, unsigned seed)
{
	_cleanup_free_ char *p = xmalloc(n);
	for (size_t i = 0; i < n; i++)
		p[i] = (char)((seed = seed * 1103515245 + 12345) >> 16);
	if (pwrite(fd, p, n, at) != (ssize_t)n)
		ok(false, "write: %s", strerror(errno));
}

static bool same(int a, int b)
{
	static char x[65536], y[65536];
	struct stat s, t;
	if (fstat(a, &s) < 0 || fstat(b, &t) < 0 || s.st_size != t.st_size)
		return false;
	for (off_t at = 0; at < s.st_size; at += (off_t)sizeof(x)) {
		ssize_t n = pread(a, x, sizeof(x), at);
		if (n <= 0 || pread(b, y, sizeof(y), at) != n || memcmp(x, y, (size_t)n) != 0)
			return false;
	}
	return true;
}

/* Packs `in`; gives the packed file, at its beginning. */
static int packed(enum pack_kind kind, int in)
{
	struct err e = ERR_INIT;
	int out = temp();
	lseek(in, 0, SEEK_SET);
	is_int(pack_write(kind, "save vm3", in, out, &e), 0, "packed %s", e.text);
	lseek(out, 0, SEEK_SET);
	return out;
}

static int unpack(enum pack_kind kind, const char *id, int in, int out, struct err *e)
{
	*e = ERR_INIT;
	lseek(in, 0, SEEK_SET);
	return pack_read(kind, id, in, out, e);
}

static void test_round_trip(enum pack_kind kind, const char *what, int in)
{
	struct err e;
	int file = packed(kind, in), out = temp();
	is_int(unpack(kind, "save vm3", file, out, &e), 0, "%s is unpacked %s", what, e.text);
	ok(same(in, out), "%s is the same", what);
	close(file);
	close(out);
	close(in);
}

static void test_round_trips(void)
{
	struct stat s;
	struct err e;
	int in = temp();
	test_round_trip(PACK_STREAM, "an empty stream", in);
	fill(in = temp(), 0, 1, 1);
	test_round_trip(PACK_STREAM, "a byte", in);
	fill(in = temp(), 0, 1 << 20, 2);
	test_round_trip(PACK_STREAM, "a whole piece", in);
	fill(in = temp(), 0, (5 << 20) + 17, 3);
	test_round_trip(PACK_STREAM, "a long stream", in);
	if (ftruncate(in = temp(), 0) == 0)
		test_round_trip(PACK_DISK, "an empty disk", in);
	if (ftruncate(in = temp(), 64 << 20) == 0)
		test_round_trip(PACK_DISK, "a disk that is one hole", in);
	fill(in = temp(), (16 << 20) + 4096, 3 << 20, 4);
	fill(in, 0, 100, 5);
	if (ftruncate(in, 64 << 20) < 0)
		ok(false, "ftruncate");
	int file = packed(PACK_DISK, in), out = temp();
	ok(fstat(file, &s) == 0 && s.st_size < 4 << 20, "holes take no room");
	is_int(unpack(PACK_DISK, "save vm3", file, out, &e), 0, "a disk with holes is unpacked %s",
	       e.text);
	ok(same(in, out) && fstat(out, &s) == 0 && s.st_blocks * 512 < 8 << 20, "with its holes");
	close(in);
	close(out);
	close(file);
}

/* Every damage of a small file is found, wherever it is, and every cut. */
static void test_damage(enum pack_kind kind, int in)
{
	struct stat s;
	struct err e;
	unsigned found = 0, cut = 0, all = 0;
	int file = packed(kind, in);
	if (fstat(file, &s) < 0)
		return;
	for (off_t at = 0; at < s.st_size; at++, all++) {
		char was, is;
		int out = temp();
		if (pread(file, &was, 1, at) != 1)
			break;
		is = (char)(was ^ (1 << (at % 8)));
		pwrite(file, &is, 1, at);
		found += unpack(kind, "save vm3", file, out, &e) < 0 || same(in, out);
		pwrite(file, &was, 1, at);
		close(out);
	}
	ok(all > 100 && found == all, "of %u changed bytes each is found, or harmless", all);
	for (off_t n = s.st_size - 1; n >= 0; n--) {
		int out = temp();
		if (ftruncate(file, n) == 0)
			cut += unpack(kind, "save vm3", file, out, &e) < 0 && e.code == EBADMSG;
		close(out);
	}
	is_int(cut, s.st_size, "and every cut");
	close(file);
	close(in);
}

static void test_wrong_file(void)
{
	struct err e;
	int in = temp(), out = temp();
	fill(in, 0, 1000, 6);
	int file = packed(PACK_STREAM, in);
	ok(unpack(PACK_STREAM, "save vm4", file, out, &e) < 0 && e.code == EBADMSG,
	   "another VM's: %s", e.text);
	ok(unpack(PACK_DISK, "save vm3", file, out, &e) < 0 && e.code == EBADMSG,
	   "a state is no disk: %s", e.text);
	ok(unpack(PACK_STREAM, "save vm3", in, out, &e) < 0 && e.code == EBADMSG,
	   "no packed file: %s", e.text);
	is_int(lseek(out, 0, SEEK_END), 0, "nothing comes out of any");
	char longest[PACK_ID_MAX + 1];
	memset(longest, 'x', PACK_ID_MAX);
	longest[PACK_ID_MAX] = '\0';
	ok(pack_write(PACK_STREAM, longest, in, out, &e) < 0 && e.code == EINVAL,
	   "too long a name");
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	lseek(in, 0, SEEK_SET);
	ok(full < 0 || (pack_write(PACK_STREAM, "x", in, full, &e) < 0 && e.code == ENOSPC),
	   "no room is told: %s", e.text);
	close(full);
	close(file);
	close(in);
	close(out);
}

static void test_note(void)
{
	static const char *const bad[] = {
		"",
		"{",
		"[]",
		"{}",
		"{\"version\": 2}",
		"{\"version\": 1, \"id\": 3, \"signature\": \"s\"}",
		"{\"version\": 1, \"id\": \"i\", \"signature\": \"s\", \"scratch\": -1}"};
	struct saved s;
	struct err e = ERR_INIT;
	_cleanup_free_ char *path = saved_path(dir, 7, "json");
	ok(saved_read(dir, 7, &s, &e) < 0 && e.code == ENOENT, "a VM that was not saved: %s", e.text);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		path_write(path, bad[i], strlen(bad[i]), 0600, &e);
		e = ERR_INIT;
		ok(saved_read(dir, 7, &s, &e) < 0 && e.code == EBADMSG, "not one: %s", bad[i]);
	}
	static const char good[] =
		"{\"version\": 1, \"id\": \"i\", \"signature\": \"s t\", \"scratch\": 9}";
	path_write(path, good, strlen(good), 0600, &e);
	is_int(saved_read(dir, 7, &s, &e), 0, "a note");
	ok(strcmp(s.id, "i") == 0 && strcmp(s.signature, "s t") == 0 && s.scratch == 9,
	   "with what it says");
	saved_finish(&s);
}

int main(void)
{
	snprintf(dir, sizeof(dir), "%.40s/vse-pack.XXXXXX", getenv("TMPDIR") ?: "/tmp");
	if (!mkdtemp(dir))
		return 1;
	test_round_trips();
	int in = temp();
	fill(in, 0, 300, 7);
	test_damage(PACK_STREAM, in);
	in = temp();
	fill(in, 8192, 300, 8);
	test_damage(PACK_DISK, in);
	test_wrong_file();
	test_note();
	path_remove(dir, NULL);
	return done();
}
