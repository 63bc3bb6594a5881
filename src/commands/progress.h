/* SPDX-License-Identifier: Apache-2.0 */
/* Progress of long work, on stderr: one line that is rewritten on a terminal; elsewhere a plain line per step. */
#ifndef VSE_COMMANDS_PROGRESS_H
#define VSE_COMMANDS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	bool quiet, tty;
	bool shown;     /* a line without its newline is on the terminal */
	uint64_t begun; /* monotonic ms */
	uint64_t drawn; /* when the line was last drawn */
	char step[64];
};

void progress_begin(struct progress *p, bool quiet);
/* total 0: unknown. text: a short line, may be "" . It has the shape of image_progress_fn (arg: the progress). */
void progress_step(void *arg, const char *step, unsigned done, unsigned total, const char *text);
/* Takes the line away; what follows starts on an empty line. */
void progress_clear(struct progress *p);

#endif
