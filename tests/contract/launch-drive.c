/* SPDX-License-Identifier: Apache-2.0 */
/* launch-drive [options] AGENT: a launcher by hand, for tests on several nodes: gets nodes, starts the agent (launch-agent)
 * on each, and prints a line for whatever happens. Every node must see its folder ($VSE_LAUNCH_DIR). Words on standard
 * input: "left" asks for the time that is left, "exit N" ends the agents, "destroy" ends the launching and the
 * program; so does the end of the input.
 *   --launcher NAME  --hosts LIST  --nodes N  --arg WORD  --pick 0,2  --stage  --cheap  --wait MS  --deadline MS */
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/size.h"
#include "base/strvec.h"
#include "io/listener.h"
#include "io/stream.h"
#include "launcher/launcher.h"

#define AGENTS_MAX 4096

static struct launch_request request;
static struct launch_options options;
static struct launch_agent agent;
static struct strvec args;
static size_t picked[AGENTS_MAX], n_picked;
static struct loop *loop;
static struct allocation *allocation;
static struct launching *launching;
static struct time_query *left;
static struct stream *agents[AGENTS_MAX];
static size_t n_agents, n_hello;
static char *folder, *bootstrap;
static uint64_t began;
static bool over;
static int code;

#define say(...)                                                                                   \
	do {                                                                                       \
		printf(__VA_ARGS__);                                                               \
		putchar('\n');                                                                     \
		fflush(stdout);                                                                    \
	} while (0)

/* ---- agents ---- */

static void on_hello(void *arg _unused_, struct buf *in)
{
	char secret[64], node[64], index[16], how[16];
	int pid;
	const char *text = buf_cstr(in);
	if (!strchr(text, '\n'))
		return;
	if (sscanf(text, "hello %63s %d %63s %15s %15s", secret, &pid, node, index, how) == 5 &&
	    strcmp(secret, "0123456789abcdef") == 0)
		say("hello %s %s %s %d", node, how, index, pid);
	buf_clear(in);
	if (++n_hello == n_picked)
		say("all %zu in %llu ms", n_hello, (unsigned long long)(loop_now(loop) - began));
}

static void on_gone(void *arg _unused_, const struct err *err _unused_)
{
	say("gone");
}

static void on_connect(void *arg _unused_, int fd, uid_t uid _unused_)
{
	static const struct stream_ops ops = {.on_data = on_hello, .on_close = on_gone};
	if (n_agents < AGENTS_MAX)
		agents[n_agents++] = stream_create(loop, fd, &ops, NULL, NULL);
}

/* ---- launching ---- */

static void on_started(void *arg _unused_, size_t node)
{
	say("started %zu", node);
}

static void on_failed(void *arg _unused_, size_t node, const struct err *why)
{
	say("failed %s: %s (%s)", node == LAUNCH_ALL ? "all" : allocation->nodes[picked[node]].name,
	    why->text, strerrorname_np(why->code) ?: "?");
}

static void on_ended(void *arg _unused_, const struct err *why)
{
	say("ended %s", why->code ? why->text : "well");
	over = true;
}

static void on_output(void *arg _unused_, size_t node _unused_, const char *line)
{
	say("output %s", line);
}

static void start(struct allocation *a)
{
	static const struct launch_ops ops = {.on_node_started = on_started,
					      .on_node_failed = on_failed,
					      .on_ended = on_ended,
					      .on_output = on_output};
	_cleanup_free_ unsigned *index = xcalloc(a->n_nodes, sizeof(*index));
	struct err err = ERR_INIT;
	allocation = a;
	say("job %s end %lld", a->job, (long long)a->end_time);
	for (size_t i = 0; i < a->n_nodes; i++)
		say("node %s cores %u memory %llu group %u", a->nodes[i].name, a->nodes[i].cores,
		    (unsigned long long)(a->nodes[i].memory >> 20), a->nodes[i].group);
	for (size_t i = 0; !n_picked && i < a->n_nodes && i < AGENTS_MAX; i++)
		picked[i] = i;
	n_picked = n_picked ? n_picked : MIN(a->n_nodes, (size_t)AGENTS_MAX);
	for (size_t i = 0; i < n_picked; i++)
		index[i] = (unsigned)i + 1;
	agent.index = index;
	options.args = &args;
	began = loop_now(loop);
	launching = launcher_start(a->launcher, loop, a, picked, n_picked, &agent, &options, &ops,
				   NULL, &err);
	if (!launching) {
		say("not started: %s", err.text);
		over = true;
		code = 1;
	}
}

/* ---- nodes ---- */

static void on_progress(void *arg _unused_, const char *text)
{
	say("progress %s", text);
}

static void on_ready(void *arg _unused_, struct allocation *a)
{
	start(a);
}

static void on_no_nodes(void *arg _unused_, const struct err *why)
{
	say("no nodes: %s", why->text);
	over = true;
	code = 1;
}

/* ---- the user ---- */

static void on_left(void *arg _unused_, int64_t seconds)
{
	say("left %lld", (long long)seconds);
	time_query_destroy(TAKE_PTR(left));
}

static void on_word(const char *word)
{
	if (strcmp(word, "destroy") == 0)
		over = true;
	else if (strcmp(word, "left") == 0 && allocation && !left)
		left = launcher_time_left(loop, allocation, on_left, NULL);
	else if (strncmp(word, "exit ", 5) == 0)
		for (size_t i = 0; i < n_agents; i++)
			stream_write(agents[i], word, strlen(word));
}

static void on_input(void *arg _unused_, struct buf *in)
{
	const char *text = buf_cstr(in), *nl;
	while ((nl = strchr(text, '\n'))) {
		_cleanup_free_ char *word = xstrndup(text, (size_t)(nl - text)),
				    *line = xasprintf("%s\n", word);
		on_word(strncmp(word, "exit ", 5) == 0 ? line : word);
		buf_consume(in, (size_t)(nl - text) + 1);
		text = buf_cstr(in);
	}
}

static void on_input_end(void *arg _unused_, const struct err *err _unused_)
{
	over = true;
}

static void read_options(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *o = argv[i], *v = i + 1 < argc ? argv[i + 1] : "";
		if (strcmp(o, "--stage") == 0)
			agent.stage = true;
		else if (strcmp(o, "--cheap") == 0)
			options.cheap_kex = true;
		else if (o[0] != '-')
			agent.file = o;
		else if (strcmp(o, "--launcher") == 0 && ++i)
			request.launcher = v;
		else if (strcmp(o, "--hosts") == 0 && ++i)
			request.hosts = v;
		else if (strcmp(o, "--nodes") == 0 && ++i)
			request.nodes = (unsigned)atoi(v);
		else if (strcmp(o, "--arg") == 0 && ++i)
			strvec_add(&args, v);
		else if (strcmp(o, "--wait") == 0 && ++i)
			request.wait_ms = (uint64_t)atoi(v);
		else if (strcmp(o, "--deadline") == 0 && ++i)
			options.deadline_ms = (uint64_t)atoi(v);
		else if (strcmp(o, "--tries") == 0 && ++i)
			options.tries = options.per_host = (unsigned)atoi(v);
		else if (strcmp(o, "--pick") == 0 && ++i)
			for (char *at = argv[i]; *at; at += *at == ',')
				picked[n_picked++] = strtoul(at, &at, 10);
	}
}

static struct allocating *begin(struct err *err)
{
	static const struct allocate_ops ops = {.on_progress = on_progress,
						.on_ready = on_ready,
						.on_failed = on_no_nodes};
	const struct launcher *l;
	char why[LAUNCH_WHY_MAX];
	request.args = &args;
	if (launcher_pick(&request, &l, why, err) < 0)
		return NULL;
	say("launcher %s: %s", l->name, why);
	return launcher_allocate(l, loop, &request, &ops, NULL, err);
}

static void finish(struct listener *ln, struct stream *input, struct allocating *a)
{
	time_query_destroy(left);
	launching_destroy(launching);
	allocating_destroy(a);
	allocation_destroy(allocation);
	for (size_t i = 0; i < n_agents; i++)
		stream_destroy(agents[i]);
	stream_destroy(input);
	listener_destroy(ln);
	while (loop_run_once(loop))
		;
	loop_destroy(loop);
	rmdir(agent.bootstrap_dir);
	strvec_finish(&args);
	free(bootstrap);
}

int main(int argc, char **argv)
{
	static const struct stream_ops input_ops = {.on_data = on_input, .on_close = on_input_end};
	struct err err = ERR_INIT;
	read_options(argc, argv);
	folder = getenv("VSE_LAUNCH_DIR");
	if (!folder || !agent.file)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	_cleanup_free_ char *private = path_join(folder, "private"),
			    *path = path_join(folder, "hello");
	mkdir(private, 0700);
	unlink(path);
	bootstrap = xasprintf("0123456789abcdef %s\n", path);
	agent.bootstrap = bootstrap;
	agent.bootstrap_len = strlen(bootstrap);
	agent.bootstrap_dir = private;
	agent.shared = agent.stage ? "/nonexistent/agent" : NULL;
	loop = loop_create();
	struct listener *ln = listener_create(loop, path, on_connect, NULL, &err);
	struct stream *input = ln ? stream_create(loop, dup(0), &input_ops, NULL, &err) : NULL;
	struct allocating *a = input ? begin(&err) : NULL;
	if (!a) {
		say("wrong: %s", err.text);
		over = true;
		code = 1;
	}
	while (!over && loop_run_once(loop))
		;
	finish(ln, input, a);
	return code;
}
