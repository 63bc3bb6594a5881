/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of host names: the grammar as `scontrol show hostnames` of Slurm 22.05 reads it, and its bounds. */
#include "base/hostlist.h"

#include <errno.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "tap.h"

static char *joined(const struct strvec *v)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	for (size_t i = 0; i < v->n; i++)
		buf_addf(&b, "%s%s", i ? " " : "", v->v[i]);
	return buf_take(&b);
}

static const struct {
	const char *list, *names;
} good[] = {
	{"n1", "n1"},
	{"n[1-4]", "n1 n2 n3 n4"},
	{"n[1,3-4],login", "n1 n3 n4 login"},
	{"n[1-2],login[01-03]", "n1 n2 login01 login02 login03"},
	{"r[1-2]n[01-03]", "r1n01 r1n02 r1n03 r2n01 r2n02 r2n03"},
	{"n[09-011]", "n09 n10 n11"},
	{"n[9-11]", "n9 n10 n11"},
	{"n[008-010]", "n008 n009 n010"},
	{"n[4,2]", "n4 n2"},
	{"b[1-2]-ib", "b1-ib b2-ib"},
	{"[1-2]", "1 2"},
	{"a, b\tc\n", "a b c"},
	{",,a,,b,", "a b"},
	{"", ""},
	{"a,a", "a a"},
	{"user@host,::1,fe80::1%eth0", "user@host ::1 fe80::1%eth0"},
	{"n[0-0]", "n0"},
	{"n[999999999999999998-999999999999999999]", "n999999999999999998 n999999999999999999"},
};

static const struct {
	const char *list;
	int code;
} bad[] = {
	{"n[1-4", EINVAL},
	{"n1]", EINVAL},
	{"n[]", EINVAL},
	{"n[1-]", EINVAL},
	{"n[-2]", EINVAL},
	{"n[4-1]", EINVAL},
	{"n[1,]", EINVAL},
	{"n[a-b]", EINVAL},
	{"n[1 2]", EINVAL},
	{"n[1[2]]", EINVAL},
	{"-oProxyCommand=x", EINVAL},
	{"a;b", EINVAL},
	{"a$(b)", EINVAL},
	{"a/b", EINVAL},
	{"n[1-1000000]", E2BIG},
	{"n[1-400]x[1-400]", E2BIG},
	{"n[1-99999999999999999999]", EINVAL},
};

static void expansions(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		_cleanup_strvec_ struct strvec v = STRVEC_INIT, again = STRVEC_INIT;
		struct err err = ERR_INIT;
		is_int(hostlist_expand(good[i].list, &v, &err), 0, "list %zu is one %s", i, err.text);
		_cleanup_free_ char *names = joined(&v), *fold = hostlist_fold(v.v, v.n);
		is_str(names, good[i].names, "its names");
		is_int(hostlist_expand(fold, &again, &err), 0, "folded it is '%s'", fold);
		_cleanup_free_ char *same = joined(&again);
		is_str(same, good[i].names, "which has the same names");
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_strvec_ struct strvec v = STRVEC_INIT;
		struct err err = ERR_INIT;
		strvec_add(&v, "kept");
		is_int(hostlist_expand(bad[i].list, &v, &err), -1, "'%s' is none", bad[i].list);
		is_int(err.code, bad[i].code, "for the right reason: %s", err.text);
		is_int(v.n, 1, "and adds nothing");
	}
}

static void folds(void)
{
	static const struct {
		const char *names, *fold;
	} row[] = {
		{"n1 n2 n3", "n[1-3]"},
		{"n9 n10 n11", "n[9-11]"},
		{"n09 n10", "n[09-10]"},
		{"n01 n2", "n01,n2"},
		{"n1 n3", "n1,n3"},
		{"a b", "a,b"},
		{"n2 n1", "n2,n1"},
		{"n1 n1", "n1,n1"},
		{"a1b1 a1b2 a2b1", "a1b[1-2],a2b1"},
		{"n99 n100", "n[99-100]"},
		{"n099 n100", "n[099-100]"},
		{"n1 n2-ib", "n1,n2-ib"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		_cleanup_strvec_ struct strvec v = STRVEC_INIT;
		strvec_split(&v, row[i].names, " ");
		_cleanup_free_ char *fold = hostlist_fold(v.v, v.n);
		is_str(fold, row[i].fold, "%s", row[i].names);
	}
}

static void bounds(void)
{
	struct err err = ERR_INIT;
	_cleanup_strvec_ struct strvec v = STRVEC_INIT;
	_cleanup_free_ char *text = xmalloc(HOSTLIST_TEXT_MAX + 2), *name = xmalloc(400);
	memset(text, ',', HOSTLIST_TEXT_MAX + 1);
	text[HOSTLIST_TEXT_MAX + 1] = '\0';
	is_int(hostlist_expand(text, &v, &err), -1, "a text that is too long");
	is_int(err.code, E2BIG, "is too long");
	memset(name, 'x', 399);
	name[399] = '\0';
	is_int(hostlist_expand(name, &v, &err), -1, "a name that is too long");
	is_int(err.code, E2BIG, "is too long");
	name[HOST_NAME_LENGTH_MAX] = '\0';
	is_int(hostlist_expand(name, &v, &err), 0, "the longest name");
	is_int(hostlist_expand("n[000000-131071]", &v, &err), 0, "the most names");
	is_int(v.n, 1 + HOSTLIST_MAX, "are all there");
}

int main(void)
{
	expansions();
	folds();
	bounds();
	return done();
}
