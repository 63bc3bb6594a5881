/* SPDX-License-Identifier: Apache-2.0 */
/* All processes of a container descend from its process 1: who loses its parent in there becomes a child of that one.
 * (proc(5): task/TID/children is complete for a process that is stopped, which is what a pause comes down to.) */
#include <ctype.h>
#include <dirent.h>
#include <string.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/proc.h"
#include "hypervisor/container.h"

#define CHILDREN_MAX (1u << 20)
#define MEMBERS_MAX 1000000u

void tree_add(struct tree *t, const struct tree_member *m)
{
	if (t->n == t->cap) {
		t->cap = MAX(t->cap * 2, (size_t)16);
		t->v = xreallocarray(t->v, t->cap, sizeof(*t->v));
	}
	t->v[t->n++] = *m;
}

bool tree_has(const struct tree *t, const struct tree_member *m)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->v[i].pid == m->pid && t->v[i].start == m->start)
			return true;
	return false;
}

void tree_finish(struct tree *t)
{
	free(t->v);
	*t = (struct tree){0};
}

/* The letter behind the name, which may hold anything but ends with the last ')'. */
static bool thread_stopped(pid_t pid, const char *tid)
{
	_cleanup_free_ char *path = xasprintf("/proc/%d/task/%s/stat", (int)pid, tid), *text = NULL;
	if (path_read(path, 4096, &text, NULL, NULL) < 0)
		return true; /* it has ended */
	const char *p = strrchr(text, ')');
	return p && p[1] == ' ' && strchr("TtZX", p[2]);
}

static void add_children(struct tree *t, pid_t pid, const char *tid)
{
	_cleanup_free_ char *path = xasprintf("/proc/%d/task/%s/children", (int)pid, tid), *text = NULL;
	if (path_read(path, CHILDREN_MAX, &text, NULL, NULL) < 0)
		return;
	for (char *rest = text, *word; (word = strsep(&rest, " \n"));) {
		struct tree_member m = {.pid = atoi(word)};
		if (m.pid > 0 && t->n < MEMBERS_MAX && proc_start_time(m.pid, &m.start, NULL) == 0)
			tree_add(t, &m);
	}
}

static bool look_at(struct tree *t, pid_t pid)
{
	_cleanup_free_ char *path = xasprintf("/proc/%d/task", (int)pid);
	bool stopped = true;
	DIR *d = opendir(path);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		if (!isdigit((unsigned char)e->d_name[0]))
			continue;
		stopped = thread_stopped(pid, e->d_name) && stopped;
		add_children(t, pid, e->d_name);
	}
	if (d)
		closedir(d);
	return stopped;
}

void tree_read(struct tree *t, pid_t root)
{
	struct tree_member m = {.pid = root};
	t->n = 0;
	if (proc_start_time(root, &m.start, NULL) < 0)
		return;
	tree_add(t, &m);
	for (size_t i = 0; i < t->n; i++) {
		bool stopped = look_at(t, t->v[i].pid); /* may move t->v */
		t->v[i].stopped = stopped;
	}
}
