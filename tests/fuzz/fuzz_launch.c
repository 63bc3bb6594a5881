/* SPDX-License-Identifier: Apache-2.0 */
/* What launchers read; the first byte chooses the reader. Whatever is accepted has names that may stand in an argv. */
#include <stdint.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hostlist.h"
#include "launcher/backend.h"
#include "launcher/parse.h"
#include "launcher/payload.h"
#include "launcher/site.h"
#include "launcher/slurm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void nodes(int (*parse)(const char *text, struct allocation *a, struct err *err), const char *text)
{
	_cleanup_allocation_ struct allocation *a = allocation_new(NULL, NULL);
	if (parse(text, a, NULL) < 0)
		return;
	for (size_t i = 0; i < a->n_nodes; i++)
		if (host_name_check(a->nodes[i].name, NULL) < 0)
			abort();
}

static void counts(const char *text)
{
	struct launch_node n[8] = {0};
	if (parse_counts(text, n, ARRAY_SIZE(n), NULL) == 0)
		for (size_t i = 0; i < ARRAY_SIZE(n); i++)
			if (!n[i].cores)
				abort();
}

static void words(const char *text)
{
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	int64_t seconds;
	if (parse_slurm_time(text, &seconds, NULL) == 0 && seconds < -1)
		abort();
	if (slurm_version(text) > 9999)
		abort();
	if (slurm_lost_nodes(text, &names))
		for (size_t i = 0; i < names.n; i++)
			if (host_name_check(names.v[i], NULL) < 0)
				abort();
}

static void site(const char *text)
{
	struct site_launcher *s = NULL;
	if (site_parse(text, &s, NULL) == 0 && !s->launch.n)
		abort();
	site_destroy(s);
}

static void apstat(const char *text)
{
	uint64_t id;
	unsigned n;
	parse_apstat(text, "138309", &id, &n, NULL);
}

static void trim(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *copy = xmalloc(size ? size : 1); /* of just this size: sanitizers see a step beyond */
	memcpy(copy, data, size);
	size_t cut = payload_trim(copy, size);
	if (cut > size || payload_trim(copy, cut) != cut)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	_cleanup_free_ char *text = xmemdup0(data + 1, size - 1);
	switch (*data) {
	case 'n': nodes(parse_nodefile, text); break;
	case 'h': nodes(parse_hostfile, text); break;
	case 'v': nodes(parse_exec_vnode, text); break;
	case 'r': nodes(parse_flux_r, text); break;
	case 'c': counts(text); break;
	case 'w': words(text); break;
	case 's': site(text); break;
	case 'a': apstat(text); break;
	case 'e': trim(data + 1, size - 1); break;
	default: break;
	}
	return 0;
}
