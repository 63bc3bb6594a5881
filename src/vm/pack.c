/* SPDX-License-Identifier: Apache-2.0 */
/* The format: a head (struct head), pieces (struct piece and its compressed bytes), and a piece of length 0 whose offset is
 * the size of the whole and whose check is that of all pieces' checks and this size. Numbers are little-endian. */
#include "vm/pack.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include <zstd.h>

#include "base/alloc.h"
#include "base/path.h"

#define MAGIC "VSEPACK1"
#define PIECE (1u << 20) /* bytes before compression */
#define LEVEL                                                                                      \
	1 /* memory of a guest: 74 MB become 20 in 0.3 s; level 3 takes twice that for 5 % less */

struct head {
	char magic[8];
	uint32_t kind;
	char id[PACK_ID_MAX];
} __attribute__((packed));

struct piece {
	uint32_t packed, raw; /* bytes; 0: the end */
	uint64_t offset;      /* of a disk; of a stream, how much came before */
	uint64_t check;       /* of the raw bytes and the offset */
} __attribute__((packed));

struct pack {
	ZSTD_CCtx *c;
	ZSTD_DCtx *d;
	char *raw, *packed;
	size_t room;
	int in, out;
	uint64_t all; /* check of the checks so far */
};

static void begin(struct pack *p, int in, int out, bool writing)
{
	*p = (struct pack){.in = in, .out = out, .room = ZSTD_compressBound(PIECE)};
	p->raw = xmalloc(PIECE);
	p->packed = xmalloc(p->room);
	if (writing) {
		p->c = ZSTD_createCCtx();
		ZSTD_CCtx_setParameter(p->c, ZSTD_c_compressionLevel, LEVEL);
	} else {
		p->d = ZSTD_createDCtx();
	}
}

static void finish(struct pack *p)
{
	ZSTD_freeCCtx(p->c);
	ZSTD_freeDCtx(p->d);
	free(p->raw);
	free(p->packed);
}

static uint64_t check_of(const void *raw, size_t n, uint64_t offset)
{
	return XXH3_64bits_withSeed(raw, n, offset);
}

static void add_check(struct pack *p, uint64_t check)
{
	uint64_t both[2] = {htole64(p->all), htole64(check)};
	p->all = XXH3_64bits(both, sizeof(both));
}

/* ---- writing ---- */

static int write_out(struct pack *p, const void *data, size_t n, struct err *err)
{
	return fd_write_all(p->out, data, n) < 0 ? err_errno(err, errno, "write") : 0;
}

static int write_piece(struct pack *p, size_t n, uint64_t offset, struct err *err)
{
	size_t packed = ZSTD_compress2(p->c, p->packed, p->room, p->raw, n);
	if (ZSTD_isError(packed))
		return err_set(err, EIO, "zstd: %s", ZSTD_getErrorName(packed));
	uint64_t check = check_of(p->raw, n, offset);
	struct piece h = {htole32((uint32_t)packed), htole32((uint32_t)n), htole64(offset),
			  htole64(check)};
	add_check(p, check);
	return write_out(p, &h, sizeof(h), err) < 0 ? -1 : write_out(p, p->packed, packed, err);
}

static int write_end(struct pack *p, uint64_t size, struct err *err)
{
	add_check(p, size);
	struct piece h = {0, 0, htole64(size), htole64(p->all)};
	if (write_out(p, &h, sizeof(h), err) < 0)
		return -1;
	return fsync(p->out) < 0 && errno != EINVAL ? err_errno(err, errno, "fsync") : 0;
}

static int write_stream(struct pack *p, struct err *err)
{
	uint64_t done = 0;
	for (;;) {
		ssize_t n = fd_read_full(p->in, p->raw, PIECE);
		if (n < 0)
			return err_errno(err, errno, "read");
		if (n == 0)
			return write_end(p, done, err);
		if (write_piece(p, (size_t)n, done, err) < 0)
			return -1;
		done += (uint64_t)n;
	}
}

static bool all_zero(const char *raw, size_t n)
{
	return n == 0 || (raw[0] == 0 && memcmp(raw, raw + 1, n - 1) == 0);
}

/* One stretch of data between two holes. */
static int write_data(struct pack *p, off_t from, off_t to, struct err *err)
{
	while (from < to) {
		ssize_t n = pread(p->in, p->raw, (size_t)MIN((off_t)PIECE, to - from), from);
		if (n <= 0)
			return err_set(err, n ? errno : EIO, "read the disk: %s",
				       n ? strerror(errno) : "it became shorter");
		if (!all_zero(p->raw, (size_t)n) && write_piece(p, (size_t)n, (uint64_t)from, err) < 0)
			return -1;
		from += n;
	}
	return 0;
}

static int write_disk(struct pack *p, struct err *err)
{
	struct stat st;
	if (fstat(p->in, &st) < 0)
		return err_errno(err, errno, "the disk");
	for (off_t at = 0; at < st.st_size;) {
		off_t data = lseek(p->in, at, SEEK_DATA), hole;
		if (data < 0 && errno == ENXIO)
			break; /* nothing but a hole up to the end */
		if (data < 0)  /* a file system that does not know its holes */
			data = at, hole = st.st_size;
		else if ((hole = lseek(p->in, data, SEEK_HOLE)) < 0)
			hole = st.st_size;
		if (write_data(p, data, MIN(hole, st.st_size), err) < 0)
			return -1;
		at = hole;
	}
	return write_end(p, (uint64_t)st.st_size, err);
}

int pack_write(enum pack_kind kind, const char *id, int in, int out, struct err *err)
{
	struct pack p;
	struct head h = {.magic = MAGIC, .kind = htole32(kind)};
	if (strlen(id) >= PACK_ID_MAX)
		return err_set(err, EINVAL, "the name of the save is too long");
	memcpy(h.id, id, strlen(id));
	begin(&p, in, out, true);
	int rc = write_out(&p, &h, sizeof(h), err);
	if (rc == 0)
		rc = kind == PACK_DISK ? write_disk(&p, err) : write_stream(&p, err);
	finish(&p);
	return rc;
}

/* ---- reading ---- */

static int damaged(struct err *err, const char *what)
{
	return err_set(err, EBADMSG, "the saved file is damaged: %s", what);
}

static int read_in(struct pack *p, void *to, size_t n, struct err *err)
{
	ssize_t got = fd_read_full(p->in, to, n);
	if (got < 0)
		return err_errno(err, errno, "read");
	return (size_t)got == n ? 0 : damaged(err, "it ends too early");
}

static int read_head(struct pack *p, enum pack_kind kind, const char *id, struct err *err)
{
	struct head h;
	if (read_in(p, &h, sizeof(h), err) < 0)
		return -1;
	if (memcmp(h.magic, MAGIC, sizeof(h.magic)) != 0)
		return damaged(err, "it does not begin as one");
	h.id[PACK_ID_MAX - 1] = '\0';
	if (le32toh(h.kind) != kind || strcmp(h.id, id) != 0)
		return err_set(err, EBADMSG, "the saved file is another one than it should be");
	return 0;
}

/* 1: a piece is in p->raw; 0: that was the end. */
static int read_piece(struct pack *p, struct piece *h, struct err *err)
{
	if (read_in(p, h, sizeof(*h), err) < 0)
		return -1;
	*h = (struct piece){le32toh(h->packed), le32toh(h->raw), le64toh(h->offset), le64toh(h->check)};
	if (h->packed == 0) {
		add_check(p, h->offset);
		return h->check == p->all ? 0 : damaged(err, "a piece is missing");
	}
	if (h->packed > p->room || h->raw > PIECE || h->raw == 0)
		return damaged(err, "a piece has no possible length");
	if (read_in(p, p->packed, h->packed, err) < 0)
		return -1;
	size_t n = ZSTD_decompressDCtx(p->d, p->raw, PIECE, p->packed, h->packed);
	if (ZSTD_isError(n) || n != h->raw || check_of(p->raw, n, h->offset) != h->check)
		return damaged(err, "a piece does not match its checksum");
	add_check(p, h->check);
	return 1;
}

static int put_disk(struct pack *p, const struct piece *h, struct err *err)
{
	for (size_t done = 0; done < h->raw;) {
		ssize_t n = pwrite(p->out, p->raw + done, h->raw - done, (off_t)(h->offset + done));
		if (n < 0)
			return err_errno(err, errno, "write the disk");
		done += (size_t)n;
	}
	return 0;
}

int pack_read(enum pack_kind kind, const char *id, int in, int out, struct err *err)
{
	struct pack p;
	struct piece h;
	uint64_t done = 0;
	int more = 1;
	begin(&p, in, out, false);
	int rc = read_head(&p, kind, id, err);
	while (rc == 0 && (more = read_piece(&p, &h, err)) == 1) {
		if (kind == PACK_STREAM && h.offset != done)
			rc = damaged(err, "a piece is missing");
		else
			rc = kind == PACK_DISK ? put_disk(&p, &h, err)
					       : write_out(&p, p.raw, h.raw, err);
		done += h.raw;
	}
	if (rc == 0 && more < 0)
		rc = -1;
	if (rc == 0 && kind == PACK_STREAM && h.offset != done)
		rc = damaged(err, "its length is wrong");
	if (rc == 0 && kind == PACK_DISK && ftruncate(out, (off_t)h.offset) < 0)
		rc = err_errno(err, errno, "the disk's size");
	finish(&p);
	return rc;
}

/* ---- the program ---- */

int pack_main(int n, char **words, struct err *err)
{
	if (n != 3)
		return err_set(err, EINVAL, "pack or unpack, state or disk, id");
	enum pack_kind kind = strcmp(words[1], "disk") == 0 ? PACK_DISK : PACK_STREAM;
	bool writing = strcmp(words[0], "pack") == 0;
	return (writing ? pack_write : pack_read)(kind, words[2], STDIN_FILENO, STDOUT_FILENO, err);
}
