/* SPDX-License-Identifier: Apache-2.0 */
/* Stdin in the loop: read whole, and its mode is left as it was, for whoever shares it. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "base/macros.h"
#include "client/input.h"
#include "tap.h"

struct reading {
	struct input *in;
	char text[64];
	size_t n;
	bool eof;
};

static void on_input(void *arg, int events _unused_)
{
	struct reading *r = arg;
	ssize_t n = input_read(r->in, r->text + r->n, sizeof(r->text) - 1 - r->n);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	r->eof = n <= 0;
	r->n += n > 0 ? (size_t)n : 0;
}

/* `out` is where what fd gives comes from; -1: nothing is written, fd ends by itself. */
static void reads(const char *what, int fd, int out, const char *want)
{
	struct loop *l = loop_create();
	struct reading r = {0};
	int before = fcntl(fd, F_GETFL);
	r.in = input_create(l, fd, on_input, &r);
	ok(r.in && fcntl(fd, F_GETFL) == before, "%s: the mode is the same while it is watched", what);
	input_want(r.in, true);
	if (out >= 0 && write(out, want, strlen(want)) < 0)
		perror("write");
	while (r.n < strlen(want))
		loop_run_once(l);
	if (out >= 0)
		close(out);
	while (!r.eof)
		loop_run_once(l);
	is_str(r.text, want, "%s: it is read, to its end", what);
	input_destroy(r.in);
	loop_destroy(l);
	ok(fcntl(fd, F_GETFL) == before, "%s: and after", what);
	close(fd);
}

static void test_kinds(void)
{
	int p[2];
	if (pipe2(p, O_CLOEXEC) == 0)
		reads("a pipe", p[0], p[1], "piped");
	if (pipe2(p, O_CLOEXEC) == 0 && write(p[1], "left", 4) == 4) {
		close(p[1]);
		reads("a pipe whose writer has gone", p[0], -1, "left");
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p) == 0)
		reads("a socket", p[0], p[1], "sent");
	reads("nothing", open("/dev/null", O_RDONLY | O_CLOEXEC), -1, "");
}

static void test_file(void)
{
	char path[] = "/tmp/vse-input-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);
	unlink(path);
	if (write(fd, "one two", 7) != 7)
		perror("write");
	lseek(fd, 4, SEEK_SET);
	reads("a file that was read in part", fd, -1, "two");
}

static void test_named_pipe(void)
{
	char dir[] = "/tmp/vse-input-XXXXXX", path[64];
	if (!mkdtemp(dir))
		return;
	snprintf(path, sizeof(path), "%s/pipe", dir);
	if (mkfifo(path, 0600) < 0)
		perror("mkfifo");
	int both = open(path, O_RDWR | O_CLOEXEC), fd = open(path, O_RDONLY | O_CLOEXEC);
	if (write(both, "named", 5) != 5)
		perror("write");
	close(both);
	reads("a named pipe whose writer has gone", fd, -1, "named");
	unlink(path);
	rmdir(dir);
}

static void test_terminal(void)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	bool there = master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0;
	ok(there, "a terminal can be had");
	if (!there)
		return;
	int fd = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	struct loop *l = loop_create();
	struct reading r = {0};
	int before = fcntl(fd, F_GETFL);
	r.in = input_create(l, fd, on_input, &r);
	input_want(r.in, true);
	if (write(master, "typed\n", 6) != 6)
		perror("write");
	while (!r.n)
		loop_run_once(l);
	is_str(r.text, "typed\n", "a terminal is read");
	is_int(fcntl(fd, F_GETFL), before, "and its mode is the same");
	input_destroy(r.in);
	loop_destroy(l);
	close(fd);
	close(master);
}

int main(void)
{
	test_kinds();
	test_file();
	test_named_pipe();
	test_terminal();
	struct loop *l = loop_create();
	ok(!input_create(l, 1000000, on_input, NULL), "a closed descriptor is told");
	loop_destroy(l);
	return done();
}
