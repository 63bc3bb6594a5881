/* SPDX-License-Identifier: Apache-2.0 */
/* Boots a VM and drives its guest agent: `guest-boot SOCKET vse|systemd|twice QEMU ARGUMENT...`, where the arguments
 * make QEMU listen on SOCKET for the agent's port. Times are from the start of QEMU, which must end by itself
 * after "shutdown". In the environment: VSE_TEST_KEY, the path of a key pair (the root has sshd); VSE_TEST_NET, set
 * when there is a network interface; VSE_TEST_NAT, when there are two and the second is QEMU's user network. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "guest-client.h"
#include "base/alloc.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/time.h"
#include "tap.h"
#include "wire/archive.h"
#include "wire/kv.h"

#define WINDOW 65536
#define BOOT_MS 120000
#define SH(script) ((const char *const[]){"/bin/sh", "-c", script, NULL})
#define KV(...) ((const char *const[]){__VA_ARGS__, NULL})

static struct client c;

static struct job *run(const char *script, const char *const *more)
{
	struct job *j = client_exec(&c, SH(script), WINDOW, more);
	client_wait(&c, j);
	return j;
}

/* The script prints what is wanted and nothing else. */
static void gives(const char *script, const char *want)
{
	struct job *j = run(script, NULL);
	bool good = j->code == 0 && strcmp(buf_cstr(&j->out[1]), want) == 0;
	if (!ok(good, "in the VM: %s", script))
		printf("#   code %d, output '%s', errors '%s' %s\n", j->code, buf_cstr(&j->out[1]),
		       buf_cstr(&j->out[2]), j->text);
	client_forget(&c, j);
}

static pid_t start(char **argv)
{
	pid_t pid = fork();
	if (pid == 0) {
		execvp(argv[0], argv);
		_exit(127);
	}
	return pid;
}

static bool connect_within(const char *socket, pid_t qemu)
{
	uint64_t until = time_mono_ms() + 10000;
	while (client_connect(&c, socket) < 0) {
		if (time_mono_ms() > until || waitpid(qemu, NULL, WNOHANG) != 0)
			return false;
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	}
	return true;
}

static bool wait_hello(unsigned n)
{
	uint64_t until = time_mono_ms() + BOOT_MS;
	while (c.hellos < n && !c.closed && time_mono_ms() < until)
		client_pump(&c, 1000);
	return c.hellos >= n;
}

static char *file_text(const char *path)
{
	char *text = NULL;
	path_read(path, 65536, &text, NULL, NULL);
	return text;
}

/* VSE_TEST_KEY: path of a key pair made for this run; without it there is no ssh. */
static void setup(const char *id, const char *host)
{
	char ns[32];
	const char *key = getenv("VSE_TEST_KEY");
	_cleanup_free_ char *private = key ? file_text(key) : NULL;
	_cleanup_free_ char *pub = key ? xasprintf("%s.pub", key) : NULL,
			    *public = key ? file_text(pub) : NULL;
	snprintf(ns, sizeof(ns), "%llu", (unsigned long long)time_wall_ns());
	const char *kv[64] = {
		"hostname",   host,
		"rank",       "2",
		"size",       "4",
		"cluster",    "boot",
		"time_ns",    ns,
		"seed",       "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		"machine_id", id,
		"hosts",      "10.199.0.3 vm2\n10.199.0.4 vm3\n",
		"hostfile",   "vm2 slots=1\n",
		"env",        "COLOUR=it's #1",
		"env",        "PLAIN=a b",
	};
	size_t n = 0;
	while (kv[n])
		n++;
	if (getenv("VSE_TEST_NET")) {
		static const char *const net[] = {"mac",  "52:54:00:12:34:99",
						  "ipv4", "10.199.0.3/16",
						  "ipv6", "fd00::3/64",
						  "mtu",  "1400"};
		memcpy(kv + n, net, sizeof(net));
		n += ARRAY_SIZE(net);
	}
	if (getenv("VSE_TEST_NAT")) {
		kv[n++] = "nat";
		kv[n++] = "1";
	}
	if (private && public) {
		const char *const ssh[] = {"ssh_private", private,          "ssh_public",
					   public,        "ssh_authorized", public};
		memcpy(kv + n, ssh, sizeof(ssh));
	}
	client_setup(&c, kv);
}

static void check_personal(const char *id, const char *host)
{
	char want[128];
	snprintf(want, sizeof(want), "%s\n%s\n%s\n", host, host, id);
	gives("uname -n; cat /etc/hostname /etc/machine-id", want);
	gives("grep -c vm2 /etc/hosts; grep -c localhost$ /etc/hosts; cat /etc/vse/hostfile "
	      "/etc/vse/machinefile",
	      "1\n1\nvm2 slots=1\nvm2:1\n");
	gives("echo $COLOUR $VSE_RANK/$VSE_SIZE", "it's #1 2/4\n");
	gives("unset COLOUR; . /etc/profile.d/vse.sh; echo $COLOUR", "it's #1\n");
	struct job *j = run("date +%s", NULL);
	long long off = atoll(buf_cstr(&j->out[1])) - (long long)(time_wall_ns() / 1000000000);
	ok(off > -30 && off < 30, "the clock is the host's: %lld s off", off);
	client_forget(&c, j);
	if (getenv("VSE_TEST_NET"))
		gives("ip -o addr show dev eth0 | sed 's/  */ /g' | cut -d' ' -f4 | grep -v ^fe80; "
		      "cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu",
		      "10.199.0.3/16\nfd00::3/64\n52:54:00:12:34:99\n1400\n");
	if (getenv("VSE_TEST_NAT"))
		gives("ip route show default; cat /etc/resolv.conf; ip -o -4 addr show dev eth1 | "
		      "grep -o '10[.0-9/]*' | head -1",
		      "default via 10.0.2.2 dev eth1 \nnameserver 10.0.2.3\n10.0.2.15/24\n");
}

static void check_machine(void)
{
	gives("mount | grep -c ' on / type overlay'; echo x >/etc/written && cat /etc/written",
	      "1\nx\n");
	gives("stat -c %a /tmp /dev/shm; ls -d /dev/pts/ptmx /dev/fd/0",
	      "1777\n1777\n/dev/fd/0\n/dev/pts/ptmx\n");
	gives("cat /sys/class/net/lo/operstate; echo a >/dev/null; (echo b) | cat", "unknown\nb\n");
	gives("cat /proc/self/oom_score_adj; ulimit -n; ulimit -l", "0\n1024\nunlimited\n");
	struct job *j = run("test -t 0 && stty size 2>/dev/null || echo none",
			    KV("tty", "1", "rows", "20", "cols", "70"));
	ok(j->code == 0 && strcmp(buf_cstr(&j->out[1]), "20 70\r\n") == 0,
	   "a terminal in the VM: %s", buf_cstr(&j->out[1]));
	client_forget(&c, j);
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

#define BULK (16u << 20)

/* A file of 16 MiB there and back, and through a program. */
static void bulk(void)
{
	char file[] = "/tmp/vse-boot.XXXXXX";
	_cleanup_buf_ struct buf a = BUF_INIT;
	int fd = mkstemp(file);
	char *data = xmalloc(BULK);
	for (size_t i = 0; i < BULK; i++)
		data[i] = (char)(i * 2654435761u >> 24);
	fd_write_all(fd, data, BULK);
	close(fd);
	pack(file, &a);
	unlink(file);
	uint64_t t = time_mono_ms();
	struct job *j = client_put(&c, "/tmp/bulk", false, buf_head(&a), buf_len(&a));
	client_wait(&c, j);
	ok(j->done && j->bytes == BULK, "put 16 MiB: %llu ms %s",
	   (unsigned long long)(time_mono_ms() - t), j->text);
	client_forget(&c, j);
	t = time_mono_ms();
	j = client_get(&c, "/tmp/bulk", 262144);
	client_wait(&c, j);
	ok(j->done && j->bytes == BULK && memmem(buf_head(&j->out[1]), buf_len(&j->out[1]), data, 1000),
	   "get 16 MiB: %llu ms %s", (unsigned long long)(time_mono_ms() - t), j->text);
	client_forget(&c, j);
	t = time_mono_ms();
	j = client_exec(&c, SH("cat"), WINDOW, KV("stdin", "1"));
	client_input(j, data, BULK / 4, true);
	client_wait(&c, j);
	ok(j->code == 0 && buf_len(&j->out[1]) == BULK / 4 &&
		   memcmp(buf_head(&j->out[1]), data, BULK / 4) == 0,
	   "4 MiB through cat: %llu ms", (unsigned long long)(time_mono_ms() - t));
	client_forget(&c, j);
	t = time_mono_ms();
	for (int i = 0; i < 20; i++)
		client_forget(&c, run(":", NULL));
	ok(1, "a program and back: %llu ms", (unsigned long long)(time_mono_ms() - t) / 20);
	free(data);
}

/* The host goes away in the middle of a program and of a frame, and comes back. */
static void reconnect(const char *socket)
{
	struct job *j = client_exec(&c, SH("echo go; exec sleep 1000"), WINDOW, NULL);
	while (!j->got[1] && client_pump(&c, CLIENT_WAIT_MS))
		;
	buf_add(&c.out, "\0\0\1\0\1", 5);
	while (buf_len(&c.out) && client_pump(&c, CLIENT_WAIT_MS))
		;
	client_finish(&c);
	nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
	ok(client_connect(&c, socket) == 0 && wait_hello(1), "a new host is greeted");
	setup("00112233445566778899aabbccddeeff", "vm2");
	ok(c.readies == 1, "and can set up again: %s", c.failed);
	gives("sleep 0.5; ps | grep -c '[s]leep 1000'; :", "0\n");
	/* Nonsense: it greets anew once it is quiet. */
	static char zeros[FRAME_MAX_GUEST + FRAME_HEADER];
	buf_add(&c.out, zeros, sizeof(zeros));
	ok(wait_hello(2), "zeros make it begin anew");
	setup("00112233445566778899aabbccddeeff", "vm2");
	ok(c.readies == 2, "and it is ready again");
}

/* A clone gets a new identity on the same connection. */
static void become_another(void)
{
	struct job *a = run("head -c 16 /dev/urandom | od -An -tx1; cat "
			    "/etc/ssh/ssh_host_ed25519_key.pub 2>/dev/null",
			    NULL);
	setup("ffeeddccbbaa99887766554433221100", "vm9");
	struct job *b = run("head -c 16 /dev/urandom | od -An -tx1; cat "
			    "/etc/ssh/ssh_host_ed25519_key.pub 2>/dev/null",
			    NULL);
	ok(strcmp(buf_cstr(&a->out[1]), buf_cstr(&b->out[1])) != 0,
	   "another setup makes it another VM");
	check_personal("ffeeddccbbaa99887766554433221100", "vm9");
	client_forget(&c, a);
	client_forget(&c, b);
}

/* The variables of "setup" are there without a login shell, as mpirun needs them. */
static void check_ssh(void)
{
	if (!getenv("VSE_TEST_KEY"))
		return;
	gives("ssh -o BatchMode=yes root@127.0.0.1 'echo $PLAIN $VSE_RANK'", "a b 2\n");
	if (getenv("VSE_TEST_NET"))
		gives("ssh -o BatchMode=yes vm2 'echo $VSE_RANK; echo $SSH_CONNECTION | cut -d\" "
		      "\" -f1'",
		      "2\n10.199.0.3\n");
}

static void go_down(pid_t qemu)
{
	int status = 0;
	uint64_t t = time_mono_ms();
	struct job *j = client_exec(&c, SH("trap '' TERM; exec sleep 1000 & sleep 1000"), WINDOW, NULL);
	while (!j->started && client_pump(&c, CLIENT_WAIT_MS))
		;
	client_verb(&c, 0, "shutdown", KV("how", "poweroff"));
	client_until(&c, &c.byes, 1);
	is_int(c.byes, 1, "it says bye");
	uint64_t until = time_mono_ms() + BOOT_MS;
	while (waitpid(qemu, &status, WNOHANG) == 0 && time_mono_ms() < until)
		client_pump(&c, 20);
	bool ended = kill(qemu, 0) < 0;
	ok(ended && status == 0, "and powers off: %llu ms", (unsigned long long)(time_mono_ms() - t));
	if (!ended) {
		kill(qemu, SIGKILL);
		waitpid(qemu, &status, 0);
	}
}

/* A clone on a slow node is told who it is a second time while its ssh key is still being made. */
static void set_up_twice(void)
{
	static const char shown[] =
		"cat /etc/ssh/ssh_host_ed25519_key /proc/sys/kernel/random/boot_id";
	static const char *const first[] = {"hostname",
					    "vm2",
					    "clone",
					    "1",
					    "machine_id",
					    "00112233445566778899aabbccddeeff",
					    "ssh_authorized",
					    "x",
					    NULL};
	static char zeros[FRAME_MAX_GUEST + FRAME_HEADER];
	client_verb(&c, 0, "setup", first);
	buf_add(&c.out, zeros, sizeof(zeros));
	ok(wait_hello(2) && !c.readies, "a clone is told twice, before it is ready");
	client_setup(&c, KV("hostname", "vm3", "clone", "1", "machine_id",
			    "ffeeddccbbaa99887766554433221100", "ssh_authorized", "x"));
	is_int(c.readies, 1, "ready");
	gives("/bin/busybox --install -s /bin; cat /proc/net/tcp /proc/net/tcp6 | grep -c ':0016 "
	      ".* 0A'",
	      "1\n");
	gives("wc -l </etc/ssh/ssh_host_ed25519_key; ls /etc/ssh/ssh_host_*",
	      "1\n/etc/ssh/ssh_host_ed25519_key\n");
	struct job *j = run(shown, NULL);
	client_setup(&c, KV("hostname", "vm3", "clone", "1", "machine_id",
			    "ffeeddccbbaa99887766554433221100"));
	gives(shown, buf_cstr(&j->out[1]));
	gives("cat /proc/mounts | grep -c boot_id", "1\n");
	client_forget(&c, j);
	is_str(c.last_log, "nonsense on the host's channel: frame of unknown type 0",
	       "nothing else is complained of");
}

static void report_cpu(pid_t qemu)
{
	uint64_t rss, cpu;
	if (proc_usage(qemu, &rss, &cpu, NULL) == 0)
		printf("# at ready: %llu ms of CPU, %llu MiB\n", (unsigned long long)cpu,
		       (unsigned long long)(rss >> 20));
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	bool systemd = strcmp(argv[2], "systemd") == 0, twice = strcmp(argv[2], "twice") == 0;
	uint64_t t = time_mono_ms();
	pid_t qemu = start(argv + 3);
	if (!connect_within(argv[1], qemu))
		return 2;
	bool hello = wait_hello(1);
	ok(hello, "hello after %llu ms", (unsigned long long)(time_mono_ms() - t));
	if (twice) {
		set_up_twice();
		go_down(qemu);
		client_finish(&c);
		return done();
	}
	setup("00112233445566778899aabbccddeeff", "vm2");
	if (!ok(c.readies == 1, "ready after %llu ms %s", (unsigned long long)(time_mono_ms() - t),
		c.failed)) {
		kill(qemu, SIGKILL);
		waitpid(qemu, NULL, 0);
		return done();
	}
	report_cpu(qemu);
	/* The tiny root has few names for its busybox. */
	gives("test ! -x /bin/busybox || /bin/busybox --install -s /bin 2>/dev/null; :", "");
	check_personal("00112233445566778899aabbccddeeff", "vm2");
	check_machine();
	check_ssh();
	if (systemd)
		gives("systemctl is-system-running || systemctl --failed", "running\n");
	bulk();
	reconnect(argv[1]);
	become_another();
	ok(!c.wrong[0], "the guest kept to the protocol: %s", c.wrong);
	go_down(qemu);
	client_finish(&c);
	return done();
}
