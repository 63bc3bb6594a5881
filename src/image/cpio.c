/* SPDX-License-Identifier: Apache-2.0 */
#include "image/cpio.h"

#include <string.h>
#include <sys/stat.h>

static void pad(struct buf *b, size_t to)
{
	static const char zero[512];
	size_t over = buf_len(b) % to;
	if (over)
		buf_add(b, zero, to - over);
}

/* "070701", then 13 fields of 8 hex digits: ino mode uid gid nlink mtime filesize devmajor devminor
 * rdevmajor rdevminor namesize check; the name with its NUL; header+name and data each padded to 4. */
static void record(struct cpio *c, const char *name, unsigned mode, unsigned nlink, unsigned major,
		   unsigned minor, const void *data, uint32_t len)
{
	uint32_t ino = nlink ? ++c->ino : 0;
	buf_addf(c->out, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", ino, mode, 0,
		 0, nlink, 0, len, 0, 0, major, minor, (unsigned)strlen(name) + 1, 0);
	buf_add(c->out, name, strlen(name) + 1);
	pad(c->out, 4);
	if (len)
		buf_add(c->out, data, len);
	pad(c->out, 4);
}

void cpio_dir(struct cpio *c, const char *name, unsigned mode)
{
	record(c, name, S_IFDIR | mode, 2, 0, 0, NULL, 0);
}

void cpio_file(struct cpio *c, const char *name, unsigned mode, const void *data, uint32_t len)
{
	record(c, name, S_IFREG | mode, 1, 0, 0, data, len);
}

void cpio_symlink(struct cpio *c, const char *name, const char *target)
{
	record(c, name, S_IFLNK | 0777, 1, 0, 0, target, (uint32_t)strlen(target));
}

void cpio_char(struct cpio *c, const char *name, unsigned mode, unsigned major, unsigned minor)
{
	record(c, name, S_IFCHR | mode, 1, major, minor, NULL, 0);
}

void cpio_end(struct cpio *c)
{
	record(c, "TRAILER!!!", 0, 0, 0, 0, NULL, 0);
	pad(c->out, 512);
}
