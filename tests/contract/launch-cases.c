/* SPDX-License-Identifier: Apache-2.0 */
#include "contract/launch-cases.h"

#include <stdio.h>
#include <string.h>

#include "base/path.h"
#include "contract/sshd.h"

static void put_file(const char *name, const char *text)
{
	_cleanup_free_ char *path = path_join(tmp, name);
	struct err err = ERR_INIT;
	if (path_write(path, text, strlen(text), 0644, &err) < 0)
		printf("# %s\n", err.text);
}

static void set_path(const char *name, const char *variable)
{
	_cleanup_free_ char *path = path_join(tmp, name);
	setenv(variable, path, 1);
}

static void prepare_slurm(void)
{
	setenv("SLURM_JOB_ID", "17", 1);
	setenv("SLURM_JOB_NODELIST", "n[1-2],m3", 1);
	setenv("SLURM_JOB_CPUS_PER_NODE", "4(x2),2", 1);
	setenv("SLURM_MEM_PER_NODE", "2048", 1);
	setenv("STAND_IN_NODES", "n1 n2 m3", 1);
	setenv("SLURM_NNODES", "99", 1); /* an option for srun, were it not taken away */
}

static void prepare_salloc(void)
{
	unsetenv("STAND_IN_NODES");
}

static void prepare_pbs_job(void)
{
	put_file("nodes", "n2\nn2\nn1\n\nm3\nn1\n");
	set_path("nodes", "PBS_NODEFILE");
	setenv("PBS_JOBID", "138309.sdb", 1);
	setenv("PBS_JOBCOOKIE", "c00c1e", 1);
	setenv("PBS_ENVIRONMENT", "PBS_BATCH", 1);
}

static void prepare_torque(void)
{
	prepare_pbs_job();
	setenv("PBS_VERSION", "TORQUE-6.1.3", 1);
	setenv("TM_LIBRARY", tm_library, 1);
}

static void prepare_pbsdsh(void)
{
	prepare_torque();
	setenv("TM_LIBRARY", "/nonexistent/libtm.so", 1);
}

static void prepare_pbs(void)
{
	prepare_pbs_job();
	setenv("TM_LIBRARY", tm_library, 1);
}

static void prepare_tmrsh(void)
{
	prepare_pbs_job();
	setenv("TM_LIBRARY", "/nonexistent/libtm.so", 1);
}

static void prepare_alps(void)
{
	setenv("PBS_JOBID", "138309.sdb", 1);
	put_file("reservation", "1450 138309 3\n");
	set_path("reservation", "STAND_IN_RESERVATION");
}

static void prepare_flux(void)
{
	setenv("FLUX_URI", "local:///stand-in", 1);
	setenv("SLURM_JOB_ID", "17", 1); /* the instance runs inside a Slurm job: it is the nearer one */
	setenv("SLURM_JOB_NODELIST", "x[1-9]", 1);
}

static void site_config(const char *text)
{
	_cleanup_free_ char *folder = path_join(tmp, "config/vse/launchers.d");
	path_mkdirs(folder, 0755, NULL);
	put_file("config/vse/launchers.d/ours.conf", text);
	set_path("config", "XDG_CONFIG_HOME");
}

static void prepare_site(void)
{
	setenv("OUR_JOB", "j7", 1);
	setenv("OUR_NODES", "n[1-3]", 1);
	site_config(
		"summary = ours\ninside_env = OUR_JOB\njob_env = OUR_JOB\nnodes_env = OUR_NODES\n"
		"launch = stand-in-launch -n %n -l %l -j %j -- %a\nstdin = all\n");
}

static void prepare_site_each(void)
{
	setenv("OUR_NODES", "n[1-3]", 1);
	site_config("nodes_command = stand-in-nodes n[1-3]\nlaunch = stand-in-launch -n 1 -l %h -- "
		    "%a\n");
}

static void prepare_ssh(void)
{
	_cleanup_free_ char *folder = path_join(tmp, "ssh"), *config = NULL;
	const char *why = NULL;
	if (!sshd_start(folder, "10:30:100", &config, &why)) {
		printf("1..0 # SKIP %s\n", why);
		exit(0);
	}
	strvec_addv(&launch_args, "-F", config, NULL);
}

static const struct {
	const char *test;
	struct scenario s;
} scenarios[] = {
	{"ssh",
	 {.name = "ssh",
	  .prepare = prepare_ssh,
	  .hosts = "n[1-3]",
	  .names = "n1 n2 n3",
	  .indexed = true,
	  .tells_node = true,
	  .stage = true}},
	{"ssh-shared",
	 {.name = "ssh",
	  .prepare = prepare_ssh,
	  .hosts = "n[1-3],n2",
	  .names = "n1 n2 n3",
	  .indexed = true,
	  .tells_node = true}},
	{"slurm",
	 {.name = "slurm",
	  .prepare = prepare_slurm,
	  .names = "n1 n2 m3",
	  .inside = true,
	  .named = true,
	  .tells_node = true,
	  .cores = 4,
	  .memory = 2048ull << 20,
	  .job = "17"}},
	{"salloc",
	 {.name = "slurm",
	  .prepare = prepare_salloc,
	  .nodes = 3,
	  .names = "n1 n2 n3",
	  .named = true,
	  .tells_node = true,
	  .cores = 4,
	  .memory = 1000ull << 20,
	  .job = "42"}},
	{"torque",
	 {.name = "torque",
	  .prepare = prepare_torque,
	  .names = "n2 n1 m3",
	  .inside = true,
	  .named = true,
	  .by_file = true,
	  .tells_node = true,
	  .cores = 2,
	  .job = "138309.sdb"}},
	{"pbsdsh",
	 {.name = "torque",
	  .prepare = prepare_pbsdsh,
	  .names = "n2 n1 m3",
	  .inside = true,
	  .named = true,
	  .by_file = true,
	  .cores = 2,
	  .job = "138309.sdb"}},
	{"pbs",
	 {.name = "pbs",
	  .prepare = prepare_pbs,
	  .names = "n2 n1 m3",
	  .inside = true,
	  .named = true,
	  .by_file = true,
	  .tells_node = true,
	  .cores = 3,
	  .memory = 4ull << 30,
	  .job = "138309.sdb"}},
	{"pbs-tmrsh",
	 {.name = "pbs",
	  .prepare = prepare_tmrsh,
	  .names = "n2 n1 m3",
	  .inside = true,
	  .named = true,
	  .indexed = true,
	  .by_link = true,
	  .by_file = true,
	  .tells_node = true,
	  .cores = 3,
	  .memory = 4ull << 30,
	  .job = "138309.sdb"}},
	{"alps",
	 {.name = "alps",
	  .prepare = prepare_alps,
	  .names = "  ",
	  .inside = true,
	  .by_file = true,
	  .kill_spreads = true,
	  .job = "1450"}},
	{"flux",
	 {.name = "flux", .prepare = prepare_flux, .names = "n1 n2 n3", .inside = true, .named = true, .cores = 8}},
	{"site",
	 {.name = "ours", .prepare = prepare_site, .names = "n1 n2 n3", .inside = true, .named = true, .job = "j7"}},
	{"site-each",
	 {.name = "ours",
	  .prepare = prepare_site_each,
	  .names = "n1 n2 n3",
	  .named = true,
	  .indexed = true,
	  .by_file = true,
	  .tells_node = true}},
};

const struct scenario *scenario_find(const char *test)
{
	for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++)
		if (strcmp(scenarios[i].test, test) == 0)
			return &scenarios[i].s;
	return NULL;
}
