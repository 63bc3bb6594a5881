/* SPDX-License-Identifier: Apache-2.0 */
/* The yardstick of bench/start: N hand-started QEMUs, as a good script would do it, with nothing between them and
 * this program: spawn, wait for the guest agent's hello on the virtio-serial socket, answer with a minimal
 * set-up, wait for ready. Prints one line: wall ms to all ready, CPU ms of all QEMUs up to then.
 * With --attach DIR it starts nothing: it waits for guests that somebody else started, whose channels are the
 * listening sockets DIR/0, DIR/1, ... */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/size.h"
#include "base/strvec.h"
#include "base/time.h"
#include "io/child.h"
#include "io/listener.h"
#include "wire/frame.h"
#include "wire/guestproto.h"
#include "wire/kv.h"

struct bare {
	pid_t pid;
	int fd;
	bool ready;
	struct buf in;
};

static struct {
	const char *kernel, *initrd, *root, *type, *modules, *memory, *accel, *append, *machine, *attach;
	bool nic;
} o = {.memory = "256M", .accel = "tcg", .append = "", .machine = "microvm", .type = "squashfs", .modules = ""};

static void fail(const char *what)
{
	fprintf(stderr, "start-bare: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* The measured best of a plain QEMU: microvm, qboot, the PVH kernel, no device that is not needed. */
static void arguments(struct strvec *v, const char *dir, unsigned i)
{
	strvec_addv(v, "qemu-system-x86_64", "-accel", o.accel, "-M", o.machine, "-nodefaults",
		    "-no-user-config", "-display", "none", "-no-reboot", "-m", o.memory, "-kernel",
		    o.kernel, "-initrd", o.initrd, NULL);
	if (strcmp(o.machine, "microvm") == 0)
		strvec_addv(v, "-bios", "qboot.rom", NULL);
	strvec_addv(v, "-cpu", strcmp(o.accel, "tcg") == 0 ? "max,-la57,-erms,-cx16" : "host", NULL);
	strvec_add(v, "-append");
	strvec_addf(v, "%s vse.mods=%s vse.root=%s:vda:mem vse.init=vse", o.append, o.modules, o.type);
	strvec_addv(v, "-device", "virtio-serial-device", "-device",
		    "virtserialport,chardev=c0,name=" GUESTPROTO_PORT, "-device",
		    "virtio-blk-device,drive=d0", "-chardev", NULL);
	strvec_addf(v, "socket,id=c0,path=%s/%u,server=off", dir, i);
	strvec_add(v, "-drive");
	strvec_addf(v, "if=none,id=d0,format=raw,readonly=on,file=%s", o.root);
	if (o.nic) {
		strvec_add(v, "-netdev");
		strvec_addf(v, "stream,id=n0,server=on,addr.type=unix,addr.path=%s/n%u", dir, i);
		strvec_addv(v, "-device", "virtio-net-device,netdev=n0", NULL);
	}
}

static void attach(struct bare *b, unsigned i)
{
	_cleanup_free_ char *path = xasprintf("%s/%u", o.attach, i);
	struct err err = ERR_INIT;
	for (int tries = 0; unix_connect(path, &b->fd, &err) < 0; tries++) {
		if (tries == 2000)
			fail(path);
		poll(NULL, 0, 10);
	}
}

static void start(struct bare *b, const char *dir, unsigned i)
{
	if (o.attach) {
		attach(b, i);
		return;
	}
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	_cleanup_free_ char *path = xasprintf("%s/%u", dir, i);
	struct err err = ERR_INIT;
	int listening;
	arguments(&argv, dir, i);
	struct child_spec spec = {
		.argv = strvec_argv(&argv), .fds = {-1, -1, 2}, .n_fds = 3, .die_with_parent = true};
	if (unix_listen(path, &listening, &err) < 0 || child_spawn(&spec, &b->pid, &err) < 0) {
		fprintf(stderr, "start-bare: %s\n", err.text);
		exit(1);
	}
	struct pollfd p = {.fd = listening, .events = POLLIN};
	if (poll(&p, 1, 20000) != 1)
		fail("qemu did not connect");
	b->fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	close(listening);
	if (b->fd < 0)
		fail("accept");
}

static void answer(struct bare *b, unsigned i)
{
	_cleanup_buf_ struct buf kv = BUF_INIT, out = BUF_INIT;
	char seed[64] = "bench", name[16];
	snprintf(name, sizeof(name), "vm%u", i);
	kv_adds(&kv, "verb", "setup");
	kv_adds(&kv, "hostname", name);
	kv_addu(&kv, "time_ns", time_wall_ns());
	kv_add(&kv, "seed", seed, sizeof(seed));
	frame_write(&out, &(struct frame){.len = (uint32_t)buf_len(&kv),
					  .type = FRAME_MESSAGE,
					  .payload = buf_head(&kv)});
	if (fd_write_all(b->fd, buf_head(&out), buf_len(&out)) < 0)
		fail("write");
}

/* True when it became ready just now. */
static bool readable(struct bare *b, unsigned i)
{
	struct frame f;
	struct err err = ERR_INIT;
	bool now = false;
	buf_reserve(&b->in, 65536);
	ssize_t n = read(b->fd, b->in.data + b->in.end, b->in.cap - b->in.end);
	if (n <= 0 && !(n < 0 && errno == EAGAIN))
		fail("a guest ended");
	b->in.end += n > 0 ? (size_t)n : 0;
	while (frame_read(&b->in, FRAME_MAX_GUEST, &f, &err) == 1) {
		_cleanup_free_ char *verb = kv_dup(f.payload, f.len, "verb");
		frame_drop(&b->in, &f);
		if (verb && strcmp(verb, "hello") == 0)
			answer(b, i);
		now = now || (verb && strcmp(verb, "ready") == 0);
	}
	b->ready = b->ready || now;
	return now;
}

static void run(struct bare *vms, unsigned n, unsigned parallel, const char *dir)
{
	_cleanup_free_ struct pollfd *polls = xcalloc(n, sizeof(*polls));
	unsigned next = 0, ready = 0;
	while (ready < n) {
		while (next < n && next - ready < parallel) {
			start(&vms[next], dir, next);
			polls[next] = (struct pollfd){.fd = vms[next].fd, .events = POLLIN};
			next++;
		}
		if (poll(polls, next, 60000) <= 0)
			fail("no guest became ready within 60 s");
		for (unsigned i = 0; i < next; i++)
			if (polls[i].revents && readable(&vms[i], i))
				ready++;
	}
}

int main(int argc, char **argv)
{
	unsigned n = 1, parallel = 2;
	const char *tmp = getenv("TMPDIR");
	_cleanup_free_ char *dir = path_join(tmp && tmp[0] == '/' ? tmp : "/tmp",
					     "vse-bare-XXXXXX");
	for (int i = 1; i + 1 < argc; i += 2) {
		const char *k = argv[i], *v = argv[i + 1];
		const struct {
			const char *name, **to;
		} texts[] = {{"--kernel", &o.kernel},   {"--initrd", &o.initrd},
			     {"--root", &o.root},       {"--type", &o.type},
			     {"--modules", &o.modules}, {"--memory", &o.memory},
			     {"--accel", &o.accel},     {"--append", &o.append},
			     {"--machine", &o.machine}, {"--attach", &o.attach}};
		for (size_t t = 0; t < ARRAY_SIZE(texts); t++)
			if (strcmp(k, texts[t].name) == 0)
				*texts[t].to = v;
		if (strcmp(k, "-n") == 0)
			n = (unsigned)strtoul(v, NULL, 10);
		if (strcmp(k, "-p") == 0)
			parallel = (unsigned)strtoul(v, NULL, 10);
		if (strcmp(k, "--nic") == 0)
			o.nic = v[0] == '1';
	}
	if ((!o.attach && (!o.kernel || !o.initrd || !o.root)) || !n || n > 4096 || !parallel) {
		fputs("Usage: start-bare -n N -p PARALLEL --kernel F --initrd F --root F [--type "
		      "T] [--modules LIST] [--append TEXT]\n"
		      "                  [--memory SIZE] [--accel tcg|kvm] [--nic 0|1]\n",
		      stderr);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	if (!mkdtemp(dir))
		fail("temporary folder");
	struct bare *vms = xcalloc(n, sizeof(*vms));
	uint64_t begun = time_mono_ms(), cpu = 0;
	run(vms, n, parallel, dir);
	uint64_t took = time_mono_ms() - begun;
	for (unsigned i = 0; i < n; i++) {
		uint64_t ms = 0;
		proc_usage(vms[i].pid, NULL, &ms, NULL);
		cpu += ms;
	}
	for (unsigned i = 0; i < n && !o.attach; i++)
		kill(vms[i].pid, SIGKILL);
	for (unsigned i = 0; i < n; i++) {
		if (!o.attach)
			waitpid(vms[i].pid, NULL, 0);
		buf_finish(&vms[i].in);
		close(vms[i].fd);
	}
	free(vms);
	path_remove(dir, NULL);
	printf("%" PRIu64 " %" PRIu64 "\n", took, cpu);
	return 0;
}
