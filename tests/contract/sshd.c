/* SPDX-License-Identifier: Apache-2.0 */
#include "contract/sshd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/path.h"
#include "io/child.h"

static pid_t server;
static int hung = -1; /* listens, and nobody accepts more than fits its queue */

static int bound(int *ret_port, bool listens)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
	    (listens && listen(fd, 16) < 0) || getsockname(fd, (struct sockaddr *)&a, &len) < 0)
		return -1;
	*ret_port = ntohs(a.sin_port);
	return fd;
}

static bool answers(int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons((uint16_t)port),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char c;
	bool good = connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && read(fd, &c, 1) == 1;
	close(fd);
	return good;
}

static bool run(char *const *argv)
{
	struct child_spec spec = {.argv = argv, .fds = {-1, -1, 2}, .n_fds = 3};
	pid_t pid;
	int status;
	return child_spawn(&spec, &pid, NULL) == 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static bool make_key(const char *path)
{
	char *argv[] = {(char *)"ssh-keygen", (char *)"-q", (char *)"-t",
			(char *)"ed25519",    (char *)"-N", (char *)"",
			(char *)"-f",         (char *)path, NULL};
	return path_exists(path) || run(argv);
}

static bool write_file(const char *folder, const char *name, char *text) /* text: taken */
{
	_cleanup_free_ char *path = path_join(folder, name);
	bool good = path_write(path, text, strlen(text), 0600, NULL) == 0;
	free(text);
	return good;
}

static bool configure(const char *folder, const char *max_startups, int port, int far, int dead)
{
	_cleanup_free_ char *host = path_join(folder, "host"), *user = path_join(folder, "user");
	_cleanup_free_ char *pub = path_join(folder, "host.pub"), *key = NULL;
	if (!make_key(host) || !make_key(user) || path_read(pub, 4096, &key, NULL, NULL) < 0)
		return false;
	return write_file(
		       folder, "sshd_config",
		       xasprintf("Port %d\nListenAddress 127.0.0.1\nHostKey "
				 "%s/host\nAuthorizedKeysFile %s/user.pub\n"
				 "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile "
				 "none\n"
				 "PermitRootLogin yes\nMaxStartups %s\nLogLevel ERROR\nUseDNS no\n",
				 port, folder, folder, max_startups)) &&
	       write_file(folder, "known", xasprintf("nodes %s", key)) &&
	       write_file(folder, "ssh_config",
			  xasprintf("Host far\n Port %d\nHost dead\n Port %d\n"
				    "Host n* far dead\n HostName 127.0.0.1\n Port %d\n "
				    "HostKeyAlias nodes\n"
				    " IdentityFile %s/user\n IdentitiesOnly yes\n "
				    "UserKnownHostsFile %s/known\n"
				    " GlobalKnownHostsFile none\n StrictHostKeyChecking yes\n",
				    far, dead, port, folder, folder));
}

static bool start_on(const char *folder, int port)
{
	_cleanup_free_ char *config = path_join(folder, "sshd_config"),
			    *log = path_join(folder, "sshd.log");
	_cleanup_close_ int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	char *argv[] = {
		(char *)"/usr/sbin/sshd", (char *)"-D", (char *)"-e", (char *)"-f", config, NULL};
	struct child_spec spec = {.argv = argv, .fds = {-1, fd, fd}, .n_fds = 3, .die_with_parent = true};
	int status;
	if (child_spawn(&spec, &server, NULL) < 0)
		return false;
	for (int i = 0; i < 3000; i++) {
		if (answers(port))
			return true;
		if (waitpid(server, &status, WNOHANG) == server)
			break;
		usleep(10000);
	}
	server = 0;
	return false;
}

bool sshd_start(const char *folder, const char *max_startups, char **ret_config, const char **ret_why)
{
	int port, far, dead;
	if (access("/usr/sbin/sshd", X_OK) < 0) {
		*ret_why = "/usr/sbin/sshd is not here";
		return false;
	}
	if (geteuid() == 0)
		mkdir("/run/sshd", 0755); /* which the package's service makes */
	mkdir(folder, 0700);
	for (int i = 0; i < 5; i++) { /* somebody else may take the port that was free */
		int a = bound(&port, false), b = bound(&far, false);
		hung = bound(&dead, true);
		bool good = a >= 0 && b >= 0 && hung >= 0 &&
			    configure(folder, max_startups, port, far, dead);
		close(a);
		close(b);
		if (good && start_on(folder, port)) {
			*ret_config = path_join(folder, "ssh_config");
			return true;
		}
		close(hung);
	}
	*ret_why = "sshd does not start";
	return false;
}

void sshd_stop(void)
{
	if (!server)
		return;
	kill(server, SIGTERM);
	waitpid(server, NULL, 0);
	close(hung);
	server = 0;
}

bool sshd_is(pid_t pid)
{
	return pid == server;
}
