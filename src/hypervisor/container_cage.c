/* SPDX-License-Identifier: Apache-2.0 */
/* bwrap makes the namespaces and waits; it tells the pid of its process 1 (--info-fd), for which the id maps are
 * written, by us as root, by newuidmap(1) and newgidmap(1) for a user; then it goes on (--userns-block-fd). A guard
 * (guest/guard.c) ends it when we end; its process 1 ends with it (--die-with-parent). */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/path.h"
#include "hypervisor/container.h"
#include "io/stream.h"

#define INFO_MAX 4096u
#define STDERR_KEEP 4096u
#define DRAIN_MS 500 /* for the end of stderr once the processes are gone */

struct cage {
	struct loop *loop;
	const struct cage_ops *ops;
	void *arg;
	struct container_ids ids;
	struct child *bwrap, *init, *tools[2]; /* bwrap's guard, process 1, newuidmap and newgidmap */
	struct stream *info, *errors;
	struct buf said, tail; /* of info; the end of stderr */
	struct evtimer *timer;
	int life;    /* its end is the end of bwrap */
	int block;   /* a byte lets bwrap go on; closed after */
	int said_to; /* the writing end of errors, for the tools */
	int status;  /* of bwrap, once it has ended */
	bool ended, init_ended;
	char failure[ERR_TEXT_MAX];
};

static void fail(struct cage *c, const char *what)
{
	if (!c->failure[0])
		snprintf(c->failure, sizeof(c->failure), "%s", what);
	cage_kill(c);
}

/* ---- the end ---- */

static void maybe_end(struct cage *c)
{
	if (!c->ended || (c->init && !c->init_ended))
		return;
	if (c->errors || c->info)
		evtimer_start(c->timer, DRAIN_MS, 0);
	else
		c->ops->on_end(c->arg, c->status);
}

static void on_drained(void *arg)
{
	struct cage *c = arg;
	stream_destroy(TAKE_PTR(c->errors));
	stream_destroy(TAKE_PTR(c->info));
	maybe_end(c);
}

static void on_bwrap(void *arg, int status)
{
	struct cage *c = arg;
	c->ended = true;
	c->status = status;
	if (c->life >= 0)
		close(TAKE_FD(c->life));
	if (c->init && !c->init_ended)
		child_kill(c->init, SIGKILL); /* it does so by itself, but for a moment right at its start */
	maybe_end(c);
}

static void on_init(void *arg, int status _unused_)
{
	struct cage *c = arg;
	c->init_ended = true;
	maybe_end(c);
}

static void on_errors(void *arg, struct buf *in)
{
	struct cage *c = arg;
	buf_add(&c->tail, buf_head(in), buf_len(in));
	buf_consume(in, buf_len(in));
	if (buf_len(&c->tail) > STDERR_KEEP)
		buf_consume(&c->tail, buf_len(&c->tail) - STDERR_KEEP);
}

static void on_errors_end(void *arg, const struct err *err _unused_)
{
	struct cage *c = arg;
	stream_destroy(TAKE_PTR(c->errors));
	maybe_end(c);
}

/* ---- the ids ---- */

static void go_on(struct cage *c)
{
	if (c->said_to >= 0)
		close(TAKE_FD(c->said_to));
	if (write(c->block, "x", 1) != 1)
		fail(c, "bwrap does not wait for its id maps");
	close(TAKE_FD(c->block));
}

static int write_map(pid_t pid, const struct container_ids *ids, bool groups, struct err *err)
{
	uint32_t m[2][3];
	_cleanup_free_ char *path = xasprintf("/proc/%d/%s", (int)pid, groups ? "gid_map" : "uid_map");
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	container_map(ids, groups, m);
	_cleanup_free_ char *text = xasprintf("%u %u %u\n%u %u %u\n", m[0][0], m[0][1], m[0][2],
					      m[1][0], m[1][1], m[1][2]);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) /* one write(2) or none */
		return err_errno(err, errno, "%s", path);
	return 0;
}

static void on_tool(struct cage *c, int which, int status)
{
	child_destroy(TAKE_PTR(c->tools[which]));
	if (status != 0)
		fail(c, "");
	else if (!c->tools[0] && !c->tools[1] && !c->failure[0] && c->block >= 0)
		go_on(c);
}

static void on_uids(void *arg, int status)
{
	on_tool(arg, 0, status);
}

static void on_gids(void *arg, int status)
{
	on_tool(arg, 1, status);
}

static int start_tool(struct cage *c, bool groups, pid_t pid, struct err *err)
{
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	uint32_t m[2][3];
	container_map(&c->ids, groups, m);
	strvec_add(&argv, groups ? "newgidmap" : "newuidmap");
	strvec_addf(&argv, "%d", (int)pid);
	for (int i = 0; i < 6; i++)
		strvec_addf(&argv, "%" PRIu32, m[i / 3][i % 3]);
	struct child_spec cs = {.argv = strvec_argv(&argv), .fds = {-1, -1, c->said_to}, .n_fds = 3};
	c->tools[groups] = child_start(c->loop, &cs, groups ? on_gids : on_uids, c, err);
	return c->tools[groups] ? 0 : -1;
}

static void map_ids(struct cage *c, pid_t pid)
{
	struct err err = ERR_INIT;
	if (c->ids.privileged) {
		if (write_map(pid, &c->ids, false, &err) < 0 || write_map(pid, &c->ids, true, &err) < 0)
			fail(c, err.text);
		else
			go_on(c);
	} else if (start_tool(c, false, pid, &err) < 0 || start_tool(c, true, pid, &err) < 0) {
		fail(c, err.text);
	}
}

/* ---- what bwrap tells ---- */

static void on_info(void *arg, struct buf *in)
{
	struct cage *c = arg;
	if (buf_len(&c->said) + buf_len(in) <= INFO_MAX)
		buf_add(&c->said, buf_head(in), buf_len(in));
	buf_consume(in, buf_len(in));
}

static void on_info_end(void *arg, const struct err *err _unused_)
{
	struct cage *c = arg;
	struct err why = ERR_INIT;
	stream_destroy(TAKE_PTR(c->info));
	json_t *j = json_loadb(buf_head(&c->said) ?: "", buf_len(&c->said), 0, NULL);
	pid_t pid = (pid_t)json_integer_value(json_object_get(j, "child-pid"));
	json_decref(j);
	if (pid > 1)
		c->init = child_adopt(c->loop, pid, on_init, c, &why);
	if (c->ended && c->init)
		child_kill(c->init, SIGKILL);
	else if (c->init)
		map_ids(c, pid);
	else if (pid > 1 && !c->ended)
		fail(c, why.text); /* else: it ends, and says why */
	maybe_end(c);
}

/* ---- start ---- */

static void add_args(struct cage *c, const struct cage_spec *spec, struct strvec *argv)
{
	/* By our own descriptor: the child's has not its number yet when the program is looked up. */
	strvec_addf(argv, "/proc/%d/fd/%d", (int)getpid(), spec->fds[CONTAINER_FD_PROGRAM]);
	strvec_add(argv, "--guard");
	strvec_addf(argv, "%" PRIu32, c->ids.privileged ? c->ids.uid : 0);
	strvec_addf(argv, "%" PRIu32, c->ids.privileged ? c->ids.gid : 0);
	strvec_add(argv, spec->copy_dir ? spec->copy_dir : "-");
	strvec_addv(argv, "bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts",
		    "--unshare-net", "--unshare-cgroup-try", "--as-pid-1", "--die-with-parent",
		    "--uid", "0", "--gid", "0", "--cap-add", "ALL", "--clearenv", "--info-fd", NULL);
	strvec_addf(argv, "%d", CONTAINER_FD_INFO);
	strvec_add(argv, "--userns-block-fd");
	strvec_addf(argv, "%d", CONTAINER_FD_BLOCK);
	strvec_copy(argv, spec->args);
}

static int run_bwrap(struct cage *c, const struct cage_spec *spec, int info, int block, int life,
		     struct err *err)
{
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	add_args(c, spec, &argv);
	_cleanup_free_ char *bwrap = path_find_program("bwrap");
	if (!bwrap)
		return err_set(err, ENOENT, "program bwrap: not found: install the package bubblewrap");
	struct child_spec cs = {
		.argv = strvec_argv(&argv), .cwd = "/", .n_fds = CONTAINER_FDS, .new_session = true};
	memcpy(cs.fds, spec->fds, sizeof(spec->fds));
	cs.fds[0] = -1;
	cs.fds[1] = cs.fds[2] = c->said_to;
	cs.fds[CONTAINER_FD_INFO] = info;
	cs.fds[CONTAINER_FD_BLOCK] = block;
	cs.fds[CONTAINER_FD_LIFE] = life;
	c->bwrap = child_start(c->loop, &cs, on_bwrap, c, err);
	return c->bwrap ? 0 : -1;
}

static int open_pipes(struct cage *c, int *ret_info, int *ret_block, int *ret_life, struct err *err)
{
	static const struct stream_ops info_ops = {.on_data = on_info, .on_close = on_info_end},
				       error_ops = {.on_data = on_errors, .on_close = on_errors_end};
	int info[2], block[2], life[2], errors[2];
	if (pipe2(info, O_CLOEXEC) < 0)
		return err_errno(err, errno, "pipe");
	*ret_info = info[1];
	c->info = stream_create(c->loop, info[0], &info_ops, c, err);
	if (!c->info)
		return -1;
	if (pipe2(block, O_CLOEXEC) < 0)
		return err_errno(err, errno, "pipe");
	*ret_block = block[0];
	c->block = block[1];
	if (pipe2(life, O_CLOEXEC) < 0)
		return err_errno(err, errno, "pipe");
	*ret_life = life[0];
	c->life = life[1];
	if (pipe2(errors, O_CLOEXEC) < 0)
		return err_errno(err, errno, "pipe");
	c->said_to = errors[1];
	c->errors = stream_create(c->loop, errors[0], &error_ops, c, err);
	return c->errors ? 0 : -1;
}

struct cage *cage_start(struct loop *l, const struct cage_spec *spec, const struct cage_ops *ops,
			void *arg, struct err *err)
{
	_cleanup_close_ int info = -1, block = -1, life = -1;
	struct cage *c = xcalloc(1, sizeof(*c));
	*c = (struct cage){.loop = l,
			   .ops = ops,
			   .arg = arg,
			   .ids = *spec->ids,
			   .block = -1,
			   .life = -1,
			   .said_to = -1};
	c->timer = evtimer_create(l, on_drained, c);
	if (open_pipes(c, &info, &block, &life, err) == 0 &&
	    run_bwrap(c, spec, info, block, life, err) == 0)
		return c;
	cage_destroy(c);
	return NULL;
}

/* bwrap ends with its process 1, and takes its exit status; alone it would leave that to the node's init. */
void cage_kill(struct cage *c)
{
	if (c->init && !c->init_ended)
		child_kill(c->init, SIGKILL);
	else if (c->life >= 0)
		close(TAKE_FD(c->life));
}

void cage_destroy(struct cage *c)
{
	if (!c)
		return;
	cage_kill(c);
	for (int i = 0; i < 2; i++)
		if (c->tools[i])
			child_kill(c->tools[i], SIGKILL);
	child_destroy(c->tools[0]);
	child_destroy(c->tools[1]);
	child_destroy(c->bwrap);
	child_destroy(c->init);
	stream_destroy(c->info);
	stream_destroy(c->errors);
	evtimer_destroy(c->timer);
	if (c->life >= 0)
		close(c->life);
	if (c->block >= 0)
		close(c->block);
	if (c->said_to >= 0)
		close(c->said_to);
	buf_finish(&c->said);
	buf_finish(&c->tail);
	free(c);
}

pid_t cage_init(const struct cage *c)
{
	return c->init && !c->init_ended ? child_pid(c->init) : 0;
}

void cage_signal(struct cage *c, int signo)
{
	if (c->init && !c->init_ended)
		child_kill(c->init, signo);
}

/* "bwrap: " and "vse-guest: " say who; the reason is what follows. */
const char *cage_words(struct cage *c, char *out, size_t size)
{
	const char *text = buf_cstr(&c->tail), *last = "";
	size_t len = 0;
	for (const char *p = text; *p;) {
		size_t n = strcspn(p, "\n");
		if (n) {
			last = p;
			len = n;
		}
		p += n + (p[n] == '\n');
	}
	if (c->failure[0])
		snprintf(out, size, "%s", c->failure);
	else
		snprintf(out, size, "%.*s", (int)len, last);
	for (char *p = out; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	return out;
}
