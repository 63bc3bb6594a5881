/* SPDX-License-Identifier: Apache-2.0 */
/* R of Flux, as its RFC 20 (version 1) describes it. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hostlist.h"
#include "base/rankset.h"
#include "launcher/backend.h"
#include "launcher/parse.h"

/* RFC 22: "0-3,7", "[0-3,7]". */
static int idset(const json_t *j, struct rankset *s, struct err *err)
{
	const char *text = json_string_value(j);
	if (!text)
		return err_set(err, EINVAL, "R: a set of ids is missing");
	_cleanup_free_ char *plain = xstrdup(text);
	size_t n = strlen(plain);
	bool brackets = n > 1 && plain[0] == '[' && plain[n - 1] == ']';
	if (brackets)
		plain[n - 1] = '\0';
	if (strspn(plain + brackets, "0123456789,-") != strlen(plain + brackets))
		return err_set(err, EINVAL, "R: '%.40s' is no set of ids", text);
	return rankset_parse(s, plain + brackets, RANK_MAX, err) < 0 ? err_prefix(err, "R: ") : 0;
}

/* Names in the order of the ranks; cores are set for the ranks of each entry of R_lite. */
static int entry(const json_t *e, const struct strvec *names, struct allocation *a, struct err *err)
{
	_cleanup_rankset_ struct rankset ranks = RANKSET_INIT, cores = RANKSET_INIT;
	const json_t *core = json_object_get(json_object_get(e, "children"), "core");
	if (idset(json_object_get(e, "rank"), &ranks, err) < 0 || (core && idset(core, &cores, err) < 0))
		return -1;
	for (uint32_t r = rankset_next(&ranks, 0); r != UINT32_MAX; r = rankset_next(&ranks, r + 1)) {
		if (a->n_nodes >= names->n)
			return err_set(err, EINVAL, "R: more ranks than names");
		struct launch_node *n = allocation_add(a, names->v[a->n_nodes]);
		if (!n)
			return err_set(err, E2BIG, "more than %u nodes", LAUNCH_NODES_MAX);
		n->launch_id = r;
		n->cores = rankset_count(&cores);
	}
	return 0;
}

static int names_of(const json_t *list, struct strvec *names, struct err *err)
{
	size_t i;
	json_t *v;
	json_array_foreach (list, i, v)
		if (!json_is_string(v) || hostlist_expand(json_string_value(v), names, err) < 0)
			return err_set(err, EINVAL, "R: nodelist is no list of host lists");
	return 0;
}

static int read_r(const json_t *r, struct allocation *a, struct err *err)
{
	const json_t *x = json_object_get(r, "execution"), *list = json_object_get(x, "R_lite");
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	double end = json_number_value(json_object_get(x, "expiration"));
	size_t i;
	json_t *e;
	if (json_integer_value(json_object_get(r, "version")) != 1)
		return err_set(err, EINVAL, "R: not of version 1");
	if (names_of(json_object_get(x, "nodelist"), &names, err) < 0)
		return -1;
	json_array_foreach (list, i, e)
		if (entry(e, &names, a, err) < 0)
			return -1;
	if (isfinite(end) && end > 0 && end < 1e15)
		a->end_time = (int64_t)end;
	return a->n_nodes == names.n ? 0 : err_set(err, EINVAL, "R: more names than ranks");
}

int parse_flux_r(const char *text, struct allocation *a, struct err *err)
{
	json_error_t e;
	json_t *r = json_loads(text, JSON_REJECT_DUPLICATES, &e);
	if (!r)
		return err_set(err, EINVAL, "R: line %d: %s", e.line, e.text);
	int rc = read_r(r, a, err);
	json_decref(r);
	return rc;
}
