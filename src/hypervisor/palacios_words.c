/* SPDX-License-Identifier: Apache-2.0 */
/* Palacios tells nothing of a guest that halts, and of one that resets itself only that it stopped. Why it did so is
 * known from what the guest said last: its kernel on the console, its agent on the channel. */
#include <string.h>

#include "hypervisor/palacios.h"
#include "wire/frame.h"
#include "wire/kv.h"
#include "wire/resync.h"

/* The kernel's words have a time before them ("[   12.3] "), or not (printk.time=0). */
static const char *after_time(const char *line)
{
	if (line[0] != '[')
		return line;
	const char *end = strstr(line, "] ");
	return end ? end + 2 : line;
}

static bool begins(const char *s, const char *with)
{
	return strncmp(s, with, strlen(with)) == 0;
}

static void end_of_line(struct palacios_words *w)
{
	w->line[w->line_len] = '\0';
	const char *said = after_time(w->line);
	w->line_len = 0;
	if (begins(said, "Kernel panic - not syncing"))
		w->panicked = true;
	else if (begins(said, "reboot: System halted") || begins(said, "reboot: Power down"))
		w->halted = true;
}

void palacios_words_console(struct palacios_words *w, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (p[i] == '\n' || p[i] == '\r')
			end_of_line(w);
		else if (p[i] && w->line_len < sizeof(w->line) - 1)
			w->line[w->line_len++] = p[i];
	}
}

static void on_message(struct palacios_words *w, const struct frame *f)
{
	struct kv verb;
	if (!kv_check(f->payload, f->len) || !kv_find(f->payload, f->len, "verb", &verb) ||
	    verb.value_len != 3 || memcmp(verb.value, "bye", 3) != 0)
		return;
	_cleanup_free_ char *how = kv_dup(f->payload, f->len, "how");
	snprintf(w->bye, sizeof(w->bye), "%s", how ? how : "poweroff");
}

void palacios_words_channel(struct palacios_words *w, const char *p, size_t n)
{
	struct frame f;
	int rc;
	buf_add(&w->frames, p, n);
	if (w->lost && !resync_find(&w->frames))
		return;
	w->lost = false;
	while ((rc = frame_read(&w->frames, FRAME_MAX_GUEST, &f, NULL)) == 1) {
		if (f.type == FRAME_MESSAGE && f.id == 0)
			on_message(w, &f);
		frame_drop(&w->frames, &f);
	}
	w->lost = rc < 0;
}

void palacios_words_clear(struct palacios_words *w)
{
	buf_finish(&w->frames);
	*w = (struct palacios_words){0};
}
