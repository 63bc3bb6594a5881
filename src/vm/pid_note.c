/* SPDX-License-Identifier: Apache-2.0 */
#include "vm/pid_note.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/proc.h"

void pid_note_write(const char *dir, pid_t pid)
{
	uint64_t start;
	if (proc_start_time(pid, &start, NULL) < 0)
		return;
	_cleanup_free_ char *path = path_join(dir, "pid");
	FILE *f = fopen(path, "we");
	if (!f)
		return;
	fprintf(f, "%d %" PRIu64 "\n", (int)pid, start);
	fclose(f);
}

void pid_note_kill(const char *dir)
{
	int pid;
	uint64_t start;
	_cleanup_free_ char *path = path_join(dir, "pid"), *text = NULL;
	if (path_read(path, 128, &text, NULL, NULL) == 0 &&
	    sscanf(text, "%d %" SCNu64, &pid, &start) == 2)
		proc_kill(pid, start);
}
