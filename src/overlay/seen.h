/* SPDX-License-Identifier: Apache-2.0 */
/* Calls that reached an agent, by id: a call that is asked again (over another hop, after a loss) is not run again.
 * Bounded: the oldest finished calls are forgotten first, running ones never. */
#ifndef VSE_OVERLAY_SEEN_H
#define VSE_OVERLAY_SEEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct seen;

enum seen_state {
	SEEN_NEW,     /* not known: it is now running, run it */
	SEEN_RUNNING, /* it runs: answer the one who asked last when it has finished */
	SEEN_DONE,    /* it has run: *ret_answer is what it gave */
};

/* Keeps at most max_done finished calls and max_bytes of their answers. */
struct seen *seen_create(uint32_t max_done, size_t max_bytes);
void seen_destroy(struct seen *s);
/* `hop` is where the answer shall go: kept, the last one asked over wins. ret_answer (borrowed until the next
 * change) and ret_len are set with SEEN_DONE only. */
enum seen_state seen_ask(struct seen *s, uint64_t id, uint32_t hop, const void **ret_answer,
			 size_t *ret_len);
/* It has run (answer: copied). Gives the hop to answer; 0 when the id is not running. */
uint32_t seen_finish(struct seen *s, uint64_t id, const void *answer, size_t len);
uint32_t seen_running(const struct seen *s);

#endif
