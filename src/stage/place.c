/* SPDX-License-Identifier: Apache-2.0 */
/* Where a file, or parts of it, may be on this node already. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/alloc.h"
#include "stage/state.h"

#define SAMPLES 16
#define SAMPLE 4096u

/* Blocks spread over the file, its first and last among them. */
int place_sample(int fd, uint64_t size, uint8_t out[SHA_SIZE], struct err *err)
{
	uint8_t block[SAMPLE];
	struct sha *h = sha_new();
	int rc = 0;
	for (unsigned i = 0; i < SAMPLES && !rc; i++) {
		uint64_t at = size > SAMPLE ? (size - SAMPLE) / (SAMPLES - 1) * i : 0;
		if (i == SAMPLES - 1 && size > SAMPLE)
			at = size - SAMPLE;
		ssize_t n = pread(fd, block, sizeof(block), (off_t)at);
		if (n < 0)
			rc = err_errno(err, errno, "read");
		else
			sha_add(h, block, (size_t)n);
	}
	sha_end(h, out);
	sha_free(h);
	return rc;
}

/* The very file that the root offers: same inode, size, time and owner under the same path, and the same blocks. All of
 * it cannot be had by chance, and not be made by who does not own the root's files. */
bool place_shared(const struct stage_file *f, int *ret_fd)
{
	struct stat st;
	uint8_t sample[SHA_SIZE];
	if (!f->path[0])
		return false;
	_cleanup_close_ int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return false;
	uint64_t mtime = (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
	if ((uint64_t)st.st_size != f->size || st.st_ino != f->inode || mtime != f->mtime_ns ||
	    st.st_uid != f->uid)
		return false;
	if (place_sample(fd, f->size, sample, NULL) < 0 || memcmp(sample, f->sample, SHA_SIZE) != 0)
		return false;
	*ret_fd = TAKE_FD(fd);
	return true;
}

static void add_copy(struct entry *e, int fd, uint64_t offset, uint32_t idx)
{
	if (e->n_copies == e->cap_copies) {
		e->cap_copies = e->cap_copies ? 2 * e->cap_copies : 64;
		e->copies = xreallocarray(e->copies, e->cap_copies, sizeof(*e->copies));
	}
	e->copies[e->n_copies++] = (struct copy){.fd = fd, .offset = offset, .idx = idx};
}

struct search {
	struct entry *entry;
	uint8_t *found; /* per chunk */
};

static void look_in(void *arg, const struct index *x, int fd)
{
	struct search *search = arg;
	struct entry *e = search->entry;
	int own = -1;
	for (uint32_t i = 0; i < x->n; i++) {
		uint32_t idx = index_find(e->index, x->chunks[i].hash);
		if (idx == INDEX_NONE || search->found[idx] ||
		    x->chunks[i].size != e->index->chunks[idx].size)
			continue;
		if (own < 0) {
			own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
			if (own < 0)
				return;
			e->sources = xreallocarray(e->sources, e->n_sources + 1, sizeof(*e->sources));
			e->sources[e->n_sources++] = own;
		}
		search->found[idx] = 1;
		add_copy(e, own, x->chunks[i].offset, idx);
		swarm_chunk_hold(e->swarm, idx);
	}
}

void place_find_copies(struct entry *e)
{
	struct search search = {.entry = e, .found = xcalloc(e->index->n + 1, 1)};
	if (e->stage->cache)
		cache_each(e->stage->cache, look_in, &search);
	free(search.found);
	/* A chunk that this file has twice travels once. */
	for (uint32_t i = 0; i < e->index->n; i++)
		if (e->index->chunks[i].same != INDEX_NONE) {
			swarm_chunk_hold(e->swarm, i);
			e->n_same++;
		}
}
