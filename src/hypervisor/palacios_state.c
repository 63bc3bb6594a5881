/* SPDX-License-Identifier: Apache-2.0 */
/* A saved VM is a folder of files that the module writes; between nodes and in stores it is one stream:
 *   "vse-v3-1"  then for each file: u32 length of its name, u64 size, the name, the bytes, u64 XXH3 of the bytes
 *   and last u32 0. Numbers are little endian. */
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/path.h"
#include "hypervisor/palacios.h"
#define XXH_INLINE_ALL
#include <xxhash.h>

#define MAGIC "vse-v3-1"
#define CHUNK (1u << 20)
#define NAME_BYTES_MAX 255u
#define FILES_MAX 4096u

static int put(int fd, const void *p, size_t n, uint64_t *total, struct err *err)
{
	if (fd_write_all(fd, p, n) < 0)
		return err_errno(err, errno, "write the state");
	*total += n;
	return 0;
}

static int put_file(int fd, int dir, const char *name, uint64_t *total, struct err *err)
{
	_cleanup_close_ int in = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;
	if (in < 0 || fstat(in, &st) < 0)
		return err_errno(err, errno, "saved file %s", name);
	if (!S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "saved file %s: not a regular file", name);
	uint32_t name_len = htole32((uint32_t)strlen(name));
	uint64_t left = (uint64_t)st.st_size, size = htole64(left);
	if (put(fd, &name_len, 4, total, err) < 0 || put(fd, &size, 8, total, err) < 0 ||
	    put(fd, name, strlen(name), total, err) < 0)
		return -1;
	_cleanup_free_ char *chunk = xmalloc(CHUNK);
	XXH3_state_t *h = XXH3_createState();
	XXH3_64bits_reset(h);
	while (left) {
		ssize_t n = fd_read_full(in, chunk, (size_t)MIN(left, CHUNK));
		if (n <= 0 || put(fd, chunk, (size_t)n, total, err) < 0)
			break;
		XXH3_64bits_update(h, chunk, (size_t)n);
		left -= (uint64_t)n;
	}
	uint64_t sum = htole64(XXH3_64bits_digest(h));
	XXH3_freeState(h);
	if (left)
		return err && err->code ? -1
					: err_set(err, EIO, "saved file %s: it became shorter", name);
	return put(fd, &sum, 8, total, err);
}

int palacios_state_write(int fd, const char *folder, uint64_t *ret_bytes, struct err *err)
{
	uint64_t total = 0;
	uint32_t end = 0;
	DIR *d = opendir(folder);
	if (!d)
		return err_errno(err, errno, "%s", folder);
	int rc = put(fd, MAGIC, 8, &total, err);
	for (struct dirent *e; rc == 0 && (e = readdir(d));)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			rc = put_file(fd, dirfd(d), e->d_name, &total, err);
	closedir(d);
	if (rc < 0 || put(fd, &end, 4, &total, err) < 0)
		return -1;
	*ret_bytes = total;
	return 0;
}

static int get(int fd, void *p, size_t n, struct err *err)
{
	ssize_t got = fd_read_full(fd, p, n);
	if (got == (ssize_t)n)
		return 0;
	return got < 0 ? err_errno(err, errno, "read the state")
		       : err_set(err, EBADMSG, "the state is cut off");
}

static int get_bytes(int fd, int out, uint64_t size, uint64_t *ret_sum, struct err *err)
{
	_cleanup_free_ char *chunk = xmalloc(CHUNK);
	XXH3_state_t *h = XXH3_createState();
	XXH3_64bits_reset(h);
	int rc = 0;
	while (rc == 0 && size) {
		size_t n = (size_t)MIN(size, CHUNK);
		rc = get(fd, chunk, n, err);
		if (rc == 0 && fd_write_all(out, chunk, n) < 0)
			rc = err_errno(err, errno, "unpack the state");
		XXH3_64bits_update(h, chunk, n);
		size -= n;
	}
	*ret_sum = XXH3_64bits_digest(h);
	XXH3_freeState(h);
	return rc;
}

static int get_file(int fd, int dir, uint32_t name_len, struct err *err)
{
	char name[NAME_BYTES_MAX + 1];
	uint64_t size, sum, own;
	if (name_len > NAME_BYTES_MAX)
		return err_set(err, EBADMSG, "the state is damaged: a name of %u bytes", name_len);
	if (get(fd, &size, 8, err) < 0 || get(fd, name, name_len, err) < 0)
		return -1;
	name[name_len] = '\0';
	if (strlen(name) != name_len || strchr(name, '/') || strcmp(name, ".") == 0 ||
	    strcmp(name, "..") == 0)
		return err_set(err, EBADMSG, "the state is damaged: a bad name");
	_cleanup_close_ int out = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (out < 0)
		return err_errno(err, errno, "unpack the state: %s", name);
	if (get_bytes(fd, out, le64toh(size), &own, err) < 0 || get(fd, &sum, 8, err) < 0)
		return -1;
	return own == le64toh(sum)
		       ? 0
		       : err_set(err, EBADMSG, "the state is damaged: %s has another checksum", name);
}

int palacios_state_read(int fd, const char *folder, struct err *err)
{
	_cleanup_close_ int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char magic[8];
	uint32_t name_len;
	if (dir < 0)
		return err_errno(err, errno, "%s", folder);
	if (get(fd, magic, sizeof(magic), err) < 0)
		return -1;
	if (memcmp(magic, MAGIC, 8) != 0)
		return err_set(err, EBADMSG, "this is no saved VM of palacios");
	for (unsigned i = 0; i < FILES_MAX; i++) {
		if (get(fd, &name_len, 4, err) < 0)
			return -1;
		if (!name_len)
			return i ? 0 : err_set(err, EBADMSG, "the state is empty");
		if (get_file(fd, dir, le32toh(name_len), err) < 0)
			return -1;
	}
	return err_set(err, EBADMSG, "the state is damaged: over %u files", FILES_MAX);
}

void palacios_signature(unsigned cpus, uint64_t memory, char out[HV_SIGNATURE_MAX])
{
	snprintf(out, HV_SIGNATURE_MAX, "palacios-nu-1 cpus=%u memory=%" PRIu64, cpus, memory);
}

int palacios_check_signature(const char *signature, unsigned cpus, uint64_t memory, struct err *err)
{
	char own[HV_SIGNATURE_MAX];
	palacios_signature(cpus, memory, own);
	if (!signature || strcmp(signature, own) == 0)
		return 0;
	return err_set(err, EINVAL, "the saved VM is \"%.100s\" and this would be \"%s\"",
		       signature, own);
}
