/* SPDX-License-Identifier: Apache-2.0 */
/* The end: tell the host, end all processes, write back, off. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <time.h>

#include "base/time.h"
#include "guest/guest.h"
#include "guest/spawn.h"
#include "wire/kv.h"

#define BYE_MS 300
#define KILL_MS 500

void power_bye(struct guest *g, const char *how)
{
	_cleanup_buf_ struct buf more = BUF_INIT;
	if (g->said_bye || !g->set_up)
		return;
	g->said_bye = true;
	kv_adds(&more, "how", how);
	agent_send(g, 0, "bye", &more);
	agent_flush(g, BYE_MS);
}

/* Every process of the VM is a descendant of process 1: none left means no child left. */
static bool all_ended(unsigned ms)
{
	uint64_t until = time_mono_ms() + ms;
	sigset_t child;
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	for (;;) {
		pid_t pid;
		while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
			;
		if (pid < 0 && errno == ECHILD)
			return true;
		uint64_t now = time_mono_ms();
		if (now >= until)
			return false;
		uint64_t left = until - now;
		struct timespec ts = {.tv_sec = (time_t)(left / 1000),
				      .tv_nsec = (long)(left % 1000) * 1000000};
		sigtimedwait(&child, NULL, &ts);
	}
}

_Noreturn void power_now(const char *how)
{
	reboot(strcmp(how, "reboot") == 0 ? RB_AUTOBOOT : RB_POWER_OFF);
	reboot(RB_HALT_SYSTEM);
	for (;;)
		pause();
}

static void ask_systemd(struct guest *g, const char *how)
{
	pid_t pid = fork();
	if (pid == 0) {
		spawn_reset_signals();
		execlp("systemctl", "systemctl", "--no-block", how, (char *)NULL);
		_exit(127);
	}
	if (pid < 0)
		agent_log(g, "start systemctl: %s", strerror(errno));
}

void power_down(struct guest *g, const char *how)
{
	power_bye(g, how);
	if (g->init == INIT_NONE) {
		g->quit = true;
		return;
	}
	if (g->init == INIT_SYSTEMD) {
		ask_systemd(g, how);
		return;
	}
	kill(-1, SIGTERM);
	kill(-1, SIGCONT);
	if (!all_ended(GUEST_GRACE_MS)) {
		kill(-1, SIGKILL);
		all_ended(KILL_MS);
	}
	init_release();
	power_now(how);
}
