/* SPDX-License-Identifier: Apache-2.0 */
/* The launcher `local`: one node, this one. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/time.h"
#include "io/child.h"
#include "launcher/backend.h"

#define READY_MS 15000 /* a dead cluster of the same name may have to be swept first */

/* One line from the agent: "ready", or "error TEXT"; its end without one is its death. */
static int await(int fd, struct err *err)
{
	char line[ERR_TEXT_MAX + 16];
	size_t n = 0;
	uint64_t until = time_mono_ms() + READY_MS;
	for (;;) {
		uint64_t now = time_mono_ms();
		struct pollfd p = {.fd = fd, .events = POLLIN};
		if (now >= until || poll(&p, 1, (int)(until - now)) == 0)
			return err_set(err, ETIMEDOUT, "the agent did not answer within %d s",
				       READY_MS / 1000);
		ssize_t got = read(fd, line + n, sizeof(line) - 1 - n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		n += (size_t)got;
		if (memchr(line, '\n', n) || n == sizeof(line) - 1)
			break;
	}
	line[n] = '\0';
	line[strcspn(line, "\n")] = '\0';
	if (strcmp(line, "ready") == 0)
		return 0;
	if (strncmp(line, "error ", 6) == 0)
		return err_set(err, EEXIST, "%s", line + 6);
	return err_set(err, EIO, "the agent ended at once");
}

static int launch(const struct launch *l, struct err *err)
{
	int p[2];
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, errno, "pipe");
	_cleanup_close_ int rd = p[0], wr = p[1];
	char *argv[] = {(char *)l->agent,
			(char *)"--base",
			(char *)l->base,
			(char *)"--name",
			(char *)l->name,
			(char *)"--ready-fd",
			(char *)"3",
			l->verbose ? (char *)"--verbose" : NULL,
			NULL};
	struct child_spec spec = {
		.argv = argv,
		.cwd = "/",
		.fds = {-1, -1, -1, wr, l->hold_fd},
		.n_fds = 5,
		.new_session = true,
	};
	pid_t pid; /* not waited for: the agent goes on without us */
	int rc = child_spawn(&spec, &pid, err);
	close(TAKE_FD(wr));
	return rc < 0 ? -1 : await(rd, err);
}

static enum launch_fit probe(const struct launcher *l _unused_, char why[LAUNCH_WHY_MAX])
{
	return launch_fit(why, LAUNCH_USABLE, "this node");
}

/* The agent's own view tells what it has. */
static int allocate(struct allocating *a, const struct launch_request *r _unused_, struct err *err)
{
	char host[256];
	if (gethostname(host, sizeof(host)) < 0)
		return err_errno(err, errno, "name of this host");
	host[sizeof(host) - 1] = '\0';
	struct allocation *all = allocation_new(a->launcher, NULL);
	allocation_add(all, host);
	allocating_ready(a, all);
	return 0;
}

const struct launcher launcher_local = {
	.name = "local",
	.summary = "one node: this one",
	.probe = probe,
	.allocate = allocate,
	.launch = launch,
};
