/* SPDX-License-Identifier: Apache-2.0 */
/* The library's own objects: options, errors, the loop, and calls that end or are freed at every moment, over a real
 * agent with fake VMs: `test-library PATH-OF-VSE-AGENT`. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/path.h"
#include "base/time.h"
#include "client/options.h"
#include "tap.h"

static struct vse_error *err;
static struct vse_session *s;

static const char *const echo[] = {"echo", "x", NULL}, *const nap[] = {"sleep", "60", NULL};

/* ---- options ---- */

static void test_values(void)
{
	static const struct {
		const char *key, *value, *text;
	} bad[] = {
		{"count", "0", "count: "},
		{"count", "many", "count: "},
		{"memory", "0", "memory 0: a VM needs at least 64M"},
		{"memory", "1K", "memory 1K: too small, at least 64M"},
		{"memory", "65T", "memory 65T: too large, at most 64T"},
		{"scratch", "1K", "scratch 1K: too small, at least 16M"},
		{"window", "1K", "window 1K: too small, at least 4K"},
		{"timeout", "0", "timeout 0: it needs some time"},
		{"timeout", "25h", "timeout 25h: too long, at most 24h"},
		{"lost-after", "100ms", "lost-after 100ms: from 0.5s to 24h"},
		{"accel", "gpu", "accel gpu: not one of: auto kvm tcg"},
		{"recover", "1", "recover 1: yes or no"},
		{"launcher", "teleport", "launcher teleport: there is no launcher of that name"},
		{"place", "anywhere", "place anywhere: spread, pack, or a map as n1:2,n2:1"},
		{"hosts", "n[1-", "hosts: "},
		{"hostfile", "/nosuch/file", "hostfile /nosuch/file: No such file or directory"},
		{"env", "=x", "env =x: not NAME=VALUE"},
		{"user", "\xff", "user: not UTF-8 text"},
	};
	struct vse_options *o = vse_options_new();
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		int rc = vse_options_set(o, bad[i].key, bad[i].value, err);
		ok(rc == -EINVAL && strcmp(vse_error_option(err), bad[i].key) == 0 &&
			   strncmp(vse_error_text(err), bad[i].text, strlen(bad[i].text)) == 0,
		   "%s", bad[i].text);
		ok(!options_text(o, bad[i].key), "and it is not set");
	}
	is_int(vse_options_set(o, "nosuch", "1", NULL), -EINVAL, "no such key, and nobody asks why");
	vse_options_free(o);
}

static void test_options(void)
{
	struct vse_options *o = vse_options_new();
	is_int(options_int(o, "count", 7), 7, "not set");
	is_int(vse_options_set(o, "count", "3", err), 0, "set");
	is_int(vse_options_set(o, "count", "4", err), 0, "again");
	is_int(options_int(o, "count", 7), 4, "the last counts");
	is_int(vse_options_set(o, "count", "x", err), -EINVAL, "not to a wrong value");
	is_int(options_int(o, "count", 7), 4, "which changes nothing");
	is_int(vse_options_set(o, "count", NULL, err), 0, "taken back");
	is_int(options_int(o, "count", 7), 7, "is not set");
	vse_options_set(o, "env", "A=1", err);
	vse_options_set(o, "env", "B=2", err);
	is_int(options_all(o, "env")->n, 2, "a repeatable one grows");
	is_int(options_check(o, FOR_EXEC, err), 0, "they are options of exec");
	is_int(options_check(o, FOR_UP, err), -EINVAL, "and not of up");
	is_str(vse_error_text(err), "env: not an option of this call", "it says which");
	is_int(options_check(NULL, FOR_UP, err), 0, "none at all are fine");
	vse_options_set(o, "memory", "1.5G", err);
	vse_options_set(o, "wait", "2m", err);
	vse_options_set(o, "recover", "yes", err);
	is_int(options_size(o, "memory", 0), 1536ll << 20, "a size");
	is_int(options_ms(o, "wait", 0), 120000, "a time");
	ok(options_flag(o, "recover") && !options_flag(o, "tty"), "flags");
	vse_options_free(o);
	vse_options_free(NULL);
}

/* ---- the loop ---- */

static void on_alarm(int signo _unused_)
{
	vse_cancel(s);
}

static void test_loop(void)
{
	char *names = NULL;
	struct vse_cluster *c = NULL;
	is_int(vse_dispatch(s, 0, err), 0, "what is due: nothing, at once");
	is_int(vse_timeout(s), -1, "then an idle session waits for ever");
	uint64_t begun = time_mono_ms();
	is_int(vse_dispatch(s, 30, err), 0, "after a while");
	ok(time_mono_ms() - begun >= 29, "which has passed");
	is_int(vse_list(s, &names, err), 0, "the list of clusters");
	is_str(names, "", "is empty");
	vse_free(names);
	is_int(vse_attach(s, NULL, &c, err), -ENOENT, "none to attach to");
	is_int(vse_attach(s, "A b", &c, err), -EINVAL, "no name of a cluster");
	ok(!c, "nothing is given");
	is_int(vse_set(s, "nosuch", "/", err), -EINVAL, "no such setting");
	is_int(vse_close(NULL), 0, "no session");
	vse_release(NULL);
	vse_call_free(NULL);
	vse_error_free(NULL);
}

/* ---- calls ---- */

struct seen {
	struct vse_call *call;
	struct vse_cluster *cluster;
	int calls, ends, free_at, release_at, refuse_at; /* at that call of the callback; 0: never */
	int64_t code;
};

static int on_event(void *arg, const struct vse_event *e)
{
	struct seen *seen = arg;
	int n = ++seen->calls;
	if (vse_event_kind(e) == VSE_ENDED) {
		seen->ends++;
		seen->code = vse_event_number(e, "code");
	}
	if (n == seen->free_at)
		vse_call_free(seen->call);
	if (n == seen->release_at)
		vse_release(seen->cluster);
	return n == seen->refuse_at;
}

static struct vse_cluster *attach(void)
{
	struct vse_cluster *c = NULL;
	if (vse_attach(s, "one", &c, err) < 0 || vse_size(c, err) != 3)
		printf("# attach: %s\n", vse_error_text(err));
	return c;
}

/* Every call of the callback is a moment at which the user may free the call, its cluster, or refuse. */
static void test_freed(void)
{
	int moments = 0;
	for (int at = 1; !moments || at <= moments; at++) {
		struct seen all = {.cluster = attach()}, freed = {.free_at = at},
			    refused = {.refuse_at = at}, released = {.release_at = at};
		struct vse_cluster *c = all.cluster;
		released.cluster = attach();
		vse_exec(c, NULL, echo, on_event, &all, &all.call, err);
		vse_exec(c, NULL, echo, on_event, &freed, &freed.call, err);
		vse_exec(c, NULL, echo, on_event, &refused, &refused.call, err);
		vse_exec(released.cluster, NULL, echo, on_event, &released, &released.call, err);
		while (!all.ends || freed.calls < at || refused.calls < at || released.calls < at)
			vse_dispatch(s, -1, err);
		moments = all.calls;
		if (!ok(freed.calls == at && vse_exit_code_max(all.call) == 0 && all.code == 0,
			"freed at %d of %d: nothing comes after", at, moments))
			printf("#   %d calls\n", freed.calls);
		ok(refused.calls == at, "refused there: the same");
		ok(vse_wait(refused.call, err) == (at < moments ? -ECANCELED : 0), "it says so");
		ok(released.calls <= at + 1 && released.ends == 1,
		   "released there: only the end comes");
		vse_call_free(all.call);
		vse_call_free(refused.call);
		vse_call_free(released.call);
		vse_release(c);
	}
}

static void test_cancelled(void)
{
	struct seen seen = {.cluster = attach()};
	vse_exec(seen.cluster, NULL, nap, on_event, &seen, &seen.call, err);
	signal(SIGALRM, on_alarm);
	ualarm(20000, 0);
	is_int(vse_wait(seen.call, err), -ECANCELED, "a signal handler cancels a wait");
	is_int(vse_wait(seen.call, err), -ECANCELED, "which is over then");
	is_int(vse_write(seen.call, "x", 1), -EINVAL, "it has no input");
	is_int(vse_read_from(seen.call, 0, err), -EINVAL, "by no way");
	vse_signal(seen.call, SIGTERM);
	vse_resize(seen.call, 1, 1);
	vse_credit(seen.call, 0, 1, 1);
	vse_call_free(seen.call);
	vse_exec(seen.cluster, NULL, nap, on_event, &seen, &seen.call, err);
	vse_call_free(seen.call);
	vse_exec(seen.cluster, NULL, nap, NULL, NULL, &seen.call, err);
	vse_release(seen.cluster);
	is_int(vse_wait(seen.call, err), -ECANCELED, "released before: the call has ended");
	vse_call_free(seen.call);
}

static int count_up(void *arg, const struct vse_event *e _unused_)
{
	int *left = arg;
	return --*left == 0;
}

static int up(const char *file, const char *name, int refuse_at, struct vse_cluster **ret)
{
	struct vse_options *o = vse_options_new();
	vse_options_set(o, "hypervisor", "fake", err);
	vse_options_set(o, "count", "3", err);
	vse_options_set(o, "name", name, err);
	int rc = vse_up(s, file, o, count_up, &refuse_at, ret, err);
	vse_options_free(o);
	return rc;
}

static void test_cluster(const char *file)
{
	struct vse_cluster *c = NULL, *other = NULL;
	char *names;
	is_int(up(file, "one", 1, &c), -ECANCELED, "up, refused at its first word");
	is_int(up(file, "one", 2, &c), -ECANCELED, "and at the second");
	ok(!c, "nothing is given");
	if (!ok(up(file, "one", 0, &c) == 0, "up")) {
		printf("#   %s\n", vse_error_text(err));
		return;
	}
	is_int(up(file, "one", 0, &other), -EEXIST, "not twice");
	test_freed();
	test_cancelled();
	is_int(vse_down(c, 0, err), 0, "down");
	is_int(vse_list(s, &names, err), 0, "the list");
	is_str(names, "", "has nothing left");
	vse_free(names);
	ok(vse_size(c, err) == 3 && vse_detach(c, err) < 0,
	   "the handle is there, the cluster is not");
}

int main(int argc, char **argv)
{
	char dir[] = "/tmp/vse-test-library.XXXXXX";
	if (!mkdtemp(dir))
		return 1;
	_cleanup_free_ char *base = path_join(dir, "run"), *file = path_join(dir, "f.yaml");
	static const char vse[] = "vse: 1\nname: f\nbase: debian:bookworm\n";
	path_write(file, vse, sizeof(vse) - 1, 0600, NULL);
	err = vse_error_new();
	test_values();
	test_options();
	is_int(vse_open(&s, err), 0, "a session");
	vse_set(s, "rundir", base, err);
	test_loop();
	_cleanup_free_ char *agent = argc > 1 ? realpath(argv[1], NULL) : NULL;
	if (agent && vse_set(s, "agent", agent, err) == 0)
		test_cluster(file);
	else
		tap_skip("no path of vse-agent was given");
	is_int(vse_close(s), 0, "closed");
	vse_error_free(err);
	path_remove(dir, NULL);
	return done();
}
