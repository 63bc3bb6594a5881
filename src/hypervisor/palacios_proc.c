/* SPDX-License-Identifier: Apache-2.0 */
/* What the module says in /proc/v3vee and in the kernel's log. All of it is data: another release may write other
 * lines, and what is not understood is passed over. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/text.h"
#include "hypervisor/palacios.h"

static const char *const state_names[] = {
	[PALACIOS_INVALID] = "INVALID", [PALACIOS_RUNNING] = "running",
	[PALACIOS_STOPPED] = "stopped", [PALACIOS_PAUSED] = "paused",
	[PALACIOS_ERROR] = "ERROR",     [PALACIOS_SIMULATING] = "simulating",
	[PALACIOS_UNKNOWN] = "UNKNOWN", [PALACIOS_LOST] = "lost",
};

const char *palacios_state_name(enum palacios_state s)
{
	return (size_t)s < ARRAY_SIZE(state_names) ? state_names[s] : "UNKNOWN";
}

static enum palacios_state state_of(const char *word)
{
	for (size_t i = 0; i < PALACIOS_LOST; i++)
		if (strcmp(word, state_names[i]) == 0)
			return (enum palacios_state)i;
	return PALACIOS_UNKNOWN;
}

/* Copies the next line into `line`, cut to fit; gives where the one after begins, NULL at the end. */
static const char *next_line(const char *p, char *line, size_t size)
{
	if (!*p)
		return NULL;
	size_t n = strcspn(p, "\n"), keep = MIN(n, size - 1);
	memcpy(line, p, keep);
	line[keep] = '\0';
	return p + n + (p[n] == '\n');
}

/* "vm-a\t/dev/v3-vm0\trunning\t1 vcores\t8 regions\t33554432 mem\tgeneral" */
static bool one_guest(char *line, struct palacios_guest *g)
{
	char *rest = line, *name = strsep(&rest, "\t"), *device = strsep(&rest, "\t"),
	     *state = strsep(&rest, "\t"), *field;
	if (!state || strlen(name) > PALACIOS_NAME_MAX ||
	    sscanf(device, "/dev/v3-vm%u", &g->number) != 1 || g->number >= PALACIOS_VMS_MAX)
		return false;
	snprintf(g->name, sizeof(g->name), "%s", name);
	g->state = state[0] == '<' ? PALACIOS_LOST : state_of(state);
	g->vcores = 0;
	g->memory = 0;
	while ((field = strsep(&rest, "\t"))) {
		unsigned long long n;
		char what[16];
		if (sscanf(field, "%llu %15s", &n, what) != 2)
			continue;
		if (strcmp(what, "vcores") == 0)
			g->vcores = (unsigned)MIN(n, 1024u);
		else if (strcmp(what, "mem") == 0)
			g->memory = n;
	}
	return true;
}

size_t palacios_guests(const char *text, struct palacios_guest *v, size_t max)
{
	char line[512];
	size_t n = 0;
	while (n < max && (text = next_line(text, line, sizeof(line))))
		n += one_guest(line, &v[n]);
	return n;
}

/* "   vcore 0 running on pcore 0 12238 exits rip=0x.. real physical nested " */
static void one_vcore(const char *line, bool ours, struct palacios_cores *ret)
{
	unsigned vcore, pcore;
	unsigned long long exits = 0;
	char state[32];
	if (sscanf(line, " vcore %u %31s on pcore %u %llu exits", &vcore, state, &pcore, &exits) < 3)
		return;
	if (pcore < PALACIOS_CPUS_MAX)
		ret->on[pcore]++;
	if (!ours)
		return;
	ret->vcores++;
	ret->running += strcmp(state, "running") == 0;
	ret->exits += exits;
}

void palacios_cores(const char *text, const char *name, struct palacios_cores *ret)
{
	char line[512], found[PALACIOS_NAME_MAX + 1];
	bool ours = false;
	*ret = (struct palacios_cores){0};
	while ((text = next_line(text, line, sizeof(line)))) {
		if (sscanf(line, " Name: %127s", found) == 1)
			ours = name && strcmp(found, name) == 0;
		else
			one_vcore(line, ours, ret);
	}
}

int palacios_info(const char *text, struct palacios_info *ret, struct err *err)
{
	struct palacios_info i = {.nodes = 1};
	char line[256];
	while ((text = next_line(text, line, sizeof(line)))) {
		unsigned long long n;
		const char *colon = strchr(line, ':');
		if (!colon || sscanf(colon + 1, "%llu", &n) != 1)
			continue;
		if (strncmp(line, "number of nodes", 15) == 0)
			i.nodes = (unsigned)MIN(n, 1024u);
		else if (strncmp(line, "number of cpus", 14) == 0)
			i.cpus = (unsigned)MIN(n, 65536u);
		else if (strncmp(line, "palacios run-time mem_block_size", 32) == 0)
			i.block = n;
	}
	if (!i.cpus || i.block < 4096)
		return err_set(err, EPROTO,
			       "/proc/v3vee/v3-info says no number of CPUs or no block size");
	*ret = i;
	return 0;
}

/* "    Base Addr=<ptr>, order=27, size=134217728, free=134217728": one line a pool */
uint64_t palacios_free_blocks(const char *text, uint64_t block)
{
	char line[512];
	uint64_t blocks = 0;
	while ((text = next_line(text, line, sizeof(line)))) {
		unsigned long long n;
		const char *p = strstr(line, "free=");
		if (strstr(line, "Base Addr=") && p && sscanf(p + 5, "%llu", &n) == 1)
			blocks += n / block;
	}
	return blocks;
}

/* "palacios (pcore P vm NAME vcore V): ERROR at FILE(LINE): text", where vm and vcore may be absent. */
static const char *error_text(const char *line, const char *name)
{
	const char *p = strstr(line, "palacios (pcore "),
		   *end = p ? strstr(p, "): ERROR at ") : NULL, *vm = p ? strstr(p, " vm ") : NULL;
	if (!end)
		return NULL;
	if (vm && vm < end) {
		size_t n = strcspn(vm + 4, " )");
		if (n != strlen(name) || strncmp(vm + 4, name, n) != 0)
			return NULL;
	}
	const char *text = strstr(end + 12, "): ");
	return text && text[3] ? text + 3 : NULL;
}

void palacios_kernel_errors(const char *text, const char *name, char *out, size_t size)
{
	char line[512];
	size_t at = 0;
	unsigned n = 0;
	out[0] = '\0';
	/* What failed first is the cause; what follows are those who passed it on. */
	while (n < 2 && (text = next_line(text, line, sizeof(line)))) {
		const char *said = line[0] == ' ' ? NULL : error_text(line, name);
		if (!said)
			continue;
		size_t len = strlen(said);
		while (len && (said[len - 1] == ' ' || said[len - 1] == '\n'))
			len--;
		int put = snprintf(out + at, size - at, "%s%.*s", n++ ? "; " : "", (int)len, said);
		at = MIN(at + (size_t)put, size - 1);
	}
	text_clean(out);
}
