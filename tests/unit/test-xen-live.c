/* SPDX-License-Identifier: Apache-2.0 */
/* A domain that is moved, saved and pinned, with a stand-in for xl (tests/fakes/xl). */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/time.h"
#include "hypervisor/xen.h"
#include "io/child.h"
#include "io/listener.h"
#include "tap.h"

extern const struct hypervisor hypervisor_xen;

#define UUID "11223344-5566-4788-bfaa-bbccddeeff01"
#define BOUND_MS 60000

static struct loop *loop;
static char dir[] = "/tmp/vse-xen-live.XXXXXX";
static pid_t model;

/* ---- the stand-in's world ---- */

static void set_file(const char *name, const char *text)
{
	_cleanup_free_ char *path = path_join(dir, name);
	if (text)
		path_write(path, text, strlen(text), 0600, NULL);
	else
		unlink(path);
}

static bool has(const char *name)
{
	_cleanup_free_ char *path = path_join(dir, name);
	return path_exists(path);
}

/* What xl was asked for since the last look, one line each. */
static const char *calls(void)
{
	static char out[1000];
	_cleanup_free_ char *path = path_join(dir, "calls"), *text = NULL;
	out[0] = '\0';
	if (path_read(path, sizeof(out) - 1, &text, NULL, NULL) == 0)
		snprintf(out, sizeof(out), "%s", text);
	unlink(path);
	return out;
}

static bool make_world(void)
{
	static const char *const programs[] = {"xl", "xenstore-read", "xenstore-watch"};
	int tty = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (!mkdtemp(dir) || tty < 0 || grantpt(tty) < 0 || unlockpt(tty) < 0)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(programs); i++) {
		_cleanup_free_ char *path = path_join(dir, programs[i]);
		if (symlink(SOURCE_DIR "/tests/fakes/xl", path) < 0)
			return false;
	}
	_cleanup_free_ char *xl = path_join(dir, "xl"),
			    *path = xasprintf("%s:%s", dir, getenv("PATH"));
	setenv("VSE_XL", xl, 1);
	setenv("PATH", path, 1);
	model = fork();
	if (model == 0) {
		pause();
		_exit(0);
	}
	_cleanup_free_ char *store = xasprintf("%s\nch0\n%d\n", ptsname(tty), (int)model);
	set_file("xenstore", store);
	return true;
}

/* ---- a VM ---- */

struct seen {
	int streams, dones, failed, pauses, runs, gone, fd;
	char reason[300], error[300], signature[100];
	enum hv_state state;
};

static void on_event(void *arg, const struct hv_event *e)
{
	struct seen *s = arg;
	switch (e->type) {
	case HV_EVENT_STATE:
		s->state = e->state;
		s->pauses += e->state == HV_PAUSED;
		s->runs += e->state == HV_RUNNING;
		break;
	case HV_EVENT_STREAM:
		s->streams++;
		s->fd = e->fd;
		snprintf(s->signature, sizeof(s->signature), "%s", e->signature);
		break;
	case HV_EVENT_DONE:
		s->dones++;
		snprintf(s->reason, sizeof(s->reason), "%s", e->reason ? e->reason : "");
		break;
	case HV_EVENT_FAILED:
		s->failed++;
		snprintf(s->error, sizeof(s->error), "%s: %.250s", e->op, e->err->text);
		break;
	case HV_EVENT_GONE: s->gone++; break;
	default:
		if (e->fd >= 0)
			close(e->fd);
	}
}

static void on_tick(void *arg _unused_)
{
}

#define until(cond)                                                                                \
	__extension__({                                                                            \
		uint64_t end_ = time_mono_ms() + BOUND_MS;                                         \
		while (!(cond) && time_mono_ms() < end_ && loop_run_once(loop))                    \
			;                                                                          \
		(cond);                                                                            \
	})

struct vm {
	struct hv_vm *vm;
	struct seen seen;
	int channel; /* nobody answers there */
};

/* One that runs: adopted, as from an agent before this one. */
static bool up(struct vm *v, const char *type, const unsigned *pins)
{
	_cleanup_free_ char *note = xasprintf("vse-c-0-11223344 " UUID
					      "\nxen=4.17 type=%s cpus=2\n",
					      type),
			    *channel = path_join(dir, "ch0");
	struct err e = ERR_INIT;
	struct hv_spec spec = {.dir = dir, .cpus = 2, .pins = pins, .memory = 32u << 20, .keep = true};
	*v = (struct vm){.seen.fd = -1, .channel = -1};
	static const char *const flags[] = {"paused", "suspended", "slow"};
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		set_file(flags[i], NULL);
	calls();
	set_file("domain", "vse-c-0-11223344 " UUID);
	set_file("xen", note);
	unlink(channel);
	if (!ok(unix_listen(channel, &v->channel, &e) == 0 &&
			hypervisor_xen.adopt(loop, &spec, on_event, &v->seen, &v->vm, &e) == 0,
		"a %s domain is adopted %s", type, e.text))
		return false;
	return ok(until(v->seen.runs || v->seen.gone) && v->seen.state == HV_RUNNING, "it runs");
}

static void down(struct vm *v)
{
	struct err e = ERR_INIT;
	if (v->vm && !v->seen.gone) {
		hypervisor_xen.stop(v->vm, HV_STOP_HARD, &e);
		ok(until(v->seen.gone), "it ends");
	}
	if (v->vm)
		hypervisor_xen.release(v->vm);
	if (v->seen.fd >= 0)
		close(v->seen.fd);
	if (v->channel >= 0)
		close(v->channel);
}

static bool begins(struct vm *v)
{
	struct err e = ERR_INIT;
	v->seen.fd = -1;
	int streams = v->seen.streams;
	return ok(hypervisor_xen.migrate_out(v->vm, &e) == 0 && v->seen.streams == streams &&
			  until(v->seen.streams > streams),
		  "a move begins, and its stream comes %s", e.text);
}

/* Reads the stream to its end. */
static bool drain(struct vm *v, struct xen_stream *state, size_t *ret_after)
{
	static char piece[65536];
	bool end = false;
	*state = (struct xen_stream){0};
	*ret_after = 0;
	fcntl(v->seen.fd, F_SETFL, O_NONBLOCK);
	uint64_t bound = time_mono_ms() + BOUND_MS;
	while (!end && time_mono_ms() < bound && loop_run_once(loop)) {
		ssize_t n = read(v->seen.fd, piece, sizeof(piece));
		if (n > 0)
			*ret_after += (size_t)n - xen_stream_feed(state, piece, (size_t)n);
		end = n == 0 || (n < 0 && errno != EAGAIN);
	}
	return end;
}

static void arrives(struct vm *v, const char *how)
{
	struct xen_stream state;
	size_t after;
	ok(drain(v, &state, &after), "%s: the stream has an end", how);
	ok(xen_stream_whole(&state) && after == 0, "%s: where the state ends", how);
	ok(until(v->seen.dones || v->seen.failed) && v->seen.dones == 1, "%s: done %s", how,
	   v->seen.error);
	v->seen.dones = 0;
	is_int(v->seen.state, HV_PAUSED, "%s: it stands still", how);
	ok(has("paused") && !has("suspended"), "%s: so that nothing lets it run by itself", how);
}

static void goes_on(struct vm *v)
{
	struct err e = ERR_INIT;
	int runs = v->seen.runs;
	ok(hypervisor_xen.resume(v->vm, &e) == 0 && until(v->seen.runs > runs),
	   "it can go on here %s", e.text);
}

static void test_live(void)
{
	struct vm v;
	if (up(&v, "pvh", NULL) && begins(&v)) {
		arrives(&v, "live");
		is_str(v.seen.reason, "", "live, so there is nothing to tell");
		is_str(calls(), "migrate -s\npause vse-c-0-11223344\n", "by xl migrate, and held");
		is_int(v.seen.pauses, 1, "told once that it stands still");
		goes_on(&v);
	}
	down(&v);
}

static void test_falls_back(void)
{
	struct vm v;
	set_file("no-logdirty", "");
	if (up(&v, "pv", NULL) && begins(&v)) {
		arrives(&v, "saved instead");
		is_str(v.seen.reason,
		       "not live (xl migrate: " XEN_NO_LOG_DIRTY "): saved, sent and restored",
		       "that it was not live is told");
		ok(strstr(calls(), "migrate -s\nsave -p vse-c-0-11223344 "),
		   "xl migrate was tried first");
		goes_on(&v);
		close(TAKE_FD(v.seen.fd));
		if (begins(&v))
			arrives(&v, "once more");
		ok(!strstr(calls(), "migrate"), "and is not tried again");
		is_str(v.seen.reason, "not live (" XEN_NO_LOG_DIRTY "): saved, sent and restored",
		       "with the cause");
	}
	down(&v);
	set_file("no-logdirty", NULL);
}

/* The guest goes on, whoever lets go. */
static void test_fails(void)
{
	struct vm v;
	struct err e = ERR_INIT;
	struct evtimer *tick = evtimer_create(loop, on_tick, NULL);
	evtimer_start(tick, 20, 20);
	if (!up(&v, "pvh", NULL)) {
		down(&v);
		evtimer_destroy(tick);
		return;
	}
	set_file("slow", "");
	if (begins(&v)) {
		close(TAKE_FD(v.seen.fd));
		ok(until(v.seen.failed || v.seen.dones) && v.seen.failed, "the target is lost: %s",
		   v.seen.error);
		ok(until(v.seen.state == HV_RUNNING) && !has("paused"), "it runs on");
	}
	if (begins(&v)) {
		is_int(hypervisor_xen.cancel(v.vm, &e), 0, "called off");
		ok(until(v.seen.failed == 2 || v.seen.dones) && v.seen.failed == 2, "it is");
		is_str(v.seen.error, "migrate out: cancelled", "as what it is");
		ok(until(v.seen.state == HV_RUNNING) && !has("paused"), "it runs on");
		close(TAKE_FD(v.seen.fd));
	}
	set_file("slow", NULL);
	v.seen.failed = 0;
	if (begins(&v))
		arrives(&v, "at last");
	close(TAKE_FD(v.seen.fd));
	goes_on(&v);
	set_file("slow", "");
	if (begins(&v)) {
		hypervisor_xen.stop(v.vm, HV_STOP_HARD, &e);
		ok(until(v.seen.gone), "stopped in the middle, it ends");
	}
	down(&v);
	evtimer_destroy(tick);
}

static void test_pins(void)
{
	struct vm v;
	struct err e = ERR_INIT;
	static const unsigned pins[] = {1, 0};
	struct evtimer *tick = evtimer_create(loop, on_tick, NULL);
	_cleanup_free_ char *path = path_join(dir, "calls"), *text = NULL;
	evtimer_start(tick, 20, 20);
	if (up(&v, "pvh", pins)) {
		ok(hypervisor_xen.pin(v.vm, 1, -1, &e) == 0 && hypervisor_xen.pin(v.vm, 5, 0, &e) < 0,
		   "another vCPU is refused: %s", e.text);
		ok(until((free(text), text = NULL, path_read(path, 1000, &text, NULL, NULL) == 0) &&
			 strstr(text, "vcpu-pin vse-c-0-11223344 0 1\n") &&
			 strstr(text, "vcpu-pin vse-c-0-11223344 1 all\n")),
		   "xl puts them where they are to be");
		hypervisor_xen.pin(v.vm, 0, 7, &e);
		ok(until(v.seen.failed), "one that cannot be: %s", v.seen.error);
	}
	down(&v);
	evtimer_destroy(tick);
}

int main(void)
{
	if (!ok(make_world(), "a stand-in for xl"))
		return done();
	loop = loop_create();
	test_live();
	test_falls_back();
	test_fails();
	test_pins();
	loop_destroy(loop);
	kill(model, SIGKILL);
	waitpid(model, NULL, 0);
	path_remove(dir, NULL);
	return done();
}
