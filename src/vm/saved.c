/* SPDX-License-Identifier: Apache-2.0 */
#include "vm/saved.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "vm/packer.h"

#define NOTE_MAX 4096 /* bytes of vm3.json */

int saved_open(const char *path, struct err *err)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, errno, "%s", path);
	return S_ISREG(st.st_mode) ? TAKE_FD(fd) : err_set(err, EINVAL, "%s: not a regular file", path);
}

char *saved_path(const char *dir, uint32_t rank, const char *what)
{
	return xasprintf("%s/vm%u.%s", dir, rank, what);
}

char *saved_pack_id(const char *id, uint32_t rank)
{
	return xasprintf("%.40s vm%u", id, rank);
}

void saved_remove(const char *dir, uint32_t rank)
{
	static const char *const parts[] = {"json", "state", "disk"};
	_cleanup_free_ char *note = path_join(dir, "cluster.json");
	if (path_exists(note))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		_cleanup_free_ char *path = saved_path(dir, rank, parts[i]);
		unlink(path);
	}
	rmdir(dir);
}

/* ---- the note ---- */

static int bad(struct err *err, const char *path, const char *why)
{
	return err_set(err, EBADMSG, "%s: %s", path, why);
}

static int parse(const json_t *j, const char *path, struct saved *ret, struct err *err)
{
	const char *id = json_string_value(json_object_get(j, "id")),
		   *signature = json_string_value(json_object_get(j, "signature"));
	json_int_t scratch = json_integer_value(json_object_get(j, "scratch"));
	if (json_integer_value(json_object_get(j, "version")) != SAVED_VERSION)
		return bad(err, path, "not a save of this version of vse");
	if (!id || !signature || scratch < 0)
		return bad(err, path, "not what a save writes");
	*ret = (struct saved){xstrdup(id), xstrdup(signature), (uint64_t)scratch};
	return 0;
}

int saved_read(const char *dir, uint32_t rank, struct saved *ret, struct err *err)
{
	_cleanup_free_ char *path = saved_path(dir, rank, "json"), *text = NULL;
	if (path_read(path, NOTE_MAX, &text, NULL, err) < 0)
		return -1;
	json_t *j = json_loads(text, 0, NULL);
	int rc = json_is_object(j) ? parse(j, path, ret, err) : bad(err, path, "damaged");
	json_decref(j);
	return rc;
}

void saved_finish(struct saved *s)
{
	free(s->id);
	free(s->signature);
	*s = (struct saved){0};
}

/* ---- saving ---- */

struct saving {
	struct loop *loop;
	char *dir, *id, *pack_id, *signature;
	uint32_t rank;
	int disk;
	struct packer *state, *disk_packer;
	bool state_packed, disk_packed, over;
	void (*done)(void *arg, const struct err *err);
	void *arg;
};

struct saving *saving_create(struct loop *l, const char *dir, const char *id, uint32_t rank,
			     int disk, void (*done)(void *arg, const struct err *err), void *arg)
{
	struct saving *s = xcalloc(1, sizeof(*s));
	*s = (struct saving){.loop = l, .rank = rank, .disk = disk, .done = done, .arg = arg};
	s->dir = xstrdup(dir);
	s->id = xstrdup(id);
	s->pack_id = saved_pack_id(id, rank);
	return s;
}

static uint64_t disk_size(const struct saving *s)
{
	struct stat st;
	return s->disk >= 0 && fstat(s->disk, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static int write_note(struct saving *s, struct err *err)
{
	_cleanup_free_ char *path = saved_path(s->dir, s->rank, "json");
	json_t *j = json_pack("{s:i, s:s, s:s, s:I}", "version", SAVED_VERSION, "id", s->id,
			      "signature", s->signature, "scratch", (json_int_t)disk_size(s));
	_cleanup_free_ char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;
	json_decref(j);
	if (!text)
		return err_set(err, EILSEQ, "%s: not UTF-8 text", path);
	return path_write(path, text, strlen(text), 0600, err);
}

static void over(struct saving *s, const struct err *err)
{
	if (s->over)
		return;
	s->over = true;
	s->done(s->arg, err); /* may destroy s */
}

static void look(struct saving *s)
{
	struct err e = ERR_INIT;
	if (!s->signature || !s->state_packed || (s->disk >= 0 && !s->disk_packed))
		return;
	over(s, write_note(s, &e) < 0 ? &e : NULL);
}

static void on_state(void *arg, const struct err *err)
{
	struct saving *s = arg;
	packer_destroy(TAKE_PTR(s->state));
	s->state_packed = !err;
	if (err)
		over(s, err);
	else
		look(s);
}

static void on_disk(void *arg, const struct err *err)
{
	struct saving *s = arg;
	packer_destroy(TAKE_PTR(s->disk_packer));
	s->disk_packed = !err;
	if (err)
		over(s, err);
	else
		look(s);
}

static struct packer *pack(struct saving *s, enum pack_kind kind, int in,
			   void (*done)(void *arg, const struct err *err), struct err *err)
{
	_cleanup_free_ char *path = saved_path(s->dir, s->rank, kind == PACK_DISK ? "disk" : "state");
	_cleanup_close_ int out = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (out < 0) {
		err_errno(err, errno, "%s", path);
		return NULL;
	}
	return packer_start(s->loop, true, kind, s->pack_id, in, out, done, s, err);
}

int saving_stream(struct saving *s, int fd, struct err *err)
{
	_cleanup_close_ int in = fd;
	int flags = fcntl(in, F_GETFL);
	if (flags < 0 || fcntl(in, F_SETFL, flags & ~O_NONBLOCK) < 0)
		return err_errno(err, errno, "the stream of the state");
	s->state = pack(s, PACK_STREAM, in, on_state, err);
	return s->state ? 0 : -1;
}

int saving_state_done(struct saving *s, const char *signature, struct err *err)
{
	s->signature = xstrdup(signature);
	if (s->disk >= 0) {
		s->disk_packer = pack(s, PACK_DISK, s->disk, on_disk, err);
		return s->disk_packer ? 0 : -1;
	}
	look(s); /* may destroy s */
	return 0;
}

void saving_destroy(struct saving *s)
{
	if (!s)
		return;
	packer_destroy(s->state);
	packer_destroy(s->disk_packer);
	free(s->dir);
	free(s->id);
	free(s->pack_id);
	free(s->signature);
	free(s);
}
