/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper of a VM: one loop around poll(2). It never calls the module itself: it reads /proc, and lets doers do. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/time.h"
#include "hypervisor/palacios.h"
#include "io/child.h"

#define LOOK_MS 200       /* how often the VM's state is read */
#define IDLE_MS 3000      /* vcores that did nothing for so long after a goodbye have halted */
#define GOODBYE_MS 120000 /* a guest that said goodbye is off after this, whatever it does */
#define FLUSH_MS 2000     /* for what the guest said last to be read by the agent */
#define QUEUE_MAX 16u

enum { CHANNEL, CONSOLE, PUMPS };

struct keeper {
	const struct hv_spec *spec;
	char name[PALACIOS_NAME_MAX + 1];
	pid_t shadow;
	int control, listener, cleaned, from, log;
	struct palacios_pump pumps[PUMPS];
	struct palacios_words words;
	struct palacios_message queue[QUEUE_MAX];
	unsigned queued;
	/* what is being done */
	pid_t doer;
	int report, stream; /* stream: of a save; closed once its doer has it */
	struct palacios_message doing;
	struct palacios_message result, failure;
	bool has_result, cancelled;
	/* what is known of the VM */
	enum hv_state state; /* as told */
	bool loaded;
	uint64_t next_look, exits, exits_since, goodbye_since;
};

static void (*const seen[PUMPS])(struct palacios_words *w, const char *p,
				 size_t n) = {palacios_words_channel, palacios_words_console};

/* ---- telling ---- */

static void tell(struct keeper *k, struct palacios_message m, int fd)
{
	if (k->control >= 0 && palacios_message_write(k->control, &m, fd) < 0)
		close(TAKE_FD(k->control));
}

static void tell_state(struct keeper *k, enum hv_state state, const char *reason)
{
	struct palacios_message m = {.kind = PALACIOS_EVENT, .event = HV_EVENT_STATE, .state = state};
	k->state = state;
	snprintf(m.text, sizeof(m.text), "%s", reason);
	tell(k, m, -1);
}

static void tell_failed(struct keeper *k, enum palacios_op op, int code, const char *text)
{
	struct palacios_message m = {.kind = PALACIOS_EVENT,
				     .event = HV_EVENT_FAILED,
				     .op = op,
				     .state = k->state,
				     .code = code};
	snprintf(m.text, sizeof(m.text), "%s", text);
	tell(k, m, -1);
}

static void tell_pump(struct keeper *k, int which)
{
	struct palacios_message m = {.kind = PALACIOS_EVENT,
				     .event = which == CHANNEL ? HV_EVENT_CHANNEL : HV_EVENT_CONSOLE,
				     .state = k->state};
	_cleanup_close_ int fd = -1;
	if (palacios_pump_open(&k->pumps[which], &fd, NULL) == 0)
		tell(k, m, fd);
}

static void move_all(struct keeper *k)
{
	uint64_t now = time_mono_ms();
	for (int i = 0; i < PUMPS; i++) {
		palacios_pump_read(&k->pumps[i], &k->words, seen[i]);
		palacios_pump_move(&k->pumps[i], now);
	}
}

/* The agent's own reader may be slow; what the guest said last is why it ended. */
static void flush(struct keeper *k)
{
	uint64_t until = time_mono_ms() + FLUSH_MS;
	do {
		move_all(k);
		if (!buf_len(&k->pumps[CHANNEL].in) && !buf_len(&k->pumps[CONSOLE].in))
			break;
		poll(NULL, 0, 5);
	} while (time_mono_ms() < until);
}

static _Noreturn void end(struct keeper *k, enum hv_state state, const char *reason)
{
	struct palacios_message m = {.kind = PALACIOS_END, .state = state};
	snprintf(m.text, sizeof(m.text), "%s", reason);
	flush(k);
	tell(k, m, -1);
	if (k->spec->keep && k->control < 0)
		palacios_ended_write(k->spec->dir, state, reason);
	for (int i = 0; i < PUMPS; i++)
		palacios_pump_finish(&k->pumps[i]);
	if (k->doer > 0)
		kill(k->doer, SIGKILL);
	while (wait(NULL) > 0 || errno == EINTR)
		;
	_exit(0);
}

/* Nobody would clean up behind us any more: that is done here, and blocks. */
static _Noreturn void end_alone(struct keeper *k)
{
	int lock;
	flush(k);
	for (int i = 0; i < PUMPS; i++)
		palacios_pump_finish(&k->pumps[i]);
	if (palacios_lock(&lock, NULL) == 0)
		palacios_remove(k->name, NULL);
	palacios_boot_remove(k->spec->dir);
	end(k, HV_CRASHED, "the process that cleans up behind the VM was killed");
}

/* ---- doers ---- */

static void begin_stream(struct keeper *k, int *ret_doers_end)
{
	struct palacios_message m = {.kind = PALACIOS_EVENT,
				     .event = HV_EVENT_STREAM,
				     .op = k->doing.op,
				     .state = k->state};
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return;
	tell(k, m, pair[1]);
	close(pair[1]);
	*ret_doers_end = pair[0];
}

static _Noreturn void run_doer(struct keeper *k, int report, int stream, pid_t keeper)
{
	static const enum palacios_state states[] = {
		[HV_RUNNING] = PALACIOS_RUNNING, [HV_PAUSED] = PALACIOS_PAUSED, [HV_SHUTDOWN] = PALACIOS_STOPPED};
	struct palacios_doing d = {.spec = k->spec,
				   .name = k->name,
				   .state = states[k->state],
				   .loaded = k->loaded,
				   .stream = stream,
				   .from = k->from,
				   .report = report,
				   .what = k->doing};
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != keeper)
		_exit(1); /* it died before the line above */
	prctl(PR_SET_NAME, "vse-v3-doer");
	for (int i = 0; i < PUMPS; i++)
		palacios_pump_finish(&k->pumps[i]);
	if (k->control >= 0)
		close(k->control);
	_exit(palacios_do(&d));
}

static void failed(struct keeper *k, const struct palacios_message *r);

static void not_begun(struct keeper *k, const int pair[2], int stream)
{
	struct palacios_message r = {.op = k->doing.op, .code = errno};
	const int fds[] = {pair[0], pair[1], stream};
	snprintf(r.text, sizeof(r.text), "%s: no process can be started: %s",
		 palacios_op_name(r.op), strerror(errno));
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	k->doer = 0;
	failed(k, &r);
}

static void do_now(struct keeper *k, const struct palacios_message *m)
{
	int pair[2] = {-1, -1}, stream = -1;
	pid_t keeper = getpid();
	k->doing = *m;
	k->cancelled = k->has_result = false;
	if (m->op == PALACIOS_OP_SAVE || m->op == PALACIOS_OP_MIGRATE)
		begin_stream(k, &stream);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0 || (k->doer = fork()) < 0) {
		not_begun(k, pair, stream);
		return;
	}
	if (k->doer == 0)
		run_doer(k, pair[1], stream, keeper);
	close(pair[1]);
	if (stream >= 0)
		close(stream);
	k->report = pair[0];
}

static void do_later(struct keeper *k, const struct palacios_message *m)
{
	if (k->queued == QUEUE_MAX)
		tell_failed(k, m->op, EBUSY, "too many requests at once");
	else
		k->queue[k->queued++] = *m;
}

static void do_next(struct keeper *k)
{
	if (k->doer || !k->queued)
		return;
	struct palacios_message m = k->queue[0];
	memmove(k->queue, k->queue + 1, sizeof(m) * --k->queued);
	do_now(k, &m);
}

static void started(struct keeper *k, const char *reason)
{
	k->loaded = k->from >= 0;
	if (k->from >= 0)
		close(TAKE_FD(k->from));
	tell_state(k, k->loaded ? HV_PAUSED : HV_RUNNING, reason);
	tell_pump(k, CHANNEL);
	tell_pump(k, CONSOLE);
}

/* A guest that was reset says hello again, on a new stream; what the one before had half said is dropped. */
static void was_reset(struct keeper *k)
{
	for (int i = 0; i < PUMPS; i++)
		palacios_pump_drop(&k->pumps[i]);
	palacios_words_clear(&k->words);
	k->goodbye_since = 0;
	tell_state(k, k->state, "reset");
	tell_pump(k, CHANNEL);
}

static void saved(struct keeper *k, const struct palacios_message *r)
{
	struct palacios_message m = {
		.kind = PALACIOS_EVENT, .event = HV_EVENT_DONE, .op = r->op, .bytes = r->bytes};
	snprintf(m.text, sizeof(m.text), "%s", r->text);
	if (k->state != HV_PAUSED)
		tell_state(k, HV_PAUSED, "saved");
	m.state = k->state;
	tell(k, m, -1);
}

static void undone(struct keeper *k)
{
	tell_failed(k, k->failure.op, k->failure.code, k->failure.text);
}

static void succeeded(struct keeper *k, const struct palacios_message *r)
{
	switch (r->op) {
	case PALACIOS_OP_START: started(k, k->from >= 0 ? "restored" : "started"); break;
	case PALACIOS_OP_PAUSE:
		if (k->state != HV_PAUSED)
			tell_state(k, HV_PAUSED, "paused");
		break;
	case PALACIOS_OP_RESUME:
		k->loaded = false;
		if (k->state != HV_RUNNING)
			tell_state(k, HV_RUNNING, "resumed");
		break;
	case PALACIOS_OP_RESET: was_reset(k); break;
	case PALACIOS_OP_SAVE:
	case PALACIOS_OP_MIGRATE: saved(k, r); break;
	case PALACIOS_OP_UNDO: undone(k); break;
	default: break;
	}
}

static void failed(struct keeper *k, const struct palacios_message *r)
{
	if (r->op == PALACIOS_OP_START)
		end(k, HV_CRASHED, r->text);
	if (r->op == PALACIOS_OP_UNDO) {
		undone(k); /* what the VM is now will be seen */
		return;
	}
	k->failure = *r;
	if (k->cancelled) {
		k->failure.code = ECANCELED;
		snprintf(k->failure.text, sizeof(k->failure.text), "cancelled");
	}
	/* The VM is as it was before, and then its failure is told. */
	if (r->op == PALACIOS_OP_SAVE || r->op == PALACIOS_OP_MIGRATE)
		do_now(k, &(struct palacios_message){
				  .kind = PALACIOS_DO, .op = PALACIOS_OP_UNDO, .state = k->state});
	else
		undone(k);
}

static void doer_ended(struct keeper *k, int status)
{
	struct palacios_message r = k->result;
	char how[40];
	if (!k->has_result || k->cancelled) {
		r = (struct palacios_message){.op = k->doing.op, .code = EIO};
		snprintf(r.text,
			 sizeof(r.text), "%s: the process that did it was %s within the kernel: see the node's kernel log",
			 palacios_op_name(r.op), child_status_text(status, how));
	}
	k->doer = 0;
	close(TAKE_FD(k->report));
	k->next_look = 0;
	if (r.code)
		failed(k, &r);
	else
		succeeded(k, &r);
}

static void read_report(struct keeper *k)
{
	struct palacios_message m;
	int fd, rc;
	while ((rc = palacios_message_read(k->report, &m, &fd)) == 1) {
		if (m.kind == PALACIOS_STREAM && fd >= 0 && m.vcpu < PUMPS && k->pumps[m.vcpu].kernel < 0)
			k->pumps[m.vcpu].kernel = TAKE_FD(fd);
		if (m.kind == PALACIOS_RESULT) {
			k->result = m;
			k->has_result = true;
		}
		if (fd >= 0)
			close(fd);
	}
	int status = 0;
	/* Its end of the pair is closed by its end; one that died in the kernel has no more to say. */
	if (rc < 0 && waitpid(k->doer, &status, 0) == k->doer)
		doer_ended(k, status);
}

/* ---- the agent ---- */

static void hello(struct keeper *k)
{
	tell(k, (struct palacios_message){.kind = PALACIOS_HELLO, .pid = getpid(), .state = k->state},
	     k->cleaned);
}

static void agent_gone(struct keeper *k)
{
	if (k->control >= 0)
		close(TAKE_FD(k->control));
	for (int i = 0; i < PUMPS; i++)
		if (k->pumps[i].ours >= 0) {
			close(TAKE_FD(k->pumps[i].ours));
			buf_clear(&k->pumps[i].in);
			buf_clear(&k->pumps[i].out);
		}
	if (!k->spec->keep)
		end(k, HV_SHUTDOWN, "its agent has ended");
}

static void cancel(struct keeper *k)
{
	if (!k->doer || (k->doing.op != PALACIOS_OP_SAVE && k->doing.op != PALACIOS_OP_MIGRATE) ||
	    k->has_result)
		return;
	k->cancelled = true;
	kill(k->doer, SIGKILL);
}

static void read_control(struct keeper *k)
{
	struct palacios_message m;
	int fd, rc;
	while ((rc = palacios_message_read(k->control, &m, &fd)) == 1) {
		if (fd >= 0)
			close(fd);
		if (m.kind == PALACIOS_CANCEL)
			cancel(k);
		else if (m.kind == PALACIOS_DO)
			do_later(k, &m);
	}
	if (rc < 0)
		agent_gone(k);
}

/* An agent that was started anew. It owns the VM from now on. */
static void adopted(struct keeper *k)
{
	int fd = accept4(k->listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	if (k->control >= 0)
		close(k->control);
	k->control = fd;
	hello(k);
	if (k->state == HV_STARTING)
		return; /* what follows a start follows */
	tell_state(k, k->state, "adopted");
	tell_pump(k, CHANNEL);
	tell_pump(k, CONSOLE);
}

static int listen_at(const char *dir)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	_cleanup_free_ char *path = palacios_keeper_socket(dir);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || strlen(path) >= sizeof(sa.sun_path))
		return -1;
	memcpy(sa.sun_path, path, strlen(path) + 1);
	unlink(path);
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 4) < 0)
		return -1;
	return TAKE_FD(fd);
}

/* ---- the VM ---- */

static bool cores_idle(struct keeper *k, uint64_t now)
{
	struct palacios_cores c;
	palacios_look_cores(k->name, &c);
	if (c.exits != k->exits || !k->exits_since) {
		k->exits = c.exits;
		k->exits_since = now;
	}
	return now - k->exits_since >= IDLE_MS;
}

/* Nothing says that a guest has halted. Its kernel's last line does, and its agent's goodbye, and vcores that do nothing. */
static void look_for_halt(struct keeper *k, uint64_t now)
{
	bool off = strcmp(k->words.bye, "poweroff") == 0 || strcmp(k->words.bye, "halt") == 0;
	if (!off && !k->words.halted) {
		k->goodbye_since = k->exits_since = 0;
		return;
	}
	if (!k->goodbye_since)
		k->goodbye_since = now;
	bool idle = cores_idle(k, now);
	if ((off && k->words.halted) || idle || now - k->goodbye_since >= GOODBYE_MS)
		end(k, HV_SHUTDOWN, "guest powered off");
}

static _Noreturn void guest_stopped(struct keeper *k)
{
	flush(k);
	if (strcmp(k->words.bye, "poweroff") == 0 || strcmp(k->words.bye, "halt") == 0)
		end(k, HV_SHUTDOWN, "guest powered off");
	if (k->words.panicked)
		end(k, HV_CRASHED, "guest kernel panicked");
	end(k, HV_CRASHED,
	    k->words.bye[0] ? "guest reset itself (reboot)"
			    : "guest reset itself (a triple fault, without a goodbye)");
}

static _Noreturn void guest_broken(struct keeper *k)
{
	char said[300];
	palacios_log_read(k->log, k->name, said, sizeof(said));
	_cleanup_free_ char *text = xasprintf("Palacios could not go on with this guest%s%s",
					      said[0] ? ": " : "", said);
	end(k, HV_CRASHED, text);
}

static void look(struct keeper *k, uint64_t now)
{
	struct palacios_guest g;
	struct err e = ERR_INIT;
	/* Its state is in motion while something is done to it; and before it was made there is none. */
	if (k->doer || k->state == HV_STARTING)
		return;
	int found = palacios_look(k->name, &g, &e);
	if (found < 0)
		return; /* a list that cannot be read says nothing of the VM */
	if (found == 0)
		end(k, HV_CRASHED, "somebody else has removed the VM from Palacios");
	switch (g.state) {
	case PALACIOS_RUNNING:
		if (k->state != HV_RUNNING)
			tell_state(k, HV_RUNNING, "resumed by somebody else");
		look_for_halt(k, now);
		break;
	case PALACIOS_PAUSED:
		if (k->state != HV_PAUSED)
			tell_state(k, HV_PAUSED, "paused by somebody else");
		break;
	case PALACIOS_STOPPED:
		if (!k->loaded)
			guest_stopped(k);
		break;
	case PALACIOS_ERROR:
	case PALACIOS_LOST: guest_broken(k);
	default: break;
	}
}

/* ---- the loop ---- */

static int wait_ms(const struct keeper *k, uint64_t now)
{
	uint64_t until = MIN(k->next_look, now + LOOK_MS);
	for (int i = 0; i < PUMPS; i++)
		if (k->pumps[i].wait_ms)
			until = MIN(until, k->pumps[i].retry_at);
	return until > now ? (int)(until - now) : 0;
}

static void wait_for_something(struct keeper *k)
{
	struct pollfd p[3 + 2 * PUMPS] = {{.fd = k->control, .events = POLLIN},
					  {.fd = k->report, .events = POLLIN},
					  {.fd = k->listener, .events = POLLIN}};
	for (int i = 0; i < PUMPS; i++) {
		struct palacios_pump *u = &k->pumps[i];
		p[3 + 2 * i] = (struct pollfd){.fd = u->kernel, .events = POLLIN};
		p[4 + 2 * i] = (struct pollfd){.fd = u->ours,
					       .events = (short)((u->wait_ms ? 0 : POLLIN) |
								 (buf_len(&u->in) ? POLLOUT : 0))};
	}
	if (poll(p, ARRAY_SIZE(p), wait_ms(k, time_mono_ms())) < 0)
		return;
	if (p[2].revents)
		adopted(k);
	else if (p[0].revents && k->control >= 0)
		read_control(k);
	if (p[1].revents && k->report >= 0)
		read_report(k);
}

static void run(struct keeper *k)
{
	for (;;) {
		uint64_t now = time_mono_ms();
		if (now >= k->next_look) {
			k->next_look = now + LOOK_MS;
			look(k, now);
			if (getppid() != k->shadow)
				end_alone(k);
		}
		do_next(k);
		wait_for_something(k);
		move_all(k);
	}
}

_Noreturn void palacios_keep(const struct hv_spec *spec, int control, int from, int cleaned, pid_t parent)
{
	struct keeper k = {.spec = spec,
			   .control = control,
			   .cleaned = cleaned,
			   .from = from,
			   .shadow = parent,
			   .listener = -1,
			   .report = -1,
			   .state = HV_STARTING};
	sigset_t none;
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_PDEATHSIG, 0);
	prctl(PR_SET_NAME, "vse-v3-keeper");
	for (int i = 0; i < PUMPS; i++)
		palacios_pump_init(&k.pumps[i]);
	palacios_name_of(getpid(), spec->name, k.name);
	k.log = palacios_log_open();
	if (spec->keep)
		k.listener = listen_at(spec->dir);
	hello(&k);
	do_later(&k, &(struct palacios_message){.kind = PALACIOS_DO, .op = PALACIOS_OP_START});
	run(&k);
	_exit(1);
}
