/* SPDX-License-Identifier: Apache-2.0 */
/* launch-ssh AGENT: what the launcher `ssh` meets: a sshd that drops connections of a burst, hosts that refuse or hang,
 * login shells that talk, folders from which nothing may run, an agent that is cut short or for another processor. sshd
 * is real; the remote command is also run by hand, under each shell that is here. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/strvec.h"
#include "contract/sshd.h"
#include "io/child.h"
#include "launcher/launcher.h"
#include "launcher/payload.h"
#include "launcher/ssh_script.h"
#include "tap.h"

#define BURST 12
#define MARK "0123456789abcdef"

static char *tmp, *agent;
static struct strvec args;

/* ---- many connections ---- */

struct burst {
	struct loop *loop;
	unsigned started, failed;
	bool ended;
	struct err why;
};

static void on_started(void *arg, size_t node _unused_)
{
	struct burst *b = arg;
	b->started++;
}

static void on_failed(void *arg, size_t node _unused_, const struct err *why)
{
	struct burst *b = arg;
	b->failed++;
	b->why = *why;
}

static void on_ended(void *arg, const struct err *why _unused_)
{
	struct burst *b = arg;
	b->ended = true;
}

static const struct launch_ops ops = {.on_node_started = on_started,
				      .on_node_failed = on_failed,
				      .on_ended = on_ended};

/* Agents that get no bootstrap end at once: here only their start counts. */
static struct burst launch(const char *hosts, size_t n, struct launch_options o)
{
	static const size_t nodes[BURST] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
	struct burst b = {.loop = loop_create()};
	struct launch_node list[BURST];
	struct allocation a = {.launcher = launcher_find("ssh"), .nodes = list, .n_nodes = n};
	struct launch_agent g = {.file = agent,
				 .shared = "/nonexistent/agent",
				 .stage = true,
				 .bootstrap = "\n",
				 .bootstrap_len = 1};
	for (size_t i = 0; i < n; i++)
		list[i] = (struct launch_node){.name = (char *)hosts};
	o.args = &args;
	o.forget = true;
	struct launching *l = launcher_start(a.launcher, b.loop, &a, nodes, n, &g, &o, &ops, &b, &b.why);
	while (l && !b.ended)
		loop_run_once(b.loop);
	launching_destroy(l);
	while (loop_run_once(b.loop))
		;
	loop_destroy(b.loop);
	return b;
}

static void connections(void)
{
	struct burst b =
		launch("n1", BURST,
		       (struct launch_options){.parallel = BURST, .per_host = BURST, .tries = 40});
	is_int(b.started, BURST, "a sshd that takes 2 at once: all %d agents start by trying again",
	       BURST);
	b = launch("n1", BURST, (struct launch_options){.per_host = 1, .tries = 1});
	is_int(b.started, BURST, "one at a time to a host: none needs another try");
	b = launch("far", 1, (struct launch_options){0});
	is_int(b.failed, 1, "a host without sshd fails");
	is_int(b.why.code, ECONNREFUSED, "as what it is: %s", b.why.text);
	b = launch("dead", 1, (struct launch_options){.deadline_ms = 1500});
	is_int(b.failed, 1, "a host that hangs fails");
	is_int(b.why.code, ETIMEDOUT, "as what it is: %s", b.why.text);
	b = launch("n1", 1, (struct launch_options){.cheap_kex = true});
	is_int(b.started, 1, "the cheaper key exchange is understood");
}

/* ---- the remote command, by hand ---- */

struct remote {
	char out[65536], home[256];
	int status;
};

static bool damage; /* what is sent packed */

/* As they are, or packed. */
static int give(int fd, const char *bytes, size_t len, bool pack)
{
	struct payload p = {.data = (char *)bytes, .sent = {.size = len}};
	if (!pack)
		return fd_write_all(fd, bytes, len);
	if (payload_pack(&p, NULL) < 0)
		return -1;
	if (damage)
		((char *)p.packed)[p.packed_size / 2] ^= 1;
	_cleanup_free_ char *packed = p.packed, *line = xasprintf("%zu\n", p.packed_size);
	return fd_write_all(fd, line, strlen(line)) < 0 ? -1 : fd_write_all(fd, packed, p.packed_size);
}

/* shell -c COMMAND, with `input` once it asks for it. */
static void run(const char *const *shell, const char *command, const char *input, size_t len,
		struct remote *r)
{
	struct strvec argv = STRVEC_INIT;
	int in[2], out[2], status;
	size_t n = 0;
	pid_t pid;
	*r = (struct remote){.status = -1};
	for (; *shell; shell++)
		strvec_add(&argv, *shell);
	strvec_addv(&argv, "-c", command, NULL);
	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
		return;
	struct child_spec spec = {.argv = strvec_argv(&argv), .fds = {in[0], out[1], out[1]}, .n_fds = 3};
	int rc = child_spawn(&spec, &pid, NULL);
	strvec_finish(&argv);
	close(in[0]);
	close(out[1]);
	bool sent = false;
	ssize_t got;
	while (rc == 0 && n < sizeof(r->out) - 1 &&
	       (got = read(out[0], r->out + n, sizeof(r->out) - 1 - n)) > 0) {
		n += (size_t)got;
		bool pack = strstr(r->out, MARK " pack") != NULL;
		if (!sent && (pack || strstr(r->out, MARK " send"))) {
			sent = true;
			if (give(in[1], input, len, pack) < 0)
				break;
			close(TAKE_FD(in[1]));
		} else if (strstr(r->out, MARK " run")) {
			cleanup_close(&in[1]);
			in[1] = -1;
		}
	}
	cleanup_close(&in[1]);
	close(out[0]);
	if (rc == 0 && waitpid(pid, &status, 0) == pid)
		r->status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static char *command_of(const struct payload *p, const char *shared, bool stage)
{
	return ssh_script(MARK, shared, stage, false, p, (char *[]){(char *)"--node"}, 1);
}

/* One that may be kept. */
static char *keeping(const struct payload *p)
{
	return ssh_script(MARK, NULL, true, true, p, (char *[]){(char *)"--node"}, 1);
}

static bool empty(const char *folder)
{
	return rmdir(folder) == 0 && mkdir(folder, 0700) == 0;
}

static const char *const *shells[] = {
	(const char *const[]){"sh", NULL},
	(const char *const[]){"bash", NULL},
	(const char *const[]){"tcsh", NULL},
	(const char *const[]){"csh", NULL},
	(const char *const[]){"fish", NULL},
	(const char *const[]){"zsh", NULL},
	(const char *const[]){"busybox", "sh", NULL},
};

/* The agent ends with 41 when its input ends before the bootstrap: it ran. */
static void under_shells(const struct payload *p)
{
	_cleanup_free_ char *stage = command_of(p, NULL, true), *place = command_of(p, agent, false);
	struct remote r;
	for (size_t i = 0; i < ARRAY_SIZE(shells); i++) {
		_cleanup_free_ char *path = path_find_program(shells[i][0]);
		if (!path) {
			printf("# no %s here\n", shells[i][0]);
			continue;
		}
		run(shells[i], stage, p->data, p->sent.size, &r);
		ok(strstr(r.out, MARK " run") && r.status == 41, "%s: the agent arrives and runs",
		   shells[i][0]);
		run(shells[i], place, NULL, 0, &r);
		ok(strstr(r.out, MARK " run") && !strstr(r.out, MARK " send") &&
			   !strstr(r.out, MARK " pack") && r.status == 41,
		   "%s: the agent is found and runs", shells[i][0]);
	}
}

static void refusals(struct payload *p, const char *folder)
{
	static const char *const sh[] = {"sh", NULL};
	_cleanup_free_ char *stage = command_of(p, NULL, true), *bad = xmemdup0(p->data, p->sent.size);
	struct remote r;
	run(sh, stage, p->data, p->sent.size - 1, &r);
	ok(strstr(r.out, MARK " fail the agent did not arrive whole"),
	   "an agent that is cut short does not run");
	ok(empty(folder), "and leaves nothing");
	bad[p->sent.size / 2] ^= 1;
	damage = true;
	run(sh, stage, bad, p->sent.size, &r);
	damage = false;
	ok(strstr(r.out, MARK " fail the agent did not arrive whole"),
	   "an agent that was changed does not run");
	ok(empty(folder), "and leaves nothing");
	run(sh, stage, "", 0, &r);
	ok(strstr(r.out, MARK " fail"), "nor does one that never comes");
	ok(empty(folder), "and leaves nothing");

	_cleanup_free_ char *no = command_of(p, "/nonexistent/agent", false);
	run(sh, no, NULL, 0, &r);
	ok(strstr(r.out, MARK " fail it has no such agent at /nonexistent/agent"),
	   "one that may not be sent");
	p->whole.size++;
	_cleanup_free_ char *other = command_of(p, agent, false);
	run(sh, other, NULL, 0, &r);
	ok(strstr(r.out, MARK " fail it has no such agent"), "another size is another agent");
	p->whole.size--;
	p->whole.sha256[0] = p->whole.sha256[0] == '0' ? '1' : '0';
	_cleanup_free_ char *version = command_of(p, agent, false);
	run(sh, version, NULL, 0, &r);
	ok(strstr(r.out, MARK " fail it has no such agent"), "so is another content");

	/* the word after the mark is the processor */
	char *at = strstr(stage, MARK " ") + strlen(MARK) + 1;
	memset(at, 'x', strcspn(at, " "));
	run(sh, stage, p->data, p->sent.size, &r);
	ok(strstr(r.out, MARK " fail its processor is") && !strstr(r.out, MARK " pack"),
	   "another processor");
}

/* A PATH without sha256sum: cksum is taken. */
static void without_sha256(const struct payload *p)
{
	static const char *const tools[] = {"sh", "uname", "mktemp", "chmod",
					    "rm", "head",  "wc",     "cksum"};
	static const char *const sh[] = {"/bin/sh", NULL};
	_cleanup_free_ char *bin = path_join(tmp, "bin"), *old = xstrdup(getenv("PATH")),
			    *stage = command_of(p, NULL, true),
			    *bad = xmemdup0(p->data, p->sent.size);
	struct remote r;
	mkdir(bin, 0700);
	for (size_t i = 0; i < ARRAY_SIZE(tools); i++) {
		_cleanup_free_ char *from = path_find_program(tools[i]),
				    *to = path_join(bin, tools[i]);
		if (symlink(from, to) < 0)
			printf("# %s\n", to);
	}
	setenv("PATH", bin, 1);
	run(sh, stage, p->data, p->sent.size, &r);
	ok(strstr(r.out, MARK " send") && strstr(r.out, MARK " run") && r.status == 41,
	   "without sha256sum and zstd the agent runs");
	bad[p->sent.size / 2] ^= 1;
	run(sh, stage, bad, p->sent.size, &r);
	ok(strstr(r.out, MARK " fail"), "and one that was changed does not");
	setenv("PATH", old, 1);
}

/* A folder that cannot be written to: the next is taken. */
static void other_folder(const struct payload *p)
{
	static const char *const sh[] = {"sh", NULL};
	_cleanup_free_ char *stage = command_of(p, NULL, true), *old = xstrdup(getenv("TMPDIR"));
	struct remote r;
	setenv("TMPDIR", "/proc", 1);
	run(sh, stage, p->data, p->sent.size, &r);
	ok(strstr(r.out, MARK " run") && r.status == 41,
	   "where TMPDIR is of no use, another folder is");
	setenv("TMPDIR", old, 1);
}

static char *kept_path(const struct payload *p, const char *cache)
{
	return xasprintf("%s/%u/vse-agent-%s", cache, (unsigned)geteuid(), p->sent.sha256);
}

/* The second time nothing travels, unless what is kept is not the very agent or may not be trusted. */
static void cache_of_agents(const struct payload *p)
{
	static const char *const sh[] = {"sh", NULL};
	_cleanup_free_ char *command = keeping(p), *cache = path_join(tmp, "cache"),
			    *kept = kept_path(p, cache),
			    *own = xasprintf("%s/%u", cache, (unsigned)geteuid()),
			    *old = path_join(own, "vse-agent-old");
	struct remote r;
	setenv("VSE_CACHE", cache, 1);
	run(sh, command, p->data, p->sent.size, &r);
	ok(strstr(r.out, MARK " run") && !path_exists(kept),
	   "no cache is made where the site has named one");
	mkdir(cache, 0700);
	run(sh, command, p->data, p->sent.size, &r);
	ok((strstr(r.out, MARK " send") || strstr(r.out, MARK " pack")) && path_exists(kept) &&
		   r.status == 41,
	   "the first agent is sent, runs and is kept");
	ok(path_write(old, "", 0, 0600, NULL) == 0, "an older one beside it");
	run(sh, command, NULL, 0, &r);
	ok(strstr(r.out, MARK " run") && !strstr(r.out, MARK " send") &&
		   !strstr(r.out, MARK " pack") && r.status == 41,
	   "the second is not sent");
	int fd = open(kept, O_WRONLY);
	ok(fd >= 0 && pwrite(fd, "xx", 2, 5000) == 2, "one that was damaged");
	close(fd);
	run(sh, command, p->data, p->sent.size, &r);
	ok((strstr(r.out, MARK " send") || strstr(r.out, MARK " pack")) && r.status == 41 &&
		   !path_exists(old),
	   "is replaced, with older ones");
	run(sh, command, NULL, 0, &r);
	ok(strstr(r.out, MARK " run") && !strstr(r.out, MARK " send") && !strstr(r.out, MARK " pack"),
	   "and runs again");
	if (geteuid() == 0) {
		ok(chown(own, 1, 1) == 0, "a folder of somebody else");
		run(sh, command, p->data, p->sent.size, &r);
		ok((strstr(r.out, MARK " send") || strstr(r.out, MARK " pack")) && r.status == 41,
		   "is not looked into");
	}
	unsetenv("VSE_CACHE");
}

static void by_hand(void)
{
	_cleanup_free_ char *folder = path_join(tmp, "stage");
	struct payload *p = NULL;
	struct err err = ERR_INIT;
	mkdir(folder, 0700);
	setenv("TMPDIR", folder, 1);
	if (!ok(payload_load(agent, &p, &err) == 0, "the agent is read %s", err.text))
		return;
	ok(p->sent.size < p->whole.size, "%zu of its %zu bytes travel", p->sent.size, p->whole.size);
	under_shells(p);
	ok(empty(folder), "nothing is left in the folder");
	refusals(p, folder);
	payload_destroy(p);
	payload_load(agent, &p, NULL);
	without_sha256(p);
	other_folder(p);
	cache_of_agents(p);
	payload_destroy(p);
}

int main(int argc, char **argv)
{
	const char *base = getenv("VSE_TEST_TMP"), *why = NULL;
	_cleanup_free_ char *config = NULL, *folder = NULL;
	if (argc < 2)
		return 2;
	agent = argv[1];
	signal(SIGPIPE, SIG_IGN);
	tmp = xasprintf("%s/launch-ssh.XXXXXX", base ? base : "/tmp");
	if (!mkdtemp(tmp))
		return 2;
	by_hand();
	folder = path_join(tmp, "ssh");
	if (sshd_start(folder, "2:100:2", &config, &why)) {
		strvec_addv(&args, "-F", config, NULL);
		connections();
		sshd_stop();
	} else {
		tap_skip(why);
	}
	strvec_finish(&args);
	path_remove(tmp, NULL);
	free(tmp);
	return done();
}
