/* SPDX-License-Identifier: Apache-2.0 */
/* sim                                    the test: many seeds, as TAP
 * sim --seed S --agents N [--verbose]    one world again
 * sim --seeds A-B --agents N             many, one line each that fails and a sum; N = 0: of 2 to 501 agents
 * sim --scale [--agents N]               how much memory and virtual time 100,000 agents and 1,000,000 VMs take */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/macros.h"
#include "tap.h"
#include "world.h"

struct sums {
	uint64_t seeds, events, messages, calls, dead, healed, moved, lost, refused, virtual_ms;
	uint64_t max_memory;
	uint32_t failed, max_bytes, max_depth, max_actions;
};

static bool run(const struct options *opt, struct sums *s)
{
	struct world w;
	world_init(&w, opt);
	world_run(&w);
	bool failed = w.failure[0];
	if (failed)
		printf("# seed %llu, %u agents, fan-out %u: %s\n#   again: sim --seed %llu "
		       "--agents %u%s\n",
		       (unsigned long long)opt->seed, opt->agents, w.opt.fanout, w.failure,
		       (unsigned long long)opt->seed, opt->agents,
		       opt->no_faults ? " --no-faults" : "");
	s->virtual_ms += w.now;
	world_finish(&w);
	s->seeds++;
	s->failed += failed;
	s->events += w.n_events;
	s->messages += w.n_messages;
	s->calls += w.n_calls_done;
	s->dead += w.n_dead_named;
	s->healed += w.healed;
	s->moved += w.moved;
	s->lost += w.lost;
	s->refused += w.refused;
	s->max_memory = MAX(s->max_memory, w.max_memory);
	s->max_bytes = MAX(s->max_bytes, w.max_bytes);
	s->max_depth = MAX(s->max_depth, w.max_depth);
	s->max_actions = MAX(s->max_actions, w.max_actions);
	fflush(stdout);
	return !failed;
}

static void show(const struct sums *s)
{
	printf("# %llu seeds, %llu events, %llu messages, %.1f h of virtual time, %.1f s of CPU\n",
	       (unsigned long long)s->seeds, (unsigned long long)s->events,
	       (unsigned long long)s->messages, (double)s->virtual_ms / 3.6e6,
	       (double)clock() / CLOCKS_PER_SEC);
	printf("# nodes lost %llu, hellos refused %llu, healed %llu, moved %llu; calls %llu, "
	       "members named "
	       "dead %llu\n",
	       (unsigned long long)s->lost, (unsigned long long)s->refused,
	       (unsigned long long)s->healed, (unsigned long long)s->moved,
	       (unsigned long long)s->calls, (unsigned long long)s->dead);
	printf("# at most: %u hops, %u bytes under way on a connection, %u actions of an event, "
	       "%llu bytes of "
	       "an agent's overlay\n",
	       s->max_depth, s->max_bytes, s->max_actions, (unsigned long long)s->max_memory);
}

static void suite(uint64_t first, uint64_t last, uint32_t agents, bool no_faults)
{
	struct sums s = {0};
	for (uint64_t seed = first; seed <= last; seed++) {
		struct options opt = {.seed = seed, .agents = agents, .no_faults = no_faults};
		if (!agents)
			opt.agents = 2 + (uint32_t)(seed * 2654435761u % 500);
		run(&opt, &s);
	}
	show(&s);
	ok(!s.failed, "%llu seeds, %u agents%s", (unsigned long long)s.seeds, agents,
	   agents ? no_faults ? ", no faults" : "" : " (0: 2 to 501)");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"seed", 1, NULL, 's'},   {"seeds", 1, NULL, 'S'},     {"agents", 1, NULL, 'a'},
		{"fanout", 1, NULL, 'k'}, {"no-faults", 0, NULL, 'n'}, {"scale", 0, NULL, 'x'},
		{"scale", 0, NULL, 'x'},  {"verbose", 0, NULL, 'v'},   {NULL, 0, NULL, 0}};
	struct options opt = {.agents = 200};
	uint64_t first = 0, last = 0;
	bool one = false, many = false, scaled = false;
	char *end;
	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;)
		switch (c) {
		case 's':
			opt.seed = strtoull(optarg, NULL, 10);
			one = true;
			break;
		case 'S':
			first = strtoull(optarg, &end, 10);
			last = *end == '-' ? strtoull(end + 1, NULL, 10) : first;
			many = true;
			break;
		case 'a': opt.agents = (uint32_t)strtoul(optarg, NULL, 10); break;
		case 'k': opt.fanout = (uint32_t)strtoul(optarg, NULL, 10); break;
		case 'x': scaled = true; break;
		case 'n': opt.no_faults = true; break;
		case 'v': opt.verbose = true; break;
		default: return 2;
		}
	if (scaled) {
		uint32_t n = opt.agents == 200 ? 100000 : opt.agents;
		ok(scale(n, n * 10), "%u agents", n);
		return done();
	}
	if (one) {
		struct sums s = {0};
		bool good = run(&opt, &s);
		show(&s);
		printf("1..1\n%sok 1 - seed %llu\n", good ? "" : "not ", (unsigned long long)opt.seed);
		return !good;
	}
	if (many) {
		suite(first, last, opt.agents, opt.no_faults);
		return done();
	}
	suite(1, 20, 0, true);
	suite(1, 2000, 0, false);
	suite(1, 10, 10000, false);
	return done();
}
