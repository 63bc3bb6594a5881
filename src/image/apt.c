/* SPDX-License-Identifier: Apache-2.0 */
#include "image/apt.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/path.h"
#include "image/rootfs.h"
#include "image/run.h"

#define OUTPUT_MAX (256u << 10)
#define KERNEL_PACKAGES_MAX 16u

bool apt_progress_line(struct apt_progress *p, const char *line)
{
	unsigned n;
	if (sscanf(line, "%*u upgraded, %u newly installed", &n) == 1) {
		/* mmdebstrap asks twice: the essential packages, then the rest. */
		p->total += n;
		p->to_get += n;
		return false;
	}
	char kind[80] = "", name[80] = "";
	/* Get:7 URI bookworm/main amd64 NAME amd64 1.0 [12 kB]; Get:1 URI bookworm InRelease [151
	 * kB] */
	if (sscanf(line, "Get:%*u %*s %*s %79s %79s", kind, name) == 2) {
		bool lists = *name == '[' || strcmp(name, "Packages") == 0 ||
			     strncmp(name, "Translation-", 12) == 0;
		p->step = lists ? "lists" : "download";
		p->got += !lists;
		snprintf(p->text, sizeof(p->text), "%s", lists ? "package lists" : name);
		return true;
	}
	if (sscanf(line, "Setting up %79[^ :]", p->text) == 1) {
		p->step = "packages";
		p->set_up++;
		return true;
	}
	return false;
}

/* --- blame --- */

static bool take(const char *output, const char *mark, char *out, size_t size)
{
	const char *p = strstr(output, mark);
	if (!p)
		return false;
	while (p > output && p[-1] != '\n')
		p--;
	snprintf(out, size, "%.*s", (int)MIN(strcspn(p, "\n"), size - 1), p);
	return true;
}

/* The first line from apt itself that is an error; mmdebstrap's own only repeat that apt failed. */
static void first_error(const char *output, char *out, size_t size)
{
	static const char *const marks[] = {"E: ", "dpkg: error", "Err:", "W: "};
	for (size_t m = 0; m < ARRAY_SIZE(marks); m++)
		for (const char *l = output; l && *l; l = strchr(l, '\n') ? strchr(l, '\n') + 1 : NULL)
			if (strncmp(l, marks[m], strlen(marks[m])) == 0 &&
			    !strstr(l, " failed: E: ") && strncmp(l, "E: mmdebstrap", 13) != 0 &&
			    strncmp(l, "E: run_chroot failed", 20) != 0) {
				snprintf(out, size, "%.*s", (int)MIN(strcspn(l, "\n"), size - 1), l);
				return;
			}
	snprintf(out, size, "no error line: see the log");
}

static const char *after(const char *line, const char *mark)
{
	const char *p = strstr(line, mark);
	return p ? p + strlen(mark) : line;
}

void apt_blame(const char *output, const struct recipe *r, struct err *err)
{
	char l[300];
	const struct vse *v = r->v;
	const char *suite = v->suite ? v->suite : "this host's suite";
	if (take(output, "Unable to locate package ", l, sizeof(l)))
		err_set(err, ENOENT, "package %s: not in %s (components %s): check its name, or add `components:`",
			after(l, "Unable to locate package "), suite,
			v->components.n ? v->components.v[0] : "main");
	else if (take(output, "has no installation candidate", l, sizeof(l)))
		err_set(err, ENOENT, "%s in %s", after(l, "E: "), suite);
	else if (take(output, "Temporary failure resolving", l, sizeof(l)) ||
		 take(output, "Could not resolve", l, sizeof(l)) ||
		 take(output, "Could not connect", l, sizeof(l)) ||
		 take(output, "Unable to connect", l, sizeof(l)) ||
		 take(output, "Network is unreachable", l, sizeof(l)))
		err_set(err, ENETUNREACH,
			"network: %s: check the connection, http_proxy, or name another `mirror:`",
			after(l, "E: "));
	else if (take(output, "No space left on device", l, sizeof(l)) ||
		 take(output, "Disk quota exceeded", l, sizeof(l)))
		err_set(err, ENOSPC, "no space left while packages were installed: %.200s", l);
	else if (take(output, "does not have a Release file", l, sizeof(l)))
		err_set(err, ENOENT, "suite %s: the mirror has no such suite: %s", suite,
			after(l, "E: "));
	else if (take(output, "NO_PUBKEY", l, sizeof(l)) || take(output, "is not signed", l, sizeof(l)))
		err_set(err, EKEYREJECTED,
			"suite %s: no key for its signature: %s: install the distribution's "
			"keyring "
			"package (debian-archive-keyring, ubuntu-keyring)",
			suite, after(l, "E: "));
	else if (take(output, "The following packages have unmet dependencies", l, sizeof(l))) {
		const char *p = strstr(output, "unmet dependencies");
		p = p ? strchr(p, '\n') : NULL;
		snprintf(l, sizeof(l), "%.*s", p ? (int)MIN(strcspn(p + 1, "\n"), (size_t)280) : 0,
			 p ? p + 1 : "");
		err_set(err, EINVAL, "packages do not fit together:%s", l);
	} else {
		first_error(output, l, sizeof(l));
		err_set(err, EIO, "packages: %s", after(l, "E: "));
	}
}

/* --- files between the cache and the work folder --- */

static bool is_deb(const char *name)
{
	size_t n = strlen(name);
	return n > 4 && strcmp(name + n - 4, ".deb") == 0 && name[0] != '.';
}

static int copy_file(const char *from, const char *to)
{
	_cleanup_close_ int in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	_cleanup_close_ int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	_cleanup_free_ char *b = xmalloc(1 << 16);
	ssize_t n;
	if (in < 0 || out < 0)
		return -1;
	while ((n = read(in, b, 1 << 16)) > 0)
		if (fd_write_all(out, b, (size_t)n) < 0) {
			unlink(to);
			return -1;
		}
	return n < 0 ? -1 : 0;
}

/* .deb files of `from` that `to` and `unless` (may be NULL) do not have and whose names begin with
 * prefix. A file that cannot be copied is downloaded again or not cached: no error. */
static void copy_debs(const char *from, const char *to, const char *unless, const char *prefix)
{
	DIR *d = opendir(from);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		_cleanup_free_ char *a = path_join(from, e->d_name), *b = path_join(to, e->d_name),
				    *c = unless ? path_join(unless, e->d_name) : NULL;
		if (is_deb(e->d_name) && strncmp(e->d_name, prefix, strlen(prefix)) == 0 &&
		    !path_exists(b) && !(c && path_exists(c)))
			copy_file(a, b);
	}
	if (d)
		closedir(d);
}

/* The cache below the root and links to it where apt looks: a cache may hold gigabytes, of which a build needs some
 * and the memory that the root lies in none. Relative links lead there from outside the root and from inside. */
static bool lend_debs(const char *root, const char *cache, const char *archives)
{
	_cleanup_free_ char *lent = path_join(root, "var/cache/apt/lent");
	if (path_mkdirs(lent, 0755, NULL) < 0)
		return false;
	if (mount(cache, lent, NULL, MS_BIND, NULL) < 0) {
		rmdir(lent);
		return false;
	}
	DIR *d = opendir(cache);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		_cleanup_free_ char *to = xasprintf("../lent/%s", e->d_name),
				    *link = path_join(archives, e->d_name);
		if (is_deb(e->d_name))
			(void)!symlink(to, link);
	}
	if (d)
		closedir(d);
	return true;
}

/* The cache is the user's: nothing may be removed from the root while it is there. */
static int take_back(const char *root, struct err *err)
{
	_cleanup_free_ char *lent = path_join(root, "var/cache/apt/lent");
	if (umount2(lent, MNT_DETACH) < 0 || rmdir(lent) < 0)
		return err_errno(err, errno, "root: unmount the package cache");
	return 0;
}

/* --- mmdebstrap --- */

struct watch {
	struct apt_progress p;
	struct sandbox_self *self;
};

static void on_line(void *arg, const char *line)
{
	struct watch *w = arg;
	sandbox_say(w->self, "output", 0, 0, line);
	if (!apt_progress_line(&w->p, line))
		return;
	bool down = strcmp(w->p.step, "download") == 0, lists = strcmp(w->p.step, "lists") == 0;
	sandbox_say(w->self, w->p.step,
		    lists  ? 0
		    : down ? w->p.got
			   : w->p.set_up,
		    lists  ? 0
		    : down ? w->p.to_get
			   : w->p.total,
		    w->p.text);
}

static int run_blame(struct run *p, const struct recipe *r, struct err *err)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	int status;
	p->capture = &out;
	p->capture_max = OUTPUT_MAX;
	strvec_addv(&p->env, "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
		    "SOURCE_DATE_EPOCH=" ROOTFS_EPOCH, NULL);
	if (run(p, &status, err) < 0)
		return -1;
	if (status)
		apt_blame(buf_cstr(&out), r, err);
	return status ? -1 : 0;
}

int apt_base(const char *root, const char *dir, const char *cache, const struct recipe *r,
	     struct sandbox_self *self, struct err *err)
{
	_cleanup_free_ char *list = path_join(dir, "sources.list"), *tmp = path_join(dir, "tmp"),
			    *archives = path_join(root, "var/cache/apt/archives"),
			    *debs = path_join(dir, "debs");
	if (path_mkdirs(archives, 0755, err) < 0 || path_mkdirs(tmp, 01777, err) < 0 ||
	    chmod(tmp, 01777) < 0 || path_mkdirs(debs, 0700, err) < 0 ||
	    path_write(list, r->sources, strlen(r->sources), 0644, err) < 0)
		return -1;
	bool lent = lend_debs(root, cache, archives);
	if (!lent)
		copy_debs(cache, archives, NULL, "");
	struct watch w = {.self = self};
	_cleanup_run_ struct run p = {.on_line = on_line, .arg = &w};
	recipe_mmdebstrap(r, root, list, &p.argv);
	strvec_addf(&p.env, "TMPDIR=%s", tmp);
	int code = run_blame(&p, r, err);
	if (lent && take_back(root, code < 0 ? NULL : err) < 0)
		return -1;
	if (code == 0)
		copy_debs(archives, debs, cache, "");
	return code;
}

/* --- the kernel --- */

void apt_kernel_depends(const char *show, struct strvec *out)
{
	const char *d = strncmp(show, "Depends: ", 9) == 0 ? show : strstr(show, "\nDepends: ");
	if (!d)
		return;
	d = strchr(d, ':') + 1;
	_cleanup_free_ char *line = xstrndup(d, strcspn(d, "\n"));
	_cleanup_strvec_ struct strvec parts = STRVEC_INIT;
	strvec_split(&parts, line, ",|");
	for (size_t i = 0; i < parts.n; i++) {
		char *n = parts.v[i] + strspn(parts.v[i], " ");
		n[strcspn(n, " (:")] = '\0';
		if ((strncmp(n, "linux-image-", 12) == 0 || strncmp(n, "linux-modules-", 14) == 0) &&
		    !strvec_has(out, n))
			strvec_add(out, n);
	}
}

struct private_apt {
	char *conf;
	char *cwd;
	bool lists; /* those of the root: no update needed */
};

/* apt with a state of its own: no lock, list or setting of the host is changed. */
static int private_setup(struct private_apt *a, const char *root, const char *dir,
			 const struct recipe *r, struct err *err)
{
	_cleanup_free_ char *list = path_join(dir, "kernel.list"),
			    *state = path_join(dir, "apt/state"),
			    *partial = path_join(dir, "apt/state/lists/partial"),
			    *arch = path_join(dir, "apt/cache/archives/partial"),
			    *root_lists = path_join(root, "var/lib/apt/lists");
	_cleanup_buf_ struct buf b = BUF_INIT;
	a->conf = path_join(dir, "apt/apt.conf");
	a->cwd = path_join(dir, "kernel");
	a->lists = r->v->base == VSE_BASE_DISTRO && path_exists(root_lists);
	if (path_mkdirs(partial, 0755, err) < 0 || path_mkdirs(arch, 0755, err) < 0 ||
	    path_mkdirs(a->cwd, 0755, err) < 0 ||
	    path_write(list, r->sources, strlen(r->sources), 0644, err) < 0)
		return -1;
	buf_addf(&b, "Dir::State \"%s\";\nDir::State::status \"/dev/null\";\nDir::Cache \"%s/apt/cache\";\n",
		 state, dir);
	buf_addf(&b, "Dir::Etc::SourceList \"%s\";\nDir::Etc::SourceParts \"/dev/null\";\n", list);
	/* The host's settings were read already; its hooks must not run here. */
	buf_adds(&b, "Dir::Etc::Main \"/dev/null\";\nDir::Etc::Parts \"/dev/null\";\n");
	for (size_t i = 0; i < r->apt.n; i++)
		buf_addf(&b, "%s\n", r->apt.v[i]);
	if (a->lists)
		buf_addf(&b, "Dir::State::Lists \"%s\";\n", root_lists);
	buf_addf(&b, "APT::Architecture \"%s\";\nAPT::Architectures { \"%s\"; };\n", r->v->arch,
		 r->v->arch);
	buf_adds(&b, "APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\nDebug::NoLocking "
		     "\"true\";\n");
	return path_write(a->conf, buf_cstr(&b), buf_len(&b), 0644, err);
}

static int private_run(struct private_apt *a, const struct recipe *r, struct buf *out,
		       struct err *err, ...) __attribute__((sentinel));
static int private_run(struct private_apt *a, const struct recipe *r, struct buf *out,
		       struct err *err, ...)
{
	_cleanup_run_ struct run p = {.cwd = a->cwd};
	_cleanup_buf_ struct buf text = BUF_INIT;
	int status;
	va_list ap;
	va_start(ap, err);
	for (const char *s; (s = va_arg(ap, const char *));)
		strvec_add(&p.argv, s);
	va_end(ap);
	p.capture = out ? out : &text;
	p.capture_max = OUTPUT_MAX;
	strvec_add(&p.env, "LC_ALL=C.UTF-8");
	strvec_addf(&p.env, "APT_CONFIG=%s", a->conf);
	if (run(&p, &status, err) < 0)
		return -1;
	if (status)
		apt_blame(buf_cstr(p.capture), r, err);
	return status ? -1 : 0;
}

/* Follows Depends from a meta package to the packages that hold the kernel and its modules. */
static int kernel_closure(struct private_apt *a, const struct recipe *r, const char *wanted,
			  struct strvec *out, char **ret_version, struct err *err)
{
	strvec_add(out, wanted);
	for (size_t i = 0; i < out->n && i < KERNEL_PACKAGES_MAX; i++) {
		_cleanup_buf_ struct buf show = BUF_INIT;
		if (private_run(a, r, &show, i ? NULL : err, "apt-cache", "show",
				"--no-all-versions", out->v[i], NULL) < 0) {
			if (i == 0)
				return -1;
			continue; /* "linux-image-x | linux-image-unsigned-x": one of them may be absent */
		}
		const char *text = buf_cstr(&show), *v = strstr(text, "\nVersion: ");
		if (v && i == 0)
			*ret_version = xasprintf("%s %.*s", wanted, (int)strcspn(v + 10, "\n"), v + 10);
		apt_kernel_depends(text, out);
	}
	return 0;
}

static int kernel_unpack(struct private_apt *a, const struct strvec *files, struct err *err)
{
	_cleanup_free_ char *x = path_join(a->cwd, "x");
	for (size_t i = 0; i < files->n; i++) {
		_cleanup_free_ char *deb = path_join(a->cwd, files->v[i]);
		_cleanup_run_ struct run p = {0};
		strvec_addv(&p.argv, "dpkg-deb", "-x", deb, x, NULL);
		if (run_ok(&p, err) < 0)
			return -1;
	}
	return 0;
}

/* One package's file, from the cache when it is the very one: apt-get compares its hash with the
 * lists' and downloads what differs. "'URI' FILE SIZE HASH" is what --print-uris says. */
static int fetch(struct private_apt *a, const struct recipe *r, const char *cache,
		 const char *package, struct strvec *files, struct err *err)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	char file[256];
	if (private_run(a, r, &out, err, "apt-get", "download", "--print-uris", package, NULL) < 0)
		return -1;
	const char *line = strstr(buf_cstr(&out), "'");
	if (!line || sscanf(line, "%*s %255s", file) != 1 || !is_deb(file) || strchr(file, '/'))
		return err_set(err, EIO, "package %s: apt-get does not say where it is", package);
	_cleanup_free_ char *from = path_join(cache, file), *to = path_join(a->cwd, file);
	copy_file(from, to);
	if (private_run(a, r, NULL, err, "apt-get", "download", package, NULL) < 0)
		return -1;
	strvec_add(files, file);
	return 0;
}

/* "auto": what the distribution makes for virtual machines. Debian's has no 9p, by which VMs see host directories. */
static void candidates(const struct recipe *r, struct strvec *out)
{
	const char *k = r->v->kernel;
	if (k && strcmp(k, "auto") != 0)
		strvec_add(out, k);
	else if (r->v->distro && strcmp(r->v->distro, "ubuntu") == 0)
		strvec_addv(out, "linux-image-virtual", "linux-image-kvm", NULL);
	else {
		if (!r->v->n_mounts)
			strvec_addf(out, "linux-image-cloud-%s", r->v->arch);
		strvec_addf(out, "linux-image-%s", r->v->arch);
	}
}

static int download(struct private_apt *a, const struct recipe *r, const char *cache,
		    struct strvec *files, char **ret_package, struct err *err)
{
	_cleanup_strvec_ struct strvec names = STRVEC_INIT, packages = STRVEC_INIT;
	candidates(r, &names);
	int code = -1;
	struct err e = ERR_INIT, first = ERR_INIT;
	for (size_t i = 0; i < names.n && code < 0; i++) {
		code = kernel_closure(a, r, names.v[i], &packages, ret_package, &e);
		if (code < 0) {
			if (i == 0)
				first = e;
			strvec_finish(&packages);
			packages = STRVEC_INIT;
		}
	}
	if (code < 0)
		return err_set(err, ENOENT, "package %s: not found: %s", names.v[0], first.text);
	for (size_t i = 0; i < packages.n; i++)
		if (fetch(a, r, cache, packages.v[i], files, &e) < 0 && i == 0)
			return err_copy(err, &e);
	return 0;
}

int apt_kernel(const char *root, const char *dir, const char *cache, const struct recipe *r,
	       struct sandbox_self *self, char **ret_package, struct err *err)
{
	struct private_apt a = {0};
	_cleanup_strvec_ struct strvec files = STRVEC_INIT;
	_cleanup_free_ char *debs = path_join(dir, "debs"), *package = NULL;
	if (!r->sources)
		return err_set(err, ENOENT, "kernel: the base has none of its own, and %s",
			       r->sources_problem);
	int code = path_mkdirs(debs, 0700, err) < 0 ? -1 : private_setup(&a, root, dir, r, err);
	sandbox_say(self, "kernel", 0, 0, "download");
	if (code == 0 && !a.lists)
		code = private_run(&a, r, NULL, err, "apt-get", "update", "--error-on=any", NULL);
	if (code == 0)
		code = download(&a, r, cache, &files, &package, err);
	if (code == 0)
		code = kernel_unpack(&a, &files, err);
	if (code == 0)
		copy_debs(a.cwd, debs, cache, "linux-");
	free(a.conf);
	free(a.cwd);
	if (code < 0)
		return err_prefix(err, "kernel: ");
	*ret_package = TAKE_PTR(package);
	return 0;
}
