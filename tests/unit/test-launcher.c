/* SPDX-License-Identifier: Apache-2.0 */
/* What launchers read: node files, counts, exec_vnode, apstat, Flux's R, Slurm's words, sites' configurations; which
 * node an agent is; the agent as it travels. */
#include <elf.h>
#include <errno.h>
#include <sys/stat.h>
#include <time.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/text.h"
#include "launcher/backend.h"
#include "launcher/parse.h"
#include "launcher/payload.h"
#include "launcher/site.h"
#include "launcher/slurm.h"
#include "launcher/ssh_script.h"
#include "tap.h"

/* "n1/4/2G/7" for each: cores, memory in MiB and launch id where they are not 0. */
static char *shown(const struct allocation *a)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	for (size_t i = 0; i < a->n_nodes; i++) {
		const struct launch_node *n = &a->nodes[i];
		buf_addf(&b, "%s%s", i ? " " : "", n->name);
		if (n->cores)
			buf_addf(&b, " c%u", n->cores);
		if (n->memory)
			buf_addf(&b, " m%llu", (unsigned long long)(n->memory >> 20));
		if (n->launch_id)
			buf_addf(&b, " #%u", n->launch_id);
		if (n->group)
			buf_addf(&b, " g%u", n->group);
	}
	return buf_take(&b);
}

static const char *const long_name = "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"
				     "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"
				     "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"
				     "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"
				     "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"
				     "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn\n";

typedef int parser(const char *text, struct allocation *a, struct err *err);

/* want NULL: it is refused. */
static void reads(const char *what, parser *parse, const char *text, const char *want)
{
	_cleanup_allocation_ struct allocation *a = allocation_new(NULL, NULL);
	struct err err = ERR_INIT;
	int rc = parse(text, a, &err);
	_cleanup_free_ char *got = shown(a), *line = text_cleaned(text), *why = text_cleaned(err.text);
	if (!want)
		ok(rc < 0 && err.code, "%s refuses '%.60s': %s", what, line, why);
	else if (ok(rc == 0, "%s reads '%.60s' %s", what, line, why))
		is_str(got, want, "as it should");
}

static void files(void)
{
	reads("node file", parse_nodefile, "n2\nn2\nn1\nn1\n", "n2 c2 n1 c2 #2");
	reads("node file", parse_nodefile, "n2\n\n \nn1\r\nn2\nm3", "n2 c2 n1 c1 #1 m3 c1 #3");
	reads("node file", parse_nodefile, "", "");
	reads("node file", parse_nodefile, "n1 slots=4\n", "n1 c1");
	reads("node file", parse_nodefile, "n1\n-oProxyCommand=x\n", NULL);
	reads("node file", parse_nodefile, "n1\na;b\n", NULL);
	reads("node file", parse_nodefile, long_name, NULL);
	reads("host file", parse_hostfile, "# mine\nn[1-2] slots=4 # two\n\n  login\n",
	      "n1 c4 n2 c4 login");
	reads("host file", parse_hostfile, "user@n1\tcores=2\n", "user@n1 c2");
	reads("host file", parse_hostfile, "n1 max=3\n", NULL);
	reads("host file", parse_hostfile, "n1 slots=0\n", NULL);
	reads("host file", parse_hostfile, "n1 slots=\n", NULL);
	reads("host file", parse_hostfile, "n[1\n", NULL);
}

static void pbs(void)
{
	reads("exec_vnode", parse_exec_vnode, "(n1:ncpus=2:mem=4gb)+(n2:ncpus=1)", "n1 c2 m4096 n2 c1");
	reads("exec_vnode", parse_exec_vnode,
	      "(n1[0]:ncpus=2:mem=1048576kb+n1[1]:ncpus=2)+(n2:ncpus=1:ngpus=1)", "n1 c4 m1024 n2 c1");
	reads("exec_vnode", parse_exec_vnode, "(n1:mem=1048576w)", "n1 m8");
	reads("exec_vnode", parse_exec_vnode, "", "");
	reads("exec_vnode", parse_exec_vnode, "n1:ncpus=2", NULL);
	reads("exec_vnode", parse_exec_vnode, "(n1:ncpus=2", NULL);
	reads("exec_vnode", parse_exec_vnode, "(", NULL);
	reads("exec_vnode", parse_exec_vnode, "()", NULL);
	reads("exec_vnode", parse_exec_vnode, "(n1:ncpus=x)", NULL);
	reads("exec_vnode", parse_exec_vnode, "(n1:mem=99999999999999999999gb)", NULL);
	reads("exec_vnode", parse_exec_vnode, "(n1:mem=9999999tw)", NULL);
}

static void flux(void)
{
	static const char good[] =
		"{\"version\":1,\"execution\":{\"R_lite\":[{\"rank\":\"0-1\",\"children\":{"
		"\"core\":\"0-3\"}},"
		"{\"rank\":\"[4,6]\",\"children\":{\"core\":\"[0,2]\",\"gpu\":\"0\"}}],"
		"\"nodelist\":[\"n[1-3]\",\"m9\"],\"expiration\":1700000000.5}}";
	reads("R", parse_flux_r, good, "n1 c4 n2 c4 #1 n3 c2 #4 m9 c2 #6");
	_cleanup_allocation_ struct allocation *a = allocation_new(NULL, NULL);
	is_int(parse_flux_r(good, a, NULL), 0, "R again");
	is_int(a->end_time, 1700000000, "tells when the time is over");
	reads("R", parse_flux_r,
	      "{\"version\":1,\"execution\":{\"R_lite\":[{\"rank\":\"0\"}],\"nodelist\":[\"n1\"]}}",
	      "n1");
	static const char *const bad[] = {
		"",
		"[]",
		"{\"version\":2,\"execution\":{\"R_lite\":[],\"nodelist\":[]}}",
		"{\"version\":1,\"execution\":{\"R_lite\":[{\"rank\":\"0-1\"}],\"nodelist\":["
		"\"n1\"]}}",
		"{\"version\":1,\"execution\":{\"R_lite\":[{\"rank\":\"0\"}],\"nodelist\":[\"n1,"
		"n2\"]}}",
		"{\"version\":1,\"execution\":{\"R_lite\":[{\"rank\":\"all\"}],\"nodelist\":["
		"\"n1\"]}}",
		"{\"version\":1,\"execution\":{\"R_lite\":[{\"rank\":7}],\"nodelist\":[\"n1\"]}}",
		"{\"version\":1,\"execution\":{\"R_lite\":[{\"rank\":\"0\"}],\"nodelist\":[7]}}",
		"{\"version\":1,\"execution\":{\"R_lite\":[{\"rank\":\"0\"}],\"nodelist\":[\"n[1\"]"
		"}}",
	};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		reads("R", parse_flux_r, bad[i], NULL);
}

static void apstat(void)
{
	static const char text[] =
		"  ResId     ApId From            Arch   PEs N d Memory State\n"
		"A 1450   571783 batch:138309     XT    80 - -   2000 conf,claim\n"
		"  1449   571782 batch:138309     XT    80 - -   2000 conf,claim\n"
		"  1451   571785 batch:138310     XT    65 32 1   2000 conf,claim\n";
	struct err err = ERR_INIT;
	uint64_t id = 0;
	unsigned nodes = 7;
	is_int(parse_apstat(text, "138309", &id, &nodes, &err), 0, "apstat: a reservation");
	is_int(id, 1449, "not the application under one");
	is_int(nodes, 0, "of so many nodes as it does not tell");
	is_int(parse_apstat(text, "138310", &id, &nodes, &err), 0, "apstat: another");
	is_int(nodes, 3, "of nodes that are rounded up");
	is_int(parse_apstat(text, "13830", &id, &nodes, &err), -1,
	       "apstat: a job whose number begins so");
	is_int(err.code, ENOENT, "has none");
	is_int(parse_apstat("", "1", &id, &nodes, &err), -1, "apstat: nothing");
}

/* ---- Slurm ---- */

static void counts(void)
{
	static const struct {
		const char *text;
		size_t n;
		const char *want; /* NULL: refused */
	} row[] = {
		{"4", 1, "n c4"},        {"2(x3),1", 4, "n c2 n c2 n c2 n c1"},
		{"1,2", 2, "n c1 n c2"}, {"2(x3),1", 3, NULL},
		{"2(x3),1", 5, NULL},    {"2(x", 2, NULL},
		{"2(x2", 2, NULL},       {"0", 1, NULL},
		{"-1", 1, NULL},         {"2(x99999999999999999999)", 2, NULL},
		{"2x", 1, NULL},         {"", 1, NULL},
	};
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		_cleanup_allocation_ struct allocation *a = allocation_new(NULL, NULL);
		struct err err = ERR_INIT;
		for (size_t k = 0; k < row[i].n; k++)
			allocation_add(a, "n");
		int rc = parse_counts(row[i].text, a->nodes, a->n_nodes, &err);
		_cleanup_free_ char *got = shown(a);
		if (!row[i].want)
			ok(rc < 0, "counts refuse '%s' for %zu: %s", row[i].text, row[i].n, err.text);
		else
			is_str(got, row[i].want, "counts read '%s'", row[i].text);
	}
}

static void slurm_times(void)
{
	static const struct {
		const char *text;
		int64_t seconds; /* -2: refused */
	} row[] = {
		{"59", 59},         {"03:04", 184},
		{"02:03:04", 7384}, {"1-02:03:04", 93784},
		{"UNLIMITED", -1},  {"INVALID", -2},
		{"", -2},           {"1:2:3:4", -2},
		{"1-", -2},         {"1-1-1", -2},
		{":", -2},          {"99999999999999999999", -2},
	};
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		int64_t got = -2;
		parse_slurm_time(row[i].text, &got, NULL);
		is_int(got, row[i].seconds, "time '%s'", row[i].text);
	}
}

static const char *from_words(void *arg, const char *name)
{
	size_t n = strlen(name);
	for (const char *const *v = arg; *v; v++)
		if (strncmp(*v, name, n) == 0 && (*v)[n] == '=')
			return *v + n + 1;
	return NULL;
}

static void slurm_env(void)
{
	static const struct {
		const char *want; /* NULL: refused */
		const char *env[12];
	} row[] = {
		{"n1 c4 m4000 n2 c4 m4000 n3 c2 m2000",
		 {"SLURM_JOB_NODELIST=n[1-3]", "SLURM_JOB_CPUS_PER_NODE=4(x2),2",
		  "SLURM_MEM_PER_CPU=1000"}},
		{"n1 c4", {"SLURM_NODELIST=n1", "SLURM_JOB_CPUS_PER_NODE=4"}},
		{"n1", {"SLURM_JOB_NODELIST=n1"}},
		{"n1 c1 m7 n2 c2 g1 n3 c2 g1",
		 {"SLURM_HET_SIZE=2", "SLURM_JOB_NODELIST_HET_GROUP_0=n1",
		  "SLURM_JOB_NODELIST_HET_GROUP_1=n[2-3]", "SLURM_JOB_CPUS_PER_NODE_HET_GROUP_0=1",
		  "SLURM_JOB_CPUS_PER_NODE_HET_GROUP_1=2(x2)", "SLURM_MEM_PER_NODE_HET_GROUP_0=7"}},
		{NULL, {"SLURM_HET_SIZE=2", "SLURM_JOB_NODELIST_HET_GROUP_0=n1"}},
		{NULL, {"SLURM_HET_SIZE=999999"}},
		{NULL, {"SLURM_JOB_NODELIST=n[1-"}},
		{NULL, {"SLURM_JOB_NODELIST=n1", "SLURM_JOB_CPUS_PER_NODE=2(x2)"}},
		{NULL, {"PATH=/bin"}},
	};
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		_cleanup_allocation_ struct allocation *a = allocation_new(NULL, NULL);
		struct err err = ERR_INIT;
		int rc = slurm_read(a, from_words, (void *)row[i].env, &err);
		_cleanup_free_ char *got = shown(a);
		if (!row[i].want)
			ok(rc < 0, "Slurm's variables, %s...: %s", row[i].env[0], err.text);
		else
			is_str(rc < 0 ? err.text : got, row[i].want, "Slurm's variables, %s...",
			       row[i].env[0]);
	}
}

static void slurm_words(void)
{
	static const struct {
		const char *line, *names;
	} row[] = {
		{"srun: error: n3: task 2: Exited with exit code 1", "n3"},
		{"srun: error: n[1-2]: tasks 0-1: Killed", "n1 n2"},
		{"srun: error: Node failure on n3", "n3"},
		{"srun: error: Unable to create step for job 17: Memory required by task is not "
		 "available",
		 ""},
		{"slurmstepd: error: n3: task 2", ""},
		{"srun: error: n[1: task 2", ""},
		{"srun: job 17 queued", ""},
	};
	is_int(slurm_version("slurm-wlm 22.05.8\n"), 2205, "Debian's version");
	is_int(slurm_version("slurm 24.11.1-1"), 2411, "another's");
	is_int(slurm_version("slurm"), 0, "none");
	is_int(slurm_version("slurm x.y"), 0, "none that can be read");
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		_cleanup_strvec_ struct strvec names = STRVEC_INIT;
		_cleanup_buf_ struct buf b = BUF_INIT;
		if (slurm_lost_nodes(row[i].line, &names))
			for (size_t k = 0; k < names.n; k++)
				buf_addf(&b, "%s%s", k ? " " : "", names.v[k]);
		is_str(buf_cstr(&b), row[i].names, "%s", row[i].line);
	}
}

/* ---- sites ---- */

static void sites(void)
{
	static const char good[] =
		"# ours\n summary = Our own \n\ninside_env=OUR_JOB\r\nnodes_file = $OUR_NODES\n"
		"launch = our-run -n %n --hosts=%l -- %a --\nstdin = first\n";
	static const char *const bad[] = {
		"",
		"summary = x\n",
		"launch = x\n",
		"launch = x %a\nfoo = bar\n",
		"launch = x %a\nstdin = some\n",
		"launch = x %a\nlaunch\n",
		"launch = x %a\nsummary =\n",
		"launch = x y%a\n",
		"launch = x %a%n\n",
		"launch = x %q %a\n",
		"launch = x %a %\n",
		"launch = x %h %l %a\n",
		"launch = x %h %a\nstdin = first\n",
		"launch = x %a\nnodes_env = A\nnodes_file = /x\n",
		"launch = x %a\nnodes_env = 1A\n",
		"launch = x %a\nnodes_file = x\n",
		"launch = x %a\nnodes_command = x %l\n",
		"launch = x %a\ninside_env = A=B\n",
	};
	struct err err = ERR_INIT;
	struct site_launcher *s = NULL;
	if (ok(site_parse(good, &s, &err) == 0, "a site's launcher %s", err.text)) {
		is_str(s->summary, "Our own", "its summary");
		is_str(s->inside_env, "OUR_JOB", "its variable");
		is_str(s->nodes_file, "$OUR_NODES", "its file");
		is_int(s->launch.n, 7, "its words");
		is_int(s->input, SITE_STDIN_FIRST, "its input");
		ok(!s->per_node, "it starts all");
		site_destroy(s);
	}
	is_int(site_parse("launch = each %h %a %%\nstdin = all\n", &s, &err), 0,
	       "one that starts each node");
	ok(s->per_node, "does so");
	site_destroy(s);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ok(site_parse(bad[i], &s, &err) < 0 && err.code == EINVAL,
		   "a malformed one is refused: %s", err.text);
}

static void site_folder(void)
{
	const char *base = getenv("VSE_TEST_TMP");
	_cleanup_free_ char *tmp = xasprintf("%s/launcher.XXXXXX", base ? base : "/tmp");
	char why[LAUNCH_WHY_MAX];
	if (!ok(mkdtemp(tmp) != NULL, "a folder"))
		return;
	_cleanup_free_ char *folder = path_join(tmp, "vse/launchers.d"),
			    *a = path_join(folder, "alpha.conf"),
			    *b = path_join(folder, "broken.conf"), *c = path_join(folder, "ssh.conf");
	path_mkdirs(folder, 0755, NULL);
	path_write(a, "launch = sh %a\ninside_env = ALPHA\n", 34, 0644, NULL);
	path_write(b, "launch = sh\n", 12, 0644, NULL);
	path_write(c, "launch = sh %a\n", 15, 0644, NULL);
	setenv("XDG_CONFIG_HOME", tmp, 1);
	site_forget();
	const struct launcher *l = launcher_find("alpha");
	if (ok(l != NULL, "a site's launcher is found")) {
		unsetenv("ALPHA");
		is_int(launcher_probe(l, why), LAUNCH_USABLE, "it can be asked for: %s", why);
		setenv("ALPHA", "1", 1);
		is_int(launcher_probe(l, why), LAUNCH_INSIDE, "it is the nearest: %s", why);
		struct launch_request r = {0};
		const struct launcher *got = NULL;
		ok(launcher_pick(&r, &got, why, NULL) == 0 && got == l, "and is chosen");
		unsetenv("ALPHA");
	}
	l = launcher_find("broken");
	ok(l && launcher_probe(l, why) == LAUNCH_UNUSABLE && strstr(why, "broken.conf"),
	   "a malformed one says: %s", why);
	ok(launcher_find("ssh") && !launcher_find("ssh")->site, "none takes the place of ours");
	ok(!launcher_find("gamma"), "there is no other");
	site_forget();
	unsetenv("XDG_CONFIG_HOME");
	path_remove(tmp, NULL);
}

/* ---- which launcher ---- */

static void picks(void)
{
	struct err err = ERR_INIT;
	char why[LAUNCH_WHY_MAX];
	const struct launcher *l = NULL;
	struct launch_request none = {0}, hosts = {.hosts = "a"},
			      named = {.launcher = "flux", .hosts = "a"}, wrong = {.launcher = "x"};
	static const char *const drop[] = {
		"SLURM_JOB_ID",         "SLURM_JOBID",     "FLUX_URI",          "PBS_JOBID",
		"BASIL_RESERVATION_ID", "OMPI_ALPS_RESID", "BATCH_PARTITION_ID"};
	for (size_t i = 0; i < ARRAY_SIZE(drop); i++)
		unsetenv(drop[i]);
	ok(launcher_pick(&none, &l, why, &err) == 0 && strcmp(l->name, "local") == 0,
	   "nothing known: local");
	ok(launcher_pick(&hosts, &l, why, &err) == 0 && strcmp(l->name, "ssh") == 0, "hosts: ssh");
	ok(launcher_pick(&named, &l, why, &err) == 0 && strcmp(l->name, "flux") == 0,
	   "the one that was named");
	ok(launcher_pick(&wrong, &l, why, &err) < 0 && err.code == EINVAL, "none of that name: %s",
	   err.text);
	for (size_t i = 0; (l = launcher_at(i)); i++) {
		why[0] = '\0';
		launcher_probe(l, why);
		ok(why[0] && l->summary[0] && launcher_find(l->name) == l, "%s: %s", l->name, why);
	}
}

/* ---- who am I ---- */

static void selves(void)
{
	char host[256] = "";
	gethostname(host, sizeof(host) - 1);
	_cleanup_free_ char *full = xasprintf("%s.some.domain", host), *user = xasprintf("me@%s", host);
	unsetenv("SLURMD_NODENAME");
	is_int(launcher_self((char *[]){(char *)"x1", host}, 2), 1, "by the host's name");
	is_int(launcher_self((char *[]){full, (char *)"x1"}, 2), 0, "by its short one");
	is_int(launcher_self((char *[]){(char *)"x1", user}, 2), 1, "as ssh's user");
	is_int(launcher_self((char *[]){host, host}, 2), -1, "not when it is there twice");
	is_int(launcher_self((char *[]){(char *)"x1"}, 1), -1, "not when it is not there");
	setenv("SLURMD_NODENAME", "x1", 1);
	is_int(launcher_self((char *[]){host, (char *)"x1"}, 2), 1, "Slurm's name goes first");
	unsetenv("SLURMD_NODENAME");
	char *nameless[] = {(char *)"", (char *)"", (char *)""};
	is_int(launcher_self(nameless, 3), -1, "no names, no rank");
	setenv("ALPS_APP_PE", "2", 1);
	is_int(launcher_self(nameless, 3), 2, "by ALPS' rank");
	is_int(launcher_self(nameless, 2), -1, "which must be within");
	unsetenv("ALPS_APP_PE");
}

/* ---- the agent as it travels ---- */

static void travels(void)
{
	_cleanup_free_ char *self = NULL, *before = NULL;
	size_t size;
	is_int(posix_cksum("", 0), 4294967295u, "cksum of nothing, as cksum(1) says");
	is_int(posix_cksum("123456789", 9), 930766865u, "cksum of something, as cksum(1) says");
	if (!ok(path_read("/proc/self/exe", 64 << 20, &self, &size, NULL) == 0, "this program"))
		return;
	before = xmemdup0(self, size);
	size_t cut = payload_trim(self, size);
	ok(cut < size, "loses %zu of %zu bytes", size - cut, size);
	is_int(payload_trim(self, cut), cut, "and no more");
	ok(memcmp(self + sizeof(Elf64_Ehdr), before + sizeof(Elf64_Ehdr), cut - sizeof(Elf64_Ehdr)) == 0,
	   "what is left is as it was");
	char text[] = "#!/bin/sh\n";
	is_int(payload_trim(text, sizeof(text)), sizeof(text), "a script stays whole");
	is_int(payload_trim(before, 100), 100, "so does a part of a program");
}

static void scripts(void)
{
	struct payload p = {.whole = {.size = 1, .sha256 = "aa"}, .sent = {.size = 1, .sha256 = "bb"}};
	_cleanup_free_ char *script = ssh_script("0123456789abcdef", "/a b", true, true, &p,
						 (char *[]){(char *)"--node"}, 1);
	ok(strncmp(script, "exec sh -c '", 12) == 0, "a script");
	char *end = strrchr(script, '\'');
	ok(end && strcspn(script + 12, "'!\\\n`") == (size_t)(end - script - 12),
	   "has nothing that csh or fish read");
	ok(strspn(end + 1,
		  " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/.=:,+@%-") ==
		   strlen(end + 1),
	   "nor have its words");
	ok(!strstr(script, "/a b"), "and a path that needs quotes is not tried");
	ok(ssh_script_safe("a/b_c.d=e:f,g+h@i%j-k") && !ssh_script_safe("") &&
		   !ssh_script_safe("a b") && !ssh_script_safe("$x") && !ssh_script_safe("a;b"),
	   "which words are safe");
}

int main(void)
{
	files();
	pbs();
	flux();
	apstat();
	counts();
	slurm_times();
	slurm_env();
	slurm_words();
	sites();
	site_folder();
	picks();
	selves();
	travels();
	scripts();
	return done();
}
