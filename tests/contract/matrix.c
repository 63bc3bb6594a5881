/* SPDX-License-Identifier: Apache-2.0 */
#include "matrix.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/strvec.h"

static const char *const words[] = {
	[CELL_UNTESTED] = "untested",
	[CELL_PASS] = "pass",
	[CELL_ENOTSUP] = "ENOTSUP",
	[CELL_FAIL] = "FAIL",
};

int matrix_save(const char *path, const char *label, const enum cell cells[HV_CAPS],
		const char *const reasons[HV_CAPS], struct err *err)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	for (enum hv_cap c = 0; c < HV_CAPS; c++)
		buf_addf(&b, "%s\t%s\t%s\t%s\n", label, hv_cap_name(c), words[cells[c]],
			 reasons[c] ? reasons[c] : "");
	_cleanup_close_ int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, buf_head(&b), buf_len(&b)) != (ssize_t)buf_len(&b))
		return err_errno(err, errno, "%s", path);
	return 0;
}

struct line {
	char *label, *op, *result, *reason;
};

static size_t read_lines(char *text, struct line **ret)
{
	struct line *lines = NULL;
	size_t n = 0;
	for (char *one; (one = strsep(&text, "\n"));) {
		struct line l = {.label = strsep(&one, "\t")};
		l.op = strsep(&one, "\t");
		l.result = strsep(&one, "\t");
		l.reason = strsep(&one, "\t");
		if (!l.reason)
			continue;
		lines = xreallocarray(lines, n + 1, sizeof(*lines));
		lines[n++] = l;
	}
	*ret = lines;
	return n;
}

/* The last one counts: a run may have been repeated, or another have had what the first had not. */
static const struct line *find(const struct line *lines, size_t n, const char *label, const char *op)
{
	const struct line *untested = NULL;
	while (n--) {
		if (strcmp(lines[n].label, label) != 0 || strcmp(lines[n].op, op) != 0)
			continue;
		if (strcmp(lines[n].result, words[CELL_UNTESTED]) != 0)
			return &lines[n];
		untested = &lines[n];
	}
	return untested;
}

static void print_row(const struct line *lines, size_t n, const struct strvec *labels, const char *op)
{
	printf("# %-16s", op);
	for (size_t i = 0; i < labels->n; i++) {
		const struct line *l = find(lines, n, labels->v[i], op);
		printf(" %-*s", (int)MAX(strlen(labels->v[i]), (size_t)8), l ? l->result : "-");
	}
	printf("\n");
}

int matrix_print(const char *path, struct err *err)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_free_ struct line *lines = NULL;
	_cleanup_strvec_ struct strvec labels = STRVEC_INIT;
	if (path_read(path, 1 << 20, &text, NULL, err) < 0)
		return -1;
	size_t n = read_lines(text, &lines);
	printf("# %-16s", "operation");
	for (size_t i = 0; i < n; i++) {
		bool known = false;
		for (size_t k = 0; k < labels.n; k++)
			known = known || strcmp(labels.v[k], lines[i].label) == 0;
		if (!known) {
			strvec_add(&labels, lines[i].label);
			printf(" %-8s", lines[i].label);
		}
	}
	printf("\n");
	for (enum hv_cap c = 0; c < HV_CAPS; c++)
		print_row(lines, n, &labels, hv_cap_name(c));
	for (size_t i = 0; i < n; i++)
		if (lines[i].reason[0] && find(lines, n, lines[i].label, lines[i].op) == &lines[i])
			printf("# %s: %s: %s: %s\n", lines[i].label, lines[i].op, lines[i].result,
			       lines[i].reason);
	return 0;
}

void matrix_docs(struct buf *out)
{
	const struct hypervisor *h;
	buf_adds(out, "| operation | |");
	for (size_t i = 0; (h = hypervisor_at(i)); i++)
		buf_addf(out, " `%s` |", h->name);
	buf_adds(out, "\n|---|---|");
	for (size_t i = 0; hypervisor_at(i); i++)
		buf_adds(out, "---|");
	for (enum hv_cap c = 0; c < HV_CAPS; c++) {
		buf_addf(out, "\n| %s | %s |", hv_cap_name(c), hv_cap_help(c));
		for (size_t i = 0; (h = hypervisor_at(i)); i++) {
			const char *why = hypervisor_lacks(h, NULL, c);
			buf_addf(out, " %s%s |", why ? "no: " : "yes", why ? why : "");
		}
	}
	buf_adds(out, "\n");
}

int matrix_only(const char *path)
{
	_cleanup_buf_ struct buf table = BUF_INIT;
	struct err e = ERR_INIT;
	if (!path) {
		matrix_docs(&table);
		printf("%s", buf_cstr(&table));
		return 0;
	}
	if (matrix_print(path, &e) == 0)
		return 0;
	fprintf(stderr, "contract: %s\n", e.text);
	return 1;
}

bool matrix_in_docs(const char *path, struct err *err)
{
	_cleanup_buf_ struct buf table = BUF_INIT;
	_cleanup_free_ char *text = NULL;
	matrix_docs(&table);
	return path_read(path, 1 << 20, &text, NULL, err) == 0 && strstr(text, buf_cstr(&table));
}

bool test_wanted(const char *only, const char *name)
{
	_cleanup_free_ char *copy = only ? xstrdup(only) : NULL;
	for (char *rest = copy, *word; (word = strsep(&rest, ","));)
		if (strstr(name, word))
			return true;
	return !only;
}
