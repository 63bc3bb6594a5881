/* SPDX-License-Identifier: Apache-2.0 */
/* Plays the agent in the contract test of the launchers: reads its bootstrap, "SECRET SOCKET", as an agent would, and
 * says hello on that Unix socket: "hello SECRET PID NODE INDEX HOW". Ends with 0 when its input (where the bootstrap
 * came that way) or the connection ends, and with N at the word "exit N". */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "launcher/launcher.h"

/* Not buffered: the input is watched after it. */
static bool read_line(int fd, char *line, size_t size)
{
	size_t n = 0;
	while (n + 1 < size && read(fd, line + n, 1) == 1)
		if (line[n++] == '\n')
			break;
	line[n] = '\0';
	return n && line[n - 1] == '\n';
}

static int connect_to(const char path[108])
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	memcpy(a.sun_path, path, strlen(path) + 1);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return -1;
	return fd;
}

static const char *node(void)
{
	static const char *const names[] = {"SLURMD_NODENAME", "STAND_IN_NODE", "ALPS_APP_PE"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (getenv(names[i]))
			return getenv(names[i]);
	return "-";
}

/* Those of ALPS, where it has opened them: they are not ours to close. */
static bool alps_fds_open(void)
{
	static const int fds[] = {100, 102, 108, 110};
	struct stat st;
	for (size_t i = 0; getenv("ALPS_APP_PE") && i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fstat(fds[i], &st) < 0)
			return false;
	return true;
}

static int serve(int fd, int input)
{
	struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = input, .events = POLLIN}};
	char line[64];
	for (;;) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return 1;
		if (p[1].revents && read(input, line, sizeof(line)) <= 0)
			return 0;
		if (p[0].revents) {
			if (!read_line(fd, line, sizeof(line)))
				return 0;
			if (strncmp(line, "exit ", 5) == 0)
				return atoi(line + 5);
		}
	}
}

int main(int argc, char **argv)
{
	char line[512], secret[128], path[108], hello[1024];
	const char *file = NULL, *index = "-";
	launcher_name_self(argv[0]);
	for (int i = 1; i + 1 < argc; i++) {
		if (strcmp(argv[i], "--bootstrap") == 0)
			file = argv[i + 1];
		if (strcmp(argv[i], "--index") == 0)
			index = argv[i + 1];
	}
	FILE *f = file ? fopen(file, "re") : NULL;
	struct stat st;
	if (file &&
	    (!f || fstat(fileno(f), &st) < 0 || (st.st_mode & 077) || !fgets(line, sizeof(line), f)))
		return 40;
	if (!file && !read_line(STDIN_FILENO, line, sizeof(line)))
		return 41;
	if (f)
		fclose(f);
	if (sscanf(line, "%127s %107s", secret, path) != 2)
		return 42;
	puts("a word of the agent");
	fflush(stdout);
	int fd = connect_to(path);
	int n = snprintf(hello, sizeof(hello), "hello %s %d %s %s %s\n", secret, (int)getpid(),
			 node(), index,
			 !alps_fds_open() ? "closed"
			 : file           ? "file"
					  : "stdin");
	if (fd < 0 || write(fd, hello, (size_t)n) != n)
		return 43;
	return serve(fd, file ? -1 : STDIN_FILENO);
}
