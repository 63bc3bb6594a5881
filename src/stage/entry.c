/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "stage/state.h"

#define LOOK_MS 200 /* how often a file that another agent fetches is looked for */

static uint8_t slice[SLICE]; /* one thread, one slice at a time */

struct entry *entry_find(struct stage *s, const uint8_t key[SHA_SIZE])
{
	for (struct entry *e = s->entries; e; e = e->next)
		if (e->state != STAGE_FAILED && (!e->offer || e->index) &&
		    memcmp(e->file.index, key, SHA_SIZE) == 0)
			return e;
	return NULL;
}

struct entry *entry_new(struct stage *s, bool offer)
{
	struct entry *e = xcalloc(1, sizeof(*e));
	e->stage = s;
	e->offer = offer;
	e->fd = e->hold = e->claim = -1;
	e->state = STAGE_INDEXING;
	e->next = s->entries;
	s->entries = e;
	return e;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Drops what is needed only until the file is whole. */
static void end_work(struct entry *e)
{
	for (unsigned i = 0; i < e->n_sources; i++)
		close(e->sources[i]);
	free(TAKE_PTR(e->sources));
	free(TAKE_PTR(e->copies));
	e->n_sources = e->n_copies = e->cap_copies = 0;
	sha_free(TAKE_PTR(e->sha));
	index_builder_free(TAKE_PTR(e->builder));
	index_free(TAKE_PTR(e->damaged));
	if (e->claim >= 0)
		cache_unclaim(e->stage->cache, e->file.index, TAKE_FD(e->claim));
	e->work = WORK_NONE;
}

/* An offer of the same content by another path steps in for one that ends. */
static void hand_over(struct entry *e)
{
	struct entry *heir = entry_find(e->stage, e->file.index);
	if (e->index && heir && heir->state == STAGE_DONE && !heir->swarm)
		entry_serve(heir);
}

void entry_free(struct entry *e)
{
	struct stage *s = e->stage;
	struct entry **at = &s->entries;
	while (*at != e)
		at = &(*at)->next;
	*at = e->next;
	link_forget(s, e);
	if (e->swarm)
		swarm_file_remove(TAKE_PTR(e->swarm), stage_now(s));
	end_work(e);
	hand_over(e);
	close_fd(&e->fd);
	close_fd(&e->hold);
	index_free(e->index);
	free(e->path);
	free(e);
}

void entry_fail(struct entry *e, const struct err *err)
{
	if (e->state == STAGE_FAILED || e->state == STAGE_DONE)
		return;
	e->state = STAGE_FAILED;
	err_copy(&e->err, err);
	err_prefix(&e->err, "%s: ", e->stage->name);
	link_forget(e->stage, e);
	if (e->swarm)
		swarm_file_want(e->swarm, false, stage_now(e->stage));
	end_work(e);
	if (!e->shared)
		close_fd(&e->fd);
	stage_work(e->stage);
}

static void fail(struct entry *e, int code, const char *what)
{
	struct err err;
	err_errno(&err, code, "%s", what);
	entry_fail(e, &err);
}

static void whole(struct entry *e)
{
	e->state = STAGE_DONE;
	end_work(e);
	stage_work(e->stage);
}

void entry_serve(struct entry *e)
{
	struct stage *s = e->stage;
	if (swarm_file_find(s->swarm, e->file.index))
		return; /* another entry serves the same content */
	e->swarm = swarm_file_add(s->swarm, e->file.index, e->file.nodes, e);
	if (e->index)
		swarm_file_index(e->swarm, e->index, true, stage_now(s));
	stage_wake(s);
}

/* ---- offers ---- */

static void offered(struct entry *e)
{
	struct stage_file *f = &e->file;
	struct err err;
	memcpy(f->index, e->index->key, SHA_SIZE);
	memcpy(f->hash, e->index->hash, SHA_SIZE);
	f->size = e->index->size;
	f->nodes = e->stage->nodes;
	f->inode = e->st.st_ino;
	f->mtime_ns = (uint64_t)e->st.st_mtim.tv_sec * 1000000000u + (uint64_t)e->st.st_mtim.tv_nsec;
	f->uid = e->st.st_uid;
	snprintf(f->path, sizeof(f->path), "%s", e->path);
	if (place_sample(e->fd, f->size, f->sample, &err) < 0) {
		err_prefix(&err, "%s: ", e->path);
		entry_fail(e, &err);
		return;
	}
	e->progress.here = f->size;
	whole(e);
	entry_serve(e);
}

static bool unchanged(const struct entry *e)
{
	struct stat now;
	return fstat(e->fd, &now) == 0 && now.st_size == e->st.st_size &&
	       now.st_mtim.tv_sec == e->st.st_mtim.tv_sec &&
	       now.st_mtim.tv_nsec == e->st.st_mtim.tv_nsec;
}

static void start_offer(struct entry *e)
{
	struct cache *c = e->stage->cache;
	e->progress.size = (uint64_t)e->st.st_size;
	if (c && cache_offer_load(c, &e->st, &e->index, NULL) == 0) {
		offered(e);
		return;
	}
	e->builder = index_builder_new();
	e->work = WORK_INDEX;
}

static void index_slice(struct entry *e)
{
	struct err err = ERR_INIT;
	ssize_t n = pread(e->fd, slice, sizeof(slice), (off_t)e->at);
	if (n < 0) {
		fail(e, errno, e->path);
		return;
	}
	e->at += (uint64_t)n;
	if (n > 0) {
		if (index_builder_add(e->builder, slice, (size_t)n, &err) < 0) {
			err_prefix(&err, "%s: ", e->path);
			entry_fail(e, &err);
		}
		return;
	}
	e->index = index_builder_end(e->builder);
	if (!unchanged(e) || e->index->size != (uint64_t)e->st.st_size) {
		fail(e, EBUSY, e->path); /* written to while it was read */
		return;
	}
	if (e->stage->cache)
		cache_offer_save(e->stage->cache, &e->st, e->index);
	offered(e);
}

/* ---- fetches: what is here already ---- */

static void found(struct entry *e, struct index *x, bool trusted)
{
	free(e->path);
	e->path = cache_path(e->stage->cache, e->file.index);
	e->progress.here = e->file.size;
	if (!trusted) {
		e->state = STAGE_CHECKING;
		e->damaged = x;
		e->work = WORK_CHECK;
		e->at = 0;
		return;
	}
	e->index = x;
	whole(e);
	if (e->swarm)
		swarm_file_index(e->swarm, x, true, stage_now(e->stage));
	else
		entry_serve(e);
}

static void fetch(struct entry *e)
{
	struct stage *s = e->stage;
	e->state = STAGE_INDEXING;
	if (!e->swarm)
		e->swarm = swarm_file_add(s->swarm, e->file.index, e->file.nodes, e);
	swarm_file_want(e->swarm, true, stage_now(s));
	stage_wake(s);
}

/* Others refuse us as a provider while another agent is filling our cache. */
static void wait_for_other(struct entry *e)
{
	struct stage *s = e->stage;
	e->state = STAGE_WAITING;
	e->look_again_at = stage_now(s) + LOOK_MS;
	if (!e->swarm)
		e->swarm = swarm_file_add(s->swarm, e->file.index, e->file.nodes, e);
	swarm_file_want(e->swarm, false, stage_now(s));
	stage_wake(s);
}

static void start_fetch(struct entry *e)
{
	struct stage *s = e->stage;
	struct err err = ERR_INIT;
	struct index *x;
	bool trusted;
	e->progress.size = e->file.size;
	if (place_shared(&e->file, &e->fd)) {
		e->shared = true;
		e->path = xstrdup(e->file.path);
		e->progress.here = e->file.size;
		whole(e);
		entry_serve(e);
		return;
	}
	if (!s->cache || !s->self) {
		err_set(&err, ENOENT,
			s->self ? "no cache to fetch a file into"
				: "the root fetches what it offers only");
		entry_fail(e, &err);
		return;
	}
	int rc = cache_find(s->cache, e->file.index, &e->fd, &e->hold, &x, &trusted, &err);
	if (rc == 0) {
		found(e, x, trusted);
		return;
	}
	if (cache_claim(s->cache, e->file.index, &e->claim, &err) < 0) {
		if (err.code == EBUSY)
			wait_for_other(e);
		else
			entry_fail(e, &err);
		return;
	}
	/* Between our two looks it may have been finished. */
	if (cache_find(s->cache, e->file.index, &e->fd, &e->hold, &x, &trusted, &err) == 0) {
		found(e, x, trusted);
		return;
	}
	if (err.code == EBADMSG || err.code == EPROTO)
		cache_drop(s->cache, e->file.index);
	fetch(e);
}

static bool chunk_is(int fd, uint64_t offset, const struct index_chunk *c, struct sha *sha)
{
	uint8_t hash[SHA_SIZE];
	if (pread(fd, slice, c->size, (off_t)offset) != (ssize_t)c->size)
		return false;
	sha_add(sha, slice, c->size);
	sha_end(sha, hash);
	return memcmp(hash, c->hash, SHA_SIZE) == 0;
}

static void check_slice(struct entry *e)
{
	struct index *x = e->damaged;
	if (!e->sha)
		e->sha = sha_new();
	for (uint64_t done = 0; e->at < x->n && done < SLICE; e->at++) {
		const struct index_chunk *c = &x->chunks[e->at];
		done += c->size;
		if (chunk_is(e->fd, c->offset, c, e->sha))
			continue;
		close_fd(&e->fd);
		close_fd(&e->hold);
		cache_drop(e->stage->cache, e->file.index);
		free(TAKE_PTR(e->path));
		e->progress.here = 0;
		end_work(e);
		e->work = WORK_START;
		return;
	}
	if (e->at < x->n)
		return;
	cache_trust(e->stage->cache, e->file.index, x);
	e->damaged = NULL;
	found(e, x, true);
}

/* ---- fetches: what comes ---- */

void entry_got_index(struct entry *e, struct index *x)
{
	struct stage *s = e->stage;
	struct err err = ERR_INIT;
	uint64_t now = stage_now(s);
	e->index = x;
	if (x->size != e->file.size) {
		err_set(&err, EBADMSG, "the root's word on the size of a file is not its index's");
		entry_fail(e, &err);
		return;
	}
	if (e->shared) { /* it is whole, and now others can have it from us */
		swarm_file_index(e->swarm, x, true, now);
		return;
	}
	if (cache_temp(s->cache, e->file.index, e->claim, x->size, &e->fd, &err) < 0) {
		entry_fail(e, &err);
		return;
	}
	e->state = STAGE_FETCHING;
	/* Nothing may be asked for before it is known what is here. */
	swarm_file_pause(e->swarm, true, now);
	swarm_file_index(e->swarm, x, false, now);
	place_find_copies(e);
	if (e->n_copies)
		e->work = WORK_COPY;
	swarm_file_pause(e->swarm, false, now);
	stage_work(s);
	entry_checkpoint(e);
}

void entry_got_chunk(struct entry *e, uint32_t idx)
{
	e->progress.received += e->index->chunks[idx].size;
	swarm_chunk_have(e->swarm, idx, stage_now(e->stage));
	entry_checkpoint(e);
}

static void publish(struct entry *e)
{
	struct err err = ERR_INIT;
	if (cache_publish(e->stage->cache, e->file.index, e->fd, e->index, &e->hold, &err) < 0) {
		entry_fail(e, &err);
		return;
	}
	e->path = cache_path(e->stage->cache, e->file.index);
	whole(e);
}

void entry_checkpoint(struct entry *e)
{
	if (e->state != STAGE_FETCHING || swarm_missing(e->swarm) > e->n_same)
		return;
	if (!e->n_same)
		publish(e);
	else if (e->work == WORK_NONE) {
		e->work = WORK_SAME;
		e->at = 0;
		stage_work(e->stage);
	}
}

/* False: the entry has failed. */
static bool put_chunk(struct entry *e, uint32_t idx)
{
	const struct index_chunk *c = &e->index->chunks[idx];
	if (pwrite(e->fd, slice, c->size, (off_t)c->offset) != (ssize_t)c->size) {
		fail(e, errno ? errno : EIO, cache_folder(e->stage->cache));
		return false;
	}
	e->progress.kept += c->size;
	swarm_chunk_have(e->swarm, idx, stage_now(e->stage));
	return true;
}

static void copy_slice(struct entry *e)
{
	if (!e->sha)
		e->sha = sha_new();
	for (uint64_t done = 0; e->n_copies && done < SLICE;) {
		struct copy copy = e->copies[--e->n_copies];
		const struct index_chunk *c = &e->index->chunks[copy.idx];
		done += c->size;
		if (!chunk_is(copy.fd, copy.offset, c, e->sha))
			swarm_chunk_unhold(e->swarm, copy.idx, stage_now(e->stage));
		else if (!put_chunk(e, copy.idx))
			return;
	}
	if (!e->n_copies)
		e->work = WORK_NONE;
	entry_checkpoint(e);
}

static void same_slice(struct entry *e)
{
	if (!e->sha)
		e->sha = sha_new();
	for (uint64_t done = 0; e->at < e->index->n && done < SLICE; e->at++) {
		const struct index_chunk *c = &e->index->chunks[e->at];
		if (c->same == INDEX_NONE || swarm_has(e->swarm, (uint32_t)e->at))
			continue;
		done += c->size;
		if (!chunk_is(e->fd, e->index->chunks[c->same].offset, c, e->sha)) {
			fail(e, EIO, "what was written to the cache is not what is read from it");
			return;
		}
		if (!put_chunk(e, (uint32_t)e->at))
			return;
		e->n_same--;
	}
	if (e->at < e->index->n)
		return;
	e->work = WORK_NONE;
	e->n_same = 0;
	entry_checkpoint(e);
}

/* ---- from the loop ---- */

bool entry_busy(const struct entry *e)
{
	return e->work != WORK_NONE;
}

void entry_work(struct entry *e)
{
	enum work work = e->work;
	switch (work) {
	case WORK_NONE: return;
	case WORK_START:
		e->work = WORK_NONE;
		e->offer ? start_offer(e) : start_fetch(e);
		return;
	case WORK_INDEX: index_slice(e); return;
	case WORK_CHECK: check_slice(e); return;
	case WORK_COPY: copy_slice(e); return;
	case WORK_SAME: same_slice(e); return;
	}
}

void entry_tick(struct entry *e, uint64_t now)
{
	if (e->state == STAGE_WAITING && now >= e->look_again_at) {
		e->look_again_at = now + LOOK_MS;
		e->work = WORK_START;
		stage_work(e->stage);
	}
}
