/* SPDX-License-Identifier: Apache-2.0 */
/* init: systemd. Process 1 of the initramfs leaves a copy of itself and a unit in /run and execs systemd;
 * the unit starts the copy as the agent. systemd itself tells when the system is up, the way it tells a
 * container manager: with a datagram to $NOTIFY_SOCKET that it found in its environment (systemd(1)). */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/time.h"
#include "guest/guest.h"
#include "guest/spawn.h"

#define PROGRAM "/run/vse/vse-guest"
#define SOCKET "/run/vse/up.socket"
#define MARK "/run/vse/up"
#define UNITS "/run/systemd/system"
#define UNBLOCK_MS 20000

/* Before sysinit.target: what needs names, keys or the network finds them. Type=notify holds the others until
 * "setup" was applied. KillMode=mixed: what the host's programs leave behind when we end does not delay
 * the shutdown. */
static const char unit[] =
	"[Unit]\n"
	"Description=vse guest agent\n"
	"DefaultDependencies=no\n"
	"After=systemd-remount-fs.service\n"
	"Before=sysinit.target network-pre.target ssh.service sshd.service shutdown.target\n"
	"Conflicts=shutdown.target\n"
	"Wants=network-pre.target\n"
	"[Service]\n"
	"Type=notify\n"
	"ExecStart=" PROGRAM " --agent\n"
	"Restart=always\n"
	"RestartSec=1\n"
	"KillMode=mixed\n"
	"TimeoutStopSec=5\n"
	"OOMScoreAdjust=-1000\n"
	"TasksMax=infinity\n"
	"LimitNOFILE=524288\n"
	"LimitMEMLOCK=infinity\n";

static int copy_self(void)
{
	_cleanup_close_ int in = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	_cleanup_close_ int out = open(PROGRAM, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	ssize_t n;
	if (in < 0 || out < 0)
		return -1;
	while ((n = sendfile(out, in, NULL, 1 << 20)) > 0)
		;
	return (int)n;
}

static int write_units(struct err *err)
{
	if (path_mkdirs(UNITS "/sysinit.target.wants", 0755, err) < 0 ||
	    path_mkdirs("/run/systemd/network", 0755, err) < 0 ||
	    setup_file(UNITS "/vse-guest.service", unit, sizeof(unit) - 1, 0644, err) < 0)
		return -1;
	if (symlink("../vse-guest.service", UNITS "/sysinit.target.wants/vse-guest.service") < 0)
		return err_errno(err, errno, "enable the agent");
	/* Interfaces keep the kernel's names: eth0 is the cluster's. */
	if (symlink("/dev/null", "/run/systemd/network/99-default.link") < 0)
		return err_errno(err, errno, "keep the names of network interfaces");
	return 0;
}

bool systemd_reboots(void)
{
	char job[16] = "";
	int p[2];
	if (pipe2(p, O_CLOEXEC) < 0)
		return false;
	pid_t pid = fork();
	if (pid == 0) {
		spawn_reset_signals();
		dup2(p[1], STDOUT_FILENO);
		execlp("systemctl", "systemctl", "show", "--property=Job", "reboot.target",
		       (char *)NULL);
		_exit(127);
	}
	close(p[1]);
	/* "Job=17" while reboot.target waits for us to end; "Job=0", or nothing, where nobody asked for it. */
	if (pid > 0)
		fd_read_full(p[0], job, sizeof(job) - 1);
	close(p[0]);
	return strncmp(job, "Job=", 4) == 0 && job[4] >= '1' && job[4] <= '9';
}

void systemd_handover(void)
{
	static const char *const inits[] = {"/sbin/init", "/lib/systemd/systemd",
					    "/usr/lib/systemd/systemd"};
	static char *env[] = {
		(char *)"TERM=linux",
		(char *)"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		(char *)"NOTIFY_SOCKET=" SOCKET, NULL};
	struct err err = ERR_INIT;
	mkdir("/run/vse", 0755);
	if (copy_self() < 0)
		init_panic("copy the agent to /run: %s", strerror(errno));
	if (write_units(&err) < 0)
		init_panic("%s", err.text);
	for (size_t i = 0; i < ARRAY_SIZE(inits); i++) {
		char *argv[] = {(char *)inits[i], NULL};
		execve(inits[i], argv, env);
	}
	init_panic("init: systemd: no /sbin/init that can be run in the root file system: %s",
		   strerror(errno));
}

static void tell_systemd(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	size_t n = path ? strlen(path) : 0;
	if (!n || n >= sizeof(a.sun_path))
		return;
	memcpy(a.sun_path, path, n);
	if (path[0] == '@')
		a.sun_path[0] = '\0';
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&a,
		       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
}

void systemd_begin(struct guest *g)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = SOCKET};
	g->unblock_at = time_mono_ms() + UNBLOCK_MS;
	g->system_up = path_exists(MARK); /* the agent was started again */
	unlink(SOCKET);
	g->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (g->notify_fd < 0 || bind(g->notify_fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		agent_log(g, "%s: %s: 'ready' will come late", SOCKET, strerror(errno));
}

/* Lets the units that wait for "setup" go on. */
static void systemd_unblock(struct guest *g)
{
	if (!g->unblock_at)
		return;
	g->unblock_at = 0;
	tell_systemd("READY=1");
}

static void on_notify(struct guest *g, void *arg _unused_, int which _unused_, short revents _unused_)
{
	char text[1024];
	ssize_t n;
	while ((n = recv(g->notify_fd, text, sizeof(text) - 1, 0)) > 0) {
		text[n] = '\0';
		if (!strstr(text, "READY=1") && !strstr(text, "STATUS=Startup finished"))
			continue;
		g->system_up = true;
		close(open(MARK, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
	}
}

void systemd_watch(struct guest *g, struct watches *w)
{
	if (g->notify_fd >= 0)
		watch_fd(w, g->notify_fd, POLLIN, on_notify, NULL, 0);
	if (g->unblock_at)
		watch_until(w, g->unblock_at);
}

void systemd_tick(struct guest *g, uint64_t now)
{
	/* ssh.service needs its host key. */
	if (g->set_up && g->keygen <= 0)
		systemd_unblock(g);
	if (g->unblock_at && now >= g->unblock_at) {
		agent_log(g, "the host sent no setup for %d s: the system starts without",
			  UNBLOCK_MS / 1000);
		systemd_unblock(g);
	}
}
