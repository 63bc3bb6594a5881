/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/ssh.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/time.h"
#include "guest/spawn.h"
#include "guest/user.h"
#include "wire/kv.h"

#define KEY "id_vse" /* the cluster's; keys of the VSE's own stay as they are */
#define SSHD "/usr/sbin/sshd"
#define KEYGEN "/usr/bin/ssh-keygen"
#define HOST_KEY "/etc/ssh/ssh_host_ed25519_key"
#define STARTS_MAX 5 /* sshd that ends so often is left alone */
#define AGAIN_MS 500
#define LISTEN_POLL_MS 10
#define LISTEN_POLL_PART 8 /* of the time that it has taken so far: a slow VM has better to do */
#define LINE_MAX_LOG 400
#define OWN_CONFIG "/etc/ssh/sshd_config.d/vse.conf"

static bool has_keyword(char *text, const char *keyword)
{
	size_t n = strlen(keyword);
	for (char *line; (line = strsep(&text, "\n"));) {
		line += strspn(line, " \t");
		if (strncasecmp(line, keyword, n) == 0 && line[n] && strchr(" \t=\"", line[n]))
			return true;
	}
	return false;
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);
	return n >= m && strcmp(s + n - m, end) == 0;
}

static bool folder_sets(const char *folder, const char *end, const char *keyword)
{
	DIR *d = opendir(folder);
	struct dirent *e;
	bool set = false;
	while (d && !set && (e = readdir(d))) {
		_cleanup_free_ char *path = path_join(folder, e->d_name), *text = NULL;
		if (ends_with(path, end) && strcmp(path, OWN_CONFIG) != 0 &&
		    path_read(path, 1 << 20, &text, NULL, NULL) == 0)
			set = has_keyword(text, keyword);
	}
	if (d)
		closedir(d);
	return set;
}

/* Whether the VSE itself says something about this, for client or server: then it is not ours to say. */
static bool author_sets(const char *keyword)
{
	return folder_sets("/etc/ssh", "_config", keyword) ||
	       folder_sets("/etc/ssh/ssh_config.d", ".conf", keyword) ||
	       folder_sets("/etc/ssh/sshd_config.d", ".conf", keyword);
}

/* Every VM may be asked by all others at once, and many VMs that start on one node are slow. A folder without
 * OpenSSH's usual Include has no effect, and then its defaults stay. */
static int server_config(struct err *err)
{
	const char *grace = author_sets("LoginGraceTime") ? "" : "LoginGraceTime 600\n";
	const char *starts = author_sets("MaxStartups") ? "" : "MaxStartups 1000\n";
	if (!path_exists("/etc/ssh/sshd_config.d"))
		return 0;
	_cleanup_free_ char *text = xasprintf("%s%s", grace, starts);
	return setup_file(OWN_CONFIG, text, strlen(text), 0644, err);
}

/* mpirun starts its processes over ssh, one after the other on one VM. The post-quantum exchange that OpenSSH 9
 * prefers costs that VM 1.5 s of an emulated CPU each, X25519 0.4 s; and what it guards against, somebody who records
 * traffic, the tunnel between nodes has to answer for. Only names that every OpenSSH since 6.5 knows: a client
 * refuses a configuration with others. */
#define CHEAP_KEX                                                                                  \
	"\tKexAlgorithms curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,"      \
	"ecdh-sha2-nistp521,diffie-hellman-group-exchange-sha256\n"

/* Host keys are made anew at each start and known to nobody. Within the cluster that is no loss: its addresses cannot
 * be forged (the switch drops such frames). Other hosts are checked as ever. */
static char *client_config(const char *data, size_t len)
{
	_cleanup_free_ char *ipv4 = kv_dup(data, len, "ipv4");
	unsigned a = 0, b = 0, c = 0, bits = 0;
	char net[32] = "";
	if (ipv4 && sscanf(ipv4, "%u.%u.%u.%*u/%u", &a, &b, &c, &bits) == 4) {
		if (bits >= 24)
			snprintf(net, sizeof(net), " %u.%u.%u.*", a & 255, b & 255, c & 255);
		else if (bits >= 16)
			snprintf(net, sizeof(net), " %u.%u.*", a & 255, b & 255);
	}
	return xasprintf("Host vm* fd76:7365:* localhost 127.*%s\n"
			 "\tIdentityFile ~/.ssh/" KEY "\n"
			 "\tStrictHostKeyChecking no\n"
			 "\tUserKnownHostsFile /dev/null\n"
			 "\tLogLevel ERROR\n%s",
			 net, author_sets("KexAlgorithms") ? "" : CHEAP_KEX);
}

static int write_key(const char *dir, const char *name, const char *text, mode_t mode, struct err *err)
{
	_cleanup_free_ char *path = path_join(dir, name);
	size_t n = strlen(text);
	_cleanup_free_ char *line = xasprintf("%s%s", text, n && text[n - 1] == '\n' ? "" : "\n");
	return setup_file(path, line, strlen(line), mode, err);
}

static pid_t start(struct guest *g, const char *const *argv, int *ret_log)
{
	int p[2] = {-1, -1};
	if (ret_log && pipe2(p, O_CLOEXEC | O_NONBLOCK) < 0)
		return -1;
	pid_t pid = fork();
	if (pid == 0) {
		spawn_reset_signals();
		setsid();
		umask(022);
		if (p[1] >= 0)
			dup2(p[1], 2);
		execv(argv[0], (char *const *)argv);
		_exit(127);
	}
	if (p[1] >= 0)
		close(p[1]);
	if (pid < 0 && p[0] >= 0)
		close(TAKE_FD(p[0]));
	if (ret_log)
		*ret_log = p[0];
	if (pid < 0)
		agent_log(g, "start %s: %s", argv[0], strerror(errno));
	return pid;
}

static void start_sshd(struct guest *g)
{
	static const char *const argv[] = {SSHD,
					   "-D",
					   "-e",
					   "-h",
					   HOST_KEY,
					   "-o",
					   "UseDNS=no",
					   "-o",
					   "PermitRootLogin=prohibit-password",
					   "-o",
					   "LogLevel=ERROR",
					   NULL};
	if (g->sshd > 0)
		return;
	if (g->sshd_starts++ >= STARTS_MAX) {
		agent_log(g, "sshd ended %d times: it is not started again", STARTS_MAX);
		return;
	}
	if (g->sshd_log >= 0)
		close(TAKE_FD(g->sshd_log));
	g->sshd_since = time_mono_ms();
	g->sshd = start(g, argv, &g->sshd_log);
}

/* With systemd sshd is its service: it is waiting for us, or (a clone) has to read the new key. */
static void tell_service(struct guest *g)
{
	static const char *const argv[] = {"/usr/bin/systemctl",    "--no-block",  "--quiet",
					   "try-reload-or-restart", "ssh.service", NULL};
	if (g->system_up)
		start(g, argv, NULL);
}

static void key_is_there(struct guest *g)
{
	if (g->init == INIT_SYSTEMD)
		tell_service(g);
	else
		start_sshd(g);
}

static void start_keygen(struct guest *g)
{
	static const char *const argv[] = {KEYGEN, "-q", "-t",     "ed25519", "-N",
					   "",     "-f", HOST_KEY, NULL};
	if (path_exists(HOST_KEY))
		key_is_there(g);
	else if (g->keygen <= 0)
		g->keygen = start(g, argv, NULL);
}

static void remove_key(void)
{
	unlink(HOST_KEY);
	unlink(HOST_KEY ".pub");
}

static void run_or_renew(struct guest *g, bool fresh)
{
	if (!path_exists(SSHD)) {
		agent_log(g, "there is no " SSHD " in this VM: no ssh");
		return;
	}
	if (g->sshd > 0 && !fresh)
		return;
	g->sshd_starts = 0;
	mkdir("/run/sshd", 0755);
	if (fresh) {
		/* A clone: its host key is its own. A running sshd is replaced when it has ended. */
		remove_key();
		if (g->sshd > 0) {
			kill(g->sshd, SIGTERM);
			return;
		}
		g->keygen_void = g->keygen > 0;
	}
	start_keygen(g);
}

int ssh_apply(struct guest *g, const char *data, size_t len, bool fresh, struct err *err)
{
	_cleanup_free_ char *private = kv_dup(data, len, "ssh_private"),
			    *public = kv_dup(data, len, "ssh_public"),
			    *authorized = kv_dup(data, len, "ssh_authorized");
	struct user root;
	if (!private && !authorized)
		return 0;
	if (user_find("root", &root, err) < 0)
		return -1;
	_cleanup_free_ char *dir = path_join(root.home, ".ssh"), *text = client_config(data, len);
	_cleanup_free_ char *keys = path_join(dir, "authorized_keys"),
			    *config = path_join(dir, "config");
	if (path_mkdirs(dir, 0700, err) < 0)
		return -1;
	if ((private && write_key(dir, KEY, private, 0600, err) < 0) ||
	    (public && write_key(dir, KEY ".pub", public, 0644, err) < 0) ||
	    (authorized && setup_marked(keys, "", authorized, 0600, err) < 0) ||
	    setup_marked(config, "", text, 0600, err) < 0 || server_config(err) < 0)
		return -1;
	if (private)
		explicit_bzero(private, strlen(private));
	run_or_renew(g, fresh);
	return 0;
}

void ssh_practise(void)
{
	(void)author_sets("");
	(void)path_exists(SSHD);
	(void)path_exists(HOST_KEY);
}

/* A line "sl local rem st ..." of /proc/net/tcp: port 22 is 0016, LISTEN is 0A. */
static bool listens(const char *table)
{
	_cleanup_free_ char *text = NULL;
	if (path_read(table, 1 << 20, &text, NULL, NULL) < 0)
		return false;
	for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
		char local[64], remote[64];
		unsigned state;
		if (sscanf(line, " %*[^:]: %63s %63s %x", local, remote, &state) == 3 && state == 0x0a &&
		    strlen(local) > 5 && strcmp(local + strlen(local) - 5, ":0016") == 0)
			return true;
	}
	return false;
}

bool ssh_up(struct guest *g)
{
	if (g->sshd <= 0 && g->keygen <= 0 && !g->sshd_again)
		return true;
	/* No starts and yet running: the one of the template, about to be replaced. */
	return g->sshd > 0 && g->sshd_starts && (listens("/proc/net/tcp") || listens("/proc/net/tcp6"));
}

void ssh_child(struct guest *g, pid_t pid, int status)
{
	if (pid == g->keygen) {
		g->keygen = 0;
		if (g->keygen_void) {
			g->keygen_void = false;
			remove_key();
			start_keygen(g);
		} else if (path_exists(HOST_KEY)) {
			key_is_there(g);
		} else {
			agent_log(g, "ssh-keygen ended with %d and made no host key: no sshd",
				  WEXITSTATUS(status));
		}
	} else if (pid == g->sshd) {
		g->sshd = 0;
		g->sshd_again = time_mono_ms() + (g->sshd_starts ? AGAIN_MS : 0);
	}
}

static void log_lines(struct guest *g)
{
	struct buf *b = &g->sshd_line;
	char *nl;
	while (buf_len(b) &&
	       ((nl = memchr(buf_head(b), '\n', buf_len(b))) || buf_len(b) > LINE_MAX_LOG)) {
		size_t n = nl ? (size_t)(nl - buf_head(b)) : buf_len(b), text = n;
		if (text && buf_head(b)[text - 1] == '\r')
			text--;
		agent_log(g, "sshd: %.*s", (int)text, buf_head(b));
		buf_consume(b, n + (nl != NULL));
	}
}

static void on_log(struct guest *g, void *arg _unused_, int which _unused_, short revents _unused_)
{
	char block[1024];
	ssize_t n = read(g->sshd_log, block, sizeof(block));
	if (n > 0) {
		buf_add(&g->sshd_line, block, (size_t)n);
		log_lines(g);
	} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		close(TAKE_FD(g->sshd_log));
	}
}

void ssh_watch(struct guest *g, struct watches *w)
{
	if (g->sshd_log >= 0 && buf_len(&g->out) < GUEST_OUT_HIGH)
		watch_fd(w, g->sshd_log, POLLIN, on_log, NULL, 0);
	if (g->sshd_again)
		watch_until(w, g->sshd_again);
	if (g->want_ready && g->sshd > 0) {
		uint64_t now = time_mono_ms();
		watch_until(w, now + MAX(LISTEN_POLL_MS, (now - g->sshd_since) / LISTEN_POLL_PART));
	}
}

void ssh_tick(struct guest *g, uint64_t now)
{
	if (!g->sshd_again || now < g->sshd_again)
		return;
	g->sshd_again = 0;
	start_keygen(g);
}
