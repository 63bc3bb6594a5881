/* SPDX-License-Identifier: Apache-2.0 */
/* Not what is written about the node counts, but that namespaces can be made: bwrap is asked for its version from within
 * some. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/path.h"
#include "hypervisor/container.h"
#include "io/stream.h"

#define PROBE_MS 10000
#define SAID_MAX 4096u
#define OVERLAY_SINCE_MAJOR 5 /* an overlay in a user namespace: Linux 5.11 */
#define OVERLAY_SINCE_MINOR 11

struct probe {
	struct hv_probe p;
	struct child *child;
	struct stream *out;
	struct buf said;
	struct evtimer *timer;
	int status;
	bool ended;
	void (*done)(void *arg, const struct hv_probe *p);
	void *arg;
};

static void answer(struct probe *q)
{
	q->p.usable = !q->p.why[0];
	child_destroy(q->child);
	stream_destroy(q->out);
	evtimer_destroy(q->timer);
	buf_finish(&q->said);
	q->done(q->arg, &q->p);
	free(q);
}

static void refuse(struct probe *q, const char *why)
{
	snprintf(q->p.why, sizeof(q->p.why), "%.*s", (int)sizeof(q->p.why) - 1, why);
}

/* The last line, without control characters. */
static void last_line(struct probe *q, char *out, size_t size)
{
	const char *text = buf_cstr(&q->said);
	size_t n = strlen(text);
	while (n && text[n - 1] == '\n')
		n--;
	size_t from = n;
	while (from && text[from - 1] != '\n')
		from--;
	snprintf(out, size, "%.*s", (int)(n - from), text + from);
	for (char *c = out; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
}

static void judge(struct probe *q)
{
	char line[200], how[40];
	struct utsname u;
	last_line(q, line, sizeof(line));
	if (q->status != 0) {
		snprintf(q->p.why, sizeof(q->p.why), "%s (%s)", line[0] ? line : "bwrap",
			 child_status_text(q->status, how));
	} else {
		snprintf(q->p.version, sizeof(q->p.version), "%.63s", line);
		uname(&u);
		snprintf(q->p.note, sizeof(q->p.note),
			 "lighter protection than a VM: programs share this node's kernel %.60s, "
			 "'kernel' of the VSE has "
			 "no effect; memory is limited for each process, not for all of a VM",
			 u.release);
	}
	answer(q);
}

static void maybe(struct probe *q)
{
	if (q->ended && !q->out)
		judge(q);
}

static void on_exit_status(void *arg, int status)
{
	struct probe *q = arg;
	q->ended = true;
	q->status = status;
	maybe(q);
}

static void on_said(void *arg, struct buf *in)
{
	struct probe *q = arg;
	if (buf_len(&q->said) + buf_len(in) <= SAID_MAX)
		buf_add(&q->said, buf_head(in), buf_len(in));
	buf_consume(in, buf_len(in));
}

static void on_said_all(void *arg, const struct err *err _unused_)
{
	struct probe *q = arg;
	stream_destroy(TAKE_PTR(q->out));
	maybe(q);
}

static void on_late(void *arg)
{
	struct probe *q = arg;
	if (!q->p.why[0])
		refuse(q, "bwrap --version gives no answer");
	if (q->child)
		child_kill(q->child, SIGKILL);
	answer(q);
}

static int run(struct probe *q, struct loop *l, struct err *err)
{
	static const struct stream_ops ops = {.on_data = on_said, .on_close = on_said_all};
	_cleanup_free_ char *bwrap = path_find_program("bwrap");
	int p[2];
	if (!bwrap)
		return err_set(err, ENOENT, "program bwrap: not found: install the package bubblewrap");
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	/* Not bwrap itself: one that is killed while it starts leaves a process behind (guest/guard.c). This is one process,
	 * and shows the same: that namespaces can be made, with root's capabilities in them. */
	strvec_addv(&argv, "unshare", "--user", "--map-root-user", "--mount", "--ipc", "--uts",
		    "--net", "--", bwrap, "--version", NULL);
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, errno, "pipe");
	struct child_spec cs = {.argv = strvec_argv(&argv),
				.cwd = "/",
				.fds = {-1, p[1], p[1]},
				.n_fds = 3,
				.die_with_parent = true};
	q->out = stream_create(l, p[0], &ops, q, err);
	if (q->out)
		q->child = child_start(l, &cs, on_exit_status, q, err);
	close(p[1]);
	return q->child ? 0 : -1;
}

static int check_node(struct err *err)
{
	struct utsname u;
	struct container_ids ids;
	int major = 0, minor = 0;
	_cleanup_free_ char *unsquashfs = path_find_program("unsquashfs");
	uname(&u);
	sscanf(u.release, "%d.%d", &major, &minor);
	if (major < OVERLAY_SINCE_MAJOR || (major == OVERLAY_SINCE_MAJOR && minor < OVERLAY_SINCE_MINOR))
		return err_set(err, ENOTSUP, "Linux %d.%d or later is needed, this is %.60s",
			       OVERLAY_SINCE_MAJOR, OVERLAY_SINCE_MINOR, u.release);
	if (!unsquashfs)
		return err_set(err, ENOENT,
			       "program unsquashfs: not found: install the package squashfs-tools");
	return container_ids(&ids, err);
}

int container_probe(struct loop *l, const char *accel,
		    void (*done)(void *arg, const struct hv_probe *p), void *arg, struct err *err)
{
	struct err why = ERR_INIT;
	bool known = !accel || strcmp(accel, "auto") == 0 || strcmp(accel, "namespaces") == 0;
	struct probe *q = xcalloc(1, sizeof(*q));
	*q = (struct probe){.done = done, .arg = arg};
	snprintf(q->p.accel, sizeof(q->p.accel), "namespaces");
	q->timer = evtimer_create(l, on_late, q);
	(void)err;
	if (!known)
		err_set(&why, EINVAL, "accelerator %.40s: a container has none", accel);
	if (known && check_node(&why) == 0 && run(q, l, &why) == 0) {
		evtimer_start(q->timer, PROBE_MS, 0);
		return 0;
	}
	refuse(q, why.text);
	evtimer_start(q->timer, 0, 0); /* told from the loop, like any answer */
	return 0;
}
