/* SPDX-License-Identifier: Apache-2.0 */
#include "commands/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/size.h"
#include "base/time.h"

#define REDRAW_MS 100

void progress_begin(struct progress *p, bool quiet)
{
	*p = (struct progress){.quiet = quiet, .tty = isatty(STDERR_FILENO), .begun = time_mono_ms()};
	const char *term = getenv("TERM");
	if (!term || strcmp(term, "dumb") == 0)
		p->tty = false;
}

static void draw(struct progress *p, const char *step, unsigned done, unsigned total, const char *text)
{
	char took[24], count[32] = "", line[512];
	struct winsize w = {.ws_col = 80};
	ioctl(STDERR_FILENO, TIOCGWINSZ, &w);
	duration_format(time_mono_ms() - p->begun, took);
	if (total)
		snprintf(count, sizeof(count), " %u/%u", done, total);
	else if (done)
		snprintf(count, sizeof(count), " %u", done);
	int n = snprintf(line, sizeof(line), "[%s] %s%s%s%s", took, step, count,
			 text[0] ? ": " : "", text);
	int max = MIN(w.ws_col > 1 ? w.ws_col - 1 : 79, (int)sizeof(line) - 1);
	for (char *c = line; *c; c++)
		if ((unsigned char)*c < ' ')
			*c = ' ';
	fprintf(stderr, "\r\033[K%.*s", MIN(n, max), line);
	fflush(stderr);
	p->shown = true;
}

void progress_step(void *arg, const char *step, unsigned done, unsigned total, const char *text)
{
	struct progress *p = arg;
	bool fresh = strncmp(p->step, step, sizeof(p->step) - 1) != 0;
	uint64_t now = time_mono_ms();
	if (p->quiet)
		return;
	if (fresh)
		snprintf(p->step, sizeof(p->step), "%s", step);
	if (!p->tty) {
		if (fresh)
			fprintf(stderr, "%s%s%s\n", step, text[0] ? ": " : "", text);
		return;
	}
	if (!fresh && now - p->drawn < REDRAW_MS && done != total)
		return;
	p->drawn = now;
	draw(p, step, done, total, text);
}

void progress_clear(struct progress *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
	p->drawn = 0;
}
