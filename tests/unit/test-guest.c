/* SPDX-License-Identifier: Apache-2.0 */
/* The guest agent as an ordinary process: `test-guest PATH-OF-VSE-GUEST [--small]`. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/time.h"
#include "guest-client.h"
#include "tap.h"
#include "wire/archive.h"
#include "wire/guestproto.h"
#include "wire/kv.h"

#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})
#define SH(script) ARGV("/bin/sh", "-c", script)
#define KV(...) ((const char *const[]){__VA_ARGS__, NULL})
#define WINDOW 65536

static struct client c;
static const char *guest;
static char top[] = "/tmp/vse-test-guest.XXXXXX";

static char *at(const char *rel)
{
	static char ring[8][512];
	static unsigned turn;
	char *p = ring[turn++ % 8];
	snprintf(p, sizeof(ring[0]), "%s/%s", top, rel);
	return p;
}

static bool text_is(struct job *j, int fd, const char *want)
{
	return strcmp(buf_cstr(&j->out[fd]), want) == 0;
}

/* Runs to its end; the caller looks at it and forgets it. */
static struct job *run(const char *const *argv, const char *const *more)
{
	struct job *j = client_exec(&c, argv, WINDOW, more);
	client_wait(&c, j);
	return j;
}

/* All that was sent before has been handled when this returns. */
static bool ping(void)
{
	unsigned n = c.pongs;
	client_verb(&c, 77, "ping", NULL);
	return client_until(&c, &c.pongs, n + 1);
}

static void begins(void)
{
	struct utsname before, after;
	uname(&before);
	ok(client_until(&c, &c.hellos, 1), "it says hello");
	client_setup(&c, KV("hostname", "evil-name", "time_ns", "1", "rank", "3", "size", "8",
			    "hosts", "x", "env", "COLOUR=blue 'n' green", "env", "not a variable",
			    "mac", "52:54:00:00:00:01", "ipv4", "10.0.0.1/8"));
	is_int(c.readies, 1, "setup is answered by ready");
	uname(&after);
	ok(strcmp(before.nodename, after.nodename) == 0 && time(NULL) > 1000000000,
	   "an ordinary process touches neither name nor clock");
	ok(c.logs == 1 && strstr(c.last_log, "not a variable"), "what is no variable is told");
	client_verb(&c, 5, "stats", NULL);
	ok(ping() && kv_num(buf_head(&c.stats), buf_len(&c.stats), "mem_total", 0) > 1 << 20,
	   "stats");
}

static void exit_codes(void)
{
	static const struct {
		const char *script;
		int code, signal;
		const char *out, *err;
	} t[] = {
		{"echo out; echo err >&2", 0, -1, "out\n", "err\n"},
		{"exit 42", 42, -1, "", ""},
		{"exit 255", 255, -1, "", ""},
		{"kill -9 $$", -1, 9, "", ""},
		{"kill -TERM $$", -1, 15, "", ""},
		{"printf '\\000\\377'; exit 1", 1, -1, NULL, ""},
		{"read x || echo none", 0, -1, "none\n", ""},
		{"echo $COLOUR $VSE_RANK $VSE_SIZE", 0, -1, "blue 'n' green 3 8\n", ""},
	};
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct job *j = run(SH(t[i].script), NULL);
		bool out = t[i].out ? text_is(j, 1, t[i].out)
				    : buf_len(&j->out[1]) == 2 &&
					      memcmp(buf_head(&j->out[1]), "\0\377", 2) == 0;
		ok(j->started && j->pid > 1 && j->code == t[i].code && j->signal == t[i].signal &&
			   out && text_is(j, 2, t[i].err) && j->end[1] && j->end[2],
		   "%s: code %d, signal %d", t[i].script, j->code, j->signal);
		client_forget(&c, j);
	}
}

static void cannot_run(void)
{
	struct job *j = run(ARGV("no-such-program-here"), NULL);
	ok(j->code == 127 && strstr(buf_cstr(&j->out[2]), "no-such-program-here: not found"),
	   "not there: 127");
	client_forget(&c, j);
	j = run(ARGV("/etc/passwd"), NULL);
	ok(j->code == 126 && strstr(buf_cstr(&j->out[2]), "Permission denied"),
	   "not executable: 126");
	client_forget(&c, j);
	j = run(SH("true"), KV("cwd", "/no/such/folder"));
	ok(j->code == 126 && strstr(buf_cstr(&j->out[2]), "/no/such/folder"),
	   "no such folder: 126");
	client_forget(&c, j);
	j = run(SH("true"), KV("user", "nobody-of-that-name"));
	ok(j->error == ENOENT && strstr(j->text, "nobody-of-that-name"), "no such user: %s", j->text);
	client_forget(&c, j);
	j = run(SH("true"), KV("user", "12:x"));
	is_int(j->error, EINVAL, "a malformed user");
	client_forget(&c, j);
	j = run((const char *const[]){NULL}, NULL);
	is_int(j->error, EINVAL, "no program at all");
	client_forget(&c, j);
	j = run(ARGV("env"), KV("env", "A=1", "env", "PATH=/usr/bin:/bin", "env", "A=2"));
	ok(strstr(buf_cstr(&j->out[1]), "\nA=2") && !strstr(buf_cstr(&j->out[1]), "A=1") &&
		   strstr(buf_cstr(&j->out[1]), "PATH=/usr/bin:/bin\n") &&
		   strstr(buf_cstr(&j->out[1]), "HOME=/"),
	   "the request's variables win, the usual ones are set");
	client_forget(&c, j);
	j = run(ARGV("pwd"), KV("cwd", "/usr/bin"));
	ok(text_is(j, 1, "/usr/bin\n"), "the folder is changed");
	client_forget(&c, j);
	FILE *f = fopen(at("script"), "w");
	fputs("echo plain\n", f);
	fclose(f);
	chmod(at("script"), 0755);
	j = run(ARGV(at("script")), NULL);
	ok(j->code == 0 && text_is(j, 1, "plain\n"), "a script without #! is run by the shell");
	client_forget(&c, j);
	j = run(SH("id -u; id -g"), KV("user", "4321:4322"));
	if (geteuid() == 0)
		ok(text_is(j, 1, "4321\n4322\n"), "another user and group");
	else
		ok(j->code == 126 && strstr(buf_cstr(&j->out[2]), "4321"),
		   "another user cannot be had");
	client_forget(&c, j);
	j = run(SH("ulimit -n; grep SigIgn /proc/self/status; grep SigBlk /proc/self/status; ls "
		   "/proc/self/fd | wc -l"),
		NULL);
	ok(text_is(j, 1, "1024\nSigIgn:\t0000000000000000\nSigBlk:\t0000000000000000\n4\n"), /* 0-2, and ls reading */
	   "limits, signals and descriptors are a fresh program's");
	client_forget(&c, j);
}

#define BULK (10u << 20)

static void bulk(void)
{
	char *data = xmalloc(BULK);
	for (size_t i = 0; i < BULK; i++)
		data[i] = (char)(i * 2654435761u >> 24);
	struct job *j = client_exec(&c, ARGV("cat"), WINDOW, KV("stdin", "1"));
	client_input(j, data, BULK, true);
	client_wait(&c, j);
	ok(j->code == 0 && buf_len(&j->out[1]) == BULK && memcmp(buf_head(&j->out[1]), data, BULK) == 0,
	   "10 MiB go through cat and come back");
	ok(!c.wrong[0], "no window was exceeded: %s", c.wrong);
	client_forget(&c, j);

	j = client_exec(&c, SH("head -c 5; exec 0<&-; echo"), WINDOW, KV("stdin", "1"));
	client_input(j, data, BULK, true);
	client_wait(&c, j);
	ok(j->code == 0 && buf_len(&j->out[1]) == 6, "a program need not read its input");
	client_forget(&c, j);
	j = client_exec(&c, SH("exec 0<&-; sleep 1; echo done"), WINDOW, KV("stdin", "1"));
	client_input(j, data, 4 << 20, true);
	client_wait(&c, j);
	ok(j->code == 0 && text_is(j, 1, "done\n") && j->in_sent >= 3u << 20,
	   "input that it closed is thrown away, and does not stop the host");
	client_forget(&c, j);
	free(data);
}

static void windows_hold(void)
{
	struct job *j = client_exec(&c, SH("head -c 500000 /dev/zero; echo end >&2"), 50000, NULL);
	j->hold = true;
	while (j->got[1] < 50000 && client_pump(&c, CLIENT_WAIT_MS))
		;
	for (int i = 0; i < 20; i++)
		ping();
	ok(j->got[1] == 50000 && !j->ended, "output stops at the window: %llu",
	   (unsigned long long)j->got[1]);
	struct job *other = run(SH("echo meanwhile"), NULL);
	ok(text_is(other, 1, "meanwhile\n"), "others go on");
	client_forget(&c, other);
	frame_write_credit(&c.out, j->id, 0, 1, 500000);
	j->allowed[1] += 500000;
	client_wait(&c, j);
	ok(j->got[1] == 500000 && text_is(j, 2, "end\n") && j->code == 0,
	   "and goes on with credit");
	client_forget(&c, j);

	j = client_exec(&c, SH("head -c 300000 /dev/zero | tee /dev/stderr"), 1000, NULL);
	client_wait(&c, j);
	ok(j->got[1] == 300000 && j->got[2] == 300000, "each stream has its own window");
	client_forget(&c, j);

	/* The program is over long before its output was fetched: nothing may be lost. */
	j = client_exec(&c, SH("head -c 60000 /dev/zero"), 1000, NULL);
	j->hold = true;
	uint64_t until = time_mono_ms() + 1500;
	while (time_mono_ms() < until)
		client_pump(&c, 100);
	ok(!j->ended && j->got[1] == 1000, "a slow host: the end waits");
	j->hold = false;
	frame_write_credit(&c.out, j->id, 0, 1, 1000);
	j->allowed[1] += 1000;
	client_wait(&c, j);
	ok(j->got[1] == 60000 && j->code == 0, "and gets every byte");
	client_forget(&c, j);
}

static void background_children(void)
{
	struct job *j = run(SH("sleep 300 & echo $!; exit 7"), NULL);
	pid_t pid = (pid_t)atoi(buf_cstr(&j->out[1]));
	ok(j->code == 7 && pid > 1 && kill(pid, 0) == 0,
	   "a child in the background does not hold the end");
	if (pid > 1)
		kill(pid, SIGKILL);
	client_forget(&c, j);
	j = run(SH("(while echo x; do :; done) & exit 0"), NULL);
	ok(j->code == 0, "not even when it writes for ever");
	client_forget(&c, j);
}

static void signals_and_cancel(void)
{
	struct job *j = client_exec(
		&c, SH("trap 'echo got; exit 3' USR1; echo go; while :; do sleep 0.02; done"),
		WINDOW, NULL);
	while (!j->got[1] && client_pump(&c, CLIENT_WAIT_MS))
		;
	client_verb(&c, j->id, "signal", KV("signal", "10"));
	client_wait(&c, j);
	ok(j->code == 3 && text_is(j, 1, "go\ngot\n"), "a signal reaches the program");
	client_forget(&c, j);
	j = client_exec(&c, ARGV("sleep", "300"), WINDOW, NULL);
	client_verb(&c, j->id, "cancel", NULL);
	client_wait(&c, j);
	is_int(j->signal, SIGHUP, "cancel hangs up");
	client_forget(&c, j);
	j = client_exec(&c, SH("trap '' HUP; echo go; sleep 300; sleep 300"), WINDOW, NULL);
	while (!j->got[1] && client_pump(&c, CLIENT_WAIT_MS))
		;
	client_verb(&c, j->id, "cancel", NULL);
	client_wait(&c, j);
	is_int(j->signal, SIGKILL, "and kills who does not listen");
	client_forget(&c, j);
}

static void terminal(void)
{
	struct job *j =
		run(SH("test -t 0 && test -t 1 && test -t 2 && stty size && echo $TERM >&2"),
		    KV("tty", "1", "rows", "33", "cols", "111", "stdin", "1", "env", "TERM=xterm"));
	ok(j->code == 0 && text_is(j, 1, "33 111\r\nxterm\r\n") && j->got[2] == 0,
	   "a terminal of the asked size");
	client_forget(&c, j);
	j = client_exec(&c, SH("trap 'stty size; exit 0' WINCH; echo go; while :; do sleep 0.02; done"),
			WINDOW, KV("tty", "1", "stdin", "1"));
	while (!j->got[1] && client_pump(&c, CLIENT_WAIT_MS))
		;
	client_verb(&c, j->id, "resize", KV("rows", "50", "cols", "60"));
	client_wait(&c, j);
	ok(j->code == 0 && strstr(buf_cstr(&j->out[1]), "50 60"), "which can be resized");
	client_forget(&c, j);
	j = client_exec(&c, SH("stty -echo; echo go; cat; echo over"), WINDOW,
			KV("tty", "1", "stdin", "1"));
	while (!j->got[1] && client_pump(&c, CLIENT_WAIT_MS))
		;
	client_input(j, "typed\n", 6, true);
	client_wait(&c, j);
	ok(j->code == 0 && text_is(j, 1, "go\r\ntyped\r\nover\r\n"),
	   "takes input and an end of input");
	client_forget(&c, j);
	j = client_exec(&c, ARGV("cat"), WINDOW, KV("tty", "1", "stdin", "1"));
	client_input(j, "x\n", 2, false);
	while (j->got[1] < 6 && client_pump(&c, CLIENT_WAIT_MS)) /* the echo and the answer */
		;
	client_input(j, "\003", 1, false);
	client_wait(&c, j);
	is_int(j->signal, SIGINT, "and Ctrl-C interrupts");
	client_forget(&c, j);
}

#define MANY 100

static void many_at_once(void)
{
	struct job *j[MANY];
	char script[MANY][64];
	int good = 0;
	for (int i = 0; i < MANY; i++) {
		snprintf(script[i], sizeof(script[i]), "read x; echo $x %d; exit %d", i, i);
		j[i] = client_exec(&c, SH(script[i]), WINDOW, KV("stdin", "1"));
	}
	for (int i = MANY - 1; i >= 0; i--)
		client_input(j[i], "all at once\n", 12, true);
	for (int i = 0; i < MANY; i++) {
		char want[64];
		snprintf(want, sizeof(want), "all at once %d\n", i);
		client_wait(&c, j[i]);
		good += j[i]->code == i && text_is(j[i], 1, want);
		client_forget(&c, j[i]);
	}
	is_int(good, MANY, "%d programs at once", MANY);
}

static int pack(const char *path, struct buf *out)
{
	struct archive_writer *w;
	struct err err = ERR_INIT;
	char *paths[] = {(char *)path}, block[4096];
	ssize_t n = -1;
	if (archive_writer_create(paths, 1, &w, &err) == 0) {
		while ((n = archive_writer_read(w, block, sizeof(block), &err)) > 0)
			buf_add(out, block, (size_t)n);
		archive_writer_destroy(w);
	}
	return (int)n;
}

static int unpack(const char *dir, struct buf *in)
{
	_cleanup_close_ int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct archive_reader *r;
	struct err err = ERR_INIT;
	archive_reader_create(fd, NULL, &r, &err);
	int code = archive_reader_feed(r, buf_head(in), buf_len(in), &err);
	code = code < 0 ? code : archive_reader_finish(r, &err);
	archive_reader_destroy(r);
	return code;
}

static void make_tree(void)
{
	char cmd[1024];
	snprintf(cmd, sizeof(cmd),
		 "cd %s && mkdir -p tree/sub/empty back putdir && seq 300000 >tree/big && : "
		 ">tree/none && "
		 "ln -s big tree/link && echo x >tree/sub/x && chmod 750 tree/sub && chmod 600 "
		 "tree/none",
		 top);
	if (system(cmd) != 0)
		printf("# the tree could not be made\n");
}

static bool same(const char *a, const char *b)
{
	char cmd[1024];
	snprintf(cmd, sizeof(cmd), "diff -r --no-dereference %s %s", at(a), at(b));
	return system(cmd) == 0;
}

static void copies(void)
{
	_cleanup_buf_ struct buf a = BUF_INIT;
	make_tree();
	pack(at("tree"), &a);
	struct job *j = client_put(&c, at("putdir"), true, buf_head(&a), buf_len(&a));
	client_wait(&c, j);
	ok(j->done && j->files == 3, "put a tree into a folder: %s", j->text);
	ok(same("tree", "putdir/tree"), "it is the same tree");
	client_forget(&c, j);
	j = client_put(&c, at("newname"), false, buf_head(&a), buf_len(&a));
	client_wait(&c, j);
	ok(j->done && same("tree", "newname"), "put it under a new name");
	client_forget(&c, j);
	j = client_put(&c, at("missing"), true, buf_head(&a), buf_len(&a));
	client_wait(&c, j);
	ok(j->error == ENOENT && strstr(j->text, "missing"), "put into no folder: %s", j->text);
	client_forget(&c, j);
	j = client_get(&c, at("newname"), 100000);
	client_wait(&c, j);
	ok(j->done && j->files == 3 && unpack(at("back"), &j->out[1]) == 0 &&
		   same("tree", "back/newname"),
	   "get it back through a small window");
	client_forget(&c, j);
	j = client_get(&c, at("nothing"), 100000);
	client_wait(&c, j);
	ok(j->error == ENOENT && strstr(j->text, "nothing"), "get what is not there: %s", j->text);
	client_forget(&c, j);
	j = client_put(&c, at("broken"), false, buf_head(&a), buf_len(&a) / 2);
	client_wait(&c, j);
	ok(j->error == EBADMSG, "half an archive: %s", j->text);
	client_forget(&c, j);
	buf_head(&a)[buf_len(&a) / 2] ^= 1;
	j = client_put(&c, at("flipped"), false, buf_head(&a), buf_len(&a));
	client_wait(&c, j);
	ok(j->error == EBADMSG, "a flipped bit: %s", j->text);
	client_forget(&c, j);
	j = client_put(&c, at("never"), false, "", 0);
	j->in_end = false;
	client_verb(&c, j->id, "cancel", NULL);
	client_wait(&c, j);
	ok(j->error == ECANCELED, "a cancelled copy");
	client_forget(&c, j);
}

static void odd_requests(void)
{
	char *block = xcalloc(1, GUESTPROTO_STDIN_WINDOW);
	frame_write_data(&c.out, 4711, 0, 0, "x", 1, true);
	frame_write_credit(&c.out, 4711, 0, 1, 1);
	client_verb(&c, 4711, "cancel", NULL);
	client_verb(&c, 0, "no-such-verb", NULL);
	ok(ping() && !c.wrong[0], "what belongs to nothing is thrown away");
	struct job *j = client_exec(&c, ARGV("sleep", "300"), WINDOW, KV("stdin", "1"));
	while (!j->started && client_pump(&c, CLIENT_WAIT_MS))
		;
	pid_t pid = j->pid;
	j->in_credit += 100000; /* more than the guest gave */
	client_input(j, block, GUESTPROTO_STDIN_WINDOW, false);
	while (j->in_left && !j->ended && client_pump(&c, CLIENT_WAIT_MS))
		;
	client_input(j, block, 100000, false);
	client_wait(&c, j);
	is_int(j->error, EPROTO, "more input than allowed ends the request: %s", j->text);
	client_forget(&c, j);
	uint64_t until = time_mono_ms() + CLIENT_WAIT_MS;
	while (kill(pid, 0) == 0 && time_mono_ms() < until)
		ping();
	ok(kill(pid, 0) < 0, "and its program");
	j = client_exec(&c, SH("echo fine"), WINDOW, NULL);
	client_wait(&c, j);
	ok(text_is(j, 1, "fine\n"), "the agent goes on");
	client_forget(&c, j);
	free(block);
}

/* A second agent: gets what `bytes` are while a program runs, and must end with that program gone. */
static void ends(const char *what, const char *bytes, size_t n, int want)
{
	struct client d;
	client_spawn(&d, guest);
	client_until(&d, &d.hellos, 1);
	client_setup(&d, NULL);
	struct job *j = client_exec(&d, SH("trap '' HUP; echo go; sleep 300; sleep 300"), WINDOW, NULL);
	while (!j->got[1] && client_pump(&d, CLIENT_WAIT_MS))
		;
	pid_t pid = j->pid;
	buf_add(&d.out, bytes, n);
	while (buf_len(&d.out) && client_pump(&d, CLIENT_WAIT_MS))
		;
	int status = client_close_and_wait(&d);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == want, "%s: it ends with %d (status %#x)",
	   what, want, status);
	uint64_t until = time_mono_ms() + CLIENT_WAIT_MS / 4;
	do /* we are the reaper of what is orphaned */
		waitpid(-pid, NULL, WNOHANG);
	while (kill(-pid, 0) == 0 && time_mono_ms() < until &&
	       nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL) == 0);
	ok(pid > 1 && kill(-pid, 0) < 0 && errno == ESRCH, "and leaves no program");
	client_finish(&d);
}

/* Linked by musl and without sanitizers it must stay small: it is in the memory of every VM. */
static void small_enough(void)
{
	struct stat st;
	if (stat(guest, &st) < 0)
		st.st_size = -1;
	ok(st.st_size > 0 && st.st_size <= 300 * 1024, "the program is at most 300 KiB: %lld",
	   (long long)st.st_size);
}

int main(int argc, char **argv)
{
	if (argc < 2 || !mkdtemp(top)) {
		fprintf(stderr, "usage: %s PATH-OF-VSE-GUEST [--small]\n", argv[0]);
		return 2;
	}
	guest = argv[1];
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	umask(022);
	if (client_spawn(&c, guest) < 0)
		return 2;
	if (argc > 2 && strcmp(argv[2], "--small") == 0)
		small_enough();
	begins();
	exit_codes();
	cannot_run();
	bulk();
	windows_hold();
	background_children();
	signals_and_cancel();
	terminal();
	many_at_once();
	copies();
	odd_requests();
	ok(!c.wrong[0], "the guest kept to the protocol: %s", c.wrong);
	int status = client_close_and_wait(&c);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 0, "it ends when the host closes");
	client_finish(&c);
	ends("the host goes away", "", 0, 0);
	ends("random bytes", "\x9e\x37\x79\xb9\x7f\x4a\x7c\x15\xf3\x9c\xc0\x60\x5c\xed\xc8\x34", 16, 1);
	ends("zeros", "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16, 1);
	ends("a message that is none", "\0\0\0\3\1\0\0\0\0\0\0\1\0\0\0\0abc", 19, 1);
	ends("half a frame", "\0\0\0\3\1\0\0", 7, 0);
	path_remove(top, NULL);
	return done();
}
