/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of xl that fail, hang or come back, with a stand-in for it. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "hypervisor/xen.h"
#include "tap.h"

#define UUID "11223344-5566-4788-bfaa-bbccddeeff01"

static struct loop *loop;
static char dir[] = "/tmp/vse-xen-run.XXXXXX";

/* ---- one call ---- */

struct outcome {
	int calls, status, asked;
	char out[200], errors[200];
};

static void on_done(void *arg, int status, const char *out, size_t len, const char *errors)
{
	struct outcome *o = arg;
	o->calls++;
	o->status = status;
	snprintf(o->out, sizeof(o->out), "%.*s", (int)len, out);
	snprintf(o->errors, sizeof(o->errors), "%s", errors);
}

static bool twice(void *arg)
{
	struct outcome *o = arg;
	return ++o->asked < 3;
}

static struct outcome call(const char *verb, unsigned bound_ms, bool (*goes_on)(void *arg))
{
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	struct outcome o = {0};
	struct err e = ERR_INIT;
	struct xen_run *r = NULL;
	strvec_addv(&argv, "xl", verb, NULL);
	if (!ok(xen_run(loop, &argv, -1, bound_ms, on_done, &o, &r, &e) == 0, "xl %s begins %s",
		verb, e.text))
		return o;
	if (goes_on)
		xen_run_ask(r, goes_on);
	while (!o.calls && loop_run_once(loop))
		;
	return o;
}

static void test_calls(void)
{
	struct outcome o = call("say", 60000, NULL);
	ok(WIFEXITED(o.status) && WEXITSTATUS(o.status) == 3, "how it ended is told");
	is_str(o.out, "out\n", "what it printed");
	is_str(o.errors, "libxl: error: bad\n", "and its errors apart");
	o = call("hang", 1000, NULL);
	ok(o.status != 0, "one that hangs is no success");
	is_str(o.errors, "no answer within 1 s", "and says so, and nothing else");
	o = call("hang", 200, twice);
	is_int(o.asked, 3, "it is asked at each bound, until there is no need to wait");
	is_int(o.calls, 1, "told once");
}

/* ---- the list ---- */

struct seen {
	int lists, there, gone, whys;
	char why[200];
};

static void on_list(void *arg, const struct xen_domain *d, uint64_t asked _unused_, const char *why)
{
	struct seen *s = arg;
	s->lists++;
	s->there += d != NULL;
	s->gone += !d && !why;
	s->whys += why != NULL;
	if (why)
		snprintf(s->why, sizeof(s->why), "%s", why);
}

static void set_list(const char *text)
{
	_cleanup_free_ char *path = path_join(dir, "list");
	if (text)
		path_write(path, text, strlen(text), 0600, NULL);
	else
		unlink(path);
}

static void test_list(void)
{
	struct seen s = {0};
	set_list("Name ID\nDomain-0  0  768  1  r-----  9.4 00000000-0000-0000-0000-000000000000 - "
		 "-\n"
		 "vm  3  32  1  --p---  0.0 " UUID " - -\n");
	struct xen_watch *w = xen_watch_create(loop, UUID, on_list, &s);
	while (!s.lists && loop_run_once(loop))
		;
	is_int(s.there, 1, "a domain that is there");
	set_list(NULL);
	while (s.lists == s.there && loop_run_once(loop))
		;
	is_int(s.gone, 0, "no list is not taken for a list without it");
	is_int(s.whys, 1, "that there is none is told");
	is_str(s.why, "xl list: no space left on the device", "with the cause");
	s.there = 0;
	set_list("Name ID\nDomain-0  0  768  1  r-----  9.4 00000000-0000-0000-0000-000000000000 - "
		 "-\n");
	while (!s.gone && loop_run_once(loop))
		;
	is_int(s.there, 0, "and then it is gone");
	xen_watch_destroy(w);
}

/* ---- the relay ---- */

static void on_end(void *arg, uint64_t bytes _unused_, bool broken _unused_)
{
	++*(int *)arg;
}

static void test_relay(void)
{
	static char much[200000], back[200000];
	int in[2], out[2], ends = 0;
	struct err e = ERR_INIT;
	if (!ok(pipe(in) == 0 && pipe(out) == 0, "pipes"))
		return;
	struct xen_relay *r = xen_relay_create(loop, in[0], out[1], on_end, &ends, &e);
	is_int(xen_relay_full(r), 0, "an empty one waits for who writes");
	while (!xen_relay_full(r) && write(in[1], much, 4096) > 0)
		loop_run_once(loop);
	ok(xen_relay_full(r), "a full one waits for who reads");
	uint64_t before = xen_relay_bytes(r);
	ok(read(out[0], back, sizeof(back)) > 0 && loop_run_once(loop), "some is read");
	ok(xen_relay_bytes(r) > before, "and it has moved");
	xen_relay_drop(r);
	close(in[1]);
	while (!ends && loop_run_once(loop))
		;
	is_int(ends, 1, "what nobody takes is thrown away, to its end");
	xen_relay_destroy(r);
	close(out[0]);
}

int main(void)
{
	static const char script[] =
		"#!/bin/sh\n"
		"case $1 in\n"
		"say) echo out; echo 'libxl: error: bad' >&2; exit 3;;\n"
		"hang) echo begun >&2; exec tail -f /dev/null;;\n"
		"list) cat \"${0%/*}/list\" 2>/dev/null || {\n"
		"	echo 'libxl: error: No space left on device' >&2; exit 1; };;\n"
		"esac\n";
	struct err e = ERR_INIT;
	if (!mkdtemp(dir))
		return 1;
	_cleanup_free_ char *xl = path_join(dir, "xl");
	if (!ok(path_write(xl, script, strlen(script), 0700, &e) == 0, "a stand-in for xl %s", e.text))
		return done();
	setenv("VSE_XL", xl, 1);
	loop = loop_create();
	test_calls();
	test_list();
	test_relay();
	loop_destroy(loop);
	path_remove(dir, NULL);
	return done();
}
