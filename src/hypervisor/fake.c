/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/fake.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/rankset.h"
#include "hypervisor/teller.h"

/* What was asked for and is told in the next round of the loop, in order. */
enum act {
	ACT_START,
	ACT_ADOPT,
	ACT_PAUSE,
	ACT_RESUME,
	ACT_RESET,
	ACT_SAVE,
	ACT_SNAPSHOT,
	ACT_MIGRATE,
	ACT_POST_COPY,
	ACT_SWITCH,
	ACT_CANCEL,
	ACT_CRASH,
	ACT_KILL,
	ACT_POWEROFF,
	ACT_REBOOT
};
#define ACTS_MAX 16
#define CONSOLE_LINES 256 /* printed at once */

#define NOTE "fake" /* a file */
#define HALF 2
#define HANGS "hangs" /* another: how often it has hung */
struct life {
	uint64_t started, booted; /* loop time: of this host's clock, so of use to another process */
	int paused;               /* HALF more: some of its memory is elsewhere */
	char boot[20];
};

struct hv_vm {
	struct loop *loop;
	struct hv_teller to;
	char *name;
	char *note;       /* path of the file that adopt reads; NULL: not to be kept */
	struct life life; /* as that file said */
	char *mounts;     /* what its program `mounts` prints */
	uint64_t memory, started;
	struct fake_script script;
	struct fake_guest guest;
	struct fake_out out;
	enum hv_cap out_op; /* what `out` is for */
	struct fake_in in;
	unsigned cpus;
	enum hv_from from;
	bool template, hangs;
	struct stream *console;
	uint64_t console_left;       /* bytes still to be printed */
	struct evtimer *tick, *doom; /* doom: crash-after and poweroff-after; NULL = none */
	unsigned char acts[ACTS_MAX];
	unsigned n_acts, tries;
	bool gone;
};

/* ---- what outlives us ---- */

static void write_note(const struct hv_vm *vm)
{
	char text[128];
	bool half = vm->out.switched || (vm->in.came && vm->in.post_copy);
	if (!vm->note)
		return;
	int n = snprintf(text, sizeof(text), "%" PRIu64 " %" PRIu64 " %d %s\n", vm->started,
			 vm->guest.booted, (vm->to.state == HV_PAUSED) + (half ? HALF : 0),
			 vm->guest.boot);
	_cleanup_close_ int fd = open(vm->note,
				      O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd >= 0)
		fd_write_all(fd, text, (size_t)n); /* who cannot write it has a VM that cannot be adopted */
}

static int read_note(const char *dir, struct life *ret, struct err *err)
{
	_cleanup_free_ char *path = path_join(dir, NOTE), *text = NULL;
	if (path_read(path, 128, &text, NULL, NULL) < 0 ||
	    sscanf(text, "%" SCNu64 " %" SCNu64 " %d %19s", &ret->started, &ret->booted,
		   &ret->paused, ret->boot) != 4)
		return err_set(err, ENOENT, "no VM that can be adopted in %s", dir);
	return 0;
}

static void forget_note(struct hv_vm *vm)
{
	if (vm->note)
		unlink(vm->note);
	free(TAKE_PTR(vm->note));
}

/* Whether it hangs in this start. */
static bool hangs(const struct fake_script *s, const struct hv_spec *spec)
{
	_cleanup_free_ char *path = path_join(spec->dir, HANGS), *text = NULL;
	size_t n = 0;
	if (!s->hangs || spec->from != HV_FROM_BOOT ||
	    (s->hang_rank != UINT64_MAX && s->hang_rank != spec->rank))
		return false;
	path_read(path, RANK_MAX, &text, &n, NULL);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC,
				      0600);
	return n < s->hangs && fd >= 0 && fd_write_all(fd, "x", 1) == 0;
}

/* ---- telling ---- */

static void gone(struct hv_vm *vm, enum hv_state state, const char *reason)
{
	vm->gone = true;
	vm->n_acts = 0;
	fake_out_finish(&vm->out);
	fake_in_finish(&vm->in);
	fake_guest_finish(&vm->guest);
	stream_destroy(TAKE_PTR(vm->console));
	evtimer_destroy(TAKE_PTR(vm->doom));
	forget_note(vm);
	hv_tell(&vm->to,
		&(struct hv_event){.type = HV_EVENT_GONE, .state = state, .fd = -1, .reason = reason});
}

/* ---- console ---- */

static void on_console_input(void *arg, struct buf *in)
{
	struct hv_vm *vm = arg; /* typed text is echoed, as a terminal does it */
	stream_write(vm->console, buf_head(in), buf_len(in));
	buf_consume(in, buf_len(in));
}

static void on_console_close(void *arg, const struct err *err _unused_)
{
	struct hv_vm *vm = arg;
	stream_destroy(TAKE_PTR(vm->console));
}

/* As fast as it is read, no faster: what waits here is memory of the agent's. */
static void print_more(void *arg)
{
	struct hv_vm *vm = arg;
	char line[80];
	memset(line, 'c', sizeof(line));
	line[sizeof(line) - 1] = '\n';
	/* What the kernel does not take at once is followed by on_drain. */
	while (vm->console && vm->console_left && !stream_queued(vm->console)) {
		for (unsigned i = 0; i < CONSOLE_LINES && vm->console_left; i++) {
			size_t n = MIN(vm->console_left, sizeof(line));
			vm->console_left -= n;
			buf_add(stream_out(vm->console), line + sizeof(line) - n, n);
		}
		stream_flush(vm->console);
	}
}

static void print_boot(struct hv_vm *vm)
{
	const struct fake_script *s = &vm->script;
	char line[80];
	if (!vm->console)
		return;
	if (s->console)
		stream_write(vm->console, s->console, strlen(s->console));
	else {
		int n = snprintf(line, sizeof(line), "%.40s: a fake guest boots\r\n", vm->name);
		stream_write(vm->console, line, (size_t)n);
	}
	vm->console_left = s->console_bytes;
	print_more(vm);
}

static bool open_console(struct hv_vm *vm)
{
	static const struct stream_ops ops = {.on_data = on_console_input,
					      .on_close = on_console_close,
					      .on_drain = print_more};
	int pair[2];
	if (vm->script.console && strcmp(vm->script.console, "off") == 0)
		return true;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return true;
	vm->console = stream_create(vm->loop, pair[0], &ops, vm, NULL);
	return hv_tell(&vm->to, &(struct hv_event){.type = HV_EVENT_CONSOLE,
						   .state = vm->to.state,
						   .fd = pair[1]});
}

/* ---- acts ---- */

static void act_later(struct hv_vm *vm, enum act a)
{
	if (vm->gone || vm->n_acts == ACTS_MAX)
		return;
	vm->acts[vm->n_acts++] = (unsigned char)a;
	evtimer_start(vm->tick, 0, 0);
}

static void on_down(void *arg, const char *how)
{
	act_later(arg, strcmp(how, "reboot") == 0 ? ACT_REBOOT : ACT_POWEROFF);
}

/* A guest on a fresh channel; the one before, if any, has lost its power. life: of the one that is adopted, or NULL. */
static bool boot(struct hv_vm *vm, const struct life *life, const char *reason)
{
	struct err e = ERR_INIT;
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		gone(vm, HV_CRASHED, "fake: out of descriptors");
		return false;
	}
	fake_guest_finish(&vm->guest);
	vm->guest = (struct fake_guest){.loop = vm->loop,
					.script = &vm->script,
					.on_down = on_down,
					.arg = vm,
					.mounts = vm->mounts,
					.paused = vm->to.state == HV_PAUSED};
	if (life) {
		vm->guest.booted = life->booted;
		memcpy(vm->guest.boot, life->boot, sizeof(life->boot));
	}
	if (fake_guest_boot(&vm->guest, pair[0], &e) < 0) {
		close(pair[1]);
		gone(vm, HV_CRASHED, "fake: the channel cannot be watched");
		return false;
	}
	write_note(vm);
	enum hv_state state = vm->to.state == HV_PAUSED ? HV_PAUSED : HV_RUNNING;
	if (!hv_tell(&vm->to,
		     &(struct hv_event){.type = HV_EVENT_STATE, .state = state, .fd = -1, .reason = reason}) ||
	    !hv_tell(&vm->to,
		     &(struct hv_event){.type = HV_EVENT_CHANNEL, .state = vm->to.state, .fd = pair[1]}))
		return false;
	return true;
}

static void first_boot(struct hv_vm *vm)
{
	const struct fake_script *s = &vm->script;
	if (s->fail_start)
		gone(vm, HV_CRASHED, "fake: told to fail by its script (exit 1)");
	else if (boot(vm, NULL, "started") && open_console(vm)) {
		print_boot(vm);
		if (vm->hangs && s->no_timer)
			fake_guest_down(&vm->guest, "reboot");
	}
}

/* What it had not printed yet is lost. */
static void go_on(struct hv_vm *vm, const char *how)
{
	if (boot(vm, &vm->life, how))
		open_console(vm);
}

/* False when the VM was released. */
static bool set_paused(struct hv_vm *vm, bool pause)
{
	enum hv_state want = pause ? HV_PAUSED : HV_RUNNING;
	if (vm->to.state == want)
		return true;
	fake_guest_pause(&vm->guest, pause);
	vm->to.state = want;
	write_note(vm);
	return hv_tell(&vm->to, &(struct hv_event){.type = HV_EVENT_STATE,
						   .state = want,
						   .fd = -1,
						   .reason = pause ? "paused" : "resumed"});
}

/* ---- save and restore ---- */

static void signature_write(const struct hv_vm *vm, char out[HV_SIGNATURE_MAX])
{
	snprintf(out, HV_SIGNATURE_MAX, "fake=1 cpus=%u memory=%" PRIu64, vm->cpus, vm->memory);
}

static void save_over(void *arg, const struct err *err)
{
	struct hv_vm *vm = arg;
	char signature[HV_SIGNATURE_MAX];
	const char *op = hv_cap_name(vm->out_op);
	bool lost = err && vm->out.switched;
	vm->out.switched = false;
	if (lost) {
		gone(vm, HV_CRASHED, "fake: its move by post-copy broke off");
		return;
	}
	if (!err) {
		if (!set_paused(vm, true)) /* one that was migrated ran until now */
			return;
		signature_write(vm, signature);
		hv_tell(&vm->to, &(struct hv_event){.type = HV_EVENT_DONE,
						    .state = vm->to.state,
						    .fd = -1,
						    .op = op,
						    .signature = signature,
						    .bytes = vm->out.bytes});
		return;
	}
	if (vm->out.was_running)
		act_later(vm, ACT_RESUME);
	hv_tell(&vm->to,
		&(struct hv_event){
			.type = HV_EVENT_FAILED, .state = vm->to.state, .fd = -1, .op = op, .err = err});
}

static void on_switch(void *arg)
{
	struct hv_vm *vm = arg;
	if (set_paused(vm, true))
		hv_tell(&vm->to, &(struct hv_event){.type = HV_EVENT_SWITCH,
						    .state = vm->to.state,
						    .fd = -1,
						    .op = hv_cap_name(vm->out_op)});
}

static void switch_now(struct hv_vm *vm)
{
	if (!vm->out.stream)
		return; /* its reader has gone, which was told */
	fake_out_switch(&vm->out);
	write_note(vm);
}

static void save_now(struct hv_vm *vm, enum hv_cap op)
{
	struct err e = ERR_INIT;
	char signature[HV_SIGNATURE_MAX];
	int fd;
	vm->out_op = op;
	signature_write(vm, signature);
	vm->out = (struct fake_out){.was_running = vm->to.state == HV_RUNNING,
				    .post_copy = op == HV_CAP_POST_COPY,
				    .on_switch = on_switch,
				    .on_end = save_over,
				    .arg = vm};
	if (op == HV_CAP_SAVE && vm->to.state == HV_RUNNING && !set_paused(vm, true))
		return;
	if (fake_out_begin(&vm->out, vm->loop, vm->script.state_bytes,
			   loop_now(vm->loop) - vm->guest.booted, vm->guest.boot, &fd, &e) < 0)
		save_over(vm, &e);
	else
		hv_tell(&vm->to, &(struct hv_event){.type = HV_EVENT_STREAM,
						    .state = vm->to.state,
						    .fd = fd,
						    .signature = signature,
						    .op = hv_cap_name(op)});
}

static void cancel_now(struct hv_vm *vm)
{
	struct err e = ERR_INIT;
	if (!vm->out.stream)
		return; /* it was done by then */
	fake_out_finish(&vm->out);
	err_set(&e, ECANCELED, "cancelled");
	save_over(vm, &e);
}

static void restored(void *arg, bool whole, uint64_t age_ms, const char *boot_id)
{
	struct hv_vm *vm = arg;
	if (!whole) {
		gone(vm, HV_CRASHED, "fake: the saved state is damaged");
		return;
	}
	vm->life.booted = loop_now(vm->loop) - age_ms;
	snprintf(vm->life.boot, sizeof(vm->life.boot), "%s", boot_id);
	bool cloned = vm->from == HV_FROM_TEMPLATE;
	if (!cloned)
		vm->to.state = HV_PAUSED;
	go_on(vm, cloned ? "cloned" : "restored");
}

static void rest_came(void *arg, bool whole)
{
	struct hv_vm *vm = arg;
	char signature[HV_SIGNATURE_MAX];
	signature_write(vm, signature);
	write_note(vm);
	if (whole)
		hv_tell(&vm->to, &(struct hv_event){.type = HV_EVENT_DONE,
						    .state = vm->to.state,
						    .fd = -1,
						    .op = hv_cap_name(HV_CAP_POST_COPY),
						    .signature = signature});
	else
		gone(vm, HV_CRASHED, "fake: the rest of its memory did not come");
}

static void adopt_now(struct hv_vm *vm)
{
	if (vm->life.paused >= HALF)
		gone(vm, HV_CRASHED, "fake: its agent died when some of its memory was on another node (post-copy)");
	else
		go_on(vm, "adopted");
}

/* A guest that goes down has time to be heard: its "bye" is read before the VM is gone. */
static bool unheard(struct hv_vm *vm)
{
	int unread = 0;
	return vm->guest.channel && vm->tries++ < 1000 &&
	       ioctl(stream_fd(vm->guest.channel), SIOCOUTQ, &unread) == 0 && unread > 0;
}

static void perform(struct hv_vm *vm, enum act a)
{
	switch (a) {
	case ACT_START: first_boot(vm); break;
	case ACT_ADOPT: adopt_now(vm); break;
	case ACT_PAUSE:
	case ACT_RESUME: set_paused(vm, a == ACT_PAUSE); break;
	case ACT_RESET:
		if (boot(vm, NULL, "reset"))
			print_boot(vm);
		break;
	case ACT_SAVE: save_now(vm, HV_CAP_SAVE); break;
	case ACT_SNAPSHOT: save_now(vm, HV_CAP_SNAPSHOT); break;
	case ACT_MIGRATE: save_now(vm, HV_CAP_MIGRATE_OUT); break;
	case ACT_POST_COPY: save_now(vm, HV_CAP_POST_COPY); break;
	case ACT_SWITCH: switch_now(vm); break;
	case ACT_CANCEL: cancel_now(vm); break;
	case ACT_CRASH: gone(vm, HV_CRASHED, "fake VMM crashed, as its script says"); break;
	case ACT_KILL: gone(vm, HV_SHUTDOWN, "stopped"); break;
	case ACT_POWEROFF: gone(vm, HV_SHUTDOWN, "guest powered off"); break;
	case ACT_REBOOT: gone(vm, HV_CRASHED, "guest reset itself (reboot or kernel panic)"); break;
	}
}

/* One act a round: what its events lead to comes in between. */
static void on_tick(void *arg)
{
	struct hv_vm *vm = arg;
	if (!vm->n_acts)
		return;
	enum act a = vm->acts[0];
	if ((a == ACT_POWEROFF || a == ACT_REBOOT) && unheard(vm)) {
		evtimer_start(vm->tick, 1, 0);
		return;
	}
	memmove(vm->acts, vm->acts + 1, --vm->n_acts);
	if (vm->n_acts)
		evtimer_start(vm->tick, 0, 0);
	perform(vm, a); /* may release vm */
}

static void on_doom(void *arg)
{
	struct hv_vm *vm = arg;
	if (vm->script.crash_ms)
		act_later(vm, ACT_CRASH);
	else
		fake_guest_down(&vm->guest, "poweroff");
}

/* ---- ops ---- */

struct probing {
	struct evtimer *timer;
	void (*done)(void *arg, const struct hv_probe *p);
	void *arg;
};

static void on_probed(void *arg)
{
	struct probing *q = arg;
	struct hv_probe p = {.usable = true, .accel = "fake", .version = VSE_VERSION};
	evtimer_destroy(q->timer);
	q->done(q->arg, &p);
	free(q);
}

static int probe(struct loop *l, const char *accel _unused_,
		 void (*done)(void *arg, const struct hv_probe *p), void *arg, struct err *err _unused_)
{
	struct probing *q = xcalloc(1, sizeof(*q));
	*q = (struct probing){.timer = evtimer_create(l, on_probed, q), .done = done, .arg = arg};
	evtimer_start(q->timer, 0, 0);
	return 0;
}

static void release(struct hv_vm *vm)
{
	hv_teller_release(&vm->to);
	fake_guest_finish(&vm->guest);
	fake_out_finish(&vm->out);
	fake_in_finish(&vm->in);
	stream_destroy(vm->console);
	evtimer_destroy(vm->tick);
	evtimer_destroy(vm->doom);
	fake_script_finish(&vm->script);
	forget_note(vm);
	free(vm->name);
	free(vm->mounts);
	free(vm);
}

static char *mounts_text(const struct hv_spec *spec)
{
	struct buf text = BUF_INIT;
	for (size_t i = 0; i < spec->n_mounts; i++)
		buf_addf(&text, "%s on %s %s\n", spec->mounts[i].host, spec->mounts[i].guest,
			 spec->mounts[i].rw ? "rw" : "ro");
	for (size_t i = 0; spec->devices && i < spec->devices->n; i++)
		buf_addf(&text, "%s\n", spec->devices->v[i]);
	return buf_take(&text);
}

static int make(struct loop *l, const struct hv_spec *spec, hv_event_fn *fn, void *arg,
		struct hv_vm **ret, struct err *err)
{
	struct fake_script s = {0};
	if (fake_script_parse(&s, spec->extra_args, err) < 0) {
		fake_script_finish(&s);
		return -1;
	}
	struct hv_vm *vm = xcalloc(1, sizeof(*vm));
	*vm = (struct hv_vm){.loop = l,
			     .to = {.fn = fn, .arg = arg},
			     .memory = spec->memory,
			     .cpus = spec->cpus,
			     .from = spec->from,
			     .template = spec->template,
			     .started = loop_now(l),
			     .script = s};
	vm->name = xstrdup(spec->name);
	vm->mounts = mounts_text(spec);
	vm->note = spec->keep ? path_join(spec->dir, NOTE) : NULL;
	vm->tick = evtimer_create(l, on_tick, vm);
	*ret = vm;
	return 0;
}

static void set_doom(struct hv_vm *vm)
{
	const struct fake_script *s = &vm->script;
	uint64_t at = s->crash_ms ? s->crash_ms : s->poweroff_ms, age = loop_now(vm->loop) - vm->started;
	if (!at)
		return;
	vm->doom = evtimer_create(vm->loop, on_doom, vm);
	evtimer_start(vm->doom, at > age ? at - age : 0, 0);
}

static int start_from(struct hv_vm *vm, const struct hv_spec *spec, struct err *err)
{
	char here[HV_SIGNATURE_MAX];
	signature_write(vm, here);
	vm->in = (struct fake_in){.fill = vm->script.state_bytes,
				  .post_copy = spec->post_copy,
				  .on_rest = rest_came,
				  .on_end = restored,
				  .arg = vm};
	int rc = 0;
	if (spec->signature && strcmp(spec->signature, here) != 0)
		rc = err_set(err, EINVAL, "the state was taken under %.200s, this VM would run under %s",
			     spec->signature, here);
	if (rc < 0 || fake_in_begin(&vm->in, vm->loop, spec->from_fd, err) < 0) {
		release(vm);
		return -1;
	}
	return 0;
}

static int start(struct loop *l, const struct hv_spec *spec, const struct hv_probe *p _unused_,
		 hv_event_fn *fn, void *arg, struct hv_vm **ret, struct err *err)
{
	struct hv_vm *vm;
	if (make(l, spec, fn, arg, &vm, err) < 0)
		return -1;
	if (vm->script.refuse_start) {
		release(vm);
		return err_set(err, EPERM, "told to refuse by its script");
	}
	set_doom(vm);
	vm->hangs = hangs(&vm->script, spec);
	vm->script.never_hello |= vm->hangs;
	if (spec->from == HV_FROM_BOOT)
		act_later(vm, ACT_START);
	else if (start_from(vm, spec, err) < 0)
		return -1;
	*ret = vm;
	return 0;
}

static int adopt(struct loop *l, const struct hv_spec *spec, hv_event_fn *fn, void *arg,
		 struct hv_vm **ret, struct err *err)
{
	struct hv_vm *vm;
	struct life life;
	if (read_note(spec->dir, &life, err) < 0 || make(l, spec, fn, arg, &vm, err) < 0)
		return -1;
	free(vm->note);
	vm->note = path_join(spec->dir, NOTE); /* it was kept before */
	vm->life = life;
	vm->started = life.started;
	vm->to.state = life.paused ? HV_PAUSED : HV_STARTING;
	set_doom(vm);
	act_later(vm, ACT_ADOPT);
	*ret = vm;
	return 0;
}

static int stop(struct hv_vm *vm, enum hv_stop how _unused_, struct err *err _unused_)
{
	vm->n_acts = 0; /* what was asked for before no longer matters */
	act_later(vm, ACT_KILL);
	return 0;
}

static int later(struct hv_vm *vm, enum act a, struct err *err)
{
	if (vm->n_acts == ACTS_MAX)
		return err_set(err, EBUSY, "too many requests at once");
	act_later(vm, a);
	return 0;
}

static int pause_vm(struct hv_vm *vm, struct err *err)
{
	return later(vm, ACT_PAUSE, err);
}

static int resume_vm(struct hv_vm *vm, struct err *err)
{
	return later(vm, ACT_RESUME, err);
}

static int reset_vm(struct hv_vm *vm, struct err *err)
{
	return later(vm, ACT_RESET, err);
}

/* By post-copy it may run before. */
static int out(struct hv_vm *vm, enum act a, struct err *err)
{
	if (vm->in.came && vm->in.post_copy)
		return err_set(err, EBUSY, "some of its memory is still on its way here");
	return later(vm, a, err);
}

static int save(struct hv_vm *vm, struct err *err)
{
	return out(vm, ACT_SAVE, err);
}

static int snapshot(struct hv_vm *vm, struct err *err)
{
	if (!vm->template)
		return err_set(err, EINVAL, "it was not started as a template");
	return later(vm, ACT_SNAPSHOT, err);
}

static int migrate_out(struct hv_vm *vm, struct err *err)
{
	return out(vm, ACT_MIGRATE, err);
}

static int post_copy(struct hv_vm *vm, struct err *err)
{
	return out(vm, ACT_POST_COPY, err);
}

static int switch_over(struct hv_vm *vm, struct err *err)
{
	return later(vm, ACT_SWITCH, err);
}

static int cancel(struct hv_vm *vm, struct err *err)
{
	return later(vm, ACT_CANCEL, err);
}

static int stats(struct hv_vm *vm, struct hv_stats *ret, struct err *err _unused_)
{
	uint64_t age = loop_now(vm->loop) - vm->started;
	*ret = (struct hv_stats){.rss = vm->memory / 4, .cpu_ms = vm->hangs ? 1 : age / 100};
	return 0;
}

const struct hypervisor hypervisor_fake = {
	.name = "fake",
	.summary = "no VMM: a scripted guest inside the agent, for tests and for runs of thousands "
		   "of VMs",
	.lacks = {[HV_CAP_KERNEL] = "its guest is scripted",
		  [HV_CAP_STOP_GRACEFUL] = "no power button; ask the guest agent",
		  [HV_CAP_NET] = "no network behind it",
		  [HV_CAP_TAP] = "no network behind it",
		  [HV_CAP_PIN] = "its VMs have no CPUs",
		  [HV_CAP_NUMA] = "its VMs have no memory",
		  [HV_CAP_HUGEPAGES] = "its VMs have no memory"},
	.probe = probe,
	.start = start,
	.adopt = adopt,
	.stop = stop,
	.pause = pause_vm,
	.resume = resume_vm,
	.reset = reset_vm,
	.save = save,
	.snapshot = snapshot,
	.migrate_out = migrate_out,
	.post_copy = post_copy,
	.switch_over = switch_over,
	.cancel = cancel,
	.stats = stats,
	.release = release,
};
