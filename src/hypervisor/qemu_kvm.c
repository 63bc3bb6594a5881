/* SPDX-License-Identifier: Apache-2.0 */
/* Does /dev/kvm run guests? That it opens says nothing: on some nodes (a container host, a cloud machine
 * without nested virtualisation) every ioctl succeeds and a kernel then takes minutes for its first line,
 * because an emulator is behind it. So a small loop is run in a guest, with raw ioctls (Linux
 * Documentation/virt/kvm/api.rst), and its time a turn is judged:
 *   real KVM 0.3-1 ns; KVM nested in an emulated machine 2-20 ns; the fake 800-5000 ns. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/kvm.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/time.h"
#include "hypervisor/qemu.h"

/* Time that was waited for a CPU does not count to the first two. Making a VM waits for all CPUs of the node to pass
 * through their schedulers, which takes long where they are busy; a guest that hangs is killed. */
#define SETUP_MS 2000
#define RUN_MS 500
#define WALL_MS 5000 /* for everything, whatever it waited for */

#define TURN_NS_MAX 100u      /* slower than this is no hardware */
#define TURN_NS_HOPELESS 500u /* by then a longer loop would say nothing else */
#define TRIES 4               /* the best counts: interrupts of the node are in some of them */
#define KNOWN_MS                                                                                   \
	10000 /* how long an answer is good within this process; a busy node's must not stick */

#define CODE_AT 0x1000ull

enum stage { OPEN, API, MAKE_VM, MAKE_CPU, RUN, DONE };

struct result {
	enum stage stage; /* where it stopped */
	int code;         /* errno there */
	uint64_t turn_ns; /* DONE: time of one turn */
};

#define UNDER_WAY (-1) /* code of a result that comes before the last: this stage begins */

/* ---- in the child: async-signal-safe calls only ---- */

struct moment {
	uint64_t wall, cpu; /* ns */
	long slept;         /* how often the thread gave its CPU away of its own accord */
};

static uint64_t clock_ns(clockid_t id)
{
	struct timespec t;
	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void note(struct moment *m)
{
	struct rusage u = {0};
	getrusage(RUSAGE_THREAD, &u);
	*m = (struct moment){.wall = clock_ns(CLOCK_MONOTONIC),
			     .cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID),
			     .slept = u.ru_nvcsw};
}

/* CPU time, as others may have taken the CPU meanwhile; unless the thread slept: then somebody else did its work. */
static uint64_t took_ns(const struct moment *from, const struct moment *to)
{
	return from->slept == to->slept ? to->cpu - from->cpu : to->wall - from->wall;
}

/* mov ecx, N; 1: dec ecx; jnz 1b; hlt (32-bit code) */
static void put_code(unsigned char *page, uint32_t turns)
{
	const unsigned char code[] = {
		0xb9,
		(unsigned char)turns,
		(unsigned char)(turns >> 8),
		(unsigned char)(turns >> 16),
		(unsigned char)(turns >> 24),
		0x49,
		0x75,
		0xfd,
		0xf4,
	};
	memcpy(page, code, sizeof(code));
}

/* Flat 32-bit protected mode. In real mode old processors would have KVM itself emulate the loop. */
static int flat_mode(int cpu)
{
	struct kvm_sregs s;
	if (ioctl(cpu, KVM_GET_SREGS, &s) < 0)
		return -1;
	struct kvm_segment code = {
		.limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .db = 1, .s = 1, .g = 1};
	struct kvm_segment data = code;
	data.selector = 16;
	data.type = 3;
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.cr0 |= 1;
	return ioctl(cpu, KVM_SET_SREGS, &s);
}

static int run_loop(int cpu, const struct kvm_run *run, unsigned char *page, uint32_t turns,
		    uint64_t *ret_ns)
{
	struct kvm_regs r = {.rip = CODE_AT, .rflags = 2};
	put_code(page, turns);
	if (ioctl(cpu, KVM_SET_REGS, &r) < 0)
		return -1;
	struct moment from, to;
	note(&from);
	while (ioctl(cpu, KVM_RUN, 0) < 0)
		if (errno != EINTR)
			return -1;
	note(&to);
	*ret_ns = took_ns(&from, &to);
	if (run->exit_reason != KVM_EXIT_HLT || ioctl(cpu, KVM_GET_REGS, &r) < 0 || r.rcx != 0) {
		errno = EIO;
		return -1;
	}
	return 0;
}

/* Best of some runs of one loop. */
static int best_of(int cpu, const struct kvm_run *run, unsigned char *page, uint32_t turns,
		   uint64_t enough_ns, uint64_t *ret_ns)
{
	uint64_t best = UINT64_MAX, ns;
	for (int i = 0; i < TRIES && best > enough_ns; i++) {
		if (run_loop(cpu, run, page, turns, &ns) < 0)
			return -1;
		best = MIN(best, ns);
	}
	*ret_ns = best;
	return 0;
}

/* A short loop tells hardware from none in a few ms; what lies between is left to a longer one, in which entering
 * and leaving the guest weigh less. */
static int measure(int cpu, const struct kvm_run *run, unsigned char *page, struct result *res)
{
	static const uint32_t turns[] = {1000, 10000};
	uint64_t entry, loop;
	if (best_of(cpu, run, page, 1, 0, &entry) < 0)
		return -1;
	for (size_t i = 0; i < ARRAY_SIZE(turns); i++) {
		if (best_of(cpu, run, page, turns[i], entry + turns[i] * TURN_NS_MAX, &loop) < 0)
			return -1;
		res->turn_ns = loop > entry ? (loop - entry) / turns[i] : 0;
		if (res->turn_ns <= TURN_NS_MAX || res->turn_ns >= TURN_NS_HOPELESS)
			break;
	}
	return 0;
}

static void tell(int out, const struct result *res)
{
	if (write(out, res, sizeof(*res)) != (ssize_t)sizeof(*res))
		_exit(1);
}

static void try_kvm(const char *device, int out, struct result *res)
{
	res->stage = OPEN;
	int kvm = open(device, O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		return;
	res->stage = API;
	if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return;
	res->stage = MAKE_VM;
	int vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		return;
	ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000ul); /* Intel needs it, others refuse it */
	unsigned char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
				   -1, 0);
	struct kvm_userspace_memory_region r = {.guest_phys_addr = CODE_AT,
						.memory_size = 4096,
						.userspace_addr = (uintptr_t)page};
	if (page == MAP_FAILED || ioctl(vm, KVM_SET_USER_MEMORY_REGION, &r) < 0)
		return;
	res->stage = MAKE_CPU;
	int cpu = ioctl(vm, KVM_CREATE_VCPU, 0), size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (cpu < 0 || size < (int)sizeof(struct kvm_run))
		return;
	struct kvm_run *run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
	if (run == MAP_FAILED || flat_mode(cpu) < 0)
		return;
	res->stage = RUN;
	res->code = UNDER_WAY;
	tell(out, res);
	errno = 0;
	if (measure(cpu, run, page, res) == 0)
		res->stage = DONE;
}

static void close_but(int keep)
{
	if (keep > 0)
		proc_close_fds(0, (unsigned)keep - 1);
	proc_close_fds((unsigned)keep + 1, UINT_MAX);
}

static _Noreturn void child(const char *device, int out, pid_t parent)
{
	struct result res = {0};
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	close_but(out); /* a socket of the parent's must not stay open because we have it, too */
	errno = 0;
	try_kvm(device, out, &res);
	res.code = errno;
	tell(out, &res);
	_exit(0);
}

/* ---- in the agent ---- */

struct waiter {
	struct waiter *next;
	void (*done)(void *arg, bool works, const char *text);
	void *arg;
};

struct kvm_probe {
	char device[64];
	struct loop *loop;
	pid_t pid;
	int fd, pidfd;
	struct watch *watch, *reaper;
	struct evtimer *timer;
	struct waiter *waiters;
	bool running;              /* its stage is RUN */
	uint64_t begun;            /* ms, monotonic: of the probe */
	uint64_t since, waited_ms; /* of the stage: its begin, and what had been waited for a CPU by then */
};

/* The probe under way, and the last answer. An agent asks when it starts, before it knows for what. */
static struct kvm_probe *current;
static struct {
	char device[64], text[200];
	uint64_t at;
} known;

static void describe(const struct kvm_probe *k, const struct result *r, char *out, size_t size)
{
	const char *d = k->device;
	if (r->stage == DONE && r->turn_ns <= TURN_NS_MAX)
		out[0] = '\0';
	else if (r->stage == DONE)
		snprintf(out, size, "%s opens but has no hardware behind it (a loop takes %llu ns a turn, not 1)",
			 d, (unsigned long long)r->turn_ns);
	else if (r->stage == OPEN && r->code == ENOENT)
		snprintf(out, size, "no %s (module kvm not loaded, or virtualisation off)", d);
	else if (r->stage == OPEN && (r->code == EACCES || r->code == EPERM))
		snprintf(out, size, "%s: %s (be in its group, often \"kvm\")", d, strerror(r->code));
	else if (r->stage == OPEN)
		snprintf(out, size, "%s: %s", d, strerror(r->code));
	else if (r->stage == API)
		snprintf(out, size, "%s is not KVM, or not version %d of it", d, KVM_API_VERSION);
	else
		snprintf(out, size, "%s opens but %s fails: %s", d,
			 r->stage == RUN       ? "a guest"
			 : r->stage == MAKE_VM ? "making a VM"
					       : "making a CPU",
			 strerror(r->code));
}

/* The child is reaped when it ends, which need not be now: a process inside KVM_RUN takes the signal when
 * the kernel lets it. */
static void on_ended(void *arg, int events _unused_)
{
	struct kvm_probe *k = arg;
	if (waitpid(k->pid, NULL, WNOHANG) == 0)
		return;
	watch_destroy(k->reaper);
	close(k->pidfd);
	free(k);
}

static void answer(struct waiter *list, const char *text)
{
	for (struct waiter *w = list, *next; w; w = next) {
		next = w->next;
		w->done(w->arg, !text[0], text);
		free(w);
	}
}

static void finish(struct kvm_probe *k, const char *text)
{
	struct waiter *list = TAKE_PTR(k->waiters);
	kill(k->pid, SIGKILL); /* not reaped yet, so the number is its own */
	watch_destroy(k->watch);
	close(k->fd);
	evtimer_destroy(k->timer);
	snprintf(known.device, sizeof(known.device), "%s", k->device);
	snprintf(known.text, sizeof(known.text), "%s", text);
	known.at = time_mono_ms();
	if (current == k)
		current = NULL;
	if (k->reaper) {
		watch_set(k->reaper, WATCH_READ);
	} else { /* Linux before 5.3 has no pidfd */
		waitpid(k->pid, NULL, 0);
		free(k);
	}
	answer(list, text);
}

/* How long the child has waited for a CPU, in ms: the second number of /proc/PID/schedstat is in ns (Linux
 * Documentation/scheduler/sched-stats.rst). 0 where the kernel does not count it. */
static uint64_t waited_ms(pid_t pid)
{
	_cleanup_free_ char *path = xasprintf("/proc/%d/schedstat", (int)pid), *text = NULL;
	unsigned long long ran, waited;
	if (path_read(path, 256, &text, NULL, NULL) < 0 || sscanf(text, "%llu %llu", &ran, &waited) != 2)
		return 0;
	return waited / 1000000;
}

static void begin_stage(struct kvm_probe *k, bool running)
{
	k->running = running;
	k->since = time_mono_ms();
	k->waited_ms = waited_ms(k->pid);
	evtimer_start(k->timer, running ? RUN_MS : SETUP_MS, 0);
}

static void on_result(void *arg, int events _unused_)
{
	struct kvm_probe *k = arg;
	struct result r;
	char text[200] = "the KVM probe died";
	ssize_t n = read(k->fd, &r, sizeof(r));
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n == (ssize_t)sizeof(r) && r.code == UNDER_WAY) {
		begin_stage(k, true);
		return;
	}
	if (n == (ssize_t)sizeof(r))
		describe(k, &r, text, sizeof(text));
	finish(k, text);
}

/* The stage's time is over by the clock; it goes on for as long as it had to wait for a CPU. */
static void on_timer(void *arg)
{
	struct kvm_probe *k = arg;
	char text[200];
	uint64_t bound = k->running ? RUN_MS : SETUP_MS, now = time_mono_ms();
	uint64_t until = k->since + bound + waited_ms(k->pid) - k->waited_ms;
	until = MIN(until, k->begun + WALL_MS);
	if (until > now) {
		evtimer_start(k->timer, until - now, 0);
		return;
	}
	snprintf(text, sizeof(text), "%s opens but %s (no answer within %llu ms)", k->device,
		 k->running ? "runs no guest" : "makes no VM", (unsigned long long)(now - k->begun));
	finish(k, text);
}

static pid_t fork_child(const char *device, int out)
{
	sigset_t all, old;
	sigfillset(&all);
	pid_t parent = getpid();
	sigprocmask(SIG_SETMASK, &all, &old); /* the child must not run our handlers */
	pid_t pid = fork();
	if (pid == 0)
		child(device, out, parent);
	int code = errno;
	sigprocmask(SIG_SETMASK, &old, NULL);
	errno = code;
	return pid;
}

static struct kvm_probe *begin(struct loop *l, const char *device, struct err *err)
{
	int p[2];
	if (pipe2(p, O_CLOEXEC) < 0) {
		err_errno(err, errno, "KVM probe");
		return NULL;
	}
	struct kvm_probe *k = xcalloc(1, sizeof(*k));
	snprintf(k->device, sizeof(k->device), "%s", device);
	k->loop = l;
	k->fd = p[0];
	k->begun = time_mono_ms();
	k->pid = fork_child(device, p[1]);
	int code = errno;
	close(p[1]);
	k->watch = k->pid < 0 ? NULL : watch_create(l, k->fd, on_result, k, err);
	if (!k->watch) {
		if (k->pid < 0)
			err_errno(err, code, "KVM probe: fork");
		else {
			kill(k->pid, SIGKILL);
			waitpid(k->pid, NULL, 0);
		}
		close(k->fd);
		free(k);
		return NULL;
	}
	watch_set(k->watch, WATCH_READ);
	k->pidfd = (int)syscall(SYS_pidfd_open, k->pid, 0);
	k->reaper = k->pidfd >= 0 ? watch_create(l, k->pidfd, on_ended, k, NULL) : NULL;
	k->timer = evtimer_create(l, on_timer, k);
	begin_stage(k, false);
	return k;
}

int qemu_kvm_probe(struct loop *l, const char *device,
		   void (*done)(void *arg, bool works, const char *text), void *arg, struct err *err)
{
	if (strcmp(known.device, device) == 0 && time_mono_ms() - known.at < KNOWN_MS) {
		done(arg, !known.text[0], known.text);
		return 0;
	}
	bool joins = current && current->loop == l && strcmp(current->device, device) == 0;
	struct kvm_probe *k = joins ? current : begin(l, device, err);
	if (!k)
		return -1;
	struct waiter *w = xcalloc(1, sizeof(*w));
	*w = (struct waiter){.next = k->waiters, .done = done, .arg = arg};
	k->waiters = w;
	current = k;
	return 0;
}
