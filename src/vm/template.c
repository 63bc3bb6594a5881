/* SPDX-License-Identifier: Apache-2.0 */
/* Memory and state are memfds: sealed, so that no VMM can change what all others map, and gone with us. What is kept of them is
 * in vm/kept.h. */
#include "vm/template.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/path.h"
#include "io/stream.h"
#include "net/address.h"
#include "vm/kept.h"
#include "vm/packer.h"

#define ID_BYTES 16
#define BOOT_MAX 64
#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static const enum pack_kind part_kinds[KEPT_PARTS] = {PACK_DISK, PACK_STREAM};

struct template
{
	struct loop *loop;
	const struct vm_profile *profile;
	char *dir, *cache, *key;
	void (*done)(void *arg, const struct err *err);
	void *arg;
	bool make, ready, asked; /* asked: other nodes, or nobody is there to be asked */
	char origin[96];         /* "": nowhere yet */
	char refused[128];       /* what was found and could not be used; "" */
	const struct template_source *source;
	void *source_arg;
	struct template_fetch *fetch;
	uint64_t bound_ms;

	int fds[KEPT_PARTS];
	char id[2 * ID_BYTES + 1];
	char signature[HV_SIGNATURE_MAX], boot[BOOT_MAX];

	/* while it is made */
	struct hv *hv;
	struct channel *channel;
	struct stream *stream; /* the state comes */
	struct evtimer *timer;
	bool state_ended, said_hello, snapped, stopping;

	/* while it is read or kept */
	struct packer *packer;
	enum kept_part part;
	int file;
	bool replaced;           /* another was put there while it was read: that was read then */
	char *temps[KEPT_PARTS]; /* paths of the files that are written */
};

static void let_go(struct template *t)
{
	if (t->fetch)
		t->source->cancel(TAKE_PTR(t->fetch));
	packer_destroy(TAKE_PTR(t->packer));
	channel_destroy(TAKE_PTR(t->channel));
	stream_destroy(TAKE_PTR(t->stream));
	hv_release(TAKE_PTR(t->hv));
	evtimer_destroy(TAKE_PTR(t->timer));
	if (t->file >= 0)
		close(TAKE_FD(t->file));
	for (int i = 0; i < KEPT_PARTS; i++) {
		if (t->temps[i])
			unlink(t->temps[i]);
		free(TAKE_PTR(t->temps[i]));
	}
	path_remove(t->dir, NULL);
}

static void close_parts(struct template *t)
{
	for (int i = 0; i < KEPT_PARTS; i++)
		if (t->fds[i] >= 0)
			close(TAKE_FD(t->fds[i]));
}

static int open_parts(struct template *t, struct err *err)
{
	close_parts(t);
	for (int i = 0; i < KEPT_PARTS; i++) {
		t->fds[i] = memfd_create("vse-template", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		if (t->fds[i] < 0)
			return err_errno(err, errno, "memory of a template");
	}
	return 0;
}

static int seal(struct template *t, struct err *err)
{
	for (int i = 0; i < KEPT_PARTS; i++)
		if (fcntl(t->fds[i], F_ADD_SEALS, SEALS) < 0)
			return err_errno(err, errno, "seal the template's %s", kept_names[i]);
	return 0;
}

static void end(struct template *t, const struct err *err)
{
	let_go(t);
	if (err)
		close_parts(t);
	t->ready = !err;
	t->done(t->arg, err); /* may destroy t */
}

static char *file_of(const struct template *t, const char *what)
{
	return kept_path(t->cache, t->key, what);
}

/* ---- into the cache, once it is used: nobody waits for it ---- */

static void keep_next(struct template *t);

static void keep_over(struct template *t, const struct err *err)
{
	if (err)
		log_info("the template is not kept: %s", err->text);
	let_go(t);
}

static void put(struct template *t)
{
	struct err err = ERR_INIT;
	_cleanup_free_ char *note = xasprintf("%s\n%s\n%s\n", t->id, t->signature, t->boot);
	int rc = kept_put(t->cache, t->key, t->temps, note, &err);
	kept_sweep(t->cache, kept_limit(), t->key);
	keep_over(t, rc < 0 ? &err : NULL);
}

static void on_packed(void *arg, const struct err *err)
{
	struct template *t = arg;
	packer_destroy(TAKE_PTR(t->packer));
	close(TAKE_FD(t->file));
	t->part++;
	if (err)
		keep_over(t, err);
	else if (t->part == KEPT_PARTS)
		put(t);
	else
		keep_next(t);
}

static void keep_next(struct template *t)
{
	struct err err = ERR_INIT;
	char *temp = xasprintf("%s/.%s.%s", t->cache, t->id, kept_names[t->part]);
	t->file = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (t->file < 0)
		err_errno(&err, errno, "%s", temp);
	else if (lseek(t->fds[t->part], 0, SEEK_SET) == 0)
		t->packer = packer_start(t->loop, true, part_kinds[t->part], t->id, t->fds[t->part],
					 t->file, on_packed, t, &err);
	t->temps[t->part] = temp;
	if (!t->packer)
		keep_over(t, &err);
}

static void keep(struct template *t)
{
	unsigned char raw[ID_BYTES];
	if (!t->cache || getrandom(raw, sizeof(raw), 0) != sizeof(raw))
		return;
	for (int i = 0; i < ID_BYTES; i++)
		snprintf(t->id + 2 * i, 3, "%02x", raw[i]);
	t->part = KEPT_MEMORY;
	keep_next(t);
}

/* ---- made of a VM ---- */

static void fail(struct template *t, const char *why)
{
	struct err err = ERR_INIT;
	err_set(&err, EIO, "no template: %s", why);
	end(t, &err);
}

static void made(struct template *t)
{
	struct err err = ERR_INIT;
	if (seal(t, &err) < 0) {
		end(t, &err);
		return;
	}
	let_go(t);
	snprintf(t->origin, sizeof(t->origin), " made now%.80s", t->refused);
	t->ready = true;
	keep(t);
	t->done(t->arg, NULL);
}

/* Its memory is whole, and may be sealed, once nobody maps it. */
static void maybe_stop(struct template *t)
{
	struct err err = ERR_INIT;
	if (!t->state_ended || !t->snapped || t->stopping)
		return;
	t->stopping = true;
	if (hv_stop(t->hv, HV_STOP_HARD, &err) < 0)
		fail(t, err.text);
}

static void on_state_bytes(void *arg, struct buf *in)
{
	struct template *t = arg;
	if (fd_write_all(t->fds[KEPT_STATE], buf_head(in), buf_len(in)) < 0)
		fail(t, strerror(errno));
	else
		buf_consume(in, buf_len(in));
}

static void on_state_end(void *arg, const struct err *err _unused_)
{
	struct template *t = arg;
	stream_destroy(TAKE_PTR(t->stream));
	t->state_ended = true;
	maybe_stop(t);
}

static void on_hello(void *arg, const char *boot)
{
	struct template *t = arg;
	struct err err = ERR_INIT;
	if (t->said_hello) /* the snapshot is under way */
		return;
	t->said_hello = true;
	if (strlen(boot) < sizeof(t->boot) && !strchr(boot, '\n'))
		memcpy(t->boot, boot, strlen(boot) + 1);
	if (hv_snapshot(t->hv, &err) < 0)
		fail(t, err.text);
}

static void on_guest_failed(void *arg, const char *text)
{
	fail(arg, text);
}

static void on_guest_text(void *arg _unused_, const char *text _unused_)
{
}

static void on_guest_ready(void *arg _unused_)
{
}

static void on_channel_close(void *arg, const struct err *err _unused_)
{
	struct template *t = arg; /* the hypervisor says why */
	channel_destroy(TAKE_PTR(t->channel));
}

static const struct channel_ops channel_ops = {.on_hello = on_hello,
					       .on_ready = on_guest_ready,
					       .on_failed = on_guest_failed,
					       .on_bye = on_guest_text,
					       .on_log = on_guest_text,
					       .on_close = on_channel_close};

static void on_state_stream(struct template *t, int fd)
{
	static const struct stream_ops ops = {.on_data = on_state_bytes, .on_close = on_state_end};
	struct err err = ERR_INIT;
	t->stream = stream_create(t->loop, fd, &ops, t, &err);
	if (!t->stream)
		fail(t, err.text);
}

static void on_channel_fd(struct template *t, int fd)
{
	struct err err = ERR_INIT;
	channel_destroy(TAKE_PTR(t->channel));
	t->channel = channel_create(t->loop, fd, &channel_ops, t, &err);
	if (!t->channel)
		fail(t, err.text);
}

static void on_hv_event(void *arg, const struct hv_event *e)
{
	struct template *t = arg;
	switch (e->type) {
	case HV_EVENT_CHANNEL: on_channel_fd(t, e->fd); break;
	case HV_EVENT_STREAM: on_state_stream(t, e->fd); break;
	case HV_EVENT_CONSOLE:
	case HV_EVENT_NET: close(e->fd); break;
	case HV_EVENT_DONE:
		snprintf(t->signature, sizeof(t->signature), "%s", e->signature);
		t->snapped = true;
		maybe_stop(t);
		break;
	case HV_EVENT_FAILED: fail(t, e->err->text); break;
	case HV_EVENT_GONE:
		if (t->stopping)
			made(t);
		else
			fail(t, e->reason ? e->reason : "its VM ended");
		break;
	case HV_EVENT_STATE:
	case HV_EVENT_SWITCH:
	case HV_EVENT_PROGRESS: break;
	}
}

static void on_timeout(void *arg)
{
	fail(arg, "its VM did not say hello in time");
}

/* As an ordinary VM of the cluster, but for its names and address: those are nobody's. */
static int boot(struct template *t, struct err *err)
{
	const struct vm_profile *p = t->profile;
	uint64_t mib = (p->memory + (1u << 20) - 1) >> 20;
	if (open_parts(t, err) < 0 || path_mkdirs(t->dir, 0700, err) < 0)
		return -1;
	if (ftruncate(t->fds[KEPT_MEMORY], (off_t)(mib << 20)) < 0)
		return err_errno(err, errno, "memory of a template");
	struct hv_spec spec = {.name = "template",
			       .cpus = p->cpus,
			       .memory = p->memory,
			       .kernel = p->kernel,
			       .vmlinux = p->vmlinux,
			       .initrd = p->initrd,
			       .cmdline = p->cmdline,
			       .root = p->root,
			       .dir = t->dir,
			       .machine = p->machine,
			       .accel = p->accel,
			       .trusted = p->trusted,
			       .nic = p->nic,
			       .outbound = p->outbound,
			       .extra_args = &p->extra_args,
			       .mounts = p->mounts,
			       .n_mounts = p->n_mounts,
			       .template = true,
			       .memory_fd = t->fds[KEPT_MEMORY]};
	address_mac(ADDRESS_RANKS_MAX - 1, spec.mac);
	t->timer = evtimer_create(t->loop, on_timeout, t);
	evtimer_start(t->timer, t->bound_ms, 0);
	return hv_start(p->hypervisor, t->loop, &spec, &p->probe, on_hv_event, t, &t->hv, err);
}

static void boot_or_end(struct template *t, const struct err *why)
{
	struct err err = ERR_INIT;
	let_go(t);
	if (!t->make)
		end(t, why);
	else if (boot(t, &err) < 0)
		end(t, &err);
}

/* ---- out of the cache ---- */

static void on_begin(void *arg);

static void on_fetched(void *arg, const char *from)
{
	struct template *t = arg;
	struct err err = ERR_INIT;
	t->fetch = NULL;
	if (from) {
		snprintf(t->origin, sizeof(t->origin), " of node %.80s", from);
		on_begin(t);
		return;
	}
	err_set(&err, ENOENT, "no other node has one");
	boot_or_end(t, &err);
}

/* There is none here, or not a sound one. */
static void look_elsewhere(struct template *t, const struct err *why)
{
	bool ask = t->source && t->cache && !t->asked;
	let_go(t);
	t->asked = true;
	t->origin[0] = '\0';
	if (ask)
		t->fetch = t->source->begin(t->source_arg, t->key, t->cache, on_fetched, t);
	if (!t->fetch)
		boot_or_end(t, why);
}

static void read_next(struct template *t);

static void on_unpacked(void *arg, const struct err *err)
{
	struct template *t = arg;
	packer_destroy(TAKE_PTR(t->packer));
	close(TAKE_FD(t->file));
	/* Another agent may put its own there at any moment: the parts were of two then, and both may be sound. */
	if (err && !kept_refuse(t->cache, t->key, t->id) && !t->replaced) {
		t->replaced = true;
		on_begin(t);
		return;
	}
	if (err) {
		log_warn("the template%s is of no use: %s", t->origin, err->text);
		snprintf(t->refused, sizeof(t->refused), "; that%s was of no use", t->origin);
		look_elsewhere(t, err);
		return;
	}
	t->part++;
	read_next(t);
}

static void read_next(struct template *t)
{
	struct err err = ERR_INIT;
	if (t->part == KEPT_PARTS) {
		kept_used(t->cache, t->key);
		if (seal(t, &err) < 0)
			boot_or_end(t, &err);
		else
			end(t, NULL);
		return;
	}
	_cleanup_free_ char *path = file_of(t, kept_names[t->part]);
	t->file = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (t->file < 0)
		err_errno(&err, errno, "%s", path);
	else
		t->packer = packer_start(t->loop, false, part_kinds[t->part], t->id, t->file,
					 t->fds[t->part], on_unpacked, t, &err);
	if (!t->packer)
		look_elsewhere(t, &err);
}

static int read_note(struct template *t, struct err *err)
{
	_cleanup_free_ char *path = t->cache ? file_of(t, "note") : NULL, *text = NULL;
	if (!path)
		return err_set(err, ENOENT, "no template is kept here");
	if (path_read(path, sizeof(t->id) + HV_SIGNATURE_MAX + BOOT_MAX + 3, &text, NULL, err) < 0)
		return -1;
	char *nl = strchr(text, '\n'), *last = nl ? strchr(nl + 1, '\n') : NULL;
	if (!last || nl - text != 2 * ID_BYTES || last - nl > HV_SIGNATURE_MAX ||
	    strspn(text, "0123456789abcdef") != 2 * ID_BYTES)
		return err_set(err, EBADMSG, "%s: no note of a template", path);
	memcpy(t->id, text, 2 * ID_BYTES);
	memcpy(t->signature, nl + 1, (size_t)(last - nl - 1));
	size_t n = strcspn(last + 1, "\n");
	if (n < sizeof(t->boot)) {
		memcpy(t->boot, last + 1, n);
		t->boot[n] = '\0';
	}
	return open_parts(t, err);
}

static void on_begin(void *arg)
{
	struct template *t = arg;
	struct err err = ERR_INIT;
	evtimer_destroy(TAKE_PTR(t->timer));
	if (!t->origin[0])
		snprintf(t->origin, sizeof(t->origin), " of the cache");
	t->part = KEPT_MEMORY;
	if (read_note(t, &err) < 0)
		look_elsewhere(t, &err);
	else
		read_next(t);
}

/* ---- */

struct template *template_create(struct loop *l, const struct template_spec *s,
				 void (*done)(void *arg, const struct err *err), void *arg,
				 struct err *err)
{
	if (!kept_key_ok(s->key)) {
		err_set(err, EINVAL, "'%.80s' is no name of a template", s->key);
		return NULL;
	}
	struct template *t = xcalloc(1, sizeof(*t));
	*t = (struct template){.loop = l,
			       .profile = s->profile,
			       .done = done,
			       .arg = arg,
			       .source = s->source,
			       .source_arg = s->source_arg,
			       .make = s->make,
			       .bound_ms = s->bound_ms,
			       .file = -1,
			       .fds = {-1, -1}};
	t->dir = xstrdup(s->dir);
	t->cache = s->cache ? xstrdup(s->cache) : NULL;
	t->key = xstrdup(s->key);
	t->timer = evtimer_create(l, on_begin, t);
	evtimer_start(t->timer, 0, 0);
	return t;
}

void template_destroy(struct template *t)
{
	if (!t)
		return;
	let_go(t);
	close_parts(t);
	free(t->dir);
	free(t->cache);
	free(t->key);
	free(t);
}

const char *template_origin(const struct template *t)
{
	return t->origin;
}

const char *template_boot(const struct template *t)
{
	return t->boot;
}

int template_use(const struct template *t, struct hv_spec *spec, int *ret_fd, struct err *err)
{
	char path[40];
	if (!t->ready)
		return err_set(err, EAGAIN, "the template is not ready");
	/* A description of its own: each reads from the beginning. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", t->fds[KEPT_STATE]);
	*ret_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (*ret_fd < 0)
		return err_errno(err, errno, "the template's state");
	spec->from = HV_FROM_TEMPLATE;
	spec->from_fd = *ret_fd;
	spec->signature = t->signature;
	spec->memory_fd = t->fds[KEPT_MEMORY];
	return 0;
}
