/* SPDX-License-Identifier: Apache-2.0 */
/* The VSE file. tests/spec/bad/ holds one bad file each; its comments "#: line:column: text" at the end are
 * exactly the problems it must get. tests/spec/good/ and examples/ hold files that must load. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/path.h"
#include "spec/problems.h"
#include "spec/rules.h"
#include "spec/schema.h"
#include "spec/vse.h"
#include "tap.h"

#define HEAD "vse: 1\nname: x\nbase: debian:bookworm\n"

/* ---- the folders of cases ---- */

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_yaml(const struct dirent *d)
{
	size_t n = strlen(d->d_name);
	return n > 5 && strcmp(d->d_name + n - 5, ".yaml") == 0;
}

/* Runs `each` for every YAML file of a folder of the source; gives how many. */
static int for_files(const char *folder, void (*each)(const char *path, const char *name))
{
	_cleanup_free_ char *dir = path_join(SOURCE_DIR, folder);
	struct dirent **list;
	int n = scandir(dir, &list, is_yaml, by_name);
	for (int i = 0; i < n; i++) {
		_cleanup_free_ char *path = path_join(dir, list[i]->d_name);
		each(path, list[i]->d_name);
		free(list[i]);
	}
	if (n >= 0)
		free(list);
	return n;
}

static void wanted(const char *path, struct strvec *out)
{
	_cleanup_strvec_ struct strvec lines = STRVEC_INIT;
	_cleanup_free_ char *text = NULL;
	if (path_read(path, VSE_FILE_MAX, &text, NULL, NULL) < 0)
		return;
	strvec_split(&lines, text, "\n");
	for (size_t i = 0; i < lines.n; i++)
		if (strncmp(lines.v[i], "#: ", 3) == 0)
			strvec_addf(out, "%s:%s", path, lines.v[i] + 3);
}

static void bad_file(const char *path, const char *name)
{
	_cleanup_strvec_ struct strvec want = STRVEC_INIT, got = STRVEC_INIT;
	struct vse *v = NULL;
	struct err err = ERR_INIT;
	wanted(path, &want);
	int code = vse_load(path, &v, &got, &err);
	bool same = code == -1 && !v && err.code == EINVAL && want.n && want.n == got.n;
	for (size_t i = 0; same && i < got.n; i++)
		same = strcmp(want.v[i], got.v[i]) == 0;
	same = same && strncmp(err.text, got.v[0], ERR_TEXT_MAX - 1) == 0;
	if (!ok(same, "bad: %s: %zu problem(s), each as written", name, want.n)) {
		for (size_t i = 0; i < want.n; i++)
			printf("#   want %s\n", want.v[i]);
		for (size_t i = 0; i < got.n; i++)
			printf("#   got  %s\n", got.v[i]);
		if (getenv("VSE_TEST_PRINT"))
			for (size_t i = 0; i < got.n; i++)
				fprintf(stderr, "%s\t%s\n", path, got.v[i] + strlen(path) + 1);
	}
	vse_destroy(v);
}

/* Loads the text, or prints why not. */
static struct vse *load(const char *name, const char *text)
{
	_cleanup_strvec_ struct strvec problems = STRVEC_INIT;
	struct vse *v = NULL;
	if (vse_load_text(name, text, strlen(text), &v, &problems, NULL) < 0)
		for (size_t i = 0; i < problems.n; i++)
			printf("#   %s\n", problems.v[i]);
	return v;
}

/* Both YAML forms load again, the full one to the same object, the given one to the same with the same given. */
static bool round_trip(const struct vse *v)
{
	_cleanup_free_ char *full = vse_to_yaml(v), *given = vse_given_yaml(v);
	_cleanup_vse_ struct vse *a = load("/elsewhere/a.yaml", full),
				 *b = load("/elsewhere/b.yaml", given);
	if (!a || !b)
		return false;
	json_t *j = vse_to_json(v), *ja = vse_to_json(a), *jb = vse_to_json(b);
	bool same = json_equal(j, ja) && json_equal(j, jb) && a->n_env == v->n_env;
	same = same && b->given.n == v->given.n;
	for (size_t i = 0; same && i < v->given.n; i++)
		same = strcmp(v->given.v[i], b->given.v[i]) == 0;
	for (size_t i = 0; same && i < v->n_env; i++)
		same = strcmp(a->env[i].name, v->env[i].name) == 0; /* the order too */
	json_decref(j);
	json_decref(ja);
	json_decref(jb);
	return same;
}

static void good_file(const char *path, const char *name)
{
	_cleanup_strvec_ struct strvec problems = STRVEC_INIT;
	_cleanup_vse_ struct vse *v = NULL;
	int code = vse_load(path, &v, &problems, NULL);
	if (!ok(code == 0 && problems.n == 0, "good: %s loads", name)) {
		for (size_t i = 0; i < problems.n; i++)
			printf("#   %s\n", problems.v[i]);
		return;
	}
	ok(round_trip(v), "good: %s: its YAML loads to the same", name);
}

/* examples/from-directory.yaml needs a folder that its reader makes first; without it that is its one problem. */
static void example_file(const char *path, const char *name)
{
	if (strcmp(name, "from-directory.yaml") != 0) {
		good_file(path, name);
		return;
	}
	_cleanup_strvec_ struct strvec problems = STRVEC_INIT;
	_cleanup_vse_ struct vse *v = NULL;
	int code = vse_load(path, &v, &problems, NULL);
	ok(code == 0 || (problems.n == 1 &&
			 strstr(problems.v[0], ": base: './rootfs': No such file or directory")),
	   "good: %s lacks no more than its folder", name);
}

/* ---- documents that are no plain file of their own ---- */

/* The first problem of a text, with the head before it; "" when it loads. */
static void is_problem(const char *head, const char *body, size_t len, const char *want, const char *what)
{
	_cleanup_strvec_ struct strvec problems = STRVEC_INIT;
	_cleanup_vse_ struct vse *v = NULL;
	struct buf b = BUF_INIT;
	buf_adds(&b, head);
	buf_add(&b, body, len);
	vse_load_text("f", buf_head(&b), buf_len(&b), &v, &problems, NULL);
	is_str(problems.n ? problems.v[0] : "", want, "%s", what);
	buf_finish(&b);
}

static void test_raw(void)
{
#define CASE(body, want, what) is_problem(HEAD, body, sizeof(body) - 1, want, what)
#define ALONE(body, want, what) is_problem("", body, sizeof(body) - 1, want, what)
	static const char empty[] =
		"f:1:1: the file is empty; allowed: a map of fields, with 'vse: 1'";
	is_problem("", "", 0, empty, "an empty file");
	ALONE("# only a comment\n", empty, "a file of comments");
	ALONE("---\n...\n",
	      "f:2:1: the file has no value, not a map; allowed: a map of fields, with 'vse: 1'",
	      "an empty document");
	CASE("description: \"\xff\"\n", "f:4:15: byte 0xff is not UTF-8; allowed: text in UTF-8",
	     "a stray byte");
	CASE("description: M\xf6"
	     "bel\n",
	     "f:4:15: byte 0xf6 is not UTF-8; allowed: text in UTF-8", "Latin-1");
	CASE("description: \xed\xa0\x80\n",
	     "f:4:14: byte 0xed is not UTF-8; allowed: text in UTF-8", "a surrogate");
	CASE("description: \xc0\xaf\n", "f:4:14: byte 0xc0 is not UTF-8; allowed: text in UTF-8",
	     "an overlong form");
	CASE("description: \xf4\x90\x80\x80\n",
	     "f:4:14: byte 0xf4 is not UTF-8; allowed: text in UTF-8", "beyond U+10FFFF");
	CASE("description: x\xe2\x82", "f:4:15: byte 0xe2 is not UTF-8; allowed: text in UTF-8",
	     "a cut character");
	ALONE("v\0s\0e\0", "f:1:2: a control character (byte 0x00) stands in the file; allowed: text, tabs and line ends",
	      "UTF-16 without a mark");
	ALONE("\xff\xfev\0", "f:1:1: byte 0xff is not UTF-8; allowed: text in UTF-8",
	      "UTF-16 with a mark");
	CASE("a: \x1b[0m\n", "f:4:4: a control character (byte 0x1b) stands in the file; allowed: text, tabs and line ends",
	     "an escape character");
	CASE("\xc3\xa4\xc3\xb6: \x7f\n", "f:4:5: a control character (byte 0x7f) stands in the file; allowed: text, tabs and line ends",
	     "columns count characters");
	CASE("description: 'open\n",
	     "f:5:1: not valid YAML: found unexpected end of stream, while scanning a quoted "
	     "scalar that begins on line 4",
	     "a quote without end");
	CASE("needs: {cpus: 1\n",
	     "f:5:1: not valid YAML: did not find expected ',' or '}', while parsing a flow "
	     "mapping "
	     "that begins on line 4",
	     "a brace without end");
	ALONE("\xef\xbb\xbf" HEAD, "", "a byte order mark is taken");
	ALONE("vse: 1\r\nname: x\r\nbase: debian:bookworm\r\n", "", "line ends of Windows are taken");
	ALONE("---\n" HEAD "...\n", "", "the marks of one document are taken");
	ALONE("%YAML 1.1\n---\n" HEAD, "", "a directive is taken");
	ALONE("{\"vse\": 1, \"name\": \"x\", \"base\": \"debian:bookworm\"}", "", "JSON is YAML");
}

static char *repeat(const char *head, const char *unit, size_t n, const char *tail)
{
	struct buf b = BUF_INIT;
	buf_adds(&b, head);
	for (size_t i = 0; i < n; i++)
		buf_adds(&b, unit);
	buf_adds(&b, tail);
	return buf_take(&b);
}

static void is_refused(char *taken, const char *want, const char *what)
{
	is_problem("", taken, strlen(taken), want, what);
	free(taken);
}

/* Nine levels of nine aliases each: 9^9 values. */
static char *alias_bomb(void)
{
	struct buf b = BUF_INIT;
	buf_adds(&b, HEAD "env:\n  a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
	for (int i = 1; i < 9; i++) {
		buf_addf(&b, "  a%d: &a%d [", i, i);
		for (int k = 0; k < 9; k++)
			buf_addf(&b, "%s*a%d", k ? "," : "", i - 1);
		buf_adds(&b, "]\n");
	}
	return buf_take(&b);
}

static void test_bounds(void)
{
#define TOO_MUCH                                                                                   \
	"the file holds too much, with each alias counted as what it stands for; allowed: 65536 "  \
	"values "                                                                                  \
	"and 4194304 bytes"
	is_refused(repeat(HEAD, "#", VSE_FILE_MAX, "\n"),
		   "f:1:1: the file is 1048614 bytes long; allowed: 1048576 bytes",
		   "a file of more than 1 MiB");
	is_refused(alias_bomb(), "f:5:16: " TOO_MUCH, "a bomb of aliases");
	is_refused(repeat(HEAD "packages: [", "vim,", 4097, "]\n"),
		   "f:4:11: packages: has 4097 items; allowed: at most 4096", "a list too long");
	is_refused(repeat(HEAD "packages: [", "a,", 100000, "]\n"), "f:4:131066: " TOO_MUCH,
		   "too many values");
	_cleanup_free_ char *big = repeat(HEAD "description: &d \"", "x", 500000, "\"\nbuild: [");
	is_refused(repeat(big, "*d,", 9, "]\n"), "f:4:14: " TOO_MUCH, "aliases of a long text");
	is_refused(repeat(HEAD "env: ", "[", 100000, "\n"),
		   "f:4:21: is nested too deeply; allowed: 16 levels", "a hundred thousand brackets");
	is_refused(repeat(HEAD "env: ", "{a: ", 100000, "\n"),
		   "f:4:66: is nested too deeply; allowed: 16 levels", "a hundred thousand braces");
	is_refused(repeat(HEAD "env:\n", "- ", 200000, "\n"),
		   "f:5:31: is nested too deeply; allowed: 16 levels", "two hundred thousand dashes");
	is_refused(repeat(HEAD "env:\n  ", "? ", 200000, "\n"),
		   "f:5:33: is nested too deeply; allowed: 16 levels",
		   "two hundred thousand question marks");
	is_refused(repeat("", "%TAG !a! x\n", 9, "---\n" HEAD),
		   "f:9:1: too many directives; allowed: 8", "many directives");
	struct buf anchors = BUF_INIT;
	buf_adds(&anchors, HEAD "build:\n");
	for (int i = 0; i < 257; i++)
		buf_addf(&anchors, "- &a%d x\n", i);
	is_refused(buf_take(&anchors), "f:261:3: too many anchors; allowed: 256", "many anchors");
	is_refused(repeat(HEAD "build: ['", "x", 65537, "']\n"),
		   "f:4:9: build[0]: "
		   "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...' is 65537 "
		   "bytes long; "
		   "allowed: shell text of at most 65536 bytes",
		   "a build step too long");
	is_refused(
		repeat(HEAD "env: {A: ", "x", 32769, "}\n"),
		"f:4:10: env.A: 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...' "
		"is 32769 bytes long; "
		"allowed: names of letters, digits and '_' with no digit first and not VSE_..., "
		"values of one line",
		"an environment value too long");
}

static void test_many(void)
{
	_cleanup_strvec_ struct strvec problems = STRVEC_INIT;
	_cleanup_free_ char *text = repeat(HEAD "packages:\n", "- V\n", 150, "");
	struct vse *v = NULL;
	struct err err = ERR_INIT;
	is_int(vse_load_text("f", text, strlen(text), &v, &problems, &err), -1,
	       "150 wrong items are refused");
	is_int(problems.n, PROBLEMS_MAX + 1, "the first hundred are told");
	is_str(problems.n > 100 ? problems.v[100] : "", "f: and 50 more problems",
	       "and how many more there are");
	is_int(err.code, EINVAL, "the error is EINVAL");
	ok(strncmp(err.text, "f:5:3: packages[0]: 'V' has", 27) == 0,
	   "and its text the first problem's");
}

static void test_unreadable(void)
{
	_cleanup_strvec_ struct strvec problems = STRVEC_INIT;
	struct vse *v = NULL;
	struct err err = ERR_INIT;
	is_int(vse_load("/nowhere/vse.yaml", &v, &problems, &err), -1, "an absent file is refused");
	is_int(err.code, ENOENT, "with its errno");
	is_str(problems.n == 1 ? problems.v[0] : "", "/nowhere/vse.yaml: No such file or directory",
	       "and one line");
	is_int(vse_load("/", &v, &problems, &err), -1, "a folder is refused");
	is_int(err.code, EISDIR, "with its errno");
	is_int(vse_load("/dev/zero", &v, &problems, &err), -1, "a file without end is refused");
	is_int(err.code, EFBIG, "with its errno");
}

/* ---- what is read ---- */

static void test_defaults(void)
{
	_cleanup_vse_ struct vse *v = load("dir/x.yaml", HEAD);
	if (!ok(v != NULL, "the least file loads"))
		return;
	is_str(v->file, "dir/x.yaml", "the file as given");
	is_str(v->name, "x", "name");
	is_int(v->base, VSE_BASE_DISTRO, "base");
	is_str(v->distro, "debian", "distribution");
	is_str(v->suite, "bookworm", "suite");
	ok(v->base_path == NULL && v->description == NULL && v->mirror == NULL,
	   "what is not given is NULL");
	ok(strcmp(v->arch, "amd64") == 0 || strcmp(v->arch, "arm64") == 0, "arch: %s", v->arch);
	is_int(v->components.n, 1, "one component");
	is_str(v->components.n ? v->components.v[0] : "", "main", "main");
	is_int(v->packages.n + v->n_files + v->n_env + v->build.n, 0, "nothing else in it");
	is_int(v->init, VSE_INIT_VSE, "init");
	is_str(v->kernel, "auto", "kernel");
	is_int(v->cpus, 1, "cpus");
	is_int(v->memory, 512 << 20, "memory");
	is_int(v->scratch, 0, "scratch");
	ok(!v->net_outbound, "no outbound network");
	is_str(v->net_subnet, "10.199.0.0/16", "subnet");
	ok(vse_gives(v, "name") && !vse_gives(v, "needs") && !vse_gives(v, "needs.memory"),
	   "what is given is known");
	_cleanup_free_ char *given = vse_given_yaml(v);
	is_str(given, HEAD, "and shown as it was");
	ok(round_trip(v), "its YAML loads to the same");
}

static void test_values(void)
{
	_cleanup_vse_ struct vse *v = load(
		SOURCE_DIR "/tests/spec/good/all.yaml",
		"vse: 1\nname: all-2\ndescription: Everything\nbase: ubuntu:jammy-updates\narch: "
		"arm64\n"
		"mirror: https://a.example.org:8080/ubuntu/\ncomponents: [main, universe]\n"
		"packages: [g++, libc6:i386, vim=2:9.0.1378-2+deb12u2~x, 0ad]\n"
		"files:\n"
		"- {path: /etc/a, content: \"\", mode: 644}\n"
		"- {path: /etc/b, content: \"b\\n\", mode: \"4755\", owner: 1000:root}\n"
		"- {path: /etc/c, mode: 0o600, source: ./../data/.//hello.txt}\n"
		"- {path: /opt/t, source: ../data/tree, mode: 0750, owner: 0:65534}\n"
		"env: {A: 1, B: yes, C: ~, D: , E: 0x10, F: 1.50, G: '', H: null, I: 12:30:45, _j: "
		"\"\\tx\"}\n"
		"build: [make, \"a\\nb\\n\"]\ninit: systemd\nkernel: linux-image-6.1.0-13-amd64\n"
		"needs: {cpus: 0012, memory: 1.5g, scratch: 100000000, devices: ['pci:15b3:101e', "
		"'pci:10DE:20b0']}\n"
		"mounts: [{host: ../../h/./x//, guest: /home}, {host: /i, guest: /var/i, mode: "
		"rw}]\n"
		"network: {outbound: 'true', subnet: 192.168.4.0/29}\n");
	if (!ok(v != NULL, "a file with every field loads"))
		return;
	is_str(v->distro, "ubuntu", "distribution");
	is_str(v->suite, "jammy-updates", "suite");
	is_str(v->arch, "arm64", "arch");
	is_str(v->mirror, "https://a.example.org:8080/ubuntu/", "mirror");
	is_int(v->components.n, 2, "components");
	is_int(v->packages.n, 4, "packages");
	is_str(v->packages.v[2], "vim=2:9.0.1378-2+deb12u2~x", "a package's version");
	is_int(v->n_files, 4, "files");
	is_int(v->files[0].mode, 0644, "644 is octal");
	is_str(v->files[0].content, "", "an empty file");
	is_int(v->files[1].mode, 04755, "text \"4755\" is octal");
	is_int(v->files[1].uid, 1000, "user by number");
	is_int(v->files[1].gid, 0, "group by name");
	is_int(v->files[2].mode, 0600, "0o600 is octal, and stays before a source");
	is_str(v->files[2].source, SOURCE_DIR "/tests/spec/good/../data/hello.txt",
	       "a source relative to the file");
	ok(v->files[2].content == NULL, "no content beside it");
	is_int(v->files[3].mode, 0750, "0750 is octal");
	is_int(v->files[3].gid, 65534, "the last group");
	ok(v->devices.n == 2 && strcmp(v->devices.v[1], "pci:10DE:20b0") == 0, "devices");
	is_int(v->n_mounts, 2, "mounts");
	is_str(v->mounts[0].host, SOURCE_DIR "/tests/spec/good/../../h/x", "relative to the file");
	ok(!v->mounts[0].rw && v->mounts[1].rw, "read-only unless said");
	static const char *const env[] = {"1",    "yes", "~",    "",         "0x10",
					  "1.50", "",    "null", "12:30:45", "\tx"};
	is_int(v->n_env, ARRAY_SIZE(env), "environment");
	for (size_t i = 0; i < v->n_env; i++)
		is_str(v->env[i].value, env[i], "env %s is as written", v->env[i].name);
	is_int(v->build.n, 2, "build steps");
	is_str(v->build.v[1], "a\nb\n", "a step of two lines");
	is_int(v->init, VSE_INIT_SYSTEMD, "init");
	is_str(v->kernel, "linux-image-6.1.0-13-amd64", "kernel");
	is_int(v->cpus, 12, "cpus");
	is_int(v->memory, 1536LL << 20, "memory");
	is_int(v->scratch, 96LL << 20, "scratch is rounded up to MiB");
	ok(v->net_outbound, "outbound");
	is_str(v->net_subnet, "192.168.4.0/29", "subnet");
	ok(round_trip(v), "its YAML loads to the same");
	struct err e = ERR_INIT;
	is_int(vse_add_mount(v, "k:/k:rw", "/cwd", &e), 0, "one more %s", e.text);
	is_str(v->mounts[2].host, "/cwd/k", "from the command line");
	ok(strcmp(v->mounts[2].guest, "/k") == 0 && v->mounts[2].rw, "and where it goes");
	static const char *const bad[] = {
		"",        ":",      "/a",        "/a:",     ":/b",     "/a:b",
		"/a:/b:x", "/a:/b:", "/a:/b:ro:", "/a:/k/l", "/a:/etc", "/:/b"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		e = ERR_INIT;
		ok(vse_add_mount(v, bad[i], "/cwd", &e) < 0 && e.code == EINVAL && v->n_mounts == 3,
		   "'%s': %s", bad[i], e.text);
	}
}

static void test_sources(void)
{
	_cleanup_vse_ struct vse *v =
		load(SOURCE_DIR "/tests/spec/x.yaml",
		     "vse: 1\nname: x\nbase: dir:data/tree\nkernel: data/hello.txt\n"
		     "files: [{path: /h, source: data/hello.txt}]\n");
	if (!ok(v != NULL, "a base that is a folder loads"))
		return;
	struct vse_file *f = v->files;
	is_int(v->base, VSE_BASE_DIR, "its kind");
	is_str(v->base_path, SOURCE_DIR "/tests/spec/data/tree", "its path is absolute");
	is_str(v->kernel, SOURCE_DIR "/tests/spec/data/hello.txt", "so is the kernel's");
	is_int(v->components.n, 0, "no components");
	is_int(f->mode & ~0777u, 0, "a source gives no more than permission bits");
	ok(f->mode & 0400, "and does give them (%o)", f->mode);
	ok(round_trip(v), "its YAML loads to the same");
	_cleanup_vse_ struct vse *t = load(SOURCE_DIR "/tests/spec/x.yaml",
					   "vse: 1\nname: x\nbase: tar:./data/hello.txt\n");
	ok(t && t->base == VSE_BASE_TAR, "a base that is an archive loads");
	ok(t && round_trip(t), "its YAML loads to the same");
	_cleanup_free_ char *cwd = getcwd(NULL, 0);
	_cleanup_free_ char *text =
		xasprintf("vse: 1\nname: x\nbase: dir:%s\nfiles: [{path: /a, source: .}]\n", cwd);
	_cleanup_vse_ struct vse *r = load("x.yaml", text);
	is_str(r ? r->files[0].source : NULL, cwd, "a file without a folder is in the working folder");
}

/* clang-format off */
/* Texts that YAML writers are known to change. */
static const char *const texts[] = {
	"", " ", "\n", "\n\n", "a", "a\n", "a\n\n", "a\n\n\n", "\na", " a\n", "\ta\n",
	"a \nb\n", "a\n b\n", "a\n\n b", "#x", "a #b", "- a", "? a", ": a", "a: b", "'", "\"",
	"\\", "%a", "@a", "`a", "&a", "*a", "!a", "|", ">", "{", "[", "---", "--- a\n", "...",
	"---\na\n", "a\n---\nb\n", "~", "null", "yes", "0644", "1e3", "=", "<<", "a\tb",
	"\xc2\x85", "a\xc2\x85" "b\n", "\xe2\x80\xa8", "a\n\xe2\x80\xa9\n", "\xef\xbb\xbf",
	"\xf0\x9f\x98\x80\n\n", "\x01\x02\x1b", "a\r\nb\r\n", "\r",
	"#!/bin/sh\nset -e\n\techo \"$x\"\n\n  done\n", "a\n \n", "a\n\t\n", "  lead\n  lead\n",
	"trail  \n", "M\xc3\xb6" "bel\nzwei\n", "\x7f\n", "a\\\nb", "x\n#y\n",
};
/* clang-format on */

static void test_texts(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct vse *v = load("x.yaml", HEAD "files: [{path: /a, content: x}]\n");
		free(v->files[0].content);
		v->files[0].content = xstrdup(texts[i]);
		char shown[RULE_SHOWN];
		ok(round_trip(v), "text %zu '%s' comes back", i, rule_shown(texts[i], shown));
		vse_destroy(v);
	}
}

static void test_look(void)
{
	_cleanup_vse_ struct vse *v = load(
		"x.yaml", HEAD
		"build: [\"if true; then\\n\\tls\\nfi\\n\", \"a: b\", \"b\\n\\n\", \"c\\nd\"]\n");
	_cleanup_free_ char *y = v ? vse_given_yaml(v) : NULL;
	is_str(y,
	       HEAD "build:\n  - |\n    if true; then\n    \tls\n    fi\n  - \"a: b\"\n  - |+\n    "
		    "b\n\n  - |-\n    c\n"
		    "    d\n",
	       "texts of several lines are written as blocks, with tabs as they are");
}

static void test_json(void)
{
	_cleanup_vse_ struct vse *v =
		load("x.yaml", HEAD "arch: amd64\nfiles: [{path: /a, content: x, mode: 0600}]\n"
				    "env: {B: 1, A: 2}\nneeds: {memory: 1G}\n");
	json_t *full = vse_to_json(v), *given = vse_given_json(v);
	char *a = json_dumps(full, JSON_COMPACT), *b = json_dumps(given, JSON_COMPACT);
	is_str(a,
	       "{\"vse\":1,\"name\":\"x\",\"base\":\"debian:bookworm\",\"arch\":\"amd64\","
	       "\"components\":[\"main\"],"
	       "\"packages\":[],\"files\":[{\"path\":\"/"
	       "a\",\"content\":\"x\",\"mode\":\"0600\",\"owner\":\"0:0\"}],"
	       "\"env\":{\"B\":\"1\",\"A\":\"2\"},\"build\":[],\"init\":\"vse\",\"kernel\":"
	       "\"auto\",\"needs\":{\"cpus\":1,"
	       "\"memory\":1073741824,\"scratch\":0,\"devices\":[]},\"mounts\":[],\"network\":{"
	       "\"outbound\":false,"
	       "\"subnet\":"
	       "\"10.199.0.0/16\"}}",
	       "the whole definition as JSON");
	is_str(b,
	       "{\"vse\":1,\"name\":\"x\",\"base\":\"debian:bookworm\",\"arch\":\"amd64\","
	       "\"files\":[{\"path\":\"/a\","
	       "\"content\":\"x\",\"mode\":\"0600\"}],\"env\":{\"B\":\"1\",\"A\":\"2\"},\"needs\":{"
	       "\"memory\":1073741824}}",
	       "what the file gives as JSON");
	_cleanup_free_ char *y = vse_given_yaml(v);
	is_str(y, HEAD "arch: amd64\nfiles:\n  - path: /a\n    content: x\n    mode: 0600\nenv:\n  B: 1\n  A: 2\nneeds:\n  memory: 1G\n",
	       "and as YAML");
	free(a);
	free(b);
	json_decref(full);
	json_decref(given);
}

/* ---- the table ---- */

static const char *manual, *page;

static void check_table(const struct spec_field *fields, const char *prefix)
{
	size_t n = 0;
	for (const struct spec_field *f = fields; f->name; f++, n++) {
		_cleanup_free_ char *name = xasprintf("%s%s", prefix, f->name);
		_cleanup_free_ char *in_man = xasprintf("\n*%s*", name),
				    *in_page = xasprintf("\n| `%s` |", name);
		bool kind = f->kind == SPEC_PAIRS  ? f->name_rule && f->pair
			    : f->kind == SPEC_MAPS ? f->add && f->fields
			    : f->kind == SPEC_MAP  ? f->fields != NULL
						   : f->set != NULL;
		ok(f->allowed && f->help && kind, "%s is complete", name);
		ok(manual && strstr(manual, in_man), "%s is in vse.yaml(5)", name);
		ok(page && strstr(page, in_page), "%s is in docs/vse-file.md", name);
		if (f->standard && f->kind == SPEC_TEXT)
			ok(page && manual && strstr(page, f->standard) && strstr(manual, f->standard),
			   "its default %s too", f->standard);
		if (f->fields) {
			_cleanup_free_ char *below = xasprintf("%s%s", name,
							       f->kind == SPEC_MAPS ? "[]." : ".");
			check_table(f->fields, below);
		}
	}
	ok(n <= 64, "the fields of '%s' fit the bits that note them", prefix);
}

static void test_table(void)
{
	_cleanup_free_ char *m = NULL, *p = NULL;
	path_read(SOURCE_DIR "/man/vse.yaml.5.scd", 1 << 20, &m, NULL, NULL);
	path_read(SOURCE_DIR "/docs/vse-file.md", 1 << 20, &p, NULL, NULL);
	manual = m;
	page = p;
	check_table(spec_fields, "");
	is_str(spec_suggest(spec_fields, "pakages"), "packages", "a letter left out");
	is_str(spec_suggest(spec_fields, "nmae"), "name", "two letters swapped");
	is_str(spec_suggest(spec_fields, "kernels"), "kernel", "a letter too many");
	ok(!spec_suggest(spec_fields, "xyz"), "nothing near");
	ok(!spec_suggest(spec_fields, "a-very-long-name-that-is-no-field-at-all"),
	   "nothing near a long name");
}

static void test_rules(void)
{
	char shown[RULE_SHOWN];
	struct err err = ERR_INIT;
	unsigned n = 7;
	uint64_t m = 7;
	is_str(rule_shown("a\nb\x7f", shown), "a?b?", "a message is one line");
	_cleanup_free_ char *umlauts = repeat("x", "\xc3\xa4", 60, "");
	is_int(strlen(rule_shown(umlauts, shown)), 62, "a long text is cut between characters");
	ok(rule_cpus("4", &n, &err) == 0 && n == 4, "cpus");
	ok(rule_cpus("0", &n, &err) < 0 && n == 4, "an output is written on success only");
	ok(rule_memory("64M", &m, &err) == 0 && m == RULE_MEMORY_MIN, "the least memory");
	ok(rule_memory("64T", &m, &err) == 0 && m == RULE_MEMORY_MAX, "the most memory");
	ok(rule_memory("67108865", &m, &err) == 0 && m == UINT64_C(65) << 20,
	   "memory is rounded up");
	ok(rule_scratch("0", &m, &err) == 0 && m == 0, "no scratch");
	ok(rule_scratch("16MiB", &m, &err) == 0 && m == RULE_SCRATCH_MIN, "the least scratch");
	ok(rule_name("a2345678901234567890123456789012", &err) == 0, "a name of 32");
	vse_destroy(NULL);
}

int main(void)
{
	int bad = for_files("tests/spec/bad", bad_file);
	ok(bad >= 60, "there are %d bad files", bad);
	ok(for_files("tests/spec/good", good_file) > 0, "there are good files");
	ok(for_files("examples", example_file) >= 4, "there are examples");
	test_raw();
	test_bounds();
	test_many();
	test_unreadable();
	test_defaults();
	test_values();
	test_sources();
	test_texts();
	test_look();
	test_json();
	test_rules();
	test_table();
	return done();
}
